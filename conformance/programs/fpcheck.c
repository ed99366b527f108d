// cc fpcheck_float: -O1 -DREAL=float -DS=f
// cc fpcheck_double: -O1 -DREAL=double -DS=
// cc fpcheck_long: -O1 "-DREAL=long double" -DS=l
// cc fpcheck_double_o3: -O3 -DREAL=double -DS=
// cc32 fpcheck_float_387: -O1 -mfpmath=387 -DREAL=float -DS=f
// cc32 fpcheck_double_387: -O1 -mfpmath=387 -DREAL=double -DS=
// cc32 fpcheck_long: -O1 "-DREAL=long double" -DS=l
// cc32 fpcheck_float_sse: -O1 -msse2 -mfpmath=sse -DREAL=float -DS=f
// cc32 fpcheck_double_sse: -O1 -msse2 -mfpmath=sse -DREAL=double -DS=
// What a program can find out about floating-point arithmetic, in the manner of Kahan's Paranoia: radix and precision,
// guard digits, how each operation rounds (halves, sticky bits, directed modes), underflow and overflow and what lies at their
// thresholds, square roots, NaNs and infinities, comparisons, conversions, exceptions. Everything found is printed.
#include <fenv.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define GLUE(a, b) a##b
#define PASTE(a, b) GLUE(a, b)
#define F(name) PASTE(name, S)

typedef REAL real;
// Values that the compiler must take as they come.
static volatile real zero = 0, one = 1, two = 2, half = 0.5;
static real radix, ulp1; // the machine's radix, and the distance from 1 to the next larger number
static int digits;

static void show(const char *what, real x) { printf("%-24s %La\n", what, (long double)x); }
static const char *flags(void) {
    static char s[8];
    int f = fetestexcept(FE_ALL_EXCEPT);
    snprintf(s, sizeof s, "%s%s%s%s%s", f & FE_INVALID ? "v" : "", f & FE_DIVBYZERO ? "z" : "", f & FE_OVERFLOW ? "o" : "", f & FE_UNDERFLOW ? "u" : "", f & FE_INEXACT ? "i" : "");
    feclearexcept(FE_ALL_EXCEPT);
    return s;
}
static real next(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return F(ldexp)((real)(*seed >> 11), (int)(*seed >> 3 & 31) - 60);
}

// Malcolm: the radix, and how many digits of it there are.
static void precision(void) {
    volatile real w = 1, y;
    do { w = w + w; y = w + one; y = y - w; } while (y - one + F(fabs)(one) < two && F(fabs)(y - one) < half);
    volatile real d = 1;
    do { y = w + d; d = d + d; y = y - w; } while (y == zero);
    radix = y;
    w = 1; digits = 0;
    do { digits++; w = w * radix; y = w + one; y = y - w; } while (y == one);
    ulp1 = radix / w;
    printf("radix %d, %d digits\n", (int)radix, digits);
    show("one ulp of 1", ulp1);
    y = 4; y = y / 3; y = y - one; y = y * 3; y = y - one; show("3(4/3-1)-1", F(fabs)(y));
    y = 5; y = y / 6; y = y - half; y = y * 3; y = y - 1; show("3(5/6-.5)-1", y);
}

// With guard digits, what is subtracted last still counts.
static void guard(void) {
    volatile real above = one + ulp1, below = one - ulp1 / radix, x;
    x = above - below; show("(1+u)-(1-u/r)", x);
    x = one - below; show("1-(1-u/r)", x);
    x = above * below; show("(1+u)(1-u/r)", x);
    x = below * below; show("(1-u/r)^2", x);
    x = above * above; show("(1+u)^2", x);
    x = above / below; show("(1+u)/(1-u/r)", x);
    x = below / above; show("(1-u/r)/(1+u)", x);
    x = one / above; show("1/(1+u)", x);
    x = (radix - ulp1) / radix; show("(r-u)/r", x);
    int lost = 0; uint64_t s = 3;
    for (int i = 0; i < 2000; i++) {
        volatile real a = next(&s), b = a / radix, c = b * radix, d = a - b, e = d + b;
        lost += (c != a) + (e != a) * 1000;
    }
    printf("a/r*r and a-b+b lost %d\n", lost);
}

