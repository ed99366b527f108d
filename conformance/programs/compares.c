// cc: -O1
// The exception flags of comparisons and conversions, with their result used at once, later, in another function, or never.
#include <stdint.h>
#include <stdio.h>
#include <string.h>
static unsigned csr(void) { unsigned m; __asm__ volatile("stmxcsr %0" : "=m"(m)); return m & 0x3f; }
static void clear(void) { unsigned m = 0x1f80; __asm__ volatile("ldmxcsr %0" ::"m"(m)); }
static double bits(uint64_t b) { double d; memcpy(&d, &b, 8); return d; }
static float bits32(uint32_t b) { float f; memcpy(&f, &b, 4); return f; }
// Flags that leave the block: the branch is behind a jump.
#define LATER(ins, a, b) ({ unsigned char z; __asm__ volatile(ins " %2, %1; jmp 1f; 1: setp %0" : "=r"(z) : "x"(a), "x"(b)); z; })
#define DEAD(ins, a, b) __asm__ volatile(ins " %1, %0" ::"x"(a), "x"(b))
#define DEAD_AT_END(ins, a, b) __asm__ volatile(ins " %1, %0; jmp 1f; 1: xor %%eax, %%eax" ::"x"(a), "x"(b) : "eax", "cc")
#define OVERWRITTEN(ins, a, b) __asm__ volatile(ins " %1, %0; xor %%eax, %%eax" ::"x"(a), "x"(b) : "eax", "cc")
#define NOW(ins, cc, a, b) ({ unsigned char z; __asm__ volatile(ins " %2, %1; set" cc " %0" : "=r"(z) : "x"(a), "x"(b)); z; })
#define ALL(ins, a, b) do { \
    printf(ins); clear(); DEAD(ins, a, b); printf(" %x", csr()); clear(); DEAD_AT_END(ins, a, b); printf(" %x", csr()); clear(); OVERWRITTEN(ins, a, b); printf(" %x", csr()); \
    clear(); int z = LATER(ins, a, b); printf(" %x/%d", csr(), z); clear(); z = NOW(ins, "a", a, b); printf(" %x/%d", csr(), z); clear(); z = NOW(ins, "p", a, b); printf(" %x/%d", csr(), z); \
    clear(); z = NOW(ins, "e", a, b); printf(" %x/%d", csr(), z); clear(); z = NOW(ins, "o", a, b); printf(" %x/%d\n", csr(), z); } while (0)
int main(void) {
    const uint64_t d[] = {0, 1, 0x3ff0000000000000, 0x7ff0000000000000, 0x7ff4000000000000, 0x7ff8000000000000, 0xfff8000000000001, 0x8000000000000000};
    const uint32_t f[] = {0, 1, 0x3f800000, 0x7f800000, 0x7fa00000, 0x7fc00000, 0xffc00001, 0x80000000};
    for (int i = 0; i < 8; i++) for (int k = 0; k < 8; k++) {
        double a = bits(d[i]), b = bits(d[k]); float x = bits32(f[i]), y = bits32(f[k]); printf("%d %d\n", i, k);
        ALL("ucomisd", a, b); ALL("comisd", a, b); ALL("ucomiss", x, y); ALL("comiss", x, y);
    }
    return 0;
}
