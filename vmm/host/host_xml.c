#include "host_internal.h"

#include "hvm_error.h"

#include <string.h>

/* hwloc's import relies on what its export writes (it reads a null pointer, aborts or takes all memory where it is not
 * so): known types, sets present and finite, a child's within its parent's, siblings apart, numbers of a sane size.
 * That is checked here. And because hwloc may be built with a small parser of its own, which takes other texts for XML
 * than GLib's does, hwloc gets not the file but what was understood of it, written as hwloc itself would. */

enum {
    DEPTH_MAX = 64,
    ELEMENTS_MAX = 1 << 20,
    VALUE_MAX = 64 << 10, /* characters: a set of 65,536 bits in hwloc's notation has 23 Ki */
    INDEX_MAX = 65535,
    DISTANCES_MAX = 2048, /* objects in a matrix */
};

typedef struct {
    hwloc_bitmap_t cpuset;  /* of the object, or of the nearest one around that has one; NULL outside */
    hwloc_bitmap_t nodeset;
    hwloc_bitmap_t complete_cpuset;
    hwloc_bitmap_t complete_nodeset;
    hwloc_bitmap_t taken;   /* CPUs of the children so far */
    gboolean dropped;       /* it and what is in it mean nothing here: hwloc does not get it */
} XmlFrame;

typedef struct {
    const char *path;
    GString *out;   /* what hwloc gets */
    GArray *frames; /* of XmlFrame, outermost first */
    unsigned elements;
    unsigned pus;
    hwloc_bitmap_t nodes; /* seen so far */
    gboolean open;  /* the last start tag in `out` still wants its '>' or '/>' */
    gboolean old;  /* hwloc 1: no node sets need be there, except those of NUMA nodes */
    int line;
} XmlCheck;

static void clear_frame(gpointer data)
{
    XmlFrame *frame = data;

    hwloc_bitmap_free(frame->cpuset);
    hwloc_bitmap_free(frame->nodeset);
    hwloc_bitmap_free(frame->complete_cpuset);
    hwloc_bitmap_free(frame->complete_nodeset);
    hwloc_bitmap_free(frame->taken);
}

static const char *find_value(const char **names, const char **values, const char *name)
{
    for (; *names; names++, values++)
        if (strcmp(*names, name) == 0)
            return *values;
    return NULL;
}

static gboolean G_GNUC_PRINTF(3, 4) refuse(GError **error, const XmlCheck *check, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *reason = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    host_refuse(error, check->path, "line %d: %s", check->line, reason);
    return FALSE;
}

/* One 32-bit word of hwloc's notation: "0x0000ffff", or nothing for zero. */
static gboolean parse_word(const char *text, unsigned long *ret_word)
{
    guint64 word = 0;

    if (*text &&
        (!g_str_has_prefix(text, "0x") || !g_ascii_string_to_unsigned(text + 2, 16, 0, G_MAXUINT32, &word, NULL)))
        return FALSE;
    *ret_word = (unsigned long)word;
    return TRUE;
}

/* A finite set in hwloc's notation, "0x00000001,,0x0000ffff" with the highest word first; NULL where it is none. Not by
 * hwloc_bitmap_sscanf(), which aborts on some texts. */
static hwloc_bitmap_t parse_set(const char *text)
{
    if (!text || !*text)
        return NULL;

    g_auto(GStrv) words = g_strsplit(text, ",", -1);
    unsigned count = g_strv_length(words);
    hwloc_bitmap_t set = hwloc_bitmap_alloc();

    for (unsigned i = 0; i < count; i++) {
        unsigned long word = 0;
        gboolean good = count <= (INDEX_MAX + 1) / 32 && (i > 0 || *words[i]) && parse_word(words[i], &word);

        for (unsigned bit = 0; good && bit < 32; bit++)
            if (word >> bit & 1)
                hwloc_bitmap_set(set, (count - 1 - i) * 32 + bit);
        if (!good) {
            hwloc_bitmap_free(set);
            return NULL;
        }
    }
    return set;
}

