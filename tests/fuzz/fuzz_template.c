/*
 * fuzz_template.c: template files from anyone.
 *
 * Whatever the bytes: settings or one error of our domain in printable text; and settings read back the same, value by
 * value.
 */
#include "hvm_error.h"
#include "settings.h"
#include "template_keys.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const guint8 *data, size_t size);

int LLVMFuzzerTestOneInput(const guint8 *data, size_t size)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Settings) settings = settings_parse(template_keys, (const char *)data, size, "fuzz.conf", "template fuzz", &error);
    g_autoptr(Settings) again = settings_new(template_keys);

    g_assert_true((settings == NULL) == (error != NULL));
    if (!settings) {
        g_assert_true(error->domain == HVM_ERROR);
        g_assert_true(g_utf8_validate(error->message, -1, NULL));
        for (const char *c = error->message; *c; c++)
            g_assert_false(g_ascii_iscntrl(*c));
        return 0;
    }
    settings_add_defaults(settings);
    for (guint i = 0; i < settings->items->len; i++) {
        const Setting *setting = settings->items->pdata[i];

        g_assert_true(settings_set(again, setting->group, setting->key, setting->value, setting->origin, &error));
        g_assert_cmpstr(settings_get(again, setting->group, setting->key), ==, setting->value);
    }
    g_assert_cmpuint(again->items->len, ==, settings->items->len);
    return 0;
}
