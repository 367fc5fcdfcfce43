/*
 * template.h: load, inherit and check OS templates.
 *
 * Input: NAME.conf in a list of folders (the first that has it wins: /etc/hvm/templates before the shipped
 * ones). Output: a Template whose settings tell for each value which template set it. Inheritance goes
 * parent first; a loop, a missing parent and more than 16 levels are INVALID and name the chain.
 * Threads: any; a Template does not change after it was loaded.
 */
#pragma once

#include "settings.h"

typedef struct {
    char *name;
    char *path;         /* of its own file */
    Settings *settings; /* with its parents', without defaults; origins "template NAME" */
} Template;

/* The folders that templates are looked for in, in order: HVM_TEMPLATE_PATH (colon-separated) if set, else
 * /etc/hvm/templates and the folder of those that come with this program. NULL-terminated; caller frees with g_strfreev. */
char **template_folders(void);

/* Loads one. NOT_FOUND naming the folders and, where there is one, a name that is near; INVALID. */
Template *template_load(const char *const *folders, const char *name, GError **error);

/* Names of all templates in the folders, sorted, each once, whether valid or not. Caller frees with g_strfreev. */
char **template_list(const char *const *folders);

void template_free(Template *template);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Template, template_free)
