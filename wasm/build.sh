#!/bin/sh
# Builds the runtime of stand-alone modules, evm-runtime.wasm, and notes what it was made from. With --check it says only whether the
# sources are still those.
#
# With a toolchain of rustup: `rustup target add wasm32-wasip1`. Without one, Debian's packages rustc-web, cargo-web,
# rust-web-src, lld and wasi-libc do: they have no library for the target, so it is built along. wasm-opt (binaryen) makes the
# module smaller, and is needed.
set -eu
cd "$(dirname "$0")/.."
sources() {
    find abi fpu ir cpu memory lifter kernel wasm -name '*.rs' ! -path '*tests*' ! -path '*/target/*'
    find backend/src/interp backend/src/abi.rs backend/src/lib.rs -name '*.rs' ! -path '*tests*'
    ls Cargo.toml abi/Cargo.toml fpu/Cargo.toml ir/Cargo.toml cpu/Cargo.toml memory/Cargo.toml lifter/Cargo.toml kernel/Cargo.toml wasm/Cargo.toml wasm/build.sh
}
hash=$(sources | LC_ALL=C sort | while read -r f; do sha256sum "$f"; done | sha256sum | cut -d' ' -f1)
if [ "${1:-}" = --check ]; then
    [ "$hash" = "$(cat wasm/evm-runtime.sha256)" ] && exit 0
    echo "wasm/evm-runtime.wasm was made from other sources: run wasm/build.sh" >&2
    exit 1
fi
flags="-Ctarget-feature=+simd128,+bulk-memory"
cargo=cargo
set --
if ! rustc --print target-libdir --target wasm32-wasip1 2>/dev/null | xargs -I{} test -e {}; then
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTC_WORKSPACE_WRAPPER="$PWD/wasm/old-toolchain.sh"
    export CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld
    # Rustup's library says nothing of where in the source a panic is; nor does this one.
    flags="$flags -Zlocation-detail=none -Clink-self-contained=no -L/usr/lib/wasm32-wasi -Clink-arg=/usr/lib/wasm32-wasi/crt1-command.o"
    cargo=/usr/bin/cargo
    set -- -Zbuild-std=std,panic_abort --ignore-rust-version
fi
export CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="$flags"
exports=
for name in lifted helpers functions; do
    exports="$exports -Clink-arg=--export=evm_$name"
done
# shellcheck disable=SC2086
"$cargo" rustc -p evm-wasm --profile wasm --target wasm32-wasip1 "$@" -- \
    $exports -Clink-arg=--growable-table -Clink-arg=-zstack-size=4194304
built=${CARGO_TARGET_DIR:-target}/wasm32-wasip1/wasm/evm-runtime.wasm
wasm-opt -O3 --enable-simd --enable-bulk-memory --enable-sign-ext --enable-mutable-globals --enable-nontrapping-float-to-int \
    --strip-debug --strip-producers "$built" -o wasm/evm-runtime.wasm
echo "$hash" > wasm/evm-runtime.sha256
