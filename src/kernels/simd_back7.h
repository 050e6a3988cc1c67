/* simd_back7.h - the recurrence of version 7 walked back, over a vector of VF floats.
 *
 * Part of simd_body.h, from which it has the vectors and the forward walk.  Lanes are keys j, and
 * the state is turned: a value i has a row of it to itself, which no other row ever meets.  So
 * dv and the gradient of what a row removes are sums within the row, everything else is added
 * lane by lane, and a few rows at a time go through a whole window while their states lie in the
 * first cache.  What each token removes is known from the walk forward, to the borders of windows.
 * Rows are padded with zeros to whole vectors; padding gives zeros.  ref.c has the formulas in plain
 * form. */
#ifndef CV_SIMD_BACK7_H
#define CV_SIMD_BACK7_H

/* Rows that go through a window together. */
enum { ROWS7 = 4, WINDOW7 = 8 };

_Static_assert(WINDOW7 == CV_WKV7_WINDOW, "one window");

/* What is kept of each token of a window: what it reads, and the sums of what it gives.  r, w, k, kk,
 * b and their sums are lanes of keys; v, dy, sa and dv have a number for each row. */
enum {
    IN_R,
    IN_W,
    IN_K,
    IN_KK,
    IN_B,
    IN_V,
    IN_DY,
    IN_SA,
    SUM_R,
    SUM_W,
    SUM_K,
    SUM_KK,
    SUM_B,
    SUM_V
};
enum { OF_TOKEN7 = SUM_V + 1, SUMS7 = OF_TOKEN7 - SUM_R };

/* One window: the scratch, cut up.  keys is N in whole vectors. */
typedef struct window7 {
    size_t T, keys;
    float *tokens;  /* [WINDOW7][OF_TOKEN7][keys] */
    float *states;  /* [WINDOW7 + 1][ROWS7][keys] */
    float *D;       /* [N i][keys] gradient of the state */
    float *removed; /* [T][keys] sa = -S kk of each value, of all tokens */
    float *border;  /* [windows + 1][N j][N i] */
} window7;

static window7 window7_cut(const cv_wkv7_back *x)
{
    window7 s = { .keys = (x->N + CV_PANEL - 1) / CV_PANEL * CV_PANEL };
    s.tokens = x->scratch;
    s.states = s.tokens + WINDOW7 * OF_TOKEN7 * s.keys;
    s.D = s.states + (WINDOW7 + 1) * ROWS7 * s.keys;
    s.removed = s.D + x->N * s.keys;
    s.border = s.removed + x->T * s.keys;
    return s;
}

static void turn7(size_t N, const float *from, size_t ld_from, float *to, size_t ld_to)
{
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++)
            to[i * ld_to + j] = from[j * ld_from + i];
}

/* The states before each window, and one behind the last, and what each token removes. */
static void borders7(const cv_wkv7_back *x, window7 *s)
{
    const size_t N = x->N;
    const float *const from[] = { x->w, x->k, x->v, x->kk, x->b };
    float *S = s->border;
    memcpy(S, x->S, N * N * sizeof *S);
    for (size_t t = 0; t < x->T; t += WINDOW7, S += N * N) {
        const size_t at = t * x->ld;
        for (size_t i = t + WINDOW7; i < cv_smaller(t + 2 * WINDOW7, x->T); i++)
            cv_fetch_all(from, sizeof from / sizeof *from, i * x->ld, N);
        memcpy(S + N * N, S, N * N * sizeof *S);
        wkv7_walk(false, cv_smaller(WINDOW7, x->T - t), N, x->ld, x->r + at, x->w + at, x->k + at,
                  x->v + at, x->kk + at, x->b + at, s->removed + t * s->keys, s->keys, S + N * N);
    }
}

TILE_INLINE void copy7(size_t n, const float *from, float *to, size_t keys)
{
    size_t j = 0;
    for (; j + VF <= n; j += VF)
        v_store(to + j, v_load(from + j));
    for (; j < keys; j++)
        to[j] = j < n ? from[j] : 0.0f;
}

