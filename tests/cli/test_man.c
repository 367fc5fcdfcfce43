/* The manual pages say what the programs say: every option and command of --help is in the page, and the other way
 * round; every key of a template and of hvmd.conf under its group. The README's exit statuses are the error table's. */
#include "cli.h"
#include "config.h"
#include "hvm_error.h"
#include "run_hvm.h"
#include "template_keys.h"

#include <string.h>

/* Adds what the first group of `pattern` matches in `text`. */
static void collect(GHashTable *found, const char *pattern, const char *text)
{
    g_autoptr(GRegex) regex = g_regex_new(pattern, G_REGEX_MULTILINE, 0, NULL);
    g_autoptr(GMatchInfo) match = NULL;

    g_assert_nonnull(regex);
    for (g_regex_match(regex, text, 0, &match); g_match_info_matches(match); g_match_info_next(match, NULL))
        g_hash_table_add(found, g_match_info_fetch(match, 1));
}

static void check_same(GHashTable *program, GHashTable *text, const char *what)
{
    GHashTableIter iter;
    gpointer word = NULL;

    g_assert_cmpuint(g_hash_table_size(program), >, 1);
    g_hash_table_iter_init(&iter, program);
    while (g_hash_table_iter_next(&iter, &word, NULL))
        if (!g_hash_table_contains(text, word))
            g_error("%s '%s' is the program's and not in the text", what, (char *)word);
    g_hash_table_iter_init(&iter, text);
    while (g_hash_table_iter_next(&iter, &word, NULL))
        if (!g_hash_table_contains(program, word))
            g_error("%s '%s' is in the text and not the program's", what, (char *)word);
}

static GHashTable *new_set(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

static char *read_file(const char *folder, const char *name)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    g_autoptr(GError) error = NULL;
    char *text = NULL;

    g_file_get_contents(path, &text, NULL, &error);
    g_assert_no_error(error);
    return text;
}

static char *read_page(const char *name)
{
    return read_file(g_getenv("MAN"), name);
}

#define OPTION_IN_HELP "--([a-z][a-z-]*)"
#define OPTION_IN_PAGE "(?:Fl -|--)([a-z][a-z-]*)"

static void test_hvm(void)
{
    g_autoptr(GHashTable) help_options = new_set();
    g_autoptr(GHashTable) page_options = new_set();
    g_autoptr(GHashTable) help_commands = new_set();
    g_autoptr(GHashTable) page_commands = new_set();
    g_autofree char *page = read_page("hvm.1");
    g_auto(HvmRun) help = run_hvm(NULL, NULL, "--help");
    GHashTableIter iter;
    gpointer command = NULL;

    collect(help_options, OPTION_IN_HELP, help.output);
    collect(help_commands, "^  ([a-z]+(?: [a-z]+)?)  ", help.output);
    collect(page_commands, "^\\.Ss hvm (.*)$", page);
    check_same(help_commands, page_commands, "command");
    g_hash_table_iter_init(&iter, help_commands);
    while (g_hash_table_iter_next(&iter, &command, NULL)) {
        g_autofree char *line = g_strconcat(command, " --help", NULL);
        g_auto(HvmRun) run = run_hvm(NULL, NULL, line);

        g_assert_cmpint(run.status, ==, 0);
        collect(help_options, OPTION_IN_HELP, run.output);
    }
    collect(page_options, OPTION_IN_PAGE, page);
    check_same(help_options, page_options, "option");
}

static void test_hvmd(void)
{
    const char *argv[] = {g_getenv("HVMD"), "--help", NULL};
    g_autoptr(GHashTable) help_options = new_set();
    g_autoptr(GHashTable) page_options = new_set();
    g_autofree char *page = read_page("hvmd.8");
    g_autofree char *help = NULL;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &help, NULL, NULL, NULL));
    collect(help_options, OPTION_IN_HELP, help);
    collect(page_options, OPTION_IN_PAGE, page);
    check_same(help_options, page_options, "option");
}

