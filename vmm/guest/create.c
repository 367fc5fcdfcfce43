/*
 * create.c: a guest comes to be: a name, a disk, a definition. It stands on an image and runs nowhere yet: create
 * refuses only what could never fit this node; cores and pages are found at start.
 *
 * Killed between the steps, recovery finds: a folder without a domain that is marked unfinished, and clears it; or a whole guest.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "step.h"
#include "template.h"
#include "template_keys.h"
#include "units.h"

#include <unistd.h>

gboolean guest_set_image(RuntimeGuest *real, const Image *image, GError **error)
{
    gboolean agent = real->spec->init == INIT_AGENT;
    gboolean unpacked = agent && !real->spec->kaslr && image->vmlinux_path;

    if (agent && !image->agent_initrd_path) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE,
                    "[boot] init: wanted agent, which image %s of template '%s' cannot: it has no initrd for it (a new build may have)",
                    image->revision, image->template_name);
        return FALSE;
    }
    g_free(real->image_path);
    g_free(real->kernel_path);
    g_free(real->initrd_path);
    real->image_path = g_strdup(image->root_path);
    real->kernel_path = g_strdup(unpacked ? image->vmlinux_path : image->kernel_path);
    real->initrd_path = g_strdup(agent ? image->agent_initrd_path : image->initrd_path);
    return TRUE;
}

/* What lies below the template's own words: what the image says of its system, and how it is booted. */
static Settings *settings_below(const Image *image, gboolean ephemeral)
{
    Settings *below = settings_new(template_keys);

    settings_merge(below, image->settings);
    if (ephemeral && image->agent_initrd_path)
        settings_set(below, "boot", "init", "agent", "run", NULL);
    return below;
}

/* What only an ephemeral guest can have. */
static gboolean check_lasting(const Settings *request, GError **error)
{
    if (g_strcmp0(settings_get(request, "disk root", "in-memory"), "yes") != 0)
        return TRUE;
    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                "[disk root] in-memory: a guest that stays has its disk in the store: wanted auto or no, found yes");
    return FALSE;
}

static gboolean fits(Guests *guests, const Caller *caller, const Host *host, const Spec *spec, GError **error)
{
    return devices_check_right(host, spec, guests->config->devices, caller->uid, error) &&
           placement_could_fit(host, spec, &caller->allowed, &guests->policy, error);
}

/* Reading the node anew is the dearest part of a create, more so with many devices. Start reads it anew in any case, so
 * that here a recent look may say yes; only a fresh one may say no. */
static gboolean could_fit(Guests *guests, const Caller *caller, const Spec *spec, GError **error)
{
    g_autoptr(Host) recent = guests_recent(guests);
    g_autoptr(GError) ignored = NULL;

    if (recent && fits(guests, caller, recent, spec, &ignored))
        return TRUE;

    g_autoptr(Host) fresh = guests_snapshot(guests, error);

    return fresh && fits(guests, caller, fresh, spec, error);
}

Guest *guest_prepare(Guests *guests, const Caller *caller, const char *name, const char *template_name,
                      const Settings *request, gboolean ephemeral, Image **ret_image, GError **error)
{
    g_auto(GStrv) folders = template_folders();
    g_autoptr(Template) template = template_load((const char *const *)folders, template_name, error);
    g_autoptr(Image) image = template ? image_store_find(guests->store, template_name, NULL, error) : NULL;
    g_autoptr(Settings) below = image ? settings_below(image, ephemeral) : NULL;
    g_autoptr(Spec) spec = image ? spec_new(name, template_name, template->settings, below, request, error) : NULL;

    if (!spec || (!ephemeral && !check_lasting(request, error)))
        return NULL;
    if (!limits_check_allowed(caller, error)) {
        guest_prefix_error(error, name);
        return NULL;
    }
    if (!could_fit(guests, caller, spec, error))
        return NULL;

    g_autoptr(RuntimeGuest) real = g_new0(RuntimeGuest, 1);

    real->uuid = g_uuid_string_random();
    real->spec = g_steal_pointer(&spec);
    real->owner_uid = caller->uid;
    real->owner_gid = caller->gid;
    real->store = g_strdup(guests->config->store_path);
    real->revision = g_strdup(image->revision);
    real->ephemeral = ephemeral;
    if (!guest_set_image(real, image, error) || !guests_fill_paths(guests, real, error)) {
        guest_prefix_error(error, name);
        return NULL;
    }
    *ret_image = g_steal_pointer(&image);
    return guest_new(g_steal_pointer(&real));
}

