/* text_sources.c - finding the files of a text, and reading their documents.
 *
 * Files are read a megabyte at a time and handed on as they come, so their size does not matter; a
 * line of JSON must fit in memory.  Jansson reads the lines (it allocates from the C library).
 * Standard input comes in the same pieces as a file with that text: who gets them cannot tell. */
#include "train/text_sources.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/checked.h"
#include "train/binidx.h"

#define PIECE       ((size_t)1 << 20)
#define LINE_LIMIT  ((size_t)1 << 28)
#define DEEPEST     64 /* folders in folders */
#define PATH_BYTES  4096
#define IDS_AT_ONCE ((size_t)4096)

/* ---- finding -------------------------------------------------------------------------------- */

static bool ends_in(const char *path, const char *end)
{
    const size_t n = strlen(path), m = strlen(end);
    return n > m && strcmp(path + n - m, end) == 0;
}

static corvid_status out_of_memory(corvid_error *err)
{
    return cv_fail(err, CORVID_E_MEMORY, "out of memory: the list of texts");
}

static corvid_status fail_file(const char *path, int error, corvid_error *err)
{
    return cv_fail(err, CORVID_E_FILE,
                   "%.512s: cannot be read: %s; check the spelling and the "
                   "permissions",
                   path, strerror(error));
}

/* Old arrays stay in the arena; doubling keeps that small. */
static corvid_status push(cv_text_files *files, cv_text_file file, corvid_error *err)
{
    if (files->n == files->capacity) {
        const size_t capacity = files->capacity > 0 ? 2 * files->capacity : 64;
        cv_text_file *wider = cv_arena_alloc(&files->arena, capacity, sizeof *wider);
        if (!wider) return out_of_memory(err);
        if (files->n > 0) memcpy(wider, files->of, files->n * sizeof *wider);
        files->of = wider;
        files->capacity = capacity;
    }
    file.path = cv_arena_text(&files->arena, file.path, strlen(file.path));
    if (!file.path) return out_of_memory(err);
    files->of[files->n++] = file;
    files->total_bytes += file.size;
    const int64_t about[2] = { (int64_t)file.size, file.modified_ns };
    files->hash = XXH3_64bits_withSeed(file.path, strlen(file.path), files->hash);
    files->hash = XXH3_64bits_withSeed(about, sizeof about, files->hash);
    return CORVID_OK;
}

static corvid_status push_file(cv_text_files *files, const char *path, cv_text_kind kind,
                               const struct stat *info, corvid_error *err)
{
    const int64_t ns = (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
    return push(
        files,
        (cv_text_file){
            .path = path, .kind = kind, .size = (uint64_t)info->st_size, .modified_ns = ns },
        err);
}

static cv_text_kind kind_of(const char *path)
{
    return ends_in(path, ".jsonl") ? CV_TEXT_JSON_LINES : CV_TEXT_PLAIN;
}

/* Both files of a data set count: the tokens with their bytes, the index with its time. */
static corvid_status push_tokens(cv_text_files *files, const char *path, corvid_error *err)
{
    cv_binidx_paths pair;
    struct stat index, tokens;
    CV_TRY(cv_binidx_find(path, &pair, err));
    if (stat(pair.index, &index) != 0) return fail_file(pair.index, errno, err);
    if (stat(pair.tokens, &tokens) != 0) return fail_file(pair.tokens, errno, err);
    const int64_t about[3] = { (int64_t)index.st_size, (int64_t)index.st_mtim.tv_sec,
                               (int64_t)index.st_mtim.tv_nsec };
    files->hash = XXH3_64bits_withSeed(about, sizeof about, files->hash);
    return push_file(files, pair.tokens, CV_TEXT_TOKENS, &tokens, err);
}

static corvid_status push_stream(cv_text_files *files, corvid_error *err)
{
    if (files->has_stream)
        return cv_fail(err, CORVID_E_ARGUMENT,
                       "standard input (-) is given twice and can be read once; give it once");
    files->has_stream = true;
    return push(files, (cv_text_file){ .path = "standard input", .kind = CV_TEXT_STREAM }, err);
}

static int by_name(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* The names in a folder, sorted, in the arena. */
static corvid_status list_folder(cv_arena *arena, const char *path, const char ***names, size_t *n,
                                 corvid_error *err)
{
    size_t capacity = 64;
    corvid_status status = CORVID_OK;
    DIR *dir = opendir(path);
    if (!dir) return fail_file(path, errno, err);
    *n = 0;
    *names = cv_arena_alloc(arena, capacity, sizeof **names);
    if (!*names) status = out_of_memory(err);
    while (status == CORVID_OK) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno != 0) status = fail_file(path, errno, err);
            break;
        }
        if (entry->d_name[0] == '.') continue;
        if (*n == capacity) {
            const char **wider = cv_arena_alloc(arena, 2 * capacity, sizeof *wider);
            if (!wider) {
                status = out_of_memory(err);
                break;
            }
            memcpy(wider, *names, *n * sizeof *wider);
            *names = wider;
            capacity *= 2;
        }
        (*names)[*n] = cv_arena_text(arena, entry->d_name, strlen(entry->d_name));
        if (!(*names)[(*n)++]) status = out_of_memory(err);
    }
    closedir(dir);
    if (status == CORVID_OK && *n > 0) qsort(*names, *n, sizeof **names, by_name);
    return status;
}

