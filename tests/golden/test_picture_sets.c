/* test_picture_sets.c - CIFAR-10 and MNIST as they are published: counts, classes, pixels. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <archive.h>
#include <archive_entry.h>
#include <turbojpeg.h>

#include "base/cpu.h"
#include "train/picture_feed.h"

static const corvid_allocator *const mem = &cv_libc_allocator;

/* ---- MD5 (RFC 1321), which the data's README gives ------------------------------------------- */

static uint32_t md5_round(const uint32_t s[4], size_t i, const uint32_t word[16])
{
    static const unsigned shifts[4][4] = {
        { 7, 12, 17, 22 }, { 5, 9, 14, 20 }, { 4, 11, 16, 23 }, { 6, 10, 15, 21 }
    };
    static const size_t factor[4] = { 1, 5, 3, 7 }, offset[4] = { 0, 1, 5, 0 };
    const uint32_t b = s[1], c = s[2], d = s[3];
    const uint32_t mixes[4] = { (b & c) | (~b & d), (d & b) | (~d & c), b ^ c ^ d, c ^ (b | ~d) };
    const size_t r = i / 16;
    const uint32_t k = (uint32_t)floor(fabs(sin((double)(i + 1))) * 4294967296.0);
    const uint32_t sum = s[0] + mixes[r] + k + word[(factor[r] * i + offset[r]) % 16];
    const unsigned shift = shifts[r][i % 4];
    return b + (sum << shift | sum >> (32 - shift));
}

static void md5_block(uint32_t state[4], const unsigned char *block)
{
    uint32_t s[4], word[16];
    memcpy(s, state, sizeof s);
    memcpy(word, block, sizeof word); /* little-endian machines only */
    for (size_t i = 0; i < 64; i++) {
        const uint32_t b = md5_round(s, i, word);
        s[0] = s[3];
        s[3] = s[2];
        s[2] = s[1];
        s[1] = b;
    }
    for (size_t i = 0; i < 4; i++)
        state[i] += s[i];
}

