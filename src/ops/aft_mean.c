/* aft_mean.c - means over all tokens so far with biases by place, and back; see aft_mean.h.
 *
 * A block of rows is two products at once: e^(w - its largest of a row) with e^(k - m) v and with
 * e^(k - m), where m is the largest key of a channel that any row of the block sees.  Rows within a
 * block lose digits where a key behind them is larger by more than about 80. */
#include <string.h>

#include "base/smaller.h"
#include "ops/aft_mean.h"

enum {
    ROWS = 48,     /* of a block: whole tiles of every kernel */
    LANES = 16,    /* channels of a panel */
    CHANNELS = 32, /* channels whose sums are computed together */
    KEYS = 256     /* keys whose biases get their gradient together */
};

static cv_matrix panels_at(size_t rows, size_t cols, size_t stride, const float *at)
{
    return (cv_matrix){ .rows = rows,
                        .cols = cols,
                        .layout = CV_LAYOUT_F32,
                        .panel_bytes = stride * CV_PANEL * sizeof(float),
                        .panels = (const unsigned char *)at };
}

size_t cv_aft_state(size_t A, size_t longest)
{
    return cv_padded(1) + 2 * longest * A;
}

/* Channels [begin, end) of one sequence. */
typedef struct unit {
    const cv_aft *p;
    const cv_sequence *seq;
    size_t past, begin, end;
    float *keys, *values; /* [tokens so far][A], in the state */
} unit;

/* past: the state that the sequence began in. */
static unit unit_of(const cv_aft *p, const cv_sequence *seq, const float *past, size_t begin,
                    size_t end)
{
    float *keys = seq->state + p->state_offset + cv_padded(1);
    return (unit){
        p, seq, cv_count_of(past + p->state_offset), begin, end, keys, keys + p->longest * p->A
    };
}

/* The i-th of units that each are a part of a sequence's channels: whole panels. */
static unit part_of(const cv_run *run, const cv_aft *p, size_t parts, size_t i, bool back)
{
    const cv_sequence *seq = &run->sequences[i / parts];
    const size_t panels = (p->A + LANES - 1) / LANES, part = i % parts;
    const size_t begin = panels * part / parts * LANES;
    const size_t end = cv_smaller(panels * (part + 1) / parts * LANES, p->A);
    return unit_of(p, seq, back ? seq->start : seq->state, begin, end);
}

/* As many parts as give every member something to do. */
static size_t parts_for(const cv_run *run)
{
    return (run->me->n + run->n_sequences - 1) / run->n_sequences;
}

/* Rows [t, t + n) of a sequence and what they see: keys [0, seen); e [n][ld]. */
typedef struct block {
    size_t t, n, seen, ld;
    float *e;
} block;

/* The first token that has a bias for the one at `own`. */
static size_t first_biased(const cv_aft *p, size_t own)
{
    return p->window && own >= p->window ? own + 1 - p->window : 0;
}

/* e^(w - its largest) of one row for keys up to its own, zeros behind. */
static void weigh_row(const cv_kernels *kernel, const unit *u, const block *b, size_t r)
{
    const float *w = u->p->w + (u->seq->begin + b->t + r) * u->p->longest;
    const size_t own = u->past + b->t + r, first = first_biased(u->p, own);
    float *e = b->e + r * b->ld, top = first ? 0.0f : w[0];
    memset(e, 0, first * sizeof *e);
    memcpy(e + first, w + first, (own + 1 - first) * sizeof *e);
    for (size_t i = first; i <= own; i++)
        top = e[i] > top ? e[i] : top;
    for (size_t i = 0; i <= own; i++)
        e[i] -= top;
    kernel->exp(own + 1, e, e);
    memset(e + own + 1, 0, (b->ld - own - 1) * sizeof *e);
}

static block block_at(const cv_run *run, const unit *u, size_t t, float *e)
{
    block b = { .t = t, .n = cv_smaller(ROWS, u->seq->n - t), .e = e };
    b.seen = u->past + t + b.n;
    b.ld = cv_padded(u->p->longest);
    for (size_t r = 0; r < b.n; r++)
        weigh_row(run->kernel, u, &b, r);
    return b;
}

