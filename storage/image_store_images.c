/* Published images: find, list, remove. */
#include "image_conf.h"
#include "image_store_private.h"

#include "hvm_error.h"
#include "tree.h"
#include "units.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of "20261123T101500Z". */
enum { STAMP_LENGTH = 16 };

void image_free(Image *image)
{
    if (!image)
        return;
    g_free(image->template_name);
    g_free(image->revision);
    g_free(image->folder);
    g_free(image->root_path);
    g_free(image->kernel_path);
    g_free(image->initrd_path);
    g_free(image->agent_initrd_path);
    g_free(image->vmlinux_path);
    g_free(image->digest);
    settings_free(image->settings);
    g_free(image);
}

gboolean image_revision_check(const char *revision, GError **error)
{
    static const char pattern[] = "dddddddd" "T" "dddddd" "Z";
    gboolean good = TRUE;
    gsize i;

    for (i = 0; good && i < STAMP_LENGTH; i++)
        good = pattern[i] == 'd' ? g_ascii_isdigit(revision[i]) : revision[i] == pattern[i];
    if (good && revision[i]) {
        guint64 number = 0;

        good = revision[i] == '-' && revision[i + 1] != '0' &&
               g_ascii_string_to_unsigned(revision + i + 1, 10, 2, 9999, &number, NULL);
    }
    if (!good) {
        g_autofree char *shown = hvm_escape(revision, (gssize)MIN(strlen(revision), 40));

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "bad revision '%s': wanted a time such as 20261123T101500Z", shown);
    }
    return good;
}

int image_revision_compare(const char *a, const char *b)
{
    int order = strncmp(a, b, STAMP_LENGTH);

    if (order == 0) {
        unsigned long number_a = a[STAMP_LENGTH] ? strtoul(a + STAMP_LENGTH + 1, NULL, 10) : 1;
        unsigned long number_b = b[STAMP_LENGTH] ? strtoul(b + STAMP_LENGTH + 1, NULL, 10) : 1;

        order = (number_a > number_b) - (number_a < number_b);
    }
    return order;
}

static int newest_first(gconstpointer a, gconstpointer b)
{
    return image_revision_compare(*(const char *const *)b, *(const char *const *)a);
}

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names in a folder that `check` takes, in the order of `compare`. Empty where the folder is missing. */
static GPtrArray *list_names(const char *path, gboolean (*check)(const char *name), GCompareFunc compare)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GDir) folder = g_dir_open(path, 0, NULL);

    for (const char *name; folder && (name = g_dir_read_name(folder));)
        if (check(name))
            g_ptr_array_add(names, g_strdup(name));
    g_ptr_array_sort(names, compare);
    return names;
}

static gboolean is_revision(const char *name)
{
    return image_revision_check(name, NULL);
}

static gboolean is_template(const char *name)
{
    return name_check(name, "template name", NULL);
}

static GPtrArray *list_revisions(const ImageStore *store, const char *template_name)
{
    g_autofree char *path = g_build_filename(store->images_path, template_name, NULL);

    return list_names(path, is_revision, newest_first);
}

static gboolean no_image(const char *template_name, const char *revision, GError **error)
{
    if (revision)
        g_set_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND, "template '%s' has no image of revision %s", template_name,
                    revision);
    else
        g_set_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND,
                    "template '%s' has no image: build one with `hvm template build %s`", template_name, template_name);
    return FALSE;
}

Image *image_store_find(ImageStore *store, const char *template_name, const char *revision, GError **error)
{
    g_autoptr(GPtrArray) revisions = NULL;

    if (!name_check(template_name, "template name", error) || (revision && !image_revision_check(revision, error)))
        return NULL;
    revisions = list_revisions(store, template_name);

    guint at = 0;

    if (revision && !g_ptr_array_find_with_equal_func(revisions, revision, g_str_equal, &at))
        at = revisions->len;
    if (at >= revisions->len) {
        no_image(template_name, revision, error);
        return NULL;
    }
    g_autofree char *folder = g_build_filename(store->images_path, template_name, revisions->pdata[at], NULL);

    return image_conf_load(folder, template_name, revisions->pdata[at], error);
}

