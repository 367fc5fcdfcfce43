/*
 * raw: one D-Bus call to hvmd, past the checks of hvm, for the tests. (gdbus(1) wants a bus daemon behind an address.)
 *
 * usage: raw [--wait] SOCKET INTERFACE.METHOD [PARAMETER]      parameters as GVariant text: "{'name': <'g'>}"
 *
 * Prints the reply (with --wait the result of the job that was started), or the name of the D-Bus error and its message; status 1 then.
 */
#include <gio/gio.h>
#include <stdio.h>
#include <string.h>

static GVariant *parse_parameters(int count, char **words, GError **error)
{
    GVariantBuilder builder = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE_TUPLE);

    for (int i = 0; i < count; i++) {
        GVariant *value = g_variant_parse(NULL, words[i], NULL, NULL, error);

        if (!value) {
            g_variant_builder_clear(&builder);
            return NULL;
        }
        g_variant_builder_add_value(&builder, value);
        g_variant_unref(value);
    }
    return g_variant_ref_sink(g_variant_builder_end(&builder));
}

static GVariant *call(GDBusConnection *connection, const char *interface, const char *method, GVariant *parameters, GError **error)
{
    return g_dbus_connection_call_sync(connection, NULL, "/io/hvm1", interface, method, parameters, NULL, G_DBUS_CALL_FLAGS_NONE, 60000,
                                       NULL, error);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    gboolean wait = argc > 1 && strcmp(argv[1], "--wait") == 0;

    if (wait) {
        argc--;
        argv++;
    }
    g_autoptr(GVariant) parameters = argc > 2 ? parse_parameters(argc - 3, argv + 3, &error) : NULL;
    char *dot = argc > 2 ? strrchr(argv[2], '.') : NULL;

    if (!parameters || !dot) {
        fprintf(stderr, "raw: %s\n", error ? error->message : "usage: raw [--wait] SOCKET INTERFACE.METHOD [PARAMETER]");
        return 2;
    }
    *dot = '\0';

    g_autofree char *address = g_strdup_printf("unix:path=%s", argv[1]);
    g_autoptr(GDBusConnection) connection =
        g_dbus_connection_new_for_address_sync(address, G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT, NULL, NULL, &error);
    g_autoptr(GVariant) reply = connection ? call(connection, argv[2], dot + 1, parameters, &error) : NULL;

    if (reply && wait) {
        GVariant *job = g_steal_pointer(&reply);

        reply = call(connection, argv[2], "WaitJob", job, &error);
        g_variant_unref(job);
    }
    g_autofree char *name = error ? g_dbus_error_get_remote_error(error) : NULL;
    g_autofree char *text = reply ? g_variant_print(reply, TRUE) : g_strdup_printf("%s: %s", name ? name : "error", error->message);

    puts(text);
    return reply ? 0 : 1;
}
