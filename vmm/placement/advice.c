/* advice.c: changes of a refused request, or by others, with which it fits: each is tried before it is given. */
#include "refusal.h"

#include "units.h"

static gboolean ask(const Question *question, const Survey *survey, const Want *want, Solution *ret_solution)
{
    g_autoptr(Devices) devices = devices_new(survey, question->spec, question->full, NULL);
    g_autoptr(Search) search = devices ? search_new(survey, devices, want) : NULL;

    if (search)
        search_run(search, -1, 0, ret_solution);
    return ret_solution->found;
}

static Survey *survey_for(const Question *question, SmtPolicy smt)
{
    return survey_new(question->host, question->ledger, question->allowed, question->policy, smt, question->full);
}

gboolean advice_ask(const Refusal *refusal, const Want *want, Solution *ret_solution)
{
    g_autoptr(Survey) other = NULL;

    if (want->smt != refusal->search->want.smt)
        other = survey_for(refusal->question, want->smt);
    return ask(refusal->question, other ? other : refusal->search->survey, want, ret_solution);
}

gboolean advice_fits(const Refusal *refusal, const Want *want)
{
    g_auto(Solution) solution = {0};

    return advice_ask(refusal, want, &solution);
}

/* The request as it is, for another question. */
static gboolean fits_as(const Refusal *refusal, const Question *question)
{
    g_auto(Solution) solution = {0};
    g_autoptr(Survey) survey = survey_for(question, refusal->search->want.smt);

    return ask(question, survey, &refusal->search->want, &solution);
}

gboolean advice_fits_empty(const Refusal *refusal)
{
    Question question = *refusal->question;

    if (question.full)
        return FALSE;
    question.full = TRUE;
    return fits_as(refusal, &question);
}

gboolean advice_fits_without(const Refusal *refusal, const gboolean *those, unsigned drop)
{
    g_autoptr(GPtrArray) left = g_ptr_array_new();
    Question question = *refusal->question;
    Spec spec = *question.spec;

    for (unsigned i = 0; i < devices_count(refusal->search->devices); i++) {
        if (those[i] && drop > 0)
            drop--;
        else
            g_ptr_array_add(left, (gpointer)devices_wanted(refusal->search->devices, i));
    }
    spec.devices = left;
    question.spec = &spec;
    return fits_as(refusal, &question);
}

void advice_add(GPtrArray *advice, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_ptr_array_add(advice, g_strdup_vprintf(format, arguments));
    va_end(arguments);
}

static unsigned count_packages(const Survey *survey)
{
    return survey->regions->len ? survey_region(survey, survey->regions->len - 1)->package + 1 : 0;
}

void advice_changes(const Refusal *refusal, GPtrArray *advice)
{
    const Want *want = &refusal->search->want;
    const Survey *survey = refusal->search->survey;
    Want other = *want;

    for (unsigned count = 1; want->numa_nodes && count <= MIN(survey->nodes->len, want->cpus); count++) {
        other.numa_nodes = count;
        if (count != want->numa_nodes && advice_fits(refusal, &other)) {
            advice_add(advice, "--numa %u", count);
            break;
        }
    }
    other = *want;
    for (unsigned count = 1; want->sockets && count <= MIN(count_packages(survey), want->cpus); count++) {
        other.sockets = count;
        if (count != want->sockets && advice_fits(refusal, &other)) {
            advice_add(advice, "--sockets %u", count);
            break;
        }
    }
    other = *want;
    other.page_bytes = PAGES_AUTO;
    if (want->page_bytes != PAGES_AUTO && advice_fits(refusal, &other))
        advice_add(advice, "--pages auto");
    other = *want;
    other.smt = SMT_ANY;
    if (want->smt != SMT_ANY && refusal->question->host->smt > 1 && advice_fits(refusal, &other))
        advice_add(advice, "--smt any");
    other = *want;
    other.dedicated = FALSE;
    if (want->dedicated && advice_fits(refusal, &other))
        advice_add(advice, "--emulator shared");
    other = *want;
    other.spread = FALSE;
    if (want->spread && advice_fits(refusal, &other))
        advice_add(advice, "without --spread");
    if (survey->bounded) {
        Question question = *refusal->question;

        question.allowed = NULL;
        if (fits_as(refusal, &question))
            advice_add(advice, "more of this node's CPUs and memory nodes in the caller's job or cpuset");
    }
}

void advice_cpus(const Refusal *refusal, GPtrArray *advice)
{
    Want other = refusal->search->want;
    unsigned low = 0, high = other.cpus;

    while (high - low > 1) {
        other.cpus = low + (high - low) / 2;
        if (other.numa_nodes <= other.cpus && other.sockets <= other.cpus && advice_fits(refusal, &other))
            low = other.cpus;
        else
            high = other.cpus;
    }
    if (low > 0)
        advice_add(advice, "--cpus %u", low);
}

/* Less is not taken from a user. */
#define MEMORY_LEAST (64 * HVM_MIB)

void advice_memory(const Refusal *refusal, GPtrArray *advice)
{
    static const guint64 units[] = {HVM_GIB, 2 * HVM_MIB};
    const Want *want = &refusal->search->want;

    for (gsize i = 0; i < G_N_ELEMENTS(units); i++) {
        guint64 low = 0, high = (want->memory_bytes + units[i] - 1) / units[i];
        Want other = *want;

        if (units[i] % MAX(want->page_bytes, 1))
            return;
        while (high - low > 1) {
            other.memory_bytes = (low + (high - low) / 2) * units[i];
            if (advice_fits(refusal, &other))
                low = other.memory_bytes / units[i];
            else
                high = other.memory_bytes / units[i];
        }
        if (low * units[i] >= MEMORY_LEAST) {
            g_autofree char *size = size_format(low * units[i]);

            advice_add(advice, "--memory %s", size);
            return;
        }
    }
}

void advice_locality(const Refusal *refusal, GPtrArray *advice)
{
    Want other = refusal->search->want;

    other.ignore_locality = TRUE;
    if (advice_fits(refusal, &other))
        advice_add(advice, "locality=preferred");
}
