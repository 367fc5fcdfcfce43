/*
 * generate: a manual page out of its source, with the lists of the programs' tables.
 *
 * Input: mdoc(7) in which some lines are only a mark, "@COMMANDS@". Output: the same with lists in place of the marks,
 * on standard output. An unknown mark is an error.
 */
#include "cli.h"
#include "config.h"
#include "hvm_error.h"
#include "template_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Running text: roff's own characters are taken from it, and each sentence gets a line of its own, as mdoc wants it. */
static void put_text(const char *text)
{
    gboolean begins = TRUE;

    for (; *text; text++) {
        if (begins && (*text == '.' || *text == '\''))
            fputs("\\&", stdout);
        begins = g_str_has_prefix(text, ". ");
        if (begins) {
            fputs(".\n", stdout);
            text++;
        } else if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '`')
            fputs("\\(ga", stdout);
        else if (*text == '~')
            fputs("\\(ti", stdout);
        else if (*text == '^')
            fputs("\\(ha", stdout);
        else if (*text == '-')
            fputs(text[1] == '-' ? "\\-" : "-", stdout);
        else
            putchar(*text);
    }
    putchar('\n');
}

/* Text as one argument of a macro. */
static void put_quoted(const char *text)
{
    putchar('"');
    for (; *text; text++)
        fputs(*text == '"' ? "\"\"" : *text == '\\' ? "\\e" : (char[]){*text, '\0'}, stdout);
    putchar('"');
}

/* A clause as a sentence. */
static void put_sentence(const char *clause)
{
    g_autofree char *sentence = g_strdup_printf("%c%s.", g_ascii_toupper(clause[0]), clause + 1);

    put_text(sentence);
}

static void put_option(const Option *option)
{
    fputs(".It ", stdout);
    if (option->letter)
        printf("Fl %c , ", option->letter);
    printf("Fl -%s", option->name);
    if (option->argument)
        printf(" Ar %s", option->argument);
    putchar('\n');
    put_sentence(option->help);
}

static void put_paragraphs(const char *text)
{
    g_auto(GStrv) paragraphs = g_strsplit(text, "\n", -1);

    for (char **paragraph = paragraphs; *paragraph; paragraph++) {
        puts(".Pp");
        put_text(*paragraph);
    }
}

static void put_command(const Command *command)
{
    g_autofree char *synopsis = help_synopsis(command);

    printf(".Ss hvm %s\n.Dl ", command->name);
    put_quoted(synopsis);
    puts("\n.Pp");
    put_sentence(command->help);
    if (command->alias)
        printf("Short:\n.Ic hvm %s .\n", command->alias);
    if (command->details)
        put_paragraphs(command->details);
    if (command->options) {
        puts(".Bl -tag -width Ds");
        for (const Option *option = command->options; option->name; option++)
            put_option(option);
        puts(".El");
    }
    if (command->spec_options && command->without)
        printf(".Pp\nTakes the options of\n.Sx GUEST OPTIONS\nas well, but for\n.Fl -%s .\n", command->without);
    else if (command->spec_options)
        puts(".Pp\nTakes the options of\n.Sx GUEST OPTIONS\nas well.");
    if (command->json) {
        puts(".Bl -tag -width Ds");
        put_option(&json_option);
        puts(".El");
    }
}

static void put_commands(void)
{
    for (const Command *command = commands; command->name; command++)
        if (command->help)
            put_command(command);
}

static void put_global_options(void)
{
    puts(".Bl -tag -width Ds");
    for (const Option *option = global_options; option->name; option++)
        put_option(option);
    puts(".El");
}

static void put_wanted(const Key *row)
{
    g_autofree char *wanted = key_describe(row);

    fputs("Value: ", stdout);
    put_text(wanted);
    if (row->fallback && *row->fallback)
        printf("(default\n.Ql %s ) .\n", row->fallback);
    else
        puts("(no default).");
}

static void put_guest_options(void)
{
    puts(".Bl -tag -width Ds");
    for (const Key *row = template_keys; row->group; row++) {
        g_autofree char *setting = row->option ? option_setting(row) : NULL;

        if (!row->option)
            continue;
        printf(".It Fl -%s", row->option);
        if (row->type != KEY_BOOL)
            printf(" Ar %s", row->argument);
        putchar('\n');
        put_sentence(row->help);
        if (row->type != KEY_BOOL)
            put_wanted(row);
        printf("Sets\n.Ic \"%s\" .\n", setting);
    }
    put_option(&device_option);
    puts("Sets the keys of\n.Ic \"[device NAME]\" .");
    puts(".El");
}

static void put_keys(const Key *table)
{
    const char *group = "";

    for (const Key *row = table; row->group; row++) {
        if (strcmp(group, row->group) != 0) {
            puts(*group ? ".El" : ".\\\" The groups");
            printf(".Ss [%s]\n.Bl -tag -width Ds\n", row->group);
        }
        group = row->group;
        printf(".It Ic %s\n", row->key);
        put_sentence(row->help);
        put_wanted(row);
        if (row->option)
            printf("Option:\n.Fl -%s .\n", row->option);
    }
    puts(".El");
}

static void put_template_keys(void)
{
    put_keys(template_keys);
}

static void put_config_keys(void)
{
    put_keys(config_keys);
}

static void put_statuses(void)
{
    puts(".Bl -tag -width Ds\n.It 0\nIt is done.");
    for (unsigned i = 0; i < hvm_error_count(); i++) {
        printf(".It %d\n", hvm_error_status(i));
        put_sentence(hvm_error_meaning(i));
    }
    puts(".El");
}

static const struct {
    const char *mark;
    void (*put)(void);
} marks[] = {
    {"@COMMANDS@", put_commands},           {"@GLOBAL_OPTIONS@", put_global_options},
    {"@GUEST_OPTIONS@", put_guest_options}, {"@TEMPLATE_KEYS@", put_template_keys},
    {"@CONFIG_KEYS@", put_config_keys},     {"@STATUSES@", put_statuses},
};

static gboolean put_line(const char *line)
{
    if (line[0] != '@') {
        puts(line);
        return TRUE;
    }
    for (gsize i = 0; i < G_N_ELEMENTS(marks); i++) {
        if (strcmp(line, marks[i].mark) == 0) {
            marks[i].put();
            return TRUE;
        }
    }
    fprintf(stderr, "unknown mark %s\n", line);
    return FALSE;
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (argc != 2 || !g_file_get_contents(argv[1], &text, NULL, &error)) {
        fprintf(stderr, "%s\n", error ? error->message : "wanted the source of a manual page");
        return EXIT_FAILURE;
    }
    lines = g_strsplit(g_strchomp(text), "\n", -1);
    for (char **line = lines; *line; line++)
        if (!put_line(*line))
            return EXIT_FAILURE;
    return EXIT_SUCCESS;
}
