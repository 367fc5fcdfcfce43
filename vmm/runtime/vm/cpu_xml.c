#include "cpu_xml.h"

#include "units.h"
#include "xml.h"

/* The highest xAPIC id: 255 is broadcast. */
enum { XAPIC_ID_MAX = 254 };

static const PlacementCell *cell_at(const Placement *placement, guint i)
{
    return &g_array_index(placement->cells, PlacementCell, i);
}

static const PlacementVcpu *vcpu_at(const Placement *placement, guint i)
{
    return &g_array_index(placement->vcpus, PlacementVcpu, i);
}

/* A level of the topology takes whole bits of an APIC id, so that ids have gaps (Intel SDM volume 3, "Hierarchical mapping of shared
 * resources"; QEMU's include/hw/i386/topology.h). */
static unsigned apic_id_bits(unsigned count)
{
    return count > 1 ? g_bit_storage(count - 1) : 0;
}

gboolean cpu_xml_needs_x2apic(const RuntimeGuest *guest)
{
    const Placement *placement = guest->placement;
    unsigned core_at, die_at, socket_at;

    if (!placement)
        return guest->spec->cpus > XAPIC_ID_MAX + 1;
    core_at = apic_id_bits(placement->threads);
    die_at = core_at + apic_id_bits(placement->cores);
    socket_at = die_at + apic_id_bits(placement->dies);
    return ((placement->sockets - 1) << socket_at | (placement->dies - 1) << die_at | (placement->cores - 1) << core_at |
            (placement->threads - 1)) > XAPIC_ID_MAX;
}

/* Whether nothing of QEMU's runs on the vCPUs' PUs. A guest that spins there would keep its own disk and network waiting. */
static gboolean owns_pus(const Placement *placement)
{
    for (guint i = 0; i < placement->vcpus->len; i++)
        if (hwloc_bitmap_isset(placement->emulator, vcpu_at(placement, i)->pu) ||
            hwloc_bitmap_isset(placement->io_threads, vcpu_at(placement, i)->pu))
            return FALSE;
    return TRUE;
}

static void add_features(xmlNode *domain, const RuntimeGuest *guest)
{
    xmlNode *features = xml_add(domain, "features");

    xml_add(features, "acpi");
    xml_add(features, "apic");
    if (guest->kvm && guest->placement) {
        if (owns_pus(guest->placement)) {
            xmlNode *kvm = xml_add(features, "kvm");

            /* Its vCPUs are not preempted: it may spin and need not yield (KVM_HINTS_REALTIME, Documentation/virt/kvm/x86/cpuid.rst). */
            xml_set(xml_add(kvm, "hint-dedicated"), "state", "on");
            /* It polls before HLT itself, so that the host need not (KVM_FEATURE_POLL_CONTROL, Documentation/virt/guest-halt-polling.rst);
             * Linux does so only with the hint. */
            xml_set(xml_add(kvm, "poll-control"), "state", "on");
        }
        /* perf in the guest, as on the node. */
        xml_set(xml_add(features, "pmu"), "state", "on");
    }
    if (cpu_xml_needs_x2apic(guest))
        xml_set(xml_add(features, "ioapic"), "driver", "qemu");
}

/* What the guest's own scheduler and allocator go by (CERN: 9 %). A cell's vCPUs are consecutive, and distances are the host's: guest tools
 * draw nonsense otherwise. */
static void add_cells(xmlNode *cpu, const RuntimeGuest *guest)
{
    const Placement *placement = guest->placement;
    xmlNode *numa = xml_add(cpu, "numa");
    guint n = placement->cells->len;

    for (guint i = 0; i < n; i++) {
        const PlacementCell *cell = cell_at(placement, i);
        xmlNode *node = xml_set(xml_add(numa, "cell"), "id", "%u", i);

        if (cell->vcpus == 1)
            xml_set(node, "cpus", "%u", cell->first_vcpu);
        else if (cell->vcpus > 1)
            xml_set(node, "cpus", "%u-%u", cell->first_vcpu, cell->first_vcpu + cell->vcpus - 1);
        xml_set(xml_set(node, "memory", "%" G_GUINT64_FORMAT, cell->memory_bytes / HVM_KIB), "unit", "KiB");
        if (n < 2 || placement->distances->len != n * n)
            continue;

        xmlNode *distances = xml_add(node, "distances");

        for (guint j = 0; j < n; j++)
            xml_set(xml_set(xml_add(distances, "sibling"), "id", "%u", j), "value", "%u",
                    g_array_index(placement->distances, guint8, i * n + j));
    }
}

