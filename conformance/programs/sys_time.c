// cc: -O1 -D_GNU_SOURCE
// Clocks, sleeps, time zone, random numbers, system facts that do not depend on the machine.
#include "common.h"
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/auxv.h>
#include <time.h>
static long long now(int c) { struct timespec t; if (clock_gettime(c, &t)) return -1; return t.tv_sec * 1000000000ll + t.tv_nsec; }
int main(void) {
    long long a = now(CLOCK_MONOTONIC), b; T(a > 0); for (int i = 0; i < 1000; i++) { b = now(CLOCK_MONOTONIC); if (b < a) puts("time went back"); a = b; } struct timespec ts = {0, 30000000}; T(nanosleep(&ts, NULL)); b = now(CLOCK_MONOTONIC); T(b - a >= 30000000); T(b - a < 3000000000ll); ts.tv_nsec = 2000000000; T(nanosleep(&ts, NULL)); ts.tv_nsec = -1; T(nanosleep(&ts, NULL)); T(nanosleep((void *)8, NULL)); ts = (struct timespec){0, 1000}; T(clock_nanosleep(CLOCK_REALTIME, 0, &ts, NULL)); clock_gettime(CLOCK_MONOTONIC, &ts); ts.tv_nsec += 10000000; if (ts.tv_nsec > 999999999) { ts.tv_sec++; ts.tv_nsec -= 1000000000; } a = now(CLOCK_MONOTONIC); T(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL)); T(now(CLOCK_MONOTONIC) - a >= 9000000); T(clock_nanosleep(99, 0, &ts, NULL) == EINVAL);
    T(now(CLOCK_REALTIME) / 1000000000 >= 1600000000); struct timeval tv; T(gettimeofday(&tv, NULL)); T(tv.tv_usec < 1000000); T(time(NULL) - now(CLOCK_REALTIME) / 1000000000 <= 1); T(now(CLOCK_PROCESS_CPUTIME_ID) > 0); T(now(CLOCK_THREAD_CPUTIME_ID) > 0); T(now(CLOCK_BOOTTIME) > 0); T(now(CLOCK_MONOTONIC_RAW) > 0); T(now(CLOCK_MONOTONIC_COARSE) > 0); T(now(99)); T(clock_getres(CLOCK_MONOTONIC, &ts)); T(ts.tv_nsec); T(clock_settime(CLOCK_REALTIME, &ts)); clock_t c0 = clock(); volatile double x = 0; for (int i = 0; i < 3000000; i++) x += i; T(clock() > c0);
    time_t t = 1700000000; struct tm g; gmtime_r(&t, &g); char s[100]; strftime(s, 100, "%c %Z %j", &g); puts(s); localtime_r(&t, &g); strftime(s, 100, "%c %Z", &g); puts(s); setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1); tzset(); localtime_r(&t, &g); strftime(s, 100, "%c %Z", &g); puts(s);
    unsigned char r1[64], r2[64]; T(getrandom(r1, 64, 0)); T(getrandom(r2, 64, GRND_NONBLOCK)); T(!!memcmp(r1, r2, 64)); T(getrandom(r1, 64, 0x777)); int f = open("/dev/urandom", O_RDONLY); T(read(f, r1, 64)); T(!!memcmp(r1, r2, 64)); f = open("/dev/random", O_RDONLY); T(read(f, r1, 64)); T(getentropy(r1, 64)); T(getentropy(r1, 300));
    struct utsname u; T(uname(&u)); puts(u.sysname); puts(u.machine); struct sysinfo si; T(sysinfo(&si)); T(si.totalram > 0); T(si.mem_unit > 0); T(sysconf(_SC_PAGESIZE)); T(sysconf(_SC_CLK_TCK)); T(getpagesize()); T(getauxval(AT_PAGESZ)); T(getauxval(AT_CLKTCK)); T(getauxval(AT_SECURE)); T(getauxval(AT_ENTRY) != 0); T(getauxval(AT_PHDR) != 0); T(getauxval(AT_RANDOM) != 0); T(getauxval(AT_UID)); puts((char *)getauxval(AT_PLATFORM)); puts((char *)getauxval(AT_EXECFN)); T(sysconf(_SC_NPROCESSORS_ONLN) >= 1); struct timex { int m; } ; struct itimerval it; T(getitimer(ITIMER_REAL, &it)); T(it.it_value.tv_sec); T(getitimer(5, &it));
    return 0;
}
