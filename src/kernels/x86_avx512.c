/* x86_avx512.c - the kernel table over 512-bit vectors (AVX-512 F, BW, DQ, VL), and those of
 * AMX and of AVX-512 BF16, which are the same but for two entries. */
#include <immintrin.h>

#include "kernels/kernels.h"
#include "kernels/x86_amx.h"
#include "kernels/x86_bf16.h"

typedef __m512 vf;
enum { VF = 16, MAX_ROWS = 12 };

/* Panels computed together for R rows: enough chains to hide the latency of the multiply-add. */
#define PANELS_FOR(R) ((R) == 1 ? 8 : (R) <= 6 ? 4 : 2)

static inline vf v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void v_store(float *p, vf a)
{
    _mm512_storeu_ps(p, a);
}
static inline vf v_set(float a)
{
    return _mm512_set1_ps(a);
}
static inline vf v_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf v_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf v_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf v_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
static inline vf v_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf v_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vf v_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
static inline vf v_round(vf a)
{
    return _mm512_roundscale_ps(a, 0);
}

static inline vf v_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

static inline vf v_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline vf v_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

/* 2^n for whole n in [-126, 127]. */
static inline vf v_pow2(vf n)
{
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}

/* a where x >= limit, else 0; NaN in x keeps a. */
static inline vf v_zero_below(vf a, vf x, float limit)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, v_set(limit), _CMP_NLT_UQ), a);
}

static inline float v_sum(vf a)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

/* The sums of four vectors. */
static inline void v_sums(const vf a[4], float *to)
{
    /* Within each quarter, then across them. */
    const vf ab = _mm512_add_ps(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1]));
    const vf cd = _mm512_add_ps(_mm512_unpacklo_ps(a[2], a[3]), _mm512_unpackhi_ps(a[2], a[3]));
    const __m512d low = _mm512_castps_pd(ab), high = _mm512_castps_pd(cd);
    const vf q = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                               _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(q), _mm512_extractf32x8_ps(q, 1));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
}

/* Four numbers of each of 16 rows, turned: to[i] has number i of every row. */
static inline void v_turn(const float *from, size_t ld, vf to[4])
{
    vf rows[4]; /* 0 4 8 12, 1 5 9 13, ... */
    for (size_t i = 0; i < 4; i++, from += ld) {
        rows[i] = _mm512_castps128_ps512(_mm_loadu_ps(from));
        rows[i] = _mm512_insertf32x4(rows[i], _mm_loadu_ps(from + 4 * ld), 1);
        rows[i] = _mm512_insertf32x4(rows[i], _mm_loadu_ps(from + 8 * ld), 2);
        rows[i] = _mm512_insertf32x4(rows[i], _mm_loadu_ps(from + 12 * ld), 3);
    }
    const __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(rows[0], rows[1]));
    const __m512d cd = _mm512_castps_pd(_mm512_unpacklo_ps(rows[2], rows[3]));
    to[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
    to[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
    const __m512d ab2 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[0], rows[1]));
    const __m512d cd2 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[2], rows[3]));
    to[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab2, cd2));
    to[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab2, cd2));
}

#include "kernels/simd_body.h"

const cv_kernels cv_kernels_avx512 = SIMD_TABLE(CV_CPU_AVX512);

/* Only what may be rounded is another product. */
static void matmul_or_bf16(const cv_matrix *W, size_t lo, size_t hi, size_t T, const float *x,
                           size_t ldx, float *y, size_t ldy, bool add, float *scratch)
{
    if (W->rounded)
        cv_bf16_matmul(W, lo, hi, T, x, ldx, y, ldy, add, scratch);
    else
        simd_matmul(W, lo, hi, T, x, ldx, y, ldy, add, scratch);
}

static void outer_or_bf16(size_t T, size_t n, size_t m, const float *a, size_t lda, const float *b,
                          size_t ldb, float *W, size_t ldw, bool rounded, float *scratch)
{
    if (rounded)
        cv_bf16_outer(T, n, m, a, lda, b, ldb, W, ldw, scratch);
    else
        simd_outer(T, n, m, a, lda, b, ldb, W, ldw, false, scratch);
}

/* The text of SIMD_TABLE with other entries in the places of two. */
#define simd_matmul matmul_or_bf16
#define simd_outer  outer_or_bf16
const cv_kernels cv_kernels_bf16 = SIMD_TABLE(CV_CPU_BF16);
#undef simd_matmul
#undef simd_outer
#define simd_matmul cv_amx_matmul
#define simd_outer  cv_amx_outer
const cv_kernels cv_kernels_amx = SIMD_TABLE(CV_CPU_AMX);
