/*
 * image_conf.h: an image's description, image.conf, written by publish and read by find.
 *
 * Key-file text: [image] has the template, revision, digest and the exact sizes of the files; [os] the settings, and
 * [origin] where each of them came from. Private to storage. Threads: any.
 */
#pragma once

#include "image_store.h"

/* The files of an image, with the key of image.conf that tells each one's size. */
typedef struct {
    const char *name;
    const char *key;
    gboolean optional; /* an image without it has no such key */
} ImageFile;

enum { IMAGE_FILES = 5 };
extern const ImageFile image_files[IMAGE_FILES];

/* The text of image.conf for an image with files of these sizes, in the order of image_files[]; 0: it has no such file. Caller
 * frees. */
char *image_conf_format(const Image *image, const guint64 bytes[IMAGE_FILES]);

/* Reads folder/image.conf and checks it and the files it tells of against each other: regular, root's, not writable by
 * anyone, of the size it says. STORAGE naming the file, what was wanted and found. */
Image *image_conf_load(const char *folder, const char *template_name, const char *revision, GError **error);

/* "sha256:HEX" of a file; holes are hashed as the zeros they stand for, without reading them. STORAGE; G_IO_ERROR_CANCELLED
 * is not given: 1 GiB takes about 4 s. Caller frees. */
char *image_conf_digest(const char *path, GError **error);
