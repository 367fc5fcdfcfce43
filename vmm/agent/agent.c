/*
 * hvm-agent: runs in a guest and starts the commands that hvmd asks for.
 *
 *   hvm-agent [--grow-root] [PORT]     in a vm: a virtio-serial port or a serial line (default: the port of that name)
 *   hvm-agent --listen SOCKET          in a container, where it may be process 1: a UNIX socket, one client at a time
 *   hvm-agent --fd N                   an open descriptor; ends with it
 *   --power-off-program PROGRAM        for tests: run instead of powering off
 *
 * It never ends on what it reads. With --listen and --fd the kernel is not the guest's own, so POWER_OFF ends the agent
 * there, never the machine.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* A port whose other end is closed is readable (and hung up) all the time: looked at this often instead of polled. As
 * process 1 the agent is there before its port: the pauses begin with 1 ms and double up to these. */
#define HUNG_PAUSE_MS 100
#define MISSING_PAUSE_MS 1000
#define READS_PER_ROUND 32

typedef struct {
    Session session;
    const char *port_path;   /* or NULL: look for it */
    const char *listen_path; /* or NULL */
    const char *power_off_program;
    int listener;
    int port; /* -1 while closed */
    bool port_is_fd;
    bool hung_up;
    bool more; /* is due than the queue had room for */
    bool grow_root;
    int pause_ms; /* the last pause */
    unsigned turn; /* the command that is read first, for fairness */
    int wake;
    struct pollfd polls[3 + 3 * PROTOCOL_STREAMS_MAX];
} Agent;

static int wake_write;
static volatile sig_atomic_t terminated;

static void on_signal(int number)
{
    int code = errno;

    if (number != SIGCHLD)
        terminated = 1;
    write(wake_write, "", 1); /* full: it wakes up anyway */
    errno = code;
}

static void install_signals(Agent *agent)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_NOCLDSTOP};
    int ends[2];

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        perror("hvm-agent: pipe");
        exit(1);
    }
    agent->wake = ends[0];
    wake_write = ends[1];
    sigaction(SIGCHLD, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

static void reap(Agent *agent)
{
    char bytes[64];

    while (read(agent->wake, bytes, sizeof(bytes)) > 0)
        continue;
    for (;;) {
        siginfo_t info = {0};

        /* Looked at before it is reaped: until then its number is nobody else's. All children, as process 1 must. */
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return;
        session_child_ended(&agent->session, info.si_pid, info.si_code, info.si_status);
        waitpid(info.si_pid, NULL, WNOHANG);
    }
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (strlen(path) >= sizeof(address.sun_path)) {
        fprintf(stderr, "hvm-agent: the socket's path is too long: %s\n", path);
        exit(1);
    }
    strcpy(address.sun_path, path);
    unlink(path);
    umask(0177); /* every command sets its own */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0) {
        perror("hvm-agent: cannot listen");
        exit(1);
    }
    return fd;
}

static void open_port(Agent *agent)
{
    const char *path = agent->port_path ? agent->port_path : system_find_port();
    struct termios settings;

    if (!path || (agent->port = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)) < 0)
        return;
    if (tcgetattr(agent->port, &settings) == 0) { /* a serial line: bytes as they are */
        cfmakeraw(&settings);
        settings.c_cflag |= CLOCAL | CREAD;
        settings.c_cc[VMIN] = 1;
        settings.c_cc[VTIME] = 0;
        tcsetattr(agent->port, TCSANOW, &settings);
    }
}

static void port_lost(Agent *agent, bool reopen)
{
    if (!agent->hung_up)
        session_hang_up(&agent->session);
    agent->hung_up = true;
    if (agent->port >= 0 && (reopen || agent->listen_path)) {
        close(agent->port);
        agent->port = -1;
    }
}

/* Also while hung up: bytes, or a read that would wait, tell that somebody is there again. False: there was nothing to
 * read. */
static bool read_port(Agent *agent)
{
    size_t room;
    uint8_t *to = protocol_parser_space(&agent->session.parser, &room);
    ssize_t n = read(agent->port, to, room);

    if (n > 0) {
        agent->hung_up = false;
        protocol_parser_filled(&agent->session.parser, (size_t)n);
        session_parse(&agent->session);
        return true;
    }
    if (n < 0 && errno == EAGAIN) {
        agent->hung_up = false;
    } else if (n == 0 || errno != EINTR) {
        port_lost(agent, n < 0 && errno != EIO && errno != ECONNRESET);
    }
    return false;
}

