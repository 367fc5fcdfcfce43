/*
 * xml.h: building and reading XML trees for libvirt with libxml2, in few words.
 *
 * XML is built as nodes, never printed, so that no name or value needs quoting by us.
 * Ownership: nodes belong to their document. Threads: any, one document at a time per thread.
 */
#pragma once

#include <glib.h>
#include <libxml/tree.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlDoc, xmlFreeDoc)

/* A new document with this root element; *ret_root is owned by it. */
xmlDoc *xml_new(const char *root, xmlNode **ret_root);

/* A new last child element. */
xmlNode *xml_add(xmlNode *parent, const char *name);

/* A new last child element with text. */
xmlNode *xml_add_text(xmlNode *parent, const char *name, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* Sets an attribute; returns the node, so that calls can be chained. */
xmlNode *xml_set(xmlNode *node, const char *name, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* The document as indented text without an XML declaration; caller frees with g_free. */
char *xml_to_text(xmlDoc *document);

/* Parses text of at most 4 MiB without network, entities or output to stderr. NULL with INVALID. */
xmlDoc *xml_parse(const char *text, GError **error);

/* The first child element of that name, or NULL (also where `parent` is NULL); the next sibling of that name. */
xmlNode *xml_child(const xmlNode *parent, const char *name);
xmlNode *xml_next(const xmlNode *node, const char *name);

/* An attribute's or element's text; NULL where missing. Caller frees with g_free. */
char *xml_get(const xmlNode *node, const char *attribute);
char *xml_get_text(const xmlNode *node);
