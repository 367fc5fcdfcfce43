/*
 * placement.c: how long a placement takes, and how good it is over a long stream.
 *
 * Usage: placement [--part N] [--json FILE]
 * Time: solves of random requests on hosts of 48 to 1,024 PUs, at three fills. Quality: the same stream of 10,000 arrivals
 * and departures given to hvm and to its rivals, each with a ledger of its own.
 */
#include "placement_rivals.h"
#include "units.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    const char *name, *synthetic;
    unsigned off_every; /* one core of so many is switched off, 0: none */
    unsigned gpus;      /* spread over the nodes in order */
} Machine;

static const Machine machines[] = {
    {"2x64, 4 nodes a socket, CCX of 8", "pack:2 numa:4 l3:2 core:8 pu:2", 0, 0},
    {"2x56, 3 clusters a socket", "pack:2 l3:1 numa:3 core:19 pu:2", 57, 0},
    {"Grace-like, 2x72", "pack:2 numa:1 l3:1 core:72 pu:1", 0, 0},
    {"2x48, 2 nodes a socket, 8 GPUs", "pack:2 numa:2 l3:3 core:8 pu:2", 0, 8},
};

static const Machine sizes[] = {
    {"48", "pack:2 numa:1 l3:1 core:12 pu:2", 0, 0},
    {"128", "pack:2 numa:1 l3:4 core:8 pu:2", 0, 0},
    {"256", "pack:2 numa:4 l3:2 core:8 pu:2", 0, 0},
    {"384", "pack:2 numa:4 l3:3 core:8 pu:2", 0, 0},
    {"384, a node per L3", "pack:2 numa:12 l3:1 core:8 pu:2", 0, 0},
    {"384, one L3 a socket", "pack:2 numa:1 l3:1 core:96 pu:2", 0, 0},
    {"384, 8 GPUs", "pack:2 numa:4 l3:3 core:8 pu:2", 0, 8},
    {"1024", "pack:4 numa:4 l3:4 core:8 pu:2", 0, 0},
    {"1024, one node a socket", "pack:2 numa:1 l3:32 core:8 pu:2", 0, 0},
};

/* ---- Hosts and requests ---- */

/* 4 GiB a core, outside pools. */
static void set_memory(Host *host)
{
    for (guint i = 0; i < host->nodes->len; i++) {
        HostNode *node = g_ptr_array_index(host->nodes, i);
        guint64 bytes = (guint64)hwloc_bitmap_weight(node->pus) / host->smt * 4 * HVM_GIB;
        HostPages row = {4 * HVM_KIB, bytes / (4 * HVM_KIB), bytes / (4 * HVM_KIB), TRUE};

        bytes += bytes / 16 + HVM_GIB; /* and what the node keeps for itself */
        row.total = row.free = bytes / (4 * HVM_KIB);
        node->memory_bytes = bytes;
        g_array_set_size(node->pages, 0);
        g_array_append_val(node->pages, row);
    }
}

static void add_gpus(Host *host, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        HostDevice *device = g_new0(HostDevice, 1);

        device->address = g_strdup_printf("0000:%02x:00.0", i + 1);
        device->class_code = 0x030200;
        device->node = ((HostNode *)g_ptr_array_index(host->nodes, i * host->nodes->len / count))->node;
        device->iommu_group = (int)i;
        g_ptr_array_add(host->devices, device);
    }
}

static Host *make_host(const Machine *machine)
{
    g_autofree char *where = g_strconcat("synthetic:", machine->synthetic, NULL);
    g_autoptr(GError) error = NULL;
    Host *host = host_new_from(where, &error);
    hwloc_obj_t core = NULL;

    if (!host) {
        fprintf(stderr, "%s\n", error->message);
        exit(1);
    }
    while (machine->off_every && (core = hwloc_get_next_obj_by_type(host->topology, HWLOC_OBJ_CORE, core)))
        if (core->logical_index % machine->off_every == machine->off_every - 1) {
            hwloc_bitmap_andnot(host->usable_pus, host->usable_pus, core->cpuset);
            for (guint i = 0; i < host->nodes->len; i++) {
                HostNode *node = g_ptr_array_index(host->nodes, i);

                hwloc_bitmap_andnot(node->pus, node->pus, core->cpuset);
            }
        }
    set_memory(host);
    add_gpus(host, machine->gpus);
    return host;
}

typedef struct {
    const char *name;
    unsigned cores[8]; /* as likely as each other, 0 ends */
} Mix;

