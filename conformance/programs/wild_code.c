// cc: -O1 -D_GNU_SOURCE -pthread -fno-stack-protector
// Hostile code: jumps to everywhere, random bytes, damaged real code, code that rewrites itself, stacks that are none,
// instructions at the edges of the address space. Arguments: seed, rounds, and what to do: all, or the name of one.
// Only for a virtual machine: random code may make any system call.
#include "common.h"
#include <pthread.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

static uint64_t state;
static uint64_t next(void) {
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static sigjmp_buf back;
static volatile int caught;
static void handler(int sig) { caught = sig; siglongjmp(back, 1); }

static void handlers(void) {
    static char stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&ss, NULL);
    struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_NODEFER};
    for (const int *s = (const int[]){SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGALRM, SIGSYS, 0}; *s; s++) sigaction(*s, &sa, NULL);
}

/* Go to an address with wild registers; a signal comes back. A loop is ended by the timer. */
static int go(uint64_t to, uint64_t stack) {
    caught = 0;
    if (sigsetjmp(back, 1) == 0) {
        struct itimerval t = {{0, 3000}, {0, 3000}};
        setitimer(ITIMER_REAL, &t, NULL);
        uint64_t r[8];
        for (int i = 0; i < 8; i++) r[i] = next() >> next() % 64;
        asm volatile("mov (%0), %%rax\n mov 8(%0), %%rbx\n mov 16(%0), %%rdi\n mov 24(%0), %%rsi\n mov 32(%0), %%r8\n mov 40(%0), %%r9\n"
                     "mov 48(%0), %%r10\n mov 56(%0), %%r11\n mov %2, %%rsp\n jmp *%1"
                     :: "r"(r), "c"(to), "d"(stack ? stack : (uint64_t)__builtin_frame_address(0) - 4096) : "memory", "rax", "rbx", "rdi", "rsi");
    }
    /* A late signal must not find this frame gone. */
    struct itimerval none = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &none, NULL);
    return caught;
}

static const uint64_t everywhere[] = {0, 1, 0xfff, 0x1000, 0xffff, 0x10000, 0x400000, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000,
    (1l << 36) - 1, (1l << 36) - 4096, 1l << 36, (1l << 36) + 1, 1l << 37, 1l << 46, 0x7fffffffefff, 0x7fffffffffff, 0x800000000000,
    0xffff7fffffffffff, 0xffff800000000000, 0xffffffffff600000, 0xfffffffffffff000, -16ul, -1ul, 1ul << 63, 0x8000000000001000};
enum { N = sizeof everywhere / sizeof *everywhere };

