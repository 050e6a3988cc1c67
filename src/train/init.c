/* init.c - official initial values; see init.h.  [train.init]
 *
 * What an initial value is follows from the tensor's name: three tables of names (mixes, vectors,
 * matrices), and a rule for the norms.  l counts layers, i channels; d = i / C. */
#include "train/init.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/rng.h"
#include "models/ancestor_block.h"
#include "train/orthogonal.h"

/* Where a value stands. */
typedef struct place {
    const cv_arch *arch;
    const cv_sizes *s;
    const cv_init_settings *settings;
    double r01, r10; /* l / (L - 1), and 0 if there is one layer; 1 - l / L */
    double deeper;   /* (l + 1) / L */
    size_t n;        /* numbers in the vector */
} place;

static bool is(const char *name, const char *other)
{
    return strcmp(name, other) == 0;
}

static bool ends_with(const char *name, const char *suffix)
{
    const size_t n = strlen(name), m = strlen(suffix);
    return n >= m && memcmp(name + n - m, suffix, m) == 0;
}

/* i / (n - 1): from 0 to 1 over a vector. */
static double ramp(size_t i, size_t n)
{
    return n > 1 ? (double)i / (double)(n - 1) : 0.0;
}

/* ---- Mixes ------------------------------------------------------------------------------------- */

/* d^(slope r10^power) + lift r01, or 1 minus that. */
static const struct mix {
    const char *name;
    double slope, power, lift;
    bool one_minus;
} mixes[] = {
    { "att.time_mix_k", 1.0, 1.0, 0.0, false },
    { "att.time_mix_v", 1.0, 1.0, 0.3, false },
    { "att.time_mix_r", 0.5, 1.0, 0.0, false },
    { "att.time_mix_g", 0.5, 1.0, 0.0, false },
    { "ffn.time_mix_k", 1.0, 1.0, 0.0, false },
    { "ffn.time_mix_r", 1.0, 1.0, 0.0, false },
    { "att.time_maa_x", 1.0, 1.0, 0.0, true },
    { "att.time_maa_w", 1.0, 1.0, 0.0, true },
    { "att.time_maa_k", 1.0, 1.0, 0.0, true },
    { "att.time_maa_v", 1.0, 1.0, 0.3, true },
    { "att.time_maa_r", 0.5, 1.0, 0.0, true },
    { "att.time_maa_g", 0.5, 1.0, 0.0, true },
    { "ffn.time_maa_k", 1.0, 3.0, 0.0, true },
    { "ffn.time_maa_r", 1.0, 3.0, 0.0, true },
    { "att.x_r", 0.2, 1.0, 0.0, true },
    { "att.x_w", 0.9, 1.0, 0.0, true },
    { "att.x_k", 0.7, 1.0, 0.0, true },
    { "att.x_v", 0.7, 1.0, 0.0, true },
    { "att.x_a", 0.9, 1.0, 0.0, true },
    { "att.x_g", 0.2, 1.0, 0.0, true },
    { "ffn.x_k", 1.0, 4.0, 0.0, true },
    { "att.spatial_mix_k", 1.0, 1.0, 0.0, false },
    { "att.spatial_mix_v", 1.0, 1.0, 0.3, false },
    { "att.spatial_mix_r", 0.5, 1.0, 0.0, false },
    { "ffn.spatial_mix_k", 1.0, 1.0, 0.0, false },
    { "ffn.spatial_mix_r", 1.0, 1.0, 0.0, false },
};

static const struct mix *find_mix(const char *name)
{
    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++)
        if (is(mixes[i].name, name)) return &mixes[i];
    return NULL;
}

bool cv_init_is_mix(const cv_field *field)
{
    return find_mix(field->official.name) != NULL;
}

static double mix_value(const place *p, const struct mix *mix, size_t i)
{
    if (p->settings->no_shift) return mix->one_minus ? 0.0 : 1.0;
    const double d = (double)i / (double)p->n;
    const double x = pow(d, mix->slope * pow(p->r10, mix->power)) + mix->lift * p->r01;
    return mix->one_minus ? 1.0 - x : x;
}

/* ---- Other vectors ----------------------------------------------------------------------------- */

/* -1, 0, 1 in turns, beginning with 0. */
static double zigzag(size_t i)
{
    return (double)((i + 1) % 3) - 1.0;
}

static double decay_4(const place *p, size_t i)
{
    return -5.0 + 8.0 * pow(ramp(i, p->n), 0.7 + 1.3 * p->r01);
}

/* Of versions 5 and 6: over channels, or over heads where there is one number for each. */
static double decay_56(const place *p, size_t i)
{
    return -6.0 + 5.0 * pow(ramp(i, p->n), 0.7 + 1.3 * p->r01);
}

