/* verify: what the kernel does against what was promised. */
#include "cli.h"
#include "hvm_error.h"
#include "table.h"

#include <string.h>

static const Column finding_columns[] = {
    {"guest", "GUEST", COLUMN_TEXT},       {"what", "WHAT", COLUMN_TEXT},   {"state", "STATE", COLUMN_STATE},
    {"promised", "PROMISED", COLUMN_TEXT}, {"found", "FOUND", COLUMN_TEXT}, {0},
};

static const Column verify_columns[] = {
    {"findings", NULL, COLUMN_ROWS, finding_columns},
    {"differences", NULL, COLUMN_NUMBER},
    {0},
};

/* Adds one guest's findings to `rows`, with its name, and counts its differences. */
static gboolean verify_one(Cli *cli, const char *name, GVariantBuilder *rows, guint32 *differences, GError **error)
{
    GVariant *request = cli_name_request(name, error);
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GVariant) findings = NULL;
    guint32 count = 0;

    if (!request || !cli_call(cli, "Verify", request, FALSE, &reply, error))
        return FALSE;
    findings = g_variant_lookup_value(reply, "findings", G_VARIANT_TYPE("aa{sv}"));
    for (gsize i = 0; findings && i < g_variant_n_children(findings); i++) {
        g_autoptr(GVariant) finding = g_variant_get_child_value(findings, i);
        GVariantDict row;

        g_variant_dict_init(&row, finding);
        g_variant_dict_insert(&row, "guest", "s", name);
        g_variant_builder_add_value(rows, g_variant_dict_end(&row));
    }
    g_variant_lookup(reply, "differences", "u", &count);
    *differences += count;
    return TRUE;
}

/* The names of the guests that run, NULL-terminated; caller frees with g_strfreev. */
static char **running_guests(Cli *cli, GError **error)
{
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GVariant) guests = NULL;
    GPtrArray *names = NULL;

    if (!cli_call(cli, "List", NULL, FALSE, &reply, error))
        return NULL;
    names = g_ptr_array_new();
    guests = g_variant_lookup_value(reply, "guests", G_VARIANT_TYPE("aa{sv}"));
    for (gsize i = 0; guests && i < g_variant_n_children(guests); i++) {
        g_autoptr(GVariant) guest = g_variant_get_child_value(guests, i);
        const char *name = NULL, *state = NULL;

        if (g_variant_lookup(guest, "name", "&s", &name) && g_variant_lookup(guest, "state", "&s", &state) &&
            strcmp(state, "running") == 0)
            g_ptr_array_add(names, g_strdup(name));
    }
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, FALSE);
}

int run_verify(Cli *cli, GError **error)
{
    gboolean all = cli_has(cli, "all");
    g_auto(GStrv) running = NULL;
    g_auto(GVariantBuilder) rows = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));
    g_autoptr(GVariant) whole = NULL;
    guint32 differences = 0;
    GVariantDict dict;

    if (all == (cli->arguments->len > 0 && cli_argument(cli, 0))) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "verify: wanted names of guests or --all, found %s",
                    all ? "both" : "neither");
        return 1;
    }
    if (all && !(running = running_guests(cli, error)))
        return 1;
    for (unsigned i = 0;; i++) {
        const char *name = all ? running[i] : cli_argument(cli, i);

        if (!name)
            break;
        if (!verify_one(cli, name, &rows, &differences, error))
            return 1;
    }
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert_value(&dict, "findings", g_variant_builder_end(&rows));
    g_variant_dict_insert(&dict, "differences", "u", differences);
    whole = g_variant_ref_sink(g_variant_dict_end(&dict));
    if (cli_has(cli, "json")) {
        table_print_json(verify_columns, whole);
    } else {
        g_autoptr(GVariant) findings = g_variant_lookup_value(whole, "findings", NULL);

        table_print(finding_columns, findings, 0, "no guest runs");
    }
    return differences ? hvm_error_status(HVM_ERROR_HOST) : 0;
}
