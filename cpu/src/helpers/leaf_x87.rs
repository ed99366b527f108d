//! Leaves of x87 helpers: the guest's instruction on the host's x87 unit, while the guest's state is there
//! ([`super::super::x87_live`]).
//!
//! ```text
//!     cmp x87_live, 0
//!     je 2f
//! 3:  the instruction
//!     ret
//! 2:  call enter          ; make the state live; not zero: it is
//!     jne 3b
//! 4:  push helper         ; it may not be: the helper does it
//!     jmp keep_…          ; which keeps all registers but the result's
//! ```
//! An operand from memory, which the lifted code has loaded, goes through the red zone; so does what is to be stored.
//!
//! # Safety
//! See [`super`]. The host's x87 unit holds the guest's state, which the ABI of functions knows nothing of; the rules of
//! [`super::super::x87_live`] say why nobody minds. The ways to helpers save all registers that a function may change.
#![allow(unsafe_code)]

use super::super::x87::FORM;
use super::super::{x87, x87_live};
use super::*;
use crate::CpuState;
use std::mem::offset_of;

const LIVE: usize = offset_of!(CpuState, x87_live);

/// Save everything that a function may change (but the upper halves of wide registers, which compiled code does not have),
/// `$call`, and put it back.
macro_rules! kept {
    ($(#[$doc:meta])* $name:ident, $call:literal, [$($result:literal)*], [$($end:literal)*] $($args:tt)*) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name() {
            naked_asm!(
                "push rbp", "mov rbp, rsp",
                "push rax", "push rcx", "push rdx", "push rsi", "push rdi",
                "push r8", "push r9", "push r10", "push r11",
                "sub rsp, 256", "and rsp, -16",
                "movaps [rsp], xmm0", "movaps [rsp + 16], xmm1", "movaps [rsp + 32], xmm2", "movaps [rsp + 48], xmm3",
                "movaps [rsp + 64], xmm4", "movaps [rsp + 80], xmm5", "movaps [rsp + 96], xmm6", "movaps [rsp + 112], xmm7",
                "movaps [rsp + 128], xmm8", "movaps [rsp + 144], xmm9", "movaps [rsp + 160], xmm10",
                "movaps [rsp + 176], xmm11", "movaps [rsp + 192], xmm12", "movaps [rsp + 208], xmm13",
                "movaps [rsp + 224], xmm14", "movaps [rsp + 240], xmm15",
                $call,
                $($result,)*
                "movaps xmm0, [rsp]", "movaps xmm1, [rsp + 16]", "movaps xmm2, [rsp + 32]", "movaps xmm3, [rsp + 48]",
                "movaps xmm4, [rsp + 64]", "movaps xmm5, [rsp + 80]", "movaps xmm6, [rsp + 96]", "movaps xmm7, [rsp + 112]",
                "movaps xmm8, [rsp + 128]", "movaps xmm9, [rsp + 144]", "movaps xmm10, [rsp + 160]",
                "movaps xmm11, [rsp + 176]", "movaps xmm12, [rsp + 192]", "movaps xmm13, [rsp + 208]",
                "movaps xmm14, [rsp + 224]", "movaps xmm15, [rsp + 240]",
                "lea rsp, [rbp - 72]",
                "pop r11", "pop r10", "pop r9", "pop r8",
                "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rax", "pop rbp",
                $($end,)*
                $($args)*
            )
        }
    };
}

kept! {
    /// Try to make the state live; the zero flag is clear if it is.
    enter, "call {load}", [], ["cmp byte ptr [rdi + {live}], 0" "ret"] load = sym x87_live::load, live = const LIVE,
}
kept! {
    /// Call the helper whose address is on the stack.
    keep_none, "call [rbp + 8]", [], ["lea rsp, [rsp + 8]" "ret"]
}
kept! {
    /// As `keep_none`, with a result in RAX.
    keep_int, "call [rbp + 8]", ["mov [rbp - 8], rax"], ["lea rsp, [rsp + 8]" "ret"]
}
kept! {
    /// As `keep_none`, with a result in XMM0.
    keep_vector, "call [rbp + 8]", ["movaps [rsp], xmm0"], ["lea rsp, [rsp + 8]" "ret"]
}

