/*
 * logs.c: what a guest wrote to its console, as virtlogd keeps it.
 */
#include "guests_private.h"

#include "hvm_error.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { LOG_MAX = 1 << 20 };

/* Puts the last bytes of a file, at most `room`, before `end`. How many; none where it is not there; -1 with errno. */
static ssize_t read_before(const char *path, char *end, gsize room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    gsize wanted = (gsize)MIN(MAX(size, 0), (off_t)room);
    ssize_t length = 0;

    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    length = MAX(pread(fd, end - wanted, wanted, size - (off_t)wanted), 0);
    close(fd);
    if ((gsize)length < wanted) /* it was cut off meanwhile */
        memmove(end - length, end - wanted, (gsize)length);
    return length;
}

/* The last LOG_MAX bytes of the log; empty where there is none yet. A log that has grown to virtlogd's max_size is renamed to *.0 (and
 * begun anew when the guest is started, the older ones removed). */
static char *read_tail(const Guest *guest, gsize *ret_length, GError **error)
{
    g_autofree char *older = g_strconcat(guest->real->log_path, ".0", NULL);
    g_autofree char *text = g_malloc(LOG_MAX);
    ssize_t newest = read_before(guest->real->log_path, text + LOG_MAX, LOG_MAX);
    ssize_t before = newest < 0 ? -1 : read_before(older, text + LOG_MAX - newest, LOG_MAX - (gsize)newest);

    if (before < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "guest '%s': cannot read its console log: %s",
                    guest->real->spec->name, g_strerror(errno));
        return NULL;
    }
    *ret_length = (gsize)(newest + before);
    memmove(text, text + LOG_MAX - *ret_length, *ret_length);
    return g_steal_pointer(&text);
}

GBytes *guests_logs(Guests *guests, const Caller *caller, const char *name, unsigned lines, GError **error)
{
    g_autoptr(Guest) guest = guests_find(guests, caller, name, error);
    gsize length = 0;
    g_autofree char *text = guest ? read_tail(guest, &length, error) : NULL;
    gsize begin = 0;

    if (!text)
        return NULL;
    if (lines) {
        begin = length;
        if (begin && text[begin - 1] == '\n')
            begin--;
        for (; begin > 0; begin--)
            if (text[begin - 1] == '\n' && --lines == 0)
                break;
    }
    return g_bytes_new(text + begin, length - begin);
}

char *guest_last_console_line(const Guest *guest)
{
    gsize length = 0;
    g_autofree char *text = read_tail(guest, &length, NULL);

    for (gsize end = length; text && end > 0;) {
        gsize begin = end;

        while (begin > 0 && text[begin - 1] != '\n')
            begin--;
        g_autofree char *line = g_strndup(text + begin, end - begin);

        if (*g_strstrip(line))
            return hvm_escape(line, (gssize)MIN(strlen(line), 160));
        end = begin ? begin - 1 : 0;
    }
    return NULL;
}
