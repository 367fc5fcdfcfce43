/*
 * Placement against brute force: on small random hosts every set of cores is tried, and judged by the definition of
 * placement.h written out plainly. The solver must refuse where none fits, and otherwise be as good, criterion by criterion.
 * Nothing here uses the solver's own files but its public functions.
 */
#include "placement_pci.h"

enum { UNITS_MAX = 14, CRITERIA = 13 };

/* A core (or with smt=any a PU) that may be given. */
typedef struct {
    unsigned node, package, l3, width;
    hwloc_bitmap_t pus;
    gboolean isolated;
} Brick;

typedef struct {
    Host *host;
    Ledger *ledger;
    Spec spec;
    Allowed allowed;
    PlacementPolicy policy;
    hwloc_bitmap_t taken, housekeeping;
    unsigned ports[8]; /* by device: the root port that it is below; 0: it is not told */
    GArray *bricks; /* of Brick */
    char *text;     /* for the report of a failure */
} Case;

/* Smaller is better, from the front. */
typedef struct {
    gboolean fits;
    guint64 criteria[CRITERIA];
} Verdict;

static unsigned pick(GRand *rand, unsigned low, unsigned high)
{
    return (unsigned)g_rand_int_range(rand, (gint32)low, (gint32)high + 1);
}

static gboolean chance(GRand *rand, unsigned percent)
{
    return pick(rand, 1, 100) <= percent;
}

/* ---- The case ---- */

static unsigned l3_of(const Host *host, unsigned pu)
{
    hwloc_obj_t l3 = host_l3_of(host, pu);

    return l3 ? (unsigned)hwloc_bitmap_first(l3->cpuset) : G_MAXUINT;
}

static unsigned package_of(const Host *host, unsigned pu)
{
    hwloc_obj_t package = hwloc_get_ancestor_obj_by_type(host->topology, HWLOC_OBJ_PACKAGE, host_core_of(host, pu));

    return package ? package->logical_index : 0;
}

static gboolean may_use(const Case *c, unsigned pu)
{
    const HostNode *home = host_home_node(c->host, pu);

    return hwloc_bitmap_isset(c->host->usable_pus, pu) && !hwloc_bitmap_isset(c->housekeeping, pu) &&
           !hwloc_bitmap_isset(c->taken, pu) && (!c->allowed.pus || hwloc_bitmap_isset(c->allowed.pus, pu)) &&
           home->general_purpose && (!c->allowed.nodes || hwloc_bitmap_isset(c->allowed.nodes, home->node));
}

static void add_brick(Case *c, hwloc_bitmap_t pus)
{
    unsigned pu = (unsigned)hwloc_bitmap_first(pus);
    Brick brick = {.node = host_home_node(c->host, pu)->node, .package = package_of(c->host, pu), .l3 = l3_of(c->host, pu),
                   .width = (unsigned)hwloc_bitmap_weight(pus), .pus = hwloc_bitmap_dup(pus),
                   .isolated = hwloc_bitmap_isincluded(pus, c->host->isolated)};

    g_array_append_val(c->bricks, brick);
}

static void list_bricks(Case *c)
{
    hwloc_obj_t core = NULL;
    hwloc_bitmap_t usable = hwloc_bitmap_alloc();

    while ((core = hwloc_get_next_obj_by_type(c->host->topology, HWLOC_OBJ_CORE, core))) {
        gboolean whole = TRUE;
        unsigned pu;

        hwloc_bitmap_and(usable, core->cpuset, c->host->usable_pus);
        hwloc_bitmap_foreach_begin(pu, usable) {
            whole = whole && may_use(c, pu);
            if (c->spec.smt == SMT_ANY && may_use(c, pu)) {
                hwloc_bitmap_t alone = hwloc_bitmap_alloc();

                hwloc_bitmap_set(alone, pu);
                add_brick(c, alone);
                hwloc_bitmap_free(alone);
            }
        } hwloc_bitmap_foreach_end();
        if (c->spec.smt != SMT_ANY && whole && !hwloc_bitmap_iszero(usable))
            add_brick(c, usable);
    }
    hwloc_bitmap_free(usable);
}

static void random_bitmap(GRand *rand, const Host *host, unsigned percent, hwloc_bitmap_t bitmap)
{
    unsigned pu;

    hwloc_bitmap_foreach_begin(pu, host->usable_pus) {
        if (chance(rand, percent))
            hwloc_bitmap_set(bitmap, pu);
    } hwloc_bitmap_foreach_end();
}

/* "2,0,3,1": numbers of the operating system, in the order of the topology. Caller frees. */
static char *random_indexes(GRand *rand, unsigned count)
{
    g_autofree unsigned *numbers = g_new(unsigned, count);
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < count; i++)
        numbers[i] = i;
    for (unsigned i = count; i-- > 0;) {
        unsigned j = pick(rand, 0, i), other = numbers[j];

        numbers[j] = numbers[i];
        g_string_append_printf(text, "%s%u", text->len ? "," : "", other);
    }
    return g_string_free(text, FALSE);
}

static int compare_addresses(gconstpointer a, gconstpointer b)
{
    return strcmp((*(HostDevice *const *)a)->address, (*(HostDevice *const *)b)->address);
}

/* Two to four devices below ports of random packages, for topologies that are made of packages. */
static Host *host_with_ports(GRand *rand, const char *synthetic, unsigned packages, unsigned *ports)
{
    FixturePort made[2];
    unsigned devices = 0;
    Host *host;

    for (unsigned i = 0; i < G_N_ELEMENTS(made); i++) {
        made[i] = (FixturePort){pick(rand, i ? made[0].package : 0, packages - 1), pick(rand, 1, 2), 0, 0};
        for (unsigned d = 0; d < made[i].gpus; d++)
            ports[devices++] = i + 1;
    }
    host = fixture_pci_host(synthetic, made, G_N_ELEMENTS(made));
    g_assert_cmpuint(host->devices->len, ==, devices);
    g_ptr_array_sort(host->devices, compare_addresses); /* as the ports are numbered */
    return host;
}

