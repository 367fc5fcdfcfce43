/*
 * plan.h: what start would decide, without doing any of it.
 *
 * Input: a template and a request, a host (this node, a file, a synthetic one), what is promised on it, what the caller may use.
 * Output: the spec, the placement and the domain XML that a start would make, with names in place of what only a real guest has
 * (UUID, image, owner). The limits and devices of hvmd.conf, and whether there is an image, are left to the start. Needs no image,
 * no libvirt and no privilege; touches nothing.
 * Threads: any.
 */
#pragma once

#include "accel.h"
#include "host.h"
#include "placement.h"
#include "settings.h"
#include "spec.h"

typedef struct {
    Host *host;
    Spec *spec;
    Placement *placement;
    gboolean kvm;
    gboolean no_arch_capabilities; /* accel.h; of this node alone */
    char *accel_reason;  /* one clause: why KVM or TCG */
} Plan;

/* `host` is consumed, on failure too. The KVM of this node is probed; on another node it is taken to accelerate unless TCG is
 * asked for. `ledger` may be NULL (nothing promised), as may `allowed` (no bound) and `policy`. INVALID, NOT_FOUND, NO_PLACEMENT. */
Plan *plan_new(const char *name, const char *template_name, const Settings *request, Host *host,
               const Ledger *ledger, const Allowed *allowed, const PlacementPolicy *policy, GError **error);

/* The domain XML. Caller frees. */
char *plan_to_xml(const Plan *plan);

void plan_free(Plan *plan);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Plan, plan_free)
