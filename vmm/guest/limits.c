/*
 * limits.c: what one user may have, from [limits] of hvmd.conf, which do not bound root; and that the bound of a batch job is known.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "units.h"

static gboolean over(GError **error, const char *what, guint64 wanted, guint64 limit, gboolean bytes)
{
    g_autofree char *wanted_text = bytes ? size_format(wanted) : g_strdup_printf("%" G_GUINT64_FORMAT, wanted);
    g_autofree char *limit_text = bytes ? size_format(limit) : g_strdup_printf("%" G_GUINT64_FORMAT, limit);

    g_set_error(error, HVM_ERROR, HVM_ERROR_DENIED, "over the limit of %s for one user: wanted %s in all, allowed %s", what,
                wanted_text, limit_text);
    return FALSE;
}

/* A bound that is not known is not taken for none, whoever asks. */
gboolean limits_check_allowed(const Caller *caller, GError **error)
{
    if (caller->allowed_error)
        g_set_error_literal(error, HVM_ERROR, HVM_ERROR_DENIED, caller->allowed_error);
    return caller->allowed_error == NULL;
}

gboolean limits_check_create(Guests *guests, const Caller *caller, GError **error)
{
    GHashTableIter iter;
    Guest *guest = NULL;
    unsigned count = 1;

    if (caller->uid == 0 || !guests->config->limit_guests)
        return TRUE;
    g_hash_table_iter_init(&iter, guests->table);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        count += guest->real->owner_uid == caller->uid;
    return count <= guests->config->limit_guests || over(error, "guests", count, guests->config->limit_guests, FALSE);
}

static guint64 huge_bytes(const Placement *placement)
{
    guint64 bytes = 0;

    for (guint i = 0; placement && i < placement->cells->len; i++) {
        const PlacementCell *cell = &g_array_index(placement->cells, PlacementCell, i);

        bytes += cell->page_bytes > 4 * HVM_KIB ? cell->memory_bytes : 0;
    }
    return bytes;
}

gboolean limits_check_start(Guests *guests, const Guest *starting, GError **error)
{
    const GuestsConfig *config = guests->config;
    uid_t uid = starting->real->owner_uid;
    guint64 cpus = 0, memory_bytes = 0, page_bytes = 0;
    GHashTableIter iter;
    Guest *guest = NULL;

    if (uid == 0)
        return TRUE;
    g_hash_table_iter_init(&iter, guests->table);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest)) {
        if (guest->real->owner_uid != uid || (guest != starting && !guest->real->placement))
            continue;
        cpus += guest->real->spec->cpus;
        memory_bytes += guest->real->spec->memory_bytes;
        page_bytes += huge_bytes(guest->real->placement);
    }
    if (config->limit_cpus && cpus > config->limit_cpus)
        return over(error, "vCPUs of running guests", cpus, config->limit_cpus, FALSE);
    if (config->limit_memory_bytes && memory_bytes > config->limit_memory_bytes)
        return over(error, "memory of running guests", memory_bytes, config->limit_memory_bytes, TRUE);
    if (config->limit_pages_bytes && page_bytes > config->limit_pages_bytes)
        return over(error, "huge pages of running guests", page_bytes, config->limit_pages_bytes, TRUE);
    return TRUE;
}
