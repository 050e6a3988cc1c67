/* lstm_pass.h - the recurrence of an LSTM over its sequences, and back.
 *
 *     i, f, o = sigma(z),  g = tanh(z)      z = W x_t + b + U h_(t-1), in the order i f g o
 *     c_t = f c_(t-1) + i g                 h_t = o tanh(c_t)
 *
 * The products with W are those of all tokens at once (linear.h); what is left runs token by token.
 * Each member takes whole sequences, several of them in step, so that U is read once for all. */
#ifndef CV_LSTM_PASS_H
#define CV_LSTM_PASS_H

#include "ops/linear.h"

typedef struct cv_lstm_pass {
    size_t C;
    const cv_matrix *U;  /* [4 C][C] */
    float *gates;        /* [T][4 C] complete; in: W x + b; out: i f g o */
    float *c, *h;        /* [T][C] common, complete after the next cv_meet */
    size_t state_offset; /* h then c, [C] each */
    float *scratch;      /* without a tape: cv_lstm_scratch floats of this member */
} cv_lstm_pass;

/* With a tape it wants T * C floats of memory behind h, and cv_lstm_own_scratch. */
void cv_lstm_sequences(const cv_run *run, const cv_lstm_pass *lstm);

size_t cv_lstm_scratch(size_t C);
size_t cv_lstm_own_scratch(size_t C);

/* y = x for all rows, shared out; what y held is forgotten, and so is its gradient. */
void cv_move_rows(const cv_run *run, size_t C, const float *x, float *y);

#endif
