/* room.h - the memory that a lesson works in, and how a member of the team begins to walk in it. */
#ifndef CV_ROOM_H
#define CV_ROOM_H

#include "models/model.h"

typedef struct cv_room {
    cv_lesson_memory memory;
    size_t rows;
    float *values, *gradients, *kept, *members, *losses; /* losses [rows] */
    unsigned char *records;
    cv_first_come *first_come;
} cv_room;

/* Room for lessons of up to `rows` rows whose memory is as measured.  CORVID_E_MEMORY says how much
 * it would take; what was there before is gone either way. */
corvid_status cv_room_open(const corvid_allocator *mem, size_t members,
                           const cv_lesson_memory *memory, size_t rows, cv_room *room,
                           corvid_error *err);
void cv_room_close(const corvid_allocator *mem, cv_room *room); /* safe on a zeroed one */

/* Floats that it takes with so many members. */
size_t cv_room_floats(const cv_room *room, size_t members);

/* What the weights of a model and their gradients are to a tape. */
typedef struct cv_taped_weights {
    const float *values;
    float *gradients;
    size_t n;
} cv_taped_weights;

/* Makes a member's run and tape.  `back`: it will be walked back, nobody has come to the gradients
 * of values, and all members meet. */
void cv_room_enter(const cv_room *room, const cv_member *me, const cv_kernels *kernel,
                   const cv_taped_weights *weights, bool back, cv_run *run, cv_tape *tape);

#endif
