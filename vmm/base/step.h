/*
 * step.h: named points of a pipeline, at which tests make it fail or kill the process.
 *
 * Every step of create, start, stop, destroy and of an image build calls step_reached() with its name just
 * after the step's effect. In a product build (Meson option fault_injection=false) it does nothing but g_debug.
 * With fault injection, the file named by the environment variable HVM_FAULT_FILE is read each time; it holds
 * one line "NAME ACTION", ACTION being `fail` (the step fails with INTERNAL), `kill` (SIGKILL to this
 * process) or `wait` (writes NAME to the file's name with ".reached" added, and sleeps until the file is gone, or wants something else of
 * the step, which it then does). Tests rewrite the file between calls.
 * Threads: any.
 */
#pragma once

#include <glib.h>

gboolean step_reached(const char *name, GError **error);
