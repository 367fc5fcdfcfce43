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

/* [os] settings for the OS id (libosinfo's short id or URL), origin "libosinfo ID" with the ID that was found. An id which
 * the database does not know gets what it says of the newest release of the same system that is not newer (debian12:
 * debian11), or where there is none settings with only id set; *ret_note (may be NULL; caller frees) then says so,
 * and is NULL otherwise. The helper is looked for in HVM_LIBEXEC, then in the build folder that this program stands in, then
 * where it is installed. INVALID for an id that is no line of text; HOST if the helper cannot run. */
Settings *os_profile_resolve(const char *os_id, char **ret_note, GError **error);
