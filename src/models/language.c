/* language.c - the stack that all language models share, running and learning.  [lm.skeleton]
 *
 *     x = LN(emb[token]; ln0);   x through L layers;   logits = head LN(x; ln_out)
 *
 * ln0 is applied to the row when it is fetched, not folded into the table [lm.ln0].  Models that are
 * no RWKV may have one norm or the other not at all, and places: x = emb[token] + pos[place]. */
#include <string.h>

#include "models/model.h"
#include "ops/count.h"

#define AT(member)           offsetof(cv_model, member)
#define NAME(official, gguf) { official, CV_WHOLE }, { gguf, CV_WHOLE }, CV_NOWHERE
static const cv_field fields[] = {
    { NAME("emb.weight", "token_embd.weight"), CV_TABLE, "VC", AT(emb), CV_AS_IS, 0 },
    { NAME("blocks.0.ln0.weight", "token_embd_norm.weight"), CV_VECTOR, "C", AT(ln0.w), CV_AS_IS,
      0 },
    { NAME("blocks.0.ln0.bias", "token_embd_norm.bias"), CV_VECTOR, "C", AT(ln0.b), CV_AS_IS, 0 },
    { NAME("ln_out.weight", "output_norm.weight"), CV_VECTOR, "C", AT(ln_out.w), CV_AS_IS, 0 },
    { NAME("ln_out.bias", "output_norm.bias"), CV_VECTOR, "C", AT(ln_out.b), CV_AS_IS, 0 },
    { NAME("head.weight", "output.weight"), CV_MATRIX, "VC", AT(head), CV_AS_IS, 0 },
};
const cv_stack cv_language_stack = {
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .layers = "blocks.",
};

size_t cv_state_size(const cv_model *model)
{
    return model->sizes.L * model->arch->state_size(&model->sizes);
}

void cv_state_start(const cv_model *model, float *state)
{
    const size_t size = model->arch->state_size(&model->sizes);
    for (size_t l = 0; l < model->sizes.L; l++)
        model->arch->state_start(model, l, state + l * size);
}

/* The buffers that a step of run->T rows takes, in this order. */
typedef struct stack {
    float *x; /* [T][C] common */
    _Alignas(16) unsigned char layer[CV_BUFFERS_MAX];
} stack;

/* Those of the first layer, which do for all of them unless a tape keeps what they held. */
static void take(cv_run *run, const cv_model *model, stack *b)
{
    memset(b, 0, sizeof *b);
    b->x = cv_take_common(run, model->sizes.C);
    cv_take_memory(run, run->T * (model->sizes.C + 1)); /* of the norm behind the embedding */
    model->arch->take(run, model, b->layer);
}

typedef struct embed_record {
    const cv_model *model;
    const int32_t *tokens;
    const float *x;
} embed_record;

static float *gradient_of(const cv_run *run, const cv_table *table)
{
    return cv_gradient(run, (const float *)(const void *)table->bytes);
}

/* Each member adds to its own columns: a token may stand in many rows. */
static void embed_back(const cv_run *run, const void *record)
{
    const embed_record *r = record;
    const size_t C = r->model->sizes.C;
    const bool placed = r->model->pos.rows > 0;
    const float *dx = cv_gradient(run, r->x);
    float *table = gradient_of(run, &r->model->emb);
    float *places = placed ? gradient_of(run, &r->model->pos) : NULL;
    size_t lo, hi;
    cv_own_columns(run, C, &lo, &hi);
    for (size_t t = 0; t < run->T; t++) {
        float *row = table + (size_t)r->tokens[t] * C;
        for (size_t c = lo; c < hi; c++)
            row[c] += dx[t * C + c];
    }
    for (size_t i = 0; placed && i < run->n_sequences; i++) {
        const cv_sequence *seq = &run->sequences[i];
        float *row = places + cv_count_of(seq->start) * C;
        for (size_t t = seq->begin; t < seq->begin + seq->n; t++, row += C)
            for (size_t c = lo; c < hi; c++)
                row[c] += dx[t * C + c];
    }
}

/* x += row i of a table. */
static void add_row(const cv_table *table, size_t i, float *x)
{
    enum { PART = 256 }; /* whole blocks of every type */
    const size_t C = table->cols;
    float part[PART];
    size_t at = 0;
    for (size_t c = 0; c < C; c += PART) {
        const size_t n = C - c < PART ? C - c : PART;
        cv_to_f32(table->dtype, table->bytes + i * table->row_bytes + at, part, n);
        for (size_t j = 0; j < n; j++)
            x[c + j] += part[j];
        size_t bytes = 0;
        cv_dtype_bytes(table->dtype, n, &bytes);
        at += bytes;
    }
}

/* The places of rows [lo, hi), which are counted from the state that their sequence is in. */
static void add_places(const cv_run *run, const cv_model *model, float *x)
{
    for (size_t i = 0; i < run->n_sequences; i++) {
        const cv_sequence *seq = &run->sequences[i];
        const size_t before = cv_count_of(seq->state);
        for (size_t t = seq->begin; t < seq->begin + seq->n; t++)
            if (t >= run->lo && t < run->hi)
                add_row(&model->pos, before + t - seq->begin, x + t * model->sizes.C);
    }
}

