#include "domain_xml.h"

#include "cpu_xml.h"
#include "metadata.h"
#include "passthrough_xml.h"
#include "units.h"

#include <string.h>

enum { PREALLOCATION_THREADS_MAX = 16 };

static const PlacementCell *cell_at(const Placement *placement, guint i)
{
    return &g_array_index(placement->cells, PlacementCell, i);
}

static const PlacementVcpu *vcpu_at(const Placement *placement, guint i)
{
    return &g_array_index(placement->vcpus, PlacementVcpu, i);
}

static void add_memory(xmlNode *domain, const RuntimeGuest *guest)
{
    const Placement *placement = guest->placement;
    xmlNode *hugepages = NULL;

    xml_set(xml_add_text(domain, "memory", "%" G_GUINT64_FORMAT, guest->spec->memory_bytes / HVM_KIB), "unit", "KiB");
    if (!placement)
        return;

    xmlNode *backing = xml_add(domain, "memoryBacking");

    for (guint i = 0; i < placement->cells->len; i++) {
        const PlacementCell *cell = cell_at(placement, i);

        /* Nested paging walks two tables: with 4 KiB pages it cost CERN 6 %, with huge pages nothing to speak of. */
        if (cell->page_bytes <= 4 * HVM_KIB)
            continue;
        if (!hugepages)
            hugepages = xml_add(backing, "hugepages");

        xmlNode *page = xml_add(hugepages, "page");

        xml_set(page, "size", "%" G_GUINT64_FORMAT, cell->page_bytes / HVM_KIB);
        xml_set(page, "unit", "KiB");
        xml_set(page, "nodeset", "%u", i);
    }
    /* KSM would break pages apart and cost CPU (CERN: 0.9 %). */
    xml_add(backing, "nosharepages");
    /* All memory is there, on its node, before the guest runs: no fault later, and a pool that is short fails here. Small pages
     * of a guest for one command come as it touches them, as a container's do: allocating 1 GiB of them takes as long as its boot. */
    if (hugepages || !guest->ephemeral)
        xml_set(xml_set(xml_add(backing, "allocation"), "mode", "immediate"), "threads", "%u",
                MIN(placement->vcpus->len, PREALLOCATION_THREADS_MAX));
}

static void add_pins(xmlNode *domain, const RuntimeGuest *guest)
{
    const Placement *placement = guest->placement;
    g_autofree char *emulator = host_format_list(placement->emulator);
    g_autofree char *io_threads = host_format_list(placement->io_threads);
    xmlNode *tune = xml_add(domain, "cputune");

    /* No vCPU moves: caches stay warm, and the topology that the guest is shown stays true (CERN: 3 %). */
    for (guint i = 0; i < placement->vcpus->len; i++)
        xml_set(xml_set(xml_add(tune, "vcpupin"), "vcpu", "%u", i), "cpuset", "%u", vcpu_at(placement, i)->pu);
    /* Without these, QEMU's own threads float over the CPUs of other guests (KubeVirt #745, #16992). */
    xml_set(xml_add(tune, "emulatorpin"), "cpuset", "%s", emulator);
    xml_set(xml_set(xml_add(tune, "iothreadpin"), "iothread", "1"), "cpuset", "%s", io_threads);
}

/* Strict: an allocation on another node fails instead of becoming slow memory (LXD #15082). */
static void add_numatune(xmlNode *domain, const Placement *placement)
{
    xmlNode *tune = xml_add(domain, "numatune");
    g_autofree char *nodes = NULL;
    hwloc_bitmap_t all = hwloc_bitmap_alloc();

    for (guint i = 0; i < placement->cells->len; i++)
        hwloc_bitmap_set(all, cell_at(placement, i)->node);
    nodes = host_format_list(all);
    hwloc_bitmap_free(all);
    xml_set(xml_set(xml_add(tune, "memory"), "mode", "strict"), "nodeset", "%s", nodes);
    for (guint i = 0; i < placement->cells->len; i++) {
        xmlNode *node = xml_set(xml_add(tune, "memnode"), "cellid", "%u", i);

        xml_set(xml_set(node, "mode", "strict"), "nodeset", "%u", cell_at(placement, i)->node);
    }
}

/*
 * What the kernel may leave out on its way to the agent; docs/boot.md has what each gains. Its messages go unprinted, but the
 * panic that ends it: it raises the level itself.
 */
#define QUICK_ARGUMENTS " quiet loglevel=0 cryptomgr.notests"
/* Emulated timers are sound but late, and zeroing is dear: under KVM the kernel knows, or keeps its hardening. */
#define QUICK_TCG_ARGUMENTS " tsc=reliable no_timer_check init_on_alloc=0"

