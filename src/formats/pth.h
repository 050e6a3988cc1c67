/* pth.h - what the two containers of PyTorch checkpoints share: one pickle, and storages. */
#ifndef CV_PTH_H
#define CV_PTH_H

#include "formats/checkpoint.h"
#include "formats/pickle.h"

#define CV_PTH_PICKLE_LIMIT ((size_t)256 << 20)

/* Finds the data of a storage and fills its `offset` and `located`. */
typedef corvid_status (*cv_pth_locate)(void *ctx, cv_pickle_storage *storage, corvid_error *err);

/* The tensors of a pickle that has been read into ckpt->tensors, what lies beside them into
 * ckpt->meta.  n_bytes is the pickle's length, which bounds the memory taken. */
corvid_status cv_pth_collect(cv_checkpoint *ckpt, const cv_pickle *pickle, size_t n_bytes,
                             cv_pth_locate locate, void *ctx, corvid_error *err);

corvid_status cv_pth_zip_parse(cv_checkpoint *ckpt, corvid_error *err);    /* pth_zip.c */
corvid_status cv_pth_legacy_parse(cv_checkpoint *ckpt, corvid_error *err); /* pth_legacy.c */

#endif
