/* merging.c - a model and an adapter become one model; see merging.h.
 *
 * The list of tensors is that of the base, with the states that it lacked behind it.  Data streams
 * through in pieces of whole rows; of an adapter one pair is in memory at a time. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/merging.h"

#define PIECE ((size_t)1 << 18) /* numbers in memory at a time, unless a row has more */

typedef struct merger {
    const corvid_allocator *mem;
    const cv_convert_settings *settings;
    cv_checkpoint base;
    cv_source source;
    cv_adapter_file adapter;
    cv_format format; /* that is written */
    bool wide;        /* what changes becomes f32: a conversion follows */
    cv_tensor *tensors;
    const cv_adapter_part **parts; /* [n] what changes a tensor, or NULL */
    size_t n;
    cv_writer *writer;
    uint64_t done, total;
} merger;

/* ---- What is written --------------------------------------------------------------------------- */

static const cv_adapter_part *part_of(const cv_adapter_file *file, const char *name)
{
    for (size_t i = 0; i < file->n_parts; i++)
        if (strcmp(file->parts[i].name, name) == 0) return &file->parts[i];
    return NULL;
}

static cv_dtype type_of(const merger *m, cv_dtype own)
{
    return m->wide || own == CV_F64 ? CV_F32 : own;
}

/* A part that the base has no tensor for: an initial state. */
static void add_part(merger *m, const cv_adapter_part *part)
{
    cv_tensor *t = &m->tensors[m->n];
    *t = (cv_tensor){
        .name = part->name, .dtype = CV_F32, .n_dims = part->n_dims, .contiguous = true
    };
    memcpy(t->dims, part->dims, sizeof part->dims);
    t->count = part->whole->count;
    m->parts[m->n++] = part;
}

static corvid_status plan(merger *m, corvid_error *err)
{
    const size_t most = m->base.n_tensors + m->adapter.n_parts;
    m->tensors = cv_alloc_zero(m->mem, most, sizeof *m->tensors);
    m->parts = cv_alloc_zero(m->mem, most, sizeof *m->parts);
    if (!m->tensors || !m->parts)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: a list of %zu tensors", most);
    for (size_t i = 0; i < m->base.n_tensors; i++, m->n++) {
        cv_tensor *t = &m->tensors[i];
        *t = m->base.tensors[i];
        m->parts[i] = part_of(&m->adapter, t->name);
        if (m->parts[i]) t->dtype = type_of(m, t->dtype);
    }
    for (size_t i = 0; i < m->adapter.n_parts; i++)
        if (!cv_checkpoint_find(&m->base, m->adapter.parts[i].name))
            add_part(m, &m->adapter.parts[i]);
    for (size_t i = 0; i < m->n; i++)
        m->total += m->tensors[i].count;
    return CORVID_OK;
}

static corvid_status open_writer(merger *m, const char *path, corvid_error *err)
{
    const bool same = m->base.format == m->format;
    return cv_writer_open(m->mem, path, m->format, same ? m->base.meta : NULL,
                          same ? m->base.n_meta : 0, m->tensors, m->n, &m->writer, err);
}

/* ---- Data -------------------------------------------------------------------------------------- */

static corvid_status advance(merger *m, size_t numbers, corvid_error *err)
{
    const cv_convert_settings *s = m->settings;
    m->done += numbers;
    if (s->progress) s->progress(s->ctx, m->done, m->total);
    if (s->cancel && s->cancel(s->ctx))
        return cv_fail(err, CORVID_E_CANCELLED, "cancelled; nothing was written");
    return CORVID_OK;
}

static corvid_status copy_tensor(merger *m, const cv_tensor *from, corvid_error *err)
{
    /* A view with strides is read whole: each part of it would touch all of its storage. */
    const size_t piece = from->contiguous && from->count > PIECE ? PIECE : from->count;
    unsigned char *raw = NULL;
    corvid_status status =
        cv_alloc_or_fail(m->mem, piece, sizeof(double), from->name, (void **)&raw, err);
    for (size_t at = 0; status == CORVID_OK && at < from->count; at += piece) {
        const size_t n = from->count - at < piece ? from->count - at : piece;
        size_t bytes = 0;
        if (!cv_dtype_bytes(from->dtype, n, &bytes))
            status = cv_fail(err, CORVID_E_FORMAT, "%s: broken blocks", from->name);
        if (status == CORVID_OK) status = cv_tensor_read(&m->base, from, at, n, raw, err);
        if (status == CORVID_OK) status = cv_writer_put(m->writer, raw, bytes, err);
        if (status == CORVID_OK) status = advance(m, n, err);
    }
    cv_free(m->mem, raw);
    return status;
}

