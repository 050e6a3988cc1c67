/* test_wkv.c - the recurrences of every table against their formulas in double.
 *
 * RWKV-4 is compared with the weighted mean it stands for, summed over all tokens directly; the
 * others with the plain recurrence.  Every array ends at a fence, rows are further apart than they
 * are long, and a sequence must be its steps, bit by bit.  [v4.wkv] [v5.wkv] [v6.wkv] [v7.wkv] */
#include "kernel_check.h"

#include <float.h>

enum { MOST_T = 40, MOST_N = 128, MOST_LD = MOST_N + 5, MOST_ROWS = MOST_T * MOST_LD };
enum { STATE = MOST_N * MOST_N };

/* Arrays of one call, each before a fence of its own. */
enum { R, W, K, V, U, KK, B, Y, S, ARRAYS };
static fence fences[ARRAYS];

/* [T][ld] without the gap behind the last row. */
static size_t extent(size_t T, size_t n, size_t ld)
{
    return (T - 1) * ld + n;
}

/* The gaps between the rows of y hold this, and must keep it. */
#define UNTOUCHED 12345.0f

static void fill_untouched(float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = UNTOUCHED;
}

static void check_gaps(const cv_kernels *table, const float *y, size_t T, size_t n, size_t ld)
{
    for (size_t i = 0; i < extent(T, n, ld); i++)
        if (i % ld >= n && y[i] != UNTOUCHED)
            fail_msg("%s: wrote between rows: T %zu, n %zu, ld %zu", table_name(table), T, n, ld);
}

/* ---- RWKV-4 --------------------------------------------------------------------------------- */

typedef struct wkv4_call {
    size_t T, n, ld;
    float *w, *u, *k, *v, *y, *state; /* state: aa, bb, pp [n] each, side by side */
    float start[3 * MOST_N];
} wkv4_call;

static void run4(const cv_kernels *table, const wkv4_call *c, size_t t, size_t T)
{
    float *s = c->state;
    table->wkv4(T, c->n, c->ld, c->w, c->u, c->k + t * c->ld, c->v + t * c->ld, c->y + t * c->ld, s,
                s + c->n, s + 2 * c->n);
}

/* The weighted mean of one channel at token t, or with `after` the sums over tokens [0, t), scaled
 * by e^-top.  All exponents are in double and relative to the largest. */
typedef struct mean4 {
    double num, den, top;
} mean4;

static mean4 direct4(const wkv4_call *c, size_t channel, size_t t, bool self)
{
    const double w = (double)c->w[channel], u = (double)c->u[channel];
    mean4 m = { 0.0, 0.0, -HUGE_VAL };
    for (int pass = 0; pass < 2; pass++) {    /* first the largest exponent, then the sums */
        for (size_t i = 0; i <= t + 1; i++) { /* tokens 0 .. t - 1, self, the state before */
            double exponent, num, den = 1.0;
            if (i < t) {
                exponent = (double)c->k[i * c->ld + channel] + w * (double)(t - 1 - i);
                num = (double)c->v[i * c->ld + channel];
            } else if (i == t) {
                if (!self) continue;
                exponent = u + (double)c->k[t * c->ld + channel];
                num = (double)c->v[t * c->ld + channel];
            } else {
                exponent = (double)c->start[2 * c->n + channel] + w * (double)t;
                num = (double)c->start[channel];
                den = (double)c->start[c->n + channel];
            }
            if (pass == 0) {
                m.top = fmax(m.top, exponent);
            } else {
                m.num += exp(exponent - m.top) * num;
                m.den += exp(exponent - m.top) * den;
            }
        }
    }
    return m;
}

/* keys: their width around 0.  Exponents of floats of that size, added up T times, are off by that
 * many roundings of their size; the mean moves by as much, relative to the largest value. */
