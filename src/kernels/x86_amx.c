/* x86_amx.c - the matrix product over AMX tiles of bf16, for weights of 16 and 8 bits.
 *
 * A tile product multiplies 16 rows of 32 inputs by 32 inputs of 16 outputs: both in bf16, which
 * has 8 bits of precision, their products and sums in f32.  To keep what those 8 bits lack, a
 * number is split into two of them, x = x1 + x2 and w = w1 + w2, and the product is
 *   x1 w1 + x2 w1 + x1 w2
 * What is left out is at most 2^-17 |x w| each for the rests of x and of w, and 2^-16 |x w| for
 * x2 w2.  A weight of BF16 has no w2, one of F16 leaves no rest.
 *
 * A sum runs over its inputs in blocks of 32, from the first to the last, and in each over x1 w2
 * (where there is a w2), x1 w1, x2 w1.  This order is the same for every row and every output,
 * whatever else is computed beside it.
 *
 * Not finite: a NaN gives NaN.  An infinite x gives what f32 gives, unless a weight is 256 or more;
 * with such a one, or an infinite one, or where a product overflows, it may be NaN instead of
 * infinity.  Numbers below 2^-126 count as zero. */
#include "kernels/x86_amx.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    SIDE = 16,                     /* rows of a tile */
    DEEP = 32,                     /* inputs of a tile */
    PIECE = SIDE * DEEP,           /* bf16 numbers of a tile */
    STEP = 2 * PIECE,              /* those of both pieces of 32 inputs */
    FOLD_STEPS = CV_FOLD / DEEP,   /* blocks of 32 inputs that are packed together */
    FOLD_SIZE = FOLD_STEPS * STEP, /* bf16 numbers of 16 rows or outputs, packed */
    ROW = DEEP * sizeof(uint16_t)  /* bytes of a row of any tile */
};

/* The operand of ldtilecfg: eight full tiles. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static const _Alignas(64) tile_config FULL_TILES = {
    .palette = 1,
    .row_bytes = { ROW, ROW, ROW, ROW, ROW, ROW, ROW, ROW },
    .rows = { SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE },
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- Splitting ------------------------------------------------------------------------------- */

/* x rounded to bf16, as f32.  A NaN may become zero: what remains of it is NaN still. */
INLINE __m512 first_piece(__m512 x)
{
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(-0x10000);
    __m512i bits = _mm512_add_epi32(_mm512_castps_si512(x), half);
    return _mm512_castsi512_ps(_mm512_and_si512(bits, upper));
}

/* No larger than the largest bf16, so that an infinity is left to the second piece, which meets
 * one product only.  So is a NaN. */
INLINE __m512 without_infinity(__m512 x)
{
    enum { SMALLER_SIZE_WITH_SIGN_OF_FIRST = 2 };
    const __m512 most = _mm512_castsi512_ps(_mm512_set1_epi32(0x7f7f0000));
    return _mm512_range_ps(x, most, SMALLER_SIZE_WITH_SIGN_OF_FIRST);
}

/* a and b rounded to bf16, one behind the other. */
INLINE __m512i rounded(__m512 a, __m512 b)
{
    return (__m512i)_mm512_cvtne2ps_pbh(b, a);
}

/* The 32 numbers of a and b as a row of each piece. */
INLINE void split_inputs(__m512 a, __m512 b, uint16_t *to)
{
    const __m512 a1 = first_piece(without_infinity(a)), b1 = first_piece(without_infinity(b));
    _mm512_store_si512(to, rounded(a1, b1));
    _mm512_store_si512(to + PIECE, rounded(_mm512_sub_ps(a, a1), _mm512_sub_ps(b, b1)));
}

/* From 16 numbers and 16 more to pairs of one of each, as a tile of weights wants two inputs. */
INLINE __m512i paired(__m512i halves)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, halves);
}

/* Two inputs of 16 outputs as a row of each piece. */
INLINE void split_weights(__m512 a, __m512 b, uint16_t *to)
{
    const __m512 a1 = first_piece(a), b1 = first_piece(b);
    const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(a1), 16);
    _mm512_store_si512(to, _mm512_or_si512(low, _mm512_castps_si512(b1)));
    _mm512_store_si512(to + PIECE, paired(rounded(_mm512_sub_ps(a, a1), _mm512_sub_ps(b, b1))));
}

