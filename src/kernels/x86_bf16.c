/* x86_bf16.c - products of what may be rounded to bf16, by the dot products of AVX-512 BF16.
 *
 * One instruction multiplies 16 pairs of bf16 by 16 others and adds both products to 16 sums in f32:
 * twice the work of a multiply-add of f32.  A tile is 12 rows by two panels of 16 outputs; pairs run
 * along the sum, which is over inputs in a product and over tokens in an outer product.  So both are
 * the same tile, once their operands are packed.
 *
 * A sum is taken in chains of CV_FOLD inputs (or tokens), which are added to the result one after
 * another.  Numbers below 2^-126 count as zero. */
#include "kernels/x86_bf16.h"

#include <string.h>

#include "kernels/arriving.h"
#include "kernels/x86_pairs.h"

enum {
    ROWS = 12,             /* of a tile */
    SIDE = (int)CV_PANEL,  /* outputs of a panel; a tile has one or two */
    FOLD = (int)CV_FOLD,   /* numbers of a chain */
    PANEL = FOLD * SIDE,   /* numbers of a packed panel: [FOLD / 2][16][2] */
    INPUT_ROW = FOLD + 32, /* numbers from a packed input to the next: other sets of the cache */
    STRIP = 192,           /* rows that are packed together, a multiple of ROWS */
    GROUP = (int)CV_MATMUL_GROUP, /* panels that are packed together */
    WIDE = 960,                   /* columns of an outer product that are packed together */
    ROWS_AHEAD = 8                /* that are fetched before they are packed */
};

_Static_assert((GROUP * PANEL + STRIP * INPUT_ROW) * sizeof(uint16_t) <=
                   CV_FOLD * 3 / 2 * (CV_MATMUL_GROUP + 1) * CV_PANEL * sizeof(float),
               "room for what a product packs, even of one row");
_Static_assert((WIDE + STRIP) * FOLD * sizeof(uint16_t) <= CV_OUTER_SCRATCH * sizeof(float),
               "room for what an outer product packs");

/* ---- The tile -------------------------------------------------------------------------------- */

/* Where the sums of a tile go: `rows` rows of `columns` numbers.  soon: two rows that are packed next,
 * to be asked for on the way. */
typedef struct place {
    float *y;
    size_t ld, rows, columns;
    bool add;
    const float *soon[2];
} place;

enum { STRETCH = 8 }; /* pairs between what is asked for: a line of f32 */

/* What a tile asks for in stretch i of n: lines that its sums are added to, and some of what is packed
 * next. */
INLINE void ask(const place *to, size_t i, size_t n)
{
    for (size_t r = i; r < to->rows; r += n) {
        _mm_prefetch((const char *)(to->y + r * to->ld), _MM_HINT_T0);
        _mm_prefetch((const char *)(to->y + r * to->ld + to->columns - 1), _MM_HINT_T0);
    }
    cv_fetch(to->soon[0], i * CV_LINE, 1, true);
    cv_fetch(to->soon[1], i * CV_LINE, 1, true);
}

INLINE void put_sums(const place *to, size_t r, size_t p, __m512 sums)
{
    const __mmask16 there = lanes(to->columns - p * SIDE);
    float *y = to->y + r * to->ld + p * SIDE;
    if (to->add) sums = _mm512_add_ps(_mm512_maskz_loadu_ps(there, y), sums);
    _mm512_mask_storeu_ps(y, there, sums);
}

/* The sums over so many pairs.  Pair s of row r lies at x + r * row + s * step, that of 16 outputs at
 * w + p * PANEL + s * 32.  P, row and step are constants where this is inlined. */
