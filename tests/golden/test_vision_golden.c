/* test_vision_golden.c - Vision-RWKV against numbers that the official modules gave in float64.
 *
 * The small models of every variant, in every format and mode, and a VRWKV-T of real size with f16
 * weights at five sizes.  The published shapes are in test_vision_published.c.
 * [vrwkv.patch] [vrwkv.layer] [vrwkv.head] [bi.wkv] [bi.cuda] [v6.bi] */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_files.h"
#include "support.h"
#include "vision_files.h"

/* As the reference data says, of the largest number of a tensor; twice that at full size. */
#define SMALL_TOLERANCE 1e-5
#define FULL_TOLERANCE  2e-5
#define AMX_TOLERANCE   1e-4

enum { MOST_LAYERS = 16, MOST_PICTURES = 8 };

/* ---- One input of a small model -------------------------------------------------------------- */

/* The reference's numbers for one input, and what the library makes of it. */
typedef struct input {
    const cv_checkpoint *io;
    const char *prefix; /* "sq", "rect", "odd" */
    size_t B, height, width, h, w;
    float *image;
} input;

typedef struct answer {
    float *logits, *pooled, *features, *class_tokens; /* of all B pictures, one after the other */
    size_t feature_floats;                            /* of one picture */
} answer;

typedef struct sizes {
    size_t C, L, K, p;
    bool class_token;
} sizes;

static sizes sizes_of(const corvid_model *model)
{
    const corvid_model_info info = vision_info(model);
    return (sizes){ info.n_embd, info.n_layers, info.n_classes, info.patch, info.class_token };
}

static const char *key_of(const input *in, const char *what)
{
    static char key[64];
    snprintf(key, sizeof key, "%s.%s", in->prefix, what);
    return key;
}

/* False when the file has no such input. */
static bool find_input(const cv_checkpoint *io, const char *prefix, size_t patch, input *in)
{
    *in = (input){ .io = io, .prefix = prefix };
    const cv_tensor *t = cv_checkpoint_find(io, key_of(in, "image"));
    if (!t) return false;
    assert_int_equal(t->n_dims, 4);
    assert_int_equal(t->dims[1], 3);
    in->B = t->dims[0];
    in->height = t->dims[2];
    in->width = t->dims[3];
    in->h = (in->height + patch - 1) / patch;
    in->w = (in->width + patch - 1) / patch;
    in->image = vision_need(io, key_of(in, "image"), t->count);
    return true;
}

static answer new_answer(const input *in, const sizes *s)
{
    answer a = { .feature_floats = s->L * s->C * in->h * in->w };
    a.logits = malloc(in->B * s->K * sizeof(float) + 1);
    a.pooled = malloc(in->B * s->C * sizeof(float));
    a.features = malloc(in->B * a.feature_floats * sizeof(float));
    a.class_tokens = malloc(in->B * s->L * s->C * sizeof(float));
    assert_true(a.logits && a.pooled && a.features && a.class_tokens);
    return a;
}

static void free_answer(answer *a)
{
    free(a->logits);
    free(a->pooled);
    free(a->features);
    free(a->class_tokens);
}

/* Picture i of an input and where its answers go; all layers are wanted. */
static corvid_view view_of(const input *in, const answer *a, const sizes *s, size_t i)
{
    return (corvid_view){ .values = in->image + i * 3 * in->height * in->width,
                          .height = in->height,
                          .width = in->width,
                          .logits = a->logits + i * s->K,
                          .pooled = a->pooled + i * s->C,
                          .features = a->features + i * a->feature_floats,
                          .class_tokens =
                              s->class_token ? a->class_tokens + i * s->L * s->C : NULL };
}

static void all_layers(size_t L, int *wanted)
{
    assert_true(L <= MOST_LAYERS);
    for (size_t l = 0; l < L; l++)
        wanted[l] = (int)l;
}

static answer see_input(corvid_model *model, const input *in)
{
    corvid_error err;
    int wanted[MOST_LAYERS];
    corvid_view views[MOST_PICTURES];
    const sizes s = sizes_of(model);
    const answer a = new_answer(in, &s);
    all_layers(s.L, wanted);
    for (size_t i = 0; i < in->B; i++)
        views[i] = view_of(in, &a, &s, i);
    ASSERT_OK(corvid_see(model, views, in->B, wanted, s.L, &err), &err);
    return a;
}

