/* test_picture_data.c - pictures are found, decoded, split and made into batches as the headers
 * say; the same batches from any form of the same data, on any number of threads, from any step. */
#include "support.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "picture_sets.h"
#include "train/picture_feed.h"
#include "train/picture_raw.h"

static const corvid_allocator *const mem = &cv_libc_allocator;

/* ---- helpers --------------------------------------------------------------------------------- */

static cv_picture_data open_with(const cv_picture_options *options)
{
    cv_picture_data data;
    corvid_error err;
    ASSERT_OK(cv_picture_data_open(mem, options, &data, &err), &err);
    return data;
}

static cv_picture_data open_path(const char *path, size_t side)
{
    const char *const paths[] = { path };
    return open_with(&(cv_picture_options){ .paths = paths, .n_paths = 1, .side = side });
}

static void refused(const cv_picture_options *options, corvid_status status, const char *says)
{
    test_allocator a;
    cv_picture_data data;
    corvid_error err = { .status = CORVID_OK };
    test_allocator_init(&a);
    const corvid_status got = cv_picture_data_open(&a.api, options, &data, &err);
    if (got != status || err.status != status || !strstr(err.text, says))
        fail_msg("status %d, expected %d with \"%s\": %s", (int)got, (int)status, says, err.text);
    assert_int_equal(a.live, 0);
    cv_picture_data_close(&data); /* nothing is left */
}

static void path_refused(const char *path, corvid_status status, const char *says)
{
    const char *const paths[] = { path };
    refused(&(cv_picture_options){ .paths = paths, .n_paths = 1, .side = 8 }, status, says);
}

static void assert_classes(const cv_picture_data *data, const char *const *names, size_t n)
{
    assert_int_equal(data->list.n_classes, n);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(data->list.classes[i], names[i]);
}

static cv_picture_set new_set(size_t n, size_t side)
{
    cv_picture_set set;
    corvid_error err;
    ASSERT_OK(cv_picture_set_new(mem, n, side, &set, &err), &err);
    return set;
}

static void assert_same_sets(const cv_picture_set *a, const cv_picture_set *b, size_t side)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->mixed, b->mixed);
    assert_memory_equal(a->values, b->values, a->n * 3 * side * side * sizeof(float));
    assert_memory_equal(a->targets, b->targets, a->n * sizeof(int32_t));
    assert_memory_equal(a->others, b->others, a->n * sizeof(int32_t));
    assert_memory_equal(a->share, b->share, a->n * sizeof(float));
}

/* Five pictures for training and three for validation, of three classes and many sizes. */
enum { N_FILES = 10, N_PICTURES = 8 };

static void small_set(set_file files[N_FILES])
{
    static const char *const paths[N_FILES] = {
        "set/train/dog/2.webp",   "set/test/cat/0.webp",   "set/train/cat/0.webp",
        "set/train/ant/1.WebP",   "set/train/dog/10.webp", "set/test/dog/0.webp",
        "set/train/cat/b/0.webp", "set/test/ant/0.webp",   "set/train/readme.txt",
        "set/train/cat/.x.webp",
    };
    for (size_t i = 0; i < N_FILES; i++) {
        files[i].path = paths[i];
        files[i].file = set_picture(9 + 2 * i, 20 - i, i);
    }
}

static void free_set(set_file *files, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(files[i].file.bytes);
}

/* ---- finding --------------------------------------------------------------------------------- */

static void folders_and_archives_are_alike(void **state)
{
    (void)state;
    static const char *const names[] = { "ant", "cat", "dog" };
    static const char *const forms[] = { "folder", "a.tar", "a.tar.gz", "a.zip", "a.TGZ" };
    set_file files[N_FILES];
    cv_picture_set want = new_set(6, 12), got = new_set(6, 12);
    const cv_augment how = cv_augment_imagenet();
    corvid_error err;
    small_set(files);
    for (size_t form = 0; form < 5; form++)
        for (int keep = 1; keep >= 0; keep--) { /* decoded once, or each time */
            const char *path = test_scratch(forms[form]);
            if (keep && form == 0) set_as_folder(path, files, N_FILES);
            if (keep && form > 0) set_as_archive(path, files, N_FILES);
            const char *const paths[] = { path };
            cv_picture_data data =
                open_with(&(cv_picture_options){ .paths = paths,
                                                 .n_paths = 1,
                                                 .side = 12,
                                                 .seed = 5,
                                                 .memory_limit = keep ? 0 : 5000 });
            assert_classes(&data, names, 3);
            assert_true((data.decoded != NULL) == (keep == 1));
            assert_int_equal(data.n_train, 5);
            assert_int_equal(data.n_validation, 3);
            assert_true(data.own_split);
            for (uint64_t step = 0; step < 4; step++) {
                cv_picture_set *set = form == 0 && keep && step == 3 ? &want : &got;
                ASSERT_OK(cv_picture_batch_fill(&data, &how, 6, step, set, &err), &err);
            }
            if (form > 0 || !keep) assert_same_sets(&want, &got, 12);
            cv_picture_data_close(&data);
            cv_picture_data_close(&data);
        }
    cv_picture_set_free(&want);
    cv_picture_set_free(&got);
    free_set(files, N_FILES);
}

