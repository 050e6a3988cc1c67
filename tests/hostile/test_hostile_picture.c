/* test_hostile_picture.c - damaged and lying JPEG, PNG and WebP files.
 *
 * Each gives a status and a sentence that names the file, in bounded memory and less than 100 ms of
 * processor time, and leaves nothing behind, also when an allocation fails.
 * `test_hostile_picture --write FOLDER` writes the good ones as a corpus for the fuzzer. */
#include "picture_bytes.h"

#include <stdio.h>
#include <time.h>

#include "image/picture.h"

#define REFUSAL_MS 100
#define ENOUGH     ((uint64_t)1 << 28)
#define FEW        ((uint64_t)1 << 16) /* allowed to spoilt files, which may claim more */
#define W          ((size_t)14)
#define H          ((size_t)11)

/* ---- the good files, from which the bad ones are made ----------------------------------------- */

static file_bytes make_jpeg_grey(void)
{
    unsigned char *pixels = pixels_of(SMOOTH, W, H, 1);
    file_bytes file = jpeg_file(pixels, W, H, TJPF_GRAY, TJSAMP_GRAY, 75, 0);
    free(pixels);
    return file;
}

static file_bytes make_jpeg_420(void)
{
    return smooth_jpeg(W, H, TJSAMP_420, 0);
}

static file_bytes make_jpeg_progressive(void)
{
    return smooth_jpeg(W, H, TJSAMP_422, TJFLAG_PROGRESSIVE);
}

static file_bytes make_jpeg_inks(void)
{
    unsigned char *pixels = pixels_of(SMOOTH, W, H, 4);
    file_bytes file = jpeg_file(pixels, W, H, TJPF_CMYK, TJSAMP_444, 75, 0);
    free(pixels);
    return file;
}

static file_bytes make_jpeg_exif(void)
{
    return jpeg_with_exif(make_jpeg_grey(), exif_block(true, 6));
}

static file_bytes make_png(int type, int depth, bool interlaced, bool transparent)
{
    return png_file((png_kind){ type, depth, interlaced, transparent }, W, H, (file_bytes){ 0 });
}

static file_bytes make_png_rgb(void)
{
    return make_png(PNG_COLOR_TYPE_RGB, 8, false, false);
}

static file_bytes make_png_palette(void)
{
    return make_png(PNG_COLOR_TYPE_PALETTE, 4, false, true);
}

static file_bytes make_png_grey_interlaced(void)
{
    return make_png(PNG_COLOR_TYPE_GRAY, 2, true, true);
}

static file_bytes make_png_deep_alpha(void)
{
    return make_png(PNG_COLOR_TYPE_GRAY_ALPHA, 16, true, false);
}

static file_bytes make_png_exif(void)
{
    const png_kind kind = { PNG_COLOR_TYPE_GRAY, 1, false, false };
    return png_file(kind, W, H, exif_block(false, 3));
}

static file_bytes make_webp(texture how, size_t n_channels, bool lossless)
{
    unsigned char *pixels = pixels_of(how, W, H, n_channels);
    file_bytes file = lossless ? webp_lossless(pixels, W, H, n_channels)
                               : webp_lossy(pixels, W, H, n_channels, 60);
    free(pixels);
    return file;
}

static file_bytes make_webp_lossless(void)
{
    return make_webp(SMOOTH, 3, true);
}

static file_bytes make_webp_lossless_alpha(void)
{
    return make_webp(ROUGH, 4, true);
}

static file_bytes make_webp_lossy(void)
{
    return make_webp(SMOOTH, 3, false);
}

static file_bytes make_webp_lossy_alpha(void)
{
    return make_webp(SMOOTH, 4, false);
}

static file_bytes make_webp_exif(void)
{
    return webp_with_exif(make_webp_lossy(), W, H, exif_block(true, 8));
}

static file_bytes make_webp_animation(void)
{
    return webp_animation(make_webp_lossless(), W, H, 2, 4, W + 5, H + 6);
}

