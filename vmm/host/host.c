#include "host_internal.h"

#include "hvm_error.h"

#include <stdlib.h>
#include <string.h>

static void free_topology(gpointer box)
{
    hwloc_topology_destroy(*(hwloc_topology_t *)box);
}

Host *host_new_around(HostOrigin origin, const char *description, hwloc_topology_t topology)
{
    Host *host = g_new0(Host, 1);

    host->references = 1;
    host->origin = origin;
    host->description = g_strdup(description);
    host->topology_box = g_atomic_rc_box_new(hwloc_topology_t);
    *host->topology_box = topology;
    host->topology = topology;
    host->usable_pus = hwloc_bitmap_alloc();
    host->isolated = hwloc_bitmap_alloc();
    host->nodes = g_ptr_array_new_with_free_func((GDestroyNotify)host_node_free);
    host->devices = g_ptr_array_new_with_free_func((GDestroyNotify)host_device_free);
    host->places = g_array_new(FALSE, TRUE, sizeof(HostPlace));
    return host;
}

Host *host_ref(Host *host)
{
    g_atomic_int_inc(&host->references);
    return host;
}

void host_unref(Host *host)
{
    if (!host || !g_atomic_int_dec_and_test(&host->references))
        return;
    g_array_free(host->places, TRUE);
    g_ptr_array_free(host->nodes, TRUE);
    g_ptr_array_free(host->devices, TRUE);
    hwloc_bitmap_free(host->usable_pus);
    hwloc_bitmap_free(host->isolated);
    g_free(host->description);
    g_free(host->cpu_model);
    g_free(host->cpu_vendor);
    g_atomic_rc_box_release_full(host->topology_box, free_topology);
    g_free(host);
}

/* Whether `node` is a better home for a PU that both hold. */
static gboolean is_better_home(const HostNode *node, const HostNode *than)
{
    int weight = hwloc_bitmap_weight(node->pus), other = hwloc_bitmap_weight(than->pus);

    if (node->general_purpose != than->general_purpose)
        return node->general_purpose;
    return weight != other ? weight < other : node->node < than->node;
}

static HostPlace find_place(const Host *host, hwloc_obj_t pu)
{
    HostPlace place = {0};

    for (guint i = 0; i < host->nodes->len; i++) {
        const HostNode *node = g_ptr_array_index(host->nodes, i);

        if (hwloc_bitmap_isset(node->pus, pu->os_index) && (!place.home || is_better_home(node, place.home)))
            place.home = node;
    }
    place.core = hwloc_get_ancestor_obj_by_type(host->topology, HWLOC_OBJ_CORE, pu);
    if (!place.core)
        place.core = pu;
    place.l3 = hwloc_get_ancestor_obj_by_type(host->topology, HWLOC_OBJ_L3CACHE, pu);
    return place;
}

static void fill_places(Host *host)
{
    hwloc_obj_t pu = NULL;

    g_array_set_size(host->places, (guint)(hwloc_bitmap_last(host->usable_pus) + 1));
    while ((pu = hwloc_get_next_obj_by_type(host->topology, HWLOC_OBJ_PU, pu)))
        if (hwloc_bitmap_isset(host->usable_pus, pu->os_index))
            g_array_index(host->places, HostPlace, pu->os_index) = find_place(host, pu);
}

/* Usable: allowed, online, shown by the topology as a PU, and with memory of its own node to use. */
static void find_usable_pus(Host *host)
{
    hwloc_bitmap_t shown = hwloc_bitmap_alloc(), local = hwloc_bitmap_alloc();
    hwloc_obj_t pu = NULL;

    while ((pu = hwloc_get_next_obj_by_type(host->topology, HWLOC_OBJ_PU, pu)))
        hwloc_bitmap_set(shown, pu->os_index);
    for (guint i = 0; i < host->nodes->len; i++)
        hwloc_bitmap_or(local, local, ((HostNode *)g_ptr_array_index(host->nodes, i))->pus);
    hwloc_bitmap_and(host->usable_pus, shown, local);
    hwloc_bitmap_and(host->isolated, host->isolated, host->usable_pus);
    for (guint i = 0; i < host->nodes->len; i++) {
        HostNode *node = g_ptr_array_index(host->nodes, i);

        hwloc_bitmap_and(node->pus, node->pus, host->usable_pus);
    }
    hwloc_bitmap_free(shown);
    hwloc_bitmap_free(local);
}

static unsigned find_smt(const Host *host)
{
    hwloc_bitmap_t pus = hwloc_bitmap_alloc();
    hwloc_obj_t core = NULL;
    int most = 1;

    while ((core = hwloc_get_next_obj_by_type(host->topology, HWLOC_OBJ_CORE, core))) {
        hwloc_bitmap_and(pus, core->cpuset, host->usable_pus);
        most = MAX(most, hwloc_bitmap_weight(pus));
    }
    hwloc_bitmap_free(pus);
    return (unsigned)most;
}

