#include "nat.h"

#include "hvm_error.h"
#include "isolation.h"
#include "nat_hosts.h"
#include "routes.h"
#include "step.h"
#include "units.h"
#include "virt.h"

#include <net/if.h>
#include <string.h>

struct Nat {
    Subnet *pool;
    char *label;
    GMutex lock;          /* held over each public call that talks to libvirt */
    GHashTable *attached; /* set of "UID NAME", by this process: see nat_release() */
};

Nat *nat_new(const char *pool, const char *label, GError **error)
{
    g_autoptr(Subnet) subnet = subnet_parse_pool(pool, error);
    g_autofree char *shown = hvm_escape(label, -1);

    if (!subnet)
        return NULL;
    /* What is not printable would not come back unchanged from XML. */
    if (!*label || strcmp(shown, label) != 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "bad label of NAT networks: wanted printable text, found '%s'", shown);
        return NULL;
    }
    Nat *nat = g_new0(Nat, 1);

    nat->pool = g_steal_pointer(&subnet);
    nat->label = g_strdup(label);
    g_mutex_init(&nat->lock);
    nat->attached = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    return nat;
}

void nat_free(Nat *nat)
{
    if (!nat)
        return;
    subnet_free(nat->pool);
    g_free(nat->label);
    g_mutex_clear(&nat->lock);
    g_hash_table_unref(nat->attached);
    g_free(nat);
}

char *nat_network_name(uid_t owner_uid)
{
    return g_strdup_printf("hvm-nat-%u", owner_uid);
}

/* At most 15 characters, as a link's name may have. */
static char *bridge_name(uid_t owner_uid)
{
    return g_strdup_printf("hvm-n%u", owner_uid);
}

static gboolean is_ours(const Nat *nat, const NatNetwork *held)
{
    return g_strcmp0(held->label, nat->label) == 0;
}

/* TRUE with ret_network NULL where this hvmd has none. ret_foreign (may be NULL) tells whose it is where the name is taken;
 * caller frees. */
static gboolean find_network(Nat *nat, virConnectPtr connect, uid_t owner_uid, virNetworkPtr *ret_network, char **ret_foreign,
                             GError **error)
{
    g_autofree char *name = nat_network_name(owner_uid);
    g_autoptr(virNetwork) network = virNetworkLookupByName(connect, name);
    g_autoptr(NatNetwork) held = NULL;

    if (!network) {
        *ret_network = NULL;
        return virGetLastErrorCode() == VIR_ERR_NO_NETWORK || nat_fail(error, "network '%s'", name);
    }
    held = nat_read(network, 0, error);
    if (!held)
        return FALSE;

    gboolean ours = is_ours(nat, held) && held->owner_uid == owner_uid;

    if (!ours && ret_foreign)
        *ret_foreign = hvm_escape(held->label ? held->label : "", -1);
    *ret_network = ours ? g_steal_pointer(&network) : NULL;
    return TRUE;
}

/* ---- making the network ---- */

/* What is taken by the host and by libvirt's networks other than `except`. NULL on failure. */
static GPtrArray *list_taken(virConnectPtr connect, const char *except, GError **error)
{
    g_autoptr(GPtrArray) taken = g_ptr_array_new_with_free_func((GDestroyNotify)subnet_free);
    g_autofree virNetworkPtr *networks = NULL;
    int count = virConnectListAllNetworks(connect, &networks, 0);

    if (count < 0) {
        nat_fail(error, "cannot list libvirt's networks");
        return NULL;
    }
    for (int i = 0; i < count; i++) {
        g_autoptr(virNetwork) network = networks[i];
        /* One that has just gone takes nothing. */
        g_autoptr(NatNetwork) held = strcmp(virNetworkGetName(network), except) ? nat_read(network, 0, NULL) : NULL;

        if (held)
            g_ptr_array_extend_and_steal(taken, g_steal_pointer(&held->subnets));
    }
    return routes_append(taken, error) ? g_steal_pointer(&taken) : NULL;
}

static gboolean collides(const Subnet *subnet, const GPtrArray *taken)
{
    for (guint i = 0; i < taken->len; i++)
        if (subnet_overlaps(subnet, taken->pdata[i]))
            return TRUE;
    return FALSE;
}

static gboolean is_running(virNetworkPtr network, const NatNetwork *held)
{
    return virNetworkIsActive(network) == 1 && held->bridge && if_nametoindex(held->bridge) > 0;
}

/* A network that is down, and whose subnet now belongs to somebody else, is taken away to be made anew: whoever was plugged into
 * it lost it when it went down. So is one that was not stored and whose bridge somebody deleted. */
