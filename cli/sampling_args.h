/* sampling_args.h - the options that say how the next token is drawn. */
#ifndef CLI_SAMPLING_ARGS_H
#define CLI_SAMPLING_ARGS_H

#include "corvid.h"
#include "options.h"

typedef struct sampling_args {
    double temperature, top_p, min_p, typical, presence, frequency, penalty_decay;
    uint64_t top_k;
    const char *logit_bias, *seed;
    bool greedy;
} sampling_args;

extern const cli_option sampling_table[];

/* Makes the sampler; *seed receives the seed in use.  tokenizer may be NULL.  0, or an exit code
 * after a message. */
int sampling_args_open(const sampling_args *args, size_t n_vocab, const corvid_tokenizer *tokenizer,
                       corvid_sampler **sampler, uint64_t *seed);

#endif
