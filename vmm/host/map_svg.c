#include "map_internal.h"

#include "hvm_error.h"
#include "process.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define SQUARE "\xe2\x96\xa0" /* in the legend, coloured afterwards */

enum { RENDER_TIMEOUT_MS = 60 * 1000, LEGEND_MAX = 52 };

/* Backgrounds on which black text reads well; free PUs stay as lstopo draws them. */
static const char *const palette[] = {
    "#8dd3c7", "#ffd92f", "#bebada", "#fb8072", "#80b1d3", "#fdb462",
    "#b3de69", "#fccde5", "#bc80bd", "#ccebc5", "#e5c494", "#66c2a5",
};

static void style(hwloc_obj_t object, unsigned owner)
{
    g_autofree char *value = g_strdup_printf("Background=%s;Text=#000000", palette[owner % G_N_ELEMENTS(palette)]);

    hwloc_obj_add_info(object, "lstopoStyle", value);
}

/* The owner of all PUs of a core, or -1. */
static int find_single_owner(const MapOwners *owners, hwloc_const_bitmap_t pus)
{
    int owner = map_owner_of(owners, (unsigned)hwloc_bitmap_first(pus));

    for (int pu = hwloc_bitmap_first(pus); pu >= 0; pu = hwloc_bitmap_next(pus, pu))
        if (map_owner_of(owners, (unsigned)pu) != owner)
            return -1;
    return owner;
}

/* lstopo writes names into the picture as they are: what would be markup there goes. */
static void defuse(char *text)
{
    if (text)
        g_strdelimit(text, "<>&", '_');
}

static void defuse_names(hwloc_obj_t object)
{
    const hwloc_obj_t lists[] = {object->first_child, object->memory_first_child, object->io_first_child,
                                 object->misc_first_child};

    defuse(object->name);
    defuse(object->subtype);
    for (unsigned i = 0; i < object->infos_count; i++)
        defuse(object->infos[i].value);
    for (gsize i = 0; i < G_N_ELEMENTS(lists); i++)
        for (hwloc_obj_t child = lists[i]; child; child = child->next_sibling)
            defuse_names(child);
}

/* Colours for lstopo. */
static void annotate(const MapOwners *owners, hwloc_topology_t topology)
{
    hwloc_obj_t object = NULL;

    defuse_names(hwloc_get_root_obj(topology));
    while ((object = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, object))) {
        int owner = map_owner_of(owners, object->os_index);

        if (owner >= 0)
            style(object, (unsigned)owner);
    }
    while ((object = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_CORE, object))) {
        int owner = find_single_owner(owners, object->cpuset);

        if (owner >= 0)
            style(object, (unsigned)owner);
    }
}

/* The annotated topology in a temporary file, whose path the caller unlinks and frees. */
static char *write_topology(const Host *host, const MapOwners *owners, GError **error)
{
    g_autofree char *path = NULL;
    hwloc_topology_t copy = NULL;
    int fd = g_file_open_tmp("hvm-map-XXXXXX.xml", &path, error);

    if (fd < 0)
        return NULL;
    close(fd);
    gboolean good = hwloc_topology_dup(&copy, host->topology) == 0;

    if (good) {
        annotate(owners, copy);
        good = hwloc_topology_export_xml(copy, path, 0) == 0;
    }
    if (!good) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "hwloc cannot write the topology: %s", g_strerror(errno));
        unlink(path);
    }
    if (copy)
        hwloc_topology_destroy(copy);
    return good ? g_steal_pointer(&path) : NULL;
}

static char *render(const MapOwners *owners, const char *xml_path, GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    const ProcessOptions options = {.timeout_ms = RENDER_TIMEOUT_MS};
    static const char *const fixed[] = {"lstopo-no-graphics", "--no-factorize", "--disallowed", "--no-default-legend",
                                        "--if", "xml", "--of", "svg", "-i"};
    char *output = NULL;

    for (gsize i = 0; i < G_N_ELEMENTS(fixed); i++)
        g_ptr_array_add(argv, g_strdup(fixed[i]));
    g_ptr_array_add(argv, g_strdup(xml_path));
    for (guint i = 0; i < MIN(owners->names->len, LEGEND_MAX); i++) {
        guint count = g_array_index(owners->counts, guint, i);
        char *line = g_strdup_printf(SQUARE " %s: %u CPU%s", (char *)g_ptr_array_index(owners->names, i), count,
                                     count == 1 ? "" : "s");

        defuse(line);
        g_ptr_array_add(argv, g_strdup("--append-legend"));
        g_ptr_array_add(argv, line);
    }
    g_ptr_array_add(argv, g_strdup("-"));
    g_ptr_array_add(argv, NULL);
    if (!process_run((const char *const *)argv->pdata, &options, HVM_ERROR_HOST, &output, error)) {
        g_prefix_error(error, "cannot draw the map with lstopo (package hwloc-nox or hwloc): ");
        return NULL;
    }
    return output;
}

/* lstopo writes viewBox='0 0 797px 462px': no number may have a unit there, and viewers show a blank page. */
static char *mend_view_box(const char *svg)
{
    const char *start = strstr(svg, "viewBox='"), *end = start ? strchr(start + strlen("viewBox='"), '\'') : NULL;

    if (!end)
        return g_strdup(svg);
    g_autofree char *before = g_strndup(svg, (gsize)(start - svg));
    g_autofree char *box = g_strndup(start, (gsize)(end - start));
    g_auto(GStrv) parts = g_strsplit(box, "px", -1);
    g_autofree char *mended = g_strjoinv("", parts);

    return g_strconcat(before, mended, end, NULL);
}

/* The legend's squares in the owners' colours. */
static char *colour_legend(const char *svg)
{
    g_auto(GStrv) parts = g_strsplit(svg, SQUARE, LEGEND_MAX + 1);
    GString *out = g_string_new(parts[0]);

    for (unsigned i = 0; parts[0] && parts[i + 1]; i++)
        g_string_append_printf(out, "<tspan fill='%s'>" SQUARE "</tspan>%s", palette[i % G_N_ELEMENTS(palette)],
                               parts[i + 1]);
    return g_string_free(out, FALSE);
}

gboolean map_svg(const Host *host, MapOwnerFunc owner_of, gpointer data, const char *path, GError **error)
{
    g_autoptr(MapOwners) owners = map_owners_new(host, owner_of, data);
    g_autofree char *xml_path = write_topology(host, owners, error);
    g_autofree char *svg = xml_path ? render(owners, xml_path, error) : NULL;

    if (xml_path)
        unlink(xml_path);
    if (!svg)
        return FALSE;
    if (!strstr(svg, "<svg")) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "lstopo-no-graphics wrote no SVG picture");
        return FALSE;
    }
    g_autofree char *mended = mend_view_box(svg);
    g_autofree char *coloured = colour_legend(mended);

    return g_file_set_contents_full(path, coloured, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0644, error);
}
