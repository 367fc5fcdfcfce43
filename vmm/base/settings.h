/*
 * settings.h: checked values by group and key, each with where it came from.
 *
 * Input: key files and requests. Output: an ordered set of (group, key, value, origin), every value
 * canonical and checked against a key table. A template, a request, an image's description and hvmd.conf
 * are all Settings; a guest's complete settings are what its metadata holds.
 * Threads: a Settings belongs to one thread at a time until it is no longer changed.
 */
#pragma once

#include "key.h"

typedef struct {
    char *group;  /* "cpu", "network default" */
    char *key;
    char *value;  /* canonical text */
    char *origin; /* "template debian12", "default", "request", a file's path */
} Setting;

typedef struct {
    const Key *table;
    GPtrArray *items; /* of Setting, in the order of the table, then by group name */
} Settings;

Settings *settings_new(const Key *table);
Settings *settings_copy(const Settings *settings);
void settings_free(Settings *settings);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Settings, settings_free)

/* Sets one value, replacing an earlier one. INVALID for an unknown group or key (naming a near miss where
 * there is one) or a value that key_check() refuses; nothing is changed then. */
gboolean settings_set(Settings *settings, const char *group, const char *key, const char *value, const char *origin,
                      GError **error);

/* Sets from "group.key" as it stands in metadata and requests ("cpu.count", "network default.kind"). */
gboolean settings_set_name(Settings *settings, const char *name, const char *value, const char *origin, GError **error);

/* Adds to `settings` all of `over`, replacing what is there. Same table. */
void settings_merge(Settings *settings, const Settings *over);

/* Adds the table's fallbacks, origin "default", where nothing is set. Rows of named groups ("device *") apply to
 * every group of that kind which is present. */
void settings_add_defaults(Settings *settings);

/* The value or NULL. Valid until the settings change. */
const char *settings_get(const Settings *settings, const char *group, const char *key);
const char *settings_origin(const Settings *settings, const char *group, const char *key);

/* Typed reads of checked values: 0/FALSE where unset; a number is 0 where a word stands for it. */
guint64 settings_get_uint(const Settings *settings, const char *group, const char *key);
guint64 settings_get_size(const Settings *settings, const char *group, const char *key);
gboolean settings_get_bool(const Settings *settings, const char *group, const char *key);

/* Names after the kind, of groups "KIND name" that are present, sorted; caller frees with g_strfreev. */
char **settings_group_names(const Settings *settings, const char *kind);

/* Reads a key file (GKeyFile syntax) into new settings, every origin being `origin`. INVALID naming file, group
 * and key for an unknown, misspelt or doubled group or key (line numbers for doubled ones); NOT_FOUND where
 * the file is missing; a file over 1 MiB or not UTF-8 is INVALID. */
Settings *settings_load(const Key *table, const char *path, const char *origin, GError **error);

/* As settings_load(), from memory; `path` is for messages. For the fuzzer, and for files opened elsewhere. */
Settings *settings_parse(const Key *table, const char *text, gsize length, const char *path, const char *origin,
                         GError **error);
