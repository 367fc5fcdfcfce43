#include "apt_source.h"

#include "hvm_error.h"

#include <string.h>

#define KEYRING "debian-archive"

/* A stanza is a table field -> value; the fields' names are in lower case. */
static GHashTable *stanza_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

/* The words of a text without empty ones; NULL gives none. Caller frees. */
static char **split_words(const char *text)
{
    g_auto(GStrv) words = g_strsplit_set(text ? text : "", " \t\n", -1);
    g_autoptr(GPtrArray) result = g_ptr_array_new();

    for (char **word = words; *word; word++)
        if (**word)
            g_ptr_array_add(result, g_strdup(*word));
    g_ptr_array_add(result, NULL);
    return (char **)g_ptr_array_steal(result, NULL);
}

/* "arch=amd64 signed-by=FILE": the options of the one-line style, which has short names for three fields. */
static void read_options(const char *text, GHashTable *stanza)
{
    static const char *const long_names[][2] = {{"arch", "architectures"}, {"lang", "languages"}, {"target", "targets"}};
    g_auto(GStrv) pairs = split_words(text);

    for (char **pair = pairs; *pair; pair++) {
        const char *equal = strchr(*pair, '=');
        g_autofree char *name = equal ? g_ascii_strdown(*pair, equal - *pair) : NULL;

        for (gsize i = 0; name && i < G_N_ELEMENTS(long_names); i++) {
            if (strcmp(name, long_names[i][0]) == 0) {
                g_free(name);
                name = g_strdup(long_names[i][1]);
            }
        }
        if (name)
            g_hash_table_replace(stanza, g_steal_pointer(&name), g_strdelimit(g_strdup(equal + 1), ",", ' '));
    }
}

/* "deb [options] URI SUITE COMPONENT..." */
static void read_one_line(const char *text, GPtrArray *stanzas)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        g_autoptr(GHashTable) stanza = stanza_new();

        (*line)[strcspn(*line, "#")] = '\0';
        const char *rest = g_strstrip(*line);

        if (!g_str_has_prefix(rest, "deb") || !g_ascii_isspace(rest[3]))
            continue;
        rest += 4 + strspn(rest + 4, " \t");
        if (*rest == '[') {
            gsize length = strcspn(rest, "]");
            g_autofree char *options = g_strndup(rest + 1, length - 1);

            read_options(options, stanza);
            rest += length + (rest[length] == ']');
        }
        g_auto(GStrv) words = split_words(rest);

        if (g_strv_length(words) < 3)
            continue;
        g_hash_table_replace(stanza, g_strdup("types"), g_strdup("deb"));
        g_hash_table_replace(stanza, g_strdup("uris"), g_strdup(words[0]));
        g_hash_table_replace(stanza, g_strdup("suites"), g_strdup(words[1]));
        g_hash_table_replace(stanza, g_strdup("components"), g_strjoinv(" ", words + 2));
        g_ptr_array_add(stanzas, g_steal_pointer(&stanza));
    }
}

/* "Field: value", continued by lines that begin with white space, stanzas parted by blank lines (deb822(5)). */
static void read_deb822(const char *text, GPtrArray *stanzas)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autoptr(GHashTable) stanza = stanza_new();
    g_autofree char *field = NULL;

    for (char **line = lines;; line++) {
        gboolean last = !*line;

        if (!last && (*line)[0] == '#')
            continue;
        if (last || strspn(*line, " \t\r") == strlen(*line)) {
            if (g_hash_table_size(stanza) > 0) {
                g_ptr_array_add(stanzas, g_steal_pointer(&stanza));
                stanza = stanza_new();
            }
            g_clear_pointer(&field, g_free);
            if (last)
                return;
            continue;
        }
        if (g_ascii_isspace((*line)[0])) {
            const char *before = field ? g_hash_table_lookup(stanza, field) : NULL;

            if (before)
                g_hash_table_replace(stanza, g_strdup(field), g_strdup_printf("%s\n%s", before, *line));
            continue;
        }
        char *colon = strchr(*line, ':');

        if (!colon)
            continue;
        g_free(field);
        field = g_ascii_strdown(*line, colon - *line);
        g_hash_table_replace(stanza, g_strdup(field), g_strstrip(g_strdup(colon + 1)));
    }
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void read_file(const char *path, GPtrArray *stanzas)
{
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return;
    if (g_str_has_suffix(path, ".sources"))
        read_deb822(text, stanzas);
    else if (g_str_has_suffix(path, ".list"))
        read_one_line(text, stanzas);
}

static GPtrArray *read_all(const char *apt_folder)
{
    GPtrArray *stanzas = g_ptr_array_new_with_free_func((GDestroyNotify)g_hash_table_unref);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *list_path = g_build_filename(apt_folder, "sources.list", NULL);
    g_autofree char *parts_path = g_build_filename(apt_folder, "sources.list.d", NULL);
    g_autoptr(GDir) folder = g_dir_open(parts_path, 0, NULL);

    read_file(list_path, stanzas);
    for (const char *name; folder && (name = g_dir_read_name(folder));)
        g_ptr_array_add(names, g_build_filename(parts_path, name, NULL));
    g_ptr_array_sort(names, compare_names);
    for (guint i = 0; i < names->len; i++)
        read_file(names->pdata[i], stanzas);
    return stanzas;
}

