/*
 * image_build.h: make an image from a template.
 *
 * Input: a Template with [build], the agent's binary. Output: a new revision in the image store (storage/
 * image_store.h): root.raw (a partitionless ext4), vmlinuz, initrd and image.conf, and for [boot] init=agent, where the kernel can
 * do it, initrd-agent and vmlinux; all root's, 0444. hvm-init is looked for beside the agent. It is made in a
 * staging folder of the store and renamed into place at the end, so that an interrupted build leaves
 * nothing that counts, and image_store_recover() clears the rest. Two builds of one template take a lock: the
 * second waits, then finds the first's result and takes it if it was made after the second began.
 * Packages come from the machine's own configured source: /etc/apt is read, nothing is hard-coded (apt_source.h).
 * Stages, by file: bootstrap.c (packages), guest_setup.c (agent, configuration), root_image.c (ext4).
 * Threads: blocks for minutes; from a worker. Needs root.
 */
#pragma once

#include <gio/gio.h>

#include "image_store.h"
#include "template.h"

/* `text` is one line for people, "installing packages"; `fraction` 0 to 1, or -1 if unknown. In the caller's thread. */
typedef void (*BuildProgressFunc)(const char *text, double fraction, gpointer data);

/* Builds and adds. Errors: INVALID (a template without [build]), DENIED (not root), STORAGE (full disk: "image store
 * /var/lib/hvm is full while building debian12"), HOST (mmdebstrap missing or failed, with its last line),
 * G_IO_ERROR_CANCELLED. Steps (step.h): build.staging, build.root, build.image, build.publish. */
Image *image_build(ImageStore *store, const Template *template, const char *agent_path, BuildProgressFunc progress,
                   gpointer data, GCancellable *cancellable, GError **error);
