/* source.c - recognising a checkpoint and finding its weights; see source.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/source.h"
#include "models/vision.h"

/* ---- Names ----------------------------------------------------------------------------------- */

const cv_spelling *cv_field_spelling(const cv_field *field, cv_dialect dialect)
{
    if (dialect == CV_LLAMACPP) return &field->gguf;
    if (dialect == CV_GGML && field->ggml.name) return &field->ggml;
    return &field->official;
}

static const char *layer_prefix(const cv_arch *arch, cv_dialect dialect)
{
    return dialect == CV_LLAMACPP ? "blk." : arch->stack->layers;
}

bool cv_field_name(const cv_arch *arch, const cv_field *field, cv_dialect dialect, size_t layer,
                   char *name, size_t n)
{
    const cv_spelling *s = cv_field_spelling(field, dialect);
    if (!s->name) return false;
    if (cv_of_stack(arch, field))
        snprintf(name, n, "%s", s->name);
    else
        snprintf(name, n, "%s%zu.%s", layer_prefix(arch, dialect), layer, s->name);
    return true;
}

static cv_dialect dialect_of(const cv_checkpoint *ckpt)
{
    if (ckpt->format == CV_RWKVCPP) return CV_GGML;
    return cv_checkpoint_find(ckpt, "token_embd.weight") ? CV_LLAMACPP : CV_OFFICIAL;
}

/* 1 + the largest N of names "blocks.N." (or as the dialect has it); 0 when there is none. */
static size_t count_layers(const cv_checkpoint *ckpt, const char *prefix)
{
    const size_t m = strlen(prefix);
    size_t layers = 0;
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        const char *name = ckpt->tensors[i].name;
        if (strncmp(name, prefix, m) != 0) continue;
        char *end;
        unsigned long l = strtoul(name + m, &end, 10);
        if (*end == '.' && end > name + m && l < ckpt->n_tensors && l + 1 > layers) layers = l + 1;
    }
    return layers;
}

/* ---- Sizes ----------------------------------------------------------------------------------- */

static size_t *size_at(cv_sizes *s, char letter)
{
    switch (letter) {
    case 'V': return &s->V;
    case 'C': return &s->C;
    case 'A': return &s->A;
    case 'F': return &s->F;
    case 'H': return &s->H;
    case 'N': return &s->N;
    case 'D': return &s->D;
    case 'M': return &s->M;
    case 'E': return &s->E;
    case 'w': return &s->w;
    case 'a': return &s->a;
    case 'v': return &s->v;
    case 'g': return &s->g;
    case 'p': return &s->p;
    case 'G': return &s->G;
    case 'K': return &s->K;
    case 'J': return &s->J;
    default: return NULL;
    }
}

/* What a letter or digit of a shape stands for; 0 when it is not known yet. */
static size_t size_of(const cv_sizes *s, char letter)
{
    if (letter >= '0' && letter <= '9') return (size_t)(letter - '0');
    cv_sizes copy = *s;
    return *size_at(&copy, letter);
}

/* A shape without the ones in front, which only matter to who writes official files. */
static const char *bare(const char *shape)
{
    return shape + strspn(shape, "1");
}

/* A shape of letters as numbers; 0 for letters not known yet. */
static size_t shape_count(const cv_sizes *s, const char *shape)
{
    size_t count = 1;
    for (shape = bare(shape); *shape; shape++)
        count *= size_of(s, *shape);
    return count;
}

