/* The three descriptors of a command: credit, what is buffered, and the end of each. */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define INPUT_SIZE (PROTOCOL_WINDOW + 2) /* and two ends of file for a terminal */
#define PTY_HOLDS_MAX 131072             /* more than the kernel buffers for a terminal (64 KiB and 4 KiB) */

void stream_close(Command *command, int fd)
{
    if (command->fds[fd] >= 0)
        close(command->fds[fd]);
    command->fds[fd] = -1;
    if (fd == 0) {
        free(command->input);
        command->input = NULL;
        command->input_length = 0;
    }
}

static void input_append(Command *command, const uint8_t *data, uint32_t length)
{
    if (!command->input) {
        command->input = malloc(INPUT_SIZE);
        command->input_start = command->input_length = 0;
    }
    if (!command->input) { /* no memory: the command sees its input end, which hvmd is told */
        stream_close(command, 0);
        command->close_due = true;
        return;
    }
    if (command->input_start + command->input_length + length > INPUT_SIZE) {
        memmove(command->input, command->input + command->input_start, command->input_length);
        command->input_start = 0;
    }
    memcpy(command->input + command->input_start + command->input_length, data, length);
    command->input_length += length;
}

/* Writes to the command; the bytes taken, or -1 once nobody reads any more. */
static ssize_t input_write(Command *command, const uint8_t *data, uint32_t length)
{
    ssize_t n;

    do {
        n = write(command->fds[0], data, length);
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    if (errno == EAGAIN)
        return 0;
    stream_close(command, 0);
    command->close_due = true;
    return -1;
}

bool stream_input(Command *command, const uint8_t *data, uint32_t length)
{
    ssize_t n = 0;

    if (length > command->credit[0] || command->input_ended)
        return false;
    command->credit[0] -= length;
    if (command->fds[0] < 0)
        return true; /* on its way when CLOSE was sent */
    command->input_last = data[length - 1];
    if (!command->input)
        n = input_write(command, data, length);
    if (n < 0)
        return true;
    command->written += (uint32_t)n;
    if ((uint32_t)n < length)
        input_append(command, data + n, length - (uint32_t)n);
    return true;
}

void stream_input_end(Command *command)
{
    struct termios settings;
    uint8_t ends[2];

    command->input_ended = true;
    if (command->pty && command->fds[0] >= 0 && tcgetattr(command->fds[0], &settings) == 0) {
        /* A terminal has no end: its end-of-file character is one at the start of a line, and elsewhere only ends the
         * line. */
        ends[0] = ends[1] = settings.c_cc[VEOF];
        if (settings.c_lflag & ICANON)
            input_append(command, ends, command->input_last && command->input_last != '\n' ? 2 : 1);
    }
    stream_write(command);
}

void stream_write(Command *command)
{
    ssize_t n;

    while (command->fds[0] >= 0 && command->input) {
        n = input_write(command, command->input + command->input_start, command->input_length);
        if (n <= 0)
            return;
        command->written += (uint32_t)n;
        command->input_start += (uint32_t)n;
        command->input_length -= (uint32_t)n;
        if (command->input_length == 0) {
            free(command->input);
            command->input = NULL;
        }
    }
    if (command->input_ended && !command->input)
        stream_close(command, 0);
}

bool stream_wants_read(const Command *command, int fd)
{
    return command->fds[fd] >= 0 && command->credit[fd] > 0;
}

static void output_ended(Command *command, int fd)
{
    stream_close(command, fd);
    command->eof_due[fd] = true;
}

bool stream_read(Session *session, Command *command, int fd)
{
    uint8_t *to = protocol_queue_payload(&session->queue, PROTOCOL_PAYLOAD_MAX);
    uint32_t most = command->credit[fd] < PROTOCOL_PAYLOAD_MAX ? command->credit[fd] : PROTOCOL_PAYLOAD_MAX;
    ssize_t n;

    if (!to)
        return false;
    if (command->drain[fd] >= 0 && command->drain[fd] < most)
        most = (uint32_t)command->drain[fd];
    do {
        n = read(command->fds[fd], to, most);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        protocol_queue_commit(&session->queue, PROTOCOL_DATA, (uint16_t)fd, command->id, session->id, (uint32_t)n);
        command->credit[fd] -= (uint32_t)n;
        if (command->drain[fd] >= 0 && (command->drain[fd] -= n) == 0)
            output_ended(command, fd);
    } else if (n == 0 || errno != EAGAIN || command->drain[fd] >= 0) {
        output_ended(command, fd); /* a terminal's master says EIO once no process has it open */
    }
    return true;
}

void stream_main_ended(Command *command)
{
    command->close_due = command->close_due || command->fds[0] >= 0;
    stream_close(command, 0);
    for (int fd = 1; fd <= 2; fd++) {
        int held = 0;

        if (command->fds[fd] < 0)
            continue;
        /* A background child may keep the pipe open and write for ever. */
        if (!command->pty && ioctl(command->fds[fd], FIONREAD, &held) < 0)
            held = 0;
        if (command->kill_at_ms && (uint32_t)held > command->credit[fd]) /* its client may never read on */
            held = (int)command->credit[fd];
        command->drain[fd] = command->pty ? PTY_HOLDS_MAX : held;
        if (command->drain[fd] == 0)
            output_ended(command, fd);
    }
}