/* Names, numbers and pixels of the samples, in their order. */
static void samples_are_sorted(void **state)
{
    (void)state;
    static const struct {
        size_t file;
        int32_t target;
        uint8_t part;
    } want[N_PICTURES] = {
        { 7, 0, CV_PART_VALIDATION }, { 3, 0, CV_PART_TRAIN }, { 2, 1, CV_PART_TRAIN },
        { 1, 1, CV_PART_VALIDATION }, { 6, 1, CV_PART_TRAIN }, { 5, 2, CV_PART_VALIDATION },
        { 4, 2, CV_PART_TRAIN },      { 0, 2, CV_PART_TRAIN },
    };
    set_file files[N_FILES];
    corvid_error err;
    small_set(files);
    const char *path = test_scratch("sorted");
    set_as_folder(path, files, N_FILES);
    cv_picture_data data = open_path(path, 12);
    assert_int_equal(data.list.n, N_PICTURES);
    for (size_t i = 0; i < N_PICTURES; i++) {
        cv_picture own, direct;
        const cv_picture *kept;
        const file_bytes *file = &files[want[i].file].file;
        assert_int_equal(data.list.of[i].target, want[i].target);
        assert_int_equal(data.list.of[i].part, want[i].part);
        assert_non_null(strstr(data.list.of[i].name, files[want[i].file].path));
        ASSERT_OK(cv_picture_data_get(&data, i, &own, &kept, &err), &err);
        ASSERT_OK(cv_picture_decode(mem, file->bytes, file->n, "x", 1 << 20, &direct, &err), &err);
        assert_int_equal(kept->width, direct.width);
        assert_memory_equal(kept->pixels, direct.pixels, 3 * direct.width * direct.height);
        cv_picture_free(&own);
        cv_picture_free(&direct);
    }
    cv_picture_data_close(&data);
    free_set(files, N_FILES);
}

static void write_some(const char *folder, const char *const *paths, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        set_file file = { paths[i], set_picture(8, 8, i) };
        set_as_folder(folder, &file, 1);
        free(file.file.bytes);
    }
}

static void folders_mean_what_the_header_says(void **state)
{
    (void)state;
    static const char *const val[] = { "train/b/1.webp", "train/a/1.webp", "val/a/1.webp",
                                       "test/a/1.webp", "extra/a/2.webp" };
    static const char *const no_test[] = { "train/b/1.webp", "train/a/1.webp", "more/a/1.webp" };
    static const char *const plain[] = { "b/1.webp", "a/deep/deeper/1.webp", "10/1.webp",
                                         "9/1.webp", "loose.webp",           "train/1.webp" };
    static const char *const plain_names[] = { "10", "9", "a", "b", "train" };
    const char *const folders[] = { test_scratch("val"), test_scratch("no_test"),
                                    test_scratch("plain") };
    write_some(folders[0], val, 5);
    cv_picture_data data = open_path(folders[0], 8);
    assert_int_equal(data.n_train, 2);
    assert_int_equal(data.n_validation, 1); /* of val; test is left alone */
    assert_int_equal(data.list.n_left_out, 2);
    cv_picture_data_close(&data);
    write_some(folders[1], no_test, 3);
    data = open_path(folders[1], 8);
    assert_false(data.own_split);
    assert_int_equal(data.n_train, 2);
    assert_int_equal(data.list.n_left_out, 1);
    cv_picture_data_close(&data);
    write_some(folders[2], plain, 6);
    data = open_path(folders[2], 8);
    assert_classes(&data, plain_names, 5);
    assert_int_equal(data.n_train, 5);
    cv_picture_data_close(&data);

    /* two sources: classes by their names */
    const char *const both[] = { folders[2], folders[1] };
    data = open_with(&(cv_picture_options){ .paths = both, .n_paths = 2, .side = 8 });
    assert_classes(&data, plain_names, 5);
    assert_int_equal(data.n_train, 7);
    assert_int_equal(data.list.of[5].target, 2);
    assert_int_equal(data.list.of[6].target, 3);
    cv_picture_data_close(&data);
}

