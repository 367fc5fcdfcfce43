/*
 * listener.c: the socket of hvmd.
 *
 * With the locks held (lock.c) a stale socket is removed, on which nobody listens. A connection has 5 s to authenticate, and only so
 * many may be waiting, of one user and in all, so that a flood of silent ones starves nobody. GDBus keeps a thread of GTask's pool for
 * each that authenticates: of one user few do so at a time, and the others wait for their turn.
 * Under systemd the listening socket is taken over (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS).
 */
#include "daemon_private.h"

#include "hvm_error.h"
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <gio/gunixsocketaddress.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PENDING_MAX = 512,             /* of all users but root */
    PENDING_PER_USER_MAX = 64,
    AUTHENTICATING_PER_USER_MAX = 6,
    CLIENTS_PER_USER_MAX = 64,
    AUTHENTICATE_TIMEOUT_S = 5,
    TURN_TIMEOUT_S = 15,
    BACKLOG = 1024,                /* a full one is an error to a client that does not block */
    LISTEN_FD = 3
};

static void on_closed(GDBusConnection *connection G_GNUC_UNUSED, gboolean vanished G_GNUC_UNUSED, GError *error G_GNUC_UNUSED,
                      gpointer client)
{
    client_close(client);
}

/* One connection on its way to be a client. */
typedef struct {
    Daemon *daemon;
    GIOStream *stream;
    GCancellable *cancellable;
    guint timeout;
    uid_t uid;
    gboolean authenticating; /* or waits for its turn */
    Caller *caller;
    gboolean in_group;
} Entry;

static void entry_begin(Entry *entry);

/* The user's newest connection that waits, if it is its turn: the silent ones are behind it. */
static void begin_next(Daemon *daemon, uid_t uid)
{
    unsigned authenticating = 0;
    Entry *next = NULL;

    for (GList *item = daemon->pending.head; item; item = item->next) {
        Entry *entry = item->data;

        authenticating += entry->uid == uid && entry->authenticating;
        if (entry->uid == uid && !entry->authenticating)
            next = entry;
    }
    if (next && authenticating < AUTHENTICATING_PER_USER_MAX)
        entry_begin(next);
}

static void entry_free(Entry *entry)
{
    if (entry->timeout)
        g_source_remove(entry->timeout);
    g_queue_remove(&entry->daemon->pending, entry);
    begin_next(entry->daemon, entry->uid);
    g_object_unref(entry->stream);
    g_object_unref(entry->cancellable);
    caller_free(entry->caller);
    g_free(entry);
}

static gboolean on_timeout(gpointer data)
{
    Entry *entry = data;

    entry->timeout = 0;
    g_cancellable_cancel(entry->cancellable);
    if (!entry->authenticating) {
        g_io_stream_close(entry->stream, NULL, NULL);
        entry_free(entry);
    }
    return G_SOURCE_REMOVE;
}

static unsigned count_clients(Daemon *daemon, uid_t uid)
{
    GHashTableIter iter;
    Client *client = NULL;
    unsigned count = 0;

    g_hash_table_iter_init(&iter, daemon->clients);
    while (g_hash_table_iter_next(&iter, (gpointer *)&client, NULL))
        count += client->caller->uid == uid;
    return count;
}

static void on_authenticated(GObject *source G_GNUC_UNUSED, GAsyncResult *result, gpointer data)
{
    Entry *entry = data;
    Daemon *daemon = entry->daemon;
    g_autoptr(GError) error = NULL;
    g_autoptr(GDBusConnection) connection = g_dbus_connection_new_finish(result, &error);

    if (!connection || g_atomic_int_get(&daemon->leaving)) {
        g_debug("a connection failed to authenticate: %s", error ? error->message : "hvmd is about to end");
        g_io_stream_close(entry->stream, NULL, NULL);
        entry_free(entry);
        return;
    }
    Client *client = g_new0(Client, 1);

    g_atomic_ref_count_init(&client->references);
    client->daemon = daemon;
    client->connection = g_object_ref(connection);
    client->caller = g_steal_pointer(&entry->caller);
    client->in_group = entry->in_group;
    client->jobs = g_hash_table_new(NULL, NULL);
    client->outstanding = g_hash_table_new(NULL, NULL);
    g_mutex_init(&client->lock);
    client->ephemeral = g_ptr_array_new_with_free_func(g_free);
    client->execs = g_hash_table_new_full(NULL, NULL, NULL, exec_free);
    g_hash_table_add(daemon->clients, client);
    g_signal_connect(connection, "closed", G_CALLBACK(on_closed), client);
    if (!service_export(client, &error)) {
        g_warning("%s", error->message);
        client_close(client);
    } else if (g_dbus_connection_is_closed(connection)) { /* before there was anybody to be told of it */
        client_close(client);
    } else {
        g_dbus_connection_start_message_processing(connection);
    }
    entry_free(entry);
}

