#include "host.h"
#include "host_made_up.h"
#include "hvm_error.h"
#include "sysroot.h"
#include "units.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const char *const synthetic[] = {
    "synthetic:package:1 core:2 pu:1",
    "synthetic:package:2 numa:1(memory=64GB) l3:1 core:8 pu:2",
    "synthetic:package:2 numa:4(memory=32GB) l3:2 core:8 pu:2",
    "synthetic:package:2 numa:3(memory=100GB) core:19 pu:2",
    "synthetic:numa:2 pu:4",
    "synthetic:pu:1",
    "synthetic:package:1 [numa(memory=480GB)] [numa(memory=96GB)] l3:1 core:72 pu:1",
    "synthetic:group:2 package:2 numa:2(memory=16GB) l3:4 core:16 pu:2",
    "synthetic:package:8 l3:4 core:16 pu:2",
};

/* Files of recorded machines, or NULL. */
static GPtrArray *recorded_hosts(void)
{
    const char *folder = g_getenv("HVM_TEST_HOSTS");
    g_autoptr(GDir) dir = folder ? g_dir_open(folder, 0, NULL) : NULL;
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);

    for (const char *name; dir && (name = g_dir_read_name(dir));)
        if (g_str_has_suffix(name, ".xml"))
            g_ptr_array_add(paths, g_build_filename(folder, name, NULL));
    return paths->len ? g_steal_pointer(&paths) : NULL;
}

static void assert_equal_nodes(const HostNode *a, const HostNode *b)
{
    g_assert_cmpuint(a->node, ==, b->node);
    g_assert_cmpuint(a->memory_bytes, ==, b->memory_bytes);
    g_assert_true(hwloc_bitmap_isequal(a->pus, b->pus));
    g_assert_cmpstr(a->kind, ==, b->kind);
    g_assert_cmpint(a->general_purpose, ==, b->general_purpose);
    g_assert_cmpuint(a->pages->len, ==, b->pages->len);
    for (guint i = 0; i < a->pages->len; i++) {
        const HostPages *x = &g_array_index(a->pages, HostPages, i), *y = &g_array_index(b->pages, HostPages, i);

        g_assert_cmpuint(x->page_bytes, ==, y->page_bytes);
        g_assert_cmpuint(x->total, ==, y->total);
        g_assert_cmpuint(x->free, ==, y->free);
        g_assert_cmpint(x->free_known, ==, y->free_known);
    }
}

static void assert_equal_devices(const HostDevice *a, const HostDevice *b)
{
    g_assert_cmpstr(a->address, ==, b->address);
    g_assert_cmpuint(a->vendor_id, ==, b->vendor_id);
    g_assert_cmpuint(a->device_id, ==, b->device_id);
    g_assert_cmpuint(a->class_code, ==, b->class_code);
    g_assert_cmpint(a->node, ==, b->node);
    g_assert_cmpint(a->iommu_group, ==, b->iommu_group);
    g_assert_cmpstr(a->driver, ==, b->driver);
    g_assert_cmpstr(a->physical, ==, b->physical);
    g_assert_cmpuint(a->vfs_total, ==, b->vfs_total);
    g_assert_cmpuint(a->vfs_enabled, ==, b->vfs_enabled);
    g_assert_cmpstr(a->interface, ==, b->interface);
    g_assert_cmpstr(a->vendor_name, ==, b->vendor_name);
    g_assert_cmpstr(a->device_name, ==, b->device_name);
    g_assert_cmpstr(a->use, ==, b->use);
}

/* All but where they came from. */
static void assert_equal_hosts(const Host *a, const Host *b)
{
    int last = hwloc_bitmap_last(a->usable_pus);

    g_assert_true(hwloc_bitmap_isequal(a->usable_pus, b->usable_pus));
    g_assert_true(hwloc_bitmap_isequal(a->isolated, b->isolated));
    g_assert_cmpuint(a->smt, ==, b->smt);
    g_assert_cmpstr(a->cpu_model, ==, b->cpu_model);
    g_assert_cmpstr(a->cpu_vendor, ==, b->cpu_vendor);
    g_assert_cmpuint(a->nodes->len, ==, b->nodes->len);
    for (guint i = 0; i < a->nodes->len; i++)
        assert_equal_nodes(g_ptr_array_index(a->nodes, i), g_ptr_array_index(b->nodes, i));
    g_assert_cmpuint(a->devices->len, ==, b->devices->len);
    for (guint i = 0; i < a->devices->len; i++)
        assert_equal_devices(g_ptr_array_index(a->devices, i), g_ptr_array_index(b->devices, i));
    for (int pu = 0; pu <= last; pu++) {
        hwloc_obj_t core_a = host_core_of(a, (unsigned)pu), core_b = host_core_of(b, (unsigned)pu);
        hwloc_obj_t l3_a = host_l3_of(a, (unsigned)pu), l3_b = host_l3_of(b, (unsigned)pu);

        g_assert_cmpint(core_a ? (int)core_a->logical_index : -1, ==, core_b ? (int)core_b->logical_index : -1);
        g_assert_cmpint(l3_a ? (int)l3_a->logical_index : -1, ==, l3_b ? (int)l3_b->logical_index : -1);
    }
}

/* Captures, loads, compares, captures again: the same bytes. */
static void check_round_trip(const Host *host)
{
    g_autofree char *folder = g_dir_make_tmp("hvm-host-XXXXXX", NULL);
    g_autofree char *first = g_build_filename(folder, "first.xml", NULL);
    g_autofree char *second = g_build_filename(folder, "second.xml", NULL);
    g_autofree char *text = NULL, *again = NULL;
    g_autoptr(GError) error = NULL;

    host_capture(host, first, &error);
    g_assert_no_error(error);
    g_autoptr(Host) back = host_new_from(first, &error);
    g_assert_no_error(error);
    g_assert_cmpint(back->origin, ==, HOST_CAPTURED);
    g_assert_cmpstr(back->description, ==, first);
    assert_equal_hosts(host, back);
    host_capture(back, second, &error);
    g_assert_no_error(error);
    g_assert_true(g_file_get_contents(first, &text, NULL, NULL));
    g_assert_true(g_file_get_contents(second, &again, NULL, NULL));
    if (strcmp(text, again) != 0)
        g_error("captured again, it differs:\n%s\n%s", text, again);
    g_unlink(first);
    g_unlink(second);
    g_rmdir(folder);
}

