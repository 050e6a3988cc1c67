/* vrwkv6.c - VRWKV6: RWKV-6 over pictures, its recurrence run from both ends.
 *
 *     d = shifted - z, shifted from four neighbours within each head                  [q.shift]
 *     e = tanh(W1 (z + d maa_x)),  m_n = W2_n e_n,  x_n = z + d (maa_n + m_n)      [vrwkv6.ddlerp]
 *     w = exp(-exp(decay + D2 tanh(D1 xw)))                one decay per token        [v6.decay]
 *     y = the recurrence of version 6 from the first token on, plus the same from the last token
 *         back without the bonus                                                      [v6.bi]
 *     x += gamma O (GN(y) silu(G xg))                                                 [vrwkv6.out]
 *
 * Channel mixing is that of vrwkv.c, with this shift. */
#include "models/vision.h"
#include "ops/elementwise.h"
#include "ops/heads.h"
#include "ops/residual.h"

#define GN_EPS 1e-5f /* unlike the language models [vrwkv6.out] */

/* The five mixes, in the order of the slices of W2. */
enum { MIX_W, MIX_K, MIX_V, MIX_R, MIX_G, MIXES };

typedef struct vrwkv6_layer {
    cv_branch branch;
    const float *maa_x, *maa[MIXES]; /* [C], multiply the shift */
    cv_matrix W1, W2[MIXES];         /* [M, C], [C, D] each */
    const float *decay, *u;          /* [C] raw decay, [H][N] bonus */
    cv_matrix D1, D2;                /* [E, C], [C, E] */
    cv_matrix R, K, V, G, O;         /* [C, C] */
    cv_norm key_norm, ln_x;          /* [C]; key_norm.w NULL: none */
    cv_vision_channel_mix ffn;
} vrwkv6_layer;

typedef struct vrwkv6_buffers {
    float *z, *r, *k, *v, *g, *w, *y, *back;       /* [T][C] common */
    float *shifted, *d, *xx, *x[MIXES], *m[MIXES]; /* [T of a tile][C] */
    float *e, *dw;                                 /* [T of a tile][M], [E] */
    float *keyed, *normed, *gated;                 /* [T of a tile][C] */
    float *state;                                  /* [N][N] of this member */
    cv_branch_buffers end;
    cv_vision_channel_buffers ffn;
} vrwkv6_buffers;

_Static_assert(sizeof(vrwkv6_buffers) <= CV_BUFFERS_MAX, "room for the buffers of a layer");

static void take(cv_run *run, const cv_model *model, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    vrwkv6_buffers *b = buffers;
    b->z = cv_branch_begin_take(run, model);
    b->r = cv_take_common(run, s->C);
    b->k = cv_take_common(run, s->C);
    b->v = cv_take_common(run, s->C);
    b->g = cv_take_common(run, s->C);
    cv_take_memory(run, run->T * s->C); /* before its curve */
    b->w = cv_take_common(run, s->C);
    cv_take_memory(run, run->T * s->C);
    b->y = cv_take_common(run, s->C);
    b->back = cv_take_another(run, s->C, b->z); /* z has been read by then */
    b->shifted = cv_take_tile(run, s->C);
    b->d = cv_take_another(run, s->C, b->shifted);
    b->xx = cv_take_tile(run, s->C);
    for (size_t n = 0; n < MIXES; n++) {
        b->x[n] = cv_take_tile(run, s->C);
        b->m[n] = cv_take_tile(run, s->C);
    }
    b->e = cv_take_tile(run, s->M);
    b->dw = cv_take_tile(run, s->E);
    b->keyed = cv_take_another(run, s->C, b->xx);
    cv_take_memory(run, run->T * (s->C + 1));
    b->normed = cv_take_another(run, s->C, b->xx);
    cv_take_memory(run, run->T * (s->C + s->H));
    b->gated = cv_take_another(run, s->C, b->xx);
    b->state = cv_take_scratch(run, s->N * s->N);
    cv_branch_take(run, model, &b->end);
    cv_vision_channel_mix_take(run, model, b->k, &b->ffn);
}

