/* events: what happens to guests, as it happens. */
#include "cli.h"
#include "hvm_error.h"
#include "table.h"

#include <errno.h>
#include <glib-unix.h>
#include <signal.h>
#include <unistd.h>

typedef struct {
    gboolean json;
    gboolean interrupted;
    GError *error;
} Watch;

static const Column columns[] = {
    {"time", NULL, COLUMN_NUMBER}, {"event", NULL, COLUMN_STATE}, {"name", NULL, COLUMN_TEXT},
    {"uuid", NULL, COLUMN_TEXT},   {"owner", NULL, COLUMN_USER},  {0},
};

/* "02:13:04  mpi0  running" */
static void print_line(GVariant *event)
{
    gint64 time_us = 0;
    g_autoptr(GDateTime) utc = NULL;
    g_autoptr(GDateTime) local = NULL;
    g_autofree char *name = table_cell(&columns[2], event);
    g_autofree char *word = table_cell(&columns[1], event);
    g_autofree char *clock = NULL;
    Colour colour = table_state_colour(word);

    g_variant_lookup(event, "time", "x", &time_us);
    if ((utc = g_date_time_new_from_unix_utc(time_us / G_USEC_PER_SEC)) && (local = g_date_time_to_local(utc)))
        clock = g_date_time_format(local, "%H:%M:%S");
    printf("%s  %s  %s%s%s\n", clock ? clock : "--:--:--", name, colour_on(colour), word, colour_off(colour));
}

static void on_event(GVariant *event, const GError *error, gpointer data)
{
    Watch *watch = data;

    if (error) {
        g_clear_error(&watch->error);
        watch->error = g_error_copy(error);
        return;
    }
    if (watch->json)
        table_print_json_line(columns, event);
    else
        print_line(event);
    if (fflush(stdout) != 0 && !watch->error)
        g_set_error(&watch->error, HVM_ERROR, HVM_ERROR_HOST, "cannot write to standard output: %s", g_strerror(errno));
}

static gboolean on_interrupt(gpointer data)
{
    ((Watch *)data)->interrupted = TRUE;
    return G_SOURCE_CONTINUE;
}

int run_events(Cli *cli, GError **error)
{
    Watch watch = {.json = cli_has(cli, "json")};
    Client *client = cli_client(cli, error);
    guint source = 0;

    if (!client)
        return 1;
    client_watch_signal(client, "GuestEvent", on_event, &watch);
    if (!client_call(client, "Subscribe", NULL, NULL, NULL, error))
        return 1;
    source = g_unix_signal_add(SIGINT, on_interrupt, &watch);
    if (cli_has(cli, "verbose"))
        fputs("waiting for events\n", stderr);
    while (!watch.interrupted && !watch.error)
        g_main_context_iteration(NULL, TRUE);
    g_source_remove(source);
    /* It must not be told of the end that is our own. */
    g_clear_pointer(&cli->client, client_free);
    if (watch.error && !watch.interrupted) {
        g_propagate_error(error, watch.error);
        return 1;
    }
    g_clear_error(&watch.error);
    return 0;
}
