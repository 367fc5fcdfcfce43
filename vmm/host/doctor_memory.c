#include "doctor_internal.h"

#include "hvm_error.h"
#include "sysroot.h"
#include "units.h"

#include <string.h>

/* Share of a node's memory that the advice puts into huge pages: what is left keeps the system and emulated devices. */
#define ADVISED_NUMERATOR 3
#define ADVISED_DENOMINATOR 4
#define POOL_FILE "/sys/devices/system/node/node%u/hugepages/hugepages-2048kB/nr_hugepages"

static void advise_huge_pages(GPtrArray *checks, const HostNode *node, const char *found)
{
    g_autofree char *advice = NULL;

    if (node->memory_bytes == HOST_BYTES_UNKNOWN || node->memory_bytes < HVM_GIB)
        advice = g_strdup_printf("echo NUMBER > " POOL_FILE, node->node);
    else
        advice = g_strdup_printf("for 3/4 of its memory: echo %" G_GUINT64_FORMAT " > " POOL_FILE
                                 ", soon after boot while memory is not fragmented; for 1 GiB pages: hugepagesz=1G "
                                 "hugepages=NUMBER on the kernel's command line",
                                 node->memory_bytes / ADVISED_DENOMINATOR * ADVISED_NUMERATOR / (2 * HVM_MIB),
                                 node->node);
    check_add(checks, "huge pages", CHECK_WARNING,
              "guests on this node run on 4 KiB pages, which costs them about 6 %, or are refused where they ask for "
              "huge pages",
              advice, "%s", found);
}

void doctor_check_huge_pages(GPtrArray *checks, const Host *host)
{
    for (guint i = 0; i < host->nodes->len; i++) {
        const HostNode *node = g_ptr_array_index(host->nodes, i);
        g_autoptr(GString) found = g_string_new(NULL);
        guint64 total = 0, free_pages = 0;

        if (!node->general_purpose)
            continue;
        g_string_printf(found, "node %u:", node->node);
        for (guint j = 1; j < node->pages->len; j++) {
            const HostPages *pages = &g_array_index(node->pages, HostPages, j);
            g_autofree char *size = size_format_rounded(pages->page_bytes);

            if (pages->total)
                g_string_append_printf(found, "%s %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " pages of %s free",
                                       total ? "," : "", pages->free, pages->total, size);
            total += pages->total;
            free_pages += pages->free;
        }
        if (!total) {
            g_string_append(found, " none");
            advise_huge_pages(checks, node, found->str);
            continue;
        }
        check_add(checks, "huge pages", free_pages ? CHECK_OK : CHECK_WARNING,
                  free_pages ? NULL : "no further guest on this node gets huge pages",
                  free_pages ? NULL : "stop a guest, or raise nr_hugepages of this node", "%s", found->str);
    }
}

/* Whether a hugetlbfs of this page size is mounted. The default size shows no pagesize= on old kernels; then it counts
 * for 2 MiB. */
static gboolean is_mounted(const char *mounts, guint64 page_bytes)
{
    g_auto(GStrv) lines = g_strsplit(mounts, "\n", -1);
    g_autofree char *option = g_strdup_printf("pagesize=%" G_GUINT64_FORMAT "M", page_bytes / HVM_MIB);
    g_autofree char *option_gib = g_strdup_printf("pagesize=%" G_GUINT64_FORMAT "G", page_bytes / HVM_GIB);

    for (char **line = lines; *line; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, " ", -1);

        if (g_strv_length(fields) < 4 || strcmp(fields[2], "hugetlbfs") != 0)
            continue;
        g_auto(GStrv) options = g_strsplit(fields[3], ",", -1);

        if (g_strv_contains((const char *const *)options, option) ||
            (page_bytes >= HVM_GIB && g_strv_contains((const char *const *)options, option_gib)) ||
            (page_bytes == 2 * HVM_MIB && !strstr(fields[3], "pagesize=")))
            return TRUE;
    }
    return FALSE;
}

void doctor_check_hugetlbfs(GPtrArray *checks, const Host *host)
{
    g_autofree char *mounts = sysroot_read(NULL, "/proc/mounts");
    static const guint64 sizes[] = {2 * HVM_MIB, HVM_GIB};

    for (gsize i = 0; mounts && i < G_N_ELEMENTS(sizes); i++) {
        g_autofree char *size = size_format_rounded(sizes[i]);
        guint64 total = 0;

        for (guint j = 0; j < host->nodes->len; j++) {
            const HostPages *pages = host_node_pages(g_ptr_array_index(host->nodes, j), sizes[i]);

            total += pages ? pages->total : 0;
        }
        if (!total)
            continue;
        if (is_mounted(mounts, sizes[i]))
            check_add(checks, "hugetlbfs", CHECK_OK, NULL, NULL, "mounted for pages of %s", size);
        else
            check_add(checks, "hugetlbfs", CHECK_FAILURE, "QEMU cannot use the huge pages which are reserved",
                      sizes[i] == HVM_GIB ? "mkdir -p /dev/hugepages1G; mount -t hugetlbfs -o pagesize=1G hugetlbfs "
                                            "/dev/hugepages1G; then restart libvirtd"
                                          : "mount -t hugetlbfs hugetlbfs /dev/hugepages; then restart libvirtd",
                      "not mounted for pages of %s", size);
    }
}

