/* corvid.h - RWKV language models and Vision-RWKV image models in C: open a checkpoint, feed tokens
 * or show pictures, read the scores.
 *
 * A *model* is the weights of a checkpoint: immutable, shared by any number of streams and threads.
 * A *stream* is one sequence being read or written: a state of fixed size and a position in it.
 * The state is a value: it is copied, saved, loaded and compared, and costs the same after one
 * token as after a million.
 *
 *     corvid_model *model;   corvid_stream *stream;   corvid_error err;
 *     if (corvid_model_open("rwkv7.pth", NULL, &model, &err)) { puts(err.text); return 1; }
 *     if (corvid_stream_new(model, &stream, &err)) ...
 *     if (corvid_feed(stream, tokens, n, logits, &err)) ...
 *     next = corvid_sample(sampler, logits);
 *
 * A vision model has no streams: it is shown pictures, several at a time (corvid_see).
 *
 *     if (corvid_picture_open("cat.jpg", 0, &picture, &err)) ...
 *     corvid_framing_defaults(model, &framing);
 *     if (corvid_picture_frame(picture, &framing, &framed, &err)) ...
 *     corvid_view view = { .picture = framed, .logits = logits };
 *     if (corvid_see(model, &view, 1, NULL, 0, &err)) ...
 *
 * Every call returns a corvid_status and fills *err (which may be NULL) with a sentence.  The
 * library prints nothing, never exits, reads no environment variable and keeps no global state.
 * Work is done on a team of threads that belongs to the model; two threads that feed streams of one
 * model take turns.  Results are bit for bit the same on any number of threads and whatever else is
 * in the batch (tests/property/).
 *
 * Options are structs: fill them with their _defaults() function, then set fields by name. */
#ifndef CORVID_H
#define CORVID_H

#include "corvid_base.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CORVID_VERSION_MAJOR 0
#define CORVID_VERSION_MINOR 1
#define CORVID_VERSION_PATCH 0

/* "0.1.0": of the library that runs, which need not be the one compiled against. */
CORVID_API const char *corvid_version(void);

/* ---- Models ---------------------------------------------------------------------------------- */

typedef struct corvid_model corvid_model;

typedef struct corvid_model_options {
    size_t struct_size;                /* set by corvid_model_defaults */
    size_t n_threads;                  /* 0: as many as the process may use, at most 64 */
    size_t chunk;                      /* rows of one pass (1..1024); 0: 128 */
    const char *cpu;                   /* "ref", "avx2", "avx512", "bf16", "amx", "neon"; NULL: best */
    float group_norm_eps;              /* v5 only; 0: the official 64e-5.  Files made for
                                            rwkv.cpp reproduce its figures with 1e-5 */
    const char *vocab;                 /* vocabulary file, or NULL: in the checkpoint, then
                                            beside it, then in vocab_folder */
    const char *vocab_folder;          /* NULL: none */
    uint64_t memory_limit;             /* bytes; 0: what the machine has available */
    const corvid_allocator *allocator; /* NULL: malloc; must outlive the model */
    corvid_log_fn log;                 /* NULL: silent */
    corvid_progress_fn progress;       /* bytes of weights laid out while opening */
    corvid_cancel_fn cancel;           /* asked while opening and between chunks of feeding */
    void *callback_ctx;                /* first argument of the three callbacks above */

    /* Vision models only. */
    const char *bi_wkv;  /* NULL or "formula"; "cuda32", "cuda16": what the published GPU
                                            kernels compute instead [bi.cuda] */
    const char *norm;    /* NULL or "auto"; "pre", "post": where the norms of a layer
                                            stand, which names do not tell [vrwkv.layer] */
    const char *classes; /* file with a class name per line, or the .tsv of
                                            ImageNet; NULL: in the checkpoint, beside it, or
                                            in vocab_folder */
} corvid_model_options;

CORVID_API void corvid_model_defaults(corvid_model_options *options);

/* Opens a checkpoint: .pth, safetensors, GGUF or rwkv.cpp ggml, recognised by its first bytes;
 * the version of the architecture is read off tensor names and shapes.  The vocabulary is not
 * needed to feed tokens: when none is found the model opens and tokenizing reports what to do.
 *   options  may be NULL
 * CORVID_E_FILE, CORVID_E_FORMAT, CORVID_E_MEMORY (said before anything large is allocated). */
CORVID_API corvid_status corvid_model_open(const char *path, const corvid_model_options *options,
                                           corvid_model **model, corvid_error *err);

/* A model of random weights, for benchmarks: shape "rwkv7-0.1b", "rwkv4-169m", ... (see
 * corvid_shape_name), type "f32", "f16", "bf16" or a quantized type. */
