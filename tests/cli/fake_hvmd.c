#include "fake_hvmd.h"

#include "hvm_error.h"
#include "io_hvm1.h"

#include <gio/gunixfdlist.h>
#include <gio/gunixsocketaddress.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a method does. */
typedef struct {
    GVariant *reply;
    GError *error;
    gboolean hang_up;
} Answer;

typedef struct {
    GPid pid; /* 0 when it has ended */
    GDBusConnection *connection;
    GDBusMethodInvocation *waiter; /* an ExecWait that has no answer yet */
    gboolean ended;
    int status;
} Process;

struct FakeHvmd {
    char *folder;
    char *socket;
    GThread *thread;
    GMainContext *context;
    GMainLoop *loop;
    GSocketService *service;
    GPtrArray *connections;
    GMutex mutex;          /* over what follows */
    GHashTable *answers;   /* method -> Answer */
    GHashTable *requests;  /* method -> printed */
    GHashTable *calls;     /* method -> count */
    GPtrArray *progress;   /* of GVariant a{sv} without job */
    gboolean hold_jobs;
    char *job_method;      /* of the one job that there may be */
    GDBusMethodInvocation *job_waiter;
    GPtrArray *processes;  /* of Process: number is index + 1 */
    char *path;            /* PATH of processes, or NULL: ours */
    gboolean consoles;
    int console_fd;        /* our end of the last one, or -1 */
};

static void answer_free(gpointer pointer)
{
    Answer *answer = pointer;

    g_clear_pointer(&answer->reply, g_variant_unref);
    g_clear_error(&answer->error);
    g_free(answer);
}

static void set_answer(FakeHvmd *fake, const char *method, Answer *answer)
{
    g_mutex_lock(&fake->mutex);
    g_hash_table_insert(fake->answers, g_strdup(method), answer);
    g_mutex_unlock(&fake->mutex);
}

void fake_reply_value(FakeHvmd *fake, const char *method, GVariant *value)
{
    Answer *answer = g_new0(Answer, 1);

    answer->reply = g_variant_ref_sink(value);
    set_answer(fake, method, answer);
}

void fake_reply(FakeHvmd *fake, const char *method, const char *text)
{
    g_autoptr(GError) error = NULL;
    GVariant *value = g_variant_parse(G_VARIANT_TYPE_VARDICT, text, NULL, NULL, &error);

    g_assert_no_error(error);
    fake_reply_value(fake, method, value);
}

void fake_error(FakeHvmd *fake, const char *method, int code, const char *message)
{
    Answer *answer = g_new0(Answer, 1);

    answer->error = g_error_new_literal(HVM_ERROR, code, message);
    set_answer(fake, method, answer);
}

void fake_hang_up(FakeHvmd *fake, const char *method)
{
    Answer *answer = g_new0(Answer, 1);

    answer->hang_up = TRUE;
    set_answer(fake, method, answer);
}

void fake_progress(FakeHvmd *fake, const char *text, double fraction)
{
    GVariantDict dict;

    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "text", "s", text);
    g_variant_dict_insert(&dict, "fraction", "d", fraction);
    g_mutex_lock(&fake->mutex);
    g_ptr_array_add(fake->progress, g_variant_ref_sink(g_variant_dict_end(&dict)));
    g_mutex_unlock(&fake->mutex);
}

void fake_hold_jobs(FakeHvmd *fake)
{
    g_mutex_lock(&fake->mutex);
    fake->hold_jobs = TRUE;
    g_mutex_unlock(&fake->mutex);
}

char *fake_last_request(FakeHvmd *fake, const char *method)
{
    g_mutex_lock(&fake->mutex);
    char *text = g_strdup(g_hash_table_lookup(fake->requests, method));
    g_mutex_unlock(&fake->mutex);
    return text;
}

unsigned fake_calls(FakeHvmd *fake, const char *method)
{
    g_mutex_lock(&fake->mutex);
    unsigned count = GPOINTER_TO_UINT(g_hash_table_lookup(fake->calls, method));
    g_mutex_unlock(&fake->mutex);
    return count;
}

void fake_wait_calls(FakeHvmd *fake, const char *method, unsigned count)
{
    for (unsigned i = 0; fake_calls(fake, method) < count; i++) {
        g_assert_cmpuint(i, <, 1000);
        g_usleep(10000);
    }
}

