/* Make a root into a guest's root: agent, configuration, no identity; and take its kernel out. */
#include "image_build_private.h"

#include "agent_boot.h"
#include "apt_source.h"
#include "guest_files.h"
#include "guest_root.h"
#include "hvm_error.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define AGENT_PATH "usr/lib/hvm/hvm-agent"
#define SOURCES_FOLDER "etc/apt/sources.list.d"

/* Copies the newest kernel and its initrd beside the image. */
static gboolean take_kernel(Build *build, int root_fd, GError **error)
{
    g_autofree char *kernel = guest_root_find_last(root_fd, "boot", "vmlinuz-*");
    g_autofree char *version = kernel ? g_strdup(kernel + strlen("vmlinuz-")) : NULL;
    g_autofree char *kernel_path = g_strconcat("boot/", kernel, NULL);
    g_autofree char *initrd_path = g_strconcat("boot/initrd.img-", version, NULL);
    g_autofree char *kernel_to = g_build_filename(build->staging, "vmlinuz", NULL);
    g_autofree char *initrd_to = g_build_filename(build->staging, "initrd", NULL);

    if (!kernel || !guest_root_exists(root_fd, initrd_path)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                    "template '%s': [build] packages: found no %s in /boot after installing them: wanted a kernel package",
                    build->template->name, kernel ? "initrd" : "kernel");
        return FALSE;
    }
    return guest_root_copy_out(root_fd, kernel_path, kernel_to, error) &&
           guest_root_copy_out(root_fd, initrd_path, initrd_to, error) &&
           agent_boot_make(build, root_fd, version, error);
}

/* The guest keeps its package source, unless it holds a password. */
static gboolean drop_secret_sources(Build *build, int root_fd, GError **error)
{
    g_autofree char *path = g_build_filename(build->work_path, "debian.sources", NULL);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, error))
        return FALSE;
    return !apt_source_has_secret(text) || guest_root_remove_matching(root_fd, SOURCES_FOLDER, "*", error);
}

static gboolean write_files(Build *build, int root_fd, GError **error)
{
    /* noinit_itable: a grown file system would else write its inode tables in the background, into each overlay. */
    g_autofree char *fstab = g_strdup_printf("%s / ext4 noatime,discard,noinit_itable,errors=remount-ro 0 0\n",
                                             settings_get(build->settings, "build", "root-device"));

    for (const GuestRemoval *removal = guest_removals; removal->pattern; removal++)
        if (!guest_root_remove_matching(root_fd, *removal->folder ? removal->folder : ".", removal->pattern, error))
            return FALSE;
    for (const GuestFile *file = guest_files; file->path; file++)
        if (!guest_root_write(root_fd, file->path, file->mode, file->text, strlen(file->text), error))
            return FALSE;
    for (const GuestLink *link = guest_links; link->path; link++)
        if ((!link->needs || guest_root_exists(root_fd, link->needs)) &&
            !guest_root_link(root_fd, link->path, link->target, error))
            return FALSE;
    return guest_root_write(root_fd, "etc/fstab", 0644, fstab, strlen(fstab), error) &&
           guest_root_copy_in(root_fd, AGENT_PATH, 0755, build->agent_path, error);
}

gboolean guest_setup_run(Build *build, GError **error)
{
    int root_fd = open(build->root_path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    gboolean good;

    if (root_fd < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot open %s: %s", build->root_path, g_strerror(errno));
        return FALSE;
    }
    good = take_kernel(build, root_fd, error) && write_files(build, root_fd, error) &&
           drop_secret_sources(build, root_fd, error);
    close(root_fd);
    return good;
}
