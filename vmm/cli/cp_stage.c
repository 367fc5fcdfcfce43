#include "cp_stage.h"

#include "cli.h"
#include "hvm_error.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void cp_set_error(int number, const char *what, const char *path, GError **error)
{
    g_autofree char *name = hvm_escape(path, (gssize)MIN(strlen(path), 200));

    g_set_error(error, HVM_ERROR,
                number == ENOENT || number == ENOTDIR     ? HVM_ERROR_NOT_FOUND
                : number == EACCES || number == EPERM     ? HVM_ERROR_DENIED
                : number == EEXIST || number == ENOTEMPTY || number == EISDIR ? HVM_ERROR_EXISTS
                                                          : HVM_ERROR_STORAGE,
                "%s %s: %s", what, name, g_strerror(number));
}

/* The last name of a path; NULL where there is none. Caller frees. */
static char *last_name(const char *path)
{
    g_autofree char *name = g_path_get_basename(path);

    if (!*path || strcmp(name, "/") == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return NULL;
    return g_steal_pointer(&name);
}

char *cp_name(const char *path, GError **error)
{
    char *name = last_name(path);

    if (!name)
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "cp: wanted a source with a name, found '%s'", path);
    return name;
}

/* Finds stage->final and stage->parent_fd. */
static gboolean find_target(CpStage *stage, const char *to, const char *from, char **ret_parent, GError **error)
{
    gboolean into_folder = g_file_test(to, G_FILE_TEST_IS_DIR);
    g_autofree char *parent = into_folder ? g_strdup(to) : g_path_get_dirname(to);
    struct stat status;

    if (!into_folder && g_str_has_suffix(to, "/")) {
        cp_set_error(ENOENT, "cannot copy to", to, error);
        return FALSE;
    }
    if (!(stage->final = into_folder ? cp_name(from, error) : g_path_get_basename(to)))
        return FALSE;
    if ((stage->parent_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        cp_set_error(errno, "cannot copy to", parent, error);
        return FALSE;
    }
    if (fstatat(stage->parent_fd, stage->final, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_EXISTS, "there is a folder %s/%s already", parent, stage->final);
        return FALSE;
    }
    *ret_parent = g_steal_pointer(&parent);
    return TRUE;
}

gboolean cp_stage_make(CpStage *stage, const char *to, const char *from, GError **error)
{
    g_autofree char *parent = NULL;
    g_autofree char *path = NULL;

    if (!find_target(stage, to, from, &parent, error))
        return FALSE;
    path = g_build_filename(parent, ".hvm-cp.XXXXXX", NULL);
    if (!g_mkdtemp(path)) {
        cp_set_error(errno, "cannot copy to", parent, error);
        return FALSE;
    }
    stage->name = g_path_get_basename(path);
    stage->fd = openat(stage->parent_fd, stage->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (stage->fd >= 0)
        return TRUE;
    cp_set_error(errno, "cannot enter", path, error);
    return FALSE;
}

void cp_stage_clear(CpStage *stage)
{
    g_autoptr(GError) error = NULL;

    if (stage->name && !tree_remove(stage->parent_fd, stage->name, stage->name, &error))
        cli_report(error);
    if (stage->parent_fd >= 0)
        close(stage->parent_fd);
    if (stage->fd >= 0)
        close(stage->fd);
    g_free(stage->name);
    g_free(stage->final);
    *stage = CP_STAGE_NONE;
}

gboolean cp_stage_commit(const CpStage *stage, const CpResult *result, GError **error)
{
    const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, result->modified};
    int top = openat(stage->fd, CP_TOP, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    unsigned flags = result->is_folder ? RENAME_NOREPLACE : 0;
    int status = renameat2(stage->fd, CP_TOP, stage->parent_fd, stage->final, flags);

    if (status < 0 && flags && (errno == EINVAL || errno == ENOSYS)) /* NFS */
        status = renameat(stage->fd, CP_TOP, stage->parent_fd, stage->final);
    if (status < 0)
        cp_set_error(errno, "cannot copy to", stage->final, error);
    if (status == 0 && result->is_folder && top >= 0 && (fchmod(top, result->mode) < 0 || futimens(top, times) < 0)) {
        cp_set_error(errno, "cannot set the mode and time of", stage->final, error);
        status = -1;
    }
    if (top >= 0)
        close(top);
    return status == 0;
}