static void check_wkv4_values(const cv_kernels *table, const wkv4_call *c, double keys)
{
    const double size = fmax(keys, 4.0) + 4.0;
    const double off = ROUNDING * ((double)c->T + 4.0) * (size + (double)c->T + 8.0);
    for (size_t channel = 0; channel < c->n; channel++) {
        double largest = fabs((double)c->start[channel]);
        for (size_t t = 0; t < c->T; t++)
            largest = fmax(largest, fabs((double)c->v[t * c->ld + channel]));
        for (size_t t = 0; t < c->T; t++) {
            const mean4 m = direct4(c, channel, t, true);
            const double exact = m.num / m.den, got = (double)c->y[t * c->ld + channel];
            if (!(fabs(got - exact) <= off * largest))
                fail_msg("%s: wkv4, T %zu, n %zu, keys %g: y[%zu][%zu] is %.9g, expected %.9g",
                         table_name(table), c->T, c->n, keys, t, channel, got, exact);
        }
        const mean4 m = direct4(c, channel, c->T, false);
        const double pp = (double)c->state[2 * c->n + channel];
        const double scale = exp(pp - m.top);
        const double aa = (double)c->state[channel] * scale;
        const double bb = (double)c->state[c->n + channel] * scale;
        if (!(fabs(pp - m.top) <= off) || !(fabs(aa - m.num) <= 2.0 * off * largest * m.den) ||
            !(fabs(bb - m.den) <= 2.0 * off * m.den))
            fail_msg("%s: wkv4, T %zu, n %zu, keys %g: state of channel %zu is off",
                     table_name(table), c->T, c->n, keys, channel);
    }
}

static void start4(wkv4_call *c, cv_rng *rng, bool fresh)
{
    for (size_t i = 0; i < c->n; i++) {
        c->start[i] = fresh ? 0.0f : cv_rng_normal(rng);
        c->start[c->n + i] = fresh ? 0.0f : random_between(rng, 0.5f, 2.0f);
        c->start[2 * c->n + i] = fresh ? -1e30f : cv_rng_normal(rng);
    }
}

static void reset4(const wkv4_call *c)
{
    memcpy(c->state, c->start, 3 * c->n * sizeof *c->state);
    fill_untouched(c->y, extent(c->T, c->n, c->ld));
}

static void make4(wkv4_call *c, cv_rng *rng, size_t T, size_t n, float keys, bool fresh)
{
    const size_t ld = n + random_below(rng, 6), rows = extent(T, n, ld);
    *c = (wkv4_call){ .T = T,
                      .n = n,
                      .ld = ld,
                      .w = fence_floats(&fences[W], n),
                      .u = fence_floats(&fences[U], n),
                      .k = fence_floats(&fences[K], rows),
                      .v = fence_floats(&fences[V], rows),
                      .y = fence_floats(&fences[Y], rows),
                      .state = fence_floats(&fences[S], 3 * n) };
    for (size_t i = 0; i < n; i++)
        c->w[i] = -expf(random_between(rng, -7.0f, 1.0f));
    fill_normal(rng, c->u, n, 0.0f, 1.0f);
    fill_between(rng, c->k, rows, -keys, keys);
    fill_normal(rng, c->v, rows, 0.0f, 1.0f);
    for (size_t i = 0; keys > 50.0f && i < rows; i += 3)
        c->k[i] = i % 2 ? keys : -keys;
    start4(c, rng, fresh);
    reset4(c);
}

static void check_wkv4(const cv_kernels *table, wkv4_call *c, double keys)
{
    static float y[MOST_ROWS];
    float state[3 * MOST_N];
    const size_t rows = extent(c->T, c->n, c->ld);
    reset4(c);
    run4(table, c, 0, c->T);
    check_wkv4_values(table, c, keys);
    check_gaps(table, c->y, c->T, c->n, c->ld);
    memcpy(y, c->y, rows * sizeof *y);
    memcpy(state, c->state, 3 * c->n * sizeof *state);

    reset4(c);
    for (size_t t = 0; t < c->T; t++)
        run4(table, c, t, 1);
    if (!same_bits(y, c->y, rows) || !same_bits(state, c->state, 3 * c->n))
        fail_msg("%s: wkv4, T %zu, n %zu: steps differ from the sequence", table_name(table), c->T,
                 c->n);

    float *values = c->v, *apart = c->y; /* y may be v */
    static float keep[MOST_ROWS];
    memcpy(keep, values, rows * sizeof *keep);
    reset4(c);
    c->y = values;
    run4(table, c, 0, c->T);
    for (size_t i = 0; i < rows; i++)
        assert_true(same_bits(&values[i], i % c->ld < c->n ? &y[i] : &keep[i], 1));
    memcpy(values, keep, rows * sizeof *keep);
    c->y = apart;
}

static void test_wkv4(void **state)
{
    (void)state;
    const float keys[] = { 2.0f, 80.0f };
    cv_rng rng;
    cv_rng_seed(&rng, 40);
    wkv4_call c;
    const cv_kernels *table;
    for (size_t T = 1; T <= MOST_T; T += T < 8 ? 1 : 8)
        for (size_t n = 1; n <= MOST_N; n += n < 34 ? 1 : 13)
            for (size_t i = 0; i < 4; i++) {
                make4(&c, &rng, T, n, keys[i % 2], i < 2);
                for (size_t t = 0; (table = table_at(t)); t++)
                    check_wkv4(table, &c, (double)keys[i % 2]);
            }
}