static gboolean allow_mechanism(GDBusAuthObserver *observer G_GNUC_UNUSED, const char *mechanism, gpointer data G_GNUC_UNUSED)
{
    return g_strcmp0(mechanism, "EXTERNAL") == 0;
}

static gboolean authorize_peer(GDBusAuthObserver *observer G_GNUC_UNUSED, GIOStream *stream G_GNUC_UNUSED,
                               GCredentials *credentials, gpointer data)
{
    const Entry *entry = data;

    return credentials && g_credentials_get_unix_user(credentials, NULL) == entry->caller->uid;
}

/* The user database may block: it is asked in a worker. */
static void look_up_caller(GTask *task, gpointer source G_GNUC_UNUSED, gpointer data, GCancellable *cancellable G_GNUC_UNUSED)
{
    Entry *entry = data;
    GSocket *socket = g_socket_connection_get_socket(G_SOCKET_CONNECTION(entry->stream));
    GError *error = NULL;

    entry->caller = caller_new(g_socket_get_fd(socket), &error);
    entry->in_group = entry->caller && (entry->caller->uid == 0 || caller_in_group(entry->caller, entry->daemon->config->group));
    if (entry->caller)
        g_task_return_boolean(task, TRUE);
    else
        g_task_return_error(task, error);
}

static void on_caller(GObject *source G_GNUC_UNUSED, GAsyncResult *result, gpointer data)
{
    Entry *entry = data;
    g_autoptr(GDBusAuthObserver) observer = NULL;

    if (!g_task_propagate_boolean(G_TASK(result), NULL) ||
        count_clients(entry->daemon, entry->caller->uid) >= CLIENTS_PER_USER_MAX) {
        g_io_stream_close(entry->stream, NULL, NULL);
        entry_free(entry);
        return;
    }
    observer = g_dbus_auth_observer_new();
    g_signal_connect(observer, "allow-mechanism", G_CALLBACK(allow_mechanism), NULL);
    g_signal_connect(observer, "authorize-authenticated-peer", G_CALLBACK(authorize_peer), entry);
    g_dbus_connection_new(entry->stream, entry->daemon->guid,
                          G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_SERVER | G_DBUS_CONNECTION_FLAGS_DELAY_MESSAGE_PROCESSING,
                          observer, entry->cancellable, on_authenticated, entry);
}

static void entry_begin(Entry *entry)
{
    g_autoptr(GTask) task = g_task_new(NULL, NULL, on_caller, entry);

    entry->authenticating = TRUE;
    g_source_remove(entry->timeout);
    entry->timeout = g_timeout_add_seconds(AUTHENTICATE_TIMEOUT_S, on_timeout, entry);
    g_task_set_task_data(task, entry, NULL);
    g_task_run_in_thread(task, look_up_caller);
}

/* Whether another connection of this user may wait; the oldest of theirs that waits makes room for it. */
static gboolean has_room(Daemon *daemon, uid_t uid)
{
    Entry *oldest = NULL;
    unsigned count = 0;

    for (GList *item = daemon->pending.tail; item; item = item->prev) {
        Entry *entry = item->data;

        count += entry->uid == uid;
        if (entry->uid == uid && !entry->authenticating)
            oldest = entry;
    }
    if (count >= PENDING_PER_USER_MAX && oldest) {
        g_io_stream_close(oldest->stream, NULL, NULL);
        entry_free(oldest);
        count--;
    }
    return count < PENDING_PER_USER_MAX && (uid == 0 || g_queue_get_length(&daemon->pending) < PENDING_MAX);
}

