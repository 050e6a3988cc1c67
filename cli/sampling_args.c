/* sampling_args.c - from --temperature and its companions to a sampler. */
#include "sampling_args.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "term.h"
#include "textio.h"

#define REAL(flag, text, low, high, field, fallback)                                         \
    {                                                                                        \
        flag, 0, OPTION_REAL, "X", fallback, text, offsetof(sampling_args, field), low, high \
    }

const cli_option sampling_table[] = {
    REAL("temperature",
         "Above 1 wilder, below 1 tamer, 0 the likeliest token; applied after the "
         "cuts below, as the official sampler does.",
         0, 100, temperature, "1"),
    REAL("top-p", "Keep the likeliest tokens that together reach this probability.", 0, 1, top_p,
         "0.5"),
    { "top-k", 0, OPTION_COUNT, "N", "0", "Keep the N likeliest tokens; 0 is all.",
      offsetof(sampling_args, top_k), 0, 0 },
    REAL("min-p", "Drop tokens less likely than X times the likeliest; 0 is off.", 0, 1, min_p,
         "0"),
    REAL("typical", "Locally typical sampling: keep the mass X; 0 is off.", 0, 1, typical, "0"),
    REAL("presence", "Lower the score of every token already written by X.", -100, 100, presence,
         "0"),
    REAL("frequency", "Lower it again by X for each time it was written.", -100, 100, frequency,
         "0"),
    REAL("penalty-decay", "How much of those counts is left after each token.", 0, 1, penalty_decay,
         "0.996"),
    { "logit-bias", 0, OPTION_TEXT, "ID=X,...", NULL,
      "Add X to the score of token ID; -inf bans it.", offsetof(sampling_args, logit_bias), 0, 0 },
    { "seed", 0, OPTION_TEXT, "N", "time",
      "Seed of the random numbers: the same seed writes the same text; \"time\" picks one, -v "
      "prints it.",
      offsetof(sampling_args, seed), 0, 0 },
    { "greedy", 0, OPTION_FLAG, NULL, NULL, "Always take the likeliest token.",
      offsetof(sampling_args, greedy), 0, 0 },
    { 0 }
};

/* Reads "ID=X,..." into a fresh array. */
static int parse_bias(const char *text, size_t n_vocab, corvid_logit_bias **out, size_t *n)
{
    char *copy = cli_copy(text), *rest = copy;
    int code = 0;
    for (char *item; !code && (item = strsep(&rest, ",")) != NULL;) {
        char *equals = strchr(item, '=');
        uint64_t id = 0;
        double x = 0;
        if (!equals) {
            code = fail(EXIT_USAGE, "--logit-bias: \"%s\" is not ID=X", item);
            break;
        }
        *equals = 0;
        code = parse_count("--logit-bias", item, &id);
        if (!code) code = parse_real("--logit-bias", equals + 1, &x);
        if (!code && id >= n_vocab)
            code = fail(EXIT_USAGE, "--logit-bias: the model has no token %s; ids end at %zu", item,
                        n_vocab - 1);
        if (code) break;
        *out = cli_realloc(*out, (*n + 1) * sizeof **out);
        (*out)[(*n)++] = (corvid_logit_bias){ (int32_t)id, (float)x };
    }
    free(copy);
    return code;
}

static int parse_seed(const char *text, uint64_t *seed)
{
    if (strcmp(text, "time") != 0) return parse_count("--seed", text, seed);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *seed = ((uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec * 7919u + (uint64_t)getpid()) %
            1000000000u; /* short enough to copy by hand */
    return 0;
}

int sampling_args_open(const sampling_args *args, size_t n_vocab, const corvid_tokenizer *tokenizer,
                       corvid_sampler **sampler, uint64_t *seed)
{
    corvid_sampler_options o;
    corvid_sampler_defaults(&o);
    o.temperature = args->greedy ? 0.0f : (float)args->temperature;
    o.top_p = (float)args->top_p;
    o.top_k = (size_t)args->top_k;
    o.min_p = (float)args->min_p;
    o.typical = (float)args->typical;
    o.presence = (float)args->presence;
    o.frequency = (float)args->frequency;
    o.penalty_decay = (float)args->penalty_decay;
    int code = parse_seed(args->seed, seed);
    if (code) return code;
    o.seed = *seed;
    corvid_logit_bias *bias = NULL;
    size_t n_bias = 0;
    if (args->logit_bias) code = parse_bias(args->logit_bias, n_vocab, &bias, &n_bias);
    o.bias = bias;
    o.n_bias = n_bias;
    corvid_error err;
    if (!code && corvid_sampler_new(n_vocab, &o, tokenizer, sampler, &err)) code = fail_with(&err);
    free(bias);
    if (!code && o.temperature > 0) note("seed %llu", (unsigned long long)*seed);
    return code;
}
