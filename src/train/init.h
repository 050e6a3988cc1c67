/* init.h - the official initial value of every tensor of every architecture.  [train.init]
 *
 * A tensor's values depend on the seed, its official name and its shape alone, not on the order in
 * which tensors are filled, so members of a team may fill different ones side by side. */
#ifndef CV_INIT_H
#define CV_INIT_H

#include "models/source.h"

typedef enum cv_init_mode {
    CV_INIT_FANCY, /* official: curves over channels and layers */
    CV_INIT_LOCAL, /* vrwkv: decay, bonus and mixes all 1 */
    CV_INIT_GLOBAL /* vrwkv: decay and bonus 0, mixes 0.5 */
} cv_init_mode;

/* A zeroed one holds the official choices. */
typedef struct cv_init_settings {
    double embedding;   /* half the width of the token embedding's distribution; 0: 1e-4.  Version
                           4's trainer takes its first learning rate */
    double layer_scale; /* gamma; 0: official: 1 in VRWKV up to width 384, else 1e-5 */
    cv_init_mode mode;
    bool no_shift; /* RWKV-4, 5 and 7: mixes by which a token sees nothing of the one before it */
} cv_init_settings;

/* Is a field a mix of a token with the one before it, a number for each channel? */
bool cv_init_is_mix(const cv_field *field);

/* Fills the official values of a view, those that stand in a file, before cv_transform_value.
 *   out       [view->rows][view->cols]  low-rank matrices as [out][in], as the model has them
 *   settings  may be NULL: official
 *   mem       for orthogonal matrices: 8 bytes for each number, freed again
 * CORVID_E_ARGUMENT: a mode that the architecture does not have, or no_shift where the mixes depend on
 * the data or there are none.  CORVID_E_MEMORY. */
corvid_status cv_init_fill(const cv_source *source, uint64_t seed, const cv_view *view, float *out,
                           const cv_init_settings *settings, const corvid_allocator *mem,
                           corvid_error *err);

#endif
