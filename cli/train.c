/* train.c - `corvid train`: the options of all that is trained from nothing. */
#include "train.h"

#include <string.h>

#include "term.h"
#include "train_vocabulary.h"
#include "verbs.h"

#define FIELD(name) offsetof(train_options, name)

static const cli_option own_table[] = {
    { "data", 'd', OPTION_LIST, "PATH", NULL,
      "lm, vocabulary: a .txt or .jsonl file, a folder of them, or - for standard input; lm: a "
      ".bin "
      "file of tokens with its .idx file, too. vision: a folder or an archive with a folder "
      "for each class, or a folder with the files of MNIST or CIFAR. May be given again.",
      FIELD(data), 0, 0 },
    { "out", 'o', OPTION_TEXT, "FOLDER", NULL,
      "Where model.safetensors, resume.bin, log.jsonl and loss.svg go. vocabulary: the file.",
      FIELD(out), 0, 0 },
    { "arch", 0, OPTION_CHOICE,
      "rwkv4|rwkv5.2|rwkv6|rwkv7|gpt|lstm|aft-simple|aft-full|aft-local|vrwkv|vrwkv6", NULL,
      "The architecture; default: rwkv7, and vrwkv for pictures.", FIELD(arch), 0, 0 },
    { "layers", 0, OPTION_COUNT, "N", NULL, "Layers; default: 6, and 12 for pictures.",
      FIELD(layers), 1, 1024 },
    { "dim", 0, OPTION_COUNT, "N", NULL,
      "Width, a multiple of 64; default: 256, and 192 for pictures.", FIELD(dim), 1, 65536 },
    { "resume", 0, OPTION_FLAG, NULL, NULL, "Go on from what is in the folder.", FIELD(resume), 0,
      0 },
    { "json", 0, OPTION_FLAG, NULL, NULL, "Print each step as a line of JSON.", FIELD(json), 0, 0 },
    { 0 }
};

static const cli_option text_table[] = {
    { "vocab", 0, OPTION_TEXT, "FILE", NULL,
      "The vocabulary; without one the tokens are the bytes of the text.", FIELD(vocab), 0, 0 },
    { "tokens", 0, OPTION_COUNT, "N", "8192", "Tokens of a vocabulary that is made.", FIELD(tokens),
      257, 65536 },
    { "context", 'c', OPTION_COUNT, "N", "256", "Tokens of a sequence.", FIELD(context), 1, 1e7 },
    { "eval-tokens", 0, OPTION_COUNT, "N", "65536", "Tokens of an evaluation; 0: all.",
      FIELD(eval_tokens), 0, 0 },
    { "token-shift", 0, OPTION_CHOICE, "on|off", "on",
      "off: without the mix with the token before, of rwkv4, rwkv5.2 and rwkv7, to compare.",
      FIELD(token_shift), 0, 0 },
    { 0 }
};

static const cli_option picture_table[] = {
    { "size", 0, OPTION_COUNT, "N", "224", "Pictures of N x N pixels.", FIELD(size), 1, 4096 },
    { "patch", 0, OPTION_COUNT, "N", "16", "Pixels a side of what becomes a token.", FIELD(patch),
      1, 256 },
    { "norm", 0, OPTION_CHOICE, "auto|pre|post", "auto",
      "Norms before the branches of a layer or behind them; auto: behind where wider than 192.",
      FIELD(norm), 0, 0 },
    { "augment", 0, OPTION_CHOICE, "imagenet|small|none", "imagenet",
      "What chance does to the pictures. imagenet: parts of any size, mirrored, RandAugment, "
      "erased. "
      "small: cut with a border, mirrored.",
      FIELD(augment), 0, 0 },
    { "flip", 0, OPTION_TEXT, "P", "auto",
      "How often pictures are mirrored, 0 to 1; auto: as --augment has it. Give 0 for digits and "
      "letters.",
      FIELD(flip), 0, 0 },
    { "mixup", 0, OPTION_TEXT, "P", "0", "How often the pictures of a batch are mixed in pairs.",
      FIELD(mixup), 0, 0 },
    { "cutmix", 0, OPTION_TEXT, "P", "0", "How often they exchange a part instead.", FIELD(cutmix),
      0, 0 },
    { "label-smoothing", 0, OPTION_REAL, "R", "0.1", "Share of a label that all classes get.",
      FIELD(smoothing), 0, 0.99 },
    { "drop-path", 0, OPTION_REAL, "R", "0",
      "How often a branch of the last layer is left out, from 0 in the first.", FIELD(drop_path), 0,
      0.99 },
    { "epochs", 0, OPTION_REAL, "R", "0", "As many steps as show all pictures R times; 0: --steps.",
      FIELD(epochs), 0, 1e9 },
    { "eval-pictures", 0, OPTION_COUNT, "N", "1000",
      "Pictures of an evaluation, evenly of all kept aside; 0: all.", FIELD(eval_pictures), 0, 0 },
    { 0 }
};

