/* Make a partitionless ext4 of a folder. */
#include "image_build_private.h"

#include "hvm_error.h"
#include "process.h"
#include "tree.h"
#include "units.h"

#include <string.h>

enum { MKE2FS_TIMEOUT_MS = 15 * 60 * 1000, JOURNAL_MIB = 64, SPARE_MIB = 64, BLOCK_BYTES = 4096 };

/* Not the host's mke2fs.conf: what a newer one turns on (orphan_file, metadata_csum_seed) an older guest cannot mount. */
#define FEATURES \
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file," \
    "dir_nlink,extra_isize,metadata_csum"

/* Descriptors are reserved so that it grows online to 1 TiB as it is; beyond, the kernel goes on with meta_bg. */
#define GROW_MAX (HVM_GIB * 1024)

static void on_line(const char *line, gpointer data)
{
    build_look_for_full_disk(data, line);
}

/* Room for the files, file system structures and a little to start with: the overlay grows to the guest's disk. */
static guint64 image_bytes(guint64 used_bytes)
{
    guint64 bytes = used_bytes + used_bytes / 16 + (JOURNAL_MIB + SPARE_MIB) * HVM_MIB;

    return (bytes + 64 * HVM_MIB - 1) / (64 * HVM_MIB) * (64 * HVM_MIB);
}

gboolean root_image_make(Build *build, GError **error)
{
    gint64 used_bytes = tree_disk_bytes(build->root_path);
    g_autofree char *path = g_build_filename(build->staging, "root.raw", NULL);
    g_autofree char *journal = g_strdup_printf("size=%d", JOURNAL_MIB);
    /* The file is new, hence zero: inode tables need no writing now, nor later by the guest. */
    g_autofree char *extended = g_strdup_printf("root_owner=0:0,lazy_itable_init=0,resize=%" G_GUINT64_FORMAT,
                                                GROW_MAX / BLOCK_BYTES);
    g_autofree char *size = NULL;
    const ProcessOptions options = {
        .timeout_ms = MKE2FS_TIMEOUT_MS, .cancellable = build->cancellable, .on_line = on_line, .data = build};

    if (used_bytes < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot read %s", build->root_path);
        return FALSE;
    }
    size = g_strdup_printf("%" G_GUINT64_FORMAT "K", image_bytes((guint64)used_bytes) / 1024);

    const char *argv[] = {"mke2fs", "-q",  "-F",     "-t", "ext4",   "-b", "4096",   "-I", "256", "-i",
                          "16384",  "-m",  "1",      "-O", FEATURES, "-J", journal,  "-E", extended,
                          "-L",     "hvm-root", "-d", build->root_path, path, size, NULL};

    return process_run(argv, &options, HVM_ERROR_STORAGE, NULL, error);
}
