#include "ipv4.h"

#include "hvm_error.h"

#include <arpa/inet.h>
#include <string.h>

enum { PICK_PREFIX = 24 };

static guint32 mask(unsigned prefix)
{
    return prefix ? G_MAXUINT32 << (32 - prefix) : 0;
}

Subnet *subnet_new(guint32 address, unsigned prefix, char *what)
{
    Subnet *subnet = g_new0(Subnet, 1);

    subnet->address = address & mask(prefix);
    subnet->prefix = prefix;
    subnet->what = what;
    return subnet;
}

void subnet_free(Subnet *subnet)
{
    if (!subnet)
        return;
    g_free(subnet->what);
    g_free(subnet);
}

gboolean ipv4_parse(const char *text, guint32 *ret_address)
{
    struct in_addr address;

    if (inet_pton(AF_INET, text, &address) != 1)
        return FALSE;
    *ret_address = ntohl(address.s_addr);
    return TRUE;
}

char *ipv4_format(guint32 address)
{
    const struct in_addr in = {.s_addr = htonl(address)};
    char text[INET_ADDRSTRLEN];

    return g_strdup(inet_ntop(AF_INET, &in, text, sizeof text));
}

/* RFC 6890: "this network", loopback, link-local; multicast, reserved and broadcast. */
static gboolean is_special(const Subnet *subnet)
{
    static const Subnet special[] = {{0, 8, NULL}, {0x7f000000, 8, NULL}, {0xa9fe0000, 16, NULL}, {0xe0000000, 3, NULL}};

    for (gsize i = 0; i < G_N_ELEMENTS(special); i++)
        if (subnet_overlaps(subnet, &special[i]))
            return TRUE;
    return FALSE;
}

Subnet *subnet_parse_pool(const char *text, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, "/", 3);
    Subnet pool = {0};
    guint64 prefix = 0;

    if (parts[0] && parts[1] && !parts[2] && ipv4_parse(parts[0], &pool.address) && *parts[1] != '0' &&
        g_ascii_string_to_unsigned(parts[1], 10, 8, PICK_PREFIX, &prefix, NULL)) {
        pool.prefix = (unsigned)prefix;
        if (!(pool.address & ~mask(pool.prefix)) && !is_special(&pool))
            return subnet_new(pool.address, pool.prefix, NULL);
    }

    g_autofree char *shown = hvm_escape(text, (gssize)MIN(strlen(text), 40));

    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                "bad pool of NAT networks: wanted a private IPv4 network with a prefix of 8 to 24 such as 10.88.0.0/16, found '%s'",
                shown);
    return NULL;
}

gboolean subnet_overlaps(const Subnet *a, const Subnet *b)
{
    return !((a->address ^ b->address) & mask(MIN(a->prefix, b->prefix)));
}

static const Subnet *find_collision(const Subnet *subnet, const GPtrArray *taken)
{
    for (guint i = 0; i < taken->len; i++)
        if (subnet_overlaps(subnet, taken->pdata[i]))
            return taken->pdata[i];
    return NULL;
}

Subnet *subnet_pick(const Subnet *pool, const GPtrArray *taken, GError **error)
{
    guint64 end = (guint64)pool->address + (G_GUINT64_CONSTANT(1) << (32 - pool->prefix));
    const Subnet *collision = NULL;
    Subnet candidate = {pool->address, PICK_PREFIX, NULL};
    guint64 next = pool->address;

    while (next < end) {
        candidate.address = (guint32)next;
        collision = find_collision(&candidate, taken);
        if (!collision)
            return subnet_new(candidate.address, candidate.prefix, NULL);
        /* On behind what is in the way, be it a host's route or a /8. */
        unsigned step = MIN(collision->prefix, (unsigned)PICK_PREFIX);

        next = (guint64)(candidate.address & mask(step)) + (G_GUINT64_CONSTANT(1) << (32 - step));
    }
    g_autofree char *pool_text = ipv4_format(pool->address);
    g_autofree char *candidate_text = ipv4_format(candidate.address);

    g_set_error(error, HVM_ERROR, HVM_ERROR_NETWORK,
                "no /24 of the NAT pool %s/%u is free: the last one tried, %s/24, collides with %s", pool_text, pool->prefix,
                candidate_text, collision && collision->what ? collision->what : "another network");
    return NULL;
}
