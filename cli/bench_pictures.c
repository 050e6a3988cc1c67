/* bench_pictures.c - `corvid bench` for vision models: pictures a second, and memory. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "term.h"

typedef struct pictures_bench {
    const bench_options *o;
    corvid_model *model;
    corvid_model_info info;
    size_t side, batch;
    corvid_picture **pictures; /* [batch] */
    corvid_view *views;        /* [batch] */
    float *out;                /* [batch][n_classes or n_embd] */
    speeds seen;
} pictures_bench;

/* Pixels that look like no picture: the speed does not depend on them. */
static int make_pictures(pictures_bench *b)
{
    const size_t n = b->side * b->side * 3;
    unsigned char *pixels = cli_array(n, 1);
    const size_t width = b->info.n_classes ? b->info.n_classes : b->info.n_embd;
    uint64_t x = 88172645463325252u;
    corvid_error err;
    corvid_status status = CORVID_OK;
    for (size_t i = 0; i < b->batch && !status; i++) {
        for (size_t j = 0; j < n; j++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            pixels[j] = (unsigned char)x;
        }
        status = corvid_picture_new(pixels, b->side, b->side, 3, 0, &b->pictures[i], &err);
        b->views[i].picture = b->pictures[i];
        *(b->info.n_classes ? &b->views[i].logits : &b->views[i].pooled) = b->out + i * width;
    }
    free(pixels);
    return status ? fail_with(&err) : 0;
}

/* Rounds of as many batches as take about a second, but at least one. */
static int measure(pictures_bench *b)
{
    corvid_error err;
    progress bar;
    corvid_status status = corvid_see(b->model, b->views, b->batch, NULL, 0, &err); /* warms up */
    double started = term_seconds(), once;
    if (!status) status = corvid_see(b->model, b->views, b->batch, NULL, 0, &err);
    once = term_seconds() - started;
    const size_t times = once < 1.0 ? (size_t)(1.0 / once) + 1 : 1;
    progress_begin(&bar, "measuring");
    for (uint64_t round = 0; round < b->o->repeat && !status; round++) {
        started = term_seconds();
        for (size_t i = 0; i < times && !status; i++)
            status = corvid_see(b->model, b->views, b->batch, NULL, 0, &err);
        b->seen.per_s[b->seen.n++] = (double)(times * b->batch) / (term_seconds() - started);
        progress_show(&bar, round + 1, b->o->repeat);
    }
    progress_end(&bar);
    if (status) return fail_with(&err);
    bench_sort(&b->seen);
    return 0;
}

static int print_json(const pictures_bench *b, double load_s, uint64_t peak)
{
    const bench_options *o = b->o;
    const char *name = o->shape ? o->shape : o->model.model;
    const double speed = bench_median(&b->seen);
    json_t *vision = json_pack("{s:f, s:f, s:f, s:f, s:I, s:I, s:I}", "images_per_s", speed,
                               "ms_per_image", 1e3 / speed, "min", b->seen.per_s[0], "max",
                               b->seen.per_s[b->seen.n - 1], "size", (json_int_t)b->side, "batch",
                               (json_int_t)b->batch, "peak_bytes", (json_int_t)peak);
    json_t *memory =
        json_pack("{s:I, s:I, s:I}", "weights", (json_int_t)b->info.weight_bytes, "workspace",
                  (json_int_t)b->info.workspace_bytes, "peak", (json_int_t)peak);
    return cli_print_json(json_pack("{s:o, s:s, s:s, s:s, s:I, s:I, s:f, s:o, s:o}", "model",
                                    cli_json_text(name, strlen(name)), "arch", b->info.arch, "type",
                                    b->info.weight_type, "cpu", b->info.cpu, "threads",
                                    (json_int_t)b->info.n_threads, "repeat", (json_int_t)o->repeat,
                                    "load_s", load_s, "vision", vision, "memory", memory));
}

static void print_table(const pictures_bench *b, double load_s, uint64_t peak)
{
    const corvid_model_info *i = &b->info;
    char weights[SIZE_TEXT], work[SIZE_TEXT], all[SIZE_TEXT];
    const double speed = bench_median(&b->seen);
    printf("model     %s, %s, %.1f M parameters, %s kernels, %zu threads\n", i->arch,
           i->weight_type, (double)i->n_parameters / 1e6, i->cpu, i->n_threads);
    printf("load      %10.3f s\n", load_s);
    printf("pictures  %10.2f a second at %zu x %zu, %zu at a time (min %.2f, max %.2f)\n", speed,
           b->side, b->side, b->batch, b->seen.per_s[0], b->seen.per_s[b->seen.n - 1]);
    printf("          %10.2f ms each\n", 1e3 / speed);
    printf("memory    weights %s, working memory %s, process at most %s\n",
           cli_size_text(i->weight_bytes, weights), cli_size_text(i->workspace_bytes, work),
           cli_size_text(peak, all));
}

int bench_pictures(const bench_options *o, corvid_model *model, double load_s)
{
    pictures_bench b = { .o = o, .model = model, .info = model_args_info(model) };
    b.side = o->size ? o->size : b.info.native;
    b.batch = o->batch;
    b.pictures = cli_array(b.batch, sizeof *b.pictures);
    b.views = cli_array(b.batch, sizeof *b.views);
    b.out = cli_array(b.batch * (b.info.n_classes + b.info.n_embd), sizeof *b.out);
    b.seen.per_s = cli_array(o->repeat, sizeof(double));
    memset(b.pictures, 0, b.batch * sizeof *b.pictures);
    memset(b.views, 0, b.batch * sizeof *b.views);
    int code = make_pictures(&b);
    if (!code) code = measure(&b);
    b.info = model_args_info(model); /* the working memory is known now */
    const uint64_t peak = bench_process_bytes("VmHWM");
    if (!code && o->json)
        code = print_json(&b, load_s, peak);
    else if (!code)
        print_table(&b, load_s, peak);
    for (size_t i = 0; i < b.batch; i++)
        corvid_picture_close(b.pictures[i]);
    free(b.pictures);
    free(b.views);
    free(b.out);
    free(b.seen.per_s);
    return code;
}
