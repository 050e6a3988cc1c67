/* aft.c - attention-free transformers: simple, full and local, of which RWKV took its mean.
 *
 *     k = K z,  v = V z,  q = sigma(Q z)                                        z = LN(x; ln1)
 *     y_t = sum over i <= t of e^(k_i + w_ti) v_i / sum of e^(k_i + w_ti)       in each channel
 *     x += O (q y)
 *
 *     simple   w = 0
 *     full     w_ti = U_t Z_i, of E numbers for each place
 *     local    w_ti = U_t Z_i + b_(t-i) for the last tokens, and 0 for those before
 *
 * Around it stands ancestor_block.h. */
#include <string.h>

#include "models/ancestor_block.h"
#include "ops/aft_mean.h"
#include "ops/heads.h"

typedef struct layer_aft {
    cv_norm ln1;          /* [C] */
    cv_matrix Q, K, V, O; /* [C, C] */
    const float *U;       /* full, local: [G][E] */
    cv_matrix Z;          /* [G, E] */
    const float *b;       /* local: [w] */
    cv_mlp ffn;
} layer_aft;

/* ---- State ----------------------------------------------------------------------------------- */

/* simple: the count, then num, den, top of the mean. */
enum { COUNT = 16 };

static size_t simple_size(const cv_sizes *s)
{
    return COUNT + 3 * s->C;
}

static size_t placed_size(const cv_sizes *s)
{
    return cv_aft_state(s->C, s->G);
}

static void state_start(const cv_model *model, size_t layer, float *state)
{
    (void)layer;
    memset(state, 0, model->arch->state_size(&model->sizes) * sizeof *state);
}

/* Nothing seen yet: the running exponent is below every key. */
static void simple_start(const cv_model *model, size_t layer, float *state)
{
    state_start(model, layer, state);
    for (size_t c = 0; c < model->sizes.C; c++)
        state[COUNT + 2 * model->sizes.C + c] = -1e30f;
}

/* A count that is none must not lead out of the state. */
static void copy_state(const cv_sizes *s, size_t n, const float *from, float *to)
{
    memcpy(to, from, n * sizeof *to);
    if (!(to[0] >= 0.0f && to[0] <= (float)s->G)) to[0] = (float)s->G;
}

static void simple_copy(const cv_sizes *s, const float *from, float *to)
{
    copy_state(s, simple_size(s), from, to);
}

static void placed_copy(const cv_sizes *s, const float *from, float *to)
{
    copy_state(s, placed_size(s), from, to);
}

/* ---- Layer ----------------------------------------------------------------------------------- */

typedef struct buffers_aft {
    float *z;         /* [T][C] rowwise */
    float *q, *k, *v; /* [T][C] common */
    float *u, *w;     /* full, local: [T][E] rowwise, [T][G] common */
    float *y, *o;     /* [T][C] common */
    float *zero;      /* simple: [C], decay and bonus */
    float *scratch;   /* of this member */
    cv_mlp_buffers ffn;
} buffers_aft;

_Static_assert(sizeof(buffers_aft) <= CV_BUFFERS_MAX, "room for the buffers of a layer");

static void take(cv_run *run, const cv_model *model, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    buffers_aft *b = buffers;
    b->z = cv_take_rowwise(run, s->C);
    cv_take_memory(run, run->T * (s->C + 1));
    b->q = cv_take_common(run, s->C);
    b->k = cv_take_common(run, s->C);
    b->v = cv_take_common(run, s->C);
    if (model->arch != &cv_aft_simple) b->u = cv_take_rowwise(run, s->E);
    if (model->arch != &cv_aft_simple) b->w = cv_take_common(run, s->G);
    b->y = cv_take_common(run, s->C);
    cv_take_memory(run, run->T * s->C);
    b->o = cv_take_common(run, s->C);
    if (model->arch == &cv_aft_simple)
        b->zero = cv_take_shared(run, s->C);
    else if (!run->tape)
        b->scratch = cv_take_scratch(run, cv_aft_scratch(s->G));
    cv_mlp_take(run, s, &b->ffn);
}

/* The biases of all rows; they need no tokens, so their product is one of those in front. */
static void products(const cv_run *run, const cv_sizes *s, const layer_aft *p, size_t state,
                     const buffers_aft *b)
{
    if (p->U) cv_placed_rows(run, s->E, p->U, state, b->u);
    cv_settle(run);
    const cv_linear in[] = { { .W = &p->Q, .x = b->z, .y = b->q, .act = CV_ACT_SIGMOID },
                             { .W = &p->K, .x = b->z, .y = b->k },
                             { .W = &p->V, .x = b->z, .y = b->v },
                             { .W = &p->Z, .x = b->u, .y = b->w } };
    cv_linear_all(run, in, p->U ? 4 : 3);
    cv_meet(run);
    if (!p->b) return;
    cv_add_by_distance(run, s->w, p->b, s->G, state, b->w);
    cv_meet(run);
}

static void mean_of(const cv_run *run, const cv_sizes *s, const layer_aft *p, size_t state,
                    const buffers_aft *b)
{
    size_t lo, hi;
    cv_own_heads(run, s->C, 1, &lo, &hi);
    if (b->zero) {
        memset(b->zero + lo, 0, (hi - lo) * sizeof *b->zero);
        cv_wkv4_channels(run, lo, hi, s->C, b->zero, b->zero, b->k, b->v, b->y, state + COUNT);
    } else {
        const cv_aft aft = { .A = s->C,
                             .longest = s->G,
                             .k = b->k,
                             .v = b->v,
                             .w = b->w,
                             .window = p->b ? s->w : 0,
                             .y = b->y,
                             .state_offset = state,
                             .scratch = b->scratch };
        cv_aft_mean(run, &aft);
    }
    cv_meet(run);
    cv_count_keep(run, state);
    cv_gate(run, lo, hi, 1, s->C, b->y, b->q, b->o);
    cv_meet(run);
}

