/* text_data.h - texts as tokens for training: encoded once, split in two, cut into samples. */
#ifndef CV_TEXT_DATA_H
#define CV_TEXT_DATA_H

#include "text/tokenizer.h"
#include "train/text_sources.h"
#include "train/token_cache.h"

typedef struct cv_text_options {
    const cv_text_source *sources;
    size_t n_sources;
    const cv_tokenizer *tok;
    const char *cache;           /* where the tokens are kept; NULL: in memory only */
    bool resume;                 /* goes on: see below for standard input */
    double validation;           /* the part that is kept for validation, 0 to 0.9 */
    size_t memory_limit;         /* tokens beyond so many bytes stay in the file; 0: 1 GiB */
    corvid_progress_fn progress; /* bytes of text encoded, see cv_text_reader; may be NULL */
    corvid_cancel_fn cancel;     /* may be NULL */
    void *ctx;                   /* of both */
} cv_text_options;

typedef struct cv_token_range {
    uint64_t begin, end;
} cv_token_range;

typedef struct cv_text_data {
    cv_token_cache cache;
    bool reused; /* the cache was there and fitted: nothing was encoded */
    cv_token_range train, validation;
} cv_text_data;

/* Takes the tokens from the cache where it is of these sources and this vocabulary; else encodes
 * the texts and writes it anew.  A file at the cache's path that is no cache is never replaced.
 *
 * What standard input has is known only when it was read, and it can be read once.  So with "-"
 * among the sources nothing is guessed: with `resume` a cache that is there is taken and standard
 * input left alone, also when it does not fit (CORVID_E_MISMATCH); without it one that is there is
 * refused (CORVID_E_ARGUMENT).  Where there is none, standard input is read.
 *
 * Validation is the last documents, as many as fit in its part of all tokens.  Where those are less
 * than half of that part (always with a single document) it is the last tokens: the first
 * floor((1 - validation) * n) are for training, as nanoGPT cuts. */
corvid_status cv_text_data_open(const corvid_allocator *mem, const cv_text_options *options,
                                cv_text_data *out, corvid_error *err);
void cv_text_data_close(cv_text_data *data); /* safe on a zeroed one, and twice */

/* ---- samples -------------------------------------------------------------------------------- */

typedef enum cv_sample_order {
    CV_SAMPLES_RANDOM,    /* any offset, chosen by seed, step and row alone */
    CV_SAMPLES_MAGIC,     /* the official trainers' order: each window of T once, then again */
    CV_SAMPLES_SEQUENTIAL /* the windows from first to last, for validation */
} cv_sample_order;

/* Where samples of T tokens (and the one behind each as target) begin.  Keeps no position: a run
 * goes on from any step as if it had never stopped. */
typedef struct cv_sample_plan {
    cv_token_range range;
    cv_sample_order order;
    size_t T;
    size_t rows; /* samples of a step, of all processes together */
    uint64_t seed;
    uint64_t windows; /* different samples: offsets, prime, or windows */
    uint64_t prime, factor; /* of the magic order */
} cv_sample_plan;

/* CORVID_E_ARGUMENT when the range is too short for a sample. */
corvid_status cv_sample_plan_init(cv_sample_plan *plan, cv_token_range range, cv_sample_order order,
                              size_t T, size_t rows, uint64_t seed, corvid_error *err);

/* Where the sample of this step and row begins.  Behind the last sequential window: range.end. */
uint64_t cv_sample_offset(const cv_sample_plan *plan, uint64_t step, size_t row);

/* Fills B samples of a step, from row `first_row` on.
 *   tokens   [B][T]
 *   targets  [B][T]  the token that follows each; sequential windows reach to the last token of the
 *                    range, and where there is none the token is 0 and the target -1 (no target) */
corvid_status cv_text_batch(const cv_text_data *data, const cv_sample_plan *plan, uint64_t step,
                            size_t first_row, size_t B, int32_t *tokens, int32_t *targets,
                            corvid_error *err);

/* The largest prime p = 3 n + 2 that is at most tokens / T - 1 (0: there is none). */
uint64_t cv_magic_prime(uint64_t tokens, size_t T);

#endif