/* ---- Comparing ------------------------------------------------------------------------------- */

/* The largest difference of each kind of number in one model. */
typedef struct worst {
    double logits, pooled, features, blocks, class_tokens, cuda;
} worst;

static void raise_to(double *most, double off)
{
    if (!(off <= *most)) *most = off;
}

/* A layer's features of all pictures, [B][C][h][w], as the reference has them. */
static float *gather_features(const input *in, const answer *a, const sizes *s, size_t layer)
{
    const size_t n = s->C * in->h * in->w;
    float *out = malloc(in->B * n * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < in->B; i++)
        memcpy(out + i * n, a->features + i * a->feature_floats + layer * n, n * sizeof *out);
    return out;
}

/* The same as a block's output: [B][T][C], the class token behind. */
static float *gather_block(const input *in, const answer *a, const sizes *s, size_t layer)
{
    const size_t cells = in->h * in->w, T = cells + s->class_token, n = s->C * cells;
    float *out = malloc(in->B * T * s->C * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < in->B; i++) {
        const float *from = a->features + i * a->feature_floats + layer * n;
        for (size_t t = 0; t < cells; t++)
            for (size_t c = 0; c < s->C; c++)
                out[(i * T + t) * s->C + c] = from[c * cells + t];
        if (s->class_token)
            memcpy(out + (i * T + cells) * s->C, a->class_tokens + (i * s->L + layer) * s->C,
                   s->C * sizeof *out);
    }
    return out;
}

static bool has(const input *in, const char *what)
{
    return cv_checkpoint_find(in->io, key_of(in, what)) != NULL;
}

static double compare(const input *in, const char *what, const float *got, size_t n)
{
    float *want = vision_need(in->io, key_of(in, what), n);
    const double off = vision_off(got, want, n);
    free(want);
    return off;
}

/* The layers whose output the official model emits: out_indices, or the last. */
static size_t emitted_layers(const cv_checkpoint *io, size_t L, size_t *out)
{
    const cv_meta *meta = cv_checkpoint_meta(io, "config");
    assert_non_null(meta);
    json_t *config = json_loadb(meta->text.bytes, meta->text.n, 0, NULL);
    const json_t *indices = json_object_get(config, "out_indices");
    size_t n = json_array_size(indices);
    for (size_t i = 0; i < n; i++)
        out[i] = (size_t)json_integer_value(json_array_get(indices, i));
    if (n == 0) out[n++] = L - 1;
    json_decref(config);
    return n;
}

static void compare_features(const input *in, const answer *a, const sizes *s, worst *most)
{
    size_t layers[MOST_LAYERS];
    const size_t n = emitted_layers(in->io, s->L, layers), count = in->B * s->C * in->h * in->w;
    for (size_t i = 0; i < n; i++) {
        char what[32];
        float *got = gather_features(in, a, s, layers[i]);
        snprintf(what, sizeof what, s->class_token ? "feat%zu.patch" : "feat%zu", i);
        raise_to(&most->features, compare(in, what, got, count));
        free(got);
    }
    for (size_t l = 0; l + 1 < s->L; l++) { /* the last one is before the final norm */
        char what[32];
        float *got = gather_block(in, a, s, l);
        snprintf(what, sizeof what, "block%zu", l);
        raise_to(&most->blocks,
                 compare(in, what, got, in->B * s->C * (in->h * in->w + s->class_token)));
        free(got);
    }
}

/* The class token of the last layer is also what the head sees. */
static void compare_class_tokens(const input *in, const answer *a, const sizes *s, worst *most)
{
    for (size_t i = 0; i < in->B; i++)
        model_same_bits("the pooled vector and the class token", a->pooled + i * s->C,
                        a->class_tokens + (i * s->L + s->L - 1) * s->C, s->C * sizeof(float));
    raise_to(&most->class_tokens, compare(in, "feat0.cls", a->pooled, in->B * s->C));
}

static void compare_answer(const input *in, const answer *a, const sizes *s, worst *most)
{
    raise_to(&most->logits, compare(in, "logits", a->logits, in->B * s->K));
    if (!s->class_token) raise_to(&most->pooled, compare(in, "pooled", a->pooled, in->B * s->C));
    compare_features(in, a, s, most);
    if (s->class_token) compare_class_tokens(in, a, s, most);
}

/* ---- Small models ---------------------------------------------------------------------------- */

