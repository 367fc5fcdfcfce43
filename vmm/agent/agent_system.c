/* What the agent does to the machine around it: signals, memory pressure, the root file system, the end. */
#include "agent.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* musl's compiler wrapper sees no linux/ headers: these are from linux/ext4.h and linux/magic.h. */
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)
#define EXT4_SUPER_MAGIC 0xEF53

#define KILL_ROUNDS 50
#define DESCRIPTORS_MAX 1024 /* inherited ones above are not looked for */

/* A short file into `to`; its length, or -1. */
static ssize_t read_file(const char *path, char *to, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, to, size - 1);

    if (fd >= 0)
        close(fd);
    if (n >= 0)
        to[n] = 0;
    return n;
}

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool good = fd >= 0 && write(fd, text, strlen(text)) >= 0;

    if (fd >= 0)
        close(fd);
    return good;
}

/* State, group and session of a process, from /proc/PID/stat; its name, in brackets, may hold anything. */
static bool process_session(const char *pid, char *ret_state, pid_t *ret_group, pid_t *ret_session)
{
    char path[64], text[512];
    const char *after;
    int group, session;

    snprintf(path, sizeof(path), "/proc/%s/stat", pid);
    if (read_file(path, text, sizeof(text)) < 0 || !(after = strrchr(text, ')')) ||
        sscanf(after + 1, " %c %*d %d %d", ret_state, &group, &session) != 3)
        return false;
    *ret_group = group;
    *ret_session = session;
    return true;
}

static bool is_among(pid_t session, const pid_t *leaders, size_t n_leaders)
{
    for (size_t i = 0; i < n_leaders; i++)
        if (leaders[i] == session)
            return true;
    return false;
}

/* Number of living processes met. A process in the leader's own group was signalled with that: a second SIGHUP would
 * kill it in the midst of what it does about the first. */
static unsigned signal_once(const pid_t *leaders, size_t n_leaders, int signal_number)
{
    DIR *folder = opendir("/proc");
    const struct dirent *entry;
    unsigned alive = 0;
    pid_t group, session;
    char state;

    while (folder && (entry = readdir(folder))) {
        if (!isdigit((unsigned char)entry->d_name[0]) || !process_session(entry->d_name, &state, &group, &session))
            continue;
        if (session <= 0 || state == 'Z' || state == 'X' || !is_among(session, leaders, n_leaders))
            continue;
        alive++;
        if (group != session || signal_number == SIGKILL)
            kill(atoi(entry->d_name), signal_number);
    }
    if (folder)
        closedir(folder);
    return alive;
}

void system_signal_sessions(const pid_t *leaders, size_t n_leaders, int signal_number)
{
    const struct timespec pause = {.tv_nsec = 1000000};

    if (n_leaders == 0)
        return;
    for (size_t i = 0; i < n_leaders; i++) {
        kill(-leaders[i], signal_number);
        if (signal_number == SIGKILL)
            kill(leaders[i], signal_number); /* it may not lead a session yet */
    }
    for (unsigned i = 0; i < KILL_ROUNDS; i++) {
        /* SIGKILL acts late, and a process may fork while the folder is read. */
        if (signal_once(leaders, n_leaders, signal_number) == 0 || signal_number != SIGKILL)
            return;
        nanosleep(&pause, NULL);
    }
}

void system_sort_descriptors(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
        if (fd < 0)
            fd = open("/", O_RDONLY);
    } while (fd >= 0 && fd <= 2);
    if (fd > 2)
        close(fd);
    for (fd = 3; fd < DESCRIPTORS_MAX; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static char oom_before[16];

void system_oom_protect(void)
{
    /* oom_score_adj is Linux 2.6.36's; oom_adj is what Scientific Linux 6 has. */
    if (read_file("/proc/self/oom_score_adj", oom_before, sizeof(oom_before)) >= 0)
        write_file("/proc/self/oom_score_adj", "-1000");
    else if (read_file("/proc/self/oom_adj", oom_before, sizeof(oom_before)) >= 0)
        write_file("/proc/self/oom_adj", "-17");
}

void system_oom_restore(void)
{
    if (*oom_before && !write_file("/proc/self/oom_score_adj", oom_before))
        write_file("/proc/self/oom_adj", oom_before);
}

bool system_grow_root(void)
{
    char path[64], text[32];
    struct statfs file_system;
    struct stat root;
    uint64_t blocks;
    int fd, result, code;

    if (statfs("/", &file_system) < 0 || file_system.f_type != EXT4_SUPER_MAGIC || stat("/", &root) < 0)
        return true;
    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/size", major(root.st_dev), minor(root.st_dev));
    if (read_file(path, text, sizeof(text)) <= 0)
        return true;
    blocks = strtoull(text, NULL, 10) * 512 / (uint64_t)file_system.f_bsize; /* sysfs counts in 512 bytes always */
    fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || blocks == 0)
        return true;
    result = ioctl(fd, EXT4_IOC_RESIZE_FS, &blocks); /* the kernel does nothing where it has this size */
    code = errno;
    close(fd);
    if (result < 0 && code == EROFS)
        return false;
    if (result < 0)
        fprintf(stderr, "hvm-agent: the root file system cannot be grown to %llu blocks: %s\n",
                (unsigned long long)blocks, strerror(code));
    return true;
}

const char *system_find_port(void)
{
    static char device[300];
    DIR *folder = opendir("/sys/class/virtio-ports");
    const struct dirent *entry;
    char path[320], name[64];
    bool found = false;

    while (folder && !found && (entry = readdir(folder))) {
        snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
        if (entry->d_name[0] == '.' || read_file(path, name, sizeof(name)) <= 0)
            continue;
        name[strcspn(name, "\n")] = 0;
        found = strcmp(name, PROTOCOL_PORT) == 0;
        snprintf(device, sizeof(device), "/dev/%s", entry->d_name);
    }
    if (folder)
        closedir(folder);
    if (found && access(device, F_OK) == 0)
        return device;
    snprintf(device, sizeof(device), "/dev/virtio-ports/%s", PROTOCOL_PORT);
    return access(device, F_OK) == 0 ? device : NULL;
}

static bool run_program(const char *const *argv)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void system_power_off(const char *program, bool is_init)
{
    const char *const *const programs[] = {
        (const char *const[]){"/bin/systemctl", "poweroff", NULL},
        (const char *const[]){"/sbin/poweroff", NULL},
    };
    bool systemd = access("/run/systemd/system", F_OK) == 0;

    if (program) {
        execl(program, program, (char *)NULL);
        _exit(127);
    }
    if (!is_init) {
        for (size_t i = systemd ? 0 : 1; i < sizeof(programs) / sizeof(programs[0]); i++)
            if (run_program(programs[i]))
                _exit(0);
    }
    kill(-1, SIGTERM);
    sleep(2);
    kill(-1, SIGKILL);
    sync();
    mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
    reboot(RB_POWER_OFF);
    _exit(1);
}
