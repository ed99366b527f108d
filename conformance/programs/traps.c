// cc: -O2 -D_GNU_SOURCE
// Unmasked SSE exceptions, in code that runs often: SIGFPE where and as the CPU raises it, registers as they were before the
// instruction, and results as without.
#include <fenv.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <pthread.h>
#include <xmmintrin.h>

static sigjmp_buf out;
static volatile int seen;
static char first[256];

static void fpe(int sig, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    const unsigned char *at = info->si_addr;
    struct _libc_fpstate *f = u->uc_mcontext.fpregs;
    if (!seen++) {
        int n = snprintf(first, sizeof first, "signal %d code %d rip %d trap %d mxcsr %x xmm0", sig, info->si_code,
                         (greg_t)info->si_addr == u->uc_mcontext.gregs[REG_RIP], (int)u->uc_mcontext.gregs[REG_TRAPNO],
                         f->mxcsr);
        for (int k = 0; k < 4; k++) n += snprintf(first + n, sizeof first - n, " %08x", f->_xmm[0].element[k]);
        snprintf(first + n, sizeof first - n, " bytes %02x %02x %02x", at[0], at[1], at[2]);
    }
    siglongjmp(out, 1);
}

// Sums with `n` terms, and the division at the end of each round.
__attribute__((noinline)) static double rounds(const double *x, int n, int times, double last) {
    double s = 0;
    for (int k = 0; k < times; k++) {
        for (int i = 0; i < n; i++) s += x[i] * 0.999 / (1.0 + x[i]);
        s += 1.0 / (k == times - 1 ? last : 1.0);
    }
    return s;
}
__attribute__((noinline)) static float singles(const float *x, int n) {
    float s = 0;
    for (int i = 0; i < n; i++) s += sqrtf(x[i]);
    return s;
}
__attribute__((noinline)) static int converted(const double *x, int n) {
    int s = 0;
    for (int i = 0; i < n; i++) s += (int)x[i];
    return s;
}
__attribute__((noinline)) static int less(const double *x, int n) {
    int s = 0;
    for (int i = 0; i < n; i++) s += x[i] < 3.0;
    return s;
}
__attribute__((noinline)) static double packed(const float *x, int n) {
    __m128 s = _mm_setzero_ps();
    for (int i = 0; i + 4 <= n; i += 4) s = _mm_add_ps(s, _mm_mul_ps(_mm_loadu_ps(x + i), _mm_set1_ps(1.5f)));
    float r[4];
    _mm_storeu_ps(r, s);
    return r[0] + r[1] + r[2] + r[3];
}

static int enabled;

static void try(const char *name, double (*f)(void)) {
    // A handler starts with all masked, and longjmp leaves that.
    if (enabled) feenableexcept(enabled);
    seen = 0;
    strcpy(first, "no signal");
    double r = 0;
    if (!sigsetjmp(out, 1)) r = f();
    printf("%-10s %s", name, first);
    if (!seen) printf(" %a", r);
    printf(" masks %x flags %x\n", _mm_getcsr() & 0x1f80, _mm_getcsr() & 0x3f);
    feclearexcept(FE_ALL_EXCEPT);
}

static double x[1000], nan_at_500[1000];
static float y[1000], negative_at_700[1000], huge_at_900[1000];
static double plain(void) { return rounds(x, 1000, 200, 2.0); }
static double zero(void) { return rounds(x, 1000, 200, 0.0); }
static double roots(void) { return singles(negative_at_700, 1000); }
static double range(void) { return converted(nan_at_500, 1000); }
static double order(void) { return less(nan_at_500, 1000); }
static double over(void) { return packed(huge_at_900, 1000); }
static double all_good(void) { return packed(y, 1000) + singles(y, 1000) + converted(x, 1000) + less(x, 1000); }

static void *masked(void *unused) {
    (void)unused;
    fedisableexcept(FE_ALL_EXCEPT);
    printf("thread     %a\n", rounds(x, 1000, 50, 0.0));
    return 0;
}

int main(void) {
    struct sigaction a = { .sa_sigaction = fpe, .sa_flags = SA_SIGINFO };
    sigaction(SIGFPE, &a, 0);
    for (int i = 0; i < 1000; i++) {
        nan_at_500[i] = x[i] = i + 1;
        huge_at_900[i] = negative_at_700[i] = y[i] = i + 1;
    }
    nan_at_500[500] = NAN;
    negative_at_700[700] = -1;
    huge_at_900[900] = 3e38f;
    for (int round = 0; round < 2; round++) {
        try("plain", plain);
        try("zero", zero);
        try("roots", roots);
        try("range", range);
        try("order", order);
        try("over", over);
        try("good", all_good);
        feclearexcept(FE_ALL_EXCEPT);
        feenableexcept(enabled = FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW);
    }
    pthread_t t;
    pthread_create(&t, 0, masked, 0);
    pthread_join(t, 0);
    try("zero", zero);
    enabled = 0;
    fedisableexcept(FE_ALL_EXCEPT);
    try("zero", zero);
    return 0;
}
