// cc: -O2 -D_GNU_SOURCE
// libm, long double, printf of floating point, integer division, vector loops, 128-bit integers.
#include <complex.h>
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SIZEOF_INT128__
typedef unsigned __int128 wide;
#else
typedef unsigned long long wide;
#endif
int main(void) {
    double x = 0.1; for (int i = 0; i < 200; i++) { x = x * 1.37 + 0.01; if (x > 50) x -= 49.9; printf("%.17g %.17g %.17g %.17g %.17g %.17g\n", sin(x), exp(x / 10), log(x), pow(x, 1.3), tgamma(x / 10 + 1), atan2(x, 3)); }
    float f = 0.1f; for (int i = 0; i < 100; i++) { f = f * 1.7f; if (f > 30) f -= 29.5f; printf("%.9g %.9g %.9g %.9g\n", sinf(f), expf(f), logf(f), cbrtf(f)); }
    long double l = 0.1L; for (int i = 0; i < 60; i++) { l = l * 1.37L + 0.01L; if (l > 20) l -= 19.9L; printf("%.21Lg %.21Lg %La\n", sqrtl(l), l / 3, l); } printf("%.21Lg %.21Lg\n", strtold("1.18973149535723176502e+4932", 0), strtold("0x1.8p-16445", 0)); 
    int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO}; for (int m = 0; m < 4; m++) { fesetround(modes[m]); volatile double a = 1, b = 3; volatile float c = 1, d = 3; volatile long double e = 1, g = 3; printf("%a %a %La %ld %ld %a %a\n", a / b, c / d, e / g, lrint(2.5), lrint(-3.7), rint(0.5), nearbyint(-1.5)); } fesetround(FE_TONEAREST);
    feclearexcept(FE_ALL_EXCEPT); volatile double z = 0, one = 1; printf("%g %d\n", one / z, fetestexcept(FE_ALL_EXCEPT)); feclearexcept(FE_ALL_EXCEPT); printf("%g %d\n", z / z, fetestexcept(FE_ALL_EXCEPT)); feclearexcept(FE_ALL_EXCEPT); printf("%g %d\n", one / 3, fetestexcept(FE_ALL_EXCEPT)); volatile double big = 1e308; feclearexcept(FE_ALL_EXCEPT); printf("%g %d\n", big * 10, fetestexcept(FE_ALL_EXCEPT)); volatile long double lz = 0; feclearexcept(FE_ALL_EXCEPT); printf("%Lg %d\n", 1 / lz, fetestexcept(FE_ALL_EXCEPT));
    double complex c = 1 + 2 * I; for (int i = 0; i < 20; i++) c = csqrt(c * c + 1) * cexp(I * 0.3); printf("%.17g %.17g\n", creal(c), cimag(c));
    static float v[4099], w[4099]; uint32_t s = 1; for (int i = 0; i < 4099; i++) { s = s * 1664525 + 1013904223; v[i] = (float)(s >> 8) / 65536; w[i] = (float)(int)s / 1e6f; } float dot = 0, mx = 0; for (int i = 0; i < 4099; i++) { dot += v[i] * w[i]; if (v[i] > mx) mx = v[i]; } for (int i = 0; i < 4099; i++) w[i] = v[i] * 2 + w[i]; printf("%.9g %.9g %.9g\n", dot, mx, w[4098]);
    wide u = 1; for (int i = 1; i < 30; i++) u = u * (unsigned)(i + 1000003) + 7; printf("%llx%016llx %llu\n", (unsigned long long)(u >> (sizeof u * 8 - 64)), (unsigned long long)u, (unsigned long long)(u % 1000000007)); int64_t q = INT64_MAX / 3; printf("%lld %lld %lld\n", (long long)(q / -7), (long long)(q % -7), (long long)(-q % 1000)); uint8_t bytes[1000]; for (int i = 0; i < 1000; i++) bytes[i] = (uint8_t)(i * 37); unsigned h = 0; for (int i = 0; i < 1000; i++) h = (h << 5 | h >> 27) ^ bytes[i]; printf("%u\n", h); printf("%.3f %.10e %g %a %d %s\n", 1e15 / 7, 1e-300 / 7, 1e100, 0.1, (int)-3.9, "x"); char num[] = "1e23 0.1 3.14159265358979 1e-310 nan inf"; for (char *p = strtok(num, " "); p; p = strtok(NULL, " ")) printf("%.17g ", strtod(p, NULL)); puts("");
    return 0;
}
