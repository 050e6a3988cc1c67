/* train_lm.c - `corvid train lm`: a language model from nothing, in the open. */
#include "train.h"

#include <string.h>

#include "training_view.h"

/* What has another default where pictures are trained. */
static int take_numbers(const train_options *o, corvid_train_language_options *t)
{
    double warmup = (double)t->warmup;
    int code = train_number("lr-final", o->lr_final, 0, 100, &t->final_learning_rate);
    if (!code) code = train_number("warmup", o->warmup, 0, 1e9, &warmup);
    if (!code) code = train_number("weight-decay", o->weight_decay, 0, 10, &t->weight_decay);
    if (!code) code = train_number("clip", o->clip, 0, 1e9, &t->clip);
    t->warmup = (uint64_t)warmup;
    if (o->arch) t->arch = o->arch;
    if (o->layers) t->layers = o->layers;
    if (o->dim) t->width = o->dim;
    if (o->batch) t->batch = o->batch;
    if (o->beta2 > 0) t->beta2 = o->beta2;
    if (o->eps > 0) t->eps = o->eps;
    return code;
}

static int take_options(const train_options *o, corvid_train_language_options *t)
{
    corvid_train_language_defaults(t);
    t->vocab = o->vocab;
    t->data = o->data.items;
    t->n_data = o->data.n;
    t->out = o->out;
    t->resume = o->resume;
    t->seed = o->seed;
    t->steps = o->steps;
    t->context = o->context;
    t->learning_rate = o->lr;
    t->beta1 = o->beta1;
    t->validation = o->validation;
    t->evaluate_every = o->eval_every;
    t->evaluate_tokens = o->eval_tokens;
    t->save_every = o->save_every;
    t->n_threads = o->threads;
    t->cpu = o->cpu;
    t->accumulate = o->accumulate;
    t->schedule = o->schedule;
    t->average = o->ema;
    t->type = o->type;
    t->recompute = o->recompute;
    t->token_shift = strcmp(o->token_shift, "on") == 0;
    t->keep_best = o->keep_best;
    t->max_seconds = 60 * o->minutes;
    return take_numbers(o, t);
}

int train_lm(const train_options *o)
{
    corvid_train_language_options t;
    corvid_error err;
    training_view view = {
        .folder = o->out, .unit = "tokens", .json = o->json, .seconds = 60 * o->minutes
    };
    int code = take_options(o, &t);
    if (code) return code;
    t.report = training_view_report;
    t.progress = training_view_progress;
    t.cancel = term_cancel;
    t.callback_ctx = &view;
    code = training_view_open(&view, "reading texts");
    if (!code && corvid_train_language(&t, &err)) code = fail_with(&err);
    return training_view_close(&view, code);
}
