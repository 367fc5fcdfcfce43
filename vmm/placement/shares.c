/*
 * shares.c: what it costs to take so many units from one node, and which ones they are.
 *
 * A slice (an L3's part in the node) has a row of costs by the number taken. The slices of a region are combined from the
 * last to the first (a knapsack: best[l][s] is the least cost of taking s from slices l and later), the regions of a node in
 * the same way with the number of packages as one more index. Walking forward and taking as much as still is
 * optimal from the lower number gives the lowest numbers among equals.
 *
 * Rows are indexed by what is taken: units, the emulator's among them. Where threads are counted, a unit is the emulator's only if it
 * has the width that the phase says. It then adds more to the index than all vCPUs together can, which tells such indices apart.
 */
#include "solver.h"

#include <string.h>

typedef struct {
    unsigned capacity; /* highest index: at most what is wanted */
    unsigned reach;    /* highest index without the emulator's unit, where threads are counted */
    unsigned all, pus; /* that there are for vCPUs, and their PUs */
    Cost *cost;        /* capacity + 1 */
} SliceShare;

typedef struct {
    unsigned capacity;
    Cost **best; /* slices + 1 rows of capacity + 1 */
} RegionShare;

typedef struct {
    unsigned capacity, packages;
    unsigned most; /* that may be taken */
    Cost **best; /* regions + 1 rows of (packages + 1) x (capacity + 1); NULL for one region */
    Cost *cost;  /* (packages + 1) x (capacity + 1): the answer */
} NodeShare;

struct Shares {
    const Survey *survey;
    Phase phase;
    SliceShare *slices;
    RegionShare *regions;
    NodeShare *nodes;
    GPtrArray *blocks; /* owns the rows */
};

/* A guest has at most 4,096 vCPUs, a host 16,384 PUs and (see survey.c) 1,024 nodes: 16 bits for counts, 32 for squares. */
static const struct {
    gboolean high;
    unsigned shift, bits;
} cost_fields[COST_FIELDS] = {
    [COST_PACKAGES] = {TRUE, 112, 16}, [COST_EVENNESS] = {TRUE, 80, 32}, [COST_INNER_PACKAGES] = {TRUE, 64, 16},
    [COST_PACKAGE_EVENNESS] = {TRUE, 32, 32}, [COST_UNISOLATED] = {TRUE, 16, 16},
    [COST_SMALL_PAGES] = {TRUE, 0, 16}, [COST_L3S] = {FALSE, 48, 16},
    [COST_PARTIAL_L3S] = {FALSE, 32, 16}, [COST_PARTIAL_NODES] = {FALSE, 16, 16}, [COST_LEFTOVER] = {FALSE, 0, 16},
};

Cost cost_of(CostField field, guint64 count)
{
    CostHalf half = (CostHalf)count << cost_fields[field].shift;

    return cost_fields[field].high ? (Cost){half, 0} : (Cost){0, half};
}

guint64 cost_get(Cost cost, CostField field)
{
    CostHalf half = cost_fields[field].high ? cost.high : cost.low;

    return (guint64)(half >> cost_fields[field].shift) & ((G_GUINT64_CONSTANT(1) << cost_fields[field].bits) - 1);
}

static Cost *new_row(Shares *shares, gsize length)
{
    Cost *row = g_new(Cost, length);

    memset(row, 0xff, length * sizeof(Cost));
    g_ptr_array_add(shares->blocks, row);
    return row;
}

static gboolean unit_counts(const Shares *shares, const Unit *unit)
{
    return shares->phase.weighted ? unit->width >= shares->phase.width
                                  : !shares->phase.width || unit->width == shares->phase.width;
}

static unsigned unit_weight(const Shares *shares, const Unit *unit)
{
    return shares->phase.weighted ? unit->width : 1;
}

/* What index the emulator's unit adds. */
static unsigned emulator_index(const Shares *shares)
{
    return shares->phase.weighted ? shares->phase.want + 1 : 1;
}

static unsigned index_of(const Shares *shares, unsigned count, gboolean emulator)
{
    return count + (emulator ? emulator_index(shares) : 0);
}

static unsigned highest_index(const Shares *shares)
{
    return index_of(shares, shares->phase.want, shares->phase.extra > 0);
}

static gboolean has_emulator(const Shares *shares, unsigned index)
{
    return shares->phase.weighted && index >= emulator_index(shares);
}

