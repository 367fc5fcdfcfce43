#include "hvm_error.h"
#include "key.h"
#include "peer.h"
#include "process.h"
#include "settings.h"
#include "undo.h"
#include "units.h"

#include <errno.h>
#include <gio/gio.h>
#include <gio/gunixsocketaddress.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

static void test_sizes(void)
{
    static const struct {
        const char *text;
        guint64 bytes;
        const char *back;
    } good[] = {
        {"0", 0, "0B"}, {"1", 1, "1B"}, {"4096", 4096, "4K"}, {"4K", 4096, "4K"}, {"4KiB", 4096, "4K"},
        {"1536B", 1536, "1536B"}, {"4g", 4 * HVM_GIB, "4G"}, {"2048M", 2 * HVM_GIB, "2G"}, {"3TB", 3072 * HVM_GIB, "3T"},
    };
    static const char *const bad[] = {"", "-1", "+1", "1.5G", "G", "4X", "4GG", "4GiBs", "4 G", " 4G", "9999999999999999999",
                                      "8388608T", "0x10", "4G\n"};

    for (gsize i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autoptr(GError) error = NULL;
        guint64 bytes = 0;

        g_assert_true(size_parse(good[i].text, &bytes, &error));
        g_assert_cmpuint(bytes, ==, good[i].bytes);
        g_autofree char *back = size_format(bytes);
        g_assert_cmpstr(back, ==, good[i].back);
    }
    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        guint64 bytes = 77;

        g_assert_false(size_parse(bad[i], &bytes, &error));
        g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
        g_assert_cmpuint(bytes, ==, 77);
    }
    g_autofree char *rounded = size_format_rounded(3584 * HVM_MIB);
    g_assert_cmpstr(rounded, ==, "3.5 GiB");
}

static void test_names(void)
{
    g_autofree char *longest = g_strnfill(63, 'a');
    g_autofree char *too_long = g_strnfill(300, 'a');
    const char *bad[] = {"", "../x", "a/b", "A", "-a", "a-", "a b", "a\nb", "a;b", "$(x)", "\xc3\xa9", ".", "a.b", too_long};

    g_assert_true(name_check("sl6-node01", "guest name", NULL));
    g_assert_true(name_check(longest, "guest name", NULL));
    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_false(name_check(bad[i], "guest name", &error));
        g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
        g_assert_true(strlen(error->message) < 250);
        g_assert_null(strchr(error->message, '\n'));
    }
}

static gboolean note(gpointer data, GError **error)
{
    char **slot = data;
    GString *log = (GString *)slot[0];

    g_string_append(log, slot[1]);
    if (slot[1][0] == 'b')
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "no");
    return slot[1][0] != 'b';
}

static void test_addresses(void)
{
    static const struct {
        const char *text;
        const char *address; /* NULL: none */
    } cases[] = {{"0000:41:00.0", "0000:41:00.0"}, {"41:0A.7", "0000:41:0a.7"}, {"10000:E1:1f.0", "10000:e1:1f.0"},
                 {"41:00.8", NULL}, {"41:20.0", NULL}, {"0000:141:00.0", NULL}, {" 41:00.0", NULL}, {"41:00.0 ", NULL},
                 {"0x41:00.0", NULL}, {"-1:00.0", NULL}, {"", NULL}, {"00041:00:00.0", NULL}, {"ffffffffff:00:00.0", NULL}};

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *address = NULL;

        g_assert_true(pci_address_parse(cases[i].text, &address) == (cases[i].address != NULL));
        g_assert_cmpstr(address, ==, cases[i].address);
    }
    g_assert_true(interface_check("ib0"));
    g_assert_true(interface_check("enp1s0f0np0.100@x"));
    for (const char *const *bad = (const char *const[]){"", ".", "..", "a/b", "a b", "a:b", "a,b", "a=b", "\xc3\xa9", NULL}; *bad; bad++)
        g_assert_false(interface_check(*bad));
}

