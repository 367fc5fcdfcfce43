/*
 * Matching of devices: the best one against all there are, and how much is looked at, which is counted so that it can be
 * bounded whatever the machine's speed.
 */
#include "placement_pci.h"
#include "solver.h"

/* ---- Fixture: a host, who holds what, and wanted devices ---- */

typedef struct {
    Host *host;
    Ledger *ledger;
    Spec spec;
    Survey *survey;
    Devices *devices;
} Case;

static void case_want(Case *c, const char *kind, Locality locality)
{
    SpecDevice *device = g_new0(SpecDevice, 1);

    if (!c->spec.devices)
        c->spec.devices = g_ptr_array_new();
    device->name = g_strdup_printf("dev%02u", c->spec.devices->len);
    device->kind = g_strdup(kind);
    device->locality = locality;
    g_ptr_array_add(c->spec.devices, device);
}

static void case_hold(Case *c, unsigned device)
{
    const char *address = ((HostDevice *)g_ptr_array_index(c->host->devices, device))->address;
    LedgerEntry *entry = ledger_entry_new(address, "holder", 0);

    g_ptr_array_add(entry->devices, g_strdup(address));
    ledger_add(c->ledger, entry);
}

static void case_init(Case *c, const char *synthetic, const FixturePort *ports, unsigned count)
{
    *c = (Case){.host = fixture_pci_host(synthetic, ports, count), .ledger = ledger_new(), .spec = fixture_spec(2)};
}

/* For a guest on node 0 (by survey). */
static guint64 case_match(Case *c, unsigned *ret_choice)
{
    g_autoptr(GError) error = NULL;
    g_autofree gboolean *in = NULL;

    c->survey = survey_new(c->host, c->ledger, NULL, NULL, SMT_SIBLINGS, FALSE);
    c->devices = devices_new(c->survey, &c->spec, FALSE, &error);
    g_assert_no_error(error);
    in = g_new0(gboolean, c->survey->nodes->len);
    in[0] = TRUE;
    return devices_cost(c->devices, in, FALSE, ret_choice);
}

static void case_clear(Case *c)
{
    for (guint i = 0; i < c->spec.devices->len; i++) {
        SpecDevice *device = g_ptr_array_index(c->spec.devices, i);

        g_free(device->name);
        g_free(device->kind);
        g_free(device);
    }
    g_ptr_array_free(c->spec.devices, TRUE);
    devices_free(c->devices);
    survey_free(c->survey);
    ledger_free(c->ledger);
    host_unref(c->host);
}

/* ---- Effort ---- */

/* 8 GPUs and 8 network adapters, each below a port of its own, on two packages; asked for in turn. */
static void set_up_alternating(Case *c)
{
    static const FixturePort ports[] = {{0, 1, 0, 0}, {0, 1, 0, 0}, {0, 1, 0, 0}, {0, 1, 0, 0}, {0, 0, 0, 1}, {0, 0, 0, 1},
                                        {0, 0, 0, 1}, {0, 0, 0, 1}, {1, 1, 0, 0}, {1, 1, 0, 0}, {1, 1, 0, 0}, {1, 1, 0, 0},
                                        {1, 0, 0, 1}, {1, 0, 0, 1}, {1, 0, 0, 1}, {1, 0, 0, 1}};

    case_init(c, "pack:2 [numa] core:4 pu:1", ports, G_N_ELEMENTS(ports));
    for (unsigned i = 0; i < 16; i++)
        case_want(c, i % 2 ? "nic" : "gpu", LOCALITY_PREFERRED);
}

static void test_alternating(void)
{
    unsigned choice[16];
    Case c;

    set_up_alternating(&c);
    g_assert_cmpuint(case_match(&c, choice), ==, (guint64)8 * (survey_distance(c.survey, 0, 1) - 10) << 32 | 16);
    for (unsigned i = 0; i < 16; i++)
        for (unsigned j = 0; j < i; j++)
            g_assert_cmpuint(choice[i], !=, choice[j]);
    g_assert_cmpuint(devices_looks(c.devices), <, 10000);
    g_assert_false(devices_cut_short(c.devices));
    case_clear(&c);
}

