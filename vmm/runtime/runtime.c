#include "runtime.h"

void runtime_guest_free(RuntimeGuest *guest)
{
    if (!guest)
        return;
    char *strings[] = {guest->uuid,        guest->store,     guest->revision, guest->image_path,
                       guest->kernel_path, guest->initrd_path, guest->disk_path, guest->log_path,
                       guest->socket_folder, guest->network, guest->mac,      guest->address,
                       guest->boot_address};

    for (gsize i = 0; i < G_N_ELEMENTS(strings); i++)
        g_free(strings[i]);
    spec_unref(guest->spec);
    g_clear_pointer(&guest->placement, placement_free);
    g_free(guest);
}

void runtime_found_free(RuntimeFound *found)
{
    if (!found)
        return;
    runtime_guest_free(found->guest);
    g_clear_pointer(&found->promise, ledger_entry_free);
    g_free(found->name);
    g_free(found->uuid);
    g_free(found);
}

const char *guest_state_name(GuestState state)
{
    static const char *const names[] = {"off", "starting", "running", "paused", "stopping", "crashed"};

    return names[state];
}

void runtime_free(Runtime *runtime)
{
    if (runtime)
        runtime->free(runtime);
}
