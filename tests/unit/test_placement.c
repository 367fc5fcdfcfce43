/* Placement: what a request gets on hosts that are known to the last core, what a refusal says, and JSON. */
#include "placement_fixture.h"

#include <string.h>

#define USUAL "pack:2 numa:2 l3:2 core:4 pu:2" /* 4 nodes of 2 L3s of 4 cores of 2 PUs: node N has PUs 16N to 16N+15 */

typedef struct {
    Host *host;
    Ledger *ledger;
} Fixture;

static void fixture_set_up(Fixture *fixture, gconstpointer synthetic)
{
    fixture->host = fixture_host(synthetic);
    fixture->ledger = ledger_new();
}

static void fixture_tear_down(Fixture *fixture, gconstpointer synthetic)
{
    (void)synthetic;
    host_unref(fixture->host);
    ledger_free(fixture->ledger);
}

static Placement *solve_within(const Fixture *fixture, const Spec *spec, const Allowed *allowed, const char *housekeeping)
{
    g_autoptr(GError) error = NULL;
    PlacementPolicy policy = {housekeeping ? host_parse_list(housekeeping, NULL) : NULL};
    Placement *placement = placement_solve(fixture->host, spec, fixture->ledger, allowed, &policy, &error);

    g_assert_no_error(error);
    g_assert_nonnull(placement);
    hwloc_bitmap_free(policy.housekeeping);
    return placement;
}

static Placement *solve(const Fixture *fixture, const Spec *spec)
{
    return solve_within(fixture, spec, NULL, NULL);
}

static void assert_list(hwloc_const_bitmap_t bitmap, const char *expected)
{
    g_autofree char *list = host_format_list(bitmap);

    g_assert_cmpstr(list, ==, expected);
}

static void assert_refused(const Fixture *fixture, const Spec *spec, const char *message)
{
    g_autoptr(GError) error = NULL;
    Placement *placement = placement_solve(fixture->host, spec, fixture->ledger, NULL, NULL, &error);

    g_assert_null(placement);
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT);
    g_assert_cmpstr(error->message, ==, message);
}

static gboolean contains(const GPtrArray *texts, const char *part)
{
    for (guint i = 0; i < texts->len; i++)
        if (strstr(g_ptr_array_index(texts, i), part))
            return TRUE;
    return FALSE;
}

static void assert_topology(const Placement *placement, unsigned sockets, unsigned dies, unsigned cores, unsigned threads)
{
    g_assert_cmpuint(placement->sockets, ==, sockets);
    g_assert_cmpuint(placement->dies, ==, dies);
    g_assert_cmpuint(placement->cores, ==, cores);
    g_assert_cmpuint(placement->threads, ==, threads);
}

static const PlacementCell *cell(const Placement *placement, guint i)
{
    g_assert_cmpuint(i, <, placement->cells->len);
    return &g_array_index(placement->cells, PlacementCell, i);
}

#define TEST(function) static void function(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)

/* ---- CPUs ---- */

TEST(test_whole_l3)
{
    Spec spec = fixture_spec(8);
    g_autoptr(Placement) placement = solve(fixture, &spec);

    assert_list(placement->reserved, "0-7");
    g_assert_cmpuint(placement->cells->len, ==, 1);
    assert_topology(placement, 1, 1, 4, 2);
    g_assert_cmpint(placement->cache, ==, CACHE_PASSTHROUGH);
    g_assert_true(placement->emulator_shares);
    g_assert_true(contains(placement->notes, "Emulator threads share"));
}

/* The L3 that is broken already is filled up, and the node of which least is left is taken. */
TEST(test_least_fragmentation)
{
    Spec spec = fixture_spec(4);
    g_autoptr(Placement) first = NULL, second = NULL;

    fixture_take(fixture->ledger, "a", "24-27");
    first = solve(fixture, &spec);
    assert_list(first->reserved, "28-31");
    fixture_take(fixture->ledger, "b", "56-63");
    spec = fixture_spec(8);
    second = solve(fixture, &spec);
    assert_list(second->reserved, "48-55");
}

TEST(test_odd)
{
    Spec spec = fixture_spec(5);
    g_autoptr(Placement) placement = solve(fixture, &spec);

    assert_list(placement->reserved, "0-5");
    assert_topology(placement, 1, 1, 5, 1);
    g_assert_true(contains(placement->notes, "do not fill cores evenly"));
    g_assert_cmpint(placement->cache, ==, CACHE_EMULATE);
}

