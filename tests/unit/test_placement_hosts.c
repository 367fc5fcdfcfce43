/*
 * Placement on whole machines: the usual nodes, made by hand, and machines recorded elsewhere, from the folder that
 * HVM_TEST_HOSTS names.
 */
#include "placement_pci.h"

#define EPYC "pack:2 numa:4 l3:2 core:8 pu:2"    /* 2x64 cores, 4 nodes a socket, CCX of 8 */
#define CLUSTERS "pack:2 l3:1 numa:3 core:19 pu:2" /* 2x57 with 3 clusters a socket: one core of each is switched off */

static void assert_list(hwloc_const_bitmap_t bitmap, const char *expected)
{
    g_autofree char *list = host_format_list(bitmap);

    g_assert_cmpstr(list, ==, expected);
}

static Placement *solve(const Host *host, const Spec *spec, const Ledger *ledger)
{
    g_autoptr(GError) error = NULL;
    Placement *placement = placement_solve(host, spec, ledger, NULL, NULL, &error);

    g_assert_no_error(error);
    return placement;
}

static const PlacementDevice *device(const Placement *placement, guint i)
{
    g_assert_cmpuint(i, <, placement->devices->len);
    return g_ptr_array_index(placement->devices, i);
}

/* ---- What holds on any machine ---- */

static void check(const Host *host, const Ledger *ledger, const Spec *spec, const Placement *placement)
{
    g_autofree char *json = placement_to_json(placement), *text = placement_explain(placement, host, spec);
    g_autoptr(Placement) back = placement_from_json(json, NULL);
    unsigned pu;

    g_assert_nonnull(back);
    g_assert_cmpuint(placement->vcpus->len, ==, spec->cpus);
    g_assert_cmpuint(placement->sockets * placement->dies * placement->cores * placement->threads, ==, spec->cpus);
    hwloc_bitmap_foreach_begin(pu, placement->reserved) {
        g_assert_true(hwloc_bitmap_isset(host->usable_pus, pu));
        g_assert_true(host_home_node(host, pu)->general_purpose);
        g_assert_null(ledger_pu_owner(ledger, pu));
    } hwloc_bitmap_foreach_end();
    for (guint i = 0; i < placement->vcpus->len; i++) {
        const PlacementVcpu *vcpu = &g_array_index(placement->vcpus, PlacementVcpu, i);

        g_assert_true(hwloc_bitmap_isset(placement->reserved, vcpu->pu));
        g_assert_cmpuint(g_array_index(placement->cells, PlacementCell, vcpu->cell).node, ==,
                         host_home_node(host, vcpu->pu)->node);
    }
    g_assert_true(g_str_has_suffix(text, "\n"));
}

/* Guests of all kinds until nothing fits: no PU twice, and at the end no usable PU is left that a guest of one could have. */
static void fill(const Host *host, guint32 seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    g_autoptr(Ledger) ledger = ledger_new();
    unsigned pus = (unsigned)hwloc_bitmap_weight(host->usable_pus), failures = 0;

    for (unsigned i = 0; failures < 40; i++) {
        g_autofree char *uuid = g_strdup_printf("guest-%u", i);
        Spec spec = fixture_spec((unsigned)g_rand_int_range(rand, 1, (gint32)MAX(pus / 4, 2)));
        g_autoptr(Placement) placement = NULL;

        spec.memory_bytes = spec.cpus * 2 * HVM_MIB;
        spec.smt = (SmtPolicy)g_rand_int_range(rand, 0, 3);
        spec.spread = g_rand_int_range(rand, 0, 8) == 0;
        spec.emulator = g_rand_int_range(rand, 0, 8) == 0 ? EMULATOR_DEDICATED : EMULATOR_SHARED;
        if (failures > 20)
            spec.cpus = 1;
        placement = placement_solve(host, &spec, ledger, NULL, NULL, NULL);
        if (!placement) {
            failures++;
            continue;
        }
        check(host, ledger, &spec, placement);
        ledger_add(ledger, placement_promise(placement, uuid, uuid, 0));
    }

    hwloc_bitmap_t taken = ledger_taken_pus(ledger);

    /* Requests of one vCPU with smt=any were among the last 20, so every PU is gone. */
    g_assert_true(hwloc_bitmap_isequal(taken, host->usable_pus));
    hwloc_bitmap_free(taken);
}

/* ---- Recorded and made-up machines ---- */

