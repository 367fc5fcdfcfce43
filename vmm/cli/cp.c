/*
 * cp: copies a file or a folder into a guest, or out of it.
 *
 * It goes as a stream of tar over an exec of the guest's own sh and tar, as the user, from the user's home. Either side unpacks into a
 * new folder beside the destination and renames what is whole. cp_archive.h is this node's end of the stream.
 */
#include "cp_archive.h"
#include "cp_stage.h"
#include "guest_command.h"
#include "hvm_error.h"
#include "signals.h"
#include "terminal.h"
#include "units.h"

#include <errno.h>
#include <glib-unix.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ERRORS_BYTES_MAX = 4096, END_PATIENCE_S = 5 };

/* Both: exit statuses are the error table's, and the first line on standard error says why. */
#define SCRIPT_HEAD \
    "unset CDPATH; die() { status=$1; shift; printf '%s\\n' \"$*\" >&2; exit \"$status\"; }\n" \
    "command -v tar >/dev/null 2>&1 || die 12 'it has no tar'\n" \
    "case $1 in '') path=. ;; -*) path=./$1 ;; *) path=$1 ;; esac\n"

/* PATH */
static const char script_out[] = SCRIPT_HEAD
    "if [ -d \"$path\" ]; then\n"
    "    cd -- \"$path\" || exit 5\n"
    "    tar -c -f - . || exit 11\n"
    "elif [ -f \"$path\" ]; then\n"
    "    [ -r \"$path\" ] || die 5 \"$path: permission denied\"\n"
    "    case $path in */*) cd -- \"${path%/*}/\" || exit 5 ;; esac\n"
    "    tar -c -h -f - \"./${path##*/}\" || exit 11\n"
    "elif [ -e \"$path\" ]; then\n"
    "    die 2 \"$path is neither a file nor a folder\"\n"
    "else\n"
    "    die 3 \"there is no $path\"\n"
    "fi\n";

/* PATH NAME KIND MODE: the name is that in a folder which is there. */
static const char script_into[] = SCRIPT_HEAD
    "umask 077\n"
    "if [ -d \"$path\" ]; then path=${path%/}/$2\n"
    "else case $path in */) die 3 \"there is no folder $path\" ;; esac; fi\n"
    "[ ! -d \"$path\" ] || die 4 \"there is a folder $path already\"\n"
    "if [ \"$3\" = folder ] && { [ -e \"$path\" ] || [ -L \"$path\" ]; }; then die 4 \"$path is there already, and no folder\"; fi\n"
    "case $path in */*) parent=${path%/*}/ ;; *) parent=./ ;; esac\n"
    "[ -d \"$parent\" ] || die 3 \"there is no folder $parent\"\n"
    "[ -w \"$parent\" ] && [ -x \"$parent\" ] || die 5 \"$parent: permission denied\"\n"
    "stage=$parent.hvm-cp.$$\n"
    "mkdir -- \"$stage\" || exit 11\n"
    /* A second signal must not end the clearing up. */
    "clean() { trap '' HUP INT TERM PIPE; rm -rf \"$stage\"; }\n"
    "trap clean EXIT\n"
    "trap 'clean; exit 1' HUP INT TERM PIPE\n"
    "tar -x -p -o -f - -C \"$stage\" || exit 11\n"
    "[ -e \"$stage/" CP_WHOLE "\" ] || die 11 'the copy was cut short'\n"
    "mv -f -- \"$stage/" CP_TOP "\" \"$path\" || exit 11\n"
    "chmod \"$4\" \"$path\" || exit 11\n";

typedef struct {
    Cli *cli;
    const char *guest_path;
    const char *local;
    char *guest;
    gboolean into_guest;
    CpStage stage;        /* of a copy out of the guest */
    /* the exec */
    guint32 number;
    int stream_fd;
    int other_fd;         /* its output on the way in, its input on the way out: empty */
    int errors_fd;
    GString *errors;
    gboolean waited;
    gboolean lost;
    int status;           /* the script's; 128+N by a signal */
    GError *wait_error;
    /* our end */
    char *source;         /* real path */
    GThread *worker;
    gboolean finished;
    gboolean good;
    CpResult result;
    GError *error;
    gboolean gave_up;     /* after an end of our own the guest's side did not end */
    int signal_number;
} Copy;

