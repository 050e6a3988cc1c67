/* picture_data.c - opens pictures for training: decodes them where they fit in memory, splits them,
 * and takes the mean and deviation of their values.
 *
 * Whoever of the team is free takes the next picture; what comes out does not depend on who did.
 * Batches are picture_batch.c. */
#include "train/picture_data.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_MEMORY ((size_t)1 << 30)
#define DEFAULT_PIXELS ((uint64_t)1 << 28)
#define MOST_SIDE      4096

/* Pictures that a mean is taken of, where they have to be decoded for it. */
#define MOST_MEASURED ((size_t)4096)

/* Between two calls of the caller's functions, pictures of one member. */
#define CALL_EVERY 16

/* ---- one picture ----------------------------------------------------------------------------- */

void cv_picture_data_name(const cv_picture_data *data, size_t number, char name[600])
{
    const cv_picture_sample *s = &data->list.of[number];
    if (s->form == CV_FORM_ENCODED)
        snprintf(name, 600, "%.280s: %.300s", s->name, s->path);
    else
        snprintf(name, 600, "%.590s", s->name);
}

static corvid_status turned(const cv_picture_data *d, cv_picture *p, corvid_error *err)
{
    cv_picture upright;
    if (d->as_stored || p->orientation <= 1 || p->orientation > 8) return CORVID_OK;
    CV_TRY(cv_picture_turn(d->mem, p, &upright, err));
    cv_picture_free(p);
    *p = upright;
    return CORVID_OK;
}

static corvid_status decode(const cv_picture_data *d, size_t number, cv_picture *out,
                            corvid_error *err)
{
    const cv_picture_sample *s = &d->list.of[number];
    char name[600];
    if (s->form == CV_FORM_FILE) {
        CV_TRY(cv_picture_read(d->mem, s->name, d->max_pixels, out, err));
    } else {
        cv_picture_data_name(d, number, name);
        CV_TRY(cv_picture_decode(d->mem, s->bytes, (size_t)s->n, name, d->max_pixels, out, err));
    }
    return turned(d, out, err);
}

/* Grey, or planes of colours, as RGB. */
static corvid_status expand(const cv_picture_data *d, const cv_picture_sample *s, cv_picture *out,
                            corvid_error *err)
{
    const size_t n = (size_t)s->width * s->height;
    const size_t plane = s->form == CV_FORM_PLANES ? n : 0;
    CV_TRY(cv_picture_new(d->mem, s->width, s->height, out, err));
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < 3; c++)
            out->pixels[3 * i + c] = s->bytes[c * plane + i];
    return CORVID_OK;
}

static bool is_raw(const cv_picture_sample *s)
{
    return s->form == CV_FORM_GREY || s->form == CV_FORM_PLANES;
}

corvid_status cv_picture_data_get(const cv_picture_data *data, size_t number, cv_picture *own,
                                  const cv_picture **out, corvid_error *err)
{
    const cv_picture_sample *s = &data->list.of[number];
    *own = (cv_picture){ 0 };
    *out = own;
    if (is_raw(s)) return expand(data, s, own, err);
    if (!data->decoded) return decode(data, number, own, err);
    *out = &data->decoded[number];
    return CORVID_OK;
}

/* ---- all pictures, by the team --------------------------------------------------------------- */

typedef struct pass {
    cv_picture_data *data;
    const cv_picture_options *options;
    const uint32_t *which; /* [n], or NULL: all */
    size_t n;
    corvid_status (*visit)(struct pass *p, size_t number, corvid_error *err);
    atomic_size_t next;
    atomic_bool stop;

    pthread_mutex_t lock; /* of what follows: the first picture that failed */
    size_t failed;
    corvid_status status;
    corvid_error err;

    atomic_size_t bytes; /* decoding: of all so far; */
    atomic_bool over;    /* they are too many */
    unsigned char *bad;  /* one for each of the list */

    atomic_uint_fast64_t n_pixels, sum[3], squares[3]; /* measuring */
} pass;

