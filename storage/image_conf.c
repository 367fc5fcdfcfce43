#include "image_conf.h"

#include "hvm_error.h"
#include "image_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONF_MAX = 64 << 10, HASH_BYTES = 1 << 20 };

#define DIGEST_PREFIX "sha256:"

const ImageFile image_files[IMAGE_FILES] = {
    {"root.raw", "root-bytes", FALSE},           {"vmlinuz", "kernel-bytes", FALSE}, {"initrd", "initrd-bytes", FALSE},
    {"initrd-agent", "agent-initrd-bytes", TRUE}, {"vmlinux", "vmlinux-bytes", TRUE},
};

char *image_conf_format(const Image *image, const guint64 bytes[IMAGE_FILES])
{
    g_autoptr(GKeyFile) file = g_key_file_new();

    g_key_file_set_string(file, "image", "template", image->template_name);
    g_key_file_set_string(file, "image", "revision", image->revision);
    g_key_file_set_string(file, "image", "digest", image->digest);
    for (unsigned i = 0; i < IMAGE_FILES; i++)
        if (bytes[i])
            g_key_file_set_uint64(file, "image", image_files[i].key, bytes[i]);
    for (guint i = 0; i < image->settings->items->len; i++) {
        const Setting *setting = image->settings->items->pdata[i];

        g_key_file_set_string(file, setting->group, setting->key, setting->value);
        g_key_file_set_string(file, "origin", setting->key, setting->origin);
    }
    return g_key_file_to_data(file, NULL, NULL);
}

static gboolean refuse(const char *path, const char *what, GError **error)
{
    g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "image file %s %s", path, what);
    return FALSE;
}

/* Checks one file of an image. `wanted_bytes` G_MAXUINT64: any size. Adds to *disk_bytes what it occupies. */
static gboolean check_file(const char *path, guint64 wanted_bytes, guint64 *disk_bytes, GError **error)
{
    struct stat status;

    if (lstat(path, &status) < 0)
        return refuse(path, errno == ENOENT ? "is missing" : g_strerror(errno), error);
    if (!S_ISREG(status.st_mode))
        return refuse(path, "is not a regular file", error);
    if (status.st_uid != 0 || (status.st_mode & 0222)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE,
                    "image file %s may have been altered: wanted owner 0 and mode 0444, found owner %u and mode %04o", path,
                    (unsigned)status.st_uid, (unsigned)status.st_mode & 07777);
        return FALSE;
    }
    if (wanted_bytes != G_MAXUINT64 && (guint64)status.st_size != wanted_bytes) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE,
                    "image file %s is damaged: wanted %" G_GUINT64_FORMAT " bytes, found %" G_GUINT64_FORMAT, path,
                    wanted_bytes, (guint64)status.st_size);
        return FALSE;
    }
    *disk_bytes += (guint64)status.st_blocks * 512;
    return TRUE;
}

static GKeyFile *read_conf(const char *path, GError **error)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GError) local = NULL;
    g_autofree char *text = g_malloc(CONF_MAX);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, text, CONF_MAX) : -1;
    int number = errno;

    if (fd >= 0)
        close(fd);
    if (length < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot read %s: %s", path, g_strerror(number));
        return NULL;
    }
    if (length == CONF_MAX || !g_key_file_load_from_data(file, text, (gsize)length, G_KEY_FILE_NONE, &local)) {
        g_autofree char *shown = hvm_escape(local ? local->message : "it is too long", -1);

        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "%s is damaged: %s", path, shown);
        return NULL;
    }
    return g_steal_pointer(&file);
}

/* The [os] settings with their origins. */
static Settings *read_settings(GKeyFile *file, const char *path, GError **error)
{
    g_autoptr(Settings) settings = settings_new(image_keys);
    g_auto(GStrv) keys = g_key_file_get_keys(file, "os", NULL, NULL);

    for (char **key = keys; key && *key; key++) {
        g_autofree char *value = g_key_file_get_string(file, "os", *key, NULL);
        g_autofree char *origin = g_key_file_get_string(file, "origin", *key, NULL);

        if (!settings_set(settings, "os", *key, value ? value : "", origin ? origin : "image", error)) {
            g_prefix_error(error, "%s: ", path);
            return NULL;
        }
    }
    return g_steal_pointer(&settings);
}

static gboolean read_bytes(GKeyFile *file, const char *path, const char *key, guint64 *ret_bytes, GError **error)
{
    g_autofree char *text = g_key_file_get_string(file, "image", key, NULL);

    if (!text || !g_ascii_string_to_unsigned(text, 10, 1, G_MAXINT64, ret_bytes, NULL)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "%s is damaged: it has no good %s", path, key);
        return FALSE;
    }
    return TRUE;
}

