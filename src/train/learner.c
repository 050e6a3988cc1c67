/* learner.c - a model that learns; see learner.h. */
#include <math.h>
#include <string.h>

#include "train/learner.h"

/* ---- Parameters ------------------------------------------------------------------------------ */

static void *slot_of(cv_model *model, const cv_view *view)
{
    unsigned char *owner = cv_of_stack(model->arch, view->field)
                               ? (unsigned char *)model
                               : model->layers + view->layer * model->arch->layer_bytes;
    return owner + view->field->offset;
}

/* What the list of parameters takes. */
typedef struct census {
    cv_learner *learner;
    size_t n, n_matrices, floats, panel_bytes;
} census;

static bool is_matrix(const cv_field *field)
{
    return field->kind == CV_MATRIX || field->kind == CV_LOW_RANK || field->kind == CV_FILTER;
}

/* Does the model read the official value where it lies? */
static bool is_direct(const cv_field *field)
{
    return field->kind == CV_TABLE || (field->kind == CV_VECTOR && field->transform == CV_AS_IS &&
                                       !(field->flags & CV_PER_HEAD));
}

static cv_matrix turned_of(size_t rows, size_t cols)
{
    cv_matrix m;
    cv_matrix_layout(CV_F32, cols, rows, &m);
    return m;
}

static size_t panels_bytes(const cv_matrix *m)
{
    return (m->rows + CV_PANEL - 1) / CV_PANEL * m->panel_bytes;
}

static corvid_status count_view(void *ctx, const cv_view *view, corvid_error *err)
{
    census *c = ctx;
    (void)err;
    c->n++;
    if (!is_direct(view->field)) c->floats += 2 * cv_padded(view->rows * view->cols);
    if (is_matrix(view->field)) {
        const cv_matrix turned = turned_of(view->rows, view->cols);
        c->panel_bytes += panels_bytes(&turned);
        c->n_matrices++;
    }
    return CORVID_OK;
}

/* Gives a view its places.  The counters of the census are where the next ones begin. */
static corvid_status place_view(void *ctx, const cv_view *view, corvid_error *err)
{
    census *c = ctx;
    cv_learner *l = c->learner;
    (void)err;
    cv_param *p = &l->params[c->n++];
    *p = (cv_param){ .view = *view, .n = view->rows * view->cols };
    p->direct = is_direct(view->field);
    void *slot = slot_of(&l->model, view);
    if (is_matrix(view->field)) {
        cv_matrix *matrix = slot;
        cv_trained *t = &l->trained[c->n_matrices++];
        t->turned = turned_of(view->rows, view->cols);
        t->turned.panels = l->panels + c->panel_bytes;
        c->panel_bytes += panels_bytes(&t->turned);
        t->value = l->block + c->floats;
        t->gradient = t->value + cv_padded(p->n);
        c->floats += 2 * cv_padded(p->n);
        p->value = t->value;
        p->gradient = t->gradient;
        matrix->trained = t;
        return CORVID_OK;
    }
    const unsigned char *bytes =
        view->field->kind == CV_TABLE ? ((cv_table *)slot)->bytes : *(const unsigned char **)slot;
    const size_t offset = (size_t)(bytes - l->model.weights) / sizeof(float);
    p->slot = (float *)(void *)l->model.weights + offset;
    p->slot_gradient = l->slots + offset;
    p->slot_n = view->field->flags & CV_PER_HEAD ? l->model.sizes.A : p->n;
    p->value = p->slot;
    p->gradient = p->slot_gradient;
    if (p->direct) return CORVID_OK;
    p->value = l->block + c->floats;
    p->gradient = p->value + cv_padded(p->n);
    c->floats += 2 * cv_padded(p->n);
    return CORVID_OK;
}

/* The official values of a parameter, [rows][cols]. */
static corvid_status read_values(const cv_learner *l, const cv_source *source, const cv_param *p,
                                 corvid_error *err)
{
    const cv_view *v = &p->view;
    unsigned char *raw = NULL;
    float *values = NULL;
    cv_view flat = *v;
    flat.cols = 1;
    corvid_status status =
        cv_alloc_or_fail(l->mem, p->n, sizeof(double), v->name, (void **)&raw, err);
    if (status == CORVID_OK)
        status = cv_alloc_or_fail(l->mem, p->n, sizeof *values, v->name, (void **)&values, err);
    if (status == CORVID_OK) status = cv_source_read(source, &flat, 0, p->n, raw, err);
    if (status == CORVID_OK) {
        cv_to_f32(v->dtype, raw, values, p->n);
        const bool baked = cv_source_baked(source, v->field);
        for (size_t i = 0; i < p->n; i++) {
            const size_t at = v->transposed ? i % v->cols * v->rows + i / v->cols : i;
            p->value[i] = values[at] * v->scale;
            if (baked) p->value[i] = cv_transform_undo(v->field->transform, p->value[i]);
        }
    }
    cv_free(l->mem, raw);
    cv_free(l->mem, values);
    return status;
}

