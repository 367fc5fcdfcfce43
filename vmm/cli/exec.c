/* exec, run, shell: run a command in a guest that is there, or in one made for it. */
#include "guest_command.h"
#include "hvm_error.h"
#include "signals.h"
#include "streams.h"
#include "terminal.h"
#include "units.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONTROL_PATIENCE_US = 1000000, TERM_LENGTH_MAX = 64 };

/* What the first argument names. */
typedef enum { IN_GUEST, IN_NEW_GUEST, IN_EITHER } Where;

/* What to run, and where. */
typedef struct {
    Where where;
    GVariant *settings;      /* of the guest that is made */
    const char *const *argv;
    gboolean tty;
    gboolean at_home;        /* begins in the user's home, not in the caller's folder */
} Work;

typedef struct {
    Cli *cli;
    const Work *work;
    const char *name;
    gboolean tty;
    guint32 number;         /* hvmd's, 0 until it has told */
    gint64 control_since;   /* when the oldest unanswered ExecControl was sent, 0: none */
    unsigned outputs;       /* pumps that have not ended */
    gboolean waited;        /* ExecWait has answered */
    gboolean broken_pipe;   /* whoever read our output is gone */
    int status;
    GError *error;          /* hvm's own failure */
} Exec;

static void on_controlled(GVariant *reply G_GNUC_UNUSED, const GError *error G_GNUC_UNUSED, gpointer data)
{
    Exec *exec = data;

    exec->control_since = 0; /* an error: the command has just ended */
}

static void pass_signal(Exec *exec, int number)
{
    gint64 now = g_get_monotonic_time();
    gboolean ends = number == SIGINT || number == SIGTERM || number == SIGHUP || number == SIGQUIT;
    GVariantDict request;

    /* Before the command runs, and where hvmd does not take signals any more, hvm itself is what the signal ends; hvmd
     * then ends the command with the connection. */
    if (!exec->number || (ends && exec->control_since && now - exec->control_since > CONTROL_PATIENCE_US))
        terminal_die_by_signal(number);
    if (!exec->control_since)
        exec->control_since = now;
    guest_command_init_control(&request, exec->number);
    g_variant_dict_insert(&request, "signal", "i", number);
    client_begin(exec->cli->client, "ExecControl", g_variant_dict_end(&request), on_controlled, exec);
}

static void pass_size(Exec *exec)
{
    gint16 rows = 0, columns = 0;
    GVariantDict request;

    if (!exec->tty || !exec->number)
        return;
    terminal_size(&rows, &columns);
    guest_command_init_control(&request, exec->number);
    g_variant_dict_insert(&request, "rows", "q", (guint16)rows);
    g_variant_dict_insert(&request, "columns", "q", (guint16)columns);
    client_send(exec->cli->client, "ExecControl", g_variant_dict_end(&request));
}

static void on_signal(int number, gpointer data)
{
    Exec *exec = data;

    if (number == SIGCONT)
        terminal_make_raw(NULL);
    if (number == SIGCONT || number == SIGWINCH)
        pass_size(exec);
    else
        pass_signal(exec, number);
}

/* The names of terminals are made of these; anything else is no name, and programs in the guest look for files by it. */
static gboolean term_is_good(const char *term)
{
    gsize length = term ? strlen(term) : 0;

    return length > 0 && length <= TERM_LENGTH_MAX && term[0] != '.' &&
           strspn(term, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "-+._") == length;
}

static GVariant *environment_request(const Exec *exec, GError **error)
{
    const char *const *pairs = cli_values(exec->cli, "env");
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    g_autofree char *term = g_strconcat("TERM=", g_getenv("TERM"), NULL);

    if (exec->tty && term_is_good(g_getenv("TERM")))
        g_ptr_array_add(all, term);
    for (; pairs && *pairs; pairs++) {
        if (!strchr(*pairs, '=') || **pairs == '=') {
            g_autofree char *shown = hvm_escape(*pairs, (gssize)MIN(strlen(*pairs), 60));

            g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "--env: wanted NAME=VALUE, found '%s'", shown);
            return NULL;
        }
        g_ptr_array_add(all, (gpointer)*pairs);
    }
    return g_variant_new_bytestring_array((const char *const *)all->pdata, (gssize)all->len);
}

/* The folder: the one that was asked for is required, the caller's is a wish. */
static gboolean add_directory(const Exec *exec, GVariantDict *request, GError **error)
{
    const char *wanted = cli_value(exec->cli, "cwd");
    g_autofree char *here = wanted ? NULL : exec->work->at_home ? g_strdup("") : g_get_current_dir();

    if (wanted && wanted[0] != '/') {
        g_autofree char *shown = hvm_escape(wanted, (gssize)MIN(strlen(wanted), 60));

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                    "--cwd: wanted a path in the guest that begins with '/', found '%s'", shown);
        return FALSE;
    }
    if (wanted || here[0] == '/') /* none: the user's home */
        g_variant_dict_insert_value(request, "directory", g_variant_new_bytestring(wanted ? wanted : here));
    g_variant_dict_insert(request, "directory-required", "b", wanted != NULL);
    return TRUE;
}

