/*
 * __complete: candidates for the last word of a command line, one a line, for the shells' completion.
 * It must stay silent: no hvmd, no right, a mistyped word give no candidates and no message.
 */
#include "cli.h"

#include <string.h>

static void offer(const char *candidate, const char *prefix)
{
    if (g_str_has_prefix(candidate, prefix))
        puts(candidate);
}

/* Names that a listing of hvmd gives, with `suffix`. */
static void offer_names(Cli *cli, const char *method, const char *list, const char *suffix, const char *prefix)
{
    Client *client = cli_client(cli, NULL);
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GVariant) rows = NULL;

    if (!client || !client_call(client, method, NULL, NULL, &reply, NULL))
        return;
    rows = g_variant_lookup_value(reply, list, G_VARIANT_TYPE("aa{sv}"));
    for (gsize i = 0; rows && i < g_variant_n_children(rows); i++) {
        g_autoptr(GVariant) row = g_variant_get_child_value(rows, i);
        const char *name = NULL;

        if (g_variant_lookup(row, "name", "&s", &name)) {
            g_autofree char *candidate = g_strconcat(name, suffix, NULL);

            offer(candidate, prefix);
        }
    }
}

static void offer_kind(Cli *cli, WordKind kind, const char *prefix)
{
    switch (kind) {
    case WORD_GUEST:
        offer_names(cli, "List", "guests", "", prefix);
        break;
    case WORD_GUEST_OR_TEMPLATE:
        offer_names(cli, "List", "guests", "", prefix);
        offer_names(cli, "ListTemplates", "templates", "", prefix);
        break;
    case WORD_TEMPLATE:
        offer_names(cli, "ListTemplates", "templates", "", prefix);
        break;
    case WORD_GUEST_FILE: /* files of this node: by the shell */
        offer_names(cli, "List", "guests", ":", prefix);
        break;
    case WORD_FILE: /* the shell completes those itself */
    case WORD_OTHER:
        break;
    }
}

/* The next words of command names that begin with the words before. */
static void offer_commands(char **before, const char *prefix)
{
    const char *last = NULL; /* "template list" and "template show" offer "template" once: they stand together */

    for (const Command *command = commands; command->name; command++) {
        g_auto(GStrv) parts = g_strsplit(command->name, " ", 2);
        const char *candidate = !before[0] ? parts[0] : g_str_equal(before[0], parts[0]) ? parts[1] : NULL;

        if (!command->help || !candidate)
            continue;
        if (!last || strncmp(last, candidate, strlen(candidate) + 1) != 0)
            offer(candidate, prefix);
        last = before[0] ? NULL : g_intern_string(candidate);
    }
}

static const Option *long_option(GPtrArray *options, const char *word)
{
    for (guint i = 0; i < options->len; i++) {
        const Option *option = options->pdata[i];

        if ((g_str_has_prefix(word, "--") && strcmp(word + 2, option->name) == 0) ||
            (word[0] == '-' && word[1] && word[1] == option->letter && !word[2]))
            return option;
    }
    return NULL;
}

static void offer_options(GPtrArray *options, const char *prefix)
{
    for (guint i = 0; i < options->len; i++) {
        g_autofree char *name = g_strconcat("--", ((const Option *)options->pdata[i])->name, NULL);

        offer(name, prefix);
    }
}

static void offer_values(Cli *cli, const Option *option, const char *prefix)
{
    g_auto(GStrv) choices = g_strsplit(option->choices ? option->choices : "", "|", -1);

    for (char **choice = choices; *choice; choice++)
        offer(*choice, prefix);
    offer_kind(cli, option->kind, prefix);
}

int run_complete(Cli *cli, GError **error G_GNUC_UNUSED)
{
    char **words = (char **)cli->arguments->pdata;
    guint count = cli->arguments->len - 1;
    unsigned used = 0, arguments = 0;
    const char *prefix = count ? words[count - 1] : "";
    const char *previous = count > 1 ? words[count - 2] : "";
    const Command *command = NULL;
    g_autoptr(GPtrArray) options = NULL;

    if (!count)
        return 0;
    words[count - 1] = NULL; /* what stands before the word that is completed */
    command = command_find(words, &used);
    if (!command || (used == 1 && count == 2 && g_str_equal(command->name, "host")))
        offer_commands(words, prefix);
    if (!command)
        return 0;
    options = command_options(command);
    for (const Option *option = global_options; option->name; option++)
        g_ptr_array_add(options, (gpointer)option);

    const Option *valued = long_option(options, previous);

    for (char **word = words + used; *word; word++) {
        const Option *option = long_option(options, *word);

        if (option && option->argument && word[1])
            word++;
        else if (!option)
            arguments++;
    }
    if (valued && valued->argument)
        offer_values(cli, valued, prefix);
    else if (command->options_until && arguments >= command->options_until)
        return 0;
    else if (prefix[0] == '-')
        offer_options(options, prefix);
    else if (arguments < command->arguments_max && (!command->options_until || arguments == 0))
        offer_kind(cli, command->kind, prefix);
    return 0;
}
