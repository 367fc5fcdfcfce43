/* placement_json.c: a Placement as one line of JSON, and strictly back: what is read may have been edited or damaged. */
#include "solver.h"

#include "hvm_error.h"
#include "units.h"

#include <json-glib/json-glib.h>
#include <string.h>

enum {
    TEXT_MAX = 4 << 20,   /* bytes: 4,096 vCPUs take 0.5 MB */
    DEPTH_MAX = 4,
    STRING_MAX = 4096,
    VCPUS_MAX = 4096,
    CELLS_MAX = 1024,
    DEVICES_MAX = 1024,
    TEXTS_MAX = 256,
    PU_MAX = 65535,
};

/* ---- Writing ---- */

static const char *const cache_names[] = {[CACHE_PASSTHROUGH] = "passthrough", [CACHE_EMULATE] = "emulate", [CACHE_NONE] = "none"};

static void put_uint(JsonBuilder *builder, const char *name, guint64 value)
{
    json_builder_set_member_name(builder, name);
    json_builder_add_int_value(builder, (gint64)value);
}

static void put_string(JsonBuilder *builder, const char *name, const char *value)
{
    json_builder_set_member_name(builder, name);
    json_builder_add_string_value(builder, value);
}

static void put_list(JsonBuilder *builder, const char *name, hwloc_const_bitmap_t bitmap)
{
    g_autofree char *list = host_format_list(bitmap);

    put_string(builder, name, list);
}

static void put_texts(JsonBuilder *builder, const char *name, const GPtrArray *texts)
{
    json_builder_set_member_name(builder, name);
    json_builder_begin_array(builder);
    for (guint i = 0; i < texts->len; i++)
        json_builder_add_string_value(builder, g_ptr_array_index(texts, i));
    json_builder_end_array(builder);
}

static void put_vcpus(JsonBuilder *builder, const Placement *placement)
{
    json_builder_set_member_name(builder, "vcpus");
    json_builder_begin_array(builder);
    for (guint i = 0; i < placement->vcpus->len; i++) {
        const PlacementVcpu *vcpu = &g_array_index(placement->vcpus, PlacementVcpu, i);

        json_builder_begin_object(builder);
        put_uint(builder, "pu", vcpu->pu);
        put_uint(builder, "core", vcpu->core);
        put_uint(builder, "cell", vcpu->cell);
        put_uint(builder, "socket", vcpu->socket);
        put_uint(builder, "die", vcpu->die);
        put_uint(builder, "guest_core", vcpu->guest_core);
        put_uint(builder, "thread", vcpu->thread);
        json_builder_end_object(builder);
    }
    json_builder_end_array(builder);
}

static void put_cells(JsonBuilder *builder, const Placement *placement)
{
    json_builder_set_member_name(builder, "cells");
    json_builder_begin_array(builder);
    for (guint i = 0; i < placement->cells->len; i++) {
        const PlacementCell *cell = &g_array_index(placement->cells, PlacementCell, i);

        json_builder_begin_object(builder);
        put_uint(builder, "node", cell->node);
        put_uint(builder, "memory_bytes", cell->memory_bytes);
        put_uint(builder, "page_bytes", cell->page_bytes);
        put_uint(builder, "first_vcpu", cell->first_vcpu);
        put_uint(builder, "vcpus", cell->vcpus);
        json_builder_end_object(builder);
    }
    json_builder_end_array(builder);
    json_builder_set_member_name(builder, "distances");
    json_builder_begin_array(builder);
    for (guint i = 0; i < placement->distances->len; i++)
        json_builder_add_int_value(builder, g_array_index(placement->distances, guint8, i));
    json_builder_end_array(builder);
}

static void put_devices(JsonBuilder *builder, const Placement *placement)
{
    json_builder_set_member_name(builder, "devices");
    json_builder_begin_array(builder);
    for (guint i = 0; i < placement->devices->len; i++) {
        const PlacementDevice *device = g_ptr_array_index(placement->devices, i);

        json_builder_begin_object(builder);
        put_string(builder, "name", device->name);
        put_string(builder, "address", device->address);
        json_builder_set_member_name(builder, "cell");
        json_builder_add_int_value(builder, device->cell);
        json_builder_end_object(builder);
    }
    json_builder_end_array(builder);
}

