#include "host_internal.h"

#include "hvm_error.h"
#include "sysroot.h"

#include <errno.h>
#include <stdlib.h>

/* hwloc tells of odd topologies on standard error, which is not its to write to; and writes into exports what the
 * exporting process supports, so that a second capture differs from the first. Both are told by environment variables
 * only, and setenv() is safe only before threads run. */
__attribute__((constructor)) static void quieten_hwloc(void)
{
    setenv("HWLOC_HIDE_ERRORS", "2", 0);
    setenv("HWLOC_XML_EXPORT_SUPPORT", "0", 1);
}

hwloc_topology_t host_topology_new(GError **error)
{
    hwloc_topology_t topology = NULL;

    /* What is not allowed is shown too: whether a core or a cache is taken whole depends on all of its PUs. */
    if (hwloc_topology_init(&topology) < 0 ||
        hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED) < 0 ||
        hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT) < 0 ||
        hwloc_topology_set_type_filter(topology, HWLOC_OBJ_PCI_DEVICE, HWLOC_TYPE_FILTER_KEEP_ALL) < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot set up hwloc: %s", g_strerror(errno));
        if (topology)
            hwloc_topology_destroy(topology);
        return NULL;
    }
    return topology;
}

/* hwloc takes another root than / only from the environment. Tests alone have one. */
static int load_topology(hwloc_topology_t topology)
{
    static GMutex environment;

    if (!sysroot_get())
        return hwloc_topology_load(topology);
    hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86"); /* asks this very CPU */
    g_mutex_lock(&environment);
    setenv("HWLOC_FSROOT", sysroot_get(), 1);
    int status = hwloc_topology_load(topology);

    unsetenv("HWLOC_FSROOT");
    g_mutex_unlock(&environment);
    return status;
}

/* NULL: what this process may use. */
static hwloc_topology_t load_live(hwloc_const_bitmap_t pus, hwloc_const_bitmap_t nodes, GError **error)
{
    hwloc_topology_t topology = host_topology_new(error);

    if (!topology)
        return NULL;
    if (load_topology(topology) < 0)
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "hwloc cannot read this node's topology: %s", g_strerror(errno));
    else if (!sysroot_get() && !hwloc_topology_is_thissystem(topology))
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST,
                    "hwloc shows another machine than this one: unset HWLOC_XMLFILE, HWLOC_SYNTHETIC and HWLOC_FSROOT");
    else if ((pus || nodes) && hwloc_topology_allow(topology, pus, nodes, HWLOC_ALLOW_FLAG_CUSTOM) < 0)
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "this node has none of the CPUs or memory nodes that it should be read for");
    else if (hwloc_topology_refresh(topology) == 0) /* from here on, readers in many threads change nothing */
        return topology;
    else
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot prepare hwloc's topology: %s", g_strerror(errno));
    hwloc_topology_destroy(topology);
    return NULL;
}

/* Adds the CPUs that a file of the kernel lists; nothing where it is missing or says "(null)" (nohz_full does). */
static void add_listed(hwloc_bitmap_t bitmap, const char *path)
{
    g_autofree char *text = sysroot_read(NULL, "%s", path);
    hwloc_bitmap_t listed = text && *text ? host_parse_list(text, NULL) : NULL;

    if (listed)
        hwloc_bitmap_or(bitmap, bitmap, listed);
    hwloc_bitmap_free(listed);
}

/* A shared topology may be older than the last CPU hotplug. */
static void drop_offline(Host *host)
{
    hwloc_bitmap_t online = hwloc_bitmap_alloc();

    add_listed(online, "/sys/devices/system/cpu/online");
    for (guint i = 0; !hwloc_bitmap_iszero(online) && i < host->nodes->len; i++) {
        HostNode *node = g_ptr_array_index(host->nodes, i);

        hwloc_bitmap_and(node->pus, node->pus, online);
    }
    hwloc_bitmap_free(online);
}

static gboolean read_live(Host *host, GError **error)
{
    if (!host_read_nodes(host, error))
        return FALSE;
    drop_offline(host);
    host_read_live_pools(host);
    host_read_live_devices(host);
    host_read_live_uses(host);
    add_listed(host->isolated, "/sys/devices/system/cpu/isolated");
    add_listed(host->isolated, "/sys/devices/system/cpu/nohz_full");
    return host_finish(host, error);
}

Host *host_new_live_within(hwloc_const_bitmap_t pus, hwloc_const_bitmap_t nodes, GError **error)
{
    hwloc_topology_t topology = load_live(pus, nodes, error);

    if (!topology)
        return NULL;

    g_autoptr(Host) host = host_new_around(HOST_LIVE, "this node", topology);

    return read_live(host, error) ? g_steal_pointer(&host) : NULL;
}

Host *host_new_live(GError **error)
{
    return host_new_live_within(NULL, NULL, error);
}

Host *host_refresh(Host *earlier, GError **error)
{
    g_return_val_if_fail(earlier->origin == HOST_LIVE, NULL);

    g_autoptr(Host) host = host_new_around(HOST_LIVE, earlier->description, NULL);

    g_atomic_rc_box_release(host->topology_box);
    host->topology_box = g_atomic_rc_box_acquire(earlier->topology_box);
    host->topology = earlier->topology;
    return read_live(host, error) ? g_steal_pointer(&host) : NULL;
}
