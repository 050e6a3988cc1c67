/* ref.c - every kernel in plain C: what the fast tables are compared with, and what runs on a
 * machine that has none of them.  Written for reading; the order of sums is that of kernels.h. */
#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tensor/dtype.h"

/* The weight of row i (0..15) of a panel at input j, in f32. */
static float panel_weight(const cv_matrix *W, const unsigned char *panel, size_t i, size_t j)
{
    if (W->layout == CV_LAYOUT_F32) {
        float f;
        memcpy(&f, panel + (j * CV_PANEL + i) * sizeof f, sizeof f);
        return f;
    }
    if (W->layout == CV_LAYOUT_Q8) {
        size_t head = CV_PANEL * sizeof(float);
        size_t heads = W->has_min ? 2 * head : head;
        const unsigned char *g = panel + j / W->group * (heads + W->group * CV_PANEL);
        float scale, min = 0.0f;
        memcpy(&scale, g + i * sizeof scale, sizeof scale);
        if (W->has_min) memcpy(&min, g + head + i * sizeof min, sizeof min);
        int8_t q = (int8_t)g[heads + j % W->group * CV_PANEL + i];
        return fmaf((float)q, scale, min);
    }
    uint16_t h;
    memcpy(&h, panel + (j * CV_PANEL + i) * sizeof h, sizeof h);
    return W->layout == CV_LAYOUT_F16 ? cv_f16_to_f32(h) : cv_bf16_to_f32(h);
}

static void ref_matmul(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x,
                       size_t ldx, float *y, size_t ldy, bool add, float *scratch)
{
    for (size_t p = lo; p < hi; p++) {
        const unsigned char *panel = W->panels + p * W->panel_bytes;
        for (size_t i = 0; i < CV_PANEL && p * CV_PANEL + i < W->rows; i++) {
            for (size_t j0 = 0; j0 < W->cols; j0 += CV_FOLD) {
                size_t n = W->cols - j0 < CV_FOLD ? W->cols - j0 : CV_FOLD;
                for (size_t j = 0; j < n; j++)
                    scratch[j] = panel_weight(W, panel, i, j0 + j);
                for (size_t t = 0; t < T; t++) {
                    float *out = y + t * ldy + p * CV_PANEL + i, sum = 0.0f;
                    for (size_t j = 0; j < n; j++)
                        sum = fmaf(scratch[j], x[t * ldx + j0 + j], sum);
                    *out = (j0 || add ? *out : 0.0f) + sum;
                }
            }
        }
    }
}

static void ref_wkv4(size_t T, size_t n, size_t ld, const float *w, const float *u, const float *k,
                     const float *v, float *y, float *aa, float *bb, float *pp)
{
    for (size_t t = 0; t < T; t++)
        for (size_t c = 0; c < n; c++) {
            float kt = k[t * ld + c], vt = v[t * ld + c];

            float q = fmaxf(pp[c], u[c] + kt);
            float e1 = expf(pp[c] - q), e2 = expf(u[c] + kt - q);
            y[t * ld + c] = (e1 * aa[c] + e2 * vt) / (e1 * bb[c] + e2);

            q = fmaxf(pp[c] + w[c], kt);
            e1 = expf(pp[c] + w[c] - q);
            e2 = expf(kt - q);
            aa[c] = e1 * aa[c] + e2 * vt;
            bb[c] = e1 * bb[c] + e2;
            pp[c] = q;
        }
}

static void ref_wkv5(size_t T, size_t N, ptrdiff_t ld, ptrdiff_t ldw, const float *r,
                     const float *w, const float *k, const float *v, const float *u, float *y,
                     float *S)
{
    for (size_t t = 0; t < T; t++, r += ld, w += ldw, k += ld, v += ld, y += ld)
        for (size_t i = 0; i < N; i++) {
            float sum = 0.0f;
            for (size_t j = 0; j < N; j++) {
                float *s = S + j * N + i;
                float kv = k[j] * v[i];
                sum += r[j] * (*s + u[j] * kv);
                *s = w[j] * *s + kv;
            }
            y[i] = sum;
        }
}

static void ref_wkv7(size_t T, size_t N, size_t ld, const float *r, const float *w, const float *k,
                     const float *v, const float *kk, const float *b, float *y, float *S)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < N; i++) {
            float sa = 0.0f, sum = 0.0f;
            for (size_t j = 0; j < N; j++)
                sa -= S[j * N + i] * kk[t * ld + j];
            for (size_t j = 0; j < N; j++) {
                float *s = S + j * N + i;
                *s = *s * w[t * ld + j] + sa * b[t * ld + j] + v[t * ld + i] * k[t * ld + j];
                sum += *s * r[t * ld + j];
            }
            y[t * ld + i] = sum;
        }
}

