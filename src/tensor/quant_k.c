/* quant_k.c - the block types of 256 elements with two levels of scales: Q4_K, Q5_K, Q6_K. [quant.k]
 *
 * Q4_K (144 bytes): halves d and dmin, 12 bytes of packed 6-bit numbers, 128 bytes of elements.
 * Eight groups of 32; group g has a scale number S and a minimum number M, and its elements are
 * (d S) q - (dmin M) with q in 0..15.  Groups 2p and 2p+1 share bytes 32p..32p+31 of the elements,
 * the even group in the low halves.  The 12 bytes: in bytes 0..3 the low six bits are S of groups
 * 0..3; in bytes 4..7 likewise M of groups 0..3; bytes 8..11 hold the low four bits of S (low
 * half) and of M (high half) of groups 4..7, whose upper two bits are the top bits of bytes 0..3
 * (S) and 4..7 (M).
 *
 * Q5_K (176 bytes): the same with 32 bytes of fifth bits between numbers and elements; bit g of
 * byte l belongs to element l of group g.  q in 0..31.
 *
 * Q6_K (210 bytes): 128 bytes of low halves, 64 bytes of upper bit pairs, 16 signed bytes S, half
 * d.  Sixteen groups of 16, elements (d S) q with q in -32..31, stored plus 32.  Each 128 elements
 * use 64 and 32 of those bytes; their quarter c (32 elements) lies in low halves 32 (c mod 2) + l,
 * low side for c < 2, else high side, and in bits 2c, 2c+1 of pair byte l.
 *
 * Packing minimises the squared error, unweighted: without knowledge of the activations every
 * weight counts alike.  First each group is fitted alone from several starting points (levels by
 * rounding, then scale and minimum by least squares, in turn); then scales are rounded to their
 * small numbers, and those, the levels, d and dmin are improved together. */
#include "tensor/quant.h"

#include <math.h>

#define SUPER  256
#define ROUNDS 3 /* joint improvements of a super-block */

/* ------------------------------------------------------------------------------------------------
 * Layouts. */

static void get_numbers(const uint8_t *packed, int g, int *scale, int *minimum)
{
    if (g < 4) {
        *scale = packed[g] & 63;
        *minimum = packed[g + 4] & 63;
    } else {
        *scale = (packed[g + 4] & 15) | packed[g - 4] >> 6 << 4;
        *minimum = packed[g + 4] >> 4 | packed[g] >> 6 << 4;
    }
}

static void put_numbers(uint8_t *packed, const int *scale, const int *minimum)
{
    for (int g = 0; g < 4; g++) {
        int s = scale[g + 4], m = minimum[g + 4];
        packed[g] = (uint8_t)(scale[g] | s >> 4 << 6);
        packed[g + 4] = (uint8_t)(minimum[g] | m >> 4 << 6);
        packed[g + 8] = (uint8_t)((s & 15) | (m & 15) << 4);
    }
}

static void get_scales(const uint8_t *block, float *scale, float *min)
{
    const float d = cv_half_at(block), dmin = cv_half_at(block + 2);
    for (int g = 0; g < 8; g++) {
        int s, m;
        get_numbers(block + 4, g, &s, &m);
        scale[g] = d * (float)s;
        min[g] = -(dmin * (float)m);
    }
}

static void get_halves(const uint8_t *restrict bytes, int8_t *restrict q)
{
    for (int pair = 0; pair < 4; pair++)
        for (int l = 0; l < 32; l++) {
            uint8_t b = bytes[32 * pair + l];
            q[64 * pair + l] = (int8_t)(b & 15);
            q[64 * pair + 32 + l] = (int8_t)(b >> 4);
        }
}

static void put_halves(const int8_t *q, uint8_t *bytes)
{
    for (int pair = 0; pair < 4; pair++)
        for (int l = 0; l < 32; l++)
            bytes[32 * pair + l] =
                (uint8_t)((q[64 * pair + l] & 15) | (q[64 * pair + 32 + l] & 15) << 4);
}

