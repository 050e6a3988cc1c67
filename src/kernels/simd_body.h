/* simd_body.h - the kernels, written once over a vector of VF floats.
 *
 * Included by x86_avx2.c, x86_avx512.c and arm_neon.c after they have said what a vector is:
 *   vf, VF            the vector and its number of lanes (16 is a multiple of it)
 *   MAX_ROWS          rows of the widest tile
 *   PANELS_FOR(R)     panels of a tile of R rows
 *   v_load v_store v_set v_add v_sub v_mul v_div v_fma v_max v_min v_round v_load_f16 v_load_bf16
 *   v_load_i8 v_pow2 v_zero_below v_sum v_sums v_turn
 * No instruction set is named below this line, and no logic above it.
 *
 * The tile is everything: R rows times P panels of sums in registers, one load of weights and one
 * broadcast of an input per multiply-add.  Lanes are output rows, so nothing is ever summed across
 * lanes, and a sum runs over its inputs in order whatever R and P are. */
#ifndef CV_SIMD_BODY_H
#define CV_SIMD_BODY_H

#include <math.h>
#include <string.h>

#include "base/smaller.h"
#include "kernels/arriving.h"

#define TILE_INLINE static inline __attribute__((always_inline))
#define PV          (CV_PANEL / VF) /* vectors per panel */

/* ---- Matrix product -------------------------------------------------------------------------- */

/* Sizes of one scale group of the Q8 layout. */
TILE_INLINE size_t q8_heads_bytes(bool has_min)
{
    return (has_min ? 2 : 1) * CV_PANEL * sizeof(float);
}

/* One vector of weights, as f32: lane group `lane` of input j of a panel stored as f32 or half. */
TILE_INLINE vf load_weight(cv_layout layout, const unsigned char *panel, size_t j, size_t lane)
{
    size_t at = j * CV_PANEL + lane;
    if (layout == CV_LAYOUT_F32) return v_load((const float *)(const void *)panel + at);
    if (layout == CV_LAYOUT_F16) return v_load_f16((const uint16_t *)(const void *)panel + at);
    return v_load_bf16((const uint16_t *)(const void *)panel + at);
}

/* One vector of Q8 weights.  `group` points at its scale group, q is the offset of its integers. */
TILE_INLINE vf load_q8(const unsigned char *group, size_t q, size_t lane, bool has_min)
{
    vf value = v_load_i8((const int8_t *)group + q + lane);
    vf scale = v_load((const float *)(const void *)group + lane);
    if (!has_min) return v_mul(value, scale);
    return v_fma(value, scale, v_load((const float *)(const void *)group + CV_PANEL + lane));
}

/* How the inputs of a tile lie: row-major, or packed in blocks of BLOCK inputs, [j / 16][R][16], so
 * that a tile reads one stream and its R broadcasts stand at constant distances. */
typedef struct inputs {
    const float *x;
    size_t ld;                 /* floats between rows, when not packed */
    const float *soon, *soon2; /* when packed: two rows that are packed next, to be asked for */
} inputs;

enum { BLOCK = 16 }; /* divides every group and CV_FOLD */

/* The sums of one tile over inputs [0, n), n <= CV_FOLD, into y (added where `add`).  `panel` is
 * the first of P panels, `stride` bytes apart.  layout, packed, P and R are constants where this is
 * inlined, so that the loops unroll and acc lives in registers. */
TILE_INLINE void tile(cv_layout layout, bool packed, size_t P, size_t R, const cv_matrix *W,
                      const unsigned char *panel, size_t stride, size_t n, const inputs *in,
                      float *y, size_t ldy, bool add)
{
    vf acc[MAX_ROWS][8 * PV];
#pragma GCC unroll 12
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 16
        for (size_t p = 0; p < P * PV; p++)
            acc[r][p] = v_set(0.0f);

    const bool q8 = layout == CV_LAYOUT_Q8;
    const size_t heads = q8_heads_bytes(W->has_min);
    for (size_t j0 = 0; j0 < n; j0 += BLOCK) {
        /* Where this block's weights are, and its inputs. */
        const unsigned char *block = panel;
        size_t first = j0;
        if (q8) {
            block += j0 / W->group * (heads + W->group * CV_PANEL);
            first = j0 % W->group;
        }
        const float *x = in->x + (packed ? j0 * R : j0);
        const size_t end = cv_smaller(BLOCK, n - j0), ld = packed ? BLOCK : in->ld;
        if (packed) { /* what the sums go to has left the caches; what comes next was never there */
            for (size_t r = j0 / BLOCK; r < R; r += (n + BLOCK - 1) / BLOCK)
                for (size_t p = 0; p < P; p++)
                    __builtin_prefetch(y + r * ldy + p * CV_PANEL, 1);
            cv_fetch(in->soon, j0, 1, true);
            cv_fetch(in->soon2, j0, 1, true);
        }
        for (size_t j = 0; j < end; j++) {
            vf w[8 * PV];
#pragma GCC unroll 16
            for (size_t p = 0; p < P * PV; p++) {
                const unsigned char *at = block + p / PV * stride;
                const size_t lane = p % PV * VF;
                w[p] = q8 ? load_q8(at, heads + (first + j) * CV_PANEL, lane, W->has_min)
                          : load_weight(layout, at, first + j, lane);
            }
#pragma GCC unroll 12
            for (size_t r = 0; r < R; r++) {
                const vf xr = v_set(x[r * ld + j]);
#pragma GCC unroll 16
                for (size_t p = 0; p < P * PV; p++)
                    acc[r][p] = v_fma(w[p], xr, acc[r][p]);
            }
        }
    }

#pragma GCC unroll 12
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 16
        for (size_t p = 0; p < P * PV; p++) {
            float *out = y + r * ldy + p * VF;
            v_store(out, add ? v_add(v_load(out), acc[r][p]) : acc[r][p]);
        }
}