/* Pictures are taken in order, so every one before the first that failed has been looked at. */
static void note_failure(pass *p, size_t i, corvid_status status, const corvid_error *err)
{
    pthread_mutex_lock(&p->lock);
    if (p->status == CORVID_OK || i < p->failed) {
        p->failed = i;
        p->status = status;
        p->err = *err;
    }
    pthread_mutex_unlock(&p->lock);
    atomic_store(&p->stop, true);
}

/* The first member is the caller's thread; only it calls the caller's functions. */
static corvid_status tell_caller(const pass *p, size_t done, corvid_error *err)
{
    const cv_picture_options *o = p->options;
    if (o->progress) o->progress(o->ctx, done, p->n);
    if (!o->cancel || o->cancel(o->ctx) == 0) return CORVID_OK;
    return cv_fail(err, CORVID_E_CANCELLED, "decoding pictures was cancelled");
}

static void pass_member(const cv_member *me, void *arg)
{
    pass *p = arg;
    corvid_error err = { .status = CORVID_OK };
    for (size_t turn = 0; !atomic_load(&p->stop); turn++) {
        const size_t i = atomic_fetch_add(&p->next, 1);
        if (i >= p->n) return;
        corvid_status status = CORVID_OK;
        if (me->id == 0 && turn % CALL_EVERY == 0) status = tell_caller(p, i, &err);
        if (status == CORVID_OK) status = p->visit(p, p->which ? p->which[i] : i, &err);
        if (status != CORVID_OK) note_failure(p, i, status, &err);
    }
}

static corvid_status run_pass(pass *p, corvid_error *err)
{
    const cv_member alone = { .n = 1 };
    pthread_mutex_init(&p->lock, NULL);
    if (p->options->team)
        cv_team_run(p->options->team, pass_member, p);
    else
        pass_member(&alone, p);
    pthread_mutex_destroy(&p->lock);
    if (p->status == CORVID_OK && p->options->progress)
        p->options->progress(p->options->ctx, p->n, p->n);
    if (p->status != CORVID_OK && err) *err = p->err;
    return p->status;
}

/* ---- decoding all ---------------------------------------------------------------------------- */

static corvid_status keep_decoded(pass *p, size_t number, corvid_error *err)
{
    cv_picture_data *d = p->data;
    cv_picture *to = &d->decoded[number];
    if (is_raw(&d->list.of[number])) return CORVID_OK;
    const corvid_status status = decode(d, number, to, err);
    if (status == CORVID_E_FORMAT && d->skip_bad) {
        p->bad[number] = 1;
        return CORVID_OK;
    }
    if (status != CORVID_OK) return status;
    const size_t bytes = 3 * to->width * to->height;
    if (atomic_fetch_add(&p->bytes, bytes) + bytes > d->list.limit) {
        atomic_store(&p->over, true);
        atomic_store(&p->stop, true);
    }
    return CORVID_OK;
}

static void forget_decoded(cv_picture_data *d)
{
    for (size_t i = 0; d->decoded && i < d->list.n; i++)
        cv_picture_free(&d->decoded[i]);
    cv_free(d->mem, d->decoded);
    d->decoded = NULL;
}

/* Takes those that cannot be decoded out of the list. */
static corvid_status drop_bad(cv_picture_data *d, const unsigned char *bad, corvid_error *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < d->list.n; i++) {
        if (bad[i]) continue;
        d->list.of[kept] = d->list.of[i];
        d->decoded[kept++] = d->decoded[i];
    }
    d->n_bad = d->list.n - kept;
    d->list.n = kept;
    if (kept > 0) return CORVID_OK;
    return cv_fail(err, CORVID_E_FORMAT, "%.512s: none of its %zu pictures can be decoded",
                   d->list.of[0].name, d->n_bad);
}

static size_t count_raw(const cv_picture_list *list)
{
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++)
        n += is_raw(&list->of[i]);
    return n;
}