/* ---- Packing --------------------------------------------------------------------------------- */

static size_t steps_of(size_t n)
{
    return (n + DEEP - 1) / DEEP;
}

/* All of 16 lanes, or the first n of them. */
INLINE __mmask16 lanes(size_t n)
{
    return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
}

/* One row of n inputs.  `to` is its place in the tiles of the first 32; padded with zeros. */
static void pack_row(size_t n, const float *x, uint16_t *to)
{
    size_t j = 0;
    for (; j + DEEP <= n; j += DEEP, to += STEP)
        split_inputs(_mm512_loadu_ps(x + j), _mm512_loadu_ps(x + j + 16), to);
    if (j < n) {
        const size_t rest = n - j;
        const __m512 a = _mm512_maskz_loadu_ps(lanes(rest), x + j);
        const __m512 b =
            rest > 16 ? _mm512_maskz_loadu_ps(lanes(rest - 16), x + j + 16) : _mm512_setzero_ps();
        split_inputs(a, b, to);
    }
}

static void clear_row(size_t n, uint16_t *to)
{
    for (size_t s = 0; s < steps_of(n); s++, to += STEP) {
        _mm512_store_si512(to, _mm512_setzero_si512());
        _mm512_store_si512(to + PIECE, _mm512_setzero_si512());
    }
}

/* n <= CV_FOLD inputs of T rows, as tiles [ceil(T / 16)][steps][piece][16][32].  Rows beyond T are
 * zero: what comes of them is dropped, but it shall not come of what lay there before. */
static void pack_inputs(size_t T, size_t n, const float *x, size_t ldx, uint16_t *packed)
{
    const size_t block = steps_of(n) * STEP;
    for (size_t t = 0; t < T; t++)
        pack_row(n, x + t * ldx, packed + t / SIDE * block + t % SIDE * DEEP);
    for (size_t t = T; t % SIDE != 0; t++)
        clear_row(n, packed + t / SIDE * block + t % SIDE * DEEP);
}

/* Inputs [j, j + 2) of a panel of 16 bits, one behind the other; zero from n on. */
INLINE __m512i two_inputs(const unsigned char *panel, size_t j, size_t n)
{
    const __mmask32 there = j + 2 <= n ? 0xffffffffu : j < n ? 0xffffu : 0;
    return _mm512_maskz_loadu_epi16(there, panel + j * CV_PANEL * sizeof(uint16_t));
}

/* BF16 is its own first piece, and has no other. */
static void pack_bf16(size_t j, size_t n, const unsigned char *panel, uint16_t *to)
{
    for (size_t m = 0; m < SIDE; m++, j += 2)
        _mm512_store_si512(to + m * DEEP, paired(two_inputs(panel, j, n)));
}

static void pack_f16(size_t j, size_t n, const unsigned char *panel, uint16_t *to)
{
    for (size_t m = 0; m < SIDE; m++, j += 2) {
        const __m512i two = two_inputs(panel, j, n);
        split_weights(_mm512_cvtph_ps(_mm512_castsi512_si256(two)),
                      _mm512_cvtph_ps(_mm512_extracti64x4_epi64(two, 1)), to + m * DEEP);
    }
}

/* 16 weights of one input in Q8. */
INLINE __m512 load_q8(const unsigned char *q, __m512 scale, __m512 min, bool has_min)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)q);
    const __m512 value = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
    return has_min ? _mm512_fmadd_ps(value, scale, min) : _mm512_mul_ps(value, scale);
}

/* Groups are 16 or 32 inputs and make up all of n, so half a tile has one scale, or none. */
INLINE void pack_q8(size_t j, size_t n, size_t group, bool has_min, const unsigned char *panel,
                    uint16_t *to)
{
    const size_t heads = (has_min ? 2 : 1) * CV_PANEL * sizeof(float);
    for (size_t end = j + DEEP; j < end; j += DEEP / 2, to += PIECE / 2) {
        if (j >= n) {
            for (size_t m = 0; m < SIDE / 2; m++)
                split_weights(_mm512_setzero_ps(), _mm512_setzero_ps(), to + m * DEEP);
            continue;
        }
        const unsigned char *head = panel + j / group * (heads + group * CV_PANEL);
        const unsigned char *q = head + heads + j % group * CV_PANEL;
        const __m512 scale = _mm512_loadu_ps(head);
        const __m512 min = has_min ? _mm512_loadu_ps(head + heads / 2) : _mm512_setzero_ps();
        for (size_t m = 0; m < SIDE / 2; m++, q += 2 * CV_PANEL)
            split_weights(load_q8(q, scale, min, has_min),
                          load_q8(q + CV_PANEL, scale, min, has_min), to + m * DEEP);
    }
}

