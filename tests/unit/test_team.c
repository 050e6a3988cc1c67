/* test_team.c - a team's barriers, its shares and its many wake-ups. */
#include "support.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/team.h"

enum { MAX_MEMBERS = 8 };

/* ---- shares ---------------------------------------------------------------------------------- */

static void shares_cover_exactly(void **state)
{
    (void)state;
    for (size_t n = 1; n <= CV_TEAM_MAX; n++)
        for (size_t things = 0; things < 200; things++) {
            size_t expected = 0;
            for (size_t id = 0; id < n; id++) {
                cv_member me = { .team = NULL, .id = id, .n = n };
                size_t lo, hi;
                cv_share(&me, things, &lo, &hi);
                assert_true(lo == expected && hi >= lo);
                assert_true(hi - lo <= things / n + 1);
                expected = hi;
            }
            assert_int_equal(expected, things);
        }
}

/* ---- barriers -------------------------------------------------------------------------------- */

/* Plain, not atomic: only barriers order them, so ThreadSanitizer sees a barrier that does not. */
typedef struct relay {
    size_t laps;
    long slots[MAX_MEMBERS];
    long wrong[MAX_MEMBERS];
} relay;

/* Each lap all write their slot, meet, read all the others' slots, and meet again. */
static void run_relay(const cv_member *me, void *arg)
{
    relay *r = arg;
    for (size_t lap = 1; lap <= r->laps; lap++) {
        r->slots[me->id] = (long)(lap * 100 + me->id);
        cv_barrier(me);
        for (size_t id = 0; id < me->n; id++)
            if (r->slots[id] != (long)(lap * 100 + id)) r->wrong[me->id]++;
        cv_barrier(me);
    }
}

static void barriers_hold(void **state)
{
    (void)state;
    for (size_t n = 1; n <= MAX_MEMBERS; n++) {
        cv_team *team;
        corvid_error err;
        ASSERT_OK(cv_team_new(&cv_libc_allocator, n, &team, &err), &err);
        assert_int_equal(cv_team_size(team), n);
        relay r = { .laps = n <= 2 ? 20000 : 500 };
        cv_team_run(team, run_relay, &r);
        for (size_t id = 0; id < n; id++) {
            assert_int_equal(r.wrong[id], 0);
            assert_int_equal(r.slots[id], r.laps * 100 + id);
        }
        cv_team_free(team);
    }
}

/* The same laps without barriers do go wrong: the test above can fail. */
static void run_relay_without(const cv_member *me, void *arg)
{
    atomic_int *turn = arg;
    if (me->id == 0) {
        struct timespec pause = { 0, 2000000 };
        nanosleep(&pause, NULL);
        atomic_store(turn, 1);
    } else {
        atomic_store(turn + me->id, atomic_load(turn) + 10);
    }
}

static void without_a_barrier_members_run_ahead(void **state)
{
    (void)state;
    cv_team *team;
    corvid_error err;
    ASSERT_OK(cv_team_new(&cv_libc_allocator, 2, &team, &err), &err);
    bool ran_ahead = false;
    for (int tries = 0; tries < 100 && !ran_ahead; tries++) {
        atomic_int turns[2] = { 0 };
        cv_team_run(team, run_relay_without, turns);
        ran_ahead = atomic_load(&turns[1]) == 10; /* member 1 did not wait for member 0 */
    }
    assert_true(ran_ahead);
    cv_team_free(team);
}

/* ---- runs ------------------------------------------------------------------------------------ */

typedef struct tally {
    long runs[MAX_MEMBERS];
    size_t seen_n;
} tally;

static void count_run(const cv_member *me, void *arg)
{
    tally *t = arg;
    t->runs[me->id]++;
    if (me->id == 0) t->seen_n = me->n;
}

/* Every member works exactly once per run, and the run is over when the call returns. */
static void many_runs(void **state)
{
    (void)state;
    for (size_t n = 1; n <= MAX_MEMBERS; n++) {
        cv_team *team;
        corvid_error err;
        ASSERT_OK(cv_team_new(&cv_libc_allocator, n, &team, &err), &err);
        long runs = n <= 2 ? 20000 : 500;
        tally t = { 0 };
        for (long run = 1; run <= runs; run++) {
            cv_team_run(team, count_run, &t);
            for (size_t id = 0; id < n; id++)
                assert_true(t.runs[id] == run);
        }
        assert_int_equal(t.seen_n, n);
        cv_team_free(team);
    }
}

/* Pauses of every length between none and long enough that the members sleep. */
static void runs_after_pauses(void **state)
{
    (void)state;
    cv_team *team;
    corvid_error err;
    ASSERT_OK(cv_team_new(&cv_libc_allocator, 3, &team, &err), &err);
    tally t = { 0 };
    for (long run = 0; run < 300; run++) {
        struct timespec pause = { 0, run * 1000 };
        nanosleep(&pause, NULL);
        cv_team_run(team, count_run, &t);
        for (size_t id = 0; id < 3; id++)
            assert_int_equal(t.runs[id], run + 1);
    }
    cv_team_free(team);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Between steps they sleep: 200 ms of idling cost next to no processor time. */
static void idle_members_sleep(void **state)
{
    (void)state;
    cv_team *team;
    corvid_error err;
    ASSERT_OK(cv_team_new(&cv_libc_allocator, 4, &team, &err), &err);
    tally t = { 0 };
    cv_team_run(team, count_run, &t);
    double before = cpu_seconds();
    struct timespec pause = { 0, 200000000 };
    nanosleep(&pause, NULL);
    assert_true(cpu_seconds() - before < 0.05);
    cv_team_free(team);
}

/* ---- names and limits ------------------------------------------------------------------------ */

static void keep_name(const cv_member *me, void *arg)
{
    char(*names)[64] = arg;
    char path[64];
    memcpy(path, "/proc/thread-self/comm", 23);
    size_t n;
    if (me->id == 0) return;
    char *text = test_read_file(path, &n);
    memcpy(names[me->id], text, n < 63 ? n : 63);
    free(text);
}

static void threads_have_names(void **state)
{
    (void)state;
    cv_team *team;
    corvid_error err;
    ASSERT_OK(cv_team_new(&cv_libc_allocator, 3, &team, &err), &err);
    char names[3][64] = { { 0 } };
    cv_team_run(team, keep_name, names);
    assert_string_equal(names[1], "corvid-1\n");
    assert_string_equal(names[2], "corvid-2\n");
    cv_team_free(team);
}

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    cv_team *team;
    corvid_error err;
    assert_int_equal(cv_team_new(&cv_libc_allocator, 0, &team, &err), CORVID_E_ARGUMENT);
    assert_null(team);
    assert_int_equal(cv_team_new(&cv_libc_allocator, CV_TEAM_MAX + 1, &team, &err),
                     CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "1 to 64"));
    test_allocator a;
    test_allocator_init(&a);
    a.fail_at = 1;
    assert_int_equal(cv_team_new(&a.api, 2, &team, &err), CORVID_E_MEMORY);
    a.fail_at = 0;
    ASSERT_OK(cv_team_new(&a.api, CV_TEAM_MAX, &team, &err), &err);
    cv_team_free(team);
    cv_team_free(NULL);
    assert_int_equal(a.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_cover_exactly),
        cmocka_unit_test(barriers_hold),
        cmocka_unit_test(without_a_barrier_members_run_ahead),
        cmocka_unit_test(many_runs),
        cmocka_unit_test(runs_after_pauses),
        cmocka_unit_test(idle_members_sleep),
        cmocka_unit_test(threads_have_names),
        cmocka_unit_test(bad_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
