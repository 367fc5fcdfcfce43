/* Who may have which device: vmm/guest/devices.c. */
#include "guests_private.h"

#include "hvm_error.h"

#include <glib/gstdio.h>
#include <string.h>

enum { USER = 1000 };

typedef struct {
    Host *host;
    SpecDevice wanted;
    Spec spec;
} Node;

/* Two GPUs, an InfiniBand adapter ib0 with one VF, an Ethernet adapter. */
static void set_up(Node *node, gconstpointer data G_GNUC_UNUSED)
{
    static const struct {
        const char *address, *interface, *physical;
        guint32 class_code;
        unsigned vfs;
    } devices[] = {{"0000:01:00.0", NULL, NULL, 0x030200, 0}, {"0000:02:00.0", NULL, NULL, 0x030200, 0},
                   {"0000:03:00.0", "ib0", NULL, 0x020700, 1}, {"0000:03:00.1", NULL, "0000:03:00.0", 0x020700, 0},
                   {"0000:04:00.0", "eth0", NULL, 0x020000, 0}};
    g_autoptr(GError) error = NULL;

    node->host = host_new_from("synthetic:[numa] core:4 pu:1", &error);
    g_assert_no_error(error);
    for (gsize i = 0; i < G_N_ELEMENTS(devices); i++) {
        HostDevice *device = g_new0(HostDevice, 1);

        device->address = g_strdup(devices[i].address);
        device->interface = g_strdup(devices[i].interface);
        device->physical = g_strdup(devices[i].physical);
        device->class_code = devices[i].class_code;
        device->vfs_enabled = device->vfs_total = devices[i].vfs;
        device->iommu_group = (int)i;
        g_ptr_array_add(node->host->devices, device);
    }
    node->wanted = (SpecDevice){.name = (char *)"d"};
    node->spec.devices = g_ptr_array_new();
    g_ptr_array_add(node->spec.devices, &node->wanted);
}

static void tear_down(Node *node, gconstpointer data G_GNUC_UNUSED)
{
    host_unref(node->host);
    g_ptr_array_unref(node->spec.devices);
}

/* `text`: hvmd.conf's, NULL: it says nothing. */
static gboolean may(Node *node, const char *text, uid_t uid, GError **error)
{
    g_autoptr(GPtrArray) allowed = text ? devices_parse_allowed(text, NULL) : NULL;

    g_assert_true(!text || allowed);
    return devices_check_right(node->host, &node->spec, allowed, uid, error);
}

static void test_kind(Node *node, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    node->wanted.kind = (char *)"gpu";
    g_assert_true(may(node, NULL, 0, NULL));
    g_assert_false(may(node, NULL, USER, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_DENIED);
    g_assert_cmpstr(error->message, ==, "device 'd': wanted one that [devices] allow of hvmd.conf lists, found that it could be "
                    "0000:01:00.0, which root alone may give");
    g_assert_true(may(node, "gpu", USER, NULL));
    g_assert_false(may(node, "nic, ib vf", USER, NULL));
    /* One of both would not do: it could become the other. */
    g_assert_false(may(node, "0000:01:00.0", USER, NULL));
    g_assert_true(may(node, "0000:01:00.0 02:00.0", USER, NULL));
}

static void test_address(Node *node, gconstpointer data G_GNUC_UNUSED)
{
    node->wanted.address = (char *)"0000:02:00.0";
    g_assert_true(may(node, "gpu", USER, NULL));
    g_assert_true(may(node, "0000:02:00.0", USER, NULL));
    g_assert_false(may(node, "0000:01:00.0", USER, NULL));
    /* Not on this node: nothing to deny, placement says so. */
    node->wanted.address = (char *)"0000:ff:00.0";
    g_assert_true(may(node, NULL, USER, NULL));
}

/* A VF of ib0 is allowed by its interface; the adapter itself is not, while it has VFs. */
static void test_interface(Node *node, gconstpointer data G_GNUC_UNUSED)
{
    node->wanted.network = (char *)"ib0";
    g_assert_true(may(node, "ib0", USER, NULL));
    g_assert_true(may(node, "vf", USER, NULL));
    g_assert_false(may(node, "eth0", USER, NULL));
    node->wanted = (SpecDevice){.name = (char *)"d", .address = (char *)"0000:03:00.0"};
    g_assert_false(may(node, "ib0 ib vf", USER, NULL));
    node->wanted.address = (char *)"0000:03:00.1";
    g_assert_true(may(node, "ib0", USER, NULL));
}

static void test_list(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) empty = devices_parse_allowed(" , ", &error);

    g_assert_no_error(error);
    g_assert_cmpuint(empty->len, ==, 0);
    g_assert_null(devices_parse_allowed("gpu 0000:41:00.9", &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
}

static void test_iommu(Node *node, gconstpointer data G_GNUC_UNUSED)
{
    PlacementDevice placed = {.name = (char *)"d", .address = (char *)"0000:04:00.0"};
    Placement placement = {.devices = g_ptr_array_new()};
    g_autoptr(GError) error = NULL;

    g_ptr_array_add(placement.devices, &placed);
    g_assert_true(devices_check_iommu(node->host, &placement, &error));
    ((HostDevice *)node->host->devices->pdata[4])->iommu_group = -1;
    g_assert_false(devices_check_iommu(node->host, &placement, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_HOST);
    g_assert_true(g_str_has_prefix(error->message, "device 0000:04:00.0: wanted an IOMMU group, found none: "));
    g_ptr_array_unref(placement.devices);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add("/devices/kind", Node, NULL, set_up, test_kind, tear_down);
    g_test_add("/devices/address", Node, NULL, set_up, test_address, tear_down);
    g_test_add("/devices/interface", Node, NULL, set_up, test_interface, tear_down);
    g_test_add("/devices/iommu", Node, NULL, set_up, test_iommu, tear_down);
    g_test_add_func("/devices/list", test_list);
    return g_test_run();
}
