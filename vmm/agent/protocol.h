/*
 * protocol.h: the frames between hvmd and the agent in a guest. One source for both ends.
 *
 * Plain C without GLib: it is built into the static agent (musl) as well. All integers are little-endian.
 *
 *   frame  = magic(4) | length(4) | type(2) | flags(2) | stream(4) | session(8) | crc32(4) | payload(length)
 *
 * crc32 (IEEE 802.3) is over the header with the crc field zero, then the payload. length is at most
 * PROTOCOL_PAYLOAD_MAX.
 *
 * Session and resynchronisation. hvmd connects and sends PROTOCOL_PADDING zero bytes, then HELLO with a random session
 * id; it repeats both until it is answered. The agent ends whatever the old session ran, drops what it had queued, and
 * answers HELLO_ACK with the same session id (again for a HELLO of the session it is in, which changes nothing
 * else). Every later frame carries the session id; the agent ignores frames of another session.
 *
 * - A reader which is in step and meets a bad magic or length, or a frame whose crc is wrong (it drops that whole), is
 * out
 *   of step. The agent then says so (ERROR) and discards bytes until a good HELLO; hvmd, which does not trust a guest,
 *   closes the channel.
 * - The agent takes a HELLO only straight behind a run of PROTOCOL_ZEROS zero bytes: no sequence of frames contains one
 * (a
 *   payload is shorter, and a header begins with bytes that are not zero), so bytes which a client sends to a command's
 *   standard input can never be taken for a HELLO, wherever in the stream the agent begins to read. The padding is
 *   twice that, since its first part may complete a frame that an earlier client left half-sent.
 * - An agent that starts says so (ERROR, in session 0) to whoever is connected: the port does not tell hvmd that the agent
 *   before it died, and with it the commands.
 * - hvmd begins out of step and discards until HELLO_ACK with its own session id, which no old frame carries. Both
 *   HELLO frames have the same fixed size in all versions, so that a scan waits for no more than that.
 *
 * Commands. `stream` is a command's number: in a session each EXEC has a higher number than the ones before. EXIT is
 * the agent's last frame for a command, so to hvmd a frame for any number that has not started or has ended is a
 * breach. To the agent a number above the highest is an error; frames for an ended command are ignored, since hvmd may
 * not have seen its EXIT yet.
 *
 * When a command's main process has ended, the agent sends what its pipes hold then, EOF for each and EXIT, even where
 * a background child has them open still (as `docker exec` does). What a command so leaves behind is its own affair
 * from then on and outlives the session; a command that still runs is ended whole, its session's processes with it, by
 * END, by a hang-up (SIGHUP, after 2 s SIGKILL) and by the next session's HELLO (SIGKILL).
 *
 * Flow control per descriptor (0, 1, 2: in `flags` of DATA, EOF, CLOSE, CREDIT): a sender may have at most
 * PROTOCOL_WINDOW bytes of DATA outstanding, and the receiver gives back with CREDIT what it has written on. All other
 * frames are answered from state, never from a queue that the peer could grow, so both ends always read.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTOCOL_VERSION 1u
#define PROTOCOL_MAGIC 0x31766d68u /* "hmv1" */
#define PROTOCOL_HEADER 28u
#define PROTOCOL_PAYLOAD_MAX 32768u
#define PROTOCOL_FRAME_MAX (PROTOCOL_HEADER + PROTOCOL_PAYLOAD_MAX)
#define PROTOCOL_ZEROS PROTOCOL_FRAME_MAX         /* the agent wants them before HELLO */
#define PROTOCOL_PADDING (2 * PROTOCOL_FRAME_MAX) /* hvmd sends them */
#define PROTOCOL_WINDOW 262144u
#define PROTOCOL_CREDIT_STEP (PROTOCOL_WINDOW / 4) /* CREDIT is sent once this much was written on */
#define PROTOCOL_STREAMS_MAX 256u                  /* commands at a time in one guest */
#define PROTOCOL_EXEC_MAX 1048576u                 /* bytes of one EXEC, over all of its frames */
#define PROTOCOL_GROUPS_MAX 65536u                 /* the kernel's NGROUPS_MAX */
#define PROTOCOL_TEXT_MAX 256u                     /* bytes of text in ERROR and EXIT */
#define PROTOCOL_PORT "io.hvm1.agent"              /* name of the virtio-serial port */

/* Frame types, who sends them, and their payload. */
typedef enum {
    PROTOCOL_HELLO = 1,     /* hvmd: version(4) zero(4); stream 0 */
    PROTOCOL_HELLO_ACK,     /* agent: version(4) zero(4); stream 0 */
    PROTOCOL_EXEC,          /* hvmd: see ProtocolExec; with PROTOCOL_MORE in flags the next frame goes on with it */
    PROTOCOL_DATA,          /* both: bytes, at least one */
    PROTOCOL_EOF,           /* both: no more DATA for this descriptor; empty */
    PROTOCOL_CLOSE,         /* both: the reader of this descriptor is gone; empty. DATA may still be on its way */
    PROTOCOL_CREDIT,        /* both: bytes(4), at least 1 */
    PROTOCOL_SIGNAL,        /* hvmd: number(4), 1 to 64, for the command's process group */
    PROTOCOL_RESIZE,        /* hvmd: rows(2) columns(2) */
    PROTOCOL_END,           /* hvmd: the client is gone: SIGHUP to the command's session, after 2 s SIGKILL; empty */
    PROTOCOL_EXIT,          /* agent: kind(4) value(4), and for PROTOCOL_EXIT_FAILED text */
    PROTOCOL_POWER_OFF,     /* hvmd: stream 0, empty */
    PROTOCOL_POWER_OFF_ACK, /* agent: stream 0, empty */
    PROTOCOL_ERROR,         /* agent: stream 0, text: it is out of step and waits for HELLO; of session 0 where it has just started */
} ProtocolType;

