/*
 * terminal_test.h: hvm on a terminal, and in a shell's line, for tests.
 */
#pragma once

#include "fake_hvmd.h"

#include <sys/types.h>

/* Starts a program in a session of its own on a new terminal of 40 by 100 (TERM=xterm); gives the terminal's other side. */
pid_t spawn_on_terminal(FakeHvmd *fake, const char *const *argv, int *ret_master);
/* Whether the terminal is raw. */
gboolean is_raw(int master);
/* Reads the terminal until `text` has come. */
void expect(int master, const char *text);
/* Waits for the program's end: exit status, or 128 + the signal that ended it. */
int wait_pid(pid_t pid);

/* Runs a line of bash in which $HVM is hvm, and gives what it prints. Caller frees. */
char *run_shell(FakeHvmd *fake, const char *line, int *ret_status);
