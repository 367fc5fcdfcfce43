#include "image_build_private.h"

#include "hvm_error.h"
#include "os_profile.h"
#include "step.h"
#include "tree.h"
#include "undo.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOCK_POLL_US = 200000 };

void build_progress(Build *build, const char *text, double fraction)
{
    if (text) {
        g_free(build->text);
        build->text = g_strdup(text);
    }
    build->fraction = fraction;
    if (build->progress)
        build->progress(build->text, fraction, build->data);
}

void build_look_for_full_disk(Build *build, const char *line)
{
    if (strstr(line, "No space left on device") || strstr(line, "Disk quota exceeded") ||
        strstr(line, "You don't have enough free space"))
        build->disk_full = TRUE;
}

static gboolean refuse(const Template *template, const char *what, GError **error)
{
    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "template '%s': %s", template->name, what);
    return FALSE;
}

/* Package names (Debian policy 5.6.1) as mmdebstrap's list; they become an argument, and nothing else may get into it. */
static char *read_packages(const Template *template, const char *text, GError **error)
{
    g_auto(GStrv) words = g_strsplit_set(text ? text : "", " \t", -1);
    GString *list = g_string_new(NULL);

    for (char **word = words; *word; word++) {
        gboolean good = g_ascii_islower(**word) || g_ascii_isdigit(**word);

        if (!**word)
            continue;
        for (const char *c = *word; good && *c; c++)
            good = g_ascii_islower(*c) || g_ascii_isdigit(*c) || strchr("+-.", *c);
        if (!good) {
            g_autofree char *shown = hvm_escape(*word, -1);

            g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "template '%s': [build] packages: '%s' is no package name",
                        template->name, shown);
            g_string_free(list, TRUE);
            return NULL;
        }
        g_string_append_printf(list, "%s%s", list->len ? "," : "", *word);
    }
    if (list->len == 0)
        refuse(template, "[build] packages is not set", error);
    return g_string_free(list, list->len == 0);
}

static gboolean check_tools(GError **error)
{
    static const char *const tools[][2] = {
        {"mmdebstrap", "mmdebstrap"}, {"unshare", "util-linux"}, {"mke2fs", "e2fsprogs"}, {"apt-config", "apt"}};

    for (gsize i = 0; i < G_N_ELEMENTS(tools); i++) {
        g_autofree char *path = g_find_program_in_path(tools[i][0]);

        if (!path) {
            g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot build an image: %s is missing; install the package %s",
                        tools[i][0], tools[i][1]);
            return FALSE;
        }
    }
    return TRUE;
}

/* Everything that can be refused before any work is done. */
static gboolean prepare(Build *build, GError **error)
{
    const Template *template = build->template;

    if (geteuid() != 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_DENIED, "cannot build an image of template '%s': wanted root, found uid %u",
                    template->name, (unsigned)geteuid());
        return FALSE;
    }
    if (!settings_get(build->settings, "build", "method"))
        return refuse(template, "it has no [build] method, so that no image can be built", error);
    build->suite = g_strdup(settings_get(build->settings, "build", "suite"));
    if (!build->suite)
        return refuse(template, "[build] suite is not set", error);
    build->packages = read_packages(template, settings_get(build->settings, "build", "packages"), error);
    if (!build->packages)
        return FALSE;
    if (!g_file_test(build->agent_path, G_FILE_TEST_IS_REGULAR)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot build an image: the agent's binary %s is missing",
                    build->agent_path);
        return FALSE;
    }

    g_autofree char *folder = g_path_get_dirname(build->agent_path);

    build->init_path = g_build_filename(folder, "hvm-init", NULL);
    if (!g_file_test(build->init_path, G_FILE_TEST_IS_REGULAR)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot build an image: %s, which belongs beside the agent, is missing",
                    build->init_path);
        return FALSE;
    }
    return check_tools(error);
}

