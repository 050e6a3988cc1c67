/* test_hostile_idx.c - IDX files that are cut, forged or something else: a sentence with the
 * offset.
 *
 * With --write FOLDER it writes the fuzzer's first inputs instead. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "picture_sets.h"
#include "train/picture_data.h"
#include "train/picture_raw.h"

enum { N = 5, ROWS = 3, COLUMNS = 4, CLASSES = 2, HEAD = 16, LABEL_HEAD = 8 };

/* From an exact copy, so that reading past its end is found. */
static corvid_status parse(file_bytes file, size_t n, size_t dims, cv_idx *idx, corvid_error *err)
{
    unsigned char *copy = malloc(n > 0 ? n : 1);
    assert_non_null(copy);
    memcpy(copy, file.bytes, n);
    const corvid_status status = cv_idx_parse(copy, n, "hostile", dims, idx, err);
    free(copy);
    return status;
}

static void assert_refused(const char *what, file_bytes file, size_t n, size_t dims,
                           const char *says)
{
    cv_idx idx;
    corvid_error err = { .status = CORVID_OK };
    const corvid_status status = parse(file, n, dims, &idx, &err);
    if (status != CORVID_E_FORMAT || err.status != status || !strstr(err.text, says) ||
        strncmp(err.text, "hostile: ", 9) != 0)
        fail_msg("%s: status %d, wanted \"%s\" in \"%s\"", what, (int)status, says, err.text);
    assert_int_equal(idx.n, 0);
    assert_null(idx.data);
    assert_int_equal(parse(file, n, dims, &idx, NULL), CORVID_E_FORMAT);
}

static void good_files_are_read(void **state)
{
    (void)state;
    file_bytes images = idx_images(N, ROWS, COLUMNS), labels = idx_labels(N, CLASSES);
    cv_idx idx;
    corvid_error err;
    ASSERT_OK(parse(images, images.n, 3, &idx, &err), &err);
    assert_int_equal(idx.n, N);
    assert_int_equal(idx.rows, ROWS);
    assert_int_equal(idx.columns, COLUMNS);
    ASSERT_OK(cv_idx_parse(labels.bytes, labels.n, "x", 1, &idx, &err), &err);
    assert_int_equal(idx.n, N);
    assert_ptr_equal(idx.data, labels.bytes + LABEL_HEAD);
    free(images.bytes);
    free(labels.bytes);
    images = idx_images(0, 28, 28); /* a set of nothing is a set */
    ASSERT_OK(parse(images, images.n, 3, &idx, &err), &err);
    assert_int_equal(idx.n, 0);
    free(images.bytes);
}

static void every_other_length_is_refused(void **state)
{
    (void)state;
    file_bytes images = idx_images(N, ROWS, COLUMNS), labels = idx_labels(N, CLASSES);
    put(&images, "\0\0\0", 3);
    put(&labels, "\0\0\0", 3);
    for (size_t n = 0; n <= images.n; n++)
        if (n != images.n - 3)
            assert_refused("pictures", images, n, 3,
                           n < HEAD ? "expected the 16 bytes of an IDX file's head"
                                    : "says it has 5 of 3 x 4 bytes (offset 4)");
    for (size_t n = 0; n <= labels.n; n++)
        if (n != labels.n - 3)
            assert_refused("labels", labels, n, 1,
                           n < LABEL_HEAD ? "expected the 8 bytes" : "follow at offset 8");
    free(images.bytes);
    free(labels.bytes);
}

static void forgeries_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        size_t at;
        uint32_t value;
        const char *says;
    } cases[] = {
        { "labels for pictures", 0, 0x801, "begins with 00000801 (offset 0)" },
        { "other numbers", 0, 0xD03, "begins with 00000d03 (offset 0)" },
        { "four dimensions", 0, 0x804, "(offset 0)" },
        { "little-endian", 0, 0x03080000, "(offset 0)" },
        { "packed", 0, 0x1F8B0808, "(offset 0)" },
        { "one more", 4, N + 1, "(offset 4)" },
        { "most", 4, UINT32_MAX, "(offset 4)" },
        { "no rows", 8, 0, "0 x 4 pixels (offset 8)" },
        { "no columns", 12, 0, "3 x 0 pixels (offset 8)" },
        { "many rows", 8, 70000, "(offset 8)" },
        { "most columns", 12, UINT32_MAX, "(offset 8)" },
        { "other rows", 8, 4, "(offset 4)" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        file_bytes file = idx_images(N, ROWS, COLUMNS);
        for (size_t b = 0; b < 4; b++)
            file.bytes[cases[i].at + b] = (unsigned char)(cases[i].value >> (24 - 8 * b));
        assert_refused(cases[i].what, file, file.n, 3, cases[i].says);
        free(file.bytes);
    }
    /* 65536 x 65536 x 2^32 is 2^64: nothing at all, if it wrapped */
    file_bytes wraps = idx_images(0, 65536, 65536);
    memcpy(wraps.bytes + 4, "\xff\xff\xff\xff", 4);
    assert_refused("nearly 2^64", wraps, wraps.n, 3, "(offset 4)");
    free(wraps.bytes);
}

/* ---- in a folder ----------------------------------------------------------------------------- */

static void write_pair(const char *folder, file_bytes images, file_bytes labels)
{
    char path[1024];
    mkdir(folder, 0755);
    snprintf(path, sizeof path, "%s/train-images-idx3-ubyte", folder);
    test_write_file(path, images.bytes, images.n);
    snprintf(path, sizeof path, "%s/train-labels-idx1-ubyte", folder);
    test_write_file(path, labels.bytes, labels.n);
    free(images.bytes);
    free(labels.bytes);
}

