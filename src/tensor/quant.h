/* quant.h - one codec per quantized type: a block to integers and scales, f32 to a block.
 *
 * Internal to tensor/; everyone else goes through dtype.h.  Both functions handle exactly one
 * block.  Packing never fails: values that are not finite give a valid block whose content for
 * their group means nothing, so callers that care look for them before. */
#ifndef CV_QUANT_H
#define CV_QUANT_H

#include "tensor/dtype.h"

typedef struct cv_quant {
    /* As cv_unpack; min is left alone by types without a minimum. */
    void (*unpack)(const uint8_t *block, int8_t *q, float *scale, float *min);
    void (*pack)(const float *x, uint8_t *block);
} cv_quant;

extern const cv_quant cv_quant_q4_0, cv_quant_q4_1, cv_quant_q5_0, cv_quant_q5_1, cv_quant_q8_0;
extern const cv_quant cv_quant_q4_k, cv_quant_q5_k, cv_quant_q6_k;

static inline float cv_float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t cv_bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Scales are little-endian halves at any address. */
static inline float cv_half_at(const uint8_t *p)
{
    return cv_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static inline void cv_half_put(uint8_t *p, float f)
{
    uint16_t h = cv_f32_to_f16(f);
    p[0] = (uint8_t)(h & 0xff);
    p[1] = (uint8_t)(h >> 8);
}

#endif
