/* model.h - what an architecture is: sizes, named weights, a state, and the text of one layer.
 *
 * Each architecture is one file with one cv_arch; registry.c lists them.  The stack around the
 * layers (embedding, norms, head) is the same for all language models and lives in language.c; that
 * of the vision models lives in vision.c. */
#ifndef CV_MODEL_H
#define CV_MODEL_H

#include "formats/checkpoint.h"
#include "ops/loss.h"
#include "ops/rowwise.h"

/* Sizes, named by the letters of the papers.  Those an architecture does not have are 0. */
typedef struct cv_sizes {
    size_t V, C, L;    /* vocabulary, embedding width, layers */
    size_t A, F;       /* widths of the time mix and of the channel mix */
    size_t H, N;       /* heads of N channels, A = H N */
    size_t D, M, E;    /* v6: rank of the shift, M = 5 D; rank of the decay; aft: of biases */
    size_t w, a, v, g; /* v7: ranks of decay, learning rate, value, gate; aft-local: w of window */
    size_t p, G, K, J; /* vision: side of a patch, positions, classes, inner width of the head;
                          gpt, aft: G places of tokens */
} cv_sizes;

/* ---- Weights by name ------------------------------------------------------------------------- */

typedef enum cv_kind {
    CV_VECTOR,   /* const float *: any shape with the right count */
    CV_MATRIX,   /* cv_matrix: [out, in] in every file */
    CV_LOW_RANK, /* cv_matrix: official files hold [in, out] */
    CV_FILTER,   /* cv_matrix [C][3 p p]: a convolution whose stride is its size */
    CV_TABLE     /* cv_table: rows kept as they are stored */
} cv_kind;

/* What the loader makes of the official values of a vector. */
typedef enum cv_transform {
    CV_AS_IS,
    CV_ONE_MINUS,   /* 1 - x: the old mix multiplies z, ours prev [shift.mix] */
    CV_NEG_EXP,     /* -exp(x)        [v4.wkv] */
    CV_EXP_NEG_EXP, /* exp(-exp(x))   [v5.decay] */
    CV_EXP          /* exp(x)         [v5.bonus] */
} cv_transform;

/* A tensor's name in one family of files; slice: the i-th part along its first dimension, or
 * CV_WHOLE. */
typedef struct cv_spelling {
    const char *name;
    int slice;
} cv_spelling;

#define CV_WHOLE (-1)
#define CV_NOWHERE     \
    {                  \
        NULL, CV_WHOLE \
    } /* gguf: no such name; ggml: as official */

enum {
    CV_OPTIONAL = 1,  /* may be missing */
    CV_NOT_FIRST = 2, /* layer 0 has none, or one that is not used */
    CV_OR_NEXT = 4,   /* if missing, the next field has it; else skip that */
    CV_BAKED = 8,     /* rwkv.cpp files hold the transformed value */
    CV_PER_HEAD = 16, /* one number per head, spread over its N channels */
    CV_FLAT = 64,     /* GGUF files hold it as one dimension */
    CV_RESCALED = 32, /* rwkv6 GGUF: divided by 2^(layer / period)
                                           [dialect.rescale] */
    CV_IF_SCALED = 128,   /* optional; random models with layer scale have it */
    CV_IF_KEY_NORM = 256, /* the same for norms of the key */
    CV_IF_MLP = 512,      /* the same for a head of two layers */
    CV_IF_FC = 1024,      /* the same for a head of one */
    CV_MADE = 2048        /* optional in files, but random models have it */
};

/* One weight: where it stands in files, its shape in letters of cv_sizes (outermost first; ones in
 * front are what official files have), and where it goes (offset of a float pointer, cv_matrix or
 * cv_table in the layer's or model's struct).  Within layers the names lack their "blocks.N." or
 * "blk.N.". */
typedef struct cv_field {
    cv_spelling official, gguf, ggml; /* ggml.name NULL: as official */
    cv_kind kind;
    const char *shape;
    size_t offset;
    cv_transform transform;
    unsigned flags;
} cv_field;

/* The weights around the layers of a kind of models, whose names are whole; and what stands before
 * the names of those within layers in official files. */