/* Each host in a folder. Returns how many. */
static unsigned fill_all(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    unsigned count = 0;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_autoptr(GError) error = NULL;
        g_autoptr(Host) host = NULL;

        if (!g_str_has_suffix(name, ".xml"))
            continue;
        host = host_new_from(path, &error);
        g_assert_no_error(error);
        g_test_message("%s", name);
        fill(host, 1);
        count++;
    }
    return count;
}

static void test_recorded(void)
{
    const char *folder = g_getenv("HVM_TEST_HOSTS");

    if (!folder || !g_file_test(folder, G_FILE_TEST_IS_DIR)) {
        g_test_skip("HVM_TEST_HOSTS names no folder with recorded hosts (hwloc XML)");
        return;
    }
    g_assert_cmpuint(fill_all(folder), >, 0);
}

/* Those of the golden tests: hybrid core kinds with a PU that is not allowed, packages with unlike L3s and without, and others. */
static void test_made_up(void)
{
    g_assert_cmpuint(fill_all(g_getenv("HVM_GOLDEN_HOSTS")), >, 0);
}

/* The machine with 3 GPUs: the guest goes where two of them are, on either node of which it fits. */
static void test_recorded_gpus(void)
{
    const char *folder = g_getenv("HVM_TEST_HOSTS");
    g_autofree char *path = g_build_filename(folder ? folder : "/nonexistent", "32em64t-2n8c2t-pci-wholeio.xml", NULL);
    g_autoptr(Host) host = host_new_from(path, NULL);
    g_autoptr(Ledger) ledger = ledger_new();
    g_autoptr(Placement) placement = NULL;
    SpecDevice gpu0 = {.name = (char *)"gpu0", .kind = (char *)"gpu", .locality = LOCALITY_REQUIRED};
    SpecDevice gpu1 = {.name = (char *)"gpu1", .kind = (char *)"gpu", .locality = LOCALITY_REQUIRED};
    Spec spec = fixture_spec(8);

    if (!host) {
        g_test_skip("32em64t-2n8c2t-pci-wholeio.xml is not in the folder that HVM_TEST_HOSTS names");
        return;
    }
    spec.devices = g_ptr_array_new();
    g_ptr_array_add(spec.devices, &gpu1);
    g_ptr_array_add(spec.devices, &gpu0);
    placement = solve(host, &spec, ledger);
    assert_list(placement->reserved, "8-11,24-27"); /* node 1 has three, node 0 one */
    g_assert_cmpstr(device(placement, 0)->name, ==, "gpu0");
    g_assert_cmpint(device(placement, 0)->cell, ==, 0);
    /* Two functions of one card share a root port. */
    g_assert_cmpstr(device(placement, 0)->address, ==, "0000:84:00.0");
    g_assert_cmpstr(device(placement, 1)->address, ==, "0000:84:00.1");
    g_ptr_array_free(spec.devices, TRUE);
}

/* ---- The usual nodes ---- */

static void test_epyc(void)
{
    g_autoptr(Host) host = fixture_host(EPYC);
    g_autoptr(Ledger) ledger = ledger_new();
    Spec spec = fixture_spec(64);
    g_autoptr(Placement) half = solve(host, &spec, ledger), full = NULL;

    /* Half a socket: two nodes, four L3s, each whole. */
    assert_list(half->reserved, "0-63");
    g_assert_cmpuint(half->cells->len, ==, 2);
    g_assert_cmpuint(half->sockets, ==, 1);
    g_assert_cmpuint(half->dies, ==, 4);
    g_assert_cmpuint(half->cores, ==, 8);
    g_assert_cmpuint(half->threads, ==, 2);
    g_assert_cmpint(half->cache, ==, CACHE_PASSTHROUGH);
    spec = fixture_spec(256);
    full = solve(host, &spec, ledger);
    g_assert_cmpuint(full->cells->len, ==, 8);
    g_assert_cmpuint(full->sockets, ==, 2);
    g_assert_cmpuint(full->dies, ==, 8);
    g_assert_cmpint(full->cache, ==, CACHE_PASSTHROUGH);
    fill(host, 2);
}

