/*
 * cpuset.h: the bounds of a process on this node.
 *
 * Input: a process. Output: the CPUs and memory nodes of its cpuset cgroup, as the kernel applies them (v1 and v2; see
 * cgroups(7), cpuset(7)). They bound every placement that it asks for, so that a batch job's guest stays inside the job. Its
 * affinity is only a wish, and is not looked at.
 * Threads: any.
 */
#pragma once

#include <hwloc.h>
#include <sys/types.h>

/* `pid` 0: of the calling process. Sets both bitmaps, owned by the caller; NULL where nothing tells of a bound. */
void cpuset_read(pid_t pid, hwloc_bitmap_t *ret_pus, hwloc_bitmap_t *ret_nodes);
