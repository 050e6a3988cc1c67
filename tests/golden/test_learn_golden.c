/* test_learn_golden.c - loss and gradients of whole models against those of the official code, which
 * were computed in double, and against central differences of a double-precision model of our own on
 * the very parameters that the learner has.  [train.gradient]
 *
 * The 5.1 model of the golden file is badly conditioned: rounding its parameters to f32 alone moves the
 * exact gradient by 9e-5 of its size (the line "rounded parameters"), and everything that is computed
 * from them is rounded too.  Its bound is wider; the other versions are within 5e-5. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_files.h"
#include "reference.h"
#include "support.h"
#include "teach.h"
#include "train/text_lesson.h"

typedef struct lesson {
    cv_checkpoint golden, ckpt;
    cv_source source;
    cv_team *team;
    cv_learner learner;
    int32_t tokens[32], targets[32];
    size_t n;
} lesson;

static void read_ids(const cv_checkpoint *ckpt, const char *name, int32_t *out, size_t *n)
{
    corvid_error err;
    const cv_tensor *t = cv_checkpoint_find(ckpt, name);
    assert_non_null(t);
    assert_true(t->count <= 32);
    unsigned char raw[32 * 8];
    ASSERT_OK(cv_tensor_read(ckpt, t, 0, t->count, raw, &err), &err);
    const size_t width = cv_dtype_of(t->dtype)->block_bytes;
    for (size_t i = 0; i < t->count; i++) {
        int64_t id = 0;
        memcpy(&id, raw + i * width, width);
        out[i] = (int32_t)id;
    }
    *n = t->count;
}

/* The values of a golden tensor, to be freed. */
static double *read_golden(const cv_checkpoint *ckpt, const char *name, size_t *n)
{
    corvid_error err;
    const cv_tensor *t = cv_checkpoint_find(ckpt, name);
    if (!t) return NULL;
    double *values = malloc(t->count * sizeof *values);
    assert_int_equal(t->dtype, CV_F64);
    ASSERT_OK(cv_tensor_read(ckpt, t, 0, t->count, values, &err), &err);
    *n = t->count;
    return values;
}

static void open_lesson(lesson *l, const char *path, size_t threads, bool again)
{
    const cv_learner_options options = { .again = again };
    corvid_error err;
    const char *copy = test_scratch("lesson.safetensors");
    const model_copy how = { .format = CV_SAFETENSORS, .prefix = "param.", .as_f32 = true };
    model_copy_write(path, copy, &how);
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &l->golden, &err), &err);
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, copy, &l->ckpt, &err), &err);
    ASSERT_OK(cv_source_open(&l->ckpt, &l->source, &err), &err);
    ASSERT_OK(cv_team_new(&cv_libc_allocator, threads, &l->team, &err), &err);
    ASSERT_OK(cv_learner_open(&cv_libc_allocator, l->team, cv_kernels_for(cv_cpu_best()),
                              &l->source, &options, &l->learner, &err),
              &err);
    read_ids(&l->golden, "tokens", l->tokens, &l->n);
    read_ids(&l->golden, "targets", l->targets, &l->n);
    ASSERT_OK(cv_learner_room(&l->learner, 1, l->n, &err), &err);
    teacher_spoil(&l->learner.room);
}

static void close_lesson(lesson *l)
{
    cv_learner_close(&l->learner);
    cv_team_free(l->team);
    cv_checkpoint_close(&l->ckpt);
    cv_checkpoint_close(&l->golden);
}

/* Sums of squares over all parameters: of the golden gradients, and of differences from them. */
typedef struct squares {
    double golden, differences;
} squares;

/* The largest difference of a parameter's gradient from the golden one, against the largest of
 * that. */
static double golden_error(const lesson *l, const cv_param *p, squares *all)
{
    char name[128];
    size_t n = 0;
    snprintf(name, sizeof name, "grad.%s", p->view.name);
    double *golden = read_golden(&l->golden, name, &n), worst = 0.0, most = 0.0;
    assert_non_null(golden);
    for (size_t i = 0; i < p->n; i++) {
        const cv_view *v = &p->view;
        const size_t at = v->transposed ? i % v->cols * v->rows + i / v->cols : i;
        const double g = golden[v->first + at];
        most = fmax(most, fabs(g));
        const double off = (double)p->gradient[i] - g;
        worst = fmax(worst, fabs(off));
        all->golden += g * g;
        all->differences += off * off;
    }
    free(golden);
    return most > 0.0 ? worst / most : worst;
}

