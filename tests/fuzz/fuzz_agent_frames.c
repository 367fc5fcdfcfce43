/*
 * fuzz_agent_frames.c: frames at both ends of the channel, for libFuzzer.
 *
 * The first byte of the input chooses the end. The rest is a list of acts: a frame (sealed here, since no fuzzer finds
 * a checksum), raw bytes, a hello, and what the commands or the clients do meanwhile. The agent's commands are pipes
 * whose other ends this file holds: nothing is started, signalled or powered off.
 */
#include "agent.h"
#include "channel_private.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)          \
    do {                          \
        if (!(condition))         \
            __builtin_trap();     \
    } while (0)

typedef struct {
    const uint8_t *at;
    size_t left;
} Input;

static unsigned next(Input *input)
{
    if (input->left == 0)
        return 0;
    input->left--;
    return *input->at++;
}

static const uint8_t *take(Input *input, size_t wanted, size_t *ret_length)
{
    const uint8_t *at = input->at;

    *ret_length = wanted < input->left ? wanted : input->left;
    input->at += *ret_length;
    input->left -= *ret_length;
    return at;
}

static const uint8_t filler[PROTOCOL_PAYLOAD_MAX];

/* A frame from the input; one in four is made long, so that windows fill. */
static size_t make_frame(Input *input, uint64_t session, uint8_t *to)
{
    /* Mostly in the range where something happens. */
    unsigned kind = next(input), place = next(input), shape = next(input);
    uint16_t type = kind < 240 ? kind % 16 : (uint16_t)(kind << 8);
    uint16_t flags = place & 3;
    uint32_t stream = place < 240 ? (place >> 2) % 6 : place << 24;
    const uint8_t *payload = filler;
    size_t length;

    if (shape >= 250)
        session++;
    if (shape % 8 == 0)
        length = next(input) << 7;
    else if (shape % 8 < 4)
        payload = take(input, 4, &length);
    else
        payload = take(input, next(input) % 16, &length);
    memcpy(to + PROTOCOL_HEADER, payload, length);
    protocol_seal(to, type, flags, stream, session, (uint32_t)length);
    return PROTOCOL_HEADER + length;
}

/* --- the agent --- */

static struct {
    int fds[3]; /* the command's ends; -1 once it closed them */
    pid_t pid;
} fakes[PROTOCOL_STREAMS_MAX];
static pid_t last_pid;
static int64_t fake_now;
static Session *fuzzed;

int64_t now_ms(void)
{
    return fake_now;
}

void system_signal_sessions(const pid_t *leaders, size_t n_leaders, int signal_number)
{
    (void)signal_number;
    for (size_t i = 0; i < n_leaders; i++)
        CHECK(leaders[i] > 0 && leaders[i] <= last_pid);
}

void command_signal(Command *command, int signal_number)
{
    CHECK(command->id && signal_number >= 1 && signal_number <= 64);
}

void command_resize(Command *command, uint16_t rows, uint16_t columns)
{
    (void)rows;
    (void)columns;
    CHECK(command->id);
}

void command_start(Command *command, const ProtocolExec *exec)
{
    unsigned i = (unsigned)(command - fuzzed->commands);
    const char *argument = exec->argv;

    for (uint32_t k = 0; k < exec->n_argv; k++)
        argument += strlen(argument) + 1;
    CHECK(argument == exec->environment);
    command->pty = exec->flags & PROTOCOL_EXEC_PTY;
    if (exec->uid == 13) { /* as when there is no memory for a process */
        command->exit_kind = PROTOCOL_EXIT_FAILED;
        command->exit_text = "no";
        command->exit_due = true;
        return;
    }
    for (int fd = 0; fd < 3; fd++) {
        int ends[2];

        if (fakes[i].fds[fd] >= 0)
            close(fakes[i].fds[fd]);
        CHECK(pipe2(ends, O_NONBLOCK) == 0);
        fcntl(ends[0], F_SETPIPE_SZ, 4096); /* soon full */
        command->fds[fd] = ends[fd == 0];
        fakes[i].fds[fd] = ends[fd != 0];
    }
    if (command->pty)
        stream_close(command, 2);
    command->pid = fakes[i].pid = ++last_pid;
}

