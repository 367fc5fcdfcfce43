#include "table.h"

#include "hvm_error.h"
#include "units.h"

#include <json-glib/json-glib.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

static gboolean coloured(void)
{
    static int known = -1;
    const char *no_color = g_getenv("NO_COLOR");

    if (known < 0)
        known = isatty(STDOUT_FILENO) && !(no_color && *no_color) && g_strcmp0(g_getenv("TERM"), "dumb") != 0;
    return known;
}

const char *colour_on(Colour colour)
{
    static const char *const sequences[] = {"", "\033[32m", "\033[33m", "\033[31m", "\033[1m"};

    return coloured() ? sequences[colour] : "";
}

const char *colour_off(Colour colour)
{
    return coloured() && colour != COLOUR_NONE ? "\033[0m" : "";
}

Colour table_state_colour(const char *word)
{
    static const struct {
        const char *word;
        Colour colour;
    } words[] = {
        {"running", COLOUR_GOOD}, {"ok", COLOUR_GOOD}, {"starting", COLOUR_WARNING}, {"stopping", COLOUR_WARNING},
        {"paused", COLOUR_WARNING}, {"warning", COLOUR_WARNING}, {"crashed", COLOUR_BAD}, {"failure", COLOUR_BAD},
        {"differs", COLOUR_BAD},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(words); i++)
        if (strcmp(word, words[i].word) == 0)
            return words[i].colour;
    return COLOUR_NONE;
}

unsigned table_width(const char *text)
{
    unsigned width = 0;

    for (; *text; text = g_utf8_next_char(text)) {
        gunichar c = g_utf8_get_char(text);

        width += g_unichar_iszerowidth(c) ? 0 : g_unichar_iswide(c) ? 2 : 1;
    }
    return width;
}

/* Any integer of D-Bus. FALSE where `value` is none. */
static gboolean integer(GVariant *value, gboolean *ret_negative, guint64 *ret_magnitude)
{
    gint64 number = 0;

    switch (g_variant_classify(value)) {
    case G_VARIANT_CLASS_BYTE:
        number = g_variant_get_byte(value);
        break;
    case G_VARIANT_CLASS_INT16:
        number = g_variant_get_int16(value);
        break;
    case G_VARIANT_CLASS_UINT16:
        number = g_variant_get_uint16(value);
        break;
    case G_VARIANT_CLASS_INT32:
        number = g_variant_get_int32(value);
        break;
    case G_VARIANT_CLASS_UINT32:
        number = g_variant_get_uint32(value);
        break;
    case G_VARIANT_CLASS_INT64:
        number = g_variant_get_int64(value);
        break;
    case G_VARIANT_CLASS_UINT64:
        *ret_negative = FALSE;
        *ret_magnitude = g_variant_get_uint64(value);
        return TRUE;
    case G_VARIANT_CLASS_BOOLEAN:
    case G_VARIANT_CLASS_HANDLE:
    case G_VARIANT_CLASS_DOUBLE:
    case G_VARIANT_CLASS_STRING:
    case G_VARIANT_CLASS_OBJECT_PATH:
    case G_VARIANT_CLASS_SIGNATURE:
    case G_VARIANT_CLASS_VARIANT:
    case G_VARIANT_CLASS_MAYBE:
    case G_VARIANT_CLASS_ARRAY:
    case G_VARIANT_CLASS_TUPLE:
    case G_VARIANT_CLASS_DICT_ENTRY:
    default:
        return FALSE;
    }
    *ret_negative = number < 0;
    *ret_magnitude = number < 0 ? -(guint64)number : (guint64)number;
    return TRUE;
}

/* The last one is kept: each look reads /etc/passwd or asks a server, and many guests have one owner. */
static char *user_name(guint64 uid)
{
    static char *last_name;
    static guint64 last_uid;

    if (!last_name || last_uid != uid) {
        struct passwd *entry = uid <= G_MAXUINT32 ? getpwuid((uid_t)uid) : NULL;

        g_free(last_name);
        last_name = entry ? hvm_escape(entry->pw_name, -1) : g_strdup_printf("%" G_GUINT64_FORMAT, uid);
        last_uid = uid;
    }
    return g_strdup(last_name);
}

