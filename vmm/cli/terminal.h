/*
 * terminal.h: the caller's terminal while a command in a guest has it.
 *
 * Threads: the main thread only.
 */
#pragma once

#include <glib.h>

/* Makes standard input's terminal raw, and remembers how it was; again after a stop. Restored by terminal_restore(),
 * which also runs at exit(). FALSE with HOST. */
gboolean terminal_make_raw(GError **error);

/* Puts the terminal back; does nothing if it was not made raw. */
void terminal_restore(void);

/* Its size; 24 by 80 where it does not tell. */
void terminal_size(gint16 *ret_rows, gint16 *ret_columns);

/* Puts the terminal back and ends hvm by this signal, blocked or not, so that whoever waits for it sees that. */
void terminal_die_by_signal(int number);
