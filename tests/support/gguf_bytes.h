/* gguf_bytes.h - writes GGUF files field by field into memory, right ones and wrong ones.
 *
 * Used by the unit, hostile and fuzz tests of the reader.  It shares nothing with the writer that
 * is under test, and checks nothing: that is its purpose. */
#ifndef TEST_GGUF_BYTES_H
#define TEST_GGUF_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Types of values, as the format numbers them. */
enum {
    G_U8,
    G_I8,
    G_U16,
    G_I16,
    G_U32,
    G_I32,
    G_F32,
    G_BOOL,
    G_TEXT,
    G_ARRAY,
    G_U64,
    G_I64,
    G_F64
};

/* Types of elements used here. */
enum { G_TENSOR_F32 = 0, G_TENSOR_F16 = 1, G_TENSOR_Q8_0 = 8, G_TENSOR_Q4_K = 12 };

typedef struct gguf_bytes {
    unsigned char *bytes;
    size_t n, room;
} gguf_bytes;

static inline void g_put(gguf_bytes *g, const void *bytes, size_t n)
{
    if (g->n + n > g->room) {
        g->room = 2 * (g->n + n) + 256;
        g->bytes = realloc(g->bytes, g->room);
        if (!g->bytes) abort();
    }
    if (n) memcpy(g->bytes + g->n, bytes, n);
    g->n += n;
}

static inline void g_number(gguf_bytes *g, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)(value >> 8 * i);
        g_put(g, &byte, 1);
    }
}

static inline void g_u32(gguf_bytes *g, uint64_t value)
{
    g_number(g, value, 4);
}

static inline void g_u64(gguf_bytes *g, uint64_t value)
{
    g_number(g, value, 8);
}

static inline void g_f32(gguf_bytes *g, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    g_u32(g, bits);
}

static inline void g_f64(gguf_bytes *g, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    g_u64(g, bits);
}

static inline void g_text(gguf_bytes *g, const char *text)
{
    g_u64(g, strlen(text));
    g_put(g, text, strlen(text));
}

static inline void g_header(gguf_bytes *g, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    g_put(g, "GGUF", 4);
    g_u32(g, version);
    g_u64(g, n_tensors);
    g_u64(g, n_keys);
}

static inline void g_key(gguf_bytes *g, const char *key, uint32_t type)
{
    g_text(g, key);
    g_u32(g, type);
}

static inline void g_array(gguf_bytes *g, uint32_t type, uint64_t n)
{
    g_u32(g, type);
    g_u64(g, n);
}

static inline void g_tensor(gguf_bytes *g, const char *name, uint32_t n_dims, const uint64_t *ne,
                            uint32_t type, uint64_t offset)
{
    g_text(g, name);
    g_u32(g, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        g_u64(g, ne[i]);
    g_u32(g, type);
    g_u64(g, offset);
}

static inline void g_pad(gguf_bytes *g, size_t alignment)
{
    while (g->n % alignment)
        g_number(g, 0, 1);
}

static inline void g_zeros(gguf_bytes *g, size_t n)
{
    for (size_t i = 0; i < n; i++)
        g_number(g, 0, 1);
}

static inline void g_free(gguf_bytes *g)
{
    free(g->bytes);
    memset(g, 0, sizeof *g);
}

#endif
