/* test_aft_is_wkv.c - without biases, the mean of attention-free transformers is the WKV of RWKV-4 that
 * neither decays nor prefers its own token: w = u = 0 [v4.wkv].  Both ops, in f32 and with every table,
 * against each other and against the sums themselves in double; forward and back.
 *
 * w is what the op takes, -exp(time_decay): 0 means that e^w = 1 of the past stays. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "ops/aft_mean.h"
#include "ops/heads.h"
#include "support.h"

enum { MOST_T = 131, MOST_A = 83, LONGEST = 140, MOST_SEQUENCES = 4, MEMBERS = 3 };
enum { ROWS = MOST_T * MOST_A, RECORDS = 4096 };

/* Of the largest number of an array, or of SMALL: the gradient of a lone key is nothing. */
#define ALLOWED 1e-5
#define SMALL   0.1

/* What goes in, and what comes out: y, and the gradients of k and v for those of y. */
typedef struct shape {
    size_t A, n;
    size_t lengths[MOST_SEQUENCES];
    double keys; /* they lie within this */
} shape;

static size_t tokens_of(const shape *s)
{
    size_t T = 0;
    for (size_t i = 0; i < s->n; i++)
        T += s->lengths[i];
    return T;
}

static float k[ROWS], v[ROWS], dy[ROWS];

typedef struct outcome {
    float y[ROWS], dk[ROWS], dv[ROWS];
} outcome;

static void draw(const shape *s, uint64_t seed)
{
    cv_rng rng;
    const size_t n = tokens_of(s) * s->A;
    cv_rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        k[i] = (float)(s->keys * (2.0 * cv_rng_uniform(&rng) - 1.0));
        v[i] = cv_rng_normal(&rng);
        dy[i] = cv_rng_normal(&rng);
    }
}

/* ---- The sums themselves ----------------------------------------------------------------------- */

/* One channel of a sequence of n tokens, A apart.
 *     y_t = N_t / D_t,  N_t = sum over i <= t of e^k_i v_i,  D_t = sum of e^k_i
 *     dv_i = e^k_i  sum over t >= i of dy_t / D_t
 *     dk_i = e^k_i  sum over t >= i of dy_t (v_i - y_t) / D_t */
static void direct_channel(size_t at, size_t n, size_t A, outcome *out)
{
    double N = 0.0, D = 0.0, share = 0.0, pull = 0.0, y[MOST_T], all[MOST_T];
    for (size_t t = 0; t < n; t++) {
        const double e = exp((double)k[at + t * A]);
        N += e * (double)v[at + t * A];
        D += e;
        y[t] = N / D;
        all[t] = D;
        out->y[at + t * A] = (float)y[t];
    }
    for (size_t t = n; t-- > 0;) {
        const size_t i = at + t * A;
        const double e = exp((double)k[i]);
        share += (double)dy[i] / all[t];
        pull += (double)dy[i] * y[t] / all[t];
        out->dv[i] = (float)(e * share);
        out->dk[i] = (float)(e * (share * (double)v[i] - pull));
    }
}

static void direct(const shape *s, outcome *out)
{
    size_t begin = 0;
    for (size_t i = 0; i < s->n; i++) {
        for (size_t c = 0; c < s->A; c++)
            direct_channel(begin * s->A + c, s->lengths[i], s->A, out);
        begin += s->lengths[i];
    }
}

/* ---- The ops ----------------------------------------------------------------------------------- */

typedef struct job {
    const shape *s;
    const cv_kernels *kernel;
    bool aft;
    size_t T, n_values;
    float *values, *gradients; /* k, v, y and what y remembers */
    float *k, *v, *y, *zero;
    cv_sequence sequences[MOST_SEQUENCES];
    float *states, *own[MEMBERS], *matmul[MEMBERS];
    unsigned char *records[MEMBERS];
    bool full;
} job;

static float *floats(size_t n)
{
    float *x = aligned_alloc(64, (n * sizeof *x + 127) / 64 * 64);
    assert_non_null(x);
    memset(x, 0, (n * sizeof *x + 127) / 64 * 64);
    return x;
}

static void call(const cv_run *run, const job *j)
{
    const size_t A = j->s->A;
    if (j->aft) {
        const cv_aft p = {
            .A = A, .longest = LONGEST, .k = j->k, .v = j->v, .w = j->zero, .y = j->y
        };
        cv_aft_mean(run, &p);
    } else {
        size_t lo, hi;
        cv_own_heads(run, A, 1, &lo, &hi);
        cv_wkv4_channels(run, lo, hi, A, j->zero, j->zero, j->k, j->v, j->y, 0);
    }
    cv_meet(run);
}