static corvid_status take_params(cv_learner *l, const cv_source *source, corvid_error *err)
{
    census c = { .learner = l };
    CV_TRY(cv_source_each(source, count_view, &c, err));
    l->n_params = c.n;
    l->n_trained = c.n_matrices;
    l->params = cv_alloc_zero(l->mem, c.n, sizeof *l->params);
    l->trained = cv_alloc_zero(l->mem, c.n_matrices, sizeof *l->trained);
    l->block = cv_alloc_huge(l->mem, (c.floats + 16) * sizeof(float));
    l->slots = cv_alloc_huge(l->mem, l->model.weight_bytes);
    l->panels = cv_alloc_huge(l->mem, c.panel_bytes + 64);
    if (!l->params || !l->trained || !l->block || !l->slots || !l->panels)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu parameters with gradients",
                       c.floats / 2);
    c = (census){ .learner = l };
    CV_TRY(cv_source_each(source, place_view, &c, err));
    for (size_t i = 0; i < l->n_params; i++)
        CV_TRY(read_values(l, source, &l->params[i], err));
    return CORVID_OK;
}

/* A source that gives the model its layout: the shapes of another, all of f32, without numbers. */
static void no_values(const cv_source *source, const cv_view *view, size_t first, size_t n,
                      float *out)
{
    (void)source;
    (void)view;
    (void)first;
    memset(out, 0, n * sizeof *out);
}

/* A checkpoint's optional tensors are there or not, which a source without one cannot tell: the
 * model is laid out from the checkpoint itself where that is of f32. */
static corvid_status lay_out_model(cv_learner *l, const cv_source *source, corvid_error *err)
{
    cv_source shapes = *source;
    if (!source->ckpt) {
        shapes.random_type = CV_F32;
        shapes.random_values = no_values;
    }
    const cv_load_options load = { .team = l->team, .group_norm_eps = 64e-5f, .as_f32 = true };
    return cv_weights_load(l->mem, &shapes, &load, &l->model, err);
}

corvid_status cv_learner_open(const corvid_allocator *mem, cv_team *team, const cv_kernels *kernel,
                              const cv_source *source, cv_learner *out, corvid_error *err)
{
    *out = (cv_learner){ .mem = mem, .team = team, .kernel = kernel, .source = *source };
    corvid_status status = lay_out_model(out, source, err);
    if (status == CORVID_OK) status = take_params(out, source, err);
    if (status != CORVID_OK) {
        cv_learner_close(out);
        return status;
    }
    cv_learner_publish(out);
    return CORVID_OK;
}

static void drop_room(cv_learner *l)
{
    cv_free(l->mem, l->values);
    cv_free(l->mem, l->gradients);
    cv_free(l->mem, l->scratch);
    cv_free(l->mem, l->members);
    cv_free(l->mem, l->losses);
    cv_free(l->mem, l->records);
    cv_free(l->mem, l->sequences);
    cv_free(l->mem, l->states);
    l->values = l->gradients = l->scratch = l->members = l->losses = l->states = NULL;
    l->records = NULL;
    l->sequences = NULL;
    l->rows = l->max_sequences = 0;
}

void cv_learner_close(cv_learner *l)
{
    if (!l->mem) return;
    drop_room(l);
    cv_free(l->mem, l->params);
    cv_free(l->mem, l->trained);
    cv_free(l->mem, l->block);
    cv_free(l->mem, l->slots);
    cv_free(l->mem, l->panels);
    cv_weights_free(&l->model);
    *l = (cv_learner){ .mem = NULL };
}

/* ---- Room ------------------------------------------------------------------------------------ */

static size_t member_floats(const cv_learner *l)
{
    return cv_padded(l->memory.own) + cv_padded(l->memory.matmul);
}

