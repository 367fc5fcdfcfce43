/*
 * config.h: hvmd.conf -> DaemonConfig.
 *
 * Input: a key file (GKeyFile syntax); a missing file at the default path means all defaults. Output: checked values.
 * The table config_keys[] also makes the key list of hvmd(8).
 * Threads: main thread, once.
 */
#pragma once

#include "guests.h"
#include "key.h"

#define CONFIG_DEFAULT_PATH "/etc/hvm/hvmd.conf"

extern const Key config_keys[];

typedef struct {
    char *socket_path;   /* "/run/hvm/hvmd.sock" */
    char *agent_path;    /* the agent's binary that builds put into images */
    char *group;         /* whose members may create guests */
    GuestsConfig guests;
} DaemonConfig;

/* `path` NULL: the default one. INVALID naming file, group and key; HOST where QEMU's user is not there. */
DaemonConfig *config_load(const char *path, GError **error);
void config_free(DaemonConfig *config);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DaemonConfig, config_free)
