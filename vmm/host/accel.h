/*
 * accel.h: does /dev/kvm really accelerate?
 *
 * A micro-guest of a few instructions (dec; jnz, hlt) is run through /dev/kvm in 64-bit mode and timed; the same loop
 * runs natively beside it, and the ratio decides (nested KVM passes; a KVM that interprets does not). The probe
 * is bounded: a watchdog timer ends it after 2 s. An existence test is not enough: see FACTS in docs.
 * Threads: blocks up to 2 s; the caller keeps the answer for its lifetime.
 */
#pragma once

#include <glib.h>

typedef enum {
    ACCEL_KVM,          /* works and accelerates */
    ACCEL_KVM_SLOW,     /* opens and runs, but interprets */
    ACCEL_KVM_MISSING,  /* no /dev/kvm */
    ACCEL_KVM_DENIED,   /* cannot be opened */
    ACCEL_KVM_BROKEN,   /* an ioctl fails, or the loop does not end */
} AccelState;

typedef struct {
    AccelState state;
    double ratio;    /* guest time / native time, 0 where not measured */
    char detail[160]; /* one clause for people: "a loop takes 1,900 times as long as natively" */
    gboolean no_arch_capabilities; /* KVM offers the CPU feature arch-capabilities, and refuses its MSR: QEMU would abort */
} AccelProbe;

void accel_probe(AccelProbe *ret_probe);
