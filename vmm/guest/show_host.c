/*
 * show_host.c: the node and what is promised on it, as the reply of the method Host (io.hvm1.xml).
 */
#include "guests_private.h"
#include "reply.h"

#include "hvm_error.h"

#include <string.h>

static void add_pages(GVariantBuilder *builder, Guests *guests, const HostNode *node)
{
    GVariantBuilder pages = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    for (guint i = 0; i < node->pages->len; i++) {
        const HostPages *pool = &g_array_index(node->pages, HostPages, i);
        guint64 promised = 0;

        for (guint e = 0; e < guests->ledger->entries->len; e++) {
            const LedgerEntry *entry = guests->ledger->entries->pdata[e];

            for (guint m = 0; m < entry->memory->len; m++) {
                const LedgerMemory *memory = &g_array_index(entry->memory, LedgerMemory, m);

                promised += memory->node == node->node && memory->page_bytes == pool->page_bytes ? memory->bytes : 0;
            }
        }
        g_variant_builder_open(&pages, G_VARIANT_TYPE("a{sv}"));
        reply_add_bytes(&pages, "size", pool->page_bytes);
        reply_add_bytes(&pages, "total", pool->total);
        reply_add_bytes(&pages, "free", pool->free);
        reply_add_bytes(&pages, "promised", promised / pool->page_bytes);
        g_variant_builder_close(&pages);
    }
    g_variant_builder_add(builder, "{sv}", "pages", g_variant_builder_end(&pages));
}

static GVariant *host_nodes(Guests *guests)
{
    GVariantBuilder nodes = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    for (guint i = 0; i < guests->host->nodes->len; i++) {
        const HostNode *node = guests->host->nodes->pdata[i];
        g_autofree char *cpus = host_format_list(node->pus);
        const HostPages *small = host_node_pages(node, 4096);

        g_variant_builder_open(&nodes, G_VARIANT_TYPE("a{sv}"));
        reply_add_uint(&nodes, "node", node->node);
        reply_add_string(&nodes, "cpus", cpus);
        if (node->memory_bytes != HOST_BYTES_UNKNOWN)
            reply_add_bytes(&nodes, "memory", node->memory_bytes);
        if (small && small->free_known)
            reply_add_bytes(&nodes, "free", small->free * small->page_bytes);
        reply_add_string(&nodes, "kind", node->kind);
        add_pages(&nodes, guests, node);
        g_variant_builder_close(&nodes);
    }
    return g_variant_builder_end(&nodes);
}

/* "0000:41:00.0 0000:42:00.0" */
static char *join_addresses(const LedgerEntry *entry)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < entry->devices->len; i++)
        g_string_append_printf(text, "%s%s", i ? " " : "", (const char *)entry->devices->pdata[i]);
    return g_string_free(text, FALSE);
}

/* Whose kind a user may ask for: bridges, sensors and the like are left out. */
static GVariant *host_devices(const Host *host)
{
    GVariantBuilder devices = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    for (guint i = 0; i < host->devices->len; i++) {
        const HostDevice *device = host->devices->pdata[i];
        const char *kind = placement_device_kind(device);

        if (!kind)
            continue;
        g_variant_builder_open(&devices, G_VARIANT_TYPE("a{sv}"));
        reply_add_string(&devices, "address", device->address);
        reply_add_string(&devices, "kind", kind);
        if (device->node >= 0)
            reply_add_uint(&devices, "node", (guint32)device->node);
        if (device->iommu_group >= 0)
            reply_add_uint(&devices, "group", (guint32)device->iommu_group);
        reply_add_string(&devices, "interface", device->interface);
        reply_add_string(&devices, "driver", device->driver);
        reply_add_string(&devices, "use", device->use);
        g_variant_builder_close(&devices);
    }
    return g_variant_builder_end(&devices);
}

/* Where the memory of a promise lies. */
static GVariant *promised_cells(const LedgerEntry *entry)
{
    GVariantBuilder cells = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    for (guint i = 0; i < entry->memory->len; i++) {
        const LedgerMemory *memory = &g_array_index(entry->memory, LedgerMemory, i);

        g_variant_builder_open(&cells, G_VARIANT_TYPE("a{sv}"));
        reply_add_uint(&cells, "node", memory->node);
        reply_add_bytes(&cells, "size", memory->page_bytes);
        reply_add_bytes(&cells, "bytes", memory->bytes);
        g_variant_builder_close(&cells);
    }
    return g_variant_builder_end(&cells);
}