CORVID_API corvid_status corvid_model_random(const char *shape, const char *type, uint64_t seed,
                                             const corvid_model_options *options,
                                             corvid_model **model, corvid_error *err);

/* The i-th known shape name, NULL past the end. */
CORVID_API const char *corvid_shape_name(size_t i);

/* Frees a model.  Its streams must be gone.  NULL is fine. */
CORVID_API void corvid_model_close(corvid_model *model);

typedef struct corvid_model_info {
    size_t struct_size;      /* set by the caller to sizeof *info */
    const char *arch;        /* "rwkv4", "rwkv5.0", "rwkv5.1", "rwkv5.2", "rwkv6", "rwkv7", "vrwkv",
                                "vrwkv6" */
    const char *format;      /* "pth", "safetensors", "gguf", "ggml", "random" */
    const char *weight_type; /* of the largest share of the weights */
    const char *cpu;         /* the kernels in use */
    const char *tokenizer;   /* "world", "20b", "bytes", or NULL: none found */
    size_t n_vocab, n_embd, n_layers, n_att, n_ffn, n_heads, head_size;
    uint64_t n_parameters;
    uint64_t weight_bytes;    /* in memory */
    uint64_t workspace_bytes; /* one per model, independent of the number of streams */
    uint64_t state_bytes;     /* of one stream */
    uint64_t fingerprint;     /* of the weights; a state fits one fingerprint */
    size_t n_threads;
    int vision;          /* non-zero: pictures go in; n_vocab and state_bytes are 0 */
    size_t n_classes;    /* of the head; 0: the file has none, features only */
    size_t patch;        /* side of a patch in pixels */
    size_t native;       /* side of the pictures that the position table was made for */
    int class_token;     /* non-zero: a token of its own stands behind the patches */
    int has_class_names; /* non-zero: corvid_class_name knows them */
} corvid_model_info;

CORVID_API corvid_status corvid_model_get_info(const corvid_model *model, corvid_model_info *info,
                                               corvid_error *err);

typedef struct corvid_memory {
    uint64_t weights, workspace, state; /* bytes; state is for one stream */
    uint64_t available;                 /* on this machine now; 0: unknown */
} corvid_memory;

/* What opening path would take, read from the header alone. */
CORVID_API corvid_status corvid_memory_estimate(const char *path,
                                                const corvid_model_options *options,
                                                corvid_memory *memory, corvid_error *err);

/* ---- Streams --------------------------------------------------------------------------------- */

typedef struct corvid_stream corvid_stream;

/* A stream at position 0.  It begins with the zero state, or with the model's own initial state
 * (time_state tensors of a state-tuned checkpoint). */
CORVID_API corvid_status corvid_stream_new(corvid_model *model, corvid_stream **stream,
                                           corvid_error *err);
CORVID_API void corvid_stream_free(corvid_stream *stream);

/* Back to position 0. */
CORVID_API void corvid_stream_reset(corvid_stream *stream);

/* Tokens fed so far. */
CORVID_API uint64_t corvid_stream_position(const corvid_stream *stream);

/* dst becomes what src is; both belong to one model, else CORVID_E_MISMATCH. */
CORVID_API corvid_status corvid_stream_copy(corvid_stream *dst, const corvid_stream *src,
                                            corvid_error *err);

/* Feeds n tokens and gives the scores of what may come next.
 *
 *   tokens  [n]        ids in 0 .. n_vocab-1; n = 0 changes nothing and writes no logits
 *   logits  [n_vocab]  out: natural log, not normalised; NULL if not wanted
 *
 * Time O(n), nothing is allocated.  Cutting the tokens into several calls changes no bit
 * (tests/property/).  CORVID_E_ARGUMENT: an id out of range, the stream is unchanged.
 * CORVID_E_CANCELLED: stopped between chunks; corvid_stream_position says where. */
CORVID_API corvid_status corvid_feed(corvid_stream *stream, const int32_t *tokens, size_t n,
                                     float *logits, corvid_error *err);

/* The same, with the scores after every token: logits [n][n_vocab]. */
CORVID_API corvid_status corvid_feed_all(corvid_stream *stream, const int32_t *tokens, size_t n,
                                         float *logits, corvid_error *err);

/* Feeds n tokens and gives, for each, how likely it was before it was fed.
 *   scores   [n]  out: natural log of the probability of tokens[i] given all before it.  scores[0]
 *                 needs the prediction before the first token: previous [n_vocab] are the logits of
 *                 the call before, or NULL: scores[0] is then 0
 *   greedy   [n]  out: 1 where tokens[i] was the most likely one; may be NULL
 *   logits        out: as corvid_feed; may be NULL, and may be the buffer of previous */