static const struct {
    const char *name;
    file_bytes (*make)(void);
} GOOD[] = {
    { "jpeg-grey", make_jpeg_grey },
    { "jpeg-420", make_jpeg_420 },
    { "jpeg-progressive", make_jpeg_progressive },
    { "jpeg-inks", make_jpeg_inks },
    { "jpeg-exif", make_jpeg_exif },
    { "png-rgb", make_png_rgb },
    { "png-palette", make_png_palette },
    { "png-grey-interlaced", make_png_grey_interlaced },
    { "png-deep-alpha", make_png_deep_alpha },
    { "png-exif", make_png_exif },
    { "webp-lossless", make_webp_lossless },
    { "webp-lossless-alpha", make_webp_lossless_alpha },
    { "webp-lossy", make_webp_lossy },
    { "webp-lossy-alpha", make_webp_lossy_alpha },
    { "webp-exif", make_webp_exif },
    { "webp-animation", make_webp_animation },
};
#define N_GOOD (sizeof GOOD / sizeof *GOOD)

/* ---- decoding under watch -------------------------------------------------------------------- */

typedef struct verdict {
    corvid_status status;
    corvid_error err;
    double ms;
    size_t peak, calls;
} verdict;

/* The file lies in a block of exactly its size, so that reading past it is found. */
static verdict decode_watched(const unsigned char *bytes, size_t n, uint64_t max_pixels,
                              size_t fail_at)
{
    verdict v = { 0 };
    cv_picture picture;
    struct timespec t0, t1;
    test_allocator a;
    test_allocator_init(&a);
    a.fail_at = fail_at;
    unsigned char *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    if (n) memcpy(copy, bytes, n);

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t0);
    v.status = cv_picture_decode(&a.api, copy, n, "hostile", max_pixels, &picture, &v.err);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t1);
    if (v.status != CORVID_OK) {
        assert_null(picture.pixels);
        assert_int_equal(a.live, 0);
    } else {
        assert_true(picture.width >= 1 && picture.height >= 1);
        assert_true(picture.width * picture.height <= max_pixels);
        assert_true(picture.orientation >= 1 && picture.orientation <= 8);
        assert_int_equal(a.live, 1);
    }
    cv_picture_free(&picture);
    assert_int_equal(a.live, 0);
    free(copy);
    v.ms = 1e3 * (double)(t1.tv_sec - t0.tv_sec) + 1e-6 * (double)(t1.tv_nsec - t0.tv_nsec);
    v.peak = a.peak_bytes;
    v.calls = a.calls;
    return v;
}

/* Seven bytes a pixel (three, and four inks), and what a library needs to begin. */
static void check_verdict(const char *name, const verdict *v, size_t n, uint64_t max_pixels)
{
    if (v->ms >= REFUSAL_MS) fail_msg("%s: took %.0f ms", name, v->ms);
    if (v->peak > 7 * max_pixels + 4 * n + ((size_t)1 << 18))
        fail_msg("%s: took %zu bytes of memory", name, v->peak);
    if (v->status == CORVID_OK) return;
    if (v->status != CORVID_E_FORMAT || v->err.status != v->status)
        fail_msg("%s: status %d: %s", name, (int)v->status, v->err.text);
    if (strncmp(v->err.text, "hostile: ", 9) != 0 || strlen(v->err.text) < 40)
        fail_msg("%s: no sentence that names the file: %s", name, v->err.text);
}

/* Spoilt in one place, it may still be a picture. */
static void check_any(const char *name, const unsigned char *bytes, size_t n)
{
    verdict v = decode_watched(bytes, n, FEW, 0);
    check_verdict(name, &v, n, FEW);
}

static verdict check_refused(const char *name, file_bytes file, const char *needle)
{
    verdict v = decode_watched(file.bytes, file.n, ENOUGH, 0);
    check_verdict(name, &v, file.n, ENOUGH);
    if (v.status == CORVID_OK) fail_msg("%s: was not refused", name);
    if (!strstr(v.err.text, needle))
        fail_msg("%s: the text lacks \"%s\": %s", name, needle, v.err.text);
    free(file.bytes);
    return v;
}

/* Refused before anything of its size was allocated. */
static void check_bomb(const char *name, file_bytes file, const char *needle)
{
    verdict v = check_refused(name, file, needle);
    if (v.peak > (size_t)1 << 16) fail_msg("%s: took %zu bytes of memory", name, v.peak);
}

/* ---- all files ------------------------------------------------------------------------------- */

static void test_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GOOD; i++) {
        file_bytes file = GOOD[i].make();
        verdict v = decode_watched(file.bytes, file.n, ENOUGH, 0);
        if (v.status != CORVID_OK) fail_msg("%s: %s", GOOD[i].name, v.err.text);
        assert_true(file.n < 2048); /* the tests below stay quick */
        free(file.bytes);
    }
}