/* What holds for every host. */
static void check_properties(const Host *host)
{
    hwloc_bitmap_t local = hwloc_bitmap_alloc();
    hwloc_bitmap_t outside = hwloc_bitmap_alloc();
    int last = hwloc_bitmap_last(host->usable_pus);
    unsigned homes = 0;

    g_assert_cmpint(last, >=, 0);
    g_assert_true(hwloc_bitmap_isincluded(host->usable_pus, hwloc_topology_get_allowed_cpuset(host->topology)));
    g_assert_true(hwloc_bitmap_isincluded(host->isolated, host->usable_pus));
    g_assert_cmpuint(host->nodes->len, >, 0);
    for (guint i = 0; i < host->nodes->len; i++) {
        const HostNode *node = g_ptr_array_index(host->nodes, i);
        guint64 sum = 0;

        g_assert_true(host_find_node(host, node->node) == node);
        if (i)
            g_assert_cmpuint(((HostNode *)g_ptr_array_index(host->nodes, i - 1))->node, <, node->node);
        hwloc_bitmap_or(local, local, node->pus);
        if (node->general_purpose)
            g_assert_false(hwloc_bitmap_iszero(node->pus));
        g_assert_cmpuint(node->pages->len, >=, 1);
        g_assert_cmpuint(g_array_index(node->pages, HostPages, 0).page_bytes, ==, 4096);
        for (guint j = 0; j < node->pages->len; j++) {
            const HostPages *pages = &g_array_index(node->pages, HostPages, j);

            if (j)
                g_assert_cmpuint(pages[-1].page_bytes, <, pages->page_bytes);
            if (pages->total == HOST_BYTES_UNKNOWN) {
                g_assert_cmpuint(node->memory_bytes, ==, HOST_BYTES_UNKNOWN);
                continue;
            }
            g_assert_cmpuint(pages->free, <=, pages->total);
            if (!pages->free_known)
                g_assert_cmpuint(pages->free, ==, pages->total);
            sum += pages->total * pages->page_bytes;
        }
        if (node->memory_bytes != HOST_BYTES_UNKNOWN) {
            g_assert_cmpuint(sum, <=, node->memory_bytes);
            g_assert_cmpuint(node->memory_bytes - sum, <, 4096);
        }
    }
    g_assert_true(hwloc_bitmap_isequal(local, host->usable_pus));
    for (int pu = 0; pu <= last + 1; pu++) {
        const HostNode *home = host_home_node(host, (unsigned)pu);
        hwloc_obj_t core = host_core_of(host, (unsigned)pu);

        g_assert_cmpint(home != NULL, ==, hwloc_bitmap_isset(host->usable_pus, (unsigned)pu));
        g_assert_cmpint(core != NULL, ==, home != NULL);
        if (!home)
            continue;
        homes++;
        g_assert_true(hwloc_bitmap_isset(home->pus, (unsigned)pu));
        g_assert_true(hwloc_bitmap_isset(core->cpuset, (unsigned)pu));
        hwloc_bitmap_and(outside, core->cpuset, host->usable_pus);
        g_assert_cmpint(hwloc_bitmap_weight(outside), <=, (int)host->smt);
    }
    g_assert_cmpuint(homes, ==, (unsigned)hwloc_bitmap_weight(host->usable_pus));
    g_assert_null(host_home_node(host, 1000000));
    for (guint i = 0; i < host->devices->len; i++) {
        const HostDevice *device = g_ptr_array_index(host->devices, i);

        g_assert_true(host_find_device(host, device->address) == device);
        g_assert_true(device->node == -1 || host_find_node(host, (unsigned)device->node));
        g_assert_cmpuint(device->vfs_enabled, <=, device->vfs_total);
    }
    hwloc_bitmap_free(local);
    hwloc_bitmap_free(outside);
}

static void test_synthetic(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(synthetic); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(Host) host = host_new_from(synthetic[i], &error);

        g_test_message("%s", synthetic[i]);
        g_assert_no_error(error);
        g_assert_cmpint(host->origin, ==, HOST_SYNTHETIC);
        check_properties(host);
        check_round_trip(host);
    }
}

/* What is known of some of them. */
static void check_recorded(const Host *host, const char *path)
{
    if (g_str_has_suffix(path, "64intel64-fakeKNL-SNC4-hybrid.xml")) {
        g_assert_cmpuint(host_home_node(host, 0)->node, ==, 0);
        g_assert_cmpuint(host_home_node(host, 63)->node, ==, 3);
        g_assert_cmpstr(host_find_node(host, 7)->kind, ==, "MCDRAM"); /* beside node 0 */
        g_assert_true(hwloc_bitmap_isequal(host_find_node(host, 7)->pus, host_find_node(host, 0)->pus));
        g_assert_false(host_find_node(host, 7)->general_purpose);
        g_assert_cmpuint(host->smt, ==, 4);
    } else if (g_str_has_suffix(path, "32em64t-2n8c2t-pci-wholeio.xml")) {
        g_assert_cmpuint(host->devices->len, ==, 10);
        /* named twice in that file, once without an interface */
        g_assert_cmpstr(host_find_device(host, "0000:04:00.0")->interface, ==, "ib0");
        g_assert_cmpint(host_find_device(host, "0000:04:00.0")->node, ==, 1);
        g_assert_cmpuint(host_find_device(host, "0000:03:00.0")->class_code, ==, 0x030200);
        g_assert_cmpint(host_find_device(host, "0000:03:00.0")->node, ==, 0);
        g_assert_cmpstr(host->cpu_model, ==, "Intel(R) Xeon(R) CPU E5-2650 0 @ 2.00GHz");
    } else if (g_str_has_suffix(path, "16-2gr2gr2n2c+misc.xml")) {
        g_assert_cmpuint(host->nodes->len, ==, 8);
        g_assert_cmpuint(host_home_node(host, 15)->node, ==, 7);
        g_assert_null(host_l3_of(host, 0));
    }
}

