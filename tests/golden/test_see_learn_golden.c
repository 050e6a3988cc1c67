/* test_see_learn_golden.c - loss and gradients of the small vision models against those of the
 * official modules, which were computed in double: every variant, square and not, one to three
 * members, everything kept and layers computed again; and three steps of training.
 * [train.gradient] [loss.ce] [train.adamw] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_files.h"
#include "support.h"
#include "teach.h"
#include "train/picture_lesson.h"
#include "vision_files.h"

#define SMOOTHING 0.1
#define TOLERANCE 5e-5

typedef struct lesson {
    cv_checkpoint ckpt, io;
    cv_source source;
    cv_team *team;
    cv_learner learner;
    const char *prefix;
    size_t n, height, width;
    float *values;
    int32_t targets[8];
} lesson;

static const char *key_of(const lesson *l, const char *what)
{
    static char key[160];
    snprintf(key, sizeof key, "%s.%s", l->prefix, what);
    return key;
}

static void read_labels(lesson *l)
{
    corvid_error err;
    const cv_tensor *t = cv_checkpoint_find(&l->io, key_of(l, "labels"));
    assert_non_null(t);
    assert_true(t->count <= 8);
    unsigned char raw[8 * 8];
    ASSERT_OK(cv_tensor_read(&l->io, t, 0, t->count, raw, &err), &err);
    const size_t width = cv_dtype_of(t->dtype)->block_bytes;
    for (size_t i = 0; i < t->count; i++) {
        int64_t label = 0;
        memcpy(&label, raw + i * width, width);
        l->targets[i] = (int32_t)label;
    }
}

static void open_lesson(lesson *l, const char *name, const char *prefix, size_t threads, bool again)
{
    corvid_error err;
    char file[128];
    const cv_learner_options options = { .again = again };
    const corvid_allocator *mem = &cv_libc_allocator;
    *l = (lesson){ .prefix = prefix };
    snprintf(file, sizeof file, "vrwkv-golden/small/%s.weights.safetensors", name);
    ASSERT_OK(cv_checkpoint_open(mem, test_data(file), &l->ckpt, &err), &err);
    snprintf(file, sizeof file, "vrwkv-golden/small/%s.io.safetensors", name);
    ASSERT_OK(cv_checkpoint_open(mem, test_data(file), &l->io, &err), &err);
    ASSERT_OK(cv_source_open(&l->ckpt, &l->source, &err), &err);
    ASSERT_OK(cv_team_new(mem, threads, &l->team, &err), &err);
    ASSERT_OK(cv_learner_open(mem, l->team, cv_kernels_for(cv_cpu_best()), &l->source, &options,
                              &l->learner, &err),
              &err);
    const cv_tensor *image = cv_checkpoint_find(&l->io, key_of(l, "image"));
    assert_non_null(image);
    l->n = image->dims[0];
    l->height = image->dims[2];
    l->width = image->dims[3];
    l->values = vision_need(&l->io, key_of(l, "image"), image->count);
    read_labels(l);
}

static void close_lesson(lesson *l)
{
    free(l->values);
    cv_learner_close(&l->learner);
    cv_team_free(l->team);
    cv_checkpoint_close(&l->ckpt);
    cv_checkpoint_close(&l->io);
}

/* The gradient of a batch whose pictures need not be square. */
typedef struct walk {
    lesson *l;
    cv_image images[8];
    cv_grid grids[8];
    float rows[8];
} walk;

static void walk_back(const cv_member *me, void *arg)
{
    walk *w = arg;
    lesson *l = w->l;
    const cv_taped_weights weights = cv_learner_weights(&l->learner);
    const cv_sight_lesson seen = {
        .sight = { .images = w->images, .grids = w->grids, .n = l->n },
        .loss = { .targets = l->targets, .weight = 1.0 / (double)l->n, .smoothing = SMOOTHING },
        .gradients = true,
        .rows = w->rows
    };
    cv_run run;
    cv_tape tape;
    cv_room_enter(&l->learner.room, me, l->learner.kernel, &weights, true, &run, &tape);
    cv_vision_learn(&run, &l->learner.model, &seen);
    assert_false(tape.full);
}

static double learn(lesson *l)
{
    corvid_error err;
    walk w = { .l = l };
    cv_lesson_memory memory;
    const size_t members = cv_team_size(l->team);
    const cv_member one = { .team = l->team, .n = members };
    size_t begin = 0;
    for (size_t i = 0; i < l->n; i++) {
        w.images[i] = (cv_image){ .values = l->values + i * 3 * l->height * l->width,
                                  .height = l->height,
                                  .width = l->width };
        w.grids[i] = cv_vision_grid(&l->learner.model, l->height, l->width, begin);
        begin += w.grids[i].n;
    }
    cv_vision_lesson_memory(&l->learner.model, w.grids, l->n, l->learner.options.again, &one,
                            &memory);
    ASSERT_OK(cv_room_open(&cv_libc_allocator, members, &memory, begin, &l->learner.room, &err),
              &err);
    teacher_spoil(&l->learner.room);
    cv_learner_clear(&l->learner);
    cv_team_run(l->team, walk_back, &w);
    cv_learner_gather(&l->learner);
    double sum = 0.0;
    for (size_t i = 0; i < l->n; i++)
        sum += (double)w.rows[i];
    return sum / (double)l->n;
}

