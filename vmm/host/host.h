/*
 * host.h: what a node has.
 *
 * Input: the live node (hwloc, /sys and /proc through sysroot.h), a file that `hvm host capture` wrote, a plain
 * hwloc XML export, or hwloc's synthetic syntax. Output: a Host, a snapshot which never changes: topology,
 * NUMA nodes with memory and huge-page pools, PCI devices with locality. Live snapshots are taken anew for each
 * placement (free pages change); the topology is loaded once and shared between them.
 *
 * Numbers of PUs and NUMA nodes are the operating system's (hwloc os_index) everywhere. Nodes are in the order
 * of their os_index, devices in that of their address, whatever order hwloc lists them in.
 * Ownership: a Host is reference counted; all in it is its own.
 * Threads: read from any thread.
 */
#pragma once

#include <glib.h>
#include <hwloc.h>

typedef enum { HOST_LIVE, HOST_CAPTURED, HOST_XML, HOST_SYNTHETIC } HostOrigin;

#define HOST_BYTES_UNKNOWN G_MAXUINT64

typedef struct {
    guint64 page_bytes; /* 4096 first, then the huge sizes, ascending */
    guint64 total;      /* pages; for 4096: what is not in huge pools, HOST_BYTES_UNKNOWN where not told */
    guint64 free;       /* pages; = total where the origin does not tell (free_known FALSE). For 4096 on a live node:
                         * free or reclaimable page cache */
    gboolean free_known;
} HostPages;

typedef struct {
    unsigned node;             /* os_index */
    guint64 memory_bytes;      /* HOST_BYTES_UNKNOWN where the origin does not tell (0 in an export is unknown) */
    hwloc_bitmap_t pus;        /* usable PUs (allowed, online) local to it; empty for a memory-only node */
    GArray *pages;             /* of HostPages */
    char *kind;                /* hwloc's subtype: "MCDRAM", "GPUMemory", or NULL */
    gboolean general_purpose;  /* FALSE for memory that a guest should not be given unasked: of a GPU, high-bandwidth
                                * memory beside ordinary memory, persistent memory, and nodes without local CPUs */
} HostNode;

typedef struct {
    char *address;         /* "0000:41:00.1" */
    guint16 vendor_id;
    guint16 device_id;
    guint32 class_code;    /* 24 bits: class, subclass, interface, as sysfs `class` */
    int node;              /* NUMA node, or -1 where the platform does not tell */
    int iommu_group;       /* or -1 */
    char *driver;          /* bound driver or NULL */
    char *physical;        /* address of the PF where this is a VF, else NULL */
    unsigned vfs_total;    /* SR-IOV capability, 0: none */
    unsigned vfs_enabled;
    char *interface;       /* name in the system: "ib0", "mlx5_0", "eth0", or NULL */
    char *use;             /* why the node itself needs it, a clause ("a route of it goes through eth0"); NULL: it does not, or
                            * the origin does not tell (only a live node and its captures do) */
    char *vendor_name;     /* for people, may be NULL */
    char *device_name;
} HostDevice;

typedef struct {
    int references;            /* atomic */
    HostOrigin origin;
    char *description;         /* "this node", the file, the synthetic string */
    hwloc_topology_t topology; /* loaded, with I/O objects where the origin has them */
    hwloc_bitmap_t usable_pus; /* allowed, online and local to a node of `nodes`: nothing else is ever placed on. The
                                * topology also shows PUs that are not allowed, so go by this, not by what it lists */
    hwloc_bitmap_t isolated;   /* isolcpus and nohz_full of the kernel: guests go there first; may be empty */
    GPtrArray *nodes;          /* of HostNode, by os_index: those whose memory may be used */
    GPtrArray *devices;        /* of HostDevice, by address */
    unsigned smt;              /* largest number of usable PUs in a core */
    char *cpu_model;           /* "Intel(R) Xeon(R) ..." or NULL */
    char *cpu_vendor;          /* "GenuineIntel", "AuthenticAMD" or NULL */

    hwloc_topology_t *topology_box; /* private: owns `topology`, shared by refreshed snapshots */
    GArray *places;                 /* private: by PU, behind host_home_node(), host_core_of(), host_l3_of() */
} Host;

/* A snapshot of this node. HOST on failure. */
Host *host_new_live(GError **error);

/* As a process sees this node that may use these PUs and nodes, whatever the calling process may. */
Host *host_new_live_within(hwloc_const_bitmap_t pus, hwloc_const_bitmap_t nodes, GError **error);

/* As host_new_live(), but sharing the topology of `earlier` (a live host): pools and devices are read anew. */
Host *host_refresh(Host *earlier, GError **error);

/* From text of the command line: "synthetic:..." (hwloc's syntax, where GB is 10^9 bytes and GiB 2^30; memory that it
 * does not name is unknown) or the path of a captured file or hwloc XML export, at most 64 MiB. INVALID saying what is
 * wrong with it; NOT_FOUND; HOST where it cannot be read. */
Host *host_new_from(const char *where, GError **error);

/* Writes one self-contained file that host_new_from() reads back to an equal host: hwloc XML whose root carries what
 * hwloc does not know as info attributes. Written beside and renamed. */
gboolean host_capture(const Host *host, const char *path, GError **error);

Host *host_ref(Host *host);
void host_unref(Host *host);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Host, host_unref)

const HostNode *host_find_node(const Host *host, unsigned node);
const HostDevice *host_find_device(const Host *host, const char *address);
/* The row for a page size, or NULL where the node has no such pool. */
const HostPages *host_node_pages(const HostNode *node, guint64 page_bytes);

/* The node whose memory a usable PU should use: of those it is local to, general-purpose ones first, then the one with
 * the fewest PUs (nodes may nest), then the lowest number. NULL for a PU that is not usable. A usable PU has exactly
 * one. */
const HostNode *host_home_node(const Host *host, unsigned pu);
/* The core of a PU, or the PU itself where the topology tells no cores; NULL for a PU that is not usable. */
hwloc_obj_t host_core_of(const Host *host, unsigned pu);
/* The level-3 cache of a PU, or NULL where there is none. */
hwloc_obj_t host_l3_of(const Host *host, unsigned pu);

/* The NUMA nodes of the disks that the file system of `path` lies on, through partitions, LVM, RAID and encryption. Empty where
 * nothing tells: file systems in memory or from the network, those with a device number of their own (btrfs, ZFS), platforms
 * that do not tell. Caller frees. */
hwloc_bitmap_t host_disk_nodes(const char *path);

/* "0-3,8" from a bitmap, and back (INVALID). Caller frees. */
char *host_format_list(hwloc_const_bitmap_t bitmap);
hwloc_bitmap_t host_parse_list(const char *text, GError **error);
