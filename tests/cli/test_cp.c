/* hvm cp, with a guest whose sh and tar are this machine's, and with one that lies. */
#include "hvm_error.h"
#include "run_hvm.h"
#include "terminal_test.h"

#include <archive.h>
#include <archive_entry.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

/* A line of bash in a fresh folder, where `there` is the guest's. Prints what it prints. */
static void check_line(FakeHvmd *fake, const char *line, const char *wanted)
{
    g_autofree char *whole = g_strconcat("t=$(mktemp -d) && cd $t && mkdir there && { ", line,
                                         "\n} 2>&1 | sed \"s,$t,T,g\"; chmod -R u+rwx $t; rm -rf $t", NULL);
    int status = 0;
    g_autofree char *output = run_shell(fake, whole, &status);

    g_assert_cmpstr(output, ==, wanted);
}

#define SUM \
    "sum() { (cd $1 && find . -printf '%y %m %Ts %n %l %p\\n' | sed 's/^d \\([0-7]* [0-9]*\\) [0-9]*/d \\1/' | sort && " \
    "find . -type f -print0 | sort -z | xargs -0 sha256sum); }\n"

/* A tree there and back is the same: modes, times, links, names. */
static void test_tree(void)
{
    FakeHvmd *fake = fake_new();

    check_line(fake,
               SUM "mkdir -p a/sub/deep a/empty; seq 50000 >a/sub/deep/n; echo x >a/run; chmod 755 a/run; ln a/run a/again\n"
                   "ln -s sub a/link; ln -s /nowhere a/dangling; touch 'a/with space' a/-dash $'a/n\\303\\244me' $'a/\\377' $'a/new\\nline'\n"
                   "touch a/$(printf 'long%.0s' {1..50}); chmod 500 a/empty; chmod 550 a; find a -exec touch -h -d 2020-02-03 {} +\n"
                   "$HVM cp a g:$t/there; echo $?; $HVM cp g:$t/there/a b; echo $?; ls -A there\n"
                   "sum a >1; sum there/a >2; sum b >3; diff 1 2; diff 1 3; wc -l <1; ls -A | grep -c hvm-cp",
               "0\n0\na\n25\n0\n");
    fake_free(fake);
}

