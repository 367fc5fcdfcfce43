/*
 * search.c: which nodes, and how much from each.
 *
 * For each number of nodes, fewest first (with `spread` most first), and for each set of nodes that the devices
 * call for, nearest first, the nodes are gone through in order and the best way on from each state (node, cells so far, units
 * so far, ...) is remembered: all other costs are sums over nodes, so that this is exact. The first number of nodes,
 * then the first device cost for which anything is found, decide.
 */
#include "solver.h"

#include <string.h>

/* A whole search of the largest real nodes (32 NUMA nodes) stays far below; hosts with hundreds of nodes may reach it. */
enum { STATES_MAX = 1 << 21, SETS_MAX = 4096 };

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
    const gboolean *must; /* by node: has to be among them */
    int excluded;
    unsigned cells;       /* wanted */
    gboolean even;        /* only equal cells, up to one unit */
    gboolean carries;     /* rounding matters, so all ways of it are tried */
    guint64 granules;
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
    return 1 + ((guint64)state->node | (guint64)state->cells << 12 | (guint64)state->units << 24 |
                (guint64)state->packages << 39 | (guint64)state->package_open << 50 | (guint64)state->emulator << 51 |
                (guint64)(state->carry + 1024) << 52);
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
    guint64 granule = want_granule(want), product = walk->granules * step.take;
    guint64 high = (product + total_units(walk) - 1) / total_units(walk), low = product / total_units(walk);

    if (!walk->carries)
        low = high = granules_up_to(walk, state->units + step.take) - granules_up_to(walk, state->units);
    for (guint64 granules = high; granules + 1 > low && granules > 0; granules--) {
        step.granules = granules;
        step.row = node_page_row(node, want, granules * granule);
        if (step.row >= 0)
            g_array_append_val(steps, step);
    }
}

static void add_steps_taking(const Walk *walk, const State *state, unsigned take, GArray *steps)
{
    unsigned packages = shares_packages(walk->shares, state->node);

    for (int emulator = walk->phase->extra && !state->emulator; emulator >= 0; emulator--) {
        unsigned count = take + (unsigned)emulator;

        for (unsigned p = 1; p <= packages; p++) {
            Step step = {.take = take, .packages = p, .emulator = emulator};

            if (!cost_is_none(shares_cost(walk->shares, state->node, p, count)))
                add_steps_of(walk, state, step, steps);
        }
    }
}

