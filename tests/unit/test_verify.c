/* verify against made-up /proc trees: promises kept and broken. */
#include "sysroot.h"
#include "units.h"
#include "verify.h"

#include <glib/gstdio.h>

enum { PID = 77 };

static char *root;

static void put(const char *path, const char *text)
{
    g_autofree char *full = g_build_filename(root, path, NULL);
    g_autofree char *folder = g_path_get_dirname(full);

    g_assert_cmpint(g_mkdir_with_parents(folder, 0755), ==, 0);
    g_assert_true(g_file_set_contents(full, text, -1, NULL));
}

static void put_thread(unsigned thread, const char *comm, const char *cpus)
{
    g_autofree char *comm_path = g_strdup_printf("proc/%d/task/%u/comm", PID, thread);
    g_autofree char *status_path = g_strdup_printf("proc/%d/task/%u/status", PID, thread);
    g_autofree char *status = g_strdup_printf("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t%s\n", cpus);

    put(comm_path, comm);
    put(status_path, status);
}

/* Two vCPUs on PUs 2 and 3, emulator on 0, I/O thread on 1, 4 MiB in 2 MiB pages on node 1. */
static Placement *make_placement(guint64 page_bytes)
{
    Placement *placement = g_new0(Placement, 1);
    PlacementCell cell = {.node = 1, .memory_bytes = 4 * HVM_MIB, .page_bytes = page_bytes, .vcpus = 2};

    placement->vcpus = g_array_new(FALSE, TRUE, sizeof(PlacementVcpu));
    placement->cells = g_array_new(FALSE, TRUE, sizeof(PlacementCell));
    placement->distances = g_array_new(FALSE, TRUE, sizeof(guint8));
    placement->devices = g_ptr_array_new();
    placement->notes = g_ptr_array_new();
    placement->reasons = g_ptr_array_new();
    placement->reserved = hwloc_bitmap_alloc();
    placement->emulator = hwloc_bitmap_alloc();
    placement->io_threads = hwloc_bitmap_alloc();
    for (unsigned pu = 2; pu <= 3; pu++) {
        PlacementVcpu vcpu = {.pu = pu};

        g_array_append_val(placement->vcpus, vcpu);
        hwloc_bitmap_set(placement->reserved, pu);
    }
    g_array_append_val(placement->cells, cell);
    hwloc_bitmap_set(placement->emulator, 0);
    hwloc_bitmap_set(placement->io_threads, 1);
    return placement;
}

static void put_good_node(void)
{
    put_thread(77, "qemu-system-x86", "0");
    put_thread(78, "CPU 0/KVM", "2");
    put_thread(79, "CPU 1/TCG", "3");
    put_thread(80, "IO iothread1", "1");
    put_thread(81, "IO mon_iothread", "0");
    put("proc/77/numa_maps", "7f00 default anon=3 N0=3 kernelpagesize_kB=4\n"
                             "7f10 bind:1 file=/dev/hugepages/x huge dirty=2 N1=2 kernelpagesize_kB=2048\n");
}

static GPtrArray *verify(guint64 page_bytes, gboolean grows)
{
    GPtrArray *findings = g_ptr_array_new_with_free_func((GDestroyNotify)finding_free);
    g_autoptr(Placement) placement = make_placement(page_bytes);

    verify_threads(PID, placement, findings);
    verify_memory(PID, placement, grows, findings);
    return findings;
}

/* The first difference as one text, or NULL. Caller frees. */
static char *difference(guint64 page_bytes, gboolean grows)
{
    g_autoptr(GPtrArray) findings = verify(page_bytes, grows);
    const Finding *first = verify_first_difference(findings);

    return first ? g_strdup_printf("%s: %s, found %s", first->what, first->promised, first->found) : NULL;
}

static void assert_difference(const char *wanted)
{
    g_autofree char *found = difference(2 * HVM_MIB, FALSE);

    g_assert_cmpstr(found, ==, wanted);
}

static void test_kept(void)
{
    put_good_node();
    g_autoptr(GPtrArray) findings = verify(2 * HVM_MIB, FALSE);

    g_assert_cmpuint(findings->len, ==, 6);
    assert_difference(NULL);
}

static void test_threads(void)
{
    put_good_node();
    put_thread(79, "CPU 1/TCG", "2-3");
    assert_difference("vCPU 1: PU 3, found PU 2-3");
    put_thread(79, "worker", "0");
    assert_difference("vCPU 1: PU 3, found no such thread");
    put_good_node();
    put_thread(81, "IO mon_iothread", "0,5");
    assert_difference("emulator thread 81: PUs 0, found PUs 0,5");
    put_thread(81, "IO mon_iothread", "0");
    put_thread(80, "IO iothread1", "2");
    assert_difference("I/O thread 80: PUs 1, found PUs 2");
    put_good_node();
}

static void test_memory(void)
{
    put_good_node();
    put("proc/77/numa_maps", "7f10 bind:1 huge dirty=2 N0=1 N1=1 kernelpagesize_kB=2048\n");
    assert_difference("cell 0 memory: 4M on node 1 in 2M pages, found 2M on node 1 in 2M pages, elsewhere 2M");
    put("proc/77/numa_maps", "7f10 bind:1 anon=1024 N1=1024 kernelpagesize_kB=4\n");
    assert_difference("cell 0 memory: 4M on node 1 in 2M pages, found 4M on node 1 in 4K pages");
    put("proc/77/numa_maps", "7f10 default anon=1024 N1=1024 kernelpagesize_kB=2048\n");
    assert_difference("cell 0 memory: 4M on node 1 in 2M pages, found 0B on node 1 in 0B pages");
}

static void test_grows(void)
{
    put_good_node();
    put("proc/77/numa_maps", "7f10 bind:1 anon=10 N1=10 kernelpagesize_kB=4\n");
    g_autofree char *grown = difference(4 * HVM_KIB, TRUE);
    g_autofree char *whole = difference(4 * HVM_KIB, FALSE);

    g_assert_null(grown);
    g_assert_cmpstr(whole, ==, "cell 0 memory: 4M on node 1 in 4K pages, found 40K on node 1 in 4K pages");
    put("proc/77/numa_maps", "7f10 bind:1 anon=11 N0=1 N1=10 kernelpagesize_kB=4\n");
    g_autofree char *away = difference(4 * HVM_KIB, TRUE);

    g_assert_nonnull(away);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    root = g_dir_make_tmp("hvm-verify-XXXXXX", NULL);
    sysroot_set(root);
    g_test_add_func("/verify/kept", test_kept);
    g_test_add_func("/verify/threads", test_threads);
    g_test_add_func("/verify/memory", test_memory);
    g_test_add_func("/verify/grows", test_grows);

    int status = g_test_run();
    const char *remove[] = {"rm", "-rf", root, NULL};

    g_spawn_sync(NULL, (char **)remove, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
    sysroot_set(NULL);
    g_free(root);
    return status;
}
