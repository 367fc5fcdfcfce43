#include "host_internal.h"

#include "hvm_error.h"
#include "sysroot.h"

#include <stdlib.h>
#include <string.h>

#define BASE_PAGE_BYTES 4096
#define MEMORY_MAX (G_GUINT64_CONSTANT(1) << 60) /* sums over nodes then still fit */

void host_node_free(HostNode *node)
{
    hwloc_bitmap_free(node->pus);
    g_array_free(node->pages, TRUE);
    g_free(node->kind);
    g_free(node);
}

static int compare_nodes(gconstpointer a, gconstpointer b)
{
    const HostNode *x = *(const HostNode *const *)a, *y = *(const HostNode *const *)b;

    return (x->node > y->node) - (x->node < y->node);
}

static int compare_pages(gconstpointer a, gconstpointer b)
{
    const HostPages *x = a, *y = b;

    return (x->page_bytes > y->page_bytes) - (x->page_bytes < y->page_bytes);
}

/* Sets the row of a page size, replacing one that is there. */
static void set_pages(HostNode *node, guint64 page_bytes, guint64 total, guint64 free_pages, gboolean free_known)
{
    HostPages row = {page_bytes, total, free_known ? free_pages : total, free_known};

    for (guint i = 0; i < node->pages->len; i++) {
        if (g_array_index(node->pages, HostPages, i).page_bytes == page_bytes) {
            g_array_index(node->pages, HostPages, i) = row;
            return;
        }
    }
    g_array_append_val(node->pages, row);
    g_array_sort(node->pages, compare_pages);
}

/* Pages of 4 KiB outside the huge pools. */
static guint64 count_base_pages(const HostNode *node)
{
    guint64 left = node->memory_bytes;

    if (left == HOST_BYTES_UNKNOWN)
        return HOST_BYTES_UNKNOWN;
    for (guint i = 0; i < node->pages->len; i++) {
        const HostPages *pages = &g_array_index(node->pages, HostPages, i);

        if (pages->page_bytes == BASE_PAGE_BYTES)
            continue;
        if (pages->total > left / pages->page_bytes)
            return 0;
        left -= pages->total * pages->page_bytes;
    }
    return left / BASE_PAGE_BYTES;
}

static gboolean is_page_size(guint64 bytes)
{
    return bytes >= BASE_PAGE_BYTES && bytes <= G_GUINT64_CONSTANT(1) << 40 && (bytes & (bytes - 1)) == 0;
}

/* What hwloc itself knows: sizes and pools, but not what is free. */
static void read_hwloc_memory(HostNode *node, hwloc_obj_t object, gboolean trusted)
{
    node->memory_bytes = trusted && object->attr->numanode.local_memory ? object->attr->numanode.local_memory
                                                                       : HOST_BYTES_UNKNOWN;
    for (unsigned i = 0; trusted && i < object->attr->numanode.page_types_len; i++) {
        guint64 page_bytes = object->attr->numanode.page_types[i].size;
        guint64 count = object->attr->numanode.page_types[i].count;

        if (page_bytes != BASE_PAGE_BYTES && is_page_size(page_bytes) && count <= MEMORY_MAX / page_bytes)
            set_pages(node, page_bytes, count, 0, FALSE);
    }
    set_pages(node, BASE_PAGE_BYTES, count_base_pages(node), 0, FALSE);
}

/* "123" or "unknown". */
static gboolean parse_count(const char *text, guint64 *ret_count)
{
    if (strcmp(text, "unknown") == 0) {
        *ret_count = HOST_BYTES_UNKNOWN;
        return TRUE;
    }
    return g_ascii_string_to_unsigned(text, 10, 0, MEMORY_MAX, ret_count, NULL);
}

static gboolean parse_pages(HostNode *node, const char *size, const char *counts)
{
    g_auto(GStrv) parts = g_strsplit(counts, ":", 3);
    guint64 page_bytes, total, free_pages;

    if (!g_ascii_string_to_unsigned(size, 10, 0, G_MAXINT64, &page_bytes, NULL) || !is_page_size(page_bytes) ||
        g_strv_length(parts) != 2 || !parse_count(parts[0], &total) ||
        !parse_count(parts[1], &free_pages))
        return FALSE;
    if (total != HOST_BYTES_UNKNOWN && total > MEMORY_MAX / page_bytes)
        return FALSE;
    if (total == HOST_BYTES_UNKNOWN && page_bytes != BASE_PAGE_BYTES)
        return FALSE;
    if (free_pages != HOST_BYTES_UNKNOWN && free_pages > total)
        return FALSE;
    set_pages(node, page_bytes, total, free_pages, free_pages != HOST_BYTES_UNKNOWN);
    return TRUE;
}

