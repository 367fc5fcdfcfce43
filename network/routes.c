#include "routes.h"

#include "hvm_error.h"

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/route.h>
#include <string.h>

typedef struct nl_cache NlCache;
typedef struct nl_sock NlSock;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NlSock, nl_socket_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NlCache, nl_cache_free)

static gboolean fail(GError **error, const char *what, int code)
{
    g_set_error(error, HVM_ERROR, HVM_ERROR_NETWORK, "cannot read the host's %s: %s", what, nl_geterror(code));
    return FALSE;
}

/* FALSE for what is no IPv4 address. */
static gboolean get_ipv4(const struct nl_addr *address, guint32 *ret_address)
{
    guint32 value = 0;

    if (!address || nl_addr_get_family(address) != AF_INET || nl_addr_get_len(address) != sizeof value)
        return FALSE;
    memcpy(&value, nl_addr_get_binary_addr(address), sizeof value);
    *ret_address = ntohl(value);
    return TRUE;
}

static void name_link(int index, char name[static IF_NAMESIZE])
{
    if (!if_indextoname((unsigned)index, name))
        g_snprintf(name, IF_NAMESIZE, "#%d", index);
}

static char *describe_route(struct rtnl_route *route, guint32 address, unsigned prefix)
{
    struct rtnl_nexthop *hop = rtnl_route_get_nnexthops(route) > 0 ? rtnl_route_nexthop_n(route, 0) : NULL;
    g_autofree char *text = ipv4_format(address);
    char type[24] = "", link[IF_NAMESIZE] = "";

    if (hop && rtnl_route_nh_get_ifindex(hop) > 0) {
        name_link(rtnl_route_nh_get_ifindex(hop), link);
        return g_strdup_printf("route %s/%u dev %s", text, prefix, link);
    }
    return g_strdup_printf("%s route %s/%u", nl_rtntype2str(rtnl_route_get_type(route), type, sizeof type), text, prefix);
}

static void take_route(struct nl_object *object, void *data)
{
    struct rtnl_route *route = (struct rtnl_route *)object;
    struct nl_addr *destination = rtnl_route_get_dst(route);
    unsigned prefix = destination ? nl_addr_get_prefixlen(destination) : 0;
    guint32 address = 0;

    if (rtnl_route_get_type(route) == RTN_MULTICAST || prefix == 0 || !get_ipv4(destination, &address))
        return;
    g_ptr_array_add(data, subnet_new(address, prefix, describe_route(route, address, prefix)));
}

static void take_address(struct nl_object *object, void *data)
{
    struct rtnl_addr *entry = (struct rtnl_addr *)object;
    struct nl_addr *local = rtnl_addr_get_local(entry);
    unsigned prefix = local ? nl_addr_get_prefixlen(local) : 0;
    char link[IF_NAMESIZE] = "";
    guint32 address = 0;

    if (prefix == 0 || !get_ipv4(local, &address))
        return;
    name_link(rtnl_addr_get_ifindex(entry), link);

    g_autofree char *text = ipv4_format(address);

    g_ptr_array_add(data, subnet_new(address, prefix, g_strdup_printf("address %s/%u of %s", text, prefix, link)));
}

gboolean routes_append(GPtrArray *taken, GError **error)
{
    g_autoptr(NlSock) socket = nl_socket_alloc();
    g_autoptr(NlCache) routes = NULL;
    g_autoptr(NlCache) addresses = NULL;
    int code = nl_connect(socket, NETLINK_ROUTE);

    if (code < 0)
        return fail(error, "routes", code);
    code = rtnl_route_alloc_cache(socket, AF_INET, 0, &routes);
    if (code < 0)
        return fail(error, "routes", code);
    code = rtnl_addr_alloc_cache(socket, &addresses);
    if (code < 0)
        return fail(error, "addresses", code);
    nl_cache_foreach(routes, take_route, taken);
    nl_cache_foreach(addresses, take_address, taken);
    return TRUE;
}
