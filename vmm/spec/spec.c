#include "spec.h"

#include "hvm_error.h"
#include "template_keys.h"
#include "units.h"

#include <string.h>

static void device_free(gpointer pointer)
{
    SpecDevice *device = pointer;

    g_free(device->name);
    g_free(device->address);
    g_free(device->kind);
    g_free(device->network);
    g_free(device);
}

static void spec_clear(gpointer pointer)
{
    Spec *spec = pointer;

    g_free(spec->name);
    g_free(spec->template_name);
    g_free(spec->kernel_arguments);
    g_free(spec->root_device);
    g_free(spec->machine);
    g_free(spec->disk_bus);
    g_free(spec->nic_model);
    g_free(spec->agent_port);
    g_clear_pointer(&spec->devices, g_ptr_array_unref);
    settings_free(spec->settings);
}

void spec_unref(Spec *spec)
{
    if (spec)
        g_atomic_rc_box_release_full(spec, spec_clear);
}

/* Position of `word` in a "a|b|c" list of a KEY_CHOICE row, whose order is that of the C enum. */
static int choice(const Settings *settings, const char *group, const char *key)
{
    const char *word = settings_get(settings, group, key);
    g_auto(GStrv) choices = g_strsplit(key_find(settings->table, group, key)->choices, "|", -1);

    for (int i = 0; word && choices[i]; i++)
        if (strcmp(choices[i], word) == 0)
            return i;
    return 0;
}

static gboolean refuse(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static gboolean refuse(GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, HVM_ERROR, HVM_ERROR_INVALID, text);
    return FALSE;
}

/* Exactly one of the three says which device; `group` is "device gpu0". */
static gboolean check_device(const Settings *settings, const char *group, GError **error)
{
    static const char *const ways[] = {"kind", "address", "interface"};
    g_autoptr(GString) found = g_string_new(NULL);
    unsigned count = 0;

    for (gsize i = 0; i < G_N_ELEMENTS(ways); i++) {
        const char *origin = settings_origin(settings, group, ways[i]);

        if (origin)
            g_string_append_printf(found, "%s%s (%s)", count++ ? " and " : "", ways[i], origin);
    }
    return count == 1 || refuse(error, "[%s]: wanted exactly one of kind, address and interface, found %s", group,
                                count ? found->str : "none");
}

static gboolean add_devices(Spec *spec, GError **error)
{
    g_auto(GStrv) names = settings_group_names(spec->settings, "device");

    for (char **name = names; *name; name++) {
        g_autofree char *group = g_strconcat("device ", *name, NULL);
        SpecDevice *device;

        if (!check_device(spec->settings, group, error))
            return FALSE;
        device = g_new0(SpecDevice, 1);
        device->name = g_strdup(*name);
        device->address = g_strdup(settings_get(spec->settings, group, "address"));
        device->kind = g_strdup(settings_get(spec->settings, group, "kind"));
        device->network = g_strdup(settings_get(spec->settings, group, "interface"));
        device->locality = (Locality)choice(spec->settings, group, "locality");
        g_ptr_array_add(spec->devices, device);
    }
    return spec->devices->len <= SPEC_DEVICES_MAX ||
           refuse(error, "[device *]: wanted at most %d, found %u", SPEC_DEVICES_MAX, spec->devices->len);
}

/* What no single key can tell. */
static gboolean check_together(const Spec *spec, GError **error)
{
    const char *pages = settings_get(spec->settings, "memory", "pages");
    const char *size = settings_get(spec->settings, "memory", "size");

    if (spec->page_bytes != PAGES_AUTO && spec->memory_bytes % spec->page_bytes)
        return refuse(error, "[memory] size: wanted a multiple of the page size %s, found %s", pages, size);
    if (spec->memory_bytes % HVM_MIB)
        return refuse(error, "[memory] size: wanted whole MiB, found %s", size);
    if (spec->spread && spec->numa_nodes)
        return refuse(error, "[cpu] spread and numa: wanted one of them, found both");
    if (spec->numa_nodes > spec->cpus)
        return refuse(error, "[cpu] numa: wanted at most as many nodes as vCPUs (%u), found %u", spec->cpus,
                      spec->numa_nodes);
    if (spec->sockets > spec->cpus)
        return refuse(error, "[cpu] sockets: wanted at most as many as vCPUs (%u), found %u", spec->cpus, spec->sockets);
    return TRUE;
}

Spec *spec_new_from_settings(const char *name, const char *template_name, const Settings *settings, GError **error)
{
    static const guint64 page_sizes[] = {PAGES_AUTO, 4 * HVM_KIB, 2 * HVM_MIB, HVM_GIB};

    if (!name_check(name, "guest name", error) || !name_check(template_name, "template name", error))
        return NULL;

    g_autoptr(Spec) spec = g_atomic_rc_box_new0(Spec);
    Settings *all = settings_copy(settings);

    settings_add_defaults(all);
    spec->settings = all;
    spec->name = g_strdup(name);
    spec->template_name = g_strdup(template_name);
    spec->cpus = (unsigned)settings_get_uint(all, "cpu", "count");
    spec->smt = (SmtPolicy)choice(all, "cpu", "smt");
    spec->numa_nodes = (unsigned)settings_get_uint(all, "cpu", "numa");
    spec->sockets = (unsigned)settings_get_uint(all, "cpu", "sockets");
    spec->spread = settings_get_bool(all, "cpu", "spread");
    spec->emulator = (EmulatorPolicy)choice(all, "cpu", "emulator");
    spec->memory_bytes = settings_get_size(all, "memory", "size");
    spec->page_bytes = page_sizes[choice(all, "memory", "pages")];
    spec->disk_bytes = settings_get_size(all, "disk root", "size");
    spec->disk_in_memory = (InMemory)choice(all, "disk root", "in-memory");
    spec->network = g_strcmp0(settings_get(all, "network default", "kind"), "none") == 0 ? NETWORK_NONE : NETWORK_NAT;
    spec->accel = (AccelWant)choice(all, "boot", "accel");
    spec->autostart = settings_get_bool(all, "boot", "autostart");
    spec->boot_timeout_s = (unsigned)settings_get_uint(all, "boot", "timeout");
    spec->init = (InitKind)choice(all, "boot", "init");
    spec->kaslr = settings_get_bool(all, "boot", "kaslr");
    spec->kernel_arguments = g_strdup(settings_get(all, "boot", "kernel-arguments"));
    spec->root_device = g_strdup(settings_get(all, "build", "root-device"));
    spec->machine = g_strdup(settings_get(all, "os", "machine"));
    spec->disk_bus = g_strdup(settings_get(all, "os", "disk-bus"));
    spec->nic_model = g_strdup(settings_get(all, "os", "nic-model"));
    spec->agent_port = g_strdup(settings_get(all, "os", "agent-port"));
    spec->devices = g_ptr_array_new_with_free_func(device_free);
    if (!add_devices(spec, error) || !check_together(spec, error)) {
        g_prefix_error(error, "guest '%s': ", name);
        return NULL;
    }
    return g_steal_pointer(&spec);
}

Spec *spec_new(const char *name, const char *template_name, const Settings *template_settings, const Settings *image_settings,
               const Settings *request, GError **error)
{
    g_autoptr(Settings) all = settings_new(template_keys);

    if (image_settings)
        settings_merge(all, image_settings);
    settings_merge(all, template_settings);
    settings_merge(all, request);
    return spec_new_from_settings(name, template_name, all, error);
}