static void unpack_q4_k(const uint8_t *block, int8_t *q, float *scale, float *min)
{
    get_scales(block, scale, min);
    get_halves(block + 16, q);
}

static void unpack_q5_k(const uint8_t *block, int8_t *restrict q, float *scale, float *min)
{
    const uint8_t *restrict fifth = block + 16;
    get_scales(block, scale, min);
    get_halves(block + 48, q);
    for (int g = 0; g < 8; g++)
        for (int l = 0; l < 32; l++)
            q[32 * g + l] = (int8_t)(q[32 * g + l] | (fifth[l] >> g & 1) << 4);
}

static void unpack_q6_k(const uint8_t *block, int8_t *restrict q, float *scale, float *min)
{
    (void)min;
    const float d = cv_half_at(block + 208);
    for (int g = 0; g < 16; g++)
        scale[g] = d * (float)(int8_t)block[192 + g];
    for (int half = 0; half < 2; half++) {
        const uint8_t *restrict low = block + 64 * half, *restrict high = block + 128 + 32 * half;
        int8_t *restrict out = q + 128 * half;
        for (int l = 0; l < 32; l++) {
            out[l] = (int8_t)(((low[l] & 15) | (high[l] & 3) << 4) - 32);
            out[l + 32] = (int8_t)(((low[l + 32] & 15) | (high[l] >> 2 & 3) << 4) - 32);
            out[l + 64] = (int8_t)((low[l] >> 4 | (high[l] >> 4 & 3) << 4) - 32);
            out[l + 96] = (int8_t)((low[l + 32] >> 4 | high[l] >> 6 << 4) - 32);
        }
    }
}

/* ------------------------------------------------------------------------------------------------
 * Least squares: what a group's elements x and levels q come to.  Sums of q are exact. */

typedef struct sums {
    double q, qq, qx;
} sums;

typedef struct group {
    const float *x;
    int n;         /* 16 or 32 */
    double x1, x2; /* sums of x and of its squares */
    float lo, hi;  /* range, widened to hold zero */
} group;

/* Scale and minimum of a group, value = s q - m, and the squared error they leave. */
typedef struct fit {
    double s, m, error;
} fit;

static void group_init(group *g, const float *x, int n)
{
    *g = (group){ .x = x, .n = n };
    for (int i = 0; i < n; i++) {
        g->x1 += (double)x[i];
        g->x2 += (double)x[i] * (double)x[i];
        if (x[i] < g->lo) g->lo = x[i];
        if (x[i] > g->hi) g->hi = x[i];
    }
}

/* v where it is positive, else (and for NaN) zero.  A mask, because after a conditional expression
 * gcc splits the loop into paths and gives up vectorizing it. */
static inline float positive(float v)
{
    return cv_float_of(cv_bits_of(v) & (0u - (uint32_t)(v > 0.0f)));
}

/* The level nearest to (x + m) / s within bottom..top. */
static inline float level_of(float x, float per_s, float m, float bottom, float top)
{
    float below_top = positive(top - (x + m) * per_s);
    float steps = positive((top - bottom) - below_top);
    return (float)(int)(steps + 0.5f) + bottom;
}

/* Sixteen partial sums each: plain loops over lanes are vector code at any optimisation level, and
 * no float addition has to be reordered for it. */
typedef struct lanes {
    float q[16], qq[16], qx[16];
} lanes;

static inline void measure16(const float *restrict x, float per_s, float m, float bottom, float top,
                             lanes *restrict t)
{
    for (int j = 0; j < 16; j++) {
        float q = level_of(x[j], per_s, m, bottom, top);
        t->q[j] += q;
        t->qq[j] += q * q;
        t->qx[j] += q * x[j];
    }
}

static inline double total(const float *lane)
{
    float four[4];
    for (int j = 0; j < 4; j++)
        four[j] = (lane[j] + lane[j + 4]) + (lane[j + 8] + lane[j + 12]);
    return (double)((four[0] + four[1]) + (four[2] + four[3]));
}

