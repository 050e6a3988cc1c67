/* vision.c - the stack that all vision models share: from pixels to tokens, from tokens to classes.
 *
 *     x = LN(P patch + bias + position; ln0), a class token behind them    [vrwkv.patch] [vrwkv.stack]
 *     x through L layers
 *     pooled = mean over the tokens of LN(x; ln_out), or its class token
 *     logits = head pooled, or head tanh(hidden pooled)                          [vrwkv.head]
 */
#include <string.h>

#include "models/vision.h"
#include "ops/pool.h"
#include "ops/residual.h"

#define AT(member) offsetof(cv_model, member)
#define NAME(name) { name, CV_WHOLE }, CV_NOWHERE, CV_NOWHERE
static const cv_field fields[] = {
    { NAME("backbone.patch_embed.projection.weight"), CV_FILTER, "C3pp", AT(vision.patch), CV_AS_IS,
      0 },
    { NAME("backbone.patch_embed.projection.bias"), CV_VECTOR, "C", AT(vision.patch_bias), CV_AS_IS,
      0 },
    { NAME("backbone.pos_embed"), CV_VECTOR, "1GC", AT(vision.pos), CV_AS_IS, 0 },
    { NAME("backbone.cls_token"), CV_VECTOR, "11C", AT(vision.class_token), CV_AS_IS, CV_OPTIONAL },
    { NAME("backbone.layers.0.ln0.weight"), CV_VECTOR, "C", AT(ln0.w), CV_AS_IS, 0 },
    { NAME("backbone.layers.0.ln0.bias"), CV_VECTOR, "C", AT(ln0.b), CV_AS_IS, 0 },
    { NAME("backbone.ln1.weight"), CV_VECTOR, "C", AT(ln_out.w), CV_AS_IS, CV_OPTIONAL | CV_MADE },
    { NAME("backbone.ln1.bias"), CV_VECTOR, "C", AT(ln_out.b), CV_AS_IS, CV_OPTIONAL | CV_MADE },
    /* Three forms of the head; a file has one of them, or none. */
    { NAME("head.fc.weight"), CV_MATRIX, "KC", AT(head), CV_AS_IS, CV_OPTIONAL | CV_IF_FC },
    { NAME("head.fc.bias"), CV_VECTOR, "K", AT(vision.bias), CV_AS_IS, CV_OPTIONAL | CV_IF_FC },
    { NAME("head.weight"), CV_MATRIX, "KC", AT(head), CV_AS_IS, CV_OPTIONAL },
    { NAME("head.bias"), CV_VECTOR, "K", AT(vision.bias), CV_AS_IS, CV_OPTIONAL },
    { NAME("head.0.weight"), CV_MATRIX, "JC", AT(vision.hidden), CV_AS_IS,
      CV_OPTIONAL | CV_IF_MLP },
    { NAME("head.0.bias"), CV_VECTOR, "J", AT(vision.hidden_bias), CV_AS_IS,
      CV_OPTIONAL | CV_IF_MLP },
    { NAME("head.2.weight"), CV_MATRIX, "KJ", AT(head), CV_AS_IS, CV_OPTIONAL | CV_IF_MLP },
    { NAME("head.2.bias"), CV_VECTOR, "K", AT(vision.bias), CV_AS_IS, CV_OPTIONAL | CV_IF_MLP },
};

const cv_stack cv_vision_stack = {
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .layers = "backbone.layers.",
    .vision = true,
};

cv_grid cv_vision_grid(const cv_model *model, size_t height, size_t width, size_t begin)
{
    const size_t p = model->sizes.p;
    cv_grid g = { .begin = begin, .h = (height + p - 1) / p, .w = (width + p - 1) / p };
    g.n = g.h * g.w + (model->vision.class_token ? 1 : 0);
    return g;
}

/* The buffers of a step. */
typedef struct stack {
    float *x;                        /* [T][C] common */
    float *z;                        /* [T][C] common: after the final norm */
    float *patches;                  /* [T of a tile][3 p p] */
    float *pooled, *hidden, *logits; /* [n][C], [n][J], [n][K] common */
    _Alignas(16) unsigned char layer[CV_BUFFERS_MAX];
} stack;

static void take(cv_run *run, const cv_model *model, stack *b)
{
    const cv_sizes *s = &model->sizes;
    memset(b, 0, sizeof *b);
    b->x = cv_take_common(run, s->C);
    cv_take_memory(run, run->T * (s->C + 1)); /* of the norm behind the patches */
    b->z = cv_take_common(run, s->C);
    cv_take_memory(run, run->T * (s->C + 1));
    b->patches = cv_take_tile(run, 3 * s->p * s->p);
    b->pooled = cv_take_shared(run, run->n_grids * s->C);
    b->hidden = cv_take_shared(run, run->n_grids * s->J);
    b->logits = cv_take_shared(run, run->n_grids * s->K);
    model->arch->take(run, model, b->layer);
}

