/* survey.c: Host, Ledger and bounds -> the units that may be given, in order. */
#include "solver.h"

#include "units.h"

#include <hwloc/distances.h>
#include <string.h>

const guint64 page_row_bytes[3] = {HVM_GIB, 2 * HVM_MIB, 4 * HVM_KIB};

/* A usable PU that no housekeeping claims, with the keys by which PUs are sorted. */
typedef struct {
    unsigned node_key, package, node, l3, core; /* lowest PU of each, but `node` is its number */
    unsigned pu;
    hwloc_obj_t l3_object, core_object;
} Place;

static int compare_places(gconstpointer a, gconstpointer b)
{
    const Place *x = a, *y = b;
    const unsigned left[] = {x->node_key, x->node, x->package, x->l3, x->core, x->pu};
    const unsigned right[] = {y->node_key, y->node, y->package, y->l3, y->core, y->pu};

    for (gsize i = 0; i < G_N_ELEMENTS(left); i++)
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    return 0;
}

static unsigned lowest_pu(hwloc_obj_t object)
{
    int first = object && object->cpuset ? hwloc_bitmap_first(object->cpuset) : -1;

    return first < 0 ? G_MAXUINT : (unsigned)first;
}

static hwloc_obj_t find_package(hwloc_obj_t object)
{
    while (object && object->type != HWLOC_OBJ_PACKAGE)
        object = object->parent;
    return object;
}

/* The package of the lowest PU of each node: nodes of a package lie together in the survey. */
static void set_node_keys(GArray *places)
{
    g_autoptr(GHashTable) lowest = g_hash_table_new(NULL, NULL);

    for (guint i = 0; i < places->len; i++) {
        const Place *place = &g_array_index(places, Place, i);
        gpointer key = GUINT_TO_POINTER(place->node), known;

        if (!g_hash_table_lookup_extended(lowest, key, NULL, &known) || place->package < GPOINTER_TO_UINT(known))
            g_hash_table_insert(lowest, key, GUINT_TO_POINTER(place->package));
    }
    for (guint i = 0; i < places->len; i++) {
        Place *place = &g_array_index(places, Place, i);

        place->node_key = GPOINTER_TO_UINT(g_hash_table_lookup(lowest, GUINT_TO_POINTER(place->node)));
    }
}

/* All PUs that a guest could get on an empty node with nothing in its way, sorted. */
static GArray *list_places(const Survey *survey)
{
    const Host *host = survey->host;
    GArray *places = g_array_new(FALSE, TRUE, sizeof(Place));
    unsigned pu;

    hwloc_bitmap_foreach_begin(pu, host->usable_pus) {
        const HostNode *home = host_home_node(host, pu);
        hwloc_obj_t core = host_core_of(host, pu), l3 = host_l3_of(host, pu);

        if (home && home->general_purpose && !hwloc_bitmap_isset(survey->housekeeping, pu)) {
            Place place = {.package = lowest_pu(find_package(core)), .node = home->node, .l3 = lowest_pu(l3),
                           .core = lowest_pu(core), .pu = pu, .l3_object = l3, .core_object = core};

            g_array_append_val(places, place);
        }
    } hwloc_bitmap_foreach_end();
    set_node_keys(places);
    g_array_sort(places, compare_places);
    return places;
}

static void add_unit(Survey *survey, const Place *places, guint count)
{
    Unit unit = {.width = count, .core = places[0].core_object->logical_index, .isolated = TRUE};
    Slice *slice = survey_slice(survey, survey->slices->len - 1);

    if (places[0].core_object->type != HWLOC_OBJ_CORE)
        unit.core = places[0].pu;
    for (guint i = 0; i < count; i++) {
        unit.pus[i] = places[i].pu;
        unit.isolated = unit.isolated && hwloc_bitmap_isset(survey->host->isolated, places[i].pu);
    }
    g_array_append_val(survey->units, unit);
    slice->units++;
}

/* Adds the PUs of one core: one unit if it is whole (usable siblings that housekeeping claims break it too), or each
 * available PU by itself. */
