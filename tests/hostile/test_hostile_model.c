/* test_hostile_model.c - well-formed files that are no models this library runs, each refused.
 *
 * A good model is drafted, spoilt in one way, and opened through the public API: the status is
 * right, the text names the file and what was expected, it takes less than 100 ms, and nothing
 * leaks, also when an allocation fails on the way.
 * `test_hostile_model --write FOLDER` writes FOLDER/model and FOLDER/state for the fuzzers. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "corvid.h"
#include "model_draft.h"
#include "pth_fixture.h"
#include "support.h"

#include "engine/vocabulary.h"

#define SLOWEST_MS 100.0

/* ---- opening under watch -------------------------------------------------------------------- */

typedef struct verdict {
    corvid_status status, tokenizer;
    corvid_error err;
    double ms;
    size_t calls;
} verdict;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* Opens with the given allocation failing (0: none); everything must be given back. */
static verdict open_watched(const char *path, const char *vocab, uint64_t limit, size_t fail_at)
{
    verdict v = { 0 };
    test_allocator a;
    corvid_model_options options;
    corvid_model *model;
    const corvid_tokenizer *tokenizer;
    test_allocator_init(&a);
    a.fail_at = fail_at;
    corvid_model_defaults(&options);
    options.n_threads = 1;
    options.chunk = 4;
    options.vocab = vocab;
    options.memory_limit = limit;
    options.allocator = &a.api;
    const double start = now_ms();
    v.status = corvid_model_open(path, &options, &model, &v.err);
    v.ms = now_ms() - start;
    v.calls = a.calls;
    if (v.status == CORVID_OK) {
        assert_non_null(model);
        v.tokenizer = corvid_model_tokenizer(model, &tokenizer, &v.err);
        corvid_model_close(model);
    } else {
        assert_null(model);
        assert_int_equal(v.err.status, v.status);
    }
    assert_int_equal(a.live, 0);
    return v;
}

/* Any one allocation may fail: no crash, no leak, and a status that says so. */
static void check_each_allocation(const char *name, const char *path, const verdict *usual)
{
    enum { MOST = 60 };
    for (size_t i = 1; i <= usual->calls && i <= MOST; i++) {
        verdict v = open_watched(path, NULL, 0, i);
        if (v.status != CORVID_E_MEMORY)
            fail_msg("%s: allocation %zu failed, yet status %d: %s", name, i, (int)v.status,
                     v.err.text);
    }
}

/* The text begins with the file's path and holds both needles. */
static void check_verdict(const char *name, const char *path, const verdict *v,
                          corvid_status status, const char *what, const char *expected)
{
    if (v->status != status)
        fail_msg("%s: status %d, expected %d: %s", name, (int)v->status, (int)status,
                 v->status ? v->err.text : "");
    if (path && !strstr(v->err.text, path))
        fail_msg("%s: the text does not name the file: %s", name, v->err.text);
    if (!strstr(v->err.text, what) || !strstr(v->err.text, expected))
        fail_msg("%s: the text lacks \"%s\" or \"%s\": %s", name, what, expected, v->err.text);
    if (v->ms >= SLOWEST_MS) fail_msg("%s: took %.0f ms", name, v->ms);
}

/* ---- files that are refused ----------------------------------------------------------------- */

static void good7(draft *d)
{
    draft_model(d, &cv_rwkv7, CV_OFFICIAL, SMALL);
}

static void two_layers(draft *d)
{
    cv_sizes sizes = SMALL;
    sizes.L = 2;
    draft_model(d, &cv_rwkv7, CV_OFFICIAL, sizes);
}

static void without_key(draft *d)
{
    two_layers(d);
    drop(d, "blocks.1.att.key.weight");
}

static void without_head(draft *d)
{
    good7(d);
    drop(d, "head.weight");
}

static void without_ln0(draft *d)
{
    good7(d);
    drop(d, "blocks.0.ln0.bias");
}

static void without_emb(draft *d)
{
    draft_model(d, &cv_rwkv4, CV_OFFICIAL, SMALL);
    drop(d, "emb.weight");
}

static void narrow_key(draft *d)
{
    two_layers(d);
    reshape(d, "blocks.1.att.key.weight", 2, (size_t[]){ 16, 8 });
}

