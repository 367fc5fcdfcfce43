/*
 * NAT networks on real libvirt, dnsmasq and packet filter, in a node of its own (private_node.sh). A network namespace with a
 * veth plugged into the bridge stands in for a guest.
 */
#include "hvm_error.h"
#include "nat.h"
#include "process.h"
#include "virt.h"

#include <string.h>

#define LABEL "/var/lib/hvm & \"co\""
#define POOL "10.88.0.0/16"

enum { ALICE = 1000, BOB = 1001, CAROL = 4294967294u };

static virConnectPtr connect_;
static Nat *nat;

/* ---- helpers ---- */

/* Runs fixed text by a shell. Whether it exits 0; ret_output may be NULL. */
static gboolean shell(char **ret_output, const char *format, ...) G_GNUC_PRINTF(2, 3);
static gboolean shell(char **ret_output, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);

    const char *argv[] = {"sh", "-c", text, NULL};
    g_autoptr(GError) error = NULL;

    if (process_run(argv, &(ProcessOptions){.timeout_ms = 30000}, HVM_ERROR_HOST, ret_output, &error))
        return TRUE;
    g_test_message("%s: %s", text, error->message);
    return FALSE;
}
#define must(...) g_assert_true(shell(NULL, __VA_ARGS__))
#define must_not(...) g_assert_false(shell(NULL, __VA_ARGS__))

/* The MAC that attach() got last. */
static char *last_mac;

static char *attach(uid_t owner, const char *name)
{
    g_autoptr(GError) error = NULL;
    char *address = NULL;

    g_free(last_mac);
    nat_attach(nat, connect_, owner, name, &last_mac, &address, &error);
    g_assert_no_error(error);
    return address;
}

static void attach_fails(uid_t owner, const char *name, int code, const char *pattern)
{
    char *mac = (char *)"untouched", *address = (char *)"untouched";
    g_autoptr(GError) error = NULL;

    g_assert_false(nat_attach(nat, connect_, owner, name, &mac, &address, &error));
    g_assert_error(error, HVM_ERROR, code);
    g_test_message("%s", error->message);
    g_assert_true(g_regex_match_simple(pattern, error->message, 0, 0));
    g_assert_null(strchr(error->message, '\n'));
    g_assert_cmpstr(address, ==, "untouched");
    g_assert_cmpstr(mac, ==, "untouched");
}

static void detach(uid_t owner, const char *name)
{
    g_autoptr(GError) error = NULL;

    nat_detach(nat, connect_, owner, name, &error);
    g_assert_no_error(error);
}

static void release(uid_t owner)
{
    g_autoptr(GError) error = NULL;

    nat_release(nat, connect_, owner, &error);
    g_assert_no_error(error);
}

#define assert_attached(owner, name, wanted)                                                       \
    do {                                                                                           \
        g_autofree char *address_ = attach(owner, name);                                           \
        g_assert_cmpstr(address_, ==, wanted);                                                     \
    } while (0)

static void assert_networks(const char *wanted)
{
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) names = nat_list(nat, connect_, &error);
    g_autofree char *joined = NULL;

    g_assert_no_error(error);
    joined = g_strjoinv(" ", names);
    g_assert_cmpstr(joined, ==, wanted);
}

/* Nothing of ours is left in libvirt, among the links, or running. */
static void assert_clean(void)
{
    assert_networks("");
    must("test -z \"$(virsh -c qemu:///system net-list --all --name)\"");
    must("! ip -br link | grep hvm-");
    must("for i in 1 2 3 4 5 6 7 8 9 10; do pidof dnsmasq || exit 0; sleep 0.1; done; exit 1");
    must("! iptables-save | grep 10.88");
    must("! ip rule | grep -F hvm-");
}

static void plug(const char *name, uid_t owner, const char *mac)
{
    must("ip netns add %s && ip link add v%s type veth peer name eth0 address %s netns %s && "
         "ip link set v%s master hvm-n%u up && ip netns exec %s ip link set eth0 up",
         name, name, mac, name, name, owner, name);
}

/* Enters a guest and plugs its stand-in in. */
static void start(const char *name, uid_t owner, const char *wanted)
{
    assert_attached(owner, name, wanted);
    plug(name, owner, last_mac);
}

