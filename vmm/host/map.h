/*
 * map.h: a drawing of a node: packages, NUMA nodes, L3 caches, cores with one cell for each PU, who has which, free
 * pages.
 *
 * Input: a Host and a function that names the owner of a PU. Output: text for a terminal, or an SVG picture which
 * hwloc's lstopo renders from the annotated topology. Threads: any; map_svg() blocks while lstopo runs.
 */
#pragma once

#include "host.h"

/* The name of who has this PU ("mpi0", "another user"), or NULL where it is free. Equal names are one owner. The string
 * is used before the next call only. */
typedef const char *(*MapOwnerFunc)(unsigned pu, gpointer data);

/* Appends the drawing to `out`. Lines end with a newline and are at most `width` columns wide (at
 * least 40 are assumed; a name longer than that has a line to itself).
 * `colours`: with ANSI escape sequences. `owner_of` may be NULL: all is free. */
void map_text(const Host *host, MapOwnerFunc owner_of, gpointer data, unsigned width, gboolean colours, GString *out);

/* Writes the picture to `path` (beside, then renamed). HOST where lstopo-no-graphics (package hwloc-nox or hwloc) is
 * missing or fails; G_FILE_ERROR where the file cannot be written. */
gboolean map_svg(const Host *host, MapOwnerFunc owner_of, gpointer data, const char *path, GError **error);
