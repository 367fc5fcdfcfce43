/*
 * template_keys.h: the table of everything that a template or a request may set.
 *
 * See base/key.h for what is made from it. Its order is the order of `hvm template show` and of the manual.
 */
#pragma once

#include "key.h"

/* What a device may be asked for by, as vmm/placement matches it. */
#define DEVICE_KINDS "gpu|nic|ib|nvme|vf"

/* Ended by a row with group NULL. */
extern const Key template_keys[];
