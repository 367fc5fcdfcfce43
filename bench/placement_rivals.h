/*
 * placement_rivals.h: the two rules that placement is measured against, written plainly.
 *
 * Both give whole cores exclusively and memory on the nodes of the cores, as hvm does, and differ in what they choose.
 */
#pragma once

#include "placement.h"

/* Chooses cores, memory and devices for `spec` and returns what to put into the ledger, or NULL where it finds nothing. */
typedef LedgerEntry *(*PlaceFunc)(const Host *host, const Spec *spec, const Ledger *ledger, const char *uuid);

LedgerEntry *place_hvm(const Host *host, const Spec *spec, const Ledger *ledger, const char *uuid);

/* The first node, by number, that has room for all; else the first cores, by number, wherever they are. The first free
 * device of the kind. */
LedgerEntry *place_first_fit(const Host *host, const Spec *spec, const Ledger *ledger, const char *uuid);

/* As Nova fits a guest of N cells (hw:numa_nodes; here as few as an empty node needs): nodes sorted by free memory, then
 * by free CPUs, then (for a guest with devices) by devices, most first; the first permutation in which each cell fits
 * its node; whole cores, lowest first. Equal cells only. nova/virt/hardware.py, numa_fit_instance_to_host(). */
LedgerEntry *place_nova(const Host *host, const Spec *spec, const Ledger *ledger, const char *uuid);

/* The same, with guests of more cells tried where the fewest do not fit. Nova itself does not. */
LedgerEntry *place_nova_more_cells(const Host *host, const Spec *spec, const Ledger *ledger, const char *uuid);