static void test_undo(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    char *a[] = {(char *)log, (char *)"a"}, *b[] = {(char *)log, (char *)"b"}, *c[] = {(char *)log, (char *)"c"};

    {
        g_autoptr(Undo) undo = undo_new();
        undo_push(undo, "a", note, a, NULL);
        undo_push(undo, "b", note, b, NULL);
        undo_push(undo, "c", note, c, NULL);
    }
    g_assert_cmpstr(log->str, ==, "cba");
    g_string_truncate(log, 0);
    {
        g_autoptr(Undo) undo = undo_new();
        undo_push(undo, "a", note, a, NULL);
        undo_commit(undo);
    }
    g_assert_cmpstr(log->str, ==, "");
}

static const Key table[] = {
    {.group = "cpu", .key = "count", .type = KEY_UINT, .minimum = 1, .maximum = 64, .fallback = "1"},
    {.group = "memory", .key = "size", .type = KEY_SIZE, .fallback = "1G"},
    {.group = "disk *", .key = "size", .type = KEY_SIZE, .fallback = "8G"},
    {.group = "disk *", .key = "bus", .type = KEY_CHOICE, .choices = "virtio|sata"},
    {0},
};

static void test_settings(void)
{
    g_autoptr(GError) error = NULL;
    const char *text = "[cpu]\ncount=4\n[disk root]\nbus=sata\n";
    g_autoptr(Settings) settings = settings_parse(table, text, strlen(text), "t.conf", "template t", &error);

    g_assert_no_error(error);
    settings_add_defaults(settings);
    g_assert_cmpuint(settings_get_uint(settings, "cpu", "count"), ==, 4);
    g_assert_cmpuint(settings_get_size(settings, "disk root", "size"), ==, 8 * HVM_GIB);
    g_assert_cmpstr(settings_origin(settings, "cpu", "count"), ==, "template t");
    g_assert_cmpstr(settings_origin(settings, "memory", "size"), ==, "default");
    g_assert_true(settings_set_name(settings, "disk root.bus", "virtio", "request", &error));
    g_assert_cmpstr(settings_get(settings, "disk root", "bus"), ==, "virtio");
}

/* A word may stand for no number. */
static void test_key_word(void)
{
    static const Key rows[] = {
        {.group = "cpu", .key = "numa", .type = KEY_UINT, .minimum = 1, .maximum = 8, .choices = "auto"}, {0}};
    g_autoptr(GError) error = NULL;
    g_autofree char *word = NULL, *number = NULL, *other = NULL;
    g_autoptr(Settings) settings = settings_parse(rows, "[cpu]\nnuma=2\n", 13, "t.conf", "template t", &error);

    g_assert_true(key_check(&rows[0], "auto", &word, &error));
    g_assert_cmpstr(word, ==, "auto");
    g_assert_true(key_check(&rows[0], "2", &number, &error));
    g_assert_false(key_check(&rows[0], "0", &other, &error));
    g_assert_cmpstr(error->message, ==, "wanted 1 to 8, or auto, found '0'");
    g_clear_error(&error);
    g_assert_cmpuint(settings_get_uint(settings, "cpu", "numa"), ==, 2);
    g_assert_true(settings_set_name(settings, "cpu.numa", "auto", "request", &error));
    g_assert_cmpuint(settings_get_uint(settings, "cpu", "numa"), ==, 0);
    g_assert_false(key_check(&table[0], "auto", &other, NULL));
}

static void test_settings_bad(void)
{
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"[cpu]\ncuont=4\n", "t.conf: unknown key 'cuont' in [cpu]; did you mean 'count'?"},
        {"[cpus]\ncount=4\n", "t.conf: unknown group [cpus]; did you mean 'cpu'?"},
        {"[cpu]\ncount=4\n[cpu]\n", "t.conf: [cpu] stands twice, on lines 1 and 3"},
        {"[cpu]\ncount=4\ncount = 5\n", "t.conf: count in [cpu] stands twice, on lines 2 and 3"},
        {"[cpu]\ncount=0\n", "t.conf: [cpu] count: wanted 1 to 64, found '0'"},
        {"[disk ../x]\nsize=1G\n", "t.conf: unknown group [disk ../x]"},
        {"[memory]\nsize=much\n", "t.conf: [memory] size: wanted a size such as 4G, found 'much'"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(Settings) settings = settings_parse(table, bad[i].text, strlen(bad[i].text), "t.conf", "t", &error);

        g_assert_null(settings);
        g_assert_error(error, HVM_ERROR, HVM_ERROR_INVALID);
        g_assert_cmpstr(error->message, ==, bad[i].message);
    }
}

