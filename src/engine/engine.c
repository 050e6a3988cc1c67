/* engine.c - opening an engine; see engine.h. */
#include <stdio.h>

#include "engine/engine.h"
#include "engine/see.h"

/* ---- Opening --------------------------------------------------------------------------------- */

static size_t threads_of(const cv_engine_options *options)
{
    size_t n = options->n_threads ? options->n_threads : cv_cpu_count();
    return n < 1 ? 1 : n > CV_TEAM_MAX ? CV_TEAM_MAX : n;
}

static size_t chunk_of(const cv_engine_options *options)
{
    size_t n = options->chunk ? options->chunk : CV_CHUNK;
    return n > CV_CHUNK_MAX ? CV_CHUNK_MAX : n;
}

/* Sizes of the workspace of a model (only arch and sizes are read); returns its floats. */
static size_t workspace(const cv_model *model, const cv_engine_options *options, size_t *common,
                        size_t *own, size_t *matmul)
{
    const cv_member one = { .team = NULL, .id = 0, .n = threads_of(options) };
    cv_language_buffers(model, chunk_of(options), &one, common, own, matmul);
    *common = cv_padded(*common);
    *own = cv_padded(*own);
    *matmul = cv_padded(*matmul);
    return *common + one.n * (*own + *matmul) + cv_padded(CV_HEAD_ROWS * model->sizes.V);
}

static size_t pass_bytes(size_t chunk)
{
    return chunk * (sizeof(int32_t) + sizeof(cv_sequence) + sizeof(size_t));
}

corvid_status cv_engine_measure(const cv_source *source, const cv_engine_options *options,
                                size_t *workspace_bytes, size_t *state_bytes, corvid_error *err)
{
    const cv_model model = { .arch = source->arch, .sizes = source->sizes };
    size_t common, own, matmul;
    if (source->arch->stack->vision) {
        *state_bytes = 0;
        return cv_see_measure_source(source, options, workspace_bytes, err);
    }
    const size_t floats = workspace(&model, options, &common, &own, &matmul);
    *workspace_bytes = cv_huge_bytes(floats * sizeof(float)) + pass_bytes(chunk_of(options));
    *state_bytes = cv_state_size(&model) * sizeof(float);
    return CORVID_OK;
}

static corvid_status check_memory(const cv_source *source, const cv_engine_options *options,
                                  corvid_error *err)
{
    size_t weights, work, state;
    CV_TRY(cv_weights_measure(source, &weights, err));
    CV_TRY(cv_engine_measure(source, options, &work, &state, err));
    const uint64_t need = (uint64_t)weights + work + state;
    const uint64_t limit = options->memory_limit ? options->memory_limit : cv_memory_available();
    if (options->log) {
        char line[160];
        snprintf(line, sizeof line, "memory: weights %.1f MiB, workspace %.1f MiB, state %.2f MiB",
                 (double)weights / 1048576.0, (double)work / 1048576.0, (double)state / 1048576.0);
        options->log(options->ctx, CORVID_LOG_INFO, line);
    }
    if (limit && need > limit)
        return cv_fail(
            err, CORVID_E_MEMORY,
            "%s: needs %.1f MiB (weights %.1f, workspace %.1f, state %.2f), but %.1f MiB "
            "are %s; convert it to a smaller type (corvid convert --type q8) or free "
            "memory",
            source->ckpt ? source->ckpt->in.path : "model", (double)need / 1048576.0,
            (double)weights / 1048576.0, (double)work / 1048576.0, (double)state / 1048576.0,
            (double)limit / 1048576.0, options->memory_limit ? "allowed" : "available");
    return CORVID_OK;
}

/* Language models stay with the kernels whose results do not depend on how many rows there are;
 * pictures always have many. */
static corvid_status pick_kernels(const char *cpu, bool vision, const cv_kernels **out,
                                  corvid_error *err)
{
    cv_cpu_level level;
    *out = vision ? cv_kernels_widest() : cv_kernels_for(cv_cpu_best());
    if (cpu && !cv_cpu_level_parse(cpu, &level))
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: no such instruction set; expected ref, avx2, avx512, bf16, amx or neon",
                       cpu);
    if (cpu) *out = cv_kernels_for(level);
    if (!*out)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: this machine or build has no such kernels; the best here is %s", cpu,
                       cv_cpu_level_name(cv_cpu_best()));
    return CORVID_OK;
}

static corvid_status take_workspace(cv_engine *e, corvid_error *err)
{
    const size_t floats = workspace(&e->model, &e->options, &e->common, &e->own, &e->matmul);
    e->workspace_bytes = cv_huge_bytes(floats * sizeof(float)) + pass_bytes(e->chunk);
    e->workspace = cv_alloc_huge(e->mem, floats * sizeof(float));
    e->tokens = cv_alloc(e->mem, e->chunk, sizeof *e->tokens);
    e->sequences = cv_alloc(e->mem, e->chunk, sizeof *e->sequences);
    e->wanted = cv_alloc(e->mem, e->chunk, sizeof *e->wanted);
    if (!e->workspace || !e->tokens || !e->sequences || !e->wanted)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: a workspace of %zu bytes",
                       e->workspace_bytes);
    const size_t members = cv_team_size(e->team) * (e->own + e->matmul);
    e->logits = e->workspace + e->common + members;
    return CORVID_OK;
}

corvid_status cv_engine_open(const corvid_allocator *mem, const cv_source *source,
                             const cv_engine_options *options, cv_engine *out, corvid_error *err)
{
    corvid_status status;
    *out = (cv_engine){ .mem = mem, .options = *options, .chunk = chunk_of(options) };
    if (pthread_mutex_init(&out->lock, NULL) != 0)
        return cv_fail(err, CORVID_E_MEMORY, "cannot make a lock");
    status = pick_kernels(options->cpu, source->arch->stack->vision, &out->kernel, err);
    if (status != CORVID_OK) goto fail;
    status = check_memory(source, options, err);
    if (status != CORVID_OK) goto fail;
    status = cv_team_new(mem, threads_of(options), &out->team, err);
    if (status != CORVID_OK) goto fail;

    const cv_load_options load = {
        .team = out->team,
        .group_norm_eps = options->group_norm_eps > 0.0f ? options->group_norm_eps : 64e-5f,
        .progress = options->progress,
        .cancel = options->cancel,
        .ctx = options->ctx,
    };
    status = cv_weights_load(mem, source, &load, &out->model, err);
    if (status != CORVID_OK) goto fail;
    if (source->arch->stack->vision)
        status = cv_see_open(out, err);
    else
        status = take_workspace(out, err);
    if (status != CORVID_OK) goto fail;
    return CORVID_OK;

fail:
    cv_engine_close(out);
    return status;
}

void cv_engine_close(cv_engine *e)
{
    cv_team_free(e->team);
    cv_weights_free(&e->model);
    cv_free(e->mem, e->workspace);
    cv_free(e->mem, e->tokens);
    cv_free(e->mem, e->sequences);
    cv_free(e->mem, e->wanted);
    cv_see_close(e);
    pthread_mutex_destroy(&e->lock);
    *e = (cv_engine){ .mem = e->mem };
}