GPtrArray *image_store_list(ImageStore *store)
{
    GPtrArray *images = g_ptr_array_new_with_free_func((GDestroyNotify)image_free);
    g_autoptr(GPtrArray) templates = list_names(store->images_path, is_template, by_name);

    for (guint i = 0; i < templates->len; i++) {
        g_autoptr(GPtrArray) revisions = list_revisions(store, templates->pdata[i]);

        for (guint j = 0; j < revisions->len; j++) {
            Image *image = image_store_find(store, templates->pdata[i], revisions->pdata[j], NULL);

            if (image)
                g_ptr_array_add(images, image);
        }
    }
    return images;
}

/* Refuses where a guest stands on one of the revisions. */
static gboolean check_unused(const char *template_name, GPtrArray *revisions, const char *revision,
                             char *(*in_use)(const char *, const char *, gpointer), gpointer data, GError **error)
{
    for (guint i = 0; i < revisions->len; i++) {
        const char *candidate = revisions->pdata[i];
        g_autofree char *guest = NULL;

        if (revision && strcmp(revision, candidate) != 0)
            continue;
        if ((guest = in_use(template_name, candidate, data))) {
            g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "image %s of template '%s' is in use by guest '%s'", candidate,
                        template_name, guest);
            return FALSE;
        }
    }
    return TRUE;
}

/* An image goes by one rename to a name that recovery takes for a dead build: cut short, it leaves no half image. */
static gboolean remove_revision(ImageStore *store, int images_fd, const char *template_name, const char *revision,
                                GError **error)
{
    g_autofree char *from = g_build_filename(template_name, revision, NULL);
    g_autofree char *to = g_strconcat(STAGING_PREFIX "removed-", template_name, "-", revision, NULL);

    if (renameat(images_fd, from, images_fd, to) < 0)
        return image_store_fail(store, errno, error, "remove %s/%s", store->images_path, from);
    return tree_remove(images_fd, to, store->images_path, error);
}

static gboolean remove_locked(ImageStore *store, const char *template_name, const char *revision,
                              char *(*in_use)(const char *, const char *, gpointer), gpointer data, GError **error)
{
    g_autoptr(GPtrArray) revisions = list_revisions(store, template_name);
    gboolean good = TRUE;

    if (revisions->len == 0 || (revision && !g_ptr_array_find_with_equal_func(revisions, revision, g_str_equal, NULL)))
        return no_image(template_name, revision, error);
    if (!check_unused(template_name, revisions, revision, in_use, data, error))
        return FALSE;

    int images_fd = image_store_open_folder(store, store->images_path, error);

    if (images_fd < 0)
        return FALSE;
    for (guint i = 0; good && i < revisions->len; i++)
        if (!revision || strcmp(revision, revisions->pdata[i]) == 0)
            good = remove_revision(store, images_fd, template_name, revisions->pdata[i], error);
    if (good)
        unlinkat(images_fd, template_name, AT_REMOVEDIR); /* only where no revision is left */
    close(images_fd);
    return good;
}

int image_store_hold(ImageStore *store, const char *template_name, const char *revision, GError **error)
{
    int lock_fd = image_store_lock(store, error);
    g_autoptr(Image) image = lock_fd < 0 ? NULL : image_store_find(store, template_name, revision, error);

    if (lock_fd >= 0 && !image) {
        close(lock_fd);
        lock_fd = -1;
    }
    return lock_fd;
}

gboolean image_store_remove(ImageStore *store, const char *template_name, const char *revision,
                            char *(*in_use)(const char *template_name, const char *revision, gpointer data), gpointer data,
                            GError **error)
{
    if (!name_check(template_name, "template name", error) || (revision && !image_revision_check(revision, error)))
        return FALSE;

    int lock_fd = image_store_lock(store, error);

    if (lock_fd < 0)
        return FALSE;

    gboolean good = remove_locked(store, template_name, revision, in_use, data, error);

    close(lock_fd);
    return good;
}
