/*
 * recover.c: the table and the ledger are read back from what is there.
 *
 * Runs in a worker each time libvirt answers (at hvmd's start, and after libvirtd was restarted), and when libvirt tells of
 * something that one guest's state does not explain (watch.c).
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "step.h"

#include <glib/gstdio.h>
#include <string.h>

enum { READ_BACKS_MAX = 5 };

/* Whether what was listed at `since` may be older than what the table says of a name. With the lock held. */
static gboolean is_stale(const Guests *guests, const Guest *guest, guint64 since)
{
    return guest ? guest->operation || guest->touched > since : guests->forgotten > since;
}

/* Takes one found guest into the table. With the lock held. */
static void adopt(Guests *guests, RuntimeFound *found)
{
    const char *name = found->name;
    Guest *guest = g_hash_table_lookup(guests->table, name);

    if (!guest && found->guest->ephemeral)
        return; /* an earlier hvmd's: end_orphans() */
    if (guest && strcmp(guest->real->uuid, found->guest->uuid) != 0) { /* another domain has its name now */
        guest_end_life(guests, guest);
        guest->gone = TRUE;
    }
    if (!guest || strcmp(guest->real->uuid, found->guest->uuid) != 0) {
        g_autoptr(GError) error = NULL;

        if (!guests_fill_paths(guests, found->guest, &error)) {
            g_warning("domain '%s' is left alone: %s", name, error->message);
            return;
        }
        guest = guest_new(g_steal_pointer(&found->guest));
        g_hash_table_replace(guests->table, g_strdup(name), guest);
    } else if (found->guest->placement) {
        g_clear_pointer(&guest->real->placement, placement_free);
        guest->real->placement = g_steal_pointer(&found->guest->placement);
    }
    guest->state = guest->told = found->state;
    if (found->state == GUEST_OFF || found->state == GUEST_CRASHED) {
        guest_end_life(guests, guest);
    } else if (g_cancellable_is_cancelled(guest->life)) { /* it was started past hvmd */
        g_object_unref(guest->life);
        guest->life = g_cancellable_new();
    }
}

/* Drops guests whose domain is gone. With the lock held. */
static void drop_missing(Guests *guests, GPtrArray *all, guint64 since)
{
    g_autoptr(GHashTable) there = g_hash_table_new(g_str_hash, g_str_equal);
    GHashTableIter iter;
    Guest *guest = NULL;
    const char *name = NULL;

    for (guint i = 0; i < all->len; i++)
        g_hash_table_add(there, ((RuntimeFound *)all->pdata[i])->name);
    g_hash_table_iter_init(&iter, guests->table);
    while (g_hash_table_iter_next(&iter, (gpointer *)&name, (gpointer *)&guest)) {
        if (is_stale(guests, guest, since) || guest->undefined || g_hash_table_contains(there, name))
            continue;
        guest_end_life(guests, guest);
        if (guest->real->ephemeral) { /* it is forgotten by the connection that it belongs to */
            guest->state = guest->told = GUEST_OFF;
            continue;
        }
        guest->gone = TRUE;
        g_hash_table_iter_remove(&iter);
    }
}

/* Ephemeral domains of an hvmd that was killed. libvirt ends them by itself (AUTODESTROY), but takes a moment for it, and does not where
 * libvirtd was restarted too. */
static void end_orphans(Guests *guests, GPtrArray *all)
{
    for (guint i = 0; i < all->len; i++) {
        const RuntimeFound *found = all->pdata[i];
        g_autoptr(GError) error = NULL;

        if (!found->guest || !found->guest->ephemeral)
            continue;
        g_mutex_lock(&guests->lock);
        gboolean held = g_hash_table_contains(guests->table, found->name);
        g_mutex_unlock(&guests->lock);
        if (held)
            continue;
        if (!guests->runtime->kill(guests->runtime, found->guest, &error)) {
            g_warning("domain '%s', which belongs to nobody: %s", found->name, error->message);
            continue;
        }
        g_mutex_lock(&guests->lock);
        ledger_release(guests->ledger, found->uuid);
        g_mutex_unlock(&guests->lock);
    }
}

/* Releases what was promised to domains that run no more and are no guests of the table: what hvm did not make, and orphans. With the lock
 * held. */
static void release_promises(Guests *guests, GPtrArray *all)
{
    g_autoptr(GHashTable) holders = g_hash_table_new(g_str_hash, g_str_equal);
    GHashTableIter iter;
    Guest *guest = NULL;

    for (guint i = 0; i < all->len; i++) {
        const RuntimeFound *found = all->pdata[i];

        if (found->promise)
            g_hash_table_add(holders, found->uuid);
    }
    g_hash_table_iter_init(&iter, guests->table);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        g_hash_table_add(holders, guest->real->uuid);
    for (guint i = guests->ledger->entries->len; i-- > 0;) {
        const LedgerEntry *entry = guests->ledger->entries->pdata[i];
        g_autofree char *uuid = g_strdup(entry->uuid);

        if (!g_hash_table_contains(holders, uuid))
            ledger_release(guests->ledger, uuid);
    }
}

