/* The cpuset that bounds a process, read from made-up /proc and /sys/fs/cgroup trees. */
#include "cpuset.h"
#include "host_made_up.h"
#include "hvm_error.h"

#define NO_BOUND "none"

static Tree tree;

static void begin(const char *cgroup)
{
    tree.root = g_dir_make_tmp("hvm-cpuset-XXXXXX", NULL);
    sysroot_set(tree.root);
    if (cgroup)
        tree_put(&tree, "/proc/77/cgroup", "%s", cgroup);
}

/* "PUS on NODES", NO_BOUND, or the error without the root's path. Caller frees. */
static char *read_allowed(void)
{
    g_autoptr(GError) error = NULL;
    hwloc_bitmap_t pus = NULL, nodes = NULL;

    if (!cpuset_read_bounds("/proc/77", &pus, &nodes, &error)) {
        g_auto(GStrv) parts = g_strsplit(error->message, tree.root, -1);

        g_assert_error(error, HVM_ERROR, HVM_ERROR_DENIED);
        g_assert_null(pus);
        g_assert_null(nodes);
        return g_strjoinv("", parts);
    }
    g_assert_no_error(error);
    if (!pus && !nodes)
        return g_strdup(NO_BOUND);

    g_autofree char *pu_list = host_format_list(pus);
    g_autofree char *node_list = host_format_list(nodes);

    hwloc_bitmap_free(pus);
    hwloc_bitmap_free(nodes);
    return g_strdup_printf("%s on %s", pu_list, node_list);
}

static void assert_allowed(const char *wanted)
{
    g_autofree char *found = read_allowed();

    g_assert_cmpstr(found, ==, wanted);
}

static void assert_refused(const char *why)
{
    g_autofree char *wanted = g_strconcat("cannot tell which CPUs and memory nodes the caller may use: ", why, NULL);

    assert_allowed(wanted);
}

static void test_v1(void)
{
    begin("4:memory:/elsewhere\n3:cpu,cpuset:/slurm/job_5\n0::/other\n");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/slurm/job_5/cpuset.effective_cpus", "2-3,6\n");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/slurm/job_5/cpuset.effective_mems", "1\n");
    assert_allowed("2-3,6 on 1");
    tree_end(&tree);
}

static void test_v1_root(void)
{
    begin("3:cpuset:/\n");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/cpuset.effective_cpus", "0-7\n");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/cpuset.effective_mems", "0-1\n");
    assert_allowed("0-7 on 0-1");
    tree_end(&tree);
}

static void put_v2(const char *folder, const char *cpus, const char *mems)
{
    g_autofree char *cpus_path = g_strconcat(folder, "/cpuset.cpus.effective", NULL);
    g_autofree char *mems_path = g_strconcat(folder, "/cpuset.mems.effective", NULL);

    tree_put(&tree, cpus_path, "%s\n", cpus);
    tree_put(&tree, mems_path, "%s\n", mems);
}

static void test_v2(void)
{
    begin("0::/slurm/job_5\n");
    put_v2("/sys/fs/cgroup/slurm/job_5", "4", "0");
    put_v2("/sys/fs/cgroup", "0-7", "0-1");
    assert_allowed("4 on 0");
    tree_end(&tree);
}

/* A group without the controller has what the nearest above it has. */
static void test_v2_ancestor(void)
{
    begin("0::/slurm/job_5/step/task\n");
    put_v2("/sys/fs/cgroup", "0-7", "0-1");
    put_v2("/sys/fs/cgroup/slurm/job_5", "4-5", "1");
    tree_put(&tree, "/sys/fs/cgroup/slurm/job_5/step/task/cgroup.procs", "77\n");
    assert_allowed("4-5 on 1");
    tree_end(&tree);
}

/* The kernel does not hand out the controller at all. */
static void test_v2_without(void)
{
    begin("0::/user/shell\n");
    tree_put(&tree, "/sys/fs/cgroup/user/shell/cgroup.procs", "77\n");
    assert_allowed(NO_BOUND);
    tree_end(&tree);
}

/* Two dots within a name are a name. */
static void test_dots(void)
{
    begin("0::/job..5\n");
    put_v2("/sys/fs/cgroup/job..5", "4", "0");
    assert_allowed("4 on 0");
    tree_end(&tree);
}

