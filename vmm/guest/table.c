/*
 * table.c: the table of guests: who finds whom, one operation at a time on each, names taken and given back.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "units.h"

#include <string.h>
#include <unistd.h>

enum { OPERATION_WAIT_S = 30 };

static gboolean may_see(const Guest *guest, uid_t uid)
{
    return uid == 0 || guest->real->owner_uid == uid;
}

Guest *guests_find(Guests *guests, const Caller *caller, const char *name, GError **error)
{
    if (!guests_check_known(guests, error))
        return NULL;
    g_mutex_lock(&guests->lock);
    Guest *guest = g_hash_table_lookup(guests->table, name);

    if (guest && !guest->creating && may_see(guest, caller->uid))
        guest_ref(guest);
    else
        guest = NULL;
    g_mutex_unlock(&guests->lock);
    if (!guest) {
        g_autofree char *shown = hvm_escape(name, (gssize)MIN(strlen(name), HVM_NAME_MAX));

        g_set_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND, "there is no guest '%s'", shown);
    }
    return guest;
}

gboolean guests_check_visible(Guests *guests, const char *name, uid_t uid, GError **error)
{
    const Caller caller = {.uid = uid};
    g_autoptr(Guest) guest = guests_find(guests, &caller, name, error);

    return guest != NULL;
}

gboolean guest_take_operation(Guests *guests, Guest *guest, const char *operation, GError **error)
{
    gint64 deadline = g_get_monotonic_time() + OPERATION_WAIT_S * G_TIME_SPAN_SECOND;
    const char *name = guest->real->spec->name;

    g_mutex_lock(&guests->lock);
    while (guest->operation && !guest->gone) {
        if (!guest->hurried && (strcmp(operation, "destroy") == 0 || strcmp(operation, "end") == 0)) {
            guest->hurried = TRUE;
            g_cond_broadcast(&guests->changed);
        }
        if (!g_cond_wait_until(&guests->changed, &guests->lock, deadline))
            break;
    }
    const char *other = guest->operation;
    gboolean gone = guest->gone;
    gboolean late = guests->leaving && strcmp(operation, "destroy") != 0;

    if (!other && !gone && !late)
        guest->operation = operation;
    g_mutex_unlock(&guests->lock);
    if (gone) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND, "there is no guest '%s'", name);
        return FALSE;
    }
    if (late) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "guest '%s': cannot %s it: hvmd is about to end", name, operation);
        return FALSE;
    }
    if (other) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "guest '%s': cannot %s it: another caller's %s is under way", name,
                    operation, other);
        return FALSE;
    }
    return TRUE;
}

Guest *guest_begin(Guests *guests, const Caller *caller, const char *name, const char *operation, GError **error)
{
    g_autoptr(Guest) guest = guests_find(guests, caller, name, error);

    return guest && guest_take_operation(guests, guest, operation, error) ? g_steal_pointer(&guest) : NULL;
}

void guest_end(Guests *guests, Guest *guest)
{
    g_mutex_lock(&guests->lock);
    guest->operation = NULL;
    guest->hurried = FALSE;
    guest->touched = ++guests->serial;
    g_cond_broadcast(&guests->changed);
    g_mutex_unlock(&guests->lock);
    guest_unref(guest);
}

/* A removal asks the table who stands on an image: it must not come between the last look at the image and the entry. */
gboolean guest_take_name(Guests *guests, const Caller *caller, Guest *guest, GError **error)
{
    const char *name = guest->real->spec->name;
    int hold_fd = image_store_hold(guests->store, guest->real->spec->template_name, guest->real->revision, error);
    gboolean good = FALSE;

    if (hold_fd < 0) {
        guest_prefix_error(error, name);
        return FALSE;
    }
    guest->creating = TRUE;
    guest->operation = "create";
    g_mutex_lock(&guests->lock);
    if (g_hash_table_contains(guests->table, name))
        g_set_error(error, HVM_ERROR, HVM_ERROR_EXISTS, "guest '%s': the name is taken on this node", name);
    else if ((good = limits_check_create(guests, caller, error)))
        g_hash_table_insert(guests->table, g_strdup(name), guest_ref(guest));
    else
        g_prefix_error(error, "guest '%s': ", name);
    g_mutex_unlock(&guests->lock);
    close(hold_fd);
    return good;
}

void guest_publish(Guests *guests, Guest *guest)
{
    g_mutex_lock(&guests->lock);
    guest->creating = FALSE;
    guest->operation = NULL;
    guest->touched = ++guests->serial;
    g_cond_broadcast(&guests->changed);
    g_mutex_unlock(&guests->lock);
    if (!guest->real->ephemeral)
        guest_emit(guests, guest, "created");
}

void guest_set_leaving(Guests *guests, Guest *guest, gboolean leaving)
{
    g_mutex_lock(&guests->lock);
    guest->leaving = leaving;
    g_cond_broadcast(&guests->changed);
    g_mutex_unlock(&guests->lock);
}

void guest_forget(Guests *guests, Guest *guest)
{
    g_mutex_lock(&guests->lock);
    guest->gone = TRUE;
    guests->forgotten = ++guests->serial;
    g_hash_table_remove(guests->table, guest->real->spec->name);
    g_cond_broadcast(&guests->changed);
    g_mutex_unlock(&guests->lock);
}

char *guests_using_image(const char *template_name, const char *revision, gpointer pointer)
{
    Guests *guests = pointer;
    GHashTableIter iter;
    Guest *guest = NULL;
    char *user = NULL;

    g_mutex_lock(&guests->lock);
    g_hash_table_iter_init(&iter, guests->table);
    while (!user && g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        if (strcmp(guest->real->spec->template_name, template_name) == 0 &&
            (!revision || strcmp(guest->real->revision, revision) == 0))
            user = g_strdup(guest->real->spec->name);
    g_mutex_unlock(&guests->lock);
    return user;
}

unsigned guests_count_on_template(Guests *guests, const Caller *caller, const char *template_name)
{
    GHashTableIter iter;
    Guest *guest = NULL;
    unsigned count = 0;

    g_mutex_lock(&guests->lock);
    g_hash_table_iter_init(&iter, guests->table);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        count += may_see(guest, caller->uid) && strcmp(guest->real->spec->template_name, template_name) == 0;
    g_mutex_unlock(&guests->lock);
    return count;
}
