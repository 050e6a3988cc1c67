/* rwkv5.c - RWKV-5 "Eagle": the mean of version 4 becomes a matrix per head.
 *
 *     r = R xr,  k = K xk,  v = V xv,  g = silu(G xg)      no sigmoid on r any more
 *     y_i = sum_j r_j (S[i][j] + u_j k_j v_i)              reads S before the update
 *     S[i][j] = w_j S[i][j] + k_j v_i                                                [v5.wkv]
 *     x += O (GN(y) g)                                                        [v5.gn] [v5.out]
 *
 * Three releases: 5.0 has one decay w and one bonus u per head and no gate, 5.1 adds the gate g,
 * 5.2 has w and u per channel.  The channel mix is that of channel_mix.h. */
#include "models/channel_mix.h"
#include "models/matrix_state.h"
#include "ops/heads.h"

typedef struct layer5 {
    cv_norm ln1, ln_x;               /* [C], [A] */
    const float *mu_k, *mu_v, *mu_r; /* [C], multiply prev */
    const float *mu_g;               /* [C]; 5.0: NULL */
    const float *w, *u;              /* [A]: decay exp(-exp(time_decay)), bonus */
    cv_matrix R, K, V, G, O;         /* [A, C], [C, A]; 5.0: G has no rows */
    const float *time_state;         /* [H][i][j] or NULL */
    cv_channel_mix ffn;
} layer5;

static void state_start(const cv_model *model, size_t l, float *state)
{
    const layer5 *p = cv_model_layer(model, l);
    cv_matrix_state_start(&model->sizes, p->time_state, state);
}

typedef struct buffers5 {
    float *z, *xk, *xv, *xr, *xg; /* [T][C] rowwise */
    float *r, *k, *v, *g, *y;     /* [T][A] common */
    float *n, *o;                 /* [T][A] common: the norm of y, and gated */
    cv_channel_buffers ffn;
} buffers5;

_Static_assert(sizeof(buffers5) <= CV_BUFFERS_MAX, "room for the buffers of a layer");

static void take(cv_run *run, const cv_model *model, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    buffers5 *b = buffers;
    b->z = cv_take_rowwise(run, s->C);
    cv_take_memory(run, run->T * (s->C + 1));
    b->xk = cv_take_rowwise(run, s->C);
    b->xv = cv_take_rowwise(run, s->C);
    b->xr = cv_take_rowwise(run, s->C);
    b->xg = cv_take_rowwise(run, s->C);
    b->r = cv_take_common(run, s->A);
    b->k = cv_take_common(run, s->A);
    b->v = cv_take_common(run, s->A);
    b->g = cv_take_common(run, s->A);
    cv_take_memory(run, run->T * s->A);
    b->y = cv_take_common(run, s->A);
    b->n = cv_take_common(run, s->A);
    cv_take_memory(run, run->T * (s->A + s->H));
    b->o = cv_take_common(run, s->A);
    cv_channel_mix_take(run, s, &b->ffn);
}

