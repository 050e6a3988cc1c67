/* vocabulary_candidates.c - frequent parts of words, found one byte longer at a time.
 *
 * A part can only be frequent when the part without its last byte is.  So each round extends the
 * frequent parts at all places by one byte, counts, and drops the places whose part has become
 * rare: what is counted shrinks quickly, and no round needs more memory than the places left.
 * A part is a node of a trie kept as parent and byte; a hash table finds the child. */
#include "text/vocabulary_candidates.h"

#include <stdlib.h>
#include <string.h>

#include "text/codepoint.h"

#define ROOT 0u
#define NONE UINT32_MAX

/* A place in the words where a frequent part begins. */
typedef struct place {
    uint32_t position, end; /* end: of its word */
    uint32_t node;          /* the part so far */
    uint32_t child;         /* the part with one byte more: a slot while counting */
    uint64_t count;         /* of its word */
} place;

typedef struct node {
    uint32_t position, length; /* one place where it is */
    uint64_t count;
    uint32_t candidate; /* or NONE */
} node;

/* Children by parent and byte. */
typedef struct slot {
    uint64_t key; /* parent << 8 | byte, plus 1; 0: free */
    uint64_t count;
    uint32_t child;
    uint32_t position;
} slot;

typedef struct table {
    slot *slots;
    size_t n_slots, used;
} table;

typedef struct finder {
    const cv_vocabulary_words *words;
    const corvid_allocator *mem;
    uint64_t seldom;
    place *places;
    size_t n_places;
    node *nodes;
    size_t n_nodes, capacity;
    table kept, round; /* children of all rounds, and those being counted */
    corvid_error *err;
} finder;

/* ---- the hash table ------------------------------------------------------------------------- */

static slot *find_slot(const table *t, uint32_t parent, unsigned char byte)
{
    const uint64_t key = ((uint64_t)parent << 8 | byte) + 1;
    uint64_t hash = key * UINT64_C(0x9E3779B97F4A7C15);
    hash ^= hash >> 32;
    size_t at = (size_t)hash & (t->n_slots - 1);
    while (t->slots[at].key != 0 && t->slots[at].key != key)
        at = (at + 1) & (t->n_slots - 1);
    return &t->slots[at];
}

static slot *add_slot(table *t, uint32_t parent, unsigned char byte)
{
    slot *s = find_slot(t, parent, byte);
    if (s->key == 0) {
        s->key = ((uint64_t)parent << 8 | byte) + 1;
        t->used++;
    }
    return s;
}

/* An empty table for n entries. */
static corvid_status new_table(const corvid_allocator *mem, table *t, size_t n, corvid_error *err)
{
    size_t n_slots = 1024;
    while (n_slots < 2 * n)
        n_slots *= 2;
    if (n_slots > t->n_slots) {
        cv_free(mem, t->slots);
        *t = (table){ .n_slots = 0 };
        CV_TRY(cv_alloc_or_fail(mem, n_slots, sizeof *t->slots, "the parts of words",
                                (void **)&t->slots, err));
        t->n_slots = n_slots;
    }
    memset(t->slots, 0, t->n_slots * sizeof *t->slots);
    t->used = 0;
    return CORVID_OK;
}

static corvid_status room_for_kept(finder *f, size_t more)
{
    table wider = { .n_slots = 0 };
    if (2 * (f->kept.used + more) <= f->kept.n_slots) return CORVID_OK;
    CV_TRY(new_table(f->mem, &wider, 2 * (f->kept.used + more), f->err));
    for (size_t i = 0; i < f->kept.n_slots; i++) {
        const slot *old = &f->kept.slots[i];
        if (old->key == 0) continue;
        const uint64_t key = old->key - 1;
        *add_slot(&wider, (uint32_t)(key >> 8), (unsigned char)key) = *old;
    }
    cv_free(f->mem, f->kept.slots);
    f->kept = wider;
    return CORVID_OK;
}

/* ---- rounds --------------------------------------------------------------------------------- */

static unsigned char byte_of(const finder *f, size_t position)
{
    return (unsigned char)f->words->bytes[position];
}