static const cli_option recipe_table[] = {
    { "steps", 'n', OPTION_COUNT, "N", "1000", "Steps.", FIELD(steps), 1, 1e12 },
    { "minutes", 0, OPTION_REAL, "M", "0",
      "Measure, save and end after so many minutes, wherever it is; 0: no limit.", FIELD(minutes),
      0, 1e7 },
    { "batch", 'b', OPTION_COUNT, "N", NULL,
      "Sequences or pictures of a step; default: 8, and 64 pictures.", FIELD(batch), 1, 65536 },
    { "accumulate", 0, OPTION_COUNT, "N", "1",
      "Parts that a step is cut into, to learn in less memory.", FIELD(accumulate), 1, 65536 },
    { "lr", 0, OPTION_REAL, "R", "1e-3", "Learning rate at the top.", FIELD(lr), 0, 100 },
    { "lr-final", 0, OPTION_TEXT, "R", "auto",
      "Learning rate at the end; auto: 1e-5, and a hundredth of --lr for pictures.",
      FIELD(lr_final), 0, 0 },
    { "schedule", 0, OPTION_CHOICE, "cosine|linear|exponential|mean|constant", "cosine",
      "How it gets there; mean is that of cosine and exponential.", FIELD(schedule), 0, 0 },
    { "warmup", 0, OPTION_TEXT, "N", "auto",
      "Steps of warm-up; auto: 10, and a fifteenth of all for pictures.", FIELD(warmup), 0, 0 },
    { "beta1", 0, OPTION_REAL, "R", "0.9", "AdamW: what the mean of gradients keeps.", FIELD(beta1),
      0, 0.9999999 },
    { "beta2", 0, OPTION_REAL, "R", NULL,
      "AdamW: what the mean of their squares keeps; default: 0.99, and 0.999 for pictures.",
      FIELD(beta2), 1e-6, 0.9999999 },
    { "eps", 0, OPTION_REAL, "R", NULL, "AdamW: default: 1e-18, and 1e-8 for pictures.", FIELD(eps),
      1e-30, 1 },
    { "weight-decay", 0, OPTION_TEXT, "R", "auto",
      "auto: 0.001 of the large matrices, and 0.05 of all but norms and biases for pictures.",
      FIELD(weight_decay), 0, 0 },
    { "clip", 0, OPTION_TEXT, "R", "auto",
      "The largest norm of a gradient, 0: none; auto: 1, and 5 for pictures.", FIELD(clip), 0, 0 },
    { "ema", 0, OPTION_REAL, "R", "0",
      "Measure and save a running mean of the weights that keeps R at each step, as 0.999; 0: "
      "none.",
      FIELD(ema), 0, 0.9999999 },
    { "seed", 0, OPTION_COUNT, "N", "1", "Everything follows from it.", FIELD(seed), 0, 0 },
    { "type", 0, OPTION_CHOICE, "f32|bf16", "f32", "What matrices are multiplied in.", FIELD(type),
      0, 0 },
    { "recompute", 0, OPTION_FLAG, NULL, NULL,
      "Compute layers anew on the way back: slower, in much less memory.", FIELD(recompute), 0, 0 },
    { "validation", 0, OPTION_REAL, "R", "0.1",
      "Share of the data that is kept aside; where pictures lie in train and val, that counts.",
      FIELD(validation), 0, 0.9 },
    { "eval-every", 0, OPTION_COUNT, "N", "100", "Steps between evaluations.", FIELD(eval_every), 1,
      1e9 },
    { "save-every", 0, OPTION_COUNT, "N", "500", "Steps between savings.", FIELD(save_every), 1,
      1e9 },
    { "keep-best", 0, OPTION_FLAG, NULL, NULL,
      "Keep the model with the lowest validation loss as best.safetensors.", FIELD(keep_best), 0,
      0 },
    { "threads", 0, OPTION_COUNT, "N", "0", "Threads; 0 is as many as the process may use.",
      FIELD(threads), 0, 64 },
    { "cpu", 0, OPTION_CHOICE, "ref|avx2|avx512|bf16|amx|neon", NULL, "Force a level of kernels.",
      FIELD(cpu), 0, 0 },
    { 0 }
};

