#include "template_keys.h"

#include "image_keys.h"
#include "units.h"

#define DISK_MAX (G_GUINT64_CONSTANT(64) << 40)
#define MEMORY_MAX (G_GUINT64_CONSTANT(64) << 40)

const Key template_keys[] = {
    {.group = "template", .key = "inherits", .type = KEY_NAME, .help = "template whose values are taken where this one sets none"},
    {.group = "template", .key = "description", .type = KEY_STRING, .help = "one line about the template"},

    {.group = "cpu", .key = "count", .type = KEY_UINT, .minimum = 1, .maximum = 4096, .fallback = "1",
     .option = "cpus", .argument = "N", .help = "number of vCPUs"},
    {.group = "cpu", .key = "smt", .type = KEY_CHOICE, .choices = "siblings|isolate|any", .fallback = "siblings",
     .option = "smt", .argument = "POLICY",
     .help = "hardware threads: whole cores, one thread a core with its siblings left idle, or any"},
    {.group = "cpu", .key = "numa", .type = KEY_UINT, .minimum = 1, .maximum = 1024, .choices = "auto", .fallback = "auto",
     .option = "numa", .argument = "N|auto", .help = "spread over exactly this many NUMA nodes; auto: as few as will do"},
    {.group = "cpu", .key = "sockets", .type = KEY_UINT, .minimum = 1, .maximum = 1024, .choices = "auto", .fallback = "auto",
     .option = "sockets", .argument = "N|auto", .help = "spread over exactly this many packages; auto: as few as will do"},
    {.group = "cpu", .key = "spread", .type = KEY_BOOL, .fallback = "false", .option = "spread",
     .help = "use as many NUMA nodes as the cores allow, for memory bandwidth"},
    {.group = "cpu", .key = "emulator", .type = KEY_CHOICE, .choices = "shared|dedicated", .fallback = "shared",
     .option = "emulator", .argument = "POLICY",
     .help = "QEMU's own threads: on housekeeping CPUs, or on a core of the guest's own"},

    {.group = "memory", .key = "size", .type = KEY_SIZE, .minimum = 64 * HVM_MIB, .maximum = MEMORY_MAX, .fallback = "1G",
     .option = "memory", .argument = "SIZE", .help = "memory, such as 4G"},
    {.group = "memory", .key = "pages", .type = KEY_CHOICE, .choices = "auto|4K|2M|1G", .fallback = "auto",
     .option = "pages", .argument = "SIZE", .help = "page size; auto: the largest that the node's pools have room for"},

    {.group = "disk root", .key = "size", .type = KEY_SIZE, .minimum = 64 * HVM_MIB, .maximum = DISK_MAX, .fallback = "8G",
     .option = "disk", .argument = "SIZE", .help = "size that the root disk and its file system are grown to"},

    {.group = "disk root", .key = "in-memory", .type = KEY_CHOICE, .choices = "auto|yes|no", .fallback = "auto",
     .option = "disk-in-memory", .argument = "WHEN",
     .help = "what an ephemeral guest writes is kept in memory; auto: where /dev/shm and the free memory have room for all of it"},

    {.group = "network default", .key = "kind", .type = KEY_CHOICE, .choices = "nat|none", .fallback = "nat",
     .option = "network", .argument = "KIND", .help = "network: nat (with DHCP and DNS), or none"},

    {.group = "device *", .key = "kind", .type = KEY_CHOICE, .choices = DEVICE_KINDS,
     .help = "any free device of this kind: a GPU, an Ethernet or InfiniBand adapter, an NVMe drive, a virtual function"},
    {.group = "device *", .key = "address", .type = KEY_PCI, .help = "the device at this PCI address"},
    {.group = "device *", .key = "interface", .type = KEY_INTERFACE,
     .help = "the device of this interface of the node or, where it has virtual functions, a free one of those"},
    {.group = "device *", .key = "locality", .type = KEY_CHOICE, .choices = "any|preferred|required", .fallback = "preferred",
     .help = "whether the guest has to be on the device's NUMA node: it must, it is if that costs no further node, or it need not"},

    {.group = "boot", .key = "accel", .type = KEY_CHOICE, .choices = "auto|kvm|tcg", .fallback = "auto", .option = "accel",
     .argument = "WHICH", .help = "accelerator; auto: KVM where a probe shows that it accelerates, else TCG"},
    {.group = "boot", .key = "autostart", .type = KEY_BOOL, .fallback = "false", .option = "autostart",
     .help = "start the guest when the node boots"},
    {.group = "boot", .key = "timeout", .type = KEY_UINT, .minimum = 1, .maximum = 3600, .fallback = "180",
     .option = "boot-timeout", .argument = "SECONDS", .help = "how long the guest may take until its agent answers"},
    {.group = "boot", .key = "init", .type = KEY_CHOICE, .choices = "system|agent", .option = "init", .argument = "WHICH",
     .help = "what the kernel starts: the whole system, or hvm's agent alone, which is far quicker (default: agent for run where the image "
             "can, else system)"},
    {.group = "boot", .key = "kaslr", .type = KEY_BOOL, .fallback = "false", .option = "kaslr",
     .help = "with init=agent too, boot the packed kernel, which moves to a random address first"},
    {.group = "boot", .key = "kernel-arguments", .type = KEY_STRING, .help = "more arguments for the guest's kernel"},

    IMAGE_OS_KEYS,

    {.group = "build", .key = "method", .type = KEY_CHOICE, .choices = "mmdebstrap", .help = "how the image is built"},
    {.group = "build", .key = "suite", .type = KEY_NAME, .help = "suite of the distribution: bookworm"},
    {.group = "build", .key = "packages", .type = KEY_STRING, .help = "packages to install, separated by white space"},
    {.group = "build", .key = "security", .type = KEY_BOOL, .fallback = "true",
     .help = "take the distribution's security updates too; false for a suite whose updates are archived"},
    {.group = "build", .key = "root-device", .type = KEY_STRING, .fallback = "/dev/vda",
     .help = "the root disk as the guest's kernel names it"},
    {0},
};
