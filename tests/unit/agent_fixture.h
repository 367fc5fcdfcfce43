/*
 * agent_fixture.h: a real agent process and a channel to it, for the agent's unit tests.
 *
 * The agent is the static program that ninja built, found beside the test. It listens in a temporary folder.
 */
#pragma once

#include "channel.h"
#include "hvm_error.h"
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MS 60000 /* what is long enough for a busy machine; no test waits for it when all is well */

typedef struct {
    char *folder;
    char *path; /* of the agent's socket */
    GPid agent;
    Channel *channel;
} Fixture;

typedef struct {
    GMutex mutex;
    GCond cond;
    unsigned n_calls;
    ChannelEnd end;
    int value;
    char *reason;
} Ended;

typedef struct {
    guint32 id;
    ChannelStreams streams;
    Ended ended;
    GByteArray *output; /* standard output, or all of a terminal's */
    GByteArray *errors;
} Run;

static inline char *agent_program(void)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *folder = g_path_get_dirname(self);

    return g_build_filename(folder, "..", "..", "vmm", "agent", "hvm-agent", NULL);
}

typedef struct {
    GSpawnChildSetupFunc func;
    gpointer data;
} ChildSetup;

static inline void agent_child(gpointer data)
{
    const ChildSetup *setup = data;

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* with a test that fails */
    if (setup->func)
        setup->func(setup->data);
}

/* Starts the agent with these arguments; `func` runs in the child. */
static inline GPid agent_spawn(char **arguments, GSpawnChildSetupFunc func, gpointer data)
{
    g_autoptr(GError) error = NULL;
    ChildSetup setup = {func, data};
    GPid pid = 0;

    g_spawn_async(NULL, arguments, NULL,
                  G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_LEAVE_DESCRIPTORS_OPEN, agent_child, &setup, &pid, &error);
    g_assert_no_error(error);
    return pid;
}

static inline void fixture_listen(Fixture *fixture, const char *power_off_program, GSpawnChildSetupFunc setup,
                                  gpointer data)
{
    g_autofree char *program = agent_program();
    char *arguments[] = {program,
                         (char *)"--listen",
                         fixture->path,
                         (char *)"--power-off-program",
                         (char *)(power_off_program ? power_off_program : "/bin/false"),
                         NULL};

    fixture->agent = agent_spawn(arguments, setup, data);
}

static inline Channel *fixture_connect(Fixture *fixture)
{
    g_autoptr(GError) error = NULL;
    Channel *channel = channel_open(fixture->path, "g", ANSWER_MS, NULL, &error);

    g_assert_no_error(error);
    g_assert_nonnull(channel);
    return channel;
}

static inline void fixture_folder(Fixture *fixture)
{
    g_autoptr(GError) error = NULL;

    fixture->folder = g_dir_make_tmp("hvm-test-agent-XXXXXX", &error);
    g_assert_no_error(error);
    fixture->path = g_build_filename(fixture->folder, "agent.sock", NULL);
}

static inline void fixture_set_up(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    fixture_folder(fixture);
    fixture_listen(fixture, NULL, NULL, NULL);
    fixture->channel = fixture_connect(fixture);
}

static inline void agent_stop(GPid *agent)
{
    int status;

    if (*agent == 0)
        return;
    kill(*agent, SIGTERM);
    g_assert_cmpint(waitpid(*agent, &status, 0), ==, *agent);
    g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    *agent = 0;
}

static inline void fixture_tear_down(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_clear_pointer(&fixture->channel, channel_free);
    agent_stop(&fixture->agent);
    g_unlink(fixture->path);
    g_assert_cmpint(g_rmdir(fixture->folder), ==, 0);
    g_free(fixture->path);
    g_free(fixture->folder);
}

static inline void on_end(ChannelEnd end, int value, const char *reason, gpointer data)
{
    Ended *ended = data;

    g_mutex_lock(&ended->mutex);
    ended->n_calls++;
    ended->end = end;
    ended->value = value;
    ended->reason = g_strdup(reason);
    g_cond_broadcast(&ended->cond);
    g_mutex_unlock(&ended->mutex);
}

static inline void wait_end(Run *run)
{
    gint64 deadline_us = g_get_monotonic_time() + ANSWER_MS * G_GINT64_CONSTANT(1000);

    g_mutex_lock(&run->ended.mutex);
    while (run->ended.n_calls == 0)
        if (!g_cond_wait_until(&run->ended.cond, &run->ended.mutex, deadline_us))
            g_error("a command did not end");
    g_mutex_unlock(&run->ended.mutex);
}

