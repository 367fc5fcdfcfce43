/*
 * passthrough_xml.h: PCI devices of the node in a domain, and the buses that they hang from.
 *
 * Input: a placement's devices, each with its guest cell. Output: elements of <devices>.
 * Threads: any.
 */
#pragma once

#include "placement.h"

#include <libxml/tree.h>

/* Adds to <devices> a <hostdev> for each device of the placement. On q35 each stands in a root port of its own below a
 * pcie-expander-bus that belongs to its guest cell. */
void passthrough_xml_add(xmlNode *devices, const Placement *placement, const char *machine);
