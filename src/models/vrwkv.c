/* vrwkv.c - Vision-RWKV: RWKV-4 over pictures, its WKV looking both ways.
 *
 *     xk = z mu_k + shifted (1 - mu_k), xv and xr likewise, shifted from four neighbours [q.mix]
 *     k = K xk,  v = V xv,  r = R xr                                              [vrwkv.kvr]
 *     y = sum over all tokens i of e^(k_i - (|t - i| - 1) w) v_i, the token itself with u,
 *         divided by the same sum without v;  w and u through the number of tokens   [bi.wkv]
 *     x += gamma O (sigma(r) y)                                                   [vrwkv.out]
 *
 * The norm of a branch stands before it (T) or behind it (S, B, L); L has one more on y, which the
 * official code calls a norm of the key [vrwkv.layer]. */
#include "models/vision.h"
#include "ops/heads.h"

typedef struct vrwkv_layer {
    cv_branch branch;
    const float *mu_k, *mu_v, *mu_r; /* [C], multiply the shifted row; NULL: no shift */
    const float *W, *U;              /* [C]: spatial decay and bonus, not yet through T */
    cv_matrix K, V, R, O;            /* [C, C] */
    cv_norm key_norm;                /* [C]; w NULL: none */
    cv_vision_channel_mix ffn;
} vrwkv_layer;

typedef struct vrwkv_buffers {
    float *z, *k, *v, *r;          /* [T][C] common */
    float *shifted, *xk, *xv, *xr; /* [T of a tile][C] */
    float *normed, *gated;         /* [T of a tile][C] */
    cv_bi_buffers bi;
    cv_branch_buffers end;
    cv_vision_channel_buffers ffn;
} vrwkv_buffers;

_Static_assert(sizeof(vrwkv_buffers) <= CV_BUFFERS_MAX, "room for the buffers of a layer");

static void take(cv_run *run, const cv_model *model, void *buffers)
{
    const size_t C = model->sizes.C;
    vrwkv_buffers *b = buffers;
    b->z = cv_branch_begin_take(run, model);
    b->k = cv_take_common(run, C);
    cv_take_memory(run, run->T * C); /* k and v as they were before the WKV */
    b->v = cv_take_common(run, C);
    cv_take_memory(run, run->T * C);
    b->r = cv_take_common(run, C);
    b->shifted = cv_take_tile(run, C);
    b->xk = cv_take_tile(run, C);
    b->xv = cv_take_tile(run, C);
    b->xr = cv_take_tile(run, C);
    b->gated = cv_take_another(run, C, b->xk); /* the mixes are done with by then */
    b->normed = cv_take_another(run, C, b->xv);
    cv_take_memory(run, run->T * (C + 1));
    cv_bi_wkv_take(run, C, &b->bi);
    cv_branch_take(run, model, &b->end);
    cv_vision_channel_mix_take(run, model, b->k, &b->ffn);
}

/* k, v and r of this member's rows; z is complete. */
static void project(const cv_run *run, size_t C, const vrwkv_layer *p, const cv_q_shift *shift,
                    const vrwkv_buffers *b)
{
    for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);) {
        const size_t at = t.first * C;
        const cv_mix mixes[] = { { p->mu_k, b->xk }, { p->mu_v, b->xv }, { p->mu_r, b->xr } };
        cv_q_shift_rows(&t, C, shift, b->z, b->shifted);
        cv_q_mix(&t, C, b->z, b->shifted, mixes, 3); /* [q.mix] */
        cv_tile_meet(&t);

        const cv_linear in[] = {
            { .W = &p->K, .x = b->xk, .y = b->k + at },
            { .W = &p->V, .x = b->xv, .y = b->v + at },
            { .W = &p->R, .x = b->xr, .y = b->r + at, .act = CV_ACT_SIGMOID }
        };
        cv_linear_all(&t.run, in, 3); /* [vrwkv.kvr] */
    }
}

/* What becomes of y, which stands in v. */
static void put_out(const cv_run *run, const cv_model *model, size_t l, const vrwkv_layer *p,
                    float *x, const vrwkv_buffers *b)
{
    const size_t C = model->sizes.C;
    size_t lo, hi;
    for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);) {
        const float *y = b->v + t.first * C;
        if (p->key_norm.w) {
            cv_layer_norm(&t.run, C, y, p->key_norm, b->normed);
            cv_tile_meet(&t);
            y = b->normed;
        }
        cv_own_columns(&t.run, C, &lo, &hi);
        cv_gate(&t.run, lo, hi, 1, C, y, b->r + t.first * C, b->gated);
        cv_tile_meet(&t);
        cv_branch_end(&t, model, &p->branch, 2 * l, &p->O, b->gated, NULL, &b->end,
                      x); /* [vrwkv.out] */
    }
}

