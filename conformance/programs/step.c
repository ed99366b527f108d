// cc step: -O1 -D_GNU_SOURCE -fno-pie -no-pie
// cc32 step: -O1 -D_GNU_SOURCE -fno-pie -no-pie
// A program that steps itself with the trap flag: where each trap is, as offsets in the routine that is stepped.
#include "common.h"
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#ifdef __x86_64__
#define IP REG_RIP
#define A "rax"
#define C "rcx"
#define D "rdi"
#define S "rsi"
#define SP "rsp"
#define PUSHF "pushfq\n"
#define POPF "popfq\n"
#define CALL "syscall\n"
#define NR(call) "mov $" call ", %eax\n"
#else
#define IP REG_EIP
#define A "eax"
#define C "ecx"
#define D "edi"
#define S "esi"
#define SP "esp"
#define PUSHF "pushfl\n"
#define POPF "popfl\n"
#define CALL "int $0x80\n"
#define NR(call) "mov $" call ", %eax\n"
#endif
#define ON PUSHF "orl $0x100, (%" SP ")\n" POPF
#define OFF PUSHF "andl $~0x100, (%" SP ")\n" POPF
#define STR2(x) #x
#define STR(x) STR2(x)
/* A routine: its registers are saved, RDI and RSI point to two buffers. */
#define ROUTINE(name, body) \
    extern char name[]; \
    asm(".text\n.globl " #name "\n" #name ":\n push %" D "\n push %" S "\n push %" C "\n mov $buf1, %" D "\n mov $buf2, %" S "\n cld\n" body "\n nop\n nop\n pop %" C "\n pop %" S "\n pop %" D "\n ret\n");
char buf1[64], buf2[64] = "abcdefgh";
ROUTINE(plain, ON "nop\n inc %" A "\n push %" A "\n pop %" A "\n call 1f\n jmp 2f\n 1: ret\n nop\n 2: xor %eax,%eax\n jz 3f\n nop\n 3: mov $3,%" C "\n 4: loop 4b\n lea 8(%" A "),%" A "\n cmpxchg %" A ",(%" D ")\n" OFF)
ROUTINE(saved, ON PUSHF "pop %" A "\n and $0x100,%" A "\n mov %" A ",buf1\n" OFF)
ROUTINE(strings, ON "mov $4,%" C "\n rep stosb\n mov $buf1,%" D "\n mov $3,%" C "\n rep movsb\n mov $buf1,%" D "\n mov $buf2,%" S "\n movb $0x78,2(%" D ")\n mov $8,%" C "\n repe cmpsb\n xor %ecx,%ecx\n rep stosb\n repne scasb\n lodsb\n mov $2,%" C "\n mov $0x64,%al\n mov $buf2,%" D "\n repne scasb\n mov $buf2,%" D "\n mov $9,%" C "\n repne scasb\n" OFF)
ROUTINE(system_call, ON NR(STR(SYS_getpid)) CALL "nop\n nop\n" NR(STR(SYS_getpid)) CALL OFF)
ROUTINE(forks, ON NR(STR(SYS_fork)) CALL "nop\n nop\n test %eax,%eax\n jnz 1f\n nop\n call leave_child\n 1:" OFF)
ROUTINE(faults, ON "nop\n xor %eax,%eax\n .globl fault\n fault: movl (%" A "),%ecx\n nop\n ud2\n nop\n int3\n nop\n" OFF)
ROUTINE(twice, ON ON "nop\n" OFF "nop\n" OFF)
ROUTINE(stack_segment, ON "mov %ss,%eax\n mov %eax,%ss\n nop\n nop\n" OFF)
ROUTINE(floats, ON "fninit\n fld1\n fld1\n faddp\n fstp %st(0)\n pxor %xmm0,%xmm0\n movd %xmm0,%eax\n ldmxcsr mx\n addss %xmm0,%xmm0\n" OFF)
ROUTINE(outside, "nop\n nop\n inc %" A "\n" OFF)
unsigned mx = 0x1f80;

static struct { int sig, code; unsigned long at; int tf; } seen[400];
static volatile int n;
static char *now;
static volatile int set;
static void handler(int s, siginfo_t *i, void *p) {
    ucontext_t *u = p;
    greg_t *g = u->uc_mcontext.gregs;
    unsigned long at = (unsigned long)g[IP] - (unsigned long)now;
    if (n < 400) { seen[n].sig = s; seen[n].code = i->si_code; seen[n].at = at < 4096 ? at : 9999; seen[n].tf = g[REG_EFL] >> 8 & 1; n++; }
    if (s == SIGSEGV || s == SIGILL) g[IP] += 2;
    if (s == SIGUSR1 && set) g[REG_EFL] |= 0x100;
}
void leave_child(void) { _exit(n); }
static void report(const char *name) {
    printf("%s:", name);
    for (int i = 0; i < n; i++)
        if (i && seen[i].at == 9999 && seen[i - 1].at == 9999) continue;
        else if (seen[i].at == 9999) printf(" out");
        else if (seen[i].sig == SIGTRAP && seen[i].code == 2 && seen[i].tf) printf(" %lu", seen[i].at);
        else printf(" %lu(sig %d code %d tf %d)", seen[i].at, seen[i].sig, seen[i].code, seen[i].tf);
    printf("\n");
    fflush(stdout);
    n = 0;
}
#define RUN(name) do { now = name; ((void (*)(void))name)(); report(#name); } while (0)
int main(void) {
    struct sigaction a = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
    for (int k = 0; k < 4; k++) sigaction((int[]){ SIGTRAP, SIGSEGV, SIGILL, SIGUSR1 }[k], &a, NULL);
    RUN(plain); RUN(saved); printf("saved %d\n", *(int *)buf1); RUN(strings); printf("%.8s\n", buf1);
    RUN(system_call); RUN(faults); RUN(twice); RUN(stack_segment); RUN(floats);
    int st;
    RUN(forks); wait(&st); printf("child %d\n", WEXITSTATUS(st));
    /* The signal's handler sets the flag in the interrupted code. */
    set = 1; now = outside; raise(SIGUSR1); ((void (*)(void))outside)(); set = 0; n = 0; report("after a handler");
    /* A trap whose signal is blocked ends the program. */
    if (!fork()) { sigset_t s; sigemptyset(&s); sigaddset(&s, SIGTRAP); sigprocmask(SIG_BLOCK, &s, NULL); ((void (*)(void))plain)(); _exit(1); }
    wait(&st); printf("blocked: %d\n", WIFSIGNALED(st) ? WTERMSIG(st) : -1);
    if (!fork()) { signal(SIGTRAP, SIG_IGN); ((void (*)(void))plain)(); _exit(1); }
    wait(&st); printf("ignored: %d\n", WIFSIGNALED(st) ? WTERMSIG(st) : -1);
    /* Loops that are compiled before they are stepped. */
    long sum = 0;
    for (int i = 0; i < 3000; i++) { n = 0; now = saved; ((void (*)(void))saved)(); sum += n; }
    printf("traps: %ld\n", sum);
    return 0;
}
