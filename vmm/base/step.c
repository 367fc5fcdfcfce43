#include "step.h"

#include "hvm_error.h"

#ifdef HVM_FAULT_INJECTION
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* What the file wants of this step, or NULL. Caller frees. */
static char *read_action(const char *name)
{
    const char *path = g_getenv("HVM_FAULT_FILE");
    g_autofree char *text = NULL;

    if (!path || !g_file_get_contents(path, &text, NULL, NULL))
        return NULL;

    g_auto(GStrv) words = g_strsplit(g_strstrip(text), " ", 2);

    return g_strv_length(words) == 2 && strcmp(words[0], name) == 0 ? g_strdup(words[1]) : NULL;
}

static gboolean inject(const char *name, GError **error)
{
    g_autofree char *action = read_action(name);

    if (g_strcmp0(action, "wait") == 0) {
        g_autofree char *reached = g_strconcat(g_getenv("HVM_FAULT_FILE"), ".reached", NULL);

        g_file_set_contents(reached, name, -1, NULL);
    }
    while (action && strcmp(action, "wait") == 0) {
        g_usleep(10000);
        g_free(action);
        action = read_action(name);
    }
    if (!action)
        return TRUE;
    if (strcmp(action, "kill") == 0)
        kill(getpid(), SIGKILL);
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