static void flat_matrix(draft *d)
{
    good7(d);
    reshape(d, "blocks.0.ffn.value.weight", 1, (size_t[]){ 512 });
}

static void scalar_matrix(draft *d)
{
    good7(d);
    reshape(d, "blocks.0.att.output.weight", 0, NULL);
}

static void short_vector(draft *d)
{
    good7(d);
    reshape(d, "blocks.0.att.x_g", 3, (size_t[]){ 1, 1, 15 });
}

static void turned_low_rank(draft *d)
{
    good7(d);
    reshape(d, "blocks.0.att.w2", 2, (size_t[]){ 16, 4 });
}

static void other_vocabulary_in_head(draft *d)
{
    good7(d);
    reshape(d, "head.weight", 2, (size_t[]){ 17, 16 });
}

static void integer_matrix(draft *d)
{
    good7(d);
    must_find(d, "blocks.0.att.value.weight")->dtype = CV_I32;
}

static void boolean_vector(draft *d)
{
    good7(d);
    must_find(d, "blocks.0.att.k_k")->dtype = CV_BOOL;
}

static void integer_emb(draft *d)
{
    draft_model(d, &cv_rwkv6, CV_OFFICIAL, SMALL);
    must_find(d, "emb.weight")->dtype = CV_U8;
}

static void lora(draft *d)
{
    memset(d, 0, sizeof *d);
    d->format = CV_SAFETENSORS;
    add_matrix(d, "blocks.0.att.key.lora_A", 4, 16);
    add_matrix(d, "blocks.0.att.key.lora_B", 16, 4);
    add_matrix(d, "blocks.0.ffn.value.lora_A", 4, 32);
}

static void tuned_state(draft *d)
{
    memset(d, 0, sizeof *d);
    d->format = CV_SAFETENSORS;
    for (int l = 0; l < 3; l++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "blocks.%d.att.time_state", l);
        add(d, name, CV_F32, 3, (size_t[]){ 2, 8, 8 });
    }
}

static void odd_time_state(draft *d)
{
    good7(d);
    add(d, "blocks.0.att.time_state", CV_F32, 3, (size_t[]){ 2, 8, 9 });
}

/* Relatives: a good model, and the tensor that gives the variant away. */
static void relative(draft *d, const cv_arch *arch, const char *name)
{
    draft_model(d, arch, CV_OFFICIAL, SMALL);
    add_matrix(d, name, 4, 4);
}

static void v7a(draft *d)
{
    relative(d, &cv_rwkv7, "blocks.0.ffn.s_emb.weight");
}

static void v7b(draft *d)
{
    relative(d, &cv_rwkv7, "blocks.0.qkv.qq.weight");
}

static void v8(draft *d)
{
    relative(d, &cv_rwkv7, "blocks.0.ffn.enn.weight");
}

static void rosa(draft *d)
{
    memset(d, 0, sizeof *d);
    d->format = CV_SAFETENSORS;
    add_matrix(d, "e.weight", 12, 16);
    add_matrix(d, "rosa1.o.weight", 16, 16);
    add_matrix(d, "rwkv1.k.weight", 16, 16);
}

static void v6a(draft *d)
{
    relative(d, &cv_rwkv6, "blocks.0.att.gate_w1");
}

static void v6c(draft *d)
{
    relative(d, &cv_rwkv6, "blocks.0.att.time_maa_rkvw_w1");
}

static void v4a(draft *d)
{
    relative(d, &cv_rwkv4, "blocks.0.tiny_q.weight");
}

static void v4b(draft *d)
{
    relative(d, &cv_rwkv4, "blocks.0.att.qq.weight");
}

static void head_qk(draft *d)
{
    relative(d, &cv_rwkv4, "head_q.weight");
}

static void pre_ffn(draft *d)
{
    relative(d, &cv_rwkv4, "blocks.0.ffnPre.key.weight");
}

static void vision(draft *d)
{
    memset(d, 0, sizeof *d);
    d->format = CV_SAFETENSORS;
    add(d, "backbone.patch_embed.projection.weight", CV_F32, 4, (size_t[]){ 16, 3, 4, 4 });
    add_matrix(d, "backbone.layers.0.att.key.weight", 16, 16);
    add(d, "backbone.layers.0.att.spatial_decay", CV_F32, 1, (size_t[]){ 16 });
}

