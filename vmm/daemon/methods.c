/*
 * methods.c: what each method of io.hvm1 does: read the request, call vmm/guest or the templates, make the reply.
 */
#include "daemon_private.h"

#include "hvm_error.h"
#include "image_build.h"
#include "template.h"
#include "template_keys.h"
#include "units.h"
#include "verify.h"

#include <string.h>
#include <unistd.h>

enum { READY_TIMEOUT_MS = 5000, STOP_TIMEOUT_S = 60, STOP_TIMEOUT_MAX_S = 86400, SETTINGS_MAX = 256 };

static GVariant *empty(void)
{
    return g_variant_new_array(G_VARIANT_TYPE("{sv}"), NULL, 0);
}

static void report(const char *text, gpointer data)
{
    job_progress(data, text, -1);
}

static GVariant *hello(Call *call, GError **error G_GNUC_UNUSED)
{
    Daemon *daemon = call->client->daemon;
    GVariantDict dict;

    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "version", "s", HVM_VERSION);
    g_variant_dict_insert(&dict, "pid", "u", (guint32)getpid());
    g_variant_dict_insert(&dict, "libvirt", "s", daemon->config->guests.libvirt_uri);
    g_variant_dict_insert(&dict, "connected", "b", guests_ready(daemon->guests));
    g_variant_dict_insert(&dict, "store", "s", daemon->config->guests.store_path);
    return g_variant_dict_end(&dict);
}

static GVariant *doctor(Call *call, GError **error G_GNUC_UNUSED)
{
    static const char *const states[] = {"ok", "warning", "failure"};
    g_autoptr(GPtrArray) checks = guests_doctor(call->client->daemon->guests);
    GVariantBuilder list = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));
    GVariantDict dict;

    for (guint i = 0; i < checks->len; i++) {
        const Check *check = checks->pdata[i];

        g_variant_dict_init(&dict, NULL);
        g_variant_dict_insert(&dict, "name", "s", check->name);
        g_variant_dict_insert(&dict, "state", "s", states[check->state]);
        g_variant_dict_insert(&dict, "found", "s", check->found ? check->found : "");
        g_variant_dict_insert(&dict, "meaning", "s", check->meaning ? check->meaning : "");
        g_variant_dict_insert(&dict, "advice", "s", check->advice ? check->advice : "");
        g_variant_builder_add_value(&list, g_variant_dict_end(&dict));
    }
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert_value(&dict, "checks", g_variant_builder_end(&list));
    return g_variant_dict_end(&dict);
}

static GVariant *host(Call *call, GError **error)
{
    return guests_host(call->client->daemon->guests, call->client->caller, error);
}

/* One row of ListTemplates. */
static GVariant *template_row(Call *call, const char *const *folders, const char *name)
{
    Guests *guests = call->client->daemon->guests;
    g_autoptr(GError) error = NULL;
    g_autoptr(Template) template = template_load(folders, name, &error);
    g_autoptr(Image) image = image_store_find(guests_store(guests), name, NULL, NULL);
    const char *description = template ? settings_get(template->settings, "template", "description") : NULL;
    GVariantDict dict;

    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "name", "s", name);
    g_variant_dict_insert(&dict, "description", "s", description ? description : "");
    g_variant_dict_insert(&dict, "error", "s", error ? error->message : "");
    g_variant_dict_insert(&dict, "revision", "s", image ? image->revision : "");
    g_variant_dict_insert(&dict, "size", "t", image ? image->disk_bytes : (guint64)0);
    g_variant_dict_insert(&dict, "guests", "u", guests_count_on_template(guests, call->client->caller, name));
    return g_variant_dict_end(&dict);
}

static GVariant *list_templates(Call *call, GError **error G_GNUC_UNUSED)
{
    g_auto(GStrv) folders = template_folders();
    g_auto(GStrv) names = template_list((const char *const *)folders);
    GVariantBuilder list = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));
    GVariantDict dict;

    for (char **name = names; *name; name++)
        g_variant_builder_add_value(&list, template_row(call, (const char *const *)folders, *name));
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert_value(&dict, "templates", g_variant_builder_end(&list));
    return g_variant_dict_end(&dict);
}

static GVariant *settings_variant(const Settings *settings)
{
    GVariantBuilder list = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    for (guint i = 0; i < settings->items->len; i++) {
        const Setting *setting = settings->items->pdata[i];
        GVariantDict dict;

        g_variant_dict_init(&dict, NULL);
        g_variant_dict_insert(&dict, "group", "s", setting->group);
        g_variant_dict_insert(&dict, "key", "s", setting->key);
        g_variant_dict_insert(&dict, "value", "s", setting->value);
        g_variant_dict_insert(&dict, "origin", "s", setting->origin);
        g_variant_builder_add_value(&list, g_variant_dict_end(&dict));
    }
    return g_variant_builder_end(&list);
}

