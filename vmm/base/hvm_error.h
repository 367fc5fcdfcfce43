/*
 * hvm_error.h: the one error domain of hvm and the one table behind it.
 *
 * The table gives, for each code, the enum value (HVM_ERROR_<CODE>), the D-Bus
 * name (io.hvm1.Error.<Name>), the exit status of the hvm command, and the
 * sentence that the man page prints. A code is never reused or renumbered: exit
 * statuses are an interface.
 *
 * A message is one sentence: what, where, wanted, found. Going up it is
 * prefixed (g_prefix_error), never replaced.
 *
 * Threads: everything here may be called from any thread.
 */
#pragma once

#include <glib.h>

/* X(CODE, DBusName, exit status, meaning) */
#define HVM_ERROR_TABLE(X)                                                                        \
    X(INVALID, Invalid, 2, "the request, a template, a configuration or a name is not valid")     \
    X(NOT_FOUND, NotFound, 3, "there is no such guest, template, image, device or host file")     \
    X(EXISTS, Exists, 4, "the name is taken, or the thing is there already")                      \
    X(DENIED, Denied, 5, "the caller may not do this, or is over a limit of its own")             \
    X(BUSY, Busy, 6, "the thing is in use, or in a state in which this cannot be done")           \
    X(NO_PLACEMENT, NoPlacement, 7, "the node has not, or has not free, what was asked for")      \
    X(HOST, Host, 8, "the node lacks something, or hvmd cannot be reached")                       \
    X(LIBVIRT, Libvirt, 9, "libvirt or QEMU refused or failed")                                   \
    X(NETWORK, Network, 10, "a network could not be made or attached")                            \
    X(STORAGE, Storage, 11, "an image or a disk is missing, damaged, or could not be written")    \
    X(AGENT, Agent, 12, "the guest's agent is silent, gone, or broke the protocol")               \
    X(TIMEOUT, Timeout, 13, "a time limit ran out")                                               \
    X(INTERNAL, Internal, 14, "a defect in hvm")

typedef enum {
#define X(code, name, status, meaning) HVM_ERROR_##code,
    HVM_ERROR_TABLE(X)
#undef X
} HvmError;

/* Exit status of `hvm exec` and `hvm run` for a failure of hvm's own, as of docker, chroot(1), env(1). */
#define HVM_EXIT_EXEC_FAILED 125

/* The error domain. Registered with GDBus by hvm_error_quark() itself, so that a remote
 * io.hvm1.Error.* comes back as the same GError in any process that called it once. */
#define HVM_ERROR (hvm_error_quark())
GQuark hvm_error_quark(void);

/* The exit status for `error`: the table's for our domain; the nearest code's for GIO and GLib
 * file and key-file errors; INTERNAL's otherwise. Never 0 and never 125 or more. */
int hvm_error_exit_status(const GError *error);

/* Number of codes, and the row of code `i` (0 <= i < count); strings are static. */
unsigned hvm_error_count(void);
const char *hvm_error_meaning(unsigned i);
int hvm_error_status(unsigned i);

/* Copy of `text` (length bytes, or -1 for NUL-terminated) that is safe to print: bytes that are
 * not printable UTF-8 become \xNN. For every string that came from a guest. Caller frees. */
char *hvm_escape(const char *text, gssize length);
