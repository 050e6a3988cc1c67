/* finetune_run.c - a run that teaches a language model more; see finetune_run.h.
 *
 * With adapters and states what the loop steps on is not the model but what learns beside it
 * (cv_adapters_learner, cv_tuned_state_learner): behind the parts of a step its gradients are gathered
 * from those of the model, and behind the step its values are applied to the model. */
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/output.h"
#include "engine/conversion.h"
#include "engine/vocabulary.h"
#include "train/finetune_run.h"
#include "train/text_course.h"
#include "train/tuned_state.h"

typedef struct session {
    const corvid_allocator *mem;
    const cv_finetune_run *run;
    cv_checkpoint ckpt;
    cv_source source;
    cv_tokenizer *tok;
    cv_text_course course;
    cv_learner model;
    cv_adapters adapters;
    cv_tuned_state state;
    cv_learner beside;       /* what learns beside the model */
    char vocab[CV_RUN_PATH]; /* the file that goes into a model; empty: none */
} session;

/* ---- The vocabulary of a model that is saved ---------------------------------------------------- */

static corvid_status write_file(session *s, const char *path, const char *bytes, size_t n,
                                corvid_error *err)
{
    cv_output *out = NULL;
    CV_TRY(cv_alloc_or_fail(s->mem, 1, sizeof *out, path, (void **)&out, err));
    memset(out, 0, sizeof *out);
    corvid_status status = cv_output_create(out, path, err);
    if (status == CORVID_OK) status = cv_output_write(out, bytes, n, err);
    if (status == CORVID_OK) status = cv_output_commit(out, err);
    cv_output_discard(out);
    cv_free(s->mem, out);
    return status;
}

/* A line of a World vocabulary: the id, the bytes as a literal, how many. */
static size_t put_piece(char *out, int32_t id, const char *piece, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    size_t at = (size_t)sprintf(out, "%d b'", (int)id);
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)piece[i];
        memcpy(out + at, "\\x", 2);
        out[at + 2] = digits[c >> 4];
        out[at + 3] = digits[c & 15];
        at += 4;
    }
    return at + (size_t)sprintf(out + at, "' %zu\n", n);
}

/* World pieces have no text where they come from a GGUF. */
static corvid_status write_pieces(session *s, corvid_error *err)
{
    const int32_t size = (int32_t)cv_tokenizer_size(s->tok);
    size_t room = 1, at = 0, n;
    char *text = NULL;
    for (int32_t id = 0; id < size; id++) {
        cv_tokenizer_piece(s->tok, id, &n);
        room += 4 * n + 48;
    }
    CV_TRY(cv_alloc_or_fail(s->mem, room, 1, "a vocabulary", (void **)&text, err));
    for (int32_t id = 0; id < size; id++) {
        const char *piece = cv_tokenizer_piece(s->tok, id, &n);
        if (n) at += put_piece(text + at, id, piece, n);
    }
    const corvid_status status = write_file(s, s->vocab, text, at, err);
    cv_free(s->mem, text);
    return status;
}

/* A whole model is saved with the vocabulary that it was taught with. */
static corvid_status keep_vocabulary(session *s, corvid_error *err)
{
    const cv_tokenizer_kind kind = cv_tokenizer_kind_of(s->tok);
    const cv_meta *text = cv_checkpoint_meta(&s->ckpt, CV_VOCAB_KEY);
    if (!text) text = cv_checkpoint_meta(&s->ckpt, CV_BPE_KEY);
    if (s->run->method != CV_FINETUNE_FULL || kind == CV_TOK_BYTES) return CORVID_OK;
    cv_loop_path(&s->run->recipe, kind == CV_TOK_WORLD ? "vocab.txt" : "vocab.json", s->vocab);
    if (!s->run->vocab && text && text->type == CV_META_TEXT)
        return write_file(s, s->vocab, text->text.bytes, text->text.n, err);
    if (kind == CV_TOK_WORLD) return write_pieces(s, err);
    /* A tokenizer.json is not made again from its tokens: it goes in where it was named. */
    snprintf(s->vocab, sizeof s->vocab, "%s", s->run->vocab ? s->run->vocab : "");
    return CORVID_OK;
}

/* ---- Opening ------------------------------------------------------------------------------------ */

