/*
 * show.c: what is known of guests, as the replies of List and Show (io.hvm1.xml). From the cache; only the disk's size is read when it is
 * asked for.
 */
#include "guests_private.h"
#include "reply.h"

#include <string.h>
#include <sys/stat.h>

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

    reply_add_string(builder, "name", real->spec->name);
    reply_add_string(builder, "uuid", real->uuid);
    reply_add_uint(builder, "owner", real->owner_uid);
    reply_add_string(builder, "state", guest_state_name(guest->state));
    reply_add_string(builder, "template", real->spec->template_name);
    reply_add_uint(builder, "cpus", real->spec->cpus);
    reply_add_bytes(builder, "memory", real->spec->memory_bytes);
    reply_add_string(builder, "address", guest->state == GUEST_OFF || guest->state == GUEST_CRASHED ? "" : real->address);
    reply_add_string(builder, "placed", placed);
}

/* How it runs: keys of Show, and of Start's reply. With the lock held. */
static void add_run(GVariantBuilder *builder, const Guest *guest)
{
    const RuntimeGuest *real = guest->real;
    GPtrArray *notes = real->placement ? real->placement->notes : NULL;

    reply_add_string(builder, "accel", !real->placement ? "" : real->kvm ? "kvm" : "tcg");
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
    reply_add_string(&builder, "revision", real->revision);
    reply_add_bytes(&builder, "disk", (guint64)disk.st_blocks * 512);
    reply_add_string(&builder, "runtime", guests->runtime->name);
    reply_add_string(&builder, "mac", real->mac);
    reply_add_string(&builder, "network", real->network);
    reply_add_string(&builder, "placement", json);
    for (guint i = 0; i < real->spec->settings->items->len; i++) {
        const Setting *setting = real->spec->settings->items->pdata[i];

        g_variant_builder_open(&settings, G_VARIANT_TYPE("a{sv}"));
        reply_add_string(&settings, "group", setting->group);
        reply_add_string(&settings, "key", setting->key);
        reply_add_string(&settings, "value", setting->value);
        reply_add_string(&settings, "origin", setting->origin);
        g_variant_builder_close(&settings);
    }
    g_variant_builder_add(&builder, "{sv}", "settings", g_variant_builder_end(&settings));
    g_mutex_unlock(&guests->lock);
    return g_variant_builder_end(&builder);
}
