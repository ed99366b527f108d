// cc: -O1 -D_GNU_SOURCE
// Signals: handlers, masks, queues, stacks, faults, restarts.
#include "common.h"
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#ifdef __i386__
#define REG_RIP REG_EIP
#define REG_RBX REG_EBX
#define ACC "eax"
#else
#define ACC "rax"
#endif
static volatile int count, last, code, value; static volatile long addr; static sigjmp_buf jump; static char *alt; static volatile int on_alt;
static void handler(int s) { count++; last = s; }
static void info(int s, siginfo_t *i, void *u) {
    (void)u; count++; last = s; code = i->si_code; value = i->si_value.sival_int; addr = (long)i->si_addr; char here; on_alt = &here >= alt && &here < alt + 65536;
}
static void fault(int s, siginfo_t *i, void *u) { info(s, i, u); siglongjmp(jump, 1); }
static void skip(int s, siginfo_t *i, void *u) { info(s, i, u); ((ucontext_t *)u)->uc_mcontext.gregs[REG_RIP] += 2; }
static void edit(int s, siginfo_t *i, void *u) {
    (void)s; (void)i; greg_t *g = ((ucontext_t *)u)->uc_mcontext.gregs;
    printf("  in handler: rbx %llx eflags.cf %d\n", (long long)g[REG_RBX], (int)(g[REG_EFL] & 1)); g[REG_RBX] = 0x1234; g[REG_EFL] ^= 1;
}
static void on(int s, void (*f)(int, siginfo_t *, void *), int flags) { struct sigaction a = {.sa_sigaction = f, .sa_flags = SA_SIGINFO | flags}; sigemptyset(&a.sa_mask); T(sigaction(s, &a, NULL)); }
#define FAULT(what) do { if (!sigsetjmp(jump, 1)) { what; puts(#what ": no fault"); } else printf("%s: signal %d code %d\n", #what, last, code); } while (0)
int main(void) {
    struct sigaction a = {.sa_handler = handler}, old; sigset_t set, was; struct timespec zero = {0, 0}, short_time = {0, 20000000}; siginfo_t si; char buf[8];
    T(sigaction(SIGUSR1, &a, &old)); T(old.sa_handler == SIG_DFL); T(sigaction(SIGKILL, &a, NULL)); T(sigaction(99, &a, NULL)); T(kill(getpid(), SIGUSR1)); T(count); T(last); T(kill(getpid(), 0)); T(kill(999999, 0)); T(kill(getpid(), 99)); T(raise(SIGUSR1)); T(count);
    sigemptyset(&set); sigaddset(&set, SIGUSR1); sigaddset(&set, SIGRTMIN + 3); T(sigprocmask(SIG_BLOCK, &set, &was)); raise(SIGUSR1); raise(SIGUSR1); T(count); T(sigpending(&was)); T(sigismember(&was, SIGUSR1)); T(sigprocmask(SIG_UNBLOCK, &set, NULL)); T(count);
    sigprocmask(SIG_BLOCK, &set, NULL); for (int i = 0; i < 3; i++) { union sigval v = {.sival_int = i * 10}; T(sigqueue(getpid(), SIGRTMIN + 3, v)); } for (int i = 0; i < 3; i++) { T(sigtimedwait(&set, &si, &zero) == SIGRTMIN + 3); T(si.si_value.sival_int); T(si.si_code); } T(sigtimedwait(&set, &si, &zero)); T(sigtimedwait(&set, &si, &short_time)); raise(SIGUSR1); T(sigwaitinfo(&set, &si)); T(si.si_code == SI_TKILL); on(SIGRTMIN + 3, info, 0); union sigval v7 = {.sival_int = 7}; sigqueue(getpid(), SIGRTMIN + 3, v7); sigset_t none; sigemptyset(&none); T(sigsuspend(&none)); T(value); T(code == SI_QUEUE); sigprocmask(SIG_UNBLOCK, &set, NULL);
    alt = malloc(65536); stack_t st = {.ss_sp = alt, .ss_size = 65536}, ost; T(sigaltstack(&st, &ost)); T(ost.ss_flags == SS_DISABLE); on(SIGUSR2, info, SA_ONSTACK); raise(SIGUSR2); T(on_alt); T(last); st.ss_size = 10; T(sigaltstack(&st, NULL));
    on(SIGSEGV, fault, SA_ONSTACK); on(SIGBUS, fault, 0); on(SIGFPE, fault, 0); on(SIGILL, fault, 0); on(SIGTRAP, fault, 0);
    FAULT(*(volatile char *)0x1234 = 1); T(addr); FAULT((void)*(volatile char *)0x1234); char *ro = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); FAULT(*(volatile char *)(ro + 5) = 1); T(addr - (long)ro); FAULT(((void (*)(void))ro)()); T(addr - (long)ro); FAULT(((void (*)(void))0x10)()); T(addr); FAULT(*(volatile char *)0x8000000000000000 = 1); FAULT(asm volatile("movaps %%xmm0, 1(%0)" ::"r"(ro) : "memory"));
    volatile int zero_int = 0; FAULT(zero_int = 1 / zero_int); FAULT(asm volatile("mov $0x80000000, %%eax; cltd; mov $-1, %%ecx; idivl %%ecx" ::: "eax", "ecx", "edx")); FAULT(asm volatile("ud2")); FAULT(asm volatile("int3")); FAULT(asm volatile("hlt")); FAULT(asm volatile("cli")); FAULT(asm volatile("mov %%cr0, %%" ACC ::: ACC)); FAULT(asm volatile("in $0x10, %%al" ::: ACC)); FAULT(asm volatile("int $0x41"));
    int f = open("short", O_CREAT | O_RDWR, 0600); ftruncate(f, 100); char *m = mmap(NULL, 8192, PROT_READ, MAP_SHARED, f, 0); FAULT((void)*(volatile char *)(m + 4096)); FAULT((void)*(volatile char *)(m + 200));
    on(SIGILL, skip, 0); count = 0; asm volatile("ud2"); T(count); T(last); on(SIGUSR1, edit, 0);
