/* groups.h - which learning rate a tensor gets, and whether it decays: the rules of the official
 * trainers, which go by names and shapes.  [train.groups] */
#ifndef CV_GROUPS_H
#define CV_GROUPS_H

#include "models/source.h"

typedef enum cv_grouping {
    CV_GROUPS_RWKV,   /* versions 4 to 6: the trainer of the RWKV-v5 folder */
    CV_GROUPS_RWKV7,  /* version 7: train_temp */
    CV_GROUPS_VRWKV,  /* VRWKV-T, S, B and VRWKV6 */
    CV_GROUPS_VRWKV_L /* fine-tuning of VRWKV-L */
} cv_grouping;

typedef struct cv_group {
    double lr_scale;
    bool decays; /* if there is weight decay at all */
} cv_group;

/* The rule that the official trainer of a model has. */
cv_grouping cv_grouping_of(const cv_source *source);

/* The group of a tensor by its official name (with or without what stands before the layer's
 * number) and its official dimensions. */
cv_group cv_group_by_name(cv_grouping grouping, const char *name, const size_t *dims, int n_dims);

/* The group of a view, whatever dialect its source is in. */
cv_group cv_group_of(cv_grouping grouping, const cv_source *source, const cv_view *view);

#endif
