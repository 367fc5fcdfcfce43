#include "host_internal.h"

#include "hvm_error.h"
#include "sysroot.h"

#include <stdio.h>
#include <string.h>

enum { CLASS_HOST_BRIDGE = 0x0600, CLASS_PCI_BRIDGE = 0x0604, CLASS_SEMI_TRANSPARENT_BRIDGE = 0x0609 };

HostDevice *host_device_new(const char *address)
{
    HostDevice *device = g_new0(HostDevice, 1);

    device->address = g_strdup(address);
    device->node = -1;
    device->iommu_group = -1;
    return device;
}

void host_device_free(HostDevice *device)
{
    g_free(device->address);
    g_free(device->driver);
    g_free(device->physical);
    g_free(device->interface);
    g_free(device->use);
    g_free(device->vendor_name);
    g_free(device->device_name);
    g_free(device);
}

gboolean host_parse_address(const char *address, guint64 *ret_key)
{
    unsigned domain, bus, slot, function;
    char again[32];

    if (strlen(address) > 16 || sscanf(address, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4 || bus > 255 ||
        slot > 31 || function > 7)
        return FALSE;
    g_snprintf(again, sizeof again, "%04x:%02x:%02x.%x", domain, bus, slot, function);
    *ret_key = (guint64)domain << 16 | bus << 8 | slot << 3 | function;
    return strcmp(address, again) == 0;
}

static int compare_devices(gconstpointer a, gconstpointer b)
{
    const HostDevice *x = *(const HostDevice *const *)a, *y = *(const HostDevice *const *)b;
    guint64 key_x = 0, key_y = 0;

    host_parse_address(x->address, &key_x);
    host_parse_address(y->address, &key_y);
    return (key_x > key_y) - (key_x < key_y);
}

void host_sort_devices(Host *host)
{
    g_ptr_array_sort(host->devices, compare_devices);
}

/* Bridges to another bus are part of the way to a device and never given to a guest. */
static gboolean is_bridge(guint32 class_code)
{
    guint32 class_and_subclass = class_code >> 8;

    return class_and_subclass == CLASS_HOST_BRIDGE || class_and_subclass == CLASS_PCI_BRIDGE ||
           class_and_subclass == CLASS_SEMI_TRANSPARENT_BRIDGE;
}

/* The NUMA node that an I/O object hangs below: told where all nodes there have the same PUs (one node, or ordinary and
 * high-bandwidth memory side by side); the general-purpose one of them. */
static int find_locality(const Host *host, hwloc_obj_t object)
{
    hwloc_obj_t parent = hwloc_get_non_io_ancestor_obj(host->topology, object);
    const HostNode *found = NULL;

    for (guint i = 0; parent && i < host->nodes->len; i++) {
        const HostNode *node = g_ptr_array_index(host->nodes, i);

        if (hwloc_bitmap_iszero(node->pus) || !hwloc_bitmap_isset(parent->nodeset, node->node))
            continue;
        if (found && !hwloc_bitmap_isequal(found->pus, node->pus))
            return -1;
        if (!found || (node->general_purpose && !found->general_purpose))
            found = node;
    }
    return found ? (int)found->node : -1;
}

/* The network interface, else the InfiniBand device, that hwloc lists below a PCI device. */
static char *find_hwloc_interface(hwloc_obj_t pci)
{
    const char *best = NULL;
    gboolean best_is_network = FALSE;

    for (hwloc_obj_t child = pci->io_first_child; child; child = child->next_sibling) {
        gboolean network = child->type == HWLOC_OBJ_OS_DEVICE && child->attr->osdev.type == HWLOC_OBJ_OSDEV_NETWORK;
        gboolean fabric = child->type == HWLOC_OBJ_OS_DEVICE && child->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS;

        if (!child->name || (!network && !fabric) || (best_is_network && !network))
            continue;
        if (!best || (network && !best_is_network) || strcmp(child->name, best) < 0) {
            best = child->name;
            best_is_network = network;
        }
    }
    return best ? hvm_escape(best, -1) : NULL;
}

static char *copy_info(hwloc_obj_t object, const char *name)
{
    const char *value = hwloc_obj_get_info_by_name(object, name);

    return value && *value ? hvm_escape(value, -1) : NULL;
}

static char *format_address(hwloc_obj_t pci)
{
    const struct hwloc_pcidev_attr_s *attr = &pci->attr->pcidev;

    return g_strdup_printf("%04x:%02x:%02x.%x", attr->domain, attr->bus, attr->dev, attr->func);
}

static HostDevice *new_from_hwloc(const Host *host, hwloc_obj_t pci, const char *address)
{
    HostDevice *device = host_device_new(address);

    device->vendor_id = pci->attr->pcidev.vendor_id;
    device->device_id = pci->attr->pcidev.device_id;
    device->class_code = (guint32)pci->attr->pcidev.class_id << 8;
    device->node = find_locality(host, pci);
    device->interface = find_hwloc_interface(pci);
    device->vendor_name = copy_info(pci, "PCIVendor");
    device->device_name = copy_info(pci, "PCIDevice");
    return device;
}

/* Files merged by hand (some of hwloc's own tests) name an address twice. One is kept, the same in whatever order they
 * are listed: what has an interface. */
static gboolean is_preferred(const HostDevice *device, const HostDevice *other)
{
    if (!device->interface != !other->interface)
        return device->interface != NULL;
    return device->vendor_id != other->vendor_id ? device->vendor_id < other->vendor_id
                                                 : device->device_id < other->device_id;
}

void host_read_devices(Host *host)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal); /* address -> HostDevice */
    hwloc_obj_t pci = NULL;

    while ((pci = hwloc_get_next_pcidev(host->topology, pci))) {
        g_autofree char *address = format_address(pci);
        guint64 key;

        if (!host_parse_address(address, &key) || is_bridge((guint32)pci->attr->pcidev.class_id << 8))
            continue;

        HostDevice *device = new_from_hwloc(host, pci, address);
        HostDevice *other = g_hash_table_lookup(seen, address);

        if (other && !is_preferred(device, other)) {
            host_device_free(device);
            continue;
        }
        g_hash_table_replace(seen, device->address, device);
        if (other)
            host_device_free(other);
    }
    GHashTableIter iterator;
    gpointer device;

    g_hash_table_iter_init(&iterator, seen);
    while (g_hash_table_iter_next(&iterator, NULL, &device))
        g_ptr_array_add(host->devices, device);
    host_sort_devices(host);
}