// Halfway cases and what only a sticky bit can know, in each rounding mode, of both signs.
static void rounding(void) {
    static const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    static const char *names[] = {"nearest", "down", "up", "zero"};
    for (int m = 0; m < 4; m++) {
        fesetround(modes[m]);
        printf("rounding to %s: FLT_ROUNDS %d, lrint", names[m], FLT_ROUNDS);
        for (int k = -5; k <= 5; k++) { volatile real x = k * half; printf(" %ld", F(lrint)(x)); }
        puts("");
        for (int sign = 1; sign >= -1; sign -= 2) {
            volatile real o = sign, u = sign * ulp1, h = u / two, t = h * ulp1, x;
            x = o + h; show("1+u/2", x);
            x = o + u; x = x + h; show("1+u+u/2", x);
            x = h + t; x = o + x; show("1+(u/2+tiny)", x);
            x = h - t * half; x = o + x; show("1+(u/2-tiny)", x);
            x = o - h / two; show("1-u/4", x);
            x = o - t; show("1-tiny", x);
            x = o + t; show("1+tiny", x);
            x = o / 3; show("1/3", x);
            x = o / 10; x = x * 3; show("0.3", x);
            x = (o + u) * (1 + 3 * ulp1); show("(1+u)(1+3u)", x);
            x = o - o; show("1-1", x);
            x = 7; x = o / x; x = x / 49; show("1/343", x);
        }
        feclearexcept(FE_ALL_EXCEPT);
        volatile real big = 16777217, r = sqrtl(2) * one; r = F(sqrt)(two); show("sqrt 2", r);
        r = F(sqrt)(big); show("sqrt 2^24+1", r);
        volatile float f = big / 3; volatile double d = (double)big / 3e10; printf("as float %a, as double %a, %s\n", f, d, flags());
        uint64_t s = 99; volatile real sum = 0; for (int i = 0; i < 5000; i++) { volatile real p = next(&s), q = next(&s); sum = sum * half + p * q; sum = sum - p / q; }
        show("a long sum", sum);
    }
    fesetround(FE_TONEAREST);
}

static void roots(void) {
    int bad = 0;
    for (int i = 1; i < 4000; i++) { volatile real x = i, q = x * x; if (F(sqrt)(q) != x) bad++; }
    printf("square roots of squares: %d wrong\n", bad);
    // Correctly rounded: x is nearer to the root than its neighbours are, by exact sums of parts.
    uint64_t s = 5; volatile real acc = 0;
    for (int i = 0; i < 3000; i++) { volatile real x = next(&s), r = F(sqrt)(x), e = F(fma)(r, -r, x); acc = acc + e / x; if (F(fabs)(e) > r * ulp1 * r) bad++; }
    printf("square roots: %d not rounded right\n", bad); show("their errors", acc);
    volatile real minus = -zero; show("sqrt(-0)", F(sqrt)(minus)); feclearexcept(FE_ALL_EXCEPT);
    volatile real r = F(sqrt)(-one); printf("sqrt(-1) %s %s\n", r != r ? "is no number" : "?", flags());
}

static void thresholds(void) {
    feclearexcept(FE_ALL_EXCEPT);
    volatile real x = 1, y = 1; int n = 0;
    do { y = x; x = x / two; n++; } while (x + x == y && x > 0);
    show("least positive", y); printf("after %d halvings, %s\n", n, flags());
    volatile real normal = 1, z; n = 0;
    do { z = normal; normal = normal / two; x = normal * (one + ulp1); x = x / normal; n++; } while (x == one + ulp1 && normal > 0);
    show("least with full precision", z); flags();
    x = z * (one - ulp1); printf("just below it: %La %s\n", (long double)x, flags());
    x = y / two; printf("half of the least: %La %s\n", (long double)x, flags());
    x = y * half * (one + ulp1); printf("a little more: %La %s\n", (long double)x, flags());
    volatile real a = z * (one + ulp1), b = z; x = a - b; printf("UFP: x-y %La for x != y, %s\n", (long double)x, flags());
    x = y * y; printf("tiny squared %La %s\n", (long double)x, flags());
    x = -y; x = x * y; printf("-tiny*tiny %d %s\n", !!signbit((double)x), flags());
    x = F(sqrt)(y); show("sqrt of the least", x); flags();
    volatile real big = 1, o; n = 0;
    do { o = big; big = big * two; n++; } while (big * half == o && n < 20000);
    x = o * (two - ulp1); show("largest", x); printf("after %d doublings, %s\n", n, flags());
    y = x + x * ulp1 / 4; printf("plus a quarter ulp: %La %s\n", (long double)y, flags());
    y = x + x * ulp1 / two; printf("plus half an ulp: %La %s\n", (long double)y, flags());
    y = x * two; printf("twice: %La %s\n", (long double)y, flags());
    y = -x; y = y * x; printf("-largest squared: %La %s\n", (long double)y, flags());
    y = x - big; y = one / y; printf("1/-infinity: %d %s\n", !!signbit((double)y), flags());
    fesetround(FE_TOWARDZERO); y = x * two; show("twice, toward zero", y); fesetround(FE_UPWARD); y = -x; y = y * two; show("-twice, up", y); fesetround(FE_TONEAREST);
    flags();
}

