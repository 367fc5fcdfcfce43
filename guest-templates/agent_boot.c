#include "agent_boot.h"

#include "guest_root.h"
#include "hvm_error.h"
#include "process.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { UNPACK_TIMEOUT_MS = 60000 };

/* Drivers by what [os] says. What a kernel of that age does not have as a module of its own is built in. */
typedef struct {
    const char *key;
    const char *value;
    const char *modules[4];
} Drivers;

static const Drivers drivers[] = {
    {"disk-bus", "virtio", {"virtio_pci", "virtio_blk"}}, {"disk-bus", "sata", {"ahci", "sd_mod"}},
    {"disk-bus", "ide", {"ata_piix", "sd_mod"}},          {"agent-port", "virtio", {"virtio_pci", "virtio_console"}},
    {"nic-model", "virtio", {"virtio_pci", "virtio_net"}}, {"nic-model", "e1000e", {"e1000e"}},
    {"nic-model", "e1000", {"e1000"}},                    {"nic-model", "rtl8139", {"8139cp"}},
};

/* ---- which modules, in which order ---- */

/* "kernel/drivers/virtio/virtio_pci.ko.xz: ..." -> "virtio_pci": with '_' for '-', as the kernel itself names it. */
static char *module_name(const char *path, gsize length)
{
    g_autofree char *whole = g_strndup(path, length);
    char *name = g_path_get_basename(whole);

    name[strcspn(name, ".")] = '\0';
    return g_strdelimit(name, "-", '_');
}

/* The line of `text` whose first word is the path of module `name`, or NULL. */
static const char *find_line(const char *text, const char *name)
{
    for (const char *line = text; *line;) {
        gsize length = strcspn(line, "\n");
        g_autofree char *found = module_name(line, MIN(strcspn(line, ":"), length));

        if (strcmp(found, name) == 0)
            return line;
        line += length;
        line += strspn(line, "\n");
    }
    return NULL;
}

static void add_once(GPtrArray *list, const char *path)
{
    if (!g_ptr_array_find_with_equal_func(list, path, g_str_equal, NULL))
        g_ptr_array_add(list, g_strdup(path));
}

gboolean agent_boot_list_modules(const char *dep, const char *builtin, const char *const *wanted, GPtrArray *list,
                                 const char **ret_missing)
{
    for (; *wanted; wanted++) {
        const char *line = find_line(dep, *wanted);

        if (!line) {
            if (find_line(builtin, *wanted))
                continue;
            *ret_missing = *wanted;
            return FALSE;
        }
        g_autofree char *copy = g_strndup(line, strcspn(line, "\n"));
        g_auto(GStrv) words = g_strsplit_set(g_strdelimit(copy, ":", ' '), " ", -1);

        /* What a module needs stands behind it, what is needed first last. */
        for (guint i = g_strv_length(words); i > 0; i--)
            if (*words[i - 1])
                add_once(list, words[i - 1]);
    }
    return TRUE;
}

/* What the image's guests will have: the template's word, else the profile's, else virtio. */
static const char *hardware(const Build *build, const char *key)
{
    const char *value = settings_get(build->template->settings, "os", key);

    if (!value)
        value = settings_get(build->profile, "os", key);
    return value ? value : "virtio";
}

static void add_drivers(const Build *build, const char *key, GPtrArray *wanted)
{
    const char *value = hardware(build, key);

    for (gsize i = 0; i < G_N_ELEMENTS(drivers); i++)
        if (strcmp(drivers[i].key, key) == 0 && strcmp(drivers[i].value, value) == 0)
            for (const char *const *name = drivers[i].modules; *name; name++)
                g_ptr_array_add(wanted, (gpointer)*name);
}

/* ---- the archive ---- */

typedef struct {
    Build *build;
    int root_fd;
    char *folder; /* of the kernel's modules, in the root */
    char *dep;
    char *builtin;
    GByteArray *archive;
    GPtrArray *packed; /* paths that are in it */
} Initrd;

static void initrd_clear(Initrd *initrd)
{
    g_free(initrd->folder);
    g_free(initrd->dep);
    g_free(initrd->builtin);
    g_byte_array_unref(initrd->archive);
    g_ptr_array_unref(initrd->packed);
}

/* The bytes of a file in the root; they come by way of the work folder. */
static gboolean read_file(Initrd *initrd, const char *name, char **ret_text, gsize *ret_length, GError **error)
{
    g_autofree char *from = g_build_filename(initrd->folder, name, NULL);
    g_autofree char *base = g_path_get_basename(name);
    g_autofree char *to = g_build_filename(initrd->build->work_path, base, NULL);
    gboolean good = guest_root_copy_out(initrd->root_fd, from, to, error);
    const ProcessOptions options = {.timeout_ms = UNPACK_TIMEOUT_MS, .cancellable = initrd->build->cancellable};
    const char *tool = g_str_has_suffix(to, ".xz") ? "xz" : g_str_has_suffix(to, ".zst") ? "zstd" : g_str_has_suffix(to, ".gz") ? "gzip" : NULL;
    const char *argv[] = {tool, "-d", "-q", "-f", to, NULL};

    if (good && tool) {
        good = process_run(argv, &options, HVM_ERROR_STORAGE, NULL, error);
        if (strcmp(tool, "zstd") == 0)
            unlink(to); /* the others do so */
        *strrchr(to, '.') = '\0';
    }
    good = good && g_file_get_contents(to, ret_text, ret_length, error);
    unlink(to);
    return good;
}

