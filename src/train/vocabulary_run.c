/* vocabulary_run.c - counts the words of texts, has a vocabulary made of them, and tries it.
 *
 * The text that is kept aside is taken in small blocks from all over, so that it is known from a
 * stream too.  It does not choose tokens: vocabulary_trainer.c does. */
#include "train/vocabulary_run.h"

#include <string.h>
#include <unistd.h>

#include "base/output.h"
#include "engine/vocabulary.h"
#include "text/utf8.h"
#include "text/vocabulary_trainer.h"
#include "train/text_sources.h"
#include "train/token_cache.h"

/* Text is kept aside or counted so many bytes at a time, and up to the end of the line. */
#define BLOCK        ((size_t)4096)
#define LONGEST_LINE (3 * BLOCK)

#define VOCABULARY_LIMIT ((size_t)64 << 20)

typedef struct making {
    const corvid_allocator *mem;
    const cv_vocabulary_run *run;
    cv_vocabulary_words words;
    char *aside; /* [CV_HELD_OUT_BYTES], or NULL: nothing is kept aside */
    size_t aside_n;
    uint64_t seen; /* bytes of text */
    char *file;    /* the vocabulary's text */
    size_t file_n;
} making;

/* ---- reading -------------------------------------------------------------------------------- */

static size_t block_length(const char *text, size_t n)
{
    if (n <= BLOCK) return n;
    const size_t most = n - BLOCK < LONGEST_LINE ? n - BLOCK : LONGEST_LINE;
    const char *end = memchr(text + BLOCK, '\n', most);
    return end ? (size_t)(end + 1 - text) : cv_utf8_complete(text, BLOCK + most);
}

/* Is the next block one to keep?  Whenever the part kept aside stays within its share. */
static bool is_kept(const making *m, size_t n)
{
    return m->aside && n <= CV_HELD_OUT_BYTES - m->aside_n &&
           (double)(m->aside_n + n) <= m->run->held_out * (double)(m->seen + n);
}

static corvid_status take_piece(void *ctx, const char *bytes, size_t n, bool last,
                                corvid_error *err)
{
    making *m = ctx;
    (void)last;
    while (n > 0) {
        const size_t length = block_length(bytes, n);
        if (is_kept(m, length)) {
            memcpy(m->aside + m->aside_n, bytes, length);
            m->aside_n += length;
        } else {
            CV_TRY(cv_vocabulary_words_add(&m->words, bytes, length, err));
        }
        m->seen += length;
        bytes += length;
        n -= length;
    }
    return CORVID_OK;
}

static corvid_status read_texts(making *m, corvid_error *err)
{
    const cv_vocabulary_run *r = m->run;
    const cv_text_reader reader = { .ctx = m,
                                    .piece = take_piece,
                                    .progress = r->reading,
                                    .cancel = r->cancel,
                                    .callback_ctx = r->ctx };
    cv_text_source *sources = NULL;
    cv_text_files files = { .n = 0 };
    if (r->held_out > 0.0)
        CV_TRY(cv_alloc_or_fail(m->mem, CV_HELD_OUT_BYTES, 1, "the text kept aside",
                                (void **)&m->aside, err));
    CV_TRY(cv_alloc_or_fail(m->mem, r->n_data, sizeof *sources, "the list of texts",
                            (void **)&sources, err));
    for (size_t i = 0; i < r->n_data; i++)
        sources[i] = (cv_text_source){ .path = r->data[i] };
    corvid_status status = cv_text_files_find(m->mem, sources, r->n_data, &files, err);
    if (status == CORVID_OK) status = cv_text_files_read(&files, &reader, NULL, err);
    cv_text_files_free(&files);
    cv_free(m->mem, sources);
    if (status != CORVID_OK || m->words.n > 0) return status;
    return cv_fail(err, CORVID_E_ARGUMENT, "%.512s: there is no text in it", r->data[0]);
}

/* ---- trying --------------------------------------------------------------------------------- */

/* Encodes n bytes; the tokens must be those bytes again. */
static corvid_status try_text(const cv_tokenizer *tok, const corvid_allocator *mem,
                              const char *text, size_t n, uint64_t *count, corvid_error *err)
{
    int32_t *ids = NULL;
    size_t n_ids = 0, at = 0;
    CV_TRY(cv_tokenizer_encode(tok, mem, text, n, &ids, &n_ids, err));
    for (size_t i = 0; i < n_ids; i++) {
        size_t length;
        const char *piece = cv_tokenizer_piece(tok, ids[i], &length);
        if (length > n - at || memcmp(piece, text + at, length) != 0) break;
        at += length;
    }
    cv_free(mem, ids);
    *count = n_ids;
    if (at == n) return CORVID_OK;
    return cv_fail(
        err, CORVID_E_INTERNAL,
        "the vocabulary does not give a text back from byte %zu on; nothing was written, "
        "please report this",
        at);
}

