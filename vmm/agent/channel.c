#include "channel_private.h"
#include "hvm_error.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECT_PAUSE_US 50000
#define CONTROL_BYTES_MAX (4 * PROTOCOL_EXEC_MAX) /* a guest that does not read must not make hvmd grow */

void channel_process_free(ChannelProcess *process)
{
    for (int fd = 0; fd < 3; fd++)
        channel_stream_close(process, fd);
    g_free(process->reason);
    g_free(process);
}

Channel *channel_new(const char *guest_name, int socket)
{
    Channel *channel = g_new0(Channel, 1);

    g_mutex_init(&channel->mutex);
    g_cond_init(&channel->changed);
    channel->guest = g_strdup(guest_name);
    channel->socket = socket;
    channel->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    channel->is_open = TRUE;
    channel->processes = g_ptr_array_new_with_free_func((GDestroyNotify)channel_process_free);
    g_queue_init(&channel->control);
    protocol_parser_init(&channel->parser, PROTOCOL_HELLO_ACK, 0);
    while (channel->session == 0)
        if (getrandom(&channel->session, sizeof(channel->session), 0) < 0)
            channel->session = 0; /* interrupted */
    return channel;
}

void channel_destroy(Channel *channel)
{
    g_ptr_array_unref(channel->processes);
    g_queue_clear_full(&channel->control, (GDestroyNotify)g_bytes_unref);
    close(channel->socket);
    close(channel->wake);
    g_mutex_clear(&channel->mutex);
    g_cond_clear(&channel->changed);
    g_free(channel->reason);
    g_free(channel->guest);
    g_free(channel);
}

static void wake(Channel *channel)
{
    guint64 one = 1;

    if (write(channel->wake, &one, sizeof(one)) < 0)
        g_debug("a channel's thread is awake already");
}

static gboolean set_timeout_error(const char *guest_name, unsigned timeout_ms, GError **error)
{
    g_set_error(error, HVM_ERROR, HVM_ERROR_TIMEOUT, "the agent of guest '%s' did not answer within %g s", guest_name,
                timeout_ms / 1000.0);
    return FALSE;
}

/* A descriptor, or -1. The socket may not be there yet. */
static int connect_until(const char *path, const char *guest_name, gint64 deadline_us, unsigned timeout_ms,
                         GCancellable *cancellable, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (g_strlcpy(address.sun_path, path, sizeof(address.sun_path)) >= sizeof(address.sun_path)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_AGENT,
                    "guest '%s': the path of the agent's socket is %zu bytes, wanted less than %zu: %s", guest_name,
                    strlen(path), sizeof(address.sun_path), path);
        return -1;
    }
    for (;;) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int code;

        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
            return fd;
        code = errno;
        if (fd >= 0)
            close(fd);
        /* EAGAIN: the backlog is full, another client is there still. */
        if (code != ENOENT && code != ECONNREFUSED && code != EAGAIN && code != EINTR) {
            g_set_error(error, HVM_ERROR, HVM_ERROR_AGENT, "guest '%s': cannot connect to the agent at %s: %s", guest_name,
                        path, g_strerror(code));
            return -1;
        }
        if (g_cancellable_set_error_if_cancelled(cancellable, error))
            return -1;
        if (g_get_monotonic_time() >= deadline_us) {
            set_timeout_error(guest_name, timeout_ms, error);
            return -1;
        }
        g_usleep(CONNECT_PAUSE_US);
    }
}

static gboolean set_closed_error(const Channel *channel, GError **error)
{
    g_set_error(error, HVM_ERROR, HVM_ERROR_AGENT, "guest '%s': %s", channel->guest, channel->reason);
    return FALSE;
}

static void on_cancelled(G_GNUC_UNUSED GCancellable *cancellable, gpointer data)
{
    Channel *channel = data;

    g_mutex_lock(&channel->mutex);
    g_cond_broadcast(&channel->changed);
    g_mutex_unlock(&channel->mutex);
}

