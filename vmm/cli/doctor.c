/* doctor: is this node fit? hvmd's checks, or, where it cannot be reached, those that need no hvmd. */
#include "doctor.h"

#include "cli.h"
#include "hvm_error.h"
#include "table.h"

#include <string.h>

static const Column check_columns[] = {
    {"name", "CHECK", COLUMN_TEXT},   {"state", "STATE", COLUMN_STATE}, {"found", "FOUND", COLUMN_TEXT},
    {"meaning", "MEANS", COLUMN_TEXT}, {"advice", "DO", COLUMN_TEXT},    {0},
};
static const Column doctor_columns[] = {{"checks", NULL, COLUMN_ROWS, check_columns}, {0}};

static const char *const state_names[] = {[CHECK_OK] = "ok", [CHECK_WARNING] = "warning", [CHECK_FAILURE] = "failure"};

static void add_row(GVariantBuilder *rows, const Check *check)
{
    GVariantDict row;

    g_variant_dict_init(&row, NULL);
    g_variant_dict_insert(&row, "name", "s", check->name);
    g_variant_dict_insert(&row, "state", "s", state_names[check->state]);
    g_variant_dict_insert(&row, "found", "s", check->found);
    g_variant_dict_insert(&row, "meaning", "s", check->meaning ? check->meaning : "");
    g_variant_dict_insert(&row, "advice", "s", check->advice ? check->advice : "");
    g_variant_builder_add_value(rows, g_variant_dict_end(&row));
}

/* The check of hvmd itself: who answers, and whether it is of our version. */
static void add_hvmd(GVariantBuilder *rows, GVariant *hello)
{
    g_autoptr(GPtrArray) checks = g_ptr_array_new_with_free_func((GDestroyNotify)check_free);
    const char *version = "";
    guint32 pid = 0;

    g_variant_lookup(hello, "version", "&s", &version);
    g_variant_lookup(hello, "pid", "u", &pid);
    if (strcmp(version, HVM_VERSION) == 0)
        check_add(checks, "hvmd", CHECK_OK, NULL, NULL, "hvmd %s, process %u", version, pid);
    else
        check_add(checks, "hvmd", CHECK_WARNING, "hvm and hvmd may not understand each other", "restart hvmd",
                  "hvmd is of version %s, hvm of " HVM_VERSION, version);
    add_row(rows, checks->pdata[0]);
}

static gboolean add_from_hvmd(Cli *cli, GVariantBuilder *rows, GError **error)
{
    g_autoptr(GVariant) hello = NULL;
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GVariant) checks = NULL;

    if (!cli_call(cli, "Hello", NULL, FALSE, &hello, error) || !cli_call(cli, "Doctor", NULL, FALSE, &reply, error))
        return FALSE;
    add_hvmd(rows, hello);
    checks = g_variant_lookup_value(reply, "checks", G_VARIANT_TYPE("aa{sv}"));
    for (gsize i = 0; checks && i < g_variant_n_children(checks); i++) {
        g_autoptr(GVariant) row = g_variant_get_child_value(checks, i);

        g_variant_builder_add_value(rows, row);
    }
    return TRUE;
}

/* What can be said without hvmd, and that it is not there. */
static gboolean add_without_hvmd(GVariantBuilder *rows, const GError *why, GError **error)
{
    g_autoptr(Host) host = host_new_live(error);
    g_autoptr(GPtrArray) checks = NULL;
    AccelProbe accel;

    if (!host)
        return FALSE;
    accel_probe(&accel);
    checks = doctor_check_host(host, &accel);
    check_add(checks, "hvmd", CHECK_FAILURE,
              "no guest can be created, started or stopped; libvirt and the image store are not checked",
              "start it; if it does not stay, its log says why", "%s", why->message);
    for (guint i = 0; i < checks->len; i++)
        add_row(rows, checks->pdata[i]);
    return TRUE;
}

static unsigned count_state(GVariant *rows, CheckState state)
{
    unsigned count = 0;

    for (gsize i = 0; i < g_variant_n_children(rows); i++) {
        g_autoptr(GVariant) row = g_variant_get_child_value(rows, i);
        const char *word = "";

        g_variant_lookup(row, "state", "&s", &word);
        count += strcmp(word, state_names[state]) == 0;
    }
    return count;
}

/* One line a check; where it matters what it means and what to do, below what was found. */
static void print_checks(GVariant *rows)
{
    unsigned width = 5;

    for (gsize i = 0; i < g_variant_n_children(rows); i++) {
        g_autoptr(GVariant) row = g_variant_get_child_value(rows, i);
        g_autofree char *name = table_cell(&check_columns[0], row);

        width = MAX(width, table_width(name));
    }
    printf("%s%-*s  STATE    FOUND%s\n", colour_on(COLOUR_STRONG), (int)width, "CHECK", colour_off(COLOUR_STRONG));
    for (gsize i = 0; i < g_variant_n_children(rows); i++) {
        g_autoptr(GVariant) row = g_variant_get_child_value(rows, i);
        g_autofree char *name = table_cell(&check_columns[0], row);
        g_autofree char *state = table_cell(&check_columns[1], row);
        Colour colour = table_state_colour(state);

        printf("%s%*s  %s%s%s%*s  ", name, (int)(width - table_width(name)), "", colour_on(colour), state,
               colour_off(colour), (int)(7 - MIN(7, strlen(state))), "");
        for (int j = 2; j <= 4; j++) {
            static const char *const leads[] = {[2] = "", [3] = "    means: ", [4] = "    do:    "};
            g_autofree char *text = table_cell(&check_columns[j], row);
            int indent = j == 2 ? (int)width + 11 : (int)strlen(leads[j]);

            if (j > 2 && strcmp(text, "-") == 0)
                continue;
            fputs(leads[j], stdout);
            help_print_wrapped(stdout, text, indent, indent);
        }
    }
}

int run_doctor(Cli *cli, GError **error)
{
    g_auto(GVariantBuilder) builder = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));
    g_autoptr(GError) why = NULL;
    g_autoptr(GVariant) rows = NULL;
    unsigned warnings = 0, failures = 0;

    if (!add_from_hvmd(cli, &builder, &why) && !add_without_hvmd(&builder, why, error))
        return 1;
    rows = g_variant_ref_sink(g_variant_builder_end(&builder));
    warnings = count_state(rows, CHECK_WARNING);
    failures = count_state(rows, CHECK_FAILURE);
    if (cli_has(cli, "json")) {
        GVariantDict reply;

        g_variant_dict_init(&reply, NULL);
        g_variant_dict_insert_value(&reply, "checks", rows);

        g_autoptr(GVariant) whole = g_variant_ref_sink(g_variant_dict_end(&reply));

        table_print_json(doctor_columns, whole);
    } else {
        print_checks(rows);
        printf("\n%u ok, %u warning%s, %u failure%s\n", count_state(rows, CHECK_OK), warnings, warnings == 1 ? "" : "s",
               failures, failures == 1 ? "" : "s");
    }
    return failures ? hvm_error_status(HVM_ERROR_HOST) : 0;
}