static void transformer(draft *d)
{
    memset(d, 0, sizeof *d);
    d->format = CV_SAFETENSORS;
    add_matrix(d, "model.embed_tokens.weight", 16, 16);
    add_matrix(d, "model.layers.0.self_attn.q_proj.weight", 16, 16);
}

static void no_tensors(draft *d)
{
    memset(d, 0, sizeof *d);
    d->format = CV_SAFETENSORS;
}

static void llama(draft *d)
{
    memset(d, 0, sizeof *d);
    d->format = CV_GGUF;
    add_text(d, "general.architecture", "llama");
    add_matrix(d, "token_embd.weight", 16, 16);
    add_matrix(d, "blk.0.attn_q.weight", 16, 16);
}

static void no_layers(draft *d)
{
    good7(d);
    rename_all(d, "blocks.0.", "block0.");
    add(d, "blocks.0.ln0.weight", CV_F32, 1, (size_t[]){ 16 });
    add(d, "blocks.0.ln0.bias", CV_F32, 1, (size_t[]){ 16 });
    rename_all(d, "blocks.", "");
}

static void a_hole(draft *d)
{
    two_layers(d);
    rename_all(d, "blocks.1.", "blocks.2.");
}

static void begins_with_one(draft *d)
{
    good7(d);
    rename_all(d, "blocks.0.", "blocks.1.");
    rename_all(d, "blocks.1.ln0", "blocks.0.ln0");
}

static void huge_layer(draft *d)
{
    good7(d);
    rename_all(d, "blocks.0.", "blocks.99999999999.");
}

static void overflowing_layer(draft *d)
{
    good7(d);
    rename_all(d, "blocks.0.", "blocks.18446744073709551616.");
}

static void negative_layer(draft *d)
{
    good7(d);
    rename_all(d, "blocks.0.", "blocks.-1.");
}

static void odd_heads(draft *d)
{
    good7(d);
    reshape(d, "blocks.0.att.r_k", 2, (size_t[]){ 3, 5 });
}

static void odd_heads_of_5(draft *d)
{
    draft_model(d, &cv_rwkv5_1, CV_OFFICIAL, SMALL);
    reshape(d, "blocks.0.att.time_decay", 1, (size_t[]){ 3 });
}

static void low_ranks_differ(draft *d)
{
    two_layers(d);
    reshape(d, "blocks.1.att.w1", 2, (size_t[]){ 16, 5 });
    reshape(d, "blocks.1.att.w2", 2, (size_t[]){ 5, 16 });
}

static void odd_rank_of_6(draft *d)
{
    draft_model(d, &cv_rwkv6, CV_OFFICIAL, SMALL);
    reshape(d, "blocks.0.att.time_maa_w1", 2, (size_t[]){ 16, 12 });
}

/* Official names in a GGUF: only there can a low-rank matrix be quantized and transposed. */
static void quantized_low_rank(draft *d)
{
    cv_sizes sizes = SMALL;
    sizes.C = sizes.A = sizes.w = 32;
    sizes.H = 4;
    draft_model(d, &cv_rwkv7, CV_OFFICIAL, sizes);
    d->format = CV_GGUF;
    for (size_t i = 0; i < d->n; i++) /* GGUF has no leading ones */
        if (d->tensors[i].n_dims == 3) reshape(d, d->names[i], 1, (size_t[]){ 32 });
    must_find(d, "blocks.0.att.w1")->dtype = CV_Q8_0;
}

/* A good model but for one size, which is zero wherever it occurs. */
static void without(draft *d, const cv_arch *arch, char letter)
{
    cv_sizes sizes = SMALL;
    switch (letter) {
    case 'V': sizes.V = 0; break;
    case 'C': sizes.C = 0; break;
    case 'A': sizes.A = sizes.H = 0; break;
    case 'F': sizes.F = 0; break;
    case 'N': sizes.N = 0; break;
    case 'E': sizes.E = 0; break;
    case 'D': sizes.D = sizes.M = 0; break;
    default: sizes.w = 0; break;
    }
    draft_model(d, arch, CV_OFFICIAL, sizes);
}

