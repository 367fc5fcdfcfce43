#include "hvm_error.h"
#include "image_keys.h"
#include "image_store.h"
#include "tree.h"
#include "units.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define UUID_A "0f8fad5b-d9cb-469f-a165-70867728950e"
#define UUID_B "7c9e6679-7425-40de-944b-e07fc1f90ae7"
#define UUID_C "3b1f5c0e-2d8a-4b7e-9f60-1c2d3e4f5a6b"

enum { QEMU_UID = 12345, QEMU_GID = 12346, ROOT_BYTES = 64 << 20 };

typedef struct {
    char *folder;
    ImageStore *store;
} Fixture;

static void set_up(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = NULL;

    fixture->folder = g_dir_make_tmp("hvm-storage-XXXXXX", &error);
    g_assert_no_error(error);
    path = g_build_filename(fixture->folder, "store", NULL);
    fixture->store = image_store_open(path, QEMU_UID, QEMU_GID, &error);
    g_assert_no_error(error);
}

static void tear_down(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autofree char *name = g_path_get_basename(fixture->folder);
    g_autofree char *parent = g_path_get_dirname(fixture->folder);
    g_autoptr(GError) error = NULL;
    int fd = open(parent, O_RDONLY | O_DIRECTORY);

    image_store_free(fixture->store);
    g_assert_true(tree_remove(fd, name, fixture->folder, &error));
    g_assert_no_error(error);
    close(fd);
    g_free(fixture->folder);
}

static gboolean skip_without_root(void)
{
    if (geteuid() == 0)
        return FALSE;
    g_test_skip("needs root: files must be given to root and to QEMU's user");
    return TRUE;
}

static char *path_of(const Fixture *fixture, const char *below)
{
    return g_build_filename(fixture->folder, below, NULL);
}

static void put(const char *folder, const char *name, const char *text, guint64 bytes)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    if (bytes)
        g_assert_cmpint(truncate(path, (off_t)bytes), ==, 0);
}

static Image *publish(Fixture *fixture, const char *name, GError **error)
{
    g_autoptr(Settings) settings = settings_new(image_keys);
    g_autofree char *staging = NULL;
    int lock_fd = -1;

    g_assert_true(settings_set(settings, "os", "machine", "pc", "libosinfo testos1", NULL));
    staging = image_store_stage(fixture->store, &lock_fd, error);
    g_assert_nonnull(staging);
    put(staging, "root.raw", "root", ROOT_BYTES);
    put(staging, "vmlinuz", "kernel", 0);
    put(staging, "initrd", "initrd", 0);

    Image *image = image_store_publish(fixture->store, staging, name, settings, error);

    if (!image)
        image_store_discard(fixture->store, staging);
    close(lock_fd);
    return image;
}

static void assert_error(GError *error, int code, const char *part)
{
    g_assert_error(error, HVM_ERROR, code);
    if (!strstr(error->message, part))
        g_error("wanted '%s' in: %s", part, error->message);
}

static unsigned count_entries(const Fixture *fixture, const char *below)
{
    g_autofree char *path = path_of(fixture, below);
    g_autoptr(GDir) folder = g_dir_open(path, 0, NULL);
    unsigned count = 0;

    while (folder && g_dir_read_name(folder))
        count++;
    return count;
}

static void test_open(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autofree char *file = path_of(fixture, "file");
    g_autofree char *link = path_of(fixture, "link");
    g_autofree char *real = path_of(fixture, "store");
    g_autofree char *images = path_of(fixture, "store/images");
    g_autoptr(GError) error = NULL;
    struct stat status;

    g_assert_cmpstr(image_store_path(fixture->store), ==, real);
    g_assert_cmpint(stat(images, &status), ==, 0);
    g_assert_cmpuint(status.st_mode & 07777, ==, 0711);

    g_assert_true(g_file_set_contents(file, "", 0, NULL));
    g_assert_null(image_store_open(file, 0, 0, &error));
    assert_error(error, HVM_ERROR_STORAGE, "is not a folder");
    g_clear_error(&error);
    g_assert_cmpint(symlink(real, link), ==, 0);
    g_assert_null(image_store_open(link, 0, 0, &error));
    assert_error(error, HVM_ERROR_STORAGE, "is not a folder");
    g_clear_error(&error);
    g_assert_cmpint(chmod(images, 0775), ==, 0);
    g_assert_null(image_store_open(real, 0, 0, &error));
    assert_error(error, HVM_ERROR_STORAGE, "images is not safe: wanted root's and not writable by others");
    g_clear_error(&error);
    g_assert_null(image_store_open("relative", 0, 0, &error));
    assert_error(error, HVM_ERROR_INVALID, "absolute");
}