/* Whether what an index stands for can be `part` and the rest of it: not where vCPUs alone would add up to an index which has the
 * emulator's unit. */
static gboolean may_split(const Shares *shares, unsigned index, unsigned part)
{
    return has_emulator(shares, index) == has_emulator(shares, part) + has_emulator(shares, index - part);
}

/* Units or threads that an index stands for. */
static unsigned taken_at(const Shares *shares, unsigned index)
{
    return has_emulator(shares, index) ? index - emulator_index(shares) + shares->phase.extra : index;
}

/* Those of them that count as what there is for vCPUs. */
static unsigned counted_at(const Shares *shares, unsigned index)
{
    gboolean apart = has_emulator(shares, index) && shares->phase.extra < shares->phase.width;

    return taken_at(shares, index) - (apart ? shares->phase.extra : 0);
}

/* Where threads are counted. */
static gboolean may_be_vcpus(const Shares *shares, const Unit *unit)
{
    return unit_counts(shares, unit) && unit->width <= shares->phase.want;
}

static gboolean may_be_emulators(const Shares *shares, const Unit *unit)
{
    return shares->phase.weighted && unit->width == shares->phase.extra;
}

/* What the unit costs in weigh_units(). */
static guint64 unit_price(const Unit *unit)
{
    return ((guint64)(unit->isolated ? 0 : unit->width) << 32) + 1;
}

/* What row `best` has for index s once a unit that adds `step` is taken. */
static guint64 price_with(const Shares *shares, const guint64 *best, unsigned s, unsigned step, guint64 price)
{
    return s < step || !may_split(shares, s, step) || best[s - step] == G_MAXUINT64 ? G_MAXUINT64 : best[s - step] + price;
}

/* With weights: best[u][s] is the least number of threads outside the isolated PUs, then of cores, that give index s
 * from units u and later of the slice; G_MAXUINT64 where they cannot. Caller frees. */
static guint64 *weigh_units(const Shares *shares, const Slice *slice, unsigned capacity)
{
    gsize stride = capacity + 1;
    guint64 *best = g_new(guint64, (slice->units + 1) * stride);

    memset(best, 0xff, (slice->units + 1) * stride * sizeof *best);
    best[slice->units * stride] = 0;
    for (unsigned u = slice->units; u-- > 0;) {
        const Unit *unit = survey_unit(shares->survey, slice->first_unit + u);
        const guint64 *after = &best[(u + 1) * stride];

        for (unsigned s = 0; s <= capacity; s++) {
            guint64 least = after[s];

            if (may_be_vcpus(shares, unit))
                least = MIN(least, price_with(shares, after, s, unit->width, unit_price(unit)));
            if (may_be_emulators(shares, unit))
                least = MIN(least, price_with(shares, after, s, emulator_index(shares), unit_price(unit)));
            best[u * stride + s] = least;
        }
    }
    return best;
}

static Cost unisolated(const Shares *shares, guint64 count)
{
    /* Where the kernel isolates nothing, there is nothing to prefer. */
    return hwloc_bitmap_iszero(shares->survey->host->isolated) ? COST_ZERO : cost_of(COST_UNISOLATED, count);
}

static void fill_slice(Shares *shares, unsigned index, gboolean closed)
{
    const Slice *slice = survey_slice(shares->survey, index);
    SliceShare *share = &shares->slices[index];
    gboolean emulators = FALSE;
    unsigned isolated = 0;

    for (unsigned u = 0; u < slice->units; u++) {
        const Unit *unit = survey_unit(shares->survey, slice->first_unit + u);

        emulators |= may_be_emulators(shares, unit);
        if (!unit_counts(shares, unit))
            continue;
        share->all += unit_weight(shares, unit);
        share->pus += unit->width;
        isolated += unit->isolated;
    }
    share->reach = closed ? 0 : MIN(share->all, shares->phase.weighted ? shares->phase.want : highest_index(shares));
    share->capacity = share->reach + (emulators && !closed ? emulator_index(shares) : 0);
    share->cost = new_row(shares, share->capacity + 1);

    g_autofree guint64 *weighed = shares->phase.weighted ? weigh_units(shares, slice, share->capacity) : NULL;

    for (unsigned count = 0; count <= share->capacity; count++) {
        gboolean empty = count == 0 && !slice->taken;
        gboolean full = slice->open_pus == 0 || (weighed ? taken_at(shares, count) == slice->open_pus
                                                         : count == share->all && share->pus == slice->open_pus);

        if (weighed && weighed[count] == G_MAXUINT64)
            continue;
        share->cost[count] = cost_add(cost_of(COST_L3S, count > 0), cost_of(COST_PARTIAL_L3S, !empty && !full));
        share->cost[count] = cost_add(share->cost[count], unisolated(shares, weighed ? weighed[count] >> 32
                                                                             : count > isolated ? count - isolated : 0));
    }
}

