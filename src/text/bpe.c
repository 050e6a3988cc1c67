/* bpe.c - byte-pair encoding of a text with a vocabulary that bpe_file.c has read.  [tok.bpe]
 *
 * The stages: bytes that are not UTF-8 replaced; added tokens of the raw text; normal form C; added
 * tokens of the normal form; words; merges by rank inside each word.  A word that is a token, and
 * whose bytes the merges lead to that token, is looked up; `whole` says of which tokens that holds.
 * Other words keep a heap of the merges that are possible, O(n log n) for n bytes. */
#include <string.h>

#include "text/kinds.h"
#include "text/utf8.h"
#include "text/words.h"

/* ---- merging one word ----------------------------------------------------------------------- */

typedef struct symbol {
    int32_t id; /* -1 once it is part of the symbol on its left */
    int32_t before, after;
} symbol;

/* Scratch for one word, reused for the next. */
typedef struct merger {
    const cv_bpe *bpe;
    const corvid_allocator *mem;
    symbol *symbols;
    uint64_t *heap; /* rank, then position: the smallest on top */
    size_t n_heap, capacity;
    symbol few_symbols[64];
    uint64_t few_heap[192];
} merger;

static void merger_open(merger *m, const cv_bpe *bpe, const corvid_allocator *mem)
{
    m->bpe = bpe;
    m->mem = mem;
    m->symbols = m->few_symbols;
    m->heap = m->few_heap;
    m->n_heap = 0;
    m->capacity = sizeof m->few_symbols / sizeof m->few_symbols[0];
}

static void merger_close(merger *m)
{
    if (m->symbols != m->few_symbols) cv_free(m->mem, m->symbols);
    if (m->heap != m->few_heap) cv_free(m->mem, m->heap);
}

/* Room for a word of n bytes: one symbol each, and in the heap one pair per neighbours at the start
 * plus at most two per merge, that is less than 3 n. */
static corvid_status merger_reserve(merger *m, size_t n, corvid_error *err)
{
    if (n <= m->capacity) return CORVID_OK;
    const size_t capacity = n + n / 2;
    symbol *symbols = NULL;
    uint64_t *heap = NULL;
    if (n > INT32_MAX / 4)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "the text holds %zu bytes without a break, expected at most %d", n,
                       INT32_MAX / 4);
    CV_TRY(
        cv_alloc_or_fail(m->mem, capacity, sizeof *symbols, "a long word", (void **)&symbols, err));
    const corvid_status status =
        cv_alloc_or_fail(m->mem, capacity, 3 * sizeof *heap, "a long word", (void **)&heap, err);
    if (status != CORVID_OK) {
        cv_free(m->mem, symbols);
        return status;
    }
    merger_close(m);
    m->symbols = symbols;
    m->heap = heap;
    m->capacity = capacity;
    return CORVID_OK;
}

