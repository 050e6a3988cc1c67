/* test_grad_heads.c - the recurrences of versions 4, 5 and 6, group norm and gate walked back:
 * against central differences, and against the reference's vectors.  In double. */
#include "gradient.h"

#include "ops/heads.h"

/* ---- what is called -------------------------------------------------------------------------- */

typedef struct heads_call {
    size_t H, N, A;
    bool per_token;
    const float *r, *w, *k, *v, *u, *g;
    cv_norm norm;
    float *y, *n, *out;
} heads_call;

static size_t heads_scratch(const gradient *g, const heads_call *c)
{
    const size_t four = cv_wkv4_own_scratch(g->T, c->A), five = cv_wkv5_own_scratch(g->T, c->N);
    return four > five ? four : five;
}

static void call_wkv4(const cv_run *run, void *arg)
{
    const heads_call *c = arg;
    size_t lo, hi;
    cv_own_heads(run, c->A, 1, &lo, &hi);
    cv_wkv4_channels(run, lo, hi, c->A, c->w, c->u, c->k, c->v, c->y, 2);
}

static void call_wkv5(const cv_run *run, void *arg)
{
    const heads_call *c = arg;
    size_t lo, hi;
    cv_own_heads(run, c->H, c->N, &lo, &hi);
    cv_wkv5_heads(run, lo, hi, c->N, c->A, c->r, c->w, c->per_token, c->k, c->v, c->u, c->y, 3);
}

static void call_norm(const cv_run *run, void *arg)
{
    const heads_call *c = arg;
    size_t lo, hi;
    cv_own_heads(run, c->H, c->N, &lo, &hi);
    cv_group_norm(run, lo, hi, c->N, c->A, c->norm, 64e-5, c->y, c->n);
}

static void call_gate(const cv_run *run, void *arg)
{
    const heads_call *c = arg;
    size_t lo, hi;
    cv_own_heads(run, c->H, c->N, &lo, &hi);
    cv_gate(run, lo, hi, c->N, c->A, c->n, c->g, c->out);
}

/* As the models have them, one behind the other. */
static void call_all(const cv_run *run, void *arg)
{
    call_wkv5(run, arg);
    call_norm(run, arg);
    call_gate(run, arg);
}

/* ---- RWKV-4 ---------------------------------------------------------------------------------- */

static void weights4(gradient *g, heads_call *c, size_t A)
{
    *c = (heads_call){ .A = A, .N = 1 };
    float *w = grad_weight(g, "w", A, -7.0, 1.0);
    for (size_t i = 0; i < A; i++)
        w[i] = -exp(w[i]);
    c->w = w;
    c->u = grad_weight(g, "u", A, -1.5, 1.5);
}

/* keys: their width.  fresh: states that have seen nothing. */
static void check_wkv4(uint64_t seed, const size_t *lengths, size_t n, size_t A, double keys,
                       bool fresh)
{
    gradient g;
    heads_call c;
    char title[80];
    snprintf(title, sizeof title, "wkv4, %zu sequences, A %zu, keys %g", n, A, keys);
    gradient_open(&g, title, seed, lengths, n, 2 + 3 * A);
    for (size_t s = 0; s < n; s++)
        for (size_t i = 0; i < A; i++) {
            float *aa = g.start + s * g.state_size + 2 + i;
            aa[0] = fresh ? 0.0 : aa[0];
            aa[A] = fresh ? 0.0 : 1.5 + aa[A];
            aa[2 * A] = fresh ? -1e30 : aa[2 * A];
        }
    weights4(&g, &c, A);
    float *k = grad_value(&g, "k", GRAD_INPUT, g.T * A, -2.0, 2.0);
    for (size_t i = 0; keys > 2.0 && i < g.T * A; i++) {
        const double level = i % 3 == 0 ? keys : i % 3 == 1 ? -keys : 0.0;
        k[i] = level + 0.5 * k[i];
    }
    c.k = k;
    c.v = grad_value(&g, "v", GRAD_INPUT, g.T * A, -1.0, 1.0);
    c.y = grad_value(&g, "y", GRAD_OUTPUT, g.T * A, 0.0, 0.0);
    assert_true(heads_scratch(&g, &c) <= GRAD_OWN);
    gradient_check(&g, call_wkv4, &c);
    gradient_close(&g);
}

