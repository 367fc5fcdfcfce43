/*
 * caller.h: who is at the other end of a connection.
 *
 * Input: a connected UNIX socket. Output: a Caller: uid, gid and groups as the kernel recorded them at connect(2)
 * (SO_PEERCRED, SO_PEERGROUPS), names from the node's user database, and the cpuset of the calling process, which
 * is read while a pidfd shows that it still is the same process.
 * Threads: caller_new() and caller_in_group() block on the user database, which may be on another machine: from a worker.
 */
#pragma once

#include "guests.h"

/* Caller frees with caller_free(). HOST where the socket has no credentials. */
Caller *caller_new(int socket_fd, GError **error);
void caller_free(Caller *caller);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Caller, caller_free)

/* Whether the caller is a member of the group of that name (looked up now). */
gboolean caller_in_group(const Caller *caller, const char *group);