/* In the plain locale too, which tests run in. */
static void letters_beyond_ascii(void **state)
{
    (void)state;
    static const char *const forms[] = { "letters.tar", "letters.zip" };
    set_file files[3] = { { "b/1.webp", set_picture(8, 8, 0) },
                          { "é/ü.webp", set_picture(8, 8, 1) },
                          { "語/1.webp", set_picture(8, 8, 2) } };
    static const char *const names[] = { "b", "é", "語" };
    for (size_t i = 0; i < 2; i++) {
        locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0); /* to write them */
        assert_non_null(utf8);
        const locale_t before = uselocale(utf8);
        set_as_archive(test_scratch(forms[i]), files, 3);
        uselocale(before);
        freelocale(utf8);
        cv_picture_data data = open_path(test_scratch(forms[i]), 8);
        assert_classes(&data, names, 3);
        assert_ptr_equal(uselocale((locale_t)0), before);
        cv_picture_data_close(&data);
    }
    free_set(files, 3);
}

static void what_is_no_data_is_refused(void **state)
{
    (void)state;
    static const char *const one[] = { "a/1.webp", "a/2.webp" };
    static const char *const only[] = { "train/a/1.webp", "train/b/1.webp", "val/images/1.webp" };
    static const char *const flat[] = { "1.webp", "2.webp" };
    const char *const empty = test_scratch("empty"), *const text = test_scratch("a.txt");
    mkdir(empty, 0755);
    path_refused(empty, CORVID_E_FORMAT, "no pictures in folders of classes");
    path_refused(test_scratch("nowhere"), CORVID_E_FILE, "nowhere: cannot be read: No such file");
    write_some(test_scratch("flat"), flat, 2);
    path_refused(test_scratch("flat"), CORVID_E_FORMAT, "no pictures in folders of classes");
    write_some(test_scratch("one"), one, 2);
    path_refused(test_scratch("one"), CORVID_E_ARGUMENT, "all pictures are of one class (a)");
    write_some(test_scratch("only"), only, 3);
    path_refused(test_scratch("only"), CORVID_E_ARGUMENT, "of the class \"images\" that no");
    test_write_file(text, "x", 1);
    path_refused(text, CORVID_E_FORMAT, "is no source of pictures");
    path_refused(NULL, CORVID_E_ARGUMENT, "without a path");
    refused(&(cv_picture_options){ .side = 8 }, CORVID_E_ARGUMENT, "no pictures were given");
    const char *const paths[] = { test_scratch("only") };
    cv_picture_options options = { .paths = paths, .n_paths = 1, .side = 0 };
    refused(&options, CORVID_E_ARGUMENT, "expected sides of 1");
    options.side = 8;
    options.validation = 0.95;
    refused(&options, CORVID_E_ARGUMENT, "expected 0 to 0.9");
}

static void damaged_archives_are_refused(void **state)
{
    (void)state;
    static const char *const forms[] = { "cut.tar.gz", "cut.zip", "cut.tar" };
    set_file files[N_FILES];
    small_set(files);
    for (size_t i = 0; i < 3; i++) {
        const char *path = test_scratch(forms[i]);
        size_t n;
        set_as_archive(path, files, N_FILES);
        char *bytes = test_read_file(path, &n);
        test_write_file(path, bytes, i == 2 ? 3000 : n / 2);
        path_refused(path, CORVID_E_FORMAT, "cannot be unpacked, at about byte");
        test_write_file(path, "rubbish that is no archive", 26);
        path_refused(path, CORVID_E_FORMAT, "cannot be unpacked");
        free(bytes);
    }
    const char *path = test_scratch("large.tar.gz");
    const char *const paths[] = { path };
    set_as_archive(path, files, N_FILES);
    refused(&(cv_picture_options){ .paths = paths, .n_paths = 1, .side = 8, .memory_limit = 200 },
            CORVID_E_MEMORY, "unpack it into a folder");
    free_set(files, N_FILES);
}

/* ---- pictures that cannot be decoded --------------------------------------------------------- */

static void spoil(const char *folder, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    test_write_file(path, "\x89PNG and then nothing", 21);
}