static void zero_vocabulary(draft *d)
{
    without(d, &cv_rwkv7, 'V');
}

static void zero_width(draft *d)
{
    without(d, &cv_rwkv7, 'C');
}

static void zero_attention(draft *d)
{
    without(d, &cv_rwkv7, 'A');
}

static void zero_hidden(draft *d)
{
    without(d, &cv_rwkv7, 'F');
}

static void zero_hidden_of_4(draft *d)
{
    without(d, &cv_rwkv4, 'F');
}

static void zero_head_size(draft *d)
{
    without(d, &cv_rwkv5_2, 'N');
}

static void zero_rank(draft *d)
{
    without(d, &cv_rwkv7, 'w');
}

static void zero_rank_of_6(draft *d)
{
    without(d, &cv_rwkv6, 'E');
}

static void zero_shift_rank_of_6(draft *d)
{
    without(d, &cv_rwkv6, 'D');
}

static void zero_key(draft *d)
{
    good7(d);
    reshape(d, "blocks.0.att.key.weight", 2, (size_t[]){ 0, 1u << 30 });
}

/* what: the tensor or the word that says what it is; expected: what the text says of it.  seed: it
 * goes into the corpus of the fuzzer. */
typedef struct refused {
    const char *name;
    void (*make)(draft *d);
    const char *what, *expected;
    bool seed;
} refused;

static const refused REFUSED[] = {
    { "missing_key", without_key, "blocks.1.att.key.weight", "is missing", false },
    { "missing_head", without_head, "head.weight", "is missing", false },
    { "missing_ln0", without_ln0, "blocks.0.ln0.bias", "is missing", false },
    { "missing_emb", without_emb, "emb.weight", "is missing", false },
    { "narrow_key", narrow_key, "blocks.1.att.key.weight has shape [16, 8]",
      "expected [16 (A), 16 (C)]", false },
    { "flat_matrix", flat_matrix, "blocks.0.ffn.value.weight has shape [512]", "expected [16 (C)",
      true },
    { "scalar_matrix", scalar_matrix, "blocks.0.att.output.weight has shape []", "expected [16",
      true },
    { "short_vector", short_vector, "blocks.0.att.x_g has shape [1, 1, 15]", "expected [16 (C)]",
      false },
    { "turned_low_rank", turned_low_rank, "blocks.0.att.w2 has shape [16, 4]", "transposed",
      false },
    { "other_vocabulary_in_head", other_vocabulary_in_head, "head.weight has shape [17, 16]",
      "expected [16 (V), 16 (C)]", false },
    { "integer_matrix", integer_matrix, "blocks.0.att.value.weight has type i32",
      "expected floating-point", false },
    { "boolean_vector", boolean_vector, "blocks.0.att.k_k has type bool", "expected floating-point",
      false },
    { "integer_emb", integer_emb, "emb.weight has type u8", "expected floating-point", false },
    { "lora", lora, "LoRA", "give the checkpoint", true },
    { "tuned_state", tuned_state, "a tuned state, not a model", "load it on top", true },
    { "odd_time_state", odd_time_state, "blocks.0.att.time_state has shape [2, 8, 9]",
      "expected [2 (H), 8 (N), 8 (N)]", false },
    { "v7a", v7a, "RWKV-7a", "this version runs", false },
    { "v7b", v7b, "RWKV-7b", "this version runs", false },
    { "v8", v8, "RWKV-8", "this version runs", false },
    { "rosa", rosa, "ROSA", "this version runs", false },
    { "v6a", v6a, "RWKV-6a", "this version runs", false },
    { "v6c", v6c, "RWKV-6c", "this version runs", false },
    { "v4a", v4a, "RWKV-4a", "not supported", false },
    { "v4b", v4b, "RWKV-4b", "not supported", false },
    { "head_qk", head_qk, "headQK", "not supported", false },
    { "pre_ffn", pre_ffn, "pre_ffn", "not supported", false },
    { "vision", vision, "no RWKV or Vision-RWKV model", "backbone.", true },
    { "transformer", transformer, "no RWKV or Vision-RWKV model", "model.embed_tokens", false },
    { "no_tensors", no_tensors, "no RWKV or Vision-RWKV model", "0 tensors", true },
    { "llama", llama, "architecture llama is not supported", "expected rwkv6 or rwkv7", true },
    { "no_layers", no_layers, "has no layers", "blocks.0.*", false },
    { "a_hole", a_hole, "blocks.1.", "is missing", false },
    { "begins_with_one", begins_with_one, "blocks.0.", "is missing", false },
    { "huge_layer", huge_layer, "has no layers", "blocks.0.*", false },
    { "overflowing_layer", overflowing_layer, "has no layers", "blocks.0.*", false },
    { "negative_layer", negative_layer, "has no layers", "blocks.0.*", false },
    { "odd_heads", odd_heads, "3 heads of 5 channels", "the attention width 16", true },
    { "odd_heads_of_5", odd_heads_of_5, "3 heads of 5 channels", "the attention width 16", false },
    { "low_ranks_differ", low_ranks_differ, "blocks.1.att.w1 has shape [16, 5]", "expected [4 (w)",
      false },
    { "odd_rank_of_6", odd_rank_of_6, "time_maa_w1", "expected", false },
    { "quantized_low_rank", quantized_low_rank, "blocks.0.att.w1",
      "quantized and stored transposed", false },
};

