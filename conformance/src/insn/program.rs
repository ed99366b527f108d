//! The C program of a table.
//!
//! It is static and not position-independent, so that addresses are equal in all runs. r14 and r15 belong to the frame;
//! rdi and rsi point into the test's memory; all other registers, flags, xmm registers, the x87 stack and the rounding modes
//! are loaded from `struct ctx` before the test's code is called, and stored back behind it. In the 32-bit program ebp belongs
//! to the frame, and edi and esi are the pointers.

use super::table::Test;
use crate::root::Arch;
use std::fmt::Write as _;

const FRAME: &str = r#"/* cc: -O1 -static -no-pie -fno-pie -fcf-protection=none */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef uint64_t u64; typedef uint32_t u32; typedef uint16_t u16; typedef uint8_t u8;

#ifdef __i386__
enum { RAX, RBX, RCX, RDX, RSI, RDI, NREG };
static const char *const reg_name[NREG] = {"eax", "ebx", "ecx", "edx", "esi", "edi"};
typedef u32 word;
#else
enum { RAX, RBX, RCX, RDX, RSI, RDI, R8, R9, R10, R11, NREG };
static const char *const reg_name[NREG] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"};
typedef u64 word;
#endif
struct ctx {
    u64 gpr[10];            /* 0 */
    u64 flags;              /* 80 */
    u32 mxcsr, depth;       /* 88, 92 */
    u16 fcw, pad[3];        /* 96 */
    u64 pad2;               /* 104 */
    u8 st[8][16];           /* 112 */
    u8 xmm[8][16];          /* 240 */
    u8 fpu[112];            /* 368 */
};
_Static_assert(__builtin_offsetof(struct ctx, fpu) == 368, "offsets in enter()");
static struct ctx c __attribute__((aligned(64)));
static u8 memory[1024] __attribute__((aligned(64)));

void enter(struct ctx *, void (*)(void));
#ifdef __i386__
asm(".intel_syntax noprefix\n.text\n.globl enter\nenter:\n"
    "push ebx\npush esi\npush edi\npush ebp\n"
    "mov ebp, [esp+20]\npush dword ptr [esp+24]\n"
    "fninit\nmov ecx, [ebp+92]\ntest ecx, ecx\njz 2f\nlea eax, [ebp+112]\n"
    "shl ecx, 4\nadd ecx, eax\n"
    "1: sub ecx, 16\nfld tbyte ptr [ecx]\ncmp ecx, eax\njne 1b\n"
    "2: fldcw [ebp+96]\n"
    "movdqu xmm0, [ebp+240]\nmovdqu xmm1, [ebp+256]\nmovdqu xmm2, [ebp+272]\nmovdqu xmm3, [ebp+288]\n"
    "movdqu xmm4, [ebp+304]\nmovdqu xmm5, [ebp+320]\nmovdqu xmm6, [ebp+336]\nmovdqu xmm7, [ebp+352]\n"
    "ldmxcsr [ebp+88]\n"
    "push dword ptr [ebp+80]\npopfd\n"
    "mov eax, [ebp]\nmov ebx, [ebp+8]\nmov ecx, [ebp+16]\nmov edx, [ebp+24]\nmov esi, [ebp+32]\nmov edi, [ebp+40]\n"
    "call dword ptr [esp]\n"
    "mov [ebp], eax\nmov [ebp+8], ebx\nmov [ebp+16], ecx\nmov [ebp+24], edx\nmov [ebp+32], esi\nmov [ebp+40], edi\n"
    "pushfd\npop dword ptr [ebp+80]\n"
    "stmxcsr [ebp+88]\nfnsave [ebp+368]\n"
    "movdqu [ebp+240], xmm0\nmovdqu [ebp+256], xmm1\nmovdqu [ebp+272], xmm2\nmovdqu [ebp+288], xmm3\n"
    "movdqu [ebp+304], xmm4\nmovdqu [ebp+320], xmm5\nmovdqu [ebp+336], xmm6\nmovdqu [ebp+352], xmm7\n"
    "push 0x1f80\nldmxcsr [esp]\n"
    "add esp, 8\npop ebp\npop edi\npop esi\npop ebx\nret\n"
    ".att_syntax\n");
