/* simd_gelu.h - x times the share of a normal distribution below x, and its slope, over a vector of
 * VF floats.  The end of simd_body.h, from which it has the vectors.
 *
 * The tail beyond a = |x| is e^(-a^2 / 2) times a factor that falls slowly, like 1 / a.  That factor
 * times a + 3 is a polynomial of q = (a - 3) / (a + 3), fitted to within 1.1e-9 for a up to 14, where
 * the tail is below the smallest float. */
#ifndef CV_SIMD_GELU_H
#define CV_SIMD_GELU_H

/* What both sides share: e^(-a^2 / 2), with the digits that the rounded square lacks, and the tail. */
typedef struct normal_tail {
    vf a, bell, tail;
} normal_tail;

TILE_INLINE normal_tail v_normal_tail(vf x)
{
    static const float factor[] = { 5.525023582e-05f,  1.326821559e-04f,  -2.449327487e-04f,
                                    -1.033890657e-03f, 1.024525678e-03f,  6.969745949e-03f,
                                    -1.046241687e-02f, -4.726274269e-02f, 2.300176901e-01f,
                                    -5.093319895e-01f, 7.290836905e-01f };
    const vf a = v_min(v_set(14.0f), v_max(v_sub(v_set(0.0f), x), x));
    const vf half = v_mul(a, v_set(-0.5f)), s = v_mul(half, a),
             rest = v_fma(half, a, v_sub(v_set(0.0f), s));
    const vf e = v_exp(s), bell = v_fma(e, rest, e);
    const vf t = v_div(v_set(1.0f), v_add(a, v_set(3.0f)));
    const vf q = v_mul(v_sub(a, v_set(3.0f)), t);
    vf p = v_set(factor[0]);
    for (size_t i = 1; i < sizeof factor / sizeof *factor; i++)
        p = v_fma(p, q, v_set(factor[i]));
    return (normal_tail){ a, bell, v_mul(v_mul(p, t), bell) };
}

/* x - x tail above 0, and x tail below. */
TILE_INLINE vf v_gelu(vf x)
{
    const normal_tail n = v_normal_tail(x);
    return v_fma(v_sub(v_set(0.0f), n.a), n.tail, v_max(v_set(0.0f), x));
}

/* The share below x, and x times the density. */
TILE_INLINE vf v_gelu_slope(vf x)
{
    const normal_tail n = v_normal_tail(x);
    const vf above = v_zero_below(v_set(1.0f), x, 0.0f); /* 1 from 0 on */
    const vf share = v_fma(v_sub(v_set(1.0f), v_add(above, above)), n.tail, above);
    return v_fma(v_mul(n.bell, v_set(0.398942280f)), v_min(v_set(14.0f), v_max(v_set(-14.0f), x)),
                 share);
}

static void simd_gelu(size_t n, const float *x, float *y)
{
    map(v_gelu, n, x, y);
}

static void simd_gelu_back(size_t n, const float *x, float *dy)
{
    size_t c = 0;
    for (; c + VF <= n; c += VF)
        v_store(dy + c, v_mul(v_load(dy + c), v_gelu_slope(v_load(x + c))));
    if (c == n) return;
    float rest[VF] = { 0 };
    memcpy(rest, x + c, (n - c) * sizeof *x);
    v_store(rest, v_gelu_slope(v_load(rest)));
    for (size_t i = 0; c + i < n; i++)
        dy[c + i] *= rest[i];
}

#endif
