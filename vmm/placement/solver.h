/*
 * solver.h: what the files of placement.h share.
 *
 * survey.c turns a Host, a Ledger and the bounds into a Survey: plain arrays of the units that may be given, in their
 * slices (L3 caches), regions (packages) and nodes. shares.c answers what it costs to take so many units from one node.
 * search.c and walk.c pick the nodes. devices.c and match.c choose devices. layout.c turns a Solution into what a guest sees.
 * refusal.c, advice.c, reasons.c and placement_explain.c say it in words. placement.c ties it together.
 *
 * The order of everything in a Survey follows from numbers of the operating system alone, never from the order of a list.
 */
#pragma once

#include "placement.h"

/* A cost is a row of counts in one long number, the most important in the highest bits: adding two costs adds each count, and
 * comparing them compares lexicographically. */
__extension__ typedef unsigned __int128 CostHalf;
typedef struct {
    CostHalf high, low;
} Cost;

typedef enum {
    COST_PACKAGES,    /* packages touched, of nodes that lie in one */
    COST_EVENNESS,    /* sum of squares of the units per cell: least where cells are equal */
    COST_INNER_PACKAGES,   /* in nodes of several packages: packages touched, */
    COST_PACKAGE_EVENNESS, /* and the sum of squares of the units in each (the emulator's counted) */
    COST_UNISOLATED,  /* units outside the PUs that the kernel isolates */
    COST_SMALL_PAGES, /* cells with 4 KiB pages, where the request leaves the size to us */
    COST_L3S,         /* L3s touched */
    COST_PARTIAL_L3S, /* L3s of the host neither empty nor full afterwards */
    COST_PARTIAL_NODES,
    COST_LEFTOVER,    /* units that stay free on the guest's nodes: fragmentation of nodes, more finely */
    COST_FIELDS,
} CostField;

#define COST_ZERO ((Cost){0, 0})
#define COST_NONE ((Cost){~(CostHalf)0, ~(CostHalf)0})

static inline gboolean cost_is_none(Cost cost)
{
    return cost.high == ~(CostHalf)0;
}

static inline gboolean cost_less(Cost a, Cost b)
{
    return a.high != b.high ? a.high < b.high : a.low < b.low;
}

static inline gboolean cost_equal(Cost a, Cost b)
{
    return a.high == b.high && a.low == b.low;
}

/* COST_NONE where one of them is. */
static inline Cost cost_add(Cost a, Cost b)
{
    return cost_is_none(a) || cost_is_none(b) ? COST_NONE : (Cost){a.high + b.high, a.low + b.low};
}

Cost cost_of(CostField field, guint64 count);
guint64 cost_get(Cost cost, CostField field);

enum { UNIT_PUS_MAX = 8 }; /* hardware threads of a core: POWER has 8, nobody more; a wider one is not used */

/* What is given as a whole: a core, or with smt=any a PU. */
typedef struct {
    unsigned pus[UNIT_PUS_MAX];   /* by number */
    unsigned width;    /* number of PUs */
    unsigned core;     /* hwloc logical index of the core */
    gboolean isolated; /* all its PUs are isolated by the kernel */
} Unit;

/* The part of an L3 which lies in one node. A node without L3s is one slice. */
typedef struct {
    hwloc_obj_t l3; /* or NULL */
    unsigned number; /* its lowest PU */
    unsigned first_unit, units;
    unsigned open_pus; /* PUs that nobody holds, whether or not this request may have them */
    gboolean taken;    /* some PU in it is promised */
} Slice;

/* The part of a package which lies in one node: mostly all of the node. */
typedef struct {
    unsigned package; /* dense number */
    unsigned first_slice, slices;
} Region;

typedef struct {
    const HostNode *host_node;
    unsigned package; /* of its first region */
    unsigned first_region, regions;
    unsigned open_pus;
    gboolean taken;
    guint64 free_bytes[3]; /* by PageRow; HOST_BYTES_UNKNOWN: no limit */
    gboolean pool_told[3]; /* the host has, or names, such a pool */
} Node;

typedef enum { PAGES_1G, PAGES_2M, PAGES_4K } PageRow;
extern const guint64 page_row_bytes[3];