static gboolean on_incoming(GSocketService *service G_GNUC_UNUSED, GSocketConnection *connection,
                            GObject *source G_GNUC_UNUSED, gpointer data)
{
    Daemon *daemon = data;

    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t length = sizeof peer;

    if (getsockopt(g_socket_get_fd(g_socket_connection_get_socket(connection)), SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ||
        !has_room(daemon, peer.uid)) {
        g_io_stream_close(G_IO_STREAM(connection), NULL, NULL);
        return TRUE;
    }
    Entry *entry = g_new0(Entry, 1);

    entry->daemon = daemon;
    entry->uid = peer.uid;
    entry->stream = G_IO_STREAM(g_object_ref(connection));
    entry->cancellable = g_cancellable_new();
    entry->timeout = g_timeout_add_seconds(TURN_TIMEOUT_S, on_timeout, entry);
    g_queue_push_tail(&daemon->pending, entry);
    begin_next(daemon, entry->uid);
    return TRUE;
}

/* The socket that systemd listens on for us, or NULL. */
static GSocket *take_over_socket(GError **error)
{
    const char *pid = g_getenv("LISTEN_PID");
    const char *count = g_getenv("LISTEN_FDS");

    if (!pid || !count || g_ascii_strtoull(pid, NULL, 10) != (guint64)getpid() || g_ascii_strtoull(count, NULL, 10) != 1)
        return NULL;
    g_unsetenv("LISTEN_PID");
    g_unsetenv("LISTEN_FDS");
    fcntl(LISTEN_FD, F_SETFD, FD_CLOEXEC);
    return g_socket_new_from_fd(LISTEN_FD, error);
}

static GSocket *make_socket(Daemon *daemon, GError **error)
{
    const char *path = daemon->config->socket_path;
    g_autoptr(GSocketAddress) address = g_unix_socket_address_new(path);
    g_autoptr(GSocket) socket = NULL;

    int other = peer_connect(path);

    /* systemd's: with that in its place we would not be reached, nor would it be again. */
    if (other >= 0 || errno == EAGAIN) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "somebody else listens on %s: wanted it free, or handed over (systemctl start hvmd)", path);
        if (other >= 0)
            close(other);
        return NULL;
    }
    if (unlink(path) < 0 && errno != ENOENT) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot remove stale %s: %s", path, g_strerror(errno));
        return NULL;
    }
    mode_t mask = umask(0111); /* anyone may connect; who may call what is decided for each method */

    socket = g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, error);
    if (socket)
        g_socket_set_listen_backlog(socket, BACKLOG);

    gboolean good = socket && g_socket_bind(socket, address, TRUE, error) && g_socket_listen(socket, error);

    umask(mask);
    daemon->bound = good;
    return good ? g_steal_pointer(&socket) : NULL;
}

gboolean listener_start(Daemon *daemon, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(GSocket) socket = take_over_socket(&local);

    if (local) {
        g_propagate_prefixed_error(error, g_steal_pointer(&local), "socket from systemd: ");
        return FALSE;
    }
    daemon->activated = socket != NULL;
    if (!socket && !(socket = make_socket(daemon, error)))
        return FALSE;
    daemon->guid = g_dbus_generate_guid();
    /* Not active before listener_serve(): one that is stopped again drops the client that waits, for whom systemd started hvmd. */
    daemon->service = g_object_new(G_TYPE_SOCKET_SERVICE, "active", FALSE, NULL);
    if (!g_socket_listener_add_socket(G_SOCKET_LISTENER(daemon->service), socket, NULL, error))
        return FALSE;
    g_signal_connect(daemon->service, "incoming", G_CALLBACK(on_incoming), daemon);
    return TRUE;
}

void listener_serve(Daemon *daemon)
{
    if (!daemon->service || g_socket_service_is_active(daemon->service))
        return;
    g_socket_service_start(daemon->service);
    g_message("hvmd %s serves %s", HVM_VERSION, daemon->config->socket_path);
}

void listener_stop(Daemon *daemon)
{
    GHashTableIter iter;
    Client *client = NULL;

    if (daemon->service) {
        g_socket_service_stop(daemon->service);
        g_socket_listener_close(G_SOCKET_LISTENER(daemon->service));
        g_clear_object(&daemon->service);
    }
    if (daemon->bound)
        unlink(daemon->config->socket_path);
    for (;;) {
        g_hash_table_iter_init(&iter, daemon->clients);
        if (!g_hash_table_iter_next(&iter, (gpointer *)&client, NULL))
            break;
        client_close(client);
    }
}
