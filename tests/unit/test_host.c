#include "host.h"
#include "hvm_error.h"
#include "sysroot.h"
#include "units.h"

#include <glib/gstdio.h>
#include <string.h>

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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/host/synthetic", test_synthetic);
    g_test_add_func("/host/recorded", test_recorded);
    g_test_add_func("/host/live", test_live);
    return g_test_run();
}
