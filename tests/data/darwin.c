/* Lets Linux answer as macOS does where the two differ without an error. For LD_PRELOAD; see tests/rehearsal.py.
 * Each fault is named in the environment: REHEARSAL="send poll connect descriptors orphans". Besides, "syncfs": the disk
 * confirms nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

static int on(const char *fault) {
    const char *faults = getenv("REHEARSAL");
    return faults != NULL && strstr(faults, fault) != NULL;
}

static int is_unix(int fd) {
    int domain = 0;
    socklen_t size = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

/* MSG_DONTWAIT means nothing: the flag of the socket decides */
ssize_t send(int fd, const void *data, size_t size, int flags) {
    static ssize_t (*real)(int, const void *, size_t, int);
    if (real == NULL) real = (ssize_t (*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
    if ((flags & MSG_DONTWAIT) && on("send") && is_unix(fd)) flags &= ~MSG_DONTWAIT;
    return real(fd, data, size, flags);
}

/* a descriptor that is watched for nothing, or for POLLERR alone, is not watched */
int poll(struct pollfd *fds, nfds_t count, int timeout) {
    static int (*real)(struct pollfd *, nfds_t, int);
    if (real == NULL) real = (int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll");
    if (!on("poll")) return real(fds, count, timeout);
    struct pollfd watched[count ? count : 1];
    memcpy(watched, fds, count * sizeof *fds);
    for (nfds_t i = 0; i < count; i++)
        if (!(watched[i].events & (POLLIN | POLLOUT | POLLPRI | POLLHUP))) watched[i].fd = -1;
    int found = real(watched, count, timeout);
    for (nfds_t i = 0; i < count; i++) fds[i].revents = watched[i].fd < 0 ? 0 : watched[i].revents;
    return found;
}

/* a full backlog refuses */
int connect(int fd, const struct sockaddr *address, socklen_t size) {
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (real == NULL) real = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect");
    int done = real(fd, address, size);
    if (done != 0 && errno == EAGAIN && on("connect") && is_unix(fd)) errno = ECONNREFUSED;
    return done;
}

/* there is no /proc by which a pipe can be opened a second time */
static int hidden(const char *path) {
    return path != NULL && strncmp(path, "/proc/self/fd/", 14) == 0 && on("descriptors");
}

int open64(const char *path, int flags, ...) {
    static int (*real)(const char *, int, ...);
    if (real == NULL) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    if (hidden(path)) {
        errno = ENOENT;
        return -1;
    }
    return real(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return open64(path, flags, mode);
}

int syncfs(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "syncfs");
    if (!on("syncfs")) return real(fd);
    errno = EIO;
    return -1;
}

/* no signal when the parent dies */
int prctl(int option, ...) {
    static int (*real)(int, ...);
    if (real == NULL) real = (int (*)(int, ...))dlsym(RTLD_NEXT, "prctl");
    va_list rest;
    va_start(rest, option);
    unsigned long a = va_arg(rest, unsigned long), b = va_arg(rest, unsigned long);
    unsigned long c = va_arg(rest, unsigned long), d = va_arg(rest, unsigned long);
    va_end(rest);
    if (option == PR_SET_PDEATHSIG && on("orphans")) {
        errno = EINVAL;
        return -1;
    }
    return real(option, a, b, c, d);
}
