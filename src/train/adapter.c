/* adapter.c - low-rank adapters of a model that learns; see adapter.h. */
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/rng.h"
#include "train/adapter.h"

/* ---- Which matrices ---------------------------------------------------------------------------- */

/* The official name of a parameter, and for a matrix NAME.weight its length without that. */
typedef struct title {
    char name[96];
    size_t module; /* 0: no matrix that adapters are for */
} title;

static title title_of(const cv_learner *l, const cv_param *p)
{
    title t = { .module = 0 };
    cv_field_name(l->source.arch, p->view.field, CV_OFFICIAL, p->view.layer, t.name, sizeof t.name);
    const size_t n = strlen(t.name), m = strlen(".weight");
    if (p->view.field->kind == CV_MATRIX && n > m && strcmp(t.name + n - m, ".weight") == 0)
        t.module = n - m;
    return t;
}

/* "att.key" in "blocks.0.att.key": whole parts, one behind the other. */
static bool has_parts(const char *module, const char *parts)
{
    const size_t n = strlen(parts);
    for (const char *at = module; at; at = strchr(at, '.')) {
        at += *at == '.';
        if (strncmp(at, parts, n) == 0 && (at[n] == '.' || at[n] == '\0')) return true;
    }
    return false;
}

static bool matches(const char *module, const char *pattern)
{
    return strpbrk(pattern, "*?[") ? fnmatch(pattern, module, 0) == 0 : has_parts(module, pattern);
}

/* Calls that walk the patterns of a list "a,b": the next one into pattern; false behind the last. */
static bool next_pattern(const char **list, char pattern[96])
{
    while (**list == ',' || **list == ' ')
        ++*list;
    size_t n = strcspn(*list, ", ");
    if (n == 0) return false;
    snprintf(pattern, 96, "%.*s", (int)(n < 95 ? n : 95), *list);
    *list += n;
    return true;
}

static bool is_target(const title *t, const char *patterns)
{
    char pattern[96], module[96];
    if (t->module == 0) return false;
    snprintf(module, sizeof module, "%.*s", (int)t->module, t->name);
    while (next_pattern(&patterns, pattern))
        if (matches(module, pattern)) return true;
    return false;
}

/* Changes of a letter that make one text of another. */
static size_t distance(const char *a, const char *b)
{
    size_t row[97];
    const size_t n = strlen(b) < 96 ? strlen(b) : 96;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; *a; a++, i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            const size_t above = row[j], swap = corner + (*a != b[j - 1]);
            size_t best = above < row[j - 1] ? above + 1 : row[j - 1] + 1;
            if (swap < best) best = swap;
            corner = above;
            row[j] = best;
        }
    }
    return row[n];
}

/* Names are compared without what stands before "att" in them, where the pattern has none of it. */
static const char *tail_of(const cv_param *p, const char *pattern, const char *module)
{
    const char *official = p->view.field->official.name;
    return strncmp(pattern, "blocks", 6) == 0 ? module
                                              : module + strlen(module) + 7 - strlen(official);
}

enum { NEAREST = 3 };

static corvid_status no_match(const cv_learner *l, const char *pattern, corvid_error *err)
{
    char near[NEAREST][96] = { "", "", "" };
    size_t far[NEAREST] = { SIZE_MAX, SIZE_MAX, SIZE_MAX };
    for (size_t i = 0; i < l->n_params; i++) {
        title t = title_of(l, &l->params[i]);
        if (t.module == 0) continue;
        t.name[t.module] = '\0';
        const char *tail = tail_of(&l->params[i], pattern, t.name);
        size_t d = distance(pattern, tail), at = 0;
        bool known = false;
        for (size_t j = 0; j < NEAREST; j++)
            known |= strcmp(near[j], tail) == 0;
        while (at < NEAREST && far[at] <= d)
            at++;
        if (known || at == NEAREST) continue;
        memmove(near + at + 1, near + at, (NEAREST - 1 - at) * sizeof *near);
        memmove(far + at + 1, far + at, (NEAREST - 1 - at) * sizeof *far);
        snprintf(near[at], sizeof near[at], "%.95s", tail);
        far[at] = d;
    }
    return cv_fail(err, CORVID_E_ARGUMENT,
                   "no matrix of this model is called %s; the nearest are %s, %s and %s", pattern,
                   near[0], near[1], near[2]);
}

