/* The frames from the guest, which is hostile: whatever is not exactly as protocol.h says ends the channel. */
#include "channel_private.h"
#include "hvm_error.h"

#include <unistd.h>

void channel_fail(Channel *channel, const char *format, ...)
{
    va_list arguments;

    if (!channel->is_open)
        return;
    va_start(arguments, format);
    channel->reason = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    channel->is_open = FALSE;
    g_cond_broadcast(&channel->changed);
}

static void breach(Channel *channel, const ProtocolFrame *frame, const char *what)
{
    channel_fail(channel, "the agent broke the protocol: %s (frame type %u, command %u, flags %u, %u bytes)", what,
                 frame->type, frame->stream, frame->flags, frame->length);
}

static ChannelProcess *find_process(Channel *channel, guint32 id)
{
    for (guint i = 0; i < channel->processes->len; i++) {
        ChannelProcess *process = g_ptr_array_index(channel->processes, i);

        if (process->id == id && !process->ended)
            return process;
    }
    return NULL;
}

static void take_hello_ack(Channel *channel, const ProtocolFrame *frame)
{
    if (frame->session != channel->session && !channel->established) {
        channel->parser.in_step = false; /* an old session's answer, still in the pipe */
        return;
    }
    if (frame->length != PROTOCOL_HELLO_LENGTH || frame->stream != 0 || channel->n_hellos == 0) {
        breach(channel, frame, "an answer to a hello that was not sent");
        return;
    }
    channel->n_hellos--;
    if (protocol_get32(frame->payload) != PROTOCOL_VERSION) {
        channel_fail(channel, "the agent speaks version %u of the protocol, hvmd speaks %u",
                     protocol_get32(frame->payload), PROTOCOL_VERSION);
        return;
    }
    channel->established = TRUE;
    g_cond_broadcast(&channel->changed);
}

static gboolean has_output(const ChannelProcess *process, guint fd)
{
    return fd == 1 || (fd == 2 && !process->pty);
}

static void take_data(Channel *channel, ChannelProcess *process, const ProtocolFrame *frame)
{
    int fd = frame->flags;

    if (!has_output(process, frame->flags) || frame->length == 0 || process->output_ended[fd])
        breach(channel, frame, "data where none can be");
    else if (frame->length > process->credit[fd])
        breach(channel, frame, "more data than was allowed");
    else
        channel_stream_output(process, fd, frame->payload, frame->length);
}

static void take_exit(Channel *channel, ChannelProcess *process, const ProtocolFrame *frame)
{
    guint32 kind = frame->length >= 8 ? protocol_get32(frame->payload) : G_MAXUINT32;
    guint32 value = frame->length >= 8 ? protocol_get32(frame->payload + 4) : 0;
    gsize text = frame->length >= 8 ? frame->length - 8 : 0;

    if (kind == PROTOCOL_EXIT_STATUS && text == 0 && value <= 255) {
        process->end = CHANNEL_EXITED;
    } else if (kind == PROTOCOL_EXIT_SIGNAL && text == 0 && value >= 1 && value <= 127) {
        process->end = CHANNEL_SIGNALED;
    } else if (kind == PROTOCOL_EXIT_FAILED && text <= PROTOCOL_TEXT_MAX) {
        process->end = CHANNEL_LOST;
        process->reason = hvm_escape((const char *)frame->payload + 8, (gssize)text);
        value = 0;
    } else {
        breach(channel, frame, "an exit that cannot be");
        return;
    }
    process->value = (int)value;
    process->ended = TRUE;
    process->input_ended = TRUE;
    process->output_ended[1] = process->output_ended[2] = TRUE;
}

static void take_process_frame(Channel *channel, ChannelProcess *process, const ProtocolFrame *frame)
{
    guint32 bytes;

    switch (frame->type) {
    case PROTOCOL_DATA:
        take_data(channel, process, frame);
        break;
    case PROTOCOL_EOF:
        if (!has_output(process, frame->flags) || frame->length != 0 || process->output_ended[frame->flags]) {
            breach(channel, frame, "an end of what does not flow");
            break;
        }
        process->output_ended[frame->flags] = TRUE;
        channel_stream_flush(process, frame->flags);
        break;
    case PROTOCOL_CLOSE:
        if (frame->flags != 0 || frame->length != 0)
            breach(channel, frame, "a close of what it does not read");
        process->input_ended = TRUE;
        process->eof_due = FALSE;
        channel_stream_close(process, 0);
        break;
    case PROTOCOL_CREDIT:
        bytes = frame->length == 4 ? protocol_get32(frame->payload) : 0;
        if (frame->flags != 0 || bytes == 0 || bytes > PROTOCOL_WINDOW - process->credit[0])
            breach(channel, frame, "credit for what was not sent");
        else
            process->credit[0] += bytes;
        break;
    case PROTOCOL_EXIT:
        take_exit(channel, process, frame);
        break;
    default:
        breach(channel, frame, "an unknown type");
    }
}

