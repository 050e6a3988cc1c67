/* adapter_file.c - adapters and tuned states of the official trainers; see adapter_file.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/adapter_file.h"

/* ---- The tensors of the model ----------------------------------------------------------------- */

/* One that a file may change, under its official name. */
typedef struct known {
    const char *name;
    const cv_field *field;
    size_t layer;
} known;

typedef struct reading {
    const cv_source *model;
    cv_adapter_file *file;
    known *list;
    size_t n, counted;
    const char *path;
} reading;

static corvid_status count_known(void *ctx, const cv_view *view, corvid_error *err)
{
    reading *r = ctx;
    (void)view;
    (void)err;
    r->counted++;
    return CORVID_OK;
}

static corvid_status push_known(reading *r, const cv_field *field, size_t layer, corvid_error *err)
{
    char name[96];
    if (!cv_field_name(r->model->arch, field, CV_OFFICIAL, layer, name, sizeof name))
        return CORVID_OK;
    known *k = &r->list[r->n++];
    *k = (known){ cv_arena_text(&r->file->arena, name, strlen(name)), field, layer };
    if (!k->name) return cv_fail(err, CORVID_E_MEMORY, "out of memory: names of tensors");
    return CORVID_OK;
}

/* Fields of the stack stand in the list with layer 0. */
static corvid_status add_known(void *ctx, const cv_view *view, corvid_error *err)
{
    reading *r = ctx;
    return view->field == cv_tuned_state_field(r->model->arch)
               ? CORVID_OK
               : push_known(r, view->field, view->layer, err);
}

/* An initial state may be given to a model that has none yet. */
static corvid_status add_states(reading *r, corvid_error *err)
{
    const cv_field *field = cv_tuned_state_field(r->model->arch);
    for (size_t l = 0; field && l < r->model->sizes.L; l++)
        CV_TRY(push_known(r, field, l, err));
    return CORVID_OK;
}

static int compare_known(const void *a, const void *b)
{
    return strcmp(((const known *)a)->name, ((const known *)b)->name);
}

static corvid_status list_known(reading *r, corvid_error *err)
{
    CV_TRY(cv_source_each(r->model, count_known, r, err));
    r->list = cv_arena_alloc(&r->file->arena, r->counted + r->model->sizes.L, sizeof *r->list);
    if (!r->list) return cv_fail(err, CORVID_E_MEMORY, "out of memory: the tensors of the model");
    CV_TRY(cv_source_each(r->model, add_known, r, err));
    CV_TRY(add_states(r, err));
    qsort(r->list, r->n, sizeof *r->list, compare_known);
    return CORVID_OK;
}

static const known *find_known(const reading *r, const char *name)
{
    const known wanted = { .name = name };
    return bsearch(&wanted, r->list, r->n, sizeof *r->list, compare_known);
}

/* Official files may hold tensors of layer 0 that no model uses. */
static bool is_unused(const reading *r, const char *name)
{
    const cv_arch *arch = r->model->arch;
    char unused[96];
    for (size_t i = 0; i < arch->n_fields; i++)
        if ((arch->fields[i].flags & CV_NOT_FIRST) &&
            cv_field_name(arch, &arch->fields[i], CV_OFFICIAL, 0, unused, sizeof unused) &&
            strcmp(name, unused) == 0)
            return true;
    return false;
}

/* ---- Messages --------------------------------------------------------------------------------- */