/* `value` may be NULL. */
static char *format_cell(const Column *column, GVariant *value)
{
    gboolean negative = FALSE;
    guint64 number = 0;

    if (!value)
        return g_strdup("-");
    if (g_variant_is_of_type(value, G_VARIANT_TYPE_STRING)) {
        const char *text = g_variant_get_string(value, NULL);

        return *text ? hvm_escape(text, -1) : g_strdup("-");
    }
    if (!integer(value, &negative, &number)) {
        g_autofree char *printed = g_variant_print(value, FALSE);

        return hvm_escape(printed, -1);
    }
    if (column->kind == COLUMN_SIZE && !negative)
        return size_format_rounded(number);
    if (column->kind == COLUMN_USER && !negative)
        return user_name(number);
    return g_strdup_printf("%s%" G_GUINT64_FORMAT, negative ? "-" : "", number);
}

char *table_cell(const Column *column, GVariant *dict)
{
    g_autoptr(GVariant) value = g_variant_lookup_value(dict, column->key, NULL);

    return format_cell(column, value);
}

/* The cells of a row, in one pass: each lookup by key would unpack the entries before it. */
static GPtrArray *row_cells(GPtrArray *shown, GVariant *row)
{
    GPtrArray *cells = g_ptr_array_new_with_free_func(g_free);
    GVariantIter iter;
    const char *key = NULL;
    GVariant *value = NULL;

    g_ptr_array_set_size(cells, (int)shown->len);
    g_variant_iter_init(&iter, row);
    while (g_variant_iter_loop(&iter, "{&sv}", &key, &value))
        for (guint i = 0; i < shown->len; i++)
            if (!cells->pdata[i] && strcmp(((const Column *)shown->pdata[i])->key, key) == 0)
                cells->pdata[i] = format_cell(shown->pdata[i], value);
    for (guint i = 0; i < shown->len; i++)
        if (!cells->pdata[i])
            cells->pdata[i] = format_cell(shown->pdata[i], NULL);
    return cells;
}

static gboolean right_aligned(const Column *column)
{
    return column->kind == COLUMN_NUMBER || column->kind == COLUMN_SIZE;
}

static void print_row(GPtrArray *shown, const unsigned *widths, GPtrArray *cells, unsigned indent, gboolean header)
{
    guint last = cells->len;

    while (last > 0 && !*(const char *)cells->pdata[last - 1])
        last--;
    printf("%*s", (int)indent, "");
    for (guint i = 0; i < last; i++) {
        const Column *column = shown->pdata[i];
        const char *text = cells->pdata[i];
        int padding = (int)(widths[i] - table_width(text));
        Colour colour = header ? COLOUR_STRONG : column->kind == COLUMN_STATE ? table_state_colour(text) : COLOUR_NONE;

        printf("%s%*s%s%s%s%*s", i ? "  " : "", right_aligned(column) ? padding : 0, "", colour_on(colour), text,
               colour_off(colour), right_aligned(column) || i + 1 == last ? 0 : padding, "");
    }
    putchar('\n');
}

void table_print(const Column *columns, GVariant *rows, unsigned indent, const char *none)
{
    g_autoptr(GPtrArray) shown = g_ptr_array_new();
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref);
    gsize count = rows ? g_variant_n_children(rows) : 0;
    GPtrArray *header = g_ptr_array_new_with_free_func(g_free);

    for (const Column *column = columns; column->key; column++) {
        if (!column->title)
            continue;
        g_ptr_array_add(shown, (gpointer)column);
        g_ptr_array_add(header, g_strdup(column->title));
    }
    g_ptr_array_add(lines, header);
    for (gsize i = 0; i < count; i++) {
        g_autoptr(GVariant) row = g_variant_get_child_value(rows, i);

        g_ptr_array_add(lines, row_cells(shown, row));
    }
    g_autofree unsigned *widths = g_new0(unsigned, shown->len);

    for (guint i = 0; i < lines->len; i++)
        for (guint j = 0; j < shown->len; j++)
            widths[j] = MAX(widths[j], table_width(((GPtrArray *)lines->pdata[i])->pdata[j]));
    for (guint i = 0; i < lines->len; i++)
        print_row(shown, widths, lines->pdata[i], indent, i == 0);
    if (count == 0 && none) {
        fflush(stdout);
        fprintf(stderr, "%s\n", none);
    }
}