/* ---- Tokens ---------------------------------------------------------------------------------- */

/* Row y of channel c of a patch whose left upper pixel is (x0, y0): p numbers. */
static void patch_line(const cv_sight *sight, const cv_image *image, size_t c, size_t y, size_t x0,
                       size_t p, float *out)
{
    const size_t left = y < image->height ? image->width - x0 : 0, n = left < p ? left : p;
    if (n == 0) {
        memset(out, 0, p * sizeof *out);
        return;
    }
    if (image->pixels) {
        const unsigned char *from = image->pixels + (y * image->width + x0) * 3 + c;
        for (size_t i = 0; i < n; i++)
            out[i] = sight->table[c][from[3 * i]];
    } else {
        const float *from = image->values + (c * image->height + y) * image->width + x0;
        memcpy(out, from, n * sizeof *out);
    }
    memset(out + n, 0, (p - n) * sizeof *out);
}

/* The pixels under cell t of a grid, channel by channel; what lies outside is 0 [vrwkv.patch]. */
static void gather_patch(const cv_sight *sight, const cv_image *image, const cv_grid *g, size_t t,
                         size_t p, float *out)
{
    const size_t y0 = t / g->w * p, x0 = t % g->w * p;
    for (size_t c = 0; c < 3; c++)
        for (size_t y = 0; y < p; y++)
            patch_line(sight, image, c, y0 + y, x0, p, out + (c * p + y) * p);
}

static bool is_class_token(const cv_grid *g, size_t t)
{
    return t - g->begin >= g->h * g->w;
}

/* The grid that row t of the run belongs to, from `from` on. */
static size_t grid_of(const cv_run *run, size_t from, size_t t)
{
    while (t >= run->grids[from].begin + run->grids[from].n)
        from++;
    return from;
}

/* The pixels under this member's rows of a tile; a class token has none. */
static void gather_tile(const cv_tile *t, const cv_model *model, const cv_sight *sight,
                        float *patches)
{
    const size_t p = model->sizes.p, I = 3 * p * p;
    size_t g = 0;
    for (size_t i = t->run.lo; i < t->run.hi; i++) {
        g = grid_of(&t->run, g, t->first + i);
        const cv_grid *grid = &t->run.grids[g];
        float *patch = patches + i * I;
        if (is_class_token(grid, t->first + i))
            memset(patch, 0, I * sizeof *patch);
        else
            gather_patch(sight, &sight->images[g], grid, t->first + i - grid->begin, p, patch);
    }
}

typedef struct place_record {
    const cv_model *model;
    const float *x;
} place_record;

/* A class token takes the gradient of its rows from what made them: nothing is left for the bias of
 * the patches. */
static void place_back(const cv_run *run, const void *record)
{
    const place_record *r = record;
    const cv_vision *v = &r->model->vision;
    const size_t C = r->model->sizes.C, side = cv_side_of(r->model->sizes.G);
    float *dx = cv_gradient(run, r->x), *dpos = cv_gradient(run, v->pos);
    float *dclass = v->class_token ? cv_gradient(run, v->class_token) : NULL;
    size_t lo, hi, g = 0;
    cv_own_columns(run, C, &lo, &hi);
    for (size_t t = 0; t < run->T; t++) {
        g = grid_of(run, g, t);
        const cv_grid *grid = &run->grids[g];
        const size_t at = t - grid->begin;
        if (is_class_token(grid, t)) {
            for (size_t c = lo; c < hi; c++) {
                dclass[c] += dx[t * C + c];
                dx[t * C + c] = 0.0f;
            }
        } else {
            cv_position_back(dpos, side, C, grid->h, grid->w, at / grid->w, at % grid->w, lo, hi,
                             dx + t * C);
        }
    }
}

/* Adds the positions to this member's rows of x, or puts the class token there. */
static void place_rows(const cv_tile *t, const cv_model *model, float *x)
{
    const cv_vision *v = &model->vision;
    const size_t C = model->sizes.C, side = cv_side_of(model->sizes.G);
    size_t g = 0;
    place_record *r = cv_record(&t->run, place_back, sizeof *r);
    if (r) *r = (place_record){ model, x };
    for (size_t i = t->run.lo; i < t->run.hi; i++) {
        g = grid_of(&t->run, g, t->first + i);
        const cv_grid *grid = &t->run.grids[g];
        const size_t at = t->first + i - grid->begin;
        if (is_class_token(grid, t->first + i))
            memcpy(x + i * C, v->class_token, C * sizeof *x);
        else
            cv_position_add(v->pos, side, C, grid->h, grid->w, at / grid->w, at % grid->w,
                            x + i * C);
    }
}