corvid_status cv_learner_room(cv_learner *l, size_t n_sequences, size_t length, corvid_error *err)
{
    const size_t rows = n_sequences * length, members = cv_team_size(l->team);
    const cv_member one = { .team = l->team, .id = 0, .n = members };
    drop_room(l);
    cv_language_lesson_memory(&l->model, rows, &one, &l->memory);
    l->state_size = cv_state_size(&l->model);
    l->values = cv_alloc_huge(l->mem, l->memory.values * sizeof(float));
    l->gradients = cv_alloc_huge(l->mem, l->memory.values * sizeof(float));
    l->scratch = cv_alloc_huge(l->mem, (l->memory.scratch + 16) * sizeof(float));
    l->members = cv_alloc_huge(l->mem, members * member_floats(l) * sizeof(float));
    l->losses = cv_alloc(l->mem, rows, sizeof *l->losses);
    l->records = cv_alloc(l->mem, members, l->memory.records);
    l->sequences = cv_alloc(l->mem, n_sequences, sizeof *l->sequences);
    l->states = cv_alloc_huge(l->mem, 2 * n_sequences * l->state_size * sizeof(float));
    if (!l->values || !l->gradients || !l->scratch || !l->members || !l->losses || !l->records ||
        !l->sequences || !l->states) {
        drop_room(l);
        return cv_fail(err, CORVID_E_MEMORY,
                       "out of memory: %zu sequences of %zu tokens take %.1f MiB; make the batch "
                       "smaller",
                       n_sequences, length, (double)l->memory.values * 8.0 / 1048576.0);
    }
    l->rows = rows;
    l->max_sequences = n_sequences;
    return CORVID_OK;
}

size_t cv_learner_bytes(const cv_learner *l)
{
    size_t floats = 2 * l->memory.values + l->memory.scratch +
                    cv_team_size(l->team) * member_floats(l) + 2 * l->max_sequences * l->state_size;
    for (size_t i = 0; i < l->n_params; i++)
        floats += 4 * l->params[i].n; /* value, gradient, two layouts or moments */
    return floats * sizeof(float);
}

/* ---- Batches --------------------------------------------------------------------------------- */

typedef struct work {
    cv_learner *learner;
    cv_lesson lesson;
    bool full;
} work;

static void walk(const cv_member *me, void *arg)
{
    work *w = arg;
    cv_learner *l = w->learner;
    float *own = l->members + me->id * member_floats(l);
    cv_tape tape = { .values = l->values,
                     .gradients = l->gradients,
                     .n_values = l->memory.values,
                     .weights = (const float *)(const void *)l->model.weights,
                     .weight_gradients = l->slots,
                     .n_weights = l->model.weight_bytes / sizeof(float),
                     .scratch = l->scratch,
                     .own = own,
                     .records = l->records + me->id * l->memory.records,
                     .size = l->memory.records };
    cv_run run = { .kernel = l->kernel, .me = me, .tape = &tape };
    run.common.base = l->values;
    run.matmul = own + cv_padded(l->memory.own);
    if (w->lesson.gradients) {
        size_t lo, hi;
        cv_share(me, l->memory.values, &lo, &hi);
        memset(l->gradients + lo, 0, (hi - lo) * sizeof *l->gradients);
        cv_barrier(me);
    }
    cv_language_learn(&run, &l->model, &w->lesson);
    if (me->id == 0) w->full = tape.full;
}

/* Every sequence from the model's start. */
static void start_sequences(cv_learner *l, const cv_batch *batch)
{
    const size_t size = l->state_size;
    for (size_t i = 0; i < batch->n_sequences; i++) {
        float *state = l->states + 2 * i * size, *start = state + size;
        cv_state_start(&l->model, start);
        memcpy(state, start, size * sizeof *state);
        l->sequences[i] = (cv_sequence){
            .begin = i * batch->length, .n = batch->length, .state = state, .start = start
        };
    }
}

static corvid_status check_batch(const cv_learner *l, const cv_batch *batch, corvid_error *err)
{
    const size_t rows = batch->n_sequences * batch->length;
    if (rows == 0 || rows > l->rows || batch->n_sequences > l->max_sequences)
        return cv_fail(err, CORVID_E_ARGUMENT, "a batch of %zu x %zu tokens has no room",
                       batch->n_sequences, batch->length);
    for (size_t i = 0; i < rows; i++)
        if (batch->tokens[i] < 0 || (size_t)batch->tokens[i] >= l->model.sizes.V ||
            batch->targets[i] >= (int32_t)l->model.sizes.V)
            return cv_fail(err, CORVID_E_ARGUMENT,
                           "token %d at %zu is not in the vocabulary of 0 to %zu",
                           (int)batch->tokens[i], i, l->model.sizes.V - 1);
    return CORVID_OK;
}

