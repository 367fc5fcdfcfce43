/*
 * host_internal.h: what the files of host.h share.
 *
 * host_live.c and host_file.c load a topology, host_memory.c and host_devices.c read what hwloc does not know (from
 * sysfs on a live node, from info attributes in a captured file), host.c ties it together.
 */
#pragma once

#include "host.h"

/* Info attributes of a captured file. On the root: */
#define INFO_FORMAT "hvm.format"            /* "1": this is a capture, complete */
#define INFO_ISOLATED "hvm.isolated"        /* CPU list */
#define INFO_DEVICE_PREFIX "hvm.device."    /* + address: "class=0x020700 id=15b3:1014 node=1 ..." */
/* On NUMA nodes: */
#define INFO_MEMORY "hvm.memory"            /* bytes or "unknown" */
#define INFO_PAGES_PREFIX "hvm.pages."      /* + bytes of a page: "total:free", each pages or "unknown" */

#define CAPTURE_FORMAT "1"

/* No machine is larger; keeps a hostile file or a mistyped synthetic one from costing more memory than it should. */
enum { HOST_PU_MAX = 16384, HOST_DEVICES_MAX = 65536, HOST_VFS_MAX = 65535 };

/* What the host knows of a PU (os_index is the index). All NULL where the PU is not usable. */
typedef struct {
    const HostNode *home;
    hwloc_obj_t core;
    hwloc_obj_t l3;
} HostPlace;

/* A new topology with the flags and filters that every origin uses; not loaded. NULL and HOST when out of memory. */
hwloc_topology_t host_topology_new(GError **error);

/* An empty host around a loaded topology, which it takes. */
Host *host_new_around(HostOrigin origin, const char *description, hwloc_topology_t topology);

/* Fills in all that follows from topology, nodes, devices: usable PUs, homes, SMT, CPU model. INVALID (HOST on a live
 * node) where not one PU could be used. */
gboolean host_finish(Host *host, GError **error);

/* The usable nodes, from the topology and, where there are any, the info attributes of a capture. */
gboolean host_read_nodes(Host *host, GError **error);
/* Replaces memory and pools by what sysfs says now. */
void host_read_live_pools(Host *host);
/* Gives the nodes what a capture must say about them; `topology` is the copy that is written. */
void host_write_nodes(const Host *host, hwloc_topology_t topology);

/* Fill in the devices as hwloc lists them (plain XML), as the root's info attributes do (capture; replacing what is
 * there already at an address), and as sysfs does now. */
void host_read_devices(Host *host);
gboolean host_read_captured_devices(Host *host, GError **error);
void host_read_live_devices(Host *host);
/* Fills in what the node itself uses of them (HostDevice.use). */
void host_read_live_uses(Host *host);
void host_write_devices(const Host *host, hwloc_topology_t topology);

/* As host_new_from() and host_capture(), but in memory; `path` is for messages. For the
 * fuzzer too. */
Host *host_new_from_xml(const char *text, gsize length, const char *path, GError **error);
char *host_to_xml(const Host *host, GError **error);

/* What may be given to hwloc of XML from anyone, which trusts the numbers and sets that it finds: checked and written
 * anew. INVALID with the line. Caller frees. */
char *host_clean_xml(const char *text, gsize length, const char *path, GError **error);

/* INVALID: "where: reason", control characters escaped. */
void host_refuse(GError **error, const char *where, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* A number that orders addresses; FALSE where `address` is not written as sysfs writes one. Domains may have more than
 * four digits (Intel VMD counts from 10000). */
gboolean host_parse_address(const char *address, guint64 *ret_key);
void host_sort_devices(Host *host);

HostDevice *host_device_new(const char *address);
void host_device_free(HostDevice *device);
void host_node_free(HostNode *node);

/* Adds an info attribute unless the object has one of that name: what a loaded capture says stays as it is, so that
 * capturing it again gives the same bytes. */
void host_add_info(hwloc_obj_t object, const char *name, const char *value);