static void test_alternating_one_held(void)
{
    g_autoptr(GError) error = NULL;
    Case c;

    set_up_alternating(&c);
    case_hold(&c, 0);
    g_assert_cmpuint(case_match(&c, NULL), ==, G_MAXUINT64);
    g_assert_cmpuint(devices_looks(c.devices), <, 10000);
    g_assert_false(devices_cut_short(c.devices));
    g_assert_null(placement_solve(c.host, &c.spec, c.ledger, NULL, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT);
    case_clear(&c);
}

/* Required ones have no second choice, so that one which may be anywhere has to make room. */
static void test_makes_room(void)
{
    static const FixturePort ports[] = {{0, 1, 0, 0}, {1, 1, 0, 0}};
    unsigned choice[2];
    Case c;

    case_init(&c, "pack:2 [numa] core:2 pu:1", ports, G_N_ELEMENTS(ports));
    case_want(&c, "gpu", LOCALITY_PREFERRED);
    case_want(&c, "gpu", LOCALITY_REQUIRED);
    g_assert_cmpuint(case_match(&c, choice), ==, (guint64)(survey_distance(c.survey, 0, 1) - 10) << 32 | 2);
    g_assert_cmpuint(choice[0], ==, 1);
    g_assert_cmpuint(choice[1], ==, 0);
    case_clear(&c);
}

/* Which are too few, where several requests want the same ones; the adapter is none of them. */
static void test_short(void)
{
    static const FixturePort ports[] = {{0, 1, 1, 0}, {1, 1, 0, 0}};
    g_autoptr(GError) error = NULL;
    Case c;

    case_init(&c, "pack:2 [numa] core:2 pu:1", ports, G_N_ELEMENTS(ports));
    case_want(&c, "gpu", LOCALITY_PREFERRED);
    case_want(&c, "gpu", LOCALITY_REQUIRED);
    case_want(&c, "ib", LOCALITY_PREFERRED);
    case_hold(&c, 0);
    g_assert_null(placement_solve(c.host, &c.spec, c.ledger, NULL, NULL, &error));
    g_assert_cmpstr(error->message, ==, "guest 'g': needs 2 devices of kind gpu at once; 1 that would do is free "
                    "(free 1 that other guests hold, or ask for at most 1 of them)");
    g_clear_error(&error);
    case_want(&c, "gpu", LOCALITY_PREFERRED);
    g_free(((SpecDevice *)g_ptr_array_index(c.spec.devices, 3))->kind);
    ((SpecDevice *)g_ptr_array_index(c.spec.devices, 3))->kind = NULL;
    ((SpecDevice *)g_ptr_array_index(c.spec.devices, 3))->address = ((HostDevice *)g_ptr_array_index(c.host->devices, 2))->address;
    g_assert_null(placement_solve(c.host, &c.spec, c.ledger, NULL, NULL, &error));
    g_assert_cmpstr(error->message, ==, "guest 'g': needs 3 devices 'dev00', 'dev01', 'dev03' at once; 1 that would do is free "
                    "(ask for at most 1 of them)");
    case_clear(&c);
}

/* A covering problem made to be hard: ports with different mixtures, all far, and kinds that no port has enough of. The effort is
 * bounded; where it is not enough, that is said, and the answer is still a match. */
static void test_bounded(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);
    gboolean any_cut = FALSE;

    for (unsigned round = 0; round < 20; round++) {
        FixturePort ports[28];
        unsigned choice[64], have[3] = {0};
        static const char *const kinds[] = {"gpu", "ib", "nic"};
        Case c;

        for (unsigned i = 0; i < G_N_ELEMENTS(ports); i++) {
            unsigned counts[3] = {0};

            for (unsigned d = 0; d < 3; d++)
                counts[g_rand_int_range(rand, 0, 3)]++;
            ports[i] = (FixturePort){i / 7, counts[0], counts[1], counts[2]};
            for (unsigned k = 0; k < 3; k++)
                have[k] += counts[k];
        }
        case_init(&c, "pack:4 [numa] core:2 pu:1", ports, G_N_ELEMENTS(ports));
        for (unsigned k = 0; k < 3; k++)
            for (unsigned i = 0; i < have[k] * 2 / 3; i++)
                case_want(&c, kinds[k], LOCALITY_ANY);
        g_assert_cmpuint(case_match(&c, choice), !=, G_MAXUINT64);
        for (unsigned i = 0; i < c.spec.devices->len; i++)
            for (unsigned j = 0; j < i; j++)
                g_assert_cmpuint(choice[i], !=, choice[j]);
        g_assert_cmpuint(devices_looks(c.devices), <, (1 << 20) + 10000);
        any_cut |= devices_cut_short(c.devices);
        case_clear(&c);
    }
    g_assert_true(any_cut); /* else this test has to be made harder */
}

