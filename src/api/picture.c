/* picture.c - pictures, and showing them to a vision model. */
#include <string.h>

#include "api/handles.h"
#include "engine/see.h"

struct corvid_picture {
    cv_picture picture;
};

/* ---- Pictures -------------------------------------------------------------------------------- */

/* A handle; on failure of what fills it, give it to give_back. */
static corvid_status take_handle(corvid_picture **out, corvid_error *err)
{
    *out = NULL;
    CV_TRY(cv_alloc_or_fail(&cv_libc_allocator, 1, sizeof **out, "a picture", (void **)out, err));
    memset(*out, 0, sizeof **out);
    return CORVID_OK;
}

static corvid_status keep_or_drop(corvid_status status, corvid_picture **out)
{
    if (status == CORVID_OK) return status;
    cv_free(&cv_libc_allocator, *out);
    *out = NULL;
    return status;
}

corvid_status corvid_picture_open(const char *path, uint64_t max_pixels, corvid_picture **picture,
                                  corvid_error *err)
{
    CV_TRY(take_handle(picture, err));
    return keep_or_drop(cv_picture_read(&cv_libc_allocator, path,
                                        max_pixels ? max_pixels : CORVID_MAX_PIXELS,
                                        &(*picture)->picture, err),
                        picture);
}

corvid_status corvid_picture_decode(const void *bytes, size_t n, const char *name,
                                    uint64_t max_pixels, corvid_picture **picture,
                                    corvid_error *err)
{
    CV_TRY(take_handle(picture, err));
    return keep_or_drop(cv_picture_decode(&cv_libc_allocator, bytes, n, name,
                                          max_pixels ? max_pixels : CORVID_MAX_PIXELS,
                                          &(*picture)->picture, err),
                        picture);
}

/* One row of 1, 3 or 4 channels as RGB. */
static void copy_row(const unsigned char *from, size_t width, size_t channels, unsigned char *to)
{
    for (size_t x = 0; x < width; x++, from += channels, to += 3)
        for (size_t c = 0; c < 3; c++)
            to[c] = from[channels == 1 ? 0 : c];
}

corvid_status corvid_picture_new(const unsigned char *pixels, size_t width, size_t height,
                                 size_t channels, size_t stride, corvid_picture **picture,
                                 corvid_error *err)
{
    *picture = NULL;
    if (!pixels || width == 0 || height == 0 || width > (size_t)1 << 30 ||
        height > (size_t)1 << 30 || (uint64_t)width * height > CORVID_MAX_PIXELS)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "a picture of %zu x %zu pixels; expected 1 to %llu of them", width, height,
                       (unsigned long long)CORVID_MAX_PIXELS);
    if (channels != 1 && channels != 3 && channels != 4)
        return cv_fail(err, CORVID_E_ARGUMENT, "pixels of %zu channels; expected 1, 3 or 4",
                       channels);
    if (stride == 0) stride = width * channels;
    if (stride < width * channels)
        return cv_fail(err, CORVID_E_ARGUMENT, "rows are %zu bytes apart, but have %zu", stride,
                       width * channels);
    CV_TRY(take_handle(picture, err));
    cv_picture *p = &(*picture)->picture;
    CV_TRY(keep_or_drop(cv_picture_new(&cv_libc_allocator, width, height, p, err), picture));
    for (size_t y = 0; y < height; y++)
        copy_row(pixels + y * stride, width, channels, p->pixels + y * width * 3);
    return CORVID_OK;
}

void corvid_picture_close(corvid_picture *picture)
{
    if (!picture) return;
    cv_picture_free(&picture->picture);
    cv_free(&cv_libc_allocator, picture);
}

const unsigned char *corvid_picture_pixels(const corvid_picture *picture, size_t *width,
                                           size_t *height)
{
    *width = picture->picture.width;
    *height = picture->picture.height;
    return picture->picture.pixels;
}

int corvid_picture_orientation(const corvid_picture *picture)
{
    return picture->picture.orientation;
}

void corvid_framing_defaults(const corvid_model *model, corvid_framing *framing)
{
    cv_framing f = { .resize = 256, .crop_width = 224, .crop_height = 224, .orient = true };
    if (model && model->engine.eye) f = cv_see_framing(&model->engine.model);
    *framing = (corvid_framing){ .struct_size = sizeof *framing,
                                 .resize = f.resize,
                                 .width = f.width,
                                 .height = f.height,
                                 .crop_width = f.crop_width,
                                 .crop_height = f.crop_height,
                                 .orient = f.orient };
}