static Host *random_host(GRand *rand, unsigned *ports)
{
    static const struct {
        const char *above;         /* the levels above the cores, %s: numbers of NUMA nodes */
        unsigned packages, groups, nodes, least, most; /* groups: of cores; least, most: cores in each */
    } shapes[] = {
        {"pack:2 numa:1%s l3:1", 2, 2, 2, 1, 2}, {"pack:2 numa:2%s l3:1", 2, 4, 4, 1, 2}, {"pack:2 numa:3%s l3:1", 2, 6, 6, 1, 2},
        {"pack:2 numa:1%s l3:2", 2, 4, 2, 1, 3}, {"pack:1 numa:1%s l3:1", 1, 1, 1, 3, 3}, {"pack:1 numa:1%s l3:2", 1, 2, 1, 3, 3},
        {"pack:1 numa:1%s l3:4", 1, 4, 1, 3, 3}, {"numa:2%s pack:2 l3:1", 4, 4, 2, 1, 3}, {"pack:2 numa:2%s", 2, 4, 4, 1, 3},
        {"pack:1 numa:4%s l3:1", 1, 4, 4, 2, 3}, {"pack:2 [numa] [numa] l3:2", 2, 4, 0, 1, 2},
    };
    unsigned shape = pick(rand, 0, G_N_ELEMENTS(shapes) - 1), threads = pick(rand, 1, 2);
    unsigned cores = pick(rand, shapes[shape].least, shapes[shape].most), nodes = shapes[shape].nodes;
    g_autofree char *pus = random_indexes(rand, shapes[shape].groups * cores * threads);
    g_autofree char *numbers = nodes ? random_indexes(rand, nodes) : NULL;
    g_autofree char *indexes = numbers && chance(rand, 40) ? g_strdup_printf("(indexes=%s)", numbers) : g_strdup("");
    g_auto(GStrv) parts = g_strsplit(shapes[shape].above, "%s", 2);
    g_autofree char *above = g_strconcat(parts[0], nodes ? indexes : "", parts[1], NULL);
    g_autofree char *synthetic = chance(rand, 50) ? g_strdup_printf("%s core:%u pu:%u(indexes=%s)", above, cores, threads, pus)
                                                  : g_strdup_printf("%s core:%u pu:%u", above, cores, threads);

    return chance(rand, 20) ? host_with_ports(rand, synthetic, shapes[shape].packages, ports) : fixture_host(synthetic);
}

static void random_memory(GRand *rand, Host *host)
{
    for (guint i = 0; i < host->nodes->len; i++) {
        unsigned node = ((HostNode *)g_ptr_array_index(host->nodes, i))->node;

        if (chance(rand, 80))
            fixture_set_pool(host, node, 4 * HVM_KIB, pick(rand, 2, 12) * 256 * HVM_MIB);
        if (chance(rand, 60))
            fixture_set_pool(host, node, 2 * HVM_MIB, pick(rand, 0, 600) * 2 * HVM_MIB);
        if (chance(rand, 50))
            fixture_set_pool(host, node, HVM_GIB, pick(rand, 0, 3) * HVM_GIB);
    }
}

/* Pages promised to others, so that the free ones are not simply the pool. */
static void random_promises(GRand *rand, Case *c)
{
    for (unsigned i = 0; i < 2; i++) {
        g_autofree char *name = g_strdup_printf("other-%u", i);
        LedgerEntry *entry = ledger_entry_new(name, name, 1000);
        LedgerMemory memory = {((HostNode *)g_ptr_array_index(c->host->nodes, pick(rand, 0, c->host->nodes->len - 1)))->node,
                               chance(rand, 50) ? 2 * HVM_MIB : 4 * HVM_KIB, pick(rand, 0, 256) * 2 * HVM_MIB};

        random_bitmap(rand, c->host, 12, entry->pus);
        g_array_append_val(entry->memory, memory);
        entry->settled = chance(rand, 50);
        ledger_add(c->ledger, entry);
    }
}

static void add_device(Host *host, unsigned number, int node)
{
    HostDevice *device = g_new0(HostDevice, 1);

    device->address = g_strdup_printf("0000:%02x:00.0", number);
    device->class_code = 0x030200;
    device->node = node;
    device->iommu_group = (int)number;
    g_ptr_array_add(host->devices, device);
}

static void random_devices(GRand *rand, Case *c)
{
    unsigned there = pick(rand, 1, 3), wanted;

    for (unsigned i = 0; i < there && !c->ports[0]; i++)
        add_device(c->host, i + 1, -1);
    wanted = pick(rand, 1, MIN(c->host->devices->len, 3));
    for (unsigned i = 0; i < c->host->devices->len; i++)
        ((HostDevice *)g_ptr_array_index(c->host->devices, i))->node =
            (int)((HostNode *)g_ptr_array_index(c->host->nodes, pick(rand, 0, c->host->nodes->len - 1)))->node;
    c->spec.devices = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < wanted; i++) {
        SpecDevice *device = g_new0(SpecDevice, 1);

        device->name = (char *)(i == 0 ? "gpu0" : i == 1 ? "gpu1" : "gpu2");
        device->kind = (char *)"gpu";
        device->locality = (Locality)pick(rand, LOCALITY_ANY, LOCALITY_REQUIRED);
        g_ptr_array_add(c->spec.devices, device);
    }
}

/* Cores which lost a thread, and some whose whole number is unlike the others'. */
static void random_offline(GRand *rand, Host *host)
{
    unsigned pu;

    hwloc_bitmap_foreach_begin(pu, host->usable_pus) {
        if (chance(rand, 25) && hwloc_bitmap_weight(host->usable_pus) > 1)
            hwloc_bitmap_clr(host->usable_pus, pu);
    } hwloc_bitmap_foreach_end();
}

