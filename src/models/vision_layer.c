/* vision_layer.c - what the layers of all vision models share; see vision.h. */
#include "models/vision.h"
#include "ops/heads.h"
#include "ops/residual.h"

/* What a norm over n channels keeps behind its rows. */
static void take_norm_memory(cv_run *run, size_t n)
{
    cv_take_memory(run, run->T * (n + 1));
}

float *cv_branch_begin_take(cv_run *run, const cv_model *model)
{
    float *z = cv_take_common(run, model->sizes.C);
    if (!model->vision.traits.post_norm) take_norm_memory(run, model->sizes.C);
    return z;
}

void cv_branch_begin(const cv_run *run, const cv_model *model, const cv_branch *p, const float *x,
                     float *z)
{
    const size_t C = model->sizes.C;
    if (model->vision.traits.post_norm)
        cv_copy_rows(run, C, x, z);
    else
        cv_layer_norm(run, C, x, p->ln, z);
}

void cv_branch_take(cv_run *run, const cv_model *model, cv_branch_buffers *b)
{
    const size_t C = model->sizes.C;
    b->out = cv_take_tile(run, C);
    b->gated = cv_take_another(run, C, b->out);
    b->normed = b->out;
    if (!model->vision.traits.post_norm) return;
    b->normed = cv_take_another(run, C, b->out);
    take_norm_memory(run, C);
}

/* What dropping paths leaves of this branch of each picture. */
static const float *keep_of(const cv_run *run, size_t which)
{
    return run->keep ? run->keep + which * run->n_grids : NULL;
}

/* gated = out gate, by columns. */
static void open_gate(const cv_tile *t, size_t C, const float *out, const float *gate, float *gated)
{
    size_t lo, hi;
    cv_own_columns(&t->run, C, &lo, &hi);
    cv_gate(&t->run, lo, hi, 1, C, out, gate, gated);
}

void cv_branch_end(const cv_tile *t, const cv_model *model, const cv_branch *p, size_t which,
                   const cv_matrix *W, const float *in, const float *gate,
                   const cv_branch_buffers *b, float *x)
{
    const size_t C = model->sizes.C;
    const bool post = model->vision.traits.post_norm;
    const float *keep = keep_of(&t->run, which), *y = b->out;
    x += t->first * C;
    if (!post && !p->gamma && !keep) { /* nothing comes between */
        const cv_linear add =
            gate ? (cv_linear){ .W = W, .x = in, .y = b->out, .sum = x, .gate = gate }
                 : (cv_linear){ .W = W, .x = in, .y = x, .add = true };
        cv_linear_all(&t->run, &add, 1);
        cv_tile_meet(t);
        return;
    }
    const cv_linear product = { .W = W, .x = in, .y = b->out };
    cv_linear_all(&t->run, &product, 1);
    if (gate) {
        cv_tile_meet(t);
        open_gate(t, C, y, gate, b->gated);
        y = b->gated;
    }
    cv_tile_meet(t);
    if (post) {
        cv_layer_norm(&t->run, C, y, p->ln, b->normed);
        y = b->normed;
    }
    cv_scale_add(&t->run, C, p->gamma, keep, y, x);
}

void cv_vision_channel_mix_take(cv_run *run, const cv_model *model, float *z,
                                cv_vision_channel_buffers *b)
{
    const cv_sizes *s = &model->sizes;
    b->z = run->tape ? cv_branch_begin_take(run, model) : z;
    b->shifted = cv_take_tile(run, s->C);
    b->xk = cv_take_tile(run, s->C);
    b->xr = cv_take_tile(run, s->C);
    b->r = cv_take_tile(run, s->C);
    b->k = cv_take_tile(run, s->F);
    b->normed = b->k;
    if (model->vision.traits.keyed) {
        b->normed = cv_take_another(run, s->F, b->k);
        take_norm_memory(run, s->F);
    }
    cv_branch_take(run, model, &b->end);
}

void cv_vision_channel_mix_rows(const cv_run *run, const cv_model *model, size_t l,
                                const cv_vision_channel_mix *p, const cv_q_shift *shift, float *x,
                                const cv_vision_channel_buffers *b)
{
    const size_t C = model->sizes.C, F = model->sizes.F;
    cv_branch_begin(run, model, &p->branch, x, b->z);
    cv_meet(run);
    for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);) {
        const cv_mix mixes[] = { { p->mu_k, b->xk }, { p->mu_r, b->xr } };
        cv_q_shift_rows(&t, C, shift, b->z, b->shifted);
        cv_q_mix(&t, C, b->z, b->shifted, mixes, 2);
        cv_tile_meet(&t);

        const cv_linear in[] = { { .W = &p->K, .x = b->xk, .y = b->k, .act = CV_ACT_RELU2 },
                                 { .W = &p->R, .x = b->xr, .y = b->r, .act = CV_ACT_SIGMOID } };
        cv_linear_all(&t.run, in, 2);
        cv_tile_meet(&t);
        if (p->key_norm.w) {
            cv_layer_norm(&t.run, F, b->k, p->key_norm, b->normed);
            cv_tile_meet(&t);
        }
        cv_branch_end(&t, model, &p->branch, 2 * l + 1, &p->V, b->normed, b->r, &b->end,
                      x); /* [vrwkv.cmix] */
    }
}
