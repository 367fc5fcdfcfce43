#include "image_store_private.h"

#include "hvm_error.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PROBE_BYTES = 4096 };

gboolean image_store_fail(const ImageStore *store, int number, GError **error, const char *format, ...)
{
    va_list arguments;
    g_autofree char *what = NULL;

    va_start(arguments, format);
    what = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    if (number == ENOSPC || number == EDQUOT)
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "image store %s is full: cannot %s", store->path, what);
    else
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot %s: %s", what, g_strerror(number));
    return FALSE;
}

/* Makes a folder 0711 where it is missing. What is there already must be a folder, and not a link to one. */
static gboolean make_folder(const ImageStore *store, const char *path, GError **error)
{
    struct stat status;

    if (mkdir(path, 0711) == 0) {
        if (chmod(path, 0711) < 0) /* whatever the umask is */
            return image_store_fail(store, errno, error, "set the mode of %s", path);
        return TRUE;
    }
    if (errno != EEXIST)
        return image_store_fail(store, errno, error, "make the folder %s", path);
    if (lstat(path, &status) < 0)
        return image_store_fail(store, errno, error, "look at %s", path);
    if (!S_ISDIR(status.st_mode)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "%s is not a folder", path);
        return FALSE;
    }
    /* Whoever may write here may put another root under a guest. */
    if ((status.st_uid != 0 && status.st_uid != geteuid()) || (status.st_mode & 022)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE,
                    "%s is not safe: wanted root's and not writable by others, found owner %u and mode %04o", path,
                    (unsigned)status.st_uid, (unsigned)status.st_mode & 07777);
        return FALSE;
    }
    return TRUE;
}

ImageStore *image_store_open(const char *path, uid_t qemu_uid, gid_t qemu_gid, GError **error)
{
    g_autoptr(ImageStore) store = g_new0(ImageStore, 1);
    g_autofree char *parent = NULL;

    store->path = g_canonicalize_filename(path, NULL);
    store->images_path = g_build_filename(store->path, "images", NULL);
    store->guests_path = g_build_filename(store->path, "guests", NULL);
    store->unfinished_path = g_build_filename(store->path, "unfinished", NULL);
    store->qemu_uid = qemu_uid;
    store->qemu_gid = qemu_gid;
    g_mutex_init(&store->lock);
    store->blanks = image_store_new_blanks();
    parent = g_path_get_dirname(store->path);
    if (!g_path_is_absolute(path)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "bad path of the image store '%s': wanted an absolute path", path);
        return NULL;
    }
    if (g_mkdir_with_parents(parent, 0755) < 0) {
        image_store_fail(store, errno, error, "make the folder %s", parent);
        return NULL;
    }
    if (!make_folder(store, store->path, error) || !make_folder(store, store->images_path, error) ||
        !make_folder(store, store->guests_path, error) || !make_folder(store, store->unfinished_path, error))
        return NULL;
    image_store_take_memory(store);
    return g_steal_pointer(&store);
}

void image_store_free(ImageStore *store)
{
    if (!store)
        return;
    if (store->path)
        image_store_leave_memory(store);
    g_free(store->path);
    g_free(store->images_path);
    g_free(store->guests_path);
    g_free(store->unfinished_path);
    g_hash_table_unref(store->blanks);
    g_mutex_clear(&store->lock);
    g_free(store);
}

const char *image_store_path(const ImageStore *store)
{
    return store->path;
}

int image_store_open_folder(const ImageStore *store, const char *path, GError **error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        image_store_fail(store, errno, error, "open the folder %s", path);
    return fd;
}

int image_store_lock(const ImageStore *store, GError **error)
{
    g_autofree char *path = g_build_filename(store->path, "lock", NULL);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    int result = -1;

    if (fd >= 0)
        while ((result = flock(fd, LOCK_EX)) < 0 && errno == EINTR)
            ;
    if (result < 0) {
        image_store_fail(store, errno, error, "lock %s", path);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

gboolean image_store_sync(const ImageStore *store, const char *path, GError **error)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    gboolean good = fd >= 0 && fsync(fd) == 0;

    if (!good)
        image_store_fail(store, errno, error, "write %s to the disk", path);
    if (fd >= 0)
        close(fd);
    return good;
}

/* An unlinked file in `folder`, or -1. Not every file system has O_TMPFILE. */
static int open_scratch(const char *folder, int flags)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
    g_autofree char *path = NULL;

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
        return fd;
    path = g_build_filename(folder, ".probe-XXXXXX", NULL);
    fd = mkostemp(path, O_CLOEXEC | flags);
    if (fd >= 0)
        unlink(path);
    return fd;
}

gboolean image_store_probe_direct_io(const char *folder)
{
    int fd = open_scratch(folder, O_DIRECT);
    void *buffer = NULL;
    gboolean good = FALSE;

    if (fd < 0)
        return FALSE;
    if (posix_memalign(&buffer, PROBE_BYTES, PROBE_BYTES) == 0) {
        memset(buffer, 0, PROBE_BYTES);
        good = pwrite(fd, buffer, PROBE_BYTES, 0) == PROBE_BYTES && pread(fd, buffer, PROBE_BYTES, 0) == PROBE_BYTES;
        free(buffer);
    }
    close(fd);
    return good;
}

gboolean image_store_probe_reflink(const char *folder)
{
    static const char block[PROBE_BYTES] = "hvm";
    int source = open_scratch(folder, 0);
    int target = open_scratch(folder, 0);
    gboolean good = source >= 0 && target >= 0 && pwrite(source, block, sizeof block, 0) == (ssize_t)sizeof block &&
                    ioctl(target, FICLONE, source) == 0;

    if (source >= 0)
        close(source);
    if (target >= 0)
        close(target);
    return good;
}
