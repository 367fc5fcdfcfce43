/* layout.c: a Solution -> vCPUs, cells, what the guest sees of them, and where QEMU's own threads run. */
#include "solver.h"

#include <string.h>

/* A unit that the guest got. */
typedef struct {
    unsigned unit, cell;
    unsigned used; /* vCPUs on it; the rest of its PUs stay idle */
} Taken;

/* What is known of a vCPU while the guest's topology is laid out. */
typedef struct {
    unsigned pu, core, cell, slice, package;
    hwloc_obj_t l3;
} Seat;

typedef struct {
    const Survey *survey;
    const Search *search;
    const Solution *solution;
    Placement *placement;
    GArray *taken;  /* of Taken */
    GArray *seats;  /* of Seat, by vCPU */
    int emulator_unit;
} Layout;

static unsigned find_slice(const Survey *survey, unsigned unit)
{
    unsigned low = 0, high = survey->slices->len;

    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;

        if (survey_slice(survey, middle)->first_unit <= unit)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static unsigned find_package(const Survey *survey, unsigned slice)
{
    for (guint i = survey->regions->len; i-- > 0;)
        if (survey_region(survey, i)->first_slice <= slice)
            return survey_region(survey, i)->package;
    return 0;
}

/* Takes the emulator's unit out of the cell's: from the L3 of which the guest has least, so that the vCPUs' L3s stay
 * whole; there the last. `width`: only one of so many threads; 0: any. */
static int take_emulator_unit(const Survey *survey, unsigned width, GArray *units)
{
    guint best = 0, best_count = G_MAXUINT;

    for (guint i = 0; i < units->len;) {
        unsigned slice = find_slice(survey, g_array_index(units, unsigned, i));
        guint end = i, last = G_MAXUINT;

        for (; end < units->len && find_slice(survey, g_array_index(units, unsigned, end)) == slice; end++)
            if (!width || survey_unit(survey, g_array_index(units, unsigned, end))->width == width)
                last = end;
        if (last != G_MAXUINT && end - i <= best_count) {
            best_count = end - i;
            best = last;
        }
        i = end;
    }

    int unit = (int)g_array_index(units, unsigned, best);

    g_array_remove_index(units, best);
    return unit;
}

static void take_units(Layout *layout)
{
    const Shares *shares = g_ptr_array_index(layout->search->shares, layout->solution->phase);
    const Phase *phase = &g_array_index(layout->search->phases, Phase, layout->solution->phase);
    gboolean isolate = layout->search->want.smt == SMT_ISOLATE;

    for (guint c = 0; c < layout->solution->cells->len; c++) {
        const Cell *cell = &g_array_index(layout->solution->cells, Cell, c);
        g_autoptr(GArray) units = g_array_new(FALSE, FALSE, sizeof(unsigned));

        shares_pick(shares, cell->node, cell->packages, cell->count, cell->emulator, units);
        if (cell->emulator)
            layout->emulator_unit = take_emulator_unit(layout->survey, phase->weighted ? phase->extra : 0, units);
        for (guint i = 0; i < units->len; i++) {
            unsigned unit = g_array_index(units, unsigned, i);
            Taken taken = {unit, c, isolate ? 1 : survey_unit(layout->survey, unit)->width};

            g_array_append_val(layout->taken, taken);
        }
    }
}

/* Whole cores may have more threads than there are vCPUs: the last core that can spare them does, or all do, where there is one
 * core per cell. */
static void leave_idle(Layout *layout)
{
    unsigned seats = 0, idle, cores = layout->taken->len, cpus = layout->search->want.cpus;

    for (guint i = 0; i < cores; i++)
        seats += g_array_index(layout->taken, Taken, i).used;
    idle = seats - cpus;
    for (guint i = cores; idle > 0 && i-- > 0;) {
        Taken *taken = &g_array_index(layout->taken, Taken, i);

        if (taken->used <= idle)
            continue;
        taken->used -= idle;
        return;
    }
    for (guint i = 0; idle > 0 && i < cores; i++)
        g_array_index(layout->taken, Taken, i).used = cpus / cores + (i < cpus % cores);
}

static void seat_vcpus(Layout *layout)
{
    for (guint i = 0; i < layout->taken->len; i++) {
        const Taken *taken = &g_array_index(layout->taken, Taken, i);
        const Unit *unit = survey_unit(layout->survey, taken->unit);
        unsigned slice = find_slice(layout->survey, taken->unit);

        for (unsigned p = 0; p < unit->width; p++)
            hwloc_bitmap_set(layout->placement->reserved, unit->pus[p]);
        for (unsigned p = 0; p < taken->used; p++) {
            Seat seat = {.pu = unit->pus[p], .core = unit->core, .cell = taken->cell, .slice = slice,
                         .package = find_package(layout->survey, slice), .l3 = survey_slice(layout->survey, slice)->l3};

            g_array_append_val(layout->seats, seat);
        }
    }
}

static void fill_cells(Layout *layout)
{
    unsigned first = 0;

    for (guint c = 0; c < layout->solution->cells->len; c++) {
        const Cell *from = &g_array_index(layout->solution->cells, Cell, c);
        PlacementCell cell = {.node = survey_node(layout->survey, from->node)->host_node->node, .memory_bytes = from->bytes,
                              .page_bytes = from->page_bytes, .first_vcpu = first};

        while (first + cell.vcpus < layout->seats->len && g_array_index(layout->seats, Seat, first + cell.vcpus).cell == c)
            cell.vcpus++;
        first += cell.vcpus;
        g_array_append_val(layout->placement->cells, cell);
    }
}

static void fill_distances(Layout *layout)
{
    const GArray *cells = layout->placement->cells;

    if (cells->len < 2 || !layout->survey->distances_told)
        return;
    for (guint i = 0; i < cells->len; i++) {
        for (guint j = 0; j < cells->len; j++) {
            guint8 distance = (guint8)survey_distance(layout->survey, (int)g_array_index(cells, PlacementCell, i).node,
                                                      (int)g_array_index(cells, PlacementCell, j).node);

            g_array_append_val(layout->placement->distances, distance);
        }
    }
}

/* ---- What the guest sees ---- */

typedef gboolean (*SameFunc)(const Seat *a, const Seat *b);

static gboolean same_cell(const Seat *a, const Seat *b)
{
    return a->cell == b->cell;
}

static gboolean same_core(const Seat *a, const Seat *b)
{
    return a->core == b->core && a->slice == b->slice;
}

static gboolean same_slice(const Seat *a, const Seat *b)
{
    return a->slice == b->slice;
}

static gboolean same_l3(const Seat *a, const Seat *b)
{
    return a->l3 == b->l3;
}

static gboolean same_package(const Seat *a, const Seat *b)
{
    return a->package == b->package;
}

/* The length of the runs of seats that are alike, or 0 where they are not all equally long. */
static unsigned run_length(const GArray *seats, SameFunc same)
{
    unsigned length = 0;

    for (guint i = 0; i < seats->len;) {
        guint end = i + 1;

        while (end < seats->len && same(&g_array_index(seats, Seat, i), &g_array_index(seats, Seat, end)))
            end++;
        if (length && end - i != length)
            return 0;
        length = end - i;
        i = end;
    }
    return length;
}

static unsigned common_divisor(unsigned a, unsigned b)
{
    while (b) {
        unsigned rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

/* Whether each L3 of which the guest has something is the guest's alone, offline PUs and all: then the host's own cache
 * description, which counts them, is true in the guest. */
static gboolean has_whole_l3s(const GArray *seats)
{
    hwloc_bitmap_t pus = hwloc_bitmap_alloc();
    gboolean whole = TRUE;

    for (guint i = 0; i < seats->len; i++)
        hwloc_bitmap_set(pus, g_array_index(seats, Seat, i).pu);
    for (guint i = 0; i < seats->len && whole; i++) {
        hwloc_obj_t l3 = g_array_index(seats, Seat, i).l3;

        if (i == 0 || g_array_index(seats, Seat, i - 1).l3 != l3)
            whole = l3 && hwloc_bitmap_isincluded(l3->complete_cpuset, pus);
    }
    hwloc_bitmap_free(pus);
    return whole;
}

static gboolean lacks_l3(const GArray *seats)
{
    for (guint i = 0; i < seats->len; i++)
        if (!g_array_index(seats, Seat, i).l3)
            return TRUE;
    return FALSE;
}

static void set_topology(Placement *placement, unsigned socket, unsigned die, unsigned thread)
{
    placement->threads = thread;
    placement->cores = die / thread;
    placement->dies = socket / die;
    placement->sockets = placement->vcpus->len / socket;
}

/* Cells are not equally large: dies of a size that divides them all, so that no L3 of the guest reaches over two cells. */
static void set_unequal(Layout *layout, unsigned thread)
{
    Placement *placement = layout->placement;
    unsigned divisor = 0;

    for (guint i = 0; i < placement->cells->len; i++)
        divisor = common_divisor(g_array_index(placement->cells, PlacementCell, i).vcpus, divisor);
    if (divisor <= thread || divisor % thread) {
        set_topology(placement, placement->vcpus->len, placement->vcpus->len, thread);
        placement_note(placement, "The guest's NUMA cells are not equally large, which its CPU topology cannot express: "
                       "it sees one flat socket.");
        return;
    }
    set_topology(placement, placement->vcpus->len, divisor, thread);
    placement_note(placement, "The guest's NUMA cells are not equally large: it sees dies of %u vCPUs, which is "
                   "what its CPU topology can express.", divisor);
}

static void note_flat(Layout *layout, const char *what)
{
    placement_note(layout->placement, "The guest has %s in unequal parts, which its CPU topology cannot express: it sees "
                   "them as one.", what);
}

static void choose_topology(Layout *layout)
{
    const GArray *seats = layout->seats;
    Placement *placement = layout->placement;
    gboolean whole = has_whole_l3s(seats), none = lacks_l3(seats);
    unsigned thread = run_length(seats, same_core), cell = run_length(seats, same_cell);
    unsigned package = run_length(seats, same_package), die = run_length(seats, whole ? same_l3 : same_slice);

    if (thread == 0) {
        placement_note(placement, "The %u vCPUs do not fill cores evenly: the guest sees each as a core of its own.",
                       seats->len);
        thread = 1;
    }
    if (package && die) {
        set_topology(placement, package, die, thread);
    } else if (package && cell) {
        if (!none)
            note_flat(layout, "level-3 caches");
        set_topology(placement, package, MIN(cell, package), thread);
    } else if (cell && die) {
        note_flat(layout, "packages");
        set_topology(placement, cell, MIN(die, cell), thread);
    } else if (cell) {
        note_flat(layout, none ? "packages" : "packages and level-3 caches");
        set_topology(placement, cell, cell, thread);
    } else if (die) {
        note_flat(layout, "packages");
        set_topology(placement, seats->len, die, thread);
    } else {
        set_unequal(layout, thread);
    }
    if (none)
        placement->cache = CACHE_NONE;
    else
        placement->cache = whole && die && placement->cores * placement->threads == die ? CACHE_PASSTHROUGH : CACHE_EMULATE;
}

static void fill_vcpus(Layout *layout)
{
    Placement *placement = layout->placement;

    for (guint i = 0; i < layout->seats->len; i++) {
        const Seat *seat = &g_array_index(layout->seats, Seat, i);
        PlacementVcpu *vcpu = &g_array_index(placement->vcpus, PlacementVcpu, i);
        unsigned rest = i / placement->threads;

        vcpu->pu = seat->pu;
        vcpu->core = seat->core;
        vcpu->cell = seat->cell;
        vcpu->thread = i % placement->threads;
        vcpu->guest_core = rest % placement->cores;
        rest /= placement->cores;
        vcpu->die = rest % placement->dies;
        vcpu->socket = rest / placement->dies;
    }
}

/* ---- QEMU's own threads ---- */

/* Leaves those of `pus` that are on one of `nodes`, if there are any. */
static void prefer_nodes(const Host *host, hwloc_const_bitmap_t nodes, hwloc_bitmap_t pus)
{
    hwloc_bitmap_t near = hwloc_bitmap_alloc();

    for (guint i = 0; i < host->nodes->len; i++) {
        const HostNode *node = g_ptr_array_index(host->nodes, i);

        if (hwloc_bitmap_isset(nodes, node->node))
            hwloc_bitmap_or(near, near, node->pus);
    }
    hwloc_bitmap_and(near, near, pus);
    if (!hwloc_bitmap_iszero(near))
        hwloc_bitmap_copy(pus, near);
    hwloc_bitmap_free(near);
}

/* Where no housekeeping PUs are configured, but the kernel isolates some PUs, the others do that work in any case. */
static gboolean keeps_house_unisolated(const Layout *layout)
{
    return hwloc_bitmap_iszero(layout->survey->housekeeping) && !hwloc_bitmap_iszero(layout->survey->host->isolated);
}

/* Housekeeping PUs that the caller may use; PUs that are not isolated stand in for them as long as nobody holds them. Of the nodes
 * `first` (may be NULL) if there are any, then of the guest's nodes if there are any. Caller frees. */
static hwloc_bitmap_t list_housekeeping(const Layout *layout, hwloc_const_bitmap_t first)
{
    hwloc_bitmap_t pus = hwloc_bitmap_alloc(), cells = hwloc_bitmap_alloc();

    if (keeps_house_unisolated(layout)) {
        hwloc_bitmap_andnot(pus, layout->survey->available, layout->survey->host->isolated);
        hwloc_bitmap_andnot(pus, pus, layout->placement->reserved);
    } else {
        hwloc_bitmap_and(pus, layout->survey->housekeeping, layout->survey->allowed);
    }
    for (guint i = 0; i < layout->placement->cells->len; i++)
        hwloc_bitmap_set(cells, g_array_index(layout->placement->cells, PlacementCell, i).node);
    if (first)
        prefer_nodes(layout->survey->host, first, pus);
    prefer_nodes(layout->survey->host, cells, pus);
    hwloc_bitmap_free(cells);
    return pus;
}

/* The guest's own PUs for threads that have no better place. Siblings that were asked to be idle stay idle. */
static void share_own(const Layout *layout, hwloc_bitmap_t pus)
{
    if (layout->search->want.smt != SMT_ISOLATE) {
        hwloc_bitmap_copy(pus, layout->placement->reserved);
        return;
    }
    for (guint i = 0; i < layout->seats->len; i++)
        hwloc_bitmap_set(pus, g_array_index(layout->seats, Seat, i).pu);
}

static void note_sharing(Layout *layout)
{
    const char *why = "no housekeeping PU is among those that the caller may use.";

    if (keeps_house_unisolated(layout))
        why = "of those that the kernel does not isolate, none is free that the caller may use.";
    else if (hwloc_bitmap_iszero(layout->survey->housekeeping))
        why = "this node has no housekeeping PUs (--emulator dedicated reserves a core for them).";
    placement_note(layout->placement, "Emulator threads share the guest's own PUs: %s", why);
}

static void place_own_threads(Layout *layout)
{
    Placement *placement = layout->placement;
    gboolean dedicated = layout->emulator_unit >= 0;

    if (dedicated) {
        const Unit *unit = survey_unit(layout->survey, (unsigned)layout->emulator_unit);

        for (unsigned p = 0; p < unit->width; p++)
            hwloc_bitmap_set(placement->emulator, unit->pus[p]);
        hwloc_bitmap_or(placement->reserved, placement->reserved, placement->emulator);
    }

    hwloc_bitmap_t housekeeping = list_housekeeping(layout, NULL), beside_disk = list_housekeeping(layout, layout->survey->disk_nodes);
    gboolean any = !hwloc_bitmap_iszero(housekeeping);

    if (!dedicated && any) {
        hwloc_bitmap_copy(placement->emulator, housekeeping);
    } else if (!dedicated) {
        share_own(layout, placement->emulator);
        placement->emulator_shares = TRUE;
        note_sharing(layout);
    }
    if (any && keeps_house_unisolated(layout))
        placement_note(placement, "No housekeeping PUs are configured: QEMU's own threads run on PUs that the kernel does not isolate, "
                       "which other guests get when no isolated ones are left.");
    hwloc_bitmap_copy(placement->io_threads, any ? beside_disk : placement->emulator);
    hwloc_bitmap_free(housekeeping);
    hwloc_bitmap_free(beside_disk);
}

void layout_fill(Placement *placement, const Search *search, const Solution *solution)
{
    g_autoptr(GArray) taken = g_array_new(FALSE, FALSE, sizeof(Taken)), seats = g_array_new(FALSE, FALSE, sizeof(Seat));
    Layout layout = {.survey = search->survey, .search = search, .solution = solution, .placement = placement,
                     .taken = taken, .seats = seats, .emulator_unit = -1};

    take_units(&layout);
    leave_idle(&layout);
    seat_vcpus(&layout);
    g_array_set_size(placement->vcpus, seats->len);
    fill_cells(&layout);
    fill_distances(&layout);
    choose_topology(&layout);
    fill_vcpus(&layout);
    place_own_threads(&layout);
}
