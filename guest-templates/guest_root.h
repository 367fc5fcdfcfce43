/*
 * guest_root.h: change files inside the root of an image under construction.
 *
 * Every path is resolved inside that root (openat2(2), RESOLVE_IN_ROOT): an absolute link in it, such as /var/run, never
 * leads to the node's own files. `root_fd` is a descriptor of the root folder. Paths are relative or absolute, and mean
 * the same. Errors: STORAGE with the path and errno's text.
 * Threads: any. Private to the image build.
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

/* Writes a new file in place of whatever is there, making missing folders (0755). */
gboolean guest_root_write(int root_fd, const char *path, mode_t mode, const char *text, gsize length, GError **error);

/* A symbolic link in place of whatever is there. */
gboolean guest_root_link(int root_fd, const char *path, const char *target, GError **error);

/* Removes what `path` is, a folder with all in it; TRUE where it is not there. */
gboolean guest_root_remove(int root_fd, const char *path, GError **error);

/* Removes the entries of a folder whose names match a glob (fnmatch(3)); TRUE where there is none. */
gboolean guest_root_remove_matching(int root_fd, const char *folder, const char *pattern, GError **error);

/* Whether there is something (a dangling link counts not). */
gboolean guest_root_exists(int root_fd, const char *path);

/* The last name in a folder, in version order (strverscmp(3)), that matches a glob, or NULL. Caller frees. */
char *guest_root_find_last(int root_fd, const char *folder, const char *pattern);

/* Copies a file of the node into the root, or one of the root to a new file of the node. */
gboolean guest_root_copy_in(int root_fd, const char *path, mode_t mode, const char *host_path, GError **error);
gboolean guest_root_copy_out(int root_fd, const char *path, const char *host_path, GError **error);
