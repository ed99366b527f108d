// cc: -O1 -D_GNU_SOURCE
// Whether all that tells about the CPU says the same: CPUID, XGETBV, /proc/cpuinfo, the auxiliary vector, and what happens
// when an instruction is executed that CPUID has, or has not.
#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

static unsigned r[4];
static int bit(unsigned leaf, unsigned sub, int reg, int n) { __cpuid_count(leaf, sub, r[0], r[1], r[2], r[3]); return r[reg] >> n & 1; }

static const struct { const char *name; unsigned leaf, sub; int reg, bit; } features[] = {
    {"sse4_2", 1, 0, 2, 20}, {"popcnt", 1, 0, 2, 23}, {"cx16", 1, 0, 2, 13}, {"aes", 1, 0, 2, 25}, {"pclmulqdq", 1, 0, 2, 1}, {"fma", 1, 0, 2, 12}, {"movbe", 1, 0, 2, 22}, {"xsave", 1, 0, 2, 26}, {"avx", 1, 0, 2, 28}, {"f16c", 1, 0, 2, 29},
    {"bmi1", 7, 0, 1, 3}, {"avx2", 7, 0, 1, 5}, {"bmi2", 7, 0, 1, 8}, {"abm", 0x80000001, 0, 2, 5}, {"lahf_lm", 0x80000001, 0, 2, 0}, {"xsaveopt", 13, 1, 0, 0}, {"xsavec", 13, 1, 0, 1}, {"rdtscp", 0x80000001, 0, 3, 27},
};

static sigjmp_buf back;
static void ill(int sig) { siglongjmp(back, sig); }
#define TRY(name, has, code) do { int s = sigsetjmp(back, 1); if (!s) { __asm__ volatile(code ::: "xmm0", "eax", "memory", "cc"); } \
    printf("%s: %s\n", name, s == (has ? 0 : SIGILL) ? "as CPUID says" : "NOT as CPUID says"); } while (0)

int main(void) {
    static char text[1 << 16], words[1 << 16];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(text, sizeof text, f)) if (!strncmp(text, "flags", 5)) { snprintf(words, sizeof words, " %s", strchr(text, ':') + 2); break; }
    for (char *p = words; *p; p++) if (*p == '\n') *p = ' ';
    for (unsigned i = 0; i < sizeof features / sizeof *features; i++) {
        char word[32]; snprintf(word, sizeof word, " %s ", features[i].name);
        int cpuid = bit(features[i].leaf, features[i].sub, features[i].reg, features[i].bit), proc = strstr(words, word) != NULL;
        if (cpuid != proc) printf("%s: CPUID %d, /proc/cpuinfo %d\n", features[i].name, cpuid, proc);
    }
    int avx2 = bit(7, 0, 1, 5), osxsave = bit(1, 0, 2, 27);
    if (avx2) { unsigned lo = 0, hi; if (osxsave) __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0)); printf("AVX state: %s\n", (lo & 6) == 6 ? "enabled" : "NOT enabled"); }
    else puts("AVX state: enabled");
    // The kernel's words, of which the loader makes its own for getauxval. It may know more of hyper-threads.
    unsigned long aux[2], hwcap = 0;
    f = fopen("/proc/self/auxv", "r");
    while (f && fread(aux, sizeof aux, 1, f) == 1) if (aux[0] == AT_HWCAP) hwcap = aux[1];
    bit(1, 0, 3, 0);
    printf("HWCAP: %s\n", ((hwcap ^ r[3]) & ~(1u << 28)) == 0 ? "as CPUID" : "NOT as CPUID");
    printf("platform %s\n", (const char *)getauxval(AT_PLATFORM));
    signal(SIGILL, ill);
    TRY("AVX", bit(1, 0, 2, 28), "vpxor %%xmm0, %%xmm0, %%xmm0");
    TRY("AVX2", avx2, "vpaddd %%ymm0, %%ymm0, %%ymm0");
    TRY("FMA", bit(1, 0, 2, 12), "vfmadd231sd %%xmm0, %%xmm0, %%xmm0");
    TRY("F16C", bit(1, 0, 2, 29), "vcvtph2ps %%xmm0, %%xmm0");
    TRY("BMI1", bit(7, 0, 1, 3), "andn %%eax, %%eax, %%eax");
    TRY("BMI2", bit(7, 0, 1, 8), "rorx $3, %%eax, %%eax");
    TRY("MOVBE", bit(1, 0, 2, 22), "movbe (%%rsp), %%eax");
    TRY("SSE4.2", bit(1, 0, 2, 20), "pcmpgtq %%xmm0, %%xmm0");
    return 0;
}
