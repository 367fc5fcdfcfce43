/* host, host capture: the node. */
#include "cli.h"
#include "host.h"
#include "hvm_error.h"
#include "table.h"

static const Column page_columns[] = {
    {"size", "PAGES", COLUMN_SIZE}, {"total", "TOTAL", COLUMN_NUMBER},       {"free", "FREE", COLUMN_NUMBER},
    {"promised", "PROMISED", COLUMN_NUMBER}, {0},
};
static const Column cache_columns[] = {
    {"level", "LEVEL", COLUMN_NUMBER}, {"bytes", "SIZE", COLUMN_SIZE}, {"count", "COUNT", COLUMN_NUMBER}, {0},
};
static const Column node_columns[] = {
    {"node", "NODE", COLUMN_NUMBER}, {"cpus", "CPUS", COLUMN_TEXT}, {"memory", "MEMORY", COLUMN_SIZE},
    {"free", "FREE", COLUMN_SIZE},   {"kind", "KIND", COLUMN_TEXT}, {"pages", NULL, COLUMN_ROWS, page_columns}, {0},
};
static const Column cell_columns[] = {
    {"node", "NODE", COLUMN_NUMBER}, {"size", "PAGES", COLUMN_SIZE}, {"bytes", "MEMORY", COLUMN_SIZE}, {0},
};
static const Column promise_columns[] = {
    {"guest", "GUEST", COLUMN_TEXT}, {"owner", "OWNER", COLUMN_TEXT}, {"cpus", "CPUS", COLUMN_TEXT},
    {"memory", "MEMORY", COLUMN_SIZE}, {"devices", "DEVICES", COLUMN_TEXT}, {"cells", NULL, COLUMN_ROWS, cell_columns}, {0},
};
static const Column device_columns[] = {
    {"address", "DEVICE", COLUMN_TEXT},      {"kind", "KIND", COLUMN_TEXT},     {"node", "NODE", COLUMN_NUMBER},
    {"group", "IOMMU GROUP", COLUMN_NUMBER}, {"interface", "INTERFACE", COLUMN_TEXT}, {"driver", "DRIVER", COLUMN_TEXT},
    {"use", "KEPT, BECAUSE", COLUMN_TEXT}, {0},
};
static const Column host_columns[] = {
    {"model", NULL, COLUMN_TEXT},
    {"packages", NULL, COLUMN_NUMBER},
    {"cores", NULL, COLUMN_NUMBER},
    {"pus", NULL, COLUMN_NUMBER},
    {"smt", NULL, COLUMN_NUMBER},
    {"housekeeping", NULL, COLUMN_TEXT},
    {"isolated", NULL, COLUMN_TEXT},
    {"caches", NULL, COLUMN_ROWS, cache_columns},
    {"nodes", NULL, COLUMN_ROWS, node_columns},
    {"devices", NULL, COLUMN_ROWS, device_columns},
    {"promises", NULL, COLUMN_ROWS, promise_columns},
    {"known", NULL, COLUMN_TEXT},
    {0},
};

/* Pages of all nodes as rows of one table: the node's number is put into each. Floating. */
static GVariant *all_pages(GVariant *nodes)
{
    g_auto(GVariantBuilder) rows = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    for (gsize i = 0; nodes && i < g_variant_n_children(nodes); i++) {
        g_autoptr(GVariant) node = g_variant_get_child_value(nodes, i);
        g_autoptr(GVariant) pages = g_variant_lookup_value(node, "pages", G_VARIANT_TYPE("aa{sv}"));
        g_autoptr(GVariant) number = g_variant_lookup_value(node, "node", NULL);

        for (gsize j = 0; pages && j < g_variant_n_children(pages); j++) {
            g_autoptr(GVariant) pool = g_variant_get_child_value(pages, j);
            GVariantDict row;

            g_variant_dict_init(&row, pool);
            if (number)
                g_variant_dict_insert_value(&row, "node", number);
            g_variant_builder_add_value(&rows, g_variant_dict_end(&row));
        }
    }
    return g_variant_builder_end(&rows);
}