/* ---- Back ------------------------------------------------------------------------------------ */

/* The two sums of one channel, times e^-p. */
typedef struct mean4 {
    float a, b, p;
} mean4;

static mean4 mean4_after(mean4 s, float w, float k, float v)
{
    const float q = fmaxf(s.p + w, k), e1 = expf(s.p + w - q), e2 = expf(k - q);
    return (mean4){ e1 * s.a + e2 * v, e1 * s.b + e2, q };
}

/* One token of one channel; later holds the gradients of the sums behind it, then before it.  Every
 * exponent is at most 0: that of later is -(the largest exponent of any mean behind). */
static void wkv4_token_back(const cv_wkv4_back *x, size_t c, size_t at, mean4 s, mean4 *later)
{
    const float w = x->w[c], self = x->u[c] + x->k[at], k = x->k[at], v = x->v[at];
    const float q = fmaxf(s.p, self), e1 = expf(s.p - q), e2 = expf(self - q);
    const float den = e1 * s.b + e2, y = (e1 * s.a + e2 * v) / den, g = x->dy[at] / den;

    const float present = g * e2, seen = expf(k + later->p);
    x->dk[at] += present * (v - y) + seen * (later->a * v + later->b);
    x->dv[at] += present + seen * later->a;
    if (x->du) x->du[c] += present * (v - y);
    if (x->dw) x->dw[c] += expf(w + s.p + later->p) * (later->a * s.a + later->b * s.b);

    const float top = fmaxf(w + later->p, -q);
    const float old = expf(w + later->p - top), now = g * expf(-q - top);
    *later = (mean4){ old * later->a + now, old * later->b - now * y, top };
}

static void ref_wkv4_back(const cv_wkv4_back *x)
{
    mean4 states[CV_WKV4_WINDOW];
    for (size_t c = 0; c < x->n; c++) {
        float *border = x->scratch;
        mean4 s = { x->aa[c], x->bb[c], x->pp[c] };
        for (size_t t = 0; t < x->T; t++) {
            if (t % CV_WKV4_WINDOW == 0) {
                memcpy(border, &s, sizeof s);
                border += 3;
            }
            s = mean4_after(s, x->w[c], x->k[t * x->ld + c], x->v[t * x->ld + c]);
        }
        mean4 later = { x->alpha[c], x->beta[c], x->top[c] };
        for (size_t end = x->T, t; end > 0; end = t) {
            t = (end - 1) / CV_WKV4_WINDOW * CV_WKV4_WINDOW;
            border -= 3;
            memcpy(&states[0], border, sizeof states[0]);
            for (size_t i = 1; i < end - t; i++) {
                const size_t at = (t + i - 1) * x->ld + c;
                states[i] = mean4_after(states[i - 1], x->w[c], x->k[at], x->v[at]);
            }
            for (size_t i = end - t; i-- > 0;)
                wkv4_token_back(x, c, (t + i) * x->ld + c, states[i], &later);
        }
        x->alpha[c] = later.a;
        x->beta[c] = later.b;
        x->top[c] = later.p;
    }
}

/* The state behind token t from that before it; to may be from. */
static void wkv5_state_after(const cv_wkv5_back *x, size_t t, const float *from, float *to)
{
    const float *w = x->w + t * x->ldw, *k = x->k + t * x->ld, *v = x->v + t * x->ld;
    for (size_t j = 0; j < x->N; j++)
        for (size_t i = 0; i < x->N; i++)
            to[j * x->N + i] = w[j] * from[j * x->N + i] + k[j] * v[i];
}

