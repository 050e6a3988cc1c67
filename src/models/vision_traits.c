/* vision_traits.c - what a vision checkpoint says of itself, and what has to be guessed; see vision.h.
 *
 * Where the norms of a layer stand and how far the shift reaches cannot be told from names and
 * shapes.  A file may say it in its metadata, under "config": a JSON object in the words of the
 * official configuration (post_norm, shift_pixel, channel_gamma), which is what corvid writes when
 * it converts.  Else the published checkpoints decide: layer scale means norms behind the branches,
 * but for the detection models of width 192. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "models/vision.h"

#define DISTANCE_MAX 1024

static corvid_status wrong(const cv_checkpoint *ckpt, const char *what, corvid_error *err)
{
    return cv_fail(err, CORVID_E_FORMAT, "%s: in the metadata under config, %s", ckpt->in.path,
                   what);
}

static corvid_status take_object(const cv_checkpoint *ckpt, const json_t *config,
                                 cv_vision_traits *t, corvid_error *err)
{
    const json_t *post = json_object_get(config, "post_norm");
    const json_t *shift = json_object_get(config, "shift_pixel");
    const json_t *share = json_object_get(config, "channel_gamma");
    if (post && !json_is_boolean(post)) return wrong(ckpt, "post_norm is not true or false", err);
    if (post) t->post_norm = json_is_true(post);
    if (shift) {
        const json_int_t distance = json_is_integer(shift) ? json_integer_value(shift) : -1;
        if (distance < 0 || distance > DISTANCE_MAX)
            return wrong(ckpt, "shift_pixel is not a number from 0 to 1024", err);
        t->distance = (size_t)distance;
    }
    if (share && !json_is_null(share)) {
        const double value = json_is_number(share) ? json_number_value(share) : -1.0;
        if (!(value >= 0.0 && value <= 0.25))
            return wrong(ckpt, "channel_gamma is not a number from 0 to 1/4", err);
        t->share = value;
    }
    return CORVID_OK;
}

/* ---- Weights that mean nothing without each other -------------------------------------------- */

static bool has(const cv_checkpoint *ckpt, const char *name)
{
    return cv_checkpoint_find(ckpt, name) != NULL;
}

static bool ends_with(const char *name, const char *suffix)
{
    const size_t n = strlen(name), m = strlen(suffix);
    return n >= m && memcmp(name + n - m, suffix, m) == 0;
}

/* A norm that may be missing is missing with both of its weights. */
static corvid_status check_norms(const cv_checkpoint *ckpt, corvid_error *err)
{
    static const char *const halves[] = { "norm.weight", "norm.bias", "backbone.ln1.weight",
                                          "backbone.ln1.bias" };
    for (size_t i = 0; i < ckpt->n_tensors; i++)
        for (size_t j = 0; j < 4; j++) {
            const char *name = ckpt->tensors[i].name, *other = j % 2 ? "weight" : "bias";
            char partner[128];
            if (!ends_with(name, halves[j])) continue;
            const size_t stem = (size_t)(strrchr(name, '.') + 1 - name);
            if (stem + 8 > sizeof partner) continue;
            snprintf(partner, sizeof partner, "%.*s%s", (int)stem, name, other);
            if (!has(ckpt, partner))
                return cv_fail(err, CORVID_E_FORMAT,
                               "%s: tensor %s is there, but %s is missing; the file is incomplete",
                               ckpt->in.path, name, partner);
        }
    return CORVID_OK;
}

/* One head, or none, and all of it. */
static corvid_status check_head(const cv_checkpoint *ckpt, corvid_error *err)
{
    static const char *const parts[] = { "head.fc", "head", "head.0", "head.2" };
    bool there[4];
    for (size_t i = 0; i < 4; i++) {
        char weight[32], bias[32];
        snprintf(weight, sizeof weight, "%s.weight", parts[i]);
        snprintf(bias, sizeof bias, "%s.bias", parts[i]);
        there[i] = has(ckpt, weight);
        if (has(ckpt, bias) && !there[i])
            return cv_fail(err, CORVID_E_FORMAT,
                           "%s: tensor %s is there, but %s is missing; the file is incomplete",
                           ckpt->in.path, bias, weight);
    }
    if (there[2] != there[3])
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: of the head's two layers (head.0, head.2) only one is there",
                       ckpt->in.path);
    if (there[0] + there[1] + there[3] > 1)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: has several heads (of head.fc, head and head.0 with head.2), "
                       "expected one",
                       ckpt->in.path);
    return CORVID_OK;
}

corvid_status cv_vision_traits_read(const cv_checkpoint *ckpt, const cv_sizes *sizes,
                                    cv_vision_traits *out, corvid_error *err)
{
    const bool scaled = cv_has_suffix(ckpt, ".gamma1");
    *out = (cv_vision_traits){ .post_norm = scaled && sizes->C != 192, .share = 0.25 };
    out->keyed = cv_has_suffix(ckpt, "att.key_norm.weight");
    out->mlp = cv_has_suffix(ckpt, "head.2.weight");
    out->distance = cv_has_suffix(ckpt, "ffn.spatial_mix_k") ? 1 : 0;

    CV_TRY(check_norms(ckpt, err));
    CV_TRY(check_head(ckpt, err));
    const cv_meta *meta = cv_checkpoint_meta(ckpt, "config");
    if (!meta || meta->type != CV_META_TEXT) return CORVID_OK;
    json_t *config = json_loadb(meta->text.bytes, meta->text.n, 0, NULL);
    corvid_status status = CORVID_OK;
    if (json_is_object(config)) status = take_object(ckpt, config, out, err);
    json_decref(config);
    return status;
}
