#include "verify.h"

#include "cpuset.h"
#include "guests_private.h"
#include "hvm_error.h"
#include "host.h"
#include "sysroot.h"
#include "units.h"

#include <stdlib.h>
#include <string.h>

void finding_free(Finding *finding)
{
    if (!finding)
        return;
    g_free(finding->what);
    g_free(finding->promised);
    g_free(finding->found);
    g_free(finding);
}

/* Takes all three strings. */
static void add(GPtrArray *findings, char *what, char *promised, char *found, gboolean kept)
{
    Finding *finding = g_new0(Finding, 1);

    *finding = (Finding){what, promised, found, kept};
    g_ptr_array_add(findings, finding);
}

const Finding *verify_first_difference(const GPtrArray *findings)
{
    for (guint i = 0; i < findings->len; i++)
        if (!((const Finding *)findings->pdata[i])->kept)
            return findings->pdata[i];
    return NULL;
}

/* The value behind "NAME:" in a file of lines such as /proc/PID/status; NULL where there is none. Caller frees. */
static char *status_value(const char *text, const char *name)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++)
        if (g_str_has_prefix(*line, name) && (*line)[strlen(name)] == ':')
            return g_strstrip(g_strdup(*line + strlen(name) + 1));
    return NULL;
}

/* A list in a thread's status; NULL where it is gone. */
static hwloc_bitmap_t read_status_list(pid_t pid, const char *thread, const char *name)
{
    g_autofree char *status = sysroot_read(NULL, "/proc/%d/task/%s/status", (int)pid, thread);
    g_autofree char *list = status ? status_value(status, name) : NULL;

    return list ? host_parse_list(list, NULL) : NULL;
}

/* What a thread of QEMU's is for, by its name (QEMU's debug-threads, which libvirt switches on): "CPU 3/KVM"; "IO iothread1", a
 * disk's; "worker" (QEMU's thread pool) and "iou-wrk-80" (io_uring's), which inherit affinity and cgroup of the thread that they work
 * for: I/O thread or emulator; all else ("qemu-system-x86", "IO mon_iothread") the emulator's own. */
typedef enum { ROLE_VCPU, ROLE_IO, ROLE_WORKER, ROLE_EMULATOR } Role;

static const char *const role_names[] = {"vCPU", "I/O", "worker", "emulator"};

static Role thread_role(const char *comm, const Placement *placement, unsigned *ret_vcpu)
{
    int end = 0;

    if (sscanf(comm, "CPU %u/%n", ret_vcpu, &end) == 1 && end > 0 && *ret_vcpu < placement->vcpus->len)
        return ROLE_VCPU;
    if (strcmp(comm, "worker") == 0 || g_str_has_prefix(comm, "iou-"))
        return ROLE_WORKER;
    return g_str_has_prefix(comm, "IO iothread") ? ROLE_IO : ROLE_EMULATOR;
}

/* The PUs promised to a thread. Caller frees. */
static hwloc_bitmap_t role_pus(const Placement *placement, Role role, unsigned vcpu)
{
    hwloc_bitmap_t pus = hwloc_bitmap_alloc();

    if (role == ROLE_VCPU)
        hwloc_bitmap_set(pus, g_array_index(placement->vcpus, PlacementVcpu, vcpu).pu);
    if (role == ROLE_IO || role == ROLE_WORKER)
        hwloc_bitmap_or(pus, pus, placement->io_threads);
    if (role == ROLE_EMULATOR || role == ROLE_WORKER)
        hwloc_bitmap_or(pus, pus, placement->emulator);
    return pus;
}

/* "node 1", "PUs 0-3". Caller frees. */
static char *describe_list(const char *what, hwloc_const_bitmap_t list)
{
    g_autofree char *text = host_format_list(list);

    return g_strdup_printf("%s%s %s", what, hwloc_bitmap_weight(list) == 1 ? "" : "s", text);
}

/* Which threads were seen. */
typedef struct {
    gboolean *vcpus;
    gboolean io;
} Seen;