/// A leaf's code, as a function `code` of the number of a register, `{i}` in the text.
macro_rules! code {
    // Only while live.
    ($f:ident $keep:ident live $($text:literal)+) => {
        code!($f $keep "cmp byte ptr [rdi + {live}], 0" "je 2f" "3:" $($text)+ "ret" "2:" "call {enter}" "jne 3b");
    };
    // A store to memory, while live: how to take it back first. A new stack fault must be told from an old one.
    ($f:ident $keep:ident store $($text:literal)+) => {
        code!($f $keep live "fnstsw word ptr [rdi + {undo}]" "test byte ptr [rdi + {undo}], 0x40" "jne 4f"
            "mov byte ptr [rdi + {undo} + 7], 1" $($text)+);
    };
    // Without making it so.
    ($f:ident $keep:ident $($text:literal)+) => {
        #[unsafe(naked)]
        unsafe extern "sysv64" fn code<const I: u64>() {
            naked_asm!(
                $($text,)+
                "4:", "push rax", "push rax", "lea rax, [rip + {helper}]", "mov [rsp + 8], rax", "pop rax",
                "jmp {keep} # {i} {live} {undo} {fsw} {fcw} {enter}",
                i = const I, live = const LIVE, undo = const offset_of!(CpuState, x87_undo),
                fsw = const offset_of!(CpuState, fsw), fcw = const offset_of!(CpuState, fcw),
                enter = sym enter, helper = sym x87::$f, keep = sym $keep,
            )
        }
    };
}

const fn leaf(helper: u16, when: When, code: unsafe extern "sysv64" fn()) -> Leaf {
    Leaf { helper, needs: Needs::Base, when, code }
}

/// The leaves of a row: `HELPER function keep`, then `each BASE SHIFT` (eight, for first arguments BASE | i << SHIFT), `at FORM`
/// or `any`, then code.
macro_rules! row {
    ($id:ident $f:ident $keep:ident each $base:literal $shift:literal, $($text:tt)+) => {{
        code!($f $keep $($text)+);
        &[
            leaf($id, When::Imm(FORM, $base), code::<0>),
            leaf($id, When::Imm(FORM, $base | 1 << $shift), code::<1>),
            leaf($id, When::Imm(FORM, $base | 2 << $shift), code::<2>),
            leaf($id, When::Imm(FORM, $base | 3 << $shift), code::<3>),
            leaf($id, When::Imm(FORM, $base | 4 << $shift), code::<4>),
            leaf($id, When::Imm(FORM, $base | 5 << $shift), code::<5>),
            leaf($id, When::Imm(FORM, $base | 6 << $shift), code::<6>),
            leaf($id, When::Imm(FORM, $base | 7 << $shift), code::<7>),
        ]
    }};
    ($id:ident $f:ident $keep:ident at $form:literal, $($text:tt)+) => {{
        code!($f $keep $($text)+);
        &[leaf($id, When::Imm(FORM, $form), code::<0>)]
    }};
    ($id:ident $f:ident $keep:ident any, $($text:tt)+) => {{
        code!($f $keep $($text)+);
        &[leaf($id, When::Any, code::<0>)]
    }};
}

macro_rules! rows {
    ($( [$($row:tt)*] )*) => {
        static LEAVES: &[&[Leaf]] = &[ $( row!($($row)*) ),* ];
    };
}

/// All of them.
pub(super) fn leaves() -> impl Iterator<Item = &'static Leaf> {
    LEAVES.iter().copied().flatten()
}

