/* lstm.c - LSTM layers one behind the other, the recurrent network before RWKV.
 *
 *     z = W x + b + U h_(t-1)       i, f, o = sigma(z),  g = tanh(z)
 *     c_t = f c_(t-1) + i g         h_t = o tanh(c_t),   which the next layer reads
 *
 * Gates stand in the order i f g o, each as wide as the embedding.  There are no norms and no
 * residual stream. */
#include <string.h>

#include "models/ancestor_block.h"
#include "ops/lstm_pass.h"

typedef struct layer_lstm {
    cv_matrix W, U; /* [F, C] each, F = 4 C */
    const float *b; /* [F] */
} layer_lstm;

/* h, then c. */
static size_t state_size(const cv_sizes *s)
{
    return 2 * s->C;
}

static void state_start(const cv_model *model, size_t layer, float *state)
{
    (void)layer;
    memset(state, 0, state_size(&model->sizes) * sizeof *state);
}

static void state_copy(const cv_sizes *s, const float *from, float *to)
{
    memcpy(to, from, state_size(s) * sizeof *to);
}

typedef struct buffers_lstm {
    float *z;       /* [T][C] common: what goes in */
    float *gates;   /* [T][F] common */
    float *c, *h;   /* [T][C] common */
    float *scratch; /* of this member */
} buffers_lstm;

_Static_assert(sizeof(buffers_lstm) <= CV_BUFFERS_MAX, "room for the buffers of a layer");

static void take(cv_run *run, const cv_model *model, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    buffers_lstm *b = buffers;
    b->z = cv_take_common(run, s->C);
    b->gates = cv_take_common(run, s->F);
    b->c = cv_take_common(run, s->C);
    b->h = cv_take_common(run, s->C);
    cv_take_memory(run, run->T * s->C);
    if (!run->tape) b->scratch = cv_take_scratch(run, cv_lstm_scratch(s->C));
}

static void layer(const cv_run *run, const cv_model *model, size_t l, float *x, void *buffers)
{
    const cv_sizes *s = &model->sizes;
    const layer_lstm *p = cv_model_layer(model, l);
    const buffers_lstm *b = buffers;
    cv_move_rows(run, s->C, x, b->z);
    cv_meet(run);
    const cv_linear in = { .W = &p->W, .x = b->z, .y = b->gates, .bias = p->b };
    cv_linear_all(run, &in, 1);
    cv_meet(run);
    const cv_lstm_pass lstm = { .C = s->C,
                                .U = &p->U,
                                .gates = b->gates,
                                .c = b->c,
                                .h = b->h,
                                .state_offset = l * state_size(s),
                                .scratch = b->scratch };
    cv_lstm_sequences(run, &lstm);
    cv_meet(run);
    cv_move_rows(run, s->C, b->h, x);
    cv_meet(run);
}

static size_t back_scratch(const cv_sizes *s, size_t T)
{
    (void)T;
    return cv_lstm_own_scratch(s->C);
}

static bool detect(const cv_checkpoint *ckpt)
{
    return cv_has_suffix(ckpt, "lstm.hidden.weight");
}

#define AT(member) offsetof(layer_lstm, member)
#define NAME(name) { name, CV_WHOLE }, CV_NOWHERE, CV_NOWHERE
static const cv_field fields[] = {
    { NAME("lstm.input.weight"), CV_MATRIX, "FC", AT(W), CV_AS_IS, 0 },
    { NAME("lstm.hidden.weight"), CV_MATRIX, "FC", AT(U), CV_AS_IS, 0 },
    { NAME("lstm.bias"), CV_VECTOR, "F", AT(b), CV_AS_IS, 0 },
};

const cv_arch cv_lstm = {
    .name = "lstm",
    .stack = &cv_bare_stack,
    .detect = detect,
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .layer_bytes = sizeof(layer_lstm),
    .no_shift = true,
    .state_size = state_size,
    .state_start = state_start,
    .state_export = state_copy,
    .state_import = state_copy,
    .buffers_bytes = sizeof(buffers_lstm),
    .take = take,
    .layer = layer,
    .back_scratch = back_scratch,
};
