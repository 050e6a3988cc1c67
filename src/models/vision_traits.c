/* vision_traits.c - what a vision checkpoint says of itself, and what has to be guessed; see vision.h.
 *
 * Where the norms of a layer stand and how far the shift reaches cannot be told from names and
 * shapes.  A file may say it in its metadata, under "config": a JSON object in the words of the
 * official configuration (post_norm, shift_pixel, channel_gamma), which is what corvid writes when
 * it converts.  Else the published checkpoints decide: layer scale means norms behind the branches,
 * but for the detection models of width 192. */
#include <jansson.h>

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

corvid_status cv_vision_traits_read(const cv_checkpoint *ckpt, const cv_sizes *sizes,
                                    cv_vision_traits *out, corvid_error *err)
{
    const bool scaled = cv_has_suffix(ckpt, ".gamma1");
    *out = (cv_vision_traits){ .post_norm = scaled && sizes->C != 192, .share = 0.25 };
    out->keyed = cv_has_suffix(ckpt, "att.key_norm.weight");
    out->mlp = cv_has_suffix(ckpt, "head.2.weight");
    out->distance = cv_has_suffix(ckpt, "ffn.spatial_mix_k") ? 1 : 0;

    const cv_meta *meta = cv_checkpoint_meta(ckpt, "config");
    if (!meta || meta->type != CV_META_TEXT) return CORVID_OK;
    json_t *config = json_loadb(meta->text.bytes, meta->text.n, 0, NULL);
    corvid_status status = CORVID_OK;
    if (json_is_object(config)) status = take_object(ckpt, config, out, err);
    json_decref(config);
    return status;
}
