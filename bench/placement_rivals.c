#include "placement_rivals.h"

#include <string.h>

enum { NODES_MAX = 64 };

typedef struct {
    unsigned node;
    GArray *cores;  /* of hwloc_obj_t: free ones, by number */
    guint64 memory; /* free bytes */
    unsigned cpus_total;
    GPtrArray *devices; /* of HostDevice: free ones */
} View;

static unsigned threads_of(const Host *host)
{
    return host->smt;
}

static unsigned cores_wanted(const Host *host, const Spec *spec)
{
    return (spec->cpus + threads_of(host) - 1) / threads_of(host);
}

/* What is free, node by node. */
static unsigned look(const Host *host, const Spec *spec, const Ledger *ledger, View *views)
{
    hwloc_bitmap_t taken = ledger_taken_pus(ledger);
    hwloc_obj_t core = NULL;
    unsigned count = 0;

    for (guint i = 0; i < host->nodes->len && count < NODES_MAX; i++) {
        const HostNode *node = g_ptr_array_index(host->nodes, i);

        if (!node->general_purpose)
            continue;
        views[count] = (View){.node = node->node, .cores = g_array_new(FALSE, FALSE, sizeof(hwloc_obj_t)),
                              .memory = ledger_free_bytes(ledger, host, node->node, spec->page_bytes),
                              .devices = g_ptr_array_new()};
        for (guint d = 0; d < host->devices->len; d++) {
            HostDevice *device = g_ptr_array_index(host->devices, d);

            if (device->node == (int)node->node && !ledger_device_owner(ledger, device->address))
                g_ptr_array_add(views[count].devices, device);
        }
        count++;
    }
    while ((core = hwloc_get_next_obj_by_type(host->topology, HWLOC_OBJ_CORE, core))) {
        unsigned pu = (unsigned)hwloc_bitmap_first(core->cpuset);
        const HostNode *home = host_home_node(host, pu);

        for (unsigned i = 0; home && i < count; i++)
            if (views[i].node == home->node && hwloc_bitmap_isset(host->usable_pus, pu) &&
                !hwloc_bitmap_intersects(core->cpuset, taken))
                g_array_append_val(views[i].cores, core);
    }
    hwloc_bitmap_free(taken);
    return count;
}

static void forget(View *views, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        g_array_free(views[i].cores, TRUE);
        g_ptr_array_free(views[i].devices, TRUE);
    }
}

static void give(LedgerEntry *entry, const Spec *spec, const View *view, unsigned cores, guint64 bytes)
{
    LedgerMemory memory = {view->node, spec->page_bytes, bytes};

    for (unsigned i = 0; i < cores; i++)
        hwloc_bitmap_or(entry->pus, entry->pus, g_array_index(view->cores, hwloc_obj_t, i)->cpuset);
    g_array_append_val(entry->memory, memory);
}

static unsigned devices_wanted(const Spec *spec)
{
    return spec->devices ? spec->devices->len : 0;
}

/* Gives devices, looking at the views in order. */
static gboolean give_devices(LedgerEntry *entry, const Spec *spec, View *const *views, unsigned count)
{
    unsigned left = devices_wanted(spec);

    for (unsigned i = 0; i < count; i++) {
        for (guint d = 0; d < views[i]->devices->len && left > 0; d++, left--) {
            const HostDevice *device = g_ptr_array_index(views[i]->devices, d);

            g_ptr_array_add(entry->devices, g_strdup(device->address));
        }
    }
    return left == 0;
}

LedgerEntry *place_hvm(const Host *host, const Spec *spec, const Ledger *ledger, const char *uuid)
{
    g_autoptr(Placement) placement = placement_solve(host, spec, ledger, NULL, NULL, NULL);

    return placement ? placement_promise(placement, uuid, uuid, 0) : NULL;
}

LedgerEntry *place_first_fit(const Host *host, const Spec *spec, const Ledger *ledger, const char *uuid)
{
    View views[NODES_MAX], *order[NODES_MAX];
    unsigned count = look(host, spec, ledger, views), wanted = cores_wanted(host, spec), left = wanted;
    g_autoptr(LedgerEntry) entry = ledger_entry_new(uuid, uuid, 0);
    guint64 memory_left = spec->memory_bytes;
    gboolean placed = FALSE;

    for (unsigned i = 0; i < count; i++)
        order[i] = &views[i];
    for (unsigned i = 0; i < count && !placed; i++) {
        if (views[i].cores->len < wanted || views[i].memory < spec->memory_bytes)
            continue;
        give(entry, spec, &views[i], wanted, spec->memory_bytes);
        placed = TRUE;
    }
    for (unsigned i = 0; i < count && !placed; i++) {
        unsigned cores = MIN(views[i].cores->len, left);
        guint64 bytes = cores == left ? memory_left : spec->memory_bytes / spec->page_bytes * cores / wanted * spec->page_bytes;

        if (cores == 0 || bytes > views[i].memory)
            continue;
        give(entry, spec, &views[i], cores, bytes);
        left -= cores;
        memory_left -= bytes;
        placed = left == 0;
    }
    placed = placed && give_devices(entry, spec, order, count);
    forget(views, count);
    return placed ? g_steal_pointer(&entry) : NULL;
}

