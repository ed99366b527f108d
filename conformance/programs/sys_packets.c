// cc: -O1 -D_GNU_SOURCE
// What the receiver of a datagram may ask about it.
#include "common.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
static void show_all(struct msghdr *m) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) { printf(" %d/%d:", c->cmsg_level, c->cmsg_type); unsigned char *d = CMSG_DATA(c); for (size_t i = 0; i < c->cmsg_len - CMSG_LEN(0); i++) printf("%02x", d[i]); }
    printf(" flags %x, %zu\n", m->msg_flags & ~MSG_CMSG_CLOEXEC, m->msg_controllen);
}
static void take(int s, size_t room) {
    char b[10]; union { char b[300]; struct cmsghdr c; } u; memset(&u, 0, sizeof u);
    struct iovec v = { b, sizeof b }; struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = u.b, .msg_controllen = room };
    T(recvmsg(s, &m, 0)); show_all(&m);
}
static int at(int family, struct sockaddr_in6 *a, socklen_t *l, int any) {
    int s = socket(family, SOCK_DGRAM, 0); memset(a, 0, sizeof *a); a->sin6_family = family;
    if (family == AF_INET) { *l = 16; if (!any) ((struct sockaddr_in *)a)->sin_addr.s_addr = htonl(INADDR_LOOPBACK); } else { *l = 28; if (!any) a->sin6_addr = in6addr_loopback; }
    if (bind(s, (void *)a, *l)) exit(0);
    getsockname(s, (void *)a, l); if (any) { if (family == AF_INET) ((struct sockaddr_in *)a)->sin_addr.s_addr = htonl(INADDR_LOOPBACK); else a->sin6_addr = in6addr_loopback; }
    return s;
}
static int on(int s, int level, int name) { int one = 1; return setsockopt(s, level, name, &one, sizeof one); }
int main(void) {
    struct sockaddr_in6 a; socklen_t l;
    for (int any = 0; any < 2; any++) {
        int s = at(AF_INET, &a, &l, any), c = socket(AF_INET, SOCK_DGRAM, 0);
        T(sendto(c, "x", 1, 0, (void *)&a, l)); take(s, 300);
        T(on(s, IPPROTO_IP, IP_PKTINFO)); T(on(s, IPPROTO_IP, IP_RECVTTL)); T(on(s, IPPROTO_IP, IP_RECVTOS));
        size_t rooms[] = { 300, 0, 8, 20, 30, 56 };
        for (int i = 0; i < 6; i++) { T(sendto(c, "abc", 3, 0, (void *)&a, l)); take(s, rooms[i]); }
    }
    for (int any = 0; any < 2; any++) {
        int s = at(AF_INET6, &a, &l, any), c = socket(AF_INET6, SOCK_DGRAM, 0);
        T(on(s, IPPROTO_IPV6, IPV6_RECVTCLASS)); T(on(s, IPPROTO_IPV6, IPV6_RECVHOPLIMIT)); T(on(s, IPPROTO_IPV6, IPV6_RECVPKTINFO));
        T(sendto(c, "abc", 3, 0, (void *)&a, l)); take(s, 300);
        T(sendto(c, "abc", 3, 0, (void *)&a, l)); take(s, 62);
        if (any) { struct sockaddr_in f = { .sin_family = AF_INET, .sin_port = a.sin6_port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }; c = socket(AF_INET, SOCK_DGRAM, 0); T(sendto(c, "four", 4, 0, (void *)&f, sizeof f)); take(s, 300); T(on(s, IPPROTO_IP, IP_PKTINFO)); T(sendto(c, "four", 4, 0, (void *)&f, sizeof f)); take(s, 300); }
    }
    int d = open("/", O_RDONLY | O_DIRECTORY); T(fcntl(d, F_NOTIFY, DN_MULTISHOT));
    return 0;
}
