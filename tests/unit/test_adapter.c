/* test_adapter.c - adapters and initial states that learn: their gradients against central
 * differences of a model of our own in double, the base that stays as it is, files that give back what
 * was saved, and a merged model that is the one that was learnt. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../hostile/model_draft.h"
#include "engine/merging.h"
#include "model_files.h"
#include "reference.h"
#include "support.h"
#include "teach.h"
#include "train/adapter.h"
#include "train/text_lesson.h"
#include "train/tuned_state.h"

enum { B = 3, T = 7, ROWS = B * T };

/* A small model as a file, as a learner, and as the reference. */
typedef struct lesson {
    const char *path;
    cv_checkpoint ckpt;
    cv_source source;
    cv_team *team;
    cv_learner learner;
    int32_t tokens[ROWS], targets[ROWS];
} lesson;

static cv_sizes two_layers(void)
{
    cv_sizes sizes = SMALL;
    sizes.L = 2;
    return sizes;
}

static const char *write_model(const cv_arch *arch, bool with_state)
{
    static draft d;
    cv_sizes sizes = two_layers();
    if (arch == &cv_rwkv4) {
        sizes.H = sizes.A;
        sizes.N = 1;
    }
    draft_model(&d, arch, CV_OFFICIAL, sizes);
    for (size_t l = 0; with_state && l < sizes.L; l++) {
        char name[64];
        snprintf(name, sizeof name, "blocks.%zu.att.time_state", l);
        add(&d, name, CV_F32, 3, (size_t[]){ sizes.H, sizes.N, sizes.N });
    }
    const char *path = test_scratch("small.safetensors");
    save(&d, path);
    return path;
}

static void open_lesson(lesson *l, const cv_arch *arch, size_t threads, bool with_state)
{
    corvid_error err;
    memset(l, 0, sizeof *l);
    l->path = write_model(arch, with_state);
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, l->path, &l->ckpt, &err), &err);
    ASSERT_OK(cv_source_open(&l->ckpt, &l->source, &err), &err);
    ASSERT_OK(cv_team_new(&cv_libc_allocator, threads, &l->team, &err), &err);
    ASSERT_OK(cv_learner_open(&cv_libc_allocator, l->team, cv_kernels_for(cv_cpu_best()),
                              &l->source, NULL, &l->learner, &err),
              &err);
    ASSERT_OK(cv_learner_room(&l->learner, B, T, &err), &err);
    model_tokens(3, ROWS, SMALL.V, l->tokens);
    model_tokens(4, ROWS, SMALL.V, l->targets);
}

static void close_lesson(lesson *l)
{
    cv_learner_close(&l->learner);
    cv_team_free(l->team);
    cv_checkpoint_close(&l->ckpt);
}

/* The loss, and all gradients of the model. */
static double learn(lesson *l)
{
    corvid_error err;
    double loss;
    const cv_batch batch = { .tokens = l->tokens,
                             .targets = l->targets,
                             .n_sequences = B,
                             .length = T,
                             .weight = 1.0 / ROWS };
    cv_learner_clear(&l->learner);
    ASSERT_OK(cv_learner_batch(&l->learner, &batch, &loss, &err), &err);
    cv_learner_gather(&l->learner);
    return loss;
}

static double reference_loss(ref_model *m, const lesson *l)
{
    double logits[T * 16], loss = 0.0;
    assert_int_equal(m->V, 16);
    for (size_t b = 0; b < B; b++) {
        ref_reset(m);
        ref_feed(m, l->tokens + b * T, T, logits);
        for (size_t t = 0; t < T; t++) {
            const double *row = logits + t * m->V;
            double sum = 0.0;
            for (size_t i = 0; i < m->V; i++)
                sum += exp(row[i]);
            loss += log(sum) - row[l->targets[b * T + t]];
        }
    }
    return loss / ROWS;
}

static const cv_adapter_settings usual = {
    .targets = "att.key,ffn.value,head", .rank = 3, .alpha = 6.0, .seed = 5
};

