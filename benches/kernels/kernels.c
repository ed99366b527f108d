// cc: -O2 -pthread -fno-strict-aliasing -fno-math-errno
// Kernels of the kernel bench: `kernels NAME` runs one for some tenths of a second and prints what it computed.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
#define NOINLINE __attribute__((noinline, noclone))

static u64 seed = 88172645463325252ull;
static u64 rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static u64 empty(void) { return 0; }

static u64 sieve(void) {
    enum { N = 1 << 18 };
    static u8 composite[N];
    u64 n = 0;
    for (int round = 0; round < 400; round++) {
        memset(composite, 0, N);
        for (u32 i = 2; i * i < N; i++)
            if (!composite[i])
                for (u32 j = i * i; j < N; j += i) composite[j] = 1;
        n += composite[N - 1 - round];
    }
    for (int i = 2; i < N; i++) n += !composite[i];
    return n;
}

static u64 dmatmul(void) {
    enum { N = 160 };
    static double a[N][N], b[N][N], c[N][N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) a[i][j] = rnd() % 100, b[i][j] = rnd() % 100;
    for (int round = 0; round < 90; round++)
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                double s = 0;
                for (int k = 0; k < N; k++) s += a[i][k] * b[k][j];
                c[i][j] += s;
            }
    return c[17][31];
}

static int compare(const void *x, const void *y) {
    u32 a = *(const u32 *)x, b = *(const u32 *)y;
    return (a > b) - (a < b);
}
static u64 sort_library(void) {
    enum { N = 100000 };
    static u32 v[N];
    u64 n = 0;
    for (int round = 0; round < 24; round++) {
        for (int i = 0; i < N; i++) v[i] = rnd();
        qsort(v, N, sizeof *v, compare);
        n += v[round];
    }
    return n;
}

static void quick(u32 *v, long lo, long hi) {
    while (lo < hi) {
        u32 p = v[(lo + hi) / 2];
        long i = lo, j = hi;
        while (i <= j) {
            while (v[i] < p) i++;
            while (v[j] > p) j--;
            if (i <= j) {
                u32 t = v[i];
                v[i++] = v[j];
                v[j--] = t;
            }
        }
        if (j - lo < hi - i) {
            quick(v, lo, j);
            lo = i;
        } else {
            quick(v, i, hi);
            hi = j;
        }
    }
}
static u64 sort(void) {
    enum { N = 100000 };
    static u32 v[N];
    u64 n = 0;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < N; i++) v[i] = rnd();
        quick(v, 0, N - 1);
        n += v[round];
    }
    return n;
}

