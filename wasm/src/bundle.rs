//! What was appended to the module: blobs with names.
//!
//! The linker writes four words of 32 bits to [`evm_lifted`]: the number of entry points and the address of their list, the
//! number of blobs and the address of theirs, `(name: [u8; 8], address: u32, length: u32)` each.
//!
//! # Safety
//! The words are constant while the module runs: zero, or what the linker wrote, which is trusted as the module's
//! code is.
#![allow(unsafe_code)]

/// See the module.
#[allow(non_upper_case_globals)]
#[unsafe(no_mangle)]
pub static mut evm_lifted: [u32; 4] = [0; 4];

/// A blob by its name.
pub fn blob(name: &[u8; 8]) -> Option<&'static [u8]> {
    // SAFETY: see the module; volatile, as the compiler does not know the linker.
    let [_, _, count, list] = unsafe { (&raw const evm_lifted).read_volatile() };
    (0..count as usize).find_map(|i| {
        // SAFETY: inside the list that the linker made.
        let (found, at, len) = unsafe {
            let p = (list as usize + 16 * i) as *const u8;
            (
                p.cast::<[u8; 8]>().read(),
                p.add(8).cast::<u32>().read_unaligned(),
                p.add(12).cast::<u32>().read_unaligned(),
            )
        };
        // SAFETY: the blob's bytes, constant data of the module.
        (found == *name).then(|| unsafe { std::slice::from_raw_parts(at as usize as *const u8, len as usize) })
    })
}
