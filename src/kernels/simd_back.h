/* simd_back.h - the recurrences of versions 4, 5 and 6 walked back, over a vector of VF floats.
 *
 * The end of simd_body.h, from which it has the vectors.  Both walks keep the state at the border of
 * every window, and compute the states within a window again from there: exact, and in bounded
 * memory.  ref.c has the formulas in plain form. */
#ifndef CV_SIMD_BACK_H
#define CV_SIMD_BACK_H

/* ---- RWKV-4: lanes are channels -------------------------------------------------------------- */

/* The two sums times e^-p; of gradients: of the numerator, of the denominator. */
typedef struct mean4 {
    vf a, b, p;
} mean4;

TILE_INLINE mean4 mean4_load(const float *a, const float *b, const float *p)
{
    return (mean4){ v_load(a), v_load(b), v_load(p) };
}

TILE_INLINE void mean4_store(mean4 s, float *a, float *b, float *p)
{
    v_store(a, s.a);
    v_store(b, s.b);
    v_store(p, s.p);
}

TILE_INLINE mean4 mean4_after(mean4 s, vf w, vf k, vf v)
{
    const vf past = v_add(s.p, w), q = v_max(past, k);
    const vf e1 = v_exp(v_sub(past, q)), e2 = v_exp(v_sub(k, q));
    return (mean4){ v_fma(e1, s.a, v_mul(e2, v)), v_fma(e1, s.b, e2), q };
}

/* What one vector of channels gives beside its rows. */
typedef struct sums4 {
    vf w, u, dw, du;
} sums4;

TILE_INLINE void wkv4_token_back(const cv_wkv4_back *x, size_t at, mean4 s, sums4 *sums,
                                 mean4 *later)
{
    const vf k = v_load(x->k + at), v = v_load(x->v + at);
    const vf self = v_add(sums->u, k), q = v_max(s.p, self);
    const vf e1 = v_exp(v_sub(s.p, q)), e2 = v_exp(v_sub(self, q));
    const vf den = v_fma(e1, s.b, e2), y = v_div(v_fma(e1, s.a, v_mul(e2, v)), den);
    const vf g = v_div(v_load(x->dy + at), den);

    const vf present = v_mul(g, e2), bonus = v_mul(present, v_sub(v, y));
    const vf seen = v_exp(v_add(k, later->p)), past = v_add(sums->w, later->p);
    const vf dk = v_fma(seen, v_fma(later->a, v, later->b), bonus);
    v_store(x->dk + at, v_add(v_load(x->dk + at), dk));
    v_store(x->dv + at, v_add(v_load(x->dv + at), v_fma(seen, later->a, present)));
    sums->du = v_add(sums->du, bonus);
    sums->dw = v_fma(v_exp(v_add(s.p, past)), v_fma(later->a, s.a, v_mul(later->b, s.b)), sums->dw);

    const vf minus_q = v_sub(v_set(0.0f), q), top = v_max(past, minus_q);
    const vf old = v_exp(v_sub(past, top)), now = v_mul(g, v_exp(v_sub(minus_q, top)));
    later->a = v_fma(old, later->a, now);
    later->b = v_sub(v_mul(old, later->b), v_mul(now, y));
    later->p = top;
}

enum { WINDOW4 = 32 }; /* CV_WKV4_WINDOW */

