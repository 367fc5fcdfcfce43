/*
 * walk.c: so many nodes, and how much from each.
 *
 * The nodes are gone through in order, and the best way on from each state (node, cells so far, units so far, ...) is
 * remembered: all costs are sums over nodes, so that this is exact. Which devices are near is settled before, by the
 * nodes that must be among them.
 */
#include "solver.h"

#include <string.h>

/* A whole search of the largest real nodes (32 NUMA nodes) stays far below; hosts with hundreds of nodes may reach it. */
enum { STATES_MAX = 1 << 21 };

/* What is done with one node. */
typedef struct {
    unsigned take, packages; /* units for vCPUs, 0: none */
    gboolean emulator;
    guint64 granules;
    int row;                 /* of page_row_bytes */
} Step;

/* Where the walk over the nodes stands. */
typedef struct {
    unsigned node, cells, units, packages;
    enum { LIMIT_NONE, LIMIT_LEAST, LIMIT_SKIP } limit; /* what the node before did, where this one is its twin */
    gboolean package_open; /* the package of the node before is touched */
    gboolean emulator;     /* has its unit */
    int carry;             /* granules given beyond (or short of) the exact share so far */
} State;

typedef struct {
    guint64 key; /* 0: free */
    Cost cost;
} Memo;

typedef struct {
    const Search *search;
    const Shares *shares;
    const Phase *phase;
    unsigned index;       /* of the phase */
    const gboolean *must; /* by node: has to be among them */
    int excluded;
    unsigned cells;       /* wanted */
    gboolean even;        /* only equal cells, up to one unit */
    gboolean carries;     /* rounding matters, so all ways of it are tried */
    guint64 granule, granules; /* bytes of one, and how many */
    GArray **steps;       /* by node, of Step: lent to the state that is looked at there */
    gboolean *twin;       /* by node: as good as the node before in every way */
    unsigned *room;       /* by node: the most for vCPUs that its units and its memory allow */
    unsigned *most;       /* [node x (cells + 1)]: the most that so many of this and later nodes have */
    unsigned *musts;      /* by node: how many of this and later ones must be in */
    Memo *memo;
    gsize memo_size, memo_used;
    gboolean cut_short;
} Walk;

/* ---- What is known already ---- */

static guint64 state_key(const State *state)
{
    return 1 + ((guint64)state->node | (guint64)state->cells << 11 | (guint64)state->units << 22 |
                (guint64)state->packages << 36 | (guint64)state->limit << 47 | (guint64)state->package_open << 49 |
                (guint64)state->emulator << 50 | (guint64)(state->carry + NODES_MAX) << 51);
}

static Memo *find_memo(Memo *memo, gsize size, guint64 key)
{
    gsize slot = (gsize)((key * G_GUINT64_CONSTANT(0x9e3779b97f4a7c15)) >> 20) & (size - 1);

    while (memo[slot].key && memo[slot].key != key)
        slot = (slot + 1) & (size - 1);
    return &memo[slot];
}

static void remember(Walk *walk, guint64 key, Cost cost)
{
    if (2 * walk->memo_used >= walk->memo_size) {
        gsize size = 4 * walk->memo_size;
        Memo *larger = g_new0(Memo, size);

        for (gsize i = 0; i < walk->memo_size; i++)
            if (walk->memo[i].key)
                *find_memo(larger, size, walk->memo[i].key) = walk->memo[i];
        g_free(walk->memo);
        walk->memo = larger;
        walk->memo_size = size;
    }
    *find_memo(walk->memo, walk->memo_size, key) = (Memo){key, cost};
    walk->memo_used++;
}

/* ---- The steps from a state, in the order of preference among equals ---- */

static unsigned total_units(const Walk *walk)
{
    return walk->phase->want;
}

/* The share of `units` in the memory, rounded up. */
static guint64 granules_up_to(const Walk *walk, unsigned units)
{
    return (walk->granules * units + total_units(walk) - 1) / total_units(walk);
}

