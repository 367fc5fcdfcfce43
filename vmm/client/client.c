#include "client.h"

#include "hvm_error.h"
#include "io_hvm1.h"

#include <gio/gunixsocketaddress.h>
#include <string.h>
#include <sys/un.h>

enum { GREETING_TIMEOUT_S = 30, CONNECT_TIMEOUT_S = 10, CONNECT_PAUSE_US = 20000 };

#define OBJECT "/io/hvm1"
#define INTERFACE "io.hvm1"

struct Client {
    GMainContext *context;
    GDBusConnection *connection;
    GCancellable *closing;    /* so that what is under way at client_free() calls nobody back */
    guint progress_subscription;
    const ClientWatch *watch; /* of the call under way, or NULL */
    guint32 job;              /* which it waits for; 0 until hvmd has told */
    guint signal_subscription; /* of client_watch_signal(), or 0 */
    ClientSignalFunc on_signal;
    gpointer signal_data;
};

/* A call under way. */
typedef struct {
    GVariant *reply;
    GUnixFDList *fds;
    GError *error;
    gboolean done;
} Call;

typedef struct {
    ClientReplyFunc func;
    gpointer data;
} Begun;

const char *client_default_socket(void)
{
    const char *path = g_getenv("HVM_SOCKET");

    return path && *path ? path : CLIENT_SOCKET;
}

static void on_job_progress(GDBusConnection *connection G_GNUC_UNUSED, const char *sender G_GNUC_UNUSED,
                            const char *object G_GNUC_UNUSED, const char *interface G_GNUC_UNUSED,
                            const char *signal G_GNUC_UNUSED, GVariant *parameters, gpointer data)
{
    Client *client = data;
    g_autoptr(GVariant) progress = NULL;
    const char *text = "";
    double fraction = -1;
    guint32 job = 0;

    if (!client->watch || !client->watch->on_progress || !g_variant_is_of_type(parameters, G_VARIANT_TYPE("(a{sv})")))
        return;
    progress = g_variant_get_child_value(parameters, 0);
    g_variant_lookup(progress, "job", "u", &job);
    g_variant_lookup(progress, "text", "&s", &text);
    g_variant_lookup(progress, "fraction", "d", &fraction);
    /* A job's first words may come before the reply that tells its number; there is one job at a time here. */
    if (client->job == 0 || client->job == job)
        client->watch->on_progress(text, fraction, client->watch->data);
}

static void set_connect_error(const char *path, const GError *cause, GError **error)
{
    if (g_error_matches(cause, G_IO_ERROR, G_IO_ERROR_NOT_FOUND) ||
        g_error_matches(cause, G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED))
        g_set_error(
            error, HVM_ERROR, HVM_ERROR_HOST,
            "hvmd is not running: nothing listens on %s (start it with `systemctl start hvmd` or `./setup start`)",
            path);
    else if (g_error_matches(cause, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED))
        g_set_error(error, HVM_ERROR, HVM_ERROR_DENIED, "cannot connect to hvmd on %s: permission denied", path);
    else
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot connect to hvmd on %s: %s", path, cause->message);
}

static GSocketConnection *connect_socket(const char *path, GError **error)
{
    g_autoptr(GSocketClient) socket_client = g_socket_client_new();
    g_autoptr(GSocketAddress) address = NULL;
    g_autoptr(GError) local = NULL;

    if (strlen(path) >= sizeof ((struct sockaddr_un *)0)->sun_path) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "socket %s: wanted a path of at most %zu bytes, found %zu",
                    path, sizeof((struct sockaddr_un *)0)->sun_path - 1, strlen(path));
        return NULL;
    }
    address = g_unix_socket_address_new(path);

    gint64 deadline_us = g_get_monotonic_time() + CONNECT_TIMEOUT_S * G_TIME_SPAN_SECOND;
    GSocketConnection *stream = NULL;

    /* GIO connects without blocking, which a Unix socket with many who wait to be accepted refuses (EAGAIN): hvmd is busy. */
    while (!(stream = g_socket_client_connect(socket_client, G_SOCKET_CONNECTABLE(address), NULL, &local)) &&
           g_error_matches(local, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK) && g_get_monotonic_time() < deadline_us) {
        g_clear_error(&local);
        g_usleep(CONNECT_PAUSE_US);
    }
    if (!stream)
        set_connect_error(path, local, error);
    return stream;
}