static void add_core(Survey *survey, const Place *places, guint count, SmtPolicy smt)
{
    guint available = 0, usable = count;

    for (guint i = 0; i < count; i++)
        available += (guint)hwloc_bitmap_isset(survey->available, places[i].pu);
    if (smt == SMT_ANY) {
        for (guint i = 0; i < count; i++)
            if (hwloc_bitmap_isset(survey->available, places[i].pu))
                add_unit(survey, &places[i], 1);
        return;
    }
    if (places[0].core_object->type == HWLOC_OBJ_CORE && !hwloc_bitmap_iszero(survey->housekeeping)) {
        unsigned pu;

        hwloc_bitmap_foreach_begin(pu, places[0].core_object->cpuset) {
            usable += (guint)hwloc_bitmap_isset(survey->housekeeping, pu);
        } hwloc_bitmap_foreach_end();
    }
    if (available == usable && available <= UNIT_PUS_MAX)
        add_unit(survey, places, count);
}

static void count_open(Survey *survey, const Place *place, hwloc_const_bitmap_t taken)
{
    Slice *slice = survey_slice(survey, survey->slices->len - 1);
    Node *node = survey_node(survey, survey->nodes->len - 1);

    if (hwloc_bitmap_isset(taken, place->pu)) {
        slice->taken = TRUE;
        node->taken = TRUE;
    } else {
        slice->open_pus++;
        node->open_pus++;
    }
}

/* Opens a node, region or slice where `place` begins one. */
static void open_groups(Survey *survey, const Place *place, const Place *before, unsigned *packages)
{
    gboolean new_node = !before || before->node != place->node;
    gboolean new_package = !before || before->package != place->package;
    gboolean new_region = new_node || new_package;

    if (new_package)
        (*packages)++;
    if (new_node) {
        Node node = {.host_node = host_find_node(survey->host, place->node), .package = *packages - 1,
                     .first_region = survey->regions->len};

        g_array_append_val(survey->nodes, node);
    }
    if (new_region) {
        Region region = {.package = *packages - 1, .first_slice = survey->slices->len};

        g_array_append_val(survey->regions, region);
        survey_node(survey, survey->nodes->len - 1)->regions++;
    }
    if (new_region || before->l3 != place->l3) {
        Slice slice = {.l3 = place->l3_object, .number = place->pu, .first_unit = survey->units->len};

        g_array_append_val(survey->slices, slice);
        survey_region(survey, survey->regions->len - 1)->slices++;
    }
}

static void fill_units(Survey *survey, const GArray *places, hwloc_const_bitmap_t taken, SmtPolicy smt)
{
    const Place *all = (const Place *)(gpointer)places->data;
    unsigned packages = 0;

    for (guint i = 0; i < places->len;) {
        guint end = i;

        if (survey->nodes->len == NODES_MAX && all[i].node != all[i - 1].node)
            return;
        open_groups(survey, &all[i], i ? &all[i - 1] : NULL, &packages);
        while (end < places->len && all[end].core == all[i].core && all[end].node == all[i].node)
            count_open(survey, &all[end++], taken);
        add_core(survey, &all[i], end - i, smt);
        i = end;
    }
}

static void fill_widths(Survey *survey)
{
    gboolean seen[UNIT_PUS_MAX + 1] = {FALSE};

    for (guint i = 0; i < survey->units->len; i++)
        seen[survey_unit(survey, i)->width] = TRUE;
    for (unsigned width = UNIT_PUS_MAX; width > 0; width--)
        if (seen[width])
            survey->widths[survey->width_count++] = width;
}

