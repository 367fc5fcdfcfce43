/*
 * guest_command.h: a command in a guest: hvmd's methods Exec, ExecWait and ExecControl, as exec, run, shell and cp use them.
 *
 * Input: a request of Exec (io.hvm1.xml). Output: its streams, and how it ended.
 * Threads: the main loop's. Errors: hvmd's own; INTERNAL where its answer makes no sense.
 */
#pragma once

#include "cli.h"

typedef struct {
    guint32 number;                     /* hvmd's; 0: none */
    int stdin_fd, stdout_fd, stderr_fd; /* sockets; the caller closes. stderr_fd is -1 for a command with a terminal */
} GuestCommand;

typedef struct {
    gboolean lost;      /* it neither ended nor was killed: the guest or its agent went */
    int status;         /* as a shell has it: 128+N where signal N ended it; 0 where it was lost */
    const char *reason; /* the agent's words, or ""; valid as long as the reply */
} GuestCommandEnd;

/* Adds --user to a request of Exec, where it was given. INVALID. */
gboolean guest_command_add_user(const Cli *cli, GVariantDict *request, GError **error);

/* Starts it. `request` (floating or not) names the guest; `pty` as in the request. On failure *ret_command is empty. */
gboolean guest_command_start(Client *client, GVariant *request, gboolean pty, GuestCommand *ret_command, GError **error);

/* Has `on_end` called once with ExecWait's reply, for guest_command_read_end(), or an error. */
void guest_command_wait(Client *client, guint32 number, ClientReplyFunc on_end, gpointer data);
void guest_command_read_end(GVariant *reply, GuestCommandEnd *ret_end);

/* Begins a request of ExecControl: the caller adds a signal or a size. */
void guest_command_init_control(GVariantDict *request, guint32 number);
