/* writer.c - writes a checkpoint: the header first, then the declared tensors' bytes in order.
 *
 * It counts what arrives against what was declared and fills the gaps that a format's alignment
 * leaves.  The file appears under its name only in cv_writer_commit, see base/output.h. */
#include <string.h>

#include "base/output.h"
#include "formats/dims.h"
#include "formats/header.h"

typedef struct part {
    const char *name;
    uint64_t begin, end; /* from the end of the header */
} part;

struct cv_writer {
    const corvid_allocator *mem;
    cv_arena arena; /* header and parts */
    cv_output out;
    cv_header header;
    part *parts;
    size_t n_parts, current; /* parts before `current` are complete */
    uint64_t at;             /* bytes written behind the header */
    bool failed;
};

/* ---- open ----------------------------------------------------------------------------------- */

static corvid_status make_header(cv_writer *w, cv_format format, const cv_meta *meta, size_t n_meta,
                                 const cv_tensor *tensors, size_t n_tensors, corvid_error *err)
{
    switch (format) {
    case CV_SAFETENSORS:
        return cv_safetensors_header(&w->arena, meta, n_meta, tensors, n_tensors, &w->header, err);
    case CV_GGUF:
        return cv_gguf_header(&w->arena, meta, n_meta, tensors, n_tensors, &w->header, err);
    case CV_PTH:
    case CV_RWKVCPP: break;
    }
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "%s files cannot be written, expected safetensors or gguf",
                   cv_format_name(format));
}

static corvid_status make_parts(cv_writer *w, const cv_tensor *tensors, size_t n, corvid_error *err)
{
    w->parts = cv_arena_alloc(&w->arena, n, sizeof *w->parts);
    if (!w->parts) return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu tensors", n);
    w->n_parts = n;
    uint64_t end = 0;
    for (size_t i = 0; i < n; i++) {
        size_t count, bytes;
        part *p = &w->parts[i];
        p->name = cv_arena_text(&w->arena, tensors[i].name, strlen(tensors[i].name));
        if (!p->name) return cv_fail(err, CORVID_E_MEMORY, "out of memory: a tensor's name");
        p->begin = w->header.offsets[i];
        if (!cv_dims_count(tensors[i].dims, tensors[i].n_dims, &count) ||
            !cv_dtype_bytes(tensors[i].dtype, count, &bytes) || p->begin < end ||
            !cv_range_within(p->begin, bytes, w->header.data_bytes))
            return cv_fail(err, CORVID_E_INTERNAL,
                           "tensor \"%.200s\": its place at %llu does not fit the header", p->name,
                           (unsigned long long)p->begin);
        p->end = end = p->begin + bytes;
    }
    return CORVID_OK;
}

corvid_status cv_writer_open(const corvid_allocator *mem, const char *path, cv_format format,
                             const cv_meta *meta, size_t n_meta, const cv_tensor *tensors,
                             size_t n_tensors, cv_writer **out, corvid_error *err)
{
    *out = NULL;
    cv_writer *w = cv_alloc_zero(mem, 1, sizeof *w);
    if (!w)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu bytes for a writer", sizeof *w);
    w->mem = mem;
    cv_arena_init(&w->arena, mem);
    corvid_status status = make_header(w, format, meta, n_meta, tensors, n_tensors, err);
    if (status != CORVID_OK) goto fail;
    status = make_parts(w, tensors, n_tensors, err);
    if (status != CORVID_OK) goto fail;
    status = cv_output_create(&w->out, path, err);
    if (status != CORVID_OK) goto fail;
    status = cv_output_write(&w->out, w->header.bytes, w->header.n, err);
    if (status != CORVID_OK) goto fail;
    *out = w;
    return CORVID_OK;
fail:
    cv_writer_discard(w);
    return status;
}

/* ---- data ----------------------------------------------------------------------------------- */

static corvid_status pad_to(cv_writer *w, uint64_t end, corvid_error *err)
{
    static const unsigned char ZEROS[4096];
    while (w->at < end) {
        size_t n = end - w->at < sizeof ZEROS ? (size_t)(end - w->at) : sizeof ZEROS;
        CV_TRY(cv_output_write(&w->out, ZEROS, n, err));
        w->at += n;
    }
    return CORVID_OK;
}

/* Moves on to the next tensor that still wants bytes; false when there is none. */
static bool find_part(cv_writer *w)
{
    while (w->current < w->n_parts) {
        const part *p = &w->parts[w->current];
        if (p->begin < p->end && w->at < p->end) return true;
        w->current++;
    }
    return false;
}

static corvid_status put(cv_writer *w, const unsigned char *bytes, size_t n, corvid_error *err)
{
    while (n > 0) {
        if (!find_part(w))
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "%s: %zu bytes more than the declared tensors have", w->out.name, n);
        const part *p = &w->parts[w->current];
        CV_TRY(pad_to(w, p->begin, err));
        size_t piece = p->end - w->at < n ? (size_t)(p->end - w->at) : n;
        CV_TRY(cv_output_write(&w->out, bytes, piece, err));
        w->at += piece;
        bytes += piece;
        n -= piece;
    }
    return CORVID_OK;
}

corvid_status cv_writer_put(cv_writer *writer, const void *bytes, size_t n, corvid_error *err)
{
    if (writer->failed)
        return cv_fail(err, CORVID_E_WRITE, "%s: an earlier write failed; start again",
                       writer->out.name);
    corvid_status status = put(writer, bytes, n, err);
    writer->failed = status != CORVID_OK;
    return status;
}

/* ---- commit, discard ------------------------------------------------------------------------ */

static corvid_status finish(cv_writer *w, corvid_error *err)
{
    if (w->failed)
        return cv_fail(err, CORVID_E_WRITE,
                       "%s: an earlier write failed; the file was not replaced", w->out.name);
    if (find_part(w)) {
        const part *p = &w->parts[w->current];
        uint64_t from = w->at > p->begin ? w->at : p->begin;
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: tensor \"%.200s\" lacks %llu of its %llu bytes; the file was not "
                       "replaced",
                       w->out.name, p->name, (unsigned long long)(p->end - from),
                       (unsigned long long)(p->end - p->begin));
    }
    CV_TRY(pad_to(w, w->header.data_bytes, err));
    return cv_output_commit(&w->out, err);
}

corvid_status cv_writer_commit(cv_writer *writer, corvid_error *err)
{
    corvid_status status = finish(writer, err);
    cv_writer_discard(writer); /* does nothing to a file that was committed */
    return status;
}

void cv_writer_discard(cv_writer *writer)
{
    if (!writer) return;
    const corvid_allocator *mem = writer->mem;
    cv_output_discard(&writer->out);
    cv_arena_free(&writer->arena);
    cv_free(mem, writer);
}