static void heap_push(merger *m, uint64_t key)
{
    size_t i = m->n_heap++;
    while (i > 0 && m->heap[(i - 1) / 2] > key) {
        m->heap[i] = m->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    m->heap[i] = key;
}

static uint64_t heap_pop(merger *m)
{
    const uint64_t top = m->heap[0], key = m->heap[--m->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < m->n_heap; i = child) {
        if (child + 1 < m->n_heap && m->heap[child + 1] < m->heap[child]) child++;
        if (m->heap[child] >= key) break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = key;
    return top;
}

/* The rank of the merge of two ids, or UINT32_MAX.  The search halves without a branch: which half
 * it takes cannot be predicted. */
static uint32_t rank_of(const cv_bpe *bpe, int32_t left, int32_t right)
{
    const uint32_t lo = bpe->first[left];
    size_t n = bpe->first[left + 1] - lo;
    if (n == 0) return UINT32_MAX;
    const int32_t *at = bpe->right + lo;
    while (n > 1) {
        const size_t half = n / 2;
        at = at[half] <= right ? at + half : at;
        n -= half;
    }
    return *at == right ? bpe->rank[at - bpe->right] : UINT32_MAX;
}

/* Puts the pair of position i and its neighbour on the heap if they merge. */
static void offer(merger *m, int32_t i)
{
    if (i < 0 || m->symbols[i].after < 0) return;
    const uint32_t rank = rank_of(m->bpe, m->symbols[i].id, m->symbols[m->symbols[i].after].id);
    if (rank != UINT32_MAX) heap_push(m, (uint64_t)rank << 32 | (uint32_t)i);
}

/* One symbol per byte; bytes without a token are left out, their neighbours meet. */
static int32_t place_symbols(merger *m, const char *word, size_t n)
{
    int32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const int32_t id = m->bpe->byte_id[(unsigned char)word[i]];
        if (id < 0) continue;
        m->symbols[count] = (symbol){ .id = id, .before = count - 1, .after = count + 1 };
        count++;
    }
    if (count > 0) m->symbols[count - 1].after = -1;
    return count;
}

static void merge_pair(merger *m, int32_t i, int32_t result)
{
    symbol *s = m->symbols;
    const int32_t gone = s[i].after, after = s[gone].after;
    s[i].id = result;
    s[i].after = after;
    s[gone].id = -1;
    if (after >= 0) s[after].before = i;
    offer(m, s[i].before);
    offer(m, i);
}

/* Merges the word; afterwards its tokens are the chain that begins at symbol 0.  Returns the number
 * of symbols at the start, 0 when no byte has a token. */
static int32_t merge_word(merger *m, const char *word, size_t n)
{
    const int32_t count = place_symbols(m, word, n);
    m->n_heap = 0;
    for (int32_t i = 0; i < count; i++)
        offer(m, i);
    while (m->n_heap > 0) {
        const uint64_t top = heap_pop(m);
        const int32_t i = (int32_t)(top & UINT32_MAX);
        const cv_merge *merge = &m->bpe->merges[top >> 32];
        const symbol *s = &m->symbols[i];
        if (s->id != merge->left || s->after < 0 || m->symbols[s->after].id != merge->right)
            continue; /* one of the two has been merged since */
        merge_pair(m, i, merge->result);
    }
    return count;
}

static corvid_status encode_word(merger *m, const cv_bpe *bpe, const char *word, size_t n,
                                 cv_ids *ids, corvid_error *err)
{
    const int32_t id = cv_trie_find(&bpe->tokens, word, n);
    if (id >= 0 && bpe->whole[id]) return cv_ids_push(ids, id, err);
    CV_TRY(merger_reserve(m, n, err));
    if (merge_word(m, word, n) == 0) return CORVID_OK;
    for (int32_t i = 0; i >= 0; i = m->symbols[i].after)
        CV_TRY(cv_ids_push(ids, m->symbols[i].id, err));
    return CORVID_OK;
}

/* ---- the index of the merges ---------------------------------------------------------------- */

/* A stable counting sort of the ranks in `from` by one of the two ids; start has ids + 1 zeros. */
static void sort_ranks(const cv_merge *merges, bool by_left, const uint32_t *from, uint32_t *to,
                       size_t n, uint32_t *start, size_t n_ids)
{
    for (size_t i = 0; i < n; i++)
        start[by_left ? merges[i].left : merges[i].right]++;
    uint32_t sum = 0;
    for (size_t id = 0; id < n_ids; id++) {
        const uint32_t count = start[id];
        start[id] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++) {
        const cv_merge *merge = &merges[from[i]];
        to[start[by_left ? merge->left : merge->right]++] = from[i];
    }
}

/* first, right and rank from ranks sorted by (left, right). */
static void fill_index(cv_bpe *bpe, const uint32_t *sorted, size_t n_ids)
{
    size_t at = 0;
    for (size_t id = 0; id < n_ids; id++) {
        bpe->first[id] = (uint32_t)at;
        while (at < bpe->n_merges && (size_t)bpe->merges[sorted[at]].left == id) {
            bpe->right[at] = bpe->merges[sorted[at]].right;
            bpe->rank[at] = sorted[at];
            at++;
        }
    }
    bpe->first[n_ids] = (uint32_t)at;
}

/* Which tokens are what their own bytes encode to: for those a word needs no merging. */
static corvid_status fill_whole(cv_tokenizer *tok, corvid_error *err)
{
    cv_bpe *bpe = &tok->as.bpe;
    merger m;
    corvid_status status = CORVID_OK;
    merger_open(&m, bpe, tok->arena.mem);
    for (size_t id = 0; id < tok->pieces.n; id++) {
        size_t n;
        const char *bytes = cv_piece(&tok->pieces, (int32_t)id, &n);
        if (cv_trie_find(&bpe->tokens, bytes, n) != (int32_t)id) continue;
        status = merger_reserve(&m, n, err);
        if (status != CORVID_OK) break;
        bpe->whole[id] = merge_word(&m, bytes, n) > 0 && m.symbols[0].id == (int32_t)id &&
                         m.symbols[0].after < 0;
    }
    merger_close(&m);
    return status;
}

corvid_status cv_bpe_index(cv_tokenizer *tok, corvid_error *err)
{
    cv_bpe *bpe = &tok->as.bpe;
    const corvid_allocator *mem = tok->arena.mem;
    const size_t n = bpe->n_merges, n_ids = tok->pieces.n;
    const char *what = "a vocabulary's merges";
    uint32_t *scratch = NULL;
    CV_TRY(
        cv_arena_need(&tok->arena, n_ids + 1, sizeof *bpe->first, what, (void **)&bpe->first, err));
    CV_TRY(cv_arena_need(&tok->arena, n, sizeof *bpe->right, what, (void **)&bpe->right, err));
    CV_TRY(cv_arena_need(&tok->arena, n, sizeof *bpe->rank, what, (void **)&bpe->rank, err));
    CV_TRY(cv_arena_need(&tok->arena, n_ids, 1, what, (void **)&bpe->whole, err));
    CV_TRY(cv_alloc_or_fail(mem, 2 * n + n_ids + 1, sizeof *scratch, what, (void **)&scratch, err));
    uint32_t *by_right = scratch, *sorted = scratch + n, *start = scratch + 2 * n;
    for (size_t i = 0; i < n; i++)
        sorted[i] = (uint32_t)i;
    memset(start, 0, n_ids * sizeof *start);
    sort_ranks(bpe->merges, false, sorted, by_right, n, start, n_ids);
    memset(start, 0, n_ids * sizeof *start);
    sort_ranks(bpe->merges, true, by_right, sorted, n, start, n_ids);
    fill_index(bpe, sorted, n_ids);
    cv_free(mem, scratch);
    return fill_whole(tok, err);
}

/* ---- a text --------------------------------------------------------------------------------- */

typedef struct encoder {
    const cv_bpe *bpe;
    cv_ids *ids;
    corvid_error *err;
    merger merger;
} encoder;

/* The first added token at or behind `from`: where it begins (n when there is none), its length
 * and its id.  At one place the longest counts. */
static size_t next_added(const cv_trie *added, const char *text, size_t n, size_t from,
                         size_t *length, int32_t *id)
{
    *length = 0;
    if (added->nodes <= 1) return n;
    for (size_t i = from; i < n; i++) {
        if (added->after_one[(unsigned char)text[i]] == 0) continue;
        *length = cv_trie_longest(added, text + i, n - i, id);
        if (*length > 0) return i;
    }
    return n;
}

static corvid_status encode_words(encoder *e, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        const size_t length = cv_word_length(text + i, n - i);
        CV_TRY(encode_word(&e->merger, e->bpe, text + i, length, e->ids, e->err));
        i += length;
    }
    return CORVID_OK;
}

