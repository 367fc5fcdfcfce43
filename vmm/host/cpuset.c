#include "cpuset.h"

#include "hvm_error.h"
#include "sysroot.h"

#include <string.h>

#define TREES "/sys/fs/cgroup"

/* The path behind the line of a v1 controller ("" for v2's), or NULL. Caller frees. */
static char *group_path(char **lines, const char *controller)
{
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) parts = g_strsplit(*line, ":", 3);

        if (g_strv_length(parts) != 3)
            continue;

        g_auto(GStrv) controllers = g_strsplit(parts[1], ",", -1);

        if (*controller ? g_strv_contains((const char *const *)controllers, controller) : !*parts[1])
            return g_strdup(parts[2]);
    }
    return NULL;
}

/* The folder of a group, which must be there. Caller frees. */
static char *group_folder(const char *tree, const char *path, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);
    g_autofree char *folder = g_strconcat(tree, strcmp(path, "/") == 0 ? "" : path, NULL);
    g_autofree char *shown = hvm_escape(path, -1);

    /* "/../job": it is outside the part of the tree that this cgroup namespace shows. */
    if (*path == '/' && !g_strv_contains((const char *const *)parts, "..") && sysroot_exists("%s", folder))
        return g_steal_pointer(&folder);
    g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "wanted a cgroup below %s, found '%s'", tree, shown);
    return NULL;
}

/* An empty list is an error: the kernel lets no process into such a group. */
static hwloc_bitmap_t read_list(const char *folder, const char *file, GError **error)
{
    g_autofree char *text = sysroot_read(error, "%s/%s", folder, file);
    hwloc_bitmap_t list = text && *text ? host_parse_list(text, error) : NULL;

    if (text && !*text)
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "%s/%s: wanted a list of numbers such as 0-3,8, found nothing", folder, file);
    else if (text && !list)
        g_prefix_error(error, "%s/%s: ", folder, file);
    return list;
}

static gboolean read_lists(const char *folder, const char *cpus, const char *mems, Cpuset *cpuset, GError **error)
{
    return (cpuset->pus = read_list(folder, cpus, error)) && (cpuset->nodes = read_list(folder, mems, error));
}

static gboolean read_v1(Cpuset *cpuset, GError **error)
{
    g_autofree char *folder = group_folder(TREES "/cpuset", cpuset->path, error);

    cpuset->own = TRUE;
    return folder && read_lists(folder, "cpuset.effective_cpus", "cpuset.effective_mems", cpuset, error);
}

static gboolean read_v2(Cpuset *cpuset, GError **error)
{
    const char *tree = sysroot_exists(TREES "/unified/cgroup.controllers") ? TREES "/unified" : TREES;
    g_autofree char *folder = group_folder(tree, cpuset->path, error);

    if (!folder)
        return FALSE;
    cpuset->own = TRUE;
    while (!sysroot_exists("%s/cpuset.cpus.effective", folder)) {
        cpuset->own = FALSE;
        if (strcmp(folder, tree) == 0)
            return TRUE;
        *strrchr(folder, '/') = '\0';
    }
    return read_lists(folder, "cpuset.cpus.effective", "cpuset.mems.effective", cpuset, error);
}

gboolean cpuset_read(const char *task, Cpuset *ret_cpuset, GError **error)
{
    g_autofree char *text = sysroot_read(error, "%s/cgroup", task);
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);
    g_autofree char *v1 = group_path(lines, "cpuset"), *v2 = group_path(lines, "");
    g_auto(Cpuset) cpuset = {.path = g_strdup(v1 ? v1 : v2)};

    if (!text || (v1 && !read_v1(&cpuset, error)) || (!v1 && v2 && !read_v2(&cpuset, error)))
        return FALSE;
    *ret_cpuset = cpuset;
    cpuset = (Cpuset){NULL};
    return TRUE;
}

gboolean cpuset_read_bounds(const char *task, hwloc_bitmap_t *ret_pus, hwloc_bitmap_t *ret_nodes, GError **error)
{
    g_auto(Cpuset) cpuset = {NULL};
    g_autoptr(GError) local = NULL;

    if (!cpuset_read(task, &cpuset, &local)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_DENIED, "cannot tell which CPUs and memory nodes the caller may use: %s", local->message);
        return FALSE;
    }
    *ret_pus = g_steal_pointer(&cpuset.pus);
    *ret_nodes = g_steal_pointer(&cpuset.nodes);
    return TRUE;
}

void cpuset_clear(Cpuset *cpuset)
{
    g_clear_pointer(&cpuset->path, g_free);
    g_clear_pointer(&cpuset->pus, hwloc_bitmap_free);
    g_clear_pointer(&cpuset->nodes, hwloc_bitmap_free);
}