char *placement_to_json(const Placement *placement)
{
    g_autoptr(JsonBuilder) builder = json_builder_new();
    g_autoptr(JsonGenerator) generator = json_generator_new();
    JsonNode *root;
    char *text;

    json_builder_begin_object(builder);
    put_vcpus(builder, placement);
    put_cells(builder, placement);
    put_devices(builder, placement);
    put_list(builder, "reserved", placement->reserved);
    put_list(builder, "emulator", placement->emulator);
    put_list(builder, "io_threads", placement->io_threads);
    json_builder_set_member_name(builder, "emulator_shares");
    json_builder_add_boolean_value(builder, placement->emulator_shares);
    put_uint(builder, "sockets", placement->sockets);
    put_uint(builder, "dies", placement->dies);
    put_uint(builder, "cores", placement->cores);
    put_uint(builder, "threads", placement->threads);
    put_string(builder, "cache", cache_names[placement->cache]);
    put_texts(builder, "notes", placement->notes);
    put_texts(builder, "reasons", placement->reasons);
    json_builder_end_object(builder);
    root = json_builder_get_root(builder);
    json_generator_set_root(generator, root);
    text = json_generator_to_data(generator, NULL);
    json_node_unref(root);
    return text;
}

/* ---- Reading ---- */

static gboolean bad(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static gboolean bad(GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "placement: %s", text);
    return FALSE;
}

/* Members of `object` are exactly `names` (NULL-terminated). */
static gboolean check_members(JsonObject *object, const char *const *names, const char *what, GError **error)
{
    g_autoptr(GList) members = json_object_get_members(object);

    for (guint i = 0; names[i]; i++)
        if (!json_object_has_member(object, names[i]))
            return bad(error, "%s: wanted a member '%s', found none", what, names[i]);
    for (GList *at = members; at; at = at->next) {
        if (g_strv_contains(names, at->data))
            continue;

        g_autofree char *name = hvm_escape(at->data, (gssize)MIN(strlen(at->data), 40));

        return bad(error, "%s: unknown member '%s'", what, name);
    }
    return TRUE;
}

static gboolean get_int(JsonNode *node, gint64 low, gint64 high, gint64 *ret_value, const char *what, GError **error)
{
    if (!JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_INT64)
        return bad(error, "%s: wanted a whole number, found something else", what);
    if (json_node_get_int(node) < low || json_node_get_int(node) > high)
        return bad(error, "%s: wanted %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT ", found %" G_GINT64_FORMAT, what, low, high,
                   json_node_get_int(node));
    *ret_value = json_node_get_int(node);
    return TRUE;
}

static gboolean get_uint(JsonObject *object, const char *name, unsigned low, unsigned high, unsigned *ret_value,
                         GError **error)
{
    gint64 value;

    if (!get_int(json_object_get_member(object, name), low, high, &value, name, error))
        return FALSE;
    *ret_value = (unsigned)value;
    return TRUE;
}

static gboolean get_string(JsonNode *node, const char *what, char **ret_text, GError **error)
{
    if (!JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_STRING)
        return bad(error, "%s: wanted a string, found something else", what);
    if (strlen(json_node_get_string(node)) > STRING_MAX)
        return bad(error, "%s: wanted at most %d bytes of text", what, STRING_MAX);
    *ret_text = g_strdup(json_node_get_string(node));
    return TRUE;
}

static JsonArray *get_array(JsonObject *object, const char *name, guint low, guint high, GError **error)
{
    JsonNode *node = json_object_get_member(object, name);

    if (!JSON_NODE_HOLDS_ARRAY(node)) {
        bad(error, "%s: wanted a list, found something else", name);
        return NULL;
    }

    guint length = json_array_get_length(json_node_get_array(node));

    if (length < low || length > high) {
        bad(error, "%s: wanted %u to %u of them, found %u", name, low, high, length);
        return NULL;
    }
    return json_node_get_array(node);
}

static JsonObject *get_row(JsonArray *array, guint i, const char *const *names, const char *what, GError **error)
{
    JsonNode *node = json_array_get_element(array, i);

    if (!JSON_NODE_HOLDS_OBJECT(node)) {
        bad(error, "%s: wanted objects, found something else", what);
        return NULL;
    }
    return check_members(json_node_get_object(node), names, what, error) ? json_node_get_object(node) : NULL;
}

