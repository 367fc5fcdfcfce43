/*
 * doctor.h: is this node fit?
 *
 * Input: a Host, the process's own capabilities and limits. Output: a list of checks, each one line: what was
 * looked at, how it is, what that means, what to do. Checks of libvirt and of the image store are added by those who
 * know them (vmm/guest/fitness.c). Reads only.
 * Threads: blocks (probes KVM).
 */
#pragma once

#include "accel.h"
#include "host.h"

typedef enum { CHECK_OK, CHECK_WARNING, CHECK_FAILURE } CheckState;

typedef struct {
    char *name;      /* "kvm", "huge pages": short, stable: scripts match it */
    CheckState state;
    char *found;     /* "QEMU 7.2.22": what is */
    char *meaning;   /* what follows from it, or NULL when ok */
    char *advice;    /* what to do, or NULL */
} Check;

void check_free(Check *check);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Check, check_free)

/* Appends a check; strings are copied, `meaning` and `advice` may be NULL. */
void check_add(GPtrArray *checks, const char *name, CheckState state, const char *meaning, const char *advice,
               const char *found_format, ...) G_GNUC_PRINTF(6, 7);

/* New array (free function set) with the checks of the host itself: kvm, huge pages per node and size, THP, KSM, NUMA
 * balancing, IOMMU, SMT, cgroup layout, memlock, capabilities. */
GPtrArray *doctor_check_host(const Host *host, const AccelProbe *accel);
