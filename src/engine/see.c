/* see.c - showing pictures to the engine of a vision model; see see.h. */
#include <string.h>

#include "engine/see.h"

/* What the engine of a vision model has beside the weights. */
typedef struct cv_eye {
    float table[3][256]; /* of 8-bit values */
    float *workspace;
    size_t floats;
    cv_grid grids[CV_SEE_PICTURES]; /* of the pass being made */
} cv_eye;

/* ---- Traits ---------------------------------------------------------------------------------- */

static corvid_status take_names(cv_engine *e, corvid_error *err)
{
    cv_vision_traits *t = &e->model.vision.traits;
    const char *mode = e->options.bi_wkv, *norm = e->options.norm;
    if (!mode || strcmp(mode, "formula") == 0)
        t->bi_mode = CV_BI_FORMULA;
    else if (strcmp(mode, "cuda32") == 0)
        t->bi_mode = CV_BI_CUDA32;
    else if (strcmp(mode, "cuda16") == 0)
        t->bi_mode = CV_BI_CUDA16;
    else
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: no such form of Bi-WKV; expected formula, cuda32 or cuda16", mode);
    if (norm && strcmp(norm, "pre") == 0)
        t->post_norm = false;
    else if (norm && strcmp(norm, "post") == 0)
        t->post_norm = true;
    else if (norm && strcmp(norm, "auto") != 0)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: no such place for norms; expected auto, pre or post", norm);
    return CORVID_OK;
}

size_t cv_see_native(const cv_sizes *sizes)
{
    return cv_side_of(sizes->G) * sizes->p;
}

/* The L models are told by their head.  The one with 1000 classes was built for 192 pixels and is
 * shown 384. */
cv_framing cv_see_framing(const cv_model *model)
{
    const size_t native = cv_see_native(&model->sizes);
    cv_framing f = { .orient = true };
    if (model->vision.traits.mlp) {
        f.orient = false;
        f.resize = f.crop_width = f.crop_height = model->sizes.K == 1000 ? 2 * native : native;
    } else {
        f.resize = cv_middle_side(native);
        f.crop_width = f.crop_height = native;
    }
    return f;
}

const cv_normalise *cv_see_normalise(const cv_model *model)
{
    return model->vision.traits.mlp ? &cv_normalise_unit : &cv_normalise_255;
}

corvid_status cv_see_open(cv_engine *e, corvid_error *err)
{
    CV_TRY(take_names(e, err));
    CV_TRY(cv_alloc_or_fail(e->mem, 1, sizeof *e->eye, "an eye", (void **)&e->eye, err));
    *e->eye = (cv_eye){ .floats = 0 };
    cv_normalise_table(cv_see_normalise(&e->model), e->eye->table);
    return CORVID_OK;
}

