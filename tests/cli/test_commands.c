/* hvm's commands: what they ask of hvmd, what they print, how they end. */
#include "hvm_error.h"
#include "run_hvm.h"

#include "../unit/host_made_up.h"

#include <glib/gstdio.h>
#include <string.h>

static void test_usage(void)
{
    static const struct {
        const char *line;
        const char *errors;
    } bad[] = {
        {"lst", "hvm: unknown command 'lst'; did you mean 'list'?\n"},
        {"fly", "hvm: unknown command 'fly' (`hvm --help` lists the commands)\n"},
        {"'a\033[2Jb'", "hvm: unknown command 'a\\x1b[2Jb' (`hvm --help` lists the commands)\n"},
        {"template", "hvm: template: wanted list, show, build or remove\n"},
        {"template fly", "hvm: unknown command 'template fly': wanted list, show, build or remove\n"},
        {"list g", "hvm: list: wanted no argument, found 'g' as well\n"},
        {"show", "hvm: show: wanted NAME, found nothing\n"},
        {"create g -t d --cpsu 4", "hvm: create: unknown option '--cpsu'; did you mean '--cpus'?\n"},
        {"create g -t d --cpus 4 --cpus 5", "hvm: --cpus: wanted once, found twice\n"},
        {"create g -t d --autostart --autostart", "hvm: --autostart: wanted once, found twice\n"},
        {"create g -t d --autostart=no", "hvm: --autostart: takes no argument\n"},
        {"create g -t d --cpus", "hvm: --cpus: wanted N, found nothing\n"},
        {"create g -t d --cpus 0", "hvm: --cpus: wanted 1 to 4096, found '0'\n"},
        {"create g -t d --memory 1.5G", "hvm: --memory: wanted a size from 64M to 64T, found '1.5G'\n"},
        {"create g -t d --smt both", "hvm: --smt: wanted siblings|isolate|any, found 'both'\n"},
        {"create g", "hvm: create: wanted --template NAME, found none (`hvm template list` lists them)\n"},
        {"create ../x -t d",
         "hvm: bad guest name '../x': wanted 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends\n"},
        {"show 'a\nb'",
         "hvm: bad guest name 'a\\x0ab': wanted 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends\n"},
        {"stop g --timeout -1", "hvm: --timeout: wanted 0 to 86400, found '-1'\n"},
        {"logs g -n 0", "hvm: --lines: wanted 1 to 4294967295, found '0'\n"},
        {"logs g -nx", "hvm: --lines: wanted 1 to 4294967295, found 'x'\n"},
        {"--verbose", "hvm: wanted a command, found nothing (`hvm --help` lists them)\n"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++)
        check_hvm(NULL, bad[i].line, 2, "", bad[i].errors);
    check_hvm(NULL, "--version", 0, "hvm " HVM_VERSION "\n", "");
    check_hvm(
        NULL, "list", 8, "",
        "hvm: hvmd is not running: nothing listens on /nonexistent/hvmd.sock (start it with `systemctl start hvmd` or "
        "`./setup start`)\n");
    check_hvm(NULL, "--socket /tmp/none list", 8, "",
              "hvm: hvmd is not running: nothing listens on /tmp/none (start it with `systemctl start hvmd` or "
              "`./setup start`)\n");
}

static void test_list(void)
{
    FakeHvmd *fake = fake_new();

    fake_reply(fake, "List", "{'guests': <@aa{sv} []>}");
    check_hvm(fake, "list", 0, "NAME  STATE  OWNER  TEMPLATE  CPUS  MEMORY  PLACED  ADDRESS\n",
              "no guests (`hvm create NAME --template TEMPLATE` makes one)\n");
    check_hvm(fake, "ls --json", 0, "{\n  \"guests\" : []\n}\n", "");
    fake_reply(fake, "List",
               "{'guests': <[{'name': <'mpi0'>, 'uuid': <'u-0'>, 'owner': <uint32 0>, 'state': <'running'>, "
               "'template': <'debian12'>, 'cpus': <uint32 4>, 'memory': <uint64 4294967296>, 'address': <'10.88.0.2'>, "
               "'placed': <'0-3'>}, {'name': <'old'>, 'uuid': <'u-1'>, 'owner': <uint32 4000000000>, 'state': <'off'>, "
               "'template': <'sl6\\u001b[2J'>, 'cpus': <uint32 16>, 'memory': <uint64 536870912>, 'address': <''>, "
               "'placed': <''>}]>}");
    check_hvm(fake, "list", 0,
              "NAME  STATE    OWNER       TEMPLATE    CPUS   MEMORY  PLACED  ADDRESS\n"
              "mpi0  running  root        debian12       4    4 GiB  0-3     10.88.0.2\n"
              "old   off      4000000000  sl6\\x1b[2J    16  512 MiB  -       -\n",
              "");
    check_hvm(
        fake, "list --json", 0,
        "{\n  \"guests\" : [\n    {\n      \"name\" : \"mpi0\",\n      \"state\" : \"running\",\n      \"owner\" : 0,\n"
        "      \"template\" : \"debian12\",\n      \"cpus\" : 4,\n      \"memory\" : 4294967296,\n"
        "      \"placed\" : \"0-3\",\n      \"address\" : \"10.88.0.2\",\n      \"uuid\" : \"u-0\"\n    },\n    {\n"
        "      \"name\" : \"old\",\n      \"state\" : \"off\",\n      \"owner\" : 4000000000,\n"
        "      \"template\" : \"sl6\\u001b[2J\",\n      \"cpus\" : 16,\n      \"memory\" : 536870912,\n"
        "      \"placed\" : \"\",\n      \"address\" : \"\",\n      \"uuid\" : \"u-1\"\n    }\n  ]\n}\n",
        "");
    fake_error(fake, "List", HVM_ERROR_LIBVIRT, "no connection to libvirt (qemu:///system)");
    check_hvm(fake, "list", 9, "", "hvm: no connection to libvirt (qemu:///system)\n");
    fake_free(fake);
}

static void test_show(void)
{
    FakeHvmd *fake = fake_new();

    fake_reply(fake, "Show",
               "{'name': <'g'>, 'uuid': <'u'>, 'owner': <uint32 0>, 'state': <'running'>, 'template': <'debian12'>, "
               "'cpus': <uint32 2>, 'memory': <uint64 1073741824>, 'address': <'10.88.0.2'>, 'placed': <'0-1'>, "
               "'revision': <'20261123T101500Z'>, 'disk': <uint64 200704>, 'runtime': <'vm'>, 'accel': <'tcg'>, "
               "'mac': <'52:54:00:01:02:03'>, 'network': <'hvm-nat-0'>, 'settings': <[{'group': <'cpu'>, "
               "'key': <'count'>, 'value': <'2'>, 'origin': <'request'>}]>, 'placement': <''>, "
               "'notes': <['TCG: not for figures']>}");
    check_hvm(fake, "show g", 0,
              "name      g\nstate     running\nowner     root\nuuid      u\n"
              "template  debian12, revision 20261123T101500Z\nruntime   vm, accelerator tcg\nvCPUs     2, on CPUs 0-1\n"
              "memory    1 GiB\ndisk      196 KiB\naddress   10.88.0.2\nnetwork   hvm-nat-0, MAC 52:54:00:01:02:03\n"
              "note      TCG: not for figures\n\nGROUP  KEY    VALUE  FROM\ncpu    count  2      request\n",
              "");
    g_autofree char *request = fake_last_request(fake, "Show");

    g_assert_cmpstr(request, ==, "{'name': <'g'>}");
    fake_error(fake, "Show", HVM_ERROR_NOT_FOUND, "there is no guest 'x\ny'");
    check_hvm(fake, "show x", 3, "", "hvm: there is no guest 'x\\x0ay'\n");
    fake_free(fake);
}

static void test_create(void)
{
    FakeHvmd *fake = fake_new();

    fake_reply(fake, "Create", "{'uuid': <'u'>}");
    check_hvm(fake, "create g --template=debian12 --cpus 04 --memory 2048M --disk 10G --network none --autostart", 0,
              "guest 'g' is created from template 'debian12'\n  start it:  hvm start g\n", "");
    g_autofree char *request = fake_last_request(fake, "Create");

    g_assert_nonnull(strstr(request, "'settings': <{'cpu.count': '4', 'memory.size': '2G', 'disk root.size': '10G', "
                                     "'network default.kind': 'none', 'boot.autostart': 'true'}>"));
    g_assert_nonnull(strstr(request, "'template': <'debian12'>"));
    g_assert_nonnull(strstr(request, "'name': <'g'>"));
    g_assert_null(strstr(request, "'start'"));
    fake_reply(fake, "Create", "{'uuid': <'u'>, 'address': <'10.88.0.2'>, 'cpus': <'0-1'>, 'notes': <['slow']>}");
    check_hvm(fake, "create g -t debian12 --start", 0,
              "guest 'g' is created from template 'debian12'\nguest 'g' is running on CPUs 0-1, address 10.88.0.2\n"
              "  note: slow\n  run a command in it:  hvm exec g -- uname -a\n",
              "");
    check_hvm(fake, "create g -t debian12 --device gpu --device 41:00.0,locality=any --device dev1=ib0", 0,
              "guest 'g' is created from template 'debian12'\n  note: slow\n  start it:  hvm start g\n", "");
    g_autofree char *devices = fake_last_request(fake, "Create");

    g_assert_nonnull(strstr(devices, "'device dev0.kind': 'gpu', 'device dev2.address': '0000:41:00.0', "
                                     "'device dev1.interface': 'ib0', 'device dev2.locality': 'any'"));
    fake_error(fake, "Create", HVM_ERROR_EXISTS, "guest 'g' exists already");
    check_hvm(fake, "create g -t debian12", 4, "", "hvm: guest 'g' exists already\n");
    fake_free(fake);
}

static void test_life(void)
{
    FakeHvmd *fake = fake_new();

    fake_reply(fake, "Start", "{'address': <''>, 'cpus': <'2'>, 'notes': <@as []>}");
    fake_reply(fake, "Stop", "{'how': <'acpi'>}");
    fake_reply(fake, "Destroy", "{}");
    check_hvm(fake, "start a b --no-wait", 0, "guest 'a' is running on CPUs 2\nguest 'b' is running on CPUs 2\n", "");
    g_autofree char *start = fake_last_request(fake, "Start");

    g_assert_nonnull(strstr(start, "'wait': <false>"));
    check_hvm(fake, "stop a --timeout 5", 0, "guest 'a' is stopped: its agent did not answer, its power button did\n",
              "");
    g_autofree char *stop = fake_last_request(fake, "Stop");

    g_assert_nonnull(strstr(stop, "'timeout': <uint32 5>"));
    check_hvm(fake, "destroy a b c", 0,
              "guest 'a' is gone, with its disk\nguest 'b' is gone, with its disk\nguest 'c' is gone, with its disk\n",
              "");
    /* Each is tried; the first failure gives the status. */
    fake_error(fake, "Start", HVM_ERROR_NO_PLACEMENT, "guest 'b': needs 4 free cores; node 0 has 2");
    check_hvm(fake, "start A b c", 2, "",
              "hvm: bad guest name 'A': wanted 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends\n"
              "hvm: guest 'b': needs 4 free cores; node 0 has 2\nhvm: guest 'b': needs 4 free cores; node 0 has 2\n");
    g_assert_cmpuint(fake_calls(fake, "Start"), ==, 4);
    check_hvm(
        NULL, "start a b", 8, "",
        "hvm: hvmd is not running: nothing listens on /nonexistent/hvmd.sock (start it with `systemctl start hvmd` or "
        "`./setup start`)\n");
    fake_free(fake);
}

static void test_progress(void)
{
    FakeHvmd *fake = fake_new();

    fake_progress(fake, "installing\033[2J packages", 0.5);
    fake_progress(fake, "waiting for the agent", -1);
    fake_reply(fake, "BuildTemplate", "{'revision': <'R'>, 'digest': <'sha256:00'>}");
    check_hvm(fake, "template build debian12", 0, "template 'debian12' is built: revision R\n  sha256:00\n", "");
    /* Each line begins with the time since the first. */
    g_auto(HvmRun) verbose = run_hvm(fake, NULL, "template build debian12 -v");

    g_assert_true(g_regex_match_simple("^ +[0-9.]+ ms   50 %  installing\\\\x1b\\[2J packages\n"
                                       " +[0-9.]+ ms  waiting for the agent\n$",
                                       verbose.errors, 0, 0));
    g_assert_cmpstr(verbose.output, ==, "template 'debian12' is built: revision R\n  sha256:00\n");
    check_hvm(fake, "template build debian12 --json", 0,
              "{\n  \"revision\" : \"R\",\n  \"digest\" : \"sha256:00\"\n}\n", "");
    fake_free(fake);
}

/* Ctrl-C cancels a build and waits for its end; hvm then ends as a program does that was interrupted. */
static void test_interrupt(void)
{
    FakeHvmd *fake = fake_new();
    g_autoptr(GSubprocessLauncher) launcher = hvm_launcher(fake, G_SUBPROCESS_FLAGS_STDERR_PIPE);
    g_autoptr(GSubprocess) process = NULL;
    g_autofree char *errors = NULL;

    fake_hold_jobs(fake);
    process = g_subprocess_launcher_spawn(launcher, NULL, hvm_path(), "template", "build", "debian12", NULL);
    fake_wait_calls(fake, "WaitJob", 1);
    g_subprocess_send_signal(process, 2);
    g_assert_true(g_subprocess_communicate_utf8(process, NULL, NULL, NULL, &errors, NULL));
    g_assert_cmpstr(errors, ==, "hvm: the job was cancelled\n");
    g_assert_cmpint(hvm_wait(process), ==, 128 + 2);
    g_assert_cmpuint(fake_calls(fake, "CancelJob"), ==, 1);
    fake_free(fake);
}

static void test_templates(void)
{
    FakeHvmd *fake = fake_new();

    fake_reply(
        fake, "ListTemplates",
        "{'templates': <[{'name': <'debian12'>, 'description': <'Debian 12'>, 'error': <''>, 'revision': <'R1'>, "
        "'size': <uint64 2147483648>, 'guests': <uint32 2>}, {'name': <'bad'>, 'description': <''>, "
        "'error': <'bad.conf: unknown key'>, 'revision': <''>, 'size': <uint64 0>, 'guests': <uint32 0>}]>}");
    check_hvm(fake, "template list", 0,
              "NAME      REVISION   SIZE  GUESTS  DESCRIPTION\n"
              "debian12  R1        2 GiB       2  Debian 12\n"
              "bad       -           0 B       0  -\n",
              "template 'bad' is not valid: bad.conf: unknown key\n");
    fake_reply(
        fake, "ShowTemplate",
        "{'name': <'debian12'>, 'path': <'/t/debian12.conf'>, 'settings': <[{'group': <'cpu'>, 'key': <'count'>, "
        "'value': <'1'>, 'origin': <'default'>}]>, 'images': <@aa{sv} []>}");
    check_hvm(
        fake, "template show debian12", 0,
        "template  debian12\nfile      /t/debian12.conf\n\nGROUP  KEY    VALUE  FROM\ncpu    count  1      default\n\n"
        "no image yet: `hvm template build debian12` makes one\n",
        "");
    fake_reply(fake, "RemoveTemplate", "{}");
    check_hvm(fake, "template remove debian12 R1", 0, "revision R1 of template 'debian12' is removed\n", "");
    g_autofree char *request = fake_last_request(fake, "RemoveTemplate");

    g_assert_nonnull(strstr(request, "'revision': <'R1'>"));
    fake_error(fake, "RemoveTemplate", HVM_ERROR_BUSY, "guest 'g' stands on it");
    check_hvm(fake, "template remove debian12", 6, "", "hvm: guest 'g' stands on it\n");
    fake_free(fake);
}

static void test_host(void)
{
    FakeHvmd *fake = fake_new();

    fake_reply(
        fake, "Host",
        "{'model': <'EPYC'>, 'smt': <uint32 2>, 'housekeeping': <'0,4'>, 'packages': <uint32 1>, "
        "'cores': <uint32 4>, 'pus': <uint32 8>, 'caches': <[{'level': <uint32 3>, 'bytes': <uint64 33554432>, "
        "'count': <uint32 1>}]>, 'nodes': <[{'node': <uint32 0>, 'cpus': <'0-7'>, 'free': <uint64 1073741824>, "
        "'kind': <''>, 'pages': <[{'size': <uint64 2097152>, 'total': <uint64 512>, 'free': <uint64 256>, "
        "'promised': <uint64 128>}]>}]>, 'devices': <[{'address': <'0000:41:00.0'>, 'kind': <'gpu'>, "
        "'node': <uint32 0>, 'driver': <'vfio-pci'>, 'use': <''>}]>, 'promises': <[{'owner': <'another user'>, 'guest': <''>, 'cpus': <'1-2'>, "
        "'memory': <uint64 1073741824>, 'devices': <'0000:41:00.0'>}]>}");
    check_hvm(fake, "host", 0,
              "model         EPYC\nprocessors    1 package, 4 cores, 8 CPUs\ncaches        1 x L3 of 32 MiB\n"
              "housekeeping  0,4\n\nNODE  CPUS  MEMORY   FREE  KIND\n   0  0-7        -  1 GiB  -\n\n"
              "NODE  PAGES  TOTAL  FREE  PROMISED\n   0  2 MiB    512   256       128\n\n"
              "DEVICE        KIND  NODE  IOMMU GROUP  INTERFACE  DRIVER    KEPT, BECAUSE\n"
              "0000:41:00.0  gpu      0            -  -          vfio-pci  -\n\n"
              "GUEST  OWNER         CPUS  MEMORY  DEVICES\n-      another user  1-2    1 GiB  0000:41:00.0\n",
              "");
    g_auto(HvmRun) run = run_hvm(fake, NULL, "host --json");

    g_assert_nonnull(strstr(run.output, "\"memory\" : null"));
    g_assert_nonnull(strstr(run.output, "\"promised\" : 128"));
    fake_reply(fake, "Host", "{'housekeeping': <''>, 'isolated': <'2-7'>}");
    g_auto(HvmRun) isolated = run_hvm(fake, NULL, "host");

    g_assert_nonnull(strstr(isolated.output, "housekeeping  none: QEMU's own threads run on CPUs that are not isolated\n"
                                             "isolated      2-7\n"));

    /* Nothing is promised, or nobody knows what. */
    fake_reply(fake, "Host", "{'promises': <@aa{sv} []>, 'known': <true>}");
    g_auto(HvmRun) none = run_hvm(fake, NULL, "host");

    g_assert_true(g_str_has_suffix(none.output, "\nnothing is promised to guests\n"));
    fake_reply(fake, "Host", "{'promises': <@aa{sv} []>, 'known': <false>}");
    g_auto(HvmRun) unknown = run_hvm(fake, NULL, "host");

    g_assert_true(g_str_has_suffix(unknown.output, "\nwhat is promised to guests is not known: libvirt has not told which there are\n"));
    g_auto(HvmRun) unknown_json = run_hvm(fake, NULL, "host --json");

    g_assert_nonnull(strstr(unknown_json.output, "\"known\" : false"));
    g_auto(HvmRun) unknown_map = run_hvm(fake, NULL, "map");

    g_assert_cmpint(unknown_map.status, ==, 0);
    g_assert_cmpstr(unknown_map.errors, ==, "hvm: who has which core is not known: libvirt has not told which guests there are\n");
    fake_free(fake);
}

static void test_doctor(void)
{
    FakeHvmd *fake = fake_new();

    fake_reply(fake, "Hello", "{'version': <'" HVM_VERSION "'>, 'pid': <uint32 12>}");
    fake_reply(
        fake, "Doctor",
        "{'checks': <[{'name': <'kvm'>, 'state': <'ok'>, 'found': <'as fast as natively'>, 'meaning': <''>, "
        "'advice': <''>}, {'name': <'huge pages'>, 'state': <'warning'>, 'found': <'none'>, 'meaning': <'slow'>, "
        "'advice': <'reserve some'>}]>}");
    check_hvm(fake, "doctor", 0,
              "CHECK       STATE    FOUND\nhvmd        ok       hvmd " HVM_VERSION ", process 12\n"
              "kvm         ok       as fast as natively\nhuge pages  warning  none\n"
              "    means: slow\n    do:    reserve some\n\n"
              "2 ok, 1 warning, 0 failures\n",
              "");
    fake_reply(fake, "Doctor", "{'checks': <[{'name': <'libvirt'>, 'state': <'failure'>, 'found': <'gone'>}]>}");
    g_auto(HvmRun) run = run_hvm(fake, NULL, "doctor --json");

    g_assert_cmpint(run.status, ==, 8);
    g_assert_nonnull(strstr(run.output, "\"state\" : \"failure\""));
    fake_free(fake);
    /* Without hvmd: the node's own checks, and one failure more. */
    g_auto(HvmRun) alone = run_hvm(NULL, NULL, "doctor");

    g_assert_cmpint(alone.status, ==, 8);
    g_assert_cmpstr(alone.errors, ==, "");
    g_assert_nonnull(strstr(alone.output, "\nkvm "));
    g_assert_nonnull(strstr(alone.output, "failure  hvmd is not running"));
}

/* Plans need no hvmd. The template is one of the test's own. */
static void test_plan(void)
{
    static const char host[] = "--host 'synthetic:package:2 numanode:1 core:4 pu:1'";
    g_autofree char *folder = g_dir_make_tmp("hvm-cli-XXXXXX", NULL);
    g_autofree char *template = g_build_filename(folder, "t.conf", NULL);
    g_autofree char *capture = g_build_filename(folder, "node.xml", NULL);
    g_autofree char *fits = g_strdup_printf("plan g -t t --cpus 4 %s", host);
    g_autofree char *json = g_strconcat(fits, " --json", NULL);
    g_autofree char *xml = g_strconcat(fits, " --xml --network none", NULL);
    g_autofree char *too_many = g_strdup_printf("plan g -t t --cpus 9 %s", host);
    g_autofree char *write = g_strdup_printf("host capture %s", capture);
    g_autofree char *captured = g_strdup_printf("plan g -t t --host %s", capture);

    g_assert_true(g_file_set_contents(template, "[memory]\nsize=64M\n", -1, NULL));
    g_setenv("HVM_TEMPLATE_PATH", folder, TRUE);

    g_auto(HvmRun) text_run = run_hvm(NULL, NULL, fits);
    g_auto(HvmRun) json_run = run_hvm(NULL, NULL, json);
    g_auto(HvmRun) xml_run = run_hvm(NULL, NULL, xml);
    g_auto(HvmRun) refused = run_hvm(NULL, NULL, too_many);
    g_auto(HvmRun) capture_run = run_hvm(NULL, NULL, write);
    g_auto(HvmRun) captured_run = run_hvm(NULL, NULL, captured);

    g_assert_cmpint(text_run.status, ==, 0);
    g_assert_nonnull(strstr(text_run.output, "PUs 0-3"));
    g_assert_cmpint(json_run.status, ==, 0);
    g_assert_nonnull(strstr(json_run.output, "\"vcpus\""));
    g_assert_cmpint(xml_run.status, ==, 0);
    g_assert_true(g_str_has_prefix(xml_run.output, "<domain"));
    g_assert_null(strstr(xml_run.output, "<interface"));
    g_assert_cmpint(refused.status, ==, 7);
    g_assert_cmpstr(refused.output, ==, "");
    g_assert_cmpint(capture_run.status, ==, 0);
    g_assert_cmpint(captured_run.status, ==, 0);
    check_hvm(NULL, "plan g -t t --xml --json", 2, "", "hvm: plan: wanted --xml or --json, found both\n");
    check_hvm(NULL, "plan g", 2, "",
              "hvm: plan: wanted --template NAME, found none (`hvm template list` lists them)\n");
    g_unlink(template);
    g_unlink(capture);
    g_rmdir(folder);
}

/* What a plan says where hvmd (NULL: nobody) tells of these promises. */
static HvmRun plan_beside(FakeHvmd *fake, const char *promise, const char *options)
{
    g_autofree char *host = g_strdup_printf("{'housekeeping': <'2'>, 'disk-nodes': <''>, 'known': <true>, 'nodes': <[{'node': <uint32 0>, "
                                            "'cpus': <'0-1,4-5'>}, {'node': <uint32 1>, 'cpus': <'2-3,6'>}]>, 'promises': <@aa{sv} [%s]>}", promise);
    g_autofree char *line = g_strdup_printf("plan g -t t --accel tcg --pages 4K %s", options);

    if (fake)
        fake_reply(fake, "Host", host);
    return run_hvm(fake, NULL, line);
}

static void check_plan(FakeHvmd *fake, const char *promise, const char *options, int status, const char *words)
{
    g_auto(HvmRun) run = plan_beside(fake, promise, options);

    g_assert_cmpint(run.status, ==, status);
    if (!strstr(status ? run.errors : run.output, words))
        g_error("wanted '%s' in: %s%s", words, run.output, run.errors);
}

/* For this node a plan keeps to what hvmd has promised, to its housekeeping and to the caller's cpuset. */
static void test_plan_live(void)
{
    static const char one_core[] = "{'cpus': <'0,4'>, 'devices': <''>, 'cells': <[{'node': <uint32 0>, 'size': <uint64 4096>, "
                                   "'bytes': <uint64 67108864>}]>, 'settled': <true>}";
    static const char gpu[] = "{'cpus': <'0'>, 'devices': <'0000:41:00.0'>, 'cells': <@aa{sv} []>, 'settled': <true>}";
    static const char memory[] = "{'cpus': <''>, 'devices': <''>, 'cells': <[{'node': <uint32 0>, 'size': <uint64 4096>, "
                                 "'bytes': <uint64 %u>}]>, 'settled': <%s>}";
    g_autofree char *settled = g_strdup_printf(memory, 430U << 20, "true"), *unsettled = g_strdup_printf(memory, 430U << 20, "false");
    static const char no_cells[] = "{'cpus': <'0,4'>, 'devices': <''>, 'settled': <true>}";
    Tree tree = {0};

    tree_make_node(&tree);
    tree_put(&tree, "/sys/devices/system/cpu/isolated", "\n");
    tree_put(&tree, "/sys/devices/system/cpu/nohz_full", "(null)\n");
    tree_node(&tree, 0, "33", 2048, 500);
    tree_device(&tree, "0000:41:00.0", "0x030200", "10de:20b0", 0);
    tree_put(&tree, "/t.conf", "[memory]\nsize=64M\n");
    tree_put(&tree, "/proc/self/cgroup", "%s", "");
    g_setenv("HVM_TEMPLATE_PATH", tree.root, TRUE);
    g_setenv("HVM_SYSROOT", tree.root, TRUE);
    FakeHvmd *fake = fake_new();

    check_plan(fake, "", "--cpus 2", 0, "on PUs 0,4 of");
    check_plan(fake, "", "--cpus 2", 0, "QEMU's own threads run on 2,");
    check_plan(fake, one_core, "--cpus 2", 0, "on PUs 1,5 of");
    check_plan(fake, one_core, "--cpus 5", 7,
               "hvm: guest 'g': needs 3 free cores; this node has 2 (free 1 that other guests hold, or --cpus 3)");
    check_plan(fake, gpu, "--cpus 1 --device gpu", 7, "other guests hold it");
    /* What is settled is no longer among the free pages: not to be counted twice. */
    check_plan(fake, settled, "--cpus 2 --memory 128M", 0, "Guest cell 0: NUMA node 0, ");
    check_plan(fake, unsettled, "--cpus 2 --memory 128M", 7, "node 0 has ");
    check_plan(fake, no_cells, "--cpus 2", 14, "hvm: hvmd answered Host wrongly: wanted cpus, devices, cells");
    g_assert_cmpuint(fake_calls(fake, "Host"), ==, 8);
    check_plan(fake, no_cells, "--cpus 2 --host 'synthetic:core:4 pu:1'", 0, "on PUs 0-1 of");
    g_assert_cmpuint(fake_calls(fake, "Host"), ==, 8); /* another node is none of hvmd's */

    tree_put(&tree, "/proc/self/cgroup", "3:cpuset:/job\n0::/\n");
    check_plan(fake, "", "--cpus 2", 5, "hvm: guest 'g': cannot tell which CPUs and memory nodes the caller may use: wanted a cgroup below");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/job/cpuset.effective_cpus", "1,5\n");
    tree_put(&tree, "/sys/fs/cgroup/cpuset/job/cpuset.effective_mems", "0\n");
    check_plan(fake, "", "--cpus 2", 0, "on PUs 1,5 of");
    check_plan(fake, one_core, "--cpus 4", 7, "needs 2 free cores; the caller's CPUs and memory nodes have 1 ");
    check_plan(NULL, "", "--cpus 2", 0, "on PUs 1,5 of");
    check_plan(NULL, "", "--cpus 2", 0, "\nhvmd does not answer: planned as if no guest ran");

    fake_reply(fake, "Host", "{'housekeeping': <'1-2'>, 'disk-nodes': <'1'>, 'known': <true>, 'nodes': <[{'node': <uint32 0>, "
                             "'cpus': <'0-1,4-5'>}, {'node': <uint32 1>, 'cpus': <'2-3,6'>}]>, 'promises': <@aa{sv} []>}");
    tree_put(&tree, "/proc/self/cgroup", "0::/\n");
    g_auto(HvmRun) disk = run_hvm(fake, NULL, "plan g -t t --cpus 2 --accel tcg");

    g_assert_nonnull(strstr(disk.output, "QEMU's own threads run on 1, I/O threads on 2.\n"));
    fake_hang_up(fake, "Host");
    g_auto(HvmRun) hung_up = run_hvm(fake, NULL, "plan g -t t --cpus 1 --accel tcg");

    g_assert_nonnull(strstr(hung_up.output, "hvmd does not answer"));
    fake_reply(fake, "Host", "{'housekeeping': <''>, 'disk-nodes': <''>, 'known': <false>, 'nodes': <[{'node': <uint32 0>, 'cpus': <'1,4'>}]>, "
               "'promises': <@aa{sv} []>}");
    g_auto(HvmRun) unknown = run_hvm(fake, NULL, "plan g -t t --cpus 1 --accel tcg --json");

    g_assert_nonnull(strstr(unknown.output, "has not heard from libvirt which guests run"));
    fake_error(fake, "Host", HVM_ERROR_DENIED, "no");
    check_hvm(fake, "plan g -t t", 5, "", "hvm: no\n");
    fake_free(fake);
    g_unsetenv("HVM_SYSROOT");
    tree_end(&tree);
}

/* The drawing names who has which PU of this node: PU 0 is everywhere. */
static void test_map(void)
{
    FakeHvmd *fake = fake_new();

    fake_reply(fake, "Host",
               "{'housekeeping': <''>, 'promises': <[{'owner': <'root'>, 'guest': <'mpi0'>, 'cpus': <'0'>}]>}");
    g_auto(HvmRun) run = run_hvm(fake, NULL, "map");

    g_assert_cmpstr(run.errors, ==, "");
    g_assert_cmpint(run.status, ==, 0);
    g_assert_nonnull(strstr(run.output, "mpi0"));
    fake_free(fake);
    g_auto(HvmRun) alone = run_hvm(NULL, NULL, "map");

    g_assert_cmpint(alone.status, ==, 0);
    g_assert_true(g_str_has_prefix(alone.errors, "hvm: who has which core is not known: hvmd is not running"));
    g_auto(HvmRun) made_up = run_hvm(NULL, NULL, "map --host 'synthetic:package:1 core:2 pu:1'");

    g_assert_cmpint(made_up.status, ==, 0);
    g_assert_cmpstr(made_up.errors, ==, "");
    g_assert_nonnull(strstr(made_up.output, "2 CPUs"));
    check_hvm(NULL, "map --host /nonexistent", 3, "",
              "hvm: cannot read host file /nonexistent: No such file or directory\n");
}

static void test_verify(void)
{
    FakeHvmd *fake = fake_new();

    fake_reply(fake, "Verify",
               "{'findings': <[{'what': <'vCPU 0'>, 'promised': <'PU 3'>, 'found': <'PU 3'>, 'state': <'ok'>}]>, "
               "'differences': <uint32 0>}");
    g_auto(HvmRun) kept = run_hvm(fake, NULL, "verify g");

    g_assert_cmpint(kept.status, ==, 0);
    fake_reply(
        fake, "Verify",
        "{'findings': <[{'what': <'cell 0'>, 'promised': <'node 0'>, 'found': <'node 1'>, 'state': <'differs'>}]>, "
        "'differences': <uint32 1>}");
    fake_reply(fake, "List",
               "{'guests': <[{'name': <'a'>, 'state': <'off'>}, {'name': <'b'>, 'state': <'running'>}]>}");
    g_auto(HvmRun) differs = run_hvm(fake, NULL, "verify --all");

    g_assert_cmpint(differs.status, ==, 8);
    g_assert_true(g_str_has_prefix(differs.output, "GUEST  WHAT    STATE    PROMISED  FOUND\n"
                                                   "b      cell 0  differs  node 0    node 1\n"));
    g_auto(HvmRun) json = run_hvm(fake, NULL, "verify g --json");

    g_assert_cmpint(json.status, ==, 8);
    g_assert_nonnull(strstr(json.output, "\"differences\" : 1"));
    check_hvm(fake, "verify", 2, "", "hvm: verify: wanted names of guests or --all, found neither\n");
    check_hvm(fake, "verify g --all", 2, "", "hvm: verify: wanted names of guests or --all, found both\n");
    fake_error(fake, "Verify", HVM_ERROR_BUSY, "guest 'g' is not running");
    check_hvm(fake, "verify g", 6, "", "hvm: guest 'g' is not running\n");
    fake_free(fake);
}

static void test_logs(void)
{
    FakeHvmd *fake = fake_new();
    GVariantDict reply;
    static const char text[] = "boot\033[1m\r\n\x80login: ";

    g_variant_dict_init(&reply, NULL);
    g_variant_dict_insert_value(&reply, "text",
                                g_variant_new_fixed_array(G_VARIANT_TYPE_BYTE, text, sizeof text - 1, 1));
    fake_reply_value(fake, "Logs", g_variant_dict_end(&reply));
    /* Not a terminal: as the guest wrote it. */
    check_hvm(fake, "logs g --lines 3", 0, text, "");
    g_autofree char *request = fake_last_request(fake, "Logs");

    g_assert_nonnull(strstr(request, "'lines': <uint32 3>"));
    fake_reply(fake, "Logs", "{'text': <@ay []>}");
    check_hvm(fake, "logs g", 0, "", "guest 'g' has written nothing to its console\n");
    fake_free(fake);
}

static void test_hang_up(void)
{
    FakeHvmd *fake = fake_new();

    fake_hang_up(fake, "List");
    check_hvm(fake, "list", 8, "", "hvm: the connection to hvmd was lost before it answered List (did hvmd stop?)\n");
    fake_free(fake);
}

/* Output that cannot be written is a failure. */
static void test_full_output(void)
{
    FakeHvmd *fake = fake_new();
    g_autofree char *line = NULL;
    g_autofree char *errors = NULL;
    int status = 0;

    fake_reply(fake, "List", "{'guests': <@aa{sv} []>}");
    line = g_strdup_printf("/bin/sh -c 'HVM_SOCKET=%s %s ls --json > /dev/full'", fake_socket(fake), hvm_path());
    g_assert_true(g_spawn_command_line_sync(line, NULL, &errors, &status, NULL));
    g_assert_cmpstr(errors, ==, "hvm: cannot write to standard output: No space left on device\n");
    g_assert_cmpint(status >> 8, ==, 8);
    fake_free(fake);
}

static void test_complete(void)
{
    FakeHvmd *fake = fake_new();

    fake_reply(fake, "List", "{'guests': <[{'name': <'mpi0'>}, {'name': <'mpi1'>}, {'name': <'old'>}]>}");
    fake_reply(fake, "ListTemplates", "{'templates': <[{'name': <'debian12'>}]>}");
    check_hvm(fake, "__complete -- st", 0, "start\nstop\n", "");
    check_hvm(fake, "__complete -- te", 0, "template\n", "");
    check_hvm(fake, "__complete -- template ''", 0, "list\nshow\nbuild\nremove\n", "");
    check_hvm(fake, "__complete -- template show ''", 0, "debian12\n", "");
    check_hvm(fake, "__complete -- stop mpi0 m", 0, "mpi0\nmpi1\n", "");
    check_hvm(fake, "__complete -- show mpi0 ''", 0, "", "");
    check_hvm(fake, "__complete -- create x --sm", 0, "--smt\n", "");
    check_hvm(fake, "__complete -- create x --smt ''", 0, "siblings\nisolate\nany\n", "");
    check_hvm(fake, "__complete -- create x -t ''", 0, "debian12\n", "");
    check_hvm(fake, "__complete -- exec --user me o", 0, "old\n", "");
    check_hvm(NULL, "__complete -- stop ''", 0, "", "");
    check_hvm(NULL, "__complete -- fly ''", 0, "", "");
    fake_free(fake);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cli/usage", test_usage);
    g_test_add_func("/cli/list", test_list);
    g_test_add_func("/cli/show", test_show);
    g_test_add_func("/cli/create", test_create);
    g_test_add_func("/cli/life", test_life);
    g_test_add_func("/cli/progress", test_progress);
    g_test_add_func("/cli/interrupt", test_interrupt);
    g_test_add_func("/cli/templates", test_templates);
    g_test_add_func("/cli/host", test_host);
    g_test_add_func("/cli/doctor", test_doctor);
    g_test_add_func("/cli/plan", test_plan);
    g_test_add_func("/cli/plan-live", test_plan_live);
    g_test_add_func("/cli/map", test_map);
    g_test_add_func("/cli/verify", test_verify);
    g_test_add_func("/cli/logs", test_logs);
    g_test_add_func("/cli/hang-up", test_hang_up);
    g_test_add_func("/cli/full-output", test_full_output);
    g_test_add_func("/cli/complete", test_complete);
    return g_test_run();
}