/* A size of zero: nothing to compute with, whatever shapes agree. */
static const refused ZERO[] = {
    { "zero_vocabulary", zero_vocabulary, "tensor ", "", true },
    { "zero_width", zero_width, "tensor ", "", false },
    { "zero_attention", zero_attention, "tensor ", "", false },
    { "zero_hidden", zero_hidden, "tensor ", "", true },
    { "zero_hidden_of_4", zero_hidden_of_4, "tensor ", "", false },
    { "zero_head_size", zero_head_size, "tensor ", "", false },
    { "zero_rank", zero_rank, "tensor ", "", true },
    { "zero_rank_of_6", zero_rank_of_6, "tensor ", "", false },
    { "zero_shift_rank_of_6", zero_shift_rank_of_6, "tensor ", "", false },
    { "zero_key", zero_key, "tensor blocks.0.att.key.weight", "", false },
};

static draft the;

static void check_refused(const refused *r)
{
    const char *path = test_scratch(r->name);
    corvid_memory memory;
    corvid_error err;
    r->make(&the);
    save(&the, path);
    verdict v = open_watched(path, NULL, 0, 0);
    check_verdict(r->name, path, &v, CORVID_E_FORMAT, r->what, r->expected);
    check_each_allocation(r->name, path, &v);
    assert_int_equal(corvid_memory_estimate(path, NULL, &memory, &err), CORVID_E_FORMAT);
    unlink(path);
}

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(REFUSED); i++)
        check_refused(&REFUSED[i]);
}

static void test_zero_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ZERO); i++)
        check_refused(&ZERO[i]);
}

/* ---- files that are allowed: the rules are not too strict ----------------------------------- */

static void good4(draft *d)
{
    draft_model(d, &cv_rwkv4, CV_OFFICIAL, SMALL);
}

static void good5_0(draft *d)
{
    draft_model(d, &cv_rwkv5_0, CV_OFFICIAL, SMALL);
}

static void good5_1(draft *d)
{
    draft_model(d, &cv_rwkv5_1, CV_OFFICIAL, SMALL);
}

static void good5_2(draft *d)
{
    draft_model(d, &cv_rwkv5_2, CV_OFFICIAL, SMALL);
}

static void good6(draft *d)
{
    draft_model(d, &cv_rwkv6, CV_OFFICIAL, SMALL);
}

static void good7_gguf(draft *d)
{
    draft_model(d, &cv_rwkv7, CV_LLAMACPP, SMALL);
}

static void good6_gguf(draft *d)
{
    draft_model(d, &cv_rwkv6, CV_LLAMACPP, SMALL);
}

/* Every plain type there is, in turn. */
static void mixed_types(draft *d)
{
    static const cv_dtype TYPES[] = { CV_F16, CV_BF16, CV_F64, CV_F32 };
    good7(d);
    for (size_t i = 0; i < d->n; i++)
        d->tensors[i].dtype = TYPES[i % COUNT(TYPES)];
}

