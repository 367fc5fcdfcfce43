#include "process.h"

#include "hvm_error.h"

#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUTPUT_MAX = 16 << 20, LINE_MAX_BYTES = 4096 };

typedef struct {
    GString *output;
    GString *line;      /* the unfinished line of standard error */
    char *last_line;    /* the last line that was not blank */
    const ProcessOptions *options;
} Capture;

/* PR_SET_PDEATHSIG fires when the parent *thread* ends; workers outlive the call, so that is right here. */
static void child_setup(gpointer data G_GNUC_UNUSED)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static void end_line(Capture *capture)
{
    if (capture->options->on_line && capture->line->len)
        capture->options->on_line(capture->line->str, capture->options->data);
    if (strspn(capture->line->str, " \t\r") < capture->line->len) {
        g_free(capture->last_line);
        capture->last_line = hvm_escape(capture->line->str, (gssize)capture->line->len);
    }
    g_string_truncate(capture->line, 0);
}

static void take_stderr(Capture *capture, const char *buffer, gsize length)
{
    for (gsize i = 0; i < length; i++) {
        if (buffer[i] == '\n' || buffer[i] == '\r')
            end_line(capture);
        else if (capture->line->len < LINE_MAX_BYTES)
            g_string_append_c(capture->line, buffer[i]);
    }
}

/* Reads both pipes to their ends. FALSE on time-out or cancellation, with `error`. */
static gboolean pump(Capture *capture, int out_fd, int err_fd, const char *name, GError **error)
{
    const ProcessOptions *options = capture->options;
    gint64 deadline = options->timeout_ms ? g_get_monotonic_time() + (gint64)options->timeout_ms * 1000 : 0;
    struct pollfd fds[3] = {{out_fd, POLLIN, 0}, {err_fd, POLLIN, 0}, {-1, POLLIN, 0}};
    char buffer[65536];
    gboolean good = TRUE;

    if (options->cancellable)
        fds[2].fd = g_cancellable_get_fd(options->cancellable);
    while (good && (fds[0].fd >= 0 || fds[1].fd >= 0)) {
        int wait_ms = deadline ? (int)CLAMP((deadline - g_get_monotonic_time()) / 1000 + 1, 0, G_MAXINT) : -1;
        int ready = poll(fds, 3, wait_ms);

        if (ready < 0 && errno == EINTR)
            continue;
        if (options->cancellable && g_cancellable_set_error_if_cancelled(options->cancellable, error)) {
            good = FALSE;
        } else if (ready == 0) {
            g_set_error(error, HVM_ERROR, HVM_ERROR_TIMEOUT, "%s did not end within %u s", name,
                        options->timeout_ms / 1000);
            good = FALSE;
        }
        for (int i = 0; good && i < 2; i++) {
            if (!(fds[i].revents & (POLLIN | POLLHUP | POLLERR)))
                continue;
            ssize_t count = read(fds[i].fd, buffer, sizeof buffer);

            if (count <= 0)
                fds[i].fd = -1;
            else if (i == 1)
                take_stderr(capture, buffer, (gsize)count);
            else if (capture->output->len + (gsize)count <= OUTPUT_MAX)
                g_string_append_len(capture->output, buffer, count);
        }
    }
    if (options->cancellable)
        g_cancellable_release_fd(options->cancellable);
    return good;
}

gboolean process_run(const char *const *argv, const ProcessOptions *options, int code, char **ret_output, GError **error)
{
    static const ProcessOptions none = {0};
    Capture capture = {.options = options ? options : &none};
    g_auto(GStrv) environment = g_get_environ();
    g_autoptr(GError) local = NULL;
    GPid pid = 0;
    int out_fd = -1, err_fd = -1, status = 0;

    for (const char *const *pair = capture.options->environment; pair && *pair; pair++) {
        g_auto(GStrv) parts = g_strsplit(*pair, "=", 2);

        environment = g_environ_setenv(environment, parts[0], parts[1], TRUE);
    }
    if (!g_spawn_async_with_pipes(capture.options->directory, (char **)argv, environment,
                                  G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, child_setup, NULL, &pid, NULL, &out_fd,
                                  &err_fd, &local)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot run %s: %s", argv[0], local->message);
        return FALSE;
    }
    capture.output = g_string_new(NULL);
    capture.line = g_string_new(NULL);

    gboolean good = pump(&capture, out_fd, err_fd, argv[0], error);

    if (!good)
        kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(out_fd);
    close(err_fd);
    end_line(&capture);
    if (good && !(WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
        g_set_error(error, HVM_ERROR, code, "%s %s %d%s%s", argv[0],
                    WIFSIGNALED(status) ? "was ended by signal" : "failed with status",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), capture.last_line ? ": " : "",
                    capture.last_line ? capture.last_line : "");
        good = FALSE;
    }
    if (good && ret_output)
        *ret_output = g_string_free(g_steal_pointer(&capture.output), FALSE);
    if (capture.output)
        g_string_free(capture.output, TRUE);
    g_string_free(capture.line, TRUE);
    g_free(capture.last_line);
    return good;
}
