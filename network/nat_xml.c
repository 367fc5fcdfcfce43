#include "nat_xml.h"

#include "hvm_error.h"
#include "xml.h"

#include <string.h>

#define HVM_NAMESPACE "http://hvm1.io/xmlns/network/1"
#define DNSMASQ_NAMESPACE "http://libvirt.org/schemas/network/dnsmasq/1.0"

/* ---- writing ---- */

static void add_metadata(xmlNode *root, const char *label, uid_t owner_uid)
{
    xmlNode *node = xml_add(xml_add(root, "metadata"), "network");

    xmlSetNs(node, xmlNewNs(node, BAD_CAST HVM_NAMESPACE, BAD_CAST "hvm"));
    xml_set(xml_set(node, "label", "%s", label), "owner", "%u", owner_uid);
}

/* All addresses, and no range: an unknown MAC gets none. As each address always has the same MAC, no lease of a guest that is gone
 * stands in its successor's way. */
static void add_dhcp(xmlNode *ip, uid_t owner_uid, const Subnet *subnet)
{
    xmlNode *dhcp = xml_add(ip, "dhcp");

    for (unsigned i = 2; i <= 254; i++) {
        xmlNode *host = xml_add(dhcp, "host");
        g_autofree char *address = ipv4_format(subnet->address + i);

        xml_set(host, "mac", "52:54:00:%02x:%02x:%02x", owner_uid >> 8 & 255, owner_uid & 255, i);
        xml_set(host, "ip", "%s", address);
    }
}

static void add_dnsmasq_option(xmlNode *root, const char *option)
{
    xmlNode *node = xml_add(root, "options");

    xmlSetNs(node, xmlNewNs(root, BAD_CAST DNSMASQ_NAMESPACE, BAD_CAST "dnsmasq"));
    xml_set(xml_add(node, "option"), "value", "%s", option); /* a child is in its parent's namespace */
}

char *nat_xml_write(const char *name, const char *bridge, const char *label, uid_t owner_uid, const Subnet *subnet)
{
    xmlNode *root = NULL;
    g_autoptr(xmlDoc) document = xml_new("network", &root);
    g_autofree char *gateway = ipv4_format(subnet->address + 1);

    xml_add_text(root, "name", "%s", name);
    add_metadata(root, label, owner_uid);
    xml_set(xml_add(root, "forward"), "mode", "nat");
    /* Only taps are plugged in here, so there is no loop to guard against; STP would hold back each guest's first frames. */
    xml_set(xml_set(xml_set(xml_add(root, "bridge"), "name", "%s", bridge), "stp", "off"), "delay", "0");
    xml_set(xml_set(xml_add(root, "domain"), "name", "hvm"), "localOnly", "yes");
    /* Names without a dot are guests' or nobody's: the site's name servers are not asked for them. */
    xml_set(xml_add(root, "dns"), "forwardPlainNames", "no");
    add_dhcp(xml_set(xml_set(xml_add(root, "ip"), "address", "%s", gateway), "prefix", "%u", subnet->prefix), owner_uid, subnet);
    /* A guest's name is what hvm entered in DNS, not what it calls itself. */
    add_dnsmasq_option(root, "dhcp-ignore-names");
    return xml_to_text(document);
}

char *nat_xml_dns_host(const NatHost *host)
{
    xmlNode *root = NULL;
    g_autoptr(xmlDoc) document = xml_new("host", &root);
    g_autofree char *address = ipv4_format(host->address);

    xml_set(root, "ip", "%s", address);
    xml_add_text(root, "hostname", "%s", host->name);
    return xml_to_text(document);
}

/* ---- reading ---- */

static void host_free(gpointer data)
{
    NatHost *host = data;

    g_free(host->mac);
    g_free(host->name);
    g_free(host);
}

void nat_network_free(NatNetwork *network)
{
    if (!network)
        return;
    g_free(network->label);
    g_free(network->bridge);
    g_clear_pointer(&network->subnets, g_ptr_array_unref);
    g_ptr_array_unref(network->dhcp);
    g_ptr_array_unref(network->dns);
    g_free(network);
}

/* for (node = each child NAME of parent) */
#define FOR_EACH(node, parent, name) for (xmlNode *node = xml_child(parent, name); node; node = xml_next(node, name))

