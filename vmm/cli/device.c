/* --device: one word that sets the keys of a group [device NAME]. */
#include "cli.h"
#include "hvm_error.h"
#include "template_keys.h"
#include "units.h"

#include <string.h>

#define LOCALITY "locality="

static gboolean refuse(const char *value, const char *wanted, GError **error)
{
    g_autofree char *shown = hvm_escape(value, (gssize)MIN(strlen(value), 80));

    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "--device: wanted %s, found '%s'", wanted, shown);
    return FALSE;
}

/* The first of dev0, dev1, ... that no value names itself. Caller frees. */
static char *free_name(const Settings *settings, const char *const *values)
{
    g_auto(GStrv) taken = settings_group_names(settings, "device");

    for (unsigned i = 0;; i++) {
        g_autofree char *name = g_strdup_printf("dev%u", i), *start = g_strconcat(name, "=", NULL);
        gboolean used = g_strv_contains((const char *const *)taken, name);

        for (const char *const *value = values; !used && *value; value++)
            used = g_str_has_prefix(*value, start);
        if (!used)
            return g_steal_pointer(&name);
    }
}

static gboolean set_keys(Settings *settings, const char *name, const char *which, const char *locality, GError **error)
{
    g_autofree char *group = g_strconcat("device ", name, NULL), *address = NULL;
    g_auto(GStrv) kinds = g_strsplit(DEVICE_KINDS, "|", -1);
    const char *key = g_strv_contains((const char *const *)kinds, which) ? "kind"
                      : pci_address_parse(which, &address)               ? "address"
                                                                         : "interface";

    if (strcmp(key, "interface") == 0 && !interface_check(which))
        return refuse(which, "a kind (" DEVICE_KINDS "), a PCI address or the name of an interface", error);
    if (!settings_set(settings, group, key, which, "request", error) ||
        (locality && !settings_set(settings, group, "locality", locality, "request", error))) {
        g_prefix_error(error, "--device: ");
        return FALSE;
    }
    return TRUE;
}

/* "[NAME=]WHICH[,locality=HOW]" */
static gboolean set_one(Settings *settings, const char *value, const char *const *all, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(value, ",", -1);
    g_autofree char *name = NULL;
    const char *locality = NULL, *equals, *which;

    for (unsigned i = 1; parts[0] && parts[i]; i++) {
        if (locality || !g_str_has_prefix(parts[i], LOCALITY))
            return refuse(parts[i], "[NAME=]WHICH[,locality=HOW]", error);
        locality = parts[i] + strlen(LOCALITY);
    }
    if (!parts[0])
        return refuse(value, "[NAME=]WHICH[,locality=HOW]", error);
    equals = strchr(parts[0], '=');
    which = equals ? equals + 1 : parts[0];
    name = equals ? g_strndup(parts[0], (gsize)(equals - parts[0])) : free_name(settings, all);
    if (!name_check(name, "name", error)) {
        g_prefix_error(error, "--device: ");
        return FALSE;
    }

    g_auto(GStrv) taken = settings_group_names(settings, "device");

    if (g_strv_contains((const char *const *)taken, name)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "--device: wanted one device of the name '%s', found two", name);
        return FALSE;
    }
    return set_keys(settings, name, which, locality, error);
}

gboolean device_options_set(Settings *settings, const char *const *values, GError **error)
{
    for (const char *const *value = values; value && *value; value++)
        if (!set_one(settings, *value, values, error))
            return FALSE;
    return TRUE;
}
