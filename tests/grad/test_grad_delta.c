/* test_grad_delta.c - the recurrence of version 7 and what stands around it, and the element by
 * element ops of versions 6 and 7, walked back: against central differences, and against the
 * reference's vectors.  In double.  [v7.wkv] [v7.kk] [v7.bonus] [v7.vfirst] [v6.ddlerp] */
#include "gradient.h"

#include "ops/delta_rule.h"
#include "ops/elementwise.h"
#include "ops/heads.h"

#define RATE 0.60653065971263342 /* e^-1/2 */

/* Lengths of sequences, heads and their channels. */
typedef struct shape {
    size_t lengths[GRAD_SEQUENCES], n_sequences, H, N;
} shape;

static const shape SHAPES[] = {
    { { 1 }, 1, 1, 8 },
    { { 3, 1, 5 }, 3, 2, 16 },
    { { 2, 4 }, 2, 3, 10 },
    { { 5 }, 1, 5, 7 },
};

/* ---- element by element ---------------------------------------------------------------------- */

typedef struct numbers_call {
    size_t A;
    cv_curve f;
    const float *bias, *in, *z, *d, *first, *share[2];
    float *y, *out[2];
} numbers_call;

typedef struct copy_record {
    size_t A;
    const float *from, *to;
} copy_record;

static void copy_back(const cv_run *run, const void *record)
{
    const copy_record *r = record;
    for (size_t i = run->lo * r->A; i < run->hi * r->A; i++)
        cv_gradient(run, r->from)[i] += cv_gradient(run, r->to)[i];
}

/* So that an op that works in place has an input that stays. */
static void copy(const cv_run *run, size_t A, const float *from, float *to)
{
    copy_record *r = cv_record(run, copy_back, sizeof *r);
    if (r) *r = (copy_record){ A, from, to };
    memcpy(to + run->lo * A, from + run->lo * A, (run->hi - run->lo) * A * sizeof *to);
    cv_meet(run);
}

static void call_biased(const cv_run *run, void *arg)
{
    const numbers_call *c = arg;
    size_t lo, hi;
    copy(run, c->A, c->in, c->y);
    cv_own_columns(run, c->A, &lo, &hi);
    cv_biased(run, c->f, lo, hi, c->A, c->bias, c->y);
}

static void test_biased(void **state)
{
    (void)state;
    static const char *const TITLES[] = { "sigmoid", "decay of v6", "decay of v7" };
    for (size_t f = 0; f < COUNT(TITLES); f++)
        for (size_t s = 0; s < COUNT(SHAPES); s++) {
            gradient g;
            const shape *p = &SHAPES[s];
            numbers_call c = { .A = p->H * p->N, .f = (cv_curve)f };
            gradient_open(&g, TITLES[f], 10 * f + s, p->lengths, p->n_sequences, 0);
            const size_t n = g.T * c.A;
            c.bias = grad_weight(&g, "bias", c.A, -1.0, 1.0);
            c.in = grad_value(&g, "x", GRAD_INPUT, n, -3.0, 2.0);
            c.y = grad_value(&g, "y", GRAD_OUTPUT, n, 0.0, 0.0);
            grad_value(&g, "memory", GRAD_MEMORY, n, 0.0, 0.0);
            gradient_check(&g, call_biased, &c);
            gradient_close(&g);
        }
}

static void call_mix(const cv_run *run, void *arg)
{
    const numbers_call *c = arg;
    cv_mix_by_token(run, c->A, c->z, c->d, c->bias, c->in, c->y);
}

static void test_mix_by_token(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(SHAPES); s++) {
        gradient g;
        const shape *p = &SHAPES[s];
        numbers_call c = { .A = p->H * p->N };
        gradient_open(&g, "mix by token", 40 + s, p->lengths, p->n_sequences, 0);
        const size_t n = g.T * c.A;
        c.bias = grad_weight(&g, "mu", c.A, 0.0, 1.0);
        c.z = grad_value(&g, "z", GRAD_INPUT, n, -1.0, 1.0);
        c.d = grad_value(&g, "d", GRAD_INPUT, n, -1.0, 1.0);
        c.in = grad_value(&g, "m", GRAD_INPUT, n, -1.0, 1.0);
        c.y = grad_value(&g, "x", GRAD_OUTPUT, n, 0.0, 0.0);
        gradient_check(&g, call_mix, &c);
        gradient_close(&g);
    }
}

