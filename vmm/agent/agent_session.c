/* The frames: what hvmd asks, what it is told, and in which order. */
#include "agent.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void session_init(Session *session)
{
    memset(session, 0, sizeof(*session));
    protocol_parser_init(&session->parser, PROTOCOL_HELLO, PROTOCOL_ZEROS);
    session->error = "it has just started";
}

static void command_free(Session *session, Command *command)
{
    for (int fd = 0; fd < 3; fd++)
        stream_close(command, fd);
    memset(command, 0, sizeof(*command));
    while (session->n_slots > 0 && !session->commands[session->n_slots - 1].id)
        session->n_slots--;
}

/* A running command of this session, or NULL. */
static Command *command_find(Session *session, uint32_t id)
{
    for (unsigned i = 0; i < session->n_slots; i++)
        if (session->commands[i].id == id && !session->commands[i].detached)
            return &session->commands[i];
    return NULL;
}

/* A free slot, or NULL. */
static Command *command_new(Session *session)
{
    for (unsigned i = 0; i < PROTOCOL_STREAMS_MAX; i++) {
        if (session->commands[i].id)
            continue;
        if (i >= session->n_slots)
            session->n_slots = i + 1;
        return &session->commands[i];
    }
    return NULL;
}

bool session_has_commands(const Session *session)
{
    for (unsigned i = 0; i < session->n_slots; i++)
        if (session->commands[i].id)
            return true;
    return false;
}

static void exec_drop(Session *session)
{
    free(session->exec);
    session->exec = NULL;
    session->exec_length = 0;
}

static void session_error(Session *session, const char *text)
{
    session->error = text;
    session->parser.in_step = false;
    session->parser.zeros = 0;
    exec_drop(session);
}

/* The client is gone. What the command left running goes with it, unlike after an end of its own. It may still write,
 * so that a program which says something at its SIGHUP does not die of SIGPIPE instead; a terminal is closed. */
static void command_end(Command *command)
{
    stream_close(command, 0);
    for (int fd = 1; fd <= 2; fd++)
        if (command->pty || !command->pid)
            stream_close(command, fd);
    if (!command->pid || command->kill_at_ms)
        return;
    command->kill_at_ms = now_ms() + AGENT_KILL_MS;
    system_signal_sessions(&command->pid, 1, SIGHUP);
    system_signal_sessions(&command->pid, 1, SIGCONT); /* a stopped process hears nothing */
}

void session_hang_up(Session *session)
{
    for (unsigned i = 0; i < session->n_slots; i++) {
        Command *command = &session->commands[i];

        if (!command->id || command->detached)
            continue;
        command_end(command);
        command->detached = true;
        command->credit[1] = command->credit[2] = 0; /* nobody to send it to */
        if (!command->pid)
            command_free(session, command);
    }
    protocol_parser_init(&session->parser, PROTOCOL_HELLO, PROTOCOL_ZEROS);
    session->queue.start = session->queue.end = 0;
    session->ack_due = session->power_off_ack_due = false;
    session->error = NULL;
    session->id = 0;
    exec_drop(session);
}

/* A new session finds nothing of the old one: neither processes nor frames. */
static void session_begin(Session *session, uint64_t id)
{
    pid_t leaders[PROTOCOL_STREAMS_MAX];
    size_t n_leaders = 0;

    for (unsigned i = 0; i < session->n_slots; i++)
        if (session->commands[i].pid)
            leaders[n_leaders++] = session->commands[i].pid;
    system_signal_sessions(leaders, n_leaders, SIGKILL);
    for (unsigned i = 0; i < session->n_slots; i++)
        if (session->commands[i].id)
            command_free(session, &session->commands[i]);
    session->queue.start = session->queue.end = 0;
    session->power_off_ack_due = false;
    session->highest = 0;
    session->id = id;
    exec_drop(session);
}

int session_timers(Session *session)
{
    int64_t now = now_ms();
    int64_t next = -1;

    for (unsigned i = 0; i < session->n_slots; i++) {
        Command *command = &session->commands[i];

        if (!command->pid || !command->kill_at_ms)
            continue;
        if (command->kill_at_ms <= now) {
            system_signal_sessions(&command->pid, 1, SIGKILL);
            command->kill_at_ms = now + AGENT_KILL_MS; /* again, for what was just being made */
        }
        if (next < 0 || command->kill_at_ms - now < next)
            next = command->kill_at_ms - now;
    }
    return (int)next;
}

