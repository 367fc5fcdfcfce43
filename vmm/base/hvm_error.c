#include "hvm_error.h"

#include <gio/gio.h>

static const struct {
    const char *dbus_name;
    const char *meaning;
    int status;
} rows[] = {
#define X(code, name, exit_status, text) {"io.hvm1.Error." #name, text, exit_status},
    HVM_ERROR_TABLE(X)
#undef X
};

static const GDBusErrorEntry dbus_entries[] = {
#define X(code, name, exit_status, text) {HVM_ERROR_##code, "io.hvm1.Error." #name},
    HVM_ERROR_TABLE(X)
#undef X
};

GQuark hvm_error_quark(void)
{
    static gsize quark = 0;

    g_dbus_error_register_error_domain("hvm-error-quark", &quark, dbus_entries, G_N_ELEMENTS(dbus_entries));
    return (GQuark)quark;
}

int hvm_error_exit_status(const GError *error)
{
    if (error->domain == HVM_ERROR && error->code >= 0 && (unsigned)error->code < G_N_ELEMENTS(rows))
        return rows[error->code].status;
    if (error->domain == G_OPTION_ERROR || error->domain == G_KEY_FILE_ERROR)
        return rows[HVM_ERROR_INVALID].status;
    if (error->domain == G_FILE_ERROR || error->domain == G_IO_ERROR)
        return rows[HVM_ERROR_HOST].status;
    return rows[HVM_ERROR_INTERNAL].status;
}

unsigned hvm_error_count(void)
{
    return G_N_ELEMENTS(rows);
}

const char *hvm_error_meaning(unsigned i)
{
    return rows[i].meaning;
}

int hvm_error_status(unsigned i)
{
    return rows[i].status;
}

char *hvm_escape(const char *text, gssize length)
{
    const char *end = text + (length < 0 ? (gssize)strlen(text) : length);
    GString *out = g_string_new(NULL);

    while (text < end) {
        gunichar c = g_utf8_get_char_validated(text, end - text);
        gboolean valid = c != (gunichar)-1 && c != (gunichar)-2;

        if (valid && g_unichar_isprint(c)) {
            g_string_append_unichar(out, c);
            text = g_utf8_next_char(text);
        } else {
            g_string_append_printf(out, "\\x%02x", (unsigned char)*text);
            text++;
        }
    }
    return g_string_free(out, FALSE);
}