static void print_dims(const size_t *dims, int n_dims, char *out, size_t n)
{
    size_t at = (size_t)snprintf(out, n, "[");
    for (int i = 0; i < n_dims && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%zu", i ? ", " : "", dims[i]);
    if (at < n) snprintf(out + at, n - at, "]");
}

static corvid_status not_of_model(const reading *r, const char *name, corvid_error *err)
{
    const cv_source *m = r->model;
    return cv_fail(err, CORVID_E_MISMATCH,
                   "%s: tensor %.200s fits nothing in this model (%s, %zu layers, width %zu), as "
                   "its name goes; is it an adapter for another model?",
                   r->path, name, m->arch->name, m->sizes.L, m->sizes.C);
}

static corvid_status wrong_shape(const reading *r, const cv_tensor *t, const size_t *dims,
                                 int n_dims, corvid_error *err)
{
    char found[160], expected[160];
    print_dims(t->dims, t->n_dims, found, sizeof found);
    print_dims(dims, n_dims, expected, sizeof expected);
    return cv_fail(err, CORVID_E_MISMATCH,
                   "%s: tensor %.200s has shape %s, this model needs %s; is it an adapter for "
                   "another model?",
                   r->path, t->name, found, expected);
}

static corvid_status check_numbers(const reading *r, const cv_tensor *t, corvid_error *err)
{
    if (cv_dtype_of(t->dtype)->real && !cv_dtype_of(t->dtype)->quantized && t->count > 0)
        return CORVID_OK;
    return cv_fail(err, CORVID_E_FORMAT,
                   "%s: tensor %.200s %s, expected floating-point numbers; the file is damaged",
                   r->path, t->name,
                   t->count == 0 ? "is empty" : "has a type that adapters do not have");
}

/* ---- Parts ------------------------------------------------------------------------------------ */

/* "NAME.suffix" of a module whose name ends at `dot`. */
static const cv_tensor *partner(const cv_checkpoint *ckpt, const char *name, size_t dot,
                                const char *suffix)
{
    char other[256];
    const int n = snprintf(other, sizeof other, "%.*s.%s", (int)dot, name, suffix);
    return n > 0 && (size_t)n < sizeof other ? cv_checkpoint_find(ckpt, other) : NULL;
}

/* The two of a pair against the matrix [out][in], and each other. */
static corvid_status check_pair(const reading *r, const cv_tensor *A, const cv_tensor *B,
                                const cv_adapter_part *p, corvid_error *err)
{
    const size_t rank = A->n_dims == 2 ? A->dims[0] : 0;
    const size_t a[] = { rank, p->dims[1] }, b[] = { p->dims[0], rank };
    CV_TRY(check_numbers(r, A, err));
    CV_TRY(check_numbers(r, B, err));
    if (A->n_dims != 2 || A->dims[1] != a[1]) return wrong_shape(r, A, a, 2, err);
    if (B->n_dims != 2 || B->dims[0] != b[0] || B->dims[1] != b[1])
        return wrong_shape(r, B, b, 2, err);
    return CORVID_OK;
}

static corvid_status take_initial(const reading *r, const cv_tensor *A, size_t dot,
                                  cv_adapter_part *p, corvid_error *err)
{
    const cv_checkpoint *from = &r->file->initial;
    if (from->n_tensors == 0) return CORVID_OK;
    p->A0 = partner(from, A->name, dot, "init_" CV_LORA_A);
    p->B0 = partner(from, A->name, dot, "init_" CV_LORA_B);
    if (!p->A0) p->A0 = partner(from, A->name, dot, CV_LORA_A);
    if (!p->B0) p->B0 = partner(from, A->name, dot, CV_LORA_B);
    if (!p->A0 || !p->B0)
        return cv_fail(err, CORVID_E_MISMATCH, "%s: has no first pair for %.*s of %s",
                       from->in.path, (int)dot, A->name, r->path);
    reading other = *r;
    other.path = from->in.path;
    return check_pair(&other, p->A0, p->B0, p, err);
}

static void describe(const reading *r, const known *k, cv_adapter_part *p)
{
    p->name = k->name;
    p->field = k->field;
    p->layer = k->layer;
    p->n_dims = cv_field_dims(r->model, k->field, CV_OFFICIAL, p->dims);
}

/* A of a pair; B is looked for. */
static corvid_status take_pair(reading *r, const cv_tensor *A, size_t dot, corvid_error *err)
{
    char name[256];
    const int n = snprintf(name, sizeof name, "%.*s.weight", (int)dot, A->name);
    const known *k = n > 0 && (size_t)n < sizeof name ? find_known(r, name) : NULL;
    if (!k || k->field->kind != CV_MATRIX) return not_of_model(r, A->name, err);
    const cv_tensor *B = partner(&r->file->ckpt, A->name, dot, CV_LORA_B);
    if (!B)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: tensor %.200s has no %.*s." CV_LORA_B " beside it", r->path, A->name,
                       (int)dot, A->name);
    cv_adapter_part *p = &r->file->parts[r->file->n_parts++];
    describe(r, k, p);
    p->A = A;
    p->B = B;
    CV_TRY(check_pair(r, A, B, p, err));
    return take_initial(r, A, dot, p, err);
}

/* Ones do not count: [1, 1, C] is [C]. */
static bool same_dims(const cv_tensor *t, const cv_adapter_part *p)
{
    int i = 0, j = 0;
    for (;;) {
        while (i < t->n_dims && t->dims[i] == 1)
            i++;
        while (j < p->n_dims && p->dims[j] == 1)
            j++;
        if (i == t->n_dims || j == p->n_dims) return i == t->n_dims && j == p->n_dims;
        if (t->dims[i++] != p->dims[j++]) return false;
    }
}

static corvid_status take_whole(reading *r, const cv_tensor *t, corvid_error *err)
{
    const known *k = find_known(r, t->name);
    if (!k && is_unused(r, t->name)) return CORVID_OK;
    if (!k) return not_of_model(r, t->name, err);
    cv_adapter_part *p = &r->file->parts[r->file->n_parts++];
    describe(r, k, p);
    p->whole = t;
    CV_TRY(check_numbers(r, t, err));
    return same_dims(t, p) ? CORVID_OK : wrong_shape(r, t, p->dims, p->n_dims, err);
}

