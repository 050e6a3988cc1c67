/* tensor_file.c - safetensors files of f32 numbers, read and written.
 *
 * Both directions work on rows, so that memory does not grow with the file.  Nothing in a header is
 * believed: every size is compared with the file. */
#include "tensor_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "term.h"

#define HEADER_MOST 100000000 /* as every reader of the format has it */
#define NAME_MOST   128       /* bytes of a name of a tensor that is written */
#define PIECE       4096      /* numbers turned into bytes at a time */

static void put_u64(unsigned char out[8], uint64_t v)
{
    for (int i = 0; i < 8; i++)
        out[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get_u64(const unsigned char in[8])
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v |= (uint64_t)in[i] << (8 * i);
    return v;
}

/* ---- Reading --------------------------------------------------------------------------------- */

static void split_spec(tensor_in *t, const char *spec, const char *name)
{
    const char *slash = strrchr(spec, '/');
    const char *colon = strrchr(slash ? slash : spec, ':');
    if (!colon || access(spec, F_OK) == 0) {
        t->path = cli_copy(spec);
        t->name = cli_copy(name);
        return;
    }
    t->path = cli_copy(spec);
    t->path[colon - spec] = 0;
    t->name = cli_copy(colon + 1);
}

/* The header as JSON; *begin and *end receive where the data lies.  NULL after a message. */
static json_t *read_header(const tensor_in *t, uint64_t *begin, uint64_t *end, int *code)
{
    struct stat about;
    unsigned char length[8];
    *code = CORVID_E_FORMAT;
    if (fstat(fileno(t->file), &about) != 0 || !S_ISREG(about.st_mode)) {
        *code = fail(CORVID_E_FILE, "%s: is not a file", t->path);
        return NULL;
    }
    *end = (uint64_t)about.st_size;
    uint64_t n = fread(length, 1, 8, t->file) == 8 ? get_u64(length) : 0;
    if (n < 2 || n > HEADER_MOST || n > *end - 8) {
        fail(*code, "%s: is not a safetensors file: its header would have %llu of %llu bytes",
             t->path, (unsigned long long)n, (unsigned long long)*end);
        return NULL;
    }
    char *text = cli_array((size_t)n, 1);
    json_error_t problem;
    json_t *header = NULL;
    bool whole = fread(text, 1, (size_t)n, t->file) == n;
    if (whole) header = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &problem);
    if (!whole)
        fail(*code, "%s: ends within its header", t->path);
    else if (!json_is_object(header))
        fail(*code, "%s: the header is not a JSON object: %s", t->path,
             header ? "it is another value" : problem.text);
    free(text);
    if (json_is_object(header)) {
        *begin = 8 + n;
        return header;
    }
    json_decref(header);
    return NULL;
}

/* "[2, 3, 32, 32]" of a JSON array into out. */
static void shape_text(const json_t *shape, char *out, size_t size)
{
    char *text = json_dumps(shape, JSON_ENCODE_ANY);
    snprintf(out, size, "%s", text ? text : "?");
    free(text);
}

/* Tensors that could hold pictures are named first. */
static bool looks_like_pictures(const json_t *entry)
{
    json_t *shape = json_object_get(entry, "shape");
    size_t n = json_array_size(shape);
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    return type && strcmp(type, "F32") == 0 && (n == 3 || n == 4) &&
           json_integer_value(json_array_get(shape, n - 3)) == 3;
}

