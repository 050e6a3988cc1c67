/* bpe_file.c - reads a tokenizer.json of the GPT-NeoX family.  [tok.bpe]
 *
 * What it does not read it refuses by name (another normaliser, another pre-tokenizer, options of
 * the model that change ids), because a text with wrong ids gives garbage without a message.
 * Jansson allocates from the C library; all that stays is in the tokenizer's arena. */
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/codepoint.h"
#include "text/kinds.h"
#include "text/utf8.h"
#include "text/words.h"

/* What is known of an id while the file is read. */
typedef struct draft {
    const char *text;    /* NULL: no token.  Lives in the JSON, or in the tokenizer's arena */
    bool literal;        /* the bytes are the text itself, not letters that stand for bytes */
    unsigned char added; /* 0, or one of the two below */
} draft;

enum { ADDED_RAW = 1, ADDED_NORMAL = 2 };

typedef struct reader {
    cv_tokenizer *tok;
    const char *name;
    const json_t *model, *vocab, *merges, *added;
    draft *drafts; /* [n_ids] */
    size_t n_ids;
    corvid_error *err;
} reader;

static corvid_status refuse(const reader *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* CORVID_E_FORMAT with the file's name in front.  The file's own words, which the format shortens
 * by bytes, are repaired: an error's text is UTF-8. */
static corvid_status refuse(const reader *r, const char *format, ...)
{
    char text[480], repaired[3 * sizeof text];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    repaired[cv_utf8_repair(text, strlen(text), repaired)] = '\0';
    return cv_fail(r->err, CORVID_E_FORMAT, "%.512s: %s", r->name, repaired);
}

/* ---- the alphabet --------------------------------------------------------------------------- */

/* The byte that a letter of the vocabulary's alphabet stands for, or -1.  Printable characters of
 * Latin-1 stand for themselves, the 68 others in order for U+0100 and on. */
static int byte_of_letter(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF))
        return (int)c;
    if (c < 0x100 || c > 0x143) return -1;
    c -= 0x100;
    if (c <= 0x20) return (int)c;
    return c < 67 ? (int)(0x7F + c - 33) : 0xAD;
}

/* The bytes that n bytes of letters stand for, at most n of them; false when there is another
 * character among them.  out may be NULL. */
static bool bytes_of_letters(const char *text, size_t n, char *out, size_t *out_n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; count++) {
        uint32_t c;
        const size_t length = cv_codepoint_read(text + i, n - i, &c);
        const int byte = length > 0 ? byte_of_letter(c) : -1;
        if (byte < 0) return false;
        if (out) out[count] = (char)byte;
        i += length;
    }
    *out_n = count;
    return true;
}

/* ---- options that must be what we do -------------------------------------------------------- */

static bool is_absent(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_number(value) && !(json_number_value(value) > 0));
}

static const char *type_of(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "?";
}

static corvid_status check_model(const reader *r)
{
    static const char *const options[] = { "dropout",       "unk_token",
                                           "byte_fallback", "continuing_subword_prefix",
                                           "ignore_merges", "end_of_word_suffix" };
    if (json_object_get(r->model, "type") && strcmp(type_of(r->model), "BPE") != 0)
        return refuse(r,
                      "model.type is \"%.40s\", expected \"BPE\"; this is not a tokenizer of the "
                      "GPT-NeoX family",
                      type_of(r->model));
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (!is_absent(json_object_get(r->model, options[i])))
            return refuse(r, "model.%s is set, expected null: this option is not supported",
                          options[i]);
    return CORVID_OK;
}

