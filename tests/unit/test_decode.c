/* test_decode.c - JPEG, PNG and WebP pictures made in memory, and five photographs, decoded. */
#include "picture_bytes.h"

#include <stdio.h>

#include "image/picture.h"

#ifndef CORVID_SOURCE_DIR
#define CORVID_SOURCE_DIR "."
#endif

#define ENOUGH ((uint64_t)1 << 28)

static const size_t SIZES[][2] = { { 1, 1 }, { 3, 2 }, { 1, 9 }, { 9, 5 }, { 33, 17 } };
#define N_SIZES (sizeof SIZES / sizeof *SIZES)

/* Decodes and frees the file. */
static cv_picture decoded(file_bytes file)
{
    cv_picture picture;
    corvid_error err;
    ASSERT_OK(
        cv_picture_decode(&cv_libc_allocator, file.bytes, file.n, "made", ENOUGH, &picture, &err),
        &err);
    free(file.bytes);
    return picture;
}

static void assert_size(const cv_picture *picture, size_t width, size_t height)
{
    assert_int_equal(picture->width, width);
    assert_int_equal(picture->height, height);
}

static void assert_refused(const char *what, file_bytes file, uint64_t max_pixels,
                           const char *needle)
{
    cv_picture picture;
    corvid_error err = { 0 };
    corvid_status status = cv_picture_decode(&cv_libc_allocator, file.bytes, file.n, "made.bin",
                                             max_pixels, &picture, &err);
    free(file.bytes);
    if (status != CORVID_E_FORMAT || strncmp(err.text, "made.bin: ", 10) != 0 ||
        !strstr(err.text, needle))
        fail_msg("%s: status %d, expected \"%s\" in: %s", what, (int)status, needle, err.text);
    assert_null(picture.pixels);
    cv_picture_free(&picture);
}

static file_bytes bytes_of(const void *bytes, size_t n)
{
    file_bytes file = { 0 };
    put(&file, bytes, n);
    return file;
}

static file_bytes text_of(const char *text)
{
    return bytes_of(text, strlen(text));
}

/* ---- PNG ------------------------------------------------------------------------------------- */

/* What the pixel must become, computed from the sample that went in. */
static unsigned png_expected(png_kind kind, size_t x, size_t y, size_t c)
{
    const unsigned most = (1u << kind.depth) - 1;
    if (kind.type == PNG_COLOR_TYPE_PALETTE) {
        const png_color color = png_palette_color(png_sample(kind, x, y, 0));
        return c == 0 ? color.red : c == 1 ? color.green : color.blue;
    }
    if (!(kind.type & PNG_COLOR_MASK_COLOR)) c = 0;
    const unsigned sample = png_sample(kind, x, y, c);
    return kind.depth == 16 ? sample >> 8 : sample * 255 / most;
}

static void check_png(png_kind kind, size_t width, size_t height)
{
    cv_picture picture = decoded(png_file(kind, width, height, (file_bytes){ 0 }));
    assert_size(&picture, width, height);
    assert_int_equal(picture.orientation, 1);
    for (size_t i = 0; i < width * height * 3; i++) {
        const size_t x = i / 3 % width, y = i / 3 / width;
        const unsigned expected = png_expected(kind, x, y, i % 3);
        if (picture.pixels[i] != expected)
            fail_msg("type %d, %d bits%s, %zu x %zu: (%zu, %zu) is %u, expected %u", kind.type,
                     kind.depth, kind.interlaced ? ", interlaced" : "", width, height, x, y,
                     picture.pixels[i], expected);
    }
    cv_picture_free(&picture);
}

