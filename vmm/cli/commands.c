#include "cli.h"
#include "hvm_error.h"

static const Option create_options[] = {
    {.name = "template", .letter = 't', .argument = "TEMPLATE", .help = "template that the guest is made from",
     .kind = WORD_TEMPLATE},
    {.name = "start", .help = "start it as well; where that is refused, it is not created"},
    {0},
};

static const Option start_options[] = {
    {.name = "no-wait", .help = "do not wait until the guest's agent answers"},
    {0},
};

static const Option stop_options[] = {
    {.name = "timeout", .argument = "SECONDS", .help = "how long to ask before it is stopped hard (default: 60)"},
    {.name = "hard", .help = "do not ask: stop it at once, as if its power was cut"},
    {0},
};

static const Option verify_options[] = {
    {.name = "all", .letter = 'a', .help = "all of your guests that run (all guests for root)"},
    {0},
};

static const Option logs_options[] = {
    {.name = "lines", .letter = 'n', .argument = "N", .help = "only the last N lines"},
    {0},
};

/* What exec, run, shell and cp have in common. */
#define OPTION_USER \
    {.name = "user", .letter = 'u', .argument = "USER", .help = "user of the guest to be (default: your own uid, gid and groups)"}
#define OPTION_ENV \
    {.name = "env", .letter = 'e', .argument = "NAME=VALUE", .help = "set a variable of its environment; may be repeated", .repeatable = TRUE}

static const Option exec_options[] = {
    OPTION_USER,
    {.name = "cwd", .argument = "FOLDER",
     .help = "folder to be in, which must be there (default: yours if the guest has it, else the user's home)"},
    OPTION_ENV,
    {.name = "tty", .letter = 't', .help = "give it a terminal; standard input must be one"},
    {0},
};

static const Option shell_options[] = {
    OPTION_USER,
    {.name = "cwd", .argument = "FOLDER", .help = "folder to begin in, which must be there (default: the user's home)"},
    OPTION_ENV,
    {0},
};

static const Option cp_options[] = {
    OPTION_USER,
    {0},
};

static const Option console_options[] = {
    {.name = "read-only", .help = "watch only: what is typed is not sent"},
    {0},
};

static const Option map_options[] = {
    {.name = "svg", .argument = "FILE", .help = "write a picture into a file instead", .kind = WORD_FILE},
    {.name = "host", .argument = "WHERE", .help = "another node, as for plan", .kind = WORD_FILE},
    {0},
};

static const Option plan_options[] = {
    {.name = "template", .letter = 't', .argument = "TEMPLATE", .help = "template that the guest would be made from",
     .kind = WORD_TEMPLATE},
    {.name = "host", .argument = "WHERE", .help = "the node to plan for (default: this one)", .kind = WORD_FILE},
    {.name = "xml", .help = "print libvirt's domain XML"},
    {0},
};

