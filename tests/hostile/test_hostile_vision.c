/* test_hostile_vision.c - files that are almost Vision-RWKV models, and models full of numbers that
 * are none.
 *
 * A good model is drafted, spoilt in one way, and opened through the public API: it is refused with
 * a sentence that names the file, or it opens and pictures can be shown to it; nothing leaks, also
 * when an allocation fails on the way. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "corvid.h"
#include "model_draft.h"
#include "support.h"

static draft the;

/* ---- Drafts ---------------------------------------------------------------------------------- */

enum { C = 16, F = 32, J = 24, K = 5, P = 4, G = 9 };

static void draft_vision(draft *d, const cv_arch *arch)
{
    const bool v6 = arch == &cv_vrwkv6;
    const cv_sizes sizes = { .C = C,
                             .L = 2,
                             .A = C,
                             .F = F,
                             .H = v6 ? 2 : C,
                             .N = v6 ? 8 : 1,
                             .D = 2,
                             .M = 10,
                             .E = 4,
                             .p = P,
                             .G = G,
                             .K = K,
                             .J = J };
    const cv_source source = { .arch = arch, .dialect = CV_OFFICIAL, .sizes = sizes };
    memset(d, 0, sizeof *d);
    d->format = CV_SAFETENSORS;
    add_fields(d, &source, cv_vision_stack.fields, cv_vision_stack.n_fields, 0);
    for (size_t l = 0; l < sizes.L; l++)
        add_fields(d, &source, arch->fields, arch->n_fields, l);
}

static void add_vector(draft *d, const char *name, size_t n)
{
    add(d, name, CV_F32, 1, (size_t[]){ n });
}

static void add_to_layers(draft *d, const char *what, size_t n)
{
    for (int l = 0; l < 2; l++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "backbone.layers.%d.%s", l, what);
        add_vector(d, name, n);
    }
}

static void add_mixes(draft *d)
{
    static const char *const names[] = { "att.spatial_mix_k", "att.spatial_mix_v",
                                         "att.spatial_mix_r", "ffn.spatial_mix_k",
                                         "ffn.spatial_mix_r" };
    for (size_t i = 0; i < COUNT(names); i++)
        add_to_layers(d, names[i], C);
}

static void bare(draft *d) /* no shift, no final norm, no head */
{
    draft_vision(d, &cv_vrwkv);
}

static void good(draft *d)
{
    bare(d);
    add_mixes(d);
    add_vector(d, "backbone.ln1.weight", C);
    add_vector(d, "backbone.ln1.bias", C);
    add_matrix(d, "head.fc.weight", K, C);
    add_vector(d, "head.fc.bias", K);
}

static void good_l(draft *d)
{
    bare(d);
    add_mixes(d);
    add_vector(d, "backbone.ln1.weight", C);
    add_vector(d, "backbone.ln1.bias", C);
    add_to_layers(d, "gamma1", C);
    add_to_layers(d, "gamma2", C);
    add_to_layers(d, "att.key_norm.weight", C);
    add_to_layers(d, "att.key_norm.bias", C);
    add_to_layers(d, "ffn.key_norm.weight", F);
    add_to_layers(d, "ffn.key_norm.bias", F);
    add_matrix(d, "head.0.weight", J, C);
    add_vector(d, "head.0.bias", J);
    add_matrix(d, "head.2.weight", K, J);
    add_vector(d, "head.2.bias", K);
}

static void good6(draft *d)
{
    draft_vision(d, &cv_vrwkv6);
    add(d, "backbone.cls_token", CV_F32, 3, (size_t[]){ 1, 1, C });
    add_vector(d, "backbone.ln1.weight", C);
    add_vector(d, "backbone.ln1.bias", C);
    add_matrix(d, "head.weight", K, C);
    add_vector(d, "head.bias", K);
}

static void (*const goods[])(draft *d) = { bare, good, good_l, good6 };

/* ---- Opening and showing under watch --------------------------------------------------------- */

