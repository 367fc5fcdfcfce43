/*
 * refusal.c: which constraint failed, how near it came, and what would make it fit.
 *
 * The request is asked again with one constraint after the other relaxed; the first that lets it through is the one to
 * name. advice.c says what would make it fit.
 */
#include "refusal.h"

#include "hvm_error.h"
#include "units.h"

#include <string.h>

/* ---- Words ---- */

static const char *unit_noun(const Refusal *refusal, guint64 count)
{
    gboolean threads = refusal->search->want.smt == SMT_ANY && refusal->question->host->smt > 1;

    if (threads)
        return count == 1 ? "PU" : "PUs";
    return count == 1 ? "core" : "cores";
}

static char *count_units(const Refusal *refusal, guint64 count, const char *adjective)
{
    return g_strdup_printf("%" G_GUINT64_FORMAT " %s%s", count, adjective, unit_noun(refusal, count));
}

static char *count_nodes(unsigned count)
{
    return count == 1 ? g_strdup("one NUMA node") : g_strdup_printf("%u NUMA nodes", count);
}

/* "(free 8 cores on node 1, or --numa 2)" after a sentence, from a list of advice. */
static gboolean refuse(const Refusal *refusal, GPtrArray *advice, const char *format, ...) G_GNUC_PRINTF(3, 4);
static gboolean refuse(const Refusal *refusal, GPtrArray *advice, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autoptr(GString) text = g_string_new(NULL);
    g_string_vprintf(text, format, arguments);
    va_end(arguments);
    if (!advice->len)
        advice_cpus(refusal, advice);
    if (refusal->cut_short)
        g_string_append(text, "; not every choice of NUMA nodes and devices was tried, as there are too many");
    for (guint i = 0; i < advice->len; i++)
        g_string_append_printf(text, "%s%s", i ? ", or " : " (", (const char *)g_ptr_array_index(advice, i));
    if (advice->len)
        g_string_append_c(text, ')');
    g_set_error_literal(refusal->error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT, text->str);
    return FALSE;
}

/* ---- What there is ---- */

/* There is none where siblings are wanted and no whole core is free. */
static const Phase *first_phase(const Refusal *refusal)
{
    return &g_array_index(refusal->search->phases, Phase, 0);
}

/* Units wanted, in units of the first phase: whole cores of the widest kind. */
static unsigned units_wanted(const Refusal *refusal)
{
    const Want *want = &refusal->search->want;

    unsigned width = want->smt == SMT_SIBLINGS ? refusal->question->host->smt : 1;

    if (refusal->search->phases->len == 0) /* not one whole core is free */
        return MAX((want->cpus + width - 1) / width, MAX(want->numa_nodes, want->sockets)) + (want->dedicated ? 1 : 0);
    return first_phase(refusal)->want + first_phase(refusal)->extra;
}

/* Units that may be had on a node. Cores of unlike widths all count. */
static unsigned units_on(const Refusal *refusal, unsigned index)
{
    const Survey *survey = refusal->search->survey;
    const Node *node = survey_node(survey, index);
    unsigned count = 0;

    for (unsigned r = 0; r < node->regions; r++) {
        const Region *region = survey_region(survey, node->first_region + r);

        for (unsigned l = 0; l < region->slices; l++)
            count += survey_slice(survey, region->first_slice + l)->units;
    }
    return count;
}

typedef struct {
    unsigned node, units;
} Room;

static int compare_rooms(gconstpointer a, gconstpointer b)
{
    const Room *x = a, *y = b;

    if (x->units != y->units)
        return x->units > y->units ? -1 : 1;
    return (x->node > y->node) - (x->node < y->node);
}

/* Nodes by what is free on them, most first. */
static GArray *list_rooms(const Refusal *refusal)
{
    GArray *rooms = g_array_new(FALSE, FALSE, sizeof(Room));

    for (guint i = 0; i < refusal->search->survey->nodes->len; i++) {
        Room room = {survey_node(refusal->search->survey, i)->host_node->node, units_on(refusal, i)};

        g_array_append_val(rooms, room);
    }
    g_array_sort(rooms, compare_rooms);
    return rooms;
}

static char *format_nodes(const GArray *rooms, unsigned count)
{
    hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
    char *text;

    for (unsigned i = 0; i < MIN(count, rooms->len); i++)
        hwloc_bitmap_set(nodes, g_array_index(rooms, Room, i).node);
    text = host_format_list(nodes);
    hwloc_bitmap_free(nodes);
    return text;
}

