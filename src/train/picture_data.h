/* picture_data.h - pictures for training: found, decoded, split in two, and made into batches.
 *
 * A batch is a function of the seed and its step alone, so a run goes on from any step as if it had
 * never stopped.  picture_feed.h makes them in the background. */
#ifndef CV_PICTURE_DATA_H
#define CV_PICTURE_DATA_H

#include "base/team.h"
#include "train/augment.h"
#include "train/picture_sources.h"

typedef struct cv_picture_options {
    const char *const *paths; /* picture_sources.h says what they may be */
    size_t n_paths;
    size_t side;       /* of the pictures that the model is shown, in pixels */
    double validation; /* part kept back where the data has none of its own, 0 to 0.9 */
    uint64_t seed;     /* of orders and augmentation */
    /* Pictures are kept decoded where all together take at most so many bytes; else they are
     * decoded each time.  What has to be read into memory (archives, IDX) may take as much.
     * 0: 1 GiB. */
    size_t memory_limit;
    uint64_t max_pixels;           /* of one picture; 0: 2^28 */
    const cv_normalise *normalise; /* NULL: cv_normalise_255, ImageNet's */
    bool normalise_from_data;      /* mean and deviation of the training pictures instead */
    bool skip_bad;                 /* leaves out what cannot be decoded, and counts it */
    bool as_stored;                /* EXIF does not turn pictures, as for VRWKV-L */
    cv_team *team;                 /* whose members decode; NULL: the caller alone */
    corvid_progress_fn progress;   /* pictures decoded; may be NULL */
    corvid_cancel_fn cancel;       /* may be NULL */
    void *ctx;                     /* of both */
} cv_picture_options;

typedef struct cv_picture_data {
    const corvid_allocator *mem;
    cv_picture_list list; /* of all; list.classes [list.n_classes] are the names */
    cv_picture *decoded;  /* one for each of the list; NULL: decoded when used.  Those of raw files are empty */
    uint32_t *order;      /* numbers in the list: first those for training, then for validation */
    size_t n_train, n_validation;
    bool own_split; /* validation is the data's own */
    size_t n_bad;   /* left out when the data was opened */
    size_t side;
    uint64_t seed, max_pixels;
    bool skip_bad, as_stored;
    cv_normalise normalise;
    double mean[3], std[3]; /* of 8-bit values */
    float table[3][256];    /* numbers for the model */
} cv_picture_data;

/* CORVID_E_FORMAT names the picture that cannot be decoded; it is found now where all are decoded
 * now, and else when it is used. */
corvid_status cv_picture_data_open(const corvid_allocator *mem, const cv_picture_options *options,
                                   cv_picture_data *out, corvid_error *err);
void cv_picture_data_close(cv_picture_data *data); /* safe on a zeroed one, and twice */

/* Picture `number` of the list, upright: kept ones are borrowed, others made in *own, which the
 * caller frees in any case. */
corvid_status cv_picture_data_get(const cv_picture_data *data, size_t number, cv_picture *own,
                                  const cv_picture **out, corvid_error *err);

/* What messages call it. */
void cv_picture_data_name(const cv_picture_data *data, size_t number, char name[600]);

/* ---- batches (picture_batch.c) --------------------------------------------------------------- */

typedef struct cv_picture_set {
    float *values;    /* [n][3][side][side], normalised */
    int32_t *targets; /* [n] */
    int32_t *others;  /* [n] and how much of the target is left, [n], where `mixed` */
    float *share;
    size_t n;
    bool mixed;
    size_t n_bad; /* that had to be replaced, or left out in validation */
    const corvid_allocator *mem;
} cv_picture_set;

/* Room for n pictures. */
corvid_status cv_picture_set_new(const corvid_allocator *mem, size_t n, size_t side,
                                 cv_picture_set *out, corvid_error *err);
void cv_picture_set_free(cv_picture_set *set); /* safe on a zeroed one */

/* The n pictures of a training step: the next n of the epoch's order, in which each training
 * picture comes once; steps go on over the end of an epoch. */
corvid_status cv_picture_batch_fill(const cv_picture_data *data, const cv_augment *how, size_t n,
                                    uint64_t step, cv_picture_set *set, corvid_error *err);

/* The validation pictures from number `first` on, n at most, without augmentation; set->n of
 * them. */
corvid_status cv_picture_validation_fill(const cv_picture_data *data, size_t first, size_t n,
                                         cv_picture_set *set, corvid_error *err);

/* The same piece by piece, for who shares the work out: any of the n pictures of a batch (place
 * j of a set with room), then the rest. */
corvid_status cv_picture_batch_one(const cv_picture_data *data, const cv_augment *how, size_t n,
                                   uint64_t step, size_t j, cv_picture_set *set, size_t *n_bad,
                                   corvid_error *err);
void cv_picture_batch_finish(const cv_picture_data *data, const cv_augment *how, uint64_t step,
                             cv_picture_set *set);
corvid_status cv_picture_validation_one(const cv_picture_data *data, size_t first, size_t j,
                                        cv_picture_set *set, size_t *n_bad, corvid_error *err);
void cv_picture_validation_finish(const cv_picture_data *data, cv_picture_set *set);

/* Place i of n in the order of an epoch: a permutation for each key. */
uint64_t cv_shuffled(uint64_t i, uint64_t n, uint64_t key);

#endif
