// cc: -O1 -D_GNU_SOURCE -pthread
// What 32-bit programs' system calls have otherwise: structures, calls with 32-bit numbers, segments, signal frames.
#include "common.h"
#include <asm/ldt.h>
#include <dirent.h>
#include <linux/net.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <ucontext.h>
#define S(name, ...) syscall(SYS_##name, ##__VA_ARGS__)
static void hex(const char *what, const void *p, int n) { printf("%s:", what); while (n--) printf(" %02x", *(const uint8_t *)p++); puts(""); fflush(stdout); }
static volatile int seen, code; static volatile unsigned trap;
static void plain(int s) { seen = s; }
static void skip(int s, siginfo_t *i, void *u) { seen = s; code = i->si_code; ucontext_t *c = u; trap = c->uc_mcontext.gregs[REG_TRAPNO]; c->uc_mcontext.gregs[REG_EIP] += c->uc_mcontext.gregs[REG_EBX]; }
static void x87(int s) { (void)s; asm volatile("fninit; fld1; fld1; fldpi" ::: "memory"); }
// An instruction of `len` bytes that raises; what came of it.
#define RAISES(text, len) do { seen = code = trap = 0; asm volatile(text ::"b"(len) : "eax", "ecx", "edx", "memory"); printf("%s: signal %d code %d trap %u\n", text, seen, code, trap); } while (0)
static void *thread(void *p) { unsigned gs; asm("mov %%gs, %0" : "=r"(gs)); *(int *)p = (int)(gs & 7); return p; }
int main(void) {
    char buf[512]; uint32_t w[64]; int fd, p[2], s[2];
    fd = open("/work/f", O_RDWR | O_CREAT | O_TRUNC | O_LARGEFILE, 0640); T(write(fd, "0123456789", 10));
    // Positions and lengths.
    T(S(lseek, fd, 3, SEEK_SET)); T(S(_llseek, fd, 1, 5, w, SEEK_SET)); T(w[0]); T(w[1]); T(S(lseek, fd, 0, SEEK_CUR)); T(S(lseek, fd, -2, SEEK_END));
    T(S(ftruncate64, fd, 16, 1)); memset(w, 0xee, sizeof w); T(S(fstat64, fd, w)); T(w[11]); T(w[12]); T(w[4] & 0777); T(S(fstat, fd, w)); T(S(ftruncate, fd, 7)); memset(w, 0xee, sizeof w); T(S(fstat, fd, w)); T(w[5]); T((w[2] & 0xffff)); hex("stat", &w[2], 4);
    T(S(pread64, fd, buf, 4, 2, 0)); hex("pread", buf, 4); T(S(pread64, fd, buf, 4, 2, 1)); T(S(pwrite64, fd, "ab", 2, 1, 0)); T(S(fallocate, fd, 0, 0, 0, 100, 0)); T(S(truncate64, "/work/f", 9, 0));
    struct iovec iov[2] = {{buf, 3}, {buf + 10, 5}}; T(S(lseek, fd, 0, SEEK_SET)); T(S(readv, fd, iov, 2)); hex("readv", buf, 3); T(S(writev, fd, iov, 2000)); T(S(preadv, fd, iov, 2, 1, 0)); T(S(readv, fd, (void *)1, 1));
    // Locks with positions of 32 and 64 bits.
    struct { int16_t type, whence; int32_t start, len, pid; } lk = {F_WRLCK, 0, 2, 3, 0}; T(S(fcntl, fd, F_SETLK, &lk)); struct __attribute__((packed)) { int16_t type, whence; int64_t start, len; int32_t pid; } lk64 = {F_WRLCK, 0, 0, 0, 0}; T(S(fcntl64, fd, F_GETLK64, &lk64)); T(lk64.type); fflush(stdout);
    if (!fork()) { T(S(fcntl64, fd, F_GETLK64, &lk64)); T(lk64.type); T(lk64.start); T(lk64.len); T(lk64.pid == getppid()); lk.start = 0; lk.len = 0; lk.type = F_RDLCK; T(S(fcntl, fd, F_GETLK, &lk)); T(lk.start); T(lk.len); exit(0); } T(S(waitpid, -1, w, 0) > 0); T(w[0]);
    // File systems and folders.
    memset(w, 0xee, sizeof w); T(S(statfs64, "/proc", 84, w)); T(w[0]); T(w[14]); T(S(statfs64, "/proc", 64, w)); memset(w, 0xee, sizeof w); T(S(statfs, "/proc", w)); T(w[0]); T(w[9]);
    mkdir("/work/d", 0755); close(open("/work/d/name", O_CREAT, 0600)); int d = open("/work/d", O_RDONLY); long n = S(getdents, d, buf, sizeof buf); T(n); for (long i = 0, k = 0; i < n && k < 9; k++) { uint16_t len; memcpy(&len, buf + i + 8, 2); if (buf[i + 10] != '.') printf("  %s length %d type %d\n", buf + i + 10, len, buf[i + len - 1]); i += len; } T(S(getdents, d, buf, sizeof buf)); S(lseek, d, 0, 0); T(S(getdents, d, buf, 5));
    // Times of 32 and 64 bits.
    int32_t ts[4] = {0, 2000000, 0, 0}; T(S(nanosleep, ts, NULL)); ts[1] = 2000000000; T(S(nanosleep, ts, NULL)); int64_t t64[2] = {0, 1000000 | 0x55LL << 32}; T(S(clock_nanosleep_time64, CLOCK_MONOTONIC, 0, t64, NULL)); T(S(nanosleep, NULL, NULL)); T(S(clock_gettime, CLOCK_REALTIME, ts)); T(ts[0] > 1000000000 || ts[0] < 0); T(S(clock_gettime64, CLOCK_REALTIME, t64)); T(t64[0] - (uint32_t)ts[0] < 5); T(S(clock_getres, CLOCK_MONOTONIC, ts)); T(ts[1]); T(S(gettimeofday, ts, NULL)); T(S(time, ts) == ts[0]); T(S(times, w) != -1);
    int32_t ut[4] = {1000000, 5, 2000000, 6}; T(S(utimensat, AT_FDCWD, "/work/f", ut, 0)); S(stat64, "/work/f", w); T(w[16]); T(w[17]); T(w[18]); T(w[19]); T(S(utime, "/work/f", ut)); S(stat64, "/work/f", w); T(w[16]); T(w[18]); T(S(utimes, "/work/f", ut)); S(stat64, "/work/f", w); T(w[17]);
    int32_t it[4] = {0, 0, 0, 30000}, iold[4]; signal(SIGALRM, plain); T(S(setitimer, ITIMER_REAL, it, iold)); T(S(pause)); T(seen); T(S(getitimer, ITIMER_REAL, iold)); T(iold[3]);
    int32_t sv[3] = {SIGEV_NONE, 0, SIGEV_NONE}, tid; sv[0] = 7; sv[1] = SIGALRM; sv[2] = SIGEV_SIGNAL; T(S(timer_create, CLOCK_MONOTONIC, sv, &tid)); it[3] = 20000000; T(S(timer_settime, tid, 0, it, NULL)); T(S(pause)); T(S(timer_gettime, tid, iold)); T(S(timer_delete, tid));
    // Waiting.
    T(pipe(p)); struct pollfd pf = {p[0], POLLIN, 0}; ts[0] = 0; ts[1] = 1000000; T(S(ppoll, &pf, 1, ts, NULL, 8)); t64[0] = 0; t64[1] = 1000000; T(S(ppoll_time64, &pf, 1, t64, NULL, 8)); write(p[1], "x", 1); T(S(ppoll, &pf, 1, NULL, NULL, 8)); T(pf.revents); uint32_t set = 1u << p[0], zero = 0; int32_t tv[2] = {1, 0}; T(S(_newselect, p[0] + 1, &set, &zero, NULL, tv)); T(set == 1u << p[0]); uint32_t old[5] = {p[0] + 1, (uint32_t)&set, 0, 0, (uint32_t)tv}; T(S(select, old)); uint32_t sig6[2] = {0, 8}; T(S(pselect6, p[0] + 1, &set, NULL, NULL, ts, sig6)); T(S(_newselect, -1, NULL, NULL, NULL, NULL));
    uint32_t word = 5; ts[0] = 0; ts[1] = 1000000; T(S(futex, &word, 0, 5, ts)); t64[0] = 0; t64[1] = 1000000; T(S(futex_time64, &word, 0, 5, t64)); T(S(futex, &word, 0, 4, ts)); T(S(futex, &word, 1, 1, 1));
    // Sockets by socketcall, messages with descriptors.
    unsigned long a3[4] = {AF_UNIX, SOCK_STREAM, 0, (unsigned long)s}; T(S(socketcall, SYS_SOCKETPAIR, a3)); unsigned long a4[4] = {s[0], (unsigned long)"hello", 5, 0}; T(S(socketcall, SYS_SEND, a4)); unsigned long a5[4] = {s[1], (unsigned long)buf, sizeof buf, 0}; T(S(socketcall, SYS_RECV, a5)); T(S(socketcall, 99, a5));
    union { struct cmsghdr h; char b[CMSG_SPACE(8)]; } c = {0}; struct iovec one = {"m", 1}; struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c}; c.h.cmsg_len = CMSG_LEN(8); c.h.cmsg_level = SOL_SOCKET; c.h.cmsg_type = SCM_RIGHTS; memcpy(CMSG_DATA(&c.h), (int[]){p[0], p[1]}, 8); T(sendmsg(s[0], &m, 0)); memset(&c, 0, sizeof c); one.iov_base = buf; T(recvmsg(s[1], &m, 0)); T(m.msg_controllen); T(m.msg_flags); T(c.h.cmsg_len); T(c.h.cmsg_type); int got[2]; memcpy(got, CMSG_DATA(&c.h), 8); T(read(got[0], buf, 5)); T(fcntl(got[1], F_GETFD));
    memcpy(CMSG_DATA(&c.h), (int[]){p[0], p[1]}, 8); c.h.cmsg_len = CMSG_LEN(8); m.msg_controllen = sizeof c; one.iov_base = "n"; T(sendmsg(s[0], &m, 0)); one.iov_base = buf; m.msg_controllen = CMSG_LEN(4); T(recvmsg(s[1], &m, 0)); T(m.msg_controllen); T(m.msg_flags == MSG_CTRUNC); c.h.cmsg_len = 3; m.msg_controllen = sizeof c; T(sendmsg(s[0], &m, 0));
    int32_t to[2] = {0, 100000}; T(setsockopt(s[1], SOL_SOCKET, 20, to, 8)); socklen_t tl = 8; memset(to, 9, 8); T(getsockopt(s[1], SOL_SOCKET, 20, to, &tl)); T(to[1]); T(tl); T(recv(s[1], buf, 1, 0));
    // Limits and use.
    uint32_t rl[2]; T(S(ugetrlimit, RLIMIT_CORE, rl)); T(rl[0]); T(S(ugetrlimit, RLIMIT_AS, rl)); T(rl[1] == ~0u); T(S(getrlimit, RLIMIT_AS, rl)); T(rl[1]); rl[0] = 1 << 30; rl[1] = ~0u; T(S(setrlimit, RLIMIT_FSIZE, rl)); T(S(ugetrlimit, RLIMIT_FSIZE, rl)); T(rl[0]); T(rl[1] == ~0u); memset(w, 0xee, sizeof w); T(S(getrusage, RUSAGE_SELF, w)); T(w[18] == 0xeeeeeeee); memset(w, 0xee, sizeof w); T(S(sysinfo, w)); T(w[13] >= 1); T(w[16] == 0xeeeeeeee);
    fflush(stdout); pid_t kid = fork(); if (!kid) _exit(3); memset(w, 0xee, sizeof w); siginfo_t si; memset(&si, 0xee, sizeof si); T(S(waitid, P_PID, kid, &si, WEXITED, w)); T(si.si_signo); T(si.si_code); T(si.si_status); T(si.si_pid == kid); fflush(stdout); kid = fork(); if (!kid) pause(); kill(kid, SIGKILL); int st; T(S(wait4, kid, &st, 0, w) == kid); T(st);
    struct utsname un; T(uname(&un)); puts(un.machine); T(S(personality, 8)); T(uname(&un)); puts(un.machine); T(S(personality, 0)); T(S(olduname, buf)); T(S(getuid) == getuid()); T(S(getgid32) == getgid()); uint16_t ids[3]; T(S(getresuid, ids, ids + 1, ids + 2)); T(ids[2] == getuid()); T(S(setreuid, 0xffff, 0xffff)); T(S(setreuid32, -1, -1));
    // Memory.
    uint32_t mm[6] = {0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, ~0u, 0}; char *a = (char *)S(mmap, mm); T(a != MAP_FAILED); a[8191] = 1; T(munmap(a, 8192)); S(ftruncate64, fd, 20000, 0); pwrite(fd, "page", 4, 4096); a = (char *)S(mmap2, 0, 4096, PROT_READ, MAP_SHARED, fd, 1); T(a != MAP_FAILED); hex("mmap2", a, 4); T(S(mmap2, 0, 1u << 31, 3, 0x22, -1, 0) == -1 || 1); T(mmap((void *)0xfffff000, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED);
    // Segments.
    struct user_desc ud = {.entry_number = -1, .base_addr = (unsigned)buf, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1, .useable = 1}; T(S(set_thread_area, &ud)); T(ud.entry_number); unsigned char v; strcpy(buf, "segment"); unsigned sel = ud.entry_number * 8 + 3; asm volatile("mov %1, %%fs; movb %%fs:3, %0" : "=q"(v) : "r"(sel)); T(v); struct user_desc ug = {.entry_number = ud.entry_number}; T(S(get_thread_area, &ug)); T(ug.base_addr == (unsigned)buf); T(ug.limit); T(ug.contents); T(ug.useable); ud.base_addr++; T(S(set_thread_area, &ud)); asm volatile("movb %%fs:3, %0" : "=q"(v)); T(v); ud.entry_number = 99; T(S(set_thread_area, &ud)); ud.entry_number = 14; ud.contents = 2; T(S(set_thread_area, &ud)); ug.entry_number = 11; T(S(get_thread_area, &ug)); asm volatile("mov %0, %%fs" ::"r"(0));
    pthread_t th; int gs = -1; T(pthread_create(&th, NULL, thread, &gs)); T(pthread_join(th, NULL)); T(gs);
    // Signals: both frames, with and without a trampoline of the program's.
    uint32_t sa[5] = {(uint32_t)plain, 0, 0, 0, 0}; seen = 0; T(S(rt_sigaction, SIGUSR1, sa, NULL, 8)); raise(SIGUSR1); T(seen == SIGUSR1); T(S(rt_sigaction, SIGUSR1, sa, w, 8)); T(w[0] == (uint32_t)plain); T(S(rt_sigaction, SIGUSR1, sa, w, 4)); uint32_t so[4] = {(uint32_t)plain, 0x200, SA_RESETHAND, 0}; seen = 0; T(S(sigaction, SIGUSR2, so, NULL)); raise(SIGUSR2); T(seen == SIGUSR2); T(S(sigaction, SIGUSR2, NULL, w)); T(w[0]); T(S(signal, SIGUSR2, plain)); raise(SIGUSR2); T(S(sigaction, SIGUSR2, NULL, w)); T(w[0]); uint32_t mask = 1 << (SIGUSR1 - 1); T(S(sigprocmask, SIG_BLOCK, &mask, w)); seen = 0; raise(SIGUSR1); T(seen); T(S(sigpending, w)); T(w[0]); T(S(sigsuspend, 0, 0, 0)); T(seen); T(S(sgetmask)); T(S(ssetmask, 0)); uint32_t ss[3]; T(S(sigaltstack, NULL, ss)); T(ss[1]);
    double one_third = 1.0 / 3; asm volatile("fldl %1; fldpi; int $0x80; fstp %%st(0); fstpl %0" : "=m"(one_third) : "m"(one_third), "a"(SYS_tgkill), "b"(getpid()), "c"(getpid()), "d"(SIGUSR1)); T(one_third == 1.0 / 3); sa[0] = (uint32_t)x87; T(S(rt_sigaction, SIGUSR1, sa, NULL, 8)); double back = 0; asm volatile("fldl %1; fldpi; int $0x80; fstp %%st(0); fstpl %0" : "=m"(back) : "m"(one_third), "a"(SYS_tgkill), "b"(getpid()), "c"(getpid()), "d"(SIGUSR1)); T(back == one_third);
    sigset_t rt; sigemptyset(&rt); sigaddset(&rt, SIGRTMIN); sigprocmask(SIG_BLOCK, &rt, NULL); union sigval val = {.sival_int = 77}; T(sigqueue(getpid(), SIGRTMIN, val)); memset(&si, 0, sizeof si); ts[0] = 1; ts[1] = 0; T(S(rt_sigtimedwait, &rt, &si, ts, 8) == SIGRTMIN); T(si.si_value.sival_int); T(si.si_pid == getpid()); ts[0] = 0; T(S(rt_sigtimedwait, &rt, &si, ts, 8));
    struct sigaction ks = {.sa_sigaction = skip, .sa_flags = SA_SIGINFO | SA_NODEFER}; for (int i = 0; i < 5; i++) sigaction((int[]){SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP}[i], &ks, NULL);
    RAISES("ud2", 2); RAISES("hlt", 1); RAISES("int $0x20", 2); RAISES("xor %%ecx, %%ecx; divl %%ecx", 2); RAISES("movl %%eax, 0x10", 5); RAISES("mov $0x1234, %%eax; mov %%ax, %%fs", 2); RAISES("mov $0x7fffffff, %%eax; add $1, %%eax; into", 0); RAISES("push $0; push $5; mov $9, %%eax; bound %%eax, (%%esp); add $8, %%esp", 3); RAISES("aam $0", 2); RAISES("int3", 0); RAISES("cli", 1); RAISES("lcall $0x1b, $0", 7); RAISES("xor %%eax, %%eax; mov %%ax, %%ss", 2); RAISES("mov %%eax, %%cr0", 3); RAISES("mov $-1, %%eax; mov (%%eax), %%ecx", 2); RAISES("rdmsr", 2); RAISES("movl (%%esp), %%eax; lock; movl %%eax, (%%esp)", 4); RAISES(".byte 0x62, 0xc0", 2); RAISES(".byte 0xc4, 0xc0", 2);
    return 0;
}
