/*
 * near.h: which known word may have been meant by a mistyped one.
 *
 * Threads: any.
 */
#pragma once

#include <glib.h>

/* A word is near another if at most this many single-character edits lie between them. */
#define NEAR_EDITS_MAX 2

/* Number of single-character edits from a to b (Levenshtein). Both short: time is their product. */
unsigned near_distance(const char *a, const char *b);

/* The nearest of `candidates` (count of them; the first where several are equally near), or NULL where none is near, or
 * `word` is longer than 60 bytes. One of the candidates themselves. */
const char *near_find(const char *word, const char *const *candidates, gsize count);