static void add_steps_of(const Walk *walk, const State *state, Step step, GArray *steps)
{
    const Want *want = &walk->search->want;
    const Node *node = survey_node(walk->search->survey, state->node);
    guint64 product = walk->granules * step.take;
    guint64 high = (product + total_units(walk) - 1) / total_units(walk), low = product / total_units(walk);

    if (!walk->carries)
        low = high = granules_up_to(walk, state->units + step.take) - granules_up_to(walk, state->units);
    for (guint64 granules = high; granules + 1 > low && granules > 0; granules--) {
        step.granules = granules;
        step.row = node_page_row(node, want, granules * walk->granule);
        if (step.row >= 0)
            g_array_append_val(steps, step);
    }
}

static void add_steps_taking(const Walk *walk, const State *state, unsigned take, GArray *steps)
{
    unsigned packages = shares_packages(walk->shares, state->node);

    for (int emulator = walk->phase->extra && !state->emulator; emulator >= 0; emulator--) {
        for (unsigned p = 1; p <= packages; p++) {
            Step step = {.take = take, .packages = p, .emulator = emulator};

            if (!cost_is_none(shares_cost(walk->shares, state->node, p, take, emulator)))
                add_steps_of(walk, state, step, steps);
        }
    }
}

static unsigned least_share(const Walk *walk)
{
    return total_units(walk) / walk->cells;
}

static const GArray *list_steps(const Walk *walk, const State *state)
{
    const Step skip = {.row = -1};
    GArray *steps = walk->steps[state->node];
    unsigned left = total_units(walk) - state->units, later = walk->cells - state->cells - 1;
    gboolean may = state->cells < walk->cells && (int)state->node != walk->excluded;
    unsigned most, least = 1;

    g_array_set_size(steps, 0);
    if (may && left > later) {
        most = MIN(left - later, walk->room[state->node]);
        if (walk->even) {
            least = least_share(walk);
            most = MIN(most, least + (total_units(walk) % walk->cells != 0));
        }
        /* Twins can be exchanged: only the order that has more on the earlier one is looked at. */
        most = state->limit == LIMIT_SKIP ? 0 : state->limit == LIMIT_LEAST ? MIN(most, least) : most;
        for (unsigned take = most; take >= MAX(least, 1); take--)
            add_steps_taking(walk, state, take, steps);
    }
    if (!walk->must[state->node])
        g_array_append_val(steps, skip);
    return steps;
}

static gboolean begins_package(const Walk *walk, unsigned node)
{
    const Survey *survey = walk->search->survey;

    return node == 0 || survey_node(survey, node)->package != survey_node(survey, node - 1)->package;
}

static State next_state(const Walk *walk, const State *state, const Step *step)
{
    State next = *state;
    gboolean open = state->package_open && !begins_package(walk, state->node);
    unsigned added = step->take ? step->packages - (open ? 1 : 0) : 0;

    next.node++;
    next.limit = LIMIT_NONE;
    if (walk->twin[next.node])
        next.limit = !step->take ? LIMIT_SKIP : walk->even && step->take == least_share(walk) ? LIMIT_LEAST : LIMIT_NONE;
    next.package_open = open || step->take;
    if (walk->search->want.sockets)
        next.packages += added;
    if (!step->take)
        return next;
    next.cells++;
    next.units += step->take;
    next.emulator |= step->emulator;
    if (walk->carries)
        next.carry += (int)(step->granules - (walk->granules * next.units / total_units(walk) -
                                              walk->granules * state->units / total_units(walk)));
    return next;
}