/* Every colour type in every depth, plain and interlaced, with and without transparency. */
static void test_png(void **state)
{
    (void)state;
    static const int KINDS[][2] = {
        { PNG_COLOR_TYPE_GRAY, 1 },        { PNG_COLOR_TYPE_GRAY, 2 },
        { PNG_COLOR_TYPE_GRAY, 4 },        { PNG_COLOR_TYPE_GRAY, 8 },
        { PNG_COLOR_TYPE_GRAY, 16 },       { PNG_COLOR_TYPE_PALETTE, 1 },
        { PNG_COLOR_TYPE_PALETTE, 2 },     { PNG_COLOR_TYPE_PALETTE, 4 },
        { PNG_COLOR_TYPE_PALETTE, 8 },     { PNG_COLOR_TYPE_RGB, 8 },
        { PNG_COLOR_TYPE_RGB, 16 },        { PNG_COLOR_TYPE_GRAY_ALPHA, 8 },
        { PNG_COLOR_TYPE_GRAY_ALPHA, 16 }, { PNG_COLOR_TYPE_RGB_ALPHA, 8 },
        { PNG_COLOR_TYPE_RGB_ALPHA, 16 },
    };
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        for (size_t s = 0; s < N_SIZES; s++)
            for (int how = 0; how < 4; how++) {
                const int type = KINDS[i][0];
                const bool transparent = (how & 2) && !(type & PNG_COLOR_MASK_ALPHA);
                check_png((png_kind){ type, KINDS[i][1], how & 1, transparent }, SIZES[s][0],
                          SIZES[s][1]);
            }
}

/* ---- JPEG ------------------------------------------------------------------------------------ */

/* The greatest and the mean difference from the pixels that went in. */
static void assert_near(const cv_picture *picture, const unsigned char *expected, size_t n_channels,
                        int most, double mean)
{
    const size_t n = picture->width * picture->height * 3;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t from = n_channels == 1 ? i / 3 : i / 3 * n_channels + i % 3;
        const int difference = abs(picture->pixels[i] - expected[from]);
        sum += difference;
        if (difference > most)
            fail_msg("%zu x %zu: value %zu is %d, expected %d", picture->width, picture->height, i,
                     picture->pixels[i], expected[from]);
    }
    if (sum > mean * (double)n) fail_msg("the mean difference is %g", sum / (double)n);
}

static void test_jpeg(void **state)
{
    (void)state;
    static const int FLAGS[] = { 0, TJFLAG_PROGRESSIVE };
    static const int SAMPLINGS[] = { TJSAMP_444, TJSAMP_422, TJSAMP_420, TJSAMP_440, TJSAMP_411 };
    for (size_t s = 0; s < N_SIZES; s++)
        for (size_t f = 0; f < 2; f++)
            for (size_t k = 0; k < sizeof SAMPLINGS / sizeof *SAMPLINGS; k++) {
                unsigned char *pixels = pixels_of(SMOOTH, SIZES[s][0], SIZES[s][1], 3);
                cv_picture picture =
                    decoded(smooth_jpeg(SIZES[s][0], SIZES[s][1], SAMPLINGS[k], FLAGS[f]));
                assert_size(&picture, SIZES[s][0], SIZES[s][1]);
                /* Halved colours differ by their slope, 3 a pixel, over up to two pixels. */
                assert_near(&picture, pixels, 3, k == 0 ? 4 : 10, 2.5);
                cv_picture_free(&picture);
                free(pixels);
            }
}

static void test_jpeg_grey(void **state)
{
    (void)state;
    for (int flags = 0; flags < 2; flags++) {
        unsigned char *pixels = pixels_of(SMOOTH, 33, 17, 1);
        cv_picture picture = decoded(
            jpeg_file(pixels, 33, 17, TJPF_GRAY, TJSAMP_GRAY, 95, flags ? TJFLAG_PROGRESSIVE : 0));
        assert_size(&picture, 33, 17);
        assert_near(&picture, pixels, 1, 3, 1);
        for (size_t i = 0; i < 33 * 17; i++) {
            assert_int_equal(picture.pixels[3 * i], picture.pixels[3 * i + 1]);
            assert_int_equal(picture.pixels[3 * i], picture.pixels[3 * i + 2]);
        }
        cv_picture_free(&picture);
        free(pixels);
    }
}

/* Inks stored inverted: what is left of the light, times what black leaves. */
static void test_jpeg_inks(void **state)
{
    (void)state;
    unsigned char *inks = pixels_of(SMOOTH, 24, 24, 4);
    unsigned char *expected = malloc((size_t)24 * 24 * 3);
    assert_non_null(expected);
    for (size_t i = 0; i < (size_t)24 * 24 * 3; i++) {
        const double light = inks[i / 3 * 4 + 3] / 255.0;
        expected[i] = (unsigned char)(light * inks[i / 3 * 4 + i % 3] + 0.5);
    }
    cv_picture picture = decoded(jpeg_file(inks, 24, 24, TJPF_CMYK, TJSAMP_444, 100, 0));
    assert_size(&picture, 24, 24);
    assert_near(&picture, expected, 3, 5, 1.5);
    cv_picture_free(&picture);
    free(inks);
    free(expected);
}