static void fill_B(cv_adapters *a, double size)
{
    uint64_t seed = 11;
    for (size_t i = 0; i < a->n; i++)
        for (size_t j = 0; j < a->items[i].factors.rank * a->items[i].factors.out; j++)
            a->items[i].B[j] = (float)(size * ((double)model_random(&seed, 2001) / 1000.0 - 1.0));
}

/* ---- gradients ------------------------------------------------------------------------------- */

/* W of the reference from base, A and B, as the formula has it. */
static void set_reference(ref_model *m, const cv_adapter *item)
{
    const cv_factors *f = &item->factors;
    double *W = ref_find(m, item->param->view.name)->x;
    for (size_t i = 0; i < f->out; i++)
        for (size_t j = 0; j < f->in; j++) {
            double sum = 0.0;
            for (size_t k = 0; k < f->rank; k++)
                sum += (double)item->B[i * f->rank + k] * (double)item->A[k * f->in + j];
            W[i * f->in + j] = (double)item->base[i * f->in + j] + 2.0 * sum;
        }
}

/* Moves one number of a factor, which moves a row or a column of W. */
static double slope_of(ref_model *m, const lesson *l, const cv_adapter *item, float *factor,
                       size_t at)
{
    const cv_factors *f = &item->factors;
    double *W = ref_find(m, item->param->view.name)->x;
    double loss[2];
    const double h = 1e-5;
    for (int side = 0; side < 2; side++) {
        const double by = side ? -h : h;
        set_reference(m, item);
        if (factor == item->A)
            for (size_t i = 0; i < f->out; i++)
                W[i * f->in + at % f->in] += 2.0 * by * (double)item->B[i * f->rank + at / f->in];
        else
            for (size_t j = 0; j < f->in; j++)
                W[at / f->rank * f->in + j] += 2.0 * by * (double)item->A[at % f->rank * f->in + j];
        loss[side] = reference_loss(m, l);
    }
    set_reference(m, item);
    return (loss[0] - loss[1]) / (2.0 * h);
}

static void check_gradients(const cv_arch *arch, size_t threads)
{
    corvid_error err;
    lesson l;
    cv_adapters a;
    double worst = 0.0;
    open_lesson(&l, arch, threads, false);
    ASSERT_OK(cv_adapters_open(&l.learner, &usual, &a, &err), &err);
    assert_int_equal(a.n, 5); /* two in each layer, and the head */
    fill_B(&a, 0.2);
    cv_adapters_apply(&a);
    ref_model *m = ref_open(l.path, 0);
    for (size_t i = 0; i < a.n; i++)
        set_reference(m, &a.items[i]);
    const double loss = learn(&l);
    cv_adapters_gather(&a);
    assert_true(fabs(loss - reference_loss(m, &l)) < 1e-5);
    for (size_t i = 0; i < a.n; i++) {
        const cv_adapter *item = &a.items[i];
        float *const factors[] = { item->A, item->B };
        const float *const gradients[] = { item->dA, item->dB };
        for (int side = 0; side < 2; side++) {
            double most = 0.0, off = 0.0;
            const size_t n = item->factors.rank * (side ? item->factors.out : item->factors.in);
            for (size_t j = 0; j < n; j++) {
                const double slope = slope_of(m, &l, item, factors[side], j);
                most = fmax(most, fabs(slope));
                off = fmax(off, fabs(slope - (double)gradients[side][j]));
            }
            assert_true(most > 1e-6);
            worst = fmax(worst, off / most);
        }
    }
    char what[96];
    snprintf(what, sizeof what, "%s, %zu threads: A and B", arch->name, threads);
    model_report(what, worst, 2e-5);
    ref_close(m);
    cv_adapters_close(&a);
    close_lesson(&l);
}

static void test_gradients(void **state)
{
    (void)state;
    const cv_arch *archs[] = { &cv_rwkv4, &cv_rwkv5_2, &cv_rwkv6, &cv_rwkv7 };
    for (size_t i = 0; i < COUNT(archs); i++)
        for (size_t threads = 1; threads <= 2; threads++)
            check_gradients(archs[i], threads);
}

