/* vocabulary.h - the tokenizer that belongs to a model: where it is looked for. */
#ifndef CV_VOCABULARY_H
#define CV_VOCABULARY_H

#include "formats/checkpoint.h"
#include "text/tokenizer.h"

/* Names under which the official vocabularies are published. */
#define CV_WORLD_FILE "rwkv_vocab_v20230424.txt"
#define CV_BPE_FILE   "20B_tokenizer.json"

/* Metadata that Corvid writes for a vocabulary inside safetensors (the text of the file). */
#define CV_VOCAB_KEY "corvid.vocab"
/* The GGUF key for a whole tokenizer.json. */
#define CV_BPE_KEY "tokenizer.huggingface.json"

/* Finds the tokenizer for a vocabulary of V:
 *   explicit_path   given by the user, or NULL: nothing else is tried then
 *   ckpt            may hold one; may be NULL
 *   model_path      whose folder is looked into; may be NULL
 *   folder          the data folder; may be NULL
 * V = 256 without any of these is the byte-level vocabulary.
 * CORVID_E_FILE says what to download and where to put it; CORVID_E_MISMATCH when the one found has
 * another size. */
corvid_status cv_vocabulary_find(const corvid_allocator *mem, size_t V, const char *explicit_path,
                                 const cv_checkpoint *ckpt, const char *model_path,
                                 const char *folder, cv_tokenizer **out, corvid_error *err);

/* From a file: a World vocabulary, a tokenizer.json, a GGUF or safetensors that holds one, or the
 * word "bytes". */
corvid_status cv_vocabulary_open(const corvid_allocator *mem, const char *path, cv_tokenizer **out,
                                 corvid_error *err);

/* A piece of a World vocabulary as GGUF spells it ('\n', '\xNN', ...), and back.  out has room for
 * 4 n + 1 and n bytes; both return the length. */
size_t cv_piece_escape(const char *bytes, size_t n, char *out);
size_t cv_piece_unescape(const char *text, size_t n, char *out);

#endif
