#include "step.h"

#include "hvm_error.h"

#ifdef HVM_FAULT_INJECTION
#include <signal.h>
#include <string.h>
#include <unistd.h>

static gboolean inject(const char *name, GError **error)
{
    const char *path = g_getenv("HVM_FAULT_FILE");
    g_autofree char *text = NULL;

    if (!path || !g_file_get_contents(path, &text, NULL, NULL))
        return TRUE;

    g_auto(GStrv) words = g_strsplit(g_strstrip(text), " ", 2);

    if (g_strv_length(words) != 2 || strcmp(words[0], name) != 0)
        return TRUE;
    if (strcmp(words[1], "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strcmp(words[1], "wait") == 0) {
        while (g_file_test(path, G_FILE_TEST_EXISTS))
            g_usleep(10000);
        return TRUE;
    }
    g_set_error(error, HVM_ERROR, HVM_ERROR_INTERNAL, "step %s: made to fail by a test", name);
    return FALSE;
}
#endif

gboolean step_reached(const char *name, GError **error)
{
    g_debug("step: %s", name);
#ifdef HVM_FAULT_INJECTION
    return inject(name, error);
#else
    (void)error;
    return TRUE;
#endif
}