static gboolean keep_or_drop(virConnectPtr connect, virNetworkPtr network, gboolean *ret_keep, GError **error)
{
    const char *name = virNetworkGetName(network);
    g_autoptr(NatNetwork) held = nat_read(network, 0, error);
    g_autoptr(GPtrArray) taken = NULL;
    gboolean keep = held && is_running(network, held);

    if (!held)
        return FALSE;
    if (!keep && virNetworkIsActive(network) == 1 && virNetworkDestroy(network) < 0)
        return nat_fail(error, "cannot stop network '%s', whose bridge is gone", name);
    if (!keep && virNetworkIsPersistent(network) == 1) {
        taken = list_taken(connect, name, error);
        if (!taken)
            return FALSE;
        keep = held->subnets->len > 0 && !collides(held->subnets->pdata[0], taken);
        if (!keep && virNetworkUndefine(network) < 0)
            return nat_fail(error, "cannot remove network '%s', whose subnet is taken", name);
    }
    *ret_keep = keep;
    return TRUE;
}

/* Defined, not started. */
static virNetworkPtr define_network(Nat *nat, virConnectPtr connect, uid_t owner_uid, GError **error)
{
    g_autofree char *name = nat_network_name(owner_uid);
    g_autofree char *bridge = bridge_name(owner_uid);
    g_autoptr(GPtrArray) taken = list_taken(connect, name, error);
    g_autoptr(Subnet) subnet = taken ? subnet_pick(nat->pool, taken, error) : NULL;

    if (!subnet) {
        g_prefix_error(error, "network '%s': ", name);
        return NULL;
    }
    g_autofree char *xml = nat_xml_write(name, bridge, nat->label, owner_uid, subnet);
    virNetworkPtr network = virNetworkDefineXML(connect, xml);

    if (!network)
        nat_fail(error, "cannot define network '%s'", name);
    return network;
}

/* An administrator's net-undefine leaves a network that runs, and is gone when it stops. */
static gboolean make_persistent(virConnectPtr connect, virNetworkPtr network, GError **error)
{
    const char *name = virNetworkGetName(network);

    if (virNetworkIsPersistent(network) == 1)
        return TRUE;

    char *xml = virNetworkGetXMLDesc(network, VIR_NETWORK_XML_INACTIVE);
    g_autoptr(virNetwork) defined = xml ? virNetworkDefineXML(connect, xml) : NULL;

    free(xml);
    return defined || nat_fail(error, "cannot define network '%s' again", name);
}

static gboolean start_network(virNetworkPtr network, GError **error)
{
    const char *name = virNetworkGetName(network);
    g_autoptr(NatNetwork) held = NULL;

    if (virNetworkIsActive(network) == 1 || virNetworkCreate(network) == 0)
        return TRUE;
    nat_fail(error, "cannot start network '%s'", name);
    held = nat_read(network, 0, NULL);
    if (held && held->subnets->len > 0) {
        const Subnet *subnet = held->subnets->pdata[0];
        g_autofree char *text = ipv4_format(subnet->address);

        g_prefix_error(error, "subnet %s/%u: ", text, subnet->prefix);
    }
    return FALSE;
}

/* The owner's network, defined and running. */
static virNetworkPtr ensure_network(Nat *nat, virConnectPtr connect, uid_t owner_uid, GError **error)
{
    g_autoptr(virNetwork) network = NULL;
    g_autofree char *foreign = NULL;
    gboolean keep = FALSE;

    if (!find_network(nat, connect, owner_uid, &network, &foreign, error))
        return NULL;
    if (foreign) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_NETWORK, "network 'hvm-nat-%u' is not this hvmd's: wanted label '%s', found '%s'",
                    owner_uid, nat->label, foreign);
        return NULL;
    }
    if (network && !keep_or_drop(connect, network, &keep, error))
        return NULL;
    if (keep)
        return make_persistent(connect, network, error) && start_network(network, error) ? g_steal_pointer(&network) : NULL;

    g_autoptr(virNetwork) made = define_network(nat, connect, owner_uid, error);

    if (!made)
        return NULL;
    if (!step_reached("start.network-define", error) || !start_network(made, error)) {
        virNetworkUndefine(made);
        return NULL;
    }
    return g_steal_pointer(&made);
}

/* A guest's key in nat->attached. */
static char *attached_key(uid_t owner_uid, const char *guest_name)
{
    return g_strdup_printf("%u %s", owner_uid, guest_name);
}

