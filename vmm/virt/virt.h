/*
 * virt.h: the connection to libvirt.
 *
 * Input: a URI. Output: a connection that comes back by itself, events, errors in our terms.
 * A Virt keeps one virConnectPtr. When libvirtd goes away it is closed, `on_state` is told, and it is tried again every
 * second; calls in between fail at once with LIBVIRT "no connection to libvirt (URI)".
 * Threads: virt_register_event_loop() once, in main() before any virt_new(), on the default GMainContext. Everything
 * else from any thread; callbacks come in the main loop.
 */
#pragma once

#include <glib.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(virDomain, virDomainFree)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virConnect, virConnectClose)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virNetwork, virNetworkFree)

typedef struct Virt Virt;

typedef struct {
    /* Connected (after the first time, and after each reconnection), or lost. */
    void (*on_state)(gboolean connected, gpointer data);
    /* A virDomainEventType of one domain, with its event-specific detail. */
    void (*on_lifecycle)(const char *uuid, const char *name, int event, int detail, gpointer data);
} VirtListener;

/* Installs libvirt-glib's event loop, silences libvirt's printing of errors to stderr, and has SIGPIPE ignored. */
void virt_register_event_loop(void);

/* Starts connecting; never fails: the state says. `listener` is copied, its functions may be NULL. */
Virt *virt_new(const char *uri, const VirtListener *listener, gpointer data);

/* In the main loop's thread; no callback comes afterwards. Waits at most 2 s for libvirt. */
void virt_free(Virt *virt);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Virt, virt_free)

/* A referenced connection (caller virConnectClose()s: g_autoptr(virConnect)), or NULL with LIBVIRT. Waits up to
 * 2 s for a reconnection that is under way when called from a worker; at once in the main thread. */
virConnectPtr virt_get(Virt *virt, GError **error);

/* Turns libvirt's last error of this thread into ours: NOT_FOUND for VIR_ERR_NO_DOMAIN and _NETWORK, LIBVIRT otherwise, the
 * message prefixed with the printf-style text and ": ". Always returns FALSE. The arguments must not call libvirt: even
 * virDomainGetName() forgets the error. */
gboolean virt_error(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
