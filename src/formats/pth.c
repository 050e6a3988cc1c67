/* pth.c - from the value tree of a PyTorch checkpoint to a list of named tensors.  [pth]
 *
 * Finds the dict of tensors inside the wrappings that training programs put around it, flattens
 * nested dicts, takes off prefixes that all names share, and keeps the numbers and texts beside
 * the tensors as metadata.  The containers are pth_zip.c and pth_legacy.c; the pickle itself is
 * pickle.c.  Tensors outside the chosen dict (an optimizer's) are left alone. */
#include "formats/pth.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"

#define NAME_LIMIT    500 /* bytes of a tensor's name; PyTorch's own have some sixty */
#define NEST_LIMIT    16  /* dicts in dicts */
#define BUDGET_FACTOR 4
#define BUDGET_BASE   ((size_t)6 << 20)

typedef struct collector {
    cv_checkpoint *ckpt;
    const cv_pickle *pickle;
    size_t n_bytes; /* of the pickle */
    cv_pth_locate locate;
    void *ctx;
    bool fill; /* else count only */
    size_t n, visits;
    char name[NAME_LIMIT + 1];
    corvid_error *err;
} collector;

static unsigned long long offset_of(const collector *c)
{
    return (unsigned long long)c->pickle->base;
}

/* ---- memory --------------------------------------------------------------------------------- */

/* Zeroed memory from the checkpoint's arena, within 4 bytes per byte of pickle + 6 MiB: shared
 * dicts would let a small pickle name the same tensors any number of times. */
static corvid_status take(collector *c, size_t count, size_t size, void **out)
{
    size_t bytes, limit, used = c->ckpt->arena.total;
    if (!cv_mul_size(c->n_bytes, BUDGET_FACTOR, &limit)) limit = SIZE_MAX / 2;
    if (!cv_add_size(limit, BUDGET_BASE, &limit)) limit = SIZE_MAX;
    if (!cv_mul_size(count, size, &bytes) || used > limit || bytes > limit - used)
        return cv_fail(
            c->err, CORVID_E_FORMAT,
            "pickle at offset %llu: its %zu bytes describe more tensors and names than %zu bytes "
            "hold, out of all proportion; refused",
            offset_of(c), c->n_bytes, limit);
    *out = cv_arena_alloc(&c->ckpt->arena, count, size);
    if (!*out)
        return cv_fail(c->err, CORVID_E_MEMORY, "out of memory: %zu bytes for the list of tensors",
                       bytes);
    return CORVID_OK;
}

static corvid_status take_text(collector *c, const char *bytes, size_t n, const char **out)
{
    void *copy = NULL;
    CV_TRY(take(c, n + 1, 1, &copy));
    if (n) memcpy(copy, bytes, n);
    *out = copy;
    return CORVID_OK;
}

/* ---- names ---------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at s; 0 when there is none (RFC 3629: no overlong forms, no
 * surrogates, nothing above U+10FFFF). */
static size_t character(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80) return 1;
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || length > n) return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return length;
}

/* Names go into messages, listings and other files: UTF-8 without control characters. */
static bool printable(const char *text, size_t n)
{
    for (size_t i = 0, length; i < n; i += length) {
        const unsigned char *s = (const unsigned char *)text + i;
        length = character(s, n - i);
        if (length == 0 || s[0] < 0x20 || s[0] == 0x7f) return false;
    }
    return true;
}

/* Puts a key behind the first n bytes of the name; *end is the length then. */
static corvid_status name_append(collector *c, size_t n, const cv_pickled *key, size_t *end)
{
    char shown[64];
    size_t dot = n ? 1 : 0;
    if (key->n > NAME_LIMIT - n - dot || !printable(key->as.text, key->n))
        return cv_fail(c->err, CORVID_E_FORMAT,
                       "tensor \"%s\": a name of more than %d bytes, or not printable UTF-8",
                       cv_pickle_show(shown, sizeof shown, key->as.text, key->n), NAME_LIMIT);
    if (dot) c->name[n] = '.';
    if (key->n) memcpy(c->name + n + dot, key->as.text, key->n);
    *end = n + dot + key->n;
    c->name[*end] = '\0';
    return CORVID_OK;
}