void doctor_check_thp(GPtrArray *checks)
{
    g_autofree char *text = sysroot_read(NULL, "/sys/kernel/mm/transparent_hugepage/enabled");
    g_autofree char *chosen = text ? doctor_find_chosen(text) : NULL;

    if (chosen && strcmp(chosen, "never") != 0)
        check_add(checks, "thp", CHECK_OK, NULL, NULL, "%s", chosen);
    else
        check_add(checks, "thp", CHECK_WARNING,
                  "guests without huge pages of their own run on 4 KiB pages alone, which costs them about 6 %",
                  chosen ? "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
                         : "give guests huge pages (--pages 2M)",
                  "%s", chosen ? "never" : "not in this kernel");
}

void doctor_check_ksm(GPtrArray *checks)
{
    guint64 run = 0;

    if (!sysroot_read_uint(&run, NULL, "/sys/kernel/mm/ksm/run"))
        check_add(checks, "ksm", CHECK_OK, NULL, NULL, "not in this kernel");
    else if (run != 1)
        check_add(checks, "ksm", CHECK_OK, NULL, NULL, "off");
    else
        check_add(checks, "ksm", CHECK_WARNING,
                  "ksmd takes processor time to look for equal pages; hvm's guests are exempt, other processes are not",
                  "echo 2 > /sys/kernel/mm/ksm/run; systemctl disable --now ksmtuned where it is installed", "on");
}

void doctor_check_numa_balancing(GPtrArray *checks, const Host *host)
{
    guint64 mode = 0;

    if (!sysroot_read_uint(&mode, NULL, "/proc/sys/kernel/numa_balancing"))
        check_add(checks, "numa balancing", CHECK_OK, NULL, NULL, "not in this kernel");
    else if (!mode)
        check_add(checks, "numa balancing", CHECK_OK, NULL, NULL, "off");
    else if (host->nodes->len < 2)
        check_add(checks, "numa balancing", CHECK_OK, NULL, NULL, "on, without effect: there is one NUMA node");
    else
        check_add(checks, "numa balancing", CHECK_WARNING,
                  "the kernel unmaps guests' pages to see who uses them; memory which is bound to its node cannot "
                  "gain by that, and each look costs a page fault",
                  "echo 0 > /proc/sys/kernel/numa_balancing; to keep it: kernel.numa_balancing=0 in /etc/sysctl.d",
                  "on");
}

void doctor_check_node_memory(GPtrArray *checks, const Host *host)
{
    gboolean complete = TRUE;

    for (guint i = 0; i < host->nodes->len; i++) {
        const HostNode *node = g_ptr_array_index(host->nodes, i);

        if (node->memory_bytes != 0 || hwloc_bitmap_iszero(node->pus))
            continue;
        complete = FALSE;
        check_add(checks, "numa memory", CHECK_WARNING,
                  "no guest is placed on its processors, whose memory would be elsewhere",
                  "populate its memory slots, or set fewer NUMA nodes per socket in the firmware",
                  "node %u has processors and no memory", node->node);
    }
    if (complete)
        check_add(checks, "numa memory", CHECK_OK, NULL, NULL, "%u NUMA node%s", host->nodes->len,
                  host->nodes->len == 1 ? "" : "s, each with memory");
}

void doctor_check_swap(GPtrArray *checks)
{
    g_autofree char *text = sysroot_read(NULL, "/proc/swaps");
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);
    guint count = g_strv_length(lines);

    if (count < 2) { /* a heading and one line for each */
        check_add(checks, "swap", CHECK_OK, NULL, NULL, "none");
        return;
    }
    g_autofree char *first = g_strndup(lines[1], strcspn(lines[1], " \t"));
    g_autofree char *shown = hvm_escape(first, -1);
    g_autofree char *more = count > 2 ? g_strdup_printf(" and %u more", count - 2) : g_strdup("");

    check_add(checks, "swap", CHECK_WARNING,
              "under memory pressure pages of guests go to disk, and a guest stands still until they are back; huge "
              "pages never do",
              "swapoff -a and remove it from /etc/fstab, or give guests huge pages", "%s%s", shown, more);
}
