/* rwkv6.c - RWKV-6 "Finch": token shift and decay depend on the token, through low-rank maps.
 *
 *     d = prev - z,  e = tanh(W1 (z + d maa_x)),  m_n = W2_n e_n for n = w, k, v, r, g
 *     x_n = z + d (maa_n + m_n)                                                     [v6.ddlerp]
 *     w = exp(-exp(decay + D2 tanh(D1 xw)))                one decay per token       [v6.decay]
 *     the recurrence, norm and gate of version 5                                       [v6.wkv]
 *
 * The channel mix is that of channel_mix.h with maa coefficients [v6.cmix]. */
#include "models/channel_mix.h"
#include "models/matrix_state.h"
#include "ops/elementwise.h"
#include "ops/heads.h"

#define GN_EPS 64e-5f /* 1e-5 * 8^2, 8 the head size divisor [v5.gn] */

/* The five mixes, in the order of the slices of W2. */
enum { MIX_W, MIX_K, MIX_V, MIX_R, MIX_G, MIXES };

typedef struct layer6 {
    cv_norm ln1, ln_x;               /* [C], [A] */
    const float *maa_x, *maa[MIXES]; /* [C], multiply prev */
    cv_matrix W1, W2[MIXES];         /* [M, C], [C, D] each */
    const float *decay, *u;          /* [A] raw decay, [A] bonus */
    cv_matrix D1, D2;                /* [E, C], [A, E] */
    cv_matrix R, K, V, G, O;         /* [A, C], [C, A] */
    const float *time_state;         /* [H][i][j] or NULL */
    cv_channel_mix ffn;
} layer6;

static void state_start(const cv_model *model, size_t l, float *state)
{
    const layer6 *p = cv_model_layer(model, l);
    cv_matrix_state_start(&model->sizes, p->time_state, state);
}

typedef struct buffers6 {
    float *z, *d, *xx, *x[MIXES]; /* [T][C] rowwise */
    float *e, *m[MIXES];          /* [T][M], [T][C] common */
    float *dw;                    /* [T][E] common */
    float *r, *k, *v, *g, *y;     /* [T][A] common */
    float *n, *o;                 /* [T][A] common: the norm of y, and gated */
    float *w;                     /* [T][A] own heads */
    cv_channel_buffers ffn;
} buffers6;

_Static_assert(sizeof(buffers6) <= CV_BUFFERS_MAX, "room for the buffers of a layer");

static void take(cv_run *run, const cv_model *model, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    buffers6 *b = buffers;
    b->z = cv_take_rowwise(run, s->C);
    cv_take_memory(run, run->T * (s->C + 1));
    b->d = cv_take_rowwise(run, s->C);
    b->xx = cv_take_rowwise(run, s->C);
    b->e = cv_take_common(run, s->M);
    for (size_t n = 0; n < MIXES; n++) {
        b->x[n] = cv_take_rowwise(run, s->C);
        b->m[n] = cv_take_common(run, s->C);
    }
    b->dw = cv_take_common(run, s->E);
    b->r = cv_take_common(run, s->A);
    b->k = cv_take_common(run, s->A);
    b->v = cv_take_common(run, s->A);
    b->g = cv_take_common(run, s->A);
    cv_take_memory(run, run->T * s->A);
    b->y = cv_take_common(run, s->A);
    b->n = cv_take_common(run, s->A);
    cv_take_memory(run, run->T * (s->A + s->H));
    b->o = cv_take_common(run, s->A);
    b->w = cv_take_own(run, s->A);
    cv_take_memory(run, run->T * s->A);
    cv_channel_mix_take(run, s, &b->ffn);
}

/* The five inputs of time mixing: how much of the previous token each channel takes is decided by
 * the tokens themselves. */
static void shift(const cv_run *run, const cv_sizes *s, const layer6 *p, size_t state,
                  const buffers6 *b)
{
    const size_t C = s->C;
    const cv_mix first = { p->maa_x, b->xx };
    cv_shift_mix(run, C, b->z, state, &first, 1);
    cv_shift_delta(run, C, b->z, state, b->d);
    cv_settle(run);

    const cv_linear down = { .W = &p->W1, .x = b->xx, .y = b->e, .act = CV_ACT_TANH };
    cv_linear_all(run, &down, 1);
    cv_meet(run);
    cv_shift_keep(run, C, b->z, state);

    cv_linear up[MIXES];
    for (size_t n = 0; n < MIXES; n++)
        up[n] = (cv_linear){ .W = &p->W2[n], .x = b->e + n * s->D, .ldx = s->M, .y = b->m[n] };
    cv_linear_all(run, up, MIXES);
    cv_meet(run);

    for (size_t n = 0; n < MIXES; n++)
        cv_mix_by_token(run, C, b->z, b->d, p->maa[n], b->m[n], b->x[n]);
    cv_settle(run);
}