static corvid_status check_patterns(const cv_learner *l, const char *patterns, corvid_error *err)
{
    char pattern[96];
    const char *at = patterns;
    size_t n = 0;
    for (; next_pattern(&at, pattern); n++) {
        bool found = false;
        for (size_t i = 0; i < l->n_params && !found; i++) {
            const title t = title_of(l, &l->params[i]);
            found = is_target(&t, pattern);
        }
        if (!found) return no_match(l, pattern, err);
    }
    if (n) return CORVID_OK;
    return cv_fail(err, CORVID_E_ARGUMENT, "no matrices are named that shall get adapters");
}

/* ---- Memory ------------------------------------------------------------------------------------ */

cv_param cv_param_alone(const cv_param *like, const char *name, float *value, float *gradient,
                        size_t n)
{
    cv_param p = { .view = like->view,
                   .value = value,
                   .gradient = gradient,
                   .n = n,
                   .slot = value,
                   .slot_gradient = gradient,
                   .slot_n = n,
                   .direct = true };
    snprintf(p.view.name, sizeof p.view.name, "%s", name);
    return p;
}

/* What is wanted for one parameter of the learner. */
typedef struct wish {
    size_t rank; /* 0: no factors */
    bool whole;  /* learns in full */
} wish;

static size_t floats_of(const cv_param *p, size_t rank)
{
    return cv_padded(p->n) + 2 * (cv_padded(rank * p->view.cols) + cv_padded(rank * p->view.rows));
}

static float *take(float **at, size_t n)
{
    float *x = *at;
    *at += cv_padded(n);
    return x;
}

static void place_factors(cv_adapters *a, cv_param *p, size_t rank, float **at)
{
    const size_t out = p->view.rows, in = p->view.cols;
    cv_adapter *item = &a->items[a->n++];
    *item = (cv_adapter){ .param = p, .base = take(at, p->n) };
    memcpy(item->base, p->value, p->n * sizeof *p->value);
    item->A = take(at, rank * in);
    item->B = take(at, rank * out);
    item->dA = take(at, rank * in);
    item->dB = take(at, rank * out);
    item->factors = (cv_factors){ .rank = rank, .out = out, .in = in, .A = item->A, .B = item->B };
}

static void name_params(cv_adapters *a, const wish *wishes)
{
    const cv_learner *l = a->learner;
    for (size_t i = 0; i < a->n; i++) {
        const cv_adapter *item = &a->items[i];
        const cv_factors *f = &item->factors;
        const title t = title_of(l, item->param);
        char name[2][128];
        for (int j = 0; j < 2; j++)
            snprintf(name[j], sizeof name[j], "%.*s.%s", (int)t.module, t.name,
                     j ? CV_LORA_B : CV_LORA_A);
        a->params[a->n_params++] =
            cv_param_alone(item->param, name[0], item->A, item->dA, f->rank * f->in);
        a->params[a->n_params++] =
            cv_param_alone(item->param, name[1], item->B, item->dB, f->rank * f->out);
    }
    for (size_t i = 0; i < l->n_params; i++) {
        const cv_param *p = &l->params[i];
        if (!wishes[i].whole) continue;
        const title t = title_of(l, p);
        a->params[a->n_params++] = cv_param_alone(p, t.name, p->value, p->gradient, p->n);
    }
}

