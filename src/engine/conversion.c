/* conversion.c - one checkpoint format into another; see conversion.h.
 *
 * Two ways.  Between files of official names (pth, safetensors) every tensor goes over as it is,
 * known or not.  Where names differ (GGUF, rwkv.cpp) the fields of the architecture say which
 * tensor becomes which, what is turned, joined or taken apart.  Either way a list of targets is
 * made first, then the data streams through. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/smaller.h"
#include "engine/conversion.h"
#include "engine/vocabulary.h"

#define PIECE \
    ((size_t)1 << 18) /* elements that are in memory at a time; a multiple of
                                           every block */

/* "random:SHAPE" in place of a file stands for random weights of that shape, seed 1. */
#define RANDOM "random:"

/* A tensor of the new file: one or several views (slices) one behind the other. */
typedef struct target {
    cv_tensor tensor; /* name, type and dims as they will be written */
    size_t first_view, n_views;
    bool turned;               /* rows and columns change places */
    const cv_tensor *verbatim; /* the tensor itself, without views */
} target;

typedef struct job {
    const corvid_allocator *mem;
    const cv_convert_settings *settings;
    cv_checkpoint ckpt;
    cv_source source;
    bool known;         /* source is a model of ours */
    cv_dialect dialect; /* of the target */
    cv_arena arena;
    cv_view *views;
    size_t n_views, max_views;
    target *targets;
    size_t n_targets, max_targets;
    cv_team *team;      /* quantizes in parallel */
    float *values;      /* [PIECE] */
    unsigned char *raw; /* [PIECE] of anything */
    uint64_t done, total;
} job;

/* ---- Types ----------------------------------------------------------------------------------- */

/* The nearest type that fits rows of cols elements. */
static cv_dtype fitting(cv_dtype type, size_t cols)
{
    if (cols % cv_dtype_of(type)->block == 0) return type;
    if (cols % 32 != 0) return CV_F16;
    switch (type) {
    case CV_Q4_K: return CV_Q5_0;
    case CV_Q5_K: return CV_Q5_1;
    default: return CV_Q8_0;
    }
}

/* Vectors stay f32 in GGUF, and so do the small maps that llama.cpp wants in f32.  Quantizing spares
 * the low-rank maps, and the embedding and head get a type of more bits. */
static cv_dtype type_of(const job *j, const cv_view *view)
{
    const cv_convert_settings *s = j->settings;
    const char *gguf = view->field->gguf.name;
    const bool vector = view->field->kind == CV_VECTOR;
    const bool quantized = cv_dtype_of(s->type)->quantized;
    cv_dtype kept = view->dtype == CV_F64 ? CV_F32 : view->dtype;
    if (j->dialect == CV_LLAMACPP &&
        (vector || (gguf && (strstr(gguf, "_w1.") || strstr(gguf, "_w2.")))))
        return CV_F32;
    if (vector)
        return j->dialect == CV_OFFICIAL && cv_source_baked(&j->source, view->field) ? CV_F32
                                                                                     : kept;
    const bool turns = view->field->kind == CV_LOW_RANK && !view->transposed;
    if (s->keep && j->dialect == CV_OFFICIAL && turns && cv_dtype_of(kept)->quantized)
        return CV_F32; /* its blocks do not turn */
    if (s->keep) return kept;
    if (!quantized) return s->type;
    if (view->field->kind == CV_LOW_RANK)
        return cv_dtype_of(kept)->quantized || kept == CV_F32 ? CV_F16 : kept;
    if (view->field->kind == CV_FILTER) return CV_F16; /* its rows in a file are too short */
    const bool outer =
        view->field->kind == CV_TABLE || strncmp(view->field->official.name, "head.", 5) == 0;
    const cv_dtype type = outer && s->type != CV_Q8_0 ? CV_Q6_K : s->type;
    return fitting(type, view->cols);
}

/* ---- Targets --------------------------------------------------------------------------------- */

static corvid_status grow(job *j, void *list, size_t n, size_t *max, size_t size, corvid_error *err)
{
    void **items = list;
    if (n < *max) return CORVID_OK;
    const size_t more = *max ? 2 * *max : 256;
    void *bigger = cv_arena_alloc(&j->arena, more, size);
    if (!bigger) return cv_fail(err, CORVID_E_MEMORY, "out of memory: the list of tensors");
    if (n) memcpy(bigger, *items, n * size);
    *items = bigger;
    *max = more;
    return CORVID_OK;
}