/* e^(k - m) and e^(k - m) v of 16 channels from c on, [keys][16] each; m [16] out. */
static void exponentials(const cv_kernels *kernel, const unit *u, size_t seen, size_t c, float *m,
                         float *key, float *both)
{
    const size_t A = u->p->A, n = cv_smaller(LANES, A - c);
    for (size_t l = 0; l < LANES; l++)
        m[l] = l < n ? u->keys[c + l] : 0.0f;
    for (size_t i = 0; i < seen; i++) {
        const float *k = u->keys + i * A + c, *v = u->values + i * A + c;
        for (size_t l = 0; l < n; l++) {
            m[l] = k[l] > m[l] ? k[l] : m[l];
            key[i * LANES + l] = k[l];
            both[i * LANES + l] = v[l];
        }
        for (size_t l = n; l < LANES; l++)
            key[i * LANES + l] = both[i * LANES + l] = 0.0f;
    }
    for (size_t i = 0; i < seen; i++)
        for (size_t l = 0; l < LANES; l++)
            key[i * LANES + l] -= m[l];
    kernel->exp(seen * LANES, key, key);
    for (size_t i = 0; i < seen; i++)
        for (size_t l = 0; l < LANES; l++)
            both[i * LANES + l] *= key[i * LANES + l];
}

/* ---- Forward --------------------------------------------------------------------------------- */

static void store(const unit *u)
{
    const size_t A = u->p->A, n = (u->end - u->begin) * sizeof(float);
    for (size_t t = 0; t < u->seq->n; t++) {
        const size_t from = (u->seq->begin + t) * A + u->begin, to = (u->past + t) * A + u->begin;
        memcpy(u->keys + to, u->p->k + from, n);
        memcpy(u->values + to, u->p->v + from, n);
    }
}

/* Channels [c, c + n) of a block; divisors [T][A] or NULL get the sums below the line. */
static void mean_of(const cv_run *run, const unit *u, const block *b, size_t c, size_t n,
                    float *room, float *divisors)
{
    const size_t A = u->p->A, panels = (n + LANES - 1) / LANES;
    float *sums = room, *exps = room + ROWS * 2 * CHANNELS, m[LANES];
    for (size_t p = 0; p < panels; p++) {
        float *both = exps + 2 * p * b->ld * LANES;
        exponentials(run->kernel, u, b->seen, c + p * LANES, m, both + b->ld * LANES, both);
    }
    for (size_t i = 0; i < b->seen; i += CV_FOLD) {
        const cv_matrix W = panels_at(2 * panels * LANES, cv_smaller(CV_FOLD, b->seen - i), b->ld,
                                      exps + i * LANES);
        run->kernel->matmul(&W, 0, 2 * panels, b->n, b->e + i, b->ld, sums, 2 * CHANNELS, i > 0,
                            run->matmul);
    }
    for (size_t r = 0; r < b->n; r++) {
        const size_t row = (u->seq->begin + b->t + r) * A + c;
        for (size_t i = 0; i < n; i++) {
            const float *sum = sums + r * 2 * CHANNELS + i / LANES * 2 * LANES + i % LANES;
            u->p->y[row + i] = sum[0] / sum[LANES];
            if (divisors) divisors[row + i] = sum[LANES];
        }
    }
}

static void back(const cv_run *run, const void *record);

void cv_aft_mean(const cv_run *run, const cv_aft *aft)
{
    cv_aft *record = cv_record(run, back, sizeof *record);
    if (record) *record = *aft;
    float *e = run->tape ? run->tape->own : aft->scratch;
    float *room = e + ROWS * cv_padded(aft->longest);
    float *divisors = record ? cv_memory_of(run, aft->y, aft->A) : NULL;
    const size_t parts = parts_for(run);
    size_t lo, hi;
    cv_share(run->me, run->n_sequences * parts, &lo, &hi);
    for (size_t i = lo; i < hi; i++) {
        const unit u = part_of(run, aft, parts, i, false);
        if (u.begin >= u.end) continue;
        store(&u);
        for (size_t t = 0; t < u.seq->n; t += ROWS) {
            const block b = block_at(run, &u, t, e);
            for (size_t c = u.begin; c < u.end; c += CHANNELS)
                mean_of(run, &u, &b, c, cv_smaller(CHANNELS, u.end - c), room, divisors);
        }
    }
}

size_t cv_aft_scratch(size_t longest)
{
    return cv_padded(longest) * (ROWS + 2 * CHANNELS) + ROWS * 2 * CHANNELS;
}

/* ---- Back: biases ---------------------------------------------------------------------------- */

