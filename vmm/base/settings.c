#include "settings.h"

#include "hvm_error.h"
#include "near.h"
#include "units.h"

#include <string.h>

enum { FILE_MAX = 1 << 20 };

static void setting_free(gpointer pointer)
{
    Setting *setting = pointer;

    g_free(setting->group);
    g_free(setting->key);
    g_free(setting->value);
    g_free(setting->origin);
    g_free(setting);
}

Settings *settings_new(const Key *table)
{
    Settings *settings = g_new0(Settings, 1);

    settings->table = table;
    settings->items = g_ptr_array_new_with_free_func(setting_free);
    return settings;
}

Settings *settings_copy(const Settings *settings)
{
    Settings *copy = settings_new(settings->table);

    settings_merge(copy, settings);
    return copy;
}

void settings_free(Settings *settings)
{
    if (!settings)
        return;
    g_ptr_array_unref(settings->items);
    g_free(settings);
}

static Setting *find(const Settings *settings, const char *group, const char *key)
{
    for (guint i = 0; i < settings->items->len; i++) {
        Setting *setting = settings->items->pdata[i];

        if (strcmp(setting->key, key) == 0 && strcmp(setting->group, group) == 0)
            return setting;
    }
    return NULL;
}

/* Order: the table's, then by group name. */
static int compare(const Settings *settings, const Setting *a, const Setting *b)
{
    const Key *row_a = key_find(settings->table, a->group, a->key);
    const Key *row_b = key_find(settings->table, b->group, b->key);

    if (row_a != row_b)
        return row_a < row_b ? -1 : 1;
    return strcmp(a->group, b->group);
}

/* Stores a checked value. */
static void store(Settings *settings, const char *group, const char *key, const char *value, const char *origin)
{
    Setting *setting = find(settings, group, key);

    if (setting) {
        char *old_value = setting->value, *old_origin = setting->origin;

        setting->value = g_strdup(value); /* `value` may be the old one itself */
        setting->origin = g_strdup(origin);
        g_free(old_value);
        g_free(old_origin);
        return;
    }
    setting = g_new0(Setting, 1);
    setting->group = g_strdup(group);
    setting->key = g_strdup(key);
    setting->value = g_strdup(value);
    setting->origin = g_strdup(origin);

    guint at = settings->items->len;

    while (at > 0 && compare(settings, settings->items->pdata[at - 1], setting) > 0)
        at--;
    g_ptr_array_insert(settings->items, (gint)at, setting);
}

static gboolean refuse_unknown(const Key *table, const char *group, const char *key, GError **error)
{
    gboolean known_group = key_group_known(table, group);
    const char *word = known_group ? key : group;
    g_autofree char *shown = hvm_escape(word, (gssize)MIN(strlen(word), 60));
    g_autofree char *shown_group = hvm_escape(group, (gssize)MIN(strlen(group), 60));
    const char *nearest = NULL;
    unsigned best = NEAR_EDITS_MAX + 1;

    for (const Key *row = table; strlen(word) <= 60 && row->group; row++) {
        const char *candidate = known_group ? row->key : row->group;
        unsigned edits = near_distance(word, candidate);

        if ((!known_group || key_find(table, group, candidate) == row) && edits < best) {
            best = edits;
            nearest = candidate;
        }
    }
    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, known_group ? "unknown key '%s' in [%s]%s%s%s" : "unknown group [%s]%.0s%s%s%s",
                shown, shown_group, nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
    return FALSE;
}

gboolean settings_set(Settings *settings, const char *group, const char *key, const char *value, const char *origin,
                      GError **error)
{
    const Key *row = key_find(settings->table, group, key);
    g_autofree char *canonical = NULL;

    if (!row)
        return refuse_unknown(settings->table, group, key, error);
    if (!key_check(row, value, &canonical, error)) {
        g_prefix_error(error, "[%s] %s: ", group, key);
        return FALSE;
    }
    store(settings, group, key, canonical, origin);
    return TRUE;
}

gboolean settings_set_name(Settings *settings, const char *name, const char *value, const char *origin, GError **error)
{
    const char *dot = strrchr(name, '.');

    if (!dot) {
        g_autofree char *shown = hvm_escape(name, (gssize)MIN(strlen(name), 60));

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "bad setting '%s': wanted group.key", shown);
        return FALSE;
    }
    g_autofree char *group = g_strndup(name, (gsize)(dot - name));

    return settings_set(settings, group, dot + 1, value, origin, error);
}

void settings_merge(Settings *settings, const Settings *over)
{
    for (guint i = 0; i < over->items->len; i++) {
        const Setting *setting = over->items->pdata[i];

        store(settings, setting->group, setting->key, setting->value, setting->origin);
    }
}

void settings_add_defaults(Settings *settings)
{
    for (const Key *row = settings->table; row->group; row++) {
        g_autofree char *kind = g_str_has_suffix(row->group, " *") ? g_strndup(row->group, strlen(row->group) - 2) : NULL;

        if (!row->fallback)
            continue;
        if (!kind) {
            if (!find(settings, row->group, row->key))
                store(settings, row->group, row->key, row->fallback, "default");
            continue;
        }
        g_auto(GStrv) names = settings_group_names(settings, kind);

        for (char **name = names; *name; name++) {
            g_autofree char *group = g_strconcat(kind, " ", *name, NULL);

            if (!find(settings, group, row->key))
                store(settings, group, row->key, row->fallback, "default");
        }
    }
}