static void test_publish_and_find(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Image) first = NULL;
    g_autoptr(Image) second = NULL;
    g_autoptr(Image) newest = NULL;
    g_autoptr(Image) older = NULL;
    g_autoptr(GPtrArray) all = NULL;
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    g_autofree guchar *zeros = g_malloc0(ROOT_BYTES);
    g_autofree char *digest = NULL;
    struct stat status;

    if (skip_without_root())
        return;
    first = publish(fixture, "debian12", &error);
    g_assert_no_error(error);
    second = publish(fixture, "debian12", &error);
    g_assert_no_error(error);
    g_assert_cmpstr(first->revision, !=, second->revision);
    g_assert_cmpuint(first->root_bytes, ==, ROOT_BYTES);
    g_assert_cmpuint(first->disk_bytes, <, ROOT_BYTES); /* it is sparse */

    memcpy(zeros, "root", 4);
    g_checksum_update(sum, zeros, ROOT_BYTES);
    digest = g_strconcat("sha256:", g_checksum_get_string(sum), NULL);
    g_assert_cmpstr(first->digest, ==, digest);

    g_assert_cmpint(lstat(first->root_path, &status), ==, 0);
    g_assert_cmpuint(status.st_uid, ==, 0);
    g_assert_cmpuint(status.st_mode & 07777, ==, 0444);
    g_assert_cmpint(lstat(first->folder, &status), ==, 0);
    g_assert_cmpuint(status.st_mode & 07777, ==, 0711);

    newest = image_store_find(fixture->store, "debian12", NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(newest->revision, ==, second->revision);
    g_assert_cmpstr(settings_get(newest->settings, "os", "machine"), ==, "pc");
    g_assert_cmpstr(settings_origin(newest->settings, "os", "machine"), ==, "libosinfo testos1");
    older = image_store_find(fixture->store, "debian12", first->revision, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(older->folder, ==, first->folder);

    all = image_store_list(fixture->store);
    g_assert_cmpuint(all->len, ==, 2);
    g_assert_cmpstr(((Image *)all->pdata[0])->revision, ==, second->revision);
}

/* Ten images within a second or so: -10 is newer than -9. */
static void test_revision_order(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Image) first = NULL;
    g_autoptr(Image) newest = NULL;
    g_autofree char *base = path_of(fixture, "store/images/many");
    g_autofree char *last = NULL;

    if (skip_without_root())
        return;
    first = publish(fixture, "many", &error);
    g_assert_no_error(error);
    for (int i = 2; i <= 10; i++) {
        g_autofree char *name = g_strdup_printf("%.16s-%d", first->revision, i);
        g_autofree char *path = g_build_filename(base, name, NULL);

        g_assert_cmpint(g_mkdir(path, 0711), ==, 0);
        g_free(last);
        last = g_steal_pointer(&name);
    }
    newest = image_store_find(fixture->store, "many", NULL, &error);
    g_assert_null(newest);
    assert_error(error, HVM_ERROR_STORAGE, last);
}

static void test_not_found(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    static const char *const bad[] = {"", "..", "../x", "a/b", "A", "a b", ".staging-x", NULL};
    g_autoptr(GError) error = NULL;

    g_assert_null(image_store_find(fixture->store, "debian12", NULL, &error));
    assert_error(error, HVM_ERROR_NOT_FOUND,
                 "template 'debian12' has no image: build one with `hvm template build debian12`");
    g_clear_error(&error);
    g_assert_null(image_store_find(fixture->store, "debian12", "20261123T101500Z", &error));
    assert_error(error, HVM_ERROR_NOT_FOUND, "20261123T101500Z");
    g_clear_error(&error);
    g_assert_null(image_store_find(fixture->store, "debian12", "../../../etc", &error));
    assert_error(error, HVM_ERROR_INVALID, "bad revision");
    g_clear_error(&error);
    for (int i = 0; bad[i]; i++) {
        g_assert_null(image_store_find(fixture->store, bad[i], NULL, &error));
        assert_error(error, HVM_ERROR_INVALID, "bad template name");
        g_clear_error(&error);
    }
}

typedef struct {
    const char *name;
    void (*damage)(const Image *image);
    const char *part;
} Damage;

static void damage_truncate(const Image *image)
{
    g_assert_cmpint(chmod(image->root_path, 0644), ==, 0);
    g_assert_cmpint(truncate(image->root_path, 4096), ==, 0);
    g_assert_cmpint(chmod(image->root_path, 0444), ==, 0);
}