static void random_request(GRand *rand, Case *c)
{
    unsigned pus = (unsigned)hwloc_bitmap_weight(c->host->usable_pus);
    unsigned nodes = pick(rand, 1, 3), sockets = pick(rand, 1, 2);
    guint64 megabytes[] = {pick(rand, 1, 40) * 64, pick(rand, 1, 6) * 1024, pick(rand, 65, 2000)};

    c->spec = fixture_spec(pick(rand, 1, MAX(pus * 2 / 3, 1)));
    c->spec.smt = (SmtPolicy)pick(rand, SMT_SIBLINGS, SMT_ANY);
    c->spec.numa_nodes = chance(rand, 25) ? MIN(nodes, c->spec.cpus) : 0;
    c->spec.sockets = chance(rand, 15) ? MIN(sockets, c->spec.cpus) : 0;
    c->spec.spread = !c->spec.numa_nodes && chance(rand, 15);
    c->spec.emulator = chance(rand, 20) ? EMULATOR_DEDICATED : EMULATOR_SHARED;
    c->spec.memory_bytes = megabytes[pick(rand, 0, 2)] * HVM_MIB;
    c->spec.page_bytes = chance(rand, 50) ? PAGES_AUTO : chance(rand, 50) ? HVM_GIB : 2 * HVM_MIB;
    if (c->spec.page_bytes && c->spec.memory_bytes % c->spec.page_bytes)
        c->spec.page_bytes = 4 * HVM_KIB;
}

static char *describe_case(const Case *c)
{
    g_autofree char *taken = host_format_list(c->taken), *house = host_format_list(c->housekeeping);
    g_autofree char *pus = c->allowed.pus ? host_format_list(c->allowed.pus) : g_strdup("all");
    g_autofree char *nodes = c->allowed.nodes ? host_format_list(c->allowed.nodes) : g_strdup("all");
    g_autofree char *usable = host_format_list(c->host->usable_pus), *isolated = host_format_list(c->host->isolated);
    GString *text = g_string_new(NULL);

    g_string_printf(text, "%s, usable %s, taken %s, housekeeping %s, isolated %s, allowed %s nodes %s; cpus %u smt %d numa %u "
                    "sockets %u spread %d emulator %d memory %" G_GUINT64_FORMAT "M pages %" G_GUINT64_FORMAT "K",
                    c->host->description, usable, taken, house, isolated, pus, nodes, c->spec.cpus, (int)c->spec.smt,
                    c->spec.numa_nodes, c->spec.sockets, c->spec.spread, (int)c->spec.emulator, c->spec.memory_bytes / HVM_MIB,
                    c->spec.page_bytes / HVM_KIB);
    for (guint i = 0; i < c->host->nodes->len; i++) {
        const HostNode *node = g_ptr_array_index(c->host->nodes, i);

        g_string_append_printf(text, "; node %u free 4K %" G_GINT64_FORMAT "M 2M %" G_GINT64_FORMAT "M 1G %" G_GINT64_FORMAT "M",
                               node->node, (gint64)ledger_free_bytes(c->ledger, c->host, node->node, 4 * HVM_KIB) >> 20,
                               (gint64)ledger_free_bytes(c->ledger, c->host, node->node, 2 * HVM_MIB) >> 20,
                               (gint64)ledger_free_bytes(c->ledger, c->host, node->node, HVM_GIB) >> 20);
    }
    for (guint i = 0; c->spec.devices && i < c->host->devices->len; i++)
        g_string_append_printf(text, "; device on %d below %u", ((HostDevice *)g_ptr_array_index(c->host->devices, i))->node,
                               c->ports[i]);
    for (guint i = 0; c->spec.devices && i < c->spec.devices->len; i++)
        g_string_append_printf(text, "; wanted %d", (int)((SpecDevice *)g_ptr_array_index(c->spec.devices, i))->locality);
    return g_string_free(text, FALSE);
}

static void clear_brick(gpointer pointer)
{
    hwloc_bitmap_free(((Brick *)pointer)->pus);
}

static void case_set_up(Case *c, GRand *rand)
{
    memset(c, 0, sizeof *c);
    c->host = random_host(rand, c->ports);
    c->ledger = ledger_new();
    if (c->host->nodes->len > 1 && chance(rand, 10)) /* memory of something else than the CPUs */
        ((HostNode *)g_ptr_array_index(c->host->nodes, pick(rand, 0, c->host->nodes->len - 1)))->general_purpose = FALSE;
    if (chance(rand, 25))
        random_offline(rand, c->host);
    random_memory(rand, c->host);
    random_promises(rand, c);
    if (chance(rand, 30))
        random_bitmap(rand, c->host, 60, c->host->isolated);
    random_request(rand, c);
    c->housekeeping = hwloc_bitmap_alloc();
    if (chance(rand, 30))
        random_bitmap(rand, c->host, 15, c->housekeeping);
    c->policy.housekeeping = c->housekeeping;
    if (chance(rand, 30)) {
        c->policy.disk_nodes = hwloc_bitmap_alloc();
        hwloc_bitmap_set(c->policy.disk_nodes, pick(rand, 0, 4));
    }
    if (chance(rand, 25)) {
        c->allowed.pus = hwloc_bitmap_alloc();
        random_bitmap(rand, c->host, 80, c->allowed.pus);
    }
    if (chance(rand, 15)) {
        c->allowed.nodes = hwloc_bitmap_alloc();
        hwloc_bitmap_set_range(c->allowed.nodes, pick(rand, 0, 1), (int)pick(rand, 1, 3));
    }
    if (c->ports[0] || chance(rand, 15))
        random_devices(rand, c);
    c->taken = ledger_taken_pus(c->ledger);
    c->bricks = g_array_new(FALSE, TRUE, sizeof(Brick));
    g_array_set_clear_func(c->bricks, clear_brick);
    list_bricks(c);
    c->text = describe_case(c);
}

