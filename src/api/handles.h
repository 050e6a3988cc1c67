/* handles.h - what the opaque types of corvid.h hold. */
#ifndef CV_HANDLES_H
#define CV_HANDLES_H

#include "corvid.h"
#include "engine/class_names.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "engine/vocabulary.h"

struct corvid_tokenizer {
    cv_tokenizer *tok;
};

struct corvid_model {
    corvid_allocator allocator;
    cv_engine engine;
    corvid_tokenizer tokenizer; /* tok NULL: none was found, and why is in no_tokenizer */
    corvid_error no_tokenizer;
    cv_class_names classes; /* vision models */
    const char *format;
};

struct corvid_stream {
    cv_stream stream;
    corvid_model *model;
};

struct corvid_sampler {
    cv_sampler *sampler;
};

#endif