static double bonus_4(const place *p, size_t i)
{
    (void)p;
    return log(0.3) + 0.5 * zigzag(i);
}

static double bonus_5_exp(const place *p, size_t i)
{
    (void)p;
    (void)i;
    return -3.0;
}

static double bonus_heads(const place *p, size_t i)
{
    return p->r01 * (1.0 - ramp(i, p->n));
}

static double bonus_56(const place *p, size_t i)
{
    return bonus_heads(p, i) + 0.1 * zigzag(i);
}

/* t |t| over the channels of a head, t from -1 to 1. */
static double bend(const place *p, size_t i)
{
    const double middle = 0.5 * ((double)p->s->N - 1.0);
    const double t = middle > 0.0 ? ((double)(i % p->s->N) - middle) / middle : 0.0;
    return t * fabs(t);
}

static double slope_7(const place *p, size_t i)
{
    return ramp(i, p->n) - 0.5;
}

static double w0_7(const place *p, size_t i)
{
    return -5.5 + 6.0 * pow(ramp(i, p->n), 1.0 + pow(p->r01, 0.3)) + 2.5 * bend(p, i);
}

static double a0_7(const place *p, size_t i)
{
    return -0.19 + 0.3 * bend(p, i) + 0.4 * slope_7(p, i);
}

static double v0_7(const place *p, size_t i)
{
    return 0.73 - 0.4 * slope_7(p, i);
}

static double k_k_7(const place *p, size_t i)
{
    return 0.71 - 0.1 * slope_7(p, i);
}

static double k_a_7(const place *p, size_t i)
{
    (void)p;
    (void)i;
    return 1.02;
}

static double r_k_7(const place *p, size_t i)
{
    (void)p;
    (void)i;
    return -0.04;
}

static double norm_of_heads(const place *p, size_t i)
{
    (void)i;
    return p->arch->stack->vision ? 1.0 : pow(p->deeper, 0.7);
}

static double layer_scale(const place *p, size_t i)
{
    (void)i;
    if (p->settings->layer_scale > 0.0) return p->settings->layer_scale;
    return p->arch == &cv_vrwkv && p->s->C <= 384 ? 1.0 : 1e-5;
}

/* Of the four gates of an LSTM, that which forgets begins open. */
static double gate_bias(const place *p, size_t i)
{
    return i / p->s->C == 1 ? 1.0 : 0.0;
}

static double zero(const place *p, size_t i)
{
    (void)p;
    (void)i;
    return 0.0;
}

static double one(const place *p, size_t i)
{
    (void)p;
    (void)i;
    return 1.0;
}

/* spatial_decay, spatial_first: curves in the official mode only. */
static double plain_decay(const place *p)
{
    return p->settings->mode == CV_INIT_LOCAL ? 1.0 : 0.0;
}

static double spatial_decay(const place *p, size_t i)
{
    return p->settings->mode == CV_INIT_FANCY ? decay_4(p, i) : plain_decay(p);
}

static double spatial_first(const place *p, size_t i)
{
    return p->settings->mode == CV_INIT_FANCY ? bonus_4(p, i) : plain_decay(p);
}

typedef double formula(const place *p, size_t i);

/* Of one name that versions fill differently, the row with the version stands first. */
static const struct vector {
    const char *name;
    const cv_arch *arch; /* NULL: any */
    const char *shape;   /* NULL: any */
    formula *value;
} vectors[] = {
    { "att.time_decay", &cv_rwkv4, NULL, decay_4 },
    { "att.time_decay", NULL, NULL, decay_56 },
    { "att.time_first", &cv_rwkv4, NULL, bonus_4 },
    { "att.time_first", NULL, NULL, bonus_5_exp },
    { "att.time_faaaa", NULL, "H", bonus_heads },
    { "att.time_faaaa", NULL, NULL, bonus_56 },
    { "att.w0", NULL, NULL, w0_7 },
    { "att.a0", NULL, NULL, a0_7 },
    { "att.v0", NULL, NULL, v0_7 },
    { "att.k_k", NULL, NULL, k_k_7 },
    { "att.k_a", NULL, NULL, k_a_7 },
    { "att.r_k", NULL, NULL, r_k_7 },
    { "att.ln_x.weight", NULL, NULL, norm_of_heads },
    { "att.time_state", NULL, NULL, zero },
    { "lstm.bias", NULL, NULL, gate_bias },
    { "aft.bias_distance", NULL, NULL, zero },
    { "att.spatial_decay", NULL, NULL, spatial_decay },
    { "att.spatial_first", NULL, NULL, spatial_first },
    { "gamma1", NULL, NULL, layer_scale },
    { "gamma2", NULL, NULL, layer_scale },
    { "backbone.pos_embed", NULL, NULL, zero },
    { "backbone.cls_token", NULL, NULL, zero },
};

