/*
 * guests_private.h: what the files of vmm/guest share. See guests.h for the locks.
 */
#pragma once

#include "guests.h"

#include "accel.h"
#include "nat.h"
#include "undo.h"
#include "virt.h"

typedef struct {
    gatomicrefcount references;
    RuntimeGuest *real;      /* changed only by who holds the operation, under the lock */
    GuestState state;        /* under the lock */
    GuestState told;         /* the state that the listener was told last; under the lock */
    const char *operation;   /* "create", "start", ...: static text; NULL: none. Under the lock */
    gboolean hurried;        /* who waits for the operation wants it off at once: a stop does not wait for it any longer. Under the lock */
    gboolean creating;       /* not to be seen yet */
    gboolean gone;           /* destroyed: not in the table any more */
    gboolean in_memory;      /* its disk is (run.c). Under the lock */
    gboolean leaving;        /* ephemeral, and about to be destroyed. Under the lock */
    gboolean undefined;      /* a destroy has come so far: it stays in the table, for another destroy, if the rest fails. Under the lock */
    gboolean reconcile_queued;
    guint64 touched;         /* Guests.serial when an operation on it last ended. Under the lock */
    GCancellable *life;      /* cancelled when the guest stops, or its disk pauses it; then a new one. Under the lock */
    GMutex channel_lock;
    struct ChannelBox *channel; /* under channel_lock */
    GMutex console_lock;
    struct Console *console;    /* while somebody watches; under console_lock */
} Guest;

struct Guests {
    const GuestsConfig *config;
    ImageStore *store;
    Virt *virt;
    Runtime *runtime;
    Nat *nat;
    AccelProbe accel;
    gboolean direct_io;
    gboolean amd;         /* whose CPUs the node has */
    PlacementPolicy policy;
    GMutex lock;          /* table, ledger, states, host, ready */
    GCond changed;        /* operation or state of a guest, or ready */
    GHashTable *table;    /* name -> Guest */
    Ledger *ledger;
    Host *host;           /* newest snapshot */
    gint64 host_us;       /* when it was taken; monotonic */
    gboolean ready;
    gboolean known;       /* the table was read back once */
    GSourceOnceFunc on_known; /* guests_when_known() */
    gpointer known_data;
    gboolean leaving;     /* guests_leave_all() */
    gboolean autostarted; /* guests with autostart have been started, or are being started, by this hvmd */
    gboolean recovered;   /* half-made things have been cleared once; under read_back_lock */
    guint64 serial;       /* counts ends of operations: what libvirt listed before one is older than what the table says */
    guint64 forgotten;    /* the serial when a guest last left the table */
    GMutex read_back_lock; /* held over a listing and what follows from it, before `lock`; in workers only */
    gboolean read_back_queued;
    gint workers;         /* atomic: threads under way */
    GuestsEventFunc on_event;
    gpointer event_data;
};

Guest *guest_new(RuntimeGuest *real);
Guest *guest_ref(Guest *guest);
void guest_unref(Guest *guest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Guest, guest_unref)

/* A guest by name that the caller may see. NOT_FOUND. Takes the lock. */
Guest *guests_find(Guests *guests, const Caller *caller, const char *name, GError **error);

/* Takes a guest's operation; "destroy" and "end" (a hard stop) hurry a stop that holds it. BUSY after 30 s, NOT_FOUND where it is destroyed meanwhile. guest_end() gives it back. */
gboolean guest_take_operation(Guests *guests, Guest *guest, const char *operation, GError **error);
/* As guests_find(), and takes its operation. guest_end() gives it back (and unrefs). */
Guest *guest_begin(Guests *guests, const Caller *caller, const char *name, const char *operation, GError **error);
void guest_end(Guests *guests, Guest *guest);

/* Puts "guest 'NAME': " before the message, unless it begins so. */
void guest_prefix_error(GError **error, const char *name);

/* The parts of create.c and start.c that run.c has in common with them. */

/* The spec that template and request make, on the newest image: a guest with paths, in no table yet. An ephemeral one boots to
 * the agent alone where neither says otherwise and the image can. */
Guest *guest_prepare(Guests *guests, const Caller *caller, const char *name, const char *template_name,
                     const Settings *request, gboolean ephemeral, Image **ret_image, GError **error);
/* Takes the image's files that this guest boots from. STORAGE where it is to boot to the agent alone, and the image cannot. */
gboolean guest_set_image(RuntimeGuest *real, const Image *image, GError **error);
/* Takes the name, under the user's limit, and with it the image; the guest is not to be seen until guest_publish(). EXISTS, DENIED; NOT_FOUND
 * where its image was removed meanwhile. */
gboolean guest_take_name(Guests *guests, const Caller *caller, Guest *guest, GError **error);
void guest_publish(Guests *guests, Guest *guest);
void guest_set_leaving(Guests *guests, Guest *guest, gboolean leaving);
/* Takes it out of the table for good. */
void guest_forget(Guests *guests, Guest *guest);
/* From off to running, or back to off. With the operation held. */
gboolean guest_bring_up(Guests *guests, const Caller *caller, Guest *guest, GuestsProgressFunc progress, gpointer data,
                        GError **error);
