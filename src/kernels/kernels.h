/* kernels.h - the table of functions that do the arithmetic, one table per instruction set.
 *
 * ref.c is plain C and complete; x86_avx2.c, x86_avx512.c and arm_neon.c fill the same table with
 * the text of simd_body.h over their own vectors; x86_amx.c and x86_bf16.c have products of their own,
 * and the rest of their tables from x86_avx512.c.  tests/kernels/ compares every entry with ref.
 * A kernel computes one thread's part, allocates nothing and never waits.
 *
 * All sums run in a fixed order that depends on the shapes alone: neither on the number of rows
 * computed together nor on how panels are cut between threads. */
#ifndef CV_KERNELS_H
#define CV_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"

#define CV_PANEL ((size_t)16)  /* output rows that lie side by side */
#define CV_FOLD  ((size_t)256) /* inputs summed in one chain before it is folded in */

/* How the weights of a panel are stored; the value is always taken to f32 before it is used. */
typedef enum cv_layout {
    CV_LAYOUT_F32,  /* [cols][16] float */
    CV_LAYOUT_F16,  /* [cols][16] half */
    CV_LAYOUT_BF16, /* [cols][16] bfloat16 */
    CV_LAYOUT_Q8    /* [cols/group] of { float scale[16]; float min[16] if
                                           has_min; int8 q[group][16] }: w = q * scale + min */
} cv_layout;

/* A weight matrix [rows][cols] in panels of 16 rows; the last one is padded with zeros. */
typedef struct cv_matrix {
    size_t rows, cols;
    cv_layout layout;
    size_t group; /* Q8: inputs per scale, 16 or 32 (divides CV_FOLD) */
    bool has_min; /* Q8 */
    bool rounded; /* BF16: the inputs may be rounded to bf16 as well, for speed */
    size_t panel_bytes;
    const unsigned char *panels; /* [ceil(rows / 16)][panel_bytes], 64-byte aligned */
    const struct cv_trained *trained; /* while it is trained (ops/linear.h), else NULL */
} cv_matrix;

#define CV_MATMUL_GROUP ((size_t)32) /* panels that are packed together; an even number */

/* Floats of scratch a matmul of T rows needs: a group of panels and T rows of CV_FOLD inputs in f32,
 * or in three pieces of bf16 by tiles of 16 rows. */
static inline size_t cv_matmul_scratch(size_t T)
{
    return CV_FOLD * 3 / 2 * (CV_MATMUL_GROUP * CV_PANEL + (T + 15) / 16 * 16);
}

#define CV_OUTER_SCRATCH ((size_t)336 * 1024) /* floats */

#define CV_BI_BLOCK   ((size_t)32)  /* tokens that one local sum runs over [bi.blocks] */
#define CV_BI_SEGMENT ((size_t)512) /* tokens of one piece of work; whole blocks */

/* Decay of 16 channels over 0 to CV_BI_BLOCK tokens: power[j] = e^(-j w), rounded, and what the
 * last one lacks. */
typedef struct cv_bi_decay {
    float power[33][16];
    float rest[16]; /* e^(-32 w) - power[32] */
} cv_bi_decay;

/* Walking back through wkv4: from dy to dk, dv, dw, du, which are added to.  The sums that the state
 * stands for are a = aa e^pp and b = bb e^pp; alpha e^top and beta e^top are their gradients, behind
 * the last token going in (nothing: 0, 0, -1e30), before the first coming out.  Earlier states are
 * computed again, window by window. */
#define CV_WKV4_WINDOW ((size_t)32)

typedef struct cv_wkv4_back {
    size_t T, n, ld;           /* as in wkv4 */
    const float *w, *u;        /* [n] */
    const float *k, *v, *dy;   /* [T][ld] */
    const float *aa, *bb, *pp; /* [n] the state before the first token */
    float *dw, *du;            /* [n]; NULL: not wanted */
    float *dk, *dv;            /* [T][ld] */
    float *alpha, *beta, *top; /* [n] */
    float *scratch;            /* [cv_wkv4_back_scratch(T)] */
} cv_wkv4_back;

/* A state of a panel of channels at the border of each window. */
static inline size_t cv_wkv4_back_scratch(size_t T)
{
    return (T + CV_WKV4_WINDOW - 1) / CV_WKV4_WINDOW * 3 * CV_PANEL;
}

/* Walking back through wkv5, one head: from dy to dr, dw, dk, dv, du, which are added to; dS is the
 * gradient of the state behind the last token going in, before the first coming out. */
#define CV_WKV5_WINDOW ((size_t)16)

typedef struct cv_wkv5_back {
    size_t T, N, ld, ldw;        /* as in wkv5; ldw 0: one decay, and dw is summed over tokens */
    const float *r, *k, *v, *dy; /* [T][ld] */
    const float *w, *u;          /* [T][ldw], [N] */
    const float *S;              /* [j key][i value] before the first token */
    float *dr, *dk, *dv;         /* [T][ld] */
    float *dw, *du;              /* [T][ldw], [N]; NULL: not wanted */
    float *dS;                   /* [j key][i value] */
    float *scratch;              /* [cv_wkv5_back_scratch(T, N)] */
} cv_wkv5_back;

