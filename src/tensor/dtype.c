/* dtype.c - the table of element types, and conversion of plain types to and from f32.
 *
 * Half precision is done in integers and one exact float operation, without branches, so that the
 * compiler turns the loops into vector code on any machine: loading a model runs them over
 * hundreds of megabytes.  Blocks of the quantized types come from quant_legacy.c and quant_k.c. */
#include "tensor/dtype.h"

#include <math.h>

#include "base/checked.h"
#include "tensor/quant.h"

#define CHUNK      32 /* a constant trip count, which even -O2 vectorizes */
#define MAX_BLOCK  256
#define MAX_GROUPS 16 /* in a block */

/* clang-format off */
static const cv_dtype_info TYPES[CV_DTYPES] = {
    /*             name     block bytes  real   quant. group  min */
    [CV_F32]  = { "f32",      1,   4,    true,  false,   0, false },
    [CV_F16]  = { "f16",      1,   2,    true,  false,   0, false },
    [CV_BF16] = { "bf16",     1,   2,    true,  false,   0, false },
    [CV_F64]  = { "f64",      1,   8,    true,  false,   0, false },
    [CV_I8]   = { "i8",       1,   1,    false, false,   0, false },
    [CV_I16]  = { "i16",      1,   2,    false, false,   0, false },
    [CV_I32]  = { "i32",      1,   4,    false, false,   0, false },
    [CV_I64]  = { "i64",      1,   8,    false, false,   0, false },
    [CV_U8]   = { "u8",       1,   1,    false, false,   0, false },
    [CV_BOOL] = { "bool",     1,   1,    false, false,   0, false },
    [CV_Q4_0] = { "q4_0",    32,  18,    true,  true,   32, false },
    [CV_Q4_1] = { "q4_1",    32,  20,    true,  true,   32, true  },
    [CV_Q5_0] = { "q5_0",    32,  22,    true,  true,   32, false },
    [CV_Q5_1] = { "q5_1",    32,  24,    true,  true,   32, true  },
    [CV_Q8_0] = { "q8_0",    32,  34,    true,  true,   32, false },
    [CV_Q4_K] = { "q4_k",   256, 144,    true,  true,   32, true  },
    [CV_Q5_K] = { "q5_k",   256, 176,    true,  true,   32, true  },
    [CV_Q6_K] = { "q6_k",   256, 210,    true,  true,   16, false },
};
/* clang-format on */

static const cv_quant *const CODECS[CV_DTYPES] = {
    [CV_Q4_0] = &cv_quant_q4_0, [CV_Q4_1] = &cv_quant_q4_1, [CV_Q5_0] = &cv_quant_q5_0,
    [CV_Q5_1] = &cv_quant_q5_1, [CV_Q8_0] = &cv_quant_q8_0, [CV_Q4_K] = &cv_quant_q4_k,
    [CV_Q5_K] = &cv_quant_q5_k, [CV_Q6_K] = &cv_quant_q6_k,
};

/* ------------------------------------------------------------------------------------------------
 * The table. */

const cv_dtype_info *cv_dtype_of(cv_dtype type)
{
    return (unsigned)type < CV_DTYPES ? &TYPES[type] : NULL;
}

/* ASCII only: names must not depend on the locale. */
static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        int ca = *a >= 'A' && *a <= 'Z' ? *a + ('a' - 'A') : *a;
        if (ca != *b) return false;
    }
    return *a == *b;
}

bool cv_dtype_parse(const char *name, cv_dtype *out)
{
    if (!name) return false;
    for (int type = 0; type < CV_DTYPES; type++)
        if (same_name(name, TYPES[type].name)) {
            *out = (cv_dtype)type;
            return true;
        }
    return false;
}

bool cv_dtype_bytes(cv_dtype type, size_t n, size_t *bytes)
{
    const cv_dtype_info *info = cv_dtype_of(type);
    if (!info || n % info->block) return false;
    return cv_mul_size(n / info->block, info->block_bytes, bytes);
}

/* ------------------------------------------------------------------------------------------------
 * Half precision. */

/* a if which, else b, by masks: a conditional expression would tempt the compiler to branch around
 * the float operations, and a loop with branches is not vectorized. */
static inline uint32_t either(bool which, uint32_t a, uint32_t b)
{
    uint32_t mask = 0u - (uint32_t)which;
    return (a & mask) | (b & ~mask);
}

/* Is a > b, for numbers below 2^31?  Baseline x86 compares vectors of signed integers only. */
static inline bool above(uint32_t a, uint32_t b)
{
    return (int32_t)a > (int32_t)b;
}

/* Three cases by magnitude, all computed, then selected.  A NaN becomes quiet and keeps its
 * payload, as the conversion instructions of processors do it. */
