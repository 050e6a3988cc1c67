/* team.c - persistent threads, one wake-up per run, and a counting barrier.
 *
 * The workload is decoding: a run takes some hundred microseconds, has dozens of barriers and is
 * followed at once by the next.  So members that wait poll first, and sleep only when nothing has
 * come for a while.  Where there are more members than processors, polling only keeps the awaited
 * member from running, and waiting gives the processor away almost at once. */
#include "base/team.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"

#define SPIN_NS  50000 /* polled without giving the processor away */
#define YIELD_NS 50000 /* polled after that, between yields, before a member goes to sleep */
#define POLLS    64    /* polls between two looks at the clock */

struct cv_team {
    const corvid_allocator *mem;
    size_t n;
    size_t started; /* threads that run, so that a half-built team can be taken down */
    bool crowded;   /* more members than processors */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t threads[CV_TEAM_MAX];
    cv_member members[CV_TEAM_MAX];
    void (*work)(const cv_member *me, void *arg); /* NULL tells the members to leave */
    void *arg;

    _Alignas(CV_ALIGN) atomic_uint generation; /* counts the runs: a change is the starting gun */
    _Alignas(CV_ALIGN) atomic_uint sleepers;
    _Alignas(CV_ALIGN) atomic_size_t arrived; /* at the barrier of this epoch */
    _Alignas(CV_ALIGN) atomic_uint epoch;
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

/* Polls until *counter is no longer `seen`; false when limit_ns have passed. */
static bool spin(atomic_uint *counter, unsigned seen, int64_t limit_ns)
{
    int64_t start = 0;
    for (;;) {
        for (int i = 0; i < POLLS; i++) {
            if (atomic_load_explicit(counter, memory_order_acquire) != seen) return true;
            relax();
        }
        if (limit_ns == 0) return false;
        int64_t now = now_ns();
        if (start == 0) start = now;
        if (now - start >= limit_ns) return false;
    }
}

/* The same, giving the processor away between polls; limit_ns < 0 waits for ever. */
static bool yield_until(atomic_uint *counter, unsigned seen, int64_t limit_ns)
{
    int64_t start = limit_ns < 0 ? 0 : now_ns();
    while (atomic_load_explicit(counter, memory_order_acquire) == seen) {
        if (limit_ns >= 0 && now_ns() - start >= limit_ns) return false;
        sched_yield();
    }
    return true;
}

void cv_barrier(const cv_member *me)
{
    cv_team *team = me->team;
    if (team->n == 1) return;
    /* Read before arriving: the epoch cannot end without this member. */
    unsigned seen = atomic_load_explicit(&team->epoch, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 == team->n) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->epoch, seen + 1, memory_order_release);
        return;
    }
    if (!spin(&team->epoch, seen, team->crowded ? 0 : SPIN_NS)) yield_until(&team->epoch, seen, -1);
}

/* ---- members -------------------------------------------------------------------------------- */

static void sleep_for_work(cv_team *team, unsigned seen)
{
    pthread_mutex_lock(&team->lock);
    /* Both sides are sequentially consistent: either start() sees this sleeper, or the sleeper
     * sees the new generation. */
    atomic_fetch_add(&team->sleepers, 1);
    while (atomic_load(&team->generation) == seen)
        pthread_cond_wait(&team->wake, &team->lock);
    atomic_fetch_sub(&team->sleepers, 1);
    pthread_mutex_unlock(&team->lock);
}

/* Returns the generation that ended the wait. */
static unsigned wait_for_work(cv_team *team, unsigned seen)
{
    if (!spin(&team->generation, seen, team->crowded ? 0 : SPIN_NS) &&
        !yield_until(&team->generation, seen, team->crowded ? 0 : YIELD_NS))
        sleep_for_work(team, seen);
    return atomic_load_explicit(&team->generation, memory_order_acquire);
}

static void *member_main(void *arg)
{
    const cv_member *me = arg;
    cv_team *team = me->team;
    char name[16];
    snprintf(name, sizeof name, "corvid-%u", (unsigned)me->id);
    pthread_setname_np(pthread_self(), name);

    unsigned seen = 0;
    for (;;) {
        seen = wait_for_work(team, seen);
        if (!team->work) return NULL;
        team->work(me, team->arg);
        cv_barrier(me);
    }
}

static void start(cv_team *team, void (*work)(const cv_member *me, void *arg), void *arg)
{
    team->work = work;
    team->arg = arg;
    atomic_fetch_add(&team->generation, 1);
    if (atomic_load(&team->sleepers) == 0) return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->lock);
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
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->wake, NULL);
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
    pthread_cond_destroy(&team->wake);
    pthread_mutex_destroy(&team->lock);
    cv_free(team->mem, team);
}

size_t cv_team_size(const cv_team *team)
{
    return team->n;
}
