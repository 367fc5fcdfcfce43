/*
 * devices.c: which devices of the node would do for each that is wanted, and which of them are free. match.c chooses.
 *
 * Wanted devices are ordered by what they ask for, then by name, and candidates by address, so that nothing depends on the order
 * of a list.
 */
#include "devices.h"

#include "hvm_error.h"

#include <string.h>

/* PCI class codes: PCI Code and ID Assignment Specification. */
enum { CLASS_NVME = 0x0108, CLASS_NETWORK = 0x02, CLASS_INFINIBAND = 0x0207, CLASS_INFINIBAND_OLD = 0x0c06,
       CLASS_DISPLAY = 0x03 };
enum { WANTED_MAX = SPEC_DEVICES_MAX };

/* ---- What would do ---- */

/* VFs of it exist, so that it cannot be given away itself. */
static gboolean is_busy_parent(const HostDevice *device)
{
    return device->vfs_enabled > 0;
}

/* Graphics of server boards and their management controllers, which nobody means by a GPU. */
static gboolean is_board_graphics(const HostDevice *device)
{
    static const struct {
        guint16 vendor, device; /* 0: all of the vendor's */
    } boards[] = {{0x1a03, 0} /* ASPEED */, {0x102b, 0} /* Matrox */, {0x18ca, 0} /* XGI */, {0x19e5, 0x1711} /* Hisilicon */,
                  {0x1002, 0x515e} /* ATI ES1000 */};

    for (gsize i = 0; i < G_N_ELEMENTS(boards); i++)
        if (device->vendor_id == boards[i].vendor && (!boards[i].device || device->device_id == boards[i].device))
            return TRUE;
    return FALSE;
}

static gboolean is_kind(const HostDevice *device, const char *kind)
{
    guint32 class = device->class_code >> 8;

    if (strcmp(kind, "vf") == 0)
        return device->physical != NULL;
    if (is_busy_parent(device))
        return FALSE;
    if (strcmp(kind, "gpu") == 0)
        return class >> 8 == CLASS_DISPLAY && !is_board_graphics(device);
    if (strcmp(kind, "ib") == 0)
        return class == CLASS_INFINIBAND || class == CLASS_INFINIBAND_OLD;
    if (strcmp(kind, "nic") == 0)
        return class >> 8 == CLASS_NETWORK && class != CLASS_INFINIBAND;
    return strcmp(kind, "nvme") == 0 && class == CLASS_NVME;
}

/* The device of that interface, or a VF of it. */
static gboolean is_on_network(const Host *host, const HostDevice *device, const char *network)
{
    const HostDevice *parent = device->physical ? host_find_device(host, device->physical) : NULL;

    if (parent)
        return g_strcmp0(parent->interface, network) == 0;
    return g_strcmp0(device->interface, network) == 0 && !is_busy_parent(device);
}

static gboolean would_do(const Host *host, const HostDevice *device, const SpecDevice *wanted)
{
    if (device->class_code >> 16 == 0x06)
        return FALSE; /* a bridge */
    if (wanted->address)
        return strcmp(device->address, wanted->address) == 0 ||
               (strlen(wanted->address) == 7 && g_str_has_prefix(device->address, "0000:") &&
                strcmp(device->address + 5, wanted->address) == 0);
    return wanted->kind ? is_kind(device, wanted->kind) : is_on_network(host, device, wanted->network);
}

gboolean placement_device_would_do(const Host *host, const HostDevice *device, const SpecDevice *wanted)
{
    return would_do(host, device, wanted);
}

const char *placement_device_kind(const HostDevice *device)
{
    static const char *const kinds[] = {"vf", "gpu", "ib", "nic", "nvme"};

    for (gsize i = 0; i < G_N_ELEMENTS(kinds); i++)
        if (is_kind(device, kinds[i]))
            return kinds[i];
    return NULL;
}

/* Devices that no group separates can only be given together, so one that is held, or which the node itself needs, holds them
 * all. What the node needs, it needs on an empty ledger (`full`) too. */
