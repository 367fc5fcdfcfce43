/*
 * console.c: a guest's serial console, for several watchers and one writer.
 *
 * QEMU's socket takes one connection, so that hvmd holds it while anyone watches and shares it out: a thread for each console
 * that is watched. A watcher that does not read loses output; it never holds up the guest or another watcher. What a
 * client gets is one end of a socketpair made here. The console's log is written by virtlogd beside all this.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WATCHERS_MAX = 32, BUFFER = 4096 };

struct Console {
    gatomicrefcount references; /* the guest's, and the thread's */
    GMutex lock;
    int qemu_fd;
    int wake_fd;
    int watchers[WATCHERS_MAX]; /* our ends; under the lock */
    unsigned n_watchers;
    int writer;                 /* the watcher that may write, or -1 */
    gboolean over;              /* the thread has left */
};

static void console_unref(Console *console)
{
    if (!g_atomic_ref_count_dec(&console->references))
        return;
    close(console->qemu_fd);
    close(console->wake_fd);
    g_mutex_clear(&console->lock);
    g_free(console);
}

/* Forgets watcher i. With the lock held. */
static void drop_watcher(Console *console, unsigned i)
{
    if (console->watchers[i] == console->writer)
        console->writer = -1;
    close(console->watchers[i]);
    console->watchers[i] = console->watchers[--console->n_watchers];
}

/* What the guest wrote, to all. FALSE when QEMU has closed. With the lock held. */
static gboolean from_guest(Console *console)
{
    char buffer[BUFFER];
    ssize_t count = read(console->qemu_fd, buffer, sizeof buffer);

    if (count <= 0)
        return count < 0 && (errno == EAGAIN || errno == EINTR);
    for (unsigned i = console->n_watchers; i-- > 0;)
        if (send(console->watchers[i], buffer, (size_t)count, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
            drop_watcher(console, i);
    return TRUE;
}

/* What a watcher wrote: the writer's goes to the guest, others' is dropped. FALSE when it has closed. With the lock held. */
static gboolean from_watcher(Console *console, unsigned i)
{
    char buffer[BUFFER];
    ssize_t count = recv(console->watchers[i], buffer, sizeof buffer, MSG_DONTWAIT);

    if (count <= 0)
        return count < 0 && (errno == EAGAIN || errno == EINTR);
    /* A guest that does not read its serial port loses input, as with a real one. */
    if (console->watchers[i] == console->writer)
        (void)!send(console->qemu_fd, buffer, (size_t)count, MSG_NOSIGNAL | MSG_DONTWAIT);
    return TRUE;
}

/* One round: waits, then moves what there is. FALSE when the console is over. */
static gboolean serve_once(Console *console)
{
    struct pollfd fds[WATCHERS_MAX + 2] = {{console->qemu_fd, POLLIN, 0}, {console->wake_fd, POLLIN, 0}};
    guint64 woken = 0;
    gboolean alive = TRUE;

    g_mutex_lock(&console->lock);
    unsigned n = console->n_watchers;

    for (unsigned i = 0; i < n; i++)
        fds[i + 2] = (struct pollfd){console->watchers[i], POLLIN, 0};
    g_mutex_unlock(&console->lock);
    if (poll(fds, n + 2, -1) < 0 && errno != EINTR)
        return FALSE;
    if (fds[1].revents)
        (void)!read(console->wake_fd, &woken, sizeof woken);
    g_mutex_lock(&console->lock);
    for (unsigned i = n; i-- > 0;) /* backwards: a dropped one is replaced by the last */
        if (fds[i + 2].revents && console->watchers[i] == fds[i + 2].fd && !from_watcher(console, i))
            drop_watcher(console, i);
    if (fds[0].revents)
        alive = from_guest(console);
    if (!alive || console->n_watchers == 0) {
        while (console->n_watchers)
            drop_watcher(console, 0);
        console->over = TRUE;
        alive = FALSE;
    }
    g_mutex_unlock(&console->lock);
    return alive;
}

static gpointer console_thread(gpointer data)
{
    Console *console = data;

    while (serve_once(console))
        ;
    console_unref(console);
    return NULL;
}

static Console *console_new(const char *path, GError **error)
{
    int qemu_fd = peer_connect(path);

    if (qemu_fd < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot connect to its console at %s: %s", path, g_strerror(errno));
        return NULL;
    }
    int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (wake_fd < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot make a descriptor for its console: %s", g_strerror(errno));
        close(qemu_fd);
        return NULL;
    }
    Console *console = g_new0(Console, 1);

    g_atomic_ref_count_init(&console->references);
    g_mutex_init(&console->lock);
    console->qemu_fd = qemu_fd;
    console->wake_fd = wake_fd;
    console->writer = -1;
    return console;
}

/* Adds a watcher. FALSE with BUSY, or without an error where the console is over. */
static gboolean add_watcher(Console *console, int fd, gboolean writes, GError **error)
{
    gboolean good = FALSE;

    g_mutex_lock(&console->lock);
    if (console->over) {
        good = FALSE;
    } else if (console->n_watchers == WATCHERS_MAX) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "its console has %d watchers already", WATCHERS_MAX);
    } else if (writes && console->writer >= 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "somebody else writes to its console: watch it with --read-only");
    } else {
        console->watchers[console->n_watchers++] = fd;
        if (writes)
            console->writer = fd;
        good = TRUE;
    }
    g_mutex_unlock(&console->lock);
    eventfd_write(console->wake_fd, 1);
    return good;
}

void guest_drop_console(Guest *guest)
{
    g_clear_pointer(&guest->console, console_unref);
}

/* With console_lock held. */
static gboolean watch(Guest *guest, int fd, gboolean writes, GError **error)
{
    g_autofree char *path = g_build_filename(guest->real->socket_folder, "console.sock", NULL);
    g_autoptr(GError) local = NULL;

    if (guest->console && add_watcher(guest->console, fd, writes, &local))
        return TRUE;
    if (local) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    guest_drop_console(guest);
    if (!(guest->console = console_new(path, error)) || !add_watcher(guest->console, fd, writes, error))
        return FALSE;
    g_atomic_ref_count_inc(&guest->console->references);
    g_thread_unref(g_thread_new("hvm-console", console_thread, guest->console));
    return TRUE;
}

int guests_console(Guests *guests, const Caller *caller, const char *name, gboolean writes, GError **error)
{
    g_autoptr(Guest) guest = guest_find_running(guests, caller, name, error);
    int ends[2] = {-1, -1};

    if (guest && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot make a socket pair: %s", g_strerror(errno));
    if (ends[0] >= 0) {
        g_mutex_lock(&guest->console_lock);
        gboolean good = watch(guest, ends[0], writes, error);
        g_mutex_unlock(&guest->console_lock);

        if (good)
            return ends[1];
        close(ends[0]);
        close(ends[1]);
    }
    guest_prefix_error(error, name);
    return -1;
}
