#include "vm.h"

#include "domain_xml.h"
#include "hvm_error.h"
#include "metadata.h"
#include "sysroot.h"
#include "units.h"

#include <string.h>

typedef struct {
    Runtime runtime;
    Virt *virt;
} VmRuntime;

static Virt *virt_of(Runtime *runtime)
{
    return ((VmRuntime *)runtime)->virt;
}

/* The domain, or NULL: with NOT_FOUND where there is none. */
static virDomainPtr look_up(Runtime *runtime, const char *uuid, GError **error)
{
    g_autoptr(virConnect) connect = virt_get(virt_of(runtime), error);
    virDomainPtr domain = connect ? virDomainLookupByUUIDString(connect, uuid) : NULL;

    if (connect && !domain)
        virt_error(error, "domain %s", uuid);
    return domain;
}

static virDomainPtr define(Runtime *runtime, const RuntimeGuest *guest, GError **error)
{
    g_autofree char *xml = domain_xml_build(guest);
    g_autoptr(virConnect) connect = virt_get(virt_of(runtime), error);
    virDomainPtr domain = connect ? virDomainDefineXMLFlags(connect, xml, 0) : NULL;

    if (connect && !domain)
        virt_error(error, "cannot define the domain");
    return domain;
}

static gboolean vm_define(Runtime *runtime, const RuntimeGuest *guest, GError **error)
{
    /* A new domain has no autostart, and is to have none: hvmd starts guests itself, a placement is made anew each time. */
    g_autoptr(virDomain) domain = define(runtime, guest, error);

    return domain != NULL;
}

/* A transient domain, which libvirtd destroys when our connection closes, however it closes. */
static gboolean start_ephemeral(Runtime *runtime, const RuntimeGuest *guest, GError **error)
{
    g_autofree char *xml = domain_xml_build(guest);
    g_autoptr(virConnect) connect = virt_get(virt_of(runtime), error);
    g_autoptr(virDomain) domain = connect ? virDomainCreateXML(connect, xml, VIR_DOMAIN_START_AUTODESTROY) : NULL;

    return domain || (connect && virt_error(error, "cannot start the domain"));
}

static gboolean vm_start(Runtime *runtime, const RuntimeGuest *guest, GError **error)
{
    if (guest->ephemeral)
        return start_ephemeral(runtime, guest, error);

    g_autoptr(virDomain) domain = define(runtime, guest, error);

    if (!domain)
        return FALSE;
    if (virDomainCreate(domain) < 0)
        return virt_error(error, "cannot start the domain");
    return TRUE;
}

static gboolean vm_resume(Runtime *runtime, const RuntimeGuest *guest, GError **error)
{
    g_autoptr(virDomain) domain = look_up(runtime, guest->uuid, error);

    return domain && (virDomainResume(domain) == 0 || virt_error(error, "cannot let it go on"));
}

/* QEMU pauses a guest whose write finds no room (werror=enospc, its default), and on other errors where it is told to. */
static gboolean vm_check_disk(Runtime *runtime, const RuntimeGuest *guest, GError **error)
{
    g_autoptr(virDomain) domain = look_up(runtime, guest->uuid, error);
    int state = VIR_DOMAIN_NOSTATE, reason = 0;
    virDomainDiskError disk = {0};

    if (!domain)
        return FALSE;
    if (virDomainGetState(domain, &state, &reason, 0) < 0)
        return virt_error(error, "cannot read a domain's state");
    if (state != VIR_DOMAIN_PAUSED || reason != VIR_DOMAIN_PAUSED_IOERROR)
        return TRUE;
    if (virDomainGetDiskErrors(domain, &disk, 1, 0) == 1 && disk.error == VIR_DOMAIN_DISK_ERROR_NO_SPACE)
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE,
                    "image store %s is full: it is paused; make room, then `virsh resume %s` lets it go on", guest->store,
                    guest->spec->name);
    else
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "its disk %s cannot be read or written: it is paused", guest->disk_path);
    free(disk.disk);
    return FALSE;
}

static gboolean vm_shut_down(Runtime *runtime, const RuntimeGuest *guest, GError **error)
{
    g_autoptr(virDomain) domain = look_up(runtime, guest->uuid, error);

    if (!domain)
        return FALSE;
    return virDomainShutdownFlags(domain, VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN) == 0 || virt_error(error, "cannot ask by ACPI");
}

