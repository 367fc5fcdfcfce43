#include "nat_hosts.h"

#include "hvm_error.h"
#include "step.h"
#include "virt.h"

#include <string.h>

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

static gboolean side_load(Side *side, virNetworkPtr network, unsigned flag, GError **error)
{
    side->network = network;
    side->flag = flag;
    side->held = nat_read(network, flag == VIR_NETWORK_UPDATE_AFFECT_CONFIG ? VIR_NETWORK_XML_INACTIVE : 0, error);
    return side->held != NULL;
}

static gboolean side_update(const Side *side, unsigned command, const NatHost *host, GError **error)
{
    const char *network = virNetworkGetName(side->network);
    g_autofree char *xml = nat_xml_dns_host(host);
    g_autofree char *shown = hvm_escape(host->name, -1);

    return virNetworkUpdate(side->network, command, VIR_NETWORK_SECTION_DNS_HOST, -1, xml, side->flag) == 0 ||
           nat_fail(error, "network '%s': cannot %s '%s'", network,
                    command == VIR_NETWORK_UPDATE_COMMAND_DELETE ? "remove" : "enter", shown);
}

static gboolean same_name(const NatHost *host, const char *name)
{
    return g_ascii_strcasecmp(host->name, name) == 0;
}

static const NatHost *find_by_name(const GPtrArray *hosts, const char *name)
{
    for (guint i = 0; i < hosts->len; i++)
        if (same_name(hosts->pdata[i], name))
            return hosts->pdata[i];
    return NULL;
}

static const NatHost *find_by_address(const GPtrArray *hosts, guint32 address)
{
    for (guint i = 0; i < hosts->len; i++)
        if (((const NatHost *)hosts->pdata[i])->address == address)
            return hosts->pdata[i];
    return NULL;
}

static gboolean side_enter(const Side *side, const NatHost *host, GError **error)
{
    gboolean there = FALSE;

    for (guint i = 0; i < side->held->dns->len; i++) {
        const NatHost *other = side->held->dns->pdata[i];
        gboolean name = same_name(other, host->name);
        gboolean address = other->address == host->address;

        if (name && address)
            there = TRUE;
        else if ((name || address) && !side_update(side, VIR_NETWORK_UPDATE_COMMAND_DELETE, other, error))
            return FALSE;
    }
    return there || side_update(side, VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, host, error);
}

static gboolean side_remove(const Side *side, const char *name, GError **error)
{
    for (guint i = 0; i < side->held->dns->len; i++)
        if (same_name(side->held->dns->pdata[i], name) &&
            !side_update(side, VIR_NETWORK_UPDATE_COMMAND_DELETE, side->held->dns->pdata[i], error))
            return FALSE;
    return TRUE;
}

/* The host of DHCP whose address this name has in DNS, or NULL. */
static const NatHost *find_taken(const Side *live, const Side *config, const char *name)
{
    const NatHost *entry = find_by_name(live->held->dns, name);

    if (!entry)
        entry = find_by_name(config->held->dns, name);
    return entry ? find_by_address(live->held->dhcp, entry->address) : NULL;
}

/* The host of DHCP with the lowest address that nobody has, or NULL. */
static const NatHost *find_free(const Side *live, const Side *config)
{
    const NatHost *lowest = NULL;

    for (guint i = 0; i < live->held->dhcp->len; i++) {
        const NatHost *host = live->held->dhcp->pdata[i];

        if (host->mac && (!lowest || host->address < lowest->address) && !find_by_address(live->held->dns, host->address) &&
            !find_by_address(config->held->dns, host->address))
            lowest = host;
    }
    return lowest;
}

gboolean nat_hosts_enter(virNetworkPtr network, const char *name, char **ret_mac, char **ret_address, GError **error)
{
    g_auto(Side) live = {0};
    g_auto(Side) config = {0};

    if (!side_load(&live, network, VIR_NETWORK_UPDATE_AFFECT_LIVE, error) ||
        !side_load(&config, network, VIR_NETWORK_UPDATE_AFFECT_CONFIG, error))
        return FALSE;

    const NatHost *taken = find_taken(&live, &config, name);
    const NatHost *host = taken && taken->mac ? taken : find_free(&live, &config);

    if (!host) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_NETWORK, "network '%s' has no free address for guest '%s': all %u are guests'",
                    virNetworkGetName(network), name, live.held->dhcp->len);
        return FALSE;
    }
    NatHost entry = {.name = (char *)name, .address = host->address};

    if (!side_enter(&config, &entry, error) || !step_reached("start.name", error) || !side_enter(&live, &entry, error)) {
        if (!taken)
            nat_hosts_remove(network, name, NULL);
        return FALSE;
    }
    *ret_mac = g_strdup(host->mac);
    *ret_address = ipv4_format(host->address);
    return TRUE;
}

/* Loads the stored (0) or the running (1) half; `held` is NULL where there is none. */
static gboolean side_load_if_there(Side *side, virNetworkPtr network, int half, GError **error)
{
    return (half ? virNetworkIsActive(network) : virNetworkIsPersistent(network)) != 1 ||
           side_load(side, network, half ? VIR_NETWORK_UPDATE_AFFECT_LIVE : VIR_NETWORK_UPDATE_AFFECT_CONFIG, error);
}

gboolean nat_hosts_remove(virNetworkPtr network, const char *name, GError **error)
{
    gboolean good = TRUE;

    for (int half = 0; good && half < 2; half++) {
        g_auto(Side) side = {0};

        good = side_load_if_there(&side, network, half, error) && (!side.held || side_remove(&side, name, error));
    }
    return good;
}

gboolean nat_hosts_sweep(virNetworkPtr network, gboolean (*known)(const char *name, gpointer data), gpointer data, GError **error)
{
    gboolean good = TRUE;

    for (int half = 0; good && half < 2; half++) {
        g_auto(Side) side = {0};

        good = side_load_if_there(&side, network, half, error);
        for (guint i = 0; good && side.held && i < side.held->dns->len; i++) {
            const NatHost *host = side.held->dns->pdata[i];

            if (find_by_address(side.held->dhcp, host->address) && !known(host->name, data))
                good = side_update(&side, VIR_NETWORK_UPDATE_COMMAND_DELETE, host, error);
        }
    }
    return good;
}