static void take_error(Channel *channel, const ProtocolFrame *frame)
{
    g_autofree char *text = hvm_escape((const char *)frame->payload, MIN(frame->length, PROTOCOL_TEXT_MAX));

    channel_fail(channel, "the agent lost step: %s", text);
}

static void take_frame(Channel *channel, const ProtocolFrame *frame)
{
    ChannelProcess *process;

    if (frame->type == PROTOCOL_HELLO_ACK) {
        take_hello_ack(channel, frame);
    } else if (frame->type == PROTOCOL_ERROR) {
        take_error(channel, frame);
    } else if (frame->session != channel->session) {
        /* The agent has one writer: none can follow its answer to HELLO. */
        breach(channel, frame, "another session's frame");
    } else if (frame->type == PROTOCOL_POWER_OFF_ACK) {
        if (!channel->power_off_asked || frame->length != 0)
            breach(channel, frame, "an answer to a power-off that was not asked for");
        channel->power_off_acked = TRUE;
        g_cond_broadcast(&channel->changed);
    } else if ((process = find_process(channel, frame->stream))) {
        take_process_frame(channel, process, frame);
    } else {
        breach(channel, frame, "a frame for a command that does not run");
    }
}

void channel_parse(Channel *channel)
{
    ProtocolResult result;
    ProtocolFrame frame;

    while (channel->is_open && (result = protocol_parser_next(&channel->parser, &frame)) != PROTOCOL_NEED_MORE) {
        if (result == PROTOCOL_FRAME)
            take_frame(channel, &frame);
        else
            channel_fail(channel, "the agent broke the protocol: bad magic, length or checksum");
    }
}

static gboolean put(Channel *channel, guint16 type, int fd, guint32 id, const void *payload, guint32 length)
{
    return protocol_queue_put(&channel->queue, type, (guint16)fd, id, channel->session, payload, length);
}

static gboolean emit_control(Channel *channel)
{
    GBytes *frame;

    while ((frame = g_queue_peek_head(&channel->control))) {
        gsize length;
        const guint8 *bytes = g_bytes_get_data(frame, &length);
        guint8 *to = protocol_queue_payload(&channel->queue, (guint32)(length - PROTOCOL_HEADER));

        if (!to)
            return FALSE;
        memcpy(to - PROTOCOL_HEADER, bytes, length);
        channel->queue.end += length;
        channel->control_bytes -= length;
        g_bytes_unref(g_queue_pop_head(&channel->control));
    }
    return TRUE;
}

static gboolean emit_outputs(Channel *channel, ChannelProcess *process)
{
    guint8 bytes[4];

    for (int fd = 1; fd <= 2; fd++) {
        if (process->close_due[fd] && !put(channel, PROTOCOL_CLOSE, fd, process->id, NULL, 0))
            return FALSE;
        process->close_due[fd] = FALSE;
        if (process->written[fd] < PROTOCOL_CREDIT_STEP || process->fds[fd] < 0 || process->output_ended[fd])
            continue;
        protocol_put32(bytes, process->written[fd]);
        if (!put(channel, PROTOCOL_CREDIT, fd, process->id, bytes, sizeof(bytes)))
            return FALSE;
        process->credit[fd] += process->written[fd];
        process->written[fd] = 0;
    }
    return TRUE;
}

static gboolean emit_process(Channel *channel, ChannelProcess *process)
{
    guint8 size[4];

    if (process->ended)
        return TRUE;
    protocol_put16(size, process->rows);
    protocol_put16(size + 2, process->columns);
    if (process->resize_due && !put(channel, PROTOCOL_RESIZE, 0, process->id, size, sizeof(size)))
        return FALSE;
    process->resize_due = FALSE;
    if (!emit_outputs(channel, process))
        return FALSE;
    if (process->eof_due && !put(channel, PROTOCOL_EOF, 0, process->id, NULL, 0))
        return FALSE;
    process->eof_due = FALSE;
    if (process->end_due && !put(channel, PROTOCOL_END, 0, process->id, NULL, 0))
        return FALSE;
    process->end_due = FALSE;
    return TRUE;
}

gboolean channel_emit(Channel *channel)
{
    if (!channel->established)
        return TRUE;
    if (!emit_control(channel))
        return FALSE;
    for (guint i = 0; i < channel->processes->len; i++)
        if (!emit_process(channel, g_ptr_array_index(channel->processes, i)))
            return FALSE;
    return TRUE;
}
