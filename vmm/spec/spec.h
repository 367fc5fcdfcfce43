/*
 * spec.h: template + request -> one complete, checked Spec.
 *
 * Input: a Template's settings, the image's [os] settings (may be NULL), the request's settings, all over
 * template_keys[]. Output: a Spec that wants nothing more: every key has a value, in C types. Precedence, strongest
 * first: request, template, its parents, the image's description (libosinfo), defaults.
 * A Spec says what is wanted, not where: that is the Placement.
 * Threads: a Spec does not change after it was made; read from any thread.
 */
#pragma once

#include "settings.h"

#include <sys/types.h>

typedef enum { SMT_SIBLINGS, SMT_ISOLATE, SMT_ANY } SmtPolicy;
typedef enum { EMULATOR_SHARED, EMULATOR_DEDICATED } EmulatorPolicy;
typedef enum { ACCEL_WANT_AUTO, ACCEL_WANT_KVM, ACCEL_WANT_TCG } AccelWant;
typedef enum { LOCALITY_ANY, LOCALITY_PREFERRED, LOCALITY_REQUIRED } Locality;
typedef enum { IN_MEMORY_AUTO, IN_MEMORY_YES, IN_MEMORY_NO } InMemory;
typedef enum { NETWORK_NONE, NETWORK_NAT } NetworkKind;
typedef enum { INIT_SYSTEM, INIT_AGENT } InitKind;

#define PAGES_AUTO G_GUINT64_CONSTANT(0)

enum { SPEC_DEVICES_MAX = 64 };

/* One device that is asked for: exactly one of the three is set. */
typedef struct {
    char *name;     /* the request's own word for it: "gpu0" */
    char *address;  /* "0000:41:00.0" */
    char *kind;     /* "gpu", "nic", "ib", "nvme", "vf" (DEVICE_KINDS): matched by class code and state */
    char *network;  /* name of the interface whose device (or whose VF) is wanted: "ib0" */
    Locality locality;
} SpecDevice;

typedef struct {
    char *name;             /* of the guest; name_check()ed */
    char *template_name;
    unsigned cpus;          /* vCPUs */
    SmtPolicy smt;
    unsigned numa_nodes;    /* exactly so many, 0: as few as will do */
    unsigned sockets;       /* exactly so many packages, 0: as few as will do */
    gboolean spread;        /* as many NUMA nodes as the cores allow */
    EmulatorPolicy emulator;
    guint64 memory_bytes;
    guint64 page_bytes;     /* 4096, 2 MiB, 1 GiB, or PAGES_AUTO */
    guint64 disk_bytes;
    InMemory disk_in_memory; /* of an ephemeral guest; a guest that stays has its disk in the store */
    NetworkKind network;
    AccelWant accel;
    gboolean autostart;
    unsigned boot_timeout_s;
    InitKind init;          /* what the kernel starts */
    gboolean kaslr;         /* the packed kernel with INIT_AGENT too */
    char *kernel_arguments; /* or NULL */
    char *root_device;      /* "/dev/vda" */
    char *machine;          /* "q35" or "pc" */
    char *disk_bus;
    char *nic_model;
    char *agent_port;
    GPtrArray *devices;     /* of SpecDevice, by name; at most SPEC_DEVICES_MAX */
    Settings *settings;     /* all of it as checked text: what metadata keeps and `show` prints */
} Spec;

/* Makes one. `name` is the guest's (checked). INVALID naming group and key for a contradiction: memory that does not
 * divide by a page size that is asked for ("memory 1500M is not a multiple of 1G pages"), spread together with numa, ... */
Spec *spec_new(const char *name, const char *template_name, const Settings *template_settings, const Settings *image_settings,
               const Settings *request, GError **error);

/* From complete settings, as metadata keeps them. Untrusted: checked in full. */
Spec *spec_new_from_settings(const char *name, const char *template_name, const Settings *settings, GError **error);

void spec_unref(Spec *spec);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Spec, spec_unref)
