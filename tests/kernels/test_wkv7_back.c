/* test_wkv7_back.c - walking back through RWKV-7, every table against the formulas in double.
 *
 * The formulas are those of gradients with all states stored, in the order of the official layout
 * S[value][key], so nothing of the kernels' turning, windows or padding is shared.  Every array ends
 * at a fence, rows are further apart than they are long, and what is between them must stay.
 * [v7.wkv] */
#include "kernel_check.h"

enum { MOST_T = 50, MOST_N = 80, MOST_LD = MOST_N + 5, MOST_ROWS = MOST_T * MOST_LD };
enum { STATE = MOST_N * MOST_N };

/* What is read, what is added to, states and scratch. */
enum { R, W, K, V, KK, B, DY, INPUTS };
enum { GRADIENTS = 6 }; /* of the first six, in their order */
static const char *const NAMES[] = { "dr", "dw", "dk", "dv", "dkk", "db" };

static fence inputs[INPUTS], gradients[GRADIENTS], fence_S, fence_dS, fence_scratch;

typedef struct call {
    size_t T, N, ld;
    float *in[INPUTS], *out[GRADIENTS], *S, *dS, *scratch;
    bool set[GRADIENTS]; /* not added to: NaN before */
} call;

/* What the gradients hold before: they are added to. */
static float before[GRADIENTS][MOST_ROWS], before_dS[STATE];
static double exact[GRADIENTS][MOST_T * MOST_N], exact_dS[STATE];
static double states[(MOST_T + 1) * STATE]; /* [T + 1][i][j] */

static size_t extent(size_t T, size_t N, size_t ld)
{
    return (T - 1) * ld + N;
}

static double in(const call *c, int which, size_t t, size_t n)
{
    return (double)c->in[which][t * c->ld + n];
}

/* S kk of value i before token t. */
static double removed(const call *c, size_t t, size_t i)
{
    double sum = 0.0;
    for (size_t j = 0; j < c->N; j++)
        sum += states[t * STATE + i * c->N + j] * in(c, KK, t, j);
    return sum;
}

static void exact_states(const call *c)
{
    const size_t N = c->N;
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++)
            states[i * N + j] = (double)c->S[j * N + i];
    for (size_t t = 0; t < c->T; t++)
        for (size_t i = 0; i < N; i++) {
            const double gone = removed(c, t, i);
            for (size_t j = 0; j < N; j++)
                states[(t + 1) * STATE + i * N + j] =
                    states[t * STATE + i * N + j] * in(c, W, t, j) - gone * in(c, B, t, j) +
                    in(c, V, t, i) * in(c, K, t, j);
        }
}

/* One token of one value; exact_dS is [i][j] meanwhile. */
static void exact_token(const call *c, size_t t, size_t i)
{
    const size_t N = c->N;
    const double *now = states + t * STATE + i * N, *after = now + STATE;
    const double gone = removed(c, t, i), dy = in(c, DY, t, i);
    double *D = exact_dS + i * N, dgone = 0.0;
    for (size_t j = 0; j < N; j++) {
        D[j] += dy * in(c, R, t, j);
        exact[R][t * N + j] += after[j] * dy;
        exact[W][t * N + j] += D[j] * now[j];
        exact[K][t * N + j] += D[j] * in(c, V, t, i);
        exact[V][t * N + i] += D[j] * in(c, K, t, j);
        exact[B][t * N + j] -= D[j] * gone;
        dgone -= D[j] * in(c, B, t, j);
    }
    for (size_t j = 0; j < N; j++) {
        exact[KK][t * N + j] += now[j] * dgone;
        D[j] = D[j] * in(c, W, t, j) + dgone * in(c, KK, t, j);
    }
}

static void exact_back(const call *c)
{
    const size_t N = c->N;
    memset(exact, 0, sizeof exact);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++)
            exact_dS[i * N + j] = (double)before_dS[j * N + i];
    exact_states(c);
    for (size_t t = c->T; t-- > 0;)
        for (size_t i = 0; i < N; i++)
            exact_token(c, t, i);
}

static double root_mean_square(const double *x, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum / (double)n);
}

/* Sums of N products each, of states and gradients that went through T tokens: independent
 * roundings.  Eight times their expected size is allowed. */