static void check_state_gradient(const cv_arch *arch, size_t threads)
{
    corvid_error err;
    lesson l;
    cv_tuned_state s;
    double most = 0.0, worst = 0.0;
    open_lesson(&l, arch, threads, true);
    ASSERT_OK(cv_tuned_state_open(&l.learner, NULL, &s, &err), &err);
    ref_model *m = ref_open(l.path, 0);
    cv_tuned_state_clear(&s);
    const double loss = learn(&l);
    cv_tuned_state_gather(&s);
    assert_true(fabs(loss - reference_loss(m, &l)) < 1e-5);
    for (size_t layer = 0; layer < 2; layer++) {
        double *x = ref_find(m, s.params[layer].view.name)->x;
        for (size_t i = 0; i < s.memory; i++) {
            const double at = x[i], h = 1e-5;
            assert_true((float)at == s.params[layer].value[i]);
            x[i] = at + h;
            const double above = reference_loss(m, &l);
            x[i] = at - h;
            const double slope = (above - reference_loss(m, &l)) / (2.0 * h);
            x[i] = at;
            most = fmax(most, fabs(slope));
            worst = fmax(worst, fabs(slope - (double)s.params[layer].gradient[i]));
        }
    }
    char what[96];
    snprintf(what, sizeof what, "%s, %zu threads: initial state", arch->name, threads);
    assert_true(most > 1e-6);
    model_report(what, worst / most, 2e-5);
    ref_close(m);
    cv_tuned_state_close(&s);
    assert_null(l.learner.start);
    close_lesson(&l);
}

static void test_state_gradients(void **state)
{
    (void)state;
    const cv_arch *archs[] = { &cv_rwkv5_2, &cv_rwkv6, &cv_rwkv7 };
    for (size_t i = 0; i < COUNT(archs); i++)
        for (size_t threads = 1; threads <= 2; threads++)
            check_state_gradient(archs[i], threads);
}

/* On any number of threads the same bits. */
static void test_threads(void **state)
{
    (void)state;
    corvid_error err;
    float *first = NULL;
    size_t n = 0;
    for (size_t threads = 1; threads <= 4; threads++) {
        lesson l;
        cv_adapters a;
        open_lesson(&l, &cv_rwkv7, threads, false);
        cv_adapter_settings settings = usual;
        settings.targets = "att,ffn,head";
        ASSERT_OK(cv_adapters_open(&l.learner, &settings, &a, &err), &err);
        fill_B(&a, 0.2);
        cv_adapters_apply(&a);
        learn(&l);
        cv_adapters_gather(&a);
        const cv_adapter *last = &a.items[a.n - 1];
        n = (size_t)(last->dB - a.block) + last->factors.rank * last->factors.out;
        if (threads == 1) {
            first = malloc(n * sizeof *first);
            assert_non_null(first);
            memcpy(first, a.block, n * sizeof *first);
        } else {
            model_same_bits("factors and gradients", first, a.block, n * sizeof *first);
        }
        cv_adapters_close(&a);
        close_lesson(&l);
    }
    free(first);
}

/* ---- learning -------------------------------------------------------------------------------- */

/* All numbers of the model, to be freed. */
static float *copy_params(const cv_learner *l, size_t *n)
{
    *n = 0;
    for (size_t i = 0; i < l->n_params; i++)
        *n += l->params[i].n;
    float *all = malloc(*n * sizeof *all), *at = all;
    assert_non_null(all);
    for (size_t i = 0; i < l->n_params; at += l->params[i].n, i++)
        memcpy(at, l->params[i].value, l->params[i].n * sizeof *at);
    return all;
}

/* What an adapter is for stays at base; the rest never moves. */
static void expect_base(const lesson *l, const cv_adapters *a, const float *before)
{
    for (size_t i = 0; i < l->learner.n_params; before += l->learner.params[i].n, i++) {
        const cv_param *p = &l->learner.params[i];
        const float *now = p->value;
        for (size_t j = 0; j < a->n; j++)
            if (a->items[j].param == p) now = a->items[j].base;
        model_same_bits(p->view.name, before, now, p->n * sizeof *now);
    }
}

