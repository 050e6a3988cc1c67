/* simd_outer.h - sums of outer products over tokens, part of simd_body.h.
 *
 * A tile is MAX_ROWS rows of W by the PAIR panels of a product's tile.  Both inputs are packed for a
 * block of tokens: b so that the columns of a tile lie side by side, a likewise with its rows. */

enum {
    OUTER_TOKENS = 192,
    OUTER_TILE = PAIR * CV_PANEL, /* columns of one */
    OUTER_COLUMNS = 256,          /* of b, packed together, and rows of a */
    OUTER_ROWS = (OUTER_COLUMNS + MAX_ROWS - 1) / MAX_ROWS * MAX_ROWS,
    /* Floats between packed tiles: more than they need, so that what is packed of one token does not
     * all go to the same set of a cache. */
    OUTER_GAP = 16,
    OUTER_ROWS_STEP = OUTER_TOKENS * MAX_ROWS + OUTER_GAP,
    OUTER_COLUMNS_STEP = OUTER_TOKENS * OUTER_TILE + OUTER_GAP,
    OUTER_ROWS_SIZE = OUTER_ROWS / MAX_ROWS * OUTER_ROWS_STEP,
    OUTER_COLUMNS_SIZE = OUTER_COLUMNS / OUTER_TILE * OUTER_COLUMNS_STEP
};

_Static_assert(OUTER_ROWS_SIZE + OUTER_COLUMNS_SIZE <= CV_OUTER_SCRATCH, "room to pack");
_Static_assert(OUTER_COLUMNS % OUTER_TILE == 0, "whole tiles");

/* n columns of T rows, in groups of `group` side by side, the last padded with zeros:
 * [n / group][T][group], groups `step` apart. */
TILE_INLINE void outer_pack(size_t group, size_t step, size_t T, size_t n, const float *from,
                            size_t ld, float *to)
{
    const size_t whole = n / group, rest = n % group;
    for (size_t t = 0; t < T; t++, from += ld, to += group) {
        float *out = to;
        cv_fetch(from, 4 * ld, n, false);
        for (size_t i = 0; i < whole; i++, out += step)
            memcpy(out, from + i * group, group * sizeof *out);
        if (rest == 0) continue;
        memcpy(out, from + whole * group, rest * sizeof *out);
        memset(out + rest, 0, (group - rest) * sizeof *out);
    }
}

/* Where a tile of sums goes: `rows` rows of `columns` numbers of W; and on the way a row of a and one of
 * b are asked for that are packed next. */
typedef struct outer_place {
    float *W;
    size_t ld, rows, columns;
    const float *soon_a, *soon_b;
} outer_place;

/* R rows by OUTER_TILE columns over T tokens.  R is a constant where this is inlined. */
TILE_INLINE void outer_tile(size_t R, size_t T, const float *a, const float *b,
                            const outer_place *to)
{
    enum { VECTORS = PAIR * PV };
    vf acc[MAX_ROWS][VECTORS];
#pragma GCC unroll 12
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 16
        for (size_t p = 0; p < VECTORS; p++)
            acc[r][p] = v_set(0.0f);
    for (size_t t = 0; t < T; t++, a += MAX_ROWS, b += OUTER_TILE) {
        if (t % 8 == 0 && t < OUTER_COLUMNS / 2) { /* a line of each */
            cv_fetch(to->soon_a, 2 * t, 1, true);
            cv_fetch(to->soon_b, 2 * t, 1, true);
            if (t / 8 < to->rows) cv_fetch(to->W, t / 8 * to->ld, OUTER_TILE, false);
        }
        vf column[VECTORS];
#pragma GCC unroll 16
        for (size_t p = 0; p < VECTORS; p++)
            column[p] = v_load(b + p * VF);
#pragma GCC unroll 12
        for (size_t r = 0; r < R; r++) {
            const vf row = v_set(a[r]);
#pragma GCC unroll 16
            for (size_t p = 0; p < VECTORS; p++)
                acc[r][p] = v_fma(column[p], row, acc[r][p]);
        }
    }
    if (to->rows == R && to->columns == OUTER_TILE) {
#pragma GCC unroll 12
        for (size_t r = 0; r < R; r++)
#pragma GCC unroll 16
            for (size_t p = 0; p < VECTORS; p++) {
                float *out = to->W + r * to->ld + p * VF;
                v_store(out, v_add(v_load(out), acc[r][p]));
            }
        return;
    }
    float sums[MAX_ROWS][OUTER_TILE];
#pragma GCC unroll 12
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 16
        for (size_t p = 0; p < VECTORS; p++)
            v_store(sums[r] + p * VF, acc[r][p]);
    for (size_t r = 0; r < to->rows; r++)
        for (size_t i = 0; i < to->columns; i++)
            to->W[r * to->ld + i] += sums[r][i];
}

