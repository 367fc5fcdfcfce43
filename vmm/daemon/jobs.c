/*
 * jobs.c: long work on behalf of a connection: a thread, progress, a result that WaitJob fetches.
 */
#include "daemon_private.h"

#include "hvm_error.h"
#include "io_hvm1.h"

enum { JOBS_PER_CLIENT_MAX = 32, JOBS_MAX = 128 /* where others than root ask */, PROGRESS_INTERVAL_US = 200000 };

struct Job {
    gatomicrefcount references;
    guint32 id;
    Call *call;                    /* what it works for; only its client, request and method are used */
    GDBusConnection *connection;   /* for progress; a signal to a closed one is dropped */
    GCancellable *cancellable;
    gint64 last_progress_us;       /* of the thread's own */
    gboolean done;                 /* from here on of the main thread */
    GVariant *reply;
    GError *error;
    GDBusMethodInvocation *waiter;
};

static gint running;

static void job_unref(Job *job)
{
    if (!g_atomic_ref_count_dec(&job->references))
        return;
    g_clear_pointer(&job->reply, g_variant_unref);
    g_clear_error(&job->error);
    g_object_unref(job->cancellable);
    g_object_unref(job->connection);
    client_unref(job->call->client);
    g_variant_unref(job->call->request);
    g_free(job->call);
    g_free(job);
}

void job_progress(Job *job, const char *text, double fraction)
{
    GVariantDict dict;
    gint64 now_us = g_get_monotonic_time();

    if (now_us - job->last_progress_us < PROGRESS_INTERVAL_US && fraction >= 0)
        return;
    job->last_progress_us = now_us;
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "job", "u", job->id);
    g_variant_dict_insert(&dict, "text", "s", text);
    g_variant_dict_insert(&dict, "fraction", "d", fraction);
    g_dbus_connection_emit_signal(job->connection, NULL, "/io/hvm1", "io.hvm1", "JobProgress",
                                  g_variant_new("(@a{sv})", g_variant_dict_end(&dict)), NULL);
}

GCancellable *job_cancellable(Job *job)
{
    return job->cancellable;
}

/* Answers who waits, and forgets the job. */
static void deliver(Job *job)
{
    Client *client = job->call->client;

    service_answer(g_steal_pointer(&job->waiter), job->reply, NULL, job->error);
    g_hash_table_remove(client->jobs, GUINT_TO_POINTER(job->id));
    job_unref(job);
}

static gboolean finish_job(gpointer data)
{
    Job *job = data;

    g_atomic_int_add(&running, -1);
    g_atomic_int_add(&job->call->client->daemon->workers, -1);
    user_leave(job->call->client->daemon, job->call->client->caller->uid);
    job->done = TRUE;
    if (job->waiter)
        deliver(job);
    else if (!job->call->client->connection)
        job_unref(job);
    return G_SOURCE_REMOVE;
}

static gpointer job_thread(gpointer data)
{
    Job *job = data;

    job->reply = job->call->method->func(job->call, &job->error);
    if (job->reply)
        g_variant_ref_sink(job->reply);
    service_normalize_error(&job->error);
    g_main_context_invoke(NULL, finish_job, job);
    return NULL;
}

GVariant *job_start(Call *call, GError **error)
{
    Client *client = call->client;
    GVariantDict dict;

    if (g_hash_table_size(client->jobs) >= JOBS_PER_CLIENT_MAX ||
        (client->caller->uid != 0 && g_atomic_int_get(&running) >= JOBS_MAX)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "%s: hvmd is busy with other jobs: try again", call->method->name);
        return NULL;
    }
    if (!user_enter(client->daemon, client->caller->uid, error))
        return NULL;
    Job *job = g_new0(Job, 1);

    g_atomic_ref_count_init(&job->references);
    job->id = ++client->last_id;
    job->call = g_new0(Call, 1);
    job->call->client = client_ref(client);
    job->call->method = call->method;
    job->call->request = g_variant_ref(call->request);
    job->call->job = job;
    job->connection = g_object_ref(client->connection);
    job->cancellable = g_cancellable_new();
    g_hash_table_insert(client->jobs, GUINT_TO_POINTER(job->id), job);
    g_atomic_int_inc(&running);
    g_atomic_int_inc(&client->daemon->workers);
    g_thread_unref(g_thread_new("hvm-job", job_thread, job));
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "job", "u", job->id);
    return g_variant_dict_end(&dict);
}

static Job *find_job(Call *call, GError **error)
{
    guint32 id = request_uint(call->request, "job", 0);
    Job *job = g_hash_table_lookup(call->client->jobs, GUINT_TO_POINTER(id));

    if (!job)
        g_set_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND, "this connection has no job %u", id);
    return job;
}

GVariant *job_wait(Call *call, GError **error)
{
    Job *job = find_job(call, error);

    if (!job)
        return NULL;
    if (job->waiter) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "job %u is waited for already", job->id);
        return NULL;
    }
    job->waiter = g_steal_pointer(&call->invocation);
    if (job->done)
        deliver(job);
    return NULL;
}

GVariant *job_cancel(Call *call, GError **error)
{
    Job *job = find_job(call, error);

    if (!job)
        return NULL;
    g_cancellable_cancel(job->cancellable);
    return g_variant_new_array(G_VARIANT_TYPE("{sv}"), NULL, 0);
}

static gboolean is_bound(const char *method)
{
    const GDBusMethodInfo *info = g_dbus_interface_info_lookup_method((GDBusInterfaceInfo *)&io_hvm1_interface, method);

    return g_strcmp0(g_dbus_annotation_info_lookup(info->annotations, "io.hvm1.Job"), "bound") == 0;
}

void jobs_abandon(Client *client)
{
    GHashTableIter iter;
    Job *job = NULL;

    g_hash_table_iter_init(&iter, client->jobs);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&job)) {
        g_hash_table_iter_steal(&iter);
        if (is_bound(job->call->method->name))
            g_cancellable_cancel(job->cancellable);
        g_clear_object(&job->waiter);
        if (job->done)
            job_unref(job);
    }
}
