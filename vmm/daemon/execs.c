/*
 * execs.c: commands in guests on behalf of a connection. A command's end comes in a thread of its channel and is carried
 * to the main thread; it is ended when the connection closes.
 */
#include "daemon_private.h"

#include "hvm_error.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { EXECS_PER_CLIENT_MAX = 128, ARGUMENTS_MAX = 4096 };

struct Exec {
    gatomicrefcount references;  /* the client's table, and the end that is still to come */
    GuestExec *exec;             /* NULL once freed */
    gboolean ended;              /* main thread */
    ChannelEnd end;
    int value;
    char *reason;
    GDBusMethodInvocation *waiter;
    Client *client;              /* set while a waiter is there */
    guint32 id;
};

static void exec_unref(Exec *exec)
{
    if (!g_atomic_ref_count_dec(&exec->references))
        return;
    g_free(exec->reason);
    g_free(exec);
}

/* Freeing may wait for the channel's thread: not in the main thread. */
static gpointer free_thread(gpointer data)
{
    guest_exec_free(data);
    return NULL;
}

static void release(Exec *exec)
{
    if (exec->exec)
        g_thread_unref(g_thread_new("hvm-exec-end", free_thread, g_steal_pointer(&exec->exec)));
}

void exec_free(gpointer pointer)
{
    Exec *exec = pointer;

    if (exec->waiter) {
        g_clear_object(&exec->waiter);
        g_clear_pointer(&exec->client, client_unref);
    }
    release(exec);
    exec_unref(exec);
}

static void deliver(Exec *exec)
{
    static const char *const ends[] = {"exited", "signaled", "lost"};
    GVariantDict dict;
    Client *client = g_steal_pointer(&exec->client);

    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "end", "s", ends[exec->end]);
    g_variant_dict_insert(&dict, "value", "i", exec->value);
    g_variant_dict_insert(&dict, "reason", "s", exec->reason ? exec->reason : "");
    service_answer(g_steal_pointer(&exec->waiter), g_variant_dict_end(&dict), NULL, NULL);
    g_hash_table_remove(client->execs, GUINT_TO_POINTER(exec->id));
    client_unref(client);
}

static gboolean finish_exec(gpointer data)
{
    Exec *exec = data;

    exec->ended = TRUE;
    if (exec->waiter)
        deliver(exec);
    exec_unref(exec);
    return G_SOURCE_REMOVE;
}

/* In a thread of the channel. */
static void on_end(ChannelEnd end, int value, const char *reason, gpointer data)
{
    Exec *exec = data;

    exec->end = end;
    exec->value = value;
    exec->reason = g_strdup(reason);
    g_main_context_invoke(NULL, finish_exec, exec);
}

/* An array of byte strings out of a request; NULL where missing. Strings belong to the request. Caller frees the array. */
static const char **request_strings(GVariant *request, const char *key, GError **error)
{
    g_autoptr(GVariant) array = g_variant_lookup_value(request, key, G_VARIANT_TYPE("aay"));
    const char **strings = array ? g_variant_get_bytestring_array(array, NULL) : NULL;

    if (strings && g_strv_length((char **)strings) > ARGUMENTS_MAX) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "Exec: %s: wanted at most %d, found more", key, ARGUMENTS_MAX);
        g_clear_pointer(&strings, g_free);
    }
    return strings;
}