static Cost step_cost(const Walk *walk, const State *state, const Step *step)
{
    gboolean open = state->package_open && !begins_package(walk, state->node);
    Cost cost = shares_cost(walk->shares, state->node, step->packages, step->take, step->emulator);

    if (!step->take)
        return cost;
    if (shares_packages(walk->shares, state->node) == 1)
        cost = cost_add(cost, cost_of(COST_PACKAGES, !open));
    cost = cost_add(cost, cost_of(COST_EVENNESS, (guint64)step->take * step->take));
    if (walk->search->want.page_bytes == PAGES_AUTO)
        cost = cost_add(cost, cost_of(COST_SMALL_PAGES, step->row == PAGES_4K));
    return cost;
}

/* ---- The walk ---- */

/* Whether the rest of the nodes cannot bring what is missing. */
static gboolean is_hopeless(const Walk *walk, const State *state)
{
    unsigned cells = walk->cells - state->cells;
    unsigned missing = total_units(walk) - state->units + (state->emulator ? 0 : walk->phase->extra);

    return walk->musts[state->node] > cells || missing < cells ||
           walk->most[state->node * (walk->cells + 1) + cells] < missing ||
           (walk->search->want.sockets && state->packages > walk->search->want.sockets);
}

static Cost walk_on(Walk *walk, const State *state)
{
    unsigned nodes = walk->search->survey->nodes->len;
    Cost best = COST_NONE;

    if (state->node == nodes) {
        gboolean done = state->cells == walk->cells && state->units == total_units(walk) && state->carry == 0 &&
                        state->emulator == (walk->phase->extra > 0);

        return done && (!walk->search->want.sockets || state->packages == walk->search->want.sockets) ? COST_ZERO : COST_NONE;
    }
    if (is_hopeless(walk, state))
        return COST_NONE;

    guint64 key = state_key(state);
    const Memo *known = find_memo(walk->memo, walk->memo_size, key);

    if (known->key)
        return known->cost;
    if (walk->memo_used >= STATES_MAX) {
        walk->cut_short = TRUE;
        return COST_NONE;
    }

    const GArray *steps = list_steps(walk, state);

    for (guint i = 0; i < steps->len; i++) {
        const Step *step = &g_array_index(steps, Step, i);
        State next = next_state(walk, state, step);
        Cost cost = step_cost(walk, state, step);

        if (!cost_less(cost, best))
            continue;
        cost = cost_add(cost, walk_on(walk, &next));
        if (cost_less(cost, best))
            best = cost;
    }
    remember(walk, key, best);
    return best;
}

/* Follows the best way, taking the first of equal steps. */
static void walk_back(Walk *walk, Cost cost, GArray *cells)
{
    State state = {0};

    while (state.node < walk->search->survey->nodes->len) {
        const GArray *steps = list_steps(walk, &state);

        for (guint i = 0; i < steps->len; i++) {
            const Step *step = &g_array_index(steps, Step, i);
            State next = next_state(walk, &state, step);
            Cost own = step_cost(walk, &state, step), rest = cost_less(cost, own) ? COST_NONE : walk_on(walk, &next);

            if (cost_is_none(rest) || !cost_equal(cost_add(own, rest), cost))
                continue;
            if (step->take) {
                Cell cell = {.node = state.node, .count = step->take, .packages = step->packages,
                             .emulator = step->emulator, .bytes = step->granules * walk->granule,
                             .page_bytes = page_row_bytes[step->row]};

                g_array_append_val(cells, cell);
            }
            state = next;
            cost = rest;
            break;
        }
    }
}

/* Whether it can make a difference which cell gets the odd granule. */
static gboolean rounding_matters(const Walk *walk)
{
    const Want *want = &walk->search->want;
    const Survey *survey = walk->search->survey;
    unsigned total = total_units(walk), first = 1, last = total;

    if (walk->cells < 2)
        return FALSE;
    if (walk->even) {
        first = total / walk->cells;
        last = first + 1;
    }
    for (unsigned i = 0; i < survey->nodes->len; i++) {
        for (unsigned take = first; take <= MIN(last, walk->room[i]); take++) {
            guint64 low = walk->granules * take / total, high = (walk->granules * take + total - 1) / total;
            const Node *node = survey_node(survey, i);

            if (low != high && (low == 0) + node_page_row(node, want, low * walk->granule) !=
                                   node_page_row(node, want, high * walk->granule))
                return TRUE;
        }
    }
    return FALSE;
}

