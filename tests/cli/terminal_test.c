#include "terminal_test.h"

#include "run_hvm.h"

#include <pty.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

char *run_shell(FakeHvmd *fake, const char *line, int *ret_status)
{
    const char *argv[] = {"/bin/bash", "-c", line, NULL};
    g_auto(GStrv) environment = g_environ_setenv(g_get_environ(), "HVM_SOCKET", fake_socket(fake), TRUE);
    g_autoptr(GError) error = NULL;
    char *output = NULL;
    int status = 0;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, environment, G_SPAWN_DEFAULT, NULL, NULL, &output, NULL, &status, &error));
    *ret_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return output;
}

pid_t spawn_on_terminal(FakeHvmd *fake, const char *const *argv, int *ret_master)
{
    struct winsize size = {.ws_row = 40, .ws_col = 100};
    g_auto(GStrv) environment = g_environ_setenv(g_get_environ(), "HVM_SOCKET", fake_socket(fake), TRUE);
    pid_t pid = 0;

    environment = g_environ_setenv(environment, "TERM", "xterm", TRUE);
    pid = forkpty(ret_master, NULL, NULL, &size);
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        execve(argv[0], (char **)argv, environment);
        _exit(99);
    }
    return pid;
}

gboolean is_raw(int master)
{
    struct termios mode;

    g_assert_cmpint(tcgetattr(master, &mode), ==, 0);
    return !(mode.c_lflag & (ICANON | ECHO | ISIG));
}

void expect(int master, const char *text)
{
    g_autoptr(GString) all = g_string_new(NULL);
    char buffer[256];

    while (!strstr(all->str, text)) {
        ssize_t count = read(master, buffer, sizeof buffer);

        g_assert_cmpint(count, >, 0);
        g_string_append_len(all, buffer, count);
    }
}

int wait_pid(pid_t pid)
{
    int status = 0;

    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
