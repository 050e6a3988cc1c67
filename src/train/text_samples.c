/* text_samples.c - where the samples of a training step begin, and their tokens.
 *
 * Each offset is a function of its number: nothing has to be saved to go on with a run, and any
 * process can compute the rows that are its own. */
#include <math.h>
#include <string.h>

#include "train/text_data.h"

__extension__ typedef unsigned __int128 wide;

static uint64_t multiply_mod(uint64_t a, uint64_t b, uint64_t m)
{
    return (uint64_t)((wide)a * b % m);
}

/* ---- the official order --------------------------------------------------------------------- */

static uint64_t power_mod(uint64_t base, uint64_t exponent, uint64_t m)
{
    uint64_t result = 1 % m;
    for (base %= m; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result = multiply_mod(result, base, m);
        base = multiply_mod(base, base, m);
    }
    return result;
}

/* Does `base` show that the odd n = odd 2^twos + 1 is composite?  (Miller and Rabin) */
static bool is_witness(uint64_t base, uint64_t n, uint64_t odd, unsigned twos)
{
    uint64_t x = power_mod(base, odd, n);
    if (x == 1 || x == n - 1) return false;
    for (unsigned i = 1; i < twos; i++) {
        x = multiply_mod(x, x, n);
        if (x == n - 1) return false;
    }
    return true;
}

/* These bases leave no doubt below 2^64. */
static bool is_prime(uint64_t n)
{
    static const uint64_t bases[] = { 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37 };
    const size_t n_bases = sizeof bases / sizeof bases[0];
    if (n < 2) return false;
    for (size_t i = 0; i < n_bases; i++)
        if (n % bases[i] == 0) return n == bases[i];
    uint64_t odd = n - 1;
    unsigned twos = 0;
    for (; odd % 2 == 0; odd /= 2)
        twos++;
    for (size_t i = 0; i < n_bases; i++)
        if (is_witness(bases[i], n, odd, twos)) return false;
    return true;
}

uint64_t cv_magic_prime(uint64_t tokens, size_t T)
{
    uint64_t n = tokens / T;
    for (n = n > 0 ? n - 1 : 0; n > 0; n--)
        if (n % 3 == 2 && is_prime(n)) return n;
    return 0;
}

/* Cubing visits every remainder once where p = 3 n + 2; the factor spreads neighbours. */
static uint64_t magic_window(const cv_sample_plan *s, uint64_t number)
{
    const uint64_t p = s->prime, x = (number + 1) % p;
    const uint64_t cube = multiply_mod(multiply_mod(x, x, p), x, p);
    return multiply_mod(s->factor % p, cube, p);
}

/* ---- chance --------------------------------------------------------------------------------- */

/* Spreads x over all bits (the finish of splitmix64). */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

/* The upper half of a product: evenly below n, but for one part in 2^64. */
static uint64_t random_window(const cv_sample_plan *s, uint64_t step, uint64_t row)
{
    const uint64_t chance = mix(mix(mix(s->seed) ^ step) ^ row);
    return (uint64_t)((wide)chance * s->windows >> 64);
}

/* ---- plans ---------------------------------------------------------------------------------- */

static corvid_status too_short(const cv_sample_plan *s, uint64_t needed, corvid_error *err)
{
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "the text has %llu tokens, expected at least %llu for samples of %zu; give more "
                   "text, or take shorter samples",
                   (unsigned long long)(s->range.end - s->range.begin), (unsigned long long)needed,
                   s->T);
}

corvid_status cv_sample_plan_init(cv_sample_plan *s, cv_token_range range, cv_sample_order order,
                                  size_t T, size_t rows, uint64_t seed, corvid_error *err)
{
    *s = (cv_sample_plan){ .range = range, .order = order, .T = T, .rows = rows, .seed = seed };
    if (T == 0 || rows == 0 || T > INT32_MAX || range.begin > range.end)
        return cv_fail(err, CORVID_E_ARGUMENT, "samples of %zu tokens, %zu in a step", T, rows);
    const uint64_t n = range.end - range.begin;
    switch (order) {
    case CV_SAMPLES_RANDOM:
        if (n < T + 1) return too_short(s, T + 1, err);
        s->windows = n - T;
        return CORVID_OK;
    case CV_SAMPLES_MAGIC:
        s->prime = s->windows = cv_magic_prime(n, T);
        if (s->prime == 0) return too_short(s, 3 * (uint64_t)T, err);
        s->factor = (uint64_t)((double)s->prime * ((sqrt(5.0) - 1.0) / 2.0));
        return CORVID_OK;
    case CV_SAMPLES_SEQUENTIAL:
        if (n < 2) return too_short(s, 2, err);
        s->windows = (n - 2) / T + 1;
        return CORVID_OK;
    }
    return cv_fail(err, CORVID_E_INTERNAL, "samples of order %d", (int)order);
}

uint64_t cv_sample_offset(const cv_sample_plan *s, uint64_t step, size_t row)
{
    const uint64_t number = step * s->rows + row;
    if (s->order == CV_SAMPLES_RANDOM) return s->range.begin + random_window(s, step, row);
    if (s->order == CV_SAMPLES_MAGIC) return s->range.begin + magic_window(s, number) * s->T;
    return number < s->windows ? s->range.begin + number * s->T : s->range.end;
}

/* One sample; what the range no longer has is filled up. */
static corvid_status fill_row(const cv_text_data *data, const cv_sample_plan *s, uint64_t offset,
                              int32_t *tokens, int32_t *targets, corvid_error *err)
{
    const uint64_t left = s->range.end - offset; /* tokens, the last of which is only a target */
    const size_t n = left == 0 ? 0 : left - 1 < s->T ? (size_t)(left - 1) : s->T;
    if (n > 0) {
        CV_TRY(cv_token_cache_read(&data->cache, offset, 1, tokens, err));
        CV_TRY(cv_token_cache_read(&data->cache, offset + 1, n, targets, err));
        memcpy(tokens + 1, targets, (n - 1) * sizeof *tokens);
    }
    for (size_t t = n; t < s->T; t++) {
        tokens[t] = CV_TOKEN_SEPARATOR;
        targets[t] = -1;
    }
    return CORVID_OK;
}

corvid_status cv_text_batch(const cv_text_data *data, const cv_sample_plan *s, uint64_t step,
                            size_t first_row, size_t B, int32_t *tokens, int32_t *targets,
                            corvid_error *err)
{
    for (size_t b = 0; b < B; b++) {
        const uint64_t offset = cv_sample_offset(s, step, first_row + b);
        CV_TRY(fill_row(data, s, offset, tokens + b * s->T, targets + b * s->T, err));
    }
    return CORVID_OK;
}
