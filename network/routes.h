/*
 * routes.h: what IPv4 this host reaches already.
 *
 * Input: the kernel's routing tables and addresses (rtnetlink, in the caller's network namespace). Output: subnets that a
 * new network may not overlap. Threads: any; blocks for a netlink dump.
 */
#pragma once

#include "ipv4.h"

/* Appends (Subnet) to `taken` all routes but default ones, in every table and of every type (a blackhole is somebody's
 * intention too), and the nets of all addresses, of links that are down as well. NETWORK where netlink fails. */
gboolean routes_append(GPtrArray *taken, GError **error);
