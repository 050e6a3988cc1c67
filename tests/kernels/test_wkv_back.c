/* test_wkv_back.c - walking back through the recurrences of versions 4, 5 and 6: every table against
 * ref (which tests/grad/ compares with differences of the recurrences themselves), and sequences
 * against their parts.  Every array ends at a fence, rows are further apart than they are long. */
#include "kernel_check.h"

enum { MOST_T = 70, MOST_N = 136, MOST_LD = MOST_N + 5, MOST_ROWS = MOST_T * MOST_LD };
enum { STATE = MOST_N * MOST_N };

/* Arrays of one call, each before a fence of its own; those from DR on are written. */
enum { R, W, K, V, U, DY, S, DR, DW, DK, DV, DU, DS, SCRATCH, ARRAYS };
static fence fences[ARRAYS];

static size_t extent(size_t T, size_t n, size_t ld)
{
    return (T - 1) * ld + n;
}

/* What is written: its size, what it held before, and what ref and a table made of it. */
typedef struct result {
    const char *name;
    float *x;
    size_t n;
    float before[STATE], ref[STATE];
    double allowed; /* relative to the largest of ref */
} result;

enum { MOST_RESULTS = 7 };
static result results[MOST_RESULTS];
static size_t n_results;

static void expect(const char *name, float *x, size_t n, double allowed)
{
    result *r = &results[n_results++];
    assert_true(n_results <= MOST_RESULTS && n <= STATE);
    r->name = name;
    r->x = x;
    r->n = n;
    r->allowed = allowed;
    memcpy(r->before, x, n * sizeof *x);
}

static void put_back(void)
{
    for (size_t i = 0; i < n_results; i++)
        memcpy(results[i].x, results[i].before, results[i].n * sizeof(float));
}

static void keep_as_ref(void)
{
    for (size_t i = 0; i < n_results; i++)
        memcpy(results[i].ref, results[i].x, results[i].n * sizeof(float));
}

static double largest_of(const float *x, size_t n)
{
    double largest = 0.0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)x[i]));
    return largest;
}

static double worst; /* error by what is allowed */

static void compare_with_ref(const cv_kernels *table, const char *call)
{
    for (size_t i = 0; i < n_results; i++) {
        const result *r = &results[i];
        const double allowed = r->allowed * largest_of(r->ref, r->n);
        for (size_t e = 0; e < r->n; e++) {
            const double error = fabs((double)r->x[e] - (double)r->ref[e]);
            if (!(error <= allowed))
                fail_msg("%s: %s: %s[%zu] is %.9g, expected %.9g within %.2g", table_name(table),
                         call, r->name, e, (double)r->x[e], (double)r->ref[e], allowed);
            worst = fmax(worst, error / allowed);
        }
    }
}

/* Between rows nothing is written. */
static void check_gaps(const cv_kernels *table, const char *name, size_t n, size_t ld)
{
    for (size_t i = 0; i < n_results; i++) {
        const result *r = &results[i];
        for (size_t e = 0; !strcmp(r->name, name) && e < r->n; e++)
            if (e % ld >= n && !same_bits(r->x + e, r->before + e, 1))
                fail_msg("%s: wrote between the rows of %s", table_name(table), name);
    }
}

static float *floats(cv_rng *rng, int array, size_t n, float lo, float hi)
{
    float *x = fence_floats(&fences[array], n);
    fill_between(rng, x, n, lo, hi);
    return x;
}

/* ---- RWKV-4 --------------------------------------------------------------------------------- */