GVariant *exec_start(Call *call, GError **error)
{
    const Caller *caller = call->client->caller;
    GVariant *request = call->request;
    g_autoptr(GError) local = NULL;
    g_autofree const char **argv = request_strings(request, "argv", &local);
    g_autofree const char **environment = request_strings(request, "environment", &local);
    const char *directory = NULL;
    guint16 rows = 24, columns = 80;

    if (local || !argv || !argv[0]) {
        if (local)
            g_propagate_error(error, g_steal_pointer(&local));
        else
            g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "Exec: argv: wanted a command, found none");
        return NULL;
    }
    g_variant_lookup(request, "directory", "^&ay", &directory);
    g_variant_lookup(request, "rows", "q", &rows);
    g_variant_lookup(request, "columns", "q", &columns);

    const ChannelCommand command = {
        .argv = argv,
        .environment = environment,
        .directory = directory,
        .directory_required = request_bool(request, "directory-required", FALSE),
        .user = request_string(request, "user"),
        .uid = caller->uid,
        .gid = caller->gid,
        .groups = caller->groups,
        .n_groups = caller->n_groups,
        .user_name = caller->user_name,
        .group_name = caller->group_name,
        .home = caller->home,
        .pty = request_bool(request, "pty", FALSE),
        .rows = rows,
        .columns = columns,
    };
    ChannelStreams streams = {-1, -1, -1};
    Exec *exec = g_new0(Exec, 1);

    g_atomic_ref_count_init(&exec->references);
    g_atomic_ref_count_inc(&exec->references);
    exec->exec = guests_exec(call->client->daemon->guests, caller, request_string(request, "name"), &command, &streams, on_end,
                             exec, error);
    if (!exec->exec) {
        g_free(exec);
        return NULL;
    }
    GVariantDict dict;
    int fds[] = {streams.stdin_fd, streams.stdout_fd, streams.stderr_fd};

    if (streams.stdin_fd == streams.stdout_fd && (fds[1] = fcntl(fds[0], F_DUPFD_CLOEXEC, 3)) < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "Exec: cannot make a descriptor: %s", g_strerror(errno));
        close(fds[0]);
        exec_free(exec);
        return NULL;
    }
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "stdin", "h", 0);
    g_variant_dict_insert(&dict, "stdout", "h", 1);
    if (streams.stderr_fd >= 0)
        g_variant_dict_insert(&dict, "stderr", "h", 2);
    call->fds = g_unix_fd_list_new_from_array(fds, streams.stderr_fd >= 0 ? 3 : 2);
    call->exec = exec;
    return g_variant_dict_end(&dict);
}

guint32 exec_register(Client *client, Exec *exec, GError **error)
{
    if (!client->connection || g_hash_table_size(client->execs) >= EXECS_PER_CLIENT_MAX) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "Exec: wanted at most %d commands on one connection, found more",
                    EXECS_PER_CLIENT_MAX);
        exec_free(exec); /* the last reference, where it has ended already */
        return 0;
    }
    exec->id = ++client->last_id;
    g_hash_table_insert(client->execs, GUINT_TO_POINTER(exec->id), exec);
    return exec->id;
}

static Exec *find_exec(Call *call, GError **error)
{
    guint32 id = request_uint(call->request, "exec", 0);
    Exec *exec = g_hash_table_lookup(call->client->execs, GUINT_TO_POINTER(id));

    if (!exec)
        g_set_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND, "this connection has no command %u", id);
    return exec;
}

GVariant *exec_wait(Call *call, GError **error)
{
    Exec *exec = find_exec(call, error);

    if (!exec)
        return NULL;
    if (exec->waiter) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "command %u is waited for already", exec->id);
        return NULL;
    }
    exec->waiter = g_steal_pointer(&call->invocation);
    exec->client = client_ref(call->client);
    if (exec->ended)
        deliver(exec);
    return NULL;
}

GVariant *exec_control(Call *call, GError **error)
{
    Exec *exec = find_exec(call, error);
    gint32 number = 0;
    guint16 rows = 0, columns = 0;
    gboolean good = FALSE;

    if (!exec)
        return NULL;
    if (exec->ended)
        good = TRUE; /* too late: as with kill(1) on a process that has just ended */
    else if (g_variant_lookup(call->request, "signal", "i", &number))
        good = guest_exec_signal(exec->exec, number, error);
    else if (g_variant_lookup(call->request, "rows", "q", &rows) && g_variant_lookup(call->request, "columns", "q", &columns))
        good = guest_exec_resize(exec->exec, rows, columns, error);
    else
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "ExecControl: wanted signal, or rows and columns, found neither");
    return good ? g_variant_new_array(G_VARIANT_TYPE("{sv}"), NULL, 0) : NULL;
}