/* ---- The refusals, one per constraint ---- */

static gboolean refuse_total(const Refusal *refusal, unsigned wanted, unsigned have)
{
    const Survey *survey = refusal->search->survey;
    const char *adjective = refusal->question->full ? "" : "free ";
    g_autoptr(GPtrArray) advice = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *needs = count_units(refusal, wanted, adjective);
    const char *where = survey->bounded ? "the caller's CPUs and memory nodes have" : "this node has";

    /* Whose they are is not for every caller to know: the ledger's owner tells. */
    if (advice_fits_empty(refusal))
        advice_add(advice, "free %u that other guests hold", MAX(wanted, have + 1) - have);
    advice_cpus(refusal, advice);
    advice_changes(refusal, advice);
    if (have >= wanted && survey->width_count > 1) {
        unsigned threads = 0;

        for (guint i = 0; i < survey->units->len; i++)
            threads += survey_unit(survey, i)->width;
        return refuse(refusal, advice, "needs %u %sthreads of whole cores%s; %s %u", refusal->search->want.cpus, adjective,
                      refusal->search->want.dedicated ? ", and a core for the emulator (dedicated)" : "", where, threads);
    }
    if (have >= wanted)
        return refuse(refusal, advice, "needs %s, the emulator's (dedicated) on the same NUMA node as some of the others; no "
                      "choice of nodes has that", needs);
    return refuse(refusal, advice, "needs %s; %s %u", needs, where, have);
}

static gboolean refuse_nodes(const Refusal *refusal, unsigned count)
{
    g_autoptr(GPtrArray) advice = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GArray) rooms = list_rooms(refusal);
    g_autofree char *needs = count_units(refusal, units_wanted(refusal), refusal->question->full ? "" : "free ");
    g_autofree char *nodes = count_nodes(count), *list = format_nodes(rooms, count);
    unsigned sum = 0, filled = 0;

    for (unsigned i = 0; i < MIN(count, rooms->len); i++) {
        sum += g_array_index(rooms, Room, i).units;
        filled += g_array_index(rooms, Room, i).units > 0;
    }
    if (filled < count) {
        advice_changes(refusal, advice);
        return refuse(refusal, advice, "needs %s on %s; %u of this node's have any", needs, nodes, filled);
    }
    if (sum < units_wanted(refusal) && advice_fits_empty(refusal)) {
        g_autofree char *missing = count_units(refusal, units_wanted(refusal) - sum, "");

        advice_add(advice, "free %s on node %s", missing, list);
    }
    advice_changes(refusal, advice);
    return refuse(refusal, advice, count == 1 ? "needs %s on %s; node %s has %u" : "needs %s on %s; nodes %s have %u", needs,
                  nodes, list, sum);
}

static gboolean refuse_sockets(const Refusal *refusal)
{
    const Survey *survey = refusal->search->survey;
    g_autoptr(GPtrArray) advice = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *needs = count_units(refusal, units_wanted(refusal), refusal->question->full ? "" : "free ");
    g_autoptr(GString) have = g_string_new(NULL);

    for (guint i = 0; i < survey->regions->len;) {
        unsigned package = survey_region(survey, i)->package, units = 0;

        for (; i < survey->regions->len && survey_region(survey, i)->package == package; i++)
            for (unsigned l = 0; l < survey_region(survey, i)->slices; l++)
                units += survey_slice(survey, survey_region(survey, i)->first_slice + l)->units;
        g_string_append_printf(have, "%s%u", have->len ? ", " : "", units);
    }
    advice_changes(refusal, advice);
    return refuse(refusal, advice, "needs %s on exactly %u package%s; the packages of this node have %s", needs,
                  refusal->search->want.sockets, refusal->search->want.sockets == 1 ? "" : "s", have->str);
}

static const char *page_noun(guint64 page_bytes)
{
    if (page_bytes == PAGES_AUTO)
        return "memory";
    return page_bytes == HVM_GIB ? "1G pages" : page_bytes == 2 * HVM_MIB ? "2M pages" : "4K pages";
}

