/*
 * ipv4.h: IPv4 subnets, and which of them is free.
 *
 * Pure: no I/O. Addresses are in host byte order. Threads: any.
 */
#pragma once

#include <glib.h>

typedef struct {
    guint32 address; /* of the net: its host bits are 0 */
    unsigned prefix; /* 0 to 32 */
    char *what;      /* for messages: "route 10.0.0.0/8 dev tun0"; may be NULL */
} Subnet;

/* `what` is taken over. Host bits of `address` are cleared. */
Subnet *subnet_new(guint32 address, unsigned prefix, char *what);
void subnet_free(Subnet *subnet);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Subnet, subnet_free)

/* Parses a dotted quad: four decimal numbers of 0 to 255 without leading zeros. */
gboolean ipv4_parse(const char *text, guint32 *ret_address);

/* "10.88.0.1". Caller frees. */
char *ipv4_format(guint32 address);

/* Parses a pool of private networks "10.88.0.0/16": a prefix of 8 to 24, no host bits, and no range that means
 * something else (0/8, 127/8, 169.254/16, 224/3). INVALID quoting `text`. */
Subnet *subnet_parse_pool(const char *text, GError **error);

gboolean subnet_overlaps(const Subnet *a, const Subnet *b);

/* The lowest /24 in `pool` that overlaps none of `taken` (of Subnet). NETWORK naming the pool and what the last candidate
 * collides with. Caller frees. */
Subnet *subnet_pick(const Subnet *pool, const GPtrArray *taken, GError **error);
