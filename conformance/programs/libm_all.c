// cc libm_all: -O1 -D_GNU_SOURCE -fno-builtin
// cc32 libm_all: -O1 -D_GNU_SOURCE -fno-builtin
// All of <math.h> for float, double and long double, on edge values and random ones: the bits of the results and the exceptions
// raised, as one hash a function and rounding mode, and some values.
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint64_t seed, sum;
static uint64_t rnd(void) { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; return seed; }
static void add(const void *p, size_t n) { const unsigned char *b = p; while (n--) sum = (sum ^ *b++) * 1099511628211u; }
static void begin(void) { sum = 14695981039346656037u; seed = 88172645463325252u; }
static const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
enum { EDGES = 44, RANDOM = 260, ALL = EDGES + RANDOM };

static const double edges[EDGES] = {0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, 10, 100, -100, 0.1, 1e-5, -1e-5, 1e-8, 1e-17, 1e-30, 4.9e-324, -4.9e-324, 2.2250738585072014e-308, 1.1754943508222875e-38, 1e-45, M_PI, -M_PI_2, M_PI_4, 6.283185307179586, 1e5, 1e10, 1e22, -1e22, 88.7, -103.9, 709.78, -745.1, 1e38, 1e308, 1.7976931348623157e308, 1.5, 2.5, INFINITY, -INFINITY, NAN, -NAN};

#define VALUES(T, t, big) \
    static T arg_##t(int i) { \
        if (i < EDGES) return (T)edges[i]; \
        uint64_t r = rnd(); T m = (T)(r >> 12) / (T)(1ull << 52) + 1; int e; \
        switch (i & 3) { case 0: e = (int)(r & 7) - 4; break; case 1: e = (int)(r & 31) - 16; break; case 2: e = (int)(r & 127) - 64; break; default: e = (int)(r % (2 * big)) - big; } \
        m = e > 0 ? m * (T)exp2l(e) : m / (T)exp2l(-e); return r & 512 ? -m : m; \
    } \
    static void out_##t(T x) { unsigned char b[16] = {0}; memcpy(b, &x, sizeof(T) > 10 ? 10 : sizeof(T)); add(b, 16); int f = fetestexcept(FE_ALL_EXCEPT); add(&f, sizeof f); feclearexcept(FE_ALL_EXCEPT); }
VALUES(float, f, 126)
VALUES(double, d, 1000)
VALUES(long double, l, 8000)

// Every function in each rounding mode.
#define EACH(name, ...) static void name(void) { for (int m = 0; m < 4; m++) { fesetround(FE_TONEAREST); begin(); fesetround(modes[m]); feclearexcept(FE_ALL_EXCEPT); __VA_ARGS__ fesetround(FE_TONEAREST); printf(#name " %d %016llx\n", m, (unsigned long long)sum); } }
#define ONE(T, t, f) EACH(t_##f, for (int i = 0; i < ALL; i++) { T x = arg_##t(i); feclearexcept(FE_ALL_EXCEPT); T r = f(x); out_##t(r); if (m == 0 && i >= EDGES && i % 97 == 0) printf("    " #f "(%.21Lg) = %.21Lg\n", (long double)x, (long double)r); })
#define TWO(T, t, f) EACH(t_##f, for (int i = 0; i < EDGES; i++) for (int j = i & 1; j < EDGES; j += 2) { T x = arg_##t(i), y = arg_##t(j); feclearexcept(FE_ALL_EXCEPT); out_##t(f(x, y)); } for (int i = 0; i < 400; i++) { T x = arg_##t(EDGES + i), y = arg_##t(EDGES + i / 2); feclearexcept(FE_ALL_EXCEPT); T r = f(x, y); out_##t(r); if (m == 0 && i % 131 == 0) printf("    " #f "(%.21Lg, %.21Lg) = %.21Lg\n", (long double)x, (long double)y, (long double)r); })
#define OTHER(T, t, f, call) EACH(t_##f, for (int i = 0; i < ALL; i++) { T x = arg_##t(i), y = arg_##t((i * 7 + 3) % ALL), z = arg_##t((i * 11 + 5) % ALL), p = 0, q = 0; int n = 0; long long k = 0; (void)x, (void)y, (void)z, (void)n, (void)k, (void)p, (void)q; feclearexcept(FE_ALL_EXCEPT); call; add(&n, sizeof n); add(&k, sizeof k); out_##t(p); out_##t(q); })