/* Rounds n elements to levels bottom..top under a scale 1 / per_s and a minimum m. */
static sums measure(const float *x, int n, float per_s, float m, float bottom, float top)
{
    lanes t = { { 0 }, { 0 }, { 0 } };
    for (int i = 0; i < n; i += 16)
        measure16(x + i, per_s, m, bottom, top, &t);
    return (sums){ total(t.q), total(t.qq), total(t.qx) };
}

static double error_of(const group *g, const sums *t, double s, double m)
{
    return g->x2 + s * (s * t->qq - 2 * t->qx) + m * (g->n * m - 2 * s * t->q + 2 * g->x1);
}

/* ------------------------------------------------------------------------------------------------
 * Q4_K and Q5_K: scale and minimum, neither negative. */

static fit fit_levels(const group *g, const sums *t)
{
    double spread = g->n * t->qq - t->q * t->q;
    double s = spread > 0 ? (g->n * t->qx - t->q * g->x1) / spread : 0;
    double m = (s * t->q - g->x1) / g->n;
    if (!(spread > 0) || m < 0) {
        s = t->qq > 0 ? t->qx / t->qq : 0;
        m = 0;
    }
    if (s < 0) s = 0;
    if (s == 0) m = fmax(0, -g->x1 / g->n);
    return (fit){ s, m, error_of(g, t, s, m) };
}

/* Rounding and least squares in turn from one starting point, while it gets better. */
static fit descend(const group *g, double s, double m, float top)
{
    fit best = { 0, 0, (double)INFINITY };
    for (int step = 0; step < 4 && s > 0; step++) {
        sums t = measure(g->x, 32, (float)(1 / s), (float)m, 0, top);
        fit now = fit_levels(g, &t);
        if (!(now.error < best.error)) break;
        best = now;
        s = now.s;
        m = now.m;
    }
    return best;
}

/* Starts: the range of the group, cut short by some part of a step at either end. */
static fit fit_group(const group *g, float top)
{
    static const double CUT[][2] = { { 0, 0 },     { 0.5, 0.5 }, { 1, 0 }, { 0, 1 },
                                     { 1.0, 1.0 }, { 2, 0 },     { 0, 2 } };
    fit best = { 0, fmax(0, -g->x1 / g->n), 0 };
    const sums none = { 0, 0, 0 };
    best.error = error_of(g, &none, 0, best.m);
    const double range = (double)g->hi - (double)g->lo;
    for (size_t k = 0; k < sizeof CUT / sizeof *CUT; k++) {
        double s = range / ((double)top + CUT[k][0] + CUT[k][1]);
        fit now = descend(g, s, -(double)g->lo - CUT[k][0] * s, top);
        if (now.error < best.error) best = now;
    }
    return best;
}

/* ------------------------------------------------------------------------------------------------
 * Q6_K: a scale of either sign, no minimum. */

static fit fit_symmetric(const group *g, double s)
{
    sums t = measure(g->x, 16, s != 0 ? (float)(1 / s) : 0.0f, 0, -32, 31);
    if (!(t.qq > 0)) return (fit){ 0, 0, g->x2 };
    return (fit){ t.qx / t.qq, 0, g->x2 - t.qx / t.qq * t.qx };
}

/* Starts: the extreme entry on the lowest or on the highest level, or some part of a step beyond. */
static fit fit_group_symmetric(const group *g)
{
    static const double BEYOND[] = { -0.8, -0.4, 0, 0.4, 0.8 };
    const double extreme = g->hi > -g->lo ? (double)g->hi : (double)g->lo;
    fit best = { 0, 0, g->x2 };
    for (size_t k = 0; k < sizeof BEYOND / sizeof *BEYOND; k++) {
        fit low = fit_symmetric(g, extreme / (-32 + BEYOND[k]));
        fit high = fit_symmetric(g, extreme / (31 + BEYOND[k]));
        if (low.error < best.error) best = low;
        if (high.error < best.error) best = high;
    }
    return best;
}

/* ------------------------------------------------------------------------------------------------
 * Super-blocks: value = (d S) q - (dmin M), all of them rounded. */