static void assert_same_pixels(const cv_picture *a, const cv_picture *b)
{
    assert_size(a, b->width, b->height);
    assert_memory_equal(a->pixels, b->pixels, 3 * a->width * a->height);
}

/* Bytes too many and restart markers out of nowhere do no harm; they give the same pixels. */
static void test_jpeg_harmless(void **state)
{
    (void)state;
    cv_picture clean = decoded(smooth_jpeg(20, 20, TJSAMP_420, 0));
    file_bytes file = smooth_jpeg(20, 20, TJSAMP_420, 0);
    const size_t end = file.n - 2;
    cv_picture before_end = decoded(inserted(file, end, bytes_of("\0\0\0\0\0\0\0\0", 8)));
    assert_same_pixels(&before_end, &clean);

    file = smooth_jpeg(20, 20, TJSAMP_420, 0);
    cv_picture fill = decoded(inserted(file, end, bytes_of("\xff\xff\xff", 3)));
    assert_same_pixels(&fill, &clean);

    file = smooth_jpeg(20, 20, TJSAMP_420, 0);
    const size_t dqt = jpeg_segment(file, 0xdb);
    cv_picture between = decoded(inserted(file, dqt, text_of("noise")));
    assert_same_pixels(&between, &clean);

    file = smooth_jpeg(20, 20, TJSAMP_420, 0);
    put(&file, "what a camera appends \xff\xd8\xff", 25);
    cv_picture after = decoded(file);
    assert_same_pixels(&after, &clean);
    cv_picture_free(&before_end);
    cv_picture_free(&fill);
    cv_picture_free(&between);
    cv_picture_free(&after);
    cv_picture_free(&clean);
}

/* The coded data stops early although the end is marked. */
static void test_jpeg_gap(void **state)
{
    (void)state;
    file_bytes file = smooth_jpeg(64, 64, TJSAMP_444, 0);
    file.n = jpeg_segment(file, 0xda) + 40;
    put(&file, "\xff\xd9", 2);
    assert_refused("gap", file, ENOUGH, "damaged JPEG");
}

/* A table is missing; that the library first found bytes too many must not hide it. */
static void test_jpeg_no_table(void **state)
{
    (void)state;
    for (int noise = 0; noise < 2; noise++) {
        file_bytes file = smooth_jpeg(20, 20, TJSAMP_444, 0), out = { 0 };
        const size_t dqt = jpeg_segment(file, 0xdb);
        const size_t n = 2 + (size_t)file.bytes[dqt + 3]; /* they are short */
        put(&out, file.bytes, dqt);
        if (noise) put(&out, "noise", 5);
        put(&out, file.bytes + dqt + n, file.n - dqt - n);
        free(file.bytes);
        assert_refused("no table", out, ENOUGH, "Quantization table");
    }
}

static void test_jpeg_scans(void **state)
{
    (void)state;
    file_bytes scan = { 0 }, file = smooth_jpeg(8, 8, TJSAMP_444, TJFLAG_PROGRESSIVE);
    const size_t start = jpeg_segment(file, 0xda);
    for (int i = 0; i < 101; i++)
        put(&scan, file.bytes + start, 14);
    assert_refused("scans", inserted(file, start, scan), ENOUGH, "more than 100 scans");
}

static void test_jpeg_rare(void **state)
{
    (void)state;
    for (int marker = 0xc3; marker <= 0xcf; marker++) {
        if (marker == 0xc4 || marker == 0xc8 || marker == 0xcc) continue;
        file_bytes file = smooth_jpeg(8, 8, TJSAMP_444, 0);
        file.bytes[jpeg_segment(file, 0xc0) + 1] = (unsigned char)marker;
        assert_refused("rare", file, ENOUGH, "rare kind");
    }
    file_bytes file = smooth_jpeg(8, 8, TJSAMP_444, 0);
    file.bytes[jpeg_segment(file, 0xc0) + 4] = 12;
    assert_refused("12 bits", file, ENOUGH, "12 bits per sample");
}

/* ---- WebP ------------------------------------------------------------------------------------ */

