/*
 * Many sends by one system call.
 *
 * A send that does not wait is done, or refused, while io_uring_enter() submits it: the ring is empty again when that
 * returns, and is nothing but a way to call send() many times for the price of one call. Nothing is ever under way in
 * it. Where the kernel has no io_uring that can do so (before 6.0), or does not let us use it, there is none.
 */

#include "ring.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif

/* Where a process has threads, the C library's send() is a point at which a thread may be cancelled, which costs two
 * atomic operations each time. Nobody cancels ours. */
int
send_now(int descriptor, const char *data, size_t size)
{
    ssize_t taken = syscall(SYS_sendto, descriptor, data, size, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
    return taken < 0 ? -errno : (int)taken;
}

#if defined(IORING_FEAT_SINGLE_MMAP) && defined(SYS_io_uring_enter)

#ifndef IORING_SETUP_SUBMIT_ALL
#define IORING_SETUP_SUBMIT_ALL (1U << 7)
#endif
#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif

static void *
map(Ring *ring, size_t size, off_t what)
{
    void *place = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->descriptor, what);
    return place == MAP_FAILED ? NULL : place;
}

static bool
ring_open(Ring *ring)
{
    struct io_uring_params given = {
        .flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER,
    };
    ring->descriptor = (int)syscall(SYS_io_uring_setup, MOST_SENDS, &given);
    if (ring->descriptor < 0) {
        return false;
    }
    size_t asked = given.sq_off.array + given.sq_entries * sizeof(uint32_t);
    size_t done = given.cq_off.cqes + given.cq_entries * sizeof(struct io_uring_cqe);
    ring->queues_size = asked > done ? asked : done;
    ring->entries_size = given.sq_entries * sizeof(struct io_uring_sqe);
    ring->queues = given.features & IORING_FEAT_SINGLE_MMAP ? map(ring, ring->queues_size, IORING_OFF_SQ_RING) : NULL;
    ring->entries = map(ring, ring->entries_size, IORING_OFF_SQES);
    if (ring->queues == NULL || ring->entries == NULL) {
        ring_close(ring);
        return false;
    }
    char *queues = ring->queues;
    ring->head = (uint32_t *)(queues + given.sq_off.head);
    ring->tail = (uint32_t *)(queues + given.sq_off.tail);
    ring->mask = *(uint32_t *)(queues + given.sq_off.ring_mask);
    ring->done_head = (uint32_t *)(queues + given.cq_off.head);
    ring->done_tail = (uint32_t *)(queues + given.cq_off.tail);
    ring->done_mask = *(uint32_t *)(queues + given.cq_off.ring_mask);
    ring->done = queues + given.cq_off.cqes;
    uint32_t *order = (uint32_t *)(queues + given.sq_off.array);
    for (uint32_t at = 0; at < given.sq_entries; at++) {
        order[at] = at;
    }
    return true;
}

bool
ring_is_open(Ring *ring)
{
    if (ring->state == RING_UNTRIED) {
        ring->state = ring_open(ring) ? RING_OPEN : RING_ABSENT;
    }
    return ring->state == RING_OPEN;
}

void
ring_close(Ring *ring)
{
    if (ring->queues != NULL) {
        munmap(ring->queues, ring->queues_size);
    }
    if (ring->entries != NULL) {
        munmap(ring->entries, ring->entries_size);
    }
    if (ring->descriptor > 0) {
        close(ring->descriptor);
    }
    *ring = (Ring){.state = RING_ABSENT};
}

/* Have the kernel do what was written down; how much of it, it has taken. */
static size_t
submit(Ring *ring, size_t count)
{
    size_t taken = 0;
    while (taken < count) {
        long more = syscall(SYS_io_uring_enter, ring->descriptor, count - taken, 0, 0, NULL, 0);
        if (more > 0) {
            taken += (size_t)more;
        } else if (more == 0 || errno != EINTR) {
            break;
        }
    }
    return taken;
}

static bool
wait_for_one(Ring *ring)
{
    long done;
    do {
        done = syscall(SYS_io_uring_enter, ring->descriptor, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    } while (done < 0 && errno == EINTR);
    return done >= 0;
}

/* Read what has become of the sends; how many there are. */
static size_t
reap(Ring *ring, Send *sends)
{
    const struct io_uring_cqe *done = ring->done;
    uint32_t head = *ring->done_head, end = __atomic_load_n(ring->done_tail, __ATOMIC_ACQUIRE);
    size_t count = end - head;
    for (; head != end; head++) {
        const struct io_uring_cqe *one = &done[head & ring->done_mask];
        sends[one->user_data].result = one->res;
    }
    __atomic_store_n(ring->done_head, head, __ATOMIC_RELEASE);
    return count;
}

static void
send_singly(Send *sends, size_t count)
{
    for (size_t at = 0; at < count; at++) {
        sends[at].result = send_now(sends[at].descriptor, sends[at].data, sends[at].size);
    }
}

void
ring_send(Ring *ring, Send *sends, size_t count)
{
    if (ring->state != RING_OPEN) {
        /* It has failed since the turn began. */
        send_singly(sends, count);
        return;
    }
    struct io_uring_sqe *entries = ring->entries;
    uint32_t tail = *ring->tail;
    for (size_t at = 0; at < count; at++, tail++) {
        sends[at].result = -EINPROGRESS;
        entries[tail & ring->mask] = (struct io_uring_sqe){
            .opcode = IORING_OP_SEND,
            .fd = sends[at].descriptor,
            .addr = (uintptr_t)sends[at].data,
            .len = (uint32_t)sends[at].size,
            .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL,
            .user_data = at,
        };
    }
    __atomic_store_n(ring->tail, tail, __ATOMIC_RELEASE);
    size_t taken = submit(ring, count), known = reap(ring, sends);
    if (taken == count && known == count) {
        return;
    }
    /* It does not do what it should, and is not used again. What it has taken it has done, or does before it ends. */
    while (known < taken && wait_for_one(ring)) {
        known += reap(ring, sends);
    }
    ring_close(ring);
    send_singly(sends + taken, count - taken);
}

#else

bool
ring_is_open(Ring *ring)
{
    return false;
}

void
ring_close(Ring *ring)
{
}

void
ring_send(Ring *ring, Send *sends, size_t count)
{
}

#endif
