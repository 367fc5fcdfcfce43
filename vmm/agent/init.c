/* hvm-init: from the kernel's hand-over to the agent, in the guest's root. See init.h. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

static char command_line[4096];

static void say(const char *format, va_list arguments)
{
    char text[512];
    int length = snprintf(text, sizeof(text), "hvm-init: ");
    int more = vsnprintf(text + length, sizeof(text) - (size_t)length - 1, format, arguments);

    if (more > 0)
        length += more < (int)sizeof(text) - length - 1 ? more : (int)sizeof(text) - length - 2;
    text[length++] = '\n';
    /* The serial line itself: there may be no console, and a quiet one prints no kernel message. */
    int fd = open("/dev/ttyS0", O_WRONLY | O_NOCTTY | O_CLOEXEC);

    if (fd < 0)
        fd = STDERR_FILENO;
    if (write(fd, text, (size_t)length) < 0)
        fd = -1;
    if (fd > STDERR_FILENO)
        close(fd);
}

void init_warn(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
}

_Noreturn void init_fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    if (getpid() == 1) {
        sync();
        reboot(RB_POWER_OFF);
    }
    _exit(1);
}

bool init_read(const char *path, char *to, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, to, size - 1);

    if (fd >= 0)
        close(fd);
    if (n < 0)
        n = 0;
    to[n] = 0;
    to[strcspn(to, "\n")] = 0;
    return fd >= 0;
}

bool init_argument(const char *name, char *to, size_t size)
{
    size_t length = strlen(name);
    bool found = false;

    *to = 0;
    for (const char *word = command_line; *word;) {
        size_t n = strcspn(word, " \t");

        if (n > length && strncmp(word, name, length) == 0 && word[length] == '=') {
            size_t value = n - length - 1 < size - 1 ? n - length - 1 : size - 1;

            memcpy(to, word + length + 1, value);
            to[value] = 0;
            found = true;
        }
        word += n;
        word += strspn(word, " \t");
    }
    return found;
}

int main(void)
{
    static char *const arguments[] = {INIT_AGENT, "--grow-root", NULL};
    static char *const environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
                                        "HOME=/", "TERM=linux", NULL};
    char address[64];

    if (getpid() != 1) {
        fputs("hvm-init: this is process 1 of a guest's initrd and does nothing elsewhere\n", stderr);
        return 2;
    }
    init_mount_early();
    init_read("/proc/cmdline", command_line, sizeof(command_line));
    init_load_modules("/modules");
    if (init_argument("hvm.address", address, sizeof(address)))
        init_load_modules("/modules.network");
    init_enter_root();
    init_mount_rest();
    init_identify();
    init_loopback();
    if (*address)
        init_network(address);
    execve(INIT_AGENT, arguments, environment);
    init_fail("cannot become the agent %s: %s", INIT_AGENT, strerror(errno));
}