/* What a block's rows have of each sum's gradient: dy / den for that above the line, and times -y
 * for that below; [ROWS][2 A], 16 channels of one kind after 16 of the other. */
static void shares(const cv_run *run, const unit *u, const block *b, float *g)
{
    const size_t A = u->p->A, wide = 2 * cv_padded(A);
    const float *dy = cv_gradient(run, u->p->y), *divisors = cv_memory_of(run, u->p->y, A);
    for (size_t r = 0; r < b->n; r++) {
        const size_t row = (u->seq->begin + b->t + r) * A;
        float *out = g + r * wide;
        memset(out, 0, wide * sizeof *out);
        for (size_t c = 0; c < A; c++, out += c % LANES ? 0 : 2 * LANES) {
            out[c % LANES] = dy[row + c] / divisors[row + c];
            out[LANES + c % LANES] = -out[c % LANES] * u->p->y[row + c];
        }
    }
}

/* Both exponentials of keys [first, first + n) of all channels, as panels in which keys are outputs:
 * [keys / 16][2 A][16]; m [A] is the largest key of each channel. */
static void panels_of_keys(const cv_kernels *kernel, const unit *u, size_t first, size_t n,
                           const float *m, float *to)
{
    const size_t A = u->p->A, wide = 2 * cv_padded(A);
    memset(to, 0, cv_padded(n) * wide * sizeof *to);
    for (size_t i = 0; i < n; i++) {
        const float *k = u->keys + (first + i) * A, *v = u->values + (first + i) * A;
        float *panel = to + i / CV_PANEL * wide * CV_PANEL + i % CV_PANEL;
        for (size_t c = 0; c < A; c += LANES, panel += 2 * LANES * CV_PANEL) {
            float e[LANES];
            const size_t some = cv_smaller(LANES, A - c);
            for (size_t l = 0; l < some; l++)
                e[l] = k[c + l] - m[c + l];
            kernel->exp(some, e, e);
            for (size_t l = 0; l < some; l++) {
                panel[l * CV_PANEL] = e[l] * v[c + l];
                panel[(LANES + l) * CV_PANEL] = e[l];
            }
        }
    }
}

/* dw of a block: e times what the sums' gradients make of each key. */
static void add_biases(const unit *u, const block *b, size_t first, size_t n, const float *of_keys,
                       float *dw)
{
    for (size_t r = 0; r < b->n; r++) {
        const size_t own = u->past + b->t + r, from = first_biased(u->p, own);
        const float *e = b->e + r * b->ld;
        float *row = dw + (u->seq->begin + b->t + r) * u->p->longest;
        for (size_t i = from > first ? from : first; i < first + n && i <= own; i++)
            row[i] += e[i] * of_keys[r * KEYS + i - first];
    }
}

/* Where everything stands in a member's scratch; e is the first. */
typedef struct room {
    float *e, *turned;             /* [ROWS][ld], [ld][ROWS] */
    float *shares;                 /* [ROWS][2 A] */
    float *m, *panels, *of_keys;   /* [A], [KEYS][2 A], [ROWS][KEYS] */
    float *key, *both, *in, *sums; /* [ld][16] twice, [ROWS][32], [ld][32] */
} room;

static float *cut(float **from, size_t n)
{
    float *at = *from;
    *from += cv_padded(n);
    return at;
}

static room room_at(float *from, size_t A, size_t longest)
{
    const size_t ld = cv_padded(longest), wide = 2 * cv_padded(A);
    room r = { .e = cut(&from, ROWS * ld) };
    r.turned = cut(&from, ROWS * ld);
    r.shares = cut(&from, ROWS * wide);
    r.m = cut(&from, A);
    r.panels = cut(&from, KEYS * wide);
    r.of_keys = cut(&from, ROWS * KEYS);
    r.key = cut(&from, ld * LANES);
    r.both = cut(&from, ld * LANES);
    r.in = cut(&from, ROWS * 2 * LANES);
    r.sums = cut(&from, ld * 2 * LANES);
    return r;
}

size_t cv_aft_own_scratch(size_t A, size_t longest)
{
    const size_t ld = cv_padded(longest), wide = 2 * cv_padded(A);
    const size_t floats =
        ld * (2 * ROWS + 4 * LANES) + wide * (ROWS + KEYS + 1) + ROWS * (KEYS + 2 * LANES);
    const size_t forward = cv_aft_scratch(longest);
    return floats > forward ? floats : forward;
}