static void walk(const cv_member *me, void *arg)
{
    job *j = arg;
    cv_tape tape = { .values = j->values,
                     .gradients = j->gradients,
                     .n_values = j->n_values,
                     .own = j->own[me->id],
                     .records = j->records[me->id],
                     .size = RECORDS };
    cv_run run = { .kernel = j->kernel,
                   .me = me,
                   .sequences = j->sequences,
                   .n_sequences = j->s->n,
                   .matmul = j->matmul[me->id],
                   .tape = &tape };
    cv_run_rows(&run, j->T);
    call(&run, j);
    if (me->id == 0) memcpy(cv_gradient(&run, j->y), dy, j->T * j->s->A * sizeof *dy);
    cv_meet(&run);
    cv_walk_back(&run);
    if (tape.full) j->full = true;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Every sequence begins with nothing: for a WKV that is an exponent below all others. */
static void start_sequences(job *j)
{
    const shape *s = j->s;
    const size_t size = larger(cv_aft_state(s->A, LONGEST), 3 * s->A);
    size_t begin = 0;
    j->states = floats(2 * s->n * size);
    for (size_t i = 0; i < s->n; i++) {
        float *state = j->states + 2 * i * size, *start = state + size;
        for (size_t c = 0; !j->aft && c < s->A; c++)
            state[2 * s->A + c] = start[2 * s->A + c] = -1e30f;
        j->sequences[i] =
            (cv_sequence){ .begin = begin, .n = s->lengths[i], .state = state, .start = start };
        begin += s->lengths[i];
    }
}

static void compute(const shape *s, const cv_kernels *kernel, size_t members, bool aft,
                    outcome *out)
{
    const size_t T = tokens_of(s), n = T * s->A, each = cv_apart(n);
    job j = { .s = s, .kernel = kernel, .aft = aft, .T = T, .n_values = 4 * each };
    cv_team *team;
    corvid_error err;
    j.values = floats(j.n_values);
    j.gradients = floats(j.n_values);
    j.zero = floats(larger(T * LONGEST, s->A));
    j.k = memcpy(j.values, k, n * sizeof *k);
    j.v = memcpy(j.values + each, v, n * sizeof *v);
    j.y = j.values + 2 * each;
    start_sequences(&j);
    for (size_t m = 0; m < members; m++) {
        j.own[m] = floats(larger(cv_aft_own_scratch(s->A, LONGEST), cv_wkv4_own_scratch(T, s->A)));
        j.matmul[m] = floats(cv_matmul_scratch(T > 64 ? T : 64));
        j.records[m] = aligned_alloc(64, RECORDS);
        assert_non_null(j.records[m]);
    }
    ASSERT_OK(cv_team_new(&cv_libc_allocator, members, &team, &err), &err);
    cv_team_run(team, walk, &j);
    cv_team_free(team);
    assert_false(j.full);
    memcpy(out->y, j.y, n * sizeof *j.y);
    memcpy(out->dk, j.gradients, n * sizeof *j.y);
    memcpy(out->dv, j.gradients + each, n * sizeof *j.y);
    for (size_t m = 0; m < members; m++) {
        free(j.own[m]);
        free(j.matmul[m]);
        free(j.records[m]);
    }
    float *blocks[] = { j.values, j.gradients, j.zero, j.states };
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
}

/* ---- Comparing --------------------------------------------------------------------------------- */

static double worst;

static void compare(const char *what, const char *of, const float *got, const float *expected,
                    size_t n)
{
    double largest = SMALL;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)expected[i]));
    for (size_t i = 0; i < n; i++) {
        const double error = fabs((double)got[i] - (double)expected[i]) / largest;
        if (!(error <= ALLOWED))
            fail_msg("%s: %s[%zu] is %.9g, expected %.9g", what, of, i, (double)got[i],
                     (double)expected[i]);
        worst = fmax(worst, error);
    }
}

static void compare_all(const char *what, const outcome *got, const outcome *expected, size_t n)
{
    compare(what, "y", got->y, expected->y, n);
    compare(what, "dk", got->dk, expected->dk, n);
    compare(what, "dv", got->dv, expected->dv, n);
}

static void check(const shape *s, uint64_t seed)
{
    static outcome sums, aft, wkv;
    static const cv_cpu_level levels[] = { CV_CPU_REF,  CV_CPU_AVX2, CV_CPU_AVX512,
                                           CV_CPU_NEON, CV_CPU_AMX,  CV_CPU_BF16 };
    const size_t n = tokens_of(s) * s->A;
    draw(s, seed);
    direct(s, &sums);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        const cv_kernels *kernel = cv_kernels_for(levels[i]);
        for (size_t members = 1; kernel && members <= MEMBERS; members++) {
            compute(s, kernel, members, true, &aft);
            compute(s, kernel, members, false, &wkv);
            compare_all("the mean against WKV", &aft, &wkv, n);
            compare_all("the mean against the sums", &aft, &sums, n);
            compare_all("WKV against the sums", &wkv, &sums, n);
        }
    }
}

static void test_shapes(void **state)
{
    static const shape shapes[] = {
        { 1, 1, { 1 }, 1.0 },           { 16, 1, { 2 }, 1.0 },         { 17, 2, { 1, 33 }, 2.0 },
        { 5, 4, { 7, 1, 64, 3 }, 1.0 }, { 83, 3, { 65, 1, 19 }, 1.5 }, { 31, 1, { 131 }, 1.0 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check(&shapes[i], 100 + i);
    print_message("largest difference %.2g\n", worst);
}

/* Keys so far apart that sums of e^k would lose all but a few; and the largest may come last. */
static void test_keys_far_apart(void **state)
{
    static const shape shapes[] = { { 19, 2, { 40, 3 }, 12.0 }, { 32, 1, { 70 }, 30.0 } };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check(&shapes[i], 200 + i);
    print_message("largest difference %.2g\n", worst);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_keys_far_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
