/*
 * placement.h: solve(host, spec, ledger) -> placement. Pure: no I/O, no clock, no randomness.
 *
 * Input: a Host (what there is), a Ledger (what is promised), an Allowed set (what the caller may use: its cpuset),
 * a PlacementPolicy (the admin's), a Spec (what is wanted). Output: a Placement: for each vCPU one PU, for each guest NUMA
 * cell its host node, bytes and page size, the emulator's and I/O threads' PUs, each device's address and cell, the
 * guest's CPU topology; or NO_PLACEMENT naming the constraint that failed, how near it came and what would make it fit.
 *
 * Hard: CPU count, memory strictly on its node, page size, devices, required locality, allowed set, exclusiveness.
 * Soft, in this order: fewest NUMA nodes; nearest devices, then fewest PCIe switches for them; cores of one width; fewest packages;
 * equal cells; PUs that the kernel isolates; huge pages where the size is left to us; fewest L3s; least fragmentation left (L3s, then
 * nodes, neither empty nor full, then least left over on the guest's nodes); lowest numbers. With `spread`: most nodes that
 * take equal cells. The answer is optimal for that order and does not depend on the order in which anything is listed; where there
 * were too many choices to look at all, a note says so.
 * Why packages, equal cells, isolation and page size come before L3s and fragmentation is in docs/design.md, what it costs other
 * guests in bench/placement.md.
 * An L3 that reaches over several nodes counts once in each; a node without L3s is one.
 * Memory is shared out by the vCPUs of each cell, in whole pages (2 MiB where the size is left to us and divides).
 * Threads: any; a Placement does not change after it was made.
 */
#pragma once

#include "ledger.h"
#include "spec.h"

typedef struct {
    unsigned pu;      /* host PU (os_index) */
    unsigned core;    /* hwloc logical index of its core, for people */
    unsigned cell;    /* guest NUMA cell */
    unsigned socket, die, guest_core, thread; /* where the guest sees it */
} PlacementVcpu;

typedef struct {
    unsigned node;        /* host NUMA node (os_index) */
    guint64 memory_bytes; /* a multiple of page_bytes */
    guint64 page_bytes;   /* 4096, 2 MiB, 1 GiB */
    unsigned first_vcpu;  /* cells are contiguous: vCPUs first_vcpu .. first_vcpu + vcpus - 1 */
    unsigned vcpus;
} PlacementCell;

typedef struct {
    char *name;     /* SpecDevice.name */
    char *address;
    int cell;       /* guest cell whose node it is near, or -1 */
} PlacementDevice;

/* The guest's view of the L3, which only KVM can give it: as it is on the host (each taken whole), emulated per die, or none, where
 * some of its PUs have none. */
typedef enum { CACHE_PASSTHROUGH, CACHE_EMULATE, CACHE_NONE } CacheMode;

typedef struct {
    GArray *vcpus;              /* of PlacementVcpu, by vCPU number: siblings adjacent, cells contiguous */
    GArray *cells;              /* of PlacementCell */
    GArray *distances;          /* of guint8, cells x cells, row by row; empty for one cell or where not told */
    GPtrArray *devices;         /* of PlacementDevice */
    hwloc_bitmap_t reserved;    /* PUs promised: those of vCPUs, idle siblings, dedicated emulator's */
    hwloc_bitmap_t emulator;    /* PUs for QEMU's own threads: dedicated or housekeeping ones, or those that the kernel does not isolate
                                 * and nobody holds where some are isolated and none configured, or the guest's */
    hwloc_bitmap_t io_threads;  /* PUs for the disk's I/O thread: housekeeping PUs of the disk's node, else those of `emulator` */
    gboolean emulator_shares;   /* TRUE: they share the guest's own PUs, for want of others */
    unsigned sockets, dies, cores, threads; /* -smp; their product is the vCPU count */
    CacheMode cache;
    GPtrArray *notes;           /* of char *: what a user must know, one sentence each ("emulator threads share ...") */
    GPtrArray *reasons;         /* of char *: why these, what was second best and why it lost */
} Placement;

typedef struct {
    hwloc_bitmap_t pus;   /* NULL: no bound */
    hwloc_bitmap_t nodes; /* NULL: no bound */
} Allowed;

typedef struct {
    hwloc_bitmap_t housekeeping; /* PUs kept for the node itself and emulator threads: guests never get them. May be NULL */
    hwloc_bitmap_t disk_nodes;   /* NUMA nodes of the disks that guests' disks are stored on, host_disk_nodes(). May be NULL */
} PlacementPolicy;

/* `allowed` and `policy` may be NULL. NO_PLACEMENT, or INVALID for a request that contradicts itself. */
Placement *placement_solve(const Host *host, const Spec *spec, const Ledger *ledger, const Allowed *allowed,
                           const PlacementPolicy *policy, GError **error);

/* Whether `wanted` could be met by `device`, were it free and not in use by the node itself. */
gboolean placement_device_would_do(const Host *host, const HostDevice *device, const SpecDevice *wanted);

/* The kind that a device is asked for by ("gpu"; "vf" before all others), or NULL where it is of none. */
const char *placement_device_kind(const HostDevice *device);

/* As placement_solve() on an empty ledger and full pools: refuses only what could never fit this node. For `create`. */
gboolean placement_could_fit(const Host *host, const Spec *spec, const Allowed *allowed, const PlacementPolicy *policy,
                             GError **error);

/* What to put into the ledger for it. Caller owns. */
LedgerEntry *placement_promise(const Placement *placement, const char *uuid, const char *name, uid_t owner_uid);

/* To and from one line of JSON, as metadata keeps it and `hvm plan --json` prints it ("vcpus": [{"pu": 3, ...}], "cells": ...,
 * "devices": ...). Reading back is strict: INVALID. */
char *placement_to_json(const Placement *placement);
Placement *placement_from_json(const char *text, GError **error);

/* Sentences for people: what was placed, notes, reasons; lines without indentation, each ended by a newline. */
char *placement_explain(const Placement *placement, const Host *host, const Spec *spec);

void placement_free(Placement *placement);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Placement, placement_free)
