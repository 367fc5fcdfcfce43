#include "template.h"

#include "hvm_error.h"
#include "near.h"
#include "program.h"
#include "template_keys.h"
#include "units.h"

#include <string.h>

enum { LEVELS_MAX = 16 }; /* also in a message below */

#define SUFFIX ".conf"
#define CONFIGURED_FOLDER "/etc/hvm/templates"

char **template_folders(void)
{
    const char *path = g_getenv("HVM_TEMPLATE_PATH");
    g_autofree char *shipped = program_find("guest-templates", HVM_TEMPLATES_DIR);
    char *folders[] = {(char *)CONFIGURED_FOLDER, shipped, NULL};

    return path && *path ? g_strsplit(path, ":", -1) : g_strdupv(folders);
}

void template_free(Template *template)
{
    if (!template)
        return;
    g_free(template->name);
    g_free(template->path);
    settings_free(template->settings);
    g_free(template);
}

/* The path of NAME.conf in the first folder that has it, or NULL. */
static char *find_file(const char *const *folders, const char *name)
{
    g_autofree char *file = g_strconcat(name, SUFFIX, NULL);

    for (const char *const *folder = folders; *folder; folder++) {
        g_autofree char *path = g_build_filename(*folder, file, NULL);

        if (**folder && g_file_test(path, G_FILE_TEST_EXISTS))
            return g_steal_pointer(&path);
    }
    return NULL;
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

char **template_list(const char *const *folders)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);

    for (const char *const *path = folders; *path; path++) {
        g_autoptr(GDir) folder = g_dir_open(*path, 0, NULL);

        for (const char *file; folder && (file = g_dir_read_name(folder));) {
            g_autofree char *name = g_str_has_suffix(file, SUFFIX) ? g_strndup(file, strlen(file) - strlen(SUFFIX)) : NULL;

            if (name && name_check(name, "template name", NULL) &&
                !g_ptr_array_find_with_equal_func(names, name, g_str_equal, NULL))
                g_ptr_array_add(names, g_steal_pointer(&name));
        }
    }
    g_ptr_array_sort(names, compare_names);
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_steal(names, NULL);
}

static void set_not_found(const char *const *folders, const char *name, GError **error)
{
    g_autofree char *places = g_strjoinv(", ", (char **)folders);
    g_auto(GStrv) names = template_list(folders);
    const char *nearest = near_find(name, (const char *const *)names, g_strv_length(names));

    g_set_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND, "no template '%s' in %s%s%s%s", name, places,
                nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
}

static gboolean refuse_chain(GPtrArray *chain, const char *name, const char *what, GError **error)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < chain->len; i++)
        g_string_append_printf(text, "%s -> ", (const char *)chain->pdata[i]);
    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "template '%s': %s: %s%s", (const char *)chain->pdata[0], what,
                text->str, name);
    g_string_free(text, TRUE);
    return FALSE;
}

/* Loads NAME and, before it, its parents: into `settings`, which gets what they set, nearest last. `chain` has the
 * names from the template that was asked for down to here. */
static gboolean load_chain(const char *const *folders, const char *name, GPtrArray *chain, Settings **settings, GError **error)
{
    g_autofree char *path = NULL;
    g_autofree char *origin = g_strconcat("template ", name, NULL);
    g_autoptr(Settings) own = NULL;
    const char *parent = NULL;

    if (g_ptr_array_find_with_equal_func(chain, name, g_str_equal, NULL))
        return refuse_chain(chain, name, "a loop in inherits", error);
    if (chain->len >= LEVELS_MAX)
        return refuse_chain(chain, name, "inherits more than 16 levels deep", error);
    if (!(path = find_file(folders, name))) {
        if (chain->len > 0)
            return refuse_chain(chain, name, "the last of these is missing", error);
        set_not_found(folders, name, error);
        return FALSE;
    }
    g_ptr_array_add(chain, g_strdup(name));
    if (!(own = settings_load(template_keys, path, origin, error)))
        return FALSE;
    if ((parent = settings_get(own, "template", "inherits"))) {
        if (!load_chain(folders, parent, chain, settings, error))
            return FALSE;
        settings_merge(*settings, own);
    } else {
        *settings = settings_copy(own);
    }
    return TRUE;
}

Template *template_load(const char *const *folders, const char *name, GError **error)
{
    g_autoptr(Template) template = g_new0(Template, 1);
    g_autoptr(GPtrArray) chain = g_ptr_array_new_with_free_func(g_free);

    if (!name_check(name, "template name", error) || !load_chain(folders, name, chain, &template->settings, error))
        return NULL;
    template->name = g_strdup(name);
    template->path = find_file(folders, name);
    return g_steal_pointer(&template);
}