/* The inputs of n tokens from t on, side by side, and no sums yet. */
static void gather7(const cv_wkv7_back *x, size_t t, size_t n, window7 *s)
{
    const float *const from[] = { x->r,  x->w,  x->k,  x->kk, x->b,   x->v, x->dy,
                                  x->dr, x->dw, x->dk, x->dv, x->dkk, x->db };
    float *to = s->tokens;
    s->T = n;
    for (size_t i = t; i < t + n; i++, to += OF_TOKEN7 * s->keys) {
        if (t >= WINDOW7)
            cv_fetch_all(from, sizeof from / sizeof *from, (i - WINDOW7) * x->ld, x->N);
        for (size_t a = 0; a < IN_SA; a++)
            copy7(x->N, from[a] + i * x->ld, to + a * s->keys, s->keys);
        copy7(x->N, s->removed + i * s->keys, to + IN_SA * s->keys, s->keys);
        memset(to + SUM_R * s->keys, 0, SUMS7 * s->keys * sizeof *to);
    }
}

/* The sums of R vectors. */
TILE_INLINE void sums7(size_t R, const vf *a, float *to)
{
    if (R == ROWS7)
        v_sums(a, to);
    else
        for (size_t e = 0; e < R; e++)
            to[e] = v_sum(a[e]);
}

/* R rows from i on forward through the window: the states behind each token.  R, and `keys` where it
 * is that of a head of 64, are constants where this is inlined. */
TILE_INLINE void rows7_forward(size_t R, size_t keys, const window7 *s, size_t i)
{
    const float *in = s->tokens;
    float *now = s->states;
    for (size_t t = s->T; t > 0; t--, in += OF_TOKEN7 * keys, now += R * keys) {
        float *next = now + R * keys;
        vf sa[ROWS7], v[ROWS7];
#pragma GCC unroll 4
        for (size_t e = 0; e < R; e++) {
            sa[e] = v_set(in[IN_SA * keys + i + e]);
            v[e] = v_set(in[IN_V * keys + i + e]);
        }
#pragma GCC unroll 16
        for (size_t j = 0; j < keys; j += VF) {
            const vf w = v_load(in + IN_W * keys + j), k = v_load(in + IN_K * keys + j);
            const vf b = v_load(in + IN_B * keys + j);
#pragma GCC unroll 4
            for (size_t e = 0; e < R; e++) {
                const vf kept = v_fma(sa[e], b, v_mul(v_load(now + e * keys + j), w));
                v_store(next + e * keys + j, v_fma(v[e], k, kept));
            }
        }
    }
}

/* One token back: D, the gradient of R rows behind it, becomes that before it.  now: their states
 * before the token, behind which those after it lie. */
TILE_INLINE void rows7_token_back(size_t R, size_t keys, size_t i, float *token, const float *now,
                                  float *D)
{
    const float *after = now + R * keys;
    vf dy[ROWS7], v[ROWS7], sa[ROWS7], dv[ROWS7], dsa[ROWS7];
#pragma GCC unroll 4
    for (size_t e = 0; e < R; e++) {
        dy[e] = v_set(token[IN_DY * keys + i + e]);
        dv[e] = dsa[e] = v_set(0.0f);
    }
#pragma GCC unroll 16
    for (size_t j = 0; j < keys; j += VF) {
        const vf r = v_load(token + IN_R * keys + j), k = v_load(token + IN_K * keys + j);
        const vf b = v_load(token + IN_B * keys + j);
#pragma GCC unroll 4
        for (size_t e = 0; e < R; e++) {
            const vf E = v_fma(dy[e], r, v_load(D + e * keys + j));
            v_store(D + e * keys + j, E);
            dv[e] = v_fma(E, k, dv[e]);
            dsa[e] = v_fma(E, b, dsa[e]);
        }
    }
    float sums[ROWS7];
    sums7(R, dsa, sums);
    sums7(R, dv, token + SUM_V * keys + i);
#pragma GCC unroll 4
    for (size_t e = 0; e < R; e++) {
        v[e] = v_set(token[IN_V * keys + i + e]);
        sa[e] = v_set(token[IN_SA * keys + i + e]);
        dsa[e] = v_set(-sums[e]);
    }
#pragma GCC unroll 16
    for (size_t j = 0; j < keys; j += VF) {
        const vf w = v_load(token + IN_W * keys + j), kk = v_load(token + IN_KK * keys + j);
        vf dr = v_load(token + SUM_R * keys + j), dw = v_load(token + SUM_W * keys + j);
        vf dk = v_load(token + SUM_K * keys + j), dkk = v_load(token + SUM_KK * keys + j);
        vf db = v_load(token + SUM_B * keys + j);
#pragma GCC unroll 4
        for (size_t e = 0; e < R; e++) {
            const vf E = v_load(D + e * keys + j), S = v_load(now + e * keys + j);
            dr = v_fma(v_load(after + e * keys + j), dy[e], dr);
            dw = v_fma(E, S, dw);
            dk = v_fma(E, v[e], dk);
            dkk = v_fma(S, dsa[e], dkk);
            db = v_fma(E, sa[e], db);
            v_store(D + e * keys + j, v_fma(dsa[e], kk, v_mul(E, w)));
        }
        v_store(token + SUM_R * keys + j, dr);
        v_store(token + SUM_W * keys + j, dw);
        v_store(token + SUM_K * keys + j, dk);
        v_store(token + SUM_KK * keys + j, dkk);
        v_store(token + SUM_B * keys + j, db);
    }
}

