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

enum { GROUPS_MAX = 65536, NAME_BUFFER = 16384, GROUP_BUFFER_MAX = 1 << 26 };

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

/* The group of a name, or where that is NULL of a number. An entry of the user database has all of the group's members in it: the buffer
 * grows until it fits. */
static gboolean find_group(const char *name, gid_t *gid, char **ret_name)
{
    struct group entry, *found = NULL;
    gboolean good = FALSE;
    int code = ERANGE;

    for (gsize size = NAME_BUFFER; code == ERANGE && size <= GROUP_BUFFER_MAX; size *= 2) {
        g_autofree char *buffer = g_malloc(size);

        code = name ? getgrnam_r(name, &entry, buffer, size, &found) : getgrgid_r(*gid, &entry, buffer, size, &found);
        good = code == 0 && found;
        if (good && ret_name)
            *ret_name = g_strdup(found->gr_name);
        if (good)
            *gid = found->gr_gid;
    }
    return good;
}

static void read_names(Caller *caller)
{
    char buffer[NAME_BUFFER];
    struct passwd passwd, *user = NULL;
    gid_t gid = caller->gid;

    if (getpwuid_r(caller->uid, &passwd, buffer, sizeof buffer, &user) == 0 && user) {
        caller->user_name = g_strdup(user->pw_name);
        caller->home = g_strdup(user->pw_dir);
    }
    find_group(NULL, &gid, &caller->group_name);
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
    gid_t gid = 0;

    if (!find_group(group, &gid, NULL))
        return FALSE;
    for (unsigned i = 0; i < caller->n_groups; i++)
        if (caller->groups[i] == gid)
            return TRUE;
    return caller->gid == gid;
}