/* Of single tensors.  The bonus of version 5.1's first layer is a difference of large numbers: rounding
 * the parameters to f32 moves its exact gradient by 9e-5, before anything is computed. */
static double bound_of(const char *version)
{
    return strcmp(version, "v5_1") == 0 ? 1e-3 : 1e-4;
}

/* The loss of the reference model. */
static double reference_loss(ref_model *m, const lesson *l)
{
    double *logits = malloc(l->n * m->V * sizeof *logits), loss = 0.0;
    ref_reset(m);
    ref_feed(m, l->tokens, l->n, logits);
    for (size_t t = 0; t < l->n; t++) {
        const double *row = logits + t * m->V;
        double top = row[0], sum = 0.0;
        for (size_t i = 1; i < m->V; i++)
            top = fmax(top, row[i]);
        for (size_t i = 0; i < m->V; i++)
            sum += exp(row[i] - top);
        loss += top + log(sum) - row[l->targets[t]];
    }
    free(logits);
    return loss / (double)l->n;
}

/* The largest difference of a parameter's gradient from central differences at the same parameters,
 * against the largest of those; and that of the golden gradient, whose parameters are not rounded. */
static double difference_error(const lesson *l, ref_model *m, const cv_param *p, double *rounding)
{
    const cv_view *v = &p->view;
    const ref_tensor *t = ref_find(m, v->name);
    double worst = 0.0, most = 0.0, furthest = 0.0;
    char name[128];
    size_t n = 0;
    snprintf(name, sizeof name, "grad.%s", v->name);
    double *golden = read_golden(&l->golden, name, &n);
    assert_non_null(t);
    assert_non_null(golden);
    for (size_t i = 0; i < p->n; i++) {
        const size_t place = v->first + (v->transposed ? i % v->cols * v->rows + i / v->cols : i);
        double *x = &t->x[place];
        const double at = *x, h = 1e-5 * fmax(1.0, fabs(at));
        *x = at + h;
        const double above = reference_loss(m, l);
        *x = at - h;
        const double slope = (above - reference_loss(m, l)) / (2.0 * h);
        *x = at;
        most = fmax(most, fabs(slope));
        worst = fmax(worst, fabs((double)p->gradient[i] - slope));
        furthest = fmax(furthest, fabs(golden[place] - slope));
    }
    free(golden);
    if (most > 1e-9) *rounding = fmax(*rounding, furthest / most);
    return most > 1e-9 ? worst / most : worst;
}

static void check_differences(const char *version, const lesson *l)
{
    ref_model *m = ref_open(test_scratch("lesson.safetensors"), 0.0);
    double worst = 0.0, rounding = 0.0;
    for (size_t i = 0; i < l->learner.n_params; i++) {
        const cv_param *p = &l->learner.params[i];
        /* The reference transforms some vectors when it reads them; large tensors take long. */
        if (p->view.field->transform == CV_AS_IS && p->n <= 48)
            worst = fmax(worst, difference_error(l, m, p, &rounding));
    }
    char what[128];
    snprintf(what, sizeof what, "%s gradient, central differences", version);
    model_report(what, worst, bound_of(version));
    snprintf(what, sizeof what, "%s gradient, rounded parameters", version);
    model_report(what, rounding, bound_of(version));
    ref_close(m);
}

static void check(const char *version, const char *path, size_t threads, bool again)
{
    lesson l = { .n = 0 };
    corvid_error err;
    double loss = 0.0, worst = 0.0;
    size_t n = 0;
    open_lesson(&l, path, threads, again);
    const cv_batch batch = { .tokens = l.tokens,
                             .targets = l.targets,
                             .n_sequences = 1,
                             .length = l.n,
                             .weight = 1.0 / (double)l.n };
    cv_learner_clear(&l.learner);
    ASSERT_OK(cv_learner_batch(&l.learner, &batch, &loss, &err), &err);
    cv_learner_gather(&l.learner);
    double *golden = read_golden(&l.golden, "loss", &n);
    char what[192];
    const char *how = again ? ", layers again" : "";
    snprintf(what, sizeof what, "%s loss, %zu threads%s", version, threads, how);
    model_report(what, fabs(loss - golden[0]), 2e-6);
    free(golden);
    const char *where = "";
    squares all = { 0.0, 0.0 };
    for (size_t i = 0; i < l.learner.n_params; i++) {
        const double e = golden_error(&l, &l.learner.params[i], &all);
        if (!(e <= worst)) {
            worst = e;
            where = l.learner.params[i].view.name;
        }
    }
    snprintf(what, sizeof what, "%s gradient, %zu threads%s (%s)", version, threads, how, where);
    model_report(what, worst, bound_of(version));
    snprintf(what, sizeof what, "%s gradient as a whole, %zu threads%s", version, threads, how);
    model_report(what, sqrt(all.differences / all.golden), 1e-4);
    if (threads == 1 && !again) check_differences(version, &l);
    close_lesson(&l);
}

