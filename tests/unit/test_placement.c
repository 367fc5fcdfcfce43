/* Placement: what a request gets on hosts that are known to the last core, and what a refusal says. */
#include "placement_fixture.h"

#include <string.h>

#define USUAL "pack:2 numa:2 l3:2 core:4 pu:2" /* 4 nodes of 2 L3s of 4 cores of 2 PUs */

typedef struct {
    Host *host;
    Ledger *ledger;
} Fixture;

static void fixture_set_up(Fixture *fixture, gconstpointer synthetic)
{
    fixture->host = fixture_host(synthetic);
    fixture->ledger = ledger_new();
}

static void fixture_tear_down(Fixture *fixture, gconstpointer synthetic)
{
    (void)synthetic;
    host_unref(fixture->host);
    ledger_free(fixture->ledger);
}

static Placement *solve(const Fixture *fixture, const Spec *spec)
{
    g_autoptr(GError) error = NULL;
    Placement *placement = placement_solve(fixture->host, spec, fixture->ledger, NULL, NULL, &error);

    g_assert_no_error(error);
    g_assert_nonnull(placement);
    return placement;
}

static void assert_list(hwloc_const_bitmap_t bitmap, const char *expected)
{
    g_autofree char *list = host_format_list(bitmap);

    g_assert_cmpstr(list, ==, expected);
}

static void assert_refused(const Fixture *fixture, const Spec *spec, const char *message)
{
    g_autoptr(GError) error = NULL;
    Placement *placement = placement_solve(fixture->host, spec, fixture->ledger, NULL, NULL, &error);

    g_assert_null(placement);
    g_assert_error(error, HVM_ERROR, HVM_ERROR_NO_PLACEMENT);
    g_assert_cmpstr(error->message, ==, message);
}

static gboolean has_note(const Placement *placement, const char *part)
{
    for (guint i = 0; i < placement->notes->len; i++)
        if (strstr(g_ptr_array_index(placement->notes, i), part))
            return TRUE;
    return FALSE;
}

static void test_whole_l3(Fixture *fixture, gconstpointer data)
{
    Spec spec = fixture_spec(8);
    g_autoptr(Placement) placement = solve(fixture, &spec);

    (void)data;
    assert_list(placement->reserved, "0-7");
    g_assert_cmpuint(placement->cells->len, ==, 1);
    g_assert_cmpuint(placement->sockets, ==, 1);
    g_assert_cmpuint(placement->dies, ==, 1);
    g_assert_cmpuint(placement->cores, ==, 4);
    g_assert_cmpuint(placement->threads, ==, 2);
    g_assert_cmpint(placement->cache, ==, CACHE_PASSTHROUGH);
    g_assert_true(placement->emulator_shares);
    g_assert_true(has_note(placement, "Emulator threads share"));
}

static void test_show(Fixture *fixture, gconstpointer data)
{
    Spec spec = fixture_spec(24);
    g_autoptr(Placement) placement = NULL;
    g_autofree char *text = NULL, *json = NULL;

    (void)data;
    fixture_take(fixture->ledger, "a", "0-3");
    placement = solve(fixture, &spec);
    text = placement_explain(placement, fixture->host, &spec);
    json = placement_to_json(placement);
    g_test_message("%s\n%s", text, json);

    g_autoptr(GError) error = NULL;
    g_autoptr(Placement) back = placement_from_json(json, &error);
    g_assert_no_error(error);
    g_autofree char *again = placement_to_json(back);
    g_assert_cmpstr(json, ==, again);
}

static void test_refusal_total(Fixture *fixture, gconstpointer data)
{
    Spec spec = fixture_spec(64);

    (void)data;
    fixture_take(fixture->ledger, "a", "0-15");
    assert_refused(fixture, &spec, "guest 'g': needs 32 free cores; this node has 24 (free 8: the others belong to 'a')");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(path, function) \
    g_test_add("/placement/" path, Fixture, USUAL, fixture_set_up, function, fixture_tear_down)
    ADD("whole-l3", test_whole_l3);
    ADD("show", test_show);
    ADD("refusal-total", test_refusal_total);
    return g_test_run();
}
