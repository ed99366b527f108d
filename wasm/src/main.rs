//! The runtime of stand-alone WebAssembly modules: a virtual Linux and an interpreter, compiled to `wasm32-wasip1`. `evm lift -o
//! X.wasm` appends a program, its files (`bundle`) and its code as functions (`lifted`) to it.
//!
//! `world` makes the job from what was appended and from what WASI gives (arguments, environment, preopened folders); `thread` is
//! the run loop, on the module's one thread; `code` keeps blocks that are interpreted; `entry` is the border between the run loop
//! and lifted functions.
#![deny(unsafe_code)]

#[cfg(target_family = "wasm")]
mod alloc;
#[cfg(target_family = "wasm")]
mod bundle;
#[cfg(target_family = "wasm")]
mod code;
#[cfg(target_family = "wasm")]
mod entry;
#[cfg(target_family = "wasm")]
mod lifted;
#[cfg(target_family = "wasm")]
mod thread;
#[cfg(target_family = "wasm")]
mod world;

/// Exit status when the module itself fails.
#[cfg(target_family = "wasm")]
const FAILED: i32 = 125;

#[cfg(target_family = "wasm")]
fn main() {
    let status = world::run().unwrap_or_else(|e| {
        eprintln!("evm: {e}");
        FAILED
    });
    // A return says 0 as well, and hosts need not unwind from it.
    if status != 0 {
        std::process::exit(status);
    }
}

#[cfg(not(target_family = "wasm"))]
fn main() {
    eprintln!("this is compiled to WebAssembly: see wasm/build.sh");
    std::process::exit(1);
}