/* "[768 (A), 768 (C)]" */
static void print_expected(const cv_sizes *s, const char *shape, char *out, size_t n)
{
    size_t at = 0;
    shape = bare(shape);
    for (size_t i = 0; shape[i] && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%zu (%c)", i ? ", " : "[", size_of(s, shape[i]),
                               shape[i]);
    if (at < n) snprintf(out + at, n - at, "]");
}

static void print_dims(const cv_tensor *t, char *out, size_t n)
{
    size_t at = 0;
    for (int i = 0; i < t->n_dims && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%zu", i ? ", " : "[", t->dims[i]);
    if (at < n) snprintf(out + at, n - at, "%s]", t->n_dims ? "" : "[");
}

static corvid_status wrong_shape(const cv_source *source, const cv_view *view, corvid_error *err)
{
    char found[128], expected[128];
    print_dims(view->tensor, found, sizeof found);
    print_expected(&source->sizes, view->field->shape, expected, sizeof expected);
    return cv_fail(err, CORVID_E_FORMAT,
                   "%s: tensor %s has shape %s, expected %s%s; is it from another model?",
                   source->ckpt->in.path, view->name, found, expected,
                   view->transposed ? " transposed" : "");
}

/* The dimensions of a view in the order of its letters, ones dropped unless they are needed. */
static int view_dims(const cv_view *view, size_t letters, size_t *dims)
{
    const cv_tensor *t = view->tensor;
    const bool sliced = view->first != 0 || view->rows * view->cols < t->count;
    int n = 0, skip = sliced ? 1 : 0;
    const bool exact = (size_t)(t->n_dims - skip) == letters;
    for (int i = skip; i < t->n_dims; i++)
        if (exact || t->dims[i] != 1) dims[n++] = t->dims[i];
    if (view->transposed && n == 2) {
        size_t swap = dims[0];
        dims[0] = dims[1];
        dims[1] = swap;
    }
    return n;
}

/* Learns sizes that are not known yet from the shape of a view. */
static void learn(cv_source *source, const cv_view *view)
{
    const char *shape = bare(view->field->shape);
    const size_t letters = strlen(shape);
    size_t dims[CV_MAX_DIMS];
    int n = view_dims(view, letters, dims);
    if ((size_t)n == letters) {
        for (size_t i = 0; i < letters; i++)
            if (size_of(&source->sizes, shape[i]) == 0)
                *size_at(&source->sizes, shape[i]) = dims[i];
    } else if (letters == 1 && size_of(&source->sizes, shape[0]) == 0) {
        *size_at(&source->sizes, shape[0]) = view->rows * view->cols;
    }
}

/* ---- Views ----------------------------------------------------------------------------------- */

/* Where a field is in the file; tensor NULL when it is not.  Shapes are not judged here. */
static corvid_status locate(const cv_source *source, const cv_field *field, size_t layer,
                            cv_view *view, corvid_error *err)
{
    *view = (cv_view){ .field = field, .layer = layer, .scale = 1.0f };
    if (!cv_field_name(source->arch, field, source->dialect, layer, view->name, sizeof view->name))
        return CORVID_OK;
    const cv_tensor *t = cv_checkpoint_find(source->ckpt, view->name);
    if (!t) return CORVID_OK;
    if (!cv_dtype_of(t->dtype)->real)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: tensor %s has type %s, expected floating-point or quantized weights",
                       source->ckpt->in.path, view->name, cv_dtype_of(t->dtype)->name);
    if (t->count == 0)
        return cv_fail(err, CORVID_E_FORMAT, "%s: tensor %s is empty; the file is damaged",
                       source->ckpt->in.path, view->name);

    size_t count = t->count;
    const int slice = cv_field_spelling(field, source->dialect)->slice;
    if (slice != CV_WHOLE) {
        if (t->n_dims < 2 || (size_t)slice >= t->dims[0] || count == 0)
            return cv_fail(err, CORVID_E_FORMAT, "%s: tensor %s has no part %d",
                           source->ckpt->in.path, view->name, slice);
        count /= t->dims[0];
        view->first = (size_t)slice * count;
    }
    view->tensor = t;
    view->dtype = t->dtype;
    view->rows = 1;
    view->cols = count;
    view->transposed = field->kind == CV_LOW_RANK && source->dialect == CV_OFFICIAL;
    if ((field->flags & CV_RESCALED) && source->rescale_every)
        view->scale = ldexpf(1.0f, (int)(layer / source->rescale_every));
    return CORVID_OK;
}

/* Does the field belong to this layer of this file at all? */
static bool used(const cv_field *field, size_t layer)
{
    return !((field->flags & CV_NOT_FIRST) && layer == 0);
}

/* Calls learn() or the visitor on every field in turn. */
typedef corvid_status visit_fn(void *ctx, cv_view *view, corvid_error *err);

static corvid_status visit_fields(const cv_source *source, const cv_field *fields, size_t n,
                                  size_t layer, visit_fn *visit, void *ctx, corvid_error *err)
{
    for (size_t i = 0; i < n; i++) {
        cv_view view;
        if (!used(&fields[i], layer)) continue;
        CV_TRY(locate(source, &fields[i], layer, &view, err));
        if (!view.tensor && (fields[i].flags & CV_OR_NEXT))
            CV_TRY(locate(source, &fields[++i], layer, &view, err));
        else if (fields[i].flags & CV_OR_NEXT)
            i++;
        if (!view.tensor && (fields[i].flags & CV_OPTIONAL)) continue;
        if (!view.tensor)
            return cv_fail(err, CORVID_E_FORMAT,
                           "%s: tensor %s is missing; the file is an incomplete %s model",
                           source->ckpt->in.path, view.name, source->arch->name);
        CV_TRY(visit(ctx, &view, err));
    }
    return CORVID_OK;
}

static corvid_status visit_all(const cv_source *source, visit_fn *visit, void *ctx,
                               corvid_error *err)
{
    const cv_stack *stack = source->arch->stack;
    CV_TRY(visit_fields(source, stack->fields, stack->n_fields, 0, visit, ctx, err));
    for (size_t l = 0; l < source->sizes.L; l++)
        CV_TRY(
            visit_fields(source, source->arch->fields, source->arch->n_fields, l, visit, ctx, err));
    return CORVID_OK;
}

static corvid_status learn_visit(void *ctx, cv_view *view, corvid_error *err)
{
    (void)err;
    learn(ctx, view);
    return CORVID_OK;
}

/* Fills rows and cols of a view as the model wants them, and checks the file's shape against
 * them.  The last step before anyone sees a view. */
static corvid_status settle_shape(const cv_source *source, cv_view *view, corvid_error *err)
{
    const cv_sizes *s = &source->sizes;
    const char *shape = view->field->shape;
    const size_t count = view->cols;
    if (view->field->kind == CV_VECTOR) {
        if (count != shape_count(s, shape)) return wrong_shape(source, view, err);
        return CORVID_OK;
    }
    size_t dims[CV_MAX_DIMS];
    const size_t letters = strlen(shape), rows = size_of(s, shape[0]);
    const size_t cols = shape_count(s, shape + 1);
    bool fits = view_dims(view, letters, dims) == (int)letters;
    for (size_t i = 0; fits && i < letters; i++)
        fits = dims[i] == size_of(s, shape[i]);
    if (!fits) return wrong_shape(source, view, err);
    if (cv_dtype_of(view->dtype)->quantized && view->transposed)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: tensor %s is quantized and stored transposed, which no known program "
                       "writes",
                       source->ckpt->in.path, view->name);
    view->rows = rows;
    view->cols = cols;
    return CORVID_OK;
}

static corvid_status check_visit(void *ctx, cv_view *view, corvid_error *err)
{
    return settle_shape(ctx, view, err);
}

/* The table of positions is square, and patches are small. */
static corvid_status check_vision(const cv_source *source, corvid_error *err)
{
    const cv_sizes *s = &source->sizes;
    const size_t side = cv_side_of(s->G);
    if (side * side != s->G)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: backbone.pos_embed has %zu positions, expected a square number",
                       source->ckpt->in.path, s->G);
    if (s->p == 0 || s->p > 256)
        return cv_fail(err, CORVID_E_FORMAT, "%s: patches of %zu pixels a side, expected 1 to 256",
                       source->ckpt->in.path, s->p);
    return CORVID_OK;
}

