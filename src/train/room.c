/* room.c - the memory that a lesson works in; see room.h. */
#include "train/room.h"

static size_t member_floats(const cv_room *room)
{
    return cv_padded(room->memory.own) + cv_padded(room->memory.matmul);
}

void cv_room_close(const corvid_allocator *mem, cv_room *room)
{
    cv_free(mem, room->values);
    cv_free(mem, room->gradients);
    cv_free(mem, room->kept);
    cv_free(mem, room->members);
    cv_free(mem, room->losses);
    cv_free(mem, room->records);
    cv_free(mem, room->first_come);
    *room = (cv_room){ .rows = 0 };
}

corvid_status cv_room_open(const corvid_allocator *mem, size_t members,
                           const cv_lesson_memory *memory, size_t rows, cv_room *room,
                           corvid_error *err)
{
    cv_room_close(mem, room);
    room->memory = *memory;
    room->values = cv_alloc_huge(mem, memory->values * sizeof(float));
    room->gradients = cv_alloc_huge(mem, memory->gradients * sizeof(float));
    room->kept = memory->kept ? cv_alloc_huge(mem, memory->kept * sizeof(float)) : NULL;
    room->members = cv_alloc_huge(mem, members * member_floats(room) * sizeof(float));
    room->losses = cv_alloc(mem, rows, sizeof *room->losses);
    room->records = cv_alloc(mem, members, memory->records);
    room->first_come = cv_alloc(mem, 1, sizeof *room->first_come);
    room->rows = rows;
    if (room->values && room->gradients && (room->kept || !memory->kept) && room->members &&
        room->losses && room->records && room->first_come)
        return CORVID_OK;
    cv_room_close(mem, room);
    return cv_fail(err, CORVID_E_MEMORY,
                   "out of memory: a batch of %zu rows takes %.1f MiB; make the batch smaller",
                   rows, (double)(memory->values + memory->gradients) * 4.0 / 1048576.0);
}

size_t cv_room_floats(const cv_room *room, size_t members)
{
    return room->memory.values + room->memory.gradients + room->memory.kept +
           members * member_floats(room);
}

void cv_room_enter(const cv_room *room, const cv_member *me, const cv_kernels *kernel,
                   const cv_taped_weights *weights, bool back, cv_run *run, cv_tape *tape)
{
    float *own = room->members + me->id * member_floats(room);
    *tape = (cv_tape){ .values = room->values,
                       .gradients = room->gradients,
                       .n_values = room->memory.values,
                       .n_gradients = room->memory.gradients,
                       .weights = weights->values,
                       .weight_gradients = weights->gradients,
                       .n_weights = weights->n,
                       .kept = room->kept,
                       .first_come = room->first_come,
                       .op = 1,
                       .own = own,
                       .records = room->records + me->id * room->memory.records,
                       .size = room->memory.records };
    *run = (cv_run){ .kernel = kernel, .me = me, .tape = tape };
    run->common.base = room->values;
    run->matmul = own + cv_padded(room->memory.own);
    if (!back) return;
    if (me->id == 0) cv_forget_gradients(tape);
    cv_barrier(me);
}