/* What a node could take at most; the rounding of its memory is taken to be kind. */
static unsigned find_room(const Walk *walk, unsigned node)
{
    const Want *want = &walk->search->want;
    unsigned room = (int)node == walk->excluded ? 0 : MIN(shares_capacity(walk->shares, node), total_units(walk));

    while (room > 0) {
        guint64 low = walk->granules * room / total_units(walk);

        if (node_page_row(survey_node(walk->search->survey, node), want, low * walk->granule) >= 0 ||
            node_page_row(survey_node(walk->search->survey, node), want, (low + 1) * walk->granule) >= 0)
            break;
        room--;
    }
    return room;
}

gboolean search_nodes_alike(const Search *search, unsigned phase, unsigned a, unsigned b)
{
    const Node *x = survey_node(search->survey, a), *y = survey_node(search->survey, b);
    const Shares *shares = g_ptr_array_index(search->shares, phase);
    unsigned capacity = shares_capacity(shares, a);

    if (x->package != y->package || x->regions != 1 || y->regions != 1 || capacity != shares_capacity(shares, b) ||
        memcmp(x->free_bytes, y->free_bytes, sizeof x->free_bytes) != 0 ||
        memcmp(x->pool_told, y->pool_told, sizeof x->pool_told) != 0)
        return FALSE;
    for (unsigned count = 0; count <= capacity; count++)
        for (int emulator = 0; emulator < 2; emulator++)
            if (!cost_equal(shares_cost(shares, a, count + (unsigned)emulator > 0, count, emulator),
                            shares_cost(shares, b, count + (unsigned)emulator > 0, count, emulator)))
                return FALSE;
    return TRUE;
}

static gboolean is_twin(const Walk *walk, unsigned node)
{
    return !walk->must[node] && !walk->must[node - 1] && (int)node != walk->excluded && (int)node - 1 != walk->excluded &&
           search_nodes_alike(walk->search, walk->index, node, node - 1);
}

/* The sums of the largest capacities from each node on, and the nodes that must be in. */
static void fill_bounds(Walk *walk)
{
    unsigned nodes = walk->search->survey->nodes->len, stride = walk->cells + 1;
    g_autofree unsigned *top = g_new0(unsigned, stride); /* largest capacities so far, descending */

    walk->room = g_new0(unsigned, nodes + 1);
    walk->twin = g_new0(gboolean, nodes + 1);
    for (unsigned i = 1; i < nodes; i++)
        walk->twin[i] = is_twin(walk, i);
    walk->most = g_new0(unsigned, (gsize)(nodes + 1) * stride);
    walk->musts = g_new0(unsigned, nodes + 1);
    for (unsigned i = nodes; i-- > 0;) {
        unsigned capacity;

        walk->room[i] = find_room(walk, i);
        /* The emulator's unit needs no memory. */
        capacity = walk->room[i] ? MIN(walk->room[i] + walk->phase->extra, shares_capacity(walk->shares, i)) : 0;
        walk->musts[i] = walk->musts[i + 1] + (walk->must[i] != 0);
        for (unsigned c = 0; c < walk->cells; c++) {
            if (capacity > top[c]) {
                unsigned lower = top[c];

                top[c] = capacity;
                capacity = lower;
            }
        }
        for (unsigned c = 0; c < walk->cells; c++)
            walk->most[i * stride + c + 1] = walk->most[i * stride + c] + top[c];
    }
}

