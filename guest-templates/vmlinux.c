/* The kernel out of its bzImage (Documentation/arch/x86/boot.rst), for an entry by PVH. */
#include "agent_boot.h"

#include "hvm_error.h"
#include "process.h"

#include <elf.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

enum {
    SECTOR = 512,
    SETUP_SECTORS_AT = 0x1f1,
    MAGIC_AT = 0x202,
    PAYLOAD_OFFSET_AT = 0x248,
    PAYLOAD_LENGTH_AT = 0x24c,
    PVH_ENTRY_NOTE = 18, /* XEN_ELFNOTE_PHYS32_ENTRY */
    UNPACK_TIMEOUT_MS = 120000,
};

typedef struct {
    const char *magic;
    gsize magic_length;
    const char *suffix;
    const char *tool;
    unsigned trailer; /* bytes behind it which are the kernel's, not the tool's */
} Packing;

static const Packing packings[] = {
    {"\x02\x21\x4c\x18", 4, ".lz4", "lz4", 4},     {"\x28\xb5\x2f\xfd", 4, ".zst", "zstd", 4},
    {"\xfd" "7zXZ", 5, ".xz", "xz", 4}, {"\x1f\x8b\x08", 3, ".gz", "gzip", 0},
};

static guint32 read_u32(const char *at)
{
    guint32 value;

    memcpy(&value, at, sizeof(value));
    return GUINT32_FROM_LE(value);
}

/* The packed kernel in a bzImage, or NULL. */
static const char *find_payload(const char *image, gsize length, gsize *ret_length)
{
    guint64 offset, size;

    if (length < PAYLOAD_LENGTH_AT + 4 || memcmp(image + MAGIC_AT, "HdrS", 4) != 0)
        return NULL;
    offset = ((image[SETUP_SECTORS_AT] ? (guint8)image[SETUP_SECTORS_AT] : 4u) + 1u) * (guint64)SECTOR +
             read_u32(image + PAYLOAD_OFFSET_AT);
    size = read_u32(image + PAYLOAD_LENGTH_AT);
    if (size < 16 || offset + size > length)
        return NULL;
    *ret_length = size;
    return image + offset;
}

static gboolean notes_have_entry(const char *notes, gsize length)
{
    for (gsize at = 0; length - at >= sizeof(Elf64_Nhdr);) {
        Elf64_Nhdr note;
        guint64 name_end, end;

        memcpy(&note, notes + at, sizeof(note));
        name_end = at + sizeof(note) + ((guint64)note.n_namesz + 3) / 4 * 4;
        end = name_end + ((guint64)note.n_descsz + 3) / 4 * 4;
        if (end > length)
            return FALSE;
        if (note.n_type == PVH_ENTRY_NOTE && note.n_namesz == 4 && memcmp(notes + at + sizeof(note), "Xen", 4) == 0)
            return TRUE;
        at = end;
    }
    return FALSE;
}

/* Whether it is a 64-bit kernel with a note that says where PVH enters it. */
static gboolean has_pvh_entry(const char *path)
{
    g_autoptr(GMappedFile) file = g_mapped_file_new(path, FALSE, NULL);
    const char *text = file ? g_mapped_file_get_contents(file) : NULL;
    gsize length = file ? g_mapped_file_get_length(file) : 0;
    Elf64_Ehdr header;

    if (!text || length < sizeof(header))
        return FALSE;
    memcpy(&header, text, sizeof(header));
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
        header.e_machine != EM_X86_64)
        return FALSE;
    for (unsigned i = 0; i < header.e_phnum; i++) {
        guint64 at = header.e_phoff + (guint64)i * sizeof(Elf64_Phdr);
        Elf64_Phdr segment;

        if (header.e_phoff > length || at + sizeof(segment) > length)
            return FALSE;
        memcpy(&segment, text + at, sizeof(segment));
        if (segment.p_type == PT_NOTE && segment.p_offset <= length && segment.p_filesz <= length - segment.p_offset &&
            notes_have_entry(text + segment.p_offset, segment.p_filesz))
            return TRUE;
    }
    return FALSE;
}

static const Packing *find_packing(const char *payload)
{
    for (gsize i = 0; i < G_N_ELEMENTS(packings); i++)
        if (memcmp(payload, packings[i].magic, packings[i].magic_length) == 0)
            return &packings[i];
    return NULL;
}

gboolean vmlinux_unpack(Build *build, const char *from, const char *to, char **ret_why, GError **error)
{
    g_autoptr(GMappedFile) image = g_mapped_file_new(from, FALSE, error);
    const char *payload;
    const Packing *packing;
    gsize length = 0;

    *ret_why = NULL;
    if (!image)
        return FALSE;
    payload = find_payload(g_mapped_file_get_contents(image), g_mapped_file_get_length(image), &length);
    packing = payload ? find_packing(payload) : NULL;
    if (!packing) {
        *ret_why = g_strdup("it is not packed in a way that hvm knows");
        return FALSE;
    }

    g_autofree char *tool = g_find_program_in_path(packing->tool);
    g_autofree char *unpacked = g_build_filename(build->work_path, "vmlinux", NULL);
    g_autofree char *packed = g_strconcat(unpacked, packing->suffix, NULL);
    const char *argv[] = {packing->tool, "-d", "-q", packed, strcmp(packing->tool, "lz4") == 0 ? unpacked : NULL, NULL};
    const ProcessOptions options = {.timeout_ms = UNPACK_TIMEOUT_MS, .cancellable = build->cancellable};

    if (!tool) {
        *ret_why = g_strdup_printf("%s is not installed", packing->tool);
        return FALSE;
    }
    if (!g_file_set_contents_full(packed, payload, (gssize)(length - packing->trailer), G_FILE_SET_CONTENTS_NONE, 0600, error) ||
        !process_run(argv, &options, HVM_ERROR_STORAGE, NULL, error))
        return FALSE;
    unlink(packed);
    if (!has_pvh_entry(unpacked)) {
        unlink(unpacked);
        *ret_why = g_strdup("it has no PVH entry");
        return FALSE;
    }
    if (g_rename(unpacked, to) < 0) {
        g_set_error(error, HVM_ERROR, HVM_ERROR_STORAGE, "cannot move %s to %s", unpacked, to);
        return FALSE;
    }
    return TRUE;
}