static corvid_status check_stages(reader *r, const json_t *root)
{
    const json_t *normalizer = json_object_get(root, "normalizer");
    const json_t *words = json_object_get(root, "pre_tokenizer");
    const json_t *regex = json_object_get(words, "use_regex");
    r->tok->as.bpe.nfc = !is_absent(normalizer);
    if (!is_absent(normalizer) && strcmp(type_of(normalizer), "NFC") != 0)
        return refuse(r, "normalizer.type is \"%.40s\", expected \"NFC\" or no normalizer",
                      type_of(normalizer));
    if (strcmp(type_of(words), "ByteLevel") != 0)
        return refuse(r,
                      "pre_tokenizer.type is \"%.40s\", expected \"ByteLevel\"; this is not a "
                      "tokenizer of the GPT-NeoX family",
                      type_of(words));
    if (!is_absent(json_object_get(words, "add_prefix_space")))
        return refuse(r, "pre_tokenizer.add_prefix_space is set, expected false");
    if (regex && !json_is_true(regex))
        return refuse(r, "pre_tokenizer.use_regex is not true, expected true");
    return CORVID_OK;
}

static corvid_status find_parts(reader *r, const json_t *root)
{
    if (!json_is_object(root)) return refuse(r, "expected a JSON object {\"model\": ...}");
    r->model = json_object_get(root, "model");
    r->vocab = json_object_get(r->model, "vocab");
    r->merges = json_object_get(r->model, "merges");
    r->added = json_object_get(root, "added_tokens");
    if (!json_is_object(r->model))
        return refuse(r, "no object \"model\"; is this a tokenizer.json?");
    CV_TRY(check_model(r));
    CV_TRY(check_stages(r, root));
    if (!json_is_object(r->vocab) || json_object_size(r->vocab) == 0)
        return refuse(r, "model.vocab: expected an object of tokens and ids");
    if (!json_is_array(r->merges)) return refuse(r, "model.merges: expected an array of pairs");
    if (json_array_size(r->merges) > CV_TOKEN_IDS)
        return refuse(r, "model.merges has %zu pairs, expected at most %zu",
                      json_array_size(r->merges), CV_TOKEN_IDS);
    if (r->added && !json_is_null(r->added) && !json_is_array(r->added))
        return refuse(r, "added_tokens: expected an array");
    return CORVID_OK;
}

/* ---- ids ------------------------------------------------------------------------------------ */

/* A JSON value as an id below the bound; `where` names it. */
static corvid_status read_id(reader *r, const json_t *value, const char *where, const char *key,
                             size_t *id)
{
    if (!json_is_integer(value))
        return refuse(r, "%s[\"%.80s\"]: expected an integer id", where, key);
    const json_int_t n = json_integer_value(value);
    if (n < 0 || (uint64_t)n >= CV_TOKEN_IDS)
        return refuse(r, "%s[\"%.80s\"]: id %lld, expected 0 to %zu", where, key, (long long)n,
                      CV_TOKEN_IDS - 1);
    *id = (size_t)n;
    if (*id >= r->n_ids) r->n_ids = *id + 1;
    return CORVID_OK;
}

static corvid_status check_size(reader *r, const char *where, const char *key)
{
    const size_t n = strlen(key);
    if (n >= 1 && n <= CV_TOKEN_BYTES) return CORVID_OK;
    return refuse(r, "%s[\"%.80s\"]: the token has %zu bytes, expected 1 to %zu", where, key, n,
                  CV_TOKEN_BYTES);
}

/* Iterates the vocabulary twice: for the largest id, then for the texts. */
static corvid_status scan_vocab(reader *r)
{
    const char *key;
    json_t *value;
    size_t id;
    json_object_foreach((json_t *)(uintptr_t)r->vocab, key, value)
    {
        CV_TRY(read_id(r, value, "model.vocab", key, &id));
        CV_TRY(check_size(r, "model.vocab", key));
    }
    return CORVID_OK;
}

static corvid_status draft_vocab(reader *r)
{
    const char *key;
    json_t *value;
    size_t id, n;
    json_object_foreach((json_t *)(uintptr_t)r->vocab, key, value)
    {
        CV_TRY(read_id(r, value, "model.vocab", key, &id));
        draft *d = &r->drafts[id];
        if (d->text)
            return refuse(r,
                          "model.vocab[\"%.80s\"]: id %zu is that of \"%.80s\" too, expected "
                          "different ids",
                          key, id, d->text);
        d->text = key;
        d->literal = !bytes_of_letters(key, strlen(key), NULL, &n);
    }
    return CORVID_OK;
}