/* Takes one thing that was found into ledger and table. FALSE where the listing may be too old for it. With the lock held. */
static gboolean take_found(Guests *guests, RuntimeFound *found, guint64 since)
{
    Guest *guest = g_hash_table_lookup(guests->table, found->name);
    const LedgerEntry *entry = ledger_find(guests->ledger, found->uuid);

    if (found->guest && is_stale(guests, guest, since))
        return guest && guest->operation; /* whoever works on it knows better */
    /* What hvm did not make may have been pinned anew; ours are kept while an operation is under way. */
    if (found->promise && (!entry || entry->owner_uid == (uid_t)-1))
        ledger_add(guests->ledger, g_steal_pointer(&found->promise));
    if (found->guest)
        adopt(guests, found);
    return TRUE;
}

/* Brings table and ledger up to what the runtime lists, which is returned (caller unrefs). *ret_whole: FALSE where something changed
 * meanwhile, so that another listing is wanted. With read_back_lock held. */
static GPtrArray *read_back_once(Guests *guests, gboolean *ret_whole, GError **error)
{
    g_mutex_lock(&guests->lock);
    guint64 since = guests->serial;
    g_mutex_unlock(&guests->lock);

    GPtrArray *all = guests->runtime->list(guests->runtime, guests->config->store_path, error);

    if (!all || !step_reached("recover.listed", error)) {
        g_clear_pointer(&all, g_ptr_array_unref);
        return NULL;
    }
    *ret_whole = TRUE;
    g_mutex_lock(&guests->lock);
    release_promises(guests, all);
    for (guint i = 0; i < all->len; i++)
        *ret_whole = take_found(guests, all->pdata[i], since) && *ret_whole;
    drop_missing(guests, all, since);
    g_cond_broadcast(&guests->changed);
    g_mutex_unlock(&guests->lock);
    end_orphans(guests, all);
    return all;
}

/* As read_back_once(), until the listing is not older than what it is held against; under a load which never lets that happen, each
 * end of an operation has its own look. */
GPtrArray *guests_read_back(Guests *guests, GError **error)
{
    gboolean whole = FALSE;
    GPtrArray *all = read_back_once(guests, &whole, error);

    for (int i = 1; all && !whole && i < READ_BACKS_MAX; i++) {
        g_ptr_array_unref(all);
        all = read_back_once(guests, &whole, error);
    }
    return all;
}

