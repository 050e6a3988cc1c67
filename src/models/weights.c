/* weights.c - laying out a model's weights; see weights.h.
 *
 * First every field gets its place in one block of memory, then the team fills it: the work is a
 * list of pieces of about PIECE_BYTES, taken in turn. */
#include <stdatomic.h>
#include <string.h>
#include <xxhash.h>

#include "base/checked.h"
#include "models/pack.h"
#include "models/weights.h"

#define PIECE_BYTES ((size_t)1 << 20)

/* One field on its way from the file to memory. */
typedef struct item {
    cv_view view;
    cv_dtype type;        /* of the rows in memory before packing: f64 becomes f32 */
    cv_matrix matrix;     /* matrices */
    size_t offset, bytes; /* in the block of weights */
    size_t piece_rows, pieces, first_piece;
} item;

typedef struct plan {
    const cv_source *source;
    item *items;
    size_t n, capacity;
    size_t bytes, pieces;
    bool as_f32;
} plan;

void cv_matrix_layout(cv_dtype type, size_t rows, size_t cols, cv_matrix *out)
{
    const cv_dtype_info *info = cv_dtype_of(type);
    *out = (cv_matrix){ .rows = rows, .cols = cols };
    if (info->quantized) {
        out->layout = CV_LAYOUT_Q8;
        out->group = info->group;
        out->has_min = info->has_min;
        const size_t heads = (info->has_min ? 2 : 1) * CV_PANEL * sizeof(float);
        out->panel_bytes = cols / info->group * (heads + info->group * CV_PANEL);
    } else {
        out->layout = type == CV_F16    ? CV_LAYOUT_F16
                      : type == CV_BF16 ? CV_LAYOUT_BF16
                                        : CV_LAYOUT_F32;
        out->panel_bytes = cols * CV_PANEL * (out->layout == CV_LAYOUT_F32 ? 4 : 2);
    }
}

static size_t panels_of(const item *it)
{
    return (it->matrix.rows + CV_PANEL - 1) / CV_PANEL;
}

static bool place(item *it, bool as_f32)
{
    const cv_view *v = &it->view;
    size_t row_bytes;
    it->type = v->dtype == CV_F64 || as_f32 ? CV_F32 : v->dtype;
    if (!cv_dtype_bytes(it->type, v->cols, &row_bytes)) return false;
    switch (v->field->kind) {
    case CV_VECTOR:
        it->pieces = 1;
        /* A number per head is spread over at most 1024 channels. */
        return cv_mul_size(v->cols, (v->field->flags & CV_PER_HEAD) ? 1024 * 4 : 4, &it->bytes);
    case CV_TABLE:
        it->piece_rows = PIECE_BYTES / row_bytes + 1;
        it->pieces = (v->rows + it->piece_rows - 1) / it->piece_rows;
        return cv_mul_size(v->rows, row_bytes, &it->bytes);
    case CV_MATRIX:
    case CV_FILTER:
    case CV_LOW_RANK:
        cv_matrix_layout(it->type, v->rows, v->cols, &it->matrix);
        it->piece_rows = (PIECE_BYTES / row_bytes / CV_PANEL + 1) * CV_PANEL;
        it->pieces = v->transposed ? 1 : (v->rows + it->piece_rows - 1) / it->piece_rows;
        return cv_mul_size(panels_of(it), it->matrix.panel_bytes, &it->bytes);
    }
    return false;
}

static corvid_status add_item(void *ctx, const cv_view *view, corvid_error *err)
{
    plan *p = ctx;
    item it = { .view = *view };
    size_t end;
    if (!place(&it, p->as_f32) || !cv_round_up(it.bytes, CV_ALIGN, &it.bytes) ||
        !cv_add_size(p->bytes, it.bytes, &end))
        return cv_fail(err, CORVID_E_FORMAT, "%s: its size is no whole number of blocks of %s",
                       view->name, cv_dtype_of(view->dtype)->name);
    if (view->field->flags & CV_PER_HEAD) {
        it.bytes = p->source->sizes.A * sizeof(float);
        cv_round_up(it.bytes, CV_ALIGN, &it.bytes);
        end = p->bytes + it.bytes;
    }
    it.offset = p->bytes;
    it.first_piece = p->pieces;
    p->bytes = end;
    p->pieces += it.pieces;
    if (p->items && p->n < p->capacity) p->items[p->n] = it;
    p->n++;
    return CORVID_OK;
}