static void test_cut_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GOOD; i++) {
        file_bytes file = GOOD[i].make();
        for (size_t n = 0; n < file.n; n++) {
            verdict v = decode_watched(file.bytes, n, ENOUGH, 0);
            check_verdict(GOOD[i].name, &v, n, ENOUGH);
            if (v.status == CORVID_OK) fail_msg("%s: read when cut at %zu", GOOD[i].name, n);
        }
        free(file.bytes);
    }
}

static void test_flip_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GOOD; i++) {
        file_bytes file = GOOD[i].make();
        for (size_t bit = 0; bit < 8 * file.n; bit++) {
            file.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
            check_any(GOOD[i].name, file.bytes, file.n);
            file.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        }
        free(file.bytes);
    }
}

static void test_byte_anywhere(void **state)
{
    (void)state;
    static const unsigned char VALUES[] = { 0x00, 0x7f, 0x80, 0xff };
    for (size_t i = 0; i < N_GOOD; i++) {
        file_bytes file = GOOD[i].make();
        for (size_t at = 0; at < file.n; at++) {
            const unsigned char was = file.bytes[at];
            for (size_t k = 0; k < sizeof VALUES; k++) {
                file.bytes[at] = VALUES[k];
                check_any(GOOD[i].name, file.bytes, file.n);
            }
            file.bytes[at] = was;
        }
        free(file.bytes);
    }
}

/* One to twenty bytes missing, or there twice. */
static void test_shift_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GOOD; i++) {
        file_bytes file = GOOD[i].make();
        for (size_t at = 2; at + 20 < file.n; at++) {
            const size_t n = 1 + at % 20;
            file_bytes shorter = { 0 }, longer = { 0 };
            put(&shorter, file.bytes, at);
            put(&shorter, file.bytes + at + n, file.n - at - n);
            put(&longer, file.bytes, at + n);
            put(&longer, file.bytes + at, file.n - at);
            check_any(GOOD[i].name, shorter.bytes, shorter.n);
            check_any(GOOD[i].name, longer.bytes, longer.n);
            free(shorter.bytes);
            free(longer.bytes);
        }
        free(file.bytes);
    }
}

/* Each allocation fails in turn. */
static void test_no_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GOOD; i++) {
        file_bytes file = GOOD[i].make();
        const verdict usual = decode_watched(file.bytes, file.n, ENOUGH, 0);
        assert_true(usual.calls >= 1);
        for (size_t call = 1; call <= usual.calls; call++) {
            verdict v = decode_watched(file.bytes, file.n, ENOUGH, call);
            if (v.status != CORVID_E_MEMORY)
                fail_msg("%s: allocation %zu failed, yet: %d %s", GOOD[i].name, call, (int)v.status,
                         v.err.text);
            assert_non_null(strstr(v.err.text, "hostile"));
        }
        free(file.bytes);
    }
}

/* ---- JPEG ------------------------------------------------------------------------------------ */

/* frame: the marker of the frame's header. */
static file_bytes jpeg_claiming(file_bytes file, unsigned char frame, size_t width, size_t height)
{
    unsigned char *size = file.bytes + jpeg_segment(file, frame) + 5;
    size[0] = (unsigned char)(height >> 8), size[1] = (unsigned char)height;
    size[2] = (unsigned char)(width >> 8), size[3] = (unsigned char)width;
    return file;
}

static file_bytes jpeg_length(file_bytes file, unsigned char marker, unsigned length)
{
    unsigned char *at = file.bytes + jpeg_segment(file, marker) + 2;
    at[0] = (unsigned char)(length >> 8), at[1] = (unsigned char)length;
    return file;
}

static void test_jpeg_lies(void **state)
{
    (void)state;
    check_bomb("65535 x 65535", jpeg_claiming(make_jpeg_420(), 0xc0, 65535, 65535),
               "65535 x 65535 pixels is more than the 268435456 allowed (--max-pixels)");
    check_bomb("16384 x 16384", jpeg_claiming(make_jpeg_420(), 0xc0, 16384, 16384),
               "cut short or damaged");
    check_bomb("progressive 16384 x 16384",
               jpeg_claiming(make_jpeg_progressive(), 0xc2, 16384, 16384), "expected at least");
    check_bomb("grey 16384 x 16384", jpeg_claiming(make_jpeg_grey(), 0xc0, 16384, 16384),
               "expected at least 1048576");
    check_bomb("inks 16000 x 16000", jpeg_claiming(make_jpeg_inks(), 0xc0, 16000, 16000),
               "expected at least");
    check_bomb("no width", jpeg_claiming(make_jpeg_420(), 0xc0, 0, 11), "0 x 11 pixels");
    check_bomb("no height", jpeg_claiming(make_jpeg_420(), 0xc0, 14, 0), "14 x 0 pixels");
    check_refused("a little larger", jpeg_claiming(make_jpeg_420(), 0xc0, W, 64), "damaged");
}