/* Checks one file by what image.conf says of it, and gives its path; NULL for an optional one that it says nothing of. */
static gboolean read_file(GKeyFile *file, const char *conf_path, const ImageFile *row, Image *image, char **ret_path,
                          guint64 *ret_bytes, GError **error)
{
    g_autofree char *path = g_build_filename(image->folder, row->name, NULL);
    guint64 bytes = 0;

    if (row->optional && !g_key_file_has_key(file, "image", row->key, NULL))
        return TRUE;
    if (!read_bytes(file, conf_path, row->key, &bytes, error) || !check_file(path, bytes, &image->disk_bytes, error))
        return FALSE;
    *ret_path = g_steal_pointer(&path);
    if (ret_bytes)
        *ret_bytes = bytes;
    return TRUE;
}

static gboolean check_digest(const char *digest)
{
    if (!digest || !g_str_has_prefix(digest, DIGEST_PREFIX) || strlen(digest) != strlen(DIGEST_PREFIX) + 64)
        return FALSE;
    for (const char *c = digest + strlen(DIGEST_PREFIX); *c; c++)
        if (!g_ascii_isxdigit(*c))
            return FALSE;
    return TRUE;
}

Image *image_conf_load(const char *folder, const char *template_name, const char *revision, GError **error)
{
    g_autoptr(Image) image = g_new0(Image, 1);
    g_autoptr(GKeyFile) file = NULL;
    g_autofree char *path = g_build_filename(folder, "image.conf", NULL);
    char **const paths[IMAGE_FILES] = {&image->root_path, &image->kernel_path, &image->initrd_path, &image->agent_initrd_path,
                                       &image->vmlinux_path};

    image->template_name = g_strdup(template_name);
    image->revision = g_strdup(revision);
    image->folder = g_strdup(folder);
    if (!check_file(path, G_MAXUINT64, &image->disk_bytes, error) || !(file = read_conf(path, error)))
        return NULL;
    for (unsigned i = 0; i < IMAGE_FILES; i++)
        if (!read_file(file, path, &image_files[i], image, paths[i], i == 0 ? &image->root_bytes : NULL, error))
            return NULL;

    g_autofree char *named_template = g_key_file_get_string(file, "image", "template", NULL);
    g_autofree char *named_revision = g_key_file_get_string(file, "image", "revision", NULL);

    image->digest = g_key_file_get_string(file, "image", "digest", NULL);
    if (g_strcmp0(named_template, template_name) != 0 || g_strcmp0(named_revision, revision) != 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "%s is damaged: it describes another image", path);
        return NULL;
    }
    if (!check_digest(image->digest)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "%s is damaged: it has no good digest", path);
        return NULL;
    }
    if (!(image->settings = read_settings(file, path, error)))
        return NULL;
    return g_steal_pointer(&image);
}

/* Hashes `length` bytes of the file from where it stands, or as many zeros. */
static gboolean hash_span(GChecksum *sum, int fd, gboolean hole, off_t length, guchar *buffer)
{
    if (hole)
        memset(buffer, 0, HASH_BYTES);
    while (length > 0) {
        ssize_t count = (ssize_t)MIN(length, (off_t)HASH_BYTES);

        if (!hole)
            count = read(fd, buffer, (size_t)count);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            errno = count ? errno : EIO; /* shorter than it was */
            return FALSE;
        }
        g_checksum_update(sum, buffer, count);
        length -= count;
    }
    return TRUE;
}

char *image_conf_digest(const char *path, GError **error)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    g_autofree guchar *buffer = g_malloc(HASH_BYTES);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
    gboolean good = end >= 0;

    for (off_t at = 0; good && at < end;) {
        off_t data = lseek(fd, at, SEEK_DATA);
        off_t hole = 0;

        if (data < 0 && errno == ENXIO)
            data = end;
        if (data < 0 || (data < end && (hole = lseek(fd, data, SEEK_HOLE)) < 0)) {
            data = at; /* a file system that does not know: all is data */
            hole = end;
        }
        good = hash_span(sum, fd, TRUE, data - at, buffer);
        if (good && data < end)
            good = lseek(fd, data, SEEK_SET) == data && hash_span(sum, fd, FALSE, hole - data, buffer);
        at = data < end ? hole : end;
    }
    if (!good)
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot read %s: %s", path, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return good ? g_strconcat(DIGEST_PREFIX, g_checksum_get_string(sum), NULL) : NULL;
}
