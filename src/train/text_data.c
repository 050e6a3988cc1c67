/* text_data.c - encodes texts into a cache of tokens, once, and splits them.
 *
 * Documents come in pieces; a piece is encoded up to where what follows cannot change the tokens, so
 * that the cuts do not show and the memory does not grow with a file.  It does not shuffle: the
 * samplers of text_samples.c do. */
#include "train/text_data.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "text/utf8.h"

#define DEFAULT_MEMORY ((size_t)1 << 30)

/* ---- encoding ------------------------------------------------------------------------------- */

typedef struct encoder {
    const corvid_allocator *mem;
    const cv_tokenizer *tok;
    cv_token_writer writer;
    size_t longest; /* bytes of the longest token */
    char *text;     /* of the document, not encoded yet */
    size_t n, capacity;
    uint64_t encoded; /* bytes of the document before it */
    bool begun;       /* the document has tokens */
    bool owed;        /* the last document ended with a separator, not written yet */
} encoder;

static size_t longest_token(const cv_tokenizer *tok)
{
    size_t longest = 1;
    for (size_t id = 0; id < cv_tokenizer_size(tok); id++) {
        size_t n;
        (void)cv_tokenizer_piece(tok, (int32_t)id, &n);
        if (n > longest) longest = n;
    }
    return longest;
}

static corvid_status append(encoder *e, const char *bytes, size_t n, corvid_error *err)
{
    size_t need;
    if (n == 0) return CORVID_OK;
    if (!cv_add_size(e->n, n, &need) || need > SIZE_MAX / 4)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: a text");
    if (need > e->capacity) {
        char *wider = NULL;
        CV_TRY(cv_alloc_or_fail(e->mem, 2 * need, 1, "a text", (void **)&wider, err));
        if (e->n > 0) memcpy(wider, e->text, e->n);
        cv_free(e->mem, e->text);
        e->text = wider;
        e->capacity = 2 * need;
    }
    memcpy(e->text + e->n, bytes, n);
    e->n = need;
    return CORVID_OK;
}

/* Where a document begins, its writer puts the separator behind the one before: what was owed. */
static corvid_status begin_document(encoder *e, corvid_error *err)
{
    if (e->begun) return CORVID_OK;
    e->begun = true;
    e->owed = false;
    return cv_token_writer_document(&e->writer, err);
}

static corvid_status write_ids(encoder *e, const int32_t *ids, size_t n, corvid_error *err)
{
    if (n == 0) return CORVID_OK;
    CV_TRY(begin_document(e, err));
    return cv_token_writer_ids(&e->writer, ids, n, err);
}

/* How much of the text byte-pair encoding may see alone: up to a line end behind a printable ASCII
 * character, where no word, no token and no composed character can go on. */
static size_t bpe_cut(const encoder *e)
{
    for (size_t i = e->n; i-- > 1;)
        if (e->text[i] == '\n' && e->text[i - 1] > 0x20 && e->text[i - 1] < 0x7F) return i;
    return 0;
}

/* The longest match looks no further than the longest token: so many of the ids of n bytes stay the
 * same whatever comes behind them.  *bytes is their text. */
static size_t settled_ids(const encoder *e, const int32_t *ids, size_t count, size_t n,
                          size_t *bytes)
{
    size_t at = 0, settled = 0;
    for (; settled < count && at + e->longest <= n; settled++) {
        size_t length;
        (void)cv_tokenizer_piece(e->tok, ids[settled], &length);
        at += length;
    }
    *bytes = at;
    return settled;
}

/* The tokenizer counts bytes from where this piece begins. */
static corvid_status encode_bytes(const encoder *e, size_t n, int32_t **ids, size_t *count,
                                  corvid_error *err)
{
    char where[64];
    const corvid_status status = cv_tokenizer_encode(e->tok, e->mem, e->text, n, ids, count, err);
    if (status != CORVID_E_ARGUMENT) return status;
    snprintf(where, sizeof where, "after byte %llu", (unsigned long long)e->encoded);
    cv_error_prefix(err, where);
    return status;
}