/* Each attribute by itself. */
static gboolean check_values(const XmlCheck *check, const char **names, const char **values, GError **error)
{
    guint64 index;

    for (; *names; names++, values++) {
        if (find_value(names + 1, values + 1, *names))
            return refuse(error, check, "attribute '%.40s' twice", *names);
        if ((*names)[strspn(*names, "abcdefghijklmnopqrstuvwxyz_")])
            return refuse(error, check, "unknown attribute '%.40s'", *names);
        if (strlen(*values) > VALUE_MAX)
            return refuse(error, check, "attribute '%.40s' is longer than %d characters", *names, VALUE_MAX);
        if (strcmp(*names, "nbobjs") == 0 && !g_ascii_string_to_unsigned(*values, 10, 0, DISTANCES_MAX, &index, NULL))
            return refuse(error, check, "wanted distances between 0 to %d objects, found '%.40s'", DISTANCES_MAX,
                          *values);
        /* 4294967295 is hwloc's "unknown" */
        if (strcmp(*names, "os_index") == 0 && strcmp(*values, "4294967295") != 0 &&
            !g_ascii_string_to_unsigned(*values, 10, 0, INDEX_MAX, &index, NULL))
            return refuse(error, check, "wanted an os_index of 0 to %d, found '%.40s'", INDEX_MAX, *values);
        if (g_str_has_suffix(*names, "cpuset") || g_str_has_suffix(*names, "nodeset")) {
            hwloc_bitmap_t set = parse_set(*values);

            if (!set)
                return refuse(error, check, "wanted a set of at most %d bits as %s, found '%.40s'", INDEX_MAX + 1,
                              *names, *values);
            hwloc_bitmap_free(set);
        }
    }
    return TRUE;
}

/* Whether a set has one bit alone, which is the object's own number. */
static gboolean is_own_bit(hwloc_const_bitmap_t set, const char *index)
{
    guint64 number;

    return index && g_ascii_string_to_unsigned(index, 10, 0, INDEX_MAX, &number, NULL) &&
           hwloc_bitmap_weight(set) == 1 && hwloc_bitmap_isset(set, (unsigned)number);
}

/* Whether `set` is within `around`, where both are told. */
static gboolean is_within(hwloc_const_bitmap_t set, hwloc_const_bitmap_t around)
{
    return !set || !around || hwloc_bitmap_isincluded(set, around);
}

/* The sets of an object which has some, against those of the one around it; `frame` gets them. */
static gboolean check_sets(XmlCheck *check, const char *type, const char **names, const char **values, XmlFrame *parent,
                           XmlFrame *frame, GError **error)
{
    gboolean node = strcmp(type, "NUMANode") == 0, memory = node || strcmp(type, "MemCache") == 0;
    const char *index = find_value(names, values, "os_index");

    frame->cpuset = parse_set(find_value(names, values, "cpuset"));
    frame->nodeset = parse_set(find_value(names, values, "nodeset"));
    frame->complete_cpuset = parse_set(find_value(names, values, "complete_cpuset"));
    frame->complete_nodeset = parse_set(find_value(names, values, "complete_nodeset"));
    if (!frame->cpuset || (!check->old && !frame->nodeset))
        return refuse(error, check, "%.20s without cpuset or nodeset", type);
    if (!frame->complete_cpuset || (!check->old && !frame->complete_nodeset) ||
        !is_within(frame->cpuset, frame->complete_cpuset) || !is_within(frame->nodeset, frame->complete_nodeset))
        return refuse(error, check, "the complete_cpuset or complete_nodeset of a %.20s is missing or not complete",
                      type);
    if (node && !frame->nodeset)
        return refuse(error, check, "NUMANode without nodeset");
    if (!is_within(frame->cpuset, parent->cpuset) || !is_within(frame->complete_cpuset, parent->complete_cpuset))
        return refuse(error, check, "the cpuset of a %.20s is not within that of the object around it", type);
    if (!is_within(frame->nodeset, parent->nodeset) || !is_within(frame->complete_nodeset, parent->complete_nodeset))
        return refuse(error, check, "the nodeset of a %.20s is not within that of the object around it", type);
    if (!memory && hwloc_bitmap_intersects(frame->cpuset, parent->taken))
        return refuse(error, check, "the cpuset of a %.20s overlaps that of one beside it", type);
    if (!memory)
        hwloc_bitmap_or(parent->taken, parent->taken, frame->cpuset);
    if (strcmp(type, "PU") == 0 && !is_own_bit(frame->cpuset, index))
        return refuse(error, check, "the cpuset of PU %.10s is not that number alone",
                      index ? index : "without os_index");
    if (node && !is_own_bit(frame->nodeset, index))
        return refuse(error, check, "the nodeset of NUMANode %.10s is not that number alone",
                      index ? index : "without os_index");
    if (node && hwloc_bitmap_intersects(frame->nodeset, check->nodes))
        return refuse(error, check, "a second NUMANode %.10s", index);
    if (node)
        hwloc_bitmap_or(check->nodes, check->nodes, frame->nodeset);
    return TRUE;
}

