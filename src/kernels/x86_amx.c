/* x86_amx.c - the matrix product over AMX tiles of bf16.
 *
 * A tile product multiplies 16 rows of 32 inputs by 32 inputs of 16 outputs: both in bf16, which
 * has 8 bits of precision, their products and sums in f32.  To keep what those 8 bits lack, a
 * number is split into several of them, x = x1 + x2 + x3 and w = w1 + w2 + w3, and the product is
 *   F32        x1 w1 + x2 w1 + x3 w1 + x1 w2 + x2 w2 + x1 w3     what f32 itself gives, nearly
 *   F16, Q8    x1 w1 + x2 w1 + x1 w2
 *   BF16       x1 w1 + x2 w1
 *   rounded    x1 w1                                             (training in bf16)
 * With three pieces what is left out is at most 2^-23 |x w| in all, with two 2^-17 |x w| each for
 * the rests of x and of w and 2^-16 |x w| for x2 w2.  A weight of BF16 has no w2, one of F16 leaves
 * no rest.
 *
 * A sum runs over its inputs in blocks of 32, from the first to the last, and in each over the last
 * piece of the weights first, so that no tile is loaded twice in a row: x1 w3, x1 w2, x2 w2, x2 w1,
 * x1 w1, x3 w1.  This order is the same for every row and every output, whatever else is computed
 * beside it.
 *
 * Not finite: a NaN gives NaN.  An infinite x gives what f32 gives, unless a weight is 256 or more;
 * with such a one, or an infinite one, or where a product overflows, it may be NaN instead of
 * infinity.  Numbers below 2^-126 count as zero, pieces of others as well. */
#include "kernels/x86_amx.h"
#include "kernels/arriving.h"
#include "kernels/x86_pairs.h"

enum {
    SIDE = 16,                                   /* rows of a tile */
    DEEP = 32,                                   /* inputs of a tile */
    PIECE = SIDE * DEEP,                         /* bf16 numbers of a tile */
    FOLD_STEPS = CV_FOLD / DEEP,                 /* blocks of 32 inputs in three pieces that are
                                                    packed together */
    PIECES_MAX = 3,                              /* of a number */
    FOLD_SIZE = FOLD_STEPS * PIECES_MAX * PIECE, /* bf16 numbers of 16 rows or outputs, packed */
    ROW = DEEP * sizeof(uint16_t),               /* bytes of a row of any tile */
    ROWS_AHEAD = 4                               /* that are fetched before they are packed */
};

/* How many pieces inputs and weights are cut into.  Piece a of an input meets piece b of a weight
 * where a + b is less than the more of them. */
typedef enum cut { CUT_ROUNDED, CUT_BF16, CUT_TWO, CUT_THREE } cut;

INLINE size_t pieces_of_x(cut c)
{
    return c == CUT_ROUNDED ? 1 : c == CUT_THREE ? 3 : 2;
}

INLINE size_t pieces_of_w(cut c)
{
    return c == CUT_THREE ? 3 : c == CUT_TWO ? 2 : 1;
}

INLINE size_t pieces_most(cut c)
{
    return pieces_of_x(c) > pieces_of_w(c) ? pieces_of_x(c) : pieces_of_w(c);
}

static cut cut_of(const cv_matrix *W)
{
    if (W->rounded) return CUT_ROUNDED;
    if (W->layout == CV_LAYOUT_F32) return CUT_THREE;
    return W->layout == CV_LAYOUT_BF16 ? CUT_BF16 : CUT_TWO;
}

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

/* The 32 numbers of a and b as a row of each of n pieces. */
INLINE void split_inputs(size_t n, __m512 a, __m512 b, uint16_t *to)
{
    for (; n > 1; n--, to += PIECE) {
        const __m512 a1 = first_piece(without_infinity(a)), b1 = first_piece(without_infinity(b));
        _mm512_store_si512(to, rounded(a1, b1));
        a = _mm512_sub_ps(a, a1);
        b = _mm512_sub_ps(b, b1);
    }
    _mm512_store_si512(to, rounded(a, b));
}

