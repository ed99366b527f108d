// cc: -O2 -D_GNU_SOURCE
// Catches its own SIGSEGV with siginfo, longjmps out and goes on, many times.
#include "common.h"
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
static sigjmp_buf out; static volatile uintptr_t where; static volatile int code, error;
static void handler(int s, siginfo_t *i, void *u) { (void)s; where = (uintptr_t)i->si_addr; code = i->si_code; error = (int)((ucontext_t *)u)->uc_mcontext.gregs[REG_ERR]; siglongjmp(out, 1); }
int main(void) {
    struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO}; sigaction(SIGSEGV, &a, NULL);
    char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); long hits = 0, sum = 0;
    for (int i = 0; i < 256; i++) if (i % 3 == 1) mprotect(p + i * 4096, 4096, i % 2 ? PROT_NONE : PROT_READ);
    for (volatile int i = 0; i < 256; i++) { volatile long before = i * 7; if (sigsetjmp(out, 1)) { hits++; sum += (long)(where - (uintptr_t)p) ^ code << 4 ^ (error & 7); if (before != i * 7) puts("lost a variable"); continue; } p[i * 4096 + i] = (char)i; sum += p[i * 4096 + i]; }
    printf("%ld faults, sum %ld\n", hits, sum);
    // An address beyond any guest's memory; the handler's way raises no floating-point flag.
    for (volatile int i = 0; i < 3; i++) if (!sigsetjmp(out, 1)) *(volatile char *)0x7ff000000000 = 1;
    unsigned flags; __asm__ volatile("stmxcsr %0" : "=m"(flags)); printf("mxcsr %x\n", flags);
    for (volatile long i = 0; i < 8; i++) { if (sigsetjmp(out, 1)) { printf("%lx code %d error %d\n", (long)where, code, error & 7); continue; } *(volatile int *)(0x1000 + i * 0x101) += 1; }
    double d = 1; for (volatile int i = 0; i < 100; i++) { if (!sigsetjmp(out, 0)) { d = d * 1.5 + i; if (i % 10 == 9) *(volatile char *)8 = 0; } else { sigset_t s; sigemptyset(&s); sigaddset(&s, SIGSEGV); sigprocmask(SIG_UNBLOCK, &s, NULL); } } printf("%.17g\n", d > 0 ? 1.0 : 0.0); puts("goes on"); return 0;
}
