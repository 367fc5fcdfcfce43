#include "virt.h"

#include "hvm_error.h"

#include <libvirt-glib/libvirt-glib.h>
#include <signal.h>
#include <string.h>

enum {
    RETRY_MS = 1000,
    WAIT_US = 2 * G_USEC_PER_SEC,
    /* A libvirtd that says nothing for 5 * 5 s counts as gone. Its socket closing is noticed at once. */
    KEEPALIVE_SECONDS = 5,
    KEEPALIVE_COUNT = 5,
};

/* One connection, from virConnectOpen() to virConnectClose(). Counted: libvirt's callbacks and sources in the main
 * loop each hold it. */
typedef struct {
    Virt *virt;
    virConnectPtr connect;
    int lifecycle_id;
    gboolean watches_close;
    gboolean closed; /* by the other side; under virt->lock */
} Session;

/* Counted: each Session holds it, and the owner until virt_free(). */
struct Virt {
    char *uri;
    VirtListener listener;
    gpointer data;
    /* The main loop's thread only. */
    guint retry_source;
    gboolean freed;
    /* `lock` guards the rest. No libvirt call is made under it, except virConnectRef(). */
    GMutex lock;
    GCond changed;
    Session *session; /* connected and announced, or NULL */
    char *reason;     /* why the last attempt failed, or NULL */
    unsigned workers;
};

static GThread *main_thread;

static void ignore_error(void *data, virErrorPtr error)
{
    (void)data;
    (void)error;
}

void virt_register_event_loop(void)
{
    main_thread = g_thread_self();
    gvir_event_register();
    virSetErrorFunc(NULL, ignore_error);
    /* A call on a connection whose libvirtd has gone writes into a closed socket. */
    signal(SIGPIPE, SIG_IGN);
}

static void virt_clear(gpointer data)
{
    Virt *virt = data;

    g_free(virt->uri);
    g_free(virt->reason);
    g_mutex_clear(&virt->lock);
    g_cond_clear(&virt->changed);
}

static void session_clear(gpointer data)
{
    Session *session = data;

    g_atomic_rc_box_release_full(session->virt, virt_clear);
}

static Session *session_ref(Session *session)
{
    return g_atomic_rc_box_acquire(session);
}

static void session_unref(gpointer data)
{
    g_atomic_rc_box_release_full(data, session_clear);
}

/* Runs `func` in the main loop; the source holds the session. */
static void in_main_loop(Session *session, GSourceFunc func)
{
    g_idle_add_full(G_PRIORITY_DEFAULT, func, session_ref(session), session_unref);
}

/* Runs `func` in a thread of its own, which holds the session. Not in GTask's pool: an open or a close may hang for as long
 * as libvirtd does, and would keep a place of the pool. */
static void in_thread(Session *session, GThreadFunc func)
{
    g_mutex_lock(&session->virt->lock);
    session->virt->workers++;
    g_mutex_unlock(&session->virt->lock);
    g_thread_unref(g_thread_new("hvm-virt", func, session_ref(session)));
}

static void thread_ends(Session *session)
{
    Virt *virt = session->virt;

    g_mutex_lock(&virt->lock);
    virt->workers--;
    g_cond_broadcast(&virt->changed);
    g_mutex_unlock(&virt->lock);
    session_unref(session);
}

static void on_close(virConnectPtr connect, int why, void *data);

/* libvirt's registrations hold the connection, so each is taken back before the close. On a lost connection the calls fail on
 * the wire, but still free what is on this side. */
static gpointer close_session(gpointer data)
{
    Session *session = data;

    if (session->lifecycle_id >= 0)
        virConnectDomainEventDeregisterAny(session->connect, session->lifecycle_id);
    if (session->watches_close)
        virConnectUnregisterCloseCallback(session->connect, on_close);
    virConnectClose(session->connect);
    thread_ends(session);
    return NULL;
}

static void start_attempt(Virt *virt);

