/* template list, show, build, remove. */
#include "cli.h"
#include "hvm_error.h"
#include "table.h"
#include "units.h"

#include <stdlib.h>
#include <string.h>

static const Column template_columns[] = {
    {"name", "NAME", COLUMN_TEXT},     {"revision", "REVISION", COLUMN_TEXT}, {"size", "SIZE", COLUMN_SIZE},
    {"guests", "GUESTS", COLUMN_NUMBER}, {"description", "DESCRIPTION", COLUMN_TEXT}, {"error", NULL, COLUMN_TEXT},
    {0},
};
static const Column list_columns[] = {{"templates", NULL, COLUMN_ROWS, template_columns}, {0}};

extern const Column setting_columns[];

static const Column image_columns[] = {
    {"revision", "REVISION", COLUMN_TEXT}, {"size", "SIZE", COLUMN_SIZE}, {"digest", "DIGEST", COLUMN_TEXT},
    {"folder", NULL, COLUMN_TEXT},         {0},
};
static const Column show_columns[] = {
    {"name", NULL, COLUMN_TEXT},
    {"path", NULL, COLUMN_TEXT},
    {"settings", NULL, COLUMN_ROWS, setting_columns},
    {"images", NULL, COLUMN_ROWS, image_columns},
    {0},
};
static const Column build_columns[] = {{"revision", NULL, COLUMN_TEXT}, {"digest", NULL, COLUMN_TEXT}, {0}};

static GVariant *template_request(const char *name, GError **error)
{
    GVariantDict request;

    if (!name_check(name, "template name", error))
        return NULL;
    g_variant_dict_init(&request, NULL);
    g_variant_dict_insert(&request, "template", "s", name);
    return g_variant_dict_end(&request);
}

/* Templates which are not valid are listed with the others; why stands below the table. */
static void print_template_errors(GVariant *templates)
{
    gsize count = templates ? g_variant_n_children(templates) : 0;

    fflush(stdout);
    for (gsize i = 0; i < count; i++) {
        g_autoptr(GVariant) row = g_variant_get_child_value(templates, i);
        const char *name = "", *problem = "";

        g_variant_lookup(row, "name", "&s", &name);
        g_variant_lookup(row, "error", "&s", &problem);
        if (!*problem)
            continue;
        g_autofree char *shown_name = hvm_escape(name, -1);
        g_autofree char *shown = hvm_escape(problem, -1);

        fprintf(stderr, "template '%s' is not valid: %s\n", shown_name, shown);
    }
}

int run_template_list(Cli *cli, GError **error)
{
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GVariant) templates = NULL;

    if (!cli_call(cli, "ListTemplates", NULL, FALSE, &reply, error))
        return 1;
    if (cli_has(cli, "json")) {
        table_print_json(list_columns, reply);
        return 0;
    }
    templates = g_variant_lookup_value(reply, "templates", G_VARIANT_TYPE("aa{sv}"));
    table_print(template_columns, templates, 0, "no templates");
    print_template_errors(templates);
    return 0;
}

int run_template_show(Cli *cli, GError **error)
{
    const char *name = cli_argument(cli, 0);
    GVariant *request = template_request(name, error);
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GVariant) settings = NULL;
    g_autoptr(GVariant) images = NULL;
    g_autofree char *path = NULL;

    if (!request || !cli_call(cli, "ShowTemplate", request, FALSE, &reply, error))
        return 1;
    if (cli_has(cli, "json")) {
        table_print_json(show_columns, reply);
        return 0;
    }
    path = table_cell(&show_columns[1], reply);
    table_print_field("template", 8, "%s", name);
    table_print_field("file", 8, "%s", path);
    putchar('\n');
    settings = g_variant_lookup_value(reply, "settings", G_VARIANT_TYPE("aa{sv}"));
    table_print(setting_columns, settings, 0, NULL);
    images = g_variant_lookup_value(reply, "images", G_VARIANT_TYPE("aa{sv}"));
    putchar('\n');
    if (images && g_variant_n_children(images))
        table_print(image_columns, images, 0, NULL);
    else
        printf("no image yet: `hvm template build %s` makes one\n", name);
    return 0;
}

int run_template_build(Cli *cli, GError **error)
{
    const char *name = cli_argument(cli, 0);
    GVariant *request = template_request(name, error);
    g_autoptr(GVariant) reply = NULL;

    if (!request || !cli_call(cli, "BuildTemplate", request, TRUE, &reply, error))
        return 1;
    if (cli_has(cli, "json")) {
        table_print_json(build_columns, reply);
        return 0;
    }
    g_autofree char *revision = table_cell(&build_columns[0], reply);
    g_autofree char *digest = table_cell(&build_columns[1], reply);

    printf("template '%s' is built: revision %s\n  %s\n", name, revision, digest);
    return 0;
}

int run_template_remove(Cli *cli, GError **error)
{
    const char *name = cli_argument(cli, 0);
    const char *revision = cli_argument(cli, 1);
    GVariant *named = template_request(name, error);
    GVariantDict request;

    if (!named)
        return 1;
    g_variant_dict_init(&request, named);
    g_variant_unref(g_variant_ref_sink(named));
    if (revision)
        g_variant_dict_insert(&request, "revision", "s", revision);
    if (!cli_call(cli, "RemoveTemplate", g_variant_dict_end(&request), FALSE, NULL, error))
        return 1;
    if (revision)
        printf("revision %s of template '%s' is removed\n", revision, name);
    else
        printf("the images of template '%s' are removed\n", name);
    return 0;
}