static corvid_status push_target(job *j, const target *t, corvid_error *err)
{
    CV_TRY(grow(j, &j->targets, j->n_targets, &j->max_targets, sizeof *t, err));
    target *to = &j->targets[j->n_targets++];
    *to = *t;
    to->tensor.name = cv_arena_text(&j->arena, t->tensor.name, strlen(t->tensor.name));
    to->tensor.count = 1;
    to->tensor.contiguous = true;
    for (int i = 0; i < to->tensor.n_dims; i++)
        to->tensor.count *= to->tensor.dims[i];
    if (!to->tensor.name) return cv_fail(err, CORVID_E_MEMORY, "out of memory: names");
    return CORVID_OK;
}

/* The dims of a fused tensor: as many slices as there are, in front of those of one. */
static void join(target *t, size_t slices)
{
    cv_tensor *tensor = &t->tensor;
    memmove(tensor->dims + 1, tensor->dims, (size_t)tensor->n_dims * sizeof *tensor->dims);
    tensor->dims[0] = slices;
    tensor->n_dims++;
    if (tensor->n_dims == 2) { /* llama.cpp: {C, 1, 1, slices} */
        tensor->dims[3] = tensor->dims[1];
        tensor->dims[1] = tensor->dims[2] = 1;
        tensor->n_dims = 4;
    }
}

/* One view becomes a target, or one more slice of the last one. */
static corvid_status add_view_as(job *j, const cv_view *view, const cv_field *name_of,
                                 corvid_error *err)
{
    char name[96];
    CV_TRY(grow(j, &j->views, j->n_views, &j->max_views, sizeof *view, err));
    if (!cv_field_name(j->source.arch, name_of, j->dialect, view->layer, name, sizeof name)) {
        if (view->layer == 0 && j->settings->log)
            j->settings->log(j->settings->ctx, CORVID_LOG_WARNING,
                             "the initial state inside the source is not carried over, GGUF has no "
                             "place for it; write safetensors to keep it");
        return CORVID_OK;
    }
    j->views[j->n_views++] = *view;
    const int slice = cv_field_spelling(name_of, j->dialect)->slice;
    if (slice > 0) {
        target *last = &j->targets[j->n_targets - 1];
        last->n_views++;
        last->tensor.dims[0]++;
        last->tensor.count = last->tensor.count / (last->tensor.dims[0] - 1) * last->tensor.dims[0];
        return CORVID_OK;
    }
    target t = { .first_view = j->n_views - 1, .n_views = 1 };
    t.tensor.name = name;
    t.tensor.dtype = type_of(j, view);
    t.tensor.n_dims = cv_field_dims(&j->source, view->field, j->dialect, t.tensor.dims);
    t.turned = view->field->kind == CV_LOW_RANK && view->transposed != (j->dialect == CV_OFFICIAL);
    if (slice == 0) join(&t, 1);
    return push_target(j, &t, err);
}

/* llama.cpp reads v0, v1 and v2 of layer 0 of rwkv7 too, in the shapes of a0, a1 and a2, and does
 * not use them: they get the numbers of those. */
static corvid_status add_stand_in(job *j, const cv_view *view, corvid_error *err)
{
    const cv_arch *arch = j->source.arch;
    char wanted[32];
    if (j->dialect != CV_LLAMACPP || arch != &cv_rwkv7 || view->layer != 0) return CORVID_OK;
    if (strncmp(view->field->official.name, "att.a", 5) != 0) return CORVID_OK;
    snprintf(wanted, sizeof wanted, "att.v%s", view->field->official.name + 5);
    for (size_t i = 0; i < arch->n_fields; i++)
        if ((arch->fields[i].flags & CV_NOT_FIRST) &&
            strcmp(arch->fields[i].official.name, wanted) == 0)
            return add_view_as(j, view, &arch->fields[i], err);
    return CORVID_OK;
}

static corvid_status add_view(void *ctx, const cv_view *view, corvid_error *err)
{
    CV_TRY(add_view_as(ctx, view, view->field, err));
    return add_stand_in(ctx, view, err);
}

static bool is_matrix(const cv_tensor *t)
{
    int wide = 0;
    for (int i = 0; i < t->n_dims; i++)
        wide += t->dims[i] > 1;
    return wide >= 2;
}