/* Two layers blend in the same first one, whose gradient gathers. */
static void call_blend(const cv_run *run, void *arg)
{
    const numbers_call *c = arg;
    size_t lo, hi;
    cv_own_columns(run, c->A, &lo, &hi);
    cv_blend(run, lo, hi, c->A, c->in, c->first, c->share[0], c->out[0]);
    cv_blend(run, lo, hi, c->A, c->z, c->first, c->share[1], c->out[1]);
}

static void test_blend(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(SHAPES); s++) {
        gradient g;
        const shape *p = &SHAPES[s];
        numbers_call c = { .A = p->H * p->N };
        gradient_open(&g, "blend, two layers", 50 + s, p->lengths, p->n_sequences, 0);
        const size_t n = g.T * c.A;
        c.first = grad_value(&g, "first", GRAD_INPUT, n, -1.0, 1.0);
        c.in = grad_value(&g, "v", GRAD_INPUT, n, -1.0, 1.0);
        c.z = grad_value(&g, "v of the next layer", GRAD_INPUT, n, -1.0, 1.0);
        c.share[0] = grad_value(&g, "share", GRAD_INPUT, n, 0.0, 1.0);
        c.share[1] = grad_value(&g, "share of the next layer", GRAD_INPUT, n, 0.0, 1.0);
        c.out[0] = grad_value(&g, "out", GRAD_OUTPUT, n, 0.0, 0.0);
        c.out[1] = grad_value(&g, "out of the next layer", GRAD_OUTPUT, n, 0.0, 0.0);
        gradient_check(&g, call_blend, &c);
        gradient_close(&g);
    }
}

/* ---- head by head ---------------------------------------------------------------------------- */

typedef struct heads_call {
    size_t H, N, A;
    cv_keys7 keys;
    cv_bonus7 bonus;
    const float *r, *w, *k, *v, *kk, *b;
    cv_norm norm;
    float *y, *n;
} heads_call;

static void call_keys(const cv_run *run, void *arg)
{
    const heads_call *c = arg;
    size_t lo, hi;
    cv_own_heads(run, c->H, c->N, &lo, &hi);
    cv_keys7_heads(run, lo, hi, c->N, c->A, &c->keys);
}

static void call_wkv7(const cv_run *run, void *arg)
{
    const heads_call *c = arg;
    size_t lo, hi;
    cv_own_heads(run, c->H, c->N, &lo, &hi);
    cv_wkv7_heads(run, lo, hi, c->N, c->A, c->r, c->w, c->k, c->v, c->kk, c->b, c->y, 3);
}

static void call_bonus(const cv_run *run, void *arg)
{
    const heads_call *c = arg;
    size_t lo, hi;
    cv_own_heads(run, c->H, c->N, &lo, &hi);
    cv_bonus7_heads(run, lo, hi, c->N, c->A, &c->bonus);
}

/* As the model has them, one behind the other. */
static void call_all(const cv_run *run, void *arg)
{
    const heads_call *c = arg;
    size_t lo, hi;
    call_keys(run, arg);
    call_wkv7(run, arg);
    cv_own_heads(run, c->H, c->N, &lo, &hi);
    cv_group_norm(run, lo, hi, c->N, c->A, c->norm, 64e-5, c->y, c->n);
    call_bonus(run, arg);
}

static void keys(gradient *g, heads_call *c, grad_kind kind)
{
    const size_t A = c->A, n = g->T * A;
    c->keys = (cv_keys7){ .k_k = grad_weight(g, "k_k", A, 0.5, 1.0),
                          .k_a = grad_weight(g, "k_a", A, 0.5, 1.5),
                          .k = grad_value(g, "k", GRAD_INPUT, n, -1.0, 1.0),
                          .a = grad_value(g, "a", GRAD_INPUT, n, 0.0, 1.0),
                          .kk = grad_value(g, "kk", kind, n, 0.0, 0.0),
                          .b = grad_value(g, "b", kind, n, 0.0, 0.0),
                          .key = grad_value(g, "key", kind, n, 0.0, 0.0) };
}

