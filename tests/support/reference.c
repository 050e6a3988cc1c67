/* reference.c - RWKV language models in double precision; see reference.h. */
#include "reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#define MAX 1024 /* the widest vector */

/* ---- Tensors by name ------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ref_tensor *)a)->name, ((const ref_tensor *)b)->name);
}

const ref_tensor *ref_find(const ref_model *m, const char *name)
{
    ref_tensor key;
    snprintf(key.name, sizeof key.name, "%s", name);
    return bsearch(&key, m->tensors, m->n_tensors, sizeof key, by_name);
}

static const ref_tensor *find_in_layer(const ref_model *m, size_t l, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "blocks.%zu.%s", l, name);
    return ref_find(m, full);
}

static const ref_tensor *tensor(const ref_model *m, size_t l, const char *name)
{
    const ref_tensor *t = find_in_layer(m, l, name);
    if (!t) fail_msg("the reference finds no blocks.%zu.%s", l, name);
    return t;
}

static const double *vector(const ref_model *m, size_t l, const char *name)
{
    return tensor(m, l, name)->x;
}

static bool any_ends_with(const ref_model *m, const char *suffix)
{
    const size_t n = strlen(suffix);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const size_t k = strlen(m->tensors[i].name);
        if (k >= n && !strcmp(m->tensors[i].name + k - n, suffix)) return true;
    }
    return false;
}

/* ---- Arithmetic ------------------------------------------------------------------------------ */

static double sigma(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

/* y = W x, W [out, in] */
static void linear(const ref_tensor *W, const double *x, double *y)
{
    const size_t rows = W->dims[0], cols = W->count / rows;
    for (size_t i = 0; i < rows; i++) {
        y[i] = 0.0;
        for (size_t j = 0; j < cols; j++)
            y[i] += W->x[i * cols + j] * x[j];
    }
}

/* y = x @ M, M [in][out] */
static void times(const double *x, const double *M, size_t in, size_t out, double *y)
{
    for (size_t j = 0; j < out; j++) {
        y[j] = 0.0;
        for (size_t i = 0; i < in; i++)
            y[j] += x[i] * M[i * out + j];
    }
}

/* LN(x; w, b) over n channels. */
static void norm(size_t n, const double *x, const double *w, const double *b, double eps, double *y)
{
    double mean = 0.0, var = 0.0;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        var += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) / sqrt(var + eps) * w[i] + b[i];
}

/* GN(y; ln_x) in place. */
static void group_norm(const ref_model *m, size_t l, double *y)
{
    const double *w = vector(m, l, "att.ln_x.weight"), *b = vector(m, l, "att.ln_x.bias");
    for (size_t h = 0; h < m->H; h++) {
        const size_t at = h * m->N;
        norm(m->N, y + at, w + at, b + at, m->group_norm_eps, y + at);
    }
}

/* v4, v5: the coefficient multiplies z. */
static void mix(const ref_model *m, size_t l, const char *name, const double *z, const double *prev,
                double *y)
{
    const double *c = vector(m, l, name);
    for (size_t i = 0; i < m->C; i++)
        y[i] = z[i] * c[i] + prev[i] * (1.0 - c[i]);
}

/* v6, v7: it multiplies prev. */
static void shift(const ref_model *m, size_t l, const char *name, const double *z,
                  const double *prev, double *y)
{
    const double *c = vector(m, l, name);
    for (size_t i = 0; i < m->C; i++)
        y[i] = z[i] + (prev[i] - z[i]) * c[i];
}

/* ---- Time mix -------------------------------------------------------------------------------- */