/* What a cell could have at most on a node, in one page size. */
static guint64 most_memory(const Node *node, const Want *want)
{
    guint64 most = 0;

    for (int row = PAGES_1G; row <= PAGES_4K; row++)
        if (want->page_bytes == PAGES_AUTO || want->page_bytes == page_row_bytes[row])
            most = MAX(most, node->free_bytes[row]);
    return most;
}

/* `solution` is how it would be done if there were memory enough: the cell that is shortest is named. */
static gboolean refuse_memory(const Refusal *refusal, const Solution *solution)
{
    const Want *want = &refusal->search->want;
    const Survey *survey = refusal->search->survey;
    g_autoptr(GPtrArray) advice = g_ptr_array_new_with_free_func(g_free);
    guint64 worst = 0, total = 0;
    const Cell *shortest = NULL;

    for (guint i = 0; i < survey->nodes->len; i++) {
        guint64 most = most_memory(survey_node(survey, i), want);

        total = total > G_MAXUINT64 - most ? G_MAXUINT64 : total + most;
    }
    for (guint i = 0; i < solution->cells->len; i++) {
        const Cell *cell = &g_array_index(solution->cells, Cell, i);
        guint64 most = most_memory(survey_node(survey, cell->node), want);

        if (!shortest || (cell->bytes > most && cell->bytes - most > worst)) {
            shortest = cell;
            worst = cell->bytes > most ? cell->bytes - most : 0;
        }
    }

    const Node *node = survey_node(survey, shortest->node);
    g_autofree char *wants = size_format(shortest->bytes), *all = size_format(want->memory_bytes);
    g_autofree char *has = size_format_rounded(most_memory(node, want)), *sum = size_format_rounded(total);
    g_autofree char *missing = size_format_rounded(worst);
    const char *noun = page_noun(want->page_bytes), *adjective = refusal->question->full ? "" : " free";

    if (total == 0) {
        advice_changes(refusal, advice);
        advice_memory(refusal, advice);
        return refuse(refusal, advice, "needs %s of %s; no NUMA node it may use has any%s", all, noun, adjective);
    }
    if (total < want->memory_bytes) {
        advice_changes(refusal, advice);
        advice_memory(refusal, advice);
        return refuse(refusal, advice, "needs %s of %s; the NUMA nodes it may use have %s%s", all, noun, sum, adjective);
    }
    if (worst == 0) {
        advice_changes(refusal, advice);
        advice_memory(refusal, advice);
        return refuse(refusal, advice, "needs %s of %s on the NUMA nodes of its cores; no choice of nodes has both", all, noun);
    }
    if (advice_fits_empty(refusal))
        advice_add(advice, "free %s on node %u", missing, node->host_node->node);
    advice_changes(refusal, advice);
    advice_memory(refusal, advice);
    return refuse(refusal, advice, "needs %s of %s on node %u for its %u vCPUs there; node %u has %s%s", wants, noun,
                  node->host_node->node, shortest->count * (first_phase(refusal)->width ? first_phase(refusal)->width : 1),
                  node->host_node->node, has, adjective);
}

static gboolean refuse_locality(const Refusal *refusal)
{
    const Survey *survey = refusal->search->survey;
    const Devices *devices = refusal->search->devices;
    g_autoptr(GPtrArray) advice = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GString) have = g_string_new(NULL), names = g_string_new(NULL);
    unsigned most = 0, nearest = 0;
    g_autofree char *needs = count_units(refusal, units_wanted(refusal), refusal->question->full ? "" : "free ");

    for (unsigned i = 0; i < devices_count(devices); i++) {
        g_autofree char *name = hvm_escape(devices_wanted(devices, i)->name, -1);

        if (devices_wanted(devices, i)->locality == LOCALITY_REQUIRED)
            g_string_append_printf(names, "%s'%s'", names->len ? ", " : "", name);
    }
    for (guint i = 0; i < survey->nodes->len; i++) {
        unsigned units = units_on(refusal, i), node = survey_node(survey, i)->host_node->node;

        if (devices_distance(devices, i) != 10)
            continue;
        g_string_append_printf(have, "%snode %u has %u", have->len ? ", " : "", node, units);
        if (units > most) {
            most = units;
            nearest = node;
        }
    }

    Want cores = refusal->search->want;

    /* Cores are not what is short, so that the devices themselves are not together anywhere. */
    cores.ignore_memory = TRUE;
    if (most >= units_wanted(refusal) && !advice_fits(refusal, &cores)) {
        advice_changes(refusal, advice);
        advice_locality(refusal, advice);
        return refuse(refusal, advice, "needs devices %s on the NUMA nodes of its cores (locality=required); no choice of those has "
                      "them all", names->str);
    }
    if (!have->len)
        g_string_append(have, "no NUMA node that the guest may use has such a device");
    else if (most < units_wanted(refusal) && advice_fits_empty(refusal)) {
        g_autofree char *missing = count_units(refusal, units_wanted(refusal) - most, "");

        advice_add(advice, "free %s on node %u", missing, nearest);
    }
    advice_changes(refusal, advice);
    advice_locality(refusal, advice);
    advice_memory(refusal, advice);
    return refuse(refusal, advice, "needs %s, and their memory, on the NUMA node of device %s (locality=required); %s", needs,
                  names->str, have->str);
}

