#include "plan.h"

#include "domain_xml.h"
#include "hvm_error.h"
#include "template.h"

/* Stand for what only a real guest has; fixed, so that the same plan is the same text. */
#define PLAN_UUID "00000000-0000-4000-8000-000000000000"
#define PLAN_MAC "52:54:00:00:00:00"
#define PLAN_QEMU_USER "libvirt-qemu:kvm" /* hvmd.conf's defaults; on another node it is no user, and never root */
#define PLAN_STORE "/var/lib/hvm"

void plan_free(Plan *plan)
{
    if (!plan)
        return;
    g_clear_pointer(&plan->host, host_unref);
    g_clear_pointer(&plan->spec, spec_unref);
    g_clear_pointer(&plan->placement, placement_free);
    g_free(plan->accel_reason);
    g_free(plan);
}

static void choose_accelerator(Plan *plan, gboolean live)
{
    AccelProbe probe = {0};

    if (live && plan->spec->accel != ACCEL_WANT_TCG)
        accel_probe(&probe);
    plan->no_arch_capabilities = probe.no_arch_capabilities;
    switch (plan->spec->accel) {
    case ACCEL_WANT_KVM:
    case ACCEL_WANT_TCG:
        plan->kvm = plan->spec->accel == ACCEL_WANT_KVM;
        plan->accel_reason = g_strdup("asked for");
        break;
    case ACCEL_WANT_AUTO:
        plan->kvm = !live || probe.state == ACCEL_KVM;
        plan->accel_reason = g_strdup(live ? probe.detail : "taken for granted on a node that this is not");
        break;
    }
}

Plan *plan_new(const char *name, const char *template_name, const Settings *request, Host *host,
               const Ledger *ledger, const Allowed *allowed, const PlacementPolicy *policy, GError **error)
{
    g_autoptr(Plan) plan = g_new0(Plan, 1);
    g_autoptr(Ledger) empty = ledger_new();
    g_auto(GStrv) folders = template_folders();
    g_autoptr(Template) template = template_load((const char *const *)folders, template_name, error);

    plan->host = host;
    if (!template || !(plan->spec = spec_new(name, template_name, template->settings, NULL, request, error)))
        return NULL;
    plan->placement = placement_solve(plan->host, plan->spec, ledger ? ledger : empty, allowed, policy, error);
    if (!plan->placement)
        return NULL;
    choose_accelerator(plan, host->origin == HOST_LIVE);
    return g_steal_pointer(&plan);
}

char *plan_to_xml(const Plan *plan)
{
    char image[] = PLAN_STORE "/images/TEMPLATE/REVISION/root.raw";
    char kernel[] = PLAN_STORE "/images/TEMPLATE/REVISION/vmlinuz", vmlinux[] = PLAN_STORE "/images/TEMPLATE/REVISION/vmlinux";
    char initrd[] = PLAN_STORE "/images/TEMPLATE/REVISION/initrd", quick[] = PLAN_STORE "/images/TEMPLATE/REVISION/initrd-agent";
    gboolean agent = plan->spec->init == INIT_AGENT;
    char disk[] = PLAN_STORE "/guests/" PLAN_UUID "/root.qcow2";
    char log[] = PLAN_STORE "/guests/" PLAN_UUID "/console.log";
    char sockets[] = "/run/hvm/guests/" PLAN_UUID;
    char uuid[] = PLAN_UUID, store[] = PLAN_STORE, revision[] = "REVISION", network[] = "hvm-nat-0", mac[] = PLAN_MAC;
    const RuntimeGuest guest = {
        .uuid = uuid,
        .spec = plan->spec,
        .store = store,
        .revision = revision,
        .image_path = image,
        .kernel_path = agent && !plan->spec->kaslr ? vmlinux : kernel,
        .initrd_path = agent ? quick : initrd,
        .disk_path = disk,
        .log_path = log,
        .socket_folder = sockets,
        .network = plan->spec->network == NETWORK_NAT ? network : NULL,
        .mac = mac,
        .kvm = plan->kvm,
        .direct_io = TRUE,
        .qemu_user = PLAN_QEMU_USER,
        .no_arch_capabilities = plan->no_arch_capabilities,
        .amd = g_strcmp0(plan->host->cpu_vendor, "AuthenticAMD") == 0,
        .placement = plan->placement,
    };

    return domain_xml_build(&guest);
}