/* What a capture adds; for a file which was made by hand, any part of it may be missing. */
static gboolean read_captured_memory(HostNode *node, hwloc_obj_t object, const char *where, GError **error)
{
    gboolean base_told = FALSE;

    for (unsigned i = 0; i < object->infos_count; i++) {
        const char *name = object->infos[i].name, *value = object->infos[i].value;
        gboolean good = TRUE;

        if (strcmp(name, INFO_MEMORY) == 0) {
            good = parse_count(value, &node->memory_bytes);
        } else if (g_str_has_prefix(name, INFO_PAGES_PREFIX)) {
            good = parse_pages(node, name + strlen(INFO_PAGES_PREFIX), value);
            base_told |= g_str_has_suffix(name, "." G_STRINGIFY(BASE_PAGE_BYTES));
        }
        if (!good) {
            g_autofree char *shown_name = hvm_escape(name, (gssize)MIN(strlen(name), 60));
            g_autofree char *shown = hvm_escape(value, (gssize)MIN(strlen(value), 60));

            g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                        "%s: NUMA node %u: bad %s '%s': wanted a number of bytes, or pages as 'total:free'", where,
                        node->node, shown_name, shown);
            return FALSE;
        }
    }
    if (!base_told)
        set_pages(node, BASE_PAGE_BYTES, count_base_pages(node), 0, FALSE);
    return TRUE;
}

/* Memory which has a kind of its own, as hwloc names them (subtype of NUMA nodes). */
static gboolean is_special(const HostNode *node)
{
    return node->kind && strcmp(node->kind, "DRAM") != 0;
}

/* Whether the PUs beside `node` have ordinary memory too. */
static gboolean has_ordinary_beside(const Host *host, const HostNode *node)
{
    for (guint i = 0; i < host->nodes->len; i++) {
        const HostNode *other = g_ptr_array_index(host->nodes, i);

        if (other != node && !is_special(other) && hwloc_bitmap_intersects(other->pus, node->pus))
            return TRUE;
    }
    return FALSE;
}

/* A machine with nothing but high-bandwidth memory has to use that; a GPU's memory goes with the GPU (the driver may
 * take it offline), and persistent memory is slow: those are never general. */
static gboolean is_general_purpose(const Host *host, const HostNode *node)
{
    if (hwloc_bitmap_iszero(node->pus))
        return FALSE;
    if (!is_special(node))
        return TRUE;
    return strcmp(node->kind, "GPUMemory") != 0 && strcmp(node->kind, "NVM") != 0 && !has_ordinary_beside(host, node);
}

static HostNode *new_node(const Host *host, hwloc_obj_t object)
{
    HostNode *node = g_new0(HostNode, 1);

    node->node = object->os_index;
    node->memory_bytes = HOST_BYTES_UNKNOWN;
    node->pus = hwloc_bitmap_dup(object->cpuset);
    hwloc_bitmap_and(node->pus, node->pus, hwloc_topology_get_allowed_cpuset(host->topology));
    node->pages = g_array_new(FALSE, TRUE, sizeof(HostPages));
    node->kind = object->subtype ? hvm_escape(object->subtype, -1) : NULL;
    return node;
}

gboolean host_read_nodes(Host *host, GError **error)
{
    hwloc_const_nodeset_t allowed = hwloc_topology_get_allowed_nodeset(host->topology);
    hwloc_obj_t object = NULL;

    while ((object = hwloc_get_next_obj_by_type(host->topology, HWLOC_OBJ_NUMANODE, object))) {
        if (!hwloc_bitmap_isset(allowed, object->os_index))
            continue;

        HostNode *node = new_node(host, object);

        g_ptr_array_add(host->nodes, node);
        /* hwloc gives a synthetic node 1 GiB where the text names no size: nobody said that. */
        read_hwloc_memory(node, object, host->origin != HOST_SYNTHETIC || strstr(host->description, "memory="));
        if (node->memory_bytes != HOST_BYTES_UNKNOWN && node->memory_bytes > MEMORY_MAX) {
            host_refuse(error, host->description, "NUMA node %u has %" G_GUINT64_FORMAT " bytes: wanted at most 1 EiB",
                        node->node, node->memory_bytes);
            return FALSE;
        }
        if (!read_captured_memory(node, object, host->description, error))
            return FALSE;
    }
    g_ptr_array_sort(host->nodes, compare_nodes);
    for (guint i = 0; i < host->nodes->len; i++) {
        HostNode *node = g_ptr_array_index(host->nodes, i);

        node->general_purpose = is_general_purpose(host, node);
    }
    return TRUE;
}

/* A value in KiB of "Node 0 MemTotal:  123 kB" or "MemTotal:  123 kB", as bytes; FALSE where it is not there. */
static gboolean find_meminfo(const char *text, const char *key, guint64 *ret_bytes)
{
    g_autofree char *needle = g_strconcat(key, ":", NULL);
    gsize length = strlen(needle);

    for (const char *at = text; (at = strstr(at, needle)); at += length) {
        if (at > text && at[-1] != ' ' && at[-1] != '\n')
            continue;
        guint64 value = g_ascii_strtoull(at + length, NULL, 10);

        *ret_bytes = MIN(value, MEMORY_MAX / 1024) * 1024;
        return TRUE;
    }
    return FALSE;
}