/* Whether the last libvirt error is one of these two. */
static gboolean last_error_is(int code, int other)
{
    int found = virGetLastErrorCode();

    return found == code || found == other;
}

/* As look_up(), where a domain that is not there is no error: *ret_domain is NULL then. */
static gboolean look_up_if_there(Runtime *runtime, const char *uuid, virDomainPtr *ret_domain, GError **error)
{
    g_autoptr(GError) local = NULL;

    *ret_domain = look_up(runtime, uuid, &local);
    if (local && !g_error_matches(local, HVM_ERROR, HVM_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    return TRUE;
}

static gboolean vm_kill(Runtime *runtime, const RuntimeGuest *guest, GError **error)
{
    g_autoptr(virDomain) domain = NULL;

    if (!look_up_if_there(runtime, guest->uuid, &domain, error))
        return FALSE;
    if (!domain || virDomainDestroyFlags(domain, VIR_DOMAIN_DESTROY_DEFAULT) == 0 ||
        last_error_is(VIR_ERR_OPERATION_INVALID, VIR_ERR_NO_DOMAIN))
        return TRUE;
    return virt_error(error, "cannot end the domain");
}

static gboolean vm_undefine(Runtime *runtime, const RuntimeGuest *guest, GError **error)
{
    g_autoptr(virDomain) domain = NULL;

    if (!look_up_if_there(runtime, guest->uuid, &domain, error))
        return FALSE;
    if (!domain ||
        virDomainUndefineFlags(domain, VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                                           VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | VIR_DOMAIN_UNDEFINE_NVRAM) == 0 ||
        last_error_is(VIR_ERR_NO_DOMAIN, VIR_ERR_NO_DOMAIN))
        return TRUE;
    return virt_error(error, "cannot undefine the domain");
}

static GuestState translate_state(int state, int reason)
{
    switch ((virDomainState)state) {
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
    case VIR_DOMAIN_SHUTDOWN:
        return GUEST_RUNNING;
    case VIR_DOMAIN_PAUSED:
    case VIR_DOMAIN_PMSUSPENDED:
        return reason == VIR_DOMAIN_PAUSED_STARTING_UP ? GUEST_STARTING : GUEST_PAUSED;
    case VIR_DOMAIN_CRASHED:
        return GUEST_CRASHED;
    case VIR_DOMAIN_SHUTOFF:
        return reason == VIR_DOMAIN_SHUTOFF_CRASHED || reason == VIR_DOMAIN_SHUTOFF_FAILED ? GUEST_CRASHED : GUEST_OFF;
    case VIR_DOMAIN_NOSTATE:
    default:
        return GUEST_OFF;
    }
}

/* A domain that has just gone is off; one that cannot be asked is not: its promise would be given away. */
static gboolean state_of(virDomainPtr domain, GuestState *ret_state, GError **error)
{
    int state = VIR_DOMAIN_NOSTATE, reason = 0;

    if (virDomainGetState(domain, &state, &reason, 0) == 0)
        *ret_state = translate_state(state, reason);
    else if (last_error_is(VIR_ERR_NO_DOMAIN, VIR_ERR_NO_DOMAIN))
        *ret_state = GUEST_OFF;
    else
        return virt_error(error, "cannot read a domain's state");
    return TRUE;
}

static gboolean vm_state(Runtime *runtime, const char *uuid, GuestState *ret_state, GError **error)
{
    g_autoptr(virDomain) domain = NULL;

    if (!look_up_if_there(runtime, uuid, &domain, error))
        return FALSE;
    if (domain)
        return state_of(domain, ret_state, error);
    *ret_state = GUEST_OFF;
    return TRUE;
}

/* libvirt has no call for it; it keeps the pid beside the domain's state ("/run/libvirt/qemu/NAME.pid"). */
static gboolean vm_process(Runtime *runtime G_GNUC_UNUSED, const RuntimeGuest *guest, pid_t *ret_pid, GError **error)
{
    guint64 pid = 0;

    if (!sysroot_read_uint(&pid, NULL, "/run/libvirt/qemu/%s.pid", guest->spec->name) || pid == 0 || pid > G_MAXINT) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND, "its QEMU does not run");
        return FALSE;
    }
    *ret_pid = (pid_t)pid;
    return TRUE;
}