/* The last panel of a matrix whose rows are no multiple of 16 goes through here: only its real
 * columns of y are touched. */
typedef struct tail {
    float y[MAX_ROWS * CV_PANEL];
} tail;

static void tail_out(const tail *t, size_t columns, size_t R, float *y, size_t ldy, bool add)
{
    for (size_t r = 0; r < R; r++)
        for (size_t i = 0; i < columns; i++)
            y[r * ldy + i] = (add ? y[r * ldy + i] : 0.0f) + t->y[r * CV_PANEL + i];
}

enum { FEW = 3 }; /* rows that are read where they lie, unpacked */

#define TILE(layout, packed, P, R) tile(layout, packed, P, R, W, panel, stride, n, in, y, ldy, add)
#define ARGUMENTS                                                                              \
    const cv_matrix *W, const unsigned char *panel, size_t stride, size_t n, const inputs *in, \
        float *y, size_t ldy, bool add

/* R = 1..FEW rows, unpacked.  all: PANELS_FOR(R) panels, else one. */
TILE_INLINE void tile_few(cv_layout layout, bool all, size_t R, ARGUMENTS)
{
    switch (R * 2 + all) {
    case 2: TILE(layout, false, 1, 1); break;
    case 3: TILE(layout, false, PANELS_FOR(1), 1); break;
    case 4: TILE(layout, false, 1, 2); break;
    case 5: TILE(layout, false, PANELS_FOR(2), 2); break;
    case 6: TILE(layout, false, 1, 3); break;
    case 7: TILE(layout, false, PANELS_FOR(3), 3); break;
    default: break;
    }
}

/* R = 1..MAX_ROWS rows, packed, P panels. */
TILE_INLINE void tile_packed(cv_layout layout, size_t P, size_t R, ARGUMENTS)
{
#define ROWS(R)                                                          \
    case R:                                                              \
        if (R <= MAX_ROWS) TILE(layout, true, P, R <= MAX_ROWS ? R : 1); \
        break
    switch (R) {
        ROWS(1);
        ROWS(2);
        ROWS(3);
        ROWS(4);
        ROWS(5);
        ROWS(6);
        ROWS(7);
        ROWS(8);
        ROWS(9);
        ROWS(10);
        ROWS(11);
        ROWS(12);
    default: break;
    }
#undef ROWS
}

#define PAIR PANELS_FOR(MAX_ROWS)

/* The four layouts, each with its tiles inside one function. */
#define FORWARD W, panel, stride, n, in, y, ldy, add
static void few_f32(bool all, size_t R, ARGUMENTS)
{
    tile_few(CV_LAYOUT_F32, all, R, FORWARD);
}
static void few_f16(bool all, size_t R, ARGUMENTS)
{
    tile_few(CV_LAYOUT_F16, all, R, FORWARD);
}
static void few_bf16(bool all, size_t R, ARGUMENTS)
{
    tile_few(CV_LAYOUT_BF16, all, R, FORWARD);
}
static void few_q8(bool all, size_t R, ARGUMENTS)
{
    tile_few(CV_LAYOUT_Q8, all, R, FORWARD);
}
static void packed_f32(size_t P, size_t R, ARGUMENTS)
{
    if (P == PAIR)
        tile_packed(CV_LAYOUT_F32, PAIR, R, FORWARD);
    else
        tile_packed(CV_LAYOUT_F32, 1, R, FORWARD);
}
static void packed_f16(size_t P, size_t R, ARGUMENTS)
{
    if (P == PAIR)
        tile_packed(CV_LAYOUT_F16, PAIR, R, FORWARD);
    else
        tile_packed(CV_LAYOUT_F16, 1, R, FORWARD);
}
static void packed_bf16(size_t P, size_t R, ARGUMENTS)
{
    if (P == PAIR)
        tile_packed(CV_LAYOUT_BF16, PAIR, R, FORWARD);
    else
        tile_packed(CV_LAYOUT_BF16, 1, R, FORWARD);
}
static void packed_q8(size_t P, size_t R, ARGUMENTS)
{
    if (P == PAIR)
        tile_packed(CV_LAYOUT_Q8, PAIR, R, FORWARD);
    else
        tile_packed(CV_LAYOUT_Q8, 1, R, FORWARD);
}

