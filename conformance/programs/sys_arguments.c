// cc: -O1 -D_GNU_SOURCE
// Arguments: halves of registers that a call does not have, pointers that lead nowhere, and what is looked at first.
#include "common.h"
#include <linux/futex.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#define S(call, ...) T(syscall(SYS_##call, __VA_ARGS__))
/* A 32-bit argument with something above it. */
#define F(call, ...) T(syscall(SYS_##call, __VA_ARGS__) != -1)
#define W(v) (0x5eeddeadUL << 32 | (unsigned)(v))
#define NOWHERE ((void *)8)
static int connected(int kind, int listening) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}; socklen_t n = sizeof a; int e = 0, l = socket(AF_INET, SOCK_STREAM, 0), s = socket(AF_INET, SOCK_STREAM | kind, 0);
    bind(l, (void *)&a, n); getsockname(l, (void *)&a, &n); if (listening) listen(l, 1);
    T(connect(s, (void *)&a, n)); struct pollfd p = {s, POLLOUT, 0}; T(poll(&p, 1, 1000)); printf("%x\n", p.revents); n = sizeof e; getsockopt(s, SOL_SOCKET, SO_ERROR, &e, &n); printf("%s\n", strerrorname_np(e)); close(s); return close(l);
}
int main(int argc, char **argv) {
    int p[2], fd; struct timespec z = {0, 0}; struct rlimit r; char b[512]; struct stat st;
    S(pipe2, p, W(O_NONBLOCK)); T(fcntl(p[0], F_GETFL) & O_NONBLOCK); S(fcntl, W(p[0]), W(F_GETFD), W(0)); S(read, W(p[0]), b, 1); S(dup3, W(p[0]), W(p[0]), W(0)); fd = syscall(SYS_dup3, W(p[0]), W(100), W(O_CLOEXEC)); T(fd); S(close, W(fd));
    F(eventfd2, W(7), W(EFD_NONBLOCK)); S(poll, NULL, W(0), W(0)); F(openat, W(AT_FDCWD), ".", W(O_RDONLY | O_DIRECTORY), W(0)); S(faccessat, W(AT_FDCWD), ".", W(R_OK)); S(newfstatat, W(AT_FDCWD), ".", &st, W(0)); S(lseek, W(p[0]), 0L, W(SEEK_SET)); S(flock, W(p[0]), W(LOCK_UN)); S(umask, W(022)); S(kill, W(getpid()), W(0)); F(timerfd_create, W(CLOCK_MONOTONIC), W(TFD_NONBLOCK)); S(getpriority, W(PRIO_PROCESS), W(0)); S(prlimit64, W(0), W(RLIMIT_CORE), NULL, NULL); S(clock_nanosleep, W(CLOCK_MONOTONIC), W(0), &z, NULL); S(getdents64, W(p[0]), b, W(sizeof b)); F(socket, W(AF_UNIX), W(SOCK_STREAM), W(0)); S(sched_getaffinity, W(0), W(0), b); S(futex, &fd, W(FUTEX_WAKE), W(1), NULL, NULL, W(0)); S(waitid, W(P_ALL), W(0), NULL, W(WEXITED), NULL); S(mprotect, 0x10000, 4096L, PROT_READ | 1L << 40);
    /* Nowhere to put it, or to take it from. */
    S(getrlimit, RLIMIT_CORE, NULL); S(setrlimit, RLIMIT_CORE, NULL); T(getrlimit(RLIMIT_CORE, &r)); struct sockaddr_in a; socklen_t n = sizeof a; int s = socket(AF_INET, SOCK_STREAM, 0); T(getsockname(s, NULL, &n)); n = 0; T(getsockname(s, NULL, &n)); printf("%d\n", (int)n); T(getsockname(s, (void *)&a, NULL)); S(futimesat, AT_FDCWD, NULL, NULL); S(utimensat, AT_FDCWD, NULL, NULL, 0); S(openat2, 0, NULL, NULL, 1 << 20); S(semop, -1, NULL, W(1 << 20)); S(semop, -1, NOWHERE, 1); S(semop, -1, NULL, 0); S(sched_setscheduler, 0, SCHED_FIFO, NULL); S(sched_setscheduler, 0, -1, NOWHERE); T(sendfile(0, -1, NOWHERE, 1)); S(mq_notify, -1, NOWHERE); S(chroot, NULL); S(chroot, "not-there"); S(settimeofday, NOWHERE, NULL);
    /* What is looked at first. */
    struct timespec bad[2] = {{0, 2000000000}, {0, 0}}; T(utimensat(AT_FDCWD, "not-there", bad, 0)); T(utimensat(AT_FDCWD, ".", bad, 0)); S(faccessat, -1, NULL, 8); T(openat(-1, "x", O_RDONLY | O_TMPFILE, 0)); T(openat(-1, "x", O_RDWR | (O_TMPFILE & ~O_DIRECTORY), 0)); T(fallocate(-1, 0, -1, -1)); T(kill(999999, 99)); T(kill(-999999, 99)); T(kill(getpid(), 99)); T(mknodat(-1, "x", S_IFIFO, 0)); T(mknod(".", S_IFCHR, 0)); int word = 1; S(futex, &word, FUTEX_WAIT | FUTEX_CLOCK_REALTIME, 0, &z, NULL, 0); S(ioprio_set, 1, 0, 4 << 13); S(ioprio_set, 1, 0, 3 << 13 | 7); S(ioprio_get, 1, 0); S(ioprio_set, 1, 0, 2 << 13 | 6); S(ioprio_get, 1, 0); S(ioprio_get, 9, 0);
    S(kcmp, getpid(), getpid(), 0, p[0], p[0]); T(syscall(SYS_kcmp, getpid(), getpid(), 0, p[0], p[1]) != 0); S(kcmp, getpid(), getpid(), 0, p[0], -1); S(kcmp, getpid(), getpid(), 99, 0, 0); S(kcmp, getpid(), 999999, 0, 0, 0); fflush(stdout); pid_t c = fork(); if (!c) { T(syscall(SYS_kcmp, getpid(), getppid(), 1, 0, 0) != 0); S(kcmp, getpid(), getppid(), 0, p[0], p[0]); _exit(0); } waitpid(c, NULL, 0);
    /* Options that are kept as what they mean. */
    struct linger l = {-15, 7}; setsockopt(s, SOL_SOCKET, SO_LINGER, &l, sizeof l); n = sizeof l; T(getsockopt(s, SOL_SOCKET, SO_LINGER, &l, &n)); printf("%d %d\n", l.l_onoff, l.l_linger); int m = posix_openpt(O_RDWR | O_NOCTTY); struct termios t; grantpt(m); unlockpt(m); int sl = open(ptsname(m), O_RDWR | O_NOCTTY); tcgetattr(sl, &t); t.c_cflag = CS6 | PARENB | CSTOPB | B38400; tcsetattr(sl, TCSANOW, &t); tcgetattr(sl, &t); printf("%x\n", t.c_cflag & (CSIZE | PARENB | CREAD | CSTOPB)); char *end = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); munmap(end + 4096, 4096); T(ioctl(sl, 0x402c542b, end + 4096 - 40));
    /* Connections that nobody takes. */
    T(connected(0, 0)); T(connected(SOCK_NONBLOCK, 0)); T(connected(SOCK_NONBLOCK, 1));
    /* The name of a socket that is still there, bound again. */
    struct sockaddr_un u = {AF_UNIX, "socket"}; for (int i = 0; i < 3; i++) { int k = socket(AF_UNIX, SOCK_STREAM, 0); unlink("socket"); T(bind(k, (void *)&u, sizeof u)); T(listen(k, 1)); int q = socket(AF_UNIX, SOCK_STREAM, 0); T(connect(q, (void *)&u, sizeof u)); close(q); } unlink("socket");
    /* Who a stream is from is shown if it has a name. */
    struct sockaddr_un from = {0}; int k = socket(AF_UNIX, SOCK_STREAM, 0), q = socket(AF_UNIX, SOCK_STREAM, 0); T(bind(k, (void *)&u, sizeof u)); T(listen(k, 1)); strcpy(u.sun_path, "sender"); T(bind(q, (void *)&u, sizeof u)); strcpy(u.sun_path, "socket"); T(connect(q, (void *)&u, sizeof u)); T(write(q, "ab", 2)); int ac = accept(k, NULL, NULL); n = sizeof from; T(recvfrom(ac, b, 1, 0, (void *)&from, &n)); printf("%d %s\n", (int)n, from.sun_path); T(write(ac, "c", 1)); n = sizeof from; T(recvfrom(q, b, 1, 0, (void *)&from, &n)); printf("%d %s\n", (int)n, from.sun_path); q = socket(AF_UNIX, SOCK_STREAM, 0); T(connect(q, (void *)&u, sizeof u)); T(write(q, "d", 1)); n = sizeof from; T(recvfrom(accept(k, NULL, NULL), b, 1, 0, (void *)&from, &n)); printf("%d\n", (int)n); unlink("socket"); unlink("sender");
    /* A directory to read, but not to search; a queue that tells nothing; all of memory, which is little. */
    T(mkdir("unsearched", 0700)); T(chmod("unsearched", 0600)); fd = open("unsearched", O_RDONLY | O_DIRECTORY); T(fd != -1); T(syscall(SYS_getdents64, fd, b, sizeof b) > 0); T(rmdir("unsearched")); char nm[40]; sprintf(nm, "/evm-%d", getpid()); mqd_t mq = mq_open(nm, O_RDWR | O_CREAT, 0600, NULL); struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL}; T(mq_notify(mq, &ev)); T(mq_send(mq, "x", 1, 0)); ev.sigev_signo = 65; T(mq_notify(mq, &ev)); ev.sigev_signo = SIGUSR1; T(mq_notify(mq, &ev)); fflush(stdout); c = fork(); if (!c) { T(mq_notify(mq, &ev)); kill(getppid(), SIGCONT); usleep(60000); T(mq_notify(mq, &ev)); _exit(0); } usleep(30000); T(mq_close(mq)); waitpid(c, NULL, 0); mq_unlink(nm); T(mlockall(MCL_CURRENT)); T(munlockall());
    /* A program that runs is not written to. */
    if (argc == 1) { sprintf(b, "cp %s running; ./running again; echo x > running; echo $?; rm running", argv[0]); return system(b); }
    T(open(argv[0], O_RDWR)); T(open(argv[0], O_RDONLY | O_TRUNC)); T(truncate(argv[0], 0)); fd = open(argv[0], O_RDONLY); T(fd != -1); T(chmod(argv[0], 0755)); return 0;
}