static corvid_status find_in_folder(cv_text_files *files, const char *folder, size_t depth,
                                    corvid_error *err);

/* One entry of a folder: a text, a folder, or something to leave out. */
static corvid_status find_entry(cv_text_files *files, const char *path, size_t depth,
                                corvid_error *err)
{
    struct stat link, info;
    if (lstat(path, &link) != 0) return fail_file(path, errno, err);
    if (S_ISDIR(link.st_mode)) return find_in_folder(files, path, depth + 1, err);
    if (!ends_in(path, ".txt") && !ends_in(path, ".jsonl")) return CORVID_OK;
    if (stat(path, &info) != 0) return fail_file(path, errno, err);
    return S_ISREG(info.st_mode) ? push_file(files, path, kind_of(path), &info, err) : CORVID_OK;
}

static corvid_status find_in_folder(cv_text_files *files, const char *folder, size_t depth,
                                    corvid_error *err)
{
    char path[PATH_BYTES];
    const char **names = NULL;
    size_t n = 0, length = strlen(folder);
    if (depth > DEEPEST)
        return cv_fail(err, CORVID_E_FILE, "%.512s: lies more than %d folders deep; give it itself",
                       folder, DEEPEST);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    CV_TRY(list_folder(&files->arena, folder, &names, &n, err));
    for (size_t i = 0; i < n; i++) {
        const int written = snprintf(path, sizeof path, "%.*s%s%s", (int)length, folder,
                                     length == 1 && folder[0] == '/' ? "" : "/", names[i]);
        if (written < 0 || (size_t)written >= sizeof path)
            return fail_file(folder, ENAMETOOLONG, err);
        CV_TRY(find_entry(files, path, depth, err));
    }
    return CORVID_OK;
}

static corvid_status find_source(cv_text_files *files, const cv_text_source *source,
                                 corvid_error *err)
{
    struct stat info;
    const size_t before = files->n;
    if (source->bytes) {
        const uint64_t hash = XXH3_64bits(source->bytes, source->n);
        const char *name = source->path ? source->path : "memory";
        return push(files,
                    (cv_text_file){ .path = name,
                                    .bytes = source->bytes,
                                    .kind = kind_of(name),
                                    .size = source->n,
                                    .modified_ns = (int64_t)hash },
                    err);
    }
    if (!source->path) return cv_fail(err, CORVID_E_ARGUMENT, "a text without path and bytes");
    if (strcmp(source->path, "-") == 0) return push_stream(files, err);
    if (strlen(source->path) >= PATH_BYTES) return fail_file(source->path, ENAMETOOLONG, err);
    if (stat(source->path, &info) != 0) return fail_file(source->path, errno, err);
    if (S_ISREG(info.st_mode) && cv_binidx_is_named(source->path))
        return push_tokens(files, source->path, err);
    if (!S_ISDIR(info.st_mode))
        return push_file(files, source->path, kind_of(source->path), &info, err);
    CV_TRY(find_in_folder(files, source->path, 0, err));
    if (files->n > before) return CORVID_OK;
    return cv_fail(err, CORVID_E_FILE,
                   "%.512s: the folder has no .txt or .jsonl file; give the files themselves if "
                   "they have other names",
                   source->path);
}

corvid_status cv_text_files_find(const corvid_allocator *mem, const cv_text_source *sources,
                                 size_t n, cv_text_files *out, corvid_error *err)
{
    *out = (cv_text_files){ .n = 0 };
    cv_arena_init(&out->arena, mem);
    corvid_status status = CORVID_OK;
    if (n == 0) status = cv_fail(err, CORVID_E_ARGUMENT, "no text was given");
    for (size_t i = 0; status == CORVID_OK && i < n; i++)
        status = find_source(out, &sources[i], err);
    if (status != CORVID_OK) cv_text_files_free(out);
    return status;
}

void cv_text_files_free(cv_text_files *files)
{
    if (files->arena.mem) cv_arena_free(&files->arena);
    *files = (cv_text_files){ .n = 0 };
}

/* ---- reading -------------------------------------------------------------------------------- */

typedef struct reading {
    const cv_text_reader *to;
    const corvid_allocator *mem;
    uint64_t done, total; /* bytes of all files; total 0: not known */
    char *buffer;
    size_t filled, capacity;
    corvid_error *err;
} reading;

