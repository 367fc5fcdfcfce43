/*
 * metadata.h: what hvm keeps of a guest in its libvirt domain's <metadata>.
 *
 *   <hvm:guest xmlns:hvm="http://hvm1.io/xmlns/guest" version="1" store="/var/lib/hvm" owner="1000" group="1000"
 *              template="debian12" revision="20261123T101500Z" kvm="no" mac="..." address="...">
 *     <hvm:set name="cpu.count" origin="request">4</hvm:set>...
 *     <hvm:placement>{...}</hvm:placement>        only with a placement; counts only while the domain is active
 *   </hvm:guest>
 *
 * Read back it is untrusted input: whoever may edit domains may edit it.
 */
#pragma once

#include "runtime.h"
#include "xml.h"

#define METADATA_URI "http://hvm1.io/xmlns/guest"
#define METADATA_VERSION 1

/* Adds <hvm:guest> to a domain's <metadata> element. */
void metadata_add(xmlNode *metadata, const RuntimeGuest *guest);

/* Reads `text` (the element as virDomainGetMetadata gives it) for a domain of that name and UUID. NULL with INVALID where it is
 * not ours to touch: damaged, of a newer version. Paths and sockets are not part of it: the caller derives them. */
RuntimeGuest *metadata_read(const char *text, const char *name, const char *uuid, GError **error);