static void check_thread(pid_t pid, const char *thread, const char *comm, const Placement *placement, Seen *seen,
                         GPtrArray *findings)
{
    hwloc_bitmap_t affinity = read_status_list(pid, thread, "Cpus_allowed_list");
    unsigned vcpu = 0;
    Role role = thread_role(comm, placement, &vcpu);

    if (!affinity)
        return; /* it has just ended */

    hwloc_bitmap_t pus = role_pus(placement, role, vcpu);

    if (role == ROLE_VCPU)
        seen->vcpus[vcpu] = TRUE;
    seen->io |= role == ROLE_IO;
    add(findings, role == ROLE_VCPU ? g_strdup_printf("vCPU %u", vcpu) : g_strdup_printf("%s thread %s", role_names[role], thread),
        describe_list("PU", pus), describe_list("PU", affinity),
        hwloc_bitmap_isincluded(affinity, pus) && !hwloc_bitmap_iszero(affinity));
    hwloc_bitmap_free(pus);
    hwloc_bitmap_free(affinity);
}

static void add_missing(GPtrArray *findings, char *what, const Placement *placement, Role role, unsigned vcpu)
{
    hwloc_bitmap_t pus = role_pus(placement, role, vcpu);

    add(findings, what, describe_list("PU", pus), g_strdup("no such thread"), FALSE);
    hwloc_bitmap_free(pus);
}

void verify_threads(pid_t pid, const Placement *placement, GPtrArray *findings)
{
    g_auto(GStrv) threads = sysroot_list("/proc/%d/task", (int)pid);
    g_autofree gboolean *vcpus = g_new0(gboolean, placement->vcpus->len);
    Seen seen = {.vcpus = vcpus};

    for (char **thread = threads; *thread; thread++) {
        g_autofree char *comm = sysroot_read(NULL, "/proc/%d/task/%s/comm", (int)pid, *thread);

        if (comm)
            check_thread(pid, *thread, comm, placement, &seen, findings);
    }
    for (guint i = 0; i < placement->vcpus->len; i++)
        if (!vcpus[i])
            add_missing(findings, g_strdup_printf("vCPU %u", i), placement, ROLE_VCPU, i);
    if (!seen.io)
        add_missing(findings, g_strdup("I/O thread"), placement, ROLE_IO, 0);
}

/* ---- Limits: cpuset cgroups, and the nodes that the kernel lets a thread allocate on ---- */

typedef struct {
    pid_t pid;
    const Placement *placement;
    hwloc_bitmap_t nodes;     /* promised: of the cells */
    hwloc_bitmap_t allocates; /* found: of all threads */
    gboolean allocates_kept;
    GHashTable *groups;       /* "ROLE GROUP" of those that were told, and "GROUP" */
    GPtrArray *findings;
} Limits;

/* Caller frees. */
static char *describe_bounds(hwloc_const_bitmap_t pus, hwloc_const_bitmap_t nodes)
{
    g_autofree char *pu_list = describe_list("PU", pus);
    g_autofree char *node_list = describe_list("node", nodes);

    return g_strdup_printf("%s, %s", pu_list, node_list);
}

/* libvirt gives each vCPU, each I/O thread and the emulator a cgroup. With a cpuset it must be no wider than the promise. Where the
 * controller is not handed on to it (cgroup v2 without delegation) what is above must leave room for the promise, and affinity keeps it. */
static void check_group(Limits *limits, const char *what, hwloc_const_bitmap_t pus, const Cpuset *cpuset)
{
    char *promised = describe_bounds(pus, limits->nodes);

    if (!cpuset->pus) {
        add(limits->findings, g_strdup(what), promised, g_strdup("no cpuset controller"), TRUE);
        return;
    }

    g_autofree char *bounds = describe_bounds(cpuset->pus, cpuset->nodes);

    add(limits->findings, g_strdup(what), promised, cpuset->own ? g_strdup(bounds) : g_strdup_printf("no cpuset of its own, above it %s", bounds),
        cpuset->own ? hwloc_bitmap_isincluded(cpuset->pus, pus) && hwloc_bitmap_isincluded(cpuset->nodes, limits->nodes)
                    : hwloc_bitmap_isincluded(pus, cpuset->pus) && hwloc_bitmap_isincluded(limits->nodes, cpuset->nodes));
}

