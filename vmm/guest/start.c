/*
 * start.c: a guest is given cores and pages, and runs.
 *
 * The ledger's lock covers solve and reserve only. Each later step can be taken back; what a kill leaves is a
 * domain that is off or runs, and recovery reads which. Returning the promise is the last thing that a roll-back does, so
 * that nobody is given cores on which something still runs.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "step.h"
#include "verify.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LEAVING_WAIT_S = 20 };

typedef struct {
    Guests *guests;
    Guest *guest;
} Pair;

/* Only if it is off: where libvirt did not end it, or does not tell, its cores may not be free. The next listing says. */
static gboolean undo_reserve(gpointer data, GError **error)
{
    Pair *pair = data;

    return guest_refresh_state(pair->guests, pair->guest, error);
}

static gboolean undo_run(gpointer data, GError **error)
{
    Pair *pair = data;

    return pair->guests->runtime->kill(pair->guests->runtime, pair->guest->real, error);
}

/* KVM or TCG: what was asked for, or what the probe says. */
static gboolean choose_accelerator(Guests *guests, Guest *guest, GError **error)
{
    AccelWant want = guest->real->spec->accel;
    AccelState found = guests->accel.state;
    gboolean usable = found == ACCEL_KVM || found == ACCEL_KVM_SLOW;

    if (want == ACCEL_WANT_KVM && !usable) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "wanted KVM; %s", guests->accel.detail);
        return FALSE;
    }
    guest->real->kvm = want == ACCEL_WANT_KVM || (want == ACCEL_WANT_AUTO && found == ACCEL_KVM);
    return TRUE;
}

/* The image must still be whole: what QEMU would only tell as a boot that fails. */
static gboolean check_image(Guests *guests, Guest *guest, GError **error)
{
    RuntimeGuest *real = guest->real;
    g_autoptr(Image) image = image_store_find(guests->store, real->spec->template_name, real->revision, error);

    if (!image)
        return FALSE;
    if (!g_file_test(real->disk_path, G_FILE_TEST_IS_REGULAR)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "its disk %s is missing", real->disk_path);
        return FALSE;
    }
    return guest_set_image(real, image, error);
}

/* Solves on a fresh snapshot and writes the promise, in one go. */
static gboolean reserve(Guests *guests, const Caller *caller, Guest *guest, GError **error)
{
    RuntimeGuest *real = guest->real;
    g_autoptr(Host) fresh = guests_snapshot(guests, error);

    /* hvmd.conf, or the node, may have changed since it was created. */
    if (!fresh || !devices_check_right(fresh, real->spec, guests->config->devices, caller->uid, error))
        return FALSE;
    g_mutex_lock(&guests->lock);

    Placement *placement = placement_solve(fresh, real->spec, guests->ledger, &caller->allowed, &guests->policy, error);

    if (placement) {
        real->placement = placement;
        if (devices_check_iommu(fresh, placement, error) && limits_check_start(guests, guest, error)) {
            ledger_add(guests->ledger, placement_promise(placement, real->uuid, real->spec->name, real->owner_uid));
            guest->state = GUEST_STARTING;
            guest->told = GUEST_STARTING;
            g_object_unref(guest->life);
            guest->life = g_cancellable_new();
            if (guests->leaving)
                g_cancellable_cancel(guest->life);
        } else {
            g_clear_pointer(&real->placement, placement_free);
        }
    }
    g_mutex_unlock(&guests->lock);
    return real->placement != NULL;
}