static GVariant *images_variant(ImageStore *store, const char *name)
{
    g_autoptr(GPtrArray) images = image_store_list(store);
    GVariantBuilder list = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

    for (guint i = 0; i < images->len; i++) {
        const Image *image = images->pdata[i];
        GVariantDict dict;

        if (strcmp(image->template_name, name) != 0)
            continue;
        g_variant_dict_init(&dict, NULL);
        g_variant_dict_insert(&dict, "revision", "s", image->revision);
        g_variant_dict_insert(&dict, "digest", "s", image->digest);
        g_variant_dict_insert(&dict, "size", "t", image->disk_bytes);
        g_variant_dict_insert(&dict, "folder", "s", image->folder);
        g_variant_builder_add_value(&list, g_variant_dict_end(&dict));
    }
    return g_variant_builder_end(&list);
}

static GVariant *show_template(Call *call, GError **error)
{
    const char *name = request_string(call->request, "template");
    ImageStore *store = guests_store(call->client->daemon->guests);
    g_auto(GStrv) folders = template_folders();
    g_autoptr(Template) template = NULL;
    GVariantDict dict;

    if (!name_check(name, "template name", error) || !(template = template_load((const char *const *)folders, name, error)))
        return NULL;

    g_autoptr(Image) image = image_store_find(store, name, NULL, NULL);
    g_autoptr(Spec) spec = NULL;
    g_autoptr(Settings) none = settings_new(template_keys);

    /* What a guest would get: the same merge that create makes. */
    spec = spec_new("x", name, template->settings, image ? image->settings : NULL, none, error);
    if (!spec) {
        g_prefix_error(error, "template '%s': ", name);
        return NULL;
    }
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "name", "s", name);
    g_variant_dict_insert(&dict, "path", "s", template->path);
    g_variant_dict_insert_value(&dict, "settings", settings_variant(spec->settings));
    g_variant_dict_insert_value(&dict, "images", images_variant(store, name));
    return g_variant_dict_end(&dict);
}

static void report_build(const char *text, double fraction, gpointer data)
{
    job_progress(data, text, fraction);
}

static GVariant *build_template(Call *call, GError **error)
{
    const char *name = request_string(call->request, "template");
    Daemon *daemon = call->client->daemon;
    g_auto(GStrv) folders = template_folders();
    g_autoptr(Template) template = NULL;
    g_autoptr(Image) image = NULL;
    GVariantDict dict;

    if (!name_check(name, "template name", error) || !(template = template_load((const char *const *)folders, name, error)))
        return NULL;
    image = image_build(guests_store(daemon->guests), template, daemon->config->agent_path, report_build, call->job,
                        job_cancellable(call->job), error);
    if (!image)
        return NULL;
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "revision", "s", image->revision);
    g_variant_dict_insert(&dict, "digest", "s", image->digest);
    return g_variant_dict_end(&dict);
}

static GVariant *remove_template(Call *call, GError **error)
{
    Guests *guests = call->client->daemon->guests;
    const char *name = request_string(call->request, "template");

    /* Only with the table complete is it known who stands on an image. */
    if (!name_check(name, "template name", error) || !guests_wait_ready(guests, READY_TIMEOUT_MS, error) ||
        !image_store_remove(guests_store(guests), name, request_string(call->request, "revision"), guests_using_image, guests,
                            error))
        return NULL;
    return empty();
}

/* The reply of a guest that has just been started. */
static GVariant *started(Call *call, const char *name, GError **error)
{
    Daemon *daemon = call->client->daemon;
    g_autoptr(GVariant) shown = guests_show_run(daemon->guests, call->client->caller, name, error);
    GVariantDict dict;
    static const struct {
        const char *from, *to;
    } keys[] = {{"uuid", "uuid"}, {"address", "address"}, {"placed", "cpus"}, {"accel", "accel"}, {"notes", "notes"}};

    if (!shown)
        return NULL;
    g_variant_ref_sink(shown);
    g_variant_dict_init(&dict, NULL);
    for (gsize i = 0; i < G_N_ELEMENTS(keys); i++) {
        g_autoptr(GVariant) value = g_variant_lookup_value(shown, keys[i].from, NULL);

        g_variant_dict_insert_value(&dict, keys[i].to, value);
    }
    return g_variant_dict_end(&dict);
}