/* 56 cores in clusters of 19, 19 and 18: an L3 reaches over three nodes. */
static void test_clusters(void)
{
    g_autoptr(Host) host = fixture_host(CLUSTERS);
    g_autoptr(Ledger) ledger = ledger_new();
    Spec spec = fixture_spec(112);
    g_autoptr(Placement) socket = NULL, equal = NULL;

    hwloc_bitmap_clr_range(host->usable_pus, 112, 113);
    hwloc_bitmap_clr_range(host->usable_pus, 226, 227);
    socket = solve(host, &spec, ledger);
    assert_list(socket->reserved, "0-111");
    g_assert_cmpuint(socket->cells->len, ==, 3);
    g_assert_cmpuint(socket->sockets, ==, 1);
    /* 19, 19 and 18 cores have no common measure, so that the guest sees one L3 over all, as there is. It has an offline core,
     * so that the host's own description of it would not hold. */
    g_assert_cmpuint(socket->cores, ==, 56);
    g_assert_cmpuint(socket->threads, ==, 2);
    g_assert_cmpint(socket->cache, ==, CACHE_EMULATE);
    spec = fixture_spec(108);
    spec.numa_nodes = 3;
    equal = solve(host, &spec, ledger);
    g_assert_cmpuint(equal->dies, ==, 3);
    g_assert_cmpuint(equal->cores, ==, 18);
    fill(host, 3);
}

/* A whole socket of the same without the loss: the host's one L3 is the guest's. */
static void test_whole_cluster_socket(void)
{
    g_autoptr(Host) host = fixture_host(CLUSTERS);
    g_autoptr(Ledger) ledger = ledger_new();
    Spec spec = fixture_spec(114);
    g_autoptr(Placement) placement = solve(host, &spec, ledger);

    g_assert_cmpuint(placement->cells->len, ==, 3);
    g_assert_cmpuint(placement->sockets, ==, 1);
    g_assert_cmpuint(placement->dies, ==, 1);
    g_assert_cmpuint(placement->cores, ==, 57);
    g_assert_cmpint(placement->cache, ==, CACHE_PASSTHROUGH);
}

/* 72 cores, and the memory of a GPU as a node beside them which no guest is given. */
static void test_grace(void)
{
    g_autoptr(Host) host = fixture_host("[numa] [numa(memory=96GB)] l3:1 core:72 pu:1");
    g_autoptr(Ledger) ledger = ledger_new();
    Spec spec = fixture_spec(72);
    g_autoptr(Placement) placement = NULL;
    g_autoptr(GError) error = NULL;
    HostNode *gpu = g_ptr_array_index(host->nodes, 1);

    g_assert_cmpuint(host->nodes->len, ==, 2);
    gpu->general_purpose = FALSE;
    gpu->kind = g_strdup("GPUMemory");
    fixture_set_pool(host, 0, 4 * HVM_KIB, 64 * HVM_GIB);
    placement = solve(host, &spec, ledger);
    g_assert_cmpuint(placement->cells->len, ==, 1);
    g_assert_cmpuint(g_array_index(placement->cells, PlacementCell, 0).node, ==, 0);
    g_assert_cmpuint(placement->cores, ==, 72);
    spec.memory_bytes = 80 * HVM_GIB; /* the GPU's would do */
    g_assert_null(placement_solve(host, &spec, ledger, NULL, NULL, &error));
    g_assert_cmpstr(error->message, ==, "guest 'g': needs 80G of 4K pages; the NUMA nodes it may use have 60 GiB free "
                    "(--memory 60G)");
}

/* ---- Devices: 4 nodes, a PCIe switch on each, below each two GPUs and an InfiniBand adapter ---- */

static Host *make_gpu_host(void)
{
    static const FixturePort ports[] = {{0, 2, 1, 0}, {1, 2, 1, 0}, {2, 2, 1, 0}, {3, 2, 1, 0}};
    Host *host = fixture_pci_host("pack:4 [numa] l3:1 core:8 pu:2", ports, G_N_ELEMENTS(ports));

    g_assert_cmpuint(host->devices->len, ==, 12);
    return host;
}

static void take_device(Ledger *ledger, const char *address)
{
    LedgerEntry *entry = ledger_entry_new(address, "holder", 0);

    g_ptr_array_add(entry->devices, g_strdup(address));
    ledger_add(ledger, entry);
}

typedef struct {
    Host *host;
    Ledger *ledger;
    Spec spec;
    SpecDevice gpu[4], ib;
} Gpus;

