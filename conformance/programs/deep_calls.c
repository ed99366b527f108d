// cc: -O1 -fno-optimize-sibling-calls -D_GNU_SOURCE
// Calls that go very deep while signals come: an engine's own stack of calls fills, again and again.
#include "common.h"
#include <sys/time.h>
static volatile int ticks;
static void tick(int s) { (void)s; ticks++; }
__attribute__((noinline)) static long down(long n, long m) { if (!n) return m; long r = down(n - 1, m + 1); __asm__ volatile(""); return r + 1; }
int main(void) {
    struct sigaction a = {.sa_handler = tick, .sa_flags = SA_RESTART}; sigaction(SIGALRM, &a, NULL);
    struct itimerval every = {{0, 200}, {0, 200}}; setitimer(ITIMER_REAL, &every, NULL);
    long sum = 0; int rounds = 0;
    // Of stack there is 8 MiB.
    while (rounds < 60 || ticks < 200) sum += down(200000 + rounds % 7, rounds) % 1000, rounds++;
    printf("%d\n", sum > 0 && ticks >= 200); return 0;
}
