#include "terminal.h"

#include "hvm_error.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved;
static gboolean is_saved = FALSE;

void terminal_restore(void)
{
    if (is_saved)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
}

gboolean terminal_make_raw(GError **error)
{
    struct termios raw;

    if (!is_saved && tcgetattr(STDIN_FILENO, &saved) < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot read the terminal's mode: %s", g_strerror(errno));
        return FALSE;
    }
    if (!is_saved)
        atexit(terminal_restore);
    is_saved = TRUE;
    raw = saved;
    cfmakeraw(&raw);
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_HOST, "cannot set the terminal's mode: %s", g_strerror(errno));
        return FALSE;
    }
    return TRUE;
}

void terminal_size(gint16 *ret_rows, gint16 *ret_columns)
{
    struct winsize size = {0};

    ioctl(STDIN_FILENO, TIOCGWINSZ, &size);
    *ret_rows = (gint16)(size.ws_row && size.ws_row <= G_MAXINT16 ? size.ws_row : 24);
    *ret_columns = (gint16)(size.ws_col && size.ws_col <= G_MAXINT16 ? size.ws_col : 80);
}

void terminal_die_by_signal(int number)
{
    sigset_t set;

    terminal_restore();
    sigemptyset(&set);
    sigaddset(&set, number);
    signal(number, SIG_DFL);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}