static void test_webp_lossless(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SIZES; s++)
        for (size_t n_channels = 3; n_channels <= 4; n_channels++) {
            unsigned char *pixels = pixels_of(ROUGH, SIZES[s][0], SIZES[s][1], n_channels);
            cv_picture picture =
                decoded(webp_lossless(pixels, SIZES[s][0], SIZES[s][1], n_channels));
            assert_size(&picture, SIZES[s][0], SIZES[s][1]);
            assert_near(&picture, pixels, n_channels, 0, 0);
            cv_picture_free(&picture);
            free(pixels);
        }
}

static void test_webp_lossy(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SIZES; s++)
        for (size_t n_channels = 3; n_channels <= 4; n_channels++) {
            unsigned char *pixels = pixels_of(SMOOTH, SIZES[s][0], SIZES[s][1], n_channels);
            cv_picture picture =
                decoded(webp_lossy(pixels, SIZES[s][0], SIZES[s][1], n_channels, 95));
            assert_size(&picture, SIZES[s][0], SIZES[s][1]);
            assert_near(&picture, pixels, n_channels, 14, 4);
            cv_picture_free(&picture);
            free(pixels);
        }
}

/* The first frame in its place, black around it. */
static void test_webp_animation(void **state)
{
    (void)state;
    const size_t width = 9, height = 5, x = 4, y = 2, wide = 20, high = 11;
    unsigned char *pixels = pixels_of(ROUGH, width, height, 3);
    cv_picture picture = decoded(
        webp_animation(webp_lossless(pixels, width, height, 3), width, height, x, y, wide, high));
    assert_size(&picture, wide, high);
    for (size_t i = 0; i < wide * high * 3; i++) {
        const size_t px = i / 3 % wide, py = i / 3 / wide;
        const bool within = px >= x && px < x + width && py >= y && py < y + height;
        assert_int_equal(picture.pixels[i],
                         within ? pixels[((py - y) * width + px - x) * 3 + i % 3] : 0);
    }
    cv_picture_free(&picture);

    picture = decoded(webp_animation(webp_lossless(pixels, width, height, 3), width, height, 0, 0,
                                     width, height));
    assert_near(&picture, pixels, 3, 0, 0);
    cv_picture_free(&picture);
    free(pixels);
}

/* ---- how the camera was held ----------------------------------------------------------------- */

static void assert_orientation(file_bytes file, int expected)
{
    cv_picture picture = decoded(file);
    assert_int_equal(picture.orientation, expected);
    cv_picture_free(&picture);
}

static void test_orientation(void **state)
{
    (void)state;
    const png_kind rgb = { PNG_COLOR_TYPE_RGB, 8, false, false };
    unsigned char *pixels = pixels_of(ROUGH, 6, 4, 3);
    for (int big = 0; big < 2; big++)
        for (int o = 1; o <= 8; o++) {
            assert_orientation(jpeg_with_exif(smooth_jpeg(6, 4, TJSAMP_444, 0), exif_block(big, o)),
                               o);
            assert_orientation(png_file(rgb, 6, 4, exif_block(big, o)), o);
            assert_orientation(
                webp_with_exif(webp_lossless(pixels, 6, 4, 3), 6, 4, exif_block(big, o)), o);
            /* Some programs write WebP's chunk as it would be in JPEG. */
            file_bytes exif = exif_block(big, o);
            exif = inserted(exif, 0, bytes_of("Exif\0", 6));
            assert_orientation(webp_with_exif(webp_lossless(pixels, 6, 4, 3), 6, 4, exif), o);
        }
    free(pixels);
}

/* Another APP1 (XMP) in front, and a second EXIF behind, which does not count. */
static void test_orientation_first(void **state)
{
    (void)state;
    file_bytes file = smooth_jpeg(6, 4, TJSAMP_444, 0);
    file = jpeg_with_exif(file, exif_block(true, 3));
    file = jpeg_with_exif(file, exif_block(false, 6));
    file = inserted(file, 2, bytes_of("\xff\xe1\0\x08http:/", 10));
    assert_orientation(file, 6);
    /* Behind the picture's data in PNG. */
    const png_kind rgb = { PNG_COLOR_TYPE_RGB, 8, false, false };
    file_bytes png = png_file(rgb, 6, 4, exif_block(true, 5)), chunk = { 0 }, out = { 0 };
    const size_t at = png_chunk(png, "eXIf"), n = 12 + get_big(png.bytes + at);
    put(&chunk, png.bytes + at, n);
    put(&out, png.bytes, at);
    put(&out, png.bytes + at + n, png.n - at - n);
    free(png.bytes);
    const size_t end = png_chunk(out, "IEND");
    assert_orientation(inserted(out, end, chunk), 5);
}

