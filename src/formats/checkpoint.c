/* checkpoint.c - opens a checkpoint of any known format, checks its tensor list, reads tensors.
 *
 * What the bytes of a format mean is in pth.c, safetensors.c, gguf.c and rwkvcpp.c; here is what
 * they share.  Nothing here knows what a tensor is for, and no data is converted. */
#include "formats/checkpoint.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "formats/dims.h"

/* ---- which format is it? -------------------------------------------------------------------- */

#define SNIFF_BYTES 32

typedef struct signature {
    const char *bytes;
    size_t n;
    cv_format format;
} signature;

static const signature SIGNATURES[] = {
    { "GGUF", 4, CV_GGUF },
    { "fmgg", 4, CV_RWKVCPP },
    { "PK\x03\x04", 4, CV_PTH },
    { "\x80\x02\x8a\x0a", 4, CV_PTH },
};

/* Files that are often mistaken for checkpoints, and what to do about each. */
typedef struct lookalike {
    const char *text; /* compared without regard to case */
    const char *advice;
} lookalike;

static const lookalike LOOKALIKES[] = {
    { "version https://git-lfs", "is a Git LFS pointer, not the checkpoint it stands for; run "
                                 "\"git lfs pull\" or download the file itself" },
    { "<!doctype html", "is a web page, not a checkpoint; download the file itself, not the page "
                        "that shows it" },
    { "<html", "is a web page, not a checkpoint; download the file itself, not the page that "
               "shows it" },
    { "lmgg", "is a ggml file without a version, from before rwkv.cpp's file version 100; convert "
              "the model again" },
    { "tjgg", "is a llama.cpp file from before GGUF; convert the model to GGUF" },
};

/* The bytes as `3c 21 44 ("<!D")`. */
static void show_bytes(const unsigned char *bytes, size_t n, char *text, size_t room)
{
    size_t at = 0;
    for (size_t i = 0; i < n && at + 4 < room; i++)
        at += (size_t)snprintf(text + at, room - at, "%02x ", bytes[i]);
    if (at + n + 5 > room) return;
    at += (size_t)snprintf(text + at, room - at, "(\"");
    for (size_t i = 0; i < n; i++)
        text[at++] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? (char)bytes[i] : '.';
    snprintf(text + at, room - at, "\")");
}

static corvid_status fail_unknown(const unsigned char *bytes, size_t n, corvid_error *err)
{
    size_t skip = 0;
    while (skip < n && isspace(bytes[skip]))
        skip++;
    for (size_t i = 0; i < sizeof LOOKALIKES / sizeof *LOOKALIKES; i++) {
        size_t length = strlen(LOOKALIKES[i].text);
        if (n - skip >= length &&
            strncasecmp((const char *)bytes + skip, LOOKALIKES[i].text, length) == 0)
            return cv_fail(err, CORVID_E_FORMAT, "at offset 0: this %s", LOOKALIKES[i].advice);
    }
    char shown[128];
    show_bytes(bytes, n < 16 ? n : 16, shown, sizeof shown);
    return cv_fail(err, CORVID_E_FORMAT,
                   "at offset 0: the first bytes are %s, which begin none of the known formats: "
                   "PyTorch .pth (zip or legacy), safetensors, GGUF, rwkv.cpp ggml; is this a "
                   "checkpoint?",
                   shown);
}

static corvid_status sniff(const cv_input *in, cv_format *format, corvid_error *err)
{
    unsigned char bytes[SNIFF_BYTES];
    size_t n = in->size < SNIFF_BYTES ? (size_t)in->size : SNIFF_BYTES;
    if (n == 0)
        return cv_fail(err, CORVID_E_FORMAT,
                       "at offset 0: the file is empty, expected a checkpoint; get it again");
    CV_TRY(cv_input_read(in, 0, bytes, n, err));
    for (size_t i = 0; i < sizeof SIGNATURES / sizeof *SIGNATURES; i++)
        if (n >= SIGNATURES[i].n && memcmp(bytes, SIGNATURES[i].bytes, SIGNATURES[i].n) == 0) {
            *format = SIGNATURES[i].format;
            return CORVID_OK;
        }
    /* A safetensors file has no magic: a length of eight bytes, then a JSON object. */
    if (n > 8 && bytes[8] == '{') {
        *format = CV_SAFETENSORS;
        return CORVID_OK;
    }
    return fail_unknown(bytes, n, err);
}

/* ---- open, parse, close --------------------------------------------------------------------- */

