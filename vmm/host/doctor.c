#include "doctor.h"

void check_free(Check *check)
{
    if (!check)
        return;
    g_free(check->name);
    g_free(check->found);
    g_free(check->meaning);
    g_free(check->advice);
    g_free(check);
}

void check_add(GPtrArray *checks, const char *name, CheckState state, const char *meaning, const char *advice,
               const char *found_format, ...)
{
    Check *check = g_new0(Check, 1);
    va_list arguments;

    va_start(arguments, found_format);
    check->found = g_strdup_vprintf(found_format, arguments);
    va_end(arguments);
    check->name = g_strdup(name);
    check->state = state;
    check->meaning = g_strdup(meaning);
    check->advice = g_strdup(advice);
    g_ptr_array_add(checks, check);
}

GPtrArray *doctor_check_host(const Host *host G_GNUC_UNUSED, const AccelProbe *accel)
{
    GPtrArray *checks = g_ptr_array_new_with_free_func((GDestroyNotify)check_free);

    check_add(checks, "kvm", accel->state == ACCEL_KVM ? CHECK_OK : CHECK_WARNING, NULL, NULL, "%s", accel->detail);
    return checks;
}
