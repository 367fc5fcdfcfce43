/*
 * host_made_up.h: made-up nodes for tests: a sysfs tree in a temporary folder, and edited captures of synthetic hosts.
 */
#pragma once

#include "host.h"
#include "sysroot.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- sysfs ---- */

typedef struct {
    char *root;
} Tree;

static G_GNUC_UNUSED void tree_put(Tree *tree, const char *path, const char *format, ...) G_GNUC_PRINTF(3, 4);
static G_GNUC_UNUSED void tree_put(Tree *tree, const char *path, const char *format, ...)
{
    g_autofree char *full = g_strconcat(tree->root, path, NULL);
    g_autofree char *folder = g_path_get_dirname(full);
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_assert_cmpint(g_mkdir_with_parents(folder, 0755), ==, 0);
    g_assert_true(g_file_set_contents(full, text, -1, NULL));
}

static G_GNUC_UNUSED void tree_link(Tree *tree, const char *path, const char *target)
{
    g_autofree char *full = g_strconcat(tree->root, path, NULL);
    g_autofree char *folder = g_path_get_dirname(full);

    g_assert_cmpint(g_mkdir_with_parents(folder, 0755), ==, 0);
    g_assert_cmpint(symlink(target, full), ==, 0);
}

static G_GNUC_UNUSED void remove_tree(const char *path)
{
    g_autoptr(GDir) dir = g_file_test(path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open(path, 0, NULL);

    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        g_autofree char *child = g_build_filename(path, name, NULL);

        remove_tree(child);
    }
    g_remove(path);
}

static G_GNUC_UNUSED void tree_cpu(Tree *tree, unsigned cpu, unsigned package, unsigned core, const char *threads,
                                   const char *siblings)
{
    g_autofree char *base = g_strdup_printf("/sys/devices/system/cpu/cpu%u/topology", cpu);
    g_autofree char *package_path = g_strconcat(base, "/physical_package_id", NULL);
    g_autofree char *core_path = g_strconcat(base, "/core_id", NULL);
    g_autofree char *threads_path = g_strconcat(base, "/thread_siblings", NULL);
    g_autofree char *siblings_path = g_strconcat(base, "/core_siblings", NULL);

    tree_put(tree, package_path, "%u\n", package);
    tree_put(tree, core_path, "%u\n", core);
    tree_put(tree, threads_path, "%s\n", threads);
    tree_put(tree, siblings_path, "%s\n", siblings);
}

static G_GNUC_UNUSED void tree_node(Tree *tree, unsigned node, const char *cpumap, unsigned total_mib,
                                    unsigned free_mib)
{
    g_autofree char *map = g_strdup_printf("/sys/devices/system/node/node%u/cpumap", node);
    g_autofree char *meminfo = g_strdup_printf("/sys/devices/system/node/node%u/meminfo", node);
    g_autofree char *distance = g_strdup_printf("/sys/devices/system/node/node%u/distance", node);

    tree_put(tree, map, "%s\n", cpumap);
    tree_put(tree, meminfo,
             "Node %u MemTotal:       %u kB\nNode %u MemFree:        %u kB\nNode %u MemUsed:  1 kB\n"
             "Node %u Active:         777 kB\nNode %u Active(file):   1024 kB\nNode %u Inactive(file): 2048 kB\n"
             "Node %u SReclaimable:   1024 kB\n",
             node, total_mib * 1024, node, free_mib * 1024, node, node, node, node, node);
    tree_put(tree, distance, "%s\n", node == 0 ? "10 21 31" : node == 1 ? "21 10 31" : "31 31 10");
}

static G_GNUC_UNUSED void tree_device(Tree *tree, const char *address, const char *class_code, const char *ids,
                                      int node)
{
    g_auto(GStrv) id = g_strsplit(ids, ":", 2);
    g_autofree char *base = g_strconcat("/sys/bus/pci/devices/", address, NULL);
    g_autofree char *class_path = g_strconcat(base, "/class", NULL);
    g_autofree char *vendor_path = g_strconcat(base, "/vendor", NULL);
    g_autofree char *device_path = g_strconcat(base, "/device", NULL);
    g_autofree char *node_path = g_strconcat(base, "/numa_node", NULL);

    tree_put(tree, class_path, "%s\n", class_code);
    tree_put(tree, vendor_path, "0x%s\n", id[0]);
    tree_put(tree, device_path, "0x%s\n", id[1]);
    tree_put(tree, node_path, "%d\n", node);
}

/* Two packages of two cores of two threads and a node each, CPU 7 offline; node 2 has memory alone. */
static G_GNUC_UNUSED void tree_make_node(Tree *tree)
{
    static const char *const threads[] = {"11", "22", "44", "08"};

    tree->root = g_dir_make_tmp("hvm-sys-XXXXXX", NULL);
    tree_put(tree, "/sys/devices/system/cpu/online", "0-6\n");
    tree_put(tree, "/sys/devices/system/cpu/possible", "0-7\n");
    for (unsigned cpu = 0; cpu < 7; cpu++)
        tree_cpu(tree, cpu, cpu % 4 / 2, cpu % 2, threads[cpu % 4], cpu % 4 / 2 ? "4c" : "33");
    tree_put(tree, "/sys/devices/system/cpu/cpu7/online", "0\n");
    tree_put(tree, "/sys/devices/system/cpu/isolated", "2-3\n");
    tree_put(tree, "/sys/devices/system/cpu/nohz_full", "5,7\n");
    tree_put(tree, "/sys/devices/system/node/online", "0-2\n");
    tree_put(tree, "/sys/devices/system/node/possible", "0-2\n");
    tree_node(tree, 0, "33", 1024, 512);
    tree_node(tree, 1, "cc", 2048, 100);
    tree_node(tree, 2, "00", 4096, 4096);
    tree_put(tree, "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "128\n");
    tree_put(tree, "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "28\n");
    tree_put(tree, "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "0\n");
    tree_put(tree, "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "0\n");
    tree_put(tree, "/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages", "1\n");
    tree_put(tree, "/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/free_hugepages", "1\n");
    tree_put(tree, "/proc/hwloc-nofile-info", "OSName: Linux\nArchitecture: x86_64\n");
    tree_put(tree, "/proc/cpuinfo",
             "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 7742 64-Core Processor   \n\n");
}

static G_GNUC_UNUSED void tree_end(Tree *tree)
{
    sysroot_set(NULL);
    remove_tree(tree->root);
    g_free(tree->root);
}

/* ---- Files ---- */

static G_GNUC_UNUSED char *replace(const char *text, const char *old, const char *new)
{
    g_auto(GStrv) parts = g_strsplit(text, old, -1);

    g_assert_cmpuint(g_strv_length(parts), >, 1); /* a test which replaces nothing tests nothing */
    return g_strjoinv(new, parts);
}

/* The capture of a synthetic host as text. */
static G_GNUC_UNUSED char *capture_text(const char *where)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Host) host = host_new_from(where, &error);
    g_autofree char *path = NULL;
    char *text = NULL;
    int fd = g_file_open_tmp("hvm-host-XXXXXX", &path, NULL);

    g_assert_no_error(error);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
    host_capture(host, path, &error);
    g_assert_no_error(error);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_unlink(path);
    return text;
}

static G_GNUC_UNUSED Host *load_text(const char *text, gssize length, GError **error)
{
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("hvm-host-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    g_assert_true(g_file_set_contents(path, text, length, NULL));
    Host *host = host_new_from(path, error);

    g_unlink(path);
    return host;
}