/* Where the name ends before ".suffix"; 0 when it does not end so. */
static size_t before_suffix(const char *name, const char *suffix)
{
    const size_t n = strlen(name), m = strlen(suffix);
    if (n < m + 2 || name[n - m - 1] != '.' || strcmp(name + n - m, suffix) != 0) return 0;
    return n - m - 1;
}

static corvid_status take_tensor(reading *r, const cv_tensor *t, corvid_error *err)
{
    if (strstr(t->name, ".disha") || strstr(t->name, ".bone"))
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: tensor %.200s is of a DiSHA (Bone) adapter, which is not supported; "
                       "merge it with the program that made it",
                       r->path, t->name);
    const size_t a = before_suffix(t->name, CV_LORA_A), b = before_suffix(t->name, CV_LORA_B);
    if (a) return take_pair(r, t, a, err);
    if (b && partner(&r->file->ckpt, t->name, b, CV_LORA_A)) return CORVID_OK;
    if (b)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: tensor %.200s has no %.*s." CV_LORA_A " beside it", r->path, t->name,
                       (int)b, t->name);
    return take_whole(r, t, err);
}

/* ---- The file --------------------------------------------------------------------------------- */

static corvid_status check_arch(const reading *r, corvid_error *err)
{
    const cv_meta *arch = cv_checkpoint_meta(&r->file->ckpt, CV_ADAPTER_ARCH_KEY);
    if (!arch || arch->type != CV_META_TEXT || !strcmp(arch->text.bytes, r->model->arch->name))
        return CORVID_OK;
    return cv_fail(err, CORVID_E_MISMATCH, "%s: was learnt on %.40s, this model is %s", r->path,
                   arch->text.bytes, r->model->arch->name);
}

static bool is_pair(const cv_adapter_part *p)
{
    return p->A != NULL;
}

/* What B A is multiplied by, times the rank. */
static corvid_status find_alpha(const reading *r, double wanted, corvid_error *err)
{
    cv_adapter_file *f = r->file;
    size_t pairs = 0;
    for (size_t i = 0; i < f->n_parts; i++)
        pairs += is_pair(&f->parts[i]);
    if (wanted < 0.0 || !isfinite(wanted) || (wanted > 0.0 && f->initial.n_tensors))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "alpha %g: expected a number above 0, and none where the first pairs of a "
                       "PiSSA adapter are given",
                       wanted);
    f->alpha = wanted;
    if (wanted > 0.0 || f->initial.n_tensors || pairs == 0) return CORVID_OK;
    const cv_meta *meta = cv_checkpoint_meta(&f->ckpt, CV_ADAPTER_ALPHA_KEY);
    if (!meta || meta->type != CV_META_TEXT)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: does not say its alpha; give the one it was trained with", r->path);
    char *end;
    f->alpha = strtod(meta->text.bytes, &end);
    if (*end || !(f->alpha > 0.0) || !isfinite(f->alpha))
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: its " CV_ADAPTER_ALPHA_KEY " is \"%.40s\", expected "
                       "a number above 0",
                       r->path, meta->text.bytes);
    return CORVID_OK;
}

static corvid_status check_content(const reading *r, corvid_error *err)
{
    const cv_adapter_file *f = r->file;
    size_t whole = 0;
    for (size_t i = 0; i < f->n_parts; i++)
        whole += f->parts[i].whole != NULL;
    if (f->n_parts == 0)
        return cv_fail(err, CORVID_E_MISMATCH, "%s: holds nothing that changes this model",
                       r->path);
    if (whole >= r->counted)
        return cv_fail(err, CORVID_E_FORMAT, "%s: this is a whole model, not an adapter", r->path);
    return CORVID_OK;
}

static corvid_status read_parts(reading *r, const cv_adapter_choice *choice, corvid_error *err)
{
    cv_adapter_file *f = r->file;
    CV_TRY(check_arch(r, err));
    CV_TRY(list_known(r, err));
    f->parts = cv_arena_alloc(&f->arena, f->ckpt.n_tensors + 1, sizeof *f->parts);
    if (!f->parts) return cv_fail(err, CORVID_E_MEMORY, "out of memory: the parts of an adapter");
    for (size_t i = 0; i < f->ckpt.n_tensors; i++)
        CV_TRY(take_tensor(r, &f->ckpt.tensors[i], err));
    CV_TRY(check_content(r, err));
    return find_alpha(r, choice->alpha, err);
}

