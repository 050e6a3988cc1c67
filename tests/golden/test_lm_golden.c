/* test_lm_golden.c - whole language models against numbers that were made elsewhere.
 *
 * The random models lm_v*, the tiny trained ones with rwkv.cpp's expected logits, and this project's
 * float64 references of those.  Before the double-precision reference of tests/support is used by
 * other tests, it has to give the same numbers here. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "corvid.h"
#include "model_files.h"
#include "reference.h"
#include "support.h"

#define V_TINY   256
#define N_PROMPT 70
static const char PROMPT[] =
    "This is a port of [BlinkDL/RWKV-LM](https://github.com/BlinkDL/RWKV-LM";

static void prompt_tokens(int32_t tokens[N_PROMPT])
{
    assert_int_equal(strlen(PROMPT), N_PROMPT);
    for (size_t i = 0; i < N_PROMPT; i++)
        tokens[i] = (unsigned char)PROMPT[i];
}

static size_t argmax(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* -ln of the probability of token, in double. */
static double nll(const float *logits, size_t V, size_t token)
{
    double top = -HUGE_VAL, sum = 0.0;
    for (size_t i = 0; i < V; i++)
        top = fmax(top, (double)logits[i]);
    for (size_t i = 0; i < V; i++)
        sum += exp((double)logits[i] - top);
    return log(sum) + top - (double)logits[token];
}

/* ---- lm_v* ----------------------------------------------------------------------------------- */

#define T_LM 20
static const char *const lm_names[] = { "v4", "v5_0", "v5_1", "v5_2", "v6", "v7" };
#define N_LM (sizeof lm_names / sizeof *lm_names)

static void lm_tokens(const ref_model *ref, const char *which, int32_t tokens[T_LM])
{
    const ref_tensor *t = ref_find(ref, which);
    assert_non_null(t);
    assert_int_equal(t->count, T_LM);
    for (size_t i = 0; i < T_LM; i++)
        tokens[i] = (int32_t)t->x[i];
}

/* The library over one file made from lm_*: logits of every row, and the loss. */
static void check_lm_file(const char *title, const char *path, const ref_model *ref)
{
    corvid_error err;
    int32_t tokens[T_LM], targets[T_LM];
    lm_tokens(ref, "tokens", tokens);
    lm_tokens(ref, "targets", targets);
    corvid_model *model = model_open(path, 2, 0);
    corvid_stream *stream = model_stream(model);
    const size_t V = model_vocab(model);
    float *logits = malloc(T_LM * V * sizeof *logits);
    assert_non_null(logits);
    ASSERT_OK(corvid_feed_all(stream, tokens, T_LM, logits, &err), &err);

    const ref_tensor *expected = ref_find(ref, "logits");
    assert_int_equal(expected->count, T_LM * V);
    char line[96];
    snprintf(line, sizeof line, "%s logits", title);
    model_report(line, model_difference_to(logits, expected->x, T_LM * V), 1e-4);
    double loss = 0.0;
    for (size_t t = 0; t < T_LM; t++)
        loss += nll(logits + t * V, V, (size_t)targets[t]) / T_LM;
    snprintf(line, sizeof line, "%s loss", title);
    model_report(line, fabs(loss - ref_find(ref, "loss")->x[0]), 1e-5);
    free(logits);
    corvid_stream_free(stream);
    corvid_model_close(model);
}

/* The parameters as they are (f64) and in f32, without "param.".  [lm.skeleton] */
static void test_lm(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_LM; i++) {
        char relative[64], title[64];
        snprintf(relative, sizeof relative, "rwkv-tiny/reference/lm_%s.safetensors", lm_names[i]);
        NEED_DATA(path, relative);
        ref_model *ref = ref_open(path, 0);
        for (int f32 = 0; f32 < 2; f32++) {
            const char *copy = test_scratch("lm.safetensors");
            model_copy how = { .format = CV_SAFETENSORS, .prefix = "param.", .as_f32 = f32 };
            model_copy_write(path, copy, &how);
            snprintf(title, sizeof title, "lm_%s %s", lm_names[i], f32 ? "f32" : "f64");
            check_lm_file(title, copy, ref);
        }
        ref_close(ref);
    }
}