typedef struct {
    const Host *host;
    const Ledger *ledger;
    GArray *units;   /* of Unit */
    GArray *slices;  /* of Slice */
    GArray *regions; /* of Region */
    GArray *nodes;   /* of Node: general-purpose ones with PUs, by package, then number; the first NODES_MAX */
    hwloc_bitmap_t available, housekeeping, allowed; /* housekeeping and allowed: usable ones of them */
    hwloc_const_bitmap_t disk_nodes; /* of the policy, or NULL */
    gboolean bounded;     /* `allowed` is narrower than the host */
    unsigned widths[8];   /* widths that occur among the units, descending */
    unsigned width_count;
    guint8 *distances;    /* host->nodes x host->nodes */
    gboolean distances_told;
} Survey;

enum { NODES_MAX = 1024 }; /* real hosts stay below 64 */

#define survey_unit(survey, i) (&g_array_index((survey)->units, Unit, (i)))
#define survey_slice(survey, i) (&g_array_index((survey)->slices, Slice, (i)))
#define survey_region(survey, i) (&g_array_index((survey)->regions, Region, (i)))
#define survey_node(survey, i) (&g_array_index((survey)->nodes, Node, (i)))

/* `full`: as if nothing were promised and all pools were full. Everything but the result must outlive it. */
Survey *survey_new(const Host *host, const Ledger *ledger, const Allowed *allowed, const PlacementPolicy *policy,
                   SmtPolicy smt, gboolean full);
void survey_free(Survey *survey);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Survey, survey_free)
/* As the firmware's table has it: 10 is local. Numbers are of the operating system; 255 where one is not known. */
unsigned survey_distance(const Survey *survey, int node, int other);

/* ---- What a request asks of PUs and memory. A relaxed copy tells which constraint a refusal is owed to. ---- */

typedef struct {
    unsigned cpus;
    SmtPolicy smt;
    unsigned numa_nodes; /* 0: as few as will do */
    unsigned sockets;
    gboolean spread;
    gboolean dedicated;  /* one unit more, for the emulator */
    guint64 memory_bytes;
    guint64 page_bytes;
    gboolean ignore_memory;   /* relaxed: as if there were enough on each node */
    gboolean ignore_locality; /* relaxed: no device is required to be near */
} Want;

Want want_from_spec(const Spec *spec);
/* The unit in which memory is divided between cells, and how many of them there are. */
guint64 want_granule(const Want *want);
/* Row of page_row_bytes for a cell of `bytes` on `node`, or -1 where it does not fit. */
int node_page_row(const Node *node, const Want *want, guint64 bytes);

/* ---- shares.c: taking units from one node ---- */

/* Which units count, and as what. Usually one phase: whole cores, all equally wide. Cores of different widths (hybrid
 * processors, single threads offline) give one phase per width, then one that mixes them and counts threads. */
typedef struct {
    gboolean weighted; /* count threads, not units */
    unsigned width;    /* only units of this width, 0: all; weighted: of at least this width */
    unsigned want;     /* what all cells together must take for the vCPUs */
    unsigned extra;    /* for the emulator: one unit; weighted: one with so many threads, of any width otherwise */
} Phase;

typedef struct Shares Shares;

/* At most `want + extra` are ever taken from one node. `count` is for vCPUs, `emulator` adds the emulator's unit. */
Shares *shares_new(const Survey *survey, const Phase *phase);
void shares_free(Shares *shares);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Shares, shares_free)
/* The most that may be taken from node `i`, with the emulator's unit, and over how many packages. */
unsigned shares_capacity(const Shares *shares, unsigned i);
unsigned shares_packages(const Shares *shares, unsigned i);
/* Least cost of taking `count` over exactly `packages` packages (0 and 0 for not touching it): COST_UNISOLATED, COST_L3S,
 * COST_PARTIAL_*, COST_LEFTOVER, COST_INNER_PACKAGES, COST_PACKAGE_EVENNESS. COST_NONE where it cannot be. */
Cost shares_cost(const Shares *shares, unsigned i, unsigned packages, unsigned count, gboolean emulator);
/* The units themselves: appends unsigned indices into survey->units, in the order of slices. */
void shares_pick(const Shares *shares, unsigned i, unsigned packages, unsigned count, gboolean emulator, GArray *units);
/* As shares_cost(), with slice `without` (an index into survey->slices) left out; appends the units. */
Cost shares_cost_without(const Shares *shares, unsigned i, unsigned packages, unsigned count, gboolean emulator, unsigned without,
                         GArray *ret_units);

/* ---- devices.c, match.c: which devices ---- */

typedef struct Devices Devices;