CORVID_API corvid_status corvid_score(corvid_stream *stream, const int32_t *tokens, size_t n,
                                      const float *previous, double *scores, unsigned char *greedy,
                                      float *logits, corvid_error *err);

/* One stream's share of a batch. */
typedef struct corvid_batch_item {
    corvid_stream *stream; /* each stream at most once */
    const int32_t *tokens;
    size_t n;
    float *logits; /* [n_vocab] after its last token; NULL if not wanted */
} corvid_batch_item;

/* Feeds several streams of one model in one pass over its weights.  Bit for bit what feeding them
 * one by one gives.  On an error no stream is changed, but for CORVID_E_CANCELLED. */
CORVID_API corvid_status corvid_feed_batch(const corvid_batch_item *items, size_t n_items,
                                           corvid_error *err);

/* ---- States ---------------------------------------------------------------------------------- */

/* Saves a stream's state and position to a file: checksummed, and written so that the old file
 * stays whole until the new one is (CORVID_E_WRITE otherwise). */
CORVID_API corvid_status corvid_state_save(const corvid_stream *stream, const char *path,
                                           corvid_error *err);

/* Loads what corvid_state_save wrote (CORVID_E_MISMATCH when it is another model's), or an official
 * state-tuning file (.pth with blocks.*.att.time_state; position becomes 0).  On an error the
 * stream is unchanged. */
CORVID_API corvid_status corvid_state_load(corvid_stream *stream, const char *path,
                                           corvid_error *err);

/* The state as numbers, in the order of the reference files: per layer the shift vector of the
 * channel mix [C], that of the time mix [C], then v4: aa, bb, pp [C] each; v5, v6, v7:
 * S [head][value][key].  corvid_state_floats counts them. */
CORVID_API size_t corvid_state_floats(const corvid_model *model);
CORVID_API corvid_status corvid_state_get(const corvid_stream *stream, float *values,
                                          corvid_error *err);
CORVID_API corvid_status corvid_state_set(corvid_stream *stream, const float *values,
                                          uint64_t position, corvid_error *err);

/* ---- Pictures -------------------------------------------------------------------------------- */

/* An 8-bit RGB picture in memory. */
typedef struct corvid_picture corvid_picture;

#define CORVID_MAX_PIXELS ((uint64_t)1 << 28)

/* Reads a JPEG, PNG or WebP file, told by its first bytes.  Grey becomes RGB, transparency is
 * dropped, an animation gives its first frame; how the camera was held (EXIF) is remembered.
 *   max_pixels  larger pictures are refused before they are unpacked; 0: CORVID_MAX_PIXELS
 * CORVID_E_FILE, CORVID_E_FORMAT (damaged, cut off, too large, of another kind), CORVID_E_MEMORY. */
CORVID_API corvid_status corvid_picture_open(const char *path, uint64_t max_pixels,
                                             corvid_picture **picture, corvid_error *err);

/* The same from n bytes in memory; name stands for them in messages. */
CORVID_API corvid_status corvid_picture_decode(const void *bytes, size_t n, const char *name,
                                               uint64_t max_pixels, corvid_picture **picture,
                                               corvid_error *err);

/* From pixels in memory, which are copied.
 *   pixels    [height] rows of [width][channels], stride bytes apart (0: width * channels)
 *   channels  1 grey, 3 RGB, 4 RGBA (alpha is dropped) */
CORVID_API corvid_status corvid_picture_new(const unsigned char *pixels, size_t width,
                                            size_t height, size_t channels, size_t stride,
                                            corvid_picture **picture, corvid_error *err);
CORVID_API void corvid_picture_close(corvid_picture *picture); /* NULL is fine */

/* The pixels, borrowed: [height][width][3]. */
CORVID_API const unsigned char *corvid_picture_pixels(const corvid_picture *picture, size_t *width,
                                                      size_t *height);
/* 1 to 8 as EXIF numbers them; 1: upright, or not said. */
CORVID_API int corvid_picture_orientation(const corvid_picture *picture);

/* How a picture is brought to the size that a model is shown. [pre.resize] [pre.crop] */
typedef struct corvid_framing {
    size_t struct_size;
    size_t resize;                  /* the short side becomes this many pixels, the long one
                                       follows; 0: width and height below */
    size_t width, height;           /* stretched to exactly this; 0: as large as it is */
    size_t crop_width, crop_height; /* cut from the middle of that; 0: all of it */
    int orient;                     /* non-zero: turned first as EXIF says */
} corvid_framing;

/* How the published checkpoints of this model's kind were evaluated; any kind for model NULL. */
CORVID_API void corvid_framing_defaults(const corvid_model *model, corvid_framing *framing);