/* The reference itself. */
static void test_reference_lm(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_LM; i++) {
        char relative[64], title[64];
        snprintf(relative, sizeof relative, "rwkv-tiny/reference/lm_%s.safetensors", lm_names[i]);
        NEED_DATA(path, relative);
        ref_model *ref = ref_open(path, 0);
        const ref_tensor *expected = ref_find(ref, "logits");
        double *logits = malloc(expected->count * sizeof *logits), most = 0.0;
        int32_t tokens[T_LM];
        assert_non_null(logits);
        lm_tokens(ref, "tokens", tokens);
        ref_feed(ref, tokens, T_LM, logits);
        for (size_t j = 0; j < expected->count; j++)
            most = fmax(most, fabs(logits[j] - expected->x[j]));
        snprintf(title, sizeof title, "reference lm_%s", lm_names[i]);
        model_report(title, most, 1e-11);
        free(logits);
        ref_close(ref);
    }
}

/* ---- rwkv.cpp's expected logits after three bytes -------------------------------------------- */

typedef struct expectation {
    const char *stem, *type;
    double eps;
    double exact, unit; /* largest difference of an exact evaluation, and its last digit */
    double sum;         /* of the differences, with sign; as rwkv.cpp's own test has it  */
    size_t argmax;      /* 0: not asked for                                              */
} expectation;

/* The tables of the reference numbers.  exact 0: FP32, which has to be below 1e-4.
 *
 * rwkv.cpp passes itself when the sum stays within 1.05 of what it gave when its test was written,
 * with activations quantized.  Three files cannot pass with exact activations, as the
 * double-precision evaluation shows (sums of 23.1618, 0.0753 and 0.0733 against bounds of 22.2094,
 * 0.0668 and 0.0679); their sum is 0 here, and they are held to that evaluation alone. */
static const expectation expectations[] = {
    { "4v0-660K", "FP32", 0, 0, 0, 0.001, 115 },
    { "5v1-730K", "FP32", 1e-5, 0, 0, 0.001, 112 },
    { "5v2-730K", "FP32", 1e-5, 0, 0, 0.001, 112 },
    { "7v0-834K", "FP32", 0, 0, 0, 0.001, 32 },
    { "4v0-660K", "FP16", 0, 1.6e-3, 1e-4, 0.013652, 115 },
    { "5v1-730K", "FP16", 1e-5, 4.4e-3, 1e-4, 0.289921, 112 },
    { "5v2-730K", "FP16", 1e-5, 2.5e-3, 1e-4, 0.455912, 112 },
    { "7v0-834K", "FP16", 0, 3.8e-7, 1e-8, 0.005766, 32 },
    { "4v0-660K", "Q5_0", 0, 0.123, 1e-3, 0.170404, 115 },
    { "5v1-730K", "Q5_0", 1e-5, 1.74, 1e-2, 163.439407, 0 },
    { "5v2-730K", "Q5_0", 1e-5, 0.51, 1e-2, 25.273308, 0 },
    { "6v0-3m", "Q5_0", 0, 0.157, 1e-3, 0, 0 },
    { "7v0-834K", "Q5_0", 0, 0.0037, 1e-4, 0, 32 },
    { "4v0-660K", "Q5_1", 0, 0.096, 1e-3, 0.278034, 115 },
    { "5v1-730K", "Q5_1", 1e-5, 0.278, 1e-3, 18.017435, 0 },
    { "5v2-730K", "Q5_1", 1e-5, 0.371, 1e-3, 48.068733, 0 },
    { "6v0-3m", "Q5_1", 0, 0.0757, 1e-4, 3.576909, 0 },
    { "7v0-834K", "Q5_1", 0, 0.0042, 1e-4, 0, 32 },
};