/* The five inputs of a tile: how much of its neighbours each channel takes is decided by the tokens
 * themselves. */
static void mix(const cv_tile *t, const cv_sizes *s, const vrwkv6_layer *p, const cv_q_shift *shift,
                const vrwkv6_buffers *b)
{
    const size_t C = s->C;
    const float *z = b->z + t->first * C;
    const cv_mix first = { p->maa_x, b->xx };
    cv_q_shift_rows(t, C, shift, b->z, b->shifted);
    cv_q_mix(t, C, b->z, b->shifted, &first, 1);
    cv_q_delta(t, C, b->z, b->shifted, b->d);
    cv_tile_meet(t);

    const cv_linear down = { .W = &p->W1, .x = b->xx, .y = b->e, .act = CV_ACT_TANH };
    cv_linear_all(&t->run, &down, 1);
    cv_tile_meet(t);
    cv_linear up[MIXES];
    for (size_t m = 0; m < MIXES; m++)
        up[m] = (cv_linear){ .W = &p->W2[m], .x = b->e + m * s->D, .ldx = s->M, .y = b->m[m] };
    cv_linear_all(&t->run, up, MIXES);
    cv_tile_meet(t);
    for (size_t m = 0; m < MIXES; m++)
        cv_mix_by_token(&t->run, C, z, b->d, p->maa[m], b->m[m], b->x[m]);
    cv_tile_meet(t);
}

/* Everything that the recurrence reads, for this member's rows; z is complete. */
static void project(const cv_run *run, const cv_sizes *s, const vrwkv6_layer *p,
                    const cv_q_shift *shift, const vrwkv6_buffers *b)
{
    const size_t C = s->C;
    size_t lo, hi;
    for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);) {
        const size_t at = t.first * C;
        mix(&t, s, p, shift, b); /* [vrwkv6.ddlerp] */
        const cv_linear in[] = {
            { .W = &p->R, .x = b->x[MIX_R], .y = b->r + at },
            { .W = &p->K, .x = b->x[MIX_K], .y = b->k + at },
            { .W = &p->V, .x = b->x[MIX_V], .y = b->v + at },
            { .W = &p->G, .x = b->x[MIX_G], .y = b->g + at, .act = CV_ACT_SILU },
            { .W = &p->D1, .x = b->x[MIX_W], .y = b->dw, .act = CV_ACT_TANH }
        };
        const cv_linear decay = { .W = &p->D2, .x = b->dw, .y = b->w + at };
        for (size_t i = 0; i < sizeof in / sizeof *in; i++)
            cv_linear_all(&t.run, &in[i], 1);
        cv_tile_meet(&t);
        cv_linear_all(&t.run, &decay, 1);
        cv_tile_meet(&t);
        cv_own_columns(&t.run, C, &lo, &hi);
        cv_biased(&t.run, CV_CURVE_DECAY6, lo, hi, C, p->decay, b->w + at); /* [v6.decay] */
    }
}

/* What becomes of the two sums in y and back. */
static void put_out(const cv_run *run, const cv_model *model, size_t l, const vrwkv6_layer *p,
                    float *x, const vrwkv6_buffers *b)
{
    const cv_sizes *s = &model->sizes;
    const size_t C = s->C;
    size_t lo, hi;
    for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);) {
        const size_t at = t.first * C;
        float *y = b->y + at;
        cv_add_rows(&t.run, C, b->back + at, y);
        if (p->key_norm.w) {
            cv_layer_norm(&t.run, C, y, p->key_norm, b->keyed);
            y = b->keyed;
        }
        cv_tile_meet(&t);
        cv_own_heads(&t.run, s->H, s->N, &lo, &hi);
        cv_group_norm(&t.run, lo, hi, s->N, C, p->ln_x, GN_EPS, y, b->normed);
        cv_gate(&t.run, lo, hi, s->N, C, b->normed, b->g + at, b->gated);
        cv_tile_meet(&t);
        cv_branch_end(&t, model, &p->branch, 2 * l, &p->O, b->gated, NULL, &b->end,
                      x); /* [vrwkv6.out] */
    }
}

