// cc: -O1 -D_GNU_SOURCE -pthread
// Pages that can be written and executed, changed in every way a program has, while other threads run, write and map code too.
#include "common.h"
#include <pthread.h>
#include <sys/mman.h>
#define P 4096
typedef int F(void);
/* mov eax, n; ret */
static void put(unsigned char *at, int n) { at[0] = 0xb8; memcpy(at + 1, &n, 4); at[5] = 0xc3; }
static long calls(unsigned char *at, int times) { long s = 0; for (int i = 0; i < times; i++) s += ((F *)at)(); return s; }
static void *map(int flags) { void *m = mmap(NULL, 4 * P, 7, flags | MAP_ANONYMOUS, -1, 0); if (m == MAP_FAILED) { perror("mmap"); exit(1); } return m; }
static void alone(int flags) {
    unsigned char *m = map(flags);
    put(m, 1); T(calls(m, 20000));
    T(madvise(m, P, MADV_DONTNEED)); if (flags & MAP_PRIVATE) { T(m[0]); } put(m, 2); T(calls(m, 20000));
    T(madvise(m, 4 * P, flags & MAP_PRIVATE ? MADV_FREE : MADV_REMOVE)); put(m, 3); T(calls(m, 20000));
    T(mprotect(m, P, 5)); T(calls(m, 10)); T(mprotect(m, P, 7)); put(m, 4); T(calls(m, 20000));
    /* Another shared mapping that can be written has all shared code looked at again. */
    void *other = map(MAP_SHARED); put(m, 5); T(calls(m, 20000)); T(munmap(other, 4 * P));
    T(mmap(m, P, 7, flags | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == m); put(m, 6); T(calls(m, 20000));
    unsigned char *n = mremap(m, P, 8 * P, MREMAP_MAYMOVE); put(n, 7); T(calls(n, 20000)); T(munmap(n, 8 * P));
}
/* Maps, writes, runs and unmaps, so that the next thread has the same addresses. */
static void *mapper(void *arg) {
    long bad = 0;
    for (int i = 0; i < 400; i++) { unsigned char *m = map(MAP_PRIVATE); put(m, i); bad += calls(m, 200) != 200L * i; put(m, i + 1); bad += calls(m, 3) != 3L * (i + 1); munmap(m, 4 * P); }
    return (void *)bad;
}
/* Two that write to the same page, each its own half. */
static unsigned char *both;
static void *writer(void *arg) {
    unsigned char *at = both + (long)arg * 2048; long bad = 0;
    for (int i = 0; i < 3000; i++) { put(at, i); bad += calls(at, 20) != 20L * i; }
    return (void *)bad;
}
static long all(void *(*f)(void *), int n) {
    pthread_t t[8]; long bad = 0; void *r;
    for (long i = 0; i < n; i++) pthread_create(&t[i], NULL, f, (void *)i);
    for (int i = 0; i < n; i++) { pthread_join(t[i], &r); bad += (long)r; }
    return bad;
}
int main(void) {
    printf("private\n"); alone(MAP_PRIVATE); printf("shared\n"); alone(MAP_SHARED);
    both = map(MAP_PRIVATE); T(all(mapper, 4)); T(all(writer, 2)); T(all(mapper, 8));
    return 0;
}
