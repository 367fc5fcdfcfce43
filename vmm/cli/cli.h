/*
 * cli.h: what the commands of hvm share.
 *
 * One table (commands.c) holds every command: its words, arguments, options, help and function. From it come the
 * parser, --help, the completion of the shell and hvm(1). A command's function reads its options and arguments from
 * Cli, calls hvmd, prints on standard output, and returns an exit status; on failure it sets the error, which main()
 * prints once as one line "hvm: ..." and turns into the exit status of the error table.
 * Threads: the main thread only.
 */
#pragma once

#include "client.h"
#include "settings.h"

#include <stdio.h>

/* What an argument or an option's value is: how the shell completes it, and what --help calls it. */
typedef enum {
    WORD_OTHER,
    WORD_GUEST,
    WORD_TEMPLATE,
    WORD_GUEST_OR_TEMPLATE,
    WORD_FILE,
    WORD_GUEST_FILE, /* a file, or guest:file */
} WordKind;

typedef struct {
    const char *name;     /* long name without dashes */
    char letter;          /* short name or 0 */
    const char *argument; /* "SECONDS", or NULL: takes none */
    const char *help;     /* one clause in lower case without a full stop */
    WordKind kind;        /* of the argument */
    const char *choices;  /* "a|b|c" or NULL: for completion */
    gboolean repeatable;  /* may be given more than once */
} Option;

typedef struct Cli Cli;

typedef struct {
    const char *name;       /* "list", "template show" */
    const char *alias;      /* "ls" or NULL */
    const char *arguments;  /* synopsis of the arguments behind the options: "NAME", "" for none */
    const char *help;       /* one clause: the line of `hvm --help` */
    const char *details;    /* paragraphs for --help and the manual, or NULL; one line each, separated by newlines */
    const Option *options;  /* ended by name NULL; or NULL */
    gboolean spec_options;  /* also takes the options of template_keys[] */
    const char *without;    /* one of those which makes no sense here, or NULL */
    gboolean json;          /* also takes --json */
    unsigned arguments_min; /* checked by the parser */
    unsigned arguments_max; /* G_MAXUINT: any number */
    unsigned options_until; /* options end behind so many arguments (`exec`: what follows is a command); 0: nowhere */
    WordKind kind;          /* of the arguments */
    int own_failure;        /* exit status of hvm's own failures, 0: the error table's */
    int (*run)(Cli *cli, GError **error);
} Command;

/* Ended by name NULL, in the order of --help and of the manual. */
extern const Command commands[];

/* Options that every command takes, before or behind its name; ended by name NULL. */
extern const Option global_options[];
extern const Option json_option;
/* The one option of a guest that sets several keys, those of a group [device NAME] (device.c). */
extern const Option device_option;

struct Cli {
    const Command *command; /* NULL until one is named */
    GHashTable *values;     /* option's name -> GPtrArray of its values ("" for an option without argument) */
    GPtrArray *arguments;   /* of char *, NULL-terminated; what is no option */
    Client *client;
};

/* parse.c */

/* Parses a command line without argv[0]. INVALID: unknown or ambiguous command or option (with what may have been
 * meant), a doubled option, a missing or superfluous argument. --help and --version stop parsing of what follows. On
 * failure cli->command may be set. */
gboolean cli_parse(Cli *cli, char **words, GError **error);
void cli_clear(Cli *cli);

/* Whether the option was given; its value, or NULL; all values of a repeatable one (NULL-terminated, owned by cli) or
 * NULL. */
gboolean cli_has(const Cli *cli, const char *option);
const char *cli_value(const Cli *cli, const char *option);
const char *const *cli_values(const Cli *cli, const char *option);
/* A whole number in minimum..maximum; *ret_number is untouched where the option is not given. INVALID. */
gboolean cli_number(const Cli *cli, const char *option, guint64 minimum, guint64 maximum, guint64 *ret_number,
                    GError **error);
/* Argument i (0-based). */
const char *cli_argument(const Cli *cli, unsigned i);

