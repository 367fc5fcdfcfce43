/*
 * run_hvm.h: runs the real hvm (named by the environment variable HVM) against a fake hvmd.
 */
#pragma once

#include "fake_hvmd.h"

typedef struct {
    int status;    /* exit status, or 128 + number of the signal that ended it */
    char *output;  /* NUL-terminated */
    char *errors;
} HvmRun;

void hvm_run_clear(HvmRun *run);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(HvmRun, hvm_run_clear)

/* Runs `hvm` with the words of `line` (split as a shell would) and ends. `fake` NULL: a socket where nobody listens.
 * `input` is its standard input, NULL: /dev/null. */
HvmRun run_hvm(FakeHvmd *fake, const char *input, const char *line);

/* Runs and checks status, standard output and standard error as a whole. */
#define check_hvm(fake, line, wanted_status, wanted_output, wanted_errors)  \
    G_STMT_START                                                            \
    {                                                                       \
        g_auto(HvmRun) checked_run = run_hvm(fake, NULL, line);             \
        g_assert_cmpstr(checked_run.errors, ==, wanted_errors);             \
        g_assert_cmpstr(checked_run.output, ==, wanted_output);             \
        g_assert_cmpint(checked_run.status, ==, wanted_status);             \
    }                                                                       \
    G_STMT_END

/* A launcher with HVM_SOCKET set, and the path of hvm. */
GSubprocessLauncher *hvm_launcher(FakeHvmd *fake, GSubprocessFlags flags);
const char *hvm_path(void);

/* Waits for the end of a process: status as in HvmRun. */
int hvm_wait(GSubprocess *process);
