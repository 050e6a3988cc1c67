/* finetune_run.h - a run that teaches a language model more: all of it, adapters, or the state that it
 * begins in; loop.h with what that takes.
 *
 * Texts are turned into tokens with the model's own vocabulary.  The folder gets, in place of
 * model.safetensors, adapter.safetensors or state.safetensors for those methods. */
#ifndef CV_FINETUNE_RUN_H
#define CV_FINETUNE_RUN_H

#include "train/adapter.h"
#include "train/loop.h"

typedef enum cv_finetune_method {
    CV_FINETUNE_FULL,
    CV_FINETUNE_LORA,
    CV_FINETUNE_STATE
} cv_finetune_method;

typedef struct cv_finetune_run {
    cv_recipe recipe;
    cv_finetune_method method;
    const char *model;               /* the checkpoint */
    const char *vocab, *folder;      /* as cv_vocabulary_find takes them; may be NULL */
    cv_adapter_settings adapter;     /* lora; its seed is the recipe's */
    const char *from;                /* adapter or state to begin with; NULL: a new one */
    double from_alpha;               /* of that adapter; 0: as it says itself */
    const char *const *data;
    size_t n_data;
    size_t batch, context; /* sequences of a step, tokens of each */
    double l2_wrap;
    double validation; /* the part kept aside; 0: none */
    uint64_t evaluate_tokens;
} cv_finetune_run;

/* As cv_loop_run.  CORVID_E_MISMATCH: the adapter, state or vocabulary is of another model. */
corvid_status cv_finetune(const corvid_allocator *mem, const cv_finetune_run *run,
                          corvid_error *err);

#endif