/* All places where a character begins. */
static corvid_status open_places(finder *f)
{
    const cv_vocabulary_words *w = f->words;
    CV_TRY(cv_alloc_or_fail(f->mem, w->n_bytes + 1, sizeof *f->places, "the parts of words",
                            (void **)&f->places, f->err));
    for (size_t i = 0; i < w->n; i++) {
        const cv_counted_word *word = &w->words[i];
        for (size_t p = word->start; p < word->start + word->length; p++)
            if (word->length > 1 && !cv_is_continuation(byte_of(f, p)))
                f->places[f->n_places++] = (place){ .position = (uint32_t)p,
                                                    .end = (uint32_t)(word->start + word->length),
                                                    .node = ROOT,
                                                    .count = word->count };
    }
    return CORVID_OK;
}

/* Counts the parts of length + 1 bytes. */
static corvid_status count_round(finder *f, size_t length)
{
    CV_TRY(new_table(f->mem, &f->round, f->n_places, f->err));
    for (size_t i = 0; i < f->n_places; i++) {
        place *p = &f->places[i];
        slot *s = add_slot(&f->round, p->node, byte_of(f, p->position + length));
        if (s->count == 0) s->position = p->position;
        s->count += p->count;
        p->child = (uint32_t)(s - f->round.slots);
    }
    return CORVID_OK;
}

static corvid_status more_nodes(finder *f)
{
    const size_t wider = f->capacity > 0 ? 2 * f->capacity : 8192;
    node *more = NULL;
    CV_TRY(cv_alloc_or_fail(f->mem, wider, sizeof *more, "the parts of words", (void **)&more,
                            f->err));
    if (f->n_nodes > 0) memcpy(more, f->nodes, f->n_nodes * sizeof *more);
    cv_free(f->mem, f->nodes);
    f->nodes = more;
    f->capacity = wider;
    return CORVID_OK;
}

/* The node of a frequent part; made where the first of its places comes by, so that nodes are
 * numbered in the order of the text. */
static corvid_status keep(finder *f, const place *p, size_t length, slot *s)
{
    if (s->child != 0) return CORVID_OK;
    if (f->n_nodes == f->capacity) CV_TRY(more_nodes(f));
    CV_TRY(room_for_kept(f, 1));
    slot *kept = add_slot(&f->kept, p->node, byte_of(f, p->position + length));
    s->child = kept->child = (uint32_t)f->n_nodes;
    f->nodes[f->n_nodes++] = (node){ .position = s->position,
                                     .length = (uint32_t)length + 1,
                                     .count = s->count,
                                     .candidate = NONE };
    return CORVID_OK;
}

/* Drops the places whose part is rare, or ends with its word. */
static corvid_status end_round(finder *f, size_t length)
{
    size_t left = 0;
    for (size_t i = 0; i < f->n_places; i++) {
        place p = f->places[i];
        slot *s = &f->round.slots[p.child];
        if (s->count < f->seldom) continue;
        CV_TRY(keep(f, &p, length, s));
        p.node = s->child;
        if (p.position + length + 1 < p.end) f->places[left++] = p;
    }
    f->n_places = left;
    return CORVID_OK;
}

static corvid_status find_nodes(finder *f)
{
    CV_TRY(open_places(f));
    CV_TRY(more_nodes(f));
    CV_TRY(room_for_kept(f, 1024));
    f->nodes[f->n_nodes++] = (node){ .candidate = NONE }; /* the root: no bytes */
    for (size_t length = 0; f->n_places > 0; length++) {
        CV_TRY(count_round(f, length));
        CV_TRY(end_round(f, length));
    }
    return CORVID_OK;
}

/* ---- candidates ----------------------------------------------------------------------------- */

/* Whole characters, or the beginning of a single one (Chinese characters share two bytes). */
static bool may_be_token(const finder *f, const node *n)
{
    if (n->length < 2) return false;
    const char *bytes = f->words->bytes + n->position;
    if (cv_utf8_promised((unsigned char)bytes[0]) > n->length) return true;
    for (size_t i = 0; i < n->length;) {
        const size_t length = cv_utf8_promised((unsigned char)bytes[i]);
        if (length == 0 || length > n->length - i) return false;
        i += length;
    }
    return true;
}

