// cc: -O1 -D_GNU_SOURCE
// Code that is made at one address and executed at another, as just-in-time compilers do that never have a page which can be
// written and executed: each change must be seen, however often the old code ran before.
#include "common.h"
#include <sys/mman.h>
#include <sys/wait.h>
#define P 4096
typedef int F(void);
/* mov eax, n; ret */
static void put(unsigned char *at, int n) { at[0] = 0xb8; memcpy(at + 1, &n, 4); at[5] = 0xc3; }
static long calls(F *f, int times) { long s = 0; for (int i = 0; i < times; i++) s += f(); return s; }
static void *map(int fd, int prot) { void *m = mmap(NULL, 2 * P, prot, MAP_SHARED, fd, 0); if (m == MAP_FAILED) { perror("mmap"); exit(1); } return m; }
static void go(const char *what, int fd) {
    printf("%s\n", what);
    unsigned char *x = map(fd, PROT_READ | PROT_EXEC), *w = map(fd, PROT_READ | PROT_WRITE);
    F *f = (F *)(x + 64), *far = (F *)(x + P + 8);
    put(w + 64, 1); put(w + P + 8, 1000); T(calls(f, 3)); T(calls(far, 2));
    put(w + 64, 2); T(calls(f, 100000)); put(w + 64, 3); T(calls(f, 100000)); T(calls(far, 100000));
    for (int i = 0; i < 200; i++) { put(w + 64, i); if (calls(f, 5) != 5 * i) printf("stale at %d\n", i); }
    /* A second place to write, made after the code ran. */
    unsigned char *late = map(fd, PROT_READ | PROT_WRITE); put(late + 64, 7); T(calls(f, 10)); put(w + 64, 8); T(calls(f, 10)); put(late + 64, 9); T(calls(f, 10));
    T(mprotect(w, 2 * P, PROT_READ)); T(calls(f, 10)); T(mprotect(w, 2 * P, PROT_READ | PROT_WRITE)); put(w + 64, 10); T(calls(f, 10));
    /* Written by the kernel. */
    unsigned char code[6]; put(code, 11); int p[2]; T(pipe(p)); T(write(p[1], code, 6)); T(read(p[0], w + 64, 6)); T(calls(f, 10));
    /* By a forked process, which runs it as well. */
    fflush(stdout); pid_t c = fork(); int st; if (!c) { long before = calls(f, 10); put(w + 64, 13); _exit(before == 110 && calls(f, 10) == 130 ? 5 : 6); } T(waitpid(c, &st, 0) == c); T(WEXITSTATUS(st));
    T(munmap(w, 2 * P)); T(munmap(late, 2 * P)); T(munmap(x, 2 * P));
}
int main(void) {
    int m = memfd_create("code", 0); T(ftruncate(m, 2 * P)); go("memory file", m);
    int f = open("code", O_CREAT | O_RDWR, 0700); T(ftruncate(f, 2 * P)); go("file", f);
    return 0;
}