/* values[0, n) in the type of the tensor that is written; raw has room for them. */
static corvid_status put_values(merger *m, cv_dtype type, const float *values, size_t n,
                                unsigned char *raw, corvid_error *err)
{
    size_t bytes = 0;
    for (size_t i = 0; cv_dtype_of(type)->quantized && i < n; i++)
        if (!isfinite(values[i]))
            return cv_fail(err, CORVID_E_FORMAT,
                           "a sum of the base and the adapter is not finite; it cannot be %s",
                           cv_dtype_of(type)->name);
    if (!cv_dtype_bytes(type, n, &bytes))
        return cv_fail(err, CORVID_E_INTERNAL, "%zu numbers have no size", n);
    cv_from_f32(type, values, raw, n);
    CV_TRY(cv_writer_put(m->writer, raw, bytes, err));
    return advance(m, n, err);
}

static corvid_status put_whole(merger *m, const cv_tensor *to, const cv_tensor *whole,
                               corvid_error *err)
{
    float *values = NULL;
    unsigned char *raw = NULL;
    corvid_status status =
        cv_alloc_or_fail(m->mem, whole->count, sizeof *values, whole->name, (void **)&values, err);
    if (status == CORVID_OK)
        status =
            cv_alloc_or_fail(m->mem, whole->count, sizeof(double), whole->name, (void **)&raw, err);
    if (status == CORVID_OK) status = cv_adapter_read(m->mem, &m->adapter.ckpt, whole, values, err);
    if (status == CORVID_OK) status = put_values(m, to->dtype, values, whole->count, raw, err);
    cv_free(m->mem, values);
    cv_free(m->mem, raw);
    return status;
}

/* Rows that pass through at a time, and the pairs that change them. */
typedef struct pass {
    float *values;
    unsigned char *raw;
    size_t rows; /* at a time */
    float *pair, *first;
    cv_factors add, drop; /* drop.rank 0: nothing */
} pass;

/* [rank][in] and [out][rank] one behind the other. */
static corvid_status read_pair(const merger *m, const cv_checkpoint *ckpt, const cv_tensor *A,
                               const cv_tensor *B, float **numbers, cv_factors *out,
                               corvid_error *err)
{
    CV_TRY(cv_alloc_or_fail(m->mem, A->count + B->count, sizeof **numbers, A->name,
                            (void **)numbers, err));
    *out = (cv_factors){ .rank = A->dims[0],
                         .out = B->dims[0],
                         .in = A->dims[1],
                         .scale = 1.0f,
                         .A = *numbers,
                         .B = *numbers + A->count };
    CV_TRY(cv_adapter_read(m->mem, ckpt, A, *numbers, err));
    return cv_adapter_read(m->mem, ckpt, B, *numbers + A->count, err);
}

static corvid_status open_pass(const merger *m, const cv_tensor *from, const cv_adapter_part *part,
                               pass *p, corvid_error *err)
{
    const cv_adapter_file *a = &m->adapter;
    const size_t cols = part->dims[1], rows = part->dims[0];
    p->rows = !from->contiguous || rows * cols <= PIECE ? rows : PIECE / cols + 1;
    CV_TRY(read_pair(m, &a->ckpt, part->A, part->B, &p->pair, &p->add, err));
    p->add.scale = cv_adapter_scale(a, part);
    if (part->A0) {
        CV_TRY(read_pair(m, &a->initial, part->A0, part->B0, &p->first, &p->drop, err));
        p->drop.scale = -1.0f;
    }
    CV_TRY(cv_alloc_or_fail(m->mem, p->rows * cols, sizeof *p->values, from->name,
                            (void **)&p->values, err));
    return cv_alloc_or_fail(m->mem, p->rows * cols, sizeof(double), from->name, (void **)&p->raw,
                            err);
}

static corvid_status put_rows(merger *m, const cv_tensor *from, const cv_tensor *to, const pass *p,
                              size_t first, size_t n, corvid_error *err)
{
    const size_t cols = p->add.in;
    CV_TRY(cv_tensor_read(&m->base, from, first * cols, n * cols, p->raw, err));
    cv_to_f32(from->dtype, p->raw, p->values, n * cols);
    if (p->drop.rank) cv_factors_add(&p->drop, first, 0, n, p->values, p->values);
    cv_factors_add(&p->add, first, 0, n, p->values, p->values);
    return put_values(m, to->dtype, p->values, n * cols, p->raw, err);
}

static corvid_status put_sum(merger *m, const cv_tensor *from, const cv_tensor *to,
                             const cv_adapter_part *part, corvid_error *err)
{
    pass p = { .rows = 0 };
    const size_t rows = part->dims[0];
    corvid_status status = open_pass(m, from, part, &p, err);
    for (size_t at = 0; status == CORVID_OK && at < rows; at += p.rows)
        status = put_rows(m, from, to, &p, at, rows - at < p.rows ? rows - at : p.rows, err);
    cv_free(m->mem, p.values);
    cv_free(m->mem, p.raw);
    cv_free(m->mem, p.pair);
    cv_free(m->mem, p.first);
    return status;
}

static corvid_status put_tensor(merger *m, size_t i, corvid_error *err)
{
    const cv_adapter_part *part = m->parts[i];
    const cv_tensor *from = i < m->base.n_tensors ? &m->base.tensors[i] : NULL;
    if (!part) return copy_tensor(m, from, err);
    if (part->whole) return put_whole(m, &m->tensors[i], part->whole, err);
    return put_sum(m, from, &m->tensors[i], part, err);
}