/* Channels [c, c + VF), all tokens. */
static void wkv4_block_back(const cv_wkv4_back *x, size_t c)
{
    float *border = x->scratch;
    sums4 sums = { v_load(x->w + c), v_load(x->u + c), v_set(0.0f), v_set(0.0f) };
    mean4 s = mean4_load(x->aa + c, x->bb + c, x->pp + c);
    for (size_t t = 0; t < x->T; t++) {
        if (t % WINDOW4 == 0) {
            mean4_store(s, border, border + VF, border + 2 * VF);
            border += 3 * VF;
        }
        const size_t at = t * x->ld + c;
        s = mean4_after(s, sums.w, v_load(x->k + at), v_load(x->v + at));
    }

    mean4 later = mean4_load(x->alpha + c, x->beta + c, x->top + c), states[WINDOW4];
    for (size_t end = x->T, t; end > 0; end = t) {
        t = (end - 1) / WINDOW4 * WINDOW4;
        border -= 3 * VF;
        states[0] = mean4_load(border, border + VF, border + 2 * VF);
        for (size_t i = 1; i < end - t; i++) {
            const size_t at = (t + i - 1) * x->ld + c;
            states[i] = mean4_after(states[i - 1], sums.w, v_load(x->k + at), v_load(x->v + at));
        }
        for (size_t i = end - t; i-- > 0;)
            wkv4_token_back(x, (t + i) * x->ld + c, states[i], &sums, &later);
    }
    mean4_store(later, x->alpha + c, x->beta + c, x->top + c);
    if (x->dw) v_store(x->dw + c, v_add(v_load(x->dw + c), sums.dw));
    if (x->du) v_store(x->du + c, v_add(v_load(x->du + c), sums.du));
}

static void simd_wkv4_back(const cv_wkv4_back *x)
{
    size_t c = 0;
    for (; c + VF <= x->n; c += VF)
        wkv4_block_back(x, c);
    if (c == x->n) return;
    cv_wkv4_back rest = *x;
    rest.n -= c;
    const float **in[] = { &rest.w,  &rest.u,  &rest.k,  &rest.v,
                           &rest.dy, &rest.aa, &rest.bb, &rest.pp };
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        *in[i] += c;
    float **out[] = { &rest.dk, &rest.dv, &rest.alpha, &rest.beta, &rest.top, &rest.dw, &rest.du };
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        if (*out[i]) *out[i] += c;
    cv_kernels_ref.wkv4_back(&rest);
}

/* ---- RWKV-5 and 6: lanes are keys ------------------------------------------------------------ */

/* States lie turned, [i value][j key], with keys padded to a whole panel of zeros: then three of the
 * four sums over the state (those of r, k and w) run down the lanes, and only that of v across.
 *
 * Keys [j, j + B VF) are one block; B is a constant where this is inlined. */
enum {
    WINDOW5 = 16,                  /* CV_WKV5_WINDOW */
    KEYS_WIDE = VF == 16 ? 4 : PV, /* vectors of a block: what the registers hold */
    KEYS_MOST = 4
};

/* One walk: padded vectors of a window [WINDOW5][P], states, and the gradient of the state. */
typedef struct walk5 {
    size_t P;            /* keys, padded */
    float *borders;      /* [windows][N][P] */
    float *states;       /* [WINDOW5][N][keys of a block] */
    float *D;            /* [N][P] */
    float *r, *w, *k;    /* [WINDOW5][P] */
    float *dr, *dw, *dk; /* [WINDOW5][P] */
    float *u, *du;       /* [P] */
} walk5;

static walk5 walk5_lay_out(const cv_wkv5_back *x)
{
    walk5 s = { .P = (x->N + CV_PANEL - 1) / CV_PANEL * CV_PANEL };
    const size_t state = x->N * s.P, vectors = WINDOW5 * s.P;
    s.D = x->scratch;
    s.states = s.D + state;
    s.r = s.states + WINDOW5 * state;
    s.w = s.r + vectors;
    s.k = s.w + vectors;
    s.dr = s.k + vectors;
    s.dw = s.dr + vectors;
    s.dk = s.dw + vectors;
    s.u = s.dk + vectors;
    s.du = s.u + s.P;
    s.borders = s.du + s.P;
    return s;
}

/* [n][P] with zeros behind N of each row, from rows that are ld apart. */
static void pad_keys(size_t n, size_t N, size_t P, const float *from, size_t ld, float *to)
{
    for (size_t t = 0; t < n; t++, from += ld, to += P) {
        memcpy(to, from, N * sizeof *to);
        memset(to + N, 0, (P - N) * sizeof *to);
    }
}

static void turn_in(const cv_wkv5_back *x, size_t P, const float *S, float *to)
{
    for (size_t i = 0; i < x->N; i++)
        for (size_t j = 0; j < P; j++)
            to[i * P + j] = j < x->N ? S[j * x->N + i] : 0.0f;
}