static void gpus_set_up(Gpus *gpus, G_GNUC_UNUSED gconstpointer data)
{
    static const char *const names[] = {"gpu0", "gpu1", "gpu2", "gpu3"};

    gpus->host = make_gpu_host();
    gpus->ledger = ledger_new();
    gpus->spec = fixture_spec(8);
    gpus->spec.devices = g_ptr_array_new();
    for (unsigned i = 0; i < 4; i++)
        gpus->gpu[i] = (SpecDevice){.name = (char *)names[i], .kind = (char *)"gpu", .locality = LOCALITY_PREFERRED};
    gpus->ib = (SpecDevice){.name = (char *)"ib0", .kind = (char *)"ib", .locality = LOCALITY_PREFERRED};
}

static void gpus_tear_down(Gpus *gpus, G_GNUC_UNUSED gconstpointer data)
{
    host_unref(gpus->host);
    ledger_free(gpus->ledger);
    g_ptr_array_free(gpus->spec.devices, TRUE);
}

#define TEST(function) static void function(Gpus *gpus, G_GNUC_UNUSED gconstpointer data)

/* One GPU of each of the first two switches is taken: a pair is left below the third only. */
TEST(test_one_switch)
{
    g_autoptr(Placement) placement = NULL;

    g_ptr_array_add(gpus->spec.devices, &gpus->gpu[0]);
    g_ptr_array_add(gpus->spec.devices, &gpus->gpu[1]);
    g_ptr_array_add(gpus->spec.devices, &gpus->ib);
    take_device(gpus->ledger, "0000:02:00.0");
    take_device(gpus->ledger, "0000:23:00.0");
    placement = solve(gpus->host, &gpus->spec, gpus->ledger);
    g_assert_cmpuint(g_array_index(placement->cells, PlacementCell, 0).node, ==, 2);
    g_assert_cmpstr(device(placement, 0)->address, ==, "0000:42:00.0");
    g_assert_cmpstr(device(placement, 1)->address, ==, "0000:43:00.0");
    g_assert_cmpstr(device(placement, 2)->address, ==, "0000:44:00.0");
    g_assert_cmpint(device(placement, 2)->cell, ==, 0);
}

/* The node of the pair has no room: near is preferred, so the guest goes beside the nearest and says so. */
TEST(test_preferred)
{
    g_autoptr(Placement) placement = NULL;

    g_ptr_array_add(gpus->spec.devices, &gpus->gpu[0]);
    for (unsigned package = 0; package < 3; package++) {
        for (unsigned i = 2; i < 4; i++) {
            g_autofree char *address = g_strdup_printf("0000:%02x:00.0", package * 0x20 + i);

            take_device(gpus->ledger, address);
        }
    }
    fixture_take(gpus->ledger, "a", "50-63");
    placement = solve(gpus->host, &gpus->spec, gpus->ledger);
    g_assert_cmpuint(g_array_index(placement->cells, PlacementCell, 0).node, ==, 0);
    g_assert_cmpstr(device(placement, 0)->address, ==, "0000:62:00.0");
    g_assert_cmpint(device(placement, 0)->cell, ==, -1);
}

/* Four GPUs required near: two nodes have to be taken though one has the cores. */
TEST(test_required_nodes)
{
    g_autoptr(Placement) placement = NULL;

    for (unsigned i = 0; i < 4; i++) {
        gpus->gpu[i].locality = LOCALITY_REQUIRED;
        g_ptr_array_add(gpus->spec.devices, &gpus->gpu[i]);
    }
    take_device(gpus->ledger, "0000:02:00.0");
    placement = solve(gpus->host, &gpus->spec, gpus->ledger);
    assert_list(placement->reserved, "16-19,32-35");
    g_assert_cmpint(device(placement, 1)->cell, ==, 0);
    g_assert_cmpint(device(placement, 2)->cell, ==, 1);
}