static void test_names(void)
{
    static const struct {
        const char *line;
        const char *wanted;
    } lines[] = {
        /* into the guest */
        {"echo 1 >f; $HVM cp f g:$t/there; $HVM cp f g:$t/there/n; $HVM cp ./f g:$t/there/; ls there", "f\nn\n"},
        {"mkdir d; $HVM cp d/ g:$t/there/n; $HVM cp d/. g:$t/there; ls there", "d\nn\n"},
        {"echo 1 >f; echo 2 >there/f; $HVM cp f g:$t/there; cat there/f", "1\n"},
        {"echo 1 >f; ln -s f l; $HVM cp l g:$t/there; cat there/l; stat -c %F there/l", "1\nregular file\n"},
        {"echo 1 >a:b; $HVM cp ./a:b g:$t/there; ls there", "a:b\n"},
        {"echo 1 >f; mkdir there/f; $HVM cp f g:$t/there; echo $?", "hvm: guest 'g': there is a folder T/there/f already\n4\n"},
        {"mkdir d; echo 1 >there/d; $HVM cp d g:$t/there; echo $?; cat there/d",
         "hvm: guest 'g': T/there/d is there already, and no folder\n4\n1\n"},
        {"mkdir d; $HVM cp d g:$t/there/no/d; echo $?; ls -A there", "hvm: guest 'g': there is no folder T/there/no/\n3\n"},
        {"mkdir d; $HVM cp d g:$t/there/no/; echo $?", "hvm: guest 'g': there is no folder T/there/no/\n3\n"},
        {"$HVM cp $t/no g:$t/there; echo $?", "hvm: cannot copy T/no: No such file or directory\n3\n"},
        {"mkfifo p; $HVM cp p g:$t/there; echo $?", "hvm: cannot copy p: it is neither a file nor a folder\n2\n"},
        {"mkdir d; mkfifo d/p; echo 1 >d/f; $HVM cp d g:$t/there; echo $?; ls there/d",
         "hvm: left out 1 that is neither file, folder nor link: T/d/p\n0\nf\n"},
        {"$HVM cp / g:$t/there; echo $?", "hvm: cp: wanted a source with a name, found '/'\n2\n"},
        /* out of it */
        {"echo 1 >there/f; $HVM cp g:$t/there/f .; $HVM cp g:$t/there/f n; cat f n", "1\n1\n"},
        {"echo 1 >there/f; echo 2 >f; $HVM cp g:$t/there/f .; cat f", "1\n"},
        {"echo 1 >there/f; chmod 6755 there/f; $HVM cp g:$t/there/f .; stat -c %a f", "755\n"},
        {"echo 1 >f; chmod 6755 f; $HVM cp f g:$t/there/f; stat -c %a there/f", "755\n"},
        {"echo 1 >there/f; ln -s f there/l; $HVM cp g:$t/there/l .; stat -c %F l", "regular file\n"},
        {"mkdir there/d d; $HVM cp g:$t/there/d .; echo $?", "hvm: there is a folder ./d already\n4\n"},
        {"mkdir there/d; echo 1 >d; $HVM cp g:$t/there/d .; echo $?; cat d", "hvm: cannot copy to d: File exists\n4\n1\n"},
        {"$HVM cp g:$t/there/no .; echo $?", "hvm: guest 'g': there is no T/there/no\n3\n"},
        {"echo 1 >there/f; $HVM cp g:$t/there/f no/f; echo $?", "hvm: cannot copy to no: No such file or directory\n3\n"},
        {"echo 1 >there/f; $HVM cp g:$t/there/f no/; echo $?", "hvm: cannot copy to no/: No such file or directory\n3\n"},
        {"mkfifo there/p; $HVM cp g:$t/there/p .; echo $?", "hvm: guest 'g': T/there/p is neither a file nor a folder\n2\n"},
        {"mkdir there/d; mkfifo there/d/p; $HVM cp g:$t/there/d .; echo $?",
         "hvm: left out 1 that is neither file, folder nor link: p\n0\n"},
        {"$HVM cp g: .; echo $?", "hvm: cp: wanted a source with a name, found ''\n2\n"},
        /* neither */
        {"$HVM cp a b; echo $?", "hvm: cp: wanted GUEST:PATH on one side and a path of this node on the other, found no guest on "
                                 "either (./a:b is a file of this node)\n2\n"},
        {"$HVM cp a:b b:c; echo $?", "hvm: cp: wanted GUEST:PATH on one side and a path of this node on the other, found a guest "
                                     "on both (./a:b is a file of this node)\n2\n"},
    };
    FakeHvmd *fake = fake_new();

    for (gsize i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autofree char *line = g_strconcat(lines[i].line, "\nls -A . there | grep hvm-cp", NULL);

        check_line(fake, line, lines[i].wanted);
    }
    fake_free(fake);
}

