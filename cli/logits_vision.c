/* logits_vision.c - `corvid logits --image` and `--input`: the scores of classes. */
#include "logits.h"

#include <stdlib.h>
#include <string.h>

#include "ranking.h"
#include "showing.h"
#include "term.h"

typedef struct picture_logits {
    const logits_options *o;
    corvid_model *model;
    size_t n_classes;
    picture_list list;
    tensor_in input;
    float *logits; /* [batch][n_classes] */
    tensor_out out;
    json_t *files;
    size_t rows; /* seen so far */
} picture_logits;

static void want_logits(void *ctx, size_t slot, size_t height, size_t width, corvid_view *view)
{
    picture_logits *l = ctx;
    (void)height;
    (void)width;
    view->logits = l->logits + slot * l->n_classes;
}

static void print_table(const picture_logits *l, const char *path, size_t i, const float *row)
{
    if (l->rows) putchar('\n');
    if (!path)
        printf("%s[%zu]\n", l->input.name, i);
    else if (l->list.n > 1)
        puts(path);
    print_classes(l->model, row, l->n_classes, 10);
}

static int take_logits(void *ctx, size_t slot, size_t i)
{
    picture_logits *l = ctx;
    const float *row = l->logits + slot * l->n_classes;
    const char *path = l->o->input ? NULL : l->list.items[i].path;
    if (l->o->out && !tensor_out_row(&l->out, 0, row)) return CORVID_E_WRITE;
    if (l->o->json) {
        if (l->rows) putchar(',');
        logits_json(row, l->n_classes);
    } else if (!l->o->out) {
        print_table(l, path, i, row);
    }
    if (path) json_array_append_new(l->files, cli_json_text(path, strlen(path)));
    l->rows++;
    return 0;
}

/* The file, kept when everything went as it should or only pictures were bad. */
static int close_out(picture_logits *l, int code)
{
    if (!l->o->out) return code;
    if (code == CORVID_E_WRITE || (!code && l->rows)) return tensor_out_keep(&l->out, NULL);
    tensor_out_drop(&l->out);
    return code;
}

static void end_json(const picture_logits *l)
{
    putchar(']');
    if (!l->o->input) {
        fputs(",\"files\":", stdout);
        json_dumpf(l->files, stdout, JSON_COMPACT);
    }
    puts("}");
}

static int show_all(picture_logits *l, size_t n, const corvid_framing *framing)
{
    const logits_options *o = l->o;
    showing s = { .model = l->model,
                  .batch = (size_t)o->pictures.batch,
                  .label = "looking",
                  .prints = !o->out || o->json,
                  .want = want_logits,
                  .take = take_logits,
                  .ctx = l,
                  .code = l->list.code };
    l->logits = cli_array(s.batch * l->n_classes, sizeof *l->logits);
    int code = o->out ? tensor_out_open(&l->out, o->out, 1, 0) : 0;
    if (code) return code;
    if (o->out) tensor_out_add(&l->out, "logits", 2, (size_t[]){ n, l->n_classes });
    if (o->json) printf("{\"arch\":\"%s\",\"logits\":[", model_args_info(l->model).arch);
    code =
        o->input ? show_tensor(&s, &l->input) : show_pictures(&s, &l->list, &o->pictures, framing);
    if (o->json) end_json(l);
    code = close_out(l, code);
    return code ? code : s.code;
}

static int look(picture_logits *l)
{
    corvid_framing framing;
    size_t n = l->list.n, height = 0, width = 0;
    int code = picture_args_framing(&l->o->pictures, l->model, &framing);
    l->n_classes = model_args_info(l->model).n_classes;
    if (!code && !l->n_classes)
        return fail(EXIT_USAGE,
                    "%s: this model has no head and gives no logits; corvid features writes what "
                    "it sees",
                    l->o->model.model);
    if (!code && l->o->input) code = tensor_in_pictures(&l->input, &n, &height, &width);
    return code ? code : show_all(l, n, &framing);
}

int logits_of_pictures(const logits_options *o)
{
    picture_logits l = { .o = o, .files = json_array() };
    corvid_framing framing;
    int code = picture_args_framing(&o->pictures, NULL, &framing);
    if (!code) code = model_args_need(&o->model);
    if (!code && o->input) code = tensor_in_open(&l.input, o->input, "image");
    for (size_t i = 0; i < o->image.n && !code; i++)
        code = pictures_add(&l.list, o->image.items[i]);
    if (!code && !o->input && !l.list.n) code = l.list.code;
    if (!code) code = model_args_open_vision(&o->model, &l.model);
    if (!code) code = look(&l);
    free(l.logits);
    json_decref(l.files);
    tensor_in_close(&l.input);
    pictures_free(&l.list);
    corvid_model_close(l.model);
    return code;
}