typedef struct verdict {
    corvid_status status;
    corvid_error err;
    size_t calls;
    bool finite; /* all that was given */
} verdict;

/* Pictures of three sizes, and everything that can be had of them. */
static corvid_status show(corvid_model *model, bool *finite, corvid_error *err)
{
    static const int wanted[] = { 0, -1 };
    static const size_t sides[3][2] = { { 12, 12 }, { 9, 26 }, { 1, 1 } };
    enum { MOST = 2 * C * 21 };
    static float values[3][3 * 9 * 26], logits[3][64], pooled[3][C], maps[3][MOST],
        tokens[3][2 * C];
    corvid_model_info info = { .struct_size = sizeof info };
    corvid_view views[3];
    ASSERT_OK(corvid_model_get_info(model, &info, err), err);
    assert_true(info.n_embd == C && info.n_classes <= 64);
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < sides[i][0] * sides[i][1] * 3; j++)
            values[i][j] = value_at(i, j);
        views[i] = (corvid_view){ .values = values[i],
                                  .height = sides[i][0],
                                  .width = sides[i][1],
                                  .logits = info.n_classes ? logits[i] : NULL,
                                  .pooled = pooled[i],
                                  .features = info.patch == P ? maps[i] : NULL,
                                  .class_tokens = info.class_token ? tokens[i] : NULL };
    }
    const corvid_status status = corvid_see(model, views, 3, wanted, 2, err);
    for (size_t i = 0; i < 3 && status == CORVID_OK; i++) {
        for (size_t j = 0; j < info.n_classes; j++)
            *finite &= isfinite(logits[i][j]) != 0;
        for (size_t j = 0; j < C; j++)
            *finite &= isfinite(pooled[i][j]) != 0;
    }
    return status;
}

static verdict try_file(const char *path, const char *cpu, size_t fail_at)
{
    verdict v = { .finite = true };
    test_allocator a;
    corvid_model_options options;
    corvid_model *model;
    test_allocator_init(&a);
    a.fail_at = fail_at;
    corvid_model_defaults(&options);
    options.n_threads = 2;
    options.cpu = cpu;
    options.allocator = &a.api;
    v.status = corvid_model_open(path, &options, &model, &v.err);
    if (v.status == CORVID_OK) {
        v.status = show(model, &v.finite, &v.err);
        corvid_model_close(model);
    } else {
        assert_null(model);
    }
    v.calls = a.calls;
    if (v.status != CORVID_OK) assert_int_equal(v.err.status, v.status);
    assert_int_equal(a.live, 0);
    return v;
}

static void check_each_allocation(const char *name, const char *path, size_t calls)
{
    for (size_t i = 1; i <= calls && i <= 60; i++) {
        const verdict v = try_file(path, NULL, i);
        if (v.status != CORVID_E_MEMORY)
            fail_msg("%s: allocation %zu failed, yet status %d: %s", name, i, (int)v.status,
                     v.err.text);
    }
}

static const char *save_the(void)
{
    const char *path = test_scratch("hostile.safetensors");
    save(&the, path);
    return path;
}

/* `the` is refused, with the file's name and `what` in the text. */
static void expect_refused(const char *name, const char *what)
{
    const char *path = save_the();
    corvid_memory memory;
    corvid_error err;
    const verdict v = try_file(path, NULL, 0);
    if (v.status != CORVID_E_FORMAT)
        fail_msg("%s: status %d, expected %d: %s", name, (int)v.status, (int)CORVID_E_FORMAT,
                 v.status ? v.err.text : "");
    if (!strstr(v.err.text, path) || !strstr(v.err.text, what))
        fail_msg("%s: the text lacks the file or \"%s\": %s", name, what, v.err.text);
    assert_int_equal(corvid_memory_estimate(path, NULL, &memory, &err), CORVID_E_FORMAT);
    check_each_allocation(name, path, v.calls);
}

