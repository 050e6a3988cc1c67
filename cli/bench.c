/* bench.c - `corvid bench`: how fast a model reads and writes, beside how fast memory is. */
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "probe.h"
#include "term.h"

#define FIELD(name) offsetof(bench_options, name)

static const cli_option own_table[] = {
    { "shape", 0, OPTION_TEXT, "NAME", NULL,
      "Random weights of a known shape instead of a checkpoint, as rwkv7-0.1b; \"list\" lists "
      "them.",
      FIELD(shape), 0, 0 },
    { "type", 0, OPTION_TEXT, "TYPE", "f32",
      "With --shape: type of the weights, f32, f16, bf16, q8, q6, q5, q4 or the "
      "name of a quantized one.",
      FIELD(type), 0, 0 },
    { "prompt", 'p', OPTION_COUNT, "N", "512", "Tokens to read at once (prefill).", FIELD(prompt),
      1, 1e7 },
    { "tokens", 'n', OPTION_COUNT, "N", "64", "Tokens to write one by one (decode).", FIELD(tokens),
      1, 1e7 },
    { "size", 0, OPTION_COUNT, "N", NULL,
      "Vision models: pictures of N x N pixels; default: the size the model was made for.",
      FIELD(size), 1, 65536 },
    { "batch", 0, OPTION_COUNT, "N", "8", "Vision models: pictures shown at a time.", FIELD(batch),
      1, 4096 },
    { "repeat", 0, OPTION_COUNT, "N", "5", "Rounds; the median counts.", FIELD(repeat), 1, 1000 },
    { "no-probe", 0, OPTION_FLAG, NULL, NULL, "Do not measure the speed of memory.",
      FIELD(no_probe), 0, 0 },
    { "json", 0, OPTION_FLAG, NULL, NULL, "Print one JSON object.", FIELD(json), 0, 0 },
    { 0 }
};

static const option_group groups[] = {
    { "Bench", own_table, 0 }, { "Model", model_table, FIELD(model) }, GENERAL_GROUP, { 0 }
};

/* The short names of types, as `corvid convert` has them. */
static const char *whole_type(const char *type)
{
    static const char *const names[][2] = {
        { "q8", "q8_0" }, { "q6", "q6_k" }, { "q5", "q5_k" }, { "q4", "q4_k" }
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i][0], type) == 0) return names[i][1];
    return type;
}

typedef struct bench {
    const bench_options *o;
    corvid_model *model;
    corvid_stream *stream;
    corvid_model_info info;
    float *logits;
    int32_t *prompt;
    speeds read, write;
    double load_s, probe_before, probe_after; /* bytes per second; 0: not measured */
} bench;

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(const speeds *s)
{
    size_t mid = s->n / 2;
    return s->n % 2 ? s->per_s[mid] : (s->per_s[mid - 1] + s->per_s[mid]) / 2;
}

void bench_sort(speeds *s)
{
    qsort(s->per_s, s->n, sizeof(double), by_size);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

/* Tokens that look like no text: the speed does not depend on them. */
static void fill_prompt(bench *b)
{
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < b->o->prompt; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        b->prompt[i] = (int32_t)(x % b->info.n_vocab);
    }
}

static int32_t likeliest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

static corvid_status write_tokens(bench *b, uint64_t n, corvid_error *err)
{
    corvid_status status = CORVID_OK;
    for (uint64_t i = 0; i < n && !status; i++) {
        int32_t id = likeliest(b->logits, b->info.n_vocab);
        status = corvid_feed(b->stream, &id, 1, b->logits, err);
    }
    return status;
}

/* One round: read the prompt, warm up with eight tokens, write. */
static corvid_status one_round(bench *b, corvid_error *err)
{
    const bench_options *o = b->o;
    corvid_stream_reset(b->stream);
    double started = term_seconds();
    corvid_status status = corvid_feed(b->stream, b->prompt, o->prompt, b->logits, err);
    if (status) return status;
    b->read.per_s[b->read.n++] = (double)o->prompt / (term_seconds() - started);
    status = write_tokens(b, 8, err);
    if (status) return status;
    started = term_seconds();
    status = write_tokens(b, o->tokens, err);
    if (status) return status;
    b->write.per_s[b->write.n++] = (double)o->tokens / (term_seconds() - started);
    return CORVID_OK;
}

