/* rwkv4.c - RWKV-4 (Pile, Raven, World): a weighted mean of values, one decay per channel.
 *
 *     xk = z mu_k + prev (1 - mu_k), xv and xr likewise                              [v4.shift]
 *     k = K xk,  v = V xv,  r = sigma(R xr)                                          [v4.rkv]
 *     wkv = sum over the past of e^(k_i - distance decay) v_i, and the present with the bonus u,
 *           divided by the same sum without v                                        [v4.wkv]
 *     x += O (r wkv)                                                                 [v4.out]
 *
 * The channel mix is that of channel_mix.h. */
#include <string.h>

#include "models/channel_mix.h"
#include "ops/heads.h"

typedef struct layer4 {
    cv_norm ln1;                     /* [C] */
    const float *mu_k, *mu_v, *mu_r; /* [C], multiply prev */
    const float *w, *u;              /* [A]: decay -exp(time_decay) < 0, bonus */
    cv_matrix K, V, R, O;            /* [A, C], [C, A] */
    cv_channel_mix ffn;
} layer4;

/* State of a layer: shift vectors of time and channel mix, then num, den, top of the mean. */
enum { SHIFT_ATT = 0, SHIFT_FFN = 1, WKV = 2 };

static size_t state_size(const cv_sizes *s)
{
    return 2 * s->C + 3 * s->A;
}

/* Nothing seen yet: the running exponent is below every key.  Not -inf, which would give NaN. */
static void state_start(const cv_model *model, size_t layer, float *state)
{
    (void)layer;
    const cv_sizes *s = &model->sizes;
    memset(state, 0, state_size(s) * sizeof *state);
    for (size_t c = 0; c < s->A; c++)
        state[WKV * s->C + 2 * s->A + c] = -1e30f;
}

static void state_copy(const cv_sizes *s, const float *from, float *to)
{
    memcpy(to, from, 3 * s->A * sizeof *to);
}

typedef struct buffers4 {
    float *z, *xk, *xv, *xr; /* [T][C] rowwise */
    float *k, *v, *r, *y;    /* [T][A] common */
    float *o;                /* [T][A] common: y, gated by the receptance */
    cv_channel_buffers ffn;
} buffers4;

_Static_assert(sizeof(buffers4) <= CV_BUFFERS_MAX, "room for the buffers of a layer");

static void take(cv_run *run, const cv_model *model, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    buffers4 *b = buffers;
    b->z = cv_take_rowwise(run, s->C);
    cv_take_memory(run, run->T * (s->C + 1));
    b->xk = cv_take_rowwise(run, s->C);
    b->xv = cv_take_rowwise(run, s->C);
    b->xr = cv_take_rowwise(run, s->C);
    b->k = cv_take_common(run, s->A);
    b->v = cv_take_common(run, s->A);
    b->r = cv_take_common(run, s->A);
    b->y = cv_take_common(run, s->A);
    b->o = cv_take_common(run, s->A);
    cv_channel_mix_take(run, s, &b->ffn);
}

static void time_mix(const cv_run *run, const cv_sizes *s, const layer4 *p, size_t state, float *x,
                     const buffers4 *b)
{
    const size_t C = s->C, A = s->A, shift = state + SHIFT_ATT * C;

    cv_layer_norm(run, C, x, p->ln1, b->z);
    cv_settle(run);
    const cv_mix mixes[] = { { p->mu_k, b->xk }, { p->mu_v, b->xv }, { p->mu_r, b->xr } };
    cv_shift_mix(run, C, b->z, shift, mixes, 3); /* [v4.shift] */
    cv_settle(run);

    const cv_linear in[] = { { .W = &p->K, .x = b->xk, .y = b->k },
                             { .W = &p->V, .x = b->xv, .y = b->v },
                             { .W = &p->R, .x = b->xr, .y = b->r, .act = CV_ACT_SIGMOID } };
    cv_linear_all(run, in, 3); /* [v4.rkv] */
    cv_meet(run);
    cv_shift_keep(run, C, b->z, shift);

    size_t lo, hi;
    cv_own_heads(run, A, 1, &lo, &hi);
    cv_wkv4_channels(run, lo, hi, A, p->w, p->u, b->k, b->v, b->y, state + WKV * C); /* [v4.wkv] */
    cv_gate(run, lo, hi, 1, A, b->y, b->r, b->o);
    cv_meet(run);

    const cv_linear out = { .W = &p->O, .x = b->o, .y = x, .add = true };
    cv_linear_all(run, &out, 1); /* [v4.out] */
    cv_meet(run);
}

