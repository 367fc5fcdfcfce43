/*
 * The command line. GOption is not used: its callbacks cannot end the options behind exec's NAME, refuse a doubled
 * option with the name it was given, or say what may have been meant, and it wants arguments in the locale's encoding
 * where exec must hand on any bytes.
 */
#include "cli.h"
#include "hvm_error.h"
#include "near.h"
#include "template_keys.h"

#include <string.h>

const Option global_options[] = {
    {.name = "help", .letter = 'h', .help = "say what hvm, or the command, does and takes"},
    {.name = "version", .help = "print the version of hvm"},
    {.name = "socket", .argument = "PATH", .kind = WORD_FILE,
     .help = "where hvmd listens (default: $HVM_SOCKET or " CLIENT_SOCKET ")"},
    {.name = "verbose", .letter = 'v', .help = "print progress as lines, each with its time"},
    {0},
};

const Option json_option = {.name = "json", .help = "print JSON"};

const Key *option_key(const char *name)
{
    for (const Key *row = template_keys; row->group; row++)
        if (row->option && strcmp(row->option, name) == 0)
            return row;
    return NULL;
}

char *option_setting(const Key *row)
{
    return g_strdup_printf("%s.%s", row->group, row->key);
}

/* The options which template_keys[] describes, made once. */
static const Option *spec_options(void)
{
    static Option *options = NULL;
    GArray *made = NULL;

    if (options)
        return options;
    made = g_array_new(TRUE, TRUE, sizeof(Option));
    for (const Key *row = template_keys; row->group; row++) {
        Option option = {.name = row->option, .help = row->help};

        if (!row->option)
            continue;
        if (row->type != KEY_BOOL)
            option.argument = row->argument ? row->argument : "VALUE";
        option.choices = row->choices;
        g_array_append_val(made, option);
    }
    options = (Option *)(void *)g_array_free(made, FALSE);
    return options;
}

const Option device_option = {
    .name = "device", .argument = "[NAME=]WHICH[,locality=HOW]", .choices = DEVICE_KINDS, .repeatable = TRUE,
    .help = "give the guest a PCI device of the node: WHICH is a kind (" DEVICE_KINDS "), a PCI address, or the name of an interface; "
            "HOW is any, preferred (the default) or required; NAME is dev0, dev1 and so on unless it is given; may be repeated"};

static void add_options(GPtrArray *all, const Option *options, const char *without)
{
    for (const Option *option = options; option && option->name; option++)
        if (g_strcmp0(option->name, without) != 0)
            g_ptr_array_add(all, (gpointer)option);
}

GPtrArray *command_options(const Command *command)
{
    GPtrArray *all = g_ptr_array_new();

    add_options(all, command->options, NULL);
    if (command->spec_options)
        add_options(all, spec_options(), command->without);
    if (command->spec_options)
        g_ptr_array_add(all, (gpointer)&device_option);
    if (command->json)
        g_ptr_array_add(all, (gpointer)&json_option);
    return all;
}

const Command *command_find(char **words, unsigned *ret_used)
{
    for (const Command *command = commands; words[0] && command->name; command++) {
        const char *space = strchr(command->name, ' ');

        if (space && words[1] && strncmp(words[0], command->name, (gsize)(space - command->name)) == 0 &&
            strlen(words[0]) == (gsize)(space - command->name) && strcmp(words[1], space + 1) == 0) {
            *ret_used = 2;
            return command;
        }
    }
    for (const Command *command = commands; words[0] && command->name; command++) {
        if (strcmp(words[0], command->name) == 0 || g_strcmp0(words[0], command->alias) == 0) {
            *ret_used = 1;
            return command;
        }
    }
    return NULL;
}

/* "; did you mean 'start'?" or "". Caller frees. */
static char *meant(const char *word, GPtrArray *candidates, const char *prefix)
{
    const char *nearest = near_find(word, (const char *const *)candidates->pdata, candidates->len);

    return nearest ? g_strdup_printf("; did you mean '%s%s'?", prefix, nearest) : g_strdup("");
}

