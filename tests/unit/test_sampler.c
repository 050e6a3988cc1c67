/* test_sampler.c - the sampler against a slow and obvious one: doubles, a full sort for every cut.
 *
 * The reference tells when a case hangs on rounding (a cumulative sum within 1e-6 of its limit, two
 * scores that differ in the seventh digit at a border); those cases are left out and counted.  The
 * scores are multiples of 1/64, so that ties are frequent and near-ties are not. */
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sampler.h"

#define NOTHING (-(double)INFINITY)

/* ---- The reference --------------------------------------------------------------------------- */

typedef struct reference {
    size_t n;
    double *p;           /* [n] the distribution */
    double *rank;        /* [n] what a cut sorts by */
    size_t *order;       /* [n] */
    double *count;       /* [n] decayed counts */
    unsigned char *seen; /* [n] */
    bool unclear;        /* the last case hangs on rounding */
} reference;

static const double *sorting; /* the rank that by_rank compares */

static int by_rank(const void *left, const void *right)
{
    size_t a = *(const size_t *)left, b = *(const size_t *)right;
    if (sorting[a] != sorting[b]) return sorting[a] > sorting[b] ? -1 : 1;
    return a < b ? -1 : a > b;
}

static void reference_sort(reference *ref)
{
    for (size_t i = 0; i < ref->n; i++)
        ref->order[i] = i;
    sorting = ref->rank;
    qsort(ref->order, ref->n, sizeof *ref->order, by_rank);
}

static bool nearly(double a, double b)
{
    return a != b && fabs(a - b) < 1e-6 * fmax(1e-3, fmax(fabs(a), fabs(b)));
}

static void normalise(reference *ref)
{
    double sum = 0.0;
    for (size_t i = 0; i < ref->n; i++)
        sum += ref->p[i];
    for (size_t i = 0; i < ref->n; i++)
        ref->p[i] /= sum;
}

/* Zeroes what ranks below the entry at which the sum of p reaches mass; ties with it stay. */
static void reference_cut(reference *ref, double mass)
{
    reference_sort(ref);
    double sum = 0.0;
    size_t last = ref->n - 1;
    for (size_t i = 0; i < ref->n; i++) {
        bool border = i + 1 < ref->n && ref->rank[ref->order[i]] != ref->rank[ref->order[i + 1]];
        sum += ref->p[ref->order[i]];
        if (border && mass > 0.0 && fabs(sum - mass) < 1e-6) ref->unclear = true;
        if (sum >= mass) {
            last = i;
            break;
        }
    }
    double cutoff = ref->rank[ref->order[last]];
    for (size_t i = 0; i < ref->n; i++) {
        if (nearly(ref->rank[i], cutoff)) ref->unclear = true;
        if (ref->rank[i] < cutoff) ref->p[i] = 0.0;
    }
}

static void reference_typical(reference *ref, double tau)
{
    double entropy = 0.0;
    normalise(ref);
    for (size_t i = 0; i < ref->n; i++)
        if (ref->p[i] > 0.0) entropy -= ref->p[i] * log(ref->p[i]);
    for (size_t i = 0; i < ref->n; i++)
        ref->rank[i] = ref->p[i] > 0.0 ? -fabs(-log(ref->p[i]) - entropy) : NOTHING;
    /* Equal p give equal ranks; those that differ only by rounding do not count as near. */
    reference_cut(ref, tau);
}

static void reference_top_k(reference *ref, size_t k)
{
    memcpy(ref->rank, ref->p, ref->n * sizeof *ref->rank);
    reference_sort(ref);
    if (k >= ref->n) return;
    if (nearly(ref->p[ref->order[k - 1]], ref->p[ref->order[k]])) ref->unclear = true;
    for (size_t i = k; i < ref->n; i++)
        ref->p[ref->order[i]] = 0.0;
}

/* Softmax of the scores after bias and penalties; false when there is nothing to draw. */
static bool reference_softmax(reference *ref, const float *logits, const cv_sampler_settings *set)
{
    double top = NOTHING;
    for (size_t i = 0; i < ref->n; i++)
        ref->p[i] = (double)logits[i];
    for (size_t i = 0; i < set->n_bias; i++)
        ref->p[set->bias_tokens[i]] += (double)set->bias[i];
    for (size_t i = 0; i < ref->n; i++) {
        if (ref->seen[i])
            ref->p[i] -= (double)set->presence + ref->count[i] * (double)set->frequency;
        top = fmax(top, ref->p[i]);
    }
    if (top == NOTHING) return false;
    for (size_t i = 0; i < ref->n; i++)
        ref->p[i] = exp(ref->p[i] - top);
    return true;
}