static void time_mix(const cv_run *run, const cv_model *model, const layer5 *p, size_t state,
                     float *x, const buffers5 *b)
{
    const cv_sizes *s = &model->sizes;
    const size_t C = s->C, A = s->A, N = s->N, shift = state + CV_SHIFT_ATT * C;
    const bool gated = p->mu_g != NULL;

    cv_layer_norm(run, C, x, p->ln1, b->z);
    cv_settle(run);
    const cv_mix mixes[] = {
        { p->mu_k, b->xk }, { p->mu_v, b->xv }, { p->mu_r, b->xr }, { p->mu_g, b->xg }
    };
    cv_shift_mix(run, C, b->z, shift, mixes, gated ? 4 : 3); /* [shift.mix] */
    cv_settle(run);

    const cv_linear in[] = { { .W = &p->R, .x = b->xr, .y = b->r },
                             { .W = &p->K, .x = b->xk, .y = b->k },
                             { .W = &p->V, .x = b->xv, .y = b->v },
                             { .W = &p->G, .x = b->xg, .y = b->g, .act = CV_ACT_SILU } };
    cv_linear_all(run, in, gated ? 4 : 3);
    cv_meet(run);
    cv_shift_keep(run, C, b->z, shift);

    size_t lo, hi;
    cv_own_heads(run, s->H, N, &lo, &hi);
    cv_wkv5_heads(run, lo, hi, N, A, b->r, p->w, false, b->k, b->v, p->u, b->y,
                  state + CV_HEADS * C);                                          /* [v5.wkv] */
    cv_group_norm(run, lo, hi, N, A, p->ln_x, model->group_norm_eps, b->y, b->n); /* [v5.gn] */
    if (gated) cv_gate(run, lo, hi, N, A, b->n, b->g, b->o);
    cv_meet(run);

    const cv_linear out = { .W = &p->O, .x = gated ? b->o : b->n, .y = x, .add = true };
    cv_linear_all(run, &out, 1); /* [v5.out] */
    cv_meet(run);
}

static void layer(const cv_run *run, const cv_model *model, size_t l, float *x, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    const layer5 *p = cv_model_layer(model, l);
    const buffers5 *b = buffers;
    const size_t state = l * cv_matrix_state_size(s);
    time_mix(run, model, p, state, x, b);
    cv_channel_mix_rows(run, s, &p->ffn, state + CV_SHIFT_FFN * s->C, x, &b->ffn);
}

static size_t back_scratch(const cv_sizes *s, size_t T)
{
    return cv_wkv5_own_scratch(T, s->N);
}

/* ---- Names ----------------------------------------------------------------------------------- */

/* One decay per head, or one per channel?  By the number of values against the width. */
static bool decay_per_head(const cv_checkpoint *ckpt)
{
    const cv_tensor *decay = cv_checkpoint_find(ckpt, "blocks.0.att.time_decay");
    const cv_tensor *key = cv_checkpoint_find(ckpt, "blocks.0.att.key.weight");
    return decay && key && decay->count < key->dims[0];
}

static bool detect_5(const cv_checkpoint *ckpt)
{
    return cv_has_suffix(ckpt, "att.ln_x.weight") && cv_has_suffix(ckpt, "att.time_decay");
}

static bool detect_5_0(const cv_checkpoint *ckpt)
{
    return detect_5(ckpt) && !cv_has_suffix(ckpt, "att.gate.weight");
}

static bool detect_5_1(const cv_checkpoint *ckpt)
{
    return detect_5(ckpt) && cv_has_suffix(ckpt, "att.gate.weight") && decay_per_head(ckpt);
}

static bool detect_5_2(const cv_checkpoint *ckpt)
{
    return detect_5(ckpt) && cv_has_suffix(ckpt, "att.gate.weight") && !decay_per_head(ckpt);
}

#define AT(member) offsetof(layer5, member)
#define NAME(name) { name, CV_WHOLE }, CV_NOWHERE, CV_NOWHERE

