/*
 * agent.h: what the files of the guest's agent share. Not for hvmd: its end is channel.h.
 *
 * agent.c (main loop, port) -> agent_session.c (frames, what to answer) -> agent_stream.c (descriptors of a command)
 *                                                                      -> agent_command.c (start and end of a command)
 * agent_child.c and agent_user.c run in the child, between fork and exec: whatever blocks there (a slow file system, a
 * lock) blocks one command alone. agent_system.c is what the agent does to the machine.
 *
 * One thread. Frames from hvmd are trusted as to what they ask, not as to their form.
 */
#pragma once

#include "protocol.h"

#include <sys/types.h>

#define AGENT_KILL_MS 2000 /* from SIGHUP to SIGKILL */

typedef struct {
    uint32_t id;         /* 0: this slot is free */
    pid_t pid;           /* leader of its own session and process group; 0 once reaped */
    bool pty;            /* fds[0] and fds[1] are the terminal's master, twice; no fds[2] */
    int fds[3];          /* our ends, non-blocking; -1 once closed */
    uint32_t credit[3];  /* [0]: what hvmd may still send; [1], [2]: what it lets us send */
    uint32_t written;    /* bytes of DATA written on, not given back yet */
    uint8_t *input;      /* DATA that the command did not read yet, up to a window and 2; NULL while empty */
    uint32_t input_start;
    uint32_t input_length;
    uint8_t input_last;  /* last byte for the terminal */
    bool input_ended;    /* EOF came: close once `input` is written */
    bool close_due;      /* CLOSE for 0 is to be sent */
    bool eof_due[3];
    int64_t drain[3];    /* bytes still to read after the main process ended; -1: no such limit yet */
    bool exit_due;
    uint32_t exit_kind;
    uint32_t exit_value;
    const char *exit_text;
    bool detached;       /* its session is over: nothing is told any more */
    int64_t kill_at_ms;  /* when SIGKILL follows, or 0 */
} Command;

typedef struct {
    ProtocolParser parser;
    ProtocolQueue queue;
    uint64_t id;      /* of the session, 0 before the first HELLO */
    uint32_t highest; /* command number of this session */
    Command commands[PROTOCOL_STREAMS_MAX];
    unsigned n_slots; /* those from here on are free: a round must not cost what 256 commands would */
    bool ack_due;
    bool power_off_ack_due;
    bool power_off;    /* asked for: act once the queue is empty */
    const char *error; /* ERROR is to be sent with this text */
    uint8_t *exec;     /* pieces of an EXEC, or NULL */
    uint32_t exec_stream;
    uint32_t exec_length;
} Session;

/* --- agent_session.c --- */

void session_init(Session *session);
/* Handles every whole frame in the parser. */
void session_parse(Session *session);
/* Puts what is due into the queue, as far as there is room. False: there is more. */
bool session_emit(Session *session);
/* hvmd is gone: ends the commands as END does, forgets what is queued, waits for HELLO. */
void session_hang_up(Session *session);
/* SIGKILL to those whose 2 s are over. Returns the milliseconds until the next, or -1. */
int session_timers(Session *session);
/* A child ended (not reaped yet; the caller does that next); `code` and `status` as siginfo_t has them. */
void session_child_ended(Session *session, pid_t pid, int code, int status);
bool session_has_commands(const Session *session);

/* --- agent_stream.c --- */

/* Takes DATA for standard input. False where it is more than was allowed. */
bool stream_input(Command *command, const uint8_t *data, uint32_t length);
void stream_input_end(Command *command);
/* Writes on what the command can take. */
void stream_write(Command *command);
/* Whether descriptor 1 or 2 may be read now: open, with credit. */
bool stream_wants_read(const Command *command, int fd);
/* Reads once from descriptor 1 or 2 into a frame. False: there was no room in the queue. */
bool stream_read(Session *session, Command *command, int fd);
/* The main process ended: what the pipes hold now is still sent, no more. */
void stream_main_ended(Command *command);
void stream_close(Command *command, int fd);

/* --- agent_command.c --- */

/* Starts it; on failure (out of processes, descriptors) exit_due is set and the descriptors are -1. */
void command_start(Command *command, const ProtocolExec *exec);
void command_signal(Command *command, int signal_number);
void command_resize(Command *command, uint16_t rows, uint16_t columns);
int64_t now_ms(void);

/* --- agent_child.c, agent_user.c --- */

/* Becomes the command, with its descriptors 0 to 2 in place; says on descriptor 2 why it cannot, with status 125 (no such
 * user or folder), 126 or 127. */
_Noreturn void child_run(const ProtocolExec *exec);
_Noreturn void child_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

typedef struct {
    uid_t uid;
    gid_t gid;
    gid_t *groups;
    size_t n_groups;
    const char *name;
    const char *home;
    const char *shell;
} ChildUser;

/* Who the command runs as; makes an unknown user known where the request has names for it. Ends in child_fail() where a
 * user asked for by name is unknown. */
void child_user(const ProtocolExec *exec, ChildUser *ret_user);

/* --- agent_system.c --- */

/* Sends a signal to every process of these (terminal) sessions; for SIGKILL until none is left. A leader must not have
 * been reaped, else its number may be another's. */
void system_signal_sessions(const pid_t *leaders, size_t n_leaders, int signal_number);
/* An init may be started without 0, 1 and 2: a pipe must not get their numbers. And what else it was given is not for
 * the commands. */
void system_sort_descriptors(void);
/* Keeps the kernel from choosing the agent when memory is short; and in a child: gives it what the agent itself was
 * given. */
void system_oom_protect(void);
void system_oom_restore(void);
/* Grows the root file system to its device. False: read-only still, ask again later. */
bool system_grow_root(void);
/* Path of the agent's device, in a static buffer, or NULL while there is none. */
const char *system_find_port(void);
/* In a child of the agent: powers the machine off, by its init unless the agent is that (is_init). `program` (tests)
 * replaces all of that where it is not NULL. */
_Noreturn void system_power_off(const char *program, bool is_init);
