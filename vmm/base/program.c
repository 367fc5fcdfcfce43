#include "program.h"

#include <gio/gio.h>

enum { LEVELS_UP = 4 }; /* build/tests/unit/PROGRAM */

char *program_find(const char *below_build, const char *installed)
{
    g_autofree char *here = g_file_read_link("/proc/self/exe", NULL);

    for (int level = 0; here && level < LEVELS_UP; level++) {
        g_autofree char *above = g_path_get_dirname(here);
        g_autofree char *path = g_build_filename(above, below_build, NULL);

        if (g_file_test(path, G_FILE_TEST_EXISTS))
            return g_steal_pointer(&path);
        g_free(here);
        here = g_steal_pointer(&above);
    }
    return g_strdup(installed);
}