#define ONES(X, T, t, s) X(T, t, acos##s) X(T, t, asin##s) X(T, t, atan##s) X(T, t, cos##s) X(T, t, sin##s) X(T, t, tan##s) X(T, t, acosh##s) X(T, t, asinh##s) X(T, t, atanh##s) X(T, t, cosh##s) X(T, t, sinh##s) X(T, t, tanh##s) \
    X(T, t, exp##s) X(T, t, exp2##s) X(T, t, exp10##s) X(T, t, expm1##s) X(T, t, log##s) X(T, t, log10##s) X(T, t, log1p##s) X(T, t, log2##s) X(T, t, logb##s) X(T, t, cbrt##s) X(T, t, fabs##s) X(T, t, sqrt##s) X(T, t, erf##s) X(T, t, erfc##s) X(T, t, tgamma##s) \
    X(T, t, ceil##s) X(T, t, floor##s) X(T, t, nearbyint##s) X(T, t, rint##s) X(T, t, round##s) X(T, t, roundeven##s) X(T, t, trunc##s) X(T, t, significand##s) X(T, t, j0##s) X(T, t, j1##s) X(T, t, y0##s) X(T, t, y1##s)
#define TWOS(X, T, t, s) X(T, t, atan2##s) X(T, t, hypot##s) X(T, t, pow##s) X(T, t, fmod##s) X(T, t, remainder##s) X(T, t, copysign##s) X(T, t, nextafter##s) X(T, t, fdim##s) X(T, t, fmax##s) X(T, t, fmin##s)
#define OTHERS(X, T, t, s) X(T, t, frexp##s, p = frexp##s(x, &n)) X(T, t, modf##s, p = modf##s(x, &q)) X(T, t, remquo##s, p = remquo##s(x, y, &n)) X(T, t, fma##s, p = fma##s(x, y, z)) X(T, t, sincos##s, sincos##s(x, &p, &q)) X(T, t, lgamma##s##_r, p = lgamma##s##_r(x, &n)) \
    X(T, t, ldexp##s, p = ldexp##s(x, i - 100)) X(T, t, scalbln##s, p = scalbln##s(x, 50 - i)) X(T, t, ilogb##s, n = ilogb##s(x)) X(T, t, jn##s, p = jn##s(i % 9, x)) X(T, t, yn##s, p = yn##s(i % 7, x)) X(T, t, nexttoward##s, p = nexttoward##s(x, (long double)y)) \
    X(T, t, llrint##s, k = fabsl(x) < 9e18L ? llrint##s(x) : 0) X(T, t, lround##s, k = fabsl(x) < 2e9L ? lround##s(x) : 0) X(T, t, llround##s, k = fabsl(x) < 9e18L ? llround##s(x) : 0)

ONES(ONE, float, f, f) TWOS(TWO, float, f, f) OTHERS(OTHER, float, f, f)
ONES(ONE, double, d, ) TWOS(TWO, double, d, ) OTHERS(OTHER, double, d, )
ONES(ONE, long double, l, l) TWOS(TWO, long double, l, l) OTHERS(OTHER, long double, l, l)

#define CALL(T, t, f, ...) t_##f();
int main(void) {
    ONES(CALL, float, f, f) TWOS(CALL, float, f, f) OTHERS(CALL, float, f, f)
    ONES(CALL, double, d, ) TWOS(CALL, double, d, ) OTHERS(CALL, double, d, )
    ONES(CALL, long double, l, l) TWOS(CALL, long double, l, l) OTHERS(CALL, long double, l, l)
    return 0;
}
