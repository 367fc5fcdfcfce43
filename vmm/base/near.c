#include "near.h"

#include <string.h>

enum { WORD_MAX = 60 };

unsigned near_distance(const char *a, const char *b)
{
    gsize n = strlen(b);
    g_autofree unsigned *row = g_new(unsigned, n + 1);

    for (gsize j = 0; j <= n; j++)
        row[j] = (unsigned)j;
    for (gsize i = 0; a[i]; i++) {
        unsigned diagonal = row[0]++;

        for (gsize j = 0; j < n; j++) {
            unsigned next = MIN(MIN(row[j], row[j + 1]) + 1, diagonal + (a[i] != b[j]));

            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    return row[n];
}

const char *near_find(const char *word, const char *const *candidates, gsize count)
{
    const char *nearest = NULL;
    unsigned best = NEAR_EDITS_MAX + 1;

    /* Two edits make any two-letter word of any other: a short word must agree in more. */
    if (strlen(word) <= 3)
        best = 2;
    for (gsize i = 0; strlen(word) <= WORD_MAX && i < count; i++) {
        unsigned edits = near_distance(word, candidates[i]);

        if (edits < best) {
            best = edits;
            nearest = candidates[i];
        }
    }
    return nearest;
}
