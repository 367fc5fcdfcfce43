/*
 * service.c: the interface io.hvm1 on one connection: authorise, check the request, dispatch, answer.
 */
#include "daemon_private.h"

#include "hvm_error.h"
#include "io_hvm1.h"

#include <string.h>
#include <unistd.h>

/* A client with more unanswered or unread calls than this is not reading: it is dropped before its queue grows. Root is not kept
 * out by what others do: WORKERS_MAX is theirs. */
enum { OUTSTANDING_MAX = 64, LOGS_WEIGHT = 16 /* up to 1 MiB each */, WORKERS_MAX = 256, THREADS_PER_USER_MAX = 48, KEYS_MAX = 64 };

gboolean user_enter(Daemon *daemon, uid_t uid, GError **error)
{
    gpointer key = GUINT_TO_POINTER(uid);
    unsigned count = GPOINTER_TO_UINT(g_hash_table_lookup(daemon->threads, key));

    if (uid == 0)
        return TRUE;
    if (count >= THREADS_PER_USER_MAX) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "hvmd is busy with %u calls of user %u: try again", count, uid);
        return FALSE;
    }
    g_hash_table_insert(daemon->threads, key, GUINT_TO_POINTER(count + 1));
    return TRUE;
}

void user_leave(Daemon *daemon, uid_t uid)
{
    gpointer key = GUINT_TO_POINTER(uid);
    unsigned count = GPOINTER_TO_UINT(g_hash_table_lookup(daemon->threads, key));

    if (count > 1)
        g_hash_table_insert(daemon->threads, key, GUINT_TO_POINTER(count - 1));
    else
        g_hash_table_remove(daemon->threads, key);
}

const char *request_string(GVariant *request, const char *key)
{
    const char *value = NULL;

    g_variant_lookup(request, key, "&s", &value);
    return value;
}

gboolean request_bool(GVariant *request, const char *key, gboolean fallback)
{
    gboolean value = fallback;

    g_variant_lookup(request, key, "b", &value);
    return value;
}

guint32 request_uint(GVariant *request, const char *key, guint32 fallback)
{
    guint32 value = fallback;

    g_variant_lookup(request, key, "u", &value);
    return value;
}

static gboolean refuse(GError **error, const char *method, const char *format, ...) G_GNUC_PRINTF(3, 4);
static gboolean refuse(GError **error, const char *method, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "%s: %s", method, text);
    return FALSE;
}

/* Holds a request against "name:s wait?:b": no other keys, the right types, all that is not optional. */
static gboolean check_request(const Method *method, GVariant *request, GError **error)
{
    g_auto(GStrv) words = g_strsplit(method->request, " ", -1);
    gsize known = 0;

    for (char **word = words; *word && **word; word++) {
        char *type = strchr(*word, ':');
        gboolean optional = type[-1] == '?';
        g_autofree char *key = g_strndup(*word, (gsize)(type - *word) - (optional ? 1 : 0));
        g_autoptr(GVariant) value = g_variant_lookup_value(request, key, NULL);

        if (value && strcmp(g_variant_get_type_string(value), type + 1) != 0)
            return refuse(error, method->name, "key %s: wanted type %s, found %s", key, type + 1, g_variant_get_type_string(value));
        if (!value && !optional)
            return refuse(error, method->name, "wanted key %s, found none", key);
        known += value ? 1 : 0;
    }
    if (known == g_variant_n_children(request))
        return TRUE;

    for (gsize i = 0; i < g_variant_n_children(request); i++) {
        const char *key = NULL;

        g_variant_get_child(request, i, "{&sv}", &key, NULL);

        gboolean found = FALSE;

        for (char **word = words; *word && !found; word++)
            found = strncmp(*word, key, strlen(key)) == 0 && ((*word)[strlen(key)] == ':' || (*word)[strlen(key)] == '?');
        if (!found) {
            g_autofree char *shown = hvm_escape(key, (gssize)MIN(strlen(key), 60));

            return refuse(error, method->name, "unknown key '%s'", shown);
        }
    }
    return refuse(error, method->name, "a key stands twice");
}

/*
 * The one function that decides who may call what, from the annotation beside the method. A guest that is not the caller's
 * does not exist for them.
 */
