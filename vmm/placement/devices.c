/*
 * devices.c: which of the node's devices a request gets.
 *
 * Wanted devices are taken in the order of their names, candidates in that of their addresses, and every match is tried
 * (those that differ only by address once), so that the answer is the best one and does not depend on any list's order.
 */
#include "solver.h"

#include "hvm_error.h"

#include <string.h>

/* PCI class codes: PCI Code and ID Assignment Specification. */
enum { CLASS_NVME = 0x0108, CLASS_NETWORK = 0x02, CLASS_INFINIBAND = 0x0207, CLASS_INFINIBAND_OLD = 0x0c06,
       CLASS_DISPLAY = 0x03 };
/* A match that takes more steps than this stays with the best found: hundreds of unlike devices only. */
enum { STEPS_MAX = 20000, WANTED_MAX = SPEC_DEVICES_MAX };

typedef struct {
    const SpecDevice *wanted;
    GArray *candidates; /* of unsigned: indices into devices->all */
    gboolean twin;      /* asks for the same as the one before: their order does not matter */
} Request;

struct Devices {
    const Survey *survey;
    GPtrArray *all;     /* of HostDevice, by address; the host's */
    GArray *requests;   /* of Request, by name */
    unsigned *switches; /* by device: 0 for none, else a number for the switch it is below */
    int *nodes;         /* by device: node of the operating system, or -1 */
    guint64 *kinds;     /* by device: bit per request that it would do for */
    unsigned local;
};

typedef struct {
    const Devices *devices;
    const unsigned *distance; /* by device: to the nearest node of the guest; 10 is local */
    gboolean ignore_locality;
    gboolean *used;
    unsigned *choice, *best_choice;
    guint64 best, best_any;
    unsigned steps;
    gboolean found;
} Match;

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

static gboolean add_request(Devices *devices, const SpecDevice *wanted, const gboolean *held, GError **error)
{
    const Host *host = devices->survey->host;
    Request request = {.wanted = wanted};
    guint64 bit = G_GUINT64_CONSTANT(1) << devices->requests->len;

    if (!!wanted->address + !!wanted->kind + !!wanted->network != 1) {
        g_autofree char *name = hvm_escape(wanted->name, -1);

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                    "device '%s': wanted exactly one of address, kind and network", name);
        return FALSE;
    }
    request.candidates = g_array_new(FALSE, FALSE, sizeof(unsigned));
    for (guint i = 0; i < devices->all->len; i++) {
        if (held[i] || !would_do(host, g_ptr_array_index(devices->all, i), wanted))
            continue;
        devices->kinds[i] |= bit;
        g_array_append_val(request.candidates, i);
    }
    if (devices->requests->len > 0) {
        const SpecDevice *before = g_array_index(devices->requests, Request, devices->requests->len - 1).wanted;

        request.twin = !wanted->address && before->locality == wanted->locality &&
                       g_strcmp0(before->kind, wanted->kind) == 0 && g_strcmp0(before->network, wanted->network) == 0;
    }
    devices->local += wanted->locality != LOCALITY_ANY;
    g_array_append_val(devices->requests, request);
    return request.candidates->len > 0 || refuse_none(devices->survey, wanted, error);
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

static void place_devices(Devices *devices)
{
    const Host *host = devices->survey->host;

    for (guint i = 0; i < devices->all->len; i++) {
        const HostDevice *device = g_ptr_array_index(devices->all, i);

        devices->nodes[i] = device->node >= 0 && host_find_node(host, (unsigned)device->node) ? device->node : -1;
        /* With one node there is no question where it is. */
        if (devices->nodes[i] < 0 && host->nodes->len == 1)
            devices->nodes[i] = (int)((const HostNode *)g_ptr_array_index(host->nodes, 0))->node;
        if (devices->kinds[i])
            devices->switches[i] = find_switch(devices->survey, device->address);
    }
}

