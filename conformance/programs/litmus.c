// cc: -O2 -pthread
// Litmus tests of the x86 memory model (TSO): two to four threads run a few accesses each on shared words, many times over.
// A word on standard output says for each test that no outcome was seen that TSO forbids; how often the one was seen that
// only a store buffer explains goes to standard error, as it need not come.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CELLS = 2048, LINE = 64 };

// Each instance has words x and y on lines of their own, and results.
struct cell { _Alignas(LINE) volatile uint64_t x; _Alignas(LINE) volatile uint64_t y; _Alignas(LINE) uint64_t r[4]; };
static struct cell cells[CELLS];

typedef void body(struct cell *);
typedef int outcome(const struct cell *);
struct test { const char *name; body *threads[4]; outcome *forbidden, *buffered; };

#define LOAD(p, r) __asm__ volatile("mov %1, %0" : "=r"(r) : "m"(p) : "memory")
#define STORE(p, v) __asm__ volatile("mov %1, %0" : "=m"(p) : "r"((uint64_t)(v)) : "memory")
#define TWO_LOADS(p, q, a, b) __asm__ volatile("mov %2, %0; mov %3, %1" : "=&r"(a), "=&r"(b) : "m"(p), "m"(q) : "memory")
#define TWO_STORES(p, v, q, w) __asm__ volatile("movq %2, %0; movq %3, %1" : "=m"(p), "=m"(q) : "r"((uint64_t)(v)), "r"((uint64_t)(w)) : "memory")
#define STORE_LOAD(between, p, q, r) __asm__ volatile("movq $1, %1; " between " mov %2, %0" : "=&r"(r), "=m"(p) : "m"(q) : "memory", "cc", "rax")
#define LOAD_STORE(p, r, q) __asm__ volatile("mov %2, %0; movq $1, %1" : "=&r"(r), "=m"(q) : "m"(p) : "memory")

// Store buffering: both may read 0 unless something between waits for the store.
static void sb0(struct cell *c) { STORE_LOAD("", c->x, c->y, c->r[0]); }
static void sb1(struct cell *c) { STORE_LOAD("", c->y, c->x, c->r[1]); }
static void sbm0(struct cell *c) { STORE_LOAD("mfence;", c->x, c->y, c->r[0]); }
static void sbm1(struct cell *c) { STORE_LOAD("mfence;", c->y, c->x, c->r[1]); }
static void sbl0(struct cell *c) { STORE_LOAD("lock orq $0, (%%rsp);", c->x, c->y, c->r[0]); }
static void sbl1(struct cell *c) { STORE_LOAD("lock orq $0, (%%rsp);", c->y, c->x, c->r[1]); }
static void sbc0(struct cell *c) { STORE_LOAD("mov $7, %%eax; lock cmpxchg %%rax, -8(%%rsp);", c->x, c->y, c->r[0]); }
static void sbx0(struct cell *c) { uint64_t v = 1; __asm__ volatile("xchg %0, %1; mov %3, %2" : "+r"(v), "+m"(c->x), "=&r"(c->r[0]) : "m"(c->y) : "memory"); }
static void sbx1(struct cell *c) { uint64_t v = 1; __asm__ volatile("xchg %0, %1; mov %3, %2" : "+r"(v), "+m"(c->y), "=&r"(c->r[1]) : "m"(c->x) : "memory"); }
static int both_zero(const struct cell *c) { return !c->r[0] && !c->r[1]; }
// A thread sees its own store at once, even while others do not.
static void own0(struct cell *c) { __asm__ volatile("movq $1, %2; mov %2, %0; mov %3, %1" : "=&r"(c->r[0]), "=&r"(c->r[2]), "+m"(c->x) : "m"(c->y) : "memory"); }
static void own1(struct cell *c) { __asm__ volatile("movq $1, %2; mov %2, %0; mov %3, %1" : "=&r"(c->r[1]), "=&r"(c->r[3]), "+m"(c->y) : "m"(c->x) : "memory"); }
static int own_lost(const struct cell *c) { return c->r[0] != 1 || c->r[1] != 1; }
static int own_buffered(const struct cell *c) { return !c->r[2] && !c->r[3]; }
// Message passing.
static void mp0(struct cell *c) { TWO_STORES(c->x, 1, c->y, 1); }
static void mp1(struct cell *c) { TWO_LOADS(c->y, c->x, c->r[0], c->r[1]); }
static int mp_bad(const struct cell *c) { return c->r[0] && !c->r[1]; }
// Message passing with stores and loads of 16 bytes, which are two at most, in order of nothing, but each before the next instruction's.
static void mpv0(struct cell *c) { __asm__ volatile("movq %2, %%xmm0; movdqu %%xmm0, %0; movq %2, %1" : "=m"(c->x), "=m"(c->y) : "r"((uint64_t)1) : "memory", "xmm0"); }
static void mpv1(struct cell *c) { __asm__ volatile("mov %2, %0; movdqu %3, %%xmm1; movq %%xmm1, %1" : "=&r"(c->r[0]), "=&r"(c->r[1]) : "m"(c->y), "m"(c->x) : "memory", "xmm1"); }
// String stores and vector loads.
static void mps0(struct cell *c) { void *d = (void *)&c->x; uint64_t n = 1; __asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(1ull) : "memory"); STORE(c->y, 1); }
// Load buffering.
static void lb0(struct cell *c) { LOAD_STORE(c->x, c->r[0], c->y); }
static void lb1(struct cell *c) { LOAD_STORE(c->y, c->r[1], c->x); }
static int lb_bad(const struct cell *c) { return c->r[0] && c->r[1]; }
// Independent reads of independent writes: all agree on the order of two stores.
static void w0(struct cell *c) { STORE(c->x, 1); }
static void w1(struct cell *c) { STORE(c->y, 1); }
static void ir0(struct cell *c) { TWO_LOADS(c->x, c->y, c->r[0], c->r[1]); }
static void ir1(struct cell *c) { TWO_LOADS(c->y, c->x, c->r[2], c->r[3]); }
static int iriw_bad(const struct cell *c) { return c->r[0] && !c->r[1] && c->r[2] && !c->r[3]; }
// Two stores by each of two threads.
static void ww0(struct cell *c) { TWO_STORES(c->x, 1, c->y, 2); }
static void ww1(struct cell *c) { TWO_STORES(c->y, 1, c->x, 2); }
static int ww_bad(const struct cell *c) { return c->x == 1 && c->y == 1; }
// Two loads of one word never go back.
static void co1(struct cell *c) { TWO_LOADS(c->x, c->x, c->r[0], c->r[1]); }
static int co_bad(const struct cell *c) { return c->r[0] && !c->r[1]; }
// Write to read causality: what was seen by the one who passed it on is seen by the next.
static void wrc1(struct cell *c) { LOAD_STORE(c->x, c->r[0], c->y); }
static void wrc2(struct cell *c) { TWO_LOADS(c->y, c->x, c->r[1], c->r[2]); }
static int wrc_bad(const struct cell *c) { return c->r[0] && c->r[1] && !c->r[2]; }
// Locked instructions are atomic: of two increments none is lost.
static void inc(struct cell *c) { __asm__ volatile("lock incq %0" : "+m"(c->x) : : "memory", "cc"); uint64_t one = 1; __asm__ volatile("lock xadd %0, %1" : "+r"(one), "+m"(c->y) : : "memory", "cc"); }
static int inc_bad(const struct cell *c) { return c->x != 4 || c->y != 4; }
// Only one of two compares succeeds.
static uint64_t take(volatile uint64_t *p) { uint64_t old = 0; __asm__ volatile("lock cmpxchg %2, %1" : "+a"(old), "+m"(*p) : "r"(1ull) : "memory", "cc"); return old == 0; }
static void cas0(struct cell *c) { c->r[0] = take(&c->x); }
static void cas1(struct cell *c) { c->r[1] = take(&c->x); }
static int cas_bad(const struct cell *c) { return c->r[0] + c->r[1] != 1; }

