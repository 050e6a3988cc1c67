/* features.c - `corvid features`: what a vision model makes of pictures, layer by layer. */
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

#include "model_args.h"
#include "showing.h"
#include "term.h"

typedef struct features_options {
    general_options general;
    model_args model;
    picture_args pictures;
    const char *layers, *list, *input, *out;
    bool pool;
} features_options;

#define FIELD(name) offsetof(features_options, name)

static const cli_option own_table[] = {
    { "out", 0, OPTION_TEXT, "FILE", NULL, "The safetensors file to write.", FIELD(out), 0, 0 },
    { "layers", 0, OPTION_TEXT, "all|-1|3,7", NULL,
      "Layers whose output is written, counted from 0, negative ones from the end; the last one "
      "comes after the final norm. Without it -1, and with --pool none.",
      FIELD(layers), 0, 0 },
    { "pool", 0, OPTION_FLAG, NULL, NULL,
      "Write \"pooled\", one vector per picture: the mean over the last layer, or its class token.",
      FIELD(pool), 0, 0 },
    { "list", 0, OPTION_TEXT, "FILE", NULL,
      "Also the pictures that this file names, one a line; \"-\" is standard input.", FIELD(list),
      0, 0 },
    { "input", 0, OPTION_TEXT, "FILE[:TENSOR]", NULL,
      "Instead of pictures their numbers, normalised: a tensor of a safetensors file, f32 "
      "[pictures, 3, height, width] or [3, height, width], named \"image\" if nothing is said.",
      FIELD(input), 0, 0 },
    { 0 }
};

static const option_group groups[] = { { "Features", own_table, 0 },
                                       { "Pictures", picture_table, FIELD(pictures) },
                                       { "Model", vision_model_table, FIELD(model) },
                                       GENERAL_GROUP,
                                       { 0 } };

/* Where the outputs of one picture of a batch lie. */
typedef struct outputs {
    float *features, *class_tokens, *pooled;
    size_t rows, columns; /* of the grid */
} outputs;

typedef struct extraction {
    const features_options *o;
    corvid_model *model;
    corvid_model_info info;
    picture_list list;
    tensor_in input;
    int *layers; /* counted from 0, no two alike */
    size_t n_layers;
    bool stacked;  /* all pictures come out as one size: one tensor holds all of them */
    size_t n_most; /* pictures there may be */
    outputs *slots;
    tensor_out out;
    bool declared;                         /* the stacked tensors are */
    size_t features, class_tokens, pooled; /* numbers of the first stacked tensor of each kind */
    size_t rows, columns;                  /* of all grids when stacked */
    size_t n_written;
    json_t *files;
} extraction;

/* ---- Layers ---------------------------------------------------------------------------------- */

static int add_layer(extraction *e, const char *text, long layer)
{
    long n = (long)e->info.n_layers;
    if (layer < -n || layer >= n)
        return fail(EXIT_USAGE, "--layers: \"%s\": there are the layers 0 to %ld, or -%ld to -1",
                    text, n - 1, n);
    int from_0 = (int)(layer < 0 ? layer + n : layer);
    for (size_t i = 0; i < e->n_layers; i++)
        if (e->layers[i] == from_0)
            return fail(EXIT_USAGE, "--layers: layer %d is named twice", from_0);
    e->layers[e->n_layers++] = from_0;
    return 0;
}

/* "all", or numbers with commas between. */
static int read_layers(extraction *e)
{
    const char *text = e->o->layers ? e->o->layers : e->o->pool ? NULL : "-1";
    int code = 0;
    e->layers = cli_array(e->info.n_layers + 1, sizeof *e->layers);
    if (!text) return 0;
    if (strcmp(text, "all") == 0) {
        for (size_t i = 0; i < e->info.n_layers && !code; i++)
            code = add_layer(e, text, (long)i);
        return code;
    }
    for (const char *at = text; !code;) {
        char *end;
        long layer = strtol(at, &end, 10);
        if (end == at || (*end && *end != ','))
            return fail(EXIT_USAGE, "--layers: \"%s\": write all, or numbers as 3,7,-1", text);
        code = add_layer(e, text, layer);
        if (!*end) break;
        at = end + 1;
    }
    return code;
}

/* ---- The file -------------------------------------------------------------------------------- */

/* Opens it with room for the tensors and names of all pictures. */
static int open_out(extraction *e)
{
    size_t each = e->n_layers * (e->info.class_token ? 2 : 1), names = 64;
    for (size_t i = 0; i < e->list.n; i++)
        names += tensor_out_metadata(e->list.items[i].path);
    size_t n = (e->stacked ? each : each * e->n_most) + 1;
    e->files = json_array();
    return tensor_out_open(&e->out, e->o->out, n, names);
}