static gboolean authorize(const Client *client, const GDBusMethodInfo *info, GVariant *request, GError **error)
{
    const char *right = g_dbus_annotation_info_lookup(info->annotations, "io.hvm1.Right");
    const Caller *caller = client->caller;

    if (g_strcmp0(right, "anyone") == 0)
        return TRUE;
    if (g_strcmp0(right, "owner") == 0) {
        const char *name = request_string(request, "name");

        /* Without a name the check of the request refuses it. */
        return caller->uid == 0 || !name || guests_check_visible(client->daemon->guests, name, caller->uid, error);
    }
    if (caller->uid == 0 || (g_strcmp0(right, "group") == 0 && client->in_group))
        return TRUE;
    if (g_strcmp0(right, "group") == 0)
        g_set_error(error, HVM_ERROR, HVM_ERROR_DENIED, "%s: wanted root or a member of group '%s', found user %s", info->name,
                    client->daemon->config->group, caller->user_name ? caller->user_name : "unknown");
    else
        g_set_error(error, HVM_ERROR, HVM_ERROR_DENIED, "%s: wanted root, found user %s", info->name,
                    caller->user_name ? caller->user_name : "unknown");
    return FALSE;
}

void service_answer(GDBusMethodInvocation *invocation, GVariant *reply, GUnixFDList *fds, const GError *error)
{
    if (error)
        g_dbus_method_invocation_return_gerror(invocation, error);
    else
        g_dbus_method_invocation_return_value_with_unix_fd_list(invocation, g_variant_new("(@a{sv})", reply), fds);
}

