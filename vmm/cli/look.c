/* list, show, logs: what looks at guests. */
#include "cli.h"
#include "hvm_error.h"
#include "placement.h"
#include "table.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define LIST_COLUMNS                                                                                    \
    {"name", "NAME", COLUMN_TEXT}, {"state", "STATE", COLUMN_STATE}, {"owner", "OWNER", COLUMN_USER},   \
        {"template", "TEMPLATE", COLUMN_TEXT}, {"cpus", "CPUS", COLUMN_NUMBER},                         \
        {"memory", "MEMORY", COLUMN_SIZE}, {"placed", "PLACED", COLUMN_TEXT},                           \
        {"address", "ADDRESS", COLUMN_TEXT}, {"uuid", NULL, COLUMN_TEXT}

static const Column guest_columns[] = {LIST_COLUMNS, {0}};
static const Column list_columns[] = {{"guests", NULL, COLUMN_ROWS, guest_columns}, {0}};

const Column setting_columns[] = {
    {"group", "GROUP", COLUMN_TEXT}, {"key", "KEY", COLUMN_TEXT},       {"value", "VALUE", COLUMN_TEXT},
    {"origin", "FROM", COLUMN_TEXT}, {0},
};

static const Column show_columns[] = {
    LIST_COLUMNS,
    {"revision", NULL, COLUMN_TEXT},
    {"disk", NULL, COLUMN_SIZE},
    {"runtime", NULL, COLUMN_TEXT},
    {"accel", NULL, COLUMN_TEXT},
    {"mac", NULL, COLUMN_TEXT},
    {"network", NULL, COLUMN_TEXT},
    {"settings", NULL, COLUMN_ROWS, setting_columns},
    {"placement", NULL, COLUMN_JSON},
    {"notes", NULL, COLUMN_LINES},
    {0},
};

int run_list(Cli *cli, GError **error)
{
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GVariant) guests = NULL;

    if (!cli_call(cli, "List", NULL, FALSE, &reply, error))
        return 1;
    guests = g_variant_lookup_value(reply, "guests", G_VARIANT_TYPE("aa{sv}"));
    if (cli_has(cli, "json"))
        table_print_json(list_columns, reply);
    else
        table_print(guest_columns, guests, 0, "no guests (`hvm create NAME --template TEMPLATE` makes one)");
    return 0;
}

/* The text of one key of a reply to Show. Caller frees. */
static char *field(GVariant *guest, const char *key)
{
    for (const Column *column = show_columns; column->key; column++)
        if (strcmp(column->key, key) == 0)
            return table_cell(column, guest);
    return g_strdup("-");
}

static void print_fields(GVariant *guest)
{
    static const struct {
        const char *title;
        const char *key;
        const char *more; /* key of what stands behind it, or NULL */
        const char *joint;
    } lines[] = {
        {"name", "name", NULL, NULL},           {"state", "state", NULL, NULL},
        {"owner", "owner", NULL, NULL},         {"uuid", "uuid", NULL, NULL},
        {"template", "template", "revision", ", revision "}, {"runtime", "runtime", "accel", ", accelerator "},
        {"vCPUs", "cpus", "placed", ", on CPUs "}, {"memory", "memory", NULL, NULL},
        {"disk", "disk", NULL, NULL},           {"address", "address", NULL, NULL},
        {"network", "network", "mac", ", MAC "},
    };
    g_autofree const char **notes = NULL;

    for (gsize i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autofree char *value = field(guest, lines[i].key);
        g_autofree char *more = lines[i].more ? field(guest, lines[i].more) : g_strdup("-");
        gboolean both = strcmp(more, "-") != 0;

        table_print_field(lines[i].title, 8, "%s%s%s", value, both ? lines[i].joint : "", both ? more : "");
    }
    if (!g_variant_lookup(guest, "notes", "^a&s", &notes))
        return;
    for (const char **note = notes; *note; note++) {
        g_autofree char *text = hvm_escape(*note, -1);

        table_print_field("note", 8, "%s", text);
    }
}

/* Where its cells are: of a placement as hvmd sent it. */
static GVariant *cell_rows(const Placement *placement)
{
    g_auto(GVariantBuilder) rows = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    for (guint i = 0; i < placement->cells->len; i++) {
        const PlacementCell *cell = &g_array_index(placement->cells, PlacementCell, i);
        hwloc_bitmap_t pus = hwloc_bitmap_alloc();
        g_autofree char *list = NULL;
        GVariantDict row;

        for (unsigned j = 0; j < cell->vcpus; j++)
            hwloc_bitmap_set(pus, g_array_index(placement->vcpus, PlacementVcpu, cell->first_vcpu + j).pu);
        list = host_format_list(pus);
        hwloc_bitmap_free(pus);
        g_variant_dict_init(&row, NULL);
        g_variant_dict_insert(&row, "cell", "u", i);
        g_variant_dict_insert(&row, "node", "u", cell->node);
        g_variant_dict_insert(&row, "cpus", "s", list);
        g_variant_dict_insert(&row, "memory", "t", cell->memory_bytes);
        g_variant_dict_insert(&row, "pages", "t", cell->page_bytes);
        g_variant_builder_add_value(&rows, g_variant_dict_end(&row));
    }
    return g_variant_builder_end(&rows);
}

