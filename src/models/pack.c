/* pack.c - laying out panels; see pack.h. */
#include <string.h>

#include "models/pack.h"

/* Up to 16 rows of 2-byte or 4-byte elements, transposed. */
static void pack_u16(size_t cols, const unsigned char *rows, size_t row_bytes, size_t n_rows,
                     uint16_t *panel)
{
    for (size_t r = 0; r < n_rows; r++) {
        const uint16_t *row = (const uint16_t *)(const void *)(rows + r * row_bytes);
        for (size_t j = 0; j < cols; j++)
            panel[j * CV_PANEL + r] = row[j];
    }
}

static void pack_u32(size_t cols, const unsigned char *rows, size_t row_bytes, size_t n_rows,
                     uint32_t *panel)
{
    for (size_t r = 0; r < n_rows; r++) {
        const uint32_t *row = (const uint32_t *)(const void *)(rows + r * row_bytes);
        for (size_t j = 0; j < cols; j++)
            panel[j * CV_PANEL + r] = row[j];
    }
}

/* A full panel of halves, STEP inputs at a time so that what is written stays in cache. */
static void pack_u16_full(size_t cols, const unsigned char *rows, size_t row_bytes, uint16_t *panel)
{
    enum { STEP = 32 };
    size_t j0 = 0;
    for (; j0 + STEP <= cols; j0 += STEP) {
        uint16_t block[STEP][16];
        for (size_t r = 0; r < CV_PANEL; r++) {
            uint16_t row[STEP];
            memcpy(row, rows + r * row_bytes + j0 * sizeof *row, sizeof row);
            for (size_t j = 0; j < STEP; j++)
                block[j][r] = row[j];
        }
        memcpy(panel + j0 * CV_PANEL, block, sizeof block);
    }
    if (j0 < cols)
        pack_u16(cols - j0, rows + j0 * sizeof *panel, row_bytes, CV_PANEL, panel + j0 * CV_PANEL);
}

static void pack_q8(const cv_matrix *W, cv_dtype type, const unsigned char *rows, size_t row_bytes,
                    size_t n_rows, float factor, unsigned char *panel)
{
    const cv_dtype_info *info = cv_dtype_of(type);
    const size_t head = CV_PANEL * sizeof(float), heads = W->has_min ? 2 * head : head;
    const size_t group_bytes = heads + W->group * CV_PANEL, groups = info->block / W->group;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t b = 0; b < W->cols / info->block; b++) {
            int8_t q[256];
            float scale[16], min[16];
            cv_unpack(type, rows + r * row_bytes + b * info->block_bytes, q, scale, min);
            for (size_t g = 0; g < groups; g++) {
                unsigned char *at = panel + (b * groups + g) * group_bytes;
                const float s = scale[g] * factor, m = min[g] * factor;
                memcpy(at + r * sizeof s, &s, sizeof s);
                if (W->has_min) memcpy(at + head + r * sizeof m, &m, sizeof m);
                for (size_t i = 0; i < W->group; i++)
                    at[heads + i * CV_PANEL + r] = (unsigned char)q[g * W->group + i];
            }
        }
}

/* Multiplies raw rows in place; exact for powers of two short of overflow. */
static void rescale(const cv_matrix *W, cv_dtype type, float factor, unsigned char *panel)
{
    const size_t n = W->cols * CV_PANEL;
    for (size_t i = 0; i < n; i++) {
        if (W->layout == CV_LAYOUT_F32) {
            ((float *)(void *)panel)[i] *= factor;
            continue;
        }
        uint16_t *h = (uint16_t *)(void *)panel + i;
        float f;
        cv_to_f32(type, h, &f, 1);
        f *= factor;
        cv_from_f32(type, &f, h, 1);
    }
}

void cv_pack_panel(const cv_matrix *W, cv_dtype type, const unsigned char *rows, size_t row_bytes,
                   size_t n_rows, float scale, unsigned char *panel)
{
    if (n_rows < CV_PANEL) memset(panel, 0, W->panel_bytes);
    if (W->layout == CV_LAYOUT_Q8) {
        pack_q8(W, type, rows, row_bytes, n_rows, scale, panel);
        return;
    }
    if (W->layout == CV_LAYOUT_F32)
        pack_u32(W->cols, rows, row_bytes, n_rows, (uint32_t *)(void *)panel);
    else if (n_rows == CV_PANEL)
        pack_u16_full(W->cols, rows, row_bytes, (uint16_t *)(void *)panel);
    else
        pack_u16(W->cols, rows, row_bytes, n_rows, (uint16_t *)(void *)panel);
    if (scale != 1.0f) rescale(W, type, scale, panel);
}
