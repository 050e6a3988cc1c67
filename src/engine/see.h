/* see.h - showing pictures to the engine of a vision model.
 *
 * Pictures are packed into passes of about CV_SEE_ROWS tokens that share one walk over the weights;
 * a larger picture is a pass of its own.  The working memory grows to what the largest pass took. */
#ifndef CV_SEE_H
#define CV_SEE_H

#include "engine/engine.h"
#include "image/picture.h"
#include "models/vision.h"

#define CV_SEE_ROWS     ((size_t)2048)
#define CV_SEE_PICTURES ((size_t)64) /* in one pass */

/* Called when an engine is opened and closed. */
corvid_status cv_see_open(cv_engine *engine, corvid_error *err);
void cv_see_close(cv_engine *engine);

/* Shows n pictures, whose outputs are where they say.  wanted [n_wanted] are layers, checked.
 * CORVID_E_MEMORY before anything is computed, CORVID_E_CANCELLED between passes. */
corvid_status cv_see(cv_engine *engine, const cv_image *images, size_t n, const size_t *wanted,
                     size_t n_wanted, corvid_error *err);

/* Bytes of working memory for n pictures of one size: of the largest pass they make. */
size_t cv_see_bytes(const cv_engine *engine, size_t height, size_t width, size_t n);

/* The same before an engine is there: one picture of the size that the positions were made for. */
corvid_status cv_see_measure_source(const cv_source *source, const cv_engine_options *options,
                                    size_t *bytes, corvid_error *err);

/* How the published checkpoints of this kind were evaluated [pre.resize] [pre.crop], and the side of
 * the pictures that the positions were made for. */
cv_framing cv_see_framing(const cv_model *model);
const cv_normalise *cv_see_normalise(const cv_model *model);
size_t cv_see_native(const cv_sizes *sizes);

#endif
