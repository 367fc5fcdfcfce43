/*
 * console: a guest's serial console on the caller's terminal, or on a pipe.
 *
 * On a terminal it is raw, and what is typed goes to the guest but for the key that leaves. Without one there is no key, so
 * that nothing is sent and the console is watched only; it ends with the console or by a signal.
 */
#include "cli.h"
#include "hvm_error.h"
#include "signals.h"
#include "streams.h"
#include "terminal.h"

#include <errno.h>
#include <glib-unix.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KEY_LEAVE = 0x1d /* Ctrl-] */, KEY_INTERRUPT = 0x03 /* Ctrl-C */, INPUT_BYTES = 4096 };

typedef struct {
    gboolean on_terminal;
    gboolean writes;
    int socket_fd;
    gboolean left;          /* by key, or by SIGINT without a terminal */
    gboolean ended;         /* the console's side */
    gboolean broken_pipe;
    int signal_number;      /* that ends hvm, or 0 */
    GError *error;
} Console;

static void on_signal(int number, gpointer data)
{
    Console *console = data;

    if (number == SIGCONT && console->on_terminal)
        terminal_make_raw(NULL);
    else if (number == SIGINT)
        console->left = TRUE;
    else if (number != SIGCONT)
        console->signal_number = number;
}

/* The bytes before a key that leaves; `length` where there is none. */
static gsize find_leave(const Console *console, const char *keys, gsize length)
{
    for (gsize i = 0; i < length; i++)
        if (keys[i] == KEY_LEAVE || (!console->writes && keys[i] == KEY_INTERRUPT))
            return i;
    return length;
}

static gboolean on_key(int fd, GIOCondition condition G_GNUC_UNUSED, gpointer data)
{
    Console *console = data;
    char keys[INPUT_BYTES];
    ssize_t count = read(fd, keys, sizeof keys);
    gsize kept = 0;

    if (count < 0 && (errno == EINTR || errno == EAGAIN))
        return G_SOURCE_CONTINUE;
    kept = count > 0 ? find_leave(console, keys, (gsize)count) : 0;
    /* hvmd always reads; where it is gone, the other direction's end tells. */
    if (console->writes && kept > 0 && send(console->socket_fd, keys, kept, MSG_NOSIGNAL) < 0)
        return G_SOURCE_REMOVE;
    if (count > 0 && kept == (gsize)count)
        return G_SOURCE_CONTINUE;
    console->left = TRUE;
    return G_SOURCE_REMOVE;
}

static void on_output_end(int error_number, gboolean reading, gpointer data)
{
    Console *console = data;

    console->ended = TRUE;
    console->broken_pipe = !reading && error_number == EPIPE;
    if (error_number)
        g_set_error(&console->error, HVM_ERROR, HVM_ERROR_HOST, "%s: %s",
                    reading ? "cannot read the console" : "cannot write the console's output", g_strerror(error_number));
}

static int join(Cli *cli, const char *name, gboolean writes, GError **error)
{
    GVariant *named = cli_name_request(name, error);
    Client *client = named ? cli_client(cli, error) : NULL;
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GUnixFDList) fds = NULL;
    GVariantDict request;

    if (!named)
        return -1;
    g_variant_dict_init(&request, named);
    g_variant_unref(g_variant_ref_sink(named));
    g_variant_dict_insert(&request, "read-only", "b", !writes);
    g_autoptr(GVariant) whole = g_variant_ref_sink(g_variant_dict_end(&request));

    if (!client || !client_call_fds(client, "Console", whole, &reply, &fds, error))
        return -1;
    return client_take_fd(reply, fds, "console", error);
}

static gboolean start(Console *console, Cli *cli, GError **error)
{
    const char *name = cli_argument(cli, 0);

    console->socket_fd = join(cli, name, console->writes, error);
    if (console->socket_fd < 0)
        return FALSE;
    if (console->on_terminal) {
        fprintf(stderr, "console of guest '%s'%s: Ctrl-] leaves it\n", name, console->writes ? "" : ", read-only");
        if (!terminal_make_raw(error))
            return FALSE;
        g_unix_fd_add(STDIN_FILENO, G_IO_IN | G_IO_HUP | G_IO_ERR, on_key, console);
    }
    stream_pump_output(console->socket_fd, STDOUT_FILENO, on_output_end, console);
    return TRUE;
}

/* The console has closed: the guest has stopped, or hvmd. */
static void explain_end(const Console *console, Cli *cli, GError **error)
{
    if (!client_call(cli->client, "Hello", NULL, NULL, NULL, NULL))
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "the console was lost: the connection to hvmd ended (did hvmd stop?)");
    else if (console->on_terminal)
        fprintf(stderr, "\nguest '%s' has closed its console\n", cli_argument(cli, 0));
}

int run_console(Cli *cli, GError **error)
{
    /* Static: the pump may still be blocked in a read, and tell its end, when this function has returned. */
    static Console console;
    static const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCONT, 0};
    struct sigaction pipe_before;

    console = (Console){.on_terminal = isatty(STDIN_FILENO), .socket_fd = -1};
    console.writes = console.on_terminal && !cli_has(cli, "read-only");
    /* A broken pipe comes as an error, so that the terminal is put back before hvm dies of it. */
    sigaction(SIGPIPE, NULL, &pipe_before);
    signal(SIGPIPE, SIG_IGN);
    signals_take(taken, on_signal, &console);
    if (!start(&console, cli, error)) {
        terminal_restore();
        return 1;
    }
    while (!console.left && !console.ended && !console.signal_number)
        g_main_context_iteration(NULL, TRUE);
    terminal_restore();
    if (console.signal_number)
        terminal_die_by_signal(console.signal_number);
    if (console.broken_pipe && pipe_before.sa_handler == SIG_DFL)
        terminal_die_by_signal(SIGPIPE);
    if (console.left && console.on_terminal)
        fputc('\n', stderr);
    if (console.error)
        g_propagate_error(error, g_steal_pointer(&console.error));
    else if (!console.left)
        explain_end(&console, cli, error);
    return 0;
}