static double signed_sum(const float *logits, const float *expected)
{
    double sum = 0.0;
    for (size_t i = 0; i < V_TINY; i++)
        sum += (double)logits[i] - (double)expected[i];
    return sum;
}

/* Judges the logits of one way of feeding against rwkv.cpp's, and against double precision. */
static void judge(const expectation *e, const char *way, const float *logits, const float *expected,
                  const double *exact)
{
    char title[96];
    const double difference = model_difference(logits, expected, V_TINY);
    snprintf(title, sizeof title, "%s %s %s", e->stem, e->type, way);
    if (e->exact == 0.0) {
        model_report(title, difference, 1e-4);
    } else {
        /* To the digits that were written down, and what f32 adds. */
        print_message("%-56s %.4g, exactly evaluated %.4g\n", title, difference, e->exact);
        snprintf(title, sizeof title, "%s %s %s off the exact figure", e->stem, e->type, way);
        model_report(title, fabs(difference - e->exact), 0.5 * e->unit + 1e-5);
    }
    snprintf(title, sizeof title, "%s %s %s off double precision", e->stem, e->type, way);
    model_report(title, model_difference_to(logits, exact, V_TINY), 1e-4);
    snprintf(title, sizeof title, "%s %s %s signed sum", e->stem, e->type, way);
    if (e->sum > 0.0) model_report(title, fabs(signed_sum(logits, expected)), 1.05 * e->sum);
    if (e->argmax) assert_int_equal(argmax(logits, V_TINY), e->argmax);
}

static void test_expected_logits(void **state)
{
    (void)state;
    static const int32_t tokens[3] = { 0x22, 0x69, 0x6e };
    for (size_t i = 0; i < sizeof expectations / sizeof *expectations; i++) {
        const expectation *e = &expectations[i];
        corvid_error err;
        char relative[96], name[64];
        snprintf(relative, sizeof relative, "rwkv-tiny/tiny-rwkv-%s-%s.bin", e->stem, e->type);
        NEED_DATA(path, relative);
        snprintf(name, sizeof name, "rwkv-tiny/expected-logits-%s.bin", e->stem);
        NEED_DATA(expected_path, name);
        size_t n;
        char *expected = test_read_file(expected_path, &n);
        assert_int_equal(n, V_TINY * sizeof(float));

        corvid_model *model = model_open(path, 2, e->eps);
        corvid_stream *stream = model_stream(model);
        float steps[V_TINY], whole[V_TINY];
        double exact[3 * V_TINY];
        ref_model *ref = ref_open(path, e->eps);
        ref_feed(ref, tokens, 3, exact);
        ref_close(ref);
        for (size_t t = 0; t < 3; t++)
            ASSERT_OK(corvid_feed(stream, tokens + t, 1, steps, &err), &err);
        judge(e, "by token", steps, (const float *)(const void *)expected, exact + 2 * V_TINY);
        corvid_stream_reset(stream);
        ASSERT_OK(corvid_feed(stream, tokens, 3, whole, &err), &err);
        judge(e, "at once", whole, (const float *)(const void *)expected, exact + 2 * V_TINY);
        model_same_bits("by token and at once", steps, whole, sizeof steps);
        corvid_stream_free(stream);
        corvid_model_close(model);
        free(expected);
    }
}

/* With the official epsilon rwkv.cpp's figures of v5 are missed by what is written down: the option
 * does something, and its default is the official one. */