typedef struct kind {
    int n_groups, width;
    float bottom, top;    /* levels */
    int s_lo, s_hi, m_hi; /* S and M allowed */
} kind;

typedef struct super {
    float d, dmin;
    int s[16], m[16];
    double error;
} super;

/* The equations of the best d and dmin for given numbers and levels. */
typedef struct normal {
    double aa, ab, bb, ax, bx; /* a = S q, b = M */
} normal;

/* v as a finite half that is not zero unless v is. */
static float half_scale(double v)
{
    float h = cv_f16_to_f32(cv_f32_to_f16((float)v));
    if (h > 65504.0f) return 65504.0f;
    if (h < -65504.0f) return -65504.0f;
    if (h == 0.0f && v != 0) return v > 0 ? 0x1p-24f : -0x1p-24f;
    return h;
}

static int clamp_int(double v, int lo, int hi)
{
    if (!(v > lo)) return lo;
    return v < hi ? (int)lrint(v) : hi;
}

static float reciprocal(float s)
{
    return s != 0.0f ? 1.0f / s : 0.0f;
}

/* The best S and M of a group, each within one of what they are. */
static double choose_numbers(const kind *k, const group *g, float d, float dmin, int *s, int *m,
                             sums *chosen)
{
    const int s0 = *s, m0 = *m;
    double best = (double)INFINITY;
    *chosen = (sums){ 0, 0, 0 };
    for (int si = s0 > k->s_lo ? s0 - 1 : s0; si <= s0 + 1 && si <= k->s_hi; si++)
        for (int mi = m0 > 0 ? m0 - 1 : 0; mi <= m0 + 1 && mi <= k->m_hi; mi++) {
            const float scale = d * (float)si, min = dmin * (float)mi;
            sums t = measure(g->x, k->width, reciprocal(scale), min, k->bottom, k->top);
            double error = error_of(g, &t, (double)scale, (double)min);
            if (error < best) {
                best = error;
                *s = si;
                *m = mi;
                *chosen = t;
            }
        }
    return best;
}

static void add_equations(normal *eq, const group *g, const sums *t, int s, int m)
{
    eq->aa += s * s * t->qq;
    eq->ab += s * m * t->q;
    eq->bb += (double)m * m * g->n;
    eq->ax += s * t->qx;
    eq->bx += m * g->x1;
}

static void solve(const normal *eq, float *d, float *dmin)
{
    double det = eq->aa * eq->bb - eq->ab * eq->ab;
    if (eq->bb == 0) {
        if (eq->aa > 0) *d = half_scale(eq->ax / eq->aa);
    } else if (det > 0) {
        double best_d = (eq->ax * eq->bb - eq->bx * eq->ab) / det;
        double best_dmin = (eq->ab * eq->ax - eq->aa * eq->bx) / det;
        if (best_d > 0) *d = half_scale(best_d);
        if (best_dmin > 0) *dmin = half_scale(best_dmin);
    }
}

/* From d and dmin: numbers near what the groups want, then d and dmin that suit those, in turn. */
static void improve(const kind *k, const group *groups, const fit *fits, float d, float dmin,
                    super *best)
{
    super now = { .d = d, .dmin = dmin };
    for (int g = 0; g < k->n_groups; g++) {
        now.s[g] = clamp_int(fits[g].s * (double)reciprocal(d), k->s_lo, k->s_hi);
        now.m[g] = clamp_int(fits[g].m * (double)reciprocal(dmin), 0, k->m_hi);
    }
    for (int round = 0; round < ROUNDS; round++) {
        normal eq = { 0, 0, 0, 0, 0 };
        now.error = 0;
        for (int g = 0; g < k->n_groups; g++) {
            sums t;
            now.error += choose_numbers(k, &groups[g], now.d, now.dmin, &now.s[g], &now.m[g], &t);
            add_equations(&eq, &groups[g], &t, now.s[g], now.m[g]);
        }
        if (!(now.error < best->error)) return;
        *best = now;
        solve(&eq, &now.d, &now.dmin);
    }
}