static void case_tear_down(Case *c)
{
    g_array_free(c->bricks, TRUE);
    g_clear_pointer(&c->spec.devices, g_ptr_array_unref);
    hwloc_bitmap_free(c->taken);
    hwloc_bitmap_free(c->housekeeping);
    hwloc_bitmap_free(c->policy.disk_nodes);
    hwloc_bitmap_free(c->allowed.pus);
    hwloc_bitmap_free(c->allowed.nodes);
    host_unref(c->host);
    ledger_free(c->ledger);
    g_free(c->text);
}

/* ---- Judging one choice ---- */

#define brick(c, i) (&g_array_index((c)->bricks, Brick, (i)))

typedef struct {
    unsigned node, share; /* of the vCPUs, in what the choice is counted in */
} Part;

static guint64 granule_of(const Spec *spec)
{
    if (spec->page_bytes > 4 * HVM_KIB)
        return spec->page_bytes;
    return spec->memory_bytes % (2 * HVM_MIB) == 0 ? 2 * HVM_MIB : HVM_MIB;
}

/* Page size that a cell gets, or 0. */
static guint64 page_size_for(const Case *c, unsigned node, guint64 bytes)
{
    static const guint64 sizes[] = {HVM_GIB, 2 * HVM_MIB, 4 * HVM_KIB};

    for (unsigned i = 0; i < 3; i++) {
        gboolean there = host_node_pages(host_find_node(c->host, node), sizes[i]) != NULL;
        guint64 room = ledger_free_bytes(c->ledger, c->host, node, sizes[i]);

        /* A host that does not tell its memory does not tell its pools. */
        if (!there && host_find_node(c->host, node)->memory_bytes == HOST_BYTES_UNKNOWN && c->spec.page_bytes)
            room = HOST_BYTES_UNKNOWN;
        if ((c->spec.page_bytes == PAGES_AUTO || c->spec.page_bytes == sizes[i]) && bytes % sizes[i] == 0 && bytes <= room)
            return sizes[i];
    }
    return 0;
}

/* Each part gets its share rounded down or up: the fewest cells on 4 KiB pages, or -1 where no way fits. */
static int share_memory(const Case *c, const Part *parts, unsigned count, unsigned total, guint64 left)
{
    guint64 granules = c->spec.memory_bytes / granule_of(&c->spec);
    int best = -1;

    if (count == 0)
        return left == 0 ? 0 : -1;
    for (unsigned up = 0; up < 2; up++) {
        guint64 mine = (granules * parts->share + (up ? total - 1 : 0)) / total;
        guint64 page = mine && mine <= left ? page_size_for(c, parts->node, mine * granule_of(&c->spec)) : 0;
        int rest = page ? share_memory(c, parts + 1, count - 1, total, left - mine) : -1;

        if (rest < 0)
            continue;
        rest += c->spec.page_bytes == PAGES_AUTO && page == 4 * HVM_KIB;
        best = best < 0 ? rest : MIN(best, rest);
    }
    return best;
}

/* -1 for a node without CPUs. */
static int package_of_node(const Case *c, unsigned node)
{
    int pu = hwloc_bitmap_first(host_find_node(c->host, node)->pus);

    return pu < 0 ? -1 : (int)package_of(c->host, (unsigned)pu);
}

/* As the solver has it where the firmware tells nothing: 10, same package 15, 20. */
static unsigned distance(const Case *c, unsigned a, unsigned b)
{
    int package = package_of_node(c, a);

    return a == b ? 10 : package >= 0 && package == package_of_node(c, b) ? 15 : 20;
}

/* Root ports of the devices `used`; one that is not told counts for each. */
static unsigned count_ports(const Case *c, guint used)
{
    unsigned count = 0, seen = 0;

    for (guint i = 0; i < c->host->devices->len; i++) {
        if (!(used & 1u << i) || (c->ports[i] && seen & 1u << c->ports[i]))
            continue;
        seen |= 1u << c->ports[i];
        count++;
    }
    return count;
}

/* Least sum of distances of those that ought to be near, then of ports, in the low 8 bits; or -1. */
static gint64 match_devices(const Case *c, const Part *parts, unsigned count, unsigned request, guint used, gint64 so_far)
{
    gint64 best = -1;

    if (!c->spec.devices || request == c->spec.devices->len)
        return so_far << 8 | count_ports(c, used);

    const SpecDevice *wanted = g_ptr_array_index(c->spec.devices, request);

    for (guint i = 0; i < c->host->devices->len; i++) {
        const HostDevice *device = g_ptr_array_index(c->host->devices, i);
        unsigned near = 255;
        gint64 all;

        for (unsigned p = 0; p < count; p++)
            near = MIN(near, distance(c, parts[p].node, (unsigned)device->node));
        if (used & (1u << i) || (wanted->locality == LOCALITY_REQUIRED && near != 10))
            continue;
        all = match_devices(c, parts, count, request + 1, used | 1u << i,
                            so_far + (wanted->locality == LOCALITY_ANY ? 0 : near - 10));
        if (all >= 0)
            best = best < 0 ? all : MIN(best, all);
    }
    return best;
}

/* Among `pus`, some held (by others or by `reserved`) and some not. */
static gboolean is_partial(const Case *c, hwloc_const_bitmap_t pus, hwloc_const_bitmap_t reserved)
{
    gboolean some = FALSE, others = FALSE;
    unsigned pu;

    hwloc_bitmap_foreach_begin(pu, pus) {
        gboolean held = hwloc_bitmap_isset(c->taken, pu) || hwloc_bitmap_isset(reserved, pu);

        some |= held;
        others |= !held;
    } hwloc_bitmap_foreach_end();
    return some && others;
}

