#include "doctor_internal.h"

#include "sysroot.h"
#include "units.h"

#include <linux/capability.h>
#include <string.h>

/* ---- Control groups ---- */

/* Whether version 2's controllers at `folder` have one. */
static gboolean has_controller(const char *folder, const char *controller)
{
    g_autofree char *text = sysroot_read(NULL, "%s/cgroup.controllers", folder);
    g_auto(GStrv) words = g_strsplit(text ? text : "", " ", -1);

    return g_strv_contains((const char *const *)words, controller);
}

void doctor_check_cgroups(GPtrArray *checks)
{
    gboolean two = sysroot_exists("/sys/fs/cgroup/cgroup.controllers");
    gboolean mixed = !two && sysroot_exists("/sys/fs/cgroup/unified/cgroup.controllers");
    gboolean cpuset = two ? has_controller("/sys/fs/cgroup", "cpuset") : sysroot_exists("/sys/fs/cgroup/cpuset");
    gboolean one = !two && (cpuset || sysroot_exists("/sys/fs/cgroup/memory") || sysroot_exists("/sys/fs/cgroup/cpu"));

    if (!two && !mixed && !one)
        check_add(checks, "cgroups", CHECK_FAILURE,
                  "guests cannot be bound to processors and memory, and libvirt does not start them",
                  "mount them: systemd does; without it: mount -t cgroup2 none /sys/fs/cgroup", "none mounted");
    else if (!cpuset)
        check_add(checks, "cgroups", CHECK_WARNING, "memory of guests cannot be kept on its NUMA node by a cgroup",
                  two ? "echo +cpuset > /sys/fs/cgroup/cgroup.subtree_control, or a kernel with CONFIG_CPUSETS"
                      : "mount the cpuset controller below /sys/fs/cgroup", "%s without the cpuset controller",
                  two ? "version 2" : "version 1");
    else if (mixed)
        check_add(checks, "cgroups", CHECK_WARNING,
                  "virtual machines work; crun refuses to start containers where both versions are mounted",
                  "systemd.unified_cgroup_hierarchy=1 on the kernel's command line for version 2 alone",
                  "versions 1 and 2 mixed");
    else
        check_add(checks, "cgroups", CHECK_OK, NULL, NULL, "version %d", two ? 2 : 1);
}

/* ---- Capabilities ---- */

static const struct {
    unsigned number;
    const char *name;
    gboolean needed; /* FALSE: some guests work without it */
    const char *loss;
} capabilities[] = {
    {CAP_CHOWN, "CAP_CHOWN", TRUE, "disks cannot be handed to QEMU's user"},
    {CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE", TRUE, "files of other users cannot be reached"},
    {CAP_KILL, "CAP_KILL", TRUE, "guests cannot be ended"},
    {CAP_SETGID, "CAP_SETGID", TRUE, "nothing can run as another group"},
    {CAP_SETUID, "CAP_SETUID", TRUE, "nothing can run as another user"},
    {CAP_NET_ADMIN, "CAP_NET_ADMIN", TRUE, "no bridge, VXLAN, tap or VF can be made or set"},
    {CAP_IPC_LOCK, "CAP_IPC_LOCK", FALSE, "memory cannot be locked beyond the limit"},
    {CAP_SYS_CHROOT, "CAP_SYS_CHROOT", FALSE, "no container can be started and no template built"},
    {CAP_SYS_ADMIN, "CAP_SYS_ADMIN", TRUE, "nothing can be mounted and no namespace made"},
    {CAP_SYS_NICE, "CAP_SYS_NICE", TRUE,
     "threads of guests cannot be pinned or given a scheduler, their memory not moved"},
    {CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE", FALSE,
     "limits cannot be raised: guests with passed-through devices or locked memory do not start"},
    {CAP_MKNOD, "CAP_MKNOD", FALSE, "no device files can be made in containers and templates"},
};

/* This process's effective capabilities. FALSE where the kernel does not tell. */
static gboolean read_effective(guint64 *ret_set)
{
    g_autofree char *text = sysroot_read(NULL, "/proc/self/status");
    const char *line = text ? strstr(text, "\nCapEff:") : NULL;

    if (!line)
        return FALSE;
    *ret_set = g_ascii_strtoull(line + strlen("\nCapEff:"), NULL, 16);
    return TRUE;
}

void doctor_check_capabilities(GPtrArray *checks)
{
    g_autoptr(GString) missing = g_string_new(NULL);
    g_autoptr(GString) losses = g_string_new(NULL);
    CheckState state = CHECK_WARNING;
    guint64 set = 0;

    if (!read_effective(&set))
        return;
    if (!set) {
        check_add(checks, "capabilities", CHECK_WARNING, "hvmd must run as root; what it may do is not checked here",
                  "ask as root: sudo hvm doctor", "none: not root");
        return;
    }
    for (gsize i = 0; i < G_N_ELEMENTS(capabilities); i++) {
        if (set >> capabilities[i].number & 1)
            continue;
        g_string_append_printf(missing, "%s%s", missing->len ? ", " : "", capabilities[i].name);
        g_string_append_printf(losses, "%s%s", losses->len ? "; " : "", capabilities[i].loss);
        if (capabilities[i].needed)
            state = CHECK_FAILURE;
    }
    if (!missing->len)
        check_add(checks, "capabilities", CHECK_OK, NULL, NULL, "all that are needed");
    else
        check_add(checks, "capabilities", state, losses->str,
                  "give them to hvmd: CapabilityBoundingSet= of its unit, or --cap-add of the container it runs in",
                  "missing: %s", missing->str);
}

/* ---- Locked memory ---- */

/* The hard limit in bytes, G_MAXUINT64 for unlimited. FALSE where the kernel does not tell. */
static gboolean read_memlock(guint64 *ret_bytes)
{
    g_autofree char *text = sysroot_read(NULL, "/proc/self/limits");
    static const char label[] = "Max locked memory";
    char *line = text ? strstr(text, label) : NULL;

    if (!line)
        return FALSE;
    line[strcspn(line, "\n")] = '\0';
    g_auto(GStrv) words = g_strsplit_set(line + strlen(label), " \t", -1);
    unsigned seen = 0;

    for (char **word = words; *word; word++) {
        if (!**word || ++seen != 2) /* soft, then hard */
            continue;
        *ret_bytes = strcmp(*word, "unlimited") == 0 ? G_MAXUINT64 : g_ascii_strtoull(*word, NULL, 10);
        return TRUE;
    }
    return FALSE;
}

void doctor_check_memlock(GPtrArray *checks)
{
    guint64 bytes = 0, set = 0;

    if (!read_memlock(&bytes))
        return;
    gboolean raises = read_effective(&set) && (set >> CAP_SYS_RESOURCE & 1);
    g_autofree char *size = bytes == G_MAXUINT64 ? g_strdup("unlimited") : size_format_rounded(bytes);

    if (bytes == G_MAXUINT64 || raises)
        check_add(checks, "memlock", CHECK_OK, NULL, NULL, "%s%s", size,
                  bytes == G_MAXUINT64 ? "" : ", raised for guests which need more");
    else
        check_add(checks, "memlock", CHECK_WARNING,
                  "guests with passed-through devices or locked memory do not start: all their memory is locked",
                  "LimitMEMLOCK=infinity in the unit of hvmd and libvirtd, or give them CAP_SYS_RESOURCE", "at most %s",
                  size);
}
