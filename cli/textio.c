/* textio.c - memory, files, paths, token lists and JSON for the verbs. */
#include "textio.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "term.h"

/* ---- Memory ---------------------------------------------------------------------------------- */

void *cli_realloc(void *old, size_t bytes)
{
    void *p = realloc(old, bytes ? bytes : 1);
    if (!p) exit(fail(CORVID_E_MEMORY, "no memory for %zu bytes", bytes));
    return p;
}

void *cli_array(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p) exit(fail(CORVID_E_MEMORY, "no memory for %zu items of %zu bytes", n, size));
    return p;
}

char *cli_copy(const char *text)
{
    size_t n = strlen(text) + 1;
    return memcpy(cli_realloc(NULL, n), text, n);
}

void *cli_keep(void *memory)
{
    static void **kept;
    static size_t n;
    kept = cli_realloc(kept, (n + 1) * sizeof *kept);
    kept[n++] = memory;
    return memory;
}

void buffer_add(buffer *b, const char *bytes, size_t n)
{
    if (b->n + n + 1 > b->capacity) {
        b->capacity = 2 * (b->n + n) + 64;
        b->bytes = cli_realloc(b->bytes, b->capacity);
    }
    if (n) memcpy(b->bytes + b->n, bytes, n);
    b->n += n;
    b->bytes[b->n] = 0;
}

void buffer_text(buffer *b, const char *text)
{
    buffer_add(b, text, strlen(text));
}

void buffer_free(buffer *b)
{
    free(b->bytes);
    *b = (buffer){ 0 };
}

void tokens_add(token_list *list, int32_t id)
{
    if (list->n == list->capacity) {
        list->capacity = 2 * list->capacity + 64;
        list->ids = cli_realloc(list->ids, list->capacity * sizeof *list->ids);
    }
    list->ids[list->n++] = id;
}

void tokens_free(token_list *list)
{
    free(list->ids);
    *list = (token_list){ 0 };
}

/* ---- Files ----------------------------------------------------------------------------------- */

char *cli_user_path(const char *variable, const char *folder, const char *name)
{
    const char *root = getenv(variable), *home = getenv("HOME");
    bool own = root && root[0] == '/'; /* the XDG rules ignore relative paths */
    if (!own && (!home || !*home)) return NULL;
    buffer b = { 0 };
    buffer_text(&b, own ? root : home);
    if (!own) {
        buffer_text(&b, "/");
        buffer_text(&b, folder);
    }
    buffer_text(&b, "/corvid");
    if (name) {
        buffer_text(&b, "/");
        buffer_text(&b, name);
    }
    return b.bytes;
}

int cli_read(const char *path, buffer *out)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *file = standard ? stdin : fopen(path, "rb");
    if (!file) return fail(CORVID_E_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    char piece[16384];
    size_t n;
    buffer_add(out, "", 0);
    while ((n = fread(piece, 1, sizeof piece, file)) > 0)
        buffer_add(out, piece, n);
    int code = 0;
    if (ferror(file))
        code = term_signal() ? term_signal_code()
                             : fail(CORVID_E_FILE, "%s: cannot be read: %s",
                                    standard ? "standard input" : path, strerror(errno));
    if (!standard) fclose(file);
    return code;
}

int new_file_open(new_file *f, const char *path)
{
    buffer name = { 0 };
    buffer_text(&name, path);
    buffer_text(&name, ".XXXXXX");
    *f = (new_file){ NULL, cli_copy(path), name.bytes };
    int fd = mkstemp(name.bytes);
    mode_t mask = umask(0);
    umask(mask);
    if (fd >= 0 && fchmod(fd, 0666 & ~mask) == 0) f->file = fdopen(fd, "wb");
    if (f->file) return 0;
    int code = fail(CORVID_E_WRITE, "%s: cannot be created: %s", path, strerror(errno));
    if (fd >= 0) {
        close(fd);
        unlink(f->temporary);
    }
    free(f->path);
    free(f->temporary);
    return code;
}