static int orientation_of(file_bytes exif)
{
    /* An exact allocation, so that reading past the end is found. */
    unsigned char *copy = malloc(exif.n ? exif.n : 1);
    assert_non_null(copy);
    if (exif.n) memcpy(copy, exif.bytes, exif.n);
    const int orientation = cv_exif_orientation(copy, exif.n);
    free(copy);
    return orientation;
}

/* The third entry of exif_block lies at 34. */
static void test_exif_damaged(void **state)
{
    (void)state;
    for (int big = 0; big < 2; big++) {
        file_bytes exif = exif_block(big, 7);
        const size_t n = exif.n, low = big ? 1 : 0;
        assert_int_equal(orientation_of(exif), 7);
        for (exif.n = 0; exif.n < 46; exif.n++)
            assert_int_equal(orientation_of(exif), 1);
        assert_int_equal(orientation_of(exif), 7); /* the entry is whole, what follows is not */
        exif.n = n;

        exif.bytes[34 + 8 + low] = 0;
        assert_int_equal(orientation_of(exif), 1);
        exif.bytes[34 + 8 + low] = 9;
        assert_int_equal(orientation_of(exif), 1);
        exif.bytes[34 + 8 + low] = 7;
        exif.bytes[34 + 2 + low] = 2; /* a text */
        assert_int_equal(orientation_of(exif), 1);
        exif.bytes[34 + 2 + low] = 3;
        exif.bytes[34 + 4 + 3 * low] = 2; /* two values */
        assert_int_equal(orientation_of(exif), 1);
        exif.bytes[34 + 4 + 3 * low] = 1;
        exif.bytes[8 + low] = 2; /* entries */
        assert_int_equal(orientation_of(exif), 1);
        exif.bytes[9 - low] = exif.bytes[8 + low] = 255;
        assert_int_equal(orientation_of(exif), 7);
        for (size_t i = 4; i < 8; i++) { /* the directory's place */
            const unsigned char was = exif.bytes[i];
            exif.bytes[i] = 0xff;
            assert_int_equal(orientation_of(exif), 1);
            exif.bytes[i] = was;
        }
        exif.bytes[2 + low] = 43;
        assert_int_equal(orientation_of(exif), 1);
        free(exif.bytes);
    }
}

/* A long instead of a short, big and little. */
static void test_exif_long(void **state)
{
    (void)state;
    static const unsigned char BIG[] = "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x06";
    static const unsigned char LITTLE[] = "II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x05\0\0";
    assert_int_equal(cv_exif_orientation(BIG, sizeof BIG - 1), 6);
    assert_int_equal(cv_exif_orientation(LITTLE, sizeof LITTLE), 5);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void test_max_pixels(void **state)
{
    (void)state;
    const png_kind grey = { PNG_COLOR_TYPE_GRAY, 1, false, false };
    unsigned char *pixels = pixels_of(ROUGH, 9, 5, 3);
    static const char MESSAGE[] = "9 x 5 pixels is more than the 44 allowed (--max-pixels)";
    for (uint64_t most = 44; most <= 45; most++) {
        file_bytes files[] = { smooth_jpeg(9, 5, TJSAMP_420, 0),
                               png_file(grey, 9, 5, (file_bytes){ 0 }),
                               webp_lossless(pixels, 9, 5, 3), webp_lossy(pixels, 9, 5, 3, 50) };
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
            cv_picture picture;
            corvid_error err;
            if (most == 44) {
                assert_refused("size", files[i], most, MESSAGE);
                continue;
            }
            ASSERT_OK(cv_picture_decode(&cv_libc_allocator, files[i].bytes, files[i].n, NULL, most,
                                        &picture, &err),
                      &err);
            cv_picture_free(&picture);
            free(files[i].bytes);
        }
    }
    free(pixels);
}