static void write_port(Agent *agent)
{
    ProtocolQueue *queue = &agent->session.queue;
    ssize_t n;

    if (agent->port < 0 || agent->hung_up || queue->start == queue->end)
        return;
    n = write(agent->port, queue->buffer + queue->start, queue->end - queue->start);
    if (n > 0)
        queue->start += (size_t)n;
    else if (n < 0 && errno != EAGAIN && errno != EINTR)
        port_lost(agent, errno == ENODEV);
}

static nfds_t fill_polls(Agent *agent)
{
    Session *session = &agent->session;
    bool room = protocol_queue_payload(&session->queue, PROTOCOL_PAYLOAD_MAX);
    nfds_t n = 3;

    agent->polls[0] = (struct pollfd){.fd = agent->wake, .events = POLLIN};
    agent->polls[1] = (struct pollfd){.fd = agent->hung_up ? -1 : agent->port, .events = POLLIN};
    if (session->queue.start < session->queue.end || agent->more)
        agent->polls[1].events |= POLLOUT;
    agent->polls[2] = (struct pollfd){.fd = agent->port < 0 && !terminated ? agent->listener : -1, .events = POLLIN};
    for (unsigned i = 0; i < session->n_slots; i++) {
        const Command *command = &session->commands[i];

        for (int fd = 0; fd < 3; fd++, n++) {
            agent->polls[n] = (struct pollfd){.fd = -1};
            if (!command->id || command->fds[fd] < 0)
                continue;
            if (fd == 0 && (command->input || !command->pty)) /* a pipe whose reader is gone says so unasked */
                agent->polls[n] = (struct pollfd){.fd = command->fds[0], .events = command->input ? POLLOUT : 0};
            else if (fd > 0 && room && stream_wants_read(command, fd))
                agent->polls[n] = (struct pollfd){.fd = command->fds[fd], .events = POLLIN};
        }
    }
    return n;
}

static void serve_inputs(Agent *agent, unsigned n_polled)
{
    for (unsigned i = 0; i < n_polled; i++) {
        Command *command = &agent->session.commands[i];
        short events = agent->polls[3 + 3 * i].revents;

        if (!command->id || command->fds[0] < 0 || agent->polls[3 + 3 * i].fd != command->fds[0] || !events)
            continue;
        if (events & POLLOUT)
            stream_write(command);
        if (command->fds[0] >= 0 && events & (POLLERR | POLLHUP | POLLNVAL)) {
            stream_close(command, 0);
            command->close_due = true;
        }
    }
}

static void serve_outputs(Agent *agent, unsigned n_polled)
{
    for (unsigned k = 0; k < n_polled; k++) {
        unsigned i = (agent->turn + k) % n_polled;
        Command *command = &agent->session.commands[i];

        for (int fd = 1; fd <= 2; fd++) {
            const struct pollfd *polled = &agent->polls[3 + 3 * i + (unsigned)fd];

            if (!command->id || !stream_wants_read(command, fd))
                continue;
            /* What was polled may have ended, and a new command have its place. After the end of the main process it is
             * read without being asked for: only then an empty terminal tells that it is empty. */
            if (command->drain[fd] < 0 && (!polled->revents || polled->fd != command->fds[fd]))
                continue;
            if (!stream_read(&agent->session, command, fd)) {
                agent->turn = i; /* it is the first next time */
                return;
            }
        }
    }
    agent->turn++;
}

/* Whether there is something to read which poll() does not tell of. */
static bool is_draining(Agent *agent)
{
    const Command *commands = agent->session.commands;

    if (!protocol_queue_payload(&agent->session.queue, PROTOCOL_PAYLOAD_MAX))
        return false;
    for (unsigned i = 0; i < agent->session.n_slots; i++)
        for (int fd = 1; fd <= 2; fd++)
            if (commands[i].id && stream_wants_read(&commands[i], fd) && commands[i].drain[fd] >= 0)
                return true;
    return false;
}

static int wait_ms(Agent *agent)
{
    int timer = session_timers(&agent->session);
    int pause = -1;

    if (is_draining(agent))
        return 0;
    if ((agent->port < 0 && agent->listener < 0) || (agent->grow_root && !agent->hung_up))
        pause = MISSING_PAUSE_MS;
    else if (agent->hung_up && agent->port >= 0)
        pause = HUNG_PAUSE_MS;
    if (pause < 0)
        agent->pause_ms = 0;
    else
        pause = agent->pause_ms = agent->pause_ms * 2 + 1 < pause ? agent->pause_ms * 2 + 1 : pause;
    return pause < 0 || (timer >= 0 && timer < pause) ? timer : pause;
}

