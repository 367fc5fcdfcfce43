#include "tree.h"

#include "hvm_error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Opens a folder below dirfd without following links or leaving the mount; -1 with errno (EXDEV: a mount is in the way). */
static int open_folder(int dirfd, const char *name)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
    };

    return (int)syscall(SYS_openat2, dirfd, name, &how, sizeof how);
}

static gboolean refuse(const char *shown, const char *name, int number, GError **error)
{
    g_autofree char *escaped = hvm_escape(name, -1);

    g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot remove %s: '%s': %s", shown, escaped,
                number == EXDEV ? "another file system is mounted on it" : g_strerror(number));
    return FALSE;
}

static gboolean remove_below(int fd, const char *shown, unsigned depth, GError **error);

static gboolean remove_entry(int dirfd, const char *name, const char *shown, unsigned depth, GError **error)
{
    /* A folder is told from the rest by trying: what is looked at first could be something else a moment later. */
    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return TRUE;
    if (errno != EISDIR && errno != EPERM)
        return refuse(shown, name, errno, error);
    if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return TRUE;
    if (errno != ENOTEMPTY && errno != EEXIST)
        return refuse(shown, name, errno, error);
    if (depth >= TREE_DEPTH_MAX)
        return refuse(shown, name, ELOOP, error);

    int fd = open_folder(dirfd, name);

    if (fd < 0)
        return errno == ENOENT ? TRUE : refuse(shown, name, errno, error);

    gboolean good = remove_below(fd, shown, depth + 1, error);

    close(fd);
    if (good && unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        good = refuse(shown, name, errno, error);
    return good;
}

static gboolean remove_below(int fd, const char *shown, unsigned depth, GError **error)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    DIR *folder = copy >= 0 ? fdopendir(copy) : NULL;
    gboolean good = TRUE;

    if (!folder) {
        int number = errno;

        if (copy >= 0)
            close(copy);
        return refuse(shown, ".", number, error);
    }
    for (struct dirent *entry; good && (errno = 0, entry = readdir(folder));) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            good = remove_entry(fd, entry->d_name, shown, depth, error);
    }
    if (good && errno)
        good = refuse(shown, ".", errno, error);
    closedir(folder);
    return good;
}

gboolean tree_remove(int dirfd, const char *name, const char *shown, GError **error)
{
    g_assert(*name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
    return remove_entry(dirfd, name, shown, 0, error);
}

/* Mount points are written with white space and backslashes as \ooo (proc_pid_mountinfo(5)). */
static char *unescape_mount(const char *text)
{
    GString *result = g_string_new(NULL);

    for (const char *c = text; *c; c++) {
        if (c[0] == '\\' && c[1] >= '0' && c[1] <= '3' && c[2] >= '0' && c[2] <= '7' && c[3] >= '0' && c[3] <= '7') {
            g_string_append_c(result, (char)((c[1] - '0') << 6 | (c[2] - '0') << 3 | (c[3] - '0')));
            c += 3;
        } else {
            g_string_append_c(result, *c);
        }
    }
    return g_string_free(result, FALSE);
}

gboolean tree_unmount_below(const char *path, GError **error)
{
    g_autofree char *text = NULL;
    g_autofree char *below = g_strconcat(path, "/", NULL);

    /* Not through sysroot.h: these are this process's own mounts, about to be changed. */
    if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, error)) {
        g_prefix_error(error, "cannot read the mounts below %s: ", path);
        return FALSE;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (guint i = g_strv_length(lines); i-- > 0;) {
        g_auto(GStrv) fields = g_strsplit(lines[i], " ", 6);

        if (g_strv_length(fields) < 6)
            continue;
        g_autofree char *point = unescape_mount(fields[4]);

        if (strcmp(point, path) != 0 && !g_str_has_prefix(point, below))
            continue;
        if (umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW) < 0) {
            g_autofree char *shown = hvm_escape(point, -1);

            g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot unmount %s: %s", shown, g_strerror(errno));
            return FALSE;
        }
    }
    return TRUE;
}

/* nftw(3) has no argument of the caller's. */
static _Thread_local gint64 walked_bytes;

static int add_bytes(const char *path G_GNUC_UNUSED, const struct stat *status, int type, struct FTW *where G_GNUC_UNUSED)
{
    if (type != FTW_NS)
        walked_bytes += (gint64)status->st_blocks * 512;
    return 0;
}

gint64 tree_disk_bytes(const char *path)
{
    walked_bytes = 0;
    return nftw(path, add_bytes, 32, FTW_PHYS | FTW_MOUNT) == 0 ? walked_bytes : -1;
}
