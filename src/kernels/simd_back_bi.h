/* simd_back_bi.h - Bi-WKV walked back over a whole picture, lanes are channels.
 *
 * The end of simd_body.h, from which it has the vectors and the sums.  Two walks of the same shape:
 * the first sums keys on both sides of every token, as going forward, and so has the token's
 * denominator; the second sums what the tokens pass on in the same way.  Both begin anew in every
 * block of 32 tokens [bi.blocks].  Other than the forward kernels it takes no part of a picture and
 * has one maximum of all its keys.  ref.c has the formulas in plain form. */
#ifndef CV_SIMD_BACK_BI_H
#define CV_SIMD_BACK_BI_H

/* Pairs that the scratch keeps for each token: (p v, p) of its key; the sums of those before and
 * behind it; (h, h y) where h is the gradient of y over the denominator. */
enum { BI_KEY, BI_PAST, BI_FUTURE, BI_SHARE, BI_KEPT };

TILE_INLINE float *bi_at(float *kept, size_t t, size_t pair)
{
    return kept + (t * BI_KEPT + pair) * 2 * VF;
}

TILE_INLINE bi_sum bi_load(const float *at)
{
    return (bi_sum){ v_load(at), v_load(at + VF) };
}

TILE_INLINE void bi_store(float *at, bi_sum s)
{
    v_store(at, s.N);
    v_store(at + VF, s.D);
}

TILE_INLINE bi_sum bi_fma(bi_sum s, vf factor, bi_sum more)
{
    return (bi_sum){ v_fma(s.N, factor, more.N), v_fma(s.D, factor, more.D) };
}

/* What a pair of sums does to the loss, by that of its gradient. */
TILE_INLINE vf bi_cross(bi_sum gradient, bi_sum s)
{
    return v_sub(v_mul(gradient.N, s.N), v_mul(gradient.D, s.D));
}

/* One vector of channels of a picture. */
typedef struct bi_walk {
    const cv_bi_back *x;
    size_t c;
    float *kept;    /* [T][BI_KEPT] pairs */
    float *borders; /* [blocks] pairs: sum behind each block */
    vf self, dw, du;
} bi_walk;

static void bi_keep_keys(const bi_walk *walk)
{
    const cv_bi_back *x = walk->x;
    const float *k = x->k + walk->c, *v = x->v + walk->c;
    vf top = v_load(k);
    for (size_t t = 1; t < x->T; t++)
        top = v_max(top, v_load(k + t * x->ld));
    for (size_t t = 0; t < x->T; t++) {
        const vf p = v_exp_below(v_sub(v_load(k + t * x->ld), top));
        bi_store(bi_at(walk->kept, t, BI_KEY), (bi_sum){ v_mul(p, v_load(v + t * x->ld)), p });
    }
}

/* For each block the sum of a pair over all tokens behind it, as it weighs on its last one. */
TILE_INLINE void bi_keep_borders(const bi_walk *walk, size_t pair)
{
    const cv_bi_decay *decay = walk->x->decay;
    const size_t c = walk->c, T = walk->x->T;
    bi_sum sum = { v_set(0.0f), v_set(0.0f) };
    for (size_t b = (T + BI - 1) / BI; b-- > 0;) {
        const size_t begin = b * BI, m = cv_smaller(BI, T - begin);
        bi_store(walk->borders + b * 2 * VF, sum);
        if (b == 0) break;
        sum = bi_further(sum, m, decay, c);
        bi_sum local = { v_set(0.0f), v_set(0.0f) };
        for (size_t t = 0; t < m; t++)
            local = bi_fma(bi_load(bi_at(walk->kept, begin + t, pair)), v_load(decay->power[t] + c),
                           local);
        sum = bi_plus(sum, local);
    }
}

/* First walk, one token: keeps both sums, and its share. */
TILE_INLINE void bi_share(bi_walk *walk, size_t t, bi_sum past, bi_sum future)
{
    const bi_sum all =
        bi_fma(bi_load(bi_at(walk->kept, t, BI_KEY)), walk->self, bi_plus(past, future));
    const vf h = v_div(v_load(walk->x->dv + t * walk->x->ld + walk->c), all.D);
    bi_store(bi_at(walk->kept, t, BI_PAST), past);
    bi_store(bi_at(walk->kept, t, BI_FUTURE), future);
    bi_store(bi_at(walk->kept, t, BI_SHARE), (bi_sum){ h, v_div(v_mul(h, all.N), all.D) });
}

