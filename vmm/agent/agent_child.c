/* Between fork and exec: becomes the user, enters the directory, finds the program. */
#include "agent.h"

#include <errno.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define STATUS_OURS 125 /* not the command's fault, as of env(1) and chroot(1) */
#define STATUS_CANNOT 126
#define STATUS_NOT_FOUND 127

void child_fail(int status, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(text, sizeof(text) - 1, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length > sizeof(text) - 2)
        length = sizeof(text) - 2;
    text[length] = '\n';
    if (write(2, text, (size_t)length + 1) < 0)
        _exit(status); /* nobody listens */
    _exit(status);
}

static void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n, size);

    if (!memory)
        child_fail(STATUS_OURS, "hvm-agent: out of memory");
    return memory;
}

static void become(const ChildUser *user)
{
    if (isatty(0)) { /* programs open their terminal by name: ssh, screen */
        if (fchown(0, user->uid, (gid_t)-1) == 0)
            fchmod(0, 0620);
    }
    /* An agent that is not root, in a container of its user, is who it is. */
    if (setgroups(user->n_groups, user->groups) < 0 && geteuid() == 0)
        child_fail(STATUS_OURS, "hvm-agent: cannot set the groups: %s", strerror(errno));
    if (setgid(user->gid) < 0 || setuid(user->uid) < 0)
        child_fail(STATUS_OURS, "hvm-agent: cannot become user %u, group %u: %s", (unsigned)user->uid,
                   (unsigned)user->gid, strerror(errno));
}

static void enter_directory(const ProtocolExec *exec, const ChildUser *user)
{
    if (*exec->directory && chdir(exec->directory) == 0)
        return;
    if (*exec->directory && exec->flags & PROTOCOL_EXEC_DIRECTORY_REQUIRED)
        child_fail(STATUS_OURS, "hvm-agent: cannot enter %s: %s", exec->directory, strerror(errno));
    if (chdir(user->home) < 0 && chdir("/") < 0)
        child_fail(STATUS_OURS, "hvm-agent: cannot enter /: %s", strerror(errno));
}

static char **make_argv(const ProtocolExec *exec)
{
    char **argv = allocate((size_t)exec->n_argv + 1, sizeof(*argv));
    const char *at = exec->argv;

    for (uint32_t i = 0; i < exec->n_argv; i++, at += strlen(at) + 1)
        argv[i] = (char *)at;
    return argv;
}

/* Sets NAME=VALUE, replacing an earlier one of this name. */
static void set_variable(char **environment, size_t *count, char *variable)
{
    const char *equals = strchr(variable, '=');
    size_t name = equals ? (size_t)(equals - variable) + 1 : 0;

    if (name <= 1)
        return;
    for (size_t i = 0; i < *count; i++) {
        if (strncmp(environment[i], variable, name) == 0) {
            environment[i] = variable;
            return;
        }
    }
    environment[(*count)++] = variable;
}

static char *variable_new(const char *name, const char *value)
{
    size_t size = strlen(name) + strlen(value) + 2;
    char *variable = allocate(size, 1);

    snprintf(variable, size, "%s=%s", name, value);
    return variable;
}

static char **make_environment(const ProtocolExec *exec, const ChildUser *user)
{
    char **environment = allocate((size_t)exec->n_environment + 6, sizeof(*environment));
    const char *at = exec->environment;
    size_t count = 0;

    set_variable(environment, &count, variable_new("HOME", user->home));
    set_variable(environment, &count, variable_new("USER", user->name));
    set_variable(environment, &count, variable_new("LOGNAME", user->name));
    set_variable(environment, &count, variable_new("SHELL", user->shell));
    set_variable(environment, &count, variable_new("PATH", DEFAULT_PATH));
    for (uint32_t i = 0; i < exec->n_environment; i++, at += strlen(at) + 1)
        set_variable(environment, &count, (char *)at);
    return environment;
}

/* Like execve, and a file without magic is a script for the shell, as POSIX says of execvp. Returns errno. */
static int try_program(const char *path, const ProtocolExec *exec, char **argv, char **environment)
{
    struct stat status;
    char **script;
    int code;

    execve(path, argv, environment);
    code = errno;
    if (code == EACCES && stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        return EISDIR;
    if (code != ENOEXEC)
        return code;
    script = allocate((size_t)exec->n_argv + 2, sizeof(*script));
    script[0] = (char *)"/bin/sh";
    script[1] = (char *)path;
    memcpy(script + 2, argv + 1, exec->n_argv * sizeof(*script)); /* with the NULL at the end */
    execve(script[0], script, environment);
    return code;
}

static const char *search_path(char **environment)
{
    for (; *environment; environment++)
        if (strncmp(*environment, "PATH=", 5) == 0)
            return *environment + 5;
    return DEFAULT_PATH;
}

void child_run(const ProtocolExec *exec)
{
    char **argv = make_argv(exec);
    const char *name = argv[0];
    char **environment;
    ChildUser user;
    int kept = ENOENT;

    umask(022);
    system_oom_restore();
    child_user(exec, &user);
    environment = make_environment(exec, &user);
    become(&user);
    enter_directory(exec, &user);
    if (strchr(name, '/')) {
        int code = try_program(name, exec, argv, environment);

        child_fail(code == ENOENT || code == ENOTDIR ? STATUS_NOT_FOUND : STATUS_CANNOT, "%s: %s", name,
                   strerror(code));
    }
    for (const char *at = search_path(environment), *end; at; at = *end ? end + 1 : NULL) {
        char *path;
        size_t size;
        int code;

        end = at + strcspn(at, ":");
        size = (size_t)(end - at) + strlen(name) + 3;
        path = allocate(size, 1);
        snprintf(path, size, "%.*s/%s", end > at ? (int)(end - at) : 1, end > at ? at : ".", name);
        code = try_program(path, exec, argv, environment);
        if (code != ENOENT && code != ENOTDIR && code != EISDIR)
            kept = code; /* goes on: another folder may have one that can be run */
        free(path);
    }
    if (kept == ENOENT)
        child_fail(STATUS_NOT_FOUND, "%s: command not found", name);
    child_fail(STATUS_CANNOT, "%s: %s", name, strerror(kept));
}
