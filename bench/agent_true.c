/* agent_true SOCKET SECONDS: waits for the agent behind a socket of QEMU's and runs `true` there; ends with its status. What hvmd
 * does at the end of a boot, for a QEMU that nobody manages. */
#include "channel.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
    GMutex lock;
    GCond ended;
    int status; /* -1: it runs */
} Wait;

static void on_end(ChannelEnd end, int value, const char *reason G_GNUC_UNUSED, gpointer data)
{
    Wait *wait = data;

    g_mutex_lock(&wait->lock);
    wait->status = end == CHANNEL_EXITED ? value : 1;
    g_cond_signal(&wait->ended);
    g_mutex_unlock(&wait->lock);
}

static int run_true(Channel *channel, GError **error)
{
    const char *argv[] = {"true", NULL};
    const ChannelCommand command = {.argv = argv, .user = "root"};
    ChannelStreams streams;
    Wait wait = {.status = -1};

    if (!channel_exec(channel, &command, &streams, on_end, &wait, error))
        return 1;
    close(streams.stdin_fd);
    close(streams.stdout_fd);
    close(streams.stderr_fd);
    g_mutex_lock(&wait.lock);
    while (wait.status < 0)
        g_cond_wait(&wait.ended, &wait.lock);
    g_mutex_unlock(&wait.lock);
    return wait.status;
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;

    if (argc != 3) {
        fprintf(stderr, "usage: agent_true SOCKET SECONDS\n");
        return 2;
    }

    g_autoptr(Channel) channel = channel_open(argv[1], "bare", (unsigned)atoi(argv[2]) * 1000, NULL, &error);
    int status = channel ? run_true(channel, &error) : 1;

    if (error)
        fprintf(stderr, "agent_true: %s\n", error->message);
    return status;
}