/* Second walk, one token: the shares of those before it and behind it are what its key is worth, and
 * meet the keys on the other side of it, which weigh on them through one w more. */
TILE_INLINE void bi_gradient(bi_walk *walk, size_t t, bi_sum past, bi_sum future)
{
    const size_t at = t * walk->x->ld + walk->c;
    const bi_sum key = bi_load(bi_at(walk->kept, t, BI_KEY));
    const bi_sum share = bi_load(bi_at(walk->kept, t, BI_SHARE));
    const bi_sum all = bi_fma(share, walk->self, bi_plus(past, future));
    float *dv = walk->x->dv + at, *dk = walk->x->dk + at;
    v_store(dv, v_mul(key.D, all.N));
    v_store(dk, v_add(v_load(dk), bi_cross(all, key)));
    walk->du = v_add(walk->du, bi_cross(share, key));
    walk->dw = v_add(walk->dw, bi_cross(past, bi_load(bi_at(walk->kept, t, BI_FUTURE))));
    walk->dw = v_add(walk->dw, bi_cross(future, bi_load(bi_at(walk->kept, t, BI_PAST))));
}

/* One block of m tokens; see bi_emit.  Returns the local sum as it weighs behind the block. */
TILE_INLINE bi_sum bi_walk_block(bi_walk *walk, bool second, size_t begin, size_t m, bi_sum past,
                                 bi_sum future)
{
    const float(*power)[16] = walk->x->decay->power;
    const size_t pair = second ? BI_SHARE : BI_KEY;
    const vf lambda = v_load(power[1] + walk->c);
    bi_sum later[BI], local = { v_set(0.0f), v_set(0.0f) };
    for (size_t t = m; t-- > 0;) {
        later[t] = bi_fma(future, v_load(power[m - 1 - t] + walk->c), local);
        local = bi_fma(local, lambda, bi_load(bi_at(walk->kept, begin + t, pair)));
    }
    local = (bi_sum){ v_set(0.0f), v_set(0.0f) };
    for (size_t t = 0; t < m; t++) {
        const bi_sum before = bi_fma(past, v_load(power[t] + walk->c), local);
        local = bi_fma(local, lambda, bi_load(bi_at(walk->kept, begin + t, pair)));
        if (second)
            bi_gradient(walk, begin + t, before, later[t]);
        else
            bi_share(walk, begin + t, before, later[t]);
    }
    return local;
}

TILE_INLINE void bi_walk_blocks(bi_walk *walk, bool second)
{
    const size_t T = walk->x->T;
    bi_sum past = { v_set(0.0f), v_set(0.0f) };
    bi_keep_borders(walk, second ? BI_SHARE : BI_KEY);
    for (size_t t = 0; t < T; t += BI) {
        const size_t m = cv_smaller(BI, T - t);
        const vf dw = walk->dw, du = walk->du;
        walk->dw = walk->du = v_set(0.0f);
        const bi_sum local =
            bi_walk_block(walk, second, t, m, past, bi_load(walk->borders + t / BI * 2 * VF));
        past = bi_plus(local, bi_further(past, m, walk->x->decay, walk->c));
        walk->dw = v_add(walk->dw, dw);
        walk->du = v_add(walk->du, du);
    }
}

static void simd_bi_wkv_back(const cv_bi_back *x)
{
    if (x->n < CV_PANEL) {
        cv_kernels_ref.bi_wkv_back(x);
        return;
    }
    for (size_t c = 0; c < CV_PANEL; c += VF) {
        bi_walk walk = { .x = x, .c = c, .self = v_load(x->self + c), .kept = x->scratch };
        walk.borders = bi_at(walk.kept, x->T, 0);
        walk.dw = walk.du = v_set(0.0f);
        bi_keep_keys(&walk);
        bi_walk_blocks(&walk, false);
        bi_walk_blocks(&walk, true);
        const vf lambda = v_load(x->decay->power[1] + c);
        v_store(x->dw + c, v_sub(v_load(x->dw + c), v_mul(lambda, walk.dw)));
        v_store(x->du + c, v_fma(walk.self, walk.du, v_load(x->du + c)));
    }
}

#endif