TEST(test_isolate)
{
    Spec spec = fixture_spec(4);
    g_autoptr(Placement) placement = NULL;

    spec.smt = SMT_ISOLATE;
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "0-7");
    assert_topology(placement, 1, 1, 4, 1);
    assert_list(placement->emulator, "0,2,4,6");
    /* Siblings are idle: the host's cache description, which counts them, would be untrue. */
    g_assert_cmpint(placement->cache, ==, CACHE_EMULATE);
}

TEST(test_any)
{
    Spec spec = fixture_spec(2);
    g_autoptr(Placement) placement = NULL;

    fixture_take(fixture->ledger, "a", "0-4,6-63");
    assert_refused(fixture, &spec,
                   "guest 'g': needs 1 free core; this node has 0 (free 1 that other guests hold)");
    spec = fixture_spec(1);
    assert_refused(fixture, &spec,
                   "guest 'g': needs 1 free core; this node has 0 (free 1 that other guests hold, or --smt any)");
    spec.smt = SMT_ANY;
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "5");
}

TEST(test_isolated_first)
{
    Spec spec = fixture_spec(4);
    g_autoptr(Placement) placement = NULL;

    hwloc_bitmap_set_range(fixture->host->isolated, 40, 47);
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "40-43");
    spec = fixture_spec(10);
    placement_free(placement);
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "32-33,40-47");
    g_assert_true(contains(placement->notes, "not isolated"));
}

/* Without [cpu] housekeeping, PUs that are not isolated do that work as long as nobody holds them; guests get them last. */
TEST(test_isolated_housekeeping)
{
    Spec spec = fixture_spec(4);
    Allowed allowed = {.pus = host_parse_list("4-15", NULL)};
    g_autoptr(Placement) placement = NULL;

    hwloc_bitmap_set_range(fixture->host->isolated, 4, 15);
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "4-7");
    assert_list(placement->emulator, "0-3"); /* of the guest's node */
    assert_list(placement->io_threads, "0-3");
    g_assert_false(placement->emulator_shares);
    g_assert_true(contains(placement->notes, "QEMU's own threads run on PUs that the kernel does not isolate"));
    placement_free(placement);

    fixture_take(fixture->ledger, "a", "0-1");
    placement = solve(fixture, &spec);
    assert_list(placement->emulator, "2-3");
    placement_free(placement);
    fixture_take(fixture->ledger, "b", "2-3");
    placement = solve(fixture, &spec);
    assert_list(placement->emulator, "16-63"); /* none on its node */
    placement_free(placement);

    /* Isolated ones run out: those that are not are given as well, and not to own threads. */
    spec = fixture_spec(14);
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "16-29");
    assert_list(placement->emulator, "30-31");
    placement_free(placement);

    spec = fixture_spec(4);
    spec.emulator = EMULATOR_DEDICATED;
    placement = solve(fixture, &spec);
    assert_list(placement->emulator, "12-13");
    assert_list(placement->io_threads, "16-63");
    placement_free(placement);
    spec.emulator = EMULATOR_SHARED;

    /* A job on isolated PUs alone has none of the others; configured ones count before those. */
    placement = solve_within(fixture, &spec, &allowed, NULL);
    assert_list(placement->emulator, "4-7");
    g_assert_true(contains(placement->notes, "of those that the kernel does not isolate, none is free that the caller may use"));
    placement_free(placement);
    placement = solve_within(fixture, &spec, NULL, "12");
    assert_list(placement->emulator, "12");
    g_assert_false(contains(placement->notes, "does not isolate"));
    hwloc_bitmap_free(allowed.pus);
}

TEST(test_housekeeping)
{
    Spec spec = fixture_spec(4);
    g_autoptr(Placement) placement = solve_within(fixture, &spec, NULL, "0,8,16");

    assert_list(placement->reserved, "2-5");
    assert_list(placement->emulator, "0,8");
    assert_list(placement->io_threads, "0,8");
    g_assert_false(placement->emulator_shares);
}