gboolean nat_attach(Nat *nat, virConnectPtr connect, uid_t owner_uid, const char *guest_name, char **ret_mac, char **ret_address,
                    GError **error)
{
    g_autofree char *bridge = bridge_name(owner_uid);

    if (!name_check(guest_name, "guest name", error))
        return FALSE;

    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&nat->lock);
    g_autoptr(virNetwork) network = ensure_network(nat, connect, owner_uid, error);

    if (!network || !step_reached("start.network-up", error) || !isolation_add(bridge, nat->pool, error) ||
        !step_reached("start.rule", error) || !nat_hosts_enter(network, guest_name, ret_mac, ret_address, error))
        return FALSE;
    g_hash_table_add(nat->attached, attached_key(owner_uid, guest_name));
    return TRUE;
}

char *nat_describe_address(const char *address)
{
    guint32 number = 0;

    if (!ipv4_parse(address, &number))
        return NULL;

    g_autofree char *gateway = ipv4_format((number & ~(guint32)255) + 1); /* as nat_xml_write() has it */

    return g_strdup_printf("%s/24,%s", address, gateway);
}

gboolean nat_detach(Nat *nat, virConnectPtr connect, uid_t owner_uid, const char *guest_name, GError **error)
{
    g_autofree char *key = attached_key(owner_uid, guest_name);
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&nat->lock);
    g_autoptr(virNetwork) network = NULL;

    if (!find_network(nat, connect, owner_uid, &network, NULL, error) ||
        (network && !nat_hosts_remove(network, guest_name, error)))
        return FALSE;
    g_hash_table_remove(nat->attached, key);
    return TRUE;
}

gboolean nat_sweep(Nat *nat, virConnectPtr connect, uid_t owner_uid, gboolean (*known)(const char *guest_name, gpointer data),
                   gpointer data, GError **error)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&nat->lock);
    g_autoptr(virNetwork) network = NULL;

    return find_network(nat, connect, owner_uid, &network, NULL, error) &&
           (!network || nat_hosts_sweep(network, known, data, error));
}

static gboolean is_attached(const Nat *nat, uid_t owner_uid)
{
    g_autofree char *prefix = attached_key(owner_uid, "");
    GHashTableIter iter;
    gpointer key;

    g_hash_table_iter_init(&iter, nat->attached);
    while (g_hash_table_iter_next(&iter, &key, NULL))
        if (g_str_has_prefix(key, prefix))
            return TRUE;
    return FALSE;
}

static gboolean remove_network(virNetworkPtr network, GError **error)
{
    const char *name = virNetworkGetName(network);
    /* One that is not stored is gone once it is stopped. */
    gboolean persistent = virNetworkIsPersistent(network) == 1;

    if (virNetworkIsActive(network) == 1 && virNetworkDestroy(network) < 0)
        return nat_fail(error, "cannot stop network '%s'", name);
    if (!step_reached("release.down", error))
        return FALSE;
    return !persistent || virNetworkUndefine(network) == 0 || nat_fail(error, "cannot remove network '%s'", name);
}

gboolean nat_release(Nat *nat, virConnectPtr connect, uid_t owner_uid, GError **error)
{
    g_autofree char *bridge = bridge_name(owner_uid);
    g_autofree char *foreign = NULL;
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&nat->lock);
    g_autoptr(virNetwork) network = NULL;

    if (!find_network(nat, connect, owner_uid, &network, &foreign, error))
        return FALSE;
    if (foreign || is_attached(nat, owner_uid))
        return TRUE;
    /* The network last: it is what recovery finds. */
    return isolation_remove(bridge, error) && step_reached("release.rule", error) &&
           (!network || remove_network(network, error)) && step_reached("release.network", error);
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

char **nat_list(Nat *nat, virConnectPtr connect, GError **error)
{
    GPtrArray *names = NULL;
    g_autofree virNetworkPtr *networks = NULL;
    int count = virConnectListAllNetworks(connect, &networks, 0);

    if (count < 0) {
        nat_fail(error, "cannot list libvirt's networks");
        return NULL;
    }
    names = g_ptr_array_new();
    for (int i = 0; i < count; i++) {
        g_autoptr(virNetwork) network = networks[i];
        /* One that has just gone is none. */
        g_autoptr(NatNetwork) held = nat_read(network, 0, NULL);

        if (held && is_ours(nat, held))
            g_ptr_array_add(names, g_strdup(virNetworkGetName(network)));
    }
    g_ptr_array_sort(names, compare_names);
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, FALSE);
}