static const char *const small_names[] = {
    "a_pre",      "b_post_gamma", "b2_pre_gamma",          "c_L_keynorm_mlp", "d_v6_pre",
    "d2_v6_post", "f_variants",   "e_v6_post_cls_keynorm", "g_noshift"
};
#define N_SMALL (sizeof small_names / sizeof *small_names)
static const char *const prefixes[] = { "sq", "rect", "odd" };

static const char *small_file(const char *name, const char *kind)
{
    char relative[96];
    snprintf(relative, sizeof relative, "vrwkv-golden/small/%s.%s.safetensors", name, kind);
    return test_data(relative);
}

#define NEED_SMALL(weights, io_path, name)                              \
    const char *weights = small_file(name, "weights");                  \
    const char *io_path = small_file(name, "io");                       \
    if (!(weights) || !(io_path)) {                                     \
        print_message("SKIP: no vrwkv-golden in the reference data\n"); \
        skip();                                                         \
    }

static void open_io(const char *path, cv_checkpoint *io)
{
    corvid_error err;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, io, &err), &err);
}

/* Every number of every input that the file has; returns how many inputs those were. */
static size_t check_inputs(corvid_model *model, const cv_checkpoint *io, worst *most)
{
    const sizes s = sizes_of(model);
    size_t n = 0;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        input in;
        if (!find_input(io, prefixes[i], s.p, &in)) continue;
        answer a = see_input(model, &in);
        compare_answer(&in, &a, &s, most);
        free_answer(&a);
        free(in.image);
        n++;
    }
    return n;
}

static void report(const char *name, const char *how, const char *what, double off, double most)
{
    char title[96];
    snprintf(title, sizeof title, "%s %s %s", name, how, what);
    model_report(title, off, most);
}

static void report_worst(const char *name, const char *how, const worst *most, double tolerance)
{
    report(name, how, "logits", most->logits, tolerance);
    report(name, how, "features", most->features, tolerance);
    report(name, how, "blocks", most->blocks, tolerance);
    if (most->class_tokens > 0.0)
        report(name, how, "class tokens", most->class_tokens, tolerance);
    else
        report(name, how, "pooled", most->pooled, tolerance);
}

static double tolerance_of(const char *level, double usual)
{
    return strcmp(level, "amx") ? usual : AMX_TOLERANCE;
}

static void test_small(void **state)
{
    (void)state;
    const char *levels[5];
    const size_t n_levels = vision_levels(levels, true);
    print_message(
        "h_adapter, h2_adapter_*: detection backbones, which this version does not run\n");
    for (size_t i = 0; i < N_SMALL; i++) {
        NEED_SMALL(weights, io_path, small_names[i]);
        cv_checkpoint io;
        open_io(io_path, &io);
        for (size_t level = 0; level < n_levels; level++) {
            worst most = { 0 };
            corvid_model *model = vision_open(weights, 2, levels[level]);
            assert_true(check_inputs(model, &io, &most) > 0);
            report_worst(small_names[i], levels[level], &most,
                         tolerance_of(levels[level], SMALL_TOLERANCE));
            corvid_model_close(model);
        }
        cv_checkpoint_close(&io);
    }
}

/* ---- What the GPU kernels compute ------------------------------------------------------------ */

static corvid_model *open_mode(const char *path, const char *bi_wkv, const char *norm)
{
    corvid_error err;
    corvid_model *model;
    corvid_model_options options;
    corvid_model_defaults(&options);
    options.n_threads = 2;
    options.cpu = "ref";
    options.bi_wkv = bi_wkv;
    options.norm = norm;
    ASSERT_OK(corvid_model_open(path, &options, &model, &err), &err);
    return model;
}

/* Returns how many inputs the file has such logits for. */
static size_t check_mode(const char *name, const char *mode)
{
    const char *weights = small_file(name, "weights"), *io_path = small_file(name, "io");
    char what[32];
    cv_checkpoint io;
    worst most = { 0 };
    size_t n = 0;
    snprintf(what, sizeof what, "logits_%s", mode);
    open_io(io_path, &io);
    corvid_model *model = open_mode(weights, mode, NULL);
    const sizes s = sizes_of(model);
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        input in;
        if (!find_input(&io, prefixes[i], s.p, &in)) continue;
        if (has(&in, what)) {
            answer a = see_input(model, &in);
            raise_to(&most.cuda, compare(&in, what, a.logits, in.B * s.K));
            /* It is another formula, and not this one a little off. */
            assert_true(compare(&in, "logits", a.logits, in.B * s.K) > 2 * SMALL_TOLERANCE);
            free_answer(&a);
            n++;
        }
        free(in.image);
    }
    if (n) report(name, "", what, most.cuda, SMALL_TOLERANCE);
    corvid_model_close(model);
    cv_checkpoint_close(&io);
    return n;
}