static void fill_memory(Survey *survey, gboolean full)
{
    for (guint i = 0; i < survey->nodes->len; i++) {
        Node *node = survey_node(survey, i);
        unsigned number = node->host_node->node;

        for (guint row = 0; row < G_N_ELEMENTS(page_row_bytes); row++) {
            guint64 bytes = page_row_bytes[row];

            node->pool_told[row] = host_node_pages(node->host_node, bytes) != NULL;
            node->free_bytes[row] = full ? ledger_total_bytes(survey->host, number, bytes)
                                         : ledger_free_bytes(survey->ledger, survey->host, number, bytes);
            /* A recorded host which does not tell its memory does not tell its pools either. */
            if (!node->pool_told[row] && node->host_node->memory_bytes == HOST_BYTES_UNKNOWN &&
                survey->host->origin != HOST_LIVE)
                node->free_bytes[row] = HOST_BYTES_UNKNOWN;
        }
    }
}

static guint find_host_node(const Host *host, unsigned number)
{
    for (guint i = 0; i < host->nodes->len; i++)
        if (((const HostNode *)g_ptr_array_index(host->nodes, i))->node == number)
            return i;
    return host->nodes->len;
}

static hwloc_obj_t package_of_node(const Host *host, const HostNode *node)
{
    int pu = hwloc_bitmap_first(node->pus);
    hwloc_obj_t core = pu < 0 ? NULL : host_core_of(host, (unsigned)pu);

    return find_package(core);
}

/* Where the firmware's table is missing: the same package is nearer than another. */
static void guess_distances(Survey *survey)
{
    guint count = survey->host->nodes->len;

    for (guint i = 0; i < count; i++) {
        hwloc_obj_t package = package_of_node(survey->host, g_ptr_array_index(survey->host->nodes, i));

        for (guint j = 0; j < count; j++) {
            hwloc_obj_t other = package_of_node(survey->host, g_ptr_array_index(survey->host->nodes, j));

            survey->distances[i * count + j] = i == j ? 10 : package && package == other ? 15 : 20;
        }
    }
}

/* Takes over a matrix of hwloc's if it looks like the firmware's: 10 for local, 11 to 254 for the rest. */
static gboolean take_distances(Survey *survey, const struct hwloc_distances_s *found)
{
    guint count = survey->host->nodes->len, known = 0;

    for (unsigned i = 0; i < found->nbobjs; i++) {
        guint row = found->objs[i] ? find_host_node(survey->host, found->objs[i]->os_index) : count;

        for (unsigned j = 0; row < count && j < found->nbobjs; j++) {
            guint column = found->objs[j] ? find_host_node(survey->host, found->objs[j]->os_index) : count;
            hwloc_uint64_t value = found->values[i * found->nbobjs + j];

            if (column == count)
                continue;
            if (value < 10 || value > 254 || (row == column && value != 10))
                return FALSE;
            survey->distances[row * count + column] = (guint8)value;
            known++;
        }
    }
    return known == count * count;
}

static void fill_distances(Survey *survey)
{
    guint count = survey->host->nodes->len;
    struct hwloc_distances_s *found = NULL;
    unsigned matrices = 1;

    survey->distances = g_new0(guint8, (gsize)count * count + 1);
    guess_distances(survey);
    if (count < 2 || hwloc_distances_get_by_type(survey->host->topology, HWLOC_OBJ_NUMANODE, &matrices, &found,
                                                 HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0) < 0 || !matrices || !found)
        return;
    survey->distances_told = take_distances(survey, found);
    if (!survey->distances_told)
        guess_distances(survey);
    hwloc_distances_release(survey->host->topology, found);
}

static void fill_bounds(Survey *survey, const Allowed *allowed, const PlacementPolicy *policy, hwloc_const_bitmap_t taken)
{
    const Host *host = survey->host;
    unsigned pu;

    survey->housekeeping = hwloc_bitmap_alloc();
    if (policy && policy->housekeeping)
        hwloc_bitmap_and(survey->housekeeping, policy->housekeeping, host->usable_pus);
    survey->disk_nodes = policy ? policy->disk_nodes : NULL;
    survey->allowed = hwloc_bitmap_dup(host->usable_pus);
    if (allowed && allowed->pus)
        hwloc_bitmap_and(survey->allowed, survey->allowed, allowed->pus);
    survey->bounded = !hwloc_bitmap_isequal(survey->allowed, host->usable_pus);
    survey->available = hwloc_bitmap_alloc();
    hwloc_bitmap_andnot(survey->available, survey->allowed, taken);
    if (allowed && allowed->nodes) {
        hwloc_bitmap_foreach_begin(pu, host->usable_pus) {
            const HostNode *home = host_home_node(host, pu);

            if (home && !hwloc_bitmap_isset(allowed->nodes, home->node)) {
                hwloc_bitmap_clr(survey->available, pu);
                survey->bounded = TRUE;
            }
        } hwloc_bitmap_foreach_end();
    }
}

