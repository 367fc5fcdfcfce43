/* hvm shell, console and events. */
#include "hvm_error.h"
#include "run_hvm.h"
#include "terminal_test.h"

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- shell ------------------------------------------------------------------------------------------------------------ */

#define RUN_REPLY "{'name': <'run-1'>, 'address': <''>, 'cpus': <'0'>, 'notes': <@as []>}"

static void test_shell(void)
{
    FakeHvmd *fake = fake_new();
    const char *argv[] = {"/usr/bin/env", "SHELL=/bin/sh", hvm_path(), "shell", "g", NULL};
    g_autofree char *exec = NULL;
    g_auto(HvmRun) piped = {0};
    int master = -1;
    pid_t pid = spawn_on_terminal(fake, argv, &master);

    fake_wait_calls(fake, "ExecWait", 1);
    g_assert_cmpint(write(master, "echo hello; exit 4\n", 19), ==, 19);
    expect(master, "hello");
    g_assert_cmpint(wait_pid(pid), ==, 4);
    close(master);
    g_assert_cmpuint(fake_calls(fake, "Show"), ==, 1);
    g_assert_cmpuint(fake_calls(fake, "Run"), ==, 0);
    exec = fake_last_request(fake, "Exec");
    g_assert_nonnull(strstr(exec, "'name': <'g'>"));
    g_assert_nonnull(strstr(exec, "'pty': <true>"));
    g_assert_nonnull(strstr(exec, "'rows': <uint16 40>"));
    g_assert_nonnull(strstr(exec, "b'TERM=xterm'"));
    g_assert_null(strstr(exec, "'directory':"));

    piped = run_hvm(fake, "echo piped $A\nexit 6\n", "shell -e A=1 g");
    g_assert_cmpstr(piped.output, ==, "piped 1\n");
    g_assert_cmpint(piped.status, ==, 6);
    fake_free(fake);
}

static void test_shell_of_template(void)
{
    FakeHvmd *fake = fake_new();
    g_auto(HvmRun) piped = {0};
    g_autofree char *run = NULL;
    g_autofree char *exec = NULL;

    fake_error(fake, "Show", HVM_ERROR_NOT_FOUND, "there is no guest 'sl6'");
    fake_reply(fake, "Run", RUN_REPLY);
    piped = run_hvm(fake, "exit 7\n", "shell sl6 --cpus 2");
    g_assert_cmpstr(piped.errors, ==, "");
    g_assert_cmpint(piped.status, ==, 7);
    run = fake_last_request(fake, "Run");
    g_assert_nonnull(strstr(run, "'template': <'sl6'>"));
    g_assert_nonnull(strstr(run, "'cpu.count': '2'"));
    exec = fake_last_request(fake, "Exec");
    g_assert_nonnull(strstr(exec, "'name': <'run-1'>"));

    fake_error(fake, "Run", HVM_ERROR_NOT_FOUND, "no template 'sl6' in /etc/hvm/templates");
    check_hvm(fake, "shell sl6", 125, "", "hvm: no guest 'sl6'; no template 'sl6' in /etc/hvm/templates\n");
    fake_error(fake, "Run", HVM_ERROR_NO_PLACEMENT, "needs 4 free cores; node 0 has 2");
    check_hvm(fake, "shell sl6", 125, "", "hvm: needs 4 free cores; node 0 has 2\n");
    fake_error(fake, "Show", HVM_ERROR_LIBVIRT, "no connection to libvirt");
    check_hvm(fake, "shell sl6", 125, "", "hvm: no connection to libvirt\n");
    fake_reply(fake, "Show", "{'name': <'sl6'>}");
    check_hvm(fake, "shell sl6 --cpus 2", 125, "",
              "hvm: guest 'sl6' is there already: options that say what a guest is like are for a template's name\n");
    fake_free(fake);
}

/* --- console ---------------------------------------------------------------------------------------------------------- */

static int wait_console(FakeHvmd *fake)
{
    for (int i = 0; i < 1000; i++) {
        int fd = fake_take_console(fake);

        if (fd >= 0)
            return fd;
        g_usleep(10000);
    }
    g_assert_not_reached();
}

static void check_received(int fd, const char *wanted)
{
    char text[64] = "";

    g_assert_cmpint(recv(fd, text, strlen(wanted), MSG_WAITALL), ==, (int)strlen(wanted));
    g_assert_cmpstr(text, ==, wanted);
}

static void wait_raw(int master)
{
    for (int i = 0; !is_raw(master); i++) {
        g_assert_cmpint(i, <, 1000);
        g_usleep(10000);
    }
}

