/* trie.c - building and walking the byte trie.
 *
 * Building sorts nothing beforehand: each node owns a range of the list of ids, and its turn in the
 * breadth-first queue splits that range by the next byte.  The work is one visit per byte of all
 * strings, whatever they are. */
#include "text/trie.h"

#include <string.h>

/* Below this many nodes the table of first two bytes would be larger than the trie. */
#define SMALL_SET 16384

typedef struct build_node {
    uint32_t lo, hi; /* the ids that pass through this node */
    uint32_t depth;
    uint32_t first;
    int32_t value;
    unsigned char label;
} build_node;

typedef struct builder {
    const corvid_allocator *mem;
    const cv_pieces *pieces;
    build_node *node;
    size_t n, capacity;
    int32_t *order, *spare; /* the list of ids, and room to distribute it */
    int32_t twin;
} builder;

static corvid_status add_node(builder *b, size_t lo, size_t hi, size_t depth, unsigned char label,
                              corvid_error *err)
{
    if (b->n == b->capacity) {
        build_node *more = NULL;
        CV_TRY(cv_alloc_or_fail(b->mem, b->capacity * 2, sizeof *more, "a vocabulary's trie",
                                (void **)&more, err));
        memcpy(more, b->node, b->n * sizeof *more);
        cv_free(b->mem, b->node);
        b->node = more;
        b->capacity *= 2;
    }
    b->node[b->n++] = (build_node){ .lo = (uint32_t)lo,
                                    .hi = (uint32_t)hi,
                                    .depth = (uint32_t)depth,
                                    .value = -1,
                                    .label = label };
    return CORVID_OK;
}

static unsigned char byte_at(const builder *b, int32_t id, size_t depth)
{
    return (unsigned char)b->pieces->bytes[b->pieces->start[id] + depth];
}

/* Removes the ids whose string ends at this node from its range; returns the new upper end. */
static size_t take_ending(builder *b, build_node *node)
{
    size_t kept = node->lo;
    for (size_t i = node->lo; i < node->hi; i++) {
        const int32_t id = b->order[i];
        size_t length;
        cv_piece(b->pieces, id, &length);
        if (length > node->depth) {
            b->order[kept++] = id;
        } else if (node->value < 0) {
            node->value = id;
        } else {
            b->twin = id > node->value ? id : node->value;
            node->value = id < node->value ? id : node->value;
        }
    }
    return kept;
}

static void sort_few(builder *b, size_t lo, size_t hi, size_t depth)
{
    for (size_t i = lo + 1; i < hi; i++) {
        const int32_t id = b->order[i];
        const unsigned char byte = byte_at(b, id, depth);
        size_t j = i;
        for (; j > lo && byte_at(b, b->order[j - 1], depth) > byte; j--)
            b->order[j] = b->order[j - 1];
        b->order[j] = id;
    }
}

static void sort_many(builder *b, size_t lo, size_t hi, size_t depth)
{
    size_t end[257] = { 0 };
    for (size_t i = lo; i < hi; i++)
        end[byte_at(b, b->order[i], depth) + 1]++;
    for (size_t c = 0; c < 256; c++)
        end[c + 1] += end[c];
    for (size_t i = lo; i < hi; i++)
        b->spare[end[byte_at(b, b->order[i], depth)]++] = b->order[i];
    memcpy(b->order + lo, b->spare, (hi - lo) * sizeof *b->order);
}

static corvid_status split_node(builder *b, size_t v, corvid_error *err)
{
    const size_t lo = b->node[v].lo, depth = b->node[v].depth;
    const size_t hi = take_ending(b, &b->node[v]);
    if (hi - lo > 24)
        sort_many(b, lo, hi, depth);
    else
        sort_few(b, lo, hi, depth);
    b->node[v].first = (uint32_t)b->n;
    for (size_t i = lo; i < hi;) {
        const unsigned char label = byte_at(b, b->order[i], depth);
        size_t j = i + 1;
        while (j < hi && byte_at(b, b->order[j], depth) == label)
            j++;
        CV_TRY(add_node(b, i, j, depth + 1, label, err));
        i = j;
    }
    return CORVID_OK;
}

static uint32_t child(const cv_trie *trie, uint32_t v, unsigned char byte)
{
    uint32_t lo = trie->first[v], hi = trie->first[v + 1];
    while (hi - lo > 4) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (trie->label[mid] <= byte)
            lo = mid;
        else
            hi = mid;
    }
    for (; lo < hi; lo++)
        if (trie->label[lo] == byte) return lo;
    return 0;
}

static void fill_after_one(cv_trie *trie)
{
    memset(trie->after_one, 0, sizeof trie->after_one);
    for (uint32_t v = trie->first[0]; v < trie->first[1]; v++)
        trie->after_one[trie->label[v]] = v;
}

