/*
 * clients.c: a connection that has authenticated, and what ends with it: its jobs, its commands, the guests that were made for it.
 */
#include "daemon_private.h"

enum { RETRY_US = 1000000 };

Client *client_ref(Client *client)
{
    g_atomic_ref_count_inc(&client->references);
    return client;
}

void client_unref(Client *client)
{
    if (!g_atomic_ref_count_dec(&client->references))
        return;
    g_clear_object(&client->connection);
    caller_free(client->caller);
    g_hash_table_unref(client->jobs);
    g_hash_table_unref(client->execs);
    g_hash_table_unref(client->outstanding);
    g_ptr_array_unref(client->ephemeral);
    g_mutex_clear(&client->lock);
    g_free(client);
}

gboolean client_own_guest(Client *client, const char *uuid)
{
    g_mutex_lock(&client->lock);
    gboolean closed = client->closed;

    if (!closed)
        g_ptr_array_add(client->ephemeral, g_strdup(uuid));
    g_mutex_unlock(&client->lock);
    return !closed;
}

/* What is left when hvmd leaves ends with its connection to libvirt. */
void client_end_guest(const Client *client, const char *uuid)
{
    Daemon *daemon = client->daemon;

    for (;;) {
        g_autoptr(GError) error = NULL;

        if (guests_destroy_ephemeral(daemon->guests, uuid, &error))
            return;
        g_message("%s", error->message);
        if (g_atomic_int_get(&daemon->leaving))
            return;
        g_usleep(RETRY_US);
    }
}

/* Destroys the guests that belonged to a connection. */
static gpointer end_guests(gpointer data)
{
    Client *client = data;
    Daemon *daemon = client->daemon;

    for (guint i = 0; i < client->ephemeral->len; i++)
        client_end_guest(client, client->ephemeral->pdata[i]);
    client_unref(client);
    g_atomic_int_add(&daemon->workers, -1);
    g_main_context_wakeup(NULL);
    return NULL;
}

void client_close(Client *client)
{
    g_autoptr(GDBusConnection) connection = g_steal_pointer(&client->connection);

    if (!connection)
        return;
    client_ref(client);
    g_signal_handlers_disconnect_by_data(connection, client);
    g_dbus_connection_close(connection, NULL, NULL, NULL);
    jobs_abandon(client);
    g_hash_table_remove_all(client->execs);
    g_mutex_lock(&client->lock);
    client->closed = TRUE;
    g_mutex_unlock(&client->lock);
    for (guint i = 0; i < client->ephemeral->len; i++)
        guests_leave(client->daemon->guests, client->ephemeral->pdata[i]);
    if (client->ephemeral->len) {
        g_atomic_int_inc(&client->daemon->workers);
        g_thread_unref(g_thread_new("hvm-end", end_guests, client_ref(client)));
    }
    g_hash_table_remove(client->daemon->clients, client);
    client_unref(client);
}
