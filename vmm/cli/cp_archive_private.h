/*
 * cp_archive_private.h: what both ends of the stream share. Private to cp_pack.c and cp_unpack.c.
 */
#pragma once

#include "cp_archive.h"

#include <archive.h>
#include <archive_entry.h>

enum { CP_BUFFER_BYTES = 64 << 10 };

typedef enum { KIND_NONE, KIND_FOLDER, KIND_FILE, KIND_LINK, KIND_OTHER } Kind;

typedef struct {
    int fd;
    CpResult *result;
    char buffer[CP_BUFFER_BYTES];
} Stream;

typedef struct archive Archive;
typedef struct archive_entry Entry;
static inline void free_archive(Archive *archive)
{
    archive_free(archive);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Archive, free_archive)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Entry, archive_entry_free)

/* A path to show: escaped, and not without end. Caller frees. */
char *cp_shown(const char *path);
Kind cp_kind(Entry *entry);
/* Counts what is not copied. */
void cp_leave_out(CpResult *result, const char *path);
/* Remembers what the top is, and makes it a folder that can be moved. */
void cp_note_top(CpResult *result, Entry *entry, Kind kind);