gboolean fake_has_process(FakeHvmd *fake)
{
    gboolean found = FALSE;

    g_mutex_lock(&fake->mutex);
    for (guint i = 0; i < fake->processes->len; i++)
        found |= !((Process *)fake->processes->pdata[i])->ended;
    g_mutex_unlock(&fake->mutex);
    return found;
}

static void answer_with(GDBusMethodInvocation *invocation, GVariant *reply)
{
    g_dbus_method_invocation_return_value(invocation, g_variant_new("(@a{sv})", reply));
}

static void answer_empty(GDBusMethodInvocation *invocation)
{
    answer_with(invocation, g_variant_new("a{sv}", NULL));
}

static void answer_process_end(Process *process)
{
    gboolean signaled = WIFSIGNALED(process->status);
    GVariantDict reply;

    if (!process->waiter || !process->ended)
        return;
    g_variant_dict_init(&reply, NULL);
    g_variant_dict_insert(&reply, "end", "s", signaled ? "signaled" : "exited");
    g_variant_dict_insert(&reply, "value", "i", signaled ? WTERMSIG(process->status) : WEXITSTATUS(process->status));
    g_variant_dict_insert(&reply, "reason", "s", "");
    answer_with(g_steal_pointer(&process->waiter), g_variant_dict_end(&reply));
}

static void on_process_end(GPid pid G_GNUC_UNUSED, int status, gpointer data)
{
    Process *process = data;

    process->status = status;
    process->ended = TRUE;
    answer_process_end(process);
}

/* In the child: the socketpairs' ends are its standard descriptors; a process group of its own takes the signals. */
static void child_setup(gpointer data G_GNUC_UNUSED)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
}

static void run_exec(FakeHvmd *fake, GVariant *request, GDBusMethodInvocation *invocation)
{
    g_autofree const char **argv = NULL;
    g_autofree const char **environment = NULL;
    g_autoptr(GUnixFDList) fds = g_unix_fd_list_new();
    g_autoptr(GSource) watch = NULL;
    g_auto(GStrv) variables = g_get_environ();
    Process *process = g_new0(Process, 1);
    gboolean pty = FALSE;
    int pairs[3][2];
    GVariantDict reply;

    g_assert_true(g_variant_lookup(request, "argv", "^a&ay", &argv));
    g_variant_lookup(request, "environment", "^a&ay", &environment);
    g_variant_lookup(request, "pty", "b", &pty);
    if (fake->path)
        variables = g_environ_setenv(variables, "PATH", fake->path, TRUE);
    for (const char **pair = environment; pair && *pair; pair++) {
        g_auto(GStrv) parts = g_strsplit(*pair, "=", 2);

        variables = g_environ_setenv(variables, parts[0], parts[1], TRUE);
    }
    for (int i = 0; i < 3; i++)
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]), ==, 0);

    /* With a terminal, stdin and stdout are one socket, and stderr goes there too. */
    int input = pairs[0][0], output = pty ? input : pairs[1][0], errors = pty ? input : pairs[2][0];
    g_autoptr(GError) error = NULL;

    g_assert_true(g_spawn_async_with_fds(NULL, (char **)argv, variables,
                                         G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, child_setup, NULL,
                                         &process->pid, input, output, errors, &error));
    process->connection = g_dbus_method_invocation_get_connection(invocation);
    g_mutex_lock(&fake->mutex);
    g_ptr_array_add(fake->processes, process);
    g_mutex_unlock(&fake->mutex);
    watch = g_child_watch_source_new(process->pid);
    g_source_set_callback(watch, G_SOURCE_FUNC(on_process_end), process, NULL);
    g_source_attach(watch, fake->context);

    g_variant_dict_init(&reply, NULL);
    g_variant_dict_insert(&reply, "exec", "u", fake->processes->len);
    g_variant_dict_insert(&reply, "stdin", "h", g_unix_fd_list_append(fds, pairs[0][1], NULL));
    g_variant_dict_insert(&reply, "stdout", "h", g_unix_fd_list_append(fds, pty ? pairs[0][1] : pairs[1][1], NULL));
    if (!pty)
        g_variant_dict_insert(&reply, "stderr", "h", g_unix_fd_list_append(fds, pairs[2][1], NULL));
    g_dbus_method_invocation_return_value_with_unix_fd_list(
        invocation, g_variant_new("(@a{sv})", g_variant_dict_end(&reply)), fds);
    for (int i = 0; i < 3; i++) {
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
}

