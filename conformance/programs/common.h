/* Show a call and its result: errno's name if it failed. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static inline void show(const char *text, long result) {
    int e = errno;
    if (result == -1) printf("%s = -1 %s\n", text, strerrorname_np(e) ? strerrorname_np(e) : "?");
    else printf("%s = %ld\n", text, result);
    fflush(stdout);
}
/* The call as written, its result as a number. */
#define T(call) (errno = 0, show(#call, (long)(call)))
/* Only whether it succeeded. */
#define OK(call) (errno = 0, show(#call, (long)(call) == -1 ? -1 : 0))