/* --- the command line ----------------------------------------------------------------------------------------------- */

/* The path behind "guest:", or NULL where the word names a file of this node. */
static const char *split_place(const char *word, char **ret_guest)
{
    const char *colon = strchr(word, ':');
    g_autofree char *name = colon ? g_strndup(word, (gsize)(colon - word)) : NULL;

    if (!name || !name_check(name, "guest name", NULL))
        return NULL;
    *ret_guest = g_steal_pointer(&name);
    return colon + 1;
}

static gboolean read_places(Copy *copy, GError **error)
{
    const char *from = cli_argument(copy->cli, 0), *to = cli_argument(copy->cli, 1);
    g_autofree char *from_guest = NULL;
    g_autofree char *to_guest = NULL;
    const char *from_path = split_place(from, &from_guest), *to_path = split_place(to, &to_guest);

    if (!from_guest == !to_guest) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID,
                    "cp: wanted GUEST:PATH on one side and a path of this node on the other, found %s (./a:b is a file of this node)",
                    from_guest ? "a guest on both" : "no guest on either");
        return FALSE;
    }
    copy->into_guest = to_guest != NULL;
    copy->guest = to_guest ? g_steal_pointer(&to_guest) : g_steal_pointer(&from_guest);
    copy->guest_path = copy->into_guest ? to_path : from_path;
    copy->local = copy->into_guest ? from : to;
    if (*copy->local)
        return TRUE;
    g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "cp: wanted a path of this node, found nothing");
    return FALSE;
}

static gboolean find_source(Copy *copy, struct stat *ret_status, GError **error)
{
    char *real = realpath(copy->local, NULL);

    if (!real || stat(real, ret_status) < 0) {
        cp_set_error(errno, "cannot copy", copy->local, error);
        free(real);
        return FALSE;
    }
    copy->source = g_strdup(real);
    free(real);
    if (!S_ISREG(ret_status->st_mode) && !S_ISDIR(ret_status->st_mode)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "cannot copy %s: it is neither a file nor a folder", copy->local);
        return FALSE;
    }
    return TRUE;
}

/* --- the end ---------------------------------------------------------------------------------------------------------- */

/* Ends the guest's side, if it still runs: it then clears what it staged. */
static void end_exec(Copy *copy)
{
    GVariantDict request;

    if (copy->waited || !copy->number)
        return;
    shutdown(copy->stream_fd, SHUT_RDWR);
    guest_command_init_control(&request, copy->number);
    g_variant_dict_insert(&request, "signal", "i", SIGTERM);
    client_send(copy->cli->client, "ExecControl", g_variant_dict_end(&request));
}

static gboolean on_gave_up(gpointer data)
{
    ((Copy *)data)->gave_up = TRUE;
    return G_SOURCE_REMOVE;
}

static void on_signal(int number, gpointer data)
{
    Copy *copy = data;

    /* Before there is anything to end, and when asked again, hvm ends at once. */
    if (!copy->number || copy->signal_number) {
        cp_stage_clear(&copy->stage);
        terminal_die_by_signal(number);
    }
    copy->signal_number = number;
    end_exec(copy);
    g_timeout_add_seconds(END_PATIENCE_S, on_gave_up, copy);
}

/* --- the exec ----------------------------------------------------------------------------------------------------------- */

static gboolean on_errors(int fd, GIOCondition condition G_GNUC_UNUSED, gpointer data)
{
    Copy *copy = data;
    char buffer[1024];
    ssize_t count = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);

    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    if (count <= 0) {
        copy->errors_fd = -1;
        close(fd);
        return G_SOURCE_REMOVE;
    }
    if (copy->errors->len < ERRORS_BYTES_MAX) /* the first lines; the rest is read, and dropped */
        g_string_append_len(copy->errors, buffer, MIN(count, (ssize_t)(ERRORS_BYTES_MAX - copy->errors->len)));
    return G_SOURCE_CONTINUE;
}

