/*
 * devices.c: who may have which device, and whether it can be given away.
 *
 * A device is root's, or listed in hvmd.conf. The list is held against the devices that a request could get and not against its
 * words: a user may ask for "gpu" where each GPU is allowed by its address, and for an address whose kind is allowed.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "template_keys.h"
#include "units.h"

#include <string.h>

static void free_allowed(gpointer pointer)
{
    SpecDevice *allowed = pointer;

    g_free(allowed->kind);
    g_free(allowed->address);
    g_free(allowed->network);
    g_free(allowed);
}

GPtrArray *devices_parse_allowed(const char *text, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(free_allowed);
    g_auto(GStrv) words = g_strsplit_set(text, " \t,", -1);
    g_auto(GStrv) kinds = g_strsplit(DEVICE_KINDS, "|", -1);

    for (char **word = words; *word; word++) {
        SpecDevice *allowed;

        if (!**word)
            continue;
        allowed = g_new0(SpecDevice, 1);
        g_ptr_array_add(list, allowed);
        if (g_strv_contains((const char *const *)kinds, *word)) {
            allowed->kind = g_strdup(*word);
        } else if (interface_check(*word)) {
            allowed->network = g_strdup(*word);
        } else if (!pci_address_parse(*word, &allowed->address)) {
            g_autofree char *shown = hvm_escape(*word, (gssize)MIN(strlen(*word), 60));

            g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                        "wanted kinds (" DEVICE_KINDS "), PCI addresses and names of interfaces, found '%s'", shown);
            return NULL;
        }
    }
    return g_steal_pointer(&list);
}

static gboolean is_allowed(const Host *host, const HostDevice *device, const GPtrArray *allowed)
{
    for (guint i = 0; allowed && i < allowed->len; i++)
        if (placement_device_would_do(host, device, allowed->pdata[i]))
            return TRUE;
    return FALSE;
}

/* What is on this node and not allowed, of all that the request could get; NULL: nothing. */
static const HostDevice *find_forbidden(const Host *host, const SpecDevice *wanted, const GPtrArray *allowed)
{
    for (guint i = 0; i < host->devices->len; i++) {
        const HostDevice *device = host->devices->pdata[i];

        if (placement_device_would_do(host, device, wanted) && !is_allowed(host, device, allowed))
            return device;
    }
    return NULL;
}

gboolean devices_check_right(const Host *host, const Spec *spec, const GPtrArray *allowed, uid_t uid, GError **error)
{
    for (guint i = 0; uid != 0 && i < spec->devices->len; i++) {
        const SpecDevice *wanted = spec->devices->pdata[i];
        const HostDevice *forbidden = find_forbidden(host, wanted, allowed);

        if (!forbidden)
            continue;
        g_set_error(error, HVM_ERROR, HVM_ERROR_DENIED,
                    "device '%s': wanted one that [devices] allow of hvmd.conf lists, found that it could be %s, which root alone may give",
                    wanted->name, forbidden->address);
        return FALSE;
    }
    return TRUE;
}

gboolean devices_check_iommu(const Host *host, const Placement *placement, GError **error)
{
    for (guint i = 0; i < placement->devices->len; i++) {
        const PlacementDevice *placed = placement->devices->pdata[i];
        const HostDevice *device = host_find_device(host, placed->address);

        if (device && device->iommu_group >= 0)
            continue;
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST,
                    "device %s: wanted an IOMMU group, found none: switch the IOMMU on (VT-d or AMD-Vi in the firmware, and with Intel "
                    "intel_iommu=on on the kernel's command line)", placed->address);
        return FALSE;
    }
    return TRUE;
}
