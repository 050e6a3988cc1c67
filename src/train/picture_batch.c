/* picture_batch.c - the pictures of a step: which they are, augmented, normalised and mixed. */
#include "train/picture_data.h"

#include <string.h>

#include "base/checked.h"

/* What the numbers drawn for one step are for. */
enum { KEY_ORDER = 1, KEY_PICTURE, KEY_MIX };

/* A run of pictures of which none can be decoded is no accident. */
#define MOST_BAD_IN_A_ROW 100

/* ---- the order of an epoch ------------------------------------------------------------------- */

/* A permutation of all numbers of 2 half bits (a Feistel network). */
static uint64_t scrambled(uint64_t x, unsigned half, uint64_t key)
{
    const uint64_t mask = (UINT64_C(1) << half) - 1;
    uint64_t left = x >> half, right = x & mask;
    for (uint64_t round = 0; round < 6; round++) {
        const uint64_t was = left;
        left = right;
        right = was ^ (cv_augment_key(key, round, right) & mask);
    }
    return left << half | right;
}

/* Scrambles until it is below n again; fewer than four numbers of the network belong to one
 * below n. */
uint64_t cv_shuffled(uint64_t i, uint64_t n, uint64_t key)
{
    unsigned half = 1;
    while (half < 31 && UINT64_C(1) << 2 * half < n)
        half++;
    do
        i = scrambled(i, half, key);
    while (i >= n);
    return i;
}

static uint64_t key_for(const cv_picture_data *data, uint64_t purpose, uint64_t step, uint64_t j)
{
    return cv_augment_key(cv_augment_key(data->seed, 0, purpose), step, j);
}

/* The number in the list of picture j of a step. */
static size_t number_of(const cv_picture_data *data, size_t n, uint64_t step, size_t j)
{
    const uint64_t at = step * n + j, epoch = at / data->n_train;
    const uint64_t place =
        cv_shuffled(at % data->n_train, data->n_train, key_for(data, KEY_ORDER, epoch, 0));
    return (size_t)place;
}

/* ---- sets ------------------------------------------------------------------------------------ */

corvid_status cv_picture_set_new(const corvid_allocator *mem, size_t n, size_t side,
                                 cv_picture_set *out, corvid_error *err)
{
    size_t count;
    void *values, *targets, *others, *share;
    *out = (cv_picture_set){ .mem = mem };
    if (!cv_mul_size(3 * side, side, &count) || !cv_mul_size(count, n, &count)) count = SIZE_MAX;
    CV_TRY(cv_alloc_or_fail(mem, count, sizeof *out->values, "a batch of pictures", &values, err));
    targets = cv_alloc(mem, n, sizeof *out->targets);
    others = cv_alloc(mem, n, sizeof *out->others);
    share = cv_alloc(mem, n, sizeof *out->share);
    out->values = values;
    out->targets = targets;
    out->others = others;
    out->share = share;
    if (targets && others && share) return CORVID_OK;
    cv_picture_set_free(out);
    return cv_fail(err, CORVID_E_MEMORY, "out of memory: a batch of %zu pictures", n);
}

void cv_picture_set_free(cv_picture_set *set)
{
    if (!set->mem) return;
    cv_free(set->mem, set->values);
    cv_free(set->mem, set->targets);
    cv_free(set->mem, set->others);
    cv_free(set->mem, set->share);
    *set = (cv_picture_set){ .mem = NULL };
}

static float *values_at(const cv_picture_data *data, const cv_picture_set *set, size_t j)
{
    return set->values + j * 3 * data->side * data->side;
}

/* ---- training -------------------------------------------------------------------------------- */

/* A picture of proportions that no framing is possible for is as bad as one that is damaged. */
static corvid_status refuse(const cv_picture_data *data, size_t number, corvid_status status,
                            corvid_error *err)
{
    char name[600];
    if (status != CORVID_E_ARGUMENT) return status;
    cv_picture_data_name(data, number, name);
    cv_error_prefix(err, name);
    if (err) err->status = CORVID_E_FORMAT;
    return CORVID_E_FORMAT;
}

