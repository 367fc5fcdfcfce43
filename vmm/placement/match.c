/*
 * match.c: the best devices for a guest on given nodes.
 *
 * First a matching of requests and devices, which says whether there is any way at all. From there a search with bounds: classes
 * of like devices instead of devices, requests that ask for the same in one order only, and no way on which cannot become
 * better than the best so far. Fewest ports is a covering problem, so that this may take long where many unlike devices are
 * below many ports: it has a limit, beyond which the best so far stands and devices_cut_short() says so.
 */
#include "devices.h"

#include <string.h>

/* Classes looked at in one match, and in all matches of one request for a placement: some milliseconds, some tens of them. */
enum { LOOKS_MAX = 1 << 20, ALL_LOOKS_MAX = 1 << 23 };

/* Compared from the front. */
typedef struct {
    guint64 near;   /* distance beyond the local one of devices that ought to be near */
    unsigned ports; /* root ports they are below; one that is not told counts for each */
    guint64 any;    /* distance of the other devices */
} MatchCost;

typedef struct {
    const Devices *devices;
    unsigned *distance; /* by class: to the nearest node of the guest, less the local one */
    unsigned **order;   /* by request, shared by those that ask for the same: its classes, nearest first, then by address */
    unsigned *length;   /* by request: of its order */
    unsigned *left;     /* by class: devices not chosen yet */
    unsigned *below;    /* by port: devices chosen */
    unsigned *at;       /* by request: its place in its order */
    unsigned *choice;   /* by request: class of the best match so far */
    MatchCost best;
    guint64 looks, looks_max;
} Match;

static gboolean is_less(const MatchCost *a, const MatchCost *b)
{
    if (a->near != b->near)
        return a->near < b->near;
    return a->ports != b->ports ? a->ports < b->ports : a->any < b->any;
}

static void add_price(const Match *match, const Request *request, unsigned class, unsigned count, MatchCost *cost)
{
    guint64 *distance = request->wanted->locality == LOCALITY_ANY ? &cost->any : &cost->near;

    *distance += (guint64)match->distance[class] * count;
}

/* ---- Whether there is any way ---- */

/* Finds a class for request `r`, moving others where need be: Kuhn's augmenting path. `seen` by class. */
static gboolean assign(Match *match, unsigned r, gboolean *seen)
{
    for (unsigned i = 0; i < match->length[r]; i++) {
        unsigned class = match->order[r][i];
        gboolean room = match->left[class] > 0;

        if (seen[class])
            continue;
        seen[class] = TRUE;
        for (unsigned other = 0; other < match->devices->requests->len && !room; other++)
            room = match->choice[other] == class && assign(match, other, seen);
        if (!room)
            continue;
        if (match->left[class] > 0)
            match->left[class]--;
        match->choice[r] = class;
        return TRUE;
    }
    return FALSE;
}

/* FALSE: there is none; `seen` has the classes of which there are not enough. */
static gboolean assign_all(Match *match, gboolean *seen)
{
    const Devices *devices = match->devices;

    for (unsigned r = 0; r < devices->requests->len; r++)
        match->choice[r] = G_MAXUINT;
    for (unsigned r = 0; r < devices->requests->len; r++) {
        memset(seen, 0, devices->classes->len * sizeof *seen);
        if (!assign(match, r, seen))
            return FALSE;
    }
    return TRUE;
}

/* ---- The best way ---- */

static MatchCost cost_of_choice(const Match *match)
{
    const Devices *devices = match->devices;
    g_autofree gboolean *used = g_new0(gboolean, devices->ports + 1);
    MatchCost cost = {0};

    for (unsigned r = 0; r < devices->requests->len; r++) {
        unsigned port = devices_class(devices, match->choice[r])->port;

        add_price(match, devices_request(devices, r), match->choice[r], 1, &cost);
        cost.ports += !port || !used[port];
        used[port] = TRUE;
    }
    return cost;
}

/* Like requests are in one order: none is before the one in front of it. */
static unsigned first_place(const Match *match, unsigned r)
{
    return devices_request(match->devices, r)->first < r ? match->at[r - 1] : 0;
}

/* Adds the least that the requests from `first` on can cost, each kind of them by itself. FALSE: too few are left for one. */
static gboolean add_floor(Match *match, unsigned first, MatchCost *cost)
{
    const Devices *devices = match->devices;
    unsigned count = devices->requests->len, open = 0; /* places below ports that are used already */

    for (unsigned r = first; r < count; r = devices_request(devices, r)->end) {
        unsigned need = devices_request(devices, r)->end - r;

        for (unsigned i = first_place(match, r); i < match->length[r] && need > 0; i++) {
            unsigned class = match->order[r][i], take = MIN(need, match->left[class]);

            add_price(match, devices_request(devices, r), class, take, cost);
            need -= take;
            match->looks++;
        }
        if (need > 0)
            return FALSE;
    }
    for (unsigned c = 0; c < devices->classes->len && first < count; c++) {
        const DeviceClass *class = devices_class(devices, c);

        if (class->port && match->below[class->port] && class->requests >> first)
            open += match->left[c];
        match->looks++;
    }
    if (count - first > open)
        cost->ports += (count - first - open + devices->port_most - 1) / devices->port_most;
    return TRUE;
}

static void match_from(Match *match, unsigned r, const MatchCost *so_far)
{
    const Devices *devices = match->devices;
    MatchCost floor = *so_far;

    if (match->looks >= match->looks_max || !add_floor(match, r, &floor) || !is_less(&floor, &match->best))
        return;
    if (r == devices->requests->len) {
        match->best = *so_far;
        for (unsigned i = 0; i < r; i++)
            match->choice[i] = match->order[i][match->at[i]];
        return;
    }
    for (unsigned i = first_place(match, r); i < match->length[r]; i++) {
        unsigned class = match->order[r][i], port = devices_class(devices, class)->port;
        MatchCost cost = *so_far;

        if (!match->left[class])
            continue;
        add_price(match, devices_request(devices, r), class, 1, &cost);
        cost.ports += !port || !match->below[port];
        match->at[r] = i;
        match->left[class]--;
        match->below[port]++;
        match_from(match, r + 1, &cost);
        match->below[port]--;
        match->left[class]++;
    }
}