static void open_shape(gradient *g, heads_call *c, const char *what, uint64_t seed, const shape *p,
                       size_t state_size)
{
    static char title[80];
    snprintf(title, sizeof title, "%s, %zu sequences, %zu heads of %zu", what, p->n_sequences, p->H,
             p->N);
    *c = (heads_call){ .H = p->H, .N = p->N, .A = p->H * p->N };
    gradient_open(g, title, seed, p->lengths, p->n_sequences, state_size);
    assert_true(cv_delta_own_scratch(g->T, c->N) <= GRAD_OWN);
}

static void test_keys(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(SHAPES); s++) {
        gradient g;
        heads_call c;
        open_shape(&g, &c, "keys", 60 + s, &SHAPES[s], 0);
        keys(&g, &c, GRAD_OUTPUT);
        gradient_check(&g, call_keys, &c);
        gradient_close(&g);
    }
}

/* A key shorter than 1e-12, or none at all, is divided by that: so is its gradient, and nothing is
 * taken off along the key. */
static void check_short_key(double length)
{
    enum { N = 5 };
    const float k[N] = { length, -length, 0, length, 0 }, k_k[N] = { 1, 2, 3, 4, 5 },
                k_a[N] = { 0 }, a[N] = { 0 };
    const float given[N] = { 0.5, -1, 0, 2, 1 };
    float values[6 * N] = { 0 }, gradients[6 * N] = { 0 }, own[1 << 13];
    float *at[6];
    for (size_t i = 0; i < 6; i++)
        at[i] = values + i * N;
    memcpy(at[0], k, sizeof k);
    memcpy(at[1], a, sizeof a);
    unsigned char records[1024];
    cv_team *team;
    corvid_error err;
    ASSERT_OK(cv_team_new(&cv_libc_allocator, 1, &team, &err), &err);
    const cv_member me = { team, 0, 1 };
    cv_tape tape = { .values = values,
                     .gradients = gradients,
                     .n_values = COUNT(values),
                     .own = own,
                     .records = records,
                     .size = sizeof records };
    cv_run run = { .kernel = &cv_kernels_ref, .me = &me, .tape = &tape };
    cv_run_rows(&run, 1);
    const cv_keys7 op = { at[0], k_k, k_a, at[1], at[2], at[3], at[4] };
    cv_keys7_heads(&run, 0, 1, N, N, &op);
    memcpy(gradients + 2 * N, given, sizeof given); /* of kk */
    cv_walk_back(&run);
    for (size_t i = 0; i < N; i++) {
        assert_true(fabs(at[2][i] - k[i] * k_k[i] * 1e12) <= 1e-9);
        const double expected = given[i] * k_k[i] * 1e12;
        if (!(fabs(gradients[i] - expected) <= 1e-6 * fabs(expected)))
            fail_msg("dk[%zu] is %g, expected %g", i, gradients[i], expected);
    }
    cv_team_free(team);
}

static void test_short_key(void **state)
{
    (void)state;
    check_short_key(1e-14);
    check_short_key(0.0);
}

static void test_bonus(void **state)
{
    (void)state;
    static const shape LONG = { { 2, 1 }, 2, 2, 70 };
    for (size_t s = 0; s <= COUNT(SHAPES); s++) {
        gradient g;
        heads_call c;
        open_shape(&g, &c, "bonus", 70 + s, s < COUNT(SHAPES) ? &SHAPES[s] : &LONG, 0);
        const size_t n = g.T * c.A;
        c.bonus = (cv_bonus7){ .r_k = grad_weight(&g, "r_k", c.A, -1.0, 1.0),
                               .r = grad_value(&g, "r", GRAD_INPUT, n, -1.0, 1.0),
                               .k = grad_value(&g, "k", GRAD_INPUT, n, -1.0, 1.0),
                               .v = grad_value(&g, "v", GRAD_INPUT, n, -1.0, 1.0),
                               .g = grad_value(&g, "g", GRAD_INPUT, n, -1.0, 1.0),
                               .n = grad_value(&g, "n", GRAD_INPUT, n, -1.0, 1.0),
                               .out = grad_value(&g, "out", GRAD_OUTPUT, n, 0.0, 0.0) };
        gradient_check(&g, call_bonus, &c);
        gradient_close(&g);
    }
}

/* kk of length 1, or the state grows without bounds. */
static void unit_length(float *kk, size_t heads, size_t N)
{
    for (size_t h = 0; h < heads; h++, kk += N) {
        double square = 0.0;
        for (size_t j = 0; j < N; j++)
            square += kk[j] * kk[j];
        for (size_t j = 0; j < N; j++)
            kk[j] /= sqrt(square);
    }
}