static const Mix mixes[] = {
    {"small", {1, 1, 2, 2, 4, 4, 8, 8}},
    {"mixed", {1, 2, 4, 6, 8, 12, 16, 24}},
    {"large", {8, 16, 16, 24, 32, 32, 48, 64}},
};

typedef struct {
    Spec spec;
    SpecDevice devices[2];
    GPtrArray *list;
} Request;

static void make_request(GRand *rand, const Host *host, const Mix *mix, Request *request)
{
    static const char *const names[] = {"gpu0", "gpu1"};
    unsigned cores = mix->cores[g_rand_int_range(rand, 0, 8)];
    unsigned gpus = host->devices->len && g_rand_boolean(rand) ? (unsigned)g_rand_int_range(rand, 1, 3) : 0;

    memset(request, 0, sizeof *request);
    request->list = g_ptr_array_new();
    for (unsigned i = 0; i < gpus; i++) {
        request->devices[i] = (SpecDevice){.name = (char *)names[i], .kind = (char *)"gpu", .locality = LOCALITY_PREFERRED};
        g_ptr_array_add(request->list, &request->devices[i]);
    }
    request->spec = (Spec){.name = (char *)"g", .cpus = cores * host->smt, .page_bytes = 4 * HVM_KIB,
                           .memory_bytes = cores * (guint64)g_rand_int_range(rand, 4, 17) * 256 * HVM_MIB,
                           .devices = request->list};
}

static void clear_request(Request *request)
{
    g_ptr_array_free(request->list, TRUE);
}

/* ---- Time ---- */

static int compare_doubles(gconstpointer a, gconstpointer b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* What makes the search work hard: any size up to the whole node, numbers of nodes, spread, memory short on some nodes,
 * and pages whose size is left to us. */
static void make_hard(GRand *rand, const Host *host, Request *request)
{
    Spec *spec = &request->spec;
    guint64 cores = (guint64)g_rand_int_range(rand, 1, hwloc_bitmap_weight(host->usable_pus) / (gint32)host->smt + 1);

    spec->cpus = (unsigned)cores * host->smt - (unsigned)g_rand_int_range(rand, 0, (gint32)host->smt);
    spec->memory_bytes = cores * (guint64)g_rand_int_range(rand, 4, 20) * 256 * HVM_MIB;
    spec->page_bytes = PAGES_AUTO;
    if (g_rand_int_range(rand, 0, 4) == 0)
        spec->numa_nodes = (unsigned)g_rand_int_range(rand, 1, (gint32)host->nodes->len + 1);
    else if (g_rand_int_range(rand, 0, 4) == 0)
        spec->spread = TRUE;
    spec->numa_nodes = spec->numa_nodes > spec->cpus ? spec->cpus : spec->numa_nodes;
    spec->emulator = g_rand_boolean(rand) ? EMULATOR_DEDICATED : EMULATOR_SHARED;
}

/* Guests until so much of the cores is taken; every third goes again, so that what is free is scattered. */
static Ledger *fill(const Host *host, GRand *rand, unsigned percent)
{
    Ledger *ledger = ledger_new();
    unsigned all = (unsigned)hwloc_bitmap_weight(host->usable_pus), failures = 0;

    for (unsigned number = 0; failures < 20; number++) {
        g_autofree char *uuid = g_strdup_printf("guest-%06u", number);
        hwloc_bitmap_t taken = ledger_taken_pus(ledger);
        unsigned used = (unsigned)hwloc_bitmap_weight(taken);
        LedgerEntry *entry;
        Request request;

        hwloc_bitmap_free(taken);
        if (used * 100 >= all * percent)
            break;
        make_request(rand, host, &mixes[0], &request);
        entry = place_hvm(host, &request.spec, ledger, uuid);
        clear_request(&request);
        if (!entry) {
            failures++;
            continue;
        }
        ledger_add(ledger, entry);
        if (number % 3 == 0) {
            g_autofree char *gone = g_strdup(((LedgerEntry *)g_ptr_array_index(
                ledger->entries, (guint)g_rand_int_range(rand, 0, (gint32)ledger->entries->len)))->uuid);

            ledger_release(ledger, gone);
        }
    }
    return ledger;
}

/* Processor time of this thread: the machine's other work does not count. */
static double now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void measure_time(const Machine *machine, gboolean hard, unsigned percent, unsigned rounds, GString *json)
{
    Host *host = make_host(machine);
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);
    g_autoptr(Ledger) ledger = fill(host, rand, percent);
    g_autoptr(GArray) times = g_array_new(FALSE, FALSE, sizeof(double));
    unsigned placed = 0;

    for (unsigned i = 0; i < rounds; i++) {
        Request request;
        double start, took;
        Placement *placement;

        make_request(rand, host, &mixes[i % G_N_ELEMENTS(mixes)], &request);
        if (hard)
            make_hard(rand, host, &request);
        start = now_ms();
        placement = placement_solve(host, &request.spec, ledger, NULL, NULL, NULL);
        took = now_ms() - start;
        placed += placement != NULL;
        placement_free(placement);
        clear_request(&request);
        g_array_append_val(times, took);
    }
    g_array_sort(times, compare_doubles);

    double median = g_array_index(times, double, rounds / 2), worst = g_array_index(times, double, rounds - 1);
    double most = g_array_index(times, double, rounds * 99 / 100);

    printf("%-26s %-6s %4u %% %6u %8.3f %8.3f %8.3f %7.0f %%\n", machine->name, hard ? "hard" : "usual", percent,
           ledger->entries->len, median, most, worst, 100.0 * placed / rounds);
    g_string_append_printf(json, "%s{\"pus\":\"%s\",\"requests\":\"%s\",\"fill_percent\":%u,\"guests\":%u,\"median_ms\":%.3f,\"p99_ms\":%.3f,"
                           "\"worst_ms\":%.3f,\"placed_share\":%.3f}", json->str[json->len - 1] == '[' ? "" : ",",
                           machine->name, hard ? "hard" : "usual", percent, ledger->entries->len, median, most, worst,
                           (double)placed / rounds);
    host_unref(host);
}

