/* simd_back7.h - the recurrence of version 7 walked back, over a vector of VF floats.
 *
 * Part of simd_body.h, from which it has the vectors and the forward walk.  Lanes are keys j, and
 * the state is turned: a value i has a row of it to itself, which no other row ever meets.  So what
 * a row removes and its dv are sums within the row, everything else is added lane by lane, and a few
 * rows at a time go through a whole window while their states lie in the first cache.  Rows are
 * padded with zeros to whole vectors; padding gives zeros.  ref.c has the formulas in plain form. */
#ifndef CV_SIMD_BACK7_H
#define CV_SIMD_BACK7_H

/* Rows that go through a window together. */
enum { ROWS7 = VF == 16 ? 4 : 2, WINDOW7 = 16 };

_Static_assert(WINDOW7 == CV_WKV7_WINDOW, "one window");

/* What the tokens of a window read, and the sums of what they give. */
enum { IN_R, IN_W, IN_K, IN_KK, IN_B, IN_V, INPUTS7 };
enum { SUM_R, SUM_W, SUM_K, SUM_KK, SUM_B, SUMS7 };

/* One window: the scratch, cut up.  keys is N in whole vectors. */
typedef struct window7 {
    size_t T, keys;
    float *in[INPUTS7], *sum[SUMS7]; /* [WINDOW7][keys] */
    float *states;                   /* [WINDOW7 + 1][ROWS7][keys] */
    float *D;                        /* [N i][keys] gradient of the state */
    float *border;                   /* [windows][N j][N i] */
    /* One number per token and row. */
    float v[WINDOW7][ROWS7], dy[WINDOW7][ROWS7], sa[WINDOW7][ROWS7], dv[WINDOW7][ROWS7];
} window7;

static window7 window7_cut(const cv_wkv7_back *x)
{
    window7 s = { .keys = (x->N + CV_PANEL - 1) / CV_PANEL * CV_PANEL };
    float *at = x->scratch;
    for (size_t i = 0; i < INPUTS7; i++, at += WINDOW7 * s.keys)
        s.in[i] = at;
    for (size_t i = 0; i < SUMS7; i++, at += WINDOW7 * s.keys)
        s.sum[i] = at;
    s.states = at;
    at += (WINDOW7 + 1) * ROWS7 * s.keys;
    s.D = at;
    s.border = at + x->N * s.keys;
    return s;
}

static void turn7(size_t N, const float *from, size_t ld_from, float *to, size_t ld_to)
{
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++)
            to[i * ld_to + j] = from[j * ld_from + i];
}

/* The inputs of n tokens from t on. */
static void gather7(const cv_wkv7_back *x, size_t t, size_t n, window7 *s)
{
    const float *from[INPUTS7] = { x->r, x->w, x->k, x->kk, x->b, x->v };
    s->T = n;
    for (size_t a = 0; a < INPUTS7; a++)
        for (size_t i = 0; i < n; i++) {
            float *to = s->in[a] + i * s->keys;
            memcpy(to, from[a] + (t + i) * x->ld, x->N * sizeof *to);
            memset(to + x->N, 0, (s->keys - x->N) * sizeof *to);
        }
}

/* The state before each window, by the walk forward. */
static void borders7(const cv_wkv7_back *x, window7 *s)
{
    const size_t N = x->N;
    memcpy(s->border, x->S, N * N * sizeof *x->S);
    for (size_t t = 0; t + WINDOW7 < x->T; t += WINDOW7) {
        float *S = s->border + t / WINDOW7 * N * N;
        memcpy(S + N * N, S, N * N * sizeof *S);
        gather7(x, t, WINDOW7, s);
        simd_wkv7(WINDOW7, N, s->keys, s->in[IN_R], s->in[IN_W], s->in[IN_K], s->in[IN_V],
                  s->in[IN_KK], s->in[IN_B], s->sum[0], S + N * N);
    }
}

/* R rows forward through the window: the states behind each token, and sa = -S kk.  R, and `keys`
 * where it is that of a head of 64, are constants where this is inlined. */
TILE_INLINE void rows7_forward(size_t R, size_t keys, window7 *s)
{
    for (size_t t = 0; t < s->T; t++) {
        const float *now = s->states + t * R * keys;
        float *next = s->states + (t + 1) * R * keys;
        const size_t at = t * keys;
        vf removed[ROWS7];
#pragma GCC unroll 4
        for (size_t e = 0; e < R; e++)
            removed[e] = v_set(0.0f);
#pragma GCC unroll 8
        for (size_t j = 0; j < keys; j += VF) {
            const vf kk = v_load(s->in[IN_KK] + at + j);
#pragma GCC unroll 4
            for (size_t e = 0; e < R; e++)
                removed[e] = v_fma(v_load(now + e * keys + j), kk, removed[e]);
        }
#pragma GCC unroll 4
        for (size_t e = 0; e < R; e++) {
            s->sa[t][e] = -v_sum(removed[e]);
            removed[e] = v_set(s->sa[t][e]);
        }
        for (size_t j = 0; j < keys; j += VF) {
            const vf w = v_load(s->in[IN_W] + at + j), k = v_load(s->in[IN_K] + at + j);
            const vf b = v_load(s->in[IN_B] + at + j);
#pragma GCC unroll 4
            for (size_t e = 0; e < R; e++) {
                const vf kept = v_fma(removed[e], b, v_mul(v_load(now + e * keys + j), w));
                v_store(next + e * keys + j, v_fma(v_set(s->v[t][e]), k, kept));
            }
        }
    }
}