rows! {
    [X87_ARITH x87_arith keep_none each 0 6, live "fadd st(0), st({i})"]
    [X87_ARITH x87_arith keep_none each 1 6, live "fmul st(0), st({i})"]
    [X87_ARITH x87_arith keep_none each 4 6, live "fsub st(0), st({i})"]
    [X87_ARITH x87_arith keep_none each 5 6, live "fsubr st(0), st({i})"]
    [X87_ARITH x87_arith keep_none each 6 6, live "fdiv st(0), st({i})"]
    [X87_ARITH x87_arith keep_none each 7 6, live "fdivr st(0), st({i})"]
    [X87_ARITH x87_arith keep_none each 0 3, live "fadd st({i}), st(0)"]
    [X87_ARITH x87_arith keep_none each 1 3, live "fmul st({i}), st(0)"]
    [X87_ARITH x87_arith keep_none each 4 3, live "fsub st({i}), st(0)"]
    [X87_ARITH x87_arith keep_none each 5 3, live "fsubr st({i}), st(0)"]
    [X87_ARITH x87_arith keep_none each 6 3, live "fdiv st({i}), st(0)"]
    [X87_ARITH x87_arith keep_none each 7 3, live "fdivr st({i}), st(0)"]
    [X87_ARITH x87_arith keep_none each 512 3, live "faddp st({i}), st(0)"]
    [X87_ARITH x87_arith keep_none each 513 3, live "fmulp st({i}), st(0)"]
    [X87_ARITH x87_arith keep_none each 516 3, live "fsubp st({i}), st(0)"]
    [X87_ARITH x87_arith keep_none each 517 3, live "fsubrp st({i}), st(0)"]
    [X87_ARITH x87_arith keep_none each 518 3, live "fdivp st({i}), st(0)"]
    [X87_ARITH x87_arith keep_none each 519 3, live "fdivrp st({i}), st(0)"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 0, live "mov [rsp - 8], rdx" "fadd dword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 1, live "mov [rsp - 8], rdx" "fmul dword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 4, live "mov [rsp - 8], rdx" "fsub dword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 5, live "mov [rsp - 8], rdx" "fsubr dword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 6, live "mov [rsp - 8], rdx" "fdiv dword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 7, live "mov [rsp - 8], rdx" "fdivr dword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 8, live "mov [rsp - 8], rdx" "fadd qword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 9, live "mov [rsp - 8], rdx" "fmul qword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 12, live "mov [rsp - 8], rdx" "fsub qword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 13, live "mov [rsp - 8], rdx" "fsubr qword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 14, live "mov [rsp - 8], rdx" "fdiv qword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 15, live "mov [rsp - 8], rdx" "fdivr qword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 16, live "mov [rsp - 8], rdx" "fiadd word ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 17, live "mov [rsp - 8], rdx" "fimul word ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 20, live "mov [rsp - 8], rdx" "fisub word ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 21, live "mov [rsp - 8], rdx" "fisubr word ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 22, live "mov [rsp - 8], rdx" "fidiv word ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 23, live "mov [rsp - 8], rdx" "fidivr word ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 24, live "mov [rsp - 8], rdx" "fiadd dword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 25, live "mov [rsp - 8], rdx" "fimul dword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 28, live "mov [rsp - 8], rdx" "fisub dword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 29, live "mov [rsp - 8], rdx" "fisubr dword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 30, live "mov [rsp - 8], rdx" "fidiv dword ptr [rsp - 8]"]
    [X87_ARITH_MEM x87_arith_mem keep_none at 31, live "mov [rsp - 8], rdx" "fidivr dword ptr [rsp - 8]"]
    [X87_FLD x87_fld keep_none at 0, live "mov [rsp - 8], rdx" "fld dword ptr [rsp - 8]"]
    [X87_FLD x87_fld keep_none at 1, live "mov [rsp - 8], rdx" "fld qword ptr [rsp - 8]"]
    [X87_FLD x87_fld keep_none at 2, live "mov [rsp - 8], rdx" "fild word ptr [rsp - 8]"]
    [X87_FLD x87_fld keep_none at 3, live "mov [rsp - 8], rdx" "fild dword ptr [rsp - 8]"]
    [X87_FLD x87_fld keep_none at 4, live "mov [rsp - 8], rdx" "fild qword ptr [rsp - 8]"]
    [X87_FLD80 x87_fld80 keep_none any, live "mov [rsp - 16], rsi" "mov [rsp - 8], rdx" "fld tbyte ptr [rsp - 16]"]
    [X87_FLD_ST x87_fld_st keep_none each 0 0, live "fld st({i})"]
    [X87_FLDC x87_fldc keep_none at 0, live "fld1"]
    [X87_FLDC x87_fldc keep_none at 1, live "fldl2t"]
    [X87_FLDC x87_fldc keep_none at 2, live "fldl2e"]
    [X87_FLDC x87_fldc keep_none at 3, live "fldpi"]
    [X87_FLDC x87_fldc keep_none at 4, live "fldlg2"]
    [X87_FLDC x87_fldc keep_none at 5, live "fldln2"]
    [X87_FLDC x87_fldc keep_none at 6, live "fldz"]
    [X87_FST x87_fst keep_int at 0, store "fst dword ptr [rsp - 8]" "mov eax, [rsp - 8]"]
    [X87_FST x87_fst keep_int at 1, store "fst qword ptr [rsp - 8]" "mov rax, [rsp - 8]"]
    [X87_FST x87_fst keep_int at 2, store "fist word ptr [rsp - 8]" "movzx eax, word ptr [rsp - 8]"]
    [X87_FST x87_fst keep_int at 3, store "fist dword ptr [rsp - 8]" "mov eax, [rsp - 8]"]
    [X87_FST x87_fst keep_int at 16, store "fstp dword ptr [rsp - 8]" "mov eax, [rsp - 8]"]
    [X87_FST x87_fst keep_int at 17, store "fstp qword ptr [rsp - 8]" "mov rax, [rsp - 8]"]
    [X87_FST x87_fst keep_int at 18, store "fistp word ptr [rsp - 8]" "movzx eax, word ptr [rsp - 8]"]
    [X87_FST x87_fst keep_int at 19, store "fistp dword ptr [rsp - 8]" "mov eax, [rsp - 8]"]
    [X87_FST x87_fst keep_int at 20, store "fistp qword ptr [rsp - 8]" "mov rax, [rsp - 8]"]
    [X87_FST x87_fst keep_int at 26, store "fisttp word ptr [rsp - 8]" "movzx eax, word ptr [rsp - 8]"]
    [X87_FST x87_fst keep_int at 27, store "fisttp dword ptr [rsp - 8]" "mov eax, [rsp - 8]"]
    [X87_FST x87_fst keep_int at 28, store "fisttp qword ptr [rsp - 8]" "mov rax, [rsp - 8]"]
    [X87_FST80 x87_fst80 keep_vector any, store "fstp tbyte ptr [rsp - 16]" "movq xmm0, qword ptr [rsp - 16]" "pinsrw xmm0, word ptr [rsp - 8], 4"]
    [X87_FST_ST x87_fst_st keep_none each 0 0, live "fst st({i})"]
    [X87_FST_ST x87_fst_st keep_none each 8 0, live "fstp st({i})"]
    [X87_COM x87_com keep_none each 0 0, live "fcom st({i})"]
    [X87_COM x87_com keep_none each 8 0, live "fcomp st({i})"]
    [X87_COM x87_com keep_none at 17, live "fcompp"]
    [X87_COM x87_com keep_none each 32 0, live "fucom st({i})"]
    [X87_COM x87_com keep_none each 40 0, live "fucomp st({i})"]
    [X87_COM x87_com keep_none at 49, live "fucompp"]
    [X87_COM_MEM x87_com_mem keep_none at 0, live "mov [rsp - 8], rdx" "fcom dword ptr [rsp - 8]"]
    [X87_COM_MEM x87_com_mem keep_none at 8, live "mov [rsp - 8], rdx" "fcomp dword ptr [rsp - 8]"]
    [X87_COM_MEM x87_com_mem keep_none at 1, live "mov [rsp - 8], rdx" "fcom qword ptr [rsp - 8]"]
    [X87_COM_MEM x87_com_mem keep_none at 9, live "mov [rsp - 8], rdx" "fcomp qword ptr [rsp - 8]"]
    [X87_COM_MEM x87_com_mem keep_none at 2, live "mov [rsp - 8], rdx" "ficom word ptr [rsp - 8]"]
    [X87_COM_MEM x87_com_mem keep_none at 10, live "mov [rsp - 8], rdx" "ficomp word ptr [rsp - 8]"]
    [X87_COM_MEM x87_com_mem keep_none at 3, live "mov [rsp - 8], rdx" "ficom dword ptr [rsp - 8]"]
    [X87_COM_MEM x87_com_mem keep_none at 11, live "mov [rsp - 8], rdx" "ficomp dword ptr [rsp - 8]"]
    [X87_COMI x87_comi keep_int each 0 0, live "fcomi st(0), st({i})" "lahf" "movzx eax, ah" "and eax, 0x45"]
    [X87_COMI x87_comi keep_int each 8 0, live "fcompi st(0), st({i})" "lahf" "movzx eax, ah" "and eax, 0x45"]
    [X87_COMI x87_comi keep_int each 32 0, live "fucomi st(0), st({i})" "lahf" "movzx eax, ah" "and eax, 0x45"]
    [X87_COMI x87_comi keep_int each 40 0, live "fucompi st(0), st({i})" "lahf" "movzx eax, ah" "and eax, 0x45"]
    [X87_UNARY x87_unary keep_none at 0xe0, live "fchs"]
    [X87_UNARY x87_unary keep_none at 0xe1, live "fabs"]
    [X87_UNARY x87_unary keep_none at 0xe4, live "ftst"]
    [X87_UNARY x87_unary keep_none at 0xe5, live "fxam"]
    [X87_UNARY x87_unary keep_none at 0xf0, live "f2xm1"]
    [X87_UNARY x87_unary keep_none at 0xf1, live "fyl2x"]
    [X87_UNARY x87_unary keep_none at 0xf2, live "fptan"]
    [X87_UNARY x87_unary keep_none at 0xf3, live "fpatan"]
    [X87_UNARY x87_unary keep_none at 0xf4, live "fxtract"]
    [X87_UNARY x87_unary keep_none at 0xf5, live "fprem1"]
    [X87_UNARY x87_unary keep_none at 0xf8, live "fprem"]
    [X87_UNARY x87_unary keep_none at 0xf9, live "fyl2xp1"]
    [X87_UNARY x87_unary keep_none at 0xfa, live "fsqrt"]
    [X87_UNARY x87_unary keep_none at 0xfb, live "fsincos"]
    [X87_UNARY x87_unary keep_none at 0xfc, live "frndint"]
    [X87_UNARY x87_unary keep_none at 0xfd, live "fscale"]
    [X87_UNARY x87_unary keep_none at 0xfe, live "fsin"]
    [X87_UNARY x87_unary keep_none at 0xff, live "fcos"]
    [X87_FXCH x87_fxch keep_none each 0 0, live "fxch st({i})"]
    [X87_FREE x87_free keep_none each 0 0, live "ffree st({i})"]
    [X87_TOP x87_top keep_none at 1, live "fincstp"]
    [X87_TOP x87_top keep_none at 7, live "fdecstp"]
    [X87_CMOV x87_cmov keep_none each 0 0, live "cmp rdx, 1" "fcmovnb st(0), st({i})"]
    [X87_LDCW x87_ldcw keep_none any, live "push rax" "mov eax, esi" "not eax" "test al, 0x3f" "pop rax" "jne 4f" "mov [rsp - 8], rsi" "fldcw word ptr [rsp - 8]" "fnstcw word ptr [rdi + {fcw}]"]
    // These have no reason to make it live.
    [X87_TOP x87_top keep_none at 0, "cmp byte ptr [rdi + {live}], 0" "je 2f" "ret" "2:" "test byte ptr [rdi + {fsw}], 0x80" "jne 4f" "ret"]
    [X87_CLEAR x87_clear keep_none any, "cmp byte ptr [rdi + {live}], 0" "je 4f" "fnclex" "ret"]
    [X87_STATUS x87_status keep_int any, "cmp byte ptr [rdi + {live}], 0" "je 2f" "fnstsw ax" "movzx eax, ax" "ret" "2:" "movzx eax, word ptr [rdi + {fsw}]" "ret"]
    [X87_REST x87_rest keep_none any, "cmp byte ptr [rdi + {live}], 0" "jne 4f" "ret"]
}
