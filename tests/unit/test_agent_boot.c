/* The parts of an image that boot it to the agent alone. */
#include "agent_boot.h"

#include <elf.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

/* As depmod(8) writes them: what a module needs behind it, what is needed first last. */
static const char dep[] = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz\n"
                          "kernel/fs/jbd2/jbd2.ko.xz:\n"
                          "kernel/fs/mbcache.ko.xz:\n"
                          "kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n"
                          "kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n"
                          "kernel/arch/x86/crypto/crc32c-intel.ko:\n"
                          "kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko\n"
                          "kernel/drivers/virtio/virtio_ring.ko:\n";
static const char builtin[] = "kernel/drivers/scsi/sd_mod.ko\nkernel/crypto/crc32c_generic.ko\n";

static gboolean has_program(const char *name)
{
    g_autofree char *path = g_find_program_in_path(name);

    return path != NULL;
}

static char *list_of(const char *const *wanted, const char **ret_missing)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GString) text = g_string_new(NULL);

    *ret_missing = NULL;
    if (!agent_boot_list_modules(dep, builtin, wanted, list, ret_missing))
        return NULL;
    for (guint i = 0; i < list->len; i++) {
        g_autofree char *name = g_path_get_basename(list->pdata[i]);

        g_string_append_printf(text, "%s%s", i ? " " : "", name);
    }
    return g_strdup(text->str);
}

static void test_order(void)
{
    static const char *const wanted[] = {"virtio_pci", "virtio_blk", "ext4", NULL};
    const char *missing = NULL;
    g_autofree char *list = list_of(wanted, &missing);

    g_assert_cmpstr(list, ==, "virtio_ring.ko virtio.ko virtio_pci.ko virtio_blk.ko mbcache.ko.xz jbd2.ko.xz ext4.ko.xz");
}

static void test_names(void)
{
    static const char *const dashes[] = {"crc32c_intel", NULL};
    static const char *const inside[] = {"sd_mod", "crc32c_generic", NULL};
    static const char *const part[] = {"virtio_pc", NULL};
    static const char *const needed[] = {"virtio_blk", "virtio_net", NULL};
    const char *missing = NULL;
    g_autofree char *a = list_of(dashes, &missing);
    g_autofree char *b = list_of(inside, &missing);

    g_assert_cmpstr(a, ==, "crc32c-intel.ko");
    g_assert_cmpstr(b, ==, "");
    g_assert_null(list_of(part, &missing));
    g_assert_cmpstr(missing, ==, "virtio_pc");
    g_assert_null(list_of(needed, &missing));
    g_assert_cmpstr(missing, ==, "virtio_net");
}

/* What cpio(1) makes of it, which the kernel's unpacker agrees with. */
static void test_cpio(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *folder = g_dir_make_tmp("hvm-cpio-XXXXXX", &error);
    g_autofree char *path = g_build_filename(folder, "archive", NULL);
    g_autofree char *output = NULL;
    g_autoptr(GByteArray) archive = g_byte_array_new();
    const char *argv[] = {"cpio", "--quiet", "-i", "--to-stdout", "-F", path, "init", "odd.ko", "list", NULL};
    int status = 0;

    g_assert_no_error(error);
    cpio_append(archive, "init", S_IFREG | 0555, "12345", 5);
    cpio_append(archive, "odd.ko", S_IFREG | 0444, "abc", 3);
    cpio_append(archive, "list", S_IFREG | 0444, "", 0);
    cpio_finish(archive);
    g_assert_cmpuint(archive->len % 4, ==, 0);
    g_assert_true(g_file_set_contents(path, (const char *)archive->data, archive->len, &error));
    if (!has_program("cpio")) {
        g_test_skip("needs cpio");
    } else {
        g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &output, NULL, &status, &error));
        g_assert_no_error(error);
        g_assert_cmpint(status, ==, 0);
        g_assert_cmpstr(output, ==, "12345abc");
    }
    g_unlink(path);
    g_rmdir(folder);
}

/* ---- kernels ---- */

typedef struct {
    char *folder, *from, *to;
    Build build;
} Fixture;

static void set_up(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    fixture->folder = g_dir_make_tmp("hvm-vmlinux-XXXXXX", NULL);
    g_assert_nonnull(fixture->folder);
    fixture->from = g_build_filename(fixture->folder, "vmlinuz", NULL);
    fixture->to = g_build_filename(fixture->folder, "out", NULL);
    fixture->build.work_path = fixture->folder;
}

static void tear_down(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_unlink(fixture->from);
    g_unlink(fixture->to);
    g_assert_cmpint(g_rmdir(fixture->folder), ==, 0); /* nothing else is left */
    g_free(fixture->folder);
    g_free(fixture->from);
    g_free(fixture->to);
}