static void folder_refused(const char *folder, corvid_status status, const char *says)
{
    const char *const paths[] = { folder };
    test_allocator a;
    cv_picture_data data;
    corvid_error err = { .status = CORVID_OK };
    test_allocator_init(&a);
    assert_int_equal(
        cv_picture_data_open(&a.api,
                             &(cv_picture_options){
                                 .paths = paths, .n_paths = 1, .side = 4, .memory_limit = 1 << 20 },
                             &data, &err),
        status);
    if (!strstr(err.text, says)) fail_msg("no \"%s\" in \"%s\"", says, err.text);
    assert_int_equal(a.live, 0);
    assert_true(a.peak_bytes < 10 << 20);
}

static void folders_that_do_not_fit_together(void **state)
{
    (void)state;
    const char *folder = test_scratch("idx");
    char path[1024];
    write_pair(folder, idx_images(N, ROWS, COLUMNS), idx_labels(N - 1, CLASSES));
    folder_refused(folder, CORVID_E_FORMAT, "has 5 pictures (offset 4), but there are 4 labels");
    write_pair(folder, idx_labels(N, CLASSES), idx_images(N, ROWS, COLUMNS));
    folder_refused(folder, CORVID_E_FORMAT, "begins with 00000801");
    write_pair(folder, idx_images(0, ROWS, COLUMNS), idx_labels(0, CLASSES));
    folder_refused(folder, CORVID_E_FORMAT, "has no pictures");
    write_pair(folder, idx_images(N, ROWS, COLUMNS), idx_labels(N, 1));
    folder_refused(folder, CORVID_E_ARGUMENT, "of one class");
    write_pair(folder, (file_bytes){ 0 }, idx_labels(N, CLASSES));
    folder_refused(folder, CORVID_E_FORMAT, "ends at byte 0");

    file_bytes bomb = { 0 }; /* 16 MiB of zeros in some 16 KiB */
    bomb.n = bomb.room = (size_t)16 << 20;
    bomb.bytes = calloc(bomb.n, 1);
    assert_non_null(bomb.bytes);
    const char *packed = test_scratch("bomb");
    mkdir(packed, 0755);
    snprintf(path, sizeof path, "%s/train-images-idx3-ubyte.gz", packed);
    write_gzip(path, bomb);
    folder_refused(packed, CORVID_E_FILE, "not its labels");
    snprintf(path, sizeof path, "%s/train-labels-idx1-ubyte.gz", packed);
    write_gzip(path, bomb);
    folder_refused(packed, CORVID_E_MEMORY, "1048576 bytes of memory that are allowed");
    free(bomb.bytes);
}

static void cut_gzip_is_refused(void **state)
{
    (void)state;
    const char *folder = test_scratch("cut");
    char images[1024], labels[1024];
    size_t n;
    file_bytes file = idx_images(100, 20, 20), digits = idx_labels(100, 10);
    mkdir(folder, 0755);
    snprintf(images, sizeof images, "%s/train-images-idx3-ubyte.gz", folder);
    snprintf(labels, sizeof labels, "%s/train-labels-idx1-ubyte.gz", folder);
    write_gzip(images, file);
    write_gzip(labels, digits);
    char *bytes = test_read_file(images, &n);
    test_write_file(images, bytes, n / 2);
    folder_refused(folder, CORVID_E_FORMAT, "train-images-idx3-ubyte.gz: cannot be unpacked");
    bytes[n - 6] = (char)(bytes[n - 6] ^ 1); /* its checksum */
    test_write_file(images, bytes, n);
    corvid_error err;
    cv_picture_data data;
    const char *const paths[] = { folder };
    const corvid_status status = cv_picture_data_open(
        &cv_libc_allocator, &(cv_picture_options){ .paths = paths, .n_paths = 1, .side = 4 }, &data,
        &err);
    /* libarchive may not look at it; then what it gives is what was packed */
    assert_true(status == CORVID_OK || status == CORVID_E_FORMAT);
    cv_picture_data_close(&data);
    free(bytes);
    free(file.bytes);
    free(digits.bytes);
}

/* ---- the fuzzer's corpus --------------------------------------------------------------------- */

static int write_corpus(const char *folder)
{
    const file_bytes images = idx_images(N, ROWS, COLUMNS), labels = idx_labels(N, CLASSES);
    const file_bytes files[] = { images,
                                 labels,
                                 idx_images(0, 28, 28),
                                 { images.bytes, images.n - 1, 0 },
                                 { images.bytes, 9, 0 } };
    static const char *const names[] = { "pictures", "labels", "none", "cut", "head" };
    for (size_t i = 0; i < 5; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        FILE *file = fopen(path, "wb");
        if (!file) return 1;
        fputc(i == 1 ? 1 : 3, file); /* dimensions */
        fwrite(files[i].bytes, 1, files[i].n, file);
        if (fclose(file) != 0) return 1;
    }
    free(files[2].bytes);
    free(images.bytes);
    free(labels.bytes);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files_are_read),   cmocka_unit_test(every_other_length_is_refused),
        cmocka_unit_test(forgeries_are_refused), cmocka_unit_test(folders_that_do_not_fit_together),
        cmocka_unit_test(cut_gzip_is_refused),
    };
    if (argc == 3 && strcmp(argv[1], "--write") == 0) return write_corpus(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