/* `the` is a model: all numbers it gives are finite, or `wild` ones are allowed. */
static void expect_allowed(const char *name, bool wild)
{
    const char *path = save_the();
    const verdict v = try_file(path, NULL, 0);
    if (v.status != CORVID_OK) fail_msg("%s: status %d: %s", name, (int)v.status, v.err.text);
    if (!wild && !v.finite) fail_msg("%s: gives what is no number", name);
}

static void test_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(goods); i++) {
        goods[i](&the);
        expect_allowed("a good model", false);
        check_each_allocation("a good model", test_scratch("hostile.safetensors"),
                              try_file(test_scratch("hostile.safetensors"), NULL, 0).calls);
    }
}

/* ---- Every tensor spoilt in turn ------------------------------------------------------------- */

static bool optional(const char *name)
{
    return strstr(name, "cls_token") || strstr(name, "gamma") || strstr(name, "key_norm") ||
           strstr(name, "spatial_mix") || strstr(name, "backbone.ln1") ||
           strncmp(name, "head", 4) == 0;
}

/* Those that every model has. */
static void test_missing(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(goods); i++) {
        goods[i](&the);
        const size_t n = the.n;
        for (size_t j = 0; j < n; j++) {
            char name[NAME_BYTES];
            goods[i](&the);
            snprintf(name, sizeof name, "%s", the.names[j]);
            if (optional(name) && !(i == 3 && strstr(name, "spatial_mix"))) continue;
            drop(&the, name);
            /* By its patches a VRWKV6 is told from a language model, which has other layers. */
            const bool telling = i == 3 && strstr(name, "projection.weight");
            expect_refused(name, telling ? "has no layers" : name);
        }
    }
}

/* Wherever it is, one more in any dimension fits nothing. */
static void test_misshapen(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(goods); i++) {
        goods[i](&the);
        const size_t n = the.n;
        for (size_t j = 0; j < n; j++)
            for (int dim = 0; dim < the.tensors[j].n_dims; dim++) {
                goods[i](&the);
                if (dim == 0 && strstr(the.names[j], "time_maa_w2")) continue; /* five are enough */
                the.tensors[j].dims[dim]++;
                expect_refused(the.names[j], "");
            }
    }
}

static void test_empty(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(goods); i++) {
        goods[i](&the);
        const size_t n = the.n;
        for (size_t j = 0; j < n; j++) {
            goods[i](&the);
            the.tensors[j].dims[the.tensors[j].n_dims - 1] = 0;
            expect_refused(the.names[j], the.names[j]);
            goods[i](&the);
            the.tensors[j].n_dims = 0; /* a single number */
            expect_refused(the.names[j], "");
        }
    }
}

static void test_integers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(goods); i++) {
        goods[i](&the);
        const size_t n = the.n;
        for (size_t j = 0; j < n; j++) {
            goods[i](&the);
            the.tensors[j].dtype = j % 2 ? CV_I64 : CV_U8;
            expect_refused(the.names[j], the.names[j]);
        }
    }
}

/* Half of what belongs together. */
static void test_halves(void **state)
{
    (void)state;
    static const struct {
        size_t which; /* of goods */
        const char *without;
    } halves[] = { { 1, "backbone.ln1.weight" },
                   { 1, "backbone.ln1.bias" },
                   { 2, "backbone.layers.1.att.key_norm.bias" },
                   { 2, "backbone.layers.0.att.key_norm.weight" },
                   { 2, "backbone.layers.1.ffn.key_norm.bias" },
                   { 2, "backbone.layers.0.ffn.key_norm.weight" },
                   { 2, "head.0.weight" },
                   { 2, "head.2.weight" },
                   { 1, "head.fc.weight" } };
    for (size_t i = 0; i < COUNT(halves); i++) {
        goods[halves[i].which](&the);
        drop(&the, halves[i].without);
        expect_refused(halves[i].without, "");
    }
}