/* The request; and what hvmd and the agent say. */
static void test_errors(void)
{
    FakeHvmd *fake = fake_new();
    g_autofree char *request = NULL;

    check_hvm(fake, "cp -u me g:/etc/hostname /nowhere/x", 3, "",
              "hvm: cannot copy to /nowhere: No such file or directory\n");
    g_assert_cmpuint(fake_calls(fake, "Exec"), ==, 0);
    check_line(fake, "echo 1 >there/f; $HVM cp -u me g:$t/there/f f", "");
    request = fake_last_request(fake, "Exec");
    g_assert_nonnull(strstr(request, "'user': <'me'>"));
    g_assert_nonnull(strstr(request, "b'/bin/sh', b'-c'"));
    check_line(fake, "echo 1 >there/f; PATH=/nowhere $HVM cp g:$t/there/f f; echo $?", "0\n"); /* the guest's PATH is its own */
    fake_reply(fake, "ExecWait", "{'end': <'lost'>, 'value': <0>, 'reason': <'the agent closed its channel'>}");
    check_line(fake, "$HVM cp g:$t/there f; echo $?; ls", "hvm: guest 'g': the copy was lost: the agent closed its channel\n12\nthere\n");
    fake_reply(fake, "ExecWait", "{'end': <'exited'>, 'value': <127>, 'reason': <'/bin/sh: no such file'>}");
    check_line(fake, "$HVM cp g:$t/there f; echo $?; ls", "hvm: guest 'g': /bin/sh: no such file\n12\nthere\n");
    fake_error(fake, "Exec", HVM_ERROR_BUSY, "guest 'g': it is not running");
    check_line(fake, "$HVM cp g:$t/there f; echo $?; ls", "hvm: guest 'g': it is not running\n6\nthere\n");
    fake_free(fake);
}

/* --- a guest that lies ------------------------------------------------------------------------------------------------ */

/* One member of a hostile archive. */
typedef struct {
    const char *path;
    int type;            /* AE_IF...; 0: a hard link to target */
    const char *target;
    const char *content;
} Member;

static void write_archive(const char *path, const Member *members)
{
    struct archive *tar = archive_write_new();

    archive_write_set_format_gnutar(tar);
    g_assert_cmpint(archive_write_open_filename(tar, path), ==, ARCHIVE_OK);
    for (const Member *member = members; member->path; member++) {
        struct archive_entry *entry = archive_entry_new();
        gsize length = member->content ? strlen(member->content) : 0;

        archive_entry_copy_pathname(entry, member->path);
        archive_entry_set_filetype(entry, member->type ? (unsigned)member->type : AE_IFREG);
        archive_entry_set_perm(entry, 07777);
        archive_entry_set_size(entry, (la_int64_t)length);
        if (member->target && member->type == AE_IFLNK)
            archive_entry_copy_symlink(entry, member->target);
        else if (member->target)
            archive_entry_copy_hardlink(entry, member->target);
        g_assert_cmpint(archive_write_header(tar, entry), ==, ARCHIVE_OK);
        if (length)
            g_assert_cmpint(archive_write_data(tar, member->content, length), ==, (int)length);
        archive_entry_free(entry);
    }
    g_assert_cmpint(archive_write_free(tar), ==, ARCHIVE_OK);
}

enum { MEMBERS_MAX = 6 };

/* A guest whose tar is a script of ours, in a folder of its own. */
typedef struct {
    FakeHvmd *fake;
    char *folder;
    char *tar;
    char *archive;
} Liar;

static Liar liar_new(void)
{
    Liar liar = {.fake = fake_new(), .folder = g_dir_make_tmp("hvm-cp-test-XXXXXX", NULL)};
    g_autofree char *path = g_strconcat(liar.folder, ":/usr/bin:/bin", NULL);

    liar.tar = g_build_filename(liar.folder, "tar", NULL);
    liar.archive = g_build_filename(liar.folder, "archive", NULL);
    fake_own_path(liar.fake, path);
    return liar;
}

static void liar_free(Liar *liar)
{
    g_unlink(liar->tar);
    g_unlink(liar->archive);
    g_assert_cmpint(g_rmdir(liar->folder), ==, 0);
    g_free(liar->tar);
    g_free(liar->archive);
    g_free(liar->folder);
    fake_free(liar->fake);
}

/* Copies out of it: shows what hvm says, what lies there then, and whether the file beside it is as it was. */
static void check_liar(const Liar *liar, const char *script, const char *wanted)
{
    g_autofree char *text = g_strconcat("#!/bin/sh\n", script, "\n", NULL);

    g_assert_true(g_file_set_contents(liar->tar, text, -1, NULL));
    g_assert_cmpint(g_chmod(liar->tar, 0755), ==, 0);
    check_line(liar->fake,
               "mkdir out; chmod 755 out; echo victim >victim; chmod 644 victim; cd out; $HVM cp g:$t/there copy; echo $?; cd ..\n"
               "find out -printf '%y %m %p\\n' | sort; cat victim; stat -c %a victim",
               wanted);
}