/* keys: their width around 0; exponents of that size lose as many digits. */
static void make4(cv_wkv4_back *x, cv_rng *rng, size_t T, size_t n, float keys, bool fresh)
{
    const size_t ld = n + random_below(rng, 6), rows = extent(T, n, ld);
    float *w = fence_floats(&fences[W], n), *past = floats(rng, S, 3 * n, -1.0f, 1.0f);
    float *later = floats(rng, DS, 3 * n, -1.0f, 1.0f), *k = floats(rng, K, rows, -keys, keys);
    for (size_t i = 0; i < n; i++) {
        w[i] = -expf(random_between(rng, -7.0f, 1.0f));
        past[n + i] += 1.5f;
        if (!fresh) continue;
        past[i] = past[n + i] = later[i] = later[n + i] = 0.0f;
        past[2 * n + i] = later[2 * n + i] = -1e30f;
    }
    for (size_t i = 0; keys > 50.0f && i < rows; i += 3)
        k[i] = i % 2 ? keys : -keys;
    *x = (cv_wkv4_back){ .T = T,
                         .n = n,
                         .ld = ld,
                         .w = w,
                         .u = floats(rng, U, n, -1.0f, 1.0f),
                         .k = k,
                         .v = floats(rng, V, rows, -1.0f, 1.0f),
                         .dy = floats(rng, DY, rows, -1.0f, 1.0f),
                         .aa = past,
                         .bb = past + n,
                         .pp = past + 2 * n,
                         .dw = floats(rng, DW, n, -1.0f, 1.0f),
                         .du = floats(rng, DU, n, -1.0f, 1.0f),
                         .dk = floats(rng, DK, rows, -1.0f, 1.0f),
                         .dv = floats(rng, DV, rows, -1.0f, 1.0f),
                         .alpha = later,
                         .beta = later + n,
                         .top = later + 2 * n,
                         .scratch = fence_floats(&fences[SCRATCH], cv_wkv4_back_scratch(T)) };
    const double allowed = ROUNDING * 8.0 * ((double)keys + (double)T + 8.0);
    n_results = 0;
    expect("dw", x->dw, n, allowed);
    expect("du", x->du, n, allowed);
    expect("dk", x->dk, rows, allowed);
    expect("dv", x->dv, rows, allowed);
    expect("alpha", x->alpha, n, allowed);
    expect("beta", x->beta, n, allowed);
    expect("top", x->top, n, allowed);
}

static void check4(const cv_wkv4_back *x, float keys)
{
    const cv_kernels *table;
    char call[80];
    snprintf(call, sizeof call, "wkv4 back, T %zu, n %zu, keys %g", x->T, x->n, (double)keys);
    for (size_t i = 0; (table = table_at(i)); i++) {
        put_back();
        table->wkv4_back(x);
        if (i == 0) keep_as_ref();
        compare_with_ref(table, call);
        check_gaps(table, "dk", x->n, x->ld);
        check_gaps(table, "dv", x->n, x->ld);
    }
}

static void test_wkv4(void **state)
{
    (void)state;
    static const float KEYS[] = { 1.0f, 5.0f, 80.0f };
    static const size_t LENGTHS[] = { 1, 2, 31, 32, 33, 64, 65, MOST_T };
    cv_rng rng;
    cv_rng_seed(&rng, 70);
    cv_wkv4_back x;
    for (size_t t = 0; t < COUNT(LENGTHS); t++)
        for (size_t n = 1; n <= 40; n += n < 20 ? 3 : 7)
            for (size_t k = 0; k < COUNT(KEYS); k++) {
                make4(&x, &rng, LENGTHS[t], n, KEYS[k], k != 0);
                check4(&x, KEYS[k]);
            }
}

/* Gradients that nobody wants; and channels in parts of 16, which give the same bits. */
static void test_wkv4_parts(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 71);
    cv_wkv4_back x;
    const cv_kernels *table;
    make4(&x, &rng, 37, 61, 3.0f, true);
    for (size_t i = 0; (table = table_at(i)); i++) {
        put_back();
        table->wkv4_back(&x);
        keep_as_ref();
        put_back();
        for (size_t c = 0; c < x.n; c += 16) {
            cv_wkv4_back part = x;
            part.n = x.n - c < 16 ? x.n - c : 16;
            const float **in[] = { &part.w,  &part.u,  &part.k,  &part.v,
                                   &part.dy, &part.aa, &part.bb, &part.pp };
            float **out[] = { &part.dk,    &part.dv,   &part.dw, &part.du,
                              &part.alpha, &part.beta, &part.top };
            for (size_t a = 0; a < COUNT(in); a++)
                *in[a] += c;
            for (size_t a = 0; a < COUNT(out); a++)
                *out[a] += c;
            table->wkv4_back(&part);
        }
        for (size_t r = 0; r < n_results; r++)
            assert_true(same_bits(results[r].x, results[r].ref, results[r].n));

        put_back();
        cv_wkv4_back unwanted = x;
        unwanted.dw = unwanted.du = NULL;
        table->wkv4_back(&unwanted);
        for (size_t r = 0; r < n_results; r++)
            assert_true(
                same_bits(results[r].x, r < 2 ? results[r].before : results[r].ref, results[r].n));
    }
}

/* From the end to the middle, and from there to the beginning: the state goes one way and its
 * gradient the other. */