/* A new picture: turned, resized (bicubic, pixel for pixel as Pillow does it), cropped. */
CORVID_API corvid_status corvid_picture_frame(const corvid_picture *picture,
                                              const corvid_framing *framing, corvid_picture **out,
                                              corvid_error *err);

/* The numbers that a model is shown: [3][height][width], normalised as its kind wants it
 * [pre.normalise]; any kind for model NULL. */
CORVID_API void corvid_picture_values(const corvid_picture *picture, const corvid_model *model,
                                      float *values);

/* ---- Seeing ---------------------------------------------------------------------------------- */

/* One picture that a vision model is shown, and what is wanted of it.  With patches of p pixels it
 * becomes a grid of ceil(height / p) times ceil(width / p) tokens; what the last patches lack is
 * zero [vrwkv.patch].  No size is too large but for memory. */
typedef struct corvid_view {
    const corvid_picture *picture; /* its pixels as they are, normalised on the way; or NULL and */
    const float *values;           /* [3][height][width], normalised, */
    size_t height, width;          /* of values */
    float *logits;                 /* [n_classes], out; NULL: not wanted */
    float *pooled;                 /* [n_embd], out: mean over the tokens of the last layer
                                      after the final norm, or the class token; or NULL */
    float *features;               /* [n_wanted][n_embd][grid_h][grid_w], out, or NULL */
    float *class_tokens;           /* [n_wanted][n_embd], out, models with a class token; or NULL */
} corvid_view;

/* Shows n pictures to a vision model; they share the passes over its weights.  Results are those of
 * showing them one by one, bit for bit.
 *   wanted  [n_wanted]  layers whose output goes into features, counted from 0, negative ones from
 *                       the end; the last one comes after the final norm.  May be NULL
 * CORVID_E_ARGUMENT: an empty picture, no such layer, logits of a model without a head, a language
 * model.  CORVID_E_MEMORY is said before work begins.  CORVID_E_CANCELLED between passes. */
CORVID_API corvid_status corvid_see(corvid_model *model, const corvid_view *views, size_t n,
                                    const int *wanted, size_t n_wanted, corvid_error *err);

/* Bytes of working memory that showing n pictures of one size takes, beside the weights. */
CORVID_API corvid_status corvid_see_memory(const corvid_model *model, size_t height, size_t width,
                                           size_t n, uint64_t *bytes, corvid_error *err);

/* The name of class i, borrowed; NULL when it has none. */
CORVID_API const char *corvid_class_name(const corvid_model *model, size_t i);

/* ---- Text ------------------------------------------------------------------------------------ */

typedef struct corvid_tokenizer corvid_tokenizer;

/* From a vocabulary file: rwkv_vocab_v20230424.txt, a GPT-NeoX tokenizer.json, or a GGUF that holds
 * one; "bytes" stands for the byte-level vocabulary of 256. */
CORVID_API corvid_status corvid_tokenizer_open(const char *path, corvid_tokenizer **tokenizer,
                                               corvid_error *err);
CORVID_API void corvid_tokenizer_close(corvid_tokenizer *tokenizer);

/* The model's own, borrowed from it.  CORVID_E_FILE when none was found: the text says what to
 * download and where to put it.  CORVID_E_MISMATCH when the one found does not fit the model. */
CORVID_API corvid_status corvid_model_tokenizer(const corvid_model *model,
                                                const corvid_tokenizer **tokenizer,
                                                corvid_error *err);

/* Encodes n bytes of text.
 *   ids    [capacity]  out; NULL to ask for the count alone
 *   count              out: how many there are, also when there was no room for all
 * CORVID_E_ARGUMENT when capacity is too small (nothing useful is in ids then). */
CORVID_API corvid_status corvid_tokenize(const corvid_tokenizer *tokenizer, const char *text,
                                         size_t n, int32_t *ids, size_t capacity, size_t *count,
                                         corvid_error *err);

/* The bytes of one token, borrowed; *n = 0 for ids that have no text. */
CORVID_API const char *corvid_token_bytes(const corvid_tokenizer *tokenizer, int32_t id, size_t *n);
CORVID_API size_t corvid_tokenizer_size(const corvid_tokenizer *tokenizer);
CORVID_API const char *corvid_tokenizer_name(const corvid_tokenizer *tokenizer);

/* How many of the n bytes end on a whole UTF-8 character: what a stream may show now. */
CORVID_API size_t corvid_utf8_complete(const char *bytes, size_t n);

/* ---- Sampling -------------------------------------------------------------------------------- */

typedef struct corvid_logit_bias {
    int32_t token;
    float bias; /* added to the logit; -INFINITY bans the token */
} corvid_logit_bias;

