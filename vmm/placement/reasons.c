/* reasons.c: why these nodes and L3s, what was second best, and at which point it lost. */
#include "solver.h"

#include "units.h"

static const struct {
    CostField field;
    const char *what; /* "second best ...: it has WHAT 5 against 4" */
} criteria[] = {
    {COST_PACKAGES, "packages"},
    {COST_EVENNESS, "unequal NUMA cells (sum of squares)"},
    {COST_INNER_PACKAGES, "packages"},
    {COST_PACKAGE_EVENNESS, "unequal packages (sum of squares)"},
    {COST_UNISOLATED, "cores outside the kernel's isolated ones"},
    {COST_SMALL_PAGES, "cells with 4K pages"},
    {COST_L3S, "level-3 caches"},
    {COST_PARTIAL_L3S, "level-3 caches left neither empty nor full"},
    {COST_PARTIAL_NODES, "NUMA nodes left neither empty nor full"},
    {COST_LEFTOVER, "cores left over on its NUMA nodes"},
};

/* "on level-3 caches (5 against 4)". Caller frees. */
static char *compare_costs(Cost other, Cost best)
{
    for (gsize i = 0; i < G_N_ELEMENTS(criteria); i++) {
        guint64 theirs = cost_get(other, criteria[i].field), ours = cost_get(best, criteria[i].field);

        if (theirs != ours)
            return g_strdup_printf("on %s (%" G_GUINT64_FORMAT " against %" G_GUINT64_FORMAT ")", criteria[i].what, theirs,
                                   ours);
    }
    return g_strdup("on nothing but its higher numbers");
}

static char *compare_solutions(const Solution *other, const Solution *best)
{
    if (other->node_count != best->node_count)
        return g_strdup_printf("on NUMA nodes (%u against %u)", other->node_count, best->node_count);
    if (other->device_cost >> 32 != best->device_cost >> 32)
        return g_strdup_printf("on distance to devices (%" G_GUINT64_FORMAT " more)",
                               (other->device_cost >> 32) - (best->device_cost >> 32));
    if (other->device_cost != best->device_cost)
        return g_strdup_printf("on PCIe switches (%u against %u)", (unsigned)other->device_cost, (unsigned)best->device_cost);
    if (other->phase != best->phase)
        return g_strdup("on cores of unlike width");
    return compare_costs(other->cost, best->cost);
}

static char *list_nodes(const Search *search, const Solution *solution)
{
    hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
    char *list, *text;

    for (guint i = 0; i < solution->cells->len; i++)
        hwloc_bitmap_set(nodes,
                         survey_node(search->survey, g_array_index(solution->cells, Cell, i).node)->host_node->node);
    list = host_format_list(nodes);
    text = g_strdup_printf("NUMA node%s %s", solution->cells->len == 1 ? "" : "s", list);
    hwloc_bitmap_free(nodes);
    g_free(list);
    return text;
}

/* Of a guest on more unlike nodes than this only the last are left out in turn, which may miss the second best: looking at
 * all would take longer than the placement. */
enum { NODE_TRIALS_MAX = 8 };

/* Whether leaving out the node of this cell is the same as leaving out the next one's. */
static gboolean repeats_next(const Search *search, const Solution *solution, guint i)
{
    const Cell *cell = &g_array_index(solution->cells, Cell, i), *next = cell + 1;

    return i + 1 < solution->cells->len && !devices_count(search->devices) && cell->count == next->count &&
           cell->emulator == next->emulator && search_nodes_alike(search, solution->phase, cell->node, next->node);
}

static void explain_nodes(Placement *placement, const Search *search, const Solution *solution)
{
    g_autofree char *nodes = list_nodes(search, solution);
    g_auto(Solution) second = {0};
    gboolean cut_short = FALSE;
    unsigned trials = 0;

    if (search->survey->nodes->len == 1)
        return;
    if (search->want.numa_nodes)
        placement_reason(placement, "On %s: %u asked for.", nodes, search->want.numa_nodes);
    else if (search->want.sockets && solution->node_count > 1)
        placement_reason(placement, "On %s: the fewest on %u package%s.", nodes, search->want.sockets,
                         search->want.sockets == 1 ? "" : "s");
    else if (search->want.spread)
        placement_reason(placement, "On %s: the most that take equal shares.", nodes);
    else
        placement_reason(placement, "On %s: %s.", nodes,
                         solution->node_count == 1 ? "one has room for all of it"
                         : solution->cut_short     ? "no fewer were found to have room for it"
                                                   : "no fewer have room for it");
    /* Another set of nodes lacks one of these. */
    for (guint i = solution->cells->len; i-- > 0 && trials < NODE_TRIALS_MAX;) {
        g_auto(Solution) other = {0};

        if (repeats_next(search, solution, i))
            continue;
        trials++;
        search_run(search, (int)g_array_index(solution->cells, Cell, i).node, solution->node_count, &other);
        cut_short |= other.cut_short;
        if (!other.found)
            continue;
        if (!second.found || other.node_count < second.node_count ||
            (other.node_count == second.node_count && solution_compare(&other, &second) < 0)) {
            solution_clear(&second);
            second = other;
            other.cells = NULL;
        }
    }
    if (!second.found) {
        placement_reason(placement, cut_short ? "No other choice of NUMA nodes was found to fit." : "No other choice of NUMA nodes fits.");
        return;
    }

    g_autofree char *other_nodes = list_nodes(search, &second), *why = compare_solutions(&second, solution);

    gboolean all = !cut_short && (trials < NODE_TRIALS_MAX || solution->cells->len <= NODE_TRIALS_MAX);

    placement_reason(placement, "%s: %s; it loses %s.", all ? "Second best" : "Second best of those tried", other_nodes, why);
}