static void list_steps(const Walk *walk, const State *state, GArray *steps)
{
    const Step skip = {.row = -1};
    unsigned left = total_units(walk) - state->units, later = walk->cells - state->cells - 1;
    gboolean may = state->cells < walk->cells && (int)state->node != walk->excluded;
    unsigned most, least = 1;

    if (may && left > later) {
        most = MIN(left - later, walk->room[state->node]);
        if (walk->even) {
            least = total_units(walk) / walk->cells;
            most = MIN(most, least + (total_units(walk) % walk->cells != 0));
        }
        for (unsigned take = most; take >= MAX(least, 1); take--)
            add_steps_taking(walk, state, take, steps);
    }
    if (!walk->must[state->node])
        g_array_append_val(steps, skip);
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
    Cost cost = shares_cost(walk->shares, state->node, step->packages, step->take + (unsigned)step->emulator);

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
    unsigned missing = total_units(walk) - state->units + (walk->phase->extra && !state->emulator);

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

    g_autoptr(GArray) steps = g_array_new(FALSE, FALSE, sizeof(Step));

    list_steps(walk, state, steps);
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
        g_autoptr(GArray) steps = g_array_new(FALSE, FALSE, sizeof(Step));

        list_steps(walk, &state, steps);
        for (guint i = 0; i < steps->len; i++) {
            const Step *step = &g_array_index(steps, Step, i);
            State next = next_state(walk, &state, step);
            Cost own = step_cost(walk, &state, step), rest = cost_less(cost, own) ? COST_NONE : walk_on(walk, &next);

            if (cost_is_none(rest) || !cost_equal(cost_add(own, rest), cost))
                continue;
            if (step->take) {
                Cell cell = {.node = state.node, .count = step->take, .packages = step->packages,
                             .emulator = step->emulator, .bytes = step->granules * want_granule(&walk->search->want),
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

            if (low != high && (low == 0) + node_page_row(node, want, low * want_granule(want)) !=
                                   node_page_row(node, want, high * want_granule(want)))
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
    guint64 granule = want_granule(want);

    while (room > 0) {
        guint64 low = walk->granules * room / total_units(walk);

        if (node_page_row(survey_node(walk->search->survey, node), want, low * granule) >= 0 ||
            node_page_row(survey_node(walk->search->survey, node), want, (low + 1) * granule) >= 0)
            break;
        room--;
    }
    return room;
}

/* The sums of the largest capacities from each node on, and the nodes that must be in. */
static void fill_bounds(Walk *walk)
{
    unsigned nodes = walk->search->survey->nodes->len, stride = walk->cells + 1;
    g_autofree unsigned *top = g_new0(unsigned, stride); /* largest capacities so far, descending */

    walk->room = g_new0(unsigned, nodes + 1);
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
static Cost solve_cells(const Search *search, unsigned phase, unsigned cells, const gboolean *must, int excluded,
                        GArray *ret_cells, gboolean *ret_cut_short)
{
    const Phase *row = &g_array_index(search->phases, Phase, phase);
    Walk walk = {.search = search, .shares = g_ptr_array_index(search->shares, phase), .phase = row, .must = must,
                 .excluded = excluded, .cells = cells,
                 .granules = search->want.memory_bytes / want_granule(&search->want)};
    g_autoptr(GArray) other = g_array_new(FALSE, TRUE, sizeof(Cell));
    Cost cost, uneven;

    if (cells > row->want || cells > walk.granules)
        return COST_NONE;
    fill_bounds(&walk);
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
    g_free(walk.room);
    g_free(walk.most);
    g_free(walk.musts);
    return cost;
}

/* ---- Sets of nodes that bring devices near ---- */

typedef struct {
    guint64 device_cost;
    gboolean *in;
} NodeSet;

static void free_set(gpointer pointer)
{
    g_free(((NodeSet *)pointer)->in);
}

static int compare_sets(gconstpointer a, gconstpointer b)
{
    const NodeSet *x = a, *y = b;

    return (x->device_cost > y->device_cost) - (x->device_cost < y->device_cost);
}

/* Adds the set `in` unless one of its nodes could be left out at no cost: then the smaller set is as good, and its solutions
 * are more. */
static void add_set(const Search *search, gboolean *in, GArray *sets)
{
    unsigned nodes = search->survey->nodes->len;
    NodeSet set = {.device_cost = devices_cost(search->devices, in, search->want.ignore_locality, NULL)};
    gboolean needless = set.device_cost == G_MAXUINT64;

    for (unsigned i = 0; i < nodes && !needless; i++) {
        if (!in[i])
            continue;
        in[i] = FALSE;
        needless = devices_cost(search->devices, in, search->want.ignore_locality, NULL) == set.device_cost;
        in[i] = TRUE;
    }
    if (needless)
        return;
    set.in = g_memdup2(in, nodes * sizeof *in);
    g_array_append_val(sets, set);
}

static void add_sets_from(const Search *search, unsigned first, unsigned size, gboolean device_nodes_only, gboolean *in,
                          GArray *sets)
{
    add_set(search, in, sets);
    for (unsigned i = first; size > 0 && i < search->survey->nodes->len; i++) {
        if (device_nodes_only && !devices_on_node(search->devices, i))
            continue;
        in[i] = TRUE;
        add_sets_from(search, i + 1, size - 1, device_nodes_only, in, sets);
        in[i] = FALSE;
    }
}

static gboolean too_many_sets(unsigned nodes, unsigned size)
{
    double sum = 1, product = 1;

    for (unsigned i = 0; i < MIN(size, nodes); i++) {
        product *= (double)(nodes - i) / (i + 1);
        sum += product;
    }
    return sum > SETS_MAX;
}

/* A guest on `cells` nodes is near each device by one of these nodes, so that sets of as many nodes as there are devices
 * which matter, or as cells, are all that need be looked at. */
static GArray *list_sets(const Search *search, unsigned cells)
{
    unsigned nodes = search->survey->nodes->len, size = MIN(cells, devices_local_count(search->devices));
    g_autofree gboolean *in = g_new0(gboolean, nodes + 1);
    GArray *sets = g_array_new(FALSE, TRUE, sizeof(NodeSet));
    unsigned device_nodes = 0;

    g_array_set_clear_func(sets, free_set);
    for (unsigned i = 0; i < nodes; i++)
        device_nodes += devices_on_node(search->devices, i);
    if (too_many_sets(device_nodes, size))
        size = 1;
    add_sets_from(search, 0, size, too_many_sets(nodes, size), in, sets);
    g_array_sort(sets, compare_sets);
    return sets;
}

/* ---- All of it ---- */

void solution_clear(Solution *solution)
{
    g_clear_pointer(&solution->cells, g_array_unref);
    solution->found = FALSE;
}

/* Which of two has the lower numbers: the earlier node, then more on it. */
static int compare_cells(const GArray *a, const GArray *b)
{
    for (guint i = 0; i < MIN(a->len, b->len); i++) {
        const Cell *x = &g_array_index(a, Cell, i), *y = &g_array_index(b, Cell, i);

        if (x->node != y->node)
            return x->node < y->node ? -1 : 1;
        if (x->count != y->count)
            return x->count > y->count ? -1 : 1;
        if (x->emulator != y->emulator)
            return x->emulator ? -1 : 1;
        if (x->bytes != y->bytes)
            return x->bytes > y->bytes ? -1 : 1;
    }
    return 0;
}

int solution_compare(const Solution *a, const Solution *b)
{
    if (a->device_cost != b->device_cost)
        return a->device_cost < b->device_cost ? -1 : 1;
    if (a->phase != b->phase)
        return a->phase < b->phase ? -1 : 1;
    if (!cost_equal(a->cost, b->cost))
        return cost_less(a->cost, b->cost) ? -1 : 1;
    return compare_cells(a->cells, b->cells);
}

static void try_set(const Search *search, unsigned cells, const NodeSet *set, int excluded, Solution *best)
{
    if (excluded >= 0 && set->in[excluded])
        return;
    for (unsigned phase = 0; phase < search->phases->len; phase++) {
        g_auto(Solution) solution = {.found = TRUE, .node_count = cells, .device_cost = set->device_cost, .phase = phase,
                                     .cells = g_array_new(FALSE, TRUE, sizeof(Cell))};

        solution.cost = solve_cells(search, phase, cells, set->in, excluded, solution.cells, &best->cut_short);
        if (cost_is_none(solution.cost))
            continue;
        if (!best->found || solution_compare(&solution, best) < 0) {
            solution.cut_short = best->cut_short;
            solution_clear(best);
            *best = solution;
            solution.cells = NULL;
        }
        return;
    }
}

/* Whether so many cells can be, by number alone. */
static gboolean worth_trying(const Search *search, unsigned cells, int excluded)
{
    const Survey *survey = search->survey;

    for (unsigned phase = 0; phase < search->phases->len; phase++) {
        const Phase *row = &g_array_index(search->phases, Phase, phase);
        g_autoptr(GArray) capacities = g_array_new(FALSE, TRUE, sizeof(unsigned));
        unsigned sum = 0;

        for (unsigned i = 0; i < survey->nodes->len; i++) {
            unsigned capacity = shares_capacity(g_ptr_array_index(search->shares, phase), i);
            guint at = 0;

            if ((int)i == excluded || !capacity)
                continue;
            while (at < capacities->len && g_array_index(capacities, unsigned, at) > capacity)
                at++;
            g_array_insert_val(capacities, at, capacity);
        }
        for (unsigned i = 0; i < MIN(cells, capacities->len); i++)
            sum += g_array_index(capacities, unsigned, i);
        if (capacities->len >= cells && sum >= row->want + row->extra)
            return TRUE;
    }
    return FALSE;
}

static guint64 cost_of_nodes(const Search *search, const GArray *cells)
{
    g_autofree gboolean *in = g_new0(gboolean, search->survey->nodes->len + 1);

    for (guint i = 0; i < cells->len; i++)
        in[g_array_index(cells, Cell, i).node] = TRUE;
    return devices_cost(search->devices, in, search->want.ignore_locality, NULL);
}

static void run_cells(const Search *search, unsigned cells, int excluded, Solution *best)
{
    if (!worth_trying(search, cells, excluded))
        return;

    g_autofree gboolean *none = g_new0(gboolean, search->survey->nodes->len + 1);
    g_autoptr(GArray) sets = NULL;
    Solution free_choice = {0};

    /* Often the best choice without regard to devices has the devices near too; nothing can beat it then. */
    try_set(search, cells, &(NodeSet){0, none}, excluded, &free_choice);
    best->cut_short |= free_choice.cut_short;
    if (!free_choice.found)
        return;
    sets = list_sets(search, cells);
    free_choice.device_cost = cost_of_nodes(search, free_choice.cells);
    if (sets->len && free_choice.device_cost == g_array_index(sets, NodeSet, 0).device_cost) {
        *best = free_choice;
        return;
    }
    solution_clear(&free_choice);
    for (guint i = 0; i < sets->len; i++) {
        const NodeSet *set = &g_array_index(sets, NodeSet, i);

        if (best->found && set->device_cost > best->device_cost)
            return;
        try_set(search, cells, set, excluded, best);
    }
}

void search_run(const Search *search, int excluded, Solution *ret_solution)
{
    const Want *want = &search->want;
    unsigned nodes = search->survey->nodes->len, low = 1, high = MIN(nodes, want->cpus);
    Solution best = {0};

    if (want->numa_nodes) {
        low = want->numa_nodes;
        high = MIN(high, want->numa_nodes);
    }
    for (unsigned i = 0; low + i <= high && !best.found; i++)
        run_cells(search, want->spread ? high - i : low + i, excluded, &best);
    *ret_solution = best;
}

static void add_phase(Search *search, Phase phase)
{
    g_array_append_val(search->phases, phase);
    g_ptr_array_add(search->shares, shares_new(search->survey, &phase));
}

Search *search_new(const Survey *survey, const Devices *devices, const Want *want)
{
    Search *search = g_new0(Search, 1);
    unsigned extra = want->dedicated ? 1 : 0;

    search->survey = survey;
    search->devices = devices;
    search->want = *want;
    search->phases = g_array_new(FALSE, TRUE, sizeof(Phase));
    search->shares = g_ptr_array_new_with_free_func((GDestroyNotify)shares_free);
    if (want->smt != SMT_SIBLINGS) {
        add_phase(search, (Phase){.want = want->cpus, .extra = extra});
        return search;
    }
    for (unsigned i = 0; i < survey->width_count; i++) {
        unsigned width = survey->widths[i];

        unsigned cores = (want->cpus + width - 1) / width;

        /* A cell and a package need a core at least, though its siblings stay idle. */
        cores = MAX(cores, MAX(want->numa_nodes, want->sockets));
        add_phase(search, (Phase){.width = width, .want = cores, .extra = extra});
    }
    /* Threads of unlike cores together; where no whole cores give exactly so many, cores that can spare the idle ones. */
    for (unsigned idle = 0; survey->width_count > 1 && !extra && survey->widths[1] > idle; idle++)
        add_phase(search, (Phase){.width = idle + 1, .weighted = TRUE, .want = want->cpus + idle});
    return search;
}

void search_free(Search *search)
{
    if (!search)
        return;
    g_array_free(search->phases, TRUE);
    g_ptr_array_free(search->shares, TRUE);
    g_free(search);
}
