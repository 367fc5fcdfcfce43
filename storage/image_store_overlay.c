/*
 * image_store_overlay.c: a guest's overlay, empty.
 *
 * qemu-img takes 10-50 ms to make one, most of it its own start, and what it writes depends on nothing but the path of the base
 * and the size of the disk. So the first of a kind is qemu-img's, and is remembered: its length, and the few blocks of it that
 * are not zero. The next is written from that.
 */
#include "image_store_private.h"

#include "hvm_error.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum {
    QEMU_IMG_TIMEOUT_MS = 60000,
    BLOCK_BYTES = 4096,
    BLANKS_MAX = 64,           /* kinds remembered: the sizes of disks are the users' to choose */
    BLANK_BYTES_MAX = 4 << 20, /* a larger one, of a disk of tens of TiB, is made by qemu-img each time */
};

typedef struct {
    off_t offset;
    guint8 bytes[BLOCK_BYTES];
} Block;

typedef struct {
    gsize length;
    GArray *blocks; /* of Block: those that are not zero */
} Blank;

static void blank_free(Blank *blank)
{
    g_array_unref(blank->blocks);
    g_free(blank);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Blank, blank_free)

GHashTable *image_store_new_blanks(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)blank_free);
}

/* A clause of qemu-img's own and no errno comes back, so that a full disk is read from its text. */
static gboolean run_qemu_img(ImageStore *store, const Image *image, const char *path, guint64 disk_bytes, GError **error)
{
    g_autofree char *size = g_strdup_printf("%" G_GUINT64_FORMAT, disk_bytes);
    static const char *const environment[] = {"LC_ALL=C", NULL};
    const ProcessOptions options = {.environment = environment, .timeout_ms = QEMU_IMG_TIMEOUT_MS};
    const char *argv[] = {"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image->root_path, "-o",
                          "extended_l2=on,cluster_size=128k,lazy_refcounts=off", path, size, NULL};
    g_autoptr(GError) local = NULL;

    if (process_run(argv, &options, HVM_ERROR_STORAGE, NULL, &local))
        return TRUE;
    if (strstr(local->message, g_strerror(ENOSPC)) || strstr(local->message, "No space left on device"))
        return image_store_fail(store, ENOSPC, error, "make %s", path);
    g_propagate_prefixed_error(error, g_steal_pointer(&local), "cannot make %s: ", path);
    return FALSE;
}

/* What qemu-img has just written, or NULL where it is not to be remembered. */
static Blank *read_blank(const char *path)
{
    static const guint8 zero[BLOCK_BYTES];
    g_autofree char *text = NULL;
    gsize length = 0;

    if (!g_file_get_contents(path, &text, &length, NULL) || length == 0 || length > BLANK_BYTES_MAX)
        return NULL;

    Blank *blank = g_new0(Blank, 1);

    blank->length = length;
    blank->blocks = g_array_new(FALSE, TRUE, sizeof(Block));
    for (gsize at = 0; at < length; at += BLOCK_BYTES) {
        gsize count = MIN(BLOCK_BYTES, length - at);
        Block block = {.offset = (off_t)at};

        if (memcmp(text + at, zero, count) == 0)
            continue;
        memcpy(block.bytes, text + at, count);
        g_array_append_val(blank->blocks, block);
    }
    return blank;
}

static gboolean write_all(int fd, const Blank *blank)
{
    if (ftruncate(fd, (off_t)blank->length) < 0)
        return FALSE;
    for (guint i = 0; i < blank->blocks->len; i++) {
        const Block *block = &g_array_index(blank->blocks, Block, i);
        gsize count = MIN(BLOCK_BYTES, blank->length - (gsize)block->offset);
        ssize_t written = pwrite(fd, block->bytes, count, block->offset);

        if (written != (ssize_t)count) {
            errno = written < 0 ? errno : ENOSPC;
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean write_blank(ImageStore *store, const Blank *blank, const char *path, GError **error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    gboolean good = fd >= 0 && write_all(fd, blank);

    if (!good)
        image_store_fail(store, errno, error, "make %s", path);
    if (fd >= 0)
        close(fd);
    return good;
}

gboolean image_store_make_overlay(ImageStore *store, const Image *image, const char *path, guint64 disk_bytes, GError **error)
{
    g_autofree char *kind = g_strdup_printf("%" G_GUINT64_FORMAT " %s", disk_bytes, image->root_path);
    gboolean known, good = TRUE;

    g_mutex_lock(&store->lock);

    const Blank *blank = g_hash_table_lookup(store->blanks, kind);

    known = blank != NULL;
    if (known)
        good = write_blank(store, blank, path, error);
    g_mutex_unlock(&store->lock);
    if (known || !run_qemu_img(store, image, path, disk_bytes, error))
        return known && good;

    g_autoptr(Blank) fresh = read_blank(path);

    g_mutex_lock(&store->lock);
    if (g_hash_table_size(store->blanks) >= BLANKS_MAX)
        g_hash_table_remove_all(store->blanks);
    if (fresh)
        g_hash_table_replace(store->blanks, g_steal_pointer(&kind), g_steal_pointer(&fresh));
    g_mutex_unlock(&store->lock);
    return TRUE;
}
