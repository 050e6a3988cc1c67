/* ancestor_block.c - see ancestor_block.h. */
#include "models/ancestor_block.h"

#define AT(member) offsetof(cv_model, member)
#define NAME(name) { name, CV_WHOLE }, CV_NOWHERE, CV_NOWHERE
static const cv_field placed[] = {
    { NAME("emb.weight"), CV_TABLE, "VC", AT(emb), CV_AS_IS, 0 },
    { NAME("pos.weight"), CV_TABLE, "GC", AT(pos), CV_AS_IS, 0 },
    { NAME("ln_out.weight"), CV_VECTOR, "C", AT(ln_out.w), CV_AS_IS, 0 },
    { NAME("ln_out.bias"), CV_VECTOR, "C", AT(ln_out.b), CV_AS_IS, 0 },
    { NAME("head.weight"), CV_MATRIX, "VC", AT(head), CV_AS_IS, 0 },
};
static const cv_field bare[] = {
    { NAME("emb.weight"), CV_TABLE, "VC", AT(emb), CV_AS_IS, 0 },
    { NAME("head.weight"), CV_MATRIX, "VC", AT(head), CV_AS_IS, 0 },
};

const cv_stack cv_placed_stack = {
    .fields = placed,
    .n_fields = sizeof placed / sizeof *placed,
    .layers = "blocks.",
};
const cv_stack cv_bare_stack = {
    .fields = bare,
    .n_fields = sizeof bare / sizeof *bare,
    .layers = "blocks.",
};

size_t cv_places(const cv_sizes *s)
{
    return s->G;
}

void cv_mlp_take(cv_run *run, const cv_sizes *s, cv_mlp_buffers *b)
{
    b->z = cv_take_rowwise(run, s->C);
    cv_take_memory(run, run->T * (s->C + 1));
    b->h = cv_take_common(run, s->F);
    cv_take_memory(run, run->T * s->F);
}

void cv_mlp_rows(const cv_run *run, const cv_sizes *s, const cv_mlp *p, float *x,
                 const cv_mlp_buffers *b)
{
    cv_layer_norm(run, s->C, x, p->ln2, b->z);
    cv_settle(run);
    const cv_linear in = { .W = &p->in, .x = b->z, .y = b->h, .act = CV_ACT_GELU };
    cv_linear_all(run, &in, 1);
    cv_meet(run);
    const cv_linear out = { .W = &p->out, .x = b->h, .y = x, .add = true };
    cv_linear_all(run, &out, 1);
    cv_meet(run);
}
