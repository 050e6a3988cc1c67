/* test_hostile_adapter.c - adapters and tuned states that fit nothing, or that somebody spoilt: each is
 * refused with the status and the sentence that say what is wrong, nothing is written, nothing stays
 * allocated, and a stream keeps the state it had. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/merging.h"
#include "model_draft.h"
#include "support.h"

#define KEY "blocks.0.att.key"

/* A model of RWKV-7, and the same of another version. */
static const char *model_path(const cv_arch *arch)
{
    static draft d;
    cv_sizes sizes = SMALL;
    if (arch == &cv_rwkv4) {
        sizes.H = sizes.A;
        sizes.N = 1;
    }
    draft_model(&d, arch, CV_OFFICIAL, sizes);
    const char *path = test_scratch("model.safetensors");
    save(&d, path);
    return path;
}

static void good_adapter(draft *d)
{
    memset(d, 0, sizeof *d);
    d->format = CV_SAFETENSORS;
    add_matrix(d, KEY ".lora_A", 2, 16);
    add_matrix(d, KEY ".lora_B", 16, 2);
    add_matrix(d, "blocks.0.ffn.value.lora_A", 3, 32);
    add_matrix(d, "blocks.0.ffn.value.lora_B", 16, 3);
    add(d, "blocks.0.ln1.weight", CV_F32, 1, (size_t[]){ 16 });
    add_text(d, "lora_alpha", "4");
}

/* ---- ways to spoil it ------------------------------------------------------------------------- */

static void no_partner_B(draft *d)
{
    drop(d, KEY ".lora_B");
}
static void no_partner_A(draft *d)
{
    drop(d, KEY ".lora_A");
}
static void wide_A(draft *d)
{
    reshape(d, KEY ".lora_A", 2, (size_t[]){ 2, 17 });
}
static void long_B(draft *d)
{
    reshape(d, KEY ".lora_B", 2, (size_t[]){ 32, 2 });
}
static void other_rank(draft *d)
{
    reshape(d, KEY ".lora_B", 2, (size_t[]){ 16, 3 });
}
static void turned(draft *d)
{
    reshape(d, KEY ".lora_A", 2, (size_t[]){ 16, 2 });
}
static void flat(draft *d)
{
    reshape(d, KEY ".lora_A", 1, (size_t[]){ 32 });
}
static void deep(draft *d)
{
    reshape(d, KEY ".lora_A", 3, (size_t[]){ 1, 2, 16 });
}
static void no_rank(draft *d)
{
    reshape(d, KEY ".lora_A", 2, (size_t[]){ 0, 16 });
    reshape(d, KEY ".lora_B", 2, (size_t[]){ 16, 0 });
}
static void integers(draft *d)
{
    must_find(d, KEY ".lora_A")->dtype = CV_I64;
}
static void another_layer(draft *d)
{
    rename_all(d, KEY, "blocks.7.att.key");
}
static void another_module(draft *d)
{
    rename_all(d, KEY, "blocks.0.att.gate");
}
static void a_prefix(draft *d)
{
    rename_all(d, "blocks", "base_model.blocks");
}
static void of_a_vector(draft *d)
{
    rename_all(d, KEY, "blocks.0.ln1");
}
static void of_the_embedding(draft *d)
{
    rename_all(d, KEY, "emb");
}
static void no_module(draft *d)
{
    rename_all(d, KEY ".lora_", "lora_");
}
static void disha(draft *d)
{
    rename_all(d, KEY ".lora_A", KEY ".disha");
}
static void bone(draft *d)
{
    rename_all(d, KEY ".lora_B", KEY ".bone");
}
static void long_norm(draft *d)
{
    reshape(d, "blocks.0.ln1.weight", 1, (size_t[]){ 17 });
}
static void square_norm(draft *d)
{
    reshape(d, "blocks.0.ln1.weight", 2, (size_t[]){ 4, 4 });
}
static void unknown(draft *d)
{
    add(d, "blocks.0.att.surprise", CV_F32, 1, (size_t[]){ 16 });
}
static void nothing(draft *d)
{
    d->n = 0;
}
static void unused_only(draft *d)
{
    d->n = 0;
    add(d, "blocks.0.att.v0", CV_F32, 1, (size_t[]){ 16 });
}
static void no_alpha(draft *d)
{
    d->n_meta = 0;
}
static void set_alpha(draft *d, const char *text)
{
    d->n_meta = 0;
    add_text(d, "lora_alpha", text);
}
static void alpha_text(draft *d)
{
    set_alpha(d, "many");
}
static void alpha_tail(draft *d)
{
    set_alpha(d, "4x");
}
static void alpha_zero(draft *d)
{
    set_alpha(d, "0");
}
static void alpha_nan(draft *d)
{
    set_alpha(d, "nan");
}
static void alpha_infinite(draft *d)
{
    set_alpha(d, "1e999");
}
static void alpha_empty(draft *d)
{
    set_alpha(d, "");
}
static void another_version(draft *d)
{
    add_text(d, "corvid.arch", "rwkv6");
}
static void half_a_state(draft *d)
{
    add(d, "blocks.0.att.time_state", CV_F32, 3, (size_t[]){ 2, 8, 4 });
}
static void state_behind(draft *d)
{
    add(d, "blocks.1.att.time_state", CV_F32, 3, (size_t[]){ 2, 8, 8 });
}

