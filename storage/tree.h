/*
 * tree.h: remove a folder and all below it, safely.
 *
 * Works from a directory descriptor, so that nobody can swap a path under it; follows no symbolic link and enters
 * no other file system or mount (openat2(2), RESOLVE_NO_XDEV). At most TREE_DEPTH_MAX folders deep.
 * Threads: any. Private to storage and to the image build.
 */
#pragma once

#include <glib.h>

#define TREE_DEPTH_MAX 128

/* Removes `name` (one path component, a folder, a file or a link) in the folder `dirfd`, with all below it. TRUE
 * where it is not there. STORAGE naming `shown`, the folder's path for people, and what could not be removed. */
gboolean tree_remove(int dirfd, const char *name, const char *shown, GError **error);

/* Takes away all mounts at or below the absolute folder `path`, last mounted first (umount2, lazily, following no
 * link). STORAGE where one stays. */
gboolean tree_unmount_below(const char *path, GError **error);

/* Bytes that the files at and below the folder `path` occupy, hard links counted once per name; -1 where it cannot be read. */
gint64 tree_disk_bytes(const char *path);
