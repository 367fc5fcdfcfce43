/*
 * show.c: what is known of guests and of the node, as the replies of io.hvm1.xml. From the cache; only the disk's size and
 * the console's log are read when they are asked for.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "verify.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOG_MAX = 1 << 20 };

static void add_string(GVariantBuilder *builder, const char *key, const char *value)
{
    g_variant_builder_add(builder, "{sv}", key, g_variant_new_string(value ? value : ""));
}

static void add_uint(GVariantBuilder *builder, const char *key, guint32 value)
{
    g_variant_builder_add(builder, "{sv}", key, g_variant_new_uint32(value));
}

static void add_bytes(GVariantBuilder *builder, const char *key, guint64 value)
{
    g_variant_builder_add(builder, "{sv}", key, g_variant_new_uint64(value));
}

/* "0-1" for the vCPUs' PUs, "" while off. */
static char *placed_list(const Placement *placement)
{
    hwloc_bitmap_t pus;

    if (!placement)
        return g_strdup("");
    pus = hwloc_bitmap_alloc();
    for (guint i = 0; i < placement->vcpus->len; i++)
        hwloc_bitmap_set(pus, g_array_index(placement->vcpus, PlacementVcpu, i).pu);

    char *text = host_format_list(pus);

    hwloc_bitmap_free(pus);
    return text;
}

/* List's keys. With the lock held. */
static void add_summary(GVariantBuilder *builder, const Guest *guest)
{
    const RuntimeGuest *real = guest->real;
    g_autofree char *placed = placed_list(real->placement);

    add_string(builder, "name", real->spec->name);
    add_string(builder, "uuid", real->uuid);
    add_uint(builder, "owner", real->owner_uid);
    add_string(builder, "state", guest_state_name(guest->state));
    add_string(builder, "template", real->spec->template_name);
    add_uint(builder, "cpus", real->spec->cpus);
    add_bytes(builder, "memory", real->spec->memory_bytes);
    add_string(builder, "address", guest->state == GUEST_OFF || guest->state == GUEST_CRASHED ? "" : real->address);
    add_string(builder, "placed", placed);
}

/* How it runs: keys of Show, and of Start's reply. With the lock held. */
static void add_run(GVariantBuilder *builder, const Guest *guest)
{
    const RuntimeGuest *real = guest->real;
    GPtrArray *notes = real->placement ? real->placement->notes : NULL;

    add_string(builder, "accel", !real->placement ? "" : real->kvm ? "kvm" : "tcg");
    g_variant_builder_add(builder, "{sv}", "notes",
                          g_variant_new_strv(notes ? (const char *const *)notes->pdata : NULL, notes ? (gssize)notes->len : 0));
}

static int compare_guests(gconstpointer a, gconstpointer b)
{
    return strcmp((*(const Guest *const *)a)->real->spec->name, (*(const Guest *const *)b)->real->spec->name);
}

GVariant *guests_list(Guests *guests, const Caller *caller, GError **error)
{
    g_autoptr(GPtrArray) seen = g_ptr_array_new();
    GHashTableIter iter;
    Guest *guest = NULL;

    if (!guests_check_known(guests, error))
        return NULL;

    GVariantBuilder builder = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    g_mutex_lock(&guests->lock);
    g_hash_table_iter_init(&iter, guests->table);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        if (!guest->creating && !guest->leaving && (caller->uid == 0 || guest->real->owner_uid == caller->uid))
            g_ptr_array_add(seen, guest);
    g_ptr_array_sort(seen, compare_guests);
    for (guint i = 0; i < seen->len; i++) {
        g_variant_builder_open(&builder, G_VARIANT_TYPE("a{sv}"));
        add_summary(&builder, seen->pdata[i]);
        g_variant_builder_close(&builder);
    }
    g_mutex_unlock(&guests->lock);
    return g_variant_builder_end(&builder);
}

GVariant *guests_show_run(Guests *guests, const Caller *caller, const char *name, GError **error)
{
    g_autoptr(Guest) guest = guests_find(guests, caller, name, error);

    if (!guest)
        return NULL;

    GVariantBuilder builder = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE_VARDICT);

    g_mutex_lock(&guests->lock);
    add_summary(&builder, guest);
    add_run(&builder, guest);
    g_mutex_unlock(&guests->lock);
    return g_variant_builder_end(&builder);
}

