/* reasons.c: why these nodes, L3s and cores, what was second best, and at which point it lost. */
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

/* As search_run() has it: fewest nodes first or, spread, most. */
static gboolean is_better(const Search *search, const Solution *a, const Solution *b)
{
    if (a->node_count != b->node_count)
        return search->want.spread ? a->node_count > b->node_count : a->node_count < b->node_count;
    return solution_compare(a, b) < 0;
}

static void explain_nodes(Placement *placement, const Search *search, const Solution *solution)
{
    g_autofree char *nodes = list_nodes(search, solution);
    g_auto(Solution) second = {0};
    gboolean cut_short = FALSE;
    unsigned trials = 0;

    if (search->survey->nodes->len == 1) {
        placement_reason(placement, "On %s: no other has CPUs for guests.", nodes);
        return;
    }
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
        if (!second.found || is_better(search, &other, &second)) {
            solution_clear(&second);
            second = other;
            other.cells = NULL;
        }
    }
    if (!second.found) {
        placement_reason(placement, "No other choice of NUMA nodes %s.", cut_short ? "was found to fit" : "fits");
        return;
    }

    g_autofree char *other_nodes = list_nodes(search, &second), *why = compare_solutions(&second, solution);

    gboolean all = !cut_short && (trials < NODE_TRIALS_MAX || solution->cells->len <= NODE_TRIALS_MAX);

    placement_reason(placement, "%s: %s; it loses %s.", all ? "Second best" : "Second best of those tried", other_nodes, why);
}

/* ---- L3s and cores ---- */

/* What one cell takes, and the second best of L3s for it. */
typedef struct {
    const Node *node;
    GArray *units, *second; /* of unsigned; second may be NULL */
    gboolean *used;         /* by slice of the survey */
    gboolean choice;        /* its node has several L3s to choose from */
    Cost best, second_cost;
} Share;

static void clear_share(gpointer pointer)
{
    Share *share = pointer;

    g_array_free(share->units, TRUE);
    g_clear_pointer(&share->second, g_array_unref);
    g_free(share->used);
}

static gboolean has_unit(const Slice *slice, unsigned unit)
{
    return unit >= slice->first_unit && unit < slice->first_unit + slice->units;
}

/* Caller frees. `ret_count` (may be NULL) is added to. */
static char *list_l3s(const Search *search, const GArray *units, unsigned *ret_count)
{
    hwloc_bitmap_t l3s = hwloc_bitmap_alloc();
    char *list;

    for (guint i = 0; i < units->len; i++) {
        for (guint s = 0; s < search->survey->slices->len; s++) {
            const Slice *slice = survey_slice(search->survey, s);

            if (slice->l3 && has_unit(slice, g_array_index(units, unsigned, i)))
                hwloc_bitmap_set(l3s, slice->l3->logical_index);
        }
    }
    list = host_format_list(l3s);
    if (ret_count)
        *ret_count += (unsigned)hwloc_bitmap_weight(l3s);
    hwloc_bitmap_free(l3s);
    return list;
}

static gboolean has_choice(const Search *search, const Node *node)
{
    unsigned slices = 0;

    for (unsigned r = node->first_region; r < node->first_region + node->regions; r++)
        slices += survey_region(search->survey, r)->slices;
    return slices > 1 && survey_slice(search->survey, survey_region(search->survey, node->first_region)->first_slice)->l3;
}

/* Of all cells together so many L3s at most are left out in turn. */
enum { L3_TRIALS_MAX = 16 };

/* FALSE: not all were tried. */
static gboolean find_second(const Search *search, const Solution *solution, const Cell *cell, Share *share)
{
    const Shares *shares = g_ptr_array_index(search->shares, solution->phase);
    unsigned trials = 0;

    for (guint s = 0; s < search->survey->slices->len; s++) {
        g_autoptr(GArray) other = g_array_new(FALSE, FALSE, sizeof(unsigned));
        Cost cost;

        if (!share->used[s])
            continue;
        if (trials++ >= MAX(L3_TRIALS_MAX / solution->cells->len, 1))
            return FALSE;
        cost = shares_cost_without(shares, cell->node, cell->packages, cell->count, cell->emulator, s, other);
        if (!cost_less(cost, share->second_cost))
            continue;
        share->second_cost = cost;
        g_clear_pointer(&share->second, g_array_unref);
        share->second = g_steal_pointer(&other);
    }
    return TRUE;
}

static GArray *list_shares(const Search *search, const Solution *solution, gboolean *ret_all)
{
    const Shares *shares = g_ptr_array_index(search->shares, solution->phase);
    GArray *list = g_array_new(FALSE, TRUE, sizeof(Share));

    *ret_all = TRUE;
    g_array_set_clear_func(list, clear_share);
    for (guint i = 0; i < solution->cells->len; i++) {
        const Cell *cell = &g_array_index(solution->cells, Cell, i);
        Share share = {.node = survey_node(search->survey, cell->node), .units = g_array_new(FALSE, FALSE, sizeof(unsigned)),
                       .used = g_new0(gboolean, search->survey->slices->len + 1), .second_cost = COST_NONE};

        share.best = shares_cost(shares, cell->node, cell->packages, cell->count, cell->emulator);
        share.choice = has_choice(search, share.node);
        shares_pick(shares, cell->node, cell->packages, cell->count, cell->emulator, share.units);
        for (guint u = 0; u < share.units->len; u++)
            for (guint s = 0; s < search->survey->slices->len; s++)
                share.used[s] |= has_unit(survey_slice(search->survey, s), g_array_index(share.units, unsigned, u));
        if (share.choice)
            *ret_all &= find_second(search, solution, cell, &share);
        g_array_append_val(list, share);
    }
    return list;
}