static gboolean has_sets(const char *type)
{
    return strcmp(type, "Bridge") != 0 && strcmp(type, "PCIDev") != 0 && strcmp(type, "OSDev") != 0 &&
           strcmp(type, "Misc") != 0;
}

static gboolean check_object(XmlCheck *check, const char **names, const char **values, XmlFrame *parent,
                             XmlFrame *frame, GError **error)
{
    /* exactly: hwloc takes "PU whatever" for a PU */
    static const char *const types[] = {"Machine",  "System",  "Package",  "Socket",   "Die",      "Core",
                                        "PU",       "Group",   "NUMANode", "MemCache", "Cache",    "L1Cache",
                                        "L2Cache",  "L3Cache", "L4Cache",  "L5Cache",  "L1iCache", "L2iCache",
                                        "L3iCache", "Bridge",  "PCIDev",   "OSDev",    "Misc",     NULL};
    const char *type = find_value(names, values, "type");

    if (!type || !g_strv_contains(types, type))
        return refuse(error, check, "unknown type of object '%.40s'", type ? type : "");
    if (strcmp(type, "PU") == 0 && ++check->pus > HOST_PU_MAX)
        return refuse(error, check, "more than %d processing units", HOST_PU_MAX);
    if (!parent->cpuset && strcmp(type, "Machine") != 0)
        return refuse(error, check, "wanted an object of type Machine around all others, found '%.40s'", type);
    return !has_sets(type) || check_sets(check, type, names, values, parent, frame, error);
}

/* With the entities that hwloc's own parser knows, and no others; without what hwloc's export leaves out, which is all
 * but printable ASCII, so that a name is the same after one more capture. */