/* This member's rows of x, from pixels. */
static void embed(const cv_run *run, const cv_model *model, const cv_sight *sight, const stack *b)
{
    const cv_vision *v = &model->vision;
    for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);) {
        float *x = b->x + t.first * model->sizes.C;
        const cv_linear project = {
            .W = &v->patch, .x = b->patches, .y = x, .bias = v->patch_bias
        };
        gather_tile(&t, model, sight, b->patches);
        cv_tile_meet(&t);
        cv_linear_all(&t.run, &project, 1);
        cv_tile_meet(&t);
        place_rows(&t, model, x);
        cv_layer_norm(&t.run, model->sizes.C, x, model->ln0, x);
    }
}

/* ---- Features -------------------------------------------------------------------------------- */

/* This member's rows of a layer's output, to where they are wanted: [C][h][w]. */
static void hand_out(const cv_run *run, size_t C, const cv_sight *sight, size_t which,
                     const float *x)
{
    size_t g = run->lo < run->hi ? grid_of(run, 0, run->lo) : 0;
    for (size_t t = run->lo; t < run->hi; t++) {
        g = grid_of(run, g, t);
        const cv_grid *grid = &run->grids[g];
        const cv_image *image = &sight->images[g];
        const size_t cells = grid->h * grid->w, at = t - grid->begin;
        if (at < cells && image->features) {
            float *out = image->features + which * C * cells + at;
            for (size_t c = 0; c < C; c++)
                out[c * cells] = x[t * C + c];
        } else if (at >= cells && image->class_tokens) {
            memcpy(image->class_tokens + which * C, x + t * C, C * sizeof *x);
        }
    }
}

static void hand_out_layer(const cv_run *run, size_t C, const cv_sight *sight, size_t layer,
                           const float *x)
{
    for (size_t i = 0; i < sight->n_wanted; i++)
        if (sight->wanted[i] == layer) hand_out(run, C, sight, i, x);
}

/* ---- Classes --------------------------------------------------------------------------------- */

/* Logits of all pictures, [n][K]; pooled is complete. */
static void classify(const cv_run *run, const cv_model *model, const stack *b)
{
    const cv_vision *v = &model->vision;
    const float *x = b->pooled;
    cv_run few = *run;
    few.T = run->n_grids;
    if (v->hidden.rows) {
        const cv_linear inner = {
            .W = &v->hidden, .x = x, .y = b->hidden, .act = CV_ACT_TANH, .bias = v->hidden_bias
        };
        cv_linear_all(&few, &inner, 1);
        cv_meet(run);
        x = b->hidden;
    }
    const cv_linear outer = { .W = &model->head, .x = x, .y = b->logits, .bias = v->bias };
    cv_linear_all(&few, &outer, 1); /* [vrwkv.head] */
    cv_meet(run);
}

/* From the last layer's z, which is complete. */
static void conclude(const cv_run *run, const cv_model *model, const cv_sight *sight,
                     const stack *b)
{
    const size_t C = model->sizes.C, K = model->sizes.K;
    cv_pool(run, C, model->vision.class_token != NULL, b->z, b->pooled);
    cv_meet(run);
    if (model->head.rows) classify(run, model, b);
    for (size_t i = run->me->id; i < sight->n; i += run->me->n) {
        const cv_image *image = &sight->images[i];
        if (image->pooled) memcpy(image->pooled, b->pooled + i * C, C * sizeof(float));
        if (image->logits) memcpy(image->logits, b->logits + i * K, K * sizeof(float));
    }
}

/* ---- The step -------------------------------------------------------------------------------- */

static bool wants_vectors(const cv_sight *sight)
{
    for (size_t i = 0; i < sight->n; i++)
        if (sight->images[i].pooled || sight->images[i].logits) return true;
    return false;
}

/* How many layers have to run. */
static size_t depth_of(const cv_model *model, const cv_sight *sight)
{
    size_t depth = 0;
    if (wants_vectors(sight)) return model->sizes.L;
    for (size_t i = 0; i < sight->n_wanted; i++)
        if (sight->wanted[i] + 1 > depth) depth = sight->wanted[i] + 1;
    return depth;
}