/* Channels in parts that begin at whole panels, as members of a team have them. */
static void test_wkv4_parts(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 41);
    wkv4_call c;
    const cv_kernels *table;
    for (size_t n = 17; n <= MOST_N; n += 3) {
        make4(&c, &rng, 9, n, 5.0f, true);
        for (size_t i = 0; (table = table_at(i)); i++) {
            float y[9 * MOST_LD], s[3 * MOST_N];
            reset4(&c);
            run4(table, &c, 0, c.T);
            memcpy(y, c.y, extent(c.T, n, c.ld) * sizeof *y);
            memcpy(s, c.state, 3 * n * sizeof *s);
            reset4(&c);
            for (size_t at = 0, m; at < n; at += m) {
                m = n - at < 16 ? n - at : 16;
                table->wkv4(c.T, m, c.ld, c.w + at, c.u + at, c.k + at, c.v + at, c.y + at,
                            c.state + at, c.state + n + at, c.state + 2 * n + at);
            }
            assert_true(same_bits(y, c.y, extent(c.T, n, c.ld)));
            assert_true(same_bits(s, c.state, 3 * n));
        }
    }
}

/* The largest keys there may be: nothing overflows, and the only large one decides. */
static void test_wkv4_extreme_keys(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 42);
    wkv4_call c;
    const cv_kernels *table;
    make4(&c, &rng, 6, 37, 1.0f, true);
    for (size_t i = 0; i < c.n; i++)
        c.k[2 * c.ld + i] = 1e5f;
    for (size_t i = 0; (table = table_at(i)); i++) {
        reset4(&c);
        run4(table, &c, 0, c.T);
        for (size_t t = 0; t < c.T; t++)
            for (size_t j = 0; j < c.n; j++) {
                assert_true(isfinite(c.y[t * c.ld + j]));
                if (t >= 2) assert_true(c.y[t * c.ld + j] == c.v[2 * c.ld + j]);
            }
    }
}

/* ---- RWKV-5, 6 and 7: one head -------------------------------------------------------------- */

typedef struct head_call {
    size_t T, N, ld, ldw;
    bool v7;
    float *r, *w, *k, *v, *u, *kk, *b, *y, *S;
} head_call;

static float start[STATE];
static double exact_y[MOST_T * MOST_N], exact_S[STATE];

static void run_head(const cv_kernels *table, const head_call *c, size_t t, size_t T)
{
    const size_t at = t * c->ld;
    if (c->v7)
        table->wkv7(T, c->N, c->ld, c->r + at, c->w + at, c->k + at, c->v + at, c->kk + at,
                    c->b + at, c->y + at, c->S);
    else
        table->wkv5(T, c->N, (ptrdiff_t)c->ld, (ptrdiff_t)c->ldw, c->r + at, c->w + t * c->ldw,
                    c->k + at, c->v + at, c->u, c->y + at, c->S);
}

/* One value (row of the state) i of RWKV-5 and 6, all tokens. */
static void exact5(const head_call *c, size_t i)
{
    const size_t N = c->N;
    for (size_t j = 0; j < N; j++)
        exact_S[j * N + i] = (double)start[j * N + i];
    for (size_t t = 0; t < c->T; t++) {
        double sum = 0.0;
        for (size_t j = 0; j < N; j++) {
            const size_t at = t * c->ld + j;
            const double kv = (double)c->k[at] * (double)c->v[t * c->ld + i];
            sum += (double)c->r[at] * (exact_S[j * N + i] + (double)c->u[j] * kv);
            exact_S[j * N + i] = (double)c->w[t * c->ldw + j] * exact_S[j * N + i] + kv;
        }
        exact_y[t * N + i] = sum;
    }
}

/* The same of RWKV-7, in the order of its formula: first what is removed, then what is added. */
static void exact7(const head_call *c, size_t i)
{
    const size_t N = c->N;
    for (size_t j = 0; j < N; j++)
        exact_S[j * N + i] = (double)start[j * N + i];
    for (size_t t = 0; t < c->T; t++) {
        double removed = 0.0, sum = 0.0;
        for (size_t j = 0; j < N; j++)
            removed += exact_S[j * N + i] * (double)c->kk[t * c->ld + j];
        for (size_t j = 0; j < N; j++) {
            const size_t at = t * c->ld + j;
            exact_S[j * N + i] = exact_S[j * N + i] * (double)c->w[at] -
                                 removed * (double)c->b[at] +
                                 (double)c->v[t * c->ld + i] * (double)c->k[at];
            sum += exact_S[j * N + i] * (double)c->r[at];
        }
        exact_y[t * N + i] = sum;
    }
}

