// cc: -O1 -D_GNU_SOURCE
// Pipes: capacity, atomic writes, splice, tee, vmsplice, FIFOs, poll states, SIGPIPE.
#include "common.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
static void st(const char *n, int fd) { struct pollfd p = {fd, POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLRDNORM | POLLWRNORM, 0}; int r = poll(&p, 1, 0); printf("poll %s %d %x\n", n, r, p.revents); }
static char big[200000];
static void on(int s) { printf("signal %d\n", s); fflush(stdout); }
int main(void) {
    int p[2], q[2]; char b[100]; T(pipe2(p, O_NONBLOCK)); T(fcntl(p[0], F_GETPIPE_SZ)); T(fcntl(p[0], F_SETPIPE_SZ, 5000)); T(fcntl(p[1], F_GETPIPE_SZ)); st("r", p[0]); st("w", p[1]); T(write(p[1], big, 4096)); T(write(p[1], big, 4000)); T(write(p[1], big, 4096)); T(write(p[1], big, 96)); T(fcntl(p[1], F_SETPIPE_SZ, 4096)); int n; T(ioctl(p[0], FIONREAD, &n)); T(n); st("r", p[0]); st("w", p[1]); T(read(p[0], big, 4095)); st("w", p[1]); T(read(p[0], big, 1)); st("w", p[1]); T(read(p[0], big, 100000)); T(read(p[0], big, 10)); T(fcntl(p[1], F_SETPIPE_SZ, 1 << 20)); T(write(p[1], big, 200000)); T(fcntl(p[1], F_SETPIPE_SZ, 65536)); T(read(p[0], big, 200000)); T(fcntl(p[1], F_SETPIPE_SZ, 65536)); T(fcntl(p[1], F_SETPIPE_SZ, 0)); T(fcntl(p[1], F_SETPIPE_SZ, 1 << 30)); T(fcntl(0, F_GETPIPE_SZ)); T(write(p[1], big, 100000)); T(read(p[0], big, 100000)); T(fcntl(p[1], F_GETPIPE_SZ));
    T(lseek(p[0], 0, SEEK_SET)); T(pread(p[0], b, 1, 0)); T(pwrite(p[1], b, 1, 0)); T(read(p[1], b, 1)); T(write(p[0], b, 1)); T(ftruncate(p[1], 0)); T(fsync(p[1])); T(pipe2(q, 12345)); T(pipe((int *)8)); struct stat s; T(fstat(p[0], &s)); printf("%o\n", s.st_mode); T(fcntl(p[0], F_GETFL)); T(fcntl(p[1], F_GETFL));
    T(pipe2(q, O_CLOEXEC)); T(fcntl(q[0], F_GETFD));
    /* tee and splice. */
    T(write(p[1], "hello world", 11)); T(tee(p[0], q[1], 5, 0)); T(read(q[0], b, 100)); T(read(p[0], b, 100)); T(tee(p[0], q[1], 5, SPLICE_F_NONBLOCK)); T(tee(p[0], p[1], 5, 0)); int f = open("f", O_CREAT | O_RDWR, 0600); T(write(f, "file contents", 13)); loff_t off = 5; T(splice(f, &off, p[1], NULL, 100, 0)); T(off); T(read(p[0], b, 100)); printf("%.8s\n", b); T(splice(f, NULL, p[1], NULL, 100, 0)); T(write(p[1], "XYZ", 3)); off = 0; T(splice(p[0], NULL, f, &off, 2, 0)); T(splice(p[0], &off, f, NULL, 2, 0)); T(splice(p[0], NULL, q[1], NULL, 10, 0)); T(read(q[0], b, 100)); T(splice(f, NULL, f, NULL, 10, 0)); T(splice(p[0], NULL, p[1], NULL, 10, 0)); T(splice(p[0], NULL, f, NULL, 10, SPLICE_F_NONBLOCK)); int ap = open("f", O_WRONLY | O_APPEND); T(write(p[1], "app", 3)); T(splice(p[0], NULL, ap, NULL, 3, 0)); T(read(p[0], b, 10)); T(splice(p[0], NULL, f, NULL, 0, 0)); T(pread(f, b, 100, 0)); printf("%.13s\n", b); T(tee(f, p[1], 3, 0)); T(splice(99, NULL, p[1], NULL, 3, 0)); T(splice(p[0], NULL, f, NULL, 3, 0x100)); struct iovec v[2] = {{"vm", 2}, {"splice", 6}}; T(vmsplice(q[1], v, 2, 0)); T(read(q[0], b, 100)); T(vmsplice(f, v, 2, 0));
    /* Hang-ups. */
    T(write(p[1], "last", 4)); close(p[1]); st("r closed w", p[0]); T(read(p[0], b, 100)); st("r empty", p[0]); T(read(p[0], b, 100)); T(splice(p[0], NULL, q[1], NULL, 5, 0)); close(p[0]); T(pipe(p)); close(p[0]); st("w closed r", p[1]); signal(SIGPIPE, on); T(write(p[1], "x", 1)); T(writev(p[1], v, 2)); T(write(p[1], "", 0)); T(splice(f, &(loff_t){0}, p[1], NULL, 5, 0)); close(p[1]);
    fflush(stdout); pid_t c = fork(); int w; if (!c) { signal(SIGPIPE, SIG_DFL); T(pipe(p)); close(p[0]); T(write(p[1], "x", 1)); _exit(1); } T(waitpid(c, &w, 0) == c); printf("%x\n", w);
    /* A blocking write of more than PIPE_BUF goes on as the reader reads. */
    T(pipe(p)); fflush(stdout); c = fork(); if (!c) { close(p[0]); long k = write(p[1], big, 150000); _exit(k == 150000 ? 5 : 1); } close(p[1]); long total = 0, k; while ((k = read(p[0], big, 7777)) > 0) total += k; T(total); T(waitpid(c, &w, 0) == c); printf("%x\n", w); close(p[0]);
    /* A blocked write interrupted after some bytes. */
    T(pipe(p)); struct sigaction sa = {.sa_handler = on}; sigaction(SIGALRM, &sa, NULL); ualarm(50000, 0); T(write(p[1], big, 100000)); ualarm(50000, 0); T(write(p[1], big, 10)); T(read(p[0], big, 100000)); ualarm(50000, 0); T(read(p[0], big, 10)); close(p[0]); close(p[1]);
    /* FIFOs. */
    T(mkfifo("ff", 0600)); T(open("ff", O_WRONLY | O_NONBLOCK)); int r = open("ff", O_RDONLY | O_NONBLOCK); OK(r); st("fifo r", r); T(read(r, b, 10)); int wr = open("ff", O_WRONLY | O_NONBLOCK); OK(wr); T(read(r, b, 10)); T(write(wr, "fifo", 4)); st("fifo r", r); close(wr); st("fifo r", r); T(read(r, b, 10)); st("fifo r", r); close(r); int rw = open("ff", O_RDWR); OK(rw); T(write(rw, "both", 4)); T(read(rw, b, 10)); st("rw", rw); close(rw); fflush(stdout); c = fork(); if (!c) { int x = open("ff", O_WRONLY); _exit(write(x, "from child", 10) == 10 ? 4 : 1); } r = open("ff", O_RDONLY); T(read(r, b, 100)); T(read(r, b, 100)); T(waitpid(c, &w, 0) == c); printf("%x\n", w); T(unlink("ff"));
    st("file", f); st("null", open("/dev/null", O_RDWR)); st("zero", open("/dev/zero", O_RDONLY)); st("bad", 99); st("dir", open(".", O_RDONLY)); st("neg", -1); return 0;
}