void table_print_field(const char *title, unsigned width, const char *format, ...)
{
    va_list arguments;

    printf("%s%-*s%s  ", colour_on(COLOUR_STRONG), (int)width, title, colour_off(COLOUR_STRONG));
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

static void build_object(JsonBuilder *builder, const Column *columns, GVariant *dict);

static void build_number(JsonBuilder *builder, GVariant *value)
{
    gboolean negative = FALSE;
    guint64 number = 0;

    if (!integer(value, &negative, &number))
        json_builder_add_value(builder, json_gvariant_serialize(value));
    else if (number > G_MAXINT64) /* JSON has no type for it that every reader takes whole */
        json_builder_add_null_value(builder);
    else
        json_builder_add_int_value(builder, negative ? -(gint64)number : (gint64)number);
}

static void build_value(JsonBuilder *builder, const Column *column, GVariant *value)
{
    JsonNode *node = NULL;

    if (column->kind == COLUMN_ROWS && g_variant_is_of_type(value, G_VARIANT_TYPE("aa{sv}"))) {
        json_builder_begin_array(builder);
        for (gsize i = 0; i < g_variant_n_children(value); i++) {
            g_autoptr(GVariant) row = g_variant_get_child_value(value, i);

            build_object(builder, column->columns, row);
        }
        json_builder_end_array(builder);
    } else if (column->kind == COLUMN_JSON && g_variant_is_of_type(value, G_VARIANT_TYPE_STRING)) {
        const char *text = g_variant_get_string(value, NULL);

        node = *text ? json_from_string(text, NULL) : NULL;
        if (node)
            json_builder_add_value(builder, node);
        else
            json_builder_add_null_value(builder);
    } else {
        build_number(builder, value);
    }
}

static void build_object(JsonBuilder *builder, const Column *columns, GVariant *dict)
{
    json_builder_begin_object(builder);
    for (const Column *column = columns; column->key; column++) {
        g_autoptr(GVariant) value = g_variant_lookup_value(dict, column->key, NULL);

        json_builder_set_member_name(builder, column->key);
        if (value)
            build_value(builder, column, value);
        else
            json_builder_add_null_value(builder);
    }
    json_builder_end_object(builder);
}

/* Prints JSON with what a terminal might act on as \uXXXX: such characters stand in strings only, where that means
 * the same. */
static void print_safely(const char *json)
{
    for (const char *c = json; *c; c = g_utf8_next_char(c)) {
        gunichar character = g_utf8_get_char(c);

        if (character == '\n' || g_unichar_isprint(character))
            fwrite(c, 1, (gsize)(g_utf8_next_char(c) - c), stdout);
        else if (character < 0x10000)
            printf("\\u%04x", character);
        else
            printf("\\u%04x\\u%04x", 0xd800 + ((character - 0x10000) >> 10), 0xdc00 + ((character - 0x10000) & 0x3ff));
    }
}

static void print_json(const Column *columns, GVariant *dict, gboolean pretty)
{
    g_autoptr(JsonBuilder) builder = json_builder_new();
    g_autoptr(JsonNode) root = NULL;
    g_autofree char *text = NULL;

    build_object(builder, columns, dict);
    root = json_builder_get_root(builder);
    text = json_to_string(root, pretty);
    print_safely(text);
    putchar('\n');
}

void table_print_json(const Column *columns, GVariant *dict)
{
    print_json(columns, dict, TRUE);
}

void table_print_json_line(const Column *columns, GVariant *dict)
{
    print_json(columns, dict, FALSE);
}
