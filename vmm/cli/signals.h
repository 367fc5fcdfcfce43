/*
 * signals.h: the signals that hvm serves while a guest has its streams.
 *
 * Threads: the main thread, before there is any other (a connection has threads), so that none of them takes the signals.
 */
#pragma once

#include <glib.h>

typedef void (*SignalFunc)(int number, gpointer data);

/* From now on `func` gets each of these signals (ended by 0) in the default main context, and they do nothing else. Those which the
 * caller of hvm ignores (nohup) stay ignored. */
void signals_take(const int *numbers, SignalFunc func, gpointer data);
