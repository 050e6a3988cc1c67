/* ranking.c - the largest of many scores, and tables of classes. */
#include "ranking.h"

#include <math.h>
#include <stdio.h>

double log_sum(const float *row, size_t n)
{
    double top = (double)row[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        top = fmax(top, (double)row[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)row[i] - top);
    return top + log(fmax(sum, 1)); /* the largest alone gives 1 */
}

size_t next_largest(const float *row, size_t n, size_t last)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++) {
        bool after = !isnan(row[i]);
        if (last < n) after = row[i] < row[last] || (i > last && row[i] == row[last]);
        if (after && (best == n || row[i] > row[best])) best = i;
    }
    return best;
}

size_t rank_of(const float *row, size_t n, size_t i)
{
    size_t before = 0;
    if (isnan(row[i])) return n;
    for (size_t k = 0; k < n; k++)
        before += row[k] > row[i] || (k < i && row[k] == row[i]);
    return before;
}

const char *class_label(const corvid_model *model, size_t i, char room[CLASS_TEXT])
{
    const char *name = corvid_class_name(model, i);
    if (name) return name;
    snprintf(room, CLASS_TEXT, "class %zu", i);
    return room;
}

void print_classes(const corvid_model *model, const float *row, size_t n, size_t k)
{
    char room[CLASS_TEXT];
    double whole = log_sum(row, n);
    puts("rank  class       logit  probability  name");
    for (size_t rank = 1, i = n; rank <= k; rank++) {
        i = next_largest(row, n, i);
        if (i == n) break;
        printf("%4zu %6zu  %10.5f     %8.5f  %s\n", rank, i, (double)row[i],
               exp((double)row[i] - whole), class_label(model, i, room));
    }
}

json_t *json_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}
