/* gpt.c - GPT: causal attention over all tokens so far, the peer that RWKV is compared with.
 *
 *     q = Q z,  k = K z,  v = V z                                         z = LN(x; ln1)
 *     y_t = sum over i <= t of softmax_i(q_t k_i / sqrt(N)) v_i           in each head
 *     x += O y
 *
 * Around it stands ancestor_block.h.  Matrices have no biases; the head is a matrix of its own. */
#include <string.h>

#include "models/ancestor_block.h"
#include "ops/attention.h"

typedef struct layer_gpt {
    cv_norm ln1;          /* [C] */
    cv_matrix Q, K, V, O; /* [A, C], [C, A] */
    cv_mlp ffn;
} layer_gpt;

static size_t state_size(const cv_sizes *s)
{
    return cv_attention_state(s->H, s->N, s->G);
}

static void state_start(const cv_model *model, size_t layer, float *state)
{
    (void)layer;
    memset(state, 0, state_size(&model->sizes) * sizeof *state);
}

static void state_export(const cv_sizes *s, const float *from, float *to)
{
    memcpy(to, from, state_size(s) * sizeof *to);
}

/* A count that is none must not lead out of the state. */
static void state_import(const cv_sizes *s, const float *from, float *to)
{
    memcpy(to, from, state_size(s) * sizeof *to);
    if (!(to[0] >= 0.0f && to[0] <= (float)s->G)) to[0] = (float)s->G;
}

typedef struct buffers_gpt {
    float *z;             /* [T][C] rowwise */
    float *q, *k, *v, *y; /* [T][A] common */
    float *scratch;       /* of this member */
    cv_mlp_buffers ffn;
} buffers_gpt;

_Static_assert(sizeof(buffers_gpt) <= CV_BUFFERS_MAX, "room for the buffers of a layer");

static void take(cv_run *run, const cv_model *model, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    buffers_gpt *b = buffers;
    b->z = cv_take_rowwise(run, s->C);
    cv_take_memory(run, run->T * (s->C + 1));
    b->q = cv_take_common(run, s->A);
    b->k = cv_take_common(run, s->A);
    b->v = cv_take_common(run, s->A);
    b->y = cv_take_common(run, s->A);
    cv_take_memory(run, run->T * s->H);
    if (!run->tape) b->scratch = cv_take_scratch(run, cv_attention_scratch(run->T, s->G));
    cv_mlp_take(run, s, &b->ffn);
}

static void mix(const cv_run *run, const cv_sizes *s, const layer_gpt *p, size_t state, float *x,
                const buffers_gpt *b)
{
    cv_layer_norm(run, s->C, x, p->ln1, b->z);
    cv_settle(run);
    const cv_linear in[] = { { .W = &p->Q, .x = b->z, .y = b->q },
                             { .W = &p->K, .x = b->z, .y = b->k },
                             { .W = &p->V, .x = b->z, .y = b->v } };
    cv_linear_all(run, in, 3);
    cv_meet(run);
    const cv_attention attention = { .H = s->H,
                                     .N = s->N,
                                     .longest = s->G,
                                     .q = b->q,
                                     .k = b->k,
                                     .v = b->v,
                                     .y = b->y,
                                     .state_offset = state,
                                     .scratch = b->scratch };
    cv_attend(run, &attention);
    cv_meet(run);
    cv_count_keep(run, state);
    const cv_linear out = { .W = &p->O, .x = b->y, .y = x, .add = true };
    cv_linear_all(run, &out, 1);
    cv_meet(run);
}

static void layer(const cv_run *run, const cv_model *model, size_t l, float *x, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    const layer_gpt *p = cv_model_layer(model, l);
    const buffers_gpt *b = buffers;
    mix(run, s, p, l * state_size(s), x, b);
    cv_mlp_rows(run, s, &p->ffn, x, &b->ffn);
}

static size_t back_scratch(const cv_sizes *s, size_t T)
{
    return cv_attention_own_scratch(T, s->N, s->G);
}

static bool detect(const cv_checkpoint *ckpt)
{
    return cv_has_suffix(ckpt, "att.query.weight") && cv_has_suffix(ckpt, "pos.weight");
}

#define AT(member) offsetof(layer_gpt, member)
#define NAME(name) { name, CV_WHOLE }, CV_NOWHERE, CV_NOWHERE
static const cv_field fields[] = {
    { NAME("ln1.weight"), CV_VECTOR, "C", AT(ln1.w), CV_AS_IS, 0 },
    { NAME("ln1.bias"), CV_VECTOR, "C", AT(ln1.b), CV_AS_IS, 0 },
    { NAME("att.query.weight"), CV_MATRIX, "AC", AT(Q), CV_AS_IS, 0 },
    { NAME("att.key.weight"), CV_MATRIX, "AC", AT(K), CV_AS_IS, 0 },
    { NAME("att.value.weight"), CV_MATRIX, "AC", AT(V), CV_AS_IS, 0 },
    { NAME("att.output.weight"), CV_MATRIX, "CA", AT(O), CV_AS_IS, 0 },
    CV_MLP_FIELDS(layer_gpt, ffn),
};

const cv_arch cv_gpt = {
    .name = "gpt",
    .stack = &cv_placed_stack,
    .detect = detect,
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .layer_bytes = sizeof(layer_gpt),
    .no_shift = true,
    .state_size = state_size,
    .state_start = state_start,
    .state_export = state_export,
    .state_import = state_import,
    .longest = cv_places,
    .buffers_bytes = sizeof(buffers_gpt),
    .take = take,
    .layer = layer,
    .back_scratch = back_scratch,
};