static void give_console(FakeHvmd *fake, GDBusMethodInvocation *invocation)
{
    g_autoptr(GUnixFDList) fds = g_unix_fd_list_new();
    int pair[2];
    GVariantDict reply;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    g_variant_dict_init(&reply, NULL);
    g_variant_dict_insert(&reply, "console", "h", g_unix_fd_list_append(fds, pair[1], NULL));
    g_dbus_method_invocation_return_value_with_unix_fd_list(
        invocation, g_variant_new("(@a{sv})", g_variant_dict_end(&reply)), fds);
    close(pair[1]);
    g_mutex_lock(&fake->mutex);
    if (fake->console_fd >= 0)
        close(fake->console_fd);
    fake->console_fd = pair[0];
    g_mutex_unlock(&fake->mutex);
}

static Process *find_process(FakeHvmd *fake, GVariant *request)
{
    guint32 number = 0;

    g_assert_true(g_variant_lookup(request, "exec", "u", &number));
    g_assert_cmpuint(number, >, 0);
    g_assert_cmpuint(number, <=, fake->processes->len);
    return fake->processes->pdata[number - 1];
}

static void control(FakeHvmd *fake, GVariant *request, GDBusMethodInvocation *invocation)
{
    Process *process = find_process(fake, request);
    gint32 number = 0;

    if (g_variant_lookup(request, "signal", "i", &number) && !process->ended)
        kill(-process->pid, number);
    answer_empty(invocation);
}

static void give(GDBusMethodInvocation *invocation, const Answer *answer)
{
    if (!answer)
        answer_empty(invocation);
    else if (answer->error)
        g_dbus_method_invocation_return_gerror(invocation, answer->error);
    else
        answer_with(invocation, answer->reply);
}

static void wait_job(FakeHvmd *fake, GDBusMethodInvocation *invocation)
{
    const Answer *answer = g_hash_table_lookup(fake->answers, fake->job_method);

    for (guint i = 0; i < fake->progress->len; i++) {
        GVariantDict dict;

        g_variant_dict_init(&dict, fake->progress->pdata[i]);
        g_variant_dict_insert(&dict, "job", "u", 7);
        g_dbus_connection_emit_signal(g_dbus_method_invocation_get_connection(invocation), NULL, "/io/hvm1", "io.hvm1",
                                      "JobProgress", g_variant_new("(@a{sv})", g_variant_dict_end(&dict)), NULL);
    }
    if (fake->hold_jobs)
        fake->job_waiter = invocation;
    else
        give(invocation, answer);
}

static gboolean is_job(const char *method)
{
    GDBusMethodInfo *info = g_dbus_interface_info_lookup_method((GDBusInterfaceInfo *)&io_hvm1_interface, method);

    return g_dbus_annotation_info_lookup(info->annotations, "io.hvm1.Job") != NULL;
}

static void start_job(FakeHvmd *fake, const char *method, GDBusMethodInvocation *invocation)
{
    GVariantDict reply;

    g_free(fake->job_method);
    fake->job_method = g_strdup(method);
    g_variant_dict_init(&reply, NULL);
    g_variant_dict_insert(&reply, "job", "u", 7);
    answer_with(invocation, g_variant_dict_end(&reply));
}

static void cancel_job(FakeHvmd *fake, GDBusMethodInvocation *invocation)
{
    if (fake->job_waiter)
        g_dbus_method_invocation_return_error_literal(g_steal_pointer(&fake->job_waiter), G_IO_ERROR,
                                                      G_IO_ERROR_CANCELLED, "the job was cancelled");
    answer_empty(invocation);
}

/* Called with the mutex held. */
static void note(FakeHvmd *fake, const char *method, GVariant *request)
{
    unsigned count = GPOINTER_TO_UINT(g_hash_table_lookup(fake->calls, method));

    g_hash_table_insert(fake->requests, g_strdup(method), g_variant_print(request, FALSE));
    g_hash_table_insert(fake->calls, g_strdup(method), GUINT_TO_POINTER(count + 1));
}

