/* vision.c - the stack that all vision models share: from pixels to tokens, from tokens to classes.
 *
 *     x = LN(P patch + bias + position; ln0), a class token behind them    [vrwkv.patch] [vrwkv.stack]
 *     x through L layers
 *     pooled = mean over the tokens of LN(x; ln_out), or its class token
 *     logits = head pooled, or head tanh(hidden pooled)                          [vrwkv.head]
 */
#include <string.h>

#include "models/vision.h"

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
    b->x = cv_take_common(run, s->C);
    b->z = cv_take_common(run, s->C);
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

/* A tile's rows of x from its patches.  A class token has no patch and no position. */
static void embed_tile(const cv_tile *t, const cv_model *model, const cv_sight *sight,
                       const stack *b)
{
    const cv_vision *v = &model->vision;
    const size_t C = model->sizes.C, p = model->sizes.p, I = 3 * p * p;
    const size_t side = cv_side_of(model->sizes.G);
    float *x = b->x + t->first * C;
    size_t g = grid_of(&t->run, 0, t->first);
    for (size_t i = 0; i < t->run.T; i++) {
        g = grid_of(&t->run, g, t->first + i);
        const cv_grid *grid = &t->run.grids[g];
        float *patch = b->patches + i * I;
        if (is_class_token(grid, t->first + i))
            memset(patch, 0, I * sizeof *patch);
        else
            gather_patch(sight, &sight->images[g], grid, t->first + i - grid->begin, p, patch);
    }
    const cv_linear project = { .W = &v->patch, .x = b->patches, .y = x, .bias = v->patch_bias };
    cv_linear_all(&t->run, &project, 1);

    g = grid_of(&t->run, 0, t->first);
    for (size_t i = 0; i < t->run.T; i++) {
        g = grid_of(&t->run, g, t->first + i);
        const cv_grid *grid = &t->run.grids[g];
        const size_t at = t->first + i - grid->begin;
        if (is_class_token(grid, t->first + i))
            memcpy(x + i * C, v->class_token, C * sizeof *x);
        else
            cv_position_add(v->pos, side, C, grid->h, grid->w, at / grid->w, at % grid->w,
                            x + i * C);
    }
    cv_layer_norm(&t->run, C, x, model->ln0, x);
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

/* Channels [lo, hi) of a picture's pooled vector [vrwkv.pool]. */
static void pool(const cv_model *model, const cv_grid *g, size_t lo, size_t hi, const float *z,
                 float *pooled)
{
    enum { WIDTH = 64 };
    const size_t C = model->sizes.C, cells = g->h * g->w;
    if (model->vision.class_token) {
        memcpy(pooled + lo, z + (g->begin + cells) * C + lo, (hi - lo) * sizeof *pooled);
        return;
    }
    for (size_t begin = lo; begin < hi; begin += WIDTH) {
        const size_t n = hi - begin < WIDTH ? hi - begin : WIDTH;
        double sum[WIDTH] = { 0.0 };
        for (size_t t = 0; t < cells; t++)
            for (size_t c = 0; c < n; c++)
                sum[c] += (double)z[(g->begin + t) * C + begin + c];
        for (size_t c = 0; c < n; c++)
            pooled[begin + c] = (float)(sum[c] / (double)cells);
    }
}

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
    size_t lo, hi;
    cv_share(run->me, C, &lo, &hi);
    for (size_t i = 0; i < sight->n; i++)
        pool(model, &run->grids[i], lo, hi, b->z, b->pooled + i * C);
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

void cv_vision_step(cv_run *run, const cv_model *model, const cv_sight *sight)
{
    const size_t C = model->sizes.C, depth = depth_of(model, sight), last = model->sizes.L - 1;
    stack b;
    cv_run_grids(run, sight->grids, sight->n);
    take(run, model, &b);

    for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);)
        embed_tile(&t, model, sight, &b);
    for (size_t l = 0; l < depth; l++) {
        model->arch->layer(run, model, l, b.x, b.layer);
        if (l < last) hand_out_layer(run, C, sight, l, b.x);
    }
    if (depth <= last) return;

    if (model->ln_out.w)
        cv_layer_norm(run, C, b.x, model->ln_out, b.z);
    else
        memcpy(b.z + run->lo * C, b.x + run->lo * C, (run->hi - run->lo) * C * sizeof(float));
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