static corvid_status parse(cv_checkpoint *ckpt, corvid_error *err)
{
    CV_TRY(sniff(&ckpt->in, &ckpt->format, err));
    switch (ckpt->format) {
    case CV_PTH: CV_TRY(cv_pth_parse(ckpt, err)); break;
    case CV_SAFETENSORS: CV_TRY(cv_safetensors_parse(ckpt, err)); break;
    case CV_GGUF: CV_TRY(cv_gguf_parse(ckpt, err)); break;
    case CV_RWKVCPP: CV_TRY(cv_rwkvcpp_parse(ckpt, err)); break;
    }
    return cv_checkpoint_seal(ckpt, err);
}

corvid_status cv_checkpoint_parse(const corvid_allocator *mem, const cv_input *in,
                                  cv_checkpoint *out, corvid_error *err)
{
    *out = (cv_checkpoint){ .in = *in };
    cv_arena_init(&out->arena, mem);
    corvid_status status = parse(out, err);
    if (status != CORVID_OK) {
        /* Errors of the input itself name the file already. */
        size_t n = strlen(out->in.path);
        if (err && strncmp(err->text, out->in.path, n) != 0) cv_error_prefix(err, out->in.path);
        cv_checkpoint_close(out);
    }
    return status;
}

corvid_status cv_checkpoint_open(const corvid_allocator *mem, const char *path, cv_checkpoint *out,
                                 corvid_error *err)
{
    *out = (cv_checkpoint){ 0 };
    cv_input in;
    CV_TRY(cv_input_open(&in, path, err));
    return cv_checkpoint_parse(mem, &in, out, err);
}

void cv_checkpoint_close(cv_checkpoint *ckpt)
{
    if (!ckpt->arena.mem) return; /* zeroed: its descriptor is not one of ours */
    cv_arena_free(&ckpt->arena);
    cv_input_close(&ckpt->in);
    *ckpt = (cv_checkpoint){ 0 };
}

const char *cv_format_name(cv_format format)
{
    switch (format) {
    case CV_PTH: return "pth";
    case CV_SAFETENSORS: return "safetensors";
    case CV_GGUF: return "gguf";
    case CV_RWKVCPP: return "ggml";
    }
    return "unknown";
}

/* ---- the tensor list ------------------------------------------------------------------------ */

static corvid_status fail_range(const cv_checkpoint *ckpt, const cv_tensor *t, corvid_error *err)
{
    return cv_fail(err, CORVID_E_FORMAT,
                   "tensor \"%.200s\": %zu elements of %s at offset %llu reach past the end of the "
                   "file at %llu; the file is cut short or damaged, get it again",
                   t->name, t->count, cv_dtype_of(t->dtype)->name, (unsigned long long)t->offset,
                   (unsigned long long)ckpt->in.size);
}

/* Elements from the first to the last one that the strides reach, both included. */
static bool strided_extent(const cv_tensor *t, size_t *extent)
{
    size_t last = 0;
    for (int k = 0; k < t->n_dims; k++) {
        size_t reach;
        if (!cv_mul_size(t->dims[k] - 1, t->strides[k], &reach)) return false;
        if (!cv_add_size(last, reach, &last)) return false;
    }
    return cv_add_size(last, 1, extent);
}

/* The bytes that a tensor's elements lie in must be in the file.  Strides of zero let a few bytes
 * stand for any number of elements; more of them than the whole file holds is an attack. */
static corvid_status seal_range(const cv_checkpoint *ckpt, const cv_tensor *t, corvid_error *err)
{
    size_t bytes, extent = t->count;
    if (!cv_dtype_bytes(t->dtype, t->count, &bytes)) return fail_range(ckpt, t, err);
    if (!t->contiguous && t->count > 0) {
        if (cv_dtype_of(t->dtype)->block != 1)
            return cv_fail(err, CORVID_E_FORMAT,
                           "tensor \"%.200s\": %s data with strides cannot be read, expected "
                           "contiguous rows",
                           t->name, cv_dtype_of(t->dtype)->name);
        if (bytes > ckpt->in.size || !strided_extent(t, &extent) ||
            !cv_dtype_bytes(t->dtype, extent, &bytes))
            return fail_range(ckpt, t, err);
    }
    if (!cv_range_within(t->offset, bytes, ckpt->in.size)) return fail_range(ckpt, t, err);
    return CORVID_OK;
}