/* Two inputs of 16 outputs as a row of each of n > 1 pieces. */
INLINE void split_weights(size_t n, __m512 a, __m512 b, uint16_t *to)
{
    for (; n > 1; n--, to += PIECE) {
        const __m512 a1 = first_piece(a), b1 = first_piece(b);
        const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(a1), 16);
        _mm512_store_si512(to, _mm512_or_si512(low, _mm512_castps_si512(b1)));
        a = _mm512_sub_ps(a, a1);
        b = _mm512_sub_ps(b, b1);
    }
    _mm512_store_si512(to, paired(rounded(a, b)));
}

/* ---- Packing --------------------------------------------------------------------------------- */

static size_t steps_of(size_t n)
{
    return (n + DEEP - 1) / DEEP;
}

/* One row of n inputs in so many pieces.  `to` is its place in the tiles of the first 32; padded
 * with zeros. */
INLINE void pack_row(size_t pieces, size_t n, const float *x, size_t ldx, uint16_t *to)
{
    size_t j = 0;
    for (; j + DEEP <= n; j += DEEP, to += pieces * PIECE) {
        cv_fetch(x + j, ROWS_AHEAD * ldx, 2 * CV_LINE, false);
        split_inputs(pieces, _mm512_loadu_ps(x + j), _mm512_loadu_ps(x + j + 16), to);
    }
    if (j < n) {
        const size_t rest = n - j;
        const __m512 a = _mm512_maskz_loadu_ps(lanes(rest), x + j);
        const __m512 b =
            rest > 16 ? _mm512_maskz_loadu_ps(lanes(rest - 16), x + j + 16) : _mm512_setzero_ps();
        split_inputs(pieces, a, b, to);
    }
}

static void clear_row(size_t pieces, size_t n, uint16_t *to)
{
    for (size_t s = 0; s < pieces * steps_of(n); s++, to += PIECE)
        _mm512_store_si512(to, _mm512_setzero_si512());
}

/* n <= CV_FOLD inputs of T rows, as tiles [ceil(T / 16)][steps][piece][16][32].  Rows beyond T are
 * zero: what comes of them is dropped, but it shall not come of what lay there before. */
INLINE void pack_rows(size_t pieces, size_t T, size_t n, const float *x, size_t ldx,
                      uint16_t *packed)
{
    const size_t block = steps_of(n) * pieces * PIECE;
    for (size_t t = 0; t < T; t++)
        pack_row(pieces, n, x + t * ldx, ldx, packed + t / SIDE * block + t % SIDE * DEEP);
    for (size_t t = T; t % SIDE != 0; t++)
        clear_row(pieces, n, packed + t / SIDE * block + t % SIDE * DEEP);
}

static void pack_inputs(cut c, size_t T, size_t n, const float *x, size_t ldx, uint16_t *packed)
{
    switch (pieces_of_x(c)) {
    case 1: pack_rows(1, T, n, x, ldx, packed); break;
    case 2: pack_rows(2, T, n, x, ldx, packed); break;
    default: pack_rows(3, T, n, x, ldx, packed); break;
    }
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
        split_weights(2, _mm512_cvtph_ps(_mm512_castsi512_si256(two)),
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
                split_weights(2, _mm512_setzero_ps(), _mm512_setzero_ps(), to + m * DEEP);
            continue;
        }
        const unsigned char *head = panel + j / group * (heads + group * CV_PANEL);
        const unsigned char *q = head + heads + j % group * CV_PANEL;
        const __m512 scale = _mm512_loadu_ps(head);
        const __m512 min = has_min ? _mm512_loadu_ps(head + heads / 2) : _mm512_setzero_ps();
        for (size_t m = 0; m < SIDE / 2; m++, q += 2 * CV_PANEL)
            split_weights(2, load_q8(q, scale, min, has_min),
                          load_q8(q + CV_PANEL, scale, min, has_min), to + m * DEEP);
    }
}

