/*
 * reply.h: the values of a reply of io.hvm1: a{sv}, key by key.
 */
#pragma once

#include <glib.h>

static inline void reply_add_string(GVariantBuilder *builder, const char *key, const char *value)
{
    g_variant_builder_add(builder, "{sv}", key, g_variant_new_string(value ? value : ""));
}

static inline void reply_add_uint(GVariantBuilder *builder, const char *key, guint32 value)
{
    g_variant_builder_add(builder, "{sv}", key, g_variant_new_uint32(value));
}

static inline void reply_add_bytes(GVariantBuilder *builder, const char *key, guint64 value)
{
    g_variant_builder_add(builder, "{sv}", key, g_variant_new_uint64(value));
}