/* A kernel of one note. `name_size` and `type` as in the note's header. */
static GByteArray *make_elf(guint32 name_size, guint32 type)
{
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr segment;
        Elf64_Nhdr note;
        char name[4];
        guint32 entry;
    } elf = {
        .header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1}, .e_machine = EM_X86_64, .e_phnum = 1},
        .segment = {.p_type = PT_NOTE},
        .note = {.n_namesz = name_size, .n_descsz = 4, .n_type = type},
        .name = "Xen",
        .entry = 0x1000000,
    };
    GByteArray *bytes = g_byte_array_new();

    elf.header.e_phoff = G_STRUCT_OFFSET(__typeof__(elf), segment);
    elf.segment.p_offset = G_STRUCT_OFFSET(__typeof__(elf), note);
    elf.segment.p_filesz = sizeof(elf.note) + 8;
    return g_byte_array_append(bytes, (const guint8 *)&elf, sizeof(elf));
}

/* A bzImage of two sectors of setup, whose payload is `elf` packed by `tool`, and four bytes of the kernel's own where it adds them. */
static void write_kernel(const Fixture *fixture, GByteArray *elf, const char *const *tool, gboolean trailer)
{
    g_autofree char *raw = g_build_filename(fixture->folder, "raw", NULL);
    g_autofree char *image = NULL;
    g_autoptr(GString) packed = g_string_new(NULL);
    g_autofree char *output = NULL;
    g_autoptr(GSubprocess) process = NULL;
    g_autoptr(GBytes) input = g_bytes_new(elf->data, elf->len), got = NULL;
    GError *error = NULL;
    guint32 offset = 16, length;

    process = g_subprocess_newv(tool, G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE, &error);
    g_assert_no_error(error);
    g_assert_true(g_subprocess_communicate(process, input, NULL, &got, NULL, &error));
    g_assert_no_error(error);
    g_string_append_len(packed, g_bytes_get_data(got, NULL), (gssize)g_bytes_get_size(got));
    if (trailer)
        g_string_append_len(packed, "size", 4);
    length = (guint32)packed->len;
    image = g_malloc0(3 * 512 + offset + length);
    image[0x1f1] = 2;
    memcpy(image + 0x202, "HdrS", 4);
    memcpy(image + 0x248, &offset, 4);
    memcpy(image + 0x24c, &length, 4);
    memcpy(image + 3 * 512 + offset, packed->str, packed->len);
    g_assert_true(g_file_set_contents(fixture->from, image, 3 * 512 + offset + length, NULL));
}

static const char *const lz4[] = {"lz4", "-l", "-z", "-c", NULL}, *const zstd[] = {"zstd", "-q", "-c", NULL},
                         *const xz[] = {"xz", "-c", NULL}, *const gzip[] = {"gzip", "-c", NULL},
                         *const none[] = {"cat", NULL};

static void test_vmlinux(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    static const char *const *const tools[] = {lz4, zstd, xz, gzip};
    g_autoptr(GByteArray) elf = make_elf(4, 18);

    for (gsize i = 0; i < G_N_ELEMENTS(tools); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *why = NULL;
        g_autofree char *text = NULL;
        gsize length = 0;

        if (!has_program(tools[i][0])) {
            g_test_message("no %s", tools[i][0]);
            continue;
        }
        write_kernel(fixture, elf, tools[i], tools[i] != gzip);
        if (!vmlinux_unpack(&fixture->build, fixture->from, fixture->to, &why, &error))
            g_error("%s: %s", tools[i][0], error ? error->message : why);
        g_assert_true(g_file_get_contents(fixture->to, &text, &length, NULL));
        g_assert_cmpmem(text, length, elf->data, elf->len);
        g_unlink(fixture->to);
    }
}

static void assert_why(Fixture *fixture, const char *part)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *why = NULL;

    g_assert_false(vmlinux_unpack(&fixture->build, fixture->from, fixture->to, &why, &error));
    g_assert_no_error(error);
    g_assert_nonnull(why);
    g_assert_nonnull(strstr(why, part));
    g_assert_false(g_file_test(fixture->to, G_FILE_TEST_EXISTS));
}

static void test_vmlinux_refused(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GByteArray) other_note = make_elf(4, 17);
    g_autoptr(GByteArray) long_note = make_elf(G_MAXUINT32, 18);
    g_autofree char *text = NULL;
    gsize length = 0;
    guint32 far = G_MAXUINT32 - 8;

    write_kernel(fixture, other_note, gzip, FALSE);
    assert_why(fixture, "no PVH entry");
    write_kernel(fixture, long_note, gzip, FALSE);
    assert_why(fixture, "no PVH entry");
    write_kernel(fixture, other_note, none, FALSE);
    assert_why(fixture, "not packed");
    g_assert_true(g_file_get_contents(fixture->from, &text, &length, NULL));
    memcpy(text + 0x24c, &far, 4);
    g_assert_true(g_file_set_contents(fixture->from, text, (gssize)length, NULL));
    assert_why(fixture, "not packed");
    g_assert_true(g_file_set_contents(fixture->from, "short", -1, NULL));
    assert_why(fixture, "not packed");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/agent-boot/order", test_order);
    g_test_add_func("/agent-boot/names", test_names);
    g_test_add_func("/agent-boot/cpio", test_cpio);
    g_test_add("/agent-boot/vmlinux", Fixture, NULL, set_up, test_vmlinux, tear_down);
    g_test_add("/agent-boot/vmlinux-refused", Fixture, NULL, set_up, test_vmlinux_refused, tear_down);
    return g_test_run();
}
