/* simd_wkv.h - the recurrences of versions 4 to 7 walked forward, over a vector of VF floats.
 *
 * Part of simd_body.h, from which it has the vectors and the exponential.  ref.c has the formulas in
 * plain form. */
#ifndef CV_SIMD_WKV_H
#define CV_SIMD_WKV_H

/* One vector of channels; see ref_wkv4 for the plain form. */
TILE_INLINE vf wkv4_step(vf w, vf u, vf k, vf v, vf *aa, vf *bb, vf *pp)
{
    vf self = v_add(u, k), q = v_max(*pp, self);
    vf e1 = v_exp(v_sub(*pp, q)), e2 = v_exp(v_sub(self, q));
    vf y = v_div(v_fma(e1, *aa, v_mul(e2, v)), v_fma(e1, *bb, e2));

    vf past = v_add(*pp, w);
    q = v_max(past, k);
    e1 = v_exp(v_sub(past, q));
    e2 = v_exp(v_sub(k, q));
    *aa = v_fma(e1, *aa, v_mul(e2, v));
    *bb = v_fma(e1, *bb, e2);
    *pp = q;
    return y;
}

static void simd_wkv4(size_t T, size_t n, size_t ld, const float *w, const float *u, const float *k,
                      const float *v, float *y, float *aa, float *bb, float *pp)
{
    size_t c = 0;
    for (; c + VF <= n; c += VF) {
        vf a = v_load(aa + c), b = v_load(bb + c), p = v_load(pp + c);
        const vf wc = v_load(w + c), uc = v_load(u + c);
        for (size_t t = 0; t < T; t++) {
            size_t at = t * ld + c;
            v_store(y + at, wkv4_step(wc, uc, v_load(k + at), v_load(v + at), &a, &b, &p));
        }
        v_store(aa + c, a);
        v_store(bb + c, b);
        v_store(pp + c, p);
    }
    if (c < n)
        cv_kernels_ref.wkv4(T, n - c, ld, w + c, u + c, k + c, v + c, y + c, aa + c, bb + c,
                            pp + c);
}

/* Vectors of values (lanes i) that one pass over the keys j takes along. */
enum { WKV_BLOCK = 4 };

/* Values [i, i + B VF) of one head, all tokens.  B is a constant where this is inlined. */
TILE_INLINE void wkv5_block(size_t B, size_t T, size_t N, ptrdiff_t ld, ptrdiff_t ldw,
                            const float *r, const float *w, const float *k, const float *v,
                            const float *u, float *y, float *S)
{
    for (size_t t = 0; t < T; t++, r += ld, w += ldw, k += ld, v += ld, y += ld) {
        vf sum[WKV_BLOCK], value[WKV_BLOCK];
#pragma GCC unroll 4
        for (size_t b = 0; b < B; b++) {
            sum[b] = v_set(0.0f);
            value[b] = v_load(v + b * VF);
        }
        for (size_t j = 0; j < N; j++) {
            const vf rj = v_set(r[j]), wj = v_set(w[j]), kj = v_set(k[j]), uj = v_set(u[j]);
#pragma GCC unroll 4
            for (size_t b = 0; b < B; b++) {
                float *at = S + j * N + b * VF;
                vf s = v_load(at), kv = v_mul(kj, value[b]);
                sum[b] = v_fma(rj, v_fma(uj, kv, s), sum[b]);
                v_store(at, v_fma(wj, s, kv));
            }
        }
#pragma GCC unroll 4
        for (size_t b = 0; b < B; b++)
            v_store(y + b * VF, sum[b]);
    }
}

/* What is left of a head when N is no multiple of the vector: values [i, N), one by one. */
static void wkv5_rest(size_t i0, size_t T, size_t N, ptrdiff_t ld, ptrdiff_t ldw, const float *r,
                      const float *w, const float *k, const float *v, const float *u, float *y,
                      float *S)
{
    for (size_t t = 0; t < T; t++, r += ld, w += ldw, k += ld, v += ld, y += ld)
        for (size_t i = i0; i < N; i++) {
            float sum = 0.0f;
            for (size_t j = 0; j < N; j++) {
                float *s = S + j * N + i, kv = k[j] * v[i];
                sum = fmaf(r[j], fmaf(u[j], kv, *s), sum);
                *s = fmaf(w[j], *s, kv);
            }
            y[i] = sum;
        }
}

static void simd_wkv5(size_t T, size_t N, ptrdiff_t ld, ptrdiff_t ldw, const float *r,
                      const float *w, const float *k, const float *v, const float *u, float *y,
                      float *S)
{
    size_t i = 0;
    for (; i + WKV_BLOCK * VF <= N; i += WKV_BLOCK * VF)
        wkv5_block(WKV_BLOCK, T, N, ld, ldw, r, w, k, v + i, u, y + i, S + i);
    for (; i + VF <= N; i += VF)
        wkv5_block(1, T, N, ld, ldw, r, w, k, v + i, u, y + i, S + i);
    if (i < N) wkv5_rest(i, T, N, ld, ldw, r, w, k, v, u, y, S);
}