/* All that the agent says is whole frames of its session. */
static void agent_check_output(void)
{
    static ProtocolParser reader;
    ProtocolQueue *queue = &fuzzed->queue;
    ProtocolFrame frame;

    reader.in_step = true;
    while (queue->start < queue->end) {
        size_t room, length = queue->end - queue->start;
        uint8_t *to = protocol_parser_space(&reader, &room);

        length = length < room ? length : room;
        memcpy(to, queue->buffer + queue->start, length);
        protocol_parser_filled(&reader, length);
        queue->start += length;
        for (;;) {
            ProtocolResult result = protocol_parser_next(&reader, &frame);

            if (result == PROTOCOL_NEED_MORE)
                break;
            CHECK(result == PROTOCOL_FRAME && frame.session == fuzzed->id && frame.type != PROTOCOL_HELLO);
        }
    }
    CHECK(reader.start == reader.end);
}

static void agent_feed(const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        size_t room;
        uint8_t *to = protocol_parser_space(&fuzzed->parser, &room);

        CHECK(room > 0);
        room = room < length ? room : length;
        memcpy(to, bytes, room);
        protocol_parser_filled(&fuzzed->parser, room);
        session_parse(fuzzed);
        bytes += room;
        length -= room;
    }
}

/* As if the padding stood before it: 64 KiB of zero bytes each time would leave no time for anything else. */
static void agent_hello(uint64_t session)
{
    uint8_t hello[PROTOCOL_HEADER + PROTOCOL_HELLO_LENGTH] = {0};

    hello[PROTOCOL_HEADER] = PROTOCOL_VERSION;
    protocol_seal(hello, PROTOCOL_HELLO, 0, 0, session, PROTOCOL_HELLO_LENGTH);
    if (!fuzzed->parser.in_step)
        fuzzed->parser.zeros = PROTOCOL_ZEROS;
    agent_feed(hello, sizeof(hello));
}

/* A good EXEC, which is a lot to ask of a fuzzer, in one piece or two. */
static void agent_exec(Input *input)
{
    static const char texts[] = "\0name\0group\0/home/name\0\0program\0argument\0NAME=VALUE";
    uint8_t payload[PROTOCOL_EXEC_HEAD + sizeof(texts)] = {0};
    uint8_t frame[PROTOCOL_HEADER + sizeof(payload)];
    uint32_t id = fuzzed->highest + 1, cut = next(input) % sizeof(payload);

    payload[0] = next(input) & 3;
    payload[4] = next(input) & 15;
    payload[20] = 2;
    payload[24] = 1;
    memcpy(payload + PROTOCOL_EXEC_HEAD, texts, sizeof(texts));
    memcpy(frame + PROTOCOL_HEADER, payload, cut);
    protocol_seal(frame, PROTOCOL_EXEC, PROTOCOL_MORE, id, fuzzed->id, cut);
    agent_feed(frame, PROTOCOL_HEADER + cut);
    memcpy(frame + PROTOCOL_HEADER, payload + cut, sizeof(payload) - cut);
    protocol_seal(frame, PROTOCOL_EXEC, 0, id, fuzzed->id, (uint32_t)sizeof(payload) - cut);
    agent_feed(frame, PROTOCOL_HEADER + sizeof(payload) - cut);
}

/* One command does something. */
static void agent_command_acts(Input *input)
{
    static uint8_t bytes[65536];
    unsigned i = next(input) % 8, act = next(input);
    Command *command = &fuzzed->commands[i];
    int fd = act >> 4 & 3;

    if (!command->id || !command->pid)
        return;
    if ((act & 3) == 3) {
        session_child_ended(fuzzed, command->pid, act & 8 ? CLD_KILLED : CLD_EXITED, (int)next(input));
    } else if (fd < 3 && fakes[i].fds[fd] >= 0 && (act & 3) == 2) {
        close(fakes[i].fds[fd]);
        fakes[i].fds[fd] = -1;
    } else if (fd < 3 && fakes[i].fds[fd] >= 0) {
        size_t length = next(input) * 256 + 1;
        ssize_t n = fd == 0 ? read(fakes[i].fds[0], bytes, length) : write(fakes[i].fds[fd], bytes, length);

        (void)n; /* full or empty: as well */
    }
}

