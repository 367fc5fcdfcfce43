/*
 * receive.c: hvmd takes bytes from sockets, so many at a time, and never a descriptor.
 *
 * GDBus gathers the bytes and descriptors of a message, up to 128 MiB of it, before it shows it to anybody. Who announces a large
 * one and sends it byte by byte, with 253 descriptors each, would soon have all that hvmd may have. GDBus has no limit to set, and
 * Linux can refuse descriptors on a socket only since 6.16 (SO_PASSRIGHTS). But it reads with recvmsg(2), and the symbols of
 * a program come before libc's (ld.so(8)): what follows is called in its place, by all of the process. Nothing else in hvmd receives
 * descriptors either, nor so much at once.
 */
#include <errno.h>
#include <gmodule.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* An Exec has 1 MiB (PROTOCOL_EXEC_MAX) of words, and D-Bus's own beside it. */
enum { MESSAGE_MAX = 2 << 20 };

static gsize room(const struct msghdr *message)
{
    gsize bytes = 0;

    for (gsize i = 0; i < message->msg_iovlen; i++)
        bytes += message->msg_iov[i].iov_len;
    return bytes;
}

static void close_all(const struct cmsghdr *header)
{
    const int *fds = (const int *)CMSG_DATA(header);

    for (gsize i = 0; i < (header->cmsg_len - CMSG_LEN(0)) / sizeof *fds; i++)
        close(fds[i]);
}

/* GDBus asks for the rest of a message when it has read its head: too large a one is an error, and the connection's end. */
G_MODULE_EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    ssize_t count;

    if (room(message) > MESSAGE_MAX) {
        errno = EMSGSIZE;
        return -1;
    }
    count = syscall(SYS_recvmsg, fd, message, flags);
    for (struct cmsghdr *header = count >= 0 ? CMSG_FIRSTHDR(message) : NULL; header; header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        close_all(header);
        /* They stand last (the kernel's scm_recv()). */
        message->msg_controllen = (gsize)((char *)header - (char *)message->msg_control);
        break;
    }
    return count;
}
