/* fuzz_state.c - any bytes as a state file, loaded onto a stream of a fixed small model.
 *
 * A state ends in a checksum and names the model's fingerprint, which no fuzzer guesses: the first
 * byte of the input says what is completed before it is loaded (1 zeros up to the length of a
 * state, 2 the checksum, 4 the fingerprint); the rest is the file.
 * Findings beyond those of the sanitizers: a refusal that changed the stream or has no sentence,
 * and a state that was loaded but cannot be gone on from. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILL = 1, CHECKSUM = 2, FINGERPRINT = 4 };
enum { HEADER = 88, FINGERPRINT_AT = 32, LARGEST = 1 << 20 };

static void check(bool holds)
{
    if (!holds) abort();
}

/* The model and its stream, made once and kept. */
static cv_stream *the_stream(size_t *floats)
{
    static cv_engine engine;
    static cv_stream stream;
    if (!stream.engine) {
        const cv_engine_options options = { .n_threads = 1, .chunk = 4 };
        cv_source source;
        check(cv_source_random("rwkv7-tiny", CV_F16, 1, &source, NULL) == CORVID_OK);
        check(cv_engine_open(&cv_libc_allocator, &source, &options, &engine, NULL) == CORVID_OK);
        check(cv_stream_init(&engine, &stream, NULL) == CORVID_OK);
    }
    *floats = cv_state_size(&engine.model);
    return &stream;
}

/* The file that an input stands for, malloc'ed. */
static unsigned char *complete(const cv_stream *stream, size_t floats, const uint8_t *data,
                               size_t size, size_t *n)
{
    const unsigned flags = size ? data[0] : 0;
    const size_t given = size ? size - 1 : 0, whole = HEADER + floats * sizeof(float) + 8;
    *n = (flags & FILL) && given < whole ? whole : given;
    unsigned char *file = calloc(*n + 1, 1);
    check(file != NULL);
    if (given) memcpy(file, data + 1, given);
    const uint64_t fingerprint = stream->engine->model.fingerprint;
    if ((flags & FINGERPRINT) && *n >= HEADER)
        memcpy(file + FINGERPRINT_AT, &fingerprint, sizeof fingerprint);
    if ((flags & CHECKSUM) && *n >= HEADER) {
        const uint64_t sum = XXH3_64bits(file, *n - sizeof sum);
        memcpy(file + *n - sizeof sum, &sum, sizeof sum);
    }
    return file;
}

/* A file in memory, under a path. */
static int open_scratch(const unsigned char *bytes, size_t n, char path[32])
{
    const int fd = memfd_create("state", MFD_CLOEXEC);
    check(fd >= 0 && fd < 1000);
    for (size_t at = 0; at < n;) {
        const ssize_t put = write(fd, bytes + at, n - at);
        check(put > 0);
        at += (size_t)put;
    }
    memcpy(path, "/proc/self/fd/000", 18);
    path[14] = (char)('0' + fd / 100);
    path[15] = (char)('0' + fd / 10 % 10);
    path[16] = (char)('0' + fd % 10);
    char *digits = path + 14; /* the kernel knows no leading zeros */
    while (digits[0] == '0' && digits[1])
        memmove(digits, digits + 1, strlen(digits));
    return fd;
}

static void feed_one(cv_stream *stream)
{
    const int32_t token = 7;
    const uint64_t before = stream->position;
    cv_feed feed = { .stream = stream, .tokens = &token, .n = 1, .want = CV_WANT_NOTHING };
    check(cv_engine_feed(stream->engine, &feed, 1, NULL) == CORVID_OK);
    check(stream->position == before + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t floats, n;
    char path[32];
    corvid_error err = { CORVID_OK, "" };
    if (size > LARGEST) return 0;
    cv_stream *stream = the_stream(&floats);
    unsigned char *file = complete(stream, floats, data, size, &n);
    float *before = malloc(floats * sizeof *before);
    check(before != NULL);
    cv_stream_reset(stream);
    stream->position = 12;
    memcpy(before, stream->state, floats * sizeof *before);

    const int fd = open_scratch(file, n, path);
    const corvid_status status = cv_state_load(stream, path, &err);
    if (status == CORVID_OK) {
        feed_one(stream);
    } else {
        check(status == CORVID_E_FORMAT || status == CORVID_E_MISMATCH ||
              status == CORVID_E_MEMORY || status == CORVID_E_FILE);
        check(err.status == status && err.text[0] != '\0');
        check(stream->position == 12);
        check(memcmp(before, stream->state, floats * sizeof *before) == 0);
    }
    close(fd);
    free(before);
    free(file);
    return 0;
}
