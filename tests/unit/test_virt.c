/* The connection against libvirt's test driver, which lives in this process, and against a libvirtd that is not there. */
#include "hvm_error.h"
#include "virt.h"

#include <string.h>

enum { TIMEOUT_MS = 10000 };

typedef struct {
    GMainLoop *loop;
    unsigned connected, lost;
    GString *events; /* "EVENT:NAME " */
    gboolean timed_out;
} Watcher;

static void on_state(gboolean connected, gpointer data)
{
    Watcher *watcher = data;

    watcher->connected += connected;
    watcher->lost += !connected;
    g_main_loop_quit(watcher->loop);
}

static void on_lifecycle(const char *uuid, const char *name, int event, int detail, gpointer data)
{
    Watcher *watcher = data;

    (void)detail;
    g_assert_cmpuint(strlen(uuid), ==, 36);
    g_string_append_printf(watcher->events, "%d:%s ", event, name);
    g_main_loop_quit(watcher->loop);
}

static const VirtListener listener = {on_state, on_lifecycle};

static Watcher *watcher_new(void)
{
    Watcher *watcher = g_new0(Watcher, 1);

    watcher->loop = g_main_loop_new(NULL, FALSE);
    watcher->events = g_string_new(NULL);
    return watcher;
}

static void watcher_free(Watcher *watcher)
{
    g_main_loop_unref(watcher->loop);
    g_string_free(watcher->events, TRUE);
    g_free(watcher);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Watcher, watcher_free)

static gboolean on_timeout(gpointer data)
{
    Watcher *watcher = data;

    watcher->timed_out = TRUE;
    g_main_loop_quit(watcher->loop);
    return G_SOURCE_CONTINUE;
}

/* Runs the main loop until a callback came. */
static void wait_for_callback(Watcher *watcher)
{
    guint source = g_timeout_add(TIMEOUT_MS, on_timeout, watcher);

    g_main_loop_run(watcher->loop);
    g_source_remove(source);
    g_assert_false(watcher->timed_out);
}

static void test_connect(void)
{
    g_autoptr(Watcher) watcher = watcher_new();
    g_autoptr(Virt) virt = virt_new("test:///default", &listener, watcher);
    g_autoptr(GError) error = NULL;

    /* Nothing was dispatched yet, so the main thread is told so at once. */
    g_assert_null(virt_get(virt, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_LIBVIRT);
    g_assert_cmpstr(error->message, ==, "no connection to libvirt (test:///default)");
    g_clear_error(&error);

    wait_for_callback(watcher);
    g_assert_cmpuint(watcher->connected, ==, 1);
    g_assert_cmpuint(watcher->lost, ==, 0);

    g_autoptr(virConnect) connect = virt_get(virt, &error);

    g_assert_no_error(error);
    g_assert_nonnull(connect);
    g_assert_cmpint(virConnectNumOfDomains(connect), >=, 1);
}

static void test_events(void)
{
    g_autoptr(Watcher) watcher = watcher_new();
    g_autoptr(Virt) virt = virt_new("test:///default", &listener, watcher);
    g_autofree char *destroyed = g_strdup_printf("%d:test ", VIR_DOMAIN_EVENT_STOPPED);
    g_autofree char *started = g_strdup_printf("%d:test ", VIR_DOMAIN_EVENT_STARTED);

    wait_for_callback(watcher);

    g_autoptr(virConnect) connect = virt_get(virt, NULL);
    g_autoptr(virDomain) domain = virDomainLookupByName(connect, "test");

    g_assert_nonnull(domain);
    g_assert_cmpint(virDomainDestroy(domain), ==, 0);
    wait_for_callback(watcher);
    g_assert_cmpstr(watcher->events->str, ==, destroyed);
    g_string_truncate(watcher->events, 0);
    g_assert_cmpint(virDomainCreate(domain), ==, 0);
    wait_for_callback(watcher);
    g_assert_true(g_str_has_prefix(watcher->events->str, started));
}

/* A connection may outlive the Virt it came from. */
static void test_outlive(void)
{
    g_autoptr(Watcher) watcher = watcher_new();
    Virt *virt = virt_new("test:///default", &listener, watcher);

    wait_for_callback(watcher);

    g_autoptr(virConnect) connect = virt_get(virt, NULL);

    virt_free(virt);
    g_assert_cmpint(virConnectNumOfDomains(connect), >=, 1);
    virt_free(NULL);
}

static gpointer get_from_worker(gpointer data)
{
    g_autoptr(virConnect) connect = virt_get(data, NULL);

    return GINT_TO_POINTER(connect ? virConnectNumOfDomains(connect) : -1);
}

/* A worker that asks while the connection is being made gets it. */
static void test_worker_waits(void)
{
    g_autoptr(Watcher) watcher = watcher_new();
    g_autoptr(Virt) virt = virt_new("test:///default", &listener, watcher);
    GThread *workers[4];

    for (gsize i = 0; i < G_N_ELEMENTS(workers); i++)
        workers[i] = g_thread_new("worker", get_from_worker, virt);
    wait_for_callback(watcher);
    for (gsize i = 0; i < G_N_ELEMENTS(workers); i++)
        g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(workers[i])), >=, 1);
}

