#include "caller.h"

#include "hvm_error.h"
#include "sysroot.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { GROUPS_MAX = 65536, NAME_BUFFER = 16384 };

/*
 * The cpuset cgroup of a process bounds what it may ask for (its affinity is only a wish): cgroup v2 has
 * cpuset.{cpus,mems}.effective in the nearest group up the path with that controller, v1 cpuset.effective_{cpus,mems}.
 */
static hwloc_bitmap_t read_cpuset(const char *folder, const char *path, const char *file)
{
    g_autofree char *at = g_strdup(path);

    for (;;) {
        g_autofree char *text = sysroot_read(NULL, "/sys/fs/cgroup%s%s/%s", folder, strcmp(at, "/") == 0 ? "" : at, file);
        char *slash = strrchr(at, '/');

        if (text)
            return *text ? host_parse_list(text, NULL) : NULL;
        if (!slash || strcmp(at, "/") == 0)
            return NULL;
        slash[slash == at] = '\0';
    }
}

static void read_allowed(pid_t pid, Allowed *ret_allowed)
{
    g_autofree char *text = sysroot_read(NULL, "/proc/%d/cgroup", (int)pid);
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);

    for (char **line = lines; *line; line++) {
        g_auto(GStrv) parts = g_strsplit(*line, ":", 3);

        if (g_strv_length(parts) != 3 || strstr(parts[2], ".."))
            continue;

        g_auto(GStrv) controllers = g_strsplit(parts[1], ",", -1);

        if (g_strv_contains((const char *const *)controllers, "cpuset")) {
            ret_allowed->pus = read_cpuset("/cpuset", parts[2], "cpuset.effective_cpus");
            ret_allowed->nodes = read_cpuset("/cpuset", parts[2], "cpuset.effective_mems");
        } else if (!*parts[1] && !ret_allowed->pus) {
            ret_allowed->pus = read_cpuset("", parts[2], "cpuset.cpus.effective");
            ret_allowed->nodes = read_cpuset("", parts[2], "cpuset.mems.effective");
        }
    }
}

static gboolean read_groups(int socket_fd, Caller *caller)
{
    socklen_t length = GROUPS_MAX * sizeof(guint32);
    g_autofree guint32 *groups = g_malloc(length);

    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) < 0)
        return FALSE;
    caller->n_groups = (unsigned)(length / sizeof(guint32));
    caller->groups = g_memdup2(groups, length);
    return TRUE;
}

static void read_names(Caller *caller)
{
    char buffer[NAME_BUFFER];
    struct passwd passwd, *user = NULL;
    struct group entry, *group = NULL;

    if (getpwuid_r(caller->uid, &passwd, buffer, sizeof buffer, &user) == 0 && user) {
        caller->user_name = g_strdup(user->pw_name);
        caller->home = g_strdup(user->pw_dir);
    }
    if (getgrgid_r(caller->gid, &entry, buffer, sizeof buffer, &group) == 0 && group)
        caller->group_name = g_strdup(group->gr_name);
}

Caller *caller_new(int socket_fd, GError **error)
{
    struct ucred credentials = {.pid = -1, .uid = (uid_t)-1, .gid = (gid_t)-1};
    socklen_t length = sizeof credentials;
    g_autoptr(Caller) caller = g_new0(Caller, 1);

    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0 || credentials.uid == (uid_t)-1 ||
        !read_groups(socket_fd, caller)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot tell who is calling: %s", g_strerror(errno));
        return NULL;
    }
    caller->uid = credentials.uid;
    caller->gid = credentials.gid;
    read_names(caller);

    int pidfd = (int)syscall(SYS_pidfd_open, credentials.pid, 0);
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};

    if (pidfd >= 0)
        read_allowed(credentials.pid, &caller->allowed);
    /* A pidfd becomes readable when its process ends: what was read may then be another's. Whoever hands on the connection of a
     * process that has ended does not get out of their cpuset by it. */
    gboolean known = pidfd >= 0 && poll(&ended, 1, 0) == 0;

    if (!known)
        g_set_error(error, HVM_ERROR, HVM_ERROR_DENIED, "cannot tell who is calling: wanted a process that lives, found that %d has ended",
                    (int)credentials.pid);
    if (pidfd >= 0)
        close(pidfd);
    return known ? g_steal_pointer(&caller) : NULL;
}

void caller_free(Caller *caller)
{
    if (!caller)
        return;
    g_free(caller->groups);
    g_free(caller->user_name);
    g_free(caller->group_name);
    g_free(caller->home);
    g_clear_pointer(&caller->allowed.pus, hwloc_bitmap_free);
    g_clear_pointer(&caller->allowed.nodes, hwloc_bitmap_free);
    g_free(caller);
}

gboolean caller_in_group(const Caller *caller, const char *group)
{
    char buffer[NAME_BUFFER * 8];
    struct group entry, *found = NULL;

    if (getgrnam_r(group, &entry, buffer, sizeof buffer, &found) != 0 || !found)
        return FALSE;
    for (unsigned i = 0; i < caller->n_groups; i++)
        if (caller->groups[i] == found->gr_gid)
            return TRUE;
    return caller->gid == found->gr_gid;
}
