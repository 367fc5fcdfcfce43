#include "units.h"

#include "hvm_error.h"

#include <stdio.h>
#include <string.h>

static const char size_units[] = "BKMGT";

gboolean size_parse(const char *text, guint64 *ret_bytes, GError **error)
{
    char *end = NULL;
    guint64 number = 0;
    unsigned shift = 0;

    if (g_ascii_isdigit(text[0]) && strlen(text) < 24) {
        number = g_ascii_strtoull(text, &end, 10);
        const char *unit = *end ? strchr(size_units, g_ascii_toupper(*end)) : size_units;

        if (unit) {
            shift = 10 * (unsigned)(unit - size_units);
            if (*end)
                end++;
            if (shift && *end == 'i')
                end++;
            if (shift && *end == 'B')
                end++;
        }
    }
    if (!end || *end) {
        g_autofree char *shown = hvm_escape(text, MIN(strlen(text), 40));

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "'%s' is not a size: wanted a whole number and K, M, G or T",
                    shown);
        return FALSE;
    }
    if (number > (guint64)G_MAXINT64 >> shift) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "size '%s' is too large: at most 8 EiB", text);
        return FALSE;
    }
    *ret_bytes = number << shift;
    return TRUE;
}

char *size_format(guint64 bytes)
{
    unsigned unit = 0;

    while (bytes && unit + 1 < strlen(size_units) && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    return g_strdup_printf("%" G_GUINT64_FORMAT "%c", bytes, size_units[unit]);
}

char *size_format_rounded(guint64 bytes)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned unit = 0;

    while (value >= 999.5 && unit + 1 < G_N_ELEMENTS(names)) {
        value /= 1024;
        unit++;
    }
    if (value >= 99.95 || value == (double)(guint64)value)
        return g_strdup_printf("%.0f %s", value, names[unit]);
    return g_strdup_printf(value >= 9.995 ? "%.1f %s" : "%.3g %s", value, names[unit]);
}

gboolean name_check(const char *name, const char *what, GError **error)
{
    gsize length = strlen(name);
    gboolean good = length >= 1 && length <= HVM_NAME_MAX;

    for (gsize i = 0; good && i < length; i++) {
        gboolean alphanumeric = g_ascii_islower(name[i]) || g_ascii_isdigit(name[i]);

        good = alphanumeric || (name[i] == '-' && i > 0 && i + 1 < length);
    }
    if (!good) {
        g_autofree char *shown = hvm_escape(name, (gssize)MIN(length, HVM_NAME_MAX + 1));

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                    "bad %s '%s'%s: wanted 1 to %d of a-z, 0-9 and '-', with a letter or digit at both ends", what, shown,
                    length > HVM_NAME_MAX + 1 ? "..." : "", HVM_NAME_MAX);
    }
    return good;
}

gboolean pci_address_parse(const char *text, char **ret_address)
{
    unsigned domain, bus, slot, function;
    gsize length = strlen(text);
    g_autofree char *whole = length < 9 ? g_strconcat("0000:", text, NULL) : g_strdup(text);
    g_autofree char *lower = g_ascii_strdown(whole, -1);
    char address[32];

    if (length > 16 || sscanf(lower, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4 || bus > 0xff || slot > 0x1f ||
        function > 7)
        return FALSE;
    /* Written anew and compared, because sscanf() passes over much. */
    g_snprintf(address, sizeof address, "%04x:%02x:%02x.%x", domain, bus, slot, function);
    if (strcmp(lower, address) != 0)
        return FALSE;
    *ret_address = g_strdup(address);
    return TRUE;
}

gboolean interface_check(const char *name)
{
    gsize length = strlen(name);

    for (gsize i = 0; i < length; i++)
        if (!g_ascii_isgraph(name[i]) || strchr("/:,=", name[i]))
            return FALSE;
    return length >= 1 && length <= HVM_NAME_MAX && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}
