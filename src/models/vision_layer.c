/* vision_layer.c - what the layers of all vision models share; see vision.h. */
#include <string.h>

#include "models/vision.h"

void cv_branch_begin(const cv_run *run, const cv_model *model, const cv_branch *p, const float *x,
                     float *z)
{
    const size_t C = model->sizes.C, first = run->lo * C;
    if (model->vision.traits.post_norm)
        memcpy(z + first, x + first, (run->hi - run->lo) * C * sizeof *z);
    else
        cv_layer_norm(run, C, x, p->ln, z);
}

void cv_branch_end(const cv_tile *tile, const cv_model *model, const cv_branch *p,
                   const cv_matrix *W, const float *in, const float *gate, float *out, float *x)
{
    const cv_kernels *kernel = tile->run.kernel;
    const size_t C = model->sizes.C, T = tile->run.T;
    const bool post = model->vision.traits.post_norm;
    x += tile->first * C;
    if (!post && !p->gamma && !gate) { /* nothing comes between */
        const cv_linear add = { .W = W, .x = in, .y = x, .add = true };
        cv_linear_all(&tile->run, &add, 1);
        return;
    }
    const cv_linear product = { .W = W, .x = in, .y = out };
    cv_linear_all(&tile->run, &product, 1);
    if (!post && !p->gamma) {
        kernel->mul_add(T * C, gate, out, x);
        return;
    }
    if (gate) kernel->mul(T * C, out, gate, out);
    if (post) cv_layer_norm(&tile->run, C, out, p->ln, out);
    for (size_t i = 0; !p->gamma && i < T * C; i++)
        x[i] += out[i];
    for (size_t t = 0; p->gamma && t < T; t++)
        kernel->mul_add(C, p->gamma, out + t * C, x + t * C);
}

void cv_key_norm(const cv_tile *tile, size_t n, cv_norm norm, float *y)
{
    if (norm.w) cv_layer_norm(&tile->run, n, y, norm, y);
}

void cv_vision_channel_mix_take(cv_run *run, const cv_sizes *s, cv_vision_channel_buffers *b)
{
    b->shifted = cv_take_tile(run, s->C);
    b->xk = cv_take_tile(run, s->C);
    b->xr = cv_take_tile(run, s->C);
    b->r = cv_take_tile(run, s->C);
    b->out = cv_take_tile(run, s->C);
    b->k = cv_take_tile(run, s->F);
}

void cv_vision_channel_mix_rows(const cv_run *run, const cv_model *model,
                                const cv_vision_channel_mix *p, const cv_q_shift *shift, float *x,
                                float *z, const cv_vision_channel_buffers *b)
{
    const size_t C = model->sizes.C, F = model->sizes.F;
    cv_branch_begin(run, model, &p->branch, x, z);
    cv_meet(run);
    for (cv_tile t = cv_tile_begin(run); cv_tile_next(&t);) {
        const cv_mix mixes[] = { { p->mu_k, b->xk }, { p->mu_r, b->xr } };
        cv_q_shift_rows(&t, C, shift, z, b->shifted);
        cv_q_mix(&t, C, z, b->shifted, mixes, 2);

        const cv_linear in[] = { { .W = &p->K, .x = b->xk, .y = b->k, .act = CV_ACT_RELU2 },
                                 { .W = &p->R, .x = b->xr, .y = b->r, .act = CV_ACT_SIGMOID } };
        cv_linear_all(&t.run, in, 2);
        cv_key_norm(&t, F, p->key_norm, b->k);

        cv_branch_end(&t, model, &p->branch, &p->V, b->k, b->r, b->out, x); /* [vrwkv.cmix] */
    }
}