static corvid_status seal_tensor(const cv_checkpoint *ckpt, cv_tensor *t, corvid_error *err)
{
    if (t->n_dims < 0 || t->n_dims > CV_MAX_DIMS)
        return cv_fail(err, CORVID_E_FORMAT, "tensor \"%.200s\": %d dims, expected at most %d",
                       t->name, t->n_dims, CV_MAX_DIMS);
    if ((unsigned)t->dtype >= CV_DTYPES)
        return cv_fail(err, CORVID_E_FORMAT, "tensor \"%.200s\": unknown element type %u", t->name,
                       (unsigned)t->dtype);
    if (!cv_dims_count(t->dims, t->n_dims, &t->count))
        return cv_fail(err, CORVID_E_FORMAT,
                       "tensor \"%.200s\": the product of its %d dims overflows; the file is "
                       "damaged",
                       t->name, t->n_dims);
    if (!cv_dims_fit_blocks(t->dims, t->n_dims, t->dtype))
        return cv_fail(err, CORVID_E_FORMAT,
                       "tensor \"%.200s\": rows of %zu elements, expected a multiple of %zu (the "
                       "block of %s)",
                       t->name, t->n_dims > 0 ? t->dims[t->n_dims - 1] : (size_t)1,
                       cv_dtype_of(t->dtype)->block, cv_dtype_of(t->dtype)->name);
    return seal_range(ckpt, t, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const cv_tensor *)a)->name, ((const cv_tensor *)b)->name);
}

corvid_status cv_checkpoint_seal(cv_checkpoint *ckpt, corvid_error *err)
{
    for (size_t i = 0; i < ckpt->n_tensors; i++)
        CV_TRY(seal_tensor(ckpt, &ckpt->tensors[i], err));
    if (ckpt->n_tensors > 1) qsort(ckpt->tensors, ckpt->n_tensors, sizeof *ckpt->tensors, by_name);
    for (size_t i = 1; i < ckpt->n_tensors; i++) {
        const cv_tensor *a = &ckpt->tensors[i - 1], *b = &ckpt->tensors[i];
        if (strcmp(a->name, b->name) == 0)
            return cv_fail(err, CORVID_E_FORMAT,
                           "tensor \"%.200s\" is there twice, at offsets %llu and %llu; expected "
                           "every name once",
                           a->name, (unsigned long long)a->offset, (unsigned long long)b->offset);
    }
    return CORVID_OK;
}

static int name_is(const void *key, const void *tensor)
{
    return strcmp(key, ((const cv_tensor *)tensor)->name);
}

const cv_tensor *cv_checkpoint_find(const cv_checkpoint *ckpt, const char *name)
{
    if (ckpt->n_tensors == 0) return NULL;
    return bsearch(name, ckpt->tensors, ckpt->n_tensors, sizeof *ckpt->tensors, name_is);
}

const cv_meta *cv_checkpoint_meta(const cv_checkpoint *ckpt, const char *key)
{
    for (size_t i = 0; i < ckpt->n_meta; i++)
        if (strcmp(ckpt->meta[i].key, key) == 0) return &ckpt->meta[i];
    return NULL;
}

/* ---- reading elements ----------------------------------------------------------------------- */

/* A strided tensor is gathered box by box: a box is a range of indices in each dim, small enough
 * that the stretch of file from its first to its last element fits in one buffer.  A transposed
 * matrix is read once from end to end that way, whichever of its dims is the long one; reading it
 * in pieces of a few rows reads it again for each piece. */
#define SPAN_BYTES ((size_t)1 << 20)

typedef struct box {
    size_t lo[CV_MAX_DIMS], hi[CV_MAX_DIMS];
} box;

typedef struct gather {
    const cv_checkpoint *ckpt;
    const cv_tensor *t;
    size_t size;         /* bytes of an element */
    size_t first, n;     /* the elements wanted, in row-major order */
    unsigned char *dst;  /* [n * size] */
    unsigned char *span; /* [SPAN_BYTES] */
} gather;

static void copy_strided(unsigned char *dst, const unsigned char *src, size_t n, size_t stride,
                         size_t size)
{
    if (stride == 1) {
        memcpy(dst, src, n * size);
        return;
    }
    const size_t step = stride * size;
    switch (size) { /* constant sizes become single moves */
    case 1:
        for (size_t i = 0; i < n; i++)
            dst[i] = src[i * step];
        break;
    case 2:
        for (size_t i = 0; i < n; i++)
            memcpy(dst + i * 2, src + i * step, 2);
        break;
    case 4:
        for (size_t i = 0; i < n; i++)
            memcpy(dst + i * 4, src + i * step, 4);
        break;
    default:
        for (size_t i = 0; i < n; i++)
            memcpy(dst + i * size, src + i * step, size);
        break;
    }
}

/* The part of one run along the last dim that is wanted; flat is the run's first index. */
static void copy_run(const gather *g, size_t flat, size_t n, const unsigned char *src)
{
    size_t stride = g->t->strides[g->t->n_dims - 1];
    size_t lo = flat, hi = flat + n, end = g->first + g->n;
    if (lo < g->first) lo = g->first;
    if (hi > end) hi = end;
    if (lo >= hi) return;
    copy_strided(g->dst + (lo - g->first) * g->size, src + (lo - flat) * stride * g->size, hi - lo,
                 stride, g->size);
}

