/*
 * doctor_internal.h: what the files of doctor.h share. Each function appends one check or more.
 */
#pragma once

#include "doctor.h"

/* doctor_memory.c */
void doctor_check_huge_pages(GPtrArray *checks, const Host *host);
void doctor_check_hugetlbfs(GPtrArray *checks, const Host *host);
void doctor_check_thp(GPtrArray *checks);
void doctor_check_ksm(GPtrArray *checks);
void doctor_check_numa_balancing(GPtrArray *checks, const Host *host);
void doctor_check_node_memory(GPtrArray *checks, const Host *host);
void doctor_check_swap(GPtrArray *checks);

/* doctor_system.c */
void doctor_check_virtualised(GPtrArray *checks);
void doctor_check_smt(GPtrArray *checks, const Host *host);
void doctor_check_core_kinds(GPtrArray *checks, const Host *host);
void doctor_check_isolation(GPtrArray *checks, const Host *host);
void doctor_check_frequency(GPtrArray *checks, const Host *host);
void doctor_check_clock(GPtrArray *checks);
void doctor_check_mitigations(GPtrArray *checks);
void doctor_check_iommu(GPtrArray *checks, const Host *host);

/* doctor_process.c */
void doctor_check_cgroups(GPtrArray *checks);
void doctor_check_capabilities(GPtrArray *checks);
void doctor_check_memlock(GPtrArray *checks);

/* Whether /proc/cpuinfo lists this flag ("vmx"). */
gboolean doctor_has_cpu_flag(const char *flag);
/* The word in brackets of "always [madvise] never"; NULL where there is none. Caller frees. */
char *doctor_find_chosen(const char *text);