const Command commands[] = {
    {.name = "doctor", .arguments = "", .help = "check whether this node is fit to run guests", .json = TRUE,
     .run = run_doctor,
     .details = "One line a check: ok, warning or failure, what was found, and where it matters what it means and what "
                "to do. "
                "Works without hvmd as well, and then checks the node alone.\n"
                "Exit status 0 where nothing failed (there may be warnings), 8 otherwise."},
    {.name = "host", .arguments = "", .help = "show the node: cores, memory, pages, and what is promised to whom",
     .json = TRUE,
     .run = run_host},
    {.name = "host capture", .arguments = "FILE",
     .help = "write all that placement needs to know of this node into a file",
     .arguments_min = 1, .arguments_max = 1, .kind = WORD_FILE, .run = run_host_capture,
     .details = "`hvm plan --host FILE` plans for the node that it describes. Works without hvmd."},
    {.name = "map", .arguments = "", .help = "draw the node: packages, NUMA nodes, caches, cores, and who has which",
     .options = map_options, .run = run_map,
     .details = "Where hvmd cannot be reached, and with --host, nothing is promised to anyone in the drawing."},
    {.name = "template list", .arguments = "", .help = "list the templates", .json = TRUE, .run = run_template_list},
    {.name = "template show", .arguments = "TEMPLATE", .help = "show a template: each value and where it comes from",
     .json = TRUE,
     .arguments_min = 1, .arguments_max = 1, .kind = WORD_TEMPLATE, .run = run_template_show},
    {.name = "template build", .arguments = "TEMPLATE", .help = "build an image from a template", .json = TRUE,
     .arguments_min = 1, .arguments_max = 1, .kind = WORD_TEMPLATE, .run = run_template_build,
     .details = "Takes minutes. Ctrl-C cancels it, and nothing is left behind. Only root may build."},
    {.name = "template remove", .arguments = "TEMPLATE [REVISION]",
     .help = "remove a template's images, or one of them",
     .arguments_min = 1, .arguments_max = 2, .kind = WORD_TEMPLATE, .run = run_template_remove,
     .details = "An image that a guest stands on is not removed. The template itself, a file, stays. Only root may "
                "remove."},
    {.name = "create", .arguments = "NAME", .help = "create a guest from a template", .options = create_options,
     .spec_options = TRUE, .json = TRUE, .arguments_min = 1, .arguments_max = 1, .run = run_create,
     .details = "The guest is yours. It gets cores and memory when it starts, not before; what could never fit this "
                "node is "
                "refused at once.\n"
                "The options from --cpus on change what the template says; the defaults shown hold where it says "
                "nothing. "
                "hvm-templates(5) tells more."},
    {.name = "start", .arguments = "NAME...", .help = "start guests, on cores and pages of their own",
     .options = start_options,
     .arguments_min = 1, .arguments_max = G_MAXUINT, .kind = WORD_GUEST, .run = run_start,
     .details = "Several guests are started one after the other; the exit status is that of the first failure. A guest whose "
                "disk finds the image store full, now or later, is paused; with room, virsh resume NAME lets it go on."},
    {.name = "stop", .arguments = "NAME...", .help = "stop guests", .options = stop_options, .arguments_min = 1,
     .arguments_max = G_MAXUINT, .kind = WORD_GUEST, .run = run_stop,
     .details = "Asks the guest's agent, then presses its power button, then stops it hard; a paused guest is let go on first. "
                "Its cores and pages are free then; its disk stays."},
    {.name = "destroy", .arguments = "NAME...", .help = "remove guests, running or not, with their disks",
     .arguments_min = 1,
     .arguments_max = G_MAXUINT, .kind = WORD_GUEST, .run = run_destroy},
    {.name = "list", .alias = "ls", .arguments = "", .help = "list your guests (all guests for root)", .json = TRUE,
     .run = run_list},
    {.name = "show", .arguments = "NAME", .help = "show a guest: state, cores, pages, and where each value comes from",
     .json = TRUE, .arguments_min = 1, .arguments_max = 1, .kind = WORD_GUEST, .run = run_show},
    {.name = "verify", .arguments = "[NAME]...", .help = "hold what the kernel does against what a guest was promised",
     .options = verify_options, .json = TRUE, .arguments_max = G_MAXUINT, .kind = WORD_GUEST, .run = run_verify,
     .details = "Reads back the CPUs of every thread of the guest, and where its memory is and in what pages.\n"
                "Exit status 0 where all promises are kept, 8 otherwise."},
    {.name = "logs", .arguments = "NAME", .help = "print what a guest wrote to its console", .options = logs_options,
     .arguments_min = 1, .arguments_max = 1, .kind = WORD_GUEST, .run = run_logs,
     .details = "On a terminal all but lines and tabs is escaped; otherwise it comes as the guest wrote it."},
    {.name = "exec", .arguments = "NAME [--] COMMAND [ARGUMENT]...", .help = "run a command in a guest",
     .options = exec_options,
     .arguments_min = 2, .arguments_max = G_MAXUINT, .options_until = 2, .kind = WORD_GUEST,
     .own_failure = HVM_EXIT_EXEC_FAILED, .run = run_exec,
     .details = "Options stand before COMMAND. Standard input, output and error are the command's, unaltered; SIGINT, "
                "SIGTERM, "
                "SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to it; it is ended when hvm ends.\n"
                "Exit status: the command's; 128+N where signal N ended it; 127 where it is not found, 126 where it "
                "cannot be "
                "run; 125 where hvm itself failed."},
    {.name = "run", .arguments = "TEMPLATE [--] COMMAND [ARGUMENT]...",
     .help = "run a command in a guest made for it, which is gone when it ends", .options = exec_options,
     .spec_options = TRUE,
     .without = "autostart", .arguments_min = 2, .arguments_max = G_MAXUINT, .options_until = 2, .kind = WORD_TEMPLATE,
     .own_failure = HVM_EXIT_EXEC_FAILED, .run = run_run,
     .details = "As create, start, exec and destroy in one: what those say holds. The guest ends with hvm, however that ends."},
    {.name = "shell", .arguments = "NAME|TEMPLATE", .help = "open a login shell in a guest, or in one made from a template",
     .options = shell_options, .spec_options = TRUE, .without = "autostart", .arguments_min = 1, .arguments_max = 1,
     .kind = WORD_GUEST_OR_TEMPLATE, .own_failure = HVM_EXIT_EXEC_FAILED, .run = run_shell,
     .details = "Where you have a guest of that name, the shell is opened in it. Otherwise a guest is made from the template of that "
                "name, with create's options, and is gone when the shell ends.\n"
                "The shell is that of the user in the guest, and begins in the user's home. It gets a terminal where standard "
                "input is one, and commands to read where it is not.\n"
                "Exit status: the shell's, as of exec."},
    {.name = "cp", .arguments = "SOURCE DESTINATION", .help = "copy a file or a folder into a guest, or out of it",
     .options = cp_options, .arguments_min = 2, .arguments_max = 2, .kind = WORD_GUEST_FILE, .run = run_cp,
     .details = "One of the two is GUEST:PATH; a PATH that does not begin with '/' is below the user's home in the guest. A file of "
                "this node with a colon in its name is written ./a:b.\n"
                "A folder is copied with all below it. Into a folder that is there the copy goes under its own name; otherwise it "
                "gets the name that DESTINATION says. A file replaces a file; nothing is put over a folder. What is copied appears "
                "when it is whole, or not at all.\n"
                "Modes (without set-uid, set-gid and sticky bits), times of change and links are kept; copies belong to the user. "
                "Devices, pipes and sockets are left out, which is said. A link which is named itself is followed. The guest must "
                "have sh and tar."},
    {.name = "console", .arguments = "NAME", .help = "join a guest's serial console", .options = console_options,
     .arguments_min = 1, .arguments_max = 1, .kind = WORD_GUEST, .run = run_console,
     .details = "On a terminal what is typed goes to the guest; Ctrl-] leaves the console. Many may watch it; one may type.\n"
                "Where standard input is no terminal the console is watched only, until it ends or SIGINT comes.\n"
                "It shows what comes from now on; `hvm logs` prints what came before. A console may have a login; `hvm shell` "
                "needs none."},
    {.name = "events", .arguments = "", .help = "print what happens to your guests (all guests for root), as it happens",
     .json = TRUE, .run = run_events,
     .details = "One line an event: the time, the guest, and created, destroyed or its new state. With --json one object a line, "
                "whose time is microseconds since 1970.\n"
                "Ends with SIGINT, exit status 0, or when hvmd stops, exit status 8. With --verbose it says when it has begun to "
                "listen."},
    {.name = "plan", .arguments = "NAME", .help = "say where a guest would be placed, and why, without making it",
     .options = plan_options, .spec_options = TRUE, .json = TRUE, .arguments_min = 1, .arguments_max = 1,
     .run = run_plan,
     .details = "Takes create's options. Decides as start would: among what other guests, the node's housekeeping and the "
                "caller's own cpuset leave. Where hvmd, which knows of the guests, does not answer, it plans as if none ran, and "
                "says so. Needs no image and no right, and touches nothing.\n"
                "--host plans for another node, on which nothing is promised: a file that `hvm host capture` wrote, hwloc's XML export of a node, or "
                "a made-up "
                "one, as in --host 'synthetic:package:2 numanode:1 core:16 pu:2'."},
    {.name = "__complete", .arguments = "[WORD]...", .arguments_max = G_MAXUINT, .run = run_complete},
    {0},
};
