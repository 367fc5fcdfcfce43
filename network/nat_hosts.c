#include "nat_hosts.h"

#include "dhcp_release.h"
#include "hvm_error.h"
#include "virt.h"

#include <string.h>

gboolean nat_fail(GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *prefix = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    virt_error(error, "%s", prefix);
    if (error && *error)
        (*error)->code = HVM_ERROR_NETWORK;
    return FALSE;
}

NatNetwork *nat_read(virNetworkPtr network, unsigned flags, GError **error)
{
    const char *name = virNetworkGetName(network);
    char *xml = virNetworkGetXMLDesc(network, flags);
    NatNetwork *held = NULL;

    if (xml)
        held = nat_xml_read(xml, error);
    else
        nat_fail(error, "network '%s'", name);
    free(xml);
    return held;
}

/* The running or the stored half of a network, as it was read. */
typedef struct {
    virNetworkPtr network;
    unsigned flag; /* VIR_NETWORK_UPDATE_AFFECT_LIVE or _CONFIG */
    NatNetwork *held;
} Side;

static void side_clear(Side *side)
{
    g_clear_pointer(&side->held, nat_network_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Side, side_clear)

static gboolean side_load(Side *side, virNetworkPtr network, unsigned flag, GError **error)
{
    side->network = network;
    side->flag = flag;
    side->held = nat_read(network, flag == VIR_NETWORK_UPDATE_AFFECT_CONFIG ? VIR_NETWORK_XML_INACTIVE : 0, error);
    return side->held != NULL;
}

static gboolean side_update(const Side *side, unsigned command, unsigned section, const NatHost *host, GError **error)
{
    const char *name = virNetworkGetName(side->network);
    g_autofree char *xml = section == VIR_NETWORK_SECTION_DNS_HOST ? nat_xml_dns_host(host) : nat_xml_dhcp_host(host);

    return virNetworkUpdate(side->network, command, section, -1, xml, side->flag) == 0 ||
           nat_fail(error, "network '%s': cannot %s guest '%s' in %s", name,
                command == VIR_NETWORK_UPDATE_COMMAND_DELETE ? "remove" : "enter", host->name ? host->name : host->mac,
                section == VIR_NETWORK_SECTION_DNS_HOST ? "DNS" : "DHCP");
}

static gboolean same_text(const char *a, const char *b)
{
    return a && b && g_ascii_strcasecmp(a, b) == 0;
}

static const NatHost *find_by_mac(const NatNetwork *held, const char *mac)
{
    for (guint i = 0; i < held->dhcp->len; i++)
        if (same_text(((const NatHost *)held->dhcp->pdata[i])->mac, mac))
            return held->dhcp->pdata[i];
    return NULL;
}

/* Deletes from one section what shares a MAC, a name or an address with `host`, but for an entry that is just it, which is
 * told in ret_there. */
static gboolean side_make_room(const Side *side, unsigned section, const NatHost *host, gboolean *ret_there, GError **error)
{
    gboolean dns = section == VIR_NETWORK_SECTION_DNS_HOST;
    const GPtrArray *hosts = dns ? side->held->dns : side->held->dhcp;
    gboolean there = FALSE;

    for (guint i = 0; i < hosts->len; i++) {
        const NatHost *other = hosts->pdata[i];
        gboolean mac = same_text(other->mac, host->mac);
        gboolean name = same_text(other->name, host->name);
        gboolean address = other->address == host->address;

        if ((mac || dns) && name && address)
            there = TRUE;
        else if ((mac || name || address) && !side_update(side, VIR_NETWORK_UPDATE_COMMAND_DELETE, section, other, error))
            return FALSE;
    }
    *ret_there = there;
    return TRUE;
}

/* DHCP before DNS, and out the other way round: so that what a MAC has in DNS is always found by its entry in DHCP. */
static gboolean side_enter(const Side *side, const NatHost *host, GError **error)
{
    static const unsigned sections[] = {VIR_NETWORK_SECTION_IP_DHCP_HOST, VIR_NETWORK_SECTION_DNS_HOST};

    for (gsize i = 0; i < G_N_ELEMENTS(sections); i++) {
        gboolean there = FALSE;

        if (!side_make_room(side, sections[i], host, &there, error))
            return FALSE;
        if (!there && !side_update(side, VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, sections[i], host, error))
            return FALSE;
    }
    return TRUE;
}

static gboolean side_remove(const Side *side, const char *mac, GError **error)
{
    const NatHost *there = find_by_mac(side->held, mac);
    const Subnet *subnet = side->held->subnets->len > 0 ? side->held->subnets->pdata[0] : NULL;

    /* While the entry is there: with the last one, libvirt ends DHCP. */
    if (there && subnet && side->held->bridge && side->flag == VIR_NETWORK_UPDATE_AFFECT_LIVE)
        dhcp_release(side->held->bridge, subnet->address + 1, there->address, mac);

    for (guint i = 0; there && i < side->held->dns->len; i++) {
        const NatHost *name = side->held->dns->pdata[i];

        if (name->address == there->address &&
            !side_update(side, VIR_NETWORK_UPDATE_COMMAND_DELETE, VIR_NETWORK_SECTION_DNS_HOST, name, error))
            return FALSE;
    }
    return !there || side_update(side, VIR_NETWORK_UPDATE_COMMAND_DELETE, VIR_NETWORK_SECTION_IP_DHCP_HOST, there, error);
}

/* Marks the last bytes of the addresses that these hosts have in `subnet`. */
static void mark_used(gboolean used[static 256], const Subnet *subnet, const GPtrArray *hosts)
{
    for (guint i = 0; i < hosts->len; i++) {
        guint32 address = ((const NatHost *)hosts->pdata[i])->address;

        if ((address & ~255u) == subnet->address)
            used[address & 255] = TRUE;
    }
}

/* Addresses that dnsmasq leased to another MAC: it would refuse them to ours until the lease runs out. */
static void mark_leased(gboolean used[static 256], const Subnet *subnet, virNetworkPtr network, const char *mac)
{
    virNetworkDHCPLeasePtr *leases = NULL;
    int count = virNetworkGetDHCPLeases(network, NULL, &leases, 0);

    for (int i = 0; i < count; i++) {
        guint32 address = 0;

        if (!same_text(leases[i]->mac, mac) && ipv4_parse(leases[i]->ipaddr, &address) && (address & ~255u) == subnet->address)
            used[address & 255] = TRUE;
        virNetworkDHCPLeaseFree(leases[i]);
    }
    free(leases);
}

static gboolean pick_address(const Side *live, const Side *config, const char *mac, guint32 *ret_address, GError **error)
{
    const Subnet *subnet = live->held->subnets->pdata[0];
    gboolean used[256] = {FALSE};

    for (int i = 0; i < 2; i++) {
        const NatNetwork *held = i ? config->held : live->held;

        mark_used(used, subnet, held->dhcp);
        mark_used(used, subnet, held->dns);
    }
    mark_leased(used, subnet, live->network, mac);
    for (unsigned byte = 2; byte <= 254; byte++) {
        if (!used[byte]) {
            *ret_address = subnet->address + byte;
            return TRUE;
        }
    }
    g_autofree char *text = ipv4_format(subnet->address);

    g_set_error(error, HVM_ERROR, HVM_ERROR_NETWORK,
                "network '%s' has no free address: the 253 of %s/24 are guests' or leased within the last 10 minutes",
                virNetworkGetName(live->network), text);
    return FALSE;
}

/* The address that this MAC has, or a free one. */
static gboolean choose_address(const Side *live, const Side *config, NatHost *host, GError **error)
{
    const NatHost *there = find_by_mac(live->held, host->mac);

    if (live->held->subnets->len == 0 || ((const Subnet *)live->held->subnets->pdata[0])->prefix != 24) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_NETWORK, "network '%s': wanted one IPv4 /24, found it changed",
                    virNetworkGetName(live->network));
        return FALSE;
    }
    if (!there)
        there = find_by_mac(config->held, host->mac);
    if (there && there->name && !same_text(there->name, host->name)) {
        g_autofree char *shown = hvm_escape(there->name, -1);

        g_set_error(error, HVM_ERROR, HVM_ERROR_NETWORK, "guest '%s': its MAC %s is guest '%s''s on network '%s'", host->name,
                    host->mac, shown, virNetworkGetName(live->network));
        return FALSE;
    }
    if (there && (there->address & ~255u) == ((const Subnet *)live->held->subnets->pdata[0])->address) {
        host->address = there->address;
        return TRUE;
    }
    return pick_address(live, config, host->mac, &host->address, error);
}

