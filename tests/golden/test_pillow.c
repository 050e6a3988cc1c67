/* test_pillow.c - our resize beside that of the Pillow that is installed here, over pictures made
 * up for the purpose.  Skipped where the system's Python or its Pillow is missing. */
#include "support.h"

#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "image/picture.h"

#ifndef CORVID_SOURCE_DIR
#define CORVID_SOURCE_DIR "."
#endif

#define PYTHON     "/usr/bin/python3"
#define PROGRAM    CORVID_SOURCE_DIR "/tests/support/pillow_resize.py"
#define NOT_THERE  77
#define MOST_BYTES ((size_t)64 << 20)

extern char **environ;

typedef struct sizes {
    size_t width, height, new_width, new_height;
} sizes;

/* Shapes that random sizes seldom have; the rest of the cases are drawn. */
static const sizes CHOSEN[] = {
    { 1, 1, 1, 1 },         { 1, 1, 64, 48 },       { 50, 40, 1, 1 },     { 1, 300, 7, 20 },
    { 300, 1, 20, 7 },      { 1, 2000, 256, 512 },  { 2000, 2, 2, 2000 }, { 3, 5000, 300, 2 },
    { 4000, 9, 16, 16 },    { 9, 4000, 16, 16 },    { 100, 80, 100, 33 }, { 100, 80, 41, 80 },
    { 100, 80, 100, 80 },   { 2, 2, 3, 3 },         { 3, 3, 2, 2 },       { 255, 257, 256, 256 },
    { 640, 480, 341, 256 }, { 333, 500, 256, 384 }, { 20000, 2, 3, 3 },   { 2, 20000, 3, 3 },
    { 1200, 900, 64, 48 },  { 64, 48, 600, 450 },   { 70001, 1, 2, 1 },   { 5, 7, 10, 14 },
};

enum { N_CHOSEN = sizeof CHOSEN / sizeof *CHOSEN, N_DRAWN = 24, N_CASES = N_CHOSEN + N_DRAWN };

/* Of very different lengths, all as likely. */
static size_t draw_side(cv_rng *rng)
{
    const size_t most = (size_t)1 << (2 + cv_rng_next(rng) % 9);
    return 1 + (size_t)(cv_rng_next(rng) >> 33) % most;
}

/* Noise, a slope, black and white stripes, or bright dots. */
static unsigned char painted(uint64_t kind, unsigned char random, size_t x, size_t y, size_t most)
{
    switch (kind) {
    case 0: return random;
    case 1: return (unsigned char)(255 * (x + y) / most);
    case 2: return (x / 3 + y / 5) % 2 ? 255 : 0;
    default: return random > 240 ? 255 : 3;
    }
}

static void paint(cv_rng *rng, const sizes *s, unsigned char *pixels)
{
    const uint64_t kind = cv_rng_next(rng) % 4;
    for (size_t i = 0; i < 3 * s->width * s->height; i++) {
        const size_t x = i / 3 % s->width, y = i / 3 / s->width;
        const unsigned char random = (unsigned char)(cv_rng_next(rng) >> 56);
        pixels[i] = painted(kind, random, x + i % 3, y, s->width + s->height + 2);
    }
}

static void put_sizes(unsigned char *to, const sizes *s)
{
    const size_t numbers[] = { s->width, s->height, s->new_width, s->new_height };
    for (size_t i = 0; i < 16; i++)
        to[i] = (unsigned char)(numbers[i / 4] >> (8 * (i % 4)));
}

/* Fills bytes with what the program reads; returns how many. */
static size_t make_cases(sizes *cases, unsigned char *bytes)
{
    cv_rng rng;
    size_t n = 0;
    cv_rng_seed(&rng, 94);
    for (size_t i = 0; i < N_CASES; i++) {
        sizes *s = &cases[i];
        if (i < N_CHOSEN)
            *s = CHOSEN[i];
        else
            *s = (sizes){ draw_side(&rng), draw_side(&rng), draw_side(&rng), draw_side(&rng) };
        assert_true(n + 16 + 3 * s->width * s->height <= MOST_BYTES);
        put_sizes(bytes + n, s);
        paint(&rng, s, bytes + n + 16);
        n += 16 + 3 * s->width * s->height;
    }
    return n;
}

/* The exit code of the program. */
static int run_pillow(const char *pictures, const char *results)
{
    char python[] = PYTHON, program[] = PROGRAM, from[1024], to[1024];
    char *const arguments[] = { python, program, from, to, NULL };
    pid_t child;
    int ended;
    assert_true(strlen(pictures) < sizeof from && strlen(results) < sizeof to);
    strcpy(from, pictures);
    strcpy(to, results);
    if (access(PYTHON, X_OK) != 0) return NOT_THERE;
    assert_int_equal(posix_spawn(&child, PYTHON, NULL, NULL, arguments, environ), 0);
    assert_int_equal(waitpid(child, &ended, 0), child);
    return WIFEXITED(ended) ? WEXITSTATUS(ended) : -1;
}

static int largest_difference(const sizes *s, unsigned char *pixels, const unsigned char *want)
{
    const cv_picture in = {
        .width = s->width, .height = s->height, .pixels = pixels, .orientation = 1
    };
    const cv_resize to = { s->new_width, s->new_height, 0, 0, s->new_width, s->new_height };
    cv_picture out;
    corvid_error err;
    int largest = 0;
    ASSERT_OK(cv_picture_resize(&cv_libc_allocator, &in, &to, &out, &err), &err);
    for (size_t i = 0; i < 3 * s->new_width * s->new_height; i++) {
        const int difference = abs(out.pixels[i] - want[i]);
        if (difference > largest) largest = difference;
    }
    cv_picture_free(&out);
    return largest;
}

static void same_as_pillow(void **state)
{
    (void)state;
    static sizes cases[N_CASES];
    unsigned char *bytes = malloc(MOST_BYTES);
    assert_non_null(bytes);
    const char *pictures = test_scratch("pictures"), *results = test_scratch("results");
    test_write_file(pictures, bytes, make_cases(cases, bytes));
    const int code = run_pillow(pictures, results);
    if (code == NOT_THERE) {
        print_message("SKIP: no Pillow for %s\n", PYTHON);
        free(bytes);
        skip();
    }
    assert_int_equal(code, 0);

    size_t n, read = 0, compared = 0;
    char *want = test_read_file(results, &n);
    int largest = 0;
    for (size_t i = 0; i < N_CASES; i++) {
        const sizes *s = &cases[i];
        const size_t count = 3 * s->new_width * s->new_height;
        assert_true(count <= n - compared);
        const int difference =
            largest_difference(s, bytes + read + 16, (unsigned char *)want + compared);
        if (difference)
            print_message("%zu x %zu to %zu x %zu differs by %d\n", s->width, s->height,
                          s->new_width, s->new_height, difference);
        if (difference > largest) largest = difference;
        read += 16 + 3 * s->width * s->height;
        compared += count;
    }
    print_message("%d pictures, %zu values, largest difference %d\n", (int)N_CASES, compared,
                  largest);
    assert_int_equal(compared, n);
    assert_int_equal(largest, 0);
    free(want);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(same_as_pillow) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