/* Makes the rename itself durable. */
static void sync_folder(const char *path)
{
    char *folder = cli_copy(path);
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = 0;
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

int new_file_keep(new_file *f)
{
    bool good = fflush(f->file) == 0 && !ferror(f->file) && fsync(fileno(f->file)) == 0;
    int why = errno;
    if (fclose(f->file) != 0 && good) {
        good = false;
        why = errno;
    }
    if (good && rename(f->temporary, f->path) != 0) {
        good = false;
        why = errno;
    }
    int code = 0;
    if (good) {
        sync_folder(f->path);
    } else {
        unlink(f->temporary);
        code = fail(CORVID_E_WRITE, "%s: cannot be written: %s", f->path, strerror(why));
    }
    free(f->path);
    free(f->temporary);
    return code;
}

void new_file_drop(new_file *f)
{
    fclose(f->file);
    unlink(f->temporary);
    free(f->path);
    free(f->temporary);
}

/* ---- Tokens ---------------------------------------------------------------------------------- */

int cli_parse_ids(const char *what, const char *text, token_list *out)
{
    for (const char *at = text;;) {
        while (isspace((unsigned char)*at) || *at == ',')
            at++;
        if (!*at) return 0;
        char *end;
        errno = 0;
        unsigned long id = strtoul(at, &end, 10);
        bool whole = *end == 0 || *end == ',' || isspace((unsigned char)*end);
        if (!isdigit((unsigned char)*at) || !whole || errno || id > INT32_MAX)
            return fail(EXIT_USAGE, "%s: \"%.20s\" is not a token id; write \"1 2 3\"", what, at);
        tokens_add(out, (int32_t)id);
        at = end;
    }
}

int cli_encode(const corvid_tokenizer *tokenizer, const char *text, size_t n, token_list *out)
{
    if (n == 0) return 0;
    corvid_error err;
    size_t count = 0;
    /* The count alone is an answer even where room is missing. */
    corvid_status status = corvid_tokenize(tokenizer, text, n, NULL, 0, &count, &err);
    if (status) return fail_with(&err);
    if (out->n + count > out->capacity) {
        out->capacity = out->n + count;
        out->ids = cli_realloc(out->ids, out->capacity * sizeof *out->ids);
    }
    if (corvid_tokenize(tokenizer, text, n, out->ids + out->n, count, &count, &err))
        return fail_with(&err);
    out->n += count;
    return 0;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

int cli_print_json(json_t *value)
{
    int bad = json_dumpf(value, stdout, JSON_REAL_PRECISION(12));
    json_decref(value);
    putchar('\n');
    return bad ? fail(CORVID_E_WRITE, "cannot write JSON to standard output") : 0;
}

/* Length of the UTF-8 character at s, 0 when there is none. */
static size_t character(const unsigned char *s, size_t n)
{
    static const unsigned least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (s[0] < 0x80) return 1;
    size_t length = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || length > n) return 0;
    unsigned point = s[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        point = point << 6 | (s[i] & 0x3Fu);
    }
    bool surrogate = point >= 0xD800 && point <= 0xDFFF;
    return point < least[length] || point > 0x10FFFF || surrogate ? 0 : length;
}

json_t *cli_json_text(const char *bytes, size_t n)
{
    buffer clean = { 0 };
    buffer_add(&clean, "", 0);
    for (size_t i = 0; i < n;) {
        size_t length = character((const unsigned char *)bytes + i, n - i);
        if (length)
            buffer_add(&clean, bytes + i, length);
        else
            buffer_text(&clean, "\xEF\xBF\xBD");
        i += length ? length : 1;
    }
    json_t *text = json_stringn(clean.bytes, clean.n);
    buffer_free(&clean);
    return text;
}

json_t *cli_json_ids(const token_list *list)
{
    json_t *ids = json_array();
    for (size_t i = 0; i < list->n; i++)
        json_array_append_new(ids, json_integer(list->ids[i]));
    return ids;
}

const char *cli_size_text(uint64_t bytes, char out[SIZE_TEXT])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double v = (double)bytes;
    size_t unit = 0;
    for (; v >= 1024 && unit < 4; unit++)
        v /= 1024;
    snprintf(out, SIZE_TEXT, unit ? "%.1f %s" : "%.0f %s", v, units[unit]);
    return out;
}

int cli_make_folder(const char *path)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST) return 0;
    return fail(CORVID_E_WRITE, "%s: cannot make this folder: %s", path, strerror(errno));
}
