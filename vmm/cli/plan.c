/*
 * plan: what start would decide, computed here. Of hvmd it asks only what is promised on this node; where hvmd does not answer, or
 * the node is another, it plans without. No image, no libvirt, and nothing is touched.
 */
#include "plan.h"

#include "cli.h"
#include "cpuset.h"
#include "hvm_error.h"
#include "units.h"

/* What start would know of this node beside what the node itself tells. */
typedef struct {
    Ledger *ledger;
    PlacementPolicy policy;
    hwloc_bitmap_t pus, nodes; /* that hvmd may use, or NULL */
    Allowed allowed;           /* what the caller may */
    const char *note; /* what is not known, a sentence, or NULL. Static */
} Bounds;

static void bounds_clear(Bounds *bounds)
{
    ledger_free(bounds->ledger);
    hwloc_bitmap_free(bounds->policy.housekeeping);
    hwloc_bitmap_free(bounds->policy.disk_nodes);
    hwloc_bitmap_free(bounds->pus);
    hwloc_bitmap_free(bounds->nodes);
    hwloc_bitmap_free(bounds->allowed.pus);
    hwloc_bitmap_free(bounds->allowed.nodes);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Bounds, bounds_clear)

static gboolean set_wrong(GError **error, const char *wanted)
{
    g_set_error(error, HVM_ERROR, HVM_ERROR_INTERNAL, "hvmd answered Host wrongly: wanted %s", wanted);
    return FALSE;
}

static gboolean read_promise(LedgerEntry *entry, GVariant *promise, GError **error)
{
    g_autoptr(GVariant) cells = g_variant_lookup_value(promise, "cells", G_VARIANT_TYPE("aa{sv}"));
    const char *cpus = "", *devices = "";
    gboolean settled = FALSE;

    if (!cells || !g_variant_lookup(promise, "cpus", "&s", &cpus) || !g_variant_lookup(promise, "devices", "&s", &devices) ||
        !g_variant_lookup(promise, "settled", "b", &settled))
        return set_wrong(error, "cpus, devices, cells and settled of each promise");

    g_auto(GStrv) addresses = g_strsplit(devices, " ", -1);
    hwloc_bitmap_t pus = host_parse_list(cpus, error);

    if (!pus)
        return FALSE;
    hwloc_bitmap_copy(entry->pus, pus);
    hwloc_bitmap_free(pus);
    for (char **address = addresses; *address; address++)
        if (**address)
            g_ptr_array_add(entry->devices, g_strdup(*address));
    for (gsize i = 0; i < g_variant_n_children(cells); i++) {
        g_autoptr(GVariant) cell = g_variant_get_child_value(cells, i);
        LedgerMemory memory = {0};

        if (!g_variant_lookup(cell, "node", "u", &memory.node) || !g_variant_lookup(cell, "size", "t", &memory.page_bytes) ||
            !g_variant_lookup(cell, "bytes", "t", &memory.bytes))
            return set_wrong(error, "node, size and bytes of each cell");
        g_array_append_val(entry->memory, memory);
    }
    entry->settled = settled;
    return TRUE;
}

/* hvmd may use other CPUs than the caller. Which, its NUMA nodes tell. */
static gboolean read_nodes(Bounds *bounds, GVariant *nodes, GError **error)
{
    bounds->pus = hwloc_bitmap_alloc();
    bounds->nodes = hwloc_bitmap_alloc();
    for (gsize i = 0; i < g_variant_n_children(nodes); i++) {
        g_autoptr(GVariant) node = g_variant_get_child_value(nodes, i);
        const char *cpus = "";
        guint32 number = 0;

        if (!g_variant_lookup(node, "node", "u", &number) || !g_variant_lookup(node, "cpus", "&s", &cpus))
            return set_wrong(error, "node and cpus of each node");

        hwloc_bitmap_t pus = host_parse_list(cpus, error);

        if (!pus)
            return FALSE;
        hwloc_bitmap_or(bounds->pus, bounds->pus, pus);
        hwloc_bitmap_set(bounds->nodes, number);
        hwloc_bitmap_free(pus);
    }
    return TRUE;
}

