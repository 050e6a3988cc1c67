/* test_schedule.c - learning rates against the official programs' arithmetic, which counts tokens,
 * iterations or updates, and at points that are known by heart.  [train.cosine] [train.warmup] */
#include <math.h>

#include "support.h"
#include "train/schedule.h"

static const double PI = 3.14159265358979323846;

static void assert_close(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * fabs(want)))
        fail_msg("learning rate %.17g, expected %.17g", got, want);
}

/* ---- RWKV ------------------------------------------------------------------------------------ */

/* As the trainers have it: in tokens. */
static double by_tokens(double first, double last, double E, double per_step, double w, double from,
                        double step)
{
    const double warm = w * per_step, f = last / first;
    const double p = fmin(1.0, fmax(0.0, (step * per_step - warm) / (fabs(E) - warm)));
    const double cosine = first * ((0.5 + f / 2.0) + (0.5 - f / 2.0) * cos(PI * p));
    const double lr = E > 0.0 ? cosine : 0.5 * (cosine + first * exp(log(f) * p));
    return step < w ? lr * (from + (1.0 - from) * step / w) : lr;
}

static void rwkv_by_tokens(void **state)
{
    (void)state;
    static const struct {
        double first, last;
        int64_t tokens;
        uint64_t per_step, warm;
        double from;
    } cases[] = {
        { 6e-4, 6e-5, 1498226207, 512 * 16, 10, CV_WARM_FROM_V7 }, /* minipile */
        { 8e-4, 3e-5, 332115325534, 4096 * 240, 20, CV_WARM_FROM_V7 },
        { 3e-4, 1e-5, 1000003, 1024, 50, CV_WARM_FROM_V4 },
        { 1e-5, 1e-5, 100000, 64, 0, CV_WARM_FROM_V4 },
        { 6e-4, 1e-5, -5000000, 8192, 30, CV_WARM_FROM_V7 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const cv_schedule s = cv_schedule_rwkv(cases[i].first, cases[i].last, cases[i].tokens,
                                               cases[i].per_step, cases[i].warm, cases[i].from);
        const uint64_t end = (uint64_t)(s.end * 1.1), stride = end / 997 + 1;
        for (uint64_t step = 0; step < end; step += step < 100 ? 1 : stride)
            assert_close(cv_schedule_at(&s, step),
                         by_tokens(cases[i].first, cases[i].last, (double)cases[i].tokens,
                                   (double)cases[i].per_step, (double)cases[i].warm, cases[i].from,
                                   (double)step));
    }
}

static void rwkv_landmarks(void **state)
{
    (void)state;
    const cv_schedule s = cv_schedule_rwkv(6e-4, 6e-5, 1010 * 100, 100, 10, CV_WARM_FROM_V7);
    assert_close(cv_schedule_at(&s, 0), 6e-6);
    assert_close(cv_schedule_at(&s, 5), 6e-4 * 0.505);
    assert_close(cv_schedule_at(&s, 10), 6e-4);
    assert_close(cv_schedule_at(&s, 510), 3.3e-4);
    assert_close(cv_schedule_at(&s, 1010), 6e-5);
    assert_close(cv_schedule_at(&s, 9999), 6e-5);
    assert_false(cv_schedule_over(&s, 1009));
    assert_true(cv_schedule_over(&s, 1010));
    const cv_schedule old = cv_schedule_rwkv(6e-4, 6e-5, 1010 * 100, 100, 10, CV_WARM_FROM_V4);
    assert_close(cv_schedule_at(&old, 0), 1.2e-4);

    const cv_schedule constant = cv_schedule_rwkv(1e-5, 0.0, 0, 100, 4, CV_WARM_FROM_V4);
    assert_close(cv_schedule_at(&constant, 2), 0.6e-5);
    assert_close(cv_schedule_at(&constant, 1000000), 1e-5);
    assert_false(cv_schedule_over(&constant, UINT64_MAX));
}

/* ---- Vision ---------------------------------------------------------------------------------- */

static void vrwkv_by_iterations(void **state)
{
    (void)state;
    const uint64_t N = 3000, warm = 200;
    const double lr = 1e-3, least = 1e-5;
    const cv_schedule s = cv_schedule_vrwkv(lr, N, warm);
    for (uint64_t i = 0; i <= N; i++) {
        double want = least + 0.5 * (lr - least) * (1.0 + cos(PI * (double)i / (double)N));
        if (i < warm) want *= 1.0 - (1.0 - (double)i / (double)warm) * (1.0 - 1e-3);
        assert_close(cv_schedule_at(&s, i), want);
    }
    assert_close(cv_schedule_at(&s, 0), 1e-6);
    assert_close(cv_schedule_at(&s, N), 1e-5);
}

static void vrwkv_l_by_updates(void **state)
{
    (void)state;
    const uint64_t total = 2500, warm = 250;
    const double lr = 1e-5, least = 1e-7, begin = 1e-8;
    const cv_schedule s = cv_schedule_vrwkv_l(lr, least, begin, total, warm);
    for (uint64_t t = 0; t <= total; t++) {
        const double rising = begin + (double)t * (lr - begin) / (double)warm;
        const double falling =
            least + 0.5 * (lr - least) * (1.0 + cos(PI * (double)t / (double)total));
        assert_close(cv_schedule_at(&s, t), t < warm ? rising : falling);
    }
    assert_close(cv_schedule_at(&s, 0), 1e-8);
}

/* ---- Any other -------------------------------------------------------------------------------- */

static void curves(void **state)
{
    (void)state;
    cv_schedule s = { .curve = CV_RATE_LINEAR, .first = 2.0, .last = 1.0, .end = 10.0 };
    assert_close(cv_schedule_at(&s, 0), 2.0);
    assert_close(cv_schedule_at(&s, 5), 1.5);
    s.curve = CV_RATE_EXPONENTIAL;
    assert_close(cv_schedule_at(&s, 5), sqrt(2.0));
    s.last = 0.0; /* linear then */
    assert_close(cv_schedule_at(&s, 5), 1.0);
    assert_true(cv_schedule_at(&s, 10) == 0.0);
    s.curve = CV_RATE_CONSTANT;
    assert_close(cv_schedule_at(&s, 10), 2.0);
}

/* A warm-up that is longer than the budget leaves no curve, and divides by nothing. */
static void warm_up_without_end(void **state)
{
    (void)state;
    const cv_schedule s = cv_schedule_rwkv(1.0, 0.1, 1000, 100, 20, CV_WARM_FROM_V7);
    assert_close(cv_schedule_at(&s, 5), 0.01 + 0.99 * 0.25);
    assert_true(cv_schedule_progress(&s, 9) == 0.0 && cv_schedule_progress(&s, 10) == 1.0);
    const cv_schedule nothing = { .curve = CV_RATE_COSINE, .first = 1.0 };
    assert_close(cv_schedule_at(&nothing, 3), 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rwkv_by_tokens),
        cmocka_unit_test(rwkv_landmarks),
        cmocka_unit_test(vrwkv_by_iterations),
        cmocka_unit_test(vrwkv_l_by_updates),
        cmocka_unit_test(curves),
        cmocka_unit_test(warm_up_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