static void test_gpu_modes(void **state)
{
    (void)state;
    size_t n = 0;
    NEED_SMALL(weights, io_path, "a_pre");
    for (size_t i = 0; i < N_SMALL; i++)
        n += check_mode(small_names[i], "cuda16") + check_mode(small_names[i], "cuda32");
    assert_int_equal(n, 20); /* a, b, c: three inputs each, b2: one; both modes */
}

/* ---- Several pictures at once ---------------------------------------------------------------- */

/* All inputs of the file, one picture at a time. */
static size_t see_alone(corvid_model *model, const input *ins, size_t n, answer *alone)
{
    corvid_error err;
    int wanted[MOST_LAYERS];
    const sizes s = sizes_of(model);
    size_t pictures = 0;
    all_layers(s.L, wanted);
    for (size_t i = 0; i < n; i++) {
        alone[i] = new_answer(&ins[i], &s);
        for (size_t b = 0; b < ins[i].B; b++, pictures++) {
            const corvid_view view = view_of(&ins[i], &alone[i], &s, b);
            ASSERT_OK(corvid_see(model, &view, 1, wanted, s.L, &err), &err);
        }
    }
    return pictures;
}

/* The same in one call, the inputs' pictures in turn. */
static void see_together(corvid_model *model, const input *ins, size_t n, answer *together)
{
    corvid_error err;
    int wanted[MOST_LAYERS];
    corvid_view views[MOST_PICTURES];
    size_t n_views = 0;
    const sizes s = sizes_of(model);
    all_layers(s.L, wanted);
    for (size_t i = 0; i < n; i++)
        together[i] = new_answer(&ins[i], &s);
    for (size_t b = 0; b < MOST_PICTURES; b++)
        for (size_t i = n; i-- > 0;)
            if (b < ins[i].B) views[n_views++] = view_of(&ins[i], &together[i], &s, b);
    ASSERT_OK(corvid_see(model, views, n_views, wanted, s.L, &err), &err);
}

static void check_same(const input *in, const sizes *s, const answer *a, const answer *b)
{
    model_same_bits("logits", a->logits, b->logits, in->B * s->K * sizeof(float));
    model_same_bits("pooled", a->pooled, b->pooled, in->B * s->C * sizeof(float));
    model_same_bits("features", a->features, b->features,
                    in->B * a->feature_floats * sizeof(float));
    if (s->class_token)
        model_same_bits("class tokens", a->class_tokens, b->class_tokens,
                        in->B * s->L * s->C * sizeof(float));
}

static void test_batches(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SMALL; i++) {
        NEED_SMALL(weights, io_path, small_names[i]);
        cv_checkpoint io;
        input ins[3];
        answer alone[3], together[3];
        size_t n = 0;
        open_io(io_path, &io);
        corvid_model *model = vision_open(weights, 2, NULL);
        const sizes s = sizes_of(model);
        for (size_t j = 0; j < 3; j++)
            if (find_input(&io, prefixes[j], s.p, &ins[n])) n++;
        const size_t pictures = see_alone(model, ins, n, alone);
        see_together(model, ins, n, together);
        for (size_t j = 0; j < n; j++) {
            check_same(&ins[j], &s, &alone[j], &together[j]);
            free_answer(&alone[j]);
            free_answer(&together[j]);
            free(ins[j].image);
        }
        print_message("%-24s %zu pictures of %zu sizes, alone and together: the same bits\n",
                      small_names[i], pictures, n);
        corvid_model_close(model);
        cv_checkpoint_close(&io);
    }
}

/* ---- Other files of the same model ----------------------------------------------------------- */

static void check_file(const char *title, const char *path, const char *norm, const char *io_path,
                       double tolerance)
{
    cv_checkpoint io;
    worst most = { 0 };
    open_io(io_path, &io);
    corvid_model *model = open_mode(path, NULL, norm);
    assert_true(check_inputs(model, &io, &most) > 0);
    report(title, "", "logits", most.logits, tolerance);
    report(title, "", "features", most.features, tolerance);
    corvid_model_close(model);
    cv_checkpoint_close(&io);
}

