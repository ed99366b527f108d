// cc alignment: -O1 -D_GNU_SOURCE
// cc32 alignment: -O1 -D_GNU_SOURCE -msse2
// Which accesses the alignment check flag finds, at which offsets, and what they find first.
#include "common.h"
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#ifdef __x86_64__
#define A "rax"
#define C "rcx"
#define D "rdi"
#define S "rsi"
#define SP "rsp"
#define PUSHF "pushfq\n"
#define POPF "popfq\n"
#else
#define A "eax"
#define C "ecx"
#define D "edi"
#define S "esi"
#define SP "esp"
#define PUSHF "pushfl\n"
#define POPF "popfl\n"
#endif
#define ON PUSHF "orl $0x40000,(%%" SP ")\n" POPF
#define OFF PUSHF "andl $~0x40000,(%%" SP ")\n" POPF
static sigjmp_buf back;
static volatile int sig, code, kept;
static volatile long addr;
static void handler(int s, siginfo_t *i, void *p) {
    ucontext_t *u = p;
    /* The flag is still set here. */
    unsigned long f;
    asm volatile(PUSHF "pop %0\n" OFF : "=r"(f)::"memory", "cc");
    sig = s; code = i->si_code; addr = (long)i->si_addr; kept = (f >> 18 & 1) * 2 + (u->uc_mcontext.gregs[REG_EFL] >> 18 & 1);
    siglongjmp(back, 1);
}
static char buf[4096] __attribute__((aligned(64)));
static void one(const char *text, void (*f)(void *, void *)) {
    static const int offsets[] = { 0, 1, 2, 4, 8, 12, 16, 32 };
    printf("%-34s", text);
    for (int i = 0; i < 8; i++) {
        sig = 0;
        memset(buf, 0, sizeof buf);
        if (!sigsetjmp(back, 1)) f(buf + 64 + offsets[i], buf + 2048);
        printf(" %d:%s", offsets[i], sig == SIGBUS ? code == 1 && !addr && kept == 3 ? "AC" : "bus" : sig == SIGSEGV ? "GP" : sig ? "?" : "-");
    }
    printf("\n");
}
#define TRY(text) do { void f(void *p, void *s) { long a = 1, c = 2; asm volatile("sub $256,%%" SP "\n" ON text "\n" OFF "add $256,%%" SP "\n" : "+a"(a), "+c"(c), "+D"(p), "+S"(s) :: "memory", "cc", "edx", "xmm0", "xmm1", "st"); } one(text, f); } while (0)
#define M "(%%" D ")"
int main(void) {
    struct sigaction a = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER };
    sigaction(SIGBUS, &a, 0); sigaction(SIGSEGV, &a, 0); sigaction(SIGILL, &a, 0);
    TRY("movb " M ",%%al"); TRY("movw " M ",%%ax"); TRY("movl " M ",%%eax"); TRY("movl %%eax," M); TRY("cmovcl " M ",%%eax");
    TRY("movups " M ",%%xmm0"); TRY("movups %%xmm0," M); TRY("movdqu " M ",%%xmm0"); TRY("lddqu " M ",%%xmm0"); TRY("movaps " M ",%%xmm0");
    TRY("movss " M ",%%xmm0"); TRY("movsd " M ",%%xmm0"); TRY("movlps " M ",%%xmm0"); TRY("movhps %%xmm0," M); TRY("addss " M ",%%xmm0"); TRY("addps " M ",%%xmm0");
    TRY("cvtsi2sdl " M ",%%xmm0"); TRY("pmovzxbw " M ",%%xmm0"); TRY("pmovzxbd " M ",%%xmm0"); TRY("movddup " M ",%%xmm0"); TRY("pinsrw $0," M ",%%xmm0");
    TRY("insertps $0," M ",%%xmm0"); TRY("pextrd $0,%%xmm0," M); TRY("pcmpistri $0," M ",%%xmm0"); TRY("palignr $3," M ",%%xmm0"); TRY("maskmovdqu %%xmm0,%%xmm1");
    TRY("vmovups " M ",%%ymm0\n vzeroupper"); TRY("vaddps " M ",%%xmm0,%%xmm0"); TRY("vbroadcastss " M ",%%xmm0"); TRY("vmaskmovps " M ",%%xmm0,%%xmm1");
    TRY("fldt " M); TRY("fldl " M); TRY("flds " M); TRY("fildll " M); TRY("filds " M); TRY("fbld " M); TRY("fnstcw " M); TRY("fnstsw " M);
    TRY("fnstenv " M); TRY("fnsave " M "\n fninit"); TRY("fxsave " M); TRY("stmxcsr " M); TRY("movq " M ",%%mm0\n emms"); TRY("movnti %%eax," M); TRY("movntdq %%xmm0," M);
    TRY("btl %%eax," M); TRY("lock addl %%eax," M); TRY("xchgw %%ax," M); TRY("cmpxchg %%eax," M); TRY("crc32l " M ",%%eax"); TRY("movbel " M ",%%eax");
    TRY("movsl"); TRY("rep movsl"); TRY("rep stosb"); TRY("rep stosl"); TRY("xor %%ecx,%%ecx\n rep stosl"); TRY("scasw"); TRY("push " M "\n pop %%" A); TRY("push %%" A "\n pop " M);
    TRY("prefetcht0 " M); TRY("lea " M ",%%" A); TRY("nopl " M); TRY("enter $0,$0\n leave");
#ifdef __x86_64__
    TRY("movq " M ",%%rax"); TRY("btq %%rax," M); TRY("rep movsq"); TRY("cmpxchg16b " M); TRY("movntiq %%rax," M); TRY("movq %%xmm0," M);
    TRY("mov $0x800000000001,%%rdi\n movl (%%rdi),%%eax");
#endif
    TRY("cmpxchg8b " M);
    char *un = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(un + 4096, 4096); mprotect(un, 4096, PROT_READ);
    for (int k = 0; k < 4; k++) {
        void *p = un + (int[]){ 4097, 4093, 1, 4 }[k];
        sig = 0;
        if (!sigsetjmp(back, 1)) asm volatile(ON "movl %%eax,(%0)\n" OFF ::"D"(p) : "memory", "cc");
        printf("without a page %d: sig %d code %d\n", k, sig, code);
    }
    return 0;
}