static Cost lesser(Cost a, Cost b)
{
    return cost_less(b, a) ? b : a;
}

/* One step of the knapsack: some of one slice, the rest from `after`. */
static void combine(const Shares *shares, const SliceShare *slice, const Cost *after, unsigned after_capacity, Cost *best,
                    unsigned capacity)
{
    for (unsigned s = 0; s <= capacity; s++) {
        unsigned low = s > after_capacity ? s - after_capacity : 0;

        /* Without the emulator's unit, and with it: there is nothing between them. */
        for (unsigned base = 0; base <= MIN(s, slice->capacity); base += shares->phase.weighted ? emulator_index(shares) : s + 1)
            for (unsigned take = MAX(base, low); take <= MIN(s, MIN(base + slice->reach, slice->capacity)); take++)
                if (may_split(shares, s, take))
                    best[s] = lesser(best[s], cost_add(slice->cost[take], after[s - take]));
    }
}

static void fill_region(Shares *shares, unsigned index)
{
    const Region *region = survey_region(shares->survey, index);
    RegionShare *share = &shares->regions[index];
    unsigned limit = highest_index(shares), below = 0;

    for (unsigned l = 0; l < region->slices; l++)
        share->capacity += shares->slices[region->first_slice + l].capacity;
    share->capacity = MIN(share->capacity, limit);
    share->best = g_new(Cost *, region->slices + 1);
    for (unsigned l = region->slices + 1; l-- > 0;) {
        share->best[l] = new_row(shares, share->capacity + 1);
        if (l == region->slices) {
            share->best[l][0] = COST_ZERO;
            continue;
        }

        const SliceShare *slice = &shares->slices[region->first_slice + l];
        unsigned capacity = MIN(below + slice->capacity, share->capacity);

        combine(shares, slice, share->best[l + 1], below, share->best[l], capacity);
        below = capacity;
    }
}

static Cost region_cost(const Shares *shares, const Node *node, unsigned region, unsigned take)
{
    const RegionShare *share = &shares->regions[node->first_region + region];
    guint64 taken = taken_at(shares, take);

    if (take > share->capacity)
        return COST_NONE;
    return node->regions == 1 || take == 0
               ? share->best[0][take]
               : cost_add(share->best[0][take], cost_add(cost_of(COST_INNER_PACKAGES, 1),
                                                         cost_of(COST_PACKAGE_EVENNESS, taken * taken)));
}

/* Regions r and later of a node of several packages. */
static void fill_node_row(const Shares *shares, const Node *node, const NodeShare *share, unsigned r)
{
    gsize stride = share->capacity + 1;

    for (unsigned p = 0; p <= node->regions - r; p++) {
        for (unsigned s = 0; s <= share->capacity; s++) {
            Cost *best = &share->best[r][p * stride + s];

            *best = cost_add(region_cost(shares, node, r, 0), share->best[r + 1][p * stride + s]);
            for (unsigned take = 1; p > 0 && take <= s; take++) {
                if (!may_split(shares, s, take))
                    continue;

                Cost rest = share->best[r + 1][(p - 1) * stride + s - take];

                *best = lesser(*best, cost_add(region_cost(shares, node, r, take), rest));
            }
        }
    }
}

/* What there is to take on a node, and how many PUs that are. */
static unsigned count_all(const Shares *shares, const Node *node, unsigned *ret_pus)
{
    unsigned all = 0, pus = 0;

    for (unsigned r = 0; r < node->regions; r++) {
        const Region *region = survey_region(shares->survey, node->first_region + r);

        for (unsigned l = 0; l < region->slices; l++) {
            all += shares->slices[region->first_slice + l].all;
            pus += shares->slices[region->first_slice + l].pus;
        }
    }
    *ret_pus = pus;
    return all;
}