/* The state behind a token: rows of `from` are P apart, or ld as those of `to`. */
TILE_INLINE void wkv5_after(size_t B, size_t N, const float *w, const float *k, const float *v,
                            const float *from, size_t ld_from, float *to, size_t ld)
{
    vf wj[KEYS_MOST], kj[KEYS_MOST];
#pragma GCC unroll 4
    for (size_t b = 0; b < B; b++) {
        wj[b] = v_load(w + b * VF);
        kj[b] = v_load(k + b * VF);
    }
    for (size_t i = 0; i < N; i++, from += ld_from, to += ld) {
        const vf vi = v_set(v[i]);
#pragma GCC unroll 4
        for (size_t b = 0; b < B; b++)
            v_store(to + b * VF, v_fma(wj[b], v_load(from + b * VF), v_mul(kj[b], vi)));
    }
}

/* One token of a block: S before it, D turns from behind it to before it.  The sums of the block are
 * set, those of the values added to. */
TILE_INLINE void wkv5_token(size_t B, size_t N, const walk5 *s, size_t row, const float *v,
                            const float *dy, const float *S, size_t ld, float *D, float *dv)
{
    vf r[KEYS_MOST], w[KEYS_MOST], k[KEYS_MOST], dr[KEYS_MOST], dk[KEYS_MOST], dw[KEYS_MOST];
#pragma GCC unroll 4
    for (size_t b = 0; b < B; b++) {
        r[b] = v_load(s->r + row + b * VF);
        w[b] = v_load(s->w + row + b * VF);
        k[b] = v_load(s->k + row + b * VF);
        dr[b] = dk[b] = dw[b] = v_set(0.0f);
    }
    for (size_t i = 0; i < N; i++, S += ld, D += s->P) {
        const vf g = v_set(dy[i]), vi = v_set(v[i]);
        vf across = v_set(0.0f);
#pragma GCC unroll 4
        for (size_t b = 0; b < B; b++) {
            const vf sj = v_load(S + b * VF), dj = v_load(D + b * VF);
            dr[b] = v_fma(sj, g, dr[b]);
            dk[b] = v_fma(dj, vi, dk[b]);
            dw[b] = v_fma(dj, sj, dw[b]);
            across = v_fma(dj, k[b], across);
            v_store(D + b * VF, v_fma(w[b], dj, v_mul(r[b], g)));
        }
        dv[i] += v_sum(across);
    }
#pragma GCC unroll 4
    for (size_t b = 0; b < B; b++) {
        v_store(s->dr + row + b * VF, dr[b]);
        v_store(s->dk + row + b * VF, dk[b]);
        v_store(s->dw + row + b * VF, dw[b]);
    }
}

/* From the border of a window to the next, for keys from j on. */
TILE_INLINE void wkv5_border(size_t B, const cv_wkv5_back *x, const walk5 *s, size_t t, size_t j,
                             const float *border)
{
    float *next = s->borders + (t / WINDOW5 + 1) * x->N * s->P + j;
    for (size_t i = 0; i < WINDOW5; i++)
        wkv5_after(B, x->N, s->w + i * s->P + j, s->k + i * s->P + j, x->v + (t + i) * x->ld,
                   i ? next : border, s->P, next, s->P);
}

/* Tokens [t, t + n) of a window, keys from j on. */
TILE_INLINE void wkv5_window(size_t B, const cv_wkv5_back *x, const walk5 *s, size_t t, size_t n,
                             size_t j, const float *border)
{
    const size_t N = x->N, P = s->P, ld = B * VF, size = N * ld;
    for (size_t i = 0; i + 1 < n; i++)
        wkv5_after(B, N, s->w + i * P + j, s->k + i * P + j, x->v + (t + i) * x->ld,
                   i ? s->states + i * size : border, i ? ld : P, s->states + (i + 1) * size, ld);
    for (size_t i = n; i-- > 0;) {
        const size_t at = (t + i) * x->ld;
        wkv5_token(B, N, s, i * P + j, x->v + at, x->dy + at, i ? s->states + i * size : border,
                   i ? ld : P, s->D + j, x->dv + at);
    }
}