void cv_see_close(cv_engine *e)
{
    if (!e->eye) return;
    cv_free(e->mem, e->eye->workspace);
    cv_free(e->mem, e->eye);
    e->eye = NULL;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

/* Where the parts of a workspace lie. */
typedef struct layout {
    size_t common, own, matmul, floats;
} layout;

static layout layout_of(const cv_model *model, const cv_grid *grids, size_t n, size_t n_members)
{
    const cv_member one = { .team = NULL, .id = 0, .n = n_members };
    layout l;
    cv_vision_buffers(model, grids, n, &one, &l.common, &l.own, &l.matmul);
    l.common = cv_padded(l.common);
    l.own = cv_padded(l.own);
    l.matmul = cv_padded(l.matmul);
    l.floats = l.common + n_members * (l.own + l.matmul);
    return l;
}

/* How many of the pictures from `images` on make the next pass; fills their grids. */
static size_t pack(const cv_model *model, const cv_image *images, size_t n, cv_grid *grids)
{
    size_t rows = 0, count = 0;
    while (count < n && count < CV_SEE_PICTURES) {
        const cv_image *image = &images[count];
        const cv_grid g = cv_vision_grid(model, image->height, image->width, rows);
        if (count && rows + g.n > CV_SEE_ROWS) break;
        grids[count++] = g;
        rows += g.n;
    }
    return count;
}

/* Room for the largest of the passes that the pictures make. */
static corvid_status make_room(cv_engine *e, const cv_image *images, size_t n, corvid_error *err)
{
    size_t most = 0;
    for (size_t i = 0; i < n;) {
        const size_t count = pack(&e->model, images + i, n - i, e->eye->grids);
        const layout l = layout_of(&e->model, e->eye->grids, count, cv_team_size(e->team));
        if (l.floats > most) most = l.floats;
        i += count;
    }
    if (most <= e->eye->floats) return CORVID_OK;
    cv_free(e->mem, e->eye->workspace);
    e->eye->workspace = NULL;
    e->eye->floats = 0;
    e->workspace_bytes = 0;
    const uint64_t need = cv_huge_bytes(most * sizeof(float));
    uint64_t limit = cv_memory_available();
    if (e->options.memory_limit)
        limit = e->options.memory_limit > e->model.weight_bytes
                    ? e->options.memory_limit - e->model.weight_bytes
                    : 1;
    if (limit && need > limit)
        return cv_fail(err, CORVID_E_MEMORY,
                       "a picture of this size needs %.1f MiB of working memory, but %.1f MiB are "
                       "%s; show it smaller (--size)",
                       (double)need / 1048576.0, (double)limit / 1048576.0,
                       e->options.memory_limit ? "allowed" : "available");
    e->eye->workspace = cv_alloc_huge(e->mem, most * sizeof(float));
    if (!e->eye->workspace)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: %zu bytes to see with", (size_t)need);
    e->eye->floats = most;
    e->workspace_bytes = (size_t)need;
    return CORVID_OK;
}

size_t cv_see_bytes(const cv_engine *e, size_t height, size_t width, size_t n)
{
    cv_grid grids[CV_SEE_PICTURES];
    size_t count = 0, rows = 0;
    do {
        grids[count] = cv_vision_grid(&e->model, height, width, rows);
        rows += grids[count++].n;
    } while (count < n && count < CV_SEE_PICTURES && rows + grids[0].n <= CV_SEE_ROWS);
    return cv_huge_bytes(layout_of(&e->model, grids, count, cv_team_size(e->team)).floats *
                         sizeof(float));
}

corvid_status cv_see_measure_source(const cv_source *source, const cv_engine_options *options,
                                    size_t *bytes, corvid_error *err)
{
    const cv_model model = { .arch = source->arch, .sizes = source->sizes };
    const size_t side = cv_see_native(&source->sizes) / source->sizes.p;
    const cv_grid grid = { .begin = 0, .n = side * side + 1, .h = side, .w = side };
    size_t n = options->n_threads ? options->n_threads : cv_cpu_count();
    (void)err;
    n = n < 1 ? 1 : n > CV_TEAM_MAX ? CV_TEAM_MAX : n;
    *bytes = cv_huge_bytes(layout_of(&model, &grid, 1, n).floats * sizeof(float));
    return CORVID_OK;
}

/* ---- Passes ---------------------------------------------------------------------------------- */

typedef struct pass {
    cv_engine *engine;
    cv_sight sight;
    layout layout;
} pass;

/* One member's part of a pass. */
static void walk(const cv_member *me, void *arg)
{
    const pass *p = arg;
    cv_engine *e = p->engine;
    float *members = e->eye->workspace + p->layout.common;
    cv_run run = { .kernel = e->kernel, .me = me };
    run.common.base = e->eye->workspace;
    run.own.base = members + me->id * p->layout.own;
    run.matmul = members + me->n * p->layout.own + me->id * p->layout.matmul;
    cv_vision_step(&run, &e->model, &p->sight);
}

corvid_status cv_see(cv_engine *e, const cv_image *images, size_t n, const size_t *wanted,
                     size_t n_wanted, corvid_error *err)
{
    pthread_mutex_lock(&e->lock);
    corvid_status status = make_room(e, images, n, err);
    for (size_t i = 0; i < n && status == CORVID_OK;) {
        const size_t count = pack(&e->model, images + i, n - i, e->eye->grids);
        pass p = { .engine = e,
                   .sight = { .images = images + i,
                              .grids = e->eye->grids,
                              .n = count,
                              .table = (const float(*)[256])e->eye->table,
                              .wanted = wanted,
                              .n_wanted = n_wanted } };
        p.layout = layout_of(&e->model, e->eye->grids, count, cv_team_size(e->team));
        cv_team_run(e->team, walk, &p);
        i += count;
        if (i < n && e->options.cancel && e->options.cancel(e->options.ctx))
            status = cv_fail(err, CORVID_E_CANCELLED, "cancelled");
    }
    pthread_mutex_unlock(&e->lock);
    return status;
}