/* Inputs [j, j + 32) of a panel as tiles [piece][16][16][2]: pairs of inputs of 16 outputs; zero
 * from n on. */
static void pack_weights(const cv_matrix *W, size_t j, size_t n, const unsigned char *panel,
                         uint16_t *to)
{
    if (W->layout == CV_LAYOUT_BF16)
        pack_bf16(j, n, panel, to);
    else if (W->layout == CV_LAYOUT_F16)
        pack_f16(j, n, panel, to);
    else if (W->has_min)
        pack_q8(j, n, W->group, true, panel, to);
    else
        pack_q8(j, n, W->group, false, panel, to);
}

/* ---- Tiles ----------------------------------------------------------------------------------- */

/* P panels, and their inputs [0, n): as they are stored, and packed. */
typedef struct panels {
    const cv_matrix *W;
    const unsigned char *stored[2];
    uint16_t *packed[2]; /* [steps][piece] tiles */
    size_t n;
} panels;

/* What a block of tiles takes, and where its sums go. */
typedef struct block {
    const uint16_t *x[2]; /* packed inputs of each 16 rows */
    const panels *w;
    bool fill; /* the first to use these panels packs them as it goes */
    float *y;
    size_t ldy;
    bool add;
} block;

/* Some compilers do not know that a tile load reads memory. */
#define COMPILER_BARRIER() __asm__ volatile("" ::: "memory")

/* Registers: 0 1 / 2 3 are the sums (rows / panels), 4 5 the inputs, 6 7 the weights.  Intrinsics
 * want plain numbers, so these are macros. */
#define LOAD_INPUTS(piece)                                   \
    do {                                                     \
        _tile_loadd(4, x0 + (piece)*PIECE, ROW);             \
        if (R == 2) _tile_loadd(5, x1 + (piece)*PIECE, ROW); \
    } while (0)
#define LOAD_WEIGHTS(piece)                                  \
    do {                                                     \
        _tile_loadd(6, w0 + (piece)*PIECE, ROW);             \
        if (P == 2) _tile_loadd(7, w1 + (piece)*PIECE, ROW); \
    } while (0)
#define MULTIPLY()                                     \
    do {                                               \
        _tile_dpbf16ps(0, 4, 6);                       \
        if (P == 2) _tile_dpbf16ps(1, 4, 7);           \
        if (R == 2) _tile_dpbf16ps(2, 5, 6);           \
        if (R == 2 && P == 2) _tile_dpbf16ps(3, 5, 7); \
    } while (0)

/* R times 16 rows by P panels.  R, P and two (pieces of a weight) are constants where this is
 * inlined. */
INLINE void multiply_block(size_t R, size_t P, bool two, const block *b)
{
    const panels *w = b->w;
    const uint16_t *x0 = b->x[0], *x1 = b->x[1];
    uint16_t *w0 = w->packed[0], *w1 = w->packed[1];
    const size_t ld = b->ldy * sizeof(float), w_step = two ? STEP : PIECE;
    COMPILER_BARRIER();
    if (b->add) {
        _tile_loadd(0, b->y, ld);
        if (P == 2) _tile_loadd(1, b->y + SIDE, ld);
        if (R == 2) _tile_loadd(2, b->y + SIDE * b->ldy, ld);
        if (R == 2 && P == 2) _tile_loadd(3, b->y + SIDE * b->ldy + SIDE, ld);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t j = 0; j < w->n; j += DEEP, x0 += STEP, x1 += STEP, w0 += w_step, w1 += w_step) {
        if (b->fill) {
            pack_weights(w->W, j, w->n, w->stored[0], w0);
            if (P == 2) pack_weights(w->W, j, w->n, w->stored[1], w1);
            COMPILER_BARRIER();
        }
        LOAD_INPUTS(0);
        if (two) {
            LOAD_WEIGHTS(1);
            MULTIPLY();
        }
        LOAD_WEIGHTS(0);
        MULTIPLY();
        LOAD_INPUTS(1);
        MULTIPLY();
    }
    _tile_stored(0, b->y, ld);
    if (P == 2) _tile_stored(1, b->y + SIDE, ld);
    if (R == 2) _tile_stored(2, b->y + SIDE * b->ldy, ld);
    if (R == 2 && P == 2) _tile_stored(3, b->y + SIDE * b->ldy + SIDE, ld);
}