/* NO_PLACEMENT where a wanted device does not exist or is held, INVALID for a request that names none; prefix added by the
 * caller. `ledger` says who holds what; with `full` nobody does. */
Devices *devices_new(const Survey *survey, const Spec *spec, gboolean full, GError **error);
void devices_free(Devices *devices);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Devices, devices_free)
unsigned devices_count(const Devices *devices);
/* Number of those whose place matters. */
unsigned devices_local_count(const Devices *devices);
/* From node `i` of the survey to the nearest device that may be chosen for one of those: 10 is on it, 255 where there is none. */
unsigned devices_distance(const Devices *devices, unsigned i);
/* Distance of the devices that ought to be near, in the high 32 bits, then the number of PCIe switches they are below. The
 * best match for a guest on the nodes `in` (by survey index). G_MAXUINT64 where there is none. `ret_choice` (may be NULL):
 * for each wanted device, by name, an index for devices_get(). */
guint64 devices_cost(const Devices *devices, const gboolean *in, gboolean ignore_locality, unsigned *ret_choice);
/* Whether there are too few, wherever they are. Then `ret_those` (by name, as devices_wanted() has them) says which of the wanted ones
 * have only `ret_have` devices among them. */
gboolean devices_short(const Devices *devices, gboolean *ret_those, unsigned *ret_have);
/* Whether a match so far was not looked for to its end: it may not be the best one. That there is none is always known. */
gboolean devices_cut_short(const Devices *devices);
/* Effort of all matches so far, in classes of devices looked at: bounded, whatever is wanted. */
guint64 devices_looks(const Devices *devices);
/* The wanted devices by name. */
const SpecDevice *devices_wanted(const Devices *devices, unsigned i);
const HostDevice *devices_get(const Devices *devices, unsigned device);

/* ---- search.c: which nodes ---- */

typedef struct {
    unsigned node; /* index into survey->nodes */
    unsigned count, packages;
    gboolean emulator; /* one unit of these, not in `count`, is the emulator's */
    guint64 bytes, page_bytes;
} Cell;

typedef struct {
    gboolean found, cut_short; /* cut short: there may be better ones, or some where none is found */
    unsigned node_count;
    guint64 device_cost;
    unsigned phase; /* index into search->phases */
    Cost cost;
    GArray *cells; /* of Cell */
} Solution;

typedef struct {
    const Survey *survey;
    const Devices *devices;
    Want want;
    GArray *phases;    /* of Phase */
    GPtrArray *shares; /* of Shares, by phase */
} Search;

Search *search_new(const Survey *survey, const Devices *devices, const Want *want);
void search_free(Search *search);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Search, search_free)
/* The best solution in which node `excluded` (survey index, -1: none) has no part. `from`: numbers of nodes that would be better
 * than this one are known not to do; 0 where nothing is known. */
void search_run(const Search *search, int excluded, unsigned from, Solution *ret_solution);
/* walk.c: the best of one phase on exactly so many nodes, `must` (by node) among them and `excluded` not; COST_NONE where there is
 * none. */
Cost walk_solve(const Search *search, unsigned phase, unsigned cells, const gboolean *must, int excluded, GArray *ret_cells,
                gboolean *ret_cut_short);
/* Whether two nodes of a package could be exchanged in any solution, devices aside. */
gboolean search_nodes_alike(const Search *search, unsigned phase, unsigned a, unsigned b);
void solution_clear(Solution *solution);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Solution, solution_clear)
/* Negative where `a` is better. */
int solution_compare(const Solution *a, const Solution *b);

/* ---- placement.c, layout.c, refusal.c, reasons.c ---- */

Placement *placement_new(void);
void placement_note(Placement *placement, const char *format, ...) G_GNUC_PRINTF(2, 3);
void placement_reason(Placement *placement, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Fills in vCPUs, cells, -smp, cache mode, reserved PUs, emulator and I/O threads. */
void layout_fill(Placement *placement, const Search *search, const Solution *solution);
/* Why these, and what was second best. */
void reasons_fill(Placement *placement, const Search *search, const Solution *solution);

typedef struct {
    const Host *host;
    const Spec *spec;
    const Ledger *ledger;
    const Allowed *allowed;
    const PlacementPolicy *policy;
    gboolean full;
} Question;

/* Finds the constraint that failed and sets NO_PLACEMENT. Always returns FALSE. `cut_short`: the search was, so that the refusal is
 * not proved, and says so. */
gboolean refusal_explain(const Question *question, const Search *search, gboolean cut_short, GError **error);
