// cc: -O2 -D_GNU_SOURCE
// Faults in the middle of pushes and pops: what a handler sees is what was done up to there, and what it mends goes on.
#include "common.h"
#include <sys/mman.h>
#include <ucontext.h>
static char *low; static long seen, rounds;
static uint64_t mix(uint64_t h, uint64_t v) { return (h ^ v) * 0x9e3779b97f4a7c15u ^ h >> 29; }
static uint64_t hash;
extern char pushes[], pops[];
static void handler(int s, siginfo_t *i, void *u) {
    (void)s; greg_t *g = ((ucontext_t *)u)->uc_mcontext.gregs; seen++;
    // Where: an instruction's distance from the beginning of its run, the address, the stack pointer and all that pops load.
    uint64_t rip = (uint64_t)g[REG_RIP], at = rip - (uint64_t)pushes < 64 ? rip - (uint64_t)pushes : 1000 + rip - (uint64_t)pops;
    if (rounds < 4) printf("+%ld addr %ld rsp %ld rbx %lx rbp %lx r12 %lx r15 %lx\n", (long)at, (long)((char *)i->si_addr - low), (long)((char *)g[REG_RSP] - low), (long)g[REG_RBX], (long)g[REG_RBP], (long)g[REG_R12], (long)g[REG_R15]);
    hash = mix(mix(mix(hash, at), (uint64_t)((char *)i->si_addr - low)), (uint64_t)((char *)g[REG_RSP] - low));
    hash = mix(mix(mix(hash, (uint64_t)g[REG_RBX]), (uint64_t)g[REG_R12]), (uint64_t)g[REG_R15]);
    mprotect(low, 8192, PROT_READ | PROT_WRITE);
}
// sum(stack pointer): six pushes, changes, pops; RAX the sum of what was pushed.
__asm__(".text\nrun:\n push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n mov %rsp, %r14\n mov %rdi, %rsp\n"
        " mov $0x1b, %ebx\n mov $0x1c, %ebp\n mov $0x1d, %r12d\n mov $0x1e, %r15d\n"
        "pushes:\n push %r15\n push %r12\n push %rbp\n push %rbx\n push $-7\n"
        " mov $1, %ebx\n mov $2, %ebp\n mov $3, %r12d\n mov $4, %r15d\n mov %rsi, %rax\n call *%rax\n"
        "pops:\n pop %rax\n pop %rbx\n pop %rbp\n pop %r12\n pop %r15\n"
        " add %rbx, %rax\n lea (%rax,%rbp,4), %rax\n lea (%rax,%r12,8), %rax\n add %r15, %rax\n"
        " mov %r14, %rsp\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n");
extern uint64_t run(char *sp, void (*between)(void));
static void nothing(void) {}
// The stack of the caller is not touched by more than a return address.
extern void close_upper(void);
__asm__("close_upper:\n push %rdi\n push %rsi\n push %rdx\n push %rcx\n push %r11\n mov low(%rip), %rdi\n add $4096, %rdi\n mov $4096, %esi\n xor %edx, %edx\n mov $10, %eax\n syscall\n pop %r11\n pop %rcx\n pop %rdx\n pop %rsi\n pop %rdi\n ret\n");
int main(void) {
    static char own[65536]; stack_t st = {.ss_sp = own, .ss_size = sizeof own}; sigaltstack(&st, NULL);
    struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK}; sigaction(SIGSEGV, &a, NULL);
    low = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t sum = 0;
    for (rounds = 0; rounds < 3000; rounds++) {
        // The stack ends k words above the page that cannot be written, or be read when it is popped.
        long k = rounds % 7;
        mprotect(low, 4096, rounds & 1 ? PROT_READ : PROT_NONE);
        sum = mix(sum, run(low + 4096 + 8 * k, nothing));
        mprotect(low, 8192, PROT_READ | PROT_WRITE);
        if (k > 0 && k < 6) sum = mix(sum, run(low + 4096 + 8 * k, close_upper));
    }
    printf("%ld faults, %016lx, %016lx\n", seen, hash, sum);
    return 0;
}