static void reference_greedy(reference *ref)
{
    size_t best = 0;
    for (size_t i = 0; i < ref->n; i++)
        if (ref->p[i] > ref->p[best]) best = i;
    for (size_t i = 0; i < ref->n; i++) {
        if (nearly(ref->p[i], 1.0)) ref->unclear = true;
        ref->p[i] = i == best ? 1.0 : 0.0;
    }
}

/* Fills ref->p; all zero when there is nothing to draw. */
static void reference_distribution(reference *ref, const float *logits,
                                   const cv_sampler_settings *set)
{
    ref->unclear = false;
    if (!reference_softmax(ref, logits, set)) {
        memset(ref->p, 0, ref->n * sizeof *ref->p);
        return;
    }
    if (set->temperature == 0.0f) {
        reference_greedy(ref);
        return;
    }
    for (size_t i = 0; i < ref->n; i++)
        if (nearly(ref->p[i], (double)set->min_p)) ref->unclear = true;
    double *keep = malloc(ref->n * sizeof *keep);
    for (size_t i = 0; i < ref->n; i++)
        keep[i] = ref->p[i] < (double)set->min_p ? 0.0 : 1.0;
    normalise(ref);
    memcpy(ref->rank, ref->p, ref->n * sizeof *ref->rank);
    if (set->top_p < 1.0f) reference_cut(ref, (double)set->top_p);
    for (size_t i = 0; i < ref->n; i++)
        ref->p[i] *= keep[i];
    free(keep);
    if (set->typical > 0.0f && set->typical < 1.0f) reference_typical(ref, (double)set->typical);
    if (set->top_k > 0) reference_top_k(ref, set->top_k);
    normalise(ref);
    for (size_t i = 0; i < ref->n; i++)
        if (ref->p[i] > 0.0) ref->p[i] = pow(ref->p[i], 1.0 / (double)set->temperature);
    normalise(ref);
}

static void reference_count(reference *ref, int32_t token, const cv_sampler_settings *set)
{
    for (size_t i = 0; i < ref->n; i++)
        ref->count[i] *= (double)set->penalty_decay;
    ref->seen[token] = 1;
    if (!set->uncounted || !set->uncounted[token]) ref->count[token] += 1.0;
}

static reference reference_new(size_t n)
{
    return (reference){ .n = n,
                        .p = calloc(n, sizeof(double)),
                        .rank = calloc(n, sizeof(double)),
                        .order = calloc(n, sizeof(size_t)),
                        .count = calloc(n, sizeof(double)),
                        .seen = calloc(n, 1) };
}

static void reference_free(reference *ref)
{
    free(ref->p);
    free(ref->rank);
    free(ref->order);
    free(ref->count);
    free(ref->seen);
}

/* ---- Random cases ---------------------------------------------------------------------------- */

#define PICK(rng, ...)                            \
    pick_one(rng, (const float[]){ __VA_ARGS__ }, \
             sizeof((const float[]){ __VA_ARGS__ }) / sizeof(float))

static float pick_one(cv_rng *rng, const float *from, size_t n)
{
    return from[cv_rng_next(rng) % n];
}

static void random_logits(cv_rng *rng, float *logits, size_t n)
{
    float scale = PICK(rng, 0.0f, 0.3f, 1.0f, 3.0f, 6.0f), grid = PICK(rng, 1.0f, 4.0f, 64.0f);
    bool holes = cv_rng_next(rng) % 4 == 0;
    for (size_t i = 0; i < n; i++) {
        logits[i] = roundf(cv_rng_normal(rng) * scale * grid) / grid;
        if (holes && cv_rng_next(rng) % 3 == 0) logits[i] = -INFINITY;
    }
}

typedef struct random_case {
    cv_sampler_settings set;
    int32_t bias_tokens[3];
    float bias[3];
    unsigned char *uncounted;
} random_case;

