// cc: -O1 -D_GNU_SOURCE -pthread -mcx16
// Threads, futexes, TLS, condition variables, cancellation, robust mutexes, barriers, atomics.
#include "common.h"
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
static __thread int tls = 5; static atomic_long counter; static long plain; static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER; static pthread_cond_t cv = PTHREAD_COND_INITIALIZER; static int turn; static pthread_key_t key; static atomic_int destroyed;
static void *add(void *a) { tls = (int)(long)a; for (int i = 0; i < 20000; i++) { atomic_fetch_add(&counter, 1); pthread_mutex_lock(&mu); plain++; pthread_mutex_unlock(&mu); } return (void *)(long)tls; }
static void *pingpong(void *a) { int me = (int)(long)a; for (int i = 0; i < 200; i++) { pthread_mutex_lock(&mu); while (turn != me) pthread_cond_wait(&cv, &mu); turn = !me; pthread_cond_broadcast(&cv); pthread_mutex_unlock(&mu); } return NULL; }
static void on_destroy(void *v) { atomic_fetch_add(&destroyed, (int)(long)v); }
static void *with_key(void *a) { pthread_setspecific(key, a); return NULL; }
static void cleanup(void *a) { *(int *)a = 1; }
static void *sleeper(void *a) { pthread_cleanup_push(cleanup, a); for (;;) pause(); pthread_cleanup_pop(0); return NULL; }
static pthread_barrier_t bar; static void *at_barrier(void *a) { (void)a; return (void *)(long)pthread_barrier_wait(&bar); }
static pthread_mutex_t *robust; static void *die_holding(void *a) { (void)a; pthread_mutex_lock(robust); return NULL; }
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER; static void *reader(void *a) { (void)a; long s = 0; for (int i = 0; i < 500; i++) { pthread_rwlock_rdlock(&rw); s += plain; pthread_rwlock_unlock(&rw); } return (void *)(long)(s > 0); }
#ifdef __i386__
typedef int64_t pair;
#else
typedef __int128 pair;
#endif
#define HALF (sizeof(pair) * 4)
static pair wide; static void *swap16(void *a) { (void)a; for (int i = 0; i < 5000; i++) { pair o; do o = wide; while (!__sync_bool_compare_and_swap(&wide, o, o + (((pair)1 << HALF) | 1))); } return NULL; }
static atomic_int sig_seen; static void on_sig(int s) { (void)s; atomic_store(&sig_seen, (int)syscall(SYS_gettid)); } static void *sig_target(void *a) { atomic_store((atomic_int *)a, (int)syscall(SYS_gettid)); while (!atomic_load(&sig_seen)) usleep(1000); return NULL; }
static int fut; static void *wake(void *a) { (void)a; usleep(20000); __atomic_store_n(&fut, 1, __ATOMIC_SEQ_CST); return (void *)syscall(SYS_futex, &fut, FUTEX_WAKE, 1, NULL, NULL, 0); }
int main(void) {
    pthread_t t[8]; void *r; long sum = 0;
    for (long i = 0; i < 4; i++) T(pthread_create(&t[i], NULL, add, (void *)(i + 10))); for (int i = 0; i < 4; i++) { pthread_join(t[i], &r); sum += (long)r; } T(sum); T(counter); T(plain); T(tls);
    for (long i = 0; i < 2; i++) pthread_create(&t[i], NULL, pingpong, (void *)i); for (int i = 0; i < 2; i++) T(pthread_join(t[i], NULL)); T(turn); pthread_key_create(&key, on_destroy); for (long i = 0; i < 3; i++) pthread_create(&t[i], NULL, with_key, (void *)(i + 1)); for (int i = 0; i < 3; i++) pthread_join(t[i], NULL); T(destroyed);
    int cleaned = 0; pthread_create(&t[0], NULL, sleeper, &cleaned); usleep(10000); T(pthread_cancel(t[0])); T(pthread_join(t[0], &r)); T(r == PTHREAD_CANCELED); T(cleaned); pthread_barrier_init(&bar, NULL, 3); for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, at_barrier, NULL); sum = 0; for (int i = 0; i < 3; i++) { pthread_join(t[i], &r); sum += (long)r; } T(sum);
    robust = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); pthread_mutexattr_t ma; pthread_mutexattr_init(&ma); pthread_mutexattr_setrobust(&ma, PTHREAD_MUTEX_ROBUST); pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED); pthread_mutex_init(robust, &ma); pthread_create(&t[0], NULL, die_holding, NULL); pthread_join(t[0], NULL); T(pthread_mutex_lock(robust) == EOWNERDEAD); T(pthread_mutex_consistent(robust)); T(pthread_mutex_unlock(robust)); if (!fork()) { pthread_mutex_lock(robust); _exit(0); } wait(NULL); T(pthread_mutex_lock(robust) == EOWNERDEAD); T(pthread_mutex_trylock(robust) == EBUSY);
    pthread_mutexattr_settype(&ma, PTHREAD_MUTEX_ERRORCHECK); pthread_mutex_t ec; pthread_mutex_init(&ec, &ma); T(pthread_mutex_lock(&ec)); T(pthread_mutex_lock(&ec) == EDEADLK); pthread_mutexattr_init(&ma); T(pthread_mutexattr_setprotocol(&ma, PTHREAD_PRIO_INHERIT)); pthread_mutex_t pi; T(pthread_mutex_init(&pi, &ma)); T(pthread_mutex_lock(&pi)); T(pthread_mutex_unlock(&pi));
    for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, reader, NULL); for (int i = 0; i < 100; i++) { pthread_rwlock_wrlock(&rw); plain++; pthread_rwlock_unlock(&rw); } for (int i = 0; i < 3; i++) { pthread_join(t[i], &r); T((long)r); } struct timespec ts; clock_gettime(CLOCK_REALTIME, &ts); ts.tv_nsec += 20000000; if (ts.tv_nsec >= 1000000000) { ts.tv_sec++; ts.tv_nsec -= 1000000000; } pthread_mutex_lock(&mu); T(pthread_cond_timedwait(&cv, &mu, &ts) == ETIMEDOUT); pthread_mutex_unlock(&mu); sem_t sem; sem_init(&sem, 0, 1); T(sem_wait(&sem)); T(sem_trywait(&sem)); T(sem_timedwait(&sem, &ts)); T(sem_post(&sem)); T(sem_wait(&sem));
    atomic_int tid = 0; signal(SIGUSR1, on_sig); pthread_create(&t[0], NULL, sig_target, &tid); while (!tid) usleep(100); T(pthread_kill(t[0], SIGUSR1)); T(pthread_join(t[0], NULL)); T(sig_seen == tid); T(syscall(SYS_tgkill, getpid(), 999999, 0)); T(syscall(SYS_futex, &fut, FUTEX_WAIT, 1, NULL, NULL, 0)); ts = (struct timespec){0, 5000000}; T(syscall(SYS_futex, &fut, FUTEX_WAIT, 0, &ts, NULL, 0)); pthread_create(&t[0], NULL, wake, NULL); T(syscall(SYS_futex, &fut, FUTEX_WAIT, 0, NULL, NULL, 0)); pthread_join(t[0], &r); T((long)r); T(syscall(SYS_futex, &fut, FUTEX_WAKE, 10, NULL, NULL, 0)); T(syscall(SYS_futex, (int *)8, FUTEX_WAIT, 0, NULL, NULL, 0)); T(syscall(SYS_futex, (char *)&fut + 1, FUTEX_WAIT, 0, NULL, NULL, 0)); T(syscall(SYS_futex, &fut, 77, 0, NULL, NULL, 0));
    pthread_attr_t at; pthread_attr_init(&at); T(pthread_attr_setstacksize(&at, 1 << 20)); T(pthread_attr_setdetachstate(&at, PTHREAD_CREATE_DETACHED)); T(pthread_create(&t[0], &at, with_key, (void *)100)); while (destroyed != 106) usleep(500); for (int i = 0; i < 200; i++) { pthread_create(&t[0], NULL, with_key, NULL); pthread_join(t[0], NULL); } puts("200 threads"); pid_t c = fork(); if (!c) { pthread_create(&t[0], NULL, add, (void *)77); pthread_join(t[0], &r); _exit((int)(long)r); } int st; waitpid(c, &st, 0); T(WEXITSTATUS(st)); c = fork(); if (!c) { int dummy; pthread_create(&t[0], NULL, sleeper, &dummy); usleep(5000); exit(9); } waitpid(c, &st, 0); T(WEXITSTATUS(st)); for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, swap16, NULL); for (int i = 0; i < 3; i++) pthread_join(t[i], NULL); T((long)wide); T((long)(wide >> HALF));
    return 0;
}
