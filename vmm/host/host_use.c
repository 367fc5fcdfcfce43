/*
 * host_use.c: which devices the node itself needs, so that no guest is given them.
 *
 * Two things count, both read in the kernel and not guessed from names: a network interface that a route goes through (the
 * management network, an IPoIB interface that carries a file system), directly or below a bridge, bond or VLAN; and a disk of which
 * something is mounted, swapped to, or held by another block device (LVM, RAID). Each is followed through sysfs to the PCI
 * devices that it hangs below. Not seen: a ZFS pool, which leaves no trace there.
 */
#include "host_internal.h"

#include "hvm_error.h"
#include "sysroot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STACK_MAX = 16 }; /* interfaces or block devices upon each other */

/* Gives `use` to all PCI devices on the way to `path` (in /sys): those are all that its loss would take away. */
static void add_use(GHashTable *uses, const char *path, const char *use)
{
    g_autofree char *below = sysroot_path(path);
    char *real = realpath(below, NULL);
    g_auto(GStrv) parts = g_strsplit(real ? real : "", "/", -1);
    guint64 key;

    for (char **part = parts; *part; part++)
        if (host_parse_address(*part, &key) && !g_hash_table_contains(uses, *part))
            g_hash_table_insert(uses, g_strdup(*part), g_strdup(use));
    free(real);
}

/* ---- Interfaces ---- */

/* An interface and what is below it: lower_NAME are links to the ports of a bridge, the members of a bond. */
static void add_interface(GHashTable *uses, const char *name, const char *use, unsigned depth)
{
    g_autofree char *path = g_strdup_printf("/sys/class/net/%s", name);
    g_auto(GStrv) entries = sysroot_list("%s", path);

    add_use(uses, path, use);
    for (char **entry = entries; depth < STACK_MAX && *entry; entry++)
        if (g_str_has_prefix(*entry, "lower_"))
            add_interface(uses, *entry + strlen("lower_"), use, depth + 1);
}

static void add_routed(GHashTable *uses, const char *name)
{
    g_autofree char *shown = hvm_escape(name, -1);
    g_autofree char *use = g_strdup_printf("a route of it goes through %s", shown);

    if (!strchr(name, '/') && name[0] != '.')
        add_interface(uses, name, use, 0);
}

/* Link-local and multicast routes come with every interface that is up. */
static gboolean is_automatic(const char *destination)
{
    return g_str_has_prefix(destination, "fe8") || g_str_has_prefix(destination, "ff");
}

static void add_routes(GHashTable *uses)
{
    g_autofree char *v4 = sysroot_read(NULL, "/proc/net/route");
    g_autofree char *v6 = sysroot_read(NULL, "/proc/net/ipv6_route");
    g_auto(GStrv) lines4 = g_strsplit(v4 ? v4 : "", "\n", -1), lines6 = g_strsplit(v6 ? v6 : "", "\n", -1);

    for (char **line = lines4; *line && line[1]; line++) { /* the first is the heading */
        g_auto(GStrv) words = g_strsplit_set(line[1], "\t ", 2);

        if (words[0] && *words[0] && words[1])
            add_routed(uses, words[0]);
    }
    for (char **line = lines6; *line; line++) {
        char *last = strrchr(g_strchomp(*line), ' ');

        if (last && !is_automatic(*line))
            add_routed(uses, last + 1);
    }
}

/* ---- Disks ---- */

/* A block device and what it is made of: slaves of a mapped device or RAID; with NVMe multipath, the paths of its head. */
static void add_block(GHashTable *uses, const char *name, const char *use, unsigned depth)
{
    g_autofree char *path = g_strdup_printf("/sys/class/block/%s", name);
    g_auto(GStrv) slaves = sysroot_list("%s/slaves", path);
    unsigned system, space;

    add_use(uses, path, use);
    for (char **slave = slaves; depth < STACK_MAX && *slave; slave++)
        add_block(uses, *slave, use, depth + 1);
    if (sscanf(name, "nvme%un%u", &system, &space) != 2 || depth >= STACK_MAX)
        return;

    g_auto(GStrv) all = sysroot_list("/sys/class/block");
    g_autofree char *prefix = g_strdup_printf("nvme%uc", system);
    g_autofree char *suffix = g_strdup_printf("n%u", space);

    for (char **other = all; *other; other++)
        if (g_str_has_prefix(*other, prefix) && g_str_has_suffix(*other, suffix)) {
            g_autofree char *way = g_strconcat("/sys/class/block/", *other, NULL);

            add_use(uses, way, use);
        }
}

static void add_used_block(GHashTable *uses, const char *name, const char *how)
{
    g_autofree char *shown = hvm_escape(name, -1);
    g_autofree char *use = g_strdup_printf("%s is %s", shown, how);

    add_block(uses, name, use, 0);
}

/* By number, and by name as well: file systems of several devices have a number of their own (btrfs). */
static void add_disks(GHashTable *uses)
{
    g_autofree char *mounts = sysroot_read(NULL, "/proc/self/mountinfo"), *swaps = sysroot_read(NULL, "/proc/swaps");
    g_autoptr(GHashTable) mounted = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_auto(GStrv) lines = g_strsplit(mounts ? mounts : "", "\n", -1), areas = g_strsplit(swaps ? swaps : "", "\n", -1);
    g_auto(GStrv) blocks = sysroot_list("/sys/class/block");

    for (char **line = lines; *line; line++) {
        g_auto(GStrv) words = g_strsplit(*line, " ", -1);
        const char *const *dash = (const char *const *)words;

        while (*dash && strcmp(*dash, "-") != 0)
            dash++;
        if (g_strv_length(words) > 2)
            g_hash_table_add(mounted, g_strdup(words[2]));
        if (*dash && dash[1] && dash[2])
            g_hash_table_add(mounted, g_strdup(dash[2]));
    }
    for (char **area = areas; *area; area++)
        g_hash_table_add(mounted, g_strndup(*area, strcspn(*area, " \t")));
    for (char **block = blocks; *block; block++) {
        g_autofree char *number = sysroot_read(NULL, "/sys/class/block/%s/dev", *block);
        g_autofree char *path = g_strconcat("/dev/", *block, NULL);
        g_auto(GStrv) holders = sysroot_list("/sys/class/block/%s/holders", *block);

        if ((number && g_hash_table_contains(mounted, number)) || g_hash_table_contains(mounted, path))
            add_used_block(uses, *block, "mounted or swapped to");
        else if (holders[0])
            add_used_block(uses, *block, "held by another block device");
    }
}

void host_read_live_uses(Host *host)
{
    g_autoptr(GHashTable) uses = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);

    add_routes(uses);
    add_disks(uses);
    for (guint i = 0; i < host->devices->len; i++) {
        HostDevice *device = g_ptr_array_index(host->devices, i);

        device->use = g_strdup(g_hash_table_lookup(uses, device->address));
    }
}