static void test_other_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n; /* 0: up to the first zero */
        const char *name;
    } KINDS[] = {
        { "GIF89a\1\0\1\0", 10, "looks like a GIF picture; JPEG, PNG and WebP" },
        { "BM\x46\0\0\0\0\0", 8, "a BMP picture" },
        { "II*\0\x08\0\0\0", 8, "a TIFF picture" },
        { "MM\0*\0\0\0\x08", 8, "a TIFF picture" },
        { "\0\0\0\x18"
          "ftypheic\0\0\0\0mif1",
          20, "a HEIC picture" },
        { "\0\0\0\x1c"
          "ftypavif\0\0\0\0",
          16, "an AVIF picture" },
        { "\0\0\0\x1c"
          "ftypmif1\0\0\0\0",
          16, "a HEIC or AVIF picture" },
        { "\0\0\0\x20"
          "ftypisom\0\0\2\0",
          16, "a video" },
        { "%PDF-1.7\n", 0, "a PDF document" },
        { "RIFF\0\0\0\0WAVEfmt ", 16, "a RIFF file that is no WebP" },
        { "<svg xmlns=\"http://www.w3.org/2000/svg\"/>", 0, "an SVG drawing" },
        { "\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- --><SVG/>", 0, "an SVG drawing" },
        { "\n <!DOCTYPE HTML><title>404</title>", 0, "an HTML page" },
        { "<html>", 0, "an HTML page" },
        { "<?xml version=\"1.0\"?><note/>", 0, "an XML or HTML text" },
        { "version https://git-lfs.github.com\n", 0, "a text" },
        { "\0\1\2\3\4\5\6\7\x08", 9, "unknown kind (its first bytes are 00 01 02 03 04 05 06 07)" },
        { "Gr\xc3\xbc\xc3\x9f"
          "e aus Wien",
          0, "a text" },
        { "\xfe", 1, "unknown kind" },
        { "\x89PN", 3, "unknown kind (its first bytes are 89 50 4e)" },
        { "\x7f", 1, "unknown kind (its first bytes are 7f)" },
    };
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        assert_refused(KINDS[i].name,
                       bytes_of(KINDS[i].bytes, KINDS[i].n ? KINDS[i].n : strlen(KINDS[i].bytes)),
                       ENOUGH, KINDS[i].name);
    assert_refused("empty", text_of(""), ENOUGH, "is empty");
}

/* ---- files ----------------------------------------------------------------------------------- */

static void test_read(void **state)
{
    (void)state;
    cv_picture picture;
    corvid_error err;
    test_allocator a;
    test_allocator_init(&a);
    const png_kind rgb = { PNG_COLOR_TYPE_RGB, 8, false, false };
    file_bytes file = png_file(rgb, 9, 5, exif_block(true, 8));
    const char *path = test_scratch("picture.jpg"); /* the name does not decide */
    test_write_file(path, file.bytes, file.n);
    ASSERT_OK(cv_picture_read(&a.api, path, 45, &picture, &err), &err);
    assert_size(&picture, 9, 5);
    assert_int_equal(picture.orientation, 8);
    assert_int_equal(a.live, 1);
    cv_picture_free(&picture);
    cv_picture_free(&picture);
    assert_int_equal(a.live, 0);

    test_write_file(path, file.bytes, file.n - 1);
    assert_int_equal(cv_picture_read(&a.api, path, 45, &picture, &err), CORVID_E_FORMAT);
    assert_non_null(strstr(err.text, path));
    test_write_file(path, "", 0);
    assert_int_equal(cv_picture_read(&a.api, path, 45, &picture, &err), CORVID_E_FORMAT);
    assert_non_null(strstr(err.text, "is empty"));
    assert_int_equal(cv_picture_read(&a.api, "/no/such/picture", 45, &picture, &err),
                     CORVID_E_FILE);
    assert_non_null(strstr(err.text, "/no/such/picture"));
    assert_int_equal(a.live, 0);
    free(file.bytes);
}

static void test_new(void **state)
{
    (void)state;
    cv_picture picture;
    corvid_error err;
    test_allocator a;
    test_allocator_init(&a);
    ASSERT_OK(cv_picture_new(&a.api, 7, 3, &picture, &err), &err);
    assert_size(&picture, 7, 3);
    assert_int_equal(picture.orientation, 1);
    for (size_t i = 0; i < 7 * 3 * 3; i++)
        assert_int_equal(picture.pixels[i], 0);
    cv_picture_free(&picture);
    a.fail_at = a.calls + 1;
    assert_int_equal(cv_picture_new(&a.api, 7, 3, &picture, &err), CORVID_E_MEMORY);
    assert_null(picture.pixels);
    assert_int_equal(cv_picture_new(&a.api, SIZE_MAX / 2, 1, &picture, &err), CORVID_E_MEMORY);
    assert_int_equal(cv_picture_new(&a.api, (size_t)1 << 62, 4, &picture, NULL), CORVID_E_MEMORY);
    assert_int_equal(cv_picture_new(&a.api, (size_t)1 << 32, (size_t)1 << 32, &picture, &err),
                     CORVID_E_MEMORY);
    assert_int_equal(a.live, 0);
}