/* Waits for the agent of a guest that has been started; quotes the console's last line where it does not answer. */
gboolean guest_wait_for_agent(Guests *guests, Guest *guest, unsigned timeout_s, GError **error);
/* Removes the owner's network where no guest of theirs is left in the table. */
void guests_release_network(Guests *guests, uid_t owner_uid);
/* Ends the guest, leaves its network, forgets its domain, removes its disk; what is not there is passed over. */
gboolean guest_take_away(Guests *guests, Guest *guest, GError **error);
/* Takes it out of the table, and its owner's network away with the last of their guests; tells the listener. */
void guest_finish_destroy(Guests *guests, Guest *guest);
/* Both in a worker, for a guest that could not be taken away and that nobody else will destroy: again and again until libvirt does it, or
 * hvmd ends. With the operation held, and kept: until then it has its name and its promise. */
void guest_take_away_later(Guests *guests, Guest *guest);
/* Removes the sockets in a guest's folder below /run, and the folder. */
void guests_remove_socket_folder(const char *folder);

/* It does not run any more: releases its promise, tells who waits for its agent. With the lock held. */
void guest_end_life(Guests *guests, Guest *guest);

/* Whether a guest of the table has that UUID. Takes the lock. */
gboolean guests_have_uuid(Guests *guests, const char *uuid);

/* Sets the state and wakes who waits; off and crashed also end the guest's life: promise released, channel dropped. */
void guest_set_state(Guests *guests, Guest *guest, GuestState state);

/* Tells the listener. Not with the lock held. */
void guest_emit(Guests *guests, const Guest *guest, const char *event);

/* Asks the runtime how the guest is and sets its state. With the operation held. */
gboolean guest_refresh_state(Guests *guests, Guest *guest, GError **error);

/* LIBVIRT where nobody knows yet which guests there are. Takes the lock. */
gboolean guests_check_known(Guests *guests, GError **error);

/* BUSY where hvmd is about to end. Takes the lock. */
gboolean guests_check_stays(Guests *guests, GError **error);

/* Waits until the guest is off or crashed, or the time ran out, or somebody wants it off at once, or hvmd is about to end (FALSE). Operation held or not. */
gboolean guest_wait_off(Guests *guests, Guest *guest, gint64 deadline_us);

/* Paths derived from the UUID: fills disk_path, log_path, socket_folder, qemu_uid, ... of `real`. */
gboolean guests_fill_paths(Guests *guests, RuntimeGuest *real, GError **error);

/* Reads the node anew; also becomes guests->host. Caller unrefs. */
Host *guests_snapshot(Guests *guests, GError **error);

/* The newest snapshot if it was taken within the last second, else NULL: for what start decides anew anyway. Caller unrefs. */
Host *guests_recent(Guests *guests);

/* Whether the caller's cpuset is known. DENIED. */
gboolean limits_check_allowed(const Caller *caller, GError **error);
/* Per-user limits: of a further guest; of starting `spec`. With the lock held. DENIED. */
gboolean limits_check_create(Guests *guests, const Caller *caller, GError **error);
gboolean limits_check_start(Guests *guests, const Guest *guest, GError **error);

/* Whether the caller may have the devices of a spec: all for root, else those that hvmd.conf lists. DENIED. */
gboolean devices_check_right(const Host *host, const Spec *spec, const GPtrArray *allowed, uid_t uid, GError **error);
/* Whether placed devices can be given away at all: without an IOMMU none can. HOST. */
gboolean devices_check_iommu(const Host *host, const Placement *placement, GError **error);

/* The agent's channel, opened where it is not; see exec.c. */
typedef struct ChannelBox ChannelBox;
ChannelBox *guest_channel(Guests *guests, Guest *guest, unsigned timeout_ms, GError **error);
Channel *channel_box_get(ChannelBox *box);
void channel_box_unref(ChannelBox *box);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ChannelBox, channel_box_unref)
void guest_drop_channel(Guest *guest);

/* The guest, if it runs and is the caller's; BUSY, NOT_FOUND. */
Guest *guest_find_running(Guests *guests, const Caller *caller, const char *name, GError **error);

typedef struct Console Console;
/* Forgets the console; its thread leaves when QEMU or the last watcher does. */
void guest_drop_console(Guest *guest);

/* The last line that is not blank of the console's log, escaped, or NULL. Caller frees. */
char *guest_last_console_line(const Guest *guest);

/* Brings table and ledger up to what the runtime lists: of RuntimeFound; caller unrefs. In a worker, with read_back_lock held. */
GPtrArray *guests_read_back(Guests *guests, GError **error);
/* The same each time libvirt answers; the first time half-made things are cleared too. In a worker. */
void guests_recover(Guests *guests);
/* Runs `func(guests, data)` in a thread of its own, which guests_free() waits for. */
typedef void (*GuestsWork)(Guests *guests, gpointer data);
void guests_run(Guests *guests, GuestsWork func, gpointer data);

/* Looks in a worker how a guest really is, after something failed for which libvirt may be to blame. */
void guests_look_again(Guests *guests, const Guest *guest);

/* A GuestsProgressFunc that says nothing. */
void guests_no_progress(const char *text, gpointer data);

/* For VirtListener. */
void guests_on_state(gboolean connected, gpointer guests);
void guests_on_lifecycle(const char *uuid, const char *name, int event, int detail, gpointer guests);