/* [v4.wkv]; state aa, bb, pp */
static void time_mix_4(const ref_model *m, size_t l, const double *z, const double *prev, double *s,
                       double *out)
{
    double xk[MAX], xv[MAX], xr[MAX], k[MAX], v[MAX], r[MAX];
    const double *W = vector(m, l, "att.time_decay"), *u = vector(m, l, "att.time_first");
    double *a = s, *b = s + m->C, *p = s + 2 * m->C;
    mix(m, l, "att.time_mix_k", z, prev, xk);
    mix(m, l, "att.time_mix_v", z, prev, xv);
    mix(m, l, "att.time_mix_r", z, prev, xr);
    linear(tensor(m, l, "att.key.weight"), xk, k);
    linear(tensor(m, l, "att.value.weight"), xv, v);
    linear(tensor(m, l, "att.receptance.weight"), xr, r);
    for (size_t i = 0; i < m->A; i++) {
        double q = fmax(p[i], u[i] + k[i]);
        const double y = (exp(p[i] - q) * a[i] + exp(u[i] + k[i] - q) * v[i]) /
                         (exp(p[i] - q) * b[i] + exp(u[i] + k[i] - q));
        q = fmax(p[i] + W[i], k[i]);
        a[i] = exp(p[i] + W[i] - q) * a[i] + exp(k[i] - q) * v[i];
        b[i] = exp(p[i] + W[i] - q) * b[i] + exp(k[i] - q);
        p[i] = q;
        r[i] = sigma(r[i]) * y;
    }
    linear(tensor(m, l, "att.output.weight"), r, out);
}

/* The recurrence of v5 and v6: y uses S before the update.  [v5.wkv] */
static void wkv_56(const ref_model *m, const double *r, const double *k, const double *v,
                   const double *w, const double *u, double *S, double *y)
{
    const size_t N = m->N;
    for (size_t h = 0; h < m->H; h++, r += N, k += N, v += N, w += N, u += N, y += N, S += N * N)
        for (size_t i = 0; i < N; i++) {
            y[i] = 0.0;
            for (size_t j = 0; j < N; j++) {
                y[i] += r[j] * (S[i * N + j] + u[j] * k[j] * v[i]);
                S[i * N + j] = w[j] * S[i * N + j] + k[j] * v[i];
            }
        }
}

/* One number per channel or one per head, as one per channel. */
static void spread(const ref_model *m, const ref_tensor *t, double *y)
{
    for (size_t i = 0; i < m->A; i++)
        y[i] = t->count == m->A ? t->x[i] : t->x[i / m->N];
}

static void time_mix_5(const ref_model *m, size_t l, const double *z, const double *prev, double *S,
                       double *out)
{
    double xk[MAX], xv[MAX], xr[MAX], xg[MAX], k[MAX], v[MAX], r[MAX], g[MAX], w[MAX], u[MAX],
        y[MAX];
    const ref_tensor *bonus = find_in_layer(m, l, "att.time_faaaa");
    spread(m, tensor(m, l, "att.time_decay"), w);
    spread(m, bonus ? bonus : tensor(m, l, "att.time_first"), u);
    mix(m, l, "att.time_mix_k", z, prev, xk);
    mix(m, l, "att.time_mix_v", z, prev, xv);
    mix(m, l, "att.time_mix_r", z, prev, xr);
    linear(tensor(m, l, "att.key.weight"), xk, k);
    linear(tensor(m, l, "att.value.weight"), xv, v);
    linear(tensor(m, l, "att.receptance.weight"), xr, r);
    wkv_56(m, r, k, v, w, u, S, y);
    group_norm(m, l, y);
    if (m->version != REF_V5_0) {
        mix(m, l, "att.time_mix_g", z, prev, xg);
        linear(tensor(m, l, "att.gate.weight"), xg, g);
        for (size_t i = 0; i < m->A; i++)
            y[i] *= g[i] * sigma(g[i]);
    }
    linear(tensor(m, l, "att.output.weight"), y, out);
}