Survey *survey_new(const Host *host, const Ledger *ledger, const Allowed *allowed, const PlacementPolicy *policy,
                   SmtPolicy smt, gboolean full)
{
    Survey *survey = g_new0(Survey, 1);
    hwloc_bitmap_t taken = full ? hwloc_bitmap_alloc() : ledger_taken_pus(ledger);

    survey->host = host;
    survey->ledger = ledger;
    survey->units = g_array_new(FALSE, TRUE, sizeof(Unit));
    survey->slices = g_array_new(FALSE, TRUE, sizeof(Slice));
    survey->regions = g_array_new(FALSE, TRUE, sizeof(Region));
    survey->nodes = g_array_new(FALSE, TRUE, sizeof(Node));
    fill_bounds(survey, allowed, policy, taken);

    g_autoptr(GArray) places = list_places(survey);

    fill_units(survey, places, taken, smt);
    fill_widths(survey);
    fill_memory(survey, full);
    fill_distances(survey);
    hwloc_bitmap_free(taken);
    return survey;
}

void survey_free(Survey *survey)
{
    if (!survey)
        return;
    g_array_free(survey->units, TRUE);
    g_array_free(survey->slices, TRUE);
    g_array_free(survey->regions, TRUE);
    g_array_free(survey->nodes, TRUE);
    hwloc_bitmap_free(survey->available);
    hwloc_bitmap_free(survey->housekeeping);
    hwloc_bitmap_free(survey->allowed);
    g_free(survey->distances);
    g_free(survey);
}

unsigned survey_distance(const Survey *survey, int node, int other)
{
    guint count = survey->host->nodes->len;
    guint row = node < 0 ? count : find_host_node(survey->host, (unsigned)node);
    guint column = other < 0 ? count : find_host_node(survey->host, (unsigned)other);

    return row < count && column < count ? survey->distances[row * count + column] : 255;
}

Want want_from_spec(const Spec *spec)
{
    return (Want){.cpus = spec->cpus, .smt = spec->smt, .numa_nodes = spec->numa_nodes, .sockets = spec->sockets,
                  .spread = spec->spread, .dedicated = spec->emulator == EMULATOR_DEDICATED,
                  .memory_bytes = spec->memory_bytes, .page_bytes = spec->page_bytes};
}

/* Cells of whole 2 MiB where that is possible, so that none is kept from huge pages by its rounding alone. */
guint64 want_granule(const Want *want)
{
    static const guint64 sizes[] = {2 * HVM_MIB, HVM_MIB, 4 * HVM_KIB};

    if (want->page_bytes > 4 * HVM_KIB)
        return want->page_bytes;
    for (gsize i = 0; i < G_N_ELEMENTS(sizes); i++)
        if (want->memory_bytes % sizes[i] == 0)
            return sizes[i];
    return 1;
}

int node_page_row(const Node *node, const Want *want, guint64 bytes)
{
    for (int row = PAGES_1G; row <= PAGES_4K; row++) {
        guint64 page_bytes = page_row_bytes[row];

        if (want->page_bytes == PAGES_AUTO ? row != PAGES_4K && !node->pool_told[row] : want->page_bytes != page_bytes)
            continue;
        if (bytes % page_bytes == 0 && (want->ignore_memory || bytes <= node->free_bytes[row]))
            return row;
    }
    return -1;
}