/* States at the borders of the windows, those of one window, their gradient, and vectors of the
 * tokens of a window. */
static inline size_t cv_wkv5_back_scratch(size_t T, size_t N)
{
    const size_t keys = (N + CV_PANEL - 1) / CV_PANEL * CV_PANEL;
    const size_t borders = (T + CV_WKV5_WINDOW - 1) / CV_WKV5_WINDOW;
    return ((borders + CV_WKV5_WINDOW + 1) * N + 6 * CV_WKV5_WINDOW + 2) * keys;
}

/* Walking back through wkv7, one head: from dy to dr, dw, dk, dv, dkk, db, which are added to, or set
 * where nothing is there yet; dS is the gradient of the state behind the last token going in, before
 * the first coming out.  States are kept at the borders of windows, and computed again within one. */
#define CV_WKV7_WINDOW ((size_t)8)

typedef struct cv_wkv7_back {
    size_t T, N, ld;                             /* as in wkv7 */
    const float *r, *w, *k, *v, *kk, *b, *dy;    /* [T][ld] */
    const float *S;                              /* [j key][i value] before the first token */
    float *dr, *dw, *dk, *dv, *dkk, *db;         /* [T][ld] */
    bool set_r, set_w, set_k, set_v, set_kk, set_b;
    float *dS;                                   /* [j key][i value] */
    float *scratch;                              /* [cv_wkv7_back_scratch(T, N)] */
} cv_wkv7_back;

/* States at the borders, the gradient of one, what each token removes, and 14 vectors and four rows
 * of the state for each token of a window. */
static inline size_t cv_wkv7_back_scratch(size_t T, size_t N)
{
    const size_t keys = (N + CV_PANEL - 1) / CV_PANEL * CV_PANEL;
    const size_t borders = (T + CV_WKV7_WINDOW - 1) / CV_WKV7_WINDOW;
    return ((borders + 2) * N + T + 18 * CV_WKV7_WINDOW + 4) * keys;
}

/* Walking back through Bi-WKV, n <= 16 channels of a whole picture of T tokens: from dy to dk, dw,
 * du, which are added to, and to dv, which takes its place [bi.linear].  w and u as the formula has
 * them, already divided by T; decay and self as in bi_wkv below. */
typedef struct cv_bi_back {
    size_t T, n, ld;
    const cv_bi_decay *decay;
    const float *self;  /* [16] e^u */
    const float *k, *v; /* [T][ld] */
    float *dk, *dv;     /* [T][ld]; dv is dy on entry */
    float *dw, *du;     /* [n] */
    float *scratch;     /* [cv_bi_back_scratch(T)] */
} cv_bi_back;

/* Four pairs for each token of a panel of channels, and one for each block. */
static inline size_t cv_bi_back_scratch(size_t T)
{
    return (8 * T + (T + CV_BI_BLOCK - 1) / CV_BI_BLOCK * 2) * CV_PANEL;
}

