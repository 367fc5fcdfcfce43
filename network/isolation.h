/*
 * isolation.h: a routing rule that keeps the owners' NAT networks apart.
 *
 * libvirt's packet filter does so too, but takes its rules away and puts them back when libvirtd starts or a firewall is reloaded,
 * and what was begun in between is let through as established. The rule is "from all iif BRIDGE to POOL prohibit" (see
 * ip-rule(8)): what comes from one network's guests goes to no other network of the pool. The host's own addresses come
 * before it, in the local table. It is known by the bridge's name and may outlive the bridge.
 * Threads: any. Errors: NETWORK.
 */
#pragma once

#include "ipv4.h"

/* TRUE where the rule is there already. */
gboolean isolation_add(const char *bridge, const Subnet *pool, GError **error);

/* Removes all rules of this bridge. TRUE where there is none. */
gboolean isolation_remove(const char *bridge, GError **error);
