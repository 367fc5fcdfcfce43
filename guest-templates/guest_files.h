/*
 * guest_files.h: what a build puts into the guest's root, as tables.
 *
 * Identity is left out on purpose: host name and machine-id come with each guest on its kernel's command line
 * (systemd.hostname=, systemd.machine_id=), ssh host keys are made in the guest. Private to the image build.
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

typedef struct {
    const char *path;
    mode_t mode;
    const char *text;
} GuestFile;

typedef struct {
    const char *path;
    const char *target;
    const char *needs; /* made only where this is there; NULL: always */
} GuestLink;

typedef struct {
    const char *folder;
    const char *pattern;
} GuestRemoval;

/* Each ended by a row of NULLs. */
extern const GuestFile guest_files_early[]; /* before the kernel's package makes its initrd */
extern const GuestFile guest_files[];
extern const GuestLink guest_links[];
extern const GuestRemoval guest_removals[];

/* Options of dpkg(1) during the build alone: no manuals and translations, and no fsync for each file. */
extern const char *const guest_dpkg_options[];