typedef struct corvid_sampler_options {
    size_t struct_size;
    float temperature;             /* 0: greedy; default 1.  Applied after truncation, as the
                                            official sampler does [sample.order] */
    float top_p;                   /* 0.5; keeps the likeliest tokens that reach this mass */
    size_t top_k;                  /* 0: off */
    float min_p;                   /* 0: off; drops what is below min_p times the maximum */
    float typical;                 /* 0: off; locally typical sampling, the mass tau kept */
    float presence, frequency;     /* penalties; 0: off */
    float penalty_decay;           /* 0.996 per token */
    const corvid_logit_bias *bias; /* copied */
    size_t n_bias;
    uint64_t seed;
} corvid_sampler_options;

typedef struct corvid_sampler corvid_sampler;

CORVID_API void corvid_sampler_defaults(corvid_sampler_options *options);

/* A sampler for vocabularies of n_vocab tokens; it allocates everything here.
 *   tokenizer  tells which tokens are part of " \t0123456789": the official frequency penalty does
 *              not raise their count; NULL: every token counts.  Needed during this call only */
CORVID_API corvid_status corvid_sampler_new(size_t n_vocab, const corvid_sampler_options *options,
                                            const corvid_tokenizer *tokenizer,
                                            corvid_sampler **sampler, corvid_error *err);
CORVID_API void corvid_sampler_free(corvid_sampler *sampler);

/* Draws the next token from logits [n_vocab] (unchanged) and counts it for the penalties.
 * Non-finite logits other than -INFINITY give -1. */
CORVID_API int32_t corvid_sample(corvid_sampler *sampler, const float *logits);

/* Forgets the tokens seen and starts the random sequence anew. */
CORVID_API void corvid_sampler_reset(corvid_sampler *sampler, uint64_t seed);

/* ---- Training -------------------------------------------------------------------------------- */

/* What a step of training came to. */
typedef struct corvid_training_report {
    uint64_t step, steps;        /* steps done, and of the whole run */
    uint64_t tokens;             /* read so far, in this run and before it was resumed */
    double loss;                 /* of this step, nats per token or picture */
    double validation;           /* mean over the validation part; NAN when it was not measured */
    double learning_rate, gradient_norm;
    double seconds;              /* since this run began */
    uint64_t memory_bytes;       /* that the model takes to learn */
    int saved;                   /* non-zero: the run can go on from here */
    uint64_t pictures;           /* seen so far, as tokens; of vision models only, which read none */
    double accuracy;             /* share of the validation pictures that were given their class;
                                    NAN when it was not measured */
} corvid_training_report;

/* What is common to all runs of training, in the options below:
 *
 * A step learns from `batch` sequences or pictures.  Cut into `accumulate` parts it takes the memory
 * of one part, and comes to the same but for rounding.
 * The learning rate rises over `warmup` steps and goes from learning_rate to final_learning_rate by
 * `schedule`: "cosine", "linear", "exponential", "mean" (of cosine and exponential), "constant".
 * With `average` above 0 a running mean of the weights keeps that share at each step; it is that mean
 * which is measured on the validation part and saved as the model.  1 / (1 - average) is about the
 * number of steps it spans: 0.999 for runs of some thousand steps.
 * `type` is what matrices are multiplied in: "f32", or "bf16" where the processor is faster with it;
 * weights and moments are f32 either way.
 * With `recompute` layers are computed anew on the way back: slower, and in much less memory.
 * With `keep_best` the model with the lowest validation loss so far stays as best.safetensors.
 * After max_seconds (above 0) the run is measured, saved and ends, with CORVID_OK; it can go on.
 *
 * Same seed, data and settings: the same weights, bit for bit, on any number of threads and however
 * often it was stopped and resumed (tests/cli/train.sh, tests/cli/train_vision.sh).  A run that is
 * killed, or cannot write, leaves the files of its last saving as they were. */

