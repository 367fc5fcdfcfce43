/* The pure parts of NAT networks: subnets and XML. What needs libvirt is in tests/nodes/test_nat.c. */
#include "hvm_error.h"
#include "ipv4.h"
#include "nat.h"
#include "nat_xml.h"
#include "routes.h"

#include <libxml/parser.h>
#include <libxml/relaxng.h>
#include <string.h>

#define SCHEMA "/usr/share/libvirt/schemas/network.rng"

static void test_addresses(void)
{
    static const char *const bad[] = {"", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", " 1.2.3.4", "1..2.3", "+1.2.3.4",
                                      "1.2.3.", "4294967296.1.1.1"};
    guint32 address = 7;

    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_false(ipv4_parse(bad[i], &address));
    g_assert_cmpuint(address, ==, 7);
    g_assert_true(ipv4_parse("10.88.0.255", &address));
    g_assert_cmphex(address, ==, 0x0a5800ff);
    g_autofree char *text = ipv4_format(address);
    g_assert_cmpstr(text, ==, "10.88.0.255");
    g_assert_true(ipv4_parse("0.0.0.0", &address));
    g_assert_true(ipv4_parse("255.255.255.255", &address));
}

static void test_pools(void)
{
    static const char *const bad[] = {"", "10.88.0.0", "10.88.0.0/", "10.88.0.0/25", "10.88.0.0/7", "10.88.0.1/16", "127.0.0.0/8",
                                      "224.0.0.0/8", "240.0.0.0/8", "0.0.0.0/8", "169.254.0.0/16", "10.88.0.0/16 ", "fd00::/8",
                                      "10.88.0.0/016", "10.88.0.0/-8", "10.88.0.0/16\n", "10.88.0.0/4294967312"};

    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(subnet_parse_pool(bad[i], &error));
        g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
        g_assert_null(strchr(error->message, '\n'));
        g_assert_nonnull(strstr(error->message, "10.88.0.0/16"));
    }
    g_autoptr(Subnet) pool = subnet_parse_pool("10.0.0.0/8", NULL);
    g_assert_cmpuint(pool->prefix, ==, 8);
    g_autoptr(Subnet) small = subnet_parse_pool("192.168.7.0/24", NULL);
    g_assert_cmphex(small->address, ==, 0xc0a80700);
}

static void take(GPtrArray *taken, const char *address, unsigned prefix)
{
    guint32 value = 0;

    g_assert_true(ipv4_parse(address, &value));
    g_ptr_array_add(taken, subnet_new(value, prefix, g_strdup_printf("%s/%u", address, prefix)));
}

/* Picks and checks that the answer is `wanted`. */
static void assert_pick(const char *pool_text, const GPtrArray *taken, const char *wanted)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Subnet) pool = subnet_parse_pool(pool_text, NULL);
    g_autoptr(Subnet) subnet = subnet_pick(pool, taken, &error);

    g_assert_no_error(error);
    g_autofree char *text = ipv4_format(subnet->address);
    g_assert_cmpstr(text, ==, wanted);
    g_assert_cmpuint(subnet->prefix, ==, 24);
}

