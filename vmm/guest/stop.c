/*
 * stop.c: a guest is asked to power off: by its agent, then by ACPI, then it is ended. A paused one is let go on first.
 */
#include "guests_private.h"

#include "hvm_error.h"
#include "step.h"

enum { AGENT_ANSWER_MS = 3000 };

/* The moment at which `part` of the time is over. */
static gint64 deadline_of(gint64 begin_us, unsigned timeout_s, double part)
{
    return begin_us + (gint64)((double)timeout_s * part * G_TIME_SPAN_SECOND);
}

static gboolean ask_agent(Guests *guests, Guest *guest)
{
    g_autoptr(ChannelBox) channel = guest_channel(guests, guest, AGENT_ANSWER_MS, NULL);

    return channel && channel_power_off(channel_box_get(channel), AGENT_ANSWER_MS, NULL);
}

static gboolean take_down(Guests *guests, Guest *guest, unsigned timeout_s, const char **ret_how, GuestsProgressFunc progress,
                          gpointer data, GError **error)
{
    gint64 begin_us = g_get_monotonic_time();

    if (timeout_s && guest->state == GUEST_PAUSED) { /* one that is paused hears nothing */
        progress("letting it go on", data);
        if (guests->runtime->resume(guests->runtime, guest->real, NULL))
            guest_set_state(guests, guest, GUEST_RUNNING);
    }
    if (timeout_s && guest->state == GUEST_RUNNING) {
        guest_set_state(guests, guest, GUEST_STOPPING);
        progress("asking its agent", data);

        gboolean asked = ask_agent(guests, guest);

        if (asked && guest_wait_off(guests, guest, deadline_of(begin_us, timeout_s, 0.5))) {
            *ret_how = "agent";
            return TRUE;
        }
        progress("asking by ACPI", data);
        if (guests->runtime->shut_down(guests->runtime, guest->real, NULL) &&
            guest_wait_off(guests, guest, deadline_of(begin_us, timeout_s, 1))) {
            *ret_how = asked ? "agent" : "acpi"; /* it was on its way already */
            return TRUE;
        }
    }
    /* One that was only asked is not ended because nobody waits for it any more. */
    if (timeout_s && !guests_check_stays(guests, error))
        return FALSE;
    progress("ending it", data);
    if (!step_reached("stop.ask", error) || !guests->runtime->kill(guests->runtime, guest->real, error))
        return FALSE;
    *ret_how = "hard";
    return TRUE;
}

gboolean guests_stop(Guests *guests, const Caller *caller, const char *name, unsigned timeout_s, const char **ret_how,
                     GuestsProgressFunc progress, gpointer data, GError **error)
{
    Guest *guest = guest_begin(guests, caller, name, timeout_s ? "stop" : "end", error);
    gboolean good = FALSE;

    if (!guest)
        return FALSE;
    if (guest_refresh_state(guests, guest, error)) {
        good = TRUE;
        if (guest->state == GUEST_OFF || guest->state == GUEST_CRASHED)
            *ret_how = "off";
        else
            good = take_down(guests, guest, timeout_s, ret_how, progress, data, error);
        /* Whatever happened: what libvirt says is how it is. */
        good = guest_refresh_state(guests, guest, good ? error : NULL) && good;
        good = good && step_reached("stop.off", error);
    }
    guest_end(guests, guest);
    if (!good)
        guest_prefix_error(error, name);
    return good;
}