void session_child_ended(Session *session, pid_t pid, int code, int status)
{
    Command *command = NULL;

    for (unsigned i = 0; i < session->n_slots && !command; i++)
        if (session->commands[i].id && session->commands[i].pid == pid)
            command = &session->commands[i];
    if (!command)
        return; /* an orphan that came to us as process 1, or of an old session */
    if (command->kill_at_ms)
        system_signal_sessions(&pid, 1, SIGKILL); /* now, while its number is still its own */
    command->pid = 0;
    if (command->detached) {
        command_free(session, command);
        return;
    }
    command->exit_due = true;
    command->exit_kind = code == CLD_EXITED ? PROTOCOL_EXIT_STATUS : PROTOCOL_EXIT_SIGNAL;
    command->exit_value = (uint32_t)status;
    stream_main_ended(command);
}

static void take_exec(Session *session, const ProtocolFrame *frame)
{
    ProtocolExec exec;
    Command *command;

    if (!session->exec) {
        if (frame->stream <= session->highest || !(session->exec = malloc(PROTOCOL_EXEC_MAX))) {
            session_error(session, session->exec ? "no memory for an EXEC" : "the number of an EXEC is not new");
            return;
        }
        session->exec_stream = session->highest = frame->stream;
    }
    if (frame->stream != session->exec_stream || frame->length > PROTOCOL_EXEC_MAX - session->exec_length) {
        session_error(session, "an EXEC is interrupted or too long");
        return;
    }
    memcpy(session->exec + session->exec_length, frame->payload, frame->length);
    session->exec_length += frame->length;
    if (frame->flags & PROTOCOL_MORE)
        return;
    command = command_new(session);
    if (!protocol_exec_parse(session->exec, session->exec_length, &exec) || !command) {
        session_error(session, command ? "an EXEC is malformed" : "too many commands");
        return;
    }
    memset(command, 0, sizeof(*command));
    command->id = frame->stream;
    for (int fd = 0; fd < 3; fd++) {
        command->fds[fd] = -1;
        command->drain[fd] = -1;
        command->credit[fd] = PROTOCOL_WINDOW;
    }
    command_start(command, &exec);
    exec_drop(session);
}

/* CLOSE and CREDIT, which hvmd sends for what it reads. */
static bool take_output_frame(Command *command, const ProtocolFrame *frame)
{
    int fd = frame->flags;
    uint32_t bytes;

    if (frame->type == PROTOCOL_CLOSE) {
        if (command->pty)
            command_end(command); /* as when a terminal is closed */
        else
            stream_close(command, fd);
        command->eof_due[fd] = false;
        return frame->length == 0;
    }
    bytes = frame->length == 4 ? protocol_get32(frame->payload) : 0;
    if (bytes == 0 || bytes > PROTOCOL_WINDOW - command->credit[fd])
        return false;
    command->credit[fd] += bytes;
    return true;
}

/* A frame for a command that runs. False where it is malformed. */
static bool take_command_frame(Command *command, const ProtocolFrame *frame)
{
    const uint8_t *payload = frame->payload;

    switch (frame->type) {
    case PROTOCOL_DATA:
        return frame->flags == 0 && frame->length > 0 && stream_input(command, payload, frame->length);
    case PROTOCOL_EOF:
        if (frame->flags != 0 || frame->length != 0 || command->input_ended)
            return false;
        stream_input_end(command);
        return true;
    case PROTOCOL_CLOSE:
    case PROTOCOL_CREDIT:
        return (frame->flags == 1 || frame->flags == 2) && take_output_frame(command, frame);
    case PROTOCOL_SIGNAL:
        if (frame->length != 4 || protocol_get32(payload) < 1 || protocol_get32(payload) > 64)
            return false;
        command_signal(command, (int)protocol_get32(payload));
        return true;
    case PROTOCOL_RESIZE:
        if (frame->length != 4)
            return false;
        command_resize(command, protocol_get16(payload), protocol_get16(payload + 2));
        return true;
    case PROTOCOL_END:
        command_end(command);
        return frame->length == 0;
    default:
        return false;
    }
}