static void random_settings(cv_rng *rng, random_case *c, size_t n)
{
    c->set = (cv_sampler_settings){
        .temperature = PICK(rng, 1.0f, 1.0f, 0.7f, 1.5f, 0.2f, 3.0f, 0.0f),
        .top_p = PICK(rng, 0.0f, 0.3f, 0.5f, 0.85f, 0.99f, 1.0f, 1.5f),
        .min_p = PICK(rng, 0.0f, 0.0f, 0.02f, 0.4f, 1.0f),
        .typical = PICK(rng, 0.0f, 0.0f, 0.2f, 0.5f, 0.95f, 1.0f),
        .top_k = (size_t)PICK(rng, 0.0f, 0.0f, 1.0f, 2.0f, 7.0f, 40.0f, 100000.0f),
        .presence = PICK(rng, 0.0f, 0.0f, 0.5f, 0.3f, -0.25f),
        .frequency = PICK(rng, 0.0f, 0.0f, 0.5f, 0.2f),
        .penalty_decay = PICK(rng, 1.0f, 0.996f, 0.5f, 0.0f),
        .bias_tokens = c->bias_tokens,
        .bias = c->bias,
        .n_bias = cv_rng_next(rng) % 4,
        .seed = cv_rng_next(rng),
    };
    for (size_t i = 0; i < 3; i++) {
        c->bias_tokens[i] = (int32_t)(cv_rng_next(rng) % n);
        c->bias[i] = PICK(rng, 1.0f, -2.0f, 0.5f, -INFINITY);
    }
    if (cv_rng_next(rng) % 2) return;
    c->set.uncounted = c->uncounted;
    for (size_t i = 0; i < n; i++)
        c->uncounted[i] = cv_rng_next(rng) % 3 == 0;
}

static void assert_distribution(const reference *ref, const double *p, size_t number)
{
    for (size_t i = 0; i < ref->n; i++)
        if (!(fabs(p[i] - ref->p[i]) <= 3e-5 * ref->p[i] + 1e-12))
            fail_msg("case %zu, n %zu: p[%zu] is %.9g, the reference has %.9g", number, ref->n, i,
                     p[i], ref->p[i]);
}

/* A few draws, the distribution before each compared.  Returns how many were compared. */
static size_t run_case(cv_rng *rng, size_t n, size_t number, size_t n_steps)
{
    random_case c = { .uncounted = calloc(n, 1) };
    random_settings(rng, &c, n);
    float *logits = malloc(n * sizeof *logits);
    double *p = malloc(n * sizeof *p);
    reference ref = reference_new(n);
    cv_sampler *sampler;
    corvid_error err;
    size_t compared = 0;
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, n, &c.set, &sampler, &err), &err);
    for (size_t step = 0; step < n_steps; step++) {
        random_logits(rng, logits, n);
        reference_distribution(&ref, logits, &c.set);
        cv_sampler_distribution(sampler, logits, p);
        int32_t token = cv_sampler_draw(sampler, logits);
        bool any = false;
        for (size_t i = 0; i < n; i++)
            any |= ref.p[i] > 0.0;
        assert_int_equal(any, token >= 0);
        if (!ref.unclear) {
            assert_distribution(&ref, p, number);
            if (any) assert_true(ref.p[token] > 0.0);
            compared++;
        }
        if (any) reference_count(&ref, token, &c.set);
    }
    cv_sampler_free(sampler);
    reference_free(&ref);
    free(p);
    free(logits);
    free(c.uncounted);
    return compared;
}

static void distribution_equals_the_sorted_one(void **state)
{
    (void)state;
    cv_rng rng;
    size_t compared = 0, total = 0;
    cv_rng_seed(&rng, 20);
    for (size_t i = 0; i < 4000; i++) {
        static const size_t sizes[] = { 1, 2, 3, 5, 16, 17, 50, 127, 128, 129, 300 };
        size_t n = sizes[cv_rng_next(&rng) % (sizeof sizes / sizeof *sizes)];
        compared += run_case(&rng, n, i, 5);
        total += 5;
    }
    print_message("%zu of %zu distributions compared\n", compared, total);
    assert_true(compared * 100 > total * 95);
}

static void distribution_of_a_whole_vocabulary(void **state)
{
    (void)state;
    cv_rng rng;
    size_t compared = 0;
    cv_rng_seed(&rng, 21);
    for (size_t i = 0; i < 12; i++)
        compared += run_case(&rng, 65536, i, 2);
    assert_true(compared > 12);
}

/* ---- Draws ----------------------------------------------------------------------------------- */