GVariant *guests_show(Guests *guests, const Caller *caller, const char *name, GError **error)
{
    GVariantBuilder builder = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE_VARDICT);
    GVariantBuilder settings = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));
    g_autoptr(Guest) guest = guests_find(guests, caller, name, error);
    struct stat disk = {0};

    if (!guest) {
        g_variant_builder_clear(&builder);
        g_variant_builder_clear(&settings);
        return NULL;
    }
    const RuntimeGuest *real = guest->real;

    if (stat(real->disk_path, &disk) < 0)
        disk.st_blocks = 0;
    g_mutex_lock(&guests->lock);
    g_autofree char *json = real->placement ? placement_to_json(real->placement) : NULL;

    add_summary(&builder, guest);
    add_run(&builder, guest);
    add_string(&builder, "revision", real->revision);
    add_bytes(&builder, "disk", (guint64)disk.st_blocks * 512);
    add_string(&builder, "runtime", guests->runtime->name);
    add_string(&builder, "mac", real->mac);
    add_string(&builder, "network", real->network);
    add_string(&builder, "placement", json);
    for (guint i = 0; i < real->spec->settings->items->len; i++) {
        const Setting *setting = real->spec->settings->items->pdata[i];

        g_variant_builder_open(&settings, G_VARIANT_TYPE("a{sv}"));
        add_string(&settings, "group", setting->group);
        add_string(&settings, "key", setting->key);
        add_string(&settings, "value", setting->value);
        add_string(&settings, "origin", setting->origin);
        g_variant_builder_close(&settings);
    }
    g_variant_builder_add(&builder, "{sv}", "settings", g_variant_builder_end(&settings));
    g_mutex_unlock(&guests->lock);
    return g_variant_builder_end(&builder);
}

GPtrArray *guests_verify(Guests *guests, const Caller *caller, const char *name, GError **error)
{
    Guest *guest = guest_begin(guests, caller, name, "verify", error); /* so that it does not stop meanwhile by our doing */
    GPtrArray *findings = NULL;
    pid_t pid = 0;

    if (!guest)
        return NULL;
    if (!guest->real->placement) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "it is %s: nothing is promised to it", guest_state_name(guest->state));
    } else if (guests->runtime->process(guests->runtime, guest->real, &pid, error)) {
        findings = g_ptr_array_new_with_free_func((GDestroyNotify)finding_free);
        verify_threads(pid, guest->real->placement, findings);
        verify_limits(pid, guest->real->placement, findings);
        verify_memory(pid, guest->real->placement, guest->real->ephemeral, findings);
    }
    guest_end(guests, guest);
    if (!findings)
        guest_prefix_error(error, name);
    return findings;
}

/* Puts the last bytes of a file, at most `room`, before `end`. How many; none where it is not there; -1 with errno. */
static ssize_t read_before(const char *path, char *end, gsize room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    gsize wanted = (gsize)MIN(MAX(size, 0), (off_t)room);
    ssize_t length = 0;

    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    length = MAX(pread(fd, end - wanted, wanted, size - (off_t)wanted), 0);
    close(fd);
    if ((gsize)length < wanted) /* it was cut off meanwhile */
        memmove(end - length, end - wanted, (gsize)length);
    return length;
}

/* The last LOG_MAX bytes of the log; empty where there is none yet. A log that has grown to virtlogd's max_size is renamed to *.0 (and
 * begun anew when the guest is started, the older ones removed). */
static char *read_tail(const Guest *guest, gsize *ret_length, GError **error)
{
    g_autofree char *older = g_strconcat(guest->real->log_path, ".0", NULL);
    g_autofree char *text = g_malloc(LOG_MAX);
    ssize_t newest = read_before(guest->real->log_path, text + LOG_MAX, LOG_MAX);
    ssize_t before = newest < 0 ? -1 : read_before(older, text + LOG_MAX - newest, LOG_MAX - (gsize)newest);

    if (before < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "guest '%s': cannot read its console log: %s",
                    guest->real->spec->name, g_strerror(errno));
        return NULL;
    }
    *ret_length = (gsize)(newest + before);
    memmove(text, text + LOG_MAX - *ret_length, *ret_length);
    return g_steal_pointer(&text);
}

