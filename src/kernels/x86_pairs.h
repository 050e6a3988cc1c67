/* x86_pairs.h - what products over bf16 share, by tiles (x86_amx.c) and by vectors (x86_bf16.c): numbers
 * in pairs, rows that end before their vector does. */
#ifndef CV_X86_PAIRS_H
#define CV_X86_PAIRS_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "base/smaller.h"

#define INLINE static inline __attribute__((always_inline))

/* a and b rounded to bf16, one behind the other. */
INLINE __m512i rounded(__m512 a, __m512 b)
{
    return (__m512i)_mm512_cvtne2ps_pbh(b, a);
}

/* From 16 numbers and 16 more to pairs of one of each, as a tile of weights wants two inputs. */
INLINE __m512i paired(__m512i halves)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, halves);
}

/* All of 16 lanes, or the first n of them. */
INLINE __mmask16 lanes(size_t n)
{
    return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
}

#endif