/* "devices of kind gpu" where all of `those` ask for the same, else "devices 'a', 'b'". */
static char *name_devices(const Devices *devices, const gboolean *those)
{
    g_autoptr(GString) names = g_string_new(NULL);
    const SpecDevice *first = NULL;
    gboolean alike = TRUE;

    for (unsigned i = 0; i < devices_count(devices); i++) {
        const SpecDevice *wanted = devices_wanted(devices, i);
        g_autofree char *name = hvm_escape(wanted->name, -1);

        if (!those[i])
            continue;
        first = first ? first : wanted;
        alike = alike && g_strcmp0(first->kind, wanted->kind) == 0 && g_strcmp0(first->network, wanted->network) == 0 &&
                !wanted->address;
        g_string_append_printf(names, "%s'%s'", names->len ? ", " : "", name);
    }
    if (first && alike) {
        g_autofree char *what = hvm_escape(first->kind ? first->kind : first->network, -1);

        return g_strdup_printf("devices of %s %s", first->kind ? "kind" : "interface", what);
    }
    return g_strdup_printf("devices %s", names->str);
}

static gboolean refuse_devices(const Refusal *refusal, const gboolean *those, unsigned have)
{
    g_autoptr(GPtrArray) advice = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *what = name_devices(refusal->search->devices, those);
    unsigned wanted = 0;

    for (unsigned i = 0; i < devices_count(refusal->search->devices); i++)
        wanted += those[i] != 0;
    if (advice_fits_empty(refusal))
        advice_add(advice, "free %u that other guests hold", wanted - have);
    if (advice_fits_without(refusal, those, wanted - have))
        advice_add(advice, "ask for at most %u of them", have);
    return refuse(refusal, advice, "needs %u %s at once; %u that would do %s%s", wanted, what, have, have == 1 ? "is" : "are",
                  refusal->question->full ? " there" : " free");
}

gboolean refusal_explain(const Question *question, const Search *search, gboolean cut_short, GError **error)
{
    const Refusal refusal = {question, search, cut_short, error};
    const Want *want = &search->want;
    g_auto(Solution) solution = {0};
    g_autofree gboolean *those = g_new0(gboolean, devices_count(search->devices) + 1);
    Want other = *want;
    unsigned have = 0;

    if (devices_short(search->devices, those, &have))
        return refuse_devices(&refusal, those, have);

    /* CPUs alone, wherever they are. */
    other.ignore_memory = other.ignore_locality = TRUE;
    other.numa_nodes = other.sockets = 0;
    other.spread = FALSE;
    for (guint i = 0; i < search->survey->nodes->len; i++)
        have += units_on(&refusal, i);
    if (!advice_fits(&refusal, &other))
        return refuse_total(&refusal, units_wanted(&refusal), have);

    other.numa_nodes = want->numa_nodes;
    if (!advice_fits(&refusal, &other))
        return refuse_nodes(&refusal, want->numa_nodes);
    other.sockets = want->sockets;
    if (!advice_fits(&refusal, &other))
        return refuse_sockets(&refusal);
    other.spread = want->spread;
    other.ignore_memory = FALSE;
    if (advice_fits(&refusal, &other))
        return refuse_locality(&refusal);
    other.ignore_memory = TRUE;
    other.ignore_locality = FALSE;
    if (!advice_fits(&refusal, &other))
        return refuse_locality(&refusal);
    advice_ask(&refusal, &other, &solution);
    return refuse_memory(&refusal, &solution);
}