typedef struct cv_kernels {
    cv_cpu_level level;

    /* y[t][i] = (add ? y[t][i] : 0) + sum_j W[i][j] x[t][j] for the rows i of panels [lo, hi).
     *   x [T][ldx], y [T][ldy]; y may not alias x; columns of y beyond W->rows are not touched.
     *   scratch [cv_matmul_scratch(T)], 64-byte aligned. */
    void (*matmul)(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x, size_t ldx,
                   float *y, size_t ldy, bool add, float *scratch);

    /* W[o][i] += sum over t of a[t][o] b[t][i] for n rows and m columns of W: the gradient of a
     * matrix.  Rows of a, b, W are lda, ldb, ldw apart; rounded: as in cv_matrix.
     *   scratch [CV_OUTER_SCRATCH], 64-byte aligned */
    void (*outer)(size_t T, size_t n, size_t m, const float *a, size_t lda, const float *b,
                  size_t ldb, float *W, size_t ldw, bool rounded, float *scratch);

    /* to[j][i] = from[i][j] for n <= 16 rows i and m columns j, and zero for the i from n to 16: a panel
     * of numbers, where ldto is 16.  Rows of from are ld apart, those of to ldto. */
    void (*turn)(size_t n, size_t m, const float *from, size_t ld, float *to, size_t ldto);

    /* RWKV-4 [v4.wkv] for channels [0, n) of T tokens; rows of k, v, y are ld apart.
     *   w [n] = -exp(time_decay) < 0, u [n]; state aa, bb, pp [n] each, in and out; y may be v. */
    void (*wkv4)(size_t T, size_t n, size_t ld, const float *w, const float *u, const float *k,
                 const float *v, float *y, float *aa, float *bb, float *pp);

    /* RWKV-5 and 6 [v5.wkv] [v6.wkv], one head of N channels; rows are ld apart (negative: from the
     * last token to the first; ldw for w; 0: one decay for all tokens).  w in (0, 1) is the decay,
     * u [N] the bonus.
     *   S [j key][i value], in and out; y may not alias r, k, v, w. */
    void (*wkv5)(size_t T, size_t N, ptrdiff_t ld, ptrdiff_t ldw, const float *r, const float *w,
                 const float *k, const float *v, const float *u, float *y, float *S);

    /* RWKV-7 [v7.wkv], one head: S <- S diag(w) - (S kk) b^T + v k^T, y = S r.
     *   S [j key][i value], in and out; rows are ld apart; y may not alias an input. */
    void (*wkv7)(size_t T, size_t N, size_t ld, const float *r, const float *w, const float *k,
                 const float *v, const float *kk, const float *b, float *y, float *S);

    void (*wkv4_back)(const cv_wkv4_back *back);
    void (*wkv5_back)(const cv_wkv5_back *back);
    void (*wkv7_back)(const cv_wkv7_back *back);

    /* Bi-WKV [bi.linear] over a segment of T <= CV_BI_SEGMENT tokens and n <= 16 channels, rows of
     * k, v, p, y ld apart.  The three are used in this order; between them the caller joins the
     * segments of a picture. */

    /* top[c] = max over t of k; k becomes p = e^(k - top). */
    void (*bi_keys)(size_t T, size_t n, size_t ld, float *k, float *top);

    /* What a segment hands to those behind and before it: ends[0] = sum_t e^(-(T-1-t) w) p v and
     * ends[1] the same without v (past); ends[2] = sum_t e^(-t w) p v, ends[3] (future). */
    void (*bi_ends)(size_t T, size_t n, size_t ld, const cv_bi_decay *decay, const float *p,
                    const float *v, float ends[4][16]);

    /* y of the segment; p is multiplied by scale[c] first.  carry[0..1]: sum over all tokens before
     * the segment, carry[2..3] after it, as they weigh on its first and last token.  y may be v.
     * self = e^u. */
    void (*bi_wkv)(size_t T, size_t n, size_t ld, const cv_bi_decay *decay, const float *self,
                   const float *scale, const float carry[4][16], const float *p, const float *v,
                   float *y);

    void (*bi_wkv_back)(const cv_bi_back *back);

    /* xh = (x - mean) scale and y = xh w + b over n channels [ln]; returns scale = 1 / sqrt(var + eps).
     * xh may be NULL; y may be x. */
    float (*layer_norm)(size_t n, const float *x, const float *w, const float *b, float eps,
                        float *xh, float *y);

    /* And back: dx = (h - mean(h) - xh mean(h xh)) scale, where h = dy w; with `add` that is added.
     * dx may be dy. */
    void (*layer_norm_back)(size_t n, const float *xh, float scale, const float *w, const float *dy,
                            bool add, float *dx);

    /* y = z + (prev - z) * mu [shift.maa]; y may not alias. */
    void (*lerp)(size_t n, const float *z, const float *prev, const float *mu, float *y);

    void (*mul)(size_t n, const float *a, const float *b, float *y);     /* y = a b; y may be a */
    void (*mul_add)(size_t n, const float *a, const float *b, float *y); /* y += a b, fused or not */

    float (*dot)(size_t n, const float *a, const float *b);

    /* Element by element; y may be x.  Within 4 units in the last place of the exact value (exp,
     * tanh), 8 (sigmoid, silu, gelu, decay7), 2^-23 absolutely (decay6).  What would be a subnormal may
     * come out as zero. */
    void (*exp)(size_t n, const float *x, float *y);
    void (*sigmoid)(size_t n, const float *x, float *y);
    void (*tanh)(size_t n, const float *x, float *y);
    void (*silu)(size_t n, const float *x, float *y);
    void (*gelu)(size_t n, const float *x, float *y); /* x Phi(x) */
    void (*relu2)(size_t n, const float *x, float *y);  /* max(x, 0)^2 */
    void (*decay6)(size_t n, const float *x, float *y); /* exp(-exp(x))        [v6.decay] */
    void (*decay7)(size_t n, const float *x, float *y); /* exp(-e^-1/2 sigmoid(x)) [v7.decay] */

    /* dy *= d(x Phi(x))/dx = Phi(x) + x phi(x), within 2^-22 absolutely. */
    void (*gelu_back)(size_t n, const float *x, float *dy);
} cv_kernels;

extern const cv_kernels cv_kernels_ref;

/* The table of a level, or NULL when this build or this machine has none. */
const cv_kernels *cv_kernels_for(cv_cpu_level level);

/* The fastest for products of many rows (cv_cpu_widest), or the next where the system refuses it. */
const cv_kernels *cv_kernels_widest(void);

#endif