/* The borders of the L3 are what a guest's scheduler and libraries go by. QEMU shows an L3 of its own unless told (l3-cache=on); libvirt
 * takes no level with passthrough and disable. */
static void add_cache(xmlNode *cpu, CacheMode mode)
{
    static const char *const modes[] = {[CACHE_PASSTHROUGH] = "passthrough", [CACHE_EMULATE] = "emulate", [CACHE_NONE] = "disable"};
    xmlNode *cache = xml_add(cpu, "cache");

    if (mode == CACHE_EMULATE)
        xml_set(cache, "level", "3");
    xml_set(cache, "mode", "%s", modes[mode]);
}

static void add_cpu(xmlNode *domain, const RuntimeGuest *guest)
{
    const Placement *placement = guest->placement;
    xmlNode *cpu = xml_add(domain, "cpu");

    /* All that the node's processor has (CERN: a named model costs 4-5 %); migratable=off keeps what cannot migrate, the invariant TSC
     * (QEMU docs, "x86 CPU models"). TCG has no processor to pass through. */
    if (guest->kvm) {
        xml_set(xml_set(xml_set(cpu, "mode", "host-passthrough"), "check", "none"), "migratable", "off");
    } else {
        xml_set(xml_set(cpu, "mode", "maximum"), "check", "none");
    }
    if (!placement)
        return;

    /* Without it each vCPU is a socket (Felter: Linpack loses 17 % to it). vCPUs are numbered so that siblings are adjacent: QEMU counts
     * threads first, then cores, dies and sockets. */
    xmlNode *topology = xml_add(cpu, "topology");

    xml_set(topology, "sockets", "%u", placement->sockets);
    xml_set(topology, "dies", "%u", placement->dies);
    xml_set(topology, "cores", "%u", placement->cores);
    xml_set(topology, "threads", "%u", placement->threads);
    if (guest->kvm)
        add_cache(cpu, placement->cache);
    /* Without it an AMD guest sees no SMT, whatever -smp says (QEMU docs, x86 CPU models). */
    if (guest->kvm && guest->amd && placement->threads > 1)
        xml_set(xml_set(xml_add(cpu, "feature"), "policy", "require"), "name", "topoext");
    /* KVM in some virtual machines offers this feature and refuses its MSR; QEMU aborts on that. */
    if (guest->kvm && guest->no_arch_capabilities)
        xml_set(xml_set(xml_add(cpu, "feature"), "policy", "disable"), "name", "arch-capabilities");
    add_cells(cpu, guest);
}

static void add_clock(xmlNode *domain)
{
    xmlNode *clock = xml_set(xml_add(domain, "clock"), "offset", "utc");

    /* Ticks that the guest missed while it did not run: the RTC's are made up for, so that its time is right; the PIT's come late
     * rather than in a burst (libvirt's "Time keeping"; virt-install and Nova set the same). */
    xml_set(xml_set(xml_add(clock, "timer"), "name", "rtc"), "tickpolicy", "catchup");
    xml_set(xml_set(xml_add(clock, "timer"), "name", "pit"), "tickpolicy", "delay");
    /* Emulated in userspace; a guest that picked it would be slow. */
    xml_set(xml_set(xml_add(clock, "timer"), "name", "hpet"), "present", "no");
}

void cpu_xml_add(xmlNode *domain, const RuntimeGuest *guest)
{
    add_features(domain, guest);
    add_cpu(domain, guest);
    add_clock(domain);
}