static uint64_t fnv1a(const unsigned char *bytes, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* FNV-1a of Image.open(path).convert("RGB").tobytes(), by python3-pil 9.4.0 with libjpeg-turbo 2.1. */
static void check_photo(const char *path, size_t width, size_t height, uint64_t expected)
{
    cv_picture picture;
    corvid_error err;
    ASSERT_OK(cv_picture_read(&cv_libc_allocator, path, ENOUGH, &picture, &err), &err);
    assert_size(&picture, width, height);
    assert_int_equal(picture.orientation, 1);
    const uint64_t hash = fnv1a(picture.pixels, 3 * width * height);
    if (hash != expected)
        fail_msg("%s: 0x%016llx, expected 0x%016llx", path, (unsigned long long)hash,
                 (unsigned long long)expected);
    cv_picture_free(&picture);
}

/* Small files of the fuzzer's corpus: halved colours, progressive, inks, lossy.  Were they made anew,
 * the numbers would have to be, too. */
static void test_small_files(void **state)
{
    (void)state;
    static const char FOLDER[] = CORVID_SOURCE_DIR "/tests/fuzz/corpus/picture";
    static const struct {
        const char *name;
        size_t width, height;
        uint64_t hash;
    } FILES[] = {
        { "jpeg-420", 14, 11, 0x7993a92766f81942 },
        { "jpeg-progressive", 14, 11, 0xa9d803f0f50baeb4 },
        { "jpeg-inks", 14, 11, 0x4d2a9841beb2c3d1 },
        { "png-palette", 14, 11, 0x5e09e381d2941397 },
        { "webp-lossy", 14, 11, 0x58c63df3a4b55cf0 },
        { "webp-lossy-alpha", 14, 11, 0x58c63df3a4b55cf0 },
        { "webp-animation", 19, 17, 0x40fabb27be21114c },
    };
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", FOLDER, FILES[i].name);
        check_photo(path, FILES[i].width, FILES[i].height, FILES[i].hash);
    }
}

static void test_photos(void **state)
{
    (void)state;
    NEED_DATA(astronaut, "images/photos/astronaut.png");
    NEED_DATA(camera, "images/photos/camera.png"); /* grey */
    NEED_DATA(chelsea, "images/photos/chelsea.png");
    NEED_DATA(coffee, "images/photos/coffee.png");
    NEED_DATA(rocket, "images/photos/rocket.jpg");
    check_photo(astronaut, 512, 512, 0xfa4e6bff08e5e8fb);
    check_photo(camera, 512, 512, 0x350bdd5a5fceb30e);
    check_photo(chelsea, 451, 300, 0xb2179687966157a8);
    check_photo(coffee, 600, 400, 0xd261c1b91ef6ee1e);
    check_photo(rocket, 640, 427, 0x34b9b35d9b0edb19);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_png),           cmocka_unit_test(test_jpeg),
        cmocka_unit_test(test_jpeg_grey),     cmocka_unit_test(test_jpeg_inks),
        cmocka_unit_test(test_jpeg_harmless), cmocka_unit_test(test_jpeg_gap),
        cmocka_unit_test(test_jpeg_no_table), cmocka_unit_test(test_jpeg_scans),
        cmocka_unit_test(test_jpeg_rare),     cmocka_unit_test(test_webp_lossless),
        cmocka_unit_test(test_webp_lossy),    cmocka_unit_test(test_webp_animation),
        cmocka_unit_test(test_orientation),   cmocka_unit_test(test_orientation_first),
        cmocka_unit_test(test_exif_damaged),  cmocka_unit_test(test_exif_long),
        cmocka_unit_test(test_max_pixels),    cmocka_unit_test(test_other_kinds),
        cmocka_unit_test(test_read),          cmocka_unit_test(test_new),
        cmocka_unit_test(test_small_files),   cmocka_unit_test(test_photos),
    };
    return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