static void bad_pictures(void **state)
{
    (void)state;
    set_file files[N_FILES];
    corvid_error err;
    small_set(files);
    const char *const paths[] = { test_scratch("bad") };
    set_as_folder(paths[0], files, N_FILES);
    spoil(paths[0], "set/train/cat/0.webp");
    spoil(paths[0], "set/test/dog/0.webp");
    cv_picture_options options = { .paths = paths, .n_paths = 1, .side = 8 };
    refused(&options, CORVID_E_FORMAT, "bad/set/train/cat/0.webp: ");
    options.skip_bad = true;
    cv_picture_data data = open_with(&options);
    assert_int_equal(data.n_bad, 2);
    assert_int_equal(data.n_train, 4);
    assert_int_equal(data.n_validation, 2);
    cv_picture_data_close(&data);

    /* decoded when used: found then, and replaced by another */
    options.memory_limit = 3000;
    data = open_with(&options);
    assert_null(data.decoded);
    assert_int_equal(data.n_train, 5);
    cv_picture_set set = new_set(10, 8);
    const cv_augment how = cv_augment_small();
    ASSERT_OK(cv_picture_batch_fill(&data, &how, 10, 0, &set, &err), &err);
    assert_int_equal(set.n, 10);
    assert_int_equal(set.n_bad, 2); /* two epochs */
    ASSERT_OK(cv_picture_validation_fill(&data, 0, 10, &set, &err), &err);
    assert_int_equal(set.n, 2);
    assert_int_equal(set.n_bad, 1);
    assert_int_equal(set.targets[0], 0);
    assert_int_equal(set.targets[1], 1);
    cv_picture_data_close(&data);

    options.skip_bad = false;
    options.memory_limit = 100; /* less than the files: nothing is decoded now */
    data = open_with(&options);
    assert_int_equal(cv_picture_validation_fill(&data, 0, 10, &set, &err), CORVID_E_FORMAT);
    assert_non_null(strstr(err.text, "bad/set/test/dog/0.webp: "));
    cv_picture_feed *feed; /* the same error each time */
    ASSERT_OK(
        cv_picture_feed_open(&data, &(cv_feed_options){ .batch = 5, .threads = 3 }, &feed, &err),
        &err);
    for (int i = 0; i < 3; i++) {
        const cv_picture_set *got;
        err.text[0] = '\0';
        assert_int_equal(cv_picture_feed_next(feed, &got, &err), CORVID_E_FORMAT);
        assert_non_null(strstr(err.text, "bad/set/test/dog/0.webp: "));
        assert_int_equal(got->n, 0);
    }
    cv_picture_feed_close(feed);
    cv_picture_data_close(&data);
    cv_picture_set_free(&set);
    free_set(files, N_FILES);
}

static void turned_by_exif(void **state)
{
    (void)state;
    const char *const paths[] = { test_scratch("exif") };
    set_file files[2] = {
        { "a/1.jpg", jpeg_with_exif(smooth_jpeg(24, 16, TJSAMP_444, 0), exif_block(true, 6)) },
        { "b/1.jpg", smooth_jpeg(24, 16, TJSAMP_444, 0) },
    };
    set_as_folder(paths[0], files, 2);
    for (int as_stored = 0; as_stored < 2; as_stored++) {
        cv_picture_data data = open_with(&(cv_picture_options){
            .paths = paths, .n_paths = 1, .side = 8, .as_stored = as_stored == 1 });
        assert_int_equal(data.decoded[0].width, as_stored ? 24 : 16);
        assert_int_equal(data.decoded[1].width, 24);
        const unsigned char *stored = data.decoded[1].pixels;
        if (!as_stored) /* a quarter to the right: the top left was the bottom left */
            assert_memory_equal(data.decoded[0].pixels, stored + 3 * 24 * 15, 3);
        cv_picture_data_close(&data);
    }
    free_set(files, 2);
}

/* ---- raw files ------------------------------------------------------------------------------- */

static void write_idx(const char *folder, const char *part, size_t n, size_t n_classes, bool packed)
{
    char path[1024];
    const file_bytes files[2] = { idx_images(n, 6, 4), idx_labels(n, n_classes) };
    mkdir(folder, 0755);
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s-%s-ubyte%s", folder, part,
                 i == 0 ? "images-idx3" : "labels-idx1", packed ? ".gz" : "");
        if (packed)
            write_gzip(path, files[i]);
        else
            test_write_file(path, files[i].bytes, files[i].n);
        free(files[i].bytes);
    }
}

static void idx_files(void **state)
{
    (void)state;
    static const char *const digits[] = { "0", "1", "2", "3", "4",  "5",
                                          "6", "7", "8", "9", "10", "11" };
    for (int packed = 0; packed < 2; packed++) {
        const char *folder = test_scratch(packed ? "idx-gz" : "idx");
        write_idx(folder, "train", 100, 12, packed == 1);
        cv_picture_data data = open_path(folder, 6);
        assert_false(data.own_split);
        cv_picture_data_close(&data);
        write_idx(folder, "t10k", 30, 12, packed == 1);
        data = open_path(folder, 6);
        assert_classes(&data, digits, 12);
        assert_int_equal(data.n_train, 100);
        assert_int_equal(data.n_validation, 30);
        for (size_t i = 0; i < 130; i++) {
            const size_t k = i < 100 ? i : i - 100;
            cv_picture own;
            const cv_picture *p;
            corvid_error err;
            ASSERT_OK(cv_picture_data_get(&data, i, &own, &p, &err), &err);
            assert_int_equal(p->width, 4);
            assert_int_equal(p->height, 6);
            for (size_t b = 0; b < 72; b++)
                assert_int_equal(p->pixels[b], (k + b / 3) & 255);
            assert_int_equal(data.list.of[i].target, k % 12);
            cv_picture_free(&own);
        }
        cv_picture_data_close(&data);
    }
    write_idx(test_scratch("two"), "letters-train", 10, 2, false);
    write_idx(test_scratch("two"), "digits-train", 10, 2, false);
    path_refused(test_scratch("two"), CORVID_E_ARGUMENT, "several sets of IDX files");
    write_idx(test_scratch("prefix"), "letters-train", 10, 2, false);
    write_idx(test_scratch("prefix"), "letters-test", 4, 2, true);
    cv_picture_data data = open_path(test_scratch("prefix"), 6);
    assert_int_equal(data.n_train, 10);
    assert_int_equal(data.n_validation, 4);
    cv_picture_data_close(&data);
}