/* The largest difference from a golden tensor, which holds official values, against its largest. */
static double parameter_error(const lesson *l, const cv_checkpoint *golden, const char *prefix,
                              const cv_param *p, const float *values)
{
    char name[160];
    size_t n = 0;
    snprintf(name, sizeof name, "%s%s", prefix, p->view.name);
    float *want = vision_tensor(golden, name, &n);
    double worst = 0.0, most = 0.0;
    (void)l;
    if (!want) print_message("no golden tensor %s\n", name);
    assert_non_null(want);
    for (size_t i = 0; i < p->n; i++) {
        const cv_view *v = &p->view;
        const size_t at = v->transposed ? i % v->cols * v->rows + i / v->cols : i;
        most = fmax(most, fabs((double)want[v->first + at]));
        worst = fmax(worst, fabs((double)values[i] - (double)want[v->first + at]));
    }
    free(want);
    return most > 0.0 ? worst / most : worst;
}

static void check(const char *name, const char *prefix, size_t threads, bool again)
{
    lesson l;
    char what[256], grad[32];
    const char *where = "";
    double worst = 0.0;
    size_t one;
    open_lesson(&l, name, prefix, threads, again);
    const double loss = learn(&l);
    float *golden = vision_tensor(&l.io, key_of(&l, "loss"), &one);
    assert_non_null(golden);
    snprintf(what, sizeof what, "%s %s loss, %zu threads%s", name, prefix, threads,
             again ? ", layers again" : "");
    model_report(what, fabs(loss - (double)golden[0]), 2e-6);
    free(golden);
    snprintf(grad, sizeof grad, "%s.grad.", prefix);
    for (size_t i = 0; i < l.learner.n_params; i++) {
        const cv_param *p = &l.learner.params[i];
        const double e = parameter_error(&l, &l.io, grad, p, p->gradient);
        if (!(e <= worst)) {
            worst = e;
            where = p->view.name;
        }
    }
    snprintf(what, sizeof what, "%s %s gradient, %zu threads%s (%s)", name, prefix, threads,
             again ? ", layers again" : "", where);
    model_report(what, worst, TOLERANCE);
    close_lesson(&l);
}

static void test_gradients(void **state)
{
    static const char *const names[] = {
        "a_pre",      "b_post_gamma",          "b2_pre_gamma", "c_L_keynorm_mlp", "d_v6_pre",
        "d2_v6_post", "e_v6_post_cls_keynorm", "f_variants",   "g_noshift"
    };
    (void)state;
    NEED_DATA(path, "vrwkv-golden/small/a_pre.io.safetensors");
    (void)path;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t how = 0; how < 6; how++)
            check(names[i], "sq", 1 + how / 2, how % 2 == 1);
    for (size_t how = 0; how < 6; how++)
        check("a_pre", "rect", 1 + how / 2, how % 2 == 1);
}

/* Three steps of AdamW, as the reference took them. */
static void test_three_steps(void **state)
{
    (void)state;
    NEED_DATA(path, "vrwkv-golden/small/b_post_gamma.train3.safetensors");
    static const cv_adam_settings settings = {
        .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.05
    };
    corvid_error err;
    cv_checkpoint golden;
    lesson l;
    teacher t;
    size_t n;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &golden, &err), &err);
    float *losses = vision_tensor(&golden, "loss", &n);
    float *norms = vision_tensor(&golden, "grad_norm", NULL);
    float *clips = vision_tensor(&golden, "max_norm", NULL);
    assert_true(losses && norms && clips && n == 4);
    open_lesson(&l, "b_post_gamma", "sq", 2, false);
    teacher_open(&t, &l.learner, CV_GROUPS_VRWKV, &settings);
    double loss = 0.0, norm = 0.0, after = 0.0;
    for (size_t step = 0; step < 4; step++) {
        loss = fmax(loss, fabs(learn(&l) - (double)losses[step]));
        if (step == 3) break;
        t.settings.clip = (double)clips[step];
        norm = fmax(norm, fabs(teacher_step(&t, 1e-3) / (double)norms[step] - 1.0));
    }
    for (size_t i = 0; i < l.learner.n_params; i++) {
        const cv_param *p = &l.learner.params[i];
        after = fmax(after, parameter_error(&l, &golden, "after3.", p, p->value));
    }
    model_report("losses of three steps", loss, 1e-5);
    model_report("norms of their gradients, relative", norm, 1e-4);
    model_report("parameters after them, relative", after, 1e-3);
    teacher_close(&t);
    close_lesson(&l);
    free(losses);
    free(norms);
    free(clips);
    cv_checkpoint_close(&golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_three_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
