// cc: -O1 -D_GNU_SOURCE
// flock, POSIX and OFD record locks, leases.
#include "common.h"
#include <sys/file.h>
#include <sys/wait.h>
static int lk(int fd, int cmd, int type, long start, long len) { struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len}; return fcntl(fd, cmd, &l); }
static void get(int fd, int cmd, int type, long start, long len, pid_t me) { struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len}; int r = fcntl(fd, cmd, &l); if (r) show("getlk", r); else printf("getlk type %d start %ld len %ld pid %s\n", l.l_type, (long)l.l_start, (long)l.l_len, l.l_type == F_UNLCK ? "-" : l.l_pid == me ? "parent" : l.l_pid == -1 ? "-1" : "?"); }
#define CHILD for (pid_t c_ = (fflush(stdout), fork()); ; ) if (c_ == 0) { code_ = 1; break; } else { int st_; waitpid(c_, &st_, 0); printf("child %x\n", st_); break; } if (code_)
int main(void) {
    int a = open("f", O_CREAT | O_RDWR, 0600), b = open("f", O_RDWR); pid_t me = getpid(); volatile int code_ = 0;
    T(write(a, "0123456789", 10));
    T(lk(a, F_SETLK, F_WRLCK, 0, 10)); T(lk(b, F_SETLK, F_WRLCK, 0, 10)); T(lk(a, F_SETLK, F_UNLCK, 3, 4)); get(a, F_GETLK, F_WRLCK, 0, 0, me);
    CHILD { get(a, F_GETLK, F_WRLCK, 0, 0, me); get(a, F_GETLK, F_WRLCK, 3, 4, me); get(a, F_GETLK, F_RDLCK, 7, 0, me); T(lk(a, F_SETLK, F_RDLCK, 0, 1)); T(lk(a, F_SETLK, F_RDLCK, 3, 4)); T(lk(a, F_SETLK, F_WRLCK, 5, 10)); get(a, F_OFD_GETLK, F_WRLCK, 0, 0, me); _exit(3); }
    code_ = 0; T(lk(a, F_SETLK, F_RDLCK, 0, 2)); T(lk(a, F_SETLK, F_RDLCK, 4, 0));
    CHILD { T(lk(a, F_SETLK, F_RDLCK, 0, 2)); T(lk(a, F_SETLK, F_WRLCK, 0, 2)); get(a, F_GETLK, F_WRLCK, 0, 1, me); get(a, F_GETLK, F_WRLCK, 5, 1, me); get(a, F_GETLK, F_WRLCK, 100, 1, me); _exit(0); }
    code_ = 0; close(b); CHILD { T(lk(a, F_SETLK, F_WRLCK, 0, 0)); _exit(0); } /* closing any descriptor drops the process's locks */
    code_ = 0; b = open("f", O_RDWR); T(lk(a, F_SETLK, 77, 0, 0)); T(lk(a, F_SETLK, F_WRLCK, -5, 3)); T(lk(a, F_SETLK, F_WRLCK, 10, -5)); T(lk(a, F_SETLK, F_WRLCK, 3, -5)); T(lk(open("f", O_RDONLY), F_SETLK, F_WRLCK, 0, 1)); T(lk(open("f", O_WRONLY), F_SETLK, F_RDLCK, 0, 1)); T(lk(99, F_SETLK, F_RDLCK, 0, 1)); T(fcntl(a, F_SETLK, (void *)8)); int p[2]; T(pipe(p)); T(lk(p[0], F_SETLK, F_RDLCK, 0, 1)); struct flock w = {.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -2, .l_len = 1}; T(lseek(a, 4, SEEK_SET)); T(lk(a, F_SETLK, F_UNLCK, 0, 0)); T(fcntl(a, F_SETLK, &w)); w.l_whence = SEEK_CUR; w.l_start = 1; T(fcntl(a, F_SETLK, &w));
    CHILD { get(a, F_GETLK, F_WRLCK, 0, 0, me); get(a, F_GETLK, F_WRLCK, 6, 0, me); _exit(0); }
    code_ = 0; T(lk(a, F_SETLK, F_UNLCK, 0, 0));
    /* OFD locks belong to the description. */
    T(lk(a, F_OFD_SETLK, F_WRLCK, 0, 5)); T(lk(b, F_OFD_SETLK, F_WRLCK, 4, 5)); T(lk(b, F_SETLK, F_RDLCK, 0, 1)); T(lk(b, F_OFD_SETLK, F_WRLCK, 5, 5)); get(b, F_OFD_GETLK, F_WRLCK, 0, 1, me); get(b, F_GETLK, F_WRLCK, 0, 1, me); int a2 = dup(a); close(a); T(lk(b, F_OFD_SETLK, F_WRLCK, 0, 5)); close(a2); T(lk(b, F_OFD_SETLK, F_WRLCK, 0, 5)); T(lk(b, F_OFD_SETLK, F_UNLCK, 0, 0)); struct flock pid = {.l_type = F_WRLCK, .l_pid = 5}; T(fcntl(b, F_OFD_SETLK, &pid));
    /* Waiting, deadlock, EINTR. */
    a = open("f", O_RDWR); int go[2], done[2]; T(pipe(go)); T(pipe(done)); T(lk(a, F_SETLK, F_WRLCK, 0, 1)); fflush(stdout); pid_t c = fork(); char ch = 0;
    if (!c) { lk(a, F_SETLK, F_WRLCK, 1, 1); if (write(go[1], "x", 1) != 1) _exit(9); int r = lk(a, F_SETLKW, F_WRLCK, 0, 1); _exit(r ? 1 : 7); }
    T(read(go[0], &ch, 1)); usleep(50000); T(lk(a, F_SETLKW, F_WRLCK, 1, 1)); T(lk(a, F_SETLK, F_UNLCK, 0, 1)); int st; T(waitpid(c, &st, 0) == c); printf("%x\n", st);
    T(lk(a, F_SETLK, F_WRLCK, 0, 0)); fflush(stdout); c = fork(); if (!c) { struct sigaction sa = {.sa_handler = (void (*)(int))abs}; sigaction(SIGALRM, &sa, NULL); ualarm(50000, 0); errno = 0; int r = lk(a, F_SETLKW, F_WRLCK, 0, 1); printf("lkw %d %s\n", r, strerrorname_np(errno)); fflush(stdout); ualarm(50000, 0); r = flock(a, LOCK_EX); printf("flock %d\n", r); fflush(stdout); _exit(0); } T(waitpid(c, &st, 0) == c); T(lk(a, F_SETLK, F_UNLCK, 0, 0));
    /* flock. */
    close(a); close(b); a = open("f", O_RDWR); b = open("f", O_RDONLY); T(flock(a, LOCK_SH)); T(flock(b, LOCK_SH | LOCK_NB)); T(flock(a, LOCK_EX | LOCK_NB)); T(flock(b, LOCK_UN)); T(flock(a, LOCK_EX | LOCK_NB)); T(flock(b, LOCK_SH | LOCK_NB)); T(flock(a, LOCK_SH | LOCK_NB)); T(flock(b, LOCK_SH | LOCK_NB)); T(flock(a, 99)); T(flock(99, LOCK_SH)); int d = dup(a); close(a); T(flock(b, LOCK_EX | LOCK_NB)); close(d); T(flock(b, LOCK_EX | LOCK_NB)); a = open("f", O_RDWR);
    fflush(stdout); c = fork(); if (!c) { errno = 0; T(flock(b, LOCK_EX | LOCK_NB)); T(flock(a, LOCK_SH | LOCK_NB)); T(flock(b, LOCK_UN)); _exit(0); } T(waitpid(c, &st, 0) == c); T(flock(a, LOCK_SH | LOCK_NB)); T(flock(p[0], LOCK_SH)); int n = open("/dev/null", O_RDWR); T(flock(n, LOCK_EX | LOCK_NB)); T(lockf(a, F_TLOCK, 5)); T(lockf(a, F_TEST, 5)); T(lockf(a, F_ULOCK, 0)); T(lockf(a, 99, 0)); T(fcntl(a, F_GETLEASE));
    return 0;
}
