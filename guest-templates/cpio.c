/* Archives that the kernel unpacks as its first root. */
#include "agent_boot.h"

#include <string.h>

enum { ALIGNMENT = 4 };

static void align(GByteArray *archive)
{
    static const guint8 zeros[ALIGNMENT];

    g_byte_array_append(archive, zeros, (ALIGNMENT - archive->len % ALIGNMENT) % ALIGNMENT);
}

void cpio_append(GByteArray *archive, const char *name, guint32 mode, gconstpointer data, gsize length)
{
    char header[111];

    /* magic, inode, mode, uid, gid, links, time, size, device (2), device of a node (2), length of the name, checksum */
    g_snprintf(header, sizeof(header), "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", archive->len, mode, 0, 0, 1,
               0, (unsigned)length, 0, 0, 0, 0, (unsigned)strlen(name) + 1, 0);
    g_byte_array_append(archive, (const guint8 *)header, sizeof(header) - 1);
    g_byte_array_append(archive, (const guint8 *)name, (guint)strlen(name) + 1);
    align(archive);
    if (length)
        g_byte_array_append(archive, data, (guint)length);
    align(archive);
}

void cpio_finish(GByteArray *archive)
{
    cpio_append(archive, "TRAILER!!!", 0, NULL, 0);
}
