/*
 * cpuset.h: which CPUs and memory nodes a process or thread is confined to by its cgroup.
 *
 * Input: /proc/.../cgroup (cgroups(7)) and the cgroup trees below /sys/fs/cgroup, through sysroot.h. Output: a Cpuset, what is
 * effective, not what was asked for.
 *   v1  "3:cpuset:/job"   cpuset.effective_{cpus,mems}, in every group of the tree that has the controller
 *   v2  "0::/job"         cpuset.{cpus,mems}.effective, in groups whose parent hands the controller on; the others have what the
 *                         nearest above them has, and where none has it nothing bounds (Documentation/admin-guide/cgroup-v2.rst)
 * On a hybrid node v2 is mounted beside v1, and the controller is in one of both.
 * Affinity (sched_setaffinity(2)) lies within it, and is another thing: any process may set its own.
 * Threads: any; reads files only.
 */
#pragma once

#include "host.h"

typedef struct {
    char *path;           /* of its group, as /proc names it, or NULL: in no tree that could have a cpuset */
    hwloc_bitmap_t pus;   /* both NULL: the kernel bounds it by none */
    hwloc_bitmap_t nodes; /* NUMA nodes */
    gboolean own;         /* its group has a cpuset; FALSE: what is said is that of a group above */
} Cpuset;

/* Reads the cpuset of the task whose folder is `task` ("/proc/self", "/proc/77/task/78"). FALSE with nothing to clear (any code) where it
 * is in a group that cannot be found here, or whose cpuset cannot be read or parsed, an empty list included: that is no freedom. */
gboolean cpuset_read(const char *task, Cpuset *ret_cpuset, GError **error);

/* The same as the bound of what a process may ask for, so that a batch job's guest stays inside the job. Both bitmaps NULL: no bound.
 * DENIED. Caller frees the bitmaps. */
gboolean cpuset_read_bounds(const char *task, hwloc_bitmap_t *ret_pus, hwloc_bitmap_t *ret_nodes, GError **error);

/* Frees what it holds. */
void cpuset_clear(Cpuset *cpuset);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Cpuset, cpuset_clear)