typedef struct cv_stack {
    const cv_field *fields;
    size_t n_fields;
    const char *layers; /* "blocks." */
    bool vision;
} cv_stack;

extern const cv_stack cv_language_stack, cv_vision_stack;

/* Side of the square table of G positions, rounded up. */
static inline size_t cv_side_of(size_t G)
{
    size_t side = 1;
    while (side < 65536 && side * side < G)
        side++;
    return side;
}

/* Rows of a table, fetched one by one (the embedding). */
typedef struct cv_table {
    cv_dtype dtype;
    size_t rows, cols, row_bytes;
    const unsigned char *bytes;
} cv_table;

/* ---- Architectures --------------------------------------------------------------------------- */

typedef struct cv_model cv_model;

typedef struct cv_arch {
    const char *name; /* "rwkv7" */
    const cv_stack *stack;
    bool (*detect)(const cv_checkpoint *ckpt);
    const cv_field *fields;       /* of one layer */
    size_t n_fields, layer_bytes; /* sizeof its layer struct */

    /* Language models: state of one layer in floats: the shift vectors of time mix and channel mix [C] each, then
     * the memory, which is what export and import see: to and from the order of the reference files
     * [state.order]. */
    size_t (*state_size)(const cv_sizes *sizes);
    void (*state_start)(const cv_model *model, size_t layer, float *state);
    void (*state_export)(const cv_sizes *sizes, const float *memory, float *out);
    void (*state_import)(const cv_sizes *sizes, const float *in, float *memory);
    bool no_shift; /* the state has no shift vectors: all of it is memory */

    /* Tokens that a sequence can have; NULL: there is no end.  The state of a layer then begins with
     * their count. */
    size_t (*longest)(const cv_sizes *sizes);

    /* Takes the buffers of a step, or with a tape of a layer; the struct has buffers_bytes <=
     * CV_BUFFERS_MAX, and is zero before the first call. */
    size_t buffers_bytes;
    void (*take)(cv_run *run, const cv_model *model, void *buffers);

    /* x [T][C] in and out: one layer, time mix and channel mix, for all rows.  Ends with a meeting;
     * those of vision models end with each member's own rows complete. */
    void (*layer)(const cv_run *run, const cv_model *model, size_t layer, float *x, void *buffers);

    /* Floats of a member's scratch that walking back over T rows takes beside products. */
    size_t (*back_scratch)(const cv_sizes *sizes, size_t T);
} cv_arch;

#define CV_BUFFERS_MAX 512

/* What a vision model is, beyond what its sizes say [vrwkv.layer] [q.shift]. */
typedef struct cv_vision_traits {
    bool post_norm;    /* norms stand behind the branches */
    bool mlp, keyed;   /* which optional weights it has */
    size_t distance;   /* of the shift, in tokens */
    double share;      /* of the channels that look one way */
    unsigned bi_mode;  /* cv_bi_mode */
} cv_vision_traits;

/* The stack of a vision model: what language models have no like of. */
typedef struct cv_vision {
    cv_vision_traits traits;
    cv_matrix patch;                  /* [C][3 p p] */
    const float *patch_bias, *pos;    /* [C], [G][C] */
    const float *class_token;         /* [C] or NULL */
    cv_matrix hidden;                 /* [J][C] of an MLP head; rows 0: none */
    const float *hidden_bias, *bias;  /* [J], [K] */
} cv_vision;

/* A loaded model: immutable. */
struct cv_model {
    const cv_arch *arch;
    cv_sizes sizes;
    float group_norm_eps;
    cv_table emb;
    cv_table pos;        /* [G][C], added to the embedding; rows 0: a model without */
    cv_norm ln0, ln_out; /* w NULL: a model without that norm */
    cv_matrix head;      /* rows 0: a vision model without a head */
    cv_vision vision;
    unsigned char *layers; /* [L] of arch->layer_bytes */
    const corvid_allocator *mem;
    unsigned char *weights; /* one block that holds every number above */
    size_t weight_bytes;
    uint64_t n_parameters, fingerprint;
    cv_dtype main_type; /* of the largest share of the weights */
    cv_format format;
};

