/* rwkv7.c - RWKV-7 "Goose": the state unlearns before it learns.
 *
 *     r = R xr,  k = K xk,  v = V xv
 *     w = exp(-e^-1/2 sigma(w0 + W2 tanh(W1 xw)))          decay, in (0.545, 1)      [v7.decay]
 *     v = v + (v_first - v) sigma(v0 + V2 V1 xv)           layers > 0               [v7.vfirst]
 *     a = sigma(a0 + A2 A1 xa)                             in-context learning rate   [v7.iclr]
 *     g = G2 sigma(G1 xg)                                  gate                       [v7.gate]
 *     kk = k k_k / |k k_k| per head,  k = k (1 + (a - 1) k_a)                           [v7.kk]
 *     S <- S diag(w) - (S kk) (kk a)^T + v k^T,  y = S r                               [v7.wkv]
 *     x += O ((GN(y) + (r k r_k summed) v) g)                                        [v7.bonus]
 *     channel mix: x += V relu(K xk)^2, no receptance                                 [v7.cmix]
 */
#include "models/matrix_state.h"
#include "ops/delta_rule.h"
#include "ops/elementwise.h"
#include "ops/heads.h"

#define GN_EPS 64e-5f /* whatever the head size [gn] */

typedef struct layer7 {
    cv_norm ln1, ln2, ln_x;                         /* [C], [C], [A] */
    const float *x_r, *x_w, *x_k, *x_v, *x_a, *x_g; /* [C], multiply prev */
    cv_matrix R, K, V, O;                           /* [A, C], [C, A] */
    const float *w0, *a0, *v0;                      /* [A]; v0: NULL in layer 0 */
    cv_matrix w1, a1, v1, g1;                       /* [rank, C] */
    cv_matrix w2, a2, v2, g2;                       /* [A, rank] */
    const float *k_k, *k_a, *r_k;                   /* [A] */
    const float *time_state;                        /* [H][i][j] or NULL */
    const float *ffn_x_k;                           /* [C] */
    cv_matrix ffn_K, ffn_V;                         /* [F, C], [C, F] */
} layer7;

static void state_start(const cv_model *model, size_t l, float *state)
{
    const layer7 *p = cv_model_layer(model, l);
    cv_matrix_state_start(&model->sizes, p->time_state, state);
}

typedef struct buffers7 {
    float *z, *xr, *xw, *xk, *xv, *xa, *xg; /* [T][C] rowwise */
    float *r, *k, *v;                       /* [T][A] common */
    float *v_first;                         /* [T][A] common: the values of layer 0 */
    float *dw, *da, *dv, *dg;               /* [T][rank] common */
    float *w, *a, *mix, *g, *kk, *b;        /* [T][A] own heads */
    float *key, *value;                     /* [T][A] own heads: what k and v become */
    float *y, *n, *o;                       /* [T][A] common: read, normed, with bonus and gated */
    float *ffn_z, *ffn_xk;                  /* [T][C] rowwise */
    float *hidden;                          /* [T][F] common */
    bool began;                             /* v_first was taken */
} buffers7;

_Static_assert(sizeof(buffers7) <= CV_BUFFERS_MAX, "room for the buffers of a layer");

/* A buffer for what is made of another: without a tape, in its place. */
static float *take_behind(cv_run *run, float *other, size_t width)
{
    return run->tape ? cv_take_common(run, width) : other;
}

static void take_heads(cv_run *run, const cv_sizes *s, buffers7 *b)
{
    float **common[] = { &b->r, &b->k, &b->v, &b->y };
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        *common[i] = cv_take_common(run, s->A);
    if (!b->began) b->v_first = cv_take_common(run, s->A);
    b->began = true;
    b->w = cv_take_own(run, s->A);
    cv_take_memory(run, run->T * s->A);
    float **own[] = { &b->a, &b->mix, &b->g, &b->kk, &b->b };
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        *own[i] = cv_take_own(run, s->A);
    b->key = take_behind(run, b->k, s->A);
    b->value = take_behind(run, b->v, s->A);
    b->n = take_behind(run, b->y, s->A);
    cv_take_memory(run, run->T * (s->A + s->H));
    b->o = take_behind(run, b->n, s->A);
}