/* ---- added tokens --------------------------------------------------------------------------- */

static corvid_status scan_added(reader *r)
{
    for (size_t i = 0; i < json_array_size(r->added); i++) {
        static const char *const options[] = { "single_word", "lstrip", "rstrip" };
        const json_t *token = json_array_get(r->added, i);
        const char *content = json_string_value(json_object_get(token, "content"));
        size_t id;
        if (!content)
            return refuse(r, "added_tokens[%zu]: expected an object with the string \"content\"",
                          i);
        CV_TRY(check_size(r, "added_tokens", content));
        CV_TRY(read_id(r, json_object_get(token, "id"), "added_tokens", content, &id));
        for (size_t k = 0; k < sizeof options / sizeof options[0]; k++)
            if (!is_absent(json_object_get(token, options[k])))
                return refuse(r,
                              "added_tokens[%zu]: %s is set, expected false: it is not supported",
                              i, options[k]);
    }
    return CORVID_OK;
}

/* A text that stays for the tokenizer's life, in normal form where the token is found in such. */
static corvid_status keep_content(reader *r, const char *content, bool normal, const char **out)
{
    const corvid_allocator *mem = r->tok->arena.mem;
    size_t n = strlen(content);
    char *owned = NULL;
    if (normal) CV_TRY(cv_nfc(mem, content, n, &content, &n, &owned, r->err));
    *out = cv_arena_text(&r->tok->arena, content, n);
    cv_free(mem, owned);
    if (*out) return CORVID_OK;
    return cv_fail(r->err, CORVID_E_MEMORY, "out of memory: %zu bytes for an added token", n);
}

static corvid_status draft_added(reader *r)
{
    for (size_t i = 0; i < json_array_size(r->added); i++) {
        const json_t *token = json_array_get(r->added, i);
        const json_t *normalized = json_object_get(token, "normalized");
        const char *content = json_string_value(json_object_get(token, "content"));
        const size_t id = (size_t)json_integer_value(json_object_get(token, "id"));
        const json_t *known = json_object_get(r->vocab, content);
        const bool raw = normalized ? !json_is_true(normalized)
                                    : json_is_true(json_object_get(token, "special"));
        draft *d = &r->drafts[id];
        if (known && (size_t)json_integer_value(known) != id)
            return refuse(r, "added_tokens[%zu]: \"%.80s\" has id %zu, but id %lld in model.vocab",
                          i, content, id, (long long)json_integer_value(known));
        if (d->added || (d->text && !known))
            return refuse(r, "added_tokens[%zu]: id %zu is that of \"%.80s\" already", i, id,
                          d->text);
        CV_TRY(keep_content(r, content, !raw && r->tok->as.bpe.nfc, &d->text));
        d->literal = true;
        d->added = raw ? ADDED_RAW : ADDED_NORMAL;
    }
    return CORVID_OK;
}

/* ---- the tokenizer -------------------------------------------------------------------------- */

static corvid_status lay_out(reader *r)
{
    cv_pieces *p = &r->tok->pieces;
    const char *what = "a vocabulary";
    size_t total = 0;
    for (size_t id = 0; id < r->n_ids; id++)
        total += r->drafts[id].text ? strlen(r->drafts[id].text) : 0;
    CV_TRY(cv_arena_need(&r->tok->arena, total, 1, what, (void **)&p->bytes, r->err));
    CV_TRY(cv_arena_need(&r->tok->arena, r->n_ids + 1, sizeof *p->start, what, (void **)&p->start,
                         r->err));
    size_t at = 0;
    for (size_t id = 0; id < r->n_ids; id++) {
        const draft *d = &r->drafts[id];
        size_t n = d->text ? strlen(d->text) : 0;
        p->start[id] = (uint32_t)at;
        if (d->text && d->literal)
            memcpy(p->bytes + at, d->text, n);
        else if (d->text)
            (void)bytes_of_letters(d->text, n, p->bytes + at, &n);
        at += n;
    }
    p->start[r->n_ids] = (uint32_t)at;
    p->n = r->n_ids;
    return CORVID_OK;
}

