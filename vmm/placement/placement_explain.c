/* placement_explain.c: a Placement in sentences. */
#include "solver.h"

#include "hvm_error.h"
#include "units.h"

static const char *plural(unsigned count)
{
    return count == 1 ? "" : "s";
}

static void add_cpus(GString *text, const Placement *placement, const Host *host, const Spec *spec)
{
    g_autofree char *reserved = host_format_list(placement->reserved), *emulator = host_format_list(placement->emulator);
    g_autofree char *io_threads = host_format_list(placement->io_threads);
    g_autofree char *where = hvm_escape(host->description, -1);
    static const char *const caches[] = {[CACHE_PASSTHROUGH] = "with the host's own caches",
                                         [CACHE_EMULATE] = "with an emulated level-3 cache per die",
                                         [CACHE_NONE] = "without a level-3 cache, which not all of its PUs have"};
    unsigned pus = (unsigned)hwloc_bitmap_weight(placement->reserved);

    g_string_append_printf(text, "%u vCPU%s of '%s' on PU%s %s of %s", placement->vcpus->len, plural(placement->vcpus->len),
                           spec->name, plural(pus), reserved, where);
    if (pus > placement->vcpus->len)
        g_string_append_printf(text, " (%u of these %u idle, or for QEMU's own threads)", pus - placement->vcpus->len, pus);
    g_string_append_printf(text, ".\nThe guest sees %u socket%s of %u die%s of %u core%s of %u thread%s, %s.\n",
                           placement->sockets, plural(placement->sockets), placement->dies, plural(placement->dies),
                           placement->cores, plural(placement->cores), placement->threads, plural(placement->threads),
                           caches[placement->cache]);
    g_string_append_printf(text, "QEMU's own threads run on %s, I/O threads on %s.\n", emulator, io_threads);
}

static const char *page_word(guint64 page_bytes)
{
    return page_bytes == HVM_GIB ? "1G" : page_bytes == 2 * HVM_MIB ? "2M" : "4K";
}

/* PUs of one cell, as a list. */
static char *list_cell_pus(const Placement *placement, const PlacementCell *cell)
{
    hwloc_bitmap_t pus = hwloc_bitmap_alloc();
    char *list;

    for (unsigned i = 0; i < cell->vcpus; i++)
        hwloc_bitmap_set(pus, g_array_index(placement->vcpus, PlacementVcpu, cell->first_vcpu + i).pu);
    list = host_format_list(pus);
    hwloc_bitmap_free(pus);
    return list;
}

static void add_cells(GString *text, const Placement *placement)
{
    for (guint i = 0; i < placement->cells->len; i++) {
        const PlacementCell *cell = &g_array_index(placement->cells, PlacementCell, i);
        g_autofree char *size = size_format(cell->memory_bytes), *pus = list_cell_pus(placement, cell);

        g_string_append_printf(text, "Guest cell %u: NUMA node %u, PUs %s, %s in %s pages.\n", i, cell->node, pus, size,
                               page_word(cell->page_bytes));
    }
}

static void add_devices(GString *text, const Placement *placement, const Host *host)
{
    for (guint i = 0; i < placement->devices->len; i++) {
        const PlacementDevice *device = g_ptr_array_index(placement->devices, i);
        const HostDevice *found = host_find_device(host, device->address);
        g_autofree char *name = hvm_escape(device->name, -1);
        g_autofree char *model = found && found->device_name ? hvm_escape(found->device_name, -1) : g_strdup("");

        g_string_append_printf(text, "Device '%s': %s%s%s, ", name, device->address, *model ? " " : "", model);
        if (device->cell >= 0)
            g_string_append_printf(text, "on the node of guest cell %d.\n", device->cell);
        else if (found && found->node >= 0)
            g_string_append_printf(text, "on NUMA node %d, which is none of the guest's.\n", found->node);
        else
            g_string_append(text, "on a node that the platform does not tell.\n");
    }
}

static void add_lines(GString *text, const GPtrArray *lines)
{
    for (guint i = 0; i < lines->len; i++) {
        g_autofree char *line = hvm_escape(g_ptr_array_index(lines, i), -1); /* may have been read back */

        g_string_append_printf(text, "%s\n", line);
    }
}

char *placement_explain(const Placement *placement, const Host *host, const Spec *spec)
{
    GString *text = g_string_new(NULL);

    add_cpus(text, placement, host, spec);
    add_cells(text, placement);
    add_devices(text, placement, host);
    add_lines(text, placement->reasons);
    add_lines(text, placement->notes);
    return g_string_free(text, FALSE);
}
