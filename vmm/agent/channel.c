#include "channel_private.h"
#include "hvm_error.h"
#include "peer.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_PAUSE_US 50000

void channel_process_free(ChannelProcess *process)
{
    for (int fd = 0; fd < 3; fd++)
        channel_stream_close(process, fd);
    g_free(process->reason);
    g_free(process);
}

Channel *channel_new(const char *guest_name, int socket, GError **error)
{
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    Channel *channel;

    if (wake < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "guest '%s': cannot make a descriptor for its channel: %s", guest_name,
                    g_strerror(errno));
        close(socket);
        return NULL;
    }
    channel = g_new0(Channel, 1);
    g_mutex_init(&channel->mutex);
    g_cond_init(&channel->changed);
    channel->guest = g_strdup(guest_name);
    channel->socket = socket;
    channel->wake = wake;
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

void channel_wake(Channel *channel)
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
    for (;;) {
        int fd = peer_connect(path);
        int code = errno;

        if (fd >= 0)
            return fd;
        /* EAGAIN: the backlog is full, another client is there still. */
        if (code != ENOENT && code != ECONNREFUSED && code != EAGAIN && code != EINTR) {
            g_set_error(error, HVM_ERROR, HVM_ERROR_AGENT, "guest '%s': cannot connect to the agent at %s: %s",
                        guest_name, path, g_strerror(code));
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

gboolean channel_closed_error(const Channel *channel, GError **error)
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
        good = channel_closed_error(channel, error);
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
    channel = channel_new(guest_name, socket, error);
    if (!channel)
        return NULL;
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

gboolean channel_control(Channel *channel, guint16 type, guint16 flags, guint32 id, const guint8 *payload,
                         guint32 length, GError **error)
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

/* The command, or NULL with NOT_FOUND or AGENT. The lock is held. */
static ChannelProcess *find_command(Channel *channel, guint32 id, GError **error)
{
    if (!channel->is_open) {
        channel_closed_error(channel, error);
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
           channel_control(channel, PROTOCOL_SIGNAL, 0, command, number, sizeof(number), error);
    channel_wake(channel);
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
        channel_wake(channel);
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
        channel_wake(channel);
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
        good = channel_closed_error(channel, error);
    else if (!channel->power_off_asked)
        good = channel_control(channel, PROTOCOL_POWER_OFF, 0, 0, NULL, 0, error);
    channel->power_off_asked = channel->power_off_asked || good;
    channel_wake(channel);
    while (good && !channel->power_off_acked && channel->is_open)
        if (!g_cond_wait_until(&channel->changed, &channel->mutex, deadline_us) && !channel->power_off_acked)
            good = set_timeout_error(channel->guest, timeout_ms, error);
    if (good && !channel->power_off_acked)
        good = channel_closed_error(channel, error);
    g_mutex_unlock(&channel->mutex);
    return good;
}

void channel_free(Channel *channel)
{
    if (!channel)
        return;
    g_mutex_lock(&channel->mutex);
    channel->stop = TRUE;
    channel_wake(channel);
    g_mutex_unlock(&channel->mutex);
    g_thread_join(channel->thread);
    channel_destroy(channel);
}
