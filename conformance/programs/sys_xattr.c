// cc: -O1 -D_GNU_SOURCE
// Extended attributes: in a folder of the host and in memory.
#include "common.h"
#include <sys/stat.h>
#include <sys/xattr.h>
static int order(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
static void names(const char *buf, long n) {
    const char *all[50]; int k = 0; printf("%ld:", n); for (const char *p = buf; p < buf + n; p += strlen(p) + 1) all[k++] = p;
    qsort(all, k, sizeof *all, order); for (int i = 0; i < k; i++) printf(" %s", all[i]); printf("\n");
}
static void in(const char *dir) {
    char b[70000], long_name[300]; struct stat before, after; int fd, p[2]; memset(long_name, 'n', sizeof long_name); memcpy(long_name, "user.", 5); long_name[299] = 0;
    T(chdir(dir)); unlink("x"); unlink("l"); rmdir("xd"); fd = open("x", O_CREAT | O_RDWR, 0644); T(fd != -1); T(symlink("x", "l")); T(mkdir("xd", 0755));
    T(listxattr("x", b, sizeof b)); T(getxattr("x", "user.a", b, 10)); T(setxattr("x", "user.a", "value", 5, XATTR_REPLACE)); T(setxattr("x", "user.a", "value", 5, XATTR_CREATE)); T(setxattr("x", "user.a", "value", 5, XATTR_CREATE)); T(getxattr("x", "user.a", NULL, 0)); T(getxattr("x", "user.a", b, 4)); T(getxattr("x", "user.a", b, 5)); printf("%.5s\n", b); T(setxattr("x", "user.a", "longer value", 12, XATTR_REPLACE)); T(fgetxattr(fd, "user.a", b, sizeof b)); printf("%.12s\n", b);
    T(fsetxattr(fd, "user.empty", "", 0, 0)); T(getxattr("l", "user.empty", b, 10)); T(setxattr("l", "user.by link", "\0\1", 2, 0)); T(flistxattr(fd, NULL, 0)); T(flistxattr(fd, b, 8)); names(b, listxattr("x", b, sizeof b)); T(lgetxattr("l", "user.a", b, 10)); T(lsetxattr("l", "user.a", "v", 1, 0)); T(llistxattr("l", b, sizeof b)); T(lremovexattr("l", "user.a"));
    T(removexattr("x", "user.none")); T(removexattr("x", "user.empty")); T(fremovexattr(fd, "user.by link")); names(b, flistxattr(fd, b, sizeof b)); T(setxattr("xd", "user.d", "directory", 9, 0)); T(getxattr("xd", "user.d", b, sizeof b)); T(rename("x", "y")); T(getxattr("y", "user.a", b, sizeof b)); T(link("y", "x")); T(setxattr("x", "user.a", "z", 1, 0)); T(getxattr("y", "user.a", b, sizeof b)); T(unlink("y"));
    /* What is not given. */
    T(setxattr("x", "user.", "v", 1, 0)); T(setxattr("x", "", "v", 1, 0)); T(setxattr("x", long_name, "v", 1, 0)); long_name[255] = 0; T(getxattr("x", long_name, b, 1)); T(setxattr("x", "user.a", b, 65537, 0)); T(setxattr("x", "user.a", "v", 1, 4)); T(setxattr("x", "user.a", (void *)8, 1, 0)); T(getxattr("x", "user.a", (void *)8, 100)); T(getxattr("x", (void *)8, b, 1)); T(setxattr("x", "bad", "v", 1, 0)); T(getxattr("x", "bad", b, 1)); T(setxattr("x", "unknown.a", "v", 1, 0)); T(removexattr("x", "unknown.a")); T(setxattr("x", "trusted.a", "v", 1, 0)); T(getxattr("x", "trusted.a", b, 1)); T(setxattr("x", "security.other", "v", 1, 0)); T(getxattr("x", "security.other", b, 1)); T(getxattr("x", "system.posix_acl_access", b, 1)); T(getxattr("none", "user.a", b, 1)); T(setxattr("none", "user.a", "v", 1, 9)); T(fsetxattr(-1, "user.a", "v", 1, 0)); T(fgetxattr(-1, "", b, 1)); pipe(p); T(fsetxattr(p[0], "user.a", "v", 1, 0)); T(fgetxattr(p[0], "user.a", b, 1)); int path = open("x", O_PATH); T(fgetxattr(path, "user.a", b, 1));
    /* Permission. */
    T(chmod("x", 0444)); T(setxattr("x", "user.p", "v", 1, 0)); T(getxattr("x", "user.a", b, 5)); T(chmod("x", 0222)); T(getxattr("x", "user.a", b, 5)); T(setxattr("x", "user.a", "w", 1, 0)); names(b, listxattr("x", b, sizeof b)); T(chmod("x", 0644));
    stat("x", &before); usleep(20000); T(setxattr("x", "user.t", "1", 1, 0)); stat("x", &after); printf("%d %d\n", before.st_ctim.tv_nsec != after.st_ctim.tv_nsec || before.st_ctim.tv_sec != after.st_ctim.tv_sec, before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    char many[40]; long sum = 0; for (int i = 0; i < 20; i++) { sprintf(many, "user.many-%d", i); sum += setxattr("x", many, many, strlen(many), 0); } for (int i = 0; i < 20; i++) { sprintf(many, "user.many-%d", i); sum += getxattr("x", many, b, sizeof b) == (long)strlen(many) && !memcmp(b, many, strlen(many)); } printf("%ld\n", sum); T(listxattr("x", b, sizeof b));
    unlink("x"); unlink("l"); rmdir("xd"); close(fd);
}
int main(void) { char t[] = "/tmp/xattr-XXXXXX"; in("."); in(mkdtemp(t)); return rmdir(t); }