GBytes *guests_logs(Guests *guests, const Caller *caller, const char *name, unsigned lines, GError **error)
{
    g_autoptr(Guest) guest = guests_find(guests, caller, name, error);
    gsize length = 0;
    g_autofree char *text = guest ? read_tail(guest, &length, error) : NULL;
    gsize begin = 0;

    if (!text)
        return NULL;
    if (lines) {
        begin = length;
        if (begin && text[begin - 1] == '\n')
            begin--;
        for (; begin > 0; begin--)
            if (text[begin - 1] == '\n' && --lines == 0)
                break;
    }
    return g_bytes_new(text + begin, length - begin);
}

char *guest_last_console_line(const Guest *guest)
{
    gsize length = 0;
    g_autofree char *text = read_tail(guest, &length, NULL);

    for (gsize end = length; text && end > 0;) {
        gsize begin = end;

        while (begin > 0 && text[begin - 1] != '\n')
            begin--;
        g_autofree char *line = g_strndup(text + begin, end - begin);

        if (*g_strstrip(line))
            return hvm_escape(line, (gssize)MIN(strlen(line), 160));
        end = begin ? begin - 1 : 0;
    }
    return NULL;
}

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
        add_bytes(&pages, "size", pool->page_bytes);
        add_bytes(&pages, "total", pool->total);
        add_bytes(&pages, "free", pool->free);
        add_bytes(&pages, "promised", promised / pool->page_bytes);
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
        add_uint(&nodes, "node", node->node);
        add_string(&nodes, "cpus", cpus);
        if (node->memory_bytes != HOST_BYTES_UNKNOWN)
            add_bytes(&nodes, "memory", node->memory_bytes);
        if (small && small->free_known)
            add_bytes(&nodes, "free", small->free * small->page_bytes);
        add_string(&nodes, "kind", node->kind);
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
        add_string(&devices, "address", device->address);
        add_string(&devices, "kind", kind);
        if (device->node >= 0)
            add_uint(&devices, "node", (guint32)device->node);
        if (device->iommu_group >= 0)
            add_uint(&devices, "group", (guint32)device->iommu_group);
        add_string(&devices, "interface", device->interface);
        add_string(&devices, "driver", device->driver);
        add_string(&devices, "use", device->use);
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
        add_uint(&cells, "node", memory->node);
        add_bytes(&cells, "size", memory->page_bytes);
        add_bytes(&cells, "bytes", memory->bytes);
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
        add_string(&promises, "owner", open ? owner : "another user");
        add_string(&promises, "guest", open ? entry->name : "");
        add_string(&promises, "cpus", cpus);
        add_bytes(&promises, "memory", bytes);
        add_string(&promises, "devices", devices);
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
        add_uint(&caches, "level", levels[i].level);
        add_bytes(&caches, "bytes", hwloc_get_obj_by_type(topology, levels[i].type, 0)->attr->cache.size);
        add_uint(&caches, "count", (guint32)count);
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

    add_string(&builder, "model", fresh->cpu_model);
    add_uint(&builder, "smt", fresh->smt);
    add_string(&builder, "housekeeping", housekeeping);
    add_string(&builder, "isolated", isolated);
    add_string(&builder, "disk-nodes", disk_nodes);
    add_uint(&builder, "packages", (guint32)MAX(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE), 0));
    add_uint(&builder, "cores", (guint32)MAX(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE), 0));
    add_uint(&builder, "pus", (guint32)hwloc_bitmap_weight(fresh->usable_pus));
    g_variant_builder_add(&builder, "{sv}", "caches", host_caches(topology));
    g_variant_builder_add(&builder, "{sv}", "nodes", host_nodes(guests));
    g_variant_builder_add(&builder, "{sv}", "devices", host_devices(fresh));
    g_variant_builder_add(&builder, "{sv}", "promises", host_promises(guests, caller));
    g_variant_builder_add(&builder, "{sv}", "known", g_variant_new_boolean(guests->known));
    g_mutex_unlock(&guests->lock);
    return g_variant_builder_end(&builder);
}
