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

gboolean guests_run_ephemeral(Guests *guests, const Caller *caller, const char *template_name, const Settings *request,
                              char **ret_name, GuestsProgressFunc progress, gpointer data, GError **error)
{
    g_autofree char *name = random_name();
    g_autoptr(Image) image = NULL;
    g_autoptr(Guest) guest = guest_prepare(guests, caller, name, template_name, request, &image, error);
    g_autoptr(GError) ignored = NULL;

    if (!guest)
        return FALSE;
    guest->real->ephemeral = TRUE;
    if (!guest_take_name(guests, caller, guest, error))
        return FALSE;

    gboolean good = image_store_create_guest(guests->store, guest->real->uuid, image, guest->real->spec->disk_bytes, error) &&
                    step_reached("run.disk", error) && guest_bring_up(guests, caller, guest, progress, data, error) &&
                    step_reached("run.domain", error);

    if (!good) {
        guest_forget(guests, guest);
        if (!image_store_destroy_guest(guests->store, guest->real->uuid, &ignored))
            g_warning("guest '%s': its disk stays behind: %s", name, ignored->message);
        guests_remove_socket_folder(guest->real->socket_folder);
        return FALSE;
    }
    guest_publish(guests, guest);
    progress("booting", data);
    if (!guest_wait_for_agent(guests, guest, error)) {
        guests_destroy(guests, caller, name, NULL);
        return FALSE;
    }
    *ret_name = g_steal_pointer(&name);
    return TRUE;
}
