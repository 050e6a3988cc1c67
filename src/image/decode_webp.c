/* decode_webp.c - WebP by libwebp and libwebpdemux: lossy, lossless, and an animation's first frame.
 *
 * Transparency is dropped, not blended.  What the first frame leaves free of its canvas is black, as
 * in Pillow.  Colour profiles and the other frames are not looked at. */
#include "decode.h"

#include <limits.h>
#include <string.h>
#include <webp/decode.h>
#include <webp/demux.h>

static corvid_status fail_status(const cv_encoded *in, VP8StatusCode code, corvid_error *err)
{
    switch (code) {
    case VP8_STATUS_OUT_OF_MEMORY:
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: for %s", in->name);
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA: return cv_decode_cut(in, "WebP", err);
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return cv_decode_damaged(in, "a WebP picture of an unknown kind", NULL, err);
    default: return cv_decode_damaged(in, "a damaged WebP picture", "its coded data is wrong", err);
    }
}

static corvid_status read_size(const cv_encoded *in, size_t *width, size_t *height,
                               corvid_error *err)
{
    WebPBitstreamFeatures features;
    const VP8StatusCode code = WebPGetFeatures(in->bytes, in->n, &features);
    if (code != VP8_STATUS_OK) return fail_status(in, code, err);
    if (features.width < 0 || features.height < 0)
        return fail_status(in, VP8_STATUS_BITSTREAM_ERROR, err);
    *width = (size_t)features.width;
    *height = (size_t)features.height;
    return cv_decode_size(in, *width, *height, err);
}

/* The frame's pixels go straight into their place on the canvas. */
static corvid_status unpack(const cv_encoded *in, const WebPIterator *frame, cv_picture *out,
                            corvid_error *err)
{
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config))
        return cv_fail(err, CORVID_E_INTERNAL, "%s: libwebp is of another version than its headers",
                       in->name);
    const VP8StatusCode code =
        WebPGetFeatures(frame->fragment.bytes, frame->fragment.size, &config.input);
    if (code != VP8_STATUS_OK) return fail_status(in, code, err);

    const size_t x = (size_t)frame->x_offset, y = (size_t)frame->y_offset;
    const size_t wide = (size_t)frame->width, high = (size_t)frame->height;
    if (config.input.width != frame->width || config.input.height != frame->height ||
        x > out->width || wide > out->width - x || y > out->height || high > out->height - y)
        return cv_decode_damaged(in, "a damaged WebP picture", "a frame is larger than its canvas",
                                 err);
    if (wide < out->width || high < out->height)
        memset(out->pixels, 0, 3 * out->width * out->height);

    const size_t stride = 3 * out->width, start = y * stride + 3 * x;
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = out->pixels + start;
    config.output.u.RGBA.stride = (int)stride;
    config.output.u.RGBA.size = out->height * stride - start;
    const VP8StatusCode done = WebPDecode(frame->fragment.bytes, frame->fragment.size, &config);
    return done == VP8_STATUS_OK ? CORVID_OK : fail_status(in, done, err);
}

static int read_orientation(const WebPDemuxer *file)
{
    WebPChunkIterator exif = { 0 };
    int orientation = 1;
    if (WebPDemuxGetChunk(file, "EXIF", 1, &exif))
        orientation = cv_decode_orientation(exif.chunk.bytes, exif.chunk.size);
    WebPDemuxReleaseChunkIterator(&exif);
    return orientation;
}

static corvid_status unpack_first(const cv_encoded *in, const WebPDemuxer *file, size_t width,
                                  size_t height, cv_picture *out, corvid_error *err)
{
    WebPIterator frame = { 0 };
    if (!WebPDemuxGetFrame(file, 1, &frame) || !frame.complete) {
        WebPDemuxReleaseIterator(&frame);
        return cv_decode_damaged(in, "a WebP file without a picture in it", NULL, err);
    }
    corvid_status status = cv_decode_room(in, width, height, out, err);
    if (status == CORVID_OK) status = unpack(in, &frame, out, err);
    WebPDemuxReleaseIterator(&frame);
    if (status == CORVID_OK) out->orientation = read_orientation(file);
    return status;
}

corvid_status cv_decode_webp(const cv_encoded *in, cv_picture *out, corvid_error *err)
{
    size_t width = 0, height = 0;
    CV_TRY(read_size(in, &width, &height, err));
    if (width > INT_MAX / 3)
        return cv_decode_damaged(in, "a damaged WebP picture", "it is too wide", err);
    const WebPData data = { in->bytes, in->n };
    WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
    WebPDemuxer *file = WebPDemuxPartial(&data, &state);
    corvid_status status;
    if (state == WEBP_DEMUX_PARSE_ERROR)
        status = cv_decode_damaged(in, "a damaged WebP picture", "its chunks do not fit", err);
    else if (state != WEBP_DEMUX_DONE)
        status = cv_decode_cut(in, "WebP", err);
    else
        status = unpack_first(in, file, width, height, out, err);
    WebPDemuxDelete(file);
    return status;
}