static void damage_owner(const Image *image)
{
    g_assert_cmpint(chown(image->root_path, QEMU_UID, QEMU_GID), ==, 0);
}

static void damage_mode(const Image *image)
{
    g_assert_cmpint(chmod(image->kernel_path, 0464), ==, 0);
}

static void damage_missing(const Image *image)
{
    g_assert_cmpint(unlink(image->initrd_path), ==, 0);
}

static void damage_link(const Image *image)
{
    g_autofree char *aside = g_strconcat(image->root_path, ".aside", NULL);

    g_assert_cmpint(rename(image->root_path, aside), ==, 0);
    g_assert_cmpint(symlink(aside, image->root_path), ==, 0);
}

static void damage_fifo(const Image *image)
{
    g_assert_cmpint(unlink(image->root_path), ==, 0);
    g_assert_cmpint(mkfifo(image->root_path, 0444), ==, 0);
}

static void write_conf(const Image *image, const char *text)
{
    g_autofree char *path = g_build_filename(image->folder, "image.conf", NULL);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    g_assert_cmpint(chmod(path, 0444), ==, 0);
}

static void damage_conf(const Image *image)
{
    write_conf(image, "[image\n");
}

static void damage_conf_size(const Image *image)
{
    write_conf(image, "[image]\nroot-bytes=-5\n");
}

static void damage_conf_huge(const Image *image)
{
    g_autofree char *text = g_strnfill(1 << 20, '#');

    write_conf(image, text);
}

static const Damage damages[] = {
    {"truncated", damage_truncate, "wanted 67108864 bytes, found 4096"},
    {"owner", damage_owner, "found owner 12345"},
    {"mode", damage_mode, "found owner 0 and mode 0464"},
    {"missing", damage_missing, "initrd is missing"},
    {"link", damage_link, "is not a regular file"},
    {"fifo", damage_fifo, "is not a regular file"},
    {"conf", damage_conf, "image.conf is damaged"},
    {"conf-size", damage_conf_size, "no good root-bytes"},
    {"conf-huge", damage_conf_huge, "too long"},
};

static void test_damaged(Fixture *fixture, gconstpointer data)
{
    const Damage *damage = data;
    g_autoptr(GError) error = NULL;
    g_autoptr(Image) image = NULL;
    g_autoptr(GPtrArray) all = NULL;

    if (skip_without_root())
        return;
    image = publish(fixture, "debian12", &error);
    g_assert_no_error(error);
    damage->damage(image);
    g_assert_null(image_store_find(fixture->store, "debian12", NULL, &error));
    assert_error(error, HVM_ERROR_STORAGE, damage->part);
    all = image_store_list(fixture->store);
    g_assert_cmpuint(all->len, ==, 0);
}

static char *used_by(const char *template_name G_GNUC_UNUSED, const char *revision, gpointer data)
{
    return g_strcmp0(data, revision) == 0 ? g_strdup("mpi0") : NULL;
}

static void test_remove(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Image) first = NULL;
    g_autoptr(Image) second = NULL;

    if (skip_without_root())
        return;
    first = publish(fixture, "debian12", &error);
    second = publish(fixture, "debian12", &error);
    g_assert_no_error(error);
    g_assert_false(image_store_remove(fixture->store, "debian12", NULL, used_by, first->revision, &error));
    assert_error(error, HVM_ERROR_BUSY, "in use by guest 'mpi0'");
    g_clear_error(&error);
    g_assert_true(g_file_test(second->root_path, G_FILE_TEST_EXISTS)); /* all or none */
    g_assert_true(image_store_remove(fixture->store, "debian12", second->revision, used_by, first->revision, &error));
    g_assert_no_error(error);
    g_assert_false(g_file_test(second->folder, G_FILE_TEST_EXISTS));
    g_assert_true(g_file_test(first->folder, G_FILE_TEST_EXISTS));
    g_assert_false(image_store_remove(fixture->store, "debian12", second->revision, used_by, NULL, &error));
    assert_error(error, HVM_ERROR_NOT_FOUND, second->revision);
    g_clear_error(&error);
    g_assert_true(image_store_remove(fixture->store, "debian12", NULL, used_by, NULL, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(count_entries(fixture, "store/images"), ==, 0);
    g_assert_false(image_store_remove(fixture->store, "debian12", NULL, used_by, NULL, &error));
    assert_error(error, HVM_ERROR_NOT_FOUND, "hvm template build");
}

typedef struct {
    ImageStore *store;
    gint entered; /* atomic */
    GError *error;
} Removal;

static char *entered_by(const char *template_name G_GNUC_UNUSED, const char *revision G_GNUC_UNUSED, gpointer data)
{
    return g_atomic_int_get((gint *)data) ? g_strdup("mpi0") : NULL;
}

static gpointer remove_all(gpointer data)
{
    Removal *removal = data;

    return GINT_TO_POINTER(image_store_remove(removal->store, "debian12", NULL, entered_by, &removal->entered, &removal->error));
}

/* A guest that is entered while its image is held is seen by a removal which was asked for in between. */
static void test_hold(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Image) image = NULL;
    Removal removal = {.store = fixture->store};
    int fd;

    if (skip_without_root())
        return;
    image = publish(fixture, "debian12", &error);
    g_assert_no_error(error);
    fd = image_store_hold(fixture->store, "debian12", image->revision, &error);
    g_assert_no_error(error);

    GThread *thread = g_thread_new("removal", remove_all, &removal);

    g_usleep(100000); /* time in which a removal that does not wait is done */
    g_atomic_int_set(&removal.entered, 1);
    close(fd);
    g_assert_false(g_thread_join(thread));
    assert_error(removal.error, HVM_ERROR_BUSY, "in use by guest 'mpi0'");
    g_clear_error(&removal.error);
    g_atomic_int_set(&removal.entered, 0);
    g_assert_nonnull(remove_all(&removal));
    g_assert_cmpint(image_store_hold(fixture->store, "debian12", image->revision, &error), ==, -1);
    assert_error(error, HVM_ERROR_NOT_FOUND, image->revision);
}

