#include "cli.h"
#include "key.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDTH_MIN = 60, WIDTH_MAX = 100 };

unsigned cli_width(FILE *out)
{
    struct winsize size = {0};

    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col)
        return CLAMP(size.ws_col, WIDTH_MIN, WIDTH_MAX);
    return WIDTH_MAX;
}

char *help_synopsis(const Command *command)
{
    g_autoptr(GPtrArray) options = command_options(command);

    return g_strdup_printf("hvm %s%s%s%s", command->name, options->len ? " [OPTION]..." : "",
                           *command->arguments ? " " : "", command->arguments);
}

char *help_option(const Option *option)
{
    g_autofree char *letter = option->letter ? g_strdup_printf("-%c, ", option->letter) : g_strdup("");

    return g_strdup_printf("%s--%s%s%s", letter, option->name, option->argument ? " " : "",
                           option->argument ? option->argument : "");
}

void help_print_wrapped(FILE *out, const char *text, int indent, int column)
{
    const int width = (int)cli_width(out);

    for (const char *word = text; *word;) {
        int length = (int)strcspn(word, " ");

        if (column > indent && column + 1 + length > width) {
            fputc('\n', out);
            column = 0;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        if (column < indent)
            column += fprintf(out, "%*s", indent - column, "");
        column += fprintf(out, "%.*s", length, word);
        word += length;
        word += strspn(word, " ");
    }
    fputc('\n', out);
}

/* What the help of an option says beyond its clause: what its key takes, and its default. */
static char *option_text(const Option *option)
{
    const Key *row = option_key(option->name);
    g_autofree char *wanted = NULL;

    if (!row || !option->argument)
        return g_strdup(option->help);
    wanted = key_describe(row);
    if (row->fallback)
        return g_strdup_printf("%s (%s; default %s)", option->help, wanted, row->fallback);
    return g_strdup_printf("%s (%s)", option->help, wanted);
}

static void print_options(FILE *out, GPtrArray *options, gboolean with_keys)
{
    const int column = 28;

    for (guint i = 0; i < options->len; i++) {
        const Option *option = options->pdata[i];
        g_autofree char *name = help_option(option);
        g_autofree char *text = with_keys ? option_text(option) : g_strdup(option->help);
        int used = fprintf(out, "  %s%s", option->letter ? "" : "    ", name);

        if (used >= column) {
            fputc('\n', out);
            used = 0;
        }
        help_print_wrapped(out, text, column, used);
    }
}

static void print_global_options(FILE *out)
{
    g_autoptr(GPtrArray) options = g_ptr_array_new();

    for (const Option *option = global_options; option->name; option++)
        g_ptr_array_add(options, (gpointer)option);
    fputs("\nOptions of every command:\n", out);
    print_options(out, options, FALSE);
}

void help_print(FILE *out)
{
    fputs("Usage: hvm [OPTION]... COMMAND [ARGUMENT]...\n\n"
          "Runs virtual machines on this node, placed on cores and pages of their own.\n\nCommands:\n",
          out);
    for (const Command *command = commands; command->name; command++)
        if (command->help)
            fprintf(out, "  %-18s%s\n", command->name, command->help);
    print_global_options(out);
    fputs("\n`hvm COMMAND --help` says more about a command; hvm(1) is the manual.\n", out);
}

void help_print_command(FILE *out, const Command *command)
{
    g_autofree char *synopsis = help_synopsis(command);
    g_autoptr(GPtrArray) options = command_options(command);

    fprintf(out, "Usage: %s\n\n", synopsis);
    fprintf(out, "%c%s.\n", g_ascii_toupper(command->help[0]), command->help + 1);
    if (command->alias)
        fprintf(out, "Short: hvm %s\n", command->alias);
    if (command->details) {
        g_auto(GStrv) paragraphs = g_strsplit(command->details, "\n", -1);

        for (char **paragraph = paragraphs; *paragraph; paragraph++) {
            fputc('\n', out);
            help_print_wrapped(out, *paragraph, 0, 0);
        }
    }
    if (options->len) {
        fputs("\nOptions:\n", out);
        print_options(out, options, TRUE);
    }
    print_global_options(out);
}
