#include "guests_private.h"

#include "hvm_error.h"
#include "units.h"
#include "vm.h"

#include <string.h>

Guest *guest_new(RuntimeGuest *real)
{
    Guest *guest = g_new0(Guest, 1);

    g_atomic_ref_count_init(&guest->references);
    g_mutex_init(&guest->channel_lock);
    g_mutex_init(&guest->console_lock);
    guest->real = real;
    guest->life = g_cancellable_new();
    return guest;
}

Guest *guest_ref(Guest *guest)
{
    g_atomic_ref_count_inc(&guest->references);
    return guest;
}

void guest_unref(Guest *guest)
{
    if (!guest || !g_atomic_ref_count_dec(&guest->references))
        return;
    guest_drop_channel(guest);
    guest_drop_console(guest);
    g_mutex_clear(&guest->channel_lock);
    g_mutex_clear(&guest->console_lock);
    g_object_unref(guest->life);
    runtime_guest_free(guest->real);
    g_free(guest);
}

static gboolean set_no_libvirt(Guests *guests, GError **error)
{
    g_set_error(error, HVM_ERROR, HVM_ERROR_LIBVIRT, "no connection to libvirt at %s: is libvirtd running?", guests->config->libvirt_uri);
    return FALSE;
}

gboolean guests_check_known(Guests *guests, GError **error)
{
    g_mutex_lock(&guests->lock);
    gboolean known = guests->known;

    g_mutex_unlock(&guests->lock);
    return known || set_no_libvirt(guests, error);
}

void guest_prefix_error(GError **error, const char *name)
{
    g_autofree char *prefix = g_strdup_printf("guest '%s': ", name);

    if (error && *error && !g_str_has_prefix((*error)->message, prefix))
        g_prefix_error_literal(error, prefix);
}

void guests_set_listener(Guests *guests, GuestsEventFunc on_event, gpointer data)
{
    guests->on_event = on_event;
    guests->event_data = data;
}

void guest_emit(Guests *guests, const Guest *guest, const char *event)
{
    if (guests->on_event)
        guests->on_event(event, guest->real->spec->name, guest->real->uuid, guest->real->owner_uid, guests->event_data);
}

gboolean guests_busy(Guests *guests)
{
    GHashTableIter iter;
    Guest *guest = NULL;
    gboolean busy = g_atomic_int_get(&guests->workers) > 0;

    g_mutex_lock(&guests->lock);
    g_hash_table_iter_init(&iter, guests->table);
    while (!busy && g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        busy = guest->operation || (guest->state != GUEST_OFF && guest->state != GUEST_CRASHED);
    g_mutex_unlock(&guests->lock);
    return busy;
}

void guest_end_life(Guests *guests, Guest *guest)
{
    ledger_release(guests->ledger, guest->real->uuid);
    g_clear_pointer(&guest->real->placement, placement_free);
    g_cancellable_cancel(guest->life);
}

void guest_set_state(Guests *guests, Guest *guest, GuestState state)
{
    gboolean down = state == GUEST_OFF || state == GUEST_CRASHED;

    g_mutex_lock(&guests->lock);
    gboolean changed = guest->told != state;
    gboolean goes_on = guest->state == GUEST_PAUSED && state == GUEST_RUNNING;

    guest->state = guest->told = state;
    if (goes_on && !guests->leaving && g_cancellable_is_cancelled(guest->life)) {
        g_object_unref(guest->life);
        guest->life = g_cancellable_new();
    }
    if (down)
        guest_end_life(guests, guest);
    g_cond_broadcast(&guests->changed);
    g_mutex_unlock(&guests->lock);
    if (down)
        guest_drop_channel(guest);
    if (changed)
        guest_emit(guests, guest, guest_state_name(state));
}

gboolean guest_refresh_state(Guests *guests, Guest *guest, GError **error)
{
    GuestState state = GUEST_OFF;

    if (!guests->runtime->state(guests->runtime, guest->real->uuid, &state, error))
        return FALSE;
    guest_set_state(guests, guest, state);
    if (state == GUEST_PAUSED && !guests->runtime->check_disk(guests->runtime, guest->real, NULL)) {
        g_mutex_lock(&guests->lock);
        g_cancellable_cancel(guest->life);
        g_mutex_unlock(&guests->lock);
    }
    return TRUE;
}

gboolean guest_wait_off(Guests *guests, Guest *guest, gint64 deadline_us)
{
    gboolean off = FALSE;

    g_mutex_lock(&guests->lock);
    while (!(off = guest->state == GUEST_OFF || guest->state == GUEST_CRASHED) && !guests->leaving && !guest->hurried)
        if (!g_cond_wait_until(&guests->changed, &guests->lock, deadline_us))
            break;
    g_mutex_unlock(&guests->lock);
    return off;
}

void guests_leave_all(Guests *guests)
{
    GHashTableIter iter;
    Guest *guest = NULL;

    g_mutex_lock(&guests->lock);
    guests->leaving = TRUE;
    g_hash_table_iter_init(&iter, guests->table);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&guest))
        g_cancellable_cancel(guest->life); /* who waits for its agent waits on this */
    g_cond_broadcast(&guests->changed);
    g_mutex_unlock(&guests->lock);
}

gboolean guests_check_stays(Guests *guests, GError **error)
{
    g_mutex_lock(&guests->lock);
    gboolean leaving = guests->leaving;
    g_mutex_unlock(&guests->lock);
    if (leaving)
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "hvmd is about to end");
    return !leaving;
}

