#include "sysroot.h"

#include "hvm_error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

enum { READ_MAX = 1 << 20 };

static char *root; /* NULL: "/" */

void sysroot_set(const char *new_root)
{
    g_free(root);
    root = new_root && strcmp(new_root, "/") != 0 ? g_strdup(new_root) : NULL;
}

const char *sysroot_get(void)
{
    return root;
}

char *sysroot_path(const char *path)
{
    return g_strconcat(root ? root : "", path, NULL);
}

/* The full path of a printf-style path. */
static char *full_path(const char *format, va_list arguments) G_GNUC_PRINTF(1, 0);
static char *full_path(const char *format, va_list arguments)
{
    g_autofree char *path = g_strdup_vprintf(format, arguments);

    return sysroot_path(path);
}

static gboolean fail(GError **error, const char *verb, const char *path)
{
    g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot %s %s: %s", verb, path, g_strerror(errno));
    return FALSE;
}

static char *read_path(const char *path, GError **error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    GString *text = NULL;
    char buffer[4096];
    ssize_t count = -1;

    if (fd >= 0) {
        text = g_string_new(NULL);
        while ((count = read(fd, buffer, sizeof buffer)) > 0 && text->len < READ_MAX)
            g_string_append_len(text, buffer, count);
        int saved = errno;

        close(fd);
        errno = saved;
    }
    if (count < 0) {
        fail(error, "read", path);
        if (text)
            g_string_free(text, TRUE);
        return NULL;
    }
    return g_strchomp(g_string_free(text, FALSE));
}

char *sysroot_read(GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *path = full_path(format, arguments);
    va_end(arguments);
    return read_path(path, error);
}

gboolean sysroot_read_uint(guint64 *ret_value, GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *path = full_path(format, arguments);
    va_end(arguments);

    g_autofree char *text = read_path(path, error);
    char *end = NULL;

    if (!text)
        return FALSE;
    errno = 0;
    guint64 value = strtoull(text, &end, 0);

    if (errno || end == text || *end) {
        g_autofree char *shown = hvm_escape(text, (gssize)MIN(strlen(text), 40));

        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "%s: wanted a number, found '%s'", path, shown);
        return FALSE;
    }
    *ret_value = value;
    return TRUE;
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

char **sysroot_list(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *path = full_path(format, arguments);
    va_end(arguments);

    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    GPtrArray *names = g_ptr_array_new();

    for (const char *name; dir && (name = g_dir_read_name(dir));)
        g_ptr_array_add(names, g_strdup(name));
    g_ptr_array_sort(names, compare_names);
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, FALSE);
}

char *sysroot_link_name(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *path = full_path(format, arguments);
    va_end(arguments);

    g_autofree char *target = g_file_read_link(path, NULL);

    return target ? g_path_get_basename(target) : NULL;
}

gboolean sysroot_exists(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *path = full_path(format, arguments);
    va_end(arguments);
    return g_file_test(path, G_FILE_TEST_EXISTS);
}

__attribute__((constructor)) static void take_environment(void)
{
    const char *wanted = getauxval(AT_SECURE) ? NULL : getenv("HVM_SYSROOT");

    if (wanted && *wanted)
        sysroot_set(wanted);
}
