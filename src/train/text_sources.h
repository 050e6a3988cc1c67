/* text_sources.h - the documents of files, folders and memory, one after the other.
 *
 * A file NAME.jsonl has one document in each line, the field "text" of a JSON object; any other
 * file is one document, whatever its bytes are.  A folder stands for the .txt and .jsonl files in
 * it and below it, in the order of their names; names that begin with a dot are left out, and links
 * to folders are not followed. */
#ifndef CV_TEXT_SOURCES_H
#define CV_TEXT_SOURCES_H

#include "base/input.h"

typedef struct cv_text_source {
    const char *path;  /* of a file or folder; for memory a name for messages, may be NULL */
    const char *bytes; /* a document in memory, or NULL */
    size_t n;
} cv_text_source;

typedef struct cv_text_file {
    const char *path;
    const char *bytes; /* as above */
    uint64_t size;
    int64_t modified_ns; /* time of the last change; for memory the hash of the bytes */
} cv_text_file;

typedef struct cv_text_files {
    cv_arena arena; /* the list and the paths */
    cv_text_file *of;
    size_t n, capacity;
    uint64_t total_bytes;
    uint64_t hash; /* of all names, sizes and times */
} cv_text_files;

/* Finds the files; reads none of them.  CORVID_E_FILE for what is not there, and for a folder
 * without texts. */
corvid_status cv_text_files_find(const corvid_allocator *mem, const cv_text_source *sources,
                                 size_t n, cv_text_files *out, corvid_error *err);
void cv_text_files_free(cv_text_files *files);

/* Who gets the documents: each in one or more pieces, the last of them with `last` (it may be
 * empty).  A status other than CORVID_OK ends the reading. */
typedef struct cv_text_reader {
    void *ctx;
    corvid_status (*piece)(void *ctx, const char *bytes, size_t n, bool last, corvid_error *err);
    corvid_progress_fn progress; /* bytes; may be NULL */
    corvid_cancel_fn cancel;     /* may be NULL */
    void *callback_ctx;          /* of both */
} cv_text_reader;

/* Reads all documents.  Messages name the file, and in JSON lines the line. */
corvid_status cv_text_files_read(const cv_text_files *files, const cv_text_reader *reader,
                                 corvid_error *err);

#endif
