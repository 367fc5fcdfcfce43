/*
 * cp_archive.h: the two ends of `hvm cp` on this node: a tree to a stream of tar, and a stream of tar to a tree.
 *
 * The stream is a socket to or from the tar of a guest, which is not trusted. What comes out of a guest is made of folders, files
 * and links only, without set-uid, set-gid and sticky bits, owned by the caller, and each thing in a folder that the same stream
 * made before: so that no link is ever followed or replaced, and nothing can come to lie beside the folder it is unpacked in.
 * Threads: any, one at a time; cp_unpack() changes the working directory of the process. Both block.
 */
#pragma once

#include <glib.h>
#include <sys/types.h>
#include <time.h>

/* The one thing at the top of either stream. */
#define CP_TOP "x"
/* The last thing of a stream into a guest: without it, it was cut short. */
#define CP_WHOLE "whole"

typedef struct {
    gboolean stream_ended;  /* the other side closed before we were done: its reason counts more than ours */
    gboolean is_folder;     /* what the top is */
    mode_t mode;            /* its permissions (0777); while it is staged the owner has all */
    struct timespec modified;
    guint64 left_out;       /* devices, sockets, pipes */
    char *first_left_out;   /* NULL: none */
} CpResult;

void cp_result_clear(CpResult *result);

/* Packs the file or folder `path` (no link) with all below it, and CP_WHOLE behind it. *result is filled as far as it came. NOT_FOUND,
 * DENIED, HOST. */
gboolean cp_pack(const char *path, int stream_fd, CpResult *result, GError **error);

/* Unpacks a folder (member ".") or a single file into the folder `folder_fd`, which must be new and the caller's alone. AGENT where
 * the stream is not what tar makes of a tree; STORAGE where something could not be written. */
gboolean cp_unpack(int stream_fd, int folder_fd, CpResult *result, GError **error);