static const struct {
    const char *name;
    void (*spoil)(draft *d);
    corvid_status status;
    const char *needle;
} cases[] = {
    { "no_partner_B", no_partner_B, CORVID_E_FORMAT, "has no blocks.0.att.key.lora_B" },
    { "no_partner_A", no_partner_A, CORVID_E_FORMAT, "has no blocks.0.att.key.lora_A" },
    { "wide_A", wide_A, CORVID_E_MISMATCH, "has shape [2, 17], this model needs [2, 16]" },
    { "long_B", long_B, CORVID_E_MISMATCH, "has shape [32, 2], this model needs [16, 2]" },
    { "other_rank", other_rank, CORVID_E_MISMATCH, "has shape [16, 3], this model needs [16, 2]" },
    { "turned", turned, CORVID_E_MISMATCH, "has shape [16, 2], this model needs [16, 16]" },
    { "flat", flat, CORVID_E_MISMATCH, KEY ".lora_A has shape [32]" },
    { "deep", deep, CORVID_E_MISMATCH, "has shape [1, 2, 16]" },
    { "no_rank", no_rank, CORVID_E_FORMAT, "is empty" },
    { "integers", integers, CORVID_E_FORMAT, "expected floating-point" },
    { "another_layer", another_layer, CORVID_E_MISMATCH, "blocks.7.att.key.lora_A fits nothing" },
    { "another_module", another_module, CORVID_E_MISMATCH, "att.gate.lora_A fits nothing" },
    { "a_prefix", a_prefix, CORVID_E_MISMATCH, "base_model.blocks" },
    { "of_a_vector", of_a_vector, CORVID_E_MISMATCH, "ln1.lora_A fits nothing" },
    { "of_the_embedding", of_the_embedding, CORVID_E_MISMATCH, "emb.lora_A fits nothing" },
    { "no_module", no_module, CORVID_E_MISMATCH, "tensor lora_A fits nothing" },
    { "disha", disha, CORVID_E_FORMAT, "DiSHA" },
    { "bone", bone, CORVID_E_FORMAT, "Bone" },
    { "long_norm", long_norm, CORVID_E_MISMATCH, "has shape [17], this model needs [16]" },
    { "square_norm", square_norm, CORVID_E_MISMATCH, "has shape [4, 4], this model needs [16]" },
    { "unknown", unknown, CORVID_E_MISMATCH, "att.surprise fits nothing" },
    { "nothing", nothing, CORVID_E_MISMATCH, "holds nothing that changes this model" },
    { "unused_only", unused_only, CORVID_E_MISMATCH, "holds nothing that changes this model" },
    { "no_alpha", no_alpha, CORVID_E_ARGUMENT, "does not say its alpha" },
    { "alpha_text", alpha_text, CORVID_E_FORMAT, "lora_alpha is \"many\"" },
    { "alpha_tail", alpha_tail, CORVID_E_FORMAT, "lora_alpha is \"4x\"" },
    { "alpha_zero", alpha_zero, CORVID_E_FORMAT, "lora_alpha" },
    { "alpha_nan", alpha_nan, CORVID_E_FORMAT, "lora_alpha" },
    { "alpha_infinite", alpha_infinite, CORVID_E_FORMAT, "lora_alpha" },
    { "alpha_empty", alpha_empty, CORVID_E_FORMAT, "lora_alpha" },
    { "another_version", another_version, CORVID_E_MISMATCH,
      "learnt on rwkv6, this model is rwkv7" },
    { "half_a_state", half_a_state, CORVID_E_MISMATCH, "[2, 8, 4], this model needs [2, 8, 8]" },
    { "state_behind", state_behind, CORVID_E_MISMATCH, "blocks.1.att.time_state fits nothing" },
};

/* ---- merging ---------------------------------------------------------------------------------- */

static const cv_adapter_choice as_it_says = { .alpha = 0.0 };
static const cv_convert_settings keep = { .format = CV_SAFETENSORS, .keep = true };

static corvid_status merge(const char *base, const char *adapter, const char *out,
                           corvid_error *err)
{
    test_allocator a;
    test_allocator_init(&a);
    const corvid_status status = cv_merge(&a.api, base, adapter, &as_it_says, out, &keep, err);
    assert_int_equal(a.live, 0);
    if (status != CORVID_OK) {
        FILE *file = fopen(out, "rb");
        if (file) fail_msg("%s: was written though: %s", out, err->text);
        assert_int_equal(err->status, status);
    }
    return status;
}