static void time_mix(const cv_run *run, const cv_sizes *s, const layer6 *p, size_t state, float *x,
                     const buffers6 *b)
{
    const size_t C = s->C, A = s->A, N = s->N;

    cv_layer_norm(run, C, x, p->ln1, b->z);
    cv_settle(run);
    shift(run, s, p, state + CV_SHIFT_ATT * C, b); /* [v6.ddlerp] */

    const cv_linear in[] = { { .W = &p->R, .x = b->x[MIX_R], .y = b->r },
                             { .W = &p->K, .x = b->x[MIX_K], .y = b->k },
                             { .W = &p->V, .x = b->x[MIX_V], .y = b->v },
                             { .W = &p->G, .x = b->x[MIX_G], .y = b->g, .act = CV_ACT_SILU },
                             { .W = &p->D1, .x = b->x[MIX_W], .y = b->dw, .act = CV_ACT_TANH } };
    cv_linear_all(run, in, 5);
    cv_meet(run);

    size_t lo, hi;
    cv_own_heads(run, s->H, N, &lo, &hi);
    cv_linear_part(run, &p->D2, lo * N, hi * N, b->dw, b->w);
    cv_biased(run, CV_CURVE_DECAY6, lo * N, hi * N, A, p->decay, b->w); /* [v6.decay] */
    cv_wkv5_heads(run, lo, hi, N, A, b->r, b->w, true, b->k, b->v, p->u, b->y,
                  state + CV_HEADS * C); /* [v6.wkv] */
    cv_group_norm(run, lo, hi, N, A, p->ln_x, GN_EPS, b->y, b->n);
    cv_gate(run, lo, hi, N, A, b->n, b->g, b->o);
    cv_meet(run);

    const cv_linear out = { .W = &p->O, .x = b->o, .y = x, .add = true };
    cv_linear_all(run, &out, 1);
    cv_meet(run);
}

static void layer(const cv_run *run, const cv_model *model, size_t l, float *x, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    const layer6 *p = cv_model_layer(model, l);
    const buffers6 *b = buffers;
    const size_t state = l * cv_matrix_state_size(s);
    time_mix(run, s, p, state, x, b);
    cv_channel_mix_rows(run, s, &p->ffn, state + CV_SHIFT_FFN * s->C, x, &b->ffn);
}

static size_t back_scratch(const cv_sizes *s, size_t T)
{
    return cv_wkv5_own_scratch(T, s->N);
}

/* ---- Names ----------------------------------------------------------------------------------- */

static bool detect(const cv_checkpoint *ckpt)
{
    return cv_has_suffix(ckpt, "att.time_maa_w1") ||
           cv_has_suffix(ckpt, "time_mix_decay_w1.weight");
}