/* All keys of a window: forward to the next border, or back. */
static void wkv5_keys(const cv_wkv5_back *x, const walk5 *s, size_t t, size_t n, bool back)
{
    const float *border = s->borders + t / WINDOW5 * x->N * s->P;
    const size_t wide = KEYS_WIDE * VF;
    size_t j = 0;
    for (; j + wide <= s->P; j += wide)
        back ? wkv5_window(KEYS_WIDE, x, s, t, n, j, border + j)
             : wkv5_border(KEYS_WIDE, x, s, t, j, border + j);
    for (; j < s->P; j += CV_PANEL)
        back ? wkv5_window(PV, x, s, t, n, j, border + j) : wkv5_border(PV, x, s, t, j, border + j);
}

static void wkv5_read_window(const cv_wkv5_back *x, const walk5 *s, size_t t, size_t n)
{
    pad_keys(n, x->N, s->P, x->r + t * x->ld, x->ld, s->r);
    pad_keys(n, x->N, s->P, x->w + t * x->ldw, x->ldw, s->w);
    pad_keys(n, x->N, s->P, x->k + t * x->ld, x->ld, s->k);
}

/* What the bonus adds to the gradients of one token: row i of the window. */
static void wkv5_bonus(const cv_wkv5_back *x, const walk5 *s, size_t t, size_t i)
{
    const size_t at = (t + i) * x->ld, row = i * s->P;
    const vf own = v_set(simd_dot(x->N, x->v + at, x->dy + at));
    vf sum = v_set(0.0f);
    for (size_t j = 0; j < s->P; j += VF) {
        const vf r = v_load(s->r + row + j), k = v_load(s->k + row + j), u = v_load(s->u + j);
        const vf rk = v_mul(r, k), u_own = v_mul(u, own);
        sum = v_fma(u, rk, sum);
        v_store(s->dr + row + j, v_fma(u_own, k, v_load(s->dr + row + j)));
        v_store(s->dk + row + j, v_fma(u_own, r, v_load(s->dk + row + j)));
        v_store(s->du + j, v_fma(rk, own, v_load(s->du + j)));
    }
    const float bonus = v_sum(sum);
    for (size_t c = 0; c < x->N; c++)
        x->dv[at + c] += bonus * x->dy[at + c];
}

static void add_keys(size_t N, const float *from, float *to)
{
    for (size_t j = 0; to && j < N; j++)
        to[j] += from[j];
}

static void simd_wkv5_back(const cv_wkv5_back *x)
{
    const walk5 s = walk5_lay_out(x);
    const size_t N = x->N, P = s.P;
    pad_keys(1, N, P, x->u, N, s.u);
    memset(s.du, 0, P * sizeof *s.du);
    turn_in(x, P, x->S, s.borders);
    turn_in(x, P, x->dS, s.D);
    for (size_t t = 0; t + WINDOW5 < x->T; t += WINDOW5) {
        wkv5_read_window(x, &s, t, WINDOW5);
        wkv5_keys(x, &s, t, WINDOW5, false);
    }
    for (size_t end = x->T, t; end > 0; end = t) {
        t = (end - 1) / WINDOW5 * WINDOW5;
        wkv5_read_window(x, &s, t, end - t);
        wkv5_keys(x, &s, t, end - t, true);
        for (size_t i = end - t; i-- > 0;) {
            wkv5_bonus(x, &s, t, i);
            add_keys(N, s.dr + i * P, x->dr + (t + i) * x->ld);
            add_keys(N, s.dk + i * P, x->dk + (t + i) * x->ld);
            if (x->dw) add_keys(N, s.dw + i * P, x->dw + (t + i) * x->ldw);
        }
    }
    add_keys(N, s.du, x->du);
    for (size_t j = 0; j < N; j++)
        for (size_t i = 0; i < N; i++)
            x->dS[j * N + i] = s.D[i * P + j];
}

#endif