/* 5.0 takes the fields before GATE, 5.1 those before PER_CHANNEL, 5.2 those from COMMON on. */
enum { COMMON = 3, GATE = COMMON + 19, PER_CHANNEL = GATE + 2 };
static const cv_field fields[] = {
    { NAME("att.time_decay"), CV_VECTOR, "H", AT(w), CV_EXP_NEG_EXP, CV_BAKED | CV_PER_HEAD },
    { NAME("att.time_faaaa"), CV_VECTOR, "H", AT(u), CV_AS_IS, CV_OR_NEXT | CV_PER_HEAD },
    { NAME("att.time_first"), CV_VECTOR, "H", AT(u), CV_EXP, CV_BAKED | CV_PER_HEAD },
    /* COMMON */
    { NAME("ln1.weight"), CV_VECTOR, "C", AT(ln1.w), CV_AS_IS, 0 },
    { NAME("ln1.bias"), CV_VECTOR, "C", AT(ln1.b), CV_AS_IS, 0 },
    { NAME("att.receptance.weight"), CV_MATRIX, "AC", AT(R), CV_AS_IS, 0 },
    { NAME("att.key.weight"), CV_MATRIX, "AC", AT(K), CV_AS_IS, 0 },
    { NAME("att.value.weight"), CV_MATRIX, "AC", AT(V), CV_AS_IS, 0 },
    { NAME("att.output.weight"), CV_MATRIX, "CA", AT(O), CV_AS_IS, 0 },
    { NAME("att.time_mix_k"), CV_VECTOR, "11C", AT(mu_k), CV_ONE_MINUS, 0 },
    { NAME("att.time_mix_v"), CV_VECTOR, "11C", AT(mu_v), CV_ONE_MINUS, 0 },
    { NAME("att.time_mix_r"), CV_VECTOR, "11C", AT(mu_r), CV_ONE_MINUS, 0 },
    { NAME("att.ln_x.weight"), CV_VECTOR, "A", AT(ln_x.w), CV_AS_IS, 0 },
    { NAME("att.ln_x.bias"), CV_VECTOR, "A", AT(ln_x.b), CV_AS_IS, 0 },
    { NAME("att.time_state"), CV_VECTOR, "HNN", AT(time_state), CV_AS_IS, CV_OPTIONAL },
    { NAME("ln2.weight"), CV_VECTOR, "C", AT(ffn.ln2.w), CV_AS_IS, 0 },
    { NAME("ln2.bias"), CV_VECTOR, "C", AT(ffn.ln2.b), CV_AS_IS, 0 },
    { NAME("ffn.key.weight"), CV_MATRIX, "FC", AT(ffn.K), CV_AS_IS, 0 },
    { NAME("ffn.receptance.weight"), CV_MATRIX, "CC", AT(ffn.R), CV_AS_IS, 0 },
    { NAME("ffn.value.weight"), CV_MATRIX, "CF", AT(ffn.V), CV_AS_IS, 0 },
    { NAME("ffn.time_mix_k"), CV_VECTOR, "11C", AT(ffn.mu_k), CV_ONE_MINUS, 0 },
    { NAME("ffn.time_mix_r"), CV_VECTOR, "11C", AT(ffn.mu_r), CV_ONE_MINUS, 0 },
    /* GATE */
    { NAME("att.time_mix_g"), CV_VECTOR, "11C", AT(mu_g), CV_ONE_MINUS, 0 },
    { NAME("att.gate.weight"), CV_MATRIX, "AC", AT(G), CV_AS_IS, 0 },
    /* PER_CHANNEL */
    { NAME("att.time_decay"), CV_VECTOR, "HN", AT(w), CV_EXP_NEG_EXP, CV_BAKED },
    { NAME("att.time_faaaa"), CV_VECTOR, "HN", AT(u), CV_AS_IS, CV_OR_NEXT },
    { NAME("att.time_first"), CV_VECTOR, "HN", AT(u), CV_EXP, CV_BAKED },
};

#define RWKV5(release, detect_fn, first, end)                                                   \
    {                                                                                           \
        .name = release, .stack = &cv_language_stack, .detect = detect_fn,                      \
        .fields = fields + (first), .n_fields = (end) - (first), .layer_bytes = sizeof(layer5), \
        .state_size = cv_matrix_state_size, .state_start = state_start,                         \
        .state_export = cv_matrix_state_export, .state_import = cv_matrix_state_import,         \
        .buffers_bytes = sizeof(buffers5), .take = take, .layer = layer,                        \
        .back_scratch = back_scratch,                                                           \
    }

const cv_arch cv_rwkv5_0 = RWKV5("rwkv5.0", detect_5_0, 0, GATE);
const cv_arch cv_rwkv5_1 = RWKV5("rwkv5.1", detect_5_1, 0, PER_CHANNEL);
const cv_arch cv_rwkv5_2 = RWKV5("rwkv5.2", detect_5_2, COMMON, sizeof fields / sizeof *fields);