corvid_status cv_weights_measure(const cv_source *source, size_t *bytes, corvid_error *err)
{
    plan p = { .source = source };
    CV_TRY(cv_source_each(source, add_item, &p, err));
    *bytes = cv_huge_bytes(p.bytes);
    return CORVID_OK;
}

/* ---- Filling --------------------------------------------------------------------------------- */

typedef struct filling {
    const plan *plan;
    const corvid_allocator *mem;
    const cv_load_options *options;
    cv_model *model;
    atomic_size_t next; /* piece */
    atomic_size_t bytes_done;
    atomic_int failed; /* a corvid_status */
    corvid_error errors[CV_TEAM_MAX];
} filling;

/* n elements of a view from element `first` of its row-major order, as f32. */
static corvid_status read_f32(const cv_source *source, const cv_view *view, size_t first, size_t n,
                              unsigned char *raw, float *out, corvid_error *err)
{
    cv_view flat = *view; /* one row of everything */
    flat.cols = 1;
    CV_TRY(cv_source_read(source, &flat, first, n, raw, err));
    cv_to_f32(view->dtype, raw, out, n);
    return CORVID_OK;
}

static corvid_status fill_vector(const plan *p, const item *it, unsigned char *raw, float *out,
                                 corvid_error *err)
{
    const cv_view *v = &it->view;
    const cv_sizes *s = &p->source->sizes;
    const size_t block = cv_dtype_of(v->dtype)->block;
    if (v->cols % block != 0)
        return cv_fail(err, CORVID_E_FORMAT, "%s: %zu values are no whole blocks of %s", v->name,
                       v->cols, cv_dtype_of(v->dtype)->name);
    CV_TRY(read_f32(p->source, v, 0, v->cols, raw, out, err));
    if (!cv_source_baked(p->source, v->field))
        for (size_t i = 0; i < v->cols; i++)
            out[i] = cv_transform_value(v->field->transform, out[i]);
    if (v->field->flags & CV_PER_HEAD)
        for (size_t i = s->A; i-- > 0;)
            out[i] = out[i / s->N];
    return CORVID_OK;
}

static corvid_status fill_table(const plan *p, const item *it, size_t piece, unsigned char *raw,
                                unsigned char *out, corvid_error *err)
{
    const cv_view *v = &it->view;
    const size_t first = piece * it->piece_rows;
    const size_t n = v->rows - first < it->piece_rows ? v->rows - first : it->piece_rows;
    size_t row_bytes = 0;
    cv_dtype_bytes(it->type, v->cols, &row_bytes);
    out += first * row_bytes;
    if (it->type == v->dtype) return cv_source_read(p->source, v, first, n, out, err);
    CV_TRY(cv_source_read(p->source, v, first, n, raw, err));
    cv_to_f32(v->dtype, raw, (float *)(void *)out, n * v->cols);
    return CORVID_OK;
}

/* The official low-rank matrices, [in][out] in the file: read whole, turned, packed. */
static corvid_status fill_transposed(const filling *f, const item *it, unsigned char *raw,
                                     unsigned char *out, corvid_error *err)
{
    const cv_view *v = &it->view;
    const size_t n = v->rows * v->cols, size = cv_dtype_of(it->type)->block_bytes;
    cv_view file = *v; /* as the file has it */
    file.rows = v->cols;
    file.cols = v->rows;
    CV_TRY(cv_source_read(f->plan->source, &file, 0, file.rows, raw, err));

    unsigned char *turned;
    CV_TRY(cv_alloc_or_fail(f->mem, n, size + sizeof(float), v->name, (void **)&turned, err));
    if (it->type != v->dtype) {
        float *wide = (float *)(void *)(turned + n * size);
        cv_to_f32(v->dtype, raw, wide, n);
        memcpy(raw, wide, n * size);
    }
    for (size_t i = 0; i < v->rows; i++)
        for (size_t j = 0; j < v->cols; j++)
            memcpy(turned + (i * v->cols + j) * size, raw + (j * v->rows + i) * size, size);
    for (size_t i = 0; i < v->rows; i += CV_PANEL)
        cv_pack_panel(&it->matrix, it->type, turned + i * v->cols * size, v->cols * size,
                      v->rows - i < CV_PANEL ? v->rows - i : CV_PANEL, v->scale,
                      out + i / CV_PANEL * it->matrix.panel_bytes);
    cv_free(f->mem, turned);
    return CORVID_OK;
}

