/*
 * cpu_xml.h: what a guest sees of its processor: features, CPU model, topology, caches, NUMA cells and clock.
 *
 * Input: a RuntimeGuest; without a placement only what does not depend on where. Output: elements of <domain>. What of it is
 * KVM's alone is left out under TCG.
 * Threads: any; pure.
 */
#pragma once

#include "runtime.h"

#include <libxml/tree.h>

/* Adds <features>, <cpu> and <clock> to <domain>. */
void cpu_xml_add(xmlNode *domain, const RuntimeGuest *guest);

/* Whether a vCPU's APIC id is above what xAPIC has (254): it needs x2APIC, and interrupts reach it only through remapping (QEMU's
 * "intel-iommu,eim=on", which wants the interrupt controller split); Linux leaves it out otherwise. QEMU's TCG has no x2APIC before 9.0. */
gboolean cpu_xml_needs_x2apic(const RuntimeGuest *guest);