/* Where the disk is, not where the guest is; and where no housekeeping PU is there, as without. */
TEST(test_disk_nodes)
{
    Spec spec = fixture_spec(4);
    const struct {
        const char *housekeeping, *disks, *emulator, *io_threads;
    } cases[] = {
        {"0,8,16,32", "2", "0,8", "32"},     {"0,8,16,32", "0", "0,8", "0,8"}, {"0,8,16,32", "3", "0,8", "0,8"},
        {"0,8,16,32", "1-2", "0,8", "16,32"}, {"0,16", "0-1", "0", "0"},        {"16,32", "0", "16", "16"},
        {"0,8,16,32", "", "0,8", "0,8"},     {"0,8,16,32", "9", "0,8", "0,8"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        PlacementPolicy policy = {host_parse_list(cases[i].housekeeping, NULL), host_parse_list(cases[i].disks, NULL)};
        g_autoptr(Placement) placement = placement_solve(fixture->host, &spec, fixture->ledger, NULL, &policy, NULL);

        assert_list(placement->emulator, cases[i].emulator);
        assert_list(placement->io_threads, cases[i].io_threads);
        hwloc_bitmap_free(policy.housekeeping);
        hwloc_bitmap_free(policy.disk_nodes);
    }
}

TEST(test_dedicated)
{
    Spec spec = fixture_spec(8);
    g_autoptr(Placement) placement = NULL;

    spec.emulator = EMULATOR_DEDICATED;
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "0-9");
    assert_list(placement->emulator, "8-9"); /* the vCPUs keep an L3 of their own */
    assert_list(placement->io_threads, "8-9");
    assert_topology(placement, 1, 1, 4, 2);
    g_assert_cmpint(placement->cache, ==, CACHE_PASSTHROUGH);
}

TEST(test_allowed)
{
    Spec spec = fixture_spec(4);
    Allowed allowed = {.pus = host_parse_list("6-11", NULL), .nodes = host_parse_list("0", NULL)};
    g_autoptr(Placement) placement = solve_within(fixture, &spec, &allowed, "0-1");
    g_autoptr(GError) error = NULL;

    /* Housekeeping is outside the caller's set, so that its threads have to stay with the guest. */
    assert_list(placement->reserved, "8-11");
    assert_list(placement->emulator, "8-11");
    g_assert_true(contains(placement->notes, "no housekeeping PU is among those that the caller may use"));
    hwloc_bitmap_only(allowed.nodes, 1);
    g_assert_null(placement_solve(fixture->host, &spec, fixture->ledger, &allowed, NULL, &error));
    g_assert_cmpstr(error->message, ==, "guest 'g': needs 2 free cores; the caller's CPUs and memory nodes have 0 "
                    "(more of this node's CPUs and memory nodes in the caller's job or cpuset)");
    hwloc_bitmap_free(allowed.pus);
    hwloc_bitmap_free(allowed.nodes);
}

TEST(test_two_nodes)
{
    Spec spec = fixture_spec(24);
    g_autoptr(Placement) placement = solve(fixture, &spec);

    g_assert_cmpuint(placement->cells->len, ==, 2);
    g_assert_cmpuint(cell(placement, 0)->node, ==, 0);
    g_assert_cmpuint(cell(placement, 1)->node, ==, 1); /* of the same package */
    g_assert_cmpuint(cell(placement, 0)->vcpus, ==, 12);
    assert_topology(placement, 1, 2, 6, 2);
    g_assert_true(contains(placement->notes, "level-3 caches in unequal parts"));
    g_assert_true(contains(placement->reasons, "no fewer have room"));
    g_assert_true(contains(placement->reasons, "Second best: NUMA nodes 2-3; it loses on nothing but its higher numbers."));
}

TEST(test_sockets_and_spread)
{
    Spec spec = fixture_spec(16);
    g_autoptr(Placement) placement = NULL;

    spec.sockets = 2;
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "0-7,32-39");
    assert_topology(placement, 2, 1, 4, 2);
    placement_free(placement);
    spec.sockets = 0;
    spec.spread = TRUE;
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "0-3,16-19,32-35,48-51");
    assert_topology(placement, 2, 2, 2, 2);
    placement_free(placement);
    /* Not on a node which cannot take an equal share. */
    fixture_take(fixture->ledger, "a", "16-29");
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "0-5,32-37,48-51");
}

/* 10 and 6 cores are free: equal cells are not possible, so dies of two, and no L3 over two cells. */
TEST(test_unequal_cells)
{
    Spec spec = fixture_spec(28);
    g_autoptr(Placement) placement = NULL;

    fixture_take(fixture->ledger, "a", "16-19,32-63");
    placement = solve(fixture, &spec);
    g_assert_cmpuint(cell(placement, 0)->vcpus, ==, 16);
    g_assert_cmpuint(cell(placement, 1)->vcpus, ==, 12);
    assert_topology(placement, 1, 7, 2, 2);
    g_assert_cmpuint(cell(placement, 0)->memory_bytes + cell(placement, 1)->memory_bytes, ==, spec.memory_bytes);
    g_assert_cmpuint(cell(placement, 0)->memory_bytes, ==, 1024 * HVM_MIB);
}