static void test_group_norm_eps(void **state)
{
    (void)state;
    static const int32_t tokens[3] = { 0x22, 0x69, 0x6e };
    static const struct {
        const char *stem;
        double off;
    } cases[] = { { "5v1-730K", 1.31 }, { "5v2-730K", 1.09 } };
    for (size_t i = 0; i < 2; i++) {
        corvid_error err;
        char relative[96], name[64];
        snprintf(relative, sizeof relative, "rwkv-tiny/tiny-rwkv-%s-FP32.bin", cases[i].stem);
        NEED_DATA(path, relative);
        snprintf(name, sizeof name, "rwkv-tiny/expected-logits-%s.bin", cases[i].stem);
        NEED_DATA(expected_path, name);
        char *expected = test_read_file(expected_path, NULL);
        corvid_model *model = model_open(path, 1, 0);
        corvid_stream *stream = model_stream(model);
        float logits[V_TINY];
        ASSERT_OK(corvid_feed(stream, tokens, 3, logits, &err), &err);
        const double difference =
            model_difference(logits, (const float *)(const void *)expected, V_TINY);
        snprintf(name, sizeof name, "%s official epsilon, off the figure", cases[i].stem);
        model_report(name, fabs(difference - cases[i].off), 0.005 + 1e-5);
        corvid_stream_free(stream);
        corvid_model_close(model);
        free(expected);
    }
}

/* ---- The float64 references over the 70-byte prompt ------------------------------------------ */

typedef struct golden {
    char name[64];
    double eps, mean_nll;
    unsigned last_argmax, greedy[16];
} golden;

/* One line of index.tsv: name, mean_nll=, last_argmax=, greedy16=. */
static bool read_line(const char *line, golden *g)
{
    int at = 0;
    if (sscanf(line, "%63s mean_nll=%lf last_argmax=%u greedy16=%n", g->name, &g->mean_nll,
               &g->last_argmax, &at) != 3 ||
        at == 0)
        return false;
    char *end;
    line += at;
    for (size_t i = 0; i < 16; i++, line = end)
        g->greedy[i] = (unsigned)strtoul(line, &end, 10);
    char *eps = strstr(g->name, "-gneps");
    g->eps = eps ? strtod(eps + 6, NULL) : 0.0;
    return true;
}

/* The tiny model that a reference is of. */
static const char *model_of(const golden *g)
{
    char relative[128];
    const char *eps = strstr(g->name, "-gneps");
    const int n = eps ? (int)(eps - g->name) : (int)strlen(g->name);
    snprintf(relative, sizeof relative, "rwkv-tiny/tiny-rwkv-%.*s.bin", n, g->name);
    return test_data(relative);
}

static float *read_floats(const golden *g, const char *what, size_t *n)
{
    char relative[128];
    snprintf(relative, sizeof relative, "rwkv-tiny/reference/%s.%s.f32", g->name, what);
    const char *path = test_data(relative);
    if (!path) fail_msg("no %s in the reference data, which index.tsv names", relative);
    char *bytes = test_read_file(path, n);
    *n /= sizeof(float);
    return (float *)(void *)bytes;
}

/* Each vector of a state against its own largest number. */
static double state_difference(const float *a, const float *b, size_t n_layers, size_t floats,
                               size_t C, bool v4)
{
    double most = 0.0;
    const size_t size = floats / n_layers, n_parts = v4 ? 5 : 3;
    for (size_t l = 0; l < n_layers; l++)
        for (size_t p = 0; p < n_parts; p++) {
            const size_t at = l * size + p * C, n = v4 || p < 2 ? C : size - 2 * C;
            double top = 0.0;
            for (size_t i = 0; i < n; i++)
                top = fmax(top, fabs((double)b[at + i]));
            most = fmax(most, model_difference(a + at, b + at, n) / top);
        }
    return most;
}

static void check_greedy(corvid_stream *stream, const golden *g, const float *last)
{
    corvid_error err;
    float logits[V_TINY];
    memcpy(logits, last, sizeof logits);
    assert_int_equal(argmax(logits, V_TINY), g->last_argmax);
    for (size_t i = 0; i < 16; i++) {
        const int32_t next = (int32_t)argmax(logits, V_TINY);
        if ((unsigned)next != g->greedy[i])
            fail_msg("%s: greedy byte %zu is %d, expected %u", g->name, i, (int)next, g->greedy[i]);
        ASSERT_OK(corvid_feed(stream, &next, 1, logits, &err), &err);
    }
}