typedef struct corvid_train_language_options {
    size_t struct_size;
    const char *arch;         /* "rwkv4", "rwkv5.2", "rwkv6", "rwkv7", "gpt", "lstm" */
    size_t layers, width;     /* 6 and 256 */
    const char *vocab;        /* vocabulary file; NULL or "bytes": the bytes themselves */
    const char *const *data;  /* [n_data] .txt and .jsonl files, and folders of them; .bin with .idx
                                 (tokens of `vocab`); "-": standard input, which is not read again
                                 where a run goes on */
    size_t n_data;
    const char *out;          /* folder that gets model.safetensors, resume.bin, tokens.bin */
    int resume;               /* non-zero: goes on from resume.bin, where there is one */
    uint64_t seed;            /* 1; everything follows from it */
    uint64_t steps;           /* 1000 */
    size_t batch, context;    /* 8 sequences of 256 tokens a step */
    double learning_rate, final_learning_rate; /* 1e-3 and 1e-5, by a cosine */
    uint64_t warmup;          /* 10 steps */
    double beta1, beta2, eps; /* 0.9, 0.99, 1e-18 as the official trainers */
    double weight_decay;      /* 0.001, of the large matrices only */
    double clip;              /* 1: of the norm of the gradients; 0: none */
    double l2_wrap;           /* 1e-4 [loss.wrap] */
    double validation;        /* 0.1 of the data is kept aside */
    uint64_t evaluate_every;  /* 100 steps; 0: at the end */
    uint64_t evaluate_tokens; /* 65,536 of the validation part each time; 0: all */
    uint64_t save_every;      /* 500 steps, and at the end */
    size_t n_threads;         /* 0: all */
    const char *cpu;          /* NULL: the best */
    const corvid_allocator *allocator;
    void (*report)(void *ctx, const corvid_training_report *report); /* after each step; or NULL */
    corvid_progress_fn progress; /* bytes of text turned into tokens, before the first step */
    corvid_cancel_fn cancel;     /* asked after each step: the run is saved and ends */
    void *callback_ctx;
    size_t accumulate;           /* 1: parts of a step, at most one for each sequence */
    const char *schedule;        /* "cosine" */
    double average;              /* 0: no running mean of the weights */
    const char *type;            /* "f32" */
    int recompute, keep_best;    /* 0 */
    double max_seconds;          /* 0: none */
    int token_shift;             /* 1; 0, of rwkv4, rwkv5.2 and rwkv7: the mixes stay where a token sees
                                    nothing of the one before it, to show what the shift is worth */
} corvid_train_language_options;

CORVID_API void corvid_train_language_defaults(corvid_train_language_options *options);

/* Trains a language model from nothing.
 * CORVID_E_CANCELLED: stopped, and saved.  CORVID_E_WRITE names the file that cannot be written.
 * CORVID_E_INTERNAL with a sentence that names step and tensor: a number was not finite; the last
 * good files are kept. */
CORVID_API corvid_status corvid_train_language(const corvid_train_language_options *options,
                                               corvid_error *err);

/* Pictures lie in a folder or an archive (.tar, .tar.gz, .zip, ...) that holds a folder for each
 * class; these may lie in `train` and in `val` or `test`, else a share of each class is kept aside
 * for validation.  Or they are the files of MNIST, CIFAR-10 or CIFAR-100 in a folder. */
typedef struct corvid_train_vision_options {
    size_t struct_size;
    const char *arch;         /* "vrwkv" or "vrwkv6" */
    size_t layers, width;     /* 12 and 192, as VRWKV-T */
    size_t side, patch;       /* pictures of 224 pixels a side, patches of 16: 14 x 14 tokens */
    int post_norm, key_norm, two_layer_head; /* 1: yes, 0: no, -1: as official models of this size */
    const char *const *data;  /* [n_data] */
    size_t n_data;
    const char *out;          /* folder that gets model.safetensors, resume.bin, classes.txt */
    int resume;               /* non-zero: goes on from resume.bin, where there is one */
    uint64_t seed;            /* 1; everything follows from it */
    uint64_t steps;           /* 1000 */
    double epochs;            /* above 0: as many steps as show all pictures so often, instead */
    size_t batch;             /* 64 pictures a step */
    double learning_rate;     /* 1e-3 */
    double final_learning_rate; /* below 0: a hundredth of that, as official */
    uint64_t warmup;          /* UINT64_MAX: a fifteenth of the steps, as official */
    double beta1, beta2, eps; /* 0.9, 0.999, 1e-8 */
    double weight_decay;      /* 0.05, of all but norms and biases */
    double clip;              /* 5: of the norm of the gradients; 0: none */
    double smoothing;         /* 0.1 of a label is spread over all classes */
    double drop_path;         /* 0: branches of the last layer left out, from 0 in the first */
    const char *augment;      /* "imagenet": parts of any size, mirrored, RandAugment, erased;
                                 "small": cut with a border and mirrored; "none" */
    double flip, mixup, cutmix; /* how often pictures are mirrored and batches mixed, 0 to 1; below
                                 0: as `augment` has it, without mixing */
    double validation;        /* 0.1 of the pictures is kept aside, where the data does not say */
    uint64_t evaluate_every;  /* 100 steps; 0: at the end */
    uint64_t evaluate_pictures; /* 1000 of those kept aside, evenly; 0: all */
    uint64_t save_every;      /* 500 steps, and at the end */
    size_t accumulate;        /* 1 */
    const char *schedule;     /* "cosine" */
    double average;           /* 0: no running mean of the weights */
    const char *type;         /* "f32" */
    int recompute, keep_best; /* 0 */
    double max_seconds;       /* 0: none */
    size_t n_threads;         /* 0: all */
    const char *cpu;          /* NULL: the best */
    const corvid_allocator *allocator;
    void (*report)(void *ctx, const corvid_training_report *report); /* after each step; or NULL */
    corvid_progress_fn progress; /* pictures read, before the first step */
    corvid_cancel_fn cancel;     /* asked after each step: the run is saved and ends */
    void *callback_ctx;
} corvid_train_vision_options;