/* Lengths around the windows of the walk back. */
static const shape SEQUENCES[] = {
    { { 1 }, 1, 1, 8 },
    { { 16, 3, 17 }, 3, 2, 16 },
    { { 2, 34 }, 2, 3, 10 },
    { { 1, 1, 1 }, 3, 5, 7 },
};

static void test_wkv7(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(SEQUENCES); s++) {
        gradient g;
        heads_call c;
        const shape *p = &SEQUENCES[s];
        open_shape(&g, &c, "wkv7", 80 + s, p, 3 + p->H * p->N * p->N);
        const size_t n = g.T * c.A;
        float *kk = grad_value(&g, "kk", GRAD_INPUT, n, -1.0, 1.0);
        unit_length(kk, g.T * c.H, c.N);
        c.kk = kk;
        c.r = grad_value(&g, "r", GRAD_INPUT, n, -1.0, 1.0);
        c.w = grad_value(&g, "w", GRAD_INPUT, n, 0.55, 0.999);
        c.k = grad_value(&g, "k", GRAD_INPUT, n, -0.5, 0.5);
        c.v = grad_value(&g, "v", GRAD_INPUT, n, -1.0, 1.0);
        c.b = grad_value(&g, "b", GRAD_INPUT, n, -0.2, 0.2);
        c.y = grad_value(&g, "y", GRAD_OUTPUT, n, 0.0, 0.0);
        g.no_start_gradient = s == 1;
        gradient_check(&g, call_wkv7, &c);
        gradient_close(&g);
    }
}

static void test_all(void **state)
{
    (void)state;
    for (size_t s = 1; s < COUNT(SEQUENCES); s++) {
        gradient g;
        heads_call c;
        const shape *p = &SEQUENCES[s];
        open_shape(&g, &c, "keys to gate", 90 + s, p, 3 + p->H * p->N * p->N);
        const size_t n = g.T * c.A;
        keys(&g, &c, GRAD_BETWEEN);
        c.kk = c.keys.kk;
        c.b = c.keys.b;
        c.k = c.keys.key;
        c.r = grad_value(&g, "r", GRAD_INPUT, n, -1.0, 1.0);
        c.w = grad_value(&g, "w", GRAD_INPUT, n, 0.55, 0.999);
        c.v = grad_value(&g, "v", GRAD_INPUT, n, -1.0, 1.0);
        c.y = grad_value(&g, "y", GRAD_BETWEEN, n, 0.0, 0.0);
        c.n = grad_value(&g, "n", GRAD_BETWEEN, n, 0.0, 0.0);
        grad_value(&g, "memory", GRAD_MEMORY, g.T * (c.A + c.H), 0.0, 0.0);
        c.norm.w = grad_weight(&g, "ln_x.w", c.A, 0.5, 1.5);
        c.norm.b = grad_weight(&g, "ln_x.b", c.A, -0.5, 0.5);
        c.bonus = (cv_bonus7){ .r_k = grad_weight(&g, "r_k", c.A, -1.0, 1.0),
                               .r = c.r,
                               .k = c.k,
                               .v = c.v,
                               .g = grad_value(&g, "g", GRAD_INPUT, n, -1.0, 1.0),
                               .n = c.n,
                               .out = grad_value(&g, "out", GRAD_OUTPUT, n, 0.0, 0.0) };
        gradient_check(&g, call_all, &c);
        gradient_close(&g);
    }
}

/* ---- against the reference ------------------------------------------------------------------- */

enum { REF_T = 37, REF_N = 8, ROWS = REF_T * REF_N, STATE = REF_N * REF_N };

typedef struct reference7 {
    double r[ROWS], w_raw[ROWS], k[ROWS], v[ROWS], a[ROWS], b[ROWS], gy[ROWS], y[ROWS];
    double gr[ROWS], gw_raw[ROWS], gk[ROWS], gv[ROWS], ga[ROWS], gb[ROWS];
    double S0[STATE], gS_final[STATE], S_final[STATE], gS0[STATE]; /* [i][j] */
} reference7;