/* "features.3", or "17.features.3" for the tensor of picture 17 alone. */
static size_t declare(extraction *e, const char *kind, int layer, size_t n_dims, const size_t *dims)
{
    char number[24] = "", name[96];
    if (!e->stacked) snprintf(number, sizeof number, "%zu.", e->n_written);
    snprintf(name, sizeof name, "%s%s.%d", number, kind, layer);
    return tensor_out_add(&e->out, name, n_dims, dims);
}

/* All tensors of equal pictures, once the first grid is known. */
static void declare_stacked(extraction *e, const outputs *o)
{
    size_t map[] = { e->n_most, e->info.n_embd, o->rows, o->columns };
    e->rows = o->rows;
    e->columns = o->columns;
    for (size_t i = 0; i < e->n_layers && e->stacked; i++) {
        size_t id = declare(e, "features", e->layers[i], 4, map);
        if (i == 0) e->features = id;
    }
    for (size_t i = 0; i < e->n_layers && e->stacked && e->info.class_token; i++) {
        size_t id = declare(e, "class_token", e->layers[i], 2, map);
        if (i == 0) e->class_tokens = id;
    }
    if (e->o->pool) e->pooled = tensor_out_add(&e->out, "pooled", 2, map);
    e->declared = true;
}

static bool write_stacked(extraction *e, const outputs *o)
{
    size_t C = e->info.n_embd, map = C * o->rows * o->columns;
    bool good = true;
    for (size_t i = 0; i < e->n_layers && good; i++) {
        good = tensor_out_row(&e->out, e->features + i, o->features + i * map);
        if (good && e->info.class_token)
            good = tensor_out_row(&e->out, e->class_tokens + i, o->class_tokens + i * C);
    }
    return good;
}

/* Tensors of their own for one picture, a row of which is a channel. */
static bool write_alone(extraction *e, const outputs *o)
{
    size_t C = e->info.n_embd, grid = o->rows * o->columns;
    size_t map[] = { C, o->rows, o->columns };
    bool good = true;
    for (size_t i = 0; i < e->n_layers && good; i++) {
        size_t id = declare(e, "features", e->layers[i], 3, map);
        for (size_t c = 0; c < C && good; c++)
            good = tensor_out_row(&e->out, id, o->features + (i * C + c) * grid);
        if (!e->info.class_token) continue;
        id = declare(e, "class_token", e->layers[i], 1, map);
        for (size_t c = 0; c < C && good; c++)
            good = tensor_out_row(&e->out, id, o->class_tokens + i * C + c);
    }
    return good;
}

static int keep_out(extraction *e)
{
    char *files = json_dumps(e->files, JSON_COMPACT);
    json_t *metadata = e->list.n ? json_pack("{s:s}", "files", files ? files : "[]") : NULL;
    free(files);
    return tensor_out_keep(&e->out, metadata);
}

/* ---- Running --------------------------------------------------------------------------------- */

static void want_outputs(void *ctx, size_t slot, size_t height, size_t width, corvid_view *view)
{
    extraction *e = ctx;
    outputs *o = &e->slots[slot];
    size_t C = e->info.n_embd, p = e->info.patch;
    o->rows = height / p + (height % p != 0);
    o->columns = width / p + (width % p != 0);
    if (e->n_layers) {
        size_t map = C * o->rows * o->columns;
        o->features = cli_realloc(o->features, e->n_layers * map * sizeof(float));
    }
    if (e->n_layers && e->info.class_token)
        o->class_tokens = cli_realloc(o->class_tokens, e->n_layers * C * sizeof(float));
    if (e->o->pool) o->pooled = cli_realloc(o->pooled, C * sizeof(float));
    view->features = o->features;
    view->class_tokens = o->class_tokens;
    view->pooled = o->pooled;
}

static int take_outputs(void *ctx, size_t slot, size_t i)
{
    extraction *e = ctx;
    const outputs *o = &e->slots[slot];
    if (!e->declared) declare_stacked(e, o);
    if (e->stacked && (o->rows != e->rows || o->columns != e->columns))
        return fail(CORVID_E_INTERNAL,
                    "picture %zu has a grid of %zu x %zu, those before %zu x %zu", i, o->rows,
                    o->columns, e->rows, e->columns);
    bool good = e->stacked ? write_stacked(e, o) : write_alone(e, o);
    if (good && e->o->pool) good = tensor_out_row(&e->out, e->pooled, o->pooled);
    if (!good) return CORVID_E_WRITE; /* tensor_out_keep says why */
    if (e->list.n) {
        const char *path = e->list.items[i].path;
        json_array_append_new(e->files, cli_json_text(path, strlen(path)));
    }
    e->n_written++;
    return 0;
}