/* ---- The best ---- */

/* All ways: {near, ports, any} of the best, or FALSE. */
static gboolean try_all(const Case *c, const unsigned *ports, unsigned request, guint used, guint64 near, guint64 any, guint64 *best)
{
    gboolean found = FALSE;

    if (request == c->spec.devices->len) {
        guint64 count = 0, seen = 0;

        for (guint i = 0; i < c->host->devices->len; i++)
            if (used & 1u << i && !(seen & G_GUINT64_CONSTANT(1) << ports[i])) {
                seen |= G_GUINT64_CONSTANT(1) << ports[i];
                count++;
            }
        if (best[0] == G_MAXUINT64 || near < best[0] || (near == best[0] && (count < best[1] || (count == best[1] && any < best[2])))) {
            best[0] = near;
            best[1] = count;
            best[2] = any;
        }
        return TRUE;
    }

    const SpecDevice *wanted = g_ptr_array_index(c->spec.devices, request);

    for (guint i = 0; i < c->host->devices->len; i++) {
        const HostDevice *device = g_ptr_array_index(c->host->devices, i);
        guint64 far = survey_distance(c->survey, device->node, (int)survey_node(c->survey, 0)->host_node->node) - 10;

        if (used & 1u << i || !placement_device_would_do(c->host, device, wanted) ||
            (wanted->locality == LOCALITY_REQUIRED && far) || ledger_device_owner(c->ledger, device->address))
            continue;
        found |= try_all(c, ports, request + 1, used | 1u << i, near + (wanted->locality == LOCALITY_ANY ? 0 : far),
                         any + (wanted->locality == LOCALITY_ANY ? far : 0), best);
    }
    return found;
}

static void test_all_ways(void)
{
    static const char *const kinds[] = {"gpu", "ib", "nic"};
    g_autoptr(GRand) rand = g_rand_new_with_seed(20261126);
    unsigned solved = 0, refused = 0;

    for (unsigned round = 0; round < 400; round++) {
        FixturePort ports[5];
        unsigned port_of[32], devices = 0, wanted = (unsigned)g_rand_int_range(rand, 1, 5), choice[8];
        guint64 best[3] = {G_MAXUINT64, 0, 0}, found;
        g_autoptr(GError) error = NULL;
        Case c;

        for (unsigned i = 0; i < G_N_ELEMENTS(ports); i++) {
            ports[i] = (FixturePort){i / 2, (unsigned)g_rand_int_range(rand, 0, 3), (unsigned)g_rand_int_range(rand, 0, 2),
                                     (unsigned)g_rand_int_range(rand, 0, 2)};
            for (unsigned d = 0; d < ports[i].gpus + ports[i].adapters + ports[i].nics; d++)
                port_of[devices++] = i;
        }
        case_init(&c, "pack:3 [numa] core:2 pu:1", ports, G_N_ELEMENTS(ports));
        g_assert_cmpuint(c.host->devices->len, ==, devices);
        for (unsigned i = 0; i < wanted; i++)
            case_want(&c, kinds[g_rand_int_range(rand, 0, 3)], (Locality)g_rand_int_range(rand, LOCALITY_ANY, LOCALITY_REQUIRED + 1));
        if (devices && g_rand_boolean(rand))
            case_hold(&c, (unsigned)g_rand_int_range(rand, 0, (gint32)devices));
        c.survey = survey_new(c.host, c.ledger, NULL, NULL, SMT_SIBLINGS, FALSE);
        c.devices = devices_new(c.survey, &c.spec, FALSE, &error);
        if (!c.devices) { /* none of a kind */
            g_assert_false(try_all(&c, port_of, 0, 0, 0, 0, best));
            refused++;
        } else {
            gboolean in[3] = {TRUE, FALSE, FALSE};

            found = devices_cost(c.devices, in, FALSE, choice);
            if (!try_all(&c, port_of, 0, 0, 0, 0, best)) {
                g_assert_cmpuint(found, ==, G_MAXUINT64);
                refused++;
            } else {
                guint64 any = 0;

                g_assert_cmpuint(found, ==, best[0] << 32 | best[1]);
                for (unsigned i = 0; i < wanted; i++)
                    if (devices_wanted(c.devices, i)->locality == LOCALITY_ANY)
                        any += survey_distance(c.survey, devices_get(c.devices, choice[i])->node, 0) - 10;
                g_assert_cmpuint(any, ==, best[2]);
                solved++;
            }
        }
        case_clear(&c);
    }
    g_assert_cmpuint(solved, >, 80);
    g_assert_cmpuint(refused, >, 80);
}