#else
asm(".intel_syntax noprefix\n.text\n.globl enter\nenter:\n"
    "push rbx\npush rbp\npush r12\npush r13\npush r14\npush r15\nsub rsp, 8\n"
    "mov r15, rdi\nmov r14, rsi\n"
    "fninit\nmov ecx, [r15+92]\ntest ecx, ecx\njz 2f\nlea rax, [r15+112]\n"
    "shl ecx, 4\nadd rcx, rax\n"
    "1: sub rcx, 16\nfld tbyte ptr [rcx]\ncmp rcx, rax\njne 1b\n"
    "2: fldcw [r15+96]\n"
    "movdqu xmm0, [r15+240]\nmovdqu xmm1, [r15+256]\nmovdqu xmm2, [r15+272]\nmovdqu xmm3, [r15+288]\n"
    "movdqu xmm4, [r15+304]\nmovdqu xmm5, [r15+320]\nmovdqu xmm6, [r15+336]\nmovdqu xmm7, [r15+352]\n"
    "pxor xmm8, xmm8\npxor xmm9, xmm9\npxor xmm10, xmm10\npxor xmm11, xmm11\npxor xmm12, xmm12\npxor xmm13, xmm13\npxor xmm14, xmm14\npxor xmm15, xmm15\n"
    "ldmxcsr [r15+88]\n"
    "push qword ptr [r15+80]\npopfq\n"
    "mov rax, [r15]\nmov rbx, [r15+8]\nmov rcx, [r15+16]\nmov rdx, [r15+24]\nmov rsi, [r15+32]\nmov rdi, [r15+40]\n"
    "mov r8, [r15+48]\nmov r9, [r15+56]\nmov r10, [r15+64]\nmov r11, [r15+72]\n"
    "call r14\n"
    "mov [r15], rax\nmov [r15+8], rbx\nmov [r15+16], rcx\nmov [r15+24], rdx\nmov [r15+32], rsi\nmov [r15+40], rdi\n"
    "mov [r15+48], r8\nmov [r15+56], r9\nmov [r15+64], r10\nmov [r15+72], r11\n"
    "pushfq\npop qword ptr [r15+80]\n"
    "stmxcsr [r15+88]\nfnsave [r15+368]\n"
    "movdqu [r15+240], xmm0\nmovdqu [r15+256], xmm1\nmovdqu [r15+272], xmm2\nmovdqu [r15+288], xmm3\n"
    "movdqu [r15+304], xmm4\nmovdqu [r15+320], xmm5\nmovdqu [r15+336], xmm6\nmovdqu [r15+352], xmm7\n"
    "push 0x1f80\nldmxcsr [rsp]\n"
    "add rsp, 16\npop r15\npop r14\npop r13\npop r12\npop rbp\npop rbx\nret\n"
    ".att_syntax\n");
#endif

static u64 seed;
static u64 rnd(void) {
    seed ^= seed >> 12; seed ^= seed << 25; seed ^= seed >> 27;
    return seed * 0x2545f4914f6cdd1dull;
}
static unsigned below(unsigned n) { return (unsigned)((rnd() >> 32) * n >> 32); }