TEST(test_device_refusals)
{
    g_autoptr(GError) error = NULL;

    gpus->gpu[0].locality = LOCALITY_REQUIRED;
    gpus->gpu[0].kind = NULL;
    gpus->gpu[0].address = (char *)"0000:22:00.0";
    g_ptr_array_add(gpus->spec.devices, &gpus->gpu[0]);
    gpus->spec.numa_nodes = 1;
    fixture_take(gpus->ledger, "a", "18-27");
    g_assert_null(placement_solve(gpus->host, &gpus->spec, gpus->ledger, NULL, NULL, &error));
    g_assert_cmpstr(error->message, ==, "guest 'g': needs 4 free cores, and their memory, on the NUMA node of device 'gpu0' "
                    "(locality=required); node 1 has 3 (free 1 core on node 1, or --numa 2, or locality=preferred)");
    g_clear_error(&error);
    take_device(gpus->ledger, "0000:22:00.0");
    g_assert_null(placement_solve(gpus->host, &gpus->spec, gpus->ledger, NULL, NULL, &error));
    g_assert_cmpstr(error->message, ==, "guest 'g': needs device 'gpu0' (0000:22:00.0); 1 would do, but other guests hold it, "
                    "or a device in the same IOMMU group (free one)");
    g_clear_error(&error);
    gpus->gpu[0].address = (char *)"0000:ff:00.0";
    g_assert_null(placement_solve(gpus->host, &gpus->spec, gpus->ledger, NULL, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT);
    g_clear_error(&error);
    gpus->gpu[0].kind = (char *)"gpu";
    g_assert_null(placement_solve(gpus->host, &gpus->spec, gpus->ledger, NULL, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
}

/* A VF by the name of its network; the device whose VFs are in use is not given away itself. */
TEST(test_network)
{
    HostDevice *parent = g_ptr_array_index(gpus->host->devices, 2), *vf = g_ptr_array_index(gpus->host->devices, 11);
    g_autoptr(Placement) placement = NULL, whole = NULL;

    g_free(parent->interface);
    parent->interface = g_strdup("ib0");
    gpus->ib.kind = NULL;
    gpus->ib.network = (char *)"ib0";
    g_ptr_array_add(gpus->spec.devices, &gpus->ib);
    whole = solve(gpus->host, &gpus->spec, gpus->ledger);
    g_assert_cmpstr(device(whole, 0)->address, ==, parent->address);
    parent->vfs_enabled = 1;
    vf->physical = g_strdup(parent->address);
    placement = solve(gpus->host, &gpus->spec, gpus->ledger);
    g_assert_cmpstr(device(placement, 0)->address, ==, vf->address);
    g_assert_cmpuint(g_array_index(placement->cells, PlacementCell, 0).node, ==, 3);
}

/* Who holds one device of an IOMMU group holds them all. */
TEST(test_iommu_group)
{
    HostDevice *first = g_ptr_array_index(gpus->host->devices, 0), *second = g_ptr_array_index(gpus->host->devices, 1);
    g_autoptr(Placement) placement = NULL;

    first->iommu_group = second->iommu_group = 7;
    take_device(gpus->ledger, first->address);
    g_ptr_array_add(gpus->spec.devices, &gpus->gpu[0]);
    placement = solve(gpus->host, &gpus->spec, gpus->ledger);
    g_assert_cmpstr(device(placement, 0)->address, ==, "0000:22:00.0");
}

/* What the node itself needs is given to nobody, nor what shares its IOMMU group; a request for it says why. */
TEST(test_use)
{
    HostDevice *first = g_ptr_array_index(gpus->host->devices, 0), *second = g_ptr_array_index(gpus->host->devices, 1);
    g_autoptr(Placement) placement = NULL;
    g_autoptr(GError) error = NULL;

    first->use = g_strdup("a route of it goes through eth0");
    first->iommu_group = second->iommu_group = 7;
    g_ptr_array_add(gpus->spec.devices, &gpus->gpu[0]);
    placement = solve(gpus->host, &gpus->spec, gpus->ledger);
    g_assert_cmpstr(device(placement, 0)->address, ==, "0000:22:00.0");
    gpus->gpu[0].kind = NULL;
    gpus->gpu[0].address = first->address;
    g_assert_false(placement_could_fit(gpus->host, &gpus->spec, NULL, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT);
    g_assert_nonnull(strstr(error->message, "itself needs 0000:02:00.0: a route of it goes through eth0"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/placement/recorded", test_recorded);
    g_test_add_func("/placement/made-up", test_made_up);
    g_test_add_func("/placement/recorded-gpus", test_recorded_gpus);
    g_test_add_func("/placement/epyc", test_epyc);
    g_test_add_func("/placement/clusters", test_clusters);
    g_test_add_func("/placement/whole-cluster-socket", test_whole_cluster_socket);
    g_test_add_func("/placement/grace", test_grace);
#define ADD(path, function) g_test_add("/placement/" path, Gpus, NULL, gpus_set_up, function, gpus_tear_down)
    ADD("one-switch", test_one_switch);
    ADD("preferred", test_preferred);
    ADD("required-nodes", test_required_nodes);
    ADD("device-refusals", test_device_refusals);
    ADD("network", test_network);
    ADD("iommu-group", test_iommu_group);
    ADD("use", test_use);
    return g_test_run();
}
