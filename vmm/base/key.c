#include "key.h"

#include "hvm_error.h"
#include "units.h"

#include <string.h>

/* Whether `group` is the row's: equal, or "KIND name" against "KIND *" with a good name. */
static gboolean group_matches(const char *pattern, const char *group)
{
    gsize length = strlen(pattern);

    if (length < 2 || strcmp(pattern + length - 2, " *") != 0)
        return strcmp(pattern, group) == 0;
    return strncmp(pattern, group, length - 1) == 0 && name_check(group + length - 1, "name", NULL);
}

const Key *key_find(const Key *table, const char *group, const char *key)
{
    for (const Key *row = table; row->group; row++)
        if (strcmp(row->key, key) == 0 && group_matches(row->group, group))
            return row;
    return NULL;
}

gboolean key_group_known(const Key *table, const char *group)
{
    for (const Key *row = table; row->group; row++)
        if (group_matches(row->group, group))
            return TRUE;
    return FALSE;
}

char *key_describe(const Key *row)
{
    g_autofree char *low = NULL;
    g_autofree char *high = NULL;

    switch (row->type) {
    case KEY_STRING:
        return g_strdup("text on one line");
    case KEY_NAME:
        return g_strdup("a name of a-z, 0-9 and '-'");
    case KEY_UINT:
        if (row->choices)
            return g_strdup_printf("%" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT ", or %s", row->minimum, row->maximum, row->choices);
        if (row->maximum)
            return g_strdup_printf("%" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT, row->minimum, row->maximum);
        return g_strdup_printf("a number of %" G_GUINT64_FORMAT " or more", row->minimum);
    case KEY_SIZE:
        low = size_format(row->minimum);
        high = row->maximum ? size_format(row->maximum) : NULL;
        if (high)
            return g_strdup_printf("a size from %s to %s", low, high);
        return row->minimum ? g_strdup_printf("a size of %s or more", low) : g_strdup("a size such as 4G");
    case KEY_BOOL:
        return g_strdup("true|false");
    case KEY_CHOICE:
        return g_strdup(row->choices);
    case KEY_CPU_LIST:
        return g_strdup("a list of CPUs such as 0-3,8");
    case KEY_PCI:
        return g_strdup("a PCI address such as 0000:41:00.0");
    case KEY_INTERFACE:
        return g_strdup("the name of an interface such as ib0");
    }
    return NULL;
}

static gboolean refuse(const Key *row, const char *value, GError **error)
{
    g_autofree char *shown = hvm_escape(value, (gssize)MIN(strlen(value), 60));
    g_autofree char *wanted = key_describe(row);

    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "wanted %s, found '%s'", wanted, shown);
    return FALSE;
}

static gboolean check_text(const char *value)
{
    if (!*value || strlen(value) > 4095 || !g_utf8_validate(value, -1, NULL))
        return FALSE;
    for (const char *c = value; *c; c++)
        if (g_ascii_iscntrl(*c))
            return FALSE;
    return TRUE;
}

/* A canonical boolean, or NULL. */
static const char *bool_text(const char *value)
{
    static const char *const yes[] = {"true", "yes", "on", "1", NULL};
    static const char *const no[] = {"false", "no", "off", "0", NULL};

    return g_strv_contains(yes, value) ? "true" : g_strv_contains(no, value) ? "false" : NULL;
}

/* "0-3,8" with numbers below 65536, ascending within a range. */
static gboolean check_cpu_list(const char *value)
{
    if (!*value)
        return TRUE;

    g_auto(GStrv) parts = g_strsplit(value, ",", -1);

    for (char **part = parts; *part; part++) {
        g_auto(GStrv) ends = g_strsplit(*part, "-", -1);
        guint64 first = 0, last = 0;
        guint count = g_strv_length(ends);

        if (count < 1 || count > 2 || !g_ascii_string_to_unsigned(ends[0], 10, 0, 65535, &first, NULL))
            return FALSE;
        if (count == 2 && (!g_ascii_string_to_unsigned(ends[1], 10, 0, 65535, &last, NULL) || last < first))
            return FALSE;
    }
    return TRUE;
}

gboolean key_check(const Key *row, const char *value, char **ret_value, GError **error)
{
    guint64 maximum = row->maximum ? row->maximum : G_MAXUINT64;
    guint64 number = 0;
    const char *flag = NULL;

    switch (row->type) {
    case KEY_STRING:
        if (!check_text(value))
            return refuse(row, value, error);
        break;
    case KEY_NAME:
        if (!name_check(value, "name", error))
            return FALSE;
        break;
    case KEY_UINT:
        if (g_strcmp0(value, row->choices) == 0)
            break;
        if (!g_ascii_string_to_unsigned(value, 10, row->minimum, maximum, &number, NULL))
            return refuse(row, value, error);
        *ret_value = g_strdup_printf("%" G_GUINT64_FORMAT, number);
        return TRUE;
    case KEY_SIZE:
        if (!size_parse(value, &number, NULL) || number < row->minimum || number > maximum)
            return refuse(row, value, error);
        *ret_value = size_format(number);
        return TRUE;
    case KEY_BOOL:
        if (!(flag = bool_text(value)))
            return refuse(row, value, error);
        *ret_value = g_strdup(flag);
        return TRUE;
    case KEY_CHOICE: {
        g_auto(GStrv) choices = g_strsplit(row->choices, "|", -1);

        if (!g_strv_contains((const char *const *)choices, value))
            return refuse(row, value, error);
        break;
    }
    case KEY_CPU_LIST:
        if (!check_cpu_list(value))
            return refuse(row, value, error);
        break;
    case KEY_PCI:
        return pci_address_parse(value, ret_value) || refuse(row, value, error);
    case KEY_INTERFACE:
        if (!interface_check(value))
            return refuse(row, value, error);
        break;
    }
    *ret_value = g_strdup(value);
    return TRUE;
}