static int compare_addresses(gconstpointer a, gconstpointer b)
{
    const HostDevice *x = *(const HostDevice *const *)a, *y = *(const HostDevice *const *)b;

    return strcmp(x->address, y->address);
}

static int compare_wanted(gconstpointer a, gconstpointer b)
{
    const SpecDevice *x = *(const SpecDevice *const *)a, *y = *(const SpecDevice *const *)b;

    return strcmp(x->name, y->name);
}

Devices *devices_new(const Survey *survey, const Spec *spec, gboolean full, GError **error)
{
    g_autoptr(Devices) devices = g_new0(Devices, 1);
    guint count = survey->host->devices->len, wanted = spec->devices ? spec->devices->len : 0;
    g_autofree gboolean *held = NULL;
    g_autoptr(GPtrArray) sorted = g_ptr_array_new();

    devices->survey = survey;
    devices->all = g_ptr_array_sized_new(count);
    for (guint i = 0; i < count && wanted; i++)
        g_ptr_array_add(devices->all, g_ptr_array_index(survey->host->devices, i));
    g_ptr_array_sort(devices->all, compare_addresses);
    held = list_held(survey, devices->all, full);
    devices->requests = g_array_new(FALSE, TRUE, sizeof(Request));
    devices->switches = g_new0(unsigned, count + 1);
    devices->nodes = g_new0(int, count + 1);
    devices->kinds = g_new0(guint64, count + 1);
    if (wanted > WANTED_MAX) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "wanted at most %d devices, found %u", WANTED_MAX, wanted);
        return NULL;
    }
    for (guint i = 0; i < wanted; i++)
        g_ptr_array_add(sorted, g_ptr_array_index(spec->devices, i));
    g_ptr_array_sort(sorted, compare_wanted);
    for (guint i = 0; i < wanted; i++)
        if (!add_request(devices, g_ptr_array_index(sorted, i), held, error))
            return NULL;
    if (wanted)
        place_devices(devices);
    return g_steal_pointer(&devices);
}

void devices_free(Devices *devices)
{
    if (!devices)
        return;
    for (guint i = 0; i < devices->requests->len; i++)
        g_array_free(g_array_index(devices->requests, Request, i).candidates, TRUE);
    g_array_free(devices->requests, TRUE);
    g_ptr_array_free(devices->all, TRUE);
    g_free(devices->switches);
    g_free(devices->nodes);
    g_free(devices->kinds);
    g_free(devices);
}

/* ---- Matching ---- */

static unsigned price(const Match *match, const Request *request, unsigned device, gboolean any)
{
    if ((request->wanted->locality == LOCALITY_ANY) != any)
        return 0;
    return match->distance[device] - 10;
}

/* Whether device `b` can stand for `a`: alike in all but the address. */
static gboolean is_alike(const Match *match, unsigned a, unsigned b)
{
    const Devices *devices = match->devices;

    return devices->kinds[a] == devices->kinds[b] && devices->switches[a] == devices->switches[b] && devices->switches[a] &&
           devices->nodes[a] == devices->nodes[b];
}

/* Distances in the high half, switches in the low. */
static guint64 cost_so_far(const Match *match, unsigned count, guint64 *ret_any)
{
    const Devices *devices = match->devices;
    guint64 near = 0, any = 0, switches = 0;

    for (unsigned i = 0; i < count; i++) {
        const Request *request = &g_array_index(devices->requests, Request, i);
        unsigned device = match->choice[i];
        gboolean new_switch = TRUE;

        near += price(match, request, device, FALSE);
        any += price(match, request, device, TRUE);
        for (unsigned j = 0; j < i && new_switch; j++)
            new_switch = !devices->switches[device] || devices->switches[device] != devices->switches[match->choice[j]];
        switches += new_switch;
    }
    *ret_any = any;
    return near << 32 | switches;
}

