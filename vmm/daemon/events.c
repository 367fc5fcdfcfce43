/*
 * events.c: what happens to guests, told to the connections that subscribed.
 */
#include "daemon_private.h"

enum { EVENTS_WAITING_MAX = 256 };

typedef struct {
    Daemon *daemon;
    GVariant *event;
    uid_t owner_uid;
} Notice;

static void tell(Client *client, const Notice *notice)
{
    if (!client->subscribed || !client->connection || (client->caller->uid != 0 && client->caller->uid != notice->owner_uid))
        return;
    if (g_atomic_int_add(&client->events, 1) >= EVENTS_WAITING_MAX) {
        g_message("user %u does not read its events: connection closed", client->caller->uid);
        client_close(client);
        return;
    }
    g_dbus_connection_emit_signal(client->connection, NULL, "/io/hvm1", "io.hvm1", "GuestEvent",
                                  g_variant_new("(@a{sv})", notice->event), NULL);
}

/* In the main thread. */
static gboolean send_notice(gpointer data)
{
    Notice *notice = data;
    g_autoptr(GList) clients = g_hash_table_get_keys(notice->daemon->clients);

    for (GList *item = clients; item; item = item->next)
        tell(item->data, notice);
    g_variant_unref(notice->event);
    g_free(notice);
    return G_SOURCE_REMOVE;
}

void events_on_guest(const char *event, const char *name, const char *uuid, uid_t owner_uid, gpointer data)
{
    Notice *notice = g_new0(Notice, 1);
    GVariantDict dict;

    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "event", "s", event);
    g_variant_dict_insert(&dict, "name", "s", name);
    g_variant_dict_insert(&dict, "uuid", "s", uuid);
    g_variant_dict_insert(&dict, "owner", "u", owner_uid);
    g_variant_dict_insert(&dict, "time", "x", g_get_real_time());
    notice->daemon = data;
    notice->event = g_variant_ref_sink(g_variant_dict_end(&dict));
    notice->owner_uid = owner_uid;
    g_idle_add(send_notice, notice);
}

GVariant *events_subscribe(Call *call, GError **error G_GNUC_UNUSED)
{
    call->client->subscribed = TRUE;
    return g_variant_new_array(G_VARIANT_TYPE("{sv}"), NULL, 0);
}
