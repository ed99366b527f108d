// cc: -O1 -frounding-math -D_GNU_SOURCE -lm
// MXCSR loaded and stored in hot code: rounding, flags, flush to zero, exceptions that are unmasked and masked again, reserved bits.
#include "common.h"
#include <fenv.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <xmmintrin.h>
static sigjmp_buf back;
static volatile int traps, faults;
static void note(int s) { if (s == SIGFPE) traps++; else faults++; siglongjmp(back, 1); }
static const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
int main(void) {
    struct sigaction a = {.sa_handler = note, .sa_flags = SA_NODEFER}; sigaction(SIGFPE, &a, NULL); sigaction(SIGSEGV, &a, NULL);
    volatile double x = 1, y = 3, z = 0, s = 0;
    for (int r = 0; r < 3000; r++) {
        fesetround(modes[r & 3]); s += x / y + nearbyint(r * 0.5 + 0.25) + rint(0.5 + r);
        if (r < 4) printf("%d %.20g %x\n", r, x / y, _mm_getcsr());
    }
    for (unsigned r = 0; r < 3000; r++) { _mm_setcsr(0x1f80 | (r & 3) << 13); s += x / y; s += sin(s) + _mm_getcsr() % 64; }
    _mm_setcsr(0x1f80); printf("%.17g\n", s);
    s = x / y; printf("%x\n", _mm_getcsr()); s = x / z; printf("%x\n", _mm_getcsr());
    for (int k = 0; k < 2000; k++) {
        _mm_setcsr(0x1f80 & ~_MM_MASK_DIV_ZERO);
        if (!sigsetjmp(back, 1)) { s = x / z; printf("not here\n"); }
        if (k < 2) printf("trap %d %x\n", traps, _mm_getcsr());
        _mm_setcsr(0x1f80); s = x / z;
    }
    for (int k = 0; k < 2000; k++) if (!sigsetjmp(back, 1)) _mm_setcsr(0x1f80 | (k & 1 ? 0x10000u << k % 16 : 0));
    printf("%d traps, %d faults, %x\n", traps, faults, _mm_getcsr());
    for (int k = 0; k < 2000; k++) {
        _mm_setcsr(k & 1 ? 0x9fc0 : 0x1f80); volatile float f = 1e-38f, g = 0.1f, h = f * g;
        if (k < 2) printf("%g %x\n", h, _mm_getcsr());
    }
    return 0;
}