/* ---- tensors -------------------------------------------------------------------------------- */

/* Row-major without gaps; the stride of a dimension of size 1 does not matter. */
static bool is_contiguous(const cv_pickled_tensor *p)
{
    size_t expected = 1;
    for (int i = p->n_dims; i-- > 0;) {
        if (p->dims[i] != 1 && p->strides[i] != expected) return false;
        expected *= p->dims[i]; /* divides p->count, which did not overflow */
    }
    return true;
}

static corvid_status tensor_fill(collector *c, const cv_pickled_tensor *p, size_t n_name,
                                 cv_tensor *t)
{
    cv_pickle_storage *s = p->storage;
    CV_TRY(take_text(c, c->name, n_name, &t->name));
    t->dtype = s->dtype;
    t->n_dims = p->n_dims;
    t->count = p->count;
    t->contiguous = p->count == 0 || is_contiguous(p);
    size_t row = 1;
    for (int i = p->n_dims; i-- > 0;) {
        t->dims[i] = p->dims[i];
        t->strides[i] = t->contiguous ? row : p->strides[i];
        row *= p->dims[i] ? p->dims[i] : 1;
    }
    if (p->count == 0) return CORVID_OK; /* nothing to find, and its storage may be missing */
    if (!s->located) {
        corvid_status status = c->locate(c->ctx, s, c->err);
        if (status != CORVID_OK) {
            char where[NAME_LIMIT + 16];
            snprintf(where, sizeof where, "tensor \"%s\"", c->name);
            cv_error_prefix(c->err, where);
            return status;
        }
    }
    /* p->first < s->count, whose bytes lie within the file. */
    t->offset = s->offset + p->first * cv_dtype_of(s->dtype)->block_bytes;
    return CORVID_OK;
}

static corvid_status walk(collector *c, const cv_pickled *dict, size_t n_name, int nested);

static corvid_status walk_item(collector *c, const cv_pickled *key, const cv_pickled *value,
                               size_t n_name, int nested)
{
    size_t end = 0;
    if (key->type != CV_PICKLED_TEXT) return CORVID_OK; /* an optimizer's numbered state */
    if (value->type != CV_PICKLED_TENSOR && value->type != CV_PICKLED_DICT) return CORVID_OK;
    if (++c->visits > c->n_bytes)
        return cv_fail(
            c->err, CORVID_E_FORMAT,
            "tensor \"%.100s\": the same dicts are repeated more than %zu times; refused", c->name,
            c->n_bytes);
    CV_TRY(name_append(c, n_name, key, &end));
    if (value->type == CV_PICKLED_DICT) return walk(c, value, end, nested + 1);
    if (c->fill) CV_TRY(tensor_fill(c, value->as.tensor, end, &c->ckpt->tensors[c->n]));
    c->n++;
    return CORVID_OK;
}

/* All tensors in a dict and in the dicts within it. */
static corvid_status walk(collector *c, const cv_pickled *dict, size_t n_name, int nested)
{
    cv_pickled_items *items = dict->as.items;
    if (items->entered || nested > NEST_LIMIT)
        return cv_fail(c->err, CORVID_E_FORMAT,
                       "pickle at offset %llu: \"%.100s\": %s; expected a dict of tensors",
                       offset_of(c), c->name,
                       items->entered ? "a dict that contains itself" : "dicts nested too deep");
    corvid_status status = CORVID_OK;
    items->entered = true;
    for (size_t i = 0; status == CORVID_OK && i + 1 < items->n; i += 2)
        status = walk_item(c, &items->at[i], &items->at[i + 1], n_name, nested);
    items->entered = false;
    return status;
}