static void take_frame(Session *session, const ProtocolFrame *frame)
{
    Command *command;

    if (frame->type == PROTOCOL_HELLO) {
        if (frame->session != session->id)
            session_begin(session, frame->session);
        session->ack_due = true;
        session->error = NULL;
        return;
    }
    if (frame->session != session->id)
        return;
    if (session->exec && frame->type != PROTOCOL_EXEC) {
        session_error(session, "an EXEC is interrupted or too long");
    } else if (frame->type == PROTOCOL_POWER_OFF) {
        session->power_off_ack_due = session->power_off = true;
    } else if (frame->stream == 0) {
        session_error(session, "a frame has an unknown type");
    } else if (frame->type == PROTOCOL_EXEC) {
        take_exec(session, frame);
    } else if (frame->stream > session->highest) {
        session_error(session, "a frame is for a command that never was");
    } else if ((command = command_find(session, frame->stream)) && !take_command_frame(command, frame)) {
        session_error(session, "a frame for a command is malformed, or more than was allowed");
    }
}

void session_parse(Session *session)
{
    ProtocolFrame frame;
    ProtocolResult result;

    while ((result = protocol_parser_next(&session->parser, &frame)) != PROTOCOL_NEED_MORE) {
        if (result == PROTOCOL_FRAME)
            take_frame(session, &frame);
        else if (result == PROTOCOL_LOST_STEP)
            session_error(session, "bad magic, length or checksum");
        else
            exec_drop(session);
    }
}

static bool put(Session *session, uint16_t type, uint16_t flags, uint32_t stream, const void *payload, size_t length)
{
    return protocol_queue_put(&session->queue, type, flags, stream, session->id, payload, (uint32_t)length);
}

static bool emit_exit(Session *session, Command *command)
{
    uint8_t payload[8 + PROTOCOL_TEXT_MAX];
    size_t text = command->exit_text ? strlen(command->exit_text) : 0;

    protocol_put32(payload, command->exit_kind);
    protocol_put32(payload + 4, command->exit_value);
    if (text > 0)
        memcpy(payload + 8, command->exit_text, text);
    if (!put(session, PROTOCOL_EXIT, 0, command->id, payload, 8 + text))
        return false;
    command_free(session, command);
    return true;
}

/* False where the queue is full. */
static bool emit_command(Session *session, Command *command)
{
    uint8_t credit[4];

    if (command->close_due && !put(session, PROTOCOL_CLOSE, 0, command->id, NULL, 0))
        return false;
    command->close_due = false;
    if (command->written >= PROTOCOL_CREDIT_STEP && command->fds[0] >= 0 && !command->input_ended) {
        protocol_put32(credit, command->written);
        if (!put(session, PROTOCOL_CREDIT, 0, command->id, credit, sizeof(credit)))
            return false;
        command->credit[0] += command->written;
        command->written = 0;
    }
    for (uint16_t fd = 1; fd <= 2; fd++) {
        if (command->eof_due[fd] && !put(session, PROTOCOL_EOF, fd, command->id, NULL, 0))
            return false;
        command->eof_due[fd] = false;
    }
    if (command->exit_due && command->fds[1] < 0 && command->fds[2] < 0)
        return emit_exit(session, command);
    return true;
}

static bool emit_session(Session *session)
{
    uint8_t hello[PROTOCOL_HELLO_LENGTH] = {0};

    protocol_put32(hello, PROTOCOL_VERSION);
    if (session->ack_due && !put(session, PROTOCOL_HELLO_ACK, 0, 0, hello, sizeof(hello)))
        return false;
    session->ack_due = false;
    if (session->power_off_ack_due && !put(session, PROTOCOL_POWER_OFF_ACK, 0, 0, NULL, 0))
        return false;
    session->power_off_ack_due = false;
    if (session->error && !put(session, PROTOCOL_ERROR, 0, 0, session->error, strlen(session->error)))
        return false;
    session->error = NULL;
    return true;
}

bool session_emit(Session *session)
{
    if (session->id == 0 && !session->error)
        return true;
    if (!emit_session(session))
        return false;
    for (unsigned i = 0; i < session->n_slots; i++)
        if (session->commands[i].id && !session->commands[i].detached && !emit_command(session, &session->commands[i]))
            return false;
    return true;
}