/* A string about the processors: on the first package that has it, or (old exports) on the root. */
static char *find_cpu_info(const Host *host, const char *name)
{
    hwloc_obj_t package = NULL;
    const char *value = NULL;

    while (!value && (package = hwloc_get_next_obj_by_type(host->topology, HWLOC_OBJ_PACKAGE, package)))
        value = hwloc_obj_get_info_by_name(package, name);
    if (!value)
        value = hwloc_obj_get_info_by_name(hwloc_get_root_obj(host->topology), name);
    if (!value)
        return NULL;

    g_autofree char *copy = hvm_escape(value, -1);

    g_strstrip(copy); /* "Intel(R) ...      CPU @ 2.6GHz   " of older processors */
    return *copy ? g_steal_pointer(&copy) : NULL;
}

gboolean host_finish(Host *host, GError **error)
{
    find_usable_pus(host);
    if (hwloc_bitmap_iszero(host->usable_pus)) {
        g_set_error(error, HVM_ERROR, host->origin == HOST_LIVE ? HVM_ERROR_HOST : HVM_ERROR_INVALID,
                    "%s: no PU is usable: wanted one that is online and allowed, beside a NUMA node that is allowed",
                    host->description);
        return FALSE;
    }
    fill_places(host);
    host->smt = find_smt(host);
    host->cpu_model = find_cpu_info(host, "CPUModel");
    host->cpu_vendor = find_cpu_info(host, "CPUVendor");
    return TRUE;
}

const HostNode *host_find_node(const Host *host, unsigned node)
{
    for (guint i = 0; i < host->nodes->len; i++) {
        const HostNode *candidate = g_ptr_array_index(host->nodes, i);

        if (candidate->node == node)
            return candidate;
    }
    return NULL;
}

const HostDevice *host_find_device(const Host *host, const char *address)
{
    for (guint i = 0; i < host->devices->len; i++) {
        const HostDevice *candidate = g_ptr_array_index(host->devices, i);

        if (strcmp(candidate->address, address) == 0)
            return candidate;
    }
    return NULL;
}

const HostPages *host_node_pages(const HostNode *node, guint64 page_bytes)
{
    for (guint i = 0; i < node->pages->len; i++) {
        const HostPages *pages = &g_array_index(node->pages, HostPages, i);

        if (pages->page_bytes == page_bytes)
            return pages;
    }
    return NULL;
}

static const HostPlace *place_of(const Host *host, unsigned pu)
{
    static const HostPlace nowhere;

    return pu < host->places->len ? &g_array_index(host->places, HostPlace, pu) : &nowhere;
}

const HostNode *host_home_node(const Host *host, unsigned pu)
{
    return place_of(host, pu)->home;
}

hwloc_obj_t host_core_of(const Host *host, unsigned pu)
{
    return place_of(host, pu)->core;
}

hwloc_obj_t host_l3_of(const Host *host, unsigned pu)
{
    return place_of(host, pu)->l3;
}

void host_add_info(hwloc_obj_t object, const char *name, const char *value)
{
    if (!hwloc_obj_get_info_by_name(object, name))
        hwloc_obj_add_info(object, name, value);
}

char *host_format_list(hwloc_const_bitmap_t bitmap)
{
    char *text = NULL;

    if (hwloc_bitmap_list_asprintf(&text, bitmap) < 0)
        g_error("out of memory");

    char *copy = g_strdup(text);

    free(text); /* by malloc, which g_free is not promised to undo */
    return copy;
}

/* One "8" or "0-3" into `bitmap`. */
static gboolean parse_range(const char *text, hwloc_bitmap_t bitmap)
{
    g_auto(GStrv) ends = g_strsplit(text, "-", 3);
    guint count = g_strv_length(ends);
    guint64 first, last;

    if (count < 1 || count > 2 || !g_ascii_string_to_unsigned(ends[0], 10, 0, 65535, &first, NULL) ||
        !g_ascii_string_to_unsigned(ends[count - 1], 10, first, 65535, &last, NULL))
        return FALSE;
    return hwloc_bitmap_set_range(bitmap, (unsigned)first, (int)last) == 0;
}

hwloc_bitmap_t host_parse_list(const char *text, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);
    hwloc_bitmap_t bitmap = hwloc_bitmap_alloc();

    for (char **part = parts; *part; part++) {
        if (parse_range(*part, bitmap))
            continue;

        g_autofree char *shown = hvm_escape(text, (gssize)MIN(strlen(text), 60));

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "wanted a list of numbers such as 0-3,8, found '%s'", shown);
        hwloc_bitmap_free(bitmap);
        return NULL;
    }
    return bitmap;
}