static void test_hybrid(void)
{
    begin("3:cpuset:/job\n1:name=systemd:/user\n0::/user\n");
    tree_put(&tree, "/sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n");
    tree_put(&tree, "/sys/fs/cgroup/unified/user/cgroup.procs", "77\n");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/job/cpuset.effective_cpus", "1\n");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/job/cpuset.effective_mems", "0\n");
    assert_allowed("1 on 0");
    tree_end(&tree);

    /* cgroup_no_v1=cpuset */
    begin("1:name=systemd:/user\n0::/job\n");
    tree_put(&tree, "/sys/fs/cgroup/unified/cgroup.controllers", "cpuset\n");
    put_v2("/sys/fs/cgroup/unified/job", "2", "0");
    assert_allowed("2 on 0");
    tree_end(&tree);
}

static void test_no_cgroups(void)
{
    begin("");
    assert_allowed(NO_BOUND);
    tree_end(&tree);
    begin(NULL);
    assert_refused("cannot read /proc/77/cgroup: No such file or directory");
    tree_end(&tree);
}

/* What cannot be read or understood is never no bound. */
static void test_refused(void)
{
    begin("3:cpuset:/job\n");
    assert_refused("wanted a cgroup below /sys/fs/cgroup/cpuset, found '/job'");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/job/cgroup.procs", "77\n");
    assert_refused("cannot read /sys/fs/cgroup/cpuset/job/cpuset.effective_cpus: No such file or directory");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/job/cpuset.effective_cpus", "\n");
    assert_refused("/sys/fs/cgroup/cpuset/job/cpuset.effective_cpus: wanted a list of numbers such as 0-3,8, found nothing");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/job/cpuset.effective_cpus", "0-\n");
    assert_refused("/sys/fs/cgroup/cpuset/job/cpuset.effective_cpus: wanted a list of numbers such as 0-3,8, found '0-'");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/job/cpuset.effective_cpus", "0-1\n");
    assert_refused("cannot read /sys/fs/cgroup/cpuset/job/cpuset.effective_mems: No such file or directory");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/job/cpuset.effective_mems", "all\n");
    assert_refused("/sys/fs/cgroup/cpuset/job/cpuset.effective_mems: wanted a list of numbers such as 0-3,8, found 'all'");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/job/cpuset.effective_mems", "0\n");
    assert_allowed("0-1 on 0");
    tree_end(&tree);

    begin("0::/job\n");
    put_v2("/sys/fs/cgroup/job", "", "0");
    put_v2("/sys/fs/cgroup", "0-7", "0");
    assert_refused("/sys/fs/cgroup/job/cpuset.cpus.effective: wanted a list of numbers such as 0-3,8, found nothing");
    tree_end(&tree);
}

/* Outside what this cgroup namespace shows: the group there of the same name is another. */
static void test_outside(void)
{
    begin("3:cpuset:/../job\n0::/\n");
    tree_put(&tree, "/sys/fs/cgroup/job/cpuset.effective_cpus", "0-7\n");
    tree_put(&tree, "/sys/fs/cgroup/job/cpuset.effective_mems", "0\n");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/cgroup.procs", "1\n");
    assert_refused("wanted a cgroup below /sys/fs/cgroup/cpuset, found '/../job'");
    tree_end(&tree);

    begin("0::/..\n");
    put_v2("/sys/fs/cgroup", "0-7", "0");
    assert_refused("wanted a cgroup below /sys/fs/cgroup, found '/..'");
    tree_end(&tree);

    begin("0::/job (deleted)\n");
    put_v2("/sys/fs/cgroup", "0-7", "0");
    assert_refused("wanted a cgroup below /sys/fs/cgroup, found '/job (deleted)'");
    tree_end(&tree);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cpuset/v1", test_v1);
    g_test_add_func("/cpuset/v1-root", test_v1_root);
    g_test_add_func("/cpuset/v2", test_v2);
    g_test_add_func("/cpuset/v2-ancestor", test_v2_ancestor);
    g_test_add_func("/cpuset/v2-without", test_v2_without);
    g_test_add_func("/cpuset/dots", test_dots);
    g_test_add_func("/cpuset/hybrid", test_hybrid);
    g_test_add_func("/cpuset/no-cgroups", test_no_cgroups);
    g_test_add_func("/cpuset/refused", test_refused);
    g_test_add_func("/cpuset/outside", test_outside);
    return g_test_run();
}
