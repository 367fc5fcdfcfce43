/*
 * agent_boot.h: what an image needs for [boot] init=agent, made from the kernel that was installed in its root.
 *
 * initrd-agent is a cpio archive with hvm-init (vmm/agent/init.h), the few modules that the root disk, the agent's port and the
 * network card need, and the order to load them in. It is not compressed: the kernel takes longer to unpack it than QEMU to
 * load it. vmlinux is the kernel out of its bzImage, entered by PVH. Private to the image build.
 */
#pragma once

#include "image_build_private.h"

/* Makes staging/initrd-agent, and staging/vmlinux where the kernel can be entered so. `version` is the kernel's. Where this
 * kernel cannot do it, the image goes without, and the progress says why; only a template that asks for init=agent then fails
 * (INVALID). STORAGE, HOST as image_build(). */
gboolean agent_boot_make(Build *build, int root_fd, const char *version, GError **error);

/* The list of modules to load for `wanted` names, each after what it needs, without those that are built in. `dep` and `builtin`
 * are the texts of modules.dep and modules.builtin (depmod(8)). Adds paths below the modules' folder to `list`, each once. FALSE
 * where one is neither. */
gboolean agent_boot_list_modules(const char *dep, const char *builtin, const char *const *wanted, GPtrArray *list,
                                 const char **ret_missing);

/* Appends a file to a cpio archive of the format "newc" (initramfs buffer format, in the kernel's documentation), and its end. */
void cpio_append(GByteArray *archive, const char *name, guint32 mode, gconstpointer data, gsize length);
void cpio_finish(GByteArray *archive);

/* Unpacks the kernel in the bzImage `from` to `to`. FALSE with ret_why (static or NULL on an error) where it cannot be: an unknown
 * compression, a tool that is missing, or no PVH entry. */
gboolean vmlinux_unpack(Build *build, const char *from, const char *to, char **ret_why, GError **error);