static void md5(const unsigned char *bytes, size_t n, char hex[33])
{
    uint32_t state[4] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476 };
    unsigned char end[128] = { 0 }, digest[16];
    const size_t rest = n % 64, room = rest < 56 ? 64 : 128;
    const uint64_t bits = 8 * (uint64_t)n;
    for (size_t i = 0; i + 64 <= n; i += 64)
        md5_block(state, bytes + i);
    memcpy(end, bytes + n - rest, rest);
    end[rest] = 0x80;
    memcpy(end + room - 8, &bits, 8);
    for (size_t i = 0; i < room; i += 64)
        md5_block(state, end + i);
    memcpy(digest, state, 16);
    for (size_t i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

/* ---- MNIST ----------------------------------------------------------------------------------- */

static void mnist(void **state)
{
    (void)state;
    NEED_DATA(folder, "images/mnist");
    const char *const paths[] = { folder };
    cv_picture_data data;
    corvid_error err;
    char hex[33];
    ASSERT_OK(cv_picture_data_open(
                  mem,
                  &(cv_picture_options){
                      .paths = paths, .n_paths = 1, .side = 28, .normalise_from_data = true },
                  &data, &err),
              &err);
    assert_int_equal(data.n_train, 60000);
    assert_int_equal(data.n_validation, 10000);
    assert_true(data.own_split);
    assert_int_equal(data.list.n_classes, 10);
    assert_string_equal(data.list.classes[7], "7");

    /* With their heads the pixels are the files. */
    md5(data.list.of[0].bytes - 16, 16 + 60000 * 784, hex);
    assert_string_equal(hex, "6bbc9ace898e44ae57da46a324031adb");
    md5(data.list.of[60000].bytes - 16, 16 + 10000 * 784, hex);
    assert_string_equal(hex, "2646ac647ad5339dbf082846283269ea");
    unsigned char *labels = malloc(60008);
    assert_non_null(labels);
    memcpy(labels, "\0\0\x08\x01\0\0\xea\x60", 8);
    for (size_t i = 0; i < 60000; i++)
        labels[8 + i] = (unsigned char)data.list.of[i].target;
    md5(labels, 60008, hex);
    assert_string_equal(hex, "a25bea736e30d166cdddb491f175f624");
    memcpy(labels, "\0\0\x08\x01\0\0\x27\x10", 8);
    for (size_t i = 0; i < 10000; i++)
        labels[8 + i] = (unsigned char)data.list.of[60000 + i].target;
    md5(labels, 10008, hex);
    assert_string_equal(hex, "27ae3e4e09519cfbb04c329615203637");
    free(labels);

    /* 0.1307 and 0.3081 are the numbers that everybody uses. */
    assert_true(fabs(data.mean[0] / 255.0 - 0.1307) < 5e-5);
    assert_true(fabs(data.std[2] / 255.0 - 0.3081) < 5e-5);
    cv_picture_data_close(&data);
}

/* ---- CIFAR-10 -------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The sample of an entry such as train/cat/0001.jpg, by its order: classes and files are sorted,
 * and of two with the same name the one for training comes first. */
static size_t number_of(const cv_picture_data *data, const char *path)
{
    for (size_t i = 0; i < data->list.n; i++)
        if (strcmp(data->list.of[i].path, path) == 0) return i;
    fail_msg("no %s", path);
    return 0;
}

/* Unpacks the archive once more, and decodes every 997th picture by the library itself. */
static void compare_pixels(const cv_picture_data *data, const char *path)
{
    struct archive *from = archive_read_new();
    struct archive_entry *entry;
    tjhandle codec = tjInitDecompress();
    size_t n = 0, compared = 0;
    archive_read_support_filter_gzip(from);
    archive_read_support_format_tar(from);
    assert_int_equal(archive_read_open_filename(from, path, 65536), ARCHIVE_OK);
    while (archive_read_next_header(from, &entry) == ARCHIVE_OK) {
        unsigned char bytes[16384], pixels[3072];
        if (archive_entry_filetype(entry) != AE_IFREG || n++ % 997 != 0) continue;
        const la_ssize_t got = archive_read_data(from, bytes, sizeof bytes);
        assert_true(got > 0);
        assert_int_equal(tjDecompress2(codec, bytes, (unsigned long)got, pixels, 32, 0, 32,
                                       TJPF_RGB, TJFLAG_ACCURATEDCT),
                         0);
        const size_t i = number_of(data, archive_entry_pathname(entry));
        assert_memory_equal(data->decoded[i].pixels, pixels, 3072);
        compared++;
    }
    assert_int_equal(n, 60000);
    assert_int_equal(compared, 61);
    tjDestroy(codec);
    archive_read_free(from);
}

static void cifar(void **state)
{
    (void)state;
    static const char *const names[] = { "airplane", "automobile", "bird",  "cat",  "deer",
                                         "dog",      "frog",       "horse", "ship", "truck" };
    static const double mean[] = { 0.4914, 0.4822, 0.4465 }, std[] = { 0.2470, 0.2435, 0.2616 };
    NEED_DATA(path, "images/cifar10/cifar10-jpeg.tar.gz");
    const char *const paths[] = { path };
    size_t counts[2][10] = { { 0 } };
    cv_team *team;
    cv_picture_data data;
    corvid_error err;
    ASSERT_OK(cv_team_new(mem, cv_cpu_count(), &team, &err), &err);
    const double start = seconds();
    ASSERT_OK(cv_picture_data_open(mem,
                                   &(cv_picture_options){ .paths = paths,
                                                          .n_paths = 1,
                                                          .side = 32,
                                                          .normalise_from_data = true,
                                                          .team = team },
                                   &data, &err),
              &err);
    print_message("opened in %.1f s by %zu threads\n", seconds() - start, cv_team_size(team));
    cv_team_free(team);
    assert_int_equal(data.n_train, 50000);
    assert_int_equal(data.n_validation, 10000);
    assert_int_equal(data.list.n_classes, 10);
    for (size_t i = 0; i < 10; i++)
        assert_string_equal(data.list.classes[i], names[i]);
    for (size_t i = 0; i < 60000; i++) {
        assert_int_equal(data.decoded[i].width, 32);
        assert_int_equal(data.decoded[i].height, 32);
        counts[data.list.of[i].part == CV_PART_VALIDATION][data.list.of[i].target]++;
    }
    for (size_t i = 0; i < 10; i++) {
        assert_int_equal(counts[0][i], 5000);
        assert_int_equal(counts[1][i], 1000);
    }
    for (size_t c = 0; c < 3; c++) { /* pictures are a little changed by JPEG */
        assert_true(fabs(data.mean[c] / 255.0 - mean[c]) < 1e-3);
        assert_true(fabs(data.std[c] / 255.0 - std[c]) < 2e-3);
    }
    compare_pixels(&data, path);
    cv_picture_data_close(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mnist),
        cmocka_unit_test(cifar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
