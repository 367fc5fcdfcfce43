/*
 * channel_private.h: what the files of the channel share.
 *
 * channel.c, channel_exec.c (the functions of channel.h) -> channel_thread.c (poll loop) -> channel_frame.c (frames
 * from the guest)
 *                                                                       -> channel_stream.c (sockets to the clients)
 * The channel's thread holds `mutex` all the time but while it polls and in callbacks. Other threads hold it to add a
 * process, queue a frame or read a flag, and then wake the thread. Only the thread removes processes and closes
 * descriptors.
 */
#pragma once

#include "channel.h"
#include "protocol.h"

#define CONTROL_BYTES_MAX (4 * PROTOCOL_EXEC_MAX) /* a guest that does not read must not make hvmd grow */

typedef struct {
    guint32 id;
    gboolean pty;
    int fds[3];               /* our ends, non-blocking; -1 once closed. For a pty [0] and [1] are one socket, twice */
    guint32 credit[3];        /* [0]: what we may send; [1], [2]: what the guest may still send */
    guint32 written[3];       /* [1], [2]: passed on to the client and not given back yet */
    guint8 *output[3];        /* what the client did not take yet, up to a window; NULL while empty */
    guint32 output_start[3];
    guint32 output_length[3];
    gboolean output_ended[3]; /* EOF came */
    gboolean close_due[3];    /* CLOSE is to be sent */
    gboolean input_ended;     /* nothing more is read from the client */
    gboolean eof_due;
    gboolean resize_due;
    guint16 rows, columns;
    gboolean end_due;
    gboolean end_asked;
    gboolean ended; /* EXIT came, or the channel is lost: on_end once the output is out */
    ChannelEnd end;
    int value;
    char *reason;
    ChannelEndFunc on_end;
    gpointer data;
} ChannelProcess;

struct Channel {
    char *guest;
    GThread *thread;
    GMutex mutex;
    GCond changed; /* established, power_off_acked or is_open changed */
    int socket;
    int wake; /* eventfd */
    gboolean is_open;
    gboolean stop;  /* channel_free() asks the thread to end */
    char *reason;   /* why it is not open any more */
    guint64 session;
    gboolean established;
    unsigned n_hellos; /* HELLO frames not answered yet */
    gint64 next_hello_us;
    gboolean power_off_asked;
    gboolean power_off_acked;
    guint32 last_id;
    GPtrArray *processes; /* of ChannelProcess */
    GQueue control;       /* of GBytes: sealed frames that go before all else */
    gsize control_bytes;
    unsigned turn; /* the process that is read first, for fairness */
    ProtocolParser parser;
    ProtocolQueue queue;
};

/* --- channel.c --- */
/* Without a thread yet. Takes the socket, and closes it on failure: HOST. */
Channel *channel_new(const char *guest_name, int socket, GError **error);
void channel_destroy(Channel *channel); /* without a thread */
void channel_process_free(ChannelProcess *process);
void channel_wake(Channel *channel);
/* AGENT with the reason why it is closed; returns FALSE. The lock is held. */
gboolean channel_closed_error(const Channel *channel, GError **error);
/* Queues one frame; BUSY where the guest does not take them. The lock is held. */
gboolean channel_control(Channel *channel, guint16 type, guint16 flags, guint32 id, const guint8 *payload,
                         guint32 length, GError **error);

/* --- channel_thread.c --- */

/* One round of the loop: waits up to timeout_ms (-1: until something comes; 0: does not). The lock is held. */
void channel_serve(Channel *channel, GArray *polls, int timeout_ms);
/* Ends what still runs. The lock is held. */
void channel_finish(Channel *channel);
gpointer channel_thread(gpointer channel);

/* --- channel_frame.c --- */

/* Ends the channel; the first reason stays. */
void channel_fail(Channel *channel, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Handles every whole frame in the parser. */
void channel_parse(Channel *channel);
/* Puts what is due into the queue, as far as there is room. FALSE: there is more. */
gboolean channel_emit(Channel *channel);

/* --- channel_stream.c --- */

/* Passes DATA of the guest on, or keeps it; the caller has checked the credit. */
void channel_stream_output(ChannelProcess *process, int fd, const guint8 *data, guint32 length);
/* Writes on what was kept; closes where EOF came and all is out. */
void channel_stream_flush(ChannelProcess *process, int fd);
gboolean channel_stream_wants_read(const ChannelProcess *process);
/* Reads once from the client into a frame; FALSE where the queue has no room. */
gboolean channel_stream_read(Channel *channel, ChannelProcess *process);
/* The client closed its end of 1 or 2. */
void channel_stream_reader_gone(ChannelProcess *process, int fd);
void channel_stream_close(ChannelProcess *process, int fd);