/* What a plan of any user needs, without whose it is. */
static GVariant *host_promises(Guests *guests, const Caller *caller)
{
    GVariantBuilder promises = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    for (guint i = 0; i < guests->ledger->entries->len; i++) {
        const LedgerEntry *entry = guests->ledger->entries->pdata[i];
        gboolean open = caller->uid == 0 || entry->owner_uid == caller->uid;
        g_autofree char *cpus = host_format_list(entry->pus);
        g_autofree char *owner = entry->owner_uid == (uid_t)-1 ? g_strdup("not hvm's") : g_strdup_printf("%u", entry->owner_uid);
        g_autofree char *devices = join_addresses(entry);
        guint64 bytes = 0;

        for (guint m = 0; m < entry->memory->len; m++)
            bytes += g_array_index(entry->memory, LedgerMemory, m).bytes;
        g_variant_builder_open(&promises, G_VARIANT_TYPE("a{sv}"));
        reply_add_string(&promises, "owner", open ? owner : "another user");
        reply_add_string(&promises, "guest", open ? entry->name : "");
        reply_add_string(&promises, "cpus", cpus);
        reply_add_bytes(&promises, "memory", bytes);
        reply_add_string(&promises, "devices", devices);
        g_variant_builder_add(&promises, "{sv}", "cells", promised_cells(entry));
        g_variant_builder_add(&promises, "{sv}", "settled", g_variant_new_boolean(entry->settled));
        g_variant_builder_close(&promises);
    }
    return g_variant_builder_end(&promises);
}

static GVariant *host_caches(hwloc_topology_t topology)
{
    static const struct {
        hwloc_obj_type_t type;
        guint32 level;
    } levels[] = {{HWLOC_OBJ_L1CACHE, 1}, {HWLOC_OBJ_L2CACHE, 2}, {HWLOC_OBJ_L3CACHE, 3}};
    GVariantBuilder caches = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    for (gsize i = 0; i < G_N_ELEMENTS(levels); i++) {
        int count = hwloc_get_nbobjs_by_type(topology, levels[i].type);

        if (count <= 0)
            continue;
        g_variant_builder_open(&caches, G_VARIANT_TYPE("a{sv}"));
        reply_add_uint(&caches, "level", levels[i].level);
        reply_add_bytes(&caches, "bytes", hwloc_get_obj_by_type(topology, levels[i].type, 0)->attr->cache.size);
        reply_add_uint(&caches, "count", (guint32)count);
        g_variant_builder_close(&caches);
    }
    return g_variant_builder_end(&caches);
}

GVariant *guests_host(Guests *guests, const Caller *caller, GError **error)
{
    GVariantBuilder builder = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE_VARDICT);
    g_autoptr(Host) fresh = guests_snapshot(guests, error);

    if (!fresh) {
        g_variant_builder_clear(&builder);
        return NULL;
    }
    g_mutex_lock(&guests->lock);
    hwloc_topology_t topology = fresh->topology;
    g_autofree char *housekeeping = host_format_list(guests->config->housekeeping);
    g_autofree char *isolated = host_format_list(fresh->isolated);
    g_autofree char *disk_nodes = host_format_list(guests->policy.disk_nodes);

    reply_add_string(&builder, "model", fresh->cpu_model);
    reply_add_uint(&builder, "smt", fresh->smt);
    reply_add_string(&builder, "housekeeping", housekeeping);
    reply_add_string(&builder, "isolated", isolated);
    reply_add_string(&builder, "disk-nodes", disk_nodes);
    reply_add_uint(&builder, "packages", (guint32)MAX(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE), 0));
    reply_add_uint(&builder, "cores", (guint32)MAX(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE), 0));
    reply_add_uint(&builder, "pus", (guint32)hwloc_bitmap_weight(fresh->usable_pus));
    g_variant_builder_add(&builder, "{sv}", "caches", host_caches(topology));
    g_variant_builder_add(&builder, "{sv}", "nodes", host_nodes(guests));
    g_variant_builder_add(&builder, "{sv}", "devices", host_devices(fresh));
    g_variant_builder_add(&builder, "{sv}", "promises", host_promises(guests, caller));
    g_variant_builder_add(&builder, "{sv}", "known", g_variant_new_boolean(guests->known));
    g_mutex_unlock(&guests->lock);
    return g_variant_builder_end(&builder);
}
