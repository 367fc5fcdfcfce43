/* The connection to a libvirtd that is stopped, killed and started again, in a node of its own (private_node.sh). */
#include "hvm_error.h"
#include "process.h"
#include "virt.h"

#include <string.h>

#define URI "qemu:///system"

enum { TIMEOUT_MS = 20000 };

typedef struct {
    int state; /* -1: not told yet */
    unsigned changes;
    GString *events;
} Seen;

static Seen seen = {.state = -1};

static void on_state(gboolean connected, gpointer data)
{
    g_assert_true(data == &seen);
    g_assert_cmpint(seen.state == 1, !=, connected);
    seen.state = connected;
    seen.changes++;
}

static void on_lifecycle(const char *uuid, const char *name, int event, int detail, gpointer data)
{
    (void)uuid;
    (void)detail;
    (void)data;
    g_string_append_printf(seen.events, "%d:%s ", event, name);
}

static void shell(const char *text)
{
    const char *argv[] = {"sh", "-c", text, NULL};
    g_autoptr(GError) error = NULL;

    process_run(argv, &(ProcessOptions){.timeout_ms = TIMEOUT_MS}, HVM_ERROR_HOST, NULL, &error);
    g_assert_no_error(error);
}

static gboolean tick(gpointer data)
{
    (void)data;
    return G_SOURCE_CONTINUE;
}

/* Runs the main loop until on_state() told `state`; the milliseconds it took. */
static gint64 wait_for_state(int state)
{
    gint64 start = g_get_monotonic_time();
    guint source = g_timeout_add(20, tick, NULL);

    while (seen.state != state) {
        g_assert_cmpint(g_get_monotonic_time() - start, <, TIMEOUT_MS * 1000);
        g_main_context_iteration(NULL, TRUE);
    }
    g_source_remove(source);
    return (g_get_monotonic_time() - start) / 1000;
}

static void run_loop(unsigned ms)
{
    gint64 end = g_get_monotonic_time() + ms * 1000;
    guint source = g_timeout_add(20, tick, NULL);

    while (g_get_monotonic_time() < end)
        g_main_context_iteration(NULL, TRUE);
    g_source_remove(source);
}

static gpointer get_from_worker(gpointer data)
{
    return virt_get(data, NULL);
}

static void define_domain(virConnectPtr connect, const char *name)
{
    g_autofree char *xml = g_strdup_printf("<domain type='qemu'><name>%s</name><memory>65536</memory><os><type>hvm</type></os></domain>",
                                           name);
    g_autoptr(virDomain) domain = virDomainDefineXML(connect, xml);

    g_assert_nonnull(domain);
    g_assert_cmpint(virDomainUndefine(domain), ==, 0);
}

static void assert_works(Virt *virt, const char *name)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virConnect) connect = virt_get(virt, &error);
    g_autofree char *wanted = g_strdup_printf("%d:%s %d:%s ", VIR_DOMAIN_EVENT_DEFINED, name, VIR_DOMAIN_EVENT_UNDEFINED, name);

    g_assert_no_error(error);
    g_string_truncate(seen.events, 0);
    define_domain(connect, name);
    run_loop(300);
    g_assert_cmpstr(seen.events->str, ==, wanted);
}

static void test_restart(void)
{
    static const VirtListener listener = {on_state, on_lifecycle};
    g_autoptr(Virt) virt = virt_new(URI, &listener, &seen);
    g_autoptr(GError) error = NULL;
    GThread *worker = NULL;
    gint64 start = 0;

    wait_for_state(1);
    assert_works(virt, "hvm-reconnect-1");

    /* A caller that holds the connection over its loss gets errors from it, and no crash. */
    g_autoptr(virConnect) old = virt_get(virt, NULL);

    shell("kill -9 $(cat /run/libvirtd.pid)");
    g_assert_cmpint(wait_for_state(0), <, 1000);
    g_assert_cmpint(virConnectNumOfDomains(old), ==, -1);

    /* At once in the main loop's thread, and not for ever in a worker. */
    start = g_get_monotonic_time();
    g_assert_null(virt_get(virt, &error));
    g_assert_cmpint(g_get_monotonic_time() - start, <, 100000);
    g_assert_error(error, HVM_ERROR, HVM_ERROR_LIBVIRT);
    g_assert_true(g_str_has_prefix(error->message, "no connection to libvirt (" URI ")"));
    g_assert_null(g_thread_join(g_thread_new("worker", get_from_worker, virt)));
    g_assert_cmpint(g_get_monotonic_time() - start, <, 3000000);
    run_loop(1500);
    g_assert_cmpint(seen.state, ==, 0);

    shell("libvirtd -d");
    worker = g_thread_new("worker", get_from_worker, virt);
    g_assert_cmpint(wait_for_state(1), <, 3000);
    virConnectPtr from_worker = g_thread_join(worker);
    g_assert_nonnull(from_worker);
    virConnectClose(from_worker);
    assert_works(virt, "hvm-reconnect-2");

    /* Ended politely, and back before anybody asks. */
    shell("kill $(cat /run/libvirtd.pid); while [ -e /run/libvirtd.pid ]; do sleep 0.05; done; libvirtd -d");
    wait_for_state(0);
    wait_for_state(1);
    assert_works(virt, "hvm-reconnect-3");
    g_assert_cmpuint(seen.changes, ==, 5);
}

/* A libvirtd that is there and says nothing: the main loop goes on, and the connection comes when it wakes up. */
static void test_hang(void)
{
    static const VirtListener listener = {on_state, on_lifecycle};
    g_autoptr(Virt) virt = NULL;

    seen.state = -1;
    shell("kill -STOP $(cat /run/libvirtd.pid)");
    virt = virt_new(URI, &listener, &seen);
    run_loop(1500);
    g_assert_cmpint(seen.state, ==, -1);
    shell("kill -CONT $(cat /run/libvirtd.pid)");
    wait_for_state(1);
    assert_works(virt, "hvm-reconnect-4");

    /* Freed while it hangs. */
    gint64 start = g_get_monotonic_time();

    shell("kill -STOP $(cat /run/libvirtd.pid)");
    g_clear_pointer(&virt, virt_free);
    g_assert_cmpint(g_get_monotonic_time() - start, <, 3000000);
    shell("kill -CONT $(cat /run/libvirtd.pid)");
    run_loop(500);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virt_register_event_loop();
    seen.events = g_string_new(NULL);
    g_test_add_func("/reconnect/restart", test_restart);
    g_test_add_func("/reconnect/hang", test_hang);

    int status = g_test_run();

    g_string_free(seen.events, TRUE);
    return status;
}
