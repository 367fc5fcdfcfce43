#include "verify.h"

#include "host.h"
#include "sysroot.h"
#include "units.h"

#include <stdlib.h>
#include <string.h>

void finding_free(Finding *finding)
{
    if (!finding)
        return;
    g_free(finding->what);
    g_free(finding->promised);
    g_free(finding->found);
    g_free(finding);
}

/* Takes all three strings. */
static void add(GPtrArray *findings, char *what, char *promised, char *found, gboolean kept)
{
    Finding *finding = g_new0(Finding, 1);

    *finding = (Finding){what, promised, found, kept};
    g_ptr_array_add(findings, finding);
}

const Finding *verify_first_difference(const GPtrArray *findings)
{
    for (guint i = 0; i < findings->len; i++)
        if (!((const Finding *)findings->pdata[i])->kept)
            return findings->pdata[i];
    return NULL;
}

/* The value behind "NAME:" in a file of lines such as /proc/PID/status; NULL where there is none. Caller frees. */
static char *status_value(const char *text, const char *name)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++)
        if (g_str_has_prefix(*line, name) && (*line)[strlen(name)] == ':')
            return g_strstrip(g_strdup(*line + strlen(name) + 1));
    return NULL;
}

/* The affinity of one thread; NULL where it is gone. */
static hwloc_bitmap_t read_affinity(pid_t pid, const char *thread)
{
    g_autofree char *status = sysroot_read(NULL, "/proc/%d/task/%s/status", (int)pid, thread);
    g_autofree char *list = status ? status_value(status, "Cpus_allowed_list") : NULL;

    return list ? host_parse_list(list, NULL) : NULL;
}

/* A vCPU thread's number from its name, "CPU 3/KVM" (QEMU's debug-threads, which libvirt switches on); -1: not one. */
static int vcpu_number(const char *comm)
{
    unsigned number = 0;
    int end = 0;

    return sscanf(comm, "CPU %u/%n", &number, &end) == 1 && end > 0 ? (int)number : -1;
}

static void check_thread(pid_t pid, const char *thread, const char *comm, const Placement *placement, gboolean *seen,
                         GPtrArray *findings)
{
    hwloc_bitmap_t affinity = read_affinity(pid, thread);
    int vcpu = vcpu_number(comm);
    gboolean io_thread = g_str_has_prefix(comm, "IO iothread");

    if (!affinity)
        return; /* it has just ended */

    g_autofree char *found = host_format_list(affinity);

    if (vcpu >= 0 && (guint)vcpu < placement->vcpus->len) {
        unsigned pu = g_array_index(placement->vcpus, PlacementVcpu, (guint)vcpu).pu;
        gboolean kept = hwloc_bitmap_weight(affinity) == 1 && hwloc_bitmap_isset(affinity, pu);

        seen[vcpu] = TRUE;
        add(findings, g_strdup_printf("vCPU %d", vcpu), g_strdup_printf("PU %u", pu), g_strdup_printf("PU %s", found), kept);
    } else {
        hwloc_bitmap_t allowed = io_thread ? placement->io_threads : placement->emulator;
        g_autofree char *promised = host_format_list(allowed);

        add(findings, g_strdup_printf("%s thread %s", io_thread ? "I/O" : "emulator", thread),
            g_strdup_printf("PUs %s", promised), g_strdup_printf("PUs %s", found),
            hwloc_bitmap_isincluded(affinity, allowed) && !hwloc_bitmap_iszero(affinity));
    }
    hwloc_bitmap_free(affinity);
}

void verify_threads(pid_t pid, const Placement *placement, GPtrArray *findings)
{
    g_auto(GStrv) threads = sysroot_list("/proc/%d/task", (int)pid);
    g_autofree gboolean *seen = g_new0(gboolean, placement->vcpus->len);

    for (char **thread = threads; *thread; thread++) {
        g_autofree char *comm = sysroot_read(NULL, "/proc/%d/task/%s/comm", (int)pid, *thread);

        if (comm)
            check_thread(pid, *thread, comm, placement, seen, findings);
    }
    for (guint i = 0; i < placement->vcpus->len; i++)
        if (!seen[i])
            add(findings, g_strdup_printf("vCPU %u", i),
                g_strdup_printf("PU %u", g_array_index(placement->vcpus, PlacementVcpu, i).pu), g_strdup("no such thread"), FALSE);
}

/*
 * numa_maps (Documentation/admin-guide/mm/numaperf, proc(5)): "7f... bind:1 anon=262144 dirty=262144 N1=262144
 * kernelpagesize_kB=4". QEMU binds each cell's memory, and nothing else, with the policy `bind:NODE`.
 */
typedef struct {
    guint64 *bytes_on; /* by NUMA node, of what is bound to this cell's node */
    guint64 elsewhere;
    guint64 page_bytes; /* the smallest seen */
} Mapped;

static void count_mapping(char **words, unsigned node, Mapped *mapped)
{
    g_autofree char *policy = g_strdup_printf("bind:%u", node);
    g_autofree char *policy_static = g_strdup_printf("bind=static:%u", node);
    guint64 page_bytes = 4 * HVM_KIB, here = 0, elsewhere = 0;

    if (!words[0] || !words[1] || (strcmp(words[1], policy) != 0 && strcmp(words[1], policy_static) != 0))
        return;
    for (char **word = words + 2; *word; word++) {
        unsigned on = 0;
        guint64 pages = 0;

        if (g_str_has_prefix(*word, "kernelpagesize_kB="))
            page_bytes = g_ascii_strtoull(*word + strlen("kernelpagesize_kB="), NULL, 10) * HVM_KIB;
        else if (sscanf(*word, "N%u=%" G_GUINT64_FORMAT, &on, &pages) == 2)
            *(on == node ? &here : &elsewhere) += pages;
    }
    if (here + elsewhere == 0)
        return;
    *mapped->bytes_on += here * page_bytes;
    mapped->elsewhere += elsewhere * page_bytes;
    mapped->page_bytes = mapped->page_bytes ? MIN(mapped->page_bytes, page_bytes) : page_bytes;
}

void verify_memory(pid_t pid, const Placement *placement, gboolean grows, GPtrArray *findings)
{
    g_autofree char *text = sysroot_read(NULL, "/proc/%d/numa_maps", (int)pid);
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);

    for (guint i = 0; i < placement->cells->len; i++) {
        const PlacementCell *cell = &g_array_index(placement->cells, PlacementCell, i);
        guint64 here = 0, least = grows && cell->page_bytes == 4 * HVM_KIB ? 0 : cell->memory_bytes;
        Mapped mapped = {.bytes_on = &here};

        for (char **line = lines; *line; line++) {
            g_auto(GStrv) words = g_strsplit(*line, " ", -1);

            count_mapping(words, cell->node, &mapped);
        }
        g_autofree char *wanted = size_format(cell->memory_bytes);
        g_autofree char *wanted_page = size_format(cell->page_bytes);
        g_autofree char *found = size_format(here);
        g_autofree char *found_page = size_format(mapped.page_bytes);
        g_autofree char *away = size_format(mapped.elsewhere);

        add(findings, g_strdup_printf("cell %u memory", i), g_strdup_printf("%s on node %u in %s pages", wanted, cell->node, wanted_page),
            text ? g_strdup_printf("%s on node %u in %s pages%s%s", found, cell->node, found_page, mapped.elsewhere ? ", elsewhere " : "",
                                   mapped.elsewhere ? away : "")
                 : g_strdup("numa_maps cannot be read"),
            text && here >= least && mapped.elsewhere == 0 && (here == 0 || mapped.page_bytes == cell->page_bytes));
    }
}