/* Puts the modules of `list` in, and the list itself under `name`. */
static gboolean pack_list(Initrd *initrd, const char *name, GPtrArray *list, GError **error)
{
    g_autoptr(GString) lines = g_string_new(NULL);

    for (guint i = 0; i < list->len; i++) {
        const char *path = list->pdata[i];
        g_autofree char *module = module_name(path, strlen(path));
        g_autofree char *file = g_strconcat(module, ".ko", NULL);
        g_autofree char *text = NULL;
        gsize length = 0;

        g_string_append_printf(lines, "/%s\n", file);
        if (g_ptr_array_find_with_equal_func(initrd->packed, path, g_str_equal, NULL))
            continue;
        if (!read_file(initrd, path, &text, &length, error))
            return FALSE;
        cpio_append(initrd->archive, file, S_IFREG | 0444, text, length);
        g_ptr_array_add(initrd->packed, g_strdup(path));
    }
    cpio_append(initrd->archive, name, S_IFREG | 0444, lines->str, lines->len);
    return TRUE;
}

static gboolean pack_init(Initrd *initrd, GError **error)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) local = NULL;
    gsize length = 0;

    if (!g_file_get_contents(initrd->build->init_path, &text, &length, &local)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot build an image: %s", local->message);
        return FALSE;
    }
    cpio_append(initrd->archive, "init", S_IFREG | 0555, text, length);
    return TRUE;
}

/* FALSE with ret_why where this kernel cannot do it. */
static gboolean pack_modules(Initrd *initrd, char **ret_why, GError **error)
{
    static const char *const root_system[] = {"ext4", NULL};
    static const char *const helpers[][2] = {{"crc32c_generic"}, {"pvpanic"}, {"pvpanic_mmio"}};
    g_autoptr(GPtrArray) wanted = g_ptr_array_new();
    g_autoptr(GPtrArray) wanted_network = g_ptr_array_new();
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) network = g_ptr_array_new_with_free_func(g_free);
    const char *missing = NULL;

    add_drivers(initrd->build, "agent-port", wanted); /* first: the kernel asks for the ports' names in the background */
    add_drivers(initrd->build, "disk-bus", wanted);
    g_ptr_array_add(wanted, NULL);
    add_drivers(initrd->build, "nic-model", wanted_network);
    g_ptr_array_add(wanted_network, NULL);
    if (!agent_boot_list_modules(initrd->dep, initrd->builtin, (const char *const *)wanted->pdata, list, &missing)) {
        *ret_why = g_strdup_printf("the kernel has no module %s", missing);
        return FALSE;
    }
    /* ext4 asks for crc32c by its name in the crypto layer, which no module.dep tells; a panic becomes an event. */
    for (gsize i = 0; i < G_N_ELEMENTS(helpers); i++)
        agent_boot_list_modules(initrd->dep, initrd->builtin, helpers[i], list, &missing);
    if (!agent_boot_list_modules(initrd->dep, initrd->builtin, root_system, list, &missing)) {
        *ret_why = g_strdup_printf("the kernel has no module %s", missing);
        return FALSE;
    }
    /* A guest without this card can do without. */
    agent_boot_list_modules(initrd->dep, initrd->builtin, (const char *const *)wanted_network->pdata, network, &missing);
    for (guint i = network->len; i > 0; i--)
        if (g_ptr_array_find_with_equal_func(list, network->pdata[i - 1], g_str_equal, NULL))
            g_ptr_array_remove_index(network, i - 1);
    return pack_list(initrd, "modules", list, error) && pack_list(initrd, "modules.network", network, error);
}

static gboolean make_initrd(Build *build, int root_fd, const char *version, char **ret_why, GError **error)
{
    g_autofree char *path = g_build_filename(build->staging, "initrd-agent", NULL);
    Initrd initrd = {
        .build = build,
        .root_fd = root_fd,
        .folder = g_build_filename("lib/modules", version, NULL),
        .archive = g_byte_array_new(),
        .packed = g_ptr_array_new_with_free_func(g_free),
    };
    gboolean good = FALSE;

    if (strcmp(hardware(build, "agent-port"), "virtio") != 0)
        *ret_why = g_strdup("the agent's port is no virtio port");
    else
        good = pack_init(&initrd, error) && read_file(&initrd, "modules.dep", &initrd.dep, NULL, error) &&
               read_file(&initrd, "modules.builtin", &initrd.builtin, NULL, error) && pack_modules(&initrd, ret_why, error);
    if (good) {
        cpio_finish(initrd.archive);
        good = g_file_set_contents_full(path, (const char *)initrd.archive->data, initrd.archive->len,
                                        G_FILE_SET_CONTENTS_NONE, 0444, error);
    }
    initrd_clear(&initrd);
    return good;
}

gboolean agent_boot_make(Build *build, int root_fd, const char *version, GError **error)
{
    g_autofree char *kernel = g_build_filename(build->staging, "vmlinuz", NULL);
    g_autofree char *vmlinux = g_build_filename(build->staging, "vmlinux", NULL);
    g_autofree char *why = NULL;
    g_autofree char *why_packed = NULL;
    g_autofree char *text = NULL;

    if (!make_initrd(build, root_fd, version, &why, error)) {
        if (!why)
            return FALSE;
        if (g_strcmp0(settings_get(build->settings, "boot", "init"), "agent") == 0) {
            g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "template '%s': [boot] init=agent: %s", build->template->name, why);
            return FALSE;
        }
        text = g_strdup_printf("no boot to the agent alone: %s", why);
        build_progress(build, text, build->fraction);
        return TRUE;
    }
    if (!vmlinux_unpack(build, kernel, vmlinux, &why_packed, error)) {
        if (!why_packed)
            return FALSE;
        text = g_strdup_printf("the kernel stays packed: %s", why_packed);
        build_progress(build, text, build->fraction);
    }
    return TRUE;
}
