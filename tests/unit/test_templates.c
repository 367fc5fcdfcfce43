#include "apt_source.h"
#include "guest_root.h"
#include "hvm_error.h"
#include "image_build.h"
#include "image_keys.h"
#include "os_profile.h"
#include "template.h"
#include "template_keys.h"
#include "tree.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    char *folder;
    char *first;  /* looked in before */
    char *second;
    const char *folders[3];
} Fixture;

static void set_up(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    fixture->folder = g_dir_make_tmp("hvm-templates-XXXXXX", &error);
    g_assert_no_error(error);
    fixture->first = g_build_filename(fixture->folder, "first", NULL);
    fixture->second = g_build_filename(fixture->folder, "second", NULL);
    g_assert_cmpint(g_mkdir(fixture->first, 0755), ==, 0);
    g_assert_cmpint(g_mkdir(fixture->second, 0755), ==, 0);
    fixture->folders[0] = fixture->first;
    fixture->folders[1] = fixture->second;
}

static void tear_down(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autofree char *name = g_path_get_basename(fixture->folder);
    g_autofree char *parent = g_path_get_dirname(fixture->folder);
    int fd = open(parent, O_RDONLY | O_DIRECTORY);

    g_assert_true(tree_remove(fd, name, fixture->folder, NULL));
    close(fd);
    g_free(fixture->folder);
    g_free(fixture->first);
    g_free(fixture->second);
}

static void put(const char *folder, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void assert_error(GError *error, int code, const char *part)
{
    g_assert_error(error, HVM_ERROR, code);
    if (!strstr(error->message, part))
        g_error("wanted '%s' in: %s", part, error->message);
}

static void assert_refused(const Fixture *fixture, const char *name, int code, const char *part)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(template_load(fixture->folders, name, &error));
    assert_error(error, code, part);
}

static void test_inherit(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Template) template = NULL;

    put(fixture->second, "base.conf", "[cpu]\ncount=2\nsmt=any\n[memory]\nsize=2048M\n[network default]\nkind=nat\n");
    put(fixture->second, "middle.conf", "[template]\ninherits=base\n[cpu]\ncount=4\n");
    put(fixture->first, "leaf.conf", "[template]\ninherits=middle\n[memory]\nsize=8G\n");
    template = template_load(fixture->folders, "leaf", &error);
    g_assert_no_error(error);
    g_assert_cmpstr(template->name, ==, "leaf");
    g_assert_true(g_str_has_suffix(template->path, "first/leaf.conf"));
    g_assert_cmpstr(settings_get(template->settings, "cpu", "count"), ==, "4");
    g_assert_cmpstr(settings_origin(template->settings, "cpu", "count"), ==, "template middle");
    g_assert_cmpstr(settings_get(template->settings, "cpu", "smt"), ==, "any");
    g_assert_cmpstr(settings_origin(template->settings, "cpu", "smt"), ==, "template base");
    g_assert_cmpstr(settings_get(template->settings, "memory", "size"), ==, "8G");
    g_assert_cmpstr(settings_origin(template->settings, "memory", "size"), ==, "template leaf");
    g_assert_cmpstr(settings_get(template->settings, "network default", "kind"), ==, "nat");
    g_assert_null(settings_get(template->settings, "memory", "pages")); /* no defaults */
}

static void test_first_folder_wins(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Template) template = NULL;
    g_auto(GStrv) names = NULL;
    g_autofree char *joined = NULL;

    put(fixture->first, "same.conf", "[cpu]\ncount=1\n");
    put(fixture->second, "same.conf", "[cpu]\ncount=2\n");
    put(fixture->second, "broken.conf", "[nothing]\n");
    put(fixture->second, "Bad Name.conf", "");
    put(fixture->second, "notes.txt", "");
    template = template_load(fixture->folders, "same", &error);
    g_assert_no_error(error);
    g_assert_cmpstr(settings_get(template->settings, "cpu", "count"), ==, "1");
    names = template_list(fixture->folders);
    joined = g_strjoinv(" ", names);
    g_assert_cmpstr(joined, ==, "broken same");
}

static void test_loop(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    put(fixture->first, "one.conf", "[template]\ninherits=two\n");
    put(fixture->first, "two.conf", "[template]\ninherits=three\n");
    put(fixture->first, "three.conf", "[template]\ninherits=two\n");
    put(fixture->first, "self.conf", "[template]\ninherits=self\n");
    assert_refused(fixture, "one", HVM_ERROR_INVALID, "a loop in inherits: one -> two -> three -> two");
    assert_refused(fixture, "self", HVM_ERROR_INVALID, "a loop in inherits: self -> self");
}