/* All that the wishes ask for; factors are zero. */
static corvid_status take_room(cv_adapters *a, const wish *wishes, corvid_error *err)
{
    cv_learner *l = a->learner;
    size_t floats = 0, items = 0, whole = 0, rank = 0;
    for (size_t i = 0; i < l->n_params; i++) {
        if (wishes[i].rank &&
            !cv_add_size(floats, floats_of(&l->params[i], wishes[i].rank), &floats))
            floats = SIZE_MAX / sizeof(double);
        items += wishes[i].rank != 0;
        whole += wishes[i].whole;
        if (wishes[i].rank > rank) rank = wishes[i].rank;
    }
    a->sums_each = rank * CV_ADAPTER_COLUMNS;
    a->items = cv_alloc_zero(l->mem, items + 1, sizeof *a->items);
    a->params = cv_alloc_zero(l->mem, 2 * items + whole + 1, sizeof *a->params);
    a->block = cv_alloc_zero(l->mem, floats + 16, sizeof *a->block);
    a->sums = cv_alloc(l->mem, cv_team_size(l->team) * a->sums_each + 1, sizeof *a->sums);
    if (!a->items || !a->params || !a->block || !a->sums)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %.1f MiB for %zu adapters",
                       (double)floats * sizeof(float) / 1048576.0, items);
    float *at = a->block;
    for (size_t i = 0; i < l->n_params; i++)
        if (wishes[i].rank) place_factors(a, &l->params[i], wishes[i].rank, &at);
    name_params(a, wishes);
    return CORVID_OK;
}

void cv_adapters_close(cv_adapters *a)
{
    if (!a->learner) return;
    const corvid_allocator *mem = a->learner->mem;
    cv_free(mem, a->items);
    cv_free(mem, a->params);
    cv_free(mem, a->block);
    cv_free(mem, a->sums);
    *a = (cv_adapters){ .learner = NULL };
}

/* ---- New ones ---------------------------------------------------------------------------------- */

/* The same for one seed and name, whatever else there is. */
static void fill_A(const cv_learner *l, const cv_adapter *item, uint64_t seed)
{
    const title t = title_of(l, item->param);
    const double bound = 1.0 / sqrt((double)item->factors.in);
    cv_rng rng;
    cv_rng_seed(&rng, XXH3_64bits_withSeed(t.name, t.module, seed));
    for (size_t i = 0; i < item->factors.rank * item->factors.in; i++)
        item->A[i] = (float)(bound * (2.0 * cv_rng_uniform(&rng) - 1.0));
}

static bool is_vector(const cv_learner *l, const cv_param *p)
{
    return p->view.field->kind == CV_VECTOR &&
           p->view.field != cv_tuned_state_field(l->source.arch);
}

static corvid_status make_wishes(const cv_learner *l, const cv_adapter_settings *s, wish *wishes,
                                 corvid_error *err)
{
    if (s->rank == 0 || !(s->alpha > 0.0) || !isfinite(s->alpha))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "adapters of rank %zu and alpha %g; expected both above 0", s->rank,
                       s->alpha);
    CV_TRY(check_patterns(l, s->targets, err));
    for (size_t i = 0; i < l->n_params; i++) {
        const cv_view *v = &l->params[i].view;
        const title t = title_of(l, &l->params[i]);
        const size_t most = v->rows < v->cols ? v->rows : v->cols;
        if (is_target(&t, s->targets)) wishes[i].rank = s->rank;
        if (wishes[i].rank > most)
            return cv_fail(err, CORVID_E_ARGUMENT, "rank %zu is more than %s [%zu, %zu] itself has",
                           s->rank, t.name, v->rows, v->cols);
        wishes[i].whole = s->vectors && is_vector(l, &l->params[i]);
    }
    return CORVID_OK;
}

corvid_status cv_adapters_open(cv_learner *learner, const cv_adapter_settings *settings,
                               cv_adapters *out, corvid_error *err)
{
    wish *wishes = NULL;
    *out = (cv_adapters){ .learner = learner, .alpha = settings->alpha };
    wishes = cv_alloc_zero(learner->mem, learner->n_params, sizeof *wishes);
    corvid_status status = wishes ? make_wishes(learner, settings, wishes, err)
                                  : cv_fail(err, CORVID_E_MEMORY, "out of memory: adapters");
    if (status == CORVID_OK) status = take_room(out, wishes, err);
    for (size_t i = 0; status == CORVID_OK && i < out->n; i++) {
        out->items[i].factors.scale = (float)(settings->alpha / (double)settings->rank);
        fill_A(learner, &out->items[i], settings->seed);
    }
    cv_free(learner->mem, wishes);
    if (status != CORVID_OK) cv_adapters_close(out);
    return status;
}

/* ---- Those of a file ---------------------------------------------------------------------------- */

