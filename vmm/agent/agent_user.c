/*
 * Who a command runs as. Numbers come from the host; a number that the guest does not know gets a line in its
 * /etc/passwd and /etc/group and a home, so that programs which ask for a name find one. Runs in the child, as root.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_FILE "/etc/.pwd.lock" /* lckpwdf(3)'s, which useradd and passwd take too */
#define LOCK_TRIES 150
#define NAME_LENGTH_MAX 32

/* What useradd takes, and the dots and capitals that sites have. Never a path, a colon, white space or a number
 * alone. */
static bool name_is_good(const char *name)
{
    size_t length = strlen(name);
    bool letter = false;

    if (length == 0 || length > NAME_LENGTH_MAX || name[0] == '-' || name[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        bool alphabetic = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';

        if (!alphabetic && !(c >= '0' && c <= '9') && c != '-' && c != '.')
            return false;
        letter = letter || alphabetic;
    }
    return letter;
}

/* An absolute path without "." and "..", fit for a line of /etc/passwd. */
static bool home_is_good(const char *home)
{
    if (home[0] != '/' || strlen(home) >= PATH_MAX)
        return false;
    for (const char *at = home; *at; at++) {
        if (*at == ':' || (unsigned char)*at < 0x20 || *at == 0x7f)
            return false;
        if (*at == '/' && at[1] == '.' &&
            (at[2] == 0 || at[2] == '/' || (at[2] == '.' && (at[3] == 0 || at[3] == '/'))))
            return false;
    }
    return true;
}

static int lock_users(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const struct timespec pause = {.tv_nsec = 100000000};
    int fd = open(LOCK_FILE, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    for (int i = 0; fd >= 0 && i < LOCK_TRIES; i++) {
        if (fcntl(fd, F_SETLK, &lock) == 0)
            return fd;
        nanosleep(&pause, NULL);
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Appends one line in one write, taken back where it did not fit. The caller has the lock. */
static bool append_line(const char *path, const char *line)
{
    int fd = open(path, O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
    size_t length = strlen(line);
    char text[2 * PATH_MAX + 1];
    struct stat before;
    char last = '\n';
    bool good = false;

    if (fd < 0)
        return false;
    if (fstat(fd, &before) == 0 && S_ISREG(before.st_mode) && length < sizeof(text) - 1 &&
        (before.st_size == 0 || pread(fd, &last, 1, before.st_size - 1) == 1)) {
        int total = snprintf(text, sizeof(text), "%s%s", last == '\n' ? "" : "\n", line);
        ssize_t n = write(fd, text, (size_t)total);

        good = n == total;
        if (!good && n > 0 && ftruncate(fd, before.st_size) < 0)
            good = false; /* half a line stays behind; readers of the file skip it */
    }
    close(fd);
    return good;
}

/* Makes the last component of `home`, and root's folders on the way to it, never through a symbolic link. */
static void make_home(const char *home, uid_t uid, gid_t gid)
{
    int folder = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char name[NAME_MAX + 1];

    while (folder >= 0) {
        size_t length;
        bool last, made;
        int next;

        home += strspn(home, "/");
        length = strcspn(home, "/");
        if (length == 0 || length > NAME_MAX)
            break;
        memcpy(name, home, length);
        name[length] = 0;
        home += length;
        last = home[strspn(home, "/")] == 0;
        made = mkdirat(folder, name, last ? 0700 : 0755) == 0;
        next = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (last && made && next >= 0 && fchown(next, uid, gid) < 0)
            unlinkat(folder, name, AT_REMOVEDIR);
        close(folder);
        folder = next;
    }
    if (folder >= 0)
        close(folder);
}

static const char *default_shell(void)
{
    return access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh";
}

/* Looks again under the lock: another command may have made the user meanwhile. */
static void make_user(const ProtocolExec *exec)
{
    char line[2 * PATH_MAX];
    int lock = lock_users();

    if (lock < 0)
        return;
    if (name_is_good(exec->group_name) && !getgrgid(exec->gid) && !getgrnam(exec->group_name)) {
        snprintf(line, sizeof(line), "%s:*:%u:\n", exec->group_name, (unsigned)exec->gid);
        append_line("/etc/group", line);
    }
    if (!getpwuid(exec->uid) && !getpwnam(exec->user_name)) {
        const char *home = home_is_good(exec->home) ? exec->home : "/";

        /* "*": no password, and none sought in /etc/shadow, where this user has no line. */
        snprintf(line, sizeof(line), "%s:*:%u:%u::%s:%s\n", exec->user_name, (unsigned)exec->uid, (unsigned)exec->gid,
                 home, default_shell());
        if (append_line("/etc/passwd", line) && home[1])
            make_home(home, exec->uid, exec->gid);
    }
    close(lock);
}

static void use_entry(const struct passwd *entry, ChildUser *user)
{
    user->name = strdup(entry->pw_name);
    user->home = strdup(entry->pw_dir && *entry->pw_dir ? entry->pw_dir : "/");
    user->shell = strdup(entry->pw_shell && *entry->pw_shell ? entry->pw_shell : "/bin/sh");
    if (!user->name || !user->home || !user->shell)
        child_fail(125, "hvm-agent: out of memory");
}

static void user_by_name(const char *name, ChildUser *user)
{
    const struct passwd *entry = getpwnam(name);
    int n = 0;

    if (!entry)
        child_fail(125, "hvm-agent: the guest has no user '%s'", name);
    user->uid = entry->pw_uid;
    user->gid = entry->pw_gid;
    use_entry(entry, user);
    getgrouplist(name, user->gid, NULL, &n);
    user->groups = calloc(n > 0 ? (size_t)n : 1, sizeof(*user->groups));
    if (!user->groups || (n > 0 && getgrouplist(name, user->gid, user->groups, &n) < 0))
        child_fail(125, "hvm-agent: the groups of user '%s' cannot be read", name);
    user->n_groups = n > 0 ? (size_t)n : 0;
}

static void user_by_number(const ProtocolExec *exec, ChildUser *user)
{
    static char number[16];
    const struct passwd *entry = getpwuid(exec->uid);

    if (!entry && name_is_good(exec->user_name)) {
        make_user(exec);
        entry = getpwuid(exec->uid);
    }
    user->uid = exec->uid;
    user->gid = exec->gid;
    user->groups = calloc((size_t)exec->n_groups + 1, sizeof(*user->groups));
    if (!user->groups)
        child_fail(125, "hvm-agent: out of memory");
    for (uint32_t i = 0; i < exec->n_groups; i++)
        user->groups[user->n_groups++] = protocol_get32(exec->groups + 4 * (size_t)i);
    if (entry) {
        use_entry(entry, user);
        return;
    }
    /* The name is another's here, or /etc cannot be written: the numbers alone will do. */
    snprintf(number, sizeof(number), "%u", (unsigned)exec->uid);
    user->name = number;
    user->home = home_is_good(exec->home) && access(exec->home, F_OK) == 0 ? exec->home : "/";
    user->shell = default_shell();
}

void child_user(const ProtocolExec *exec, ChildUser *ret_user)
{
    memset(ret_user, 0, sizeof(*ret_user));
    if (*exec->user)
        user_by_name(exec->user, ret_user);
    else
        user_by_number(exec, ret_user);
}
