/* answer.c - the loop that writes, shared by generate and chat. */
#include "answer.h"

#include <stdlib.h>
#include <string.h>

#include "term.h"

/* ---- Stop strings ---------------------------------------------------------------------------- */

/* The first place at or after from where a stop string is complete, or n of the text. */
static size_t find_stop(const answer *a, size_t from)
{
    size_t first = a->text.n;
    for (size_t i = 0; i < a->n_stops; i++) {
        const char *found =
            memmem(a->text.bytes + from, a->text.n - from, a->stops[i], strlen(a->stops[i]));
        if (found && (size_t)(found - a->text.bytes) < first)
            first = (size_t)(found - a->text.bytes);
    }
    return first;
}

/* How many of the last bytes may be the beginning of a stop string. */
static size_t held_back(const answer *a)
{
    size_t held = 0;
    for (size_t i = 0; i < a->n_stops; i++) {
        size_t longest = strlen(a->stops[i]) - 1, open = a->text.n - a->shown;
        for (size_t n = longest < open ? longest : open; n > held; n--)
            if (memcmp(a->text.bytes + a->text.n - n, a->stops[i], n) == 0) held = n;
    }
    return held;
}

static bool show_up_to(answer *a, size_t end)
{
    size_t from = a->shown;
    a->shown = end;
    return end == from || !a->show || a->show(a->ctx, a->text.bytes + from, end - from);
}

/* Adds the bytes of one token and shows what may be shown.  *stopped: a stop string is complete,
 * and the text now ends before it.  false: cannot write. */
static bool add_piece(answer *a, const char *bytes, size_t n, bool *stopped)
{
    buffer_add(&a->text, bytes, n);
    size_t end = find_stop(a, a->shown);
    *stopped = end < a->text.n;
    if (*stopped) {
        a->text.n = end;
        a->text.bytes[end] = 0;
        return show_up_to(a, end);
    }
    size_t safe = a->text.n - held_back(a) - a->shown;
    return show_up_to(a, a->shown + corvid_utf8_complete(a->text.bytes + a->shown, safe));
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* Feeds one token.  Before the state reads past what is shown, the mark keeps it: the held bytes
 * may yet turn out to be cut off. */
static corvid_status read_token(answer *a, int32_t id, corvid_error *err)
{
    if (a->mark && a->fed <= a->shown && a->shown < a->text.n) {
        corvid_status status = corvid_stream_copy(a->mark, a->stream, err);
        if (status) return status;
        a->mark_at = a->fed;
    }
    uint64_t before = corvid_stream_position(a->stream);
    corvid_status status = corvid_feed(a->stream, &id, 1, a->logits, err);
    if (corvid_stream_position(a->stream) > before) a->fed = a->text.n; /* also when cancelled */
    return status;
}

/* Ends at what is shown: the rest is not part of the text. */
static answer_end cancelled(answer *a)
{
    a->text.n = a->shown;
    if (a->text.bytes) a->text.bytes[a->shown] = 0;
    return END_CANCELLED;
}

static answer_end cannot_write(corvid_error *err)
{
    err->status = CORVID_E_WRITE;
    snprintf(err->text, sizeof err->text, "cannot write the text");
    return END_FAILED;
}

static answer_end not_finite(corvid_error *err)
{
    err->status = CORVID_E_FORMAT;
    snprintf(err->text, sizeof err->text,
             "the model gave scores that are not finite numbers; are its weights damaged?");
    return END_FAILED;
}

answer_end answer_write(answer *a, corvid_error *err)
{
    for (uint64_t i = 0; i < a->limit; i++) {
        if (term_signal()) return cancelled(a);
        int32_t id = corvid_sample(a->sampler, a->logits);
        if (id < 0) return not_finite(err);
        if (id == 0 && !a->ignore_end)
            return show_up_to(a, a->text.n) ? END_TOKEN : cannot_write(err);
        size_t n = 0;
        bool stopped = false;
        const char *bytes = a->tokenizer ? corvid_token_bytes(a->tokenizer, id, &n) : NULL;
        if (!add_piece(a, bytes, n, &stopped)) return cannot_write(err);
        if (stopped) return END_STOP;
        tokens_add(&a->tokens, id);
        if (a->token && !a->token(a->ctx, id)) return cannot_write(err);
        if (i + 1 == a->limit && !a->mark) break; /* nobody will ask what comes next */
        corvid_status status = read_token(a, id, err);
        if (status == CORVID_E_CANCELLED) return cancelled(a);
        if (status) return END_FAILED;
    }
    return show_up_to(a, a->text.n) ? END_LENGTH : cannot_write(err);
}

const char *answer_end_name(answer_end end)
{
    static const char *const names[] = { "length", "stop", "end", "cancelled", "failed" };
    return names[end];
}

corvid_status answer_settle(answer *a, const char *close, float *logits, corvid_error *err)
{
    if (a->fed > a->text.n) {
        corvid_status status = corvid_stream_copy(a->stream, a->mark, err);
        if (status) return status;
        a->fed = a->mark_at;
    }
    buffer rest = { 0 };
    token_list ids = { 0 };
    if (a->fed < a->text.n) buffer_add(&rest, a->text.bytes + a->fed, a->text.n - a->fed);
    buffer_text(&rest, close);
    corvid_status status = CORVID_OK;
    size_t count = 0;
    term_defer_cancel(true);
    if (rest.n) status = corvid_tokenize(a->tokenizer, rest.bytes, rest.n, NULL, 0, &count, err);
    if (!status && count) {
        ids.ids = cli_array(count, sizeof *ids.ids);
        status = corvid_tokenize(a->tokenizer, rest.bytes, rest.n, ids.ids, count, &count, err);
        if (!status) status = corvid_feed(a->stream, ids.ids, count, logits, err);
    }
    term_defer_cancel(false);
    if (!status) a->fed = a->text.n;
    buffer_free(&rest);
    tokens_free(&ids);
    return status;
}

void answer_free(answer *a)
{
    buffer_free(&a->text);
    tokens_free(&a->tokens);
}
