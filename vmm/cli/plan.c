/* plan: what start would decide, computed here: no hvmd, no image, no libvirt, and nothing is touched. */
#include "plan.h"

#include "cli.h"
#include "hvm_error.h"
#include "units.h"

static Plan *make_plan(const Cli *cli, GError **error)
{
    g_autoptr(Settings) request = cli_settings(cli, error);
    const char *template_name = cli_value(cli, "template");

    if (!request)
        return NULL;
    if (!template_name) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                    "plan: wanted --template NAME, found none (`hvm template list` lists them)");
        return NULL;
    }
    if (!name_check(cli_argument(cli, 0), "guest name", error) || !name_check(template_name, "template name", error))
        return NULL;
    return plan_new(cli_argument(cli, 0), template_name, request, cli_value(cli, "host"), NULL, NULL, error);
}

int run_plan(Cli *cli, GError **error)
{
    g_autoptr(Plan) plan = NULL;

    if (cli_has(cli, "xml") && cli_has(cli, "json")) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "plan: wanted --xml or --json, found both");
        return 1;
    }
    if (!(plan = make_plan(cli, error)))
        return 1;
    if (cli_has(cli, "xml")) {
        g_autofree char *xml = plan_to_xml(plan);

        fputs(xml, stdout);
    } else if (cli_has(cli, "json")) {
        g_autofree char *json = placement_to_json(plan->placement);

        puts(json);
    } else {
        g_autofree char *text = placement_explain(plan->placement, plan->host, plan->spec);
        g_autofree char *reason = hvm_escape(plan->accel_reason, -1);

        fputs(text, stdout);
        printf("Accelerator: %s (%s).\n", plan->kvm ? "KVM" : "none, QEMU's TCG: software, tens of times slower",
               reason);
    }
    return 0;
}