static void fill_node_cost(Shares *shares, const Node *node, NodeShare *share)
{
    gsize stride = share->capacity + 1;
    unsigned pus, all = count_all(shares, node, &pus);
    /* So many leave nobody anything. */
    unsigned full = shares->phase.weighted || node->open_pus == 0 ? node->open_pus : node->open_pus == pus ? all : G_MAXUINT;

    share->cost = new_row(shares, (share->packages + 1) * stride);
    for (unsigned p = 0; p <= share->packages; p++) {
        for (unsigned count = 0; count <= share->capacity; count++) {
            gboolean partial = (count > 0 || node->taken) && taken_at(shares, count) < full;
            Cost cost = COST_NONE;

            if (node->regions > 1)
                cost = share->best[0][p * stride + count];
            else if ((p == 0) == (count == 0))
                cost = shares->regions[node->first_region].best[0][count];
            cost = cost_add(cost, cost_of(COST_PARTIAL_NODES, partial));
            share->cost[p * stride + count] = cost_add(cost, cost_of(COST_LEFTOVER, count ? all - counted_at(shares, count) : 0));
        }
    }
}

static void fill_node(Shares *shares, unsigned index)
{
    const Node *node = survey_node(shares->survey, index);
    NodeShare *share = &shares->nodes[index];

    for (unsigned r = 0; r < node->regions; r++)
        share->capacity += shares->regions[node->first_region + r].capacity;
    share->capacity = MIN(share->capacity, highest_index(shares));
    share->packages = node->regions;
    if (node->regions > 1) {
        share->best = g_new(Cost *, node->regions + 1);
        for (unsigned r = node->regions + 1; r-- > 0;) {
            share->best[r] = new_row(shares, (gsize)(share->packages + 1) * (share->capacity + 1));
            if (r == node->regions)
                share->best[r][0] = COST_ZERO;
            else
                fill_node_row(shares, node, share, r);
        }
    }
    fill_node_cost(shares, node, share);
    for (unsigned i = 0; i <= share->capacity; i++)
        for (unsigned p = 0; p <= share->packages; p++)
            if (!cost_is_none(share->cost[p * (share->capacity + 1) + i]))
                share->most = MAX(share->most, taken_at(shares, i));
}

/* All that is known of node `index`, from its slices up; `without` is a slice left out, or G_MAXUINT. */
static void fill_from_slices(Shares *shares, unsigned index, unsigned without)
{
    const Node *node = survey_node(shares->survey, index);

    for (unsigned r = node->first_region; r < node->first_region + node->regions; r++) {
        const Region *region = survey_region(shares->survey, r);

        for (unsigned l = region->first_slice; l < region->first_slice + region->slices; l++)
            fill_slice(shares, l, l == without);
        fill_region(shares, r);
    }
    fill_node(shares, index);
}

static Shares *shares_alloc(const Survey *survey, const Phase *phase)
{
    Shares *shares = g_new0(Shares, 1);

    shares->survey = survey;
    shares->phase = *phase;
    shares->slices = g_new0(SliceShare, survey->slices->len);
    shares->regions = g_new0(RegionShare, survey->regions->len);
    shares->nodes = g_new0(NodeShare, survey->nodes->len);
    shares->blocks = g_ptr_array_new_with_free_func(g_free);
    return shares;
}

Shares *shares_new(const Survey *survey, const Phase *phase)
{
    Shares *shares = shares_alloc(survey, phase);

    for (unsigned i = 0; i < survey->nodes->len; i++)
        fill_from_slices(shares, i, G_MAXUINT);
    return shares;
}

void shares_free(Shares *shares)
{
    if (!shares)
        return;
    for (unsigned i = 0; i < shares->survey->regions->len; i++)
        g_free(shares->regions[i].best);
    for (unsigned i = 0; i < shares->survey->nodes->len; i++)
        g_free(shares->nodes[i].best);
    g_ptr_array_free(shares->blocks, TRUE);
    g_free(shares->slices);
    g_free(shares->regions);
    g_free(shares->nodes);
    g_free(shares);
}

unsigned shares_capacity(const Shares *shares, unsigned i)
{
    return shares->nodes[i].most;
}

unsigned shares_packages(const Shares *shares, unsigned i)
{
    return shares->nodes[i].packages;
}

Cost shares_cost(const Shares *shares, unsigned i, unsigned packages, unsigned count, gboolean emulator)
{
    const NodeShare *share = &shares->nodes[i];
    unsigned index = index_of(shares, count, emulator);

    if (index > share->capacity || packages > share->packages)
        return COST_NONE;
    return share->cost[packages * (share->capacity + 1) + index];
}