static void write_escaped(GString *out, const char *text)
{
    static const char special[] = "&<>\"\n\r\t";
    static const char *const entities[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#10;", "&#13;", "&#9;"};

    for (; *text; text++) {
        const char *found = strchr(special, *text);

        if (found)
            g_string_append(out, entities[found - special]);
        else if (g_ascii_isprint(*text))
            g_string_append_c(out, *text);
    }
}

/* Elements without content end at once ("/>"): hwloc's own parser wants that of some. */
static void end_start_tag(XmlCheck *check)
{
    if (check->open)
        g_string_append(check->out, ">\n");
    check->open = FALSE;
}

static void write_start(XmlCheck *check, const char *element, const char **names, const char **values)
{
    GString *out = check->out;

    end_start_tag(check);
    check->open = TRUE;
    g_string_append_printf(out, "<%s", element);
    for (; *names; names++, values++) {
        g_string_append_printf(out, " %s=\"", *names);
        write_escaped(out, *values);
        g_string_append_c(out, '"');
    }
}

static void write_end(XmlCheck *check, const char *element)
{
    if (check->open)
        g_string_append(check->out, "/>\n");
    else
        g_string_append_printf(check->out, "</%s>\n", element);
    check->open = FALSE;
}

static void inherit(hwloc_bitmap_t *set, hwloc_const_bitmap_t around)
{
    if (!*set && around)
        *set = hwloc_bitmap_dup(around);
}

/* Any element: an object's sets and place, and on to hwloc. */
static gboolean check_element(XmlCheck *check, const char *element, const char **names, const char **values,
                              GError **error)
{
    XmlFrame outside = {0};
    XmlFrame *parent = check->frames->len ? &g_array_index(check->frames, XmlFrame, check->frames->len - 1) : &outside;
    XmlFrame frame = {.taken = hwloc_bitmap_alloc()};

    frame.dropped = parent->dropped || strcmp(element, "userdata") == 0 || strcmp(element, "support") == 0;
    gboolean good = TRUE;

    outside.taken = hwloc_bitmap_alloc();
    if (strcmp(element, "object") == 0)
        good = check_object(check, names, values, parent, &frame, error);
    inherit(&frame.cpuset, parent->cpuset);
    inherit(&frame.nodeset, parent->nodeset);
    inherit(&frame.complete_cpuset, parent->complete_cpuset);
    inherit(&frame.complete_nodeset, parent->complete_nodeset);
    hwloc_bitmap_free(outside.taken);
    g_array_append_val(check->frames, frame);
    if (good && !frame.dropped)
        write_start(check, element, names, values);
    return good;
}

static void start_element(GMarkupParseContext *context, const char *element, const char **names, const char **values,
                          gpointer data, GError **error)
{
    XmlCheck *check = data;
    gboolean root = strcmp(element, "topology") == 0;

    g_markup_parse_context_get_position(context, &check->line, NULL);
    if ((check->frames->len == 0) != root)
        refuse(error, check, "found element '%.40s': wanted hwloc's 'topology' as the root", element);
    else if (check->frames->len >= DEPTH_MAX)
        refuse(error, check, "elements nest deeper than %d", DEPTH_MAX);
    else if (++check->elements > ELEMENTS_MAX)
        refuse(error, check, "more than %d elements", ELEMENTS_MAX);
    if (*error || !check_values(check, names, values, error))
        return;
    if (root)
        check->old = !find_value(names, values, "version");
    check_element(check, element, names, values, error);
}

static void end_element(G_GNUC_UNUSED GMarkupParseContext *context, const char *element, gpointer data,
                        G_GNUC_UNUSED GError **error)
{
    XmlCheck *check = data;

    if (!g_array_index(check->frames, XmlFrame, check->frames->len - 1).dropped)
        write_end(check, element);
    g_array_set_size(check->frames, check->frames->len - 1);
}

/* The numbers of distances are the only text that means something. */
static void take_text(GMarkupParseContext *context, const char *text, gsize length, gpointer data, GError **error)
{
    XmlCheck *check = data;
    const char *element = g_markup_parse_context_get_element(context);

    if (!element || (strcmp(element, "indexes") != 0 && strcmp(element, "u64values") != 0))
        return;
    for (gsize i = 0; i < length; i++) {
        if (!g_ascii_isalnum(text[i]) && !strchr(" \t\r\n:.-", text[i])) {
            refuse(error, check, "wanted numbers in '%s'", element);
            return;
        }
    }
    if (check->open)
        g_string_append_c(check->out, '>');
    check->open = FALSE;
    g_string_append_len(check->out, text, (gssize)length);
}

/* Parses all of it. */
static gboolean parse(XmlCheck *check, const char *text, gsize length, GError **error)
{
    static const GMarkupParser parser = {.start_element = start_element, .end_element = end_element, .text = take_text};
    g_autoptr(GMarkupParseContext) context = g_markup_parse_context_new(&parser, 0, check, NULL);

    if (!g_markup_parse_context_parse(context, text, (gssize)length, error) ||
        !g_markup_parse_context_end_parse(context, error))
        return FALSE;
    /* hwloc 1 told of NUMA nodes only where there was more than one */
    if (!check->pus || (!check->old && hwloc_bitmap_iszero(check->nodes)))
        return refuse(error, check, "the file ends without a PU or without a NUMANode");
    return TRUE;
}

char *host_clean_xml(const char *text, gsize length, const char *path, GError **error)
{
    g_autoptr(GArray) frames = g_array_new(FALSE, FALSE, sizeof(XmlFrame));
    g_autoptr(GString) out = g_string_new("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                                          "<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n");
    XmlCheck check = {.path = path, .out = out, .frames = frames, .nodes = hwloc_bitmap_alloc()};
    g_autoptr(GError) reason = NULL;

    g_array_set_clear_func(frames, clear_frame);
    gboolean good = parse(&check, text, length, &reason);

    hwloc_bitmap_free(check.nodes);
    if (good)
        return g_string_free(g_steal_pointer(&out), FALSE);
    if (reason->domain == HVM_ERROR)
        g_propagate_error(error, g_steal_pointer(&reason));
    else
        host_refuse(error, path, "not XML of a host (%s): wanted what 'hvm host capture' or lstopo writes",
                    reason->message);
    return NULL;
}
