#include "caller.h"

#include "cpuset.h"
#include "hvm_error.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { GROUPS_MAX = 65536, NAME_BUFFER = 16384 };

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

    g_autofree char *task = g_strdup_printf("/proc/%d", (int)credentials.pid);
    g_autoptr(GError) unknown = NULL;

    if (pidfd >= 0 && !cpuset_read_bounds(task, &caller->allowed.pus, &caller->allowed.nodes, &unknown))
        caller->allowed_error = g_strdup(unknown->message);
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
    g_free(caller->allowed_error);
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