static gboolean *list_held(const Survey *survey, const GPtrArray *all, gboolean full)
{
    gboolean *held = g_new0(gboolean, all->len + 1);
    g_autoptr(GHashTable) groups = g_hash_table_new(NULL, NULL);

    for (guint i = 0; i < all->len; i++) {
        const HostDevice *device = g_ptr_array_index(all, i);

        held[i] = device->use || (!full && ledger_device_owner(survey->ledger, device->address));
        if (held[i] && device->iommu_group >= 0)
            g_hash_table_add(groups, GINT_TO_POINTER(device->iommu_group));
    }
    for (guint i = 0; i < all->len; i++) {
        int group = ((const HostDevice *)g_ptr_array_index(all, i))->iommu_group;

        if (group >= 0 && g_hash_table_contains(groups, GINT_TO_POINTER(group)))
            held[i] = TRUE;
    }
    return held;
}

/* ---- Setting up ---- */

static char *describe_wanted(const SpecDevice *wanted)
{
    g_autofree char *what = hvm_escape(wanted->address ? wanted->address : wanted->kind ? wanted->kind : wanted->network, -1);
    g_autofree char *name = hvm_escape(wanted->name, -1);

    if (wanted->address)
        return g_strdup_printf("device '%s' (%s)", name, what);
    return g_strdup_printf(wanted->kind ? "device '%s' (kind %s)" : "device '%s' (interface %s)", name, what);
}

/* Whose a held device is, is not for every caller to know. */
static gboolean refuse_none(const Survey *survey, const SpecDevice *wanted, GError **error)
{
    g_autofree char *what = describe_wanted(wanted), *where = hvm_escape(survey->host->description, -1);
    const HostDevice *used = NULL;
    unsigned held = 0, count = 0;

    for (guint i = 0; i < survey->host->devices->len; i++) {
        const HostDevice *device = g_ptr_array_index(survey->host->devices, i);

        if (!would_do(survey->host, device, wanted))
            continue;
        used = device->use ? device : used;
        count += device->use != NULL;
        held++;
    }
    if (held == 0)
        g_set_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT, "needs %s; %s has none", what, where);
    else if (count == held)
        g_set_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT, "needs %s; %s itself needs %s%s: %s", what, where,
                    count == 1 ? "" : "each that would do, as ", used->address, used->use);
    else if (count)
        g_set_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT,
                    "needs %s; %u would do, but %s itself needs %u (%s: %s), and other guests hold the rest, or a device in the same "
                    "IOMMU group", what, held, where, count, used->address, used->use);
    else
        g_set_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT,
                    "needs %s; %u would do, but other guests hold %s, or a device in the same IOMMU group (free one)", what, held,
                    held == 1 ? "it" : "them all");
    return FALSE;
}

static gboolean alike_wanted(const SpecDevice *a, const SpecDevice *b)
{
    return !a->address && !b->address && a->locality == b->locality && g_strcmp0(a->kind, b->kind) == 0 &&
           g_strcmp0(a->network, b->network) == 0;
}

/* Sets in `bits` (by device) which would do for it. */
static gboolean add_request(Devices *devices, const SpecDevice *wanted, const gboolean *held, guint64 *bits, GError **error)
{
    guint count = devices->requests->len, found = 0;
    Request request = {.wanted = wanted, .first = count, .end = count + 1};

    if (!!wanted->address + !!wanted->kind + !!wanted->network != 1) {
        g_autofree char *name = hvm_escape(wanted->name, -1);

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                    "device '%s': wanted exactly one of address, kind and network", name);
        return FALSE;
    }
    for (guint i = 0; i < devices->all->len; i++) {
        if (held[i] || !would_do(devices->survey->host, g_ptr_array_index(devices->all, i), wanted))
            continue;
        bits[i] |= G_GUINT64_CONSTANT(1) << count;
        found++;
    }
    if (count > 0 && alike_wanted(wanted, devices_request(devices, count - 1)->wanted))
        request.first = devices_request(devices, count - 1)->first;
    g_array_append_val(devices->requests, request);
    for (guint i = request.first; i < count; i++)
        devices_request(devices, i)->end = count + 1;
    if (wanted->locality != LOCALITY_ANY)
        devices->local |= G_GUINT64_CONSTANT(1) << count;
    return found > 0 || refuse_none(devices->survey, wanted, error);
}