/* This member's share of the rows: x is common, so here even few rows are shared out. */
static void embed(const cv_run *run, const cv_model *model, const int32_t *tokens, float *x)
{
    const size_t C = model->sizes.C;
    const cv_table *emb = &model->emb;
    cv_run part = *run;
    cv_share(run->me, run->T, &part.lo, &part.hi);
    for (size_t t = part.lo; t < part.hi; t++)
        cv_to_f32(emb->dtype, emb->bytes + (size_t)tokens[t] * emb->row_bytes, x + t * C, C);
    if (model->pos.rows) add_places(&part, model, x);
    embed_record *r = cv_record(run, embed_back, sizeof *r);
    if (r) *r = (embed_record){ model, tokens, x };
    if (model->ln0.w) cv_layer_norm(&part, C, x, model->ln0, x);
}

/* From tokens to what goes into the first layer. */
static void begin(cv_run *run, const cv_model *model, const cv_step *step, stack *b)
{
    run->sequences = step->sequences;
    run->n_sequences = step->n_sequences;
    cv_run_rows(run, step->T);
    take(run, model, b);

    embed(run, model, step->tokens, b->x);
    cv_meet(run);
}

/* What goes into the head for one row. */
static void last_norm(const cv_run *run, const cv_model *model, const float *x, float *z)
{
    const size_t C = model->sizes.C;
    if (model->ln_out.w)
        run->kernel->layer_norm(C, x, model->ln_out.w, model->ln_out.b, CV_LN_EPS, NULL, z);
    else
        memcpy(z, x, C * sizeof *z);
}

/* Logits of the wanted rows.  Each member normalises all of them for itself. */
static void head(cv_run *run, const cv_model *model, const cv_step *step, const stack *b)
{
    const size_t C = model->sizes.C;
    cv_run few = *run;
    few.T = step->n_wanted;
    float *z = cv_take_own(&few, C);
    for (size_t i = 0; i < step->n_wanted; i++)
        last_norm(run, model, b->x + step->wanted[i] * C, z + i * C);
    const cv_linear out = { .W = &model->head, .x = z, .y = step->logits };
    cv_linear_all(&few, &out, 1);
}

void cv_language_step(cv_run *run, const cv_model *model, const cv_step *step)
{
    stack b;
    begin(run, model, step, &b);
    for (size_t l = 0; l < model->sizes.L; l++)
        model->arch->layer(run, model, l, b.x, b.layer);
    if (step->n_wanted) head(run, model, step, &b);
}

/* ---- Learning -------------------------------------------------------------------------------- */

void cv_language_learn(cv_run *run, const cv_model *model, const cv_lesson *lesson)
{
    const size_t C = model->sizes.C;
    stack b;
    cv_layers_mark mark;
    begin(run, model, &lesson->step, &b);
    cv_learn_layers(run, model, b.x, b.layer, &mark);
    float *z = cv_take_common(run, C);
    cv_take_memory(run, run->T * (C + 1));
    float *logits = cv_take_shared(run, CV_LOSS_ROWS * model->sizes.V);
    if (model->ln_out.w)
        cv_layer_norm(run, C, b.x, model->ln_out, z);
    else
        z = b.x;
    cv_meet(run);
    cv_loss loss = lesson->loss;
    loss.head = &model->head;
    cv_cross_entropy(run, &loss, z, logits, lesson->gradients, lesson->rows);
    if (lesson->gradients) cv_learn_back(run, model, b.x, b.layer, &mark);
}

void cv_language_lesson_memory(const cv_model *model, size_t T, bool again, const cv_member *me,
                               cv_lesson_memory *out)
{
    cv_tape tape = { .records = NULL };
    cv_run run = { .me = me, .tape = &tape };
    stack b;
    cv_run_rows(&run, T);
    take(&run, model, &b);
    cv_learn_take(&run, model, again, b.layer);
    cv_take_common(&run, model->sizes.C);
    cv_take_memory(&run, T * (model->sizes.C + 1));
    cv_take_shared(&run, CV_LOSS_ROWS * model->sizes.V);
    cv_learn_measure_back(&run, model, again, out);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

/* Takes what a step of `rows` rows takes, without memory. */
static void measure(const cv_model *model, size_t rows, const cv_member *me, size_t *common,
                    size_t *own)
{
    cv_run run = { .me = me };
    stack b;
    cv_run_rows(&run, rows);
    take(&run, model, &b);
    cv_take_own(&run, model->sizes.C); /* the head's rows */
    if (run.common.peak > *common) *common = run.common.peak;
    if (run.own.peak > *own) *own = run.own.peak;
}

void cv_language_buffers(const cv_model *model, size_t rows, const cv_member *me, size_t *common,
                         size_t *own, size_t *matmul)
{
    *common = *own = 0;
    measure(model, rows, me, common, own);
    measure(model, rows < CV_ROWS_FOR_ALL ? rows : CV_ROWS_FOR_ALL, me, common, own);
    *matmul = cv_matmul_scratch(rows);
}