static void test_refused(void **state)
{
    (void)state;
    static draft d;
    corvid_error err;
    const char *base = model_path(&cv_rwkv7);
    const char *adapter = test_scratch("adapter.safetensors");
    const char *out = test_scratch("out.safetensors");
    for (size_t i = 0; i < COUNT(cases); i++) {
        good_adapter(&d);
        cases[i].spoil(&d);
        save(&d, adapter);
        const corvid_status status = merge(base, adapter, out, &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].needle) ||
            !strstr(err.text, "adapter.safetensors"))
            fail_msg("%s: status %d, expected %d with \"%s\": %s", cases[i].name, (int)status,
                     (int)cases[i].status, cases[i].needle, err.text);
    }
    good_adapter(&d);
    save(&d, adapter);
    ASSERT_OK(merge(base, adapter, out, &err), &err);
    remove(out);
}

/* Numbers that are not finite, wherever they stand. */
static void test_not_finite(void **state)
{
    (void)state;
    static draft d;
    corvid_error err;
    size_t n;
    const char *base = model_path(&cv_rwkv7);
    const char *adapter = test_scratch("adapter.safetensors");
    const char *out = test_scratch("out.safetensors");
    const float bad[] = { NAN, INFINITY };
    good_adapter(&d);
    save(&d, adapter);
    unsigned char *bytes = (unsigned char *)test_read_file(adapter, &n);
    uint64_t header;
    memcpy(&header, bytes, sizeof header);
    const size_t data = 8 + (size_t)header;
    assert_int_equal(n, data + 4 * (32 + 32 + 96 + 48 + 16));
    for (size_t at = 0; data + 4 * at < n; at += 17)
        for (size_t i = 0; i < COUNT(bad); i++) {
            float kept;
            memcpy(&kept, bytes + data + 4 * at, 4);
            memcpy(bytes + data + 4 * at, &bad[i], 4);
            test_write_file(adapter, bytes, n);
            assert_int_equal(merge(base, adapter, out, &err), CORVID_E_FORMAT);
            assert_non_null(strstr(err.text, "not finite"));
            memcpy(bytes + data + 4 * at, &kept, 4);
        }
    free(bytes);
}

/* Cut short anywhere. */
static void test_cut(void **state)
{
    (void)state;
    static draft d;
    corvid_error err;
    size_t n;
    const char *base = model_path(&cv_rwkv7);
    const char *adapter = test_scratch("adapter.safetensors");
    const char *out = test_scratch("out.safetensors");
    good_adapter(&d);
    save(&d, adapter);
    char *bytes = test_read_file(adapter, &n);
    for (size_t length = 0; length < n; length += 1 + n / 97) {
        test_write_file(adapter, bytes, length);
        assert_int_equal(merge(base, adapter, out, &err), CORVID_E_FORMAT);
    }
    free(bytes);
    remove(adapter);
    assert_int_equal(merge(base, adapter, out, &err), CORVID_E_FILE);
}

/* The two files in the wrong places, and a model as adapter. */
static void test_not_an_adapter(void **state)
{
    (void)state;
    static draft d;
    corvid_error err;
    const char *base = model_path(&cv_rwkv7);
    const char *adapter = test_scratch("adapter.safetensors");
    const char *out = test_scratch("out.safetensors");
    good_adapter(&d);
    save(&d, adapter);
    assert_int_equal(merge(base, base, out, &err), CORVID_E_FORMAT);
    assert_non_null(strstr(err.text, "whole model"));
    assert_int_equal(merge(adapter, base, out, &err), CORVID_E_FORMAT);
    assert_non_null(strstr(err.text, "LoRA adapter"));
}

/* First pairs: missing, of another shape, of another kind. */
static void test_first_pairs(void **state)
{
    (void)state;
    static draft d;
    corvid_error err;
    const char *base = model_path(&cv_rwkv7);
    const char *adapter = test_scratch("adapter.safetensors");
    const char *first = test_scratch("first.safetensors"), *out = test_scratch("out.safetensors");
    const cv_adapter_choice choice = { .initial = first };
    good_adapter(&d);
    save(&d, adapter);
    for (int form = 0; form < 3; form++) {
        good_adapter(&d);
        if (form == 0) drop(&d, KEY ".lora_A");
        if (form == 1) reshape(&d, KEY ".lora_B", 2, (size_t[]){ 16, 5 });
        if (form == 2) must_find(&d, KEY ".lora_A")->dtype = CV_I32;
        save(&d, first);
        const corvid_status status =
            cv_merge(&cv_libc_allocator, base, adapter, &choice, out, &keep, &err);
        assert_int_equal(status, form == 2 ? CORVID_E_FORMAT : CORVID_E_MISMATCH);
        assert_non_null(strstr(err.text, "first.safetensors"));
    }
}

