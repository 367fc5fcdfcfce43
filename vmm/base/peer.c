#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* 0, or why the socket is not to be connected to. */
static int check(int fd)
{
    struct stat found;

    if (fstat(fd, &found) < 0)
        return errno;
    if (!S_ISSOCK(found.st_mode))
        return ENOTSOCK;
    return found.st_nlink > 1 ? EMLINK : 0;
}

static int connect_found(int found)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int code;

    g_snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d", found);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    code = errno;
    close(fd);
    errno = code;
    return -1;
}

int peer_connect(const char *path)
{
    int found = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int code = found < 0 ? errno : check(found);
    int fd = code ? -1 : connect_found(found);

    code = code || fd >= 0 ? code : errno;
    if (found >= 0)
        close(found);
    errno = code;
    return fd;
}
