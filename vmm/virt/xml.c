#include "xml.h"

#include "hvm_error.h"

#include <libxml/parser.h>
#include <string.h>

enum { TEXT_MAX = 4 << 20 };

xmlDoc *xml_new(const char *root, xmlNode **ret_root)
{
    xmlDoc *document = xmlNewDoc(BAD_CAST "1.0");

    *ret_root = xmlNewDocNode(document, NULL, BAD_CAST root, NULL);
    xmlDocSetRootElement(document, *ret_root);
    return document;
}

xmlNode *xml_add(xmlNode *parent, const char *name)
{
    return xmlNewChild(parent, NULL, BAD_CAST name, NULL);
}

xmlNode *xml_add_text(xmlNode *parent, const char *name, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    return xmlNewTextChild(parent, NULL, BAD_CAST name, BAD_CAST text);
}

xmlNode *xml_set(xmlNode *node, const char *name, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    xmlSetProp(node, BAD_CAST name, BAD_CAST text);
    return node;
}

char *xml_to_text(xmlDoc *document)
{
    xmlBuffer *buffer = xmlBufferCreate();
    char *text = NULL;

    xmlNodeDump(buffer, document, xmlDocGetRootElement(document), 0, 1);
    text = g_strdup((const char *)xmlBufferContent(buffer));
    xmlBufferFree(buffer);
    return text;
}

xmlDoc *xml_parse(const char *text, GError **error)
{
    gsize length = strlen(text);
    xmlDoc *document = NULL;

    if (length <= TEXT_MAX)
        document = xmlReadMemory(text, (int)length, NULL, NULL, XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NOBLANKS);
    if (!document || !xmlDocGetRootElement(document)) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_INVALID, "wanted well-formed XML of at most 4 MiB, found %" G_GSIZE_FORMAT " bytes of something else", length);
        g_clear_pointer(&document, xmlFreeDoc);
    }
    return document;
}

static xmlNode *first_named(xmlNode *node, const char *name)
{
    while (node && (node->type != XML_ELEMENT_NODE || strcmp((const char *)node->name, name) != 0))
        node = node->next;
    return node;
}

xmlNode *xml_child(const xmlNode *parent, const char *name)
{
    return parent ? first_named(parent->children, name) : NULL;
}

xmlNode *xml_next(const xmlNode *node, const char *name)
{
    return node ? first_named(node->next, name) : NULL;
}

/* xmlFree() and g_free() need not be the same. */
static char *take(xmlChar *text)
{
    char *copy = g_strdup((const char *)text);

    if (text)
        xmlFree(text);
    return copy;
}

char *xml_get(const xmlNode *node, const char *attribute)
{
    return node ? take(xmlGetProp((xmlNode *)node, BAD_CAST attribute)) : NULL;
}

char *xml_get_text(const xmlNode *node)
{
    return node ? take(xmlNodeGetContent((xmlNode *)node)) : NULL;
}