static void with_time_state(draft *d)
{
    good7(d);
    add(d, "blocks.0.att.time_state", CV_F32, 3, (size_t[]){ 2, 8, 8 });
}

/* A name far beyond the layers that are there means nothing; neither do other names. */
static void stray_names(draft *d)
{
    good7(d);
    add_matrix(d, "blocks.99999999999.x", 2, 2);
    add_matrix(d, "optimizer.step", 1, 1);
}

/* Ones in front, and axes of size one, are what files have here and there. */
static void ones_in_front(draft *d)
{
    good7(d);
    reshape(d, "blocks.0.att.key.weight", 5, (size_t[]){ 1, 1, 1, 16, 16 });
    reshape(d, "blocks.0.att.x_r", 1, (size_t[]){ 16 });
}

static const struct {
    const char *name;
    void (*make)(draft *d);
    const char *arch;
} ALLOWED[] = {
    { "good_v4", good4, "rwkv4" },           { "good_v5_0", good5_0, "rwkv5.0" },
    { "good_v5_1", good5_1, "rwkv5.1" },     { "good_v5_2", good5_2, "rwkv5.2" },
    { "good_v6", good6, "rwkv6" },           { "good_v7", good7, "rwkv7" },
    { "good_v6_gguf", good6_gguf, "rwkv6" }, { "good_v7_gguf", good7_gguf, "rwkv7" },
    { "mixed_types", mixed_types, "rwkv7" }, { "with_time_state", with_time_state, "rwkv7" },
    { "stray_names", stray_names, "rwkv7" }, { "ones_in_front", ones_in_front, "rwkv7" },
};

/* Opens, is what it should be, and gives finite scores. */
static void check_allowed(const char *path, const char *arch)
{
    corvid_error err;
    corvid_model *model;
    corvid_stream *stream;
    corvid_model_info info = { .struct_size = sizeof info };
    const int32_t tokens[] = { 3, 0, 15 };
    float logits[16];
    ASSERT_OK(corvid_model_open(path, NULL, &model, &err), &err);
    ASSERT_OK(corvid_model_get_info(model, &info, &err), &err);
    assert_string_equal(info.arch, arch);
    assert_int_equal(info.n_vocab, 16);
    ASSERT_OK(corvid_stream_new(model, &stream, &err), &err);
    ASSERT_OK(corvid_feed(stream, tokens, 3, logits, &err), &err);
    for (size_t i = 0; i < 16; i++)
        assert_true(isfinite(logits[i]));
    corvid_stream_free(stream);
    corvid_model_close(model);
}

static void test_allowed(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ALLOWED); i++) {
        const char *path = test_scratch(ALLOWED[i].name);
        ALLOWED[i].make(&the);
        save(&the, path);
        verdict v = open_watched(path, NULL, 0, 0);
        if (v.status != CORVID_OK) fail_msg("%s: refused: %s", ALLOWED[i].name, v.err.text);
        check_each_allocation(ALLOWED[i].name, path, &v);
        check_allowed(path, ALLOWED[i].arch);
        unlink(path);
    }
}

/* ---- vocabularies of another size ----------------------------------------------------------- */

static void test_vocabulary_given(void **state)
{
    (void)state;
    const char *path = test_scratch("v16.safetensors");
    good7(&the);
    save(&the, path);
    verdict v = open_watched(path, "bytes", 0, 0);
    check_verdict("vocabulary given", NULL, &v, CORVID_E_MISMATCH, "a vocabulary of 256 tokens",
                  "the model has 16");
    v = open_watched(path, test_scratch("is not there"), 0, 0);
    check_verdict("vocabulary missing", NULL, &v, CORVID_E_FILE, "is not there",
                  "cannot be opened");
}