/* What only one layer has, or lacks: refused, or left out there; never a crash. */
static void test_uneven_layers(void **state)
{
    (void)state;
    static const char *const names[] = { "backbone.layers.1.gamma1",
                                         "backbone.layers.0.gamma2",
                                         "backbone.layers.1.att.spatial_mix_k",
                                         "backbone.layers.0.att.spatial_mix_r",
                                         "backbone.layers.0.ffn.spatial_mix_k",
                                         "backbone.layers.1.ffn.spatial_mix_r" };
    for (size_t i = 0; i < COUNT(names); i++) {
        good_l(&the);
        drop(&the, names[i]);
        const char *path = save_the();
        const verdict v = try_file(path, NULL, 0);
        if (v.status != CORVID_OK && v.status != CORVID_E_FORMAT)
            fail_msg("without %s: status %d: %s", names[i], (int)v.status, v.err.text);
    }
}

/* ---- Sizes ----------------------------------------------------------------------------------- */

static void test_positions(void **state)
{
    (void)state;
    static const size_t counts[] = { 2, 8, 10, 15, 17, 99 };
    for (size_t i = 0; i < COUNT(counts); i++) {
        good(&the);
        reshape(&the, "backbone.pos_embed", 3, (size_t[]){ 1, counts[i], C });
        expect_refused("positions", "expected a square number");
    }
    good(&the); /* of another width */
    reshape(&the, "backbone.pos_embed", 3, (size_t[]){ 1, G, C + 1 });
    expect_refused("wide positions", "backbone.pos_embed");
    good(&the);
    reshape(&the, "backbone.pos_embed", 3, (size_t[]){ 1, 10000, C }); /* 400 x 400 pixels */
    expect_allowed("many positions", false);
    good(&the);
    reshape(&the, "backbone.pos_embed", 2, (size_t[]){ 1, C });
    expect_allowed("a single position", false);
    good(&the);
    reshape(&the, "backbone.pos_embed", 3, (size_t[]){ 1, 1, C });
    expect_allowed("a single position, as official files have it", false);
}

static void test_patches(void **state)
{
    (void)state;
    const char *name = "backbone.patch_embed.projection.weight";
    static const struct {
        size_t dims[4];
        const char *text;
    } cases[] = {
        { { C, 3, 0, 0 }, "is empty" },          { { C, 3, 257, 257 }, "expected 1 to 256" },
        { { C, 3, 4, 5 }, "projection.weight" }, { { C, 1, 4, 4 }, "projection.weight" },
        { { C, 4, 4, 4 }, "projection.weight" }, { { C + 1, 3, 4, 4 }, "has shape" }
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        good(&the);
        reshape(&the, name, 4, cases[i].dims);
        expect_refused("patches", cases[i].text);
    }
    good(&the);
    reshape(&the, name, 2, (size_t[]){ C, 48 }); /* flat */
    expect_refused("flat patches", "");
    for (size_t p = 1; p <= 256; p *= 16) {
        good(&the);
        reshape(&the, name, 4, (size_t[]){ C, 3, p, p });
        expect_allowed("patches of another size", false);
    }
}

static void test_heads(void **state)
{
    (void)state;
    good(&the); /* the width of another model */
    reshape(&the, "head.fc.weight", 2, (size_t[]){ K, C + 4 });
    expect_refused("a wide head", "head.fc.weight");
    good(&the);
    reshape(&the, "head.fc.weight", 2, (size_t[]){ K + 2, C });
    expect_refused("a head of more classes", "head.fc.bias");
    good_l(&the);
    reshape(&the, "head.2.weight", 2, (size_t[]){ K, J + 1 });
    expect_refused("a head whose layers do not fit", "head.2.weight");
    good_l(&the); /* three heads at once */
    add_matrix(&the, "head.fc.weight", K, C);
    expect_refused("two heads", "head");
    good(&the);
    add_matrix(&the, "head.0.weight", J, C);
    expect_refused("half of another head", "head");
    good(&the);
    add_matrix(&the, "head.2.weight", K, 64);
    expect_refused("the other half", "head");
    good(&the);
    add_matrix(&the, "head.weight", K, C);
    expect_refused("two of the same", "head");
    good(&the);
    drop(&the, "head.fc.bias");
    expect_allowed("a head without bias", false);
}

