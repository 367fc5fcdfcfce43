/*
 * protocol.h: the frames between hvmd and the agent in a guest. One source for both ends.
 *
 * Plain C without GLib: it is built into the static agent (musl) as well. All integers are little-endian.
 *
 *   frame  = magic(4) | length(4) | type(2) | flags(2) | stream(4) | session(8) | crc32(4) | payload(length)
 *
 * crc32 (IEEE 802.3) is over the header with the crc field zero, then the payload. length is at most
 * PROTOCOL_PAYLOAD_MAX. A reader which is out of step (bad magic, length or crc) discards bytes until a good HELLO;
 * hvmd, which does not trust a guest, closes the channel instead once a session is established.
 *
 * Session: hvmd connects and sends PROTOCOL_PAYLOAD_MAX zero bytes (they complete a frame that an earlier client left
 * half-sent, whose crc then fails) and HELLO with a random session id. The agent ends whatever the old session ran,
 * drops what it had queued, and answers HELLO_ACK with its version and the same session id. hvmd discards all bytes
 * until that answer. Every later frame carries the session id; frames of another session are ignored.
 *
 * Flow control per stream and direction: a sender may have at most PROTOCOL_WINDOW bytes of DATA outstanding, and
 * the receiver gives back with CREDIT what it has written on. A frame for an unknown stream is a protocol error, except
 * for a short while after the stream's end (either side may not have seen it yet): then it is ignored.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PROTOCOL_VERSION 1
#define PROTOCOL_MAGIC 0x31766d68u /* "hmv1" */
#define PROTOCOL_HEADER 32
#define PROTOCOL_PAYLOAD_MAX 32768u
#define PROTOCOL_WINDOW 262144u
#define PROTOCOL_STREAMS_MAX 256u /* commands at a time in one guest */
#define PROTOCOL_PORT "io.hvm1.agent" /* name of the virtio-serial port */