/* A full small machine without housekeeping PUs must still take a guest. */
static void test_small_machine(void)
{
    g_autoptr(Host) host = fixture_host("numa:1 core:2 pu:1");
    Fixture fixture = {host, ledger_new()};
    Spec spec = fixture_spec(2);
    g_autoptr(Placement) placement = solve(&fixture, &spec);

    assert_list(placement->reserved, "0-1");
    assert_list(placement->emulator, "0-1");
    g_assert_true(contains(placement->notes, "Emulator threads share the guest's own PUs"));
    g_assert_true(contains(placement->notes, "does not tell the memory of NUMA node 0"));
    assert_topology(placement, 1, 1, 2, 1);
    ledger_free(fixture.ledger);
}

/* One thread of a core is offline: unlike cores are used one kind at a time, or together and flat. */
TEST(test_unlike_cores)
{
    Spec spec = fixture_spec(16);
    g_autoptr(Placement) placement = NULL;

    fixture_take(fixture->ledger, "a", "16-63");
    hwloc_bitmap_clr(fixture->host->usable_pus, 3);
    spec = fixture_spec(15);
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "0-2,4-15");
    assert_topology(placement, 1, 1, 15, 1);
    placement_free(placement);
    spec = fixture_spec(16);
    assert_refused(fixture, &spec, "guest 'g': needs 16 free threads of whole cores; this node has 15 "
                   "(free 1 that other guests hold, or --cpus 15)");
    spec = fixture_spec(4);
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "0-1,4-5");
    assert_topology(placement, 1, 1, 2, 2);
}

/* Seven whole cores and a single thread. */
TEST(test_unlike_cores_dedicated)
{
    Spec spec = fixture_spec(13);
    g_autoptr(Placement) placement = NULL;

    hwloc_bitmap_clr(fixture->host->usable_pus, 15);
    spec.emulator = EMULATOR_DEDICATED;
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "0-14");
    assert_list(placement->emulator, "12-13");
    g_assert_cmpuint(g_array_index(placement->vcpus, PlacementVcpu, 12).pu, ==, 14);
    placement_free(g_steal_pointer(&placement));
    spec.cpus = 14; /* the single thread is the emulator's */
    spec.memory_bytes = 14 * 64 * HVM_MIB;
    placement = solve(fixture, &spec);
    assert_list(placement->emulator, "14");
    spec.cpus = 15;
    spec.memory_bytes = 15 * 64 * HVM_MIB;
    assert_refused(fixture, &spec, "guest 'g': needs 9 free cores; this node has 8 (--cpus 14, or --emulator shared)");
}

/* ---- Memory ---- */

TEST(test_page_sizes)
{
    Spec spec = fixture_spec(24);
    g_autoptr(Placement) placement = NULL;

    for (unsigned node = 0; node < 4; node++)
        fixture_set_pool(fixture->host, node, 4 * HVM_KIB, 16 * HVM_GIB);
    fixture_set_pool(fixture->host, 0, HVM_GIB, 4 * HVM_GIB);
    fixture_set_pool(fixture->host, 1, 2 * HVM_MIB, 4 * HVM_GIB);
    spec.page_bytes = PAGES_AUTO;
    spec.memory_bytes = 8 * HVM_GIB;
    placement = solve(fixture, &spec);
    g_assert_cmpuint(cell(placement, 0)->page_bytes, ==, HVM_GIB);
    g_assert_cmpuint(cell(placement, 1)->page_bytes, ==, 2 * HVM_MIB);
    g_assert_false(contains(placement->notes, "4K pages"));
    placement_free(placement);

    /* An odd number of 1G pages: the node with more gets more, though it comes later. */
    fixture_set_pool(fixture->host, 0, HVM_GIB, 1 * HVM_GIB);
    fixture_set_pool(fixture->host, 1, HVM_GIB, 2 * HVM_GIB);
    spec.page_bytes = HVM_GIB;
    spec.memory_bytes = 3 * HVM_GIB;
    placement = solve(fixture, &spec);
    g_assert_cmpuint(cell(placement, 0)->memory_bytes, ==, HVM_GIB);
    g_assert_cmpuint(cell(placement, 1)->memory_bytes, ==, 2 * HVM_GIB);
    placement_free(placement);

    /* Huge pages are worth another node, where the size is left to us. */
    spec = fixture_spec(2);
    spec.page_bytes = PAGES_AUTO;
    spec.memory_bytes = 3 * HVM_GIB;
    placement = solve(fixture, &spec);
    g_assert_cmpuint(cell(placement, 0)->node, ==, 1);
    g_assert_true(contains(placement->reasons, "it loses on cells with 4K pages (1 against 0)"));
}