static void multiply(size_t R, size_t P, bool two, const block *b)
{
    switch (R * 4 + P * 2 + two) {
    case 6: multiply_block(1, 1, false, b); break;
    case 7: multiply_block(1, 1, true, b); break;
    case 8: multiply_block(1, 2, false, b); break;
    case 9: multiply_block(1, 2, true, b); break;
    case 10: multiply_block(2, 1, false, b); break;
    case 11: multiply_block(2, 1, true, b); break;
    case 12: multiply_block(2, 2, false, b); break;
    case 13: multiply_block(2, 2, true, b); break;
    default: break;
    }
}

/* Sums that do not fill their tiles take a detour: only `rows` by `columns` of y exist. */
static void multiply_edge(size_t R, size_t P, bool two, const block *b, size_t rows, size_t columns)
{
    _Alignas(64) float edge[2 * SIDE * 2 * SIDE];
    const size_t ld = 2 * SIDE;
    for (size_t r = 0; r < R * SIDE; r++)
        for (size_t i = 0; i < ld; i++)
            edge[r * ld + i] = b->add && r < rows && i < columns ? b->y[r * b->ldy + i] : 0.0f;
    block inside = *b;
    inside.y = edge;
    inside.ldy = ld;
    multiply(R, P, two, &inside);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < columns; i++)
            b->y[r * b->ldy + i] = edge[r * ld + i];
}

/* ---- The product ----------------------------------------------------------------------------- */

/* P panels from p on, times all rows. */
static void multiply_rows(const panels *w, size_t p, size_t P, size_t T, const uint16_t *packed,
                          float *y, size_t ldy, bool add)
{
    const bool two = w->W->layout != CV_LAYOUT_BF16;
    const size_t columns = smaller(P * SIDE, w->W->rows - p * SIDE), tiles = steps_of(w->n) * STEP;
    for (size_t t = 0; t < T; t += 2 * SIDE) {
        const size_t rows = smaller(2 * SIDE, T - t), R = rows > SIDE ? 2 : 1;
        const uint16_t *x = packed + t / SIDE * tiles;
        const block b = {
            .x = { x, x + (R - 1) * tiles },
            .w = w,
            .fill = t == 0,
            .y = y + t * ldy + p * SIDE,
            .ldy = ldy,
            .add = add,
        };
        if (rows == R * SIDE && columns == P * SIDE)
            multiply(R, P, two, &b);
        else
            multiply_edge(R, P, two, &b, rows, columns);
    }
}

void cv_amx_matmul(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x, size_t ldx,
                   float *y, size_t ldy, bool add, float *scratch)
{
    uint16_t *weights = (uint16_t *)(void *)scratch, *packed = weights + 2 * FOLD_SIZE;

    _tile_loadconfig(&FULL_TILES);
    for (size_t j = 0; j < W->cols; j += CV_FOLD) {
        const size_t n = smaller(CV_FOLD, W->cols - j);
        pack_inputs(T, n, x + j, ldx, packed);
        for (size_t p = lo; p < hi; p += 2) {
            const size_t P = smaller(2, hi - p);
            const unsigned char *panel =
                W->panels + p * W->panel_bytes + W->panel_bytes / W->cols * j;
            const panels w = { .W = W,
                               .stored = { panel, panel + W->panel_bytes },
                               .packed = { weights, weights + FOLD_SIZE },
                               .n = n };
            multiply_rows(&w, p, P, T, packed, y, ldy, add || j > 0);
        }
    }
    _tile_release();
}