static void chi_square(const cv_sampler_settings *set, size_t n, const float *logits)
{
    enum { DRAWS = 200000 };
    corvid_error err;
    cv_sampler *sampler;
    reference ref = reference_new(n);
    size_t *hits = calloc(n, sizeof *hits), cells = 0;
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, n, set, &sampler, &err), &err);
    reference_distribution(&ref, logits, set);
    for (size_t i = 0; i < DRAWS; i++)
        hits[cv_sampler_draw(sampler, logits)]++;

    double chi2 = 0.0, rare = 0.0, rare_hits = 0.0;
    for (size_t i = 0; i < n; i++) {
        double expected = ref.p[i] * DRAWS, got = (double)hits[i];
        if (expected == 0.0) assert_int_equal(hits[i], 0);
        if (expected < 10.0) {
            rare += expected;
            rare_hits += got;
            continue;
        }
        chi2 += (got - expected) * (got - expected) / expected;
        cells++;
    }
    if (rare >= 10.0) chi2 += (rare_hits - rare) * (rare_hits - rare) / rare;
    double freedom = (double)cells;
    assert_true(cells > 3);
    assert_true(chi2 < freedom + 4.0 * sqrt(2.0 * freedom));
    cv_sampler_free(sampler);
    reference_free(&ref);
    free(hits);
}

static void draws_follow_the_distribution(void **state)
{
    (void)state;
    float logits[300];
    cv_rng rng;
    cv_rng_seed(&rng, 3);
    for (size_t i = 0; i < 300; i++)
        logits[i] = roundf(cv_rng_normal(&rng) * 128.0f) / 64.0f;
    chi_square(&(cv_sampler_settings){ .temperature = 1, .top_p = 1, .seed = 7 }, 300, logits);
    chi_square(&(cv_sampler_settings){ .temperature = 0.6f, .top_p = 1, .seed = 8 }, 30, logits);
    chi_square(&(cv_sampler_settings){ .temperature = 2, .top_p = 0.7f, .seed = 9 }, 300, logits);
    chi_square(&(cv_sampler_settings){ .temperature = 1,
                                       .top_p = 0.9f,
                                       .typical = 0.8f,
                                       .top_k = 12,
                                       .min_p = 0.01f,
                                       .seed = 10 },
               300, logits);
}

static void a_seed_fixes_the_draws(void **state)
{
    (void)state;
    enum { N = 500 };
    float logits[64];
    int32_t first[N];
    size_t differ = 0;
    corvid_error err;
    cv_sampler *a, *b;
    cv_sampler_settings set = { .temperature = 1,
                                .top_p = 1,
                                .presence = 0.4f,
                                .frequency = 0.4f,
                                .penalty_decay = 0.9f,
                                .seed = 42 };
    for (size_t i = 0; i < 64; i++)
        logits[i] = (float)(i % 7) * 0.25f;
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, 64, &set, &a, &err), &err);
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, 64, &set, &b, &err), &err);
    for (size_t i = 0; i < N; i++) {
        first[i] = cv_sampler_draw(a, logits);
        assert_int_equal(cv_sampler_draw(b, logits), first[i]);
    }
    cv_sampler_reset(a, 42);
    cv_sampler_reset(b, 43);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(cv_sampler_draw(a, logits), first[i]);
        differ += cv_sampler_draw(b, logits) != first[i];
    }
    assert_true(differ > N / 2);
    cv_sampler_free(a);
    cv_sampler_free(b);
}

/* Looking at the distribution changes neither the counts nor the random sequence. */
static void looking_changes_nothing(void **state)
{
    (void)state;
    float logits[9] = { 0, 1, 0.5f, 0, 1, 0.25f, 0, 0, 1 };
    double p[9];
    corvid_error err;
    cv_sampler *a, *b;
    cv_sampler_settings set = {
        .temperature = 1, .top_p = 0.9f, .presence = 1.0f, .penalty_decay = 0.9f, .seed = 5
    };
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, 9, &set, &a, &err), &err);
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, 9, &set, &b, &err), &err);
    for (size_t i = 0; i < 200; i++) {
        cv_sampler_distribution(a, logits, p);
        assert_int_equal(cv_sampler_draw(a, logits), cv_sampler_draw(b, logits));
    }
    cv_sampler_free(a);
    cv_sampler_free(b);
}

