/* verify against made-up /proc and /sys trees: promises kept and broken. */
#include "sysroot.h"
#include "units.h"
#include "verify.h"

#include <glib/gstdio.h>
#include <string.h>

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
    g_autofree char *status = g_strdup_printf("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t%s\nMems_allowed_list:\t1\n", cpus);

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

static void put_group(unsigned thread, const char *line)
{
    g_autofree char *path = g_strdup_printf("proc/%d/task/%u/cgroup", PID, thread);

    put(path, line);
}

static void put_cpuset(const char *folder, const char *cpus_file, const char *cpus, const char *mems_file, const char *mems)
{
    g_autofree char *cpus_path = g_build_filename("sys/fs/cgroup", folder, cpus_file, NULL);
    g_autofree char *mems_path = g_build_filename("sys/fs/cgroup", folder, mems_file, NULL);

    put(cpus_path, cpus);
    put(mems_path, mems);
}

static void put_v1(const char *folder, const char *cpus, const char *mems)
{
    put_cpuset(folder, "cpuset.effective_cpus", cpus, "cpuset.effective_mems", mems);
}

static void put_v2(const char *folder, const char *cpus, const char *mems)
{
    put_cpuset(folder, "cpuset.cpus.effective", cpus, "cpuset.mems.effective", mems);
}

/* As libvirt 9.0 does it on cgroup v1. */
static void put_good_groups(void)
{
    static const char *const lines[] = {"3:cpuset:/machine/g/emulator\n", "3:cpuset:/machine/g/vcpu0\n", "3:cpuset:/machine/g/vcpu1\n",
                                        "3:cpuset:/machine/g/iothread1\n", "3:cpuset:/machine/g/emulator\n"};

    for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++)
        put_group(PID + i, lines[i]);
    put_v1("cpuset/machine/g/emulator", "0\n", "1\n");
    put_v1("cpuset/machine/g/vcpu0", "2\n", "1\n");
    put_v1("cpuset/machine/g/vcpu1", "3\n", "1\n");
    put_v1("cpuset/machine/g/iothread1", "1\n", "1\n");
}

static void put_good_node(void)
{
    put_thread(77, "qemu-system-x86", "0");
    put_thread(78, "CPU 0/KVM", "2");
    put_thread(79, "CPU 1/TCG", "3");
    put_thread(80, "IO iothread1", "1");
    put_thread(81, "IO mon_iothread", "0");
    put_good_groups();
    put("proc/77/numa_maps", "7f00 default anon=3 N0=3 kernelpagesize_kB=4\n"
                             "7f10 bind:1 file=/dev/hugepages/x huge dirty=2 N1=2 kernelpagesize_kB=2048\n");
}

static GPtrArray *verify(guint64 page_bytes, gboolean grows)
{
    GPtrArray *findings = g_ptr_array_new_with_free_func((GDestroyNotify)finding_free);
    g_autoptr(Placement) placement = make_placement(page_bytes);

    verify_threads(PID, placement, findings);
    verify_limits(PID, placement, findings);
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

    g_assert_cmpuint(findings->len, ==, 11); /* 5 threads, 4 cgroups, allocations, a cell */
    assert_difference(NULL);
}

static void test_threads(void)
{
    put_good_node();
    put_thread(79, "CPU 1/TCG", "2-3");
    assert_difference("vCPU 1: PU 3, found PUs 2-3");
    put_thread(79, "worker", "0");
    assert_difference("vCPU 1: PU 3, found no such thread");
    put_good_node();
    put_thread(81, "IO mon_iothread", "0,5");
    assert_difference("emulator thread 81: PU 0, found PUs 0,5");
    put_thread(81, "IO mon_iothread", "0");
    put_thread(80, "IO iothread1", "2");
    assert_difference("I/O thread 80: PU 1, found PU 2");
    put_thread(80, "worker", "0");
    assert_difference("I/O thread: PU 1, found no such thread");
    put_good_node();
}

/* The finding of that name, as "STATE: FOUND", or NULL. Caller frees. */
static char *finding(const char *what)
{
    g_autoptr(GPtrArray) findings = verify(2 * HVM_MIB, FALSE);

    for (guint i = 0; i < findings->len; i++) {
        const Finding *one = findings->pdata[i];

        if (strcmp(one->what, what) == 0)
            return g_strdup_printf("%s: %s", one->kept ? "ok" : "differs", one->found);
    }
    return NULL;
}

static void assert_finding(const char *what, const char *wanted)
{
    g_autofree char *found = finding(what);

    g_assert_cmpstr(found, ==, wanted);
}