/* One picture of the list, augmented, into place j. */
static corvid_status put_augmented(const cv_picture_data *data, const cv_augment *how,
                                   size_t number, uint64_t key, size_t j, cv_picture_set *set,
                                   corvid_error *err)
{
    cv_picture own, made;
    const cv_picture *in;
    corvid_status status = cv_picture_data_get(data, number, &own, &in, err);
    if (status == CORVID_OK)
        status = refuse(data, number,
                        cv_augment_picture(data->mem, how, in, data->side, data->mean, data->std,
                                           key, &made, err),
                        err);
    if (status == CORVID_OK) {
        cv_picture_values(&made, (float(*)[256])data->table, values_at(data, set, j));
        set->targets[j] = data->list.of[number].target;
        cv_picture_free(&made);
    }
    cv_picture_free(&own);
    return status;
}

/* In place of one that cannot be decoded comes the next one of the list. */
corvid_status cv_picture_batch_one(const cv_picture_data *data, const cv_augment *how, size_t n,
                                   uint64_t step, size_t j, cv_picture_set *set, size_t *n_bad,
                                   corvid_error *err)
{
    const size_t place = number_of(data, n, step, j);
    const uint64_t key = key_for(data, KEY_PICTURE, step, j);
    corvid_status status;
    *n_bad = 0;
    for (;;) {
        const size_t number = data->order[(place + *n_bad) % data->n_train];
        status = put_augmented(data, how, number, key, j, set, err);
        if (status != CORVID_E_FORMAT || !data->skip_bad || *n_bad == MOST_BAD_IN_A_ROW)
            return status;
        ++*n_bad;
    }
}

void cv_picture_batch_finish(const cv_picture_data *data, const cv_augment *how, uint64_t step,
                             cv_picture_set *set)
{
    const cv_mixture mix = cv_mix_of(how, data->side, key_for(data, KEY_MIX, step, 0));
    cv_mix_values(&mix, set->n, data->side, set->values);
    set->mixed = mix.kind != CV_MIX_NONE;
    for (size_t j = 0; j < set->n; j++) {
        set->others[j] = set->targets[set->mixed ? set->n - 1 - j : j];
        set->share[j] = mix.share;
    }
}

corvid_status cv_picture_batch_fill(const cv_picture_data *data, const cv_augment *how, size_t n,
                                    uint64_t step, cv_picture_set *set, corvid_error *err)
{
    set->n = n;
    set->n_bad = 0;
    CV_TRY(cv_augment_check(how, err));
    for (size_t j = 0; j < n; j++) {
        size_t n_bad;
        CV_TRY(cv_picture_batch_one(data, how, n, step, j, set, &n_bad, err));
        set->n_bad += n_bad;
    }
    cv_picture_batch_finish(data, how, step, set);
    return CORVID_OK;
}

/* ---- validation ------------------------------------------------------------------------------ */

/* One that is left out has no target until the batch is finished. */
corvid_status cv_picture_validation_one(const cv_picture_data *data, size_t first, size_t j,
                                        cv_picture_set *set, size_t *n_bad, corvid_error *err)
{
    static const cv_augment nothing = { .crop = CV_CROP_MIDDLE };
    const size_t number = data->order[data->n_train + first + j];
    const corvid_status status = put_augmented(data, &nothing, number, 0, j, set, err);
    *n_bad = status == CORVID_E_FORMAT && data->skip_bad;
    if (*n_bad == 0) return status;
    set->targets[j] = -1;
    return CORVID_OK;
}

/* Moves the pictures together where some are left out. */
void cv_picture_validation_finish(const cv_picture_data *data, cv_picture_set *set)
{
    const size_t size = 3 * data->side * data->side;
    size_t kept = 0;
    for (size_t j = 0; j < set->n; j++) {
        if (set->targets[j] < 0) continue;
        if (kept < j) {
            memcpy(values_at(data, set, kept), values_at(data, set, j), size * sizeof *set->values);
            set->targets[kept] = set->targets[j];
        }
        set->others[kept] = set->targets[kept];
        set->share[kept++] = 1.0f;
    }
    set->n = kept;
    set->mixed = false;
}

corvid_status cv_picture_validation_fill(const cv_picture_data *data, size_t first, size_t n,
                                         cv_picture_set *set, corvid_error *err)
{
    const size_t left = first < data->n_validation ? data->n_validation - first : 0;
    set->n = n < left ? n : left;
    set->n_bad = 0;
    for (size_t j = 0; j < set->n; j++) {
        size_t n_bad;
        CV_TRY(cv_picture_validation_one(data, first, j, set, &n_bad, err));
        set->n_bad += n_bad;
    }
    cv_picture_validation_finish(data, set);
    return CORVID_OK;
}
