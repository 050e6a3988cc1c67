/* x86_avx2.c - the kernel table over 256-bit vectors (AVX2, FMA, F16C). */
#include <immintrin.h>

#include "kernels/kernels.h"

typedef __m256 vf;
enum { VF = 8, MAX_ROWS = 6 };

/* Panels computed together for R rows: enough chains to hide the latency of the multiply-add, few
 * enough to stay in sixteen registers. */
#define PANELS_FOR(R) ((R) == 1 ? 4 : (R) <= 3 ? 2 : 1)

static inline vf v_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void v_store(float *p, vf a)
{
    _mm256_storeu_ps(p, a);
}
static inline vf v_set(float a)
{
    return _mm256_set1_ps(a);
}
static inline vf v_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
static inline vf v_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
static inline vf v_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
static inline vf v_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
static inline vf v_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf v_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
static inline vf v_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}

static inline vf v_round(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vf v_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline vf v_load_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static inline vf v_load_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

/* 2^n for whole n in [-126, 127]. */
static inline vf v_pow2(vf n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}

/* a where x >= limit, else 0; NaN in x keeps a. */
static inline vf v_zero_below(vf a, vf x, float limit)
{
    return _mm256_and_ps(_mm256_cmp_ps(x, v_set(limit), _CMP_NLT_UQ), a);
}

static inline float v_sum(vf a)
{
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

/* The sums of four vectors. */
static inline void v_sums(const vf a[4], float *to)
{
    const vf q = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(q), _mm256_extractf128_ps(q, 1)));
}

/* Four numbers of each of 8 rows, turned: to[i] has number i of every row. */
static inline void v_turn(const float *from, size_t ld, vf to[4])
{
    vf rows[4]; /* 0 4, 1 5, 2 6, 3 7 */
    for (size_t i = 0; i < 4; i++, from += ld)
        rows[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)),
                                       _mm_loadu_ps(from + 4 * ld), 1);
    const __m256d ab = _mm256_castps_pd(_mm256_unpacklo_ps(rows[0], rows[1]));
    const __m256d cd = _mm256_castps_pd(_mm256_unpacklo_ps(rows[2], rows[3]));
    to[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd));
    to[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd));
    const __m256d ab2 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[0], rows[1]));
    const __m256d cd2 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[2], rows[3]));
    to[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab2, cd2));
    to[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab2, cd2));
}

#include "kernels/simd_body.h"

const cv_kernels cv_kernels_avx2 = SIMD_TABLE(CV_CPU_AVX2);
