/* A stream of tar from a guest, which is not trusted, to a tree of this node. */
#include "cp_archive_private.h"

#include "hvm_error.h"
#include "tree.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

enum { ENTRIES_MAX = 10000000, DEPTH_MAX = TREE_DEPTH_MAX - 8, REST_BYTES_MAX = 1 << 20, NAMES_BYTES_MAX = 1 << 30 };

typedef struct {
    Archive *disk;
    CpResult *result;
    GHashTable *seen; /* path below the top -> Kind; the top itself is "" */
    gsize names_bytes; /* of those paths: what the guest can make us keep */
} Unpack;

static la_ssize_t receive_some(Archive *archive, void *data, const void **ret_bytes)
{
    Stream *stream = data;
    ssize_t count = 0;

    do
        count = read(stream->fd, stream->buffer, sizeof stream->buffer);
    while (count < 0 && errno == EINTR);
    if (count < 0 && errno == ECONNRESET)
        count = 0;
    if (count < 0)
        archive_set_error(archive, errno, "cannot read from the guest: %s", g_strerror(errno));
    stream->result->stream_ended = count <= 0;
    *ret_bytes = stream->buffer;
    return count;
}

static gboolean refuse_member(const char *path, const char *why, GError **error)
{
    g_autofree char *name = cp_shown(path);

    g_set_error(error, HVM_ERROR, HVM_ERROR_AGENT, "the guest sent '%s', %s: nothing was copied", name, why);
    return FALSE;
}

/* "./a/b/" -> "a/b", "." -> "". Refuses what would lead elsewhere. Caller frees. */
static char *member_path(const char *name, GError **error)
{
    g_auto(GStrv) parts = NULL;
    g_autoptr(GString) path = g_string_new(NULL);
    unsigned depth = 0;

    if (!name || *name == '/') {
        refuse_member(name ? name : "", "which is no path below the folder", error);
        return NULL;
    }
    if (strlen(name) >= PATH_MAX) {
        refuse_member(name, "a name too long for a file", error);
        return NULL;
    }
    parts = g_strsplit(name, "/", -1);
    for (char **part = parts; *part; part++) {
        if (!**part || strcmp(*part, ".") == 0)
            continue;
        if (strcmp(*part, "..") == 0 || ++depth > DEPTH_MAX) {
            refuse_member(name, depth > DEPTH_MAX ? "which is too deep" : "which leads out of the folder", error);
            return NULL;
        }
        g_string_append_printf(path, "%s%s", path->len ? "/" : "", *part);
    }
    return g_string_free(g_steal_pointer(&path), FALSE);
}

static Kind seen_kind(const Unpack *unpack, const char *path)
{
    return (Kind)GPOINTER_TO_INT(g_hash_table_lookup(unpack->seen, path));
}

static Kind parent_kind(const Unpack *unpack, const char *path)
{
    const char *slash = strrchr(path, '/');
    g_autofree char *parent = g_strndup(path, slash ? (gsize)(slash - path) : 0);

    return seen_kind(unpack, parent);
}

/* The rule of cp_archive.h. */
static gboolean check_place(const Unpack *unpack, const char *path, Kind kind, GError **error)
{
    guint count = g_hash_table_size(unpack->seen);

    if (count == 0 && !(*path ? kind == KIND_FILE && !strchr(path, '/') : kind == KIND_FOLDER))
        return refuse_member(path, "which is neither the file nor the folder that was asked for", error);
    if (count > 0 && !unpack->result->is_folder)
        return refuse_member(path, "and one file was asked for", error);
    if (count > 0 && seen_kind(unpack, path) != KIND_NONE)
        return refuse_member(path, "which it had sent before", error);
    if (count > 0 && parent_kind(unpack, path) != KIND_FOLDER)
        return refuse_member(path, "in a folder that it had not sent", error);
    if (count >= ENTRIES_MAX || unpack->names_bytes > NAMES_BYTES_MAX)
        return refuse_member(path, "and that is too many", error);
    return TRUE;
}

static gboolean refuse_write(Archive *disk, const char *path, GError **error)
{
    int number = archive_errno(disk);
    g_autofree char *name = cp_shown(*path ? path : ".");
    g_autofree char *why = cp_shown(number > 0 ? g_strerror(number) : archive_error_string(disk));

    g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot write %s: %s", name, why);
    return FALSE;
}

static gboolean refuse_tar(Archive *tar, GError **error)
{
    g_autofree char *why = cp_shown(archive_error_string(tar) ? archive_error_string(tar) : "it is cut short");

    g_set_error(error, HVM_ERROR, HVM_ERROR_AGENT, "what the guest sent is not what tar makes: %s", why);
    return FALSE;
}