gboolean guests_have_uuid(Guests *guests, const char *uuid)
{
    GHashTableIter iter;
    Guest *guest = NULL;
    gboolean known = FALSE;

    g_mutex_lock(&guests->lock);
    g_hash_table_iter_init(&iter, guests->table);
    while (!known && g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        known = strcmp(guest->real->uuid, uuid) == 0;
    g_mutex_unlock(&guests->lock);
    return known;
}

typedef struct {
    Guests *guests;
    uid_t uid;
} Owner;

/* Whether the owner has a guest of that name, or any where it is NULL. Names are compared as DNS does. */
static gboolean has_guest(const char *name, gpointer data)
{
    const Owner *owner = data;
    GHashTableIter iter;
    Guest *guest = NULL;
    gboolean has = FALSE;

    g_mutex_lock(&owner->guests->lock);
    g_hash_table_iter_init(&iter, owner->guests->table);
    while (!has && g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        has = guest->real->owner_uid == owner->uid && (!name || g_ascii_strcasecmp(guest->real->spec->name, name) == 0);
    g_mutex_unlock(&owner->guests->lock);
    return has;
}

/* Networks of owners who have no guest any more, and in the others what guests left that are none any more. */
static void clear_networks(Guests *guests)
{
    g_autoptr(virConnect) connect = virt_get(guests->virt, NULL);
    g_auto(GStrv) names = connect ? nat_list(guests->nat, connect, NULL) : NULL;

    for (char **name = names; name && *name; name++) {
        g_autoptr(GError) error = NULL;
        guint64 uid = 0;

        if (!g_str_has_prefix(*name, "hvm-nat-") || !g_ascii_string_to_unsigned(*name + 8, 10, 0, G_MAXUINT32, &uid, NULL))
            continue;

        Owner owner = {guests, (uid_t)uid};

        if (!(has_guest(NULL, &owner) ? nat_sweep(guests->nat, connect, owner.uid, has_guest, &owner, &error)
                                      : nat_release(guests->nat, connect, owner.uid, &error)))
            g_warning("network '%s': what is left in it stays until the next start: %s", *name, error->message);
    }
}

/* Folders of sockets of guests that have nothing in the store. */
static void clear_socket_folders(Guests *guests)
{
    g_autofree char *path = g_build_filename(guests->config->runtime_folder, "guests", NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);

    for (const char *uuid; dir && (uuid = g_dir_read_name(dir));) {
        g_autofree char *folder = g_build_filename(path, uuid, NULL);
        g_autofree char *disk_folder = image_store_guest_folder(guests->store, uuid, NULL);

        if (!guests_have_uuid(guests, uuid) && !(disk_folder && g_file_test(disk_folder, G_FILE_TEST_EXISTS)))
            guests_remove_socket_folder(folder);
    }
}

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp((*(Guest *const *)a)->real->spec->name, (*(Guest *const *)b)->real->spec->name);
}

/* Guests with autostart, once after the node has booted: /run does not outlive a boot. That it is done is written down when it is: an
 * hvmd that is killed in between leaves the rest to the next, which passes over those that run. */
static void start_automatic(Guests *guests)
{
    g_autofree char *marker = g_build_filename(guests->config->runtime_folder, "autostarted", NULL);
    g_autoptr(GPtrArray) chosen = g_ptr_array_new_with_free_func((GDestroyNotify)guest_unref);
    g_autoptr(GError) error = NULL;
    GHashTableIter iter;
    Guest *guest = NULL;

    g_mutex_lock(&guests->lock);
    if (guests->autostarted || g_file_test(marker, G_FILE_TEST_EXISTS)) {
        g_mutex_unlock(&guests->lock);
        return;
    }
    guests->autostarted = TRUE;
    g_hash_table_iter_init(&iter, guests->table);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        if (guest->real->spec->autostart && guest->state == GUEST_OFF)
            g_ptr_array_add(chosen, guest_ref(guest));
    g_mutex_unlock(&guests->lock);
    g_ptr_array_sort(chosen, by_name);
    for (guint i = 0; i < chosen->len; i++) {
        const RuntimeGuest *real = ((Guest *)chosen->pdata[i])->real;
        const Caller owner = {.uid = real->owner_uid, .gid = real->owner_gid}; /* with no more rights than at create */
        g_autoptr(GError) local = NULL;

        if (!guests_start(guests, &owner, real->spec->name, guests_no_progress, NULL, &local))
            g_warning("autostart: %s", local->message);
    }
    if (guests_check_stays(guests, NULL) && !g_file_set_contents(marker, "", 0, &error))
        g_warning("autostart: the next hvmd starts again what is off by then: %s", error->message);
}

void guests_no_progress(const char *text G_GNUC_UNUSED, gpointer data G_GNUC_UNUSED)
{
}

/* What a folder in the store must not be cleared for: a guest in the table, or any domain at all. Metadata that cannot be read (a newer
 * hvm's, or edited by hand) are no reason to remove a disk. */
typedef struct {
    Guests *guests;
    GPtrArray *all;
} Known;

static gboolean is_anyones(const char *uuid, gpointer data)
{
    const Known *known = data;

    for (guint i = 0; i < known->all->len; i++) {
        const RuntimeFound *found = known->all->pdata[i];
        gboolean orphan = found->guest && found->guest->ephemeral; /* ended by now; in the table if it is not one */

        if (!orphan && strcmp(found->uuid, uuid) == 0)
            return TRUE;
    }
    return guests_have_uuid(known->guests, uuid);
}

/* Half-made things of an earlier hvmd. */
static void clear_remains(Guests *guests, GPtrArray *all)
{
    Known known = {guests, all};
    g_autoptr(GError) error = NULL;
    gboolean unreadable = FALSE;

    for (guint i = 0; i < all->len; i++)
        unreadable = unreadable || ((const RuntimeFound *)all->pdata[i])->unreadable;

    if (!image_store_recover(guests->store, is_anyones, &known, &error))
        g_warning("%s", error->message);

    g_auto(GStrv) strays = image_store_list_strays(guests->store, is_anyones, &known);

    for (char **stray = strays; *stray; stray++)
        g_warning("libvirt knows no guest for %s, which is left as it is: see `hvm doctor`", *stray);
    if (!unreadable) /* nobody can tell whose network it is on */
        clear_networks(guests);
    clear_socket_folders(guests);
}

void guests_recover(Guests *guests)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) all = NULL;

    g_mutex_lock(&guests->read_back_lock);
    if ((all = guests_read_back(guests, &error)) && !guests->recovered) {
        clear_remains(guests, all);
        guests->recovered = TRUE;
    }
    g_mutex_unlock(&guests->read_back_lock);
    if (!all) {
        g_warning("cannot read the guests back: %s", error->message);
        return;
    }
    g_mutex_lock(&guests->lock);
    GSourceOnceFunc tell = guests->known ? NULL : guests->on_known;

    guests->ready = guests->known = TRUE;
    g_cond_broadcast(&guests->changed);
    g_mutex_unlock(&guests->lock);
    if (tell)
        g_idle_add_once(tell, guests->known_data);
    start_automatic(guests);
}