/* The size of the heads of a model whose tensors do not tell: from the metadata, as a number or a
 * text; else 64, or one head of all channels. */
static size_t head_size_of(const cv_source *source)
{
    const size_t A = source->sizes.A;
    const cv_meta *meta = cv_checkpoint_meta(source->ckpt, CV_HEAD_SIZE_KEY);
    size_t N = 0;
    if (meta && meta->type == CV_META_INT && meta->integer > 0) N = (size_t)meta->integer;
    if (meta && meta->type == CV_META_TEXT)
        for (size_t i = 0;
             i < meta->text.n && i < 5 && meta->text.bytes[i] >= '0' && meta->text.bytes[i] <= '9';
             i++)
            N = 10 * N + (size_t)(meta->text.bytes[i] - '0');
    if (N > 0) return N;
    return A % 64 == 0 ? 64 : A;
}

/* The sizes that no single shape tells: heads. */
static corvid_status finish_sizes(cv_source *source, corvid_error *err)
{
    cv_sizes *s = &source->sizes;
    if (source->arch->stack->vision) {
        s->A = s->C;
        if (s->G == 0) s->G = 1; /* a single position looks like a vector */
        CV_TRY(check_vision(source, err));
        CV_TRY(cv_vision_traits_read(source->ckpt, s, &source->traits, err));
    }
    if (cv_has_no_heads(source->arch)) {
        s->A = s->C;
        s->H = s->A;
        s->N = 1;
    }
    if (source->arch == &cv_gpt) s->N = head_size_of(source);
    if (source->arch == &cv_lstm && s->F != 4 * s->C)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: lstm.input.weight has %zu rows, expected 4 times the width %zu",
                       source->ckpt->in.path, s->F, s->C);
    if (s->H == 0 && s->N == 0) s->N = s->A; /* one head, written without its axis */
    if (s->H == 0 && s->N) s->H = s->A / s->N;
    if (s->N == 0 && s->H) s->N = s->A / s->H;
    if (s->H == 0 || s->N == 0 || s->H * s->N != s->A || s->N > 1024)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: %zu heads of %zu channels do not make the attention width %zu",
                       source->ckpt->in.path, s->H, s->N, s->A);
    if (s->M != 5 * s->D)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: time_maa_w1 has %zu columns, expected 5 times the rank %zu",
                       source->ckpt->in.path, s->M, s->D);
    return CORVID_OK;
}

