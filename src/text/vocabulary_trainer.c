/* vocabulary_trainer.c - which tokens make a text short under the longest match.
 *
 * The longest match is not the shortest encoding: a long token can spoil what follows it.  So what a
 * token saves is measured as it is used: the text is encoded without it, up to where both
 * encodings meet again.  The search begins with the most promising candidates, several times as
 * many as wanted, and drops those that save least until the size is right.  Then it exchanges: the
 * best of the candidates outside come in and the least useful leave, as long as the text gets
 * shorter.
 *
 * All is done on the different words of the text with their counts. */
#include "text/vocabulary_trainer.h"

#include <stdlib.h>
#include <string.h>

#include "text/vocabulary_candidates.h"

#define NONE UINT32_MAX

/* Candidates looked at for each token wanted. */
#define CANDIDATES_PER_TOKEN 12
/* Tokens to begin with for each one wanted. */
#define BEGIN_PER_TOKEN 3
/* What is there less often is rather of this text than of its language: such tokens make the text
 * shorter and others longer.  Taken only where there is nothing else. */
#define SELDOM UINT64_C(4)
/* Rounds of exchange, at most. */
#define EXCHANGES 60

typedef struct ranked {
    int64_t value;
    uint32_t candidate;
} ranked;

typedef struct search {
    const cv_vocabulary_words *words;
    const cv_vocabulary_options *options;
    cv_candidates candidates;
    size_t wanted; /* tokens of several bytes */
    size_t n_active;
    unsigned char *active; /* [candidates] 1: is a token now */
    unsigned char *before; /* [candidates] the same before an exchange */
    int64_t *saves;        /* [candidates] tokens of the text that each one saves, or would save */
    ranked *order;         /* [candidates] */
    uint32_t *match;       /* [n_bytes] the longest token at a position, or NONE: its byte */
    uint64_t done, total;  /* rounds */
    corvid_error *err;
} search;

/* ---- the longest match ---------------------------------------------------------------------- */

static uint32_t longest_active(const search *s, size_t position, size_t below)
{
    const cv_candidates *c = &s->candidates;
    for (size_t i = c->first[position + 1]; i-- > c->first[position];)
        if (s->active[c->at[i]] && c->of[c->at[i]].length < below) return c->at[i];
    return NONE;
}

static size_t length_of(const search *s, uint32_t candidate)
{
    return candidate == NONE ? 1 : s->candidates.of[candidate].length;
}

static void match_all(search *s)
{
    for (size_t p = 0; p < s->words->n_bytes; p++)
        s->match[p] = longest_active(s, p, SIZE_MAX);
}

static size_t next_cut(const search *s, size_t position)
{
    return position + length_of(s, s->match[position]);
}

/* How many tokens more it takes from a than from b to where both ways meet. */
static int64_t detour(const search *s, size_t a, size_t b)
{
    int64_t more = 0;
    while (a != b) {
        if (a < b) {
            a = next_cut(s, a);
            more++;
        } else {
            b = next_cut(s, b);
            more--;
        }
    }
    return more;
}

/* The length of the whole text in tokens. */
static uint64_t text_tokens(const search *s)
{
    uint64_t total = 0;
    for (size_t i = 0; i < s->words->n; i++) {
        const cv_counted_word *w = &s->words->words[i];
        uint64_t n = 0;
        for (size_t p = w->start; p < w->start + w->length; p = next_cut(s, p))
            n++;
        total += n * w->count;
    }
    return total;
}

/* ---- what a token saves --------------------------------------------------------------------- */

/* The token at a cut: without it the next shorter one is taken. */
static void weigh_token(search *s, size_t position, int64_t count)
{
    const uint32_t token = s->match[position];
    if (token == NONE) return;
    const size_t length = length_of(s, token);
    const size_t instead = length_of(s, longest_active(s, position, length));
    s->saves[token] += count * detour(s, position + instead, position + length);
}

/* The candidates that would be taken at a cut if they were tokens. */
static void weigh_candidates(search *s, size_t position, int64_t count)
{
    const cv_candidates *c = &s->candidates;
    const size_t now = length_of(s, s->match[position]);
    for (size_t i = c->first[position + 1]; i-- > c->first[position];) {
        const uint32_t candidate = c->at[i];
        const size_t length = c->of[candidate].length;
        if (length <= now) break;
        s->saves[candidate] += count * detour(s, position + now, position + length);
    }
}

