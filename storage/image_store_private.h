/*
 * image_store_private.h: what the files of the image store share.
 */
#pragma once

#include "image_store.h"

#define STAGING_PREFIX ".staging-"
#define DISK "root.qcow2" /* of a guest */

struct ImageStore {
    char *path;
    char *images_path;
    char *guests_path;
    char *unfinished_path;
    uid_t qemu_uid;
    gid_t qemu_gid;
    GMutex lock;
    GHashTable *blanks; /* see image_store_overlay.c; under the lock */
};

/* Sets STORAGE: "image store PATH is full WHAT" for ENOSPC and EDQUOT, else "cannot WHAT: strerror". `what` is
 * a clause with a verb: "write /var/lib/hvm/...". FALSE always. */
gboolean image_store_fail(const ImageStore *store, int number, GError **error, const char *format, ...) G_GNUC_PRINTF(4, 5);

/* Opens a folder of the store for the *at() calls; -1 and `error`. The caller closes. */
int image_store_open_folder(const ImageStore *store, const char *path, GError **error);

/* Takes the store's lock, waiting for it; -1 and `error`. Released by close(). */
int image_store_lock(const ImageStore *store, GError **error);

/* fsync(2) of a file or a folder. */
gboolean image_store_sync(const ImageStore *store, const char *path, GError **error);

/* Whether `revision` has the form of image_store.h. */
gboolean image_revision_check(const char *revision, GError **error);

/* Order of two revisions: by time, then by number. */
int image_revision_compare(const char *a, const char *b);

/* Makes the overlay `path`, which is not there yet, on the image's root.raw. On failure something may stay. */
gboolean image_store_make_overlay(ImageStore *store, const Image *image, const char *path, guint64 disk_bytes, GError **error);

/* image_store_memory.c: the guest's folder on /dev/shm, made; removed (TRUE where it is not there); those of unknown guests removed. */
void image_store_take_memory(const ImageStore *store);  /* at the start: so that nobody else has the store's folder there */
void image_store_leave_memory(const ImageStore *store);
char *image_store_make_memory_folder(ImageStore *store, const char *uuid, GError **error);
gboolean image_store_destroy_memory(ImageStore *store, const char *uuid, GError **error);
gboolean image_store_recover_memory(ImageStore *store, gboolean (*known)(const char *uuid, gpointer data), gpointer data,
                                    GError **error);

/* An empty table for ImageStore's blanks. */
GHashTable *image_store_new_blanks(void);