static void test_recorded(void)
{
    g_autoptr(GPtrArray) paths = recorded_hosts();

    if (!paths) {
        g_test_skip("no recorded machines: set HVM_TEST_HOSTS to a folder with hwloc XML exports");
        return;
    }
    for (guint i = 0; i < paths->len; i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(Host) host = host_new_from(g_ptr_array_index(paths, i), &error);

        g_test_message("%s", (char *)g_ptr_array_index(paths, i));
        g_assert_no_error(error);
        g_assert_cmpint(host->origin, ==, HOST_XML);
        check_properties(host);
        check_recorded(host, g_ptr_array_index(paths, i));
        check_round_trip(host);
    }
}

static void test_live(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Host) host = host_new_live(&error);

    g_assert_no_error(error);
    g_assert_cmpint(host->origin, ==, HOST_LIVE);
    check_properties(host);
    check_round_trip(host);
    for (int i = 0; i < 3; i++) {
        g_autoptr(Host) next = host_refresh(host, &error);

        g_assert_no_error(error);
        g_assert_true(next->topology == host->topology);
        check_properties(next);
        host_unref(host);
        host = g_steal_pointer(&next);
    }
    check_round_trip(host);
}

/* ---- A made-up sysfs ---- */

static void tree_add_devices(Tree *tree)
{
    /* in no order */
    tree_device(tree, "10000:e1:00.0", "0x010802", "8086:0a54", 1);
    tree_device(tree, "0000:80:01.0", "0x060400", "8086:2030", 1);
    tree_device(tree, "0000:81:00.0", "0x020700", "15b3:1017", 1);
    tree_put(tree, "/sys/bus/pci/devices/0000:81:00.0/sriov_totalvfs", "8\n");
    tree_put(tree, "/sys/bus/pci/devices/0000:81:00.0/sriov_numvfs", "2\n");
    tree_put(tree, "/sys/bus/pci/devices/0000:81:00.0/net/ib0/mtu", "2044\n");
    tree_put(tree, "/sys/bus/pci/devices/0000:81:00.0/infiniband/mlx5_0/node_guid", "0\n");
    tree_link(tree, "/sys/bus/pci/devices/0000:81:00.0/driver", "../../../../bus/pci/drivers/mlx5_core");
    tree_link(tree, "/sys/bus/pci/devices/0000:81:00.0/iommu_group", "../../../../kernel/iommu_groups/44");
    tree_device(tree, "0000:81:00.1", "0x020700", "15b3:1018", 1);
    tree_put(tree, "/sys/bus/pci/devices/0000:81:00.1/infiniband/mlx5_2/node_guid", "0\n");
    tree_link(tree, "/sys/bus/pci/devices/0000:81:00.1/physfn", "../0000:81:00.0");
    tree_link(tree, "/sys/bus/pci/devices/0000:81:00.1/driver", "../../../../bus/pci/drivers/a%20 driver");
    tree_device(tree, "0000:03:00.0", "0x020000", "1af4:1041", -1);
    tree_put(tree, "/sys/bus/pci/devices/0000:03:00.0/virtio0/net/eth0/mtu", "1500\n");
    tree_device(tree, "0000:04:00.0", "0x030200", "10de:20b0", 7);
    tree_put(tree, "/sys/bus/pci/devices/not an address/class", "0x020000\n");
}

static char *format_pages(const HostNode *node)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < node->pages->len; i++) {
        const HostPages *pages = &g_array_index(node->pages, HostPages, i);

        g_string_append_printf(text, "%s%" G_GUINT64_FORMAT "=%" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT, i ? " " : "",
                               pages->page_bytes, pages->total, pages->free);
    }
    return g_string_free(text, FALSE);
}

static void assert_list(hwloc_const_bitmap_t bitmap, const char *wanted)
{
    g_autofree char *text = host_format_list(bitmap);

    g_assert_cmpstr(text, ==, wanted);
}

static void assert_pages(const Host *host, unsigned node, const char *wanted)
{
    g_autofree char *text = format_pages(host_find_node(host, node));

    g_assert_cmpstr(text, ==, wanted);
}