#define UNTOUCHED "12\nd 755 out\nvictim\n644\n"

static void test_hostile(void)
{
    static const struct {
        Member members[MEMBERS_MAX];
        const char *wanted;
    } cases[] = {
        {{{"./", AE_IFDIR}, {"../victim", AE_IFREG, NULL, "bad"}},
         "hvm: guest 'g': the guest sent '../victim', which leads out of the folder: nothing was copied\n" UNTOUCHED},
        {{{"./", AE_IFDIR}, {"a/../../../victim", AE_IFREG, NULL, "bad"}},
         "hvm: guest 'g': the guest sent 'a/../../../victim', which leads out of the folder: nothing was copied\n" UNTOUCHED},
        {{{"./", AE_IFDIR}, {"/tmp/victim", AE_IFREG, NULL, "bad"}},
         "hvm: guest 'g': the guest sent '/tmp/victim', which is no path below the folder: nothing was copied\n" UNTOUCHED},
        /* a link, and something through it */
        {{{"./", AE_IFDIR}, {"./l", AE_IFLNK, "../../.."}, {"./l/victim", AE_IFREG, NULL, "bad"}},
         "hvm: guest 'g': the guest sent 'l/victim', in a folder that it had not sent: nothing was copied\n" UNTOUCHED},
        /* a folder that becomes a link, whose mode is set at the end */
        {{{"./", AE_IFDIR}, {"./d", AE_IFDIR}, {"./d", AE_IFLNK, "../../../victim"}},
         "hvm: guest 'g': the guest sent 'd', which it had sent before: nothing was copied\n" UNTOUCHED},
        /* a link, and a file in its place */
        {{{"./", AE_IFDIR}, {"./l", AE_IFLNK, "../../../victim"}, {"./l", AE_IFREG, NULL, "bad"}},
         "hvm: guest 'g': the guest sent 'l', which it had sent before: nothing was copied\n" UNTOUCHED},
        {{{"./", AE_IFDIR}, {"./.", AE_IFLNK, "../../.."}},
         "hvm: guest 'g': the guest sent '', which it had sent before: nothing was copied\n" UNTOUCHED},
        /* hard links out of it */
        {{{"./", AE_IFDIR}, {"./h", 0, "../../../victim"}},
         "hvm: guest 'g': the guest sent '../../../victim', which leads out of the folder: nothing was copied\n" UNTOUCHED},
        {{{"./", AE_IFDIR}, {"./h", 0, "/etc/passwd"}},
         "hvm: guest 'g': the guest sent '/etc/passwd', which is no path below the folder: nothing was copied\n" UNTOUCHED},
        {{{"./", AE_IFDIR}, {"./h", 0, "x/../y"}},
         "hvm: guest 'g': the guest sent 'x/../y', which leads out of the folder: nothing was copied\n" UNTOUCHED},
        {{{"./", AE_IFDIR}, {"./h", 0, "not/sent"}},
         "hvm: guest 'g': the guest sent 'h', a further name of a file that it had not sent: nothing was copied\n" UNTOUCHED},
        /* a top that is not what was asked for */
        {{{"./l", AE_IFLNK, "../../../victim"}},
         "hvm: guest 'g': the guest sent 'l', which is neither the file nor the folder that was asked for: nothing was copied\n"
         UNTOUCHED},
        {{{"d/f", AE_IFREG, NULL, "bad"}},
         "hvm: guest 'g': the guest sent 'd/f', which is neither the file nor the folder that was asked for: nothing was copied\n"
         UNTOUCHED},
        {{{"f", AE_IFREG, NULL, "one"}, {"g", AE_IFREG, NULL, "two"}},
         "hvm: guest 'g': the guest sent 'g', and one file was asked for: nothing was copied\n" UNTOUCHED},
        {{{"./", AE_IFDIR}, {"a\033[2J/../..", AE_IFREG, NULL, "bad"}},
         "hvm: guest 'g': the guest sent 'a\\x1b[2J/../..', which leads out of the folder: nothing was copied\n" UNTOUCHED},
        /* harmless: special bits and devices do not come along, and a link to a link keeps to itself */
        {{{"./", AE_IFDIR}, {"./f", AE_IFREG, NULL, "x"}, {"./dev", AE_IFCHR}, {"./l", AE_IFLNK, "../../victim"}, {"./h", 0, "./l"}},
         "hvm: left out 1 that is neither file, folder nor link: dev\n"
         "0\nd 755 out\nd 777 out/copy\nf 777 out/copy/f\nl 777 out/copy/h\nl 777 out/copy/l\nvictim\n644\n"},
    };
    Liar liar = liar_new();
    g_autofree char *script = g_strdup_printf("cat %s", liar.archive);

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("case %zu", i);
        write_archive(liar.archive, cases[i].members);
        check_liar(&liar, script, cases[i].wanted);
    }
    liar_free(&liar);
}