/* Values [i, i + R) through the window that begins with the state S. */
TILE_INLINE void rows7(size_t R, size_t keys, size_t N, window7 *s, const float *S, size_t i)
{
    size_t j = 0;
    for (; R == ROWS7 && j + VF <= N; j += VF) {
        vf turned[ROWS7];
        v_turn(S + j * N + i, N, turned);
#pragma GCC unroll 4
        for (size_t e = 0; e < R; e++)
            v_store(s->states + e * keys + j, turned[e]);
    }
    for (; j < keys; j++)
        for (size_t e = 0; e < R; e++)
            s->states[e * keys + j] = j < N ? S[j * N + i + e] : 0.0f;
    rows7_forward(R, keys, s, i);
    for (size_t t = s->T; t-- > 0;)
        rows7_token_back(R, keys, i, s->tokens + t * OF_TOKEN7 * keys, s->states + t * R * keys,
                         s->D + i * keys);
}

static void window7_64(window7 *s, const float *S)
{
    for (size_t i = 0; i < 64; i += ROWS7)
        rows7(ROWS7, 64, 64, s, S, i);
}

static void window7_any(size_t N, window7 *s, const float *S)
{
    size_t i = 0;
    for (; i + ROWS7 <= N; i += ROWS7)
        rows7(ROWS7, s->keys, N, s, S, i);
    for (; i < N; i++)
        rows7(1, s->keys, N, s, S, i);
}

/* to += from; or, with `set`, to = from. */
TILE_INLINE void hand_on7(size_t n, bool set, const float *from, float *to)
{
    size_t j = 0;
    for (; j + VF <= n; j += VF)
        v_store(to + j, set ? v_load(from + j) : v_add(v_load(to + j), v_load(from + j)));
    for (; j < n; j++)
        to[j] = set ? from[j] : to[j] + from[j];
}

/* Hands the sums of the window from token t on to the gradients. */
static void scatter7(const cv_wkv7_back *x, size_t t, const window7 *s)
{
    float *const to[SUMS7] = { x->dr, x->dw, x->dk, x->dkk, x->db, x->dv };
    const bool set[SUMS7] = { x->set_r, x->set_w, x->set_k, x->set_kk, x->set_b, x->set_v };
    const float *from = s->tokens + SUM_R * s->keys;
    for (size_t n = 0; n < s->T; n++, from += OF_TOKEN7 * s->keys)
        for (size_t a = 0; a < SUMS7; a++)
            hand_on7(x->N, set[a], from + a * s->keys, to[a] + (t + n) * x->ld);
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
        if (N == 64)
            window7_64(&s, S);
        else
            window7_any(N, &s, S);
        scatter7(x, t, &s);
        end = t;
    }
    turn7(N, s.D, s.keys, x->dS, N);
}

#endif