static void test_wkv4(void **state)
{
    (void)state;
    check_wkv4(1, (const size_t[]){ 1 }, 1, 5, 2.0, false);
    check_wkv4(2, (const size_t[]){ 3, 1, 34 }, 3, 19, 2.0, false);
    check_wkv4(3, (const size_t[]){ 65, 2 }, 2, 33, 2.0, true);
    check_wkv4(4, (const size_t[]){ 40, 7 }, 2, 16, 80.0, true);
}

/* ---- RWKV-5 and 6 ---------------------------------------------------------------------------- */

static void recurrence5(gradient *g, heads_call *c, size_t H, size_t N, bool per_token,
                        grad_kind kind)
{
    const size_t A = H * N;
    *c = (heads_call){ .H = H, .N = N, .A = A, .per_token = per_token };
    c->u = grad_weight(g, "u", A, -1.0, 1.0);
    c->w = per_token ? grad_value(g, "w", GRAD_INPUT, g->T * A, 0.02, 0.999)
                     : grad_weight(g, "w", A, 0.02, 0.999);
    c->r = grad_value(g, "r", GRAD_INPUT, g->T * A, -1.0, 1.0);
    c->k = grad_value(g, "k", GRAD_INPUT, g->T * A, -1.0, 1.0);
    c->v = grad_value(g, "v", GRAD_INPUT, g->T * A, -1.0, 1.0);
    c->y = grad_value(g, "y", kind, g->T * A, 0.0, 0.0);
    assert_true(heads_scratch(g, c) <= GRAD_OWN);
}

static void check_wkv5(uint64_t seed, const size_t *lengths, size_t n, size_t H, size_t N,
                       bool per_token)
{
    gradient g;
    heads_call c;
    char title[80];
    snprintf(title, sizeof title, "wkv5, %zu sequences, %zu heads of %zu, %s", n, H, N,
             per_token ? "w per token" : "one w");
    gradient_open(&g, title, seed, lengths, n, 3 + H * N * N);
    recurrence5(&g, &c, H, N, per_token, GRAD_OUTPUT);
    gradient_check(&g, call_wkv5, &c);
    gradient_close(&g);
}

static void test_wkv5(void **state)
{
    (void)state;
    for (uint64_t per_token = 0; per_token < 2; per_token++) {
        check_wkv5(10 + per_token, (const size_t[]){ 1 }, 1, 1, 5, per_token);
        check_wkv5(12 + per_token, (const size_t[]){ 2, 1, 19 }, 3, 3, 16, per_token);
        check_wkv5(14 + per_token, (const size_t[]){ 16, 33 }, 2, 17, 3, per_token);
        check_wkv5(16 + per_token, (const size_t[]){ 17 }, 1, 4, 20, per_token);
    }
}

/* Nobody wants the gradient of the start, nor of u: it is no trained weight. */
static void test_unwanted(void **state)
{
    (void)state;
    gradient g;
    heads_call c;
    float bonus[16];
    gradient_open(&g, "wkv5, start and u not trained", 20, (const size_t[]){ 5, 4 }, 2, 3 + 16 * 8);
    recurrence5(&g, &c, 2, 8, false, GRAD_OUTPUT);
    memcpy(bonus, c.u, sizeof bonus);
    c.u = bonus;
    memset(g.arrays[0].exact, 0, 16 * sizeof(double)); /* the array that is not read any more */
    g.no_start_gradient = true;
    gradient_check(&g, call_wkv5, &c);
    for (size_t i = 0; i < 2 * g.state_size; i++)
        assert_true(g.start_gradient[i] == g.start_before[i]);
    gradient_close(&g);
}

/* ---- norm and gate --------------------------------------------------------------------------- */