/* After n more bytes: says how far it is, and asks whether to go on. */
static corvid_status advance(reading *r, size_t n)
{
    const cv_text_reader *to = r->to;
    r->done += n;
    if (to->progress) to->progress(to->callback_ctx, r->done, r->total);
    if (to->cancel && to->cancel(to->callback_ctx) != 0)
        return cv_fail(r->err, CORVID_E_CANCELLED, "reading texts was cancelled");
    return CORVID_OK;
}

static corvid_status hand_on(const reading *r, const char *bytes, size_t n, bool last)
{
    return r->to->piece(r->to->ctx, bytes, n, last, r->err);
}

/* In front of what was found wrong with a text: where that is.  The disk's and the memory's
 * complaints are not the text's. */
static corvid_status in_text(corvid_status status, const char *where, corvid_error *err)
{
    if (status == CORVID_E_ARGUMENT || status == CORVID_E_FORMAT) cv_error_prefix(err, where);
    return status;
}

/* The whole input is one document. */
static corvid_status read_plain(reading *r, const cv_input *in)
{
    for (uint64_t at = 0; at < in->size;) {
        const size_t n = in->size - at < PIECE ? (size_t)(in->size - at) : PIECE;
        CV_TRY(cv_input_read(in, at, r->buffer, n, r->err));
        CV_TRY(in_text(hand_on(r, r->buffer, n, false), in->path, r->err));
        CV_TRY(advance(r, n));
        at += n;
    }
    return in_text(hand_on(r, NULL, 0, true), in->path, r->err);
}

/* Reads until the piece is full or the stream ends. */
static corvid_status fill_piece(reading *r, const char *name, size_t *n)
{
    for (*n = 0; *n < PIECE;) {
        const ssize_t got = read(STDIN_FILENO, r->buffer + *n, PIECE - *n);
        if (got == 0) break;
        if (got > 0)
            *n += (size_t)got;
        else if (errno != EINTR)
            return cv_fail(r->err, CORVID_E_FILE,
                           "%s: cannot be read after %llu bytes: %s; is something piped in?", name,
                           (unsigned long long)r->done + *n, strerror(errno));
        else if (r->to->cancel && r->to->cancel(r->to->callback_ctx) != 0)
            return cv_fail(r->err, CORVID_E_CANCELLED, "reading texts was cancelled");
    }
    return CORVID_OK;
}

/* Standard input to its end is one document. */
static corvid_status read_stream(reading *r, const char *name)
{
    size_t n;
    do {
        CV_TRY(fill_piece(r, name, &n));
        if (n == 0) break;
        CV_TRY(in_text(hand_on(r, r->buffer, n, false), name, r->err));
        CV_TRY(advance(r, n));
    } while (n == PIECE);
    return in_text(hand_on(r, NULL, 0, true), name, r->err);
}

/* A document of a data set of tokens. */
static corvid_status read_ids(reading *r, const cv_binidx *set, uint64_t document)
{
    int32_t ids[IDS_AT_ONCE];
    uint64_t from, left;
    CV_TRY(cv_binidx_document(set, document, &from, &left, r->err));
    while (left > 0) {
        const size_t n = left < IDS_AT_ONCE ? (size_t)left : IDS_AT_ONCE;
        CV_TRY(cv_binidx_read(set, from, n, r->to->vocabulary_size, ids, r->err));
        left -= n;
        from += n;
        CV_TRY(r->to->ids(r->to->ctx, ids, n, left == 0, r->err));
        CV_TRY(advance(r, n * set->token_bytes));
    }
    return CORVID_OK;
}

static corvid_status read_token_set(reading *r, const char *path)
{
    cv_binidx set;
    if (!r->to->ids)
        return cv_fail(r->err, CORVID_E_ARGUMENT,
                       "%.512s: holds tokens, which have a vocabulary already; expected texts: "
                       "give the .txt or .jsonl files it was made from",
                       path);
    CV_TRY(cv_binidx_open(&set, path, r->err));
    corvid_status status = CORVID_OK;
    for (uint64_t d = 0; status == CORVID_OK && d < set.n_documents; d++)
        status = read_ids(r, &set, d);
    cv_binidx_close(&set);
    return status;
}

static bool is_blank(const char *line, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
    return true;
}