static void test_learning(void **state)
{
    (void)state;
    corvid_error err;
    lesson l;
    cv_adapters a;
    teacher t;
    size_t n;
    open_lesson(&l, &cv_rwkv7, 2, false);
    float *before = copy_params(&l.learner, &n);
    const double plain = learn(&l);
    ASSERT_OK(cv_adapters_open(&l.learner, &usual, &a, &err), &err);
    cv_adapters_apply(&a);
    const double first = learn(&l);
    assert_true(first == plain); /* B is zero */
    cv_learner beside = cv_adapters_learner(&a);
    const cv_adam_settings adam = { .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .clip = 1.0 };
    teacher_open(&t, &beside, CV_GROUPS_RWKV7, &adam);
    double last = first;
    for (int step = 0; step < 20; step++) {
        last = learn(&l);
        cv_adapters_gather(&a);
        teacher_step(&t, 2e-2);
        cv_adapters_apply(&a);
    }
    print_message("20 steps: loss %.4f -> %.4f\n", first, last);
    assert_true(last < 0.8 * first);
    expect_base(&l, &a, before);
    free(before);
    teacher_close(&t);
    cv_adapters_close(&a);
    close_lesson(&l);
}

static void test_state_learning(void **state)
{
    (void)state;
    corvid_error err;
    lesson l;
    cv_tuned_state s;
    teacher t;
    size_t n;
    open_lesson(&l, &cv_rwkv6, 2, false);
    float *before = copy_params(&l.learner, &n);
    const double plain = learn(&l);
    ASSERT_OK(cv_tuned_state_open(&l.learner, NULL, &s, &err), &err);
    const double first = learn(&l);
    assert_true(first == plain); /* zeros */
    cv_learner beside = cv_tuned_state_learner(&s);
    const cv_adam_settings adam = { .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8 };
    teacher_open(&t, &beside, CV_GROUPS_RWKV, &adam);
    double last = first;
    for (int step = 0; step < 20; step++) {
        cv_tuned_state_clear(&s);
        last = learn(&l);
        cv_tuned_state_gather(&s);
        teacher_step(&t, 1.0); /* the official rate */
        cv_tuned_state_apply(&s);
    }
    print_message("20 steps: loss %.4f -> %.4f\n", first, last);
    assert_true(last < first - 0.02);
    float *after = copy_params(&l.learner, &n);
    model_same_bits("the model", before, after, n * sizeof *before);
    free(before);
    free(after);
    teacher_close(&t);
    cv_tuned_state_close(&s);
    close_lesson(&l);
}

static void test_no_state_for_v4(void **state)
{
    (void)state;
    corvid_error err;
    lesson l;
    cv_tuned_state s;
    open_lesson(&l, &cv_rwkv4, 1, false);
    assert_int_equal(cv_tuned_state_open(&l.learner, NULL, &s, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "rwkv4"));
    cv_tuned_state_close(&s);
    close_lesson(&l);
}

/* ---- which matrices -------------------------------------------------------------------------- */

static void check_targets(lesson *l, const char *targets, size_t expected)
{
    corvid_error err;
    cv_adapters a;
    cv_adapter_settings settings = usual;
    settings.targets = targets;
    ASSERT_OK(cv_adapters_open(&l->learner, &settings, &a, &err), &err);
    if (a.n != expected) fail_msg("%s: %zu matrices, expected %zu", targets, a.n, expected);
    cv_adapters_close(&a);
}

static void refuse_targets(lesson *l, const char *targets, size_t rank, const char *needle)
{
    corvid_error err;
    cv_adapters a;
    cv_adapter_settings settings = usual;
    settings.targets = targets;
    settings.rank = rank;
    assert_int_equal(cv_adapters_open(&l->learner, &settings, &a, &err), CORVID_E_ARGUMENT);
    if (!strstr(err.text, needle)) fail_msg("%s: lacks \"%s\": %s", targets, needle, err.text);
}