static gboolean wait_established(Channel *channel, gint64 deadline_us, unsigned timeout_ms, GCancellable *cancellable,
                                 GError **error)
{
    gboolean good = TRUE;

    g_mutex_lock(&channel->mutex);
    while (good && !channel->established && channel->is_open) {
        if (g_cancellable_set_error_if_cancelled(cancellable, error))
            good = FALSE;
        else if (!g_cond_wait_until(&channel->changed, &channel->mutex, deadline_us))
            good = channel->established || set_timeout_error(channel->guest, timeout_ms, error);
    }
    if (good && !channel->established)
        good = set_closed_error(channel, error);
    g_mutex_unlock(&channel->mutex);
    return good;
}

Channel *channel_open(const char *socket_path, const char *guest_name, unsigned timeout_ms, GCancellable *cancellable,
                      GError **error)
{
    gint64 deadline_us = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    int socket = connect_until(socket_path, guest_name, deadline_us, timeout_ms, cancellable, error);
    Channel *channel;
    gulong handler;
    gboolean good;

    if (socket < 0)
        return NULL;
    channel = channel_new(guest_name, socket);
    channel->thread = g_thread_new("agent-channel", channel_thread, channel);
    handler = cancellable ? g_cancellable_connect(cancellable, G_CALLBACK(on_cancelled), channel, NULL) : 0;
    good = wait_established(channel, deadline_us, timeout_ms, cancellable, error);
    g_cancellable_disconnect(cancellable, handler);
    if (!good)
        g_clear_pointer(&channel, channel_free);
    return channel;
}

gboolean channel_is_open(Channel *channel)
{
    gboolean is_open;

    g_mutex_lock(&channel->mutex);
    is_open = channel->is_open;
    g_mutex_unlock(&channel->mutex);
    return is_open;
}

static void append32(GByteArray *bytes, guint32 value)
{
    guint8 encoded[4];

    protocol_put32(encoded, value);
    g_byte_array_append(bytes, encoded, sizeof(encoded));
}

static void append_text(GByteArray *bytes, const char *text)
{
    const char *given = text ? text : "";

    g_byte_array_append(bytes, (const guint8 *)given, (guint)strlen(given) + 1);
}

static GByteArray *encode_exec(const ChannelCommand *command)
{
    guint32 n_environment = command->environment ? g_strv_length((char **)command->environment) : 0;
    guint32 n_argv = g_strv_length((char **)command->argv);
    GByteArray *bytes = g_byte_array_new();

    append32(bytes, (command->pty ? PROTOCOL_EXEC_PTY : 0) |
                        (command->directory_required ? PROTOCOL_EXEC_DIRECTORY_REQUIRED : 0));
    append32(bytes, command->uid);
    append32(bytes, command->gid);
    append32(bytes, (guint32)command->rows | (guint32)command->columns << 16);
    append32(bytes, command->n_groups);
    append32(bytes, n_argv);
    append32(bytes, n_environment);
    for (unsigned i = 0; i < command->n_groups; i++)
        append32(bytes, command->groups[i]);
    append_text(bytes, command->user);
    append_text(bytes, command->user_name);
    append_text(bytes, command->group_name);
    append_text(bytes, command->home);
    append_text(bytes, command->directory);
    for (guint32 i = 0; i < n_argv; i++)
        append_text(bytes, command->argv[i]);
    for (guint32 i = 0; i < n_environment; i++)
        append_text(bytes, command->environment[i]);
    return bytes;
}

static gboolean check_command(const ChannelCommand *command, GError **error)
{
    if (!command->argv || !command->argv[0] || !*command->argv[0]) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "a command to run in a guest has no name");
        return FALSE;
    }
    if (command->n_groups > PROTOCOL_GROUPS_MAX) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "a command in a guest may have %u groups, found %u",
                    PROTOCOL_GROUPS_MAX, command->n_groups);
        return FALSE;
    }
    return TRUE;
}

/* Queues one frame. The lock is held. */
static gboolean control_add(Channel *channel, guint16 type, guint16 flags, guint32 id, const guint8 *payload, guint32 length,
                            GError **error)
{
    gsize size = PROTOCOL_HEADER + length;
    guint8 *frame;

    if (channel->control_bytes + size > CONTROL_BYTES_MAX) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "guest '%s': the agent does not take what it was sent before",
                    channel->guest);
        return FALSE;
    }
    frame = g_malloc(size);
    if (length > 0)
        memcpy(frame + PROTOCOL_HEADER, payload, length);
    protocol_seal(frame, type, flags, id, channel->session, length);
    g_queue_push_tail(&channel->control, g_bytes_new_take(frame, size));
    channel->control_bytes += size;
    return TRUE;
}

