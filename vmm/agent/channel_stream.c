/* The sockets between the channel and the client of one command. */
#include "channel_private.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What is left unread in a socket when it is closed turns the end of file at its other end into ECONNRESET. */
static void discard_and_close(int fd)
{
    guint8 bytes[16384];

    shutdown(fd, SHUT_RDWR);
    for (int i = 0; i < 256 && recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0; i++)
        continue;
    close(fd);
}

void channel_stream_close(ChannelProcess *process, int fd)
{
    int other = process->pty && fd < 2 ? 1 - fd : -1;

    if (process->fds[fd] >= 0 && other >= 0 && process->fds[other] >= 0) {
        /* One of the two ways of a terminal's socket: the other goes on. */
        shutdown(process->fds[fd], fd == 0 ? SHUT_RD : SHUT_WR);
        close(process->fds[fd]);
    } else if (process->fds[fd] >= 0) {
        discard_and_close(process->fds[fd]);
    }
    process->fds[fd] = -1;
    g_clear_pointer(&process->output[fd], g_free);
    process->output_length[fd] = 0;
}

void channel_stream_reader_gone(ChannelProcess *process, int fd)
{
    channel_stream_close(process, fd);
    process->close_due[fd] = !process->output_ended[fd];
}

/* Bytes that the client's socket took, or -1 once the client has closed it. */
static gssize output_send(ChannelProcess *process, int fd, const guint8 *data, guint32 length)
{
    gssize n;

    do {
        n = send(process->fds[fd], data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n < 0) {
        channel_stream_reader_gone(process, fd);
        return -1;
    }
    process->written[fd] += (guint32)n;
    return n;
}

void channel_stream_output(ChannelProcess *process, int fd, const guint8 *data, guint32 length)
{
    gssize n = 0;
    guint32 kept;

    process->credit[fd] -= length;
    if (process->fds[fd] < 0)
        return; /* on its way when CLOSE was sent */
    if (!process->output[fd])
        n = output_send(process, fd, data, length);
    if (n < 0 || (guint32)n == length)
        return;
    if (!process->output[fd]) {
        process->output[fd] = g_malloc(PROTOCOL_WINDOW);
        process->output_start[fd] = 0;
    }
    /* It fits: what is kept was counted off the window. */
    kept = process->output_length[fd];
    if (process->output_start[fd] + kept + length - (guint32)n > PROTOCOL_WINDOW) {
        memmove(process->output[fd], process->output[fd] + process->output_start[fd], kept);
        process->output_start[fd] = 0;
    }
    memcpy(process->output[fd] + process->output_start[fd] + kept, data + n, length - (guint32)n);
    process->output_length[fd] += length - (guint32)n;
}

void channel_stream_flush(ChannelProcess *process, int fd)
{
    while (process->fds[fd] >= 0 && process->output[fd]) {
        const guint8 *kept = process->output[fd] + process->output_start[fd];
        gssize n = output_send(process, fd, kept, process->output_length[fd]);

        if (n <= 0)
            return;
        process->output_start[fd] += (guint32)n;
        process->output_length[fd] -= (guint32)n;
        if (process->output_length[fd] == 0)
            g_clear_pointer(&process->output[fd], g_free);
    }
    if (process->fds[fd] >= 0 && process->output_ended[fd])
        channel_stream_close(process, fd);
}

gboolean channel_stream_wants_read(const ChannelProcess *process)
{
    return process->fds[0] >= 0 && !process->input_ended && process->credit[0] > 0;
}

gboolean channel_stream_read(Channel *channel, ChannelProcess *process)
{
    guint8 *to = protocol_queue_payload(&channel->queue, PROTOCOL_PAYLOAD_MAX);
    gssize n;

    if (!to)
        return FALSE;
    do {
        n = recv(process->fds[0], to, MIN(process->credit[0], PROTOCOL_PAYLOAD_MAX), MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        protocol_queue_commit(&channel->queue, PROTOCOL_DATA, 0, process->id, channel->session, (guint32)n);
        process->credit[0] -= (guint32)n;
    } else if (n == 0 || errno != EAGAIN) {
        process->input_ended = TRUE;
        process->eof_due = TRUE;
    }
    return TRUE;
}