static gboolean on_retry(gpointer data)
{
    Virt *virt = data;

    virt->retry_source = 0;
    start_attempt(virt);
    return G_SOURCE_REMOVE;
}

static void retry_later(Virt *virt)
{
    if (!virt->freed && !virt->retry_source)
        virt->retry_source = g_timeout_add(RETRY_MS, on_retry, virt);
}

static gboolean in_use(Session *session)
{
    return !session->virt->freed && session->virt->session == session;
}

static gboolean on_lost(gpointer data)
{
    Session *session = data;
    Virt *virt = session->virt;

    if (!in_use(session))
        return G_SOURCE_REMOVE;
    g_mutex_lock(&virt->lock);
    virt->session = NULL;
    g_mutex_unlock(&virt->lock);
    in_thread(session, close_session);
    retry_later(virt);
    if (virt->listener.on_state)
        virt->listener.on_state(FALSE, virt->data);
    session_unref(session);
    return G_SOURCE_REMOVE;
}

/* In whichever thread noticed it. */
static void on_close(virConnectPtr connect, int why, void *data)
{
    Session *session = data;

    (void)connect;
    (void)why;
    g_mutex_lock(&session->virt->lock);
    session->closed = TRUE;
    g_mutex_unlock(&session->virt->lock);
    in_main_loop(session, on_lost);
}

/* Events before on_state(TRUE) are dropped: who lists the domains from there on sees what they told. */
static int on_lifecycle(virConnectPtr connect, virDomainPtr domain, int event, int detail, void *data)
{
    Session *session = data;
    Virt *virt = session->virt;
    char uuid[VIR_UUID_STRING_BUFLEN] = "";

    (void)connect;
    if (in_use(session) && virt->listener.on_lifecycle && virDomainGetUUIDString(domain, uuid) == 0)
        virt->listener.on_lifecycle(uuid, virDomainGetName(domain), event, detail, virt->data);
    return 0;
}

static gboolean on_failed(gpointer data)
{
    Session *session = data;

    retry_later(session->virt);
    return G_SOURCE_REMOVE;
}

/* The attempt succeeded: `session`'s first reference becomes virt->session's. */
static gboolean on_opened(gpointer data)
{
    Session *session = data;
    Virt *virt = session->virt;

    g_mutex_lock(&virt->lock);
    gboolean good = !virt->freed && !session->closed;

    if (good) {
        virt->session = session_ref(session);
        g_clear_pointer(&virt->reason, g_free);
        g_cond_broadcast(&virt->changed);
    }
    g_mutex_unlock(&virt->lock);
    if (!good) {
        in_thread(session, close_session);
        retry_later(virt);
    } else if (virt->listener.on_state) {
        virt->listener.on_state(TRUE, virt->data);
    }
    return G_SOURCE_REMOVE;
}

static gboolean open_session(Session *session, GError **error)
{
    session->connect = virConnectOpen(session->virt->uri);
    if (!session->connect)
        return virt_error(error, "no connection to libvirt (%s)", session->virt->uri);

    /* Drivers that live in this process know neither of these two, and cannot be lost. The close callback needs no reference of its
     * own: close_session() has one while it takes it back. */
    virConnectSetKeepAlive(session->connect, KEEPALIVE_SECONDS, KEEPALIVE_COUNT);
    session->watches_close = virConnectRegisterCloseCallback(session->connect, on_close, session, NULL) == 0;

    session->lifecycle_id = virConnectDomainEventRegisterAny(session->connect, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                                             VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle), session_ref(session),
                                                             session_unref);
    if (session->lifecycle_id < 0) {
        session_unref(session);
        return virt_error(error, "no events from libvirt (%s)", session->virt->uri);
    }
    return TRUE;
}

