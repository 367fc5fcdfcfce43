/* Starts a command: its pipes or terminal, and the process. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void set_nonblocking(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* Three pipes; `theirs` are the command's ends. */
static bool open_pipes(Command *command, int theirs[3])
{
    for (int fd = 0; fd < 3; fd++) {
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) < 0)
            return false;
        command->fds[fd] = ends[fd == 0 ? 1 : 0];
        theirs[fd] = ends[fd == 0 ? 0 : 1];
        set_nonblocking(command->fds[fd]);
    }
    return true;
}

static bool open_terminal(Command *command, const ProtocolExec *exec, int theirs[3])
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    const char *name;

    if (master < 0)
        return false;
    command->fds[1] = master;
    command->fds[0] = fcntl(master, F_DUPFD_CLOEXEC, 0);
    if (command->fds[0] < 0 || grantpt(master) < 0 || unlockpt(master) < 0 || !(name = ptsname(master)))
        return false;
    theirs[0] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (theirs[0] < 0)
        return false;
    set_nonblocking(master);
    command_resize(command, exec->rows, exec->columns);
    return true;
}

/* As few steps as possible: a failure here cannot be told to anyone but on descriptor 2. */
static _Noreturn void run(const ProtocolExec *exec, const int theirs[3], bool pty)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;

    setsid();
    if (pty)
        ioctl(theirs[0], TIOCSCTTY, 0);
    /* The agent keeps its own 0, 1 and 2 open, so none of `theirs` is among them and dup2 clears close-on-exec. */
    for (int fd = 0; fd < 3; fd++)
        dup2(theirs[pty ? 0 : fd], fd);
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &standard, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    child_run(exec);
}

void command_start(Command *command, const ProtocolExec *exec)
{
    int theirs[3] = {-1, -1, -1};
    sigset_t all, before;
    pid_t pid = -1;

    command->pty = exec->flags & PROTOCOL_EXEC_PTY;
    command->exit_text = "the guest's agent could not open a terminal or a pipe";
    if (command->pty ? open_terminal(command, exec, theirs) : open_pipes(command, theirs)) {
        command->exit_text = "the guest's agent could not make a process";
        /* A signal for the agent must not run its handler in the child. */
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, &before);
        pid = fork();
        if (pid == 0)
            run(exec, theirs, command->pty);
        sigprocmask(SIG_SETMASK, &before, NULL);
    }
    for (int fd = 0; fd < 3; fd++)
        if (theirs[fd] >= 0)
            close(theirs[fd]);
    if (pid > 0) {
        command->pid = pid;
        command->exit_text = NULL;
        return;
    }
    for (int fd = 0; fd < 3; fd++)
        stream_close(command, fd);
    command->exit_kind = PROTOCOL_EXIT_FAILED;
    command->exit_due = true;
}

void command_signal(Command *command, int signal_number)
{
    /* The child may not have called setsid() yet: then its group does not exist. */
    if (command->pid && kill(-command->pid, signal_number) < 0 && errno == ESRCH)
        kill(command->pid, signal_number);
}

void command_resize(Command *command, uint16_t rows, uint16_t columns)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};

    if (command->pty && command->fds[1] >= 0)
        ioctl(command->fds[1], TIOCSWINSZ, &size);
}
