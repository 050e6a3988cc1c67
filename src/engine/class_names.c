/* class_names.c - finding the names of classes; see class_names.h. */
#include <stdio.h>
#include <string.h>

#include "engine/class_names.h"

#define FILE_LIMIT ((size_t)16 << 20)

void cv_class_names_free(const corvid_allocator *mem, cv_class_names *names)
{
    cv_free(mem, names->text);
    cv_free(mem, names->names);
    *names = (cv_class_names){ .n = 0 };
}

/* Cuts a text at line ends, in place.  Lines of [0, n) at most; returns how many there are. */
static size_t cut_lines(char *text, size_t size, char **lines, size_t n)
{
    size_t count = 0;
    for (size_t at = 0; at < size;) {
        char *line = text + at, *end = memchr(line, '\n', size - at);
        const size_t length = end ? (size_t)(end - line) : size - at;
        at += length + 1;
        if (count < n) {
            line[length] = '\0';
            if (length && line[length - 1] == '\r') line[length - 1] = '\0';
            lines[count] = line;
        }
        count++;
    }
    return count;
}

/* Which column of a table with this first line holds the names; -1: it is no table. */
static int name_column(const char *head)
{
    int column = 0, found = -1;
    for (const char *at = head;; at++, column++) {
        const size_t n = strcspn(at, "\t");
        if (found < 0 && ((n == 10 && memcmp(at, "short_name", n) == 0) ||
                          (n == 4 && memcmp(at, "name", n) == 0)))
            found = column;
        at += n;
        if (*at == '\0') break;
    }
    return column > 0 ? found : -1;
}

/* Column `column` of a line, terminated in place. */
static char *take_column(char *line, int column)
{
    for (; column > 0 && line; column--) {
        line = strchr(line, '\t');
        if (line) line++;
    }
    if (!line) return NULL;
    line[strcspn(line, "\t")] = '\0';
    return line;
}

/* Takes over text, which is terminated behind its n bytes. */
static corvid_status parse(const corvid_allocator *mem, char *text, size_t n, const char *path,
                           cv_class_names *out, corvid_error *err)
{
    *out = (cv_class_names){ .text = text };
    size_t lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    corvid_status status = cv_alloc_or_fail(mem, lines + 1, sizeof *out->names, "class names",
                                            (void **)&out->names, err);
    if (status != CORVID_OK) goto fail;
    out->n = cut_lines(text, n, (char **)(void *)out->names, lines + 1);
    while (out->n && out->names[out->n - 1][0] == '\0')
        out->n--;
    if (out->n == 0) {
        status = cv_fail(err, CORVID_E_FORMAT, "%s: holds no class names", path);
        goto fail;
    }
    const int column = name_column(out->names[0]);
    if (column < 0) return CORVID_OK;
    memmove(out->names, out->names + 1, --out->n * sizeof *out->names);
    for (size_t i = 0; i < out->n; i++) {
        out->names[i] = take_column((char *)(size_t)out->names[i], column);
        if (!out->names[i]) {
            status = cv_fail(err, CORVID_E_FORMAT, "%s: line %zu has no column %d", path, i + 2,
                             column + 1);
            goto fail;
        }
    }
    return CORVID_OK;

fail:
    cv_class_names_free(mem, out);
    return status;
}

corvid_status cv_class_names_read(const corvid_allocator *mem, const char *path,
                                  cv_class_names *out, corvid_error *err)
{
    cv_input in;
    char *text = NULL;
    size_t n = 0;
    *out = (cv_class_names){ .n = 0 };
    CV_TRY(cv_input_open(&in, path, err));
    corvid_status status = cv_input_read_all(&in, mem, FILE_LIMIT, &text, &n, err);
    if (status == CORVID_OK) status = parse(mem, text, n, path, out, err);
    cv_input_close(&in);
    return status;
}

/* All texts of a list, a line each. */
static corvid_status from_texts(const corvid_allocator *mem, const cv_meta *meta, const char *path,
                                cv_class_names *out, corvid_error *err)
{
    size_t size = 1;
    for (size_t i = 0; i < meta->count; i++)
        size += meta->texts[i].n + 1;
    char *text = NULL, *at;
    CV_TRY(cv_alloc_or_fail(mem, size, 1, "class names", (void **)&text, err));
    at = text;
    for (size_t i = 0; i < meta->count; i++) {
        for (size_t j = 0; j < meta->texts[i].n; j++) {
            const char c = meta->texts[i].bytes[j];
            *at++ = c == '\n' || c == '\t' || c == '\0' ? ' ' : c;
        }
        *at++ = '\n';
    }
    *at = '\0';
    return parse(mem, text, (size_t)(at - text), path, out, err);
}

/* Those inside a checkpoint. */
static corvid_status from_checkpoint(const corvid_allocator *mem, const cv_checkpoint *ckpt,
                                     cv_class_names *out, corvid_error *err)
{
    const cv_meta *meta = cv_checkpoint_meta(ckpt, CV_CLASSES_KEY);
    if (!meta) meta = cv_checkpoint_meta(ckpt, "meta.CLASSES");
    if (!meta) return CORVID_OK;
    if (meta->type == CV_META_TEXTS) return from_texts(mem, meta, ckpt->in.path, out, err);
    if (meta->type != CV_META_TEXT) return CORVID_OK;
    char *text = NULL;
    CV_TRY(cv_alloc_or_fail(mem, meta->text.n + 1, 1, "class names", (void **)&text, err));
    memcpy(text, meta->text.bytes, meta->text.n);
    text[meta->text.n] = '\0';
    return parse(mem, text, meta->text.n, ckpt->in.path, out, err);
}

/* classes.tsv or classes.txt in a folder of n bytes, if it is there and has K names. */
static void from_folder(const corvid_allocator *mem, const char *folder, size_t n, size_t K,
                        cv_class_names *out)
{
    static const char *const files[] = { "classes.tsv", "classes.txt" };
    char path[4096];
    for (size_t i = 0; i < 2 && !out->names; i++) {
        if (n + 16 > sizeof path) return;
        snprintf(path, sizeof path, "%.*s/%s", (int)n, folder, files[i]);
        if (cv_class_names_read(mem, path, out, NULL) == CORVID_OK && out->n != K)
            cv_class_names_free(mem, out);
    }
}

corvid_status cv_class_names_find(const corvid_allocator *mem, size_t K, const char *explicit_path,
                                  const cv_checkpoint *ckpt, const char *model_path,
                                  const char *folder, cv_class_names *out, corvid_error *err)
{
    *out = (cv_class_names){ .n = 0 };
    if (explicit_path) {
        CV_TRY(cv_class_names_read(mem, explicit_path, out, err));
        if (out->n == K) return CORVID_OK;
        const size_t n = out->n;
        cv_class_names_free(mem, out);
        return cv_fail(err, CORVID_E_MISMATCH, "%s: holds %zu class names, the model has %zu",
                       explicit_path, n, K);
    }
    if (ckpt) CV_TRY(from_checkpoint(mem, ckpt, out, err));
    if (out->names && out->n != K) cv_class_names_free(mem, out);
    if (!out->names && model_path) {
        const char *slash = strrchr(model_path, '/');
        if (slash)
            from_folder(mem, model_path, (size_t)(slash - model_path), K, out);
        else
            from_folder(mem, ".", 1, K, out);
    }
    if (!out->names && folder) from_folder(mem, folder, strlen(folder), K, out);
    return CORVID_OK;
}
