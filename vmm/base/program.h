/*
 * program.h: files that belong to the running program, wherever it was built or installed.
 *
 * Input: a path below the build folder, and the one of the installed file. Output: the first where the program runs from its build
 * folder (of which its own file may lie a few folders below), else the second.
 * Threads: any. No errors: whoever opens the path finds out.
 */
#pragma once

/* Caller frees. */
char *program_find(const char *below_build, const char *installed);
