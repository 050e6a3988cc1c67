/* tokenizer.c - the common face of the three kinds.
 *
 * Makes the shared parts (arena, pieces), and hands parsing and encoding to world.c, bpe_file.c,
 * bpe.c and bytes.c. */
#include "text/tokenizer.h"

#include <string.h>

#include "text/kinds.h"

static corvid_status tokenizer_new(const corvid_allocator *mem, cv_tokenizer_kind kind,
                                   cv_tokenizer **out, corvid_error *err)
{
    *out = cv_alloc_zero(mem, 1, sizeof **out);
    if (!*out)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu bytes for a tokenizer",
                       sizeof **out);
    (*out)->kind = kind;
    cv_arena_init(&(*out)->arena, mem);
    return CORVID_OK;
}

/* Ends a constructor: gives the tokenizer away when it was filled, frees it otherwise. */
static corvid_status finish(corvid_status status, cv_tokenizer *tok, cv_tokenizer **out)
{
    if (status == CORVID_OK)
        *out = tok;
    else
        cv_tokenizer_free(tok);
    return status;
}

static corvid_status check_length(size_t n, const char *name, corvid_error *err)
{
    if (n <= CV_VOCABULARY_BYTES) return CORVID_OK;
    return cv_fail(err, CORVID_E_FORMAT,
                   "%.512s: %zu bytes; a vocabulary has at most %zu; is this another file?", name,
                   n, CV_VOCABULARY_BYTES);
}

corvid_status cv_tokenizer_world(const corvid_allocator *mem, const char *text, size_t n,
                                 const char *name, cv_tokenizer **out, corvid_error *err)
{
    cv_tokenizer *tok;
    if (!name) name = "vocabulary";
    *out = NULL;
    CV_TRY(check_length(n, name, err));
    CV_TRY(tokenizer_new(mem, CV_TOK_WORLD, &tok, err));
    return finish(cv_world_fill(tok, text, n, name, err), tok, out);
}

corvid_status cv_tokenizer_pieces(const corvid_allocator *mem, const char *const *bytes,
                                  const size_t *lengths, size_t n, cv_tokenizer **out,
                                  corvid_error *err)
{
    cv_tokenizer *tok;
    *out = NULL;
    CV_TRY(tokenizer_new(mem, CV_TOK_WORLD, &tok, err));
    return finish(cv_world_fill_pieces(tok, bytes, lengths, n, err), tok, out);
}

corvid_status cv_tokenizer_bpe(const corvid_allocator *mem, const char *json, size_t n,
                               const char *name, cv_tokenizer **out, corvid_error *err)
{
    cv_tokenizer *tok;
    if (!name) name = "tokenizer.json";
    *out = NULL;
    CV_TRY(check_length(n, name, err));
    CV_TRY(tokenizer_new(mem, CV_TOK_BPE, &tok, err));
    return finish(cv_bpe_fill(tok, json, n, name, err), tok, out);
}

corvid_status cv_tokenizer_bytes(const corvid_allocator *mem, cv_tokenizer **out, corvid_error *err)
{
    cv_tokenizer *tok;
    *out = NULL;
    CV_TRY(tokenizer_new(mem, CV_TOK_BYTES, &tok, err));
    return finish(cv_bytes_fill(tok, err), tok, out);
}

corvid_status cv_tokenizer_parse(const corvid_allocator *mem, const char *text, size_t n,
                                 const char *name, cv_tokenizer **out, corvid_error *err)
{
    size_t i = 0;
    while (i < n && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n'))
        i++;
    if (i < n && text[i] == '{') return cv_tokenizer_bpe(mem, text, n, name, out, err);
    return cv_tokenizer_world(mem, text, n, name, out, err);
}

void cv_tokenizer_free(cv_tokenizer *tok)
{
    if (!tok) return;
    const corvid_allocator *mem = tok->arena.mem;
    cv_arena_free(&tok->arena);
    cv_free(mem, tok);
}

cv_tokenizer_kind cv_tokenizer_kind_of(const cv_tokenizer *tok)
{
    return tok->kind;
}

size_t cv_tokenizer_size(const cv_tokenizer *tok)
{
    return tok->pieces.n;
}

static corvid_status encode_bytes(const char *text, size_t n, cv_ids *ids, corvid_error *err)
{
    for (size_t i = 0; i < n; i++)
        CV_TRY(cv_ids_push(ids, (unsigned char)text[i], err));
    return CORVID_OK;
}

static corvid_status encode(const cv_tokenizer *tok, const char *text, size_t n, cv_ids *ids,
                            corvid_error *err)
{
    switch (tok->kind) {
    case CV_TOK_BYTES: return encode_bytes(text, n, ids, err);
    case CV_TOK_WORLD: return cv_world_encode(&tok->as.world, text, n, ids, err);
    case CV_TOK_BPE: return cv_bpe_encode(tok, text, n, ids, err);
    }
    return cv_fail(err, CORVID_E_INTERNAL, "a tokenizer of kind %d", (int)tok->kind);
}

corvid_status cv_tokenizer_encode(const cv_tokenizer *tok, const corvid_allocator *mem,
                                  const char *text, size_t n, int32_t **ids, size_t *count,
                                  corvid_error *err)
{
    cv_ids list = { .mem = mem, .capacity = tok->kind == CV_TOK_BYTES ? n + 1 : n / 3 + 16 };
    *ids = NULL;
    *count = 0;
    CV_TRY(
        cv_alloc_or_fail(mem, list.capacity, sizeof *list.at, "token ids", (void **)&list.at, err));
    const corvid_status status = encode(tok, text, n, &list, err);
    if (status != CORVID_OK) {
        cv_free(mem, list.at);
        return status;
    }
    *ids = list.at;
    *count = list.n;
    return CORVID_OK;
}

const char *cv_tokenizer_piece(const cv_tokenizer *tok, int32_t id, size_t *n)
{
    *n = 0;
    if (id < 0 || (size_t)id >= tok->pieces.n) return "";
    return cv_piece(&tok->pieces, id, n);
}
