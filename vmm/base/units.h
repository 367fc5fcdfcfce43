/*
 * units.h: sizes as people write them, and names that are safe to use.
 *
 * Sizes are bytes in guint64. Text is a whole number and one of K, M, G, T (powers of 1024; an `i`,
 * a `B` or `iB` behind is allowed: 4G, 4GiB, 4GB are the same), or `B`, or no unit for bytes.
 * PCI addresses are "0000:41:00.0": domain, bus, slot, function in hexadecimal, as sysfs names them.
 * Threads: any.
 */
#pragma once

#include <glib.h>

#define HVM_KIB (G_GUINT64_CONSTANT(1) << 10)
#define HVM_MIB (G_GUINT64_CONSTANT(1) << 20)
#define HVM_GIB (G_GUINT64_CONSTANT(1) << 30)

/* The longest name of a guest, template or network: a DNS label (RFC 1123). */
#define HVM_NAME_MAX 63

/* Parses a size. INVALID where it is no size or does not fit 63 bits; the message quotes `text`. */
gboolean size_parse(const char *text, guint64 *ret_bytes, GError **error);

/* The shortest exact text that size_parse() reads back: 4294967296 -> "4G", 1536 -> "1536B". Caller frees. */
char *size_format(guint64 bytes);

/* For people: three digits at most, "3.5 GiB". Not read back. Caller frees. */
char *size_format_rounded(guint64 bytes);

/* Checks a name: 1 to HVM_NAME_MAX characters of a-z, 0-9 and '-', beginning and ending with a letter
 * or digit (a DNS label in lower case: it becomes a host name, a path and an XML attribute).
 * `what` is the noun of the message: "guest name". INVALID otherwise, quoting the name escaped. */
gboolean name_check(const char *name, const char *what, GError **error);

/* Takes a PCI address in either case, with its domain or without ("41:00.0" is in domain 0), and gives it as sysfs writes it;
 * domains may have more than four digits (Intel VMD counts from 10000). FALSE where it is none. Caller frees. */
gboolean pci_address_parse(const char *text, char **ret_address);

/* Whether `name` can be that of a network interface or InfiniBand device: 1 to HVM_NAME_MAX printable ASCII characters without
 * white space, '/', ':', ',' and '='; neither "." nor "..". */
gboolean interface_check(const char *name);