/* Encodes what can be encoded, all of it at the end of a document. */
static corvid_status encode(encoder *e, bool last, corvid_error *err)
{
    const bool bpe = cv_tokenizer_kind_of(e->tok) == CV_TOK_BPE;
    int32_t *ids = NULL;
    size_t count = 0, used = e->n;
    /* A vocabulary need not have tokens for the bytes of half a character. */
    if (!last) used = bpe ? bpe_cut(e) : cv_utf8_complete(e->text, e->n);
    if (used == 0) return CORVID_OK;
    CV_TRY(encode_bytes(e, used, &ids, &count, err));
    if (!bpe && !last) count = settled_ids(e, ids, count, used, &used);
    const corvid_status status = write_ids(e, ids, count, err);
    cv_free(e->mem, ids);
    e->n -= used;
    e->encoded += used;
    memmove(e->text, e->text + used, e->n);
    return status;
}

static corvid_status take_piece(void *ctx, const char *bytes, size_t n, bool last,
                                corvid_error *err)
{
    encoder *e = ctx;
    CV_TRY(append(e, bytes, n, err));
    CV_TRY(encode(e, last, err));
    if (last) {
        e->begun = false;
        e->encoded = 0;
    }
    return CORVID_OK;
}

/* Tokens as they are.  A document that ends with a separator keeps that one and gets no second. */
static corvid_status take_ids(void *ctx, const int32_t *ids, size_t n, bool last, corvid_error *err)
{
    encoder *e = ctx;
    const bool ends = last && n > 0 && ids[n - 1] == CV_TOKEN_SEPARATOR;
    if (n > 0) CV_TRY(begin_document(e, err));
    CV_TRY(cv_token_writer_ids(&e->writer, ids, n - (ends ? 1 : 0), err));
    if (last) e->begun = false;
    e->owed = ends;
    return CORVID_OK;
}

/* ---- making the cache ----------------------------------------------------------------------- */

static corvid_status encode_all(encoder *e, const cv_text_files *files,
                                const cv_text_options *options, uint64_t *bytes, corvid_error *err)
{
    static const int32_t separator = CV_TOKEN_SEPARATOR;
    const cv_text_reader reader = { .ctx = e,
                                    .piece = take_piece,
                                    .ids = take_ids,
                                    .vocabulary_size = cv_tokenizer_size(e->tok),
                                    .progress = options->progress,
                                    .cancel = options->cancel,
                                    .callback_ctx = options->ctx };
    CV_TRY(cv_text_files_read(files, &reader, bytes, err));
    if (e->owed) CV_TRY(cv_token_writer_ids(&e->writer, &separator, 1, err));
    if (e->writer.n_documents > 0) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT, "%.512s: there is no text in it", files->of[0].path);
}

/* Writes the cache; *image is it where there is no path. */
static corvid_status make_cache(const corvid_allocator *mem, const cv_text_options *options,
                                const cv_text_files *files, const cv_token_key *key, char **image,
                                size_t *n, corvid_error *err)
{
    encoder e = { .mem = mem, .tok = options->tok, .longest = longest_token(options->tok) };
    CV_TRY(cv_token_writer_open(mem, options->cache, key, &e.writer, err));
    uint64_t bytes = 0;
    corvid_status status = encode_all(&e, files, options, &bytes, err);
    if (status == CORVID_OK) status = cv_token_writer_finish(&e.writer, bytes, image, n, err);
    cv_token_writer_discard(&e.writer);
    cv_free(mem, e.text);
    return status;
}