/* The dynamic shift: x[n] for n = w, k, v, r, g.  [v6.ddlerp] */
static void shift_6(const ref_model *m, size_t l, const double *z, const double *prev,
                    double x[5][MAX])
{
    static const char *const names[5] = { "att.time_maa_w", "att.time_maa_k", "att.time_maa_v",
                                          "att.time_maa_r", "att.time_maa_g" };
    const size_t C = m->C, D = tensor(m, l, "att.time_maa_w1")->count / C / 5;
    double xx[MAX], e[MAX], by[MAX];
    shift(m, l, "att.time_maa_x", z, prev, xx);
    times(xx, vector(m, l, "att.time_maa_w1"), C, 5 * D, e);
    for (size_t i = 0; i < 5 * D; i++)
        e[i] = tanh(e[i]);
    for (size_t n = 0; n < 5; n++) {
        const double *maa = vector(m, l, names[n]);
        times(e + n * D, vector(m, l, "att.time_maa_w2") + n * D * C, D, C, by);
        for (size_t i = 0; i < C; i++)
            x[n][i] = z[i] + (prev[i] - z[i]) * (maa[i] + by[i]);
    }
}

static void time_mix_6(const ref_model *m, size_t l, const double *z, const double *prev, double *S,
                       double *out)
{
    enum { W, K, V, R, G };
    double x[5][MAX], low[MAX], w[MAX], k[MAX], v[MAX], r[MAX], g[MAX], y[MAX];
    const size_t E = tensor(m, l, "att.time_decay_w1")->count / m->C;
    shift_6(m, l, z, prev, x);
    times(x[W], vector(m, l, "att.time_decay_w1"), m->C, E, low);
    for (size_t i = 0; i < E; i++)
        low[i] = tanh(low[i]);
    times(low, vector(m, l, "att.time_decay_w2"), E, m->A, w);
    for (size_t i = 0; i < m->A; i++)
        w[i] = exp(-exp(vector(m, l, "att.time_decay")[i] + w[i]));
    linear(tensor(m, l, "att.key.weight"), x[K], k);
    linear(tensor(m, l, "att.value.weight"), x[V], v);
    linear(tensor(m, l, "att.receptance.weight"), x[R], r);
    linear(tensor(m, l, "att.gate.weight"), x[G], g);
    wkv_56(m, r, k, v, w, vector(m, l, "att.time_faaaa"), S, y);
    group_norm(m, l, y);
    for (size_t i = 0; i < m->A; i++)
        y[i] *= g[i] * sigma(g[i]);
    linear(tensor(m, l, "att.output.weight"), y, out);
}

/* y = base + f(x @ M1) @ M2; base and f may be missing. */
static void low_rank(const ref_model *m, size_t l, const double *x, const char *base,
                     const char *first, double (*f)(double), const char *second, double *y)
{
    double low[MAX];
    const size_t D = tensor(m, l, first)->count / m->C;
    times(x, vector(m, l, first), m->C, D, low);
    for (size_t i = 0; f && i < D; i++)
        low[i] = f(low[i]);
    times(low, vector(m, l, second), D, m->A, y);
    for (size_t i = 0; base && i < m->A; i++)
        y[i] += vector(m, l, base)[i];
}

/* S <- S diag(w) + sa (kk a)^T + v k^T with sa = -S kk; y = S r, with the new S.  [v7.wkv] */
static void wkv_7(const ref_model *m, const double *r, const double *w, const double *k,
                  const double *v, const double *kk, const double *a, double *S, double *y)
{
    const size_t N = m->N;
    for (size_t h = 0; h < m->H; h++)
        for (size_t i = 0; i < N; i++) {
            double *row = S + (h * N + i) * N, sa = 0.0, sum = 0.0;
            const size_t at = h * N;
            for (size_t j = 0; j < N; j++)
                sa -= row[j] * kk[at + j];
            for (size_t j = 0; j < N; j++) {
                row[j] = row[j] * w[at + j] + sa * kk[at + j] * a[at + j] + v[at + i] * k[at + j];
                sum += row[j] * r[at + j];
            }
            y[at + i] = sum;
        }
}