static corvid_status open_base(session *s, corvid_error *err)
{
    const cv_finetune_run *r = s->run;
    CV_TRY(cv_checkpoint_open(s->mem, r->model, &s->ckpt, err));
    CV_TRY(cv_source_open(&s->ckpt, &s->source, err));
    if (s->source.arch->stack->vision)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "%s: is a %s model, which sees pictures; this is for "
                       "language models",
                       s->ckpt.in.path, s->source.arch->name);
    if (r->method == CV_FINETUNE_FULL && cv_checkpoint_find(&s->ckpt, "blocks.0.att.time_state"))
        return cv_fail(
            err, CORVID_E_ARGUMENT,
            "%s: has an initial state of its own, which would be lost; tune that (state) "
            "or learn an adapter (lora)",
            s->ckpt.in.path);
    CV_TRY(cv_vocabulary_find(s->mem, s->source.sizes.V, r->vocab, &s->ckpt, r->model, r->folder,
                              &s->tok, err));
    return keep_vocabulary(s, err);
}

static corvid_status open_course(session *s, corvid_error *err)
{
    const cv_finetune_run *r = s->run;
    const cv_text_course_wish wish = { .recipe = &s->run->recipe,
                                       .tok = s->tok,
                                       .data = r->data,
                                       .n_data = r->n_data,
                                       .batch = r->batch,
                                       .context = r->context,
                                       .l2_wrap = r->l2_wrap,
                                       .validation = r->validation,
                                       .evaluate_tokens = r->evaluate_tokens };
    return cv_text_course_open(s->mem, &wish, &s->course, err);
}

/* What learns, and what it begins with. */
static corvid_status open_method(session *s, corvid_error *err)
{
    const cv_finetune_run *r = s->run;
    cv_adapter_settings settings = r->adapter;
    const cv_adapter_choice choice = { .alpha = r->from_alpha };
    settings.seed = s->run->recipe.seed;
    switch (r->method) {
    case CV_FINETUNE_LORA:
        CV_TRY(r->from ? cv_adapters_load(&s->model, r->from, &choice, &s->adapters, err)
                       : cv_adapters_open(&s->model, &settings, &s->adapters, err));
        s->beside = cv_adapters_learner(&s->adapters);
        return CORVID_OK;
    case CV_FINETUNE_STATE:
        CV_TRY(cv_tuned_state_open(&s->model, r->from, &s->state, err));
        s->beside = cv_tuned_state_learner(&s->state);
        return CORVID_OK;
    case CV_FINETUNE_FULL: break;
    }
    return CORVID_OK;
}

static corvid_status open_session(session *s, corvid_error *err)
{
    const cv_learner_options options = { .bf16 = s->run->recipe.bf16,
                                         .again = s->run->recipe.recompute };
    CV_TRY(cv_loop_folder(&s->run->recipe, err));
    CV_TRY(open_base(s, err));
    CV_TRY(open_course(s, err));
    CV_TRY(cv_learner_open(s->mem, s->run->recipe.team, s->run->recipe.kernel, &s->source, &options,
                           &s->model, err));
    CV_TRY(open_method(s, err));
    return cv_learner_room(&s->model, s->course.most, s->run->context, err);
}

static void close_session(session *s)
{
    cv_adapters_close(&s->adapters);
    cv_tuned_state_close(&s->state);
    cv_learner_close(&s->model);
    cv_text_course_close(&s->course);
    cv_tokenizer_free(s->tok);
    cv_checkpoint_close(&s->ckpt);
}

/* All that decides the numbers of a run, beside its seed. */
static uint64_t hash_settings(const session *s)
{
    const cv_finetune_run *r = s->run;
    const cv_recipe *c = &s->run->recipe;
    const double numbers[] = { (double)r->method,
                               (double)s->beside.n_params,
                               (double)r->adapter.rank,
                               s->adapters.alpha,
                               (double)c->steps,
                               (double)r->batch,
                               (double)r->context,
                               c->learning_rate,
                               c->final_learning_rate,
                               (double)c->warmup,
                               c->beta1,
                               c->beta2,
                               c->eps,
                               c->weight_decay,
                               c->clip,
                               r->l2_wrap,
                               r->validation,
                               (double)s->course.data.train.begin,
                               (double)s->course.data.train.end };
    const uint64_t hash = cv_vocabulary_hash(s->tok) ^ s->model.model.fingerprint;
    return cv_loop_settings(c, XXH3_64bits_withSeed(numbers, sizeof numbers, hash));
}