/* The slices in which units lie, by their L3's number, as a list for people. */
static char *list_l3s(const Search *search, const GArray *units, gboolean *slices)
{
    hwloc_bitmap_t l3s = hwloc_bitmap_alloc();
    char *text;

    for (guint i = 0; i < units->len; i++) {
        unsigned unit = g_array_index(units, unsigned, i);

        for (guint s = 0; s < search->survey->slices->len; s++) {
            const Slice *slice = survey_slice(search->survey, s);

            if (unit < slice->first_unit || unit >= slice->first_unit + slice->units || !slice->l3)
                continue;
            hwloc_bitmap_set(l3s, slice->l3->logical_index);
            if (slices)
                slices[s] = TRUE;
        }
    }
    text = host_format_list(l3s);
    hwloc_bitmap_free(l3s);
    return text;
}

enum { L3_TRIALS_MAX = 16 };

/* The same for the L3s of the first cell: the others are chosen by the same rule. */
static void explain_l3s(Placement *placement, const Search *search, const Solution *solution)
{
    const Cell *cell = &g_array_index(solution->cells, Cell, 0);
    const Shares *shares = g_ptr_array_index(search->shares, solution->phase);
    const Node *node = survey_node(search->survey, cell->node);
    g_autofree gboolean *used = g_new0(gboolean, search->survey->slices->len + 1);
    g_autoptr(GArray) units = g_array_new(FALSE, FALSE, sizeof(unsigned)), second = NULL;
    unsigned trials = 0;
    Cost best = shares_cost(shares, cell->node, cell->packages, cell->count, cell->emulator), second_cost = COST_NONE;

    if (node->regions > 1 || survey_region(search->survey, node->first_region)->slices < 2)
        return;
    shares_pick(shares, cell->node, cell->packages, cell->count, cell->emulator, units);

    g_autofree char *list = list_l3s(search, units, used);

    for (guint s = 0; s < search->survey->slices->len; s++) {
        g_autoptr(GArray) other = g_array_new(FALSE, FALSE, sizeof(unsigned));
        Cost cost;

        if (!used[s] || trials++ >= L3_TRIALS_MAX)
            continue;
        cost = shares_cost_without(shares, cell->node, cell->count, cell->emulator, s, other);
        if (cost_less(cost, second_cost)) {
            second_cost = cost;
            g_clear_pointer(&second, g_array_unref);
            second = g_steal_pointer(&other);
        }
    }
    placement_reason(placement, "Level-3 caches %s of NUMA node %u: the fewest that hold its cores, leaving the least broken up.",
                     list,
                     node->host_node->node);
    if (!second) {
        placement_reason(placement, "No other choice of level-3 caches on NUMA node %u fits.", node->host_node->node);
        return;
    }

    g_autofree char *other_list = list_l3s(search, second, NULL), *why = compare_costs(second_cost, best);

    placement_reason(placement, "Second best there: level-3 caches %s; it loses %s.", other_list, why);
}

static void explain_devices(Placement *placement, const Search *search, const Solution *solution)
{
    if (!devices_count(search->devices))
        return;
    if (solution->device_cost >> 32) {
        g_autofree char *nodes = solution->node_count == 1 ? g_strdup("NUMA node")
                                                           : g_strdup_printf("choice of %u NUMA nodes", solution->node_count);

        placement_reason(placement, "Some devices are not on the guest's NUMA nodes: no nearer %s with room for it %s.", nodes,
                         solution->cut_short ? "was found" : "exists");
    } else if (devices_local_count(search->devices)) {
        placement_reason(placement, "All devices that ought to be near are on the guest's NUMA nodes.");
    }

    unsigned switches = (unsigned)solution->device_cost; /* a device whose way is not told counts as one */

    if (devices_count(search->devices) > 1 && switches == 1)
        placement_reason(placement, "All devices are below one PCIe root port.");
    else if (devices_count(search->devices) > 1)
        placement_reason(placement, "The devices are below %u PCIe root ports: no others as near %s below fewer.", switches,
                         solution->cut_short ? "were found" : "are");
}

void reasons_fill(Placement *placement, const Search *search, const Solution *solution)
{
    explain_nodes(placement, search, solution);
    explain_l3s(placement, search, solution);
    explain_devices(placement, search, solution);
}