/* Whether there is something at the path; it must be a cache then. */
static corvid_status look_for_cache(const char *path, bool *there, corvid_error *err)
{
    *there = access(path, F_OK) == 0;
    if (!*there || cv_token_cache_is_one(path)) return CORVID_OK;
    return cv_fail(
        err, CORVID_E_ARGUMENT,
        "%.512s: is there and is not a token cache (no CRVTOKEN at offset 0); it will not "
        "be replaced, give another path",
        path);
}

/* What it was made from may have come from standard input too, and be gone. */
static corvid_status keep_cache(const char *path, corvid_error *err)
{
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "%.512s: is there from another run, and it is not replaced by what comes from "
                   "standard input; give --resume to go on with it, or another folder",
                   path);
}

static corvid_status open_cache(const corvid_allocator *mem, const cv_text_options *options,
                                const cv_text_files *files, cv_text_data *data, corvid_error *err)
{
    const cv_token_key key = { .vocabulary_size = cv_tokenizer_size(options->tok),
                               .vocabulary_hash = cv_vocabulary_hash(options->tok),
                               .sources_hash = files->hash };
    const size_t limit = options->memory_limit > 0 ? options->memory_limit : DEFAULT_MEMORY;
    corvid_status status;
    char *image = NULL;
    size_t n = 0;
    if (options->cache) {
        CV_TRY(look_for_cache(options->cache, &data->reused, err));
        if (data->reused) {
            if (files->has_stream && !options->resume) return keep_cache(options->cache, err);
            status = cv_token_cache_open(mem, options->cache, &key, limit, &data->cache, err);
            if (files->has_stream) return status;
            if (status != CORVID_E_MISMATCH && status != CORVID_E_FORMAT) return status;
        }
        data->reused = false; /* of other texts, or damaged: made again */
        CV_TRY(make_cache(mem, options, files, &key, &image, &n, err));
        return cv_token_cache_open(mem, options->cache, &key, limit, &data->cache, err);
    }
    CV_TRY(make_cache(mem, options, files, &key, &image, &n, err));
    status = cv_token_cache_parse(mem, image, n, files->of[0].path, &key, &data->cache, err);
    if (status == CORVID_OK)
        data->cache.image = image;
    else
        cv_free(mem, image);
    return status;
}

/* ---- the split ------------------------------------------------------------------------------ */

/* Where validation begins. */
static uint64_t split_at(const cv_token_cache *c, double validation)
{
    const uint64_t cut = (uint64_t)floor((1.0 - validation) * (double)c->n_tokens);
    if (validation <= 0.0) return c->n_tokens;
    uint64_t low = 0,
             high = c->n_documents; /* the first document that begins at the cut or later */
    while (low < high) {
        const uint64_t mid = low + (high - low) / 2;
        if (c->starts[mid] < cut)
            low = mid + 1;
        else
            high = mid;
    }
    const bool whole =
        low > 0 && low < c->n_documents && 2 * (c->n_tokens - c->starts[low]) >= c->n_tokens - cut;
    return whole ? c->starts[low] : cut;
}

corvid_status cv_text_data_open(const corvid_allocator *mem, const cv_text_options *options,
                                cv_text_data *out, corvid_error *err)
{
    cv_text_files files;
    *out = (cv_text_data){ .reused = false };
    if (!(options->validation >= 0.0 && options->validation <= 0.9))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "a part of %g for validation, expected 0 to 0.9 (0.1 is usual)",
                       options->validation);
    CV_TRY(cv_text_files_find(mem, options->sources, options->n_sources, &files, err));
    const corvid_status status = open_cache(mem, options, &files, out, err);
    cv_text_files_free(&files);
    if (status != CORVID_OK) return status;
    const uint64_t cut = split_at(&out->cache, options->validation);
    out->train = (cv_token_range){ 0, cut };
    out->validation = (cv_token_range){ cut, out->cache.n_tokens };
    return CORVID_OK;
}

void cv_text_data_close(cv_text_data *data)
{
    cv_token_cache_close(&data->cache);
    *data = (cv_text_data){ .reused = false };
}
