/* model_args.h - the options that say which model is opened and how. */
#ifndef CLI_MODEL_ARGS_H
#define CLI_MODEL_ARGS_H

#include "corvid.h"
#include "options.h"

typedef struct model_args {
    const char *model, *vocab, *cpu, *bi_wkv, *norm, *classes;
    uint64_t threads, chunk, memory_limit;
    double gn_eps;
} model_args;

extern const cli_option model_table[];        /* everything a language model may need */
extern const cli_option vocab_table[];        /* -m and --vocab */
extern const cli_option vision_table[];       /* what a vision model may need besides */
extern const cli_option vision_model_table[]; /* everything a vision model may need */

/* 0, or 2 after telling how to point at a checkpoint. */
int model_args_need(const model_args *args);

/* The same options with the file of the model: what -m names, which is a file or else a shipped
 * model (shipped.h); where it names none, this shipped one, if not NULL.  0, or an exit code after
 * telling where was looked. */
int model_args_choose(const model_args *given, const char *shipped, model_args *chosen);

/* Fills the library's options.  bar (progress) may be NULL; vocab_folder stays with the caller. */
void model_args_options(const model_args *args, char *vocab_folder, void *bar,
                        corvid_model_options *options);

/* $XDG_DATA_HOME/corvid, where vocabularies may lie; to be freed, may be NULL. */
char *model_args_folder(void);

/* Opens the model with a progress bar; -v tells what it takes before and what it is after.
 * 0, or an exit code after a message. */
int model_args_open(const model_args *args, corvid_model **model);

/* The same, and it must be a model of this kind. */
int model_args_open_language(const model_args *args, corvid_model **model);
int model_args_open_vision(const model_args *args, corvid_model **model);

/* The same for a model of random weights. */
int model_args_random(const model_args *args, const char *shape, const char *type,
                      corvid_model **model);

/* The model's own sizes and names. */
corvid_model_info model_args_info(const corvid_model *model);

#endif