static inline void assert_end(Run *run, ChannelEnd end, int value)
{
    wait_end(run);
    if (run->ended.end != end || run->ended.value != value)
        g_error("a command ended with %d, value %d, wanted %d, value %d", run->ended.end, run->ended.value, end, value);
    g_assert_cmpuint(run->ended.n_calls, ==, 1);
}

/* Who runs the tests. */
static inline ChannelCommand own_command(const char *const *argv)
{
    return (ChannelCommand){.argv = argv, .uid = getuid(), .gid = getgid()};
}

static inline Run *run_start_command(Channel *channel, const ChannelCommand *command)
{
    g_autoptr(GError) error = NULL;
    Run *run = g_new0(Run, 1);

    g_mutex_init(&run->ended.mutex);
    g_cond_init(&run->ended.cond);
    run->output = g_byte_array_new();
    run->errors = g_byte_array_new();
    run->id = channel_exec(channel, command, &run->streams, on_end, &run->ended, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(run->id, >, 0);
    return run;
}

#define run_start(channel, ...) run_start_argv(channel, (const char *const[]){__VA_ARGS__, NULL})

static inline Run *run_start_argv(Channel *channel, const char *const *argv)
{
    ChannelCommand command = own_command(argv);

    return run_start_command(channel, &command);
}

static inline void run_close(Run *run, int *fd)
{
    if (*fd >= 0)
        close(*fd);
    if (run->streams.stdin_fd == *fd && fd != &run->streams.stdin_fd)
        run->streams.stdin_fd = -1;
    *fd = -1;
}

static inline void run_free(Run *run)
{
    wait_end(run);
    run_close(run, &run->streams.stdout_fd);
    run_close(run, &run->streams.stdin_fd);
    run_close(run, &run->streams.stderr_fd);
    g_mutex_clear(&run->ended.mutex);
    g_cond_clear(&run->ended.cond);
    g_free(run->ended.reason);
    g_byte_array_unref(run->output);
    g_byte_array_unref(run->errors);
    g_free(run);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Run, run_free)

/* Reads once into `to`; FALSE at its end. */
static inline gboolean read_some(int fd, GByteArray *to)
{
    guint8 bytes[65536];
    gssize n = read(fd, bytes, sizeof(bytes));

    g_assert_cmpint(n, >=, 0);
    g_byte_array_append(to, bytes, (guint)n);
    return n > 0;
}

/* Sends `input`, closes standard input, and reads both outputs to their ends. */
static inline void run_talk(Run *run, const guint8 *input, gsize length)
{
    gboolean out_open = TRUE, err_open = run->streams.stderr_fd >= 0;
    gsize sent = 0;

    while (out_open || err_open) {
        struct pollfd polls[3] = {{.fd = sent < length ? run->streams.stdin_fd : -1, .events = POLLOUT},
                                  {.fd = out_open ? run->streams.stdout_fd : -1, .events = POLLIN},
                                  {.fd = err_open ? run->streams.stderr_fd : -1, .events = POLLIN}};

        if (sent == length && run->streams.stdin_fd >= 0 && run->streams.stdin_fd != run->streams.stdout_fd)
            run_close(run, &run->streams.stdin_fd);
        if (poll(polls, 3, ANSWER_MS) == 0)
            g_error("a command is silent");
        if (polls[0].revents) {
            gssize n = send(run->streams.stdin_fd, input + sent, MIN(length - sent, 65536),
                            MSG_NOSIGNAL | MSG_DONTWAIT);

            sent = n > 0 ? sent + (gsize)n : n < 0 && errno == EAGAIN ? sent : length;
        }
        if (polls[1].revents)
            out_open = read_some(run->streams.stdout_fd, run->output);
        if (polls[2].revents)
            err_open = read_some(run->streams.stderr_fd, run->errors);
    }
    wait_end(run);
}

static inline void assert_bytes(const GByteArray *bytes, const char *text)
{
    g_autofree char *found = g_strndup(bytes->len ? (const char *)bytes->data : "", bytes->len);

    g_assert_cmpstr(found, ==, text);
}

/* Reads until `text` has come. */
static inline void read_until(int fd, GByteArray *to, const char *text)
{
    while (!to->data || !memmem(to->data, to->len, text, strlen(text)))
        if (!read_some(fd, to))
            g_error("the output ended before '%s', after '%.*s'", text, (int)to->len, (const char *)to->data);
}

/* Until no process of this number is left, or it is a zombie of another parent. */
static inline void wait_gone(int pid)
{
    for (;;) {
        g_autofree char *path = g_strdup_printf("/proc/%d/stat", pid);
        g_autofree char *text = NULL;

        if (!g_file_get_contents(path, &text, NULL, NULL) || strstr(text, ") Z "))
            return;
        g_usleep(5000);
    }
}
