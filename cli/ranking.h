/* ranking.h - the largest of many scores, and tables of classes. */
#ifndef CLI_RANKING_H
#define CLI_RANKING_H

#include "corvid.h"
#include "textio.h"

/* log(sum of e^row): what turns a logit into the logarithm of a probability. */
double log_sum(const float *row, size_t n);

/* The index of the largest entry that comes after last in falling order, ties by index; last = n
 * gives the first.  n when there is none left; what is not a number is never given. */
size_t next_largest(const float *row, size_t n, size_t last);

/* How many entries come before entry i in that order; n when it is not a number. */
size_t rank_of(const float *row, size_t n, size_t i);

/* The name of a class, "class 281" where it has none; room is for the latter. */
#define CLASS_TEXT 32
const char *class_label(const corvid_model *model, size_t i, char room[CLASS_TEXT]);

/* A table of the k likeliest classes. */
void print_classes(const corvid_model *model, const float *row, size_t n, size_t k);

/* A number of any value: null where JSON has none. */
json_t *json_number(double x);

#endif
