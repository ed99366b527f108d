// cc: -O1 -D_GNU_SOURCE -pthread
// Every system call with random and edge arguments. Only for a virtual kernel: natively this does damage.
// Arguments: seed, rounds. Each round is a child with files of every kind open, in which several threads make calls; a timer
// interrupts calls that block, and what does not end is killed. What the calls do to the child does not matter; that the
// kernel goes on to serve the parent does.
#include "common.h"
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

enum { CALLS = 120, THREADS = 2, LAST = 470 };

static uint64_t next(uint64_t *s) {
    *s += 0x9e3779b97f4a7c15u;
    uint64_t z = *s;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static char *page, *readonly, *before_hole;
static const char *names[] = {".", "..", "", "/", "f", "d", "l", "no-such", "d/x", "/dev/null", "/dev/zero", "/dev/full",
    "/dev/ptmx", "/dev/tty", "/dev/stdin", "/proc/self/mem", "/proc/self/maps", "/proc/self/fd", "/proc/self/fd/3", "/proc/self/exe",
    "/proc/self/cwd", "/proc/self/stat", "/proc/stat", "/proc/self/task", "/tmp", "/tmp/t", "/dev/shm/s", "/programs/wild_calls", "/bin/sh"};

static uint64_t edge(uint64_t *s) {
    static const uint64_t e[] = {0, 1, 2, 3, 7, 8, 16, 63, 64, 127, 128, 255, 4095, 4096, 4097, 0x7fff, 0x10000, 1 << 20, 0x7fffffff,
        0x80000000, 0xffffffff, 0x100000000, 1l << 36, (1l << 36) - 1, 1l << 40, 1l << 47, 0x7fffffffffff, 0x800000000000,
        0x7fffffffffffffff, 0x8000000000000000u, -1ul, -2ul, -4095ul, -4096ul, -100ul};
    return e[next(s) % (sizeof e / sizeof *e)];
}

static uint64_t argument(uint64_t *s) {
    switch (next(s) % 12) {
    case 0: return edge(s);
    case 1: return next(s) >> next(s) % 64;
    case 2: return 1ul << next(s) % 64;
    case 3: return next(s) % 40;
    case 4: case 5: return next(s) % 24;                           /* a descriptor */
    case 6: return (uint64_t)names[next(s) % (sizeof names / sizeof *names)];
    case 7: return (uint64_t)readonly + next(s) % 4096;
    case 8: return (uint64_t)before_hole + 4096 - next(s) % 64;    /* runs into a hole */
    case 9: return (uint64_t)page + (next(s) % 8192 & ~7ul);
    case 10: {                                                      /* a structure of edge values */
        uint64_t *p = (uint64_t *)(page + (next(s) % 8 << 9));
        for (int i = 0; i < 16; i++) {
            uint64_t k = next(s) % 8;
            p[i] = k == 0 ? edge(s) : k == 1 ? next(s) : k < 4 ? (uint64_t)page + next(s) % 4096 : k == 4 ? next(s) % 24 : next(s) % 3;
        }
        return (uint64_t)p;
    }
    default: return next(s) % 2 ? (uint64_t)page : 0;
    }
}

/* Calls that would end the round before it has done its work, or signal the parent. */
static int tame(long nr, uint64_t *a) {
    pid_t self = getpid();
    switch (nr) {
    case SYS_exit: case SYS_exit_group: case SYS_rt_sigreturn: return 0;
    case SYS_kill: case SYS_tkill: case SYS_rt_sigqueueinfo:
        a[0] = a[0] % 4 ? (uint64_t)self : 1 << 20;
        a[1] = a[1] == SIGKILL || a[1] == SIGSTOP ? 0 : a[1];
        return 1;
    case SYS_tgkill: case SYS_rt_tgsigqueueinfo: a[0] = (uint64_t)self; return 1;
    case SYS_setpgid: case SYS_ptrace: case SYS_pidfd_send_signal: case SYS_prlimit64: case SYS_process_vm_writev:
        if (a[0] == (uint64_t)getppid()) a[0] = 0;
        return 1;
    /* The timer that interrupts blocked calls stays most of the time. */
    case SYS_alarm: return 0;
    case SYS_setitimer: a[0] = 1 + a[0] % 2; return 1;
    case SYS_rt_sigaction: return a[0] != SIGALRM;
    case SYS_rt_sigprocmask: case SYS_rt_sigtimedwait: return a[1] % 5 == 0;
    default: return 1;
    }
}

static void *calls(void *arg) {
    uint64_t s = (uint64_t)arg;
    pid_t me = (pid_t)syscall(SYS_gettid);
    for (int i = 0; i < CALLS; i++) {
        long nr = next(&s) % 50 ? (long)(next(&s) % LAST) : (long)edge(&s);
        uint64_t a[6];
        for (int k = 0; k < 6; k++) a[k] = argument(&s);
        if (!tame(nr, a)) continue;
        syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
        /* A new process or thread ends at once, by a call without a memory access: the stack may be shared or gone. */
        if (syscall(SYS_gettid) != me) for (;;) syscall(SYS_exit, 0);
    }
    return NULL;
}

static void interrupted(int sig) { (void)sig; }

static void child(uint64_t seed) {
    setsid();
    struct rlimit core = {0, 0};
    setrlimit(RLIMIT_CORE, &core);
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++) dup2(null, i);
    int p[2], q[2];
    mkdir("d", 0755);
    symlink("d", "l");
    open("f", O_RDWR | O_CREAT, 0644);
    open("d", O_RDONLY | O_DIRECTORY);
    open("d", O_PATH);
    pipe2(p, 0);
    pipe2(p, O_NONBLOCK);
    socketpair(AF_UNIX, SOCK_STREAM, 0, q);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, q);
    socket(AF_UNIX, SOCK_SEQPACKET, 0);
    epoll_create1(0);
    eventfd(1, 0);
    timerfd_create(CLOCK_MONOTONIC, 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    signalfd(-1, &set, 0);
    memfd_create("m", MFD_ALLOW_SEALING);
    posix_openpt(O_RDWR | O_NOCTTY);
    open("/proc/self/maps", O_RDONLY);
    open("/tmp", O_RDONLY);
    syscall(SYS_pidfd_open, getpid(), 0);
    struct sigaction sa = {.sa_handler = interrupted};
    sigaction(SIGALRM, &sa, NULL);
    struct itimerval t = {{0, 2000}, {0, 2000}};
    setitimer(ITIMER_REAL, &t, NULL);
    pthread_t other[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(&other[i], NULL, calls, (void *)(seed * 31 + (uint64_t)i + 1));
    calls((void *)seed);
    for (int i = 0; i < THREADS; i++) pthread_join(other[i], NULL);
    _exit(0);
}

int main(int argc, char **argv) {
    uint64_t seed = argc > 1 ? strtoul(argv[1], NULL, 0) : 1;
    int rounds = argc > 2 ? atoi(argv[2]) : 10, ended = 0, signals = 0, killed = 0;
    for (int r = 0; r < rounds; r++) {
        page = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        readonly = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        before_hole = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(before_hole + 4096, 4096);
        uint64_t s = seed * 1000003 + (uint64_t)r;
        pid_t pid = fork();
        if (pid < 0) { printf("fork: %s\n", strerrorname_np(errno)); return 1; }
        if (!pid) child(next(&s));
        int status = 0, tries = 0;
        while (waitpid(pid, &status, WNOHANG) != pid) {
            usleep(2000);
            if (++tries == 400) { kill(pid, SIGKILL); killed++; }
        }
        if (WIFSIGNALED(status)) signals++; else ended++;
        /* Those that it left behind. */
        kill(-pid, SIGKILL);
        munmap(page, 4 * 4096);
        munmap(readonly, 4096);
        munmap(before_hole, 4096);
    }
    printf("%d rounds ended, %d by a signal, %d killed by us\nend of the rounds\n", ended, signals, killed);
    return 0;
}