static void test_publish_refused(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(Settings) settings = settings_new(image_keys);
    g_autoptr(GError) error = NULL;
    g_autofree char *staging = NULL;
    int lock_fd = -1;

    if (skip_without_root())
        return;
    staging = image_store_stage(fixture->store, &lock_fd, &error);
    g_assert_no_error(error);
    put(staging, "root.raw", "root", 0);
    put(staging, "vmlinuz", "kernel", 0);
    g_assert_null(image_store_publish(fixture->store, staging, "debian12", settings, &error));
    assert_error(error, HVM_ERROR_STORAGE, "initrd");
    g_clear_error(&error);
    put(staging, "initrd", "", 0);
    g_assert_null(image_store_publish(fixture->store, staging, "debian12", settings, &error));
    assert_error(error, HVM_ERROR_STORAGE, "with something in it");
    g_clear_error(&error);
    put(staging, "initrd", "initrd", 0);
    g_assert_null(image_store_publish(fixture->store, staging, "../debian12", settings, &error));
    assert_error(error, HVM_ERROR_INVALID, "bad template name");
    image_store_discard(fixture->store, staging);
    close(lock_fd);
    g_assert_cmpuint(count_entries(fixture, "store/images"), ==, 0);
}

static gboolean known_a(const char *uuid, gpointer data G_GNUC_UNUSED)
{
    return strcmp(uuid, UUID_A) == 0;
}

static void make_guest_folder(Fixture *fixture, const char *uuid)
{
    g_autofree char *path = image_store_guest_folder(fixture->store, uuid, NULL);

    g_assert_cmpint(g_mkdir(path, 0711), ==, 0);
    put(path, "console.log", "text", 0);
}