TEST(test_memory_refusals)
{
    Spec spec = fixture_spec(8);

    for (unsigned node = 0; node < 4; node++)
        fixture_set_pool(fixture->host, node, 2 * HVM_MIB, 6 * HVM_GIB);
    spec.memory_bytes = 10 * HVM_GIB;
    spec.page_bytes = 2 * HVM_MIB;
    spec.numa_nodes = 1;
    assert_refused(fixture, &spec, "guest 'g': needs 10G of 2M pages on node 0 for its 8 vCPUs there; node 0 has 6 GiB free "
                   "(--numa 2, or --pages auto, or --memory 6G)");
    spec.numa_nodes = 0;
    spec.memory_bytes = 40 * HVM_GIB;
    assert_refused(fixture, &spec, "guest 'g': needs 40G of 2M pages; the NUMA nodes it may use have 24 GiB free "
                   "(--pages auto, or --memory 24G)");
    spec.page_bytes = HVM_GIB;
    for (unsigned node = 0; node < 4; node++)
        fixture_set_pool(fixture->host, node, HVM_GIB, 0);
    assert_refused(fixture, &spec, "guest 'g': needs 40G of 1G pages; no NUMA node it may use has any free (--pages auto)");
}

/* Others can make room only where they have what is missing. */
TEST(test_memory_held)
{
    LedgerEntry *entry = ledger_entry_new("a", "a", 1000);
    Spec spec = fixture_spec(8);

    for (unsigned node = 0; node < 4; node++) {
        LedgerMemory memory = {node, 2 * HVM_MIB, 4 * HVM_GIB};

        fixture_set_pool(fixture->host, node, 2 * HVM_MIB, 10 * HVM_GIB);
        g_array_append_val(entry->memory, memory);
    }
    ledger_add(fixture->ledger, entry);
    spec.memory_bytes = 10 * HVM_GIB;
    spec.page_bytes = 2 * HVM_MIB;
    spec.numa_nodes = 1;
    assert_refused(fixture, &spec, "guest 'g': needs 10G of 2M pages on node 0 for its 8 vCPUs there; node 0 has 6 GiB free "
                   "(free 4 GiB on node 0, or --numa 2, or --pages auto, or --memory 6G)");
}

/* One NUMA node of two packages: as many sockets as packages may be advised. */
TEST(test_more_sockets)
{
    Spec spec = fixture_spec(6);

    spec.sockets = 1;
    assert_refused(fixture, &spec, "guest 'g': needs 6 free cores on exactly 1 package; the packages of this node have 4, 4 "
                   "(--sockets 2)");
}

/* Promises count against the pool's size, and unsettled ones against what is free in it. */
TEST(test_ledger_memory)
{
    LedgerEntry *entry = ledger_entry_new("a", "a", 0);
    LedgerMemory memory = {1, 2 * HVM_MIB, 3 * HVM_GIB};
    GArray *pages = host_find_node(fixture->host, 1)->pages;

    fixture_set_pool(fixture->host, 1, 2 * HVM_MIB, 8 * HVM_GIB);
    g_assert_cmpuint(ledger_free_bytes(fixture->ledger, fixture->host, 1, 2 * HVM_MIB), ==, 8 * HVM_GIB);
    g_assert_cmpuint(ledger_free_bytes(fixture->ledger, fixture->host, 1, HVM_GIB), ==, 0);
    g_assert_cmpuint(ledger_free_bytes(fixture->ledger, fixture->host, 9, 2 * HVM_MIB), ==, 0);
    g_assert_cmpuint(ledger_free_bytes(fixture->ledger, fixture->host, 0, 4 * HVM_KIB), ==, HOST_BYTES_UNKNOWN);
    g_array_append_val(entry->memory, memory);
    ledger_add(fixture->ledger, entry);
    g_assert_cmpuint(ledger_free_bytes(fixture->ledger, fixture->host, 1, 2 * HVM_MIB), ==, 5 * HVM_GIB);
    /* Somebody else uses half of the pool; our guest has not allocated yet. */
    g_array_index(pages, HostPages, 1).free = 2048;
    g_assert_cmpuint(ledger_free_bytes(fixture->ledger, fixture->host, 1, 2 * HVM_MIB), ==, HVM_GIB);
    /* Now it has, and the pool shows it. */
    ledger_settle(fixture->ledger, "a");
    g_array_index(pages, HostPages, 1).free = 512;
    g_assert_cmpuint(ledger_free_bytes(fixture->ledger, fixture->host, 1, 2 * HVM_MIB), ==, HVM_GIB);
    g_assert_cmpuint(ledger_total_bytes(fixture->host, 1, 2 * HVM_MIB), ==, 8 * HVM_GIB);
    /* Of ordinary memory the node itself keeps some. */
    fixture_set_pool(fixture->host, 2, 4 * HVM_KIB, 32 * HVM_GIB);
    g_assert_cmpuint(ledger_free_bytes(fixture->ledger, fixture->host, 2, 4 * HVM_KIB), ==, 30 * HVM_GIB);
    fixture_set_pool(fixture->host, 2, 4 * HVM_KIB, HVM_GIB);
    g_assert_cmpuint(ledger_free_bytes(fixture->ledger, fixture->host, 2, 4 * HVM_KIB), ==, 768 * HVM_MIB);
}

