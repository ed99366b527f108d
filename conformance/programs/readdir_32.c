// cc32 readdir_32: -O1
// A program without large file support reads a folder: positions and inode numbers have to fit 32 bits.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    DIR *d = opendir(argc > 1 ? argv[1] : ".");
    if (!d) return perror("opendir"), 1;
    char names[1000][32]; long at[1000]; int n = 0, bad = 0, sum = 0; struct dirent *e;
    errno = 0;
    for (;;) { long p = telldir(d); e = readdir(d); if (!e || n == 1000) break; at[n] = p; snprintf(names[n++], 32, "%s", e->d_name); sum += (int)strlen(e->d_name); bad += e->d_ino == 0; }
    printf("%d names, %d bytes, %d without inode number, errno %d\n", n, sum, bad, errno);
    for (int k = 0; k < n; k += 7) { seekdir(d, at[n - 1 - k]); e = readdir(d); if (!e || strcmp(e->d_name, names[n - 1 - k])) bad++; }
    rewinddir(d); e = readdir(d); printf("%d wrong after seekdir, first again %d\n", bad, e && !strcmp(e->d_name, names[0]));
    return closedir(d);
}
