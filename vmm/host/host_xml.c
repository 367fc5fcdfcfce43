#include "host_internal.h"

#include "hvm_error.h"

#include <string.h>

/* What hwloc's export always holds and its import relies on without looking (it reads a null pointer or loses its way
 * where it is not so): sets present and finite, a child's within its parent's, siblings apart, numbers of a sane size. */

enum {
    DEPTH_MAX = 64,
    ELEMENTS_MAX = 1 << 20,
    VALUE_MAX = 64 << 10, /* characters: a set of 65,536 bits in hwloc's notation has 23 Ki */
    INDEX_MAX = 65535,
};

typedef struct {
    hwloc_bitmap_t cpuset;  /* of the object, or of the nearest one around that has one; NULL outside */
    hwloc_bitmap_t nodeset;
    hwloc_bitmap_t taken;   /* CPUs of the children so far */
} XmlFrame;

typedef struct {
    const char *path;
    GArray *frames; /* of XmlFrame, outermost first */
    unsigned elements;
    unsigned pus;
    gboolean old;  /* hwloc 1: no node sets need be there */
    int line;
    const char *bad_declaration; /* found since: GMarkup goes on after an error of its passthrough function */
} XmlCheck;

static void clear_frame(gpointer data)
{
    XmlFrame *frame = data;

    hwloc_bitmap_free(frame->cpuset);
    hwloc_bitmap_free(frame->nodeset);
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

    if (*text && (!g_str_has_prefix(text, "0x") || !g_ascii_string_to_unsigned(text + 2, 16, 0, G_MAXUINT32, &word, NULL)))
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
        if (strlen(*values) > VALUE_MAX)
            return refuse(error, check, "attribute '%.40s' is longer than %d characters", *names, VALUE_MAX);
        /* 4294967295 is hwloc's "unknown" */
        if (strcmp(*names, "os_index") == 0 && strcmp(*values, "4294967295") != 0 &&
            !g_ascii_string_to_unsigned(*values, 10, 0, INDEX_MAX, &index, NULL))
            return refuse(error, check, "wanted an os_index of 0 to %d, found '%.40s'", INDEX_MAX, *values);
        if (g_str_has_suffix(*names, "cpuset") || g_str_has_suffix(*names, "nodeset")) {
            hwloc_bitmap_t set = parse_set(*values);

            if (!set)
                return refuse(error, check, "wanted a set of at most %d bits as %s, found '%.40s'", INDEX_MAX + 1, *names,
                              *values);
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

/* The sets of an object which has some, against those of the one around it; `frame` gets them. */
static gboolean check_sets(XmlCheck *check, const char *type, const char **names, const char **values, XmlFrame *parent,
                           XmlFrame *frame, GError **error)
{
    gboolean node = strcmp(type, "NUMANode") == 0, memory = node || strcmp(type, "MemCache") == 0;
    const char *index = find_value(names, values, "os_index");

    frame->cpuset = parse_set(find_value(names, values, "cpuset"));
    frame->nodeset = parse_set(find_value(names, values, "nodeset"));
    if (!frame->cpuset || !find_value(names, values, "complete_cpuset") ||
        (!check->old && (!frame->nodeset || !find_value(names, values, "complete_nodeset"))))
        return refuse(error, check, "%.20s without cpuset, nodeset, complete_cpuset or complete_nodeset", type);
    if (parent->cpuset && !hwloc_bitmap_isincluded(frame->cpuset, parent->cpuset))
        return refuse(error, check, "the cpuset of a %.20s is not within that of the object around it", type);
    if (parent->nodeset && frame->nodeset && !hwloc_bitmap_isincluded(frame->nodeset, parent->nodeset))
        return refuse(error, check, "the nodeset of a %.20s is not within that of the object around it", type);
    if (!memory && hwloc_bitmap_intersects(frame->cpuset, parent->taken))
        return refuse(error, check, "the cpuset of a %.20s overlaps that of one beside it", type);
    if (!memory)
        hwloc_bitmap_or(parent->taken, parent->taken, frame->cpuset);
    if (strcmp(type, "PU") == 0 && !is_own_bit(frame->cpuset, index))
        return refuse(error, check, "the cpuset of PU %.10s is not that number alone", index ? index : "without os_index");
    if (node && !check->old && !is_own_bit(frame->nodeset, index))
        return refuse(error, check, "the nodeset of NUMANode %.10s is not that number alone",
                      index ? index : "without os_index");
    return TRUE;
}

static gboolean has_sets(const char *type)
{
    return strcmp(type, "Bridge") != 0 && strcmp(type, "PCIDev") != 0 && strcmp(type, "OSDev") != 0 &&
           strcmp(type, "Misc") != 0;
}

static gboolean check_object(XmlCheck *check, const char **names, const char **values, XmlFrame *parent, XmlFrame *frame,
                             GError **error)
{
    const char *type = find_value(names, values, "type");

    if (!type)
        return refuse(error, check, "object without type");
    if (strcmp(type, "PU") == 0 && ++check->pus > HOST_PU_MAX)
        return refuse(error, check, "more than %d processing units", HOST_PU_MAX);
    if (!parent->cpuset && strcmp(type, "Machine") != 0)
        return refuse(error, check, "wanted an object of type Machine around all others, found '%.40s'", type);
    return !has_sets(type) || check_sets(check, type, names, values, parent, frame, error);
}

static gboolean check_element(XmlCheck *check, const char *element, const char **names, const char **values, GError **error)
{
    XmlFrame outside = {0};
    XmlFrame *parent = check->frames->len ? &g_array_index(check->frames, XmlFrame, check->frames->len - 1) : &outside;
    XmlFrame frame = {.taken = hwloc_bitmap_alloc()};
    gboolean good = TRUE;

    outside.taken = hwloc_bitmap_alloc();
    if (strcmp(element, "object") == 0)
        good = check_object(check, names, values, parent, &frame, error);
    if (!frame.cpuset && parent->cpuset)
        frame.cpuset = hwloc_bitmap_dup(parent->cpuset);
    if (!frame.nodeset && parent->nodeset)
        frame.nodeset = hwloc_bitmap_dup(parent->nodeset);
    hwloc_bitmap_free(outside.taken);
    g_array_append_val(check->frames, frame);
    return good;
}

static void start_element(GMarkupParseContext *context, const char *element, const char **names, const char **values,
                          gpointer data, GError **error)
{
    XmlCheck *check = data;
    gboolean root = strcmp(element, "topology") == 0;

    g_markup_parse_context_get_position(context, &check->line, NULL);
    if (check->bad_declaration)
        refuse(error, check, "%s", check->bad_declaration);
    else if ((check->frames->len == 0) != root)
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

static void end_element(G_GNUC_UNUSED GMarkupParseContext *context, G_GNUC_UNUSED const char *element, gpointer data,
                        G_GNUC_UNUSED GError **error)
{
    XmlCheck *check = data;

    g_array_set_size(check->frames, check->frames->len - 1);
}

/* Declarations: entities and other encodings would show libxml2 another document than the one that was checked. */
static void pass_through(G_GNUC_UNUSED GMarkupParseContext *context, const char *text, gsize length, gpointer data,
                         G_GNUC_UNUSED GError **error)
{
    XmlCheck *check = data;
    g_autofree char *lower = g_ascii_strdown(text, (gssize)length);

    if (g_str_has_prefix(lower, "<!doctype") && strchr(lower, '['))
        check->bad_declaration = "a document type with declarations of its own: wanted none";
    else if (g_str_has_prefix(lower, "<?xml") && strstr(lower, "encoding") && !strstr(lower, "\"utf-8\"") &&
             !strstr(lower, "'utf-8'"))
        check->bad_declaration = "wanted XML in UTF-8";
}

gboolean host_check_xml(const char *text, gsize length, const char *path, GError **error)
{
    static const GMarkupParser parser = {
        .start_element = start_element, .end_element = end_element, .passthrough = pass_through};
    g_autoptr(GArray) frames = g_array_new(FALSE, FALSE, sizeof(XmlFrame));
    XmlCheck check = {.path = path, .frames = frames};
    g_autoptr(GMarkupParseContext) context = g_markup_parse_context_new(&parser, 0, &check, NULL);
    g_autoptr(GError) reason = NULL;

    g_array_set_clear_func(frames, clear_frame);
    if (g_markup_parse_context_parse(context, text, (gssize)length, &reason) &&
        g_markup_parse_context_end_parse(context, &reason))
        return TRUE;
    if (reason->domain == HVM_ERROR)
        g_propagate_error(error, g_steal_pointer(&reason));
    else
        host_refuse(error, path, "not XML of a host (%s): wanted what 'hvm host capture' or lstopo writes", reason->message);
    return FALSE;
}
