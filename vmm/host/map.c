#include "map_internal.h"

#include "hvm_error.h"
#include "units.h"

#include <string.h>

enum { WIDTH_MIN = 40, INDENT = 4 };

/* ---- Owners ---- */

MapOwners *map_owners_new(const Host *host, MapOwnerFunc owner_of, gpointer data)
{
    MapOwners *owners = g_new0(MapOwners, 1);
    g_autoptr(GHashTable) known = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    int last = hwloc_bitmap_last(host->usable_pus);

    owners->names = g_ptr_array_new_with_free_func(g_free);
    owners->counts = g_array_new(FALSE, TRUE, sizeof(guint));
    owners->owners = g_array_new(FALSE, TRUE, sizeof(int));
    for (int pu = 0; pu <= last; pu++) {
        gboolean usable = hwloc_bitmap_isset(host->usable_pus, (unsigned)pu);
        const char *name = usable && owner_of ? owner_of((unsigned)pu, data) : NULL;
        int owner = name ? (int)GPOINTER_TO_UINT(g_hash_table_lookup(known, name)) - 1 : -1;

        if (name && owner < 0) {
            owner = (int)owners->names->len;
            g_ptr_array_add(owners->names, hvm_escape(name, -1));
            g_array_set_size(owners->counts, owners->names->len);
            g_hash_table_insert(known, g_strdup(name), GUINT_TO_POINTER((guint)owner + 1));
        }
        if (owner >= 0)
            g_array_index(owners->counts, guint, owner)++;
        else if (usable)
            owners->free_pus++;
        g_array_append_val(owners->owners, owner);
    }
    return owners;
}

void map_owners_free(MapOwners *owners)
{
    g_ptr_array_free(owners->names, TRUE);
    g_array_free(owners->counts, TRUE);
    g_array_free(owners->owners, TRUE);
    g_free(owners);
}

int map_owner_of(const MapOwners *owners, unsigned pu)
{
    return pu < owners->owners->len ? g_array_index(owners->owners, int, pu) : -1;
}

char map_letter(unsigned owner)
{
    return owner < 26 ? (char)('A' + owner) : owner < 52 ? (char)('a' + owner - 26) : '#';
}

/* ---- Drawing ---- */

typedef struct {
    const Host *host;
    const MapOwners *owners;
    GString *out;
    unsigned width;
    gboolean colours;
    unsigned column;        /* of the current line */
    unsigned number_width;  /* digits of the largest PU number */
    gboolean isolated_free; /* cells of that kind were drawn: the legend names them */
    gboolean unusable;
} Canvas;

static void put_colour(Canvas *canvas, int owner)
{
    static const char *const colours[] = {"32", "36", "33", "35", "34", "31", "92", "96", "93", "95", "94", "91"};

    if (canvas->colours)
        g_string_append_printf(canvas->out, "\033[%sm",
                               owner < 0 ? "2" : colours[(unsigned)owner % G_N_ELEMENTS(colours)]);
}

/* One cell in the colour of its owner. */
static void put_cell(Canvas *canvas, char letter, int owner)
{
    put_colour(canvas, owner);
    g_string_append_c(canvas->out, letter);
    if (canvas->colours)
        g_string_append(canvas->out, "\033[0m");
    canvas->column++;
}

static void put_char(Canvas *canvas, char c)
{
    g_string_append_c(canvas->out, c);
    canvas->column = c == '\n' ? 0 : canvas->column + 1;
}

static void G_GNUC_PRINTF(2, 3) put_text(Canvas *canvas, const char *format, ...)
{
    gsize before = canvas->out->len;
    va_list arguments;

    va_start(arguments, format);
    g_string_append_vprintf(canvas->out, format, arguments);
    va_end(arguments);
    canvas->column += (unsigned)g_utf8_strlen(canvas->out->str + before, -1);
}

/* A part of a list, on this line if it fits, else on the next, indented. */
static void put_item(Canvas *canvas, const char *text, gboolean first, unsigned indent)
{
    unsigned needed = (unsigned)g_utf8_strlen(text, -1) + 2;

    if (canvas->column > indent && canvas->column + needed > canvas->width) {
        g_string_append(canvas->out, first ? "\n" : ",\n");
        canvas->column = 0;
        put_text(canvas, "%*s%s", (int)indent, "", text);
    } else {
        put_text(canvas, "%s %s", first ? "" : ",", text);
    }
}

