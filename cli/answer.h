/* answer.h - writes text with a model: draws tokens, finds stop strings, keeps the state honest.
 *
 * Bytes are shown only once they end on a whole UTF-8 character and can no longer be the beginning
 * of a stop string.  When the text is cut (by a stop string or Ctrl-C) the state can be brought
 * back to have read exactly the text that counts. */
#ifndef CLI_ANSWER_H
#define CLI_ANSWER_H

#include "corvid.h"
#include "textio.h"

typedef enum answer_end {
    END_LENGTH,    /* as many tokens as asked for */
    END_STOP,      /* a stop string               */
    END_TOKEN,     /* token 0, end of text        */
    END_CANCELLED, /* a signal                    */
    END_FAILED     /* *err says why               */
} answer_end;

typedef struct answer {
    /* What to write with; set these. */
    corvid_stream *stream;
    corvid_stream *mark; /* a second stream of the model when answer_settle is wanted, else NULL */
    corvid_sampler *sampler;
    const corvid_tokenizer *tokenizer; /* NULL: tokens have no text */
    float *logits;                     /* [n_vocab] what may come next, before and after */
    uint64_t limit;                    /* tokens */
    bool ignore_end;                   /* token 0 is a token like others */
    const char *const *stops;
    size_t n_stops;
    bool (*show)(void *ctx, const char *bytes, size_t n); /* false: cannot write; stop */
    bool (*token)(void *ctx, int32_t id);                 /* the same; either may be NULL */
    void *ctx;

    /* What came of it; zero at first. */
    buffer text; /* up to the cut */
    token_list tokens;
    size_t shown;   /* bytes of text shown */
    size_t fed;     /* bytes of text the stream has read */
    size_t mark_at; /* bytes of text the mark has read */
} answer;

answer_end answer_write(answer *a, corvid_error *err);
const char *answer_end_name(answer_end end);

/* Brings the stream to have read exactly the text followed by the bytes of close.  logits as
 * corvid_feed.  Needs a mark. */
corvid_status answer_settle(answer *a, const char *close, float *logits, corvid_error *err);

/* Frees text and tokens. */
void answer_free(answer *a);

#endif