/* One token back: D, the gradient of R rows behind it, becomes that before it. */
TILE_INLINE void rows7_token_back(size_t R, size_t keys, window7 *s, size_t t, float *D)
{
    const float *now = s->states + t * R * keys, *after = now + R * keys;
    const size_t at = t * keys;
    vf dy[ROWS7], v[ROWS7], dv[ROWS7], dsa[ROWS7];
#pragma GCC unroll 4
    for (size_t e = 0; e < R; e++) {
        dy[e] = v_set(s->dy[t][e]);
        dv[e] = dsa[e] = v_set(0.0f);
    }
#pragma GCC unroll 8
    for (size_t j = 0; j < keys; j += VF) {
        const vf r = v_load(s->in[IN_R] + at + j), k = v_load(s->in[IN_K] + at + j);
        const vf b = v_load(s->in[IN_B] + at + j);
#pragma GCC unroll 4
        for (size_t e = 0; e < R; e++) {
            const vf E = v_fma(dy[e], r, v_load(D + e * keys + j));
            v_store(D + e * keys + j, E);
            dv[e] = v_fma(E, k, dv[e]);
            dsa[e] = v_fma(E, b, dsa[e]);
        }
    }
#pragma GCC unroll 4
    for (size_t e = 0; e < R; e++) {
        s->dv[t][e] = v_sum(dv[e]);
        dsa[e] = v_set(-v_sum(dsa[e]));
        v[e] = v_set(s->v[t][e]);
    }
    for (size_t j = 0; j < keys; j += VF) {
        const vf w = v_load(s->in[IN_W] + at + j), kk = v_load(s->in[IN_KK] + at + j);
        vf sum[SUMS7];
#pragma GCC unroll 5
        for (size_t a = 0; a < SUMS7; a++)
            sum[a] = v_load(s->sum[a] + at + j);
#pragma GCC unroll 4
        for (size_t e = 0; e < R; e++) {
            const vf E = v_load(D + e * keys + j), S = v_load(now + e * keys + j);
            sum[SUM_R] = v_fma(v_load(after + e * keys + j), dy[e], sum[SUM_R]);
            sum[SUM_W] = v_fma(E, S, sum[SUM_W]);
            sum[SUM_K] = v_fma(E, v[e], sum[SUM_K]);
            sum[SUM_KK] = v_fma(S, dsa[e], sum[SUM_KK]);
            sum[SUM_B] = v_fma(E, v_set(s->sa[t][e]), sum[SUM_B]);
            v_store(D + e * keys + j, v_fma(dsa[e], kk, v_mul(E, w)));
        }
#pragma GCC unroll 5
        for (size_t a = 0; a < SUMS7; a++)
            v_store(s->sum[a] + at + j, sum[a]);
    }
}

/* Values [i, i + R) through the window that begins at token t with the state S. */
TILE_INLINE void rows7(size_t R, size_t keys, const cv_wkv7_back *x, window7 *s, size_t t,
                       const float *S, size_t i)
{
    for (size_t n = 0; n < s->T; n++)
        for (size_t e = 0; e < R; e++) {
            s->v[n][e] = x->v[(t + n) * x->ld + i + e];
            s->dy[n][e] = x->dy[(t + n) * x->ld + i + e];
        }
    for (size_t e = 0; e < R; e++)
        for (size_t j = 0; j < keys; j++)
            s->states[e * keys + j] = j < x->N ? S[j * x->N + i + e] : 0.0f;
    rows7_forward(R, keys, s);
    for (size_t n = s->T; n-- > 0;)
        rows7_token_back(R, keys, s, n, s->D + i * keys);
    for (size_t n = 0; n < s->T; n++)
        for (size_t e = 0; e < R; e++)
            x->dv[(t + n) * x->ld + i + e] += s->dv[n][e];
}

static void rows7_64(const cv_wkv7_back *x, window7 *s, size_t t, const float *S)
{
    for (size_t i = 0; i < 64; i += ROWS7)
        rows7(ROWS7, 64, x, s, t, S, i);
}

static void rows7_any(const cv_wkv7_back *x, window7 *s, size_t t, const float *S)
{
    size_t i = 0;
    for (; i + ROWS7 <= x->N; i += ROWS7)
        rows7(ROWS7, s->keys, x, s, t, S, i);
    for (; i < x->N; i++)
        rows7(1, s->keys, x, s, t, S, i);
}

/* Adds the sums of the window from token t on to the gradients. */
static void scatter7(const cv_wkv7_back *x, size_t t, const window7 *s)
{
    float *to[SUMS7] = { x->dr, x->dw, x->dk, x->dkk, x->db };
    for (size_t a = 0; a < SUMS7; a++)
        for (size_t n = 0; n < s->T; n++) {
            const float *from = s->sum[a] + n * s->keys;
            float *row = to[a] + (t + n) * x->ld;
            size_t j = 0;
            for (; j + VF <= x->N; j += VF)
                v_store(row + j, v_add(v_load(row + j), v_load(from + j)));
            for (; j < x->N; j++)
                row[j] += from[j];
        }
}

static void simd_wkv7_back(const cv_wkv7_back *x)
{
    const size_t N = x->N;
    window7 s = window7_cut(x);
    if (x->T == 0) return;
    borders7(x, &s);
    memset(s.D, 0, N * s.keys * sizeof *s.D);
    turn7(N, x->dS, N, s.D, s.keys);
    for (size_t end = x->T; end > 0;) {
        const size_t t = (end - 1) / WINDOW7 * WINDOW7;
        const float *S = s.border + t / WINDOW7 * N * N;
        gather7(x, t, end - t, &s);
        for (size_t a = 0; a < SUMS7; a++)
            memset(s.sum[a], 0, s.T * s.keys * sizeof *s.sum[a]);
        if (N == 64)
            rows7_64(x, &s, t, S);
        else
            rows7_any(x, &s, t, S);
        scatter7(x, t, &s);
        end = t;
    }
    turn7(N, s.D, s.keys, x->dS, N);
}

#endif
