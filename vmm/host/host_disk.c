/* host_disk.c: from a path to the NUMA nodes of what it is stored on, by /sys/dev/block (sysfs-rules, sysfs-block). */
#include "host_internal.h"

#include "sysroot.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

enum { STACK_DEPTH_MAX = 8, ANCESTORS_MAX = 24 };

/* The nearest device above, itself included, that is on a node: for a disk of its own, its PCI device. The kernel follows
 * "..", so that the place of a device among others in /sys/devices need not be known. */
static gboolean read_device_node(const char *path, hwloc_bitmap_t nodes)
{
    g_autoptr(GString) at = g_string_new(path);

    for (unsigned i = 0; i < ANCESTORS_MAX && sysroot_exists("%s", at->str); i++) {
        g_autofree char *text = sysroot_read(NULL, "%s/numa_node", at->str);
        guint64 node = 0;

        if (text && g_ascii_string_to_unsigned(text, 10, 0, HOST_PU_MAX, &node, NULL)) /* "-1": the platform does not tell */
            hwloc_bitmap_set(nodes, (unsigned)node);
        if (text)
            return TRUE;
        g_string_append(at, "/..");
    }
    return FALSE;
}

/* `number` is "major:minor". Made of others (LVM, RAID, encryption): theirs. A namespace of an NVMe subsystem of several
 * controllers (nvme_core.multipath) is no controller's own: that of each. */
static void add_nodes(const char *number, unsigned depth, hwloc_bitmap_t nodes)
{
    g_autofree char *device = g_strconcat("/sys/dev/block/", number, NULL);
    g_autofree char *whole = g_strconcat(device, sysroot_exists("%s/partition", device) ? "/.." : "", NULL);
    g_auto(GStrv) below = sysroot_list("%s/slaves", whole);
    g_auto(GStrv) beside = NULL;

    for (char **name = below; *name && depth < STACK_DEPTH_MAX; name++) {
        g_autofree char *other = sysroot_read(NULL, "%s/slaves/%s/dev", whole, *name);

        if (other)
            add_nodes(other, depth + 1, nodes);
    }
    if (*below || read_device_node(whole, nodes))
        return;
    beside = sysroot_list("%s/..", whole);
    for (char **name = beside; *name; name++) {
        g_autofree char *controller = g_strdup_printf("%s/../%s", whole, *name);

        if (g_str_has_prefix(*name, "nvme") && sysroot_exists("%s/cntlid", controller))
            read_device_node(controller, nodes);
    }
}

hwloc_bitmap_t host_disk_nodes(const char *path)
{
    hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
    struct stat status;

    if (stat(path, &status) == 0) {
        g_autofree char *number = g_strdup_printf("%u:%u", major(status.st_dev), minor(status.st_dev));

        add_nodes(number, 0, nodes);
    }
    return nodes;
}
