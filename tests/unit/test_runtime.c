/* Metadata: what is written is read back; what is damaged, newer or hostile is refused. The XML of the disk, which no plan shows:
 * where the store refuses O_DIRECT. */
#include "domain_xml.h"
#include "hvm_error.h"
#include "metadata.h"
#include "template_keys.h"

#include <string.h>

#define UUID "11111111-2222-4333-8444-555555555555"

static RuntimeGuest *make_guest(void)
{
    RuntimeGuest *guest = g_new0(RuntimeGuest, 1);
    g_autoptr(Settings) none = settings_new(template_keys);
    g_autoptr(Settings) request = settings_new(template_keys);
    g_autoptr(GError) error = NULL;

    g_assert_true(settings_set(request, "cpu", "count", "3", "request", &error));
    g_assert_true(settings_set(request, "boot", "kernel-arguments", "a=\"<&>'\" b", "request", &error));
    guest->uuid = g_strdup(UUID);
    guest->spec = spec_new("g1", "debian12", none, NULL, request, &error);
    g_assert_no_error(error);
    guest->owner_uid = 1000;
    guest->owner_gid = 100;
    guest->store = g_strdup("/var/lib/hvm");
    guest->revision = g_strdup("20261123T000000Z");
    guest->mac = g_strdup("52:54:00:00:00:02");
    guest->address = g_strdup("10.88.0.2");
    guest->kvm = TRUE;
    return guest;
}

/* The <hvm:guest> element as text, as virDomainGetMetadata gives it. Caller frees. */
static char *metadata_text(const RuntimeGuest *guest)
{
    xmlNode *root = NULL;
    g_autoptr(xmlDoc) document = xml_new("metadata", &root);

    metadata_add(root, guest);

    xmlNode *element = root->children;
    g_autoptr(xmlDoc) alone = xmlNewDoc(BAD_CAST "1.0");

    xmlDocSetRootElement(alone, xmlDocCopyNode(element, alone, 1));
    xmlReconciliateNs(alone, xmlDocGetRootElement(alone));
    return xml_to_text(alone);
}

static void test_round_trip(void)
{
    g_autoptr(RuntimeGuest) guest = make_guest();
    g_autofree char *text = metadata_text(guest);
    g_autoptr(GError) error = NULL;
    g_autoptr(RuntimeGuest) back = metadata_read(text, "g1", UUID, &error);

    g_assert_no_error(error);
    g_assert_cmpstr(back->uuid, ==, UUID);
    g_assert_cmpuint(back->owner_uid, ==, 1000);
    g_assert_cmpuint(back->owner_gid, ==, 100);
    g_assert_cmpstr(back->store, ==, guest->store);
    g_assert_cmpstr(back->revision, ==, guest->revision);
    g_assert_cmpstr(back->mac, ==, guest->mac);
    g_assert_cmpstr(back->address, ==, guest->address);
    g_assert_true(back->kvm);
    g_assert_false(back->ephemeral);
    g_assert_null(back->placement);
    g_assert_cmpuint(back->spec->cpus, ==, 3);
    g_assert_cmpstr(back->spec->kernel_arguments, ==, guest->spec->kernel_arguments);
    g_assert_cmpuint(back->spec->settings->items->len, ==, guest->spec->settings->items->len);
    for (guint i = 0; i < guest->spec->settings->items->len; i++) {
        const Setting *was = guest->spec->settings->items->pdata[i], *is = back->spec->settings->items->pdata[i];

        g_assert_cmpstr(is->group, ==, was->group);
        g_assert_cmpstr(is->key, ==, was->key);
        g_assert_cmpstr(is->value, ==, was->value);
        g_assert_cmpstr(is->origin, ==, was->origin);
    }
}

/* `from` in good metadata replaced by `to` must be refused with a message that holds `word`. */
static void check_refused(const char *from, const char *to, const char *word)
{
    g_autoptr(RuntimeGuest) guest = make_guest();
    g_autofree char *good = metadata_text(guest);
    g_autoptr(GString) text = g_string_new(good);
    g_autoptr(GError) error = NULL;

    g_assert_cmpuint(g_string_replace(text, from, to, 1), ==, 1);
    g_assert_null(metadata_read(text->str, "g1", UUID, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
    g_assert_true(g_str_has_prefix(error->message, "metadata of domain 'g1': "));
    if (!strstr(error->message, word))
        g_error("'%s' says nothing of '%s'", error->message, word);
}

static void test_refused(void)
{
    check_refused("version=\"1\"", "version=\"2\"", "newer hvm");
    check_refused("version=\"1\"", "version=\"x\"", "version");
    check_refused("owner=\"1000\"", "owner=\"-1\"", "owner");
    check_refused("group=\"100\"", "group=\"99999999999\"", "group");
    check_refused(" store=\"/var/lib/hvm\"", "", "store");
    check_refused("template=\"debian12\"", "template=\"../x\"", "template name");
    check_refused(">3<", ">0<", "count");
    check_refused("name=\"cpu.count\"", "name=\"cpu.cuont\"", "cuont");
    check_refused("</hvm:guest>", "<hvm:placement>{\"vcpus\": 3}</hvm:placement></hvm:guest>", "");
    check_refused("</hvm:guest>", "", "XML");
}

static void test_entities(void)
{
    static const char text[] = "<!DOCTYPE g [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><g version=\"1\">&a;</g>";
    g_autoptr(GError) error = NULL;

    g_assert_null(metadata_read(text, "g1", UUID, &error));
    g_assert_null(strstr(error->message, "root:"));
}

/* How the disk is read and written: by where it lies, and whether it will be read again. */
static void test_disk_cache(void)
{
    static const struct {
        gboolean direct_io, ephemeral;
        const char *cache, *io;
    } rows[] = {{TRUE, FALSE, "none", "io_uring"},
                {FALSE, FALSE, "writeback", "threads"},
                {TRUE, TRUE, "unsafe", "threads"},
                {FALSE, TRUE, "unsafe", "threads"}};
    g_autoptr(RuntimeGuest) guest = make_guest();

    guest->image_path = g_strdup("/var/lib/hvm/images/debian12/20261123T000000Z/root.raw");
    guest->disk_path = g_strdup("/var/lib/hvm/guests/" UUID "/root.qcow2");
    for (gsize i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *wanted = g_strdup_printf("<driver name=\"qemu\" type=\"qcow2\" cache=\"%s\" io=\"%s\" discard=\"unmap\"",
                                                  rows[i].cache, rows[i].io);
        g_autofree char *text = NULL;

        guest->direct_io = rows[i].direct_io;
        guest->ephemeral = rows[i].ephemeral;
        text = domain_xml_build(guest);
        if (!strstr(text, wanted))
            g_error("row %zu: wanted %s in: %s", i, wanted, text);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/runtime/metadata/round-trip", test_round_trip);
    g_test_add_func("/runtime/metadata/refused", test_refused);
    g_test_add_func("/runtime/metadata/entities", test_entities);
    g_test_add_func("/runtime/disk-cache", test_disk_cache);
    return g_test_run();
}
