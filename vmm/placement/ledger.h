/*
 * ledger.h: what of this node is promised to whom.
 *
 * Input: placements of hvm's guests and the CPUs and pages of domains which hvm did not make. Output: what is still
 * free. A promise is made before the guest starts and `settled` once its pages are allocated, because from then on the
 * kernel's count of free pages shows them.
 * Threads: not locked here. The owner (vmm/guest) holds one mutex over solve + reserve, and never a libvirt
 * call under it.
 */
#pragma once

#include "host.h"

#include <sys/types.h>

typedef struct {
    unsigned node;
    guint64 page_bytes;
    guint64 bytes;
} LedgerMemory;

typedef struct {
    char *uuid;          /* of the guest: the key */
    char *name;          /* for people: guest's name, or "domain NAME" for one that hvm did not make */
    uid_t owner_uid;     /* (uid_t)-1 for a domain that hvm did not make */
    hwloc_bitmap_t pus;  /* promised exclusively, idle siblings included */
    GArray *memory;      /* of LedgerMemory */
    GPtrArray *devices;  /* of char *: addresses */
    gboolean settled;
} LedgerEntry;

typedef struct {
    GPtrArray *entries;  /* of LedgerEntry, by uuid */
} Ledger;

Ledger *ledger_new(void);
void ledger_free(Ledger *ledger);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Ledger, ledger_free)
Ledger *ledger_copy(const Ledger *ledger);

LedgerEntry *ledger_entry_new(const char *uuid, const char *name, uid_t owner_uid);
void ledger_entry_free(LedgerEntry *entry);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LedgerEntry, ledger_entry_free)

/* Adds or replaces the entry of that uuid; takes ownership. Does not refuse overlaps: what recovery finds is a fact. */
void ledger_add(Ledger *ledger, LedgerEntry *entry);
/* FALSE where there was none. */
gboolean ledger_release(Ledger *ledger, const char *uuid);
const LedgerEntry *ledger_find(const Ledger *ledger, const char *uuid);
void ledger_settle(Ledger *ledger, const char *uuid);

/* PUs promised to anyone: a new bitmap, caller frees. */
hwloc_bitmap_t ledger_taken_pus(const Ledger *ledger);
/* Bytes of `page_bytes` pages on `node` that may still be promised on `host`: the smaller of total less all promises, and
 * free less the promises not yet settled. HOST_BYTES_UNKNOWN where the host does not tell; 0 where there is no such pool.
 * For 4096: total memory outside the pools less a reserve for the node itself (1/16, at least 256 MiB). */
guint64 ledger_free_bytes(const Ledger *ledger, const Host *host, unsigned node, guint64 page_bytes);
/* The same on an empty ledger and with all pages of the pools free: what could ever be promised there. */
guint64 ledger_total_bytes(const Host *host, unsigned node, guint64 page_bytes);
/* The entry which holds the PU or device, or NULL. */
const LedgerEntry *ledger_pu_owner(const Ledger *ledger, unsigned pu);
const LedgerEntry *ledger_device_owner(const Ledger *ledger, const char *address);
