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
static int with(int s, int level, int kind, int v, size_t len) {
    union { char b[64]; struct cmsghdr c; } u = {0}; struct iovec i = { "b", 1 }; struct msghdr m = { .msg_iov = &i, .msg_iovlen = 1, .msg_control = u.b, .msg_controllen = CMSG_SPACE(len) };
    u.c.cmsg_level = level; u.c.cmsg_type = kind; u.c.cmsg_len = CMSG_LEN(len); memcpy(CMSG_DATA(&u.c), &v, len < 4 ? len : 4); return sendmsg(s, &m, 0);
}
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
    /* Hops and class as the sender wants them. */
    {
        int s = at(AF_INET, &a, &l, 0), c = socket(AF_INET, SOCK_DGRAM, 0), v = 9; T(on(s, IPPROTO_IP, IP_RECVTTL)); T(on(s, IPPROTO_IP, IP_RECVTOS)); T(setsockopt(c, IPPROTO_IP, IP_TTL, &v, sizeof v)); v = 0x10; T(setsockopt(c, IPPROTO_IP, IP_TOS, &v, sizeof v)); T(connect(c, (void *)&a, l)); T(write(c, "a", 1)); take(s, 300);
        T(with(c, IPPROTO_IP, IP_TTL, 3, 4)); take(s, 300); T(with(c, IPPROTO_IP, IP_TTL, 0, 4)); T(with(c, IPPROTO_IP, IP_TTL, 256, 4)); T(with(c, IPPROTO_IP, IP_TTL, 3, 5)); T(with(c, IPPROTO_IP, IP_TOS, 0x20, 4)); take(s, 300); T(with(c, IPPROTO_IP, IP_TOS, 0x20, 1)); take(s, 300);
        s = at(AF_INET6, &a, &l, 0); c = socket(AF_INET6, SOCK_DGRAM, 0); T(on(s, IPPROTO_IPV6, IPV6_RECVHOPLIMIT)); T(on(s, IPPROTO_IPV6, IPV6_RECVTCLASS)); v = 7; T(setsockopt(c, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &v, sizeof v)); v = 0x30; T(setsockopt(c, IPPROTO_IPV6, IPV6_TCLASS, &v, sizeof v)); T(connect(c, (void *)&a, l)); T(write(c, "a", 1)); take(s, 300); T(with(c, IPPROTO_IPV6, IPV6_HOPLIMIT, 2, 4)); take(s, 300); T(with(c, IPPROTO_IPV6, IPV6_HOPLIMIT, -1, 4)); take(s, 300); T(with(c, IPPROTO_IPV6, IPV6_TCLASS, 0x40, 4)); take(s, 300); T(with(c, IPPROTO_IPV6, IPV6_HOPLIMIT, 256, 4)); T(with(c, IPPROTO_IPV6, IPV6_TCLASS, 1, 5));
    }
    /* UDP-Lite has ports of its own. */
    { int s = at(AF_INET, &a, &l, 0), u = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE), c = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE), v = 0; socklen_t n = sizeof v; T(bind(u, (void *)&a, l)); T(sendto(c, "lite", 4, 0, (void *)&a, l)); take(u, 300); T(recv(s, &v, 1, MSG_DONTWAIT)); T(getsockopt(u, SOL_SOCKET, SO_PROTOCOL, &v, &n)); printf("%d\n", v); v = 12; T(setsockopt(u, IPPROTO_UDPLITE, 10, &v, sizeof v)); v = 0; T(getsockopt(u, IPPROTO_UDPLITE, 10, &v, &n)); printf("%d\n", v); T(getsockopt(s, IPPROTO_UDPLITE, 10, &v, &n)); }
    /* Shared ports; a packet that is too long for nobody. */
    { static char big[70000]; char b[10]; int s = at(AF_INET, &a, &l, 0), t = socket(AF_INET, SOCK_DGRAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0), c = socket(AF_INET, SOCK_DGRAM, 0); T(bind(t, (void *)&a, l)); T(on(t, SOL_SOCKET, SO_REUSEADDR)); T(bind(t, (void *)&a, l)); T(on(s, SOL_SOCKET, SO_REUSEADDR)); T(bind(t, (void *)&a, l)); T(bind(u, (void *)&a, l)); T(sendto(c, "last", 4, 0, (void *)&a, l)); T(recv(s, b, 9, MSG_DONTWAIT)); T(recv(t, b, 9, MSG_DONTWAIT)); close(t); T(sendto(c, "first", 5, 0, (void *)&a, l)); T(recv(s, b, 9, MSG_DONTWAIT)); close(s); T(sendto(c, big, sizeof big, 0, (void *)&a, l)); T(bind(u, (void *)&a, l)); }
    int d = open("/", O_RDONLY | O_DIRECTORY); T(fcntl(d, F_NOTIFY, DN_MULTISHOT));
    return 0;
}
