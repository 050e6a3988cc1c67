/* pickle_tree.c - looking at what pickle.c has read: keys of dicts, texts, texts for messages. */
#include <string.h>

#include "formats/pickle.h"

char *cv_pickle_show(char *out, size_t room, const char *text, size_t n)
{
    size_t i = 0;
    for (; i < n && i + 1 < room; i++)
        out[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    out[i] = '\0';
    return out;
}

bool cv_pickle_text_is(const cv_pickled *value, const char *text)
{
    return value->type == CV_PICKLED_TEXT && value->n == strlen(text) &&
           memcmp(value->as.text, text, value->n) == 0;
}

const cv_pickled *cv_pickle_get(const cv_pickled *dict, const char *key)
{
    if (dict->type != CV_PICKLED_DICT) return NULL;
    const cv_pickled_items *items = dict->as.items;
    for (size_t i = items->n; i >= 2; i -= 2)
        if (cv_pickle_text_is(&items->at[i - 2], key)) return &items->at[i - 1];
    return NULL;
}