/* What names do not tell goes along when a file is converted. */
static void test_converted(void **state)
{
    (void)state;
    static const char *const targets[] = { "small.gguf", "small.safetensors" };
    for (size_t i = 0; i < N_SMALL; i++) {
        NEED_SMALL(weights, io_path, small_names[i]);
        for (size_t j = 0; j < 2; j++) {
            corvid_error err;
            char title[64];
            const char *path = test_scratch(targets[j]);
            snprintf(title, sizeof title, "%s as %s", small_names[i], strchr(targets[j], '.') + 1);
            ASSERT_OK(corvid_convert(weights, path, NULL, &err), &err);
            check_file(title, path, NULL, io_path, SMALL_TOLERANCE);
        }
    }
}

/* Without the configuration the place of the norms is a guess, which an option can overrule. */
static void test_norm_option(void **state)
{
    (void)state;
    NEED_SMALL(weights, io_path, "b2_pre_gamma");
    const char *bare = test_scratch("bare.safetensors");
    const model_copy how = { .format = CV_SAFETENSORS };
    cv_checkpoint io;
    worst most = { 0 };
    model_copy_write(weights, bare, &how);
    check_file("b2_pre_gamma without config, norm pre", bare, "pre", io_path, SMALL_TOLERANCE);

    open_io(io_path, &io);
    corvid_model *model = open_mode(bare, NULL, NULL); /* guessed: layer scale means post */
    check_inputs(model, &io, &most);
    assert_true(most.logits > 1e-3);
    corvid_model_close(model);
    cv_checkpoint_close(&io);

    check_file("b2_pre_gamma with config, norm auto", weights, "auto", io_path, SMALL_TOLERANCE);
    const char *b_weights = small_file("b_post_gamma", "weights");
    const char *b_io = small_file("b_post_gamma", "io");
    check_file("b_post_gamma, norm post", b_weights, "post", b_io, SMALL_TOLERANCE);
    model_copy_write(b_weights, bare, &how);
    check_file("b_post_gamma without config", bare, NULL, b_io, SMALL_TOLERANCE);
}

/* The ways in which training scripts wrap their state. */
static void test_pickles(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double tolerance;
    } files[] = { { "mmcls_zip", SMALL_TOLERANCE },
                  { "mmcls_legacy", SMALL_TOLERANCE },
                  { "raw_zip", SMALL_TOLERANCE },
                  { "internimage_zip", SMALL_TOLERANCE },
                  { "module_half_legacy", 2e-3 } }; /* weights to 11 bits; 8.7e-4 was seen */
    NEED_SMALL(weights, io_path, "a_pre");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char relative[96];
        snprintf(relative, sizeof relative, "vrwkv-golden/pickle/a_pre.%s.pth", files[i].name);
        NEED_DATA(path, relative);
        check_file(strrchr(path, '/') + 1, path, NULL, io_path, files[i].tolerance);
    }
}

/* ---- A model of real size with f16 weights --------------------------------------------------- */

typedef struct full_size {
    const char *prefix;
    size_t height, width;
} full_size;
static const full_size full_sizes[] = { { "224", 224, 224 },
                                        { "384", 384, 384 },
                                        { "rect224x320", 224, 320 },
                                        { "odd200x300", 200, 300 },
                                        { "112", 112, 112 } };
#define N_FULL (sizeof full_sizes / sizeof *full_sizes)

static input full_input(const cv_checkpoint *io, const full_size *size)
{
    const size_t n = 3 * size->height * size->width;
    input in = { .io = io,
                 .prefix = size->prefix,
                 .B = 1,
                 .height = size->height,
                 .width = size->width,
                 .h = (size->height + 15) / 16,
                 .w = (size->width + 15) / 16 };
    float *image = vision_tensor(io, key_of(&in, "image"), NULL);
    in.image = malloc(n * sizeof(float));
    assert_non_null(in.image);
    vision_generate("input.image", 0.0, sqrt(3.0), 0, n, in.image);
    if (image) model_same_bits("the generated picture", in.image, image, n * sizeof(float));
    free(image);
    return in;
}