static char *space;
static void jumps(void) { for (int i = 0; i < N; i++) go(everywhere[i], 0); go((uint64_t)space, 0); go((uint64_t)&state, 0); go((uint64_t)back, 0); for (int i = 0; i < 30; i++) go(next() >> next() % 64, 0); }
static void stacks(void) { memset(space, 0x50, 64); space[64] = 0xc3; for (int i = 0; i < N; i++) for (int d = -9; d < 10; d += 3) go((uint64_t)space, everywhere[i] + (uint64_t)d); }
static void bytes(void) { for (int k = 0; k < 60; k++) { for (int i = 0; i < 256; i += 8) *(uint64_t *)(space + i) = next(); go((uint64_t)space + next() % 16, 0); } }
/* Prefixes, and the bytes of the tables' corners, more often than chance gives. */
static void shaped(void) { static const unsigned char c[] = {0x0f, 0x66, 0xf2, 0xf3, 0xf0, 0x48, 0x4c, 0x67, 0x2e, 0x64, 0x65, 0xc4, 0xc5, 0x62, 0x38, 0x3a, 0xc7, 0xae, 0x01, 0xd9, 0xdd, 0xdf, 0xe8, 0xe9, 0xeb, 0xff, 0x8f, 0xc3, 0xc2, 0xcf, 0xcd, 0x05, 0x34, 0x0b}; for (int k = 0; k < 60; k++) { for (int i = 0; i < 128; i++) space[i] = next() % 3 ? (char)c[next() % sizeof c] : (char)next(); go((uint64_t)space, 0); } }
static void damaged(void) { for (int k = 0; k < 40; k++) { char *from = (char *)(next() % 2 ? (uint64_t)printf : (uint64_t)qsort) - 2000 + next() % 4000; memcpy(space, from, 4096); for (int i = 0; i < 40; i++) space[next() % 4096] ^= (char)(1 << next() % 8); go((uint64_t)space + next() % 3000, 0); } }
/* Each iteration writes the instruction that comes next, on this page or across its end. */
static void rewrites(void) {
    for (int k = 0; k < 20; k++) {
        static const unsigned char code[] = {0xb9, 0x40, 0x1f, 0, 0, /* mov ecx, 8000 */ 0xfe, 0x05, 1, 0, 0, 0, /* inc byte [rip+1] */ 0xb0, 0, /* mov al, 0 */ 0xff, 0xc9, 0x75, 0xf4, /* dec; jnz */ 0x0f, 0x0b};
        char *at = space + 4096 - next() % 24;
        memcpy(at, code, sizeof code);
        go((uint64_t)at, 0);
    }
}
static volatile int stop;
static void *scribbler(void *a) { (void)a; uint64_t s = 1; while (!stop) { s = s * 6364136223846793005u + 1; space[s >> 40 & 255] = (char)(s >> 20 & 1 ? 0x90 : s >> 32); } return NULL; }
static void raced(void) { pthread_t t; sigset_t all, old; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, &old); stop = 0; memset(space, 0x90, 4096); pthread_create(&t, NULL, scribbler, NULL); sigprocmask(SIG_SETMASK, &old, NULL); for (int k = 0; k < 40; k++) go((uint64_t)space + next() % 200, 0); stop = 1; pthread_join(t, NULL); }
/* The last bytes before a hole, and before the end of the address space, are the start of an instruction. */
static void edges(void) {
    char *p = mmap(NULL, 8192, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(p + 4096, 4096);
    static const unsigned char starts[][4] = {{0x48, 0xb8}, {0xe8}, {0x0f, 0x84}, {0xc7, 0x05}, {0x90}, {0xc3}, {0x66, 0x66, 0x66, 0x66}, {0xeb, 0x00}};
    uint64_t ends[] = {(uint64_t)p + 4096, 1l << 36, 1l << 47, 1l << 32};
    for (int e = 0; e < 4; e++) {
        char *at = (char *)ends[e] - 4096;
        if (e && mmap(at, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at) continue;
        for (int k = 0; k < 8; k++) for (int n = 1; n <= 4; n++) { memset(at, 0x90, 4096); memcpy(at + 4096 - n, starts[k], (size_t)n); go(ends[e] - (uint64_t)n, 0); go(ends[e] - 40, 0); }
        if (e) munmap(at, 4096);
    }
}
/* Change what is mapped under running code. */
static void *remapper(void *a) { (void)a; while (!stop) { mprotect(space, 4096, PROT_READ); mprotect(space, 4096, 7); madvise(space, 4096, MADV_DONTNEED); memset(space, 0x90, 200); space[199] = (char)0xc3; } return NULL; }
static void remapped(void) { pthread_t t; sigset_t all, old; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, &old); stop = 0; pthread_create(&t, NULL, remapper, NULL); sigprocmask(SIG_SETMASK, &old, NULL); for (int k = 0; k < 60; k++) go((uint64_t)space + next() % 100, 0); stop = 1; pthread_join(t, NULL); }
static void frames(void) { for (int k = 0; k < 40; k++) { space[0] = 0x48; space[1] = (char)0x89; space[2] = (char)0xc4; /* mov rsp, rax */ space[3] = (char)0xb8; *(int *)(space + 4) = 15; space[8] = 0x0f; space[9] = 5; /* rt_sigreturn */ uint64_t *f = (uint64_t *)(space + 8192); for (int i = 0; i < 120; i++) f[i] = next() % 3 ? next() >> next() % 64 : (uint64_t)space; space[2] = (char)0xe4; go((uint64_t)space + 3, (uint64_t)f); } }

static const struct { const char *name; void (*run)(void); } kinds[] = {{"jumps", jumps}, {"stacks", stacks}, {"bytes", bytes}, {"shaped", shaped},
    {"damaged", damaged}, {"rewrites", rewrites}, {"raced", raced}, {"edges", edges}, {"remapped", remapped}, {"frames", frames}};
enum { KINDS = sizeof kinds / sizeof *kinds };

int main(int argc, char **argv) {
    uint64_t seed = argc > 1 ? strtoul(argv[1], NULL, 0) : 1;
    int rounds = argc > 2 ? atoi(argv[2]) : 1;
    const char *only = argc > 3 ? argv[3] : "all";
    struct rlimit core = {0, 0};
    setrlimit(RLIMIT_CORE, &core);
    space = mmap(NULL, 16384, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int r = 0; r < rounds; r++)
        for (int k = 0; k < KINDS; k++) {
            if (strcmp(only, "all") && strcmp(only, kinds[k].name)) continue;
            fflush(stdout);
            pid_t pid = fork();
            if (!pid) {
                setsid();
                int null = open("/dev/null", O_RDWR);
                for (int i = 0; i < 3; i++) dup2(null, i);
                state = seed * 1000 + (uint64_t)r * KINDS + (uint64_t)k;
                handlers();
                kinds[k].run();
                syscall(SYS_exit_group, 0);
            }
            int status = 0, tries = 0, killed = 0;
            while (waitpid(pid, &status, WNOHANG) != pid) {
                usleep(5000);
                if (++tries == 2000) { kill(pid, SIGKILL); killed = 1; }
            }
            kill(-pid, SIGKILL);
            printf("%s: %s %d%s\n", kinds[k].name, WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), killed ? " (killed by us)" : "");
        }
    puts("end of the rounds");
    return 0;
}