/* All frames of an EXEC or none. The lock is held. */
static gboolean control_add_exec(Channel *channel, guint32 id, const GByteArray *exec, GError **error)
{
    gsize room = CONTROL_BYTES_MAX - channel->control_bytes;

    if (exec->len + PROTOCOL_HEADER * (exec->len / PROTOCOL_PAYLOAD_MAX + 1) > room) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "guest '%s': the agent does not take what it was sent before",
                    channel->guest);
        return FALSE;
    }
    for (guint32 at = 0; at < exec->len; at += PROTOCOL_PAYLOAD_MAX) {
        guint32 length = MIN(exec->len - at, PROTOCOL_PAYLOAD_MAX);
        guint16 flags = at + length < exec->len ? PROTOCOL_MORE : 0;

        if (!control_add(channel, PROTOCOL_EXEC, flags, id, exec->data + at, length, error))
            return FALSE;
    }
    return TRUE;
}

/* Makes the sockets: ours into the process, the client's into ret_streams. */
static gboolean open_streams(ChannelProcess *process, ChannelStreams *ret_streams, GError **error)
{
    int theirs[3] = {-1, -1, -1};
    int n = process->pty ? 1 : 3;

    for (int fd = 0; fd < n; fd++) {
        int ends[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
            g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot make a socket for a command in a guest: %s",
                        g_strerror(errno));
            for (int i = 0; i < fd; i++)
                close(theirs[i]);
            return FALSE;
        }
        process->fds[fd] = ends[0];
        theirs[fd] = ends[1];
    }
    if (process->pty) {
        process->fds[1] = fcntl(process->fds[0], F_DUPFD_CLOEXEC, 0);
        if (process->fds[1] < 0) {
            g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot make a socket for a command in a guest: %s",
                        g_strerror(errno));
            close(theirs[0]);
            return FALSE;
        }
        theirs[1] = theirs[0];
    } else {
        shutdown(process->fds[0], SHUT_WR); /* one way each */
        shutdown(process->fds[1], SHUT_RD);
        shutdown(process->fds[2], SHUT_RD);
    }
    *ret_streams = (ChannelStreams){theirs[0], theirs[1], theirs[2]};
    return TRUE;
}

static ChannelProcess *process_new(const ChannelCommand *command, ChannelEndFunc on_end, gpointer data)
{
    ChannelProcess *process = g_new0(ChannelProcess, 1);

    process->pty = command->pty;
    process->on_end = on_end;
    process->data = data;
    for (int fd = 0; fd < 3; fd++) {
        process->fds[fd] = -1;
        process->credit[fd] = PROTOCOL_WINDOW;
    }
    return process;
}

/* The lock is held. */
static gboolean process_add(Channel *channel, ChannelProcess *process, const GByteArray *exec, GError **error)
{
    if (!channel->is_open)
        return set_closed_error(channel, error);
    if (channel->processes->len >= PROTOCOL_STREAMS_MAX || channel->last_id == G_MAXUINT32) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "guest '%s' runs %u commands already, no more are possible",
                    channel->guest, channel->processes->len);
        return FALSE;
    }
    if (!control_add_exec(channel, channel->last_id + 1, exec, error))
        return FALSE;
    process->id = ++channel->last_id;
    g_ptr_array_add(channel->processes, process);
    wake(channel);
    return TRUE;
}

static void close_streams(const ChannelStreams *streams)
{
    close(streams->stdin_fd);
    if (streams->stdout_fd != streams->stdin_fd)
        close(streams->stdout_fd);
    if (streams->stderr_fd >= 0)
        close(streams->stderr_fd);
}

