/* picture_feed.c - a ring of batches between the threads that make pictures and the one that
 * learns.
 *
 * One lock guards the counters; pictures are made outside it, each by one thread into a place of
 * its own.  Who makes the last picture of a batch also mixes it. */
#include "train/picture_feed.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#define DEFAULT_RING 3
#define MOST_RING    16

typedef struct slot {
    cv_picture_set set;
    uint64_t step;
    size_t n_done; /* pictures, made or failed */
    bool ready;
    corvid_status status; /* of the first picture that failed */
    size_t failed;
    corvid_error err;
} slot;

struct cv_picture_feed {
    const cv_picture_data *data;
    cv_augment how;
    bool validation;
    size_t batch, ring;
    pthread_mutex_t lock;
    pthread_cond_t work, ready; /* there is something to do; a batch is ready, */
    bool closing;
    uint64_t filling; /* the step of which picture `place` is the next to be made */
    size_t place;
    uint64_t next;     /* the step that is handed out next */
    uint64_t released; /* the slots of steps before this one are free */
    slot slots[MOST_RING];
    cv_picture_set none; /* behind the end */
    pthread_t threads[CV_FEED_THREADS];
    size_t n_threads;
};

/* ---- making pictures ------------------------------------------------------------------------- */

/* Pictures of a step. */
static size_t size_of(const cv_picture_feed *f, uint64_t step)
{
    if (!f->validation) return f->batch;
    const size_t n = f->data->n_validation;
    if (step > n / f->batch) return 0;
    const size_t left = n - (size_t)step * f->batch;
    return left < f->batch ? left : f->batch;
}

/* Waits for a picture to make; false when the feed closes. */
static bool take_picture(cv_picture_feed *f, slot **of, size_t *j)
{
    for (;;) {
        if (f->closing) return false;
        if (f->filling < f->released + f->ring && size_of(f, f->filling) > 0) break;
        pthread_cond_wait(&f->work, &f->lock);
    }
    slot *s = *of = &f->slots[f->filling % f->ring];
    *j = f->place++;
    if (*j == 0) {
        s->step = f->filling;
        s->n_done = 0;
        s->ready = false;
        s->status = CORVID_OK;
        s->set.n = size_of(f, f->filling);
        s->set.n_bad = 0;
    }
    if (f->place == s->set.n) {
        f->filling++;
        f->place = 0;
    }
    return true;
}

static corvid_status make_picture(const cv_picture_feed *f, slot *s, size_t j, size_t *n_bad,
                                  corvid_error *err)
{
    *n_bad = 0;
    if (f->validation)
        return cv_picture_validation_one(f->data, (size_t)s->step * f->batch, j, &s->set, n_bad,
                                         err);
    return cv_picture_batch_one(f->data, &f->how, f->batch, s->step, j, &s->set, n_bad, err);
}

static void finish_batch(const cv_picture_feed *f, slot *s)
{
    if (f->validation)
        cv_picture_validation_finish(f->data, &s->set);
    else
        cv_picture_batch_finish(f->data, &f->how, s->step, &s->set);
}

static void note_failure(slot *s, size_t j, corvid_status status, const corvid_error *err)
{
    if (s->status != CORVID_OK && s->failed < j) return;
    s->status = status;
    s->failed = j;
    s->err = *err;
}