/* Decodes everything, unless that takes too much. */
static corvid_status decode_all(cv_picture_data *d, const cv_picture_options *options,
                                corvid_error *err)
{
    pass p = { .data = d, .options = options, .n = d->list.n, .visit = keep_decoded };
    const size_t n_raw = count_raw(&d->list);
    if (d->list.n_encoded > d->list.limit || n_raw == d->list.n) return CORVID_OK;
    d->decoded = cv_alloc_zero(d->mem, d->list.n, sizeof *d->decoded);
    p.bad = cv_alloc_zero(d->mem, d->list.n, 1);
    corvid_status status = CORVID_OK;
    if (!d->decoded || !p.bad)
        status = cv_fail(err, CORVID_E_MEMORY, "out of memory: a list of %zu pictures", d->list.n);
    if (status == CORVID_OK) status = run_pass(&p, err);
    if (status == CORVID_OK && atomic_load(&p.over))
        forget_decoded(d);
    else if (status == CORVID_OK)
        status = drop_bad(d, p.bad, err);
    cv_free(d->mem, p.bad);
    if (d->decoded && status == CORVID_OK && n_raw == 0)
        cv_arena_free(&d->list.bytes); /* what was read from archives is decoded */
    return status;
}

/* ---- the split ------------------------------------------------------------------------------- */

/* By a hash of its number, so that more pictures behind it do not move it. */
static bool is_held_out(const cv_picture_data *d, size_t number, double validation)
{
    if (d->own_split) return d->list.of[number].part == CV_PART_VALIDATION;
    return (double)(cv_augment_key(0, 0, number) >> 11) * 0x1p-53 < validation;
}

static corvid_status split(cv_picture_data *d, double validation, corvid_error *err)
{
    void *order;
    CV_TRY(cv_alloc_or_fail(d->mem, d->list.n, sizeof *d->order, "the order of pictures", &order,
                            err));
    d->order = order;
    for (size_t i = 0; i < d->list.n && !d->own_split; i++)
        d->own_split = d->list.of[i].part == CV_PART_VALIDATION;
    for (int held_out = 0; held_out < 2; held_out++)
        for (size_t i = 0; i < d->list.n; i++)
            if (is_held_out(d, i, validation) == (held_out == 1)) {
                d->order[d->n_train + d->n_validation] = (uint32_t)i;
                if (held_out)
                    d->n_validation++;
                else
                    d->n_train++;
            }
    if (d->n_train > 0) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "%.512s: all %zu pictures are for validation, none is left for training",
                   d->list.of[0].name, d->list.n);
}

/* ---- mean and deviation ---------------------------------------------------------------------- */

static corvid_status measure_one(pass *p, size_t number, corvid_error *err)
{
    cv_picture own;
    const cv_picture *picture;
    uint64_t sum[3] = { 0 }, squares[3] = { 0 };
    const corvid_status status = cv_picture_data_get(p->data, number, &own, &picture, err);
    if (status != CORVID_OK) {
        cv_picture_free(&own);
        return status == CORVID_E_FORMAT && p->data->skip_bad ? CORVID_OK : status;
    }
    const size_t n = picture->width * picture->height;
    const unsigned char *at = picture->pixels;
    for (size_t i = 0; i < n; i++, at += 3)
        for (size_t c = 0; c < 3; c++) {
            sum[c] += at[c];
            squares[c] += (uint64_t)at[c] * at[c];
        }
    for (size_t c = 0; c < 3; c++) {
        atomic_fetch_add(&p->sum[c], sum[c]);
        atomic_fetch_add(&p->squares[c], squares[c]);
    }
    atomic_fetch_add(&p->n_pixels, n);
    cv_picture_free(&own);
    return CORVID_OK;
}