static void test_wkv4_cut(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 72);
    cv_wkv4_back x;
    const cv_kernels *table;
    for (size_t cut = 1; cut < 50; cut += 7) {
        make4(&x, &rng, 50, 21, 4.0f, false);
        for (size_t i = 0; (table = table_at(i)); i++) {
            put_back();
            table->wkv4_back(&x);
            keep_as_ref();
            put_back();
            float middle[3 * 21], y[50 * 30];
            memcpy(middle, x.aa, sizeof middle);
            table->wkv4(cut, x.n, x.ld, x.w, x.u, x.k, x.v, y, middle, middle + 21, middle + 42);
            cv_wkv4_back part = x;
            const size_t at = cut * x.ld;
            part.T = x.T - cut;
            part.k += at;
            part.v += at;
            part.dy += at;
            part.dk += at;
            part.dv += at;
            part.aa = middle;
            part.bb = middle + 21;
            part.pp = middle + 42;
            table->wkv4_back(&part);
            part = x;
            part.T = cut;
            table->wkv4_back(&part);
            compare_with_ref(table, "wkv4 back, cut in two");
        }
    }
}

/* The largest keys there may be: nothing overflows. */
static void test_wkv4_extreme_keys(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 73);
    cv_wkv4_back x;
    const cv_kernels *table;
    make4(&x, &rng, 6, 37, 1.0f, true);
    float *k = fence_floats(&fences[K], extent(x.T, x.n, x.ld));
    for (size_t i = 0; i < x.n; i++)
        k[2 * x.ld + i] = i % 2 ? 1e5f : -1e5f;
    for (size_t i = 0; (table = table_at(i)); i++) {
        put_back();
        table->wkv4_back(&x);
        for (size_t r = 0; r < n_results; r++)
            for (size_t e = 0; e < results[r].n; e++)
                assert_true(isfinite(results[r].x[e]));
    }
}

/* ---- RWKV-5 and 6: one head ----------------------------------------------------------------- */

static void make5(cv_wkv5_back *x, cv_rng *rng, size_t T, size_t N, bool per_token)
{
    const size_t ld = N + random_below(rng, 6), rows = extent(T, N, ld);
    const size_t decays = per_token ? rows : N;
    const float width = 1.0f / sqrtf((float)N);
    *x = (cv_wkv5_back){ .T = T,
                         .N = N,
                         .ld = ld,
                         .ldw = per_token ? ld : 0,
                         .r = floats(rng, R, rows, -1.0f, 1.0f),
                         .k = floats(rng, K, rows, -width, width),
                         .v = floats(rng, V, rows, -1.0f, 1.0f),
                         .dy = floats(rng, DY, rows, -1.0f, 1.0f),
                         .w = floats(rng, W, decays, 0.0f, 0.999f),
                         .u = floats(rng, U, N, -1.0f, 1.0f),
                         .S = floats(rng, S, N * N, -width, width),
                         .dr = floats(rng, DR, rows, -1.0f, 1.0f),
                         .dk = floats(rng, DK, rows, -1.0f, 1.0f),
                         .dv = floats(rng, DV, rows, -1.0f, 1.0f),
                         .dw = floats(rng, DW, decays, -1.0f, 1.0f),
                         .du = floats(rng, DU, N, -1.0f, 1.0f),
                         .dS = floats(rng, DS, N * N, -1.0f, 1.0f),
                         .scratch = fence_floats(&fences[SCRATCH], cv_wkv5_back_scratch(T, N)) };
    const double allowed = ROUNDING * 2.0 * (sqrt((double)N) + sqrt((double)T) + 2.0);
    n_results = 0;
    expect("dr", x->dr, rows, allowed);
    expect("dk", x->dk, rows, allowed);
    expect("dv", x->dv, rows, allowed);
    expect("dw", x->dw, decays, allowed);
    expect("du", x->du, N, allowed);
    expect("dS", x->dS, N * N, allowed);
}

static void check5(const cv_wkv5_back *x)
{
    const cv_kernels *table;
    char call[80];
    snprintf(call, sizeof call, "wkv5 back, T %zu, N %zu, %s", x->T, x->N,
             x->ldw ? "w per token" : "one w");
    for (size_t i = 0; (table = table_at(i)); i++) {
        put_back();
        table->wkv5_back(x);
        if (i == 0) keep_as_ref();
        compare_with_ref(table, call);
        check_gaps(table, "dr", x->N, x->ld);
        check_gaps(table, "dk", x->N, x->ld);
        check_gaps(table, "dv", x->N, x->ld);
        if (x->ldw) check_gaps(table, "dw", x->N, x->ld);
    }
}