static void take(cv_run *run, const cv_model *model, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    buffers7 *b = buffers;
    b->z = cv_take_rowwise(run, s->C);
    cv_take_memory(run, run->T * (s->C + 1));
    float **rowwise[] = { &b->xr, &b->xw, &b->xk, &b->xv, &b->xa, &b->xg };
    for (size_t i = 0; i < sizeof rowwise / sizeof *rowwise; i++)
        *rowwise[i] = cv_take_rowwise(run, s->C);
    b->dw = cv_take_common(run, s->w);
    b->da = cv_take_common(run, s->a);
    b->dv = cv_take_common(run, s->v);
    b->dg = cv_take_common(run, s->g);
    take_heads(run, s, b);
    b->ffn_z = take_behind(run, b->z, s->C);
    cv_take_memory(run, run->T * (s->C + 1));
    b->ffn_xk = take_behind(run, b->xk, s->C);
    b->hidden = cv_take_common(run, s->F);
}

/* Decay, learning rate and gate of this member's heads, and the values that they use: in layer 0
 * those are v_first. */
static void low_rank(const cv_run *run, const cv_sizes *s, const layer7 *p, bool first, size_t lo,
                     size_t hi, const buffers7 *b)
{
    const size_t A = s->A, begin = lo * s->N, end = hi * s->N;
    cv_linear_part(run, &p->w2, begin, end, b->dw, b->w);
    cv_biased(run, CV_CURVE_DECAY7, begin, end, A, p->w0, b->w); /* [v7.decay] */
    cv_linear_part(run, &p->a2, begin, end, b->da, b->a);
    cv_biased(run, CV_CURVE_SIGMOID, begin, end, A, p->a0, b->a); /* [v7.iclr] */
    cv_linear_part(run, &p->g2, begin, end, b->dg, b->g);         /* [v7.gate] */
    if (first) return;
    cv_linear_part(run, &p->v2, begin, end, b->dv, b->mix);
    cv_biased(run, CV_CURVE_SIGMOID, begin, end, A, p->v0, b->mix);
    cv_blend(run, begin, end, A, b->v, b->v_first, b->mix, b->value); /* [v7.vfirst] */
}

/* Everything between the projections and the output matrix, for this member's heads. */
static void mix_heads(const cv_run *run, const cv_sizes *s, const layer7 *p, bool first,
                      size_t state, const buffers7 *b)
{
    const size_t A = s->A, N = s->N;
    const float *value = first ? b->v_first : b->value;
    size_t lo, hi;
    cv_own_heads(run, s->H, N, &lo, &hi);
    low_rank(run, s, p, first, lo, hi, b);

    const cv_keys7 keys = { b->k, p->k_k, p->k_a, b->a, b->kk, b->b, b->key };
    cv_keys7_heads(run, lo, hi, N, A, &keys); /* [v7.kk] */
    cv_wkv7_heads(run, lo, hi, N, A, b->r, b->w, b->key, value, b->kk, b->b, b->y,
                  state + CV_HEADS * s->C); /* [v7.wkv] */
    cv_group_norm(run, lo, hi, N, A, p->ln_x, GN_EPS, b->y, b->n);
    const cv_bonus7 bonus = { b->r, b->key, p->r_k, value, b->g, b->n, b->o };
    cv_bonus7_heads(run, lo, hi, N, A, &bonus); /* [v7.bonus] */
}

static void time_mix(const cv_run *run, const cv_sizes *s, const layer7 *p, bool first,
                     size_t state, float *x, const buffers7 *b)
{
    const size_t C = s->C, shift = state + CV_SHIFT_ATT * C;

    cv_layer_norm(run, C, x, p->ln1, b->z);
    cv_settle(run);
    const cv_mix mixes[] = { { p->x_r, b->xr }, { p->x_w, b->xw }, { p->x_k, b->xk },
                             { p->x_v, b->xv }, { p->x_a, b->xa }, { p->x_g, b->xg } };
    cv_shift_mix(run, C, b->z, shift, mixes, 6); /* [v7.shift] */
    cv_settle(run);

    const cv_linear in[] = { { .W = &p->R, .x = b->xr, .y = b->r },
                             { .W = &p->K, .x = b->xk, .y = b->k },
                             { .W = &p->V, .x = b->xv, .y = first ? b->v_first : b->v },
                             { .W = &p->w1, .x = b->xw, .y = b->dw, .act = CV_ACT_TANH },
                             { .W = &p->a1, .x = b->xa, .y = b->da },
                             { .W = &p->g1, .x = b->xg, .y = b->dg, .act = CV_ACT_SIGMOID },
                             { .W = &p->v1, .x = b->xv, .y = b->dv } };
    cv_linear_all(run, in, first ? 6 : 7);
    cv_meet(run);
    cv_shift_keep(run, C, b->z, shift);

    mix_heads(run, s, p, first, state, b);
    cv_meet(run);

    const cv_linear out = { .W = &p->O, .x = b->o, .y = x, .add = true };
    cv_linear_all(run, &out, 1);
    cv_meet(run);
}