static int no_such_tensor(const tensor_in *t, json_t *header)
{
    enum { SHOWN = 12 };
    buffer list = { 0 };
    size_t n = 0, shown = 0;
    const char *name;
    json_t *entry;
    for (int likely = 1; likely >= 0; likely--)
        json_object_foreach(header, name, entry)
        {
            if (strcmp(name, "__metadata__") == 0 || looks_like_pictures(entry) != likely) continue;
            char shape[96];
            n++;
            if (shown == SHOWN) continue;
            shown++;
            shape_text(json_object_get(entry, "shape"), shape, sizeof shape);
            buffer_text(&list, "\n  ");
            buffer_text(&list, name);
            buffer_text(&list, " ");
            buffer_text(&list, shape);
        }
    int code = fail(EXIT_USAGE, "%s: has no tensor \"%s\"; write FILE:TENSOR. It has%s", t->path,
                    t->name, n ? (list.bytes ? list.bytes : "") : " none at all");
    if (n > shown) fprintf(stderr, "  and %zu more\n", n - shown);
    buffer_free(&list);
    return code;
}

/* Dimensions and their product; false when they are no sizes. */
static bool read_shape(tensor_in *t, const json_t *shape, uint64_t *count)
{
    t->n_dims = json_array_size(shape);
    if (!json_is_array(shape) || t->n_dims > TENSOR_DIMS) return false;
    *count = 1;
    for (size_t i = 0; i < t->n_dims; i++) {
        json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0) return false;
        t->dims[i] = (size_t)json_integer_value(dim);
        if (__builtin_mul_overflow(*count, (uint64_t)t->dims[i], count)) return false;
    }
    return *count <= UINT64_MAX / sizeof(float);
}

/* One entry of the header, compared with the data from begin to end. */
static int read_entry(tensor_in *t, const json_t *entry, uint64_t begin, uint64_t end)
{
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    json_t *offsets = json_object_get(entry, "data_offsets");
    json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    uint64_t count = 0;
    if (!type || strcmp(type, "F32") != 0)
        return fail(CORVID_E_FORMAT, "%s: tensor \"%s\" is of type %s; expected F32", t->path,
                    t->name, type ? type : "unknown");
    if (!read_shape(t, json_object_get(entry, "shape"), &count))
        return fail(CORVID_E_FORMAT, "%s: tensor \"%s\" has no valid shape", t->path, t->name);
    if (!json_is_integer(from) || !json_is_integer(to) || json_integer_value(from) < 0 ||
        json_integer_value(to) < json_integer_value(from) ||
        (uint64_t)json_integer_value(to) > end - begin)
        return fail(CORVID_E_FORMAT,
                    "%s: tensor \"%s\" does not lie within the file, which has %llu "
                    "bytes of data",
                    t->path, t->name, (unsigned long long)(end - begin));
    uint64_t bytes = (uint64_t)(json_integer_value(to) - json_integer_value(from));
    if (bytes != count * sizeof(float))
        return fail(CORVID_E_FORMAT, "%s: tensor \"%s\" has %llu bytes; its shape needs %llu",
                    t->path, t->name, (unsigned long long)bytes,
                    (unsigned long long)(count * sizeof(float)));
    t->begin = begin + (uint64_t)json_integer_value(from);
    return 0;
}

int tensor_in_open(tensor_in *t, const char *spec, const char *name)
{
    uint64_t begin = 0, end = 0;
    int code = 0;
    *t = (tensor_in){ 0 };
    split_spec(t, spec, name);
    t->file = fopen(t->path, "rb");
    if (!t->file) return fail(CORVID_E_FILE, "%s: cannot be opened: %s", t->path, strerror(errno));
    json_t *header = read_header(t, &begin, &end, &code);
    if (!header) return code;
    json_t *entry = json_object_get(header, t->name);
    code = entry && strcmp(t->name, "__metadata__") != 0 ? read_entry(t, entry, begin, end)
                                                         : no_such_tensor(t, header);
    json_decref(header);
    return code;
}