static size_t find_param(const cv_learner *l, const char *name)
{
    size_t i = 0;
    for (; i < l->n_params; i++) {
        const title t = title_of(l, &l->params[i]);
        if (strcmp(t.name, name) == 0) break;
    }
    return i;
}

static corvid_status wish_for_parts(const cv_learner *l, const cv_adapter_file *file, wish *wishes,
                                    corvid_error *err)
{
    for (size_t i = 0; i < file->n_parts; i++) {
        const cv_adapter_part *part = &file->parts[i];
        const size_t p = find_param(l, part->name);
        if (p == l->n_params || part->field == cv_tuned_state_field(l->source.arch))
            return cv_fail(err, CORVID_E_MISMATCH,
                           "%s: tensor %s is an initial state, which is not learnt with adapters; "
                           "merge it into the model first",
                           file->ckpt.in.path, part->name);
        if (part->whole)
            wishes[p].whole = true;
        else
            wishes[p].rank = part->A->dims[0];
    }
    return CORVID_OK;
}

/* A tensor in place of a parameter; low-rank matrices are [in][out] in files. */
static corvid_status read_whole(cv_learner *l, const cv_adapter_file *file,
                                const cv_adapter_part *part, corvid_error *err)
{
    cv_param *p = &l->params[find_param(l, part->name)];
    const size_t rows = p->view.rows, cols = p->view.cols;
    float *values = NULL;
    CV_TRY(cv_alloc_or_fail(l->mem, p->n, sizeof *values, part->name, (void **)&values, err));
    corvid_status status = cv_adapter_read(l->mem, &file->ckpt, part->whole, values, err);
    for (size_t i = 0; status == CORVID_OK && i < p->n; i++)
        p->value[i] = values[p->view.field->kind == CV_LOW_RANK ? i % cols * rows + i / cols : i];
    cv_free(l->mem, values);
    return status;
}

/* The base of a PiSSA adapter is what the first pair left of the matrix. */
static corvid_status drop_first(const cv_learner *l, const cv_adapter_file *file,
                                const cv_adapter_part *part, cv_adapter *item, corvid_error *err)
{
    cv_factors f = item->factors;
    float *pair = NULL;
    if (!part->A0) return CORVID_OK;
    CV_TRY(cv_alloc_or_fail(l->mem, part->A0->count + part->B0->count, sizeof *pair, part->name,
                            (void **)&pair, err));
    f.rank = part->A0->dims[0];
    f.scale = -1.0f;
    f.A = pair;
    f.B = pair + part->A0->count;
    corvid_status status = cv_adapter_read(l->mem, &file->initial, part->A0, pair, err);
    if (status == CORVID_OK)
        status = cv_adapter_read(l->mem, &file->initial, part->B0, pair + part->A0->count, err);
    if (status == CORVID_OK) cv_factors_add(&f, 0, 0, f.out, item->base, item->base);
    cv_free(l->mem, pair);
    return status;
}

static corvid_status read_pair(cv_adapters *a, const cv_adapter_file *file,
                               const cv_adapter_part *part, corvid_error *err)
{
    cv_adapter *item = a->items;
    while (item->param != &a->learner->params[find_param(a->learner, part->name)])
        item++;
    item->factors.scale = cv_adapter_scale(file, part);
    CV_TRY(cv_adapter_read(a->learner->mem, &file->ckpt, part->A, item->A, err));
    CV_TRY(cv_adapter_read(a->learner->mem, &file->ckpt, part->B, item->B, err));
    return drop_first(a->learner, file, part, item, err);
}

static corvid_status read_parts(cv_adapters *a, const cv_adapter_file *file, corvid_error *err)
{
    for (size_t i = 0; i < file->n_parts; i++) {
        const cv_adapter_part *part = &file->parts[i];
        CV_TRY(part->whole ? read_whole(a->learner, file, part, err)
                           : read_pair(a, file, part, err));
    }
    return CORVID_OK;
}