static void test_pick(void)
{
    g_autoptr(GPtrArray) taken = g_ptr_array_new_with_free_func((GDestroyNotify)subnet_free);
    g_autoptr(Subnet) pool = subnet_parse_pool("10.88.0.0/16", NULL);
    g_autoptr(GError) error = NULL;

    assert_pick("10.88.0.0/16", taken, "10.88.0.0");
    take(taken, "10.89.0.0", 24);
    take(taken, "10.87.255.0", 24);
    assert_pick("10.88.0.0/16", taken, "10.88.0.0");
    take(taken, "10.88.0.7", 32); /* a host's route */
    assert_pick("10.88.0.0/16", taken, "10.88.1.0");
    take(taken, "10.88.2.0", 23); /* not at its own turn: after .1 */
    take(taken, "10.88.1.128", 25);
    assert_pick("10.88.0.0/16", taken, "10.88.4.0");
    take(taken, "10.88.0.0", 17);
    assert_pick("10.88.0.0/16", taken, "10.88.128.0");
    take(taken, "10.88.128.0", 17);
    g_assert_null(subnet_pick(pool, taken, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NETWORK);
    g_assert_cmpstr(error->message, ==,
                    "no /24 of the NAT pool 10.88.0.0/16 is free: the last one tried, 10.88.128.0/24, collides with 10.88.128.0/17");
    g_clear_error(&error);
    take(taken, "10.0.0.0", 8);
    g_assert_null(subnet_pick(pool, taken, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NETWORK);
    assert_pick("223.255.0.0/16", taken, "223.255.0.0");
    take(taken, "223.0.0.0", 9);
    take(taken, "223.128.0.0", 9);
    g_clear_error(&error);
    g_autoptr(Subnet) top = subnet_parse_pool("223.0.0.0/8", NULL);
    g_assert_null(subnet_pick(top, taken, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NETWORK);
}

/* Against the plain rule, on random sets. */
static void test_pick_random(void)
{
    for (int round = 0; round < 200; round++) {
        g_autoptr(GPtrArray) taken = g_ptr_array_new_with_free_func((GDestroyNotify)subnet_free);
        g_autoptr(Subnet) pool = subnet_new(0x0a580000, (unsigned)g_test_rand_int_range(18, 25), NULL);
        guint32 end = pool->address + (1u << (32 - pool->prefix)), wanted = pool->address;

        for (int i = g_test_rand_int_range(0, 30); i > 0; i--)
            g_ptr_array_add(taken, subnet_new(0x0a580000 + ((guint32)g_test_rand_int() & 0x3fff),
                                              (unsigned)g_test_rand_int_range(20, 33), NULL));
        for (; wanted < end; wanted += 256) {
            Subnet candidate = {wanted, 24, NULL};
            gboolean free_ = TRUE;

            for (guint i = 0; i < taken->len; i++)
                free_ = free_ && !subnet_overlaps(&candidate, taken->pdata[i]);
            if (free_)
                break;
        }
        g_autoptr(Subnet) picked = subnet_pick(pool, taken, NULL);

        g_assert_cmpint(picked != NULL, ==, wanted < end);
        if (picked)
            g_assert_cmphex(picked->address, ==, wanted);
    }
}

/* The loopback's address is everywhere; the default route is nobody's. */
static void test_routes(void)
{
    g_autoptr(GPtrArray) taken = g_ptr_array_new_with_free_func((GDestroyNotify)subnet_free);
    g_autoptr(GError) error = NULL;
    Subnet loopback = {0x7f000001, 32, NULL};
    gboolean found = FALSE;

    g_assert_true(routes_append(taken, &error));
    g_assert_no_error(error);
    for (guint i = 0; i < taken->len; i++) {
        const Subnet *subnet = taken->pdata[i];

        g_assert_cmpuint(subnet->prefix, >, 0);
        g_assert_nonnull(subnet->what);
        found = found || subnet_overlaps(subnet, &loopback);
    }
    g_assert_true(found);
}

static void test_xml_valid(void)
{
    g_autoptr(Subnet) subnet = subnet_new(0x0a580300, 24, NULL);
    g_autofree char *xml = nat_xml_write("hvm-nat-1000", "hvm-n1000", "/a<b>&\"c\"", 1000, subnet);

    if (!g_file_test(SCHEMA, G_FILE_TEST_EXISTS)) {
        g_test_skip("no " SCHEMA);
        return;
    }
    xmlRelaxNGParserCtxtPtr parser = xmlRelaxNGNewParserCtxt(SCHEMA);
    xmlRelaxNGPtr schema = xmlRelaxNGParse(parser);
    xmlRelaxNGValidCtxtPtr context = xmlRelaxNGNewValidCtxt(schema);
    xmlDocPtr document = xmlReadMemory(xml, (int)strlen(xml), NULL, NULL, 0);

    g_assert_nonnull(schema);
    g_assert_cmpint(xmlRelaxNGValidateDoc(context, document), ==, 0);
    xmlFreeDoc(document);
    xmlRelaxNGFreeValidCtxt(context);
    xmlRelaxNGFree(schema);
    xmlRelaxNGFreeParserCtxt(parser);
}

static void test_xml_back(void)
{
    g_autoptr(Subnet) subnet = subnet_new(0x0a580300, 24, NULL);
    g_autofree char *xml = nat_xml_write("hvm-nat-4294967294", "hvm-n4294967294", "/a<b>&\"c\"", 4294967294u, subnet);
    g_autoptr(NatNetwork) network = nat_xml_read(xml, NULL);

    g_assert_nonnull(network);
    g_assert_cmpstr(network->label, ==, "/a<b>&\"c\"");
    g_assert_cmpuint(network->owner_uid, ==, 4294967294u);
    g_assert_cmpstr(network->bridge, ==, "hvm-n4294967294");
    g_assert_cmpuint(network->subnets->len, ==, 1);
    g_assert_true(subnet_overlaps(network->subnets->pdata[0], subnet));
    g_assert_cmpuint(network->dns->len, ==, 0);
    g_assert_cmpuint(network->dhcp->len, ==, 253);
    const NatHost *first = network->dhcp->pdata[0], *last = network->dhcp->pdata[252];
    g_assert_cmphex(first->address, ==, 0x0a580302);
    g_assert_cmpstr(first->mac, ==, "52:54:00:ff:fe:02");
    g_assert_cmphex(last->address, ==, 0x0a5803fe);
    g_assert_cmpstr(last->mac, ==, "52:54:00:ff:fe:fe");

    g_autofree char *host = nat_xml_dns_host(&(NatHost){.name = (char *)"sl6-a", .address = 0x0a580302});
    g_assert_nonnull(strstr(host, "<host ip=\"10.88.3.2\">"));
    g_assert_nonnull(strstr(host, "<hostname>sl6-a</hostname>"));
}

/* What libvirt or an administrator may hold. */
static void test_xml_foreign(void)
{
    static const char *const text =
        "<network xmlns:h='http://hvm1.io/xmlns/network/1'><name>x\x01y</name>"
        "<metadata><network label='not hvm' owner='1'/><h:other label='nor this' owner='1'/></metadata>"
        "<ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='192.168.122.2' end='192.168.122.254'/>"
        "<host mac='52:54:00:AA:00:01' name='n' ip='192.168.122.9'/><host id='0:1' ip='fe80::1'/><host name='m' ip='192.168.122.8'/>"
        "</dhcp></ip><ip family='ipv6' address='fd00::1' prefix='64'/><ip address='10.1.2.3' prefix='99'/><ip/>"
        "<ip address='172.16.0.1'/><route address='10.5.0.0' prefix='16' gateway='192.168.122.3'/>"
        "<dns><host ip='192.168.122.9'><hostname>n</hostname><hostname>m</hostname></host><host><hostname>o</hostname></host></dns>"
        "</network>";
    g_autofree char *clean = g_strdup(text);
    static const char *const bad[] = {"", "<", "<domain/>", "<network xmlns='other'/>", "text"};

    *strchr(clean, '\x01') = '-';
    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(nat_xml_read(bad[i], &error));
        g_assert_error(error, HVM_ERROR, HVM_ERROR_NETWORK);
    }
    g_autoptr(NatNetwork) network = nat_xml_read(clean, NULL);

    g_assert_nonnull(network);
    g_assert_null(network->label);
    g_assert_null(network->bridge);
    g_assert_cmpuint(network->subnets->len, ==, 3);
    g_assert_cmpuint(((const Subnet *)network->subnets->pdata[0])->prefix, ==, 24);
    g_assert_cmpstr(((const Subnet *)network->subnets->pdata[0])->what, ==, "libvirt network 'x-y'");
    g_assert_cmpuint(((const Subnet *)network->subnets->pdata[1])->prefix, ==, 32);
    g_assert_cmpuint(((const Subnet *)network->subnets->pdata[2])->prefix, ==, 16);
    g_assert_cmpuint(network->dhcp->len, ==, 2);
    g_assert_cmpstr(((const NatHost *)network->dhcp->pdata[0])->mac, ==, "52:54:00:aa:00:01");
    g_assert_null(((const NatHost *)network->dhcp->pdata[1])->mac);
    g_assert_cmpuint(network->dns->len, ==, 2);
    g_assert_cmpstr(((const NatHost *)network->dns->pdata[1])->name, ==, "m");
}

static void test_names(void)
{
    g_autofree char *name = nat_network_name(4294967294u);
    g_autoptr(GError) error = NULL;
    g_autoptr(Nat) nat = nat_new("10.88.0.0/16", "/var/lib/hvm", &error);

    g_assert_no_error(error);
    g_assert_nonnull(nat);
    g_assert_cmpstr(name, ==, "hvm-nat-4294967294");
    g_assert_null(nat_new("10.88.0.0/16", "a\nb", &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
    g_clear_error(&error);
    g_assert_null(nat_new("10.88.0.0/16", "", &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/network/addresses", test_addresses);
    g_test_add_func("/network/pools", test_pools);
    g_test_add_func("/network/pick", test_pick);
    g_test_add_func("/network/pick-random", test_pick_random);
    g_test_add_func("/network/routes", test_routes);
    g_test_add_func("/network/xml-valid", test_xml_valid);
    g_test_add_func("/network/xml-back", test_xml_back);
    g_test_add_func("/network/xml-foreign", test_xml_foreign);
    g_test_add_func("/network/names", test_names);
    return g_test_run();
}
