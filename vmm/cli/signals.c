#include "signals.h"

#include <glib-unix.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

typedef struct {
    SignalFunc func;
    gpointer data;
} Taker;

static gboolean on_readable(int fd, GIOCondition condition G_GNUC_UNUSED, gpointer data)
{
    const Taker *taker = data;
    struct signalfd_siginfo info;

    if (read(fd, &info, sizeof info) == sizeof info)
        taker->func((int)info.ssi_signo, taker->data);
    return G_SOURCE_CONTINUE;
}

void signals_take(const int *numbers, SignalFunc func, gpointer data)
{
    Taker *taker = g_new0(Taker, 1);
    sigset_t set;
    int fd = -1;

    taker->func = func;
    taker->data = data;
    sigemptyset(&set);
    for (; *numbers; numbers++) {
        struct sigaction before;

        sigaction(*numbers, NULL, &before);
        if (before.sa_handler != SIG_IGN)
            sigaddset(&set, *numbers);
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    g_unix_fd_add_full(G_PRIORITY_DEFAULT, fd, G_IO_IN, on_readable, taker, g_free);
}