static corvid_status encode_normal(encoder *e, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t length;
        int32_t id = -1;
        const size_t at = next_added(&e->bpe->normal_added, text, n, i, &length, &id);
        CV_TRY(encode_words(e, text + i, at - i));
        if (length > 0) CV_TRY(cv_ids_push(e->ids, id, e->err));
        i = at + length;
    }
    return CORVID_OK;
}

static corvid_status normalise_and_encode(encoder *e, const char *text, size_t n)
{
    if (!e->bpe->nfc || n == 0) return encode_normal(e, text, n);
    const corvid_allocator *mem = e->ids->mem;
    const char *normal;
    size_t normal_n;
    char *owned;
    CV_TRY(cv_nfc(mem, text, n, &normal, &normal_n, &owned, e->err));
    const corvid_status status = encode_normal(e, normal, normal_n);
    cv_free(mem, owned);
    return status;
}

static corvid_status encode_valid(encoder *e, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t length;
        int32_t id = -1;
        const size_t at = next_added(&e->bpe->raw_added, text, n, i, &length, &id);
        CV_TRY(normalise_and_encode(e, text + i, at - i));
        if (length > 0) CV_TRY(cv_ids_push(e->ids, id, e->err));
        i = at + length;
    }
    return CORVID_OK;
}

corvid_status cv_bpe_encode(const cv_tokenizer *tok, const char *text, size_t n, cv_ids *ids,
                            corvid_error *err)
{
    encoder e = { .bpe = &tok->as.bpe, .ids = ids, .err = err };
    corvid_status status;
    char *repaired = NULL;
    if (!cv_utf8_valid(text, n)) {
        CV_TRY(cv_alloc_or_fail(ids->mem, n, 3, "a repaired text", (void **)&repaired, err));
        n = cv_utf8_repair(text, n, repaired);
        text = repaired;
    }
    merger_open(&e.merger, e.bpe, ids->mem);
    status = encode_valid(&e, text, n);
    merger_close(&e.merger);
    cv_free(ids->mem, repaired);
    return status;
}
