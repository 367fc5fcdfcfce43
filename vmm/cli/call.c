#include "cli.h"
#include "hvm_error.h"
#include "table.h"
#include "template_keys.h"
#include "units.h"

#include <glib-unix.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

typedef struct {
    gboolean on_terminal; /* one line, renewed */
    gboolean verbose;
    gboolean shown;       /* a line stands there to be cleared */
} Progress;

void cli_report(const GError *error)
{
    g_autofree char *text = hvm_escape(error->message, -1);

    fflush(stdout);
    fprintf(stderr, "hvm: %s\n", text);
}

Client *cli_client(Cli *cli, GError **error)
{
    if (!cli->client) {
        const char *path = cli_value(cli, "socket");

        cli->client = client_open(path ? path : client_default_socket(), error);
    }
    return cli->client;
}

/* Cuts `text` (escaped, so printable) to `width` cells. */
static void cut(char *text, unsigned width)
{
    unsigned used = 0;

    for (char *c = text; *c; c = g_utf8_next_char(c)) {
        gunichar character = g_utf8_get_char(c);
        unsigned cells = g_unichar_iszerowidth(character) ? 0 : g_unichar_iswide(character) ? 2 : 1;

        if (used + cells > width) {
            *c = '\0';
            return;
        }
        used += cells;
    }
}

static void clear_progress(Progress *progress)
{
    if (progress->shown)
        fputs("\r\033[K", stderr);
    progress->shown = FALSE;
}

/* With the time since the first such line. */
static void print_timed(const char *percent, const char *text)
{
    static gint64 begin_us;
    gint64 now_us = g_get_monotonic_time();

    begin_us = begin_us ? begin_us : now_us;
    fprintf(stderr, "%8.1f ms  %s%s\n", (double)(now_us - begin_us) / 1000, percent, text);
}

void cli_note(const Cli *cli, const char *text)
{
    if (cli_has(cli, "verbose"))
        print_timed("", text);
}

static void on_progress(const char *text, double fraction, gpointer data)
{
    Progress *progress = data;
    g_autofree char *shown = hvm_escape(text, -1);
    g_autofree char *percent = fraction >= 0 ? g_strdup_printf("%3.0f %%  ", MIN(fraction, 1.0) * 100) : g_strdup("");
    struct winsize size = {0};

    if (progress->on_terminal) {
        g_autofree char *line = g_strconcat(percent, shown, NULL);

        /* One cell stays free, or some terminals wrap. */
        if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
            cut(line, size.ws_col - 1);
        fprintf(stderr, "\r\033[K%s", line);
        fflush(stderr);
        progress->shown = TRUE;
    } else if (progress->verbose) {
        print_timed(percent, shown);
    }
}

/* The first Ctrl-C asks for the job's end and is waited for; a second one ends hvm. */
static gboolean on_interrupt(gpointer data)
{
    g_cancellable_cancel(data);
    return G_SOURCE_REMOVE;
}

gboolean cli_call(Cli *cli, const char *method, GVariant *request, gboolean cancellable, GVariant **ret_reply,
                  GError **error)
{
    const char *term = g_getenv("TERM");
    Progress progress = {
        .on_terminal = isatty(STDERR_FILENO) && g_strcmp0(term, "dumb") != 0 && !cli_has(cli, "verbose"),
        .verbose = cli_has(cli, "verbose"),
    };
    g_autoptr(GCancellable) interrupt = cancellable ? g_cancellable_new() : NULL;
    ClientWatch watch = {.on_progress = on_progress, .data = &progress, .cancellable = interrupt};
    g_autoptr(GVariant) owned = request ? g_variant_ref_sink(request) : NULL;
    Client *client = cli_client(cli, error);
    guint source = 0;
    gboolean good = FALSE;

    if (!client)
        return FALSE;
    if (interrupt)
        source = g_unix_signal_add(SIGINT, on_interrupt, interrupt);
    good = client_call(client, method, owned, &watch, ret_reply, error);
    if (interrupt && !g_cancellable_is_cancelled(interrupt))
        g_source_remove(source);
    clear_progress(&progress);
    return good;
}

Settings *cli_settings(const Cli *cli, GError **error)
{
    g_autoptr(Settings) settings = settings_new(template_keys);

    for (const Key *row = template_keys; row->group; row++) {
        const char *text = row->option ? cli_value(cli, row->option) : NULL;
        g_autofree char *value = NULL;
        g_autofree char *name = NULL;

        if (!text)
            continue;
        /* Checked here first, because a message should name the option, not its key. */
        if (!key_check(row, row->type == KEY_BOOL ? "true" : text, &value, error)) {
            g_prefix_error(error, "--%s: ", row->option);
            return NULL;
        }
        name = option_setting(row);
        if (!settings_set_name(settings, name, value, "request", error))
            return NULL;
    }
    if (!device_options_set(settings, cli_values(cli, device_option.name), error))
        return NULL;
    return g_steal_pointer(&settings);
}

GVariant *cli_settings_request(const Cli *cli, GError **error)
{
    g_auto(GVariantBuilder) pairs = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("a{ss}"));
    g_autoptr(Settings) settings = cli_settings(cli, error);

    if (!settings)
        return NULL;
    for (guint i = 0; i < settings->items->len; i++) {
        const Setting *setting = settings->items->pdata[i];
        g_autofree char *name = g_strconcat(setting->group, ".", setting->key, NULL);

        g_variant_builder_add(&pairs, "{ss}", name, setting->value);
    }
    return g_variant_builder_end(&pairs);
}

GVariant *cli_name_request(const char *name, GError **error)
{
    GVariantDict request;

    if (!name_check(name, "guest name", error))
        return NULL;
    g_variant_dict_init(&request, NULL);
    g_variant_dict_insert(&request, "name", "s", name);
    return g_variant_dict_end(&request);
}

int cli_each_guest(Cli *cli, gboolean (*one)(Cli *cli, const char *name, GError **error))
{
    int status = 0;

    for (unsigned i = 0; cli_argument(cli, i); i++) {
        g_autoptr(GError) error = NULL;

        if (one(cli, cli_argument(cli, i), &error))
            continue;
        cli_report(error);
        if (!status)
            status = hvm_error_exit_status(error);
        /* Without hvmd the others would fail in the same words. */
        if (!cli->client && !g_error_matches(error, HVM_ERROR, HVM_ERROR_INVALID))
            break;
    }
    return status;
}
