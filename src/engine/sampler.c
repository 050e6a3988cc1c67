/* sampler.c - from scores to a token.  [sample.order] [sample.penalty] [sample.typical]
 *
 * The workload is one draw per generated token from a vocabulary of 65,536 of which a handful
 * matter.  So nothing is sorted: the scores are copied, patched (bias, penalties), scanned for their
 * maximum and turned into weights e^(score - max); from there on only the tokens that can survive
 * the cut are looked at.  Cuts are thresholds, found by a radix search over the bits of the
 * weights, which gives exactly what a full sort would give, ties included.
 *
 * Weights are floats (the official sampler works in fp32), every sum of them is a double.  The
 * loops over the vocabulary walk blocks of a fixed length without branches, so that a compiler
 * turns them into vector code without being asked for inexact mathematics.
 *
 * Nothing is allocated after cv_sampler_new.  What this file does not do: stop words, text. */
#include "engine/sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
    BLOCK = 4 * 32,    /* weights computed at a time; arrays are padded to it */
    LANES = 32,        /* partial results side by side (gcc unrolls up to 16) */
    ROW = 16,          /* weights looked at together by gather */
    BUCKETS = 1 << 11, /* of one level of the radix search */
    LOW_BITS = 10      /* resolved by each of its two lower levels */
};

/* Exponents end here, so that no weight is subnormal: e^-86 = 4.474e-38.  What is not above
 * LEAST_WEIGHT of the largest is never drawn. */
#define LOWEST       (-86.0f)
#define LEAST_WEIGHT 4.6e-38f

/* Most nuclei hold only tokens of at least this part of the largest weight. */
#define HEAVY (1.0f / 256.0f)

/* A count that has decayed below this is as good as zero. */
#define COUNT_FLOOR 1e-30

struct cv_sampler {
    const corvid_allocator *mem;
    cv_sampler_settings set;  /* bias and uncounted point at the copies below */
    size_t n_vocab, n_padded; /* the latter a multiple of BLOCK */
    cv_rng rng;

    float *scores;     /* [n_padded], -INFINITY behind the vocabulary */
    float *weights;    /* the same: e^(score - top); scratch of select_key later */
    float top;         /* largest score */
    double sum, heavy; /* of all weights; of those from HEAVY up */

    size_t n_kept; /* what the cuts have left, ids ascending */
    int32_t *kept; /* [n_padded] */
    float *kept_weight;
    uint32_t *key;     /* what a cut orders the kept by, largest first */
    uint32_t *sub_key; /* scratch of select_key */
    double *bucket;    /* [BUCKETS] */

    bool penalises; /* presence or frequency is set; else none of these exists */
    size_t n_seen;
    int32_t *seen; /* [n_vocab] tokens in the order first drawn */
    double *count; /* [n_vocab] decayed count of seen[i] */
    int32_t *slot; /* [n_vocab] index into seen, or -1 */

    int32_t *bias_tokens;
    float *bias;
    unsigned char *uncounted;
};

/* ---- Settings -------------------------------------------------------------------------------- */

static corvid_status check_range(const char *name, float value, float lo, float hi,
                                 corvid_error *err)
{
    if (value >= lo && value <= hi) return CORVID_OK;
    if (hi < FLT_MAX)
        return cv_fail(err, CORVID_E_ARGUMENT, "%s is %g; it must lie in %g..%g", name,
                       (double)value, (double)lo, (double)hi);
    if (lo > -FLT_MAX)
        return cv_fail(err, CORVID_E_ARGUMENT, "%s is %g; it must be a number not below %g", name,
                       (double)value, (double)lo);
    return cv_fail(err, CORVID_E_ARGUMENT, "%s is %g; it must be a finite number", name,
                   (double)value);
}

static corvid_status check_bias(const cv_sampler_settings *set, size_t n_vocab, corvid_error *err)
{
    if (set->n_bias && (!set->bias_tokens || !set->bias))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "bias: %zu entries are announced but the list is NULL", set->n_bias);
    for (size_t i = 0; i < set->n_bias; i++) {
        int32_t token = set->bias_tokens[i];
        if (token < 0 || (size_t)token >= n_vocab)
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "bias: entry %zu is for token %d; the vocabulary has ids 0..%zu", i,
                           (int)token, n_vocab - 1);
        if (!(set->bias[i] <= FLT_MAX))
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "bias: token %d is given %g; it must be a finite number, or -infinity "
                           "to ban the token",
                           (int)token, (double)set->bias[i]);
    }
    return CORVID_OK;
}