static void layer(const cv_run *run, const cv_model *model, size_t l, float *x, void *buffers)
{
    const vrwkv6_layer *p = cv_model_layer(model, l);
    const vrwkv6_buffers *b = buffers;
    const cv_sizes *s = &model->sizes;
    const cv_q_shift shift = cv_q_shift_heads(s->N, model->vision.traits.distance);

    cv_branch_begin(run, model, &p->branch, x, b->z);
    cv_meet(run);
    project(run, s, p, &shift, b);
    cv_meet(run);
    cv_wkv6_both_ways(run, s->H, s->N, b->r, b->w, b->k, b->v, p->u, b->y, b->back, b->state);
    cv_meet(run);
    put_out(run, model, l, p, x, b);
    /* z of the first half may still be read by slower members until the next meeting: the second
     * half has k for it. */
    cv_vision_channel_mix_rows(run, model, l, &p->ffn, &shift, x, &b->ffn);
}

static size_t back_scratch(const cv_sizes *s, size_t T)
{
    return cv_wkv6_both_ways_own_scratch(T, s->N);
}

static bool detect(const cv_checkpoint *ckpt)
{
    return cv_has_suffix(ckpt, "att.time_maa_w1") &&
           cv_has_suffix(ckpt, "patch_embed.projection.weight");
}