void service_normalize_error(GError **error)
{
    if (!*error || (*error)->domain == HVM_ERROR || g_error_matches(*error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        return;

    GError *ours = g_error_new_literal(HVM_ERROR, HVM_ERROR_INTERNAL, (*error)->message);

    g_clear_error(error);
    *error = ours;
}

static void call_free(Call *call)
{
    g_clear_pointer(&call->request, g_variant_unref);
    g_clear_object(&call->fds);
    g_clear_pointer(&call->reply, g_variant_unref);
    g_clear_error(&call->error);
    client_unref(call->client);
    g_free(call);
}

/* In the main thread: a worker has ended. */
static gboolean finish_call(gpointer data)
{
    Call *call = data;
    Client *client = call->client;

    g_atomic_int_add(&client->daemon->workers, -1);
    user_leave(client->daemon, client->caller->uid);
    guint32 id = call->exec ? exec_register(client, g_steal_pointer(&call->exec), &call->error) : 0;

    if (id) {
        GVariantDict dict;

        g_variant_dict_init(&dict, call->reply);
        g_variant_dict_insert(&dict, "exec", "u", id);
        g_variant_unref(call->reply);
        call->reply = g_variant_ref_sink(g_variant_dict_end(&dict));
    }
    service_answer(g_steal_pointer(&call->invocation), call->reply, call->fds, call->error);
    call_free(call);
    return G_SOURCE_REMOVE;
}

static gpointer call_thread(gpointer data)
{
    Call *call = data;

    call->reply = call->method->func(call, &call->error);
    if (call->reply)
        g_variant_ref_sink(call->reply);
    service_normalize_error(&call->error);
    g_main_context_invoke(NULL, finish_call, call);
    return NULL;
}

static void dispatch(Call *call)
{
    Client *client = call->client;
    g_autoptr(GThread) thread = NULL;

    if (call->method->kind == METHOD_WORKER) {
        if (client->caller->uid != 0 && g_atomic_int_get(&client->daemon->workers) >= WORKERS_MAX) {
            g_set_error(&call->error, HVM_ERROR, HVM_ERROR_BUSY, "hvmd is busy with %d calls: try again", WORKERS_MAX);
        } else if (user_enter(client->daemon, client->caller->uid, &call->error)) {
            g_atomic_int_inc(&client->daemon->workers);
            thread = g_thread_new("hvm-call", call_thread, call);
            return;
        }
    } else {
        call->reply = call->method->kind == METHOD_JOB ? job_start(call, &call->error) : call->method->func(call, &call->error);
        if (call->reply)
            g_variant_ref_sink(call->reply);
        service_normalize_error(&call->error);
    }
    if (call->reply || call->error)
        service_answer(g_steal_pointer(&call->invocation), call->reply, NULL, call->error);
    call_free(call);
}

static const Method *find_method(const char *name)
{
    for (const Method *method = methods; method->name; method++)
        if (strcmp(method->name, name) == 0)
            return method;
    return NULL;
}

/* In the main thread. */
static gboolean drop_client(gpointer data)
{
    Client *client = data;

    if (client->connection)
        g_message("user %u does not read its answers: connection closed", client->caller->uid);
    client_close(client);
    return G_SOURCE_REMOVE;
}

static void unref_client(gpointer client)
{
    client_unref(client);
}

/* Counts a call until its answer leaves. FALSE where the client does not read its answers, or reuses the serial of one that it awaits. */
static gboolean admit(Client *client, GDBusMessage *message)
{
    gpointer serial = GUINT_TO_POINTER(g_dbus_message_get_serial(message));
    unsigned weight = g_strcmp0(g_dbus_message_get_member(message), "Logs") == 0 ? LOGS_WEIGHT : 1;

    if (client->dropped)
        return FALSE;
    if (client->weight + weight > OUTSTANDING_MAX || g_hash_table_contains(client->outstanding, serial)) {
        client->dropped = TRUE;
        g_idle_add_full(G_PRIORITY_DEFAULT, drop_client, client_ref(client), unref_client);
        return FALSE;
    }
    client->weight += weight;
    g_hash_table_insert(client->outstanding, serial, GUINT_TO_POINTER(weight));
    return TRUE;
}

static void settle(Client *client, GDBusMessage *answer)
{
    gpointer weight = NULL;

    if (g_hash_table_steal_extended(client->outstanding, GUINT_TO_POINTER(g_dbus_message_get_reply_serial(answer)), NULL, &weight))
        client->weight -= GPOINTER_TO_UINT(weight);
}

/*
 * What comes and what leaves, in GDBus's thread. A message leaves when it is written, so that one whose reader does not read stays
 * counted; GDBus's own answers (Peer, Introspectable, Properties, what is unknown) count as ours. NULL: the message goes no further.
 */
static GDBusMessage *on_message(GDBusConnection *connection G_GNUC_UNUSED, GDBusMessage *message, gboolean incoming, gpointer data)
{
    Client *client = data;
    GDBusMessageType type = g_dbus_message_get_message_type(message);

    if (!incoming && (type == G_DBUS_MESSAGE_TYPE_METHOD_RETURN || type == G_DBUS_MESSAGE_TYPE_ERROR))
        settle(client, message);
    else if (!incoming && type == G_DBUS_MESSAGE_TYPE_SIGNAL && g_strcmp0(g_dbus_message_get_member(message), "GuestEvent") == 0)
        g_atomic_int_add(&client->events, -1);
    if (!incoming)
        return message;
    if (type != G_DBUS_MESSAGE_TYPE_METHOD_CALL || g_dbus_message_get_flags(message) & G_DBUS_MESSAGE_FLAGS_NO_REPLY_EXPECTED ||
        admit(client, message))
        return message;
    g_object_unref(message);
    return NULL;
}

static void on_method(GDBusConnection *connection G_GNUC_UNUSED, const char *sender G_GNUC_UNUSED, const char *path G_GNUC_UNUSED,
                      const char *interface G_GNUC_UNUSED, const char *name, GVariant *parameters,
                      GDBusMethodInvocation *invocation, gpointer data)
{
    Client *client = data;
    const Method *method = find_method(name);
    const GDBusMethodInfo *info = g_dbus_method_invocation_get_method_info(invocation);
    g_autoptr(GVariant) request = g_variant_get_child_value(parameters, 0);
    g_autoptr(GError) error = NULL;

    if (!client->connection) { /* what it had sent before it was dropped still comes */
        g_object_unref(invocation);
        return;
    }
    if (g_variant_n_children(request) > KEYS_MAX)
        refuse(&error, name, "wanted at most %d keys, found %zu", KEYS_MAX, g_variant_n_children(request));
    if (error || !authorize(client, info, request, &error) || !check_request(method, request, &error)) {
        service_answer(invocation, NULL, NULL, error);
        return;
    }
    Call *call = g_new0(Call, 1);

    call->client = client_ref(client);
    call->method = method;
    call->request = g_variant_ref(request);
    call->invocation = invocation;
    dispatch(call);
}

gboolean service_export(Client *client, GError **error)
{
    static const GDBusInterfaceVTable vtable = {.method_call = on_method};

    /* The table and the contract must tell of the same methods. */
    for (GDBusMethodInfo **info = io_hvm1_interface.methods; *info; info++)
        g_assert(find_method((*info)->name) && g_dbus_annotation_info_lookup((*info)->annotations, "io.hvm1.Right"));
    g_dbus_connection_add_filter(client->connection, on_message, client_ref(client), unref_client);
    return g_dbus_connection_register_object(client->connection, "/io/hvm1", (GDBusInterfaceInfo *)&io_hvm1_interface,
                                             &vtable, client_ref(client), (GDestroyNotify)client_unref, error) != 0;
}