/* The kernel's command line. */
static char *kernel_arguments(const RuntimeGuest *guest)
{
    const Spec *spec = guest->spec;
    GString *line = g_string_new(NULL);

    g_string_append_printf(line, "root=%s rw console=ttyS0 systemd.hostname=%s systemd.machine_id=", spec->root_device, spec->name);
    /* machine-id(5): 32 hexadecimal digits. */
    for (const char *from = guest->uuid; *from; from++)
        if (*from != '-')
            g_string_append_c(line, *from);
    if (spec->init == INIT_AGENT)
        g_string_append(line, guest->kvm ? QUICK_ARGUMENTS : QUICK_ARGUMENTS QUICK_TCG_ARGUMENTS);
    /* A panic before the driver of the panic device is there is seen at once too: as a reboot, which ends this guest. */
    if (guest->ephemeral)
        g_string_append(line, " panic=-1");
    if (spec->init == INIT_AGENT && guest->boot_address)
        g_string_append_printf(line, " hvm.address=%s", guest->boot_address);
    if (spec->kernel_arguments)
        g_string_append_printf(line, " %s", spec->kernel_arguments);
    return g_string_free(line, FALSE);
}

static void add_os(xmlNode *domain, const RuntimeGuest *guest)
{
    const Spec *spec = guest->spec;
    g_autofree char *arguments = kernel_arguments(guest);
    xmlNode *os = xml_add(domain, "os");

    xml_set(xml_set(xml_add_text(os, "type", "hvm"), "arch", "x86_64"), "machine", "%s", spec->machine);
    xml_add_text(os, "kernel", "%s", guest->kernel_path);
    xml_add_text(os, "initrd", "%s", guest->initrd_path);
    xml_add_text(os, "cmdline", "%s", arguments);
}

/* With INIT_AGENT a device sits on the root complex: libvirt would give each a root port, which the kernel brings up first. */
enum { SLOT_NETWORK = 0x10, SLOT_DISK, SLOT_CHANNEL, SLOT_RNG };

static void add_address(xmlNode *device, const RuntimeGuest *guest, unsigned slot)
{
    if (guest->spec->init == INIT_AGENT && strcmp(guest->spec->machine, "q35") == 0)
        xml_set(xml_set(xml_set(xml_add(device, "address"), "type", "pci"), "bus", "0x00"), "slot", "0x%02x", slot);
}

static const char *disk_device(const char *bus)
{
    return strcmp(bus, "virtio") == 0 ? "vda" : strcmp(bus, "ide") == 0 ? "hda" : "sda";
}

static void add_disk(xmlNode *devices, const RuntimeGuest *guest)
{
    gboolean virtio = strcmp(guest->spec->disk_bus, "virtio") == 0;
    xmlNode *disk = xml_set(xml_set(xml_add(devices, "disk"), "type", "file"), "device", "disk");
    xmlNode *driver = xml_set(xml_set(xml_add(disk, "driver"), "name", "qemu"), "type", "qcow2");

    /* none + io_uring: no second page cache, no thread pool. Where O_DIRECT is refused, the host's cache and threads. The disk of
     * an ephemeral guest is never read again: nothing is flushed, and the next one finds the image in the host's cache. */
    gboolean direct = guest->direct_io && !guest->ephemeral;

    xml_set(driver, "cache", guest->ephemeral ? "unsafe" : direct ? "none" : "writeback");
    xml_set(driver, "io", direct ? "io_uring" : "threads");
    /* What the guest frees is freed in the store. */
    xml_set(driver, "discard", "unmap");
    /* A full store pauses a guest that can wait for room; nobody makes room for a single command. */
    if (guest->ephemeral)
        xml_set(driver, "error_policy", "report");
    /* Its completions need not wait for QEMU's main loop. */
    if (virtio)
        xml_set(driver, "iothread", "1");
    xml_set(xml_add(disk, "source"), "file", "%s", guest->disk_path);

    /* Written out, so that libvirt need not open the image and guess its format. */
    xmlNode *base = xml_set(xml_add(disk, "backingStore"), "type", "file");

    xml_set(xml_add(base, "format"), "type", "raw");
    xml_set(xml_add(base, "source"), "file", "%s", guest->image_path);
    xml_add(base, "backingStore");
    xml_set(xml_set(xml_add(disk, "target"), "dev", "%s", disk_device(guest->spec->disk_bus)), "bus", "%s", guest->spec->disk_bus);
    if (virtio)
        add_address(disk, guest, SLOT_DISK);
}

/* A UNIX socket which QEMU listens on. */
static void set_socket(xmlNode *device, const RuntimeGuest *guest, const char *name)
{
    xml_set(device, "type", "unix");
    xml_set(xml_set(xml_add(device, "source"), "mode", "bind"), "path", "%s/%s", guest->socket_folder, name);
}

static void add_console(xmlNode *devices, const RuntimeGuest *guest)
{
    xmlNode *serial = xml_add(devices, "serial");

    set_socket(serial, guest, "console.sock");
    /* Written by virtlogd, which bounds its size. */
    xml_set(xml_set(xml_add(serial, "log"), "file", "%s", guest->log_path), "append", "off");
    xml_set(xml_set(xml_add(serial, "target"), "type", "isa-serial"), "port", "0");
    if (strcmp(guest->spec->agent_port, "virtio") == 0) {
        xmlNode *channel = xml_add(devices, "channel");

        set_socket(channel, guest, "agent.sock");
        xml_set(xml_set(xml_add(channel, "target"), "type", "virtio"), "name", "io.hvm1.agent");
        if (guest->spec->init == INIT_AGENT)
            add_address(xml_set(xml_set(xml_add(devices, "controller"), "type", "virtio-serial"), "index", "0"), guest,
                        SLOT_CHANNEL);
    } else {
        xmlNode *port = xml_add(devices, "serial");

        set_socket(port, guest, "agent.sock");
        xml_set(xml_set(xml_add(port, "target"), "type", "isa-serial"), "port", "1");
    }
}