static void zero_temperature_takes_the_lowest_of_the_best(void **state)
{
    (void)state;
    float logits[200];
    corvid_error err;
    cv_sampler *sampler;
    cv_sampler_settings set = { .temperature = 0, .top_p = 1 };
    for (size_t i = 0; i < 200; i++)
        logits[i] = i == 150 || i == 77 || i == 199 ? 3.0f : -1.0f;
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, 200, &set, &sampler, &err), &err);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(cv_sampler_draw(sampler, logits), 77);
    cv_sampler_free(sampler);
}

/* top_p 0 keeps the maximum with its ties; top_p 1 cuts nothing, however the sum is rounded. */
static void ends_of_top_p(void **state)
{
    (void)state;
    float logits[1000];
    double p[1000];
    corvid_error err;
    cv_sampler *sampler;
    cv_sampler_settings set = { .temperature = 1, .top_p = 0 };
    for (size_t i = 0; i < 1000; i++)
        logits[i] = i == 3 || i == 500 ? 2.0f : (float)(i % 10) * 0.1f;
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, 1000, &set, &sampler, &err), &err);
    cv_sampler_distribution(sampler, logits, p);
    for (size_t i = 0; i < 1000; i++)
        assert_true(p[i] == (i == 3 || i == 500 ? 0.5 : 0.0));
    cv_sampler_free(sampler);

    set.top_p = 1;
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, 1000, &set, &sampler, &err), &err);
    cv_sampler_distribution(sampler, logits, p);
    for (size_t i = 0; i < 1000; i++)
        assert_true(p[i] > 0.0);
    cv_sampler_free(sampler);
}

/* The weights are exactly 1, 1/2, 1/2: the first token alone reaches half of the mass. */
static void top_p_that_is_reached_exactly(void **state)
{
    (void)state;
    const float logits[3] = { 0.0f, -0.693147182f, -0.693147182f };
    double p[3];
    corvid_error err;
    cv_sampler *sampler;
    cv_sampler_settings set = { .temperature = 1, .top_p = 0.5f };
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, 3, &set, &sampler, &err), &err);
    cv_sampler_distribution(sampler, logits, p);
    assert_true(p[0] == 1.0 && p[1] == 0.0 && p[2] == 0.0);
    cv_sampler_free(sampler);
}

/* Half of the mass in one token, the other half spread evenly: a cut that believes the heavy tokens
 * to be enough, or the light ones to be too light, loses the tail. */
static void a_long_flat_tail(void **state)
{
    (void)state;
    enum { N = 3001 };
    static float logits[N];
    static double p[N];
    corvid_error err;
    cv_sampler *sampler;
    cv_sampler_settings set = { .temperature = 1, .top_p = 0.6f };
    for (size_t i = 0; i < N; i++)
        logits[i] = i == 1234 ? 0.0f : -8.0063675677f; /* ln(1 / 3000) */
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, N, &set, &sampler, &err), &err);
    cv_sampler_distribution(sampler, logits, p);
    for (size_t i = 0; i < N; i++)
        assert_true(fabs(p[i] - (i == 1234 ? 0.5 : 0.5 / 3000)) < 1e-6);
    cv_sampler_free(sampler);
}

/* ---- Penalties ------------------------------------------------------------------------------- */

/* Draws a given token by making it certain. */
static void force(cv_sampler *sampler, int32_t token)
{
    float logits[3] = { 0, 0, 0 };
    logits[token] = 1000.0f;
    assert_int_equal(cv_sampler_draw(sampler, logits), token);
}

/* With equal logits ln p differs exactly by the penalties: those of tokens 0, 1, 2. */
static void assert_penalties(cv_sampler *sampler, double a, double b, double c)
{
    const float logits[3] = { 0, 0, 0 };
    double p[3], norm = exp(-a) + exp(-b) + exp(-c);
    cv_sampler_distribution(sampler, logits, p);
    assert_true(fabs(p[0] - exp(-a) / norm) < 1e-6);
    assert_true(fabs(p[1] - exp(-b) / norm) < 1e-6);
    assert_true(fabs(p[2] - exp(-c) / norm) < 1e-6);
}

/* presence 0.5, frequency 0.25, decay 0.5; token 2 is one whose count stays 0.
 *
 *   drawn   counts after it     penalties 0.5 + 0.25 * count
 *     0     1      -    -       0.75      0       0
 *     1     0.5    1    -       0.625     0.75    0
 *     0     1.25   0.5  -       0.8125    0.625   0
 *     2     0.625  0.25 0       0.65625   0.5625  0.5
 *     2     0.3125 0.125 0      0.578125  0.53125 0.5    */