#define PROTOCOL_HELLO_LENGTH 8u
#define PROTOCOL_MORE 1u /* in flags of EXEC */

/* Kind of EXIT; FAILED: it could not be started. */
enum { PROTOCOL_EXIT_STATUS, PROTOCOL_EXIT_SIGNAL, PROTOCOL_EXIT_FAILED };

typedef struct {
    uint16_t type;
    uint16_t flags;
    uint32_t stream;
    uint64_t session;
    uint32_t length;
    const uint8_t *payload; /* points into the parser's buffer: valid until it is asked for the next frame */
} ProtocolFrame;

/* --- integers and crc --- */

uint16_t protocol_get16(const uint8_t *from);
uint32_t protocol_get32(const uint8_t *from);
uint64_t protocol_get64(const uint8_t *from);
void protocol_put16(uint8_t *to, uint16_t value);
void protocol_put32(uint8_t *to, uint32_t value);
void protocol_put64(uint8_t *to, uint64_t value);

/* CRC-32 of IEEE 802.3. Start with 0; feed the result back in to go on. */
uint32_t protocol_crc32(uint32_t crc, const void *data, size_t length);

/* Writes the 28 bytes of a header at `to`, the frame's payload (length bytes) being at to + PROTOCOL_HEADER already. */
void protocol_seal(uint8_t *to, uint16_t type, uint16_t flags, uint32_t stream, uint64_t session, uint32_t length);

/* --- reading --- */

typedef struct {
    uint8_t buffer[2 * PROTOCOL_FRAME_MAX];
    size_t start; /* what is not yet parsed: buffer[start..end) */
    size_t end;
    uint16_t hello;  /* the type that brings this end into step: HELLO for the agent, HELLO_ACK for hvmd */
    uint32_t wanted; /* zero bytes that must stand before it */
    uint32_t zeros;  /* zero bytes just met, at most `wanted` */
    bool in_step;
} ProtocolParser;

typedef enum {
    PROTOCOL_NEED_MORE, /* nothing whole in the buffer */
    PROTOCOL_FRAME,     /* *ret_frame is set */
    PROTOCOL_RESTART,   /* in step before: padding instead of a frame, the other end begins anew */
    PROTOCOL_LOST_STEP, /* in step before, and bad magic, length or crc */
} ProtocolResult;

/* Empties the parser and puts it out of step. `zeros` must stand before `hello`: PROTOCOL_ZEROS for the agent,
 * 0 for hvmd. */
void protocol_parser_init(ProtocolParser *parser, uint16_t hello, uint32_t zeros);

/* Where the next bytes go, and how many may; then how many came. There is always room after NEED_MORE. */
uint8_t *protocol_parser_space(ProtocolParser *parser, size_t *ret_room);
void protocol_parser_filled(ProtocolParser *parser, size_t length);

/* The next frame. Out of step, only a `hello` frame is given, and the parser is in step with it. Call until
 * NEED_MORE. */
ProtocolResult protocol_parser_next(ProtocolParser *parser, ProtocolFrame *ret_frame);

/* --- writing --- */

/* Bytes on their way to the other end; a fixed size, so that the peer cannot make it grow. */
typedef struct {
    uint8_t buffer[4 * PROTOCOL_FRAME_MAX];
    size_t start;
    size_t end;
} ProtocolQueue;

/* Where the payload of the next frame may be written, or NULL while there is no room for `length` bytes of it; then
 * protocol_queue_commit() puts the header before it. */
uint8_t *protocol_queue_payload(ProtocolQueue *queue, uint32_t length);
void protocol_queue_commit(ProtocolQueue *queue, uint16_t type, uint16_t flags, uint32_t stream, uint64_t session,
                           uint32_t length);

/* A whole frame; false (and nothing done) while there is no room. */
bool protocol_queue_put(ProtocolQueue *queue, uint16_t type, uint16_t flags, uint32_t stream, uint64_t session,
                        const void *payload, uint32_t length);

/* The padding and HELLO; only into an empty queue. */
void protocol_queue_hello(ProtocolQueue *queue, uint64_t session);

/* --- EXEC --- */

#define PROTOCOL_EXEC_PTY 1u                /* stdin and stdout on one terminal, no stderr */
#define PROTOCOL_EXEC_DIRECTORY_REQUIRED 2u /* else fall back to the home, then / */

/* flags(4) uid(4) gid(4) rows(2) columns(2) n_groups(4) n_argv(4) n_environment(4), then n_groups numbers(4), then
 * texts, each ended by NUL: user, user_name, group_name, home, directory (empty where not given), arguments, environment. */
typedef struct {
    uint32_t flags;
    uint32_t uid;
    uint32_t gid;
    uint16_t rows;
    uint16_t columns;
    uint32_t n_groups;
    uint32_t n_argv;
    uint32_t n_environment;
    const uint8_t *groups; /* little-endian, not aligned */
    const char *user;      /* the texts: never NULL, "" where not given */
    const char *user_name;
    const char *group_name;
    const char *home;
    const char *directory;
    const char *argv;        /* n_argv texts one behind the other */
    const char *environment; /* n_environment */
} ProtocolExec;

#define PROTOCOL_EXEC_HEAD 28u

/* Takes a whole EXEC payload apart; the result points into it. False where it is not well formed. */
bool protocol_exec_parse(const uint8_t *payload, size_t length, ProtocolExec *ret_exec);
