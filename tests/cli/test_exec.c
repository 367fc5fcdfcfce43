/* hvm exec: streams, signals, ends, terminals. */
#include "hvm_error.h"
#include "run_hvm.h"
#include "terminal_test.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void test_streams(void)
{
    FakeHvmd *fake = fake_new();
    g_auto(HvmRun) run = run_hvm(fake, "in\n", "exec g -- sh -c 'read x; echo out $x; echo err $x >&2; exit 7'");

    g_assert_cmpstr(run.output, ==, "out in\n");
    g_assert_cmpstr(run.errors, ==, "err in\n");
    g_assert_cmpint(run.status, ==, 7);
    fake_free(fake);
}

static void test_request(void)
{
    FakeHvmd *fake = fake_new();
    g_autofree char *here = g_get_current_dir();
    g_autofree char *directory = g_strdup_printf("'directory': <b'%s'>", here);

    check_hvm(fake, "exec g -e A=1 --env B='x y=z' --user me sh -c 'echo $A $B --user' -t", 0, "1 x y=z --user\n", "");
    g_autofree char *request = fake_last_request(fake, "Exec");

    g_assert_nonnull(strstr(request, "'argv': <[b'sh', b'-c', b'echo $A $B --user', b'-t']>"));
    g_assert_nonnull(strstr(request, "'environment': <[b'A=1', b'B=x y=z']>"));
    g_assert_nonnull(strstr(request, "'user': <'me'>"));
    g_assert_nonnull(strstr(request, "'pty': <false>"));
    g_assert_nonnull(strstr(request, "'directory-required': <false>"));
    g_assert_nonnull(strstr(request, directory));
    check_hvm(fake, "exec --cwd /srv -- g true", 0, "", "");
    g_autofree char *second = fake_last_request(fake, "Exec");

    g_assert_nonnull(strstr(second, "'directory-required': <true>"));
    g_assert_nonnull(strstr(second, "'directory': <b'/srv'>"));
    /* Bytes that are not UTF-8 are handed on. */
    check_hvm(fake, "exec g printf '\xff\xfe'", 0, "\xff\xfe", "");
    fake_free(fake);
}

static void test_ends(void)
{
    FakeHvmd *fake = fake_new();

    check_hvm(fake, "exec g true", 0, "", "");
    check_hvm(fake, "exec g -- sh -c 'exit 255'", 255, "", "");
    check_hvm(fake, "exec g -- sh -c 'kill -9 $$'", 137, "", "");
    fake_reply(fake, "ExecWait", "{'end': <'exited'>, 'value': <127>, 'reason': <'fly: command not found'>}");
    check_hvm(fake, "exec g true", 127, "", "hvm: fly: command not found\n");
    fake_reply(fake, "ExecWait", "{'end': <'lost'>, 'value': <0>, 'reason': <'the agent closed its channel'>}");
    check_hvm(fake, "exec g true", 125, "", "hvm: guest 'g': the command was lost: the agent closed its channel\n");
    fake_free(fake);
}

/* Whatever hvm itself fails at is 125. */
static void test_own_failures(void)
{
    FakeHvmd *fake = fake_new();

    fake_error(fake, "Exec", HVM_ERROR_BUSY, "guest 'g' is not running");
    check_hvm(fake, "exec g true", 125, "", "hvm: guest 'g' is not running\n");
    check_hvm(fake, "exec g", 125, "", "hvm: exec: wanted NAME [--] COMMAND [ARGUMENT]..., found only 'g'\n");
    check_hvm(fake, "exec g --fly true", 125, "", "hvm: exec: unknown option '--fly'\n");
    check_hvm(fake, "exec -t g true", 125, "", "hvm: --tty: wanted a terminal as standard input, found none\n");
    check_hvm(fake, "exec -e A g true", 125, "", "hvm: --env: wanted NAME=VALUE, found 'A'\n");
    check_hvm(fake, "exec --cwd a g true", 125, "",
              "hvm: --cwd: wanted a path in the guest that begins with '/', found 'a'\n");
    fake_reply(fake, "Exec", "{'exec': <uint32 1>}");
    check_hvm(fake, "exec g true", 125, "", "hvm: hvmd sent no descriptor for stdin\n");
    fake_hang_up(fake, "Exec");
    check_hvm(fake, "exec g true", 125, "",
              "hvm: the connection to hvmd was lost before it answered Exec (did hvmd stop?)\n");
    fake_free(fake);
    g_auto(HvmRun) run = run_hvm(NULL, NULL, "exec g true");

    g_assert_cmpint(run.status, ==, 125);
}