CORVID_API void corvid_train_vision_defaults(corvid_train_vision_options *options);

/* Trains a vision model from nothing, by the official recipe but for the numbers above.  The names of
 * the classes are in the model.  Errors as corvid_train_language, and CORVID_E_FILE and
 * CORVID_E_FORMAT name the picture that cannot be read. */
CORVID_API corvid_status corvid_train_vision(const corvid_train_vision_options *options,
                                             corvid_error *err);

/* What training a vocabulary came to. */
typedef struct corvid_vocabulary_report {
    size_t size;         /* ids in the file: fewer than wanted where the text repeats too little */
    uint64_t text_bytes; /* it was made from */
    uint64_t held_out_bytes, held_out_tokens; /* of the part kept aside; both 0: none was */
} corvid_vocabulary_report;

typedef struct corvid_train_vocabulary_options {
    size_t struct_size;
    const char *const *data; /* [n_data] .txt and .jsonl files, and folders of them; "-": standard
                                input, which is read to its end as one document */
    size_t n_data;
    size_t size;             /* 8192 ids; 257 (the bytes alone) to 65536 */
    const char *out;         /* the file; replaced where it is a vocabulary of the World form */
    double held_out;         /* 0.1 of the text is not learned from but measured, at most 8 MiB */
    const corvid_allocator *allocator;
    void (*report)(void *ctx, const corvid_vocabulary_report *report); /* at the end; may be NULL */
    corvid_progress_fn reading;   /* bytes of text; total 0 with standard input among the data */
    corvid_progress_fn searching; /* rounds of the search */
    corvid_cancel_fn cancel;      /* nothing is written then */
    void *callback_ctx;
} corvid_train_vocabulary_options;

CORVID_API void corvid_train_vocabulary_defaults(corvid_train_vocabulary_options *options);

/* Makes a vocabulary whose tokens make texts like these short, as a file of the World form: for
 * corvid_tokenizer_open and corvid_train_language.  It encodes any bytes and gives them back (tried
 * on all bytes and the part kept aside before it is written).  Same texts in the same order: the
 * same file, byte for byte (tests/unit/test_vocabulary_run.c).
 * CORVID_E_ARGUMENT: `out` is there and is something else, or there is no text; nothing changed. */
CORVID_API corvid_status corvid_train_vocabulary(const corvid_train_vocabulary_options *options,
                                                 corvid_error *err);

typedef struct corvid_finetune_options {
    size_t struct_size;
    const char *model;        /* a language model of any format and type; it is not changed */
    const char *method;       /* "lora": adapters learn; "full": the model; "state": the state that it
                                 begins in, for RWKV-5, 6 and 7 */
    const char *vocab;        /* as in corvid_model_options; its tokens are those of the model */
    const char *vocab_folder;
    const char *const *data;  /* [n_data] as in corvid_train_language_options */
    size_t n_data;
    const char *out;          /* folder that gets adapter.safetensors, model.safetensors or
                                 state.safetensors, and resume.bin, tokens.bin */
    int resume;               /* non-zero: goes on from resume.bin, where there is one */
    uint64_t seed;            /* 1; everything follows from it */
    uint64_t steps;           /* 200 */
    size_t batch, context;    /* 4 sequences of 256 tokens a step */
    double learning_rate;     /* 0: 1e-4 (lora), 1e-5 (full), 1 (state) */
    double final_learning_rate; /* below 0: of that a tenth (lora), all (full), a hundredth (state) */
    uint64_t warmup;          /* 10 steps */
    double beta1, beta2, eps; /* 0.9, 0.99, 1e-18 */
    double weight_decay;      /* 0; of the large matrices, and of the state of RWKV-5 and 6 */
    double clip;              /* 1 */
    double l2_wrap;           /* 1e-4 [loss.wrap] */
    double validation;        /* 0.1 of the data is kept aside */
    uint64_t evaluate_every;  /* 50 steps; 0: at the end */
    uint64_t evaluate_tokens; /* 65,536 of the validation part each time; 0: all */
    uint64_t save_every;      /* 100 steps, and at the end */
    size_t accumulate;        /* 1 */
    const char *schedule;     /* "cosine" */
    double average;           /* 0 */
    const char *type;         /* "f32" */
    int recompute, keep_best; /* 0 */
    double max_seconds;       /* 0: none */

    /* lora: W + (alpha / rank) B A in place of every matrix W that is named. */
    const char *targets;      /* "att,ffn": parts of names, or whole names with * and ? */
    size_t rank;              /* 16 */
    double alpha;             /* 32 */
    int vectors;              /* 0; non-zero: norms, mixes and decays learn too, in full */
    const char *from;         /* adapter or state to begin with; NULL: a new one */
    double from_alpha;        /* of that adapter; 0: as it says itself */

    size_t n_threads;         /* 0: all */
    const char *cpu;          /* NULL: the best */
    const corvid_allocator *allocator;
    void (*report)(void *ctx, const corvid_training_report *report); /* after each step; or NULL */
    corvid_progress_fn progress; /* bytes of text turned into tokens, before the first step */
    corvid_cancel_fn cancel;     /* asked after each step: the run is saved and ends */
    void *callback_ctx;
} corvid_finetune_options;