/* ---- One file from another ---------------------------------------------------------------------- */

static corvid_status open_base(merger *m, const char *base, corvid_error *err)
{
    CV_TRY(cv_checkpoint_open(m->mem, base, &m->base, err));
    return cv_source_open(&m->base, &m->source, err);
}

/* A base of official names, to another of them. */
static corvid_status merge_official(merger *m, const char *base, const char *adapter,
                                    const cv_adapter_choice *choice, const char *out,
                                    corvid_error *err)
{
    corvid_status status = open_base(m, base, err);
    if (status == CORVID_OK)
        status = cv_adapter_file_open(m->mem, adapter, choice, &m->source, &m->adapter, err);
    if (status == CORVID_OK) status = plan(m, err);
    if (status == CORVID_OK) status = open_writer(m, out, err);
    for (size_t i = 0; status == CORVID_OK && i < m->n; i++)
        status = put_tensor(m, i, err);
    if (status == CORVID_OK)
        status = cv_writer_commit(m->writer, err);
    else
        cv_writer_discard(m->writer);
    cv_free(m->mem, m->tensors);
    cv_free(m->mem, m->parts);
    cv_adapter_file_close(&m->adapter);
    cv_checkpoint_close(&m->base);
    return status;
}

/* What there is to know before a base is converted. */
typedef struct findings {
    bool official;  /* it can be read as it is */
    bool quantized; /* some of it: what safetensors cannot hold */
} findings;

/* An initial state would be lost where the new file has no name for it. */
static corvid_status check_states(const merger *m, const char *adapter, corvid_error *err)
{
    if (cv_convert_dialect(&m->source, m->settings) != CV_LLAMACPP) return CORVID_OK;
    for (size_t i = 0; i < m->adapter.n_parts; i++)
        if (!m->adapter.parts[i].field->gguf.name)
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "%s: has initial states (%s), for which GGUF has no place; write a "
                           ".safetensors, or give the state to the model where it runs (--state)",
                           adapter, m->adapter.parts[i].name);
    return CORVID_OK;
}

/* What is wrong with the adapter is said before the base is converted. */
static corvid_status look(const corvid_allocator *mem, const char *base, const char *adapter,
                          const cv_adapter_choice *choice, const cv_convert_settings *settings,
                          findings *out, corvid_error *err)
{
    merger m = { .mem = mem, .settings = settings };
    corvid_status status = open_base(&m, base, err);
    *out = (findings){ .official = m.source.dialect == CV_OFFICIAL && m.base.format != CV_GGUF };
    for (size_t i = 0; status == CORVID_OK && i < m.base.n_tensors; i++)
        out->quantized |= cv_dtype_of(m.base.tensors[i].dtype)->quantized;
    if (status == CORVID_OK)
        status = cv_adapter_file_open(mem, adapter, choice, &m.source, &m.adapter, err);
    if (status == CORVID_OK) status = check_states(&m, adapter, err);
    cv_adapter_file_close(&m.adapter);
    cv_checkpoint_close(&m.base);
    return status;
}

static corvid_status beside(const char *out, const char *suffix, char path[4096], corvid_error *err)
{
    const int n = snprintf(path, 4096, "%s%s", out, suffix);
    if (n > 0 && n < 4096) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT, "%s: this name is too long", out);
}

corvid_status cv_merge(const corvid_allocator *mem, const char *base, const char *adapter,
                       const cv_adapter_choice *choice, const char *out,
                       const cv_convert_settings *settings, corvid_error *err)
{
    char converted[4096], merged[4096];
    findings f;
    CV_TRY(look(mem, base, adapter, choice, settings, &f, err));
    CV_TRY(beside(out, ".base", converted, err));
    CV_TRY(beside(out, ".merged", merged, err));
    if (f.quantized && settings->keep && settings->format == CV_SAFETENSORS)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s is quantized, which safetensors cannot hold; give --type f32, f16 or "
                       "bf16, or write a .gguf",
                       base);
    const bool after = settings->format != CV_SAFETENSORS || !settings->keep || settings->vocab ||
                       settings->classes;
    /* GGUF on the way too: it holds blocks, and the vocabulary as GGUF has it. */
    const bool gguf = !f.official && settings->format == CV_GGUF;
    const cv_format between = gguf ? CV_GGUF : CV_SAFETENSORS;
    cv_convert_settings first = *settings;
    first.format = between;
    first.official = true;
    first.type = CV_F32;
    first.vocab = first.classes = NULL;
    corvid_status status = CORVID_OK;
    if (!f.official) status = cv_convert(mem, base, converted, &first, err);
    merger m = { .mem = mem, .settings = settings, .format = between, .wide = !settings->keep };
    if (status == CORVID_OK)
        status = merge_official(&m, f.official ? base : converted, adapter, choice,
                                after ? merged : out, err);
    if (status == CORVID_OK && after) status = cv_convert(mem, merged, out, settings, err);
    if (!f.official) remove(converted);
    if (after) remove(merged);
    return status;
}
