/* hvm: parse, call hvmd, print. */
#include "cli.h"
#include "hvm_error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A standard descriptor that the caller closed must not become the socket. What is put there fails as the closed one
 * would: reading from one opened for writing, and the other way round, is EBADF; standard input reads as empty. */
static void fill_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDONLY) != fd)
            _exit(HVM_EXIT_EXEC_FAILED);
}

/* GSocket sets SIGPIPE to ignored for the whole process. hvm is a filter like others: it takes back what its caller
 * left. */
static void keep_sigpipe(void)
{
    struct sigaction before;

    sigaction(SIGPIPE, NULL, &before);
    g_type_class_unref(g_type_class_ref(G_TYPE_SOCKET));
    sigaction(SIGPIPE, &before, NULL);
}

/* What was printed must have arrived. */
static int finish_output(int status)
{
    int failed = ferror(stdout);

    if (fflush(stdout) == 0 && !failed)
        return status;
    fprintf(stderr, "hvm: cannot write to standard output: %s\n", g_strerror(errno));
    return status ? status : 8;
}

/* Ends as Ctrl-C would have ended it, so that a shell's loop ends with it. */
static void die_interrupted(void)
{
    fflush(stdout);
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
}

static int run(Cli *cli, char **words, GError **error)
{
    if (!*words) {
        help_print(stderr);
        return 2;
    }
    if (!cli_parse(cli, words, error))
        return 1;
    if (cli_has(cli, "version")) {
        puts("hvm " HVM_VERSION);
        return 0;
    }
    if (cli_has(cli, "help")) {
        if (cli->command)
            help_print_command(stdout, cli->command);
        else
            help_print(stdout);
        return 0;
    }
    return cli->command->run(cli, error);
}

int main(int argc G_GNUC_UNUSED, char **argv)
{
    g_autoptr(GError) error = NULL;
    Cli cli = {0};
    int status = 0;

    fill_standard_descriptors();
    keep_sigpipe();
    hvm_error_quark();
    status = run(&cli, argv + 1, &error);
    if (error) {
        cli_report(error);
        status = cli.command && cli.command->own_failure ? cli.command->own_failure : hvm_error_exit_status(error);
        if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
            die_interrupted();
    }
    cli_clear(&cli);
    return finish_output(status);
}
