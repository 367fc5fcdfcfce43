#include "nat_xml.h"

#include "hvm_error.h"

#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdarg.h>
#include <string.h>

#define HVM_NAMESPACE "http://hvm1.io/xmlns/network/1"
#define DNSMASQ_NAMESPACE "http://libvirt.org/schemas/network/dnsmasq/1.0"

typedef xmlDoc XmlDoc;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(XmlDoc, xmlFreeDoc)

/* ---- writing ---- */

/* A child element with attributes: name, value, ..., NULL. */
static xmlNode *add(xmlNode *parent, const char *name, ...) G_GNUC_NULL_TERMINATED;
static xmlNode *add(xmlNode *parent, const char *name, ...)
{
    xmlNode *node = xmlNewChild(parent, NULL, BAD_CAST name, NULL);
    va_list arguments;

    va_start(arguments, name);
    for (const char *key; (key = va_arg(arguments, const char *));)
        xmlNewProp(node, BAD_CAST key, BAD_CAST va_arg(arguments, const char *));
    va_end(arguments);
    return node;
}

static XmlDoc *new_document(const char *root_name)
{
    XmlDoc *document = xmlNewDoc(BAD_CAST "1.0");

    xmlDocSetRootElement(document, xmlNewNode(NULL, BAD_CAST root_name));
    return document;
}

static char *to_text(XmlDoc *document)
{
    xmlChar *text = NULL;
    int length = 0;

    xmlDocDumpFormatMemoryEnc(document, &text, &length, "UTF-8", 1);

    char *copy = g_strndup((const char *)text, (gsize)length);

    xmlFree(text);
    return copy;
}

static void add_metadata(xmlNode *root, const char *label, uid_t owner_uid)
{
    xmlNode *node = xmlNewChild(add(root, "metadata", NULL), NULL, BAD_CAST "network", NULL);
    g_autofree char *owner = g_strdup_printf("%u", owner_uid);

    xmlSetNs(node, xmlNewNs(node, BAD_CAST HVM_NAMESPACE, BAD_CAST "hvm"));
    xmlNewProp(node, BAD_CAST "label", BAD_CAST label);
    xmlNewProp(node, BAD_CAST "owner", BAD_CAST owner);
}

/* All addresses, and no range: an unknown MAC gets none. As each address always has the same MAC, no lease of a guest that is gone
 * stands in its successor's way. */
static void add_dhcp(xmlNode *ip, uid_t owner_uid, const Subnet *subnet)
{
    xmlNode *dhcp = add(ip, "dhcp", NULL);

    for (unsigned i = 2; i <= 254; i++) {
        g_autofree char *mac = g_strdup_printf("52:54:00:%02x:%02x:%02x", owner_uid >> 8 & 255, owner_uid & 255, i);
        g_autofree char *address = ipv4_format(subnet->address + i);

        add(dhcp, "host", "mac", mac, "ip", address, NULL);
    }
}

static void add_dnsmasq_option(xmlNode *root, const char *option)
{
    xmlNode *node = xmlNewChild(root, NULL, BAD_CAST "options", NULL);
    xmlNs *ns = xmlNewNs(root, BAD_CAST DNSMASQ_NAMESPACE, BAD_CAST "dnsmasq");

    xmlSetNs(node, ns);
    xmlNewProp(xmlNewChild(node, ns, BAD_CAST "option", NULL), BAD_CAST "value", BAD_CAST option);
}

char *nat_xml_write(const char *name, const char *bridge, const char *label, uid_t owner_uid, const Subnet *subnet)
{
    g_autoptr(XmlDoc) document = new_document("network");
    xmlNode *root = xmlDocGetRootElement(document);
    g_autofree char *gateway = ipv4_format(subnet->address + 1);
    g_autofree char *prefix = g_strdup_printf("%u", subnet->prefix);

    xmlNewTextChild(root, NULL, BAD_CAST "name", BAD_CAST name);
    add_metadata(root, label, owner_uid);
    add(root, "forward", "mode", "nat", NULL);
    /* Only taps are plugged in here, so there is no loop to guard against; STP would hold back each guest's first frames. */
    add(root, "bridge", "name", bridge, "stp", "off", "delay", "0", NULL);
    add(root, "domain", "name", "hvm", "localOnly", "yes", NULL);
    /* Names without a dot are guests' or nobody's: the site's name servers are not asked for them. */
    add(root, "dns", "forwardPlainNames", "no", NULL);
    add_dhcp(add(root, "ip", "address", gateway, "prefix", prefix, NULL), owner_uid, subnet);
    /* A guest's name is what hvm entered in DNS, not what it calls itself. */
    add_dnsmasq_option(root, "dhcp-ignore-names");
    return to_text(document);
}

