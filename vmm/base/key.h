/*
 * key.h: one row of a key table, the single source of what may be configured.
 *
 * A table (an array of Key ended by a row with group NULL) describes the keys of templates
 * (guest-templates/template_keys.c) or of hvmd.conf (vmm/daemon/config.c). From it come: the check of
 * files and requests, the command-line options, --help, and the key lists of the man pages.
 * Threads: any; tables are constant.
 */
#pragma once

#include <glib.h>

typedef enum {
    KEY_STRING,   /* printable text of 1 to 4095 bytes without control characters */
    KEY_NAME,     /* name_check() */
    KEY_UINT,     /* decimal, minimum..maximum, or the word in `choices` if there is one */
    KEY_SIZE,     /* size_parse(), minimum..maximum in bytes */
    KEY_BOOL,     /* true, false, yes, no, on, off, 1, 0; canonical: true, false */
    KEY_CHOICE,   /* one of `choices` */
    KEY_CPU_LIST, /* "0-3,8", as in /sys; may be empty */
    KEY_PCI,      /* pci_address_parse(); canonical: with its domain */
    KEY_INTERFACE, /* interface_check() */
} KeyType;

typedef struct {
    const char *group;    /* "cpu"; "device *" for a group with a name of its own: [device gpu0] */
    const char *key;      /* "count" */
    KeyType type;
    const char *choices;  /* KEY_CHOICE: "siblings|isolate|any"; KEY_UINT: NULL, or a word that stands for no number: "auto" */
    guint64 minimum;      /* KEY_UINT, KEY_SIZE: inclusive range; maximum 0 means none */
    guint64 maximum;
    const char *fallback; /* the default, as text; NULL: unset */
    const char *option;   /* long option of create, run and plan that sets it, without dashes; or NULL */
    const char *argument; /* the option's argument in help: "N" */
    const char *help;     /* one clause in lower case without a full stop: "number of vCPUs" */
} Key;

/* The row for `group` and `key`, or NULL. "device gpu0" matches a row of group "device *". */
const Key *key_find(const Key *table, const char *group, const char *key);

/* Whether any row has this group. */
gboolean key_group_known(const Key *table, const char *group);

/* Checks `value` and gives its canonical text ("4096M" -> "4G"; "yes" -> "true"). INVALID with what was
 * wanted and found; the caller prefixes where. Caller frees ret_value. */
gboolean key_check(const Key *row, const char *value, char **ret_value, GError **error);

/* What a value of this row looks like, for messages and manuals: "4K|2M|1G", "1 to 1024". Caller frees. */
char *key_describe(const Key *row);