static corvid_status check_settings(const cv_sampler_settings *set, size_t n_vocab,
                                    corvid_error *err)
{
    if (n_vocab < 1 || n_vocab > (size_t)INT32_MAX - BLOCK)
        return cv_fail(err, CORVID_E_ARGUMENT, "n_vocab is %zu; it must lie in 1..%zu", n_vocab,
                       (size_t)INT32_MAX - BLOCK);
    CV_TRY(check_range("temperature", set->temperature, 0.0f, FLT_MAX, err));
    CV_TRY(check_range("top_p", set->top_p, 0.0f, FLT_MAX, err));
    CV_TRY(check_range("min_p", set->min_p, 0.0f, 1.0f, err));
    CV_TRY(check_range("typical", set->typical, 0.0f, 1.0f, err));
    CV_TRY(check_range("presence", set->presence, -FLT_MAX, FLT_MAX, err));
    CV_TRY(check_range("frequency", set->frequency, -FLT_MAX, FLT_MAX, err));
    CV_TRY(check_range("penalty_decay", set->penalty_decay, 0.0f, 1.0f, err));
    return check_bias(set, n_vocab, err);
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* Allocates count elements into *(type **)slot; nothing where there is nothing to hold. */
static corvid_status take(cv_sampler *s, void **slot, size_t count, size_t size, const char *what,
                          corvid_error *err)
{
    if (!count) return CORVID_OK;
    return cv_alloc_or_fail(s->mem, count, size, what, slot, err);
}

#define TAKE(field, count)                                                              \
    do {                                                                                \
        void *taken = NULL;                                                             \
        CV_TRY(take(s, &taken, count, sizeof *s->field, "the sampler's " #field, err)); \
        s->field = taken;                                                               \
    } while (0)

static corvid_status take_memory(cv_sampler *s, corvid_error *err)
{
    size_t padded = s->n_padded, n_seen = s->penalises ? s->n_vocab : 0;
    TAKE(scores, padded);
    TAKE(weights, padded);
    TAKE(kept, padded);
    TAKE(kept_weight, padded);
    TAKE(key, padded);
    TAKE(sub_key, padded);
    TAKE(bucket, BUCKETS);
    TAKE(seen, n_seen);
    TAKE(count, n_seen);
    TAKE(slot, n_seen);
    TAKE(bias_tokens, s->set.n_bias);
    TAKE(bias, s->set.n_bias);
    TAKE(uncounted, s->set.uncounted && s->penalises ? s->n_vocab : 0);
    return CORVID_OK;
}

static void copy_settings(cv_sampler *s)
{
    for (size_t i = 0; i < s->set.n_bias; i++) {
        s->bias_tokens[i] = s->set.bias_tokens[i];
        s->bias[i] = s->set.bias[i];
    }
    if (s->uncounted) memcpy(s->uncounted, s->set.uncounted, s->n_vocab);
    s->set.bias_tokens = s->bias_tokens;
    s->set.bias = s->bias;
    s->set.uncounted = s->uncounted;
    for (size_t i = s->n_vocab; i < s->n_padded; i++)
        s->scores[i] = -INFINITY;
    for (size_t i = 0; s->penalises && i < s->n_vocab; i++)
        s->slot[i] = -1;
}

corvid_status cv_sampler_new(const corvid_allocator *mem, size_t n_vocab,
                             const cv_sampler_settings *settings, cv_sampler **out,
                             corvid_error *err)
{
    *out = NULL;
    CV_TRY(check_settings(settings, n_vocab, err));

    void *block = NULL;
    CV_TRY(cv_alloc_or_fail(mem, 1, sizeof(cv_sampler), "the sampler", &block, err));
    cv_sampler *s = block;
    *s = (cv_sampler){ .mem = mem, .set = *settings, .n_vocab = n_vocab };
    s->n_padded = (n_vocab + BLOCK - 1) / BLOCK * BLOCK;
    s->penalises = settings->presence != 0.0f || settings->frequency != 0.0f;

    corvid_status status = take_memory(s, err);
    if (status != CORVID_OK) goto fail;
    copy_settings(s);
    cv_rng_seed(&s->rng, settings->seed);
    *out = s;
    return CORVID_OK;
fail:
    cv_sampler_free(s);
    return status;
}

void cv_sampler_free(cv_sampler *s)
{
    if (!s) return;
    const corvid_allocator *mem = s->mem;
    void *const parts[] = { s->scores,  s->weights,   s->kept,       s->kept_weight, s->key,
                            s->sub_key, s->bucket,    s->seen,       s->count,       s->slot,
                            s->bias,    s->uncounted, s->bias_tokens };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        cv_free(mem, parts[i]);
    cv_free(mem, s);
}

void cv_sampler_reset(cv_sampler *s, uint64_t seed)
{
    for (size_t i = 0; i < s->n_seen; i++)
        s->slot[s->seen[i]] = -1;
    s->n_seen = 0;
    cv_rng_seed(&s->rng, seed);
}

/* ---- Scores ---------------------------------------------------------------------------------- */

/* Bias, then penalties.  [sample.penalty] */
static void patch_scores(cv_sampler *s)
{
    for (size_t i = 0; i < s->set.n_bias; i++)
        s->scores[s->bias_tokens[i]] += s->bias[i];
    double presence = (double)s->set.presence, frequency = (double)s->set.frequency;
    for (size_t i = 0; i < s->n_seen; i++) {
        float *x = &s->scores[s->seen[i]];
        *x = (float)((double)*x - (presence + s->count[i] * frequency));
    }
}

/* Finds the largest score; false when one is NaN or plus infinity. */
static bool scan_scores(cv_sampler *s)
{
    float most[LANES];
    int32_t bad[LANES] = { 0 }, any = 0;
    for (size_t j = 0; j < LANES; j++)
        most[j] = -INFINITY;
    for (size_t i = 0; i < s->n_padded; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            float x = s->scores[i + j];
            most[j] = x > most[j] ? x : most[j];
            bad[j] |= !(x <= FLT_MAX);
        }
    s->top = -INFINITY;
    for (size_t j = 0; j < LANES; j++) {
        s->top = most[j] > s->top ? most[j] : s->top;
        any |= bad[j];
    }
    return !any;
}

/* Loads the scores of the next draw; false when there is nothing to draw from. */
static bool load_scores(cv_sampler *s, const float *logits)
{
    memcpy(s->scores, logits, s->n_vocab * sizeof *logits);
    patch_scores(s);
    return scan_scores(s) && s->top > -INFINITY;
}

static int32_t lowest_top(const cv_sampler *s)
{
    size_t i = 0;
    while (s->scores[i] < s->top)
        i++;
    return (int32_t)i;
}

/* ---- Weights --------------------------------------------------------------------------------- */

static inline float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t bits_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* e^x for LOWEST <= x <= 0, within 2 units in the last place, exactly 1 at 0.
 * x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 is split in two so that n times its first part is
 * exact; e^r is the polynomial of degree 6 whose largest relative error is least (2e-8). */
static inline float exp_weight(float x)
{
    const float shifter = 12582912.0f; /* 1.5 * 2^23: the sum's low bits are the integer n */
    float shifted = x * 1.44269504f + shifter;
    float n = shifted - shifter;
    float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.38436083e-3f;
    p = p * r + 8.37419648e-3f;
    p = p * r + 4.16680053e-2f;
    p = p * r + 1.66664302e-1f;
    p = p * r + 0.49999994f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return float_of_bits(bits_of_float(p) + (bits_of_float(shifted) << 23)); /* p * 2^n */
}

/* One block of weights e^((score - top) * scale), none below e^LOWEST; the two blocks are apart or
 * the same.  Two loops, because gcc makes branches instead of vector code of one. */
static inline void exp_block(const float *scores, float top, float scale, float *weights)
{
    float x[BLOCK];
    for (size_t j = 0; j < BLOCK; j++) {
        float below = (scores[j] - top) * scale;
        x[j] = below < LOWEST ? LOWEST : below;
    }
    for (size_t j = 0; j < BLOCK; j++)
        weights[j] = exp_weight(x[j]);
}

/* Fills weights, sum and heavy.  Four weights are added as floats before each conversion to double,
 * which costs the sums less than the weights have lost already. */
static void weigh(cv_sampler *s)
{
    double sum[LANES] = { 0 }, heavy[LANES] = { 0 };
    for (size_t i = 0; i < s->n_padded; i += BLOCK) {
        float *w = s->weights + i;
        exp_block(s->scores + i, s->top, 1.0f, w);
        for (size_t j = 0; j < LANES; j++) {
            float a = w[j], b = w[j + LANES], c = w[j + 2 * LANES], d = w[j + 3 * LANES];
            sum[j] += (double)((a + b) + (c + d));
            a = a < HEAVY ? 0.0f : a;
            b = b < HEAVY ? 0.0f : b;
            c = c < HEAVY ? 0.0f : c;
            d = d < HEAVY ? 0.0f : d;
            heavy[j] += (double)((a + b) + (c + d));
        }
    }
    s->sum = s->heavy = 0.0;
    for (size_t j = 0; j < LANES; j++) {
        s->sum += sum[j];
        s->heavy += heavy[j];
    }
}

/* ---- Cuts ------------------------------------------------------------------------------------ */

/* Keeps every token whose weight is not below least. */
static void gather(cv_sampler *s, float least)
{
    size_t n = 0;
    if (least < LEAST_WEIGHT) least = LEAST_WEIGHT;
    for (size_t i = 0; i < s->n_padded; i += ROW) {
        const float *w = s->weights + i;
        int32_t any = 0;
        for (size_t j = 0; j < ROW; j++)
            any |= w[j] >= least;
        for (size_t j = 0; any && j < ROW; j++) {
            s->kept[n] = (int32_t)(i + j);
            s->kept_weight[n] = w[j];
            n += w[j] >= least;
        }
    }
    s->n_kept = n;
}

/* Digit of a key on a level of the radix search: the upper 11 of its 31 bits, or 10 lower ones. */
static inline uint32_t digit_of(uint32_t key, unsigned level)
{
    return level == 2 ? key >> (2 * LOW_BITS) : key >> (level * LOW_BITS) & ((1u << LOW_BITS) - 1);
}

/* Adds masses (or ones) up by digit, and gives the digit at which their sum, taken from the highest
 * down, reaches what *above leaves of target.  *above grows by the mass with higher digits. */
static uint32_t find_digit(double *bucket, const uint32_t *key, const float *mass, size_t n,
                           unsigned level, double target, double *above)
{
    memset(bucket, 0, BUCKETS * sizeof *bucket);
    for (size_t i = 0; i < n; i++)
        bucket[digit_of(key[i], level)] += mass ? (double)mass[i] : 1.0;
    uint32_t found = 0;
    double sum = *above;
    for (uint32_t d = BUCKETS; d-- > 0;) {
        if (bucket[d] == 0.0) continue;
        found = d;
        *above = sum;
        sum += bucket[d];
        if (sum >= target) break;
    }
    return found;
}

/* The largest key t for which the kept with key >= t have a mass of at least target (each counts 1
 * where mass is NULL); the smallest key when all of them have less.  *above is the mass with
 * keys over t. */
static uint32_t select_key(cv_sampler *s, const float *mass, double target, double *above)
{
    const uint32_t *key = s->key;
    size_t n = s->n_kept;
    *above = 0.0;
    for (unsigned level = 2; level > 0; level--) {
        uint32_t digit = find_digit(s->bucket, key, mass, n, level, target, above);
        size_t m = 0;
        for (size_t i = 0; i < n; i++)
            if (digit_of(key[i], level) == digit) {
                s->sub_key[m] = key[i];
                if (mass) s->weights[m] = mass[i];
                m++;
            }
        key = s->sub_key;
        if (mass) mass = s->weights;
        n = m;
    }
    uint32_t digit = find_digit(s->bucket, key, mass, n, 0, target, above);
    return (key[0] & ~((1u << LOW_BITS) - 1)) | digit;
}

/* Drops the kept whose key is below t; of those that equal it the first n_ties stay. */
static void drop_below(cv_sampler *s, uint32_t t, size_t n_ties)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_kept; i++) {
        if (s->key[i] < t) continue;
        if (s->key[i] == t) {
            if (n_ties == 0) continue;
            n_ties--;
        }
        s->kept[n] = s->kept[i];
        s->kept_weight[n++] = s->kept_weight[i];
    }
    s->n_kept = n;
}

static void key_by_weight(cv_sampler *s)
{
    for (size_t i = 0; i < s->n_kept; i++)
        s->key[i] = bits_of_float(s->kept_weight[i]);
}

/* A bound that the cutoff of the nucleus is not below, so that what is under it need not be looked
 * at: either the heavy weights are enough, or it is (1 - top_p) / n_vocab, for the tokens below
 * that have less than 1 - top_p together. */
static float nucleus_bound(const cv_sampler *s, double top_p)
{
    if (s->heavy * (1.0 - 1e-6) >= top_p * s->sum) return HEAVY;
    return (float)((1.0 - top_p) * s->sum / (double)s->n_vocab * (1.0 - 1e-6));
}

/* Nucleus and min-p: thresholds on the same weights, of which the maximum's is 1. */
static void cut_top_p(cv_sampler *s)
{
    double top_p = (double)s->set.top_p, above;
    float least = s->set.min_p;
    if (top_p >= 1.0) {
        gather(s, least);
        return;
    }
    float bound = nucleus_bound(s, top_p);
    gather(s, bound > least ? bound : least);
    key_by_weight(s);
    drop_below(s, select_key(s, s->kept_weight, top_p * s->sum, &above), SIZE_MAX);
}

/* Keeps the tokens whose surprise -ln p is nearest the expected one until their mass is tau of what
 * is left.  Both surprises hold the same ln of the sum, which cancels.  [sample.typical] */
static void cut_typical(cv_sampler *s)
{
    double tau = (double)s->set.typical, mass = 0.0, expected = 0.0, above;
    if (tau <= 0.0 || tau >= 1.0) return;
    for (size_t i = 0; i < s->n_kept; i++) {
        double w = (double)s->kept_weight[i];
        mass += w;
        expected += w * ((double)s->top - (double)s->scores[s->kept[i]]);
    }
    expected /= mass;
    for (size_t i = 0; i < s->n_kept; i++) {
        double surprise = (double)s->top - (double)s->scores[s->kept[i]];
        s->key[i] = bits_of_float(INFINITY) - bits_of_float((float)fabs(surprise - expected));
    }
    drop_below(s, select_key(s, s->kept_weight, tau * mass, &above), SIZE_MAX);
}

/* Of equal weights at the border the lowest ids stay. */
static void cut_top_k(cv_sampler *s)
{
    size_t k = s->set.top_k;
    if (k == 0 || k >= s->n_kept) return;
    double above;
    key_by_weight(s);
    uint32_t t = select_key(s, NULL, (double)k, &above);
    drop_below(s, t, k - (size_t)above);
}

/* p^(1/temperature), as e^((score - top) / temperature). */
static void temper(cv_sampler *s)
{
    float temperature = s->set.temperature;
    if (temperature == 1.0f) return;
    float scale = temperature > 1e-30f ? 1.0f / temperature : 1e30f;
    for (size_t i = 0; i < s->n_kept; i++)
        s->kept_weight[i] = s->scores[s->kept[i]];
    size_t padded = (s->n_kept + BLOCK - 1) / BLOCK * BLOCK;
    for (size_t i = s->n_kept; i < padded; i++)
        s->kept_weight[i] = -INFINITY;
    for (size_t i = 0; i < padded; i += BLOCK)
        exp_block(s->kept_weight + i, s->top, scale, s->kept_weight + i);
}

/* The whole of [sample.order] up to the draw; returns the sum of the kept weights. */
static double narrow(cv_sampler *s)
{
    weigh(s);
    cut_top_p(s);
    cut_typical(s);
    cut_top_k(s);
    temper(s);
    double sum = 0.0;
    for (size_t i = 0; i < s->n_kept; i++)
        sum += (double)s->kept_weight[i];
    return sum;
}

/* ---- Drawing --------------------------------------------------------------------------------- */

/* Decay first, then the new token: the order of the official generator.  [sample.penalty] */
static void count_token(cv_sampler *s, int32_t token)
{
    double decay = (double)s->set.penalty_decay;
    for (size_t i = 0; i < s->n_seen; i++) {
        double c = s->count[i] * decay;
        s->count[i] = c < COUNT_FLOOR ? 0.0 : c;
    }
    if (s->slot[token] < 0) {
        s->slot[token] = (int32_t)s->n_seen;
        s->seen[s->n_seen] = token;
        s->count[s->n_seen++] = 0.0;
    }
    if (!s->uncounted || !s->uncounted[token]) s->count[s->slot[token]] += 1.0;
}

static int32_t pick(cv_sampler *s)
{
    double left = narrow(s) * cv_rng_uniform(&s->rng);
    int32_t token = -1;
    for (size_t i = 0; i < s->n_kept; i++) {
        double w = (double)s->kept_weight[i];
        if (w <= 0.0) continue;
        token = s->kept[i];
        left -= w;
        if (left < 0.0) break;
    }
    return token; /* the last one, should rounding leave a trace */
}

int32_t cv_sampler_draw(cv_sampler *s, const float *logits)
{
    if (!load_scores(s, logits)) return -1;
    int32_t token = s->set.temperature == 0.0f ? lowest_top(s) : pick(s);
    if (s->penalises) count_token(s, token);
    return token;
}

void cv_sampler_distribution(cv_sampler *s, const float *logits, double *p)
{
    for (size_t i = 0; i < s->n_vocab; i++)
        p[i] = 0.0;
    if (!load_scores(s, logits)) return;
    if (s->set.temperature == 0.0f) {
        p[lowest_top(s)] = 1.0;
        return;
    }
    double sum = narrow(s);
    for (size_t i = 0; i < s->n_kept; i++)
        p[s->kept[i]] = (double)s->kept_weight[i] / sum;
}