static void put_pu(Canvas *canvas, unsigned pu)
{
    int owner = map_owner_of(canvas->owners, pu);

    if (!hwloc_bitmap_isset(canvas->host->usable_pus, pu)) {
        canvas->unusable = TRUE;
        put_cell(canvas, '-', -1);
    } else if (owner >= 0) {
        put_cell(canvas, map_letter((unsigned)owner), owner);
    } else if (hwloc_bitmap_isset(canvas->host->isolated, pu)) {
        canvas->isolated_free = TRUE;
        put_cell(canvas, ':', -1);
    } else {
        put_cell(canvas, '.', -1);
    }
}

static unsigned core_width(hwloc_obj_t core)
{
    return (unsigned)hwloc_bitmap_weight(core->cpuset);
}

/* Columns of the cores from `first` that share its L3: a blank or bar behind each. */
static unsigned box_width(const Host *host, GPtrArray *cores, guint first)
{
    hwloc_obj_t core = g_ptr_array_index(cores, first);
    hwloc_obj_t l3 = hwloc_get_ancestor_obj_by_type(host->topology, HWLOC_OBJ_L3CACHE, core);
    unsigned width = 0;

    for (guint i = first; i < cores->len; i++) {
        core = g_ptr_array_index(cores, i);
        if (hwloc_get_ancestor_obj_by_type(host->topology, HWLOC_OBJ_L3CACHE, core) != l3)
            break;
        width += core_width(core) + 1;
    }
    return width;
}

static void begin_line(Canvas *canvas, hwloc_obj_t core, gboolean new_box)
{
    put_text(canvas, "%*s%*d %c", INDENT, "", (int)canvas->number_width, hwloc_bitmap_first(core->cpuset),
             new_box ? '|' : ' ');
}

/* The cores of a node: boxes of one L3 each, in as many lines as it takes, broken inside a box only where it is wider
 * than a line. Each line begins with the number of its first PU. */
static void draw_cores(Canvas *canvas, GPtrArray *cores)
{
    hwloc_topology_t topology = canvas->host->topology;
    unsigned start = INDENT + canvas->number_width + 2;

    for (guint i = 0; i < cores->len; i++) {
        hwloc_obj_t core = g_ptr_array_index(cores, i);
        hwloc_obj_t l3 = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_L3CACHE, core);
        gboolean new_box = i == 0 || hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_L3CACHE,
                                                                    g_ptr_array_index(cores, i - 1)) != l3;
        unsigned needed =
            new_box ? MIN(box_width(canvas->host, cores, i), canvas->width - start) : core_width(core) + 1;

        if (canvas->column && canvas->column + needed > canvas->width)
            put_char(canvas, '\n');
        if (!canvas->column)
            begin_line(canvas, core, new_box);
        for (int pu = hwloc_bitmap_first(core->cpuset); pu >= 0; pu = hwloc_bitmap_next(core->cpuset, pu))
            put_pu(canvas, (unsigned)pu);
        gboolean box_ends =
            i + 1 == cores->len ||
            hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_L3CACHE, g_ptr_array_index(cores, i + 1)) != l3;

        put_char(canvas, box_ends ? '|' : ' ');
    }
    if (canvas->column)
        put_char(canvas, '\n');
}

/* For a node which is nobody's home: where it is. */
static void put_neighbour(Canvas *canvas, const HostNode *node, unsigned indent)
{
    int pu = hwloc_bitmap_first(node->pus);
    const HostNode *home = pu >= 0 ? host_home_node(canvas->host, (unsigned)pu) : NULL;
    g_autofree char *text = home ? g_strdup_printf("beside node %u", home->node) : g_strdup("no CPUs");

    if (home != node)
        put_item(canvas, text, FALSE, indent);
}

/* "32 GiB, 28 GiB free, 100 of 512 pages of 2 MiB free". */
static void draw_memory(Canvas *canvas, const HostNode *node)
{
    g_autofree char *total = size_format_rounded(node->memory_bytes);

    put_text(canvas, "  node %u:", node->node);
    unsigned indent = canvas->column + 1;

    put_item(canvas, node->memory_bytes == HOST_BYTES_UNKNOWN ? "memory not told" : total, TRUE, indent);
    if (node->kind)
        put_item(canvas, node->kind, FALSE, indent);
    for (guint i = 0; i < node->pages->len; i++) {
        const HostPages *pages = &g_array_index(node->pages, HostPages, i);
        g_autofree char *size = size_format_rounded(pages->page_bytes);
        g_autofree char *free_bytes = size_format_rounded(pages->free * pages->page_bytes);
        g_autofree char *item = NULL;

        if (!pages->total || pages->total == HOST_BYTES_UNKNOWN || (i == 0 && !pages->free_known))
            continue;
        if (i == 0)
            item = g_strdup_printf("%s free", free_bytes);
        else if (pages->free_known)
            item = g_strdup_printf("%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " pages of %s free", pages->free,
                                   pages->total, size);
        else
            item = g_strdup_printf("%" G_GUINT64_FORMAT " pages of %s", pages->total, size);
        put_item(canvas, item, FALSE, indent);
    }
    put_neighbour(canvas, node, indent);
    put_char(canvas, '\n');
}

