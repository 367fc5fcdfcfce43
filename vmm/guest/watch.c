/*
 * watch.c: libvirt tells that it is there or gone, and that something happened to a domain.
 *
 * An event is only a reason to look, because it may be late: at the one guest, or at everything (recover.c) where the state of one
 * does not explain it. Looking blocks, and is done in workers; the callbacks themselves come in the main thread.
 */
#include "guests_private.h"

#include <stdlib.h>
#include <string.h>

static void recover_work(Guests *guests, gpointer data G_GNUC_UNUSED)
{
    guests_recover(guests);
}

/* The first start of a domain after QEMU was installed or changed makes libvirt probe it, for seconds: it does so now instead. */
static void probe_work(Guests *guests, gpointer data G_GNUC_UNUSED)
{
    g_autoptr(virConnect) connect = virt_get(guests->virt, NULL);
    char *text = connect ? virConnectGetDomainCapabilities(connect, NULL, "x86_64", "q35", NULL, 0) : NULL;

    g_debug("libvirt knows QEMU: %s", text ? "yes" : "no");
    free(text);
}

void guests_on_state(gboolean connected, gpointer pointer)
{
    Guests *guests = pointer;

    if (connected) {
        g_message("connected to libvirt at %s", guests->config->libvirt_uri);
        guests_run(guests, recover_work, NULL);
        guests_run(guests, probe_work, NULL);
        return;
    }
    g_message("lost the connection to libvirt at %s", guests->config->libvirt_uri);
    g_mutex_lock(&guests->lock);
    guests->ready = FALSE;
    g_mutex_unlock(&guests->lock);
}

static void read_back_work(Guests *guests, gpointer data G_GNUC_UNUSED)
{
    g_autoptr(GPtrArray) all = NULL;

    g_mutex_lock(&guests->read_back_lock);
    g_mutex_lock(&guests->lock);
    guests->read_back_queued = FALSE; /* what is told from here on wants another listing */
    g_mutex_unlock(&guests->lock);
    all = guests_read_back(guests, NULL);
    g_mutex_unlock(&guests->read_back_lock);
}

/* Reads everything back in a worker, of which one at most waits. */
static void queue_read_back(Guests *guests)
{
    g_mutex_lock(&guests->lock);
    gboolean queue = !guests->read_back_queued;

    guests->read_back_queued = TRUE;
    g_mutex_unlock(&guests->lock);
    if (queue)
        guests_run(guests, read_back_work, NULL);
}

/* Whether a guest's state alone does not tell enough: it holds cores that nobody promised it, because somebody started it past hvmd; or
 * it is off, and may be undefined as well. */
static gboolean wants_listing(Guests *guests, const Guest *guest)
{
    g_mutex_lock(&guests->lock);
    gboolean down = guest->state == GUEST_OFF || guest->state == GUEST_CRASHED;
    gboolean wants = !guest->operation && !guest->gone && (down || !ledger_find(guests->ledger, guest->real->uuid));
    g_mutex_unlock(&guests->lock);
    return wants;
}

/* Looks how one guest is, after whoever works on it has ended. */
static void reconcile_work(Guests *guests, gpointer data)
{
    g_autofree char *name = data;
    const Caller root = {0};
    g_autoptr(GError) error = NULL;
    g_autoptr(Guest) guest = guests_find(guests, &root, name, NULL);

    if (!guest)
        return;
    g_mutex_lock(&guests->lock);
    guest->reconcile_queued = FALSE; /* what is told from here on wants another look */
    g_mutex_unlock(&guests->lock);

    Guest *held = guest_begin(guests, &root, name, "look", NULL);

    if (!held)
        return; /* gone, or in work for so long: who works on it looks at the end */
    if (!guest_refresh_state(guests, held, &error))
        g_debug("guest '%s': %s", name, error->message);
    guest_end(guests, held);
    if (wants_listing(guests, guest))
        queue_read_back(guests);
}

void guests_look_again(Guests *guests, const Guest *guest)
{
    guests_run(guests, reconcile_work, g_strdup(guest->real->spec->name));
}

void guests_on_lifecycle(const char *uuid, const char *name, int event, int detail G_GNUC_UNUSED, gpointer pointer)
{
    Guests *guests = pointer;
    gboolean ours = FALSE, queue = FALSE;
    gboolean down = event == VIR_DOMAIN_EVENT_STOPPED || event == VIR_DOMAIN_EVENT_CRASHED;

    g_mutex_lock(&guests->lock);
    /* Before everything was read back, which may be over but for the clearing, all that is told wants another listing. */
    Guest *guest = guests->ready ? g_hash_table_lookup(guests->table, name) : NULL;

    ours = guest && strcmp(guest->real->uuid, uuid) == 0;
    if (ours && guest->operation && down && strcmp(guest->operation, "stop") == 0) {
        /* guests_stop() waits for just this; the rest of what down means follows when it looks itself. */
        guest->state = GUEST_OFF;
        g_cond_broadcast(&guests->changed);
    } else if (ours && !guest->reconcile_queued && event != VIR_DOMAIN_EVENT_DEFINED && event != VIR_DOMAIN_EVENT_UNDEFINED) {
        queue = guest->reconcile_queued = TRUE;
    }
    g_mutex_unlock(&guests->lock);
    if (queue)
        guests_run(guests, reconcile_work, g_strdup(name));
    else if (!ours || event == VIR_DOMAIN_EVENT_UNDEFINED)
        queue_read_back(guests);
}