#ifdef __x86_64__
    long rbx; int carry; asm volatile("mov $0xabc, %%ebx; clc; mov $39, %%eax; syscall; mov %%eax, %%edi; mov $10, %%esi; mov $62, %%eax; stc; syscall; mov %%rbx, %0; setc %b1; movzbl %b1, %1" : "=&r"(rbx), "=&r"(carry)::"rax", "rbx", "rcx", "r11", "rdi", "rsi", "memory", "cc"); printf("after edit: rbx %lx cf %d\n", rbx, carry);
#endif
    struct sigaction once = {.sa_handler = handler, .sa_flags = SA_RESETHAND | SA_NODEFER}; T(sigaction(SIGUSR1, &once, NULL)); raise(SIGUSR1); T(sigaction(SIGUSR1, NULL, &old)); T(old.sa_handler == SIG_DFL);
    int p[2]; pipe(p); a.sa_flags = 0; sigaction(SIGALRM, &a, NULL); struct itimerval it = {{0, 0}, {0, 150000}}; T(setitimer(ITIMER_REAL, &it, NULL)); T(read(p[0], buf, 1)); T(last); T(setitimer(ITIMER_REAL, &it, NULL)); T(pause()); T(setitimer(ITIMER_REAL, &it, NULL)); struct timespec rem, sec = {5, 0}; T(nanosleep(&sec, &rem)); T(rem.tv_sec == 4); a.sa_flags = SA_RESTART; sigaction(SIGALRM, &a, NULL); setitimer(ITIMER_REAL, &it, NULL); if (!fork()) { usleep(400000); write(p[1], "r", 1); _exit(0); } T(read(p[0], buf, 1)); T(wait(NULL) > 0); T(alarm(10)); T(alarm(0));
    timer_t tm; struct sigevent se = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2, .sigev_value.sival_int = 99}; T(timer_create(CLOCK_MONOTONIC, &se, &tm)); struct itimerspec its = {{0, 0}, {0, 10000000}}; last = 0; T(timer_settime(tm, 0, &its, NULL)); T(nanosleep(&sec, NULL)); T(value); T(code == SI_TIMER); T(timer_delete(tm));
    sigaction(SIGCHLD, &(struct sigaction){.sa_sigaction = info, .sa_flags = SA_SIGINFO}, NULL); last = 0; pid_t c = fork(); if (!c) _exit(3); int status; while (waitpid(c, &status, 0) < 0) {} T(last); T(code); T(WEXITSTATUS(status));
    for (int s = 1; s <= 6; s++) { static const int sigs[] = {0, SIGTERM, SIGKILL, SIGSEGV, SIGABRT, SIGPIPE, SIGUSR1}; c = fork(); if (!c) { signal(sigs[s], SIG_DFL); if (sigs[s] == SIGSEGV) *(volatile int *)0 = 0; kill(getpid(), sigs[s]); _exit(9); } while (waitpid(c, &status, 0) < 0) {} printf("child: signaled %d by %d\n", WIFSIGNALED(status), WTERMSIG(status)); }
    c = fork(); if (!c) { raise(SIGSTOP); usleep(100000); _exit(5); } T(waitpid(c, &status, WUNTRACED) == c); T(WIFSTOPPED(status)); T(WSTOPSIG(status)); T(kill(c, SIGCONT)); T(waitpid(c, &status, WCONTINUED) == c); T(WIFCONTINUED(status)); while (waitpid(c, &status, 0) < 0) {} T(WEXITSTATUS(status));
    return 0;
}
