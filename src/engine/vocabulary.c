/* vocabulary.c - finding a model's tokenizer; see vocabulary.h. */
#include <stdio.h>
#include <string.h>

#include "base/input.h"
#include "engine/vocabulary.h"

#define VOCAB_LIMIT ((size_t)64 << 20)

/* ---- Pieces in GGUF -------------------------------------------------------------------------- */

size_t cv_piece_escape(const char *bytes, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    char *at = out;
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)bytes[i];
        const char *named = c == '\n' ? "n" : c == '\t' ? "t" : c == '\r' ? "r" : NULL;
        if (c == '\\' || c == '\'') {
            *at++ = '\\';
            *at++ = (char)c;
        } else if (named) {
            *at++ = '\\';
            *at++ = *named;
        } else if (c < 0x20 || c >= 0x7f) {
            *at++ = '\\';
            *at++ = 'x';
            *at++ = digits[c >> 4];
            *at++ = digits[c & 15];
        } else {
            *at++ = (char)c;
        }
    }
    *at = '\0';
    return (size_t)(at - out);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

size_t cv_piece_unescape(const char *text, size_t n, char *out)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] != '\\' || i + 1 == n) {
            out[m++] = text[i];
            continue;
        }
        const char c = text[++i];
        if (c == 'x' && i + 2 < n && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0) {
            out[m++] = (char)(hex(text[i + 1]) * 16 + hex(text[i + 2]));
            i += 2;
        } else {
            out[m++] = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
        }
    }
    return m;
}

/* The "rwkv" vocabulary of a GGUF: control and unused entries have no text. */
static corvid_status from_pieces(const corvid_allocator *mem, const cv_meta *tokens,
                                 const cv_meta *types, cv_tokenizer **out, corvid_error *err)
{
    enum { NORMAL = 1, BYTE = 6 };
    cv_arena arena;
    cv_arena_init(&arena, mem);
    const size_t n = tokens->count;
    const char **bytes = cv_arena_alloc(&arena, n + 1, sizeof *bytes);
    size_t *lengths = cv_arena_alloc(&arena, n + 1, sizeof *lengths);
    corvid_status status = CORVID_OK;
    if (!bytes || !lengths) status = cv_fail(err, CORVID_E_MEMORY, "out of memory: a vocabulary");
    for (size_t i = 0; status == CORVID_OK && i < n; i++) {
        const cv_text *t = &tokens->texts[i];
        const int64_t type = types && i < types->count ? types->integers[i] : NORMAL;
        char *piece = cv_arena_alloc(&arena, t->n + 1, 1);
        if (!piece) {
            status = cv_fail(err, CORVID_E_MEMORY, "out of memory: a vocabulary");
            break;
        }
        lengths[i] = type == NORMAL || type == BYTE ? cv_piece_unescape(t->bytes, t->n, piece) : 0;
        bytes[i] = piece;
    }
    if (status == CORVID_OK) status = cv_tokenizer_pieces(mem, bytes, lengths, n, out, err);
    cv_arena_free(&arena);
    return status;
}

/* The vocabulary inside a checkpoint; *out stays NULL when it has none. */
static corvid_status from_checkpoint(const corvid_allocator *mem, const cv_checkpoint *ckpt,
                                     cv_tokenizer **out, corvid_error *err)
{
    const cv_meta *text = cv_checkpoint_meta(ckpt, CV_VOCAB_KEY);
    if (!text) text = cv_checkpoint_meta(ckpt, CV_BPE_KEY);
    if (text && text->type == CV_META_TEXT)
        return cv_tokenizer_parse(mem, text->text.bytes, text->text.n, ckpt->in.path, out, err);
    const cv_meta *kind = cv_checkpoint_meta(ckpt, "tokenizer.ggml.model");
    const cv_meta *tokens = cv_checkpoint_meta(ckpt, "tokenizer.ggml.tokens");
    const cv_meta *types = cv_checkpoint_meta(ckpt, "tokenizer.ggml.token_type");
    if (!kind || kind->type != CV_META_TEXT || strcmp(kind->text.bytes, "rwkv") != 0)
        return CORVID_OK;
    if (!tokens || tokens->type != CV_META_TEXTS || (types && types->type != CV_META_INTS))
        return cv_fail(err, CORVID_E_FORMAT, "%s: its rwkv vocabulary has no list of tokens",
                       ckpt->in.path);
    return from_pieces(mem, tokens, types, out, err);
}

/* ---- Files ----------------------------------------------------------------------------------- */

