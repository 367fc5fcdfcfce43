/* The channel's thread: one poll loop over the guest's socket and those of its clients. */
#include "channel_private.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HELLO_PAUSE_US 1000000

/* The queue is empty unless the guest does not read: then what is in it will do. */
static void say_hello(Channel *channel)
{
    gint64 now_us = g_get_monotonic_time();

    if (channel->established || now_us < channel->next_hello_us)
        return;
    channel->next_hello_us = now_us + HELLO_PAUSE_US;
    if (channel->queue.start < channel->queue.end)
        return;
    protocol_queue_hello(&channel->queue, channel->session);
    channel->n_hellos++;
}

static void receive(Channel *channel)
{
    size_t room;
    uint8_t *to = protocol_parser_space(&channel->parser, &room);
    gssize n = recv(channel->socket, to, room, MSG_DONTWAIT);

    if (n > 0) {
        protocol_parser_filled(&channel->parser, (size_t)n);
        channel_parse(channel);
    } else if (n == 0) {
        channel_fail(channel, "the guest's end of the channel was closed");
    } else if (errno != EAGAIN && errno != EINTR) {
        channel_fail(channel, "the channel cannot be read: %s", g_strerror(errno));
    }
}

static void transmit(Channel *channel)
{
    ProtocolQueue *queue = &channel->queue;
    gssize n;

    if (!channel->is_open || queue->start == queue->end)
        return;
    n = send(channel->socket, queue->buffer + queue->start, queue->end - queue->start, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0)
        queue->start += (size_t)n;
    else if (n < 0 && errno != EAGAIN && errno != EINTR && errno != EPIPE && errno != ECONNRESET)
        channel_fail(channel, "the channel cannot be written: %s", g_strerror(errno));
    /* EPIPE: what the guest still said is read first, and then its end. */
    else if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
        queue->start = queue->end = 0;
}

static void fill_polls(Channel *channel, gboolean more, GArray *polls)
{
    gboolean room = channel->established && g_queue_is_empty(&channel->control) &&
                    protocol_queue_payload(&channel->queue, PROTOCOL_PAYLOAD_MAX);
    struct pollfd wake = {.fd = channel->wake, .events = POLLIN};
    struct pollfd guest = {.fd = channel->socket, .events = POLLIN};

    if (channel->queue.start < channel->queue.end || more)
        guest.events |= POLLOUT;
    g_array_set_size(polls, 0);
    g_array_append_val(polls, wake);
    g_array_append_val(polls, guest);
    for (guint i = 0; i < channel->processes->len; i++) {
        const ChannelProcess *process = g_ptr_array_index(channel->processes, i);
        struct pollfd entry[3] = {{.fd = -1}, {.fd = -1}, {.fd = -1}};

        if (room && channel_stream_wants_read(process))
            entry[0] = (struct pollfd){.fd = process->fds[0], .events = POLLIN};
        for (int fd = 1; fd <= 2; fd++) /* POLLHUP, unasked, tells of a client that closed its end */
            entry[fd] = (struct pollfd){.fd = process->fds[fd], .events = process->output[fd] ? POLLOUT : 0};
        g_array_append_vals(polls, entry, 3);
    }
}

/* Processes that were added while the thread polled have no row yet. */
static void serve_clients(Channel *channel, const struct pollfd *polls, guint n_processes)
{
    for (guint i = 0; i < n_processes; i++) {
        ChannelProcess *process = g_ptr_array_index(channel->processes, i);

        for (int fd = 1; fd <= 2; fd++) {
            short events = polls[3 * i + (guint)fd].revents;

            if (process->fds[fd] >= 0 && events & POLLOUT)
                channel_stream_flush(process, fd);
            if (process->fds[fd] >= 0 && events & (POLLHUP | POLLERR | POLLNVAL))
                channel_stream_reader_gone(process, fd);
        }
    }
    if (!channel_emit(channel))
        return;
    for (guint k = 0; k < n_processes; k++) {
        guint i = (channel->turn + k) % n_processes;
        ChannelProcess *process = g_ptr_array_index(channel->processes, i);

        if (!polls[3 * i].revents || !channel_stream_wants_read(process))
            continue;
        if (!channel_stream_read(channel, process)) {
            channel->turn = i; /* it is the first next time */
            return;
        }
    }
    channel->turn++;
}

static gboolean is_done(ChannelProcess *process)
{
    if (!process->ended)
        return FALSE;
    for (int fd = 1; fd <= 2; fd++) {
        channel_stream_flush(process, fd);
        if (process->fds[fd] >= 0 && !process->end_asked)
            return FALSE;
    }
    return TRUE;
}

/* Unlocked: the callback may ask the channel for something. */
static void finish(Channel *channel, ChannelProcess *process)
{
    for (int fd = 0; fd < 3; fd++)
        channel_stream_close(process, fd);
    g_mutex_unlock(&channel->mutex);
    process->on_end(process->end, process->value, process->reason, process->data);
    channel_process_free(process);
    g_mutex_lock(&channel->mutex);
}

static void finish_done(Channel *channel)
{
    for (guint i = 0; i < channel->processes->len;) {
        ChannelProcess *process = g_ptr_array_index(channel->processes, i);

        if (!is_done(process)) {
            i++;
            continue;
        }
        g_ptr_array_steal_index(channel->processes, i);
        finish(channel, process);
    }
}

static void finish_all(Channel *channel)
{
    while (channel->processes->len > 0) {
        ChannelProcess *process = g_ptr_array_steal_index(channel->processes, channel->processes->len - 1);

        if (!process->ended) {
            process->end = CHANNEL_LOST;
            process->reason = g_strdup(channel->reason);
        }
        for (int fd = 1; fd <= 2; fd++)
            channel_stream_flush(process, fd);
        finish(channel, process);
    }
}

void channel_serve(Channel *channel, GArray *polls, int timeout_ms)
{
    struct pollfd *rows;
    guint n_processes;
    guint64 count;
    gboolean more;

    say_hello(channel);
    more = !channel_emit(channel);
    transmit(channel);
    fill_polls(channel, more, polls);
    n_processes = channel->processes->len;
    rows = (struct pollfd *)(gpointer)polls->data;
    g_mutex_unlock(&channel->mutex);
    poll(rows, polls->len, channel->established || timeout_ms == 0 ? timeout_ms : HELLO_PAUSE_US / 1000);
    g_mutex_lock(&channel->mutex);
    if (rows[0].revents && read(channel->wake, &count, sizeof(count)) < 0)
        g_debug("the wake-up of a channel was empty");
    if (rows[1].revents & ~POLLOUT)
        receive(channel);
    serve_clients(channel, rows + 2, n_processes);
    finish_done(channel);
}

void channel_finish(Channel *channel)
{
    channel_fail(channel, "the channel was closed");
    shutdown(channel->socket, SHUT_RDWR); /* the agent ends its commands, whenever channel_free() is called */
    finish_all(channel);
}

gpointer channel_thread(gpointer data)
{
    Channel *channel = data;
    g_autoptr(GArray) polls = g_array_new(FALSE, FALSE, sizeof(struct pollfd));

    g_mutex_lock(&channel->mutex);
    while (channel->is_open && !channel->stop)
        channel_serve(channel, polls, -1);
    channel_finish(channel);
    g_mutex_unlock(&channel->mutex);
    return NULL;
}
