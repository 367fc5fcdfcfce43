/*
 * process.h: run a program to its end.
 *
 * Input: an argument vector (never a shell line), a time limit, a cancellable. Output: its standard
 * output, or an error that quotes the last line of its standard error. The program runs in a process
 * group of its own with standard input from /dev/null; on time-out or cancellation the whole group is
 * killed, and it dies with its parent (PR_SET_PDEATHSIG).
 * Threads: blocks; call from a worker, never from the main loop. Any thread.
 */
#pragma once

#include <gio/gio.h>

/* Called with each complete line of the program's standard error, without its newline. In the calling thread. */
typedef void (*ProcessLineFunc)(const char *line, gpointer data);

typedef struct {
    const char *const *environment; /* extra NAME=VALUE strings, NULL-terminated, or NULL */
    const char *directory;          /* working directory, or NULL for the caller's */
    unsigned timeout_ms;            /* 0: no limit */
    GCancellable *cancellable;      /* or NULL */
    ProcessLineFunc on_line;        /* progress from standard error, or NULL */
    gpointer data;                  /* for on_line */
} ProcessOptions;

/* Runs argv[0] (found in PATH). TRUE where it exits 0; ret_output (may be NULL) then gets its standard
 * output, at most 16 MiB, NUL-terminated; caller frees. Errors: HOST when it cannot be started,
 * TIMEOUT, G_IO_ERROR_CANCELLED, or `code` (a HVM_ERROR_*) when it fails: "mke2fs failed with status 1:
 * <last line of its standard error>". `options` may be NULL. */
gboolean process_run(const char *const *argv, const ProcessOptions *options, int code, char **ret_output, GError **error);