/* kk = k * k_k, of length one in each head. */
static void removal_key(const ref_model *m, size_t l, const double *k, double *kk)
{
    const double *k_k = vector(m, l, "att.k_k");
    for (size_t h = 0; h < m->H; h++) {
        double square = 0.0;
        for (size_t i = h * m->N; i < (h + 1) * m->N; i++) {
            kk[i] = k[i] * k_k[i];
            square += kk[i] * kk[i];
        }
        for (size_t i = h * m->N; i < (h + 1) * m->N; i++)
            kk[i] /= fmax(sqrt(square), 1e-12);
    }
}

static void time_mix_7(const ref_model *m, size_t l, const double *z, const double *prev, double *S,
                       double *v_first, double *out)
{
    double x[MAX], r[MAX], w[MAX], k[MAX], v[MAX], a[MAX], g[MAX], kk[MAX], y[MAX], nu[MAX];
    shift(m, l, "att.x_r", z, prev, x);
    linear(tensor(m, l, "att.receptance.weight"), x, r);
    shift(m, l, "att.x_w", z, prev, x);
    low_rank(m, l, x, "att.w0", "att.w1", tanh, "att.w2", w);
    shift(m, l, "att.x_k", z, prev, x);
    linear(tensor(m, l, "att.key.weight"), x, k);
    shift(m, l, "att.x_v", z, prev, x);
    linear(tensor(m, l, "att.value.weight"), x, v);
    if (l > 0) low_rank(m, l, x, "att.v0", "att.v1", NULL, "att.v2", nu);
    shift(m, l, "att.x_a", z, prev, x);
    low_rank(m, l, x, "att.a0", "att.a1", NULL, "att.a2", a);
    shift(m, l, "att.x_g", z, prev, x);
    low_rank(m, l, x, NULL, "att.g1", sigma, "att.g2", g);
    removal_key(m, l, k, kk);
    for (size_t i = 0; i < m->A; i++) {
        w[i] = exp(-exp(-0.5) * sigma(w[i]));
        a[i] = sigma(a[i]);
        k[i] *= 1.0 + (a[i] - 1.0) * vector(m, l, "att.k_a")[i];
        if (l == 0) v_first[i] = v[i];
        if (l > 0) v[i] += (v_first[i] - v[i]) * sigma(nu[i]);
    }
    wkv_7(m, r, w, k, v, kk, a, S, y);
    group_norm(m, l, y);
    for (size_t h = 0; h < m->H; h++) {
        double sum = 0.0;
        for (size_t i = h * m->N; i < (h + 1) * m->N; i++)
            sum += r[i] * k[i] * vector(m, l, "att.r_k")[i];
        for (size_t i = h * m->N; i < (h + 1) * m->N; i++)
            y[i] = (y[i] + sum * v[i]) * g[i];
    }
    linear(tensor(m, l, "att.output.weight"), y, out);
    const ref_tensor *bias = find_in_layer(m, l, "att.output.bias"); /* the task model's */
    for (size_t i = 0; bias && i < m->C; i++)
        out[i] += bias->x[i];
}

/* ---- Channel mix and the stack --------------------------------------------------------------- */

static void channel_mix(const ref_model *m, size_t l, const double *z, const double *prev,
                        double *out)
{
    double xk[MAX], xr[MAX], k[MAX], r[MAX];
    if (m->version == REF_V7) {
        shift(m, l, "ffn.x_k", z, prev, xk);
    } else if (m->version == REF_V6) {
        shift(m, l, "ffn.time_maa_k", z, prev, xk);
        shift(m, l, "ffn.time_maa_r", z, prev, xr);
    } else {
        mix(m, l, "ffn.time_mix_k", z, prev, xk);
        mix(m, l, "ffn.time_mix_r", z, prev, xr);
    }
    linear(tensor(m, l, "ffn.key.weight"), xk, k);
    for (size_t i = 0; i < m->F; i++)
        k[i] = k[i] > 0.0 ? k[i] * k[i] : 0.0;
    linear(tensor(m, l, "ffn.value.weight"), k, out);
    if (m->version == REF_V7) return;
    linear(tensor(m, l, "ffn.receptance.weight"), xr, r);
    for (size_t i = 0; i < m->C; i++)
        out[i] *= sigma(r[i]);
}

