/* Run mmdebstrap: from the machine's package source to a folder with a root in it. */
#include "image_build_private.h"

#include "apt_source.h"
#include "guest_files.h"
#include "guest_root.h"
#include "hvm_error.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BOOTSTRAP_TIMEOUT_MS = 60 * 60 * 1000, APT_CONFIG_TIMEOUT_MS = 30000 };

#define APT_FOLDER "/etc/apt"
#define OS_RELEASE "/etc/os-release"

/* mmdebstrap's lines, and the share of the whole build that begins there (measured). */
static const struct {
    const char *line;
    const char *text;
    double from, to;
} stages[] = {
    {"I: running apt-get update", "reading the package lists", 0.02, 0.08},
    {"I: downloading packages", "downloading packages", 0.08, 0.15},
    {"I: extracting archives", "extracting the base system", 0.15, 0.22},
    {"I: installing essential packages", "installing the base system", 0.22, 0.45},
    {"I: installing remaining packages", "installing packages", 0.45, 0.88},
    {"I: cleaning package lists", "cleaning up", 0.88, 0.90},
};

static void stage_line(Build *build, const char *line)
{
    static const char *const steps[] = {"Get:", "Unpacking ", "Setting up ", "Selecting previously ", NULL};
    unsigned count = 0;

    for (gsize i = 0; i < G_N_ELEMENTS(stages); i++) {
        if (g_str_has_prefix(line, stages[i].line)) {
            build->fraction_step = 0;
            build->fraction_end = stages[i].to;
            build_progress(build, stages[i].text, stages[i].from);
            return;
        }
    }
    /* Each package prints about four of the lines below. */
    if (sscanf(line, "%*u upgraded, %u newly installed", &count) == 1 && count > 0)
        build->fraction_step = (build->fraction_end - build->fraction) / (4.0 * count);
    for (const char *const *step = steps; build->fraction_step > 0 && *step; step++) {
        if (g_str_has_prefix(line, *step) && build->fraction + build->fraction_step <= build->fraction_end) {
            build_progress(build, NULL, build->fraction + build->fraction_step);
            return;
        }
    }
}

static void on_line(const char *line, gpointer data)
{
    Build *build = data;

    /* The first tells what went wrong; those behind it only which command it was in. */
    if (!build->failed_line && (g_str_has_prefix(line, "E: ") || g_str_has_prefix(line, "dpkg: error ")))
        build->failed_line = hvm_escape(line, (gssize)MIN(strlen(line), 300));
    g_debug("%s", line);
    build_look_for_full_disk(build, line);
    stage_line(build, line);
}

/* What of the machine's apt configuration concerns how it fetches: proxies, retries, checks of dates. */
static char *read_apt_configuration(GError **error)
{
    static const char *const argv[] = {"apt-config", "dump", "Acquire", NULL};
    static const char *const left_out[] = {"Acquire::IndexTargets", "Acquire::Languages", "Acquire::CompressionTypes",
                                           "Acquire::Changelogs",   "Acquire::Gzip",      "Acquire::cdrom"};
    const ProcessOptions options = {.timeout_ms = APT_CONFIG_TIMEOUT_MS};
    g_autofree char *output = NULL;
    GString *text = g_string_new(NULL);
    g_auto(GStrv) lines = NULL;

    if (!process_run(argv, &options, HVM_ERROR_HOST, &output, error)) {
        g_string_free(text, TRUE);
        return NULL;
    }
    lines = g_strsplit(output, "\n", -1);
    for (char **line = lines; *line; line++) {
        gboolean wanted = g_str_has_prefix(*line, "Acquire::");

        for (gsize i = 0; wanted && i < G_N_ELEMENTS(left_out); i++)
            wanted = !g_str_has_prefix(*line, left_out[i]);
        if (wanted)
            g_string_append_printf(text, "%s\n", *line);
    }
    return g_string_free(text, FALSE);
}

static gboolean write_file(Build *build, const char *path, const char *text, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_NONE, 0600, &local))
        return TRUE;
    build_look_for_full_disk(build, local->message);
    g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot write %s: %s", path, local->message);
    return FALSE;
}

