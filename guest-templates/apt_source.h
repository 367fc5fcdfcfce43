/*
 * apt_source.h: the machine's own configured package source, for a suite.
 *
 * Input: an /etc/apt folder, in both formats of sources.list(5). Output: deb822 text (a .sources file) with the entries of
 * Debian's archive for the wanted suite, its updates and its security updates, component main. Where the machine has none
 * for that suite, its own suite's entries are taken with the suite replaced: the mirror is the same. No mirror is
 * ever made up. An entry counts as Debian's if it has no Signed-By, or one with a debian-archive keyring, or its address
 * ends in /debian or /debian-security; its suite must be the wanted one or `own_suite`.
 * Threads: any.
 */
#pragma once

#include <glib.h>

/* `own_suite`: VERSION_CODENAME of the machine's os-release, or NULL. `security`: with its security updates. HOST where there is no such entry. Caller frees. */
char *apt_source_for_suite(const char *apt_folder, const char *own_suite, const char *suite, gboolean security,
                           GError **error);

/* VERSION_CODENAME of an os-release file, or NULL. Caller frees. */
char *apt_source_own_suite(const char *os_release_path);

/* Whether the text carries a password or user name in an address (https://user:secret@host/). */
gboolean apt_source_has_secret(const char *sources);