/* The threads of one role share a group, which is told once for each role; a worker's where it is none of the others'. */
static void check_role(Limits *limits, Role role, unsigned vcpu, const Cpuset *cpuset, const GError *error)
{
    hwloc_bitmap_t pus = role_pus(limits->placement, role, vcpu);
    g_autofree char *what = role == ROLE_VCPU ? g_strdup_printf("vCPU %u cgroup", vcpu) : g_strdup_printf("%s cgroup", role_names[role]);
    char *group = g_strdup(error ? error->message : cpuset->path ? cpuset->path : "");
    gboolean new_role = g_hash_table_add(limits->groups, g_strdup_printf("%s %s", what, group));
    gboolean new_group = g_hash_table_add(limits->groups, group);

    if (role == ROLE_WORKER ? new_group : new_role) {
        if (error)
            add(limits->findings, g_strdup(what), describe_bounds(pus, limits->nodes), g_strdup(error->message), FALSE);
        else
            check_group(limits, what, pus, cpuset);
    }
    hwloc_bitmap_free(pus);
}

static void check_limits(Limits *limits, const char *thread, gboolean workers)
{
    g_autofree char *task = g_strdup_printf("/proc/%d/task/%s", (int)limits->pid, thread);
    g_autofree char *comm = sysroot_read(NULL, "%s/comm", task);
    unsigned vcpu = 0;
    Role role = comm ? thread_role(comm, limits->placement, &vcpu) : ROLE_EMULATOR;

    if (!comm || (role == ROLE_WORKER) != workers)
        return;

    hwloc_bitmap_t allocates = read_status_list(limits->pid, thread, "Mems_allowed_list");
    g_autoptr(GError) error = NULL;
    g_auto(Cpuset) cpuset = {NULL};
    gboolean good = cpuset_read(task, &cpuset, &error);

    if (allocates && sysroot_exists("%s", task)) { /* else it has just ended */
        check_role(limits, role, vcpu, &cpuset, error);
        hwloc_bitmap_or(limits->allocates, limits->allocates, allocates);
        /* A thread that nothing confines may allocate anywhere: its memory is bound page by page (verify_memory()). */
        limits->allocates_kept &= good && cpuset.pus && cpuset.own ? hwloc_bitmap_isincluded(allocates, limits->nodes)
                                                                   : hwloc_bitmap_isincluded(limits->nodes, allocates);
    }
    hwloc_bitmap_free(allocates);
}

void verify_limits(pid_t pid, const Placement *placement, GPtrArray *findings)
{
    g_auto(GStrv) threads = sysroot_list("/proc/%d/task", (int)pid);
    g_autoptr(GHashTable) groups = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    Limits limits = {.pid = pid, .placement = placement, .nodes = hwloc_bitmap_alloc(), .allocates = hwloc_bitmap_alloc(),
                     .allocates_kept = TRUE, .groups = groups, .findings = findings};

    for (guint i = 0; i < placement->cells->len; i++)
        hwloc_bitmap_set(limits.nodes, g_array_index(placement->cells, PlacementCell, i).node);
    for (char **thread = threads; *thread; thread++)
        check_limits(&limits, *thread, FALSE);
    for (char **thread = threads; *thread; thread++)
        check_limits(&limits, *thread, TRUE);

    gboolean none = hwloc_bitmap_iszero(limits.allocates);

    add(findings, g_strdup("allocations"), describe_list("node", limits.nodes),
        none ? g_strdup("no such thread") : describe_list("node", limits.allocates), limits.allocates_kept && !none);
    hwloc_bitmap_free(limits.nodes);
    hwloc_bitmap_free(limits.allocates);
}

/* ---- Memory ---- */

/*
 * numa_maps (Documentation/admin-guide/mm/numaperf, proc(5)): "7f... bind:1 anon=262144 dirty=262144 N1=262144
 * kernelpagesize_kB=4". QEMU binds each cell's memory, and nothing else, with the policy `bind:NODE`.
 */
