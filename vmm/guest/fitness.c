/*
 * fitness.c: what hvmd knows about the node's fitness beside the host itself: libvirt, QEMU, sVirt, the image store.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "units.h"
#include "xml.h"

#include <stdlib.h>
#include <sys/statvfs.h>

static char *version_text(unsigned long version)
{
    return g_strdup_printf("%lu.%lu.%lu", version / 1000000, version / 1000 % 1000, version % 1000);
}

static void check_versions(GPtrArray *checks, virConnectPtr connect, const char *uri)
{
    unsigned long library = 0, hypervisor = 0;

    if (virConnectGetLibVersion(connect, &library) == 0) {
        g_autofree char *text = version_text(library);

        check_add(checks, "libvirt", CHECK_OK, NULL, NULL, "libvirt %s at %s", text, uri);
    }
    if (virConnectGetVersion(connect, &hypervisor) == 0 && hypervisor) {
        g_autofree char *text = version_text(hypervisor);

        check_add(checks, "qemu", CHECK_OK, NULL, NULL, "QEMU %s", text);
    } else {
        check_add(checks, "qemu", CHECK_FAILURE, "no guest can run", "install the package qemu-system-x86", "libvirt finds no QEMU");
    }
}

/* The security models in libvirt's capabilities: dac is always there; selinux or apparmor confine QEMU. */
static void check_svirt(GPtrArray *checks, virConnectPtr connect)
{
    char *text = virConnectGetCapabilities(connect);
    g_autoptr(xmlDoc) document = text ? xml_parse(text, NULL) : NULL;
    const xmlNode *host = document ? xml_child(xmlDocGetRootElement(document), "host") : NULL;
    g_autofree char *found = NULL;

    for (const xmlNode *model = xml_child(host, "secmodel"); model; model = xml_next(model, "secmodel")) {
        g_autofree char *name = xml_get_text(xml_child(model, "model"));

        if (name && g_strcmp0(name, "dac") != 0 && g_strcmp0(name, "none") != 0 && !found)
            found = g_steal_pointer(&name);
    }
    free(text);
    if (found)
        check_add(checks, "svirt", CHECK_OK, NULL, NULL, "QEMU is confined by %s", found);
    else
        check_add(checks, "svirt", CHECK_WARNING, "a guest that breaks out of QEMU is held by its user id and seccomp only",
                  "enable AppArmor or SELinux on the node", "neither AppArmor nor SELinux confines QEMU");
}

static void check_store(GPtrArray *checks, Guests *guests)
{
    const char *path = image_store_path(guests->store);
    struct statvfs space = {0};
    gboolean direct = guests->direct_io;
    gboolean reflink = image_store_probe_reflink(path);

    if (statvfs(path, &space) == 0) {
        guint64 free_bytes = (guint64)space.f_bavail * space.f_frsize;
        g_autofree char *text = size_format_rounded(free_bytes);
        gboolean low = free_bytes < 10 * HVM_GIB;

        check_add(checks, "store space", low ? CHECK_WARNING : CHECK_OK, low ? "a template takes about 1 GiB, a guest what it writes" : NULL,
                  low ? "free some space, or move the store: [storage] path in hvmd.conf" : NULL, "%s free in %s", text, path);
    }
    check_add(checks, "store o_direct", direct ? CHECK_OK : CHECK_WARNING,
              direct ? NULL : "guests' disks go through the node's page cache and cost memory twice",
              direct ? NULL : "put the store on ext4 or xfs", "%s", direct ? "the image store takes O_DIRECT" : "the image store refuses O_DIRECT");
    check_add(checks, "store reflink", CHECK_OK, NULL, NULL, "%s", reflink ? "the image store can share extents" : "the image store cannot share extents; overlays do not need it");
}

typedef struct {
    Guests *guests;
    virConnectPtr connect;
} Known;

/* Whether the guest is in the table, or libvirt knows the domain, or does not tell. */
static gboolean is_known(const char *uuid, gpointer data)
{
    const Known *known = data;
    g_autoptr(virDomain) domain = NULL;

    if (guests_have_uuid(known->guests, uuid))
        return TRUE;
    domain = virDomainLookupByUUIDString(known->connect, uuid);
    return domain || virGetLastErrorCode() != VIR_ERR_NO_DOMAIN;
}

/* Disks of guests that libvirt lost, or somebody undefined. hvmd removes none of them: it cannot know which. */
static void check_strays(GPtrArray *checks, Guests *guests, virConnectPtr connect)
{
    Known known = {guests, connect};
    g_auto(GStrv) strays = image_store_list_strays(guests->store, is_known, &known);
    guint count = g_strv_length(strays);
    g_autofree char *more = count > 1 ? g_strdup_printf(" (and %u more)", count - 1) : g_strdup("");

    if (count)
        check_add(checks, "store guests", CHECK_WARNING, "a guest was undefined past hvm, or libvirt could not load its domain (its log says why), or [libvirt] uri is not right",
                  "make libvirt know the domain again (`virsh define`), or remove the folder", "libvirt knows no guest for %s%s", strays[0], more);
    else
        check_add(checks, "store guests", CHECK_OK, NULL, NULL, "libvirt knows each guest of the store");
}

GPtrArray *guests_doctor(Guests *guests)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Host) host = guests_snapshot(guests, &error);
    GPtrArray *checks = NULL;

    g_mutex_lock(&guests->lock);
    if (!host)
        host = host_ref(guests->host);
    g_mutex_unlock(&guests->lock);
    g_clear_error(&error);
    checks = doctor_check_host(host, &guests->accel);

    g_autoptr(virConnect) connect = virt_get(guests->virt, &error);

    if (connect) {
        check_versions(checks, connect, guests->config->libvirt_uri);
        check_svirt(checks, connect);
        check_strays(checks, guests, connect);
    } else {
        check_add(checks, "libvirt", CHECK_FAILURE, "no guest can be started or stopped", "start libvirtd: `systemctl start libvirtd` or `./setup start`",
                  "%s", error->message);
    }
    check_store(checks, guests);
    return checks;
}
