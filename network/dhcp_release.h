/*
 * dhcp_release.h: gives back a guest's DHCP lease in its stead.
 *
 * dnsmasq keeps a lease's address and name from others until it runs out, and guests that are destroyed do not say good-bye. The
 * message is RFC 2131's DHCPRELEASE, sent from this host as by dnsmasq's dhcp_release(1). Threads: any; does not block.
 */
#pragma once

#include <glib.h>

/* Tells the server at `server` on link `bridge` (addresses in host byte order) that `mac` ("52:54:00:0a:1b:2c") leaves
 * `address`. Nothing tells whether it was heard: the lease ends by itself in any case. */
void dhcp_release(const char *bridge, guint32 server, guint32 address, const char *mac);