/* The root port that it is below (0: none is told): devices with a common one are below one switch, or on one card. */
static unsigned find_switch(const Survey *survey, const char *address)
{
    hwloc_obj_t object = hwloc_get_pcidev_by_busidstring(survey->host->topology, address);
    hwloc_obj_t bridge = object ? object->parent : NULL, highest = NULL;

    while (bridge && bridge->type == HWLOC_OBJ_BRIDGE && bridge->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_PCI) {
        highest = bridge;
        bridge = bridge->parent;
    }
    if (!highest)
        return 0;
    /* By its bus numbers: they are the same in any order of listing. */
    return 1 + ((unsigned)highest->attr->bridge.upstream.pci.domain << 16 |
                (unsigned)highest->attr->bridge.upstream.pci.bus << 8 |
                (unsigned)highest->attr->bridge.upstream.pci.dev << 3 | highest->attr->bridge.upstream.pci.func);
}

static int find_node(const Host *host, const HostDevice *device)
{
    if (device->node >= 0 && host_find_node(host, (unsigned)device->node))
        return device->node;
    /* With one node there is no question where it is. */
    return host->nodes->len == 1 ? (int)((const HostNode *)g_ptr_array_index(host->nodes, 0))->node : -1;
}

static void clear_class(gpointer pointer)
{
    DeviceClass *class = pointer;

    g_array_free(class->devices, TRUE);
    g_free(class->distances);
}

static DeviceClass *add_class(Devices *devices, guint64 requests, unsigned port, int node)
{
    const Survey *survey = devices->survey;
    DeviceClass class = {.requests = requests, .port = port, .node = node, .distances = g_new(unsigned, survey->nodes->len + 1),
                         .devices = g_array_new(FALSE, FALSE, sizeof(unsigned))};

    for (guint n = 0; n < survey->nodes->len; n++)
        class.distances[n] = survey_distance(survey, node, (int)survey_node(survey, n)->host_node->node);
    g_array_append_val(devices->classes, class);
    return devices_class(devices, devices->classes->len - 1);
}

/* Ports get dense numbers, in the order of the lowest address below them. */
static unsigned number_port(GHashTable *ports, unsigned found)
{
    gpointer known = g_hash_table_lookup(ports, GUINT_TO_POINTER(found));

    if (!known && found) {
        known = GUINT_TO_POINTER(g_hash_table_size(ports) + 1);
        g_hash_table_insert(ports, GUINT_TO_POINTER(found), known);
    }
    return GPOINTER_TO_UINT(known);
}

static void fill_classes(Devices *devices, const guint64 *bits)
{
    g_autoptr(GHashTable) ports = g_hash_table_new(NULL, NULL);
    g_autofree unsigned *below = g_new0(unsigned, devices->all->len + 1);

    devices->port_most = 1;
    for (guint i = 0; i < devices->all->len; i++) {
        const HostDevice *device = g_ptr_array_index(devices->all, i);
        DeviceClass *class = NULL;
        unsigned port;
        int node;

        if (!bits[i])
            continue;
        port = number_port(ports, find_switch(devices->survey, device->address));
        node = find_node(devices->survey->host, device);
        for (guint c = 0; c < devices->classes->len && !class; c++) {
            DeviceClass *known = devices_class(devices, c);

            if (known->requests == bits[i] && known->port == port && known->node == node)
                class = known;
        }
        if (!class)
            class = add_class(devices, bits[i], port, node);
        g_array_append_val(class->devices, i);
        if (port)
            devices->port_most = MAX(devices->port_most, ++below[port - 1]);
    }
    devices->ports = g_hash_table_size(ports);
}

static int compare_addresses(gconstpointer a, gconstpointer b)
{
    const HostDevice *x = *(const HostDevice *const *)a, *y = *(const HostDevice *const *)b;

    return strcmp(x->address, y->address);
}

