/*
 * cp_stage.h: where a copy out of a guest comes to lie on this node: staged in a new folder beside its place, then renamed.
 *
 * Threads: the main thread only.
 */
#pragma once

#include "cp_archive.h"

typedef struct {
    char *final;   /* name in the folder parent_fd */
    char *name;    /* of the folder beside it, NULL: none made */
    int parent_fd;
    int fd;        /* of the folder `name`, the caller's alone (0700) */
} CpStage;

#define CP_STAGE_NONE ((CpStage){.parent_fd = -1, .fd = -1})

/* For a copy of `from` to `to`: in `to`, where that is a folder, under from's name; else as `to`. NOT_FOUND, DENIED, STORAGE; EXISTS
 * where a folder stands there; INVALID where `from` ends in no name. On failure *stage is to be cleared as well. */
gboolean cp_stage_make(CpStage *stage, const char *to, const char *from, GError **error);

/* Moves CP_TOP out of the stage to its place: a file over a file, a folder only where nothing is. EXISTS, DENIED, STORAGE. */
gboolean cp_stage_commit(const CpStage *stage, const CpResult *result, GError **error);

/* Removes the folder with what is in it; reports where it cannot. */
void cp_stage_clear(CpStage *stage);

/* The last name of a path; NULL with INVALID where it has none. Caller frees. */
char *cp_name(const char *path, GError **error);

/* "WHAT PATH: ..." with the code that fits an errno. */
void cp_set_error(int number, const char *what, const char *path, GError **error);
