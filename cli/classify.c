/* classify.c - `corvid classify`: the classes that pictures most likely belong to. */
#include "verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model_args.h"
#include "ranking.h"
#include "shipped.h"
#include "showing.h"
#include "term.h"

typedef struct classify_options {
    general_options general;
    model_args model;
    picture_args pictures;
    uint64_t top;
    const char *list;
    bool json;
} classify_options;

#define FIELD(name) offsetof(classify_options, name)

static const cli_option own_table[] = {
    { "top", 'k', OPTION_COUNT, "K", "5", "How many classes to name.", FIELD(top), 1, 1e6 },
    { "list", 0, OPTION_TEXT, "FILE", NULL,
      "Also the pictures that this file names, one a line; \"-\" is standard input.", FIELD(list),
      0, 0 },
    { "json", 0, OPTION_FLAG, NULL, NULL,
      "Print one JSON object per picture, on a line of its own.", FIELD(json), 0, 0 },
    { 0 }
};

static const option_group groups[] = { { "Classify", own_table, 0 },
                                       { "Pictures", picture_table, FIELD(pictures) },
                                       { "Model", vision_model_table, FIELD(model) },
                                       GENERAL_GROUP,
                                       { 0 } };

typedef struct classification {
    const classify_options *o;
    model_args chosen;
    corvid_model *model;
    size_t n_classes;
    picture_list list;
    float *logits; /* [batch][n_classes] */
    size_t shown;
} classification;

/* ---- Output ---------------------------------------------------------------------------------- */

static json_t *class_json(const classification *c, const float *row, size_t i, double whole)
{
    const char *name = corvid_class_name(c->model, i);
    return json_pack("{s:I, s:o, s:o, s:o}", "class", (json_int_t)i, "name",
                     name ? cli_json_text(name, strlen(name)) : json_null(), "probability",
                     json_number(exp((double)row[i] - whole)), "logit",
                     json_number((double)row[i]));
}

static int print_json(const classification *c, const char *path, const float *row)
{
    double whole = log_sum(row, c->n_classes);
    json_t *top = json_array();
    for (size_t rank = 0, i = c->n_classes; rank < c->o->top; rank++) {
        i = next_largest(row, c->n_classes, i);
        if (i == c->n_classes) break;
        json_array_append_new(top, class_json(c, row, i, whole));
    }
    return cli_print_json(
        json_pack("{s:o, s:o}", "file", cli_json_text(path, strlen(path)), "top", top));
}

/* The file, the likeliest class and its probability, with tabs between. */
static void print_line(const classification *c, const char *path, const float *row)
{
    char room[CLASS_TEXT];
    size_t best = next_largest(row, c->n_classes, c->n_classes);
    bool none = best == c->n_classes;
    printf("%s\t%s\t%.5f\n", path, none ? "none" : class_label(c->model, best, room),
           none ? 0.0 : exp((double)row[best] - log_sum(row, c->n_classes)));
}

static void print_block(const classification *c, const char *path, const float *row)
{
    if (c->list.n > 1)
        printf("%s%s%s%s\n", c->shown ? "\n" : "", term_paint(stdout, STYLE_STRONG), path,
               term_paint(stdout, STYLE_PLAIN));
    print_classes(c->model, row, c->n_classes, (size_t)c->o->top);
}

/* ---- Running --------------------------------------------------------------------------------- */

static void want_logits(void *ctx, size_t slot, size_t height, size_t width, corvid_view *view)
{
    classification *c = ctx;
    (void)height;
    (void)width;
    view->logits = c->logits + slot * c->n_classes;
}

static int take_logits(void *ctx, size_t slot, size_t i)
{
    classification *c = ctx;
    const float *row = c->logits + slot * c->n_classes;
    const char *path = c->list.items[i].path;
    int code = 0;
    if (c->o->json)
        code = print_json(c, path, row);
    else if (c->list.n > 1 && c->o->top == 1)
        print_line(c, path, row);
    else
        print_block(c, path, row);
    c->shown++;
    return code || fflush(stdout) == 0 ? code : CORVID_E_WRITE; /* term_finish says why */
}

static int classify(classification *c)
{
    corvid_framing framing;
    int code = picture_args_framing(&c->o->pictures, c->model, &framing);
    if (code) return code;
    c->n_classes = model_args_info(c->model).n_classes;
    if (!c->n_classes)
        return fail(EXIT_USAGE,
                    "%s: this model has no head, so it knows no classes; corvid features writes "
                    "what it sees",
                    c->chosen.model);
    size_t batch = (size_t)c->o->pictures.batch;
    c->logits = cli_array(batch * c->n_classes, sizeof *c->logits);
    showing s = { .model = c->model,
                  .label = "classifying",
                  .prints = true,
                  .want = want_logits,
                  .take = take_logits,
                  .ctx = c,
                  .code = c->list.code };
    code = show_pictures(&s, &c->list, &c->o->pictures, &framing);
    return code ? code : s.code;
}

static int run(const void *options, int n_args, char **args)
{
    classification c = { .o = options };
    corvid_framing framing;
    int code = picture_args_framing(&c.o->pictures, NULL, &framing);
    if (!code) code = model_args_choose(&c.o->model, SHIPPED_PICTURES, &c.chosen);
    if (!code) code = pictures_gather(&c.list, n_args, args, c.o->list);
    if (!code) code = model_args_open_vision(&c.chosen, &c.model);
    if (!code) code = classify(&c);
    free(c.logits);
    pictures_free(&c.list);
    corvid_model_close(c.model);
    return code;
}

const cli_verb verb_classify = {
    .name = "classify",
    .summary = "name what is in pictures",
    .usage = "[-m MODEL] IMAGE... [--top K] [--json]",
    .examples = "corvid classify cat.jpg\n"
                "corvid classify -m vrwkv_t.pth cat.jpg\n"
                "corvid classify -m vrwkv_t.pth --top 1 photos/\n"
                "corvid classify -m vrwkv_t.pth --json --list photos.txt > classes.jsonl\n"
                "curl -s https://example.org/cat.jpg | corvid classify -m vrwkv_t.pth -",
    .details =
        "Without -m the model pictures, which comes with corvid, tells ten kinds of things apart: "
        "airplanes, automobiles, birds, cats, deer, dogs, frogs, horses, ships and trucks. "
        "Pictures are JPEG, PNG and WebP files; a folder stands for all .jpg, .jpeg, .png and "
        ".webp files below it, in the order of their names, hidden ones left out. A line of a list "
        "is a path, relative to here or else to the list; what follows a tab, or a space behind "
        "the extension, is a label that only corvid eval images reads. One picture gives a table, "
        "several give a table each, or with --top 1 a line each: file, class, probability, with "
        "tabs between. --json prints {\"file\", \"top\": [{\"class\", \"name\", \"probability\", "
        "\"logit\"}, ...]} per picture; a class without a name has the name null. A picture that "
        "cannot be read is told on standard error, the others go on, and the exit code is that of "
        "the first failure.",
    .groups = groups,
    .options_size = sizeof(classify_options),
    .run = run,
};