static void test_jpeg_structure(void **state)
{
    (void)state;
    file_bytes file = { 0 };
    check_bomb("length 0", jpeg_length(make_jpeg_420(), 0xdb, 0), "without a length");
    check_bomb("length 1", jpeg_length(make_jpeg_420(), 0xdb, 1), "without a length");
    check_bomb("length past the end", jpeg_length(make_jpeg_420(), 0xc4, 65535), "cut short");
    check_bomb("frame too short", jpeg_length(make_jpeg_420(), 0xc0, 16), "frame's header");
    put(&file, "\xff\xd8\xff\xd9", 4);
    check_bomb("nothing", file, "without a picture");
    file = (file_bytes){ 0 };
    for (int i = 0; i < 1 << 20; i++)
        put_little(&file, 0xd8ff, 2);
    check_bomb("a million starts", file, "cut short");

    file = make_jpeg_420();
    file.bytes[jpeg_segment(file, 0xc0) + 9] = 0;
    check_bomb("no components", file, "frame's header");
    file = make_jpeg_420();
    file.bytes[jpeg_segment(file, 0xc0) + 11] = 0x52;
    check_bomb("sampled five times", file, "sampling");
    file = make_jpeg_420();
    file.bytes[jpeg_segment(file, 0xda) + 4] = 0;
    check_refused("scan of nothing", file, "damaged JPEG");
}

/* Every scan visits every block, so many of them over few bytes would take minutes. */
static void test_jpeg_many_scans(void **state)
{
    (void)state;
    file_bytes file = make_jpeg_progressive(), scans = { 0 };
    const size_t start = jpeg_segment(file, 0xda);
    for (int i = 0; i < 100000; i++)
        put(&scans, "\xff\xda\0\x08\x01\x01\0\0\0\0\0", 11);
    check_bomb("100000 scans", inserted(file, start, scans), "more than 100 scans");
}

/* ---- PNG ------------------------------------------------------------------------------------- */

static file_bytes png_claiming(file_bytes file, uint32_t width, uint32_t height)
{
    for (size_t i = 0; i < 4; i++) {
        file.bytes[16 + i] = (unsigned char)(width >> (24 - 8 * i));
        file.bytes[20 + i] = (unsigned char)(height >> (24 - 8 * i));
    }
    png_seal(file, 8);
    return file;
}

static file_bytes png_header(size_t at, unsigned char value)
{
    file_bytes file = make_png_rgb();
    file.bytes[at] = value;
    png_seal(file, 8);
    return file;
}

static void test_png_lies(void **state)
{
    (void)state;
    check_bomb("100000 x 100000", png_claiming(make_png_rgb(), 100000, 100000),
               "100000 x 100000 pixels is more than the 268435456 allowed (--max-pixels)");
    check_bomb("as large as can be", png_claiming(make_png_rgb(), 0xffffffff, 0xffffffff),
               "4294967295 x 4294967295 pixels");
    check_bomb("16384 x 16384", png_claiming(make_png_rgb(), 16384, 16384), "expected at least");
    check_bomb("of one bit", png_claiming(make_png_exif(), 16384, 16384),
               "expected at least 32513 for the 16384 x 16384");
    check_bomb("no width", png_claiming(make_png_rgb(), 0, 11), "0 x 11 pixels");
    check_bomb("no height", png_claiming(make_png_rgb(), 14, 0), "14 x 0 pixels");
    check_refused("one more row", png_claiming(make_png_rgb(), W, H + 1), "damaged PNG");
    check_refused("wider", png_claiming(make_png_grey_interlaced(), 300, 300), "damaged PNG");
    check_refused("depth 3", png_header(24, 3), "damaged PNG");
    check_refused("depth 0", png_header(24, 0), "damaged PNG");
    check_refused("type 5", png_header(25, 5), "damaged PNG");
    check_refused("compression 1", png_header(26, 1), "damaged PNG");
    check_refused("interlacing 2", png_header(28, 2), "damaged PNG");
}