static corvid_status fill_after_two(cv_trie *trie, cv_arena *arena, corvid_error *err)
{
    trie->after_two = NULL;
    if (trie->nodes < SMALL_SET) return CORVID_OK;
    uint32_t *table = NULL;
    CV_TRY(cv_arena_need(arena, 65536, sizeof *table, "a vocabulary's trie", (void **)&table, err));
    for (uint32_t v = trie->first[0]; v < trie->first[1]; v++)
        for (uint32_t w = trie->first[v]; w < trie->first[v + 1]; w++)
            table[(size_t)trie->label[v] << 8 | trie->label[w]] = w;
    trie->after_two = table;
    return CORVID_OK;
}

/* Lays the finished nodes out as three arrays of exactly their size. */
static corvid_status pack(cv_trie *trie, cv_arena *arena, const builder *b, corvid_error *err)
{
    uint32_t *first = NULL;
    int32_t *value = NULL;
    unsigned char *label = NULL;
    const char *what = "a vocabulary's trie";
    CV_TRY(cv_arena_need(arena, b->n + 1, sizeof *first, what, (void **)&first, err));
    CV_TRY(cv_arena_need(arena, b->n, sizeof *value, what, (void **)&value, err));
    CV_TRY(cv_arena_need(arena, b->n, sizeof *label, what, (void **)&label, err));
    for (size_t v = 0; v < b->n; v++) {
        first[v] = b->node[v].first;
        value[v] = b->node[v].value;
        label[v] = b->node[v].label;
    }
    first[b->n] = (uint32_t)b->n;
    trie->first = first;
    trie->value = value;
    trie->label = label;
    trie->nodes = b->n;
    fill_after_one(trie);
    return fill_after_two(trie, arena, err);
}

corvid_status cv_trie_build(cv_trie *trie, cv_arena *arena, const cv_pieces *pieces,
                            const int32_t *ids, size_t n, int32_t *twin, corvid_error *err)
{
    builder b = { .mem = arena->mem, .pieces = pieces, .capacity = 2 * n + 64, .twin = -1 };
    corvid_status status;
    const char *what = "a vocabulary's trie";
    status = cv_alloc_or_fail(b.mem, b.capacity, sizeof *b.node, what, (void **)&b.node, err);
    if (status != CORVID_OK) goto done;
    status = cv_alloc_or_fail(b.mem, n + 1, sizeof *b.order, what, (void **)&b.order, err);
    if (status != CORVID_OK) goto done;
    status = cv_alloc_or_fail(b.mem, n + 1, sizeof *b.spare, what, (void **)&b.spare, err);
    if (status != CORVID_OK) goto done;
    if (n > 0) memcpy(b.order, ids, n * sizeof *ids);
    status = add_node(&b, 0, n, 0, 0, err);
    for (size_t v = 0; v < b.n && status == CORVID_OK; v++)
        status = split_node(&b, v, err);
    if (status == CORVID_OK) status = pack(trie, arena, &b, err);
    if (twin) *twin = b.twin;
done:
    cv_free(b.mem, b.node);
    cv_free(b.mem, b.order);
    cv_free(b.mem, b.spare);
    return status;
}

/* The node after the first bytes, through the tables; *depth says how many they were.  0 when
 * nothing goes on; then *id is still that of the one byte, if that is a string. */
static uint32_t enter(const cv_trie *trie, const unsigned char *bytes, size_t n, size_t *depth)
{
    *depth = 1;
    if (n < 2 || !trie->after_two) return trie->after_one[bytes[0]];
    const uint32_t v = trie->after_two[(size_t)bytes[0] << 8 | bytes[1]];
    if (v == 0) return trie->after_one[bytes[0]];
    *depth = 2;
    return v;
}

size_t cv_trie_longest(const cv_trie *trie, const char *text, size_t n, int32_t *id)
{
    if (n == 0) return 0;
    const unsigned char *bytes = (const unsigned char *)text;
    size_t depth, best = 0;
    uint32_t v = enter(trie, bytes, n, &depth);
    if (depth == 2) {
        const int32_t value = trie->value[trie->after_one[bytes[0]]];
        if (value >= 0) {
            *id = value;
            best = 1;
        }
    }
    while (v != 0) {
        if (trie->value[v] >= 0) {
            *id = trie->value[v];
            best = depth;
        }
        if (depth == n) break;
        v = child(trie, v, bytes[depth++]);
    }
    return best;
}

int32_t cv_trie_find(const cv_trie *trie, const char *text, size_t n)
{
    if (n == 0) return -1;
    const unsigned char *bytes = (const unsigned char *)text;
    size_t depth;
    uint32_t v = enter(trie, bytes, n, &depth);
    while (v != 0 && depth < n)
        v = child(trie, v, bytes[depth++]);
    return v == 0 ? -1 : trie->value[v];
}
