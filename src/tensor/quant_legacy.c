/* quant_legacy.c - the block types of 32 elements: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.  [quant.legacy]
 *
 * A block is its scale d (a half), for the _1 types its minimum m (a half), for the five-bit types
 * 32 fifth bits in four bytes (bit j belongs to element j), and then the elements: Q8_0 one signed
 * byte each; the others 16 bytes of which byte j holds element j in its low and element j + 16 in
 * its high half.
 *
 * Packing follows the reference rules to the byte, so files we write equal those the reference
 * writes: levels come from the f32 scale before that is rounded to a half, and are cut off (not
 * rounded) after adding one half. */
#include "tensor/quant.h"

#include <float.h>
#include <math.h>

#define BLOCK 32
#define HALF  (BLOCK / 2)

/* ------------------------------------------------------------------------------------------------
 * Nibbles and fifth bits. */

static void get_nibbles(const uint8_t *restrict bytes, int8_t *restrict q)
{
    for (int j = 0; j < HALF; j++)
        q[j] = (int8_t)(bytes[j] & 15);
    for (int j = 0; j < HALF; j++)
        q[j + HALF] = (int8_t)(bytes[j] >> 4);
}

static void put_nibbles(const uint8_t *level, uint8_t *bytes)
{
    for (int j = 0; j < HALF; j++)
        bytes[j] = (uint8_t)((level[j] & 15) | (level[j + HALF] & 15) << 4);
}

/* Each byte of fifth bits decides about eight elements: copy it to all of them, keep another bit in
 * each. */
static void add_fifth_bits(const uint8_t *restrict bytes, int8_t *restrict q)
{
    static const uint8_t BIT[BLOCK] = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128,
                                        1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    uint8_t copies[BLOCK];
    for (int k = 0; k < BLOCK / 8; k++)
        memset(copies + 8 * k, bytes[k], 8);
    for (int j = 0; j < BLOCK; j++)
        q[j] = (int8_t)(q[j] | ((copies[j] & BIT[j]) == BIT[j]) << 4);
}

static void put_fifth_bits(const uint8_t *level, uint8_t *bytes)
{
    for (int k = 0; k < BLOCK / 8; k++) {
        unsigned b = 0;
        for (int j = 0; j < 8; j++)
            b |= (unsigned)(level[8 * k + j] >> 4 & 1) << j;
        bytes[k] = (uint8_t)b;
    }
}

static void shift_down(int8_t *q, int by)
{
    for (int j = 0; j < BLOCK; j++)
        q[j] = (int8_t)(q[j] - by);
}

/* ------------------------------------------------------------------------------------------------
 * Unpacking. */

static void unpack_q4_0(const uint8_t *block, int8_t *q, float *scale, float *min)
{
    (void)min;
    *scale = cv_half_at(block);
    get_nibbles(block + 2, q);
    shift_down(q, 8);
}

static void unpack_q4_1(const uint8_t *block, int8_t *q, float *scale, float *min)
{
    *scale = cv_half_at(block);
    *min = cv_half_at(block + 2);
    get_nibbles(block + 4, q);
}

static void unpack_q5_0(const uint8_t *block, int8_t *q, float *scale, float *min)
{
    (void)min;
    *scale = cv_half_at(block);
    get_nibbles(block + 6, q);
    add_fifth_bits(block + 2, q);
    shift_down(q, 16);
}

static void unpack_q5_1(const uint8_t *block, int8_t *q, float *scale, float *min)
{
    *scale = cv_half_at(block);
    *min = cv_half_at(block + 2);
    get_nibbles(block + 8, q);
    add_fifth_bits(block + 4, q);
}

static void unpack_q8_0(const uint8_t *block, int8_t *q, float *scale, float *min)
{
    (void)min;
    *scale = cv_half_at(block);
    memcpy(q, block + 2, BLOCK);
}

/* ------------------------------------------------------------------------------------------------
 * Packing. */

static float inverse(float d)
{
    return d != 0.0f ? 1.0f / d : 0.0f;
}

