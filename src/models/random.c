/* random.c - models of random weights in the shapes of the releases, for benchmarks and tests. */
#include <math.h>
#include <string.h>

#include "models/source.h"

#define VISION_SHIFT .distance = 1, .share = 0.25
#define VISION(c, l, side)                                                     \
    {                                                                          \
        .C = (c), .L = (l), .A = (c), .F = 4 * (c), .H = (c), .N = 1, .p = 16, \
        .G = (side) * (side), .K = 1000                                        \
    }
#define VISION6(c)                                                                            \
    {                                                                                         \
        .C = (c), .L = 12, .A = (c), .F = 4 * (c), .H = (c) / 64, .N = 64, .D = 32, .M = 160, \
        .E = 64, .p = 16, .G = 196, .K = 1000                                                 \
    }

/* Released shapes [the family table]; ranks of version 7 as in the files. */
static const struct {
    const char *name;
    const cv_arch *arch;
    cv_sizes sizes;
    cv_vision_traits traits;
} shapes[] = {
    { "rwkv7-tiny",
      &cv_rwkv7,
      { .V = 256,
        .C = 128,
        .L = 4,
        .A = 128,
        .F = 512,
        .H = 2,
        .N = 64,
        .w = 32,
        .a = 32,
        .v = 32,
        .g = 32 },
      { 0 } },
    { "rwkv7-0.1b",
      &cv_rwkv7,
      { .V = 65536,
        .C = 768,
        .L = 12,
        .A = 768,
        .F = 3072,
        .H = 12,
        .N = 64,
        .w = 64,
        .a = 64,
        .v = 32,
        .g = 128 },
      { 0 } },
    { "rwkv7-0.4b",
      &cv_rwkv7,
      { .V = 65536,
        .C = 1024,
        .L = 24,
        .A = 1024,
        .F = 4096,
        .H = 16,
        .N = 64,
        .w = 64,
        .a = 64,
        .v = 32,
        .g = 128 },
      { 0 } },
    { "rwkv7-1.5b",
      &cv_rwkv7,
      { .V = 65536,
        .C = 2048,
        .L = 24,
        .A = 2048,
        .F = 8192,
        .H = 32,
        .N = 64,
        .w = 96,
        .a = 96,
        .v = 64,
        .g = 256 },
      { 0 } },
    { "rwkv7-2.9b",
      &cv_rwkv7,
      { .V = 65536,
        .C = 2560,
        .L = 32,
        .A = 2560,
        .F = 10240,
        .H = 40,
        .N = 64,
        .w = 96,
        .a = 96,
        .v = 64,
        .g = 320 },
      { 0 } },
    { "rwkv6-tiny",
      &cv_rwkv6,
      { .V = 256,
        .C = 128,
        .L = 4,
        .A = 128,
        .F = 448,
        .H = 2,
        .N = 64,
        .D = 32,
        .M = 160,
        .E = 64 },
      { 0 } },
    { "rwkv6-0.1b",
      &cv_rwkv6,
      { .V = 65536,
        .C = 768,
        .L = 12,
        .A = 768,
        .F = 2688,
        .H = 12,
        .N = 64,
        .D = 32,
        .M = 160,
        .E = 64 },
      { 0 } },
    { "rwkv6-1.6b",
      &cv_rwkv6,
      { .V = 65536,
        .C = 2048,
        .L = 24,
        .A = 2048,
        .F = 7168,
        .H = 32,
        .N = 64,
        .D = 32,
        .M = 160,
        .E = 64 },
      { 0 } },
    { "rwkv5-0.1b",
      &cv_rwkv5_2,
      { .V = 65536, .C = 768, .L = 12, .A = 768, .F = 2688, .H = 12, .N = 64 },
      { 0 } },
    { "rwkv4-169m",
      &cv_rwkv4,
      { .V = 50277, .C = 768, .L = 12, .A = 768, .F = 3072, .H = 768, .N = 1 },
      { 0 } },
    { "rwkv4-430m",
      &cv_rwkv4,
      { .V = 50277, .C = 1024, .L = 24, .A = 1024, .F = 4096, .H = 1024, .N = 1 },
      { 0 } },
    { "vrwkv-t", &cv_vrwkv, VISION(192, 12, 14), { VISION_SHIFT } },
    { "vrwkv-s", &cv_vrwkv, VISION(384, 12, 14), { VISION_SHIFT, .post_norm = true } },
    { "vrwkv-b", &cv_vrwkv, VISION(768, 12, 14), { VISION_SHIFT, .post_norm = true } },
    { "vrwkv-l",
      &cv_vrwkv,
      { .C = 1024,
        .L = 24,
        .A = 1024,
        .F = 4096,
        .H = 1024,
        .N = 1,
        .p = 16,
        .G = 144,
        .K = 1000,
        .J = 3072 },
      { VISION_SHIFT, .post_norm = true, .keyed = true, .mlp = true } },
    { "vrwkv6-t", &cv_vrwkv6, VISION6(192), { VISION_SHIFT } },
    { "vrwkv6-s", &cv_vrwkv6, VISION6(384), { VISION_SHIFT, .post_norm = true } },
    { "vrwkv6-b", &cv_vrwkv6, VISION6(768), { VISION_SHIFT, .post_norm = true } },
};