static GVariant *device_rows(const Placement *placement)
{
    g_auto(GVariantBuilder) rows = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    for (guint i = 0; i < placement->devices->len; i++) {
        const PlacementDevice *device = placement->devices->pdata[i];
        GVariantDict row;

        g_variant_dict_init(&row, NULL);
        g_variant_dict_insert(&row, "device", "s", device->name);
        g_variant_dict_insert(&row, "address", "s", device->address);
        if (device->cell >= 0)
            g_variant_dict_insert(&row, "cell", "u", (guint32)device->cell);
        g_variant_builder_add_value(&rows, g_variant_dict_end(&row));
    }
    return g_variant_builder_end(&rows);
}

static void print_placement(GVariant *guest)
{
    static const Column device_columns[] = {
        {"device", "DEVICE", COLUMN_TEXT}, {"address", "ADDRESS", COLUMN_TEXT}, {"cell", "CELL", COLUMN_NUMBER}, {0},
    };
    static const Column columns[] = {
        {"cell", "CELL", COLUMN_NUMBER}, {"node", "NODE", COLUMN_NUMBER}, {"memory", "MEMORY", COLUMN_SIZE},
        {"pages", "PAGES", COLUMN_SIZE}, {"cpus", "CPUS", COLUMN_TEXT},   {0},
    };
    const char *json = "";
    g_autoptr(Placement) placement = NULL;
    g_autoptr(GVariant) rows = NULL;

    g_variant_lookup(guest, "placement", "&s", &json);
    placement = *json ? placement_from_json(json, NULL) : NULL;
    if (!placement)
        return;
    rows = g_variant_ref_sink(cell_rows(placement));
    putchar('\n');
    table_print(columns, rows, 0, NULL);
    if (!placement->devices->len)
        return;

    g_autoptr(GVariant) devices = g_variant_ref_sink(device_rows(placement));

    putchar('\n');
    table_print(device_columns, devices, 0, NULL);
}

int run_show(Cli *cli, GError **error)
{
    GVariant *request = cli_name_request(cli_argument(cli, 0), error);
    g_autoptr(GVariant) guest = NULL;
    g_autoptr(GVariant) settings = NULL;

    if (!request || !cli_call(cli, "Show", request, FALSE, &guest, error))
        return 1;
    if (cli_has(cli, "json")) {
        table_print_json(show_columns, guest);
        return 0;
    }
    print_fields(guest);
    print_placement(guest);
    settings = g_variant_lookup_value(guest, "settings", G_VARIANT_TYPE("aa{sv}"));
    putchar('\n');
    table_print(setting_columns, settings, 0, NULL);
    return 0;
}

/* A console's log as a terminal may have it: lines and tabs, everything else escaped. */
static void print_console(const char *text, gsize length)
{
    const char *end = text + length;

    while (text < end) {
        const char *stop = text;

        while (stop < end && *stop != '\n' && *stop != '\t' && *stop != '\r')
            stop++;
        if (stop > text) {
            g_autofree char *shown = hvm_escape(text, stop - text);

            fputs(shown, stdout);
        }
        /* Consoles end lines with \r\n; a lone \r would let a guest overwrite what was printed before. */
        if (stop < end && *stop == '\r' && !(stop + 1 < end && (stop[1] == '\n' || stop[1] == '\r')))
            fputs("\\x0d", stdout);
        else if (stop < end && *stop != '\r')
            putchar(*stop);
        text = stop + 1;
    }
}

int run_logs(Cli *cli, GError **error)
{
    GVariant *named = cli_name_request(cli_argument(cli, 0), error);
    g_autoptr(GVariant) owned = named ? g_variant_ref_sink(named) : NULL;
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GVariant) bytes = NULL;
    guint64 lines = 0;
    gsize length = 0;
    GVariantDict request;

    if (!named || !cli_number(cli, "lines", 1, G_MAXUINT32, &lines, error))
        return 1;
    g_variant_dict_init(&request, owned);
    if (lines)
        g_variant_dict_insert(&request, "lines", "u", (guint32)lines);
    if (!cli_call(cli, "Logs", g_variant_dict_end(&request), FALSE, &reply, error))
        return 1;
    bytes = g_variant_lookup_value(reply, "text", G_VARIANT_TYPE_BYTESTRING);

    const char *text = bytes ? g_variant_get_fixed_array(bytes, &length, 1) : NULL;

    if (length == 0)
        fprintf(stderr, "guest '%s' has written nothing to its console\n", cli_argument(cli, 0));
    else if (isatty(STDOUT_FILENO))
        print_console(text, length);
    else
        fwrite(text, 1, length, stdout);
    return 0;
}
