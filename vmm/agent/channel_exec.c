/* channel_exec(): checks and encodes the command, makes its sockets, and queues it for the thread. */
#include "channel_private.h"
#include "hvm_error.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

        if (!channel_control(channel, PROTOCOL_EXEC, flags, id, exec->data + at, length, error))
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
        return channel_closed_error(channel, error);
    if (channel->processes->len >= PROTOCOL_STREAMS_MAX || channel->last_id == G_MAXUINT32) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "guest '%s' runs %u commands already, no more are possible",
                    channel->guest, channel->processes->len);
        return FALSE;
    }
    if (!control_add_exec(channel, channel->last_id + 1, exec, error))
        return FALSE;
    process->id = ++channel->last_id;
    g_ptr_array_add(channel->processes, process);
    channel_wake(channel);
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

guint32 channel_exec(Channel *channel, const ChannelCommand *command, ChannelStreams *ret_streams,
                     ChannelEndFunc on_end, gpointer data, GError **error)
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
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                    "the arguments and environment of a command in a guest may be %u bytes, found %u", PROTOCOL_EXEC_MAX,
                    exec->len);
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