guint32 channel_exec(Channel *channel, const ChannelCommand *command, ChannelStreams *ret_streams, ChannelEndFunc on_end,
                     gpointer data, GError **error)
{
    g_autoptr(GByteArray) exec = NULL;
    ChannelProcess *process;
    ChannelStreams streams;
    gboolean good;
    guint32 id;

    if (!check_command(command, error))
        return 0;
    exec = encode_exec(command);
    if (exec->len > PROTOCOL_EXEC_MAX) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "the arguments and the environment of a command in a guest may be %u "
                    "bytes, found %u", PROTOCOL_EXEC_MAX, exec->len);
        return 0;
    }
    process = process_new(command, on_end, data);
    if (!open_streams(process, &streams, error)) {
        channel_process_free(process);
        return 0;
    }
    g_mutex_lock(&channel->mutex);
    good = process_add(channel, process, exec, error);
    id = process->id;
    g_mutex_unlock(&channel->mutex);
    if (!good) { /* else it may have ended already: it is the thread's now */
        channel_process_free(process);
        close_streams(&streams);
        return 0;
    }
    *ret_streams = streams;
    return id;
}

/* The command, or NULL with NOT_FOUND or AGENT. The lock is held. */
static ChannelProcess *find_command(Channel *channel, guint32 id, GError **error)
{
    if (!channel->is_open) {
        set_closed_error(channel, error);
        return NULL;
    }
    for (guint i = 0; i < channel->processes->len; i++) {
        ChannelProcess *process = g_ptr_array_index(channel->processes, i);

        if (process->id == id)
            return process;
    }
    g_set_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND, "guest '%s': command %u does not run", channel->guest, id);
    return NULL;
}

gboolean channel_signal(Channel *channel, guint32 command, int signal_number, GError **error)
{
    guint8 number[4];
    gboolean good;

    if (signal_number < 1 || signal_number > 64) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "a signal is a number from 1 to 64, found %d", signal_number);
        return FALSE;
    }
    protocol_put32(number, (guint32)signal_number);
    g_mutex_lock(&channel->mutex);
    good = find_command(channel, command, error) &&
           control_add(channel, PROTOCOL_SIGNAL, 0, command, number, sizeof(number), error);
    wake(channel);
    g_mutex_unlock(&channel->mutex);
    return good;
}

gboolean channel_resize(Channel *channel, guint32 command, guint16 rows, guint16 columns, GError **error)
{
    ChannelProcess *process;

    g_mutex_lock(&channel->mutex);
    process = find_command(channel, command, error);
    if (process) {
        process->rows = rows;
        process->columns = columns;
        process->resize_due = TRUE;
        wake(channel);
    }
    g_mutex_unlock(&channel->mutex);
    return process != NULL;
}

gboolean channel_end(Channel *channel, guint32 command, GError **error)
{
    ChannelProcess *process;

    g_mutex_lock(&channel->mutex);
    process = find_command(channel, command, error);
    if (process) {
        process->end_due = !process->end_asked;
        process->end_asked = TRUE;
        wake(channel);
    }
    g_mutex_unlock(&channel->mutex);
    return process != NULL;
}

gboolean channel_power_off(Channel *channel, unsigned timeout_ms, GError **error)
{
    gint64 deadline_us = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    gboolean good = TRUE;

    g_mutex_lock(&channel->mutex);
    if (!channel->is_open)
        good = set_closed_error(channel, error);
    else if (!channel->power_off_asked)
        good = control_add(channel, PROTOCOL_POWER_OFF, 0, 0, NULL, 0, error);
    channel->power_off_asked = channel->power_off_asked || good;
    wake(channel);
    while (good && !channel->power_off_acked && channel->is_open)
        if (!g_cond_wait_until(&channel->changed, &channel->mutex, deadline_us) && !channel->power_off_acked)
            good = set_timeout_error(channel->guest, timeout_ms, error);
    if (good && !channel->power_off_acked)
        good = set_closed_error(channel, error);
    g_mutex_unlock(&channel->mutex);
    return good;
}

void channel_free(Channel *channel)
{
    if (!channel)
        return;
    g_mutex_lock(&channel->mutex);
    channel->stop = TRUE;
    wake(channel);
    g_mutex_unlock(&channel->mutex);
    g_thread_join(channel->thread);
    channel_destroy(channel);
}
