/* Commands through a real agent: statuses, streams, users, terminals, ends. The protocol's tests are
 * test_agent_protocol.c. */
#include "agent_fixture.h"

#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void test_status(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    static const struct {
        const char *script;
        ChannelEnd end;
        int value;
    } rows[] = {
        {"exit 0", CHANNEL_EXITED, 0},
        {"exit 3", CHANNEL_EXITED, 3},
        {"exit 255", CHANNEL_EXITED, 255},
        {"kill -TERM $$", CHANNEL_SIGNALED, SIGTERM},
        {"kill -KILL $$", CHANNEL_SIGNALED, SIGKILL},
    };

    for (guint i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(Run) run = run_start(fixture->channel, "sh", "-c", rows[i].script);

        run_talk(run, NULL, 0);
        assert_end(run, rows[i].end, rows[i].value);
    }
}

static void test_not_started(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_autofree char *plain = g_build_filename(fixture->folder, "plain", NULL);
    g_autofree char *script = g_build_filename(fixture->folder, "script", NULL);
    g_autofree char *denied = g_strdup_printf("%s: Permission denied\n", plain);
    g_autoptr(Run) unknown = run_start(fixture->channel, "no-such-program");
    g_autoptr(Run) missing = run_start(fixture->channel, "/no/such/program");
    g_autoptr(Run) refused = NULL;
    g_autoptr(Run) bare = NULL;

    run_talk(unknown, NULL, 0);
    assert_end(unknown, CHANNEL_EXITED, 127);
    assert_bytes(unknown->errors, "no-such-program: command not found\n");
    run_talk(missing, NULL, 0);
    assert_end(missing, CHANNEL_EXITED, 127);
    assert_bytes(missing->errors, "/no/such/program: No such file or directory\n");

    g_assert_true(g_file_set_contents(plain, "text", -1, NULL));
    refused = run_start(fixture->channel, plain);
    run_talk(refused, NULL, 0);
    assert_end(refused, CHANNEL_EXITED, 126);
    assert_bytes(refused->errors, denied);

    /* Without "#!" it is the shell's, as a shell has it. */
    g_assert_true(g_file_set_contents(script, "echo \"$1\"\n", -1, NULL));
    g_assert_cmpint(g_chmod(script, 0755), ==, 0);
    bare = run_start(fixture->channel, script, "a word");
    run_talk(bare, NULL, 0);
    assert_end(bare, CHANNEL_EXITED, 0);
    assert_bytes(bare->output, "a word\n");
    g_unlink(plain);
    g_unlink(script);
}

static void test_streams_apart(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(Run) run = run_start(fixture->channel, "sh", "-c", "echo out; echo err >&2; cat");

    run_talk(run, (const guint8 *)"in\n", 3);
    assert_end(run, CHANNEL_EXITED, 0);
    assert_bytes(run->output, "out\nin\n");
    assert_bytes(run->errors, "err\n");
}

static void test_bulk(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    gsize length = 64 << 20;
    g_autofree guint8 *bytes = g_malloc(length);
    g_autofree char *sent = NULL;
    g_autofree char *came = NULL;
    g_autoptr(Run) run = run_start(fixture->channel, "cat");
    guint64 state = (guint64)g_test_rand_int() | 1;

    for (gsize i = 0; i < length; i += 8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        memcpy(bytes + i, &state, 8);
    }
    sent = g_compute_checksum_for_data(G_CHECKSUM_SHA256, bytes, length);
    run_talk(run, bytes, length);
    assert_end(run, CHANNEL_EXITED, 0);
    g_assert_cmpuint(run->output->len, ==, length);
    came = g_compute_checksum_for_data(G_CHECKSUM_SHA256, run->output->data, run->output->len);
    g_assert_cmpstr(came, ==, sent);
}