corvid_status cv_adapters_load(cv_learner *learner, const char *path,
                               const cv_adapter_choice *choice, cv_adapters *out, corvid_error *err)
{
    cv_adapter_file file;
    const cv_source shapes = cv_learner_source(learner);
    *out = (cv_adapters){ .learner = learner };
    CV_TRY(cv_adapter_file_open(learner->mem, path, choice, &shapes, &file, err));
    out->alpha = file.alpha;
    wish *wishes = cv_alloc_zero(learner->mem, learner->n_params, sizeof *wishes);
    corvid_status status = wishes ? wish_for_parts(learner, &file, wishes, err)
                                  : cv_fail(err, CORVID_E_MEMORY, "out of memory: adapters");
    if (status == CORVID_OK) status = take_room(out, wishes, err);
    if (status == CORVID_OK) status = read_parts(out, &file, err);
    cv_free(learner->mem, wishes);
    cv_adapter_file_close(&file);
    if (status == CORVID_OK)
        cv_adapters_apply(out);
    else
        cv_adapters_close(out);
    return status;
}

/* ---- Steps ------------------------------------------------------------------------------------- */

static void apply_work(const cv_member *me, void *arg)
{
    const cv_adapters *a = arg;
    for (size_t i = 0; i < a->n; i++) {
        const cv_adapter *item = &a->items[i];
        size_t lo, hi;
        cv_share(me, item->factors.out, &lo, &hi);
        cv_factors_add(&item->factors, 0, lo, hi, item->base, item->param->value);
    }
}

void cv_adapters_apply(cv_adapters *a)
{
    cv_team_run(a->learner->team, apply_work, a);
    cv_learner_publish(a->learner);
}

enum { SUM_ROWS = 16, LANES = 16, SUM_COLUMNS = 256 };

/* Columns [lo, hi) of dA = scale B^T dW.  Sixteen rows at a time in float, those sums in double, so
 * that tall matrices lose nothing. */
static void gather_A(const cv_adapter *item, size_t lo, size_t hi, double *sums)
{
    const cv_factors *f = &item->factors;
    const size_t r = f->rank, width = hi - lo;
    memset(sums, 0, r * CV_ADAPTER_COLUMNS * sizeof *sums);
    for (size_t first = 0; first < f->out; first += SUM_ROWS) {
        const size_t last = first + SUM_ROWS < f->out ? first + SUM_ROWS : f->out;
        for (size_t k = 0; k < r; k++) {
            float part[CV_ADAPTER_COLUMNS] = { 0 };
            for (size_t i = first; i < last; i++) {
                const float b = item->B[i * r + k], *dW = item->param->gradient + i * f->in + lo;
                for (size_t j = 0; j < width; j++)
                    part[j] += b * dW[j];
            }
            for (size_t j = 0; j < width; j++)
                sums[k * CV_ADAPTER_COLUMNS + j] += (double)part[j];
        }
    }
    for (size_t k = 0; k < r; k++)
        for (size_t j = 0; j < width; j++)
            item->dA[k * f->in + lo + j] =
                (float)((double)f->scale * sums[k * CV_ADAPTER_COLUMNS + j]);
}

/* Sixteen sums side by side for 256 columns at a time, and those in double. */
static double dot(const float *x, const float *y, size_t n)
{
    double sum = 0.0;
    for (size_t at = 0; at < n; at += SUM_COLUMNS) {
        const size_t end = at + SUM_COLUMNS < n ? at + SUM_COLUMNS : n;
        float lane[LANES] = { 0 };
        size_t j = at;
        for (; j + LANES <= end; j += LANES)
            for (size_t c = 0; c < LANES; c++)
                lane[c] += x[j + c] * y[j + c];
        for (; j < end; j++)
            lane[0] += x[j] * y[j];
        for (size_t c = 0; c < LANES; c++)
            sum += (double)lane[c];
    }
    return sum;
}

/* Rows [lo, hi) of dB = scale dW A^T. */
static void gather_B(const cv_adapter *item, size_t lo, size_t hi)
{
    const cv_factors *f = &item->factors;
    for (size_t i = lo; i < hi; i++)
        for (size_t k = 0; k < f->rank; k++)
            item->dB[i * f->rank + k] =
                (float)((double)f->scale *
                        dot(item->param->gradient + i * f->in, item->A + k * f->in, f->in));
}

