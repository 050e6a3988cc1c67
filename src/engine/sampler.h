/* sampler.h - from scores to a token.  [sample.order] [sample.penalty] [sample.typical] */
#ifndef CV_SAMPLER_H
#define CV_SAMPLER_H

#include "base/memory.h"
#include "base/rng.h"

typedef struct cv_sampler cv_sampler;

typedef struct cv_sampler_settings {
    float temperature, top_p, min_p, typical;
    size_t top_k;
    float presence, frequency, penalty_decay;
    const int32_t *bias_tokens; /* [n_bias], copied */
    const float *bias;
    size_t n_bias;
    const unsigned char *uncounted; /* [n_vocab] or NULL: tokens whose count stays 0; copied */
    uint64_t seed;
} cv_sampler_settings;

/* CORVID_E_ARGUMENT names the setting that is out of range. */
corvid_status cv_sampler_new(const corvid_allocator *mem, size_t n_vocab,
                             const cv_sampler_settings *settings, cv_sampler **out,
                             corvid_error *err);
void cv_sampler_free(cv_sampler *sampler);
int32_t cv_sampler_draw(cv_sampler *sampler, const float *logits); /* -1: nothing finite */
void cv_sampler_reset(cv_sampler *sampler, uint64_t seed);

/* Test and inspection hook: the distribution the next draw would use, after penalties, bias,
 * truncation and temperature; p [n_vocab] sums to 1. */
void cv_sampler_distribution(cv_sampler *sampler, const float *logits, double *p);

#endif