static void test_process(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *output = NULL;
    const char *good[] = {"echo", "a b;c", NULL};
    const char *failing[] = {"sh", "-c", "echo one >&2; echo two >&2; exit 3", NULL};
    const char *slow[] = {"sleep", "100", NULL};
    const char *missing[] = {"hvm-no-such-program", NULL};

    g_assert_true(process_run(good, NULL, HVM_ERROR_HOST, &output, &error));
    g_assert_cmpstr(output, ==, "a b;c\n");
    g_assert_false(process_run(failing, NULL, HVM_ERROR_STORAGE, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_STORAGE);
    g_assert_cmpstr(error->message, ==, "sh failed with status 3: two");
    g_clear_error(&error);
    g_assert_false(process_run(slow, &(ProcessOptions){.timeout_ms = 50}, HVM_ERROR_HOST, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_TIMEOUT);
    g_clear_error(&error);
    g_assert_false(process_run(missing, NULL, HVM_ERROR_HOST, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_HOST);
}

static void test_errors(void)
{
    g_autoptr(GError) error = g_dbus_error_new_for_dbus_error("io.hvm1.Error.NoPlacement", "x");
    g_autofree char *shown = hvm_escape("a\x1b[2J\xff\xc3\xa9", -1);

    g_assert_cmpstr(shown, ==, "a\\x1b[2J\\xff\xc3\xa9");
    g_assert_cmpuint(hvm_error_count(), ==, 13);
    (void)HVM_ERROR;
    g_clear_error(&error);
    error = g_dbus_error_new_for_dbus_error("io.hvm1.Error.NoPlacement", "x");
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT);
    g_assert_cmpint(hvm_error_exit_status(error), ==, 7);
}

/* A socket is connected to by its own name alone. */
static void test_peer(void)
{
    g_autofree char *folder = g_dir_make_tmp("hvm-peer-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "socket", NULL);
    g_autofree char *other = g_build_filename(folder, "other", NULL);
    g_autoptr(GSocketAddress) address = g_unix_socket_address_new(path);
    g_autoptr(GSocket) socket = g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, NULL);
    g_autoptr(GSocket) accepted = NULL;
    int fd;

    g_assert_cmpint(peer_connect(path), ==, -1);
    g_assert_cmpint(errno, ==, ENOENT);
    g_assert_true(g_socket_bind(socket, address, FALSE, NULL) && g_socket_listen(socket, NULL));
    fd = peer_connect(path);
    g_assert_cmpint(fd, >=, 0);
    accepted = g_socket_accept(socket, NULL, NULL);
    g_assert_nonnull(accepted);
    g_assert_cmpint(write(fd, "x", 1), ==, 1);
    close(fd);

    g_assert_cmpint(symlink(path, other), ==, 0);
    g_assert_cmpint(peer_connect(other), ==, -1);
    g_assert_cmpint(errno, ==, ENOTSOCK);
    g_unlink(other);
    g_assert_true(g_file_set_contents(other, "", 0, NULL));
    g_assert_cmpint(peer_connect(other), ==, -1);
    g_assert_cmpint(errno, ==, ENOTSOCK);
    g_unlink(other);
    g_assert_cmpint(link(path, other), ==, 0);
    g_assert_cmpint(peer_connect(other), ==, -1);
    g_assert_cmpint(errno, ==, EMLINK);
    g_unlink(other);

    g_socket_close(socket, NULL);
    g_assert_cmpint(peer_connect(path), ==, -1);
    g_assert_cmpint(errno, ==, ECONNREFUSED);
    g_unlink(path);
    g_rmdir(folder);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/base/sizes", test_sizes);
    g_test_add_func("/base/names", test_names);
    g_test_add_func("/base/addresses", test_addresses);
    g_test_add_func("/base/undo", test_undo);
    g_test_add_func("/base/settings", test_settings);
    g_test_add_func("/base/key-word", test_key_word);
    g_test_add_func("/base/settings-bad", test_settings_bad);
    g_test_add_func("/base/process", test_process);
    g_test_add_func("/base/errors", test_errors);
    g_test_add_func("/base/peer", test_peer);
    return g_test_run();
}
