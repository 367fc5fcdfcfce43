#include "host_internal.h"

#include "hvm_error.h"
#include "units.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYNTHETIC_PREFIX "synthetic:"

enum {
    FILE_MAX_BYTES = 64 << 20, /* escaped anew at most six times that: still an int */
    SYNTHETIC_MAX = 4096, /* characters */
};

void host_refuse(GError **error, const char *where, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *reason = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_autofree char *shown = hvm_escape(where, -1);
    g_autofree char *shown_reason = hvm_escape(reason, -1);

    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "%s: %s", shown, shown_reason);
}

/* ---- Reading ---- */

static char *read_fd(int fd, const char *path, gsize *ret_length, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *chunk = g_malloc(64 << 10);
    ssize_t count;

    while ((count = read(fd, chunk, 64 << 10)) > 0) {
        g_string_append_len(text, chunk, count);
        if (text->len > FILE_MAX_BYTES) {
            host_refuse(error, path,
                        "a file of more than 64 MiB is no host: wanted what 'hvm host capture' or lstopo writes");
            return NULL;
        }
    }
    if (count < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot read %s: %s", path, g_strerror(errno));
        return NULL;
    }
    *ret_length = text->len;
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static char *read_file(const char *path, gsize *ret_length, GError **error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* not to wait for the writer of a FIFO */
    struct stat status;
    char *text = NULL;

    if (fd < 0) {
        g_autofree char *shown = hvm_escape(path, -1);

        g_set_error(error, HVM_ERROR, errno == ENOENT || errno == ENOTDIR ? HVM_ERROR_NOT_FOUND : HVM_ERROR_HOST,
                    "cannot read host file %s: %s", shown, g_strerror(errno));
        return NULL;
    }
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        host_refuse(error, path, "not a regular file: wanted what 'hvm host capture' or lstopo writes");
    else
        text = read_fd(fd, path, ret_length, error);
    close(fd);
    return text;
}

/* ---- Loading ---- */

static gboolean check_loaded(const Host *host, GError **error)
{
    int pus = hwloc_get_nbobjs_by_type(host->topology, HWLOC_OBJ_PU);

    if (pus <= 0 || pus > HOST_PU_MAX) {
        host_refuse(error, host->description, "wanted 1 to %d processing units, found %d", HOST_PU_MAX, pus);
        return FALSE;
    }
    return TRUE;
}

/* CPU list of the capture's root, or nothing. */
static gboolean read_isolated(Host *host, GError **error)
{
    const char *text = hwloc_obj_get_info_by_name(hwloc_get_root_obj(host->topology), INFO_ISOLATED);
    hwloc_bitmap_t isolated;

    if (!text || !*text)
        return TRUE;
    isolated = host_parse_list(text, error);
    if (!isolated) {
        g_prefix_error(error, "%s: " INFO_ISOLATED ": ", host->description);
        return FALSE;
    }
    hwloc_bitmap_copy(host->isolated, isolated);
    hwloc_bitmap_free(isolated);
    return TRUE;
}

static Host *read_host(HostOrigin origin, const char *where, hwloc_topology_t topology, GError **error)
{
    const char *format = hwloc_obj_get_info_by_name(hwloc_get_root_obj(topology), INFO_FORMAT);
    g_autofree char *shown = hvm_escape(where, -1);
    g_autoptr(Host) host = host_new_around(origin == HOST_XML && format ? HOST_CAPTURED : origin, shown, topology);

    if (format && strcmp(format, CAPTURE_FORMAT) != 0) {
        g_autofree char *found = hvm_escape(format, (gssize)MIN(strlen(format), 40));

        host_refuse(error, where, "captured in format '%s', which this hvm does not know: wanted " CAPTURE_FORMAT,
                    found);
        return NULL;
    }
    if (hwloc_topology_refresh(topology) < 0) {
        host_refuse(error, where, "hwloc cannot use its distances: %s", g_strerror(errno));
        return NULL;
    }
    if (!check_loaded(host, error) || !host_read_nodes(host, error) || !read_isolated(host, error))
        return NULL;
    if (!format)
        host_read_devices(host);
    if (!host_read_captured_devices(host, error))
        return NULL;
    return host_finish(host, error) ? g_steal_pointer(&host) : NULL;
}

Host *host_new_from_xml(const char *text, gsize length, const char *path, GError **error)
{
    g_autofree char *clean = host_clean_xml(text, length, path, error);
    hwloc_topology_t topology;

    if (!clean || !(topology = host_topology_new(error)))
        return NULL;
    /* hwloc counts the final NUL */
    if (hwloc_topology_set_xmlbuffer(topology, clean, (int)strlen(clean) + 1) < 0 ||
        hwloc_topology_load(topology) < 0) {
        hwloc_topology_destroy(topology);
        host_refuse(error, path,
                    "XML, but no topology that hwloc can load: wanted what 'hvm host capture' or lstopo writes");
        return NULL;
    }
    return read_host(HOST_XML, path, topology, error);
}

static Host *load_file(const char *path, GError **error)
{
    gsize length;
    g_autofree char *text = read_file(path, &length, error);

    return text ? host_new_from_xml(text, length, path, error) : NULL;
}

/* hwloc aborts on a level of memory-side caches. It tells types by their first letters, in any case; no other has these. */
static gboolean names_memory_cache(const char *type)
{
    return g_ascii_strncasecmp(type, "mem", 3) == 0;
}

/* Reads the levels of a synthetic description ("package:2 core:8 2") as hwloc will: a level is a type, of which all up to the
 * next ':' is passed over, and a count; what stands in brackets between them ends with the first closing one. Refuses more
 * processing units than any machine has, and what hwloc would abort on; what it refuses itself is left to it. */
static gboolean check_levels(const char *where, const char *text, GError **error)
{
    guint64 pus = 1;

    for (const char *at = text; at && *at;) {
        if (g_ascii_isspace(*at)) {
            at++;
        } else if (names_memory_cache(at + (*at == '['))) {
            host_refuse(error, where, "hwloc has no memory-side caches in synthetic hosts");
            return FALSE;
        } else if (*at == '(' || *at == '[') {
            at = strchr(at, *at == '(' ? ')' : ']');
            at = at ? at + 1 : NULL;
        } else if (!g_ascii_isdigit(*at) && *at != ':') {
            at = strchr(at, ':');
        } else {
            char *end;
            guint64 count = g_ascii_strtoull(at + (*at == ':'), &end, 0);

            if (count > HOST_PU_MAX || (pus *= MAX(count, 1)) > HOST_PU_MAX) {
                host_refuse(error, where, "wanted at most %d processing units", HOST_PU_MAX);
                return FALSE;
            }
            at = MAX(at + 1, end);
        }
    }
    return TRUE;
}

static Host *load_synthetic(const char *where, GError **error)
{
    const char *text = where + strlen(SYNTHETIC_PREFIX);
    hwloc_topology_t topology;

    if (strlen(text) > SYNTHETIC_MAX) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "synthetic host of %zu characters: wanted at most %d",
                    strlen(text), SYNTHETIC_MAX);
        return NULL;
    }
    if (!check_levels(where, text, error))
        return NULL;
    if (!(topology = host_topology_new(error)))
        return NULL;
    if (hwloc_topology_set_synthetic(topology, text) < 0 || hwloc_topology_load(topology) < 0) {
        hwloc_topology_destroy(topology);
        host_refuse(error, where,
                    "not hwloc's synthetic syntax: wanted 'synthetic:package:2 numa:1(memory=64GB) core:8 pu:2'");
        return NULL;
    }
    return read_host(HOST_SYNTHETIC, where, topology, error);
}