/* Adds to `pus` the CPUs of an attribute cpuset="0-3"; what is no list counts as none. */
static void take_pins(const xmlNode *node, hwloc_bitmap_t pus)
{
    g_autofree char *list = xml_get(node, "cpuset");
    hwloc_bitmap_t some = list ? host_parse_list(list, NULL) : NULL;

    if (some) {
        hwloc_bitmap_or(pus, pus, some);
        hwloc_bitmap_free(some);
    }
}

/* The PCI devices that elements of that name under <devices> give to the domain. */
static void take_devices(const xmlNode *devices, const char *name, GPtrArray *addresses)
{
    static const char *const keys[] = {"domain", "bus", "slot", "function"};

    for (const xmlNode *node = xml_child(devices, name); node; node = xml_next(node, name)) {
        const xmlNode *address = xml_child(xml_child(node, "source"), "address");
        guint64 numbers[G_N_ELEMENTS(keys)] = {0};
        gboolean pci = address != NULL;

        for (gsize i = 0; pci && i < G_N_ELEMENTS(keys); i++) {
            g_autofree char *text = xml_get(address, keys[i]);

            pci = text != NULL || i == 0; /* a USB device has a bus and no slot */
            numbers[i] = text ? g_ascii_strtoull(text, NULL, 0) : 0;
        }
        if (pci)
            g_ptr_array_add(addresses, g_strdup_printf("%04x:%02x:%02x.%x", (unsigned)numbers[0], (unsigned)numbers[1],
                                                       (unsigned)numbers[2], (unsigned)numbers[3]));
    }
}

/*
 * What a running domain that hvm did not make takes: the CPUs it is pinned to (an unpinned one floats and takes none
 * in particular), and its memory on the nodes it is bound to, in equal parts.
 */
static LedgerEntry *foreign_promise(virDomainPtr domain, const char *uuid, char *text)
{
    g_autofree char *title = g_strconcat("domain ", virDomainGetName(domain), NULL);
    LedgerEntry *entry = ledger_entry_new(uuid, title, (uid_t)-1);
    g_autoptr(xmlDoc) document = text ? xml_parse(text, NULL) : NULL;
    const xmlNode *root = document ? xmlDocGetRootElement(document) : NULL;
    const xmlNode *tune = xml_child(root, "cputune");
    const xmlNode *page = xml_child(xml_child(xml_child(root, "memoryBacking"), "hugepages"), "page");
    g_autofree char *nodeset = xml_get(xml_child(xml_child(root, "numatune"), "memory"), "nodeset");
    g_autofree char *page_kib = xml_get(page, "size");
    hwloc_bitmap_t nodes = nodeset ? host_parse_list(nodeset, NULL) : NULL;

    take_pins(xml_child(root, "vcpu"), entry->pus);
    if (tune && xml_child(tune, "vcpupin"))
        hwloc_bitmap_zero(entry->pus);
    for (const xmlNode *pin = xml_child(tune, "vcpupin"); pin; pin = xml_next(pin, "vcpupin"))
        take_pins(pin, entry->pus);
    if (nodes && hwloc_bitmap_weight(nodes) > 0) {
        guint64 bytes = (guint64)virDomainGetMaxMemory(domain) * HVM_KIB / (guint64)hwloc_bitmap_weight(nodes);
        unsigned node;

        hwloc_bitmap_foreach_begin(node, nodes)
            LedgerMemory memory = {.node = node, .page_bytes = page_kib ? g_ascii_strtoull(page_kib, NULL, 10) * HVM_KIB : 4 * HVM_KIB, .bytes = bytes};
            g_array_append_val(entry->memory, memory);
        hwloc_bitmap_foreach_end();
    }
    g_clear_pointer(&nodes, hwloc_bitmap_free);
    take_devices(xml_child(root, "devices"), "hostdev", entry->devices);
    take_devices(xml_child(root, "devices"), "interface", entry->devices); /* of type hostdev */
    entry->settled = TRUE;
    return entry;
}

/* The guest that a domain's metadata describe; none where another hvmd's. */
static void read_metadata(RuntimeFound *found, const char *text, const char *store)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(RuntimeGuest) guest = metadata_read(text, found->name, found->uuid, &error);

    if (!guest)
        g_message("%s", error->message);
    found->unreadable = !guest;
    if (guest && strcmp(guest->store, store) == 0)
        found->guest = g_steal_pointer(&guest);
}