static inline float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t magnitude = (uint32_t)(h & 0x7fffu) << 13; /* fields where f32 has them */
    uint32_t normal = magnitude + (112u << 23);         /* exponent bias 15 to 127 */
    uint32_t special = magnitude + (224u << 23);        /* exponent 31 to 255 */
    uint32_t quiet = either(above(magnitude, 0x0f800000u), 0x00400000u, 0u);
    /* Below 2^-14 the value is fraction * 2^-24: put the fraction under a leading one, subtract
     * that one; exact, and no subnormal f32 appears on the way. */
    uint32_t tiny = cv_bits_of(cv_float_of(magnitude + (113u << 23)) - 0x1p-14f);
    uint32_t finite = either(above(0x00800000u, magnitude), tiny, normal);
    return cv_float_of(sign | either(above(0x0f800000u, magnitude), finite, special | quiet));
}

static inline uint16_t float_to_half(float f)
{
    uint32_t bits = cv_bits_of(f);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t odd = magnitude >> 13 & 1u;
    uint32_t normal = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
    /* Between 1/2 and 1 a step of f32 is 2^-24, the step of subnormal halves: the addition rounds. */
    uint32_t tiny = cv_bits_of(cv_float_of(magnitude) + 0.5f) - cv_bits_of(0.5f);
    uint32_t finite = either(above(0x38800000u, magnitude), tiny, normal); /* 2^-14 */
    uint32_t nan = 0x7e00u | (magnitude >> 13 & 0x3ffu);
    uint32_t special = either(above(magnitude, 0x7f800000u), nan, 0x7c00u);
    return (uint16_t)(sign | either(above(0x477ff000u, magnitude), finite, special)); /* 65520 */
}

static inline uint16_t float_to_bfloat(float f)
{
    uint32_t bits = cv_bits_of(f);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    uint32_t quiet = bits >> 16 | 0x40u;
    return (uint16_t)either(above(bits & 0x7fffffffu, 0x7f800000u), quiet, rounded);
}

float cv_f16_to_f32(uint16_t h)
{
    return half_to_float(h);
}

uint16_t cv_f32_to_f16(float f)
{
    return float_to_half(f);
}

uint16_t cv_f32_to_bf16(float f)
{
    return float_to_bfloat(f);
}

/* ------------------------------------------------------------------------------------------------
 * Rows of plain types.  Raw data has no alignment; memcpy of one element becomes a plain load. */

static inline uint16_t load16(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

static inline void store16(uint8_t *p, uint16_t h)
{
    memcpy(p, &h, sizeof h);
}

static void f16_row_to_f32(const uint8_t *restrict src, float *restrict dst, size_t n)
{
    size_t i = 0;
    for (; n - i >= CHUNK; i += CHUNK)
        for (size_t j = 0; j < CHUNK; j++)
            dst[i + j] = half_to_float(load16(src + 2 * (i + j)));
    for (; i < n; i++)
        dst[i] = half_to_float(load16(src + 2 * i));
}

static void bf16_row_to_f32(const uint8_t *restrict src, float *restrict dst, size_t n)
{
    size_t i = 0;
    for (; n - i >= CHUNK; i += CHUNK)
        for (size_t j = 0; j < CHUNK; j++)
            dst[i + j] = cv_bf16_to_f32(load16(src + 2 * (i + j)));
    for (; i < n; i++)
        dst[i] = cv_bf16_to_f32(load16(src + 2 * i));
}

static void f32_row_to_f16(const float *restrict src, uint8_t *restrict dst, size_t n)
{
    size_t i = 0;
    for (; n - i >= CHUNK; i += CHUNK)
        for (size_t j = 0; j < CHUNK; j++)
            store16(dst + 2 * (i + j), float_to_half(src[i + j]));
    for (; i < n; i++)
        store16(dst + 2 * i, float_to_half(src[i]));
}

static void f32_row_to_bf16(const float *restrict src, uint8_t *restrict dst, size_t n)
{
    size_t i = 0;
    for (; n - i >= CHUNK; i += CHUNK)
        for (size_t j = 0; j < CHUNK; j++)
            store16(dst + 2 * (i + j), float_to_bfloat(src[i + j]));
    for (; i < n; i++)
        store16(dst + 2 * i, float_to_bfloat(src[i]));
}

static void f64_row_to_f32(const uint8_t *restrict src, float *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double value;
        memcpy(&value, src + 8 * i, sizeof value);
        dst[i] = (float)value;
    }
}

static void f32_row_to_f64(const float *restrict src, uint8_t *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double value = (double)src[i];
        memcpy(dst + 8 * i, &value, sizeof value);
    }
}

/* ------------------------------------------------------------------------------------------------
 * Integers by value.  No weight is stored so (info->real is false); masks and index tables are. */

static float int_to_f32(cv_dtype type, const uint8_t *p)
{
    int16_t i16;
    int32_t i32;
    int64_t i64;
    switch (type) {
    case CV_I8: return (float)(int8_t)*p;
    case CV_I16: memcpy(&i16, p, sizeof i16); return (float)i16;
    case CV_I32: memcpy(&i32, p, sizeof i32); return (float)i32;
    case CV_I64: memcpy(&i64, p, sizeof i64); return (float)i64;
    case CV_BOOL: return *p ? 1.0f : 0.0f;
    default: return (float)*p;
    }
}