Host *host_new_from(const char *where, GError **error)
{
    return g_str_has_prefix(where, SYNTHETIC_PREFIX) ? load_synthetic(where, error) : load_file(where, error);
}

/* ---- Writing ---- */

char *host_to_xml(const Host *host, GError **error)
{
    g_autofree char *isolated = host_format_list(host->isolated);
    hwloc_topology_t copy = NULL;
    char *xml = NULL, *text = NULL;
    int length = 0;

    if (hwloc_topology_dup(&copy, host->topology) < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot copy the topology: %s", g_strerror(errno));
        return NULL;
    }
    host_add_info(hwloc_get_root_obj(copy), INFO_FORMAT, CAPTURE_FORMAT);
    host_add_info(hwloc_get_root_obj(copy), INFO_ISOLATED, isolated);
    host_write_nodes(host, copy);
    host_write_devices(host, copy);
    if (hwloc_topology_export_xmlbuffer(copy, &xml, &length, 0) < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "hwloc cannot write the topology: %s", g_strerror(errno));
    } else {
        text = g_strndup(xml, (gsize)length);
        hwloc_free_xmlbuffer(copy, xml);
    }
    hwloc_topology_destroy(copy);
    return text;
}

gboolean host_capture(const Host *host, const char *path, GError **error)
{
    g_autofree char *text = host_to_xml(host, error);

    return text && g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0644, error);
}