static void penalties_by_hand(void **state)
{
    (void)state;
    const unsigned char uncounted[3] = { 0, 0, 1 };
    corvid_error err;
    cv_sampler *sampler;
    cv_sampler_settings set = { .temperature = 1,
                                .top_p = 1,
                                .presence = 0.5f,
                                .frequency = 0.25f,
                                .penalty_decay = 0.5f,
                                .uncounted = uncounted };
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, 3, &set, &sampler, &err), &err);
    assert_penalties(sampler, 0, 0, 0);
    force(sampler, 0);
    assert_penalties(sampler, 0.75, 0, 0);
    force(sampler, 1);
    assert_penalties(sampler, 0.625, 0.75, 0);
    force(sampler, 0);
    assert_penalties(sampler, 0.8125, 0.625, 0);
    force(sampler, 2);
    assert_penalties(sampler, 0.65625, 0.5625, 0.5);
    force(sampler, 2);
    assert_penalties(sampler, 0.578125, 0.53125, 0.5);
    cv_sampler_reset(sampler, 1);
    assert_penalties(sampler, 0, 0, 0);
    cv_sampler_free(sampler);
}

static void bias_is_copied_and_bans(void **state)
{
    (void)state;
    int32_t tokens[2] = { 1, 0 };
    float bias[2] = { -INFINITY, 1.0f };
    unsigned char uncounted[3] = { 1, 1, 1 };
    const float logits[3] = { 0, 50, 0 };
    double p[3];
    corvid_error err;
    cv_sampler *sampler;
    cv_sampler_settings set = { .temperature = 1,
                                .top_p = 1,
                                .bias_tokens = tokens,
                                .bias = bias,
                                .n_bias = 2,
                                .uncounted = uncounted };
    ASSERT_OK(cv_sampler_new(&cv_libc_allocator, 3, &set, &sampler, &err), &err);
    memset(tokens, 0, sizeof tokens);
    memset(bias, 0, sizeof bias);
    memset(uncounted, 0, sizeof uncounted);
    cv_sampler_distribution(sampler, logits, p);
    assert_true(p[1] == 0.0);
    assert_true(fabs(log(p[0] / p[2]) - 1.0) < 1e-6);
    cv_sampler_free(sampler);
}

/* ---- What is refused ------------------------------------------------------------------------- */

static void logits_that_are_not_finite(void **state)
{
    (void)state;
    float logits[40];
    corvid_error err;
    cv_sampler *sampler;
    cv_sampler_settings set = { .temperature = 1, .top_p = 0.5f };
    for (int greedy = 0; greedy < 2; greedy++) {
        set.temperature = greedy ? 0.0f : 1.0f;
        ASSERT_OK(cv_sampler_new(&cv_libc_allocator, 40, &set, &sampler, &err), &err);
        for (size_t at = 0; at < 40; at++) {
            memset(logits, 0, sizeof logits);
            logits[at] = NAN;
            assert_int_equal(cv_sampler_draw(sampler, logits), -1);
            logits[at] = INFINITY;
            assert_int_equal(cv_sampler_draw(sampler, logits), -1);
            logits[at] = -INFINITY;
            int32_t token = cv_sampler_draw(sampler, logits);
            assert_true(token >= 0 && (size_t)token != at);
            for (size_t i = 0; i < 40; i++)
                logits[i] = i == at ? -3e38f : -INFINITY;
            assert_int_equal(cv_sampler_draw(sampler, logits), (int32_t)at);
        }
        for (size_t i = 0; i < 40; i++)
            logits[i] = -INFINITY;
        assert_int_equal(cv_sampler_draw(sampler, logits), -1);
        cv_sampler_free(sampler);
    }
}

static void refused(cv_sampler_settings set, size_t n_vocab, const char *name)
{
    corvid_error err = { CORVID_OK, "" };
    cv_sampler *sampler;
    assert_int_equal(cv_sampler_new(&cv_libc_allocator, n_vocab, &set, &sampler, &err),
                     CORVID_E_ARGUMENT);
    assert_null(sampler);
    assert_int_equal(err.status, CORVID_E_ARGUMENT);
    if (!strstr(err.text, name)) fail_msg("\"%s\" does not name %s", err.text, name);
    assert_int_equal(cv_sampler_new(&cv_libc_allocator, n_vocab, &set, &sampler, NULL),
                     CORVID_E_ARGUMENT);
}