TEST(test_ledger)
{
    g_autoptr(Ledger) copy = NULL;

    fixture_take(fixture->ledger, "b", "4-7");
    fixture_take(fixture->ledger, "a", "0-3");
    fixture_take(fixture->ledger, "b", "8"); /* replaces */
    g_assert_cmpuint(fixture->ledger->entries->len, ==, 2);
    g_assert_cmpstr(ledger_pu_owner(fixture->ledger, 8)->name, ==, "b");
    g_assert_null(ledger_pu_owner(fixture->ledger, 4));
    copy = ledger_copy(fixture->ledger);
    g_assert_true(ledger_release(fixture->ledger, "b"));
    g_assert_null(ledger_find(fixture->ledger, "b"));
    g_assert_nonnull(ledger_find(copy, "b"));
}

/* ---- Refusals ---- */

TEST(test_refusals)
{
    Spec spec = fixture_spec(80);
    g_autoptr(GError) error = NULL;

    assert_refused(fixture, &spec, "guest 'g': needs 40 free cores; this node has 32 (--cpus 64)");
    g_assert_false(placement_could_fit(fixture->host, &spec, NULL, NULL, &error));
    g_assert_cmpstr(error->message, ==, "guest 'g' could never fit this node: needs 40 cores; this node has 32 (--cpus 64)");
    fixture_take(fixture->ledger, "a", "0-15,48-49");
    spec = fixture_spec(60);
    g_assert_true(placement_could_fit(fixture->host, &spec, NULL, NULL, NULL));
    assert_refused(fixture, &spec,
                   "guest 'g': needs 30 free cores; this node has 23 (free 7 that other guests hold, or --cpus 46)");
    spec = fixture_spec(20);
    spec.numa_nodes = 1;
    assert_refused(fixture, &spec, "guest 'g': needs 10 free cores on one NUMA node; node 1 has 8 "
                   "(--numa 2)");
    spec.numa_nodes = 5;
    assert_refused(fixture, &spec, "guest 'g': needs 10 free cores on 5 NUMA nodes; 3 of this node's have any (--numa 2)");
    spec = fixture_spec(40);
    spec.sockets = 1;
    assert_refused(fixture, &spec, "guest 'g': needs 20 free cores on exactly 1 package; the packages of this node have 8, 15 "
                   "(--sockets 2)");
}

/* A core of each node is another guest's. */
TEST(test_refused_node_held)
{
    Spec spec = fixture_spec(16);

    fixture_take(fixture->ledger, "a", "0-1,16-17,32-33,48-49");
    spec.numa_nodes = 1;
    assert_refused(fixture, &spec, "guest 'g': needs 8 free cores on one NUMA node; node 0 has 7 "
                   "(free 1 core on node 0, or --numa 2)");
}

TEST(test_invalid)
{
    const Spec specs[] = {
        {.name = (char *)"g", .cpus = 0, .memory_bytes = HVM_GIB},
        {.name = (char *)"g", .cpus = 5000, .memory_bytes = HVM_GIB},
        {.name = (char *)"g", .cpus = 4, .memory_bytes = 0},
        {.name = (char *)"g", .cpus = 4, .memory_bytes = HVM_GIB + 1},
        {.name = (char *)"g", .cpus = 4, .memory_bytes = 1536 * HVM_MIB, .page_bytes = HVM_GIB},
        {.name = (char *)"g", .cpus = 4, .memory_bytes = HVM_GIB, .spread = TRUE, .numa_nodes = 2},
        {.name = (char *)"g", .cpus = 4, .memory_bytes = HVM_GIB, .numa_nodes = 5},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(specs); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(placement_solve(fixture->host, &specs[i], fixture->ledger, NULL, NULL, &error));
        g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
        g_assert_true(g_str_has_prefix(error->message, "guest 'g': wanted") ||
                      g_str_has_prefix(error->message, "guest 'g': spread"));
    }
}

/* ---- JSON ---- */