/* Which ids a trie is made of: added == 0 asks for the vocabulary, found by the letters' bytes. */
static bool belongs(const reader *r, size_t id, unsigned char added)
{
    const draft *d = &r->drafts[id];
    if (added != 0) return d->added == added;
    return d->text && !d->literal;
}

static corvid_status build_trie(reader *r, cv_trie *trie, unsigned char added, int32_t *scratch)
{
    size_t n = 0;
    int32_t twin = -1;
    for (size_t id = 0; id < r->n_ids; id++)
        if (belongs(r, id, added)) scratch[n++] = (int32_t)id;
    CV_TRY(cv_trie_build(trie, &r->tok->arena, &r->tok->pieces, scratch, n, &twin, r->err));
    if (twin < 0) return CORVID_OK;
    return refuse(r, "token %d (\"%.80s\") has the same text as another, expected different ones",
                  (int)twin, r->drafts[twin].text);
}

static corvid_status build_tries(reader *r)
{
    cv_bpe *bpe = &r->tok->as.bpe;
    int32_t *scratch = NULL;
    CV_TRY(cv_alloc_or_fail(r->tok->arena.mem, r->n_ids, sizeof *scratch, "a vocabulary's ids",
                            (void **)&scratch, r->err));
    corvid_status status = build_trie(r, &bpe->tokens, 0, scratch);
    if (status == CORVID_OK) status = build_trie(r, &bpe->raw_added, ADDED_RAW, scratch);
    if (status == CORVID_OK) status = build_trie(r, &bpe->normal_added, ADDED_NORMAL, scratch);
    cv_free(r->tok->arena.mem, scratch);
    for (size_t b = 0; b < 256 && status == CORVID_OK; b++) {
        const char byte = (char)(unsigned char)b;
        bpe->byte_id[b] = cv_trie_find(&bpe->tokens, &byte, 1);
    }
    return status;
}

/* ---- merges --------------------------------------------------------------------------------- */

/* Both forms of a pair: "left right" and ["left", "right"]. */
static corvid_status split_pair(const reader *r, size_t i, const char **left, size_t *left_n,
                                const char **right, size_t *right_n)
{
    const json_t *pair = json_array_get(r->merges, i);
    if (json_is_array(pair) && json_array_size(pair) == 2) {
        *left = json_string_value(json_array_get(pair, 0));
        *right = json_string_value(json_array_get(pair, 1));
        if (!*left || !*right) return refuse(r, "model.merges[%zu]: expected two strings", i);
        *left_n = strlen(*left);
        *right_n = strlen(*right);
        return CORVID_OK;
    }
    const char *text = json_string_value(pair);
    const char *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return refuse(r, "model.merges[%zu]: expected \"left right\" or [\"left\", \"right\"]", i);
    *left = text;
    *left_n = (size_t)(space - text);
    *right = space + 1;
    *right_n = strlen(*right);
    return CORVID_OK;
}

/* The token of n bytes of letters, whose bytes go to out; -1 when there is none. */
static int32_t find_letters(const reader *r, const char *text, size_t n, char *out, size_t *out_n)
{
    *out_n = 0;
    if (n == 0 || n > CV_TOKEN_BYTES || !bytes_of_letters(text, n, out, out_n)) return -1;
    return cv_trie_find(&r->tok->as.bpe.tokens, out, *out_n);
}

