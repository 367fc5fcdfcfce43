/*
 * hvmd: the daemon. Options, signals, the main loop; see daemon_private.h for the rest.
 */
#include "daemon_private.h"

#include "hvm_error.h"
#include "program.h"
#include "virt.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Leaves after a minute of idleness. */
enum { IDLE_CHECK_S = 10, IDLE_CHECKS = 6, DESCRIPTORS = 65536, KNOWN_TIMEOUT_MS = 2000, LOG_MAX = 200 };

static gboolean quit(gpointer data)
{
    g_main_loop_quit(((Daemon *)data)->loop);
    return G_SOURCE_CONTINUE;
}

/* Started by its socket, hvmd leaves when nobody needs it: systemd listens on and starts it again. */
static gboolean leave_when_idle(gpointer data)
{
    Daemon *daemon = data;
    gboolean busy = g_hash_table_size(daemon->clients) > 0 || g_queue_get_length(&daemon->pending) > 0 ||
                    g_atomic_int_get(&daemon->workers) > 0 || !guests_ready(daemon->guests) || guests_busy(daemon->guests);

    daemon->idle_checks = busy ? 0 : daemon->idle_checks + 1;
    if (daemon->idle_checks >= IDLE_CHECKS) {
        g_message("nobody needs hvmd: it leaves until its socket is used again");
        g_main_loop_quit(daemon->loop);
    }
    return G_SOURCE_CONTINUE;
}

static int fail(const GError *error)
{
    fprintf(stderr, "hvmd: %s\n", error->message);
    return hvm_error_exit_status(error);
}

/* The agent that builds put into images: HVM_AGENT, else the one of this program. */
static char *find_agent(void)
{
    const char *wanted = g_getenv("HVM_AGENT");

    return wanted ? g_strdup(wanted) : program_find("vmm/agent/hvm-agent", HVM_LIBEXEC_DIR "/hvm-agent");
}

/* Each client costs a descriptor or a few; what hvmd starts with may be as little as 1024. */
static void raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= DESCRIPTORS)
        return;
    limit.rlim_cur = limit.rlim_max < DESCRIPTORS ? limit.rlim_max : DESCRIPTORS;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        g_debug("cannot raise the limit of open files");
}

/* GDBus shows what it cannot read, all of it. */
static void log_briefly(const char *domain, GLogLevelFlags level, const char *message, gpointer data)
{
    g_autofree char *brief = g_strndup(message, LOG_MAX);

    g_log_default_handler(domain, level, brief, data);
}

/* Who asks before the guests are known would be told that there are none; without libvirt they are told that. */
static void serve_clients(gpointer daemon)
{
    listener_serve(daemon);
}

static int serve(Daemon *daemon, GError **error)
{
    /* Held all the time, or g_main_context_invoke() would run in whichever thread calls it while no loop runs: at the end. */
    g_main_context_acquire(NULL);

    guint term = g_unix_signal_add(SIGTERM, quit, daemon);
    guint interrupt = g_unix_signal_add(SIGINT, quit, daemon);

    if (locks_take(daemon, error) && listener_start(daemon, error) &&
        (daemon->guests = guests_new(&daemon->config->guests, error))) {
        guests_set_listener(daemon->guests, events_on_guest, daemon);
        if (daemon->activated)
            g_timeout_add_seconds(IDLE_CHECK_S, leave_when_idle, daemon);
        guests_when_known(daemon->guests, serve_clients, daemon);
        g_timeout_add_once(KNOWN_TIMEOUT_MS, serve_clients, daemon);
        g_main_loop_run(daemon->loop);
    }
    g_atomic_int_set(&daemon->leaving, TRUE);
    listener_stop(daemon);
    if (daemon->guests)
        guests_leave_all(daemon->guests);
    /* Calls and jobs that are under way end; what they changed is whole then. */
    while (g_atomic_int_get(&daemon->workers) > 0)
        g_main_context_iteration(NULL, TRUE);
    g_clear_pointer(&daemon->guests, guests_free);
    locks_release(daemon);
    g_source_remove(term);
    g_source_remove(interrupt);
    return error && *error ? hvm_error_exit_status(*error) : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    g_autofree char *config_path = NULL;
    gboolean version = FALSE;
    const GOptionEntry options[] = {
        {"config", 'c', 0, G_OPTION_ARG_FILENAME, &config_path, "configuration file (default " CONFIG_DEFAULT_PATH ")", "FILE"},
        {"version", 0, 0, G_OPTION_ARG_NONE, &version, "print the version and exit", NULL},
        {0},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("- manage virtual machines of an HPC node");
    g_autoptr(GError) error = NULL;
    Daemon daemon = {.socket_lock_fd = -1, .store_lock_fd = -1};

    g_option_context_add_main_entries(context, options, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error))
        return fail(error);
    if (version) {
        printf("hvmd %s\n", HVM_VERSION);
        return EXIT_SUCCESS;
    }
    (void)HVM_ERROR;
    signal(SIGPIPE, SIG_IGN);
    g_log_set_handler("GLib-GIO", G_LOG_LEVEL_WARNING, log_briefly, NULL);
    if (geteuid() != 0) {
        fprintf(stderr, "hvmd: wanted to run as root, found uid %u\n", geteuid());
        return hvm_error_status(HVM_ERROR_DENIED);
    }
    if (!(daemon.config = config_load(config_path, &error)))
        return fail(error);
    daemon.config->agent_path = find_agent();
    daemon.clients = g_hash_table_new_full(NULL, NULL, (GDestroyNotify)client_unref, NULL);
    daemon.threads = g_hash_table_new(NULL, NULL);
    g_queue_init(&daemon.pending);
    daemon.loop = g_main_loop_new(NULL, FALSE);
    raise_descriptors();
    virt_register_event_loop();

    int status = serve(&daemon, &error);

    if (error)
        fprintf(stderr, "hvmd: %s\n", error->message);
    g_main_loop_unref(daemon.loop);
    g_hash_table_unref(daemon.clients);
    g_hash_table_unref(daemon.threads);
    g_free(daemon.guid);
    config_free(daemon.config);
    return status;
}