/* One token; S is the state before it, dS turns from behind it to before it. */
static void wkv5_token_back(const cv_wkv5_back *x, size_t t, const float *S)
{
    const size_t N = x->N, at = t * x->ld;
    const float *r = x->r + at, *k = x->k + at, *v = x->v + at, *dy = x->dy + at;
    float own = 0.0f, bonus = 0.0f;
    for (size_t i = 0; i < N; i++) {
        own += v[i] * dy[i];
        bonus += x->u[i] * r[i] * k[i];
    }
    for (size_t i = 0; i < N; i++)
        x->dv[at + i] += dy[i] * bonus;
    for (size_t j = 0; j < N; j++) {
        const float w = x->w[t * x->ldw + j];
        float dr = x->u[j] * k[j] * own, dk = x->u[j] * r[j] * own, dw = 0.0f;
        for (size_t i = 0; i < N; i++) {
            const float s = S[j * N + i];
            float *d = x->dS + j * N + i;
            dr += s * dy[i];
            dk += *d * v[i];
            dw += *d * s;
            x->dv[at + i] += *d * k[j];
            *d = *d * w + dy[i] * r[j];
        }
        x->dr[at + j] += dr;
        x->dk[at + j] += dk;
        if (x->dw) x->dw[t * x->ldw + j] += dw;
        if (x->du) x->du[j] += r[j] * k[j] * own;
    }
}

static void ref_wkv5_back(const cv_wkv5_back *x)
{
    const size_t size = x->N * x->N;
    float *states = x->scratch, *border = states + CV_WKV5_WINDOW * size;
    memcpy(border, x->S, size * sizeof *border);
    for (size_t t = 0; t + CV_WKV5_WINDOW < x->T; t += CV_WKV5_WINDOW, border += size)
        for (size_t i = 0; i < CV_WKV5_WINDOW; i++)
            wkv5_state_after(x, t + i, i ? border + size : border, border + size);

    for (size_t end = x->T, t; end > 0; end = t, border -= size) {
        t = (end - 1) / CV_WKV5_WINDOW * CV_WKV5_WINDOW;
        memcpy(states, border, size * sizeof *states);
        for (size_t i = 1; i < end - t; i++)
            wkv5_state_after(x, t + i - 1, states + (i - 1) * size, states + i * size);
        for (size_t i = end - t; i-- > 0;)
            wkv5_token_back(x, t + i, states + i * size);
    }
}

/* One token of one value's row: s the state before it, after behind it, D the gradient of the row,
 * stride N apart; see [v7.wkv] for the forward sums. */
static void wkv7_token_back(const cv_wkv7_back *x, size_t t, size_t i, const float *s,
                            const float *after)
{
    const size_t N = x->N, at = t * x->ld;
    const float dy = x->dy[at + i], v = x->v[at + i];
    float *D = x->dS + i, sa = 0.0f, dsa = 0.0f;
    for (size_t j = 0; j < N; j++)
        sa -= s[j] * x->kk[at + j];
    for (size_t j = 0; j < N; j++) {
        const float E = D[j * N] += dy * x->r[at + j];
        x->dr[at + j] += after[j] * dy;
        x->dw[at + j] += E * s[j];
        x->dk[at + j] += E * v;
        x->db[at + j] += E * sa;
        x->dv[at + i] += E * x->k[at + j];
        dsa += E * x->b[at + j];
    }
    for (size_t j = 0; j < N; j++) {
        x->dkk[at + j] -= s[j] * dsa;
        D[j * N] = D[j * N] * x->w[at + j] - dsa * x->kk[at + j];
    }
}

/* Each value has a row of the state to itself, so all its states fit in the scratch. */
static void ref_wkv7_back(const cv_wkv7_back *x)
{
    const size_t N = x->N;
    float *states = x->scratch; /* [T + 1][N] */
    float *const to[] = { x->dr, x->dw, x->dk, x->dv, x->dkk, x->db };
    const bool set[] = { x->set_r, x->set_w, x->set_k, x->set_v, x->set_kk, x->set_b };
    for (size_t a = 0; a < sizeof to / sizeof *to; a++)
        for (size_t t = 0; set[a] && t < x->T; t++)
            memset(to[a] + t * x->ld, 0, N * sizeof *to[a]);
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < N; j++)
            states[j] = x->S[j * N + i];
        for (size_t t = 0; t < x->T; t++) {
            const float *s = states + t * N;
            const size_t at = t * x->ld;
            float sa = 0.0f;
            for (size_t j = 0; j < N; j++)
                sa -= s[j] * x->kk[at + j];
            for (size_t j = 0; j < N; j++)
                states[(t + 1) * N + j] =
                    s[j] * x->w[at + j] + sa * x->b[at + j] + x->v[at + i] * x->k[at + j];
        }
        for (size_t t = x->T; t-- > 0;)
            wkv7_token_back(x, t, i, states + t * N, states + (t + 1) * N);
    }
}