static gboolean get_address(xmlNode *node, const char *key, guint32 *ret_address)
{
    g_autofree char *text = xml_get(node, key);

    return text && ipv4_parse(text, ret_address);
}

static unsigned prefix_of_mask(guint32 mask)
{
    unsigned prefix = 0;

    while (prefix < 32 && mask & 1u << (31 - prefix))
        prefix++;
    return prefix;
}

/* Of <ip> and <route>: address, and prefix or netmask. */
static void read_subnet(NatNetwork *network, xmlNode *node, const char *name)
{
    g_autofree char *prefix_text = xml_get(node, "prefix");
    guint64 prefix = 32;
    guint32 address = 0, mask = 0;

    if (!get_address(node, "address", &address))
        return;
    if (prefix_text && !g_ascii_string_to_unsigned(prefix_text, 10, 0, 32, &prefix, NULL))
        return;
    if (!prefix_text && get_address(node, "netmask", &mask))
        prefix = prefix_of_mask(mask);
    if (prefix > 0)
        g_ptr_array_add(network->subnets,
                        subnet_new(address, (unsigned)prefix, g_strdup_printf("libvirt network '%s'", name)));
}

static void add_host(GPtrArray *hosts, const char *mac, const char *name, guint32 address)
{
    NatHost *host = g_new0(NatHost, 1);

    host->mac = mac ? g_ascii_strdown(mac, -1) : NULL;
    host->name = g_strdup(name);
    host->address = address;
    g_ptr_array_add(hosts, host);
}

static void read_dhcp(NatNetwork *network, xmlNode *dhcp)
{
    FOR_EACH (node, dhcp, "host") {
        g_autofree char *mac = xml_get(node, "mac");
        guint32 address = 0;

        if (get_address(node, "ip", &address))
            add_host(network->dhcp, mac, NULL, address);
    }
}

static void read_dns(NatNetwork *network, xmlNode *dns)
{
    FOR_EACH (node, dns, "host") {
        guint32 address = 0;

        if (!get_address(node, "ip", &address))
            continue;
        FOR_EACH (child, node, "hostname") {
            g_autofree char *name = xml_get_text(child);

            add_host(network->dns, NULL, name, address);
        }
    }
}

static void read_mark(NatNetwork *network, xmlNode *root)
{
    xmlNode *mark = xml_child(xml_child(root, "metadata"), "network");
    g_autofree char *owner_text = NULL;
    guint64 owner = 0;

    while (mark && (!mark->ns || strcmp((const char *)mark->ns->href, HVM_NAMESPACE) != 0))
        mark = xml_next(mark, "network");
    owner_text = xml_get(mark, "owner");
    if (!owner_text || !g_ascii_string_to_unsigned(owner_text, 10, 0, G_MAXUINT32, &owner, NULL))
        return;
    network->owner_uid = (uid_t)owner;
    network->label = xml_get(mark, "label");
}

NatNetwork *nat_xml_read(const char *xml, GError **error)
{
    g_autoptr(xmlDoc) document = xml_parse(xml, NULL);
    xmlNode *root = document ? xmlDocGetRootElement(document) : NULL;

    if (!root || root->ns || strcmp((const char *)root->name, "network") != 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_NETWORK, "bad XML of a libvirt network: wanted a <network> element");
        return NULL;
    }
    NatNetwork *network = g_new0(NatNetwork, 1);
    g_autofree char *name = xml_get_text(xml_child(root, "name"));
    g_autofree char *shown = hvm_escape(name ? name : "?", -1);

    network->subnets = g_ptr_array_new_with_free_func((GDestroyNotify)subnet_free);
    network->dhcp = g_ptr_array_new_with_free_func(host_free);
    network->dns = g_ptr_array_new_with_free_func(host_free);
    network->bridge = xml_get(xml_child(root, "bridge"), "name");
    read_mark(network, root);
    FOR_EACH (ip, root, "ip") {
        read_subnet(network, ip, shown);
        FOR_EACH (dhcp, ip, "dhcp")
            read_dhcp(network, dhcp);
    }
    FOR_EACH (route, root, "route")
        read_subnet(network, route, shown);
    FOR_EACH (dns, root, "dns")
        read_dns(network, dns);
    return network;
}