/* Cost of all cells, of which one takes its second best: costs are sums. */
static Cost cost_with_second(const GArray *shares, guint changed)
{
    Cost sum = COST_ZERO;

    for (guint i = 0; i < shares->len; i++) {
        const Share *share = &g_array_index(shares, Share, i);

        sum = cost_add(sum, i == changed ? share->second_cost : share->best);
    }
    return sum;
}

static void explain_l3s(Placement *placement, const Search *search, const GArray *shares, gboolean all)
{
    g_autoptr(GString) taken = g_string_new(NULL);
    const Share *second = NULL;
    Cost least = COST_NONE;
    unsigned count = 0;

    for (guint i = 0; i < shares->len; i++) {
        const Share *share = &g_array_index(shares, Share, i);
        g_autofree char *list = share->choice ? list_l3s(search, share->units, &count) : NULL;
        Cost cost = share->second ? cost_with_second(shares, i) : COST_NONE;

        if (list)
            g_string_append_printf(taken, taken->len ? ", %s of node %u" : "%s of NUMA node %u", list, share->node->host_node->node);
        if (!cost_less(cost, least))
            continue;
        least = cost;
        second = share;
    }
    if (!taken->len)
        return;
    placement_reason(placement, "Level-3 cache%s %s: the fewest that hold its cores, leaving the least broken up.",
                     count == 1 ? "" : "s", taken->str);
    if (!second) {
        placement_reason(placement, all ? "No other choice of level-3 caches there fits."
                                        : "No other choice of level-3 caches of those tried fits.");
        return;
    }

    count = 0;

    g_autofree char *other = list_l3s(search, second->second, &count), *own = list_l3s(search, second->units, NULL);
    g_autofree char *why = compare_costs(second->second_cost, second->best);

    placement_reason(placement, "Second best%s: level-3 cache%s %s instead of %s on NUMA node %u; it loses %s.",
                     all ? "" : " of those tried", count == 1 ? "" : "s", other, own, second->node->host_node->node, why);
}

/* Whether a unit of the slice that is not taken is like one that is. `taken`: by unit of the survey. */
static gboolean has_equals(const Survey *survey, const gboolean *taken, const Slice *slice)
{
    gboolean found[UNIT_PUS_MAX + 1][2][2] = {0}; /* by width, isolated, taken */
    gboolean equals = FALSE;

    for (unsigned u = slice->first_unit; u < slice->first_unit + slice->units; u++) {
        gboolean(*like)[2] = &found[survey_unit(survey, u)->width][survey_unit(survey, u)->isolated ? 1 : 0];

        (*like)[taken[u] ? 1 : 0] = TRUE;
        equals |= (*like)[0] && (*like)[1];
    }
    return equals;
}

/* Why these cores and no others of the same L3s or, where there is no choice of those, of the same nodes. */
static void explain_cores(Placement *placement, const Search *search, const GArray *shares)
{
    const Survey *survey = search->survey;
    const char *noun = search->want.smt == SMT_ANY && survey->host->smt > 1 ? "PU" : "core";
    gboolean choice = FALSE, equals = FALSE;
    unsigned free = 0, taken = 0, slices = 0;
    g_autofree gboolean *is_taken = g_new0(gboolean, survey->units->len + 1);
    g_autofree char *where = NULL;

    for (guint i = 0; i < shares->len; i++) {
        const Share *share = &g_array_index(shares, Share, i);

        choice |= share->choice;
        taken += share->units->len;
        for (guint u = 0; u < share->units->len; u++)
            is_taken[g_array_index(share->units, unsigned, u)] = TRUE;
        for (guint s = 0; s < survey->slices->len; s++) {
            if (!share->used[s])
                continue;
            slices++;
            free += survey_slice(survey, s)->units;
            equals = equals || has_equals(survey, is_taken, survey_slice(survey, s));
        }
    }
    where = choice ? g_strdup_printf("in %s level-3 cache%s", slices == 1 ? "that" : "those", slices == 1 ? "" : "s")
                   : g_strdup_printf("on %s NUMA node%s", shares->len == 1 ? "that" : "those", shares->len == 1 ? "" : "s");
    if (taken == free)
        placement_reason(placement, "It takes all that is free %s: %u %s%s.", where, free, noun, free == 1 ? "" : "s");
    else
        placement_reason(placement, "It takes %u of the %u free %ss %s, %s%s.", taken, free, noun, where,
                         equals && slices > 1 ? "of each " : "",
                         equals ? "the lowest-numbered; the next best choice of them loses on nothing but its higher numbers"
                                : "which no others there are like: isolated by the kernel, or of that width");
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
    g_autoptr(GArray) shares = NULL;
    gboolean all;

    explain_nodes(placement, search, solution);
    shares = list_shares(search, solution, &all);
    explain_l3s(placement, search, shares, all);
    explain_cores(placement, search, shares);
    explain_devices(placement, search, solution);
}