static Settings *request_settings(GVariant *request, GError **error)
{
    g_autoptr(Settings) settings = settings_new(template_keys);
    g_autoptr(GVariant) pairs = g_variant_lookup_value(request, "settings", G_VARIANT_TYPE("a{ss}"));

    if (pairs && g_variant_n_children(pairs) > SETTINGS_MAX) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "settings: wanted at most %d, found %zu", SETTINGS_MAX, g_variant_n_children(pairs));
        return NULL;
    }
    for (gsize i = 0; pairs && i < g_variant_n_children(pairs); i++) {
        const char *name = NULL, *value = NULL;

        g_variant_get_child(pairs, i, "{&s&s}", &name, &value);
        if (!settings_set_name(settings, name, value, "request", error))
            return NULL;
    }
    return g_steal_pointer(&settings);
}

/* A guest that was asked for running and cannot be started is not wanted off; one that booted stays, for a look at why it fails. BUSY:
 * somebody else has taken it up by now, or hvmd is about to end. */
static gboolean start_created(Call *call, const char *name, GError **error)
{
    Guests *guests = call->client->daemon->guests;
    const Caller *caller = call->client->caller;
    g_autoptr(GError) local = NULL;

    if (guests_start(guests, caller, name, report, call->job, error))
        return guests_wait_booted(guests, caller, name, report, call->job, error);
    if (!g_error_matches(*error, HVM_ERROR, HVM_ERROR_BUSY) && !guests_destroy(guests, caller, name, &local)) {
        char *whole = g_strdup_printf("%s; it stays, off: %s", (*error)->message, local->message);

        g_free((*error)->message);
        (*error)->message = whole;
    }
    return FALSE;
}

static GVariant *create(Call *call, GError **error)
{
    Guests *guests = call->client->daemon->guests;
    const Caller *caller = call->client->caller;
    const char *name = request_string(call->request, "name");
    g_autoptr(Settings) settings = request_settings(call->request, error);

    if (!settings || !guests_wait_ready(guests, READY_TIMEOUT_MS, error) ||
        !guests_create(guests, caller, name, request_string(call->request, "template"), settings, report, call->job, error))
        return NULL;
    if (request_bool(call->request, "start", FALSE) && !start_created(call, name, error))
        return NULL;
    return started(call, name, error);
}

static GVariant *run(Call *call, GError **error)
{
    Guests *guests = call->client->daemon->guests;
    const Caller *caller = call->client->caller;
    g_autoptr(Settings) settings = request_settings(call->request, error);
    g_autofree char *name = NULL;
    g_autofree char *uuid = NULL;
    g_autoptr(GVariant) reply = NULL;
    GVariantDict dict;

    if (!settings || !guests_wait_ready(guests, READY_TIMEOUT_MS, error) ||
        !guests_run_ephemeral(guests, caller, request_string(call->request, "template"), settings, job_cancellable(call->job),
                              &name, &uuid, report, call->job, error))
        return NULL;
    if (!client_own_guest(call->client, uuid)) {
        client_end_guest(call->client, uuid);
        g_set_error(error, HVM_ERROR, HVM_ERROR_BUSY, "the connection closed while guest '%s' was booting", name);
        return NULL;
    }
    if (!(reply = started(call, name, error)))
        return NULL;
    g_variant_ref_sink(reply);
    g_variant_dict_init(&dict, reply);
    g_variant_dict_insert(&dict, "name", "s", name);
    return g_variant_dict_end(&dict);
}

static GVariant *start(Call *call, GError **error)
{
    Guests *guests = call->client->daemon->guests;
    const char *name = request_string(call->request, "name");

    if (!guests_wait_ready(guests, READY_TIMEOUT_MS, error) ||
        !guests_start(guests, call->client->caller, name, report, call->job, error) ||
        (request_bool(call->request, "wait", TRUE) &&
         !guests_wait_booted(guests, call->client->caller, name, report, call->job, error)))
        return NULL;
    return started(call, name, error);
}

static GVariant *stop(Call *call, GError **error)
{
    Guests *guests = call->client->daemon->guests;
    unsigned timeout_s = request_bool(call->request, "hard", FALSE) ? 0 : request_uint(call->request, "timeout", STOP_TIMEOUT_S);
    const char *how = NULL;
    GVariantDict dict;

    if (timeout_s > STOP_TIMEOUT_MAX_S) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "Stop: timeout: wanted at most %d seconds, found %u", STOP_TIMEOUT_MAX_S, timeout_s);
        return NULL;
    }
    if (!guests_wait_ready(guests, READY_TIMEOUT_MS, error) ||
        !guests_stop(guests, call->client->caller, request_string(call->request, "name"), timeout_s, &how, report, call->job, error))
        return NULL;
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "how", "s", how);
    return g_variant_dict_end(&dict);
}