static void norm_of(gradient *g, heads_call *c, grad_kind kind)
{
    c->norm.w = grad_weight(g, "ln_x.weight", c->A, 0.5, 1.5);
    c->norm.b = grad_weight(g, "ln_x.bias", c->A, -1.0, 1.0);
    c->n = grad_value(g, "n", kind, g->T * c->A, 0.0, 0.0);
    grad_value(g, "memory of n", GRAD_MEMORY, g->T * (c->A + c->H), 0.0, 0.0);
}

static void gate_of(gradient *g, heads_call *c)
{
    c->g = grad_value(g, "g", GRAD_INPUT, g->T * c->A, -1.0, 1.0);
    c->out = grad_value(g, "out", GRAD_OUTPUT, g->T * c->A, 0.0, 0.0);
}

static void test_norm_and_gate(void **state)
{
    (void)state;
    static const size_t SIZES[][2] = { { 1, 5 }, { 3, 16 }, { 17, 3 }, { 5, 24 } };
    for (size_t i = 0; i < COUNT(SIZES); i++) {
        const size_t H = SIZES[i][0], N = SIZES[i][1], lengths[] = { 1 + i, 4 };
        heads_call c = { .H = H, .N = N, .A = H * N };
        gradient g;
        gradient_open(&g, "group norm", 30 + i, lengths, 2, 0);
        c.y = grad_value(&g, "y", GRAD_INPUT, g.T * c.A, -1.0, 1.0);
        norm_of(&g, &c, GRAD_OUTPUT);
        gradient_check(&g, call_norm, &c);
        gradient_close(&g);

        gradient_open(&g, "gate", 40 + i, lengths, 2, 0);
        c.n = grad_value(&g, "n", GRAD_INPUT, g.T * c.A, -1.0, 1.0);
        gate_of(&g, &c);
        gradient_check(&g, call_gate, &c);
        gradient_close(&g);
    }
}

static void test_one_behind_the_other(void **state)
{
    (void)state;
    gradient g;
    heads_call c;
    gradient_open(&g, "wkv5, group norm and gate", 50, (const size_t[]){ 18, 1, 2 }, 3,
                  3 + 3 * 256);
    recurrence5(&g, &c, 3, 16, true, GRAD_BETWEEN);
    norm_of(&g, &c, GRAD_BETWEEN);
    gate_of(&g, &c);
    gradient_check(&g, call_all, &c);
    gradient_close(&g);
}

/* ---- the reference's vectors ----------------------------------------------------------------- */

enum { T = 37, C = 6, N = 8, MOST = T * N };

static void check_close(const grad_vectors *file, const char *name, const double *got, size_t n)
{
    double want[MOST], largest = 0.0;
    grad_vectors_read(file, name, want, n);
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(want[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 1e-12 * largest))
            fail_msg("%s[%zu] is %.17g, expected %.17g", name, i, got[i], want[i]);
}

static void check_golden4(const grad_vectors *file)
{
    float w[C], u[C], k[MOST], v[MOST], dy[MOST], aa[C] = { 0 }, pp[C];
    float dw[C] = { 0 }, du[C] = { 0 }, dk[MOST] = { 0 }, dv[MOST] = { 0 };
    float alpha[C] = { 0 }, beta[C] = { 0 }, top[C], scratch[1024];
    grad_vectors_read(file, "wkv4.time_decay", w, C);
    grad_vectors_read(file, "wkv4.time_first", u, C);
    grad_vectors_read(file, "wkv4.k", k, T * C);
    grad_vectors_read(file, "wkv4.v", v, T * C);
    grad_vectors_read(file, "wkv4.gy", dy, T * C);
    for (size_t c = 0; c < C; c++) {
        w[c] = -exp(w[c]);
        pp[c] = top[c] = -1e30;
    }
    assert_true(cv_wkv4_back_scratch(T) <= COUNT(scratch));
    cv_kernels_ref.wkv4_back(&(cv_wkv4_back){ .T = T,
                                              .n = C,
                                              .ld = C,
                                              .w = w,
                                              .u = u,
                                              .k = k,
                                              .v = v,
                                              .dy = dy,
                                              .aa = aa,
                                              .bb = aa,
                                              .pp = pp,
                                              .dw = dw,
                                              .du = du,
                                              .dk = dk,
                                              .dv = dv,
                                              .alpha = alpha,
                                              .beta = beta,
                                              .top = top,
                                              .scratch = scratch });
    for (size_t c = 0; c < C; c++)
        dw[c] *= w[c]; /* to that of time_decay */
    check_close(file, "wkv4.g_time_decay", dw, C);
    check_close(file, "wkv4.g_time_first", du, C);
    check_close(file, "wkv4.gk", dk, T * C);
    check_close(file, "wkv4.gv", dv, T * C);
}

