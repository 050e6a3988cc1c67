/* token_cache.c - writing token ids to a cache, and reading them back.
 *
 * The counts stand at the end, so that ids are written as they are found.  Everything is checked
 * when a cache is opened (its size, checksum, document starts, each id), so that reading a batch
 * can only fail with the disk, or when somebody changes the file meanwhile.  It knows nothing of texts: text_data.c does. */
#include "train/token_cache.h"

#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/checked.h"

static const char MAGIC[8] = { 'C', 'R', 'V', 'T', 'O', 'K', 'E', 'N' };
enum { VERSION = 1 };

typedef struct header {
    char magic[8];
    uint32_t version, token_bytes;
    cv_token_key key;
    uint64_t reserved[3]; /* zeros */
} header;

typedef struct tail {
    uint64_t n_tokens, n_documents, source_bytes;
    uint64_t checksum; /* of everything before it */
} tail;

/* Bytes that are read, checked or converted at a time. */
#define PIECE ((size_t)1 << 16)

static size_t bytes_of_id(uint64_t vocabulary_size)
{
    return vocabulary_size <= 65536 ? 2 : 4;
}

uint64_t cv_vocabulary_hash(const cv_tokenizer *tok)
{
    const uint64_t about[2] = { (uint64_t)cv_tokenizer_kind_of(tok), cv_tokenizer_size(tok) };
    uint64_t hash = XXH3_64bits(about, sizeof about);
    for (size_t id = 0; id < cv_tokenizer_size(tok); id++) {
        size_t n;
        const char *piece = cv_tokenizer_piece(tok, (int32_t)id, &n);
        hash = XXH3_64bits_withSeed(piece, n, hash);
    }
    return hash;
}

/* ---- opening -------------------------------------------------------------------------------- */

static corvid_status check_header(const cv_token_cache *c, const header *h, corvid_error *err)
{
    static const uint64_t zeros[3];
    if (memcmp(h->magic, MAGIC, sizeof MAGIC) != 0)
        return cv_fail(err, CORVID_E_FORMAT, "%s: not a token cache (no CRVTOKEN at offset 0)",
                       c->in.path);
    if (h->version != VERSION)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: a token cache of version %u, this program reads version %d; remove it "
                       "to have it made again",
                       c->in.path, h->version, VERSION);
    if (h->key.vocabulary_size == 0 || h->key.vocabulary_size > INT32_MAX ||
        h->token_bytes != bytes_of_id(h->key.vocabulary_size) ||
        memcmp(h->reserved, zeros, sizeof zeros) != 0)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: damaged: the header (offset 12) has ids of %u bytes for a vocabulary "
                       "of %llu; remove the cache to have it made again",
                       c->in.path, h->token_bytes, (unsigned long long)h->key.vocabulary_size);
    return CORVID_OK;
}

static corvid_status check_key(const cv_token_cache *c, const cv_token_key *key, corvid_error *err)
{
    if (!key) return CORVID_OK;
    if (c->key.vocabulary_size != key->vocabulary_size ||
        c->key.vocabulary_hash != key->vocabulary_hash)
        return cv_fail(err, CORVID_E_MISMATCH,
                       "%s: tokens of another vocabulary (%llu ids, hash %016llx; expected %llu "
                       "and %016llx); remove it to have it made again",
                       c->in.path, (unsigned long long)c->key.vocabulary_size,
                       (unsigned long long)c->key.vocabulary_hash,
                       (unsigned long long)key->vocabulary_size,
                       (unsigned long long)key->vocabulary_hash);
    if (c->key.sources_hash != key->sources_hash)
        return cv_fail(err, CORVID_E_MISMATCH,
                       "%s: tokens of other texts, or of these before they changed; remove it to "
                       "have it made again",
                       c->in.path);
    return CORVID_OK;
}

/* Where the document starts begin; the counts must fit the size of the file exactly. */
static corvid_status check_counts(cv_token_cache *c, const tail *t, uint64_t *starts_at,
                                  corvid_error *err)
{
    size_t ids, padded, starts, end;
    const bool fits =
        t->n_tokens <= SIZE_MAX && t->n_documents <= SIZE_MAX &&
        cv_mul_size((size_t)t->n_tokens, c->token_bytes, &ids) && cv_round_up(ids, 8, &padded) &&
        cv_mul_size((size_t)t->n_documents, sizeof *c->starts, &starts) &&
        cv_add_size(padded, starts, &end) && cv_add_size(end, sizeof(header) + sizeof(tail), &end);
    if (!fits || end != c->in.size || t->n_documents == 0 || t->n_documents > t->n_tokens)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: %llu bytes do not fit the %llu tokens and %llu documents it counts at "
                       "offset %llu; it is cut short or damaged, remove it to have it made again",
                       c->in.path, (unsigned long long)c->in.size, (unsigned long long)t->n_tokens,
                       (unsigned long long)t->n_documents,
                       (unsigned long long)(c->in.size - sizeof(tail)));
    c->n_tokens = t->n_tokens;
    c->n_documents = t->n_documents;
    c->source_bytes = t->source_bytes;
    *starts_at = sizeof(header) + padded;
    return CORVID_OK;
}