char *nat_xml_dns_host(const NatHost *host)
{
    g_autoptr(XmlDoc) document = new_document("host");
    xmlNode *root = xmlDocGetRootElement(document);
    g_autofree char *address = ipv4_format(host->address);

    xmlNewProp(root, BAD_CAST "ip", BAD_CAST address);
    xmlNewTextChild(root, NULL, BAD_CAST "hostname", BAD_CAST host->name);
    return to_text(document);
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

static gboolean is_element(const xmlNode *node, const char *name, const char *ns)
{
    return node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, name) == 0 &&
           g_strcmp0(node->ns ? (const char *)node->ns->href : NULL, ns) == 0;
}

/* The first of `node` and what follows it that has this name, or NULL. */
static xmlNode *find(xmlNode *node, const char *name, const char *ns)
{
    while (node && !is_element(node, name, ns))
        node = node->next;
    return node;
}

/* for (node = each child NAME of parent) */
#define FOR_EACH(node, parent, name)                                                               \
    for (xmlNode *node = find((parent)->children, name, NULL); node; node = find(node->next, name, NULL))

static char *take(xmlChar *text)
{
    char *copy = text ? g_strdup((const char *)text) : NULL;

    xmlFree(text);
    return copy;
}

static char *get(xmlNode *node, const char *key)
{
    return take(xmlGetNoNsProp(node, BAD_CAST key));
}

static gboolean get_address(xmlNode *node, const char *key, guint32 *ret_address)
{
    g_autofree char *text = get(node, key);

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
    g_autofree char *prefix_text = get(node, "prefix");
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
        g_autofree char *mac = get(node, "mac");
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
            g_autofree char *name = take(xmlNodeGetContent(child));

            add_host(network->dns, NULL, name, address);
        }
    }
}

static void read_mark(NatNetwork *network, xmlNode *root)
{
    xmlNode *metadata = find(root->children, "metadata", NULL);
    xmlNode *mark = metadata ? find(metadata->children, "network", HVM_NAMESPACE) : NULL;
    g_autofree char *owner_text = mark ? get(mark, "owner") : NULL;
    guint64 owner = 0;

    if (!owner_text || !g_ascii_string_to_unsigned(owner_text, 10, 0, G_MAXUINT32, &owner, NULL))
        return;
    network->owner_uid = (uid_t)owner;
    network->label = get(mark, "label");
}

NatNetwork *nat_xml_read(const char *xml, GError **error)
{
    gsize length = strlen(xml);
    g_autoptr(XmlDoc) document =
        length <= G_MAXINT ? xmlReadMemory(xml, (int)length, NULL, NULL, XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING)
                           : NULL;
    xmlNode *root = document ? xmlDocGetRootElement(document) : NULL;

    if (!root || !is_element(root, "network", NULL)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_NETWORK, "bad XML of a libvirt network: wanted a <network> element");
        return NULL;
    }
    NatNetwork *network = g_new0(NatNetwork, 1);
    xmlNode *name_node = find(root->children, "name", NULL);
    xmlNode *bridge = find(root->children, "bridge", NULL);
    g_autofree char *name = name_node ? take(xmlNodeGetContent(name_node)) : NULL;
    g_autofree char *shown = hvm_escape(name ? name : "?", -1);

    network->subnets = g_ptr_array_new_with_free_func((GDestroyNotify)subnet_free);
    network->dhcp = g_ptr_array_new_with_free_func(host_free);
    network->dns = g_ptr_array_new_with_free_func(host_free);
    network->bridge = bridge ? get(bridge, "name") : NULL;
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