static void layer(ref_model *m, size_t l, double *x, double *v_first)
{
    double z[MAX], out[MAX];
    const size_t C = m->C;
    double *ffn_prev = m->state + l * m->layer_floats, *att_prev = ffn_prev + C;
    double *memory = att_prev + C;

    norm(C, x, vector(m, l, "ln1.weight"), vector(m, l, "ln1.bias"), 1e-5, z);
    if (m->version == REF_V4)
        time_mix_4(m, l, z, att_prev, memory, out);
    else if (m->version == REF_V6)
        time_mix_6(m, l, z, att_prev, memory, out);
    else if (m->version == REF_V7)
        time_mix_7(m, l, z, att_prev, memory, v_first, out);
    else
        time_mix_5(m, l, z, att_prev, memory, out);
    memcpy(att_prev, z, C * sizeof *z);
    for (size_t i = 0; i < C; i++)
        x[i] += out[i];

    norm(C, x, vector(m, l, "ln2.weight"), vector(m, l, "ln2.bias"), 1e-5, z);
    channel_mix(m, l, z, ffn_prev, out);
    memcpy(ffn_prev, z, C * sizeof *z);
    for (size_t i = 0; i < C; i++)
        x[i] += out[i];
}

void ref_feed(ref_model *m, const int32_t *tokens, size_t n, double *logits)
{
    const ref_tensor *ln0 = find_in_layer(m, 0, "ln0.weight"), *bias = ref_find(m, "head.bias");
    const double *emb = ref_find(m, "emb.weight")->x;
    double x[MAX], z[MAX], v_first[MAX];
    for (size_t t = 0; t < n; t++) {
        memcpy(x, emb + (size_t)tokens[t] * m->C, m->C * sizeof *x);
        if (ln0) norm(m->C, x, ln0->x, vector(m, 0, "ln0.bias"), 1e-5, x);
        for (size_t l = 0; l < m->L; l++)
            layer(m, l, x, v_first);
        if (!logits) continue;
        norm(m->C, x, ref_find(m, "ln_out.weight")->x, ref_find(m, "ln_out.bias")->x, 1e-5, z);
        linear(ref_find(m, "head.weight"), z, logits + t * m->V);
        for (size_t i = 0; bias && i < m->V; i++)
            logits[t * m->V + i] += bias->x[i];
    }
}

void ref_reset(ref_model *m)
{
    const size_t C = m->C;
    memset(m->state, 0, m->L * m->layer_floats * sizeof *m->state);
    for (size_t l = 0; l < m->L; l++) {
        double *s = m->state + l * m->layer_floats;
        const ref_tensor *tuned = find_in_layer(m, l, "att.time_state");
        for (size_t i = 4 * C; m->version == REF_V4 && i < 5 * C; i++)
            s[i] = -1e38;
        if (tuned) memcpy(s + 2 * C, tuned->x, tuned->count * sizeof *tuned->x);
    }
}

/* ---- Reading --------------------------------------------------------------------------------- */

static void read_values(const cv_checkpoint *ckpt, const cv_tensor *from, double *x)
{
    corvid_error err;
    void *raw = malloc(from->count * sizeof(double) + 64);
    float *values = malloc(from->count * sizeof *values + 64);
    assert_non_null(raw);
    assert_non_null(values);
    ASSERT_OK(cv_tensor_read(ckpt, from, 0, from->count, raw, &err), &err);
    if (from->dtype == CV_F64) {
        memcpy(x, raw, from->count * sizeof *x);
    } else if (from->dtype == CV_I64) {
        for (size_t i = 0; i < from->count; i++)
            x[i] = (double)((const int64_t *)raw)[i];
    } else {
        cv_to_f32(from->dtype, raw, values, from->count);
        for (size_t i = 0; i < from->count; i++)
            x[i] = (double)values[i];
    }
    free(values);
    free(raw);
}

