// cc x87_state: -O2 -D_GNU_SOURCE -pthread -no-pie
// cc32 x87_state: -O2 -D_GNU_SOURCE -pthread -no-pie
// The x87 state across all that interrupts a program: system calls, signals that come at any time, faults of stores, fork, threads,
// unmasked exceptions, MMX. Everything that is left in the unit is printed.
#include <fenv.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

typedef struct { unsigned char b[10]; } ext;
#define FILL "fldz\n fld1\n fldpi\n fldl2e\n fldln2\n fldlg2\n fldl2t\n fld1\n fchs\n"
#ifdef __x86_64__
#define SW(u) ((u)->uc_mcontext.fpregs->swd)
#define TAGS(u) ((u)->uc_mcontext.fpregs->ftw)
#define POINTER(u) ((unsigned)(u)->uc_mcontext.fpregs->rip)
#else
#define SW(u) ((u)->uc_mcontext.fpregs->sw & 0xffff)
#define TAGS(u) ((u)->uc_mcontext.fpregs->tag & 0xffff)
#define POINTER(u) ((unsigned)(u)->uc_mcontext.fpregs->ipoff)
#endif

static void drain(const char *what) {
    ext r[8]; unsigned short sw;
    asm volatile("fnstsw %0\n fstpt %1\n fstpt %2\n fstpt %3\n fstpt %4\n fstpt %5\n fstpt %6\n fstpt %7\n fstpt %8"
                 : "=m"(sw), "=m"(r[0]), "=m"(r[1]), "=m"(r[2]), "=m"(r[3]), "=m"(r[4]), "=m"(r[5]), "=m"(r[6]), "=m"(r[7]));
    printf("%-10s %04x", what, sw);
    for (int i = 0; i < 8; i++) { putchar(' '); for (int k = 9; k >= 0; k--) printf("%02x", r[i].b[k]); }
    putchar('\n');
}
static long chain(int n) {
    long double x = 1;
    for (int i = 0; i < n; i++) { x = x * 1.0000001L + 0.5L / (x + 1); if (i & 1) x -= 0.25L; }
    return (long)(x * 1000000);
}
static volatile long seen; static volatile int handled; static sigjmp_buf back; static char *page;
static void on_usr(int s, siginfo_t *i, void *c) { (void)s; (void)i; ucontext_t *u = c; printf("in handler %04x %04x\n", SW(u) & 0x7fff, TAGS(u)); printf("chain %ld\n", chain(50)); }
static void on_alarm(int s) { (void)s; handled++; seen = chain(20); asm volatile(FILL); }
static void on_segv(int s, siginfo_t *i, void *c) {
    (void)s; ucontext_t *u = c; handled++;
    if (handled < 4) printf("fault at %d: %04x %04x\n", (int)((char *)i->si_addr - page), SW(u) & 0x7fff, TAGS(u));
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}
static void on_fpe(int s, siginfo_t *i, void *c) { (void)s; ucontext_t *u = c; printf("SIGFPE %d: %04x\n", i->si_code, SW(u)); siglongjmp(back, 1); }
static unsigned behind, pointer;
static void on_write(int s, siginfo_t *i, void *c) { (void)s; (void)i; pointer = POINTER((ucontext_t *)c); handled++; mprotect(page, 4096, PROT_READ | PROT_WRITE); }
// The address of the last instruction that was not one of control: behind a block, behind two, and where the middle of a block faults.
static void pointers(void) {
    unsigned env[7], sums[3] = {0, 0, 0};
    for (int i = 0; i < 3000; i++) {
        asm volatile("fld1\n 1: fldpi\n fnclex\n jmp 2f\n 2: fnstenv %0\n movl $1b, %1\n fninit" : "=m"(env), "=m"(behind));
        sums[0] += env[3] - behind;
        asm volatile("fld1\n 1: faddl %2\n jmp 2f\n 2: test %%eax, %%eax\n jmp 3f\n 3: fnstenv %0\n movl $1b, %1\n fninit" : "=m"(env), "=m"(behind) : "m"(*(double *)(page + 64)) : "cc");
        sums[1] += env[3] - behind;
        if (i % 100 == 0) mprotect(page, 4096, PROT_READ);
        asm volatile("fldpi\n 1: fld1\n fnop\n movl $1b, %0\n movl $1, %1\n faddp\n fstpl %1" : "=m"(behind), "=m"(*(int *)page));
        sums[2] += pointer - behind;
    }
    printf("pointers %x %x %x, %d faults\n", sums[0], sums[1], sums[2], handled);
}
static void *worker(void *p) { *(long *)p = 0; for (int i = 0; i < 40; i++) { *(long *)p += chain(5000); if (i % 8 == 0) usleep(100); } return p; }
static void handler(int n, void (*f)(int, siginfo_t *, void *)) { struct sigaction a; memset(&a, 0, sizeof a); a.sa_sigaction = f; a.sa_flags = SA_SIGINFO; sigaction(n, &a, 0); }