static NOINLINE u64 fibonacci(u64 n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
static u64 fib(void) { return fibonacci(41); }

static u64 crc32(void) {
    static u32 table[256];
    static u8 data[1 << 16];
    for (u32 i = 0; i < 256; i++) {
        u32 c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ c >> 1 : c >> 1;
        table[i] = c;
    }
    for (u32 i = 0; i < sizeof data; i++) data[i] = rnd();
    u32 c = ~0u;
    for (int round = 0; round < 2000; round++)
        for (u32 i = 0; i < sizeof data; i++) c = table[(c ^ data[i]) & 255] ^ c >> 8;
    return c;
}

struct node {
    struct node *next;
    u64 value;
};
static u64 chase(void) {
    enum { N = 1 << 12 };
    static struct node nodes[N];
    static u32 order[N];
    for (u32 i = 0; i < N; i++) order[i] = i, nodes[i].value = rnd() & 255;
    for (u32 i = N - 1; i > 0; i--) {
        u32 j = rnd() % i, t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (u32 i = 0; i < N; i++) nodes[order[i]].next = &nodes[order[(i + 1) % N]];
    u64 n = 0;
    struct node *p = nodes;
    for (u32 i = 0; i < 80000000; i++) n += p->value, p = p->next;
    return n;
}

static char text[1 << 16];
static void make_text(void) {
    for (u32 i = 0; i < sizeof text; i++) text[i] = "etaoin shrdlu cmfwyp\nvbgkqjxz"[rnd() % 29];
    text[sizeof text - 1] = 0;
}
static u64 strscan(void) {
    make_text();
    u64 lines = 0, words = 0;
    for (int round = 0; round < 1800; round++) {
        int in = 0;
        for (const char *p = text; *p; p++) {
            lines += *p == '\n';
            if (*p == ' ' || *p == '\n') in = 0;
            else if (!in) in = 1, words++;
        }
    }
    return lines * 1000003 + words;
}

static u64 strings(void) {
    make_text();
    u64 n = 0;
    char copy[256];
    for (u32 i = 0; i < 14000000; i++) {
        char *p = text + i % 60000;
        u32 len = 5 + i % 60;
        memcpy(copy, p, len);
        copy[len] = 0;
        n += strlen(copy);
        n += memchr(copy, ' ', len) != 0;
        n += strcmp(copy, p) < 0;
    }
    return n;
}

static u64 copies(void) {
    static u8 a[1 << 20], b[1 << 20];
    for (u32 i = 0; i < sizeof a; i++) a[i] = rnd();
    for (int round = 0; round < 6000; round++) memcpy(b, a, sizeof a - round), a[round] += b[round + 1];
    for (int round = 0; round < 6000; round++) {
        u8 *d = b, *s = a;
        size_t n = 1 << 18;
        __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
    }
    return b[777] + b[6001];
}

static u64 state(void) {
    make_text();
    u64 numbers = 0, names = 0, other = 0;
    for (int round = 0; round < 1000; round++) {
        int s = 0;
        for (u32 i = 0; i < sizeof text; i++) {
            u8 c = text[i];
            switch (s) {
            case 0:
                if (c >= 'a' && c <= 'h') s = 1;
                else if (c >= 'i' && c <= 'p') s = 2;
                else if (c == '\n') s = 3;
                break;
            case 1:
                if (c == ' ') s = 0, names++;
                else if (c > 's') s = 4;
                break;
            case 2:
                if (c < 'i') s = 0, numbers++;
                break;
            case 3:
                s = c == 'e' ? 1 : 0;
                break;
            default:
                if (c < 'm') s = 2, other++;
            }
        }
    }
    return numbers * 3 + names * 5 + other * 7;
}

static u64 nbody(void) {
    enum { N = 5 };
    static double p[N][3], v[N][3], m[N];
    for (int i = 0; i < N; i++) {
        m[i] = 1.0 / (1 + i);
        for (int k = 0; k < 3; k++) p[i][k] = (double)(rnd() % 1000) / 100, v[i][k] = (double)(rnd() % 1000) / 1000;
    }
    for (int step = 0; step < 3500000; step++) {
        for (int i = 0; i < N; i++)
            for (int j = i + 1; j < N; j++) {
                double d[3], r = 0.01;
                for (int k = 0; k < 3; k++) d[k] = p[i][k] - p[j][k], r += d[k] * d[k];
                double f = 0.0001 / (r * __builtin_sqrt(r));
                for (int k = 0; k < 3; k++) v[i][k] -= d[k] * m[j] * f, v[j][k] += d[k] * m[i] * f;
            }
        for (int i = 0; i < N; i++)
            for (int k = 0; k < 3; k++) p[i][k] += 0.0001 * v[i][k];
    }
    return (u64)(int64_t)(p[2][1] * 1e6);
}

static u64 mandelbrot(void) {
    u64 n = 0;
    for (int y = 0; y < 500; y++)
        for (int x = 0; x < 500; x++) {
            double cr = x / 250.0 - 1.5, ci = y / 250.0 - 1, zr = 0, zi = 0;
            int i = 0;
            for (; i < 500 && zr * zr + zi * zi < 4; i++) {
                double t = zr * zr - zi * zi + cr;
                zi = 2 * zr * zi + ci;
                zr = t;
            }
            n += i;
        }
    return n;
}

static NOINLINE void saxpy(float *restrict y, const float *restrict x, float a, int n) {
    for (int i = 0; i < n; i++) y[i] += a * x[i];
}
static u64 packed(void) {
    enum { N = 1 << 13 };
    static float x[N], y[N];
    for (int i = 0; i < N; i++) x[i] = rnd() % 100;
    for (int round = 0; round < 160000; round++) saxpy(y, x, 0.001f * (round & 7), N);
    return y[99];
}
static u64 viterbi(void) {
    enum { N = 4096 };
    static int16_t a[N], b[N], c[N];
    for (int i = 0; i < N; i++) a[i] = rnd() % 100, b[i] = rnd() % 100;
    u64 n = 0;
    for (int round = 0; round < 300000; round++) {
        for (int i = 0; i < N; i++) {
            int16_t x = a[i] + 3, y = b[i];
            c[i] = (x > y ? x : y) - (round & 3);
        }
        n += c[round % N];
    }
    return n;
}

static long double x87_step(long double x) { return x * 1.0000001L + 0.5L / (x + 1); }
static u64 x87(void) {
    long double s = 1;
    for (int i = 0; i < 16000000; i++) s = x87_step(s) - (i & 1);
    return (u64)(s * 1000);
}

#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))
static NOINLINE void sha256_block(u32 *h, const u8 *p) {
    static u32 k[64];
    if (!k[0])
        for (int i = 0; i < 64; i++) k[i] = rnd();
    u32 w[64];
    for (int i = 0; i < 16; i++) w[i] = __builtin_bswap32(*(const u32 *)(p + 4 * i));
    for (int i = 16; i < 64; i++) {
        u32 a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (ROR(a, 7) ^ ROR(a, 18) ^ a >> 3) + (ROR(b, 17) ^ ROR(b, 19) ^ b >> 10);
    }
    u32 s[8];
    memcpy(s, h, 32);
    for (int i = 0; i < 64; i++) {
        u32 t = s[7] + (ROR(s[4], 6) ^ ROR(s[4], 11) ^ ROR(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
        u32 u = (ROR(s[0], 2) ^ ROR(s[0], 13) ^ ROR(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        s[7] = s[6], s[6] = s[5], s[5] = s[4], s[4] = s[3] + t;
        s[3] = s[2], s[2] = s[1], s[1] = s[0], s[0] = t + u;
    }
    for (int i = 0; i < 8; i++) h[i] += s[i];
}
static u64 sha256(void) {
    make_text();
    u32 h[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (u32 i = 0; i < 2000000; i++) sha256_block(h, (u8 *)text + i % 1000 * 64);
    return h[0] ^ h[3];
}

static NOINLINE u64 leaf(u64 a, u64 b) { return a * 3 + (b ^ a >> 3); }
static NOINLINE u64 middle(u64 a, u64 b) { return leaf(a, b) + leaf(b, a); }
static u64 calls(void) {
    u64 n = 1;
    for (u32 i = 0; i < 60000000; i++) n = middle(n, i);
    return n;
}

static NOINLINE u64 op_add(u64 a, u64 b) { return a + b; }
static NOINLINE u64 op_xor(u64 a, u64 b) { return a ^ b; }
static NOINLINE u64 op_mul(u64 a, u64 b) { return a * (b | 1); }
static NOINLINE u64 op_rot(u64 a, u64 b) { return a << 7 | a >> 57 | b; }
static u64 (*volatile const ops[])(u64, u64) = {op_add, op_xor, op_mul, op_rot};
static u64 indirect_same(void) {
    u64 n = 1;
    for (u32 i = 0; i < 150000000; i++) n = ops[2](n, i);
    return n;
}
static u64 indirect(void) {
    u64 n = 1;
    for (u32 i = 0; i < 100000000; i++) n = ops[i & 3](n, i);
    return n;
}

// One program for both interpreters: a loop of 12 byte codes.
enum { PUSH, ADD, SUB, LOAD, STORE, JNZ, MULI, XORI, DUP, DROP, SWAP, HALT };
static const u8 program[] = {LOAD, 1, PUSH, 3, ADD,  MULI, 5, XORI, 9, DUP, STORE, 1, DROP,
                             LOAD, 0, PUSH, 1, SUB, DUP,  STORE, 0, JNZ, 0, HALT};
static NOINLINE u64 run_switch(u64 count) {
    u64 stack[16], vars[4] = {count, 1}, *sp = stack, t;
    const u8 *pc = program;
    for (;;) switch (*pc++) {
        case PUSH: *sp++ = *pc++; break;
        case ADD: sp--, sp[-1] += *sp; break;
        case SUB: sp--, sp[-1] -= *sp; break;
        case LOAD: *sp++ = vars[*pc++]; break;
        case STORE: vars[*pc++] = *--sp; break;
        case JNZ: t = *--sp; pc = t ? program + *pc : pc + 1; break;
        case MULI: sp[-1] *= *pc++; break;
        case XORI: sp[-1] ^= *pc++; break;
        case DUP: *sp = sp[-1], sp++; break;
        case DROP: sp--; break;
        case SWAP: t = sp[-1], sp[-1] = sp[-2], sp[-2] = t; break;
        case HALT: return vars[1];
        }
}
static NOINLINE u64 run_goto(u64 count) {
    static const void *const labels[] = {&&push, &&add,  &&sub, &&load, &&store, &&jnz,
                                         &&muli, &&xori, &&dup, &&drop, &&swap,  &&halt};
    u64 stack[16], vars[4] = {count, 1}, *sp = stack, t;
    const u8 *pc = program;
#define NEXT goto *labels[*pc++]
    NEXT;
push: *sp++ = *pc++; NEXT;
add: sp--, sp[-1] += *sp; NEXT;
sub: sp--, sp[-1] -= *sp; NEXT;
load: *sp++ = vars[*pc++]; NEXT;
store: vars[*pc++] = *--sp; NEXT;
jnz: t = *--sp; pc = t ? program + *pc : pc + 1; NEXT;
muli: sp[-1] *= *pc++; NEXT;
xori: sp[-1] ^= *pc++; NEXT;
dup: *sp = sp[-1], sp++; NEXT;
drop: sp--; NEXT;
swap: t = sp[-1], sp[-1] = sp[-2], sp[-2] = t; NEXT;
halt: return vars[1];
}
static u64 interp_switch(void) { return run_switch(18000000); }
static u64 interp_goto(void) { return run_goto(18000000); }

static u64 heap(void) {
    enum { N = 4096 };
    static u8 *p[N];
    u64 n = 0;
    for (u32 i = 0; i < 14000000; i++) {
        u32 k = rnd() % N;
        if (p[k]) n += p[k][0], free(p[k]);
        p[k] = malloc(8 + i % 120);
        p[k][0] = i;
    }
    return n;
}

static u64 getpids(void) {
    u64 n = 0;
    for (int i = 0; i < 2000000; i++) n += syscall(SYS_getppid) != 0;
    return n;
}
static u64 files(void) {
    static char block[4096];
    int f = open("kernels.tmp", O_RDWR | O_CREAT | O_TRUNC, 0600);
    u64 n = 0;
    for (int round = 0; round < 400; round++) {
        lseek(f, 0, SEEK_SET);
        for (int i = 0; i < 256; i++) block[0] = i + round, n += write(f, block, sizeof block);
        lseek(f, 0, SEEK_SET);
        for (int i = 0; i < 256; i++) n += read(f, block, sizeof block) + (u8)block[0];
    }
    close(f);
    unlink("kernels.tmp");
    return n;
}
static u64 pipes(void) {
    int to[2], from[2];
    if (pipe(to) || pipe(from)) return 0;
    u64 x = 0, count = 60000;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        for (u64 i = 0; i < count; i++) {
            if (read(to[0], &x, 8) != 8) _exit(1);
            x = x * 3 + 1;
            if (write(from[1], &x, 8) != 8) _exit(1);
        }
        _exit(0);
    }
    for (u64 i = 0; i < count; i++)
        if (write(to[1], &x, 8) != 8 || read(from[0], &x, 8) != 8) return 0;
    waitpid(child, 0, 0);
    return x;
}
static volatile u64 caught;
static void on_signal(int s) { caught += s; }
static u64 signals(void) {
    signal(SIGUSR1, on_signal);
    for (int i = 0; i < 300000; i++) raise(SIGUSR1);
    return caught;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static u64 shared_sum;
static void *work(void *arg) {
    u64 n = (u64)(uintptr_t)arg;
    for (u32 i = 0; i < 60000000; i++) {
        n = n * 6364136223846793005ull + 1442695040888963407ull;
        if ((i & 1023) == 0) {
            pthread_mutex_lock(&lock);
            shared_sum += n;
            pthread_mutex_unlock(&lock);
        }
    }
    return 0;
}
static u64 threads(void) {
    pthread_t t[2];
    for (uintptr_t i = 0; i < 2; i++) pthread_create(&t[i], 0, work, (void *)(i + 1));
    for (int i = 0; i < 2; i++) pthread_join(t[i], 0);
    return shared_sum;
}

static const struct {
    const char *name;
    u64 (*run)(void);
} kernels[] = {
#define K(name) {#name, name}
    K(empty),   K(sieve),  K(dmatmul), K(sort),       K(sort_library), K(fib),     K(crc32),         K(chase),
    K(strscan), K(strings), K(copies), K(state),      K(nbody),        K(mandelbrot), K(packed),     K(viterbi),
    K(x87),     K(sha256), K(calls),   K(indirect_same), K(indirect),  K(interp_switch), K(interp_goto), K(heap),
    K(getpids), K(files),  K(pipes),   K(signals),    K(threads),
};

int main(int argc, char **argv) {
    for (u32 i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        if (argc > 1 ? !strcmp(argv[1], kernels[i].name) : (puts(kernels[i].name), 0)) {
            printf("%s %llu\n", argv[1], (unsigned long long)kernels[i].run());
            return 0;
        }
    }
    return argc > 1;
}
