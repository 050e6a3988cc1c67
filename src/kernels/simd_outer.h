/* simd_outer.h - sums of outer products over tokens, part of simd_body.h.
 *
 * A tile is MAX_ROWS rows of W by the PAIR panels of a product's tile.  Both inputs are packed for a
 * block of tokens: b so that the columns of a tile lie side by side, a likewise with its rows. */

enum {
    OUTER_TOKENS = 256,
    OUTER_ROWS = 192 / MAX_ROWS * MAX_ROWS, /* of a that are packed together */
    OUTER_COLUMNS = PAIR * CV_PANEL
};

_Static_assert(OUTER_TOKENS * (OUTER_ROWS + OUTER_COLUMNS) <= CV_OUTER_SCRATCH, "room to pack");

/* n columns of T rows, side by side, padded with zeros to whole groups of `group`:
 * [n / group][T][group]. */
TILE_INLINE void outer_pack(size_t group, size_t T, size_t n, const float *from, size_t ld,
                            float *to)
{
    for (size_t i = 0; i < n; i += group) {
        const size_t there = smaller(group, n - i);
        for (size_t t = 0; t < T; t++, to += group) {
            if (there == group) {
                memcpy(to, from + t * ld + i, group * sizeof *to);
                continue;
            }
            memcpy(to, from + t * ld + i, there * sizeof *to);
            memset(to + there, 0, (group - there) * sizeof *to);
        }
    }
}

static void outer_tile(size_t T, const float *a, const float *b, float *W, size_t ldw, size_t rows,
                       size_t columns)
{
    enum { VECTORS = PAIR * PV };
    vf acc[MAX_ROWS][VECTORS];
#pragma GCC unroll 12
    for (size_t r = 0; r < MAX_ROWS; r++)
#pragma GCC unroll 16
        for (size_t p = 0; p < VECTORS; p++)
            acc[r][p] = v_set(0.0f);
    for (size_t t = 0; t < T; t++, a += MAX_ROWS, b += OUTER_COLUMNS) {
        vf column[VECTORS];
#pragma GCC unroll 16
        for (size_t p = 0; p < VECTORS; p++)
            column[p] = v_load(b + p * VF);
#pragma GCC unroll 12
        for (size_t r = 0; r < MAX_ROWS; r++) {
            const vf row = v_set(a[r]);
#pragma GCC unroll 16
            for (size_t p = 0; p < VECTORS; p++)
                acc[r][p] = v_fma(column[p], row, acc[r][p]);
        }
    }
    float sums[MAX_ROWS][OUTER_COLUMNS];
#pragma GCC unroll 12
    for (size_t r = 0; r < MAX_ROWS; r++)
#pragma GCC unroll 16
        for (size_t p = 0; p < VECTORS; p++)
            v_store(sums[r] + p * VF, acc[r][p]);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < columns; i++)
            W[r * ldw + i] += sums[r][i];
}

/* Sums in f32, whatever may be rounded. */
static void simd_outer(size_t T, size_t n, size_t m, const float *a, size_t lda, const float *b,
                       size_t ldb, float *W, size_t ldw, bool rounded, float *scratch)
{
    float *rows = scratch, *columns = scratch + OUTER_TOKENS * OUTER_ROWS;
    (void)rounded;
    for (size_t t = 0; t < T; t += OUTER_TOKENS) {
        const size_t tokens = smaller(OUTER_TOKENS, T - t);
        for (size_t first = 0; first < n; first += OUTER_ROWS) {
            const size_t many = smaller(OUTER_ROWS, n - first);
            outer_pack(MAX_ROWS, tokens, many, a + t * lda + first, lda, rows);
            for (size_t i = 0; i < m; i += OUTER_COLUMNS) {
                const size_t width = smaller(OUTER_COLUMNS, m - i);
                outer_pack(OUTER_COLUMNS, tokens, width, b + t * ldb + i, ldb, columns);
                for (size_t o = 0; o < many; o += MAX_ROWS)
                    outer_tile(tokens, rows + o * tokens, columns, W + (first + o) * ldw + i, ldw,
                               smaller(MAX_ROWS, many - o), width);
            }
        }
    }
}