typedef struct layout_tiles {
    void (*few)(bool all, size_t R, ARGUMENTS);
    void (*packed)(size_t P, size_t R, ARGUMENTS);
} layout_tiles;

static const layout_tiles tiles_of[] = {
    [CV_LAYOUT_F32] = { few_f32, packed_f32 },
    [CV_LAYOUT_F16] = { few_f16, packed_f16 },
    [CV_LAYOUT_BF16] = { few_bf16, packed_bf16 },
    [CV_LAYOUT_Q8] = { few_q8, packed_q8 },
};

/* Bytes from input 0 of a panel to input j (a multiple of the group). */
static size_t panel_offset(const cv_matrix *W, size_t j)
{
    return W->panel_bytes / W->cols * j;
}

/* Decode: up to FEW rows; each panel is streamed once from end to end. */
static void matmul_few(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x,
                       size_t ldx, float *y, size_t ldy, bool add)
{
    const layout_tiles *tiles = &tiles_of[W->layout];
    const size_t P = T == 1 ? PANELS_FOR(1) : T == 2 ? PANELS_FOR(2) : PANELS_FOR(3);
    const size_t whole = cv_smaller(hi, W->rows / CV_PANEL);

    for (size_t p = lo; p < hi;) {
        const bool all = p + P <= whole;
        const bool last = p >= whole; /* the padded panel */
        tail edge = { { 0 } };
        const unsigned char *panel = W->panels + p * W->panel_bytes;
        float *out = y + p * CV_PANEL;
        for (size_t j = 0; j < W->cols; j += CV_FOLD) {
            const bool sum = add || j > 0;
            tiles->few(all, T, W, panel + panel_offset(W, j), W->panel_bytes,
                       cv_smaller(CV_FOLD, W->cols - j), &(inputs){ .x = x + j, .ld = ldx },
                       last ? edge.y : out, last ? CV_PANEL : ldy, sum && !last);
            if (last) tail_out(&edge, W->rows % CV_PANEL, T, out, ldy, sum);
        }
        p += all ? P : 1;
    }
}

/* Floats of one packed tile of R rows. */
static size_t packed_floats(size_t R, size_t n)
{
    return R * ((n + BLOCK - 1) / BLOCK * BLOCK);
}

/* Inputs [j, j + n) of T rows as packed tiles of MAX_ROWS rows. */
static void pack_inputs(size_t T, size_t n, const float *x, size_t ldx, float *packed)
{
    for (size_t t = 0; t < T; t += MAX_ROWS) {
        const size_t R = cv_smaller(MAX_ROWS, T - t);
        for (size_t r = 0; r < R; r++) {
            const float *from = x + (t + r) * ldx;
            float *to = packed + r * BLOCK;
            size_t j = 0;
            for (; j + BLOCK <= n; j += BLOCK, to += R * BLOCK)
                memcpy(to, from + j, BLOCK * sizeof *to);
            if (j < n) memcpy(to, from + j, (n - j) * sizeof *to);
        }
        packed += packed_floats(R, n);
    }
}

/* Inputs [j, j + n) of one panel as f32 [n][16]. */
static void expand(const cv_matrix *W, const unsigned char *panel, size_t n, float *out)
{
    if (W->layout == CV_LAYOUT_Q8) {
        const size_t heads = q8_heads_bytes(W->has_min);
        for (size_t j = 0; j < n; j += W->group, panel += heads + W->group * CV_PANEL)
            for (size_t i = 0; i < W->group; i++)
                for (size_t lane = 0; lane < CV_PANEL; lane += VF)
                    v_store(out + (j + i) * CV_PANEL + lane,
                            load_q8(panel, heads + i * CV_PANEL, lane, W->has_min));
        return;
    }
    for (size_t at = 0; at < n * CV_PANEL; at += VF)
        v_store(out + at, W->layout == CV_LAYOUT_F16
                              ? v_load_f16((const uint16_t *)(const void *)panel + at)
                              : v_load_bf16((const uint16_t *)(const void *)panel + at));
}

