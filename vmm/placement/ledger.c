#include "ledger.h"

#include "units.h"

#include <string.h>

#define BASE_PAGE_BYTES (4 * HVM_KIB)

Ledger *ledger_new(void)
{
    Ledger *ledger = g_new0(Ledger, 1);

    ledger->entries = g_ptr_array_new_with_free_func((GDestroyNotify)ledger_entry_free);
    return ledger;
}

void ledger_free(Ledger *ledger)
{
    if (!ledger)
        return;
    g_ptr_array_free(ledger->entries, TRUE);
    g_free(ledger);
}

LedgerEntry *ledger_entry_new(const char *uuid, const char *name, uid_t owner_uid)
{
    LedgerEntry *entry = g_new0(LedgerEntry, 1);

    entry->uuid = g_strdup(uuid);
    entry->name = g_strdup(name);
    entry->owner_uid = owner_uid;
    entry->pus = hwloc_bitmap_alloc();
    entry->memory = g_array_new(FALSE, TRUE, sizeof(LedgerMemory));
    entry->devices = g_ptr_array_new_with_free_func(g_free);
    return entry;
}

void ledger_entry_free(LedgerEntry *entry)
{
    if (!entry)
        return;
    g_free(entry->uuid);
    g_free(entry->name);
    hwloc_bitmap_free(entry->pus);
    g_array_free(entry->memory, TRUE);
    g_ptr_array_free(entry->devices, TRUE);
    g_free(entry);
}

static LedgerEntry *copy_entry(const LedgerEntry *entry)
{
    LedgerEntry *copy = ledger_entry_new(entry->uuid, entry->name, entry->owner_uid);

    hwloc_bitmap_copy(copy->pus, entry->pus);
    g_array_append_vals(copy->memory, entry->memory->data, entry->memory->len);
    for (guint i = 0; i < entry->devices->len; i++)
        g_ptr_array_add(copy->devices, g_strdup(g_ptr_array_index(entry->devices, i)));
    copy->settled = entry->settled;
    return copy;
}

Ledger *ledger_copy(const Ledger *ledger)
{
    Ledger *copy = ledger_new();

    for (guint i = 0; i < ledger->entries->len; i++)
        g_ptr_array_add(copy->entries, copy_entry(g_ptr_array_index(ledger->entries, i)));
    return copy;
}

/* Where `uuid` stands, or would: entries are sorted by it, so that nothing depends on the order of arrival. */
static guint find_position(const Ledger *ledger, const char *uuid, gboolean *ret_found)
{
    guint low = 0, high = ledger->entries->len;

    *ret_found = FALSE;
    while (low < high) {
        guint middle = low + (high - low) / 2;
        int order = strcmp(((const LedgerEntry *)g_ptr_array_index(ledger->entries, middle))->uuid, uuid);

        if (order == 0) {
            *ret_found = TRUE;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void ledger_add(Ledger *ledger, LedgerEntry *entry)
{
    gboolean found;
    guint position = find_position(ledger, entry->uuid, &found);

    if (!found) {
        g_ptr_array_insert(ledger->entries, (gint)position, entry);
    } else if (g_ptr_array_index(ledger->entries, position) != entry) {
        ledger_entry_free(g_ptr_array_index(ledger->entries, position));
        g_ptr_array_index(ledger->entries, position) = entry;
    }
}

gboolean ledger_release(Ledger *ledger, const char *uuid)
{
    gboolean found;
    guint position = find_position(ledger, uuid, &found);

    if (found)
        g_ptr_array_remove_index(ledger->entries, position);
    return found;
}

const LedgerEntry *ledger_find(const Ledger *ledger, const char *uuid)
{
    gboolean found;
    guint position = find_position(ledger, uuid, &found);

    return found ? g_ptr_array_index(ledger->entries, position) : NULL;
}

void ledger_settle(Ledger *ledger, const char *uuid)
{
    gboolean found;
    guint position = find_position(ledger, uuid, &found);

    if (found)
        ((LedgerEntry *)g_ptr_array_index(ledger->entries, position))->settled = TRUE;
}

hwloc_bitmap_t ledger_taken_pus(const Ledger *ledger)
{
    hwloc_bitmap_t taken = hwloc_bitmap_alloc();

    for (guint i = 0; i < ledger->entries->len; i++)
        hwloc_bitmap_or(taken, taken, ((const LedgerEntry *)g_ptr_array_index(ledger->entries, i))->pus);
    return taken;
}

/* All promises of such pages on the node, and those of them which the kernel's count does not show yet. */
static void sum_promises(const Ledger *ledger, unsigned node, guint64 page_bytes, guint64 *ret_all, guint64 *ret_unsettled)
{
    guint64 all = 0, unsettled = 0;

    for (guint i = 0; i < ledger->entries->len; i++) {
        const LedgerEntry *entry = g_ptr_array_index(ledger->entries, i);

        for (guint j = 0; j < entry->memory->len; j++) {
            const LedgerMemory *memory = &g_array_index(entry->memory, LedgerMemory, j);

            if (memory->node != node || memory->page_bytes != page_bytes)
                continue;
            all += memory->bytes;
            if (!entry->settled)
                unsettled += memory->bytes;
        }
    }
    *ret_all = all;
    *ret_unsettled = unsettled;
}

static guint64 subtract(guint64 from, guint64 amount)
{
    return from > amount ? from - amount : 0;
}

static const HostPages *find_pages(const Host *host, unsigned node, guint64 page_bytes)
{
    const HostNode *host_node = host_find_node(host, node);

    return host_node ? host_node_pages(host_node, page_bytes) : NULL;
}

guint64 ledger_total_bytes(const Host *host, unsigned node, guint64 page_bytes)
{
    const HostPages *pages = find_pages(host, node, page_bytes);

    if (!pages)
        return 0;
    if (pages->total == HOST_BYTES_UNKNOWN)
        return HOST_BYTES_UNKNOWN;

    guint64 total = pages->total * page_bytes;

    return page_bytes == BASE_PAGE_BYTES ? subtract(total, MAX(total / 16, 256 * HVM_MIB)) : total;
}

guint64 ledger_free_bytes(const Ledger *ledger, const Host *host, unsigned node, guint64 page_bytes)
{
    guint64 total = ledger_total_bytes(host, node, page_bytes), all, unsettled;

    if (total == 0 || total == HOST_BYTES_UNKNOWN)
        return total;

    const HostPages *pages = find_pages(host, node, page_bytes);

    sum_promises(ledger, node, page_bytes, &all, &unsettled);
    total = subtract(total, all);
    return pages->free_known ? MIN(total, subtract(pages->free * page_bytes, unsettled)) : total;
}

const LedgerEntry *ledger_pu_owner(const Ledger *ledger, unsigned pu)
{
    for (guint i = 0; i < ledger->entries->len; i++) {
        const LedgerEntry *entry = g_ptr_array_index(ledger->entries, i);

        if (hwloc_bitmap_isset(entry->pus, pu))
            return entry;
    }
    return NULL;
}

const LedgerEntry *ledger_device_owner(const Ledger *ledger, const char *address)
{
    for (guint i = 0; i < ledger->entries->len; i++) {
        const LedgerEntry *entry = g_ptr_array_index(ledger->entries, i);

        for (guint j = 0; j < entry->devices->len; j++)
            if (strcmp(g_ptr_array_index(entry->devices, j), address) == 0)
                return entry;
    }
    return NULL;
}