static void check(const cv_kernels *table, const call *c)
{
    const size_t N = c->N, T = c->T;
    const double roundings = ROUNDING * 8.0 * (sqrt((double)N) + sqrt((double)T) + 2.0);
    for (size_t g = 0; g < GRADIENTS; g++) {
        const double off = roundings * (root_mean_square(exact[g], T * N) + 1.0);
        for (size_t at = 0; at < extent(T, N, c->ld); at++) {
            const size_t t = at / c->ld, n = at % c->ld;
            const float *got = &c->out[g][at];
            const double found = (double)*got - (c->set[g] ? 0.0 : (double)before[g][at]);
            if (n >= N ? !same_bits(got, &before[g][at], 1)
                       : !(fabs(found - exact[g][t * N + n]) <= off))
                fail_msg("%s: T %zu, N %zu: %s[%zu][%zu] is %.9g, expected %.9g within %.2g",
                         table_name(table), T, N, NAMES[g], t, n, found,
                         n < N ? exact[g][t * N + n] : 0.0, off);
        }
    }
    const double off = roundings * (root_mean_square(exact_dS, N * N) + 1.0);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++)
            if (!(fabs((double)c->dS[j * N + i] - exact_dS[i * N + j]) <= off))
                fail_msg("%s: T %zu, N %zu: dS of value %zu, key %zu is %.9g, expected %.9g",
                         table_name(table), T, N, i, j, (double)c->dS[j * N + i],
                         exact_dS[i * N + j]);
}

static void run(const cv_kernels *table, const call *c)
{
    for (size_t g = 0; g < GRADIENTS; g++)
        memcpy(c->out[g], before[g], extent(c->T, c->N, c->ld) * sizeof(float));
    memcpy(c->dS, before_dS, c->N * c->N * sizeof(float));
    /* What lies in the scratch must not matter. */
    memset(c->scratch, 0xff, cv_wkv7_back_scratch(c->T, c->N) * sizeof(float));
    const cv_wkv7_back back = { .T = c->T,
                                .N = c->N,
                                .ld = c->ld,
                                .r = c->in[R],
                                .w = c->in[W],
                                .k = c->in[K],
                                .v = c->in[V],
                                .kk = c->in[KK],
                                .b = c->in[B],
                                .dy = c->in[DY],
                                .S = c->S,
                                .dr = c->out[R],
                                .dw = c->out[W],
                                .dk = c->out[K],
                                .dv = c->out[V],
                                .dkk = c->out[KK],
                                .db = c->out[B],
                                .set_r = c->set[R],
                                .set_w = c->set[W],
                                .set_k = c->set[K],
                                .set_v = c->set[V],
                                .set_kk = c->set[KK],
                                .set_b = c->set[B],
                                .dS = c->dS,
                                .scratch = c->scratch };
    table->wkv7_back(&back);
}

/* kk is a unit vector, b is kk times a rate in (0, 1). */
static void make_removal(const call *c, cv_rng *rng)
{
    for (size_t t = 0; t < c->T; t++) {
        float *kk = c->in[KK] + t * c->ld, *b = c->in[B] + t * c->ld, square = 0.0f;
        fill_normal(rng, kk, c->N, 0.0f, 1.0f);
        for (size_t j = 0; j < c->N; j++)
            square += kk[j] * kk[j];
        for (size_t j = 0; j < c->N; j++) {
            kk[j] /= sqrtf(square);
            b[j] = kk[j] * random_between(rng, 0.0f, 1.0f);
        }
    }
}

static void make(call *c, cv_rng *rng, size_t T, size_t N)
{
    const size_t ld = N + random_below(rng, 6), rows = extent(T, N, ld);
    *c = (call){ .T = T,
                 .N = N,
                 .ld = ld,
                 .S = fence_floats(&fence_S, N * N),
                 .dS = fence_floats(&fence_dS, N * N),
                 .scratch = fence_floats(&fence_scratch, cv_wkv7_back_scratch(T, N)) };
    for (size_t i = 0; i < INPUTS; i++)
        c->in[i] = fence_floats(&inputs[i], rows);
    const float width = 1.0f / sqrtf((float)N);
    for (size_t g = 0; g < GRADIENTS; g++) {
        c->out[g] = fence_floats(&gradients[g], rows);
        fill_normal(rng, before[g], rows, 0.0f, 0.5f);
    }
    fill_normal(rng, c->in[R], rows, 0.0f, width);
    fill_between(rng, c->in[W], rows, 0.545f, 0.999f);
    fill_normal(rng, c->in[K], rows, 0.0f, width);
    fill_normal(rng, c->in[V], rows, 0.0f, 1.0f);
    fill_normal(rng, c->in[DY], rows, 0.0f, 1.0f);
    make_removal(c, rng);
    fill_normal(rng, c->S, N * N, 0.0f, width);
    fill_normal(rng, before_dS, N * N, 0.0f, width);
}

static void check_all(size_t T, size_t N, cv_rng *rng)
{
    call c;
    const cv_kernels *table;
    make(&c, rng, T, N);
    for (size_t g = 0; g < GRADIENTS; g++) {
        c.set[g] = random_below(rng, 2) == 1;
        for (size_t i = 0; c.set[g] && i < extent(T, N, c.ld); i++)
            before[g][i] = NAN;
    }
    exact_back(&c);
    for (size_t i = 0; (table = table_at(i)); i++) {
        run(table, &c);
        check(table, &c);
    }
}