static void unplug(const char *name)
{
    must("ip netns del %s; ip link del v%s 2>/dev/null; true", name, name);
}

/* Whether the stand-in gets this address from DHCP, and a route. */
static gboolean dhcp(const char *name, const char *address)
{
    g_autofree char *wanted = g_strconcat("inet ", address, NULL);
    g_autofree char *got = NULL;

    return shell(&got,
                 "ip netns exec %s busybox udhcpc -i eth0 -f -n -q -t 3 -T 1 -s /run/udhcpc.sh >/dev/null 2>&1; "
                 "ip netns exec %s ip -o -4 addr show dev eth0 | grep -o 'inet [0-9.]*'",
                 name, name) &&
           strcmp(g_strstrip(got), wanted) == 0;
}

#define ping(from, address) shell(NULL, "ip netns exec %s ping -c 1 -W 1 %s", from, address)
#define resolves(from, name, server, address)                                                      \
    shell(NULL, "timeout 3 ip netns exec %s busybox nslookup %s %s | sed 1,3d | grep -wF %s", from, name, server, address)

/* ---- tests ---- */

static void test_bad_input(void)
{
    static const char *const pools[] = {"", "10.88.0.0", "10.88.0.0/25", "10.88.0.0/7", "10.88.0.1/16", "127.0.0.0/8", "224.0.0.0/8",
                                        "10.88.0.0/16 ", "10.088.0.0/16", "fd00::/8", "10.256.0.0/16", "10.88.0.0/16\n"};

    for (gsize i = 0; i < G_N_ELEMENTS(pools); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(nat_new(pools[i], LABEL, &error));
        g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
        g_assert_null(strchr(error->message, '\n'));
    }
    g_assert_null(nat_new(POOL, "a\nb", NULL));
    attach_fails(ALICE, "../x", HVM_ERROR_INVALID, "guest name");
    assert_clean();
}

static void test_attach(void)
{
    assert_attached(ALICE, "a1", "10.88.0.2");
    assert_attached(ALICE, "a2", "10.88.0.3");
    assert_attached(ALICE, "a1", "10.88.0.2");
    assert_attached(BOB, "b1", "10.88.1.2");
    assert_attached(CAROL, "c1", "10.88.2.2");
    assert_networks("hvm-nat-1000 hvm-nat-1001 hvm-nat-4294967294");
    detach(ALICE, "a1");
    detach(ALICE, "a1");
    assert_attached(ALICE, "a3", "10.88.0.2");
    /* The guest that left is in neither half of the network. */
    must("! { virsh -c qemu:///system net-dumpxml hvm-nat-1000; virsh -c qemu:///system net-dumpxml --inactive hvm-nat-1000; } | "
         "grep '>a1<'");
    must("test $(virsh -c qemu:///system net-dumpxml --inactive hvm-nat-1000 | grep -c '>a3<') = 1");
    release(CAROL);
    assert_networks("hvm-nat-1000 hvm-nat-1001 hvm-nat-4294967294");
    detach(CAROL, "c1");
    release(CAROL);
    release(CAROL);
    assert_networks("hvm-nat-1000 hvm-nat-1001");
    /* Another hvmd's process does not know who is attached, and does as it is told. */
    g_autoptr(Nat) other = nat_new(POOL, LABEL, NULL);
    g_assert_true(nat_release(other, connect_, BOB, NULL));
    assert_networks("hvm-nat-1000");
    detach(BOB, "b1");
    detach(ALICE, "a2");
    detach(ALICE, "a3");
    release(ALICE);
    assert_clean();
}