/* Waits until something changes, if a guest is about to go whose owner has left it. */
static gboolean wait_for_leaving(Guests *guests, gint64 deadline_us)
{
    GHashTableIter iter;
    Guest *guest = NULL;
    gboolean some = FALSE;

    g_mutex_lock(&guests->lock);
    g_hash_table_iter_init(&iter, guests->table);
    while (!some && g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        some = guest->leaving;
    some = some && !guests->leaving && g_cond_wait_until(&guests->changed, &guests->lock, deadline_us);
    g_mutex_unlock(&guests->lock);
    return some;
}

/* One `run` after another needs no more room than one alone, though the first's guest takes a moment to go. */
static gboolean reserve_patiently(Guests *guests, const Caller *caller, Guest *guest, GError **error)
{
    gint64 deadline_us = g_get_monotonic_time() + LEAVING_WAIT_S * G_TIME_SPAN_SECOND;

    for (;;) {
        g_autoptr(GError) local = NULL;

        if (reserve(guests, caller, guest, &local))
            return TRUE;
        if ((!g_error_matches(local, HVM_ERROR, HVM_ERROR_NO_PLACEMENT) && !g_error_matches(local, HVM_ERROR, HVM_ERROR_DENIED)) ||
            !wait_for_leaving(guests, deadline_us)) {
            g_propagate_error(error, g_steal_pointer(&local));
            return FALSE;
        }
    }
}

/* The folder of its sockets, QEMU's user's own. Left in place when the guest stops: destroy removes it. */
static gboolean make_socket_folder(const RuntimeGuest *real, GError **error)
{
    if ((g_mkdir(real->socket_folder, 0700) < 0 && errno != EEXIST) ||
        lchown(real->socket_folder, real->qemu_uid, real->qemu_gid) < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot make folder %s: %s", real->socket_folder, g_strerror(errno));
        return FALSE;
    }
    return TRUE;
}

static gboolean attach_network(Guests *guests, Guest *guest, GuestsProgressFunc progress, gpointer data, GError **error)
{
    RuntimeGuest *real = guest->real;
    g_autoptr(virConnect) connect = NULL;
    char *mac = NULL, *address = NULL;

    if (real->spec->network != NETWORK_NAT)
        return TRUE;
    progress("joining its network", data);
    if (!(connect = virt_get(guests->virt, error)) ||
        !nat_attach(guests->nat, connect, real->owner_uid, real->spec->name, &mac, &address, error))
        return FALSE;
    g_mutex_lock(&guests->lock);
    g_free(real->mac);
    real->mac = mac;
    g_free(real->address);
    real->address = address;
    g_free(real->boot_address);
    real->boot_address = nat_describe_address(address);
    g_mutex_unlock(&guests->lock);
    return TRUE;
}

/* The cheap part of verify, at every start: a promise that the kernel does not keep is none. */
static gboolean check_threads(Guests *guests, Guest *guest, GError **error)
{
    g_autoptr(GPtrArray) findings = g_ptr_array_new_with_free_func((GDestroyNotify)finding_free);
    pid_t pid = 0;

    if (!guests->runtime->process(guests->runtime, guest->real, &pid, error))
        return FALSE;
    verify_threads(pid, guest->real->placement, findings);

    const Finding *difference = verify_first_difference(findings);

    if (difference)
        g_set_error(error, HVM_ERROR, HVM_ERROR_LIBVIRT, "%s: wanted %s, found %s", difference->what, difference->promised,
                    difference->found);
    return difference == NULL;
}

gboolean guest_wait_for_agent(Guests *guests, Guest *guest, unsigned timeout_s, GError **error)
{
    g_autoptr(ChannelBox) channel = guest_channel(guests, guest, timeout_s * 1000, error);

    if (channel)
        return TRUE;

    g_autofree char *line = guest_last_console_line(guest);
    g_autoptr(GError) cause = NULL;

    if (!guests->runtime->check_disk(guests->runtime, guest->real, &cause) && error &&
        g_error_matches(cause, HVM_ERROR, HVM_ERROR_STORAGE)) {
        g_clear_error(error);
        *error = g_steal_pointer(&cause);
    }
    if (error && *error && g_error_matches(*error, G_IO_ERROR, G_IO_ERROR_CANCELLED)) {
        g_clear_error(error);
        if (guests_check_stays(guests, error))
            g_set_error(error, HVM_ERROR, HVM_ERROR_AGENT, "it stopped before its agent answered");
    }
    if (line && error && *error) {
        char *whole = g_strdup_printf("%s; its console's last line: %s", (*error)->message, line);

        g_free((*error)->message);
        (*error)->message = whole;
    }
    return FALSE;
}

gboolean guest_bring_up(Guests *guests, const Caller *caller, Guest *guest, GuestsProgressFunc progress, gpointer data,
                        GError **error)
{
    Pair pair = {guests, guest};
    g_autoptr(Undo) undo = undo_new();

    if (!limits_check_allowed(caller, error) || !choose_accelerator(guests, guest, error) || !check_image(guests, guest, error))
        return FALSE;
    progress("finding cores and pages", data);
    if (!reserve_patiently(guests, caller, guest, error))
        return FALSE;
    undo_push(undo, "promise", undo_reserve, &pair, NULL);
    guest_emit(guests, guest, guest_state_name(GUEST_STARTING));
    if (!step_reached("start.reserve", error) || !make_socket_folder(guest->real, error) ||
        !step_reached("start.folder", error) || !attach_network(guests, guest, progress, data, error) || !step_reached("start.network", error))
        return FALSE;
    progress(guest->real->kvm ? "starting it on KVM" : "starting it on TCG (software emulation: slow)", data);
    undo_push(undo, "domain", undo_run, &pair, NULL);
    if (!guests->runtime->start(guests->runtime, guest->real, error) || !step_reached("start.domain", error))
        return FALSE;
    if (!check_threads(guests, guest, error) || !step_reached("start.verify", error))
        return FALSE;
    g_mutex_lock(&guests->lock);
    ledger_settle(guests->ledger, guest->real->uuid);
    g_mutex_unlock(&guests->lock);
    if (!step_reached("start.settle", error) || !guest_refresh_state(guests, guest, error))
        return FALSE;
    undo_commit(undo);
    return TRUE;
}

gboolean guests_start(Guests *guests, const Caller *caller, const char *name, GuestsProgressFunc progress, gpointer data,
                      GError **error)
{
    Guest *guest = guest_begin(guests, caller, name, "start", error);
    gboolean good = FALSE;

    if (!guest)
        return FALSE;
    if (!guest_refresh_state(guests, guest, error))
        good = FALSE;
    else if (guest->state != GUEST_OFF && guest->state != GUEST_CRASHED)
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "it is %s already", guest_state_name(guest->state));
    else
        good = guest_bring_up(guests, caller, guest, progress, data, error);

    g_autoptr(Guest) started = guest_ref(guest);

    guest_end(guests, guest);
    if (!good) {
        guests_look_again(guests, started);
        guest_prefix_error(error, name);
    }
    return good;
}

gboolean guests_wait_booted(Guests *guests, const Caller *caller, const char *name, GuestsProgressFunc progress, gpointer data,
                            GError **error)
{
    g_autoptr(Guest) guest = guests_find(guests, caller, name, error);

    if (!guest)
        return FALSE;
    progress("waiting for its agent", data);
    if (guest_wait_for_agent(guests, guest, guest->real->spec->boot_timeout_s, error))
        return TRUE;
    guests_look_again(guests, guest);
    guest_prefix_error(error, name);
    return FALSE;
}