static void on_method(GDBusConnection *connection, const char *sender G_GNUC_UNUSED, const char *object G_GNUC_UNUSED,
                      const char *interface G_GNUC_UNUSED, const char *method, GVariant *parameters,
                      GDBusMethodInvocation *invocation, gpointer data)
{
    FakeHvmd *fake = data;
    g_autoptr(GVariant) request = g_variant_get_child_value(parameters, 0);
    const Answer *answer = NULL;

    g_mutex_lock(&fake->mutex);
    note(fake, method, request);
    answer = g_hash_table_lookup(fake->answers, method);
    g_mutex_unlock(&fake->mutex);
    if (answer && answer->hang_up)
        g_dbus_connection_close_sync(connection, NULL, NULL);
    else if (strcmp(method, "Exec") == 0 && !answer)
        run_exec(fake, request, invocation);
    else if (strcmp(method, "ExecWait") == 0 && !answer) {
        Process *process = find_process(fake, request);

        process->waiter = invocation;
        answer_process_end(process);
    } else if (strcmp(method, "ExecControl") == 0 && !answer)
        control(fake, request, invocation);
    else if (strcmp(method, "Console") == 0 && fake->consoles)
        give_console(fake, invocation);
    else if (strcmp(method, "WaitJob") == 0)
        wait_job(fake, invocation);
    else if (strcmp(method, "CancelJob") == 0)
        cancel_job(fake, invocation);
    else if (is_job(method))
        start_job(fake, method, invocation);
    else
        give(invocation, answer);
}

/* What a connection started ends with it. */
static void on_closed(GDBusConnection *connection, gboolean remote G_GNUC_UNUSED, GError *error G_GNUC_UNUSED,
                      gpointer data)
{
    FakeHvmd *fake = data;

    for (guint i = 0; i < fake->processes->len; i++) {
        Process *process = fake->processes->pdata[i];

        if (process->connection == connection && !process->ended)
            kill(-process->pid, SIGKILL);
    }
    g_ptr_array_remove(fake->connections, connection);
}

static gboolean on_incoming(GSocketService *service G_GNUC_UNUSED, GSocketConnection *stream,
                            GObject *source G_GNUC_UNUSED, gpointer data)
{
    FakeHvmd *fake = data;
    static const GDBusInterfaceVTable table = {.method_call = on_method};
    g_autofree char *guid = g_dbus_generate_guid();
    GDBusConnection *connection = g_dbus_connection_new_sync(G_IO_STREAM(stream), guid,
                                                             G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_SERVER |
                                                                 G_DBUS_CONNECTION_FLAGS_DELAY_MESSAGE_PROCESSING,
                                                             NULL, NULL, NULL);

    if (!connection)
        return TRUE;
    g_dbus_connection_register_object(connection, "/io/hvm1", (GDBusInterfaceInfo *)&io_hvm1_interface, &table, fake,
                                      NULL, NULL);
    g_signal_connect(connection, "closed", G_CALLBACK(on_closed), fake);
    g_ptr_array_add(fake->connections, connection);
    g_dbus_connection_start_message_processing(connection);
    return TRUE;
}

static gpointer fake_thread(gpointer data)
{
    FakeHvmd *fake = data;

    g_main_context_push_thread_default(fake->context);
    g_main_loop_run(fake->loop);
    g_main_context_pop_thread_default(fake->context);
    return NULL;
}

FakeHvmd *fake_new(void)
{
    FakeHvmd *fake = g_new0(FakeHvmd, 1);
    g_autoptr(GError) error = NULL;
    g_autoptr(GSocketAddress) address = NULL;

    hvm_error_quark();
    g_mutex_init(&fake->mutex);
    fake->console_fd = -1;
    fake->folder = g_dir_make_tmp("hvm-cli-XXXXXX", &error);
    g_assert_no_error(error);
    fake->socket = g_build_filename(fake->folder, "hvmd.sock", NULL);
    fake->answers = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, answer_free);
    fake->requests = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    fake->calls = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    fake->progress = g_ptr_array_new_with_free_func((GDestroyNotify)g_variant_unref);
    fake->processes = g_ptr_array_new_with_free_func(g_free);
    fake->connections = g_ptr_array_new_with_free_func(g_object_unref);
    fake->context = g_main_context_new();
    fake->loop = g_main_loop_new(fake->context, FALSE);
    address = g_unix_socket_address_new(fake->socket);
    /* The service takes connections in the context that is the thread's when the address is added. */
    g_main_context_push_thread_default(fake->context);
    fake->service = g_socket_service_new();
    g_assert_true(g_socket_listener_add_address(G_SOCKET_LISTENER(fake->service), address, G_SOCKET_TYPE_STREAM,
                                                G_SOCKET_PROTOCOL_DEFAULT, NULL, NULL, &error));
    g_main_context_pop_thread_default(fake->context);
    g_signal_connect(fake->service, "incoming", G_CALLBACK(on_incoming), fake);
    fake->thread = g_thread_new("fake hvmd", fake_thread, fake);
    return fake;
}