/* One panel group times all rows of one run of packed inputs. */
static void rows_of_tiles(const layout_tiles *tiles, const cv_matrix *W, size_t P, size_t p,
                          const unsigned char *panel, size_t stride, size_t T, size_t n,
                          const float *packed, cv_arriving *next, float *y, size_t ldy, bool add)
{
    for (size_t t = 0; t < T; t += MAX_ROWS) {
        const size_t R = cv_smaller(MAX_ROWS, T - t);
        const inputs in = { .x = packed,
                            .soon = cv_take_arriving(next, packed),
                            .soon2 = cv_take_arriving(next, packed) };
        float *out = y + t * ldy + p * CV_PANEL;
        if ((p + P) * CV_PANEL <= W->rows) {
            tiles->packed(P, R, W, panel, stride, n, &in, out, ldy, add);
        } else {
            tail edge = { { 0 } };
            tiles->packed(1, R, W, panel, stride, n, &in, edge.y, CV_PANEL, false);
            tail_out(&edge, W->rows % CV_PANEL, R, out, ldy, add);
        }
        packed += packed_floats(R, n);
    }
}

/* Inputs [j, j + n) of T rows, packed, by panels [lo, hi).  Weights that are not f32 are expanded once
 * for all rows where there is more than one tile of them. */
static void matmul_inputs(const cv_matrix *W, size_t lo, size_t hi, size_t T, size_t j, size_t n,
                          const float *packed, cv_arriving next, float *y, size_t ldy, bool add,
                          float *weights)
{
    const bool expanded = W->layout != CV_LAYOUT_F32 && T > MAX_ROWS;
    const layout_tiles *tiles = &tiles_of[expanded ? CV_LAYOUT_F32 : W->layout];
    /* What is asked for too early has left again. */
    const size_t tiles_of_panel = (T + MAX_ROWS - 1) / MAX_ROWS;
    const size_t last = next.rows / (2 * tiles_of_panel) * PAIR + PAIR;
    cv_arriving none = { .rows = 0 };

    for (size_t p = lo; p < hi;) {
        const size_t P = (p + PAIR <= hi && (p + PAIR) * CV_PANEL <= W->rows) ? PAIR : 1;
        const unsigned char *panel = W->panels + p * W->panel_bytes + panel_offset(W, j);
        size_t stride = W->panel_bytes;
        if (expanded) {
            for (size_t i = 0; i < P; i++)
                expand(W, panel + i * stride, n, weights + i * CV_FOLD * CV_PANEL);
            panel = (const unsigned char *)weights;
            stride = CV_FOLD * CV_PANEL * sizeof(float);
        }
        rows_of_tiles(tiles, W, P, p, panel, stride, T, n, packed, hi - p <= last ? &next : &none,
                      y, ldy, add);
        p += P;
    }
}

/* Rows whose packed inputs and outputs stay in the second cache while all panels pass by. */
enum { STRIP = 192 / MAX_ROWS * MAX_ROWS };

/* Prefill, batches and training. */
static void matmul_many(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x,
                        size_t ldx, float *y, size_t ldy, bool add, float *scratch)
{
    float *weights = scratch, *packed = scratch + 2 * CV_FOLD * CV_PANEL;
    for (size_t t = 0; t < T; t += STRIP, x += STRIP * ldx, y += STRIP * ldy) {
        const size_t rows = cv_smaller(STRIP, T - t);
        for (size_t j = 0; j < W->cols; j += CV_FOLD) {
            const size_t n = cv_smaller(CV_FOLD, W->cols - j);
            const bool more = j + n < W->cols;
            const cv_arriving next = { .x = more ? x + j + n : x + STRIP * ldx,
                                       .ld = ldx,
                                       .rows = more ? rows : cv_smaller(STRIP, T - t - rows) };
            pack_inputs(rows, n, x + j, ldx, packed);
            matmul_inputs(W, lo, hi, rows, j, n, packed, next, y, ldy, add || j > 0, weights);
        }
    }
}

static void simd_matmul(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x,
                        size_t ldx, float *y, size_t ldy, bool add, float *scratch)
{
    if (T <= FEW)
        matmul_few(W, lo, hi, T, x, ldx, y, ldy, add);
    else
        matmul_many(W, lo, hi, T, x, ldx, y, ldy, add, scratch);
}

#include "kernels/simd_outer.h"

/* ---- Panels ---------------------------------------------------------------------------------- */

static void simd_turn(size_t n, size_t m, const float *from, size_t ld, float *to, size_t ldto)
{
    size_t j = 0;
    for (; n == CV_PANEL && j + 4 <= m; j += 4)
        for (size_t lane = 0; lane < CV_PANEL; lane += VF) {
            vf turned[4];
            v_turn(from + lane * ld + j, ld, turned);
#pragma GCC unroll 4
            for (size_t i = 0; i < 4; i++)
                v_store(to + (j + i) * ldto + lane, turned[i]);
        }
    for (; j < m; j++)
        for (size_t i = 0; i < CV_PANEL; i++)
            to[j * ldto + i] = i < n ? from[i * ld + j] : 0.0f;
}

