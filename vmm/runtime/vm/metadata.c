#include "metadata.h"

#include "hvm_error.h"
#include "template_keys.h"

#include <string.h>

/* A new child in hvm's namespace. */
static xmlNode *add(xmlNode *parent, xmlNs *ns, const char *name, const char *text)
{
    return xmlNewTextChild(parent, ns, BAD_CAST name, BAD_CAST text);
}

void metadata_add(xmlNode *metadata, const RuntimeGuest *guest)
{
    xmlNode *node = xml_add(metadata, "guest");
    xmlNs *ns = xmlNewNs(node, BAD_CAST METADATA_URI, BAD_CAST "hvm");

    xmlSetNs(node, ns);
    xml_set(node, "version", "%d", METADATA_VERSION);
    xml_set(node, "store", "%s", guest->store);
    xml_set(node, "owner", "%u", guest->owner_uid);
    xml_set(node, "group", "%u", guest->owner_gid);
    xml_set(node, "template", "%s", guest->spec->template_name);
    xml_set(node, "revision", "%s", guest->revision);
    xml_set(node, "kvm", "%s", guest->kvm ? "yes" : "no");
    if (guest->ephemeral)
        xml_set(node, "ephemeral", "yes");
    if (guest->mac)
        xml_set(node, "mac", "%s", guest->mac);
    if (guest->address)
        xml_set(node, "address", "%s", guest->address);
    for (guint i = 0; i < guest->spec->settings->items->len; i++) {
        const Setting *setting = guest->spec->settings->items->pdata[i];
        g_autofree char *name = g_strconcat(setting->group, ".", setting->key, NULL);

        xml_set(xml_set(add(node, ns, "set", setting->value), "name", "%s", name), "origin", "%s", setting->origin);
    }
    if (guest->placement) {
        g_autofree char *json = placement_to_json(guest->placement);

        add(node, ns, "placement", json);
    }
}

/* A decimal attribute that fits 32 bits. */
static gboolean read_number(const xmlNode *node, const char *name, guint32 *ret_value, GError **error)
{
    g_autofree char *text = xml_get(node, name);
    guint64 value = 0;

    if (!text || !g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT32, &value, NULL)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "attribute %s: wanted a number, found '%.40s'", name, text ? text : "");
        return FALSE;
    }
    *ret_value = (guint32)value;
    return TRUE;
}

static Settings *read_settings(const xmlNode *node, GError **error)
{
    g_autoptr(Settings) settings = settings_new(template_keys);

    for (const xmlNode *set = xml_child(node, "set"); set; set = xml_next(set, "set")) {
        g_autofree char *name = xml_get(set, "name");
        g_autofree char *origin = xml_get(set, "origin");
        g_autofree char *value = xml_get_text(set);

        if (!settings_set_name(settings, name ? name : "", value ? value : "", origin ? origin : "metadata", error))
            return NULL;
    }
    return g_steal_pointer(&settings);
}

static gboolean read_guest(const xmlNode *node, const char *name, RuntimeGuest *guest, GError **error)
{
    g_autofree char *template_name = xml_get(node, "template");
    g_autofree char *kvm = xml_get(node, "kvm");
    g_autofree char *ephemeral = xml_get(node, "ephemeral");
    g_autofree char *placement = xml_get_text(xml_child(node, "placement"));
    g_autoptr(Settings) settings = read_settings(node, error);
    guint32 version = 0, uid = 0, gid = 0;

    if (!settings || !read_number(node, "version", &version, error) || !read_number(node, "owner", &uid, error) ||
        !read_number(node, "group", &gid, error))
        return FALSE;
    if (version > METADATA_VERSION) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "made by a newer hvm: wanted metadata version %d, found %u",
                    METADATA_VERSION, version);
        return FALSE;
    }
    guest->owner_uid = uid;
    guest->owner_gid = gid;
    guest->store = xml_get(node, "store");
    guest->revision = xml_get(node, "revision");
    guest->mac = xml_get(node, "mac");
    guest->address = xml_get(node, "address");
    guest->kvm = g_strcmp0(kvm, "yes") == 0;
    guest->ephemeral = g_strcmp0(ephemeral, "yes") == 0;
    if (!guest->store || !guest->revision) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "wanted attributes store and revision, found not both");
        return FALSE;
    }
    if (placement && *placement && !(guest->placement = placement_from_json(placement, error)))
        return FALSE;
    guest->spec = spec_new_from_settings(name, template_name ? template_name : "", settings, error);
    return guest->spec != NULL;
}

RuntimeGuest *metadata_read(const char *text, const char *name, const char *uuid, GError **error)
{
    g_autoptr(RuntimeGuest) guest = g_new0(RuntimeGuest, 1);
    g_autoptr(xmlDoc) document = xml_parse(text, error);

    if (!document || !read_guest(xmlDocGetRootElement(document), name, guest, error)) {
        g_prefix_error(error, "metadata of domain '%s': ", name);
        return NULL;
    }
    guest->uuid = g_strdup(uuid);
    return g_steal_pointer(&guest);
}
