/* team.c - persistent threads, one wake-up per run, and a counting barrier.
 *
 * The workload is decoding: a run takes some hundred microseconds, has dozens of barriers and is
 * followed at once by the next.  So members that wait poll first, then offer the processor between
 * polls, and sleep (futex) only when nothing has come for a while.  Where there are more members
 * than processors, polling only keeps the awaited member from running: they sleep soon. */
#include "base/team.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"

/* Longer spinning gains nothing on an idle machine, where a yield returns at once, and on a busy one
 * it keeps out the member that is awaited: 50 us instead of 4 made a barrier twenty times slower. */
#define SPIN_NS  4000  /* polled without giving the processor away                   */
#define YIELD_NS 96000 /* polled after that, between yields, before a member sleeps  */
#define POLLS    64    /* polls before the first look at the clock                   */

/* A number that only grows, and that others wait to see change. */
typedef struct turnstile {
    _Alignas(CV_ALIGN) atomic_uint count;
    atomic_uint sleepers;
} turnstile;

struct cv_team {
    const corvid_allocator *mem;
    size_t n;
    size_t started; /* threads that run, so that a half-built team can be taken down */
    bool crowded;   /* more members than processors */
    pthread_t threads[CV_TEAM_MAX];
    cv_member members[CV_TEAM_MAX];
    void (*work)(const cv_member *me, void *arg); /* NULL tells the members to leave */
    void *arg;

    turnstile runs;                           /* a change is the starting gun */
    turnstile meetings;                       /* barriers that all have reached */
    _Alignas(CV_ALIGN) atomic_size_t arrived; /* at the next barrier */
};

/* ---- waiting -------------------------------------------------------------------------------- */

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Polls until the count is no longer `seen`; false when it has not changed for long. */
static bool poll_for_change(turnstile *at, unsigned seen, bool crowded)
{
    const int64_t spin = crowded ? 0 : SPIN_NS, give_up = spin + YIELD_NS;
    int64_t start = 0, waited = 0;
    while (waited < give_up) {
        for (int i = 0; i < (waited < spin || start == 0 ? POLLS : 1); i++) {
            if (atomic_load_explicit(&at->count, memory_order_acquire) != seen) return true;
            relax();
        }
        if (waited >= spin) sched_yield();
        int64_t now = now_ns();
        if (start == 0) start = now;
        waited = now - start;
    }
    return atomic_load_explicit(&at->count, memory_order_acquire) != seen;
}

/* The kernel looks at the count once more before it puts the thread to sleep. */
static void sleep_for_change(turnstile *at, unsigned seen)
{
    /* Sequentially consistent on both sides: either pass() sees this sleeper, or the sleeper
     * sees the new count. */
    atomic_fetch_add(&at->sleepers, 1);
    while (atomic_load(&at->count) == seen)
        syscall(SYS_futex, &at->count, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&at->sleepers, 1);
}

static void wait_for_change(turnstile *at, unsigned seen, bool crowded)
{
    if (!poll_for_change(at, seen, crowded)) sleep_for_change(at, seen);
}

/* Lets all through who wait for a change. */
static void pass(turnstile *at)
{
    atomic_fetch_add(&at->count, 1);
    if (atomic_load(&at->sleepers) > 0)
        syscall(SYS_futex, &at->count, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void cv_barrier(const cv_member *me)
{
    cv_team *team = me->team;
    if (team->n == 1) return;
    /* Read before arriving: this meeting cannot end without this member. */
    unsigned seen = atomic_load_explicit(&team->meetings.count, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 == team->n) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        pass(&team->meetings);
        return;
    }
    wait_for_change(&team->meetings, seen, team->crowded);
}

/* ---- members -------------------------------------------------------------------------------- */

static void *member_main(void *arg)
{
    const cv_member *me = arg;
    cv_team *team = me->team;
    char name[16];
    snprintf(name, sizeof name, "corvid-%u", (unsigned)me->id);
    pthread_setname_np(pthread_self(), name);

    for (unsigned run = 0;; run++) {
        wait_for_change(&team->runs, run, team->crowded);
        if (!team->work) return NULL;
        team->work(me, team->arg);
        cv_barrier(me);
    }
}

static void start(cv_team *team, void (*work)(const cv_member *me, void *arg), void *arg)
{
    team->work = work;
    team->arg = arg;
    pass(&team->runs);
}

void cv_team_run(cv_team *team, void (*work)(const cv_member *me, void *arg), void *arg)
{
    if (team->n > 1) start(team, work, arg);
    work(&team->members[0], arg);
    cv_barrier(&team->members[0]);
}

/* ---- building and taking down --------------------------------------------------------------- */

/* Starts the threads with all signals blocked: those are the program's business. */
static int start_threads(cv_team *team)
{
    sigset_t all, before;
    sigfillset(&all);
    int error = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (error) return error;
    while (team->started + 1 < team->n && !error) {
        size_t id = team->started + 1;
        error = pthread_create(&team->threads[id], NULL, member_main, &team->members[id]);
        if (!error) team->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

corvid_status cv_team_new(const corvid_allocator *mem, size_t n_threads, cv_team **out,
                          corvid_error *err)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > CV_TEAM_MAX)
        return cv_fail(err, CORVID_E_ARGUMENT, "%zu threads asked for, expected 1 to %d", n_threads,
                       CV_TEAM_MAX);
    cv_team *team = cv_alloc_zero(mem, 1, sizeof *team);
    if (!team)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu bytes for a team of threads",
                       sizeof *team);
    team->mem = mem;
    team->n = n_threads;
    team->crowded = n_threads > cv_cpu_count();
    for (size_t id = 0; id < n_threads; id++)
        team->members[id] = (cv_member){ .team = team, .id = id, .n = n_threads };

    int error = start_threads(team);
    if (error) {
        cv_fail(err, CORVID_E_MEMORY,
                "thread %zu of %zu cannot be started: %s; use fewer threads, or raise the limit "
                "with ulimit -u",
                team->started + 2, n_threads, strerror(error));
        cv_team_free(team);
        return CORVID_E_MEMORY;
    }
    *out = team;
    return CORVID_OK;
}

void cv_team_free(cv_team *team)
{
    if (!team) return;
    if (team->started > 0) start(team, NULL, NULL);
    for (size_t id = 1; id <= team->started; id++)
        pthread_join(team->threads[id], NULL);
    cv_free(team->mem, team);
}

size_t cv_team_size(const cv_team *team)
{
    return team->n;
}
