/*
 * What is sent in a turn of the reactor, gathered to be sent by one system call.
 *
 * Only what is plain is gathered, and only while no method in Python runs, but a clock's: whoever calls one empties
 * the outbox first (`apply`, `call_python`). So no Python ever sees a stream whose bytes are said to be sent, and are
 * not in its socket.
 */

#include "twin.h"

#include <errno.h>

/* Where more is sent at once, a system call matters little, and the memory has to be kept. */
#define MOST_GATHERED 4096

/* Whether something waits here that is to be sent before what this stream sends next. */
bool
outbox_is_in_the_way(const Outbox *outbox, const PyObject *stream)
{
    for (size_t at = 0; at < outbox->count; at++) {
        if (outbox->streams[at] == stream) {
            return true;
        }
    }
    return outbox->count == MOST_SENDS;
}

/* Do what is to be done in Python where not all has been sent; see Stream.write. */
static int
settle(State *state, PyObject *stream, PyObject *data, int result)
{
    PyObject *all[] = {stream, data, NULL};
    if (result >= 0 || result == -EAGAIN || result == -EINTR) {
        all[2] = PyLong_FromLong(result < 0 ? 0 : result);
        int done = all[2] == NULL ? -1 : ignore(call_python(state, call__keep, all, 3));
        Py_XDECREF(all[2]);
        return done;
    }
    int done = ignore(call_python(state, call__fail_writing, all, 1));
    /* With this it is known not to have been received. */
    return done < 0 || result == -EINPROGRESS ? done : ignore(call_python(state, call__not_sent, all, 2));
}

/* Write to a plain stream for which nothing waits, here or there; -1 with an exception. */
int
post(State *state, PyObject *stream, int descriptor, PyObject *data)
{
    Outbox *outbox = &state->outbox;
    size_t size = (size_t)PyBytes_GET_SIZE(data);
    if (!outbox->open || size > MOST_GATHERED) {
        int result = send_now(descriptor, PyBytes_AS_STRING(data), size);
        return result == (int)size ? 0 : settle(state, stream, data, result);
    }
    outbox->streams[outbox->count] = Py_NewRef(stream);
    outbox->data[outbox->count] = Py_NewRef(data);
    outbox->sends[outbox->count] = (Send){descriptor, PyBytes_AS_STRING(data), size, 0};
    outbox->count++;
    return 0;
}

/* Send what is there; -1 with an exception, which is no stream's fault. */
int
empty_outbox(State *state)
{
    Outbox *outbox = &state->outbox;
    PyObject *streams[MOST_SENDS], *data[MOST_SENDS];
    Send sends[MOST_SENDS];
    size_t count = outbox->count;
    int done = 0;
    /* What is settled may call Python, and more may be gathered then. */
    memcpy(streams, outbox->streams, count * sizeof *streams);
    memcpy(data, outbox->data, count * sizeof *data);
    memcpy(sends, outbox->sends, count * sizeof *sends);
    outbox->count = 0;
    if (count == 1) {
        sends[0].result = send_now(sends[0].descriptor, sends[0].data, sends[0].size);
    } else {
        ring_send(&state->ring, sends, count);
        outbox->gathered += count;
    }
    for (size_t at = 0; at < count; at++) {
        int result = sends[at].result;
        if (UNLIKELY(result != (int)sends[at].size) && settle(state, streams[at], data[at], result) < 0
            && broke(state, outbox->reactor, streams[at]) < 0) {
            done = -1;
        }
        Py_DECREF(streams[at]);
        Py_DECREF(data[at]);
    }
    return done;
}