static void pick_weighted(const Shares *shares, const Slice *slice, unsigned capacity, unsigned count, GArray *units)
{
    g_autofree guint64 *best = weigh_units(shares, slice, capacity);
    gsize stride = capacity + 1;

    for (unsigned u = 0; u < slice->units && count > 0; u++) {
        unsigned index = slice->first_unit + u, step = 0;
        const Unit *unit = survey_unit(shares->survey, index);
        const guint64 *after = &best[(u + 1) * stride];
        guint64 wanted = best[u * stride + count];

        if (may_be_vcpus(shares, unit) && price_with(shares, after, count, unit->width, unit_price(unit)) == wanted)
            step = unit->width;
        else if (may_be_emulators(shares, unit) && price_with(shares, after, count, emulator_index(shares), unit_price(unit)) == wanted)
            step = emulator_index(shares);
        if (!step)
            continue;
        g_array_append_val(units, index);
        count -= step;
    }
}

/* Isolated units first, then the lowest numbers; listed by number. */
static void pick_from_slice(const Shares *shares, unsigned index, unsigned count, GArray *units)
{
    const Slice *slice = survey_slice(shares->survey, index);
    unsigned isolated = 0, others;

    if (shares->phase.weighted) {
        pick_weighted(shares, slice, shares->slices[index].capacity, count, units);
        return;
    }
    for (unsigned u = 0; u < slice->units; u++) {
        const Unit *unit = survey_unit(shares->survey, slice->first_unit + u);

        isolated += unit_counts(shares, unit) && unit->isolated;
    }
    isolated = MIN(isolated, count);
    others = count - isolated;
    for (unsigned u = 0; u < slice->units; u++) {
        unsigned unit_index = slice->first_unit + u;
        const Unit *unit = survey_unit(shares->survey, unit_index);
        unsigned *left = unit->isolated ? &isolated : &others;

        if (!unit_counts(shares, unit) || *left == 0)
            continue;
        (*left)--;
        g_array_append_val(units, unit_index);
    }
}

static void pick_from_region(const Shares *shares, unsigned index, unsigned count, GArray *units)
{
    const Region *region = survey_region(shares->survey, index);
    const RegionShare *share = &shares->regions[index];

    for (unsigned l = 0; l < region->slices; l++) {
        const SliceShare *slice = &shares->slices[region->first_slice + l];
        unsigned take = MIN(count, slice->capacity);

        while (!may_split(shares, count, take) ||
               !cost_equal(cost_add(slice->cost[take], share->best[l + 1][count - take]), share->best[l][count]))
            take--;
        pick_from_slice(shares, region->first_slice + l, take, units);
        count -= take;
    }
}

/* Whether taking `take` from region `r` is a best way to take `count` from it and the later ones. */
static gboolean is_best_from_region(const Shares *shares, const Node *node, const NodeShare *share, unsigned r,
                                    unsigned packages, unsigned take, unsigned count)
{
    gsize stride = share->capacity + 1;
    unsigned rest = packages - (take > 0);

    return (take == 0 || packages > 0) && may_split(shares, count, take) &&
           cost_equal(cost_add(region_cost(shares, node, r, take), share->best[r + 1][rest * stride + count - take]),
                      share->best[r][packages * stride + count]);
}

void shares_pick(const Shares *shares, unsigned i, unsigned packages, unsigned count, gboolean emulator, GArray *units)
{
    const Node *node = survey_node(shares->survey, i);
    const NodeShare *share = &shares->nodes[i];

    count = index_of(shares, count, emulator);
    for (unsigned r = 0; r < node->regions; r++) {
        unsigned take = count;

        while (node->regions > 1 && !is_best_from_region(shares, node, share, r, packages, take, count))
            take--;
        pick_from_region(shares, node->first_region + r, take, units);
        packages -= take > 0;
        count -= take;
    }
}

Cost shares_cost_without(const Shares *shares, unsigned i, unsigned packages, unsigned count, gboolean emulator, unsigned without,
                         GArray *ret_units)
{
    g_autoptr(Shares) other = shares_alloc(shares->survey, &shares->phase);
    Cost cost;

    fill_from_slices(other, i, without);
    cost = shares_cost(other, i, packages, count, emulator);
    if (!cost_is_none(cost))
        shares_pick(other, i, packages, count, emulator, ret_units);
    return cost;
}
