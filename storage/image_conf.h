/*
 * image_conf.h: an image's description, image.conf, written by publish and read by find.
 *
 * Key-file text: [image] has the template, revision, digest and the exact sizes of the three files; [os] the settings, and
 * [origin] where each of them came from. Private to storage. Threads: any.
 */
#pragma once

#include "image_store.h"

/* The text of image.conf for an image whose files lie in `folder`. Caller frees. */
char *image_conf_format(const Image *image, guint64 kernel_bytes, guint64 initrd_bytes);

/* Reads folder/image.conf and checks it and the files it tells of against each other: regular, root's, not writable by
 * anyone, of the size it says. STORAGE naming the file, what was wanted and found. */
Image *image_conf_load(const char *folder, const char *template_name, const char *revision, GError **error);

/* "sha256:HEX" of a file; holes are hashed as the zeros they stand for, without reading them. STORAGE; G_IO_ERROR_CANCELLED
 * is not given: 1 GiB takes about 4 s. Caller frees. */
char *image_conf_digest(const char *path, GError **error);