/* ---- Elementary functions -------------------------------------------------------------------- */

/* e^x = 2^n (1 + p) with p = e^r - 1, x = n ln 2 + r, |r| <= ln 2 / 2.  NaN goes through. */
TILE_INLINE void exp_parts(vf x, vf *n, vf *p)
{
    *n = v_round(v_mul(x, v_set(1.44269504f)));
    vf r = v_fma(*n, v_set(-0.693359375f), x);
    r = v_fma(*n, v_set(2.12194440e-4f), r);
    vf q = v_fma(r, v_set(1.0f / 5040.0f), v_set(1.0f / 720.0f));
    q = v_fma(q, r, v_set(1.0f / 120.0f));
    q = v_fma(q, r, v_set(1.0f / 24.0f));
    q = v_fma(q, r, v_set(1.0f / 6.0f));
    q = v_fma(q, r, v_set(0.5f));
    *p = v_fma(v_mul(q, r), r, r);
}

/* Infinity above the largest float; below the smallest normal one zero, without subnormals. */
TILE_INLINE vf v_exp(vf x)
{
    vf n, p;
    exp_parts(v_min(v_set(89.0f), v_max(v_set(-87.3f), x)), &n, &p);
    /* 2^n in two factors: 2^128 is no float, but half of it is. */
    vf half = v_round(v_mul(n, v_set(0.5f)));
    vf s = v_pow2(half);
    return v_zero_below(v_mul(v_fma(s, p, s), v_pow2(v_sub(n, half))), x, -87.3f);
}

TILE_INLINE vf v_sigmoid(vf x)
{
    return v_div(v_set(1.0f), v_add(v_set(1.0f), v_exp(v_sub(v_set(0.0f), x))));
}

/* tanh x = m / (m + 2) with m = e^2x - 1, whose parts keep their digits near zero. */
TILE_INLINE vf v_tanh(vf x)
{
    vf n, p;
    exp_parts(v_min(v_set(30.0f), v_max(v_set(-80.0f), v_add(x, x))), &n, &p);
    vf s = v_pow2(n), m = v_fma(s, p, v_sub(s, v_set(1.0f)));
    return v_div(m, v_add(m, v_set(2.0f)));
}

TILE_INLINE vf v_silu(vf x)
{
    return v_mul(x, v_sigmoid(x));
}

TILE_INLINE vf v_relu2(vf x)
{
    vf positive = v_max(v_set(0.0f), x);
    return v_mul(positive, positive);
}

TILE_INLINE vf v_decay6(vf x)
{
    return v_exp(v_sub(v_set(0.0f), v_exp(x)));
}

TILE_INLINE vf v_decay7(vf x)
{
    return v_exp(v_mul(v_set(-0.60653065971f), v_sigmoid(x)));
}

/* f over n floats; the rest of a last vector is padded, so every element takes the same path. */
TILE_INLINE void map(vf (*f)(vf), size_t n, const float *x, float *y)
{
    size_t c = 0;
    for (; c + VF <= n; c += VF)
        v_store(y + c, f(v_load(x + c)));
    if (c < n) {
        float rest[VF] = { 0 };
        memcpy(rest, x + c, (n - c) * sizeof *x);
        v_store(rest, f(v_load(rest)));
        memcpy(y + c, rest, (n - c) * sizeof *y);
    }
}

static void simd_exp(size_t n, const float *x, float *y)
{
    map(v_exp, n, x, y);
}
static void simd_sigmoid(size_t n, const float *x, float *y)
{
    map(v_sigmoid, n, x, y);
}
static void simd_tanh(size_t n, const float *x, float *y)
{
    map(v_tanh, n, x, y);
}
static void simd_silu(size_t n, const float *x, float *y)
{
    map(v_silu, n, x, y);
}
static void simd_relu2(size_t n, const float *x, float *y)
{
    map(v_relu2, n, x, y);
}
static void simd_decay6(size_t n, const float *x, float *y)
{
    map(v_decay6, n, x, y);
}
static void simd_decay7(size_t n, const float *x, float *y)
{
    map(v_decay7, n, x, y);
}

/* ---- Rows ------------------------------------------------------------------------------------ */

static float simd_dot(size_t n, const float *a, const float *b)
{
    vf s0 = v_set(0.0f), s1 = s0;
    size_t c = 0;
    for (; c + 2 * VF <= n; c += 2 * VF) {
        s0 = v_fma(v_load(a + c), v_load(b + c), s0);
        s1 = v_fma(v_load(a + c + VF), v_load(b + c + VF), s1);
    }
    float sum = v_sum(v_add(s0, s1));
    for (; c < n; c++)
        sum += a[c] * b[c];
    return sum;
}

