#include "host_made_up.h"
#include "hvm_error.h"
#include "map.h"

static const char *name_owner(unsigned pu, gpointer data)
{
    unsigned *asked = data;

    if (asked)
        (*asked)++;
    return pu < 6 ? "mpi0" : pu == 9 ? "another user" : pu == 17 || pu == 18 ? "sl6\x1b" : NULL;
}

/* Without the escape sequences of colours. */
static char *strip_colours(const char *text)
{
    GString *plain = g_string_new(NULL);

    for (; *text; text++) {
        if (*text == '\033')
            text = strchr(text, 'm');
        else
            g_string_append_c(plain, *text);
    }
    return g_string_free(plain, FALSE);
}

static Host *map_host(void)
{
    g_autofree char *text = capture_text("synthetic:package:2 numa:1(memory=1GiB) l3:3 core:2 pu:2");
    g_autofree char *isolated = replace(text, "hvm.isolated\" value=\"", "hvm.isolated\" value=\"14-15");
    g_autofree char *allowed = replace(isolated, "allowed_cpuset=\"0x00ffffff\"", "allowed_cpuset=\"0x003effff\"");
    g_autofree char *pools = replace(allowed, "<info name=\"hvm.pages.4096\" value=\"262144:unknown\"/>",
                                     "<info name=\"hvm.pages.4096\" value=\"131072:65536\"/>"
                                     "<info name=\"hvm.pages.2097152\" value=\"256:100\"/>");
    g_autoptr(GError) error = NULL;
    Host *host = load_text(pools, -1, &error);

    g_assert_no_error(error);
    g_free(host->description);
    host->description = g_strdup("a node");
    return host;
}

static void test_map(void)
{
    static const char wanted[] =
        "a node: 21 CPUs, 2 threads in a core\n"
        "package 0\n"
        "  node 0: 1 GiB, 256 MiB free,\n"
        "          100 of 256 pages of 2 MiB free\n"
        "     0 |AA AA|AA ..|.B ..|\n"
        "package 1\n"
        "  node 1: 1 GiB, 256 MiB free,\n"
        "          100 of 256 pages of 2 MiB free\n"
        "    12 |.. ::|-C C.|..|\n" /* 16 and 22-23 are not allowed */
        "  A mpi0: 6 CPUs\n"
        "  B another user: 1 CPU\n"
        "  C sl6\\x1b: 2 CPUs\n"
        "  . free, : free and isolated, - not usable: 12 CPUs\n";
    g_autoptr(Host) host = map_host();
    g_autoptr(GString) out = g_string_new(NULL), coloured = g_string_new(NULL), empty = g_string_new(NULL);
    unsigned asked = 0;

    map_text(host, name_owner, &asked, 0, FALSE, out);
    g_assert_cmpstr(out->str, ==, wanted);
    g_assert_cmpuint(asked, ==, 21);
    map_text(host, name_owner, NULL, 0, TRUE, coloured);
    g_assert_nonnull(strstr(coloured->str, "\033[32mA\033[0m"));
    g_autofree char *plain = strip_colours(coloured->str);
    g_assert_cmpstr(plain, ==, wanted);
    map_text(host, NULL, NULL, 80, FALSE, empty);
    g_assert_nonnull(strstr(empty->str, "     0 |.. ..|.. ..|.. ..|\n"));
    g_assert_nonnull(strstr(empty->str, "not usable: 21 CPUs\n"));
}

/* Every PU once, no line too wide, for nodes of all sizes and terminals of all widths. */
static void test_map_sizes(void)
{
    static const char *const hosts[] = {
        "synthetic:pu:1", "synthetic:pu:2", "synthetic:package:1 l3:1 core:72 pu:1", "synthetic:package:2 core:64 pu:4",
        "synthetic:package:8 numa:1 l3:4 core:16 pu:2", "synthetic:package:2 numa:4 l3:2 core:8 pu:2",
        "synthetic:package:1 [numa] [numa] core:100 pu:1",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(hosts); i++) {
        g_autoptr(Host) host = host_new_from(hosts[i], NULL);

        for (unsigned width = 40; width <= 200; width += 23) {
            g_autoptr(GString) out = g_string_new(NULL);
            unsigned cells = 0;

            map_text(host, NULL, NULL, width, FALSE, out);
            g_auto(GStrv) lines = g_strsplit(out->str, "\n", -1);

            for (char **line = lines; *line; line++) {
                if (!g_str_has_prefix(*line, "synthetic:"))
                    g_assert_cmpuint(strlen(*line), <=, width);
                for (const char *c = *line; g_str_has_prefix(*line, "    ") && *c; c++)
                    cells += *c == '.';
            }
            g_assert_cmpuint(cells, ==, (unsigned)hwloc_bitmap_weight(host->usable_pus));
        }
    }
}

static const char *name_markup(unsigned pu, G_GNUC_UNUSED gpointer data)
{
    return pu < 6 ? "<script>&" : pu < 8 ? "mpi0" : NULL;
}

static void test_map_svg(void)
{
    g_autofree char *program = g_find_program_in_path("lstopo-no-graphics");
    g_autofree char *folder = g_dir_make_tmp("hvm-map-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "map.svg", NULL);
    g_autofree char *nowhere = g_build_filename(folder, "none", "map.svg", NULL);
    g_autofree char *svg = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(Host) host = map_host();

    if (!program) {
        g_assert_false(map_svg(host, name_markup, NULL, path, &error));
        g_assert_error(error, HVM_ERROR, HVM_ERROR_HOST);
        remove_tree(folder);
        g_test_skip("no lstopo-no-graphics: install hwloc-nox or hwloc");
        return;
    }
    map_svg(host, name_markup, NULL, path, &error);
    g_assert_no_error(error);
    g_assert_true(g_file_get_contents(path, &svg, NULL, NULL));
    const char *box = strstr(svg, "viewBox='");

    g_assert_nonnull(box);
    g_assert_cmpuint(strspn(box + strlen("viewBox='"), "0123456789 "), ==, strcspn(box + strlen("viewBox='"), "'"));
    g_assert_null(strstr(svg, "<script"));
    g_assert_nonnull(strstr(svg, "_script__: 6 CPUs"));
    /* the first owner's colour, #8dd3c7, on 6 PUs and 3 cores; and in the legend */
    g_auto(GStrv) filled = g_strsplit(svg, "fill='rgb(141,211,199)'", -1);
    g_assert_cmpuint(g_strv_length(filled), ==, 6 + 3 + 1);
    g_assert_nonnull(strstr(svg, "<tspan fill='#8dd3c7'>"));
    g_assert_false(map_svg(host, NULL, NULL, nowhere, &error));
    g_assert_nonnull(error);
    remove_tree(folder);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/map/text", test_map);
    g_test_add_func("/map/sizes", test_map_sizes);
    g_test_add_func("/map/svg", test_map_svg);
    return g_test_run();
}
