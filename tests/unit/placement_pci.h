/* placement_pci.h: hosts with PCI devices below root ports, for the tests of placement. */
#pragma once

#include "placement_fixture.h"

#include <glib/gstdio.h>
#include <hwloc/export.h>
#include <string.h>

/* A root port in a package, and what is below it. */
typedef struct {
    unsigned package, gpus, adapters; /* adapters: InfiniBand */
    unsigned nics;
} FixturePort;

static inline void fixture_add_bridge(GString *xml, const char *from_to, unsigned depth, const char *buses, const char *busid)
{
    static unsigned index = 90000;

    g_string_append_printf(xml, "<object type=\"Bridge\" gp_index=\"%u\" bridge_type=\"%s\" depth=\"%u\" bridge_pci=\"%s\"",
                           index++, from_to, depth, buses);
    if (busid)
        g_string_append_printf(xml, " pci_busid=\"%s\" pci_type=\"0604 [8086:2030] [0000:0000] 00\" pci_link_speed=\"0.0\"", busid);
    g_string_append(xml, ">\n");
}

/* Each device has a bus of its own. */
static inline void fixture_add_port(GString *xml, const FixturePort *port, unsigned number, unsigned *bus)
{
    unsigned base = port->package * 0x20, count = port->gpus + port->adapters + port->nics, first = *bus;
    g_autofree char *below = g_strdup_printf("0000:[%02x-%02x]", first, first + count);
    g_autofree char *busid = g_strdup_printf("0000:%02x:%02x.0", base, number + 1);
    static unsigned index = 50000;

    fixture_add_bridge(xml, "1-1", 1, below, busid);
    *bus += count + 1;
    g_assert_cmpuint(*bus, <=, base + 0x20);
    for (unsigned i = 0; i < count; i++)
        g_string_append_printf(xml, "<object type=\"PCIDev\" gp_index=\"%u\" pci_busid=\"0000:%02x:00.0\" "
                               "pci_type=\"%s [10de:20b0] [0000:0000] a1\" pci_link_speed=\"0.0\"/>\n", index++, first + 1 + i,
                               i < port->gpus ? "0302" : i < port->gpus + port->adapters ? "0207" : "0200");
    g_string_append(xml, "</object>\n");
}

/* The ports of one package, below one host bridge whose buses begin at 32 times its number. */
static inline void fixture_add_ports(GString *xml, unsigned package, const FixturePort *ports, unsigned count)
{
    unsigned bus = package * 0x20 + 1, number = 0;
    g_autofree char *all = g_strdup_printf("0000:[%02x-%02x]", package * 0x20, package * 0x20 + 0x1f);

    fixture_add_bridge(xml, "0-1", 0, all, NULL);
    for (unsigned i = 0; i < count; i++)
        if (ports[i].package == package)
            fixture_add_port(xml, &ports[i], number++, &bus);
    g_string_append(xml, "</object>\n");
}

/* A host in hwloc's synthetic syntax with these ports: by package, and there with GPUs first, at 0000:02:00.0, 03:00.0, ...; one bus
 * number is left out for each port. */
static inline Host *fixture_pci_host(const char *synthetic, const FixturePort *ports, unsigned count)
{
    g_autoptr(Host) plain = fixture_host(synthetic);
    g_autoptr(GString) xml = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    g_autofree char *path = NULL;
    unsigned packages = 0;
    int length, fd;
    char *text;
    Host *host;

    g_assert_cmpint(hwloc_topology_export_xmlbuffer(plain->topology, &text, &length, 0), ==, 0);

    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        g_string_append_printf(xml, "%s\n", *line);
        if (strstr(*line, "type=\"Package\""))
            fixture_add_ports(xml, packages++, ports, count);
    }
    hwloc_free_xmlbuffer(plain->topology, text);
    fd = g_file_open_tmp("hvm-placement-XXXXXX.xml", &path, &error);
    g_assert_no_error(error);
    g_close(fd, NULL);
    g_file_set_contents(path, xml->str, -1, &error);
    g_assert_no_error(error);
    host = host_new_from(path, &error);
    g_assert_no_error(error);
    g_remove(path);
    return host;
}
