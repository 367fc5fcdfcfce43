#include "accel.h"
#include "doctor.h"
#include "host_made_up.h"

#include <pthread.h>
#include <signal.h>

/* ---- KVM ---- */

static gpointer probe(gpointer data)
{
    accel_probe(data);
    return NULL;
}

static void test_accel(void)
{
    AccelProbe first, second;
    sigset_t before = {0}, after = {0};
    gint64 start_us = g_get_monotonic_time();

    pthread_sigmask(SIG_SETMASK, NULL, &before);
    GThread *thread = g_thread_new("probe", probe, &second); /* two at once do not disturb each other */
    accel_probe(&first);
    g_thread_join(thread);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    g_assert_cmpmem(&before, sizeof before, &after, sizeof after);
    g_assert_cmpint(g_get_monotonic_time() - start_us, <, 4 * G_USEC_PER_SEC);
    g_test_message("state %d: %s", first.state, first.detail);
    g_assert_cmpint(first.state, ==, second.state);
    g_assert_cmpstr(first.detail, !=, "");
    if (first.state == ACCEL_KVM)
        g_assert_cmpfloat(first.ratio, <, 20);
    else if (first.state == ACCEL_KVM_SLOW)
        g_assert_cmpfloat(first.ratio, >=, 20);
    else
        g_assert_cmpfloat(first.ratio, ==, 0);
}

static void test_accel_missing(void)
{
    Tree tree = {g_dir_make_tmp("hvm-sys-XXXXXX", NULL)};
    AccelProbe result;

    sysroot_set(tree.root);
    accel_probe(&result);
    g_assert_cmpint(result.state, ==, ACCEL_KVM_MISSING);
    g_assert_cmpstr(result.detail, ==, "cannot open /dev/kvm: No such file or directory");
    tree_put(&tree, "/dev/kvm", "x");
    accel_probe(&result);
    g_assert_cmpint(result.state, ==, ACCEL_KVM_BROKEN);
    g_assert_cmpstr(result.detail, ==, "/dev/kvm is not KVM: Inappropriate ioctl for device");
    if (geteuid() != 0) {
        g_autofree char *path = g_strconcat(tree.root, "/dev/kvm", NULL);

        g_assert_cmpint(g_chmod(path, 0), ==, 0);
        accel_probe(&result);
        g_assert_cmpint(result.state, ==, ACCEL_KVM_DENIED);
    }
    tree_end(&tree);
}

/* ---- The doctor ---- */

/* The `index`th check of that name, or NULL. */
static const Check *find_check(GPtrArray *checks, const char *name, guint index)
{
    for (guint i = 0; i < checks->len; i++) {
        const Check *check = g_ptr_array_index(checks, i);

        if (strcmp(check->name, name) == 0 && index-- == 0)
            return check;
    }
    return NULL;
}

static void assert_check(GPtrArray *checks, const char *name, guint index, CheckState state, const char *found)
{
    const Check *check = find_check(checks, name, index);

    g_test_message("%s %u", name, index);
    g_assert_nonnull(check);
    g_assert_cmpstr(check->found, ==, found);
    g_assert_cmpint(check->state, ==, state);
    if (state == CHECK_OK) {
        g_assert_null(check->meaning);
        g_assert_null(check->advice);
    } else {
        g_assert_nonnull(check->meaning);
        g_assert_nonnull(check->advice);
    }
}

static void put_limits(Tree *tree, const char *capabilities, const char *memlock)
{
    tree_put(tree, "/proc/self/status", "Name:\thvmd\nCapPrm:\t000001ffffffffff\nCapEff:\t%s\nCapBnd:\t0\n",
             capabilities);
    tree_put(tree, "/proc/self/limits",
             "Limit                     Soft Limit           Hard Limit           Units     \n"
             "Max processes             96364                96364                processes \n"
             "Max locked memory         65536                %-20s bytes     \n"
             "Max address space         unlimited            unlimited            bytes     \n", memlock);
}

static GPtrArray *run_doctor(Tree *tree, const AccelProbe *accel)
{
    g_autoptr(GError) error = NULL;

    sysroot_set(tree->root);
    g_autoptr(Host) host = host_new_live(&error);

    g_assert_no_error(error);
    return doctor_check_host(host, accel);
}