static corvid_status count_tensors(collector *c, const cv_pickled *dict, size_t *n)
{
    c->fill = false;
    c->n = c->visits = 0;
    c->name[0] = '\0';
    CV_TRY(walk(c, dict, 0, 0));
    *n = c->n;
    return CORVID_OK;
}

/* ---- which dict ----------------------------------------------------------------------------- */

static const char *const wrappers[] = { "state_dict", "model", "module", "state_dict_ema" };

static bool has_own_tensors(const cv_pickled *dict)
{
    const cv_pickled_items *items = dict->as.items;
    for (size_t i = 0; i + 1 < items->n; i += 2)
        if (items->at[i + 1].type == CV_PICKLED_TENSOR) return true;
    return false;
}

/* The wrapped dict of the first key that holds tensors, else *out stays. */
static corvid_status unwrap(collector *c, const cv_pickled **out, const char **key)
{
    const cv_pickled *dict = *out;
    *key = NULL;
    for (size_t i = 0; i < sizeof wrappers / sizeof wrappers[0]; i++) {
        size_t n;
        const cv_pickled *inner = cv_pickle_get(dict, wrappers[i]);
        if (!inner || inner->type != CV_PICKLED_DICT) continue;
        CV_TRY(count_tensors(c, inner, &n));
        if (n == 0) continue;
        *out = inner;
        *key = wrappers[i];
        return CORVID_OK;
    }
    return CORVID_OK;
}

/* Follows wrappers inside wrappers; path says which, "model.module". */
static corvid_status choose(collector *c, const cv_pickled *root, const cv_pickled **out,
                            char *path, size_t room)
{
    const cv_pickled *dict = root;
    size_t at = 0;
    path[0] = '\0';
    for (int level = 0; level < 4; level++) {
        const char *key;
        if (level > 0 && has_own_tensors(dict)) break;
        CV_TRY(unwrap(c, &dict, &key));
        if (!key) break;
        at += (size_t)snprintf(path + at, room - at, "%s%s", at ? "." : "", key);
    }
    *out = dict;
    return CORVID_OK;
}

static const char *type_name(cv_pickled_type type)
{
    switch (type) {
    case CV_PICKLED_NONE: return "None";
    case CV_PICKLED_BOOL: return "a bool";
    case CV_PICKLED_INT: return "an int";
    case CV_PICKLED_FLOAT: return "a float";
    case CV_PICKLED_TEXT: return "a text";
    case CV_PICKLED_TUPLE: return "a tuple";
    case CV_PICKLED_LIST: return "a list";
    case CV_PICKLED_DICT: return "a dict";
    case CV_PICKLED_TENSOR: return "a tensor";
    case CV_PICKLED_GLOBAL:
    case CV_PICKLED_STORAGE:
    case CV_PICKLED_OPAQUE:
    case CV_PICKLED_MARK: break;
    }
    return "an object";
}

/* ChatRWKV's own format has its matrices transposed and divided already.  [dialect.rescale] */
static corvid_status check_root(collector *c, const cv_pickled *root)
{
    static const char *const converted[] = { "_strategy", "_version", "_rescale_layer" };
    if (root->type != CV_PICKLED_DICT)
        return cv_fail(c->err, CORVID_E_FORMAT,
                       "pickle at offset %llu: the root is %s, expected a dict of tensors; save "
                       "the model's state_dict()",
                       offset_of(c), type_name((cv_pickled_type)root->type));
    for (size_t i = 0; i < sizeof converted / sizeof converted[0]; i++)
        if (cv_pickle_get(root, converted[i]))
            return cv_fail(c->err, CORVID_E_FORMAT,
                           "pickle at offset %llu: the key \"%s\" says that ChatRWKV has converted "
                           "this file for one strategy; use the original .pth it was made from",
                           offset_of(c), converted[i]);
    return CORVID_OK;
}