static char *some_json(const Fixture *fixture)
{
    Spec spec = fixture_spec(24);
    g_autoptr(Placement) placement = solve(fixture, &spec);
    PlacementDevice *device = g_new0(PlacementDevice, 1);
    guint8 distances[] = {10, 12, 12, 10};

    device->name = g_strdup("gpu0");
    device->address = g_strdup("0000:41:00.0");
    device->cell = -1;
    g_ptr_array_add(placement->devices, device);
    g_array_append_vals(placement->distances, distances, 4);
    g_ptr_array_add(placement->notes, g_strdup("a \"note\"\n of \\ two lines"));
    return placement_to_json(placement);
}

/* Whatever is read back writes itself again as something that reads back. */
static gboolean survives(const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Placement) placement = placement_from_json(text, &error), again = NULL;
    g_autofree char *written = NULL;

    if (!placement) {
        g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
        return FALSE;
    }
    written = placement_to_json(placement);
    again = placement_from_json(written, NULL);
    g_assert_nonnull(again);
    return TRUE;
}

TEST(test_json_damage)
{
    g_autofree char *text = some_json(fixture);
    gsize length = strlen(text);

    g_assert_true(survives(text));
    for (gsize i = 0; i < length; i += 1 + i / 64) {
        g_autofree char *cut = g_strndup(text, i), *changed = g_strdup(text);

        g_assert_false(survives(cut));
        for (const char *other = "0\"}]{[,:x-\\\n\xff"; *other; other++) {
            changed[i] = *other;
            survives(changed);
        }
    }
}

