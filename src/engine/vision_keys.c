/* vision_keys.c - the metadata of a converted vision model: its traits, and the names of classes. */
#include <stdio.h>
#include <string.h>

#include "engine/class_names.h"
#include "engine/conversion.h"
#include "engine/see.h"

bool cv_is_vision_key(const char *key)
{
    return strcmp(key, "config") == 0 || strcmp(key, CV_CLASSES_KEY) == 0;
}

/* In the words of the official configuration, as vision_traits.c reads it. */
static corvid_status add_config(const cv_source *source, cv_meta_list *list, corvid_error *err)
{
    const cv_meta *given = source->ckpt ? cv_checkpoint_meta(source->ckpt, "config") : NULL;
    if (given && given->type == CV_META_TEXT)
        return cv_meta_add_text(list, "config", given->text.bytes, given->text.n, err);
    const cv_vision_traits *t = &source->traits;
    const cv_sizes *s = &source->sizes;
    char text[512];
    const int n = snprintf(
        text, sizeof text,
        "{\"model\": \"%s\", \"img_size\": %zu, \"patch_size\": %zu, \"embed_dims\": %zu, "
        "\"depth\": %zu, \"num_classes\": %zu, \"post_norm\": %s, \"key_norm\": %s, "
        "\"shift_pixel\": %zu, \"channel_gamma\": %.17g}",
        source->arch == &cv_vrwkv6 ? "VRWKV6" : "VRWKV", cv_see_native(s), s->p, s->C, s->L, s->K,
        t->post_norm ? "true" : "false", t->keyed ? "true" : "false", t->distance, t->share);
    return cv_meta_add_text(list, "config", text, (size_t)n, err);
}

/* All names, a line each. */
static corvid_status add_names(const cv_class_names *names, cv_meta_list *list, corvid_error *err)
{
    size_t size = 0, at = 0;
    for (size_t i = 0; i < names->n; i++)
        size += strlen(names->names[i]) + 1;
    char *text = cv_arena_alloc(list->arena, size + 1, 1);
    if (!text) return cv_fail(err, CORVID_E_MEMORY, "out of memory: class names");
    for (size_t i = 0; i < names->n; i++) {
        const size_t n = strlen(names->names[i]);
        memcpy(text + at, names->names[i], n);
        text[at + n] = '\n';
        at += n + 1;
    }
    return cv_meta_add_text(list, CV_CLASSES_KEY, text, at, err);
}

corvid_status cv_vision_keys(const corvid_allocator *mem, const cv_source *source,
                             const cv_convert_settings *settings, cv_meta_list *list,
                             corvid_error *err)
{
    const char *arch = source->arch->name;
    cv_class_names names;
    if (settings->format == CV_GGUF)
        CV_TRY(cv_meta_add_text(list, "general.architecture", arch, strlen(arch), err));
    CV_TRY(add_config(source, list, err));
    CV_TRY(cv_class_names_find(mem, source->sizes.K, settings->classes, source->ckpt, NULL, NULL,
                               &names, err));
    const corvid_status status = names.names ? add_names(&names, list, err) : CORVID_OK;
    cv_class_names_free(mem, &names);
    return status;
}
