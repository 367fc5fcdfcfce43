/*
 * channel.h: hvmd's end of the channel to the agent of one guest.
 *
 * Input: the path of the UNIX socket that QEMU listens on. Output: commands run in the guest with their streams as
 * file descriptors. A channel has a thread of its own, so that a guest which floods, or stops reading, stalls no other.
 * The guest is hostile: frames are bounded, what it sends is checked, and a breach closes the channel (AGENT).
 * Streams: for each command the channel makes socketpairs and hands out one end of each; a client that stops reading
 * stalls its own stream alone.
 * Threads: any; callbacks come in the channel's thread and must not block nor free the channel.
 */
#pragma once

#include <gio/gio.h>

typedef struct Channel Channel;

typedef struct {
    const char *const *argv;        /* at least one; argv[0] is looked up in PATH in the guest */
    const char *const *environment; /* NAME=VALUE, or NULL */
    const char *directory;          /* wanted working directory, or NULL for the user's home */
    gboolean directory_required;    /* FALSE: fall back to home, then / */
    const char *user;               /* a user of the guest by name (numbers below are then ignored), or NULL */
    guint32 uid;
    guint32 gid;
    const guint32 *groups;          /* supplementary, n_groups of them */
    unsigned n_groups;
    const char *user_name;          /* made in the guest under this name if the uid is not known there; or NULL */
    const char *group_name;
    const char *home;               /* its home there, made if missing; or NULL */
    gboolean pty;                   /* stdin and stdout on one terminal, stderr unused */
    guint16 rows, columns;          /* of the pty */
} ChannelCommand;

typedef struct {
    int stdin_fd;  /* the client's ends: blocking sockets, owned by the caller, CLOEXEC */
    int stdout_fd; /* for a pty the same number as stdin_fd: one socket for both ways, to be closed once */
    int stderr_fd; /* -1 for a pty */
} ChannelStreams;

typedef enum { CHANNEL_EXITED, CHANNEL_SIGNALED, CHANNEL_LOST } ChannelEnd;

/* The command's end: exit status, or signal number, or for CHANNEL_LOST the reason. Called exactly once, after all of
 * its output was written to the streams or the client closed them. */
typedef void (*ChannelEndFunc)(ChannelEnd end, int value, const char *reason, gpointer data);

/* Connects and says hello; waits until the agent answers or `timeout_ms` ran out (TIMEOUT: "the agent of guest 'g' did
 * not answer within 60 s"), the cancellable or the socket's end. Retries while the socket is not there yet. Blocks. */
Channel *channel_open(const char *socket_path, const char *guest_name, unsigned timeout_ms, GCancellable *cancellable,
                      GError **error);

/* TRUE until the guest, its agent or a breach of the protocol ended it. */
gboolean channel_is_open(Channel *channel);

/* Starts a command. Returns its number (> 0), or 0 with AGENT (channel closed; the guest refused: command not found
 * comes as an end with status 127, not executable 126, no such user or folder 125), BUSY (too many commands). */
guint32 channel_exec(Channel *channel, const ChannelCommand *command, ChannelStreams *ret_streams,
                     ChannelEndFunc on_end, gpointer data, GError **error);

/* Sends a signal to the command's process group; resizes its terminal; ends it and all processes of its session
 * (SIGHUP, then SIGKILL after 2 s; what its client has not read by its end is dropped). An unknown number is NOT_FOUND.
 * A client that closes its end of stdout or stderr gives the command SIGPIPE, one that closes a terminal ends it;
 * closing all three streams alone ends nothing: who knows that a client is gone calls channel_end(). */
gboolean channel_signal(Channel *channel, guint32 command, int signal_number, GError **error);
gboolean channel_resize(Channel *channel, guint32 command, guint16 rows, guint16 columns, GError **error);
gboolean channel_end(Channel *channel, guint32 command, GError **error);

/* Asks the agent to power the guest off. TRUE once the agent has acknowledged. */
gboolean channel_power_off(Channel *channel, unsigned timeout_ms, GError **error);

/* Ends all commands (CHANNEL_LOST), closes, joins the thread. */
void channel_free(Channel *channel);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Channel, channel_free)