/* One build of a template at a time. -1 and `error` where it cannot be had, or the wait was cancelled. */
static int lock_template(Build *build, GError **error)
{
    g_autofree char *name = g_strdup_printf(".build-%s.lock", build->template->name);
    g_autofree char *path = g_build_filename(image_store_path(build->store), "images", name, NULL);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    int result = -1;

    for (gboolean said = FALSE; fd >= 0 && (result = flock(fd, LOCK_EX | LOCK_NB)) < 0; said = TRUE) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            break;
        if (!said)
            build_progress(build, "waiting for another build of this template", -1);
        if (g_cancellable_set_error_if_cancelled(build->cancellable, error)) {
            close(fd);
            return -1;
        }
        g_usleep(LOCK_POLL_US);
    }
    if (result < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot lock %s: %s", path, g_strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

/* The newest image's revision, or NULL. Caller frees. */
static char *newest_revision(const Build *build)
{
    g_autoptr(Image) image = image_store_find(build->store, build->template->name, NULL, NULL);

    return image ? g_strdup(image->revision) : NULL;
}

static gboolean discard_staging(gpointer pointer, GError **error G_GNUC_UNUSED)
{
    Build *build = pointer;

    image_store_discard(build->store, build->staging);
    return TRUE;
}

/* The work folder goes before publishing: all that is left in staging is the image. */
static gboolean remove_work(Build *build, GError **error)
{
    int fd = open(build->staging, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    gboolean good;

    if (fd < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot open %s: %s", build->staging, g_strerror(errno));
        return FALSE;
    }
    good = tree_unmount_below(build->work_path, error) && tree_remove(fd, "work", build->work_path, error);
    close(fd);
    return good;
}

static gboolean check_cancelled(Build *build, GError **error)
{
    return !g_cancellable_set_error_if_cancelled(build->cancellable, error);
}

/* From an empty staging folder to a published image. */
static Image *build_staged(Build *build, const Settings *profile, GError **error)
{
    build->work_path = g_build_filename(build->staging, "work", NULL);
    build->root_path = g_build_filename(build->work_path, "root", NULL);
    if (mkdir(build->work_path, 0700) < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot make %s: %s", build->work_path, g_strerror(errno));
        return NULL;
    }
    if (!step_reached("build.staging", error) || !bootstrap_run(build, error))
        return NULL;
    build_progress(build, "configuring the guest", 0.90);
    if (!guest_setup_run(build, error) || !step_reached("build.root", error))
        return NULL;
    build_progress(build, "making the disk image", 0.92);
    if (!root_image_make(build, error) || !remove_work(build, error) || !step_reached("build.image", error) ||
        !check_cancelled(build, error))
        return NULL;
    build_progress(build, "checking and publishing", 0.95);
    return image_store_publish(build->store, build->staging, build->template->name, profile, error);
}

static Image *build_locked(Build *build, GError **error)
{
    g_autofree char *note = NULL;
    g_autoptr(Settings) profile = NULL;
    g_autoptr(Undo) undo = undo_new();
    g_autoptr(Image) image = NULL;
    const char *os_id = settings_get(build->settings, "os", "id");
    int staging_fd = -1;

    profile = os_id ? os_profile_resolve(os_id, &note, error) : settings_new(build->settings->table);
    if (!profile)
        return NULL;
    if (note)
        build_progress(build, note, 0.0);
    build->profile = profile;
    build->staging = image_store_stage(build->store, &staging_fd, error);
    if (!build->staging)
        return NULL;
    undo_push(undo, "staging folder", discard_staging, build, NULL);
    image = build_staged(build, profile, error);
    if (image)
        undo_commit(undo);
    else
        undo_roll_back(undo);
    close(staging_fd);
    if (image)
        build_progress(build, "done", 1.0);
    return g_steal_pointer(&image);
}

static Image *build_waiting(Build *build, GError **error)
{
    g_autofree char *before = newest_revision(build);
    int lock_fd = lock_template(build, error);
    Image *image = NULL;

    if (lock_fd < 0)
        return NULL;

    g_autofree char *after = newest_revision(build);

    /* Published since this build was asked for: that is what was wanted. */
    if (after && g_strcmp0(before, after) != 0)
        image = image_store_find(build->store, build->template->name, after, error);
    else
        image = build_locked(build, error);
    close(lock_fd);
    return image;
}

static void build_clear(Build *build)
{
    settings_free(build->settings);
    g_free(build->init_path);
    g_free(build->suite);
    g_free(build->packages);
    g_free(build->staging);
    g_free(build->work_path);
    g_free(build->root_path);
    g_free(build->text);
    g_free(build->failed_line);
}

/* A full disk is told by the tools' text only, so that it comes to be known late. */
static void propagate(const Build *build, GError *local, GError **error)
{
    if (build->disk_full || strstr(local->message, g_strerror(ENOSPC))) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "image store %s is full while building %s",
                    image_store_path(build->store), build->template->name);
        g_error_free(local);
    } else {
        g_propagate_error(error, local);
    }
}

Image *image_build(ImageStore *store, const Template *template, const char *agent_path, BuildProgressFunc progress,
                   gpointer data, GCancellable *cancellable, GError **error)
{
    Build build = {
        .store = store,
        .template = template,
        .settings = settings_copy(template->settings),
        .agent_path = agent_path,
        .progress = progress,
        .data = data,
        .cancellable = cancellable,
    };
    GError *local = NULL;

    settings_add_defaults(build.settings);

    Image *image = prepare(&build, &local) ? build_waiting(&build, &local) : NULL;

    if (!image)
        propagate(&build, local, error);
    build_clear(&build);
    return image;
}