static gboolean only_external(GDBusAuthObserver *observer G_GNUC_UNUSED, const char *mechanism,
                              gpointer data G_GNUC_UNUSED)
{
    return strcmp(mechanism, "EXTERNAL") == 0;
}

typedef struct {
    GDBusConnection *connection;
    GError *error;
    gboolean done;
} Greeting;

static void on_greeted(GObject *source G_GNUC_UNUSED, GAsyncResult *result, gpointer data)
{
    Greeting *greeting = data;

    greeting->connection = g_dbus_connection_new_finish(result, &greeting->error);
    greeting->done = TRUE;
}

static gboolean on_greeting_late(gpointer data)
{
    g_cancellable_cancel(data);
    return G_SOURCE_REMOVE;
}

/* The handshake of D-Bus, with a time limit: whatever listens there may be stuck. */
static GDBusConnection *greet(GSocketConnection *stream, GMainContext *context, const char *path, GError **error)
{
    g_autoptr(GDBusAuthObserver) observer = g_dbus_auth_observer_new();
    g_autoptr(GCancellable) cancellable = g_cancellable_new();
    g_autoptr(GSource) timer = g_timeout_source_new_seconds(GREETING_TIMEOUT_S);
    g_autoptr(GError) local = NULL;
    Greeting greeting = {0};

    g_signal_connect(observer, "allow-mechanism", G_CALLBACK(only_external), NULL);
    g_source_set_callback(timer, on_greeting_late, cancellable, NULL);
    g_source_attach(timer, context);
    g_dbus_connection_new(G_IO_STREAM(stream), NULL, G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT, observer,
                          cancellable, on_greeted, &greeting);
    while (!greeting.done)
        g_main_context_iteration(context, TRUE);
    g_source_destroy(timer);
    local = greeting.error;
    if (g_error_matches(local, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        g_set_error(error, HVM_ERROR, HVM_ERROR_TIMEOUT, "hvmd did not greet on %s within %d s", path,
                    GREETING_TIMEOUT_S);
    else if (local)
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "hvmd did not accept the connection on %s: %s", path,
                    local->message);
    return greeting.connection;
}

Client *client_open(const char *socket_path, GError **error)
{
    g_autoptr(GSocketConnection) stream = connect_socket(socket_path, error);
    GDBusConnection *connection = NULL;

    if (!stream)
        return NULL;
    hvm_error_quark(); /* registers our errors with GDBus */

    g_autoptr(GMainContext) context = g_main_context_ref_thread_default();

    connection = greet(stream, context, socket_path, error);
    if (!connection)
        return NULL;

    Client *client = g_new0(Client, 1);

    client->context = g_steal_pointer(&context);
    client->connection = connection;
    client->closing = g_cancellable_new();
    client->progress_subscription =
        g_dbus_connection_signal_subscribe(connection, NULL, INTERFACE, "JobProgress", OBJECT, NULL,
                                           G_DBUS_SIGNAL_FLAGS_NONE, on_job_progress, client, NULL);
    return client;
}

void client_free(Client *client)
{
    if (!client)
        return;
    g_cancellable_cancel(client->closing);
    g_dbus_connection_signal_unsubscribe(client->connection, client->progress_subscription);
    if (client->signal_subscription)
        g_dbus_connection_signal_unsubscribe(client->connection, client->signal_subscription);
    g_signal_handlers_disconnect_by_data(client->connection, client);
    g_dbus_connection_close_sync(client->connection, NULL, NULL);
    g_object_unref(client->connection);
    g_object_unref(client->closing);
    g_main_context_unref(client->context);
    g_free(client);
}

/* Turns what GDBus says into our terms; hvmd's own errors stay, freed of D-Bus's prefix. Consumes `cause`. */
static void take_error(GError **error, GError *cause, const char *method)
{
    gboolean remote = g_dbus_error_is_remote_error(cause);

    g_dbus_error_strip_remote_error(cause);
    if (g_error_matches(cause, G_IO_ERROR, G_IO_ERROR_CLOSED) ||
        g_error_matches(cause, G_DBUS_ERROR, G_DBUS_ERROR_NO_REPLY) ||
        g_error_matches(cause, G_IO_ERROR, G_IO_ERROR_BROKEN_PIPE) ||
        (!remote && g_error_matches(cause, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED))) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST,
                    "the connection to hvmd was lost before it answered %s (did hvmd stop?)", method);
    } else if (g_error_matches(cause, G_DBUS_ERROR, G_DBUS_ERROR_ACCESS_DENIED)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_DENIED, "hvmd refused %s: %s", method, cause->message);
    } else if (g_error_matches(cause, G_DBUS_ERROR, G_DBUS_ERROR_UNKNOWN_METHOD)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST,
                    "hvmd does not know %s: hvm " HVM_VERSION " and hvmd do not fit together", method);
    } else if (cause->domain == G_DBUS_ERROR ||
               (!remote && g_error_matches(cause, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT))) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INTERNAL, "hvmd answered %s wrongly: %s", method, cause->message);
    } else {
        g_propagate_error(error, cause);
        return;
    }
    g_error_free(cause);
}