/* z of this member's rows. */
static void finish(const cv_run *run, const cv_model *model, const stack *b)
{
    if (model->ln_out.w)
        cv_layer_norm(run, model->sizes.C, b->x, model->ln_out, b->z);
    else
        cv_copy_rows(run, model->sizes.C, b->x, b->z);
}

void cv_vision_step(cv_run *run, const cv_model *model, const cv_sight *sight)
{
    const size_t C = model->sizes.C, depth = depth_of(model, sight), last = model->sizes.L - 1;
    stack b;
    cv_run_grids(run, sight->grids, sight->n);
    take(run, model, &b);

    embed(run, model, sight, &b);
    for (size_t l = 0; l < depth; l++) {
        model->arch->layer(run, model, l, b.x, b.layer);
        if (l < last) hand_out_layer(run, C, sight, l, b.x);
    }
    if (depth <= last) return;

    finish(run, model, &b);
    hand_out_layer(run, C, sight, last, b.z);
    cv_meet(run);
    if (wants_vectors(sight)) conclude(run, model, sight, &b);
}

void cv_vision_buffers(const cv_model *model, const cv_grid *grids, size_t n, const cv_member *me,
                       size_t *common, size_t *own, size_t *matmul)
{
    cv_run run = { .me = me };
    stack b;
    cv_run_grids(&run, grids, n);
    take(&run, model, &b);
    *common = run.common.peak;
    *own = run.own.peak;
    *matmul = cv_matmul_scratch(n > CV_TILE ? n : CV_TILE);
}

/* ---- Learning -------------------------------------------------------------------------------- */

/* The inner layer of a head of two, whose way back is hidden_back: its rows are pictures, which the
 * tape knows nothing of. */
static void hidden_forth(const cv_run *few, const cv_model *model, const stack *b)
{
    const cv_vision *v = &model->vision;
    cv_run plain = *few;
    plain.tape = NULL;
    const cv_linear inner = {
        .W = &v->hidden, .x = b->pooled, .y = b->hidden, .act = CV_ACT_TANH, .bias = v->hidden_bias
    };
    cv_linear_all(&plain, &inner, 1);
    cv_meet(few);
}

static void hidden_back(const cv_run *few, const cv_model *model, const stack *b)
{
    const cv_vision *v = &model->vision;
    const size_t J = model->sizes.J;
    float *dh = cv_gradient(few, b->hidden);
    for (size_t i = few->lo * J; i < few->hi * J; i++)
        dh[i] *= 1.0f - b->hidden[i] * b->hidden[i];
    cv_meet(few);
    cv_product_back(few, &v->hidden, b->pooled, model->sizes.C, dh, cv_gradient(few, b->pooled),
                    true, cv_gradient(few, v->hidden_bias));
    cv_meet(few);
}

void cv_vision_learn(cv_run *run, const cv_model *model, const cv_sight_lesson *lesson)
{
    const bool mlp = model->vision.hidden.rows > 0;
    stack b;
    cv_layers_mark mark;
    cv_run_grids(run, lesson->sight.grids, lesson->sight.n);
    run->keep = lesson->keep;
    take(run, model, &b);
    embed(run, model, &lesson->sight, &b);
    cv_learn_layers(run, model, b.x, b.layer, &mark);
    finish(run, model, &b);
    cv_meet(run);
    cv_pool(run, model->sizes.C, model->vision.class_token != NULL, b.z, b.pooled);
    cv_meet(run);

    cv_run few = *run;
    few.T = run->n_grids;
    cv_share(run->me, few.T, &few.lo, &few.hi);
    cv_loss loss = lesson->loss;
    loss.head = &model->head;
    loss.bias = model->vision.bias;
    if (mlp) hidden_forth(&few, model, &b);
    cv_cross_entropy(&few, &loss, mlp ? b.hidden : b.pooled, b.logits, lesson->gradients,
                     lesson->rows);
    if (!lesson->gradients) return;
    if (mlp) hidden_back(&few, model, &b);
    cv_learn_back(run, model, b.x, b.layer, &mark);
}

void cv_vision_lesson_memory(const cv_model *model, const cv_grid *grids, size_t n, bool again,
                             const cv_member *me, cv_lesson_memory *out)
{
    cv_tape tape = { .records = NULL };
    cv_run run = { .me = me, .tape = &tape };
    stack b;
    cv_run_grids(&run, grids, n);
    take(&run, model, &b);
    cv_learn_take(&run, model, again, b.layer);
    cv_learn_measure_back(&run, model, again, out);
}