static void test_guests(void)
{
    must("cat >/run/udhcpc.sh <<'END'\n#!/bin/sh\n[ $1 = bound ] || exit 0\nip addr replace $ip/$mask dev eth0\n"
         "ip route replace default via $router\nEND\nchmod +x /run/udhcpc.sh");
    start("a1", ALICE, "10.88.0.2");
    start("a2", ALICE, "10.88.0.3");
    start("b1", BOB, "10.88.1.2");
    plug("x1", ALICE, "52:54:00:77:77:77"); /* unknown */

    g_assert_true(dhcp("a1", "10.88.0.2"));
    g_assert_true(dhcp("a2", "10.88.0.3"));
    g_assert_true(dhcp("b1", "10.88.1.2"));
    g_assert_false(dhcp("x1", "10.88.0.4"));
    must("test -z \"$(ip netns exec x1 ip -o -4 addr show dev eth0)\"");

    g_assert_true(ping("a1", "10.88.0.1"));
    g_assert_true(ping("a1", "10.88.0.3"));
    g_assert_true(ping("b1", "10.88.1.1"));
    g_assert_false(ping("a1", "10.88.1.2"));
    g_assert_false(ping("b1", "10.88.0.2"));

    g_assert_true(resolves("a1", "a2.hvm", "10.88.0.1", "10.88.0.3"));
    g_assert_true(resolves("a1", "a2", "10.88.0.1", "10.88.0.3"));
    g_assert_true(resolves("b1", "b1.hvm", "10.88.1.1", "10.88.1.2"));
    g_assert_false(resolves("a1", "b1.hvm", "10.88.0.1", "10.88.1.2"));
    g_assert_false(resolves("a1", "b1.hvm", "10.88.1.1", "10.88.1.2"));

    /* The packet filter taken away, as when a firewall is reloaded: still apart. */
    must("iptables-save >/run/rules && iptables -F && iptables -t nat -F");
    g_assert_true(ping("a1", "10.88.0.3"));
    g_assert_true(ping("a1", "10.88.0.1"));
    g_assert_false(ping("a1", "10.88.1.2"));
    g_assert_false(ping("b1", "10.88.0.2"));
    /* It is the routing rule that does it. The next attach puts it back. */
    must("ip rule del iif hvm-n1000 && ip rule del iif hvm-n1001");
    g_assert_true(ping("a1", "10.88.1.2"));
    assert_attached(ALICE, "a1", "10.88.0.2");
    g_assert_false(ping("a1", "10.88.1.2"));
    g_assert_false(ping("b1", "10.88.0.2"));
    must("iptables-restore </run/rules");

    /* A guest that leaves: its address can be had at once, in spite of its lease, and its name goes with it. */
    unplug("a1");
    detach(ALICE, "a1");
    start("a4", ALICE, "10.88.0.2");
    g_assert_true(dhcp("a4", "10.88.0.2"));
    g_assert_true(resolves("a2", "a4.hvm", "10.88.0.1", "10.88.0.2"));
    g_assert_false(resolves("a2", "a1.hvm", "10.88.0.1", "10.88.0.2"));

    /* A guest that calls itself what it is not. */
    unplug("a4");
    plug("a4", ALICE, last_mac);
    must("ip netns exec a4 busybox udhcpc -i eth0 -f -n -q -t 3 -T 1 -F a9 -x hostname:a9 -s /run/udhcpc.sh");
    g_assert_false(resolves("a2", "a9.hvm", "10.88.0.1", "10.88.0.2"));
    g_assert_true(resolves("a2", "a4.hvm", "10.88.0.1", "10.88.0.2"));

    static const char *const names[] = {"a2", "a4", "x1", "b1"};

    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        unplug(names[i]);
        detach(names[i][0] == 'b' ? BOB : ALICE, names[i]);
    }
    release(ALICE);
    release(BOB);
    assert_clean();
}

static gpointer attach_many(gpointer data)
{
    g_autoptr(GStrvBuilder) addresses = g_strv_builder_new();

    for (int i = 0; i < 4; i++) {
        g_autofree char *name = g_strdup_printf("%s%d", (const char *)data, i);
        g_autofree char *mac = NULL;
        g_autofree char *address = NULL;

        g_assert_true(nat_attach(nat, connect_, ALICE, name, &mac, &address, NULL));
        g_strv_builder_add(addresses, address);
    }
    return g_strv_builder_end(addresses);
}