static void test_levels(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Template) template = NULL;

    put(fixture->first, "t17.conf", "[cpu]\ncount=3\n");
    for (int i = 1; i <= 16; i++) {
        g_autofree char *name = g_strdup_printf("t%d.conf", i);
        g_autofree char *text = g_strdup_printf("[template]\ninherits=t%d\n", i + 1);

        put(fixture->first, name, text);
    }
    assert_refused(fixture, "t1", HVM_ERROR_INVALID, "more than 16 levels deep: t1 -> t2 ->");
    template = template_load(fixture->folders, "t2", &error); /* 16 of them */
    g_assert_no_error(error);
    g_assert_cmpstr(settings_get(template->settings, "cpu", "count"), ==, "3");
}

static void test_missing(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    static const char *const bad[] = {"", "../x", "a/b", "A", "x\ny", "$(x)", NULL};
    g_autofree char *lengthy = g_strnfill(300, 'a');

    put(fixture->first, "debian12.conf", "");
    put(fixture->first, "orphan.conf", "[template]\ninherits=gone\n");
    assert_refused(fixture, "debain12", HVM_ERROR_NOT_FOUND, "did you mean 'debian12'?");
    assert_refused(fixture, "debain12", HVM_ERROR_NOT_FOUND, fixture->second);
    assert_refused(fixture, "windows", HVM_ERROR_NOT_FOUND, "no template 'windows' in ");
    assert_refused(fixture, "orphan", HVM_ERROR_INVALID, "missing: orphan -> gone");
    for (int i = 0; bad[i]; i++)
        assert_refused(fixture, bad[i], HVM_ERROR_INVALID, "bad template name");
    assert_refused(fixture, lengthy, HVM_ERROR_INVALID, "bad template name");
}

