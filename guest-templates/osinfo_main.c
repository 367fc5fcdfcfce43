/*
 * hvm-osinfo: print what libosinfo's database says of one operating system, as key-file text.
 *
 * Usage: hvm-osinfo [--] ID, where ID is a short id (debian11) or the URL of an entry. A program of its own because the
 * database takes 50 MB once loaded. For an unknown short id the newest known release of the same system that is
 * not newer is taken, and [profile] resolved names it; it is left out where there is none.
 */
#include <osinfo/osinfo.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static OsinfoOs *find_os(OsinfoOsList *list, const char *id)
{
    for (int i = 0; i < osinfo_list_get_length(OSINFO_LIST(list)); i++) {
        OsinfoEntity *entity = osinfo_list_get_nth(OSINFO_LIST(list), i);

        if (g_strcmp0(osinfo_product_get_short_id(OSINFO_PRODUCT(entity)), id) == 0 ||
            g_strcmp0(osinfo_entity_get_id(entity), id) == 0)
            return OSINFO_OS(entity);
    }
    return NULL;
}

/* Splits "scientificlinux5.11" into the family's length and 5, 11. FALSE where there is no version at the end. */
static gboolean split_id(const char *id, gsize *ret_family, guint64 ret_version[2])
{
    gsize length = strlen(id);
    gsize family = length;
    char *end = NULL;

    while (family > 0 && (g_ascii_isdigit(id[family - 1]) || id[family - 1] == '.'))
        family--;
    if (family == 0 || family == length || id[family] == '.')
        return FALSE;
    ret_version[0] = g_ascii_strtoull(id + family, &end, 10);
    ret_version[1] = *end == '.' ? g_ascii_strtoull(end + 1, NULL, 10) : 0;
    *ret_family = family;
    return TRUE;
}

static int compare_versions(const guint64 a[2], const guint64 b[2])
{
    return a[0] != b[0] ? (a[0] > b[0] ? 1 : -1) : (a[1] > b[1]) - (a[1] < b[1]);
}

/* The newest release of the family that is not newer than `id`, or NULL. */
static OsinfoOs *find_older(OsinfoOsList *list, const char *id)
{
    OsinfoOs *best = NULL;
    guint64 wanted[2], best_version[2] = {0, 0};
    gsize family = 0;

    if (!split_id(id, &family, wanted))
        return NULL;
    for (int i = 0; i < osinfo_list_get_length(OSINFO_LIST(list)); i++) {
        OsinfoEntity *entity = osinfo_list_get_nth(OSINFO_LIST(list), i);
        const char *other = osinfo_product_get_short_id(OSINFO_PRODUCT(entity));
        guint64 version[2];
        gsize other_family = 0;

        if (!other || !split_id(other, &other_family, version) || other_family != family ||
            strncmp(other, id, family) != 0 || compare_versions(version, wanted) > 0)
            continue;
        if (!best || compare_versions(version, best_version) > 0) {
            best = OSINFO_OS(entity);
            memcpy(best_version, version, sizeof version);
        }
    }
    return best;
}

static gboolean has_device(OsinfoDeviceList *devices, const char *class_name, const char *name)
{
    for (int i = 0; i < osinfo_list_get_length(OSINFO_LIST(devices)); i++) {
        OsinfoDevice *device = OSINFO_DEVICE(osinfo_list_get_nth(OSINFO_LIST(devices), i));

        if (g_strcmp0(osinfo_device_get_class(device), class_name) == 0 &&
            g_strcmp0(osinfo_device_get_name(device), name) == 0)
            return TRUE;
    }
    return FALSE;
}

/*
 * The database lists what is driven, never what is not: of a known system, what is not listed is taken to be absent.
 *
 * On q35 libvirt puts virtio devices on PCI Express ports, where QEMU gives them no legacy interface (its
 * disable-legacy=auto); systems that know virtio only as it was before 1.0 find no disk there. They get pc, as
 * do those for which no q35 is listed.
 */
static void print_profile(OsinfoOs *os)
{
    OsinfoDeviceList *devices = osinfo_os_get_all_devices(os, NULL);
    gboolean modern = has_device(devices, "block", "virtio1.0-block");
    gboolean virtio_disk = modern || has_device(devices, "block", "virtio-block");
    gboolean virtio_nic = has_device(devices, "net", "virtio1.0-net") || has_device(devices, "net", "virtio-net");
    gboolean port = has_device(devices, "console", "virtio1.0-console") || has_device(devices, "console", "virtio-console");
    gboolean q35 = has_device(devices, "chipset", "qemu-x86-q35") && (modern || !virtio_disk);
    const char *nic = virtio_nic                                  ? "virtio"
                      : q35 && has_device(devices, "net", "e1000e") ? "e1000e"
                      : has_device(devices, "net", "rtl8139")       ? "rtl8139"
                                                                    : "e1000";

    printf("machine=%s\n", q35 ? "q35" : "pc");
    printf("disk-bus=%s\n", virtio_disk ? "virtio" : q35 ? "sata" : "ide");
    printf("nic-model=%s\n", nic);
    printf("agent-port=%s\n", port ? "virtio" : "isa-serial");
    g_object_unref(devices);
}

int main(int argc, char **argv)
{
    OsinfoLoader *loader = osinfo_loader_new();
    GError *error = NULL;
    OsinfoOsList *list;
    OsinfoOs *os;
    const char *id = argc > 1 ? argv[argc - 1] : "";

    if (argc < 2 || argc > 3 || (argc == 3 && strcmp(argv[1], "--") != 0)) {
        fprintf(stderr, "usage: hvm-osinfo [--] ID\n");
        return 2;
    }
    osinfo_loader_process_default_path(loader, &error);
    if (error) {
        fprintf(stderr, "cannot load libosinfo's database: %s\n", error->message);
        g_error_free(error);
        return 1;
    }
    list = osinfo_db_get_os_list(osinfo_loader_get_db(loader));
    os = find_os(list, id);
    if (!os)
        os = find_older(list, id);
    printf("[os]\nid=%s\n", id);
    if (os) {
        print_profile(os);
        printf("[profile]\nresolved=%s\n", osinfo_product_get_short_id(OSINFO_PRODUCT(os)));
    }
    /* Taking the database down costs time, and would show what libosinfo's loader leaks: the process ends anyway. */
    _exit(fflush(stdout) == 0 ? 0 : 1);
}