INLINE void dot_tile(size_t P, size_t row, size_t step, size_t pairs, const uint16_t *x,
                     const uint16_t *w, const place *to)
{
    __m512 acc[ROWS][2];
#pragma GCC unroll 12
    for (size_t r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (size_t p = 0; p < P; p++)
            acc[r][p] = _mm512_setzero_ps();
    for (size_t s = 0; s < pairs; s++, x += step, w += 2 * SIDE) {
        if (s % STRETCH == 0) ask(to, s / STRETCH, (pairs + STRETCH - 1) / STRETCH);
        __m512i weights[2];
#pragma GCC unroll 2
        for (size_t p = 0; p < P; p++)
            weights[p] = _mm512_load_si512(w + p * PANEL);
#pragma GCC unroll 12
        for (size_t r = 0; r < ROWS; r++) {
            int pair;
            memcpy(&pair, x + r * row, sizeof pair);
            const __m512i input = _mm512_set1_epi32(pair);
#pragma GCC unroll 2
            for (size_t p = 0; p < P; p++)
                acc[r][p] = _mm512_dpbf16_ps(acc[r][p], (__m512bh)input, (__m512bh)weights[p]);
        }
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (size_t p = 0; p < P; p++)
            if (r < to->rows) put_sums(to, r, p, acc[r][p]);
}

/* ---- Packing --------------------------------------------------------------------------------- */

/* n inputs of a panel as pairs of them; zero behind the last. */
static void pack_panel(size_t n, const unsigned char *stored, uint16_t *to)
{
    for (size_t j = 0; j < n; j += 2, to += 2 * SIDE) {
        const __mmask32 there = j + 2 <= n ? 0xffffffffu : 0xffffu;
        _mm512_store_si512(
            to, paired(_mm512_maskz_loadu_epi16(there, stored + j * SIDE * sizeof(uint16_t))));
    }
}

/* n inputs of a row, and a zero where their number is odd. */
INLINE void pack_input(size_t n, const float *x, size_t ldx, uint16_t *to)
{
    for (size_t j = 0; j < n; j += 32) {
        cv_fetch(x + j, ROWS_AHEAD * ldx, 2 * CV_LINE, false);
        const size_t rest = n - j;
        const __m512 a = _mm512_maskz_loadu_ps(lanes(rest), x + j);
        const __m512 b =
            rest > 16 ? _mm512_maskz_loadu_ps(lanes(rest - 16), x + j + 16) : _mm512_setzero_ps();
        _mm512_storeu_si512(to + j, rounded(a, b));
    }
}

/* Rows up to whole tiles; those beyond `rows` are zero. */
static void pack_inputs(size_t rows, size_t n, const float *x, size_t ldx, uint16_t *to)
{
    size_t t = 0;
    for (; t < rows; t++)
        pack_input(n, x + t * ldx, ldx, to + t * INPUT_ROW);
    for (; t % ROWS != 0; t++)
        memset(to + t * INPUT_ROW, 0, INPUT_ROW * sizeof *to);
}

/* n <= 16 columns of two tokens, the second of which may be missing, as pairs of bf16. */
INLINE __m512i two_tokens(const float *x, size_t ld, bool second, size_t n)
{
    const __m512 a = _mm512_maskz_loadu_ps(lanes(n), x);
    const __m512 b = second ? _mm512_maskz_loadu_ps(lanes(n), x + ld) : _mm512_setzero_ps();
    return paired(rounded(a, b));
}

/* m columns of T tokens as panels [m / 16][FOLD / 2][16][2]. */
static void pack_columns(size_t T, size_t m, const float *b, size_t ld, uint16_t *to)
{
    for (size_t t = 0; t < T; t += 2)
        for (size_t i = 0; i < m; i += SIDE) {
            cv_fetch(b + t * ld + i, ROWS_AHEAD * ld, 2 * CV_LINE, false);
            cv_fetch(b + (t + 1) * ld + i, ROWS_AHEAD * ld, 2 * CV_LINE, false);
            _mm512_store_si512(to + i / SIDE * PANEL + t * SIDE,
                               two_tokens(b + t * ld + i, ld, t + 1 < T, m - i));
        }
}

/* n columns of T tokens as the rows of tiles, [n / 12][FOLD / 2][12][2]. */
static void pack_turned(size_t T, size_t n, const float *a, size_t ld, uint16_t *to)
{
    for (size_t t = 0; t < T; t += 2)
        for (size_t o = 0; o < n; o += ROWS) {
            cv_fetch(a + t * ld + o, ROWS_AHEAD * ld, 2 * CV_LINE, false);
            cv_fetch(a + (t + 1) * ld + o, ROWS_AHEAD * ld, 2 * CV_LINE, false);
            _mm512_mask_storeu_epi32(
                to + o * FOLD + t * ROWS, (__mmask16)((1 << ROWS) - 1),
                two_tokens(a + t * ld + o, ld, t + 1 < T, cv_smaller(ROWS, n - o)));
        }
}

/* ---- Products -------------------------------------------------------------------------------- */

static void input_tile(size_t pairs, const uint16_t *x, const uint16_t *w, const place *to)
{
    if (to->columns > SIDE)
        dot_tile(2, INPUT_ROW, 2, pairs, x, w, to);
    else
        dot_tile(1, INPUT_ROW, 2, pairs, x, w, to);
}

static void token_tile(size_t pairs, const uint16_t *a, const uint16_t *b, const place *to)
{
    if (to->columns > SIDE)
        dot_tile(2, 2, (size_t)2 * ROWS, pairs, a, b, to);
    else
        dot_tile(1, 2, (size_t)2 * ROWS, pairs, a, b, to);
}

/* `columns` outputs of packed panels by `rows` packed rows. */
static void product_of_strip(size_t pairs, size_t columns, const uint16_t *weights, size_t rows,
                             const uint16_t *inputs, cv_arriving next, const place *whole)
{
    /* What is asked for too early has left again. */
    const size_t tiles = (rows + ROWS - 1) / ROWS;
    const size_t last = (next.rows / (2 * tiles) + 1) * 2 * SIDE;
    cv_arriving none = { .rows = 0 };
    for (size_t i = 0; i < columns; i += 2 * SIDE) {
        cv_arriving *coming = columns - i <= last ? &next : &none;
        for (size_t r = 0; r < rows; r += ROWS) {
            place to = { .y = whole->y + r * whole->ld + i,
                         .ld = whole->ld,
                         .rows = cv_smaller(ROWS, rows - r),
                         .columns = cv_smaller(2 * SIDE, columns - i),
                         .add = whole->add };
            for (size_t k = 0; k < 2; k++)
                to.soon[k] = cv_take_arriving(coming, to.y);
            input_tile(pairs, inputs + r * INPUT_ROW, weights + i / SIDE * PANEL, &to);
        }
    }
}

/* `columns` outputs of packed panels by T rows of n inputs, which are packed here a strip at a time.
 * behind: what is packed after the last of them. */
static void product_of_group(size_t n, size_t columns, const uint16_t *weights, size_t T,
                             const float *x, size_t ldx, cv_arriving behind, uint16_t *inputs,
                             const place *whole)
{
    place to = *whole;
    for (size_t t = 0; t < T; t += STRIP, to.y += STRIP * to.ld) {
        const size_t rows = cv_smaller(STRIP, T - t), rest = T - t - rows;
        const cv_arriving next = { x + (t + rows) * ldx, ldx, cv_smaller(STRIP, rest) };
        pack_inputs(rows, n, x + t * ldx, ldx, inputs);
        product_of_strip((n + 1) / 2, columns, weights, rows, inputs, rest ? next : behind, &to);
    }
}

void cv_bf16_matmul(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x, size_t ldx,
                    float *y, size_t ldy, bool add, float *scratch)
{
    uint16_t *weights = (uint16_t *)(void *)scratch, *inputs = weights + (size_t)GROUP * PANEL;
    for (size_t j = 0; j < W->cols; j += FOLD) {
        const size_t n = cv_smaller(FOLD, W->cols - j);
        for (size_t p = lo; p < hi; p += GROUP) {
            const size_t end = cv_smaller(p + GROUP, hi), first = p * SIDE;
            const bool again = end < hi, more = again || j + n < W->cols;
            const cv_arriving behind = { x + (again ? j : j + n), ldx,
                                         more ? cv_smaller(STRIP, T) : 0 };
            for (size_t q = p; q < end; q++)
                pack_panel(n, W->panels + q * W->panel_bytes + j * SIDE * sizeof(uint16_t),
                           weights + (q - p) * PANEL);
            const place to = { .y = y + first, .ld = ldy, .add = add || j > 0 };
            product_of_group(n, cv_smaller(end * SIDE, W->rows) - first, weights, T, x + j, ldx,
                             behind, inputs, &to);
        }
    }
}

/* Rows of W from packed columns of a, by packed columns of b. */
static void outer_rows(size_t T, size_t n, size_t m, const uint16_t *a, const uint16_t *b, float *W,
                       size_t ldw, cv_arriving next_a, cv_arriving next_b)
{
    for (size_t i = 0; i < m; i += 2 * SIDE)
        for (size_t o = 0; o < n; o += ROWS) {
            place to = { .y = W + o * ldw + i,
                         .ld = ldw,
                         .rows = cv_smaller(ROWS, n - o),
                         .columns = cv_smaller(2 * SIDE, m - i),
                         .add = true };
            to.soon[0] = cv_take_arriving(&next_a, to.y);
            to.soon[1] = cv_take_arriving(&next_b, to.y);
            token_tile((T + 1) / 2, a + o * FOLD, b + i / SIDE * PANEL, &to);
        }
}

void cv_bf16_outer(size_t T, size_t n, size_t m, const float *a, size_t lda, const float *b,
                   size_t ldb, float *W, size_t ldw, float *scratch)
{
    uint16_t *columns = (uint16_t *)(void *)scratch, *rows = columns + (size_t)WIDE * FOLD;
    for (size_t t = 0; t < T; t += FOLD, a += FOLD * lda, b += FOLD * ldb) {
        const size_t tokens = cv_smaller(FOLD, T - t), then = cv_smaller(FOLD, T - t - tokens);
        for (size_t i = 0; i < m; i += WIDE) {
            const size_t wide = cv_smaller(WIDE, m - i);
            pack_columns(tokens, wide, b + i, ldb, columns);
            for (size_t o = 0; o < n; o += STRIP) {
                const size_t many = cv_smaller(STRIP, n - o);
                const bool last_a = o + many == n, last = last_a && i + wide == m;
                const cv_arriving next_a =
                    cv_packed_after(last, a, lda, last_a ? 0 : o + many, tokens, then);
                const cv_arriving next_b =
                    cv_packed_after(last, b, ldb, i + wide, last_a ? tokens : 0, then);
                pack_turned(tokens, many, a + o, lda, rows);
                outer_rows(tokens, many, wide, rows, columns, W + o * ldw + i, ldw, next_a, next_b);
            }
        }
    }
}
