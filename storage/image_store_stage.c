/* Images on their way: stage, discard, publish, recover. */
#include "image_conf.h"
#include "image_store_private.h"

#include "hvm_error.h"
#include "image_keys.h"
#include "step.h"
#include "tree.h"
#include "units.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

char *image_store_stage(ImageStore *store, int *ret_lock_fd, GError **error)
{
    g_autofree char *path = g_build_filename(store->images_path, STAGING_PREFIX "XXXXXX", NULL);
    /* The store's lock keeps recovery away between the folder's making and its own lock. */
    int store_fd = image_store_lock(store, error);
    int fd = -1;

    if (store_fd < 0)
        return NULL;
    if (!mkdtemp(path)) {
        image_store_fail(store, errno, error, "make a folder in %s", store->images_path);
    } else if ((fd = image_store_open_folder(store, path, error)) >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        image_store_fail(store, errno, error, "lock %s", path);
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        rmdir(path);
    close(store_fd);
    if (fd < 0)
        return NULL;
    *ret_lock_fd = fd;
    return g_steal_pointer(&path);
}

/* Removes a staging folder by its name below images/, mounts first. */
static gboolean remove_staging(ImageStore *store, const char *name, GError **error)
{
    g_autofree char *path = g_build_filename(store->images_path, name, NULL);
    int images_fd = image_store_open_folder(store, store->images_path, error);

    if (images_fd < 0)
        return FALSE;

    gboolean good = tree_unmount_below(path, error) && tree_remove(images_fd, name, path, error);

    close(images_fd);
    return good;
}

/* The staging folder's name, checked to be one of this store. */
static char *staging_name(const ImageStore *store, const char *staging)
{
    g_autofree char *parent = g_path_get_dirname(staging);
    g_autofree char *name = g_path_get_basename(staging);

    return strcmp(parent, store->images_path) == 0 && g_str_has_prefix(name, STAGING_PREFIX) ? g_steal_pointer(&name) : NULL;
}

void image_store_discard(ImageStore *store, const char *staging)
{
    g_autofree char *name = staging_name(store, staging);
    g_autoptr(GError) error = NULL;

    g_return_if_fail(name);
    if (!remove_staging(store, name, &error))
        g_debug("%s", error->message); /* recovery will try again */
}

/* The first free revision for now: images_path/template_name must be there. Under the store's lock. */
static char *next_revision(const ImageStore *store, const char *template_name)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *stamp = g_date_time_format(now, "%Y%m%dT%H%M%SZ");

    for (unsigned number = 1;; number++) {
        g_autofree char *revision = number == 1 ? g_strdup(stamp) : g_strdup_printf("%s-%u", stamp, number);
        g_autofree char *path = g_build_filename(store->images_path, template_name, revision, NULL);

        if (!g_file_test(path, G_FILE_TEST_EXISTS | G_FILE_TEST_IS_SYMLINK))
            return g_steal_pointer(&revision);
    }
}

/* Writes a new file; EEXIST where it is there. */
static gboolean write_file(const ImageStore *store, const char *path, const char *text, GError **error)
{
    FILE *file = fopen(path, "wxe");
    gboolean good = file && fputs(text, file) >= 0 && fflush(file) == 0;
    int number = errno;

    if (file)
        fclose(file);
    return good || image_store_fail(store, number, error, "write %s", path);
}

/* The size of one of the staged files, which becomes root's, 0444 and is on the disk afterwards. */
static gboolean settle_file(const ImageStore *store, const char *folder, const char *name, guint64 *ret_bytes, GError **error)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    struct stat status;

    if (lstat(path, &status) < 0)
        return image_store_fail(store, errno, error, "publish %s", path);
    if (!S_ISREG(status.st_mode) || status.st_size == 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot publish %s: it is not a regular file with something in it",
                    path);
        return FALSE;
    }
    if (lchown(path, 0, 0) < 0 || chmod(path, 0444) < 0)
        return image_store_fail(store, errno, error, "give %s to root", path);
    if (ret_bytes)
        *ret_bytes = (guint64)status.st_size;
    return image_store_sync(store, path, error);
}