/* No more rows than there are, in thirds of a whole tile. */
static void outer_rows(size_t T, const float *a, const float *b, const outer_place *to)
{
    enum { THIRD = MAX_ROWS / 3 };
    _Static_assert(MAX_ROWS % THIRD == 0, "thirds of a tile");
    if (to->rows > 2 * THIRD)
        outer_tile(MAX_ROWS, T, a, b, to);
    else if (to->rows > THIRD)
        outer_tile(2 * THIRD, T, a, b, to);
    else
        outer_tile(THIRD, T, a, b, to);
}

/* n rows of W by m columns, both packed. */
static void outer_tiles(size_t T, size_t n, size_t m, const float *rows, const float *columns,
                        float *W, size_t ldw, cv_arriving next_a, cv_arriving next_b)
{
    for (size_t i = 0; i < m; i += OUTER_TILE, columns += OUTER_COLUMNS_STEP) {
        const float *a = rows;
        for (size_t o = 0; o < n; o += MAX_ROWS, a += OUTER_ROWS_STEP) {
            const outer_place to = { .W = W + o * ldw + i,
                                     .ld = ldw,
                                     .rows = cv_smaller(MAX_ROWS, n - o),
                                     .columns = cv_smaller(OUTER_TILE, m - i),
                                     .soon_a = cv_take_arriving(&next_a, a),
                                     .soon_b = cv_take_arriving(&next_b, a) };
            outer_rows(T, a, columns, &to);
        }
    }
}

/* Sums in f32, whatever may be rounded.  Rows that fit are packed once for a block of tokens. */
static void simd_outer(size_t T, size_t n, size_t m, const float *a, size_t lda, const float *b,
                       size_t ldb, float *W, size_t ldw, bool rounded, float *scratch)
{
    float *rows = scratch, *columns = scratch + OUTER_ROWS_SIZE;
    (void)rounded;
    for (size_t t = 0; t < T; t += OUTER_TOKENS, a += OUTER_TOKENS * lda, b += OUTER_TOKENS * ldb) {
        const size_t tokens = cv_smaller(OUTER_TOKENS, T - t);
        const size_t then = cv_smaller(OUTER_TOKENS, T - t - tokens);
        for (size_t i = 0; i < m; i += OUTER_COLUMNS) {
            const size_t wide = cv_smaller(OUTER_COLUMNS, m - i);
            outer_pack(OUTER_TILE, OUTER_COLUMNS_STEP, tokens, wide, b + i, ldb, columns);
            for (size_t o = 0; o < n; o += OUTER_ROWS) {
                const size_t many = cv_smaller(OUTER_ROWS, n - o);
                const bool last_a = o + many == n, last = last_a && i + wide == m;
                const bool again = n > OUTER_ROWS; /* a does not fit, and is packed for each i */
                const cv_arriving next_a = cv_packed_after(last, a, lda, last_a ? 0 : o + many,
                                                           last || again ? tokens : 0, then);
                const cv_arriving next_b =
                    cv_packed_after(last, b, ldb, i + wide, last_a ? tokens : 0, then);
                if (i == 0 || again)
                    outer_pack(MAX_ROWS, OUTER_ROWS_STEP, tokens, many, a + o, lda, rows);
                outer_tiles(tokens, many, wide, rows, columns, W + o * ldw + i, ldw, next_a,
                            next_b);
            }
        }
    }
}