/* Whose a promise is does not matter here, and is not always told. */
static gboolean read_host(Bounds *bounds, GVariant *host, GError **error)
{
    g_autoptr(GVariant) promises = g_variant_lookup_value(host, "promises", G_VARIANT_TYPE("aa{sv}"));
    g_autoptr(GVariant) nodes = g_variant_lookup_value(host, "nodes", G_VARIANT_TYPE("aa{sv}"));
    const char *housekeeping = "", *disk_nodes = "";
    gboolean known = FALSE;

    if (!promises || !nodes || !g_variant_lookup(host, "housekeeping", "&s", &housekeeping) ||
        !g_variant_lookup(host, "disk-nodes", "&s", &disk_nodes) || !g_variant_lookup(host, "known", "b", &known))
        return set_wrong(error, "housekeeping, disk-nodes, nodes, promises and known");
    if (!read_nodes(bounds, nodes, error) || !(bounds->policy.housekeeping = host_parse_list(housekeeping, error)) ||
        !(bounds->policy.disk_nodes = host_parse_list(disk_nodes, error)))
        return FALSE;
    for (gsize i = 0; i < g_variant_n_children(promises); i++) {
        g_autoptr(GVariant) promise = g_variant_get_child_value(promises, i);
        g_autofree char *key = g_strdup_printf("%" G_GSIZE_FORMAT, i);
        LedgerEntry *entry = ledger_entry_new(key, "", (uid_t)-1);

        ledger_add(bounds->ledger, entry);
        if (!read_promise(entry, promise, error))
            return FALSE;
    }
    if (!known)
        bounds->note = "hvmd has not heard from libvirt which guests run: planned as if none did.";
    return TRUE;
}

/* Where hvmd is not there, or goes away, a plan is made all the same. */
static gboolean ask_hvmd(Cli *cli, Bounds *bounds, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(GVariant) host = NULL;

    if (cli_call(cli, "Host", NULL, FALSE, &host, &local))
        return read_host(bounds, host, error);
    if (cli->client && !g_error_matches(local, HVM_ERROR, HVM_ERROR_HOST)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    cli_note(cli, local->message);
    bounds->note = "hvmd does not answer: planned as if no guest ran, without what hvmd.conf says.";
    return TRUE;
}

static Plan *make_plan(Cli *cli, GError **error)
{
    g_auto(Bounds) bounds = {.ledger = ledger_new()};
    g_autoptr(Settings) request = cli_settings(cli, error);
    const char *template_name = cli_value(cli, "template"), *where = cli_value(cli, "host");

    if (!request)
        return NULL;
    if (!template_name) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                    "plan: wanted --template NAME, found none (`hvm template list` lists them)");
        return NULL;
    }
    if (!name_check(cli_argument(cli, 0), "guest name", error) || !name_check(template_name, "template name", error))
        return NULL;
    if (!where) {
        if (!cpuset_read_bounds("/proc/self", &bounds.allowed.pus, &bounds.allowed.nodes, error)) {
            g_prefix_error(error, "guest '%s': ", cli_argument(cli, 0));
            return NULL;
        }
        if (!ask_hvmd(cli, &bounds, error))
            return NULL;
    }

    Host *host = where ? host_new_from(where, error) : host_new_live_within(bounds.pus, bounds.nodes, error);
    Plan *plan = host ? plan_new(cli_argument(cli, 0), template_name, request, host, bounds.ledger, &bounds.allowed, &bounds.policy, error)
                      : NULL;

    if (plan && bounds.note)
        g_ptr_array_add(plan->placement->notes, g_strdup(bounds.note));
    return plan;
}

int run_plan(Cli *cli, GError **error)
{
    g_autoptr(Plan) plan = NULL;

    if (cli_has(cli, "xml") && cli_has(cli, "json")) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "plan: wanted --xml or --json, found both");
        return 1;
    }
    if (!(plan = make_plan(cli, error)))
        return 1;
    if (cli_has(cli, "xml")) {
        g_autofree char *xml = plan_to_xml(plan);

        fputs(xml, stdout);
    } else if (cli_has(cli, "json")) {
        g_autofree char *json = placement_to_json(plan->placement);

        puts(json);
    } else {
        g_autofree char *text = placement_explain(plan->placement, plan->host, plan->spec);
        g_autofree char *reason = hvm_escape(plan->accel_reason, -1);

        fputs(text, stdout);
        printf("Accelerator: %s (%s).\n", plan->kvm ? "KVM" : "none, QEMU's TCG: software, tens of times slower",
               reason);
        if (!plan->kvm)
            puts("Under TCG the guest sees QEMU's own caches instead of those above.");
    }
    return 0;
}