static double root_mean_square(const double *x, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum / (double)n);
}

/* Roundings are independent of each other: a sum of N products of size s is off by about
 * sqrt(N) s roundings of its own and by those of the state, T at most.  Eight times that is
 * allowed; the worst seen is less than twice. */
static void check_head_values(const cv_kernels *table, const head_call *c)
{
    const size_t N = c->N;
    const double roundings = ROUNDING * 8.0 * (sqrt((double)N) + sqrt((double)c->T) + 2.0);
    const double y_off = roundings * (root_mean_square(exact_y, c->T * N) + 1.0);
    const double S_off = roundings * (root_mean_square(exact_S, N * N) + 1.0);
    for (size_t t = 0; t < c->T; t++)
        for (size_t i = 0; i < N; i++)
            if (!(fabs((double)c->y[t * c->ld + i] - exact_y[t * N + i]) <= y_off))
                fail_msg("%s: wkv%d, T %zu, N %zu: y[%zu][%zu] is %.9g, expected %.9g within %.2g",
                         table_name(table), c->v7 ? 7 : 5, c->T, N, t, i,
                         (double)c->y[t * c->ld + i], exact_y[t * N + i], y_off);
    for (size_t i = 0; i < N * N; i++)
        if (!(fabs((double)c->S[i] - exact_S[i]) <= S_off))
            fail_msg("%s: wkv%d, T %zu, N %zu: S[%zu] is %.9g, expected %.9g within %.2g",
                     table_name(table), c->v7 ? 7 : 5, c->T, N, i, (double)c->S[i], exact_S[i],
                     S_off);
}

static void reset_head(const head_call *c)
{
    memcpy(c->S, start, c->N * c->N * sizeof *c->S);
    fill_untouched(c->y, extent(c->T, c->N, c->ld));
}

/* kk is a unit vector, b is kk times a rate in (0, 1). */
static void make_removal(const head_call *c, cv_rng *rng)
{
    for (size_t t = 0; t < c->T; t++) {
        float *kk = c->kk + t * c->ld, *b = c->b + t * c->ld, square = 0.0f;
        fill_normal(rng, kk, c->N, 0.0f, 1.0f);
        for (size_t j = 0; j < c->N; j++)
            square += kk[j] * kk[j];
        for (size_t j = 0; j < c->N; j++) {
            kk[j] /= sqrtf(square);
            b[j] = kk[j] * random_between(rng, 0.0f, 1.0f);
        }
    }
}

static void make_head(head_call *c, cv_rng *rng, size_t T, size_t N, bool v7, bool per_token)
{
    const size_t ld = N + random_below(rng, 6), rows = extent(T, N, ld);
    const size_t ldw = v7 || per_token ? ld : 0;
    *c = (head_call){ .T = T,
                      .N = N,
                      .ld = ld,
                      .ldw = ldw,
                      .v7 = v7,
                      .r = fence_floats(&fences[R], rows),
                      .w = fence_floats(&fences[W], ldw ? rows : N),
                      .k = fence_floats(&fences[K], rows),
                      .v = fence_floats(&fences[V], rows),
                      .u = fence_floats(&fences[U], N),
                      .kk = fence_floats(&fences[KK], rows),
                      .b = fence_floats(&fences[B], rows),
                      .y = fence_floats(&fences[Y], rows),
                      .S = fence_floats(&fences[S], N * N) };
    const float width = 1.0f / sqrtf((float)N);
    fill_normal(rng, c->r, rows, 0.0f, 1.0f);
    fill_between(rng, c->w, ldw ? rows : N, v7 ? 0.545f : 0.01f, 0.999f);
    fill_normal(rng, c->k, rows, 0.0f, width);
    fill_normal(rng, c->v, rows, 0.0f, 1.0f);
    fill_normal(rng, c->u, N, 0.5f, 0.5f);
    fill_normal(rng, start, N * N, 0.0f, width);
    make_removal(c, rng);
    reset_head(c);
}