static gboolean get_list(JsonObject *object, const char *name, hwloc_bitmap_t bitmap, GError **error)
{
    g_autofree char *text = NULL;
    hwloc_bitmap_t parsed;

    if (!get_string(json_object_get_member(object, name), name, &text, error))
        return FALSE;
    parsed = host_parse_list(text, error);
    if (!parsed) {
        g_prefix_error(error, "placement: %s: ", name);
        return FALSE;
    }
    hwloc_bitmap_copy(bitmap, parsed);
    hwloc_bitmap_free(parsed);
    return TRUE;
}

static gboolean get_texts(JsonObject *object, const char *name, GPtrArray *texts, GError **error)
{
    JsonArray *array = get_array(object, name, 0, TEXTS_MAX, error);

    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        char *text;

        if (!get_string(json_array_get_element(array, i), name, &text, error))
            return FALSE;
        g_ptr_array_add(texts, text);
    }
    return array != NULL;
}

static gboolean read_vcpus(JsonObject *object, Placement *placement, GError **error)
{
    static const char *const names[] = {"pu", "core", "cell", "socket", "die", "guest_core", "thread", NULL};
    JsonArray *array = get_array(object, "vcpus", 1, VCPUS_MAX, error);

    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonObject *row = get_row(array, i, names, "vcpus", error);
        PlacementVcpu vcpu;

        if (!row || !get_uint(row, "pu", 0, PU_MAX, &vcpu.pu, error) || !get_uint(row, "core", 0, PU_MAX, &vcpu.core, error) ||
            !get_uint(row, "cell", 0, CELLS_MAX, &vcpu.cell, error) ||
            !get_uint(row, "socket", 0, VCPUS_MAX, &vcpu.socket, error) ||
            !get_uint(row, "die", 0, VCPUS_MAX, &vcpu.die, error) ||
            !get_uint(row, "guest_core", 0, VCPUS_MAX, &vcpu.guest_core, error) ||
            !get_uint(row, "thread", 0, VCPUS_MAX, &vcpu.thread, error))
            return FALSE;
        g_array_append_val(placement->vcpus, vcpu);
    }
    return array != NULL;
}

static gboolean read_cells(JsonObject *object, Placement *placement, GError **error)
{
    static const char *const names[] = {"node", "memory_bytes", "page_bytes", "first_vcpu", "vcpus", NULL};
    JsonArray *array = get_array(object, "cells", 1, CELLS_MAX, error);

    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonObject *row = get_row(array, i, names, "cells", error);
        PlacementCell cell;
        gint64 memory, page;

        if (!row || !get_uint(row, "node", 0, PU_MAX, &cell.node, error) ||
            !get_int(json_object_get_member(row, "memory_bytes"), 1, G_GINT64_CONSTANT(1) << 50, &memory, "memory_bytes",
                     error) ||
            !get_int(json_object_get_member(row, "page_bytes"), 4 * HVM_KIB, HVM_GIB, &page, "page_bytes", error) ||
            !get_uint(row, "first_vcpu", 0, VCPUS_MAX, &cell.first_vcpu, error) ||
            !get_uint(row, "vcpus", 1, VCPUS_MAX, &cell.vcpus, error))
            return FALSE;
        cell.memory_bytes = (guint64)memory;
        cell.page_bytes = (guint64)page;
        g_array_append_val(placement->cells, cell);
    }
    return array != NULL;
}

static gboolean read_distances(JsonObject *object, Placement *placement, GError **error)
{
    guint cells = placement->cells->len;
    JsonArray *array = get_array(object, "distances", 0, cells * cells, error);

    if (!array)
        return FALSE;
    if (json_array_get_length(array) != 0 && json_array_get_length(array) != cells * cells)
        return bad(error, "distances: wanted none or %u, found %u", cells * cells, json_array_get_length(array));
    for (guint i = 0; i < json_array_get_length(array); i++) {
        gint64 value;
        guint8 distance;

        if (!get_int(json_array_get_element(array, i), 10, 254, &value, "distances", error))
            return FALSE;
        distance = (guint8)value;
        g_array_append_val(placement->distances, distance);
    }
    return TRUE;
}