typedef struct {
    guint64 *bytes_on; /* by NUMA node, of what is bound to this cell's node */
    guint64 elsewhere;
    guint64 page_bytes; /* the smallest seen */
} Mapped;

static void count_mapping(char **words, unsigned node, Mapped *mapped)
{
    g_autofree char *policy = g_strdup_printf("bind:%u", node);
    g_autofree char *policy_static = g_strdup_printf("bind=static:%u", node);
    guint64 page_bytes = 4 * HVM_KIB, here = 0, elsewhere = 0;

    if (!words[0] || !words[1] || (strcmp(words[1], policy) != 0 && strcmp(words[1], policy_static) != 0))
        return;
    for (char **word = words + 2; *word; word++) {
        unsigned on = 0;
        guint64 pages = 0;

        if (g_str_has_prefix(*word, "kernelpagesize_kB="))
            page_bytes = g_ascii_strtoull(*word + strlen("kernelpagesize_kB="), NULL, 10) * HVM_KIB;
        else if (sscanf(*word, "N%u=%" G_GUINT64_FORMAT, &on, &pages) == 2)
            *(on == node ? &here : &elsewhere) += pages;
    }
    if (here + elsewhere == 0)
        return;
    *mapped->bytes_on += here * page_bytes;
    mapped->elsewhere += elsewhere * page_bytes;
    mapped->page_bytes = mapped->page_bytes ? MIN(mapped->page_bytes, page_bytes) : page_bytes;
}

void verify_memory(pid_t pid, const Placement *placement, gboolean grows, GPtrArray *findings)
{
    g_autofree char *text = sysroot_read(NULL, "/proc/%d/numa_maps", (int)pid);
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);

    for (guint i = 0; i < placement->cells->len; i++) {
        const PlacementCell *cell = &g_array_index(placement->cells, PlacementCell, i);
        guint64 here = 0, least = grows && cell->page_bytes == 4 * HVM_KIB ? 0 : cell->memory_bytes;
        Mapped mapped = {.bytes_on = &here};

        for (char **line = lines; *line; line++) {
            g_auto(GStrv) words = g_strsplit(*line, " ", -1);

            count_mapping(words, cell->node, &mapped);
        }
        g_autofree char *wanted = size_format(cell->memory_bytes);
        g_autofree char *wanted_page = size_format(cell->page_bytes);
        g_autofree char *found = size_format(here);
        g_autofree char *found_page = size_format(mapped.page_bytes);
        g_autofree char *away = size_format(mapped.elsewhere);

        add(findings, g_strdup_printf("cell %u memory", i), g_strdup_printf("%s on node %u in %s pages", wanted, cell->node, wanted_page),
            text ? g_strdup_printf("%s on node %u in %s pages%s%s", found, cell->node, found_page, mapped.elsewhere ? ", elsewhere " : "",
                                   mapped.elsewhere ? away : "")
                 : g_strdup("numa_maps cannot be read"),
            text && here >= least && mapped.elsewhere == 0 && (here == 0 || mapped.page_bytes == cell->page_bytes));
    }
}

GPtrArray *guests_verify(Guests *guests, const Caller *caller, const char *name, GError **error)
{
    Guest *guest = guest_begin(guests, caller, name, "verify", error); /* so that it does not stop meanwhile by our doing */
    GPtrArray *findings = NULL;
    pid_t pid = 0;

    if (!guest)
        return NULL;
    if (!guest->real->placement) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "it is %s: nothing is promised to it", guest_state_name(guest->state));
    } else if (guests->runtime->process(guests->runtime, guest->real, &pid, error)) {
        findings = g_ptr_array_new_with_free_func((GDestroyNotify)finding_free);
        verify_threads(pid, guest->real->placement, findings);
        verify_limits(pid, guest->real->placement, findings);
        verify_memory(pid, guest->real->placement, guest->real->ephemeral, findings);
    }
    guest_end(guests, guest);
    if (!findings)
        guest_prefix_error(error, name);
    return findings;
}