CORVID_API void corvid_finetune_defaults(corvid_finetune_options *options);

/* Teaches a language model more.  What is common to all runs of training holds here, too
 * (tests/cli/finetune.sh).  An adapter goes into a model with corvid_merge, a state onto a stream with
 * corvid_state_load.
 * CORVID_E_ARGUMENT: a name in `targets` that is no matrix's, with the nearest ones.
 * CORVID_E_MISMATCH: adapter, state or vocabulary of another model.  Else as corvid_train_language. */
CORVID_API corvid_status corvid_finetune(const corvid_finetune_options *options, corvid_error *err);

/* ---- Files ----------------------------------------------------------------------------------- */

typedef struct corvid_convert_options {
    size_t struct_size;
    const char *type;            /* NULL: keep; f32 bf16 f16 q8 q6 q5 q4, or a GGUF type */
    const char *format;          /* NULL: by the target's extension; "gguf", "safetensors" */
    const char *vocab;           /* vocabulary file to put inside; NULL: none */
    corvid_progress_fn progress; /* bytes read */
    corvid_cancel_fn cancel;
    corvid_log_fn log;
    void *callback_ctx;
    const char *classes; /* file of class names to put inside a vision model; NULL: those that
                            the source has */
} corvid_convert_options;

CORVID_API void corvid_convert_defaults(corvid_convert_options *options);

/* Converts any readable checkpoint, or "random:SHAPE" (corvid_shape_name), to GGUF or safetensors.
 * Tensors whose type does not change keep every bit.  The target appears whole or not at all. */
CORVID_API corvid_status corvid_convert(const char *in, const char *out,
                                        const corvid_convert_options *options, corvid_error *err);

typedef struct corvid_merge_options {
    size_t struct_size;
    double alpha;                /* 0: as the adapter says; official files do not say it */
    const char *initial;         /* file with the first pairs of a PiSSA adapter; NULL: none */
    const char *type, *format;   /* as in corvid_convert_options */
    const char *vocab;
    corvid_progress_fn progress; /* numbers written */
    corvid_cancel_fn cancel;
    corvid_log_fn log;
    void *callback_ctx;
} corvid_merge_options;

CORVID_API void corvid_merge_defaults(corvid_merge_options *options);

/* Writes the model `base` with what an adapter changes: LoRA pairs NAME.lora_A and NAME.lora_B, whole
 * tensors in place of the model's, initial states (time_state); .pth or safetensors, those of official
 * trainers and of corvid_finetune.  Everything else keeps every bit, where neither format nor type
 * changes.  The result computes what the model did that was trained (tests/unit/test_adapter.c).
 * CORVID_E_MISMATCH names a tensor of the adapter that fits nothing in the model, and both shapes.
 * CORVID_E_ARGUMENT: nobody says alpha.  `out` appears whole or not at all. */
CORVID_API corvid_status corvid_merge(const char *base, const char *adapter, const char *out,
                                      const corvid_merge_options *options, corvid_error *err);

/* One tensor of a checkpoint, for listings. */
typedef struct corvid_tensor_info {
    const char *name, *type;
    size_t n_dims, dims[8]; /* outermost first */
    uint64_t bytes;
} corvid_tensor_info;

/* Calls each(ctx, info) for every tensor of a checkpoint, in name order, without loading it. */
CORVID_API corvid_status corvid_checkpoint_list(const char *path,
                                                void (*each)(void *ctx,
                                                             const corvid_tensor_info *info),
                                                void *ctx, corvid_error *err);

#ifdef __cplusplus
}
#endif
#endif