/* GGUF says in its metadata what its flattened tensors do not. */
static void read_gguf_keys(cv_source *source)
{
    char key[64];
    snprintf(key, sizeof key, "%s.wkv.head_size", source->arch->name);
    const cv_meta *meta = cv_checkpoint_meta(source->ckpt, key);
    if (meta && meta->type == CV_META_INT && meta->integer > 0 && meta->integer <= 1024)
        source->sizes.N = (size_t)meta->integer;
    snprintf(key, sizeof key, "%s.rescale_every_n_layers", source->arch->name);
    meta = cv_checkpoint_meta(source->ckpt, key);
    if (meta && meta->type == CV_META_INT && meta->integer > 0)
        source->rescale_every = (size_t)meta->integer;
}

int cv_field_dims(const cv_source *source, const cv_field *field, cv_dialect dialect, size_t *dims)
{
    const cv_sizes *s = &source->sizes;
    const char *shape = dialect == CV_OFFICIAL ? field->shape : bare(field->shape);
    int n = 0;
    if (dialect == CV_LLAMACPP && (field->flags & CV_FLAT)) {
        dims[0] = shape_count(s, shape);
        return 1;
    }
    for (; *shape; shape++)
        dims[n++] = size_of(s, *shape);
    if (field->kind == CV_LOW_RANK && dialect == CV_OFFICIAL) {
        size_t swap = dims[0];
        dims[0] = dims[1];
        dims[1] = swap;
    }
    return n;
}

corvid_status cv_source_open(const cv_checkpoint *ckpt, cv_source *out, corvid_error *err)
{
    *out = (cv_source){ .ckpt = ckpt, .dialect = dialect_of(ckpt) };
    CV_TRY(cv_registry_detect(ckpt, &out->arch, err));
    if (out->dialect == CV_LLAMACPP) read_gguf_keys(out);
    const char *layers = layer_prefix(out->arch, out->dialect);
    out->sizes.L = count_layers(ckpt, layers);
    if (out->sizes.L == 0)
        return cv_fail(err, CORVID_E_FORMAT, "%s: has no layers (tensors %s0.*)", ckpt->in.path,
                       layers);
    CV_TRY(visit_all(out, learn_visit, out, err));
    CV_TRY(finish_sizes(out, err));
    return visit_all(out, check_visit, out, err);
}

/* ---- Reading --------------------------------------------------------------------------------- */

typedef struct each_ctx {
    const cv_source *source;
    corvid_status (*each)(void *ctx, const cv_view *view, corvid_error *err);
    void *ctx;
} each_ctx;

