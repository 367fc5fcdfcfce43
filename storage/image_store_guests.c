/* What one guest owns: its folder and its overlay. */
#include "image_store_private.h"

#include "hvm_error.h"
#include "step.h"
#include "tree.h"
#include "undo.h"
#include "units.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Canonical form: 36 characters, in lower case. */
static gboolean check_uuid(const char *uuid, GError **error)
{
    gboolean good = g_uuid_string_is_valid(uuid);

    for (const char *c = uuid; good && *c; c++)
        good = !g_ascii_isupper(*c);
    if (!good) {
        g_autofree char *shown = hvm_escape(uuid, (gssize)MIN(strlen(uuid), 40));

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "bad UUID '%s': wanted 8-4-4-4-12 hexadecimal digits in lower case",
                    shown);
    }
    return good;
}

char *image_store_guest_folder(ImageStore *store, const char *uuid, GError **error)
{
    return check_uuid(uuid, error) ? g_build_filename(store->guests_path, uuid, NULL) : NULL;
}

/* Beside the folder, not in it: it is there before the folder is, and goes after it. Not synced: what a power cut loses of it makes a
 * stray, or is put right by recovery, which knows the guest. */
gboolean image_store_mark_guest(ImageStore *store, const char *uuid, gboolean unfinished, GError **error)
{
    g_autofree char *path = g_build_filename(store->unfinished_path, uuid, NULL);

    if (!check_uuid(uuid, error))
        return FALSE;

    int fd = unfinished ? open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600) : -1;

    if (fd >= 0)
        close(fd);
    else if (unfinished || (unlink(path) < 0 && errno != ENOENT))
        return image_store_fail(store, errno, error, "%s the mark %s", unfinished ? "make" : "remove", path);
    return TRUE;
}

static int compare_paths(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

char **image_store_list_strays(ImageStore *store, gboolean (*known)(const char *uuid, gpointer data), gpointer data)
{
    GPtrArray *paths = g_ptr_array_new();
    g_autoptr(GDir) folder = g_dir_open(store->guests_path, 0, NULL);

    for (const char *name; folder && (name = g_dir_read_name(folder));) {
        g_autofree char *mark = g_build_filename(store->unfinished_path, name, NULL);

        if (check_uuid(name, NULL) && !g_file_test(mark, G_FILE_TEST_EXISTS) && !known(name, data))
            g_ptr_array_add(paths, g_build_filename(store->guests_path, name, NULL));
    }
    g_ptr_array_sort(paths, compare_paths);
    g_ptr_array_add(paths, NULL);
    return (char **)g_ptr_array_free(paths, FALSE);
}

typedef struct {
    ImageStore *store; /* outlives the stack */
    char *uuid;
} GuestUndo;

static void guest_undo_free(gpointer pointer)
{
    GuestUndo *step = pointer;

    g_free(step->uuid);
    g_free(step);
}

static gboolean undo_guest(gpointer pointer, GError **error)
{
    GuestUndo *step = pointer;

    return image_store_destroy_guest(step->store, step->uuid, error);
}

gboolean image_store_create_guest(ImageStore *store, const char *uuid, const Image *image, guint64 disk_bytes,
                                  gboolean in_memory, GError **error)
{
    g_autofree char *folder = image_store_guest_folder(store, uuid, error);
    g_autofree char *disk_folder = NULL;
    g_autofree char *overlay = NULL;
    g_autoptr(Undo) undo = undo_new();
    GuestUndo *step = NULL;

    if (!folder)
        return FALSE;
    if (disk_bytes < image->root_bytes) {
        g_autofree char *wanted = size_format_rounded(disk_bytes);
        g_autofree char *found = size_format_rounded(image->root_bytes);

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "disk of %s is smaller than the image of template %s (%s)", wanted,
                    image->template_name, found);
        return FALSE;
    }
    if (!image_store_mark_guest(store, uuid, TRUE, error))
        return FALSE;
    if (mkdir(folder, 0711) < 0) {
        int number = errno;

        image_store_mark_guest(store, uuid, FALSE, NULL);
        if (number != EEXIST)
            return image_store_fail(store, number, error, "make the folder %s", folder);
        g_set_error(error, HVM_ERROR, HVM_ERROR_EXISTS, "the folder %s of the guest is there already", folder);
        return FALSE;
    }
    step = g_new0(GuestUndo, 1);
    step->store = store;
    step->uuid = g_strdup(uuid);
    undo_push(undo, "guest folder", undo_guest, step, guest_undo_free);
    if (!(disk_folder = in_memory ? image_store_make_memory_folder(store, uuid, error) : g_strdup(folder)) ||
        !step_reached("create.folder", error))
        return FALSE;
    overlay = g_build_filename(disk_folder, DISK, NULL);
    if (chmod(folder, 0711) < 0)
        return image_store_fail(store, errno, error, "set the mode of %s", folder);
    if (!image_store_make_overlay(store, image, overlay, disk_bytes, error) || !step_reached("create.overlay", error))
        return FALSE;
    if (chmod(overlay, 0600) < 0 || lchown(overlay, store->qemu_uid, store->qemu_gid) < 0)
        return image_store_fail(store, errno, error, "give %s to QEMU's user %u", overlay, (unsigned)store->qemu_uid);
    /* libvirt syncs the definition that names it; what is in memory has none. */
    if (!in_memory && (!image_store_sync(store, overlay, error) || !image_store_sync(store, folder, error)))
        return FALSE;
    undo_commit(undo);
    return TRUE;
}

gboolean image_store_destroy_guest(ImageStore *store, const char *uuid, GError **error)
{
    g_autofree char *folder = image_store_guest_folder(store, uuid, error);
    int guests_fd = folder ? image_store_open_folder(store, store->guests_path, error) : -1;

    if (guests_fd < 0)
        return FALSE;

    gboolean good = tree_remove(guests_fd, uuid, folder, error);

    close(guests_fd);
    good = image_store_destroy_memory(store, uuid, good ? error : NULL) && good;
    return good && image_store_mark_guest(store, uuid, FALSE, error);
}