/* From the buffer, which begins with the box's first element, to where the elements belong. */
static void copy_box(const gather *g, const box *b)
{
    const cv_tensor *t = g->t;
    const int last = t->n_dims - 1;
    size_t at[CV_MAX_DIMS];
    memcpy(at, b->lo, sizeof at);
    for (;;) {
        size_t flat = 0, source = 0;
        for (int k = 0; k <= last; k++) {
            flat = flat * t->dims[k] + at[k];
            source += (at[k] - b->lo[k]) * t->strides[k];
        }
        copy_run(g, flat, b->hi[last] - b->lo[last], g->span + source * g->size);
        int k = last - 1;
        while (k >= 0 && ++at[k] == b->hi[k]) {
            at[k] = b->lo[k];
            k--;
        }
        if (k < 0) return;
    }
}

/* Sizes below cannot overflow: cv_checkpoint_seal has computed those of the whole tensor. */
static corvid_status gather_box(const gather *g, const box *b, corvid_error *err)
{
    const cv_tensor *t = g->t;
    size_t start = 0, extent = 1, widest = 0;
    int split = 0;
    for (int k = 0; k < t->n_dims; k++) {
        size_t reach = (b->hi[k] - b->lo[k] - 1) * t->strides[k];
        start += b->lo[k] * t->strides[k];
        extent += reach;
        if (reach > widest) {
            widest = reach;
            split = k;
        }
    }
    if (extent <= SPAN_BYTES / g->size) {
        CV_TRY(cv_input_read(&g->ckpt->in, t->offset + (uint64_t)start * g->size, g->span,
                             extent * g->size, err));
        copy_box(g, b);
        return CORVID_OK;
    }
    box half = *b;
    half.hi[split] = b->lo[split] + (b->hi[split] - b->lo[split]) / 2;
    CV_TRY(gather_box(g, &half, err));
    half.lo[split] = half.hi[split];
    half.hi[split] = b->hi[split];
    return gather_box(g, &half, err);
}

/* The smallest box that holds elements [first, first + n): the leading dims are narrowed as long
 * as only one index of them is needed, and then once more. */
static box box_around(const cv_tensor *t, size_t first, size_t n)
{
    box b;
    for (int k = 0; k < CV_MAX_DIMS; k++) {
        b.lo[k] = 0;
        b.hi[k] = k < t->n_dims ? t->dims[k] : 1;
    }
    size_t inner = t->count, lo = first, hi = first + n - 1;
    for (int k = 0; k < t->n_dims; k++) {
        inner /= t->dims[k];
        b.lo[k] = lo / inner;
        b.hi[k] = hi / inner + 1;
        if (b.hi[k] - b.lo[k] > 1) break;
        lo %= inner;
        hi %= inner;
    }
    return b;
}

static corvid_status read_strided(const cv_checkpoint *ckpt, const cv_tensor *t, size_t first,
                                  size_t n, void *dst, corvid_error *err)
{
    const corvid_allocator *mem = ckpt->arena.mem;
    gather g = { .ckpt = ckpt,
                 .t = t,
                 .size = cv_dtype_of(t->dtype)->block_bytes,
                 .first = first,
                 .n = n,
                 .dst = dst };
    void *span;
    CV_TRY(cv_alloc_or_fail(mem, SPAN_BYTES, 1, "gathering a strided tensor", &span, err));
    g.span = span;
    box b = box_around(t, first, n);
    corvid_status status = gather_box(&g, &b, err);
    cv_free(mem, span);
    return status;
}

corvid_status cv_tensor_read(const cv_checkpoint *ckpt, const cv_tensor *tensor, size_t first,
                             size_t n, void *dst, corvid_error *err)
{
    size_t skip, bytes;
    if (first > tensor->count || n > tensor->count - first ||
        !cv_dtype_bytes(tensor->dtype, first, &skip) || !cv_dtype_bytes(tensor->dtype, n, &bytes))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "tensor \"%.200s\": elements %zu to %zu + %zu asked for, expected whole "
                       "blocks within its %zu elements of %s",
                       tensor->name, first, first, n, tensor->count,
                       cv_dtype_of(tensor->dtype)->name);
    if (n == 0) return CORVID_OK;
    corvid_status status = tensor->contiguous || tensor->n_dims == 0
                               ? cv_input_read(&ckpt->in, tensor->offset + skip, dst, bytes, err)
                               : read_strided(ckpt, tensor, first, n, dst, err);
    return status;
}