corvid_status cv_adapter_file_open(const corvid_allocator *mem, const char *path,
                                   const cv_adapter_choice *choice, const cv_source *model,
                                   cv_adapter_file *out, corvid_error *err)
{
    *out = (cv_adapter_file){ .mem = mem };
    reading r = { .model = model, .file = out };
    cv_arena_init(&out->arena, mem);
    corvid_status status = cv_checkpoint_open(mem, path, &out->ckpt, err);
    if (status == CORVID_OK && choice->initial)
        status = cv_checkpoint_open(mem, choice->initial, &out->initial, err);
    r.path = out->ckpt.in.path;
    if (status == CORVID_OK) status = read_parts(&r, choice, err);
    if (status != CORVID_OK) cv_adapter_file_close(out);
    return status;
}

void cv_adapter_file_close(cv_adapter_file *file)
{
    if (!file->mem) return;
    cv_arena_free(&file->arena);
    cv_checkpoint_close(&file->ckpt);
    cv_checkpoint_close(&file->initial);
    *file = (cv_adapter_file){ .mem = NULL };
}

float cv_adapter_scale(const cv_adapter_file *file, const cv_adapter_part *part)
{
    return file->alpha > 0.0 ? (float)(file->alpha / (double)part->A->dims[0]) : 1.0f;
}

/* ---- Numbers ---------------------------------------------------------------------------------- */

corvid_status cv_adapter_read(const corvid_allocator *mem, const cv_checkpoint *ckpt,
                              const cv_tensor *tensor, float *out, corvid_error *err)
{
    unsigned char *raw = NULL;
    CV_TRY(cv_alloc_or_fail(mem, tensor->count, sizeof(double), tensor->name, (void **)&raw, err));
    corvid_status status = cv_tensor_read(ckpt, tensor, 0, tensor->count, raw, err);
    if (status == CORVID_OK) cv_to_f32(tensor->dtype, raw, out, tensor->count);
    for (size_t i = 0; status == CORVID_OK && i < tensor->count; i++)
        if (!isfinite(out[i]))
            status = cv_fail(err, CORVID_E_FORMAT,
                             "%s: tensor %.200s holds a number that is not finite (number %zu)",
                             ckpt->in.path, tensor->name, i);
    cv_free(mem, raw);
    return status;
}

const cv_field *cv_tuned_state_field(const cv_arch *arch)
{
    for (size_t i = 0; i < arch->n_fields; i++)
        if (strcmp(arch->fields[i].official.name, "att.time_state") == 0) return &arch->fields[i];
    return NULL;
}

/* [1, H, N, N] is [H, N, N]; [H N N] is not. */
static bool is_state(const cv_tensor *t, const cv_sizes *s)
{
    const cv_adapter_part p = { .n_dims = 3, .dims = { s->H, s->N, s->N } };
    const cv_dtype_info *type = cv_dtype_of(t->dtype);
    return same_dims(t, &p) && type->real && !type->quantized;
}

corvid_status cv_tuned_state_read(const corvid_allocator *mem, const cv_checkpoint *ckpt,
                                  const cv_arch *arch, const cv_sizes *sizes, float *out,
                                  corvid_error *err)
{
    const size_t memory = sizes->H * sizes->N * sizes->N;
    if (!cv_tuned_state_field(arch))
        return cv_fail(err, CORVID_E_MISMATCH,
                       "%s: no tuned state for this model: %s has no matrices to begin with",
                       ckpt->in.path, arch->name);
    for (size_t l = 0; l < sizes->L; l++) {
        char name[64], found[160] = "";
        snprintf(name, sizeof name, "blocks.%zu.att.time_state", l);
        const cv_tensor *t = cv_checkpoint_find(ckpt, name);
        if (t) print_dims(t->dims, t->n_dims, found, sizeof found);
        if (!t || !is_state(t, sizes))
            return cv_fail(
                err, CORVID_E_MISMATCH,
                "%s: no tuned state for this model: %s %s%s, expected numbers [%zu, %zu, "
                "%zu]",
                ckpt->in.path, name, t ? "is " : "is missing", found, sizes->H, sizes->N, sizes->N);
        CV_TRY(cv_adapter_read(mem, ckpt, t, out + l * memory, err));
    }
    return CORVID_OK;
}

/* ---- The change that a pair makes ------------------------------------------------------------- */

#define BLOCK ((size_t)256)

void cv_factors_add(const cv_factors *f, size_t first, size_t lo, size_t hi, const float *base,
                    float *W)
{
    const size_t n = f->in;
    for (size_t i = lo; i < hi; i++)
        for (size_t j = 0; j < n; j += BLOCK) {
            const size_t m = n - j < BLOCK ? n - j : BLOCK;
            const float *B = f->B + (first + i) * f->rank;
            float sum[BLOCK] = { 0 };
            for (size_t k = 0; k < f->rank; k++)
                for (size_t c = 0; c < m; c++)
                    sum[c] += B[k] * f->A[k * n + j + c];
            for (size_t c = 0; c < m; c++)
                W[i * n + j + c] = base[i * n + j + c] + f->scale * sum[c];
        }
}