static int by_memory(gconstpointer a, gconstpointer b)
{
    const View *x = *(View *const *)a, *y = *(View *const *)b;

    return (x->memory < y->memory) - (x->memory > y->memory);
}

static int by_cores(gconstpointer a, gconstpointer b)
{
    const View *x = *(View *const *)a, *y = *(View *const *)b;

    return (x->cores->len < y->cores->len) - (x->cores->len > y->cores->len);
}

static int by_devices(gconstpointer a, gconstpointer b)
{
    const View *x = *(View *const *)a, *y = *(View *const *)b;

    return (x->devices->len < y->devices->len) - (x->devices->len > y->devices->len);
}

/* The first so many nodes, in the order given, on which a cell fits: cells are equal, so that no permutation of
 * them does better. */
static gboolean fit_cells(LedgerEntry *entry, const Host *host, const Spec *spec, GPtrArray *order, unsigned cells)
{
    unsigned wanted = cores_wanted(host, spec);
    guint64 granules = spec->memory_bytes / spec->page_bytes;
    View *chosen[NODES_MAX];
    unsigned found = 0;

    if (wanted % cells || granules % cells)
        return FALSE;
    for (guint i = 0; i < order->len && found < cells; i++) {
        View *view = g_ptr_array_index(order, i);

        if (view->cores->len >= wanted / cells && view->memory >= spec->memory_bytes / cells)
            chosen[found++] = view;
    }
    if (found < cells)
        return FALSE;
    for (unsigned i = 0; i < cells; i++)
        give(entry, spec, chosen[i], wanted / cells, spec->memory_bytes / cells);
    /* Nova takes devices from the chosen cells, or refuses ("legacy" affinity); its "preferred" takes any. */
    if (give_devices(entry, spec, chosen, cells))
        return TRUE;
    g_ptr_array_set_size(entry->devices, 0);
    return give_devices(entry, spec, (View *const *)(gpointer)order->pdata, order->len);
}

/* As few cells as an empty node would need. */
static unsigned cells_of_flavour(const Host *host, const Spec *spec, unsigned nodes)
{
    g_autoptr(Ledger) empty = ledger_new();
    View views[NODES_MAX];
    unsigned count = look(host, spec, empty, views), wanted = cores_wanted(host, spec), cells = nodes;

    for (unsigned k = nodes; k > 0; k--)
        if (wanted % k == 0 && (spec->memory_bytes / spec->page_bytes) % k == 0 && views[0].cores->len >= wanted / k &&
            views[0].memory >= spec->memory_bytes / k)
            cells = k;
    forget(views, count);
    return cells;
}

static LedgerEntry *place_cells(const Host *host, const Spec *spec, const Ledger *ledger, const char *uuid, gboolean more)
{
    View views[NODES_MAX];
    unsigned count = look(host, spec, ledger, views), cells = cells_of_flavour(host, spec, count);
    g_autoptr(LedgerEntry) entry = ledger_entry_new(uuid, uuid, 0);
    g_autoptr(GPtrArray) order = g_ptr_array_new();
    gboolean placed = FALSE;

    for (unsigned i = 0; i < count; i++)
        g_ptr_array_add(order, &views[i]);
    g_ptr_array_sort(order, by_memory); /* each sort keeps the order before among equals */
    g_ptr_array_sort(order, by_cores);
    if (devices_wanted(spec))
        g_ptr_array_sort(order, by_devices);
    placed = fit_cells(entry, host, spec, order, cells);
    for (unsigned k = cells + 1; more && !placed && k <= count; k++)
        placed = fit_cells(entry, host, spec, order, k);
    forget(views, count);
    return placed ? g_steal_pointer(&entry) : NULL;
}

LedgerEntry *place_nova(const Host *host, const Spec *spec, const Ledger *ledger, const char *uuid)
{
    return place_cells(host, spec, ledger, uuid, FALSE);
}

LedgerEntry *place_nova_more_cells(const Host *host, const Spec *spec, const Ledger *ledger, const char *uuid)
{
    return place_cells(host, spec, ledger, uuid, TRUE);
}
