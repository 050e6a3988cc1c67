/* text_sources.h - the documents of files, folders and memory, one after the other.
 *
 * A file NAME.jsonl has one document in each line, the field "text" of a JSON object.  NAME.bin and
 * NAME.idx are a data set of tokens (binidx.h), whichever of the two is named.  Any other file is
 * one document, whatever its bytes are.  A folder stands for the .txt and .jsonl files in it and
 * below it, in the order of their names; names that begin with a dot are left out, and links to
 * folders are not followed.  The path "-" is the standard input of the process, one document; it is
 * read to its end when the documents are, and not before. */
#ifndef CV_TEXT_SOURCES_H
#define CV_TEXT_SOURCES_H

#include "base/input.h"

typedef struct cv_text_source {
    const char *path;  /* file, folder or "-"; for memory a name for messages, may be NULL */
    const char *bytes; /* a document in memory, or NULL */
    size_t n;
} cv_text_source;

typedef enum cv_text_kind {
    CV_TEXT_PLAIN,
    CV_TEXT_JSON_LINES,
    CV_TEXT_TOKENS, /* a data set of tokens */
    CV_TEXT_STREAM  /* standard input */
} cv_text_kind;

typedef struct cv_text_file {
    const char *path;
    const char *bytes; /* as above */
    cv_text_kind kind;
    uint64_t size;       /* of a stream 0: nobody knows */
    int64_t modified_ns; /* time of the last change; for memory the hash of the bytes */
} cv_text_file;

typedef struct cv_text_files {
    cv_arena arena; /* the list and the paths */
    cv_text_file *of;
    size_t n, capacity;
    uint64_t total_bytes; /* without those of a stream */
    uint64_t hash;        /* of all names, sizes and times */
    bool has_stream;      /* whose text neither size nor time tells apart: see text_data.h */
} cv_text_files;

/* Finds the files; reads none of them.  CORVID_E_FILE for what is not there, and for a folder
 * without texts; CORVID_E_ARGUMENT for "-" a second time. */
corvid_status cv_text_files_find(const corvid_allocator *mem, const cv_text_source *sources,
                                 size_t n, cv_text_files *out, corvid_error *err);
void cv_text_files_free(cv_text_files *files);

/* Who gets the documents: each in one or more pieces, the last of them with `last` (it may be
 * empty).  A status other than CORVID_OK ends the reading. */
typedef struct cv_text_reader {
    void *ctx;
    corvid_status (*piece)(void *ctx, const char *bytes, size_t n, bool last, corvid_error *err);
    /* The same for documents that are tokens; NULL: data sets of tokens are refused. */
    corvid_status (*ids)(void *ctx, const int32_t *ids, size_t n, bool last, corvid_error *err);
    uint64_t vocabulary_size;    /* the ids are less */
    corvid_progress_fn progress; /* bytes; may be NULL.  With a stream the total is 0: not known */
    corvid_cancel_fn cancel;     /* may be NULL */
    void *callback_ctx;          /* of both */
} cv_text_reader;

/* Reads all documents.  Messages name the file, and in JSON lines the line.
 *   *bytes  what was read, that of a stream too; may be NULL */
corvid_status cv_text_files_read(const cv_text_files *files, const cv_text_reader *reader,
                                 uint64_t *bytes, corvid_error *err);

#endif