static void pack_f32(size_t j, size_t n, const unsigned char *panel, uint16_t *to)
{
    const float *w = (const float *)(const void *)panel;
    for (size_t m = 0; m < SIDE; m++, j += 2)
        split_weights(PIECES_MAX, j < n ? _mm512_loadu_ps(w + j * CV_PANEL) : _mm512_setzero_ps(),
                      j + 1 < n ? _mm512_loadu_ps(w + (j + 1) * CV_PANEL) : _mm512_setzero_ps(),
                      to + m * DEEP);
}

/* Inputs [j, j + 32) of a panel as tiles [piece][16][16][2]: pairs of inputs of 16 outputs; zero
 * from n on. */
static void pack_weights(const cv_matrix *W, size_t j, size_t n, const unsigned char *panel,
                         uint16_t *to)
{
    if (W->layout == CV_LAYOUT_F32)
        pack_f32(j, n, panel, to);
    else if (W->layout == CV_LAYOUT_BF16)
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

/* R times 16 rows by P panels.  R, P and the cut are constants where this is inlined. */
INLINE void multiply_block(size_t R, size_t P, cut c, const block *b)
{
    const panels *w = b->w;
    const uint16_t *x0 = b->x[0], *x1 = b->x[1];
    uint16_t *w0 = w->packed[0], *w1 = w->packed[1];
    const size_t nx = pieces_of_x(c), nw = pieces_of_w(c), most = pieces_most(c);
    const size_t ld = b->ldy * sizeof(float), x_step = nx * PIECE, w_step = nw * PIECE;
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
    for (size_t j = 0; j < w->n; j += DEEP) {
        if (b->fill) {
            pack_weights(w->W, j, w->n, w->stored[0], w0);
            if (P == 2) pack_weights(w->W, j, w->n, w->stored[1], w1);
            COMPILER_BARRIER();
        }
        size_t at = nx; /* the piece of the inputs that is loaded */
#pragma GCC unroll 3
        for (size_t q = nw; q-- > 0;) {
            LOAD_WEIGHTS(q);
            const size_t first = at < nx ? at : 0;
#pragma GCC unroll 3
            for (size_t k = 0; k < nx && k + q < most; k++) {
                const size_t a = k == 0 ? first : k <= first ? k - 1 : k;
                if (a != at) LOAD_INPUTS(a);
                at = a;
                MULTIPLY();
            }
        }
        x0 += x_step;
        x1 += x_step;
        w0 += w_step;
        w1 += w_step;
    }
    _tile_stored(0, b->y, ld);
    if (P == 2) _tile_stored(1, b->y + SIDE, ld);
    if (R == 2) _tile_stored(2, b->y + SIDE * b->ldy, ld);
    if (R == 2 && P == 2) _tile_stored(3, b->y + SIDE * b->ldy + SIDE, ld);
}

INLINE void multiply_cut(size_t R, size_t P, cut c, const block *b)
{
    switch (c) {
    case CUT_ROUNDED: multiply_block(R, P, CUT_ROUNDED, b); break;
    case CUT_BF16: multiply_block(R, P, CUT_BF16, b); break;
    case CUT_TWO: multiply_block(R, P, CUT_TWO, b); break;
    case CUT_THREE: multiply_block(R, P, CUT_THREE, b); break;
    }
}

static void multiply(size_t R, size_t P, cut c, const block *b)
{
    switch (R * 2 + P) {
    case 3: multiply_cut(1, 1, c, b); break;
    case 4: multiply_cut(1, 2, c, b); break;
    case 5: multiply_cut(2, 1, c, b); break;
    case 6: multiply_cut(2, 2, c, b); break;
    default: break;
    }
}

/* Sums that do not fill their tiles take a detour: only `rows` by `columns` of y exist. */
static void multiply_edge(size_t R, size_t P, cut c, const block *b, size_t rows, size_t columns)
{
    _Alignas(64) float edge[2 * SIDE * 2 * SIDE];
    const size_t ld = 2 * SIDE;
    for (size_t r = 0; r < R * SIDE; r++)
        for (size_t i = 0; i < ld; i++)
            edge[r * ld + i] = b->add && r < rows && i < columns ? b->y[r * b->ldy + i] : 0.0f;
    block inside = *b;
    inside.y = edge;
    inside.ldy = ld;
    multiply(R, P, c, &inside);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < columns; i++)
            b->y[r * b->ldy + i] = edge[r * ld + i];
}