const char *cv_source_shape_name(size_t i)
{
    return i < sizeof shapes / sizeof *shapes ? shapes[i].name : NULL;
}

/* splitmix64: a good hash of a counter. */
static uint64_t scramble(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Middle and half-width of a field's values: norms are the identity, decays are slow, layers change
 * the stream a little, as trained ones do, so that rounding does not grow from layer to layer. */
static void range_of(const cv_source *source, const cv_view *view, float *middle, float *width)
{
    const char *name = view->field->official.name;
    *middle = 0.5f;
    *width = 0.1f;
    if (view->field->kind != CV_VECTOR) {
        size_t dims[CV_MAX_DIMS];
        const int n = cv_field_dims(source, view->field, CV_GGML, dims);
        const bool outer = strpbrk(view->field->shape, "VK") != NULL;
        float inputs = 1.0f; /* of a low-rank map: the last, of a filter all but the first */
        for (int i = 1; i < n; i++)
            inputs *= (float)dims[i];
        *middle = 0.0f;
        *width = sqrtf(3.0f / inputs) * (outer ? 1.0f : 0.5f);
    } else if (strstr(name, ".bias")) {
        *middle = 0.0f;
    } else if (strstr(name, ".weight")) {
        *middle = 1.0f;
    } else if (strstr(name, "decay") || strstr(name, ".w0")) {
        *middle = -2.0f;
        *width = 2.0f;
    }
}

static void random_values(const cv_source *source, const cv_view *view, size_t first, size_t n,
                          float *out)
{
    float middle, width;
    range_of(source, view, &middle, &width);
    uint64_t place = scramble(source->seed);
    for (const char *c = view->name; *c; c++)
        place = scramble(place ^ (unsigned char)*c);
    const float step = width / 8388608.0f;
    for (size_t i = 0; i < n; i++) {
        const int32_t r = (int32_t)(scramble(place + first + i) >> 40) - 8388608;
        out[i] = middle + (float)r * step;
    }
}

corvid_status cv_source_random(const char *shape, cv_dtype type, uint64_t seed, cv_source *out,
                               corvid_error *err)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(shapes[i].name, shape) == 0) {
            *out = (cv_source){ .arch = shapes[i].arch,
                                .sizes = shapes[i].sizes,
                                .traits = shapes[i].traits,
                                .random_type = type,
                                .seed = seed,
                                .random_values = random_values };
            return CORVID_OK;
        }
    return cv_fail(err, CORVID_E_ARGUMENT, "%s: no such shape; known are %s, %s, %s, ...", shape,
                   shapes[0].name, shapes[1].name, shapes[2].name);
}