static void read_reference(const char *path, reference7 *x)
{
    const struct {
        const char *name;
        double *to;
        size_t n;
    } all[] = { { "r", x->r, ROWS },
                { "w_raw", x->w_raw, ROWS },
                { "k", x->k, ROWS },
                { "v", x->v, ROWS },
                { "a", x->a, ROWS },
                { "b", x->b, ROWS },
                { "gy", x->gy, ROWS },
                { "y", x->y, ROWS },
                { "gr", x->gr, ROWS },
                { "gw_raw", x->gw_raw, ROWS },
                { "gk", x->gk, ROWS },
                { "gv", x->gv, ROWS },
                { "ga", x->ga, ROWS },
                { "gb", x->gb, ROWS },
                { "S0", x->S0, STATE },
                { "gS_final", x->gS_final, STATE },
                { "S_final", x->S_final, STATE },
                { "gS0", x->gS0, STATE } };
    grad_vectors v = grad_vectors_open(path);
    for (size_t i = 0; i < COUNT(all); i++) {
        char name[32];
        snprintf(name, sizeof name, "wkv7.%s", all[i].name);
        grad_vectors_read(&v, name, all[i].to, all[i].n);
    }
    grad_vectors_close(&v);
}

static void turn(const double *from, double *to)
{
    for (size_t i = 0; i < REF_N; i++)
        for (size_t j = 0; j < REF_N; j++)
            to[j * REF_N + i] = from[i * REF_N + j];
}

/* sign: the reference's a is -kk. */
static void compare(const char *name, const double *got, double sign, const double *expected,
                    size_t n)
{
    double largest = 0.0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs(sign * got[i] - expected[i]) <= 1e-12 * largest))
            fail_msg("%s[%zu] is %.15g, the reference has %.15g", name, i, sign * got[i],
                     expected[i]);
}

static void test_reference(void **state)
{
    (void)state;
    NEED_DATA(path, "rwkv-tiny/reference/wkv_vectors.safetensors");
    static reference7 x;
    static double w[ROWS], kk[ROWS], y[ROWS], S0[STATE], S[STATE], dS[STATE], back[STATE];
    static double dr[ROWS], dw[ROWS], dk[ROWS], dv[ROWS], dkk[ROWS], db[ROWS], scratch[1 << 13];
    read_reference(path, &x);
    turn(x.S0, S0);
    turn(x.S0, S);
    turn(x.gS_final, dS);
    for (size_t i = 0; i < ROWS; i++) {
        w[i] = exp(-RATE / (1.0 + exp(-x.w_raw[i])));
        kk[i] = -x.a[i];
    }
    cv_kernels_ref.wkv7(REF_T, REF_N, REF_N, x.r, w, x.k, x.v, kk, x.b, y, S);
    compare("y", y, 1.0, x.y, ROWS);
    turn(S, back);
    compare("S", back, 1.0, x.S_final, STATE);

    assert_true(cv_wkv7_back_scratch(REF_T, REF_N) <= COUNT(scratch));
    const cv_wkv7_back call = { .T = REF_T,
                                .N = REF_N,
                                .ld = REF_N,
                                .r = x.r,
                                .w = w,
                                .k = x.k,
                                .v = x.v,
                                .kk = kk,
                                .b = x.b,
                                .dy = x.gy,
                                .S = S0,
                                .dr = dr,
                                .dw = dw,
                                .dk = dk,
                                .dv = dv,
                                .dkk = dkk,
                                .db = db,
                                .dS = dS,
                                .scratch = scratch };
    cv_kernels_ref.wkv7_back(&call);
    for (size_t i = 0; i < ROWS; i++) {
        const double s = 1.0 / (1.0 + exp(-x.w_raw[i]));
        dw[i] *= -RATE * w[i] * s * (1.0 - s);
    }
    compare("gr", dr, 1.0, x.gr, ROWS);
    compare("gw_raw", dw, 1.0, x.gw_raw, ROWS);
    compare("gk", dk, 1.0, x.gk, ROWS);
    compare("gv", dv, 1.0, x.gv, ROWS);
    compare("ga", dkk, -1.0, x.ga, ROWS);
    compare("gb", db, 1.0, x.gb, ROWS);
    turn(dS, back);
    compare("gS0", back, 1.0, x.gS0, STATE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_biased),    cmocka_unit_test(test_mix_by_token),
        cmocka_unit_test(test_blend),     cmocka_unit_test(test_keys),
        cmocka_unit_test(test_short_key), cmocka_unit_test(test_bonus),
        cmocka_unit_test(test_wkv7),      cmocka_unit_test(test_all),
        cmocka_unit_test(test_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