/* As sysfs writes it: "0000:41:00.1". */
static gboolean is_address(const char *text)
{
    g_autofree char *canonical = NULL;

    return pci_address_parse(text, &canonical) && strcmp(text, canonical) == 0;
}

static gboolean read_devices(JsonObject *object, Placement *placement, GError **error)
{
    static const char *const names[] = {"name", "address", "cell", NULL};
    JsonArray *array = get_array(object, "devices", 0, DEVICES_MAX, error);

    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonObject *row = get_row(array, i, names, "devices", error);
        PlacementDevice *device = g_new0(PlacementDevice, 1);
        gint64 cell;

        g_ptr_array_add(placement->devices, device);
        if (!row || !get_string(json_object_get_member(row, "name"), "name", &device->name, error) ||
            !get_string(json_object_get_member(row, "address"), "address", &device->address, error) ||
            !get_int(json_object_get_member(row, "cell"), -1, (gint64)placement->cells->len - 1, &cell, "cell", error))
            return FALSE;
        if (!is_address(device->address))
            return bad(error, "address: wanted one like 0000:41:00.1, found something else");
        device->cell = (int)cell;
    }
    return array != NULL;
}

static gboolean read_rest(JsonObject *object, Placement *placement, GError **error)
{
    JsonNode *shares = json_object_get_member(object, "emulator_shares");
    g_autofree char *cache = NULL;

    if (!get_list(object, "reserved", placement->reserved, error) ||
        !get_list(object, "emulator", placement->emulator, error) ||
        !get_list(object, "io_threads", placement->io_threads, error) ||
        !get_uint(object, "sockets", 1, VCPUS_MAX, &placement->sockets, error) ||
        !get_uint(object, "dies", 1, VCPUS_MAX, &placement->dies, error) ||
        !get_uint(object, "cores", 1, VCPUS_MAX, &placement->cores, error) ||
        !get_uint(object, "threads", 1, VCPUS_MAX, &placement->threads, error) ||
        !get_string(json_object_get_member(object, "cache"), "cache", &cache, error) ||
        !get_texts(object, "notes", placement->notes, error) || !get_texts(object, "reasons", placement->reasons, error))
        return FALSE;
    if (!JSON_NODE_HOLDS_VALUE(shares) || json_node_get_value_type(shares) != G_TYPE_BOOLEAN)
        return bad(error, "emulator_shares: wanted true or false, found something else");
    placement->emulator_shares = json_node_get_boolean(shares);
    for (placement->cache = CACHE_PASSTHROUGH; strcmp(cache, cache_names[placement->cache]) != 0; placement->cache++)
        if (placement->cache == CACHE_NONE)
            return bad(error, "cache: wanted passthrough, emulate or none, found something else");
    return TRUE;
}

/* ---- What no single value can tell ---- */

static gboolean check_cells(const Placement *placement, GError **error)
{
    hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
    unsigned next = 0;
    gboolean good = TRUE;

    for (guint i = 0; i < placement->cells->len && good; i++) {
        const PlacementCell *cell = &g_array_index(placement->cells, PlacementCell, i);

        good = cell->first_vcpu == next && !hwloc_bitmap_isset(nodes, cell->node) &&
               (cell->page_bytes == 4 * HVM_KIB || cell->page_bytes == 2 * HVM_MIB || cell->page_bytes == HVM_GIB) &&
               cell->memory_bytes % cell->page_bytes == 0 && cell->vcpus <= placement->vcpus->len - next;
        next += good ? cell->vcpus : 0;
        for (unsigned v = cell->first_vcpu; good && v < next; v++)
            good = g_array_index(placement->vcpus, PlacementVcpu, v).cell == i;
        hwloc_bitmap_set(nodes, cell->node);
    }
    hwloc_bitmap_free(nodes);
    return (good && next == placement->vcpus->len) ||
           bad(error, "cells: wanted each node once, memory in whole pages, and all vCPUs in order");
}