static void add_network(xmlNode *devices, const RuntimeGuest *guest)
{
    xmlNode *interface = xml_set(xml_add(devices, "interface"), "type", "network");

    xml_set(xml_add(interface, "mac"), "address", "%s", guest->mac);
    xml_set(xml_add(interface, "source"), "network", "%s", guest->network);
    xml_set(xml_add(interface, "model"), "type", "%s", guest->spec->nic_model);
    /* The kernel is loaded directly: no boot ROM is read. */
    xml_set(xml_add(interface, "rom"), "enabled", "no");
    add_address(interface, guest, SLOT_NETWORK);
}

static void add_devices(xmlNode *domain, const RuntimeGuest *guest)
{
    xmlNode *devices = xml_add(domain, "devices");

    add_disk(devices, guest);
    /* libvirt adds one otherwise, which QEMU emulates and the kernel probes. */
    xml_set(xml_set(xml_add(devices, "controller"), "type", "usb"), "model", "none");
    if (guest->network && guest->mac)
        add_network(devices, guest);
    add_console(devices, guest);
    if (guest->placement)
        passthrough_xml_add(devices, guest->placement, guest->spec->machine);
    /* libvirt adds a balloon where none is written out, and a ballooned guest loses its huge pages. */
    xml_set(xml_add(devices, "memballoon"), "model", "none");

    /* A guest has little other entropy at boot, and what makes keys waits for it (getrandom(2)). */
    xmlNode *rng = xml_set(xml_add(devices, "rng"), "model", "virtio");

    xml_set(xml_add_text(rng, "backend", "/dev/urandom"), "model", "random");
    add_address(rng, guest, SLOT_RNG);
    /* A kernel panic becomes an event, and the guest shows as crashed. */
    xml_set(xml_add(devices, "panic"), "model", "isa");
    if (cpu_xml_needs_x2apic(guest)) {
        xmlNode *iommu = xml_set(xml_add(devices, "iommu"), "model", "intel");

        xml_set(xml_set(xml_add(iommu, "driver"), "intremap", "on"), "eim", "on");
    }
}

/* hvm gives files to QEMU's user itself: libvirt's relabelling would chown the image that others boot from. */
static void add_label(xmlNode *domain, const RuntimeGuest *guest)
{
    xmlNode *label = xml_set(xml_set(xml_add(domain, "seclabel"), "type", "static"), "model", "dac");

    xml_set(label, "relabel", "no");
    if (guest->qemu_user)
        xml_add_text(label, "label", "%s", guest->qemu_user);
    else
        xml_add_text(label, "label", "+%u:+%u", guest->qemu_uid, guest->qemu_gid);
}

/*
 * libvirt asks QEMU for each of some 400 properties of the CPU, one by one, before the vCPUs run: 0.2 s of the 0.26 that a start takes. It
 * does so where it knows QEMU to tell which features are unavailable; else it reads them in two questions. What it learns is of use to
 * migration and managed saves, which an ephemeral guest has none of. The domain counts as tainted for it (custom-hypervisor-feature).
 */
static void add_quick_cpu_look(xmlNode *domain)
{
    xmlNode *capabilities = xml_add(domain, "capabilities");

    xmlSetNs(capabilities, xmlNewNs(domain, BAD_CAST "http://libvirt.org/schemas/domain/qemu/1.0", BAD_CAST "qemu"));
    xml_set(xml_add(capabilities, "del"), "capability", "cpu-unavailable-features");
}

char *domain_xml_build(const RuntimeGuest *guest)
{
    xmlNode *domain = NULL;
    g_autoptr(xmlDoc) document = xml_new("domain", &domain);

    xml_set(domain, "type", guest->kvm ? "kvm" : "qemu");
    xml_add_text(domain, "name", "%s", guest->spec->name);
    xml_add_text(domain, "uuid", "%s", guest->uuid);
    metadata_add(xml_add(domain, "metadata"), guest);
    add_memory(domain, guest);
    xml_set(xml_add_text(domain, "vcpu", "%u", guest->spec->cpus), "placement", "static");
    xml_add_text(domain, "iothreads", "1");
    if (guest->placement) {
        add_pins(domain, guest);
        add_numatune(domain, guest->placement);
    }
    add_os(domain, guest);
    cpu_xml_add(domain, guest);
    xml_add_text(domain, "on_poweroff", "destroy");
    xml_add_text(domain, "on_reboot", guest->ephemeral ? "destroy" : "restart");
    xml_add_text(domain, "on_crash", "destroy");
    add_devices(domain, guest);
    add_label(domain, guest);
    if (guest->ephemeral)
        add_quick_cpu_look(domain);
    return xml_to_text(document);
}
