// cc: -O1 -D_GNU_SOURCE -pthread
// Signals: dispositions, masks, queues, values, alternate stacks, restart, stops, signalfd.
#include "common.h"
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
static volatile int count, depth, deepest, last;
static void plain(int s) { last = s; count++; }
static void info(int s, siginfo_t *i, void *u) { (void)u; printf("sig %d code %d value %d pid %s\n", s, i->si_code, i->si_value.sival_int, i->si_pid == getpid() ? "self" : i->si_pid == getppid() ? "parent" : "other"); fflush(stdout); }
static void nest(int s) { depth++; if (depth > deepest) deepest = depth; if (count++ < 2) raise(s); depth--; }
static void set(int s, void *h, int flags) { struct sigaction a = {.sa_flags = flags}; if (flags & SA_SIGINFO) a.sa_sigaction = h; else a.sa_handler = h; if (sigaction(s, &a, NULL)) show("sigaction", -1); }
static char alt[65536]; static void on_alt(int s) { char c; stack_t t; sigaltstack(NULL, &t); printf("alt %d %d flags %d\n", s, &c >= alt && &c < alt + sizeof alt, t.ss_flags); fflush(stdout); }
static void *thread(void *a) { sigset_t s; int got; sigemptyset(&s); sigaddset(&s, SIGUSR1); sigwait(&s, &got); *(int *)a = got; return NULL; }
static void alarm_in(int ms) { struct itimerval t = {{0, 0}, {0, ms * 1000}}; setitimer(ITIMER_REAL, &t, NULL); }
static sigjmp_buf jb; static void jump(int s) { siglongjmp(jb, s); }
int main(void) {
    sigset_t m, old, p; int st; pid_t c;
    T(sigaction(SIGKILL, &(struct sigaction){.sa_handler = plain}, NULL)); T(sigaction(SIGSTOP, &(struct sigaction){.sa_handler = plain}, NULL)); T(sigaction(0, NULL, NULL)); T(sigaction(65, NULL, NULL)); T(sigaction(SIGKILL, NULL, NULL)); T(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4)); T(kill(getpid(), 65)); T(kill(getpid(), -1)); T(kill(999999, 0)); T(kill(getpid(), 0)); T(syscall(SYS_tgkill, getpid(), 999999, 0)); T(syscall(SYS_tgkill, -1, 1, 0)); T(syscall(SYS_tkill, 0, 0)); T(kill(-999999, 0)); T(raise(0));
    /* Real-time signals queue, in order of number, then of time. */
    set(SIGRTMIN, info, SA_SIGINFO); set(SIGRTMIN + 1, info, SA_SIGINFO); set(SIGUSR1, info, SA_SIGINFO); sigfillset(&m); sigprocmask(SIG_SETMASK, &m, &old); for (int i = 1; i <= 3; i++) { sigqueue(getpid(), SIGRTMIN + 1, (union sigval){i}); sigqueue(getpid(), SIGRTMIN, (union sigval){i * 10}); sigqueue(getpid(), SIGUSR1, (union sigval){i * 100}); } kill(getpid(), SIGUSR1); sigpending(&p); printf("%d %d %d\n", sigismember(&p, SIGRTMIN), sigismember(&p, SIGUSR1), sigismember(&p, SIGUSR2)); siginfo_t si; struct timespec z = {0, 0}, ms = {0, 30000000}; sigset_t w; sigemptyset(&w); sigaddset(&w, SIGRTMIN + 1); T(sigtimedwait(&w, &si, &z) == SIGRTMIN + 1); printf("%d %d\n", si.si_code, si.si_value.sival_int); sigprocmask(SIG_SETMASK, &old, NULL); T(sigtimedwait(&w, &si, &ms)); T(sigtimedwait(&w, &si, &(struct timespec){0, 2000000000})); T(sigqueue(getpid(), 65, (union sigval){1})); T(sigqueue(999999, SIGUSR1, (union sigval){1}));
    siginfo_t raw = {.si_code = SI_USER}; T(syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, &raw)); raw.si_code = -33; raw.si_signo = 5; T(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &raw)); raw.si_code = SI_TKILL; T(syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), SIGRTMIN, &raw)); raise(SIGUSR1);
    /* NODEFER, RESETHAND, masks during a handler. */
    count = 0; set(SIGUSR2, nest, 0); raise(SIGUSR2); printf("%d %d\n", count, deepest); count = deepest = 0; set(SIGUSR2, nest, SA_NODEFER); raise(SIGUSR2); printf("%d %d\n", count, deepest); set(SIGUSR2, plain, SA_RESETHAND | SA_SIGINFO); struct sigaction q; raise(SIGUSR2); sigaction(SIGUSR2, NULL, &q); printf("%d %x\n", q.sa_handler == SIG_DFL, q.sa_flags & ~0x04000000);
    /* Who waits for a signal that is not blocked and ends the process is ended; what dumps core is waited for, and what has a handler. */
    int waited[] = {SIGTERM, SIGALRM, SIGABRT, SIGRTMIN + 9, SIGUSR1}; for (int i = 0; i < 5; i++) { fflush(stdout); c = fork(); if (!c) { signal(SIGUSR1, plain); sigset_t one; int got = 0; sigemptyset(&one); sigaddset(&one, waited[i]); sigprocmask(SIG_UNBLOCK, &one, NULL); if (!fork()) { usleep(30000); kill(getppid(), waited[i]); _exit(0); } sigwait(&one, &got); _exit(got == waited[i]); } T(waitpid(c, &st, 0) == c); printf("%x\n", st); }
    set(SIGCHLD, SIG_IGN, 0); c = fork(); if (!c) _exit(3); T(waitpid(c, &st, 0)); set(SIGCHLD, plain, SA_NOCLDWAIT); c = fork(); if (!c) _exit(3); T(waitpid(c, &st, 0)); set(SIGCHLD, info, SA_SIGINFO | SA_RESTART); fflush(stdout); c = fork(); if (!c) _exit(3); T(waitpid(c, &st, 0) == c); set(SIGCHLD, SIG_DFL, 0);
    sigemptyset(&m); sigaddset(&m, SIGUSR2); count = 0; set(SIGUSR2, plain, 0); sigprocmask(SIG_BLOCK, &m, NULL); raise(SIGUSR2); T(count); sigemptyset(&m); T(sigsuspend(&m)); T(count); sigprocmask(SIG_SETMASK, NULL, &p); T(sigismember(&p, SIGUSR2)); T(sigprocmask(99, &m, NULL)); raise(SIGUSR2); set(SIGUSR2, SIG_IGN, 0); sigpending(&p); T(sigismember(&p, SIGUSR2)); sigprocmask(SIG_SETMASK, &m, NULL);
    /* Alternate stack. */
    stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt}, so; T(sigaltstack(&ss, NULL)); T(sigaltstack(NULL, &so)); T(so.ss_size == sizeof alt && so.ss_flags == 0); set(SIGUSR2, on_alt, SA_ONSTACK); raise(SIGUSR2); set(SIGUSR2, on_alt, 0); raise(SIGUSR2); ss.ss_size = 100; T(sigaltstack(&ss, NULL)); ss.ss_flags = 77; T(sigaltstack(&ss, NULL)); ss.ss_flags = SS_DISABLE; T(sigaltstack(&ss, NULL)); T(sigaltstack(NULL, &so)); T(so.ss_flags); ss = (stack_t){.ss_sp = alt, .ss_size = sizeof alt, .ss_flags = 1 << 31}; T(sigaltstack(&ss, NULL)); set(SIGUSR2, on_alt, SA_ONSTACK); raise(SIGUSR2); ss.ss_flags = SS_DISABLE; sigaltstack(&ss, NULL);
    /* Restart of calls. */
    int pp[2], sp[2]; char b[10]; T(pipe(pp)); T(socketpair(AF_UNIX, SOCK_STREAM, 0, sp));
    for (int fl = 0; fl <= SA_RESTART; fl += SA_RESTART) { set(SIGALRM, plain, fl); printf("restart %d\n", !!fl); fflush(stdout);
        c = fork(); if (!c) { usleep(150000); if (write(pp[1], "r", 1) + write(sp[1], "s", 1) != 2) _exit(1); usleep(100000); _exit(4); }
        alarm_in(40); T(read(pp[0], b, 1)); if (!fl) T(read(pp[0], b, 1)); alarm_in(40); T(recv(sp[0], b, 1, 0)); if (!fl && errno == EINTR) T(recv(sp[0], b, 1, 0)); alarm_in(30); int r = waitpid(c, &st, 0); printf("waitpid %s\n", r == c ? "child" : strerrorname_np(errno)); while (waitpid(c, &st, 0) == -1 && errno == EINTR); struct pollfd pf = {pp[0], POLLIN, 0}; alarm_in(30); T(poll(&pf, 1, 200)); alarm_in(30); fd_set s; FD_ZERO(&s); FD_SET(pp[0], &s); T(select(pp[0] + 1, &s, NULL, NULL, &(struct timeval){0, 200000})); struct timespec rem = {9, 9}; alarm_in(30); T(nanosleep(&(struct timespec){0, 200000000}, &rem)); T(rem.tv_sec == 0 && rem.tv_nsec > 0 && rem.tv_nsec < 190000000); alarm_in(30); T(pause()); struct timeval tv = {0, 150000}; setsockopt(sp[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv); alarm_in(30); T(recv(sp[0], b, 1, 0)); tv.tv_usec = 0; setsockopt(sp[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv); sigemptyset(&w); sigaddset(&w, SIGUSR1); alarm_in(30); T(sigwaitinfo(&w, &si)); }
    /* Stops and continues. */
    c = fork(); if (!c) { for (;;) pause(); } T(kill(c, SIGSTOP)); T(waitpid(c, &st, WUNTRACED) == c); printf("%x\n", st); T(waitpid(c, &st, WNOHANG | WUNTRACED)); T(kill(c, SIGWINCH)); T(waitpid(c, &st, WNOHANG)); T(kill(c, SIGCONT)); T(waitpid(c, &st, WCONTINUED) == c); printf("%x\n", st); T(waitid(P_PID, c, &si, WEXITED | WNOHANG)); T(si.si_pid); usleep(100000); T(kill(c, SIGTERM)); T(waitid(P_PID, c, &si, WEXITED | WNOWAIT)); printf("%d %d %d\n", si.si_code, si.si_status, si.si_signo); T(waitpid(c, &st, 0) == c); printf("%x\n", st);
    /* signalfd. */
    sigemptyset(&m); sigaddset(&m, SIGUSR1); sigaddset(&m, SIGRTMIN); sigprocmask(SIG_BLOCK, &m, NULL); int sf = signalfd(-1, &m, SFD_NONBLOCK | SFD_CLOEXEC); OK(sf); struct signalfd_siginfo fi[3]; T(read(sf, fi, sizeof fi)); raise(SIGUSR1); sigqueue(getpid(), SIGRTMIN, (union sigval){5}); sigqueue(getpid(), SIGRTMIN, (union sigval){6}); struct pollfd pf = {sf, POLLIN, 0}; T(poll(&pf, 1, 0)); T(read(sf, fi, 100)); T(read(sf, fi, sizeof fi)); printf("%d %d %d %d\n", fi[0].ssi_signo, fi[0].ssi_code, fi[1].ssi_signo, fi[1].ssi_int); T(read(sf, fi, sizeof fi)); T(signalfd(sf, &old, 0) == sf); T(signalfd(0, &m, 0)); T(signalfd(-1, &m, 77));
    /* Threads: a signal for the process goes to one that does not block it. */
    pthread_t t; int got = 0; pthread_create(&t, NULL, thread, &got); usleep(20000); kill(getpid(), SIGUSR1); pthread_join(t, NULL); T(got); pthread_create(&t, NULL, thread, &got); T(pthread_kill(t, SIGUSR1)); pthread_join(t, NULL); T(got);
    sigprocmask(SIG_SETMASK, &old, NULL); set(SIGUSR1, jump, 0); for (int i = 0; i < 2; i++) if (!sigsetjmp(jb, 1)) raise(SIGUSR1); sigprocmask(SIG_SETMASK, NULL, &p); T(sigismember(&p, SIGUSR1));
    static const int sigs[] = {SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGUSR1, SIGSEGV, SIGPIPE, SIGALRM, SIGTERM, 16, SIGCHLD, SIGCONT, SIGTSTP, SIGTTIN, SIGURG, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR, SIGSYS, 34, 64}; for (unsigned i = 0; i < sizeof sigs / sizeof *sigs; i++) { fflush(stdout); c = fork(); if (!c) { signal(sigs[i], SIG_DFL); setpgid(0, 0); raise(sigs[i]); _exit(0); } waitpid(c, &st, WUNTRACED); printf("%d:%x ", sigs[i], st & ~0x80); if (WIFSTOPPED(st)) { kill(c, SIGKILL); waitpid(c, &st, 0); } } puts(""); return 0;
}