static GVariant *make_parameters(GVariant *request)
{
    if (!request)
        request = g_variant_new("a{sv}", NULL);
    return g_variant_new("(@a{sv})", request);
}

static void on_answer(GObject *source, GAsyncResult *result, gpointer data)
{
    Call *call = data;
    g_autoptr(GVariant) tuple =
        g_dbus_connection_call_with_unix_fd_list_finish(G_DBUS_CONNECTION(source), &call->fds, result, &call->error);

    if (tuple)
        call->reply = g_variant_get_child_value(tuple, 0);
    call->done = TRUE;
}

static void begin(Client *client, const char *method, GVariant *request, Call *call)
{
    g_dbus_connection_call_with_unix_fd_list(client->connection, NULL, OBJECT, INTERFACE, method,
                                             make_parameters(request), G_VARIANT_TYPE("(a{sv})"),
                                             G_DBUS_CALL_FLAGS_NONE, G_MAXINT, NULL, NULL, on_answer, call);
}

/* Cancels the job under way; called in any thread that cancels, so it only marks. */
static void on_cancelled(GCancellable *cancellable G_GNUC_UNUSED, gpointer data)
{
    g_main_context_wakeup(data);
}

/* Waits for `call`. If the caller cancels meanwhile and a job is known, asks for its end once, and waits on. */
static void wait_for(Client *client, Call *call)
{
    GCancellable *cancellable = client->watch ? client->watch->cancellable : NULL;
    gulong handler =
        cancellable ? g_cancellable_connect(cancellable, G_CALLBACK(on_cancelled), client->context, NULL) : 0;
    gboolean asked = FALSE;

    while (!call->done) {
        if (cancellable && client->job && !asked && g_cancellable_is_cancelled(cancellable)) {
            GVariantDict request;

            g_variant_dict_init(&request, NULL);
            g_variant_dict_insert(&request, "job", "u", client->job);
            client_send(client, "CancelJob", g_variant_dict_end(&request));
            asked = TRUE;
        }
        g_main_context_iteration(client->context, TRUE);
    }
    if (handler)
        g_cancellable_disconnect(cancellable, handler);
}

/* One call to its answer, job or not. */
static gboolean call_once(Client *client, const char *method, GVariant *request, GVariant **ret_reply,
                          GUnixFDList **ret_fds, GError **error)
{
    Call call = {0};

    begin(client, method, request, &call);
    wait_for(client, &call);
    if (!call.reply) {
        take_error(error, call.error, method);
        return FALSE;
    }
    *ret_reply = call.reply;
    if (ret_fds)
        *ret_fds = call.fds ? call.fds : g_unix_fd_list_new();
    else
        g_clear_object(&call.fds);
    return TRUE;
}

static gboolean is_job(const char *method)
{
    GDBusMethodInfo *info = g_dbus_interface_info_lookup_method((GDBusInterfaceInfo *)&io_hvm1_interface, method);

    return info && g_dbus_annotation_info_lookup(info->annotations, "io.hvm1.Job") != NULL;
}

static gboolean wait_job(Client *client, const char *method, GVariant *started, GVariant **ret_reply, GError **error)
{
    GVariantDict request;
    gboolean good = FALSE;

    if (!g_variant_lookup(started, "job", "u", &client->job) || client->job == 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INTERNAL, "hvmd answered %s wrongly: wanted the number of a job",
                    method);
        return FALSE;
    }
    g_variant_dict_init(&request, NULL);
    g_variant_dict_insert(&request, "job", "u", client->job);
    good = call_once(client, "WaitJob", g_variant_dict_end(&request), ret_reply, NULL, error);
    client->job = 0;
    return good;
}

