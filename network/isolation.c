#include "isolation.h"

#include "hvm_error.h"

#include <arpa/inet.h>
#include <linux/fib_rules.h>
#include <netlink/netlink.h>
#include <netlink/route/rule.h>

/* Before the main table's 32766. */
enum { PRIORITY = 1088 };

typedef struct nl_sock NlSock;
typedef struct nl_cache NlCache;
typedef struct nl_addr NlAddr;
typedef struct rtnl_rule RtnlRule;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NlSock, nl_socket_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NlCache, nl_cache_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NlAddr, nl_addr_put)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RtnlRule, rtnl_rule_put)

static gboolean fail(GError **error, const char *verb, const char *bridge, int code)
{
    g_set_error(error, HVM_ERROR, HVM_ERROR_NETWORK, "cannot %s the routing rule of %s: %s", verb, bridge, nl_geterror(code));
    return FALSE;
}

gboolean isolation_add(const char *bridge, const Subnet *pool, GError **error)
{
    guint32 address = htonl(pool->address);
    g_autoptr(NlSock) socket = nl_socket_alloc();
    g_autoptr(NlAddr) destination = nl_addr_build(AF_INET, &address, sizeof address);
    g_autoptr(RtnlRule) rule = rtnl_rule_alloc();
    int code = nl_connect(socket, NETLINK_ROUTE);

    nl_addr_set_prefixlen(destination, (int)pool->prefix);
    rtnl_rule_set_family(rule, AF_INET);
    rtnl_rule_set_iif(rule, bridge);
    rtnl_rule_set_dst(rule, destination);
    rtnl_rule_set_prio(rule, PRIORITY);
    rtnl_rule_set_action(rule, FR_ACT_PROHIBIT);
    if (code == 0)
        code = rtnl_rule_add(socket, rule, NLM_F_CREATE | NLM_F_EXCL);
    return code == 0 || code == -NLE_EXIST || fail(error, "add", bridge, code);
}

gboolean isolation_remove(const char *bridge, GError **error)
{
    g_autoptr(NlSock) socket = nl_socket_alloc();
    g_autoptr(NlCache) cache = NULL;
    int code = nl_connect(socket, NETLINK_ROUTE);

    if (code == 0)
        code = rtnl_rule_alloc_cache(socket, AF_INET, &cache);
    for (struct nl_object *object = code == 0 ? nl_cache_get_first(cache) : NULL; object && code == 0;
         object = nl_cache_get_next(object)) {
        struct rtnl_rule *rule = (struct rtnl_rule *)object;

        if (rtnl_rule_get_action(rule) == FR_ACT_PROHIBIT && g_strcmp0(rtnl_rule_get_iif(rule), bridge) == 0)
            code = rtnl_rule_delete(socket, rule, 0);
    }
    return code == 0 || fail(error, "remove", bridge, code);
}
