/* test_logit_row.c - walks over rows of logits against plain loops, at every length around the lanes and
 * the parts that they are cut into. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "ops/logit_row.h"
#include "support.h"

enum { MOST = 1100, CASES = 40 };

static void fill(cv_rng *rng, size_t n, float *x)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(cv_rng_uniform(rng) * 40.0 - 20.0);
}

static size_t plain_best(size_t n, const float *x)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static void test_best(void **state)
{
    (void)state;
    float x[MOST];
    cv_rng rng;
    cv_rng_seed(&rng, 5);
    for (size_t n = 1; n <= MOST; n += n < 40 ? 1 : 53)
        for (size_t i = 0; i < CASES; i++) {
            fill(&rng, n, x);
            assert_int_equal(cv_best_logit(n, x), plain_best(n, x));
            x[(size_t)(cv_rng_uniform(&rng) * (double)n)] = x[plain_best(n, x)]; /* a tie */
            assert_int_equal(cv_best_logit(n, x), plain_best(n, x));
        }
}

/* Masked tokens are -infinity; what is no number is passed over, and never read beyond. */
static void test_best_of_odd_ones(void **state)
{
    (void)state;
    float x[MOST];
    for (size_t n = 1; n <= MOST; n += n < 40 ? 1 : 53) {
        for (size_t i = 0; i < n; i++)
            x[i] = -INFINITY;
        assert_int_equal(cv_best_logit(n, x), 0);
        x[n - 1] = -3.0f;
        assert_int_equal(cv_best_logit(n, x), n - 1);
        for (size_t i = 0; i + 1 < n; i++)
            x[i] = NAN;
        assert_int_equal(cv_best_logit(n, x), n - 1);
        x[n - 1] = NAN;
        assert_true(cv_best_logit(n, x) < n);
    }
}

static void test_sums(void **state)
{
    (void)state;
    float x[MOST], below[MOST], scaled[MOST];
    cv_rng rng;
    cv_rng_seed(&rng, 6);
    for (size_t n = 1; n <= MOST; n += n < 40 ? 1 : 53) {
        fill(&rng, n, x);
        double sum = 0.0, all = 0.0;
        for (size_t i = 0; i < n; i++) {
            sum += (double)x[i];
            all += fabs((double)x[i]);
        }
        assert_true(fabs(cv_sum_of(n, x) - sum) <= 1e-14 * all);
        cv_below(n, x, x[0], below);
        memcpy(scaled, x, n * sizeof *x);
        cv_scale_down(n, 0.25f, 3.0f, scaled);
        for (size_t i = 0; i < n; i++) {
            assert_true(below[i] == x[i] - x[0]);
            assert_true(scaled[i] == x[i] * 0.25f - 3.0f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best),
        cmocka_unit_test(test_best_of_odd_ones),
        cmocka_unit_test(test_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
