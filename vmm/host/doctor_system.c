#include "doctor_internal.h"

#include "hvm_error.h"
#include "sysroot.h"

#include <hwloc/cpukinds.h>
#include <string.h>

void doctor_check_virtualised(GPtrArray *checks)
{
    g_autofree char *maker = sysroot_read(NULL, "/sys/class/dmi/id/sys_vendor");
    g_autofree char *shown = maker && *maker ? hvm_escape(maker, (gssize)MIN(strlen(maker), 40)) : NULL;

    if (!doctor_has_cpu_flag("hypervisor"))
        check_add(checks, "hardware", CHECK_OK, NULL, NULL, "bare metal%s%s", shown ? ", made by " : "",
                  shown ? shown : "");
    else
        check_add(checks, "hardware", CHECK_WARNING,
                  "guests are pinned to processors which the machine below may move about, and topology and clock may "
                  "not be true: good for trying hvm, not for measuring",
                  "run on bare metal", "this node is itself a virtual machine%s%s", shown ? " of " : "",
                  shown ? shown : "");
}

void doctor_check_smt(GPtrArray *checks, const Host *host)
{
    g_autofree char *control = sysroot_read(NULL, "/sys/devices/system/cpu/smt/control");

    if (host->smt > 1)
        check_add(checks, "smt", CHECK_OK, NULL, NULL, "on, %u threads in a core", host->smt);
    else if (control && (strcmp(control, "off") == 0 || strcmp(control, "forceoff") == 0))
        check_add(checks, "smt", CHECK_OK, NULL, NULL, "off");
    else
        check_add(checks, "smt", CHECK_OK, NULL, NULL, "one thread in a core");
}

/* Shown, not optimised for: placement takes all cores as equal. */
void doctor_check_core_kinds(GPtrArray *checks, const Host *host)
{
    int count = hwloc_cpukinds_get_nr(host->topology, 0);
    g_autoptr(GString) text = g_string_new(NULL);
    hwloc_bitmap_t pus = hwloc_bitmap_alloc();

    for (int i = 0; i < count; i++) {
        int efficiency = -1;

        if (hwloc_cpukinds_get_info(host->topology, (unsigned)i, pus, &efficiency, NULL, NULL, 0) < 0)
            continue;
        g_autofree char *list = host_format_list(pus);

        g_string_append_printf(text, "%s%s (kind %d)", text->len ? ", " : "", list, efficiency);
    }
    hwloc_bitmap_free(pus);
    if (count > 1)
        check_add(checks, "core kinds", CHECK_WARNING, "a guest may get cores of unlike speed: placement takes them as equal",
                  "bound guests to one kind with a cpuset, or keep the others as [cpu] housekeeping in hvmd.conf",
                  "%d kinds, slowest first: %s", count, text->str);
}

void doctor_check_isolation(GPtrArray *checks, const Host *host)
{
    g_autofree char *list = host_format_list(host->isolated);

    if (hwloc_bitmap_iszero(host->isolated))
        check_add(checks, "isolated cpus", CHECK_OK, NULL, NULL, "none");
    else
        check_add(checks, "isolated cpus", CHECK_OK, NULL, NULL, "%s: guests go there first", list);
}

/* Counts the PUs under each governor into `counts` (name -> number). */
static void count_governors(const Host *host, GHashTable *counts)
{
    for (int pu = hwloc_bitmap_first(host->usable_pus); pu >= 0; pu = hwloc_bitmap_next(host->usable_pus, pu)) {
        char *governor = sysroot_read(NULL, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", pu);

        if (governor) {
            guint count = GPOINTER_TO_UINT(g_hash_table_lookup(counts, governor));

            g_hash_table_insert(counts, governor, GUINT_TO_POINTER(count + 1));
        }
    }
}

void doctor_check_frequency(GPtrArray *checks, const Host *host)
{
    g_autoptr(GHashTable) counts = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GString) found = g_string_new(NULL);

    count_governors(host, counts);
    g_autoptr(GList) names = g_list_sort(g_hash_table_get_keys(counts), (GCompareFunc)strcmp);

    for (GList *name = names; name; name = name->next) {
        g_autofree char *shown = hvm_escape(name->data, -1);

        g_string_append_printf(found, "%s%s on %u CPUs", found->len ? ", " : "governor ", shown,
                               GPOINTER_TO_UINT(g_hash_table_lookup(counts, name->data)));
    }
    if (!names)
        check_add(checks, "cpu frequency", CHECK_OK, NULL, NULL, "not set by the kernel (firmware or hypervisor does)");
    else if (!names->next && strcmp(names->data, "performance") == 0)
        check_add(checks, "cpu frequency", CHECK_OK, NULL, NULL, "%s", found->str);
    else
        check_add(checks, "cpu frequency", CHECK_WARNING,
                  "the clock follows the load, late: short runs are slower and figures vary from run to run",
                  "cpupower frequency-set -g performance (package linux-cpupower or kernel-tools)", "%s", found->str);
}