/* The rest are weights and biases, of norms and of linear layers that are not drawn. */
static formula *find_vector(const cv_arch *arch, const cv_field *field)
{
    const char *name = field->official.name;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        const struct vector *v = &vectors[i];
        if (is(v->name, name) && (!v->arch || v->arch == arch) &&
            (!v->shape || is(v->shape, field->shape)))
            return v->value;
    }
    return ends_with(name, ".bias") ? zero : one;
}

static void fill_vector(const place *p, const cv_field *field, float *out)
{
    const struct mix *mix = find_mix(field->official.name);
    formula *value = find_vector(p->arch, field);
    for (size_t i = 0; i < p->n; i++) {
        double x;
        if (!mix)
            x = value(p, i);
        else if (p->settings->mode == CV_INIT_FANCY)
            x = mix_value(p, mix, i);
        else
            x = p->settings->mode == CV_INIT_LOCAL ? 1.0 : 0.5;
        out[i] = (float)x;
    }
}

/* ---- Drawn tensors ----------------------------------------------------------------------------- */

typedef enum law {
    FIXED, /* a vector that is not drawn */
    ZERO,
    UNIFORM,   /* between -size and size */
    NORMAL,    /* standard deviation `size` */
    ORTHOGONAL /* orthonormal rows or columns, times size */
} law;

typedef struct recipe {
    law law;
    double size;
    bool tall; /* a matrix of more rows than columns is multiplied by sqrt(rows / columns) too */
} recipe;

/* Matrices of language models: what version 4 does, and what the later ones do. */
static const struct matrix {
    const char *name;
    recipe v4, later;
} matrices[] = {
    { "head.weight", { ORTHOGONAL, 0.5, true }, { ORTHOGONAL, 0.5, true } },
    { "att.receptance.weight", { ZERO, 0.0, false }, { ORTHOGONAL, 1.0, false } },
    { "att.key.weight", { ZERO, 0.0, false }, { ORTHOGONAL, 0.1, false } },
    { "att.value.weight", { ORTHOGONAL, 1.0, true }, { ORTHOGONAL, 1.0, false } },
    { "att.gate.weight", { ZERO, 0.0, false }, { ORTHOGONAL, 0.1, false } },
    { "ffn.key.weight", { ORTHOGONAL, 1.0, true }, { ORTHOGONAL, 1.0, false } },
    { "att.time_maa_w2", { ZERO, 0.0, false }, { UNIFORM, 0.01, false } },
    { "att.time_decay_w2", { ZERO, 0.0, false }, { UNIFORM, 0.01, false } },
    { "att.w2", { ZERO, 0.0, false }, { ORTHOGONAL, 0.1, true } },
    { "att.a2", { ZERO, 0.0, false }, { ORTHOGONAL, 0.1, true } },
    { "att.v2", { ZERO, 0.0, false }, { ORTHOGONAL, 0.1, true } },
    { "att.g2", { ZERO, 0.0, false }, { ORTHOGONAL, 0.1, true } },
};

/* The peers draw all from one Gaussian, less where a layer adds to the stream. */
static recipe placed_recipe(const place *p, const cv_field *field)
{
    const char *name = field->official.name;
    if (is(name, "aft.bias_u.weight") || is(name, "aft.bias_z.weight"))
        return (recipe){ NORMAL, 0.01, false };
    if (field->kind == CV_VECTOR) return (recipe){ FIXED, 0.0, false };
    const bool adds = ends_with(name, ".output.weight") || is(name, "ffn.value.weight");
    const double size = adds ? 0.02 / sqrt(2.0 * (double)p->s->L) : 0.02;
    return (recipe){ NORMAL, size, false };
}

/* Those that are not listed are zero: att.output, ffn.value, ffn.receptance, and what leads into low
 * ranks. */
static recipe language_recipe(const place *p, const cv_field *field)
{
    if (field->kind == CV_VECTOR) return (recipe){ FIXED, 0.0, false };
    if (field->kind == CV_TABLE) {
        const double size = p->settings->embedding > 0.0 ? p->settings->embedding : 1e-4;
        return (recipe){ UNIFORM, size, false };
    }
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        if (is(matrices[i].name, field->official.name))
            return p->arch == &cv_rwkv4 ? matrices[i].v4 : matrices[i].later;
    return (recipe){ ZERO, 0.0, false };
}

static recipe from_fan(size_t inputs)
{
    return (recipe){ UNIFORM, 1.0 / sqrt((double)inputs), false };
}