static corvid_status add_verbatim(job *j, corvid_error *err)
{
    for (size_t i = 0; i < j->ckpt.n_tensors; i++) {
        const cv_tensor *from = &j->ckpt.tensors[i];
        target t = { .tensor = *from, .verbatim = from };
        const cv_dtype_info *info = cv_dtype_of(from->dtype);
        if (!j->settings->keep && info->real && is_matrix(from)) t.tensor.dtype = j->settings->type;
        CV_TRY(push_target(j, &t, err));
    }
    return CORVID_OK;
}

/* ---- Data ------------------------------------------------------------------------------------ */

static corvid_status advance(job *j, size_t elements, corvid_error *err)
{
    const cv_convert_settings *s = j->settings;
    j->done += elements;
    if (s->progress) s->progress(s->ctx, j->done, j->total);
    if (s->cancel && s->cancel(s->ctx))
        return cv_fail(err, CORVID_E_CANCELLED, "cancelled; nothing was written");
    return CORVID_OK;
}

/* values[0, n) to the target's type, each member a run of whole blocks. */
typedef struct narrowing {
    cv_dtype type;
    const float *values;
    unsigned char *raw;
    size_t n;
} narrowing;

static void narrow_part(const cv_member *me, void *arg)
{
    const narrowing *w = arg;
    const cv_dtype_info *info = cv_dtype_of(w->type);
    size_t lo, hi;
    cv_share(me, w->n / info->block, &lo, &hi);
    cv_from_f32(w->type, w->values + lo * info->block, w->raw + lo * info->block_bytes,
                (hi - lo) * info->block);
}

static corvid_status put_as(job *j, cv_writer *w, const target *t, size_t n, corvid_error *err)
{
    size_t bytes;
    for (size_t i = 0; i < n; i++)
        if (cv_dtype_of(t->tensor.dtype)->quantized && !isfinite(j->values[i]))
            return cv_fail(err, CORVID_E_FORMAT,
                           "%s holds a value that is not finite; it cannot be quantized",
                           t->tensor.name);
    if (!cv_dtype_bytes(t->tensor.dtype, n, &bytes))
        return cv_fail(err, CORVID_E_FORMAT, "%s: %zu values are no whole blocks of %s",
                       t->tensor.name, n, cv_dtype_of(t->tensor.dtype)->name);
    narrowing part = { t->tensor.dtype, j->values, j->raw, n };
    cv_team_run(j->team, narrow_part, &part);
    return cv_writer_put(w, j->raw, bytes, err);
}

static corvid_status copy_tensor(job *j, cv_writer *w, const target *t, corvid_error *err)
{
    const cv_tensor *from = t->verbatim;
    /* A view with strides is read whole: each part of it would touch all of its storage. */
    const size_t piece = from->contiguous ? PIECE : from->count;
    const size_t width = cv_dtype_of(from->dtype)->block_bytes;
    unsigned char *raw = j->raw;
    corvid_status status = CORVID_OK;
    if (piece > PIECE)
        CV_TRY(cv_alloc_or_fail(j->mem, piece, width, from->name, (void **)&raw, err));
    for (size_t at = 0; status == CORVID_OK && at < from->count; at += piece) {
        const size_t n = from->count - at < piece ? from->count - at : piece;
        size_t bytes = 0;
        status = cv_tensor_read(&j->ckpt, from, at, n, raw, err);
        if (status != CORVID_OK) break;
        if (from->dtype == t->tensor.dtype) {
            cv_dtype_bytes(from->dtype, n, &bytes);
            status = cv_writer_put(w, raw, bytes, err);
        } else {
            for (size_t i = 0; status == CORVID_OK && i < n; i += PIECE) {
                const size_t m = n - i < PIECE ? n - i : PIECE;
                cv_to_f32(from->dtype, raw + i * width, j->values, m);
                status = put_as(j, w, t, m, err);
            }
        }
        if (status == CORVID_OK) status = advance(j, n, err);
    }
    if (raw != j->raw) cv_free(j->mem, raw);
    return status;
}

/* The factor and the transform that take a view's numbers to official ones. */
static float factor_of(const job *j, const cv_view *view)
{
    return j->dialect == CV_LLAMACPP ? 1.0f : view->scale;
}