gboolean client_call(Client *client, const char *method, GVariant *request, const ClientWatch *watch,
                     GVariant **ret_reply, GError **error)
{
    g_autoptr(GVariant) reply = NULL;
    gboolean good = FALSE;

    client->watch = watch;
    good = call_once(client, method, request, &reply, NULL, error);
    if (good && is_job(method)) {
        g_autoptr(GVariant) started = g_steal_pointer(&reply);

        good = wait_job(client, method, started, &reply, error);
    }
    client->watch = NULL;
    if (good && ret_reply)
        *ret_reply = g_steal_pointer(&reply);
    return good;
}

gboolean client_call_fds(Client *client, const char *method, GVariant *request, GVariant **ret_reply,
                         GUnixFDList **ret_fds, GError **error)
{
    return call_once(client, method, request, ret_reply, ret_fds, error);
}

static void on_begun(GObject *source, GAsyncResult *result, gpointer data)
{
    g_autofree Begun *begun = data;
    g_autoptr(GError) cause = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GVariant) tuple = g_dbus_connection_call_finish(G_DBUS_CONNECTION(source), result, &cause);

    if (tuple)
        reply = g_variant_get_child_value(tuple, 0);
    else if (g_error_matches(cause, G_IO_ERROR, G_IO_ERROR_CANCELLED) && !g_dbus_error_is_remote_error(cause))
        return; /* the client is gone */
    else
        take_error(&error, g_steal_pointer(&cause), "the call");
    begun->func(reply, error, begun->data);
}

void client_begin(Client *client, const char *method, GVariant *request, ClientReplyFunc func, gpointer data)
{
    Begun *begun = g_new0(Begun, 1);

    begun->func = func;
    begun->data = data;
    g_dbus_connection_call(client->connection, NULL, OBJECT, INTERFACE, method, make_parameters(request),
                           G_VARIANT_TYPE("(a{sv})"), G_DBUS_CALL_FLAGS_NONE, G_MAXINT, client->closing, on_begun,
                           begun);
}

void client_send(Client *client, const char *method, GVariant *request)
{
    g_dbus_connection_call(client->connection, NULL, OBJECT, INTERFACE, method, make_parameters(request), NULL,
                           G_DBUS_CALL_FLAGS_NONE, G_MAXINT, NULL, NULL, NULL);
}

static void on_signal(GDBusConnection *connection G_GNUC_UNUSED, const char *sender G_GNUC_UNUSED,
                      const char *object G_GNUC_UNUSED, const char *interface G_GNUC_UNUSED, const char *signal G_GNUC_UNUSED,
                      GVariant *parameters, gpointer data)
{
    Client *client = data;
    g_autoptr(GVariant) arguments = NULL;

    if (!g_variant_is_of_type(parameters, G_VARIANT_TYPE("(a{sv})")))
        return;
    arguments = g_variant_get_child_value(parameters, 0);
    client->on_signal(arguments, NULL, client->signal_data);
}

static void on_closed(GDBusConnection *connection G_GNUC_UNUSED, gboolean remote G_GNUC_UNUSED, GError *cause G_GNUC_UNUSED,
                      gpointer data)
{
    Client *client = data;
    g_autoptr(GError) error =
        g_error_new_literal(HVM_ERROR, HVM_ERROR_HOST, "the connection to hvmd ended (did hvmd stop?)");

    client->on_signal(NULL, error, client->signal_data);
}

void client_watch_signal(Client *client, const char *signal, ClientSignalFunc func, gpointer data)
{
    client->on_signal = func;
    client->signal_data = data;
    client->signal_subscription = g_dbus_connection_signal_subscribe(client->connection, NULL, INTERFACE, signal, OBJECT, NULL,
                                                                     G_DBUS_SIGNAL_FLAGS_NONE, on_signal, client, NULL);
    g_signal_connect(client->connection, "closed", G_CALLBACK(on_closed), client);
}

int client_take_fd(GVariant *reply, GUnixFDList *fds, const char *key, GError **error)
{
    g_autoptr(GVariant) handle = g_variant_lookup_value(reply, key, G_VARIANT_TYPE_HANDLE);
    g_autoptr(GError) local = NULL;
    gint32 index = handle ? g_variant_get_handle(handle) : -1;
    int fd = -1;

    if (index >= 0 && index < g_unix_fd_list_get_length(fds))
        fd = g_unix_fd_list_get(fds, index, &local);
    if (fd < 0)
        g_set_error(error, HVM_ERROR, HVM_ERROR_INTERNAL, "hvmd sent no descriptor for %s%s%s", key, local ? ": " : "",
                    local ? local->message : "");
    return fd;
}
