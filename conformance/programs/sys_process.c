// cc: -O1 -D_GNU_SOURCE
// fork, vfork, clone, exec, wait, process groups, limits, identity.
#include "common.h"
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/times.h>
#include <sys/wait.h>
extern char **environ;
static char stack[65536]; static int shared_value;
static int child_fn(void *arg) { shared_value = *(int *)arg; return 17; }
static int status_of(pid_t p) { int s = -1; waitpid(p, &s, 0); return WIFEXITED(s) ? WEXITSTATUS(s) : 1000 + WTERMSIG(s); }
static int run(char *const argv[]) { pid_t p = fork(); if (!p) { execv(argv[0], argv); _exit(errno == ENOENT ? 201 : errno == EACCES ? 202 : errno == ENOEXEC ? 203 : 204); } return status_of(p); }
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "again")) { printf("exec'd: argc %d argv0 %s env %s fd10 %d\n", argc, argv[0], getenv("MARK"), fcntl(10, F_GETFD)); return 33; }
    int s; struct rusage ru; siginfo_t si;
    pid_t c = fork(); if (!c) _exit(7); T(waitpid(c, &s, 0) == c); T(WEXITSTATUS(s)); T(waitpid(c, &s, 0)); T(wait(&s)); c = fork(); if (!c) _exit(300); T(status_of(c)); c = fork(); if (!c) { usleep(30000); _exit(1); } T(waitpid(c, &s, WNOHANG)); T(waitid(P_PID, (id_t)c, &si, WEXITED | WNOWAIT)); T(si.si_status); T(si.si_code == CLD_EXITED); T(wait4(c, &s, 0, &ru) == c); T(waitid(P_PID, (id_t)c, &si, WEXITED)); T(waitpid(-1, &s, 0x100));
    c = vfork(); if (!c) { shared_value = 3; _exit(4); } T(shared_value); T(status_of(c)); int v = 21; c = clone(child_fn, stack + sizeof stack, CLONE_VM | SIGCHLD, &v); T(status_of(c)); T(shared_value); c = clone(child_fn, stack + sizeof stack, SIGCHLD, &(int){99}); T(status_of(c)); T(shared_value);
    T(setenv("MARK", "here", 1)); T(dup2(1, 10)); T(fcntl(10, F_SETFD, FD_CLOEXEC)); T(run((char *[]){argv[0], "again", "x y", NULL})); T(fcntl(10, F_SETFD, 0)); T(run((char *[]){argv[0], "again", NULL})); T(run((char *[]){"/no/such", NULL})); T(run((char *[]){"/etc", NULL})); int f = open("script", O_CREAT | O_WRONLY, 0755); dprintf(f, "#!/bin/sh\necho script $0 $# $1\nexit 5\n"); close(f); T(run((char *[]){"./script", "a b", NULL})); f = open("junk", O_CREAT | O_WRONLY, 0755); dprintf(f, "just text\n"); close(f); T(run((char *[]){"./junk", NULL})); f = open("noexec", O_CREAT | O_WRONLY, 0644); close(f); T(run((char *[]){"./noexec", NULL})); f = open("badint", O_CREAT | O_WRONLY, 0755); dprintf(f, "#!/no/such -x\n"); close(f); T(run((char *[]){"./badint", NULL})); f = open("chain", O_CREAT | O_WRONLY, 0755); dprintf(f, "#! ./script opt\n"); close(f); T(run((char *[]){"./chain", "z", NULL}));
    pid_t sp; int ps = posix_spawn(&sp, argv[0], NULL, NULL, (char *[]){argv[0], "again", NULL}, environ); T(status_of(sp)); T(ps); T(posix_spawn(&sp, "/no/such", NULL, NULL, (char *[]){"x", NULL}, environ)); T(WEXITSTATUS(system("exit 12"))); FILE *p = popen("echo piped; exit 2", "r"); char line[100]; fputs(fgets(line, 100, p), stdout); T(WEXITSTATUS(pclose(p)));
    T(getpid() == syscall(SYS_gettid)); T(getppid() >= 0); T(getpgrp() == getpgid(0)); c = fork(); if (!c) { if (setpgid(0, 0) || getpgrp() != getpid()) _exit(1); _exit(setsid() == -1 ? 50 : 51); } T(status_of(c)); c = fork(); if (!c) { _exit(setsid() == getpid() && getsid(0) == getpid() ? 60 : 61); } T(status_of(c)); c = fork(); if (!c) { pid_t g = fork(); if (!g) { usleep(20000); _exit(getppid() == 1 ? 0 : 1); } _exit(0); } T(status_of(c));
    T(getuid()); T(geteuid()); T(getgid()); T(setuid(getuid())); T(setuid(0)); T(setresuid(-1, -1, -1)); T(setgid(0)); gid_t gr[32]; T(getgroups(32, gr) >= 0); uid_t r, e, sv; T(getresuid(&r, &e, &sv)); T(r == e && e == sv);
    struct rlimit rl; T(getrlimit(RLIMIT_NOFILE, &rl)); rl.rlim_cur = 50; T(setrlimit(RLIMIT_NOFILE, &rl)); T(dup2(1, 60)); T(getrlimit(RLIMIT_NOFILE, &rl)); T(rl.rlim_cur); rl.rlim_cur = rl.rlim_max + 1; T(setrlimit(RLIMIT_NOFILE, &rl)); T(getrlimit(999, &rl)); T(getrlimit(RLIMIT_STACK, &rl)); T(rl.rlim_cur); T(getrusage(RUSAGE_SELF, &ru)); T(getrusage(77, &ru)); T(getpriority(PRIO_PROCESS, 0)); struct tms tm; T(times(&tm) > 0);
    char name[17] = ""; T(prctl(PR_SET_NAME, "renamed-process-too-long")); T(prctl(PR_GET_NAME, name)); puts(name); T(prctl(PR_SET_PDEATHSIG, SIGTERM)); int d; T(prctl(PR_GET_PDEATHSIG, &d)); T(d); T(prctl(PR_GET_DUMPABLE)); T(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); T(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); T(prctl(9999)); T(sched_yield()); cpu_set_t cs; T(sched_getaffinity(0, sizeof cs, &cs) >= 0); T(sched_getscheduler(0)); T(syscall(9999)); T(syscall(SYS_getcpu, NULL, NULL, NULL)); T(nice(1)); T(setpgid(999999, 0));
    c = fork(); if (!c) { struct rlimit cpu = {1, 2}; setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); setrlimit(RLIMIT_FSIZE, &(struct rlimit){1000, 1000}); (void)cpu; signal(SIGXFSZ, SIG_IGN); int b = open("big", O_CREAT | O_WRONLY, 0600); char buf[2000] = ""; ssize_t w = write(b, buf, 2000); printf("limited write %zd\n", w); w = write(b, buf, 10); printf("then %zd %s\n", w, strerrorname_np(errno)); fflush(stdout); _exit(0); } T(status_of(c));
    fflush(stdout); int pp[2]; pipe(pp); for (int i = 0; i < 20; i++) if (!fork()) { char b = (char)i; write(pp[1], &b, 1); _exit(i); } int sum = 0; for (int i = 0; i < 20; i++) { wait(&s); sum += WEXITSTATUS(s); } T(sum);
    /* Who dies of a signal that may dump core does so as the limit says. */
    fflush(stdout); if (!fork()) abort(); wait(&s); T(s); exit(44);
}