/* The reverse task model's names as official ones: rwkv1 is the time mix of layer 0, ... */
static void official_name(const char *name, char *out, size_t n)
{
    unsigned l = 0;
    int used = 0;
    if (!strncmp(name, "param.", 6)) name += 6;
    if (!strncmp(name, "e.", 2))
        snprintf(out, n, "emb.%s", name + 2);
    else if (!strncmp(name, "o.", 2))
        snprintf(out, n, "head.%s", name + 2);
    else if (!strncmp(name, "lno.", 4))
        snprintf(out, n, "ln_out.%s", name + 4);
    else if (sscanf(name, "ln%1ua.%n", &l, &used) == 1 && used)
        snprintf(out, n, "blocks.%u.ln1.%s", l - 1, name + used);
    else if (sscanf(name, "ln%1ub.%n", &l, &used) == 1 && used)
        snprintf(out, n, "blocks.%u.ln2.%s", l - 1, name + used);
    else if (sscanf(name, "rwkv%1u.%n", &l, &used) == 1 && used)
        snprintf(out, n, "blocks.%u.att.%s", l - 1, name + used);
    else if (sscanf(name, "ffn%1u.%n", &l, &used) == 1 && used)
        snprintf(out, n, "blocks.%u.ffn.%s", l - 1, name + used);
    else if (sscanf(name, "rosa%1u.o.bias%n", &l, &used) == 1 && used)
        snprintf(out, n, "blocks.%u.att.output.bias", l - 1);
    else
        snprintf(out, n, "%s", name);
}

/* rwkv.cpp turns the low-rank matrices: back to [in][out]. */
static void turn_back(ref_tensor *t)
{
    static const char *const turned[] = { ".w1",
                                          ".w2",
                                          ".a1",
                                          ".a2",
                                          ".v1",
                                          ".v2",
                                          ".g1",
                                          ".g2",
                                          ".time_maa_w1",
                                          ".time_maa_w2",
                                          ".time_decay_w1",
                                          ".time_decay_w2" };
    const char *last = strrchr(t->name, '.');
    bool found = false;
    for (size_t i = 0; last && i < sizeof turned / sizeof *turned; i++)
        found |= !strcmp(last, turned[i]);
    if (!found) return;
    const size_t rows = t->dims[t->n_dims - 2], cols = t->dims[t->n_dims - 1], one = rows * cols;
    double *x = malloc(t->count * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < t->count; i++)
        x[i / one * one + i % cols * rows + i % one / cols] = t->x[i];
    free(t->x);
    t->x = x;
    t->dims[t->n_dims - 2] = cols;
    t->dims[t->n_dims - 1] = rows;
}

/* Reads every tensor; rwkv.cpp's six fused vectors come apart. */
static void read_tensors(ref_model *m, const cv_checkpoint *ckpt)
{
    m->tensors = calloc(ckpt->n_tensors * 6, sizeof *m->tensors);
    assert_non_null(m->tensors);
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        const cv_tensor *from = &ckpt->tensors[i];
        ref_tensor *t = &m->tensors[m->n_tensors++];
        official_name(from->name, t->name, sizeof t->name);
        t->n_dims = from->n_dims;
        t->count = from->count;
        memcpy(t->dims, from->dims, sizeof t->dims);
        t->x = malloc(from->count * sizeof *t->x + 1);
        assert_non_null(t->x);
        read_values(ckpt, from, t->x);
        if (ckpt->format == CV_RWKVCPP) turn_back(t);
        char *fused = strstr(t->name, "x_rwkvag");
        for (size_t part = 0; fused && part < 6; part++) {
            ref_tensor *one = &m->tensors[m->n_tensors++];
            *one = *t;
            sprintf(strstr(one->name, "x_rwkvag"), "x_%c", "rwkvag"[part]);
            one->count = t->count / 6;
            one->x = malloc(one->count * sizeof *one->x);
            assert_non_null(one->x);
            memcpy(one->x, t->x + part * one->count, one->count * sizeof *one->x);
        }
    }
    qsort(m->tensors, m->n_tensors, sizeof *m->tensors, by_name);
}

