/* refusal.h: what refusal.c and advice.c share. */
#pragma once

#include "solver.h"

typedef struct {
    const Question *question;
    const Search *search;
    gboolean cut_short;
    GError **error;
} Refusal;

/* ---- advice.c: what would make it fit. Each appends text to `advice`, an array of owned strings, if there is anything to say. ---- */

/* The best of the changed request, or nothing. */
gboolean advice_ask(const Refusal *refusal, const Want *want, Solution *ret_solution);
gboolean advice_fits(const Refusal *refusal, const Want *want);
/* Whether the request as it is would fit if nobody else had anything: only then others can make room. */
gboolean advice_fits_empty(const Refusal *refusal);
void advice_add(GPtrArray *advice, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Changes of the request, the mildest first. All were tried: with any of them it fits. */
void advice_changes(const Refusal *refusal, GPtrArray *advice);
/* "--cpus 12", "--memory 12G": the most that is found to fit. */
void advice_cpus(const Refusal *refusal, GPtrArray *advice);
void advice_memory(const Refusal *refusal, GPtrArray *advice);
/* Devices that are required to be near, merely preferred there. */
void advice_locality(const Refusal *refusal, GPtrArray *advice);
/* Without `drop` of the wanted devices for which `those` (as devices_wanted() numbers them) is set. */
gboolean advice_fits_without(const Refusal *refusal, const gboolean *those, unsigned drop);