/* ---- Bi-WKV [bi.linear]: one channel at a time, sums in double ------------------------------- */

static void ref_bi_keys(size_t T, size_t n, size_t ld, float *k, float *top)
{
    for (size_t c = 0; c < n; c++) {
        float m = k[c];
        for (size_t t = 1; t < T; t++)
            m = k[t * ld + c] > m ? k[t * ld + c] : m;
        for (size_t t = 0; t < T; t++)
            k[t * ld + c] = expf(k[t * ld + c] - m);
        top[c] = m;
    }
}

/* e^(-w) of a channel in double, for sums over T tokens: a far power keeps more digits than the
 * first, and one from beyond the tokens may be no float. */
static double bi_lambda(const cv_bi_decay *decay, size_t T, size_t c)
{
    const size_t n = T < CV_BI_BLOCK ? T : CV_BI_BLOCK;
    const double rest = n == CV_BI_BLOCK ? (double)decay->rest[c] : 0.0;
    return exp(log((double)decay->power[n][c] + rest) / (double)n);
}

static void ref_bi_ends(size_t T, size_t n, size_t ld, const cv_bi_decay *decay, const float *p,
                        const float *v, float ends[4][16])
{
    for (size_t c = 0; c < n; c++) {
        const double lambda = bi_lambda(decay, T, c);
        double past[2] = { 0.0, 0.0 }, future[2] = { 0.0, 0.0 };
        for (size_t t = 0; t < T; t++) {
            const size_t at = t * ld + c, back = (T - 1 - t) * ld + c;
            past[0] = past[0] * lambda + (double)p[at] * (double)v[at];
            past[1] = past[1] * lambda + (double)p[at];
            future[0] = future[0] * lambda + (double)p[back] * (double)v[back];
            future[1] = future[1] * lambda + (double)p[back];
        }
        for (size_t i = 0; i < 2; i++) {
            ends[i][c] = (float)past[i];
            ends[2 + i][c] = (float)future[i];
        }
    }
}

static void ref_bi_wkv(size_t T, size_t n, size_t ld, const cv_bi_decay *decay, const float *self,
                       const float *scale, const float carry[4][16], const float *p, const float *v,
                       float *y)
{
    double future[CV_BI_SEGMENT][2];
    for (size_t c = 0; c < n; c++) {
        const double lambda = bi_lambda(decay, T, c), s = (double)scale[c];
        double N = (double)carry[2][c], D = (double)carry[3][c];
        for (size_t t = T; t-- > 0;) {
            const size_t at = t * ld + c;
            future[t][0] = N;
            future[t][1] = D;
            N = N * lambda + s * (double)p[at] * (double)v[at];
            D = D * lambda + s * (double)p[at];
        }
        N = (double)carry[0][c];
        D = (double)carry[1][c];
        for (size_t t = 0; t < T; t++) {
            const size_t at = t * ld + c;
            const double pt = s * (double)p[at], vt = (double)v[at], own = (double)self[c] * pt;
            y[at] = (float)((N + future[t][0] + own * vt) / (D + future[t][1] + own));
            N = N * lambda + pt * vt;
            D = D * lambda + pt;
        }
    }
}

/* What a pair (N, D) does to the loss, by that of its gradient (h, h y): h N - h y D. */
static double bi_cross(const double a[2], const float *b)
{
    return a[0] * (double)b[0] - a[1] * (double)b[1];
}

/* Where token t of a channel keeps pairs, with the value and without: its key, what the tokens before
 * it and behind it sum up to, and its share h of the gradient; h y. */
static float *bi_kept(const cv_bi_back *x, size_t t)
{
    return x->scratch + 8 * t;
}

enum { BI_KEY = 0, BI_PAST = 2, BI_FUTURE = 4, BI_SHARE = 6 };

static void bi_keep_keys(const cv_bi_back *x, size_t c)
{
    float top = x->k[c];
    for (size_t t = 1; t < x->T; t++)
        top = x->k[t * x->ld + c] > top ? x->k[t * x->ld + c] : top;
    for (size_t t = 0; t < x->T; t++) {
        float *kept = bi_kept(x, t);
        kept[BI_KEY + 1] = expf(x->k[t * x->ld + c] - top);
        kept[BI_KEY] = kept[BI_KEY + 1] * x->v[t * x->ld + c];
    }
}