static void match_from(Match *match, unsigned index)
{
    const Devices *devices = match->devices;
    guint64 any, cost = cost_so_far(match, index, &any);

    if (match->found && (cost > match->best || match->steps > STEPS_MAX))
        return;
    match->steps++;
    if (index == devices->requests->len) {
        if (!match->found || cost < match->best || (cost == match->best && any < match->best_any)) {
            match->found = TRUE;
            match->best = cost;
            match->best_any = any;
            memcpy(match->best_choice, match->choice, index * sizeof *match->choice);
        }
        return;
    }

    const Request *request = &g_array_index(devices->requests, Request, index);

    for (guint i = 0; i < request->candidates->len; i++) {
        unsigned device = g_array_index(request->candidates, unsigned, i);
        gboolean tried = FALSE;

        if (match->used[device] || (request->twin && device < match->choice[index - 1]))
            continue;
        if (request->wanted->locality == LOCALITY_REQUIRED && match->distance[device] != 10 && !match->ignore_locality)
            continue;
        for (guint j = 0; j < i && !tried; j++) {
            unsigned earlier = g_array_index(request->candidates, unsigned, j);

            tried = !match->used[earlier] && !(request->twin && earlier < match->choice[index - 1]) &&
                    is_alike(match, earlier, device);
        }
        if (tried)
            continue;
        match->used[device] = TRUE;
        match->choice[index] = device;
        match_from(match, index + 1);
        match->used[device] = FALSE;
    }
}

/* From each device to the nearest node of the guest. A device whose place the platform does not tell is far. */
static unsigned *measure(const Devices *devices, const gboolean *in)
{
    const Survey *survey = devices->survey;
    unsigned count = devices->all->len;
    unsigned *distance = g_new(unsigned, count + 1);

    for (unsigned i = 0; i < count; i++) {
        distance[i] = 255;
        for (unsigned n = 0; devices->kinds[i] && devices->nodes[i] >= 0 && n < survey->nodes->len; n++)
            if (in[n])
                distance[i] = MIN(distance[i], survey_distance(survey, devices->nodes[i],
                                                               (int)survey_node(survey, n)->host_node->node));
    }
    return distance;
}

guint64 devices_cost(const Devices *devices, const gboolean *in, gboolean ignore_locality, unsigned *ret_choice)
{
    unsigned count = devices->requests->len, all = devices->all->len;

    if (!count)
        return 0;

    g_autofree unsigned *distance = measure(devices, in);
    g_autofree gboolean *used = g_new0(gboolean, all + 1);
    g_autofree unsigned *choice = g_new0(unsigned, count), *best = g_new0(unsigned, count);
    Match match = {.devices = devices, .distance = distance, .ignore_locality = ignore_locality, .used = used,
                   .choice = choice, .best_choice = best};

    match_from(&match, 0);
    if (match.found && ret_choice)
        memcpy(ret_choice, best, count * sizeof *best);
    return match.found ? match.best : G_MAXUINT64;
}

unsigned devices_count(const Devices *devices)
{
    return devices->requests->len;
}

unsigned devices_local_count(const Devices *devices)
{
    return devices->local;
}

gboolean devices_on_node(const Devices *devices, unsigned i)
{
    unsigned node = survey_node(devices->survey, i)->host_node->node;

    for (guint r = 0; r < devices->requests->len; r++) {
        const Request *request = &g_array_index(devices->requests, Request, r);

        for (guint c = 0; request->wanted->locality != LOCALITY_ANY && c < request->candidates->len; c++)
            if (devices->nodes[g_array_index(request->candidates, unsigned, c)] == (int)node)
                return TRUE;
    }
    return FALSE;
}

const SpecDevice *devices_wanted(const Devices *devices, unsigned i)
{
    return g_array_index(devices->requests, Request, i).wanted;
}

const HostDevice *devices_get(const Devices *devices, unsigned device)
{
    return g_ptr_array_index(devices->all, device);
}