/* Adds "[group] key" for each key that the page lists below a group. */
static void collect_keys(GHashTable *found, const char *page)
{
    g_auto(GStrv) lines = g_strsplit(page, "\n", -1);
    const char *group = NULL;

    for (char **line = lines; *line; line++) {
        if (g_str_has_prefix(*line, ".S"))
            group = g_str_has_prefix(*line, ".Ss [") ? *line + strlen(".Ss ") : NULL;
        else if (group && g_str_has_prefix(*line, ".It Ic "))
            g_hash_table_add(found, g_strdup_printf("%s %s", group, *line + strlen(".It Ic ")));
    }
}

static void check_keys(const Key *table, const char *page_name)
{
    g_autoptr(GHashTable) keys = new_set();
    g_autoptr(GHashTable) page_keys = new_set();
    g_autofree char *page = read_page(page_name);

    for (const Key *row = table; row->group; row++)
        g_hash_table_add(keys, g_strdup_printf("[%s] %s", row->group, row->key));
    collect_keys(page_keys, page);
    check_same(keys, page_keys, "key");
}

static void test_keys(void)
{
    check_keys(template_keys, "hvm-templates.5");
    check_keys(config_keys, "hvmd.8");
}

/* Variables that the sources ask for, but for those that only tests set. */
static void test_environment(void)
{
    const char *argv[] = {"grep", "-rhE", "--include=*.c", "getenv\\(\"HVM_", "vmm", "storage", "guest-templates", "network", NULL};
    g_autoptr(GHashTable) sources = new_set();
    g_autoptr(GHashTable) pages = new_set();
    g_autofree char *hvm = read_page("hvm.1");
    g_autofree char *hvmd = read_page("hvmd.8");
    g_autofree char *lines = NULL;

    g_assert_true(g_spawn_sync(g_getenv("SOURCE"), (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &lines, NULL, NULL, NULL));
    collect(sources, "getenv\\(\"(HVM_[A-Z_]+)", lines);
    g_hash_table_remove(sources, "HVM_FAULT_FILE");
    g_hash_table_remove(sources, "HVM_SYSROOT");
    collect(pages, "^\\.It Ev (HVM_[A-Z_]+)$", hvm);
    collect(pages, "^\\.It Ev (HVM_[A-Z_]+)$", hvmd);
    check_same(sources, pages, "variable");
}

/* Rows "| 2 | meaning |" of the README against the error table, and 0. */
static void test_readme(void)
{
    g_autofree char *readme = read_file(g_getenv("SOURCE"), "README.md");
    g_autoptr(GHashTable) rows = new_set();
    g_autoptr(GHashTable) table = new_set();

    collect(rows, "^(\\| [0-9]+ \\| .* \\|)$", readme);
    g_hash_table_add(table, g_strdup("| 0 | done |"));
    for (unsigned i = 0; i < hvm_error_count(); i++)
        g_hash_table_add(table, g_strdup_printf("| %d | %s |", hvm_error_status(i), hvm_error_meaning(i)));
    check_same(table, rows, "exit status");
}

/* Every line of --help fits a terminal of 100 columns, and none ends in white space. */
static void test_width(void)
{
    for (const Command *command = commands; command->name; command++) {
        g_autofree char *line = g_strconcat(command->name, " --help", NULL);
        g_auto(HvmRun) run = {0};
        g_auto(GStrv) lines = NULL;

        if (!command->help)
            continue;
        run = run_hvm(NULL, NULL, line);
        lines = g_strsplit(run.output, "\n", -1);
        for (char **each = lines; *each; each++) {
            g_assert_cmpuint(strlen(*each), <=, 100);
            g_assert_false(g_str_has_suffix(*each, " "));
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/man/hvm", test_hvm);
    g_test_add_func("/man/hvmd", test_hvmd);
    g_test_add_func("/man/keys", test_keys);
    g_test_add_func("/man/environment", test_environment);
    g_test_add_func("/man/readme", test_readme);
    g_test_add_func("/man/width", test_width);
    return g_test_run();
}