static void test_long_command(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autofree char *word = g_strnfill(20000, 'x');
    g_autofree char *huge = g_strnfill(PROTOCOL_EXEC_MAX, 'x');
    const char *too_long[] = {"true", huge, NULL};
    ChannelCommand command = own_command(too_long);
    g_autoptr(GError) error = NULL;
    g_autoptr(Run) run = NULL;
    ChannelStreams streams;

    g_ptr_array_add(argv, (gpointer) "sh");
    g_ptr_array_add(argv, (gpointer) "-c");
    g_ptr_array_add(argv, (gpointer) "echo $# ${#20}");
    g_ptr_array_add(argv, (gpointer) "sh");
    for (int i = 0; i < 20; i++)
        g_ptr_array_add(argv, word);
    g_ptr_array_add(argv, NULL);
    run = run_start_argv(fixture->channel, (const char *const *)argv->pdata);
    run_talk(run, NULL, 0);
    assert_end(run, CHANNEL_EXITED, 0);
    assert_bytes(run->output, "20 20000\n");

    g_assert_cmpuint(channel_exec(fixture->channel, &command, &streams, on_end, NULL, &error), ==, 0);
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
}

static void test_signals(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(Run) caught = run_start(fixture->channel, "sh", "-c",
                                      "trap 'echo usr1; exit 7' USR1; echo ready; while :; do sleep 0.01; done");
    g_autoptr(Run) plain = run_start(fixture->channel, "sh", "-c", "echo ready; sleep 1000");
    g_autoptr(GError) error = NULL;

    read_until(caught->streams.stdout_fd, caught->output, "ready\n");
    g_assert_true(channel_signal(fixture->channel, caught->id, SIGUSR1, &error));
    run_talk(caught, NULL, 0);
    assert_end(caught, CHANNEL_EXITED, 7);
    assert_bytes(caught->output, "ready\nusr1\n");

    read_until(plain->streams.stdout_fd, plain->output, "ready\n");
    g_assert_true(channel_signal(fixture->channel, plain->id, SIGTERM, &error));
    assert_end(plain, CHANNEL_SIGNALED, SIGTERM);

    g_assert_false(channel_signal(fixture->channel, 12345, SIGINT, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND);
    g_clear_error(&error);
    g_assert_false(channel_signal(fixture->channel, plain->id, 65, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
}

static Run *start_terminal(Fixture *fixture, const char *script)
{
    const char *argv[] = {"sh", "-c", script, NULL};
    ChannelCommand command = own_command(argv);

    command.pty = TRUE;
    command.rows = 33;
    command.columns = 101;
    return run_start_command(fixture->channel, &command);
}

static void test_terminal(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(Run) run = start_terminal(fixture, "trap 'stty size' WINCH; stty size; echo err >&2;"
                                                 "tty >/dev/null && echo ready;"
                                                 "while ! read line; do :; done; echo \"<$line>\"; exit 5");
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(run->streams.stdin_fd, ==, run->streams.stdout_fd);
    g_assert_cmpint(run->streams.stderr_fd, ==, -1);
    read_until(run->streams.stdout_fd, run->output, "ready\r\n");
    assert_bytes(run->output, "33 101\r\nerr\r\nready\r\n");
    g_assert_true(channel_resize(fixture->channel, run->id, 50, 132, &error));
    read_until(run->streams.stdout_fd, run->output, "50 132\r\n");
    g_assert_cmpint(write(run->streams.stdin_fd, "word\n", 5), ==, 5);
    while (read_some(run->streams.stdout_fd, run->output))
        continue;
    assert_end(run, CHANNEL_EXITED, 5);
    g_assert_nonnull(memmem(run->output->data, run->output->len, "<word>\r\n", 8));
}

static void test_terminal_keys(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(Run) interrupted = start_terminal(fixture, "exec cat");
    g_autoptr(Run) ended = start_terminal(fixture, "stty -echo; echo ready; cat; echo over");
    g_autoptr(Run) closed = start_terminal(fixture, "echo ready; sleep 1000");

    /* A controlling terminal: its interrupt character is a signal. (To cat, once it runs: a shell may just be busy with
     * a fork, and lose it.) */
    g_assert_cmpint(write(interrupted->streams.stdin_fd, "go\n", 3), ==, 3);
    read_until(interrupted->streams.stdout_fd, interrupted->output, "go\r\ngo\r\n");
    g_assert_cmpint(write(interrupted->streams.stdin_fd, "\003", 1), ==, 1);
    assert_end(interrupted, CHANNEL_SIGNALED, SIGINT);

    /* The end of the client's input is an end of file, in the middle of a line too. */
    read_until(ended->streams.stdout_fd, ended->output, "ready\r\n");
    g_assert_cmpint(write(ended->streams.stdin_fd, "half", 4), ==, 4);
    shutdown(ended->streams.stdin_fd, SHUT_WR);
    while (read_some(ended->streams.stdout_fd, ended->output))
        continue;
    assert_end(ended, CHANNEL_EXITED, 0);
    assert_bytes(ended->output, "ready\r\nhalfover\r\n");

    /* A closed terminal is a hang-up. */
    read_until(closed->streams.stdout_fd, closed->output, "ready\r\n");
    run_close(closed, &closed->streams.stdout_fd);
    assert_end(closed, CHANNEL_SIGNALED, SIGHUP);
}

static void test_terminal_bulk(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(Run) run = start_terminal(fixture, "stty raw; seq 1 50000; (sleep 1000 & echo $!)");
    g_autoptr(GString) expected = g_string_new(NULL);
    int pid;

    while (read_some(run->streams.stdout_fd, run->output))
        continue;
    assert_end(run, CHANNEL_EXITED, 0);
    for (int i = 1; i <= 50000; i++)
        g_string_append_printf(expected, "%d\n", i);
    g_assert_cmpuint(run->output->len, >, expected->len);
    g_assert_cmpint(memcmp(run->output->data, expected->str, expected->len), ==, 0);
    g_byte_array_append(run->output, (const guint8 *)"", 1);
    pid = atoi((const char *)run->output->data + expected->len);
    g_assert_cmpint(pid, >, 1);
    kill(pid, SIGKILL);
}

static void assert_directory(Fixture *fixture, const char *wanted, const char *home, const char *found)
{
    g_autofree char *variable = g_strdup_printf("%s\n", found);
    const char *argv[] = {"pwd", NULL};
    ChannelCommand command = own_command(argv);
    g_autoptr(Run) run = NULL;

    command.directory = wanted;
    command.uid = 4000000001u; /* nobody's here, and no name is given: its home is what the request says */
    command.gid = 4000000001u;
    command.home = home;
    run = run_start_command(fixture->channel, &command);
    run_talk(run, NULL, 0);
    assert_end(run, CHANNEL_EXITED, 0);
    assert_bytes(run->output, variable);
}

static void test_directory(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    const char *argv[] = {"pwd", NULL};
    ChannelCommand command = own_command(argv);
    g_autoptr(Run) run = NULL;
    g_autofree char *closed = g_build_filename(fixture->folder, "closed", NULL);

    command.directory = "/no/such/folder";
    command.directory_required = TRUE;
    run = run_start_command(fixture->channel, &command);
    run_talk(run, NULL, 0);
    assert_end(run, CHANNEL_EXITED, 125);
    assert_bytes(run->errors, "hvm-agent: cannot enter /no/such/folder: No such file or directory\n");
    if (getuid() != 0) {
        g_test_skip("needs root to run as another user");
        return;
    }
    g_assert_cmpint(g_mkdir(closed, 0700), ==, 0);
    assert_directory(fixture, "/usr/bin", "/tmp", "/usr/bin");
    assert_directory(fixture, "/no/such/folder", "/tmp", "/tmp");
    assert_directory(fixture, closed, "/tmp", "/tmp"); /* it exists, but not for that user */
    assert_directory(fixture, NULL, "/tmp", "/tmp");
    assert_directory(fixture, "/no/such/folder", closed, "/");
    assert_directory(fixture, "/no/such/folder", "/../tmp", "/");
    g_assert_cmpint(g_rmdir(closed), ==, 0);
}

static void test_environment(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    const char *argv[] = {"env", NULL};
    const char *given[] = {"LANG=C.UTF-8", "EMPTY=", "HOME=/elsewhere", "TERM=vt100", "TWICE=1", "TWICE=2", NULL};
    ChannelCommand command = own_command(argv);
    g_autoptr(Run) run = NULL;
    g_auto(GStrv) lines = NULL;

    command.environment = given;
    run = run_start_command(fixture->channel, &command);
    run_talk(run, NULL, 0);
    g_byte_array_append(run->output, (const guint8 *)"", 1);
    lines = g_strsplit((const char *)run->output->data, "\n", -1);
    g_assert_true(g_strv_contains((const char *const *)lines, "LANG=C.UTF-8"));
    g_assert_true(g_strv_contains((const char *const *)lines, "EMPTY="));
    g_assert_true(g_strv_contains((const char *const *)lines, "HOME=/elsewhere"));
    g_assert_true(g_strv_contains((const char *const *)lines, "TERM=vt100"));
    g_assert_true(g_strv_contains((const char *const *)lines, "TWICE=2"));
    g_assert_true(g_strv_contains((const char *const *)lines,
                                  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    g_assert_cmpuint(g_strv_length(lines), ==, 9 + 1); /* and USER, LOGNAME, SHELL: nothing of the agent's own */
}

static void test_state(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    /* Signals as a shell wants them, no descriptor of the agent's, a session of its own, and killable when memory is
     * short. */
    g_autoptr(Run) run = run_start(fixture->channel, "sh", "-c",
                                   "trap 'exit 9' PIPE; grep -E 'SigBlk|SigIgn' /proc/self/status; ls /proc/self/fd;"
                                   "[ $(cut -d' ' -f6 /proc/$$/stat) = $$ ] && echo own;"
                                   "cat /proc/self/oom_score_adj; umask");
    g_autofree char *adjust = NULL;
    g_autofree char *expected = NULL;

    g_assert_true(g_file_get_contents("/proc/self/oom_score_adj", &adjust, NULL, NULL));
    expected = g_strdup_printf("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n0\n1\n2\n3\nown\n%s0022\n",
                               adjust);
    run_talk(run, NULL, 0);
    assert_bytes(run->output, expected);
}

static void test_many(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    /* More than the sockets, the windows and the pipe together hold. */
    g_autoptr(Run) stalled = run_start(fixture->channel, "head", "-c", "8388608", "/dev/zero");
    Run *runs[20];

    for (guint i = 0; i < G_N_ELEMENTS(runs); i++)
        runs[i] = run_start(fixture->channel, "sh", "-c", "head -c 1000000 /dev/zero; cat; exit $1", "sh",
                            ((const char *[]){"0", "1", "2", "3"})[i % 4]);
    for (guint i = 0; i < G_N_ELEMENTS(runs); i++) {
        run_talk(runs[i], (const guint8 *)"end", 3);
        assert_end(runs[i], CHANNEL_EXITED, (int)i % 4);
        g_assert_cmpuint(runs[i]->output->len, ==, 1000003);
        run_free(runs[i]);
    }
    g_mutex_lock(&stalled->ended.mutex);
    g_assert_cmpuint(stalled->ended.n_calls, ==, 0); /* its output is not out */
    g_mutex_unlock(&stalled->ended.mutex);
    run_talk(stalled, NULL, 0);
    assert_end(stalled, CHANNEL_EXITED, 0);
    g_assert_cmpuint(stalled->output->len, ==, 8388608);
}

static void test_closed_ends(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(Run) writer = run_start(fixture->channel, "yes");
    g_autoptr(Run) idle = run_start(fixture->channel, "sh", "-c", "read line; echo late; echo status $? >&2");
    g_autoptr(Run) deaf = run_start(fixture->channel, "sh", "-c", "exec 0<&-; echo ready; sleep 1000");
    g_autoptr(GError) error = NULL;
    char byte = 0;

    /* The client's stdout is closed: the command gets SIGPIPE, also where it had nothing to say until then. */
    read_until(writer->streams.stdout_fd, writer->output, "y\n");
    run_close(writer, &writer->streams.stdout_fd);
    assert_end(writer, CHANNEL_SIGNALED, SIGPIPE);
    run_close(idle, &idle->streams.stdout_fd);
    while (send(idle->streams.stdin_fd, "", 1, MSG_NOSIGNAL) == 1 && idle->ended.n_calls == 0) {
        g_usleep(20000); /* CLOSE is under way when the first line arrives, or not yet */
        if (send(idle->streams.stdin_fd, "\n", 1, MSG_NOSIGNAL) != 1)
            break;
    }
    wait_end(idle);
    if (idle->ended.end == CHANNEL_SIGNALED)
        g_assert_cmpint(idle->ended.value, ==, SIGPIPE);
    else
        g_assert_cmpint(idle->ended.end, ==, CHANNEL_EXITED);

    /* The command closed its stdin: so is the client's. */
    read_until(deaf->streams.stdout_fd, deaf->output, "ready\n");
    while (send(deaf->streams.stdin_fd, &byte, 1, MSG_NOSIGNAL) == 1)
        g_usleep(1000);
    g_assert_cmpint(errno, ==, EPIPE);
    g_assert_true(channel_end(fixture->channel, deaf->id, &error));
    assert_end(deaf, CHANNEL_SIGNALED, SIGHUP);
}

static void test_background_child(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    /* The pipe holds more than one frame when the main process ends, and a child keeps it open. */
    g_autoptr(Run) run = run_start(fixture->channel, "sh", "-c", "sleep 1000 & echo $! >&2; head -c 65536 /dev/zero");
    int pid;

    run_talk(run, NULL, 0);
    assert_end(run, CHANNEL_EXITED, 0);
    g_assert_cmpuint(run->output->len, ==, 65536);
    g_byte_array_append(run->errors, (const guint8 *)"", 1);
    pid = atoi((const char *)run->errors->data);
    g_assert_cmpint(kill(pid, 0), ==, 0); /* left alone, as after a shell's `&` */
    kill(pid, SIGKILL);
}

/* A command with a child in another process group, both of which ignore SIGHUP; their numbers. */
static Run *start_stubborn(Channel *channel, int *ret_leader, int *ret_child)
{
    Run *run = run_start(channel, "bash", "-c", "trap '' HUP; set -m; sleep 1000 & echo $$ $!; wait; wait");

    read_until(run->streams.stdout_fd, run->output, "\n");
    g_byte_array_append(run->output, (const guint8 *)"", 1);
    g_assert_cmpint(sscanf((const char *)run->output->data, "%d %d", ret_leader, ret_child), ==, 2);
    return run;
}

static void test_end(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(Run) polite = run_start(fixture->channel, "sh", "-c",
                                      "trap 'echo bye; exit 4' HUP; echo ready; while :; do sleep 0.01; done");
    g_autoptr(Run) stalled = run_start(fixture->channel, "yes");
    g_autoptr(Run) stopped = run_start(fixture->channel, "sh", "-c", "echo ready; kill -STOP $$");
    g_autoptr(GError) error = NULL;
    g_autoptr(Run) stubborn = NULL;
    int leader, child;

    read_until(polite->streams.stdout_fd, polite->output, "ready\n");
    g_assert_true(channel_end(fixture->channel, polite->id, &error));
    run_talk(polite, NULL, 0);
    assert_end(polite, CHANNEL_EXITED, 4);
    assert_bytes(polite->output, "ready\nbye\n");
    read_until(stalled->streams.stdout_fd, stalled->output, "y\n");
    g_assert_true(channel_end(fixture->channel, stalled->id, &error)); /* its output is never read */
    assert_end(stalled, CHANNEL_SIGNALED, SIGHUP);
    read_until(stopped->streams.stdout_fd, stopped->output, "ready\n");
    g_assert_true(channel_end(fixture->channel, stopped->id, &error));
    assert_end(stopped, CHANNEL_SIGNALED, SIGHUP);

    stubborn = start_stubborn(fixture->channel, &leader, &child);
    g_assert_true(channel_end(fixture->channel, stubborn->id, &error));
    assert_end(stubborn, CHANNEL_SIGNALED, SIGKILL);
    wait_gone(child);
}

static void test_channel_gone(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    int leaders[2], children[2];
    Run *hung_up = start_stubborn(fixture->channel, &leaders[0], &children[0]);
    g_autoptr(Run) after = NULL;

    /* No HELLO follows: SIGKILL comes by time. */
    g_clear_pointer(&fixture->channel, channel_free);
    assert_end(hung_up, CHANNEL_LOST, 0);
    g_assert_cmpstr(hung_up->ended.reason, ==, "the channel was closed");
    run_free(hung_up);
    wait_gone(leaders[0]);
    wait_gone(children[0]);

    fixture->channel = fixture_connect(fixture);
    after = run_start(fixture->channel, "echo", "again");
    run_talk(after, NULL, 0);
    assert_bytes(after->output, "again\n");
}

static void test_agent_gone(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(Run) run = run_start(fixture->channel, "sh", "-c", "echo ready; sleep 1000");
    const char *argv[] = {"true", NULL};
    ChannelCommand command = own_command(argv);
    g_autoptr(GError) error = NULL;
    ChannelStreams streams;

    read_until(run->streams.stdout_fd, run->output, "ready\n");
    agent_stop(&fixture->agent);
    assert_end(run, CHANNEL_LOST, 0);
    g_assert_cmpstr(run->ended.reason, ==, "the guest's end of the channel was closed");
    g_assert_false(read_some(run->streams.stdout_fd, run->output));
    g_assert_false(channel_is_open(fixture->channel));
    g_assert_cmpuint(channel_exec(fixture->channel, &command, &streams, on_end, NULL, &error), ==, 0);
    g_assert_error(error, HVM_ERROR, HVM_ERROR_AGENT);
}

static gpointer connect_thread(gpointer data)
{
    return fixture_connect(data);
}

/* In a guest the port stays when the agent dies: only the next agent tells. */
static void test_agent_restarted(void)
{
    Fixture fixture = {0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *program = agent_program();
    g_autofree char *number = NULL;
    char *arguments[] = {program, (char *)"--fd", NULL, NULL};
    g_autoptr(Run) run = NULL;
    GThread *thread;
    int listener, port;

    fixture_folder(&fixture);
    g_strlcpy(address.sun_path, fixture.path, sizeof(address.sun_path));
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(listen(listener, 1), ==, 0);
    thread = g_thread_new("connect", connect_thread, &fixture);
    port = accept(listener, NULL, NULL);
    close(listener);
    arguments[2] = number = g_strdup_printf("%d", port);
    fixture.agent = agent_spawn(arguments, NULL, NULL);
    fixture.channel = g_thread_join(thread);
    run = run_start(fixture.channel, "sh", "-c", "echo ready; read line"); /* ends with its input, so with the agent */
    read_until(run->streams.stdout_fd, run->output, "ready\n");
    kill(fixture.agent, SIGKILL);
    g_assert_cmpint(waitpid(fixture.agent, NULL, 0), ==, fixture.agent);
    fixture.agent = agent_spawn(arguments, NULL, NULL);
    assert_end(run, CHANNEL_LOST, 0);
    g_assert_cmpstr(run->ended.reason, ==, "the agent lost step: it has just started");
    close(port);
    fixture_tear_down(&fixture, NULL);
}

static void test_power_off(void)
{
    Fixture fixture = {0};
    g_autofree char *program = NULL;
    g_autofree char *mark = NULL;
    g_autofree char *script = NULL;
    g_autoptr(GError) error = NULL;

    fixture_folder(&fixture);
    program = g_build_filename(fixture.folder, "power-off", NULL);
    mark = g_build_filename(fixture.folder, "mark", NULL);
    script = g_strdup_printf("#!/bin/sh\necho off >%s\n", mark);
    g_assert_true(g_file_set_contents(program, script, -1, NULL));
    g_assert_cmpint(g_chmod(program, 0755), ==, 0);
    fixture_listen(&fixture, program, NULL, NULL);
    fixture.channel = fixture_connect(&fixture);
    g_assert_true(channel_power_off(fixture.channel, ANSWER_MS, &error));
    g_assert_no_error(error);
    while (!g_file_test(mark, G_FILE_TEST_EXISTS))
        g_usleep(5000);
    g_assert_true(channel_power_off(fixture.channel, ANSWER_MS, &error)); /* again: answered already */
    g_clear_pointer(&fixture.channel, channel_free);
    agent_stop(&fixture.agent);
    g_unlink(program);
    g_unlink(mark);
    fixture_tear_down(&fixture, NULL);
}

/* --- users: the agent sees an /etc and a /home of its own --- */

static void mount_private(gpointer data)
{
    const char *folder = data;
    g_autofree char *etc = g_build_filename(folder, "etc", NULL);
    g_autofree char *home = g_build_filename(folder, "home", NULL);

    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount(etc, "/etc", NULL, MS_BIND, NULL) < 0 || mount(home, "/home", NULL, MS_BIND, NULL) < 0)
        _exit(99);
}

static void assert_file(const Fixture *fixture, const char *name, const char *expected)
{
    g_autofree char *path = g_build_filename(fixture->folder, name, NULL);
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, expected);
}

static void assert_user(Fixture *fixture, const ChannelCommand *given, const char *expected)
{
    const char *argv[] = {"sh", "-c", "echo $(id -u) $(id -g) $(id -G) $USER $HOME $PWD", NULL};
    ChannelCommand command = *given;
    g_autoptr(Run) run = NULL;

    command.argv = argv;
    run = run_start_command(fixture->channel, &command);
    run_talk(run, NULL, 0);
    assert_bytes(run->errors, "");
    assert_end(run, CHANNEL_EXITED, 0);
    assert_bytes(run->output, expected);
}

#define PASSWD "root:x:0:0:root:/root:/bin/sh\nbob:x:700:700::/home/bob:/bin/sh"
#define GROUP "root:x:0:\nbob:x:700:\nphysics:x:701:alice,bob\nlate:x:702:bob"

static void check_users(Fixture *fixture)
{
    static const guint32 groups[] = {5001, 42};
    const char *argv[] = {"true", NULL};
    ChannelCommand stranger = {.user = "carol", .argv = argv};
    g_autoptr(Run) unknown = NULL;
    struct stat status;
    g_autofree char *home = g_build_filename(fixture->folder, "home", "alice", NULL);

    assert_user(fixture, &(ChannelCommand){.uid = 5001, .gid = 5001, .groups = groups, .n_groups = 2,
                                           .user_name = "alice", .group_name = "staff.hep", .home = "/home/alice"},
                "5001 5001 5001 42 alice /home/alice /home/alice\n");
    assert_file(fixture, "etc/passwd", PASSWD "\nalice:*:5001:5001::/home/alice:/bin/bash\n");
    assert_file(fixture, "etc/group", GROUP "\nstaff.hep:*:5001:\n");
    g_assert_cmpint(g_stat(home, &status), ==, 0);
    g_assert_cmpuint(status.st_uid, ==, 5001);
    g_assert_cmpuint(status.st_mode & 07777, ==, 0700);

    /* Known by now: nothing more is made, and the guest's own entry counts. */
    assert_user(fixture, &(ChannelCommand){.uid = 5001, .gid = 42, .user_name = "other", .group_name = "g2",
                                           .home = "/x"},
                "5001 42 42 alice /home/alice /home/alice\n");
    /* A name that is another's here, or unfit for the file: the numbers alone. */
    assert_user(fixture, &(ChannelCommand){.uid = 5002, .gid = 5001, .user_name = "bob", .home = "/home/alice"},
                "5002 5001 5001 5002 /home/alice /\n");
    assert_user(fixture, &(ChannelCommand){.uid = 5003, .gid = 5001, .user_name = "a:b"}, "5003 5001 5001 5003 / /\n");
    assert_user(fixture, &(ChannelCommand){.uid = 5003, .gid = 5001, .user_name = "a\nroot"},
                "5003 5001 5001 5003 / /\n");
    assert_user(fixture, &(ChannelCommand){.uid = 5003, .gid = 5001, .user_name = "../a"}, "5003 5001 5001 5003 / /\n");
    /* A home through a link is not made. */
    assert_user(fixture, &(ChannelCommand){.uid = 5004, .gid = 5001, .user_name = "dave", .home = "/home/link/dave"},
                "5004 5001 5001 dave /home/link/dave /\n");
    assert_file(fixture, "etc/passwd",
                PASSWD "\nalice:*:5001:5001::/home/alice:/bin/bash\ndave:*:5004:5001::/home/link/dave:/bin/bash\n");
    assert_file(fixture, "etc/group", GROUP "\nstaff.hep:*:5001:\n");
    /* By name: the guest's files say all. */
    assert_user(fixture, &(ChannelCommand){.user = "bob", .uid = 1, .gid = 1}, "700 700 700 701 702 bob /home/bob /\n");
    unknown = run_start_command(fixture->channel, &stranger);
    run_talk(unknown, NULL, 0);
    assert_end(unknown, CHANNEL_EXITED, 125);
    assert_bytes(unknown->errors, "hvm-agent: the guest has no user 'carol'\n");
}

static void test_users(void)
{
    static const char *const removed[] = {"etc/passwd", "etc/group", "etc/.pwd.lock", "etc",
                                          "home/link", "home/alice", "home"};
    Fixture fixture = {0};
    g_autofree char *etc = NULL, *home = NULL, *passwd = NULL, *group = NULL, *link = NULL;

    if (getuid() != 0 || unshare(CLONE_NEWNS) < 0) {
        g_test_skip("needs root and mount namespaces");
        return;
    }
    fixture_folder(&fixture);
    etc = g_build_filename(fixture.folder, "etc", NULL);
    home = g_build_filename(fixture.folder, "home", NULL);
    passwd = g_build_filename(etc, "passwd", NULL);
    group = g_build_filename(etc, "group", NULL);
    link = g_build_filename(home, "link", NULL);
    g_assert_cmpint(g_mkdir(etc, 0755) + g_mkdir(home, 0755), ==, 0);
    g_assert_cmpint(symlink("/tmp", link), ==, 0);
    g_assert_true(g_file_set_contents(passwd, PASSWD, -1, NULL));
    g_assert_true(g_file_set_contents(group, GROUP, -1, NULL));
    fixture_listen(&fixture, NULL, mount_private, fixture.folder);
    fixture.channel = fixture_connect(&fixture);
    check_users(&fixture);
    g_clear_pointer(&fixture.channel, channel_free);
    agent_stop(&fixture.agent);
    for (guint i = 0; i < G_N_ELEMENTS(removed); i++) {
        g_autofree char *path = g_build_filename(fixture.folder, removed[i], NULL);

        g_assert_cmpint(remove(path), ==, 0);
    }
    fixture_tear_down(&fixture, NULL);
}

#define ADD(name, function) g_test_add("/agent/" name, Fixture, NULL, fixture_set_up, function, fixture_tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("status", test_status);
    ADD("not-started", test_not_started);
    ADD("streams-apart", test_streams_apart);
    ADD("bulk", test_bulk);
    ADD("long-command", test_long_command);
    ADD("signals", test_signals);
    ADD("terminal", test_terminal);
    ADD("terminal-keys", test_terminal_keys);
    ADD("terminal-bulk", test_terminal_bulk);
    ADD("directory", test_directory);
    ADD("environment", test_environment);
    ADD("state", test_state);
    ADD("many", test_many);
    ADD("closed-ends", test_closed_ends);
    ADD("background-child", test_background_child);
    ADD("end", test_end);
    ADD("channel-gone", test_channel_gone);
    ADD("agent-gone", test_agent_gone);
    g_test_add_func("/agent/restarted", test_agent_restarted);
    g_test_add_func("/agent/power-off", test_power_off);
    g_test_add_func("/agent/users", test_users);
    return g_test_run();
}