static void test_cgroups(void)
{
    put_good_node();
    put_v1("cpuset/machine/g/vcpu1", "0-3\n", "1\n");
    assert_difference("vCPU 1 cgroup: PU 3, node 1, found PUs 0-3, node 1");
    put_v1("cpuset/machine/g/vcpu1", "3\n", "0-1\n");
    assert_difference("vCPU 1 cgroup: PU 3, node 1, found PU 3, nodes 0-1");
    put_good_groups();
    put_v1("cpuset/machine/g/emulator", "0,2\n", "1\n");
    assert_difference("emulator cgroup: PU 0, node 1, found PUs 0,2, node 1");
    put_good_groups();
    put_v1("cpuset/machine/g/iothread1", "\n", "1\n");
    assert_finding("emulator cgroup", "ok: PU 0, node 1");
    g_autofree char *unreadable = finding("I/O cgroup");
    g_assert_true(g_str_has_prefix(unreadable, "differs: /sys/fs/cgroup/cpuset/machine/g/iothread1/cpuset.effective_cpus: wanted a list"));

    /* Another of its threads was moved into a group of someone's: told beside the emulator's own. */
    put_good_groups();
    put_group(81, "3:cpuset:/other\n");
    put_v1("cpuset/other", "0-7\n", "0\n");
    assert_difference("emulator cgroup: PU 0, node 1, found PUs 0-7, node 0");
    put_good_groups();
    assert_difference(NULL);
}

/* A worker has the affinity and the cgroup of whoever it works for. */
static void test_workers(void)
{
    put_good_node();
    put_thread(81, "worker", "1");
    put_group(81, "3:cpuset:/machine/g/iothread1\n");
    assert_difference(NULL);
    g_autofree char *own = finding("worker cgroup");
    g_assert_null(own);
    put_thread(81, "iou-wrk-80", "1");
    assert_difference(NULL);
    put_thread(81, "worker", "0");
    put_group(81, "3:cpuset:/machine/g/emulator\n");
    assert_difference(NULL);
    put_thread(81, "worker", "2");
    assert_difference("worker thread 81: PUs 0-1, found PU 2");
    put_thread(81, "worker", "0");
    put_group(81, "3:cpuset:/other\n");
    put_v1("cpuset/other", "0-7\n", "0\n");
    assert_difference("worker cgroup: PUs 0-1, node 1, found PUs 0-7, node 0");
    put_good_node();
}

static void put_groups(const char *line)
{
    for (unsigned thread = 77; thread <= 81; thread++)
        put_group(thread, line);
}

static void test_cgroups_v2(void)
{
    put_good_node();
    for (unsigned thread = 77; thread <= 81; thread++) {
        g_autofree char *name = g_strdup_printf("machine.slice/%u", thread);
        g_autofree char *line = g_strdup_printf("0::/%s\n", name);

        put_group(thread, line);
        put_v2(name, thread == 78 ? "2\n" : thread == 79 ? "3\n" : thread == 80 ? "1\n" : "0\n", "1\n");
    }
    assert_difference(NULL);
    put_v2("machine.slice/79", "2-3\n", "1\n");
    assert_difference("vCPU 1 cgroup: PU 3, node 1, found PUs 2-3, node 1");

    /* The controller is not handed on to libvirt's groups: said, and no difference while there is room above. */
    put("sys/fs/cgroup/user/g/cgroup.procs", "77\n");
    put_groups("0::/user/g\n");
    put_v2("user", "0-7\n", "0-1\n");
    assert_finding("vCPU 1 cgroup", "ok: no cpuset of its own, above it PUs 0-7, nodes 0-1");
    assert_difference(NULL);
    put_v2("user", "0-2\n", "0-1\n");
    assert_difference("vCPU 1 cgroup: PU 3, node 1, found no cpuset of its own, above it PUs 0-2, nodes 0-1");

    /* None at all. */
    put("sys/fs/cgroup/none/cgroup.procs", "77\n");
    put_groups("0::/none\n");
    assert_finding("emulator cgroup", "ok: no cpuset controller");
    assert_difference(NULL);
    put_good_groups();
}

static void put_nodes(const char *nodes)
{
    for (unsigned thread = 77; thread <= 81; thread++) {
        g_autofree char *path = g_strdup_printf("proc/%d/task/%u/status", PID, thread);
        g_autofree char *full = g_build_filename(root, path, NULL);
        g_autofree char *text = NULL;
        g_autofree char *changed = NULL;

        g_assert_true(g_file_get_contents(full, &text, NULL, NULL));
        changed = g_strdup_printf("%.*sMems_allowed_list:\t%s\n", (int)(strstr(text, "Mems_allowed_list") - text), text, nodes);
        put(path, changed);
    }
}

static void test_allocations(void)
{
    put_good_node();
    put_nodes("0-1");
    assert_difference("allocations: node 1, found nodes 0-1");
    put_groups("0::/none\n");
    put("sys/fs/cgroup/none/cgroup.procs", "77\n");
    assert_difference(NULL); /* nothing confines them; where the memory is, numa_maps tells */
    put_nodes("0");
    assert_difference("allocations: node 1, found node 0");
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
    g_test_add_func("/verify/workers", test_workers);
    g_test_add_func("/verify/cgroups", test_cgroups);
    g_test_add_func("/verify/cgroups-v2", test_cgroups_v2);
    g_test_add_func("/verify/allocations", test_allocations);
    g_test_add_func("/verify/memory", test_memory);
    g_test_add_func("/verify/grows", test_grows);

    int status = g_test_run();
    const char *remove[] = {"rm", "-rf", root, NULL};

    g_spawn_sync(NULL, (char **)remove, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
    sysroot_set(NULL);
    g_free(root);
    return status;
}