static pid_t open_console(FakeHvmd *fake, const char *option, int *ret_master, int *ret_guest)
{
    const char *argv[] = {hvm_path(), "console", "g", option, NULL};
    pid_t pid = spawn_on_terminal(fake, argv, ret_master);

    *ret_guest = wait_console(fake);
    wait_raw(*ret_master);
    return pid;
}

static void test_console(void)
{
    FakeHvmd *fake = fake_new();
    g_autofree char *request = NULL;
    int master = -1, guest = -1;
    char rest = 0;

    fake_console(fake);
    pid_t pid = open_console(fake, NULL, &master, &guest);

    expect(master, "console of guest 'g': Ctrl-] leaves it");
    request = fake_last_request(fake, "Console");
    g_assert_nonnull(strstr(request, "'read-only': <false>"));
    g_assert_cmpint(write(guest, "login: ", 7), ==, 7);
    expect(master, "login: ");
    /* Ctrl-C and others are the guest's; what stands before Ctrl-] goes, what stands behind it does not. */
    g_assert_cmpint(write(master, "ro\003\004ot\035no", 9), ==, 9);
    check_received(guest, "ro\003\004ot");
    g_assert_cmpint(recv(guest, &rest, 1, 0), ==, 0);
    g_assert_cmpint(wait_pid(pid), ==, 0);
    g_assert_false(is_raw(master));
    close(master);
    close(guest);
    fake_free(fake);
}

static void test_console_read_only(void)
{
    FakeHvmd *fake = fake_new();

    fake_console(fake);
    for (int i = 0; i < 2; i++) {
        g_autofree char *request = NULL;
        int master = -1, guest = -1;
        char rest = 0;
        pid_t pid = open_console(fake, "--read-only", &master, &guest);

        request = fake_last_request(fake, "Console");
        g_assert_nonnull(strstr(request, "'read-only': <true>"));
        g_assert_cmpint(write(master, i == 0 ? "typed\035" : "typed\003", 6), ==, 6);
        g_assert_cmpint(wait_pid(pid), ==, 0);
        g_assert_cmpint(recv(guest, &rest, 1, 0), ==, 0);
        g_assert_false(is_raw(master));
        close(master);
        close(guest);
    }
    fake_free(fake);
}

/* However it ends, the terminal is put back. */
static void test_console_ends(void)
{
    static const struct {
        int signal_number; /* 0: the guest's side ends; -1: hvmd goes */
        int status;
    } ends[] = {{0, 0}, {-1, 8}, {SIGINT, 0}, {SIGTERM, 128 + SIGTERM}, {SIGHUP, 128 + SIGHUP}, {SIGQUIT, 128 + SIGQUIT}};
    FakeHvmd *fake = fake_new();

    fake_console(fake);
    for (gsize i = 0; i < G_N_ELEMENTS(ends); i++) {
        int master = -1, guest = -1;
        pid_t pid = open_console(fake, NULL, &master, &guest);

        if (ends[i].signal_number > 0)
            kill(pid, ends[i].signal_number);
        else if (ends[i].signal_number < 0)
            fake_close_connections(fake);
        if (ends[i].signal_number < 0)
            g_usleep(200000); /* hvmd's end of the console goes when it has */
        if (ends[i].signal_number <= 0)
            close(guest);
        g_assert_cmpint(wait_pid(pid), ==, ends[i].status);
        g_assert_false(is_raw(master));
        if (ends[i].signal_number > 0)
            close(guest);
        close(master);
    }
    fake_free(fake);
}

/* Without a terminal: what comes, unaltered, to its end; nothing is sent. */
static void test_console_pipe(void)
{
    FakeHvmd *fake = fake_new();

    fake_console(fake);
    for (int i = 0; i < 3; i++) {
        g_autoptr(GSubprocessLauncher) launcher =
            hvm_launcher(fake, G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE);
        g_autoptr(GSubprocess) process = NULL;
        g_autofree char *request = NULL;
        char text[6] = "";
        int guest = -1;

        process = g_subprocess_launcher_spawn(launcher, NULL, hvm_path(), "console", "g", NULL);
        guest = wait_console(fake);
        request = fake_last_request(fake, "Console");
        g_assert_nonnull(strstr(request, "'read-only': <true>"));
        g_assert_cmpint(write(guest, "a\033[2J\r", 6), ==, 6);
        g_assert_true(g_input_stream_read_all(g_subprocess_get_stdout_pipe(process), text, 6, NULL, NULL, NULL));
        g_assert_cmpmem(text, 6, "a\033[2J\r", 6);
        if (i == 0)
            close(guest);
        else if (i == 1)
            g_subprocess_send_signal(process, SIGINT);
        else {
            g_input_stream_close(g_subprocess_get_stdout_pipe(process), NULL, NULL);
            g_assert_cmpint(write(guest, "more", 4), ==, 4);
        }
        g_assert_cmpint(hvm_wait(process), ==, i == 2 ? 128 + SIGPIPE : 0);
        if (i != 0)
            close(guest);
    }
    fake_error(fake, "Console", HVM_ERROR_BUSY, "guest 'g': somebody else writes to its console: watch it with --read-only");
    fake_free(fake);
}

