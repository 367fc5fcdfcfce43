/* create, start, stop, destroy: what changes guests. */
#include "cli.h"
#include "hvm_error.h"
#include "table.h"
#include "units.h"

static void print_notes(GVariant *reply)
{
    g_autofree const char **notes = NULL;

    if (!g_variant_lookup(reply, "notes", "^a&s", &notes))
        return;
    for (const char **note = notes; *note; note++) {
        g_autofree char *text = hvm_escape(*note, -1);

        printf("  note: %s\n", text);
    }
}

/* "guest 'mpi0' is running on CPUs 0-3, address 10.88.0.2" */
static void print_running(const char *name, GVariant *reply)
{
    const char *address = "", *cpus = "", *accel = "";
    g_autofree char *shown_address = NULL;
    g_autofree char *shown_cpus = NULL;

    g_variant_lookup(reply, "address", "&s", &address);
    g_variant_lookup(reply, "cpus", "&s", &cpus);
    shown_address = hvm_escape(address, -1);
    shown_cpus = hvm_escape(cpus, -1);
    printf("guest '%s' is running%s%s%s%s\n", name, *cpus ? " on CPUs " : "", shown_cpus, *address ? ", address " : "",
           shown_address);
    g_variant_lookup(reply, "accel", "&s", &accel);
    if (g_str_equal(accel, "tcg"))
        puts("  note: without KVM it runs in software (QEMU's TCG), tens of times slower; `hvm doctor` says why");
    print_notes(reply);
}

static GVariant *create_request(const Cli *cli, GError **error)
{
    const char *name = cli_argument(cli, 0);
    const char *template_name = cli_value(cli, "template");
    GVariant *settings = NULL;
    GVariantDict request;

    if (!name_check(name, "guest name", error))
        return NULL;
    if (!template_name) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                    "create: wanted --template NAME, found none (`hvm template list` lists them)");
        return NULL;
    }
    if (!name_check(template_name, "template name", error) || !(settings = cli_settings_request(cli, error)))
        return NULL;
    g_variant_dict_init(&request, NULL);
    g_variant_dict_insert(&request, "name", "s", name);
    g_variant_dict_insert(&request, "template", "s", template_name);
    g_variant_dict_insert_value(&request, "settings", settings);
    if (cli_has(cli, "start"))
        g_variant_dict_insert(&request, "start", "b", TRUE);
    return g_variant_dict_end(&request);
}

static const Column create_columns[] = {
    {"uuid", NULL, COLUMN_TEXT},     {"address", NULL, COLUMN_TEXT}, {"cpus", NULL, COLUMN_TEXT},
    {"accel", NULL, COLUMN_TEXT},    {"notes", NULL, COLUMN_LINES},  {0},
};

int run_create(Cli *cli, GError **error)
{
    const char *name = cli_argument(cli, 0);
    g_autoptr(GVariant) reply = NULL;
    GVariant *request = create_request(cli, error);

    if (!request || !cli_call(cli, "Create", request, FALSE, &reply, error))
        return 1;
    if (cli_has(cli, "json")) {
        table_print_json(create_columns, reply);
        return 0;
    }
    printf("guest '%s' is created from template '%s'\n", name, cli_value(cli, "template"));
    if (cli_has(cli, "start")) {
        print_running(name, reply);
        printf("  run a command in it:  hvm exec %s -- uname -a\n", name);
    } else {
        print_notes(reply);
        printf("  start it:  hvm start %s\n", name);
    }
    return 0;
}

static gboolean start_one(Cli *cli, const char *name, GError **error)
{
    GVariant *named = cli_name_request(name, error);
    g_autoptr(GVariant) reply = NULL;
    GVariantDict request;

    if (!named)
        return FALSE;
    g_variant_dict_init(&request, named);
    g_variant_unref(g_variant_ref_sink(named));
    if (cli_has(cli, "no-wait"))
        g_variant_dict_insert(&request, "wait", "b", FALSE);
    if (!cli_call(cli, "Start", g_variant_dict_end(&request), FALSE, &reply, error))
        return FALSE;
    print_running(name, reply);
    return TRUE;
}

int run_start(Cli *cli, GError **error G_GNUC_UNUSED)
{
    return cli_each_guest(cli, start_one);
}

static gboolean stop_one(Cli *cli, const char *name, GError **error)
{
    static const struct {
        const char *how;
        const char *text;
    } ways[] = {{"agent", "is stopped"},
                {"acpi", "is stopped: its agent did not answer, its power button did"},
                {"hard", "is stopped hard: what it had not written to its disk is lost"},
                {"off", "was off already"}};
    GVariant *named = NULL;
    g_autoptr(GVariant) reply = NULL;
    guint64 timeout_s = 0;
    const char *how = "";
    const char *text = "is stopped";
    GVariantDict request;

    if (!cli_number(cli, "timeout", 0, 86400, &timeout_s, error) || !(named = cli_name_request(name, error)))
        return FALSE;
    g_variant_dict_init(&request, named);
    g_variant_unref(g_variant_ref_sink(named));
    if (cli_has(cli, "timeout"))
        g_variant_dict_insert(&request, "timeout", "u", (guint32)timeout_s);
    if (cli_has(cli, "hard"))
        g_variant_dict_insert(&request, "hard", "b", TRUE);
    if (!cli_call(cli, "Stop", g_variant_dict_end(&request), FALSE, &reply, error))
        return FALSE;
    g_variant_lookup(reply, "how", "&s", &how);
    for (gsize i = 0; i < G_N_ELEMENTS(ways); i++)
        if (g_str_equal(how, ways[i].how))
            text = ways[i].text;
    printf("guest '%s' %s\n", name, g_str_equal(how, "hard") && cli_has(cli, "hard") ? "is stopped hard" : text);
    return TRUE;
}

int run_stop(Cli *cli, GError **error G_GNUC_UNUSED)
{
    return cli_each_guest(cli, stop_one);
}

static gboolean destroy_one(Cli *cli, const char *name, GError **error)
{
    GVariant *request = cli_name_request(name, error);

    if (!request || !cli_call(cli, "Destroy", request, FALSE, NULL, error))
        return FALSE;
    printf("guest '%s' is gone, with its disk\n", name);
    return TRUE;
}

int run_destroy(Cli *cli, GError **error G_GNUC_UNUSED)
{
    return cli_each_guest(cli, destroy_one);
}
