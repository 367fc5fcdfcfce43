/* placement_fixture.h: requests and hosts for the tests of placement, shared by its test files and its benchmark. */
#pragma once

#include "hvm_error.h"
#include "placement.h"
#include "units.h"

/* A request of `cpus` vCPUs with 64 MiB each, which any node has; fields are set from there. `devices` stays NULL. */
static inline Spec fixture_spec(unsigned cpus)
{
    return (Spec){.name = (char *)"g", .template_name = (char *)"t", .cpus = cpus, .memory_bytes = cpus * 64 * HVM_MIB,
                  .page_bytes = 4 * HVM_KIB};
}

/* A host in hwloc's synthetic syntax, without "synthetic:". */
static inline Host *fixture_host(const char *synthetic)
{
    g_autofree char *where = g_strconcat("synthetic:", synthetic, NULL);
    g_autoptr(GError) error = NULL;
    Host *host = host_new_from(where, &error);

    g_assert_no_error(error);
    return host;
}

/* Gives a node a pool (replacing one of that size), in bytes. */
static inline void fixture_set_pool(Host *host, unsigned node, guint64 page_bytes, guint64 bytes)
{
    GArray *pages = host_find_node(host, node)->pages;
    HostPages row = {page_bytes, bytes / page_bytes, bytes / page_bytes, TRUE};

    for (guint i = 0; i < pages->len; i++) {
        if (g_array_index(pages, HostPages, i).page_bytes == page_bytes) {
            g_array_index(pages, HostPages, i) = row;
            return;
        }
    }
    g_array_append_val(pages, row);
}

/* Takes PUs ("0-3,8") away, as a guest of that name would. */
static inline void fixture_take(Ledger *ledger, const char *name, const char *pus)
{
    LedgerEntry *entry = ledger_entry_new(name, name, 1000);

    hwloc_bitmap_free(entry->pus);
    entry->pus = host_parse_list(pus, NULL);
    ledger_add(ledger, entry);
}