/* Fills saves: for tokens what would be lost without them, for the others what they would win. */
static void weigh_all(search *s, bool others)
{
    memset(s->saves, 0, s->candidates.n * sizeof *s->saves);
    for (size_t i = 0; i < s->words->n; i++) {
        const cv_counted_word *w = &s->words->words[i];
        const int64_t count = (int64_t)w->count;
        for (size_t p = w->start; p < w->start + w->length; p = next_cut(s, p)) {
            weigh_token(s, p, count);
            if (others) weigh_candidates(s, p, count);
        }
    }
}

/* ---- choosing ------------------------------------------------------------------------------- */

static int by_value(const void *left, const void *right)
{
    const ranked *a = left, *b = right;
    if (a->value != b->value) return a->value > b->value ? -1 : 1;
    return a->candidate < b->candidate ? -1 : 1;
}

/* The candidates that are tokens (or are not), the one that saves most first. */
static size_t rank(search *s, bool active)
{
    size_t n = 0;
    for (size_t i = 0; i < s->candidates.n; i++)
        if ((s->active[i] != 0) == active) s->order[n++] = (ranked){ s->saves[i], (uint32_t)i };
    qsort(s->order, n, sizeof *s->order, by_value);
    return n;
}

/* Keeps the `keep` tokens that save most. */
static void drop_least(search *s, size_t keep)
{
    const size_t n = rank(s, true);
    for (size_t i = keep; i < n; i++)
        s->active[s->order[i].candidate] = 0;
    s->n_active = n < keep ? n : keep;
    match_all(s);
}

/* Takes in at most `more` candidates that would win something. */
static void take_best(search *s, size_t more)
{
    const size_t n = rank(s, false);
    for (size_t i = 0; i < n && i < more && s->order[i].value > 0; i++) {
        s->active[s->order[i].candidate] = 1;
        s->n_active++;
    }
    match_all(s);
}

static corvid_status end_round(search *s)
{
    const cv_vocabulary_options *o = s->options;
    s->done++;
    if (o->progress) o->progress(o->ctx, s->done < s->total ? s->done : s->total, s->total);
    if (o->cancel && o->cancel(o->ctx) != 0)
        return cv_fail(s->err, CORVID_E_CANCELLED, "making a vocabulary was cancelled");
    return CORVID_OK;
}

/* Candidates are sorted by promise. */
static corvid_status begin_large(search *s)
{
    const size_t begin = BEGIN_PER_TOKEN * s->wanted;
    s->n_active = begin < s->candidates.n ? begin : s->candidates.n;
    memset(s->active, 0, s->candidates.n);
    memset(s->active, 1, s->n_active);
    match_all(s);
    return end_round(s);
}

static corvid_status shrink(search *s)
{
    while (s->n_active > s->wanted) {
        size_t keep = s->n_active - s->n_active / 8;
        if (keep < s->wanted || s->n_active < 8) keep = s->wanted;
        weigh_all(s, false);
        drop_least(s, keep);
        CV_TRY(end_round(s));
    }
    return CORVID_OK;
}

/* One exchange of about n tokens; undone where it does not make the text shorter. */
static bool exchange(search *s, size_t n, uint64_t *tokens)
{
    const size_t n_before = s->n_active;
    memcpy(s->before, s->active, s->candidates.n);
    weigh_all(s, true);
    take_best(s, n + (s->wanted - s->n_active));
    weigh_all(s, false);
    drop_least(s, s->wanted);
    const uint64_t now = text_tokens(s);
    if (now < *tokens) {
        *tokens = now;
        return true;
    }
    memcpy(s->active, s->before, s->candidates.n);
    s->n_active = n_before;
    match_all(s);
    return false;
}

