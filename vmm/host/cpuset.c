#include "cpuset.h"

#include "host.h"
#include "sysroot.h"

#include <string.h>

/* The file of the nearest group up the path that has it. */
static hwloc_bitmap_t read_list(const char *folder, const char *path, const char *file)
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

/* A line of /proc/PID/cgroup is "number:controllers:path"; v2's names no controllers and comes last. */
void cpuset_read(pid_t pid, hwloc_bitmap_t *ret_pus, hwloc_bitmap_t *ret_nodes)
{
    g_autofree char *process = pid ? g_strdup_printf("%d", (int)pid) : g_strdup("self");
    g_autofree char *text = sysroot_read(NULL, "/proc/%s/cgroup", process);
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);

    *ret_pus = *ret_nodes = NULL;
    for (char **line = lines; *line && !*ret_pus; line++) {
        g_auto(GStrv) parts = g_strsplit(*line, ":", 3);

        if (g_strv_length(parts) != 3 || strstr(parts[2], ".."))
            continue;

        g_auto(GStrv) controllers = g_strsplit(parts[1], ",", -1);

        if (g_strv_contains((const char *const *)controllers, "cpuset")) {
            *ret_pus = read_list("/cpuset", parts[2], "cpuset.effective_cpus");
            *ret_nodes = read_list("/cpuset", parts[2], "cpuset.effective_mems");
        } else if (!*parts[1]) {
            *ret_pus = read_list("", parts[2], "cpuset.cpus.effective");
            *ret_nodes = read_list("", parts[2], "cpuset.mems.effective");
        }
    }
}
