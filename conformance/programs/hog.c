// cc: -O1 -D_GNU_SOURCE -pthread
// Programs without measure: each way of using up the machine. What ends them is a limit.
#include "common.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <sys/wait.h>
static void *forever(void *a) { for (;;) pause(); return a; }
static void *spin(void *a) { for (volatile long i = 0;; i++) {} return a; }
static void block_all(void) { sigset_t s; sigfillset(&s); sigprocmask(SIG_BLOCK, &s, NULL); for (int i = 1; i < 32; i++) signal(i, SIG_IGN); }
int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : ""; long n = 0; static char block[1 << 20];
    setvbuf(stdout, NULL, _IONBF, 0);
    if (!strcmp(mode, "fork")) { block_all(); for (;;) fork(); }
    if (!strcmp(mode, "fork-once")) { for (;;) { pid_t p = fork(); if (!p) { pause(); _exit(0); } if (p < 0) break; n++; } printf("%ld processes, then %s\n", n, strerrorname_np(errno)); signal(SIGTERM, SIG_IGN); kill(0, SIGTERM); return 9; }
    if (!strcmp(mode, "threads")) { pthread_t t; int e; pthread_attr_t at; pthread_attr_init(&at); pthread_attr_setstacksize(&at, 65536); while (!(e = pthread_create(&t, &at, forever, NULL))) n++; printf("%ld threads, then %s\n", n, strerrorname_np(e)); return 9; }
    if (!strcmp(mode, "spin-threads")) { pthread_t t; block_all(); while (!pthread_create(&t, NULL, spin, NULL)) n++; spin(NULL); }
    if (!strcmp(mode, "memory")) { char *p; while ((p = malloc(1 << 20))) { memset(p, 1, 1 << 20); n++; } printf("%ld MiB, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "noreserve")) { char *p = mmap(NULL, 32l << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0); if (p == MAP_FAILED) { printf("refused: %s\n", strerrorname_np(errno)); return 9; } for (long i = 0; i < 32l << 30; i += 4096) p[i] = 1; puts("32 GiB written"); return 0; }
    // Each process leaves its memory to its child, which does not touch it.
    if (!strcmp(mode, "inherit")) { if (fork()) for (;;) pause(); for (;; n++) { char *p = mmap(NULL, 1 << 26, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); if (p == MAP_FAILED) break; for (long i = 0; i < 1 << 26; i += 4096) p[i] = 1; pid_t c = fork(); if (c > 0) _exit(0); if (c < 0) break; } printf("%ld processes, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "shared")) { for (;;) { char *p = mmap(NULL, 1 << 24, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); if (p == MAP_FAILED) break; memset(p, 1, 1 << 24); n += 16; } printf("%ld MiB, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "memfd")) { int f = memfd_create("x", 0); while (n < 1000 && write(f, block, sizeof block) > 0) n++; printf("%ld MiB, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "pipes")) { int p[2]; while (!pipe2(p, O_NONBLOCK)) { fcntl(p[1], F_SETPIPE_SZ, 1 << 20); while (write(p[1], block, sizeof block) > 0) {} n++; } printf("%ld pipes, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "disk") || !strcmp(mode, "tmp")) { int f = open(argv[2], O_CREAT | O_WRONLY, 0600); ssize_t w; while ((w = write(f, block, sizeof block)) > 0) n += w; printf("%ld KiB, then %s\n", n >> 10, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "truncate")) { int f = open(argv[2], O_CREAT | O_RDWR, 0600); if (ftruncate(f, 1l << 40)) { printf("refused: %s\n", strerrorname_np(errno)); return 9; } puts("1 TiB, sparse"); return 9; }
    if (!strcmp(mode, "folders")) { char p[64]; for (; n < 10000000; n++) { snprintf(p, 64, "/tmp/%ld", n); if (mkdir(p, 0700)) break; } printf("%ld folders, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "mappings")) { for (;; n++) { char *p = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); if (p == MAP_FAILED || mprotect(p, 4096, PROT_NONE)) break; } const char *e = strerrorname_np(errno); pid_t c = fork(); if (!c) _exit(0); printf("%ld mappings, then %s; fork %s\n", n, e, c < 0 ? strerrorname_np(errno) : "works"); return 9; }
    if (!strcmp(mode, "mapped-children")) { for (int i = 0; i < 500; i++) { char *p = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); mprotect(p, 4096, PROT_NONE); } for (;; n++) { pid_t p = fork(); if (!p) { pause(); _exit(0); } if (p < 0) break; } printf("%ld processes, then %s\n", n, strerrorname_np(errno)); signal(SIGTERM, SIG_IGN); kill(0, SIGTERM); return 9; }
    if (!strcmp(mode, "host-files")) { for (int i = 0; i < 30; i++) if (!fork()) { while (open("/work/f", O_RDWR | O_CREAT, 0600) >= 0) {} sleep(1); for (;;) open("/work/f", O_RDONLY); } sleep(1); for (int i = 0; i < 100; i++) { int p[2]; if (pipe(p)) break; close(p[0]); close(p[1]); } while (malloc(1 << 20)) n++; signal(SIGTERM, SIG_IGN); kill(0, SIGTERM); printf("%ld MiB, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "links")) { for (;; n++) { char a[64], b[64]; snprintf(a, 64, "/tmp/l%ld", n); snprintf(b, 64, "/tmp/l%ld", n + 1); if (symlink(b, a)) break; } printf("%ld links, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "sockets")) { char c[65536]; int p[2]; memset(c, 1, sizeof c); while (!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, p)) { while (send(p[0], c, sizeof c, 0) > 0) n += 64; } printf("%ld KiB, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "code")) { block_all(); char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); for (;;) { for (int i = 0; i < 1 << 20; i += 16) { p[i] = (char)0xb8; memcpy(p + i + 1, &n, 4); p[i + 5] = (char)0xc3; n++; } for (int k = 0; k < 3; k++) for (int i = 0; i < 1 << 20; i += 16) ((void (*)(void))(p + i))(); } }
    if (!strcmp(mode, "signals")) { block_all(); for (;;) { union sigval v = {0}; if (sigqueue(getpid(), SIGRTMIN, v)) break; n++; } printf("%ld signals, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "timers")) { timer_t t; struct sigevent e = {.sigev_notify = SIGEV_NONE}; while (!timer_create(CLOCK_MONOTONIC, &e, &t)) n++; printf("%ld timers, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "fds")) { int p[2], f[250]; for (;; n++) { if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p)) break; for (int i = 0; i < 250; i++) f[i] = open("/dev/null", O_RDONLY); struct iovec v = {"x", 1}; char c[CMSG_SPACE(sizeof f)]; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c}; struct cmsghdr *h = CMSG_FIRSTHDR(&m); h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_RIGHTS; h->cmsg_len = CMSG_LEN(sizeof f); memcpy(CMSG_DATA(h), f, sizeof f); while (sendmsg(p[0], &m, MSG_DONTWAIT) > 0) n++; for (int i = 0; i < 250; i++) close(f[i]); } printf("%ld, then %s\n", n, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "files")) { while (open("/dev/null", O_RDONLY) >= 0) n++; printf("%ld files, then %s\n", n + 3, strerrorname_np(errno)); return 9; }
    if (!strcmp(mode, "output")) { memset(block, 'y', sizeof block); for (;;) write(argc > 2 ? 2 : 1, block, sizeof block); }
    if (!strcmp(mode, "spin")) { block_all(); for (;;) asm volatile(""); }
    // Backwards by calls alone, forwards by jumps; no call returns.
    if (!strcmp(mode, "spin-calls")) { block_all(); asm volatile("jmp 2f; 1: add $8, %rsp; jmp 2f; .p2align 4; 2: call 1b"); }
    if (!strcmp(mode, "spin-children")) { block_all(); for (int i = 0; i < 4; i++) if (!fork()) for (;;) asm volatile(""); for (;;) pause(); }
    if (!strcmp(mode, "sleep")) { block_all(); for (;;) sleep(1000); }
    if (!strcmp(mode, "stop")) { raise(SIGSTOP); for (;;) pause(); }
    if (!strcmp(mode, "read")) { char c; block_all(); int p[2]; pipe(p); read(p[0], &c, 1); }
    if (!strcmp(mode, "syscalls")) { block_all(); for (;;) getppid(); }
    if (!strcmp(mode, "rep")) { block_all(); char *p = mmap(NULL, 1 << 28, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); for (;;) memset(p, (int)n++, 1 << 28); }
    if (!strcmp(mode, "exec")) execv("/proc/self/exe", argv);
    if (!strcmp(mode, "recurse")) { volatile char frame[4096]; frame[0] = (char)n; char *a[] = {"x", "recurse", NULL}; (void)frame; return main(2, a) + (int)frame[0]; }
    puts("no such mode"); return 1;
}