static corvid_status read_line(const reading *r, const cv_input *in, const char *line, size_t n,
                               uint64_t number)
{
    json_error_t problem = { .text = "" }; /* Jansson leaves it alone when it cannot even begin */
    if (is_blank(line, n)) return CORVID_OK;
    json_t *object = json_loadb(line, n, JSON_ALLOW_NUL, &problem);
    const json_t *text = json_object_get(object, "text");
    char where[600];
    corvid_status status;
    if (!object &&
        (problem.text[0] == '\0' || json_error_code(&problem) == json_error_out_of_memory))
        status = cv_fail(r->err, CORVID_E_MEMORY, "out of memory while reading JSON");
    else if (!object)
        status = cv_fail(r->err, CORVID_E_FORMAT,
                         "column %d: %s; expected a JSON object with the field \"text\"",
                         problem.column, problem.text);
    else if (!json_is_string(text))
        status =
            cv_fail(r->err, CORVID_E_FORMAT,
                    "%s, expected a JSON object with a string in the field \"text\"",
                    text ? "the field \"text\" is not a string" : "there is no field \"text\"");
    else
        status = hand_on(r, json_string_value(text), json_string_length(text), true);
    json_decref(object);
    snprintf(where, sizeof where, "%s: line %llu", in->path, (unsigned long long)number);
    return in_text(status, where, r->err);
}

/* Room for another piece behind what is filled; a line has a limit. */
static corvid_status more_room(reading *r, const cv_input *in, uint64_t number)
{
    char *wider = NULL;
    if (r->capacity - r->filled >= PIECE) return CORVID_OK;
    if (r->filled > LINE_LIMIT)
        return cv_fail(r->err, CORVID_E_FORMAT,
                       "%s: line %llu: has more than %zu bytes; is this JSON with one object in "
                       "each line?",
                       in->path, (unsigned long long)number, LINE_LIMIT);
    const size_t capacity = 2 * r->capacity + PIECE;
    CV_TRY(cv_alloc_or_fail(r->mem, capacity, 1, in->path, (void **)&wider, r->err));
    memcpy(wider, r->buffer, r->filled);
    cv_free(r->mem, r->buffer);
    r->buffer = wider;
    r->capacity = capacity;
    return CORVID_OK;
}

/* The whole lines in the buffer; what is left moves to its front.  `seen` bytes of that are known to
 * have no line end. */
static corvid_status read_whole_lines(reading *r, const cv_input *in, size_t seen, uint64_t *number)
{
    size_t start = 0;
    for (;;) {
        const char *from = r->buffer + (seen > start ? seen : start);
        const char *end = memchr(from, '\n', (size_t)(r->buffer + r->filled - from));
        if (!end) break;
        const size_t length = (size_t)(end - (r->buffer + start));
        CV_TRY(read_line(r, in, r->buffer + start, length, ++*number));
        start += length + 1;
    }
    r->filled -= start;
    memmove(r->buffer, r->buffer + start, r->filled);
    return CORVID_OK;
}

static corvid_status read_json_lines(reading *r, const cv_input *in)
{
    uint64_t number = 0;
    r->filled = 0;
    for (uint64_t at = 0; at < in->size;) {
        const size_t n = in->size - at < PIECE ? (size_t)(in->size - at) : PIECE;
        CV_TRY(more_room(r, in, number + 1));
        const size_t seen = r->filled;
        CV_TRY(cv_input_read(in, at, r->buffer + seen, n, r->err));
        r->filled += n;
        /* A byte order mark is no part of the first line. */
        if (at == 0 && n >= 3 && memcmp(r->buffer, "\xEF\xBB\xBF", 3) == 0)
            memcpy(r->buffer, "   ", 3);
        CV_TRY(read_whole_lines(r, in, seen, &number));
        CV_TRY(advance(r, n));
        at += n;
    }
    return read_line(r, in, r->buffer, r->filled, number + 1);
}

static corvid_status read_file(reading *r, const cv_text_file *file)
{
    cv_input in;
    if (file->kind == CV_TEXT_STREAM) return read_stream(r, file->path);
    if (file->kind == CV_TEXT_TOKENS) return read_token_set(r, file->path);
    if (file->bytes)
        cv_input_memory(&in, file->bytes, (size_t)file->size, file->path);
    else
        CV_TRY(cv_input_open(&in, file->path, r->err));
    const corvid_status status =
        file->kind == CV_TEXT_JSON_LINES ? read_json_lines(r, &in) : read_plain(r, &in);
    cv_input_close(&in);
    return status;
}

corvid_status cv_text_files_read(const cv_text_files *files, const cv_text_reader *reader,
                                 uint64_t *bytes, corvid_error *err)
{
    reading r = { .to = reader,
                  .mem = files->arena.mem,
                  .total = files->has_stream ? 0 : files->total_bytes,
                  .capacity = PIECE,
                  .err = err };
    CV_TRY(cv_alloc_or_fail(r.mem, PIECE, 1, "reading texts", (void **)&r.buffer, err));
    corvid_status status = CORVID_OK;
    for (size_t i = 0; status == CORVID_OK && i < files->n; i++)
        status = read_file(&r, &files->of[i]);
    cv_free(r.mem, r.buffer);
    if (bytes) *bytes = r.done;
    return status;
}
