/*
 * fuzz_host.c: host files and synthetic descriptions from anyone.
 *
 * Whatever the bytes: a Host or one error, and a Host which is captured reads back.
 */
#include "host.h"
#include "host_internal.h"

#include <sanitizer/lsan_interface.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const guint8 *data, size_t size);

static Host *load(const guint8 *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size); /* ends at the first NUL, as a command line does */
    g_autoptr(GError) error = NULL;
    Host *host;

    if (g_str_has_prefix(text, "synthetic:")) {
        host = host_new_from(text, &error);
    } else {
        host = host_new_from_xml((const char *)data, size, "fuzz", &error);
    }
    g_assert_true((host == NULL) == (error != NULL));
    return host;
}

/* hwloc 2.9 leaks objects of a text that it refuses in the middle. So whether it does is found out behind the leak checker's back;
 * what it takes is then loaded before its eyes. */
static gboolean is_refused(const guint8 *data, size_t size)
{
    g_autoptr(Host) host = NULL;

    __lsan_disable();
    host = load(data, size);
    __lsan_enable();
    return host == NULL;
}

int LLVMFuzzerTestOneInput(const guint8 *data, size_t size)
{
    g_autoptr(Host) host = is_refused(data, size) ? NULL : load(data, size);
    g_autoptr(GError) error = NULL;

    if (!host)
        return 0;

    g_autofree char *text = host_to_xml(host, &error);
    g_assert_no_error(error);
    if (strlen(text) > 1 << 18) /* hwloc's parser measures the rest of the text at each step where ASan watches it */
        return 0;
    g_autoptr(Host) back = host_new_from_xml(text, strlen(text), "back", &error);
    g_assert_no_error(error);
    g_assert_true(hwloc_bitmap_isequal(host->usable_pus, back->usable_pus));
    g_assert_cmpuint(host->nodes->len, ==, back->nodes->len);
    g_assert_cmpuint(host->devices->len, ==, back->devices->len);
    return 0;
}