static gpointer attempt(gpointer data)
{
    Session *session = data;
    Virt *virt = session->virt;
    g_autoptr(GError) error = NULL;

    if (open_session(session, &error)) {
        in_main_loop(session, on_opened);
        thread_ends(session);
        return NULL;
    }
    g_mutex_lock(&virt->lock);
    g_free(virt->reason);
    virt->reason = g_strdup(error->message);
    g_mutex_unlock(&virt->lock);
    in_main_loop(session, on_failed);
    if (session->connect)
        return close_session(session);
    thread_ends(session);
    return NULL;
}

static void start_attempt(Virt *virt)
{
    Session *session = g_atomic_rc_box_new0(Session);

    session->virt = g_atomic_rc_box_acquire(virt);
    session->lifecycle_id = -1;
    in_thread(session, attempt);
    session_unref(session);
}

Virt *virt_new(const char *uri, const VirtListener *listener, gpointer data)
{
    Virt *virt = g_atomic_rc_box_new0(Virt);

    virt->uri = g_strdup(uri);
    virt->listener = *listener;
    virt->data = data;
    g_mutex_init(&virt->lock);
    g_cond_init(&virt->changed);
    start_attempt(virt);
    return virt;
}

void virt_free(Virt *virt)
{
    if (!virt)
        return;

    gint64 deadline = g_get_monotonic_time() + WAIT_US;

    g_clear_handle_id(&virt->retry_source, g_source_remove);
    g_mutex_lock(&virt->lock);
    Session *session = g_steal_pointer(&virt->session);

    virt->freed = TRUE;
    g_mutex_unlock(&virt->lock);
    if (session) {
        in_thread(session, close_session);
        session_unref(session);
    }
    /* A libvirtd that hangs is not waited for: its thread holds what it needs. */
    g_mutex_lock(&virt->lock);
    while (virt->workers && g_cond_wait_until(&virt->changed, &virt->lock, deadline))
        ;
    g_mutex_unlock(&virt->lock);
    g_atomic_rc_box_release_full(virt, virt_clear);
}

/* The current connection with a reference, or NULL. Under virt->lock. */
static virConnectPtr take_connection(Virt *virt)
{
    if (!virt->session || virt->session->closed)
        return NULL;
    virConnectRef(virt->session->connect);
    return virt->session->connect;
}

virConnectPtr virt_get(Virt *virt, GError **error)
{
    gint64 deadline = g_get_monotonic_time() + (g_thread_self() == main_thread ? 0 : WAIT_US);
    virConnectPtr connect = NULL;

    g_mutex_lock(&virt->lock);
    while (!(connect = take_connection(virt)) && g_cond_wait_until(&virt->changed, &virt->lock, deadline))
        ;
    if (!connect && virt->reason)
        g_set_error_literal(error, HVM_ERROR, HVM_ERROR_LIBVIRT, virt->reason);
    else if (!connect)
        g_set_error(error, HVM_ERROR, HVM_ERROR_LIBVIRT, "no connection to libvirt (%s)", virt->uri);
    g_mutex_unlock(&virt->lock);
    return connect;
}

gboolean virt_error(GError **error, const char *format, ...)
{
    virErrorPtr last = virGetLastError();
    int code = last && (last->code == VIR_ERR_NO_DOMAIN || last->code == VIR_ERR_NO_NETWORK) ? HVM_ERROR_NOT_FOUND
                                                                                           : HVM_ERROR_LIBVIRT;
    /* QEMU's own words, which libvirt quotes, end in a newline and may have several lines. */
    g_auto(GStrv) lines = g_strsplit(last && last->message ? last->message : "no reason given", "\n", -1);
    g_autoptr(GString) reason = g_string_new(NULL);
    va_list arguments;

    for (char **line = lines; *line; line++) {
        g_autofree char *shown = hvm_escape(g_strstrip(*line), -1);

        if (*shown)
            g_string_append_printf(reason, "%s%s", reason->len ? "; " : "", shown);
    }
    va_start(arguments, format);
    g_autofree char *prefix = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error(error, HVM_ERROR, code, "%s: %s", prefix, reason->str);
    return FALSE;
}