/* Names the image and moves the finished folder into place. Under the store's lock. */
static gboolean publish_locked(ImageStore *store, const char *staging, Image *image, const guint64 bytes[IMAGE_FILES],
                               GError **error)
{
    g_autofree char *template_path = g_build_filename(store->images_path, image->template_name, NULL);
    g_autofree char *conf_path = g_build_filename(staging, "image.conf", NULL);
    g_autofree char *conf = NULL;

    if (mkdir(template_path, 0711) < 0 && errno != EEXIST)
        return image_store_fail(store, errno, error, "make the folder %s", template_path);
    image->revision = next_revision(store, image->template_name);
    image->folder = g_build_filename(template_path, image->revision, NULL);
    conf = image_conf_format(image, bytes);
    if (!write_file(store, conf_path, conf, error) || !settle_file(store, staging, "image.conf", NULL, error))
        goto failed;
    if (chmod(template_path, 0711) < 0 || chmod(staging, 0711) < 0) {
        image_store_fail(store, errno, error, "set the mode of %s", staging);
        goto failed;
    }
    if (!image_store_sync(store, staging, error) || !step_reached("build.publish", error))
        goto failed;
    /* From here on the image is there, and whole. */
    if (rename(staging, image->folder) < 0) {
        image_store_fail(store, errno, error, "move %s to %s", staging, image->folder);
        goto failed;
    }
    return image_store_sync(store, template_path, error) && image_store_sync(store, store->images_path, error);
failed:
    rmdir(template_path); /* only where it is empty */
    return FALSE;
}

Image *image_store_publish(ImageStore *store, const char *staging, const char *template_name, const Settings *settings,
                           GError **error)
{
    g_autoptr(Image) image = g_new0(Image, 1);
    g_autofree char *root_path = g_build_filename(staging, "root.raw", NULL);
    guint64 bytes[IMAGE_FILES] = {0};

    if (!name_check(template_name, "template name", error))
        return NULL;
    image->template_name = g_strdup(template_name);
    image->settings = settings_new(image_keys);
    for (guint i = 0; i < settings->items->len; i++) {
        const Setting *setting = settings->items->pdata[i];

        if (strcmp(setting->group, "os") == 0 &&
            !settings_set(image->settings, "os", setting->key, setting->value, setting->origin, error))
            return NULL;
    }
    for (unsigned i = 0; i < IMAGE_FILES; i++) {
        g_autofree char *path = g_build_filename(staging, image_files[i].name, NULL);

        if (image_files[i].optional && access(path, F_OK) < 0)
            continue;
        if (!settle_file(store, staging, image_files[i].name, &bytes[i], error))
            return NULL;
    }
    image->root_bytes = bytes[0];
    if (!(image->digest = image_conf_digest(root_path, error)))
        return NULL;

    int lock_fd = image_store_lock(store, error);

    if (lock_fd < 0)
        return NULL;

    gboolean good = publish_locked(store, staging, image, bytes, error);

    close(lock_fd);
    return good ? image_store_find(store, template_name, image->revision, error) : NULL;
}

/* Removes staging folders whose lock nobody holds, and a template's folder that a publishing cut short left empty. Goes on
 * past one that fails; the first error counts. */
static gboolean recover_staging(ImageStore *store, GError **error)
{
    g_autoptr(GDir) folder = g_dir_open(store->images_path, 0, NULL);
    gboolean good = TRUE;

    for (const char *name; folder && (name = g_dir_read_name(folder));) {
        g_autofree char *path = g_build_filename(store->images_path, name, NULL);

        if (!g_str_has_prefix(name, STAGING_PREFIX)) {
            if (name_check(name, "template name", NULL))
                rmdir(path); /* only where it is empty */
            continue;
        }

        int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
            good = remove_staging(store, name, good ? error : NULL) && good;
        if (fd >= 0)
            close(fd);
    }
    return good;
}

static gboolean recover_guests(ImageStore *store, gboolean (*known)(const char *, gpointer), gpointer data, GError **error)
{
    g_autoptr(GDir) folder = g_dir_open(store->unfinished_path, 0, NULL);
    gboolean good = TRUE;

    for (const char *name; folder && (name = g_dir_read_name(folder));) {
        GError **first = good ? error : NULL;

        if (known(name, data))
            good = image_store_mark_guest(store, name, FALSE, first) && good;
        else
            good = image_store_destroy_guest(store, name, first) && good;
    }
    return good;
}

gboolean image_store_recover(ImageStore *store, gboolean (*known)(const char *uuid, gpointer data), gpointer data,
                             GError **error)
{
    int lock_fd = image_store_lock(store, error);

    if (lock_fd < 0)
        return FALSE;

    gboolean good = recover_staging(store, error);

    good = recover_guests(store, known, data, good ? error : NULL) && good;
    good = image_store_recover_memory(store, known, data, good ? error : NULL) && good;
    close(lock_fd);
    return good;
}
