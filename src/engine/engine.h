/* engine.h - a model that runs: weights, a team of threads, a workspace; and the streams on it.
 * Pictures go through the same engine, see.h.
 *
 * The engine packs the tokens of one or many streams into passes of at most `chunk` rows and walks
 * each pass with the whole team.  Everything is allocated when it is opened; feeding allocates
 * nothing.  Feeding is serialised by a lock, so streams may be fed from any thread. */
#ifndef CV_ENGINE_H
#define CV_ENGINE_H

#include <pthread.h>

#include "models/weights.h"

/* Rows of logits that one pass keeps before they are handed out. */
#define CV_HEAD_ROWS ((size_t)32)
#define CV_CHUNK     ((size_t)128)
#define CV_CHUNK_MAX ((size_t)1024)

typedef struct cv_engine_options {
    size_t n_threads;      /* 0: all */
    size_t chunk;          /* 0: CV_CHUNK */
    const char *cpu;       /* NULL: the best */
    float group_norm_eps;  /* 0: official */
    uint64_t memory_limit; /* 0: what is available */
    const char *bi_wkv, *norm; /* vision: NULL, or by name as in corvid.h */
    corvid_log_fn log;
    corvid_progress_fn progress;
    corvid_cancel_fn cancel;
    void *ctx;
} cv_engine_options;

typedef struct cv_stream cv_stream;
typedef struct cv_feed cv_feed;

typedef struct cv_engine {
    const corvid_allocator *mem;
    cv_engine_options options;
    cv_model model;
    cv_team *team;
    const cv_kernels *kernel;
    size_t chunk;
    size_t workspace_bytes;
    pthread_mutex_t lock;

    /* The workspace, in floats. */
    float *workspace;
    size_t common, own, matmul; /* sizes; own and matmul once per member */
    float *logits;              /* [CV_HEAD_ROWS][V] */

    /* The pass being packed, [chunk] each. */
    int32_t *tokens;
    cv_sequence *sequences;
    size_t *wanted;

    struct cv_eye *eye; /* vision models: see.c */
} cv_engine;

/* A sequence: the state after `position` tokens. */
struct cv_stream {
    cv_engine *engine;
    float *state;
    uint64_t position;
};

/* What is wanted of a feed. */
typedef enum cv_want { CV_WANT_NOTHING, CV_WANT_LAST, CV_WANT_ALL, CV_WANT_SCORES } cv_want;

struct cv_feed {
    cv_stream *stream;
    const int32_t *tokens;
    size_t n;
    cv_want want;
    float *logits;         /* LAST, SCORES: [V] after the last token; ALL: [n][V] */
    double *scores;        /* SCORES [n]: [i + 1] is filled after token i */
    unsigned char *greedy; /* SCORES [n] or NULL */
    size_t done;           /* set by the engine */
};

/* Bytes that an engine over this source takes beside the weights. */
corvid_status cv_engine_measure(const cv_source *source, const cv_engine_options *options,
                                size_t *workspace_bytes, size_t *state_bytes, corvid_error *err);

/* Checks that it fits, loads the weights, starts the team. */
corvid_status cv_engine_open(const corvid_allocator *mem, const cv_source *source,
                             const cv_engine_options *options, cv_engine *out, corvid_error *err);
void cv_engine_close(cv_engine *engine);

corvid_status cv_stream_init(cv_engine *engine, cv_stream *out, corvid_error *err);
void cv_stream_free(cv_stream *stream);
void cv_stream_reset(cv_stream *stream);

/* Feeds all tokens of all feeds.  Tokens are checked before anything changes. */
corvid_status cv_engine_feed(cv_engine *engine, cv_feed *feeds, size_t n, corvid_error *err);

/* ln of the softmax of logits at token; *greedy (may be NULL): is it the first maximum?
 * [score.nll] */
double cv_log_probability(const cv_kernels *kernel, const float *logits, size_t V, int32_t token,
                          unsigned char *greedy);

/* The state in the order of the reference files [state.order]. */
void cv_state_export(const cv_stream *stream, float *out);
void cv_state_import(cv_stream *stream, const float *values);

/* State files (state_file.c). */
corvid_status cv_state_save(const cv_stream *stream, const char *path, corvid_error *err);
corvid_status cv_state_load(cv_stream *stream, const char *path, corvid_error *err);

#endif