static corvid_status run_batch(cv_learner *l, const cv_batch *batch, bool gradients, double *loss,
                               corvid_error *err)
{
    const size_t rows = batch->n_sequences * batch->length;
    CV_TRY(check_batch(l, batch, err));
    start_sequences(l, batch);
    work w = { .learner = l,
               .lesson = { .step = { .tokens = batch->tokens,
                                     .T = rows,
                                     .sequences = l->sequences,
                                     .n_sequences = batch->n_sequences },
                           .loss = { .targets = batch->targets,
                                     .weight = batch->weight,
                                     .l2_wrap = batch->l2_wrap },
                           .gradients = gradients,
                           .rows = l->losses } };
    cv_team_run(l->team, walk, &w);
    if (w.full)
        return cv_fail(err, CORVID_E_INTERNAL, "the tape of a step is too short; please report it");
    double sum = 0.0;
    size_t n = 0;
    for (size_t t = 0; t < rows; t++) {
        sum += (double)l->losses[t];
        n += batch->targets[t] >= 0;
    }
    *loss = n ? sum / (double)n : 0.0;
    return CORVID_OK;
}

corvid_status cv_learner_batch(cv_learner *l, const cv_batch *batch, double *loss,
                               corvid_error *err)
{
    return run_batch(l, batch, true, loss, err);
}

corvid_status cv_learner_score(cv_learner *l, const cv_batch *batch, double *loss,
                               corvid_error *err)
{
    return run_batch(l, batch, false, loss, err);
}

/* ---- Between official values and those of the model ------------------------------------------- */

static void clear_work(const cv_member *me, void *arg)
{
    cv_learner *l = arg;
    size_t lo, hi;
    cv_share(me, l->model.weight_bytes / sizeof(float), &lo, &hi);
    memset(l->slots + lo, 0, (hi - lo) * sizeof *l->slots);
    for (size_t i = 0; i < l->n_params; i++) {
        const cv_param *p = &l->params[i];
        if (p->direct) continue;
        cv_share(me, p->n, &lo, &hi);
        memset(p->gradient + lo, 0, (hi - lo) * sizeof *p->gradient);
    }
}

void cv_learner_clear(cv_learner *l)
{
    cv_team_run(l->team, clear_work, l);
}

/* dy/dx of a transform, from y. */
static float slope(cv_transform transform, float x, float y)
{
    switch (transform) {
    case CV_ONE_MINUS: return -1.0f;
    case CV_NEG_EXP:
    case CV_EXP: return y;
    case CV_EXP_NEG_EXP: return -expf(x) * y;
    case CV_AS_IS: break;
    }
    return 1.0f;
}

void cv_learner_gather(cv_learner *l)
{
    for (size_t i = 0; i < l->n_params; i++) {
        const cv_param *p = &l->params[i];
        if (!p->slot || p->direct) continue;
        const size_t each = p->slot_n / p->n; /* numbers of the slot per value */
        for (size_t j = 0; j < p->n; j++) {
            float sum = 0.0f;
            for (size_t k = j * each; k < (j + 1) * each; k++)
                sum += p->slot_gradient[k];
            p->gradient[j] = sum * slope(p->view.field->transform, p->value[j], p->slot[j * each]);
        }
    }
}

static void publish_work(const cv_member *me, void *arg)
{
    cv_learner *l = arg;
    size_t lo, hi;
    cv_share(me, l->n_params, &lo, &hi);
    for (size_t i = 0; i < l->n_params; i++) {
        const cv_param *p = &l->params[i];
        if (!p->slot) {
            cv_trained_lay_out(me, slot_of(&l->model, &p->view));
            continue;
        }
        if (p->direct || i < lo || i >= hi) continue;
        for (size_t j = 0; j < p->slot_n; j++)
            p->slot[j] =
                cv_transform_value(p->view.field->transform, p->value[j / (p->slot_n / p->n)]);
    }
}

void cv_learner_publish(cv_learner *l)
{
    cv_team_run(l->team, publish_work, l);
}

/* ---- Saving ---------------------------------------------------------------------------------- */

static void param_values(const cv_source *source, const cv_view *view, size_t first, size_t n,
                         float *out)
{
    const cv_learner *l = source->values_of;
    for (size_t i = 0; i < l->n_params; i++)
        if (l->params[i].view.field == view->field && l->params[i].view.layer == view->layer) {
            memcpy(out, l->params[i].value + first, n * sizeof *out);
            return;
        }
    memset(out, 0, n * sizeof *out);
}

cv_source cv_learner_source(const cv_learner *l)
{
    cv_source source = l->source;
    source.ckpt = NULL;
    source.dialect = CV_OFFICIAL;
    source.random_type = CV_F32;
    source.random_values = param_values;
    source.values_of = l;
    return source;
}
