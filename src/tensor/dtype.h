/* dtype.h - the element types of checkpoints: sizes, names, conversion to and from f32.
 *
 * A type is a block of `block` elements in `block_bytes` bytes; plain types have block 1.  The
 * quantized types are those of ggml (rwkv.cpp files and GGUF), bit for bit.  [quant.*] */
#ifndef CV_DTYPE_H
#define CV_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum cv_dtype {
    CV_F32,
    CV_F16,
    CV_BF16,
    CV_F64,
    CV_I8,
    CV_I16,
    CV_I32,
    CV_I64,
    CV_U8,
    CV_BOOL,
    CV_Q4_0,
    CV_Q4_1,
    CV_Q5_0,
    CV_Q5_1,
    CV_Q8_0,
    CV_Q4_K,
    CV_Q5_K,
    CV_Q6_K,
    CV_DTYPES
} cv_dtype;

typedef struct cv_dtype_info {
    const char *name; /* "f32", "bf16", "q4_0", "q6_k", ... */
    size_t block, block_bytes;
    bool real; /* converts to f32 (f32 f16 bf16 f64 and quantized) */
    bool quantized;
    size_t group; /* quantized: elements that share a scale (16 or 32) */
    bool has_min; /* quantized: value = q * scale + min, not q * scale */
} cv_dtype_info;

const cv_dtype_info *cv_dtype_of(cv_dtype type);
bool cv_dtype_parse(const char *name, cv_dtype *out); /* case-insensitive, by info name */

/* Bytes of n elements; false when n is no multiple of the block or the product overflows. */
bool cv_dtype_bytes(cv_dtype type, size_t n, size_t *bytes);

/* n elements (a multiple of the block) to f32, exactly as ggml dequantizes; real types only. */
void cv_to_f32(cv_dtype type, const void *src, float *dst, size_t n);

/* n f32 to the type: round to nearest even for f16 and bf16; for the quantized types the rules of
 * ggml's reference quantizers (Q4_0 ... Q8_0 byte for byte, [quant.legacy]); for Q4_K, Q5_K, Q6_K a
 * least-squares search of scale and minimum ([quant.k]). */
void cv_from_f32(cv_dtype type, const float *src, void *dst, size_t n);

/* One quantized block as integers and scales: element i is q[i] * scale[i / group] + min[i / group],
 * within one unit in the last place of cv_to_f32.  q: [block], scale and min: [block / group];
 * min is all zero where has_min is false. */
void cv_unpack(cv_dtype type, const void *block, int8_t *q, float *scale, float *min);

static inline float cv_bf16_to_f32(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

float cv_f16_to_f32(uint16_t h);
uint16_t cv_f32_to_f16(float f);  /* nearest even, overflow to infinity, NaN kept */
uint16_t cv_f32_to_bf16(float f); /* nearest even, NaN kept */

#endif