int tensor_in_read(tensor_in *t, size_t first, size_t n, float *out)
{
    unsigned char bytes[PIECE * sizeof(float)];
    if (fseeko(t->file, (off_t)(t->begin + first * sizeof(float)), SEEK_SET) != 0)
        return fail(CORVID_E_FILE, "%s: cannot be read: %s", t->path, strerror(errno));
    for (size_t at = 0; at < n;) {
        size_t m = n - at < PIECE ? n - at : PIECE;
        if (fread(bytes, sizeof(float), m, t->file) != m)
            return fail(CORVID_E_FILE, "%s: cannot be read: %s", t->path,
                        ferror(t->file) ? strerror(errno) : "it became shorter");
        for (size_t i = 0; i < m; i++, at++) {
            const unsigned char *b = bytes + i * sizeof(float);
            uint32_t bits =
                (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
            memcpy(out + at, &bits, sizeof bits);
        }
    }
    return 0;
}

void tensor_in_close(tensor_in *t)
{
    if (t->file) fclose(t->file);
    free(t->path);
    free(t->name);
    *t = (tensor_in){ 0 };
}

int tensor_in_pictures(const tensor_in *t, size_t *n, size_t *height, size_t *width)
{
    size_t d = t->n_dims;
    bool good = (d == 3 || d == 4) && t->dims[d - 3] == 3;
    for (size_t i = 0; i < d; i++)
        good = good && t->dims[i] > 0;
    if (good) {
        *n = d == 4 ? t->dims[0] : 1;
        *height = t->dims[d - 2];
        *width = t->dims[d - 1];
        return 0;
    }
    buffer shape = { 0 };
    for (size_t i = 0; i < d; i++) {
        char text[32];
        snprintf(text, sizeof text, "%s%zu", i ? ", " : "", t->dims[i]);
        buffer_text(&shape, text);
    }
    int code = fail(CORVID_E_FORMAT,
                    "%s: tensor \"%s\" has shape [%s]; expected [pictures, 3, height, width] or "
                    "[3, height, width]",
                    t->path, t->name, shape.bytes ? shape.bytes : "");
    buffer_free(&shape);
    return code;
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* A name, a type, eight dimensions and two offsets of twenty digits, and what JSON puts between. */
#define ENTRY_MOST (NAME_MOST + 64 + 10 * 21)

int tensor_out_open(tensor_out *out, const char *path, size_t n, size_t metadata)
{
    *out = (tensor_out){ 0 };
    if (n > HEADER_MOST / ENTRY_MOST || metadata > HEADER_MOST - n * ENTRY_MOST - 64)
        return fail(EXIT_USAGE,
                    "%s: this is too much for one safetensors file, whose header may "
                    "have %d bytes; divide the pictures among several",
                    path, HEADER_MOST);
    out->room =
        (n * ENTRY_MOST + metadata + 64 + 7) / 8 * 8; /* the data begins on a multiple of 8 */
    return new_file_open(&out->file, path);
}

size_t tensor_out_metadata(const char *text)
{
    return 7 * strlen(text) + 8; /* a control character becomes \u0001, and its backslash two */
}

size_t tensor_out_add(tensor_out *out, const char *name, size_t n_dims, const size_t *dims)
{
    out->tensors = cli_realloc(out->tensors, (out->n + 1) * sizeof *out->tensors);
    tensor_place *t = &out->tensors[out->n];
    *t = (tensor_place){ cli_copy(name), n_dims, { 0 }, out->end, 1, 0 };
    for (size_t i = 0; i < n_dims; i++) {
        t->dims[i] = dims[i];
        if (i) t->row *= dims[i];
    }
    out->end += (uint64_t)dims[0] * t->row * sizeof(float);
    return out->n++;
}

bool tensor_out_row(tensor_out *out, size_t tensor, const float *row)
{
    tensor_place *t = &out->tensors[tensor];
    FILE *file = out->file.file;
    unsigned char bytes[PIECE * sizeof(float)];
    off_t at = (off_t)(8 + out->room + t->begin + (uint64_t)t->used * t->row * sizeof(float));
    if (ftello(file) != at && fseeko(file, at, SEEK_SET) != 0) {
        out->why = errno;
        return false;
    }
    for (size_t done = 0; done < t->row;) {
        size_t m = t->row - done < PIECE ? t->row - done : PIECE;
        for (size_t i = 0; i < m; i++, done++) {
            uint32_t bits;
            memcpy(&bits, row + done, sizeof bits);
            for (size_t b = 0; b < 4; b++)
                bytes[4 * i + b] = (unsigned char)(bits >> (8 * b));
        }
        if (fwrite(bytes, sizeof(float), m, file) != m) {
            out->why = errno;
            return false;
        }
    }
    t->used++;
    return true;
}

/* Moves what lies behind rows that never came: from is never before to. */
static bool move_down(tensor_out *out, uint64_t from, uint64_t to, uint64_t n)
{
    unsigned char bytes[PIECE * sizeof(float)];
    int fd = fileno(out->file.file);
    off_t base = (off_t)(8 + out->room);
    for (uint64_t at = 0; at < n;) {
        size_t m = n - at < sizeof bytes ? (size_t)(n - at) : sizeof bytes;
        if (pread(fd, bytes, m, base + (off_t)(from + at)) != (ssize_t)m ||
            pwrite(fd, bytes, m, base + (off_t)(to + at)) != (ssize_t)m)
            return false;
        at += m;
    }
    return true;
}

/* Every tensor shrinks to the rows it has and stands right behind the one before. */
static bool close_gaps(tensor_out *out)
{
    uint64_t end = 0;
    if (fflush(out->file.file) != 0) return false;
    for (size_t i = 0; i < out->n; i++) {
        tensor_place *t = &out->tensors[i];
        uint64_t bytes = (uint64_t)t->used * t->row * sizeof(float);
        if (t->begin != end && !move_down(out, t->begin, end, bytes)) return false;
        t->begin = end;
        t->dims[0] = t->used;
        end += bytes;
    }
    out->end = end;
    return ftruncate(fileno(out->file.file), (off_t)(8 + out->room + end)) == 0;
}

static json_t *place_json(const tensor_place *t)
{
    json_t *shape = json_array();
    for (size_t i = 0; i < t->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->dims[i]));
    uint64_t end = t->begin + (uint64_t)t->used * t->row * sizeof(float);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets",
                     (json_int_t)t->begin, (json_int_t)end);
}

