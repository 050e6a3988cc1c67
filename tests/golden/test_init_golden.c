/* test_init_golden.c - initial values of vision models that no chance is in, against those of the
 * official modules.  [train.init] */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/checkpoint.h"
#include "support.h"
#include "train/init.h"
#include "train/shape.h"

#define VALUES "vrwkv-golden/ops/init.safetensors"

/* Theirs are computed in single precision, powers included; values go up to 5. */
#define TOLERANCE 2e-6

typedef struct comparison {
    const cv_checkpoint *ckpt;
    cv_source source;
    const char *prefix; /* "v4.c192.L12." */
    size_t compared;
} comparison;

static corvid_status compare_view(void *ctx, const cv_view *view, corvid_error *err)
{
    static const char stack[] = "backbone.layers.";
    enum { MOST = 1024 };
    comparison *c = ctx;
    char name[128];
    float got[MOST], want[MOST];
    if (strncmp(view->name, stack, sizeof stack - 1) != 0) return CORVID_OK;
    snprintf(name, sizeof name, "%slayer%s", c->prefix, view->name + sizeof stack - 1);
    const cv_tensor *t = cv_checkpoint_find(c->ckpt, name);
    if (!t) return CORVID_OK;
    assert_int_equal(t->dtype, CV_F32);
    assert_int_equal(t->count, view->rows * view->cols);
    assert_true(t->count <= MOST);
    CV_TRY(cv_tensor_read(c->ckpt, t, 0, t->count, want, err));
    CV_TRY(cv_init_fill(&c->source, 1, view, got, NULL, &cv_libc_allocator, err));
    for (size_t i = 0; i < t->count; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= TOLERANCE))
            fail_msg("%s[%zu] is %.9g, expected %.9g", name, i, (double)got[i], (double)want[i]);
    c->compared++;
    return CORVID_OK;
}

static size_t compare(const cv_checkpoint *ckpt, const char *prefix, cv_shape_wish wish)
{
    comparison c = { .ckpt = ckpt, .prefix = prefix };
    corvid_error err;
    ASSERT_OK(cv_shape_for(&wish, &c.source, &err), &err);
    ASSERT_OK(cv_source_each(&c.source, compare_view, &c, &err), &err);
    return c.compared;
}

static void official_values(void **state)
{
    (void)state;
    NEED_DATA(path, VALUES);
    cv_checkpoint ckpt;
    corvid_error err;
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    const cv_shape_wish tiny = { .arch = "vrwkv", .layers = 12, .width = 192 };
    const cv_shape_wish small = { .arch = "vrwkv", .layers = 3, .width = 48 };
    const cv_shape_wish six = { .arch = "vrwkv6", .layers = 12, .width = 192 };
    size_t compared = compare(&ckpt, "v4.c192.L12.", tiny);
    compared += compare(&ckpt, "v4.c48.L3.", small);
    compared += compare(&ckpt, "v6.c192.h3.L12.", six);
    assert_int_equal(compared, 66);
    assert_int_equal(compared, ckpt.n_tensors);
    cv_checkpoint_close(&ckpt);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(official_values) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