static gboolean stop_waiting(gpointer data)
{
    g_main_loop_quit(data);
    return G_SOURCE_REMOVE;
}

static void test_no_libvirtd(void)
{
    g_autoptr(Watcher) watcher = watcher_new();
    g_autoptr(Virt) virt = virt_new("qemu:///system?socket=/nonexistent/hvm.sock", &listener, watcher);
    g_autoptr(GError) error = NULL;

    g_timeout_add(1500, stop_waiting, watcher->loop);
    g_main_loop_run(watcher->loop);
    g_assert_cmpuint(watcher->connected, ==, 0);
    g_assert_cmpuint(watcher->lost, ==, 0);
    g_assert_null(virt_get(virt, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_LIBVIRT);
    g_assert_true(g_str_has_prefix(error->message,
                                   "no connection to libvirt (qemu:///system?socket=/nonexistent/hvm.sock): "));
    g_assert_nonnull(strstr(error->message, "No such file"));
}

static void test_free_while_opening(void)
{
    g_autoptr(Watcher) watcher = watcher_new();

    virt_free(virt_new("test:///default", &listener, watcher));
    g_timeout_add(100, stop_waiting, watcher->loop);
    g_main_loop_run(watcher->loop);
    g_assert_cmpuint(watcher->connected, ==, 0);
}

static void test_error_text(void)
{
    g_autoptr(virConnect) connect = virConnectOpen("test:///default");
    g_autoptr(GError) error = NULL;

    g_assert_null(virDomainLookupByName(connect, "nobody\x1b"));
    g_assert_false(virt_error(&error, "guest '%s'", "g1"));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND);
    g_assert_true(g_str_has_prefix(error->message, "guest 'g1': Domain not found"));
    g_assert_null(strchr(error->message, '\x1b'));
    g_clear_error(&error);

    g_assert_null(virNetworkLookupByName(connect, "none"));
    g_assert_false(virt_error(&error, "network"));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NOT_FOUND);
    g_clear_error(&error);

    g_assert_null(virDomainDefineXML(connect, "<domain>\n<bad"));
    g_assert_false(virt_error(&error, "define"));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_LIBVIRT);
    g_assert_null(strchr(error->message, '\n'));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virt_register_event_loop();
    g_test_add_func("/virt/connect", test_connect);
    g_test_add_func("/virt/events", test_events);
    g_test_add_func("/virt/outlive", test_outlive);
    g_test_add_func("/virt/worker-waits", test_worker_waits);
    g_test_add_func("/virt/no-libvirtd", test_no_libvirtd);
    g_test_add_func("/virt/free-while-opening", test_free_while_opening);
    g_test_add_func("/virt/error-text", test_error_text);
    return g_test_run();
}