/* An LSTM has no norm behind the embedding, which therefore has the size of one at once. */
static recipe bare_recipe(const place *p, const cv_field *field)
{
    if (field->kind == CV_VECTOR) return (recipe){ FIXED, 0.0, false };
    if (field->kind == CV_TABLE) return (recipe){ NORMAL, 1.0, false };
    return from_fan(p->s->C);
}

/* Models with a head of two layers are those of VRWKV-L's program, which keeps PyTorch's defaults;
 * the others draw linear weights from one Gaussian. */
static recipe vision_recipe(const place *p, bool large, const cv_field *field, size_t cols)
{
    const char *name = field->official.name;
    if (strstr(name, "patch_embed.projection")) return from_fan(3 * p->s->p * p->s->p);
    if (large && is(name, "head.0.bias")) return from_fan(p->s->C);
    if (large && is(name, "head.2.bias")) return from_fan(p->s->J);
    if (field->kind == CV_VECTOR) return (recipe){ FIXED, 0.0, false };
    if (field->kind == CV_LOW_RANK) return (recipe){ UNIFORM, 1e-4, false };
    return large ? from_fan(cols) : (recipe){ NORMAL, 0.02, false };
}

static recipe recipe_of(const cv_source *source, const place *p, const cv_view *view)
{
    const cv_stack *stack = source->arch->stack;
    if (stack->vision) return vision_recipe(p, source->traits.mlp, view->field, view->cols);
    if (stack == &cv_placed_stack) return placed_recipe(p, view->field);
    if (stack == &cv_bare_stack) return bare_recipe(p, view->field);
    return language_recipe(p, view->field);
}

/* The generator of a tensor: by its official name, and which part of it a view is. */
static cv_rng rng_of(const cv_source *source, uint64_t seed, const cv_view *view)
{
    char name[112];
    cv_rng rng;
    cv_field_name(source->arch, view->field, CV_OFFICIAL, view->layer, name, sizeof name);
    const size_t n = strlen(name);
    snprintf(name + n, sizeof name - n, "#%d", view->field->official.slice);
    cv_rng_seed(&rng, XXH3_64bits_withSeed(name, strlen(name), seed));
    return rng;
}

static corvid_status fill_orthogonal(const cv_view *view, recipe how, cv_rng *rng,
                                     const corvid_allocator *mem, float *out, corvid_error *err)
{
    /* Rows and columns as official files count them, where low-rank matrices are [in, out]. */
    const bool turned = view->field->kind == CV_LOW_RANK;
    const double rows = (double)(turned ? view->cols : view->rows);
    const double cols = (double)(turned ? view->rows : view->cols);
    const double tall = how.tall && rows > cols ? sqrt(rows / cols) : 1.0;
    return cv_orthogonal(mem, rng, view->rows, view->cols, how.size * tall, out, err);
}

/* Mixes that are the same for all tokens. */
static bool has_plain_shift(const cv_arch *arch)
{
    return arch->stack == &cv_language_stack && arch != &cv_rwkv6;
}

corvid_status cv_init_fill(const cv_source *source, uint64_t seed, const cv_view *view, float *out,
                           const cv_init_settings *settings, const corvid_allocator *mem,
                           corvid_error *err)
{
    static const cv_init_settings official = { 0 };
    const cv_sizes *s = &source->sizes;
    const double l = (double)view->layer, L = (double)s->L;
    const place p = { .arch = source->arch,
                      .s = s,
                      .settings = settings ? settings : &official,
                      .r01 = s->L > 1 ? l / (L - 1.0) : 0.0,
                      .r10 = 1.0 - l / L,
                      .deeper = (l + 1.0) / L,
                      .n = view->rows * view->cols };
    if (p.settings->mode != CV_INIT_FANCY && source->arch != &cv_vrwkv)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s has no local or global initialisation; only vrwkv has",
                       source->arch->name);
    if (p.settings->no_shift && !has_plain_shift(source->arch))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s has no token shift that can be left out; rwkv4, rwkv5.2 and rwkv7 have",
                       source->arch->name);
    const recipe how = recipe_of(source, &p, view);
    cv_rng rng = rng_of(source, seed, view);
    switch (how.law) {
    case FIXED: fill_vector(&p, view->field, out); break;
    case ZERO: memset(out, 0, p.n * sizeof *out); break;
    case UNIFORM:
        for (size_t i = 0; i < p.n; i++)
            out[i] = (float)(how.size * (2.0 * cv_rng_uniform(&rng) - 1.0));
        break;
    case NORMAL:
        for (size_t i = 0; i < p.n; i++)
            out[i] = (float)(how.size * (double)cv_rng_normal(&rng));
        break;
    case ORTHOGONAL: return fill_orthogonal(view, how, &rng, mem, out, err);
    }
    return CORVID_OK;
}