/* Free, or page cache and slab that the kernel gives up at once when asked for memory (as MemAvailable counts them,
 * which is not told per node; see si_mem_available() in the kernel's mm/show_mem.c). */
static guint64 count_reclaimable(const char *meminfo)
{
    static const char *const keys[] = {"MemFree", "Active(file)", "Inactive(file)", "SReclaimable"};
    guint64 sum = 0, bytes;

    for (gsize i = 0; i < G_N_ELEMENTS(keys); i++)
        if (find_meminfo(meminfo, keys[i], &bytes))
            sum += bytes;
    return sum;
}

/* Documentation/admin-guide/mm/hugetlbpage.rst: the folder per size, here per node. */
static void read_huge_pools(HostNode *node, const char *folder)
{
    g_auto(GStrv) names = sysroot_list("%s", folder);

    for (char **name = names; *name; name++) {
        guint64 kib, total, free_pages;
        char *end;

        if (!g_str_has_prefix(*name, "hugepages-"))
            continue;
        kib = g_ascii_strtoull(*name + strlen("hugepages-"), &end, 10);
        if (strcmp(end, "kB") != 0 || kib > G_MAXUINT32 || kib * 1024 == BASE_PAGE_BYTES || !is_page_size(kib * 1024) ||
            !sysroot_read_uint(&total, NULL, "%s/%s/nr_hugepages", folder, *name) ||
            !sysroot_read_uint(&free_pages, NULL, "%s/%s/free_hugepages", folder, *name))
            continue;
        total = MIN(total, MEMORY_MAX / (kib * 1024));
        set_pages(node, kib * 1024, total, MIN(free_pages, total), TRUE); /* two reads: the pool may shrink between */
    }
}

static void read_live_node(HostNode *node, const char *meminfo, const char *pools)
{
    guint64 free_bytes;

    node->memory_bytes = HOST_BYTES_UNKNOWN;
    g_array_set_size(node->pages, 0);
    read_huge_pools(node, pools);
    if (!meminfo || !find_meminfo(meminfo, "MemTotal", &node->memory_bytes)) {
        set_pages(node, BASE_PAGE_BYTES, HOST_BYTES_UNKNOWN, 0, FALSE);
        return;
    }

    guint64 total = count_base_pages(node);

    free_bytes = count_reclaimable(meminfo);
    set_pages(node, BASE_PAGE_BYTES, total, MIN(free_bytes / BASE_PAGE_BYTES, total), TRUE);
}

void host_read_live_pools(Host *host)
{
    for (guint i = 0; i < host->nodes->len; i++) {
        HostNode *node = g_ptr_array_index(host->nodes, i);
        g_autofree char *meminfo = sysroot_read(NULL, "/sys/devices/system/node/node%u/meminfo", node->node);
        g_autofree char *pools = g_strdup_printf("/sys/devices/system/node/node%u/hugepages", node->node);

        /* A kernel built without NUMA has one node in hwloc and none in sysfs. */
        if (!meminfo && host->nodes->len == 1 && !sysroot_exists("/sys/devices/system/node/node%u", node->node)) {
            meminfo = sysroot_read(NULL, "/proc/meminfo");
            g_free(g_steal_pointer(&pools));
            pools = g_strdup("/sys/kernel/mm/hugepages");
        } else if (meminfo && host->nodes->len == 1) {
            g_autofree char *whole = sysroot_read(NULL, "/proc/meminfo");
            guint64 node_bytes = 0, whole_bytes = 0;

            /* A kernel that initialises memory lazily counts on the node what it has come to so far. */
            if (whole && find_meminfo(meminfo, "MemTotal", &node_bytes) && find_meminfo(whole, "MemTotal", &whole_bytes) &&
                whole_bytes > node_bytes) {
                g_free(meminfo);
                meminfo = g_steal_pointer(&whole);
            }
        }
        read_live_node(node, meminfo, pools);
    }
}

static char *format_count(guint64 count)
{
    return count == HOST_BYTES_UNKNOWN ? g_strdup("unknown") : g_strdup_printf("%" G_GUINT64_FORMAT, count);
}

void host_write_nodes(const Host *host, hwloc_topology_t topology)
{
    hwloc_obj_t object = NULL;

    while ((object = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, object))) {
        const HostNode *node = host_find_node(host, object->os_index);

        if (!node)
            continue;
        g_autofree char *memory = format_count(node->memory_bytes);

        host_add_info(object, INFO_MEMORY, memory);
        for (guint i = 0; i < node->pages->len; i++) {
            const HostPages *pages = &g_array_index(node->pages, HostPages, i);
            g_autofree char *name = g_strdup_printf(INFO_PAGES_PREFIX "%" G_GUINT64_FORMAT, pages->page_bytes);
            g_autofree char *total = format_count(pages->total);
            g_autofree char *free_pages = format_count(pages->free_known ? pages->free : HOST_BYTES_UNKNOWN);
            g_autofree char *value = g_strconcat(total, ":", free_pages, NULL);

            host_add_info(object, name, value);
        }
    }
}
