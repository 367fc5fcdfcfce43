/*
 * nat.h: a NAT network with DHCP and DNS for the guests of one owner.
 *
 * Each owner has a network of their own, so that guests of different owners cannot reach each other (libvirt's rules
 * reject traffic between NAT networks) and names of one owner's guests are not told to another's. It is a libvirt network
 * "hvm-nat-UID" on bridge "hvm-nUID"; its metadata says that hvm made it. Made when the first guest of the owner starts,
 * removed with nat_release() when the last guest of that owner is destroyed.
 * Subnet: the first /24 of `pool` that overlaps no route (libnl) and no libvirt network. Each guest gets a fixed
 * address by its MAC (a dhcp host entry) and its name in DNS (NAME.hvm), so that a guest cannot take another's name.
 * Threads: any; one mutex inside serialises changes. Blocks on libvirt.
 */
#pragma once

#include <libvirt/libvirt.h>

#include <glib.h>
#include <sys/types.h>

typedef struct Nat Nat;

/* `pool`: "10.88.0.0/16": IPv4 with a prefix of 8 to 24. `label`: what marks this hvmd's networks apart from another's
 * (the store's path). INVALID. */
Nat *nat_new(const char *pool, const char *label, GError **error);
void nat_free(Nat *nat);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Nat, nat_free)

/* "hvm-nat-1000". Caller frees. */
char *nat_network_name(uid_t owner_uid);

/* Makes the owner's network if it is missing, starts it if it is down, and adds (or finds) the guest's entry. ret_address gets
 * the IPv4 address (caller frees). NETWORK naming the subnet and what it collides with, or the dnsmasq failure. */
gboolean nat_attach(Nat *nat, virConnectPtr connect, uid_t owner_uid, const char *guest_name, const char *mac,
                    char **ret_address, GError **error);

/* Removes the guest's entry. TRUE where it was not there. */
gboolean nat_detach(Nat *nat, virConnectPtr connect, uid_t owner_uid, const char *guest_name, const char *mac, GError **error);

/* Destroys and undefines the owner's network, if this hvmd made it. TRUE where it is not there, and, leaving it alone, where
 * a guest that nat_attach() entered in this process has not been detached: another guest of the owner that starts
 * meanwhile keeps its network. */
gboolean nat_release(Nat *nat, virConnectPtr connect, uid_t owner_uid, GError **error);

/* All of hvm's networks with this label: names, sorted (caller frees with g_strfreev), for recovery. */
char **nat_list(Nat *nat, virConnectPtr connect, GError **error);

/* The guest's MAC: 52:54:00 and 24 bits of a hash of its UUID. Stable. Caller frees. */
char *nat_mac(const char *uuid);