static file_bytes png_without(file_bytes file, const char *chunk)
{
    file_bytes out = { 0 };
    const size_t at = png_chunk(file, chunk), n = 12 + get_big(file.bytes + at);
    put(&out, file.bytes, at);
    put(&out, file.bytes + at + n, file.n - at - n);
    free(file.bytes);
    return out;
}

static file_bytes png_length(const char *chunk, uint32_t length)
{
    file_bytes file = make_png_palette();
    const size_t at = png_chunk(file, chunk);
    for (size_t i = 0; i < 4; i++)
        file.bytes[at + i] = (unsigned char)(length >> (24 - 8 * i));
    return file;
}

static void test_png_structure(void **state)
{
    (void)state;
    static const uint32_t LENGTHS[] = { 0, 1, 0x7fffffff, 0x80000000, 0xffffffff };
    static const char *const CHUNKS[] = { "PLTE", "IDAT", "IEND" };
    for (size_t i = 0; i < sizeof CHUNKS / sizeof *CHUNKS; i++) {
        for (size_t k = 0; k < sizeof LENGTHS / sizeof *LENGTHS; k++)
            if (i < 2 || LENGTHS[k] != 0) /* the end's length is 0 */
                check_refused(CHUNKS[i], png_length(CHUNKS[i], LENGTHS[k]), "PNG");
        check_refused(CHUNKS[i], png_without(make_png_palette(), CHUNKS[i]), "PNG");
    }
    file_bytes file = make_png_rgb();
    file.bytes[png_chunk(file, "IDAT") + 12] ^= 1;
    check_refused("checksum", file, "damaged PNG");
    file = make_png_rgb();
    file.bytes[4] = '\n'; /* a line end that was converted on the way */
    check_bomb("first bytes", file, "its first bytes are wrong");
}

/* A chunk of text that unpacks to a gigabyte is passed over, not unpacked. */
static void test_png_chunk_bomb(void **state)
{
    (void)state;
    static const char *const NAMES[] = { "zTXt", "iTXt", "iCCP", "tEXt", "sPLT", "prVt" };
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        file_bytes chunk = { 0 }, file = make_png_rgb();
        const size_t n = 1 << 20;
        unsigned char *zeros = calloc(n, 1);
        assert_non_null(zeros);
        memcpy(zeros, "name\0\0\x78\xda\xec\xc1\x01", 11);
        put_big(&chunk, (uint32_t)n, 4);
        put(&chunk, NAMES[i], 4);
        put(&chunk, zeros, n);
        put_big(&chunk, 0, 4);
        png_seal(chunk, 0);
        free(zeros);
        file = inserted(file, 33, chunk);
        verdict v = decode_watched(file.bytes, file.n, ENOUGH, 0);
        check_verdict(NAMES[i], &v, 0, FEW);
        if (v.status != CORVID_OK) fail_msg("%s: %s", NAMES[i], v.err.text);
        free(file.bytes);
    }
}

/* ---- WebP ------------------------------------------------------------------------------------ */

/* Lossless files have their size less one in 14 bits each, after a byte at 20. */
static file_bytes webp_claiming(size_t width, size_t height)
{
    file_bytes file = make_webp_lossless();
    const uint32_t bits = get_little(file.bytes + 21) & 0xf0000000u;
    const uint32_t all = bits | (uint32_t)(width - 1) | (uint32_t)(height - 1) << 14;
    for (size_t i = 0; i < 4; i++)
        file.bytes[21 + i] = (unsigned char)(all >> 8 * i);
    return file;
}

/* Lossy files have it as it is, at 26. */
static file_bytes webp_lossy_claiming(size_t width, size_t height)
{
    file_bytes file = make_webp_lossy();
    file.bytes[26] = (unsigned char)width, file.bytes[27] = (unsigned char)(width >> 8);
    file.bytes[28] = (unsigned char)height, file.bytes[29] = (unsigned char)(height >> 8);
    return file;
}

static file_bytes webp_canvas(file_bytes file, size_t width, size_t height)
{
    for (size_t i = 0; i < 3; i++) {
        file.bytes[24 + i] = (unsigned char)((width - 1) >> 8 * i);
        file.bytes[27 + i] = (unsigned char)((height - 1) >> 8 * i);
    }
    return file;
}

