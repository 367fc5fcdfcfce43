/*
 * nat_xml.h: the XML of NAT networks, both ways.
 *
 * Pure: no I/O. Written as libxml2 nodes, never printed. What is read comes from libvirt and may have been edited by
 * an administrator: what is not understood is passed over, not trusted. Threads: any.
 */
#pragma once

#include "ipv4.h"

#include <sys/types.h>

/* A host of DHCP (mac, address) or of DNS (name, address). */
typedef struct {
    char *mac;  /* lower case; NULL in DNS, or where DHCP tells it by its name or DUID */
    char *name; /* in DNS */
    guint32 address;
} NatHost;

/* What hvm wants to know of a libvirt network. */
typedef struct {
    char *label; /* NULL: hvm did not make it */
    uid_t owner_uid;
    char *bridge;       /* or NULL */
    GPtrArray *subnets; /* of Subnet: its IPv4 nets, then its static routes */
    GPtrArray *dhcp;    /* of NatHost */
    GPtrArray *dns;     /* of NatHost, one for each name */
} NatNetwork;

void nat_network_free(NatNetwork *network);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NatNetwork, nat_network_free)

/* The whole network, without guests. `subnet` is a /24, of which .1 is the host and .2 to .254 are DHCP's: the address that ends in
 * N is that of MAC 52:54:00:UU:UU:NN, UU:UU being the last 16 bits of the owner's uid. Caller frees. */
char *nat_xml_write(const char *name, const char *bridge, const char *label, uid_t owner_uid, const Subnet *subnet);

/* The <host> element of the section DNS_HOST of virNetworkUpdate(). Caller frees. */
char *nat_xml_dns_host(const NatHost *host);

/* Reads any libvirt network's XML. NETWORK where it is none. Caller frees. */
NatNetwork *nat_xml_read(const char *xml, GError **error);