extern const cv_arch cv_rwkv4, cv_rwkv5_0, cv_rwkv5_1, cv_rwkv5_2, cv_rwkv6, cv_rwkv7, cv_vrwkv,
    cv_vrwkv6, cv_gpt, cv_aft_simple, cv_aft_full, cv_aft_local, cv_lstm;

/* The architecture of a checkpoint, told by its tensors; CORVID_E_FORMAT says what it is instead
 * (an adapter, a state, an experimental variant, a vision model). */
corvid_status cv_registry_detect(const cv_checkpoint *ckpt, const cv_arch **out, corvid_error *err);
const cv_arch *cv_registry_at(size_t i); /* NULL past the end */

/* Is each channel a head of its own? */
bool cv_has_no_heads(const cv_arch *arch);

/* Does some tensor's name end with suffix?  For detect(). */
bool cv_has_suffix(const cv_checkpoint *ckpt, const char *suffix);

static inline const void *cv_model_layer(const cv_model *model, size_t layer)
{
    return model->layers + layer * model->arch->layer_bytes;
}

/* Is the field one of the stack of its architecture? */
static inline bool cv_of_stack(const cv_arch *arch, const cv_field *field)
{
    return field >= arch->stack->fields && field < arch->stack->fields + arch->stack->n_fields;
}

/* ---- The stack (language.c) ------------------------------------------------------------------ */

/* Floats of a stream's state. */
size_t cv_state_size(const cv_model *model);
void cv_state_start(const cv_model *model, float *state);

/* What a step computes. */
typedef struct cv_step {
    const int32_t *tokens; /* [T], checked */
    size_t T;
    const cv_sequence *sequences;
    size_t n_sequences;
    const size_t *wanted; /* rows whose logits are wanted, ascending */
    size_t n_wanted;
    float *logits; /* [n_wanted][V] */
} cv_step;

/* One member's walk of a step.  run has kernel, me, buffers (reset) and matmul scratch. */
void cv_language_step(cv_run *run, const cv_model *model, const cv_step *step);

/* A step that is learnt from.  run has a tape; gradients of weights are added to.
 * The sequences begin at their start (cv_sequence). */
typedef struct cv_lesson {
    cv_step step; /* wanted and logits are not used */
    cv_loss loss; /* head is filled in here */
    bool gradients;
    float *rows; /* [T] out: the loss of each row */
} cv_lesson;

void cv_language_learn(cv_run *run, const cv_model *model, const cv_lesson *lesson);

/* What a lesson of T rows takes, in floats: values, their gradients, what is kept of the inputs of
 * layers, scratch of each member; and bytes of records.  again: layers are computed again on the way
 * back. */
typedef struct cv_lesson_memory {
    size_t values, gradients, kept, own, matmul, records;
} cv_lesson_memory;

void cv_language_lesson_memory(const cv_model *model, size_t T, bool again, const cv_member *me,
                               cv_lesson_memory *out);

/* ---- Layers that are learnt from (lesson.c) --------------------------------------------------- */

/* Where the tape and the buffers stood behind the first layer. */
typedef struct cv_layers_mark {
    size_t used, last, floats;
} cv_layers_mark;

/* x through all layers; the buffers of the first were taken. */
void cv_learn_layers(cv_run *run, const cv_model *model, float *x, void *buffers,
                     cv_layers_mark *mark);

/* And back, from the end of the tape to its beginning. */
void cv_learn_back(cv_run *run, const cv_model *model, float *x, void *buffers,
                   const cv_layers_mark *mark);

/* Takes what the other layers take, to measure it; and, when all is taken, what walking back over T
 * rows needs. */
void cv_learn_take(cv_run *run, const cv_model *model, bool again, void *buffers);
void cv_learn_measure_back(const cv_run *run, const cv_model *model, bool again,
                           cv_lesson_memory *out);

/* Floats of common and own buffers that steps of up to `rows` rows take, and of matmul scratch. */
void cv_language_buffers(const cv_model *model, size_t rows, const cv_member *me, size_t *common,
                         size_t *own, size_t *matmul);

#endif