static void test_bad_files(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    static const struct {
        const char *text;
        const char *part;
    } cases[] = {
        {"[cpu]\ncuont=1\n", "unknown key 'cuont' in [cpu]; did you mean 'count'?"},
        {"[cpus]\ncount=1\n", "unknown group [cpus]; did you mean 'cpu'?"},
        {"[disk rot]\nsize=20G\n", "unknown group [disk rot]; did you mean 'disk root'?"},
        {"[network ib0]\nkind=none\n", "unknown group [network ib0]"},
        {"[cpu]\ncount=1\ncount=2\n", "count in [cpu] stands twice, on lines 2 and 3"},
        {"[cpu]\ncount=1\n[memory]\n[cpu]\nsmt=any\n", "[cpu] stands twice, on lines 1 and 4"},
        {"[cpu]\ncount=0\n", "[cpu] count: wanted 1 to 4096, found '0'"},
        {"[memory]\npages=3M\n", "[memory] pages: wanted auto|4K|2M|1G, found '3M'"},
        {"[template]\ninherits=../../etc/x\n", "bad name"},
        {"[build]\nsuite=book worm\n", "[build] suite"},
        {"[cpu\n", "bad.conf"},
        {"[cpu]\ncount=\xff\n", "UTF-8"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        put(fixture->first, "bad.conf", cases[i].text);
        assert_refused(fixture, "bad", HVM_ERROR_INVALID, cases[i].part);
        assert_refused(fixture, "bad", HVM_ERROR_INVALID, "first/bad.conf");
    }
}

/* The templates that are shipped load, and say how they are built. */
static void test_shipped(void)
{
    const char *folder = g_getenv("HVM_SHIPPED_TEMPLATES");
    const char *const folders[] = {folder, NULL};
    g_auto(GStrv) names = NULL;

    if (!folder) {
        g_test_skip("HVM_SHIPPED_TEMPLATES is not set: run by `meson test`");
        return;
    }
    names = template_list(folders);
    g_assert_true(g_strv_contains((const char *const *)names, "debian12"));
    for (char **name = names; *name; name++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(Template) template = template_load(folders, *name, &error);

        g_assert_no_error(error);
        g_assert_nonnull(settings_get(template->settings, "template", "description"));
        g_assert_nonnull(settings_get(template->settings, "build", "method"));
        g_assert_nonnull(settings_get(template->settings, "os", "id"));
    }
}

static void test_folders(void)
{
    g_auto(GStrv) fallback = NULL;
    g_auto(GStrv) given = NULL;

    g_unsetenv("HVM_TEMPLATE_PATH");
    fallback = template_folders();
    g_assert_cmpstr(fallback[0], ==, "/etc/hvm/templates");
    g_assert_true(g_str_has_suffix(fallback[1], "/guest-templates")); /* of the build folder */
    g_assert_null(fallback[2]);
    g_setenv("HVM_TEMPLATE_PATH", "/a:/b", TRUE);
    given = template_folders();
    g_assert_cmpuint(g_strv_length(given), ==, 2);
    g_assert_cmpstr(given[1], ==, "/b");
    g_unsetenv("HVM_TEMPLATE_PATH");
}

static void test_profile(void)
{
    static const struct {
        const char *id;
        const char *machine, *disk_bus, *nic_model, *agent_port, *origin;
    } cases[] = {
        {"debian11", "q35", "virtio", "virtio", "virtio", "libosinfo debian11"},
        {"centos7.0", "q35", "virtio", "virtio", "virtio", "libosinfo centos7.0"},
        {"scientificlinux7.6", "q35", "virtio", "virtio", "virtio", "libosinfo scientificlinux7.6"},
        /* virtio before 1.0 only: nothing to be found behind a PCI Express port */
        {"scientificlinux6.10", "pc", "virtio", "virtio", "virtio", "libosinfo scientificlinux6.10"},
        {"centos6.10", "pc", "virtio", "virtio", "virtio", "libosinfo centos6.10"},
        {"scientificlinux5.11", "pc", "virtio", "virtio", "isa-serial", "libosinfo scientificlinux5.11"},
        {"centos5.0", "pc", "ide", "e1000", "isa-serial", "libosinfo centos5.0"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *note = NULL;
        g_autoptr(Settings) settings = os_profile_resolve(cases[i].id, &note, &error);

        g_assert_no_error(error);
        g_assert_null(note);
        g_assert_cmpstr(settings_get(settings, "os", "id"), ==, cases[i].id);
        g_assert_cmpstr(settings_get(settings, "os", "machine"), ==, cases[i].machine);
        g_assert_cmpstr(settings_get(settings, "os", "disk-bus"), ==, cases[i].disk_bus);
        g_assert_cmpstr(settings_get(settings, "os", "nic-model"), ==, cases[i].nic_model);
        g_assert_cmpstr(settings_get(settings, "os", "agent-port"), ==, cases[i].agent_port);
        g_assert_cmpstr(settings_origin(settings, "os", "machine"), ==, cases[i].origin);
    }
}

static void test_profile_unknown(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *note = NULL;
    g_autofree char *note_none = NULL;
    g_autoptr(Settings) newer = os_profile_resolve("centos7.99", &note, &error);
    g_autoptr(Settings) none = NULL;

    g_assert_no_error(error);
    g_assert_cmpstr(settings_get(newer, "os", "id"), ==, "centos7.99");
    g_assert_cmpstr(settings_get(newer, "os", "machine"), ==, "q35");
    g_assert_nonnull(strstr(note, "does not know 'centos7.99': using what it says of 'centos7"));
    none = os_profile_resolve("templeos", &note_none, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(none->items->len, ==, 1);
    g_assert_nonnull(strstr(note_none, "using defaults"));
    g_assert_null(os_profile_resolve("", NULL, &error));
    assert_error(error, HVM_ERROR_INVALID, "[os] id");
}

static void test_profile_no_helper(void)
{
    g_autoptr(GError) error = NULL;

    g_setenv("HVM_LIBEXEC", "/nonexistent", TRUE);
    g_assert_null(os_profile_resolve("debian11", NULL, &error));
    g_unsetenv("HVM_LIBEXEC");
    assert_error(error, HVM_ERROR_HOST, "/nonexistent/hvm-osinfo");
}

static char *sources_for(const Fixture *fixture, const char *own, const char *suite, GError **error)
{
    return apt_source_for_suite(fixture->folder, own, suite, TRUE, error);
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        g_error("wanted '%s' in: %s", part, text);
}

static void test_sources(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *parts = g_build_filename(fixture->folder, "sources.list.d", NULL);
    g_autofree char *own = NULL;
    g_autofree char *other = NULL;
    g_autofree char *old = NULL;

    g_assert_cmpint(g_mkdir(parts, 0755), ==, 0);
    put(fixture->folder, "sources.list",
        "# deb http://commented.invalid/debian bookworm main\n"
        "deb-src http://mirror.invalid/debian bookworm main\n"
        "deb https://packages.invalid/other cloud-bookworm main\n"
        "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]  http://mirror.invalid/debian\tbookworm "
        "main contrib # main\n");
    put(parts, "more.sources",
        "Types: deb deb-src\n# a comment\nURIs: http://mirror.invalid/debian-security/\nSuites: bookworm-security\n"
        "Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n debian-archive\n\n"
        "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm-updates bookworm-backports\nComponents: main\n\n"
        "Types: deb\nURIs: http://off.invalid/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n\n"
        "Types: deb\nURIs: https://third.invalid/prod\nSuites: bookworm\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/third.gpg\n");
    put(parts, "ignored.save", "deb http://ignored.invalid/debian bookworm main\n");
    own = sources_for(fixture, "bookworm", "bookworm", &error);
    g_assert_no_error(error);
    assert_contains(own, "Suites: bookworm\nComponents: main\nsigned-by: /usr/share/keyrings/debian-archive-keyring.gpg\n"
                         "uris: http://mirror.invalid/debian\n");
    assert_contains(own, "Suites: bookworm-security\n");
    assert_contains(own, "\n .\n debian-archive\n");
    assert_contains(own, "Suites: bookworm-updates\n");
    g_assert_null(strstr(own, "backports"));
    g_assert_null(strstr(own, "off.invalid"));
    g_assert_null(strstr(own, "third.invalid"));
    g_assert_null(strstr(own, "commented"));
    g_assert_null(strstr(own, "ignored"));
    g_assert_null(strstr(own, "other"));
    g_assert_null(strstr(own, "deb-src"));

    other = sources_for(fixture, "bookworm", "bullseye", &error);
    g_assert_no_error(error);
    assert_contains(other, "Suites: bullseye\n");
    assert_contains(other, "Suites: bullseye-security\n");
    assert_contains(other, "Suites: bullseye-updates\n");
    g_assert_null(strstr(other, "bookworm"));
    old = sources_for(fixture, "bookworm", "buster", &error);
    g_assert_no_error(error);
    assert_contains(old, "Suites: buster/updates\n");
}

static void test_sources_missing(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(sources_for(fixture, "bookworm", "bookworm", &error));
    assert_error(error, HVM_ERROR_HOST, "no package source for Debian's bookworm");
    g_clear_error(&error);
    /* security alone is no system */
    put(fixture->folder, "sources.list", "deb http://mirror.invalid/debian-security bookworm-security main\n[\ndeb [\ndeb [x\n");
    g_assert_null(sources_for(fixture, "bookworm", "bookworm", &error));
    assert_error(error, HVM_ERROR_HOST, fixture->folder);
    g_clear_error(&error);
    g_assert_null(sources_for(fixture, NULL, "bullseye", &error));
    assert_error(error, HVM_ERROR_HOST, "bullseye");
}

static void test_sources_secret(void)
{
    g_assert_true(apt_source_has_secret("uris: https://user:secret@mirror.invalid/debian\n"));
    g_assert_true(apt_source_has_secret("uris: http://a/ http://token@b/debian\n"));
    g_assert_false(apt_source_has_secret("uris: https://mirror.invalid/debian@2\n"));
}

static void test_own_suite(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autofree char *path = g_build_filename(fixture->folder, "os-release", NULL);
    g_autofree char *suite = NULL;

    g_assert_null(apt_source_own_suite(path));
    put(fixture->folder, "os-release", "ID=x\n");
    g_assert_null(apt_source_own_suite(path));
    put(fixture->folder, "os-release", "ID=debian\nVERSION_CODENAME=\"bookworm\"\n");
    suite = apt_source_own_suite(path);
    g_assert_cmpstr(suite, ==, "bookworm");
}

/* Links in the new root lead to places in it, never to the node's. */
static void test_guest_root(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *precious = g_build_filename(fixture->second, "precious", NULL);
    g_autofree char *link = g_build_filename(fixture->first, "etc", NULL);
    g_autofree char *inside = g_strconcat(fixture->first, fixture->second, "/hosts", NULL);
    g_autofree char *text = NULL;
    g_autofree char *last = NULL;
    int fd = open(fixture->first, O_RDONLY | O_DIRECTORY);
    struct stat status;

    put(fixture->second, "precious", "data");
    g_assert_cmpint(symlink(fixture->second, link), ==, 0); /* absolute, to the node's folder */
    g_assert_false(guest_root_exists(fd, "etc/precious"));
    g_assert_true(guest_root_write(fd, "usr/lib/x", 0755, "abc", 3, &error));
    g_assert_no_error(error);
    g_assert_true(guest_root_link(fd, "usr/lib/x", "/dev/null", &error)); /* in its place */
    g_assert_true(guest_root_write(fd, "usr/lib/x", 0600, "new", 3, &error));
    g_assert_no_error(error);
    {
        g_autofree char *path = g_build_filename(fixture->first, "usr/lib/x", NULL);

        g_assert_cmpint(lstat(path, &status), ==, 0);
        g_assert_true(S_ISREG(status.st_mode));
        g_assert_cmpuint(status.st_mode & 0777, ==, 0600);
    }
    {
        g_autofree char *folder = g_path_get_dirname(inside);

        g_assert_cmpint(g_mkdir_with_parents(folder, 0755), ==, 0);
    }
    g_assert_true(guest_root_write(fd, "/etc/hosts", 0644, "hosts", 5, &error));
    g_assert_no_error(error);
    g_assert_true(g_file_get_contents(inside, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "hosts");
    g_assert_true(guest_root_remove_matching(fd, "etc", "*", &error));
    g_assert_true(guest_root_remove(fd, "../../second/precious", &error));
    g_assert_no_error(error);
    g_assert_true(g_file_test(precious, G_FILE_TEST_EXISTS));
    g_assert_false(g_file_test(inside, G_FILE_TEST_EXISTS));
    g_assert_true(guest_root_write(fd, "boot/vmlinuz-6.1.0-9", 0644, "", 0, &error));
    g_assert_true(guest_root_write(fd, "boot/vmlinuz-6.1.0-56", 0644, "", 0, &error));
    last = guest_root_find_last(fd, "boot", "vmlinuz-*");
    g_assert_cmpstr(last, ==, "vmlinuz-6.1.0-56");
    close(fd);
}

/* What can be refused before any work: nothing is left in the store, and no tool was run. */
static void test_build_refused(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    static const struct {
        const char *text;
        const char *agent;
        int code;
        const char *part;
    } cases[] = {
        {"[cpu]\ncount=1\n", "/bin/true", HVM_ERROR_INVALID, "template 'sample': it has no [build] method"},
        {"[build]\nmethod=mmdebstrap\n", "/bin/true", HVM_ERROR_INVALID, "[build] suite is not set"},
        {"[build]\nmethod=mmdebstrap\nsuite=bookworm\n", "/bin/true", HVM_ERROR_INVALID, "[build] packages is not set"},
        {"[build]\nmethod=mmdebstrap\nsuite=bookworm\npackages=udev -x\n", "/bin/true", HVM_ERROR_INVALID,
         "'-x' is no package name"},
        {"[build]\nmethod=mmdebstrap\nsuite=bookworm\npackages=udev,x\n", "/bin/true", HVM_ERROR_INVALID,
         "'udev,x' is no package name"},
        {"[build]\nmethod=mmdebstrap\nsuite=bookworm\npackages=udev\n", "/nonexistent/agent", HVM_ERROR_HOST,
         "/nonexistent/agent is missing"},
    };
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(fixture->folder, "store", NULL);
    g_autofree char *images = g_build_filename(path, "images", NULL);
    g_autoptr(ImageStore) store = image_store_open(path, 0, 0, &error);
    g_autoptr(GDir) left = NULL;

    g_assert_no_error(error);
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(Template) template = NULL;

        put(fixture->first, "sample.conf", cases[i].text);
        template = template_load(fixture->folders, "sample", &error);
        g_assert_no_error(error);
        g_assert_null(image_build(store, template, cases[i].agent, NULL, NULL, NULL, &error));
        if (geteuid() == 0)
            assert_error(error, cases[i].code, cases[i].part);
        else
            assert_error(error, HVM_ERROR_DENIED, "wanted root");
        g_clear_error(&error);
    }
    left = g_dir_open(images, 0, NULL);
    g_assert_null(g_dir_read_name(left));
}

/* A template's [os] keys are those which an image keeps: one list feeds both tables. */
static void test_os_keys(void)
{
    for (const Key *row = template_keys; row->group; row++)
        if (strcmp(row->group, "os") == 0)
            g_assert_nonnull(key_find(image_keys, row->group, row->key));
}

#define ADD(name, func) g_test_add("/templates/" name, Fixture, NULL, set_up, func, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("inherit", test_inherit);
    ADD("first-folder-wins", test_first_folder_wins);
    ADD("loop", test_loop);
    ADD("levels", test_levels);
    ADD("missing", test_missing);
    ADD("bad-files", test_bad_files);
    g_test_add_func("/templates/shipped", test_shipped);
    g_test_add_func("/templates/folders", test_folders);
    g_test_add_func("/templates/os-keys", test_os_keys);
    g_test_add_func("/profile/known", test_profile);
    g_test_add_func("/profile/unknown", test_profile_unknown);
    g_test_add_func("/profile/no-helper", test_profile_no_helper);
    ADD("sources", test_sources);
    ADD("sources-missing", test_sources_missing);
    g_test_add_func("/templates/sources-secret", test_sources_secret);
    ADD("own-suite", test_own_suite);
    ADD("guest-root", test_guest_root);
    ADD("build-refused", test_build_refused);
    return g_test_run();
}