static void test_console_refused(void)
{
    FakeHvmd *fake = fake_new();

    fake_error(fake, "Console", HVM_ERROR_BUSY, "guest 'g': somebody else writes to its console: watch it with --read-only");
    check_hvm(fake, "console g", 6, "", "hvm: guest 'g': somebody else writes to its console: watch it with --read-only\n");
    check_hvm(fake, "console G", 2, "",
              "hvm: bad guest name 'G': wanted 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends\n");
    fake_free(fake);
}

/* --- events ----------------------------------------------------------------------------------------------------------- */

#define EVENT "{'event': <'%s'>, 'name': <'g'>, 'uuid': <'u'>, 'owner': <uint32 0>, 'time': <int64 1577934245000001>}"

static void send_event(FakeHvmd *fake, const char *event)
{
    g_auto(GStrv) parts = g_strsplit(EVENT, "%s", 2);
    g_autofree char *text = g_strconcat(parts[0], event, parts[1], NULL);

    fake_signal(fake, "GuestEvent", text);
}

static void read_line(GSubprocess *process, const char *wanted)
{
    g_autofree char *line = g_malloc0(strlen(wanted) + 1);

    /* It comes at once, with nothing behind it. */
    g_assert_true(g_input_stream_read_all(g_subprocess_get_stdout_pipe(process), line, strlen(wanted), NULL, NULL, NULL));
    g_assert_cmpstr(line, ==, wanted);
}

static GSubprocess *watch_events(FakeHvmd *fake, const char *option)
{
    g_autoptr(GSubprocessLauncher) launcher =
        hvm_launcher(fake, G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE);
    unsigned before = fake_calls(fake, "Subscribe");
    GSubprocess *process = NULL;

    g_subprocess_launcher_setenv(launcher, "TZ", "UTC", TRUE);
    process = g_subprocess_launcher_spawn(launcher, NULL, hvm_path(), "--verbose", "events", option, NULL);
    fake_wait_calls(fake, "Subscribe", before + 1);
    /* It says when it listens. */
    g_assert_cmpint(g_input_stream_read(g_subprocess_get_stderr_pipe(process), (char[64]){0}, 64, NULL, NULL), >, 0);
    return process;
}

static void test_events(void)
{
    FakeHvmd *fake = fake_new();
    g_autoptr(GSubprocess) lines = watch_events(fake, NULL);
    g_autoptr(GSubprocess) objects = watch_events(fake, "--json");

    send_event(fake, "created");
    send_event(fake, "a\\u001b[2J");
    read_line(lines, "03:04:05  g  created\n03:04:05  g  a\\x1b[2J\n");
    read_line(objects, "{\"time\":1577934245000001,\"event\":\"created\",\"name\":\"g\",\"uuid\":\"u\",\"owner\":0}\n");
    g_subprocess_send_signal(lines, SIGINT);
    g_assert_cmpint(hvm_wait(lines), ==, 0);
    fake_free(fake);
    g_assert_cmpint(hvm_wait(objects), ==, 8);
}

static void test_events_ends(void)
{
    FakeHvmd *fake = fake_new();
    g_autoptr(GSubprocess) process = watch_events(fake, NULL);
    g_autofree char *errors = NULL;

    fake_close_connections(fake);
    g_assert_true(g_subprocess_communicate_utf8(process, NULL, NULL, NULL, &errors, NULL));
    g_assert_cmpstr(errors, ==, "hvm: the connection to hvmd ended (did hvmd stop?)\n");
    g_assert_cmpint(hvm_wait(process), ==, 8);
    fake_error(fake, "Subscribe", HVM_ERROR_DENIED, "no");
    check_hvm(fake, "events", 5, "", "hvm: no\n");
    check_hvm(fake, "events g", 2, "", "hvm: events: wanted no argument, found 'g' as well\n");
    fake_free(fake);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/shell/guest", test_shell);
    g_test_add_func("/shell/template", test_shell_of_template);
    g_test_add_func("/console/terminal", test_console);
    g_test_add_func("/console/read-only", test_console_read_only);
    g_test_add_func("/console/ends", test_console_ends);
    g_test_add_func("/console/pipe", test_console_pipe);
    g_test_add_func("/console/refused", test_console_refused);
    g_test_add_func("/events/stream", test_events);
    g_test_add_func("/events/ends", test_events_ends);
    return g_test_run();
}
