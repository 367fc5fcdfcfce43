/*
 * domain_xml.h: a guest and its placement -> libvirt domain XML.
 *
 * Input: a RuntimeGuest. With a placement, the XML pins every thread and binds every cell; without one (a guest
 * that is off) it says only what does not depend on where. Output: text that libvirt's schema accepts.
 * Two families: type='kvm' (host-passthrough, dedicated hints where nothing shares its PUs, cache and topology as the placement
 * says) and type='qemu' (TCG: cpu mode maximum, and none of what TCG refuses or silently drops).
 * Each element that is there for speed carries its reason where it is added (here, cpu_xml.c, passthrough_xml.c); what is left
 * out on purpose is named in docs/tuning.md.
 * Threads: any; pure.
 */
#pragma once

#include "runtime.h"

/* Caller frees. Never fails: a RuntimeGuest is complete and checked. */
char *domain_xml_build(const RuntimeGuest *guest);
