/*
 * guests.h: the life of the guests of this node.
 *
 * Input: requests of callers who have been authenticated. Output: guests that are created, started, stopped, destroyed;
 * what is known of them. One Guests holds the table of guests (a cache of what libvirt keeps), the ledger of
 * promises, the image store and the networks. It is the same after hvmd was killed and started again:
 * all state lies with libvirt and in the store, and guests_recover() reads it back.
 *
 * Each pipeline is a file: create.c, start.c, run.c, stop.c, destroy.c, recover.c, exec.c, console.c; watch.c hears from libvirt.
 *
 * Threads: everything may be called from any thread but the main loop's, because it blocks on libvirt; exceptions are
 * named. Locks: one mutex over table and ledger, never held over a libvirt call or a wait; and for each guest an
 * "operation", so that two callers cannot change one guest at once: the second waits up to 30 s, then gets BUSY.
 * Errors: one sentence that begins with "guest 'NAME': ". To a caller who is neither root nor the owner, a guest
 * does not exist (NOT_FOUND).
 */
#pragma once

#include "channel.h"
#include "doctor.h"
#include "image_store.h"
#include "runtime.h"
#include "settings.h"

#include <gio/gio.h>
#include <sys/types.h>

typedef struct Guests Guests;

/* Who asks. */
typedef struct {
    uid_t uid;
    gid_t gid;
    guint32 *groups;      /* supplementary, n_groups of them */
    unsigned n_groups;
    char *user_name;      /* NULL where the node does not know the uid */
    char *group_name;
    char *home;
    Allowed allowed;      /* the cpuset of the calling process; NULL bitmaps: no bound */
    char *allowed_error;  /* why `allowed` could not be told, or NULL: whatever needs a placement is then DENIED */
} Caller;

/* Something happened to a guest: "created", "destroyed", or the name of its new state ("starting", "running", "off", ...). In any
 * thread, with no lock held; must not block nor call back. */
typedef void (*GuestsEventFunc)(const char *event, const char *name, const char *uuid, uid_t owner_uid, gpointer data);

typedef struct {
    char *libvirt_uri;
    char *store_path;
    char *runtime_folder;       /* "/run/hvm": sockets */
    char *nat_pool;
    uid_t qemu_uid;
    gid_t qemu_gid;
    hwloc_bitmap_t housekeeping; /* PUs kept for the node, or empty */
    GPtrArray *devices;         /* of SpecDevice: what users other than root may ask for, or NULL; see devices_parse_allowed() */
    unsigned limit_guests;      /* per user other than root; 0: no limit */
    unsigned limit_cpus;        /* of running guests */
    guint64 limit_memory_bytes; /* of running guests */
    guint64 limit_pages_bytes;  /* of running guests, in huge pages */
} GuestsConfig;

/* Reads the list of hvmd.conf's [devices] allow: kinds, PCI addresses and names of interfaces, separated by white space or commas. INVALID.
 * Caller unrefs. */
GPtrArray *devices_parse_allowed(const char *text, GError **error);

/* Opens the store, reads the topology, probes KVM, begins to connect to libvirt. `config` must outlive it. In the main thread,
 * before its loop runs. Recovery follows by itself, in a worker, each time libvirt answers. */
Guests *guests_new(const GuestsConfig *config, GError **error);

/* Sets who is told of events; once, before the main loop runs. */
void guests_set_listener(Guests *guests, GuestsEventFunc on_event, gpointer data);

/* Whether any guest is not off (or crashed), or something works on one. Any thread, does not block. */
gboolean guests_busy(Guests *guests);

/* hvmd is about to end: whoever waits for a guest (to boot, to power off, for room) stops waiting, with BUSY, and nothing new begins but
 * guests_destroy(). Guests stay as they are. Any thread, does not block. */
void guests_leave_all(Guests *guests);

/* Stops threads and closes; guests run on. In the main thread. */
void guests_free(Guests *guests);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Guests, guests_free)

/* Until libvirt has told once which guests there are, nobody can say that one is not there: calls which name a guest, and guests_list(),
 * fail with LIBVIRT. `on_known` is called once when it has, in the main loop; set before that runs. */
void guests_when_known(Guests *guests, GSourceOnceFunc on_known, gpointer data);

/* Whether libvirt is connected and recovery is done. Any thread, does not block. */
gboolean guests_ready(Guests *guests);
/* Waits up to `timeout_ms` for that. LIBVIRT where it does not come. */
gboolean guests_wait_ready(Guests *guests, unsigned timeout_ms, GError **error);

/* Whether a guest of that name is the caller's to see. NOT_FOUND. Any thread, does not block. */
gboolean guests_check_visible(Guests *guests, const char *name, uid_t uid, GError **error);

/* Progress of a long call: one line. In the calling thread. */
typedef void (*GuestsProgressFunc)(const char *text, gpointer data);