static GVariant *destroy(Call *call, GError **error)
{
    Guests *guests = call->client->daemon->guests;

    if (!guests_wait_ready(guests, READY_TIMEOUT_MS, error) ||
        !guests_destroy(guests, call->client->caller, request_string(call->request, "name"), error))
        return NULL;
    return empty();
}

static GVariant *list(Call *call, GError **error)
{
    GVariant *guests = guests_list(call->client->daemon->guests, call->client->caller, error);
    GVariantDict dict;

    if (!guests)
        return NULL;
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert_value(&dict, "guests", guests);
    return g_variant_dict_end(&dict);
}

static GVariant *show(Call *call, GError **error)
{
    return guests_show(call->client->daemon->guests, call->client->caller, request_string(call->request, "name"), error);
}

static GVariant *console(Call *call, GError **error)
{
    int fd = guests_console(call->client->daemon->guests, call->client->caller, request_string(call->request, "name"),
                            !request_bool(call->request, "read-only", FALSE), error);
    GVariantDict dict;

    if (fd < 0)
        return NULL;
    call->fds = g_unix_fd_list_new_from_array(&fd, 1);
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert(&dict, "console", "h", 0);
    return g_variant_dict_end(&dict);
}

static GVariant *verify(Call *call, GError **error)
{
    g_autoptr(GPtrArray) findings = guests_verify(call->client->daemon->guests, call->client->caller,
                                                  request_string(call->request, "name"), error);
    GVariantBuilder list = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));
    guint32 differences = 0;
    GVariantDict dict;

    for (guint i = 0; findings && i < findings->len; i++) {
        const Finding *finding = findings->pdata[i];

        g_variant_dict_init(&dict, NULL);
        g_variant_dict_insert(&dict, "what", "s", finding->what);
        g_variant_dict_insert(&dict, "promised", "s", finding->promised);
        g_variant_dict_insert(&dict, "found", "s", finding->found);
        g_variant_dict_insert(&dict, "state", "s", finding->kept ? "ok" : "differs");
        g_variant_builder_add_value(&list, g_variant_dict_end(&dict));
        differences += !finding->kept;
    }
    if (!findings) {
        g_variant_builder_clear(&list);
        return NULL;
    }
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert_value(&dict, "findings", g_variant_builder_end(&list));
    g_variant_dict_insert(&dict, "differences", "u", differences);
    return g_variant_dict_end(&dict);
}

static GVariant *logs(Call *call, GError **error)
{
    g_autoptr(GBytes) text = guests_logs(call->client->daemon->guests, call->client->caller, request_string(call->request, "name"),
                                         request_uint(call->request, "lines", 0), error);
    GVariantDict dict;

    if (!text)
        return NULL;
    g_variant_dict_init(&dict, NULL);
    g_variant_dict_insert_value(&dict, "text", g_variant_new_from_bytes(G_VARIANT_TYPE_BYTESTRING, text, TRUE));
    return g_variant_dict_end(&dict);
}

const Method methods[] = {
    {"Hello", "", METHOD_MAIN, hello},
    {"Doctor", "", METHOD_WORKER, doctor},
    {"Host", "", METHOD_WORKER, host},
    {"ListTemplates", "", METHOD_WORKER, list_templates},
    {"ShowTemplate", "template:s", METHOD_WORKER, show_template},
    {"BuildTemplate", "template:s", METHOD_JOB, build_template},
    {"RemoveTemplate", "template:s revision?:s", METHOD_WORKER, remove_template},
    {"Create", "name:s template:s settings?:a{ss} start?:b", METHOD_JOB, create},
    {"Run", "template:s settings?:a{ss}", METHOD_JOB, run},
    {"Start", "name:s wait?:b", METHOD_JOB, start},
    {"Stop", "name:s timeout?:u hard?:b", METHOD_JOB, stop},
    {"Destroy", "name:s", METHOD_JOB, destroy},
    {"List", "", METHOD_MAIN, list},
    {"Show", "name:s", METHOD_WORKER, show},
    {"Verify", "name:s", METHOD_WORKER, verify},
    {"Logs", "name:s lines?:u", METHOD_WORKER, logs},
    {"Exec", "name:s argv:aay environment?:aay directory?:ay directory-required?:b user?:s pty?:b rows?:q columns?:q",
     METHOD_WORKER, exec_start},
    {"Console", "name:s read-only?:b", METHOD_WORKER, console},
    {"ExecWait", "exec:u", METHOD_MAIN, exec_wait},
    {"ExecControl", "exec:u signal?:i rows?:q columns?:q", METHOD_MAIN, exec_control},
    {"Subscribe", "", METHOD_MAIN, events_subscribe},
    {"WaitJob", "job:u", METHOD_MAIN, job_wait},
    {"CancelJob", "job:u", METHOD_MAIN, job_cancel},
    {0},
};
