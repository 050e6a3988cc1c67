/* picture_feed.h - batches of pictures made in the background while a step runs.
 *
 * Threads of its own fill a ring of batches, picture by picture.  The batches are those of
 * picture_data.h, whatever the number of threads. */
#ifndef CV_PICTURE_FEED_H
#define CV_PICTURE_FEED_H

#include "train/picture_data.h"

#define CV_FEED_THREADS 16

typedef struct cv_feed_options {
    size_t batch;              /* pictures */
    uint64_t step;             /* the first one */
    const cv_augment *augment; /* copied; NULL: the validation pictures, each once, in order */
    size_t threads;            /* at most CV_FEED_THREADS; 0: one */
    size_t ring;               /* batches at a time, 2 to 16; 0: 3 */
} cv_feed_options;

typedef struct cv_picture_feed cv_picture_feed;

/* data is the caller's and outlives the feed. */
corvid_status cv_picture_feed_open(const cv_picture_data *data, const cv_feed_options *options,
                                   cv_picture_feed **out, corvid_error *err);

/* The batch of the next step, which stays as it is until the next call; the caller waits where
 * it is not ready.  Behind the last validation picture: of no pictures.  After an error each
 * call gives the same one. */
corvid_status cv_picture_feed_next(cv_picture_feed *feed, const cv_picture_set **out,
                                   corvid_error *err);

void cv_picture_feed_close(cv_picture_feed *feed); /* at any time; NULL does nothing */

#endif