static Cost walk_run(Walk *walk, gboolean even, GArray *cells)
{
    State start = {0};
    Cost cost;

    walk->even = even;
    walk->carries = rounding_matters(walk);
    walk->memo_size = 256;
    walk->memo_used = 0;
    walk->memo = g_new0(Memo, walk->memo_size);
    cost = walk_on(walk, &start);
    g_array_set_size(cells, 0);
    if (!cost_is_none(cost))
        walk_back(walk, cost, cells);
    g_clear_pointer(&walk->memo, g_free);
    return cost;
}

static int compare_descending(gconstpointer a, gconstpointer b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

    return (x < y) - (x > y);
}

/* How many of the largest `values` it takes to reach `need`. */
static unsigned count_to_reach(GArray *values, unsigned need)
{
    unsigned count = 0;

    g_array_sort(values, compare_descending);
    for (unsigned sum = 0; sum < need && count < values->len; count++)
        sum += g_array_index(values, unsigned, count);
    return count;
}

/* Fewer packages than this cannot be: for their units, and for the number of nodes that they have. */
static unsigned fewest_packages(const Walk *walk)
{
    const Survey *survey = walk->search->survey;
    g_autoptr(GArray) units = g_array_new(FALSE, TRUE, sizeof(unsigned)), nodes = g_array_new(FALSE, TRUE, sizeof(unsigned));
    unsigned by_units, by_nodes;

    for (unsigned i = 0; i < survey->nodes->len; i++) {
        unsigned package = survey_node(survey, i)->package;

        if (shares_packages(walk->shares, i) > 1)
            return 0;
        if (units->len <= package) {
            g_array_set_size(units, package + 1);
            g_array_set_size(nodes, package + 1);
        }
        g_array_index(units, unsigned, package) += walk->room[i];
        g_array_index(nodes, unsigned, package) += walk->room[i] > 0;
    }
    if (walk->search->want.sockets)
        return walk->search->want.sockets;
    by_units = count_to_reach(units, total_units(walk));
    by_nodes = count_to_reach(nodes, walk->cells);
    return MAX(by_units, by_nodes);
}

/* Equal cells are found at once. Where they are on the fewest packages nothing can be better; unequal ones have to be looked
 * at otherwise, and those take longer. */
Cost walk_solve(const Search *search, unsigned phase, unsigned cells, const gboolean *must, int excluded, GArray *ret_cells,
                gboolean *ret_cut_short)
{
    const Phase *row = &g_array_index(search->phases, Phase, phase);
    Walk walk = {.search = search, .shares = g_ptr_array_index(search->shares, phase), .phase = row, .index = phase, .must = must,
                 .excluded = excluded, .cells = cells, .granule = want_granule(&search->want)};
    g_autoptr(GArray) other = g_array_new(FALSE, TRUE, sizeof(Cell));
    Cost cost, uneven;

    walk.granules = search->want.memory_bytes / walk.granule;
    if (cells > row->want || cells > walk.granules)
        return COST_NONE;
    fill_bounds(&walk);
    walk.steps = g_new(GArray *, search->survey->nodes->len);
    for (guint i = 0; i < search->survey->nodes->len; i++)
        walk.steps[i] = g_array_new(FALSE, FALSE, sizeof(Step));
    cost = walk_run(&walk, TRUE, ret_cells);
    if (cells > 1 && !search->want.spread &&
        (cost_is_none(cost) || cost_get(cost, COST_PACKAGES) > fewest_packages(&walk))) {
        uneven = walk_run(&walk, FALSE, other);
        if (cost_less(uneven, cost)) {
            cost = uneven;
            g_array_set_size(ret_cells, 0);
            g_array_append_vals(ret_cells, other->data, other->len);
        }
    }
    *ret_cut_short |= walk.cut_short;
    for (guint i = 0; i < search->survey->nodes->len; i++)
        g_array_free(walk.steps[i], TRUE);
    g_free(walk.steps);
    g_free(walk.twin);
    g_free(walk.room);
    g_free(walk.most);
    g_free(walk.musts);
    return cost;
}
