/* A tree of this node to a stream of tar. */
#include "cp_archive_private.h"

#include "hvm_error.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct archive_entry_linkresolver Links;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Links, archive_entry_linkresolver_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FTS, fts_close)

static la_ssize_t send_some(Archive *archive, void *data, const void *bytes, size_t length)
{
    Stream *stream = data;
    ssize_t count = 0;

    do
        count = send(stream->fd, bytes, length, MSG_NOSIGNAL);
    while (count < 0 && errno == EINTR);
    if (count < 0) {
        stream->result->stream_ended = errno == EPIPE || errno == ECONNRESET;
        archive_set_error(archive, errno, "cannot send to the guest: %s", g_strerror(errno));
    }
    return count;
}

static gboolean refuse_read(int number, const char *path, GError **error)
{
    g_autofree char *name = cp_shown(path);

    g_set_error(error, HVM_ERROR,
                number == ENOENT ? HVM_ERROR_NOT_FOUND : number == EACCES || number == EPERM ? HVM_ERROR_DENIED : HVM_ERROR_HOST,
                "cannot read %s: %s", name, g_strerror(number));
    return FALSE;
}

static gboolean refuse_stream(Archive *tar, GError **error)
{
    g_set_error(error, HVM_ERROR, HVM_ERROR_AGENT, "%s", archive_error_string(tar));
    return FALSE;
}

/* The content of a file, which must have the size that was told before it. */
static gboolean send_content(Archive *tar, int fd, const char *path, gint64 size, char *buffer, GError **error)
{
    gint64 sent = 0;
    ssize_t count = 0;

    while (sent < size && (count = read(fd, buffer, (size_t)MIN(size - sent, CP_BUFFER_BYTES))) > 0) {
        if (archive_write_data(tar, buffer, (size_t)count) < 0)
            return refuse_stream(tar, error);
        sent += count;
    }
    if (count < 0)
        return refuse_read(errno, path, error);
    if (sent < size) {
        g_autofree char *name = cp_shown(path);

        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "%s became smaller while it was read", name);
        return FALSE;
    }
    return TRUE;
}

/* Before its header is sent it is known that the file can be read. */
static gboolean pack_file(Archive *tar, Entry *entry, const char *path, char *buffer, GError **error)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    gboolean good = FALSE;

    if (fd < 0)
        return refuse_read(errno, path, error);
    if (archive_write_header(tar, entry) < ARCHIVE_WARN)
        refuse_stream(tar, error);
    else /* no size: a further name of a file that was sent */
        good = !archive_entry_size_is_set(entry) || send_content(tar, fd, path, archive_entry_size(entry), buffer, error);
    close(fd);
    return good;
}

static gboolean set_link(Entry *entry, const char *path, GError **error)
{
    char target[PATH_MAX + 1];
    ssize_t length = readlink(path, target, PATH_MAX);

    if (length < 0)
        return refuse_read(errno, path, error);
    target[length] = '\0';
    archive_entry_copy_symlink(entry, target);
    return TRUE;
}

/* One thing that was found. `root` is the length of the path of the top. */
static gboolean pack_entry(Archive *tar, Links *links, const FTSENT *found, gsize root, Stream *stream, GError **error)
{
    g_autofree char *member = g_strconcat(CP_TOP, found->fts_path + root, NULL);
    g_autoptr(Entry) entry = archive_entry_new();
    Entry *spare = NULL;
    Kind kind = KIND_OTHER;

    archive_entry_copy_stat(entry, found->fts_statp);
    kind = cp_kind(entry);
    if (kind == KIND_OTHER) {
        cp_leave_out(stream->result, found->fts_path);
        return TRUE;
    }
    archive_entry_set_perm(entry, archive_entry_perm(entry) & 0777);
    if (!found->fts_path[root])
        cp_note_top(stream->result, entry, kind);
    archive_entry_copy_pathname(entry, member);
    archive_entry_set_uid(entry, 0);
    archive_entry_set_gid(entry, 0);
    if (kind == KIND_LINK && !set_link(entry, found->fts_path, error))
        return FALSE;
    archive_entry_linkify(links, &entry, &spare); /* keeps neither for this format */
    if (kind == KIND_FILE)
        return pack_file(tar, entry, found->fts_path, stream->buffer, error);
    return archive_write_header(tar, entry) >= ARCHIVE_WARN || refuse_stream(tar, error);
}

static int compare_names(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* In depth: tar gives a folder its time when it comes to what is not below it. */
static gboolean pack_tree(Archive *tar, const char *path, Stream *stream, GError **error)
{
    char *const roots[] = {(char *)path, NULL};
    g_autoptr(Links) links = archive_entry_linkresolver_new();
    g_autoptr(FTS) walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, compare_names);
    g_autoptr(Entry) whole = archive_entry_new();
    FTSENT *found = NULL;

    archive_entry_linkresolver_set_strategy(links, ARCHIVE_FORMAT_TAR_GNUTAR);
    if (!walk)
        return refuse_read(errno, path, error);
    for (errno = 0; (found = fts_read(walk)); errno = 0) {
        if (found->fts_info == FTS_DP)
            continue;
        if (found->fts_info == FTS_DNR || found->fts_info == FTS_ERR || found->fts_info == FTS_NS || found->fts_info == FTS_DC)
            return refuse_read(found->fts_info == FTS_DC ? ELOOP : found->fts_errno, found->fts_path, error);
        if (!pack_entry(tar, links, found, strlen(path), stream, error))
            return FALSE;
    }
    if (errno)
        return refuse_read(errno, path, error);
    archive_entry_copy_pathname(whole, CP_WHOLE);
    archive_entry_set_filetype(whole, AE_IFREG);
    archive_entry_set_perm(whole, 0600);
    archive_entry_set_size(whole, 0);
    return archive_write_header(tar, whole) >= ARCHIVE_WARN || refuse_stream(tar, error);
}

gboolean cp_pack(const char *path, int stream_fd, CpResult *result, GError **error)
{
    g_autofree Stream *stream = g_new(Stream, 1);
    g_autoptr(Archive) tar = archive_write_new();

    stream->fd = stream_fd;
    stream->result = result;
    /* What tar, busybox and the tar of old systems read alike. */
    archive_write_set_format_gnutar(tar);
    archive_write_set_bytes_in_last_block(tar, 1);
    if (archive_write_open(tar, stream, NULL, send_some, NULL) < ARCHIVE_WARN)
        return refuse_stream(tar, error);
    if (!pack_tree(tar, path, stream, error)) {
        archive_write_fail(tar);
        return FALSE;
    }
    return archive_write_close(tar) >= ARCHIVE_WARN || refuse_stream(tar, error);
}