/* ---- prefixes ------------------------------------------------------------------------------- */

static bool all_begin_with(const cv_checkpoint *ckpt, const char *prefix, size_t n)
{
    for (size_t i = 0; i < ckpt->n_tensors; i++)
        if (strncmp(ckpt->tensors[i].name, prefix, n) != 0 || ckpt->tensors[i].name[n] == '\0')
            return false;
    return ckpt->n_tensors > 0;
}

/* Takes off what training wrappers put before every name; `stripped` is all of it. */
static void strip_prefixes(cv_checkpoint *ckpt, char *stripped, size_t room)
{
    static const char *const prefixes[] = { "_forward_module.", "module.", "model." };
    size_t at = 0, i = 0;
    stripped[0] = '\0';
    while (i < sizeof prefixes / sizeof prefixes[0]) {
        size_t n = strlen(prefixes[i]);
        if (at + n >= room || !all_begin_with(ckpt, prefixes[i], n)) {
            i++;
            continue;
        }
        for (size_t k = 0; k < ckpt->n_tensors; k++)
            ckpt->tensors[k].name += n;
        memcpy(stripped + at, prefixes[i], n + 1);
        at += n;
        i = 0;
    }
}

/* ---- metadata ------------------------------------------------------------------------------- */

static corvid_status meta_text(collector *c, const char *bytes, size_t n, cv_text *out)
{
    out->n = n;
    return take_text(c, bytes, n, &out->bytes);
}

/* A list or tuple of texts; *is_texts is false for any other. */
static corvid_status meta_texts(collector *c, const cv_pickled *value, cv_meta *meta,
                                bool *is_texts)
{
    const cv_pickled_items *items = value->as.items;
    *is_texts = items->n > 0;
    for (size_t i = 0; i < items->n; i++)
        if (items->at[i].type != CV_PICKLED_TEXT) *is_texts = false;
    if (!*is_texts) return CORVID_OK;
    void *texts = NULL;
    CV_TRY(take(c, items->n, sizeof(cv_text), &texts));
    for (size_t i = 0; i < items->n; i++)
        CV_TRY(meta_text(c, items->at[i].as.text, items->at[i].n, (cv_text *)texts + i));
    meta->type = CV_META_TEXTS;
    meta->count = items->n;
    meta->texts = texts;
    return CORVID_OK;
}

/* The value as metadata; *taken is false for what has no such form. */
static corvid_status meta_value(collector *c, const cv_pickled *value, cv_meta *meta, bool *taken)
{
    *taken = true;
    switch ((cv_pickled_type)value->type) {
    case CV_PICKLED_BOOL:
    case CV_PICKLED_INT:
        meta->type = value->type == CV_PICKLED_INT ? CV_META_INT : CV_META_BOOL;
        meta->integer = value->as.integer;
        return CORVID_OK;
    case CV_PICKLED_FLOAT:
        meta->type = CV_META_FLOAT;
        meta->number = value->as.number;
        return CORVID_OK;
    case CV_PICKLED_TEXT:
        meta->type = CV_META_TEXT;
        return meta_text(c, value->as.text, value->n, &meta->text);
    case CV_PICKLED_LIST:
    case CV_PICKLED_TUPLE: return meta_texts(c, value, meta, taken);
    default: *taken = false; return CORVID_OK;
    }
}