/* Those that ask for the same lie together. */
static int compare_wanted(gconstpointer a, gconstpointer b)
{
    const SpecDevice *x = *(const SpecDevice *const *)a, *y = *(const SpecDevice *const *)b;
    int order = g_strcmp0(x->address, y->address);

    if (!order)
        order = g_strcmp0(x->kind, y->kind);
    if (!order)
        order = g_strcmp0(x->network, y->network);
    if (!order)
        order = (y->locality > x->locality) - (y->locality < x->locality);
    return order ? order : strcmp(x->name, y->name);
}

static int compare_names(gconstpointer a, gconstpointer b, gpointer data)
{
    const Devices *devices = data;

    return strcmp(devices_request(devices, *(const unsigned *)a)->wanted->name,
                  devices_request(devices, *(const unsigned *)b)->wanted->name);
}

Devices *devices_new(const Survey *survey, const Spec *spec, gboolean full, GError **error)
{
    g_autoptr(Devices) devices = g_new0(Devices, 1);
    guint count = survey->host->devices->len, wanted = spec->devices ? spec->devices->len : 0;
    g_autofree gboolean *held = NULL;
    g_autofree guint64 *bits = g_new0(guint64, count + 1);
    g_autoptr(GPtrArray) sorted = g_ptr_array_new();

    devices->survey = survey;
    devices->all = g_ptr_array_sized_new(count);
    devices->requests = g_array_new(FALSE, TRUE, sizeof(Request));
    devices->by_name = g_array_new(FALSE, TRUE, sizeof(unsigned));
    devices->classes = g_array_new(FALSE, TRUE, sizeof(DeviceClass));
    devices->effort = g_new0(MatchEffort, 1);
    g_array_set_clear_func(devices->classes, clear_class);
    if (wanted > WANTED_MAX) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "wanted at most %d devices, found %u", WANTED_MAX, wanted);
        return NULL;
    }
    for (guint i = 0; i < count && wanted; i++)
        g_ptr_array_add(devices->all, g_ptr_array_index(survey->host->devices, i));
    g_ptr_array_sort(devices->all, compare_addresses);
    held = list_held(survey, devices->all, full);
    for (guint i = 0; i < wanted; i++)
        g_ptr_array_add(sorted, g_ptr_array_index(spec->devices, i));
    g_ptr_array_sort(sorted, compare_wanted);
    for (guint i = 0; i < wanted; i++) {
        if (!add_request(devices, g_ptr_array_index(sorted, i), held, bits, error))
            return NULL;
        g_array_append_val(devices->by_name, i);
    }
    g_array_sort_with_data(devices->by_name, compare_names, devices);
    fill_classes(devices, bits);
    return g_steal_pointer(&devices);
}

void devices_free(Devices *devices)
{
    if (!devices)
        return;
    g_array_free(devices->requests, TRUE);
    g_array_free(devices->by_name, TRUE);
    g_array_free(devices->classes, TRUE);
    g_ptr_array_free(devices->all, TRUE);
    g_free(devices->effort);
    g_free(devices);
}

unsigned devices_count(const Devices *devices)
{
    return devices->requests->len;
}

unsigned devices_local_count(const Devices *devices)
{
    unsigned count = 0;

    for (guint i = 0; i < devices->requests->len; i++)
        count += devices_request(devices, i)->wanted->locality != LOCALITY_ANY;
    return count;
}

unsigned devices_distance(const Devices *devices, unsigned i)
{
    unsigned nearest = 255;

    for (guint c = 0; c < devices->classes->len; c++)
        if (devices_class(devices, c)->requests & devices->local)
            nearest = MIN(nearest, devices_class(devices, c)->distances[i]);
    return nearest;
}

const SpecDevice *devices_wanted(const Devices *devices, unsigned i)
{
    return devices_request(devices, g_array_index(devices->by_name, unsigned, i))->wanted;
}

const HostDevice *devices_get(const Devices *devices, unsigned device)
{
    return g_ptr_array_index(devices->all, device);
}