static void test_wkv5(void **state)
{
    (void)state;
    static const size_t SIZES[] = { 8, 16, 32, 48, 64, 80, 128, MOST_N };
    static const size_t LENGTHS[] = { 1, 2, 15, 16, 17, 32, 33, MOST_T };
    cv_rng rng;
    cv_rng_seed(&rng, 80);
    cv_wkv5_back x;
    for (size_t t = 0; t < COUNT(LENGTHS); t++)
        for (size_t s = 0; s < COUNT(SIZES); s++) {
            make5(&x, &rng, LENGTHS[t], SIZES[s], (t + s) % 2);
            check5(&x);
        }
}

/* Heads of any size: every tail of the vectors. */
static void test_odd_heads(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 81);
    cv_wkv5_back x;
    for (size_t N = 1; N <= 70; N++)
        for (int per_token = 0; per_token < 2; per_token++) {
            make5(&x, &rng, 15 + N % 4, N, per_token);
            check5(&x);
        }
}

static void test_wkv5_unwanted(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 82);
    cv_wkv5_back x;
    const cv_kernels *table;
    for (int per_token = 0; per_token < 2; per_token++) {
        make5(&x, &rng, 20, 24, per_token);
        for (size_t i = 0; (table = table_at(i)); i++) {
            put_back();
            table->wkv5_back(&x);
            keep_as_ref();
            put_back();
            cv_wkv5_back unwanted = x;
            unwanted.dw = unwanted.du = NULL;
            table->wkv5_back(&unwanted);
            for (size_t r = 0; r < n_results; r++) {
                const bool kept = !strcmp(results[r].name, "dw") || !strcmp(results[r].name, "du");
                assert_true(same_bits(results[r].x, kept ? results[r].before : results[r].ref,
                                      results[r].n));
            }
        }
    }
}

static void test_wkv5_cut(void **state)
{
    (void)state;
    static float middle[STATE], y[MOST_ROWS];
    cv_rng rng;
    cv_rng_seed(&rng, 83);
    cv_wkv5_back x;
    const cv_kernels *table;
    for (size_t cut = 1; cut < 50; cut += 7) {
        make5(&x, &rng, 50, 40, cut % 2);
        for (size_t i = 0; (table = table_at(i)); i++) {
            put_back();
            table->wkv5_back(&x);
            keep_as_ref();
            put_back();
            memcpy(middle, x.S, x.N * x.N * sizeof *middle);
            table->wkv5(cut, x.N, (ptrdiff_t)x.ld, (ptrdiff_t)x.ldw, x.r, x.w, x.k, x.v, x.u, y,
                        middle);
            cv_wkv5_back part = x;
            part.T = x.T - cut;
            const float **in[] = { &part.r, &part.k, &part.v, &part.dy };
            float **out[] = { &part.dr, &part.dk, &part.dv };
            for (size_t a = 0; a < COUNT(in); a++)
                *in[a] += cut * x.ld;
            for (size_t a = 0; a < COUNT(out); a++)
                *out[a] += cut * x.ld;
            part.w += cut * x.ldw;
            part.dw += cut * x.ldw;
            part.S = middle;
            table->wkv5_back(&part);
            part = x;
            part.T = cut;
            table->wkv5_back(&part);
            compare_with_ref(table, "wkv5 back, cut in two");
        }
    }
}

static int make_fences(void **state)
{
    (void)state;
    const size_t scratch = cv_wkv5_back_scratch(MOST_T, MOST_N);
    for (int i = 0; i < ARRAYS; i++)
        fence_make(&fences[i], (i == SCRATCH ? scratch : STATE) * sizeof(float));
    return 0;
}

static int free_fences(void **state)
{
    (void)state;
    print_message("largest error: %.2f of what is allowed\n", worst);
    for (int i = 0; i < ARRAYS; i++)
        fence_free(&fences[i]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wkv4),          cmocka_unit_test(test_wkv4_parts),
        cmocka_unit_test(test_wkv4_cut),      cmocka_unit_test(test_wkv4_extreme_keys),
        cmocka_unit_test(test_wkv5),          cmocka_unit_test(test_odd_heads),
        cmocka_unit_test(test_wkv5_unwanted), cmocka_unit_test(test_wkv5_cut),
    };
    return cmocka_run_group_tests(tests, make_fences, free_fences);
}