/* A node as it should be. */
static void test_doctor_good(void)
{
    static const AccelProbe accel = {ACCEL_KVM, 1.0, "a loop takes 1 times as long as natively"};
    Tree tree;

    tree_make_node(&tree);
    tree_put(&tree, "/proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vmx\nbugs\t: \n");
    tree_put(&tree, "/proc/mounts", "hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0\n"
                                    "none /dev/hugepages1G hugetlbfs rw,pagesize=1024M 0 0\n");
    tree_put(&tree, "/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    tree_put(&tree, "/sys/kernel/mm/ksm/run", "0\n");
    tree_put(&tree, "/proc/sys/kernel/numa_balancing", "0\n");
    tree_put(&tree, "/proc/swaps", "Filename Type Size Used Priority\n");
    for (int cpu = 0; cpu < 7; cpu++) {
        g_autofree char *path = g_strdup_printf("/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", cpu);

        tree_put(&tree, path, "performance\n");
    }
    tree_put(&tree, "/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n");
    tree_put(&tree, "/sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected\n");
    tree_put(&tree, "/sys/class/iommu/dmar0/x", "\n");
    tree_put(&tree, "/sys/kernel/iommu_groups/0/type", "identity\n");
    tree_put(&tree, "/sys/kernel/iommu_groups/1/type", "identity\n");
    tree_put(&tree, "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n");
    put_limits(&tree, "000001ffffffffff", "65536");
    g_autoptr(GPtrArray) checks = run_doctor(&tree, &accel);

    assert_check(checks, "kvm", 0, CHECK_OK, "works: a loop takes 1 times as long as natively");
    assert_check(checks, "hardware", 0, CHECK_OK, "bare metal");
    assert_check(checks, "huge pages", 0, CHECK_OK, "node 0: 28 of 128 pages of 2 MiB free");
    assert_check(checks, "huge pages", 1, CHECK_OK, "node 1: 1 of 1 pages of 1 GiB free");
    g_assert_null(find_check(checks, "huge pages", 2)); /* memory alone: not for guests unasked */
    assert_check(checks, "hugetlbfs", 0, CHECK_OK, "mounted for pages of 2 MiB");
    assert_check(checks, "hugetlbfs", 1, CHECK_OK, "mounted for pages of 1 GiB");
    assert_check(checks, "thp", 0, CHECK_OK, "madvise");
    assert_check(checks, "ksm", 0, CHECK_OK, "off");
    assert_check(checks, "numa balancing", 0, CHECK_OK, "off");
    assert_check(checks, "numa memory", 0, CHECK_OK, "3 NUMA nodes, each with memory");
    assert_check(checks, "swap", 0, CHECK_OK, "none");
    assert_check(checks, "smt", 0, CHECK_OK, "on, 2 threads in a core");
    assert_check(checks, "isolated cpus", 0, CHECK_OK, "2-3,5: guests go there first");
    assert_check(checks, "cpu frequency", 0, CHECK_OK, "governor performance on 7 CPUs");
    assert_check(checks, "clock", 0, CHECK_OK, "tsc");
    assert_check(checks, "mitigations", 0, CHECK_OK, "in place for all that this processor needs");
    assert_check(checks, "iommu", 0, CHECK_OK, "2 groups, dmar0");
    assert_check(checks, "cgroups", 0, CHECK_OK, "version 2");
    assert_check(checks, "capabilities", 0, CHECK_OK, "all that are needed");
    assert_check(checks, "memlock", 0, CHECK_OK, "64 KiB, raised for guests which need more");
    tree_end(&tree);
}

/* A node with all that can be wrong with it. */
static void test_doctor_bad(void)
{
    static const AccelProbe accel = {ACCEL_KVM_MISSING, 0, "cannot open /dev/kvm: No such file or directory"};
    Tree tree;

    tree_make_node(&tree);
    tree_put(&tree, "/proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu hypervisor\n");
    tree_put(&tree, "/sys/class/dmi/id/sys_vendor", "QEMU\n");
    tree_put(&tree, "/proc/mounts", "hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0\n");
    tree_put(&tree, "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "0\n");
    tree_put(&tree, "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "0\n");
    tree_put(&tree, "/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/free_hugepages", "0\n");
    tree_put(&tree, "/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
    tree_put(&tree, "/sys/kernel/mm/ksm/run", "1\n");
    tree_put(&tree, "/proc/sys/kernel/numa_balancing", "1\n");
    tree_put(&tree, "/proc/swaps",
             "Filename Type Size Used Priority\n/dev/sda2 partition 100 0 -2\n/swap\033 file 1 0 -3\n");
    tree_put(&tree, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
    tree_put(&tree, "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n");
    tree_put(&tree, "/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n");
    tree_put(&tree, "/sys/devices/system/cpu/vulnerabilities/meltdown", "Vulnerable\n");
    tree_put(&tree, "/sys/devices/system/cpu/vulnerabilities/mds",
             "Vulnerable: Clear CPU buffers attempted, no microcode\n");
    tree_put(&tree, "/sys/devices/system/cpu/vulnerabilities/l1tf", "Mitigation: PTE Inversion\n");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/cgroup.procs", "\n");
    tree_put(&tree, "/sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n");
    tree_node(&tree, 1, "cc", 0, 0);
    put_limits(&tree, "000001fffedfffff", "8388608"); /* no CAP_SYS_RESOURCE (24), no CAP_SYS_ADMIN (21) */
    g_autoptr(GPtrArray) checks = run_doctor(&tree, &accel);

    assert_check(checks, "kvm", 0, CHECK_FAILURE,
                 "cannot open /dev/kvm: No such file or directory; the processor shows neither vmx nor svm");
    assert_check(checks, "hardware", 0, CHECK_WARNING, "this node is itself a virtual machine of QEMU");
    assert_check(checks, "huge pages", 0, CHECK_WARNING, "node 0: none");
    g_assert_nonnull(strstr(find_check(checks, "huge pages", 0)->advice,
                            "echo 384 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"));
    assert_check(checks, "huge pages", 1, CHECK_WARNING, "node 1: 0 of 1 pages of 1 GiB free");
    assert_check(checks, "hugetlbfs", 0, CHECK_FAILURE, "not mounted for pages of 1 GiB");
    assert_check(checks, "thp", 0, CHECK_WARNING, "never");
    assert_check(checks, "ksm", 0, CHECK_WARNING, "on");
    assert_check(checks, "numa balancing", 0, CHECK_WARNING, "on");
    assert_check(checks, "numa memory", 0, CHECK_WARNING, "node 1 has processors and no memory");
    assert_check(checks, "swap", 0, CHECK_WARNING, "/dev/sda2 and 1 more");
    assert_check(checks, "cpu frequency", 0, CHECK_WARNING, "governor performance on 1 CPUs, powersave on 1 CPUs");
    assert_check(checks, "clock", 0, CHECK_WARNING, "hpet");
    assert_check(checks, "mitigations", 0, CHECK_WARNING, "vulnerable: mds, meltdown");
    assert_check(checks, "iommu", 0, CHECK_WARNING, "none");
    g_assert_nonnull(strstr(find_check(checks, "iommu", 0)->advice, "AMD-Vi"));
    assert_check(checks, "cgroups", 0, CHECK_WARNING, "versions 1 and 2 mixed");
    assert_check(checks, "capabilities", 0, CHECK_FAILURE, "missing: CAP_SYS_ADMIN, CAP_SYS_RESOURCE");
    assert_check(checks, "memlock", 0, CHECK_WARNING, "at most 8 MiB");
    tree_end(&tree);
}

static void test_doctor_live(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Host) host = host_new_live(&error);
    AccelProbe accel;

    g_assert_no_error(error);
    accel_probe(&accel);
    g_autoptr(GPtrArray) checks = doctor_check_host(host, &accel);

    for (guint i = 0; i < checks->len; i++) {
        const Check *check = g_ptr_array_index(checks, i);

        g_assert_true(g_utf8_validate(check->found, -1, NULL));
        g_assert_null(strchr(check->found, '\n'));
        g_assert_cmpstr(check->found, !=, "");
        g_assert_cmpint(check->state == CHECK_OK, ==, check->meaning == NULL);
    }
    g_assert_cmpint(find_check(checks, "kvm", 0)->state == CHECK_OK, ==, accel.state == ACCEL_KVM);
}

/* Core kinds are told where there are several, slowest first. */
static void test_doctor_core_kinds(void)
{
    static const AccelProbe accel = {ACCEL_KVM, 1.0, "a loop takes 1 times as long as natively"};
    static const char *const hosts[][2] = {
        {"hybrid.xml", "3 kinds, slowest first: 20-21 (kind 0), 12-19 (kind 1), 0-11 (kind 2)"}, {"unlike-caches.xml", NULL}};

    for (gsize i = 0; i < G_N_ELEMENTS(hosts); i++) {
        g_autofree char *path = g_build_filename(g_getenv("HVM_GOLDEN_HOSTS"), hosts[i][0], NULL);
        g_autoptr(GError) error = NULL;
        g_autoptr(Host) host = host_new_from(path, &error);

        g_assert_no_error(error);
        g_autoptr(GPtrArray) checks = doctor_check_host(host, &accel);

        if (hosts[i][1])
            assert_check(checks, "core kinds", 0, CHECK_WARNING, hosts[i][1]);
        else
            g_assert_null(find_check(checks, "core kinds", 0));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/doctor/core-kinds", test_doctor_core_kinds);
    g_test_add_func("/doctor/accel", test_accel);
    g_test_add_func("/doctor/accel-missing", test_accel_missing);
    g_test_add_func("/doctor/good", test_doctor_good);
    g_test_add_func("/doctor/bad", test_doctor_bad);
    g_test_add_func("/doctor/live", test_doctor_live);
    return g_test_run();
}
