#include "cp_archive_private.h"

#include "hvm_error.h"

#include <string.h>

enum { SHOWN_BYTES = 200 };

void cp_result_clear(CpResult *result)
{
    g_clear_pointer(&result->first_left_out, g_free);
}

char *cp_shown(const char *path)
{
    return hvm_escape(path, (gssize)MIN(strlen(path), SHOWN_BYTES));
}

Kind cp_kind(Entry *entry)
{
    switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
        return KIND_FILE;
    case AE_IFDIR:
        return KIND_FOLDER;
    case AE_IFLNK:
        return KIND_LINK;
    default:
        return KIND_OTHER;
    }
}

void cp_leave_out(CpResult *result, const char *path)
{
    if (result->left_out++ == 0)
        result->first_left_out = g_strdup(path);
}

void cp_note_top(CpResult *result, Entry *entry, Kind kind)
{
    result->is_folder = kind == KIND_FOLDER;
    result->mode = archive_entry_perm(entry) & 0777;
    result->modified = (struct timespec){archive_entry_mtime(entry), archive_entry_mtime_nsec(entry)};
    /* To be moved a folder must be writable; it gets its mode then. */
    if (kind == KIND_FOLDER)
        archive_entry_set_perm(entry, archive_entry_perm(entry) | 0700);
}
