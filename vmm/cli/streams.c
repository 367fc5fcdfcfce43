#include "streams.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 128 << 10, BACKGROUND_POLL_US = 200000 };

typedef struct {
    int from;
    int to;
    int error_number;
    gboolean reading;
    StreamEndFunc func;
    gpointer data;
} Pump;

static gboolean tell_end(gpointer data)
{
    g_autofree Pump *pump = data;

    pump->func(pump->error_number, pump->reading, pump->data);
    return G_SOURCE_REMOVE;
}

static void end_pump(Pump *pump, int error_number, gboolean reading)
{
    pump->error_number = error_number;
    pump->reading = reading;
    g_main_context_invoke(NULL, tell_end, pump);
}

/* Whether to try again after errno: a descriptor that somebody made non-blocking is waited for. */
static gboolean retry(int fd, short events)
{
    struct pollfd poll_fd = {fd, events, 0};

    if (errno == EINTR)
        return TRUE;
    if (errno != EAGAIN)
        return FALSE;
    poll(&poll_fd, 1, -1);
    return TRUE;
}

static ssize_t read_some(int fd, char *buffer)
{
    ssize_t count = 0;

    do
        count = read(fd, buffer, BUFFER_BYTES);
    while (count < 0 && retry(fd, POLLIN));
    return count;
}

/* The whole of it; FALSE with errno. */
static gboolean write_all(int fd, gboolean is_socket, const char *buffer, ssize_t length)
{
    while (length > 0) {
        ssize_t count = is_socket ? send(fd, buffer, (size_t)length, MSG_NOSIGNAL) : write(fd, buffer, (size_t)length);

        if (count < 0 && !retry(fd, POLLOUT))
            return FALSE;
        if (count > 0) {
            buffer += count;
            length -= count;
        }
    }
    return TRUE;
}

static gpointer output_thread(gpointer data)
{
    Pump *pump = data;
    g_autofree char *buffer = g_malloc(BUFFER_BYTES);
    ssize_t count = 0;

    while ((count = read_some(pump->from, buffer)) > 0) {
        if (!write_all(pump->to, FALSE, buffer, count)) {
            end_pump(pump, errno, FALSE);
            return NULL;
        }
    }
    /* A socket whose other side died with bytes of ours unread gives ECONNRESET at its end. */
    end_pump(pump, count < 0 && errno != ECONNRESET ? errno : 0, TRUE);
    return NULL;
}

/* Whether a read failed because the terminal is another process group's now. */
static gboolean in_background(int fd)
{
    return errno == EIO && isatty(fd) && tcgetpgrp(fd) != getpgrp();
}

static gpointer input_thread(gpointer data)
{
    Pump *pump = data;
    g_autofree char *buffer = g_malloc(BUFFER_BYTES);
    sigset_t set;

    /* With SIGTTIN blocked a background read gives EIO and does not stop the process. */
    sigemptyset(&set);
    sigaddset(&set, SIGTTIN);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    for (;;) {
        ssize_t count = read_some(pump->from, buffer);

        if (count < 0 && in_background(pump->from)) {
            g_usleep(BACKGROUND_POLL_US);
            continue;
        }
        if (count <= 0) {
            int error_number = count < 0 ? errno : 0;

            /* What broke off in the middle must not look like its end to the command. */
            if (!error_number)
                shutdown(pump->to, SHUT_WR);
            end_pump(pump, error_number, TRUE);
            return NULL;
        }
        if (!write_all(pump->to, TRUE, buffer, count)) {
            gboolean closed = errno == EPIPE || errno == ECONNRESET;

            end_pump(pump, closed ? 0 : errno, FALSE);
            return NULL;
        }
    }
}

static void start(GThreadFunc thread, const char *name, int from, int to, StreamEndFunc func, gpointer data)
{
    Pump *pump = g_new0(Pump, 1);

    pump->from = from;
    pump->to = to;
    pump->func = func;
    pump->data = data;
    g_thread_unref(g_thread_new(name, thread, pump));
}

void stream_pump_output(int socket_fd, int fd, StreamEndFunc func, gpointer data)
{
    start(output_thread, "output", socket_fd, fd, func, data);
}

void stream_pump_input(int fd, int socket_fd, StreamEndFunc func, gpointer data)
{
    start(input_thread, "input", fd, socket_fd, func, data);
}