/* ---- Setting up ---- */

static void reset_left(Match *match)
{
    for (guint c = 0; c < match->devices->classes->len; c++)
        match->left[c] = devices_class(match->devices, c)->devices->len;
}

static void measure(Match *match, const gboolean *in)
{
    const Survey *survey = match->devices->survey;

    for (guint c = 0; c < match->devices->classes->len; c++) {
        unsigned nearest = 255;

        for (unsigned n = 0; n < survey->nodes->len; n++)
            if (in[n])
                nearest = MIN(nearest, devices_class(match->devices, c)->distances[n]);
        match->distance[c] = nearest - 10;
    }
}

static void list_order(Match *match, unsigned r, gboolean ignore_locality)
{
    const Devices *devices = match->devices;
    const Request *request = devices_request(devices, r);
    unsigned *order, length = 0;

    if (request->first < r) {
        match->order[r] = match->order[r - 1];
        match->length[r] = match->length[r - 1];
        return;
    }
    order = match->order[r] = g_new(unsigned, devices->classes->len + 1);
    for (guint c = 0; c < devices->classes->len; c++) {
        unsigned at = length;

        if (!(devices_class(devices, c)->requests >> r & 1) ||
            (request->wanted->locality == LOCALITY_REQUIRED && !ignore_locality && match->distance[c]))
            continue;
        for (; at > 0 && match->distance[order[at - 1]] > match->distance[c]; at--)
            order[at] = order[at - 1];
        order[at] = c;
        length++;
    }
    match->length[r] = length;
}

/* Of each class the lowest addresses, in the order of the names. */
static void list_devices(const Match *match, unsigned *ret_choice)
{
    const Devices *devices = match->devices;
    g_autofree unsigned *used = g_new0(unsigned, devices->classes->len + 1);

    for (guint i = 0; i < devices->requests->len; i++) {
        unsigned class = match->choice[g_array_index(devices->by_name, unsigned, i)];

        ret_choice[i] = g_array_index(devices_class(devices, class)->devices, unsigned, used[class]++);
    }
}

static void search_best(Match *match)
{
    MatchEffort *effort = match->devices->effort;
    const MatchCost nothing = {0};

    match->best = cost_of_choice(match);
    match->best.any++; /* so that of equal ones the first in order is taken */
    match->looks_max = MIN((guint64)LOOKS_MAX, ALL_LOOKS_MAX - MIN(effort->looks, (guint64)ALL_LOOKS_MAX));
    reset_left(match);
    match_from(match, 0, &nothing);
    effort->looks += match->looks;
    effort->cut_short |= match->looks >= match->looks_max;
}

static void match_clear(Match *match)
{
    for (unsigned r = 0; r < match->devices->requests->len; r++)
        if (devices_request(match->devices, r)->first == r)
            g_free(match->order[r]);
    g_free(match->order);
    g_free(match->distance); /* and all that lies behind it */
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Match, match_clear)

static void match_init(Match *match, const gboolean *in, gboolean ignore_locality)
{
    const Devices *devices = match->devices;
    unsigned count = devices->requests->len, classes = devices->classes->len;

    match->order = g_new0(unsigned *, count);
    match->distance = g_new0(unsigned, 2 * classes + devices->ports + 1 + 3 * count);
    match->left = match->distance + classes;
    match->below = match->left + classes;
    match->length = match->below + devices->ports + 1;
    match->at = match->length + count;
    match->choice = match->at + count;
    measure(match, in);
    reset_left(match);
    for (unsigned r = 0; r < count; r++)
        list_order(match, r, ignore_locality);
}

guint64 devices_cost(const Devices *devices, const gboolean *in, gboolean ignore_locality, unsigned *ret_choice)
{
    if (devices->requests->len == 0)
        return 0;

    g_autofree gboolean *seen = g_new(gboolean, devices->classes->len + 1);
    g_auto(Match) match = {.devices = devices};

    match_init(&match, in, ignore_locality);
    if (!assign_all(&match, seen))
        return G_MAXUINT64;
    search_best(&match);
    if (ret_choice)
        list_devices(&match, ret_choice);
    return match.best.near << 32 | match.best.ports;
}

gboolean devices_short(const Devices *devices, gboolean *ret_those, unsigned *ret_have)
{
    g_autofree gboolean *none = g_new0(gboolean, devices->survey->nodes->len + 1);
    g_autofree gboolean *seen = g_new0(gboolean, devices->classes->len + 1);
    g_auto(Match) match = {.devices = devices};
    unsigned have = 0;

    match_init(&match, none, TRUE);
    if (assign_all(&match, seen))
        return FALSE;
    for (unsigned c = 0; c < devices->classes->len; c++)
        have += seen[c] ? devices_class(devices, c)->devices->len : 0;
    for (unsigned i = 0; i < devices->requests->len; i++) {
        unsigned r = g_array_index(devices->by_name, unsigned, i);

        ret_those[i] = TRUE;
        for (unsigned o = 0; o < match.length[r]; o++)
            ret_those[i] = ret_those[i] && seen[match.order[r][o]];
    }
    *ret_have = have;
    return TRUE;
}

gboolean devices_cut_short(const Devices *devices)
{
    return devices->effort->cut_short;
}

guint64 devices_looks(const Devices *devices)
{
    return devices->effort->looks;
}
