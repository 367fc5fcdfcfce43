/*
 * lock.c: one hvmd for a socket, and one for a store: two would hand out the same cores, and clear what the other has half made.
 *
 * Both are flock()s, so that they go with the process that holds them. Both are taken before anything is changed, by an hvmd too
 * whose socket is systemd's.
 */
#include "daemon_private.h"

#include "hvm_error.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* A locked descriptor, or -1 with BUSY or HOST. */
static int lock(const char *path, const char *what, const char *whose, GError **error)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    if (fd >= 0 && errno == EWOULDBLOCK)
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "another hvmd %s %s", what, whose);
    else
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot lock %s: %s", path, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

gboolean locks_take(Daemon *daemon, GError **error)
{
    const char *socket = daemon->config->socket_path;
    const char *store = daemon->config->guests.store_path;
    g_autofree char *socket_folder = g_path_get_dirname(socket);
    g_autofree char *store_parent = g_path_get_dirname(store);
    g_autofree char *socket_lock = g_strconcat(socket, ".lock", NULL);
    g_autofree char *store_lock = g_build_filename(store, "hvmd.lock", NULL);

    /* Where a folder cannot be made, the lock says so. */
    g_mkdir_with_parents(socket_folder, 0755);
    g_mkdir_with_parents(store_parent, 0755);
    mkdir(store, 0711);
    daemon->socket_lock_fd = lock(socket_lock, "serves", socket, error);
    if (daemon->socket_lock_fd >= 0)
        daemon->store_lock_fd = lock(store_lock, "works on the store", store, error);
    return daemon->store_lock_fd >= 0;
}

void locks_release(Daemon *daemon)
{
    if (daemon->socket_lock_fd >= 0)
        close(daemon->socket_lock_fd);
    if (daemon->store_lock_fd >= 0)
        close(daemon->store_lock_fd);
    daemon->socket_lock_fd = daemon->store_lock_fd = -1;
}
