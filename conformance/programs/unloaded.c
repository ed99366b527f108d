// cc unloaded: -O2
// cc32 unloaded: -O2
// A library is used and unloaded; processes that are made then share what is known of its code.
#include <dlfcn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    double sum = 0; int s, statuses = 0;
    for (int round = 0; round < 4; round++) {
        void *m = dlopen("libm.so.6", RTLD_NOW);
        if (!m) { puts(dlerror()); return 1; }
        double (*lgamma_)(double) = (double (*)(double))dlsym(m, "lgamma"), (*cbrt_)(double) = (double (*)(double))dlsym(m, "cbrt");
        for (int i = 1; i < 50; i++) sum += lgamma_(i * 0.7) + cbrt_(i);
        dlclose(m);
        for (int i = 0; i < 8; i++) if (!fork()) { usleep(1000); _exit(i); }
        while (wait(&s) > 0) statuses += WEXITSTATUS(s);
    }
    printf("%.17g %d\n", sum, statuses);
    return 0;
}