static const option_group groups[] = { { "Training", own_table, 0 },
                                       { "Texts", text_table, 0 },
                                       { "Pictures", picture_table, 0 },
                                       { "Recipe", recipe_table, 0 },
                                       GENERAL_GROUP,
                                       { 0 } };

int train_number(const char *name, const char *text, double low, double high, double *value)
{
    char what[80];
    double number = 0;
    if (strcmp(text, "auto") == 0) return 0;
    snprintf(what, sizeof what, "--%s", name);
    const int code = parse_real(what, text, &number);
    if (code) return code;
    if (!(number >= low && number <= high))
        return fail(EXIT_USAGE, "%s: %g is out of range; expected %g to %g, or auto", what, number,
                    low, high);
    *value = number;
    return 0;
}

static int run(const void *options, int n_args, char **args)
{
    const train_options *o = options;
    const bool pictures = n_args == 1 && strcmp(args[0], "vision") == 0;
    const bool vocabulary = n_args == 1 && strcmp(args[0], "vocabulary") == 0;
    if (n_args != 1 || (!pictures && !vocabulary && strcmp(args[0], "lm") != 0))
        return fail(EXIT_USAGE,
                    "say what to train: corvid train lm, corvid train vision, or corvid "
                    "train vocabulary");
    if (o->data.n == 0)
        return fail(EXIT_USAGE, "give the %s with --data PATH", pictures ? "pictures" : "texts");
    if (!o->out)
        return fail(EXIT_USAGE, vocabulary ? "say where the vocabulary goes with --out FILE"
                                           : "say where the model goes with --out FOLDER");
    if (vocabulary) return train_vocabulary(o);
    if (o->arch && (o->arch[0] == 'v') != pictures)
        return fail(EXIT_USAGE, "--arch %s does not learn from %s; expected %s", o->arch,
                    pictures ? "pictures" : "texts",
                    pictures ? "vrwkv or vrwkv6" : "rwkv4 to rwkv7, gpt, lstm or one of aft");
    return pictures ? train_vision(o) : train_lm(o);
}

const cli_verb verb_train = {
    .name = "train",
    .summary = "train a model from nothing",
    .usage = "lm|vision|vocabulary --data PATH --out FOLDER|FILE [options]",
    .examples =
        "corvid train lm --data shakespeare.txt --out run1\n"
        "corvid train lm --data books/ --arch rwkv6 --layers 4 --dim 192 -n 2000 --out run2\n"
        "corvid train lm --data books/ --out run2 -n 2000 --arch rwkv6 --layers 4 --dim 192 "
        "--resume\n"
        "corvid generate -m run1/model.safetensors -p \"To be\"\n"
        "corvid train vocabulary --data books/ --tokens 4096 --out books.vocab\n"
        "corvid train lm --data books/ --vocab books.vocab --out run5\n"
        "corvid train vision --data photos/ --out run3 --minutes 30\n"
        "corvid train vision --data cifar10.tar.gz --size 32 --patch 4 --augment small --out run4\n"
        "corvid classify -m run4/model.safetensors cat.jpg",
    .details =
        "The weights, their official names, and the vocabulary or the names of the classes are in "
        "model.safetensors. A run that is stopped with Ctrl-C, by --minutes, or killed, goes on "
        "with "
        "--resume and the same settings, and ends with the same bits. Each step is a line of "
        "log.jsonl; loss.svg is drawn at the end.",
    .subjects = "lm|vision|vocabulary",
    .groups = groups,
    .options_size = sizeof(train_options),
    .run = run,
};
