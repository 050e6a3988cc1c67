/* text.c - tokenizers and samplers. */
#include <string.h>

#include "api/handles.h"
#include "text/utf8.h"

corvid_status corvid_tokenizer_open(const char *path, corvid_tokenizer **tokenizer,
                                    corvid_error *err)
{
    const corvid_allocator *mem = &cv_libc_allocator;
    corvid_tokenizer *t;
    *tokenizer = NULL;
    CV_TRY(cv_alloc_or_fail(mem, 1, sizeof *t, "a tokenizer", (void **)&t, err));
    corvid_status status = cv_vocabulary_open(mem, path, &t->tok, err);
    if (status != CORVID_OK)
        cv_free(mem, t);
    else
        *tokenizer = t;
    return status;
}

void corvid_tokenizer_close(corvid_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    cv_tokenizer_free(tokenizer->tok);
    cv_free(&cv_libc_allocator, tokenizer);
}

corvid_status corvid_model_tokenizer(const corvid_model *model, const corvid_tokenizer **tokenizer,
                                     corvid_error *err)
{
    *tokenizer = NULL;
    if (!model->tokenizer.tok)
        return cv_fail(err, model->no_tokenizer.status, "%s", model->no_tokenizer.text);
    *tokenizer = &model->tokenizer;
    return CORVID_OK;
}

corvid_status corvid_tokenize(const corvid_tokenizer *tokenizer, const char *text, size_t n,
                              int32_t *ids, size_t capacity, size_t *count, corvid_error *err)
{
    int32_t *found = NULL;
    *count = 0;
    CV_TRY(cv_tokenizer_encode(tokenizer->tok, &cv_libc_allocator, text, n, &found, count, err));
    corvid_status status = CORVID_OK;
    if (ids && *count > capacity)
        status = cv_fail(err, CORVID_E_ARGUMENT, "%zu tokens do not fit in %zu", *count, capacity);
    else if (ids && *count)
        memcpy(ids, found, *count * sizeof *ids);
    cv_free(&cv_libc_allocator, found);
    return status;
}

const char *corvid_token_bytes(const corvid_tokenizer *tokenizer, int32_t id, size_t *n)
{
    return cv_tokenizer_piece(tokenizer->tok, id, n);
}

size_t corvid_tokenizer_size(const corvid_tokenizer *tokenizer)
{
    return cv_tokenizer_size(tokenizer->tok);
}

const char *corvid_tokenizer_name(const corvid_tokenizer *tokenizer)
{
    static const char *const names[] = {
        [CV_TOK_BYTES] = "bytes", [CV_TOK_WORLD] = "world", [CV_TOK_BPE] = "20b"
    };
    return names[cv_tokenizer_kind_of(tokenizer->tok)];
}

size_t corvid_utf8_complete(const char *bytes, size_t n)
{
    return cv_utf8_complete(bytes, n);
}

/* ---- Sampling -------------------------------------------------------------------------------- */

void corvid_sampler_defaults(corvid_sampler_options *options)
{
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
    options->temperature = 1.0f;
    options->top_p = 0.5f;
    options->penalty_decay = 0.996f;
}

/* Tokens whose text is part of " \t0123456789": the official count of them stays 0. */
static void mark_uncounted(const corvid_tokenizer *tokenizer, size_t n_vocab, unsigned char *marks)
{
    static const char plain[] = " \t0123456789";
    for (size_t i = 0; i < n_vocab; i++) {
        size_t n;
        const char *bytes = corvid_token_bytes(tokenizer, (int32_t)i, &n);
        marks[i] = n > 0 && n < sizeof plain && memmem(plain, sizeof plain - 1, bytes, n) != NULL;
    }
}

static corvid_status build_sampler(size_t n_vocab, const corvid_sampler_options *o,
                                   const corvid_tokenizer *tokenizer, unsigned char *marks,
                                   float *bias, int32_t *bias_tokens, cv_sampler **out,
                                   corvid_error *err)
{
    for (size_t i = 0; i < o->n_bias; i++) {
        bias_tokens[i] = o->bias[i].token;
        bias[i] = o->bias[i].bias;
    }
    if (tokenizer) mark_uncounted(tokenizer, n_vocab, marks);
    const cv_sampler_settings settings = {
        .temperature = o->temperature,
        .top_p = o->top_p,
        .min_p = o->min_p,
        .typical = o->typical,
        .top_k = o->top_k,
        .presence = o->presence,
        .frequency = o->frequency,
        .penalty_decay = o->penalty_decay,
        .bias_tokens = bias_tokens,
        .bias = bias,
        .n_bias = o->n_bias,
        .uncounted = tokenizer ? marks : NULL,
        .seed = o->seed,
    };
    return cv_sampler_new(&cv_libc_allocator, n_vocab, &settings, out, err);
}

corvid_status corvid_sampler_new(size_t n_vocab, const corvid_sampler_options *options,
                                 const corvid_tokenizer *tokenizer, corvid_sampler **sampler,
                                 corvid_error *err)
{
    const corvid_allocator *mem = &cv_libc_allocator;
    corvid_sampler_options o;
    *sampler = NULL;
    corvid_sampler_defaults(&o);
    if (options) {
        if (options->struct_size == 0 || options->struct_size > sizeof o)
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "sampler options: struct_size is %zu, expected at most %zu; fill them "
                           "with corvid_sampler_defaults",
                           options->struct_size, sizeof o);
        memcpy(&o, options, options->struct_size);
    }
    corvid_sampler *s = cv_alloc(mem, 1, sizeof *s);
    unsigned char *marks = cv_alloc_zero(mem, n_vocab, 1);
    float *bias = cv_alloc(mem, o.n_bias, sizeof *bias);
    int32_t *bias_tokens = cv_alloc(mem, o.n_bias, sizeof *bias_tokens);
    corvid_status status = CORVID_OK;
    if (!s || !marks || !bias || !bias_tokens)
        status = cv_fail(err, CORVID_E_MEMORY, "out of memory: a sampler");
    if (status == CORVID_OK)
        status = build_sampler(n_vocab, &o, tokenizer, marks, bias, bias_tokens, &s->sampler, err);
    if (status == CORVID_OK)
        *sampler = s;
    else
        cv_free(mem, s);
    cv_free(mem, marks);
    cv_free(mem, bias);
    cv_free(mem, bias_tokens);
    return status;
}

void corvid_sampler_free(corvid_sampler *sampler)
{
    if (!sampler) return;
    cv_sampler_free(sampler->sampler);
    cv_free(&cv_libc_allocator, sampler);
}

int32_t corvid_sample(corvid_sampler *sampler, const float *logits)
{
    return cv_sampler_draw(sampler->sampler, logits);
}

void corvid_sampler_reset(corvid_sampler *sampler, uint64_t seed)
{
    cv_sampler_reset(sampler->sampler, seed);
}
