/*
 * sysroot.h: the only way hvm reads and writes /sys and /proc.
 *
 * All access goes through one root folder, "/" on a live node and a recorded or mocked tree in tests.
 * The process has one root, set once at start before any thread runs (environment variable
 * HVM_SYSROOT, honoured only when not set-uid and for tests; otherwise "/").
 * Threads: any, after sysroot_set().
 */
#pragma once

#include <glib.h>

/* Sets the root; `root` is copied. Tests only. NULL means "/". */
void sysroot_set(const char *root);

/* The path of `path` (absolute, "/sys/...") below the root. Caller frees. */
char *sysroot_path(const char *path);

/* The folder that hwloc should take as its fsroot, or NULL for the live system. Static. */
const char *sysroot_get(void);

/* Reads a whole small file (at most 1 MiB), trailing white space removed. The path is printf-style.
 * HOST with the path and errno's text on failure. Caller frees. */
char *sysroot_read(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Reads an unsigned number in any base that strtoull(3) with base 0 knows. FALSE and `error` as above. */
gboolean sysroot_read_uint(guint64 *ret_value, GError **error, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* Names in a folder, sorted bytewise, without "." and ".."; empty (not NULL) where the folder is
 * missing. NULL-terminated; caller frees with g_strfreev. */
char **sysroot_list(const char *format, ...) G_GNUC_PRINTF(1, 2);

/* Last component of the target of a symbolic link ("driver" -> "vfio-pci"), or NULL. Caller frees. */
char *sysroot_link_name(const char *format, ...) G_GNUC_PRINTF(1, 2);

gboolean sysroot_exists(const char *format, ...) G_GNUC_PRINTF(1, 2);