typedef struct promise {
    uint64_t bytes;
    uint32_t node;
} promise;

static int most_first(const void *left, const void *right)
{
    const promise *a = left, *b = right;
    if (a->bytes != b->bytes) return a->bytes > b->bytes ? -1 : 1;
    return a->node < b->node ? -1 : 1;
}

static corvid_status choose(finder *f, size_t most, cv_candidates *out)
{
    promise *promises = NULL;
    size_t n = 0;
    CV_TRY(cv_alloc_or_fail(f->mem, f->n_nodes, sizeof *promises, "the parts of words",
                            (void **)&promises, f->err));
    for (size_t i = 1; i < f->n_nodes; i++)
        if (may_be_token(f, &f->nodes[i]))
            promises[n++] = (promise){ f->nodes[i].count * (f->nodes[i].length - 1), (uint32_t)i };
    qsort(promises, n, sizeof *promises, most_first);
    if (n > most) n = most;
    const corvid_status status =
        cv_alloc_or_fail(f->mem, n + 1, sizeof *out->of, "candidates", (void **)&out->of, f->err);
    for (size_t i = 0; status == CORVID_OK && i < n; i++) {
        node *from = &f->nodes[promises[i].node];
        from->candidate = (uint32_t)i;
        out->of[i] = (cv_candidate){ from->position, from->length, from->count };
    }
    out->n = n;
    cv_free(f->mem, promises);
    return status;
}

/* The candidates at one position, to `at` where it is not NULL; returns how many. */
static size_t list_at(const finder *f, size_t position, size_t end, uint32_t *at)
{
    size_t n = 0;
    uint32_t here = ROOT;
    for (size_t p = position; p < end; p++) {
        const slot *s = find_slot(&f->kept, here, byte_of(f, p));
        if (s->key == 0) break;
        here = s->child;
        const uint32_t candidate = f->nodes[here].candidate;
        if (candidate == NONE) continue;
        if (at) at[n] = candidate;
        n++;
    }
    return n;
}

static corvid_status list_all(const finder *f, cv_candidates *out)
{
    const cv_vocabulary_words *w = f->words;
    size_t total = 0;
    CV_TRY(cv_alloc_or_fail(f->mem, w->n_bytes + 1, sizeof *out->first, "candidates",
                            (void **)&out->first, f->err));
    for (size_t i = 0; i < w->n; i++) {
        const size_t start = w->words[i].start, end = start + w->words[i].length;
        for (size_t p = start; p < end; p++) {
            out->first[p] = total;
            total += list_at(f, p, end, NULL);
        }
    }
    out->first[w->n_bytes] = total;
    CV_TRY(cv_alloc_or_fail(f->mem, total + 1, sizeof *out->at, "candidates", (void **)&out->at,
                            f->err));
    for (size_t i = 0; i < w->n; i++) {
        const size_t start = w->words[i].start, end = start + w->words[i].length;
        for (size_t p = start; p < end; p++)
            (void)list_at(f, p, end, out->at + out->first[p]);
    }
    return CORVID_OK;
}

corvid_status cv_candidates_find(const cv_vocabulary_words *words, uint64_t seldom, size_t most,
                                 cv_candidates *out, corvid_error *err)
{
    finder f = { .words = words, .mem = words->mem, .seldom = seldom, .err = err };
    *out = (cv_candidates){ .mem = words->mem };
    corvid_status status = find_nodes(&f);
    if (status == CORVID_OK) status = choose(&f, most, out);
    if (status == CORVID_OK) status = list_all(&f, out);
    cv_free(f.mem, f.places);
    cv_free(f.mem, f.nodes);
    cv_free(f.mem, f.kept.slots);
    cv_free(f.mem, f.round.slots);
    if (status != CORVID_OK) cv_candidates_free(out);
    return status;
}

void cv_candidates_free(cv_candidates *c)
{
    cv_free(c->mem, c->of);
    cv_free(c->mem, c->first);
    cv_free(c->mem, c->at);
    c->of = NULL;
    c->first = NULL;
    c->at = NULL;
    c->n = 0;
}