corvid_status corvid_picture_frame(const corvid_picture *picture, const corvid_framing *framing,
                                   corvid_picture **out, corvid_error *err)
{
    corvid_framing f;
    *out = NULL;
    if (framing->struct_size == 0 || framing->struct_size > sizeof f)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "framing: struct_size is %zu, expected at most %zu; fill it with "
                       "corvid_framing_defaults",
                       framing->struct_size, sizeof f);
    memset(&f, 0, sizeof f);
    memcpy(&f, framing, framing->struct_size);
    const cv_framing how = { .resize = f.resize,
                             .width = f.width,
                             .height = f.height,
                             .crop_width = f.crop_width,
                             .crop_height = f.crop_height,
                             .orient = f.orient != 0 };
    CV_TRY(take_handle(out, err));
    return keep_or_drop(cv_picture_frame(&cv_libc_allocator, &picture->picture, &how,
                                         CORVID_MAX_PIXELS, &(*out)->picture, err),
                        out);
}

void corvid_picture_values(const corvid_picture *picture, const corvid_model *model, float *values)
{
    float table[3][256];
    const bool known = model && model->engine.eye;
    cv_normalise_table(known ? cv_see_normalise(&model->engine.model) : &cv_normalise_255, table);
    cv_picture_values(&picture->picture, table, values);
}

/* ---- Seeing ---------------------------------------------------------------------------------- */

static corvid_status need_vision(const corvid_model *model, corvid_error *err)
{
    if (model->engine.eye) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "this is a language model (%s); it reads tokens, not pictures",
                   model->engine.model.arch->name);
}

/* Larger pictures would make buffers that cannot be counted. */
#define SIDE_MAX   ((size_t)1 << 24)
#define PIXELS_MAX ((uint64_t)1 << 42)

static bool is_size(size_t height, size_t width)
{
    return height > 0 && width > 0 && height <= SIDE_MAX && width <= SIDE_MAX &&
           (uint64_t)height * width <= PIXELS_MAX;
}

static corvid_status check_view(const cv_model *m, const corvid_view *v, size_t n_wanted,
                                cv_image *out, corvid_error *err)
{
    *out = (cv_image){ .values = v->values,
                       .height = v->height,
                       .width = v->width,
                       .logits = v->logits,
                       .pooled = v->pooled,
                       .features = v->features,
                       .class_tokens = v->class_tokens };
    if (v->picture) {
        out->pixels = v->picture->picture.pixels;
        out->values = NULL;
        out->height = v->picture->picture.height;
        out->width = v->picture->picture.width;
    }
    if ((!out->pixels && !out->values) || !is_size(out->height, out->width))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "an empty picture, or more than 2^24 pixels a side, or 2^42 in all");
    if (v->logits && !m->head.rows)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "the model has no head, only features; use corvid features");
    if ((v->features || v->class_tokens) && n_wanted == 0)
        return cv_fail(err, CORVID_E_ARGUMENT, "features of which layers? none is wanted");
    if (v->class_tokens && !m->vision.class_token)
        return cv_fail(err, CORVID_E_ARGUMENT, "the model has no class token");
    return CORVID_OK;
}

static corvid_status check_layers(const cv_model *m, const int *wanted, size_t n, size_t *out,
                                  corvid_error *err)
{
    const long L = (long)m->sizes.L;
    for (size_t i = 0; i < n; i++) {
        const long layer = wanted[i] < 0 ? L + wanted[i] : wanted[i];
        if (layer < 0 || layer >= L)
            return cv_fail(err, CORVID_E_ARGUMENT, "layer %d: the model has layers 0 to %ld",
                           wanted[i], L - 1);
        out[i] = (size_t)layer;
    }
    return CORVID_OK;
}

corvid_status corvid_see(corvid_model *model, const corvid_view *views, size_t n, const int *wanted,
                         size_t n_wanted, corvid_error *err)
{
    CV_TRY(need_vision(model, err));
    cv_engine *e = &model->engine;
    cv_image *images = NULL;
    size_t *layers = NULL;
    corvid_status status = CORVID_OK;
    if (n == 0) return CORVID_OK;
    images = cv_alloc(e->mem, n, sizeof *images);
    layers = cv_alloc(e->mem, n_wanted + 1, sizeof *layers);
    if (!images || !layers)
        status = cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu pictures", n);
    if (status == CORVID_OK) status = check_layers(&e->model, wanted, n_wanted, layers, err);
    for (size_t i = 0; i < n && status == CORVID_OK; i++)
        status = check_view(&e->model, &views[i], n_wanted, &images[i], err);
    if (status == CORVID_OK) status = cv_see(e, images, n, layers, n_wanted, err);
    cv_free(e->mem, images);
    cv_free(e->mem, layers);
    return status;
}

corvid_status corvid_see_memory(const corvid_model *model, size_t height, size_t width, size_t n,
                                uint64_t *bytes, corvid_error *err)
{
    CV_TRY(need_vision(model, err));
    if (!is_size(height, width))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "an empty picture, or more than 2^24 pixels a side, or 2^42 in all");
    *bytes = cv_see_bytes(&model->engine, height, width, n);
    return CORVID_OK;
}

const char *corvid_class_name(const corvid_model *model, size_t i)
{
    return i < model->classes.n ? model->classes.names[i] : NULL;
}
