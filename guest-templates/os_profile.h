/*
 * os_profile.h: what libosinfo's database knows of an operating system, as [os] settings.
 *
 * Loading the database costs 50 MB and 0.26 s, so os_profile_resolve() runs the helper hvm-osinfo
 * (guest-templates/osinfo_main.c), which prints key-file text and ends. Called when a template is built; the
 * image's description keeps the answer.
 * Threads: blocks; from a worker.
 */
#pragma once

#include "settings.h"

/* [os] settings for the OS id, origin "libosinfo ID". An id which the database does not know gives settings with only
 * id set, and *ret_note (may be NULL; caller frees) says what was fallen back to; ret_note is NULL otherwise. HOST if
 * the helper cannot run. */
Settings *os_profile_resolve(const char *os_id, char **ret_note, GError **error);