corvid_status cv_vocabulary_open(const corvid_allocator *mem, const char *path, cv_tokenizer **out,
                                 corvid_error *err)
{
    cv_input in;
    char *text = NULL, magic[9] = { 0 };
    size_t n = 0;
    *out = NULL;
    if (strcmp(path, "bytes") == 0) return cv_tokenizer_bytes(mem, out, err);
    CV_TRY(cv_input_open(&in, path, err));
    corvid_status status = CORVID_OK;
    if (in.size >= sizeof magic) status = cv_input_read(&in, 0, magic, sizeof magic, err);
    /* GGUF, or safetensors: a length of eight bytes and the brace of its header. */
    const bool checkpoint = memcmp(magic, "GGUF", 4) == 0 || (magic[0] != '{' && magic[8] == '{');
    if (status == CORVID_OK && checkpoint) {
        cv_checkpoint ckpt;
        status = cv_checkpoint_open(mem, path, &ckpt, err);
        if (status == CORVID_OK) {
            status = from_checkpoint(mem, &ckpt, out, err);
            if (status == CORVID_OK && !*out)
                status = cv_fail(err, CORVID_E_FORMAT, "%s: holds no vocabulary of RWKV", in.path);
            cv_checkpoint_close(&ckpt);
        }
    } else if (status == CORVID_OK) {
        status = cv_input_read_all(&in, mem, VOCAB_LIMIT, &text, &n, err);
        if (status == CORVID_OK) status = cv_tokenizer_parse(mem, text, n, in.path, out, err);
    }
    cv_free(mem, text);
    cv_input_close(&in);
    return status;
}

/* Vocabularies are a little smaller than the models' tables, which are padded; never much. */
static corvid_status check_size(const corvid_allocator *mem, size_t V, const char *where,
                                cv_tokenizer **tok, corvid_error *err)
{
    enum { PADDING = 256 };
    const size_t size = cv_tokenizer_size(*tok);
    if (size <= V && V - size < PADDING) return CORVID_OK;
    cv_tokenizer_free(*tok);
    *tok = NULL;
    (void)mem;
    return cv_fail(err, CORVID_E_MISMATCH,
                   "%s: a vocabulary of %zu tokens, but the model has %zu; World models need %s, "
                   "Pile and Raven models %s",
                   where, size, V, CV_WORLD_FILE, CV_BPE_FILE);
}

static const char *file_for(size_t V)
{
    return V >= 50254 && V <= 50432 ? CV_BPE_FILE : CV_WORLD_FILE;
}

/* Tries folder/name; *out stays NULL when there is no such file. */
static corvid_status try_folder(const corvid_allocator *mem, const char *folder, size_t folder_n,
                                const char *name, char *path, size_t n, cv_tokenizer **out,
                                corvid_error *err)
{
    cv_input in;
    const int length =
        snprintf(path, n, "%.*s%s%s", (int)folder_n, folder, folder_n ? "/" : "", name);
    if (length < 0 || (size_t)length >= n) return CORVID_OK;
    if (cv_input_open(&in, path, NULL) != CORVID_OK) return CORVID_OK;
    cv_input_close(&in);
    return cv_vocabulary_open(mem, path, out, err);
}

corvid_status cv_vocabulary_find(const corvid_allocator *mem, size_t V, const char *explicit_path,
                                 const cv_checkpoint *ckpt, const char *model_path,
                                 const char *folder, cv_tokenizer **out, corvid_error *err)
{
    char path[4096];
    const char *name = file_for(V), *where = path;
    *out = NULL;
    if (explicit_path) {
        CV_TRY(cv_vocabulary_open(mem, explicit_path, out, err));
        return check_size(mem, V, explicit_path, out, err);
    }
    if (ckpt) {
        where = ckpt->in.path;
        CV_TRY(from_checkpoint(mem, ckpt, out, err));
    }
    if (!*out && V == 256) return cv_tokenizer_bytes(mem, out, err);
    if (!*out && model_path) {
        const char *slash = strrchr(model_path, '/');
        const size_t n = slash ? (size_t)(slash - model_path) : 0;
        where = path;
        CV_TRY(try_folder(mem, slash ? model_path : "", slash && n == 0 ? 1 : n, name, path,
                          sizeof path, out, err));
    }
    if (!*out && folder) {
        where = path;
        CV_TRY(try_folder(mem, folder, strlen(folder), name, path, sizeof path, out, err));
    }
    if (*out) return check_size(mem, V, where, out, err);
    return cv_fail(err, CORVID_E_FILE,
                   "no vocabulary for this model of %zu tokens: download %s (%s) and put it beside "
                   "the model%s%s, or give it with --vocab",
                   V, name,
                   name[0] == 'r' ? "from BlinkDL/ChatRWKV, rwkv_pip_package/src/rwkv"
                                  : "from BlinkDL/ChatRWKV or BlinkDL/RWKV-LM",
                   folder ? " or into " : "", folder ? folder : "");
}