/* ---- Too many choices of nodes ---- */

/* 24 nodes, one GPU on each. */
static void set_up_nodes(Case *c)
{
    case_init(c, "pack:2 numa:12 core:2 pu:1", NULL, 0);
    for (unsigned i = 0; i < 24; i++) {
        HostDevice *device = g_new0(HostDevice, 1);

        device->address = g_strdup_printf("0000:%02x:00.0", i + 1);
        device->class_code = 0x030200;
        device->node = (int)i;
        device->iommu_group = (int)i;
        g_ptr_array_add(c->host->devices, device);
    }
    c->spec.cpus = 12;
    c->spec.memory_bytes = 12 * 64 * HVM_MIB;
    for (unsigned i = 0; i < 6; i++)
        case_want(c, "gpu", LOCALITY_REQUIRED);
}

static gboolean has_note(const Placement *placement, const char *words)
{
    for (guint i = 0; i < placement->notes->len; i++)
        if (strstr(g_ptr_array_index(placement->notes, i), words))
            return TRUE;
    return FALSE;
}

/* The GPUs are where there is nothing else left: 190,051 choices of up to six of 24 nodes, of which one will do. */
static void test_many_nodes(void)
{
    g_autoptr(Placement) placement = NULL;
    g_autoptr(GError) error = NULL;
    Case c;

    set_up_nodes(&c);
    for (unsigned i = 0; i < 24; i++)
        if (i % 4 != 1)
            case_hold(&c, i);
    placement = placement_solve(c.host, &c.spec, c.ledger, NULL, NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(placement->cells->len, ==, 6);
    for (guint i = 0; i < placement->cells->len; i++)
        g_assert_cmpuint(g_array_index(placement->cells, PlacementCell, i).node, ==, 4 * i + 1);
    g_assert_true(has_note(placement, "Not every placement was looked at"));
    case_clear(&c);
}

/* Only the last twelve nodes have memory, of which only the last six have free GPUs: what was not found is not said to be
 * impossible. */
static void test_many_nodes_refused(void)
{
    g_autoptr(GError) error = NULL;
    Case c;

    set_up_nodes(&c);
    c.spec.numa_nodes = 6;
    for (unsigned i = 0; i < 24; i++)
        fixture_set_pool(c.host, i, 4 * HVM_KIB, i < 12 ? 64 * HVM_MIB : HVM_GIB);
    for (unsigned i = 12; i < 18; i++)
        case_hold(&c, i);
    g_assert_null(placement_solve(c.host, &c.spec, c.ledger, NULL, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT);
    g_assert_nonnull(strstr(error->message, "not every choice of NUMA nodes and devices was tried, as there are too many"));
    case_clear(&c);
}

/* No GPU's node has cores: the nearest of the others are taken, not the lowest. */
static void test_many_nodes_near(void)
{
    g_autoptr(Placement) placement = NULL;
    g_autoptr(GError) error = NULL;
    Case c;

    set_up_nodes(&c);
    for (guint i = 0; i < c.spec.devices->len; i++)
        ((SpecDevice *)g_ptr_array_index(c.spec.devices, i))->locality = LOCALITY_PREFERRED;
    for (unsigned i = 0; i < 18; i++)
        case_hold(&c, i);
    fixture_take(c.ledger, "other", "36-47");
    placement = placement_solve(c.host, &c.spec, c.ledger, NULL, NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(placement->cells->len, ==, 6);
    for (guint i = 0; i < placement->cells->len; i++)
        g_assert_cmpuint(g_array_index(placement->cells, PlacementCell, i).node, ==, 12 + i);
    case_clear(&c);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/match/alternating", test_alternating);
    g_test_add_func("/match/alternating-one-held", test_alternating_one_held);
    g_test_add_func("/match/makes-room", test_makes_room);
    g_test_add_func("/match/short", test_short);
    g_test_add_func("/match/bounded", test_bounded);
    g_test_add_func("/match/all-ways", test_all_ways);
    g_test_add_func("/match/many-nodes", test_many_nodes);
    g_test_add_func("/match/many-nodes-refused", test_many_nodes_refused);
    g_test_add_func("/match/many-nodes-near", test_many_nodes_near);
    return g_test_run();
}