/* The checksum of all but its own eight bytes. */
static corvid_status check_sum(const cv_token_cache *c, uint64_t expected, corvid_error *err)
{
    XXH3_state_t *state = XXH3_createState();
    char *piece = cv_alloc(c->mem, PIECE, 1);
    corvid_status status = CORVID_OK;
    if (!state || !piece)
        status = cv_fail(err, CORVID_E_MEMORY, "%s: out of memory: the checksum", c->in.path);
    else
        XXH3_64bits_reset(state);
    const uint64_t end = c->in.size - sizeof expected;
    for (uint64_t at = 0; status == CORVID_OK && at < end;) {
        const size_t n = end - at < PIECE ? (size_t)(end - at) : PIECE;
        status = cv_input_read(&c->in, at, piece, n, err);
        if (status == CORVID_OK) XXH3_64bits_update(state, piece, n);
        at += n;
    }
    if (status == CORVID_OK && XXH3_64bits_digest(state) != expected)
        status = cv_fail(err, CORVID_E_FORMAT,
                         "%s: damaged: the checksum at offset %llu does not fit what is before it; "
                         "remove it to have it made again",
                         c->in.path, (unsigned long long)end);
    cv_free(c->mem, piece);
    XXH3_freeState(state);
    return status;
}

static corvid_status read_starts(cv_token_cache *c, uint64_t at, corvid_error *err)
{
    const size_t n = (size_t)c->n_documents;
    CV_TRY(
        cv_alloc_or_fail(c->mem, n, sizeof *c->starts, "a token cache", (void **)&c->starts, err));
    CV_TRY(cv_input_read(&c->in, at, c->starts, n * sizeof *c->starts, err));
    for (size_t i = 0; i < n; i++)
        if (c->starts[i] >= c->n_tokens ||
            (i == 0 ? c->starts[0] != 0 : c->starts[i] <= c->starts[i - 1]))
            return cv_fail(err, CORVID_E_FORMAT,
                           "%s: damaged: document %zu starts at token %llu (offset %llu), expected "
                           "increasing starts below %llu",
                           c->in.path, i, (unsigned long long)c->starts[i],
                           (unsigned long long)(at + i * sizeof *c->starts),
                           (unsigned long long)c->n_tokens);
    return CORVID_OK;
}

/* Reading checks. */
static corvid_status check_ids(const cv_token_cache *c, corvid_error *err)
{
    int32_t ids[1024];
    for (uint64_t at = 0; at < c->n_tokens;) {
        const size_t n = c->n_tokens - at < 1024 ? (size_t)(c->n_tokens - at) : 1024;
        CV_TRY(cv_token_cache_read(c, at, n, ids, err));
        at += n;
    }
    return CORVID_OK;
}

/* The ids into memory, where they are not there already and may be. */
static corvid_status load_ids(cv_token_cache *c, size_t limit, corvid_error *err)
{
    const uint64_t bytes = c->n_tokens * c->token_bytes;
    if (c->in.fd < 0 || bytes > limit) return CORVID_OK;
    CV_TRY(cv_alloc_or_fail(c->mem, (size_t)bytes, 1, "the tokens of a text", &c->ids, err));
    return cv_input_read(&c->in, sizeof(header), c->ids, (size_t)bytes, err);
}

/* c->in is open. */
static corvid_status open_input(cv_token_cache *c, const cv_token_key *key, size_t limit,
                                corvid_error *err)
{
    header h;
    tail t;
    uint64_t starts_at = 0;
    if (c->in.size >= sizeof h.magic) CV_TRY(cv_input_read(&c->in, 0, h.magic, 8, err));
    if (c->in.size < sizeof h.magic || memcmp(h.magic, MAGIC, sizeof MAGIC) != 0)
        return cv_fail(err, CORVID_E_FORMAT, "%s: not a token cache (no CRVTOKEN at offset 0)",
                       c->in.path);
    if (c->in.size < sizeof h + sizeof t)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: ends at byte %llu, in its header; remove it to have it made again",
                       c->in.path, (unsigned long long)c->in.size);
    CV_TRY(cv_input_read(&c->in, 0, &h, sizeof h, err));
    CV_TRY(check_header(c, &h, err));
    c->key = h.key;
    c->token_bytes = h.token_bytes;
    CV_TRY(check_key(c, key, err));
    CV_TRY(cv_input_read(&c->in, c->in.size - sizeof t, &t, sizeof t, err));
    CV_TRY(check_counts(c, &t, &starts_at, err));
    CV_TRY(check_sum(c, t.checksum, err));
    CV_TRY(read_starts(c, starts_at, err));
    CV_TRY(load_ids(c, limit, err));
    return check_ids(c, err);
}

