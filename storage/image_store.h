/*
 * image_store.h: where built templates and the guests' disks lie.
 *
 * A store is a folder, by default /var/lib/hvm, on one file system:
 *
 *   images/TEMPLATE/REVISION/{root.raw,vmlinuz,initrd,image.conf}    one image; all root's, 0444
 *   images/TEMPLATE/REVISION/{initrd-agent,vmlinux}                  where it can boot to the agent alone: see Image
 *   images/.staging-XXXXXX/                                          a build on its way
 *   guests/UUID/{root.qcow2,console.log,console.log.N}               what one guest owns
 *   unfinished/UUID                                                  a mark: guests/UUID is being made or removed, or is a `run`'s
 *   lock                                                             flock'd by builds and removals, and by a create while it enters its guest
 *
 * REVISION is the time of the build, 20261123T101500Z, with -N where two fall into one second. The newest is
 * what `create` takes. The store describes itself: there is no index beside it. An image is in use while
 * a guest's overlay names it as backing file: who uses it is asked of the caller (the guest table), because
 * only libvirt knows the guests.
 * Ownership: folders are root's, 0711 or narrower where nobody else has business; only paths derived from a
 * UUID inside the store are ever deleted, by dirfd and without following links.
 * Threads: any; the only mutable state which does not lie on disk is what a new overlay looks like, kept to copy it.
 */
#pragma once

#include "settings.h"

#include <sys/types.h>

typedef struct ImageStore ImageStore;

typedef struct {
    char *template_name;
    char *revision;
    char *folder;        /* absolute */
    char *root_path;     /* .../root.raw */
    char *kernel_path;   /* .../vmlinuz */
    char *initrd_path;   /* .../initrd */
    char *agent_initrd_path; /* .../initrd-agent, for [boot] init=agent; NULL where the image has none */
    char *vmlinux_path;  /* .../vmlinux, the same kernel unpacked, for a PVH boot; NULL where the image has none */
    char *digest;        /* "sha256:HEX" over root.raw */
    guint64 root_bytes;  /* virtual size of root.raw */
    guint64 disk_bytes;  /* what it occupies */
    Settings *settings;  /* what image.conf keeps for spec: the [os] group, origins "libosinfo ..." */
} Image;

/* Opens or makes the folders. `qemu_uid`, `qemu_gid`: the user that QEMU runs as, to whom overlays are given.
 * STORAGE where it cannot be made, is not a folder, or others than root and the caller may write to it. */
ImageStore *image_store_open(const char *path, uid_t qemu_uid, gid_t qemu_gid, GError **error);
void image_store_free(ImageStore *store);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageStore, image_store_free)
const char *image_store_path(const ImageStore *store);

void image_free(Image *image);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Image, image_free)

/* One image; `revision` NULL means the newest. Checks that the files are there, regular, root's and not truncated (size
 * as image.conf says). NOT_FOUND: "template 'debian12' has no image: build one with `hvm template build debian12`";
 * STORAGE where it is damaged, naming the file, the size wanted and found. */
Image *image_store_find(ImageStore *store, const char *template_name, const char *revision, GError **error);

/* All images, newest first within a template; damaged ones are left out. Of Image; caller unrefs. */
GPtrArray *image_store_list(ImageStore *store);

/* Removes one revision, or all of a template (revision NULL). `in_use` is asked for each revision and gives the name of
 * a guest that stands on it (caller frees) or NULL; BUSY naming it. NOT_FOUND. Held under the store's lock. */
gboolean image_store_remove(ImageStore *store, const char *template_name, const char *revision,
                            char *(*in_use)(const char *template_name, const char *revision, gpointer data), gpointer data,
                            GError **error);

/* Keeps image_store_remove() away until the returned descriptor is closed, and looks that the image found before is still there: whoever
 * enters a guest where `in_use` finds it in between can rely on its image. -1: NOT_FOUND where it was removed meanwhile, STORAGE. */
int image_store_hold(ImageStore *store, const char *template_name, const char *revision, GError **error);

/* A fresh staging folder inside the store (0700), to be published by image_store_publish() or removed by
 * image_store_discard(). It holds an flock for as long as it lives (ret_lock_fd, caller closes), so that recovery knows a
 * dead one from a live one. Caller frees the path. */
char *image_store_stage(ImageStore *store, int *ret_lock_fd, GError **error);
void image_store_discard(ImageStore *store, const char *staging);

/* Writes image.conf (digest, sizes, time, `settings`), makes the files root's and 0444, fsyncs and renames the folder
 * into place: until then there is no image, from then on there is a whole one. */
Image *image_store_publish(ImageStore *store, const char *staging, const char *template_name, const Settings *settings,
                           GError **error);

/* Clears dead staging folders, templates' folders without an image, and of unfinished guests those for which `known` says FALSE; the
 * others are finished from here on. A guest without a mark is never cleared: that nobody knows it may be libvirt's or the
 * configuration's fault. Called once at daemon start. */
gboolean image_store_recover(ImageStore *store, gboolean (*known)(const char *uuid, gpointer data), gpointer data,
                             GError **error);

/* Folders of guests that are finished, and for which `known` says FALSE: their paths, sorted. Caller frees with g_strfreev(). */
char **image_store_list_strays(ImageStore *store, gboolean (*known)(const char *uuid, gpointer data), gpointer data);

/* A guest's folder in the store: guests/UUID, 0711 root. `uuid` must be in canonical form (checked: INVALID). */
char *image_store_guest_folder(ImageStore *store, const char *uuid, GError **error);

/* Makes guests/UUID and in it root.qcow2: an overlay (extended_l2=on, cluster_size=128k, lazy_refcounts off) on the
 * image's root.raw, `disk_bytes` large (at least the image's size: INVALID "disk of 1 GiB is smaller than the image of
 * template debian12 (2 GiB)"), owned by QEMU's user, 0600. The guest is unfinished. Nothing is left behind on failure. */
gboolean image_store_create_guest(ImageStore *store, const char *uuid, const Image *image, guint64 disk_bytes,
                                  gboolean in_memory, GError **error);

/* Marks a guest unfinished, or takes the mark away; either may be so already. INVALID, STORAGE. */
gboolean image_store_mark_guest(ImageStore *store, const char *uuid, gboolean unfinished, GError **error);

/* Where the overlay lies; with `in_memory` on /dev/shm, in a folder of the store's own: image_store_destroy_guest() removes it
 * too, and image_store_recover() those of unknown guests. Caller frees. */
char *image_store_disk(const ImageStore *store, const char *uuid, gboolean in_memory);

/* Whether /dev/shm is a tmpfs with room for `bytes` and a safe folder of ours, and so much memory is available. STORAGE. */
gboolean image_store_check_memory(const ImageStore *store, guint64 bytes, GError **error);

/* Removes guests/UUID with all in it, by dirfd, following no link, crossing no file system, then its mark. TRUE where it is not there. */
gboolean image_store_destroy_guest(ImageStore *store, const char *uuid, GError **error);

/* Whether the folder's file system takes O_DIRECT (tried with a real open and read of an unlinked file), and whether
 * it can share extents (FICLONE). Cached by the caller. */
gboolean image_store_probe_direct_io(const char *folder);
gboolean image_store_probe_reflink(const char *folder);
