// cc: -O1 -D_GNU_SOURCE
// open(2) and its relatives: flags, O_PATH, O_TMPFILE, openat2, AT_EMPTY_PATH, directories as streams, modes and owners.
#include "common.h"
#include <dirent.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
static void mode(const char *p) { struct stat s; if (lstat(p, &s)) show(p, -1); else printf("%s mode %o nlink %d size %ld\n", p, s.st_mode, (int)s.st_nlink, S_ISDIR(s.st_mode) ? 0 : (long)s.st_size); }
static long open2(const char *p, unsigned long flags, unsigned long m, unsigned long resolve) { struct open_how h = {flags, m, resolve}; return syscall(SYS_openat2, AT_FDCWD, p, &h, sizeof h); }
int main(void) {
    char b[600]; struct stat s; umask(0);
    /* O_APPEND: every write at the end, pwrite too. */
    int f = open("app", O_RDWR | O_CREAT | O_APPEND, 0666), g = open("app", O_RDWR);
    T(write(f, "one", 3)); T(write(g, "TWO!!", 5)); T(write(f, "three", 5)); T(lseek(f, 0, SEEK_CUR)); T(lseek(f, 1, SEEK_SET)); T(write(f, "x", 1)); T(lseek(f, 0, SEEK_CUR)); T(pwrite(f, "p", 1, 0)); T(pread(g, b, 100, 0)); printf("%.12s\n", b);
    T(ftruncate(f, 2)); T(write(g, "z", 1)); T(fstat(f, &s)); T(s.st_size); T(fcntl(g, F_SETFL, O_APPEND)); T(write(g, "q", 1)); T(lseek(g, 0, SEEK_CUR)); T(fcntl(g, F_SETFL, 0)); T(fcntl(g, F_GETFL) & O_APPEND);
    T(open("app", O_RDONLY | O_TRUNC) > 0); mode("app");
    /* O_PATH */
    T(mkdir("d", 0755)); int p = open("d", O_PATH | O_DIRECTORY); OK(p); T(read(p, b, 1)); T(fchmod(p, 0700)); T(fstat(p, &s)); T(fcntl(p, F_GETFL) & O_PATH); T(openat(p, "in", O_CREAT | O_WRONLY, 0604) > 0); T(fchdir(p)); mode("in"); T(chdir("..")); T(ioctl(p, FIONREAD, &s)); T(lseek(p, 0, SEEK_SET)); T(dup(p) > 0); T(open("app", O_PATH | O_RDWR | O_CREAT, 0) > 0); T(open("none", O_PATH));
    T(symlink("app", "sl")); int sl = open("sl", O_PATH | O_NOFOLLOW); OK(sl); T(fstat(sl, &s)); T(S_ISLNK(s.st_mode)); T(readlinkat(sl, "", b, 100)); T(readlinkat(AT_FDCWD, "", b, 100)); T(fstatat(sl, "", &s, AT_EMPTY_PATH)); T(s.st_size); T(openat(sl, "", O_RDONLY)); T(faccessat(sl, "", F_OK, 0));
    int op = open("app", O_PATH); snprintf(b, 100, "/proc/self/fd/%d", op); int again = open(b, O_RDWR); OK(again); T(write(again, "again", 5)); T(linkat(op, "", AT_FDCWD, "hl", AT_EMPTY_PATH)); T(linkat(AT_FDCWD, b, AT_FDCWD, "hl2", AT_SYMLINK_FOLLOW)); mode("hl2"); T(fchmodat(AT_FDCWD, b, 0640, 0)); mode("app"); T(fchownat(op, "", getuid(), getgid(), AT_EMPTY_PATH)); T(fgetxattr(op, "user.x", b, 10)); T(close(op));
    /* O_TMPFILE */
    int t = open(".", O_TMPFILE | O_RDWR, 0640); OK(t); T(write(t, "tmp", 3)); T(fstat(t, &s)); printf("%o %d %ld\n", s.st_mode, (int)s.st_nlink, (long)s.st_size); snprintf(b, 100, "/proc/self/fd/%d", t); T(linkat(AT_FDCWD, b, AT_FDCWD, "fromtmp", AT_SYMLINK_FOLLOW)); mode("fromtmp"); int t2 = open("d", O_TMPFILE | O_WRONLY | O_EXCL, 0600); OK(t2); snprintf(b, 100, "/proc/self/fd/%d", t2); T(linkat(AT_FDCWD, b, AT_FDCWD, "no", AT_SYMLINK_FOLLOW)); T(open(".", O_TMPFILE | O_RDONLY, 0600)); T(open("app", O_TMPFILE | O_RDWR, 0600)); T(open("none", O_TMPFILE | O_RDWR, 0600));
    /* Errors and odd combinations. */
    T(open("app", O_DIRECTORY)); T(open("d", O_WRONLY)); T(open("d", O_RDONLY | O_CREAT, 0600)); T(open("new/", O_CREAT | O_RDWR, 0600)); T(open("app/", O_RDONLY)); T(open("sl", O_CREAT | O_EXCL | O_RDWR, 0600)); T(open("sl", O_NOFOLLOW)); T(open("d", O_CREAT | O_DIRECTORY, 0700)); T(open("nd", O_CREAT | O_DIRECTORY, 0700)); T(open("x", O_CREAT | O_WRONLY, 0) > 0); T(open("x", O_RDONLY)); mode("x"); T(open("ro", O_CREAT | O_RDWR, 0444) > 0); T(open("ro", O_RDWR)); T(open(NULL, O_RDONLY)); T(open("app", 3) > 0); T(open("app", O_RDONLY | O_NOATIME) > 0);
    T(open2("app", O_RDONLY, 0, 0) > 0); T(open2("app", O_RDONLY, 0644, 0)); T(open2("app", 1UL << 40, 0, 0)); T(open2("sl", O_RDONLY, 0, RESOLVE_NO_SYMLINKS)); T(open2("../x", O_RDONLY, 0, RESOLVE_BENEATH)); T(open2("/etc/passwd", O_RDONLY, 0, RESOLVE_BENEATH)); T(open2("d/in", O_RDONLY, 0, RESOLVE_BENEATH) > 0); T(open2("/d/in", O_RDONLY, 0, RESOLVE_IN_ROOT) > 0); T(open2("/../../d/in", O_RDONLY, 0, RESOLVE_IN_ROOT) > 0); T(open2("/proc/self/fd/0", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS)); T(open2("/proc/self/status", O_RDONLY, 0, RESOLVE_NO_XDEV)); T(open2("new2", O_CREAT | O_RDWR, 0600, RESOLVE_BENEATH) > 0); T(open2("sl", O_CREAT | O_RDWR, 0600, RESOLVE_BENEATH) > 0); T(open2("d/..", O_RDONLY, 0, RESOLVE_BENEATH) > 0); T(open2("d/../..", O_RDONLY, 0, RESOLVE_BENEATH)); T(open2("app", O_RDONLY, 0, 1 << 20)); T(syscall(SYS_openat2, AT_FDCWD, "app", b, 8));
    /* Directory streams. */
    T(mkdir("many", 0755)); for (int i = 0; i < 300; i++) { snprintf(b, 100, "many/file-%03d", i); close(open(b, O_CREAT | O_WRONLY, 0600)); }
    DIR *d = opendir("many"); int n = 0; long pos[400]; char names[400][32]; struct dirent *e; while (pos[n] = telldir(d), (e = readdir(d))) { snprintf(names[n], 32, "%s", e->d_name); n++; } T(n);
    int bad = 0; for (int i = n - 1; i >= 0; i -= 37) { seekdir(d, pos[i]); e = readdir(d); bad += !e || strcmp(e->d_name, names[i]); } T(bad); rewinddir(d); n = 0; while ((e = readdir(d))) { if (e->d_name[0] == 'f' && n++ % 2) unlinkat(dirfd(d), e->d_name, 0); } T(n); rewinddir(d); n = 0; while (readdir(d)) n++; T(n); T(rmdir("many")); T(syscall(SYS_getdents64, f, b, 500)); T(syscall(SYS_getdents64, dirfd(d), b, 4)); T(lseek(dirfd(d), 0, SEEK_SET)); closedir(d);
    int dd = open("d", O_RDONLY); T(unlink("d/in")); T(rmdir("d")); T(syscall(SYS_getdents64, dd, b, 500)); T(openat(dd, "y", O_CREAT | O_RDWR, 0600)); T(fstat(dd, &s)); T(s.st_nlink); T(mkdirat(dd, "z", 0700));
    /* Modes. */
    T(mkdir("sg", 02775)); mode("sg"); T(chmod("sg", 02775)); mode("sg"); T(mkdir("sg/sub", 0755)); mode("sg/sub"); close(open("sg/f", O_CREAT | O_RDWR, 0664)); mode("sg/f"); T(mkdir("st", 0777)); T(chmod("st", 01777)); mode("st"); close(open("su", O_CREAT | O_RDWR, 0755)); T(chmod("su", 06755)); mode("su"); int su = open("su", O_RDWR); T(write(su, "x", 1)); mode("su"); T(chmod("su", 06711)); T(chown("su", getuid(), getgid())); mode("su"); T(chmod("su", 06755)); T(ftruncate(su, 0)); mode("su"); T(chmod("su", 02644)); T(write(su, "x", 1)); mode("su"); T(access("su", X_OK)); T(rename("su", "su2")); mode("su2"); T(link("su2", "su3")); mode("su3"); T(chmod("sl", 0600)); mode("app"); T(fchmodat(AT_FDCWD, "sl", 0600, AT_SYMLINK_NOFOLLOW));
    umask(027); close(open("um", O_CREAT | O_RDWR, 0666)); mode("um"); T(mkdir("umd", 0777)); mode("umd"); T(mkfifo("umf", 0666)); mode("umf"); T(umask(0)); T(chmod("umd", 0)); T(open("umd", O_RDONLY)); T(chdir("umd")); T(stat("umd/x", &s)); T(chmod("umd", 0400)); T(open("umd", O_RDONLY) > 0); T(stat("umd/x", &s)); T(chmod("umd", 0700));
    struct statx x; T(statx(AT_FDCWD, "app", 0, STATX_ALL, &x)); printf("%x %o %lx\n", x.stx_mask & (STATX_BASIC_STATS), x.stx_mode, (long)(x.stx_attributes & STATX_ATTR_APPEND)); T(statx(AT_FDCWD, "app", 0x8000, 0, &x)); T(statx(AT_FDCWD, "app", 0, 0x80000000, &x)); T(statx(f, "", AT_EMPTY_PATH, STATX_SIZE, &x)); T(statx(AT_FDCWD, "app", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, 0, &x)); T(statx(AT_FDCWD, "sl", AT_SYMLINK_NOFOLLOW, STATX_MODE, &x)); printf("%o\n", x.stx_mode);
    T(setxattr("app", "bad", "v", 1, 0)); T(getxattr("app", "user.none", b, 10)); T(listxattr("app", b, 100)); T(ftruncate(open("app", O_RDONLY), 0)); T(truncate("d/none", 0)); T(truncate(".", 0)); T(mknod("blk", S_IFBLK | 0600, 0x700)); T(mknod("chr", S_IFCHR | 0600, 0x103)); T(mknod("so", S_IFSOCK | 0600, 0)); mode("so"); T(open("so", O_RDONLY)); T(mknod("wrong", S_IFDIR | 0600, 0)); T(unlink("so"));
    /* Times of files do not go back, whoever sets them. */
    int back = 0, tf = open("times", O_CREAT | O_RDWR, 0600); struct stat ts[3]; for (int i = 0; i < 50; i++) { pwrite(tf, "x", 1, 0); fstat(tf, &ts[0]); futimens(tf, NULL); fstat(tf, &ts[1]); pwrite(tf, "y", 1, 0); fstat(tf, &ts[2]); for (int k = 0; k < 2; k++) back += ts[k + 1].st_mtim.tv_sec < ts[k].st_mtim.tv_sec || (ts[k + 1].st_mtim.tv_sec == ts[k].st_mtim.tv_sec && ts[k + 1].st_mtim.tv_nsec < ts[k].st_mtim.tv_nsec); } T(back);
    /* What is left has no set-id bits: a job may keep these to itself. */
    T(chmod("sg", 0775)); T(chmod("sg/sub", 0755)); T(chmod("su2", 0644));
    return 0;
}