/* v cut off to a whole number in 0..top; NaN (from 0 * infinity, when d is subnormal) gives 0. */
static uint8_t cut(float v, int top)
{
    if (!(v > 0.0f)) return 0;
    return (uint8_t)(v >= (float)top ? top : (int)v);
}

/* Types without a minimum: the entry of largest magnitude gets the lowest level, -centre, and so
 * decides the sign of d.  Returns d. */
static float levels_around_zero(const float *x, int centre, uint8_t *level)
{
    float largest = 0.0f, extreme = 0.0f;
    for (int j = 0; j < BLOCK; j++)
        if (largest < fabsf(x[j])) {
            largest = fabsf(x[j]);
            extreme = x[j];
        }
    const float d = extreme / (float)-centre;
    const float per_d = inverse(d);
    for (int j = 0; j < BLOCK; j++) {
        float steps = x[j] * per_d;
        level[j] = cut(steps + ((float)centre + 0.5f), 2 * centre - 1);
    }
    return d;
}

/* Types with a minimum: levels 0..top span the range of the block.  Returns d. */
static float levels_above_min(const float *x, int top, uint8_t *level, float *minimum)
{
    float lo = FLT_MAX, hi = -FLT_MAX;
    for (int j = 0; j < BLOCK; j++) {
        if (x[j] < lo) lo = x[j];
        if (x[j] > hi) hi = x[j];
    }
    const float d = (hi - lo) / (float)top;
    const float per_d = inverse(d);
    for (int j = 0; j < BLOCK; j++) {
        float steps = (x[j] - lo) * per_d;
        level[j] = cut(steps + 0.5f, top);
    }
    *minimum = lo;
    return d;
}

static void pack_q4_0(const float *x, uint8_t *block)
{
    uint8_t level[BLOCK];
    cv_half_put(block, levels_around_zero(x, 8, level));
    put_nibbles(level, block + 2);
}

static void pack_q4_1(const float *x, uint8_t *block)
{
    uint8_t level[BLOCK];
    float minimum;
    cv_half_put(block, levels_above_min(x, 15, level, &minimum));
    cv_half_put(block + 2, minimum);
    put_nibbles(level, block + 4);
}

static void pack_q5_0(const float *x, uint8_t *block)
{
    uint8_t level[BLOCK];
    cv_half_put(block, levels_around_zero(x, 16, level));
    put_fifth_bits(level, block + 2);
    put_nibbles(level, block + 6);
}

static void pack_q5_1(const float *x, uint8_t *block)
{
    uint8_t level[BLOCK];
    float minimum;
    cv_half_put(block, levels_above_min(x, 31, level, &minimum));
    cv_half_put(block + 2, minimum);
    put_fifth_bits(level, block + 4);
    put_nibbles(level, block + 8);
}

/* Half away from zero, within -127..127; NaN gives 0. */
static int8_t nearest_byte(float v)
{
    if (!(fabsf(v) < 127.0f)) return (int8_t)(v > 0.0f ? 127 : v < 0.0f ? -127 : 0);
    return (int8_t)roundf(v);
}

static void pack_q8_0(const float *x, uint8_t *block)
{
    float largest = 0.0f;
    for (int j = 0; j < BLOCK; j++)
        if (largest < fabsf(x[j])) largest = fabsf(x[j]);
    const float d = largest / 127.0f;
    const float per_d = inverse(d);
    cv_half_put(block, d);
    for (int j = 0; j < BLOCK; j++)
        block[2 + j] = (uint8_t)nearest_byte(x[j] * per_d);
}

const cv_quant cv_quant_q4_0 = { unpack_q4_0, pack_q4_0 };
const cv_quant cv_quant_q4_1 = { unpack_q4_1, pack_q4_1 };
const cv_quant cv_quant_q5_0 = { unpack_q5_0, pack_q5_0 };
const cv_quant cv_quant_q5_1 = { unpack_q5_1, pack_q5_1 };
const cv_quant cv_quant_q8_0 = { unpack_q8_0, pack_q8_0 };