static void assert_unreadable(const char *text, const char *from, const char *to, const char *message)
{
    g_auto(GStrv) parts = g_strsplit(text, from, 2);
    g_autofree char *changed = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_nonnull(parts[1]); /* the text has it */
    changed = g_strconcat(parts[0], to, parts[1], NULL);
    g_assert_null(placement_from_json(changed, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
    g_assert_cmpstr(error->message, ==, message);
}

TEST(test_json_strict)
{
    g_autofree char *text = some_json(fixture);

    assert_unreadable(text, "\"pu\":0,", "\"pu\":0.0,", "placement: pu: wanted a whole number, found something else");
    assert_unreadable(text, "\"pu\":0,", "\"pu\":-1,", "placement: pu: wanted 0 to 65535, found -1");
    assert_unreadable(text, "\"pu\":0,", "\"pu\":1,",
                      "placement: wanted each vCPU on a PU of its own among the reserved ones, and PUs for QEMU's threads");
    assert_unreadable(text, "\"pu\":0,", "", "placement: vcpus: wanted a member 'pu', found none");
    assert_unreadable(text, "\"pu\":0,", "\"pu\":0,\"x\\u001b\":1,", "placement: vcpus: unknown member 'x\\x1b'");
    assert_unreadable(text, "\"sockets\":1", "\"sockets\":2",
                      "placement: wanted sockets x dies x cores x threads to be the number of vCPUs, 24");
    assert_unreadable(text, "\"node\":1", "\"node\":0",
                      "placement: cells: wanted each node once, memory in whole pages, and all vCPUs in order");
    assert_unreadable(text, "\"distances\":[10,", "\"distances\":[", "placement: distances: wanted none or 4, found 3");
    assert_unreadable(text, "\"distances\":[10,", "\"distances\":[9,", "placement: distances: wanted 10 to 254, found 9");
    assert_unreadable(text, "0000:41:00.0", "../41:00.0", "placement: address: wanted one like 0000:41:00.1, found something else");
    assert_unreadable(text, "\"cell\":-1", "\"cell\":2", "placement: cell: wanted -1 to 1, found 2");
    assert_unreadable(text, "\"emulate\"", "\"off\"", "placement: cache: wanted passthrough, emulate or none, found something else");
    assert_unreadable(text, "\"notes\":[", "\"notes\":[[[[[[]]]]],",
                      "placement: wanted a placement, found something nested more deeply than 4");
    g_assert_false(survives(""));
    g_assert_false(survives("[]"));
    g_assert_false(survives("null"));
}

/* ---- Words ---- */

TEST(test_explain)
{
    Spec spec = fixture_spec(8);
    g_autoptr(Placement) placement = NULL;
    g_autofree char *text = NULL;

    fixture_take(fixture->ledger, "a", "0-1");
    placement = solve(fixture, &spec);
    text = placement_explain(placement, fixture->host, &spec);
    g_assert_cmpstr(text, ==,
                    "8 vCPUs of 'g' on PUs 8-15 of synthetic:" USUAL ".\n"
                    "The guest sees 1 socket of 1 die of 4 cores of 2 threads, with the host's own caches.\n"
                    "QEMU's own threads run on 8-15, I/O threads on 8-15.\n"
                    "Guest cell 0: NUMA node 0, PUs 8-15, 512M in 4K pages.\n"
                    "On NUMA node 0: one has room for all of it.\n"
                    "Second best: NUMA node 1; it loses on NUMA nodes left neither empty nor full (2 against 1).\n"
                    "Level-3 cache 1 of NUMA node 0: the fewest that hold its cores, leaving the least broken up.\n"
                    "No other choice of level-3 caches there fits.\n"
                    "It takes all that is free in that level-3 cache: 4 cores.\n"
                    "Emulator threads share the guest's own PUs: this node has no housekeeping PUs (--emulator dedicated reserves "
                    "a core for them).\n"
                    "synthetic:" USUAL " does not tell the memory of NUMA node 0: planned without a limit there.\n");
}

/* The second L3 of two cells is told too; what comes second is what loses least in all. */
TEST(test_explain_cells)
{
    Spec spec = fixture_spec(8);
    g_autoptr(Placement) placement = NULL;

    fixture_take(fixture->ledger, "a", "0-7,16-17"); /* an L3 of node 0, a core of the first one of node 1 */
    spec.numa_nodes = 2;
    spec.sockets = 1;
    fixture_take(fixture->ledger, "b", "32-63");
    placement = solve(fixture, &spec);
    assert_list(placement->reserved, "8-11,18-21");
    g_assert_true(contains(placement->reasons, "Level-3 caches 1 of NUMA node 0, 2 of node 1: the fewest"));
    g_assert_true(contains(placement->reasons, "Second best: level-3 cache 3 instead of 2 on NUMA node 1; it loses on level-3 caches "
                                               "left neither empty nor full (2 against 1)."));
    g_assert_true(contains(placement->reasons, "It takes 4 of the 7 free cores in those level-3 caches, of each the lowest-numbered;"));
}

/* Of cores without an L3, or some with and some without, the guest sees none; and so it is read back. */
static void test_no_l3(void)
{
    g_autoptr(Host) host = fixture_host("[numa] l2:2 core:2 pu:1");
    g_autoptr(Ledger) ledger = ledger_new();
    const Spec spec = fixture_spec(4);
    g_autoptr(Placement) placement = placement_solve(host, &spec, ledger, NULL, NULL, NULL), back = NULL;
    g_autofree char *text = NULL;

    g_assert_cmpint(placement->cache, ==, CACHE_NONE);
    text = placement_to_json(placement);
    back = placement_from_json(text, NULL);
    g_assert_cmpint(back->cache, ==, CACHE_NONE);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/placement/small-machine", test_small_machine);
    g_test_add_func("/placement/no-l3", test_no_l3);
#define ADD(path, function) g_test_add("/placement/" path, Fixture, USUAL, fixture_set_up, function, fixture_tear_down)
    ADD("whole-l3", test_whole_l3);
    ADD("least-fragmentation", test_least_fragmentation);
    ADD("odd", test_odd);
    ADD("isolate", test_isolate);
    ADD("any", test_any);
    ADD("isolated-first", test_isolated_first);
    ADD("isolated-housekeeping", test_isolated_housekeeping);
    ADD("housekeeping", test_housekeeping);
    ADD("disk-nodes", test_disk_nodes);
    ADD("dedicated", test_dedicated);
    ADD("allowed", test_allowed);
    ADD("two-nodes", test_two_nodes);
    ADD("sockets-and-spread", test_sockets_and_spread);
    ADD("unequal-cells", test_unequal_cells);
    ADD("unlike-cores", test_unlike_cores);
    g_test_add("/placement/unlike-cores-dedicated", Fixture, "pack:1 [numa] l3:1 core:8 pu:2", fixture_set_up,
               test_unlike_cores_dedicated, fixture_tear_down);
    ADD("page-sizes", test_page_sizes);
    ADD("memory-refusals", test_memory_refusals);
    ADD("memory-held", test_memory_held);
    g_test_add("/placement/more-sockets", Fixture, "numa:1 pack:2 l3:1 core:4 pu:1", fixture_set_up, test_more_sockets,
               fixture_tear_down);
    ADD("ledger-memory", test_ledger_memory);
    ADD("ledger", test_ledger);
    ADD("refusals", test_refusals);
    ADD("refused-node-held", test_refused_node_held);
    ADD("invalid", test_invalid);
    ADD("json-damage", test_json_damage);
    ADD("json-strict", test_json_strict);
    ADD("explain", test_explain);
    ADD("explain-cells", test_explain_cells);
    return g_test_run();
}