static void agent_serve(void)
{
    for (unsigned i = 0; i < PROTOCOL_STREAMS_MAX; i++) {
        Command *command = &fuzzed->commands[i];

        if (!command->id)
            continue;
        stream_write(command);
        for (int fd = 1; fd <= 2; fd++)
            if (command->id && stream_wants_read(command, fd))
                stream_read(fuzzed, command, fd);
        for (int fd = 0; fd < 3; fd++)
            CHECK(command->credit[fd] <= PROTOCOL_WINDOW);
        CHECK(command->input_length <= PROTOCOL_WINDOW + 2);
    }
}

static void fuzz_agent(Input *input)
{
    static uint8_t frame[PROTOCOL_FRAME_MAX];
    static Session session;

    session_init(&session);
    fuzzed = &session;
    for (unsigned i = 0; i < PROTOCOL_STREAMS_MAX; i++)
        fakes[i].fds[0] = fakes[i].fds[1] = fakes[i].fds[2] = -1;
    agent_hello(7);
    agent_exec(input);
    while (input->left > 0) {
        unsigned act = next(input);
        const uint8_t *raw;
        size_t length;

        switch (act % 8) {
        case 0:
            raw = take(input, next(input), &length);
            agent_feed(raw, length);
            break;
        case 1:
            agent_hello(act & 8 ? 7 : 9);
            break;
        case 2:
            session_hang_up(&session);
            agent_hello(7);
            break;
        case 3:
            agent_command_acts(input);
            break;
        case 4:
            fake_now += 1000;
            session_timers(&session);
            break;
        case 5:
            agent_exec(input);
            break;
        default:
            agent_feed(frame, make_frame(input, session.id, frame));
        }
        agent_serve();
        session_emit(&session);
        if (act & 64)
            agent_check_output();
    }
    session_emit(&session);
    agent_check_output();
    session_hang_up(&session);
    for (unsigned i = 0; i < PROTOCOL_STREAMS_MAX; i++) {
        for (int fd = 0; fd < 3; fd++)
            if (fakes[i].fds[fd] >= 0)
                close(fakes[i].fds[fd]);
        if (session.commands[i].id)
            session_child_ended(&session, session.commands[i].pid, CLD_EXITED, 0);
        CHECK(session.commands[i].id == 0);
    }
}

/* --- the channel --- */

#define CLIENTS_MAX 8

typedef struct {
    ChannelStreams streams;
    guint32 id;
    unsigned n_ends;
} Client;

static void on_end(ChannelEnd end, int value, const char *reason, gpointer data)
{
    Client *client = data;

    CHECK(++client->n_ends == 1);
    CHECK((end == CHANNEL_LOST) == (reason != NULL));
    CHECK(end != CHANNEL_EXITED || (value >= 0 && value <= 255));
}

static void client_start(Channel *channel, Client *client, gboolean pty)
{
    const char *argv[] = {"program", NULL};
    ChannelCommand command = {.argv = argv, .pty = pty};

    client->id = channel_exec(channel, &command, &client->streams, on_end, client, NULL);
    for (int i = 0; client->id && i < 3; i++) {
        int fd = ((int[]){client->streams.stdin_fd, client->streams.stdout_fd, client->streams.stderr_fd})[i];

        if (fd >= 0)
            fcntl(fd, F_SETFL, O_NONBLOCK);
    }
}

static void client_close(Client *client, int which)
{
    int *fd = ((int *[]){&client->streams.stdin_fd, &client->streams.stdout_fd, &client->streams.stderr_fd})[which];

    if (*fd >= 0)
        close(*fd);
    if (which < 2 && client->streams.stdin_fd == client->streams.stdout_fd)
        client->streams.stdin_fd = client->streams.stdout_fd = -1;
    *fd = -1;
}