/* Everything in a dict that has a form as metadata; keys get the prefix. */
static corvid_status meta_dict(collector *c, const cv_pickled *dict, const char *prefix)
{
    const cv_pickled_items *items = dict->as.items;
    for (size_t i = 0; i + 1 < items->n; i += 2) {
        const cv_pickled *key = &items->at[i];
        char name[NAME_LIMIT + 1];
        if (key->type != CV_PICKLED_TEXT || key->n + strlen(prefix) > NAME_LIMIT ||
            !printable(key->as.text, key->n))
            continue;
        int n = snprintf(name, sizeof name, "%s%.*s", prefix, (int)key->n, key->as.text);
        cv_meta *meta = &c->ckpt->meta[c->ckpt->n_meta];
        bool taken;
        *meta = (cv_meta){ 0 };
        CV_TRY(meta_value(c, &items->at[i + 1], meta, &taken));
        if (!taken) continue;
        CV_TRY(take_text(c, name, (size_t)n, &meta->key));
        c->ckpt->n_meta++;
    }
    return CORVID_OK;
}

static corvid_status meta_own(collector *c, const char *key, const char *value)
{
    if (!value[0]) return CORVID_OK;
    cv_meta *meta = &c->ckpt->meta[c->ckpt->n_meta];
    *meta = (cv_meta){ .type = CV_META_TEXT };
    CV_TRY(take_text(c, key, strlen(key), &meta->key));
    CV_TRY(meta_text(c, value, strlen(value), &meta->text));
    c->ckpt->n_meta++;
    return CORVID_OK;
}

/* Numbers and texts at the root, those of mmcv's "meta" dict (class names), and what was
 * unwrapped and stripped. */
static corvid_status collect_meta(collector *c, const cv_pickled *root, const char *wrapper,
                                  const char *prefix)
{
    const cv_pickled *inner = cv_pickle_get(root, "meta");
    if (inner && inner->type != CV_PICKLED_DICT) inner = NULL;
    size_t n = 2 + root->as.items->n / 2 + (inner ? inner->as.items->n / 2 : 0);
    void *block = NULL;
    CV_TRY(take(c, n, sizeof(cv_meta), &block));
    c->ckpt->meta = block;
    c->ckpt->n_meta = 0;
    CV_TRY(meta_own(c, "pth.wrapper", wrapper));
    CV_TRY(meta_own(c, "pth.prefix", prefix));
    CV_TRY(meta_dict(c, root, ""));
    return inner ? meta_dict(c, inner, "meta.") : CORVID_OK;
}

/* ---- all of it ------------------------------------------------------------------------------ */

corvid_status cv_pth_collect(cv_checkpoint *ckpt, const cv_pickle *pickle, size_t n_bytes,
                             cv_pth_locate locate, void *ctx, corvid_error *err)
{
    collector c = {
        .ckpt = ckpt, .pickle = pickle, .n_bytes = n_bytes, .locate = locate, .ctx = ctx, .err = err
    };
    const cv_pickled *root = &pickle->root, *dict = NULL;
    char wrapper[64], prefix[128];
    size_t n = 0;
    void *tensors = NULL;
    CV_TRY(check_root(&c, root));
    CV_TRY(choose(&c, root, &dict, wrapper, sizeof wrapper));
    CV_TRY(count_tensors(&c, dict, &n));
    if (n == 0)
        return cv_fail(err, CORVID_E_FORMAT,
                       "pickle at offset %llu: the dict at the root holds no tensors; is this a "
                       "checkpoint of a model?",
                       offset_of(&c));
    CV_TRY(take(&c, n, sizeof(cv_tensor), &tensors));
    ckpt->tensors = tensors;
    c.fill = true;
    c.n = c.visits = 0;
    CV_TRY(walk(&c, dict, 0, 0));
    ckpt->n_tensors = c.n;
    strip_prefixes(ckpt, prefix, sizeof prefix);
    return collect_meta(&c, root, wrapper, prefix);
}

corvid_status cv_pth_parse(cv_checkpoint *ckpt, corvid_error *err)
{
    unsigned char first[2] = { 0 };
    if (ckpt->in.size >= sizeof first) CV_TRY(cv_input_read(&ckpt->in, 0, first, 2, err));
    if (first[0] == 'P' && first[1] == 'K') return cv_pth_zip_parse(ckpt, err);
    return cv_pth_legacy_parse(ckpt, err);
}
