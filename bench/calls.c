/*
 * calls.c: single calls to hvmd and to libvirt over one connection each, timed, for bench/run: what a process's start
 * costs is not in them. libvirt's is the socket's default, qemu:///system.
 *
 * Reads lines, and answers each with one line: microseconds, or "error TEXT" (and then ends):
 *   create NAME TEMPLATE   hvmd's Create
 *   call METHOD            a method of hvmd's that takes no arguments: List, Host, Hello
 *   define FROM NAME       libvirt's define of FROM's XML under another name and UUID, without hvm's metadata, which would
 *                          make it hvm's; it is undefined again, untimed
 *   domains                libvirt's list of all domains, with the state of each
 *   exec NAME              `true` by hvmd: Exec, its two outputs to their ends, ExecWait
 *   guest-exec NAME        `true` by qemu-guest-agent: guest-exec, then guest-exec-status until it has ended
 */
#include "client.h"
#include "virt.h"

#include <json-glib/json-glib.h>
#include <libvirt/libvirt-qemu.h>
#include <libxml/xpath.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { AGENT_TIMEOUT_S = 30 };

typedef struct {
    Client *client;
    virConnectPtr connect;
    char *from; /* whose XML `xml` is, or NULL */
    char *xml;
} Calls;

static gboolean libvirt_failed(GError **error, const char *what)
{
    return virt_error(error, "%s", what);
}

static gboolean call_hvmd(Calls *calls, const char *method, GVariant *request, gint64 *ret_us, GError **error)
{
    g_autoptr(GVariant) reply = NULL;
    gint64 begin_us = g_get_monotonic_time();

    if (!client_call(calls->client, method, request, NULL, &reply, error))
        return FALSE;
    *ret_us = g_get_monotonic_time() - begin_us;
    return TRUE;
}

static gboolean create(Calls *calls, char **words, gint64 *ret_us, GError **error)
{
    GVariantDict request;
    GVariantBuilder settings = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("a{ss}"));

    g_variant_builder_add(&settings, "{ss}", "cpu.count", "1");
    g_variant_builder_add(&settings, "{ss}", "memory.size", "512M");
    g_variant_dict_init(&request, NULL);
    g_variant_dict_insert(&request, "name", "s", words[1]);
    g_variant_dict_insert(&request, "template", "s", words[2]);
    g_variant_dict_insert_value(&request, "settings", g_variant_builder_end(&settings));
    return call_hvmd(calls, "Create", g_variant_dict_end(&request), ret_us, error);
}

static gboolean call(Calls *calls, char **words, gint64 *ret_us, GError **error)
{
    return call_hvmd(calls, words[1], NULL, ret_us, error);
}

/* The XML of `name`, without /domain/uuid and /domain/metadata, and called @name@. */
static char *read_xml(Calls *calls, const char *name, GError **error)
{
    static const char *const unwanted[] = {"/domain/uuid", "/domain/metadata"};
    g_autoptr(virDomain) domain = virDomainLookupByName(calls->connect, name);
    char *text = domain ? virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE) : NULL;
    xmlDocPtr document = text ? xmlReadDoc(BAD_CAST text, NULL, NULL, XML_PARSE_NONET) : NULL;
    xmlXPathContextPtr context = document ? xmlXPathNewContext(document) : NULL;
    xmlChar *dump = NULL;
    int length = 0;

    free(text);
    if (!context) {
        libvirt_failed(error, "read the domain");
        xmlFreeDoc(document);
        return NULL;
    }
    for (gsize i = 0; i < G_N_ELEMENTS(unwanted); i++) {
        xmlXPathObjectPtr found = xmlXPathEval(BAD_CAST unwanted[i], context);

        for (int n = 0; found && found->nodesetval && n < found->nodesetval->nodeNr; n++) {
            xmlUnlinkNode(found->nodesetval->nodeTab[n]);
            xmlFreeNode(found->nodesetval->nodeTab[n]);
            found->nodesetval->nodeTab[n] = NULL;
        }
        xmlXPathFreeObject(found);
    }
    xmlXPathObjectPtr found = xmlXPathEval(BAD_CAST "/domain/name", context);

    if (found && found->nodesetval && found->nodesetval->nodeNr == 1)
        xmlNodeSetContent(found->nodesetval->nodeTab[0], BAD_CAST "@name@");
    xmlXPathFreeObject(found);
    xmlXPathFreeContext(context);
    xmlDocDumpMemory(document, &dump, &length);
    xmlFreeDoc(document);

    char *copy = g_strndup((char *)dump, (gsize)length);

    xmlFree(dump);
    return copy;
}