gboolean guests_create(Guests *guests, const Caller *caller, const char *name, const char *template_name,
                       const Settings *request, GuestsProgressFunc progress, gpointer data, GError **error);

/* Creates and starts an ephemeral guest, named run-XXXXXXXX, and waits for its agent. It dies with hvmd (libvirt's AUTODESTROY);
 * the caller destroys it with guests_destroy_ephemeral(). Cancelling ends the wait for its agent. ret_name, ret_uuid: caller frees. On failure
 * nothing is left. */
gboolean guests_run_ephemeral(Guests *guests, const Caller *caller, const char *template_name, const Settings *request,
                              GCancellable *cancellable, char **ret_name, char **ret_uuid, GuestsProgressFunc progress,
                              gpointer data, GError **error);

/* Solves, reserves, starts. On failure the guest is off. */
gboolean guests_start(Guests *guests, const Caller *caller, const char *name, GuestsProgressFunc progress, gpointer data,
                      GError **error);

/* Waits until the agent of a guest that has been started answers. TIMEOUT or AGENT otherwise, quoting the console's last line: the guest
 * then runs on for a look at it; STORAGE where its disk found no room, which pauses it. */
gboolean guests_wait_booted(Guests *guests, const Caller *caller, const char *name, GuestsProgressFunc progress, gpointer data,
                            GError **error);

/* Lets a paused one go on, asks the agent, then ACPI, then ends it when `timeout_s` ran out (0: at once) or somebody else would
 * destroy it or stop it at once. *ret_how: "agent", "acpi", "hard", "off". */
gboolean guests_stop(Guests *guests, const Caller *caller, const char *name, unsigned timeout_s, const char **ret_how,
                     GuestsProgressFunc progress, gpointer data, GError **error);

/* Whoever an ephemeral guest belonged to is gone, and guests_destroy_ephemeral() follows: it is not listed any more, and a start that
 * finds no room waits for what it still holds. Does not block. */
void guests_leave(Guests *guests, const char *uuid);

/* Ends it, forgets it, removes its disk. */
gboolean guests_destroy(Guests *guests, const Caller *caller, const char *name, GError **error);
/* The same for the ephemeral guest of that UUID, and no other of its name. TRUE too where somebody else has destroyed it. */
gboolean guests_destroy_ephemeral(Guests *guests, const char *uuid, GError **error);

/* Reads back from the kernel what it does for a running guest: of Finding (verify.h); caller unrefs. BUSY where it is not running. */
GPtrArray *guests_verify(Guests *guests, const Caller *caller, const char *name, GError **error);

/* a{sv} each, as io.hvm1.xml says for List and Show. guests_list() does not block: any thread. Floating. */
GVariant *guests_list(Guests *guests, const Caller *caller, GError **error);
/* List's keys of one guest, and of Show's how it runs: accel, notes. */
GVariant *guests_show_run(Guests *guests, const Caller *caller, const char *name, GError **error);
GVariant *guests_show(Guests *guests, const Caller *caller, const char *name, GError **error);

/* The end of the console's log: at most `lines` lines (0: all) of at most 1 MiB. Caller frees. */
GBytes *guests_logs(Guests *guests, const Caller *caller, const char *name, unsigned lines, GError **error);

/* A command running in a guest. */
typedef struct GuestExec GuestExec;

/* Starts a command; see channel.h. `on_end` comes in a thread of the channel's. */
GuestExec *guests_exec(Guests *guests, const Caller *caller, const char *name, const ChannelCommand *command,
                       ChannelStreams *ret_streams, ChannelEndFunc on_end, gpointer data, GError **error);
gboolean guest_exec_signal(GuestExec *exec, int signal_number, GError **error);
gboolean guest_exec_resize(GuestExec *exec, guint16 rows, guint16 columns, GError **error);
/* Ends the command if it still runs, and forgets it. Not in a callback of the channel's. */
void guest_exec_free(GuestExec *exec);

/* Joins the guest's serial console: a stream socket on which its output comes; what is written to it goes to the guest where
 * `writes`. One writer at a time (BUSY), several watchers; a watcher that does not read loses output. Caller closes; -1 on error. */
int guests_console(Guests *guests, const Caller *caller, const char *name, gboolean writes, GError **error);

/* What the node has and what is promised: the reply of the method Host. Floating. */
GVariant *guests_host(Guests *guests, const Caller *caller, GError **error);

/* doctor_check_host() and what hvmd knows beside it: libvirt, QEMU, sVirt, the image store. Caller unrefs. */
GPtrArray *guests_doctor(Guests *guests);

/* Name of a guest that stands on an image (revision NULL: any of the template), or NULL; for image_store_remove(). */
char *guests_using_image(const char *template_name, const char *revision, gpointer guests);
/* How many of the caller's guests (all for root) stand on images of a template. */
unsigned guests_count_on_template(Guests *guests, const Caller *caller, const char *template_name);

ImageStore *guests_store(Guests *guests);