/* The sums on both sides of each token again, and with them its share. */
static void bi_keep_sums(const cv_bi_back *x, size_t c, double lambda)
{
    double sum[2] = { 0.0, 0.0 };
    for (size_t t = x->T; t-- > 0;)
        for (size_t i = 0; i < 2; i++) {
            bi_kept(x, t)[BI_FUTURE + i] = (float)sum[i];
            sum[i] = sum[i] * lambda + (double)bi_kept(x, t)[BI_KEY + i];
        }
    sum[0] = sum[1] = 0.0;
    for (size_t t = 0; t < x->T; t++) {
        float *kept = bi_kept(x, t);
        double all[2];
        for (size_t i = 0; i < 2; i++) {
            const double own = (double)kept[BI_KEY + i];
            kept[BI_PAST + i] = (float)sum[i];
            all[i] = sum[i] + (double)kept[BI_FUTURE + i] + (double)x->self[c] * own;
            sum[i] = sum[i] * lambda + own;
        }
        const double h = (double)x->dv[t * x->ld + c] / all[1];
        kept[BI_SHARE] = (float)h;
        kept[BI_SHARE + 1] = (float)(h * all[0] / all[1]);
    }
}

/* Shares are summed as keys were; a sum on one side of a token meets that of shares on the other. */
static void ref_bi_wkv_back(const cv_bi_back *x)
{
    for (size_t c = 0; c < x->n; c++) {
        const double lambda = bi_lambda(x->decay, x->T, c), self = (double)x->self[c];
        double sum[2] = { 0.0, 0.0 }, dw = 0.0, du = 0.0;
        bi_keep_keys(x, c);
        bi_keep_sums(x, c, lambda);
        for (size_t t = x->T; t-- > 0;) {
            float *kept = bi_kept(x, t);
            dw -= bi_cross(sum, kept + BI_PAST);
            for (size_t i = 0; i < 2; i++) {
                kept[BI_PAST + i] = (float)sum[i]; /* from here on that of shares */
                sum[i] = sum[i] * lambda + (double)kept[BI_SHARE + i];
            }
        }
        sum[0] = sum[1] = 0.0;
        for (size_t t = 0; t < x->T; t++) {
            const float *kept = bi_kept(x, t);
            double own[2], all[2];
            dw -= bi_cross(sum, kept + BI_FUTURE);
            for (size_t i = 0; i < 2; i++) {
                own[i] = self * (double)kept[BI_SHARE + i];
                all[i] = sum[i] + (double)kept[BI_PAST + i] + own[i];
                sum[i] = sum[i] * lambda + (double)kept[BI_SHARE + i];
            }
            x->dv[t * x->ld + c] = (float)((double)kept[BI_KEY + 1] * all[0]);
            x->dk[t * x->ld + c] += (float)bi_cross(all, kept + BI_KEY);
            du += bi_cross(own, kept + BI_KEY);
        }
        x->dw[c] += (float)(lambda * dw);
        x->du[c] += (float)du;
    }
}

static float ref_layer_norm(size_t n, const float *x, const float *w, const float *b, float eps,
                            float *xh, float *y)
{
    double mean = 0.0, var = 0.0;
    for (size_t c = 0; c < n; c++)
        mean += (double)x[c];
    mean /= (double)n;
    for (size_t c = 0; c < n; c++)
        var += ((double)x[c] - mean) * ((double)x[c] - mean);
    double s = 1.0 / sqrt(var / (double)n + (double)eps);
    for (size_t c = 0; c < n; c++) {
        const float h = (float)(((double)x[c] - mean) * s);
        if (xh) xh[c] = h;
        y[c] = h * w[c] + b[c];
    }
    return (float)s;
}

static void ref_layer_norm_back(size_t n, const float *xh, float scale, const float *w,
                                const float *dy, bool add, float *dx)
{
    double mean = 0.0, slope = 0.0;
    for (size_t c = 0; c < n; c++) {
        mean += (double)dy[c] * (double)w[c] / (double)n;
        slope += (double)dy[c] * (double)w[c] * (double)xh[c] / (double)n;
    }
    for (size_t c = 0; c < n; c++) {
        const double d = (double)dy[c] * (double)w[c] - mean - (double)xh[c] * slope;
        dx[c] = (add ? dx[c] : 0.0f) + (float)(d * (double)scale);
    }
}

static void ref_lerp(size_t n, const float *z, const float *prev, const float *mu, float *y)
{
    for (size_t c = 0; c < n; c++)
        y[c] = z[c] + (prev[c] - z[c]) * mu[c];
}