static void layer(const cv_run *run, const cv_model *model, size_t l, float *x, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    const layer_aft *p = cv_model_layer(model, l);
    const buffers_aft *b = buffers;
    const size_t state = l * model->arch->state_size(s);
    cv_layer_norm(run, s->C, x, p->ln1, b->z);
    products(run, s, p, state, b);
    mean_of(run, s, p, state, b);
    const cv_linear out = { .W = &p->O, .x = b->o, .y = x, .add = true };
    cv_linear_all(run, &out, 1);
    cv_meet(run);
    cv_mlp_rows(run, s, &p->ffn, x, &b->ffn);
}

static size_t simple_scratch(const cv_sizes *s, size_t T)
{
    return cv_wkv4_own_scratch(T, s->C);
}

static size_t placed_scratch(const cv_sizes *s, size_t T)
{
    (void)T;
    return cv_aft_own_scratch(s->C, s->G);
}

/* ---- The three ------------------------------------------------------------------------------- */

static bool detect_full(const cv_checkpoint *ckpt)
{
    return cv_has_suffix(ckpt, "aft.query.weight") && cv_has_suffix(ckpt, "aft.bias_u.weight") &&
           !cv_has_suffix(ckpt, "aft.bias_distance");
}

static bool detect_local(const cv_checkpoint *ckpt)
{
    return cv_has_suffix(ckpt, "aft.query.weight") && cv_has_suffix(ckpt, "aft.bias_distance");
}

static bool detect_simple(const cv_checkpoint *ckpt)
{
    return cv_has_suffix(ckpt, "aft.query.weight") && !cv_has_suffix(ckpt, "aft.bias_u.weight");
}

#define AT(member) offsetof(layer_aft, member)
#define NAME(name) { name, CV_WHOLE }, CV_NOWHERE, CV_NOWHERE
#define SHARED                                                              \
    { NAME("ln1.weight"), CV_VECTOR, "C", AT(ln1.w), CV_AS_IS, 0 },         \
        { NAME("ln1.bias"), CV_VECTOR, "C", AT(ln1.b), CV_AS_IS, 0 },       \
        { NAME("aft.query.weight"), CV_MATRIX, "CC", AT(Q), CV_AS_IS, 0 },  \
        { NAME("aft.key.weight"), CV_MATRIX, "CC", AT(K), CV_AS_IS, 0 },    \
        { NAME("aft.value.weight"), CV_MATRIX, "CC", AT(V), CV_AS_IS, 0 },  \
        { NAME("aft.output.weight"), CV_MATRIX, "CC", AT(O), CV_AS_IS, 0 }, \
        CV_MLP_FIELDS(layer_aft, ffn)

static const cv_field simple_fields[] = { SHARED };
#define FACTORS                                                         \
    { NAME("aft.bias_u.weight"), CV_VECTOR, "GE", AT(U), CV_AS_IS, 0 }, \
    {                                                                   \
        NAME("aft.bias_z.weight"), CV_MATRIX, "GE", AT(Z), CV_AS_IS, 0  \
    }
static const cv_field full_fields[] = { SHARED, FACTORS };
static const cv_field local_fields[] = {
    SHARED,
    FACTORS,
    { NAME("aft.bias_distance"), CV_VECTOR, "w", AT(b), CV_AS_IS, 0 },
};

const cv_arch cv_aft_simple = {
    .name = "aft-simple",
    .stack = &cv_placed_stack,
    .detect = detect_simple,
    .fields = simple_fields,
    .n_fields = sizeof simple_fields / sizeof *simple_fields,
    .layer_bytes = sizeof(layer_aft),
    .no_shift = true,
    .state_size = simple_size,
    .state_start = simple_start,
    .state_export = simple_copy,
    .state_import = simple_copy,
    .longest = cv_places,
    .buffers_bytes = sizeof(buffers_aft),
    .take = take,
    .layer = layer,
    .back_scratch = simple_scratch,
};

const cv_arch cv_aft_full = {
    .name = "aft-full",
    .stack = &cv_placed_stack,
    .detect = detect_full,
    .fields = full_fields,
    .n_fields = sizeof full_fields / sizeof *full_fields,
    .layer_bytes = sizeof(layer_aft),
    .no_shift = true,
    .state_size = placed_size,
    .state_start = state_start,
    .state_export = placed_copy,
    .state_import = placed_copy,
    .longest = cv_places,
    .buffers_bytes = sizeof(buffers_aft),
    .take = take,
    .layer = layer,
    .back_scratch = placed_scratch,
};

const cv_arch cv_aft_local = {
    .name = "aft-local",
    .stack = &cv_placed_stack,
    .detect = detect_local,
    .fields = local_fields,
    .n_fields = sizeof local_fields / sizeof *local_fields,
    .layer_bytes = sizeof(layer_aft),
    .no_shift = true,
    .state_size = placed_size,
    .state_start = state_start,
    .state_export = placed_copy,
    .state_import = placed_copy,
    .longest = cv_places,
    .buffers_bytes = sizeof(buffers_aft),
    .take = take,
    .layer = layer,
    .back_scratch = placed_scratch,
};