static void write_cifar(const char *folder, bool hundred)
{
    static const char *const ten[] = { "data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                       "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin" };
    static const char *const two[] = { "train.bin", "test.bin" };
    char path[1024];
    mkdir(folder, 0755);
    snprintf(path, sizeof path, "%s/%s", folder,
             hundred ? "fine_label_names.txt" : "batches.meta.txt");
    test_write_file(path, "zebra\r\nape\n\n", 12);
    for (size_t k = 0; k < (hundred ? 2u : 6u); k++) {
        file_bytes file = { 0 };
        for (size_t i = 0; i < 2; i++) {
            if (hundred) put_big(&file, 77, 1);
            put_big(&file, (uint32_t)(i + k) % 2, 1);
            for (size_t p = 0; p < 3072; p++)
                put_big(&file, (uint32_t)(k * 10 + i + p * 7) & 255, 1);
        }
        snprintf(path, sizeof path, "%s/%s", folder, hundred ? two[k] : ten[k]);
        test_write_file(path, file.bytes, file.n);
        free(file.bytes);
    }
}

static void cifar_files(void **state)
{
    (void)state;
    static const char *const names[] = { "zebra", "ape" }; /* in the order of their numbers */
    for (int hundred = 0; hundred < 2; hundred++) {
        const char *folder = test_scratch(hundred ? "cifar100" : "cifar10");
        write_cifar(folder, hundred == 1);
        cv_picture_data data = open_path(folder, 32);
        assert_classes(&data, names, 2);
        assert_int_equal(data.n_train, hundred ? 2 : 10);
        assert_int_equal(data.n_validation, 2);
        for (size_t i = 0; i < data.list.n; i++) {
            cv_picture own;
            const cv_picture *p;
            corvid_error err;
            ASSERT_OK(cv_picture_data_get(&data, i, &own, &p, &err), &err);
            for (size_t b = 0; b < 3072; b++)
                assert_int_equal(p->pixels[b],
                                 (i / 2 * 10 + i % 2 + (b % 3 * 1024 + b / 3) * 7) & 255);
            assert_int_equal(data.list.of[i].target, (i % 2 + i / 2) % 2);
            cv_picture_free(&own);
        }
        cv_picture_data_close(&data);
    }
    char path[1024];
    snprintf(path, sizeof path, "%s/train.bin", test_scratch("cifar100"));
    size_t n;
    char *bytes = test_read_file(path, &n);
    bytes[3074 + 1] = 2;
    test_write_file(path, bytes, n);
    path_refused(test_scratch("cifar100"), CORVID_E_FORMAT, "has the class 2 at offset 3075");
    test_write_file(path, bytes, n - 1);
    path_refused(test_scratch("cifar100"), CORVID_E_FORMAT, "expected pictures of 3074 each");
    free(bytes);
}

/* ---- the split, the order -------------------------------------------------------------------- */

static void validation_by_hash(void **state)
{
    (void)state;
    const char *folder = test_scratch("split"), *more = test_scratch("split-more");
    write_idx(folder, "train", 2000, 5, false);
    write_idx(more, "train", 3000, 5, false);
    cv_picture_data a, b;
    const char *const first[] = { folder }, *const second[] = { more };
    a = open_with(&(cv_picture_options){
        .paths = first, .n_paths = 1, .side = 6, .validation = 0.2, .seed = 1 });
    b = open_with(&(cv_picture_options){
        .paths = second, .n_paths = 1, .side = 6, .validation = 0.2, .seed = 2 });
    assert_true(a.n_validation > 330 && a.n_validation < 470);
    assert_int_equal(a.n_train + a.n_validation, 2000);
    /* More pictures, another seed: what was for validation still is. */
    assert_true(b.n_validation > a.n_validation);
    assert_memory_equal(a.order + a.n_train, b.order + b.n_train, a.n_validation * 4);
    static unsigned char seen[2000];
    memset(seen, 0, sizeof seen);
    for (size_t i = 0; i < 2000; i++)
        seen[a.order[i]]++;
    for (size_t i = 0; i < 2000; i++)
        assert_int_equal(seen[i], 1);
    cv_picture_data_close(&a);
    cv_picture_data_close(&b);
}

static void shuffling_is_a_permutation(void **state)
{
    (void)state;
    static unsigned char seen[5000];
    for (uint64_t n = 1; n <= 5000; n += n < 70 ? 1 : 493)
        for (uint64_t key = 0; key < 3; key++) {
            memset(seen, 0, sizeof seen);
            for (uint64_t i = 0; i < n; i++) {
                const uint64_t to = cv_shuffled(i, n, key);
                assert_true(to < n);
                assert_int_equal(seen[to]++, 0);
            }
        }
    /* Each of 8 comes to each place about as often. */
    size_t at[8][8] = { { 0 } };
    for (uint64_t key = 0; key < 8000; key++)
        for (uint64_t i = 0; i < 8; i++)
            at[i][cv_shuffled(i, 8, cv_augment_key(9, key, 0))]++;
    for (size_t i = 0; i < 64; i++)
        assert_true(at[i / 8][i % 8] > 850 && at[i / 8][i % 8] < 1150);
}

/* A picture's first pixel is its number: 100 pictures, 7 at a time. */
static void epochs_hold_each_picture_once(void **state)
{
    (void)state;
    const char *const paths[] = { test_scratch("epochs") };
    const cv_normalise plain = { .std = { 1.0, 1.0, 1.0 } };
    const cv_augment nothing = { .crop = CV_CROP_MIDDLE };
    corvid_error err;
    write_idx(paths[0], "train", 100, 5, false);
    cv_picture_data data = open_with(
        &(cv_picture_options){ .paths = paths, .n_paths = 1, .side = 4, .normalise = &plain });
    cv_picture_set set = new_set(7, 4);
    size_t seen[100] = { 0 }, last[100], moved = 0;
    for (size_t at = 0; at < 700; at++) {
        if (at % 7 == 0)
            ASSERT_OK(cv_picture_batch_fill(&data, &nothing, 7, at / 7, &set, &err), &err);
        const float v = set.values[at % 7 * 48]; /* 6 x 4: the middle begins in row 1 */
        const size_t number = (size_t)v - 4;
        assert_true(number < 100);
        assert_int_equal(set.targets[at % 7], number % 5);
        assert_false(set.mixed);
        assert_int_equal(seen[number]++, at / 100);
        moved += at >= 100 && last[number] != at % 100;
        last[number] = at % 100;
    }
    assert_true(moved > 570); /* another order in each epoch */
    cv_picture_set_free(&set);
    cv_picture_data_close(&data);
}

/* ---- numbers --------------------------------------------------------------------------------- */

static void mean_and_deviation_of_the_data(void **state)
{
    (void)state;
    set_file files[N_FILES];
    small_set(files);
    const char *const paths[] = { test_scratch("moments") };
    set_as_folder(paths[0], files, N_FILES);
    double mean[3] = { 0.0 }, variance[3] = { 0.0 }, n = 0.0;
    cv_team *team;
    corvid_error err;
    ASSERT_OK(cv_team_new(mem, 3, &team, &err), &err);
    for (int round = 0; round < 2; round++) {
        cv_picture_data data =
            open_with(&(cv_picture_options){ .paths = paths,
                                             .n_paths = 1,
                                             .side = 8,
                                             .normalise_from_data = true,
                                             .memory_limit = round == 0 ? 0 : 5000,
                                             .team = round == 0 ? team : NULL });
        for (size_t i = 0; i < data.n_train && round == 0; i++)
            n += (double)(data.decoded[data.order[i]].width * data.decoded[data.order[i]].height);
        for (int pass = 0; pass < 2 && round == 0; pass++)
            for (size_t i = 0; i < data.n_train; i++) {
                const cv_picture *p = &data.decoded[data.order[i]];
                for (size_t b = 0; b < 3 * p->width * p->height; b++) {
                    const double v = p->pixels[b], d = v - mean[b % 3];
                    if (pass == 0) mean[b % 3] += v / n;
                    if (pass == 1) variance[b % 3] += d * d / n;
                }
            }
        for (size_t c = 0; c < 3; c++) {
            assert_true(fabs(data.mean[c] - mean[c]) < 1e-6);
            assert_true(fabs(data.std[c] - sqrt(variance[c])) < 1e-6);
        }
        assert_true(fabs((double)data.table[1][200] - (200.0 - mean[1]) / sqrt(variance[1])) <
                    1e-5);
        cv_picture_data_close(&data);
    }
    cv_team_free(team);
    free_set(files, N_FILES);
}

/* A picture of the model's size: its pixels less ImageNet's means, over its deviations. */
static void validation_values(void **state)
{
    (void)state;
    const char *folder = test_scratch("values");
    corvid_error err;
    write_cifar(folder, false);
    cv_picture_data data = open_path(folder, 32);
    cv_picture_set set = new_set(4, 32);
    ASSERT_OK(cv_picture_validation_fill(&data, 1, 4, &set, &err), &err);
    assert_int_equal(set.n, 1);
    assert_false(set.mixed);
    static const double mean[] = { 123.675, 116.28, 103.53 }, std[] = { 58.395, 57.12, 57.375 };
    for (size_t p = 0; p < 3072; p++) {
        const double v = (double)((50 + 1 + p * 7) & 255);
        const double want = (v - mean[p / 1024]) / std[p / 1024];
        assert_true(fabs((double)set.values[p] - want) < 1e-5);
    }
    ASSERT_OK(cv_picture_validation_fill(&data, 2, 4, &set, &err), &err);
    assert_int_equal(set.n, 0);
    cv_picture_set_free(&set);
    cv_picture_data_close(&data);
}

static void mixed_batches(void **state)
{
    (void)state;
    const char *folder = test_scratch("mixed");
    corvid_error err;
    write_idx(folder, "train", 50, 50, false);
    cv_picture_data data = open_path(folder, 4);
    cv_picture_set plain = new_set(5, 4), set = new_set(5, 4);
    cv_augment how = { .crop = CV_CROP_MIDDLE };
    for (uint64_t step = 0; step < 50; step++) {
        how.mixup = 0.0;
        ASSERT_OK(cv_picture_batch_fill(&data, &how, 5, step, &plain, &err), &err);
        how.mixup = how.mixup_alpha = 1.0;
        ASSERT_OK(cv_picture_batch_fill(&data, &how, 5, step, &set, &err), &err);
        assert_true(set.mixed);
        for (size_t j = 0; j < 5; j++) {
            const double share = (double)set.share[j];
            assert_int_equal(set.targets[j], plain.targets[j]);
            assert_int_equal(set.others[j], plain.targets[4 - j]);
            for (size_t i = 0; i < 48; i++)
                assert_true(fabs((double)set.values[j * 48 + i] -
                                 share * (double)plain.values[j * 48 + i] -
                                 (1.0 - share) * (double)plain.values[(4 - j) * 48 + i]) < 1e-5);
        }
    }
    cv_picture_set_free(&plain);
    cv_picture_set_free(&set);
    cv_picture_data_close(&data);
}

/* ---- in the background ----------------------------------------------------------------------- */

static void feeds_give_the_same_batches(void **state)
{
    (void)state;
    enum { BATCH = 9, STEPS = 12, SIDE = 16 };
    const char *folder = test_scratch("feed");
    cv_augment how = cv_augment_imagenet();
    corvid_error err;
    cv_picture_set want[STEPS];
    write_idx(folder, "train", 64, 8, false);
    cv_picture_data data = open_path(folder, SIDE);
    for (uint64_t step = 0; step < STEPS; step++) {
        want[step] = new_set(BATCH, SIDE);
        ASSERT_OK(cv_picture_batch_fill(&data, &how, BATCH, step, &want[step], &err), &err);
    }
    assert_memory_not_equal(want[0].values, want[1].values, 1000);
    static const size_t threads[] = { 0, 1, 2, 5, 16 }, rings[] = { 0, 2, 4, 3, 16 };
    for (size_t k = 0; k < 5; k++)
        for (uint64_t first = 0; first < STEPS; first += 7) { /* also from the middle */
            cv_picture_feed *feed;
            const cv_feed_options options = { .batch = BATCH,
                                              .step = first,
                                              .augment = &how,
                                              .threads = threads[k],
                                              .ring = rings[k] };
            ASSERT_OK(cv_picture_feed_open(&data, &options, &feed, &err), &err);
            for (uint64_t step = first; step < STEPS; step++) {
                const cv_picture_set *got;
                ASSERT_OK(cv_picture_feed_next(feed, &got, &err), &err);
                assert_same_sets(&want[step], got, SIDE);
            }
            cv_picture_feed_close(feed);
        }
    for (size_t i = 0; i < STEPS; i++)
        cv_picture_set_free(&want[i]);
    cv_picture_data_close(&data);
}

static void validation_feeds_end(void **state)
{
    (void)state;
    const char *folder = test_scratch("feed-end");
    corvid_error err;
    write_idx(folder, "train", 20, 5, false);
    write_idx(folder, "t10k", 23, 5, false);
    cv_picture_data data = open_path(folder, 6);
    for (size_t batch = 1; batch < 30; batch += 5)
        for (size_t threads = 1; threads < 4; threads++) {
            cv_picture_feed *feed;
            const cv_picture_set *got;
            size_t n = 0;
            ASSERT_OK(cv_picture_feed_open(&data,
                                           &(cv_feed_options){ .batch = batch, .threads = threads },
                                           &feed, &err),
                      &err);
            for (;;) {
                ASSERT_OK(cv_picture_feed_next(feed, &got, &err), &err);
                if (got->n == 0) break;
                for (size_t j = 0; j < got->n; j++)
                    assert_int_equal(got->targets[j], n++ % 5);
            }
            assert_int_equal(n, 23);
            ASSERT_OK(cv_picture_feed_next(feed, &got, &err), &err);
            assert_int_equal(got->n, 0);
            cv_picture_feed_close(feed);
        }
    cv_picture_data_close(&data);
}

static void feeds_stop_at_any_time(void **state)
{
    (void)state;
    const char *folder = test_scratch("feed-stop");
    const cv_augment how = cv_augment_imagenet();
    corvid_error err;
    write_idx(folder, "train", 64, 8, false);
    cv_picture_data data = open_path(folder, 24);
    for (size_t i = 0; i < 60; i++) {
        cv_picture_feed *feed;
        const cv_picture_set *got;
        const cv_feed_options options = { .batch = 8, .augment = &how, .threads = 1 + i % 4 };
        ASSERT_OK(cv_picture_feed_open(&data, &options, &feed, &err), &err);
        for (size_t k = 0; k < i % 5; k++)
            ASSERT_OK(cv_picture_feed_next(feed, &got, &err), &err);
        const struct timespec moment = { .tv_nsec = (long)(i * 37 % 20) * 100000 };
        nanosleep(&moment, NULL);
        cv_picture_feed_close(feed);
    }
    cv_picture_feed_close(NULL);
    static const cv_feed_options wrong[] = { { .batch = 0 },
                                             { .batch = 1, .threads = 17 },
                                             { .batch = 1, .ring = 1 },
                                             { .batch = 1, .ring = 17 } };
    for (size_t i = 0; i < 4; i++) {
        cv_picture_feed *feed;
        assert_int_equal(cv_picture_feed_open(&data, &wrong[i], &feed, &err), CORVID_E_ARGUMENT);
        assert_null(feed);
    }
    cv_picture_data_close(&data);
}

/* ---- trouble --------------------------------------------------------------------------------- */

static int stop_at_once(void *ctx)
{
    return ++*(int *)ctx > 6;
}

static void cancelling(void **state)
{
    (void)state;
    set_file files[N_FILES];
    int calls = 0;
    small_set(files);
    const char *const paths[] = { test_scratch("cancel") };
    set_as_folder(paths[0], files, N_FILES);
    cv_picture_options options = {
        .paths = paths, .n_paths = 1, .side = 8, .cancel = stop_at_once, .ctx = &calls
    };
    refused(&options, CORVID_E_CANCELLED, "cancelled");
    calls = -4; /* through the folders, and then stopped while decoding */
    refused(&options, CORVID_E_CANCELLED, "cancelled");
    free_set(files, N_FILES);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    static const char *const forms[] = { "oom", "oom.tar.gz", "oom-idx" };
    set_file files[N_FILES];
    const cv_augment how = cv_augment_small();
    small_set(files);
    set_as_folder(test_scratch(forms[0]), files, N_FILES);
    set_as_archive(test_scratch(forms[1]), files, N_FILES);
    write_idx(test_scratch(forms[2]), "train", 8, 2, true);
    for (size_t form = 0; form < 3; form++)
        for (size_t fail_at = 1;; fail_at++) {
            const char *const paths[] = { test_scratch(forms[form]) };
            const cv_picture_options options = {
                .paths = paths, .n_paths = 1, .side = 8, .normalise_from_data = true
            };
            test_allocator a;
            cv_picture_data data;
            cv_picture_feed *feed = NULL;
            corvid_error err;
            test_allocator_init(&a);
            a.fail_at = fail_at;
            corvid_status status = cv_picture_data_open(&a.api, &options, &data, &err);
            if (status == CORVID_OK) {
                const cv_feed_options wanted = { .batch = 3, .augment = &how };
                const cv_picture_set *got;
                status = cv_picture_feed_open(&data, &wanted, &feed, &err);
                if (status == CORVID_OK) status = cv_picture_feed_next(feed, &got, &err);
                cv_picture_feed_close(feed);
                cv_picture_data_close(&data);
            }
            assert_int_equal(a.live, 0);
            if (a.calls < fail_at) break;
            if (status != CORVID_OK) assert_int_equal(status, CORVID_E_MEMORY);
        }
    free_set(files, N_FILES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_and_archives_are_alike),
        cmocka_unit_test(samples_are_sorted),
        cmocka_unit_test(folders_mean_what_the_header_says),
        cmocka_unit_test(letters_beyond_ascii),
        cmocka_unit_test(what_is_no_data_is_refused),
        cmocka_unit_test(damaged_archives_are_refused),
        cmocka_unit_test(bad_pictures),
        cmocka_unit_test(turned_by_exif),
        cmocka_unit_test(idx_files),
        cmocka_unit_test(cifar_files),
        cmocka_unit_test(validation_by_hash),
        cmocka_unit_test(shuffling_is_a_permutation),
        cmocka_unit_test(epochs_hold_each_picture_once),
        cmocka_unit_test(mean_and_deviation_of_the_data),
        cmocka_unit_test(validation_values),
        cmocka_unit_test(mixed_batches),
        cmocka_unit_test(feeds_give_the_same_batches),
        cmocka_unit_test(validation_feeds_end),
        cmocka_unit_test(feeds_stop_at_any_time),
        cmocka_unit_test(cancelling),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