/* Counts groups of PUs (by `key`) left partial. */
static guint64 count_partial(const Case *c, hwloc_const_bitmap_t reserved, gboolean l3s)
{
    g_autoptr(GHashTable) groups =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)(void (*)(void))hwloc_bitmap_free);
    GHashTableIter iter;
    gpointer group;
    guint64 partial = 0;
    unsigned pu;

    hwloc_bitmap_foreach_begin(pu, c->host->usable_pus) {
        unsigned node = host_home_node(c->host, pu)->node;
        char *key = l3s ? g_strdup_printf("%u %u %u", node, package_of(c->host, pu), l3_of(c->host, pu))
                        : g_strdup_printf("%u", node);

        if (hwloc_bitmap_isset(c->housekeeping, pu)) {
            g_free(key);
            continue;
        }
        group = g_hash_table_lookup(groups, key);
        if (!group) {
            group = hwloc_bitmap_alloc();
            g_hash_table_insert(groups, g_strdup(key), group);
        }
        hwloc_bitmap_set(group, pu);
        g_free(key);
    } hwloc_bitmap_foreach_end();
    g_hash_table_iter_init(&iter, groups);
    while (g_hash_table_iter_next(&iter, NULL, &group))
        partial += is_partial(c, group, reserved);
    return partial;
}

/* How a set of bricks is counted: all of one width; or threads, where widths are mixed. */
typedef struct {
    unsigned rank, width; /* width 0: any, counted in threads if weighted */
    gboolean weighted;
    unsigned want, idle;  /* idle: threads that one core has to spare */
    unsigned emulator;    /* weighted: threads of the emulator's core, if it has one */
} Counting;

static unsigned weight_of(const Counting *counting, const Brick *b)
{
    return counting->weighted ? b->width : 1;
}

/* Whether PUs that guests could have in this node are in more than one package. */
static gboolean has_several_packages(const Case *c, unsigned node)
{
    int first = -1;
    unsigned pu;

    hwloc_bitmap_foreach_begin(pu, c->host->usable_pus) {
        if (host_home_node(c->host, pu)->node != node || hwloc_bitmap_isset(c->housekeeping, pu))
            continue;
        if (first >= 0 && (unsigned)first != package_of(c->host, pu))
            return TRUE;
        first = (int)package_of(c->host, pu);
    } hwloc_bitmap_foreach_end();
    return FALSE;
}

static Verdict judge(const Case *c, guint mask, int emulator, const Counting *counting)
{
    Part parts[UNITS_MAX] = {0};
    unsigned count = 0, sum = 0, regions = 0, l3s = 0, packages = 0, unisolated = 0, evenness = 0,
             package_evenness = 0, inner = 0;
    unsigned seen_package[UNITS_MAX], seen_region[UNITS_MAX][2], region_share[UNITS_MAX] = {0}, seen_l3[UNITS_MAX][3];
    hwloc_bitmap_t reserved = hwloc_bitmap_alloc();
    Verdict verdict = {0};
    unsigned leftover = 0;
    gint64 devices;
    int small;

    for (unsigned i = 0; i < c->bricks->len; i++) {
        const Brick *b = brick(c, i);
        unsigned p, r, l, weight = weight_of(counting, b);

        if (!(mask & (1u << i)))
            continue;
        if ((counting->width && b->width != counting->width) || (b->width <= counting->idle && (int)i != emulator) ||
            (counting->weighted && (int)i == emulator && b->width != counting->emulator))
            goto out;
        hwloc_bitmap_or(reserved, reserved, b->pus);
        unisolated += b->isolated ? 0 : weight;
        for (p = 0; p < packages && seen_package[p] != b->package; p++)
            ;
        if (p == packages)
            seen_package[packages++] = b->package;
        for (l = 0; l < l3s && (seen_l3[l][0] != b->node || seen_l3[l][1] != b->package || seen_l3[l][2] != b->l3); l++)
            ;
        if (l == l3s) {
            seen_l3[l3s][0] = b->node;
            seen_l3[l3s][1] = b->package;
            seen_l3[l3s++][2] = b->l3;
        }
        for (r = 0; r < regions && (seen_region[r][0] != b->node || seen_region[r][1] != b->package); r++)
            ;
        if (r == regions) {
            seen_region[regions][0] = b->node;
            seen_region[regions++][1] = b->package;
        }
        for (p = 0; p < count && parts[p].node != b->node; p++)
            ;
        if (p == count)
            parts[count++].node = b->node;
        region_share[r] += weight;
        if ((int)i == emulator)
            continue;
        parts[p].share += weight;
        sum += weight;
    }
    for (unsigned r = 0; r < regions; r++)
        if (has_several_packages(c, seen_region[r][0])) {
            package_evenness += region_share[r] * region_share[r];
            inner++;
        }
    for (unsigned p = 0; p < count; p++)
        evenness += parts[p].share * parts[p].share;
    if (sum != counting->want)
        goto out;
    for (unsigned p = 0; p < count; p++)
        if (parts[p].share == 0) /* a node for the emulator alone */
            goto out;
    if ((c->spec.numa_nodes && count != c->spec.numa_nodes) || (c->spec.sockets && packages != c->spec.sockets))
        goto out;
    if (c->spec.spread)
        for (unsigned p = 0; p < count; p++)
            if (parts[p].share < sum / count || parts[p].share > (sum + count - 1) / count)
                goto out;
    for (unsigned i = 0; i < c->bricks->len; i++)
        for (unsigned p = 0; p < count && !(mask & (1u << i)); p++)
            if (parts[p].node == brick(c, i)->node && brick(c, i)->width > counting->idle &&
                (!counting->width || counting->width == brick(c, i)->width))
                leftover += weight_of(counting, brick(c, i));
    small = share_memory(c, parts, count, sum, c->spec.memory_bytes / granule_of(&c->spec));
    devices = match_devices(c, parts, count, 0, 0, 0);
    if (small < 0 || devices < 0)
        goto out;
    verdict.fits = TRUE;
    guint64 criteria[CRITERIA] = {c->spec.spread ? UNITS_MAX - count : count, (guint64)devices, counting->rank, packages - inner,
                                  evenness, inner, package_evenness,
                                  hwloc_bitmap_iszero(c->host->isolated) ? 0 : unisolated, (guint64)small, l3s,
                                  count_partial(c, reserved, TRUE), count_partial(c, reserved, FALSE), leftover};
    memcpy(verdict.criteria, criteria, sizeof criteria);
out:
    hwloc_bitmap_free(reserved);
    return verdict;
}