/* The command whose name is `words[0]` or "words[0] words[1]", and how many words that took; NULL if there is none. */
const Command *command_find(char **words, unsigned *ret_used);

/* All options of a command in the order of --help: its own, the template's, --json. Of const Option *; the
 * caller unrefs. */
GPtrArray *command_options(const Command *command);
/* The row of template_keys[] that an option of `create` sets, or NULL. */
const Key *option_key(const char *name);
/* "disk root.size": the setting that a row with an option sets; rows of named groups stand for the group every guest
 * has. Caller frees. */
char *option_setting(const Key *row);

/* help.c */
void help_print(FILE *out);
void help_print_command(FILE *out, const Command *command);
/* "hvm template show [OPTION]... NAME". Caller frees. */
char *help_synopsis(const Command *command);
/* Prints `text` from column `indent` on, broken between words where `out` ends (cli_width()); the cursor stands at
 * `column`. Ends the line. */
void help_print_wrapped(FILE *out, const char *text, int indent, int column);
/* Columns to print in: the terminal's, within 60 to 100; 100 where `out` is none. */
unsigned cli_width(FILE *out);
/* "-n, --lines N". Caller frees. */
char *help_option(const Option *option);

/* device.c */

/* Sets in `settings` (over template_keys[], origin "request") what the values of --device say, each a group of its own. INVALID
 * naming the option. */
gboolean device_options_set(Settings *settings, const char *const *values, GError **error);

/* call.c */

/* The connection, opened when first asked for. Owned by cli. */
Client *cli_client(Cli *cli, GError **error);

/* Calls a method of hvmd with progress on standard error: one line that is renewed on a terminal, lines with --verbose.
 * `cancellable` (only where Ctrl-C should cancel the job and wait for its end): TRUE to have it so. */
gboolean cli_call(Cli *cli, const char *method, GVariant *request, gboolean cancellable, GVariant **ret_reply,
                  GError **error);

/* What the options of template_keys[] set, origin "request". NULL with INVALID naming the option. */
Settings *cli_settings(const Cli *cli, GError **error);

/* The same as a{ss} for a request; floating. */
GVariant *cli_settings_request(const Cli *cli, GError **error);

/* A request with the name of a guest, checked here so that a mistyped one costs no connection. NULL with INVALID.
 * Floating. */
GVariant *cli_name_request(const char *name, GError **error);

/* Runs `one` for every argument as the name of a guest; an error is printed at once. Returns the exit status of the
 * first failure. */
int cli_each_guest(Cli *cli, gboolean (*one)(Cli *cli, const char *name, GError **error));

/* With --verbose, a line on standard error with its time. */
void cli_note(const Cli *cli, const char *text);

/* Prints "hvm: ..." on standard error: one line, the error's message escaped. */
void cli_report(const GError *error);

/* The commands' functions */
int run_doctor(Cli *cli, GError **error);
int run_host(Cli *cli, GError **error);
int run_host_capture(Cli *cli, GError **error);
int run_map(Cli *cli, GError **error);
int run_template_list(Cli *cli, GError **error);
int run_template_show(Cli *cli, GError **error);
int run_template_build(Cli *cli, GError **error);
int run_template_remove(Cli *cli, GError **error);
int run_create(Cli *cli, GError **error);
int run_verify(Cli *cli, GError **error);
int run_start(Cli *cli, GError **error);
int run_stop(Cli *cli, GError **error);
int run_destroy(Cli *cli, GError **error);
int run_list(Cli *cli, GError **error);
int run_show(Cli *cli, GError **error);
int run_logs(Cli *cli, GError **error);
int run_exec(Cli *cli, GError **error);
int run_run(Cli *cli, GError **error);
int run_shell(Cli *cli, GError **error);
int run_console(Cli *cli, GError **error);
int run_cp(Cli *cli, GError **error);
int run_events(Cli *cli, GError **error);
int run_plan(Cli *cli, GError **error);
int run_complete(Cli *cli, GError **error);