static gboolean define(Calls *calls, char **words, gint64 *ret_us, GError **error)
{
    if (g_strcmp0(calls->from, words[1]) != 0) {
        char *xml = read_xml(calls, words[1], error);

        if (!xml)
            return FALSE;
        g_free(calls->xml);
        calls->xml = xml;
        g_free(calls->from);
        calls->from = g_strdup(words[1]);
    }

    g_auto(GStrv) parts = g_strsplit(calls->xml, "@name@", 2);
    g_autofree char *xml = g_strjoinv(words[2], parts);
    gint64 begin_us = g_get_monotonic_time();
    g_autoptr(virDomain) domain = virDomainDefineXML(calls->connect, xml);

    *ret_us = g_get_monotonic_time() - begin_us;
    return (domain && virDomainUndefine(domain) == 0) || libvirt_failed(error, "define");
}

static gboolean domains(Calls *calls, char **words G_GNUC_UNUSED, gint64 *ret_us, GError **error)
{
    gint64 begin_us = g_get_monotonic_time();
    virDomainPtr *all = NULL;
    int count = virConnectListAllDomains(calls->connect, &all, 0);
    gboolean good = count >= 0;

    for (int i = 0; i < count; i++) {
        int state = 0;

        good = good && virDomainGetState(all[i], &state, NULL, 0) == 0;
        virDomainFree(all[i]);
    }
    free(all);
    *ret_us = g_get_monotonic_time() - begin_us;
    return good || libvirt_failed(error, "list all domains");
}

/* Reads a command's output to its end, and closes it. */
static void drain(int fd)
{
    char bytes[256];

    while (fd >= 0 && read(fd, bytes, sizeof bytes) > 0)
        continue;
    if (fd >= 0)
        close(fd);
}

/* What `hvm exec` asks of hvmd. */
static gboolean exec_true(Calls *calls, char **words, gint64 *ret_us, GError **error)
{
    const char *const argv[] = {"true", NULL};
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GVariant) ended = NULL;
    g_autoptr(GUnixFDList) fds = NULL;
    GVariantDict request, wait;
    const char *end = "";
    guint32 number = 0;
    gint32 value = -1;
    gint64 begin_us = g_get_monotonic_time();

    g_variant_dict_init(&request, NULL);
    g_variant_dict_insert(&request, "name", "s", words[1]);
    g_variant_dict_insert_value(&request, "argv", g_variant_new_bytestring_array(argv, -1));
    if (!client_call_fds(calls->client, "Exec", g_variant_dict_end(&request), &reply, &fds, error))
        return FALSE;

    int input = client_take_fd(reply, fds, "stdin", error);
    int output = input >= 0 ? client_take_fd(reply, fds, "stdout", error) : -1;
    int errors = output >= 0 ? client_take_fd(reply, fds, "stderr", error) : -1;

    if (input >= 0)
        close(input);
    drain(output);
    drain(errors);
    if (errors < 0)
        return FALSE;
    g_variant_lookup(reply, "exec", "u", &number);
    g_variant_dict_init(&wait, NULL);
    g_variant_dict_insert(&wait, "exec", "u", number);
    if (!client_call(calls->client, "ExecWait", g_variant_dict_end(&wait), NULL, &ended, error))
        return FALSE;
    *ret_us = g_get_monotonic_time() - begin_us;
    g_variant_lookup(ended, "end", "&s", &end);
    g_variant_lookup(ended, "value", "i", &value);
    if (strcmp(end, "exited") == 0 && value == 0)
        return TRUE;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "true in '%s': wanted exited with 0, found %s with %d", words[1], end, value);
    return FALSE;
}

