#include "run_hvm.h"

#include <string.h>

void hvm_run_clear(HvmRun *run)
{
    g_clear_pointer(&run->output, g_free);
    g_clear_pointer(&run->errors, g_free);
}

const char *hvm_path(void)
{
    const char *path = g_getenv("HVM");

    g_assert_nonnull(path);
    return path;
}

GSubprocessLauncher *hvm_launcher(FakeHvmd *fake, GSubprocessFlags flags)
{
    GSubprocessLauncher *launcher = g_subprocess_launcher_new(flags);

    g_subprocess_launcher_setenv(launcher, "HVM_SOCKET", fake ? fake_socket(fake) : "/nonexistent/hvmd.sock", TRUE);
    return launcher;
}

int hvm_wait(GSubprocess *process)
{
    g_assert_true(g_subprocess_wait(process, NULL, NULL));
    return g_subprocess_get_if_signaled(process) ? 128 + g_subprocess_get_term_sig(process)
                                                 : g_subprocess_get_exit_status(process);
}

static char *text_of(GBytes *bytes)
{
    gsize length = 0;
    const char *data = g_bytes_get_data(bytes, &length);

    return g_strndup(data ? data : "", length);
}

HvmRun run_hvm(FakeHvmd *fake, const char *input, const char *line)
{
    GSubprocessFlags flags = G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE |
                             (input ? G_SUBPROCESS_FLAGS_STDIN_PIPE : 0);
    g_autoptr(GSubprocessLauncher) launcher = hvm_launcher(fake, flags);
    g_autoptr(GSubprocess) process = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) stdin_bytes = input ? g_bytes_new(input, strlen(input)) : NULL;
    g_autoptr(GBytes) output = NULL;
    g_autoptr(GBytes) errors = NULL;
    g_auto(GStrv) words = NULL;
    g_autofree char *whole = g_strconcat(hvm_path(), " ", line, NULL);

    g_assert_true(g_shell_parse_argv(whole, NULL, &words, &error));
    process = g_subprocess_launcher_spawnv(launcher, (const char *const *)words, &error);
    g_assert_no_error(error);
    g_assert_true(g_subprocess_communicate(process, stdin_bytes, NULL, &output, &errors, &error));
    return (HvmRun){.status = hvm_wait(process), .output = text_of(output), .errors = text_of(errors)};
}