/* Three steps of AdamW as the reference took them: CE and L2Wrap, clipped, decay before the step.
 * With an eps of 1e-18 a number whose gradient is nearly nothing moves by a whole step in the
 * direction of its rounding: parameters are compared by the share of them that is off by more than a
 * tenth of a step. */
static void check_steps(const char *version, const char *path)
{
    static const cv_adam_settings settings = {
        .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-18, .weight_decay = 0.1, .clip = 1.0
    };
    const double lr = 1e-3;
    const cv_grouping grouping = strcmp(version, "v7") == 0 ? CV_GROUPS_RWKV7 : CV_GROUPS_RWKV;
    lesson l = { .n = 0 };
    teacher t;
    corvid_error err;
    char what[192];
    size_t n = 0, off = 0, all = 0;
    double loss = 0.0, worst = 0.0, norm = 0.0;
    open_lesson(&l, path, 2, false);
    teacher_open(&t, &l.learner, grouping, &settings);
    double *losses = read_golden(&l.golden, "losses_before_each_step", &n);
    double *norms = read_golden(&l.golden, "grad_norms", &n);
    assert_true(losses && norms && n == 3);
    const cv_batch batch = { .tokens = l.tokens,
                             .targets = l.targets,
                             .n_sequences = 1,
                             .length = l.n,
                             .weight = 1.0 / (double)l.n,
                             .l2_wrap = 1e-4 };
    for (size_t step = 0; step < 3; step++) {
        cv_learner_clear(&l.learner);
        ASSERT_OK(cv_learner_batch(&l.learner, &batch, &loss, &err), &err);
        cv_learner_gather(&l.learner);
        worst = fmax(worst, fabs(loss - losses[step]));
        norm = fmax(norm, fabs(teacher_step(&t, lr) / norms[step] - 1.0));
    }
    for (size_t i = 0; i < l.learner.n_params; i++) {
        const cv_param *p = &l.learner.params[i];
        char name[128];
        snprintf(name, sizeof name, "after3.%s", p->view.name);
        double *golden = read_golden(&l.golden, name, &n);
        assert_non_null(golden);
        for (size_t j = 0; j < p->n; j++) {
            const cv_view *v = &p->view;
            const size_t at = v->transposed ? j % v->cols * v->rows + j / v->cols : j;
            off += fabs((double)p->value[j] - golden[v->first + at]) > 0.1 * lr;
        }
        all += p->n;
        free(golden);
    }
    snprintf(what, sizeof what, "%s losses of three steps", version);
    model_report(what, worst, 1e-5);
    snprintf(what, sizeof what, "%s norms of their gradients, relative", version);
    model_report(what, norm, 10.0 * bound_of(version));
    snprintf(what, sizeof what, "%s share of parameters off by a tenth of a step", version);
    model_report(what, (double)off / (double)all, 0.001);
    free(losses);
    free(norms);
    teacher_close(&t);
    close_lesson(&l);
}

#define VERSION(name, file)                            \
    static void test_##name(void **state)              \
    {                                                  \
        (void)state;                                   \
        NEED_DATA(path, "rwkv-tiny/reference/" file);  \
        for (size_t i = 0; i < 6; i++)                 \
            check(#name, path, 1 + i / 2, i % 2 == 1); \
        check_steps(#name, path);                      \
    }
VERSION(v4, "lm_v4.safetensors")
VERSION(v5_0, "lm_v5_0.safetensors")
VERSION(v5_1, "lm_v5_1.safetensors")
VERSION(v5_2, "lm_v5_2.safetensors")
VERSION(v6, "lm_v6.safetensors")
VERSION(v7, "lm_v7.safetensors")

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v4),   cmocka_unit_test(test_v5_0), cmocka_unit_test(test_v5_1),
        cmocka_unit_test(test_v5_2), cmocka_unit_test(test_v6),   cmocka_unit_test(test_v7),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