static gboolean has_word(GHashTable *stanza, const char *field, const char *word)
{
    g_auto(GStrv) words = split_words(g_hash_table_lookup(stanza, field));

    return g_strv_contains((const char *const *)words, word);
}

/* The header says what counts as Debian's. */
static gboolean is_debian(GHashTable *stanza)
{
    const char *key = g_hash_table_lookup(stanza, "signed-by");
    const char *enabled = g_hash_table_lookup(stanza, "enabled");
    g_auto(GStrv) uris = split_words(g_hash_table_lookup(stanza, "uris"));

    if (!has_word(stanza, "types", "deb") || !has_word(stanza, "components", "main") || !uris[0] ||
        (enabled && g_ascii_strcasecmp(enabled, "no") == 0))
        return FALSE;
    if (!key || strstr(key, KEYRING))
        return TRUE;
    for (char **uri = uris; *uri; uri++) {
        g_autofree char *trimmed = g_strndup(*uri, strlen(*uri) - (g_str_has_suffix(*uri, "/") ? 1 : 0));

        if (!g_str_has_suffix(trimmed, "/debian") && !g_str_has_suffix(trimmed, "/debian-security"))
            return FALSE;
    }
    return TRUE;
}

/* Until buster the security suite was buster/updates. */
static const char *security_tail(const char *suite)
{
    static const char *const old[] = {"wheezy", "jessie", "stretch", "buster", NULL};

    return g_strv_contains(old, suite) ? "/updates" : "-security";
}

/* "bookworm-updates" of `own` bookworm as one of `wanted`; NULL for other suites (backports among them), and
 * for its security updates where they are not wanted. */
static char *map_suite(const char *found, const char *own, const char *wanted, gboolean security)
{
    const char *tail = g_str_has_prefix(found, own) ? found + strlen(own) : NULL;

    if (!tail)
        return NULL;
    if (strcmp(tail, "") == 0 || strcmp(tail, "-updates") == 0)
        return g_strconcat(wanted, tail, NULL);
    if (security && (strcmp(tail, "-security") == 0 || strcmp(tail, "/updates") == 0))
        return g_strconcat(wanted, security_tail(wanted), NULL);
    return NULL;
}

static int compare_fields(gconstpointer a, gconstpointer b)
{
    return strcmp(a, b);
}

/* Appends the stanza with other suites. All its fields but those which say what to take pass as they are. */
static void append_stanza(GString *text, GHashTable *stanza, const char *suites)
{
    static const char *const replaced[] = {"types", "suites", "components", "enabled", "architectures", NULL};
    g_autoptr(GList) fields = g_list_sort(g_hash_table_get_keys(stanza), compare_fields);

    g_string_append_printf(text, "%sTypes: deb\nSuites: %s\nComponents: main\n", text->len ? "\n" : "", suites);
    for (GList *item = fields; item; item = item->next)
        if (!g_strv_contains(replaced, item->data))
            g_string_append_printf(text, "%s: %s\n", (char *)item->data, (char *)g_hash_table_lookup(stanza, item->data));
}

/* The entries for `own` as ones for `wanted`, or NULL where none has the base suite itself. */
static char *collect(GPtrArray *stanzas, const char *own, const char *wanted, gboolean security)
{
    GString *text = g_string_new(NULL);
    gboolean complete = FALSE;

    for (guint i = 0; i < stanzas->len; i++) {
        GHashTable *stanza = stanzas->pdata[i];
        g_auto(GStrv) suites = split_words(g_hash_table_lookup(stanza, "suites"));
        g_autoptr(GString) mapped = g_string_new(NULL);

        if (!is_debian(stanza))
            continue;
        for (char **suite = suites; *suite; suite++) {
            g_autofree char *name = map_suite(*suite, own, wanted, security);

            if (name)
                g_string_append_printf(mapped, "%s%s", mapped->len ? " " : "", name);
            complete = complete || g_strcmp0(name, wanted) == 0;
        }
        if (mapped->len)
            append_stanza(text, stanza, mapped->str);
    }
    return g_string_free(text, !complete);
}

char *apt_source_for_suite(const char *apt_folder, const char *own_suite, const char *suite, gboolean security,
                           GError **error)
{
    g_autoptr(GPtrArray) stanzas = read_all(apt_folder);
    char *text = collect(stanzas, suite, suite, security);

    if (!text && own_suite)
        text = collect(stanzas, own_suite, suite, security);
    if (!text)
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST,
                    "no package source for Debian's %s: wanted in %s an entry of its archive, component main, for %s%s%s",
                    suite, apt_folder, suite, own_suite ? " or this machine's own " : "", own_suite ? own_suite : "");
    return text;
}

char *apt_source_own_suite(const char *os_release_path)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents(os_release_path, &text, NULL, NULL))
        return NULL;
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        if (g_str_has_prefix(*line, "VERSION_CODENAME=")) {
            char *value = g_shell_unquote(strchr(*line, '=') + 1, NULL);

            return value && *value ? value : (g_free(value), NULL);
        }
    }
    return NULL;
}

gboolean apt_source_has_secret(const char *sources)
{
    g_auto(GStrv) words = split_words(sources);

    for (char **word = words; *word; word++) {
        const char *authority = strstr(*word, "://");

        if (authority && memchr(authority + 3, '@', strcspn(authority + 3, "/")))
            return TRUE;
    }
    return FALSE;
}
