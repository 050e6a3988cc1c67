/* rng.h - a seeded random number generator (xoshiro256**), passed in wherever chance is used. */
#ifndef CV_RNG_H
#define CV_RNG_H

#include <stdint.h>

typedef struct cv_rng {
    uint64_t s[4];
} cv_rng;

void cv_rng_seed(cv_rng *rng, uint64_t seed);
uint64_t cv_rng_next(cv_rng *rng);
double cv_rng_uniform(cv_rng *rng); /* [0, 1) with 53 bits */
float cv_rng_normal(cv_rng *rng);   /* mean 0, variance 1 */

#endif