static corvid_status read_merge(const reader *r, size_t i, cv_merge *merge)
{
    char bytes[2 * CV_TOKEN_BYTES];
    const char *left = NULL, *right = NULL;
    size_t left_n = 0, right_n = 0, n, m;
    CV_TRY(split_pair(r, i, &left, &left_n, &right, &right_n));
    merge->left = find_letters(r, left, left_n, bytes, &n);
    if (merge->left < 0)
        return refuse(r, "model.merges[%zu]: no token \"%.*s\" in model.vocab", i,
                      left_n < 80 ? (int)left_n : 80, left);
    merge->right = find_letters(r, right, right_n, bytes + n, &m);
    if (merge->right < 0)
        return refuse(r, "model.merges[%zu]: no token \"%.*s\" in model.vocab", i,
                      right_n < 80 ? (int)right_n : 80, right);
    merge->result = cv_trie_find(&r->tok->as.bpe.tokens, bytes, n + m);
    if (merge->result < 0)
        return refuse(
            r, "model.merges[%zu]: no token \"%.*s%.*s\" in model.vocab for the merged pair", i,
            left_n < 80 ? (int)left_n : 80, left, right_n < 80 ? (int)right_n : 80, right);
    return CORVID_OK;
}

static corvid_status read_merges(reader *r)
{
    cv_bpe *bpe = &r->tok->as.bpe;
    const size_t n = json_array_size(r->merges);
    CV_TRY(cv_arena_need(&r->tok->arena, n, sizeof *bpe->merges, "a vocabulary's merges",
                         (void **)&bpe->merges, r->err));
    for (size_t i = 0; i < n; i++)
        CV_TRY(read_merge(r, i, &bpe->merges[i]));
    bpe->n_merges = n;
    return CORVID_OK;
}

/* Two ranks for one pair would leave open which counts. */
static corvid_status check_merges(const reader *r)
{
    const cv_bpe *bpe = &r->tok->as.bpe;
    for (size_t id = 0; id < r->n_ids; id++)
        for (size_t i = bpe->first[id] + (size_t)1; i < bpe->first[id + 1]; i++)
            if (bpe->right[i] == bpe->right[i - 1])
                return refuse(r, "model.merges[%u]: the same pair as model.merges[%u]",
                              bpe->rank[i], bpe->rank[i - 1]);
    return CORVID_OK;
}

/* ---- the file ------------------------------------------------------------------------------- */

static corvid_status read_parts(reader *r, const json_t *root)
{
    CV_TRY(find_parts(r, root));
    CV_TRY(scan_vocab(r));
    CV_TRY(scan_added(r));
    r->drafts = cv_alloc_zero(r->tok->arena.mem, r->n_ids, sizeof *r->drafts);
    if (!r->drafts)
        return cv_fail(r->err, CORVID_E_MEMORY, "out of memory: %zu ids of a vocabulary", r->n_ids);
    CV_TRY(draft_vocab(r));
    CV_TRY(draft_added(r));
    CV_TRY(lay_out(r));
    CV_TRY(build_tries(r));
    CV_TRY(read_merges(r));
    CV_TRY(cv_bpe_index(r->tok, r->err));
    return check_merges(r);
}

corvid_status cv_bpe_fill(cv_tokenizer *tok, const char *json, size_t n, const char *name,
                          corvid_error *err)
{
    reader r = { .tok = tok, .name = name, .err = err };
    json_error_t problem = { .text = "" }; /* Jansson leaves it alone when it cannot even begin */
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &problem);
    if (!root && (problem.text[0] == '\0' || json_error_code(&problem) == json_error_out_of_memory))
        return cv_fail(err, CORVID_E_MEMORY, "%.512s: out of memory while reading JSON", name);
    if (!root)
        return refuse(&r, "line %d, column %d (byte %d): %s; expected a JSON object", problem.line,
                      problem.column, problem.position, problem.text);
    const corvid_status status = read_parts(&r, root);
    cv_free(tok->arena.mem, r.drafts);
    json_decref(root);
    return status;
}