static void print_caches(GVariant *host)
{
    g_autoptr(GVariant) caches = g_variant_lookup_value(host, "caches", G_VARIANT_TYPE("aa{sv}"));
    g_autoptr(GString) text = g_string_new(NULL);

    for (gsize i = 0; caches && i < g_variant_n_children(caches); i++) {
        g_autoptr(GVariant) cache = g_variant_get_child_value(caches, i);
        g_autofree char *level = table_cell(&cache_columns[0], cache);
        g_autofree char *size = table_cell(&cache_columns[1], cache);
        g_autofree char *count = table_cell(&cache_columns[2], cache);

        g_string_append_printf(text, "%s%s x L%s of %s", i ? ", " : "", count, level, size);
    }
    if (text->len)
        table_print_field("caches", 12, "%s", text->str);
}

static void print_host(GVariant *host)
{
    static const Column numbered_pages[] = {
        {"node", "NODE", COLUMN_NUMBER}, {"size", "PAGES", COLUMN_SIZE},         {"total", "TOTAL", COLUMN_NUMBER},
        {"free", "FREE", COLUMN_NUMBER}, {"promised", "PROMISED", COLUMN_NUMBER}, {0},
    };
    g_autoptr(GVariant) nodes = g_variant_lookup_value(host, "nodes", G_VARIANT_TYPE("aa{sv}"));
    g_autoptr(GVariant) devices = g_variant_lookup_value(host, "devices", G_VARIANT_TYPE("aa{sv}"));
    g_autoptr(GVariant) promises = g_variant_lookup_value(host, "promises", G_VARIANT_TYPE("aa{sv}"));
    g_autoptr(GVariant) pages = g_variant_ref_sink(all_pages(nodes));
    gboolean known = TRUE;
    g_autofree char *model = table_cell(&host_columns[0], host);
    g_autofree char *packages = table_cell(&host_columns[1], host);
    g_autofree char *cores = table_cell(&host_columns[2], host);
    g_autofree char *pus = table_cell(&host_columns[3], host);
    g_autofree char *housekeeping = table_cell(&host_columns[5], host);
    g_autofree char *isolated = table_cell(&host_columns[6], host);
    gboolean isolates = !g_str_equal(isolated, "-");

    g_variant_lookup(host, "known", "b", &known);
    table_print_field("model", 12, "%s", model);
    table_print_field("processors", 12, "%s package%s, %s core%s, %s CPU%s", packages,
                      g_str_equal(packages, "1") ? "" : "s", cores, g_str_equal(cores, "1") ? "" : "s", pus,
                      g_str_equal(pus, "1") ? "" : "s");
    print_caches(host);
    table_print_field("housekeeping", 12, "%s",
                      !g_str_equal(housekeeping, "-") ? housekeeping
                      : isolates                      ? "none: QEMU's own threads run on CPUs that are not isolated"
                                                      : "none: QEMU's own threads share the guests' CPUs");
    if (isolates)
        table_print_field("isolated", 12, "%s", isolated);
    putchar('\n');
    table_print(node_columns, nodes, 0, NULL);
    if (g_variant_n_children(pages)) {
        putchar('\n');
        table_print(numbered_pages, pages, 0, NULL);
    }
    if (devices && g_variant_n_children(devices)) {
        putchar('\n');
        table_print(device_columns, devices, 0, NULL);
    }
    putchar('\n');
    if (promises && g_variant_n_children(promises))
        table_print(promise_columns, promises, 0, NULL);
    else
        puts(known ? "nothing is promised to guests" : "what is promised to guests is not known: libvirt has not told which there are");
}

int run_host(Cli *cli, GError **error)
{
    g_autoptr(GVariant) host = NULL;

    if (!cli_call(cli, "Host", NULL, FALSE, &host, error))
        return 1;
    if (cli_has(cli, "json"))
        table_print_json(host_columns, host);
    else
        print_host(host);
    return 0;
}

int run_host_capture(Cli *cli, GError **error)
{
    const char *path = cli_argument(cli, 0);
    g_autoptr(Host) host = host_new_live(error);

    if (!host || !host_capture(host, path, error))
        return 1;

    g_autofree char *shown = hvm_escape(path, -1);

    printf("this node is captured in %s\n  plan for it:  hvm plan NAME --template TEMPLATE --host %s\n", shown, shown);
    return 0;
}