static void test_webp_lies(void **state)
{
    (void)state;
    check_refused("lossless 3000 x 3000", webp_claiming(3000, 3000), "WebP");
    check_refused("lossy 3000 x 3000", webp_lossy_claiming(3000, 3000), "WebP");
    check_bomb("canvas 65535 x 65535", webp_canvas(make_webp_animation(), 65535, 65535),
               "65535 x 65535 pixels is more than the 268435456 allowed (--max-pixels)");
    check_bomb("canvas 2^24 x 1", webp_canvas(make_webp_animation(), 1 << 24, 1), "WebP");
    check_bomb("canvas smaller", webp_canvas(make_webp_animation(), 5, 5), "damaged WebP");
    check_bomb("canvas of another size", webp_canvas(make_webp_exif(), W, H + 1), "damaged WebP");
    check_bomb("lossy without a width", webp_lossy_claiming(0, 11), "WebP");
    check_bomb("lossy without a height", webp_lossy_claiming(14, 0), "WebP");

    /* The largest that WebP can be: the usual limit just allows it. */
    file_bytes file = webp_claiming(16383, 16383);
    verdict v = decode_watched(file.bytes, file.n, 268402688, 0);
    assert_int_equal(v.status, CORVID_E_FORMAT);
    assert_non_null(strstr(v.err.text, "16383 x 16383 pixels is more than the 268402688 allowed"));
    assert_int_equal(v.calls, 0);
    free(file.bytes);
}

static file_bytes webp_length(file_bytes file, size_t at, uint32_t length)
{
    for (size_t i = 0; i < 4; i++)
        file.bytes[at + i] = (unsigned char)(length >> 8 * i);
    return file;
}

static void test_webp_structure(void **state)
{
    (void)state;
    static const uint32_t LENGTHS[] = { 0, 1, 3, 9, 0x7fffffff, 0xfffffff6, 0xffffffff };
    for (size_t k = 0; k < sizeof LENGTHS / sizeof *LENGTHS; k++) {
        check_bomb("file's length", webp_length(make_webp_lossy(), 4, LENGTHS[k]), "WebP");
        check_refused("picture's length", webp_length(make_webp_lossy(), 16, LENGTHS[k]), "WebP");
        check_refused("picture's length", webp_length(make_webp_lossless(), 16, LENGTHS[k]),
                      "WebP");
        check_bomb("extended length", webp_length(make_webp_exif(), 16, LENGTHS[k]), "WebP");
        check_refused("chunk in it", webp_length(make_webp_exif(), 34, LENGTHS[k]), "WebP");
        check_refused("chunk in it", webp_length(make_webp_animation(), 34, LENGTHS[k]), "WebP");
        check_refused("frame", webp_length(make_webp_animation(), 48, LENGTHS[k]), "WebP");
    }
    file_bytes file = webp_start(0x02, W, H);
    webp_seal(file);
    check_bomb("no frames", file, "WebP");
    file = webp_start(0x08, W, H);
    file_bytes exif = exif_block(true, 3);
    put_chunk(&file, "EXIF", exif.bytes, exif.n);
    free(exif.bytes);
    webp_seal(file);
    check_bomb("no picture", file, "WebP");
}

/* ---- the corpus ------------------------------------------------------------------------------ */

static int write_corpus(const char *folder)
{
    for (size_t i = 0; i < N_GOOD; i++) {
        char path[1024];
        file_bytes file = GOOD[i].make();
        snprintf(path, sizeof path, "%s/%s", folder, GOOD[i].name);
        test_write_file(path, file.bytes, file.n);
        free(file.bytes);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0) return write_corpus(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_flip_anywhere),
        cmocka_unit_test(test_byte_anywhere),
        cmocka_unit_test(test_shift_anywhere),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_jpeg_lies),
        cmocka_unit_test(test_jpeg_structure),
        cmocka_unit_test(test_jpeg_many_scans),
        cmocka_unit_test(test_png_lies),
        cmocka_unit_test(test_png_structure),
        cmocka_unit_test(test_png_chunk_bomb),
        cmocka_unit_test(test_webp_lies),
        cmocka_unit_test(test_webp_structure),
    };
    return cmocka_run_group_tests_name("hostile pictures", tests, NULL, NULL);
}