static corvid_status each_visit(void *ctx, cv_view *view, corvid_error *err)
{
    each_ctx *e = ctx;
    CV_TRY(settle_shape(e->source, view, err));
    return e->each(e->ctx, view, err);
}

/* Does a random model have this field? */
static bool made(const cv_source *source, const cv_field *field)
{
    const cv_vision_traits *t = &source->traits;
    if (field->flags & CV_IF_SCALED) return t->post_norm;
    if (field->flags & CV_IF_KEY_NORM) return t->keyed;
    if (field->flags & CV_IF_MLP) return t->mlp;
    if (field->flags & CV_IF_FC) return !t->mlp;
    return !(field->flags & CV_OPTIONAL) || (field->flags & CV_MADE);
}

/* Random sources have no tensors: their views are made from the shapes. */
static corvid_status each_random(const cv_source *source, const cv_field *fields, size_t n,
                                 size_t layer, each_ctx *e, corvid_error *err)
{
    const cv_sizes *s = &source->sizes;
    for (size_t i = 0; i < n; i++) {
        const cv_field *f = &fields[i];
        if (!used(f, layer) || !made(source, f)) continue;
        cv_view view = { .field = f, .layer = layer, .dtype = CV_F32, .rows = 1, .scale = 1.0f };
        cv_field_name(source->arch, f, CV_OFFICIAL, layer, view.name, sizeof view.name);
        view.cols = shape_count(s, f->shape);
        if (f->kind != CV_VECTOR) {
            view.rows = size_of(s, f->shape[0]);
            view.cols = shape_count(s, f->shape + 1);
            view.dtype = source->random_type;
            if (view.cols % cv_dtype_of(view.dtype)->block != 0) view.dtype = CV_F16;
        }
        CV_TRY(e->each(e->ctx, &view, err));
        if (f->flags & CV_OR_NEXT) i++;
    }
    return CORVID_OK;
}

corvid_status cv_source_each(const cv_source *source,
                             corvid_status (*each)(void *ctx, const cv_view *view,
                                                   corvid_error *err),
                             void *ctx, corvid_error *err)
{
    each_ctx e = { source, each, ctx };
    if (source->ckpt) return visit_all(source, each_visit, &e, err);
    const cv_stack *stack = source->arch->stack;
    CV_TRY(each_random(source, stack->fields, stack->n_fields, 0, &e, err));
    for (size_t l = 0; l < source->sizes.L; l++)
        CV_TRY(each_random(source, source->arch->fields, source->arch->n_fields, l, &e, err));
    return CORVID_OK;
}

corvid_status cv_source_read(const cv_source *source, const cv_view *view, size_t first, size_t n,
                             void *dst, corvid_error *err)
{
    const size_t at = first * view->cols, count = n * view->cols;
    if (view->tensor)
        return cv_tensor_read(source->ckpt, view->tensor, view->first + at, count, dst, err);

    float values[1024]; /* a multiple of every block */
    unsigned char *out = dst;
    for (size_t i = 0; i < count;) {
        size_t part = count - i < 1024 ? count - i : 1024, bytes;
        source->random_values(source, view, at + i, part, values);
        cv_from_f32(view->dtype, values, out, part);
        if (!cv_dtype_bytes(view->dtype, part, &bytes))
            return cv_fail(err, CORVID_E_INTERNAL, "%s: odd block of random values", view->name);
        out += bytes;
        i += part;
    }
    return CORVID_OK;
}

float cv_transform_value(cv_transform transform, float x)
{
    switch (transform) {
    case CV_ONE_MINUS: return 1.0f - x;
    case CV_NEG_EXP: return -expf(x);
    case CV_EXP_NEG_EXP: return expf(-expf(x));
    case CV_EXP: return expf(x);
    case CV_AS_IS: break;
    }
    return x;
}

float cv_transform_undo(cv_transform transform, float y)
{
    switch (transform) {
    case CV_ONE_MINUS: return 1.0f - y;
    case CV_NEG_EXP: return (float)log(-(double)y);
    case CV_EXP_NEG_EXP: return (float)log(-log((double)y));
    case CV_EXP: return (float)log((double)y);
    case CV_AS_IS: break;
    }
    return y;
}