const char *settings_get(const Settings *settings, const char *group, const char *key)
{
    const Setting *setting = find(settings, group, key);

    return setting ? setting->value : NULL;
}

const char *settings_origin(const Settings *settings, const char *group, const char *key)
{
    const Setting *setting = find(settings, group, key);

    return setting ? setting->origin : NULL;
}

guint64 settings_get_uint(const Settings *settings, const char *group, const char *key)
{
    const char *value = settings_get(settings, group, key);

    return value ? g_ascii_strtoull(value, NULL, 10) : 0;
}

guint64 settings_get_size(const Settings *settings, const char *group, const char *key)
{
    const char *value = settings_get(settings, group, key);
    guint64 bytes = 0;

    if (value)
        size_parse(value, &bytes, NULL);
    return bytes;
}

gboolean settings_get_bool(const Settings *settings, const char *group, const char *key)
{
    return g_strcmp0(settings_get(settings, group, key), "true") == 0;
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

char **settings_group_names(const Settings *settings, const char *kind)
{
    GPtrArray *names = g_ptr_array_new();
    g_autofree char *prefix = g_strconcat(kind, " ", NULL);

    for (guint i = 0; i < settings->items->len; i++) {
        const Setting *setting = settings->items->pdata[i];
        const char *name = g_str_has_prefix(setting->group, prefix) ? setting->group + strlen(prefix) : NULL;

        if (name && !g_ptr_array_find_with_equal_func(names, name, g_str_equal, NULL))
            g_ptr_array_add(names, g_strdup(name));
    }
    g_ptr_array_sort(names, compare_names);
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, FALSE);
}

/* GKeyFile merges repeated groups and lets the last of doubled keys win, so the lines are looked at first. */
static gboolean check_doubled(const char *text, const char *path, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autofree char *group = g_strdup("");

    for (guint i = 0; lines[i]; i++) {
        char *line = g_strstrip(lines[i]);
        g_autofree char *name = NULL;

        if (line[0] == '#' || line[0] == '\0')
            continue;
        if (line[0] == '[') {
            g_free(group);
            group = g_strndup(line + 1, strcspn(line + 1, "]"));
            name = g_strconcat("[", group, "]", NULL);
        } else {
            g_autofree char *key = g_strchomp(g_strndup(line, strcspn(line, "=")));

            name = g_strdup_printf("%s in [%s]", key, group);
        }
        guint first = GPOINTER_TO_UINT(g_hash_table_lookup(seen, name));

        if (first) {
            g_autofree char *shown = hvm_escape(name, (gssize)MIN(strlen(name), 120));

            g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "%s: %s stands twice, on lines %u and %u", path, shown, first,
                        i + 1);
            return FALSE;
        }
        g_hash_table_insert(seen, g_steal_pointer(&name), GUINT_TO_POINTER(i + 1));
    }
    return TRUE;
}

Settings *settings_parse(const Key *table, const char *text, gsize length, const char *path, const char *origin,
                         GError **error)
{
    g_autoptr(Settings) settings = settings_new(table);
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GError) local = NULL;

    if (length > FILE_MAX || !g_utf8_validate_len(text, length, NULL)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "%s: wanted UTF-8 text of at most 1 MiB", path);
        return NULL;
    }
    g_autofree char *copy = g_strndup(text, length);

    if (!check_doubled(copy, path, error))
        return NULL;
    if (length && !g_key_file_load_from_data(file, copy, length, G_KEY_FILE_NONE, &local)) {
        g_autofree char *shown = hvm_escape(local->message, -1);

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "%s: %s", path, shown);
        return NULL;
    }
    g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);

    for (char **group = groups; *group; group++) {
        g_auto(GStrv) keys = g_key_file_get_keys(file, *group, NULL, NULL);

        if (!key_group_known(table, *group) && !refuse_unknown(table, *group, "", error)) {
            g_prefix_error(error, "%s: ", path);
            return NULL;
        }
        for (char **key = keys; key && *key; key++) {
            g_autofree char *value = g_key_file_get_string(file, *group, *key, &local);

            if (!value) {
                g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "%s: [%s] %s: %s", path, *group, *key, local->message);
                return NULL;
            }
            if (!settings_set(settings, *group, *key, value, origin, error)) {
                g_prefix_error(error, "%s: ", path);
                return NULL;
            }
        }
    }
    return g_steal_pointer(&settings);
}

Settings *settings_load(const Key *table, const char *path, const char *origin, GError **error)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) local = NULL;
    gsize length = 0;

    if (!g_file_get_contents(path, &text, &length, &local)) {
        int code = g_error_matches(local, G_FILE_ERROR, G_FILE_ERROR_NOENT) ? HVM_ERROR_NOT_FOUND : HVM_ERROR_HOST;

        g_set_error(error, HVM_ERROR, code, "cannot read %s: %s", path, local->message);
        return NULL;
    }
    return settings_parse(table, text, length, path, origin, error);
}