static void gather_work(const cv_member *me, void *arg)
{
    const cv_adapters *a = arg;
    double *sums = a->sums + me->id * a->sums_each;
    for (size_t i = 0; i < a->n; i++) {
        const cv_adapter *item = &a->items[i];
        size_t lo, hi;
        cv_share(me, item->factors.in, &lo, &hi);
        for (; lo < hi; lo += CV_ADAPTER_COLUMNS)
            gather_A(item, lo, hi - lo < CV_ADAPTER_COLUMNS ? hi : lo + CV_ADAPTER_COLUMNS, sums);
        cv_share(me, item->factors.out, &lo, &hi);
        gather_B(item, lo, hi);
    }
}

void cv_adapters_gather(cv_adapters *a)
{
    cv_team_run(a->learner->team, gather_work, a);
}

cv_learner cv_adapters_learner(cv_adapters *a)
{
    const cv_learner *l = a->learner;
    return (cv_learner){ .mem = l->mem,
                         .team = l->team,
                         .kernel = l->kernel,
                         .source = l->source,
                         .params = a->params,
                         .n_params = a->n_params,
                         .slots = a->block };
}

/* ---- Saving ------------------------------------------------------------------------------------- */

static cv_tensor tensor_of(const cv_adapters *a, size_t i)
{
    const cv_param *p = &a->params[i];
    cv_tensor t = { .name = p->view.name, .dtype = CV_F32, .contiguous = true, .count = p->n };
    if (i < 2 * a->n) {
        const cv_factors *f = &a->items[i / 2].factors;
        t.n_dims = 2;
        t.dims[0] = i % 2 ? f->out : f->rank;
        t.dims[1] = i % 2 ? f->rank : f->in;
    } else {
        t.n_dims = cv_field_dims(&a->learner->source, p->view.field, CV_OFFICIAL, t.dims);
    }
    return t;
}

/* Low-rank matrices turn to [in][out], as files have them. */
static corvid_status put_param(const cv_adapters *a, cv_writer *w, size_t i, corvid_error *err)
{
    const cv_param *p = &a->params[i];
    const size_t rows = p->view.rows, cols = p->view.cols;
    if (i < 2 * a->n || p->view.field->kind != CV_LOW_RANK)
        return cv_writer_put(w, p->value, p->n * sizeof *p->value, err);
    float *turned = NULL;
    CV_TRY(cv_alloc_or_fail(a->learner->mem, p->n, sizeof *turned, p->view.name, (void **)&turned,
                            err));
    for (size_t j = 0; j < p->n; j++)
        turned[j % cols * rows + j / cols] = p->value[j];
    const corvid_status status = cv_writer_put(w, turned, p->n * sizeof *turned, err);
    cv_free(a->learner->mem, turned);
    return status;
}

corvid_status cv_adapters_save(const cv_adapters *a, const char *path, corvid_error *err)
{
    const cv_learner *l = a->learner;
    char alpha[40];
    const char *arch = l->source.arch->name;
    cv_tensor *tensors = NULL;
    cv_writer *w = NULL;
    snprintf(alpha, sizeof alpha, "%.9g", a->alpha);
    const cv_meta meta[] = {
        { .key = CV_ADAPTER_ARCH_KEY, .type = CV_META_TEXT, .text = { arch, strlen(arch) } },
        { .key = CV_ADAPTER_ALPHA_KEY, .type = CV_META_TEXT, .text = { alpha, strlen(alpha) } },
    };
    CV_TRY(cv_alloc_or_fail(l->mem, a->n_params, sizeof *tensors, path, (void **)&tensors, err));
    for (size_t i = 0; i < a->n_params; i++)
        tensors[i] = tensor_of(a, i);
    corvid_status status = cv_writer_open(l->mem, path, CV_SAFETENSORS, meta,
                                          a->alpha > 0.0 ? 2 : 1, tensors, a->n_params, &w, err);
    for (size_t i = 0; status == CORVID_OK && i < a->n_params; i++)
        status = put_param(a, w, i, err);
    if (status == CORVID_OK)
        status = cv_writer_commit(w, err);
    else
        cv_writer_discard(w);
    cv_free(l->mem, tensors);
    return status;
}