static void check_golden(const golden *g)
{
    corvid_error err;
    char title[96];
    int32_t tokens[N_PROMPT];
    size_t n_logits, n_state;
    prompt_tokens(tokens);
    const char *path = model_of(g);
    if (!path) fail_msg("no model of %s in the reference data", g->name);
    corvid_model *model = model_open(path, 2, g->eps);
    corvid_model_info info = { .struct_size = sizeof info };
    ASSERT_OK(corvid_model_get_info(model, &info, &err), &err);
    corvid_stream *stream = model_stream(model);
    float *expected = read_floats(g, "logits", &n_logits);
    float *expected_state = read_floats(g, "state", &n_state);
    float *logits = malloc(N_PROMPT * V_TINY * sizeof *logits);
    float *values = malloc(n_state * sizeof *values);
    assert_true(logits && values);
    assert_int_equal(n_logits, N_PROMPT * V_TINY);
    assert_int_equal(n_state, corvid_state_floats(model));

    ASSERT_OK(corvid_feed_all(stream, tokens, N_PROMPT, logits, &err), &err);
    ASSERT_OK(corvid_state_get(stream, values, &err), &err);
    snprintf(title, sizeof title, "%s logits", g->name);
    model_report(title, model_difference(logits, expected, n_logits), 1e-3);
    snprintf(title, sizeof title, "%s state, relative", g->name);
    model_report(title,
                 state_difference(values, expected_state, info.n_layers, n_state, info.n_embd,
                                  !strcmp(info.arch, "rwkv4")),
                 1e-4);
    for (size_t t = 0; t < N_PROMPT; t++)
        assert_int_equal(argmax(logits + t * V_TINY, V_TINY),
                         argmax(expected + t * V_TINY, V_TINY));

    corvid_stream_reset(stream);
    double scores[N_PROMPT], mean = 0.0;
    float last[V_TINY];
    ASSERT_OK(corvid_score(stream, tokens, N_PROMPT, NULL, scores, NULL, last, &err), &err);
    assert_true(scores[0] == 0.0);
    for (size_t t = 1; t < N_PROMPT; t++)
        mean -= scores[t] / (N_PROMPT - 1);
    snprintf(title, sizeof title, "%s mean NLL", g->name);
    model_report(title, fabs(mean - g->mean_nll), 1e-5);
    model_same_bits("scoring and feeding", last, logits + (N_PROMPT - 1) * V_TINY, sizeof last);
    check_greedy(stream, g, last);

    free(expected);
    free(expected_state);
    free(logits);
    free(values);
    corvid_stream_free(stream);
    corvid_model_close(model);
}

/* Calls each(golden) for every line of the index; returns how many there are. */
static size_t each_golden(const char *index, void (*each)(const golden *g))
{
    size_t n = 0;
    char *text = test_read_file(index, NULL);
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        golden g;
        if (!*line) continue;
        if (!read_line(line, &g)) fail_msg("%s: line \"%s\" is not understood", index, line);
        each(&g);
        n++;
    }
    free(text);
    return n;
}

static void test_prompt(void **state)
{
    (void)state;
    NEED_DATA(index, "rwkv-tiny/reference/index.tsv");
    assert_int_equal(each_golden(index, check_golden), 9);
}