static void *feed_main(void *arg)
{
    cv_picture_feed *f = arg;
    slot *s;
    size_t j, n_bad;
    corvid_error err = { .status = CORVID_OK };
    pthread_setname_np(pthread_self(), "corvid-feed");
    pthread_mutex_lock(&f->lock);
    while (take_picture(f, &s, &j)) {
        pthread_mutex_unlock(&f->lock);
        const corvid_status status = make_picture(f, s, j, &n_bad, &err);
        pthread_mutex_lock(&f->lock);
        s->set.n_bad += n_bad;
        if (status != CORVID_OK) note_failure(s, j, status, &err);
        if (++s->n_done < s->set.n) continue;
        pthread_mutex_unlock(&f->lock); /* nobody else has to do with this slot now */
        if (s->status == CORVID_OK) finish_batch(f, s);
        pthread_mutex_lock(&f->lock);
        s->ready = true;
        pthread_cond_signal(&f->ready);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* ---- handing out ----------------------------------------------------------------------------- */

/* The batch before is no longer looked at. */
static void release(cv_picture_feed *f)
{
    if (f->released == f->next) return;
    f->released = f->next;
    pthread_cond_broadcast(&f->work);
}

/* Waits for the next batch; NULL behind the end. */
static slot *wait_for_next(cv_picture_feed *f)
{
    if (size_of(f, f->next) == 0) return NULL;
    slot *s = &f->slots[f->next % f->ring];
    while (s->step != f->next || !s->ready)
        pthread_cond_wait(&f->ready, &f->lock);
    return s;
}

corvid_status cv_picture_feed_next(cv_picture_feed *f, const cv_picture_set **out,
                                   corvid_error *err)
{
    corvid_status status = CORVID_OK;
    *out = &f->none;
    pthread_mutex_lock(&f->lock);
    for (;;) {
        release(f);
        const slot *s = wait_for_next(f);
        if (!s) break;
        status = s->status;
        if (status != CORVID_OK) {
            if (err) *err = s->err;
            break;
        }
        f->next++;
        if (s->set.n == 0) continue; /* all of it was left out */
        *out = &s->set;
        break;
    }
    pthread_mutex_unlock(&f->lock);
    return status;
}

/* ---- opening and closing --------------------------------------------------------------------- */

/* Signals are the program's business: the threads are started with all of them blocked. */
static corvid_status start_threads(cv_picture_feed *f, size_t n, corvid_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    int error = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (error)
        return cv_fail(err, CORVID_E_INTERNAL, "signals cannot be blocked: %s", strerror(error));
    while (f->n_threads < n && !error) {
        error = pthread_create(&f->threads[f->n_threads], NULL, feed_main, f);
        if (!error) f->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error) return CORVID_OK;
    return cv_fail(err, CORVID_E_MEMORY,
                   "thread %zu of %zu for pictures cannot be started: %s; use fewer threads, or "
                   "raise the limit with ulimit -u",
                   f->n_threads + 1, n, strerror(error));
}

static corvid_status check_options(const cv_feed_options *options, corvid_error *err)
{
    if (options->batch < 1 || options->batch > UINT32_MAX)
        return cv_fail(err, CORVID_E_ARGUMENT, "batches of %zu pictures, expected at least 1",
                       options->batch);
    if (options->threads > CV_FEED_THREADS)
        return cv_fail(err, CORVID_E_ARGUMENT, "%zu threads for pictures, expected 1 to %d",
                       options->threads, CV_FEED_THREADS);
    if (options->ring == 1 || options->ring > MOST_RING)
        return cv_fail(err, CORVID_E_ARGUMENT, "%zu batches at a time, expected 2 to %d",
                       options->ring, MOST_RING);
    return options->augment ? cv_augment_check(options->augment, err) : CORVID_OK;
}

corvid_status cv_picture_feed_open(const cv_picture_data *data, const cv_feed_options *options,
                                   cv_picture_feed **out, corvid_error *err)
{
    *out = NULL;
    CV_TRY(check_options(options, err));
    cv_picture_feed *f = cv_alloc_zero(data->mem, 1, sizeof *f);
    if (!f) return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu bytes", sizeof *f);
    f->data = data;
    f->validation = !options->augment;
    if (options->augment) f->how = *options->augment;
    f->batch = options->batch;
    f->ring = options->ring > 0 ? options->ring : DEFAULT_RING;
    f->filling = f->next = f->released = options->step;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->work, NULL);
    pthread_cond_init(&f->ready, NULL);
    corvid_status status = CORVID_OK;
    for (size_t i = 0; status == CORVID_OK && i < f->ring; i++)
        status = cv_picture_set_new(data->mem, f->batch, data->side, &f->slots[i].set, err);
    if (status == CORVID_OK)
        status = start_threads(f, options->threads > 0 ? options->threads : 1, err);
    if (status == CORVID_OK)
        *out = f;
    else
        cv_picture_feed_close(f);
    return status;
}

void cv_picture_feed_close(cv_picture_feed *f)
{
    if (!f) return;
    pthread_mutex_lock(&f->lock);
    f->closing = true;
    pthread_cond_broadcast(&f->work);
    pthread_mutex_unlock(&f->lock);
    for (size_t i = 0; i < f->n_threads; i++)
        pthread_join(f->threads[i], NULL);
    for (size_t i = 0; i < f->ring; i++)
        cv_picture_set_free(&f->slots[i].set);
    pthread_cond_destroy(&f->ready);
    pthread_cond_destroy(&f->work);
    pthread_mutex_destroy(&f->lock);
    cv_free(f->data->mem, f);
}