static void test_sysfs(void)
{
    Tree tree;
    g_autoptr(GError) error = NULL;

    tree_make_node(&tree);
    sysroot_set(tree.root);
    g_autoptr(Host) host = host_new_live(&error);

    g_assert_no_error(error);
    check_properties(host);
    assert_list(host->usable_pus, "0-6");
    assert_list(host->isolated, "2-3,5");
    g_assert_cmpuint(host->smt, ==, 2);
    g_assert_cmpuint(host->nodes->len, ==, 3);
    assert_list(host_find_node(host, 0)->pus, "0-1,4-5");
    assert_list(host_find_node(host, 1)->pus, "2-3,6");
    assert_list(host_find_node(host, 2)->pus, "");
    g_assert_true(host_find_node(host, 1)->general_purpose);
    g_assert_false(host_find_node(host, 2)->general_purpose);
    g_assert_cmpuint(host_find_node(host, 1)->memory_bytes, ==, 2 * HVM_GIB);
    /* 1024 - 256 MiB in base pages; 512 + 4 MiB of them free */
    assert_pages(host, 0, "4096=196608:132096 2097152=128:28");
    assert_pages(host, 1, "4096=262144:26624 2097152=0:0 1073741824=1:1");
    assert_pages(host, 2, "4096=1048576:1048576");
    g_assert_null(host_node_pages(host_find_node(host, 0), HVM_GIB));
    g_assert_cmpuint(host_node_pages(host_find_node(host, 1), HVM_GIB)->free, ==, 1);
    g_assert_cmpstr(host->cpu_model, ==, "AMD EPYC 7742 64-Core Processor");
    g_assert_cmpstr(host->cpu_vendor, ==, "AuthenticAMD");
    g_assert_true(host_core_of(host, 0) == host_core_of(host, 4));
    g_assert_true(host_core_of(host, 0) != host_core_of(host, 1));
    g_assert_cmpuint(host->devices->len, ==, 0);
    check_round_trip(host);

    /* what changes between two placements */
    tree_put(&tree, "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "20\n");
    tree_put(&tree, "/sys/devices/system/cpu/online", "0-5\n");
    tree_put(&tree, "/sys/devices/system/cpu/nohz_full", "(null)\n");
    g_autoptr(Host) later = host_refresh(host, &error);

    g_assert_no_error(error);
    check_properties(later);
    assert_list(later->usable_pus, "0-5");
    assert_list(later->isolated, "2-3");
    assert_pages(later, 0, "4096=196608:132096 2097152=128:20");
    assert_pages(host, 0, "4096=196608:132096 2097152=128:28");
    g_assert_null(host_home_node(later, 6));
    g_assert_nonnull(host_home_node(host, 6));
    tree_end(&tree);
}

static void test_sysfs_devices(void)
{
    static const char *const addresses[] = {"0000:03:00.0", "0000:04:00.0", "0000:81:00.0", "0000:81:00.1",
                                            "10000:e1:00.0"};
    Tree tree;
    g_autoptr(GError) error = NULL;

    tree_make_node(&tree);
    tree_add_devices(&tree);
    sysroot_set(tree.root);
    g_autoptr(Host) host = host_new_live(&error);

    g_assert_no_error(error);
    check_properties(host);
    g_assert_cmpuint(host->devices->len, ==, G_N_ELEMENTS(addresses));
    for (gsize i = 0; i < G_N_ELEMENTS(addresses); i++)
        g_assert_cmpstr(((HostDevice *)g_ptr_array_index(host->devices, i))->address, ==, addresses[i]);

    const HostDevice *pf = host_find_device(host, "0000:81:00.0"), *vf = host_find_device(host, "0000:81:00.1");
    const HostDevice *virtio = host_find_device(host, "0000:03:00.0"), *gpu = host_find_device(host, "0000:04:00.0");

    g_assert_cmpuint(pf->class_code, ==, 0x020700);
    g_assert_cmpuint(pf->vendor_id, ==, 0x15b3);
    g_assert_cmpuint(pf->device_id, ==, 0x1017);
    g_assert_cmpint(pf->node, ==, 1);
    g_assert_cmpint(pf->iommu_group, ==, 44);
    g_assert_cmpstr(pf->driver, ==, "mlx5_core");
    g_assert_null(pf->physical);
    g_assert_cmpuint(pf->vfs_total, ==, 8);
    g_assert_cmpuint(pf->vfs_enabled, ==, 2);
    g_assert_cmpstr(pf->interface, ==, "ib0");
    g_assert_cmpstr(vf->physical, ==, "0000:81:00.0");
    g_assert_cmpstr(vf->interface, ==, "mlx5_2");
    g_assert_cmpstr(vf->driver, ==, "a%20 driver");
    g_assert_cmpint(vf->iommu_group, ==, -1);
    g_assert_cmpstr(virtio->interface, ==, "eth0");
    g_assert_cmpint(virtio->node, ==, -1);
    g_assert_null(virtio->driver);
    g_assert_cmpint(gpu->node, ==, -1); /* sysfs names a node that is not there */
    check_round_trip(host);
    tree_end(&tree);
}

static void tree_put_use(Tree *tree)
{
    tree_put(tree, "/sys/devices/pci0000:00/0000:00:01.0/0000:03:00.0/virtio0/net/eth0/mtu", "1500\n");
    tree_link(tree, "/sys/class/net/eth0", "../../devices/pci0000:00/0000:00:01.0/0000:03:00.0/virtio0/net/eth0");
    tree_put(tree, "/sys/devices/virtual/net/br0/mtu", "1500\n");
    tree_link(tree, "/sys/devices/virtual/net/br0/lower_eth0", "../../../pci0000:00/0000:00:01.0/0000:03:00.0/virtio0/net/eth0");
    tree_link(tree, "/sys/class/net/br0", "../../devices/virtual/net/br0");
    tree_put(tree, "/sys/devices/pci0000:80/0000:81:00.0/net/ib0/mtu", "2044\n");
    tree_link(tree, "/sys/class/net/ib0", "../../devices/pci0000:80/0000:81:00.0/net/ib0");
    tree_put(tree, "/proc/net/route", "Iface\tDestination\tGateway\nbr0\t00000000\t0100A8C0\n");
    tree_put(tree, "/proc/net/ipv6_route",
             "fe800000000000000000000000000000 40 0000 00 0000 00000100 00000001 00000000 00000001      ib0\n"
             "ff000000000000000000000000000000 08 0000 00 0000 00000100 00000001 00000000 00000001      ib0\n");
    tree_put(tree, "/sys/devices/pci10000:e0/10000:e1:00.0/nvme/nvme0/nvme0n1/nvme0n1p2/dev", "259:2\n");
    tree_link(tree, "/sys/class/block/nvme0n1p2", "../../devices/pci10000:e0/10000:e1:00.0/nvme/nvme0/nvme0n1/nvme0n1p2");
    tree_put(tree, "/sys/devices/virtual/block/dm-0/dev", "253:0\n");
    tree_link(tree, "/sys/devices/virtual/block/dm-0/slaves/nvme0n1p2", "../../../../x");
    tree_link(tree, "/sys/class/block/dm-0", "../../devices/virtual/block/dm-0");
    tree_put(tree, "/proc/self/mountinfo", "22 1 253:0 / / rw - xfs /dev/mapper/root rw\n23 1 0:5 / /dev rw - devtmpfs udev rw\n");
}

/* A bridge's port and the disk below a mapped one are the node's own; link-local addresses make no interface so. */
static void test_uses(void)
{
    Tree tree;
    g_autoptr(GError) error = NULL;

    tree_make_node(&tree);
    tree_add_devices(&tree);
    tree_put_use(&tree);
    sysroot_set(tree.root);
    g_autoptr(Host) host = host_new_live(&error);

    g_assert_no_error(error);
    g_assert_cmpstr(host_find_device(host, "0000:03:00.0")->use, ==, "a route of it goes through br0");
    g_assert_cmpstr(host_find_device(host, "10000:e1:00.0")->use, ==, "dm-0 is mounted or swapped to");
    g_assert_null(host_find_device(host, "0000:81:00.0")->use);
    g_assert_null(host_find_device(host, "0000:04:00.0")->use);
    check_round_trip(host);
    tree_put(&tree, "/proc/net/ipv6_route", "20010db8000000000000000000000000 40 0 00 0 0 1 0 1      ib0\n");
    g_autoptr(Host) routed = host_refresh(host, &error);

    g_assert_no_error(error);
    g_assert_cmpstr(host_find_device(routed, "0000:81:00.0")->use, ==, "a route of it goes through ib0");
    tree_end(&tree);
}

/* A kernel without NUMA: no node folder. */
static void test_sysfs_without_numa(void)
{
    Tree tree = {g_dir_make_tmp("hvm-sys-XXXXXX", NULL)};
    g_autoptr(GError) error = NULL;

    tree_put(&tree, "/sys/devices/system/cpu/online", "0-1\n");
    tree_put(&tree, "/sys/devices/system/cpu/possible", "0-1\n");
    tree_cpu(&tree, 0, 0, 0, "1", "3");
    tree_cpu(&tree, 1, 0, 1, "2", "3");
    tree_put(&tree, "/proc/meminfo", "MemTotal:  1048576 kB\nMemFree:  524288 kB\nMemAvailable: 600000 kB\n");
    tree_put(&tree, "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "10\n");
    tree_put(&tree, "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "9\n");
    sysroot_set(tree.root);
    g_autoptr(Host) host = host_new_live(&error);

    g_assert_no_error(error);
    check_properties(host);
    assert_list(host->usable_pus, "0-1");
    assert_pages(host, 0, "4096=257024:131072 2097152=10:9");
    check_round_trip(host);
    tree_end(&tree);
}

/* ---- Files ---- */

static void test_allowed(void)
{
    g_autofree char *text = capture_text("synthetic:package:2 numa:2(memory=1GB) core:2 pu:2");
    g_autofree char *some_pus = replace(text, "allowed_cpuset=\"0x0000ffff\"", "allowed_cpuset=\"0x0000077a\"");
    g_autofree char *some = replace(some_pus, "allowed_nodeset=\"0x0000000f\"", "allowed_nodeset=\"0x0000000d\"");
    g_autofree char *none = replace(text, "allowed_nodeset=\"0x0000000f\"", "allowed_nodeset=\"0x00000010\"");
    g_autoptr(GError) error = NULL;
    g_autoptr(Host) host = load_text(some, -1, &error);

    g_assert_no_error(error);
    check_properties(host);
    /* node 1 (PUs 4-7) may not be used, so neither may its PUs: their memory would be elsewhere */
    assert_list(host->usable_pus, "1,3,8-10");
    g_assert_cmpuint(host->nodes->len, ==, 3);
    g_assert_null(host_find_node(host, 1));
    assert_list(host_find_node(host, 0)->pus, "1,3");
    assert_list(host_find_node(host, 2)->pus, "8-10");
    g_assert_false(host_find_node(host, 3)->general_purpose);
    g_assert_cmpuint(host->smt, ==, 2);
    g_assert_cmpint(hwloc_bitmap_weight(host_core_of(host, 1)->cpuset), ==, 2); /* the whole core is shown */
    check_round_trip(host);

    g_autoptr(Host) nowhere = load_text(none, -1, &error);

    g_assert_null(nowhere);
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
}

/* Two kinds of memory beside the same PUs, and a node over all of them. */
static void test_kinds(void)
{
    g_autofree char *text = capture_text("synthetic:package:2 [numa(memory=2GB)] [numa(memory=1GB)] core:2 pu:1");
    static const struct {
        const char *kinds[4]; /* by os_index: 0 and 1 are beside the first package */
        unsigned general, home;
    } cases[] = {
        {{"", "MCDRAM", "", "MCDRAM"}, 0x5, 0},
        {{"MCDRAM", "", "MCDRAM", ""}, 0xa, 1},
        {{"HBM", "HBM", "HBM", "HBM"}, 0xf, 0},
        {{"DRAM", "GPUMemory", "DRAM", "NVM"}, 0x5, 0},
        {{"GPUMemory", "HBM", "", ""}, 0xe, 1},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *edited = g_strdup(text);
        g_autoptr(GError) error = NULL;

        for (unsigned node = 0; node < 4; node++) {
            g_autofree char *old = g_strdup_printf("type=\"NUMANode\" os_index=\"%u\"", node);
            g_autofree char *new = g_strdup_printf("%s subtype=\"%s\"", old, cases[i].kinds[node]);
            char *next = *cases[i].kinds[node] ? replace(edited, old, new) : g_strdup(edited);

            g_free(edited);
            edited = next;
        }
        g_autoptr(Host) host = load_text(edited, -1, &error);

        g_assert_no_error(error);
        check_properties(host);
        for (unsigned node = 0; node < 4; node++) {
            const char *kind = *cases[i].kinds[node] ? cases[i].kinds[node] : NULL;

            g_assert_cmpstr(host_find_node(host, node)->kind, ==, kind);
            g_assert_cmpint(host_find_node(host, node)->general_purpose, ==, cases[i].general >> node & 1);
            assert_list(host_find_node(host, node)->pus, node < 2 ? "0-1" : "2-3");
        }
        g_assert_cmpuint(host_home_node(host, 0)->node, ==, cases[i].home);
        check_round_trip(host);
    }
}

/* A plain export to which somebody added pools by hand; the rest is hwloc's. */
static void test_by_hand(void)
{
    static const char *const text =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
        "<topology version=\"2.0\"><object type=\"Machine\" os_index=\"0\" cpuset=\"0xf\" complete_cpuset=\"0xf\""
        " allowed_cpuset=\"0xf\" nodeset=\"0x3\" complete_nodeset=\"0x3\" allowed_nodeset=\"0x3\">"
        "<info name=\"hvm.device.0000:41:00.1\" value=\"class=0x020700 id=15b3:1014 node=1 group=7 vfs=1/8 "
        "driver=mlx5_core"
        " physical=0000:41:00.0 interface=ib0 vendor=A%20B\"/>"
        "<object type=\"Package\" os_index=\"0\" cpuset=\"0x3\" complete_cpuset=\"0x3\" nodeset=\"0x1\""
        " complete_nodeset=\"0x1\"><object type=\"NUMANode\" os_index=\"0\" cpuset=\"0x3\" complete_cpuset=\"0x3\""
        " nodeset=\"0x1\" complete_nodeset=\"0x1\" local_memory=\"1073741824\">"
        "<info name=\"hvm.pages.2097152\" value=\"256:200\"/></object>"
        "<object type=\"PU\" os_index=\"0\" cpuset=\"0x1\" complete_cpuset=\"0x1\" nodeset=\"0x1\""
        " complete_nodeset=\"0x1\"/><object type=\"PU\" os_index=\"1\" cpuset=\"0x2\" complete_cpuset=\"0x2\""
        " nodeset=\"0x1\" complete_nodeset=\"0x1\"/></object>"
        "<object type=\"Package\" os_index=\"1\" cpuset=\"0xc\" complete_cpuset=\"0xc\" nodeset=\"0x2\""
        " complete_nodeset=\"0x2\"><object type=\"NUMANode\" os_index=\"1\" cpuset=\"0xc\" complete_cpuset=\"0xc\""
        " nodeset=\"0x2\" complete_nodeset=\"0x2\" local_memory=\"0\"><page_type size=\"4096\" count=\"0\"/>"
        "<page_type size=\"2097152\" count=\"64\"/></object>"
        "<object type=\"PU\" os_index=\"2\" cpuset=\"0x4\" complete_cpuset=\"0x4\" nodeset=\"0x2\""
        " complete_nodeset=\"0x2\"/><object type=\"PU\" os_index=\"3\" cpuset=\"0x8\" complete_cpuset=\"0x8\""
        " nodeset=\"0x2\" complete_nodeset=\"0x2\"/></object></object></topology>\n";
    g_autoptr(GError) error = NULL;
    g_autoptr(Host) host = load_text(text, -1, &error);

    g_assert_no_error(error);
    g_assert_cmpint(host->origin, ==, HOST_XML);
    assert_pages(host, 0, "4096=131072:131072 2097152=256:200");
    assert_pages(host, 1, "4096=18446744073709551615:18446744073709551615 2097152=64:64");
    g_assert_cmpuint(host_find_node(host, 1)->memory_bytes, ==, HOST_BYTES_UNKNOWN);
    g_assert_true(host_node_pages(host_find_node(host, 0), 2 * HVM_MIB)->free_known);
    g_assert_false(host_node_pages(host_find_node(host, 1), 2 * HVM_MIB)->free_known);
    const HostDevice *device = host_find_device(host, "0000:41:00.1");

    g_assert_nonnull(device);
    g_assert_cmpint(device->iommu_group, ==, 7);
    g_assert_cmpuint(device->vfs_enabled, ==, 1);
    g_assert_cmpstr(device->physical, ==, "0000:41:00.0");
    g_assert_cmpstr(device->vendor_name, ==, "A B");
    g_assert_cmpint(host_core_of(host, 0)->type, ==, HWLOC_OBJ_PU); /* no cores told */
    g_assert_null(host_l3_of(host, 0));
    check_round_trip(host);
}

static void assert_refused(const char *text, gssize length, const char *reason)
{
    g_autoptr(GError) error = NULL;
    Host *host = load_text(text, length, &error);

    g_assert_null(host);
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
    if (!strstr(error->message, reason))
        g_error("refused with '%s', wanted '%s' in it", error->message, reason);
    g_assert_null(strchr(error->message, '\n'));
    g_assert_cmpuint(strlen(error->message), <, 500);
}

static void test_bad_files(void)
{
    g_autofree char *good = capture_text("synthetic:package:2 numa:1(memory=1GiB) core:2 pu:1");
    static const struct {
        const char *old, *new, *reason;
    } edits[] = {
        {"hvm.format\" value=\"1", "hvm.format\" value=\"2", "format '2'"},
        {"hvm.isolated\" value=\"", "hvm.isolated\" value=\"1-x", "hvm.isolated: wanted a list"},
        {"hvm.memory\" value=\"1073741824", "hvm.memory\" value=\"-1", "NUMA node 0: bad hvm.memory '-1'"},
        {"262144:unknown", "262144", "bad hvm.pages.4096 '262144'"},
        {"262144:unknown", "262144:262145", "bad hvm.pages.4096"},
        {"262144:unknown", "9223372036854775807:1", "bad hvm.pages.4096"},
        {"hvm.pages.4096", "hvm.pages.5000", "bad hvm.pages.5000"},
        {"<info name=\"hvm.format\"", "<info name=\"hvm.device.x\" value=\"\"/><info name=\"hvm.format\"",
         "hvm.device.x"},
        {"<info name=\"hvm.format\"",
         "<info name=\"hvm.device.0000:00:01.0\" value=\"node=7\"/><info name=\"hvm.format\"", "'node=7'"},
        {"<info name=\"hvm.format\"",
         "<info name=\"hvm.device.0000:00:01.0\" value=\"vfs=9/8\"/><info name=\"hvm.format\"", "'vfs=9/8'"},
        {"<info name=\"hvm.format\"",
         "<info name=\"hvm.device.0000:00:01.0\" value=\"colour=red\"/><info name=\"hvm.format\"", "colour=red"},
        {"type=\"PU\" os_index=\"0\"", "type=\"PU\" os_index=\"99999999\"", "os_index of 0 to 65535, found '99999999'"},
        {"<object type=\"Core\"", "<object type=\"PU\" type=\"Core\"", "attribute 'type' twice"},
        {"type=\"PU\"", "type=\"PU os\"", "unknown type of object 'PU os'"},
        {"<object type=\"Core\"", "<object type=\"Core\" kind-of=\"x\"", "unknown attribute 'kind-of'"},
        {"<topology version=\"2.0\">", "<topology version=\"9.0\">", "hwloc"},
        {"complete_cpuset=\"0x0000000f\"", "complete_cpuset=\",x0000000f\"", "as complete_cpuset, found ',x0000000f'"},
        {"complete_cpuset=\"0x0000000f\"", "complete_cpuset=\"0xf...f\"", "as complete_cpuset, found '0xf...f'"},
        {"complete_nodeset", "complete_modeset", "complete_nodeset of a Machine is missing"},
        {"complete_cpuset=\"0x0000000f\"", "complete_cpuset=\"0x00000000\"", "complete_cpuset or"},
        {"type=\"NUMANode\"", "type=\"MemCache\"", "without a NUMANode"},
        {"cpuset=\"0x00000002\" complete_cpuset=\"0x00000002\"", "cpuset=\"0x00000001\" complete_cpuset=\"0x00000001\"",
         "overlaps"},
        {"cpuset=\"0x00000002\" complete_cpuset=\"0x00000002\"", "cpuset=\"0x00000100\" complete_cpuset=\"0x00000100\"",
         "not within"},
        {"type=\"Core\"", "type=\"\x1b[31mCore\"", "\\x1b[31mCore"},
        {"</topology>", "", "not XML of a host"},
        {"topology", "topologydiff", "'topologydiff'"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(edits); i++) {
        g_autofree char *bad = replace(good, edits[i].old, edits[i].new);

        assert_refused(bad, -1, edits[i].reason);
    }
    assert_refused("", -1, "not XML of a host");
    assert_refused("hello\n", -1, "not XML of a host");
    assert_refused("<html></html>", -1, "'html'");
    assert_refused("\0\0\0\0", 4, "not XML of a host");
    assert_refused("\x1f\x8b\x08", 3, "not XML of a host");
    assert_refused("<topology version=\"2.0\"></topology>", -1, "without a PU");
    for (gsize cut = 1; cut < strlen(good) - 2; cut += strlen(good) / 37)
        assert_refused(good, (gssize)cut, "not XML of a host");

    g_autoptr(GString) deep = g_string_new("<topology version=\"2.0\">");

    for (int i = 0; i < 100000; i++)
        g_string_append(deep, "<info>");
    assert_refused(deep->str, -1, "nest deeper");
}

static void assert_bad_name(const char *where, int code)
{
    g_autoptr(GError) error = NULL;
    Host *host = host_new_from(where, &error);

    g_assert_null(host);
    g_assert_error(error, HVM_ERROR, code);
    g_assert_null(strchr(error->message, '\n'));
}

static void test_bad_names(void)
{
    g_autofree char *folder = g_dir_make_tmp("hvm-host-XXXXXX", NULL);
    g_autofree char *fifo = g_build_filename(folder, "fifo", NULL);
    g_autofree char *huge = g_build_filename(folder, "huge", NULL);
    g_autofree char *missing = g_build_filename(folder, "missing\nfile", NULL);
    g_autofree char *unwritable = g_build_filename(folder, "none", "capture.xml", NULL);
    g_autofree char *long_text = g_strnfill(5000, '1');
    g_autofree char *long_synthetic = g_strconcat("synthetic:", long_text, NULL);
    g_autoptr(Host) host = host_new_from("synthetic:pu:2", NULL);
    g_autoptr(GError) error = NULL;

    assert_bad_name(missing, HVM_ERROR_NOT_FOUND);
    assert_bad_name("", HVM_ERROR_NOT_FOUND);
    assert_bad_name(folder, HVM_ERROR_INVALID);
    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    assert_bad_name(fifo, HVM_ERROR_INVALID);
    g_assert_true(g_file_set_contents(huge, "x", 1, NULL));
    g_assert_cmpint(truncate(huge, (64 << 20) + 1), ==, 0);
    assert_bad_name(huge, HVM_ERROR_INVALID);
    assert_bad_name("synthetic:", HVM_ERROR_INVALID);
    assert_bad_name("synthetic:nonsense", HVM_ERROR_INVALID);
    assert_bad_name("synthetic:package:2 core:", HVM_ERROR_INVALID);
    assert_bad_name("synthetic:package:2 core:0 pu:1", HVM_ERROR_INVALID);
    assert_bad_name("synthetic:package:100000 core:100000 pu:100000", HVM_ERROR_INVALID);
    assert_bad_name("synthetic:100000 100000 100000", HVM_ERROR_INVALID);
    assert_bad_name("synthetic:numa:1(memory=22222222222222222GiB) pu:2", HVM_ERROR_INVALID);
    assert_bad_name("synthetic:group:2 MemCache2:1 core:2 pu:2", HVM_ERROR_INVALID);
    assert_bad_name("synthetic:pu:16385", HVM_ERROR_INVALID);
    /* To hwloc a type goes on up to the ':', brackets or not: counts and types behind it are there. */
    assert_bad_name("synthetic:package[8:1572 node(:23 core:1 pu:6", HVM_ERROR_INVALID);
    assert_bad_name("synthetic:group(:2 MemCache2:1 core:2 pu:2", HVM_ERROR_INVALID);
    assert_bad_name("synthetic:group:2 [MemCache2:1] core:2 pu:2", HVM_ERROR_INVALID);
    assert_bad_name("synthetic:pu:18446744073709551617", HVM_ERROR_INVALID);
    assert_bad_name(long_synthetic, HVM_ERROR_INVALID);
    g_assert_false(host_capture(host, unwritable, &error));
    g_assert_nonnull(error);
    remove_tree(folder);
}

static void test_lists(void)
{
    static const char *const good[] = {"", "0", "0-3", "0-3,8", "5,7-9,64-127"};
    static const char *const bad[] = {",",   "1,", "-1",    "1-",      "3-1", "a", "1-2-3",
                                      "0x3", " 1", "65536", "0-99999", "1;2", "0-"};

    for (gsize i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autoptr(GError) error = NULL;
        hwloc_bitmap_t bitmap = host_parse_list(good[i], &error);

        g_assert_no_error(error);
        assert_list(bitmap, good[i]);
        hwloc_bitmap_free(bitmap);
    }
    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(host_parse_list(bad[i], &error));
        g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
    }
}

static void check_disk_nodes(const Tree *tree, const char *wanted)
{
    hwloc_bitmap_t nodes = host_disk_nodes(tree->root);
    g_autofree char *text = host_format_list(nodes);

    g_assert_cmpstr(text, ==, wanted);
    hwloc_bitmap_free(nodes);
}

/* A block device in /sys/devices, with the number that the kernel would give it. */
static void tree_block(Tree *tree, const char *number, const char *path)
{
    g_autofree char *link = g_strconcat("/sys/dev/block/", number, NULL), *target = g_strconcat("../../devices/", path, NULL);
    g_autofree char *dev = g_strconcat("/sys/devices/", path, "/dev", NULL);

    tree_link(tree, link, target);
    tree_put(tree, dev, "%s\n", number);
}

/* What the disks of a path are, as Linux lays them out below /sys. The path is the tree's own root, whatever that is on. */
static void test_disk_nodes(void)
{
    Tree tree = {.root = g_dir_make_tmp("hvm-sys-XXXXXX", NULL)};
    struct stat status;

    g_assert_cmpint(stat(tree.root, &status), ==, 0);
    g_autofree char *number = g_strdup_printf("%u:%u", major(status.st_dev), minor(status.st_dev));
    g_autofree char *link = g_strconcat(tree.root, "/sys/dev/block/", number, NULL);

    sysroot_set(tree.root);
    check_disk_nodes(&tree, ""); /* as a file system in memory, or from the network */

    /* A partition, a disk, its controller on a node. */
    tree_put(&tree, "/sys/devices/pci0000:80/0000:80:01.0/numa_node", "0\n");
    tree_put(&tree, "/sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0/numa_node", "1\n");
    tree_block(&tree, "259:1", "pci0000:80/0000:80:01.0/0000:81:00.0/nvme/nvme0/nvme0n1");
    tree_block(&tree, number, "pci0000:80/0000:80:01.0/0000:81:00.0/nvme/nvme0/nvme0n1/nvme0n1p2");
    tree_put(&tree, "/sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0/nvme/nvme0/nvme0n1/nvme0n1p2/partition", "2\n");
    check_disk_nodes(&tree, "1");
    tree_put(&tree, "/sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0/numa_node", "-1\n");
    check_disk_nodes(&tree, "");
    tree_put(&tree, "/sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0/numa_node", "1\n");

    /* A partition of a RAID, of a disk and of an LVM volume on a partition of another. */
    g_assert_cmpint(g_unlink(link), ==, 0);
    tree_block(&tree, number, "virtual/block/md0/md0p1");
    tree_put(&tree, "/sys/devices/virtual/block/md0/md0p1/partition", "1\n");
    tree_put(&tree, "/sys/devices/virtual/block/md0/slaves/nvme0n1/dev", "259:1\n");
    check_disk_nodes(&tree, "1");
    tree_put(&tree, "/sys/devices/virtual/block/md0/slaves/dm-3/dev", "253:3\n");
    tree_block(&tree, "253:3", "virtual/block/dm-3");
    tree_put(&tree, "/sys/devices/virtual/block/dm-3/slaves/sda1/dev", "8:1\n");
    tree_block(&tree, "8:1", "pci0000:c0/0000:c1:00.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1");
    tree_put(&tree, "/sys/devices/pci0000:c0/0000:c1:00.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1/partition", "1\n");
    tree_put(&tree, "/sys/devices/pci0000:c0/0000:c1:00.0/numa_node", "3\n");
    check_disk_nodes(&tree, "1,3");

    /* A stack that bites its tail ends. */
    tree_put(&tree, "/sys/devices/virtual/block/dm-3/slaves/md0p1/dev", "%s\n", number);
    check_disk_nodes(&tree, "1,3");

    /* A namespace that two controllers share. */
    g_assert_cmpint(g_unlink(link), ==, 0);
    tree_block(&tree, number, "virtual/nvme-subsystem/nvme-subsys0/nvme4n1");
    check_disk_nodes(&tree, "");
    tree_link(&tree, "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme4", "../../../pci0000:c0/0000:c2:00.0/nvme/nvme4");
    tree_put(&tree, "/sys/devices/pci0000:c0/0000:c2:00.0/nvme/nvme4/cntlid", "1\n");
    tree_put(&tree, "/sys/devices/pci0000:c0/0000:c2:00.0/numa_node", "2\n");
    check_disk_nodes(&tree, "2");
    tree_end(&tree);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/host/synthetic", test_synthetic);
    g_test_add_func("/host/recorded", test_recorded);
    g_test_add_func("/host/live", test_live);
    g_test_add_func("/host/sysfs", test_sysfs);
    g_test_add_func("/host/sysfs-devices", test_sysfs_devices);
    g_test_add_func("/host/uses", test_uses);
    g_test_add_func("/host/sysfs-without-numa", test_sysfs_without_numa);
    g_test_add_func("/host/allowed", test_allowed);
    g_test_add_func("/host/kinds", test_kinds);
    g_test_add_func("/host/by-hand", test_by_hand);
    g_test_add_func("/host/bad-files", test_bad_files);
    g_test_add_func("/host/bad-names", test_bad_names);
    g_test_add_func("/host/lists", test_lists);
    g_test_add_func("/host/disk-nodes", test_disk_nodes);
    return g_test_run();
}