/* Cut short just before it is moved into place: by an error, or by the death of the process. */
static void test_publish_cut_short(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
#ifdef HVM_FAULT_INJECTION
    g_autofree char *fault = path_of(fixture, "fault");
    g_autoptr(GError) error = NULL;
    int status = 0;
    pid_t pid;

    if (skip_without_root())
        return;
    g_setenv("HVM_FAULT_FILE", fault, TRUE);
    put(fixture->folder, "fault", "build.publish fail", 0);
    g_assert_null(publish(fixture, "debian12", &error));
    assert_error(error, HVM_ERROR_INTERNAL, "build.publish");
    g_assert_cmpuint(count_entries(fixture, "store/images"), ==, 0);
    put(fixture->folder, "fault", "build.publish kill", 0);
    pid = fork();
    if (pid == 0) {
        publish(fixture, "debian12", NULL);
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    g_unsetenv("HVM_FAULT_FILE");
    g_assert_cmpuint(count_entries(fixture, "store/images"), ==, 2); /* the staging folder, and debian12 with nothing in it */
    g_clear_error(&error);
    g_assert_true(image_store_recover(fixture->store, known_a, NULL, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(count_entries(fixture, "store/images"), ==, 0);
#else
    (void)fixture;
    g_test_skip("built without fault injection");
#endif
}

/* A staging folder whose holder was killed goes, and an unfinished guest; a live one, other guests and what is not ours stay. */
static void test_recover(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *live = NULL;
    g_autofree char *dead = path_of(fixture, "store/images/.staging-dead00");
    g_autofree char *dead_below = g_build_filename(dead, "work", "root", "etc", NULL);
    g_autofree char *removed = path_of(fixture, "store/images/.staging-removed-debian12-20261123T101500Z");
    g_autofree char *foreign = path_of(fixture, "store/guests/notes");
    g_autofree char *folder_a = path_of(fixture, "store/guests/" UUID_A);
    g_autofree char *folder_b = path_of(fixture, "store/guests/" UUID_B);
    g_autofree char *folder_c = path_of(fixture, "store/guests/" UUID_C);
    g_auto(GStrv) strays = NULL;
    int live_fd = -1;

    live = image_store_stage(fixture->store, &live_fd, &error);
    g_assert_no_error(error);
    g_assert_cmpint(g_mkdir_with_parents(dead_below, 0755), ==, 0);
    put(dead_below, "passwd", "x", 0);
    g_assert_cmpint(g_mkdir(removed, 0711), ==, 0);
    g_assert_cmpint(g_mkdir(foreign, 0711), ==, 0);
    make_guest_folder(fixture, UUID_A);
    make_guest_folder(fixture, UUID_B);
    make_guest_folder(fixture, UUID_C);
    g_assert_true(image_store_mark_guest(fixture->store, UUID_A, TRUE, &error));
    g_assert_true(image_store_mark_guest(fixture->store, UUID_B, TRUE, &error));
    g_assert_true(image_store_recover(fixture->store, known_a, NULL, &error));
    g_assert_no_error(error);
    g_assert_true(g_file_test(live, G_FILE_TEST_IS_DIR));
    g_assert_true(g_file_test(foreign, G_FILE_TEST_IS_DIR));
    g_assert_true(g_file_test(folder_a, G_FILE_TEST_IS_DIR));
    g_assert_false(g_file_test(folder_b, G_FILE_TEST_EXISTS));
    g_assert_true(g_file_test(folder_c, G_FILE_TEST_IS_DIR)); /* whole, and nobody knows it: not ours to judge */
    g_assert_cmpuint(count_entries(fixture, "store/unfinished"), ==, 0);
    strays = image_store_list_strays(fixture->store, known_a, NULL);
    g_assert_cmpuint(g_strv_length(strays), ==, 1);
    g_assert_cmpstr(strays[0], ==, folder_c);
    g_assert_false(g_file_test(dead, G_FILE_TEST_EXISTS));
    g_assert_false(g_file_test(removed, G_FILE_TEST_EXISTS));
    close(live_fd);
    g_assert_true(image_store_recover(fixture->store, known_a, NULL, &error));
    g_assert_false(g_file_test(live, G_FILE_TEST_EXISTS));
}

/* The lock of a builder that was killed with SIGKILL is gone with it. */
static void test_recover_killed(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    int ready[2];
    char byte = 0;
    pid_t pid;

    g_assert_cmpint(pipe(ready), ==, 0);
    pid = fork();
    if (pid == 0) {
        int lock_fd = -1;

        image_store_stage(fixture->store, &lock_fd, NULL);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
        _exit(1);
    }
    g_assert_cmpint(read(ready[0], &byte, 1), ==, 1);
    close(ready[0]);
    close(ready[1]);
    g_assert_true(image_store_recover(fixture->store, known_a, NULL, &error));
    g_assert_cmpuint(count_entries(fixture, "store/images"), ==, 1);
    kill(pid, SIGKILL);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    g_assert_true(image_store_recover(fixture->store, known_a, NULL, &error));
    g_assert_cmpuint(count_entries(fixture, "store/images"), ==, 0);
}

static void test_guest(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Image) image = NULL;
    g_autofree char *overlay = path_of(fixture, "store/guests/" UUID_A "/root.qcow2");
    g_autofree char *info = NULL;
    g_autofree char *command = g_strdup_printf("qemu-img info --output=json %s", overlay);
    struct stat status;

    if (skip_without_root())
        return;
    image = publish(fixture, "debian12", &error);
    g_assert_no_error(error);
    g_assert_true(image_store_create_guest(fixture->store, UUID_A, image, 8 * HVM_GIB, FALSE, &error));
    g_assert_no_error(error);
    g_assert_cmpint(lstat(overlay, &status), ==, 0);
    g_assert_cmpuint(status.st_uid, ==, QEMU_UID);
    g_assert_cmpuint(status.st_gid, ==, QEMU_GID);
    g_assert_cmpuint(status.st_mode & 07777, ==, 0600);
    g_assert_true(g_spawn_command_line_sync(command, &info, NULL, NULL, NULL));
    g_assert_nonnull(strstr(info, "\"virtual-size\": 8589934592"));
    g_assert_nonnull(strstr(info, "\"cluster-size\": 131072"));
    g_assert_nonnull(strstr(info, "\"extended-l2\": true"));
    g_assert_nonnull(strstr(info, "\"backing-filename-format\": \"raw\""));
    g_assert_nonnull(strstr(info, image->root_path));
    g_assert_cmpint(lstat(image->root_path, &status), ==, 0);
    g_assert_cmpuint(status.st_mode & 07777, ==, 0444);

    g_assert_false(image_store_create_guest(fixture->store, UUID_A, image, 8 * HVM_GIB, FALSE, &error));
    assert_error(error, HVM_ERROR_EXISTS, UUID_A);
    g_clear_error(&error);
    g_assert_true(g_file_test(overlay, G_FILE_TEST_EXISTS)); /* the other's is not taken away */
    g_assert_true(image_store_destroy_guest(fixture->store, UUID_A, &error));
    g_assert_true(image_store_destroy_guest(fixture->store, UUID_A, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(count_entries(fixture, "store/guests"), ==, 0);
}

/* The second of a kind is a copy of what qemu-img made for the first; the third is of another size, and qemu-img's again. */
static void test_overlay_copied(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    static const char *const uuids[] = {UUID_A, UUID_B, "11111111-2222-4333-8444-555555555555"};
    g_autoptr(GError) error = NULL;
    g_autoptr(Image) image = NULL;
    char *texts[3] = {NULL};
    gsize lengths[3] = {0};

    if (skip_without_root())
        return;
    image = publish(fixture, "debian12", &error);
    g_assert_no_error(error);
    for (int i = 0; i < 3; i++) {
        g_autofree char *path = g_strdup_printf("%s/store/guests/%s/root.qcow2", fixture->folder, uuids[i]);
        g_autofree char *check = g_strdup_printf("qemu-img check -q %s", path);
        int status = -1;

        g_assert_true(image_store_create_guest(fixture->store, uuids[i], image, (i < 2 ? 8 : 9) * HVM_GIB, FALSE, &error));
        g_assert_no_error(error);
        g_assert_true(g_file_get_contents(path, &texts[i], &lengths[i], NULL));
        g_assert_true(g_spawn_command_line_sync(check, NULL, NULL, &status, NULL));
        g_assert_cmpint(status, ==, 0);
    }
    g_assert_cmpmem(texts[0], lengths[0], texts[1], lengths[1]);
    g_assert_true(lengths[2] != lengths[0] || memcmp(texts[2], texts[0], lengths[0]) != 0);
    for (int i = 0; i < 3; i++)
        g_free(texts[i]);
}

static gboolean known_nothing(const char *uuid G_GNUC_UNUSED, gpointer data G_GNUC_UNUSED)
{
    return FALSE;
}

static void test_guest_in_memory(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Image) image = NULL;
    g_autofree char *disk = image_store_disk(fixture->store, UUID_A, TRUE);

    if (skip_without_root())
        return;
    if (!image_store_check_memory(fixture->store, 64 * HVM_MIB, &error)) {
        g_test_skip(error->message);
        return;
    }
    g_assert_false(image_store_check_memory(fixture->store, G_MAXUINT64 / 2, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_STORAGE);
    g_clear_error(&error);
    image = publish(fixture, "debian12", &error);
    g_assert_no_error(error);
    g_assert_true(image_store_create_guest(fixture->store, UUID_A, image, 8 * HVM_GIB, TRUE, &error));
    g_assert_no_error(error);
    g_assert_true(g_str_has_prefix(disk, "/dev/shm/hvm-"));
    g_assert_true(g_file_test(disk, G_FILE_TEST_IS_REGULAR));
    g_assert_true(image_store_destroy_guest(fixture->store, UUID_A, &error));
    g_assert_false(g_file_test(disk, G_FILE_TEST_EXISTS));
    g_assert_true(image_store_create_guest(fixture->store, UUID_A, image, 8 * HVM_GIB, TRUE, &error));
    g_assert_true(image_store_recover(fixture->store, known_nothing, NULL, &error));
    g_assert_false(g_file_test(disk, G_FILE_TEST_EXISTS));

    /* Anyone may have made the folder before us. */
    g_autofree char *folder = g_path_get_dirname(disk);
    g_autofree char *parent = g_path_get_dirname(folder);

    g_assert_no_errno(chown(parent, 1, 1));
    g_assert_false(image_store_check_memory(fixture->store, 1, &error));
    g_assert_nonnull(strstr(error->message, "is not safe"));
    g_assert_no_errno(rmdir(parent));
}

static void test_guest_refused(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    static const char *const bad[] = {"", "..", "../../x", "0F8FAD5B-d9cb-469f-a165-70867728950e", UUID_A "/..", NULL};
    g_autoptr(GError) error = NULL;
    g_autoptr(Image) image = NULL;

    if (skip_without_root())
        return;
    image = publish(fixture, "debian12", &error);
    g_assert_no_error(error);
    g_assert_false(image_store_create_guest(fixture->store, UUID_A, image, HVM_MIB, FALSE, &error));
    assert_error(error, HVM_ERROR_INVALID, "disk of 1 MiB is smaller than the image of template debian12 (64 MiB)");
    g_clear_error(&error);
    for (int i = 0; bad[i]; i++) {
        g_assert_false(image_store_create_guest(fixture->store, bad[i], image, HVM_GIB, FALSE, &error));
        assert_error(error, HVM_ERROR_INVALID, "bad UUID");
        g_clear_error(&error);
        g_assert_false(image_store_destroy_guest(fixture->store, bad[i], &error));
        assert_error(error, HVM_ERROR_INVALID, "bad UUID");
        g_clear_error(&error);
    }
    /* qemu-img fails: nothing stays. */
    g_free(image->root_path);
    image->root_path = g_strdup("/nonexistent/root.raw");
    g_assert_false(image_store_create_guest(fixture->store, UUID_A, image, HVM_GIB, FALSE, &error));
    assert_error(error, HVM_ERROR_STORAGE, "qemu-img");
    g_assert_cmpuint(count_entries(fixture, "store/guests"), ==, 0);
}

/* What a guest's folder may hold by malice or mistake leads nowhere when it is destroyed. */
static void test_destroy_links(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *victim = path_of(fixture, "victim");
    g_autofree char *precious = path_of(fixture, "victim/precious");
    g_autofree char *guest = path_of(fixture, "store/guests/" UUID_A);
    g_autofree char *guest_b = path_of(fixture, "store/guests/" UUID_B);
    g_autofree char *deep = g_build_filename(guest, "a", "b", NULL);
    g_autofree char *to_folder = g_build_filename(deep, "folder", NULL);
    g_autofree char *to_file = g_build_filename(guest, "file", NULL);
    g_autofree char *up = g_build_filename(guest, "up", NULL);

    g_assert_cmpint(g_mkdir(victim, 0755), ==, 0);
    put(victim, "precious", "data", 0);
    g_assert_cmpint(g_mkdir_with_parents(deep, 0755), ==, 0);
    g_assert_cmpint(symlink(victim, to_folder), ==, 0);
    g_assert_cmpint(symlink(precious, to_file), ==, 0);
    g_assert_cmpint(symlink("../../..", up), ==, 0);
    g_assert_true(image_store_destroy_guest(fixture->store, UUID_A, &error));
    g_assert_no_error(error);
    g_assert_false(g_file_test(guest, G_FILE_TEST_EXISTS));
    g_assert_true(g_file_test(precious, G_FILE_TEST_EXISTS));

    /* The folder itself is a link: the link goes, and no more. */
    g_assert_cmpint(symlink(victim, guest_b), ==, 0);
    g_assert_true(image_store_destroy_guest(fixture->store, UUID_B, &error));
    g_assert_no_error(error);
    g_assert_false(g_file_test(guest_b, G_FILE_TEST_IS_SYMLINK));
    g_assert_true(g_file_test(precious, G_FILE_TEST_EXISTS));
}

/* A bind mount of the same file system has the same st_dev: only the mount tells. */
static void test_destroy_mount(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *victim = path_of(fixture, "victim");
    g_autofree char *precious = path_of(fixture, "victim/precious");
    g_autofree char *guest = path_of(fixture, "store/guests/" UUID_A);
    g_autofree char *point = g_build_filename(guest, "mnt", NULL);

    if (skip_without_root())
        return;
    g_assert_cmpint(g_mkdir(victim, 0755), ==, 0);
    put(victim, "precious", "data", 0);
    g_assert_cmpint(g_mkdir_with_parents(point, 0755), ==, 0);
    if (mount(victim, point, NULL, MS_BIND, NULL) < 0) {
        g_test_skip("needs the right to mount");
        return;
    }
    g_assert_false(image_store_destroy_guest(fixture->store, UUID_A, &error));
    assert_error(error, HVM_ERROR_STORAGE, "mnt");
    g_clear_error(&error);
    g_assert_true(g_file_test(precious, G_FILE_TEST_EXISTS));
    g_assert_true(tree_unmount_below(guest, &error));
    g_assert_no_error(error);
    g_assert_true(image_store_destroy_guest(fixture->store, UUID_A, &error));
    g_assert_no_error(error);
    g_assert_true(g_file_test(precious, G_FILE_TEST_EXISTS));
}

/* A dead build's mounts are taken away before it is, also where the path has a space. */
static void test_recover_mount(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = path_of(fixture, "a store");
    g_autofree char *point = path_of(fixture, "a store/images/.staging-dead00/work/root/proc");
    g_autofree char *victim = path_of(fixture, "victim");
    g_autofree char *precious = path_of(fixture, "victim/precious");
    g_autoptr(ImageStore) store = image_store_open(path, 0, 0, &error);

    if (skip_without_root())
        return;
    g_assert_no_error(error);
    g_assert_cmpint(g_mkdir(victim, 0755), ==, 0);
    put(victim, "precious", "data", 0);
    g_assert_cmpint(g_mkdir_with_parents(point, 0755), ==, 0);
    if (mount(victim, point, NULL, MS_BIND, NULL) < 0) {
        g_test_skip("needs the right to mount");
        return;
    }
    g_assert_true(image_store_recover(store, known_a, NULL, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(count_entries(fixture, "a store/images"), ==, 0);
    g_assert_true(g_file_test(precious, G_FILE_TEST_EXISTS));
}

/* A full store says so, and keeps nothing. */
static void test_full(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Image) image = NULL;
    g_autoptr(ImageStore) small = NULL;
    g_autofree char *point = path_of(fixture, "small");
    g_autofree char *filler = path_of(fixture, "small/filler");
    g_autofree char *block = g_malloc0(65536);
    int fd;

    if (skip_without_root())
        return;
    image = publish(fixture, "debian12", &error);
    g_assert_no_error(error);
    g_assert_cmpint(g_mkdir(point, 0755), ==, 0);
    if (mount("none", point, "tmpfs", 0, "size=1m,mode=0711") < 0) {
        g_test_skip("needs the right to mount a tmpfs");
        return;
    }
    small = image_store_open(point, QEMU_UID, QEMU_GID, &error);
    g_assert_no_error(error);
    fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    while (write(fd, block, 65536) > 0)
        ;
    close(fd);
    g_assert_false(image_store_create_guest(small, UUID_A, image, HVM_GIB, FALSE, &error));
    g_assert_cmpuint(count_entries(fixture, "small/guests"), ==, 0);
    g_assert_cmpint(umount2(point, MNT_DETACH), ==, 0);
    assert_error(error, HVM_ERROR_STORAGE, " is full");
}

static void test_probes(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    /* What they answer is the file system's; they leave nothing behind, and a folder that is missing can do nothing. */
    image_store_probe_direct_io(fixture->folder);
    image_store_probe_reflink(fixture->folder);
    g_assert_cmpuint(count_entries(fixture, "."), ==, 1);
    g_assert_false(image_store_probe_direct_io("/nonexistent"));
    g_assert_false(image_store_probe_reflink("/nonexistent"));
    g_assert_false(image_store_probe_direct_io("/proc"));
    g_assert_false(image_store_probe_reflink("/dev/shm"));
}

#define ADD(name, func) g_test_add("/storage/" name, Fixture, NULL, set_up, func, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("open", test_open);
    ADD("publish-and-find", test_publish_and_find);
    ADD("revision-order", test_revision_order);
    ADD("not-found", test_not_found);
    for (gsize i = 0; i < G_N_ELEMENTS(damages); i++) {
        g_autofree char *path = g_strconcat("/storage/damaged/", damages[i].name, NULL);

        g_test_add(path, Fixture, &damages[i], set_up, test_damaged, tear_down);
    }
    ADD("remove", test_remove);
    ADD("hold", test_hold);
    ADD("publish-refused", test_publish_refused);
    ADD("publish-cut-short", test_publish_cut_short);
    ADD("recover", test_recover);
    ADD("recover-killed", test_recover_killed);
    ADD("recover-mount", test_recover_mount);
    ADD("guest", test_guest);
    ADD("overlay-copied", test_overlay_copied);
    ADD("guest-in-memory", test_guest_in_memory);
    ADD("guest-refused", test_guest_refused);
    ADD("destroy-links", test_destroy_links);
    ADD("destroy-mount", test_destroy_mount);
    ADD("full", test_full);
    ADD("probes", test_probes);
    return g_test_run();
}