#define REFUSE(field, ...)                                            \
    do {                                                              \
        const float values[] = { __VA_ARGS__, NAN, INFINITY };        \
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) { \
            cv_sampler_settings set = good;                           \
            set.field = values[i];                                    \
            refused(set, 10, #field);                                 \
        }                                                             \
    } while (0)

static void settings_out_of_range(void **state)
{
    (void)state;
    const cv_sampler_settings good = { .temperature = 1, .top_p = 0.5f, .penalty_decay = 0.996f };
    REFUSE(temperature, -0.001f, -INFINITY);
    REFUSE(top_p, -0.001f, -INFINITY);
    REFUSE(min_p, -0.001f, 1.001f);
    REFUSE(typical, -0.001f, 1.001f);
    REFUSE(presence, -INFINITY);
    REFUSE(frequency, -INFINITY);
    REFUSE(penalty_decay, -0.001f, 1.001f);
    refused(good, 0, "n_vocab");
    refused(good, SIZE_MAX, "n_vocab");

    int32_t token = 3;
    float bias = 1.0f;
    cv_sampler_settings set = good;
    set.n_bias = 1;
    refused(set, 10, "bias");
    set.bias_tokens = &token;
    refused(set, 10, "bias");
    set.bias = &bias;
    refused(set, 3, "bias");
    token = -1;
    refused(set, 10, "bias");
    token = 3;
    bias = NAN;
    refused(set, 10, "bias");
    bias = INFINITY;
    refused(set, 10, "bias");
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static void every_allocation_may_fail(void **state)
{
    (void)state;
    int32_t token = 3;
    float bias = 1.0f;
    unsigned char uncounted[100] = { 0 };
    cv_sampler_settings set = { .temperature = 1,
                                .top_p = 0.5f,
                                .presence = 0.5f,
                                .bias_tokens = &token,
                                .bias = &bias,
                                .n_bias = 1,
                                .uncounted = uncounted };
    size_t failures = 0;
    for (size_t nth = 1;; nth++) {
        test_allocator a;
        corvid_error err;
        cv_sampler *sampler;
        test_allocator_init(&a);
        a.fail_at = nth;
        corvid_status status = cv_sampler_new(&a.api, 100, &set, &sampler, &err);
        if (status == CORVID_OK) {
            cv_sampler_free(sampler);
            assert_int_equal(a.live, 0);
            break;
        }
        assert_int_equal(status, CORVID_E_MEMORY);
        assert_null(sampler);
        assert_int_equal(a.live, 0);
        failures++;
    }
    assert_true(failures > 5);
}

static void draws_allocate_nothing(void **state)
{
    (void)state;
    float logits[100] = { 0 };
    test_allocator a;
    corvid_error err;
    cv_sampler *sampler;
    cv_sampler_settings set = { .temperature = 0.7f,
                                .top_p = 0.9f,
                                .typical = 0.9f,
                                .top_k = 50,
                                .presence = 0.5f,
                                .penalty_decay = 0.99f };
    test_allocator_init(&a);
    ASSERT_OK(cv_sampler_new(&a.api, 100, &set, &sampler, &err), &err);
    size_t calls = a.calls;
    for (size_t i = 0; i < 500; i++)
        assert_true(cv_sampler_draw(sampler, logits) >= 0);
    assert_int_equal(a.calls, calls);
    cv_sampler_free(sampler);
    cv_sampler_free(NULL);
    assert_int_equal(a.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distribution_equals_the_sorted_one),
        cmocka_unit_test(distribution_of_a_whole_vocabulary),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(a_seed_fixes_the_draws),
        cmocka_unit_test(looking_changes_nothing),
        cmocka_unit_test(zero_temperature_takes_the_lowest_of_the_best),
        cmocka_unit_test(ends_of_top_p),
        cmocka_unit_test(top_p_that_is_reached_exactly),
        cmocka_unit_test(a_long_flat_tail),
        cmocka_unit_test(penalties_by_hand),
        cmocka_unit_test(bias_is_copied_and_bans),
        cmocka_unit_test(logits_that_are_not_finite),
        cmocka_unit_test(settings_out_of_range),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(draws_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
