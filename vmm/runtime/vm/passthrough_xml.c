#include "passthrough_xml.h"

#include "xml.h"

#include <stdio.h>
#include <string.h>

/* A bus has 32 slots of 8 functions each. Bus numbers go to 255. */
enum { SLOTS = 32, BUSES = 256 };

typedef struct {
    unsigned slot;
    unsigned function;
} PortPlace;

static const PlacementDevice *device_at(const Placement *placement, guint i)
{
    return g_ptr_array_index(placement->devices, i);
}

static unsigned count_in_cell(const Placement *placement, int cell)
{
    unsigned count = 0;

    for (guint i = 0; i < placement->devices->len; i++)
        count += device_at(placement, i)->cell == cell;
    return count;
}

static xmlNode *add_controller(xmlNode *devices, const char *model, unsigned index)
{
    xmlNode *controller = xml_set(xml_add(devices, "controller"), "type", "pci");

    return xml_set(xml_set(controller, "index", "%u", index), "model", "%s", model);
}

static xmlNode *add_address(xmlNode *parent, unsigned bus, PortPlace place)
{
    xmlNode *address = xml_set(xml_set(xml_add(parent, "address"), "type", "pci"), "domain", "0x0000");

    xml_set(address, "bus", "0x%02x", bus);
    xml_set(address, "slot", "0x%02x", place.slot);
    return xml_set(address, "function", "0x%x", place.function);
}

/* Bus numbers of expanders are the firmware's, not libvirt's indices: those below it come right behind, one for each root port. They are
 * given from the top down, so that the root bus has the low ones to itself. */
static unsigned add_expander(xmlNode *devices, unsigned index, unsigned cell, unsigned ports, unsigned top)
{
    unsigned bus = top - (ports + 1);
    xmlNode *target = xml_add(add_controller(devices, "pcie-expander-bus", index), "target");

    xml_set(target, "busNr", "%u", bus);
    xml_add_text(target, "node", "%u", cell);
    return bus;
}

static void add_port(xmlNode *devices, unsigned index, unsigned expander, unsigned i, unsigned ports)
{
    PortPlace place = {i % SLOTS, i / SLOTS};
    xmlNode *address = add_address(add_controller(devices, "pcie-root-port", index), expander, place);

    if (place.function == 0 && i + SLOTS < ports)
        xml_set(address, "multifunction", "on");
}

/* port 0: wherever libvirt puts it. */
static void add_hostdev(xmlNode *devices, const PlacementDevice *device, unsigned port)
{
    unsigned domain = 0, bus = 0, slot = 0, function = 0;
    xmlNode *hostdev = xml_set(xml_set(xml_add(devices, "hostdev"), "mode", "subsystem"), "type", "pci");

    /* libvirt takes it from its driver, binds it to vfio-pci by driver_override, and gives it back. It raises QEMU's locked memory
     * limit for it as well, so that <locked/> is not needed. */
    xml_set(hostdev, "managed", "yes");
    sscanf(device->address, "%x:%x:%x.%x", &domain, &bus, &slot, &function); /* checked where the placement was made or read */

    xmlNode *source = xml_add(xml_add(hostdev, "source"), "address");

    xml_set(source, "domain", "0x%04x", domain);
    xml_set(source, "bus", "0x%02x", bus);
    xml_set(source, "slot", "0x%02x", slot);
    xml_set(source, "function", "0x%x", function);
    /* The kernel is loaded directly: no option ROM is run, and reading one can hang a GPU that the host has initialised. */
    xml_set(xml_add(hostdev, "rom"), "bar", "off");
    if (port)
        add_address(hostdev, port, (PortPlace){0});
}

/* Without an expander of its cell's the guest sees numa_node -1 (KubeVirt #13926). */
static void add_on_expanders(xmlNode *devices, const Placement *placement)
{
    unsigned index = 1, top = BUSES;
    g_autofree unsigned *expanders = g_new0(unsigned, placement->cells->len + 1);
    g_autofree unsigned *ports = g_new0(unsigned, placement->devices->len + 1);

    for (guint cell = 0; cell < placement->cells->len; cell++) {
        unsigned count = count_in_cell(placement, (int)cell);

        if (!count)
            continue;
        expanders[cell] = index;
        top = add_expander(devices, index++, cell, count, top);
    }
    for (guint cell = 0; cell < placement->cells->len; cell++) {
        unsigned count = count_in_cell(placement, (int)cell), used = 0;

        for (guint i = 0; count && i < placement->devices->len; i++) {
            if (device_at(placement, i)->cell != (int)cell)
                continue;
            ports[i] = index++;
            add_port(devices, ports[i], expanders[cell], used++, count);
        }
    }
    for (guint i = 0; i < placement->devices->len; i++)
        add_hostdev(devices, device_at(placement, i), ports[i]);
}

void passthrough_xml_add(xmlNode *devices, const Placement *placement, const char *machine)
{
    if (strcmp(machine, "q35") == 0) {
        add_on_expanders(devices, placement);
        return;
    }
    /* i440fx has no PCI Express: the device works there as a conventional one, and its node is not told. */
    for (guint i = 0; i < placement->devices->len; i++)
        add_hostdev(devices, device_at(placement, i), 0);
}
