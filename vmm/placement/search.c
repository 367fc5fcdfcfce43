/*
 * search.c: how many nodes, and which sets of them the devices call for.
 *
 * For each number of nodes, fewest first (with `spread` most first), and for each set of nodes that brings the devices
 * near, nearest first, walk.c finds the best. The first number of nodes, then the first device cost for which anything is
 * found, decide.
 */
#include "solver.h"

#include <string.h>

/* Sets of nodes that are looked at for devices: real nodes mostly stay below. Beyond it, the nodes nearest to the devices are combined
 * as far as this goes, and the answer says that not all was looked at. */
enum { SETS_MAX = 4096 };

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

/* `nodes`: those to combine. */
static void add_sets_from(const Search *search, const GArray *nodes, unsigned first, unsigned size, gboolean *in, GArray *sets)
{
    add_set(search, in, sets);
    for (unsigned i = first; size > 0 && i < nodes->len; i++) {
        unsigned node = g_array_index(nodes, unsigned, i);

        in[node] = TRUE;
        add_sets_from(search, nodes, i + 1, size - 1, in, sets);
        in[node] = FALSE;
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

static int compare_near(gconstpointer a, gconstpointer b, gpointer data)
{
    const Search *search = data;
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    unsigned left = devices_distance(search->devices, x), right = devices_distance(search->devices, y);

    return left != right ? (left < right ? -1 : 1) : (x > y) - (x < y);
}

/* Nodes that could be among the guest's, the nearest to devices first. */
static GArray *list_near(const Search *search, int excluded)
{
    GArray *nodes = g_array_new(FALSE, FALSE, sizeof(unsigned));

    for (unsigned i = 0; i < search->survey->nodes->len; i++) {
        gboolean room = FALSE;

        for (unsigned phase = 0; phase < search->phases->len; phase++)
            room |= shares_capacity(g_ptr_array_index(search->shares, phase), i) > 0;
        if (room && (int)i != excluded)
            g_array_append_val(nodes, i);
    }
    g_array_sort_with_data(nodes, compare_near, (gpointer)search);
    return nodes;
}

/* One node after the other, each the one that brings the devices nearest. */
static void add_greedy_sets(const Search *search, const GArray *nodes, unsigned size, gboolean *in, GArray *sets)
{
    for (unsigned count = 0; count < MIN(size, nodes->len); count++) {
        guint64 least = G_MAXUINT64;
        unsigned best = 0;

        for (guint i = 0; i < nodes->len; i++) {
            unsigned node = g_array_index(nodes, unsigned, i);
            guint64 cost;

            if (in[node])
                continue;
            in[node] = TRUE;
            cost = devices_cost(search->devices, in, TRUE, NULL);
            in[node] = FALSE;
            if (cost < least) {
                least = cost;
                best = node;
            }
        }
        in[best] = TRUE;
        add_set(search, in, sets);
    }
}

/* A guest on `cells` nodes is near each device by one of these nodes, so that sets of as many nodes as there are devices
 * which matter, or as cells, are all that need be looked at. */
static GArray *list_sets(const Search *search, unsigned cells, int excluded, gboolean *ret_cut_short)
{
    unsigned wanted = MIN(cells, devices_local_count(search->devices)), size = wanted, on_devices = 0;
    g_autofree gboolean *in = g_new0(gboolean, search->survey->nodes->len + 1);
    g_autoptr(GArray) nodes = list_near(search, excluded);
    GArray *sets = g_array_new(FALSE, TRUE, sizeof(NodeSet));

    g_array_set_clear_func(sets, free_set);
    while (on_devices < nodes->len && devices_distance(search->devices, g_array_index(nodes, unsigned, on_devices)) == 10)
        on_devices++;
    if (too_many_sets(nodes->len, size)) {
        unsigned count = nodes->len;

        *ret_cut_short = TRUE;
        while (size > 1 && too_many_sets(on_devices, size))
            size--;
        while (count > on_devices && too_many_sets(count, size))
            count--;
        add_greedy_sets(search, nodes, wanted, in, sets);
        memset(in, 0, search->survey->nodes->len * sizeof *in);
        g_array_set_size(nodes, count);
    }
    add_sets_from(search, nodes, 0, size, in, sets);
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

static guint64 cost_of_nodes(const Search *search, const GArray *cells)
{
    g_autofree gboolean *in = g_new0(gboolean, search->survey->nodes->len + 1);

    for (guint i = 0; i < cells->len; i++)
        in[g_array_index(cells, Cell, i).node] = TRUE;
    return devices_cost(search->devices, in, search->want.ignore_locality, NULL);
}

/* What no choice of nodes can be better than. */
static guint64 least_device_cost(const Search *search)
{
    g_autofree gboolean *in = g_new0(gboolean, search->survey->nodes->len + 1);

    for (unsigned i = 0; i < search->survey->nodes->len; i++)
        in[i] = TRUE;
    return devices_cost(search->devices, in, search->want.ignore_locality, NULL);
}

/* The best with the nodes `in` among its own. */
static void try_set(const Search *search, unsigned cells, const gboolean *in, int excluded, Solution *best)
{
    for (unsigned phase = 0; phase < search->phases->len; phase++) {
        g_auto(Solution) solution = {.found = TRUE, .node_count = cells, .phase = phase,
                                     .cells = g_array_new(FALSE, TRUE, sizeof(Cell))};

        solution.cost = walk_solve(search, phase, cells, in, excluded, solution.cells, &best->cut_short);
        if (cost_is_none(solution.cost))
            continue;
        solution.device_cost = cost_of_nodes(search, solution.cells);
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

static void run_cells(const Search *search, unsigned cells, int excluded, Solution *best)
{
    g_autofree gboolean *none = g_new0(gboolean, search->survey->nodes->len + 1);
    g_autoptr(GArray) sets = NULL;
    guint64 least = least_device_cost(search), limit;

    if (least == G_MAXUINT64 || !worth_trying(search, cells, excluded))
        return;
    /* Often the best choice without regard to devices has the devices near too; nothing can beat it then. */
    try_set(search, cells, none, excluded, best);
    if (!best->found || best->device_cost == least)
        return;
    limit = best->device_cost;
    if (limit == G_MAXUINT64) /* one that is required is not near */
        solution_clear(best);
    sets = list_sets(search, cells, excluded, &best->cut_short);
    for (guint i = 0; i < sets->len; i++) {
        const NodeSet *set = &g_array_index(sets, NodeSet, i);

        if (set->device_cost >= limit || (best->found && set->device_cost > best->device_cost))
            return;
        try_set(search, cells, set->in, excluded, best);
    }
}

void search_run(const Search *search, int excluded, unsigned from, Solution *ret_solution)
{
    const Want *want = &search->want;
    unsigned nodes = search->survey->nodes->len, low = MAX(from, 1), high = MIN(nodes, want->cpus);
    Solution best = {0};

    if (want->spread && from) {
        low = 1;
        high = MIN(high, from);
    }

    if (want->numa_nodes) {
        low = want->numa_nodes;
        high = MIN(high, want->numa_nodes);
    }
    for (unsigned i = 0; low + i <= high && !best.found; i++)
        run_cells(search, want->spread ? high - i : low + i, excluded, &best);
    best.cut_short |= devices_cut_short(search->devices);
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
    /* Threads of unlike cores together; where no whole cores give exactly so many, cores that can spare the idle ones. The
     * emulator's core is one of the narrowest that will do. */
    for (unsigned idle = 0; survey->width_count > 1 && survey->widths[extra ? 0 : 1] > idle; idle++) {
        Phase phase = {.width = idle + 1, .weighted = TRUE, .want = want->cpus + idle};

        if (!extra)
            add_phase(search, phase);
        for (unsigned i = survey->width_count; extra && i-- > 0;) {
            phase.extra = survey->widths[i];
            add_phase(search, phase);
        }
    }
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
