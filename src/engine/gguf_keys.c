/* gguf_keys.c - the metadata that goes into a converted file. */
#include <stdio.h>
#include <string.h>

#include "engine/conversion.h"
#include "engine/vocabulary.h"

/* ---- Lists ----------------------------------------------------------------------------------- */

corvid_status cv_meta_add(cv_meta_list *list, const cv_meta *meta, corvid_error *err)
{
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 32;
        cv_meta *items = cv_arena_alloc(list->arena, capacity, sizeof *items);
        if (!items) return cv_fail(err, CORVID_E_MEMORY, "out of memory: metadata");
        if (list->n) memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    cv_meta *to = &list->items[list->n];
    *to = *meta;
    to->key = cv_arena_text(list->arena, meta->key, strlen(meta->key));
    if (!to->key) return cv_fail(err, CORVID_E_MEMORY, "out of memory: metadata");
    list->n++;
    return CORVID_OK;
}

corvid_status cv_meta_add_text(cv_meta_list *list, const char *key, const char *text, size_t n,
                               corvid_error *err)
{
    const char *copy = cv_arena_text(list->arena, text, n);
    if (!copy) return cv_fail(err, CORVID_E_MEMORY, "out of memory: metadata");
    return cv_meta_add(list, &(cv_meta){ .key = key, .type = CV_META_TEXT, .text = { copy, n } },
                       err);
}

corvid_status cv_meta_add_int(cv_meta_list *list, const char *key, int64_t value, corvid_error *err)
{
    return cv_meta_add(list, &(cv_meta){ .key = key, .type = CV_META_INT, .integer = value }, err);
}

/* ---- The model ------------------------------------------------------------------------------- */

#define FILE_TYPE "general.file_type"

/* llama.cpp's number for a file that is mostly of one type; that of the source, if it keeps its own. */
static int64_t file_type(const cv_source *source, const cv_convert_settings *s)
{
    const cv_meta *own = source->ckpt ? cv_checkpoint_meta(source->ckpt, FILE_TYPE) : NULL;
    if (s->keep) return own && own->type == CV_META_INT ? own->integer : 0;
    switch (s->type) {
    case CV_F16: return 1;
    case CV_BF16: return 32;
    case CV_Q4_0: return 2;
    case CV_Q4_1: return 3;
    case CV_Q8_0: return 7;
    case CV_Q5_0: return 8;
    case CV_Q5_1: return 9;
    case CV_Q4_K: return 15;
    case CV_Q5_K: return 17;
    case CV_Q6_K: return 18;
    default: return 0;
    }
}

corvid_status cv_gguf_keys(const cv_source *source, const cv_convert_settings *settings,
                           size_t rescale_every, cv_meta_list *list, corvid_error *err)
{
    const cv_sizes *s = &source->sizes;
    const char *arch = source->arch->name;
    const struct {
        const char *suffix;
        size_t value;
        bool present;
    } keys[] = {
        { "context_length", 1048576, true },
        { "embedding_length", s->C, true },
        { "block_count", s->L, true },
        { "feed_forward_length", s->F, true },
        { "vocab_size", s->V, true },
        { "wkv.head_size", s->N, true },
        { "attention.head_count", 0, true },
        { "rescale_every_n_layers", rescale_every, source->arch == &cv_rwkv6 },
        { "time_mix_extra_dim", s->D, source->arch == &cv_rwkv6 },
        { "time_decay_extra_dim", s->E, source->arch == &cv_rwkv6 },
        { "attention.decay_lora_rank", s->w, source->arch == &cv_rwkv7 },
        { "attention.iclr_lora_rank", s->a, source->arch == &cv_rwkv7 },
        { "attention.value_residual_mix_lora_rank", s->v, source->arch == &cv_rwkv7 },
        { "attention.gate_lora_rank", s->g, source->arch == &cv_rwkv7 },
    };
    char key[96];
    CV_TRY(cv_meta_add_text(list, "general.architecture", arch, strlen(arch), err));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!keys[i].present) continue;
        snprintf(key, sizeof key, "%s.%s", arch, keys[i].suffix);
        CV_TRY(cv_meta_add_int(list, key, (int64_t)keys[i].value, err));
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_epsilon", arch);
    CV_TRY(cv_meta_add(list, &(cv_meta){ .key = key, .type = CV_META_FLOAT, .number = 1e-5 }, err));
    CV_TRY(cv_meta_add_int(list, FILE_TYPE, file_type(source, settings), err));
    return cv_meta_add_int(list, "general.quantization_version", 2, err);
}

/* ---- The vocabulary -------------------------------------------------------------------------- */

/* The World models end a turn of a conversation with token 261, two new lines.  Another vocabulary
 * has something else there, at which nobody should stop. */
static corvid_status add_conversation(const cv_tokenizer *tok, cv_meta_list *list,
                                      corvid_error *err)
{
    enum { END_OF_TURN = 261 };
    size_t n = 0;
    const char *piece = cv_tokenizer_piece(tok, END_OF_TURN, &n);
    if (n != 2 || memcmp(piece, "\n\n", 2) != 0) return CORVID_OK;
    CV_TRY(cv_meta_add_int(list, "tokenizer.ggml.eot_token_id", END_OF_TURN, err));
    return cv_meta_add_text(list, "tokenizer.chat_template", "rwkv-world", 10, err);
}

