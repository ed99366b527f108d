// cc: -O1 -D_GNU_SOURCE -pthread
// Code that is changed while calls that came from it have not returned yet, or while it runs: as programs with a compiler of their own do
// when their garbage collector moves what code names.
#include "common.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <linux/futex.h>
#define N 40000
static unsigned char *m, *value;
static unsigned char *byte(unsigned char *p, int b) { *p = b; return p + 1; }
static unsigned char *word(unsigned char *p, int v) { memcpy(p, &v, 4); return p + 4; }
static void set(int v) { memcpy(value, &v, 4); }
/* long f(void (*helper)(long i), long n): the sum over i of an immediate that `helper` may change, read behind its return. */
static void loop(void) {
    static const unsigned char head[] = { 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x48, 0x83, 0xec, 8, 0x48, 0x89, 0xfb, 0x48, 0x89, 0xf5, 0x45, 0x31, 0xe4, 0x45, 0x31, 0xed };
    static const unsigned char call[] = { 0x4c, 0x89, 0xef, 0xff, 0xd3 }, sum[] = { 0x48, 0x98, 0x49, 0x01, 0xc4, 0x49, 0xff, 0xc5, 0x49, 0x39, 0xed };
    static const unsigned char tail[] = { 0x4c, 0x89, 0xe0, 0x48, 0x83, 0xc4, 8, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3 };
    unsigned char *p = m, *top;
    memcpy(p, head, sizeof head); top = p += sizeof head;
    memcpy(p, call, sizeof call); p += sizeof call;
    value = byte(p, 0xb8); p = word(value, 1);
    memcpy(p, sum, sizeof sum); p += sizeof sum;
    p = byte(byte(p, 0x0f), 0x8c); p = word(p, (int)(top - (p + 4)));
    memcpy(p, tail, sizeof tail);
}
typedef long F(void (*)(long), long);
static void quiet(long i) { }
static void often(long i) { if (i % 1000 == 999) set((int)(i / 1000)); }
static void once(long i) { if (i == N - 10) set(7); }
/* Three calls deep, by one that is in between. */
static __attribute__((noinline)) void deep(long i, int n) { if (n) deep(i, n - 1); else once(i); __asm__ volatile(""); }
static void deeper(long i) { deep(i, 3); }
/* By a system call. */
static int ends[2];
static void by_call(long i) { if (i == N - 10) { int v = 9; if (write(ends[1], &v, 4) != 4 || read(ends[0], value, 4) != 4) exit(1); } }
/* By another thread, while this one waits. */
static int turn;
static void futex(int op, int v) { syscall(SYS_futex, &turn, op, v, NULL, NULL, 0); }
static void wait_for(int v) { int now; while ((now = __atomic_load_n(&turn, __ATOMIC_SEQ_CST)) != v) futex(FUTEX_WAIT, now); }
static void pass(int v) { __atomic_store_n(&turn, v, __ATOMIC_SEQ_CST); futex(FUTEX_WAKE, 10); }
static void by_other(long i) { if (i == N - 10) { pass(1); wait_for(2); } }
static void *other(void *arg) { wait_for(1); set(5); pass(2); return NULL; }
/* A loop that changes the instruction at hand: mov [value], ecx; mov eax, imm32. */
static long itself(long n) {
    unsigned char *p = m + 4096;
    static const unsigned char head[] = { 0x31, 0xd2, 0x31, 0xc9, 0x48, 0xbe };
    memcpy(p, head, sizeof head); p += sizeof head;
    unsigned char *at = p; p += 8;
    unsigned char *top = p;
    p = byte(byte(p, 0xeb), 0); p[-1] = 3; p += 3; /* over what is never run */
    p = byte(byte(byte(p, 0x83), 0xc1), 1);
    /* Each 4096th time. */
    p = byte(byte(p, 0xf7), 0xc1); p = word(p, 4095);
    p = byte(byte(p, 0x75), 2); p = byte(byte(p, 0x89), 0x0e);
    p = byte(byte(p, 0xeb), 0);
    p = byte(p, 0xb8); memcpy(at, &p, 8); p = word(p, 3);
    p = byte(byte(p, 0x48), 0x98); p = byte(byte(byte(p, 0x48), 0x01), 0xc2);
    p = byte(byte(p, 0x39), 0xf9);
    p = byte(byte(p, 0x0f), 0x8c); p = word(p, (int)(top - (p + 4)));
    p = byte(byte(byte(p, 0x48), 0x89), 0xd0); byte(p, 0xc3);
    return ((long (*)(int))(m + 4096))((int)n);
}
/* A thread that runs in a loop without calls until another one changes it. */
static void *spinner(void *arg) { ((void (*)(void *))(m + 8192))(&turn); return NULL; }
static void spins(void) {
    pthread_t t;
    unsigned char *p = m + 8192;
    /* top: mov dword [rdi], 3; nop; nop; jmp top; ret */
    static const unsigned char code[] = { 0xc7, 0x07, 3, 0, 0, 0, 0x66, 0x90, 0xeb, 0xf6, 0xc3 };
    memcpy(p, code, sizeof code);
    turn = 0; T(pthread_create(&t, NULL, spinner, NULL));
    while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) != 3) sched_yield();
    usleep(100000);
    /* jmp +2: to the return. */
    unsigned short out = 0x02eb; __atomic_store_n((unsigned short *)(p + 6), out, __ATOMIC_SEQ_CST);
    T(pthread_join(t, NULL));
}
/* With an argument, what engines that compile regions see at once as well: what calls and other threads change. */
int main(int argc, char **argv) {
    pthread_t t; int all = argc < 2;
    m = mmap(NULL, 4 * 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    loop();
    T(pipe(ends));
    T(((F *)m)(quiet, N));
    if (all) {
        T(((F *)m)(often, N));
        set(1); T(((F *)m)(once, N));
        set(1); T(((F *)m)(deeper, N));
    }
    set(1); T(((F *)m)(by_call, N));
    set(1); T(pthread_create(&t, NULL, other, NULL)); T(((F *)m)(by_other, N)); T(pthread_join(t, NULL));
    if (all) T(itself(N));
    spins();
    return 0;
}
