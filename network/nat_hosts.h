/*
 * nat_hosts.h: which guest has which address of a NAT network.
 *
 * A network's DHCP holds a fixed MAC for each address from the start; a guest takes one by an entry of its name in the
 * network's DNS. Entering a guest is so one change of DNS, which libvirt makes in some ms. A change of DHCP would take
 * it 0.4 s, for which it takes the network's packet filter away.
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

/* Enters `name` in both halves of a network that runs and is stored, with the address that this name has, or the lowest free
 * one. ret_mac and ret_address get the MAC and address (caller frees). On failure a name that is new is in neither half. */
gboolean nat_hosts_enter(virNetworkPtr network, const char *name, char **ret_mac, char **ret_address, GError **error);

/* Removes `name` from whichever halves there are. TRUE where it is in none. */
gboolean nat_hosts_remove(virNetworkPtr network, const char *name, GError **error);

/* Removes each name for which `known` says FALSE and which has an address of DHCP's: others are an administrator's. */
gboolean nat_hosts_sweep(virNetworkPtr network, gboolean (*known)(const char *name, gpointer data), gpointer data, GError **error);