/* What is asked for, but for the guest's name, which `run` does not know yet. */
static GVariant *exec_request(const Exec *exec, GError **error)
{
    g_auto(GVariantDict) request = G_VARIANT_DICT_INIT(NULL);
    GVariant *environment = NULL;
    gint16 rows = 0, columns = 0;

    environment = environment_request(exec, error);
    if (!environment)
        return NULL;
    g_variant_dict_insert_value(&request, "environment", environment);
    if (!add_directory(exec, &request, error) || !guest_command_add_user(exec->cli, &request, error))
        return NULL;
    g_variant_dict_insert_value(&request, "argv", g_variant_new_bytestring_array(exec->work->argv, -1));
    g_variant_dict_insert(&request, "pty", "b", exec->tty);
    if (exec->tty) {
        terminal_size(&rows, &columns);
        g_variant_dict_insert(&request, "rows", "q", (guint16)rows);
        g_variant_dict_insert(&request, "columns", "q", (guint16)columns);
    }
    return g_variant_dict_end(&request);
}

static void on_output_end(int error_number, gboolean reading, gpointer data)
{
    Exec *exec = data;

    exec->outputs--;
    if (!reading && error_number == EPIPE)
        exec->broken_pipe = TRUE;
    if (error_number && !exec->error)
        g_set_error(&exec->error, HVM_ERROR, HVM_ERROR_HOST, "%s: %s",
                    reading ? "cannot read the command's output" : "cannot write the command's output",
                    g_strerror(error_number));
}

static void on_input_end(int error_number, gboolean reading, gpointer data)
{
    Exec *exec = data;

    if (error_number && !exec->error)
        g_set_error(&exec->error, HVM_ERROR, HVM_ERROR_HOST, "%s: %s",
                    reading ? "cannot read standard input" : "cannot write the command's standard input",
                    g_strerror(error_number));
}

/* The command's end. What it wrote before is in the sockets by now. */
static void on_exec_end(GVariant *reply, const GError *error, gpointer data)
{
    Exec *exec = data;
    GuestCommandEnd end;

    exec->waited = TRUE;
    if (error) {
        if (!exec->error && g_error_matches(error, HVM_ERROR, HVM_ERROR_HOST))
            g_set_error(&exec->error, HVM_ERROR, HVM_ERROR_HOST,
                        "guest '%s': the command was lost: the connection to hvmd ended (did hvmd stop?)", exec->name);
        else if (!exec->error)
            exec->error = g_error_copy(error);
        return;
    }
    guest_command_read_end(reply, &end);
    exec->status = end.status;
    if (end.lost && !exec->error)
        g_set_error(&exec->error, HVM_ERROR, HVM_ERROR_AGENT, "guest '%s': the command was lost%s%s", exec->name,
                    *end.reason ? ": " : "", end.reason);
    if ((end.status == 126 || end.status == 127) && *end.reason) {
        g_autofree char *shown = hvm_escape(end.reason, -1);

        fprintf(stderr, "hvm: %s\n", shown);
    }
}

/* Starts the command, its pumps and the wait for its end. */
static gboolean start(Exec *exec, GVariant *unnamed, GError **error)
{
    Client *client = cli_client(exec->cli, error);
    GuestCommand command;
    GVariantDict request;

    if (!client)
        return FALSE;
    g_variant_dict_init(&request, unnamed);
    g_variant_dict_insert(&request, "name", "s", exec->name);
    if (!guest_command_start(client, g_variant_dict_end(&request), exec->tty, &command, error))
        return FALSE;
    exec->number = command.number;
    if (exec->tty && !terminal_make_raw(error))
        return FALSE;
    guest_command_wait(client, exec->number, on_exec_end, exec);
    exec->outputs = exec->tty ? 1 : 2;
    stream_pump_output(command.stdout_fd, STDOUT_FILENO, on_output_end, exec);
    if (!exec->tty)
        stream_pump_output(command.stderr_fd, STDERR_FILENO, on_output_end, exec);
    stream_pump_input(STDIN_FILENO, command.stdin_fd, on_input_end, exec);
    pass_size(exec); /* it may have changed since the request */
    return TRUE;
}

/* An ephemeral guest of the template that the first argument names. It ends with our connection, however that ends. Caller frees. */
static char *run_guest(Cli *cli, GVariant *settings, GError **error)
{
    g_autoptr(GVariant) reply = NULL;
    const char *name = NULL;
    GVariantDict request;

    g_variant_dict_init(&request, NULL);
    g_variant_dict_insert(&request, "template", "s", cli_argument(cli, 0));
    g_variant_dict_insert_value(&request, "settings", settings);
    cli_note(cli, "asking hvmd for a guest");
    if (!cli_call(cli, "Run", g_variant_dict_end(&request), FALSE, &reply, error))
        return NULL;
    if (!g_variant_lookup(reply, "name", "&s", &name) || !name_check(name, "guest name", NULL)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INTERNAL, "hvmd answered Run wrongly: wanted the name of the guest");
        return NULL;
    }
    return g_strdup(name);
}

