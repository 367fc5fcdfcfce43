/*
 * image_build_private.h: the state of one build, and its stages.
 */
#pragma once

#include "image_build.h"

typedef struct {
    ImageStore *store;
    const Template *template;
    Settings *settings; /* the template's, with defaults */
    const Settings *profile; /* what the operating system can drive: [os] */
    const char *agent_path;
    char *init_path; /* hvm-init, beside it */
    char *suite;
    char *packages; /* separated by commas */
    char *staging;
    char *work_path; /* staging/work: gone before the image is published */
    char *root_path; /* staging/work/root */
    gboolean disk_full;
    char *failed_line; /* the first "E: " line of mmdebstrap and what it runs */
    BuildProgressFunc progress;
    gpointer data;
    GCancellable *cancellable;
    char *text; /* what was last told */
    double fraction;
    double fraction_step, fraction_end; /* of bootstrap.c: for one line of its tools, and where its stage ends */
} Build;

/* Tells the caller; `text` NULL: the same text as before. */
void build_progress(Build *build, const char *text, double fraction);

/* Notes a full disk in a line that a tool printed. */
void build_look_for_full_disk(Build *build, const char *line);

/* Fills root_path with packages from the machine's own source. */
gboolean bootstrap_run(Build *build, GError **error);

/* Puts the agent and the guest's configuration in, takes kernel and initrd and what must not be there out. */
gboolean guest_setup_run(Build *build, GError **error);

/* Makes staging/root.raw of root_path. */
gboolean root_image_make(Build *build, GError **error);