static void biases_back(const cv_run *run, const unit *u, size_t t, const room *r)
{
    const cv_aft *p = u->p;
    float *dw = cv_gradient(run, p->w);
    const size_t wide = 2 * cv_padded(p->A);
    const block b = block_at(run, u, t, r->e);
    shares(run, u, &b, r->shares);
    memcpy(r->m, u->keys, p->A * sizeof *r->m);
    for (size_t i = 1; i < b.seen; i++)
        for (size_t c = 0; c < p->A; c++)
            r->m[c] = u->keys[i * p->A + c] > r->m[c] ? u->keys[i * p->A + c] : r->m[c];
    /* Keys beyond the windows of all rows have no bias. */
    for (size_t first = first_biased(p, u->past + t); dw && first < b.seen; first += KEYS) {
        const size_t n = cv_smaller(KEYS, b.seen - first);
        panels_of_keys(run->kernel, u, first, n, r->m, r->panels);
        const cv_matrix W = panels_at(cv_padded(n), wide, wide, r->panels);
        run->kernel->matmul(&W, 0, cv_padded(n) / CV_PANEL, b.n, r->shares, wide, r->of_keys, KEYS,
                            false, run->matmul);
        add_biases(u, &b, first, n, r->of_keys, dw);
    }
}

/* ---- Back: keys and values ------------------------------------------------------------------- */

/* Where the gradients of key i stand: of this step, or of the state before it; false: nowhere. */
static bool gradients_of(const cv_run *run, const unit *u, size_t i, float **dk, float **dv)
{
    const cv_aft *p = u->p;
    if (i >= u->past) {
        const size_t at = (u->seq->begin + i - u->past) * p->A;
        *dk = cv_gradient(run, p->k) + at;
        *dv = cv_gradient(run, p->v) + at;
        return true;
    }
    if (!u->seq->start_gradient) return false;
    *dk = u->seq->start_gradient + p->state_offset + cv_padded(1) + i * p->A;
    *dv = *dk + p->longest * p->A;
    return true;
}

/* 16 channels of a block: sums over its rows of e times the shares, then what they make of keys and
 * values. */
static void panel_back(const cv_run *run, const unit *u, const block *b, size_t c, const room *r)
{
    const size_t wide = 2 * cv_padded(u->p->A), n = cv_smaller(LANES, u->end - c);
    float m[LANES];
    for (size_t t = 0; t < b->n; t++)
        for (size_t half = 0; half < 2; half++)
            memcpy(r->in + (half * b->n + t) * LANES, r->shares + t * wide + 2 * c + half * LANES,
                   LANES * sizeof(float));
    const cv_matrix W = panels_at(2 * LANES, b->n, b->n, r->in);
    for (size_t i = 0; i < b->seen; i += ROWS)
        run->kernel->matmul(&W, 0, 2, cv_smaller(ROWS, b->seen - i), r->turned + i * ROWS, ROWS,
                            r->sums + i * 2 * LANES, 2 * LANES, false, run->matmul);
    exponentials(run->kernel, u, b->seen, c, m, r->key, r->both);
    for (size_t i = 0; i < b->seen; i++) {
        const float *sum = r->sums + i * 2 * LANES, *key = r->key + i * LANES;
        const float *both = r->both + i * LANES;
        float *dk, *dv;
        if (!gradients_of(run, u, i, &dk, &dv)) continue;
        for (size_t l = 0; l < n; l++) {
            dv[c + l] += key[l] * sum[l];
            dk[c + l] += both[l] * sum[l] + key[l] * sum[LANES + l];
        }
    }
}

static void keys_back(const cv_run *run, const unit *u, const room *r)
{
    for (size_t t = 0; t < u->seq->n; t += ROWS) {
        const block b = block_at(run, u, t, r->e);
        for (size_t row = 0; row < b.n; row += LANES) /* columns that stay in the first cache */
            for (size_t i = 0; i < b.seen; i++)
                for (size_t l = row; l < b.n && l < row + LANES; l++)
                    r->turned[i * ROWS + l] = b.e[l * b.ld + i];
        shares(run, u, &b, r->shares);
        for (size_t c = u->begin; c < u->end; c += LANES)
            panel_back(run, u, &b, c, r);
    }
}