static int compare_verdicts(const Verdict *a, const Verdict *b)
{
    if (a->fits != b->fits)
        return a->fits ? -1 : 1;
    for (unsigned i = 0; i < CRITERIA; i++)
        if (a->criteria[i] != b->criteria[i])
            return a->criteria[i] < b->criteria[i] ? -1 : 1;
    return 0;
}

/* ---- All choices ---- */

static GArray *list_countings(const Case *c)
{
    GArray *countings = g_array_new(FALSE, TRUE, sizeof(Counting));
    gboolean seen[9] = {FALSE};
    unsigned widths = 0, widest = 0;

    for (guint i = 0; i < c->bricks->len; i++)
        seen[brick(c, i)->width] = TRUE;
    for (unsigned width = 8; width > 0; width--) {
        unsigned cores = MAX((c->spec.cpus + width - 1) / width, MAX(c->spec.numa_nodes, c->spec.sockets));
        Counting counting = {widths, width, FALSE, cores, 0, 0};

        if (!seen[width] || c->spec.smt != SMT_SIBLINGS)
            continue;
        widest = MAX(widest, width);
        widths++;
        g_array_append_val(countings, counting);
    }
    for (unsigned idle = 0, rank = widths; widths > 1 && idle < widest; idle++) {
        for (unsigned width = 0; width <= 8; width++) {
            Counting counting = {rank, 0, TRUE, c->spec.cpus + idle, idle, width};

            if (c->spec.emulator == EMULATOR_DEDICATED ? width == 0 || !seen[width] : width > 0)
                continue;
            rank++;
            g_array_append_val(countings, counting);
        }
    }
    if (c->spec.smt != SMT_SIBLINGS) {
        Counting counting = {0, 0, FALSE, c->spec.cpus, 0, 0};

        g_array_append_val(countings, counting);
    }
    return countings;
}

static unsigned count_bits(guint mask)
{
    unsigned count = 0;

    for (; mask; mask &= mask - 1)
        count++;
    return count;
}

/* The best over all sets of bricks with each of them as the emulator's, in one way of counting. */
static void try_counting(const Case *c, const Counting *counting, Verdict *best)
{
    unsigned extra = c->spec.emulator == EMULATOR_DEDICATED;

    for (guint mask = 1; mask < 1u << c->bricks->len; mask++) {
        if (!counting->weighted && count_bits(mask) != counting->want + extra)
            continue;
        for (int emulator = extra ? 0 : -1; emulator < (extra ? (int)c->bricks->len : 0); emulator++) {
            Verdict verdict;

            if (extra && !(mask & (1u << emulator)))
                continue;
            verdict = judge(c, mask, emulator, counting);
            if (compare_verdicts(&verdict, best) < 0)
                *best = verdict;
        }
    }
}

static Verdict try_all(const Case *c)
{
    g_autoptr(GArray) countings = list_countings(c);
    Verdict best = {0};

    for (guint i = 0; i < countings->len; i++)
        try_counting(c, &g_array_index(countings, Counting, i), &best);
    return best;
}

/* The solver's answer, judged in the same way: its bricks are the reserved PUs. */
static Verdict judge_placement(const Case *c, const Placement *placement)
{
    g_autoptr(GArray) countings = list_countings(c);
    Verdict best = {0};
    int emulator = -1;
    guint mask = 0;

    for (guint i = 0; i < c->bricks->len; i++) {
        if (!hwloc_bitmap_intersects(brick(c, i)->pus, placement->reserved))
            continue;
        mask |= 1u << i;
        if (c->spec.emulator == EMULATOR_DEDICATED && hwloc_bitmap_intersects(brick(c, i)->pus, placement->emulator))
            emulator = (int)i;
    }
    for (guint i = 0; i < countings->len; i++) {
        Verdict verdict = judge(c, mask, emulator, &g_array_index(countings, Counting, i));

        if (compare_verdicts(&verdict, &best) < 0)
            best = verdict;
    }
    return best;
}

/* QEMU's own threads: on housekeeping PUs, on PUs that are not isolated and nobody's where some are and no housekeeping is, or on
 * the guest's; never on another guest's. */
static void check_own_threads(const Case *c, const Placement *placement, hwloc_const_bitmap_t pus)
{
    gboolean configured = hwloc_bitmap_intersects(c->housekeeping, c->host->usable_pus);
    gboolean isolates = !configured && !hwloc_bitmap_iszero(c->host->isolated);
    unsigned pu;

    g_assert_false(hwloc_bitmap_iszero(pus));
    hwloc_bitmap_foreach_begin(pu, pus) {
        gboolean own = hwloc_bitmap_isset(placement->reserved, pu);

        g_assert_true(hwloc_bitmap_isset(c->host->usable_pus, pu) && (!c->allowed.pus || hwloc_bitmap_isset(c->allowed.pus, pu)));
        g_assert_true(own || hwloc_bitmap_isset(c->housekeeping, pu) ||
                      (isolates && !hwloc_bitmap_isset(c->host->isolated, pu) && !hwloc_bitmap_isset(c->taken, pu)));
        g_assert_true(!own || placement->emulator_shares || c->spec.emulator == EMULATOR_DEDICATED);
    } hwloc_bitmap_foreach_end();
}

/* ---- What every answer must keep ---- */

