/*
 * verify.h: does the kernel do what the placement promises?
 *
 * Input: the pid of a guest's QEMU, its placement. Output: one finding for each promise that was looked at, read back from /proc
 * and /sys through sysroot.h: the affinity of every vCPU thread, of QEMU's own threads and I/O threads; the cpuset cgroups which
 * libvirt put them in, and the nodes on which the kernel lets them allocate; where each cell's memory really is and in what
 * pages (numa_maps).
 * Threads: any; reads files only. A thread or process that ends meanwhile is a difference, not an error.
 */
#pragma once

#include "placement.h"

#include <sys/types.h>

typedef struct {
    char *what;     /* "vCPU 0", "emulator thread 1234", "vCPU 0 cgroup", "allocations", "cell 1 memory" */
    char *promised; /* "PU 3", "4G on node 1 in 2M pages" */
    char *found;
    gboolean kept;
} Finding;

void finding_free(Finding *finding);

/* Affinity only: the part which is cheap enough for every start. Appends to `findings` (of Finding). */
void verify_threads(pid_t pid, const Placement *placement, GPtrArray *findings);

/* cgroup v1 and v2: each thread's cpuset against its PUs and the nodes of the cells, and Mems_allowed_list against those nodes. Where the kernel or
 * libvirt gives them no cpuset of their own this is said, and is a difference only where what is above leaves the promise no room. */
void verify_limits(pid_t pid, const Placement *placement, GPtrArray *findings);

/* Memory: reads numa_maps, which walks the page tables. `grows`: 4 KiB pages are allocated as the guest touches them (an
 * ephemeral guest), so that less than what was promised may be there, but none elsewhere. */
void verify_memory(pid_t pid, const Placement *placement, gboolean grows, GPtrArray *findings);

/* The first that is not kept, or NULL. */
const Finding *verify_first_difference(const GPtrArray *findings);
