/* tiny_bpe.h - a small tokenizer.json of the GPT-NeoX family, written by the test that needs it. */
#ifndef TEST_TINY_BPE_H
#define TEST_TINY_BPE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TINY_TOKENS 700
#define TINY_BYTES  16

/* Tokens 0 (found in the raw text), 1 .. 256 (byte + 1), 257 .. n - 1 (merges in order of rank);
 * behind them the added tokens "  " and "   " (ids n, n + 1), found in the normal form. */
typedef struct tiny_bpe {
    unsigned char token[TINY_TOKENS][TINY_BYTES];
    size_t length[TINY_TOKENS];
    size_t n;
    int left[TINY_TOKENS], right[TINY_TOKENS];
} tiny_bpe;

#define TINY_SPECIAL "<|end|>"

static inline int tiny_find(const tiny_bpe *t, const void *bytes, size_t n)
{
    for (size_t id = 1; id < t->n; id++)
        if (t->length[id] == n && memcmp(t->token[id], bytes, n) == 0) return (int)id;
    return -1;
}

static inline void tiny_begin(tiny_bpe *t)
{
    memset(t, 0, sizeof *t);
    for (size_t b = 0; b < 256; b++) {
        t->token[b + 1][0] = (unsigned char)b;
        t->length[b + 1] = 1;
    }
    t->n = 257;
}

/* Adds the merge of two ids; false when the result is there already, or too long. */
static inline bool tiny_merge(tiny_bpe *t, int left, int right)
{
    unsigned char bytes[2 * TINY_BYTES];
    const size_t n = t->length[left], m = t->length[right];
    memcpy(bytes, t->token[left], n);
    memcpy(bytes + n, t->token[right], m);
    if (t->n == TINY_TOKENS || n + m > TINY_BYTES || tiny_find(t, bytes, n + m) >= 0) return false;
    memcpy(t->token[t->n], bytes, n + m);
    t->length[t->n] = n + m;
    t->left[t->n] = left;
    t->right[t->n] = right;
    t->n++;
    return true;
}

/* The merge of two texts that are tokens. */
static inline bool tiny_merge_texts(tiny_bpe *t, const char *left, const char *right)
{
    const int a = tiny_find(t, left, strlen(left)), b = tiny_find(t, right, strlen(right));
    return a >= 0 && b >= 0 && tiny_merge(t, a, b);
}

typedef struct tiny_text {
    char *at;
    size_t n, room;
} tiny_text;

static inline void tiny_print(tiny_text *text, const char *format, ...)
{
    va_list args;
    if (text->room - text->n < 512) {
        text->room = text->room ? 2 * text->room : 65536;
        text->at = realloc(text->at, text->room);
        if (!text->at) abort();
    }
    va_start(args, format);
    text->n += (size_t)vsnprintf(text->at + text->n, 512, format, args);
    va_end(args);
}

/* A token in letters: those bytes that are not printable in Latin-1 are counted on from U+0100. */
static inline void tiny_letters(tiny_text *text, const tiny_bpe *t, int id)
{
    for (size_t i = 0; i < t->length[id]; i++) {
        const unsigned byte = t->token[id][i];
        unsigned letter = 0x100;
        for (unsigned b = 0; b <= byte; b++) {
            const bool plain = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD);
            if (b == byte && plain) letter = byte;
            if (b < byte && !plain) letter++;
        }
        tiny_print(text, "\\u%04x", letter);
    }
}

/* The file; pairs chooses the newer form of the merges.  To be freed. */
static inline char *tiny_json(const tiny_bpe *t, bool pairs)
{
    tiny_text text = { 0 };
    tiny_print(&text,
               "{\"added_tokens\":[{\"id\":0,\"content\":\"%s\",\"special\":true,"
               "\"normalized\":false},\n{\"id\":%zu,\"content\":\"  \",\"special\":false,"
               "\"normalized\":true},\n{\"id\":%zu,\"content\":\"   \",\"special\":false}],\n",
               TINY_SPECIAL, t->n, t->n + 1);
    tiny_print(&text,
               "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\","
               "\"add_prefix_space\":false},\n\"model\":{\"type\":\"BPE\",\"dropout\":null,"
               "\"vocab\":{\"%s\":0",
               TINY_SPECIAL);
    for (int id = 1; id < (int)t->n; id++) {
        tiny_print(&text, ",\n\"");
        tiny_letters(&text, t, id);
        tiny_print(&text, "\":%d", id);
    }
    tiny_print(&text, "},\"merges\":[");
    for (int id = 257; id < (int)t->n; id++) {
        tiny_print(&text, "%s\n%s\"", id > 257 ? "," : "", pairs ? "[" : "");
        tiny_letters(&text, t, t->left[id]);
        tiny_print(&text, pairs ? "\",\"" : " ");
        tiny_letters(&text, t, t->right[id]);
        tiny_print(&text, pairs ? "\"]" : "\"");
    }
    tiny_print(&text, "]}}\n");
    return text.at;
}

#endif
