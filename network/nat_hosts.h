/*
 * nat_hosts.h: the guests' entries in the DHCP and DNS of a libvirt network.
 *
 * libvirt keeps a network twice: as it runs and as it is stored. Each half is read and changed for itself, because an
 * administrator may have changed either. Threads: any, one at a time per network. Blocks on libvirt. Errors: NETWORK.
 */
#pragma once

#include "nat_xml.h"

#include <libvirt/libvirt.h>

/* virt_error() under the code NETWORK. Always FALSE. */
gboolean nat_fail(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* virNetworkGetXMLDesc(), read. NULL on failure. Caller frees. */
NatNetwork *nat_read(virNetworkPtr network, unsigned flags, GError **error);

/* Enters `host` (MAC and name) in both halves of a network that runs and is stored, and sets its address: the one that
 * this MAC has, or the lowest free one. An entry of its name under another MAC is an old guest's, and replaced. On
 * failure a host that is new is in neither half. */
gboolean nat_hosts_enter(virNetworkPtr network, NatHost *host, GError **error);

/* Removes what this MAC has, from whichever halves there are. TRUE where there is nothing. */
gboolean nat_hosts_remove(virNetworkPtr network, const char *mac, GError **error);