/* ---- Quality ---- */

typedef struct {
    const char *name;
    PlaceFunc place;
} Strategy;

static const Strategy strategies[] = {
    {"hvm", place_hvm},
    {"first fit", place_first_fit},
    {"nova", place_nova},
    {"nova, more cells", place_nova_more_cells},
};

typedef struct {
    unsigned arrived, accepted, across, l3s, far, devices;
    double cores_arrived, cores_accepted;
} Score;

static void add_score(const Host *host, const Spec *spec, const LedgerEntry *entry, Score *score)
{
    g_autoptr(GHashTable) l3s = g_hash_table_new(NULL, NULL);
    unsigned pu;

    score->accepted++;
    score->cores_accepted += spec->cpus;
    score->across += entry->memory->len > 1;
    hwloc_bitmap_foreach_begin(pu, entry->pus) {
        g_hash_table_add(l3s, host_l3_of(host, pu));
    } hwloc_bitmap_foreach_end();
    score->l3s += g_hash_table_size(l3s);
    for (guint i = 0; i < entry->devices->len; i++) {
        const HostDevice *device = host_find_device(host, g_ptr_array_index(entry->devices, i));
        gboolean near = FALSE;

        for (guint j = 0; j < entry->memory->len; j++)
            near |= (int)g_array_index(entry->memory, LedgerMemory, j).node == device->node;
        score->devices++;
        score->far += !near;
    }
}

typedef struct {
    double end;
    char *uuid;
} Departure;

static int compare_departures(gconstpointer a, gconstpointer b)
{
    const Departure *x = a, *y = b;

    return (x->end > y->end) - (x->end < y->end);
}

static void clear_departure(gpointer pointer)
{
    g_free(((Departure *)pointer)->uuid);
}

static double exponential(GRand *rand, double mean)
{
    return -mean * log(1 - g_rand_double(rand));
}

/* Arrivals at random such that `load` times the node's cores would be busy if none were refused. */
static Score run_stream(const Host *host, const Mix *mix, const Strategy *strategy, double load, unsigned arrivals)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(11);
    g_autoptr(Ledger) ledger = ledger_new();
    g_autoptr(GArray) departures = g_array_new(FALSE, FALSE, sizeof(Departure));
    double now = 0, mean_cores = 0, all = (double)hwloc_bitmap_weight(host->usable_pus) / host->smt;
    Score score = {0};

    g_array_set_clear_func(departures, clear_departure);
    for (unsigned i = 0; i < 8; i++)
        mean_cores += mix->cores[i] / 8.0;
    for (unsigned i = 0; i < arrivals; i++) {
        g_autofree char *uuid = g_strdup_printf("guest-%06u", i);
        LedgerEntry *entry;
        Request request;
        double lifetime;

        now += exponential(rand, mean_cores / (all * load)); /* a guest lives for 1 on average */
        lifetime = exponential(rand, 1);
        make_request(rand, host, mix, &request);
        while (departures->len && g_array_index(departures, Departure, 0).end <= now) {
            ledger_release(ledger, g_array_index(departures, Departure, 0).uuid);
            g_array_remove_index(departures, 0);
        }
        score.arrived++;
        score.cores_arrived += request.spec.cpus;
        entry = strategy->place(host, &request.spec, ledger, uuid);
        if (entry) {
            Departure departure = {now + lifetime, g_strdup(uuid)};

            add_score(host, &request.spec, entry, &score);
            ledger_add(ledger, entry);
            g_array_append_val(departures, departure);
            g_array_sort(departures, compare_departures);
        }
        clear_request(&request);
    }
    return score;
}

