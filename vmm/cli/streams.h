/*
 * streams.h: the pumps of `hvm exec` between its standard descriptors and a command's sockets.
 *
 * Input: pairs of descriptors. Output: bytes, unaltered, and one call when a pump has ended. Each pump is a thread with
 * blocking reads and writes, because the standard descriptors are shared with other processes and must not be
 * made non-blocking; what reads slowly is waited for, and nothing is kept but one buffer.
 * Threads: `func` comes in the default main context.
 */
#pragma once

#include <gio/gio.h>

/* How a pump ended: error is 0 at the end of the stream, else an errno; `reading` says on which side. */
typedef void (*StreamEndFunc)(int error_number, gboolean reading, gpointer data);

/* From a socket to a standard descriptor, until the socket's end. */
void stream_pump_output(int socket_fd, int fd, StreamEndFunc func, gpointer data);

/* From a standard descriptor to a socket, whose other side then sees the end, but not after an error; ends without error
 * where the other side has closed. Of a terminal it reads only while in the foreground, and is never stopped (SIGTTIN):
 * the command may need no input. */
void stream_pump_input(int fd, int socket_fd, StreamEndFunc func, gpointer data);
