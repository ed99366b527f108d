//! The allocator: one whose memory comes from growing the module's alone.
//!
//! WASI's C library takes all memory behind the program's data at the start for its heap, but what the linker appended is there. So
//! its functions are replaced by these, for the little that C code allocates.
//!
//! # Safety
//! Before a block given to C is a header that says what it is part of; what C gives back comes from here.
#![allow(unsafe_code)]

use dlmalloc::Dlmalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;

/// Bytes by which the memory grows at least: JavaScript engines collect garbage when it grows.
const GROWTH: usize = 16 << 20;
const PAGE: usize = 64 << 10;

/// Where the allocator's memory comes from.
struct Linear;

// SAFETY: new pages belong to nobody else; nothing is given back or moved.
unsafe impl dlmalloc::Allocator for Linear {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        for size in [size.max(GROWTH), size] {
            let pages = size.div_ceil(PAGE);
            let at = core::arch::wasm32::memory_grow(0, pages);
            if at != usize::MAX {
                return ((at * PAGE) as *mut u8, pages * PAGE, 0);
            }
        }
        (std::ptr::null_mut(), 0, 0)
    }
    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        std::ptr::null_mut()
    }
    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }
    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }
    fn can_release_part(&self, _: u32) -> bool {
        false
    }
    fn allocates_zeros(&self) -> bool {
        true
    }
    fn page_size(&self) -> usize {
        PAGE
    }
}

struct Global(UnsafeCell<Dlmalloc<Linear>>);
// SAFETY: the module has one thread.
unsafe impl Sync for Global {}

// SAFETY: the allocator's own functions with their contracts; no call is made inside another.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, l: Layout) -> *mut u8 {
        // SAFETY: see above.
        unsafe { (*self.0.get()).malloc(l.size(), l.align()) }
    }
    unsafe fn alloc_zeroed(&self, l: Layout) -> *mut u8 {
        // SAFETY: see above.
        unsafe { (*self.0.get()).calloc(l.size(), l.align()) }
    }
    unsafe fn dealloc(&self, p: *mut u8, l: Layout) {
        // SAFETY: see above.
        unsafe { (*self.0.get()).free(p, l.size(), l.align()) }
    }
    unsafe fn realloc(&self, p: *mut u8, l: Layout, size: usize) -> *mut u8 {
        // SAFETY: see above.
        unsafe { (*self.0.get()).realloc(p, l.size(), l.align(), size) }
    }
}

#[global_allocator]
static ALLOC: Global = Global(UnsafeCell::new(Dlmalloc::new_with_allocator(Linear)));

/// Before each of C's blocks: the address and size of the whole one, and the size that was asked for.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Header {
    block: usize,
    whole: usize,
    size: usize,
}
const HEADER: usize = size_of::<Header>();

unsafe fn allocate(align: usize, size: usize) -> *mut u8 {
    let align = align.max(HEADER);
    let Some(whole) = size.checked_add(align + HEADER) else {
        return std::ptr::null_mut();
    };
    let Ok(l) = Layout::from_size_align(whole, HEADER) else {
        return std::ptr::null_mut();
    };
    // SAFETY: the layout is not empty; the block has room for the header, up to `align` unused bytes, and `size`.
    unsafe {
        let block = ALLOC.alloc(l);
        if block.is_null() {
            return block;
        }
        let p = block.add(HEADER + (block as usize + HEADER).wrapping_neg() % align);
        p.cast::<Header>().sub(1).write(Header { block: block as usize, whole, size });
        p
    }
}

/// malloc(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut u8 {
    // SAFETY: no contract but C's.
    unsafe { allocate(HEADER, size) }
}
/// aligned_alloc(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut u8 {
    // SAFETY: as above.
    unsafe { allocate(align, size) }
}
/// posix_memalign(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(out: *mut *mut u8, align: usize, size: usize) -> i32 {
    // SAFETY: `out` can be written (contract of the function).
    unsafe {
        let p = allocate(align, size);
        if p.is_null() {
            return evm_abi::ENOMEM;
        }
        out.write(p);
        0
    }
}
/// free(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn free(p: *mut u8) {
    if p.is_null() {
        return;
    }
    // SAFETY: the block is one of `allocate`'s (contract of free).
    unsafe {
        let h = p.cast::<Header>().sub(1).read();
        ALLOC.dealloc(h.block as *mut u8, Layout::from_size_align_unchecked(h.whole, HEADER));
    }
}
/// calloc(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(n: usize, size: usize) -> *mut u8 {
    let Some(bytes) = n.checked_mul(size) else {
        return std::ptr::null_mut();
    };
    // SAFETY: the block has that size.
    unsafe {
        let p = malloc(bytes);
        if !p.is_null() {
            p.write_bytes(0, bytes);
        }
        p
    }
}
/// realloc(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(p: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: as in `free`; the copy is inside both blocks.
    unsafe {
        let q = malloc(size);
        if !p.is_null() && !q.is_null() {
            q.copy_from_nonoverlapping(p, (*p.cast::<Header>().sub(1)).size.min(size));
            free(p);
        }
        q
    }
}
