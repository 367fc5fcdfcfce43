/* Commands through a real agent: statuses, streams, users, terminals, ends. */
#include "agent_fixture.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void test_status(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    static const struct {
        const char *script;
        ChannelEnd end;
        int value;
    } rows[] = {
        {"exit 0", CHANNEL_EXITED, 0},
        {"exit 3", CHANNEL_EXITED, 3},
        {"exit 255", CHANNEL_EXITED, 255},
        {"kill -TERM $$", CHANNEL_SIGNALED, SIGTERM},
        {"kill -KILL $$", CHANNEL_SIGNALED, SIGKILL},
    };

    for (guint i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(Run) run = run_start(fixture->channel, "sh", "-c", rows[i].script);

        run_talk(run, NULL, 0);
        assert_end(run, rows[i].end, rows[i].value);
    }
}

static void test_streams_apart(Fixture *fixture, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(Run) run = run_start(fixture->channel, "sh", "-c", "echo out; echo err >&2; cat");

    run_talk(run, (const guint8 *)"in\n", 3);
    assert_end(run, CHANNEL_EXITED, 0);
    assert_bytes(run->output, "out\nin\n");
    assert_bytes(run->errors, "err\n");
}

#define ADD(name, function) g_test_add("/agent/" name, Fixture, NULL, fixture_set_up, function, fixture_tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("status", test_status);
    ADD("streams-apart", test_streams_apart);
    return g_test_run();
}