static corvid_status try_vocabulary(const making *m, uint64_t *hash, cv_vocabulary_result *result,
                                    corvid_error *err)
{
    char bytes[256];
    uint64_t count;
    cv_tokenizer *tok = NULL;
    for (size_t b = 0; b < sizeof bytes; b++)
        bytes[b] = (char)(unsigned char)b;
    CV_TRY(cv_tokenizer_parse(m->mem, m->file, m->file_n, m->run->out, &tok, err));
    corvid_status status = try_text(tok, m->mem, bytes, sizeof bytes, &count, err);
    if (status == CORVID_OK)
        status = try_text(tok, m->mem, m->aside, m->aside_n, &result->held_out_tokens, err);
    result->held_out_bytes = m->aside_n;
    result->text_bytes = m->words.text_bytes;
    *hash = cv_vocabulary_hash(tok);
    cv_tokenizer_free(tok);
    return status;
}

/* ---- writing -------------------------------------------------------------------------------- */

/* May the file be written?  Not over a book that was named by mistake. */
static corvid_status check_target(const corvid_allocator *mem, const char *path, corvid_error *err)
{
    cv_input in;
    char *text = NULL;
    size_t n = 0;
    cv_tokenizer *tok = NULL;
    if (strcmp(path, "bytes") == 0)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "bytes: as a vocabulary this word means the bytes themselves; give the file "
                       "another name");
    if (access(path, F_OK) != 0) return CORVID_OK;
    corvid_status status = cv_input_open(&in, path, NULL);
    if (status == CORVID_OK)
        status = cv_input_read_all(&in, mem, VOCABULARY_LIMIT, &text, &n, NULL);
    if (status == CORVID_OK) status = cv_tokenizer_parse(mem, text, n, path, &tok, NULL);
    const bool is_vocabulary = tok && cv_tokenizer_kind_of(tok) == CV_TOK_WORLD;
    cv_tokenizer_free(tok);
    cv_free(mem, text);
    cv_input_close(&in);
    if (is_vocabulary) return CORVID_OK;
    if (status == CORVID_E_MEMORY) return cv_fail(err, status, "%.512s: out of memory", path);
    return cv_fail(
        err, CORVID_E_ARGUMENT,
        "%.512s: is there and is not a vocabulary of this form; it will not be replaced, "
        "give another path",
        path);
}

/* What was written is read as it will be used, and must be what was tried. */
static corvid_status check_file(const making *m, uint64_t hash, corvid_error *err)
{
    cv_tokenizer *tok = NULL;
    CV_TRY(cv_vocabulary_open(m->mem, m->run->out, &tok, err));
    const bool same = cv_vocabulary_hash(tok) == hash;
    cv_tokenizer_free(tok);
    if (same) return CORVID_OK;
    return cv_fail(err, CORVID_E_WRITE,
                   "%.512s: is not what was written to it; check the disk, and whether something "
                   "else writes this file",
                   m->run->out);
}

static corvid_status make_vocabulary(making *m, cv_output *out, cv_vocabulary_result *result,
                                     corvid_error *err)
{
    const cv_vocabulary_run *r = m->run;
    const cv_vocabulary_options options = {
        .size = r->size, .progress = r->searching, .cancel = r->cancel, .ctx = r->ctx
    };
    uint64_t hash = 0;
    CV_TRY(check_target(m->mem, r->out, err));
    CV_TRY(cv_output_create(out, r->out, err)); /* a folder that is not there is found out now */
    CV_TRY(read_texts(m, err));
    CV_TRY(cv_vocabulary_train(&m->words, &options, &m->file, &m->file_n, &result->size, err));
    CV_TRY(try_vocabulary(m, &hash, result, err));
    CV_TRY(cv_output_write(out, m->file, m->file_n, err));
    CV_TRY(cv_output_commit(out, err));
    return check_file(m, hash, err);
}

corvid_status cv_train_vocabulary(const corvid_allocator *mem, const cv_vocabulary_run *run,
                                  cv_vocabulary_result *result, corvid_error *err)
{
    making m = { .mem = mem, .run = run };
    cv_output *out = NULL;
    *result = (cv_vocabulary_result){ .size = 0 };
    CV_TRY(cv_alloc_or_fail(mem, 1, sizeof *out, "writing a vocabulary", (void **)&out, err));
    memset(out, 0, sizeof *out);
    cv_vocabulary_words_init(&m.words, mem);
    const corvid_status status = make_vocabulary(&m, out, result, err);
    cv_output_discard(out);
    cv_vocabulary_words_free(&m.words);
    cv_free(mem, m.file);
    cv_free(mem, m.aside);
    cv_free(mem, out);
    return status;
}
