#include "solver.h"

#include "hvm_error.h"
#include "units.h"

#include <string.h>

static void free_device(gpointer pointer)
{
    PlacementDevice *device = pointer;

    g_free(device->name);
    g_free(device->address);
    g_free(device);
}

Placement *placement_new(void)
{
    Placement *placement = g_new0(Placement, 1);

    placement->vcpus = g_array_new(FALSE, TRUE, sizeof(PlacementVcpu));
    placement->cells = g_array_new(FALSE, TRUE, sizeof(PlacementCell));
    placement->distances = g_array_new(FALSE, TRUE, sizeof(guint8));
    placement->devices = g_ptr_array_new_with_free_func(free_device);
    placement->reserved = hwloc_bitmap_alloc();
    placement->emulator = hwloc_bitmap_alloc();
    placement->io_threads = hwloc_bitmap_alloc();
    placement->notes = g_ptr_array_new_with_free_func(g_free);
    placement->reasons = g_ptr_array_new_with_free_func(g_free);
    return placement;
}

void placement_free(Placement *placement)
{
    if (!placement)
        return;
    g_array_free(placement->vcpus, TRUE);
    g_array_free(placement->cells, TRUE);
    g_array_free(placement->distances, TRUE);
    g_ptr_array_free(placement->devices, TRUE);
    hwloc_bitmap_free(placement->reserved);
    hwloc_bitmap_free(placement->emulator);
    hwloc_bitmap_free(placement->io_threads);
    g_ptr_array_free(placement->notes, TRUE);
    g_ptr_array_free(placement->reasons, TRUE);
    g_free(placement);
}

void placement_note(Placement *placement, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_ptr_array_add(placement->notes, g_strdup_vprintf(format, arguments));
    va_end(arguments);
}

void placement_reason(Placement *placement, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_ptr_array_add(placement->reasons, g_strdup_vprintf(format, arguments));
    va_end(arguments);
}

static int find_cell(const Placement *placement, int node)
{
    for (guint i = 0; i < placement->cells->len; i++)
        if ((int)g_array_index(placement->cells, PlacementCell, i).node == node)
            return (int)i;
    return -1;
}

static void fill_devices(Placement *placement, const Search *search, const Solution *solution)
{
    const Host *host = search->survey->host;
    unsigned count = devices_count(search->devices);
    g_autofree unsigned *choice = g_new0(unsigned, count + 1);
    g_autofree gboolean *in = g_new0(gboolean, search->survey->nodes->len + 1);

    for (guint i = 0; i < solution->cells->len; i++)
        in[g_array_index(solution->cells, Cell, i).node] = TRUE;
    if (count)
        devices_cost(search->devices, in, search->want.ignore_locality, choice);
    for (unsigned i = 0; i < count; i++) {
        const HostDevice *from = devices_get(search->devices, choice[i]);
        PlacementDevice *device = g_new0(PlacementDevice, 1);

        device->name = g_strdup(devices_wanted(search->devices, i)->name);
        device->address = g_strdup(from->address);
        device->cell = host->nodes->len == 1 ? 0 : find_cell(placement, from->node);
        g_ptr_array_add(placement->devices, device);
        if (device->cell < 0 && from->node < 0)
            placement_note(placement, "Device %s: the platform does not tell which NUMA node it is on.", from->address);
        if (from->iommu_group < 0 && (host->origin == HOST_LIVE || host->origin == HOST_CAPTURED))
            placement_note(placement, "Device %s has no IOMMU group: a guest with it does not start until the IOMMU is switched on.",
                           from->address);
    }
}

static void note_memory(Placement *placement, const Search *search)
{
    const Host *host = search->survey->host;
    hwloc_bitmap_t unknown = hwloc_bitmap_alloc(), uncounted = hwloc_bitmap_alloc(), small = hwloc_bitmap_alloc();

    for (guint i = 0; i < placement->cells->len; i++) {
        const PlacementCell *cell = &g_array_index(placement->cells, PlacementCell, i);
        const HostPages *pages = host_node_pages(host_find_node(host, cell->node), cell->page_bytes);

        if (!pages || pages->total == HOST_BYTES_UNKNOWN)
            hwloc_bitmap_set(unknown, cell->node);
        else if (!pages->free_known)
            hwloc_bitmap_set(uncounted, cell->node);
        if (search->want.page_bytes == PAGES_AUTO && cell->page_bytes == 4 * HVM_KIB)
            hwloc_bitmap_set(small, cell->node);
    }

    g_autofree char *unknown_list = host_format_list(unknown), *uncounted_list = host_format_list(uncounted);
    g_autofree char *small_list = host_format_list(small), *where = hvm_escape(host->description, -1);

    if (*unknown_list)
        placement_note(placement, "%s does not tell the memory of NUMA node %s: planned without a limit there.",
                       where, unknown_list);
    if (*uncounted_list)
        placement_note(placement, "%s does not tell the free pages of NUMA node %s: planned as if all of them were free.",
                       where, uncounted_list);
    if (*small_list)
        placement_note(placement, "Memory on NUMA node %s is in 4K pages: no pool of larger ones has room for it.", small_list);
    hwloc_bitmap_free(unknown);
    hwloc_bitmap_free(uncounted);
    hwloc_bitmap_free(small);
}