static corvid_status copy_rows(job *j, cv_writer *w, const target *t, const cv_view *view,
                               corvid_error *err)
{
    const size_t count = view->rows * view->cols;
    const float factor = factor_of(j, view);
    const bool baked = cv_source_baked(&j->source, view->field);
    cv_view flat = *view;
    flat.cols = 1;
    for (size_t at = 0; at < count; at += PIECE) {
        const size_t n = count - at < PIECE ? count - at : PIECE;
        size_t bytes;
        CV_TRY(cv_source_read(&j->source, &flat, at, n, j->raw, err));
        if (view->dtype == t->tensor.dtype && factor == 1.0f && !baked) {
            if (!cv_dtype_bytes(view->dtype, n, &bytes))
                return cv_fail(err, CORVID_E_FORMAT, "%s: broken blocks", view->name);
            CV_TRY(cv_writer_put(w, j->raw, bytes, err));
        } else {
            cv_to_f32(view->dtype, j->raw, j->values, n);
            for (size_t i = 0; i < n; i++) {
                j->values[i] *= factor;
                if (baked) j->values[i] = cv_transform_undo(view->field->transform, j->values[i]);
            }
            CV_TRY(put_as(j, w, t, n, err));
        }
        CV_TRY(advance(j, n, err));
    }
    return CORVID_OK;
}

/* A low-rank map changes between [in][out] and [out][in]. */
static corvid_status copy_turned(job *j, cv_writer *w, const target *t, const cv_view *view,
                                 corvid_error *err)
{
    const size_t count = view->rows * view->cols;
    const size_t rows = view->transposed ? view->cols : view->rows; /* in the file */
    const size_t cols = count / rows, block = cv_dtype_of(view->dtype)->block;
    float *all = NULL;
    unsigned char *raw = NULL;
    corvid_status status =
        cv_alloc_or_fail(j->mem, count, sizeof(float), view->name, (void **)&all, err);
    if (status == CORVID_OK)
        status = cv_alloc_or_fail(j->mem, count / block, cv_dtype_of(view->dtype)->block_bytes,
                                  view->name, (void **)&raw, err);
    cv_view flat = *view;
    flat.cols = 1;
    if (status == CORVID_OK) status = cv_source_read(&j->source, &flat, 0, count, raw, err);
    if (status == CORVID_OK) cv_to_f32(view->dtype, raw, all, count);
    size_t n = 0;
    for (size_t i = 0; status == CORVID_OK && i < count; i++) {
        j->values[n++] = all[i % rows * cols + i / rows];
        if (n < PIECE && i + 1 < count) continue;
        status = put_as(j, w, t, n, err);
        n = 0;
    }
    cv_free(j->mem, all);
    cv_free(j->mem, raw);
    return status == CORVID_OK ? advance(j, count, err) : status;
}

static corvid_status copy_target(job *j, cv_writer *w, const target *t, corvid_error *err)
{
    if (t->verbatim) return copy_tensor(j, w, t, err);
    for (size_t i = 0; i < t->n_views; i++) {
        const cv_view *view = &j->views[t->first_view + i];
        if (t->turned)
            CV_TRY(copy_turned(j, w, t, view, err));
        else
            CV_TRY(copy_rows(j, w, t, view, err));
    }
    return CORVID_OK;
}

/* ---- The whole ------------------------------------------------------------------------------- */

cv_dialect cv_convert_dialect(const cv_source *source, const cv_convert_settings *settings)
{
    const bool llama = source->arch == &cv_rwkv6 || source->arch == &cv_rwkv7;
    return settings->format == CV_GGUF && llama && !settings->official ? CV_LLAMACPP : CV_OFFICIAL;
}

static corvid_status plan_targets(job *j, corvid_error *err)
{
    const cv_convert_settings *s = j->settings;
    j->dialect = j->known ? cv_convert_dialect(&j->source, s) : CV_OFFICIAL;
    if (s->format == CV_SAFETENSORS && j->ckpt.tensors &&
        (!j->known || j->source.dialect == CV_OFFICIAL))
        CV_TRY(add_verbatim(j, err));
    else
        CV_TRY(cv_source_each(&j->source, add_view, j, err));

    for (size_t i = 0; i < j->n_targets; i++) {
        const cv_tensor *t = &j->targets[i].tensor;
        j->total += t->count;
        if (s->format == CV_SAFETENSORS && cv_dtype_of(t->dtype)->quantized)
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "%s is %s, which safetensors cannot hold; give --type f32, f16 or bf16, "
                           "or write a .gguf",
                           t->name, cv_dtype_of(t->dtype)->name);
    }
    return CORVID_OK;
}