static u64 integer(void) {
    static const u64 special[] = {0, 1, ~0ull, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000ull, 0xffffffffull,
        0x7fffffffffffffffull, 0x8000000000000000ull, 0xffffffff80000000ull, 0x0f0f0f0f0f0f0f0full};
    switch (below(4)) {
    case 0: return special[below(sizeof special / sizeof *special)];
    case 1: return (u64)((int64_t)below(64) - 32);
    default: return rnd();
    }
}
static u32 f32(void) {
    static const u32 special[] = {0, 0x80000000u, 0x3f800000, 0xbf800000u, 0x7f800000, 0xff800000u, 0x7fc00000, 0x7fc12345, 0xffc00000u,
        0x7f800001, 0xffa00000u, 1, 0x80000001u, 0x7fffff, 0x800000, 0x7f7fffff, 0xff7fffffu, 0x4f000000, 0xcf000000u, 0x3f000000, 0x40200000};
    switch (below(3)) {
    case 0: return special[below(sizeof special / sizeof *special)];
    case 1: return (u32)(rnd() & 0x807fffff) | (u32)(117 + below(40)) << 23;
    default: return (u32)rnd();
    }
}
static u64 f64(void) {
    static const u64 special[] = {0, 0x8000000000000000ull, 0x3ff0000000000000ull, 0xbff0000000000000ull, 0x7ff0000000000000ull,
        0xfff0000000000000ull, 0x7ff8000000000000ull, 0x7ff8123456789abcull, 0xfff8000000000000ull, 0x7ff0000000000001ull, 0xfff4000000000000ull,
        1, 0x8000000000000001ull, 0xfffffffffffffull, 0x10000000000000ull, 0x7fefffffffffffffull, 0xffefffffffffffffull, 0x41e0000000000000ull,
        0xc1e0000000000000ull, 0x43e0000000000000ull, 0xc3e0000000000000ull, 0x3fe0000000000000ull, 0x4004000000000000ull, 0x41dfffffffc00000ull};
    switch (below(3)) {
    case 0: return special[below(sizeof special / sizeof *special)];
    case 1: return (rnd() & 0x800fffffffffffffull) | (u64)(1003 + below(80)) << 52;
    default: return rnd();
    }
}
static void f80(u8 *to, int kind) {
    static const struct { u16 e; u64 m; } special[] = {{0, 0}, {0x8000, 0}, {0x3fff, 1ull << 63}, {0xbfff, 1ull << 63}, {0x7fff, 1ull << 63},
        {0xffff, 1ull << 63}, {0x7fff, 3ull << 62}, {0xffff, 3ull << 62}, {0x7fff, 0xc123456789abcdefull}, {0x7fff, 0x8000000000000001ull}, {0xffff, 0xa000000000000000ull},
        {0, 1}, {0x8000, 1}, {0, 0x7fffffffffffffffull}, {1, 1ull << 63}, {0x7ffe, ~0ull}, {0xfffe, ~0ull}, {0x4000, 0xa000000000000000ull},
        {0x3ffe, 1ull << 63}, {0x401e, 1ull << 63}, {0x403e, 1ull << 63}, {0xc03e, 1ull << 63}, {0x3fff, ~0ull}, {0x3fff, 0xc000000000000000ull}};
    u16 e; u64 m;
    unsigned how = kind == 3 ? below(3) : 1;
    if (how == 0) {
        unsigned i = below(sizeof special / sizeof *special);
        e = special[i].e; m = special[i].m;
    } else {
        m = rnd() | 1ull << 63;
        if (below(3) == 0) m &= ~0ull << below(63);
        e = (u16)(rnd() & 0x8000);
        if (kind == 5) e |= (u16)(0x3ff0 + below(74));
        else if (how == 1) e |= (u16)(0x3fff - 25 + below(50));
        else e |= (u16)(1 + below(0x7ffd));
    }
    memcpy(to, &m, 8); memcpy(to + 8, &e, 2);
}
static void fill(u8 *to, int n, int kind) {
    for (int i = 0; i < n;) {
        u64 v = 0; int step = 8;
        switch (kind) {
        case 1: { u32 a = f32(); memcpy(to + i, &a, 4); i += 4; continue; }
        case 2: v = f64(); break;
        case 3: case 4: case 5: if (i + 16 > n) return; memset(to + i, 0, 16); f80(to + i, kind); i += 16; continue;
        case 6: for (int k = 0; k < 8; k++) v = v << 8 | below(10) << 4 | below(10); break;
        case 7: for (int k = 0; k < 8; k++) v = v << 8 | (below(12) ? 'a' + below(4) : 0); break;
        default: v = below(3) ? rnd() : integer();
        }
        memcpy(to + i, &v, (size_t)step); i += step;
    }
}

struct test { const char *name; void (*code)(void); u32 flags, status; int regs, mem; u32 depth; };
"#;

const MAIN: &str = r#"
#define BASE ((u64)(uintptr_t)memory)
static u64 sum;
static void mix(const void *p, size_t n) {
    const u8 *b = p;
    for (size_t i = 0; i < n; i++) sum = (sum ^ b[i]) * 0x100000001b3ull;
}
static void hex(const u8 *p, int n) { while (n--) printf("%02x", p[n]); }

static void show(const char *when, const struct test *t, int x87, unsigned status) {
    printf("%s", when);
    for (int i = 0; i < NREG; i++) printf(" %s=%llx", reg_name[i], (unsigned long long)c.gpr[i]);
    printf(" fl=%03x mxcsr=%04x fcw=%04x", (unsigned)c.flags, c.mxcsr, x87 ? c.fpu[0] | c.fpu[1] << 8 : c.fcw);
    for (int i = 0; i < 6; i++) { printf(" xmm%d=", i); hex(c.xmm[i], 16); }
    if (t->depth || x87) {
        if (x87) printf(" fsw=%04x ftw=%04x", status, c.fpu[8] | c.fpu[9] << 8);
        for (int i = 0; i < 8; i++) { printf(" st%d=", i); hex(x87 ? c.fpu + 28 + 10 * i : c.st[i], 10); }
    }
    printf(" mem="); hex(memory + 256, 64);
    if (x87) { u64 s = sum; sum = 1; mix(memory, sizeof memory); printf(" all_mem=%llx", (unsigned long long)sum); sum = s; }
    printf("\n");
}