static void ref_mul(size_t n, const float *a, const float *b, float *y)
{
    for (size_t c = 0; c < n; c++)
        y[c] = a[c] * b[c];
}

static void ref_turn(size_t n, size_t m, const float *from, size_t ld, float *to, size_t ldto)
{
    for (size_t j = 0; j < m; j++, to += ldto)
        for (size_t i = 0; i < CV_PANEL; i++)
            to[i] = i < n ? from[i * ld + j] : 0.0f;
}

static void ref_outer(size_t T, size_t n, size_t m, const float *a, size_t lda, const float *b,
                      size_t ldb, float *W, size_t ldw, bool rounded, float *scratch)
{
    (void)rounded;
    (void)scratch;
    for (size_t t = 0; t < T; t++)
        for (size_t o = 0; o < n; o++)
            for (size_t i = 0; i < m; i++)
                W[o * ldw + i] += a[t * lda + o] * b[t * ldb + i];
}

static void ref_mul_add(size_t n, const float *a, const float *b, float *y)
{
    for (size_t c = 0; c < n; c++)
        y[c] += a[c] * b[c];
}

static float ref_dot(size_t n, const float *a, const float *b)
{
    float sum = 0.0f;
    for (size_t c = 0; c < n; c++)
        sum += a[c] * b[c];
    return sum;
}

static float sigma(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static void ref_exp(size_t n, const float *x, float *y)
{
    for (size_t c = 0; c < n; c++)
        y[c] = expf(x[c]);
}

static void ref_sigmoid(size_t n, const float *x, float *y)
{
    for (size_t c = 0; c < n; c++)
        y[c] = sigma(x[c]);
}

static void ref_tanh(size_t n, const float *x, float *y)
{
    for (size_t c = 0; c < n; c++)
        y[c] = tanhf(x[c]);
}

static void ref_silu(size_t n, const float *x, float *y)
{
    for (size_t c = 0; c < n; c++)
        y[c] = x[c] * sigma(x[c]);
}

/* In double, whatever float means here. */
static void ref_gelu(size_t n, const float *x, float *y)
{
    for (size_t c = 0; c < n; c++)
        y[c] = (float)((double)x[c] * 0.5 * erfc(-(double)x[c] * 0.70710678118654752));
}

static void ref_gelu_back(size_t n, const float *x, float *dy)
{
    for (size_t c = 0; c < n; c++) {
        const double z = (double)x[c], share = 0.5 * erfc(-z * 0.70710678118654752);
        dy[c] *= (float)(share + z * 0.39894228040143268 * exp(-0.5 * z * z));
    }
}

static void ref_relu2(size_t n, const float *x, float *y)
{
    for (size_t c = 0; c < n; c++) {
        float p = x[c] < 0.0f ? 0.0f : x[c]; /* keeps NaN */
        y[c] = p * p;
    }
}

static void ref_decay6(size_t n, const float *x, float *y)
{
    for (size_t c = 0; c < n; c++)
        y[c] = expf(-expf(x[c]));
}

static void ref_decay7(size_t n, const float *x, float *y)
{
    for (size_t c = 0; c < n; c++)
        y[c] = expf(-(float)0.60653065971263342 * sigma(x[c]));
}

const cv_kernels cv_kernels_ref = {
    .level = CV_CPU_REF,
    .matmul = ref_matmul,
    .wkv4 = ref_wkv4,
    .wkv5 = ref_wkv5,
    .wkv4_back = ref_wkv4_back,
    .wkv5_back = ref_wkv5_back,
    .wkv7_back = ref_wkv7_back,
    .wkv7 = ref_wkv7,
    .bi_keys = ref_bi_keys,
    .bi_ends = ref_bi_ends,
    .bi_wkv = ref_bi_wkv,
    .bi_wkv_back = ref_bi_wkv_back,
    .layer_norm = ref_layer_norm,
    .layer_norm_back = ref_layer_norm_back,
    .lerp = ref_lerp,
    .mul = ref_mul,
    .outer = ref_outer,
    .turn = ref_turn,
    .mul_add = ref_mul_add,
    .dot = ref_dot,
    .exp = ref_exp,
    .sigmoid = ref_sigmoid,
    .tanh = ref_tanh,
    .silu = ref_silu,
    .gelu = ref_gelu,
    .gelu_back = ref_gelu_back,
    .relu2 = ref_relu2,
    .decay6 = ref_decay6,
    .decay7 = ref_decay7,
};