corvid_status cv_token_cache_open(const corvid_allocator *mem, const char *path,
                                  const cv_token_key *key, size_t memory_limit, cv_token_cache *out,
                                  corvid_error *err)
{
    *out = (cv_token_cache){ .mem = mem, .in.fd = -1 };
    CV_TRY(cv_input_open(&out->in, path, err));
    const corvid_status status = open_input(out, key, memory_limit, err);
    if (status != CORVID_OK) cv_token_cache_close(out);
    return status;
}

corvid_status cv_token_cache_parse(const corvid_allocator *mem, const void *bytes, size_t n,
                                   const char *name, const cv_token_key *key, cv_token_cache *out,
                                   corvid_error *err)
{
    *out = (cv_token_cache){ .mem = mem };
    cv_input_memory(&out->in, bytes, n, name);
    const corvid_status status = open_input(out, key, 0, err);
    if (status != CORVID_OK) cv_token_cache_close(out);
    return status;
}

void cv_token_cache_close(cv_token_cache *c)
{
    if (!c->mem) return;
    cv_input_close(&c->in);
    cv_free(c->mem, c->image);
    cv_free(c->mem, c->starts);
    cv_free(c->mem, c->ids);
    *c = (cv_token_cache){ .in.fd = -1 };
}

bool cv_token_cache_is_one(const char *path)
{
    cv_input in;
    char magic[sizeof MAGIC];
    if (cv_input_open(&in, path, NULL) != CORVID_OK) return false;
    const bool is = cv_input_read(&in, 0, magic, sizeof magic, NULL) == CORVID_OK &&
                    memcmp(magic, MAGIC, sizeof MAGIC) == 0;
    cv_input_close(&in);
    return is;
}

/* ---- reading -------------------------------------------------------------------------------- */

static void widen(int32_t *ids, const void *packed, size_t token_bytes, size_t n)
{
    if (token_bytes == 4) {
        memcpy(ids, packed, n * sizeof *ids);
        return;
    }
    const unsigned char *from = packed;
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)(from[2 * i] | (unsigned)from[2 * i + 1] << 8);
}

/* Ids become offsets into the embedding, and a file may change after it was opened. */
static corvid_status check_range(const cv_token_cache *c, uint64_t from, size_t n,
                                 const int32_t *ids, corvid_error *err)
{
    for (size_t i = 0; i < n; i++)
        if ((uint32_t)ids[i] >= c->key.vocabulary_size)
            return cv_fail(err, CORVID_E_FORMAT,
                           "%s: damaged: token %llu has the id %u, expected less than %llu; remove "
                           "it to have it made again",
                           c->in.path, (unsigned long long)(from + i), (unsigned)ids[i],
                           (unsigned long long)c->key.vocabulary_size);
    return CORVID_OK;
}

corvid_status cv_token_cache_read(const cv_token_cache *c, uint64_t from, size_t n, int32_t *ids,
                                  corvid_error *err)
{
    unsigned char packed[4096];
    const size_t w = c->token_bytes;
    if (!cv_range_within(from, n, c->n_tokens))
        return cv_fail(err, CORVID_E_ARGUMENT, "%s: %zu tokens from %llu on, it has %llu",
                       c->in.path, n, (unsigned long long)from, (unsigned long long)c->n_tokens);
    if (c->ids) {
        widen(ids, (const char *)c->ids + from * w, w, n);
        return check_range(c, from, n, ids, err);
    }
    for (size_t done = 0; done < n;) {
        const size_t part = n - done < sizeof packed / w ? n - done : sizeof packed / w;
        CV_TRY(cv_input_read(&c->in, sizeof(header) + (from + done) * w, packed, part * w, err));
        widen(ids + done, packed, w, part);
        done += part;
    }
    return check_range(c, from, n, ids, err);
}

/* ---- writing -------------------------------------------------------------------------------- */

static corvid_status grow_image(cv_token_writer *w, size_t more, corvid_error *err)
{
    size_t need, capacity = w->image_capacity > 0 ? w->image_capacity : PIECE;
    char *wider = NULL;
    if (!cv_add_size(w->image_n, more, &need) || need > SIZE_MAX / 4)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: the tokens of a text");
    if (need <= w->image_capacity) return CORVID_OK;
    while (capacity < need)
        capacity *= 2;
    CV_TRY(cv_alloc_or_fail(w->mem, capacity, 1, "the tokens of a text", (void **)&wider, err));
    if (w->image_n > 0) memcpy(wider, w->image, w->image_n);
    cv_free(w->mem, w->image);
    w->image = wider;
    w->image_capacity = capacity;
    return CORVID_OK;
}

