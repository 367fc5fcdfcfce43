#include "host_internal.h"

#include "hvm_error.h"

#include <string.h>

/* Devices as info attributes of a capture's root: "hvm.device.0000:41:00.1" = "class=0x020700 id=15b3:1014 node=1 ...".
 * Not on hwloc's own PCI objects, because hwloc leaves some devices out (those of domains above ffff). */

static void append_text(GString *line, const char *key, const char *value)
{
    if (!value)
        return;
    g_autofree char *escaped = g_uri_escape_string(value, ":/()[],@", FALSE);

    g_string_append_printf(line, " %s=%s", key, escaped);
}

/* One line of what a capture keeps of a device; strings are percent-encoded. */
static char *format_device(const HostDevice *device)
{
    GString *line = g_string_new(NULL);

    g_string_printf(line, "class=0x%06x id=%04x:%04x", device->class_code, device->vendor_id, device->device_id);
    if (device->node >= 0)
        g_string_append_printf(line, " node=%d", device->node);
    if (device->iommu_group >= 0)
        g_string_append_printf(line, " group=%d", device->iommu_group);
    if (device->vfs_total)
        g_string_append_printf(line, " vfs=%u/%u", device->vfs_enabled, device->vfs_total);
    append_text(line, "physical", device->physical);
    append_text(line, "driver", device->driver);
    append_text(line, "interface", device->interface);
    append_text(line, "use", device->use);
    append_text(line, "vendor", device->vendor_name);
    append_text(line, "device", device->device_name);
    return g_string_free(line, FALSE);
}

void host_write_devices(const Host *host, hwloc_topology_t topology)
{
    for (guint i = 0; i < host->devices->len; i++) {
        const HostDevice *device = g_ptr_array_index(host->devices, i);
        g_autofree char *name = g_strconcat(INFO_DEVICE_PREFIX, device->address, NULL);
        g_autofree char *value = format_device(device);

        host_add_info(hwloc_get_root_obj(topology), name, value);
    }
}

static gboolean parse_ids(HostDevice *device, const char *text)
{
    g_auto(GStrv) ids = g_strsplit(text, ":", 3);
    guint64 vendor, model;

    if (g_strv_length(ids) != 2 || !g_ascii_string_to_unsigned(ids[0], 16, 0, 0xffff, &vendor, NULL) ||
        !g_ascii_string_to_unsigned(ids[1], 16, 0, 0xffff, &model, NULL))
        return FALSE;
    device->vendor_id = (guint16)vendor;
    device->device_id = (guint16)model;
    return TRUE;
}

static gboolean parse_vfs(HostDevice *device, const char *text)
{
    g_auto(GStrv) counts = g_strsplit(text, "/", 3);
    guint64 enabled, total;

    if (g_strv_length(counts) != 2 || !g_ascii_string_to_unsigned(counts[1], 10, 0, HOST_VFS_MAX, &total, NULL) ||
        !g_ascii_string_to_unsigned(counts[0], 10, 0, total, &enabled, NULL))
        return FALSE;
    device->vfs_enabled = (unsigned)enabled;
    device->vfs_total = (unsigned)total;
    return TRUE;
}

static gboolean parse_text(char **slot, const char *text)
{
    g_autofree char *value = g_uri_unescape_string(text, NULL);

    if (*slot || !value || !*value || !g_utf8_validate(value, -1, NULL))
        return FALSE;
    *slot = hvm_escape(value, -1);
    return TRUE;
}

static gboolean parse_field(const Host *host, HostDevice *device, const char *key, const char *value)
{
    guint64 number;

    if (strcmp(key, "id") == 0)
        return parse_ids(device, value);
    if (strcmp(key, "vfs") == 0)
        return parse_vfs(device, value);
    if (strcmp(key, "physical") == 0)
        return parse_text(&device->physical, value) && host_parse_address(device->physical, &number);
    if (strcmp(key, "driver") == 0)
        return parse_text(&device->driver, value);
    if (strcmp(key, "interface") == 0)
        return parse_text(&device->interface, value);
    if (strcmp(key, "use") == 0)
        return parse_text(&device->use, value);
    if (strcmp(key, "vendor") == 0)
        return parse_text(&device->vendor_name, value);
    if (strcmp(key, "device") == 0)
        return parse_text(&device->device_name, value);
    if (strcmp(key, "class") == 0) {
        if (!g_str_has_prefix(value, "0x") || !g_ascii_string_to_unsigned(value + 2, 16, 0, 0xffffff, &number, NULL))
            return FALSE;
        device->class_code = (guint32)number;
        return TRUE;
    }
    if (!g_ascii_string_to_unsigned(value, 10, 0, G_MAXINT, &number, NULL))
        return FALSE;
    if (strcmp(key, "node") == 0)
        device->node = (int)number;
    else if (strcmp(key, "group") == 0)
        device->iommu_group = (int)number;
    else
        return FALSE;
    return device->node < 0 || host_find_node(host, (unsigned)device->node);
}

static gboolean parse_device(const Host *host, HostDevice *device, const char *line)
{
    g_auto(GStrv) fields = g_strsplit(line, " ", -1);

    for (char **field = fields; *field; field++) {
        char *value = strchr(*field, '=');

        if (!value)
            return FALSE;
        *value++ = '\0';
        if (!parse_field(host, device, *field, value))
            return FALSE;
    }
    return TRUE;
}

/* Adds the device of one info attribute, in place of what hwloc listed at that address. FALSE where it is not valid, or
 * the second of that address. `listed` has the index plus one of what is in the host's list, `told` what came from
 * here. */
static gboolean add_captured_device(Host *host, const char *address, const char *line, GHashTable *listed,
                                    GHashTable *told)
{
    HostDevice *device = host_device_new(address);
    guint index = GPOINTER_TO_UINT(g_hash_table_lookup(listed, address));
    guint64 key;

    if (!host_parse_address(address, &key) || g_hash_table_contains(told, address) ||
        host->devices->len >= HOST_DEVICES_MAX || !parse_device(host, device, line)) {
        host_device_free(device);
        return FALSE;
    }
    g_hash_table_add(told, g_strdup(address));
    if (index) {
        HostDevice **slot = (HostDevice **)&g_ptr_array_index(host->devices, index - 1);

        host_device_free(*slot);
        *slot = device;
    } else {
        g_ptr_array_add(host->devices, device);
    }
    return TRUE;
}

gboolean host_read_captured_devices(Host *host, GError **error)
{
    g_autoptr(GHashTable) listed = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GHashTable) told = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    hwloc_obj_t root = hwloc_get_root_obj(host->topology);

    for (guint i = 0; i < host->devices->len; i++) {
        const HostDevice *device = g_ptr_array_index(host->devices, i);

        g_hash_table_insert(listed, g_strdup(device->address), GUINT_TO_POINTER(i + 1));
    }
    for (unsigned i = 0; i < root->infos_count; i++) {
        const char *name = root->infos[i].name, *line = root->infos[i].value;

        if (!g_str_has_prefix(name, INFO_DEVICE_PREFIX) ||
            add_captured_device(host, name + strlen(INFO_DEVICE_PREFIX), line, listed, told))
            continue;

        g_autofree char *start = g_strndup(line, 120);

        host_refuse(error, host->description,
                    "bad %.60s '%s': wanted one PCI device as 'class=0x020700 id=15b3:1014 node=1 ...'", name, start);
        return FALSE;
    }
    host_sort_devices(host);
    return TRUE;
}