/* Values [i, i + B VF) of one head.  One pass over the keys updates the state, sums y, and sums
 * what the next token will remove (its S kk), so that the state is read once per token.  `reads`: to
 * gets y; else what each token removed.  B and reads are constants where this is inlined. */
TILE_INLINE void wkv7_block(size_t B, bool reads, size_t T, size_t N, size_t ld, const float *r,
                            const float *w, const float *k, const float *v, const float *kk,
                            const float *b, float *to, size_t ldto, float *S)
{
    vf removed[WKV_BLOCK];
#pragma GCC unroll 4
    for (size_t e = 0; e < B; e++)
        removed[e] = v_set(0.0f);
    for (size_t j = 0; j < N; j++) {
        const vf kkj = v_set(-kk[j]);
#pragma GCC unroll 4
        for (size_t e = 0; e < B; e++)
            removed[e] = v_fma(v_load(S + j * N + e * VF), kkj, removed[e]);
    }
    for (size_t t = 0; t < T; t++, r += ld, w += ld, k += ld, v += ld, kk += ld, b += ld) {
        const float *next = t + 1 < T ? kk + ld : kk;
        const float *const from[] = { r, w, k, kk, b };
        if (t + CV_ROWS_AHEAD < T) {
            cv_fetch_all(from, sizeof from / sizeof *from, CV_ROWS_AHEAD * ld, N);
            cv_fetch_all(&v, 1, CV_ROWS_AHEAD * ld, B * VF);
        }
        vf sum[WKV_BLOCK], value[WKV_BLOCK], coming[WKV_BLOCK];
#pragma GCC unroll 4
        for (size_t e = 0; e < B; e++) {
            sum[e] = coming[e] = v_set(0.0f);
            value[e] = v_load(v + e * VF);
        }
        for (size_t j = 0; j < N; j++) {
            const vf wj = v_set(w[j]), kj = v_set(k[j]), bj = v_set(b[j]), kkj = v_set(-next[j]);
#pragma GCC unroll 4
            for (size_t e = 0; e < B; e++) {
                float *at = S + j * N + e * VF;
                vf s = v_fma(removed[e], bj, v_mul(v_load(at), wj));
                s = v_fma(value[e], kj, s);
                v_store(at, s);
                if (reads) sum[e] = v_fma(s, v_set(r[j]), sum[e]);
                coming[e] = v_fma(s, kkj, coming[e]);
            }
        }
#pragma GCC unroll 4
        for (size_t e = 0; e < B; e++) {
            v_store(to + t * ldto + e * VF, reads ? sum[e] : removed[e]);
            removed[e] = coming[e];
        }
    }
}

static void wkv7_rest(size_t i0, bool reads, size_t T, size_t N, size_t ld, const float *r,
                      const float *w, const float *k, const float *v, const float *kk,
                      const float *b, float *to, size_t ldto, float *S)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = i0; i < N; i++) {
            float removed = 0.0f, sum = 0.0f;
            for (size_t j = 0; j < N; j++)
                removed = fmaf(S[j * N + i], -kk[t * ld + j], removed);
            for (size_t j = 0; j < N; j++) {
                float *s = S + j * N + i;
                *s = fmaf(removed, b[t * ld + j], *s * w[t * ld + j]);
                *s = fmaf(v[t * ld + i], k[t * ld + j], *s);
                if (reads) sum = fmaf(*s, r[t * ld + j], sum);
            }
            to[t * ldto + i] = reads ? sum : removed;
        }
}

TILE_INLINE void wkv7_walk(bool reads, size_t T, size_t N, size_t ld, const float *r,
                           const float *w, const float *k, const float *v, const float *kk,
                           const float *b, float *to, size_t ldto, float *S)
{
    size_t i = 0;
    for (; i + WKV_BLOCK * VF <= N; i += WKV_BLOCK * VF)
        wkv7_block(WKV_BLOCK, reads, T, N, ld, r, w, k, v + i, kk, b, to + i, ldto, S + i);
    for (; i + VF <= N; i += VF)
        wkv7_block(1, reads, T, N, ld, r, w, k, v + i, kk, b, to + i, ldto, S + i);
    if (i < N) wkv7_rest(i, reads, T, N, ld, r, w, k, v, kk, b, to, ldto, S);
}

static void simd_wkv7(size_t T, size_t N, size_t ld, const float *r, const float *w, const float *k,
                      const float *v, const float *kk, const float *b, float *y, float *S)
{
    wkv7_walk(true, T, N, ld, r, w, k, v, kk, b, y, ld, S);
}

#endif