static void note_cpus(Placement *placement, const Search *search, const Solution *solution)
{
    const Host *host = search->survey->host;
    hwloc_bitmap_t noisy = hwloc_bitmap_dup(placement->reserved);

    hwloc_bitmap_andnot(noisy, noisy, host->isolated);
    if (!hwloc_bitmap_iszero(host->isolated) && !hwloc_bitmap_iszero(noisy)) {
        g_autofree char *list = host_format_list(noisy);

        placement_note(placement, "PUs %s are not isolated by the kernel: no isolated ones were left that fit.", list);
    }
    if (search->want.smt == SMT_ISOLATE && hwloc_bitmap_weight(placement->reserved) > (int)placement->vcpus->len)
        placement_note(placement, "The siblings of the guest's PUs are promised to it and left idle (smt=isolate).");
    if (solution->cut_short)
        placement_note(placement, "Not every placement was looked at, as there are too many: there may be a better one.");
    hwloc_bitmap_free(noisy);
}

/* What survey, devices and search of one question need of each other. */
typedef struct {
    Survey *survey;
    Devices *devices;
    Search *search;
} Attempt;

static void attempt_clear(Attempt *attempt)
{
    search_free(attempt->search);
    devices_free(attempt->devices);
    survey_free(attempt->survey);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Attempt, attempt_clear)

static gboolean check_spec(const Spec *spec, GError **error)
{
    const char *wrong = NULL;

    if (spec->cpus < 1 || spec->cpus > 4096)
        wrong = "wanted 1 to 4096 vCPUs";
    else if (spec->spread && spec->numa_nodes)
        wrong = "spread and numa: wanted one of them, found both";
    else if (spec->numa_nodes > spec->cpus || spec->sockets > spec->cpus)
        wrong = "wanted at most as many NUMA nodes and sockets as vCPUs";
    else if (spec->memory_bytes == 0 || spec->memory_bytes > G_GUINT64_CONSTANT(1) << 50)
        wrong = "wanted memory of 4 KiB to 1 PiB";
    else if (spec->memory_bytes % (spec->page_bytes ? spec->page_bytes : 4 * HVM_KIB))
        wrong = "wanted memory that is a multiple of the page size";
    if (wrong)
        g_set_error_literal(error, HVM_ERROR, HVM_ERROR_INVALID, wrong);
    return !wrong;
}

static gboolean solve(const Question *question, Attempt *attempt, Solution *solution, GError **error)
{
    const Want want = want_from_spec(question->spec);

    if (!check_spec(question->spec, error))
        return FALSE;
    attempt->survey = survey_new(question->host, question->ledger, question->allowed, question->policy, want.smt,
                                 question->full);
    attempt->devices = devices_new(attempt->survey, question->spec, question->full, error);
    if (!attempt->devices)
        return FALSE;
    attempt->search = search_new(attempt->survey, attempt->devices, &want);
    search_run(attempt->search, -1, 0, solution);
    return solution->found || refusal_explain(question, attempt->search, solution->cut_short, error);
}

Placement *placement_solve(const Host *host, const Spec *spec, const Ledger *ledger, const Allowed *allowed,
                           const PlacementPolicy *policy, GError **error)
{
    const Question question = {host, spec, ledger, allowed, policy, FALSE};
    g_auto(Attempt) attempt = {0};
    g_auto(Solution) solution = {0};

    if (!solve(&question, &attempt, &solution, error)) {
        g_prefix_error(error, "guest '%s': ", spec->name);
        return NULL;
    }

    Placement *placement = placement_new();

    layout_fill(placement, attempt.search, &solution);
    fill_devices(placement, attempt.search, &solution);
    note_memory(placement, attempt.search);
    note_cpus(placement, attempt.search, &solution);
    reasons_fill(placement, attempt.search, &solution);
    return placement;
}

gboolean placement_could_fit(const Host *host, const Spec *spec, const Allowed *allowed, const PlacementPolicy *policy,
                             GError **error)
{
    g_autoptr(Ledger) empty = ledger_new();
    const Question question = {host, spec, empty, allowed, policy, TRUE};
    g_auto(Attempt) attempt = {0};
    g_auto(Solution) solution = {0};
    gboolean fits = solve(&question, &attempt, &solution, error);

    if (!fits)
        g_prefix_error(error, "guest '%s' could never fit this node: ", spec->name);
    return fits;
}

LedgerEntry *placement_promise(const Placement *placement, const char *uuid, const char *name, uid_t owner_uid)
{
    LedgerEntry *entry = ledger_entry_new(uuid, name, owner_uid);

    hwloc_bitmap_copy(entry->pus, placement->reserved);
    for (guint i = 0; i < placement->cells->len; i++) {
        const PlacementCell *cell = &g_array_index(placement->cells, PlacementCell, i);
        LedgerMemory memory = {cell->node, cell->page_bytes, cell->memory_bytes};

        g_array_append_val(entry->memory, memory);
    }
    for (guint i = 0; i < placement->devices->len; i++)
        g_ptr_array_add(entry->devices, g_strdup(((const PlacementDevice *)g_ptr_array_index(placement->devices, i))->address));
    return entry;
}