/* Whether the caller has a guest of this name. */
static gboolean look_for_guest(Cli *cli, const char *name, gboolean *ret_found, GError **error)
{
    g_autoptr(GError) local = NULL;
    GVariant *request = cli_name_request(name, error);

    if (!request)
        return FALSE;
    *ret_found = cli_call(cli, "Show", request, FALSE, NULL, &local);
    if (local && !g_error_matches(local, HVM_ERROR, HVM_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    return TRUE;
}

/* The guest to run in, which may have to be made. Caller frees. */
static char *find_guest(Cli *cli, const Work *work, GError **error)
{
    const char *name = cli_argument(cli, 0);
    gboolean found = work->where == IN_GUEST;
    char *made = NULL;

    if (work->where == IN_EITHER && !look_for_guest(cli, name, &found, error))
        return NULL;
    if (found && work->where == IN_EITHER && g_variant_n_children(work->settings) > 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                    "guest '%s' is there already: options that say what a guest is like are for a template's name", name);
        return NULL;
    }
    if (found)
        return g_strdup(name);
    made = run_guest(cli, work->settings, error);
    if (!made && work->where == IN_EITHER && error && g_error_matches(*error, HVM_ERROR, HVM_ERROR_NOT_FOUND))
        g_prefix_error(error, "no guest '%s'; ", name);
    return made;
}

static int execute(Cli *cli, const Work *work, GError **error)
{
    /* Static: pumps may still be blocked in a read, and tell their end, when this function has returned. */
    static Exec exec;
    static const int passed[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, 0};
    static const int with_terminal[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT, 0};
    g_autoptr(GVariant) request = NULL;
    g_autofree char *name = NULL;
    struct sigaction pipe_before;

    exec = (Exec){.cli = cli, .work = work, .tty = work->tty};
    if (exec.tty && !isatty(STDIN_FILENO)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "--tty: wanted a terminal as standard input, found none");
        return 1;
    }
    if (!(request = exec_request(&exec, error)))
        return 1;
    g_variant_ref_sink(request);
    /* A broken pipe comes as an error, so that the terminal is put back before hvm dies of it. */
    sigaction(SIGPIPE, NULL, &pipe_before);
    signal(SIGPIPE, SIG_IGN);
    signals_take(exec.tty ? with_terminal : passed, on_signal, &exec);
    if (!(exec.name = name = find_guest(cli, work, error)))
        return 1;
    cli_note(cli, "starting the command");
    if (!start(&exec, request, error)) {
        terminal_restore();
        return 1;
    }
    /* After an error of hvmd's (it is gone) the output which is still on its way is written; after one of our own,
     * nothing. */
    while (!exec.broken_pipe && !(exec.waited ? exec.outputs == 0 : exec.error != NULL))
        g_main_context_iteration(NULL, TRUE);
    terminal_restore();
    cli_note(cli, "the command has ended");
    if (exec.broken_pipe && pipe_before.sa_handler == SIG_DFL)
        terminal_die_by_signal(SIGPIPE);
    if (exec.error)
        g_propagate_error(error, exec.error);
    return exec.status;
}

int run_exec(Cli *cli, GError **error)
{
    const Work work = {
        .where = IN_GUEST, .argv = (const char *const *)cli->arguments->pdata + 1, .tty = cli_has(cli, "tty")};

    return name_check(cli_argument(cli, 0), "guest name", error) ? execute(cli, &work, error) : 1;
}

int run_run(Cli *cli, GError **error)
{
    g_autoptr(GVariant) settings = NULL;
    Work work = {
        .where = IN_NEW_GUEST, .argv = (const char *const *)cli->arguments->pdata + 1, .tty = cli_has(cli, "tty")};

    if (!name_check(cli_argument(cli, 0), "template name", error) || !(settings = cli_settings_request(cli, error)))
        return 1;
    work.settings = g_variant_ref_sink(settings);
    return execute(cli, &work, error);
}

int run_shell(Cli *cli, GError **error)
{
    /* The agent sets SHELL from the user's line in /etc/passwd. */
    static const char *const argv[] = {"/bin/sh", "-c", "exec \"${SHELL:-/bin/sh}\" -l", NULL};
    g_autoptr(GVariant) settings = NULL;
    Work work = {.where = IN_EITHER, .argv = argv, .tty = isatty(STDIN_FILENO), .at_home = TRUE};

    if (!name_check(cli_argument(cli, 0), "name", error) || !(settings = cli_settings_request(cli, error)))
        return 1;
    work.settings = g_variant_ref_sink(settings);
    return execute(cli, &work, error);
}