/* llama.cpp wants V different texts; id 0 and the padding are marked as no text. */
static corvid_status add_world_tokens(const cv_tokenizer *tok, size_t V, cv_meta_list *list,
                                      corvid_error *err)
{
    enum { NORMAL = 1, CONTROL = 3, UNUSED = 5 };
    cv_text *texts = cv_arena_alloc(list->arena, V, sizeof *texts);
    int64_t *types = cv_arena_alloc(list->arena, V, sizeof *types);
    if (!texts || !types) return cv_fail(err, CORVID_E_MEMORY, "out of memory: a vocabulary");
    for (size_t i = 0; i < V; i++) {
        size_t n = 0;
        const char *piece = cv_tokenizer_piece(tok, (int32_t)i, &n);
        char *text = cv_arena_alloc(list->arena, n ? 4 * n + 1 : 24, 1);
        if (!text) return cv_fail(err, CORVID_E_MEMORY, "out of memory: a vocabulary");
        size_t length;
        if (n)
            length = cv_piece_escape(piece, n, text);
        else if (i == 0)
            length = (size_t)snprintf(text, 24, "<s>");
        else
            length = (size_t)snprintf(text, 24, "[PAD%zu]", i);
        texts[i] = (cv_text){ text, length };
        types[i] = n ? NORMAL : i == 0 ? CONTROL : UNUSED;
    }
    CV_TRY(cv_meta_add_text(list, "tokenizer.ggml.model", "rwkv", 4, err));
    CV_TRY(cv_meta_add(
        list,
        &(cv_meta){
            .key = "tokenizer.ggml.tokens", .type = CV_META_TEXTS, .count = V, .texts = texts },
        err));
    CV_TRY(cv_meta_add(list,
                       &(cv_meta){ .key = "tokenizer.ggml.token_type",
                                   .type = CV_META_INTS,
                                   .count = V,
                                   .integers = types },
                       err));
    CV_TRY(cv_meta_add_int(list, "tokenizer.ggml.bos_token_id", 0, err));
    CV_TRY(cv_meta_add_int(list, "tokenizer.ggml.eos_token_id", 0, err));
    return add_conversation(tok, list, err);
}

/* The text of a vocabulary file under one key. */
static corvid_status add_file(const corvid_allocator *mem, const char *path, const char *key,
                              cv_meta_list *list, corvid_error *err)
{
    cv_input in;
    char *text = NULL;
    size_t n = 0;
    CV_TRY(cv_input_open(&in, path, err));
    corvid_status status = cv_input_read_all(&in, mem, (size_t)64 << 20, &text, &n, err);
    if (status == CORVID_OK) status = cv_meta_add_text(list, key, text, n, err);
    cv_free(mem, text);
    cv_input_close(&in);
    return status;
}

/* A vocabulary that is kept as text: from --vocab, or as the source has it. */
static corvid_status add_text(const corvid_allocator *mem, const cv_source *source,
                              const char *path, const char *key, cv_meta_list *list,
                              corvid_error *err)
{
    if (path) return add_file(mem, path, key, list, err);
    if (!source->ckpt) return CORVID_OK;
    const cv_meta *meta = cv_checkpoint_meta(source->ckpt, CV_VOCAB_KEY);
    if (!meta) meta = cv_checkpoint_meta(source->ckpt, CV_BPE_KEY);
    if (meta && meta->type == CV_META_TEXT)
        return cv_meta_add_text(list, key, meta->text.bytes, meta->text.n, err);
    return CORVID_OK;
}

corvid_status cv_vocabulary_keys(const corvid_allocator *mem, const cv_source *source,
                                 const cv_convert_settings *settings, cv_meta_list *list,
                                 corvid_error *err)
{
    const size_t V = source->sizes.V;
    const bool gguf = settings->format == CV_GGUF;
    cv_tokenizer *tok = NULL;
    corvid_error why;
    corvid_status status =
        cv_vocabulary_find(mem, V, settings->vocab, source->ckpt, NULL, NULL, &tok, &why);
    if (status != CORVID_OK && settings->vocab) return cv_fail(err, status, "%s", why.text);

    const cv_tokenizer_kind kind = tok ? cv_tokenizer_kind_of(tok) : CV_TOK_BYTES;
    const size_t before = list->n;
    status = CORVID_OK;
    if (tok && kind == CV_TOK_WORLD && gguf)
        status = add_world_tokens(tok, V, list, err);
    else if (tok && kind != CV_TOK_BYTES)
        status = add_text(mem, source, settings->vocab,
                          kind == CV_TOK_BPE && gguf ? CV_BPE_KEY : CV_VOCAB_KEY, list, err);
    if (status == CORVID_OK && gguf && (!tok || kind != CV_TOK_WORLD))
        status = cv_meta_add_text(list, "tokenizer.ggml.model", "none", 4, err);
    if (status == CORVID_OK && tok && kind != CV_TOK_BYTES && list->n == before && settings->log)
        settings->log(settings->ctx, CORVID_LOG_WARNING,
                      "the vocabulary inside the source is not carried over; give its file with "
                      "--vocab");
    cv_tokenizer_free(tok);
    return status;
}