static void test_threads(void)
{
    GThread *threads[2];
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    for (int i = 0; i < 2; i++)
        threads[i] = g_thread_new("attach", attach_many, (gpointer)(i ? "p" : "q"));
    for (int i = 0; i < 2; i++) {
        char **addresses = g_thread_join(threads[i]);

        for (char **address = addresses; *address; address++)
            g_assert_true(g_hash_table_add(seen, *address));
        g_free(addresses);
    }
    g_assert_cmpuint(g_hash_table_size(seen), ==, 8);
    for (int i = 0; i < 8; i++) {
        g_autofree char *name = g_strdup_printf("%c%d", "pq"[i % 2], i / 2);

        detach(ALICE, name);
    }
    release(ALICE);
    assert_clean();
}

/* What an administrator does to the network between two starts. */
static void test_meddling(void)
{
    assert_attached(ALICE, "a1", "10.88.0.2");
    must("virsh -c qemu:///system net-destroy hvm-nat-1000");
    assert_attached(ALICE, "a2", "10.88.0.3");
    assert_attached(ALICE, "a1", "10.88.0.2");

    must("virsh -c qemu:///system net-undefine hvm-nat-1000");
    assert_attached(ALICE, "a3", "10.88.0.4");
    must("virsh -c qemu:///system net-info hvm-nat-1000 | grep 'Persistent.*yes'");
    must("test $(virsh -c qemu:///system net-dumpxml --inactive hvm-nat-1000 | grep -c '<hostname>') = 3");

    must("ip link del hvm-n1000");
    assert_attached(ALICE, "a4", "10.88.0.5");
    must("ip addr show dev hvm-n1000 | grep 10.88.0.1/24");

    /* Changed in one half only. */
    must("virsh -c qemu:///system net-update --live hvm-nat-1000 delete dns-host '<host ip=\"10.88.0.5\"/>'");
    assert_attached(ALICE, "a4", "10.88.0.5");
    must("test $(virsh -c qemu:///system net-dumpxml hvm-nat-1000 | grep -c '<hostname>') = 4");

    must("virsh -c qemu:///system net-destroy hvm-nat-1000 && virsh -c qemu:///system net-undefine hvm-nat-1000");
    must("test $(ip rule | grep -c hvm-n1000) = 1");
    detach(ALICE, "a1");
    assert_attached(ALICE, "a2", "10.88.0.2");

    /* Down, and its subnet somebody else's: made anew elsewhere. */
    must("virsh -c qemu:///system net-destroy hvm-nat-1000 && ip route add blackhole 10.88.0.0/17");
    assert_attached(ALICE, "a2", "10.88.128.2");
    must("ip route del blackhole 10.88.0.0/17");

    must("pkill -x dnsmasq || kill $(pidof dnsmasq)");
    assert_attached(ALICE, "a3", "10.88.128.3");
    must("for i in 1 2 3 4 5 6 7 8 9 10; do pidof dnsmasq && exit 0; sleep 0.1; done; exit 1");
    for (int i = 1; i <= 4; i++) {
        g_autofree char *name = g_strdup_printf("a%d", i);

        detach(ALICE, name);
    }
    release(ALICE);
    assert_clean();
}

static void test_collisions(void)
{
    must("ip route add blackhole 10.88.0.0/24");
    must("ip link add d0 type bridge && ip addr add 10.88.1.77/24 dev d0"); /* down: no route yet */
    must("printf '<network><name>other</name><bridge name=\"ob0\"/><ip address=\"10.88.2.1\" netmask=\"255.255.255.0\"/></network>' "
         ">/run/other.xml && virsh -c qemu:///system net-define /run/other.xml");
    assert_attached(ALICE, "a1", "10.88.3.2");
    detach(ALICE, "a1");
    release(ALICE);
    must("virsh -c qemu:///system net-undefine other && ip link del d0 && ip route del blackhole 10.88.0.0/24");

    must("ip route add blackhole 10.0.0.0/8");
    attach_fails(ALICE, "a1", HVM_ERROR_NETWORK, "10.88.0.0/16.*blackhole route 10.0.0.0/8");
    must("ip route del blackhole 10.0.0.0/8");
    /* The bridge's name is taken: libvirt's own words, and nothing left. */
    must("ip link add hvm-n1000 type bridge");
    attach_fails(ALICE, "a1", HVM_ERROR_NETWORK, "hvm-nat-1000.*hvm-n1000");
    must("ip link del hvm-n1000");
    assert_clean();
}