static void client_acts(Channel *channel, Client *client, unsigned act)
{
    static uint8_t bytes[65536];

    if (client->id == 0)
        return;
    switch (act % 8) {
    case 0:
        client_close(client, (int)(act >> 4) % 3);
        break;
    case 1:
        send(client->streams.stdin_fd, bytes, 1u << (act >> 4), MSG_NOSIGNAL);
        break;
    case 2:
        recv(client->streams.stdout_fd, bytes, sizeof(bytes), 0);
        break;
    case 3:
        recv(client->streams.stderr_fd, bytes, sizeof(bytes), 0);
        break;
    case 4:
        shutdown(client->streams.stdin_fd, (int)(act >> 4) % 3);
        break;
    case 5:
        channel_signal(channel, client->id, 15, NULL);
        break;
    case 6:
        channel_resize(channel, client->id, 24, 80, NULL);
        break;
    default:
        channel_end(channel, client->id, NULL);
    }
}

static void channel_check(const Channel *channel)
{
    for (guint i = 0; i < channel->processes->len; i++) {
        const ChannelProcess *process = g_ptr_array_index(channel->processes, i);

        for (int fd = 0; fd < 3; fd++)
            CHECK(process->credit[fd] <= PROTOCOL_WINDOW && process->output_length[fd] <= PROTOCOL_WINDOW);
    }
}

static void fuzz_channel(Input *input)
{
    static uint8_t bytes[PROTOCOL_FRAME_MAX];
    g_autoptr(GArray) polls = g_array_new(FALSE, FALSE, sizeof(struct pollfd));
    Client clients[CLIENTS_MAX] = {0};
    uint8_t hello[PROTOCOL_HEADER + PROTOCOL_HELLO_LENGTH] = {0};
    unsigned n_clients = 0;
    Channel *channel;
    int ends[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    channel = channel_new("g", ends[0], NULL);
    channel->session = 7;
    hello[PROTOCOL_HEADER] = PROTOCOL_VERSION;
    protocol_seal(hello, PROTOCOL_HELLO_ACK, 0, 0, 7, PROTOCOL_HELLO_LENGTH);
    if (next(input) < 200) {
        channel->n_hellos = 1;
        send(ends[1], hello, sizeof(hello), MSG_NOSIGNAL);
        client_start(channel, &clients[n_clients++], FALSE);
        client_start(channel, &clients[n_clients++], TRUE);
    }
    while (input->left > 0 && channel->is_open) {
        unsigned act = next(input);
        const uint8_t *raw = NULL;
        size_t length;

        switch (act % 8) {
        case 0:
            raw = take(input, next(input), &length);
            send(ends[1], raw, length, MSG_NOSIGNAL);
            break;
        case 1:
            send(ends[1], hello, sizeof(hello), MSG_NOSIGNAL);
            break;
        case 2:
            if (n_clients < CLIENTS_MAX)
                client_start(channel, &clients[n_clients++], act & 8);
            break;
        case 3:
            client_acts(channel, &clients[next(input) % CLIENTS_MAX], next(input));
            break;
        case 4:
            channel_power_off(channel, 0, NULL);
            break;
        default:
            send(ends[1], bytes, make_frame(input, channel->session, bytes), MSG_NOSIGNAL);
        }
        g_mutex_lock(&channel->mutex);
        channel_serve(channel, polls, 0);
        channel_check(channel);
        g_mutex_unlock(&channel->mutex);
        while (act & 64 && recv(ends[1], bytes, sizeof(bytes), 0) > 0)
            continue;
    }
    g_mutex_lock(&channel->mutex);
    channel_finish(channel);
    g_mutex_unlock(&channel->mutex);
    for (unsigned i = 0; i < n_clients; i++) {
        CHECK(clients[i].id == 0 || clients[i].n_ends == 1);
        for (int which = 0; which < 3 && clients[i].id; which++)
            client_close(&clients[i], which);
    }
    channel_destroy(channel);
    close(ends[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input input = {data, size};

    signal(SIGPIPE, SIG_IGN);
    if (next(&input) & 1)
        fuzz_channel(&input);
    else
        fuzz_agent(&input);
    return 0;
}