/* Reads one domain. FALSE where libvirt does not tell: it must not be taken for one that is off, or not ours. */
static gboolean found_read(RuntimeFound *found, virDomainPtr domain, const char *store, GError **error)
{
    int active = virDomainIsActive(domain);
    char *text = active < 0 ? NULL : virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, METADATA_URI,
                                                          active ? VIR_DOMAIN_AFFECT_LIVE : VIR_DOMAIN_AFFECT_CONFIG);

    if (!text && (active < 0 || !last_error_is(VIR_ERR_NO_DOMAIN_METADATA, VIR_ERR_NO_DOMAIN_METADATA)))
        return virt_error(error, "domain '%s'", found->name);
    if (text)
        read_metadata(found, text, store);
    free(text);
    if (!active && found->guest)
        g_clear_pointer(&found->guest->placement, placement_free);
    if (active && found->guest && found->guest->placement) {
        found->promise = placement_promise(found->guest->placement, found->uuid, found->name, found->guest->owner_uid);
        found->promise->settled = TRUE;
    } else if (active) {
        if (!(text = virDomainGetXMLDesc(domain, 0)))
            return virt_error(error, "domain '%s'", found->name);
        found->promise = foreign_promise(domain, found->uuid, text);
        free(text);
    }
    return state_of(domain, &found->state, error);
}

/* Adds what one domain is. One that ended while it was read is read once more, or passed over where it is gone; one that cannot be
 * read is left as it is. FALSE where libvirt is gone. */
static gboolean add_found(GPtrArray *all, virDomainPtr domain, const char *store, GError **error)
{
    char uuid[VIR_UUID_STRING_BUFLEN] = "";

    virDomainGetUUIDString(domain, uuid);
    for (gboolean again = FALSE;; again = TRUE) {
        RuntimeFound *found = g_new0(RuntimeFound, 1);
        g_autoptr(GError) local = NULL;

        found->name = g_strdup(virDomainGetName(domain));
        found->uuid = g_strdup(uuid);
        if (found_read(found, domain, store, &local)) {
            g_ptr_array_add(all, found);
            return TRUE;
        }

        gboolean gone = virDomainIsActive(domain) < 0 && last_error_is(VIR_ERR_NO_DOMAIN, VIR_ERR_NO_DOMAIN);
        gboolean alive = virConnectIsAlive(virDomainGetConnect(domain)) == 1;

        if (!gone && alive && again) {
            g_message("%s", local->message);
            found->unreadable = TRUE;
            g_clear_pointer(&found->guest, runtime_guest_free);
            g_clear_pointer(&found->promise, ledger_entry_free);
            g_ptr_array_add(all, found);
            return TRUE;
        }
        runtime_found_free(found);
        if (gone)
            return TRUE;
        if (!alive) {
            g_propagate_error(error, g_steal_pointer(&local));
            return FALSE;
        }
    }
}

static GPtrArray *vm_list(Runtime *runtime, const char *store, GError **error)
{
    g_autoptr(virConnect) connect = virt_get(virt_of(runtime), error);
    g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func((GDestroyNotify)runtime_found_free);
    virDomainPtr *domains = NULL;
    int count = connect ? virConnectListAllDomains(connect, &domains, 0) : -1;
    gboolean good = count >= 0;

    if (connect && !good)
        virt_error(error, "cannot list domains");
    for (int i = 0; i < count; i++) {
        good = good && add_found(all, domains[i], store, error);
        virDomainFree(domains[i]);
    }
    free(domains);
    return good ? g_steal_pointer(&all) : NULL;
}

static void vm_free(Runtime *runtime)
{
    g_free(runtime);
}

Runtime *vm_runtime_new(Virt *virt)
{
    VmRuntime *vm = g_new0(VmRuntime, 1);

    vm->runtime = (Runtime){.name = "vm", .define = vm_define, .start = vm_start, .resume = vm_resume,
                            .check_disk = vm_check_disk, .shut_down = vm_shut_down, .kill = vm_kill, .undefine = vm_undefine,
                            .state = vm_state, .process = vm_process, .list = vm_list, .free = vm_free};
    vm->virt = virt;
    return &vm->runtime;
}