static const struct test tests[] = {
    {"SB", {sb0, sb1}, NULL, both_zero},
    {"SB+mfence", {sbm0, sbm1}, both_zero, NULL},
    {"SB+lock or", {sbl0, sbl1}, both_zero, NULL},
    {"SB+lock cmpxchg+mfence", {sbc0, sbm1}, both_zero, NULL},
    {"SB+xchg", {sbx0, sbx1}, both_zero, NULL},
    {"SB+rfi", {own0, own1}, own_lost, own_buffered},
    {"MP", {mp0, mp1}, mp_bad, NULL},
    {"MP+vectors", {mpv0, mpv1}, mp_bad, NULL},
    {"MP+string", {mps0, mp1}, mp_bad, NULL},
    {"LB", {lb0, lb1}, lb_bad, NULL},
    {"IRIW", {w0, w1, ir0, ir1}, iriw_bad, NULL},
    {"2+2W", {ww0, ww1}, ww_bad, NULL},
    {"CoRR", {w0, co1}, co_bad, NULL},
    {"WRC", {w0, wrc1, wrc2}, wrc_bad, NULL},
    {"increments", {inc, inc, inc, inc}, inc_bad, NULL},
    {"CAS", {cas0, cas1}, cas_bad, NULL},
};
enum { TESTS = sizeof tests / sizeof *tests };

static pthread_barrier_t start, end;
static const struct test *now;
// How far each thread has come in this round.
static struct { _Alignas(LINE) volatile int at; } progress[4];

// The others are at the same cell at the same time, if they run at all: wait for them, but not for ever.
static int together(long me, int cell) {
    progress[me].at = cell + 1;
    for (int other = 0; other < 4; other++)
        if (now->threads[other])
            for (int spin = 0; progress[other].at <= cell; spin++)
                if (spin == (cell ? 2000 : 3000000)) return 0;
    return 1;
}

static void *run(void *arg) {
    long me = (long)arg;
    for (;;) {
        pthread_barrier_wait(&start);
        if (!now) return NULL;
        body *b = now->threads[me];
        int wait = 1;
        for (int i = 0; b && i < CELLS; i++) {
            if (wait) wait = together(me, i);
            b(&cells[i]);
        }
        pthread_barrier_wait(&end);
    }
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 20;
    pthread_t t[4];
    pthread_barrier_init(&start, NULL, 5);
    pthread_barrier_init(&end, NULL, 5);
    for (long i = 0; i < 4; i++) pthread_create(&t[i], NULL, run, (void *)i);
    for (int k = 0; k < TESTS; k++) {
        long bad = 0, buffered = 0;
        for (int r = 0; r < rounds; r++) {
            memset(cells, 0, sizeof cells);
            now = &tests[k];
            memset((void *)progress, 0, sizeof progress);
            pthread_barrier_wait(&start);
            pthread_barrier_wait(&end);
            for (int i = 0; i < CELLS; i++) {
                bad += now->forbidden && now->forbidden(&cells[i]);
                buffered += now->buffered && now->buffered(&cells[i]);
            }
        }
        printf("%s: %s\n", tests[k].name, bad ? "FORBIDDEN" : "never what is forbidden");
        if (bad) printf("    %ld of %d\n", bad, rounds * CELLS);
        if (buffered) fprintf(stderr, "%s: a store was buffered %ld of %d times\n", tests[k].name, buffered, rounds * CELLS);
    }
    now = NULL;
    pthread_barrier_wait(&start);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    return 0;
}