static float sum_of(size_t n, const float *x)
{
    vf s = v_set(0.0f);
    size_t c = 0;
    for (; c + VF <= n; c += VF)
        s = v_add(s, v_load(x + c));
    float sum = v_sum(s);
    for (; c < n; c++)
        sum += x[c];
    return sum;
}

static float squares_about(size_t n, const float *x, float mean)
{
    vf s = v_set(0.0f), m = v_set(mean);
    size_t c = 0;
    for (; c + VF <= n; c += VF) {
        vf d = v_sub(v_load(x + c), m);
        s = v_fma(d, d, s);
    }
    float sum = v_sum(s);
    for (; c < n; c++)
        sum += (x[c] - mean) * (x[c] - mean);
    return sum;
}

static float simd_layer_norm(size_t n, const float *x, const float *w, const float *b, float eps,
                             float *xh, float *y)
{
    const float mean = sum_of(n, x) / (float)n;
    const float s = 1.0f / sqrtf(squares_about(n, x, mean) / (float)n + eps);
    const vf m = v_set(mean), scale = v_set(s);
    size_t c = 0;
    for (; c + VF <= n; c += VF) {
        vf h = v_mul(v_sub(v_load(x + c), m), scale);
        if (xh) v_store(xh + c, h);
        v_store(y + c, v_fma(h, v_load(w + c), v_load(b + c)));
    }
    for (; c < n; c++) {
        const float h = (x[c] - mean) * s;
        if (xh) xh[c] = h;
        y[c] = h * w[c] + b[c];
    }
    return s;
}

static void simd_layer_norm_back(size_t n, const float *xh, float scale, const float *w,
                                 const float *dy, bool add, float *dx)
{
    vf sums = v_set(0.0f), along = v_set(0.0f);
    size_t c = 0;
    for (; c + VF <= n; c += VF) {
        const vf h = v_mul(v_load(dy + c), v_load(w + c));
        sums = v_add(sums, h);
        along = v_fma(h, v_load(xh + c), along);
    }
    float sum = v_sum(sums), sum_along = v_sum(along);
    for (; c < n; c++) {
        sum += dy[c] * w[c];
        sum_along += dy[c] * w[c] * xh[c];
    }
    const float mean = sum / (float)n, slope = sum_along / (float)n;
    const vf m = v_set(mean), k = v_set(slope), s = v_set(scale);
    for (c = 0; c + VF <= n; c += VF) {
        const vf h = v_sub(v_mul(v_load(dy + c), v_load(w + c)), m);
        const vf d = v_mul(v_sub(h, v_mul(v_load(xh + c), k)), s);
        v_store(dx + c, add ? v_add(v_load(dx + c), d) : d);
    }
    for (; c < n; c++) {
        const float d = (dy[c] * w[c] - mean - xh[c] * slope) * scale;
        dx[c] = add ? dx[c] + d : d;
    }
}

static void simd_lerp(size_t n, const float *z, const float *prev, const float *mu, float *y)
{
    size_t c = 0;
    for (; c + VF <= n; c += VF) {
        vf now = v_load(z + c);
        v_store(y + c, v_fma(v_sub(v_load(prev + c), now), v_load(mu + c), now));
    }
    for (; c < n; c++)
        y[c] = z[c] + (prev[c] - z[c]) * mu[c];
}

static void simd_mul(size_t n, const float *a, const float *b, float *y)
{
    size_t c = 0;
    for (; c + VF <= n; c += VF)
        v_store(y + c, v_mul(v_load(a + c), v_load(b + c)));
    for (; c < n; c++)
        y[c] = a[c] * b[c];
}

static void simd_mul_add(size_t n, const float *a, const float *b, float *y)
{
    size_t c = 0;
    for (; c + VF <= n; c += VF)
        v_store(y + c, v_fma(v_load(a + c), v_load(b + c), v_load(y + c)));
    for (; c < n; c++)
        y[c] = fmaf(a[c], b[c], y[c]);
}

#include "kernels/simd_wkv.h"

/* ---- Bi-WKV [bi.linear] ---------------------------------------------------------------------- */

enum { BI = 32 }; /* CV_BI_BLOCK */

/* Fewer than 16 channels are worked on in columns of 16, copied there and back. */
typedef struct bi_column {
    float at[512][16]; /* CV_BI_SEGMENT */
} bi_column;

static void bi_copy(size_t T, size_t n, const float *from, size_t ld_from, float *to, size_t ld_to)
{
    for (size_t t = 0; t < T; t++)
        memcpy(to + t * ld_to, from + t * ld_from, n * sizeof *to);
}

/* `from` is [T][ld] of n channels; the rest of a column is 0. */
static void bi_gather(size_t T, size_t n, const float *from, size_t ld, bi_column *to)
{
    memset(to->at, 0, T * sizeof *to->at);
    bi_copy(T, n, from, ld, to->at[0], 16);
}

