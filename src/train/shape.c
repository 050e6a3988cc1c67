/* shape.c - official sizes of new models; see shape.h. */
#include "train/shape.h"

#include <math.h>
#include <string.h>

#include "models/ancestor_block.h"

/* Bounds that keep every product of sizes far from overflow. */
enum {
    MOST_LAYERS = 1000,
    MOST_WIDTH = 1 << 16,
    MOST_INNER = 1 << 20,
    MOST_ROWS = 1 << 24, /* of a vocabulary, or classes */
    MOST_PLACES = 1 << 16,
    MOST_SIDE = 1 << 14,
    MOST_PATCH = 256,
    MOST_HEAD = 1024
};

static corvid_status find_arch(const char *name, const cv_arch **out, corvid_error *err)
{
    for (size_t i = 0; cv_registry_at(i); i++)
        if (name && strcmp(cv_registry_at(i)->name, name) == 0) {
            *out = cv_registry_at(i);
            return CORVID_OK;
        }
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "%s: no such architecture; known are rwkv4, rwkv5.0, rwkv5.1, rwkv5.2, rwkv6, "
                   "rwkv7, gpt, aft-simple, aft-full, aft-local, lstm, vrwkv and vrwkv6",
                   name ? name : "(none)");
}

static corvid_status check(const char *what, size_t n, size_t most, corvid_error *err)
{
    if (n >= 1 && n <= most) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT, "%s: %zu asked for, expected 1 to %zu", what, n, most);
}

/* max(32, x rounded to a multiple of 32; halves to the even multiple). */
static size_t rank(double x)
{
    const double r = 32.0 * rint(x / 32.0);
    return r < 32.0 ? 32 : (size_t)r;
}

static void set_ranks(const cv_arch *arch, cv_sizes *s)
{
    const double root = sqrt((double)s->C);
    if (arch == &cv_rwkv7) {
        s->w = s->a = rank(2.5 * root);
        s->v = rank(1.7 * root);
        s->g = rank(5.0 * root);
    }
    if (arch == &cv_rwkv6 || arch == &cv_vrwkv6) {
        const bool wide = arch == &cv_rwkv6 && s->C >= 4096;
        s->D = wide ? 64 : 32;
        s->E = wide ? 128 : 64;
        s->M = 5 * s->D;
    }
}

static corvid_status set_heads(const cv_arch *arch, const cv_shape_wish *wish, cv_sizes *s,
                               corvid_error *err)
{
    s->A = s->C;
    if (cv_has_no_heads(arch)) {
        s->H = s->A;
        s->N = 1;
        return CORVID_OK;
    }
    s->N = wish->head_size ? wish->head_size : 64;
    CV_TRY(check("head size", s->N, MOST_HEAD, err));
    if (s->A % s->N != 0)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "width %zu is not a multiple of the head size %zu; take %zu, or another "
                       "head size",
                       s->A, s->N, (s->A + s->N - 1) / s->N * s->N);
    s->H = s->A / s->N;
    return CORVID_OK;
}

static corvid_status set_places(const cv_arch *arch, const cv_shape_wish *wish, cv_sizes *s,
                                corvid_error *err)
{
    if (arch->stack != &cv_placed_stack) return CORVID_OK;
    s->G = wish->context ? wish->context : 1024;
    CV_TRY(check("context", s->G, MOST_PLACES, err));
    if (arch != &cv_aft_full && arch != &cv_aft_local) return CORVID_OK;
    s->E = wish->rank ? wish->rank : 64;
    CV_TRY(check("rank of the biases", s->E, MOST_WIDTH, err));
    if (arch == &cv_aft_full) return CORVID_OK;
    s->w = wish->window ? wish->window : 32;
    return check("window of the biases", s->w, MOST_PLACES, err);
}

/* 4 C; versions 5 and 6 3.5 C, down to a multiple of 32. */
static size_t official_inner(const cv_arch *arch, size_t C)
{
    const bool narrow =
        arch == &cv_rwkv5_0 || arch == &cv_rwkv5_1 || arch == &cv_rwkv5_2 || arch == &cv_rwkv6;
    const size_t F = 7 * C / 2 / 32 * 32;
    return narrow && F > 0 ? F : 4 * C;
}

static bool choose(cv_choice choice, bool official)
{
    return choice == CV_AS_OFFICIAL ? official : choice == CV_YES;
}

static corvid_status set_vision(const cv_shape_wish *wish, cv_source *out, corvid_error *err)
{
    cv_sizes *s = &out->sizes;
    const size_t side = wish->image ? wish->image : 224;
    s->p = wish->patch ? wish->patch : 16;
    s->K = wish->classes ? wish->classes : 1000;
    CV_TRY(check("classes", s->K, MOST_ROWS, err));
    CV_TRY(check("side of a patch", s->p, MOST_PATCH, err));
    CV_TRY(check("side of an image", side, MOST_SIDE, err));
    if (side % s->p != 0)
        return cv_fail(
            err, CORVID_E_ARGUMENT,
            "images of %zu pixels a side are no whole number of patches of %zu; take %zu", side,
            s->p, (side + s->p - 1) / s->p * s->p);
    s->G = (side / s->p) * (side / s->p);
    out->traits = (cv_vision_traits){
        .post_norm = choose(wish->post_norm, s->C > 192),
        .mlp = choose(wish->mlp, s->L > 12),
        .keyed = choose(wish->keyed, s->L > 12),
        .distance = 1,
        .share = 0.25,
    };
    if (out->traits.mlp) s->J = 3 * s->C;
    return CORVID_OK;
}

/* What a shape alone says of its values. */
static void zeros(const cv_source *source, const cv_view *view, size_t first, size_t n, float *out)
{
    (void)source;
    (void)view;
    (void)first;
    memset(out, 0, n * sizeof *out);
}

corvid_status cv_shape_for(const cv_shape_wish *wish, cv_source *out, corvid_error *err)
{
    cv_source made = { .dialect = CV_OFFICIAL, .random_type = CV_F32, .random_values = zeros };
    cv_sizes *s = &made.sizes;
    CV_TRY(find_arch(wish->arch, &made.arch, err));
    s->L = wish->layers;
    s->C = wish->width;
    CV_TRY(check("layers", s->L, MOST_LAYERS, err));
    CV_TRY(check("width", s->C, MOST_WIDTH, err));
    CV_TRY(set_heads(made.arch, wish, s, err));
    s->F = wish->inner ? wish->inner : official_inner(made.arch, s->C);
    CV_TRY(check("width of the channel mix", s->F, MOST_INNER, err));
    if (made.arch == &cv_lstm && s->F != 4 * s->C)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "lstm: the gates are 4 times the width %zu, not %zu; leave it out", s->C,
                       s->F);
    set_ranks(made.arch, s);
    CV_TRY(set_places(made.arch, wish, s, err));
    if (made.arch->stack->vision) {
        CV_TRY(set_vision(wish, &made, err));
    } else {
        s->V = wish->vocabulary;
        CV_TRY(check("vocabulary", s->V, MOST_ROWS, err));
    }
    *out = made;
    return CORVID_OK;
}
