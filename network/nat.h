/*
 * nat.h: a NAT network with DHCP and DNS for the guests of one owner.
 *
 * Each owner has a network of their own, so that guests of different owners cannot reach each other (libvirt's packet filter and a
 * routing rule of hvm's prevent it) and names of one owner's guests are not told to another's. It is a libvirt
 * network "hvm-nat-UID" on bridge "hvm-nUID"; its metadata says that hvm made it. Made when the first guest of the owner starts,
 * removed with nat_release() when the last guest of that owner is destroyed.
 * Subnet: the first /24 of `pool` that overlaps no route (libnl) and no libvirt network. A guest's name is its entry in the network's
 * DNS (NAME, NAME.hvm), and takes one of the addresses, each of which belongs to one MAC by the network's DHCP. A
 * guest cannot take another's name. What an administrator stopped, undefined or deleted is made anew at the next attach.
 * libvirt sets net.ipv4.ip_forward to 1 when such a network starts, and leaves it so.
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

/* Makes the owner's network if it is missing, starts it if it is down, and adds (or finds) the guest's entry. ret_mac gets the
 * MAC that its interface must have, ret_address its IPv4 address (caller frees). Both stay the same until nat_detach(), unless the
 * network had to move to another subnet while it was down. NETWORK naming the subnet and what it collides with, or the
 * dnsmasq failure. */
gboolean nat_attach(Nat *nat, virConnectPtr connect, uid_t owner_uid, const char *guest_name, char **ret_mac, char **ret_address,
                    GError **error);

/* What a guest that makes no DHCP request must be told of the address that nat_attach() gave: "10.88.0.2/24,10.88.0.1", with the
 * gateway, which is its DNS server too. NULL for what is no address. Caller frees. */
char *nat_describe_address(const char *address);

/* Removes the guest's entry. TRUE where it was not there. */
gboolean nat_detach(Nat *nat, virConnectPtr connect, uid_t owner_uid, const char *guest_name, GError **error);

/* Removes the entries of guests of the owner for whose names `known` says FALSE, so that their addresses are free again: for recovery. TRUE
 * where there is no network. `known` is called with the mutex held. */
gboolean nat_sweep(Nat *nat, virConnectPtr connect, uid_t owner_uid, gboolean (*known)(const char *guest_name, gpointer data),
                   gpointer data, GError **error);

/* Destroys and undefines the owner's network, if this hvmd made it. TRUE where it is not there, and, leaving it alone, where
 * a guest that nat_attach() entered in this process has not been detached: another guest of the owner that starts
 * meanwhile keeps its network. */
gboolean nat_release(Nat *nat, virConnectPtr connect, uid_t owner_uid, GError **error);

/* All of hvm's networks with this label: names, sorted (caller frees with g_strfreev), for recovery. */
char **nat_list(Nat *nat, virConnectPtr connect, GError **error);