#define AT(member)               offsetof(layer6, member)
#define NAME(official, gguf)     { official, CV_WHOLE }, { gguf, CV_WHOLE }, CV_NOWHERE
#define FUSED(official, i)       { official, CV_WHOLE }, { "time_mix_lerp_fused.weight", i }, CV_NOWHERE
#define SLICE(official, gguf, i) { official, i }, { gguf, i }, CV_NOWHERE
static const cv_field fields[] = {
    { NAME("ln1.weight", "attn_norm.weight"), CV_VECTOR, "C", AT(ln1.w), CV_AS_IS, 0 },
    { NAME("ln1.bias", "attn_norm.bias"), CV_VECTOR, "C", AT(ln1.b), CV_AS_IS, 0 },
    { NAME("att.receptance.weight", "time_mix_receptance.weight"), CV_MATRIX, "AC", AT(R), CV_AS_IS,
      0 },
    { NAME("att.key.weight", "time_mix_key.weight"), CV_MATRIX, "AC", AT(K), CV_AS_IS, 0 },
    { NAME("att.value.weight", "time_mix_value.weight"), CV_MATRIX, "AC", AT(V), CV_AS_IS, 0 },
    { NAME("att.gate.weight", "time_mix_gate.weight"), CV_MATRIX, "AC", AT(G), CV_AS_IS, 0 },
    { NAME("att.output.weight", "time_mix_output.weight"), CV_MATRIX, "CA", AT(O), CV_AS_IS,
      CV_RESCALED },
    { NAME("att.time_maa_x", "time_mix_lerp_x.weight"), CV_VECTOR, "11C", AT(maa_x), CV_AS_IS, 0 },
    { FUSED("att.time_maa_w", 0), CV_VECTOR, "11C", AT(maa[MIX_W]), CV_AS_IS, 0 },
    { FUSED("att.time_maa_k", 1), CV_VECTOR, "11C", AT(maa[MIX_K]), CV_AS_IS, 0 },
    { FUSED("att.time_maa_v", 2), CV_VECTOR, "11C", AT(maa[MIX_V]), CV_AS_IS, 0 },
    { FUSED("att.time_maa_r", 3), CV_VECTOR, "11C", AT(maa[MIX_R]), CV_AS_IS, 0 },
    { FUSED("att.time_maa_g", 4), CV_VECTOR, "11C", AT(maa[MIX_G]), CV_AS_IS, 0 },
    { NAME("att.time_maa_w1", "time_mix_w1.weight"), CV_LOW_RANK, "MC", AT(W1), CV_AS_IS, 0 },
    { SLICE("att.time_maa_w2", "time_mix_w2.weight", 0), CV_LOW_RANK, "CD", AT(W2[MIX_W]), CV_AS_IS,
      0 },
    { SLICE("att.time_maa_w2", "time_mix_w2.weight", 1), CV_LOW_RANK, "CD", AT(W2[MIX_K]), CV_AS_IS,
      0 },
    { SLICE("att.time_maa_w2", "time_mix_w2.weight", 2), CV_LOW_RANK, "CD", AT(W2[MIX_V]), CV_AS_IS,
      0 },
    { SLICE("att.time_maa_w2", "time_mix_w2.weight", 3), CV_LOW_RANK, "CD", AT(W2[MIX_R]), CV_AS_IS,
      0 },
    { SLICE("att.time_maa_w2", "time_mix_w2.weight", 4), CV_LOW_RANK, "CD", AT(W2[MIX_G]), CV_AS_IS,
      0 },
    { NAME("att.time_faaaa", "time_mix_first.weight"), CV_VECTOR, "HN", AT(u), CV_AS_IS, 0 },
    { NAME("att.time_decay", "time_mix_decay.weight"), CV_VECTOR, "11A", AT(decay), CV_AS_IS, 0 },
    { NAME("att.time_decay_w1", "time_mix_decay_w1.weight"), CV_LOW_RANK, "EC", AT(D1), CV_AS_IS,
      0 },
    { NAME("att.time_decay_w2", "time_mix_decay_w2.weight"), CV_LOW_RANK, "AE", AT(D2), CV_AS_IS,
      0 },
    { NAME("att.ln_x.weight", "time_mix_ln.weight"), CV_VECTOR, "A", AT(ln_x.w), CV_AS_IS, 0 },
    { NAME("att.ln_x.bias", "time_mix_ln.bias"), CV_VECTOR, "A", AT(ln_x.b), CV_AS_IS, 0 },
    { NAME("att.time_state", NULL), CV_VECTOR, "HNN", AT(time_state), CV_AS_IS, CV_OPTIONAL },
    { NAME("ln2.weight", "attn_norm_2.weight"), CV_VECTOR, "C", AT(ffn.ln2.w), CV_AS_IS, 0 },
    { NAME("ln2.bias", "attn_norm_2.bias"), CV_VECTOR, "C", AT(ffn.ln2.b), CV_AS_IS, 0 },
    { NAME("ffn.time_maa_k", "channel_mix_lerp_k.weight"), CV_VECTOR, "11C", AT(ffn.mu_k), CV_AS_IS,
      0 },
    { NAME("ffn.time_maa_r", "channel_mix_lerp_r.weight"), CV_VECTOR, "11C", AT(ffn.mu_r), CV_AS_IS,
      0 },
    { NAME("ffn.key.weight", "channel_mix_key.weight"), CV_MATRIX, "FC", AT(ffn.K), CV_AS_IS, 0 },
    { NAME("ffn.receptance.weight", "channel_mix_receptance.weight"), CV_MATRIX, "CC", AT(ffn.R),
      CV_AS_IS, 0 },
    { NAME("ffn.value.weight", "channel_mix_value.weight"), CV_MATRIX, "CF", AT(ffn.V), CV_AS_IS,
      CV_RESCALED },
};

const cv_arch cv_rwkv6 = {
    .name = "rwkv6",
    .stack = &cv_language_stack,
    .detect = detect,
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .layer_bytes = sizeof(layer6),
    .state_size = cv_matrix_state_size,
    .state_start = state_start,
    .state_export = cv_matrix_state_export,
    .state_import = cv_matrix_state_import,
    .buffers_bytes = sizeof(buffers6),
    .take = take,
    .layer = layer,
    .back_scratch = back_scratch,
};