/* Streams that are no archive, or cut short, or do not end. */
static void test_broken_streams(void)
{
    static const struct {
        const char *tar; /* the guest's */
        const char *wanted;
    } cases[] = {
        {"", "hvm: guest 'g': what the guest sent is not what tar makes: Unrecognized archive format\n" UNTOUCHED},
        {"echo 'tar: gone' >&2; echo more >&2; exit 1", "hvm: guest 'g': tar: gone\n11\nd 755 out\nvictim\n644\n"},
        {"head -c 100000 /dev/zero | tr '\\0' x", "hvm: guest 'g': what the guest sent is not what tar makes: Unrecognized archive format\n" UNTOUCHED},
        {"/usr/bin/tar -c /usr/bin/env -C /usr/bin . 2>/dev/null | head -c 5000",
         "hvm: guest 'g': the guest sent 'usr/bin/env', which is neither the file nor the folder that was asked for: nothing was copied\n" UNTOUCHED},
        {"cd /usr/bin; /usr/bin/tar -c --no-recursion . env | head -c 5000; exit 0",
         "hvm: guest 'g': what the guest sent is not what tar makes: Truncated tar archive\n" UNTOUCHED},
        {"cd /usr/bin; /usr/bin/tar -c --no-recursion .; yes", "hvm: guest 'g': the guest sent '', behind its end: nothing was copied\n" UNTOUCHED},
    };
    Liar liar = liar_new();

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("case %zu", i);
        check_liar(&liar, cases[i].tar, cases[i].wanted);
    }
    liar_free(&liar);
}

/* Ctrl-C: nothing is left on either side. */
static void test_interrupted(void)
{
    FakeHvmd *fake = fake_new();

    check_line(fake,
               "mkdir d bin; truncate -s 20G d/big; $HVM cp d g:$t/there & sleep 0.7; ls -A there | grep -c hvm-cp; kill $!; wait $!;"
               " echo $?; ls -A there",
               "1\n143\n");
    check_line(fake,
               "mkdir there/d; truncate -s 20G there/d/big; $HVM cp g:$t/there/d out & sleep 0.7; ls -A | grep -c hvm-cp; kill $!;"
               " wait $!; echo $?; ls -A",
               "1\n143\nthere\n");
    g_assert_false(fake_has_process(fake));
    fake_free(fake);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cp/tree", test_tree);
    g_test_add_func("/cp/names", test_names);
    g_test_add_func("/cp/errors", test_errors);
    g_test_add_func("/cp/hostile", test_hostile);
    g_test_add_func("/cp/broken-streams", test_broken_streams);
    g_test_add_func("/cp/interrupted", test_interrupted);
    return g_test_run();
}