static void print_score(const Machine *machine, const Mix *mix, double load, const Strategy *strategy, const Score *score,
                        GString *json)
{
    double accepted = 100.0 * score->accepted / score->arrived, across = 100.0 * score->across / MAX(score->accepted, 1);
    double cores = 100.0 * score->cores_accepted / score->cores_arrived, l3s = (double)score->l3s / MAX(score->accepted, 1);
    double far = 100.0 * score->far / MAX(score->devices, 1);

    printf("  %-6s %4.1f  %-17s %8.2f %% %8.2f %% %8.2f %% %8.2f", mix->name, load, strategy->name, accepted, cores, across, l3s);
    if (score->devices)
        printf(" %8.2f %%", far);
    printf("\n");
    g_string_append_printf(json, "%s{\"machine\":\"%s\",\"mix\":\"%s\",\"load\":%.1f,\"strategy\":\"%s\","
                           "\"accepted_percent\":%.2f,\"cores_percent\":%.2f,\"across_percent\":%.2f,\"l3s_per_guest\":%.2f,"
                           "\"devices_far_percent\":%.2f}", json->str[json->len - 1] == '[' ? "" : ",", machine->name,
                           mix->name, load, strategy->name, accepted, cores, across, l3s, far);
}

static void measure_quality(const Machine *machine, unsigned arrivals, GString *json)
{
    static const double loads[] = {0.7, 1.0};
    Host *host = make_host(machine);

    printf("%s\n  mix    load  rule               accepted   of cores     across  L3s/guest%s\n", machine->name,
           machine->gpus ? "  GPUs far" : "");
    for (guint m = 0; m < G_N_ELEMENTS(mixes); m++) {
        for (guint l = 0; l < G_N_ELEMENTS(loads); l++) {
            for (guint s = 0; s < G_N_ELEMENTS(strategies); s++) {
                const Score score = run_stream(host, &mixes[m], &strategies[s], loads[l], arrivals);

                print_score(machine, &mixes[m], loads[l], &strategies[s], &score, json);
            }
        }
    }
    fflush(stdout);
    host_unref(host);
}

int main(int argc, char **argv)
{
    static const unsigned fills[] = {0, 50, 90};
    int part = 1;
    g_autofree char *file = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) json = g_string_new("{\"time\":[");
    const GOptionEntry entries[] = {
        {"part", 0, 0, G_OPTION_ARG_INT, &part, "do one Nth of the rounds, 1 to 100 (default: all)", "N"},
        {"json", 0, 0, G_OPTION_ARG_FILENAME, &file, "also write all figures to FILE", "FILE"},
        {0},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("- time and quality of placement");

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        fprintf(stderr, "%s\n", error->message);
        return 2;
    }
    if (argc > 1) {
        fprintf(stderr, "wanted no argument, found '%s'\n", argv[1]);
        return 2;
    }
    if (part < 1 || part > 100) {
        fprintf(stderr, "--part: wanted 1 to 100, found %d\n", part);
        return 2;
    }
    printf("%-26s %-6s %6s %6s %8s %8s %8s %9s\n", "PUs", "kind", "fill", "guests", "median", "99 %", "worst ms", "placed");
    for (guint i = 0; i < G_N_ELEMENTS(sizes); i++)
        for (guint f = 0; f < G_N_ELEMENTS(fills); f++)
            for (int hard = 0; hard < 2; hard++)
                measure_time(&sizes[i], hard, fills[f], 3000 / (unsigned)part, json);
    g_string_append(json, "],\"quality\":[");
    for (guint i = 0; i < G_N_ELEMENTS(machines); i++)
        measure_quality(&machines[i], 10000 / (unsigned)part, json);
    g_string_append(json, "]}\n");
    if (file && !g_file_set_contents(file, json->str, (gssize)json->len, &error)) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    return 0;
}
