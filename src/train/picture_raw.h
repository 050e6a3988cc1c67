/* picture_raw.h - pictures that are not encoded: IDX files (MNIST) and CIFAR's binary batches. */
#ifndef CV_PICTURE_RAW_H
#define CV_PICTURE_RAW_H

#include "train/picture_sources.h"

/* An IDX file of bytes: `n` things of rows x columns; labels are of 1 x 1 and have one
 * dimension. */
typedef struct cv_idx {
    size_t n, rows, columns;
    const unsigned char *data;
} cv_idx;

/* From the bytes of a file; dims is 3 for pictures and 1 for labels.  CORVID_E_FORMAT with the
 * offset. */
corvid_status cv_idx_parse(const unsigned char *bytes, size_t size, const char *name, size_t dims,
                           cv_idx *out, corvid_error *err);

/* Adds what the folder holds of the files of MNIST or CIFAR; *found: whether it does. */
corvid_status cv_raw_read_folder(cv_picture_list *list, const char *folder, bool *found,
                                 corvid_error *err);

#endif
