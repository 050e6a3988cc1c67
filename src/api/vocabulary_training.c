/* vocabulary_training.c - training vocabularies. */
#include <string.h>

#include "api/handles.h"
#include "text/vocabulary_trainer.h"
#include "train/vocabulary_run.h"

void corvid_train_vocabulary_defaults(corvid_train_vocabulary_options *options)
{
    *options = (corvid_train_vocabulary_options){ .struct_size = sizeof *options,
                                                  .size = 8192,
                                                  .held_out = 0.1 };
}

static corvid_status check_options(const corvid_train_vocabulary_options *o, corvid_error *err)
{
    if (!o->out || o->n_data == 0 || !o->data)
        return cv_fail(err, CORVID_E_ARGUMENT, "training a vocabulary needs texts and a file");
    for (size_t i = 0; i < o->n_data; i++)
        if (!o->data[i]) return cv_fail(err, CORVID_E_ARGUMENT, "text %zu has no path", i);
    if (o->size < CV_VOCABULARY_SMALLEST || o->size > CV_VOCABULARY_LARGEST)
        return cv_fail(err, CORVID_E_ARGUMENT, "a vocabulary of %zu ids, expected %zu to %zu",
                       o->size, CV_VOCABULARY_SMALLEST, CV_VOCABULARY_LARGEST);
    if (!(o->held_out >= 0.0 && o->held_out <= 0.9))
        return cv_fail(err, CORVID_E_ARGUMENT, "a part of %g kept aside, expected 0 to 0.9",
                       o->held_out);
    return CORVID_OK;
}

corvid_status corvid_train_vocabulary(const corvid_train_vocabulary_options *options,
                                      corvid_error *err)
{
    corvid_train_vocabulary_options o;
    corvid_train_vocabulary_defaults(&o);
    if (options->struct_size == 0 || options->struct_size > sizeof o)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "vocabulary options: struct_size is %zu, expected at most %zu; fill them "
                       "with corvid_train_vocabulary_defaults",
                       options->struct_size, sizeof o);
    memcpy(&o, options, options->struct_size);
    CV_TRY(check_options(&o, err));
    const cv_vocabulary_run run = { .data = o.data,
                                    .n_data = o.n_data,
                                    .size = o.size,
                                    .held_out = o.held_out,
                                    .out = o.out,
                                    .reading = o.reading,
                                    .searching = o.searching,
                                    .cancel = o.cancel,
                                    .ctx = o.callback_ctx };
    cv_vocabulary_result result;
    CV_TRY(cv_train_vocabulary(o.allocator ? o.allocator : &cv_libc_allocator, &run, &result, err));
    const corvid_vocabulary_report report = { .size = result.size,
                                              .text_bytes = result.text_bytes,
                                              .held_out_bytes = result.held_out_bytes,
                                              .held_out_tokens = result.held_out_tokens };
    if (o.report) o.report(o.callback_ctx, &report);
    return CORVID_OK;
}