static corvid_status improve(search *s)
{
    uint64_t tokens = text_tokens(s);
    size_t n = s->wanted / 8 + 1;
    for (size_t i = 0; i < EXCHANGES && n > 0; i++) {
        const uint64_t was = tokens;
        const bool better = exchange(s, n, &tokens);
        /* Where it hardly gets shorter, fewer at once: they spoil each other less. */
        if (!better || was - tokens < was / 2000) n /= 2;
        CV_TRY(end_round(s));
    }
    s->done = s->total - 1;
    return end_round(s);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static corvid_status open_search(search *s)
{
    const corvid_allocator *mem = s->words->mem;
    const char *what = "making a vocabulary";
    /* A part that is rarer than this cannot be among the best: an average token of a good
     * vocabulary is there some fifty times as often. */
    const uint64_t rare = s->words->text_bytes / (s->options->size * UINT64_C(256));
    const size_t most = CANDIDATES_PER_TOKEN * s->wanted + 64;
    CV_TRY(
        cv_candidates_find(s->words, rare > SELDOM ? rare : SELDOM, most, &s->candidates, s->err));
    if (s->candidates.n < s->wanted && rare < SELDOM) {
        cv_candidates_free(&s->candidates);
        CV_TRY(cv_candidates_find(s->words, 2, most, &s->candidates, s->err));
    }
    const size_t n = s->candidates.n + 1;
    CV_TRY(cv_alloc_or_fail(mem, n, 1, what, (void **)&s->active, s->err));
    CV_TRY(cv_alloc_or_fail(mem, n, 1, what, (void **)&s->before, s->err));
    CV_TRY(cv_alloc_or_fail(mem, n, sizeof *s->saves, what, (void **)&s->saves, s->err));
    CV_TRY(cv_alloc_or_fail(mem, n, sizeof *s->order, what, (void **)&s->order, s->err));
    return cv_alloc_or_fail(mem, s->words->n_bytes + 1, sizeof *s->match, what, (void **)&s->match,
                            s->err);
}

/* The rounds that there will be, about: for the caller's progress. */
static uint64_t count_rounds(const search *s)
{
    uint64_t rounds = 2 + EXCHANGES;
    for (size_t n = BEGIN_PER_TOKEN * s->wanted; n > s->wanted && n >= 8; n -= n / 8)
        rounds++;
    return rounds;
}

static corvid_status write_file(const search *s, char **file, size_t *n, size_t *size)
{
    const corvid_allocator *mem = s->words->mem;
    cv_token_bytes *tokens = NULL;
    size_t n_tokens = 0;
    CV_TRY(cv_alloc_or_fail(mem, s->n_active + 1, sizeof *tokens, "a vocabulary", (void **)&tokens,
                            s->err));
    for (size_t i = 0; i < s->candidates.n; i++)
        if (s->active[i])
            tokens[n_tokens++] = (cv_token_bytes){ s->words->bytes + s->candidates.of[i].position,
                                                   s->candidates.of[i].length };
    const corvid_status status = cv_vocabulary_write(mem, tokens, n_tokens, file, n, s->err);
    cv_free(mem, tokens);
    if (size) *size = CV_VOCABULARY_SMALLEST + n_tokens;
    return status;
}

static corvid_status check_options(const cv_vocabulary_options *o, corvid_error *err)
{
    if (o->size >= CV_VOCABULARY_SMALLEST && o->size <= CV_VOCABULARY_LARGEST) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "a vocabulary of %zu tokens, expected %zu (the end of a text and the bytes) to "
                   "%zu",
                   o->size, CV_VOCABULARY_SMALLEST, CV_VOCABULARY_LARGEST);
}

corvid_status cv_vocabulary_train(const cv_vocabulary_words *words,
                                  const cv_vocabulary_options *options, char **file, size_t *n,
                                  size_t *size, corvid_error *err)
{
    search s = { .words = words, .options = options, .err = err };
    *file = NULL;
    *n = 0;
    CV_TRY(check_options(options, err));
    s.wanted = options->size - CV_VOCABULARY_SMALLEST;
    s.total = count_rounds(&s);
    s.candidates.mem = words->mem;
    corvid_status status = open_search(&s);
    if (status == CORVID_OK) status = begin_large(&s);
    if (status == CORVID_OK) status = shrink(&s);
    if (status == CORVID_OK) status = improve(&s);
    if (status == CORVID_OK) status = write_file(&s, file, n, size);
    cv_candidates_free(&s.candidates);
    cv_free(words->mem, s.active);
    cv_free(words->mem, s.before);
    cv_free(words->mem, s.saves);
    cv_free(words->mem, s.order);
    cv_free(words->mem, s.match);
    return status;
}