/* The second words of commands that begin with `first`: "list, show or build". NULL if there are none. */
static char *second_words(const char *first)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GPtrArray) found = g_ptr_array_new();

    for (const Command *command = commands; command->name; command++)
        if (g_str_has_prefix(command->name, first) && command->name[strlen(first)] == ' ')
            g_ptr_array_add(found, (gpointer)(command->name + strlen(first) + 1));
    for (guint i = 0; i < found->len; i++) {
        const char *joint = i == 0 ? "" : i + 1 == found->len ? " or " : ", ";

        g_string_append_printf(text, "%s%s", joint, (char *)found->pdata[i]);
    }
    return found->len ? g_string_free(g_steal_pointer(&text), FALSE) : NULL;
}

static gboolean refuse_command(char **words, GError **error)
{
    g_autofree char *seconds = second_words(words[0]);
    g_autofree char *shown = hvm_escape(words[0], (gssize)MIN(strlen(words[0]), 60));
    g_autofree char *shown_second = words[1] ? hvm_escape(words[1], (gssize)MIN(strlen(words[1]), 60)) : NULL;
    g_autoptr(GPtrArray) names = g_ptr_array_new();

    if (seconds && words[1]) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "unknown command '%s %s': wanted %s", shown, shown_second,
                    seconds);
        return FALSE;
    }
    if (seconds) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "%s: wanted %s", shown, seconds);
        return FALSE;
    }
    for (const Command *command = commands; command->name; command++)
        g_ptr_array_add(names, (gpointer)command->name);

    g_autofree char *hint = meant(words[0], names, "");

    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "unknown command '%s'%s", shown,
                *hint ? hint : " (`hvm --help` lists the commands)");
    return FALSE;
}

static const Option *find_option(GPtrArray *options, const char *name, gsize length, char letter)
{
    for (guint i = 0; i < options->len; i++) {
        const Option *option = options->pdata[i];

        if (name ? strlen(option->name) == length && strncmp(option->name, name, length) == 0
                 : letter && option->letter == letter)
            return option;
    }
    return NULL;
}

static gboolean refuse_option(const Cli *cli, const char *word, GPtrArray *options, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_autofree char *name = g_strndup(word, strcspn(word, "="));
    g_autofree char *shown = hvm_escape(name, (gssize)MIN(strlen(name), 60));
    g_autofree char *hint = NULL;

    for (guint i = 0; i < options->len; i++)
        g_ptr_array_add(names, (gpointer)((const Option *)options->pdata[i])->name);
    hint = meant(name + strspn(name, "-"), names, "--");
    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "%s%sunknown option '%s'%s",
                cli->command ? cli->command->name : "", cli->command ? ": " : "", shown, hint);
    return FALSE;
}

static gboolean store(Cli *cli, const Option *option, const char *value, GError **error)
{
    GPtrArray *values = g_hash_table_lookup(cli->values, option->name);

    if (values && !option->repeatable) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "--%s: wanted once, found twice", option->name);
        return FALSE;
    }
    if (!values) {
        values = g_ptr_array_new();
        g_hash_table_insert(cli->values, (gpointer)option->name, values);
    } else {
        g_ptr_array_set_size(values, (gint)values->len - 1); /* its NULL */
    }
    g_ptr_array_add(values, (gpointer)value);
    g_ptr_array_add(values, NULL);
    return TRUE;
}

/* Takes the option at words[0], and its value; tells how many words that were. */
static gboolean take_option(Cli *cli, char **words, GPtrArray *options, unsigned *ret_used, GError **error)
{
    gboolean is_long = g_str_has_prefix(words[0], "--");
    const char *name = words[0] + (is_long ? 2 : 1);
    gsize length = is_long ? strcspn(name, "=") : 1;
    const Option *option = find_option(options, is_long ? name : NULL, length, is_long ? 0 : name[0]);
    const char *value = name + length; /* what is behind the name in the same word */

    if (!option)
        return refuse_option(cli, words[0], options, error);
    *ret_used = 1;
    if (is_long && *value == '=')
        value++;
    else if (!*value)
        value = NULL;
    if (!option->argument) {
        if (value) {
            g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "--%s: takes no argument", option->name);
            return FALSE;
        }
        return store(cli, option, "", error);
    }
    if (!value && words[1]) {
        value = words[1];
        *ret_used = 2;
    }
    if (!value) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "--%s: wanted %s, found nothing", option->name,
                    option->argument);
        return FALSE;
    }
    return store(cli, option, value, error);
}