/* The state behind the step still has the keys and values of all tokens.  Blocks of rows own their
 * biases; parts of channels own their keys and values. */
static void back(const cv_run *run, const void *record)
{
    const cv_aft *p = record;
    const room r = room_at(run->tape->own, p->A, p->longest);
    size_t lo, hi, at = 0, blocks = 0;
    for (size_t s = 0; s < run->n_sequences; s++)
        blocks += (run->sequences[s].n + ROWS - 1) / ROWS;
    cv_share(run->me, blocks, &lo, &hi);
    for (size_t s = 0; s < run->n_sequences; s++) {
        const cv_sequence *seq = &run->sequences[s];
        const unit u = unit_of(p, seq, seq->start, 0, p->A);
        for (size_t t = 0; t < seq->n; t += ROWS, at++)
            if (at >= lo && at < hi) biases_back(run, &u, t, &r);
    }
    const size_t parts = parts_for(run);
    cv_share(run->me, run->n_sequences * parts, &lo, &hi);
    for (size_t i = lo; i < hi; i++) {
        const unit u = part_of(run, p, parts, i, true);
        if (u.begin < u.end) keys_back(run, &u, &r);
    }
}

/* ---- Rows by place --------------------------------------------------------------------------- */

typedef struct placed_record {
    size_t n, state_offset;
    const float *table, *y;
} placed_record;

/* By columns: sequences share the table. */
static void placed_back(const cv_run *run, const void *record)
{
    const placed_record *r = record;
    const float *dy = cv_gradient(run, r->y);
    float *dtable = cv_gradient(run, r->table);
    size_t lo, hi;
    cv_own_columns(run, r->n, &lo, &hi);
    for (size_t s = 0; dtable && s < run->n_sequences; s++) {
        const cv_sequence *seq = &run->sequences[s];
        float *row = dtable + cv_count_of(seq->start + r->state_offset) * r->n;
        for (size_t t = seq->begin; t < seq->begin + seq->n; t++, row += r->n)
            for (size_t c = lo; c < hi; c++)
                row[c] += dy[t * r->n + c];
    }
}

void cv_placed_rows(const cv_run *run, size_t n, const float *table, size_t state_offset, float *y)
{
    placed_record *r = cv_record(run, placed_back, sizeof *r);
    if (r) *r = (placed_record){ n, state_offset, table, y };
    for (size_t s = 0; s < run->n_sequences; s++) {
        const cv_sequence *seq = &run->sequences[s];
        const float *row = table + cv_count_of(seq->state + state_offset) * n;
        for (size_t t = seq->begin; t < seq->begin + seq->n; t++, row += n)
            if (t >= run->lo && t < run->hi) memcpy(y + t * n, row, n * sizeof *y);
    }
}

/* ---- Biases by distance ---------------------------------------------------------------------- */

typedef struct distance_record {
    size_t n, longest, state_offset;
    const float *b, *w;
} distance_record;

/* By distances, each over all rows in order. */
static void distance_back(const cv_run *run, const void *record)
{
    const distance_record *r = record;
    const float *dw = cv_gradient(run, r->w);
    float *db = cv_gradient(run, r->b);
    size_t lo, hi;
    cv_own_columns(run, r->n, &lo, &hi);
    for (size_t s = 0; db && s < run->n_sequences; s++) {
        const cv_sequence *seq = &run->sequences[s];
        size_t own = cv_count_of(seq->start + r->state_offset);
        for (size_t t = seq->begin; t < seq->begin + seq->n; t++, own++)
            for (size_t d = lo; d < hi && d <= own; d++)
                db[d] += dw[t * r->longest + own - d];
    }
}

void cv_add_by_distance(const cv_run *run, size_t n, const float *b, size_t longest,
                        size_t state_offset, float *w)
{
    distance_record *r = cv_record(run, distance_back, sizeof *r);
    if (r) *r = (distance_record){ n, longest, state_offset, b, w };
    size_t lo, hi;
    cv_share(run->me, run->T, &lo, &hi);
    for (size_t s = 0; s < run->n_sequences; s++) {
        const cv_sequence *seq = &run->sequences[s];
        size_t own = cv_count_of(seq->state + state_offset);
        for (size_t t = seq->begin; t < seq->begin + seq->n; t++, own++)
            for (size_t d = 0; t >= lo && t < hi && d < n && d <= own; d++)
                w[t * longest + own - d] += b[d];
    }
}
