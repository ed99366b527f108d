#!/bin/sh
# Writes src/{libc,general,ioctl}.rs: every constant that the kernel takes from libc and linux-raw-sys, with the value it has for
# x86-64 Linux. To be run on such a host whenever the test of this crate says that one is missing.
set -eu
cd "$(dirname "$0")"
names() { # pattern of the path, then the names behind it, also those of `use path::{…}`
    cat $(find ../kernel/src -name '*.rs' ! -path '*tests.rs') | sed 's://.*::' | tr '\n' ' ' > /tmp/abi-sources.$$
    {
        grep -oE "\b$1::[A-Z_][A-Za-z0-9_]*" /tmp/abi-sources.$$ | sed 's/.*:://'
        # Those that a macro puts behind the path.
        if [ $1 = libc ]; then
            grep -oE '\bSYS_[a-z0-9_]+' /tmp/abi-sources.$$
            sed -n '/^errno! {/,/^}/p' ../kernel/src/errno.rs | grep -oE '\bE[A-Z0-9]+'
        fi
        grep -oE "use $1::\{[^}]*\}" /tmp/abi-sources.$$ | sed 's/.*{//' | tr -d '} ' | tr ',' '\n'
        if [ -n "${2:-}" ]; then
            for f in $(grep -rlE "use $1 as $2;" ../kernel/src); do
                grep -oE "\b$2::[A-Z][A-Z0-9_]+" "$f" | sed 's/.*:://'
            done
        fi
    } | grep -E '^(SYS_[a-z0-9_]+|[A-Z_][A-Z0-9_]+)$' | LC_ALL=C sort -u
    rm -f /tmp/abi-sources.$$
}
mkdir -p examples
trap 'rm -rf examples' EXIT
{
    echo 'fn show<T: std::fmt::Display>(name: &str, v: T) { println!("    {name}: {} = {v};", std::any::type_name::<T>()) }'
    echo 'fn main() { match std::env::args().nth(1).as_deref() {'
    for m in libc general:t ioctl:c; do
        path=${m%:*}
        [ $path = libc ] || path=linux_raw_sys::$path
        echo "Some(\"${m%:*}\") => {"
        for n in $(names $path "$(echo $m | sed -n 's/.*://p')"); do echo "show(\"$n\", $path::$n);"; done
        echo '}'
    done
    echo '_ => {} } }'
} > examples/print.rs
for m in libc general ioctl; do
    {
        echo "// Made by generate.sh."
        echo "constants! {"
        cargo run -q --release -p evm-abi --example print -- $m
        echo "}"
    } > src/$m.rs.new
    mv src/$m.rs.new src/$m.rs
done