static gboolean check_arguments(const Cli *cli, GError **error)
{
    const Command *command = cli->command;
    unsigned count = cli->arguments->len - 1; /* less its NULL */

    if (count < command->arguments_min) {
        g_autofree char *found = count ? hvm_escape(cli_argument(cli, count - 1), -1) : NULL;

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "%s: wanted %s, found %s%s%s", command->name,
                    command->arguments, found ? "only '" : "nothing", found ? found : "", found ? "'" : "");
        return FALSE;
    }
    if (count > command->arguments_max) {
        g_autofree char *shown = hvm_escape(cli_argument(cli, command->arguments_max), -1);

        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "%s: wanted %s, found '%s' as well", command->name,
                    *command->arguments ? command->arguments : "no argument", shown);
        return FALSE;
    }
    return TRUE;
}

gboolean cli_parse(Cli *cli, char **words, GError **error)
{
    g_autoptr(GPtrArray) options = g_ptr_array_new();
    gboolean only_arguments = FALSE;

    cli->values = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)g_ptr_array_unref);
    cli->arguments = g_ptr_array_new();
    add_options(options, global_options, NULL);
    while (*words) {
        unsigned used = 1;

        if (!only_arguments && strcmp(*words, "--") == 0) {
            only_arguments = TRUE;
        } else if (!only_arguments && (*words)[0] == '-' && (*words)[1]) {
            if (!take_option(cli, words, options, &used, error))
                return FALSE;
            if (cli_has(cli, "help") || cli_has(cli, "version"))
                return TRUE;
        } else if (!cli->command) {
            cli->command = command_find(words, &used);
            if (!cli->command)
                /* `hvm template --help` is asked by people who do not know the second word. */
                return g_strcmp0(words[1], "--help") == 0 || g_strcmp0(words[1], "-h") == 0
                           ? store(cli, &global_options[0], "", error)
                           : refuse_command(words, error);

            g_autoptr(GPtrArray) own = command_options(cli->command);

            g_ptr_array_extend(options, own, NULL, NULL);
        } else {
            g_ptr_array_add(cli->arguments, *words);
            only_arguments |= cli->command->options_until && cli->arguments->len >= cli->command->options_until;
        }
        words += used;
    }
    g_ptr_array_add(cli->arguments, NULL);
    if (!cli->command) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "wanted a command, found nothing (`hvm --help` lists them)");
        return FALSE;
    }
    return check_arguments(cli, error);
}

void cli_clear(Cli *cli)
{
    g_clear_pointer(&cli->values, g_hash_table_unref);
    g_clear_pointer(&cli->arguments, g_ptr_array_unref);
    g_clear_pointer(&cli->client, client_free);
}

gboolean cli_has(const Cli *cli, const char *option)
{
    return g_hash_table_contains(cli->values, option);
}

const char *const *cli_values(const Cli *cli, const char *option)
{
    GPtrArray *values = g_hash_table_lookup(cli->values, option);

    return values ? (const char *const *)values->pdata : NULL;
}

const char *cli_value(const Cli *cli, const char *option)
{
    const char *const *values = cli_values(cli, option);

    return values ? values[0] : NULL;
}

gboolean cli_number(const Cli *cli, const char *option, guint64 minimum, guint64 maximum, guint64 *ret_number,
                    GError **error)
{
    const char *text = cli_value(cli, option);

    if (!text || g_ascii_string_to_unsigned(text, 10, minimum, maximum, ret_number, NULL))
        return TRUE;

    g_autofree char *shown = hvm_escape(text, (gssize)MIN(strlen(text), 60));

    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                "--%s: wanted %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT ", found '%s'", option, minimum, maximum,
                shown);
    return FALSE;
}

const char *cli_argument(const Cli *cli, unsigned i)
{
    return cli->arguments->pdata[i];
}