static bool write_header(const tensor_out *out, json_t *metadata)
{
    json_t *header = json_object();
    if (metadata) json_object_set_new(header, "__metadata__", metadata);
    for (size_t i = 0; i < out->n; i++)
        json_object_set_new(header, out->tensors[i].name, place_json(&out->tensors[i]));
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    size_t n = text ? strlen(text) : 0;
    bool good = n > 0 && n <= out->room && fseeko(out->file.file, 0, SEEK_SET) == 0;
    if (good) {
        unsigned char length[8];
        put_u64(length, out->room);
        fwrite(length, 1, sizeof length, out->file.file);
        fwrite(text, 1, n, out->file.file);
        for (; n < out->room; n++)
            fputc(' ', out->file.file); /* a failed write is found by new_file_keep */
    }
    free(text);
    return good;
}

static void free_places(tensor_out *out)
{
    for (size_t i = 0; i < out->n; i++)
        free(out->tensors[i].name);
    free(out->tensors);
    out->tensors = NULL;
    out->n = 0;
}

int tensor_out_keep(tensor_out *out, json_t *metadata)
{
    bool good = !out->why && close_gaps(out);
    int why = out->why ? out->why : errno;
    if (!good) json_decref(metadata);
    good = good && write_header(out, metadata);
    free_places(out);
    if (good) return new_file_keep(&out->file);
    int code = fail(CORVID_E_WRITE, "%s: cannot be written: %s", out->file.path,
                    strerror(why ? why : EIO));
    new_file_drop(&out->file);
    return code;
}

void tensor_out_drop(tensor_out *out)
{
    free_places(out);
    new_file_drop(&out->file);
}
