/* matrix_state.c - the state of RWKV-5, 6 and 7; see matrix_state.h. */
#include <string.h>

#include "models/matrix_state.h"

size_t cv_matrix_state_size(const cv_sizes *s)
{
    return CV_HEADS * s->C + s->H * s->N * s->N;
}

/* Exchanges the last two axes of [H][N][N]: its own inverse. */
static void transpose_heads(const cv_sizes *s, const float *from, float *to)
{
    const size_t N = s->N;
    for (size_t h = 0; h < s->H; h++, from += N * N, to += N * N)
        for (size_t i = 0; i < N; i++)
            for (size_t j = 0; j < N; j++)
                to[i * N + j] = from[j * N + i];
}

void cv_matrix_state_start(const cv_sizes *s, const float *time_state, float *state)
{
    memset(state, 0, cv_matrix_state_size(s) * sizeof *state);
    if (time_state) transpose_heads(s, time_state, state + CV_HEADS * s->C);
}

void cv_matrix_state_export(const cv_sizes *s, const float *memory, float *out)
{
    transpose_heads(s, memory, out);
}

void cv_matrix_state_import(const cv_sizes *s, const float *in, float *memory)
{
    transpose_heads(s, in, memory);
}