static void on_exec_end(GVariant *reply, const GError *error, gpointer data)
{
    Copy *copy = data;
    GuestCommandEnd end;

    copy->waited = TRUE;
    if (copy->into_guest)
        shutdown(copy->stream_fd, SHUT_RDWR); /* nobody reads it any more */
    if (error) {
        copy->wait_error = g_error_copy(error);
        return;
    }
    guest_command_read_end(reply, &end);
    copy->lost = end.lost;
    copy->status = end.status;
    if (*end.reason && copy->errors->len == 0)
        g_string_assign(copy->errors, end.reason);
}

static GVariant *exec_request(const Copy *copy, const struct stat *source, GError **error)
{
    g_autofree char *whole = copy->into_guest ? g_canonicalize_filename(copy->local, NULL) : NULL;
    g_autofree char *name = whole ? cp_name(whole, error) : NULL;
    g_autofree char *mode = g_strdup_printf("%o", source->st_mode & 0777);
    const char *const into[] = {"/bin/sh", "-c", script_into, "hvm-cp", copy->guest_path, name,
                                S_ISDIR(source->st_mode) ? "folder" : "file", mode, NULL};
    const char *const out[] = {"/bin/sh", "-c", script_out, "hvm-cp", copy->guest_path, NULL};
    g_auto(GVariantDict) request = G_VARIANT_DICT_INIT(NULL);

    if ((copy->into_guest && !name) || !guest_command_add_user(copy->cli, &request, error))
        return NULL;
    g_variant_dict_insert(&request, "name", "s", copy->guest);
    g_variant_dict_insert_value(&request, "argv", g_variant_new_bytestring_array(copy->into_guest ? into : out, -1));
    return g_variant_dict_end(&request);
}

/* Starts the guest's side. */
static gboolean start_exec(Copy *copy, GVariant *request, GError **error)
{
    Client *client = cli_client(copy->cli, error);
    GuestCommand command;

    if (!client || !guest_command_start(client, request, FALSE, &command, error))
        return FALSE;
    copy->number = command.number;
    copy->errors_fd = command.stderr_fd;
    copy->stream_fd = copy->into_guest ? command.stdin_fd : command.stdout_fd;
    copy->other_fd = copy->into_guest ? command.stdout_fd : command.stdin_fd; /* stays open: a reader that goes would end the command */
    if (!copy->into_guest)
        shutdown(command.stdin_fd, SHUT_WR);
    g_unix_fd_add(copy->errors_fd, G_IO_IN | G_IO_HUP | G_IO_ERR, on_errors, copy);
    guest_command_wait(client, copy->number, on_exec_end, copy);
    return TRUE;
}

/* --- our end --------------------------------------------------------------------------------------------------------------- */

static gboolean on_worker_end(gpointer data)
{
    Copy *copy = data;

    copy->finished = TRUE;
    if (copy->good && copy->into_guest)
        shutdown(copy->stream_fd, SHUT_WR);
    if (!copy->good && !copy->result.stream_ended) {
        end_exec(copy);
        g_timeout_add_seconds(END_PATIENCE_S, on_gave_up, copy);
    }
    return G_SOURCE_REMOVE;
}

static gpointer worker_thread(gpointer data)
{
    Copy *copy = data;

    copy->good = copy->into_guest ? cp_pack(copy->source, copy->stream_fd, &copy->result, &copy->error)
                                  : cp_unpack(copy->stream_fd, copy->stage.fd, &copy->result, &copy->error);
    g_main_context_invoke(NULL, on_worker_end, copy);
    return NULL;
}

/* The first line that the guest's side wrote, escaped. Caller frees. */
static char *first_line(const Copy *copy)
{
    gsize length = strcspn(copy->errors->str, "\n");

    return length ? hvm_escape(copy->errors->str, (gssize)MIN(length, 300)) : g_strdup("its tar or sh failed and did not say why");
}