gboolean nat_hosts_remove(virNetworkPtr network, const char *mac, GError **error)
{
    gboolean good = TRUE;

    for (int i = 0; good && i < 2; i++) {
        g_auto(Side) side = {0};

        if ((i ? virNetworkIsActive(network) : virNetworkIsPersistent(network)) == 1)
            good = side_load(&side, network, i ? VIR_NETWORK_UPDATE_AFFECT_LIVE : VIR_NETWORK_UPDATE_AFFECT_CONFIG, error) &&
                   side_remove(&side, mac, error);
    }
    return good;
}

gboolean nat_hosts_enter(virNetworkPtr network, NatHost *host, GError **error)
{
    g_auto(Side) live = {0};
    g_auto(Side) config = {0};

    if (!side_load(&live, network, VIR_NETWORK_UPDATE_AFFECT_LIVE, error) ||
        !side_load(&config, network, VIR_NETWORK_UPDATE_AFFECT_CONFIG, error) ||
        !choose_address(&live, &config, host, error))
        return FALSE;
    if (side_enter(&config, host, error) && side_enter(&live, host, error))
        return TRUE;
    if (!find_by_mac(live.held, host->mac) && !find_by_mac(config.held, host->mac))
        nat_hosts_remove(network, host->mac, NULL);
    return FALSE;
}