#define AT(member)         offsetof(vrwkv6_layer, member)
#define NAME(name)         { name, CV_WHOLE }, CV_NOWHERE, CV_NOWHERE
#define SLICE(official, i) { official, i }, CV_NOWHERE, CV_NOWHERE
static const cv_field fields[] = {
    { NAME("ln1.weight"), CV_VECTOR, "C", AT(branch.ln.w), CV_AS_IS, 0 },
    { NAME("ln1.bias"), CV_VECTOR, "C", AT(branch.ln.b), CV_AS_IS, 0 },
    { NAME("gamma1"), CV_VECTOR, "C", AT(branch.gamma), CV_AS_IS, CV_OPTIONAL | CV_IF_SCALED },
    { NAME("att.receptance.weight"), CV_MATRIX, "CC", AT(R), CV_AS_IS, 0 },
    { NAME("att.key.weight"), CV_MATRIX, "CC", AT(K), CV_AS_IS, 0 },
    { NAME("att.value.weight"), CV_MATRIX, "CC", AT(V), CV_AS_IS, 0 },
    { NAME("att.gate.weight"), CV_MATRIX, "CC", AT(G), CV_AS_IS, 0 },
    { NAME("att.output.weight"), CV_MATRIX, "CC", AT(O), CV_AS_IS, 0 },
    { NAME("att.time_maa_x"), CV_VECTOR, "11C", AT(maa_x), CV_AS_IS, 0 },
    { NAME("att.time_maa_w"), CV_VECTOR, "11C", AT(maa[MIX_W]), CV_AS_IS, 0 },
    { NAME("att.time_maa_k"), CV_VECTOR, "11C", AT(maa[MIX_K]), CV_AS_IS, 0 },
    { NAME("att.time_maa_v"), CV_VECTOR, "11C", AT(maa[MIX_V]), CV_AS_IS, 0 },
    { NAME("att.time_maa_r"), CV_VECTOR, "11C", AT(maa[MIX_R]), CV_AS_IS, 0 },
    { NAME("att.time_maa_g"), CV_VECTOR, "11C", AT(maa[MIX_G]), CV_AS_IS, 0 },
    { NAME("att.time_maa_w1"), CV_LOW_RANK, "MC", AT(W1), CV_AS_IS, 0 },
    { SLICE("att.time_maa_w2", 0), CV_LOW_RANK, "CD", AT(W2[MIX_W]), CV_AS_IS, 0 },
    { SLICE("att.time_maa_w2", 1), CV_LOW_RANK, "CD", AT(W2[MIX_K]), CV_AS_IS, 0 },
    { SLICE("att.time_maa_w2", 2), CV_LOW_RANK, "CD", AT(W2[MIX_V]), CV_AS_IS, 0 },
    { SLICE("att.time_maa_w2", 3), CV_LOW_RANK, "CD", AT(W2[MIX_R]), CV_AS_IS, 0 },
    { SLICE("att.time_maa_w2", 4), CV_LOW_RANK, "CD", AT(W2[MIX_G]), CV_AS_IS, 0 },
    { NAME("att.time_faaaa"), CV_VECTOR, "HN", AT(u), CV_AS_IS, 0 },
    { NAME("att.time_decay"), CV_VECTOR, "11C", AT(decay), CV_AS_IS, 0 },
    { NAME("att.time_decay_w1"), CV_LOW_RANK, "EC", AT(D1), CV_AS_IS, 0 },
    { NAME("att.time_decay_w2"), CV_LOW_RANK, "CE", AT(D2), CV_AS_IS, 0 },
    { NAME("att.key_norm.weight"), CV_VECTOR, "C", AT(key_norm.w), CV_AS_IS,
      CV_OPTIONAL | CV_IF_KEY_NORM },
    { NAME("att.key_norm.bias"), CV_VECTOR, "C", AT(key_norm.b), CV_AS_IS,
      CV_OPTIONAL | CV_IF_KEY_NORM },
    { NAME("att.ln_x.weight"), CV_VECTOR, "C", AT(ln_x.w), CV_AS_IS, 0 },
    { NAME("att.ln_x.bias"), CV_VECTOR, "C", AT(ln_x.b), CV_AS_IS, 0 },
    { NAME("ln2.weight"), CV_VECTOR, "C", AT(ffn.branch.ln.w), CV_AS_IS, 0 },
    { NAME("ln2.bias"), CV_VECTOR, "C", AT(ffn.branch.ln.b), CV_AS_IS, 0 },
    { NAME("gamma2"), CV_VECTOR, "C", AT(ffn.branch.gamma), CV_AS_IS, CV_OPTIONAL | CV_IF_SCALED },
    { NAME("ffn.key.weight"), CV_MATRIX, "FC", AT(ffn.K), CV_AS_IS, 0 },
    { NAME("ffn.receptance.weight"), CV_MATRIX, "CC", AT(ffn.R), CV_AS_IS, 0 },
    { NAME("ffn.value.weight"), CV_MATRIX, "CF", AT(ffn.V), CV_AS_IS, 0 },
    { NAME("ffn.spatial_mix_k"), CV_VECTOR, "11C", AT(ffn.mu_k), CV_ONE_MINUS, 0 },
    { NAME("ffn.spatial_mix_r"), CV_VECTOR, "11C", AT(ffn.mu_r), CV_ONE_MINUS, 0 },
    { NAME("ffn.key_norm.weight"), CV_VECTOR, "F", AT(ffn.key_norm.w), CV_AS_IS,
      CV_OPTIONAL | CV_IF_KEY_NORM },
    { NAME("ffn.key_norm.bias"), CV_VECTOR, "F", AT(ffn.key_norm.b), CV_AS_IS,
      CV_OPTIONAL | CV_IF_KEY_NORM },
};

const cv_arch cv_vrwkv6 = {
    .name = "vrwkv6",
    .stack = &cv_vision_stack,
    .detect = detect,
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .layer_bytes = sizeof(vrwkv6_layer),
    .buffers_bytes = sizeof(vrwkv6_buffers),
    .take = take,
    .layer = layer,
    .back_scratch = back_scratch,
};
