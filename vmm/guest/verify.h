/*
 * verify.h: does the kernel do what the placement promises?
 *
 * Input: the pid of a guest's QEMU, its placement. Output: one finding for each promise that was looked at, read back from /proc
 * through sysroot.h: the affinity of every vCPU thread, of QEMU's own threads and I/O threads, where each cell's memory
 * really is and in what pages (numa_maps), and that the process may allocate on those nodes only (cpuset).
 * Threads: any; reads files only. A thread or process that ends meanwhile is a difference, not an error.
 */
#pragma once

#include "placement.h"

#include <sys/types.h>

typedef struct {
    char *what;     /* "vCPU 0", "emulator thread 'worker' 1234", "cell 1 memory" */
    char *promised; /* "PU 3", "4G on node 1 in 2M pages" */
    char *found;
    gboolean kept;
} Finding;

void finding_free(Finding *finding);

/* Threads only: the part which is cheap enough for every start. Appends to `findings` (of Finding). */
void verify_threads(pid_t pid, const Placement *placement, GPtrArray *findings);

/* Memory: reads numa_maps, which walks the page tables. `grows`: 4 KiB pages are allocated as the guest touches them (an
 * ephemeral guest), so that less than what was promised may be there, but none elsewhere. */
void verify_memory(pid_t pid, const Placement *placement, gboolean grows, GPtrArray *findings);

/* The first that is not kept, or NULL. */
const Finding *verify_first_difference(const GPtrArray *findings);