gboolean guests_fill_paths(Guests *guests, RuntimeGuest *real, GError **error)
{
    g_autofree char *folder = image_store_guest_folder(guests->store, real->uuid, error);

    if (!folder)
        return FALSE;
    real->disk_path = image_store_disk(guests->store, real->uuid, FALSE);
    real->log_path = g_build_filename(folder, "console.log", NULL);
    real->socket_folder = g_build_filename(guests->config->runtime_folder, "guests", real->uuid, NULL);
    real->qemu_uid = guests->config->qemu_uid;
    real->qemu_gid = guests->config->qemu_gid;
    real->direct_io = guests->direct_io;
    real->no_arch_capabilities = guests->accel.no_arch_capabilities;
    real->amd = guests->amd;
    if (real->spec->network == NETWORK_NAT)
        real->network = nat_network_name(real->owner_uid);
    return TRUE;
}

Host *guests_snapshot(Guests *guests, GError **error)
{
    g_mutex_lock(&guests->lock);
    g_autoptr(Host) old = host_ref(guests->host);
    g_mutex_unlock(&guests->lock);

    Host *fresh = host_refresh(old, error);

    if (!fresh)
        return NULL;
    g_mutex_lock(&guests->lock);
    host_unref(guests->host);
    guests->host = host_ref(fresh);
    guests->host_us = g_get_monotonic_time();
    g_mutex_unlock(&guests->lock);
    return fresh;
}

Host *guests_recent(Guests *guests)
{
    g_mutex_lock(&guests->lock);
    gboolean recent = guests->host_us && g_get_monotonic_time() - guests->host_us < G_TIME_SPAN_SECOND;
    Host *host = recent ? host_ref(guests->host) : NULL;

    g_mutex_unlock(&guests->lock);
    return host;
}

typedef struct {
    Guests *guests;
    GuestsWork func;
    gpointer data;
} Work;

static gpointer work_thread(gpointer pointer)
{
    g_autofree Work *work = pointer;

    work->func(work->guests, work->data);
    g_atomic_int_add(&work->guests->workers, -1);
    return NULL;
}

void guests_run(Guests *guests, GuestsWork func, gpointer data)
{
    Work *work = g_new(Work, 1);

    *work = (Work){guests, func, data};
    g_atomic_int_inc(&guests->workers);
    g_thread_unref(g_thread_new("hvm-work", work_thread, work));
}

gboolean guests_ready(Guests *guests)
{
    g_mutex_lock(&guests->lock);
    gboolean ready = guests->ready;
    g_mutex_unlock(&guests->lock);
    return ready;
}

gboolean guests_wait_ready(Guests *guests, unsigned timeout_ms, GError **error)
{
    gint64 deadline = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    gboolean ready = FALSE;

    g_mutex_lock(&guests->lock);
    while (!(ready = guests->ready))
        if (!g_cond_wait_until(&guests->changed, &guests->lock, deadline))
            break;
    g_mutex_unlock(&guests->lock);
    return ready || set_no_libvirt(guests, error);
}

void guests_when_known(Guests *guests, GSourceOnceFunc on_known, gpointer data)
{
    guests->on_known = on_known;
    guests->known_data = data;
}

Guests *guests_new(const GuestsConfig *config, GError **error)
{
    static const VirtListener listener = {.on_state = guests_on_state, .on_lifecycle = guests_on_lifecycle};
    g_autofree char *sockets = g_build_filename(config->runtime_folder, "guests", NULL);
    g_autoptr(Guests) guests = g_new0(Guests, 1);

    g_mutex_init(&guests->lock);
    g_mutex_init(&guests->read_back_lock);
    g_cond_init(&guests->changed);
    guests->config = config;
    guests->table = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)guest_unref);
    guests->ledger = ledger_new();
    guests->policy.housekeeping = config->housekeeping;
    if (!(guests->store = image_store_open(config->store_path, config->qemu_uid, config->qemu_gid, error)) ||
        !(guests->host = host_new_live(error)) || !(guests->nat = nat_new(config->nat_pool, config->store_path, error)))
        return NULL;
    if (g_mkdir_with_parents(sockets, 0711) < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot make folder %s: %s", sockets, g_strerror(errno));
        return NULL;
    }
    guests->amd = g_strcmp0(guests->host->cpu_vendor, "AuthenticAMD") == 0;
    guests->policy.disk_nodes = host_disk_nodes(config->store_path);
    guests->direct_io = image_store_probe_direct_io(config->store_path);
    accel_probe(&guests->accel);
    guests->virt = virt_new(config->libvirt_uri, &listener, guests);
    guests->runtime = vm_runtime_new(guests->virt);
    return g_steal_pointer(&guests);
}

void guests_free(Guests *guests)
{
    if (!guests)
        return;
    while (g_atomic_int_get(&guests->workers) > 0) {
        g_main_context_iteration(NULL, FALSE);
        g_usleep(1000);
    }
    g_clear_pointer(&guests->table, g_hash_table_unref);
    g_clear_pointer(&guests->runtime, runtime_free);
    g_clear_pointer(&guests->virt, virt_free);
    g_clear_pointer(&guests->nat, nat_free);
    g_clear_pointer(&guests->host, host_unref);
    g_clear_pointer(&guests->ledger, ledger_free);
    g_clear_pointer(&guests->store, image_store_free);
    g_clear_pointer(&guests->policy.disk_nodes, hwloc_bitmap_free);
    g_mutex_clear(&guests->lock);
    g_mutex_clear(&guests->read_back_lock);
    g_cond_clear(&guests->changed);
    g_free(guests);
}

ImageStore *guests_store(Guests *guests)
{
    return guests->store;
}
