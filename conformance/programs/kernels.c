// cc kernels_o2: -O2
// cc kernels_o3: -O3 -fopenmp-simd
// cc kernels_avx2: -O3 -mavx2 -mfma -mbmi -mbmi2 -mlzcnt -mmovbe -mf16c
// cc kernels_haswell_o2: -O2 -march=haswell
// cc kernels_few: -O2 -ffixed-rbx -ffixed-rbp -ffixed-r8 -ffixed-r12 -ffixed-r13 -ffixed-r14
// cc kernels_few_o3: -O3 -funroll-loops -ffixed-rbx -ffixed-rbp -ffixed-r8 -ffixed-r12 -ffixed-r13 -ffixed-r14
// cc32 kernels_387: -O2 -mfpmath=387
// cc32 kernels_387_o3: -O3 -mfpmath=387
// cc32 kernels_sse: -O3 -msse2 -mfpmath=sse
// cc32 kernels_avx2: -O3 -mavx2 -mfma -mbmi2 -mfpmath=sse
// Numeric kernels as scientific programs have them; all results are printed to the last bit.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 1;
static double rnd(void) { seed = seed * 6364136223846793005u + 1442695040888963407u; return (double)(seed >> 12) / 4503599627370496.0 - 0.5; }
static uint64_t hash(const void *p, size_t n) { const unsigned char *b = p; uint64_t h = 14695981039346656037u; while (n--) h = (h ^ *b++) * 1099511628211u; return h; }
static void say(const char *what, const void *p, size_t n, double x) { printf("%-12s %016llx %.17g\n", what, (unsigned long long)hash(p, n), x); }

enum { N = 64, FFT = 4096, BODIES = 24, SORT = 20000, V = 4099 };

