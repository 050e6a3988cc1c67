/* bench.h - what the two halves of `corvid bench` share: bench.c times language models,
 * bench_pictures.c vision models. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "model_args.h"
#include "textio.h"

typedef struct bench_options {
    general_options general;
    model_args model;
    const char *shape, *type;
    uint64_t prompt, tokens, repeat;
    uint64_t size, batch;
    bool json, no_probe;
} bench_options;

/* Speeds of all rounds, sorted once they are all there. */
typedef struct speeds {
    double *per_s;
    size_t n;
} speeds;

void bench_sort(speeds *s);
double bench_median(const speeds *s); /* of sorted ones */

/* Bytes from a line of /proc/self/status ("VmHWM"), 0 where there is none. */
uint64_t bench_process_bytes(const char *name);

/* Times a vision model and prints it; 0 or an exit code after a message. */
int bench_pictures(const bench_options *o, corvid_model *model, double load_s);

#endif