static void put_levels(const kind *k, const super *b, const float *x, int8_t *q)
{
    for (int i = 0; i < SUPER; i++) {
        int g = i / k->width;
        float per_s = reciprocal(b->d * (float)b->s[g]), min = b->dmin * (float)b->m[g];
        q[i] = (int8_t)level_of(x[i], per_s, min, k->bottom, k->top);
    }
}

/* Q4_K and Q5_K up to the layout. */
static void pack_with_min(const float *x, float top, super *best, int8_t *q)
{
    const kind k = { 8, 32, 0, top, 0, 63, 63 };
    group groups[8];
    fit fits[8];
    double s = 0, m = 0;
    for (int g = 0; g < 8; g++) {
        group_init(&groups[g], x + 32 * g, 32);
        fits[g] = fit_group(&groups[g], top);
        s = fmax(s, fits[g].s);
        m = fmax(m, fits[g].m);
    }
    *best = (super){ .error = (double)INFINITY };
    improve(&k, groups, fits, half_scale(s / 63), half_scale(m / 63), best);
    put_levels(&k, best, x, q);
}

static void pack_q4_k(const float *x, uint8_t *block)
{
    super b;
    int8_t q[SUPER];
    pack_with_min(x, 15, &b, q);
    cv_half_put(block, b.d);
    cv_half_put(block + 2, b.dmin);
    put_numbers(block + 4, b.s, b.m);
    put_halves(q, block + 16);
}

static void pack_q5_k(const float *x, uint8_t *block)
{
    super b;
    int8_t q[SUPER];
    pack_with_min(x, 31, &b, q);
    cv_half_put(block, b.d);
    cv_half_put(block + 2, b.dmin);
    put_numbers(block + 4, b.s, b.m);
    put_halves(q, block + 48);
    for (int l = 0; l < 32; l++) {
        unsigned bits = 0;
        for (int g = 0; g < 8; g++)
            bits |= (unsigned)(q[32 * g + l] >> 4 & 1) << g;
        block[16 + l] = (uint8_t)bits;
    }
}

static void put_q6_k(const super *b, const int8_t *q, uint8_t *block)
{
    for (int half = 0; half < 2; half++)
        for (int l = 0; l < 32; l++) {
            const int8_t *in = q + 128 * half + l;
            unsigned a = (unsigned)(in[0] + 32), c = (unsigned)(in[32] + 32);
            unsigned e = (unsigned)(in[64] + 32), f = (unsigned)(in[96] + 32);
            block[64 * half + l] = (uint8_t)((a & 15) | (e & 15) << 4);
            block[64 * half + 32 + l] = (uint8_t)((c & 15) | (f & 15) << 4);
            block[128 + 32 * half + l] =
                (uint8_t)(a >> 4 | c >> 4 << 2 | e >> 4 << 4 | f >> 4 << 6);
        }
    for (int g = 0; g < 16; g++)
        block[192 + g] = (uint8_t)b->s[g];
    cv_half_put(block + 208, b->d);
}

static void pack_q6_k(const float *x, uint8_t *block)
{
    static const kind K = { 16, 16, -32, 31, -128, 127, 0 };
    group groups[16];
    fit fits[16];
    double s = 0;
    for (int g = 0; g < 16; g++) {
        group_init(&groups[g], x + 16 * g, 16);
        fits[g] = fit_group_symmetric(&groups[g]);
        if (fabs(fits[g].s) > fabs(s)) s = fits[g].s;
    }
    super best = { .error = (double)INFINITY };
    int8_t q[SUPER];
    improve(&K, groups, fits, half_scale(s / -128), 0, &best);
    improve(&K, groups, fits, half_scale(s / 127), 0, &best);
    put_levels(&K, &best, x, q);
    put_q6_k(&best, q, block);
}

const cv_quant cv_quant_q4_k = { unpack_q4_k, pack_q4_k };
const cv_quant cv_quant_q5_k = { unpack_q5_k, pack_q5_k };
const cv_quant cv_quant_q6_k = { unpack_q6_k, pack_q6_k };
