/* The connection to hvmd: vmm/client. */
#include "client.h"
#include "fake_hvmd.h"
#include "hvm_error.h"

#include <sys/socket.h>
#include <string.h>

typedef struct {
    GString *lines;
    GCancellable *cancel_at_once;
} Heard;

static void on_progress(const char *text, double fraction, gpointer data)
{
    Heard *heard = data;

    g_string_append_printf(heard->lines, "%s %.2f\n", text, fraction);
    if (heard->cancel_at_once)
        g_cancellable_cancel(heard->cancel_at_once);
}

static void test_call(void)
{
    FakeHvmd *fake = fake_new();
    g_autoptr(GError) error = NULL;
    g_autoptr(GVariant) reply = NULL;
    const char *version = NULL;

    fake_reply(fake, "Hello", "{'version': <'9.9'>}");
    {
        g_autoptr(Client) client = client_open(fake_socket(fake), &error);

        g_assert_no_error(error);
        g_assert_true(client_call(client, "Hello", NULL, NULL, &reply, &error));
        g_assert_true(g_variant_lookup(reply, "version", "&s", &version));
        g_assert_cmpstr(version, ==, "9.9");
    }
    fake_free(fake);
}

/* Each code of the table comes back as itself, with hvmd's words alone. */
static void test_errors(void)
{
    FakeHvmd *fake = fake_new();
    g_autoptr(Client) client = client_open(fake_socket(fake), NULL);

    for (unsigned code = 0; code < hvm_error_count(); code++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(GVariant) reply = NULL;

        fake_error(fake, "Show", (int)code, "guest 'g': no");
        g_assert_false(client_call(client, "Show", NULL, NULL, &reply, &error));
        g_assert_error(error, HVM_ERROR, (int)code);
        g_assert_cmpstr(error->message, ==, "guest 'g': no");
        g_assert_null(reply);
    }
    g_clear_pointer(&client, client_free);
    fake_free(fake);
}

static void test_job(void)
{
    FakeHvmd *fake = fake_new();
    g_autoptr(Client) client = client_open(fake_socket(fake), NULL);
    g_autoptr(GString) lines = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(GVariant) reply = NULL;
    Heard heard = {lines, NULL};
    ClientWatch watch = {on_progress, &heard, NULL};
    const char *address = NULL;

    fake_progress(fake, "placing", 0.25);
    fake_progress(fake, "booting", -1);
    fake_reply(fake, "Start", "{'address': <'10.0.0.2'>}");
    g_assert_true(client_call(client, "Start", NULL, &watch, &reply, &error));
    g_assert_true(g_variant_lookup(reply, "address", "&s", &address));
    g_assert_cmpstr(address, ==, "10.0.0.2");
    g_assert_cmpstr(lines->str, ==, "placing 0.25\nbooting -1.00\n");
    fake_error(fake, "Start", HVM_ERROR_NO_PLACEMENT, "guest 'g': needs 4 cores; node 0 has 2");
    g_clear_pointer(&reply, g_variant_unref);
    g_assert_false(client_call(client, "Start", NULL, &watch, &reply, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT);
    g_clear_pointer(&client, client_free);
    fake_free(fake);
}

/* Cancelling asks hvmd once, and waits for the job's own end. */
static void test_cancel(void)
{
    FakeHvmd *fake = fake_new();
    g_autoptr(Client) client = client_open(fake_socket(fake), NULL);
    g_autoptr(GCancellable) cancellable = g_cancellable_new();
    g_autoptr(GString) lines = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    Heard heard = {lines, cancellable};
    ClientWatch watch = {on_progress, &heard, cancellable};

    fake_hold_jobs(fake);
    fake_progress(fake, "installing packages", 0.5);
    g_assert_false(client_call(client, "BuildTemplate", NULL, &watch, NULL, &error));
    g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    g_assert_cmpuint(fake_calls(fake, "CancelJob"), ==, 1);
    g_clear_pointer(&client, client_free);
    fake_free(fake);
}

static void test_lost(void)
{
    FakeHvmd *fake = fake_new();
    g_autoptr(Client) client = client_open(fake_socket(fake), NULL);
    g_autoptr(GError) error = NULL;

    fake_hang_up(fake, "List");
    g_assert_false(client_call(client, "List", NULL, NULL, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_HOST);
    g_assert_cmpstr(error->message, ==, "the connection to hvmd was lost before it answered List (did hvmd stop?)");
    g_clear_error(&error);
    g_assert_false(client_call(client, "List", NULL, NULL, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_HOST);
    g_clear_pointer(&client, client_free);
    fake_free(fake);
}

static void test_unknown_method(void)
{
    FakeHvmd *fake = fake_new();
    g_autoptr(Client) client = client_open(fake_socket(fake), NULL);
    g_autoptr(GError) error = NULL;

    g_assert_false(client_call(client, "Fly", NULL, NULL, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_HOST);
    g_assert_nonnull(strstr(error->message, "does not know Fly"));
    g_clear_pointer(&client, client_free);
    fake_free(fake);
}

static void test_nobody_there(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *too_long = g_strnfill(200, 'x');

    g_assert_null(client_open("/nonexistent/hvmd.sock", &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_HOST);
    g_assert_cmpstr(
        error->message, ==,
        "hvmd is not running: nothing listens on /nonexistent/hvmd.sock (start it with `systemctl start hvmd` or "
        "`./setup start`)");
    g_clear_error(&error);
    g_assert_null(client_open(too_long, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
}

static void test_descriptors(void)
{
    FakeHvmd *fake = fake_new();
    g_autoptr(Client) client = client_open(fake_socket(fake), NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GUnixFDList) fds = NULL;

    fake_reply(fake, "Exec", "{'exec': <uint32 1>, 'stdin': <handle 3>}");
    g_assert_true(client_call_fds(client, "Exec", NULL, &reply, &fds, &error));
    g_assert_nonnull(fds);
    g_assert_cmpint(client_take_fd(reply, fds, "stdin", &error), ==, -1);
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INTERNAL);
    g_clear_error(&error);
    g_assert_cmpint(client_take_fd(reply, fds, "stdout", &error), ==, -1);
    g_assert_error(error, HVM_ERROR, HVM_ERROR_INTERNAL);
    g_clear_pointer(&client, client_free);
    fake_free(fake);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/client/call", test_call);
    g_test_add_func("/client/errors", test_errors);
    g_test_add_func("/client/job", test_job);
    g_test_add_func("/client/cancel", test_cancel);
    g_test_add_func("/client/lost", test_lost);
    g_test_add_func("/client/unknown-method", test_unknown_method);
    g_test_add_func("/client/nobody-there", test_nobody_there);
    g_test_add_func("/client/descriptors", test_descriptors);
    return g_test_run();
}
