/*
 * exec.c: commands in a guest, and the channel to its agent that they go over.
 *
 * One channel for each guest, opened at start or when it is first wanted, shared by all commands, dropped when the guest
 * stops. It is freed when the last command that uses it is.
 */
#include "guests_private.h"

#include "hvm_error.h"

enum { REOPEN_TIMEOUT_MS = 10000 };

struct ChannelBox {
    Channel *channel;
};

struct GuestExec {
    ChannelBox *box;
    guint32 command;
};

static void box_clear(gpointer pointer)
{
    channel_free(((ChannelBox *)pointer)->channel);
}

void channel_box_unref(ChannelBox *box)
{
    if (box)
        g_atomic_rc_box_release_full(box, box_clear);
}

Channel *channel_box_get(ChannelBox *box)
{
    return box->channel;
}

void guest_drop_channel(Guest *guest)
{
    g_mutex_lock(&guest->channel_lock);
    ChannelBox *box = g_steal_pointer(&guest->channel);
    g_mutex_unlock(&guest->channel_lock);
    channel_box_unref(box);
}

/* Takes the channel's lock; another caller may hold it for as long as a boot takes. */
static gboolean lock_channel(Guest *guest, gint64 deadline_us, GError **error)
{
    while (!g_mutex_trylock(&guest->channel_lock)) {
        if (g_get_monotonic_time() > deadline_us) {
            g_set_error(error, HVM_ERROR, HVM_ERROR_TIMEOUT, "it is still booting: its agent has not answered yet");
            return FALSE;
        }
        g_usleep(10000);
    }
    return TRUE;
}

ChannelBox *guest_channel(Guests *guests, Guest *guest, unsigned timeout_ms, GError **error)
{
    g_autofree char *path = g_build_filename(guest->real->socket_folder, "agent.sock", NULL);
    g_autoptr(GCancellable) life = NULL;
    ChannelBox *box = NULL;

    g_mutex_lock(&guests->lock);
    life = g_object_ref(guest->life);
    g_mutex_unlock(&guests->lock);
    if (!lock_channel(guest, g_get_monotonic_time() + (gint64)timeout_ms * 1000, error))
        return NULL;
    if (guest->channel && !channel_is_open(guest->channel->channel))
        g_clear_pointer(&guest->channel, channel_box_unref);
    if (!guest->channel) {
        Channel *channel = channel_open(path, guest->real->spec->name, timeout_ms, life, error);

        if (channel) {
            guest->channel = g_atomic_rc_box_new0(ChannelBox);
            guest->channel->channel = channel;
        }
    }
    if (guest->channel)
        box = g_atomic_rc_box_acquire(guest->channel);
    g_mutex_unlock(&guest->channel_lock);
    return box;
}

Guest *guest_find_running(Guests *guests, const Caller *caller, const char *name, GError **error)
{
    g_autoptr(Guest) guest = guests_find(guests, caller, name, error);

    if (!guest)
        return NULL;
    g_mutex_lock(&guests->lock);
    GuestState state = guest->state;
    g_mutex_unlock(&guests->lock);
    if (state == GUEST_RUNNING)
        return g_steal_pointer(&guest);
    if (state == GUEST_OFF || state == GUEST_CRASHED)
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "it is %s: start it with `hvm start %s`",
                    state == GUEST_OFF ? "not running" : "crashed", name);
    else
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "it is %s", guest_state_name(state));
    return NULL;
}

GuestExec *guests_exec(Guests *guests, const Caller *caller, const char *name, const ChannelCommand *command,
                       ChannelStreams *ret_streams, ChannelEndFunc on_end, gpointer data, GError **error)
{
    g_autoptr(Guest) guest = guest_find_running(guests, caller, name, error);
    g_autoptr(ChannelBox) box = guest ? guest_channel(guests, guest, REOPEN_TIMEOUT_MS, error) : NULL;
    guint32 number = box ? channel_exec(box->channel, command, ret_streams, on_end, data, error) : 0;

    if (!number) {
        guest_prefix_error(error, name);
        return NULL;
    }
    GuestExec *exec = g_new0(GuestExec, 1);

    exec->box = g_steal_pointer(&box);
    exec->command = number;
    return exec;
}

gboolean guest_exec_signal(GuestExec *exec, int signal_number, GError **error)
{
    return channel_signal(exec->box->channel, exec->command, signal_number, error);
}

gboolean guest_exec_resize(GuestExec *exec, guint16 rows, guint16 columns, GError **error)
{
    return channel_resize(exec->box->channel, exec->command, rows, columns, error);
}

void guest_exec_free(GuestExec *exec)
{
    if (!exec)
        return;
    channel_end(exec->box->channel, exec->command, NULL);
    channel_box_unref(exec->box);
    g_free(exec);
}