/* Of the training pictures; of some, spread over all, where each would have to be decoded. */
static corvid_status measure(cv_picture_data *d, const cv_picture_options *options,
                             corvid_error *err)
{
    const bool at_hand = d->decoded || count_raw(&d->list) == d->list.n;
    const size_t n = at_hand || d->n_train < MOST_MEASURED ? d->n_train : MOST_MEASURED;
    void *which;
    CV_TRY(cv_alloc_or_fail(d->mem, n, sizeof *d->order, "a list of pictures", &which, err));
    for (size_t i = 0; i < n; i++)
        ((uint32_t *)which)[i] = d->order[(size_t)((uint64_t)i * d->n_train / n)];
    pass p = { .data = d, .options = options, .which = which, .n = n, .visit = measure_one };
    const corvid_status status = run_pass(&p, err);
    const double pixels = (double)atomic_load(&p.n_pixels);
    for (size_t c = 0; c < 3 && status == CORVID_OK && pixels > 0.0; c++) {
        const double mean = (double)atomic_load(&p.sum[c]) / pixels;
        const double variance = (double)atomic_load(&p.squares[c]) / pixels - mean * mean;
        d->normalise.mean[c] = mean;
        d->normalise.std[c] = variance > 1.0 ? sqrt(variance) : 1.0; /* of one colour only */
    }
    d->normalise.unit = false;
    cv_free(d->mem, which);
    return status;
}

static corvid_status choose_normalise(cv_picture_data *d, const cv_picture_options *options,
                                      corvid_error *err)
{
    d->normalise = options->normalise ? *options->normalise : cv_normalise_255;
    if (options->normalise_from_data) CV_TRY(measure(d, options, err));
    for (size_t c = 0; c < 3; c++) {
        const double unit = d->normalise.unit ? 255.0 : 1.0;
        d->mean[c] = unit * d->normalise.mean[c];
        d->std[c] = unit * d->normalise.std[c];
        if (!isfinite(d->mean[c]) || !(d->std[c] > 0.0) || !isfinite(d->std[c]))
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "pictures with a mean of %g and a deviation of %g in channel %zu, "
                           "expected a deviation above 0",
                           d->mean[c], d->std[c], c);
    }
    cv_normalise_table(&d->normalise, d->table);
    return CORVID_OK;
}

/* ---- opening --------------------------------------------------------------------------------- */

static corvid_status check_options(const cv_picture_options *options, corvid_error *err)
{
    if (options->side < 1 || options->side > MOST_SIDE)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "pictures of %zu x %zu pixels were asked for, expected sides of 1 to %d",
                       options->side, options->side, MOST_SIDE);
    if (!(options->validation >= 0.0 && options->validation <= 0.9))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "a part of %g for validation, expected 0 to 0.9 (0.1 is usual)",
                       options->validation);
    return CORVID_OK;
}

corvid_status cv_picture_data_open(const corvid_allocator *mem, const cv_picture_options *options,
                                   cv_picture_data *out, corvid_error *err)
{
    *out = (cv_picture_data){ .mem = mem,
                              .side = options->side,
                              .seed = options->seed,
                              .max_pixels =
                                  options->max_pixels > 0 ? options->max_pixels : DEFAULT_PIXELS,
                              .skip_bad = options->skip_bad,
                              .as_stored = options->as_stored };
    const size_t limit = options->memory_limit > 0 ? options->memory_limit : DEFAULT_MEMORY;
    CV_TRY(check_options(options, err));
    CV_TRY(cv_picture_list_find(mem, options->paths, options->n_paths, limit, options->cancel,
                                options->ctx, &out->list, err));
    corvid_status status = decode_all(out, options, err);
    if (status == CORVID_OK) status = split(out, options->validation, err);
    if (status == CORVID_OK) status = choose_normalise(out, options, err);
    if (status != CORVID_OK) cv_picture_data_close(out);
    return status;
}

void cv_picture_data_close(cv_picture_data *data)
{
    if (!data->mem) return;
    forget_decoded(data);
    cv_free(data->mem, data->order);
    cv_picture_list_free(&data->list);
    *data = (cv_picture_data){ .mem = NULL };
}
