/*
 * run.c: an ephemeral guest: create and start in one go, with nothing defined, so that nothing can stay behind.
 *
 * It belongs to the connection that asked for it: vmm/daemon destroys it when that closes. It dies with hvmd too, by
 * libvirt's AUTODESTROY; its disk is then cleared by the next hvmd, which knows no guest for it.
 *
 * About one boot in 300 hangs in the kernel under emulation: a boot that does not come up is tried once more, on a new disk.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "step.h"
#include "units.h"

#include <sys/stat.h>

/* A boot to the agent alone takes seconds: the first of two attempts gets this part of [boot] timeout, the second all of it. */
enum { FIRST_PART = 3 };

typedef struct {
    Guests *guests;
    const Caller *caller;
    Guest *guest;
    const Image *image;
    GCancellable *cancellable;
    GuestsProgressFunc progress;
    gpointer data;
    gboolean booted; /* it came so far that a hang is possible */
    gboolean left;   /* what the attempt made could not be taken away */
} Run;

static char *random_name(void)
{
    return g_strdup_printf("run-%08x", g_random_int());
}

/* Ends the wait for the agent; a thread of the main loop's. */
static void on_cancelled(GCancellable *cancellable G_GNUC_UNUSED, gpointer data)
{
    g_cancellable_cancel(data);
}

/* What the disks that are in memory already may still grow by. With the lock held. */
static guint64 promised_in_memory(Guests *guests, const Guest *but)
{
    GHashTableIter iter;
    Guest *guest = NULL;
    guint64 bytes = 0;

    g_hash_table_iter_init(&iter, guests->table);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest)) {
        struct stat disk = {0};
        guint64 whole = guest->real->spec->disk_bytes;

        if (guest == but || !guest->in_memory)
            continue;
        if (stat(guest->real->disk_path, &disk) < 0)
            disk.st_blocks = 0;
        bytes += whole - MIN(whole, (guint64)disk.st_blocks * 512);
    }
    return bytes;
}

/* Where its disk goes: memory, if that has room for all that it and those that are there may write, beside its own memory. */
static gboolean choose_disk(const Run *run, GError **error)
{
    Guests *guests = run->guests;
    RuntimeGuest *real = run->guest->real;
    InMemory wanted = real->spec->disk_in_memory;
    guint64 bytes = real->spec->disk_bytes + real->spec->memory_bytes;

    g_autoptr(GError) why = NULL;

    g_mutex_lock(&guests->lock);
    gboolean fits = wanted != IN_MEMORY_NO &&
                    image_store_check_memory(guests->store, bytes + promised_in_memory(guests, run->guest), &why);

    g_free(real->disk_path);
    real->disk_path = image_store_disk(guests->store, real->uuid, fits);
    run->guest->in_memory = fits;
    g_mutex_unlock(&guests->lock);
    if (fits || wanted != IN_MEMORY_YES)
        return TRUE;
    g_propagate_prefixed_error(error, g_steal_pointer(&why), "disk in memory: ");
    return FALSE;
}

/* Disk, domain, agent. */
static gboolean bring_up(Run *run, unsigned timeout_s, GError **error)
{
    Guest *guest = run->guest;
    gboolean good;
    gulong handler;

    run->progress("making its disk", run->data);
    if (!choose_disk(run, error) ||
        !image_store_create_guest(run->guests->store, guest->real->uuid, run->image, guest->real->spec->disk_bytes, guest->in_memory,
                                  error) ||
        !step_reached("run.disk", error) ||
        !guest_bring_up(run->guests, run->caller, guest, run->progress, run->data, error) || !step_reached("run.domain", error))
        return FALSE;
    run->booted = TRUE;
    handler = g_cancellable_connect(run->cancellable, G_CALLBACK(on_cancelled), g_object_ref(guest->life), g_object_unref);
    run->progress("booting", run->data);
    good = guest_wait_for_agent(run->guests, guest, timeout_s, error);
    g_cancellable_disconnect(run->cancellable, handler);
    return good;
}

/* One attempt; what it made is taken away again where it fails. */
static gboolean attempt(Run *run, unsigned timeout_s, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (bring_up(run, timeout_s, error))
        return TRUE;
    guest_set_leaving(run->guests, run->guest, g_cancellable_is_cancelled(run->cancellable));
    if (!guest_take_away(run->guests, run->guest, &local)) {
        g_message("guest '%s': it is to be taken away later: %s", run->guest->real->spec->name, local->message);
        run->left = TRUE;
    }
    return FALSE;
}

static gboolean attempt_twice(Run *run, GError **error)
{
    const Spec *spec = run->guest->real->spec;
    unsigned first_s = spec->init == INIT_AGENT ? spec->boot_timeout_s / FIRST_PART + 1 : spec->boot_timeout_s;
    g_autoptr(GError) local = NULL;
    g_autofree char *text = NULL;

    if (attempt(run, first_s, &local))
        return TRUE;
    if (!run->booted || run->left || g_cancellable_is_cancelled(run->cancellable)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    g_message("guest '%s': booting it once more: %s", spec->name, local->message);
    text = g_strdup_printf("booting it once more: %s", local->message);
    run->progress(text, run->data);
    return attempt(run, spec->boot_timeout_s, error);
}

gboolean guests_run_ephemeral(Guests *guests, const Caller *caller, const char *template_name, const Settings *request,
                              GCancellable *cancellable, char **ret_name, char **ret_uuid, GuestsProgressFunc progress,
                              gpointer data, GError **error)
{
    g_autofree char *name = random_name();
    g_autoptr(Image) image = NULL;
    g_autoptr(Guest) guest = NULL;

    progress("looking at the node", data);
    guest = guest_prepare(guests, caller, name, template_name, request, TRUE, &image, error);
    if (!guest || !guest_take_name(guests, caller, guest, error))
        return FALSE;
    guest_emit(guests, guest, "created");

    Run run = {guests, caller, guest, image, cancellable, progress, data, FALSE, FALSE};

    if (!attempt_twice(&run, error)) {
        guest_prefix_error(error, name);
        if (run.left)
            guest_take_away_later(guests, guest);
        else
            guest_finish_destroy(guests, guest);
        return FALSE;
    }
    guest_publish(guests, guest);
    *ret_name = g_steal_pointer(&name);
    *ret_uuid = g_strdup(guest->real->uuid);
    return TRUE;
}
