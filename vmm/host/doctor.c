#include "doctor_internal.h"

#include "sysroot.h"

#include <string.h>

void check_free(Check *check)
{
    if (!check)
        return;
    g_free(check->name);
    g_free(check->found);
    g_free(check->meaning);
    g_free(check->advice);
    g_free(check);
}

void check_add(GPtrArray *checks, const char *name, CheckState state, const char *meaning, const char *advice,
               const char *found_format, ...)
{
    Check *check = g_new0(Check, 1);
    va_list arguments;

    check->name = g_strdup(name);
    check->state = state;
    check->meaning = g_strdup(meaning);
    check->advice = g_strdup(advice);
    va_start(arguments, found_format);
    check->found = g_strdup_vprintf(found_format, arguments);
    va_end(arguments);
    g_ptr_array_add(checks, check);
}

char *doctor_find_chosen(const char *text)
{
    const char *open = strchr(text, '['), *close = open ? strchr(open, ']') : NULL;

    return close ? g_strndup(open + 1, (gsize)(close - open - 1)) : NULL;
}

gboolean doctor_has_cpu_flag(const char *flag)
{
    g_autofree char *text = sysroot_read(NULL, "/proc/cpuinfo");
    const char *line = text ? strstr(text, "\nflags") : NULL;

    if (!line)
        return FALSE;
    g_autofree char *flags = g_strndup(line + 1, strcspn(line + 1, "\n"));
    g_auto(GStrv) words = g_strsplit_set(flags, " \t", -1);

    return g_strv_contains((const char *const *)words, flag);
}

static void check_missing_kvm(GPtrArray *checks, const AccelProbe *accel)
{
    static const char emulated[] = "guests are emulated instruction by instruction (TCG), 10 to 30 times slower than "
                                   "the node";

    if (!doctor_has_cpu_flag("vmx") && !doctor_has_cpu_flag("svm"))
        check_add(checks, "kvm", CHECK_FAILURE, emulated,
                  "switch on VT-x or SVM in the firmware's set-up; where this node is itself a virtual machine, "
                  "switch on nested virtualisation on the machine below it",
                  "%s; the processor shows neither vmx nor svm", accel->detail);
    else
        check_add(checks, "kvm", CHECK_FAILURE, emulated,
                  "load the module: modprobe kvm_intel or modprobe kvm_amd; dmesg tells why it refuses",
                  "%s", accel->detail);
}

static void check_kvm(GPtrArray *checks, const AccelProbe *accel)
{
    static const char emulated[] = "hvm emulates guests (TCG) instead, 10 to 30 times slower than the node";

    switch (accel->state) {
    case ACCEL_KVM:
        check_add(checks, "kvm", CHECK_OK, NULL, NULL, "works: %s", accel->detail);
        break;
    case ACCEL_KVM_SLOW:
        check_add(checks, "kvm", CHECK_FAILURE,
                  "/dev/kvm is there but interprets the guest's instructions; hvm emulates guests (TCG) instead, "
                  "which is faster than that but 10 to 30 times slower than the node",
                  "run on hardware, or on a virtual machine with hardware-assisted nested virtualisation", "%s",
                  accel->detail);
        break;
    case ACCEL_KVM_MISSING:
        check_missing_kvm(checks, accel);
        break;
    case ACCEL_KVM_DENIED:
        check_add(checks, "kvm", CHECK_FAILURE, emulated,
                  "run this check as root; for QEMU's user: chgrp kvm /dev/kvm, chmod 660 /dev/kvm, and that user in "
                  "group kvm",
                  "%s", accel->detail);
        break;
    case ACCEL_KVM_BROKEN:
        check_add(checks, "kvm", CHECK_FAILURE, emulated,
                  "see dmesg; another hypervisor on this node (VirtualBox, Xen) may hold the processor's "
                  "virtualisation",
                  "%s", accel->detail);
        break;
    }
}

GPtrArray *doctor_check_host(const Host *host, const AccelProbe *accel)
{
    GPtrArray *checks = g_ptr_array_new_with_free_func((GDestroyNotify)check_free);

    check_kvm(checks, accel);
    doctor_check_virtualised(checks);
    doctor_check_huge_pages(checks, host);
    doctor_check_hugetlbfs(checks, host);
    doctor_check_thp(checks);
    doctor_check_ksm(checks);
    doctor_check_numa_balancing(checks, host);
    doctor_check_node_memory(checks, host);
    doctor_check_swap(checks);
    doctor_check_smt(checks, host);
    doctor_check_core_kinds(checks, host);
    doctor_check_isolation(checks, host);
    doctor_check_frequency(checks, host);
    doctor_check_clock(checks);
    doctor_check_mitigations(checks);
    doctor_check_iommu(checks, host);
    doctor_check_cgroups(checks);
    doctor_check_capabilities(checks);
    doctor_check_memlock(checks);
    return checks;
}
