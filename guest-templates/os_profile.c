#include "os_profile.h"

#include "hvm_error.h"
#include "image_keys.h"
#include "process.h"
#include "program.h"

#include <string.h>
#include <unistd.h>

enum { HELPER_TIMEOUT_MS = 30000 };

#define HELPER "hvm-osinfo"

/* HVM_LIBEXEC, else the one of this program. Caller frees. */
static char *find_helper(void)
{
    const char *folder = g_getenv("HVM_LIBEXEC");

    return folder && *folder ? g_build_filename(folder, HELPER, NULL)
                             : program_find("guest-templates/" HELPER, HVM_LIBEXEC_DIR "/" HELPER);
}

/* The helper's text as settings; *ret_resolved gets the id of the entry that was used, or NULL. */
static Settings *parse(const char *text, char **ret_resolved, GError **error)
{
    g_autoptr(Settings) settings = settings_new(image_keys);
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autofree char *resolved = NULL;
    g_autofree char *origin = NULL;

    if (!g_key_file_load_from_data(file, text, strlen(text), G_KEY_FILE_NONE, error)) {
        g_prefix_error(error, "%s printed no key file: ", HELPER);
        return NULL;
    }
    resolved = g_key_file_get_string(file, "profile", "resolved", NULL);
    origin = resolved ? g_strconcat("libosinfo ", resolved, NULL) : g_strdup("template");

    g_auto(GStrv) keys = g_key_file_get_keys(file, "os", NULL, NULL);

    for (char **key = keys; key && *key; key++) {
        g_autofree char *value = g_key_file_get_string(file, "os", *key, NULL);

        if (!settings_set(settings, "os", *key, value ? value : "", origin, error)) {
            g_prefix_error(error, "%s: ", HELPER);
            return NULL;
        }
    }
    *ret_resolved = g_steal_pointer(&resolved);
    return g_steal_pointer(&settings);
}

Settings *os_profile_resolve(const char *os_id, char **ret_note, GError **error)
{
    const Key *row = key_find(image_keys, "os", "id");
    g_autofree char *helper = find_helper();
    g_autofree char *id = NULL;
    g_autofree char *output = NULL;
    g_autofree char *resolved = NULL;
    g_autoptr(Settings) settings = NULL;
    const char *const argv[] = {helper, "--", os_id, NULL};
    const ProcessOptions options = {.timeout_ms = HELPER_TIMEOUT_MS};

    if (!key_check(row, os_id, &id, error)) {
        g_prefix_error(error, "[os] id: ");
        return NULL;
    }
    if (!process_run(argv, &options, HVM_ERROR_HOST, &output, error) || !(settings = parse(output, &resolved, error)))
        return NULL;
    if (ret_note && !resolved)
        *ret_note = g_strdup_printf("libosinfo's database does not know '%s', nor an older release of it: using defaults",
                                    os_id);
    else if (ret_note)
        *ret_note = strcmp(resolved, os_id) == 0 || strstr(os_id, "://")
                        ? NULL
                        : g_strdup_printf("libosinfo's database does not know '%s': using what it says of '%s'", os_id,
                                          resolved);
    return g_steal_pointer(&settings);
}