static void round_of(const struct test *t, int detail) {
    memset(&c, 0, sizeof c);
    for (int i = 0; i < NREG; i++) c.gpr[i] = (word)integer();
    if (t->regs == 7) { c.gpr[RAX] = (word)((int64_t)below(40) - 20); c.gpr[RDX] = (word)((int64_t)below(40) - 20); }
    c.gpr[RDI] = BASE + 256; c.gpr[RSI] = BASE + 384;
    c.flags = (rnd() & 0x8d5) | 2;
    c.mxcsr = 0x1f80 | (u32)below(4) << 13 | (below(8) ? 0 : 0x8000) | (below(8) ? 0 : 0x40);
    c.fcw = (u16)(0x7f | below(4) << 10 | (below(4) ? 0x300 : below(2) ? 0x200 : 0));
    c.depth = t->depth;
    fill(c.xmm[0], sizeof c.xmm, t->regs >= 3 && t->regs <= 6 ? 0 : t->regs);
    fill(memory, sizeof memory, t->mem);
    for (int i = 0; i < 8; i++) {
        if (t->regs >= 3 && t->regs <= 5) f80(c.st[i], t->regs);
        else { fill(c.st[i], 8, t->regs); c.st[i][8] = c.st[i][9] = 0xff; }
    }
    if (detail) show("in ", t, 0, 0);
    enter(&c, t->code);
    unsigned status = (unsigned)(c.fpu[4] | c.fpu[5] << 8) & t->status;
    c.flags &= t->flags | 0x400;
    for (int i = 0; i < NREG; i++) if (c.gpr[i] - BASE < sizeof memory) c.gpr[i] -= BASE - 0x10000;
    mix(c.gpr, sizeof c.gpr); mix(&c.flags, 8); mix(&c.mxcsr, 4); mix(c.xmm, sizeof c.xmm); mix(memory, sizeof memory);
    /* The x87 control and tag words, the status word as far as defined, and the registers; not where the last instruction stood. */
    mix(c.fpu, 2); mix(&status, 4); mix(c.fpu + 8, 2); mix(c.fpu + 28, 80);
    if (detail) show("out", t, 1, status);
}

int main(int argc, char **argv) {
    int n = (int)(sizeof tests / sizeof *tests);
    int all = argc < 2 || !strcmp(argv[1], "all");
    int one = all ? -1 : atoi(argv[1]);
    int rounds = argc > 2 ? atoi(argv[2]) : 100;
    for (int i = 0; i < n; i++) {
        if (!all && i != one) continue;
        seed = 0x9e3779b97f4a7c15ull * (u64)(i + 1) | 1;
        sum = 0xcbf29ce484222325ull;
        for (int r = 0; r < rounds; r++) round_of(&tests[i], !all);
        printf("%016llx %s\n", (unsigned long long)sum, tests[i].name);
        fflush(stdout);
    }
    return 0;
}
"#;

/// The whole program.
pub fn source(tests: &[Test], arch: Arch) -> String {
    let mut s = match arch {
        Arch::Amd64 => FRAME.into(),
        Arch::I386 => FRAME.replacen("cc: -O1", "cc: -O1 -msse2", 1),
    };
    s.push_str("asm(\".intel_syntax noprefix\\n.text\\n\"\n");
    for (i, t) in tests.iter().enumerate() {
        let _ = writeln!(s, "    \".globl t{i}\\nt{i}:\\n{}\\nret\\n\"", t.code.join("\\n"));
    }
    s.push_str("    \".att_syntax\\n\");\n");
    for i in 0..tests.len() {
        let _ = writeln!(s, "void t{i}(void);");
    }
    s.push_str("static const struct test tests[] = {\n");
    for (i, t) in tests.iter().enumerate() {
        let _ = writeln!(
            s,
            "    {{\"{}\", t{i}, {:#x}, {:#x}, {}, {}, {}}},",
            t.name, t.flags, t.status, t.regs as u8, t.mem as u8, t.depth
        );
    }
    s.push_str("};\n");
    s.push_str(MAIN);
    s
}