static int show_all(extraction *e, const corvid_framing *framing)
{
    showing s = { .model = e->model,
                  .wanted = e->layers,
                  .n_wanted = e->n_layers,
                  .batch = (size_t)e->o->pictures.batch,
                  .label = "extracting",
                  .want = want_outputs,
                  .take = take_outputs,
                  .ctx = e,
                  .code = e->list.code };
    double started = term_seconds();
    e->slots = cli_array(s.batch, sizeof *e->slots);
    int code = open_out(e);
    if (code) return code;
    code = e->o->input ? show_tensor(&s, &e->input)
                       : show_pictures(&s, &e->list, &e->o->pictures, framing);
    if (code == CORVID_E_WRITE || (!code && e->n_written)) {
        int kept = keep_out(e);
        code = code ? kept : kept ? kept : s.code;
    } else {
        tensor_out_drop(&e->out);
        code = code ? code : s.code;
    }
    note("%zu pictures in %.2f s", e->n_written, term_seconds() - started);
    return code;
}

static int extract(extraction *e)
{
    corvid_framing framing;
    size_t height = 0, width = 0;
    int code = picture_args_framing(&e->o->pictures, e->model, &framing);
    e->info = model_args_info(e->model);
    if (!code) code = read_layers(e);
    e->stacked = e->o->input || framing_is_fixed(&framing);
    e->n_most = e->list.n;
    if (!code && e->o->input) code = tensor_in_pictures(&e->input, &e->n_most, &height, &width);
    return code ? code : show_all(e, &framing);
}

static int check_options(const features_options *o, int n_args)
{
    corvid_framing framing;
    if (!o->out) return fail(EXIT_USAGE, "say where to write with --out FILE.safetensors");
    if (o->input && (n_args || o->list)) return fail(EXIT_USAGE, "give either pictures or --input");
    int code = picture_args_framing(&o->pictures, NULL, &framing);
    return code ? code : model_args_need(&o->model);
}

static void close_all(extraction *e)
{
    for (size_t i = 0; e->slots && i < e->o->pictures.batch; i++) {
        free(e->slots[i].features);
        free(e->slots[i].class_tokens);
        free(e->slots[i].pooled);
    }
    free(e->slots);
    free(e->layers);
    json_decref(e->files);
    tensor_in_close(&e->input);
    pictures_free(&e->list);
    corvid_model_close(e->model);
}

static int run(const void *options, int n_args, char **args)
{
    extraction e = { .o = options };
    int code = check_options(e.o, n_args);
    if (!code && e.o->input) code = tensor_in_open(&e.input, e.o->input, "image");
    if (!code && !e.o->input) code = pictures_gather(&e.list, n_args, args, e.o->list);
    if (!code) code = model_args_open_vision(&e.o->model, &e.model);
    if (!code) code = extract(&e);
    close_all(&e);
    return code;
}

const cli_verb verb_features = {
    .name = "features",
    .summary = "write what a vision model makes of pictures",
    .usage = "-m MODEL (IMAGE... | --input FILE[:TENSOR]) [--layers LAYERS] [--pool] --out FILE",
    .examples = "corvid features -m vrwkv_t.pth cat.jpg --out cat.safetensors\n"
                "corvid features -m vrwkv_t.pth photos/ --pool --out photos.safetensors\n"
                "corvid features -m vrwkv_t.pth map.png --size native --layers 3,7,-1 --out "
                "map.safetensors\n"
                "corvid features -m vrwkv_t.pth --input batch.safetensors:x --layers all --out "
                "f.safetensors",
    .details =
        "Writes f32 tensors. Pictures that come out as one size, which is every --size but native, "
        "and those of --input are stacked: features.LAYER [pictures, width of the model, rows, "
        "columns], one number per patch of the picture. With --size native each has its own: "
        "PICTURE.features.LAYER [width, rows, columns], pictures counted from 0. LAYER counts from "
        "0, also where it was named from the end. Models with a class token add class_token.LAYER "
        "[pictures, width], or PICTURE.class_token.LAYER. --pool adds pooled [pictures, width]. "
        "The metadata entry files is a JSON array of the pictures' names in this order; a picture "
        "that cannot be read is told on standard error and is in none of them, and the exit code "
        "is that of the first failure.",
    .groups = groups,
    .options_size = sizeof(features_options),
    .run = run,
};