/* Cores (or PUs, where no cores are told) at home on `node`, in hwloc's order. */
static GPtrArray *find_cores(const Host *host, const HostNode *node)
{
    GPtrArray *cores = g_ptr_array_new();
    hwloc_obj_t pu = NULL, earlier = NULL;

    while ((pu = hwloc_get_next_obj_by_type(host->topology, HWLOC_OBJ_PU, pu))) {
        hwloc_obj_t core = host_core_of(host, pu->os_index);

        if (host_home_node(host, pu->os_index) != node || core == earlier)
            continue;
        g_ptr_array_add(cores, core);
        earlier = core;
    }
    return cores;
}

/* "package 0", "packages 0-3": those of the cores of a node, or NULL where the topology tells none. */
static char *name_packages(const Host *host, GPtrArray *cores)
{
    hwloc_bitmap_t packages = hwloc_bitmap_alloc();
    char *name = NULL;

    for (guint i = 0; i < cores->len; i++) {
        hwloc_obj_t package =
            hwloc_get_ancestor_obj_by_type(host->topology, HWLOC_OBJ_PACKAGE, g_ptr_array_index(cores, i));

        if (package)
            hwloc_bitmap_set(packages, package->logical_index);
    }
    if (!hwloc_bitmap_iszero(packages)) {
        g_autofree char *list = host_format_list(packages);

        name = g_strdup_printf("%s %s", hwloc_bitmap_weight(packages) > 1 ? "packages" : "package", list);
    }
    hwloc_bitmap_free(packages);
    return name;
}

static void draw_nodes(Canvas *canvas)
{
    g_autofree char *earlier = NULL;

    for (guint i = 0; i < canvas->host->nodes->len; i++) {
        const HostNode *node = g_ptr_array_index(canvas->host->nodes, i);
        g_autoptr(GPtrArray) cores = find_cores(canvas->host, node);
        g_autofree char *packages = name_packages(canvas->host, cores);

        if (packages && g_strcmp0(packages, earlier) != 0)
            put_text(canvas, "%s\n", packages);
        if (packages) {
            g_free(earlier);
            earlier = g_steal_pointer(&packages);
        }
        canvas->column = 0;
        draw_memory(canvas, node);
        draw_cores(canvas, cores);
    }
}

static void draw_heading(Canvas *canvas)
{
    const Host *host = canvas->host;
    g_autofree char *smt = host->smt > 1 ? g_strdup_printf(", %u threads in a core", host->smt) : g_strdup("");
    int count = hwloc_bitmap_weight(host->usable_pus);
    g_autofree char *cpus = g_strdup_printf("%d CPU%s%s", count, count == 1 ? "" : "s", smt);

    put_text(canvas, "%s:", host->description);
    if (host->cpu_model)
        put_item(canvas, host->cpu_model, TRUE, 2);
    put_item(canvas, cpus, !host->cpu_model, 2);
    put_char(canvas, '\n');
}

static void draw_legend(Canvas *canvas)
{
    const MapOwners *owners = canvas->owners;

    for (guint i = 0; i < owners->names->len; i++) {
        put_text(canvas, "  ");
        put_cell(canvas, map_letter(i), (int)i);
        put_text(canvas, " %s: %u CPU%s\n", (char *)g_ptr_array_index(owners->names, i),
                 g_array_index(owners->counts, guint, i), g_array_index(owners->counts, guint, i) == 1 ? "" : "s");
    }
    put_text(canvas, "  . free%s%s: %u CPU%s\n", canvas->isolated_free ? ", : free and isolated" : "",
             canvas->unusable ? ", - not usable" : "", owners->free_pus, owners->free_pus == 1 ? "" : "s");
}

void map_text(const Host *host, MapOwnerFunc owner_of, gpointer data, unsigned width, gboolean colours, GString *out)
{
    g_autoptr(MapOwners) owners = map_owners_new(host, owner_of, data);
    g_autofree char *largest = g_strdup_printf("%d", hwloc_bitmap_last(host->usable_pus));
    Canvas canvas = {.host = host, .owners = owners, .out = out, .width = MAX(width, WIDTH_MIN), .colours = colours,
                     .number_width = (unsigned)strlen(largest)};

    draw_heading(&canvas);
    draw_nodes(&canvas);
    draw_legend(&canvas);
}
