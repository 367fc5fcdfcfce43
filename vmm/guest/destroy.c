/*
 * destroy.c: a guest goes, with its disk, its address and its name; nothing else ever.
 *
 * Order: the domain is undefined before the disk is removed, so that a kill between the two leaves a folder without
 * a domain, which is marked unfinished, so that recovery clears it; never a domain without its disk.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "step.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

enum { RETRY_US = 1000000 };

void guests_remove_socket_folder(const char *folder)
{
    static const char *const names[] = {"agent.sock", "console.sock"};

    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(folder, names[i], NULL);

        unlink(path);
    }
    if (rmdir(folder) < 0 && errno != ENOENT)
        g_debug("cannot remove %s: %s", folder, g_strerror(errno));
}

static gboolean leave_network(Guests *guests, const Guest *guest, GError **error)
{
    g_autoptr(virConnect) connect = virt_get(guests->virt, error);

    return connect && nat_detach(guests->nat, connect, guest->real->owner_uid, guest->real->spec->name, error);
}

/* Of two guests that go at once the one which leaves the table last finds nobody else of the owner's. */
void guests_release_network(Guests *guests, uid_t owner_uid)
{
    g_autoptr(virConnect) connect = NULL;
    g_autoptr(GError) error = NULL;
    GHashTableIter iter;
    Guest *guest = NULL;
    gboolean used = FALSE;

    g_mutex_lock(&guests->lock);
    g_hash_table_iter_init(&iter, guests->table);
    while (!used && g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        used = guest->real->owner_uid == owner_uid;
    g_mutex_unlock(&guests->lock);
    if (!used && (!(connect = virt_get(guests->virt, &error)) || !nat_release(guests->nat, connect, owner_uid, &error)))
        g_warning("the network of user %u stays until the next start: %s", (unsigned)owner_uid, error->message);
}

gboolean guest_take_away(Guests *guests, Guest *guest, GError **error)
{
    Runtime *runtime = guests->runtime;
    RuntimeGuest *real = guest->real;

    if (!runtime->kill(runtime, real, error) || !step_reached("destroy.kill", error))
        return FALSE;
    guest_set_state(guests, guest, GUEST_OFF);
    if (!leave_network(guests, guest, error) || !step_reached("destroy.network", error))
        return FALSE;
    g_mutex_lock(&guests->lock);
    guest->undefined = TRUE;
    g_mutex_unlock(&guests->lock);
    image_store_mark_guest(guests->store, real->uuid, TRUE, NULL); /* a full disk must not stand in the way of making room */
    if (!runtime->undefine(runtime, real, error) || !step_reached("destroy.undefine", error) ||
        !image_store_destroy_guest(guests->store, real->uuid, error) || !step_reached("destroy.disk", error))
        return FALSE;
    guests_remove_socket_folder(real->socket_folder);
    return TRUE;
}

/* By its UUID: its name may be another guest's by now. NULL where it is not there any more; else the caller unrefs. */
static Guest *find_ephemeral(Guests *guests, const char *uuid)
{
    GHashTableIter iter;
    Guest *guest = NULL, *found = NULL;

    g_mutex_lock(&guests->lock);
    g_hash_table_iter_init(&iter, guests->table);
    while (!found && g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        if (guest->real->ephemeral && strcmp(guest->real->uuid, uuid) == 0)
            found = guest_ref(guest);
    g_mutex_unlock(&guests->lock);
    return found;
}

void guest_finish_destroy(Guests *guests, Guest *guest)
{
    guest_forget(guests, guest);
    guests_release_network(guests, guest->real->owner_uid);
    if (guest->real->ephemeral || !guest->creating) /* else nobody was told that it was created */
        guest_emit(guests, guest, "destroyed");
}

static void take_away_work(Guests *guests, gpointer data)
{
    g_autoptr(Guest) guest = data;

    for (;;) {
        g_autoptr(GError) error = NULL;

        if (guest_take_away(guests, guest, &error)) {
            guest_finish_destroy(guests, guest);
            return;
        }
        g_debug("guest '%s': %s", guest->real->spec->name, error->message);
        if (!guests_check_stays(guests, NULL))
            return;
        g_usleep(RETRY_US);
    }
}

void guest_take_away_later(Guests *guests, Guest *guest)
{
    guest_set_leaving(guests, guest, TRUE);
    guests_run(guests, take_away_work, guest_ref(guest));
}

void guests_leave(Guests *guests, const char *uuid)
{
    g_autoptr(Guest) guest = find_ephemeral(guests, uuid);

    if (guest)
        guest_set_leaving(guests, guest, TRUE);
}

/* Gives the operation back, and unrefs. */
static gboolean destroy(Guests *guests, Guest *guest, GError **error)
{
    gboolean good = guest_take_away(guests, guest, error);

    if (good) {
        guest_finish_destroy(guests, guest);
    } else {
        guest_set_leaving(guests, guest, FALSE);
        guest_prefix_error(error, guest->real->spec->name);
    }
    guest_end(guests, guest);
    return good;
}

gboolean guests_destroy(Guests *guests, const Caller *caller, const char *name, GError **error)
{
    Guest *guest = guest_begin(guests, caller, name, "destroy", error);

    return guest && destroy(guests, guest, error);
}

gboolean guests_destroy_ephemeral(Guests *guests, const char *uuid, GError **error)
{
    g_autoptr(Guest) guest = find_ephemeral(guests, uuid);
    g_autoptr(GError) local = NULL;

    if (!guest)
        return TRUE;
    if (guest_take_operation(guests, guest, "destroy", &local))
        return destroy(guests, g_steal_pointer(&guest), error);
    if (g_error_matches(local, HVM_ERROR, HVM_ERROR_NOT_FOUND))
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}
