/* arm_neon.c - the kernel table over the 128-bit vectors of every arm64 processor. */
#include <arm_neon.h>

#include "kernels/kernels.h"

typedef float32x4_t vf;
enum { VF = 4, MAX_ROWS = 6 };

/* Panels computed together for R rows: at most 24 of the 32 registers hold sums. */
#define PANELS_FOR(R) ((R) == 1 ? 4 : (R) <= 3 ? 2 : 1)

static inline vf v_load(const float *p)
{
    return vld1q_f32(p);
}
static inline void v_store(float *p, vf a)
{
    vst1q_f32(p, a);
}
static inline vf v_set(float a)
{
    return vdupq_n_f32(a);
}
static inline vf v_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}
static inline vf v_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}
static inline vf v_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}
static inline vf v_div(vf a, vf b)
{
    return vdivq_f32(a, b);
}
static inline vf v_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}
static inline vf v_max(vf a, vf b)
{
    return vmaxq_f32(a, b);
}
static inline vf v_min(vf a, vf b)
{
    return vminq_f32(a, b);
}
static inline vf v_round(vf a)
{
    return vrndnq_f32(a);
}

static inline vf v_load_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static inline vf v_load_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

static inline vf v_load_i8(const int8_t *p)
{
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

/* 2^n for whole n in [-126, 127]. */
static inline vf v_pow2(vf n)
{
    int32x4_t e = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(e, 23));
}

/* a where x >= limit, else 0; NaN in x keeps a. */
static inline vf v_zero_below(vf a, vf x, float limit)
{
    uint32x4_t below = vcltq_f32(x, vdupq_n_f32(limit));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), below));
}

static inline float v_sum(vf a)
{
    float32x2_t h = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(vpadd_f32(h, h), 0);
}

/* The sums of four vectors. */
static inline void v_sums(const vf a[4], float *to)
{
    vst1q_f32(to, vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3])));
}

/* Four numbers of each of 4 rows, turned: to[i] has number i of every row. */
static inline void v_turn(const float *from, size_t ld, vf to[4])
{
    const float32x4x2_t ab = vtrnq_f32(vld1q_f32(from), vld1q_f32(from + ld));
    const float32x4x2_t cd = vtrnq_f32(vld1q_f32(from + 2 * ld), vld1q_f32(from + 3 * ld));
    to[0] = vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0]));
    to[1] = vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1]));
    to[2] = vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0]));
    to[3] = vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1]));
}

#include "kernels/simd_body.h"

const cv_kernels cv_kernels_neon = SIMD_TABLE(CV_CPU_NEON);
