// cc forks: -O2 -D_GNU_SOURCE -pthread
// cc32 forks: -O2 -D_GNU_SOURCE -pthread
// Who sees which writes after forks, of memory that is changed, unmapped, moved, emptied and forked again meanwhile.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 600, PAGE = 4096 };
static unsigned char *area; static size_t pages = PAGES;
static uint64_t sum(void) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < pages * PAGE; i += 64) h = (h ^ area[i] ^ area[i + 63]) * 1099511628211u;
    return h;
}
static unsigned rnd(void) { static unsigned s = 7; return (s = s * 1103515245 + 12345) >> 8; }
static void write_some(int n, int seed) { for (int i = 0; i < n; i++) { size_t p = (rnd() % pages) * PAGE; area[p] = (unsigned char)(i + seed); area[p + 4095] ^= (unsigned char)seed; } }
static void say(const char *what) { printf("%-10s %016llx\n", what, (unsigned long long)sum()); fflush(stdout); }
static void reap(void) { while (wait(0) > 0) {} }
static unsigned char *fresh(size_t n) { return mmap(0, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static void *other(void *p) { volatile unsigned char *q = p; for (int i = 0; i < 3000000; i++) q[(i * 4096) % (PAGES * PAGE)]++; return 0; }

int main(void) {
    area = fresh(PAGES); write_some(2000, 1); say("first");
    // A child sees what was there, and its writes are its own; so are those of its child.
    for (int round = 0; round < 4; round++) {
        int go[2], at[2]; char c; pipe(go); pipe(at);
        if (!fork()) {
            read(go[0], &c, 1); say("child"); write_some(300, 50 + round); say("wrote");
            if (!fork()) { say("grandchild"); write_some(100, 90); say("wrote"); _exit(0); }
            wait(0); say("again"); write(at[1], "x", 1); _exit(0);
        }
        write_some(500, 10 + round); say("parent"); write(go[1], "x", 1); read(at[0], &c, 1); say("parent"); reap();
        close(go[0]); close(go[1]); close(at[0]); close(at[1]);
    }
    // Emptied, protected, unmapped in the middle and mapped anew, moved, grown.
    if (!fork()) { madvise(area + 100 * PAGE, 50 * PAGE, MADV_DONTNEED); say("emptied"); write_some(200, 3); say("wrote"); _exit(0); }
    reap(); madvise(area + 200 * PAGE, 100 * PAGE, MADV_DONTNEED); say("emptied"); write_some(400, 4);
    if (!fork()) { say("child"); _exit(0); }
    reap(); mprotect(area + 10 * PAGE, 20 * PAGE, PROT_READ); say("read only");
    if (!fork()) { mprotect(area + 10 * PAGE, 20 * PAGE, PROT_READ | PROT_WRITE); write_some(300, 5); say("child"); _exit(0); }
    reap(); mprotect(area + 10 * PAGE, 20 * PAGE, PROT_READ | PROT_WRITE);
    munmap(area + 300 * PAGE, 30 * PAGE);
    mmap(area + 300 * PAGE, 30 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); say("new pages"); write_some(600, 6);
    for (int i = 0; i < 3; i++) if (!fork()) { usleep(20000 + i * 30000); say("sleeper"); _exit(0); }
    write_some(400, 7);
    unsigned char *moved = mremap(area, PAGES * PAGE, (PAGES + 50) * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, fresh(PAGES + 50));
    area = moved; pages = PAGES + 50; say("moved"); write_some(500, 8); reap();
    if (!fork()) { say("child"); area = mremap(area, pages * PAGE, (pages + 100) * PAGE, MREMAP_MAYMOVE); pages += 100; say("grown"); write_some(900, 9); say("wrote"); _exit(0); }
    reap(); say("parent");
    // The heap, down and up.
    area = sbrk(400 * PAGE); pages = 400; write_some(1000, 10);
    for (int i = 0; i < 3; i++) {
        if (!fork()) { say("heap"); write_some(100, 11); say("wrote"); _exit(0); }
        reap(); sbrk(-100 * PAGE); sbrk(100 * PAGE); say("again"); write_some(300, 12 + i);
    }
    // What is to be empty or missing in a child.
    area = fresh(PAGES); pages = PAGES; write_some(1500, 20);
    if (!fork()) { say("child"); _exit(0); }
    reap(); madvise(area, PAGES * PAGE, MADV_WIPEONFORK);
    if (!fork()) { say("wiped"); write_some(300, 21); if (!fork()) { say("wiped"); _exit(0); } reap(); say("child"); _exit(0); }
    reap(); madvise(area, PAGES * PAGE, MADV_KEEPONFORK); say("parent");
    // A thread writes meanwhile: nothing of it is lost.
    area = fresh(PAGES); pthread_t t; pthread_create(&t, 0, other, area);
    for (int i = 0; i < 20; i++) { if (!fork()) _exit(0); reap(); }
    pthread_join(t, 0); say("thread");
    return 0;
}