/* One inside the file does not keep the model from opening, but from tokenizing. */
static void test_vocabulary_inside(void **state)
{
    (void)state;
    const char *path = test_scratch("inside.safetensors");
    char text[4096];
    size_t at = 0;
    for (int id = 1; id <= 40; id++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%d '%c' 1\n", id, '0' + id);
    good7(&the);
    add_text(&the, CV_VOCAB_KEY, text);
    save(&the, path);
    verdict v = open_watched(path, NULL, 0, 0);
    assert_int_equal(v.status, CORVID_OK);
    v.status = v.tokenizer;
    check_verdict("vocabulary inside", path, &v, CORVID_E_MISMATCH, "a vocabulary of",
                  "the model has 16");
}

/* ---- memory, and what is no file ------------------------------------------------------------ */

static void test_too_little_memory(void **state)
{
    (void)state;
    const char *path = test_scratch("limited.safetensors");
    good7(&the);
    save(&the, path);
    verdict v = open_watched(path, NULL, 1000, 0);
    check_verdict("memory limit", path, &v, CORVID_E_MEMORY, "needs", "are allowed");
    corvid_memory memory;
    corvid_error err;
    ASSERT_OK(corvid_memory_estimate(path, NULL, &memory, &err), &err);
    assert_true(memory.weights > 4000 && memory.state > 0 && memory.workspace > 0);
    v = open_watched(path, NULL, (uint64_t)1 << 30, 0);
    assert_int_equal(v.status, CORVID_OK);
}

static void check_no_file(const char *name, const char *path, corvid_status status,
                          const char *what, const char *expected)
{
    verdict v = open_watched(path, NULL, 0, 0);
    check_verdict(name, path, &v, status, what, expected);
}

static void test_no_file(void **state)
{
    (void)state;
    const char *empty = test_scratch("empty.pth"), *folder = test_scratch("folder");
    const char *below = test_scratch("empty.pth/model"), *link = test_scratch("link");
    const char *secret = test_scratch("secret.safetensors"), *pipe = test_scratch("pipe");
    test_write_file(empty, "", 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(symlink("nowhere", link), 0);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    check_no_file("empty", empty, CORVID_E_FORMAT, "the file is empty", "expected a checkpoint");
    check_no_file("folder", folder, CORVID_E_FILE, "is a folder", "expected a plain file");
    check_no_file("missing", test_scratch("missing"), CORVID_E_FILE, "cannot be opened",
                  "check the spelling");
    check_no_file("dangling", link, CORVID_E_FILE, "cannot be opened", "check the spelling");
    check_no_file("below a file", below, CORVID_E_FILE, "cannot be opened", "not a folder");
    check_no_file("pipe", pipe, CORVID_E_FILE, "is a pipe", "expected a plain file");
    check_no_file("device", "/dev/null", CORVID_E_FILE, "is a device", "expected a plain file");
    test_write_file(secret, "x", 1);
    assert_int_equal(chmod(secret, 0), 0);
    if (access(secret, R_OK) != 0) /* root may read it all the same */
        check_no_file("unreadable", secret, CORVID_E_FILE, "cannot be opened", "permissions");
}

/* ---- the corpus of the fuzzers -------------------------------------------------------------- */

/* Halves instead of floats: the values do not matter, the size does. */
static void save_seed(void (*make)(draft *d), const char *folder, const char *name)
{
    char path[1024];
    make(&the);
    for (size_t i = 0; i < the.n; i++)
        if (the.tensors[i].dtype == CV_F32) the.tensors[i].dtype = CV_F16;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    save(&the, path);
}

static void write_models(const char *folder)
{
    mkdir(folder, 0777);
    for (size_t i = 0; i < COUNT(ALLOWED); i++)
        save_seed(ALLOWED[i].make, folder, ALLOWED[i].name);
    for (size_t i = 0; i < COUNT(REFUSED) + COUNT(ZERO); i++) {
        const refused *r = i < COUNT(REFUSED) ? &REFUSED[i] : &ZERO[i - COUNT(REFUSED)];
        if (r->seed) save_seed(r->make, folder, r->name);
    }
}

/* A state's header as engine/state_file.c lays it out, behind the byte that tells the target what
 * to complete: 1 the floats, 2 the checksum, 4 the fingerprint. */
typedef struct state_seed {
    unsigned char bytes[89];
} state_seed;

enum { COMPLETE = 7, VERSION_AT = 9, HEADER_BYTES_AT = 13, ARCH_AT = 17, SIZES_AT = 33 };

static void put_number(state_seed *s, size_t at, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s->bytes[at + i] = (unsigned char)(value >> 8 * i);
}

static state_seed good_state(void)
{
    /* fingerprint, position, L, C, H, N, floats of "rwkv7-tiny" */
    const uint64_t sizes[] = { 0, 3, 4, 128, 2, 64, 4 * (2 * 128 + 2 * 64 * 64) };
    state_seed s = { { COMPLETE, 'C', 'R', 'V', 'S', 'T', 'A', 'T', 'E' } };
    put_number(&s, VERSION_AT, 1, 4);
    put_number(&s, HEADER_BYTES_AT, 88, 4);
    memcpy(s.bytes + ARCH_AT, "rwkv7", 5);
    for (size_t i = 0; i < COUNT(sizes); i++)
        put_number(&s, SIZES_AT + 8 * i, sizes[i], 8);
    return s;
}

static void write_state(const char *folder, const char *name, const void *bytes, size_t n)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    test_write_file(path, bytes, n);
}

/* An official state-tuning file for the same model, whose layers share one storage. */
static void write_tuned_state(const char *folder)
{
    enum { LAYERS = 4, FLOATS = 2 * 64 * 64 };
    static unsigned char file[1 + (1 << 16)];
    static uint16_t values[FLOATS];
    static const size_t storage[LAYERS], counts[] = { FLOATS };
    const void *const data[] = { values };
    const pth_options options = { .storage = storage, .n_storages = 1, .counts = counts };
    cv_tensor tensors[LAYERS];
    char names[LAYERS][NAME_BYTES];
    size_t n;
    for (size_t i = 0; i < FLOATS; i++)
        values[i] = cv_f32_to_bf16(0.01f * (float)(i % 7));
    for (int l = 0; l < LAYERS; l++) {
        snprintf(names[l], NAME_BYTES, "blocks.%d.att.time_state", l);
        tensors[l] = (cv_tensor){ .name = names[l],
                                  .dtype = CV_BF16,
                                  .n_dims = 3,
                                  .dims = { 2, 64, 64 },
                                  .strides = { 64 * 64, 64, 1 },
                                  .contiguous = true };
    }
    unsigned char *bytes = pth_fixture_bytes(tensors, LAYERS, data, &options, &n);
    assert_true(n < sizeof file);
    memcpy(file + 1, bytes, n); /* behind a byte that completes nothing */
    write_state(folder, "tuned_pth", file, n + 1);
    free(bytes);
}

static void write_states(const char *folder)
{
    mkdir(folder, 0777);
    state_seed s = good_state();
    write_state(folder, "good", s.bytes, sizeof s.bytes);
    write_state(folder, "cut", s.bytes, 40);
    s.bytes[0] = 0;
    write_state(folder, "header_only", s.bytes, sizeof s.bytes);
    s.bytes[0] = 1 | 4;
    write_state(folder, "wrong_checksum", s.bytes, sizeof s.bytes);
    s.bytes[0] = 1 | 2;
    write_state(folder, "wrong_fingerprint", s.bytes, sizeof s.bytes);
    s = good_state();
    put_number(&s, SIZES_AT + 6 * 8, UINT64_MAX / 4, 8);
    write_state(folder, "many_floats", s.bytes, sizeof s.bytes);
    s = good_state();
    put_number(&s, VERSION_AT, 2, 4);
    write_state(folder, "version_2", s.bytes, sizeof s.bytes);
    s = good_state();
    memcpy(s.bytes + ARCH_AT, "rwkv6rwkv6rwkv6!", 16);
    write_state(folder, "another_architecture", s.bytes, sizeof s.bytes);
    write_state(folder, "not_a_state", "\0PNG", 4);
    write_tuned_state(folder);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        char folder[512];
        snprintf(folder, sizeof folder, "%s/model", argv[2]);
        write_models(folder);
        snprintf(folder, sizeof folder, "%s/state", argv[2]);
        write_states(folder);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),           cmocka_unit_test(test_zero_sizes),
        cmocka_unit_test(test_allowed),           cmocka_unit_test(test_vocabulary_given),
        cmocka_unit_test(test_vocabulary_inside), cmocka_unit_test(test_too_little_memory),
        cmocka_unit_test(test_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
