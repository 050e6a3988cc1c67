/* text_course.h - what a language model is taught from: texts as tokens, the sequences of each part
 * of a step, and the windows that are kept aside. */
#ifndef CV_TEXT_COURSE_H
#define CV_TEXT_COURSE_H

#include "train/loop.h"
#include "train/text_data.h"
#include "train/text_lesson.h"

typedef struct cv_text_course_wish {
    const cv_recipe *recipe;
    const cv_tokenizer *tok;
    const char *const *data;
    size_t n_data;
    size_t batch, context; /* sequences of a step, tokens of each */
    double l2_wrap;
    double validation; /* the part kept aside; 0: none */
    uint64_t evaluate_tokens;
} cv_text_course_wish;

typedef struct cv_text_course {
    const corvid_allocator *mem;
    cv_text_course_wish wish;
    cv_text_data data;
    cv_sample_plan samples, windows; /* for training, for validation */
    size_t most;                     /* sequences of the largest part of a step */
    int32_t *tokens, *targets;       /* [most][context] */
} cv_text_course;

/* Reads the texts, or the tokens of them that the folder of the run has. */
corvid_status cv_text_course_open(const corvid_allocator *mem, const cv_text_course_wish *wish,
                                  cv_text_course *out, corvid_error *err);
void cv_text_course_close(cv_text_course *course); /* safe on a zeroed one */

/* Those of cv_task; the learner has room for most x context tokens. */
corvid_status cv_text_course_learn(cv_text_course *course, cv_learner *learner, uint64_t step,
                                   size_t part, double *loss, corvid_error *err);
corvid_status cv_text_course_score(cv_text_course *course, cv_learner *learner,
                                   cv_run_score *score, corvid_error *err);

#endif