/* RWKV-7: four matrices of the time mix and two of the channel mix in each of two layers. */
static void test_targets(void **state)
{
    (void)state;
    lesson l;
    open_lesson(&l, &cv_rwkv7, 1, false);
    check_targets(&l, "att,ffn", 12);
    check_targets(&l, "att", 8);
    check_targets(&l, "att, ffn ,head", 13);
    check_targets(&l, "key", 4);
    check_targets(&l, "ffn.key", 2);
    check_targets(&l, "blocks.1", 6);
    check_targets(&l, "blocks.0.att.key", 1);
    check_targets(&l, "blocks.*.att.*", 8);
    check_targets(&l, "*.value", 4);
    check_targets(&l, "att.key,att.key", 2); /* not twice */
    refuse_targets(&l, "att,att.recptance", 4, "att.receptance");
    refuse_targets(&l, "att.recptance", 4, "called att.recptance");
    refuse_targets(&l, "at", 4, "called at");
    refuse_targets(&l, "blocks.2.att.key", 4, "blocks.1.att.key");
    refuse_targets(&l, "att.w1", 4, "called att.w1"); /* of low rank itself */
    refuse_targets(&l, "", 4, "no matrices are named");
    refuse_targets(&l, "att", 17, "rank 17 is more than");
    refuse_targets(&l, "att", 0, "rank 0");
    close_lesson(&l);
}

/* ---- files ----------------------------------------------------------------------------------- */

/* A model with adapters that do something, and vectors that moved. */
static void open_adapted(lesson *l, cv_adapters *a, const cv_arch *arch, bool vectors)
{
    corvid_error err;
    cv_adapter_settings settings = usual;
    settings.vectors = vectors;
    open_lesson(l, arch, 2, false);
    ASSERT_OK(cv_adapters_open(&l->learner, &settings, a, &err), &err);
    fill_B(a, 0.3);
    for (size_t i = 2 * a->n; i < a->n_params; i++)
        for (size_t j = 0; j < a->params[i].n; j++)
            a->params[i].value[j] += 0.01f * (float)(j % 5);
    cv_adapters_apply(a);
}

static void test_round_trip(void **state)
{
    (void)state;
    corvid_error err;
    const cv_arch *archs[] = { &cv_rwkv4, &cv_rwkv5_2, &cv_rwkv6, &cv_rwkv7 };
    for (size_t i = 0; i < COUNT(archs); i++) {
        lesson l, again;
        cv_adapters a, b;
        size_t n, m;
        const cv_adapter_choice as_it_says = { .alpha = 0.0 };
        const char *file = test_scratch("adapter.safetensors");
        open_adapted(&l, &a, archs[i], true);
        ASSERT_OK(cv_adapters_save(&a, file, &err), &err);
        open_lesson(&again, archs[i], 1, false);
        ASSERT_OK(cv_adapters_load(&again.learner, file, &as_it_says, &b, &err), &err);
        assert_int_equal(a.n, b.n);
        assert_int_equal(a.n_params, b.n_params);
        assert_true(b.alpha == 6.0);
        for (size_t j = 0; j < a.n_params; j++) {
            assert_string_equal(a.params[j].view.name, b.params[j].view.name);
            model_same_bits(a.params[j].view.name, a.params[j].value, b.params[j].value,
                            a.params[j].n * sizeof(float));
        }
        float *x = copy_params(&l.learner, &n), *y = copy_params(&again.learner, &m);
        model_same_bits("the model", x, y, n * sizeof *x);
        assert_true(learn(&l) == learn(&again));
        free(x);
        free(y);
        cv_adapters_close(&a);
        cv_adapters_close(&b);
        close_lesson(&l);
        close_lesson(&again);
    }
}

static void test_state_round_trip(void **state)
{
    (void)state;
    corvid_error err;
    lesson l, again;
    cv_tuned_state s, r;
    const char *file = test_scratch("state.safetensors");
    open_lesson(&l, &cv_rwkv7, 1, true);
    ASSERT_OK(cv_tuned_state_open(&l.learner, NULL, &s, &err), &err);
    for (size_t i = 0; i < 2 * s.memory; i++)
        s.values[i] *= 0.5f;
    cv_tuned_state_apply(&s);
    ASSERT_OK(cv_tuned_state_save(&s, file, &err), &err);
    open_lesson(&again, &cv_rwkv7, 1, false);
    ASSERT_OK(cv_tuned_state_open(&again.learner, file, &r, &err), &err);
    model_same_bits("the state", s.values, r.values, 2 * s.memory * sizeof *s.values);
    assert_true(learn(&l) == learn(&again));
    cv_tuned_state_close(&s);
    cv_tuned_state_close(&r);
    close_lesson(&l);
    close_lesson(&again);
}