/* ---- The product ----------------------------------------------------------------------------- */

/* Panels that are packed together where there are many rows: their tiles stay in the second cache,
 * and the inputs come by once for all of them. */
enum { GROUP = CV_MATMUL_GROUP };

/* Inputs that are packed together: the fewer pieces the more. */
INLINE size_t fold_of(cut c)
{
    return FOLD_STEPS * PIECES_MAX / pieces_most(c) * DEEP;
}

/* Panels of a product that are computed together, and inputs [from, from + n) of theirs. */
typedef struct group {
    const cv_matrix *W;
    size_t lo, hi; /* at most GROUP panels */
    size_t from, n;
    uint16_t *packed; /* [panels][FOLD_SIZE], filled with the first rows */
} group;

/* Where the sums of the next panels will be put: a store that has to wait for its line holds up the
 * products behind it. */
INLINE void fetch_sums(size_t rows, const float *y, size_t ld)
{
    for (size_t r = 0; r < rows; r++) {
        _mm_prefetch((const char *)(y + r * ld), _MM_HINT_T0);
        _mm_prefetch((const char *)(y + r * ld + SIDE), _MM_HINT_T0);
    }
}

/* A group times up to two tiles of rows; `at` says where their inputs and sums are. */
static void multiply_rows(const group *g, size_t rows, const block *at)
{
    const cut c = cut_of(g->W);
    const size_t R = rows > SIDE ? 2 : 1, from = g->W->panel_bytes / g->W->cols * g->from;
    for (size_t p = g->lo; p < g->hi; p += 2) {
        const size_t P = cv_smaller(2, g->hi - p),
                     columns = cv_smaller(P * SIDE, g->W->rows - p * SIDE);
        const unsigned char *stored = g->W->panels + p * g->W->panel_bytes + from;
        uint16_t *packed = g->packed + (p - g->lo) * FOLD_SIZE;
        const panels w = { .W = g->W,
                           .stored = { stored, stored + g->W->panel_bytes },
                           .packed = { packed, packed + FOLD_SIZE },
                           .n = g->n };
        block b = *at;
        b.x[1] = at->x[R - 1];
        b.y += p * SIDE;
        b.w = &w;
        if (!b.add && p + 4 <= g->hi) fetch_sums(rows, b.y + 2 * SIDE, b.ldy);
        if (rows == R * SIDE && columns == P * SIDE)
            multiply(R, P, c, &b);
        else
            multiply_edge(R, P, c, &b, rows, columns);
    }
}

/* A group times all rows of x. */
static void multiply_group(const group *g, size_t T, const float *x, size_t ldx, uint16_t *packed,
                           float *y, size_t ldy, bool add)
{
    const cut c = cut_of(g->W);
    const size_t tiles = steps_of(g->n) * pieces_of_x(c) * PIECE;
    for (size_t t = 0; t < T; t += 2 * SIDE) {
        const size_t rows = cv_smaller(2 * SIDE, T - t);
        pack_inputs(c, rows, g->n, x + t * ldx, ldx, packed);
        const block b = { .x = { packed, packed + tiles },
                          .fill = t == 0,
                          .y = y + t * ldy,
                          .ldy = ldy,
                          .add = add };
        multiply_rows(g, rows, &b);
    }
}