static corvid_status fill_matrix(const plan *p, const item *it, size_t piece, unsigned char *raw,
                                 unsigned char *out, corvid_error *err)
{
    const cv_view *v = &it->view;
    const size_t first = piece * it->piece_rows;
    const size_t n = v->rows - first < it->piece_rows ? v->rows - first : it->piece_rows;
    size_t row_bytes = 0;
    cv_dtype_bytes(it->type, v->cols, &row_bytes);
    CV_TRY(cv_source_read(p->source, v, first, n, raw, err));
    unsigned char *rows = raw;
    if (it->type != v->dtype) { /* behind the raw values, see raw_bytes */
        size_t raw_size = 0;
        cv_dtype_bytes(v->dtype, n * v->cols, &raw_size);
        cv_round_up(raw_size, CV_ALIGN, &raw_size);
        rows = raw + raw_size;
        cv_to_f32(v->dtype, raw, (float *)(void *)rows, n * v->cols);
    }
    for (size_t i = 0; i < n; i += CV_PANEL)
        cv_pack_panel(&it->matrix, it->type, rows + i * row_bytes, row_bytes,
                      n - i < CV_PANEL ? n - i : CV_PANEL, v->scale,
                      out + (first + i) / CV_PANEL * it->matrix.panel_bytes);
    return CORVID_OK;
}

static corvid_status fill_piece(filling *f, const item *it, size_t piece, unsigned char *raw,
                                corvid_error *err)
{
    unsigned char *out = f->model->weights + it->offset;
    switch (it->view.field->kind) {
    case CV_VECTOR: return fill_vector(f->plan, it, raw, (float *)(void *)out, err);
    case CV_TABLE: return fill_table(f->plan, it, piece, raw, out, err);
    case CV_MATRIX:
    case CV_FILTER:
    case CV_LOW_RANK:
        if (it->view.transposed) return fill_transposed(f, it, raw, out, err);
        return fill_matrix(f->plan, it, piece, raw, out, err);
    }
    return CORVID_E_INTERNAL;
}

/* Raw bytes that any one piece needs at a time. */
static size_t raw_bytes(const plan *p)
{
    size_t most = PIECE_BYTES;
    for (size_t i = 0; i < p->n; i++) {
        const item *it = &p->items[i];
        const size_t width = cv_dtype_of(it->view.dtype)->block_bytes;
        const bool whole = it->pieces == 1;
        size_t rows = whole ? it->view.rows : it->piece_rows;
        size_t bytes = rows * it->view.cols / cv_dtype_of(it->view.dtype)->block * width;
        if (it->type != it->view.dtype) bytes += rows * it->view.cols * sizeof(float) + CV_ALIGN;
        if (bytes > most) most = bytes;
    }
    return most;
}

static const item *item_of_piece(const plan *p, size_t piece)
{
    size_t lo = 0, hi = p->n;
    while (hi - lo > 1) {
        size_t middle = (lo + hi) / 2;
        if (p->items[middle].first_piece <= piece)
            lo = middle;
        else
            hi = middle;
    }
    return &p->items[lo];
}

static void fill_work(const cv_member *me, void *arg)
{
    filling *f = arg;
    corvid_error *err = &f->errors[me->id];
    unsigned char *raw = cv_alloc(f->mem, raw_bytes(f->plan), 1);
    if (!raw)
        atomic_store(&f->failed, (int)cv_fail(err, CORVID_E_MEMORY, "out of memory: reading"));
    while (raw && !atomic_load(&f->failed)) {
        const size_t piece = atomic_fetch_add(&f->next, 1);
        if (piece >= f->plan->pieces) break;
        const item *it = item_of_piece(f->plan, piece);
        corvid_status status = fill_piece(f, it, piece - it->first_piece, raw, err);
        const size_t done = atomic_fetch_add(&f->bytes_done, it->bytes / it->pieces);
        if (status == CORVID_OK && me->id == 0) {
            const cv_load_options *o = f->options;
            if (o->progress) o->progress(o->ctx, done, f->plan->bytes);
            if (o->cancel && o->cancel(o->ctx))
                status = cv_fail(err, CORVID_E_CANCELLED, "cancelled while loading");
        }
        if (status != CORVID_OK) atomic_store(&f->failed, (int)status);
    }
    cv_free(f->mem, raw);
}

static corvid_status fill(filling *f, corvid_error *err)
{
    cv_team_run(f->options->team, fill_work, f);
    const corvid_status status = (corvid_status)atomic_load(&f->failed);
    for (size_t i = 0; status != CORVID_OK && i < CV_TEAM_MAX; i++)
        if (f->errors[i].status == status) return cv_fail(err, status, "%s", f->errors[i].text);
    return status;
}

/* ---- The model ------------------------------------------------------------------------------- */