static void matmul(void) {
    static double a[N][N], b[N][N], c[N][N]; static float d[N][N], e[N][N], f[N][N];
    for (int i = 0; i < N; i++) for (int j = 0; j < N; j++) { a[i][j] = rnd(); b[i][j] = rnd(); d[i][j] = (float)a[i][j]; e[i][j] = (float)b[i][j]; }
    for (int i = 0; i < N; i++) for (int k = 0; k < N; k++) for (int j = 0; j < N; j++) { c[i][j] += a[i][k] * b[k][j]; f[i][j] += d[i][k] * e[k][j]; }
    say("matmul", c, sizeof c, c[5][7]); say("matmul float", f, sizeof f, f[5][7]);
}
static void lu(void) {
    static double a[N][N]; double det = 1; for (int i = 0; i < N; i++) for (int j = 0; j < N; j++) a[i][j] = rnd();
    for (int k = 0; k < N; k++) {
        int p = k; for (int i = k + 1; i < N; i++) if (fabs(a[i][k]) > fabs(a[p][k])) p = i;
        for (int j = 0; j < N; j++) { double t = a[k][j]; a[k][j] = a[p][j]; a[p][j] = t; }
        det *= p == k ? a[k][k] : -a[k][k];
        for (int i = k + 1; i < N; i++) { double m = a[i][k] /= a[k][k]; for (int j = k + 1; j < N; j++) a[i][j] -= m * a[k][j]; }
    }
    say("LU", a, sizeof a, det);
}
static void fft(void) {
    static double re[FFT], im[FFT]; for (int i = 0; i < FFT; i++) { re[i] = rnd(); im[i] = rnd(); }
    for (int i = 1, j = 0; i < FFT; i++) { int bit = FFT >> 1; for (; j & bit; bit >>= 1) j ^= bit; j ^= bit; if (i < j) { double t = re[i]; re[i] = re[j]; re[j] = t; t = im[i]; im[i] = im[j]; im[j] = t; } }
    for (int len = 2; len <= FFT; len <<= 1) {
        static double wr[FFT / 2], wi[FFT / 2]; for (int k = 0; k < len / 2; k++) { wr[k] = cos(2 * M_PI * k / len); wi[k] = sin(2 * M_PI * k / len); }
        for (int i = 0; i < FFT; i += len) for (int k = 0; k < len / 2; k++) {
            double *ur = &re[i + k], *ui = &im[i + k], xr = ur[len / 2], xi = ui[len / 2], vr = xr * wr[k] - xi * wi[k], vi = xr * wi[k] + xi * wr[k];
            ur[len / 2] = *ur - vr; ui[len / 2] = *ui - vi; *ur += vr; *ui += vi;
        }
    }
    say("FFT", re, sizeof re, im[17]);
}
static void complex_products(void) {
    static float _Complex a[1024], b[1024], c[1024]; static double _Complex s; for (int i = 0; i < 1024; i++) { a[i] = (float)rnd() + (float)rnd() * 1.0if; b[i] = (float)rnd() + (float)rnd() * 1.0if; }
    for (int r = 0; r < 8; r++) for (int i = 0; i < 1024; i++) { c[i] = a[i] * b[i] + c[i]; s = s * (double _Complex)a[i] + b[i]; }
    say("complex", c, sizeof c, __real__ s);
}
static void nbody(void) {
    static double x[BODIES][3], v[BODIES][3], m[BODIES]; double energy = 0;
    for (int i = 0; i < BODIES; i++) { m[i] = 1 + rnd(); for (int k = 0; k < 3; k++) { x[i][k] = 10 * rnd(); v[i][k] = rnd(); } }
    for (int t = 0; t < 200; t++) {
        for (int i = 0; i < BODIES; i++) for (int j = 0; j < BODIES; j++) if (i != j) {
            double d[3], q = 1e-3; for (int k = 0; k < 3; k++) { d[k] = x[j][k] - x[i][k]; q += d[k] * d[k]; }
            double f = 0.001 * m[j] / (q * sqrt(q)); for (int k = 0; k < 3; k++) v[i][k] += f * d[k];
        }
        for (int i = 0; i < BODIES; i++) for (int k = 0; k < 3; k++) x[i][k] += 0.001 * v[i][k];
    }
    for (int i = 0; i < BODIES; i++) energy += m[i] * (v[i][0] * v[i][0] + v[i][1] * v[i][1] + v[i][2] * v[i][2]) / 2;
    say("n bodies", x, sizeof x, energy);
}
static void runge_kutta(void) {
    double y[3] = {1, 1, 1}, h = 0.005;
#define LORENZ(y, d) do { d[0] = 10 * (y[1] - y[0]); d[1] = y[0] * (28 - y[2]) - y[1]; d[2] = y[0] * y[1] - 8.0 / 3 * y[2]; } while (0)
    for (int t = 0; t < 20000; t++) {
        double k1[3], k2[3], k3[3], k4[3], z[3];
        LORENZ(y, k1); for (int k = 0; k < 3; k++) z[k] = y[k] + h / 2 * k1[k];
        LORENZ(z, k2); for (int k = 0; k < 3; k++) z[k] = y[k] + h / 2 * k2[k];
        LORENZ(z, k3); for (int k = 0; k < 3; k++) z[k] = y[k] + h * k3[k];
        LORENZ(z, k4); for (int k = 0; k < 3; k++) y[k] += h / 6 * (k1[k] + 2 * k2[k] + 2 * k3[k] + k4[k]);
    }
    say("Runge-Kutta", y, sizeof y, y[2]);
}
static void polynomial(void) {
    static float y[V]; static double z[V]; double c[9]; for (int k = 0; k < 9; k++) c[k] = rnd();
    for (int i = 0; i < V; i++) { double x = i / 1000.0 - 2, p = 0; float q = 0; for (int k = 0; k < 9; k++) { p = p * x + c[k]; q = q * (float)x - (float)c[k]; } z[i] = p; y[i] = q; }
    long double l = 0; for (int i = 0; i < V; i++) l = l / 3 + z[i] * (long double)y[i];
    say("polynomial", z, sizeof z, (double)l); say("in float", y, sizeof y, y[99]);
}
static void vectors(void) {
    static float a[V], b[V], c[V]; static double d[V]; float mx = -1, dot = 0; double sum = 0; int at = 0;
    for (int i = 0; i < V; i++) { a[i] = (float)rnd(); b[i] = (float)(rnd() * 1e6); }
    for (int i = 0; i < V; i++) { c[i] = a[i] * b[i] + c[i]; d[i] = floor(b[i]) / (1 + fabs((double)a[i])); c[i] = b[i] > 0 ? c[i] : -a[i]; }
    for (int i = 0; i < V; i++) { dot += a[i] * b[i]; sum += sqrt(fabs(d[i])); if (c[i] > mx) { mx = c[i]; at = i; } d[i] = rint(d[i] * 3) + trunc(d[i]) - ceil(a[i]); }
    say("vectors", d, sizeof d, sum + dot + mx + at); say("and floats", c, sizeof c, c[77]);
}
static int order(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }
static void sort(double *v, int n) { while (n > 1) { double p = v[n / 2]; int i = 0, j = n - 1; for (;;) { while (v[i] < p) i++; while (v[j] > p) j--; if (i >= j) break; double t = v[i]; v[i++] = v[j]; v[j--] = t; } sort(v, i); v += i; n -= i; } }
static void sorting(void) {
    static double a[SORT], b[SORT]; for (int i = 0; i < SORT; i++) a[i] = b[i] = i % 7 ? rnd() : -0.25; sort(a, SORT); qsort(b, SORT, sizeof *b, order);
    say("quicksort", a, sizeof a, a[SORT / 3]); say("qsort", b, sizeof b, memcmp(a, b, sizeof a));
}
static void integers(void) {
    static uint32_t a[V], s[V]; static uint64_t q[V]; static uint16_t w[V]; static int8_t c[V]; static uint8_t u[V]; int64_t total = 0;
    for (int i = 0; i < V; i++) { a[i] = (uint32_t)(rnd() * 4e9); s[i] = i * 2654435761u; w[i] = (uint16_t)(i * 40503); c[i] = (int8_t)(i * 37); u[i] = (uint8_t)(i * 91); q[i] = (uint64_t)s[i] << 29 ^ a[i]; }
    for (int r = 0; r < 16; r++) for (int i = 0; i < V; i++) {
        uint32_t k = a[i] * 0xcc9e2d51u; k = k << 15 | k >> 17; s[i] ^= k * 0x1b873593u; s[i] = (s[i] << 13 | s[i] >> 19) * 5 + 0xe6546b64u;
        a[i] = (a[i] >> (s[i] & 31)) + (s[i] << (a[i] & 31)); q[i] = (q[i] * 0x9e3779b97f4a7c15u) ^ q[i] >> (s[i] & 63);
        w[i] = (uint16_t)((w[i] * (uint32_t)u[i]) >> 7); c[i] = (int8_t)(c[i] * 3 > 100 ? 100 : c[i] * 3 < -100 ? -100 : c[i] * 3); u[i] = (uint8_t)((u[i] + (a[i] & 255) + 1) >> 1);
    }
    for (int i = 0; i < V; i++) { total += (int64_t)c[i] * (int16_t)w[i] + abs(u[i] - (c[i] & 255)) + __builtin_popcountll(q[i]) * __builtin_clzll(q[i] | 1) + __builtin_ctz(s[i] | 1u << 31) + __builtin_bswap32(a[i]) % 1000; total = total * 3 ^ (total & (total - 1)) ^ (int64_t)(q[i] & ~(uint64_t)total); }
    say("integers", a, sizeof a, (double)total); say("64 bits", q, sizeof q, w[9] + c[8]);
}
static void halves(void) {
    static float a[512], b[512]; for (int i = 0; i < 512; i++) a[i] = (float)(rnd() * (i % 3 ? 9 : 1e-6) * (i % 50 ? 1 : 1e6));
#ifdef __F16C__
    for (int i = 0; i < 512; i++) { _Float16 h = (_Float16)a[i]; b[i] = (float)h * 1.25f; }
#else
    // What the instruction does, by hand.
    for (int i = 0; i < 512; i++) { uint32_t u; memcpy(&u, &a[i], 4); int e = (int)(u >> 23 & 255) - 127; float x = fabsf(a[i]); if (x >= 65520) x = INFINITY; else { float unit = ldexpf(1, (e < -14 ? -14 : e) - 10); x = rintf(x / unit) * unit; } b[i] = copysignf(x, a[i]) * 1.25f; }
#endif
    say("half floats", b, sizeof b, b[3]);
}
int main(void) { matmul(); lu(); fft(); complex_products(); nbody(); runge_kutta(); polynomial(); vectors(); sorting(); integers(); halves(); return 0; }
