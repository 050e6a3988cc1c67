/* matrix_state.h - the state of RWKV-5, 6 and 7: shift vectors, and a matrix S per head.
 *
 * In memory S is [H][j key][i value], so that a vector of values is contiguous; files and the
 * reference hold [H][i value][j key].  [state.order] */
#ifndef CV_MATRIX_STATE_H
#define CV_MATRIX_STATE_H

#include "models/model.h"

/* Parts of a layer's state, in units of C: shift vectors, then the matrices. */
enum { CV_SHIFT_ATT = 0, CV_SHIFT_FFN = 1, CV_HEADS = 2 };

size_t cv_matrix_state_size(const cv_sizes *s);

/* Zero, or the layer's own initial S [H][i][j] (time_state of a state-tuned checkpoint). */
void cv_matrix_state_start(const cv_sizes *s, const float *time_state, float *state);

void cv_matrix_state_export(const cv_sizes *s, const float *memory, float *out);
void cv_matrix_state_import(const cv_sizes *s, const float *in, float *memory);

#endif
