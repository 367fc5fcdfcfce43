#include "guest_root.h"

#include "hvm_error.h"
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_in_root(int root_fd, const char *path, guint64 flags, mode_t mode)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};

    return (int)syscall(SYS_openat2, root_fd, path, &how, sizeof how);
}

static gboolean fail(const char *what, const char *path, GError **error)
{
    g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot %s %s in the new root: %s", what, path, g_strerror(errno));
    return FALSE;
}

/* Opens the folder that `path` lies in, making it and those above it if `make`; *ret_name is the last component. */
static int open_parent(int root_fd, const char *path, gboolean make, char **ret_name)
{
    g_autofree char *parent = g_path_get_dirname(path);
    int fd = open_in_root(root_fd, parent, O_RDONLY | O_DIRECTORY, 0);

    if (fd < 0 && errno == ENOENT && make) {
        g_autofree char *name = NULL;
        int above = open_parent(root_fd, parent, TRUE, &name);

        if (above < 0)
            return -1;
        if (mkdirat(above, name, 0755) == 0) {
            fd = open_in_root(root_fd, parent, O_RDONLY | O_DIRECTORY, 0);
            if (fd >= 0)
                fchmod(fd, 0755); /* whatever the umask is */
        }
        close(above);
    }
    if (fd >= 0)
        *ret_name = g_path_get_basename(path);
    return fd;
}

gboolean guest_root_remove(int root_fd, const char *path, GError **error)
{
    g_autofree char *name = NULL;
    int parent = open_parent(root_fd, path, FALSE, &name);

    if (parent < 0)
        return errno == ENOENT || fail("remove", path, error);

    gboolean good = tree_remove(parent, name, path, error);

    close(parent);
    return good;
}

/* Opens a new file for writing in place of whatever is there; -1 and `error`. */
static int open_new(int root_fd, const char *path, mode_t mode, GError **error)
{
    g_autofree char *name = NULL;
    int parent = guest_root_remove(root_fd, path, error) ? open_parent(root_fd, path, TRUE, &name) : -2;
    int fd = parent >= 0 ? openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode) : -1;

    if (parent != -2 && (fd < 0 || fchmod(fd, mode) < 0)) { /* whatever the umask is */
        fail("make", path, error);
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    if (parent >= 0)
        close(parent);
    return fd;
}

gboolean guest_root_write(int root_fd, const char *path, mode_t mode, const char *text, gsize length, GError **error)
{
    int fd = open_new(root_fd, path, mode, error);
    gboolean good = fd >= 0;

    for (gsize at = 0; good && at < length;) {
        ssize_t count = write(fd, text + at, length - at);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            good = fail("write", path, error);
        else
            at += (gsize)count;
    }
    if (fd >= 0)
        close(fd);
    return good;
}

gboolean guest_root_link(int root_fd, const char *path, const char *target, GError **error)
{
    g_autofree char *name = NULL;

    if (!guest_root_remove(root_fd, path, error))
        return FALSE;

    int parent = open_parent(root_fd, path, TRUE, &name);
    gboolean good = parent >= 0 && symlinkat(target, parent, name) == 0;

    if (!good)
        fail("link", path, error);
    if (parent >= 0)
        close(parent);
    return good;
}

gboolean guest_root_exists(int root_fd, const char *path)
{
    int fd = open_in_root(root_fd, path, O_PATH, 0);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* Names in a folder that match. Empty where it is missing. */
static GPtrArray *list_matching(int root_fd, const char *folder, const char *pattern)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    int fd = open_in_root(root_fd, folder, O_RDONLY | O_DIRECTORY, 0);
    DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;

    for (struct dirent *entry; stream && (entry = readdir(stream));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            fnmatch(pattern, entry->d_name, 0) == 0)
            g_ptr_array_add(names, g_strdup(entry->d_name));
    if (stream)
        closedir(stream);
    else if (fd >= 0)
        close(fd);
    return names;
}

gboolean guest_root_remove_matching(int root_fd, const char *folder, const char *pattern, GError **error)
{
    g_autoptr(GPtrArray) names = list_matching(root_fd, folder, pattern);
    gboolean good = TRUE;

    for (guint i = 0; good && i < names->len; i++) {
        g_autofree char *path = g_build_filename(folder, names->pdata[i], NULL);

        good = guest_root_remove(root_fd, path, error);
    }
    return good;
}

char *guest_root_find_last(int root_fd, const char *folder, const char *pattern)
{
    g_autoptr(GPtrArray) names = list_matching(root_fd, folder, pattern);
    const char *last = NULL;

    for (guint i = 0; i < names->len; i++)
        if (!last || strverscmp(names->pdata[i], last) > 0)
            last = names->pdata[i];
    return g_strdup(last);
}

/* Copies all of one open file to another. */
static gboolean copy(int from, int to, const char *what, const char *path, GError **error)
{
    ssize_t count;

    while ((count = sendfile(to, from, NULL, 1 << 30)) != 0)
        if (count < 0 && errno != EINTR)
            return fail(what, path, error);
    return TRUE;
}

gboolean guest_root_copy_in(int root_fd, const char *path, mode_t mode, const char *host_path, GError **error)
{
    int from = open(host_path, O_RDONLY | O_CLOEXEC);
    int to = -1;
    gboolean good;

    if (from < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot read %s: %s", host_path, g_strerror(errno));
        return FALSE;
    }
    to = open_new(root_fd, path, mode, error);
    good = to >= 0 && copy(from, to, "write", path, error);
    close(from);
    if (to >= 0)
        close(to);
    return good;
}

gboolean guest_root_copy_out(int root_fd, const char *path, const char *host_path, GError **error)
{
    int from = open_in_root(root_fd, path, O_RDONLY, 0);
    int to = from >= 0 ? open(host_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    gboolean good = to >= 0 ? copy(from, to, "copy", path, error) : fail("copy", path, error);

    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return good;
}