void cv_amx_matmul(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x, size_t ldx,
                   float *y, size_t ldy, bool add, float *scratch)
{
    uint16_t *weights = (uint16_t *)(void *)scratch, *packed = weights + GROUP * FOLD_SIZE;
    const size_t fold = fold_of(cut_of(W)), many = T > 2 * SIDE ? GROUP : 2;

    _tile_loadconfig(&FULL_TILES);
    for (size_t j = 0; j < W->cols; j += fold)
        for (size_t p = lo; p < hi; p += many) {
            const group g = { .W = W,
                              .lo = p,
                              .hi = cv_smaller(p + many, hi),
                              .from = j,
                              .n = cv_smaller(fold, W->cols - j),
                              .packed = weights };
            multiply_group(&g, T, x + j, ldx, packed, y, ldy, add || j > 0);
        }
    _tile_release();
}

/* ---- Outer products -------------------------------------------------------------------------- */

/* Here the sum runs over tokens: a is cut as inputs are, from columns, and b as weights are. */
enum {
    TOKENS = 512,             /* of a block */
    ROWS = 384,               /* of W, columns of a, that are packed together, times their pieces */
    COLUMNS = 960,            /* and of b */
    PACKED_A = ROWS * TOKENS, /* bf16 numbers */
    PACKED_B = COLUMNS * TOKENS
};

_Static_assert((PACKED_A + PACKED_B) * sizeof(uint16_t) <= CV_OUTER_SCRATCH * sizeof(float),
               "room for what is packed");

/* 16 numbers of row t, of which n are there; zero behind the last row. */
INLINE __m512 row_part(const float *x, size_t ld, size_t t, size_t T, size_t n)
{
    return t < T ? _mm512_maskz_loadu_ps(lanes(n), x + t * ld) : _mm512_setzero_ps();
}

/* Two tokens of 16 columns as a row of each piece. */
INLINE void split_tokens(size_t pieces, __m512 a, __m512 b, uint16_t *to)
{
    if (pieces == 1)
        _mm512_store_si512(to, paired(rounded(a, b)));
    else
        split_weights(pieces, a, b, to);
}

/* m columns of T <= TOKENS tokens as tiles [m / 16][steps][piece][16 pairs of tokens][16][2]. */
INLINE void pack_b(size_t pieces, size_t T, size_t m, const float *b, size_t ld, uint16_t *to)
{
    const size_t panel = steps_of(T) * pieces * PIECE;
    for (size_t t = 0; t < steps_of(T) * DEEP; t += 2)
        for (size_t i = 0; i < m; i += SIDE) {
            cv_fetch(b + t * ld + i, ROWS_AHEAD * ld, 2 * CV_LINE, false);
            split_tokens(pieces, row_part(b + i, ld, t, T, m - i),
                         row_part(b + i, ld, t + 1, T, m - i),
                         to + i / SIDE * panel + t / DEEP * pieces * PIECE + t % DEEP / 2 * DEEP);
        }
}

