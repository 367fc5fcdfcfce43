/*
 * init.h: what the files of hvm-init share.
 *
 * hvm-init is process 1 of an initrd of hvm's own ([boot] init=agent): it loads the few modules that the root disk, the
 * agent's port and the network need, mounts the root, gives the guest its identity and becomes the agent. No udev, no
 * shell, no service manager.
 *
 * init.c (the order of it all) -> init_modules.c, init_root.c, init_network.c
 *
 * Input: the kernel's command line (root=, rootfstype=, systemd.hostname=, systemd.machine_id=, hvm.address=) and the lists
 * of modules in the initrd (/modules, /modules.network). On failure it says one line on the console and powers the machine
 * off, so that hvmd sees at once that it will not come up.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define INIT_AGENT "/usr/lib/hvm/hvm-agent"

/* Says "hvm-init: TEXT" on the console and powers off. */
_Noreturn void init_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same without ending: for what the guest can do without. */
void init_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Value of an argument of the kernel's, without quotes; the last one counts. False and `to` empty where it is not there. */
bool init_argument(const char *name, char *to, size_t size);
/* A short file as text without its last newline. False where it cannot be read. */
bool init_read(const char *path, char *to, size_t size);

/* --- init_modules.c --- */

/* Loads what a list file in the initrd names, a path a line, in that order. A module that is there already is good. A missing
 * list is empty. */
void init_load_modules(const char *list);

/* --- init_root.c --- */

/* /proc, /sys and /dev of the initrd. */
void init_mount_early(void);
/* Waits for the root disk, mounts it, moves into it with /proc, /sys and /dev, frees the initrd. */
void init_enter_root(void);
/* What a command expects beside its root: /dev/pts, /dev/shm, /run, /tmp, links in /dev. */
void init_mount_rest(void);
/* Host name and /etc/machine-id. */
void init_identify(void);

/* --- init_network.c --- */

/* Brings `lo` up. */
void init_loopback(void);
/* Address, route and resolver as hvm.address=ADDRESS/PREFIX,GATEWAY says; nothing where it is not given. Inside the root. */
void init_network(const char *setting);
