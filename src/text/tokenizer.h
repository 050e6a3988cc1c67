/* tokenizer.h - text to token ids and back.
 *
 * Three kinds: the World vocabulary (greedy longest match over bytes, [tok.world]), the GPT-NeoX
 * 20B byte-pair encoding ([tok.bpe]), and plain bytes (id = byte).  A tokenizer is immutable and
 * shared by threads. */
#ifndef CV_TOKENIZER_H
#define CV_TOKENIZER_H

#include "base/memory.h"

typedef struct cv_tokenizer cv_tokenizer;

typedef enum cv_tokenizer_kind { CV_TOK_BYTES, CV_TOK_WORLD, CV_TOK_BPE } cv_tokenizer_kind;

/* From the text of rwkv_vocab_v20230424.txt (or a file of that form). */
corvid_status cv_tokenizer_world(const corvid_allocator *mem, const char *text, size_t n,
                                 const char *name, cv_tokenizer **out, corvid_error *err);

/* From a list of byte strings, id = index (GGUF); an empty string has no text (padding, id 0). */
corvid_status cv_tokenizer_pieces(const corvid_allocator *mem, const char *const *bytes,
                                  const size_t *lengths, size_t n, cv_tokenizer **out,
                                  corvid_error *err);

/* From the text of a Hugging Face tokenizer.json of the GPT-NeoX family. */
corvid_status cv_tokenizer_bpe(const corvid_allocator *mem, const char *json, size_t n,
                               const char *name, cv_tokenizer **out, corvid_error *err);

corvid_status cv_tokenizer_bytes(const corvid_allocator *mem, cv_tokenizer **out,
                                 corvid_error *err);

/* Any of the first and third by looking at the text ("{" begins JSON). */
corvid_status cv_tokenizer_parse(const corvid_allocator *mem, const char *text, size_t n,
                                 const char *name, cv_tokenizer **out, corvid_error *err);

void cv_tokenizer_free(cv_tokenizer *tok);
cv_tokenizer_kind cv_tokenizer_kind_of(const cv_tokenizer *tok);
size_t cv_tokenizer_size(const cv_tokenizer *tok); /* largest id + 1 */

/* Encodes n bytes.  *ids is a fresh allocation of mem (cv_free it), *count its length; an empty
 * text gives count 0.  World and bytes accept any bytes; BPE wants UTF-8 and replaces what is not
 * by U+FFFD, as the reference does. */
corvid_status cv_tokenizer_encode(const cv_tokenizer *tok, const corvid_allocator *mem,
                                  const char *text, size_t n, int32_t **ids, size_t *count,
                                  corvid_error *err);

/* The bytes of one token (borrowed; empty for ids without text or out of range).  Concatenating
 * the pieces of an encoding gives the text back (for BPE its NFC form). */
const char *cv_tokenizer_piece(const cv_tokenizer *tok, int32_t id, size_t *n);

#endif