/* Points the model's fields into the block. */
static void connect(const plan *p, cv_model *model)
{
    for (size_t i = 0; i < p->n; i++) {
        const item *it = &p->items[i];
        const cv_field *field = it->view.field;
        const bool stack = cv_of_stack(model->arch, field);
        unsigned char *owner = stack ? (unsigned char *)model
                                     : model->layers + it->view.layer * model->arch->layer_bytes;
        void *slot = owner + field->offset;
        const unsigned char *bytes = model->weights + it->offset;
        if (field->kind == CV_VECTOR) {
            const float *values = (const float *)(const void *)bytes;
            memcpy(slot, &values, sizeof values);
        } else if (field->kind == CV_TABLE) {
            cv_table *table = slot;
            *table = (cv_table){ it->type, it->view.rows, it->view.cols, 0, bytes };
            cv_dtype_bytes(it->type, it->view.cols, &table->row_bytes);
        } else {
            cv_matrix *matrix = slot;
            *matrix = it->matrix;
            matrix->panels = bytes;
        }
    }
}

/* The same for the same numbers in the same types, whatever file they came from: the ends of every
 * field, as laid out. */
static uint64_t fingerprint(const plan *p, const cv_model *model)
{
    enum { END = 4096 };
    uint64_t hash = XXH3_64bits(model->arch->name, strlen(model->arch->name));
    hash = XXH3_64bits_withSeed(&model->sizes, sizeof model->sizes, hash);
    for (size_t i = 0; i < p->n; i++) {
        const unsigned char *bytes = model->weights + p->items[i].offset;
        size_t n = p->items[i].bytes, end = n < END ? n : END;
        hash = XXH3_64bits_withSeed(bytes, end, hash);
        hash = XXH3_64bits_withSeed(bytes + n - end, end, hash);
    }
    return hash;
}

static void summarize(const plan *p, cv_model *model)
{
    uint64_t bytes_of[CV_DTYPES] = { 0 };
    model->n_parameters = 0;
    for (size_t i = 0; i < p->n; i++) {
        const cv_view *v = &p->items[i].view;
        model->n_parameters += (uint64_t)v->rows * v->cols;
        bytes_of[v->dtype] += (uint64_t)v->rows * v->cols;
    }
    for (int type = 0; type < CV_DTYPES; type++)
        if (bytes_of[type] > bytes_of[model->main_type]) model->main_type = (cv_dtype)type;
}

corvid_status cv_weights_load(const corvid_allocator *mem, const cv_source *source,
                              const cv_load_options *options, cv_model *out, corvid_error *err)
{
    plan p = { .source = source, .as_f32 = options->as_f32 };
    filling *f = NULL;
    corvid_status status;
    *out = (cv_model){ .arch = source->arch,
                       .sizes = source->sizes,
                       .vision.traits = source->traits,
                       .mem = mem,
                       .group_norm_eps = options->group_norm_eps,
                       .format = source->ckpt ? source->ckpt->format : CV_SAFETENSORS };

    CV_TRY(cv_source_each(source, add_item, &p, err)); /* counts */
    p.capacity = p.n;
    p.n = p.bytes = p.pieces = 0;
    status = cv_alloc_or_fail(mem, p.capacity, sizeof *p.items, "the list of weights",
                              (void **)&p.items, err);
    if (status != CORVID_OK) goto fail;
    status = cv_source_each(source, add_item, &p, err);
    if (status != CORVID_OK) goto fail;

    out->weight_bytes = cv_huge_bytes(p.bytes);
    out->weights = cv_alloc_huge(mem, p.bytes);
    out->layers = cv_alloc_zero(mem, source->sizes.L, source->arch->layer_bytes);
    f = cv_alloc_zero(mem, 1, sizeof *f);
    if (!out->weights || !out->layers || !f) {
        status = cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu bytes of weights", p.bytes);
        goto fail;
    }
    f->plan = &p;
    f->mem = mem;
    f->options = options;
    f->model = out;
    status = fill(f, err);
    if (status != CORVID_OK) goto fail;
    if (options->progress) options->progress(options->ctx, p.bytes, p.bytes);

    connect(&p, out);
    summarize(&p, out);
    out->fingerprint = fingerprint(&p, out);
    cv_free(mem, f);
    cv_free(mem, p.items);
    return CORVID_OK;

fail:
    cv_free(mem, f);
    cv_free(mem, p.items);
    cv_weights_free(out);
    return status;
}

void cv_weights_free(cv_model *model)
{
    if (!model->mem) return;
    cv_free(model->mem, model->weights);
    cv_free(model->mem, model->layers);
    model->weights = model->layers = NULL;
}