static void layer(const cv_run *run, const cv_model *model, size_t l, float *x, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    const layer4 *p = cv_model_layer(model, l);
    const buffers4 *b = buffers;
    const size_t state = l * state_size(s);
    time_mix(run, s, p, state, x, b);
    cv_channel_mix_rows(run, s, &p->ffn, state + SHIFT_FFN * s->C, x, &b->ffn);
}

static size_t back_scratch(const cv_sizes *s, size_t T)
{
    return cv_wkv4_own_scratch(T, s->A);
}

static bool detect(const cv_checkpoint *ckpt)
{
    return cv_has_suffix(ckpt, "att.time_decay") && cv_has_suffix(ckpt, "att.time_first") &&
           !cv_has_suffix(ckpt, "att.ln_x.weight");
}

#define AT(member) offsetof(layer4, member)
#define NAME(name) { name, CV_WHOLE }, CV_NOWHERE, CV_NOWHERE
static const cv_field fields[] = {
    { NAME("ln1.weight"), CV_VECTOR, "C", AT(ln1.w), CV_AS_IS, 0 },
    { NAME("ln1.bias"), CV_VECTOR, "C", AT(ln1.b), CV_AS_IS, 0 },
    { NAME("att.key.weight"), CV_MATRIX, "AC", AT(K), CV_AS_IS, 0 },
    { NAME("att.value.weight"), CV_MATRIX, "AC", AT(V), CV_AS_IS, 0 },
    { NAME("att.receptance.weight"), CV_MATRIX, "AC", AT(R), CV_AS_IS, 0 },
    { NAME("att.output.weight"), CV_MATRIX, "CA", AT(O), CV_AS_IS, 0 },
    { NAME("att.time_mix_k"), CV_VECTOR, "11C", AT(mu_k), CV_ONE_MINUS, 0 },
    { NAME("att.time_mix_v"), CV_VECTOR, "11C", AT(mu_v), CV_ONE_MINUS, 0 },
    { NAME("att.time_mix_r"), CV_VECTOR, "11C", AT(mu_r), CV_ONE_MINUS, 0 },
    { NAME("att.time_decay"), CV_VECTOR, "A", AT(w), CV_NEG_EXP, CV_BAKED },
    { NAME("att.time_first"), CV_VECTOR, "A", AT(u), CV_AS_IS, 0 },
    { NAME("ln2.weight"), CV_VECTOR, "C", AT(ffn.ln2.w), CV_AS_IS, 0 },
    { NAME("ln2.bias"), CV_VECTOR, "C", AT(ffn.ln2.b), CV_AS_IS, 0 },
    { NAME("ffn.key.weight"), CV_MATRIX, "FC", AT(ffn.K), CV_AS_IS, 0 },
    { NAME("ffn.receptance.weight"), CV_MATRIX, "CC", AT(ffn.R), CV_AS_IS, 0 },
    { NAME("ffn.value.weight"), CV_MATRIX, "CF", AT(ffn.V), CV_AS_IS, 0 },
    { NAME("ffn.time_mix_k"), CV_VECTOR, "11C", AT(ffn.mu_k), CV_ONE_MINUS, 0 },
    { NAME("ffn.time_mix_r"), CV_VECTOR, "11C", AT(ffn.mu_r), CV_ONE_MINUS, 0 },
};

const cv_arch cv_rwkv4 = {
    .name = "rwkv4",
    .stack = &cv_language_stack,
    .detect = detect,
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .layer_bytes = sizeof(layer4),
    .state_size = state_size,
    .state_start = state_start,
    .state_export = state_copy,
    .state_import = state_copy,
    .buffers_bytes = sizeof(buffers4),
    .take = take,
    .layer = layer,
    .back_scratch = back_scratch,
};