static int measure(bench *b)
{
    const bench_options *o = b->o;
    corvid_error err;
    corvid_status status = CORVID_OK;
    progress bar;
    if (!o->no_probe) b->probe_before = probe_read_bandwidth(b->info.n_threads);
    progress_begin(&bar, "measuring");
    for (uint64_t i = 0; i < o->repeat && !status; i++) {
        status = one_round(b, &err);
        progress_show(&bar, i + 1, o->repeat);
    }
    progress_end(&bar);
    if (status) return fail_with(&err);
    if (!o->no_probe) b->probe_after = probe_read_bandwidth(b->info.n_threads);
    bench_sort(&b->read);
    bench_sort(&b->write);
    return 0;
}

/* ---- Reporting ------------------------------------------------------------------------------- */

/* What one token makes the memory give: all weights but the table of embeddings, of which one row
 * is read, and the state in and out.  Dense: rows that a sparse kernel skips are counted. */
static double token_bytes(const corvid_model_info *i)
{
    double table = (double)i->n_vocab * (double)i->n_embd / (double)i->n_parameters;
    return (double)i->weight_bytes * (1 - table) + 2 * (double)i->state_bytes;
}

uint64_t bench_process_bytes(const char *name)
{
    FILE *file = fopen("/proc/self/status", "r");
    char text[256];
    unsigned long long kib = 0;
    size_t n = strlen(name);
    while (file && fgets(text, sizeof text, file))
        if (strncmp(text, name, n) == 0 && text[n] == ':') kib = strtoull(text + n + 1, NULL, 10);
    if (file) fclose(file);
    return (uint64_t)kib * 1024;
}

static double achieved(const bench *b)
{
    return bench_median(&b->write) * token_bytes(&b->info);
}

static double probed(const bench *b)
{
    return (b->probe_before + b->probe_after) / 2;
}

static json_t *speeds_json(const speeds *s, uint64_t tokens)
{
    return json_pack("{s:f, s:f, s:f, s:I}", "tokens_per_s", bench_median(s), "min", s->per_s[0],
                     "max", s->per_s[s->n - 1], "tokens", (json_int_t)tokens);
}

static int print_json(const bench *b, uint64_t resident)
{
    const bench_options *o = b->o;
    json_t *decode = speeds_json(&b->write, o->tokens);
    json_object_set_new(decode, "gb_per_s", json_real(achieved(b) / 1e9));
    json_object_set_new(decode, "of_probed",
                        probed(b) > 0 ? json_real(achieved(b) / probed(b)) : json_null());
    json_t *memory = json_pack(
        "{s:I, s:I, s:I, s:I, s:I}", "weights", (json_int_t)b->info.weight_bytes, "workspace",
        (json_int_t)b->info.workspace_bytes, "state", (json_int_t)b->info.state_bytes, "resident",
        (json_int_t)resident, "peak", (json_int_t)bench_process_bytes("VmHWM"));
    json_t *probe = b->probe_before > 0
                        ? json_pack("{s:f, s:f}", "before_gb_per_s", b->probe_before / 1e9,
                                    "after_gb_per_s", b->probe_after / 1e9)
                        : json_null();
    const char *name = o->shape ? o->shape : o->model.model;
    return cli_print_json(
        json_pack("{s:o, s:s, s:s, s:s, s:I, s:I, s:f, s:o, s:o, s:o, s:o}", "model",
                  cli_json_text(name, strlen(name)), "arch", b->info.arch, "type",
                  b->info.weight_type, "cpu", b->info.cpu, "threads", (json_int_t)b->info.n_threads,
                  "repeat", (json_int_t)o->repeat, "load_s", b->load_s, "decode", decode, "prefill",
                  speeds_json(&b->read, o->prompt), "memory", memory, "probe", probe));
}