static gboolean unpack_content(const Unpack *unpack, Archive *tar, const char *path, GError **error)
{
    const void *bytes = NULL;
    size_t length = 0;
    la_int64_t offset = 0;
    int status = 0;

    while ((status = archive_read_data_block(tar, &bytes, &length, &offset)) >= ARCHIVE_WARN && status != ARCHIVE_EOF)
        if (archive_write_data_block(unpack->disk, bytes, length, offset) < ARCHIVE_WARN)
            return refuse_write(unpack->disk, path, error);
    return status == ARCHIVE_EOF || refuse_tar(tar, error);
}

/* A further name of a file: only of one that came in this stream. */
static gboolean set_hard_link(const Unpack *unpack, Entry *entry, const char *path, Kind *kind, GError **error)
{
    g_autofree char *target = member_path(archive_entry_hardlink(entry), error);
    g_autofree char *below_top = NULL;

    if (!target)
        return FALSE;
    *kind = seen_kind(unpack, target);
    if (*kind == KIND_NONE || *kind == KIND_FOLDER)
        return refuse_member(path, "a further name of a file that it had not sent", error);
    below_top = g_strconcat(CP_TOP "/", target, NULL);
    archive_entry_copy_hardlink(entry, below_top);
    archive_entry_set_size(entry, 0); /* or its data would be written through it */
    return TRUE;
}

static gboolean unpack_entry(Unpack *unpack, Archive *tar, Entry *entry, GError **error)
{
    g_autofree char *path = member_path(archive_entry_pathname(entry), error);
    gboolean is_top = g_hash_table_size(unpack->seen) == 0, is_hard = archive_entry_hardlink(entry) != NULL;
    Kind kind = is_hard ? KIND_FILE : cp_kind(entry);
    g_autofree char *below_top = NULL;

    if (!path || !check_place(unpack, path, kind, error))
        return FALSE;
    if (is_hard && is_top)
        return refuse_member(path, "which is neither the file nor the folder that was asked for", error);
    if (is_hard && !set_hard_link(unpack, entry, path, &kind, error))
        return FALSE;
    unpack->names_bytes += strlen(path);
    g_hash_table_insert(unpack->seen, g_strdup(path), GINT_TO_POINTER(kind));
    if (kind == KIND_OTHER) {
        cp_leave_out(unpack->result, path);
        return TRUE;
    }
    archive_entry_set_perm(entry, archive_entry_perm(entry) & 0777);
    if (is_top)
        cp_note_top(unpack->result, entry, kind);
    below_top = is_top ? g_strdup(CP_TOP) : g_strconcat(CP_TOP "/", path, NULL);
    archive_entry_copy_pathname(entry, below_top);
    if (archive_write_header(unpack->disk, entry) < ARCHIVE_WARN)
        return refuse_write(unpack->disk, path, error);
    if (kind == KIND_FILE && !is_hard && !unpack_content(unpack, tar, path, error))
        return FALSE;
    return archive_write_finish_entry(unpack->disk) >= ARCHIVE_WARN || refuse_write(unpack->disk, path, error);
}

/* tar fills its last block, and must be able to write it. */
static gboolean read_rest(Stream *stream, GError **error)
{
    const void *bytes = NULL;
    gsize total = 0;
    la_ssize_t count = 0;
    g_autoptr(Archive) nowhere = archive_read_new();

    while ((count = receive_some(nowhere, stream, &bytes)) > 0)
        if ((total += (gsize)count) > REST_BYTES_MAX)
            return refuse_member("", "behind its end", error);
    return TRUE;
}

static gboolean unpack_all(Unpack *unpack, Archive *tar, Stream *stream, GError **error)
{
    Entry *entry = NULL;
    int status = 0;

    while ((status = archive_read_next_header(tar, &entry)) >= ARCHIVE_WARN && status != ARCHIVE_EOF)
        if (!unpack_entry(unpack, tar, entry, error))
            return FALSE;
    if (status != ARCHIVE_EOF || g_hash_table_size(unpack->seen) == 0)
        return refuse_tar(tar, error);
    if (archive_write_close(unpack->disk) < ARCHIVE_WARN)
        return refuse_write(unpack->disk, "", error);
    return read_rest(stream, error);
}

gboolean cp_unpack(int stream_fd, int folder_fd, CpResult *result, GError **error)
{
    g_autofree Stream *stream = g_new(Stream, 1);
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(Archive) tar = archive_read_new();
    g_autoptr(Archive) disk = archive_write_disk_new();
    Unpack unpack = {.disk = disk, .result = result, .seen = seen};

    stream->fd = stream_fd;
    stream->result = result;
    if (fchdir(folder_fd) < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot enter the folder to copy to: %s", g_strerror(errno));
        return FALSE;
    }
    archive_read_support_format_tar(tar);
    /* The rule makes these three needless; they are a second lock. */
    archive_write_disk_set_options(disk, ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_SECURE_SYMLINKS |
                                             ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS);
    if (archive_read_open(tar, stream, NULL, receive_some, NULL) < ARCHIVE_WARN)
        return refuse_tar(tar, error);
    return unpack_all(&unpack, tar, stream, error);
}