/* A guest's die is one L3, or a note says that it is not. */
static void check_dies(const Case *c, const Placement *placement)
{
    gboolean noted = FALSE;

    for (guint i = 0; i < placement->notes->len; i++) {
        const char *note = g_ptr_array_index(placement->notes, i);

        noted |= strstr(note, "level-3 caches in unequal parts") || strstr(note, "not equally large");
    }
    for (guint i = 1; i < placement->vcpus->len && !noted; i++) {
        const PlacementVcpu *vcpu = &g_array_index(placement->vcpus, PlacementVcpu, i), *before = vcpu - 1;

        if (vcpu->socket == before->socket && vcpu->die == before->die)
            g_assert_cmpuint(l3_of(c->host, vcpu->pu), ==, l3_of(c->host, before->pu));
    }
}

static void check_hard(const Case *c, const Placement *placement)
{
    hwloc_bitmap_t seen = hwloc_bitmap_alloc();
    guint64 memory = 0;
    unsigned pu;

    g_assert_cmpuint(placement->vcpus->len, ==, c->spec.cpus);
    g_assert_cmpuint(placement->sockets * placement->dies * placement->cores * placement->threads, ==, c->spec.cpus);
    hwloc_bitmap_foreach_begin(pu, placement->reserved) {
        g_assert_true(may_use(c, pu));
        g_assert_null(ledger_pu_owner(c->ledger, pu));
    } hwloc_bitmap_foreach_end();
    for (guint i = 0; i < placement->vcpus->len; i++) {
        const PlacementVcpu *vcpu = &g_array_index(placement->vcpus, PlacementVcpu, i);
        const PlacementCell *cell = &g_array_index(placement->cells, PlacementCell, vcpu->cell);

        g_assert_false(hwloc_bitmap_isset(seen, vcpu->pu));
        hwloc_bitmap_set(seen, vcpu->pu);
        g_assert_true(hwloc_bitmap_isset(placement->reserved, vcpu->pu));
        g_assert_cmpuint(host_home_node(c->host, vcpu->pu)->node, ==, cell->node);
        g_assert_cmpuint(i, >=, cell->first_vcpu);
        g_assert_cmpuint(i, <, cell->first_vcpu + cell->vcpus);
        if (c->spec.emulator == EMULATOR_DEDICATED)
            g_assert_false(hwloc_bitmap_isset(placement->emulator, vcpu->pu));
        /* What the guest takes for siblings are siblings. */
        if (vcpu->thread > 0)
            g_assert_true(host_core_of(c->host, vcpu->pu) == host_core_of(c->host, vcpu[-1].pu));
    }
    for (guint i = 0; i < placement->cells->len; i++) {
        const PlacementCell *cell = &g_array_index(placement->cells, PlacementCell, i);

        memory += cell->memory_bytes;
        g_assert_cmpuint(cell->memory_bytes % cell->page_bytes, ==, 0);
        g_assert_cmpuint(page_size_for(c, cell->node, cell->memory_bytes), ==, cell->page_bytes);
        if (c->spec.page_bytes)
            g_assert_cmpuint(cell->page_bytes, ==, c->spec.page_bytes);
    }
    g_assert_cmpuint(memory, ==, c->spec.memory_bytes);
    check_own_threads(c, placement, placement->emulator);
    check_own_threads(c, placement, placement->io_threads);
    check_dies(c, placement);
    hwloc_bitmap_free(seen);
}

static void check_json(const Placement *placement)
{
    g_autofree char *text = placement_to_json(placement);
    g_autoptr(GError) error = NULL;
    g_autoptr(Placement) back = placement_from_json(text, &error);

    g_assert_no_error(error);

    g_autofree char *again = placement_to_json(back);

    g_assert_cmpstr(text, ==, again);
    g_assert_null(strchr(text, '\n'));
}

static void reverse(GPtrArray *array)
{
    for (guint i = 0; array && i < array->len / 2; i++) {
        gpointer other = array->pdata[array->len - 1 - i];

        array->pdata[array->len - 1 - i] = array->pdata[i];
        array->pdata[i] = other;
    }
}

/* The same question with its lists turned round. */
static void check_order(Case *c, const Placement *placement)
{
    g_autofree char *text = placement_to_json(placement);
    g_autoptr(Placement) other = NULL;
    g_autoptr(Ledger) ledger = ledger_new();

    for (guint i = c->ledger->entries->len; i-- > 0;) {
        g_autoptr(Ledger) copy = ledger_copy(c->ledger);

        ledger_add(ledger, g_ptr_array_steal_index(copy->entries, i));
    }
    reverse(c->host->nodes);
    reverse(c->host->devices);
    reverse(c->spec.devices);
    other = placement_solve(c->host, &c->spec, ledger, &c->allowed, &c->policy, NULL);
    reverse(c->host->nodes);
    reverse(c->host->devices);
    reverse(c->spec.devices);
    g_assert_nonnull(other);

    g_autofree char *again = placement_to_json(other);

    g_assert_cmpstr(text, ==, again);
}

/* What was promised is nobody else's, and after its release all is as before. */
static void check_promise(Case *c, const Placement *placement)
{
    g_autofree char *before = placement_to_json(placement);
    g_autoptr(Placement) second = NULL, third = NULL;
    guint64 node_free[8], *at = node_free;

    for (guint i = 0; i < c->host->nodes->len; i++)
        *at++ = ledger_free_bytes(c->ledger, c->host, ((HostNode *)g_ptr_array_index(c->host->nodes, i))->node, HVM_GIB);
    ledger_add(c->ledger, placement_promise(placement, "me", "me", 1000));
    second = placement_solve(c->host, &c->spec, c->ledger, &c->allowed, &c->policy, NULL);
    if (second) {
        g_assert_false(hwloc_bitmap_intersects(second->reserved, placement->reserved));
        for (guint i = 0; i < second->devices->len; i++)
            g_assert_null(ledger_device_owner(c->ledger, ((PlacementDevice *)second->devices->pdata[i])->address));
    }
    ledger_settle(c->ledger, "me");
    g_assert_true(ledger_release(c->ledger, "me"));
    g_assert_false(ledger_release(c->ledger, "me"));
    at = node_free;
    for (guint i = 0; i < c->host->nodes->len; i++)
        g_assert_cmpuint(*at++, ==, ledger_free_bytes(c->ledger, c->host,
                                                      ((HostNode *)g_ptr_array_index(c->host->nodes, i))->node, HVM_GIB));
    third = placement_solve(c->host, &c->spec, c->ledger, &c->allowed, &c->policy, NULL);

    g_autofree char *after = placement_to_json(third);

    g_assert_cmpstr(before, ==, after);
}