/* e^x for x <= 0: 2^n in one factor. */
TILE_INLINE vf v_exp_below(vf x)
{
    vf n, p;
    exp_parts(v_max(v_set(-87.3f), x), &n, &p);
    const vf s = v_pow2(n);
    return v_zero_below(v_fma(s, p, s), x, -87.3f);
}

static void simd_bi_keys(size_t T, size_t n, size_t ld, float *k, float *top)
{
    if (n < CV_PANEL) {
        bi_column keys;
        float tops[16];
        bi_gather(T, n, k, ld, &keys);
        simd_bi_keys(T, CV_PANEL, CV_PANEL, keys.at[0], tops);
        bi_copy(T, n, keys.at[0], CV_PANEL, k, ld);
        memcpy(top, tops, n * sizeof *top);
        return;
    }
    for (size_t c = 0; c < CV_PANEL; c += VF) {
        vf m = v_load(k + c), m1 = m, m2 = m, m3 = m;
        size_t t = 0;
        for (; t + 4 <= T; t += 4) {
            m = v_max(m, v_load(k + t * ld + c));
            m1 = v_max(m1, v_load(k + (t + 1) * ld + c));
            m2 = v_max(m2, v_load(k + (t + 2) * ld + c));
            m3 = v_max(m3, v_load(k + (t + 3) * ld + c));
        }
        for (; t < T; t++)
            m = v_max(m, v_load(k + t * ld + c));
        m = v_max(v_max(m, m1), v_max(m2, m3));
        for (t = 0; t < T; t++)
            v_store(k + t * ld + c, v_exp_below(v_sub(v_load(k + t * ld + c), m)));
        v_store(top + c, m);
    }
}

/* A pair of sums: with and without the value. */
typedef struct bi_sum {
    vf N, D;
} bi_sum;

/* sum e^(-distance w) p v over the tokens of a block: distance t from its first where `forward`,
 * else from its last. */
TILE_INLINE bi_sum bi_block(size_t T, size_t ld, const cv_bi_decay *decay, size_t c, bool forward,
                            vf scale, const float *p, const float *v)
{
    bi_sum s = { v_set(0.0f), v_set(0.0f) };
    for (size_t t = 0; t < T; t++) {
        const size_t from = forward ? t : T - 1 - t;
        const vf pt = v_mul(v_mul(v_load(p + t * ld + c), scale), v_load(decay->power[from] + c));
        s.N = v_fma(pt, v_load(v + t * ld + c), s.N);
        s.D = v_add(s.D, pt);
    }
    return s;
}

/* A sum, a block of T tokens further away: e^(-Tw) s, with the digits that the power lacks. */
TILE_INLINE bi_sum bi_further(bi_sum s, size_t T, const cv_bi_decay *decay, size_t c)
{
    const vf power = v_load(decay->power[T] + c);
    if (T < BI) return (bi_sum){ v_mul(s.N, power), v_mul(s.D, power) };
    const vf rest = v_load(decay->rest + c);
    return (bi_sum){ v_fma(s.N, power, v_mul(s.N, rest)), v_fma(s.D, power, v_mul(s.D, rest)) };
}

TILE_INLINE bi_sum bi_plus(bi_sum a, bi_sum b)
{
    return (bi_sum){ v_add(a.N, b.N), v_add(a.D, b.D) };
}

static void simd_bi_ends(size_t T, size_t n, size_t ld, const cv_bi_decay *decay, const float *p,
                         const float *v, float ends[4][16])
{
    bi_column keys, values;
    if (n < CV_PANEL) {
        bi_gather(T, n, p, ld, &keys);
        bi_gather(T, n, v, ld, &values);
        p = keys.at[0];
        v = values.at[0];
        ld = CV_PANEL;
    }
    const vf one = v_set(1.0f);
    for (size_t c = 0; c < CV_PANEL; c += VF) {
        bi_sum past = { v_set(0.0f), v_set(0.0f) }, future = past;
        for (size_t t = 0; t < T; t += BI) {
            const size_t m = cv_smaller(BI, T - t);
            past = bi_plus(bi_block(m, ld, decay, c, false, one, p + t * ld, v + t * ld),
                           bi_further(past, m, decay, c));
        }
        for (size_t t = (T - 1) / BI * BI + BI; t > 0; t -= BI) {
            const size_t b = t - BI, m = cv_smaller(BI, T - b);
            future = bi_plus(bi_block(m, ld, decay, c, true, one, p + b * ld, v + b * ld),
                             bi_further(future, m, decay, c));
        }
        v_store(ends[0] + c, past.N);
        v_store(ends[1] + c, past.D);
        v_store(ends[2] + c, future.N);
        v_store(ends[3] + c, future.D);
    }
}

/* y of one block of T <= 32 tokens: local sums that start at 0, and what comes from outside by the
 * table.  Returns the local sum as it weighs behind the block. */