/* ---- merging --------------------------------------------------------------------------------- */

static float *logits_of(const char *path, const int32_t *tokens, size_t n)
{
    corvid_error err;
    corvid_model *model = model_open(path, 1, 0);
    corvid_stream *stream = model_stream(model);
    float *logits = malloc(n * model_vocab(model) * sizeof *logits);
    assert_non_null(logits);
    ASSERT_OK(corvid_feed_all(stream, tokens, n, logits, &err), &err);
    corvid_stream_free(stream);
    corvid_model_close(model);
    return logits;
}

/* The merged file against the file of the learner's own weights, and against the base. */
static void test_merged(void **state)
{
    (void)state;
    corvid_error err;
    const cv_arch *archs[] = { &cv_rwkv4, &cv_rwkv5_2, &cv_rwkv6, &cv_rwkv7 };
    for (size_t i = 0; i < COUNT(archs); i++) {
        lesson l;
        cv_adapters a;
        int32_t tokens[32];
        const cv_adapter_choice as_it_says = { .alpha = 0.0 };
        const cv_convert_settings keep = { .format = CV_SAFETENSORS, .keep = true };
        const char *file = test_scratch("adapter.safetensors");
        const char *learnt = test_scratch("learnt.safetensors");
        const char *merged = test_scratch("merged.safetensors");
        open_adapted(&l, &a, archs[i], true);
        ASSERT_OK(cv_adapters_save(&a, file, &err), &err);
        const cv_source source = cv_learner_source(&l.learner);
        ASSERT_OK(cv_convert_source(&cv_libc_allocator, &source, learnt, &keep, &err), &err);
        ASSERT_OK(cv_merge(&cv_libc_allocator, l.path, file, &as_it_says, merged, &keep, &err),
                  &err);
        model_tokens(9, 32, SMALL.V, tokens);
        float *x = logits_of(merged, tokens, 32), *y = logits_of(learnt, tokens, 32);
        float *z = logits_of(l.path, tokens, 32);
        char what[64];
        snprintf(what, sizeof what, "%s: merged and learnt", archs[i]->name);
        model_report(what, model_difference(x, y, 32 * SMALL.V), 1e-6);
        assert_true(model_difference(x, z, 32 * SMALL.V) > 1e-2);
        free(x);
        free(y);
        free(z);
        cv_adapters_close(&a);
        close_lesson(&l);
    }
}

/* Whatever allocation fails, nothing is left behind. */
static void test_memory(void **state)
{
    (void)state;
    corvid_error err;
    lesson l;
    cv_adapters a;
    const cv_adapter_choice as_it_says = { .alpha = 0.0 };
    const char *file = test_scratch("adapter.safetensors");
    open_adapted(&l, &a, &cv_rwkv7, true);
    ASSERT_OK(cv_adapters_save(&a, file, &err), &err);
    cv_adapters_close(&a);
    test_allocator meddler;
    const corvid_allocator *mem = l.learner.mem;
    for (size_t at = 1;; at++) {
        test_allocator_init(&meddler);
        meddler.fail_at = at;
        l.learner.mem = &meddler.api;
        const corvid_status status = cv_adapters_load(&l.learner, file, &as_it_says, &a, &err);
        if (status == CORVID_OK) cv_adapters_close(&a);
        l.learner.mem = mem;
        assert_int_equal(meddler.live, 0);
        if (status == CORVID_OK) break;
        assert_int_equal(status, CORVID_E_MEMORY);
        assert_true(at < 500);
    }
    close_lesson(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),        cmocka_unit_test(test_state_gradients),
        cmocka_unit_test(test_threads),          cmocka_unit_test(test_learning),
        cmocka_unit_test(test_state_learning),   cmocka_unit_test(test_no_state_for_v4),
        cmocka_unit_test(test_targets),          cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_state_round_trip), cmocka_unit_test(test_merged),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