static void compare_full(const input *in, const answer *a, const sizes *s, worst *most)
{
    static const char *const blocks[] = { "block0", "block5" };
    static const size_t layers[] = { 0, 5 }; /* block11 is before the final norm */
    raise_to(&most->logits, compare(in, "logits", a->logits, s->K));
    raise_to(&most->pooled, compare(in, "pooled", a->pooled, s->C));
    if (!has(in, "feat")) return;
    for (size_t i = 0; i < 2; i++) {
        float *got = gather_block(in, a, s, layers[i]);
        raise_to(&most->blocks, compare(in, blocks[i], got, s->C * in->h * in->w));
        free(got);
    }
    float *last = gather_features(in, a, s, s->L - 1);
    raise_to(&most->features, compare(in, "feat", last, s->C * in->h * in->w));
    free(last);
}

static void check_full(const char *weights, const cv_checkpoint *io, const char *cpu, bool all,
                       double tolerance)
{
    corvid_model *model = vision_open(weights, 2, cpu);
    const corvid_model_info info = vision_info(model);
    const sizes s = sizes_of(model);
    assert_string_equal(info.weight_type, "f16");
    assert_int_equal(info.native, 224);
    for (size_t i = 0; i < N_FULL; i++) {
        char how[64];
        worst most = { 0 };
        if (!all && i != 0 && i != 4) continue;
        input in = full_input(io, &full_sizes[i]);
        answer a = see_input(model, &in);
        compare_full(&in, &a, &s, &most);
        snprintf(how, sizeof how, "%s%s, %s", cpu ? "" : "default: ", info.cpu, in.prefix);
        report("vrwkv_t_f16", how, "logits", most.logits, tolerance);
        report("vrwkv_t_f16", how, "pooled", most.pooled, tolerance);
        if (i == 0) report("vrwkv_t_f16", how, "features", most.features, tolerance);
        if (i == 0) report("vrwkv_t_f16", how, "blocks", most.blocks, tolerance);
        free_answer(&a);
        free(in.image);
    }
    corvid_model_close(model);
}

static void test_full_size(void **state)
{
    (void)state;
    const char *levels[5];
    const size_t n_levels = vision_levels(levels, false);
    NEED_DATA(weights, "vrwkv-golden/published/vrwkv_t_f16.weights.safetensors");
    NEED_DATA(io_path, "vrwkv-golden/published/vrwkv_t_f16.io.safetensors");
    cv_checkpoint io;
    open_io(io_path, &io);
    for (size_t i = 0; i < n_levels; i++) /* plain C takes a while */
        check_full(weights, &io, levels[i], strcmp(levels[i], "ref") != 0, FULL_TOLERANCE);
    check_full(weights, &io, NULL, true, AMX_TOLERANCE);
    cv_checkpoint_close(&io);
}

static void test_full_size_gpu_mode(void **state)
{
    (void)state;
    const char *levels[5];
    const size_t n_levels = vision_levels(levels, false);
    NEED_DATA(weights, "vrwkv-golden/published/vrwkv_t_f16.weights.safetensors");
    NEED_DATA(io_path, "vrwkv-golden/published/vrwkv_t_f16.io.safetensors");
    cv_checkpoint io;
    corvid_error err;
    corvid_model *model;
    corvid_model_options options;
    open_io(io_path, &io);
    corvid_model_defaults(&options);
    options.n_threads = 2;
    options.cpu = levels[n_levels - 1];
    options.bi_wkv = "cuda32";
    ASSERT_OK(corvid_model_open(weights, &options, &model, &err), &err);
    const sizes s = sizes_of(model);
    size_t n = 0;
    for (size_t i = 0; i < N_FULL; i++) {
        input in = full_input(&io, &full_sizes[i]);
        if (has(&in, "logits_cuda32")) {
            answer a = see_input(model, &in);
            report("vrwkv_t_f16", in.prefix, "logits_cuda32",
                   compare(&in, "logits_cuda32", a.logits, s.K), FULL_TOLERANCE);
            free_answer(&a);
            n++;
        }
        free(in.image);
    }
    assert_int_equal(n, 3);
    corvid_model_close(model);
    cv_checkpoint_close(&io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),       cmocka_unit_test(test_gpu_modes),
        cmocka_unit_test(test_batches),     cmocka_unit_test(test_converted),
        cmocka_unit_test(test_norm_option), cmocka_unit_test(test_pickles),
        cmocka_unit_test(test_full_size),   cmocka_unit_test(test_full_size_gpu_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
