/* ancestor_block.h - what the peers and ancestors of RWKV share: the weights around their layers, and
 * the branch behind their mixing.
 *
 *     x = emb[token] + pos[place];   x += mix(LN(x; ln1));   x += W2 gelu(W1 LN(x; ln2))
 *     logits = head LN(x; ln_out)
 *
 * Places are learned, so a sequence is no longer than there are places.  An LSTM has none of this but
 * the embedding and the head. */
#ifndef CV_ANCESTOR_BLOCK_H
#define CV_ANCESTOR_BLOCK_H

#include "models/model.h"

typedef struct cv_mlp {
    cv_norm ln2;       /* [C] */
    cv_matrix in, out; /* [F, C], [C, F] */
} cv_mlp;

typedef struct cv_mlp_buffers {
    float *z; /* [T][C] rowwise */
    float *h; /* [T][F] common */
} cv_mlp_buffers;

void cv_mlp_take(cv_run *run, const cv_sizes *s, cv_mlp_buffers *b);
void cv_mlp_rows(const cv_run *run, const cv_sizes *s, const cv_mlp *p, float *x,
                 const cv_mlp_buffers *b);

/* Its fields in a layer's struct, for the table of an architecture. */
#define CV_MLP_FIELDS(layer, member)                                                               \
    { { "ln2.weight", CV_WHOLE }, CV_NOWHERE, CV_NOWHERE, CV_VECTOR, "C",                          \
      offsetof(layer, member.ln2.w), CV_AS_IS, 0 },                                                \
        { { "ln2.bias", CV_WHOLE }, CV_NOWHERE, CV_NOWHERE, CV_VECTOR, "C",                        \
          offsetof(layer, member.ln2.b), CV_AS_IS, 0 },                                            \
        { { "ffn.key.weight", CV_WHOLE }, CV_NOWHERE, CV_NOWHERE, CV_MATRIX, "FC",                 \
          offsetof(layer, member.in), CV_AS_IS, 0 },                                               \
    {                                                                                              \
        { "ffn.value.weight", CV_WHOLE }, CV_NOWHERE, CV_NOWHERE, CV_MATRIX, "CF",                 \
            offsetof(layer, member.out), CV_AS_IS, 0                                               \
    }

extern const cv_stack cv_placed_stack, cv_bare_stack; /* with places and a last norm, and without */

/* One place for each token. */
size_t cv_places(const cv_sizes *s);

#endif