/* Lengths around the windows. */
static void test_lengths(void **state)
{
    (void)state;
    static const size_t SIZES[] = { 8, 16, 64, 80 };
    static const size_t LENGTHS[] = { 1, 2, 15, 16, 17, 31, 32, 33, 48, 50 };
    cv_rng rng;
    cv_rng_seed(&rng, 77);
    for (size_t t = 0; t < COUNT(LENGTHS); t++)
        for (size_t s = 0; s < COUNT(SIZES); s++)
            check_all(LENGTHS[t], SIZES[s], &rng);
}

/* Heads of any size: every tail of the vectors, every rest of the rows. */
static void test_odd_heads(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 78);
    for (size_t N = 1; N <= 70; N++)
        check_all(1 + N * 7 % 20, N, &rng);
}

/* A sequence in two parts, the gradient of the state between them handed on, is the whole: bit by
 * bit where the cut is at the border of a window. */
static void test_parts(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 79);
    const cv_kernels *table;
    static float whole[GRADIENTS][MOST_ROWS], whole_dS[STATE];
    float y[MOST_ROWS], S[STATE];
    call c;
    make(&c, &rng, 40, 64);
    const size_t rows = extent(c.T, c.N, c.ld), cut = 2 * CV_WKV7_WINDOW, at = cut * c.ld;
    for (size_t n = 0; (table = table_at(n)); n++) {
        run(table, &c);
        for (size_t g = 0; g < GRADIENTS; g++)
            memcpy(whole[g], c.out[g], rows * sizeof(float));
        memcpy(whole_dS, c.dS, c.N * c.N * sizeof *whole_dS);

        memcpy(S, c.S, c.N * c.N * sizeof *S);
        table->wkv7(cut, c.N, c.ld, c.in[R], c.in[W], c.in[K], c.in[V], c.in[KK], c.in[B], y, S);
        for (size_t g = 0; g < GRADIENTS; g++)
            memcpy(c.out[g], before[g], rows * sizeof(float));
        memcpy(c.dS, before_dS, c.N * c.N * sizeof(float));
        const cv_wkv7_back later = { .T = c.T - cut,
                                     .N = c.N,
                                     .ld = c.ld,
                                     .r = c.in[R] + at,
                                     .w = c.in[W] + at,
                                     .k = c.in[K] + at,
                                     .v = c.in[V] + at,
                                     .kk = c.in[KK] + at,
                                     .b = c.in[B] + at,
                                     .dy = c.in[DY] + at,
                                     .S = S,
                                     .dr = c.out[R] + at,
                                     .dw = c.out[W] + at,
                                     .dk = c.out[K] + at,
                                     .dv = c.out[V] + at,
                                     .dkk = c.out[KK] + at,
                                     .db = c.out[B] + at,
                                     .dS = c.dS,
                                     .scratch = c.scratch };
        table->wkv7_back(&later);
        cv_wkv7_back first = later;
        first.T = cut;
        const float **in[] = { &first.r,  &first.w, &first.k, &first.v,
                               &first.kk, &first.b, &first.dy };
        float **out[] = { &first.dr, &first.dw, &first.dk, &first.dv, &first.dkk, &first.db };
        for (size_t i = 0; i < INPUTS; i++)
            *in[i] = c.in[i];
        for (size_t g = 0; g < GRADIENTS; g++)
            *out[g] = c.out[g];
        first.S = c.S;
        table->wkv7_back(&first);
        for (size_t g = 0; g < GRADIENTS; g++)
            if (!same_bits(whole[g], c.out[g], rows))
                fail_msg("%s: %s of two parts differs from the whole", table_name(table), NAMES[g]);
        assert_true(same_bits(whole_dS, c.dS, c.N * c.N));
    }
}

static int make_fences(void **state)
{
    (void)state;
    for (size_t i = 0; i < INPUTS; i++)
        fence_make(&inputs[i], MOST_ROWS * sizeof(float));
    for (size_t g = 0; g < GRADIENTS; g++)
        fence_make(&gradients[g], MOST_ROWS * sizeof(float));
    fence_make(&fence_S, STATE * sizeof(float));
    fence_make(&fence_dS, STATE * sizeof(float));
    fence_make(&fence_scratch, cv_wkv7_back_scratch(MOST_T, MOST_N) * sizeof(float));
    return 0;
}

static int free_fences(void **state)
{
    (void)state;
    for (size_t i = 0; i < INPUTS; i++)
        fence_free(&inputs[i]);
    for (size_t g = 0; g < GRADIENTS; g++)
        fence_free(&gradients[g]);
    fence_free(&fence_S);
    fence_free(&fence_dS);
    fence_free(&fence_scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_odd_heads),
        cmocka_unit_test(test_parts),
    };
    return cmocka_run_group_tests(tests, make_fences, free_fences);
}
