/* Linux's io_uring, as far as it is used: io_uring_setup(2), io_uring_enter(2). */

#ifndef PGPROXY_RING_H
#define PGPROXY_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sends in one system call; a power of two, as the kernel wants it. */
enum { MOST_SENDS = 32 };

/*
 * One send that does not wait. `result` is how many bytes were taken, or the negative of an errno: -EINPROGRESS where
 * that is not to be found out.
 */
typedef struct {
    int descriptor;
    const char *data;
    size_t size;
    int result;
} Send;

/* Where the kernel and we put what is to be done, and what was done. */
typedef struct {
    enum { RING_UNTRIED, RING_OPEN, RING_ABSENT } state;
    int descriptor;
    void *queues, *entries;
    size_t queues_size, entries_size;
    uint32_t *head, *tail, mask;
    uint32_t *done_head, *done_tail, done_mask;
    void *done;
} Ring;

/* Whether there is a ring; one is made when this is asked for the first time. */
bool ring_is_open(Ring *);
void ring_close(Ring *);
/* Do all of these, at most MOST_SENDS, in their order; where the ring fails, or has failed, without it. */
void ring_send(Ring *, Send *, size_t count);
/* send() that does not wait; as `result`. */
int send_now(int descriptor, const char *data, size_t size);

#endif