static void layer(const cv_run *run, const cv_model *model, size_t l, float *x, void *buffers)
{
    const vrwkv_layer *p = cv_model_layer(model, l);
    const vrwkv_buffers *b = buffers;
    const cv_vision_traits *traits = &model->vision.traits;
    const size_t C = model->sizes.C;
    const cv_q_shift shift = cv_q_shift_whole(C, traits->share, traits->distance);

    cv_branch_begin(run, model, &p->branch, x, b->z);
    cv_meet(run);
    project(run, C, p, &shift, b);
    cv_meet(run);
    cv_bi_wkv(run, (cv_bi_mode)traits->bi_mode, C, p->W, p->U, b->k, b->v, &b->bi); /* [bi.wkv] */
    cv_meet(run);
    put_out(run, model, l, p, x, b);
    /* z of the first half may still be read by slower members until the next meeting: the second
     * half has k for it. */
    cv_vision_channel_mix_rows(run, model, l, &p->ffn, &shift, x, &b->ffn);
}

static size_t back_scratch(const cv_sizes *s, size_t T)
{
    (void)s;
    return cv_bi_wkv_own_scratch(T);
}

static bool detect(const cv_checkpoint *ckpt)
{
    return cv_has_suffix(ckpt, "att.spatial_decay") && cv_has_suffix(ckpt, "att.spatial_first");
}

#define AT(member) offsetof(vrwkv_layer, member)
#define NAME(name) { name, CV_WHOLE }, CV_NOWHERE, CV_NOWHERE
static const cv_field fields[] = {
    { NAME("ln1.weight"), CV_VECTOR, "C", AT(branch.ln.w), CV_AS_IS, 0 },
    { NAME("ln1.bias"), CV_VECTOR, "C", AT(branch.ln.b), CV_AS_IS, 0 },
    { NAME("gamma1"), CV_VECTOR, "C", AT(branch.gamma), CV_AS_IS, CV_OPTIONAL | CV_IF_SCALED },
    { NAME("att.key.weight"), CV_MATRIX, "CC", AT(K), CV_AS_IS, 0 },
    { NAME("att.value.weight"), CV_MATRIX, "CC", AT(V), CV_AS_IS, 0 },
    { NAME("att.receptance.weight"), CV_MATRIX, "CC", AT(R), CV_AS_IS, 0 },
    { NAME("att.output.weight"), CV_MATRIX, "CC", AT(O), CV_AS_IS, 0 },
    { NAME("att.spatial_decay"), CV_VECTOR, "C", AT(W), CV_AS_IS, 0 },
    { NAME("att.spatial_first"), CV_VECTOR, "C", AT(U), CV_AS_IS, 0 },
    { NAME("att.spatial_mix_k"), CV_VECTOR, "11C", AT(mu_k), CV_ONE_MINUS, CV_OPTIONAL | CV_MADE },
    { NAME("att.spatial_mix_v"), CV_VECTOR, "11C", AT(mu_v), CV_ONE_MINUS, CV_OPTIONAL | CV_MADE },
    { NAME("att.spatial_mix_r"), CV_VECTOR, "11C", AT(mu_r), CV_ONE_MINUS, CV_OPTIONAL | CV_MADE },
    { NAME("att.key_norm.weight"), CV_VECTOR, "C", AT(key_norm.w), CV_AS_IS,
      CV_OPTIONAL | CV_IF_KEY_NORM },
    { NAME("att.key_norm.bias"), CV_VECTOR, "C", AT(key_norm.b), CV_AS_IS,
      CV_OPTIONAL | CV_IF_KEY_NORM },
    { NAME("ln2.weight"), CV_VECTOR, "C", AT(ffn.branch.ln.w), CV_AS_IS, 0 },
    { NAME("ln2.bias"), CV_VECTOR, "C", AT(ffn.branch.ln.b), CV_AS_IS, 0 },
    { NAME("gamma2"), CV_VECTOR, "C", AT(ffn.branch.gamma), CV_AS_IS, CV_OPTIONAL | CV_IF_SCALED },
    { NAME("ffn.key.weight"), CV_MATRIX, "FC", AT(ffn.K), CV_AS_IS, 0 },
    { NAME("ffn.receptance.weight"), CV_MATRIX, "CC", AT(ffn.R), CV_AS_IS, 0 },
    { NAME("ffn.value.weight"), CV_MATRIX, "CF", AT(ffn.V), CV_AS_IS, 0 },
    { NAME("ffn.spatial_mix_k"), CV_VECTOR, "11C", AT(ffn.mu_k), CV_ONE_MINUS,
      CV_OPTIONAL | CV_MADE },
    { NAME("ffn.spatial_mix_r"), CV_VECTOR, "11C", AT(ffn.mu_r), CV_ONE_MINUS,
      CV_OPTIONAL | CV_MADE },
    { NAME("ffn.key_norm.weight"), CV_VECTOR, "F", AT(ffn.key_norm.w), CV_AS_IS,
      CV_OPTIONAL | CV_IF_KEY_NORM },
    { NAME("ffn.key_norm.bias"), CV_VECTOR, "F", AT(ffn.key_norm.b), CV_AS_IS,
      CV_OPTIONAL | CV_IF_KEY_NORM },
};

const cv_arch cv_vrwkv = {
    .name = "vrwkv",
    .stack = &cv_vision_stack,
    .detect = detect,
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .layer_bytes = sizeof(vrwkv_layer),
    .buffers_bytes = sizeof(vrwkv_buffers),
    .take = take,
    .layer = layer,
    .back_scratch = back_scratch,
};