static void begin_power_off(Agent *agent)
{
    bool is_init = getpid() == 1;

    agent->session.power_off = false;
    if (!agent->power_off_program && (agent->listen_path || agent->port_is_fd)) {
        terminated = 1;
        return;
    }
    if (fork() == 0) {
        setsid();
        signal(SIGCHLD, SIG_DFL);
        signal(SIGTERM, SIG_IGN); /* it outlives the agent */
        system_power_off(agent->power_off_program, is_init);
    }
}

static void prepare_port(Agent *agent)
{
    if (terminated || (agent->port_is_fd && agent->port < 0))
        return;
    if (agent->port < 0 && agent->listener >= 0)
        agent->port = accept4(agent->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    else if (agent->port < 0)
        open_port(agent);
    if (agent->port >= 0)
        read_port(agent); /* tells whether somebody is at the other end */
}

static void serve(Agent *agent)
{
    ProtocolQueue *queue = &agent->session.queue;
    unsigned n_polled; /* commands; more may start before they are served */
    nfds_t n;
    int timeout_ms;

    if (agent->port < 0 || agent->hung_up)
        prepare_port(agent);
    if (agent->grow_root)
        agent->grow_root = !system_grow_root();
    timeout_ms = wait_ms(agent);
    n = fill_polls(agent);
    n_polled = agent->session.n_slots;
    if (poll(agent->polls, n, timeout_ms) < 0)
        return;
    /* A virtio-serial port gives at most a page at a time. */
    for (int i = 0; i < READS_PER_ROUND && agent->polls[1].revents & ~POLLOUT; i++)
        if (!read_port(agent))
            break;
    if (agent->polls[0].revents)
        reap(agent);
    serve_inputs(agent, n_polled);
    session_emit(&agent->session);
    if (!agent->hung_up)
        serve_outputs(agent, n_polled);
    agent->more = !session_emit(&agent->session);
    write_port(agent);
    if (agent->session.power_off && !agent->session.power_off_ack_due && queue->start == queue->end)
        begin_power_off(agent);
}

static bool is_finished(const Agent *agent)
{
    return (terminated || (agent->port_is_fd && agent->hung_up)) && !session_has_commands(&agent->session);
}

static int usage(void)
{
    fprintf(stderr, "usage: hvm-agent [--grow-root] [--power-off-program PROGRAM] [PORT | --listen SOCKET | --fd N]\n");
    return 2;
}

static bool parse_options(Agent *agent, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i];

        if (strcmp(option, "--grow-root") == 0) {
            agent->grow_root = true;
        } else if (option[0] != '-') {
            agent->port_path = option;
        } else if (++i == argc) {
            return false;
        } else if (strcmp(option, "--listen") == 0) {
            agent->listen_path = argv[i];
        } else if (strcmp(option, "--fd") == 0) {
            agent->port = atoi(argv[i]);
            agent->port_is_fd = true;
        } else if (strcmp(option, "--power-off-program") == 0) {
            agent->power_off_program = argv[i];
        } else {
            return false;
        }
    }
    return !(agent->port_path && agent->listen_path);
}

int main(int argc, char **argv)
{
    static Agent agent; /* zero, so that it takes no room in the file */
    bool ending = false;

    system_sort_descriptors();
    agent.port = agent.listener = -1;
    if (!parse_options(&agent, argc, argv))
        return usage();
    session_init(&agent.session);
    agent.more = true; /* that it has started */
    install_signals(&agent);
    system_oom_protect();
    if (agent.listen_path)
        agent.listener = listen_at(agent.listen_path);
    if (agent.port_is_fd)
        fcntl(agent.port, F_SETFL, fcntl(agent.port, F_GETFL) | O_NONBLOCK);
    while (!is_finished(&agent)) {
        if (terminated && !ending) {
            port_lost(&agent, true);
            ending = true;
        }
        serve(&agent);
    }
    if (agent.listen_path)
        unlink(agent.listen_path);
    else if (getpid() == 1) /* of a vm: the kernel would panic */
        system_power_off(agent.power_off_program, true);
    return 0;
}