/* Steps, and pieces of any length, are the sequence. */
static void check_head_steps(const cv_kernels *table, const head_call *c, cv_rng *rng)
{
    static float y[MOST_ROWS], S_whole[STATE];
    const size_t rows = extent(c->T, c->N, c->ld);
    memcpy(y, c->y, rows * sizeof *y);
    memcpy(S_whole, c->S, c->N * c->N * sizeof *c->S);
    for (int pieces = 0; pieces < 2; pieces++) {
        reset_head(c);
        for (size_t t = 0, n; t < c->T; t += n) {
            n = pieces ? random_in(rng, 1, c->T - t) : 1;
            run_head(table, c, t, n);
        }
        if (!same_bits(y, c->y, rows) || !same_bits(S_whole, c->S, c->N * c->N))
            fail_msg("%s: wkv%d, T %zu, N %zu: steps differ from the sequence", table_name(table),
                     c->v7 ? 7 : 5, c->T, c->N);
    }
}

static void check_head(const head_call *c, cv_rng *rng)
{
    const cv_kernels *table;
    for (size_t i = 0; i < c->N; i++)
        c->v7 ? exact7(c, i) : exact5(c, i);
    for (size_t i = 0; (table = table_at(i)); i++) {
        reset_head(c);
        run_head(table, c, 0, c->T);
        check_head_values(table, c);
        check_gaps(table, c->y, c->T, c->N, c->ld);
        check_head_steps(table, c, rng);
    }
}

static void test_heads(void **state)
{
    (void)state;
    static const size_t SIZES[] = { 8, 16, 24, 32, 64, 80, 128 };
    cv_rng rng;
    cv_rng_seed(&rng, 57);
    head_call c;
    for (size_t T = 1; T <= MOST_T; T += T < 6 || T == MOST_T - 1 ? 1 : 3)
        for (size_t s = 0; s < COUNT(SIZES); s++)
            for (int form = 0; form < 3; form++) {
                make_head(&c, &rng, T, SIZES[s], form == 2, form == 1);
                check_head(&c, &rng);
            }
}

/* Heads of any size: every tail of the vectors. */
static void test_odd_heads(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 58);
    head_call c;
    for (size_t N = 1; N <= 70; N++)
        for (int form = 0; form < 3; form++) {
            make_head(&c, &rng, 1 + N % 4, N, form == 2, form == 1);
            check_head(&c, &rng);
        }
}

/* A value that is NaN stays in its row of the state, as the formula has it. */
static void test_not_a_number(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 59);
    head_call c;
    const cv_kernels *table;
    for (size_t N = 8; N <= 40; N += 8)
        for (int form = 0; form < 3; form++) {
            make_head(&c, &rng, 3, N, form == 2, form == 1);
            const size_t bad = random_below(&rng, N);
            c.v[c.ld + bad] = NAN;
            for (size_t i = 0; (table = table_at(i)); i++) {
                reset_head(&c);
                run_head(table, &c, 0, 3);
                for (size_t t = 0; t < 3; t++)
                    for (size_t j = 0; j < N; j++)
                        assert_int_equal(isnan(c.y[t * c.ld + j]) != 0, t >= 1 && j == bad);
                for (size_t j = 0; j < N * N; j++)
                    assert_int_equal(isnan(c.S[j]) != 0, j % N == bad);
            }
        }
    wkv4_call w;
    make4(&w, &rng, 5, 33, 2.0f, true);
    w.k[2 * w.ld + 7] = NAN;
    w.v[3 * w.ld + 32] = NAN;
    for (size_t i = 0; (table = table_at(i)); i++) {
        reset4(&w);
        run4(table, &w, 0, w.T);
        for (size_t t = 0; t < w.T; t++)
            for (size_t j = 0; j < w.n; j++)
                assert_int_equal(isnan(w.y[t * w.ld + j]) != 0,
                                 (j == 7 && t >= 2) || (j == 32 && t >= 3));
    }
}

static int make_fences(void **state)
{
    (void)state;
    for (int i = 0; i < ARRAYS; i++)
        fence_make(&fences[i], (i == S ? STATE : MOST_ROWS) * sizeof(float));
    return 0;
}

static int free_fences(void **state)
{
    (void)state;
    for (int i = 0; i < ARRAYS; i++)
        fence_free(&fences[i]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wkv4),
        cmocka_unit_test(test_wkv4_parts),
        cmocka_unit_test(test_wkv4_extreme_keys),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_odd_heads),
        cmocka_unit_test(test_not_a_number),
    };
    return cmocka_run_group_tests(tests, make_fences, free_fences);
}
