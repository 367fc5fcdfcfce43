/*
 * vm.h: the runtime which makes a guest a libvirt domain on QEMU (see runtime.h).
 * Threads: any.
 */
#pragma once

#include "runtime.h"
#include "virt.h"

/* `virt` must outlive it. */
Runtime *vm_runtime_new(Virt *virt);