static void test_heads_of_version_6(void **state)
{
    (void)state;
    good6(&the);
    reshape(&the, "backbone.layers.0.att.time_faaaa", 2, (size_t[]){ 3, 5 });
    expect_refused("heads", "3 heads of 5 channels");
    good6(&the);
    reshape(&the, "backbone.layers.0.att.time_maa_w1", 2, (size_t[]){ C, 12 });
    expect_refused("ranks", "time_maa_w1");
    good6(&the);
    reshape(&the, "backbone.layers.0.att.time_maa_w2", 3, (size_t[]){ 4, 2, C });
    expect_refused("four mixes", "time_maa_w2");
}

/* ---- Layers and names ------------------------------------------------------------------------ */

static void test_names(void **state)
{
    (void)state;
    good(&the);
    rename_all(&the, "backbone.layers.1.", "backbone.layers.2.");
    expect_refused("a hole", "backbone.layers.1.");
    good(&the);
    rename_all(&the, "backbone.layers.1.", "backbone.layers.99999999999.");
    expect_allowed("a stray layer", false);
    good(&the); /* as detection backbones have them */
    rename_all(&the, "backbone.", "");
    expect_refused("without backbone", "");
    good(&the);
    rename_all(&the, "backbone.layers.", "backbone.blocks.");
    expect_refused("without layers", "backbone.layers.0.*");
    good(&the);
    add_matrix(&the, "optimizer.step", 1, 1);
    expect_allowed("a stray tensor", false);
    good6(&the); /* a language model with a picture's first tensor */
    rename_all(&the, "backbone.layers.", "blocks.");
    expect_refused("names of both kinds", "");
}

/* ---- The configuration in the metadata ------------------------------------------------------- */

