#include "guest_command.h"

#include "hvm_error.h"

#include <string.h>
#include <unistd.h>

gboolean guest_command_add_user(const Cli *cli, GVariantDict *request, GError **error)
{
    const char *user = cli_value(cli, "user");

    if (!user)
        return TRUE;
    if (!*user || !g_utf8_validate(user, -1, NULL)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "--user: wanted a user of the guest");
        return FALSE;
    }
    g_variant_dict_insert(request, "user", "s", user);
    return TRUE;
}

gboolean guest_command_start(Client *client, GVariant *request, gboolean pty, GuestCommand *ret_command, GError **error)
{
    GuestCommand command = {0, -1, -1, -1};
    g_autoptr(GVariant) reply = NULL;
    g_autoptr(GUnixFDList) fds = NULL;

    if (!client_call_fds(client, "Exec", request, &reply, &fds, error))
        return FALSE;
    if (!g_variant_lookup(reply, "exec", "u", &command.number) || !command.number) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INTERNAL, "hvmd answered Exec wrongly: wanted the number of the command");
        return FALSE;
    }
    if ((command.stdin_fd = client_take_fd(reply, fds, "stdin", error)) >= 0 &&
        (command.stdout_fd = client_take_fd(reply, fds, "stdout", error)) >= 0 &&
        (pty || (command.stderr_fd = client_take_fd(reply, fds, "stderr", error)) >= 0)) {
        *ret_command = command;
        return TRUE;
    }
    if (command.stdin_fd >= 0)
        close(command.stdin_fd);
    if (command.stdout_fd >= 0)
        close(command.stdout_fd);
    return FALSE;
}

void guest_command_init_control(GVariantDict *request, guint32 number)
{
    g_variant_dict_init(request, NULL);
    g_variant_dict_insert(request, "exec", "u", number);
}

void guest_command_wait(Client *client, guint32 number, ClientReplyFunc on_end, gpointer data)
{
    GVariantDict request;

    guest_command_init_control(&request, number); /* ExecWait wants the number alone */
    client_begin(client, "ExecWait", g_variant_dict_end(&request), on_end, data);
}

void guest_command_read_end(GVariant *reply, GuestCommandEnd *ret_end)
{
    const char *end = "", *reason = "";
    gint32 value = 0;

    g_variant_lookup(reply, "end", "&s", &end);
    g_variant_lookup(reply, "value", "i", &value);
    g_variant_lookup(reply, "reason", "&s", &reason);
    *ret_end = (GuestCommandEnd){.reason = reason};
    if (strcmp(end, "exited") == 0)
        ret_end->status = value & 0xff;
    else if (strcmp(end, "signaled") == 0)
        ret_end->status = 128 + (value & 0x7f);
    else
        ret_end->lost = TRUE;
}