/* Why libvirt does not define it may be that it has a domain of that name, which then is not ours. Asked only afterwards:
 * libvirt refuses by itself, and asking is one more round trip. */
static gboolean define(Guests *guests, const RuntimeGuest *real, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (guests->runtime->define(guests->runtime, real, &local))
        return TRUE;

    g_autoptr(virConnect) connect = virt_get(guests->virt, NULL);
    g_autoptr(virDomain) domain = connect ? virDomainLookupByName(connect, real->spec->name) : NULL;

    if (domain)
        g_set_error(error, HVM_ERROR, HVM_ERROR_EXISTS, "libvirt has a domain of that name that hvm did not make");
    else
        g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

/* How far a create came. */
typedef enum {
    MADE_NAME,
    MADE_DISK,
    MADE_DOMAIN /* or libvirt may have it, whatever it answered */
} Made;

/* Takes back what was made: the domain first, because a disk is not removed from under one that may be there. What libvirt does not take
 * back now, it does when it answers again. */
static void take_back(Guests *guests, Guest *guest, Made made)
{
    RuntimeGuest *real = guest->real;
    g_autoptr(GError) error = NULL;

    if (made == MADE_DOMAIN)
        image_store_mark_guest(guests->store, real->uuid, TRUE, NULL);
    if ((made < MADE_DOMAIN || guests->runtime->undefine(guests->runtime, real, &error)) &&
        (made < MADE_DISK || image_store_destroy_guest(guests->store, real->uuid, &error))) {
        guest_forget(guests, guest);
        return;
    }
    g_message("guest '%s': what was made of it is to be taken away later: %s", real->spec->name, error->message);
    guest_take_away_later(guests, guest);
}

/* All that a guest is but its name, which it has; *ret_made tells how far it came. */
static gboolean make(Guests *guests, Guest *guest, const Image *image, GuestsProgressFunc progress, gpointer data, Made *ret_made,
                     GError **error)
{
    const RuntimeGuest *real = guest->real;

    *ret_made = MADE_NAME;
    if (!step_reached("create.name", error))
        return FALSE;
    progress("making its disk", data);
    if (!image_store_create_guest(guests->store, real->uuid, image, real->spec->disk_bytes, FALSE, error))
        return FALSE;
    *ret_made = MADE_DISK;
    if (!step_reached("create.disk", error))
        return FALSE;
    *ret_made = MADE_DOMAIN;
    return define(guests, real, error) && step_reached("create.define", error) &&
           image_store_mark_guest(guests->store, real->uuid, FALSE, error) && step_reached("create.finish", error);
}

gboolean guests_create(Guests *guests, const Caller *caller, const char *name, const char *template_name,
                       const Settings *request, GuestsProgressFunc progress, gpointer data, GError **error)
{
    g_autoptr(Image) image = NULL;
    Made made = MADE_NAME;

    if (!name_check(name, "guest name", error) || !name_check(template_name, "template name", error))
        return FALSE;

    g_autoptr(Guest) guest = guest_prepare(guests, caller, name, template_name, request, FALSE, &image, error);

    if (!guest || !step_reached("create.image", error) || !guest_take_name(guests, caller, guest, error))
        return FALSE;
    if (!make(guests, guest, image, progress, data, &made, error)) {
        guest_prefix_error(error, name);
        take_back(guests, guest, made);
        return FALSE;
    }
    guest_publish(guests, guest);
    return TRUE;
}
