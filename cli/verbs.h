/* verbs.h - the verbs of the command, one file each. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include "options.h"

extern const cli_verb verb_train, verb_finetune, verb_merge, verb_generate, verb_chat, verb_logits, verb_tokenize, verb_detokenize,
    verb_classify, verb_features, verb_convert, verb_inspect, verb_eval, verb_bench;

/* help.c and completions.c: the verbs about verbs. */
extern const cli_verb verb_man, verb_completions, verb_help, verb_version;

#endif
