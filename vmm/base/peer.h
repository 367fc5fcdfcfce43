/*
 * peer.h: connecting to a socket that lies in a folder which somebody else may write to.
 *
 * The sockets of a guest lie in a folder of QEMU's user. Whoever has broken out of a guest could put a symbolic or a hard link to a
 * socket of root's there, and would talk to it through hvmd, which connects as root. So the name is resolved once, without
 * following links, what is found is looked at, and that very socket is connected to, through /proc/self/fd (open(2), O_PATH).
 * Threads: any.
 */
#pragma once

#include <glib.h>

/* Connects to the UNIX stream socket at `path`, of any length. A descriptor (CLOEXEC, non-blocking) that the caller closes, or -1
 * with errno: those of open(2), socket(2) and connect(2); ENOTSOCK for what is no socket, or a symbolic link; EMLINK for a
 * socket with a second name. Its folder is trusted to be the one that is meant. */
int peer_connect(const char *path);