static void print_speed(const char *name, const speeds *s, uint64_t tokens)
{
    printf("%-9s %10.2f tokens/s  (min %.2f, max %.2f; %llu tokens)\n", name, bench_median(s),
           s->per_s[0], s->per_s[s->n - 1], (unsigned long long)tokens);
}

static void print_table(const bench *b, uint64_t resident)
{
    const corvid_model_info *i = &b->info;
    char weights[SIZE_TEXT], state[SIZE_TEXT], all[SIZE_TEXT];
    printf("model     %s, %s, %.1f M parameters, %s kernels, %zu threads\n", i->arch,
           i->weight_type, (double)i->n_parameters / 1e6, i->cpu, i->n_threads);
    printf("load      %10.3f s\n", b->load_s);
    print_speed("prefill", &b->read, b->o->prompt);
    print_speed("decode", &b->write, b->o->tokens);
    printf("memory    weights %s, state %s, process %s\n", cli_size_text(i->weight_bytes, weights),
           cli_size_text(i->state_bytes, state), cli_size_text(resident, all));
    if (b->probe_before <= 0) return;
    printf("bandwidth %10.2f GB/s while decoding, %.1f %% of %.2f GB/s (before) and %.2f (after)\n",
           achieved(b) / 1e9, 100 * achieved(b) / probed(b), b->probe_before / 1e9,
           b->probe_after / 1e9);
}

static int list_shapes(void)
{
    const char *name;
    for (size_t i = 0; (name = corvid_shape_name(i)) != NULL; i++)
        puts(name);
    return 0;
}

static int open_all(bench *b)
{
    const bench_options *o = b->o;
    corvid_error err;
    double started = term_seconds();
    int code = o->shape ? model_args_random(&o->model, o->shape, whole_type(o->type), &b->model)
                        : model_args_open(&o->model, &b->model);
    if (code) return code;
    b->load_s = term_seconds() - started;
    b->info = model_args_info(b->model);
    if (b->info.vision) return 0;
    if (corvid_stream_new(b->model, &b->stream, &err)) return fail_with(&err);
    b->logits = cli_array(b->info.n_vocab, sizeof *b->logits);
    b->prompt = cli_array(o->prompt, sizeof *b->prompt);
    b->read.per_s = cli_array(o->repeat, sizeof(double));
    b->write.per_s = cli_array(o->repeat, sizeof(double));
    fill_prompt(b);
    return 0;
}

static int run(const void *options, int n_args, char **args)
{
    bench b = { .o = options };
    if (n_args) return fail(EXIT_USAGE, "\"%s\" is no option; see corvid bench --help", args[0]);
    if (b.o->shape && strcmp(b.o->shape, "list") == 0) return list_shapes();
    int code = open_all(&b);
    uint64_t resident = bench_process_bytes("VmRSS"); /* before the probe adds its own */
    if (!code && b.info.vision) {
        code = bench_pictures(b.o, b.model, b.load_s);
    } else if (!code) {
        code = measure(&b);
        if (!code && b.o->json)
            code = print_json(&b, resident);
        else if (!code)
            print_table(&b, resident);
    }
    free(b.logits);
    free(b.prompt);
    free(b.read.per_s);
    free(b.write.per_s);
    corvid_stream_free(b.stream);
    corvid_model_close(b.model);
    return code;
}

const cli_verb verb_bench = {
    .name = "bench",
    .summary = "measure speed and memory",
    .usage = "(-m MODEL | --shape NAME [--type TYPE]) [options]",
    .examples = "corvid bench -m rwkv7.pth --threads 2\n"
                "corvid bench --shape rwkv7-0.1b --type f32 --json\n"
                "corvid bench --shape vrwkv-t --type bf16 --size 224 --batch 8\n"
                "corvid bench --shape list",
    .details = "Each round reads the prompt, warms up with eight tokens and writes the rest, the "
               "likeliest token each time. The speed of memory is probed just before and just "
               "after, with as many threads (rounded down to a power of two), because it drifts; "
               "decoding is compared with it by the bytes a token needs when nothing is skipped. "
               "A vision model is shown pictures of noise instead, for about a second a round.",
    .groups = groups,
    .options_size = sizeof(bench_options),
    .run = run,
};
