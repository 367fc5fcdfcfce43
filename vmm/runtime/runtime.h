/*
 * runtime.h: how a placement is made real: one interface, a folder for each way (vm; container and bare follow).
 *
 * Input: a RuntimeGuest, which says all that a runtime needs to know of one guest. Output: a running guest, or what was
 * there before. A runtime keeps no table of its own: what it needs later it keeps with the guest (a vm: in
 * the domain's <metadata>) and gives back by list().
 * Threads: any; calls block. The caller makes sure that two calls for one guest do not overlap.
 * Errors: LIBVIRT (or the runtime's own), prefixed with nothing: the caller says which guest and which step.
 */
#pragma once

#include "placement.h"
#include "spec.h"

#include <sys/types.h>

/* What has been decided about one guest. Strings are owned. */
typedef struct {
    char *uuid;
    Spec *spec;
    uid_t owner_uid;
    gid_t owner_gid;
    char *store;          /* path of the image store: whose hvmd this guest is */
    char *revision;       /* of the image it stands on */
    char *image_path;     /* root.raw */
    char *kernel_path;
    char *initrd_path;    /* with the kernel, of the kind that spec->init asks for */
    char *disk_path;      /* the guest's overlay */
    char *log_path;       /* console log */
    char *socket_folder;  /* where the agent's and the console's sockets go, QEMU's user's */
    char *network;        /* name of the libvirt network, or NULL */
    char *mac;            /* of its card, or NULL before the first start */
    char *address;        /* IPv4, or NULL before the first start */
    char *boot_address;   /* nat_describe_address() of it while it starts, for INIT_AGENT; or NULL */
    uid_t qemu_uid;
    gid_t qemu_gid;
    const char *qemu_user; /* "USER:GROUP" where a plan knows no numbers, else NULL. Static */
    gboolean ephemeral;   /* never defined; ends with the connection that started it */
    gboolean kvm;         /* the accelerator that was decided on */
    gboolean direct_io;   /* the store's file system takes O_DIRECT */
    gboolean no_arch_capabilities; /* accel.h */
    gboolean amd;         /* the node's CPUs are AMD's: topoext is needed to show SMT */
    Placement *placement; /* NULL while off */
} RuntimeGuest;

void runtime_guest_free(RuntimeGuest *guest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RuntimeGuest, runtime_guest_free)

typedef enum { GUEST_OFF, GUEST_STARTING, GUEST_RUNNING, GUEST_PAUSED, GUEST_STOPPING, GUEST_CRASHED } GuestState;

/* "off", "starting", ... Static. */
const char *guest_state_name(GuestState state);

/* One thing that a runtime found on the node. */
typedef struct {
    RuntimeGuest *guest;  /* NULL for one that hvm did not make, or that another hvmd or a newer hvm made */
    LedgerEntry *promise; /* what it takes while it runs, or NULL */
    GuestState state;
    char *name;
    char *uuid;
    gboolean unreadable;  /* it may be a guest: it has hvm's metadata, but not such as can be read, or libvirt does not tell */
} RuntimeFound;

void runtime_found_free(RuntimeFound *found);

typedef struct Runtime Runtime;
struct Runtime {
    const char *name; /* "vm" */
    /* Makes the guest known, not running; a second call replaces. */
    gboolean (*define)(Runtime *runtime, const RuntimeGuest *guest, GError **error);
    /* Defines it with its placement and starts it. On failure it is off. An ephemeral one is not defined,
     * and is ended when this process goes. */
    gboolean (*start)(Runtime *runtime, const RuntimeGuest *guest, GError **error);
    /* Lets one that is paused go on. */
    gboolean (*resume)(Runtime *runtime, const RuntimeGuest *guest, GError **error);
    /* Whether it is not paused because of its disk; else STORAGE: the store is full, or the disk broken. */
    gboolean (*check_disk)(Runtime *runtime, const RuntimeGuest *guest, GError **error);
    /* Asks it to power off (ACPI). */
    gboolean (*shut_down)(Runtime *runtime, const RuntimeGuest *guest, GError **error);
    /* Ends it at once; TRUE where it is off. */
    gboolean (*kill)(Runtime *runtime, const RuntimeGuest *guest, GError **error);
    /* Forgets it; TRUE where it is not known. */
    gboolean (*undefine)(Runtime *runtime, const RuntimeGuest *guest, GError **error);
    /* How one guest is now; off where it is not known. */
    gboolean (*state)(Runtime *runtime, const char *uuid, GuestState *ret_state, GError **error);
    /* The process that runs it (QEMU's pid). NOT_FOUND where it is off. */
    gboolean (*process)(Runtime *runtime, const RuntimeGuest *guest, pid_t *ret_pid, GError **error);
    /* All that is there, hvm's and others': of RuntimeFound. `store`: which guests are ours. Whole, or NULL: what is missing here
     * is taken for gone. */
    GPtrArray *(*list)(Runtime *runtime, const char *store, GError **error);
    void (*free)(Runtime *runtime);
};

void runtime_free(Runtime *runtime);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Runtime, runtime_free)