static corvid_status put(cv_token_writer *w, const void *bytes, size_t n, corvid_error *err)
{
    if (w->out) return cv_output_write(w->out, bytes, n, err);
    if (n == 0) return CORVID_OK;
    CV_TRY(grow_image(w, n, err));
    memcpy(w->image + w->image_n, bytes, n);
    w->image_n += n;
    return CORVID_OK;
}

corvid_status cv_token_writer_open(const corvid_allocator *mem, const char *path,
                                   const cv_token_key *key, cv_token_writer *w, corvid_error *err)
{
    header h = { .version = VERSION, .key = *key };
    corvid_status status = CORVID_OK;
    *w = (cv_token_writer){ .mem = mem, .token_bytes = bytes_of_id(key->vocabulary_size) };
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    h.token_bytes = (uint32_t)w->token_bytes;
    if (path) {
        CV_TRY(cv_alloc_or_fail(mem, 1, sizeof *w->out, "writing a token cache", (void **)&w->out,
                                err));
        memset(w->out, 0, sizeof *w->out);
        status = cv_output_create(w->out, path, err);
    }
    if (status == CORVID_OK) status = put(w, &h, sizeof h, err);
    if (status != CORVID_OK) cv_token_writer_discard(w);
    return status;
}

corvid_status cv_token_writer_ids(cv_token_writer *w, const int32_t *ids, size_t n,
                                  corvid_error *err)
{
    unsigned char packed[4096];
    const size_t most = sizeof packed / w->token_bytes;
    for (size_t done = 0; done < n;) {
        const size_t part = n - done < most ? n - done : most;
        for (size_t i = 0; i < part; i++) {
            const uint32_t id = (uint32_t)ids[done + i];
            const uint16_t narrow = (uint16_t)id;
            if (w->token_bytes == 2)
                memcpy(packed + 2 * i, &narrow, 2);
            else
                memcpy(packed + 4 * i, &id, 4);
        }
        CV_TRY(put(w, packed, part * w->token_bytes, err));
        done += part;
    }
    w->n_tokens += n;
    return CORVID_OK;
}

static corvid_status push_start(cv_token_writer *w, corvid_error *err)
{
    if (w->n_documents == w->starts_capacity) {
        const size_t capacity = w->starts_capacity > 0 ? 2 * w->starts_capacity : 256;
        uint64_t *wider = NULL;
        CV_TRY(cv_alloc_or_fail(w->mem, capacity, sizeof *wider, "the documents of a text",
                                (void **)&wider, err));
        if (w->n_documents > 0) memcpy(wider, w->starts, w->n_documents * sizeof *wider);
        cv_free(w->mem, w->starts);
        w->starts = wider;
        w->starts_capacity = capacity;
    }
    w->starts[w->n_documents++] = w->n_tokens;
    return CORVID_OK;
}

corvid_status cv_token_writer_document(cv_token_writer *w, corvid_error *err)
{
    const int32_t separator = CV_TOKEN_SEPARATOR;
    if (w->n_documents > 0) CV_TRY(cv_token_writer_ids(w, &separator, 1, err));
    return push_start(w, err);
}

corvid_status cv_token_writer_finish(cv_token_writer *w, uint64_t source_bytes, char **image,
                                     size_t *n, corvid_error *err)
{
    static const char zeros[8];
    const size_t odd = (size_t)(w->n_tokens * w->token_bytes % 8);
    tail t = { .n_tokens = w->n_tokens,
               .n_documents = w->n_documents,
               .source_bytes = source_bytes };
    corvid_status status = put(w, zeros, odd ? 8 - odd : 0, err);
    if (status == CORVID_OK) status = put(w, w->starts, w->n_documents * sizeof *w->starts, err);
    if (status == CORVID_OK) status = put(w, &t, sizeof t - sizeof t.checksum, err);
    if (status == CORVID_OK) {
        t.checksum = w->out ? cv_output_checksum(w->out) : XXH3_64bits(w->image, w->image_n);
        status = put(w, &t.checksum, sizeof t.checksum, err);
    }
    if (status == CORVID_OK && w->out) status = cv_output_commit(w->out, err);
    if (status == CORVID_OK && !w->out) {
        *image = w->image;
        *n = w->image_n;
        w->image = NULL;
    }
    cv_token_writer_discard(w);
    return status;
}

void cv_token_writer_discard(cv_token_writer *w)
{
    if (!w->mem) return;
    if (w->out) cv_output_discard(w->out);
    cv_free(w->mem, w->out);
    cv_free(w->mem, w->image);
    cv_free(w->mem, w->starts);
    *w = (cv_token_writer){ .mem = NULL };
}