static gboolean check_topology(const Placement *placement, GError **error)
{
    guint64 product = (guint64)placement->sockets * placement->dies;

    if (product > VCPUS_MAX || product * placement->cores > VCPUS_MAX ||
        product * placement->cores * placement->threads != placement->vcpus->len)
        return bad(error, "wanted sockets x dies x cores x threads to be the number of vCPUs, %u", placement->vcpus->len);
    for (guint i = 0; i < placement->vcpus->len; i++) {
        const PlacementVcpu *vcpu = &g_array_index(placement->vcpus, PlacementVcpu, i);

        if (vcpu->thread >= placement->threads || vcpu->guest_core >= placement->cores || vcpu->die >= placement->dies ||
            ((vcpu->socket * placement->dies + vcpu->die) * placement->cores + vcpu->guest_core) * placement->threads +
                    vcpu->thread != i)
            return bad(error, "vcpus: number %u is not where the guest's topology has it", i);
    }
    return TRUE;
}

static gboolean check_pus(const Placement *placement, GError **error)
{
    hwloc_bitmap_t seen = hwloc_bitmap_alloc();
    gboolean good = !hwloc_bitmap_iszero(placement->emulator) && !hwloc_bitmap_iszero(placement->io_threads);

    for (guint i = 0; i < placement->vcpus->len && good; i++) {
        unsigned pu = g_array_index(placement->vcpus, PlacementVcpu, i).pu;

        good = !hwloc_bitmap_isset(seen, pu) && hwloc_bitmap_isset(placement->reserved, pu);
        hwloc_bitmap_set(seen, pu);
    }
    hwloc_bitmap_free(seen);
    return good || bad(error, "wanted each vCPU on a PU of its own among the reserved ones, and PUs for QEMU's threads");
}

/* The parser recurses: nesting that no placement has would cost it its stack. */
static gboolean check_text(const char *text, GError **error)
{
    gboolean quoted = FALSE;
    unsigned depth = 0;
    gsize length = strnlen(text, TEXT_MAX + 1);

    if (length > TEXT_MAX)
        return bad(error, "wanted at most %d bytes", TEXT_MAX);
    if (!g_utf8_validate(text, (gssize)length, NULL))
        return bad(error, "wanted UTF-8");
    for (gsize i = 0; i < length; i++) {
        if (quoted) {
            if (text[i] == '\\' && text[i + 1])
                i++;
            else if (text[i] == '"')
                quoted = FALSE;
        } else if (text[i] == '"') {
            quoted = TRUE;
        } else if (text[i] == '{' || text[i] == '[') {
            if (++depth > DEPTH_MAX)
                return bad(error, "wanted a placement, found something nested more deeply than %d", DEPTH_MAX);
        } else if (text[i] == '}' || text[i] == ']') {
            depth -= depth > 0;
        }
    }
    return TRUE;
}

static gboolean read_placement(JsonNode *root, Placement *placement, GError **error)
{
    static const char *const names[] = {"vcpus", "cells", "distances", "devices", "reserved", "emulator", "io_threads",
                                        "emulator_shares", "sockets", "dies", "cores", "threads", "cache", "notes",
                                        "reasons", NULL};
    JsonObject *object;

    if (!root || !JSON_NODE_HOLDS_OBJECT(root))
        return bad(error, "wanted a JSON object, found something else");
    object = json_node_get_object(root);
    return check_members(object, names, "placement", error) && read_vcpus(object, placement, error) &&
           read_cells(object, placement, error) && read_distances(object, placement, error) &&
           read_devices(object, placement, error) && read_rest(object, placement, error) &&
           check_cells(placement, error) && check_topology(placement, error) && check_pus(placement, error);
}

Placement *placement_from_json(const char *text, GError **error)
{
    g_autoptr(JsonParser) parser = json_parser_new_immutable();
    g_autoptr(Placement) placement = NULL;
    g_autoptr(GError) reason = NULL;

    if (!check_text(text, error))
        return NULL;
    if (!json_parser_load_from_data(parser, text, -1, &reason)) {
        g_autofree char *shown = hvm_escape(reason->message, -1);

        bad(error, "not JSON: %s", shown);
        return NULL;
    }
    placement = placement_new();
    if (!read_placement(json_parser_get_root(parser), placement, error))
        return NULL;
    return g_steal_pointer(&placement);
}
