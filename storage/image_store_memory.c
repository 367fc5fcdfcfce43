/*
 * Overlays in memory: /dev/shm/hvm-HASH/UUID/root.qcow2, HASH being of the store's path, so that two stores keep apart.
 * /dev/shm is every user's to write to: the folder HASH is taken when the store is opened, and one that is not ours is refused.
 */
#include "image_store_private.h"

#include "hvm_error.h"
#include "sysroot.h"
#include "tree.h"
#include "units.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MEMORY_ROOT "/dev/shm"

static char *memory_path(const ImageStore *store)
{
    return g_strdup_printf(MEMORY_ROOT "/hvm-%08x", g_str_hash(store->path));
}

/* MemAvailable of /proc/meminfo; 0 where it is not told. */
static guint64 memory_available(void)
{
    g_autofree char *text = sysroot_read(NULL, "/proc/meminfo");
    const char *line = text ? strstr(text, "MemAvailable:") : NULL;

    return line ? g_ascii_strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024 : 0;
}

/* Opens the store's folder in memory, made if need be; -1 where it is not ours: anyone may put something there before us. */
static int open_memory(const ImageStore *store, GError **error)
{
    g_autofree char *path = memory_path(store);
    struct stat status = {0};
    int fd;

    if (mkdir(path, 0711) == 0)
        chmod(path, 0711); /* whatever the umask is */
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &status) == 0 && status.st_uid == geteuid() && !(status.st_mode & 022))
        return fd;
    if (fd >= 0)
        close(fd);
    g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "%s is not safe to put disks into: wanted a folder of root's that nobody else writes to",
                path);
    return -1;
}

void image_store_take_memory(const ImageStore *store)
{
    g_autoptr(GError) error = NULL;
    int fd = open_memory(store, &error);

    if (fd >= 0)
        close(fd);
    else
        g_debug("%s", error->message);
}

void image_store_leave_memory(const ImageStore *store)
{
    g_autofree char *path = memory_path(store);

    rmdir(path); /* where nothing is in it */
}

gboolean image_store_check_memory(const ImageStore *store, guint64 bytes, GError **error)
{
    struct statfs status;
    int fd = open_memory(store, error);

    if (fd < 0)
        return FALSE;
    close(fd);
    if (statfs(MEMORY_ROOT, &status) == 0 && status.f_type == TMPFS_MAGIC &&
        (guint64)status.f_bavail * (guint64)status.f_bsize >= bytes && memory_available() >= bytes)
        return TRUE;

    g_autofree char *wanted = size_format_rounded(bytes);

    g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "wanted %s of room in " MEMORY_ROOT " and of free memory, found less", wanted);
    return FALSE;
}

char *image_store_make_memory_folder(ImageStore *store, const char *uuid, GError **error)
{
    g_autofree char *parent = memory_path(store);
    g_autofree char *folder = g_build_filename(parent, uuid, NULL);
    int fd = open_memory(store, error);

    if (fd < 0)
        return NULL;

    gboolean good = mkdirat(fd, uuid, 0711) == 0 && fchmodat(fd, uuid, 0711, 0) == 0;
    int number = errno;

    close(fd);
    if (!good) {
        image_store_fail(store, number, error, "make the folder %s", folder);
        return NULL;
    }
    return g_steal_pointer(&folder);
}

char *image_store_disk(const ImageStore *store, const char *uuid, gboolean in_memory)
{
    g_autofree char *parent = in_memory ? memory_path(store) : g_strdup(store->guests_path);

    return g_build_filename(parent, uuid, DISK, NULL);
}

gboolean image_store_destroy_memory(ImageStore *store, const char *uuid, GError **error)
{
    g_autofree char *parent = memory_path(store);
    g_autofree char *folder = g_build_filename(parent, uuid, NULL);
    int fd = open_memory(store, NULL);

    if (fd < 0)
        return TRUE; /* nothing of ours can be there */

    gboolean good = tree_remove(fd, uuid, folder, error);

    close(fd);
    return good;
}

gboolean image_store_recover_memory(ImageStore *store, gboolean (*known)(const char *uuid, gpointer data), gpointer data,
                                    GError **error)
{
    g_autofree char *parent = memory_path(store);
    g_autoptr(GDir) folder = g_dir_open(parent, 0, NULL);
    gboolean good = TRUE;

    for (const char *name; folder && (name = g_dir_read_name(folder));)
        if (g_uuid_string_is_valid(name) && !known(name, data))
            good = image_store_destroy_memory(store, name, good ? error : NULL) && good;
    return good;
}
