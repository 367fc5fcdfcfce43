/* map: the node as a drawing, with who has which PU. */
#include "map.h"

#include "cli.h"
#include "hvm_error.h"
#include "table.h"

/* Owners' names by PU. */
typedef struct {
    GPtrArray *names; /* of char *, index: PU; NULL: free */
} Owners;

static void add_owner(Owners *owners, const char *name, const char *cpus)
{
    hwloc_bitmap_t pus = host_parse_list(cpus, NULL);
    int pu = -1;

    if (!pus)
        return;
    while ((pu = hwloc_bitmap_next(pus, pu)) >= 0) {
        if (owners->names->len <= (guint)pu)
            g_ptr_array_set_size(owners->names, pu + 1);
        g_free(owners->names->pdata[pu]);
        owners->names->pdata[pu] = g_strdup(name);
    }
    hwloc_bitmap_free(pus);
}

static const char *owner_of(unsigned pu, gpointer data)
{
    const Owners *owners = data;

    return pu < owners->names->len ? owners->names->pdata[pu] : NULL;
}

/* What hvmd has promised to whom. Without hvmd the node is drawn all the same, and it is said. */
static void ask_owners(Cli *cli, Owners *owners)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GVariant) host = NULL;
    g_autoptr(GVariant) promises = NULL;
    const char *housekeeping = "";
    gboolean known = TRUE;

    if (!cli_call(cli, "Host", NULL, FALSE, &host, &error)) {
        g_prefix_error(&error, "who has which core is not known: ");
        cli_report(error);
        return;
    }
    g_variant_lookup(host, "housekeeping", "&s", &housekeeping);
    add_owner(owners, "(housekeeping)", housekeeping);
    if (g_variant_lookup(host, "known", "b", &known) && !known) {
        g_set_error_literal(&error, HVM_ERROR, HVM_ERROR_LIBVIRT,
                            "who has which core is not known: libvirt has not told which guests there are");
        cli_report(error);
    }
    promises = g_variant_lookup_value(host, "promises", G_VARIANT_TYPE("aa{sv}"));
    for (gsize i = 0; promises && i < g_variant_n_children(promises); i++) {
        g_autoptr(GVariant) promise = g_variant_get_child_value(promises, i);
        const char *guest = "", *owner = "", *cpus = "";

        g_variant_lookup(promise, "guest", "&s", &guest);
        g_variant_lookup(promise, "owner", "&s", &owner);
        g_variant_lookup(promise, "cpus", "&s", &cpus);
        add_owner(owners, *guest ? guest : owner, cpus);
    }
}

int run_map(Cli *cli, GError **error)
{
    const char *where = cli_value(cli, "host"), *path = cli_value(cli, "svg");
    g_autoptr(Host) host = where ? host_new_from(where, error) : host_new_live(error);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GString) text = g_string_new(NULL);
    Owners owners = {names};

    if (!host)
        return 1;
    if (!where)
        ask_owners(cli, &owners);
    if (path)
        return map_svg(host, owner_of, &owners, path, error) ? 0 : 1;
    map_text(host, owner_of, &owners, cli_width(stdout), *colour_on(COLOUR_GOOD) != '\0', text);
    fputs(text->str, stdout);
    return 0;
}
