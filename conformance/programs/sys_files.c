// cc: -O1 -D_GNU_SOURCE
// Files, folders, links, permissions, descriptors.
#include "common.h"
#include <dirent.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
static void list(const char *path) {
    DIR *d = opendir(path);
    if (!d) { T(-1); return; }
    char *names[64]; int n = 0;
    for (struct dirent *e; (e = readdir(d)) && n < 64;) {
        char buf[300]; snprintf(buf, sizeof buf, "%s:%d", e->d_name, e->d_type); names[n++] = strdup(buf);
    }
    closedir(d);
    qsort(names, (size_t)n, sizeof *names, by_name);
    for (int i = 0; i < n; i++) printf("  %s\n", names[i]);
}
static void stat_of(const char *path) {
    struct stat s;
    if (lstat(path, &s)) { printf("lstat %s: %s\n", path, strerrorname_np(errno)); return; }
    printf("lstat %s: mode %o nlink %d size %ld uid %d gid %d blksize>0 %d\n", path, s.st_mode, (int)s.st_nlink, S_ISDIR(s.st_mode) ? 0 : (long)s.st_size, (int)s.st_uid, (int)s.st_gid, s.st_blksize > 0);
}
int main(void) {
    char buf[256] = "";
    umask(022);
    T(open("no", O_RDONLY)); T(open("no/file", O_RDWR | O_CREAT, 0644)); T(open("", O_RDONLY)); T(open(".", O_RDWR));
    int fd = open("a", O_RDWR | O_CREAT | O_EXCL, 0666);
    OK(fd); T(open("a", O_CREAT | O_EXCL | O_RDWR, 0600)); T(open("a", O_RDONLY | O_DIRECTORY)); T(open("a/b", O_RDONLY));
    T(write(fd, "hello world", 11)); T(lseek(fd, 0, SEEK_SET)); T(read(fd, buf, 5)); puts(buf); T(lseek(fd, -3, SEEK_END)); T(read(fd, buf, 100));
    T(read(fd, buf, 100)); T(lseek(fd, -100, SEEK_CUR)); T(lseek(fd, 5, 77)); T(lseek(fd, 100, SEEK_SET)); T(write(fd, "x", 1)); stat_of("a");
    T(lseek(fd, 0, SEEK_DATA)); T(pread(fd, buf, 10, 6)); T(pwrite(fd, "WORLD", 5, 6)); T(pread(fd, buf, 3, 1000)); T(pwrite(fd, "x", 1, -1));
    struct iovec v[2] = {{buf, 3}, {buf + 3, 4}};
    T(lseek(fd, 0, SEEK_SET)); T(readv(fd, v, 2)); printf("%.7s\n", buf); T(writev(fd, v, 2)); T(readv(fd, v, -1)); T(preadv(fd, v, 2, 2)); T(readv(fd, v, 0));
    T(ftruncate(fd, 5)); stat_of("a"); T(ftruncate(fd, 4096)); stat_of("a"); T(ftruncate(fd, -1)); T(truncate("a", 7)); T(truncate("none", 7)); T(fsync(fd)); T(fdatasync(fd)); T(fallocate(fd, 0, 0, 8192)); stat_of("a");
    T(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK)); T(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK)); T(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK)); T(fcntl(fd, F_GETFD)); T(fcntl(fd, F_SETFD, FD_CLOEXEC)); T(fcntl(fd, F_GETFD)); T(fcntl(99, F_GETFD)); T(fcntl(fd, 12345));
    T(write(fd, "end", 3)); stat_of("a");
    T(dup(fd)); T(dup2(fd, 20)); T(fcntl(20, F_GETFD)); T(dup3(fd, fd, 0)); T(dup3(fd, 21, O_CLOEXEC)); T(fcntl(21, F_GETFD)); T(dup2(98, 5)); T(dup2(fd, fd) == fd); T(fcntl(fd, F_DUPFD, 30)); T(fcntl(fd, F_DUPFD_CLOEXEC, 30)); T(close(20)); T(close(20)); T(close(-1)); T(close_range(21, 40, 0)); T(fcntl(30, F_GETFD));
    T(mkdir("d", 0777)); T(mkdir("d", 0777)); T(mkdir("d/e/f", 0777)); T(mkdir("d/e", 0700)); stat_of("d"); stat_of("d/e"); T(rmdir("d")); T(rmdir("a")); T(rmdir("none")); T(unlink("d")); T(unlink("none")); T(rmdir("d/.")); T(mkdirat(AT_FDCWD, "d/g", 0755));
    T(symlink("a", "link")); T(symlink("a", "link")); T(symlink("loop", "loop")); T(open("loop", O_RDONLY)); T(open("link", O_RDONLY | O_NOFOLLOW)); OK(open("link", O_RDONLY)); T(readlink("link", buf, 100)); T(readlink("link", buf, 0)); T(readlink("a", buf, 100)); stat_of("link"); T(symlink("nowhere", "dangling")); T(open("dangling", O_RDONLY)); T(access("dangling", F_OK)); OK(open("dangling", O_WRONLY | O_CREAT, 0600)); stat_of("nowhere");
    T(link("a", "hard")); stat_of("hard"); T(link("a", "hard")); T(link("d", "dlink")); T(link("none", "x")); T(link("link", "linklink")); stat_of("linklink");
    T(rename("hard", "moved")); T(rename("moved", "d/e/moved")); T(rename("d", "d/e/x")); T(rename("a", "d")); T(rename("d", "a")); T(rename("none", "x")); T(rename("d/e", "d/g")); stat_of("d/g"); T(renameat2(AT_FDCWD, "a", AT_FDCWD, "link", RENAME_NOREPLACE)); T(renameat2(AT_FDCWD, "a", AT_FDCWD, "link", RENAME_EXCHANGE)); stat_of("a"); stat_of("link"); T(renameat2(AT_FDCWD, "a", AT_FDCWD, "link", RENAME_EXCHANGE)); T(rename("a", "a"));
    T(chmod("a", 0751)); stat_of("a"); T(fchmod(fd, 04644)); stat_of("a"); T(chmod("none", 0)); T(chmod("a", 0)); T(access("a", R_OK)); T(access("a", F_OK)); T(access("a", 99)); T(open("a", O_RDONLY)); T(chmod("a", 0644)); T(access("a", X_OK)); T(access("a", R_OK | W_OK)); T(faccessat(AT_FDCWD, "a", R_OK, AT_EACCESS)); T(chown("a", 0, 0)); T(chown("a", -1, -1)); T(chown("a", getuid(), getgid())); T(fchownat(AT_FDCWD, "link", getuid(), getgid(), AT_SYMLINK_NOFOLLOW));
    struct timespec ts[2] = {{1000000000, 5000}, {1100000000, 7000}};
    struct stat s; T(futimens(fd, ts)); T(fstat(fd, &s)); printf("%ld %ld %ld %ld\n", s.st_atim.tv_sec, s.st_atim.tv_nsec, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
    ts[0].tv_nsec = UTIME_OMIT; ts[1].tv_sec = 5; T(utimensat(AT_FDCWD, "a", ts, 0)); T(stat("a", &s)); printf("%ld %ld\n", s.st_atim.tv_sec, s.st_mtim.tv_sec); ts[1].tv_nsec = 2000000000; T(utimensat(AT_FDCWD, "a", ts, 0)); T(utimensat(AT_FDCWD, "none", NULL, 0));
    int dir = open("d", O_RDONLY | O_DIRECTORY); OK(dir); T(write(dir, "x", 1)); T(read(dir, buf, 1)); T(fstat(dir, &s)); int f2 = openat(dir, "inner", O_CREAT | O_RDWR, 0640); OK(f2); T(fstatat(dir, "inner", &s, 0)); T(fstatat(dir, "", &s, AT_EMPTY_PATH)); T(fstatat(fd, "x", &s, 0)); T(fstatat(dir, "", &s, 0)); T(unlinkat(dir, "inner", AT_REMOVEDIR)); T(unlinkat(dir, "inner", 0)); T(write(f2, "still", 5)); T(fstat(f2, &s)); printf("nlink %d size %ld\n", (int)s.st_nlink, (long)s.st_size); T(openat(fd, "x", O_RDONLY)); T(openat(99, "x", O_RDONLY)); T(fchdir(dir)); puts(getcwd(buf, 100)); T(chdir("..")); T(chdir("none")); T(chdir("a")); puts(getcwd(buf, 100)); T((long)getcwd(buf, 2)); T(fchdir(fd));
    struct statx x; T(statx(AT_FDCWD, "a", 0, STATX_BASIC_STATS, &x)); printf("statx %o %d %d\n", x.stx_mode, (int)x.stx_size, (x.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    struct statfs fs; OK(statfs(".", &fs)); printf("namelen %d\n", (int)fs.f_namelen); OK(fstatfs(fd, &fs)); T(statfs("none", &fs));
    T(flock(fd, LOCK_EX | LOCK_NB)); int f3 = open("a", O_RDWR); T(flock(f3, LOCK_SH | LOCK_NB)); T(flock(fd, LOCK_UN)); T(flock(f3, LOCK_SH | LOCK_NB));
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10}; T(fcntl(fd, F_SETLK, &fl)); fl.l_type = F_RDLCK; T(fcntl(fd, F_GETLK, &fl)); T(fl.l_type); close(f3);
    T(copy_file_range(fd, &(off_t){0}, f2, &(off_t){0}, 100, 0)); T(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL)); T(mkfifo("fifo", 0600)); stat_of("fifo"); T(open("fifo", O_WRONLY | O_NONBLOCK)); OK(open("fifo", O_RDONLY | O_NONBLOCK)); T(mknod("reg", S_IFREG | 0600, 0)); stat_of("reg"); T(mknod("dev", S_IFBLK | 0600, 0x100)); int tmp = open(".", O_TMPFILE | O_RDWR, 0600); OK(tmp); T(write(tmp, "abc", 3));
    memset(buf, 'n', 255); T(open(buf, O_CREAT | O_RDWR, 0600)); char longer[5000]; memset(longer, 'p', 4999); longer[4999] = 0; T(open(longer, O_RDONLY)); T(stat((char *)8, &s)); T(read(fd, (char *)8, 1)); T(write(fd, (char *)8, 1)); T(open("a", O_RDONLY | O_TRUNC | O_EXCL)); T(creat("fresh", 0444)); stat_of("fresh"); T(open("fresh", O_WRONLY)); T(open("/dev/null/x", O_RDONLY));
    list("."); list("d"); T(open("/nodir/x", O_CREAT | O_RDWR, 0600)); T(umask(077)); T(umask(022));
    OK(open("/dev/null", O_RDWR)); int z = open("/dev/zero", O_RDONLY); T(read(z, buf, 10)); T(buf[3]); int full = open("/dev/full", O_WRONLY); T(write(full, "x", 1)); T(isatty(fd)); T(sync_file_range(fd, 0, 0, 0)); T(access("d", W_OK | X_OK)); T(unlink("fifo"));
    return 0;
}