/* Files which must be there before the kernel's package is set up; *ret_hook copies them in. */
static gboolean write_early_files(Build *build, char **ret_hook, GError **error)
{
    g_autofree char *early = g_build_filename(build->work_path, "early", NULL);
    g_autofree char *etc = g_build_filename(early, "etc", NULL);
    g_autofree char *usr = g_build_filename(early, "usr", NULL);
    g_autofree char *etc_word = g_shell_quote(etc);
    g_autofree char *usr_word = g_shell_quote(usr);
    int fd = mkdir(early, 0755) == 0 ? open(early, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    gboolean good = fd >= 0;

    if (!good)
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot make %s: %s", early, g_strerror(errno));
    for (const GuestFile *file = guest_files_early; good && file->path; file++)
        good = guest_root_write(fd, file->path, file->mode, file->text, strlen(file->text), error);
    if (fd >= 0)
        close(fd);
    if (good)
        *ret_hook = g_strdup_printf("--essential-hook=copy-in %s %s /", etc_word, usr_word);
    return good;
}

/*
 * mmdebstrap mounts /proc, /sys and /dev and starts dozens of processes. In a mount and a PID namespace of its own both
 * go with the namespace's first process, which dies with unshare(1), which dies with us (process.h).
 */
static gboolean run_mmdebstrap(Build *build, const char *sources, const char *hook, const char *aptopt, GError **error)
{
    g_autofree char *include = g_strconcat("--include=", build->packages, NULL);
    g_autofree char *aptopt_argument = g_strconcat("--aptopt=", aptopt, NULL);
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    static const char *const environment[] = {"LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", NULL};
    const ProcessOptions options = {
        .environment = environment,
        .directory = build->work_path,
        .timeout_ms = BOOTSTRAP_TIMEOUT_MS,
        .cancellable = build->cancellable,
        .on_line = on_line,
        .data = build,
    };
    const char *const first[] = {"unshare",    "--pid",       "--fork",    "--kill-child",      "--mount", "--mount-proc",
                                 "mmdebstrap", "--mode=root", "--verbose", "--variant=minbase", "--format=directory",
                                 hook,         include,       aptopt_argument, NULL};

    for (const char *const *word = first; *word; word++)
        g_ptr_array_add(argv, g_strdup(*word));
    for (const char *const *option = guest_dpkg_options; *option; option++)
        g_ptr_array_add(argv, g_strconcat("--dpkgopt=", *option, NULL));
    g_ptr_array_add(argv, g_strdup(build->suite));
    g_ptr_array_add(argv, g_strdup(build->root_path));
    g_ptr_array_add(argv, g_strdup(sources));
    g_ptr_array_add(argv, NULL);

    g_autoptr(GError) local = NULL;

    if (process_run((const char *const *)argv->pdata, &options, HVM_ERROR_HOST, NULL, &local))
        return TRUE;
    if (build->failed_line && g_error_matches(local, HVM_ERROR, HVM_ERROR_HOST))
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "mmdebstrap failed to build template '%s': %s", build->template->name,
                    build->failed_line);
    else
        g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

gboolean bootstrap_run(Build *build, GError **error)
{
    g_autofree char *own_suite = apt_source_own_suite(OS_RELEASE);
    g_autofree char *sources = apt_source_for_suite(APT_FOLDER, own_suite, build->suite,
                                                    settings_get_bool(build->settings, "build", "security"), error);
    g_autofree char *sources_path = g_build_filename(build->work_path, "debian.sources", NULL);
    g_autofree char *aptopt_path = g_build_filename(build->work_path, "apt.conf", NULL);
    g_autofree char *aptopt = NULL;
    g_autofree char *hook = NULL;

    return sources && (aptopt = read_apt_configuration(error)) && write_file(build, sources_path, sources, error) &&
           write_file(build, aptopt_path, aptopt, error) && write_early_files(build, &hook, error) &&
           run_mmdebstrap(build, sources_path, hook, aptopt_path, error);
}
