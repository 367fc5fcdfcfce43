#include "config.h"

#include "hvm_error.h"
#include "settings.h"
#include "template_keys.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

const Key config_keys[] = {
    {.group = "daemon", .key = "socket", .type = KEY_STRING, .fallback = "/run/hvm/hvmd.sock",
     .help = "UNIX socket on which hvmd listens"},
    {.group = "daemon", .key = "runtime-dir", .type = KEY_STRING, .fallback = "/run/hvm",
     .help = "folder of the guests' sockets; must not outlive a boot"},
    {.group = "daemon", .key = "group", .type = KEY_STRING, .fallback = "hvm",
     .help = "group whose members may create guests"},
    {.group = "libvirt", .key = "uri", .type = KEY_STRING, .fallback = "qemu:///system", .help = "libvirt connection"},
    {.group = "storage", .key = "path", .type = KEY_STRING, .fallback = "/var/lib/hvm",
     .help = "image store: images and the guests' disks"},
    {.group = "qemu", .key = "user", .type = KEY_STRING, .fallback = "libvirt-qemu", .help = "user that QEMU runs as"},
    {.group = "qemu", .key = "group", .type = KEY_STRING, .fallback = "kvm", .help = "group that QEMU runs as"},
    {.group = "cpu", .key = "housekeeping", .type = KEY_CPU_LIST, .fallback = "",
     .help = "CPUs kept for the node itself and for QEMU's own threads; guests' vCPUs never get them"},
    {.group = "network", .key = "nat-pool", .type = KEY_STRING, .fallback = "10.88.0.0/16",
     .help = "addresses from which each owner's NAT network takes a /24"},
    {.group = "devices", .key = "allow", .type = KEY_STRING,
     .help = "devices that users other than root may give to their guests: kinds (" DEVICE_KINDS "), PCI addresses, names of "
             "interfaces; without it none"},
    {.group = "limits", .key = "guests", .type = KEY_UINT, .maximum = 100000, .fallback = "0",
     .help = "guests that one user may have; 0: no limit"},
    {.group = "limits", .key = "cpus", .type = KEY_UINT, .maximum = 100000, .fallback = "0",
     .help = "vCPUs of one user's running guests; 0: no limit"},
    {.group = "limits", .key = "memory", .type = KEY_SIZE, .fallback = "0", .help = "memory of one user's running guests; 0: no limit"},
    {.group = "limits", .key = "pages", .type = KEY_SIZE, .fallback = "0",
     .help = "memory in huge pages of one user's running guests; 0: no limit"},
    {0},
};

void config_free(DaemonConfig *config)
{
    if (!config)
        return;
    g_free(config->socket_path);
    g_free(config->agent_path);
    g_free(config->group);
    g_free(config->guests.libvirt_uri);
    g_free(config->guests.store_path);
    g_free(config->guests.runtime_folder);
    g_free(config->guests.nat_pool);
    g_clear_pointer(&config->guests.housekeeping, hwloc_bitmap_free);
    g_clear_pointer(&config->guests.devices, g_ptr_array_unref);
    g_free(config);
}

static gboolean find_qemu_user(const Settings *settings, DaemonConfig *config, const char *path, GError **error)
{
    const char *user = settings_get(settings, "qemu", "user");
    const char *group = settings_get(settings, "qemu", "group");
    const struct passwd *passwd = getpwnam(user);
    const struct group *entry = getgrnam(group);

    if (!passwd || !entry) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "%s: [qemu] %s: wanted a %s of this node, found '%s' (is libvirt-daemon-system installed?)",
                    path, passwd ? "group" : "user", passwd ? "group" : "user", passwd ? group : user);
        return FALSE;
    }
    config->guests.qemu_uid = passwd->pw_uid;
    config->guests.qemu_gid = entry->gr_gid;
    return TRUE;
}

static gboolean check_absolute(const Settings *settings, const char *group, const char *key, const char *path, GError **error)
{
    const char *value = settings_get(settings, group, key);

    if (g_path_is_absolute(value))
        return TRUE;
    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "%s: [%s] %s: wanted an absolute path, found '%s'", path, group, key, value);
    return FALSE;
}

DaemonConfig *config_load(const char *path, GError **error)
{
    g_autoptr(DaemonConfig) config = g_new0(DaemonConfig, 1);
    g_autoptr(Settings) settings = NULL;
    const char *shown = path ? path : CONFIG_DEFAULT_PATH;

    if (path || g_file_test(CONFIG_DEFAULT_PATH, G_FILE_TEST_EXISTS))
        settings = settings_load(config_keys, shown, shown, error);
    else
        settings = settings_new(config_keys);
    if (!settings)
        return NULL;
    settings_add_defaults(settings);
    if (!check_absolute(settings, "daemon", "socket", shown, error) || !check_absolute(settings, "daemon", "runtime-dir", shown, error) ||
        !check_absolute(settings, "storage", "path", shown, error) || !find_qemu_user(settings, config, shown, error))
        return NULL;
    config->socket_path = g_strdup(settings_get(settings, "daemon", "socket"));
    config->group = g_strdup(settings_get(settings, "daemon", "group"));
    config->guests.libvirt_uri = g_strdup(settings_get(settings, "libvirt", "uri"));
    config->guests.store_path = g_strdup(settings_get(settings, "storage", "path"));
    config->guests.runtime_folder = g_strdup(settings_get(settings, "daemon", "runtime-dir"));
    config->guests.nat_pool = g_strdup(settings_get(settings, "network", "nat-pool"));
    config->guests.housekeeping = host_parse_list(settings_get(settings, "cpu", "housekeeping"), error);
    if (settings_get(settings, "devices", "allow") &&
        !(config->guests.devices = devices_parse_allowed(settings_get(settings, "devices", "allow"), error))) {
        g_prefix_error(error, "%s: [devices] allow: ", shown);
        return NULL;
    }
    config->guests.limit_guests = (unsigned)settings_get_uint(settings, "limits", "guests");
    config->guests.limit_cpus = (unsigned)settings_get_uint(settings, "limits", "cpus");
    config->guests.limit_memory_bytes = settings_get_size(settings, "limits", "memory");
    config->guests.limit_pages_bytes = settings_get_size(settings, "limits", "pages");
    return config->guests.housekeeping ? g_steal_pointer(&config) : NULL;
}