TILE_INLINE bi_sum bi_emit(size_t T, size_t ld, const cv_bi_decay *decay, size_t c, vf self,
                           vf scale, bi_sum past, bi_sum future, const float *p, const float *v,
                           float *y)
{
    bi_sum later[BI], local = { v_set(0.0f), v_set(0.0f) };
    const vf lambda = v_load(decay->power[1] + c);
    for (size_t t = T; t-- > 0;) {
        const vf away = v_load(decay->power[T - 1 - t] + c);
        const vf pt = v_mul(v_load(p + t * ld + c), scale);
        later[t] = (bi_sum){ v_fma(future.N, away, local.N), v_fma(future.D, away, local.D) };
        local.N = v_fma(local.N, lambda, v_mul(pt, v_load(v + t * ld + c)));
        local.D = v_fma(local.D, lambda, pt);
    }
    local = (bi_sum){ v_set(0.0f), v_set(0.0f) };
    for (size_t t = 0; t < T; t++) {
        const vf away = v_load(decay->power[t] + c);
        const vf pt = v_mul(v_load(p + t * ld + c), scale), vt = v_load(v + t * ld + c);
        const vf own = v_mul(self, pt), pv = v_mul(pt, vt);
        vf N = v_add(v_fma(past.N, away, local.N), later[t].N);
        vf D = v_add(v_fma(past.D, away, local.D), later[t].D);
        v_store(y + t * ld + c, v_div(v_fma(own, vt, N), v_add(own, D)));
        local.N = v_fma(local.N, lambda, pv);
        local.D = v_fma(local.D, lambda, pt);
    }
    return local;
}

static void simd_bi_wkv(size_t T, size_t n, size_t ld, const cv_bi_decay *decay, const float *self,
                        const float *scale, const float carry[4][16], const float *p,
                        const float *v, float *y)
{
    if (n < CV_PANEL) {
        bi_column keys, values;
        bi_gather(T, n, p, ld, &keys);
        bi_gather(T, n, v, ld, &values);
        simd_bi_wkv(T, CV_PANEL, CV_PANEL, decay, self, scale, carry, keys.at[0], values.at[0],
                    values.at[0]);
        bi_copy(T, n, values.at[0], CV_PANEL, y, ld);
        return;
    }
    for (size_t c = 0; c < CV_PANEL; c += VF) {
        const vf s = v_load(scale + c), e = v_load(self + c);
        bi_sum future[CV_BI_SEGMENT / BI]; /* behind each block */
        bi_sum sum = { v_load(carry[2] + c), v_load(carry[3] + c) };
        for (size_t b = (T + BI - 1) / BI; b-- > 0;) {
            const size_t t = b * BI, m = cv_smaller(BI, T - t);
            future[b] = sum;
            sum = bi_plus(bi_block(m, ld, decay, c, true, s, p + t * ld, v + t * ld),
                          bi_further(sum, m, decay, c));
        }
        sum = (bi_sum){ v_load(carry[0] + c), v_load(carry[1] + c) };
        for (size_t t = 0; t < T; t += BI) {
            const size_t m = cv_smaller(BI, T - t);
            bi_sum local = bi_emit(m, ld, decay, c, e, s, sum, future[t / BI], p + t * ld,
                                   v + t * ld, y + t * ld);
            sum = bi_plus(local, bi_further(sum, m, decay, c));
        }
    }
}

#include "kernels/simd_back.h"
#include "kernels/simd_back7.h"
#include "kernels/simd_gelu.h"
#include "kernels/simd_back_bi.h"

#define SIMD_TABLE(cpu_level)                                                                \
    {                                                                                        \
        .level = (cpu_level), .matmul = simd_matmul, .outer = simd_outer, .turn = simd_turn, \
        .wkv4 = simd_wkv4, .wkv5 = simd_wkv5, .wkv4_back = simd_wkv4_back,                   \
        .wkv5_back = simd_wkv5_back, .wkv7_back = simd_wkv7_back, .wkv7 = simd_wkv7,         \
        .bi_keys = simd_bi_keys, .bi_ends = simd_bi_ends, .bi_wkv = simd_bi_wkv,             \
        .bi_wkv_back = simd_bi_wkv_back, .layer_norm = simd_layer_norm,                      \
        .layer_norm_back = simd_layer_norm_back, .lerp = simd_lerp, .mul = simd_mul,         \
        .mul_add = simd_mul_add, .dot = simd_dot, .exp = simd_exp, .sigmoid = simd_sigmoid,  \
        .tanh = simd_tanh, .silu = simd_silu, .relu2 = simd_relu2, .decay6 = simd_decay6,    \
        .decay7 = simd_decay7, .gelu = simd_gelu, .gelu_back = simd_gelu_back,               \
    }

#endif