static void test_foreign(void)
{
    must("printf '<network><name>hvm-nat-1000</name><bridge name=\"ob0\"/></network>' >/run/other.xml && "
         "virsh -c qemu:///system net-define /run/other.xml");
    attach_fails(ALICE, "a1", HVM_ERROR_NETWORK, "hvm-nat-1000.*not this hvmd's");
    detach(ALICE, "a1");
    release(ALICE);
    assert_networks("");
    must("virsh -c qemu:///system net-undefine hvm-nat-1000");
    assert_clean();
}

static gboolean is_a1(const char *name, gpointer data G_GNUC_UNUSED)
{
    return strcmp(name, "a1") == 0;
}

static void test_full(void)
{
    g_autoptr(GError) error = NULL;

    assert_attached(ALICE, "a1", "10.88.0.2");
    must("for i in $(seq 3 254); do echo \"<host ip='10.88.0.$i'><hostname>n$i</hostname></host>\"; done >/run/dns.xml && "
         "virsh -c qemu:///system net-dumpxml --inactive hvm-nat-1000 >/run/net.xml && "
         "sed -i \"/<dns /r /run/dns.xml\" /run/net.xml && virsh -c qemu:///system net-define /run/net.xml");
    attach_fails(ALICE, "a2", HVM_ERROR_NETWORK, "hvm-nat-1000.*no free address");
    assert_attached(ALICE, "a1", "10.88.0.2");
    detach(ALICE, "a1");
    assert_attached(ALICE, "a2", "10.88.0.2");
    detach(ALICE, "a2");
    assert_attached(ALICE, "a1", "10.88.0.2");
    /* Entries of guests that are gone, and one of an administrator's. */
    must("for half in live config; do virsh -c qemu:///system net-update hvm-nat-1000 add dns-host "
         "\"<host ip='192.0.2.1'><hostname>site</hostname></host>\" --$half; done");
    nat_sweep(nat, connect_, ALICE, is_a1, NULL, &error);
    g_assert_no_error(error);
    assert_attached(ALICE, "a1", "10.88.0.2");
    assert_attached(ALICE, "a2", "10.88.0.3");
    must("virsh -c qemu:///system net-dumpxml hvm-nat-1000 | grep site");
    nat_sweep(nat, connect_, BOB, is_a1, NULL, &error); /* who has none */
    g_assert_no_error(error);
    detach(ALICE, "a1");
    detach(ALICE, "a2");
    release(ALICE);
    assert_clean();
}

/* Last: it ends libvirtd. */
static void test_no_libvirtd(void)
{
    assert_attached(ALICE, "a1", "10.88.0.2");
    must("kill -9 $(cat /run/libvirtd.pid)");
    attach_fails(ALICE, "a2", HVM_ERROR_NETWORK, "hvm-nat-1000");
    must("libvirtd -d");

    virConnectClose(connect_);
    connect_ = virConnectOpen("qemu:///system");
    g_assert_nonnull(connect_);
    assert_attached(ALICE, "a2", "10.88.0.3");
    assert_attached(ALICE, "a1", "10.88.0.2");
    detach(ALICE, "a1");
    detach(ALICE, "a2");
    release(ALICE);
    assert_clean();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virt_register_event_loop();
    connect_ = virConnectOpen("qemu:///system");
    nat = nat_new(POOL, LABEL, NULL);
    g_assert_nonnull(connect_);
    g_assert_nonnull(nat);
    g_test_add_func("/nat/bad-input", test_bad_input);
    g_test_add_func("/nat/attach", test_attach);
    g_test_add_func("/nat/guests", test_guests);
    g_test_add_func("/nat/threads", test_threads);
    g_test_add_func("/nat/meddling", test_meddling);
    g_test_add_func("/nat/collisions", test_collisions);
    g_test_add_func("/nat/foreign", test_foreign);
    g_test_add_func("/nat/full", test_full);
    g_test_add_func("/nat/no-libvirtd", test_no_libvirtd);
    int status = g_test_run();

    nat_free(nat);
    virConnectClose(connect_);
    return status;
}
