/* channel_mix.c - channel mixing of RWKV-4, 5 and 6; see channel_mix.h. */
#include "models/channel_mix.h"

void cv_channel_mix_take(cv_run *run, const cv_sizes *s, cv_channel_buffers *b)
{
    b->z = cv_take_rowwise(run, s->C);
    cv_take_memory(run, run->T * (s->C + 1));
    b->xk = cv_take_rowwise(run, s->C);
    b->xr = cv_take_rowwise(run, s->C);
    b->k = cv_take_common(run, s->F);
    b->r = cv_take_common(run, s->C);
    b->v = cv_take_common(run, s->C);
}

void cv_channel_mix_rows(const cv_run *run, const cv_sizes *s, const cv_channel_mix *p,
                         size_t shift, float *x, const cv_channel_buffers *b)
{
    cv_layer_norm(run, s->C, x, p->ln2, b->z);
    cv_settle(run);
    const cv_mix mixes[] = { { p->mu_k, b->xk }, { p->mu_r, b->xr } };
    cv_shift_mix(run, s->C, b->z, shift, mixes, 2); /* [shift.mix] */
    cv_settle(run);

    const cv_linear in[] = { { .W = &p->K, .x = b->xk, .y = b->k, .act = CV_ACT_RELU2 },
                             { .W = &p->R, .x = b->xr, .y = b->r, .act = CV_ACT_SIGMOID } };
    cv_linear_all(run, in, 2);
    cv_meet(run);
    cv_shift_keep(run, s->C, b->z, shift);

    const cv_linear out = { .W = &p->V, .x = b->k, .y = b->v, .sum = x, .gate = b->r };
    cv_linear_all(run, &out, 1); /* [v4.cmix] */
    cv_meet(run);
}
