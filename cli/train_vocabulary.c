/* train_vocabulary.c - `corvid train vocabulary`: makes a vocabulary from texts. */
#include "train_vocabulary.h"

#include "term.h"
#include "textio.h"

/* What is shown while it goes on, and said at the end. */
typedef struct watch {
    const train_options *o;
    progress bar;
    bool searching;
    size_t wanted; /* tokens */
    corvid_vocabulary_report made;
} watch;

static void show_reading(void *ctx, uint64_t done, uint64_t total)
{
    progress_show(&((watch *)ctx)->bar, done, total);
}

static void show_searching(void *ctx, uint64_t done, uint64_t total)
{
    watch *w = ctx;
    if (!w->searching) {
        w->searching = true;
        progress_end(&w->bar);
        progress_begin(&w->bar, "choosing tokens");
    }
    progress_show(&w->bar, done, total);
}

static void take_report(void *ctx, const corvid_vocabulary_report *made)
{
    ((watch *)ctx)->made = *made;
}

static int print_json(const watch *w, double each)
{
    const corvid_vocabulary_report *m = &w->made;
    json_t *line =
        json_pack("{s:s, s:I, s:I, s:I, s:I}", "file", w->o->out, "tokens", (json_int_t)m->size,
                  "text_bytes", (json_int_t)m->text_bytes, "held_out_bytes",
                  (json_int_t)m->held_out_bytes, "held_out_tokens", (json_int_t)m->held_out_tokens);
    if (!line) return fail(EXIT_USAGE, "--out: the name of the file is not UTF-8");
    json_object_set_new(line, "bytes_per_token", each > 0 ? json_real(each) : json_null());
    return cli_print_json(line);
}

static int print_text(const watch *w, double each)
{
    const corvid_vocabulary_report *m = &w->made;
    char size[SIZE_TEXT];
    printf("%s: %zu tokens, made from %s of text\n", w->o->out, m->size,
           cli_size_text(m->text_bytes, size));
    if (each > 0)
        printf("text kept aside: %.3f bytes per token (%llu bytes, %llu tokens)\n", each,
               (unsigned long long)m->held_out_bytes, (unsigned long long)m->held_out_tokens);
    return 0;
}

static int print_result(const watch *w)
{
    const corvid_vocabulary_report *m = &w->made;
    const double each =
        m->held_out_tokens > 0 ? (double)m->held_out_bytes / (double)m->held_out_tokens : 0;
    if (m->size < w->wanted)
        warn("the text repeats too little for %zu tokens; the vocabulary has %zu", w->wanted,
             m->size);
    return w->o->json ? print_json(w, each) : print_text(w, each);
}

int train_vocabulary(const train_options *o)
{
    corvid_train_vocabulary_options t;
    corvid_error err;
    watch w = { .o = o };
    corvid_train_vocabulary_defaults(&t);
    t.data = o->data.items;
    t.n_data = o->data.n;
    t.out = o->out;
    t.size = o->tokens;
    t.held_out = o->validation;
    t.report = take_report;
    t.reading = show_reading;
    t.searching = show_searching;
    t.cancel = term_cancel;
    t.callback_ctx = &w;
    w.wanted = t.size;
    progress_begin(&w.bar, "reading texts");
    const corvid_status status = corvid_train_vocabulary(&t, &err);
    progress_end(&w.bar);
    return status ? fail_with(&err) : print_result(&w);
}