static void channel_mix(const cv_run *run, const cv_sizes *s, const layer7 *p, size_t shift,
                        float *x, const buffers7 *b)
{
    cv_layer_norm(run, s->C, x, p->ln2, b->ffn_z);
    cv_settle(run);
    const cv_mix mix = { p->ffn_x_k, b->ffn_xk };
    cv_shift_mix(run, s->C, b->ffn_z, shift, &mix, 1);
    cv_settle(run);

    const cv_linear in = { .W = &p->ffn_K, .x = b->ffn_xk, .y = b->hidden, .act = CV_ACT_RELU2 };
    cv_linear_all(run, &in, 1);
    cv_meet(run);
    cv_shift_keep(run, s->C, b->ffn_z, shift);

    const cv_linear out = { .W = &p->ffn_V, .x = b->hidden, .y = x, .add = true };
    cv_linear_all(run, &out, 1); /* [v7.cmix] */
    cv_meet(run);
}

static void layer(const cv_run *run, const cv_model *model, size_t l, float *x, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    const layer7 *p = cv_model_layer(model, l);
    const buffers7 *b = buffers;
    const size_t state = l * cv_matrix_state_size(s);
    time_mix(run, s, p, l == 0, state, x, b);
    channel_mix(run, s, p, state + CV_SHIFT_FFN * s->C, x, b);
}

static size_t back_scratch(const cv_sizes *s, size_t T)
{
    return cv_delta_own_scratch(T, s->N);
}

/* ---- Names ----------------------------------------------------------------------------------- */

static bool detect(const cv_checkpoint *ckpt)
{
    return cv_has_suffix(ckpt, "att.r_k") || cv_has_suffix(ckpt, "time_mix_r_k.weight");
}

#define AT(member)           offsetof(layer7, member)
#define NAME(official, gguf) { official, CV_WHOLE }, { gguf, CV_WHOLE }, CV_NOWHERE
#define FUSED(official, i)                                       \
    { official, CV_WHOLE }, { "time_mix_lerp_fused.weight", i }, \
    {                                                            \
        "att.x_rwkvag", i                                        \
    }