/* Whether both sides came to a good end. */
static gboolean check_ends(const Copy *copy, GError **error)
{
    static const int known[] = {HVM_ERROR_INVALID, HVM_ERROR_NOT_FOUND, HVM_ERROR_EXISTS, HVM_ERROR_DENIED, HVM_ERROR_STORAGE};
    g_autofree char *why = first_line(copy);
    int code = HVM_ERROR_AGENT;

    if (copy->error && !copy->result.stream_ended) {
        g_propagate_error(error, g_error_copy(copy->error));
        if (g_error_matches(copy->error, HVM_ERROR, HVM_ERROR_AGENT))
            g_prefix_error(error, "guest '%s': ", copy->guest);
        return FALSE;
    }
    if (copy->wait_error) {
        g_propagate_error(error, g_error_copy(copy->wait_error));
        g_prefix_error(error, "guest '%s': ", copy->guest);
        return FALSE;
    }
    for (gsize i = 0; i < G_N_ELEMENTS(known); i++)
        if (copy->status == hvm_error_status((unsigned)known[i]))
            code = known[i];
    if (copy->lost || copy->status) {
        g_set_error(error, HVM_ERROR, code, "guest '%s': %s%s", copy->guest, copy->lost ? "the copy was lost: " : "", why);
        return FALSE;
    }
    if (copy->error) {
        g_propagate_error(error, g_error_copy(copy->error));
        g_prefix_error(error, "guest '%s': ", copy->guest);
        return FALSE;
    }
    return TRUE;
}

static void tell_left_out(const Copy *copy)
{
    g_autofree char *first = NULL;

    if (!copy->result.left_out)
        return;
    first = hvm_escape(copy->result.first_left_out, (gssize)MIN(strlen(copy->result.first_left_out), 200));
    fprintf(stderr, "hvm: left out %" G_GUINT64_FORMAT " that %s neither file, folder nor link: %s%s\n", copy->result.left_out,
            copy->result.left_out == 1 ? "is" : "are", first, copy->result.left_out == 1 ? "" : ", ...");
}

/* Runs both sides to their ends. */
static gboolean transfer(Copy *copy, GError **error)
{
    copy->worker = g_thread_new("hvm-cp", worker_thread, copy);
    while (!copy->gave_up && !(copy->waited && copy->finished && (copy->errors_fd < 0 || !copy->status)))
        g_main_context_iteration(NULL, TRUE);
    if (!copy->finished)
        shutdown(copy->stream_fd, SHUT_RDWR);
    g_thread_join(g_steal_pointer(&copy->worker));
    if (copy->signal_number) {
        cp_stage_clear(&copy->stage);
        terminal_die_by_signal(copy->signal_number);
    }
    return check_ends(copy, error) && (copy->into_guest || cp_stage_commit(&copy->stage, &copy->result, error));
}

static void copy_clear(Copy *copy)
{
    const int fds[] = {copy->stream_fd, copy->other_fd, copy->errors_fd};

    for (gsize i = 0; i < G_N_ELEMENTS(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    g_free(copy->guest);
    g_free(copy->source);
    g_string_free(copy->errors, TRUE);
    g_clear_error(&copy->wait_error);
    g_clear_error(&copy->error);
    cp_result_clear(&copy->result);
}

static gboolean run_copy(Copy *copy, GError **error)
{
    struct stat source = {0};
    g_autoptr(GVariant) request = NULL;
    GVariant *floating = NULL;
    static const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, 0};
    gboolean good = FALSE;

    if (!read_places(copy, error) || (copy->into_guest && !find_source(copy, &source, error)) ||
        !(floating = exec_request(copy, &source, error)))
        return FALSE;
    request = g_variant_ref_sink(floating);
    signal(SIGPIPE, SIG_IGN);
    signals_take(taken, on_signal, copy);
    good = (copy->into_guest || cp_stage_make(&copy->stage, copy->local, copy->guest_path, error)) && start_exec(copy, request, error) && transfer(copy, error);
    cp_stage_clear(&copy->stage);
    if (good)
        tell_left_out(copy);
    return good;
}

int run_cp(Cli *cli, GError **error)
{
    /* Static: the answer to ExecWait may still come when this function has returned. */
    static Copy copy;
    gboolean good = FALSE;

    copy = (Copy){.cli = cli, .errors = g_string_new(NULL)};
    copy.stage = CP_STAGE_NONE;
    copy.stream_fd = copy.other_fd = copy.errors_fd = -1;
    setlocale(LC_CTYPE, "C.UTF-8"); /* names in tar's pax headers are UTF-8 */
    good = run_copy(&copy, error);
    copy_clear(&copy);
    return good ? 0 : 1;
}