const char *fake_socket(const FakeHvmd *fake)
{
    return fake->socket;
}

static gboolean close_connections(gpointer data)
{
    FakeHvmd *fake = data;
    g_autoptr(GPtrArray) connections = g_ptr_array_copy(fake->connections, (GCopyFunc)(void *)g_object_ref, NULL);

    g_ptr_array_set_free_func(connections, g_object_unref);
    for (guint i = 0; i < connections->len; i++)
        g_dbus_connection_close_sync(connections->pdata[i], NULL, NULL);
    return G_SOURCE_REMOVE;
}

void fake_close_connections(FakeHvmd *fake)
{
    g_main_context_invoke(fake->context, close_connections, fake);
}

typedef struct {
    FakeHvmd *fake;
    char *name;
    GVariant *arguments;
} Signal;

static gboolean emit(gpointer data)
{
    g_autofree Signal *signal = data;
    GPtrArray *connections = signal->fake->connections;

    for (guint i = 0; i < connections->len; i++)
        g_dbus_connection_emit_signal(connections->pdata[i], NULL, "/io/hvm1", "io.hvm1", signal->name,
                                      g_variant_new("(@a{sv})", signal->arguments), NULL);
    g_variant_unref(signal->arguments);
    g_free(signal->name);
    return G_SOURCE_REMOVE;
}

void fake_signal(FakeHvmd *fake, const char *name, const char *text)
{
    Signal *signal = g_new0(Signal, 1);
    g_autoptr(GError) error = NULL;

    signal->fake = fake;
    signal->name = g_strdup(name);
    signal->arguments = g_variant_parse(G_VARIANT_TYPE_VARDICT, text, NULL, NULL, &error);
    g_assert_no_error(error);
    g_main_context_invoke(fake->context, emit, signal);
}

void fake_own_path(FakeHvmd *fake, const char *path)
{
    fake->path = g_strdup(path);
}

void fake_console(FakeHvmd *fake)
{
    fake->consoles = TRUE;
}

int fake_take_console(FakeHvmd *fake)
{
    g_mutex_lock(&fake->mutex);
    int fd = fake->console_fd;
    fake->console_fd = -1;
    g_mutex_unlock(&fake->mutex);
    return fd;
}

static gboolean quit(gpointer data)
{
    FakeHvmd *fake = data;

    g_socket_service_stop(fake->service);
    close_connections(fake);
    g_main_loop_quit(fake->loop);
    return G_SOURCE_REMOVE;
}

void fake_free(FakeHvmd *fake)
{
    g_main_context_invoke(fake->context, quit, fake);
    g_thread_join(fake->thread);
    while (g_main_context_iteration(fake->context, FALSE))
        ;
    g_unlink(fake->socket);
    g_rmdir(fake->folder);
    g_object_unref(fake->service);
    g_ptr_array_unref(fake->connections);
    g_ptr_array_unref(fake->processes);
    g_ptr_array_unref(fake->progress);
    g_hash_table_unref(fake->answers);
    g_hash_table_unref(fake->requests);
    g_hash_table_unref(fake->calls);
    g_main_loop_unref(fake->loop);
    g_main_context_unref(fake->context);
    g_mutex_clear(&fake->mutex);
    if (fake->console_fd >= 0)
        close(fake->console_fd);
    g_free(fake->job_method);
    g_free(fake->path);
    g_free(fake->folder);
    g_free(fake->socket);
    g_free(fake);
}