static void specials(void) {
    volatile real inf = one / zero, nan = inf - inf, v[] = {zero, -zero, one, -one, inf, -inf, nan, -nan, ulp1 * ulp1};
    enum { N = sizeof v / sizeof *v };
    flags();
    for (int i = 0; i < N; i++) for (int j = 0; j < N; j++) {
        volatile real a = v[i], b = v[j];
        printf("%d %d: %d%d%d%d%d%d", i, j, a == b, a != b, a < b, a <= b, a > b, a >= b);
        printf(" %s %d%d%d", flags(), !!isunordered(a, b), !!isless(a, b), !!islessgreater(a, b));
        volatile real r[] = {a + b, a - b, a * b, a / b, F(fmin)(a, b), F(fmax)(a, b), F(fmod)(a, b), F(copysign)(a, b)};
        for (int k = 0; k < 8; k++) {
            unsigned char raw[sizeof(real)]; real w = r[k]; memset(raw, 0, sizeof raw); memcpy(raw, &w, sizeof(real) > 10 ? 10 : sizeof(real) == 12 ? 10 : sizeof(real));
            int top = sizeof(real) >= 10 ? 9 : sizeof(real) - 1; printf(" %02x%02x%02x", raw[top], raw[top - 1], raw[0]);
        }
        printf(" %s\n", flags());
    }
}

static void conversions(void) {
    static const double v[] = {0.5, -0.5, 1.5, 2147483647.4, 2147483647.6, -2147483648.6, 4294967295.5, 9.2e18, 9.3e18, -9.3e18, 1e30, 65535.9, -32769, 127.7, 0x1p-70};
    for (unsigned i = 0; i < sizeof v / sizeof *v; i++) {
        volatile real x = v[i];
        feclearexcept(FE_ALL_EXCEPT);
        if (x > -2147483649.0 && x < 2147483648.0) { int k = (int)x; printf("%d ", k); }
        if (x > -9.22e18 && x < 9.22e18) { long long k = (long long)x; printf("%lld ", k); }
        if (x > -0.9 && x < 1.8e19) { unsigned long long k = (unsigned long long)x; printf("%llu ", k); }
        printf("%.0Lf %.0Lf %.0Lf %.0Lf %.0Lf %s\n", (long double)F(floor)(x), (long double)F(ceil)(x), (long double)F(trunc)(x), (long double)F(rint)(x), (long double)F(round)(x), flags());
    }
    static const long long k[] = {1, -1, INT_MAX, INT_MIN, LLONG_MAX, LLONG_MIN, 0x20000000000001, 16777217, -123456789012345678};
    for (unsigned i = 0; i < sizeof k / sizeof *k; i++) {
        volatile long long n = k[i]; feclearexcept(FE_ALL_EXCEPT);
        volatile real x = n, y = (unsigned long long)n, w = (int)n, u = (unsigned)n;
        printf("%La %La %La %La %s\n", (long double)x, (long double)y, (long double)w, (long double)u, flags());
    }
}

static void powers(void) {
    for (int b = 2; b < 12; b++) { volatile real p = 1; int exact = 0; for (int e = 1; e < 60; e++) { p = p * b; if (F(pow)((real)b, (real)e) == p) exact++; } printf("%d^n as by multiplication: %d of 59\n", b, exact); }
    int e; real m = F(frexp)(one / 3, &e); printf("%La %d %La %La %d\n", (long double)m, e, (long double)F(scalbn)(m, -3), (long double)F(nextafter)(one, two), F(ilogb)(one / 3));
}

int main(void) {
    precision(); guard(); rounding(); roots(); thresholds(); specials(); conversions(); powers();
    return 0;
}
