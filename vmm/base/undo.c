#include "undo.h"

typedef struct {
    char *what;
    UndoFunc func;
    gpointer data;
    GDestroyNotify free_data;
} Step;

struct Undo {
    GArray *steps;
};

static void step_clear(gpointer pointer)
{
    Step *step = pointer;

    if (step->free_data && step->data)
        step->free_data(step->data);
    g_free(step->what);
}

Undo *undo_new(void)
{
    Undo *undo = g_new0(Undo, 1);

    undo->steps = g_array_new(FALSE, FALSE, sizeof(Step));
    g_array_set_clear_func(undo->steps, step_clear);
    return undo;
}

void undo_push(Undo *undo, const char *what, UndoFunc func, gpointer data, GDestroyNotify free_data)
{
    Step step = {.what = g_strdup(what), .func = func, .data = data, .free_data = free_data};

    g_array_append_val(undo->steps, step);
}

void undo_roll_back(Undo *undo)
{
    while (undo->steps->len > 0) {
        Step *step = &g_array_index(undo->steps, Step, undo->steps->len - 1);
        g_autoptr(GError) error = NULL;

        g_debug("undo: %s", step->what);
        if (!step->func(step->data, &error))
            g_debug("undo: %s failed: %s", step->what, error ? error->message : "no reason given");
        g_array_set_size(undo->steps, undo->steps->len - 1);
    }
}

void undo_commit(Undo *undo)
{
    g_array_set_size(undo->steps, 0);
}

void undo_free(Undo *undo)
{
    if (!undo)
        return;
    undo_roll_back(undo);
    g_array_unref(undo->steps);
    g_free(undo);
}