/* 32 MiB of random bytes through cat, both ways at once. */
static void test_bulk(void)
{
    FakeHvmd *fake = fake_new();
    int status = 0;
    g_autofree char *output = run_shell(fake,
                                        "f=$(mktemp); head -c 33554432 /dev/urandom > $f; a=$(sha256sum < $f);"
                                        " b=$($HVM exec g -- cat < $f | sha256sum); rm $f;"
                                        " [ \"$a\" = \"$b\" ] && echo same",
                                        &status);

    g_assert_cmpstr(output, ==, "same\n");
    fake_free(fake);
}

/* A reader that stops reading is waited for; all of it comes. */
static void test_slow_reader(void)
{
    FakeHvmd *fake = fake_new();
    int status = 0;
    g_autofree char *output =
        run_shell(fake, "$HVM exec g -- head -c 5000000 /dev/zero | { sleep 0.5; wc -c; }", &status);

    g_assert_cmpstr(g_strstrip(output), ==, "5000000");
    fake_free(fake);
}

/* As other Unix tools: hvm dies of SIGPIPE, and the command with it. */
static void test_broken_pipe(void)
{
    FakeHvmd *fake = fake_new();
    int status = 0;
    g_autofree char *output = run_shell(fake, "$HVM exec g -- yes | head -1; echo ${PIPESTATUS[0]}", &status);

    g_assert_cmpstr(output, ==, "y\n141\n");
    for (int i = 0; fake_has_process(fake); i++) {
        g_assert_cmpint(i, <, 500);
        g_usleep(10000);
    }
    fake_free(fake);
}

/* With SIGPIPE ignored by the caller it is an error like others. */
static void test_broken_pipe_ignored(void)
{
    FakeHvmd *fake = fake_new();
    int status = 0;
    g_autofree char *output = run_shell(
        fake, "f=$(mktemp); trap '' PIPE; { $HVM exec g -- yes 2>$f; echo $? >>$f; } | head -1; cat $f; rm $f",
        &status);

    g_assert_cmpstr(output, ==, "y\nhvm: cannot write the command's output: Broken pipe\n125\n");
    fake_free(fake);
}

static void test_standard_input(void)
{
    static const struct {
        const char *line;
        const char *output;
    } lines[] = {
        {"$HVM exec g -- cat <&-; echo $?", "0\n"},
        {"$HVM exec g -- cat </dev/null; echo $?", "0\n"},
        {"$HVM exec g -- cat </tmp 2>&1; echo $?", "hvm: cannot read standard input: Is a directory\n125\n"},
        {"echo a | $HVM exec g -- cat; echo $?", "a\n0\n"},
        /* The command does not read what it is sent. */
        {"head -c 1000000 /dev/zero | $HVM exec g -- true; echo $?", "0\n"},
        {"yes | $HVM exec g -- head -1; echo $?", "y\n0\n"},
        /* The command ends while standard input stays open. */
        {"sleep 5 | { $HVM exec g -- echo b; echo $?; kill $(jobs -p) 2>/dev/null; }", "b\n0\n"},
        {"$HVM exec g -- sh -c 'echo c; echo d >&2' >&- 2>/dev/null; echo $?", "125\n"},
    };

    FakeHvmd *fake = fake_new();

    for (gsize i = 0; i < G_N_ELEMENTS(lines); i++) {
        int status = 0;
        g_autofree char *output = run_shell(fake, lines[i].line, &status);

        g_assert_cmpstr(output, ==, lines[i].output);
    }
    fake_free(fake);
}

static void test_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    FakeHvmd *fake = fake_new();

    for (gsize i = 0; i < G_N_ELEMENTS(signals); i++) {
        g_autoptr(GSubprocessLauncher) launcher = hvm_launcher(fake, G_SUBPROCESS_FLAGS_STDOUT_PIPE);
        g_autoptr(GSubprocess) process = NULL;
        g_autofree char *script =
            g_strdup_printf("trap 'echo got; exit 9' %d; echo ready; while :; do sleep 0.05; done", signals[i]);
        g_autofree char *rest = NULL;
        char ready[6] = "";

        process = g_subprocess_launcher_spawn(launcher, NULL, hvm_path(), "exec", "g", "sh", "-c", script, NULL);
        g_assert_true(g_input_stream_read_all(g_subprocess_get_stdout_pipe(process), ready, 6, NULL, NULL, NULL));
        g_subprocess_send_signal(process, signals[i]);
        g_assert_true(g_subprocess_communicate_utf8(process, NULL, NULL, &rest, NULL, NULL));
        g_assert_cmpstr(rest, ==, "got\n");
        g_assert_cmpint(hvm_wait(process), ==, 9);
    }
    fake_free(fake);
}

