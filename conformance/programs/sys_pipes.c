// cc: -O1 -D_GNU_SOURCE
// Pipes, poll, select, epoll, eventfd, timerfd, signalfd, Unix sockets.
#include "common.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
int main(void) {
    signal(SIGPIPE, SIG_IGN);
    int p[2]; char buf[70000]; int n = 0;
    T(pipe2(p, O_NONBLOCK | O_CLOEXEC)); T(fcntl(p[0], F_GETFL) & O_NONBLOCK); T(read(p[0], buf, 10)); T(write(p[1], "abc", 3)); T(ioctl(p[0], FIONREAD, &n)); T(n); T(read(p[0], buf, 2)); T(read(p[0], buf, 2)); T(lseek(p[0], 0, SEEK_SET)); T(pread(p[0], buf, 1, 0)); memset(buf, 'x', sizeof buf); T(write(p[1], buf, 70000)); T(write(p[1], buf, 1)); T(fcntl(p[1], F_GETPIPE_SZ)); T(read(p[0], buf, 70000)); T(write(p[0], "x", 1)); T(read(p[1], buf, 1)); T(pipe2(p, 0x7777));
    struct pollfd pf[3] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}, {-1, POLLIN, 0}};
    T(poll(pf, 3, 0)); T(pf[0].revents); T(pf[1].revents); T(write(p[1], "z", 1)); T(poll(pf, 3, -1)); T(pf[0].revents); pf[2].fd = 77; T(poll(pf, 3, 0)); T(pf[2].revents); T(poll(NULL, 0, 10));
    fd_set r, w; FD_ZERO(&r); FD_ZERO(&w); FD_SET(p[0], &r); FD_SET(p[1], &w); T(select(20, &r, &w, NULL, NULL)); T(!!FD_ISSET(p[0], &r)); T(!!FD_ISSET(p[1], &w)); T(select(-1, NULL, NULL, NULL, NULL)); T(select(0, NULL, NULL, NULL, &(struct timeval){0, 1000}));
    int ep = epoll_create1(EPOLL_CLOEXEC); OK(ep); struct epoll_event e = {.events = EPOLLIN, .data.u64 = 42}, out[4];
    T(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &e)); T(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &e)); T(epoll_ctl(ep, EPOLL_CTL_MOD, p[1], &e)); T(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &e)); int f = open("plain", O_CREAT | O_RDWR, 0600); T(epoll_ctl(ep, EPOLL_CTL_ADD, f, &e)); T(epoll_ctl(ep, EPOLL_CTL_ADD, 99, &e)); T(epoll_wait(ep, out, 4, 0)); T(out[0].events); T(out[0].data.u64); T(epoll_wait(ep, out, 0, 0)); e.events = EPOLLIN | EPOLLET; T(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &e)); T(epoll_wait(ep, out, 4, 0)); T(epoll_wait(ep, out, 4, 0)); T(write(p[1], "y", 1)); T(epoll_wait(ep, out, 4, 0)); e.events = EPOLLIN | EPOLLONESHOT; T(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &e)); T(epoll_wait(ep, out, 4, 0)); T(epoll_wait(ep, out, 4, 0)); T(read(p[0], buf, 100)); T(close(p[1])); T(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &e)); T(epoll_wait(ep, out, 4, 0)); T(out[0].events); T(read(p[0], buf, 1)); T(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL)); T(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL)); T(epoll_wait(ep, out, 4, 5));
    int q[2]; pipe(q); close(q[0]); T(write(q[1], "x", 1)); struct pollfd pq = {q[1], POLLOUT, 0}; T(poll(&pq, 1, 0)); T(pq.revents);
    int ev = eventfd(3, EFD_NONBLOCK); uint64_t v; T(read(ev, &v, 8)); T(v); T(read(ev, &v, 8)); v = 5; T(write(ev, &v, 8)); v = ~0ull; T(write(ev, &v, 8)); v = ~0ull - 6; T(write(ev, &v, 8)); T(read(ev, &v, 4)); T(read(ev, &v, 8)); T(v == ~0ull - 1); int sem = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK); T(read(sem, &v, 8)); T(v); T(read(sem, &v, 8)); T(read(sem, &v, 8));
    int tf = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK); OK(tf); struct itimerspec its = {{0, 2000000}, {0, 1000000}}, cur; T(timerfd_settime(tf, 0, &its, NULL)); struct pollfd pt = {tf, POLLIN, 0}; T(poll(&pt, 1, 2000)); usleep(10000); T(read(tf, &v, 8)); T(v >= 3); T(timerfd_gettime(tf, &cur)); T(cur.it_interval.tv_nsec); memset(&its, 0, sizeof its); T(timerfd_settime(tf, 0, &its, NULL)); T(read(tf, &v, 8)); its.it_value.tv_nsec = 2000000000; T(timerfd_settime(tf, 0, &its, NULL)); T(timerfd_create(77, 0));
    sigset_t set; sigemptyset(&set); sigaddset(&set, SIGUSR1); sigprocmask(SIG_BLOCK, &set, NULL); int sf = signalfd(-1, &set, SFD_NONBLOCK); OK(sf); struct signalfd_siginfo si; T(read(sf, &si, sizeof si)); raise(SIGUSR1); T(read(sf, &si, sizeof si)); T(si.ssi_signo); T(si.ssi_pid == (unsigned)getpid());
    int s[2]; T(socketpair(AF_UNIX, SOCK_STREAM, 0, s)); T(write(s[0], "hello", 5)); T(recv(s[1], buf, 2, MSG_PEEK)); T(recv(s[1], buf, 10, 0)); T(recv(s[1], buf, 10, MSG_DONTWAIT)); T(shutdown(s[0], SHUT_WR)); T(read(s[1], buf, 1)); T(send(s[0], "x", 1, MSG_NOSIGNAL)); T(write(s[1], "back", 4)); T(read(s[0], buf, 10));
    int d[2]; T(socketpair(AF_UNIX, SOCK_DGRAM, 0, d)); T(send(d[0], "one", 3, 0)); T(send(d[0], "three", 5, 0)); T(recv(d[1], buf, 2, 0)); T(recv(d[1], buf, 100, 0));
    struct iovec iov = {"f", 1}; char cb[CMSG_SPACE(sizeof(int))]; memset(cb, 0, sizeof cb); struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = cb, .msg_controllen = sizeof cb}; struct cmsghdr *cm = CMSG_FIRSTHDR(&m); cm->cmsg_level = SOL_SOCKET; cm->cmsg_type = SCM_RIGHTS; cm->cmsg_len = CMSG_LEN(sizeof(int)); memcpy(CMSG_DATA(cm), &f, sizeof f); T(sendmsg(s[1], &m, 0)); char got[4]; iov.iov_base = got; iov.iov_len = 4; memset(cb, 0, sizeof cb); T(recvmsg(s[0], &m, 0)); cm = CMSG_FIRSTHDR(&m); T(cm && cm->cmsg_type == SCM_RIGHTS); if (cm) { int g; memcpy(&g, CMSG_DATA(cm), sizeof g); T(write(g, "via fd", 6)); T(pread(f, buf, 10, 0)); }
    int l = socket(AF_UNIX, SOCK_STREAM, 0); OK(l); struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "sock"}; T(connect(l, (void *)&a, sizeof a)); T(bind(l, (void *)&a, sizeof a)); T(listen(l, 5)); int c = socket(AF_UNIX, SOCK_STREAM, 0); T(bind(c, (void *)&a, sizeof a)); T(connect(c, (void *)&a, sizeof a)); int x = accept4(l, NULL, NULL, SOCK_CLOEXEC); OK(x); T(write(c, "net", 3)); T(read(x, buf, 10)); close(c); T(read(x, buf, 10)); struct sockaddr_un back; socklen_t bl = sizeof back; T(getsockname(l, (void *)&back, &bl)); puts(back.sun_path); int type; socklen_t tl = sizeof type; T(getsockopt(l, SOL_SOCKET, SO_TYPE, &type, &tl)); T(type); T(socket(AF_UNIX, 77, 0)); T(socket(1234, SOCK_STREAM, 0)); T(unlink("sock")); T(accept(f, NULL, NULL));
    lseek(f, 0, SEEK_SET); pipe(q); T(sendfile(q[1], f, NULL, 100)); T(read(q[0], buf, 100)); T(splice(q[0], NULL, f, NULL, 1, SPLICE_F_NONBLOCK)); T(write(q[1], "spliced", 7)); T(splice(q[0], NULL, f, NULL, 100, 0)); int t[2]; pipe(t); write(q[1], "tee", 3); T(tee(q[0], t[1], 100, 0)); T(read(t[0], buf, 100)); T(read(q[0], buf, 100)); struct iovec vs = {"vm", 2}; T(vmsplice(q[1], &vs, 1, 0)); T(read(q[0], buf, 100));
    return 0;
}