/* One allocation after the other fails. */
static void test_memory(void **state)
{
    (void)state;
    static draft d;
    corvid_error err;
    const char *base = model_path(&cv_rwkv7);
    const char *adapter = test_scratch("adapter.safetensors");
    const char *out = test_scratch("out.safetensors");
    good_adapter(&d);
    save(&d, adapter);
    for (size_t at = 1;; at++) {
        test_allocator a;
        test_allocator_init(&a);
        a.fail_at = at;
        const corvid_status status = cv_merge(&a.api, base, adapter, &as_it_says, out, &keep, &err);
        assert_int_equal(a.live, 0);
        if (status == CORVID_OK) break;
        if (status != CORVID_E_MEMORY) fail_msg("allocation %zu: %s", at, err.text);
        assert_null(fopen(out, "rb"));
        assert_true(at < 1000);
    }
    remove(out);
}

/* ---- states ----------------------------------------------------------------------------------- */

static void good_state(draft *d)
{
    memset(d, 0, sizeof *d);
    d->format = CV_SAFETENSORS;
    add(d, "blocks.0.att.time_state", CV_F32, 3, (size_t[]){ 2, 8, 8 });
}

static void state_missing(draft *d)
{
    rename_all(d, "blocks.0", "blocks.1");
}
static void state_of_four(draft *d)
{
    reshape(d, "blocks.0.att.time_state", 3, (size_t[]){ 2, 4, 4 });
}
static void state_square(draft *d)
{
    reshape(d, "blocks.0.att.time_state", 2, (size_t[]){ 16, 8 });
}
static void state_integers(draft *d)
{
    must_find(d, "blocks.0.att.time_state")->dtype = CV_I32;
}

static void refuse_state(cv_stream *stream, const char *path, corvid_status expected)
{
    corvid_error err;
    const size_t n = cv_state_size(&stream->engine->model);
    float *before = malloc(n * sizeof *before);
    assert_non_null(before);
    memcpy(before, stream->state, n * sizeof *before);
    stream->position = 5;
    assert_int_equal(cv_state_load(stream, path, &err), expected);
    assert_int_equal(err.status, expected);
    assert_true(err.text[0] != '\0');
    assert_int_equal(stream->position, 5);
    assert_memory_equal(before, stream->state, n * sizeof *before);
    free(before);
}

static void test_states(void **state)
{
    (void)state;
    static draft d;
    corvid_error err;
    void (*const spoil[])(draft *) = { state_missing, state_of_four, state_square, state_integers };
    const cv_arch *archs[] = { &cv_rwkv7, &cv_rwkv5_2, &cv_rwkv4 };
    for (size_t v = 0; v < COUNT(archs); v++) {
        cv_checkpoint ckpt;
        cv_source source;
        cv_engine engine;
        cv_stream stream;
        const cv_engine_options options = { .n_threads = 1 };
        const char *base = model_path(archs[v]), *path = test_scratch("state.safetensors");
        ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, base, &ckpt, &err), &err);
        ASSERT_OK(cv_source_open(&ckpt, &source, &err), &err);
        ASSERT_OK(cv_engine_open(&cv_libc_allocator, &source, &options, &engine, &err), &err);
        ASSERT_OK(cv_stream_init(&engine, &stream, &err), &err);
        for (size_t i = 0; i < COUNT(spoil); i++) {
            good_state(&d);
            spoil[i](&d);
            save(&d, path);
            refuse_state(&stream, path, CORVID_E_MISMATCH);
        }
        good_adapter(&d); /* an adapter is no state */
        save(&d, path);
        refuse_state(&stream, path, CORVID_E_MISMATCH);
        good_state(&d);
        save(&d, path);
        if (archs[v] == &cv_rwkv4)
            refuse_state(&stream, path, CORVID_E_MISMATCH);
        else
            ASSERT_OK(cv_state_load(&stream, path, &err), &err);
        size_t n;
        char *bytes = test_read_file(path, &n);
        test_write_file(path, bytes, n - 1);
        refuse_state(&stream, path, CORVID_E_FORMAT);
        const float endless = INFINITY;
        memcpy(bytes + n - 4, &endless, 4);
        test_write_file(path, bytes, n);
        refuse_state(&stream, path, archs[v] == &cv_rwkv4 ? CORVID_E_MISMATCH : CORVID_E_FORMAT);
        free(bytes);
        cv_stream_free(&stream);
        cv_engine_close(&engine);
        cv_checkpoint_close(&ckpt);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_cut),         cmocka_unit_test(test_not_an_adapter),
        cmocka_unit_test(test_first_pairs), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