int main(void) {
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    asm volatile(FILL); getppid(); drain("call");
    handler(SIGUSR1, on_usr);
    asm volatile(FILL); kill(getpid(), SIGUSR1); drain("signal");
    signal(SIGALRM, on_alarm);
    struct itimerval t = {{0, 500}, {0, 500}}, off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &t, 0);
    long a = chain(3000000), b = 0;
    for (int i = 0; i < 3000; i++) b += chain(500);
    setitimer(ITIMER_REAL, &off, 0);
    printf("with timer %ld %ld %d %ld\n", a, b, handled > 2, seen);

    page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); handler(SIGSEGV, on_segv); handled = 0;
    double sum = 0;
    for (int i = 0; i < 2000; i++) {
        if (i % 100 == 0) mprotect(page, 4096, PROT_NONE);
        unsigned short sw;
        // Inexact, popped, across the end of what is protected; then an empty stack.
        asm volatile("fninit\n fldpi\n fldl2e\n fstpl %1\n fistpl %2\n fnstsw %0" : "=m"(sw), "=m"(*(double *)(page + 4092)), "=m"(*(int *)(page + 8)));
        sum += *(double *)(page + 4092) + *(int *)(page + 8) + sw;
        if (i % 100 == 0) mprotect(page, 4096, PROT_NONE);
        asm volatile("fninit\n fld1\n fldpi\n fstps %1\n fstpt %2\n fnstsw %0" : "=m"(sw), "=m"(*(float *)(page + 100)), "=m"(*(ext *)(page + 200)));
        sum += *(float *)(page + 100) + sw;
    }
    printf("stores %.17g, %d faults\n", sum, handled);
    mprotect(page, 4096, PROT_NONE); handled = 0;
    asm volatile("fninit\n fstpl %0\n fstps %1" : "=m"(*(double *)page), "=m"(*(float *)(page + 16))); // of an empty stack
    printf("empty %llx %x\n", *(unsigned long long *)page, *(unsigned *)(page + 16)); asm volatile("fninit");

    handler(SIGSEGV, on_write); handled = 0; pointers();

    asm volatile(FILL); fflush(stdout);
    pid_t child = fork();
    if (!child) { drain("child"); fflush(stdout); _exit(0); }
    int st; waitpid(child, &st, 0); drain("parent");
    pthread_t th[4]; long r[4];
    for (int i = 0; i < 4; i++) pthread_create(&th[i], 0, worker, &r[i]);
    for (int i = 0; i < 4; i++) { pthread_join(th[i], 0); printf("thread %ld\n", r[i]); }

    handler(SIGFPE, on_fpe);
    for (int k = 0; k < 2; k++) {
        unsigned short cw = k ? 0x35f : 0x37b; // precision, division by zero
        if (!sigsetjmp(back, 1)) { asm volatile("fninit\n fldcw %0\n fldz\n fldpi\n fldpi\n fmulp\n fld1\n fdiv %%st(2), %%st\n fwait" : : "m"(cw)); printf("no SIGFPE\n"); }
        asm volatile("fninit");
    }
    long long m = 0;
    for (int i = 0; i < 3000; i++) {
        long long x;
        asm volatile("fld1\n fldpi\n faddp\n fistpll %0\n movq %0, %%mm1\n paddd %%mm1, %%mm1\n movq %%mm1, %0\n emms" : "=m"(x));
        m += x + i;
    }
    printf("mmx %lld\n", m);
    asm volatile("movq %0, %%mm3\n fnop" : : "m"(m)); drain("as x87"); asm volatile("fninit");
    for (int mode = 0; mode < 4; mode++) {
        unsigned short cw = 0x7f | mode << 10; volatile long double x = 1; // single precision
        asm volatile("fldcw %0" : : "m"(cw)); for (int i = 1; i < 20000; i++) x += 1.0L / i;
        asm volatile("fninit"); ext e; memcpy(&e, (void *)&x, 10); for (int k = 9; k >= 0; k--) printf("%02x", e.b[k]); putchar('\n');
    }
    return 0;
}
