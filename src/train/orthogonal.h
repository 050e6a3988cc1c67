/* orthogonal.h - matrices whose rows or columns are orthonormal: what an official initialisation
 * puts where a signal shall neither grow nor fade. */
#ifndef CV_ORTHOGONAL_H
#define CV_ORTHOGONAL_H

#include "base/memory.h"
#include "base/rng.h"

/* A matrix with orthonormal columns (or rows, where it has fewer of them), uniformly distributed
 * among all such, times gain.  Takes 8 bytes for each number while it works; single-threaded, and
 * safe to call for other matrices meanwhile.
 *   out  [rows][cols] */
corvid_status cv_orthogonal(const corvid_allocator *mem, cv_rng *rng, size_t rows, size_t cols,
                            double gain, float *out, corvid_error *err);

/* Rows are padded to a multiple of this many numbers, with zeros. */
#define CV_ORTHOGONAL_PAD ((size_t)8)

/* Turns the rows of V into orthonormal ones that span the same: Q of the QR decomposition of its
 * transpose, with a positive diagonal of R.  The rows must not be dependent.
 *   V     [n, made even by a row of zeros][ld]  64-byte aligned, ld a multiple of the pad, n <= ld
 *   dots  [32][n] scratch, 64-byte aligned */
void cv_orthonormalise(size_t n, size_t ld, double *V, double *dots);

#define CV_ORTHOGONAL_PANEL ((size_t)32)

#endif
