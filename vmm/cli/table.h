/*
 * table.h: replies of hvmd as aligned tables, and as JSON.
 *
 * Input: a reply (a{sv}) and a table of its keys. The same table gives the header, the text and the JSON, so that the
 * keys of the JSON are those of io.hvm1.xml and always all there (null where hvmd sent none).
 * What is printed as text is escaped; nothing has white space at its end.
 * Threads: the main thread only.
 */
#pragma once

#include <gio/gio.h>
#include <stdio.h>

typedef enum {
    COLUMN_TEXT,
    COLUMN_NUMBER, /* any integer */
    COLUMN_SIZE,   /* bytes; text: rounded */
    COLUMN_USER,   /* uid; text: the user's name where the node knows it */
    COLUMN_STATE,  /* a word which may be coloured: state of a guest or of a check */
    COLUMN_LINES,  /* as; JSON only */
    COLUMN_ROWS,   /* aa{sv} of `columns`; JSON only */
    COLUMN_JSON,   /* s which holds JSON; JSON only */
} ColumnKind;

typedef struct Column {
    const char *key;   /* of the reply and of the JSON */
    const char *title; /* header; NULL: in the JSON alone */
    ColumnKind kind;
    const struct Column *columns; /* COLUMN_ROWS; ended by key NULL */
} Column;

/* Prints rows (aa{sv}; NULL is none) below a header on standard output. Where there are none, and `none` is not NULL,
 * the header and, on standard error, `none`. `indent` spaces stand before each line. */
void table_print(const Column *columns, GVariant *rows, unsigned indent, const char *none);

/* One value as text: "-" where it is missing or empty. `dict` is a{sv}. Caller frees. */
char *table_cell(const Column *column, GVariant *dict);

/* Prints a whole reply as JSON. */
void table_print_json(const Column *columns, GVariant *dict);
/* The same on one line. */
void table_print_json_line(const Column *columns, GVariant *dict);

/* Prints "title   value": the title padded to `width`. */
void table_print_field(const char *title, unsigned width, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* Cells on screen that `text` takes (wide and combining characters counted). */
unsigned table_width(const char *text);

/* Escape sequences for standard output if it is a terminal that wants colours (NO_COLOR, TERM), else "". Static. */
typedef enum { COLOUR_NONE, COLOUR_GOOD, COLOUR_WARNING, COLOUR_BAD, COLOUR_STRONG } Colour;
/* The colour of a COLUMN_STATE word. */
Colour table_state_colour(const char *word);
const char *colour_on(Colour colour);
const char *colour_off(Colour colour);