/* ---- What every refusal must keep ---- */

static void assert_fits(const Case *c, const Spec *spec, const char *message, const char *advice)
{
    g_autoptr(Placement) placement = placement_solve(c->host, spec, c->ledger, &c->allowed, &c->policy, NULL);

    if (!placement)
        g_error("'%s' does not help: %s\n%s", advice, message, c->text);
}

/* Each piece of advice in "...: needs ... (ADVICE, or ADVICE)", taken at its word. Returns how many of them change the request. */
static unsigned check_advice(Case *c, const char *message)
{
    const char *open = g_str_has_suffix(message, ")") ? strrchr(message, '(') : NULL;
    g_autofree char *inner = open ? g_strndup(open + 1, strlen(open) - 2) : g_strdup("");
    g_auto(GStrv) all = g_strsplit(inner, ", or ", -1);
    unsigned changes = 0, number;

    for (char **advice = all; *advice; advice++, changes++) {
        g_autoptr(GPtrArray) devices = NULL;
        SpecDevice preferred[3];
        Spec spec = c->spec;

        if (sscanf(*advice, "--numa %u", &number) == 1) {
            spec.numa_nodes = number;
        } else if (sscanf(*advice, "--sockets %u", &number) == 1) {
            spec.sockets = number;
        } else if (sscanf(*advice, "--cpus %u", &number) == 1) {
            spec.cpus = number;
        } else if (g_str_has_prefix(*advice, "--memory ")) {
            g_assert_true(size_parse(*advice + strlen("--memory "), &spec.memory_bytes, NULL));
        } else if (strcmp(*advice, "--pages auto") == 0) {
            spec.page_bytes = PAGES_AUTO;
        } else if (strcmp(*advice, "--smt any") == 0) {
            spec.smt = SMT_ANY;
        } else if (strcmp(*advice, "--emulator shared") == 0) {
            spec.emulator = EMULATOR_SHARED;
        } else if (strcmp(*advice, "without --spread") == 0) {
            spec.spread = FALSE;
        } else if (strcmp(*advice, "locality=preferred") == 0) {
            spec.devices = devices = g_ptr_array_new();
            for (guint i = 0; i < c->spec.devices->len; i++) {
                preferred[i] = *(SpecDevice *)g_ptr_array_index(c->spec.devices, i);
                preferred[i].locality = LOCALITY_PREFERRED;
                g_ptr_array_add(devices, &preferred[i]);
            }
        } else if (g_str_has_prefix(*advice, "free ")) {
            g_assert_true(placement_could_fit(c->host, &c->spec, &c->allowed, &c->policy, NULL));
            continue;
        } else if (g_str_has_prefix(*advice, "more of this node's CPUs")) {
            g_autoptr(Placement) placement = placement_solve(c->host, &c->spec, c->ledger, NULL, &c->policy, NULL);

            g_assert_nonnull(placement);
            continue;
        } else {
            g_error("what is '%s' in: %s", *advice, message);
        }
        assert_fits(c, &spec, message, *advice);
    }
    return changes;
}

static void fail_case(const Case *c, const Verdict *solver, const Verdict *brute, const char *what)
{
    g_autoptr(GString) text = g_string_new(what);

    for (unsigned i = 0; i < CRITERIA; i++)
        g_string_append_printf(text, " %" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT, solver->criteria[i], brute->criteria[i]);
    g_error("%s\n%s", text->str, c->text);
}

static void check_case(Case *c, unsigned *solved, unsigned *refused, unsigned *advised)
{
    const Verdict brute = try_all(c);
    g_autoptr(GError) error = NULL;
    g_autoptr(Placement) placement = placement_solve(c->host, &c->spec, c->ledger, &c->allowed, &c->policy, &error);
    Verdict mine;

    if (!placement) {
        g_assert_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT);
        if (brute.fits)
            fail_case(c, &brute, &brute, error->message);
        *advised += check_advice(c, error->message);
        (*refused)++;
        return;
    }
    check_hard(c, placement);
    mine = judge_placement(c, placement);
    if (!mine.fits || !brute.fits || compare_verdicts(&mine, &brute) != 0)
        fail_case(c, &mine, &brute, "solver/brute force:");
    g_assert_true(placement_could_fit(c->host, &c->spec, &c->allowed, &c->policy, NULL));
    check_json(placement);
    check_order(c, placement);
    check_promise(c, placement);
    (*solved)++;
}

static void test_brute_force(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(20240607);
    const char *more = g_getenv("HVM_TEST_ROUNDS");
    unsigned rounds = more ? (unsigned)g_ascii_strtoull(more, NULL, 10) : 600, solved = 0, refused = 0, advised = 0;

    if (more) /* a longer run looks elsewhere */
        g_rand_set_seed(rand, rounds);
    for (unsigned i = 0; i < rounds; i++) {
        Case c;

        case_set_up(&c, rand);
        if (c.bricks->len <= UNITS_MAX)
            check_case(&c, &solved, &refused, &advised);
        case_tear_down(&c);
    }
    g_test_message("%u solved, %u refused, %u changes advised", solved, refused, advised);
    /* Both sides must be looked at. */
    g_assert_cmpuint(solved, >, rounds / 5);
    g_assert_cmpuint(refused, >, rounds / 10);
    g_assert_cmpuint(advised, >, refused / 4);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/placement/brute-force", test_brute_force);
    return g_test_run();
}
