/* The guest's root: found, mounted, entered; and what lies around it. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ROOT_WAIT_MS = 10000 };

static void make_mount(const char *type, const char *target, unsigned long flags, const char *data)
{
    if (mount(type, target, type, flags, data) < 0 && errno != EBUSY)
        init_warn("cannot mount %s on %s: %s", type, target, strerror(errno));
}

void init_mount_early(void)
{
    mkdir("/proc", 0555);
    mkdir("/sys", 0555);
    mkdir("/dev", 0755);
    mkdir("/root", 0755);
    make_mount("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
    make_mount("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    make_mount("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

/* devtmpfs makes the node once the driver has the disk. */
static bool wait_for(const char *device)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct stat status;

    for (int waited_ms = 0; waited_ms < ROOT_WAIT_MS; waited_ms++) {
        if (stat(device, &status) == 0 && S_ISBLK(status.st_mode))
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

/* The first set of options that this kernel takes. noinit_itable: else a grown file system writes its inode tables in the
 * background, into each overlay. */
static bool mount_root(const char *device, const char *type)
{
    static const char *const options[] = {"discard,noinit_itable", "noinit_itable", ""};

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if (mount(device, "/root", type, MS_NOATIME, options[i]) == 0)
            return true;
        if (errno != EINVAL)
            break;
    }
    return false;
}

void init_enter_root(void)
{
    static const char *const moved[] = {"/dev", "/proc", "/sys"};
    char device[128], type[32], target[64];
    struct stat status;

    if (!init_argument("root", device, sizeof(device)) || strncmp(device, "/dev/", 5) != 0)
        init_fail("wanted root=/dev/... on the kernel's command line, found '%s'", device);
    if (!init_argument("rootfstype", type, sizeof(type)))
        strcpy(type, "ext4");
    if (!wait_for(device))
        init_fail("the root disk %s did not appear within %d s", device, ROOT_WAIT_MS / 1000);
    if (!mount_root(device, type))
        init_fail("cannot mount the root disk %s as %s: %s", device, type, strerror(errno));
    for (size_t i = 0; i < sizeof(moved) / sizeof(moved[0]); i++) {
        snprintf(target, sizeof(target), "/root%s", moved[i]);
        if (mount(moved[i], target, NULL, MS_MOVE, NULL) < 0)
            init_fail("cannot move %s into the root: %s", moved[i], strerror(errno));
    }
    /* As switch_root(8): the initrd's files go with their last use, and its memory with them. */
    unlink("/init");
    if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        init_fail("cannot enter the root: %s", strerror(errno));
    if (stat(INIT_AGENT, &status) < 0)
        init_fail("the root has no agent %s: %s", INIT_AGENT, strerror(errno));
}

void init_mount_rest(void)
{
    static const struct {
        const char *path, *target;
    } links[] = {{"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "fd/0"}, {"/dev/stdout", "fd/1"}, {"/dev/stderr", "fd/2"},
                 {"/dev/core", "/proc/kcore"}};

    mkdir("/dev/pts", 0755);
    mkdir("/dev/shm", 0755);
    make_mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
    make_mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
    make_mount("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");
    mkdir("/run/lock", 01777);
    chmod("/run/lock", 01777);
    make_mount("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
        if (symlink(links[i].target, links[i].path) < 0 && errno != EEXIST)
            init_warn("cannot make %s: %s", links[i].path, strerror(errno));
}

/* Of machine-id(5), 32 hexadecimal digits: the image has none of its own, and each guest gets its UUID. */
static void set_machine_id(const char *id)
{
    char old[64];
    int fd;

    if (init_read("/etc/machine-id", old, sizeof(old)) && strcmp(old, id) == 0)
        return;
    fd = open("/etc/machine-id", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0444);
    if (fd < 0 || dprintf(fd, "%s\n", id) < 0)
        init_warn("cannot write /etc/machine-id: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

void init_identify(void)
{
    char text[128];

    if (init_argument("systemd.hostname", text, sizeof(text)) && sethostname(text, strlen(text)) < 0)
        init_warn("cannot set the host name '%s': %s", text, strerror(errno));
    if (init_argument("systemd.machine_id", text, sizeof(text)))
        set_machine_id(text);
}