static const cv_field fields[] = {
    { NAME("ln1.weight", "attn_norm.weight"), CV_VECTOR, "C", AT(ln1.w), CV_AS_IS, 0 },
    { NAME("ln1.bias", "attn_norm.bias"), CV_VECTOR, "C", AT(ln1.b), CV_AS_IS, 0 },
    { FUSED("att.x_r", 0), CV_VECTOR, "11C", AT(x_r), CV_AS_IS, 0 },
    { FUSED("att.x_w", 1), CV_VECTOR, "11C", AT(x_w), CV_AS_IS, 0 },
    { FUSED("att.x_k", 2), CV_VECTOR, "11C", AT(x_k), CV_AS_IS, 0 },
    { FUSED("att.x_v", 3), CV_VECTOR, "11C", AT(x_v), CV_AS_IS, 0 },
    { FUSED("att.x_a", 4), CV_VECTOR, "11C", AT(x_a), CV_AS_IS, 0 },
    { FUSED("att.x_g", 5), CV_VECTOR, "11C", AT(x_g), CV_AS_IS, 0 },
    { NAME("att.receptance.weight", "time_mix_receptance.weight"), CV_MATRIX, "AC", AT(R), CV_AS_IS,
      0 },
    { NAME("att.key.weight", "time_mix_key.weight"), CV_MATRIX, "AC", AT(K), CV_AS_IS, 0 },
    { NAME("att.value.weight", "time_mix_value.weight"), CV_MATRIX, "AC", AT(V), CV_AS_IS, 0 },
    { NAME("att.output.weight", "time_mix_output.weight"), CV_MATRIX, "CA", AT(O), CV_AS_IS, 0 },
    { NAME("att.w0", "time_mix_w0.weight"), CV_VECTOR, "11A", AT(w0), CV_AS_IS, 0 },
    { NAME("att.w1", "time_mix_w1.weight"), CV_LOW_RANK, "wC", AT(w1), CV_AS_IS, 0 },
    { NAME("att.w2", "time_mix_w2.weight"), CV_LOW_RANK, "Aw", AT(w2), CV_AS_IS, 0 },
    { NAME("att.a0", "time_mix_a0.weight"), CV_VECTOR, "11A", AT(a0), CV_AS_IS, 0 },
    { NAME("att.a1", "time_mix_a1.weight"), CV_LOW_RANK, "aC", AT(a1), CV_AS_IS, 0 },
    { NAME("att.a2", "time_mix_a2.weight"), CV_LOW_RANK, "Aa", AT(a2), CV_AS_IS, 0 },
    { NAME("att.v0", "time_mix_v0.weight"), CV_VECTOR, "11A", AT(v0), CV_AS_IS, CV_NOT_FIRST },
    { NAME("att.v1", "time_mix_v1.weight"), CV_LOW_RANK, "vC", AT(v1), CV_AS_IS, CV_NOT_FIRST },
    { NAME("att.v2", "time_mix_v2.weight"), CV_LOW_RANK, "Av", AT(v2), CV_AS_IS, CV_NOT_FIRST },
    { NAME("att.g1", "time_mix_g1.weight"), CV_LOW_RANK, "gC", AT(g1), CV_AS_IS, 0 },
    { NAME("att.g2", "time_mix_g2.weight"), CV_LOW_RANK, "Ag", AT(g2), CV_AS_IS, 0 },
    { NAME("att.k_k", "time_mix_k_k.weight"), CV_VECTOR, "11A", AT(k_k), CV_AS_IS, 0 },
    { NAME("att.k_a", "time_mix_k_a.weight"), CV_VECTOR, "11A", AT(k_a), CV_AS_IS, 0 },
    { NAME("att.r_k", "time_mix_r_k.weight"), CV_VECTOR, "HN", AT(r_k), CV_AS_IS, CV_FLAT },
    { NAME("att.ln_x.weight", "time_mix_ln.weight"), CV_VECTOR, "A", AT(ln_x.w), CV_AS_IS, 0 },
    { NAME("att.ln_x.bias", "time_mix_ln.bias"), CV_VECTOR, "A", AT(ln_x.b), CV_AS_IS, 0 },
    { NAME("att.time_state", NULL), CV_VECTOR, "HNN", AT(time_state), CV_AS_IS, CV_OPTIONAL },
    { NAME("ln2.weight", "attn_norm_2.weight"), CV_VECTOR, "C", AT(ln2.w), CV_AS_IS, 0 },
    { NAME("ln2.bias", "attn_norm_2.bias"), CV_VECTOR, "C", AT(ln2.b), CV_AS_IS, 0 },
    { NAME("ffn.x_k", "channel_mix_lerp_k.weight"), CV_VECTOR, "11C", AT(ffn_x_k), CV_AS_IS, 0 },
    { NAME("ffn.key.weight", "channel_mix_key.weight"), CV_MATRIX, "FC", AT(ffn_K), CV_AS_IS, 0 },
    { NAME("ffn.value.weight", "channel_mix_value.weight"), CV_MATRIX, "CF", AT(ffn_V), CV_AS_IS,
      0 },
};

const cv_arch cv_rwkv7 = {
    .name = "rwkv7",
    .stack = &cv_language_stack,
    .detect = detect,
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .layer_bytes = sizeof(layer7),
    .state_size = cv_matrix_state_size,
    .state_start = state_start,
    .state_export = cv_matrix_state_export,
    .state_import = cv_matrix_state_import,
    .buffers_bytes = sizeof(buffers7),
    .take = take,
    .layer = layer,
    .back_scratch = back_scratch,
};