void doctor_check_clock(GPtrArray *checks)
{
    g_autofree char *source = sysroot_read(NULL, "/sys/devices/system/clocksource/clocksource0/current_clocksource");
    g_autofree char *shown = hvm_escape(source ? source : "", -1);

    if (!source)
        return;
    if (strcmp(source, "hpet") == 0 || strcmp(source, "acpi_pm") == 0 || strcmp(source, "jiffies") == 0)
        check_add(checks, "clock", CHECK_WARNING,
                  "the kernel does not trust the processor's counter (TSC): each look at the clock takes about 1 us "
                  "instead of 20 ns, and guests get no kvm-clock of their own",
                  "dmesg | grep -i tsc tells why; update the firmware; clocksource=tsc tsc=reliable on the kernel's "
                  "command line only where the counters are known to be in step",
                  "%s", shown);
    else
        check_add(checks, "clock", CHECK_OK, NULL, NULL, "%s", shown);
}

void doctor_check_mitigations(GPtrArray *checks)
{
    g_auto(GStrv) names = sysroot_list("/sys/devices/system/cpu/vulnerabilities");
    g_autoptr(GString) open = g_string_new(NULL);

    for (char **name = names; *name; name++) {
        g_autofree char *text = sysroot_read(NULL, "/sys/devices/system/cpu/vulnerabilities/%s", *name);

        if (text && g_str_has_prefix(text, "Vulnerable"))
            g_string_append_printf(open, "%s%s", open->len ? ", " : "", *name);
    }
    if (!names[0])
        check_add(checks, "mitigations", CHECK_WARNING, "it is not known whether guests can read each other's memory",
                  "use a kernel of 2018 or later", "the kernel does not tell");
    else if (!open->len)
        check_add(checks, "mitigations", CHECK_OK, NULL, NULL, "in place for all that this processor needs");
    else
        check_add(checks, "mitigations", CHECK_WARNING,
                  "a guest may be able to read memory of the node or of another owner's guest; without mitigations "
                  "some programs are faster",
                  "where owners do not trust each other: remove mitigations=off from the kernel's command line and "
                  "update the processor's microcode; otherwise leave it",
                  "vulnerable: %s", open->str);
}

void doctor_check_iommu(GPtrArray *checks, const Host *host)
{
    g_auto(GStrv) units = sysroot_list("/sys/class/iommu");
    g_auto(GStrv) groups = sysroot_list("/sys/kernel/iommu_groups");
    g_autofree char *command_line = sysroot_read(NULL, "/proc/cmdline");
    gboolean amd = host->cpu_vendor && strcmp(host->cpu_vendor, "AuthenticAMD") == 0;

    if (groups[0]) {
        check_add(checks, "iommu", CHECK_OK, NULL, NULL, "%u groups%s%s", g_strv_length(groups), units[0] ? ", " : "",
                  units[0] ? units[0] : "");
        return;
    }
    if (command_line && (strstr(command_line, "iommu=off") || strstr(command_line, "iommu=0")))
        check_add(checks, "iommu", CHECK_WARNING, "no PCI device can be given to a guest",
                  "remove iommu=off from the kernel's command line", "switched off on the kernel's command line");
    else
        check_add(checks, "iommu", CHECK_WARNING, "no PCI device can be given to a guest",
                  amd ? "switch on IOMMU (AMD-Vi) in the firmware's set-up; iommu=pt on the kernel's command line"
                      : "switch on VT-d in the firmware's set-up; intel_iommu=on iommu=pt on the kernel's command line",
                  "none");
}