/* The state's rows are values in the file and keys in the kernels. */
static void turn(float *S)
{
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < i; j++) {
            const float swap = S[i * N + j];
            S[i * N + j] = S[j * N + i];
            S[j * N + i] = swap;
        }
}

/* Versions 5 and 6 differ in how many decays there are. */
static void check_golden5(const grad_vectors *file, const char *version, size_t n_decays)
{
    float r[MOST], w[MOST], d[MOST], k[MOST], v[MOST], dy[MOST], u[N], S[N * N], dS[N * N];
    float dr[MOST] = { 0 }, dw[MOST] = { 0 }, dk[MOST] = { 0 }, dv[MOST] = { 0 }, du[N] = { 0 };
    static float scratch[1 << 14];
    char name[32];
#define NAMED(suffix) (snprintf(name, sizeof name, "%s.%s", version, suffix), name)
    grad_vectors_read(file, NAMED("r"), r, MOST);
    grad_vectors_read(file, NAMED("d"), d, n_decays);
    grad_vectors_read(file, NAMED("k"), k, MOST);
    grad_vectors_read(file, NAMED("v"), v, MOST);
    grad_vectors_read(file, NAMED("gy"), dy, MOST);
    grad_vectors_read(file, NAMED("u"), u, N);
    grad_vectors_read(file, NAMED("S0"), S, N * N);
    grad_vectors_read(file, NAMED("gS_final"), dS, N * N);
    turn(S);
    turn(dS);
    for (size_t i = 0; i < n_decays; i++)
        w[i] = exp(-exp(d[i]));
    assert_true(cv_wkv5_back_scratch(T, N) <= COUNT(scratch));
    cv_kernels_ref.wkv5_back(&(cv_wkv5_back){ .T = T,
                                              .N = N,
                                              .ld = N,
                                              .ldw = n_decays == N ? 0 : N,
                                              .r = r,
                                              .k = k,
                                              .v = v,
                                              .dy = dy,
                                              .w = w,
                                              .u = u,
                                              .S = S,
                                              .dr = dr,
                                              .dk = dk,
                                              .dv = dv,
                                              .dw = dw,
                                              .du = du,
                                              .dS = dS,
                                              .scratch = scratch });
    for (size_t i = 0; i < n_decays; i++)
        dw[i] *= w[i] * -exp(d[i]); /* to that of d */
    turn(dS);
    check_close(file, NAMED("gr"), dr, MOST);
    check_close(file, NAMED("gd"), dw, n_decays);
    check_close(file, NAMED("gk"), dk, MOST);
    check_close(file, NAMED("gv"), dv, MOST);
    check_close(file, NAMED("gu"), du, N);
    check_close(file, NAMED("gS0"), dS, N * N);
#undef NAMED
}

static void test_reference_vectors(void **state)
{
    (void)state;
    NEED_DATA(path, "rwkv-tiny/reference/wkv_vectors.safetensors");
    grad_vectors file = grad_vectors_open(path);
    check_golden4(&file);
    check_golden5(&file, "wkv5", N);
    check_golden5(&file, "wkv6", MOST);
    grad_vectors_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wkv4),
        cmocka_unit_test(test_wkv5),
        cmocka_unit_test(test_unwanted),
        cmocka_unit_test(test_norm_and_gate),
        cmocka_unit_test(test_one_behind_the_other),
        cmocka_unit_test(test_reference_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