/* The transpose of 16 x 16 numbers of 32 bits, in place. */
INLINE void transpose(uint16_t *tile)
{
    __m512i r[SIDE], s[SIDE];
    for (size_t i = 0; i < SIDE; i++)
        r[i] = _mm512_load_si512(tile + i * DEEP);
    for (size_t i = 0; i < SIDE; i += 2) { /* pairs of rows */
        s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < SIDE; i += 4) { /* four rows */
        r[i] = _mm512_unpacklo_epi64(s[i], s[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(s[i], s[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(s[i + 1], s[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(s[i + 1], s[i + 3]);
    }
    for (size_t i = 0; i < 4; i++) { /* quarters of columns */
        s[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        s[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        s[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        s[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
    for (size_t i = 0; i < 4; i++) {
        _mm512_store_si512(tile + i * DEEP, _mm512_shuffle_i32x4(s[i], s[8 + i], 0x88));
        _mm512_store_si512(tile + (4 + i) * DEEP, _mm512_shuffle_i32x4(s[4 + i], s[12 + i], 0x88));
        _mm512_store_si512(tile + (8 + i) * DEEP, _mm512_shuffle_i32x4(s[i], s[8 + i], 0xdd));
        _mm512_store_si512(tile + (12 + i) * DEEP, _mm512_shuffle_i32x4(s[4 + i], s[12 + i], 0xdd));
    }
}

/* n columns of T <= TOKENS tokens as tiles [n / 16][steps][piece][16][32 tokens]. */
INLINE void pack_a(size_t pieces, size_t T, size_t n, const float *a, size_t ld, uint16_t *to)
{
    const size_t panel = steps_of(T) * pieces * PIECE;
    for (size_t t = 0; t < T; t += DEEP, to += pieces * PIECE) {
        for (size_t m = 0; m < SIDE; m++)
            for (size_t i = 0; i < n; i += SIDE)
                split_tokens(pieces, row_part(a + i, ld, t + 2 * m, T, n - i),
                             row_part(a + i, ld, t + 2 * m + 1, T, n - i),
                             to + i / SIDE * panel + m * DEEP);
        for (size_t i = 0; i < n; i += SIDE)
            for (size_t p = 0; p < pieces; p++)
                transpose(to + i / SIDE * panel + p * PIECE);
    }
}

/* Up to 32 rows of W, from packed a, and m columns, from packed b. */
static void outer_rows(cut c, size_t T, size_t rows, size_t m, const uint16_t *a, uint16_t *b,
                       float *W, size_t ldw)
{
    const size_t size = steps_of(T) * pieces_of_w(c) * PIECE, R = rows > SIDE ? 2 : 1;
    for (size_t i = 0; i < m; i += 2 * SIDE) {
        const size_t columns = cv_smaller(2 * SIDE, m - i), P = columns > SIDE ? 2 : 1;
        uint16_t *first = b + i / SIDE * size;
        const panels w = { .packed = { first, first + (P - 1) * size }, .n = T };
        const block inside = {
            .x = { a, a + (R - 1) * size }, .w = &w, .y = W + i, .ldy = ldw, .add = true
        };
        if (rows == R * SIDE && columns == P * SIDE)
            multiply(R, P, c, &inside);
        else
            multiply_edge(R, P, c, &inside, rows, columns);
    }
}

/* Blocks of rows and columns of W, from T tokens. */
INLINE void outer_tokens(cut c, size_t T, size_t n, size_t m, const float *a, size_t lda,
                         const float *b, size_t ldb, float *W, size_t ldw, uint16_t *packed)
{
    const size_t pieces = pieces_of_w(c), size = steps_of(T) * pieces * PIECE;
    const size_t most_rows = ROWS / pieces, most_columns = COLUMNS / pieces;
    uint16_t *packed_a = packed, *packed_b = packed + PACKED_A;
    for (size_t i = 0; i < m; i += most_columns) {
        const size_t columns = cv_smaller(most_columns, m - i);
        pack_b(pieces, T, columns, b + i, ldb, packed_b);
        for (size_t o = 0; o < n; o += most_rows) {
            const size_t rows = cv_smaller(most_rows, n - o);
            pack_a(pieces, T, rows, a + o, lda, packed_a);
            for (size_t r = 0; r < rows; r += 2 * SIDE)
                outer_rows(c, T, cv_smaller(2 * SIDE, rows - r), columns,
                           packed_a + r / SIDE * size, packed_b, W + (o + r) * ldw + i, ldw);
        }
    }
}

void cv_amx_outer(size_t T, size_t n, size_t m, const float *a, size_t lda, const float *b,
                  size_t ldb, float *W, size_t ldw, bool rounded_too, float *scratch)
{
    uint16_t *packed = (uint16_t *)(void *)scratch;
    _tile_loadconfig(&FULL_TILES);
    for (size_t t = 0; t < T; t += TOKENS, a += TOKENS * lda, b += TOKENS * ldb) {
        const size_t tokens = cv_smaller(TOKENS, T - t);
        if (rounded_too)
            outer_tokens(CUT_ROUNDED, tokens, n, m, a, lda, b, ldb, W, ldw, packed);
        else
            outer_tokens(CUT_THREE, tokens, n, m, a, lda, b, ldb, W, ldw, packed);
    }
    _tile_release();
}
