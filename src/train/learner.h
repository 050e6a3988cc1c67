/* learner.h - a model that learns: its parameters in full precision, their gradients, and the steps
 * that turn data into gradients.  What is done with the gradients is adamw.h.
 *
 * The parameters are kept as the official files have them, in f32, rows of outputs first; before each
 * step they are laid out for the kernels and transformed as the loader does, and behind it the
 * gradients go the same way back.  The model text that learns is the one that runs. */
#ifndef CV_LEARNER_H
#define CV_LEARNER_H

#include "models/vision.h"
#include "models/weights.h"
#include "train/room.h"

/* One tensor, or one slice of one. */
typedef struct cv_param {
    cv_view view; /* its official name, place and shape */
    float *value; /* [rows][cols], official values */
    float *gradient;
    size_t n;
    float *slot;          /* vectors: what the model reads; NULL: a matrix */
    float *slot_gradient; /* of the slot */
    size_t slot_n;        /* more than n where a number serves a whole head */
    bool direct;          /* value is the slot */
} cv_param;

typedef struct cv_learner_options {
    bool bf16;  /* products take operands of bf16 and add in f32; parameters stay f32 */
    bool again; /* layers are computed again on the way back: less memory, a third more time */
} cv_learner_options;

typedef struct cv_learner {
    const corvid_allocator *mem;
    cv_team *team;
    const cv_kernels *kernel;
    cv_learner_options options;
    cv_source source; /* its shapes; what it read is gone */
    cv_model model;
    cv_param *params;
    size_t n_params;
    cv_trained *trained; /* [matrices] */
    size_t n_trained;
    float *block;          /* values and gradients of all params that are not direct */
    float *slots;          /* gradients beside model.weights */
    unsigned char *panels; /* of the transposes */

    cv_room room; /* of the lessons: text_lesson.h, picture_lesson.h */

    /* Language models. */
    cv_sequence *sequences;
    float *states;          /* the start that sequences share, then the running one of each */
    float *start_gradients; /* [sequences] of the start; NULL: nobody wanted them yet */
    size_t state_size, max_sequences;
    /* The state that every sequence begins in, and its gradient, [state_size] in the model's order;
     * the caller's, or NULL: that of cv_state_start. */
    const float *start;
    float *start_gradient;

    /* Vision models: lists of max_pictures. */
    cv_image *images;
    cv_grid *grids;
    float *keep; /* [2 L][pictures] */
    int32_t *best;
    size_t max_pictures;
} cv_learner;

/* Takes the weights of a source (a checkpoint, or initial values), of any type, in f32.  team is the
 * caller's and outlives the learner; options NULL: none of them.  CORVID_E_MEMORY says how much it
 * would take. */
corvid_status cv_learner_open(const corvid_allocator *mem, cv_team *team, const cv_kernels *kernel,
                              const cv_source *source, const cv_learner_options *options,
                              cv_learner *out, corvid_error *err);
void cv_learner_close(cv_learner *learner); /* safe on a zeroed one */

/* Bytes that opening and such room take together. */
size_t cv_learner_bytes(const cv_learner *learner);

/* Sets all gradients to zero; once before the batches of a step. */
void cv_learner_clear(cv_learner *learner);

/* What a tape has to know of the weights. */
cv_taped_weights cv_learner_weights(const cv_learner *learner);

/* Brings the gradients to the official values; once behind the batches of a step. */
void cv_learner_gather(cv_learner *learner);

/* The parameters have changed: lays them out anew. */
void cv_learner_publish(cv_learner *learner);

/* A source whose views read the parameters as they are now, for saving; valid while the learner is. */
cv_source cv_learner_source(const cv_learner *learner);

#endif