static void test_config(void **state)
{
    (void)state;
    static const struct {
        const char *text, *complaint; /* NULL: allowed */
    } cases[] = {
        { "", NULL },
        { "{", NULL },
        { "[]", NULL },
        { "null", NULL },
        { "{}", NULL },
        { "{\"post_norm\": true, \"shift_pixel\": 2, \"channel_gamma\": 0.125}", NULL },
        { "{\"post_norm\": false, \"shift_pixel\": 0, \"channel_gamma\": null}", NULL },
        { "{\"shift_pixel\": 1024, \"channel_gamma\": 0}", NULL },
        { "{\"model\": 7, \"embed_dims\": \"many\", \"depth\": [[[]]]}", NULL },
        { "{\"post_norm\": 1}", "post_norm" },
        { "{\"post_norm\": \"yes\"}", "post_norm" },
        { "{\"post_norm\": null}", "post_norm" },
        { "{\"shift_pixel\": -1}", "shift_pixel" },
        { "{\"shift_pixel\": 1025}", "shift_pixel" },
        { "{\"shift_pixel\": 9223372036854775807}", "shift_pixel" },
        { "{\"shift_pixel\": 1.5}", "shift_pixel" },
        { "{\"shift_pixel\": \"1\"}", "shift_pixel" },
        { "{\"shift_pixel\": {}}", "shift_pixel" },
        { "{\"channel_gamma\": 0.2501}", "channel_gamma" },
        { "{\"channel_gamma\": -0.1}", "channel_gamma" },
        { "{\"channel_gamma\": 1e300}", "channel_gamma" },
        { "{\"channel_gamma\": true}", "channel_gamma" },
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        for (size_t which = 0; which < COUNT(goods); which++) {
            goods[which](&the);
            add_text(&the, "config", cases[i].text);
            if (cases[i].complaint)
                expect_refused(cases[i].text, cases[i].complaint);
            else
                expect_allowed(cases[i].text, false);
        }
}

/* A number, an array, or a text of a hundred thousand brackets. */
static void test_config_of_other_kinds(void **state)
{
    (void)state;
    enum { DEEP = 100000 };
    char *text = malloc(2 * DEEP + 1);
    assert_non_null(text);
    memset(text, '[', DEEP);
    memset(text + DEEP, ']', DEEP);
    text[2 * DEEP] = '\0';
    good(&the);
    add_text(&the, "config", text);
    expect_allowed("a deep config", false);
    free(text);

    static const cv_meta odd[] = {
        { .key = "config", .type = CV_META_INT, .integer = 7 },
        { .key = "config", .type = CV_META_INTS, .count = 0 },
        { .key = "config", .type = CV_META_BOOL, .integer = 1 },
    };
    for (size_t i = 0; i < COUNT(odd); i++) {
        good(&the);
        the.format = CV_GGUF;
        for (size_t j = 0; j < the.n; j++) /* GGUF has four dimensions and no ones in front */
            while (the.tensors[j].n_dims > 1 && the.tensors[j].dims[0] == 1)
                memmove(the.tensors[j].dims, the.tensors[j].dims + 1,
                        (size_t)the.tensors[j].n_dims-- * sizeof(size_t));
        the.meta[the.n_meta++] = odd[i];
        expect_allowed("a config that is no text", false);
    }
}

/* ---- Numbers that are none ------------------------------------------------------------------- */

/* Overwrites the data of one tensor, or of all, with one value. */
static void flood(const char *path, const char *only, float value)
{
    corvid_error err;
    cv_checkpoint ckpt;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    for (size_t i = 0; i < ckpt.n_tensors; i++) {
        const cv_tensor *t = &ckpt.tensors[i];
        if (only && !strstr(t->name, only)) continue;
        assert_int_equal(fseek(file, (long)t->offset, SEEK_SET), 0);
        for (size_t j = 0; j < t->count; j++)
            assert_int_equal(fwrite(&value, sizeof value, 1, file), 1);
    }
    assert_int_equal(fclose(file), 0);
    cv_checkpoint_close(&ckpt);
}

static void test_wild_weights(void **state)
{
    (void)state;
    static const char *const levels[] = { NULL, "ref" };
    static const char *const names[] = {
        NULL,        "spatial_decay", "spatial_first", "att.key.weight",
        "att.value", "time_decay",    "time_faaaa",    "ln1",
        "pos",       "gamma",         "time_maa_x",    "head"
    };
    const float numbers[] = { NAN,      -NAN,   INFINITY, -INFINITY, 3.4e38f,
                              -3.4e38f, 1e-45f, 1000.0f,  -1000.0f,  0.0f };
    for (size_t i = 0; i < COUNT(goods); i++)
        for (size_t n = 0; n < COUNT(names); n++)
            for (size_t j = 0; j < COUNT(numbers); j++) {
                goods[i](&the);
                const char *path = save_the();
                flood(path, names[n], numbers[j]);
                const verdict v = try_file(path, levels[j % 2], 0);
                if (v.status != CORVID_OK)
                    fail_msg("%s = %g: status %d: %s", names[n] ? names[n] : "all",
                             (double)numbers[j], (int)v.status, v.err.text);
                /* Any decay and any bonus is a weight of something. */
                if (i < 3 && names[n] && isfinite(numbers[j]) && fabsf(numbers[j]) <= 1000.0f &&
                    strstr(names[n], "spatial") && !v.finite)
                    fail_msg("%s = %g: gives what is no number", names[n], (double)numbers[j]);
            }
}

/* A file that ends anywhere. */
static void test_cut_off(void **state)
{
    (void)state;
    size_t n;
    good(&the);
    char *bytes = test_read_file(save_the(), &n);
    const char *path = test_scratch("cut.safetensors");
    for (size_t at = 1; at < n; at += at < 64 ? 1 : 997) {
        test_write_file(path, bytes, at);
        const verdict v = try_file(path, NULL, 0);
        if (v.status != CORVID_E_FORMAT)
            fail_msg("%zu of %zu bytes: status %d", at, n, (int)v.status);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_misshapen),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_uneven_layers),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_patches),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_heads_of_version_6),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_config_of_other_kinds),
        cmocka_unit_test(test_wild_weights),
        cmocka_unit_test(test_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