/* Killed outright, it takes the command with it; hvmd going away gives 125 and a sentence. */
static void test_partings(void)
{
    FakeHvmd *fake = fake_new();

    for (int i = 0; i < 2; i++) {
        g_autoptr(GSubprocessLauncher) launcher =
            hvm_launcher(fake, G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE);
        g_autoptr(GSubprocess) process = NULL;
        g_autofree char *errors = NULL;

        process = g_subprocess_launcher_spawn(launcher, NULL, hvm_path(), "exec", "g", "sleep", "60", NULL);
        fake_wait_calls(fake, "ExecWait", (unsigned)i + 1);
        if (i == 0)
            g_subprocess_force_exit(process);
        else
            fake_close_connections(fake);
        g_assert_true(g_subprocess_communicate_utf8(process, NULL, NULL, NULL, &errors, NULL));
        if (i == 1) {
            g_assert_cmpint(hvm_wait(process), ==, 125);
            g_assert_cmpstr(errors, ==,
                            "hvm: guest 'g': the command was lost: the connection to hvmd ended (did hvmd stop?)\n");
        }
        for (int j = 0; fake_has_process(fake); j++) {
            g_assert_cmpint(j, <, 500);
            g_usleep(10000);
        }
    }
    fake_free(fake);
}

static void test_terminal(void)
{
    FakeHvmd *fake = fake_new();
    struct winsize size = {.ws_row = 50, .ws_col = 120};
    const char *argv[] = {hvm_path(), "exec", "-t", "g", "sh", "-c", "echo ready; read x; echo got $x; exit 3", NULL};
    g_autofree char *request = NULL;
    g_autofree char *control = NULL;
    int master = -1;

    pid_t pid = spawn_on_terminal(fake, argv, &master);

    expect(master, "ready");
    g_assert_true(is_raw(master));
    request = fake_last_request(fake, "Exec");
    g_assert_nonnull(strstr(request, "'rows': <uint16 40>"));
    g_assert_nonnull(strstr(request, "'columns': <uint16 100>"));
    g_assert_nonnull(strstr(request, "b'TERM=xterm'"));
    g_assert_nonnull(strstr(request, "'pty': <true>"));

    unsigned before = fake_calls(fake, "ExecControl");

    g_assert_cmpint(ioctl(master, TIOCSWINSZ, &size), ==, 0);
    fake_wait_calls(fake, "ExecControl", before + 1);
    control = fake_last_request(fake, "ExecControl");
    g_assert_nonnull(strstr(control, "'rows': <uint16 50>"));
    g_assert_cmpint(write(master, "hello\n", 6), ==, 6);
    expect(master, "got hello");
    g_assert_cmpint(wait_pid(pid), ==, 3);
    g_assert_false(is_raw(master));
    close(master);

    /* A TERM which is no terminal's name is not handed on. */
    const char *strange[] = {"/usr/bin/env", "TERM=../x", hvm_path(), "exec", "-t", "g", "true", NULL};
    g_autofree char *second = NULL;

    g_assert_cmpint(wait_pid(spawn_on_terminal(fake, strange, &master)), ==, 0);
    second = fake_last_request(fake, "Exec");
    g_assert_null(strstr(second, "TERM="));
    close(master);
    fake_free(fake);
}

/* The terminal is put back when hvm ends by a signal, or by hvmd's end. */
static void test_terminal_restored(void)
{
    FakeHvmd *fake = fake_new();
    const char *argv[] = {hvm_path(), "exec", "-t", "g", "sh", "-c", "echo ready; exec sleep 60", NULL};

    for (int i = 0; i < 2; i++) {
        int master = -1;
        pid_t pid = spawn_on_terminal(fake, argv, &master);

        expect(master, "ready");
        g_assert_true(is_raw(master));
        if (i == 0)
            kill(pid, SIGTERM);
        else
            fake_close_connections(fake);
        g_assert_cmpint(wait_pid(pid), ==, i == 0 ? 128 + SIGTERM : 125);
        g_assert_false(is_raw(master));
        close(master);
    }
    fake_free(fake);
}

/* In the background of a terminal hvm neither stops nor takes what is typed, while its command needs no input. */
static void test_background(void)
{
    FakeHvmd *fake = fake_new();
    g_autofree char *script =
        g_strdup_printf("set -m; %s exec g -- sh -c 'sleep 0.6; echo done' & wait $!; echo status $?", hvm_path());
    const char *argv[] = {"/bin/bash", "-c", script, NULL};
    int master = -1;
    pid_t pid = spawn_on_terminal(fake, argv, &master);

    expect(master, "status 0");
    g_assert_cmpint(wait_pid(pid), ==, 0);
    close(master);
    fake_free(fake);
}