/* One command of the guest agent; a member of its reply's "return", or -1. */
static gint64 ask_agent(virDomainPtr domain, const char *command, const char *member, GError **error)
{
    char *text = virDomainQemuAgentCommand(domain, command, AGENT_TIMEOUT_S, 0);
    g_autoptr(JsonParser) parser = json_parser_new();
    gint64 value = -1;

    if (!text) {
        libvirt_failed(error, "guest agent");
    } else if (json_parser_load_from_data(parser, text, -1, error)) {
        JsonObject *reply = json_object_get_object_member(json_node_get_object(json_parser_get_root(parser)), "return");

        value = json_object_get_int_member_with_default(reply, member, 0);
    }
    free(text);
    return value;
}

static gboolean guest_exec(Calls *calls, char **words, gint64 *ret_us, GError **error)
{
    g_autoptr(virDomain) domain = virDomainLookupByName(calls->connect, words[1]);
    gint64 begin_us = g_get_monotonic_time();
    gint64 pid = domain ? ask_agent(domain, "{\"execute\":\"guest-exec\",\"arguments\":{\"path\":\"/bin/true\","
                                            "\"capture-output\":true}}", "pid", error) : -1;
    g_autofree char *status = g_strdup_printf("{\"execute\":\"guest-exec-status\",\"arguments\":{\"pid\":%" G_GINT64_FORMAT "}}",
                                              pid);
    gint64 exited = 0;

    if (!domain)
        return libvirt_failed(error, "look the domain up");
    while (pid >= 0 && exited == 0)
        exited = ask_agent(domain, status, "exited", error);
    *ret_us = g_get_monotonic_time() - begin_us;
    return pid >= 0 && exited > 0;
}

static gboolean answer(Calls *calls, char **words, GError **error)
{
    static const struct {
        const char *name;
        guint arguments;
        gboolean (*call)(Calls *calls, char **words, gint64 *ret_us, GError **error);
    } table[] = {{"create", 2, create}, {"call", 1, call}, {"define", 2, define}, {"domains", 0, domains},
                 {"exec", 1, exec_true}, {"guest-exec", 1, guest_exec}};
    gint64 time_us = 0;

    for (gsize i = 0; i < G_N_ELEMENTS(table); i++) {
        if (g_strcmp0(words[0], table[i].name) != 0 || g_strv_length(words) != table[i].arguments + 1)
            continue;
        if (!table[i].call(calls, words, &time_us, error))
            return FALSE;
        printf("%" G_GINT64_FORMAT "\n", time_us);
        return TRUE;
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "unknown line");
    return FALSE;
}

int main(void)
{
    g_autoptr(GError) error = NULL;
    Calls calls = {.client = client_open(client_default_socket(), &error)};
    char *line = NULL;
    size_t room = 0;

    if (calls.client && !(calls.connect = virConnectOpen("qemu:///system")))
        libvirt_failed(&error, "connect");
    while (!error && getline(&line, &room, stdin) > 0) {
        g_auto(GStrv) words = g_strsplit(g_strstrip(line), " ", -1);

        answer(&calls, words, &error);
        if (!error)
            fflush(stdout);
    }
    if (error)
        printf("error %s\n", error->message);
    free(line);
    g_free(calls.from);
    g_free(calls.xml);
    if (calls.connect)
        virConnectClose(calls.connect);
    client_free(calls.client);
    return error != NULL;
}