/* Nearest even, saturated at the ends of [lo, hi]; NaN gives 0. */
static int64_t saturate(float f, int64_t lo, int64_t hi)
{
    double value = rint((double)f);
    if (isnan(value)) return 0;
    if (value <= (double)lo) return lo;
    if (value >= (double)hi) return hi;
    return (int64_t)value;
}

static void f32_to_int(cv_dtype type, float f, uint8_t *p)
{
    int16_t i16;
    int32_t i32;
    int64_t i64;
    switch (type) {
    case CV_I8: *p = (uint8_t)saturate(f, INT8_MIN, INT8_MAX); break;
    case CV_I16:
        i16 = (int16_t)saturate(f, INT16_MIN, INT16_MAX);
        memcpy(p, &i16, sizeof i16);
        break;
    case CV_I32:
        i32 = (int32_t)saturate(f, INT32_MIN, INT32_MAX);
        memcpy(p, &i32, sizeof i32);
        break;
    case CV_I64:
        i64 = saturate(f, INT64_MIN, INT64_MAX);
        memcpy(p, &i64, sizeof i64);
        break;
    case CV_BOOL: *p = f != 0.0f; break;
    default: *p = (uint8_t)saturate(f, 0, UINT8_MAX); break;
    }
}

/* ------------------------------------------------------------------------------------------------
 * Blocks of the quantized types. */

/* Product and sum are two statements on purpose: fused, the last bit would differ from ggml's. */
static void expand(const cv_dtype_info *info, const int8_t *restrict q, const float *restrict scale,
                   const float *restrict min, float *restrict dst)
{
    for (size_t i = 0; i < info->block; i += 16) { /* groups are 16 or 32 wide */
        const float s = scale[i / info->group], m = min[i / info->group];
        float product[16];
        for (size_t j = 0; j < 16; j++)
            product[j] = (float)q[i + j] * s;
        if (info->has_min)
            for (size_t j = 0; j < 16; j++)
                product[j] += m;
        memcpy(dst + i, product, sizeof product);
    }
}

static void blocks_to_f32(cv_dtype type, const uint8_t *src, float *dst, size_t n)
{
    const cv_dtype_info *info = &TYPES[type];
    const cv_quant *codec = CODECS[type];
    int8_t q[MAX_BLOCK];
    float scale[MAX_GROUPS], min[MAX_GROUPS] = { 0.0f };
    for (; n >= info->block; n -= info->block) {
        codec->unpack(src, q, scale, min);
        expand(info, q, scale, min, dst);
        src += info->block_bytes;
        dst += info->block;
    }
}

static void f32_to_blocks(cv_dtype type, const float *src, uint8_t *dst, size_t n)
{
    const cv_dtype_info *info = &TYPES[type];
    for (; n >= info->block; n -= info->block) {
        CODECS[type]->pack(src, dst);
        src += info->block;
        dst += info->block_bytes;
    }
}

void cv_unpack(cv_dtype type, const void *block, int8_t *q, float *scale, float *min)
{
    const cv_dtype_info *info = cv_dtype_of(type);
    if (!info || !info->quantized) return;
    for (size_t i = 0; i < info->block / info->group; i++)
        min[i] = 0.0f;
    CODECS[type]->unpack(block, q, scale, min);
}

/* ------------------------------------------------------------------------------------------------
 * Dispatch. */

void cv_to_f32(cv_dtype type, const void *src, float *dst, size_t n)
{
    const cv_dtype_info *info = cv_dtype_of(type);
    if (!info || n == 0) return;
    switch (type) {
    case CV_F32: memcpy(dst, src, n * sizeof *dst); return;
    case CV_F16: f16_row_to_f32(src, dst, n); return;
    case CV_BF16: bf16_row_to_f32(src, dst, n); return;
    case CV_F64: f64_row_to_f32(src, dst, n); return;
    default: break;
    }
    if (info->quantized)
        blocks_to_f32(type, src, dst, n);
    else
        for (size_t i = 0; i < n; i++)
            dst[i] = int_to_f32(type, (const uint8_t *)src + i * info->block_bytes);
}

void cv_from_f32(cv_dtype type, const float *src, void *dst, size_t n)
{
    const cv_dtype_info *info = cv_dtype_of(type);
    if (!info || n == 0) return;
    switch (type) {
    case CV_F32: memcpy(dst, src, n * sizeof *src); return;
    case CV_F16: f32_row_to_f16(src, dst, n); return;
    case CV_BF16: f32_row_to_bf16(src, dst, n); return;
    case CV_F64: f32_row_to_f64(src, dst, n); return;
    default: break;
    }
    if (info->quantized)
        f32_to_blocks(type, src, dst, n);
    else
        for (size_t i = 0; i < n; i++)
            f32_to_int(type, src[i], (uint8_t *)dst + i * info->block_bytes);
}