/* ---- What the loop asks for --------------------------------------------------------------------- */

static corvid_status learn_part(void *ctx, uint64_t step, size_t part, double *loss,
                                corvid_error *err)
{
    session *s = ctx;
    return cv_text_course_learn(&s->course, &s->model, step, part, loss, err);
}

static corvid_status score(void *ctx, cv_run_score *out, corvid_error *err)
{
    session *s = ctx;
    return cv_text_course_score(&s->course, &s->model, out, err);
}

static void clear(void *ctx)
{
    session *s = ctx;
    cv_learner_clear(&s->model);
    if (s->run->method == CV_FINETUNE_STATE) cv_tuned_state_clear(&s->state);
}

static void gather(void *ctx)
{
    session *s = ctx;
    cv_learner_gather(&s->model);
    if (s->run->method == CV_FINETUNE_LORA) cv_adapters_gather(&s->adapters);
    if (s->run->method == CV_FINETUNE_STATE) cv_tuned_state_gather(&s->state);
}

static void publish(void *ctx)
{
    session *s = ctx;
    if (s->run->method == CV_FINETUNE_LORA) cv_adapters_apply(&s->adapters);
    if (s->run->method == CV_FINETUNE_STATE) cv_tuned_state_apply(&s->state);
}

/* Factors are no weights of the model: they learn at the rate itself, and do not decay. */
static cv_group group(void *ctx, const cv_param *param)
{
    const session *s = ctx;
    const size_t i = (size_t)(param - s->beside.params);
    if (s->run->method == CV_FINETUNE_LORA && i < 2 * s->adapters.n)
        return (cv_group){ 1.0, false };
    return cv_group_of(cv_grouping_of(&s->source), &s->source, &param->view);
}

/* What is learnt beside a model has names of its own where the loop says model.safetensors. */
static corvid_status save(void *ctx, const char *path, corvid_error *err)
{
    session *s = ctx;
    const bool state = s->run->method == CV_FINETUNE_STATE;
    const char *name = strrchr(path, '/');
    char own[CV_RUN_PATH];
    if (name && strcmp(name, "/model.safetensors") == 0) {
        cv_loop_path(&s->run->recipe, state ? "state.safetensors" : "adapter.safetensors", own);
        path = own;
    }
    return state ? cv_tuned_state_save(&s->state, path, err)
                 : cv_adapters_save(&s->adapters, path, err);
}

static cv_schedule schedule_of(const cv_finetune_run *r)
{
    const cv_recipe *c = &r->recipe;
    const uint64_t step_tokens = r->batch * r->context;
    cv_schedule schedule = cv_schedule_rwkv(c->learning_rate, c->final_learning_rate,
                                            (int64_t)(c->steps * step_tokens), step_tokens,
                                            c->warmup, CV_WARM_FROM_V7);
    schedule.curve = c->curve;
    return schedule;
}

static cv_task task_of(session *s)
{
    const cv_finetune_run *r = s->run;
    cv_task task = { .learner = &s->model,
                     .schedule = schedule_of(r),
                     .steps = r->recipe.steps,
                     .step_rows = r->batch * r->context,
                     .settings = hash_settings(s),
                     .memory_bytes = cv_learner_bytes(&s->model),
                     .vocab = s->vocab[0] ? s->vocab : NULL,
                     .ctx = s,
                     .batch = learn_part,
                     .score = r->validation > 0.0 ? score : NULL };
    if (r->method == CV_FINETUNE_FULL) return task;
    task.learner = &s->beside;
    task.memory_bytes += cv_learner_bytes(&s->beside);
    task.clear = clear;
    task.gather = gather;
    task.publish = publish;
    task.group = group;
    task.save = save;
    return task;
}

corvid_status cv_finetune(const corvid_allocator *mem, const cv_finetune_run *run,
                          corvid_error *err)
{
    session *s = NULL; /* holds paths: too much for a stack that is not ours */
    CV_TRY(cv_alloc_or_fail(mem, 1, sizeof *s, "a run", (void **)&s, err));
    memset(s, 0, sizeof *s);
    s->mem = mem;
    s->run = run;
    corvid_status status = open_session(s, err);
    if (status == CORVID_OK) {
        const cv_task task = task_of(s);
        status = cv_loop_run(mem, &run->recipe, &task, err);
    }
    close_session(s);
    cv_free(mem, s);
    return status;
}