/* The double-precision reference over rwkv.cpp files: their turned, fused and transformed tensors. */
static void check_reference(const golden *g)
{
    char title[96];
    int32_t tokens[N_PROMPT];
    size_t n_logits, n_state;
    prompt_tokens(tokens);
    ref_model *ref = ref_open(model_of(g), g->eps);
    float *expected = read_floats(g, "logits", &n_logits);
    float *state = read_floats(g, "state", &n_state);
    double *logits = malloc(n_logits * sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(n_state, ref->L * ref->layer_floats);
    ref_feed(ref, tokens, N_PROMPT, logits);
    snprintf(title, sizeof title, "reference %s logits", g->name);
    /* The files hold f32: half a unit in the last place of numbers up to 64. */
    model_report(title, model_difference_to(expected, logits, n_logits), 4e-6);
    double top = 0.0;
    for (size_t i = 0; i < n_state; i++)
        top = fmax(top, fabs(ref->state[i]));
    snprintf(title, sizeof title, "reference %s state, of its largest", g->name);
    model_report(title, model_difference_to(state, ref->state, n_state) / top, 1e-7);
    free(expected);
    free(state);
    free(logits);
    ref_close(ref);
}

static void test_reference_prompt(void **state)
{
    (void)state;
    NEED_DATA(index, "rwkv-tiny/reference/index.tsv");
    assert_int_equal(each_golden(index, check_reference), 9);
}

/* ---- The task model -------------------------------------------------------------------------- */

/* Names of its own and a branch that is none of ours: refused with a sentence. */
static void test_task_model_refused(void **state)
{
    (void)state;
    corvid_error err = { 0 };
    corvid_model *model = NULL;
    NEED_DATA(path, "rwkv-tiny/260123_reverse_L2_only_rwkv7.pth");
    assert_int_equal(corvid_model_open(path, NULL, &model, &err), CORVID_E_FORMAT);
    assert_null(model);
    assert_int_equal(err.status, CORVID_E_FORMAT);
    print_message("%s\n", err.text);
    assert_true(strlen(err.text) > 40 && strchr(err.text, ' '));
    assert_non_null(strstr(err.text, "ROSA"));
}

enum { T_TASK = 129, COMMA = 10, HASH = 11 };

/* "N,reverse(N)###...": right answers from the comma on; *wanted counts what there was to answer. */
static size_t reverse_one(ref_model *ref, uint64_t *seed, size_t digits, size_t *wanted)
{
    int32_t tokens[T_TASK];
    double *logits = malloc(T_TASK * ref->V * sizeof *logits);
    assert_non_null(logits);
    for (size_t i = 0; i < T_TASK; i++)
        tokens[i] = HASH;
    for (size_t i = 0; i < digits; i++) {
        tokens[i] = (int32_t)(i == 0 ? 1 + model_random(seed, 9) : model_random(seed, 10));
        tokens[2 * digits - i] = tokens[i];
    }
    tokens[digits] = COMMA;
    ref_reset(ref);
    ref_feed(ref, tokens, T_TASK, logits);
    size_t right = 0;
    for (size_t t = digits; t <= 2 * digits; t++) {
        size_t best = 0;
        for (size_t i = 1; i < ref->V; i++)
            if (logits[t * ref->V + i] > logits[t * ref->V + best]) best = i;
        right += best == (size_t)tokens[t + 1];
    }
    *wanted += digits + 1;
    free(logits);
    return right;
}

/* What a trained v7 of head size 16 does: numbers of 1 to 60 digits, three each, come back
 * reversed.  It checks the reading of .pth and the reference, in which the file's biases are. */
static void test_task_model_reverses(void **state)
{
    (void)state;
    NEED_DATA(path, "rwkv-tiny/260123_reverse_L2_only_rwkv7.pth");
    ref_model *ref = ref_open(path, 0);
    assert_int_equal(ref->N, 16);
    assert_int_equal(ref->L, 2);
    size_t right = 0, wanted = 0;
    uint64_t seed = 3;
    for (size_t digits = 1; digits <= 60; digits++)
        for (int repeat = 0; repeat < 3; repeat++)
            right += reverse_one(ref, &seed, digits, &wanted);
    print_message("reverse task: %zu of %zu symbols\n", right, wanted);
    assert_int_equal(wanted, 5670);
    assert_int_equal(right, wanted);
    ref_close(ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_lm),
        cmocka_unit_test(test_reference_prompt),
        cmocka_unit_test(test_task_model_reverses),
        cmocka_unit_test(test_lm),
        cmocka_unit_test(test_expected_logits),
        cmocka_unit_test(test_group_norm_eps),
        cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_task_model_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
