/*
 * undo.h: a stack of steps that take back what was done.
 *
 * Input: after each change to the host or to a store, the step that undoes it is pushed at once.
 * Output: on failure undo_roll_back() runs the steps, last first, and goes on past one that fails;
 * on success undo_commit() forgets them. A stack that goes out of scope (g_autoptr) without
 * undo_commit() rolls back, so that an early return is a roll-back.
 *
 * Threads: a stack belongs to one thread at a time. Errors: a step which fails warns at debug level
 * through g_debug and does not stop the others: what it leaves is found by recovery at the next start.
 */
#pragma once

#include <glib.h>

typedef struct Undo Undo;

/* Takes one step back; `data` is what was pushed. FALSE with `error` where it could not. */
typedef gboolean (*UndoFunc)(gpointer data, GError **error);

Undo *undo_new(void);

/* Pushes a step. `what` names it for the debug log (static or copied: it is copied). `data` is owned
 * by the stack from here on and freed with `free_data` (may be NULL) after the step ran or was forgotten. */
void undo_push(Undo *undo, const char *what, UndoFunc func, gpointer data, GDestroyNotify free_data);

/* Runs and removes all steps, last first. The stack is empty and usable afterwards. */
void undo_roll_back(Undo *undo);

/* Forgets all steps without running them. */
void undo_commit(Undo *undo);

/* Rolls back what is left and frees. NULL is allowed. */
void undo_free(Undo *undo);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Undo, undo_free)
