/*
 * run.c: an ephemeral guest: create and start in one go, with nothing defined, so that nothing can stay behind.
 *
 * It belongs to the connection that asked for it: vmm/daemon destroys it when that closes. It dies with hvmd too, by
 * libvirt's AUTODESTROY; its disk is then cleared by the next hvmd, which knows no guest for it.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "step.h"

static char *random_name(void)
{
    return g_strdup_printf("run-%08x", g_random_int());
}

/* Ends the wait for the agent; a thread of the main loop's. */
static void on_cancelled(GCancellable *cancellable G_GNUC_UNUSED, gpointer data)
{
    g_cancellable_cancel(data);
}

gboolean guests_run_ephemeral(Guests *guests, const Caller *caller, const char *template_name, const Settings *request,
                              GCancellable *cancellable, char **ret_name, GuestsProgressFunc progress, gpointer data,
                              GError **error)
{
    g_autofree char *name = random_name();
    g_autoptr(Image) image = NULL;
    g_autoptr(Guest) guest = guest_prepare(guests, caller, name, template_name, request, &image, error);

    if (!guest)
        return FALSE;
    guest->real->ephemeral = TRUE;
    if (!guest_take_name(guests, caller, guest, error))
        return FALSE;
    guest_emit(guests, guest, "created");

    gboolean good = image_store_create_guest(guests->store, guest->real->uuid, image, guest->real->spec->disk_bytes, error) &&
                    step_reached("run.disk", error) && guest_bring_up(guests, caller, guest, progress, data, error) &&
                    step_reached("run.domain", error);

    if (good) {
        gulong handler = g_cancellable_connect(cancellable, G_CALLBACK(on_cancelled), g_object_ref(guest->life), g_object_unref);

        progress("booting", data);
        good = guest_wait_for_agent(guests, guest, error);
        g_cancellable_disconnect(cancellable, handler);
    }
    if (!good) {
        g_autoptr(GError) ignored = NULL;

        guest_prefix_error(error, name);
        if (!guest_take_away(guests, guest, &ignored))
            g_warning("guest '%s': something stays behind until the next start: %s", name, ignored->message);
        guest_forget(guests, guest);
        guest_emit(guests, guest, "destroyed");
        return FALSE;
    }
    guest_publish(guests, guest);
    *ret_name = g_steal_pointer(&name);
    return TRUE;
}