/* A console's log on a terminal cannot act on it. */
static void test_logs_on_terminal(void)
{
    FakeHvmd *fake = fake_new();
    const char *argv[] = {hvm_path(), "logs", "g", NULL};
    static const char text[] = "a\033[2J\r\nb\rc\td\n";
    int master = -1;
    GVariantDict reply;

    g_variant_dict_init(&reply, NULL);
    g_variant_dict_insert_value(&reply, "text",
                                g_variant_new_fixed_array(G_VARIANT_TYPE_BYTE, text, sizeof text - 1, 1));
    fake_reply_value(fake, "Logs", g_variant_dict_end(&reply));
    pid_t pid = spawn_on_terminal(fake, argv, &master);

    expect(master, "a\\x1b[2J\r\nb\\x0dc\td\r\n");
    g_assert_cmpint(wait_pid(pid), ==, 0);
    close(master);
    fake_free(fake);
}

/* A guest made for the command: its options are create's and exec's. */
static void test_run(void)
{
    FakeHvmd *fake = fake_new();
    g_autofree char *run = NULL;
    g_autofree char *exec = NULL;

    fake_reply(fake, "Run", "{'name': <'run-1'>, 'address': <''>, 'cpus': <'0'>, 'notes': <@as []>}");
    check_hvm(fake, "run --cpus 2 -e A=1 sl6 -- sh -c 'echo $A; exit 4'", 4, "1\n", "");
    run = fake_last_request(fake, "Run");
    g_assert_nonnull(strstr(run, "'template': <'sl6'>"));
    g_assert_nonnull(strstr(run, "'settings': <{'cpu.count': '2'}>"));
    exec = fake_last_request(fake, "Exec");
    g_assert_nonnull(strstr(exec, "'name': <'run-1'>"));
    check_hvm(fake, "run sl6 --cpus x true", 125, "", "hvm: --cpus: wanted 1 to 4096, found 'x'\n");
    check_hvm(fake, "run sl6 --autostart true", 125, "", "hvm: run: unknown option '--autostart'\n");
    fake_error(fake, "Run", HVM_ERROR_NO_PLACEMENT, "needs 4 free cores; node 0 has 2");
    check_hvm(fake, "run sl6 true", 125, "", "hvm: needs 4 free cores; node 0 has 2\n");
    fake_free(fake);
}

/* While the guest boots, Ctrl-C ends hvm; hvmd then clears the guest. */
static void test_run_interrupted(void)
{
    FakeHvmd *fake = fake_new();
    g_autoptr(GSubprocessLauncher) launcher = hvm_launcher(fake, G_SUBPROCESS_FLAGS_NONE);
    g_autoptr(GSubprocess) process = NULL;

    fake_hold_jobs(fake);
    process = g_subprocess_launcher_spawn(launcher, NULL, hvm_path(), "run", "sl6", "true", NULL);
    fake_wait_calls(fake, "WaitJob", 1);
    g_subprocess_send_signal(process, SIGINT);
    g_assert_cmpint(hvm_wait(process), ==, 128 + SIGINT);
    g_assert_cmpuint(fake_calls(fake, "Exec"), ==, 0);
    fake_free(fake);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/exec/streams", test_streams);
    g_test_add_func("/exec/request", test_request);
    g_test_add_func("/exec/ends", test_ends);
    g_test_add_func("/exec/own-failures", test_own_failures);
    g_test_add_func("/exec/bulk", test_bulk);
    g_test_add_func("/exec/slow-reader", test_slow_reader);
    g_test_add_func("/exec/broken-pipe", test_broken_pipe);
    g_test_add_func("/exec/broken-pipe-ignored", test_broken_pipe_ignored);
    g_test_add_func("/exec/standard-input", test_standard_input);
    g_test_add_func("/exec/signals", test_signals);
    g_test_add_func("/exec/partings", test_partings);
    g_test_add_func("/exec/terminal", test_terminal);
    g_test_add_func("/exec/terminal-restored", test_terminal_restored);
    g_test_add_func("/exec/background", test_background);
    g_test_add_func("/exec/run", test_run);
    g_test_add_func("/exec/run-interrupted", test_run_interrupted);
    g_test_add_func("/exec/logs-on-terminal", test_logs_on_terminal);
    return g_test_run();
}