/* First name in a folder of the device; virtio puts one more folder between. */
static char *find_sysfs_interface(const char *address)
{
    static const char *const kinds[] = {"net", "infiniband"};

    for (gsize i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_auto(GStrv) names = sysroot_list("/sys/bus/pci/devices/%s/%s", address, kinds[i]);

        if (names[0])
            return g_strdup(names[0]);
    }

    g_auto(GStrv) children = sysroot_list("/sys/bus/pci/devices/%s", address);

    for (char **child = children; *child; child++) {
        if (!g_str_has_prefix(*child, "virtio"))
            continue;
        g_auto(GStrv) names = sysroot_list("/sys/bus/pci/devices/%s/%s/net", address, *child);

        if (names[0])
            return g_strdup(names[0]);
    }
    return NULL;
}

/* A number of a device's folder in sysfs, or 0. */
static guint64 read_number(const char *address, const char *file, guint64 maximum)
{
    guint64 value = 0;

    return sysroot_read_uint(&value, NULL, "/sys/bus/pci/devices/%s/%s", address, file) && value <= maximum ? value : 0;
}

static int read_numa_node(const Host *host, const char *address)
{
    g_autofree char *text = sysroot_read(NULL, "/sys/bus/pci/devices/%s/numa_node", address);
    guint64 node;

    if (!text || !g_ascii_string_to_unsigned(text, 10, 0, G_MAXINT, &node, NULL))
        return -1;
    return host_find_node(host, (unsigned)node) ? (int)node : -1;
}

static HostDevice *read_live_device(const Host *host, const char *address, hwloc_obj_t pci)
{
    HostDevice *device = host_device_new(address);
    g_autofree char *group = sysroot_link_name("/sys/bus/pci/devices/%s/iommu_group", address);
    guint64 number;

    device->class_code = (guint32)read_number(address, "class", 0xffffff);
    device->vendor_id = (guint16)read_number(address, "vendor", 0xffff);
    device->device_id = (guint16)read_number(address, "device", 0xffff);
    device->node = read_numa_node(host, address);
    if (device->node < 0 && pci)
        device->node = find_locality(host, pci);
    if (group && g_ascii_string_to_unsigned(group, 10, 0, G_MAXINT, &number, NULL))
        device->iommu_group = (int)number;
    device->driver = sysroot_link_name("/sys/bus/pci/devices/%s/driver", address);
    device->physical = sysroot_link_name("/sys/bus/pci/devices/%s/physfn", address);
    device->vfs_total = (unsigned)read_number(address, "sriov_totalvfs", HOST_VFS_MAX);
    device->vfs_enabled = (unsigned)read_number(address, "sriov_numvfs", HOST_VFS_MAX);
    device->interface = find_sysfs_interface(address);
    device->vendor_name = pci ? copy_info(pci, "PCIVendor") : NULL;
    device->device_name = pci ? copy_info(pci, "PCIDevice") : NULL;
    return device;
}

void host_read_live_devices(Host *host)
{
    g_auto(GStrv) addresses = sysroot_list("/sys/bus/pci/devices");
    g_autoptr(GHashTable) objects = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    hwloc_obj_t pci = NULL;

    while ((pci = hwloc_get_next_pcidev(host->topology, pci)))
        g_hash_table_insert(objects, format_address(pci), pci);
    for (char **address = addresses; *address; address++) {
        guint64 key;

        if (!host_parse_address(*address, &key) || is_bridge((guint32)read_number(*address, "class", 0xffffff)))
            continue;
        g_ptr_array_add(host->devices, read_live_device(host, *address, g_hash_table_lookup(objects, *address)));
    }
    host_sort_devices(host);
}