static corvid_status plan_meta(job *j, cv_meta_list *list, corvid_error *err)
{
    const cv_convert_settings *s = j->settings;
    const bool vision = j->known && j->source.arch->stack->vision;
    const bool gpt = j->known && j->source.arch == &cv_gpt;
    if (s->format == CV_GGUF && !vision)
        CV_TRY(cv_gguf_keys(&j->source, s, j->dialect == CV_LLAMACPP ? j->source.rescale_every : 0,
                            list, err));
    else if (s->format == CV_SAFETENSORS && j->ckpt.format == CV_SAFETENSORS)
        for (size_t i = 0; i < j->ckpt.n_meta; i++) {
            const cv_meta *m = &j->ckpt.meta[i];
            if (strcmp(m->key, CV_VOCAB_KEY) != 0 &&
                !(gpt && strcmp(m->key, CV_HEAD_SIZE_KEY) == 0) &&
                !(vision && cv_is_vision_key(m->key)))
                CV_TRY(cv_meta_add(list, m, err));
        }
    if (gpt) {
        char digits[24];
        const int n = snprintf(digits, sizeof digits, "%zu", j->source.sizes.N);
        CV_TRY(cv_meta_add_text(list, CV_HEAD_SIZE_KEY, digits, (size_t)n, err));
    }
    if (vision) return cv_vision_keys(j->mem, &j->source, s, list, err);
    return j->known ? cv_vocabulary_keys(j->mem, &j->source, s, list, err) : CORVID_OK;
}

static corvid_status write_file(job *j, const char *path, corvid_error *err)
{
    cv_meta_list list = { .arena = &j->arena };
    cv_writer *w = NULL;
    CV_TRY(plan_targets(j, err));
    CV_TRY(plan_meta(j, &list, err));
    cv_tensor *tensors = cv_arena_alloc(&j->arena, j->n_targets, sizeof *tensors);
    j->values = cv_alloc(j->mem, PIECE, sizeof *j->values);
    j->raw = cv_alloc(j->mem, PIECE, sizeof(double));
    if (!tensors || !j->values || !j->raw)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: converting");
    for (size_t i = 0; i < j->n_targets; i++)
        tensors[i] = j->targets[i].tensor;
    CV_TRY(cv_team_new(j->mem, cv_smaller(cv_cpu_count(), CV_TEAM_MAX), &j->team, err));
    CV_TRY(cv_writer_open(j->mem, path, j->settings->format, list.items, list.n, tensors,
                          j->n_targets, &w, err));
    corvid_status status = CORVID_OK;
    for (size_t i = 0; status == CORVID_OK && i < j->n_targets; i++)
        status = copy_target(j, w, &j->targets[i], err);
    if (status == CORVID_OK)
        status = cv_writer_commit(w, err);
    else
        cv_writer_discard(w);
    return status;
}

/* What the job holds, given back. */
static corvid_status end_job(job *j, corvid_status status)
{
    cv_team_free(j->team);
    cv_free(j->mem, j->values);
    cv_free(j->mem, j->raw);
    cv_arena_free(&j->arena);
    cv_checkpoint_close(&j->ckpt);
    return status;
}

corvid_status cv_convert_source(const corvid_allocator *mem, const cv_source *source,
                                const char *out, const cv_convert_settings *settings,
                                corvid_error *err)
{
    job j = { .mem = mem, .settings = settings, .source = *source, .known = true };
    cv_arena_init(&j.arena, mem);
    return end_job(&j, write_file(&j, out, err));
}

corvid_status cv_convert(const corvid_allocator *mem, const char *in, const char *out,
                         const cv_convert_settings *settings, corvid_error *err)
{
    job j = { .mem = mem, .settings = settings };
    corvid_error unknown;
    corvid_status status;
    if (strncmp(in, RANDOM, strlen(RANDOM)) == 0) {
        status = cv_source_random(in + strlen(RANDOM), CV_F32, 1, &j.source, &unknown);
    } else {
        CV_TRY(cv_checkpoint_open(mem, in, &j.ckpt, err));
        status = cv_source_open(&j.ckpt, &j.source, &unknown);
    }
    cv_arena_init(&j.arena, mem);
    j.known = status == CORVID_OK;
    /* Official names go over to safetensors whatever they mean; all else must be a model. */
    if (j.known || (settings->format == CV_SAFETENSORS && j.ckpt.tensors &&
                    (j.ckpt.format == CV_PTH || j.ckpt.format == CV_SAFETENSORS)))
        status = write_file(&j, out, err);
    else
        status = cv_fail(err, unknown.status, "%s", unknown.text);
    return end_job(&j, status);
}
