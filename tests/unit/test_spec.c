/* What a template and a request make of [device NAME]. */
#include "hvm_error.h"
#include "spec.h"
#include "template_keys.h"

#include <string.h>

static Settings *make(const char *text)
{
    g_autoptr(GError) error = NULL;
    Settings *settings = settings_parse(template_keys, text, strlen(text), "text", "text", &error);

    g_assert_no_error(error);
    return settings;
}

static Spec *make_spec(const char *template_text, const char *request_text, GError **error)
{
    g_autoptr(Settings) template_settings = make(template_text), request = make(request_text);

    return spec_new("g", "t", template_settings, NULL, request, error);
}

static const SpecDevice *device(const Spec *spec, guint i)
{
    g_assert_cmpuint(i, <, spec->devices->len);
    return spec->devices->pdata[i];
}

static void test_devices(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Spec) spec = make_spec("[device gpu0]\nkind=gpu\n[device b]\ninterface=ib0\nlocality=any\n",
                                     "[device a]\naddress=41:0A.1\n[device gpu0]\nlocality=required\n[device c]\naddress=10000:E1:00.0\n",
                                     &error);

    g_assert_no_error(error);
    g_assert_cmpuint(spec->devices->len, ==, 4);
    g_assert_cmpstr(device(spec, 0)->name, ==, "a");
    g_assert_cmpstr(device(spec, 0)->address, ==, "0000:41:0a.1");
    g_assert_cmpint(device(spec, 0)->locality, ==, LOCALITY_PREFERRED);
    g_assert_cmpstr(device(spec, 1)->network, ==, "ib0");
    g_assert_null(device(spec, 1)->kind);
    g_assert_cmpint(device(spec, 1)->locality, ==, LOCALITY_ANY);
    g_assert_cmpstr(device(spec, 2)->address, ==, "10000:e1:00.0");
    g_assert_cmpstr(device(spec, 3)->kind, ==, "gpu");
    g_assert_cmpint(device(spec, 3)->locality, ==, LOCALITY_REQUIRED);

    /* As metadata keeps it. */
    g_autoptr(Spec) again = spec_new_from_settings("g", "t", spec->settings, &error);

    g_assert_no_error(error);
    g_assert_cmpuint(again->devices->len, ==, 4);
}

static void test_devices_bad(void)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(make_spec("[device gpu0]\nkind=gpu\n", "[device gpu0]\naddress=41:00.0\n", &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
    g_assert_cmpstr(error->message, ==,
                    "guest 'g': [device gpu0]: wanted exactly one of kind, address and interface, found kind (text) and address (text)");
    g_clear_error(&error);
    g_assert_null(make_spec("", "[device x]\nlocality=any\n", &error));
    g_assert_cmpstr(error->message, ==, "guest 'g': [device x]: wanted exactly one of kind, address and interface, found none");
    g_clear_error(&error);

    g_autoptr(GString) many = g_string_new(NULL);

    for (unsigned i = 0; i <= SPEC_DEVICES_MAX; i++)
        g_string_append_printf(many, "[device d%u]\nkind=vf\n", i);
    g_assert_null(make_spec("", many->str, &error));
    g_assert_cmpstr(error->message, ==, "guest 'g': [device *]: wanted at most 64, found 65");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/spec/devices", test_devices);
    g_test_add_func("/spec/devices-bad", test_devices_bad);
    return g_test_run();
}
