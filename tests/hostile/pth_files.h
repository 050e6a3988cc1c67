/* pth_files.h - what the hostile PyTorch checkpoints have in common: a good one to start from. */
#ifndef TEST_PTH_FILES_H
#define TEST_PTH_FILES_H

#include "pth_fixture.h"
#include "refusal.h"

static const float four[] = { 1, 2, 3, 4 };

/* A file under test; bytes are malloc'ed. */
typedef struct file {
    unsigned char *bytes;
    size_t n;
} file;

typedef struct built_file {
    const char *name;
    file (*make)(void);
    const char *needle;
} built_file;

#define RAW(bytes)   bytes, sizeof(bytes) - 1
#define P2           "\x80\x02"        /* protocol 2  */
#define KEY0         "X\x01\0\0\0\x30" /* the text 0  */
#define COUNT(table) (sizeof(table) / sizeof(table)[0])

/* An archive with this pickle, which is freed, and storage 0 of four floats. */
static inline file archive_of(pth_bytes *pickle)
{
    file f;
    f.bytes = pth_zip_of(pickle, four, sizeof four, &f.n);
    free(pickle->at);
    return f;
}

/* The call that makes the tensor of storage 0. */
static inline void put_four(pth_bytes *b, bool legacy)
{
    const int64_t sizes[] = { 4 }, strides[] = { 1 };
    pth_tensor(b, "FloatStorage", "0", 4, 0, sizes, strides, 1, legacy);
}

/* {"w": the tensor} */
static inline pth_bytes good_pickle(bool legacy)
{
    pth_bytes b = { 0 };
    pth_op(&b, "\x80\x02}");
    pth_text(&b, "w");
    put_four(&b, legacy);
    pth_op(&b, "s.");
    return b;
}

static inline void check_all_refused(const built_file *files, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        file f = files[i].make();
        check_refused(files[i].name, f.bytes, f.n, files[i].needle);
        free(f.bytes);
    }
}

/* Whatever the status is, it must come from an exact copy of the bytes, and leave nothing. */
static inline corvid_status parse_copy(const void *bytes, size_t n)
{
    void *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    if (n) memcpy(copy, bytes, n);
    corvid_status status = parse_watched(copy, n, 0, 0).status;
    free(copy);
    return status;
}

#define CORPUS_FILE ((size_t)8 << 10) /* larger ones are not worth a place */

static inline void write_all(const char *folder, const built_file *files, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        file f = files[i].make();
        if (f.n <= CORPUS_FILE) write_case(folder, files[i].name, f.bytes, f.n);
        free(f.bytes);
    }
}

#endif