/* Which version the names say it is. */
static ref_version version_of(const ref_model *m)
{
    if (any_ends_with(m, "att.r_k")) return REF_V7;
    if (any_ends_with(m, "att.time_maa_x")) return REF_V6;
    if (!any_ends_with(m, "att.ln_x.weight")) return REF_V4;
    if (!any_ends_with(m, "att.gate.weight")) return REF_V5_0;
    const ref_tensor *decay = tensor(m, 0, "att.time_decay");
    return decay->n_dims > 1 && decay->dims[1] > 1 ? REF_V5_2 : REF_V5_1;
}

static void learn_sizes(ref_model *m)
{
    const ref_tensor *emb = ref_find(m, "emb.weight");
    assert_non_null(emb);
    m->V = emb->dims[0];
    m->C = emb->dims[1];
    while (find_in_layer(m, m->L, "ln1.weight"))
        m->L++;
    m->A = tensor(m, 0, "att.key.weight")->dims[0];
    m->F = tensor(m, 0, "ffn.key.weight")->dims[0];
    if (m->version == REF_V4)
        m->H = m->A;
    else if (m->version == REF_V7)
        m->H = tensor(m, 0, "att.r_k")->dims[0];
    else if (m->version == REF_V6)
        m->H = tensor(m, 0, "att.time_faaaa")->dims[0];
    else
        m->H = tensor(m, 0, "att.time_decay")->dims[0];
    m->N = m->A / m->H;
    m->layer_floats = 2 * m->C + (m->version == REF_V4 ? 3 * m->C : m->A * m->N);
    assert_true(m->C <= MAX && m->F <= MAX && m->A <= MAX);
}

/* Decay and bonus as the equations use them, unless the file has them so already.  [v5.decay] */
static void transform(ref_model *m)
{
    for (size_t i = 0; i < m->n_tensors; i++) {
        ref_tensor *t = &m->tensors[i];
        const char *last = strrchr(t->name, '.');
        const bool decay = last && !strcmp(last, ".time_decay");
        const bool first = last && !strcmp(last, ".time_first");
        if (m->version >= REF_V6 || strncmp(t->name, "blocks.", 7)) continue;
        for (size_t j = 0; j < t->count; j++) {
            if (decay) t->x[j] = m->version == REF_V4 ? -exp(t->x[j]) : exp(-exp(t->x[j]));
            if (first && m->version != REF_V4) t->x[j] = exp(t->x[j]);
        }
    }
}

ref_model *ref_open(const char *path, double group_norm_eps)
{
    corvid_error err;
    cv_checkpoint ckpt;
    ref_model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    const bool baked = ckpt.format == CV_RWKVCPP;
    read_tensors(m, &ckpt);
    cv_checkpoint_close(&ckpt);
    m->version = version_of(m);
    m->group_norm_eps = group_norm_eps > 0.0 ? group_norm_eps : 64e-5;
    learn_sizes(m);
    if (!baked) transform(m);
    m->state = calloc(m->L * m->layer_floats, sizeof *m->state);
    assert_non_null(m->state);
    ref_reset(m);
    return m;
}

void ref_close(ref_model *m)
{
    if (!m) return;
    for (size_t i = 0; i < m->n_tensors; i++)
        free(m->tensors[i].x);
    free(m->tensors);
    free(m->state);
    free(m);
}
