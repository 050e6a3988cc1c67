/* rng.c - xoshiro256** (Blackman and Vigna), its state filled by splitmix64 from one seed.
 *
 * For sampling and tests, not for secrets. */
#include "base/rng.h"

#include <math.h>

static uint64_t rotate_left(uint64_t x, unsigned k)
{
    return (x << k) | (x >> (64 - k));
}

/* One step of splitmix64: spreads even small seeds over all bits, and never gives four zeros. */
static uint64_t split_mix(uint64_t *x)
{
    uint64_t z = *x += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

void cv_rng_seed(cv_rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        rng->s[i] = split_mix(&seed);
}

uint64_t cv_rng_next(cv_rng *rng)
{
    uint64_t *s = rng->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

double cv_rng_uniform(cv_rng *rng)
{
    return (double)(cv_rng_next(rng) >> 11) * 0x1p-53;
}

/* Box and Muller; the second number of the pair is dropped so that the state is only s. */
float cv_rng_normal(cv_rng *rng)
{
    const double two_pi = 6.283185307179586476925286766559;
    double u = 1.0 - cv_rng_uniform(rng); /* (0, 1]: the logarithm stays finite */
    double angle = two_pi * cv_rng_uniform(rng);
    return (float)(sqrt(-2.0 * log(u)) * cos(angle));
}
